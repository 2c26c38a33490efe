"""Cost Comparison: the three ways the same usage is accounted for, day by day."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import date
from typing import Any, Final

import numpy as np

from app.figures.theme import Figure, Floats, band, days_axis, escaped, money_axis, rounded

LINES: Final = {
    "amortized_cost": {"color": "--c0", "width": 2.5, "dash": "solid"},
    "unblended_cost": {"color": "--c1", "width": 2, "dash": "dash"},
    "blended_cost": {"color": "--c2", "width": 2, "dash": "dot"},
}
"""Colour and dash of a cost type; the words beside the chart use the same."""

SPIKE: Final = 2.5
"""A day beyond this many times the second line's peak is cut off and labelled: a purchase must not flatten a month."""


def lines(
    values: Mapping[str, Floats],
    names: Mapping[str, str],
    periods: Sequence[date],
    *,
    granularity: str,
    prefix: str,
    short: Callable[[float], str],
    settling: Sequence[date] = (),
) -> Figure:
    """A line for each cost type that is available; a line can't be hatched, so settling days lie on a band."""
    axis = days_axis(periods, granularity)
    data = [
        {
            "type": "scatter", "mode": "lines", "name": names[metric], "y": rounded(values[metric]),
            "line": LINES[metric], **axis,
        }
        for metric in LINES
        if metric in values and not np.isnan(values[metric]).all()
    ]  # fmt: skip
    layout: dict[str, Any] = {
        "hovermode": "x unified",
        "xaxis": {"type": "date", "hoverformat": "%a %-d %b %Y", "nticks": 5, "tickformat": "%-d %b"},
        "yaxis": money_axis(prefix, np.concatenate([values[metric] for metric in values])),
        "shapes": [band(day) for day in settling],
        "margin": {"l": 52, "r": 12, "t": 14, "b": 28},
    }
    _cut_spike(layout, values, periods, short)
    return {"data": data, "layout": layout}


def _cut_spike(
    layout: dict[str, Any], values: Mapping[str, Floats], periods: Sequence[date], short: Callable[[float], str]
) -> None:
    usual = float(np.nanmax(values["amortized_cost"], initial=0.0))
    unblended = np.nan_to_num(values["unblended_cost"])
    peak = int(unblended.argmax())
    if not usual or unblended[peak] < SPIKE * usual:
        return
    top = usual * 1.5
    layout["yaxis"] = layout["yaxis"] | {"range": [0, top]}
    right = peak > len(periods) / 2
    layout["annotations"] = [
        {
            "text": escaped(f"{short(float(unblended[peak]))} unblended on {periods[peak].day} {periods[peak]:%b}"),
            "x": periods[peak].isoformat(), "y": top, "yanchor": "top", "xanchor": "right" if right else "left",
            "xshift": -6 if right else 6, "showarrow": False, "font": {"size": 11},
        }
    ]  # fmt: skip
