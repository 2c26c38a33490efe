"""What the detector would have said, day by day, knowing only what had arrived: over a folder, or stored history."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Any, Final

import numpy as np

from app.backends import Backends
from app.core.anomaly import Anomaly, Detector
from app.core.arrivals import PARTS, Delivery, SeriesKey
from app.core.ledger import DayRecord
from app.core.periods import EARLIEST, DateRange
from app.core.query import CostQuery
from app.core.rollup import CostFrame
from app.core.scopes import Scope
from app.costs import first_and_last_day, ledgers_of
from app.deliveries import METRIC
from app.errors import InvalidInput

MOST_SERIES: Final = 20_000


@dataclass(frozen=True)
class Rules:
    """What is worth an alert, in dollars (None: by the organisation's size), and which days are reported: [start, end)."""

    min_daily: float | None = None
    min_total: float | None = None
    start: date | None = None
    end: date | None = None

    def reports(self, day: date) -> bool:
        return (self.start is None or day >= self.start) and (self.end is None or day < self.end)


def replay(deliveries: Iterable[Delivery], rules: Rules) -> Iterator[Anomaly]:
    """Every alert and notice in the order in which it would have come, as it read then.

    Days before `rules.start` are learned from. Raises InvalidInput for more series than it can hold.
    """
    detector = Detector(min_daily=rules.min_daily, min_total=rules.min_total)
    for delivery in deliveries:
        if rules.end is not None and delivery.day >= rules.end:
            return
        alerts = detector.deliver(delivery)
        if len(detector.arrivals.keys) > MOST_SERIES:
            raise InvalidInput(f"More than {MOST_SERIES} account × service × region by {delivery.day}; backtest fewer.")
        if rules.reports(delivery.day):
            yield from alerts


def alert_line(anomaly: Anomaly) -> dict[str, Any]:
    """The JSON object of one alert (DESIGN §6): dollars with cents, ISO days, null for "all"."""
    return {
        "scope": scope_object(anomaly.scope),
        "date": anomaly.date.isoformat(),
        "detected_on": anomaly.detected_on.isoformat(),
        "expected": round(anomaly.expected, 2),
        "actual": round(anomaly.actual, 2),
        "impact": round(anomaly.impact, 2),
        "kind": anomaly.kind,
        "root_cause": [scope_object(scope) for scope in anomaly.root_causes],
        "start": anomaly.start.isoformat(),
        "band": [round(anomaly.low, 2), round(anomaly.high, 2)],
        "severity": anomaly.severity,
        "contributions": [
            {"scope": scope_object(part.scope), "impact": round(part.impact, 2)} for part in anomaly.contributions
        ],
    }


def scope_object(scope: Scope) -> dict[str, str | None]:
    return dict(scope.parts())


def stored_deliveries(backends: Backends) -> list[Delivery]:
    """Stored history as deliveries, the arrival approximated: no store keeps every version of a figure.

    A day arrives on that day, each account scaled to the total that the ledger says it was first reported with, and
    finally after `settling_days`. Raises InvalidInput when nothing is stored.
    """
    days = first_and_last_day(backends)
    if days is None:
        raise InvalidInput("Nothing is stored yet. Ingest first, or name a folder with --deliveries.")
    query = CostQuery(range=days, metric=METRIC, granularity="daily", group_by=PARTS)
    frame = backends.costs.rollup().frame(query)
    settling = backends.settings.settling_days
    return list(_as_deliveries(frame, ledgers_of(backends).records, days, settling))


def _as_deliveries(
    frame: CostFrame, records: dict[date, DayRecord], days: DateRange, settling: int
) -> Iterator[Delivery]:
    keys = [SeriesKey(*group) for group in frame.groups]
    for place, day in enumerate(days):
        parts = [_rows(frame, place, _first_shares(keys, records.get(day)))]
        if settling and place >= settling:
            parts.append(_rows(frame, place - settling, np.ones(len(keys))))
        series, usage, amounts = (np.concatenate(column) for column in zip(*parts, strict=True))
        yield Delivery(day, keys, series, np.datetime64(days.start, "D") + usage, amounts)


def _rows(frame: CostFrame, place: int, shares: Any) -> tuple[Any, Any, Any]:
    amounts = frame.amounts[:, place]
    series = np.flatnonzero(frame.present[:, place] & np.isfinite(amounts))
    return series, np.full(len(series), place), amounts[series] * shares[series]


def _first_shares(keys: Sequence[SeriesKey], record: DayRecord | None) -> Any:
    """First-reported over current total of each series' account; 1 where either is unknown or zero."""
    shares: dict[str, float] = {}
    for account, part in record.accounts.items() if record else ():
        first, current = part.first.amortized_cost, part.current.amortized_cost
        if first is not None and current and first / current > 0:
            shares[account] = float(first / current)
    return np.array([shares.get(key.account, 1.0) for key in keys])


def reported_range(start: date | None, end: date | None) -> tuple[date | None, date | None]:
    """Checked: an end after the start. Raises InvalidInput."""
    if start is not None or end is not None:
        DateRange(start or EARLIEST, end or date.max - timedelta(days=1))
    return start, end
