"""Every text that InfluxDB interprets. Values go in as parameters, which the client sends as literals of a syntax tree."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from app.core.charges import DIMENSIONS
from app.core.lineprotocol import ANOMALIES, MEASUREMENT

_COLUMNS: Final = ", ".join(f'"{name}"' for name in ("_time", "_field", "_value", *DIMENSIONS))

POINTS: Final = f"""
from(bucket: _bucket)
  |> range(start: _start, stop: _stop)
  |> filter(fn: (r) => r._measurement == "{MEASUREMENT}")
  |> group(columns: ["_field"])
  |> keep(columns: [{_COLUMNS}])
"""
"""All points of [_start, _stop). Grouping first lets the storage engine merge the series: twice as fast as keep alone."""

KEYS: Final = f"""
from(bucket: _bucket)
  |> range(start: _start, stop: _stop)
  |> filter(fn: (r) => r._measurement == "{MEASUREMENT}")
  |> filter(fn: (r) => r._field == "amortized_cost" or r._field == "blended_cost")
  |> group(columns: ["_field"])
  |> keep(columns: [{_COLUMNS}])
"""
"""Which points there are in [_start, _stop), and which have a blended cost: half the work of POINTS."""

ANOMALY_POINTS: Final = f"""
from(bucket: _bucket)
  |> range(start: _start, stop: _stop)
  |> filter(fn: (r) => r._measurement == "{ANOMALIES}" and r._field == "impact")
  |> group()
"""
"""Which anomalies are shown in [_start, _stop): their times and tags."""


def anomaly_of(tags: Mapping[str, str]) -> str:
    """The delete predicate of one anomaly's points, quoted as below."""
    terms = (f'{name}="{_quoted(value)}"' for name, value in sorted(tags.items()))
    return " AND ".join((f'_measurement="{ANOMALIES}"', *terms))


def points_of(account: str) -> str:
    """The delete predicate for one account's points. It has no parameters, so the value is quoted here.

    Between double quotes only `"`, the backslash and line breaks mean something.
    """
    return f'_measurement="{MEASUREMENT}" AND account="{_quoted(account)}"'


def _quoted(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
