"""The ledger as a process keeps it: brought up to date day by day, it is what reading all of it anew would give."""

from __future__ import annotations

from dataclasses import fields, replace
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any, cast

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.backends import Backends
from app.core.amounts import Amounts
from app.core.charges import METRICS, Totals
from app.core.exact import known_total
from app.core.ledger import AccountDay, DayRecord
from app.core.periods import DateRange
from app.core.query import CostQuery
from app.costs import MOST_FRESHNESSES, MOST_READ, Ledgers, ledgers_of, read_ledgers, snapshot
from app.narrowing import narrowed
from app.ports import Metadata, Source
from tests.memory import ACCOUNTS, TODAY, MemoryLedger, memory_backends

AT = datetime(2026, 11, 24, 8, tzinfo=UTC)
HISTORY = 20
START = TODAY - timedelta(days=HISTORY)


class Watched(MemoryLedger):
    """A ledger that remembers what was asked of it."""

    def __init__(self, records: dict[date, DayRecord]) -> None:
        super().__init__(records)
        self.version = sum(found.revision for found in records.values())
        self.read: list[list[date]] = []

    def day_records(self, start: date, end: date) -> dict[date, DayRecord]:
        found = super().day_records(start, end)
        self.read.append(list(found))
        return found

    def job_counts(self) -> dict[str, int]:
        return {}

    def change(self, day: date, **changes: Any) -> None:
        before = self.day_record(day)
        self.records[day] = replace(before, revision=before.revision + 1, **changes)
        self.version += 1

    def restored(self, days: int) -> None:
        """An older copy was put back: other figures under revisions that there were."""
        for day in list(self.records)[days:]:
            del self.records[day]
        for day, found in self.records.items():
            self.records[day] = replace(found, accounts={name: part_of(-7) for name in found.accounts})
        self.version += 1000


def part_of(cents: int, **changes: Any) -> AccountDay:
    now = Totals(abs(cents), *(Decimal(cents).scaleb(-2) for _ in range(4)))
    return replace(AccountDay("root/file", "sha", 1, now, now, False, AT, AT), **changes)


def watched(history: int = HISTORY, *, exact: bool = False) -> tuple[Backends, Watched]:
    backends = memory_backends(history=history)
    ledger = Watched(cast(MemoryLedger, backends.metadata).records)
    backends.costs.exact = exact  # type: ignore[misc]
    return replace(backends, metadata=cast(Metadata, ledger)), ledger


def seen_by(backends: Backends, *accounts: str) -> Backends:
    seen = narrowed(replace(backends, source=cast(Source, None)), frozenset(accounts), {})
    return replace(seen, source=backends.source)


def said(ledgers: Ledgers) -> list[Any]:
    """All there is in it, to be compared."""
    days = [[_plain(getattr(day, field.name)) for field in fields(day)] for day in ledgers.days.values()]
    known = (ledgers.coverage, ledgers.updated, ledgers.version, ledgers.origin, ledgers.quarantined)
    return [list(ledgers.days), days, *known]


def _plain(value: Any) -> Any:
    if isinstance(value, Amounts):
        return value.map(lambda part: part.reshape(-1)).decimals()
    return value.tolist() if isinstance(value, np.ndarray) else value


PLACES = st.integers(0, HISTORY + 5).map(lambda n: START + timedelta(days=n))
SOME = st.sets(st.sampled_from([*ACCOUNTS, "new"]))
STEPS = st.one_of(
    st.tuples(st.just("restate"), PLACES, SOME, st.integers(-9, 9), st.booleans()),
    st.tuples(st.just("mark"), PLACES, st.booleans()),
    st.tuples(st.just("fail"), PLACES, SOME, st.booleans()),
    st.tuples(st.just("refuse"), PLACES),
    st.tuples(st.just("restore"), st.integers(0, HISTORY)),
    st.tuples(st.just("a day passes")),
)


def step(ledger: Watched, what: str, *about: Any) -> None:
    if what == "restate":
        day, names, cents, estimated = about
        before = ledger.day_record(day).accounts
        firsts = {name: before[name].first if name in before else part_of(cents).current for name in names}
        parts = {name: part_of(cents, first=firsts[name], estimated=estimated, revision=2) for name in names}
        ledger.change(day, accounts={**before, **parts}, sources={"root/file": "sha"}, restating=False)
    elif what == "mark":
        ledger.change(about[0], restating=about[1])
    elif what == "fail":
        day, names, some = about
        ledger.change(day, failed_accounts=tuple(sorted(names)), covered=frozenset(names) if some else None)
    elif what == "refuse":
        ledger.quarantined |= {about[0]}
        ledger.change(about[0])
    elif what == "restore":
        ledger.restored(about[0])


@given(st.lists(STEPS, max_size=8), st.booleans())
@settings(max_examples=40)
def test_what_is_brought_up_is_what_reading_anew_gives(steps: list[tuple[Any, ...]], exact: bool) -> None:
    whole, ledger = watched(exact=exact)
    some = seen_by(whole, "staging", "new")
    today, kept = TODAY, {id(backends): read_ledgers(backends, TODAY) for backends in (whole, some)}
    for each in steps:
        step(ledger, *each)
        today += timedelta(days=each[0] == "a day passes")
        for backends in (whole, some):
            kept[id(backends)] = read_ledgers(backends, today, kept[id(backends)])
            assert said(kept[id(backends)]) == said(read_ledgers(backends, today))


def test_only_days_that_changed_are_read_again() -> None:
    backends, ledger = watched(75)
    before = read_ledgers(backends, TODAY)
    assert sorted(day for read in ledger.read for day in read) == sorted(ledger.records)
    assert max(map(len, ledger.read)) == MOST_READ, "not all records are held at a time"
    ledger.read.clear()
    days = [TODAY - timedelta(days=n) for n in (60, 59, 3)]
    for day in days:
        ledger.change(day, restating=True)
    after = read_ledgers(backends, TODAY, before)
    assert [sorted(read) for read in ledger.read] == [days[:2], days[2:]]
    assert after.freshness(DateRange(days[0], TODAY)).restating == tuple(days)
    ledger.read.clear()
    read_ledgers(backends, TODAY, after)
    assert ledger.read == []


def test_after_a_restore_nothing_is_known() -> None:
    backends, ledger = watched()
    before = read_ledgers(backends, TODAY)
    ledger.restored(9)
    after = read_ledgers(backends, TODAY, before)
    assert {day.total(METRICS[0]) for day in after.days.values()} == {Decimal("-0.07") * len(ACCOUNTS)}


def test_a_scope_keeps_nothing_of_other_accounts() -> None:
    backends, _ = watched()
    found = read_ledgers(seen_by(backends, "staging"), TODAY)
    assert {name for day in found.days.values() for name in day.accounts} == {"staging"}
    assert {name for day in found.coverage.accounts.values() for name in day} == {"staging"}


@pytest.mark.parametrize("accounts", [(), ("staging",), ("staging", "data-lake"), ("nobody",)])
@pytest.mark.parametrize("metric", METRICS)
def test_where_the_store_keeps_floats_the_ledgers_exact_total_is_told(metric: str, accounts: tuple[str, ...]) -> None:
    backends, ledger = watched()
    day = START + timedelta(days=3)
    tiny = {
        name: replace(part, current=replace(part.current, **{metric: Decimal("1e-20")}))
        for name, part in ledger.records[day].accounts.items()
    }
    ledger.change(day, accounts=tiny)
    figures = snapshot(backends)
    figures = replace(figures, ledgers=replace(figures.ledgers, version=figures.rollup.version))
    asked = DateRange(START - timedelta(days=3), TODAY)
    answer = figures.ask(CostQuery(asked, metric=metric, filters=(("account", accounts),) if accounts else ()))
    parts = (found.accounts.items() for found in ledger.records.values())
    expected = known_total(
        part.current.of(metric) for each in parts for name, part in each if not accounts or name in accounts
    )
    assert answer.total == expected
    assert expected == 0 or answer.total != answer.frame.total


def test_the_freshness_of_only_so_many_ranges_is_kept() -> None:
    ledgers = ledgers_of(watched()[0])
    for n in range(MOST_FRESHNESSES + 5):
        ledgers.freshness(DateRange(START, TODAY + timedelta(days=n)))
    assert len(ledgers.memo) <= MOST_FRESHNESSES
