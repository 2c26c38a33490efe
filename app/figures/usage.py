"""Service Usage Quantities: small multiples, each on its own scale, because units differ and must not be compared."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any, Final

import numpy as np

from app.figures.theme import Figure, Floats, clipped, days_axis, escaped, rounded_rows

MOST: Final = 5
BARS: Final = 0.46
"""Of a row's height; above them are two lines of text."""
LONGEST_NAME: Final = 40


@dataclass(frozen=True)
class Usage:
    """One row: `values` are per period, NaN where unknown; `label` is the quantity in words."""

    name: str
    label: str
    colour: str
    values: Floats


def quantities(
    rows: Sequence[Usage], periods: Sequence[date], *, dimension: str, granularity: str, settling: Sequence[int]
) -> Figure:
    axis = days_axis(periods, granularity)
    step = 1 / max(len(rows), 1)
    layout: dict[str, Any] = {
        "hovermode": "x",
        "bargap": 0.25 if len(periods) < 70 else 0.08,
        "xaxis": {
            "type": "date", "hoverformat": "%a %-d %b %Y", "nticks": 5, "tickformat": "%-d %b", "showgrid": False,
            "anchor": f"y{len(rows)}" if len(rows) > 1 else "y",
        },
        "margin": {"l": 0, "r": 2, "t": 36, "b": 26},
        "meta": {"settling": list(settling)},
        "annotations": [],
    }  # fmt: skip
    data = []
    heights = rounded_rows(np.array([row.values for row in rows])) if rows else []
    for number, (row, height) in enumerate(zip(rows, heights, strict=True)):
        top = 1 - number * step
        name = f"y{number + 1}" if number else "y"
        layout[f"yaxis{number + 1}" if number else "yaxis"] = {
            "domain": [max(top - step * BARS, 0), top], "showticklabels": False, "showgrid": False, "fixedrange": True,
            "rangemode": "tozero", "zeroline": True, "hoverformat": ",.3~s", "nticks": 2,
        }  # fmt: skip
        layout["annotations"].append(_label(row, top))
        data.append(
            {
                "type": "bar",
                "name": escaped(row.name),
                "y": height,
                "yaxis": name,
                "marker": {"color": row.colour},
                "meta": {dimension: row.name},
                **axis,
            }
        )
    return {"data": data, "layout": layout}


def _label(row: Usage, top: float) -> dict[str, Any]:
    """Name and quantity below each other: side by side they would not fit a narrow page."""
    return {
        "text": f"<b>{escaped(clipped(row.name, LONGEST_NAME))}</b><br>{escaped(row.label)}", "align": "left",
        "xref": "paper", "yref": "paper", "x": 0, "xanchor": "left", "y": top, "yanchor": "bottom", "showarrow": False,
        "font": {"size": 12},
    }  # fmt: skip
