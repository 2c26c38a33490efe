"""Asking about cost: the one way pages, API and command line get a figure and how far it can be trusted."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from decimal import Decimal
from itertools import groupby
from typing import Final

from app.backends import Backends
from app.core.exact import known_total
from app.core.ledger import LOOKBACK, Coverage, DayRecord, Revisions, coverage
from app.core.ledgerdays import LedgerDay, ledger_day
from app.core.periods import DAY, EARLIEST, DateRange
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

MOST_READ: Final = 7
"""Records of days held at a time while the ledger is read: in a large organisation each is some hundred kilobytes, and
what is taken once stays taken."""

MOST_FRESHNESSES: Final = 1000
"""Ranges whose freshness is kept for a ledger version."""


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
    """All days of one ledger version, judged as of one day. `quarantined`: days whose newest file was refused.

    `origin` as in core.ledger.Revisions.
    """

    days: Mapping[date, LedgerDay]
    coverage: Coverage
    updated: datetime | None
    version: int
    origin: int
    quarantined: frozenset[date] = frozenset()
    memo: dict[DateRange, Freshness] = field(default_factory=dict, compare=False, repr=False)

    def freshness(self, days: DateRange) -> Freshness:
        """Kept for the ranges asked about: a page asks for the same one many times."""
        found = self.memo.get(days)
        if found is None:
            if len(self.memo) >= MOST_FRESHNESSES:
                self.memo.clear()
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
            restating=tuple(day for day in inside if (found := self.days.get(day)) and found.restating),
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
        return oldest if reaches_back(self.ledgers.days, days, oldest) else None

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
    """The whole ledger; what changed of it is read again when it did, and at most one fifth of the time while it keeps
    changing."""
    version, today = backends.metadata.ledger_version(), backends.today()
    kept = backends.memo.get("ledgers")
    fresh = kept is not None and (kept.key[0] == version or time.monotonic() < kept.good_until)
    if kept is not None and fresh and kept.key[1] == today:
        ledgers: Ledgers = kept.ledgers
        return ledgers
    began = time.monotonic()
    ledgers = read_ledgers(backends, today, kept.ledgers if kept is not None else None)
    now = time.monotonic()
    backends.memo["ledgers"] = _Kept((ledgers.version, today), now + 4 * (now - began), ledgers)
    return ledgers


@dataclass(frozen=True)
class _Kept:
    key: tuple[int, date]
    good_until: float
    ledgers: Ledgers


def read_ledgers(backends: Backends, today: date, before: Ledgers | None = None) -> Ledgers:
    """The ledger as it is now. Of what `before` has, only days that have changed are read."""
    revisions = backends.metadata.day_revisions()
    known = before.days if before is not None and before.origin == revisions.origin else {}
    found = _brought_up(backends, known, revisions, today + 3 * DAY)
    if not found:
        return Ledgers({}, Coverage({}, {}), None, revisions.version, revisions.origin)
    # A file that was never taken leaves a record without figures: the history begins with the first day that has some.
    begun = [day for day, part in found.items() if part.complete_file] or list(found)
    days = DateRange(min(begun), max(max(found) + DAY, today))
    quarantined = backends.metadata.quarantined_days(EARLIEST, days.end, backends.source.root)
    judged = coverage(
        found,
        list(days),
        today=today,
        settling_days=backends.settings.settling_days,
        quarantined=quarantined,
    )
    updated = max((part.changed for part in found.values() if part.changed), default=None)
    return Ledgers(found, judged, updated, revisions.version, revisions.origin, quarantined)


def _brought_up(
    backends: Backends, known: Mapping[date, LedgerDay], revisions: Revisions, end: date
) -> dict[date, LedgerDay]:
    """All days before `end`, of which those are read that are not known at their revision."""
    days = sorted(day for day in revisions.days if EARLIEST <= day < end)
    changed = {day for day in days if day not in known or known[day].revision != revisions.days[day]}
    with_totals = not backends.costs.exact
    found = {day: known[day] for day in days if day in known}
    for run in _runs(days, changed):
        records = backends.metadata.day_records(run[0], run[-1] + DAY)
        found |= {day: ledger_day(record, with_totals=with_totals) for day, record in records.items()}
    return dict(sorted(found.items()))


def _runs(days: Sequence[date], changed: Collection[date]) -> Iterator[list[date]]:
    """The days that changed, as few runs of neighbours as there can be of at most MOST_READ."""
    for is_changed, neighbours in groupby(days, changed.__contains__):
        if is_changed:
            run = list(neighbours)
            yield from (run[first : first + MOST_READ] for first in range(0, len(run), MOST_READ))


def _ledger_total(ledgers: Ledgers, query: CostQuery, fallback: Decimal) -> Decimal | None:
    """The exact total from the ledger where it knows it: it keeps account × day, so any other filter falls back."""
    if any(name != "account" for name, _ in query.filters):
        return fallback
    accounts = query.values("account")
    known = (ledgers.days[day] for day in query.range if day in ledgers.days)
    return known_total(day.total(query.metric, accounts) for day in known)
