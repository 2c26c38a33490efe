"""Everything the Anomalies page needs to know, asked once: the records, and their days from the read model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Final

import numpy as np

from app.anomalies import AnomalyFilter, anomalies_of, newest_backtests
from app.backends import Backends
from app.core.access import Permission
from app.core.anomalyrecords import AnomalyRecord, PlannedSpend
from app.core.arrivals import PARTS
from app.core.charges import DEFAULT_METRIC
from app.core.grafanaalerts import GrafanaAlert
from app.core.jobs import Job
from app.core.periods import DAY, DateRange
from app.core.query import CostQuery
from app.core.robust import Floats
from app.core.rollup import CostFrame
from app.core.scopes import Scope
from app.core.usualrange import Usual, usual_range
from app.costs import Snapshot, snapshot
from app.grafanaalerts import firing
from app.pages.anomalies.address import Address
from app.principal import principal

MOST_LISTED: Final = 200
MOST_OF_GRAFANA: Final = 50
SPARK_DAYS: Final = 30
BEFORE, AFTER = timedelta(days=42), timedelta(days=14)
"""Days of the band chart around an anomaly."""
LEARNED: Final = timedelta(days=42)


@dataclass(frozen=True)
class Band:
    """The days around an anomaly: what its series cost together, and between what they were expected. NaN is unknown."""

    days: DateRange
    actual: Floats
    usual: Usual
    settling: Sequence[date]


@dataclass(frozen=True)
class AnomaliesView:
    """`known` is False while nothing is stored; `looked` is the newest finished run; `counts` are by state, unfiltered,
    as are `every` and `plans`."""

    address: Address
    currency: str
    today: date
    known: bool
    records: Sequence[AnomalyRecord]
    more: int
    counts: Mapping[str, int]
    trends: Mapping[str, Floats]
    options: Mapping[str, Sequence[str]]
    chosen: AnomalyRecord | None
    band: Band | None
    looked: Job | None
    backtest: Job | None
    sees_all: bool = True
    grafana: Sequence[GrafanaAlert] = ()
    more_of_grafana: bool = False
    plans: Sequence[PlannedSpend] = ()
    every: Sequence[AnomalyRecord] = ()
    may_plan: bool = False
    version: int = 0
    """Of the ledger."""
    counted_in: float | None = None
    """Seconds that the newest count took."""


def look(backends: Backends, address: Address) -> AnomaliesView:
    now = snapshot(backends)
    every = anomalies_of(backends, AnomalyFilter())
    wanted = AnomalyFilter(states=address.states, parts=dict(address.filters))
    listed = [record for record in every if wanted.admits(record)]
    shown = listed[:MOST_LISTED]
    chosen = next((record for record in every if record.id == address.id), None)
    grafana, more_of_grafana = _of_grafana(backends)
    counts = list(newest_backtests(backends))
    return AnomaliesView(
        address=address,
        currency=backends.settings.currency,
        today=backends.today(),
        known=now.known is not None,
        records=shown,
        more=len(listed) - len(shown),
        counts=_counted(every),
        trends=_trends(now, shown),
        options={part: _values(every, part) for part in PARTS},
        chosen=chosen,
        band=_band(now, chosen) if chosen and now.known else None,
        looked=_looked(backends),
        backtest=next(iter(counts), None),
        sees_all=principal().accounts is None,
        grafana=grafana,
        more_of_grafana=more_of_grafana,
        plans=backends.metadata.planned_spend(),
        every=every,
        version=backends.metadata.ledger_version(),
        counted_in=next((float(job.result["seconds"]) for job in counts if "seconds" in job.result), None),
        may_plan=principal().accounts is None and principal().may(Permission.OPERATE),
    )


def _of_grafana(backends: Backends) -> tuple[list[GrafanaAlert], bool]:
    """What fires now, then the newest of the others; and whether there are more."""
    now = firing(backends, MOST_OF_GRAFANA)
    newest = backends.metadata.grafana_alerts(limit=MOST_OF_GRAFANA)
    others = [one for one in newest.items if one.status != "firing"]
    found = [*now, *others]
    return found[:MOST_OF_GRAFANA], len(found) > MOST_OF_GRAFANA or newest.next_cursor is not None


def _looked(backends: Backends) -> Job | None:
    jobs = backends.metadata.jobs(limit=20, kind="detect").items
    return next((job for job in jobs if not job.params and job.finished and job.status.startswith("done")), None)


def _counted(records: Sequence[AnomalyRecord]) -> dict[str, int]:
    counts: dict[str, int] = {}
    for record in records:
        counts[record.state] = counts.get(record.state, 0) + 1
    return counts


def _values(records: Sequence[AnomalyRecord], part: str) -> list[str]:
    scopes = {
        getattr(item, part) for record in records for item in (record.scope, *(p.scope for p in record.contributions))
    }
    return sorted(value for value in scopes if value is not None)


def _trends(now: Snapshot, records: Sequence[AnomalyRecord]) -> dict[str, Floats]:
    """What each anomaly's series cost over the newest days, together."""
    if now.known is None or not records:
        return {}
    days = DateRange(max(now.known.start, now.known.end - SPARK_DAYS * DAY), now.known.end)
    answer = now.ask(CostQuery(range=days, metric=DEFAULT_METRIC, granularity="daily", group_by=PARTS))
    frame, settling = answer.frame, answer.freshness.settling
    # Days that settle look like a fall.
    whole = [place for place, day in enumerate(frame.periods) if day not in settling]
    rows = {group: row for row, group in enumerate(frame.groups)}
    return {record.id: _summed(frame, record, rows)[whole] for record in records}


def _summed(frame: CostFrame, record: AnomalyRecord, rows: Mapping[tuple[str, ...], int]) -> Floats:
    """Of the series the anomaly is made of; of its scope where it has none (a silent account)."""
    wanted = [part.scope for part in record.contributions]
    places = [rows[key] for scope in wanted if (key := _key(scope)) in rows]
    if not wanted:
        places = [row for group, row in rows.items() if _inside(group, record.scope)]
    days = np.isin(np.array(frame.periods, "datetime64[D]"), np.array(list(frame.days), "datetime64[D]"))
    total: Floats = np.nan_to_num(frame.amounts[places]).sum(axis=0)
    return np.where(days, total, np.nan)


def _key(scope: Scope) -> tuple[str, ...]:
    return tuple(value or "" for _, value in scope.parts())


def _inside(group: tuple[str, ...], scope: Scope) -> bool:
    return all(value is None or value == mine for mine, (_, value) in zip(group, scope.parts(), strict=True))


def _band(now: Snapshot, record: AnomalyRecord) -> Band | None:
    """From six weeks before the anomaly to two after it; six more weeks before are only learned from."""
    assert now.known is not None
    end = min(max(record.date + AFTER, record.start + DAY), now.known.end)
    first = max(record.start - BEFORE, now.known.start)
    if first >= end:
        return None
    learned = DateRange(max(first - LEARNED, now.known.start), end)
    filters = tuple((part, (value,)) for part, value in sorted(record.scope.parts()) if value is not None)
    query = CostQuery(range=learned, metric=DEFAULT_METRIC, granularity="daily", group_by=PARTS, filters=filters)
    answer = now.ask(query)
    rows = {group: row for row, group in enumerate(answer.frame.groups)}
    actual = _summed(answer.frame, record, rows)
    usual = usual_range(actual, (record.start - learned.start).days)
    skipped = (first - learned.start).days
    shown = Usual(usual.middle[skipped:], usual.low[skipped:], usual.high[skipped:])
    days = DateRange(first, end)
    said = {moment.date: moment for moment in record.moments if moment.date in days}
    for day, moment in said.items():
        place = (day - first).days
        shown.middle[place], shown.low[place], shown.high[place] = moment.expected, moment.low, moment.high
    return Band(days, actual[skipped:], shown, answer.freshness.settling)
