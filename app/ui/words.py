"""Figures, days and changes as people read them. Exact values stay reachable: whatever is shortened has a title."""

from __future__ import annotations

import math
from collections.abc import Sequence
from datetime import date
from decimal import Decimal
from typing import Final

from app.core.periods import DAY, DateRange

Number = Decimal | float | int
SYMBOLS: Final = {"USD": "$", "EUR": "€", "GBP": "£", "JPY": "¥", "INR": "₹", "CNY": "CN¥", "AUD": "A$", "CAD": "C$"}
MINUS: Final = "−"
UNKNOWN: Final = "—"
METRIC_NAMES: Final = {
    "amortized_cost": "Amortized",
    "blended_cost": "Blended",
    "unblended_cost": "Unblended",
    "usage_quantity": "Usage",
}


def symbol(currency: str) -> str:
    return SYMBOLS.get(currency) or currency + " "


def money(value: Number | None, currency: str, *, sign: bool = False) -> str:
    """`$4,321.09`; what is not zero never reads as zero: `<$0.01`. None is unknown, never $0."""
    if value is None or value != value:
        return UNKNOWN
    before = _sign(value, sign)
    if 0 < abs(float(value)) < 0.005:
        return f"{before}<{symbol(currency)}0.01"
    return f"{before}{symbol(currency)}{abs(value):,.2f}"


def short_money(value: Number | None, currency: str, *, sign: bool = False) -> str:
    """At most four digits: `$398.4k`, `$1.2M`, `$5,472`, `$7.21`."""
    if value is None or value != value:
        return UNKNOWN
    size = abs(float(value))
    if size < 100:
        return money(value, currency, sign=sign)
    return f"{_sign(value, sign)}{symbol(currency)}{_short(size)}"


def quantity(value: Number | None) -> str:
    """A usage quantity without its unit."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return UNKNOWN
    size = abs(float(value))
    if size >= 100:
        return _sign(value, False) + _short(size)
    if 0 < size < 0.005:
        return _sign(value, False) + "<0.01"
    return f"{_sign(value, False)}{size:,.2f}".rstrip("0").rstrip(".")


def percent(part: Number | None, whole: Number | None) -> str:
    """A share: `34.6 %`."""
    if part is None or not whole:
        return UNKNOWN
    share = float(part) / float(whole) * 100
    return f"{_sign(share, False)}{abs(share):.1f} %" if abs(share) >= 0.05 or not part else "<0.1 %"


def change(now: Number | None, before: Number | None) -> str:
    """How much more than before: `+3.8 %`, `×12` beyond tenfold, `new` when there was nothing."""
    if now is None or before is None:
        return UNKNOWN
    if not before:
        return "new" if now else "±0 %"
    ratio = float(now) / float(before)
    if ratio > 10:
        return f"×{ratio:,.0f}"
    if before < 0:
        return UNKNOWN
    moved = (ratio - 1) * 100
    return f"{_sign(moved, True)}{abs(moved):.1f} %" if abs(moved) >= 0.05 else "±0 %"


def day(value: date, *, year: bool = True) -> str:
    return f"{value.day} {value:%b %Y}" if year else f"{value.day} {value:%b}"


def day_range(days: DateRange) -> str:
    """Inclusive, as people say it: `25 Oct – 23 Nov 2026`."""
    if len(days) == 1:
        return day(days.start)
    return f"{day(days.start, year=days.start.year != days.last.year)} – {day(days.last)}"


def day_list(days: Sequence[date], most: int = 4) -> str:
    """`22–23 Nov`, `4 Nov, 9–11 Nov and 12 more`: runs of days, in order."""
    runs: list[tuple[date, date]] = []
    for value in sorted(days):
        if runs and value == runs[-1][1] + DAY:
            runs[-1] = (runs[-1][0], value)
        else:
            runs.append((value, value))
    texts = [_run(first, last) for first, last in runs[:most]]
    left = len(days) - sum((last - first).days + 1 for first, last in runs[:most])
    return ", ".join(texts) + (f" and {left} more" if left else "")


def weekday(value: date) -> str:
    return f"{value:%A} {day(value)}"


def size(count: int) -> str:
    """Bytes as people read them: `812 bytes`, `41.3 kB`, `2.1 MB`."""
    if count < 1000:
        return counted(count, "byte")
    for limit, divisor, unit in ((999_950, 1e3, "kB"), (999_950_000, 1e6, "MB")):
        if count < limit:
            return f"{count / divisor:,.1f} {unit}"
    return f"{count / 1e9:,.1f} GB"


def duration(seconds: float) -> str:
    """About how long: `18 s`, `4 min`, `2 h`, `3 days`."""
    if seconds < 90:
        return f"{max(seconds, 0):.0f} s"
    if seconds < 90 * 60:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.0f} h" if seconds < 48 * 3600 else f"{seconds / 86400:.0f} days"


def counted(count: int, noun: str) -> str:
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"


def joined(words: Sequence[str]) -> str:
    """`a`, `a or b`, `a, b or c`; a long list says how many more there are."""
    if len(words) > 3:
        return f"{words[0]}, {words[1]} or {len(words) - 2} more"
    return " or ".join(filter(None, [", ".join(words[:-1]), words[-1]]))


def _run(first: date, last: date) -> str:
    if first == last:
        return day(first, year=False)
    if first.month == last.month:
        return f"{first.day}–{day(last, year=False)}"
    return f"{day(first, year=False)} – {day(last, year=False)}"


def _short(size: Number) -> str:
    number = float(size)
    if number < 9_999.5:
        return f"{number:,.0f}"
    for limit, divisor, letter in ((999_950, 1e3, "k"), (999_950_000, 1e6, "M")):
        if number < limit:
            return f"{number / divisor:,.1f}{letter}"
    return f"{number / 1e9:,.1f}B"


def _sign(value: Number, always: bool) -> str:
    if value < 0:
        return MINUS
    return "+" if always and value > 0 else ""
