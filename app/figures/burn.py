"""A budget's period as one curve: what was spent, what is expected with its band, and the line it must stay below."""

from __future__ import annotations

from datetime import date
from typing import Any

import numpy as np

from app.core.periods import DateRange
from app.figures.theme import ACCENT, MUTED, Figure, Floats, days_axis, money_axis, rounded


def burn(
    days: DateRange, spent: Floats, expected: tuple[Floats, Floats, Floats] | None, amount: float, prefix: str,
    breach: date | None,
) -> Figure:  # fmt: skip
    """Running sums at the end of each day. `spent` is NaN from the first day that is not known on; `expected` (middle,
    low, high) is NaN before the last known one. Unknown is a hole, never zero."""
    axis = days_axis([days.start], "daily")
    line: dict[str, Any] = {"type": "scatter", "mode": "lines", **axis}
    data = []
    top = [spent, np.array([amount])]
    if expected is not None:
        middle, low, high = expected
        top.append(high)
        data += [
            line | {"name": "Expected from", "y": rounded(low), "line": {"width": 0}, "hoverinfo": "skip"},
            line | {
                "name": "Expected to", "y": rounded(high), "line": {"width": 0}, "hoverinfo": "skip",
                "fill": "tonexty", "fillcolor": "--hole",
            },
            line | {"name": "Expected", "y": rounded(middle), "line": {"color": MUTED, "width": 1.8, "dash": "dot"}},
        ]  # fmt: skip
    data.append(line | {"name": "Spent", "y": rounded(spent), "line": {"color": ACCENT, "width": 2.4}})
    budget = np.full(len(days), amount)
    data.append(
        line | {"name": "Budget", "y": rounded(budget), "line": {"color": "--up", "width": 1.6, "dash": "dash"}}
    )
    annotations = [_label(days.start, amount, "Budget")] + ([_day(breach)] if breach and breach in days else [])
    layout: dict[str, Any] = {
        "hovermode": "x unified",
        "xaxis": {"type": "date", "hoverformat": "%a %-d %b %Y", "nticks": 6, "tickformat": "%-d %b"},
        "yaxis": money_axis(prefix, np.concatenate(top)),
        "meta": {"zoom": False},
        "shapes": [_mark(breach)] if breach and breach in days else [],
        "margin": {"l": 56, "r": 12, "t": 24, "b": 28},
        "annotations": annotations,
    }
    return {"data": data, "layout": layout}


def _label(day: date, amount: float, text: str) -> dict[str, Any]:
    return {
        "text": text, "x": day.isoformat(), "y": amount, "xanchor": "left", "yanchor": "bottom", "showarrow": False,
        "font": {"size": 11},
    }  # fmt: skip


def _day(day: date) -> dict[str, Any]:
    return {
        "text": "Used up", "x": day.isoformat(), "yref": "paper", "y": 1, "yanchor": "bottom", "xanchor": "center",
        "showarrow": False, "font": {"size": 11},
    }  # fmt: skip


def _mark(day: date) -> dict[str, Any]:
    return {
        "type": "line", "xref": "x", "yref": "paper", "x0": day.isoformat(), "x1": day.isoformat(), "y0": 0, "y1": 1,
        "line": {"color": "--up", "width": 1.2, "dash": "dot"}, "layer": "below",
    }  # fmt: skip
