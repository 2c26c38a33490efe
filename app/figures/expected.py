"""Actual against expected: a band, what it was, the days of the anomaly shaded."""

from __future__ import annotations

from collections.abc import Collection
from datetime import date
from typing import Any

import numpy as np

from app.core.periods import DAY, DateRange
from app.core.robust import Floats
from app.core.usualrange import Usual
from app.figures.theme import ACCENT, MUTED, Figure, days_axis, money_axis, rounded


def expected(
    days: DateRange, actual: Floats, usual: Usual, incident: tuple[date, date], prefix: str, settling: Collection[date]
) -> Figure:
    """`incident` is its first and last day. Unknown is a hole, never zero."""
    axis = days_axis([days.start], "daily")
    band: dict[str, Any] = {"type": "scatter", "mode": "lines", "line": {"width": 0, "shape": "hvh"}, **axis}
    data = [
        band | {"name": "Expected from", "y": rounded(usual.low), "hoverinfo": "skip"},
        band
        | {
            "name": "Expected to",
            "y": rounded(usual.high),
            "fill": "tonexty",
            "fillcolor": "--hole",
            "hoverinfo": "skip",
        },
        _line("Expected", usual.middle, axis, {"color": MUTED, "width": 1.5, "dash": "dot", "shape": "hvh"}),
        _line("Actual", actual, axis, {"color": ACCENT, "width": 2.2}),
    ]
    first, last = incident
    shade = {
        "type": "rect", "xref": "x", "yref": "paper", "x0": f"{first - DAY} 12:00", "x1": f"{last} 12:00",
        "y0": 0, "y1": 1, "fillcolor": "--accent", "opacity": 0.13, "line": {"width": 0}, "layer": "below",
    }  # fmt: skip
    layout: dict[str, Any] = {
        "hovermode": "x unified",
        "xaxis": {"type": "date", "hoverformat": "%a %-d %b %Y", "nticks": 6, "tickformat": "%-d %b"},
        "yaxis": money_axis(prefix, np.concatenate([actual, usual.high])),
        "meta": {"zoom": False},
        "shapes": [shade],
        "margin": {"l": 52, "r": 8, "t": 20, "b": 28},
        "annotations": [_note(first, "Anomaly")]
        + [_note(day, "Settling") for day in sorted(settling)[-1:] if day in days],
    }
    return {"data": data, "layout": layout}


def _line(name: str, values: Floats, axis: dict[str, Any], line: dict[str, Any]) -> dict[str, Any]:
    return {"type": "scatter", "mode": "lines", "name": name, "y": rounded(values), "line": line, **axis}


def _note(day: date, text: str) -> dict[str, Any]:
    return {
        "text": text, "x": day.isoformat(), "yref": "paper", "y": 1, "yanchor": "bottom", "xanchor": "center",
        "showarrow": False, "font": {"size": 11},
    }  # fmt: skip
