"""Cost per Region: a bar for each region, and below it which services make it up."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from itertools import compress
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
    `by_service` and `by_region` have every value's amount under the filter on the other side, largest first;
    `known_regions` is how many regions there are without any filter on them.
    """

    services: tuple[str, ...]
    regions: tuple[str, ...]
    amounts: Floats
    bars: Floats
    by_service: dict[str, float]
    by_region: dict[str, float]
    known_regions: int


def cells(frame: CostFrame, services: Collection[str], regions: Collection[str]) -> Cells:
    """From a frame grouped by service and region over one period; the filters are empty for all."""
    (known_services, known_regions), places = frame.labels.texts, frame.labels.codes
    grid = _Table(known_services, known_regions)
    grid.amounts[places], grid.there[places] = frame.amounts[:, 0], True
    all_services, all_regions = grid.by_service(), grid.by_region()
    by_service = (
        grid.by_service([at for at, name in enumerate(known_regions) if name in regions]) if regions else all_services
    )
    by_region = (
        grid.by_region([at for at, name in enumerate(known_services) if name in services]) if services else all_regions
    )
    # What is chosen comes first, and stays within the page as it is without these filters.
    others = [name for name in all_services if name not in services]
    rows = [*(name for name in services if name in all_services), *others][:MOST_SERVICES]
    elsewhere = [name for name in all_regions if name not in by_region]
    columns = [*by_region, *elsewhere][:MOST_REGIONS]
    bars = np.array([by_region.get(name, np.nan) for name in columns])
    shown = grid.part(rows, columns)
    return Cells(tuple(rows), tuple(columns), shown, bars, by_service, by_region, len(all_regions))


class _Table:
    """Amounts by service and region, and where there was a charge."""

    def __init__(self, services: Sequence[str], regions: Sequence[str]) -> None:
        self.services, self.regions = services, regions
        self.amounts = np.zeros((len(services), len(regions)))
        self.there = np.zeros(self.amounts.shape, np.bool_)

    def by_service(self, columns: list[int] | slice = slice(None)) -> dict[str, float]:
        return _sums(self.services, self.amounts[:, columns].sum(axis=1), self.there[:, columns].any(axis=1))

    def by_region(self, rows: list[int] | slice = slice(None)) -> dict[str, float]:
        return _sums(self.regions, self.amounts[rows].sum(axis=0), self.there[rows].any(axis=0))

    def part(self, services: Sequence[str], regions: Sequence[str]) -> Floats:
        """Amounts of these, NaN where there was no charge."""
        at = np.ix_([self.services.index(name) for name in services], [self.regions.index(name) for name in regions])
        return np.where(self.there[at], self.amounts[at], np.nan)


def _sums(names: Sequence[str], values: Floats, there: Any) -> dict[str, float]:
    """Sum of each name that has a charge (`there`), largest first, those that are not known last."""
    unknown = np.isnan(values)
    keys = zip(unknown.tolist(), np.where(unknown, 0.0, -values).tolist(), names, values.tolist(), strict=True)
    return {name: value for _, _, name, value in sorted(compress(keys, there.tolist()))}


def _in_two_lines(name: str) -> str:
    """`ap-northeast-1` below `ap-`: eight names of that length have no room beside each other."""
    first, hyphen, rest = name.partition("-")
    return f"{escaped(first)}-<br>{escaped(rest)}" if hyphen and rest and len(name) > 10 else escaped(name)


def per_region(
    found: Cells, *, prefix: str, short: Callable[[float], str], chosen: Mapping[str, Sequence[str]]
) -> Figure:
    """`short` writes an amount into a cell; `chosen` are the filters on service and region, outlined here."""
    regions, services = chosen.get("region", ()), chosen.get("service", ())
    colour = [ACCENT if not regions or name in regions else OTHER for name in found.regions]
    names = [_in_two_lines(clipped(name, 18)) for name in found.regions]
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
        "yaxis2": {**money_axis(prefix, found.bars), "domain": [0.68, 1], "nticks": 3, "fixedrange": True, "showticklabels": False},
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
