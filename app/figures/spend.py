"""Daily Spend Trends: what was spent each day, by the largest groups, over the same days before."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any, Final

import numpy as np

from app.core.rollup import CostFrame
from app.figures.theme import MUTED, OTHER, Figure, Floats, band, days_axis, escaped, money_axis, rounded, rounded_rows

SHOWN: Final = 6
"""Series in a stack; the others are one more, "Other"."""


@dataclass(frozen=True)
class Series:
    """One colour of the stack: `values` are per period, NaN where the day is unknown."""

    name: str
    colour: str
    values: Floats
    group: str | None


def stacked(frame: CostFrame, colours: Mapping[str, str], shown: int = SHOWN) -> list[Series]:
    """The largest groups of a frame grouped by one dimension, and the rest as "Other"."""
    # One group too many is shown rather than called "Other".
    count = len(frame.groups) if len(frame.groups) <= shown + 1 else shown
    series = [
        Series(group[0], colours[group[0]], frame.amounts[row], group[0])
        for row, group in enumerate(frame.groups[:count])
    ]
    rest = len(frame.groups) - count
    if rest:
        series.append(Series(f"{rest} others", OTHER, frame.amounts[count:].sum(axis=0), None))
    return series


def daily(
    frame: CostFrame,
    series: Sequence[Series],
    *,
    dimension: str,
    prefix: str,
    before: tuple[str, Floats] | None,
    settling: Sequence[int],
    unknown: Sequence[date],
) -> Figure:
    """Stacked bars a period; `settling` are positions of bars to hatch, `unknown` the days without data.

    `before` is the name and the totals of the same number of days before.
    """
    axis = days_axis(frame.periods, frame.query.granularity)
    heights = rounded_rows(np.array([item.values for item in series]))
    # Plotly stacks from the bottom: the largest comes first and lies at the base.
    data: list[dict[str, Any]] = [
        {
            "type": "bar",
            "name": escaped(item.name),
            "y": height,
            "marker": {"color": item.colour},
            "meta": {dimension: item.group} if item.group is not None else {},
            **axis,
        }
        for item, height in zip(series, heights, strict=True)
    ]
    if before is not None:
        data.append(_line_before(before, axis))
    layout: dict[str, Any] = {
        "barmode": "relative",
        "bargap": 0.22 if len(frame.periods) < 70 else 0.08,
        "hovermode": "x unified",
        "xaxis": _time_axis(frame),
        "yaxis": money_axis(prefix, np.abs(frame.amounts).sum(axis=0)),
        "meta": {"settling": list(settling), "zoom": frame.query.granularity == "daily"},
        "shapes": [band(day) for day in unknown],
        "margin": {"l": 52, "r": 8, "t": 22, "b": 28},
    }
    if settling and frame.query.granularity == "daily":
        layout["annotations"] = [_settling_note(frame, settling)]
    return {"data": data, "layout": layout}


def _line_before(before: tuple[str, Floats], axis: Mapping[str, Any]) -> dict[str, Any]:
    name, values = before
    return {
        "type": "scatter",
        "mode": "lines",
        "name": name,
        "y": rounded(values),
        "line": {"color": MUTED, "width": 1.5, "dash": "dot", "shape": "hvh"},
        **axis,
    }


def _time_axis(frame: CostFrame) -> dict[str, Any]:
    axis: dict[str, Any] = {"type": "date", "hoverformat": "%a %-d %b %Y", "nticks": 7, "tickformat": "%-d %b"}
    if frame.query.granularity == "monthly":
        return axis | {"tickformat": "%b %Y", "hoverformat": "%B %Y"}
    return axis


def _settling_note(frame: CostFrame, settling: Sequence[int]) -> dict[str, Any]:
    last = settling[-1]
    return {
        "text": "Settling", "x": frame.periods[last].isoformat(), "yref": "paper", "y": 1, "yanchor": "bottom",
        "xanchor": "right" if last > len(frame.periods) / 2 else "left", "xshift": 8, "showarrow": False,
        "font": {"size": 11},
    }  # fmt: skip
