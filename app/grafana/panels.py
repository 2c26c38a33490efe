"""Panels of a Grafana dashboard as data: one function per kind of panel, one query each.

Field names are those of Grafana's dashboard schema 41; tests check every panel against its published types.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

Json = dict[str, Any]

INFLUXDB: Final = "spendscope-influxdb"
PROMETHEUS: Final = "spendscope-prometheus"
"""Fixed uids of the data sources: dashboards and alert rules refer to them."""
COLUMNS: Final = 24
"""Grafana's grid is this wide."""
NOT_AVAILABLE: Final = "not available"
MOST_ROWS: Final = 10_000

GREEN, ORANGE, RED, NEUTRAL = "green", "orange", "red", "text"


@dataclass(frozen=True)
class Source:
    """A data source as dashboards refer to it: a variable, so that an imported dashboard can be given another one."""

    type: str
    uid: str
    variable: str

    @property
    def reference(self) -> Json:
        return {"type": self.type, "uid": f"${{{self.variable}}}"}


FLUX: Final = Source("influxdb", INFLUXDB, "influxdb")
PROMQL: Final = Source("prometheus", PROMETHEUS, "prometheus")


@dataclass(frozen=True)
class Place:
    x: int
    y: int
    width: int
    height: int

    @property
    def grid(self) -> Json:
        return {"x": self.x, "y": self.y, "w": self.width, "h": self.height}


@dataclass(frozen=True)
class Head:
    """What every panel has. `id` never changes: links and alert rules name it."""

    id: int
    title: str
    description: str
    place: Place


def flux_target(query: str, ref: str = "A") -> Json:
    return {"refId": ref, "datasource": FLUX.reference, "query": query}


def promql_target(expression: str, legend: str = "", ref: str = "A", *, instant: bool = False) -> Json:
    return {
        "refId": ref,
        "datasource": PROMQL.reference,
        "expr": expression,
        "legendFormat": legend or "__auto",
        "editorMode": "code",
        "instant": instant,
        "range": not instant,
    }


def _panel(kind: str, head: Head, source: Source, targets: Sequence[Json], options: Json, fields: Json) -> Json:
    found = {
        "id": head.id,
        "type": kind,
        "title": head.title,
        "description": head.description,
        "gridPos": head.place.grid,
        "datasource": source.reference,
        "targets": list(targets),
        "options": options,
        "fieldConfig": fields,
    }
    # Grafana refuses a Flux answer with many more rows than this, which else is the panel's width in pixels.
    return found | {"maxDataPoints": MOST_ROWS} if source == FLUX else found


def fields(
    unit: str,
    *,
    thresholds: Mapping[int, str] | None = None,
    base: str = GREEN,
    links: Sequence[Json] = (),
    name: str | None = None,
    custom: Json | None = None,
    overrides: Sequence[Json] = (),
    decimals: int | None = None,
) -> Json:
    """How values are shown. `thresholds`: from this value on, that colour."""
    steps: list[Json] = [{"value": None, "color": base}]
    steps += [{"value": value, "color": colour} for value, colour in (thresholds or {}).items()]
    defaults: Json = {
        "unit": unit,
        "noValue": NOT_AVAILABLE,
        "thresholds": {"mode": "absolute", "steps": steps},
        "color": {"mode": "thresholds" if thresholds or base != GREEN else "palette-classic-by-name"},
        "links": list(links),
    }
    optional = {"displayName": name, "custom": custom, "decimals": decimals}
    defaults |= {key: value for key, value in optional.items() if value is not None}
    return {"defaults": defaults, "overrides": list(overrides)}


def override(column: str, **properties: Any) -> Json:
    """Other properties for the field with this (display) name."""
    return {
        "matcher": {"id": "byName", "options": column},
        "properties": [{"id": key, "value": value} for key, value in properties.items()],
    }


def link(title: str, url: str) -> Json:
    return {"title": title, "url": url, "targetBlank": True}


def stat(head: Head, source: Source, target: Json, shown: Json, *, text: str = "value") -> Json:
    """One number (or one per series), coloured by its threshold."""
    options = {
        "reduceOptions": {"values": False, "calcs": ["lastNotNull"], "fields": ""},
        "orientation": "auto",
        "textMode": text,
        "colorMode": "value",
        "graphMode": "none",
        "justifyMode": "auto",
        "wideLayout": True,
    }
    return _panel("stat", head, source, [target], options, shown)


def trend(head: Head, source: Source, targets: Sequence[Json], shown: Json) -> Json:
    """Values over time; `shown` says whether they are bars or lines."""
    options = {
        "legend": {"displayMode": "list", "placement": "bottom", "showLegend": True, "calcs": []},
        "tooltip": {"mode": "multi", "sort": "desc"},
    }
    return _panel("timeseries", head, source, targets, options, shown)


BARS: Final[Json] = {
    "drawStyle": "bars",
    "barAlignment": 1,
    "fillOpacity": 80,
    "lineWidth": 0,
    "stacking": {"mode": "normal", "group": "A"},
}
"""A day's bar stands right of its first second."""
LINES: Final[Json] = {
    "drawStyle": "line",
    "lineWidth": 2,
    "fillOpacity": 0,
    "showPoints": "auto",
    "spanNulls": False,
    "stacking": {"mode": "none", "group": "A"},
}


def bars(head: Head, source: Source, target: Json, shown: Json, *, along: str) -> Json:
    """One horizontal bar a row; `along` is the column that names it."""
    options = {
        "xField": along,
        "orientation": "horizontal",
        "showValue": "auto",
        "stacking": "none",
        "barWidth": 0.8,
        "groupWidth": 0.7,
        "xTickLabelRotation": 0,
        "xTickLabelMaxLength": 40,
        "fullHighlight": False,
        "legend": {"displayMode": "list", "placement": "bottom", "showLegend": False, "calcs": []},
        "tooltip": {"mode": "single", "sort": "none"},
    }
    return _panel("barchart", head, source, [target], options, shown)


def table(head: Head, source: Source, target: Json, shown: Json, *, columns: Mapping[str, str]) -> Json:
    """Rows with these columns, in this order, under these names; other columns are left out."""
    options = {"frameIndex": 0, "showHeader": True, "cellHeight": "sm"}
    found = _panel("table", head, source, [target], options, shown)
    found["transformations"] = [
        {"id": "filterFieldsByName", "options": {"include": {"names": list(columns)}}},
        {
            "id": "organize",
            "options": {
                "excludeByName": {},
                "indexByName": {name: place for place, name in enumerate(columns)},
                "renameByName": dict(columns),
            },
        },
    ]
    return found


def row(id: int, title: str, y: int) -> Json:
    return {
        "id": id,
        "type": "row",
        "title": title,
        "collapsed": False,
        "gridPos": Place(0, y, COLUMNS, 1).grid,
        "panels": [],
    }
