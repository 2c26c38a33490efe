"""Every Flux text that Grafana sends to InfluxDB.

Values come from Grafana's variables only, and only as regular expressions in its `regex` format: a Flux string literal
would evaluate `${…}` inside a value, a regular expression literal evaluates nothing. Daily points lie at 00:00Z, so
windows are literal days that carry their start.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from app.core.charges import COSTS, DEFAULT_METRIC, MAY_BE_ABSENT
from app.core.lineprotocol import ANOMALIES, MEASUREMENT

FILTERED: Final = ("service", "region", "account")
"""Dimensions a dashboard filters by: the variables of the same names."""
LOOKBACK: Final = "-35d"
"""How far alerts look for the newest day; silence before that is no data at all."""

RANGE: Final = """from(bucket: v.defaultBucket)
  |> range(start: v.timeRangeStart, stop: v.timeRangeStop)"""
DAILY: Final = 'aggregateWindow(every: 1d, fn: sum, timeSrc: "_start", createEmpty: false)'


def selected(field: str) -> str:
    """The charges of the dashboard's filters and days, one field of them (a Flux regular expression's text)."""
    return f"""{RANGE}
  |> filter(fn: (r) => r._measurement == "{MEASUREMENT}" and r._field =~ /^(?:{field})$/)
  |> filter(fn: (r) => {_filters()})"""


def _filters() -> str:
    return " and ".join(f"r.{name} =~ /^(?:${{{name}:regex}})$/" for name in FILTERED)


METRIC: Final = "${metric:regex}"


def total(field: str = METRIC) -> str:
    """One number: the sum over all charges."""
    return f"""{selected(field)}
  |> group()
  |> sum()
"""


def largest(*dimensions: str, field: str = METRIC, most: int | None = None) -> str:
    """A table of groups with their sums, largest first; without those that add up to nothing."""
    limit = f"\n  |> limit(n: {most})" if most else ""
    return f"""{selected(field)}
  |> group(columns: [{_quoted(*dimensions)}])
  |> sum()
  |> group()
  |> filter(fn: (r) => r._value != 0.0)
  |> sort(columns: ["_value"], desc: true){limit}
"""


def labelled(query: str, *dimensions: str) -> str:
    """With one more column that names the whole group, for an axis."""
    name = ' + " · " + '.join(f"r.{dimension}" for dimension in dimensions)
    return f"{query}  |> map(fn: (r) => ({{r with group: {name}}}))\n"


def daily(dimension: str, shown: int, other: str) -> str:
    """Days by the `shown` largest groups; the others are added up under the name `other`, so that the stack is whole."""
    return f"""charges = {selected(METRIC)}

top = charges
  |> group(columns: ["{dimension}"])
  |> sum()
  |> group()
  |> sort(columns: ["_value"], desc: true)
  |> limit(n: {shown})
  |> findColumn(fn: (key) => true, column: "{dimension}")

charges
  |> group(columns: ["{dimension}"])
  |> {DAILY}
  |> map(fn: (r) => ({{r with {dimension}: if contains(value: r.{dimension}, set: top) then r.{dimension} else "{other}"}}))
  |> group(columns: ["{dimension}"])
  |> {DAILY}
  |> sort(columns: ["_time"])
  |> keep(columns: ["_time", "_value", "{dimension}"])
"""


def comparison() -> str:
    """Days of each cost. A day on which some charge has no blended cost has no such sum: a part is not the total.

    Which days these are is asked only when the whole range has some: two counts that the storage engine does itself.
    Each cost is read by itself, so that InfluxDB reads them side by side. Grafana makes a label of every column of the group key except `_field`, so that is given another name.
    """
    return f"""costs = {selected("|".join(COSTS))}

{_count_of("costs")}
whole = counted(field: "{MAY_BE_ABSENT}") == counted(field: "{DEFAULT_METRIC}")

known = if whole then
  []
else
  costs
    |> filter(fn: (r) => r._field == "{MAY_BE_ABSENT}" or r._field == "{DEFAULT_METRIC}")
    |> group(columns: ["_field"])
    |> aggregateWindow(every: 1d, fn: count, timeSrc: "_start", createEmpty: false)
    |> pivot(rowKey: ["_time"], columnKey: ["_field"], valueColumn: "_value")
    |> filter(fn: (r) => r.{MAY_BE_ABSENT} == r.{DEFAULT_METRIC})
    |> map(fn: (r) => ({{day: string(v: r._time)}}))
    |> findColumn(fn: (key) => true, column: "day")

union(tables: [{_each_day(COSTS)}])
  |> filter(fn: (r) => whole or r._field != "{MAY_BE_ABSENT}" or contains(value: string(v: r._time), set: known))
  |> sort(columns: ["_time"])
  |> keep(columns: ["_time", "_value", "_field"])
  |> rename(columns: {{_field: "cost"}})
"""


def _each_day(costs: Iterable[str]) -> str:
    return ", ".join(
        f"""{selected(cost)}
  |> group(columns: ["_field"])
  |> {DAILY}"""
        for cost in costs
    )


def _count_of(charges: str) -> str:
    """How many values a field has."""
    return f"""counts = (field) => {charges}
  |> filter(fn: (r) => r._field == field)
  |> group()
  |> count()
  |> findColumn(fn: (key) => true, column: "_value")
counted = (field) => {{
  found = counts(field: field)

  return if length(arr: found) == 0 then 0 else found[0]
}}
"""


def anomalies(most: int) -> str:
    """The anomalies of the days, dearest first: their tags, and their fields as columns."""
    return f"""{RANGE}
  |> filter(fn: (r) => r._measurement == "{ANOMALIES}")
  |> filter(fn: (r) => {_filters()})
  |> pivot(rowKey: ["_time"], columnKey: ["_field"], valueColumn: "_value")
  |> group()
  |> keep(columns: ["_time", "service", "region", "account", "kind", "severity", "expected", "actual", "impact"])
  |> sort(columns: ["impact"], desc: true)
  |> limit(n: {most})
"""


def data_age() -> str:
    """Seconds since the end of the newest day with a charge, whatever the dashboard shows; no row when there is none."""
    return f"""from(bucket: v.defaultBucket)
  |> range(start: {LOOKBACK})
  |> filter(fn: (r) => r._measurement == "{MEASUREMENT}" and r._field == "{DEFAULT_METRIC}")
  |> group()
  |> last()
  |> map(fn: (r) => ({{_time: now(), _value: float(v: int(v: now()) - int(v: r._time)) / 1000000000.0 - 86400.0}}))
"""


# --- variables ----------------------------------------------------------------------------------------------------


def values_of(dimension: str) -> str:
    """The values a dimension has on the dashboard's days."""
    return f"""import "influxdata/influxdb/schema"

schema.measurementTagValues(
  bucket: v.defaultBucket,
  measurement: "{MEASUREMENT}",
  tag: "{dimension}",
  start: v.timeRangeStart,
  stop: v.timeRangeStop,
)
"""


def metrics() -> str:
    """The costs that every charge of the dashboard's days has: a sum of some of them would pass for the total."""
    return f"""import "array"

charges = {RANGE}
  |> filter(fn: (r) => r._measurement == "{MEASUREMENT}")

{_count_of("charges")}
whole = counted(field: "{MAY_BE_ABSENT}") == counted(field: "{DEFAULT_METRIC}")

array.from(rows: if whole then [{_rows(COSTS)}] else [{_rows(ALWAYS)}])
"""


ALWAYS: Final = tuple(cost for cost in COSTS if cost != MAY_BE_ABSENT)


def _rows(values: Iterable[str]) -> str:
    return ", ".join(f'{{_value: "{value}"}}' for value in values)


# --- alerts: no variables, and days counted back from now ---------------------------------------------------------


def spike(*, settled_after: int, days: int, times: float) -> str:
    """Per service: what its newest settled day cost beyond `times` the daily mean of the `days` before.

    A day settles `settled_after` days after its first second. A weighted sum needs no join: the day counts fully, each
    day before it -times/days. The storage engine adds up both by itself.
    """
    return f"""import "date"

day = date.sub(d: {settled_after}d, from: today())

sums = (start, stop) => from(bucket: v.defaultBucket)
  |> range(start: start, stop: stop)
  |> filter(fn: (r) => r._measurement == "{MEASUREMENT}" and r._field == "{DEFAULT_METRIC}")
  |> group(columns: ["service"])
  |> sum()

union(
  tables: [
    sums(start: day, stop: date.add(d: 1d, to: day)),
    sums(start: date.sub(d: {days}d, from: day), stop: day)
      |> map(fn: (r) => ({{r with _value: -{times} / {days}.0 * r._value}})),
  ],
)
  |> group(columns: ["service"])
  |> sum()
  |> map(fn: (r) => ({{r with _time: day}}))
"""


def month_to_date() -> str:
    """What the month of the last full day has cost until now."""
    return f"""import "date"

month = date.truncate(t: date.sub(d: 1d, from: today()), unit: 1mo)

from(bucket: v.defaultBucket)
  |> range(start: month, stop: today())
  |> filter(fn: (r) => r._measurement == "{MEASUREMENT}" and r._field == "{DEFAULT_METRIC}")
  |> group()
  |> sum()
  |> map(fn: (r) => ({{r with _time: today()}}))
"""


def recent_anomalies(days: int) -> str:
    """Dollars beyond what was expected, of each anomaly about the last `days` days.

    Its severity is the label `level`: `severity` is a label of the rule.
    """
    return f"""import "date"

from(bucket: v.defaultBucket)
  |> range(start: date.sub(d: {days}d, from: today()))
  |> filter(fn: (r) => r._measurement == "{ANOMALIES}" and r._field == "impact")
  |> group(columns: ["service", "region", "account", "kind", "severity"])
  |> last()
  |> keep(columns: ["_time", "_value", "service", "region", "account", "kind", "severity"])
  |> rename(columns: {{severity: "level"}})
"""


def _quoted(*names: str) -> str:
    return ", ".join(f'"{name}"' for name in names)
