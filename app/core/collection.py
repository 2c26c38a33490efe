"""Which days to collect, when a day is final, and what asking for them costs. Pure: today is passed in.

Facts of Cost Explorer: a request costs 0.01 USD, each page is one; daily history reaches back 13 months beside the
current one; a month may be updated until about two weeks after its end.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, datetime, timedelta
from decimal import Decimal
from typing import Final

from app.core.periods import DAY, DateRange, day_from, month_of, next_month
from app.errors import InvalidInput, Refused

PRICE: Final = Decimal("0.01")
"""US dollars for a request to Cost Explorer; every page is one."""

MONTHS: Final = 13
"""Full months before the current one that Cost Explorer has by day."""

TRAILING_DAYS: Final = 3
CLOSE_DAY: Final = 16
"""Day of the following month on which a month's figures are taken as final."""

ONE_CHUNK: Final = 62
"""Most days asked for at once: two months, so that a daily run is one question an account."""

FEW: Final = 2
"""Up to so many accounts it never pays to ask for the list of regions."""


def window(today: date, trailing_days: int = TRAILING_DAYS, close_day: int = CLOSE_DAY) -> DateRange:
    """The days of a daily run: the trailing ones up to yesterday, and the previous month until it closes."""
    start = today - timedelta(days=trailing_days)
    if today.day <= close_day:
        start = min(start, month_of(month_of(today) - DAY))
    return DateRange(start, today)


def asked(
    start: str | None, end: str | None, today: date, trailing_days: int = TRAILING_DAYS, close_day: int = CLOSE_DAY
) -> DateRange:
    """The days a person asked for (ISO, `end` exclusive), those of a daily run where nothing is said.

    Raises InvalidInput.
    """
    last = day_from(end, "end") if end is not None else today
    first = day_from(start, "start") if start is not None else window(last, trailing_days, close_day).start
    return checked(DateRange(first, last), today)


def is_final(day: date, collected: datetime, close_day: int = CLOSE_DAY) -> bool:
    """Whether figures of `day` that were asked for then are those of its closed month."""
    return collected.date() >= next_month(day).replace(day=close_day)


def oldest(today: date) -> date:
    """The first day Cost Explorer still has."""
    return months_before(today, MONTHS)


def months_before(today: date, months: int) -> date:
    """The first day of the month so many months before that of `today`."""
    first = month_of(today)
    for _ in range(months):
        first = month_of(first - DAY)
    return first


def checked(days: DateRange, today: date) -> DateRange:
    """Raises InvalidInput for days Cost Explorer has nothing of: not begun yet, or older than it keeps."""
    if days.end > today + DAY:
        raise InvalidInput(
            f"end {days.end} is after tomorrow, {today + DAY} (UTC). Cost Explorer has no future.", field="end"
        )
    if days.start < oldest(today):
        raise InvalidInput(
            f"start {days.start} is before {oldest(today)}: Cost Explorer keeps {MONTHS} months and the current one by day.",
            field="start",
        )
    return days


def history(months: int, today: date, kept_since: date | None) -> DateRange:
    """The days of a backfill of so many full months and the current one. Raises InvalidInput and Refused up front.

    `kept_since` is the first day the cost store keeps, None for all.
    """
    if not 1 <= months <= MONTHS:
        raise InvalidInput(
            f"months {months} is not 1 to {MONTHS}: Cost Explorer keeps {MONTHS} months and the current one by day.",
            field="months",
        )
    days = DateRange(months_before(today, months), today)
    if kept_since is not None and days.start < kept_since:
        raise Refused(
            f"{months} months reach back to {days.start}, but the cost store keeps {(today - kept_since).days + 1} days "
            f"(since {kept_since}): older files would be refused. Raise SPENDSCOPE_RETENTION_DAYS (0 keeps everything) "
            f"or ask for fewer months."
        )
    return days


def chunks(days: DateRange) -> list[DateRange]:
    """What is asked for at once, newest first: everything when it is short, else month by month."""
    return [days] if len(days) <= ONE_CHUNK else months_of(days)


def months_of(days: DateRange) -> list[DateRange]:
    """The months of a range, cut to it, newest first."""
    parts = [DateRange(max(first, days.start), min(next_month(first), days.end)) for first in days.months()]
    return parts[::-1]


@dataclass(frozen=True)
class Estimate:
    """What a collection will ask for: at least so many requests, for pages are only known when they come."""

    days: int
    requests: int
    accounts: int

    @property
    def price(self) -> Decimal:
        return self.requests * PRICE


def estimate(parts: list[DateRange], accounts: int, regions: int | None = None) -> Estimate:
    """Requests of these questions: the accounts, the regions where that may pay, the smaller loop, the totals."""
    loop = accounts if regions is None or accounts <= FEW else min(accounts, regions)
    each = 1 + (accounts > FEW) + max(loop, 1) + 1
    return Estimate(sum(len(part) for part in parts), each * len(parts), accounts)
