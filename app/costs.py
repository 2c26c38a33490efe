"""Asking about cost: the one way pages, API and command line get a figure and how far it can be trusted."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from decimal import Decimal

from app.backends import Backends
from app.core.amounts import total as exact_total
from app.core.ledger import LOOKBACK, Coverage, DayRecord, coverage
from app.core.periods import EARLIEST, DateRange
from app.core.query import CostQuery
from app.core.retention import (
    MonthTotals,
    NotKept,
    kept_frame,
    month_rollup,
    not_kept,
    reaches_back,
    rows_from_months,
    total_from_months,
)
from app.core.rollup import CostFrame, Rollup
from app.retention import months_between


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
    not_kept: NotKept | None = None
    """Why `frame` has not all of the range: it reaches back further than retention."""


@dataclass(frozen=True)
class Ledgers:
    """All day records of one ledger version, judged as of one day. `quarantined`: days whose newest file was refused."""

    records: dict[date, DayRecord]
    coverage: Coverage
    updated: datetime | None
    version: int
    quarantined: frozenset[date] = frozenset()
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
class Retained:
    """What is kept by day (`days` of them, since `oldest`), and how to get at the ledger's months before."""

    days: int
    oldest: date | None
    months: Callable[[DateRange], list[MonthTotals]]


def retained(backends: Backends) -> Retained:
    oldest = kept_since(backends)

    def months(days: DateRange) -> list[MonthTotals]:
        return months_between(backends, days.start, days.end, oldest) if oldest else []

    return Retained(backends.settings.retention, oldest, months)


@dataclass(frozen=True)
class Snapshot:
    """The newest verified figures of one moment: all answers taken from it belong together."""

    rollup: Rollup
    ledgers: Ledgers
    exact: bool
    currency: str
    retention: Retained

    def ask(self, query: CostQuery) -> CostAnswer:
        if (oldest := self.kept_since_inside(query.range)) is not None:
            return self._ask_back(query, oldest)
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

    def kept_since_inside(self, days: DateRange) -> date | None:
        """The first day that is kept by day, where there was something in the range before it."""
        oldest = self.retention.oldest
        return oldest if reaches_back(self.ledgers.records, days, oldest) else None

    def _ask_back(self, query: CostQuery, oldest: date) -> CostAnswer:
        """Answer from the ledger's months as far as they can; units of usage they do not know."""
        total, whole = None, rows_from_months(query, oldest)
        if total_from_months(query, oldest):
            months = month_rollup(self.retention.months(query.range), self.rollup.version)
            frame = months.frame(query if whole else query.grouped().per("total"))
            total = frame.total
        if not whole:
            frame = kept_frame(self.rollup, query, oldest, total)
        return CostAnswer(
            frame=frame,
            total=total,
            unit=self.currency if query.metric != "usage_quantity" else None,
            currency=self.currency,
            data_version=self.rollup.version,
            freshness=self.ledgers.freshness(query.range),
            not_kept=None if whole else not_kept(oldest, self.retention.days),
        )

    def values_with_cost(self, dimension: str, query: CostQuery) -> list[tuple[str, Decimal | None]]:
        """Values of a dimension under the query's other filters with their exact cost, largest first."""
        since = self.kept_since_inside(query.range)
        if since is None:
            return self.rollup.values_with_cost(dimension, query)
        answer = self._ask_back(query.without(dimension).grouped(dimension).per("total"), since)
        if answer.not_kept is None:
            return list(zip((group[0] for group in answer.frame.groups), answer.frame.group_totals, strict=True))
        if query.range.end <= since:
            return []
        # The values are those since; what they cost over all of the range is not known.
        kept = query.over(DateRange(since, query.range.end))
        return [(value, None) for value, _ in self.rollup.values_with_cost(dimension, kept)]

    @property
    def known(self) -> DateRange | None:
        """The range from the first to the last day with accepted data; None when there is none yet."""
        days = self.rollup.days
        return DateRange(days[0], days[-1] + timedelta(days=1)) if days else None


def snapshot(backends: Backends) -> Snapshot:
    """Raises Unavailable when a store does not answer."""
    return Snapshot(
        rollup=backends.costs.rollup(),
        ledgers=ledgers_of(backends),
        exact=backends.costs.exact,
        currency=backends.settings.currency,
        retention=retained(backends),
    )


def ask(backends: Backends, query: CostQuery) -> CostAnswer:
    """Answer one question from the newest verified figures. Raises Unavailable when a store does not answer."""
    return snapshot(backends).ask(query)


def kept_since(backends: Backends) -> date | None:
    """The first day that is kept by day; None while everything is kept for ever."""
    return backends.costs.oldest(backends.today())


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
    return snapshot(backends).values_with_cost(dimension, query)


def first_and_last_day(backends: Backends) -> DateRange | None:
    """The range from the first to the last day with accepted data; None when there is none yet."""
    return snapshot(backends).known


def coverage_of(backends: Backends, days: DateRange) -> tuple[Coverage, dict[date, DayRecord]]:
    """Status of every day × account of a range, and the day records with first-reported and current totals."""
    records = backends.metadata.day_records(days.start - timedelta(days=LOOKBACK), days.end)
    quarantined = backends.metadata.quarantined_days(days.start, days.end, backends.source.root)
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
    # A file that was never taken leaves a record without figures: the history begins with the first day that has some.
    known = [day for day, record in records.items() if record.complete_file] or list(records)
    days = DateRange(min(known), max(max(records) + timedelta(days=1), today))
    quarantined = backends.metadata.quarantined_days(EARLIEST, days.end, backends.source.root)
    judged = coverage(
        records,
        list(days),
        today=today,
        settling_days=backends.settings.settling_days,
        quarantined=quarantined,
    )
    changes = [part.changed for record in records.values() for part in record.accounts.values()]
    return Ledgers(records, judged, max(changes, default=None), version, quarantined)


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
