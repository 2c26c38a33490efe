"""Cost per Region: a bar for each region, and below it which services make it up."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np

from app.core.rollup import CostFrame
from app.figures.theme import ACCENT, OTHER, Figure, Floats, clipped, escaped, holes, money_axis, rounded

MOST_REGIONS: Final = 8
MOST_SERVICES: Final = 8


@dataclass(frozen=True)
class Cells:
    """`amounts` is [service, region], NaN where there was no charge; largest first on both sides.

    `bars` are the regions' amounts within the service filter, so they add up to what the rest of the page shows.
    `by_service` and `by_region` have every value's amount under the filter on the other side, largest first.
    """

    services: tuple[str, ...]
    regions: tuple[str, ...]
    amounts: Floats
    bars: Floats
    by_service: dict[str, float]
    by_region: dict[str, float]


def cells(frame: CostFrame, services: Collection[str], regions: Collection[str]) -> Cells:
    """From a frame grouped by service and region over one period; the filters are empty for all."""
    every_service: dict[str, float] = {}
    every_region: dict[str, float] = {}
    by_service: dict[str, float] = {}
    by_region: dict[str, float] = {}
    amounts = frame.amounts[:, 0].tolist() if len(frame.groups) else []
    for (service, region), amount in zip(frame.groups, amounts, strict=True):
        every_service[service] = every_service.get(service, 0.0) + amount
        every_region[region] = every_region.get(region, 0.0) + amount
        if not regions or region in regions:
            by_service[service] = by_service.get(service, 0.0) + amount
        if not services or service in services:
            by_region[region] = by_region.get(region, 0.0) + amount
    # What is chosen is always there, and the page without these filters around it.
    rows = [name for name in services if name in every_service] + [
        n for n in _largest(every_service) if n not in services
    ]
    columns = list(by_region := _sorted(by_region)) + [name for name in _largest(every_region) if name not in by_region]
    shown = Cells(
        tuple(rows[:MOST_SERVICES]),
        tuple(columns[:MOST_REGIONS]),
        np.full((0, 0), np.nan),
        np.zeros(0),
        _sorted(by_service),
        by_region,
    )
    return replace(
        shown, amounts=_table(frame, amounts, shown), bars=np.array([by_region.get(n, np.nan) for n in shown.regions])
    )


def _table(frame: CostFrame, amounts: Sequence[float], shown: Cells) -> Floats:
    row_of = {name: row for row, name in enumerate(shown.services)}
    column_of = {name: column for column, name in enumerate(shown.regions)}
    found = np.full((len(row_of), len(column_of)), np.nan)
    for (service, region), amount in zip(frame.groups, amounts, strict=True):
        if service in row_of and region in column_of:
            found[row_of[service], column_of[region]] = amount
    return found


def _sorted(values: dict[str, float]) -> dict[str, float]:
    return {name: values[name] for name in _largest(values)}


def _largest(values: dict[str, float]) -> list[str]:
    """Names by amount; unknown ones last."""
    return sorted(
        values,
        key=lambda name: (values[name] != values[name], -values[name] if values[name] == values[name] else 0, name),
    )


def per_region(
    found: Cells, *, prefix: str, short: Callable[[float], str], chosen: Mapping[str, Sequence[str]]
) -> Figure:
    """`short` writes an amount into a cell; `chosen` are the filters on service and region, outlined here."""
    regions, services = chosen.get("region", ()), chosen.get("service", ())
    colour = [ACCENT if not regions or name in regions else OTHER for name in found.regions]
    names = [escaped(clipped(name, 18)) for name in found.regions]
    data: list[dict[str, Any]] = [
        {
            "type": "bar",
            "name": "All services" if not services else "Chosen services",
            "x": list(range(len(names))),
            "y": rounded(found.bars),
            "yaxis": "y2",
            "width": 0.62,
            "marker": {"color": colour},
            "text": [short(value) for value in found.bars.tolist()],
            "textposition": "outside",
            "cliponaxis": False,
            "hovertemplate": "%{customdata}<br><b>" + escaped(prefix) + "%{y:,.2f}</b><extra></extra>",
            "customdata": [escaped(name) for name in found.regions],
            "meta": {"xs": {"region": list(found.regions)}},
        },
        _grid(found, prefix, short),
    ]
    return {"data": data, "layout": _layout(found, names, prefix, regions, services)}


def _grid(found: Cells, prefix: str, short: Callable[[float], str]) -> dict[str, Any]:
    with np.errstate(divide="ignore", invalid="ignore"):
        strength = np.log10(np.where(found.amounts > 0, found.amounts, np.nan))
    known = strength[~np.isnan(strength)]
    top, low = (float(known.max()), float(known.min())) if len(known) else (0.0, 0.0)
    # Three powers of ten are as much as a ramp can tell apart; the smallest cell keeps a tint.
    least = max(top - 3, low - 0.25 * (top - low))
    return {
        "type": "heatmap",
        "x": list(range(len(found.regions))),
        "y": list(range(len(found.services))),
        "z": holes(np.maximum(strength, least).round(2)),
        "zmin": round(least, 2),
        "zmax": round(max(top, least + 0.01), 2),
        "text": [[short(value) if value == value else "" for value in row] for row in found.amounts.tolist()],
        "texttemplate": "%{text}",
        "customdata": rounded(found.amounts),
        "hovertemplate": "%{y}, %{x}<br><b>" + escaped(prefix) + "%{customdata:,.2f}</b><extra></extra>",
        "hoverongaps": False,
        "colorscale": [[0, "--heat-low"], [1, "--heat-high"]],
        "showscale": False,
        "xgap": 3,
        "ygap": 3,
        "meta": {"xs": {"region": list(found.regions)}, "ys": {"service": list(found.services)}},
    }


def _layout(
    found: Cells, names: Sequence[str], prefix: str, regions: Sequence[str], services: Sequence[str]
) -> dict[str, Any]:
    return {
        "hovermode": "closest",
        "xaxis": {
            "tickmode": "array", "tickvals": list(range(len(names))), "ticktext": names, "anchor": "y2",
            "showgrid": False, "range": [-0.5, max(len(names), 3) - 0.5], "tickangle": 0, "fixedrange": True,
        },
        "yaxis": {
            "tickmode": "array", "tickvals": list(range(len(found.services))), "showgrid": False, "domain": [0, 0.58],
            "ticktext": [escaped(clipped(name, 28)) for name in found.services], "autorange": "reversed", "fixedrange": True,
            "automargin": True,
        },
        "yaxis2": {**money_axis(prefix), "domain": [0.68, 1], "nticks": 3, "fixedrange": True, "showticklabels": False},
        "shapes": _outlines(found, regions, services),
        "margin": {"l": 8, "r": 8, "t": 22, "b": 4},
    }  # fmt: skip


def _outlines(found: Cells, regions: Sequence[str], services: Sequence[str]) -> list[dict[str, Any]]:
    """The chosen cells, or the whole column or row when only one side is filtered."""
    if not regions and not services:
        return []
    columns = [i for i, name in enumerate(found.regions) if name in regions]
    rows = [i for i, name in enumerate(found.services) if name in services]
    spans_x = [(i, i) for i in columns] if regions else [(0, len(found.regions) - 1)]
    spans_y = [(i, i) for i in rows] if services else [(0, len(found.services) - 1)]
    return [
        {
            "type": "rect", "xref": "x", "yref": "y", "x0": x0 - 0.5, "x1": x1 + 0.5, "y0": y0 - 0.5, "y1": y1 + 0.5,
            "line": {"color": "--ink", "width": 2}, "fillcolor": "rgba(0,0,0,0)",
        }
        for x0, x1 in spans_x
        for y0, y1 in spans_y
    ]  # fmt: skip
