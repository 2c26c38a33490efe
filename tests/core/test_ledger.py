"""What a file changes of a day, and how a day is judged: every decision of the ledger, without a store."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.core.charges import NOTHING, Totals
from app.core.ledger import Arrival, Coverage, DayRecord, begin, coverage, decide, settles_at, touched

DAY = date(2026, 10, 10)
NOW = datetime(2026, 10, 12, 6, tzinfo=UTC)
FILE, OTHER = "file:///costs/2026-10-10.csv", "file:///costs/2026-10-10.csv.gz"


def totals(amount: str) -> Totals:
    value = Decimal(amount)
    return Totals(1, value, value, value, value)


def arrival(accounts: dict[str, str], **changes: Any) -> Arrival:
    found = Arrival(
        owner=FILE,
        sha256="aa",
        accounts={name: totals(amount) for name, amount in accounts.items()},
        estimated=frozenset(),
        covered=None,
        failed=frozenset(),
        at=NOW,
    )
    return replace(found, **changes)


def current(record: DayRecord) -> dict[str, Decimal]:
    return {name: part.current.amortized_cost for name, part in record.accounts.items()}


def after(*arrivals: Arrival) -> DayRecord:
    record = DayRecord(DAY)
    for each in arrivals:
        record = decide(record, each).record
    return record


def test_a_first_file_owns_its_accounts_and_its_report_stays() -> None:
    record = after(arrival({"a": "1"}), arrival({"a": "3"}, sha256="bb"))
    part = record.accounts["a"]
    assert (part.owner, part.revision) == (FILE, 2)
    assert (part.first, part.current) == (totals("1"), totals("3"))


def test_the_same_totals_again_are_no_revision() -> None:
    record = after(arrival({"a": "1"}), arrival({"a": "1"}, sha256="bb", at=NOW + timedelta(hours=1)))
    assert (record.accounts["a"].revision, record.accounts["a"].changed) == (1, NOW)


def test_an_account_that_vanished_is_released_to_zero() -> None:
    decision = decide(after(arrival({"a": "1", "b": "2"})), arrival({"a": "1"}))
    assert decision.released == {"b"}
    assert (decision.record.accounts["b"].current, decision.record.accounts["b"].owner) == (NOTHING, None)


def test_what_was_released_may_be_owned_by_another_file() -> None:
    record = after(arrival({"a": "1", "b": "2"}), arrival({"a": "1"}), arrival({"b": "5"}, owner=OTHER))
    assert (record.accounts["b"].owner, record.accounts["b"].first) == (OTHER, totals("2"))
    assert current(record) == {"a": 1, "b": 5}


def test_a_second_file_is_held_where_the_first_owns_and_never_added() -> None:
    decision = decide(after(arrival({"a": "1"})), arrival({"a": "7", "b": "2"}, owner=OTHER))
    assert (decision.taken, decision.held) == ({"b"}, {"a"})
    assert current(decision.record) == {"a": 1, "b": 2}


def test_a_failed_account_is_never_zeroed_by_its_absence() -> None:
    covered = arrival({"a": "4"}, covered=frozenset({"a"}), failed=frozenset({"b"}))
    decision = decide(after(arrival({"a": "1", "b": "2"})), covered)
    assert not decision.released
    assert current(decision.record) == {"a": 4, "b": 2}
    assert decision.record.failed_accounts == ("b",)
    assert decide(decision.record, arrival({"a": "4", "b": "3"})).record.failed_accounts == ()


def test_only_covered_accounts_are_replaced_or_released() -> None:
    decision = decide(after(arrival({"a": "1", "b": "2"})), arrival({"a": "4", "b": "9"}, covered=frozenset({"a"})))
    assert (decision.taken, decision.released) == ({"a"}, frozenset())
    assert current(decision.record) == {"a": 4, "b": 2}


@pytest.mark.parametrize(("job", "later", "allowed"), [("mine", 0, True), ("other", 0, False), ("other", 61, True)])
def test_one_job_at_a_time_may_write_a_day(job: str, later: int, allowed: bool) -> None:
    marked = begin(DayRecord(DAY), "mine", NOW, NOW + timedelta(seconds=60))
    assert marked is not None
    again = begin(marked, job, NOW + timedelta(seconds=later), NOW + timedelta(seconds=later + 60))
    assert (again is not None) == allowed


def test_a_mark_without_an_end_holds_nothing() -> None:
    """Or the day would wait for ever, and nobody would compare it."""
    endless = DayRecord(DAY, restating=True, restating_job="gone")
    assert not endless.being_written(NOW)
    assert begin(endless, "mine", NOW, NOW + timedelta(seconds=60)) is not None
    assert replace(endless, restating_until=NOW + timedelta(seconds=1)).being_written(NOW)


def test_a_flip_lifts_the_mark_and_every_change_is_the_next_revision() -> None:
    marked = begin(DayRecord(DAY), "mine", NOW, NOW + timedelta(seconds=60))
    assert marked is not None
    record = decide(marked, arrival({"a": "1"})).record
    assert (record.restating, record.restating_job, record.restating_until) == (False, None, None)
    assert [marked.revision, record.revision, touched(record).revision] == [1, 2, 3]


def days_of(count: int) -> list[date]:
    return [DAY + timedelta(days=n) for n in range(count)]


def history(count: int, accounts: dict[str, str], *, without: frozenset[date] = frozenset()) -> dict[date, DayRecord]:
    return {day: decide(DayRecord(day), arrival(accounts)).record for day in days_of(count) if day not in without}


def judged(records: dict[date, DayRecord], count: int, today: date, **more: Any) -> Coverage:
    return coverage(records, days_of(count), today=today, settling_days=2, **more)


def test_a_day_settles_for_full_days_after_it() -> None:
    assert settles_at(DAY, 2) == date(2026, 10, 13)
    for today, status in ((date(2026, 10, 12), "settling"), (date(2026, 10, 13), "complete")):
        assert judged(history(1, {"a": "1"}), 1, today).days[DAY] == status


def test_an_estimated_account_keeps_its_day_settling() -> None:
    record = decide(DayRecord(DAY), arrival({"a": "1", "b": "1"}, estimated=frozenset({"b"}))).record
    found = judged({DAY: record}, 1, date(2026, 12, 1))
    assert found.accounts[DAY] == {"a": "complete", "b": "settling"}
    assert found.days[DAY] == "settling"


def test_a_day_without_a_file_is_missing_while_its_accounts_had_cost_lately() -> None:
    gone = frozenset(days_of(20)[3:20])
    found = judged(history(20, {"a": "1"}, without=gone), 20, date(2026, 12, 1))
    expected_until = days_of(20)[2] + timedelta(days=14)
    assert found.with_status("missing") == [day for day in sorted(gone) if day <= expected_until]
    assert found.complete_through == days_of(20)[2]


def test_a_refused_file_is_quarantined_and_not_missing() -> None:
    second = days_of(2)[1]
    found = judged(
        history(2, {"a": "1"}, without=frozenset({second})), 2, date(2026, 12, 1), quarantined=frozenset({second})
    )
    assert found.days[second] == "quarantined"


def test_a_day_whose_newest_file_was_refused_is_not_complete_though_its_figures_stay() -> None:
    first, second, third = days_of(3)
    found = judged(history(3, {"a": "1"}), 3, date(2026, 12, 1), quarantined=frozenset({second}))
    assert found.days == {first: "complete", second: "quarantined", third: "complete"}
    assert found.accounts[second] == {"a": "complete"}
    assert found.complete_through == first


def test_today_is_not_expected_and_an_empty_complete_day_is_complete() -> None:
    _, second, third = days_of(3)
    records = history(1, {"a": "1"}) | {second: decide(DayRecord(second), arrival({})).record}
    found = judged(records, 3, third)
    assert found.days[third] is None
    assert judged(records, 2, date(2026, 12, 1)).days[second] == "complete"


reports = st.lists(
    st.tuples(
        st.sampled_from([FILE, OTHER]), st.dictionaries(st.sampled_from("abc"), st.sampled_from(["1", "2", "3"]))
    ),
    max_size=12,
)


@given(reports)
def test_any_sequence_of_files_leaves_each_account_with_one_owner_and_its_last_word(
    sequence: list[tuple[str, dict[str, str]]],
) -> None:
    record, owners, worth, first = DayRecord(DAY), {}, {}, {}
    for number, (owner, accounts) in enumerate(sequence):
        for name in [name for name, has in owners.items() if has == owner and name not in accounts]:
            owners[name], worth[name] = None, Decimal(0)
        for name, amount in accounts.items():
            if owners.get(name) in (None, owner):
                owners[name], worth[name] = owner, Decimal(amount)
                first.setdefault(name, Decimal(amount))
        record = decide(record, arrival(accounts, owner=owner, sha256=str(number))).record
    assert {name: part.owner for name, part in record.accounts.items()} == owners
    assert current(record) == worth
    assert {name: part.first.amortized_cost for name, part in record.accounts.items()} == first
