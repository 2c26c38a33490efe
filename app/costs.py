"""Asking about cost: the one way pages, API and command line get a figure and how far it can be trusted."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from decimal import Decimal

from app.backends import Backends
from app.core.amounts import total as exact_total
from app.core.ledger import LOOKBACK, Coverage, DayRecord, coverage
from app.core.periods import EARLIEST, DateRange
from app.core.query import CostQuery
from app.core.rollup import CostFrame, Rollup


@dataclass(frozen=True)
class Freshness:
    """How far the figures of a range can be trusted.

    `complete_through`: last day of the unbroken run of complete days from the range's start. `updated`: when any figure last changed.
    `restating`: days that are being rewritten right now; their last verified figures are shown.
    """

    complete_through: date | None
    settling: tuple[date, ...]
    missing: tuple[date, ...]
    quarantined: tuple[date, ...]
    restating: tuple[date, ...]
    updated: datetime | None


@dataclass(frozen=True)
class CostAnswer:
    """A frame with what belongs beside every figure. `total` is exact: the ledger's where the store keeps floats."""

    frame: CostFrame
    total: Decimal | None
    unit: str | None
    currency: str
    data_version: int
    freshness: Freshness


@dataclass(frozen=True)
class Ledgers:
    """All day records of one ledger version, judged as of one day."""

    records: dict[date, DayRecord]
    coverage: Coverage
    updated: datetime | None
    version: int
    memo: dict[DateRange, Freshness] = field(default_factory=dict, compare=False, repr=False)

    def freshness(self, days: DateRange) -> Freshness:
        """Kept for the ranges asked about: a page asks for the same one many times."""
        found = self.memo.get(days)
        if found is None:
            found = self.memo[days] = self._freshness(days)
        return found

    def _freshness(self, days: DateRange) -> Freshness:
        inside = {day: self.coverage.days[day] for day in days if day in self.coverage.days}

        def with_status(status: str) -> tuple[date, ...]:
            return tuple(day for day, found in inside.items() if found == status)

        return Freshness(
            complete_through=Coverage({}, inside).complete_through,
            settling=with_status("settling"),
            missing=with_status("missing"),
            quarantined=with_status("quarantined"),
            restating=tuple(day for day in inside if (r := self.records.get(day)) and r.restating),
            updated=self.updated,
        )


@dataclass(frozen=True)
class Snapshot:
    """The newest verified figures of one moment: all answers taken from it belong together."""

    rollup: Rollup
    ledgers: Ledgers
    exact: bool
    currency: str

    def ask(self, query: CostQuery) -> CostAnswer:
        frame = self.rollup.frame(query)
        total = frame.total
        if not self.exact and total is not None and self.ledgers.version == self.rollup.version:
            total = _ledger_total(self.ledgers, query, total)
        return CostAnswer(
            frame=frame,
            total=total,
            unit=self.currency if query.metric != "usage_quantity" else _usage_unit(self.rollup, query),
            currency=self.currency,
            data_version=self.rollup.version,
            freshness=self.ledgers.freshness(query.range),
        )

    @property
    def known(self) -> DateRange | None:
        """The range from the first to the last day with accepted data; None when there is none yet."""
        days = self.rollup.days
        return DateRange(days[0], days[-1] + timedelta(days=1)) if days else None


def snapshot(backends: Backends) -> Snapshot:
    """Raises Unavailable when a store does not answer."""
    return Snapshot(backends.costs.rollup(), ledgers_of(backends), backends.costs.exact, backends.settings.currency)


def ask(backends: Backends, query: CostQuery) -> CostAnswer:
    """Answer one question from the newest verified figures. Raises Unavailable when a store does not answer."""
    return snapshot(backends).ask(query)


def _usage_unit(rollup: Rollup, query: CostQuery) -> str | None:
    """The one unit of everything that is asked about; None when units are mixed or were never said."""
    units = set(rollup.units(query).values())
    return units.pop() if len(units) == 1 else None


def state(backends: Backends) -> tuple[int, int, date, str]:
    """What every answer depends on beside the question: answers to equal questions in equal states are equal."""
    # The ledger as answers see it, which may be a moment older than the stored one.
    return backends.costs.rollup().version, ledgers_of(backends).version, backends.today(), backends.scope


def dimension_values(backends: Backends, dimension: str, query: CostQuery) -> list[tuple[str, Decimal | None]]:
    """Values of a dimension under the query's other filters with their exact cost, largest first."""
    return backends.costs.rollup().values_with_cost(dimension, query)


def first_and_last_day(backends: Backends) -> DateRange | None:
    """The range from the first to the last day with accepted data; None when there is none yet."""
    return snapshot(backends).known


def coverage_of(backends: Backends, days: DateRange) -> tuple[Coverage, dict[date, DayRecord]]:
    """Status of every day × account of a range, and the day records with first-reported and current totals."""
    records = backends.metadata.day_records(days.start - timedelta(days=LOOKBACK), days.end)
    quarantined = backends.metadata.quarantined_days(days.start, days.end)
    judged = coverage(
        records,
        list(days),
        today=backends.today(),
        settling_days=backends.settings.settling_days,
        quarantined=quarantined,
    )
    return judged, {day: record for day, record in records.items() if day in days}


def ledgers_of(backends: Backends) -> Ledgers:
    """The whole ledger, read again only when it changed, and at most one fifth of the time while it keeps changing."""
    version, today = backends.metadata.ledger_version(), backends.today()
    kept = backends.memo.get("ledgers")
    fresh = kept is not None and (kept.key[0] == version or time.monotonic() < kept.good_until)
    if kept is not None and fresh and kept.key[1] == today:
        ledgers: Ledgers = kept.ledgers
        return ledgers
    began = time.monotonic()
    ledgers = _read_ledgers(backends, version, today)
    now = time.monotonic()
    backends.memo["ledgers"] = _Kept((version, today), now + 4 * (now - began), ledgers)
    return ledgers


@dataclass(frozen=True)
class _Kept:
    key: tuple[int, date]
    good_until: float
    ledgers: Ledgers


def _read_ledgers(backends: Backends, version: int, today: date) -> Ledgers:
    records = backends.metadata.day_records(EARLIEST, today + timedelta(days=3))
    if not records:
        return Ledgers({}, Coverage({}, {}), None, version)
    days = DateRange(min(records), max(max(records) + timedelta(days=1), today))
    judged = coverage(
        records,
        list(days),
        today=today,
        settling_days=backends.settings.settling_days,
        quarantined=backends.metadata.quarantined_days(days.start, days.end),
    )
    changes = [part.changed for record in records.values() for part in record.accounts.values()]
    return Ledgers(records, judged, max(changes, default=None), version)


def _ledger_total(ledgers: Ledgers, query: CostQuery, fallback: Decimal) -> Decimal | None:
    """The exact total from the ledger where it knows it: it keeps account × day, so any other filter falls back."""
    if any(name != "account" for name, _ in query.filters):
        return fallback
    accounts = query.values("account")
    values: list[Decimal] = []
    for day in query.range:
        record = ledgers.records.get(day)
        for name, part in record.accounts.items() if record else ():
            if not accounts or name in accounts:
                value = part.current.of(query.metric)
                if value is None:
                    return None
                values.append(value)
    return exact_total(values)
