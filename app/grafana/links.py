"""Addresses that lead from Grafana back into Spendscope's Overview, with the dashboard's filters and days.

Grafana writes its variables as `var-service=…` and a time as an instant; app.pages.fromgrafana reads both.
"""

from __future__ import annotations

from app.grafana.flux import FILTERED

BASE = "${spendscope:raw}/from-grafana"


def overview(**chosen: str) -> str:
    """The Overview with the dashboard's filters; `chosen` dimensions have one value instead: a Grafana expression."""
    parts = ["start=${__from:date:iso}", "end=${__to:date:iso}", "metric=${metric:percentencode}"]
    for name in FILTERED:
        parts.append(f"{name}=${{{chosen[name]}:percentencode}}" if name in chosen else f"${{{name}:queryparam}}")
    return f"{BASE}?{'&'.join(parts)}"


def series(dimension: str) -> str:
    """The value of a dimension of the series that is clicked."""
    return f"__field.labels.{dimension}"


def cell(column: str) -> str:
    """The value of a column in the row that is clicked."""
    return f"__data.fields.{column}"
