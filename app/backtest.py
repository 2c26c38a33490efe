"""What the detector would have said, day by day, knowing only what had arrived: over a folder, or stored history."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from app.backends import Backends
from app.core.anomaly import Anomaly, Detector
from app.core.arrivals import PARTS, Delivery, SeriesKey
from app.core.ledgerdays import LedgerDay
from app.core.periods import EARLIEST, DateRange
from app.core.query import CostQuery
from app.core.rollup import CostFrame
from app.core.scopes import Scope
from app.costs import first_and_last_day, ledgers_of
from app.deliveries import METRIC
from app.errors import InvalidInput

MOST_SERIES: Final = 20_000
NEVER: Final = 10**9
"""A place beyond all days."""


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


def stored_deliveries(backends: Backends, since: date | None = None) -> list[Delivery]:
    """Stored history as deliveries, the arrival approximated: no store keeps every version of a figure.

    A day arrives on that day, each account scaled to the total that the ledger says it was first reported with, and
    finally after `settling_days`. Each delivery depends on those two days alone, and names every series that any
    delivery before it had, in the order in which they came. The first is that of `since`, or of the first stored day.
    Raises InvalidInput when nothing is stored.
    """
    days = stored_days(backends)
    settling = timedelta(days=backends.settings.settling_days)
    first = max(since or days.start, days.start)
    if first >= days.end:
        return []
    asked = DateRange(max(first - settling, days.start), days.end)
    query = CostQuery(range=asked, metric=METRIC, granularity="daily", group_by=PARTS)
    frame = backends.costs.rollup().frame(query)
    return list(deliveries_of(frame, ledgers_of(backends).days, DateRange(first, days.end), settling))


def stored_days(backends: Backends) -> DateRange:
    """From the first to the last day with data. Raises InvalidInput when there is none."""
    days = first_and_last_day(backends)
    if days is None:
        raise InvalidInput("Nothing is stored yet. Ingest first, or name a folder with --deliveries.")
    return days


def deliveries_of(
    frame: CostFrame, known: Mapping[date, LedgerDay], days: DateRange, settling: timedelta
) -> Iterator[Delivery]:
    """The deliveries of `days` as stored_deliveries describes them.

    `frame` has the daily cost by PARTS of these days, and of the `settling` before them where there are such.
    """
    begin, late = frame.query.range.start, settling.days
    there = frame.present & np.isfinite(frame.amounts)
    skipped = (days.start - begin).days
    order, came = _order_of_arrival(frame.groups, there, skipped, late)
    keys = [SeriesKey(*frame.groups[place]) for place in order]
    there, amounts = there[order], frame.amounts[order]
    accounts, account = np.unique(np.array([key.account for key in keys], object), return_inverse=True)
    for number, day in enumerate(days):
        place = skipped + number
        series = np.flatnonzero(there[:, place])
        scaled = amounts[series, place] * _first_shares(accounts.tolist(), known.get(day))[account[series]]
        parts = [(series, np.full(len(series), place), scaled)]
        if late and place >= late:
            series = np.flatnonzero(there[:, place - late])
            parts.append((series, np.full(len(series), place - late), amounts[series, place - late]))
        series, usage, costs = (np.concatenate(column) for column in zip(*parts, strict=True))
        named = keys[: int(np.searchsorted(came, number, "right"))]
        yield Delivery(day, named, series, np.datetime64(begin, "D") + usage, costs)


def _order_of_arrival(
    groups: Sequence[tuple[str, ...]], there: NDArray[np.bool_], skipped: int, late: int
) -> tuple[list[int], NDArray[np.int64]]:
    """The groups that arrive at all by (delivery in which they first do, name), and these deliveries.

    `there` is [group, day]; the first delivery is that of day `skipped`, and brings what is `late` days older too.
    """
    usual = _first_true(there[:, skipped:])
    first = np.minimum(usual, _first_true(there[:, :skipped]) + late - skipped) if skipped else usual
    order = sorted(np.flatnonzero(there.any(axis=1)).tolist(), key=lambda place: (first[place], groups[place]))
    return order, first[order]


def _first_true(flags: NDArray[np.bool_]) -> NDArray[np.int64]:
    """The first place along the last axis; beyond any place where there is none."""
    found: NDArray[np.int64] = np.where(flags.any(axis=1), flags.argmax(axis=1), NEVER)
    return found


def _first_shares(accounts: Sequence[str], day: LedgerDay | None) -> NDArray[np.float64]:
    """First-reported over current total of each account; 1 where that cannot be told or is no share."""
    shares = day.shares_of(METRIC) if day else {}
    found = np.array([shares.get(account, 1.0) for account in accounts])
    return np.where(found > 0, found, 1.0)


def reported_range(start: date | None, end: date | None) -> tuple[date | None, date | None]:
    """Checked: an end after the start. Raises InvalidInput."""
    if start is not None or end is not None:
        DateRange(start or EARLIEST, end or date.max - timedelta(days=1))
    return start, end
