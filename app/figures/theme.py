"""What all figures share: colours as names, safe texts, amounts in as few digits as the eye can use.

A figure is a plain dict of Plotly data and layout. Colours are names of CSS variables (`--c0`); the browser puts in
the colours of its theme and the template (assets/20-dashboard.js), so that a theme switch asks the server nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import date
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from app.core.periods import DAY

Figure = dict[str, Any]
Floats = NDArray[np.float64]

SLOTS: Final = tuple(f"--c{number}" for number in range(8))
OTHER: Final = "--other"
ACCENT: Final = "--accent"
MUTED: Final = "--muted"
SMALL: Final = 10.0
"""Below this Plotly's short numbers turn to thousandths."""
DAY_MILLISECONDS: Final = 86_400_000


def colours(values: Sequence[str], ranks: Mapping[str, int], shown: int = 7) -> dict[str, str]:
    """A colour for each value, the same in every view: its rank over the whole history decides, not today's order.

    Among the first `shown`, which stand side by side, values of a later rank take what is left. What follows keeps
    its own colour where that is free, and else has the colour of "Other".
    """
    own = {value: SLOTS[ranks[value]] for value in values if ranks.get(value, len(SLOTS)) < len(SLOTS)}
    found = {value: own[value] for value in values[:shown] if value in own}
    free = [slot for slot in SLOTS if slot not in found.values()]
    for value in values[:shown]:
        if value not in found:
            found[value] = free.pop(0) if free else OTHER
    for value in values[shown:]:
        found[value] = own[value] if own.get(value) in free else OTHER
    return found


def escaped(text: str) -> str:
    """Plotly reads a small HTML in every label; names of services are not ours to trust."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def clipped(text: str, most: int = 24) -> str:
    return text if len(text) <= most else text[: most - 1].rstrip() + "…"


def digits(values: Floats) -> int:
    """Decimals worth sending: cents, and more only when all amounts are tiny."""
    return _digits(largest(values))


def _digits(size: float) -> int:
    return 2 if size >= 10 else 4 if size >= 0.1 else 8


def largest(values: Floats) -> float:
    """The largest amount without its sign; 0 where nothing is known."""
    return float(np.fmax.reduce(np.abs(values), axis=None, initial=0.0))


def rounded(values: Floats) -> list[Any]:
    """Short numbers for a chart; unknown is a hole, never zero."""
    return holes(values.round(digits(values)))


def rounded_rows(rows: Floats) -> list[list[Any]]:
    """`rounded` of each row."""
    sizes = np.fmax.reduce(np.abs(rows), axis=1, initial=0.0).tolist()
    if len({_digits(size) for size in sizes}) == 1:
        return holes(rows.round(_digits(sizes[0])))
    return [rounded(row) for row in rows]


def holes(values: Floats) -> list[Any]:
    """As lists, with None for what is unknown."""
    plain: list[Any] = values.tolist()
    return _without_nan(plain) if np.isnan(values).any() else plain


def _without_nan(plain: list[Any]) -> list[Any]:
    return [_without_nan(item) if isinstance(item, list) else None if item != item else item for item in plain]


def days_axis(periods: Sequence[date], granularity: str) -> dict[str, Any]:
    """The x of a trace: first day and step for days, else the first days of the buckets."""
    if granularity == "daily":
        return {"x0": periods[0].isoformat(), "dx": DAY_MILLISECONDS}
    return {"x": [period.isoformat() for period in periods]}


def money_axis(prefix: str, values: Floats) -> dict[str, Any]:
    """An axis of amounts up to the largest of `values`: `$20k`, but `$0.5` and never `$500m`, which reads as millions."""
    small = largest(values) < SMALL
    return {
        "tickprefix": escaped(prefix),
        "tickformat": f",.{digits(values)}~f" if small else ",.3~s",
        "hoverformat": ",.2f",
        "rangemode": "tozero",
        "nticks": 5,
    }


def band(day: date) -> dict[str, Any]:
    """A grey band over a day. Bars and points lie on midnight, so the band is centred there."""
    return {
        "type": "rect", "xref": "x", "yref": "paper", "x0": f"{day - DAY} 12:00", "x1": f"{day} 12:00", "y0": 0, "y1": 1,
        "fillcolor": "--hole", "line": {"width": 0}, "layer": "below",
    }  # fmt: skip
