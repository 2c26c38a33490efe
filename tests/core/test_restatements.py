"""How a day moved (app.core.restatements): histories of account-days, and what is told about them."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.core.charges import NOTHING, Totals
from app.core.ledger import Arrival, DayRecord, decide
from app.core.restatements import (
    DayHistory,
    Move,
    NoticeLimits,
    Revision,
    day_histories,
    movement,
    restated_notice,
    revisions_of,
    unrecorded,
)

DAY = date(2026, 10, 1)
SETTLED = datetime(2026, 10, 4, tzinfo=UTC)
LIMITS = NoticeLimits(Decimal(1), Decimal(10))


def totals(amount: str | int) -> Totals:
    return Totals(1, Decimal(amount), Decimal(amount), Decimal(amount), Decimal(1))


def report(number: int, amount: str | int, hours: float, account: str = "a", **more: object) -> Revision:
    """As reported so many hours after the day counted as complete."""
    at = SETTLED + timedelta(hours=hours)
    return replace(Revision(DAY, account, number, at, "root/file", "sha", totals(amount)), **more)


def history(*revisions: Revision, days_later: float = 100) -> DayHistory:
    return day_histories(revisions, 2, SETTLED + timedelta(days=days_later))[DAY]


def test_what_was_called_complete_is_what_stood_when_the_day_settled() -> None:
    found = history(report(1, 5, -60), report(2, 7, -1), report(3, 9, 5))
    assert (found.first("amortized_cost"), found.complete("amortized_cost"), found.current("amortized_cost")) == (
        5,
        7,
        9,
    )
    assert found.completed_at == SETTLED
    assert found.moved("amortized_cost") == Move(Decimal(7), Decimal(9))
    move = found.moved("amortized_cost")
    assert move is not None
    assert (move.amount, move.percent) == (2, Decimal("28.5714"))


def test_before_it_settles_nothing_was_called_complete() -> None:
    found = history(report(1, 5, -60), days_later=-1)
    assert (found.complete("amortized_cost"), found.moved("amortized_cost"), found.completed_at) == (None, None, None)


def test_estimated_figures_are_not_complete_until_they_no_longer_are() -> None:
    found = history(
        report(1, 5, -60, estimated=True), report(2, 6, 24, estimated=True), report(3, 6, 48), report(4, 8, 72)
    )
    assert found.completed_at == SETTLED + timedelta(hours=48)
    assert found.moved("amortized_cost") == Move(Decimal(6), Decimal(8))
    assert history(report(1, 5, -60, estimated=True)).completed_at is None


def test_an_account_that_comes_late_moves_a_day_only_if_the_day_had_spoken_for_it() -> None:
    late = report(1, 40, 24, "b")
    missing = history(report(1, 5, -60), late)
    assert missing.moved("amortized_cost") == Move(Decimal(45), Decimal(45))
    assert missing.completed_at == SETTLED + timedelta(hours=24)
    spoken = history(report(1, 5, -60), replace(late, spoken=True))
    assert spoken.moved("amortized_cost") == Move(Decimal(5), Decimal(45))


def test_what_stood_before_histories_were_kept_is_unknown() -> None:
    first = report(1, 5, -60, source=None, sha256=None)
    assert history(first, report(4, 9, 24)).complete("amortized_cost") is None
    assert history(first, report(4, 9, -24)).complete("amortized_cost") == 9
    assert history(first, report(2, 9, 24)).complete("amortized_cost") == 5


def test_a_metric_that_is_not_available_has_no_move() -> None:
    bare = replace(totals(5), blended_cost=None)
    found = history(report(1, 5, -60), report(2, 9, 24, totals=bare))
    assert found.complete("blended_cost") == 5
    assert found.current("blended_cost") is None
    assert found.moved("blended_cost") is None
    assert found.moves("blended_cost") == {}


def test_a_move_from_nothing_has_no_percentage() -> None:
    assert Move(Decimal(0), Decimal(3)).percent is None
    assert Move(Decimal(0), Decimal(0)).percent == 0
    assert Move(Decimal(-50), Decimal(-75)).percent == -50


def test_movement_by_age() -> None:
    """Ten days of 100: one moves by 1 a day later, one by 50 after a week and back after two."""
    days = [[report(1, 100, -60)] for _ in range(8)]
    days.append([report(1, 100, -60), report(2, 101, 12)])
    days.append([report(1, 100, -60), report(2, 50, 24 * 6.5), report(3, 100, 24 * 13.5)])
    found = {one.age: one for one in movement(history(*day, days_later=15) for day in days)}
    assert list(found) == [1, 2, 3, 5, 7, 14]
    assert (found[1].days, found[1].median, found[1].p90, found[1].most) == (10, 0, 0, 1)
    assert (found[7].p90, found[7].most) == (1, 50)
    assert (found[14].p90, found[14].most) == (0, 1)


def test_a_complete_day_that_moves_enough_raises_one_notice() -> None:
    small = history(report(1, 1000, -60), report(2, "1009.99", 5))
    assert restated_notice(small, [], LIMITS, "USD") is None
    large = history(report(1, 1000, -60), report(2, "1009.99", 5), report(3, 1010, 8))
    notice = restated_notice(large, [], LIMITS, "USD")
    assert notice is not None
    assert (notice.kind, notice.day, notice.move) == ("restated", DAY, Move(Decimal(1000), Decimal(1010)))
    assert notice.at == SETTLED + timedelta(hours=8)
    assert "moved from 1000 to 1010 USD" in notice.message
    assert restated_notice(large, [], LIMITS, "USD") == notice, "asked again after a crash"
    assert restated_notice(large, [notice], LIMITS, "USD") is None
    again = history(*large.accounts["a"].revisions, report(4, 990, 9))
    back = restated_notice(again, [notice], LIMITS, "USD")
    assert back is not None
    assert back.id != notice.id
    assert back.move == Move(Decimal(1010), Decimal(990))


def test_both_limits_count() -> None:
    moved = history(report(1, 100, -60), report(2, 109, 5))
    assert restated_notice(moved, [], LIMITS, "USD") is None
    assert restated_notice(moved, [], NoticeLimits(Decimal(9), Decimal(9)), "USD") is not None
    assert restated_notice(moved, [], NoticeLimits(Decimal("9.1"), Decimal(0)), "USD") is None


def test_a_shift_between_accounts_is_a_move() -> None:
    found = history(report(1, 500, -60), report(1, 500, -60, "b"), report(2, 400, 5), report(2, 600, 5, "b"))
    notice = restated_notice(found, [], LIMITS, "USD")
    assert notice is not None
    assert {name: move.amount for name, move in notice.moves.items()} == {"a": -100, "b": 100}


def test_a_settling_day_raises_no_notice() -> None:
    found = history(report(1, 500, -60), report(2, 900, -50), days_later=-1)
    assert restated_notice(found, [], LIMITS, "USD") is None


# --- whatever arrives ------------------------------------------------------------------------------------------------


ACCOUNTS = ("a", "b", "c")
ARRIVALS = st.lists(
    st.tuples(
        st.sampled_from(["one.csv", "two.csv.gz"]),
        st.dictionaries(st.sampled_from(ACCOUNTS), st.integers(0, 3)),
        st.booleans(),
        st.sampled_from([None, frozenset("ab"), frozenset("c")]),
        st.frozensets(st.sampled_from(ACCOUNTS), max_size=1),
        st.booleans(),
    ),
    min_size=1,
    max_size=12,
)


@pytest.mark.parametrize("always", [True, False], ids=["kept after each", "kept before the next"])
@given(arrivals=ARRIVALS, data=st.data())
def test_histories_end_at_what_is_known_and_begin_with_the_first_report(
    always: bool, arrivals: list[tuple], data: st.DataObject
) -> None:
    """Restated, duplicated, vanished, held, failed; whoever keeps the history is killed at will after the flip."""
    record, kept = DayRecord(DAY), {}
    first: dict[str, Totals] = {}
    seen: dict[str, list[tuple[Totals, bool]]] = {}
    for number, (owner, amounts, estimated, covered, failed, killed) in enumerate(arrivals):
        kept |= {one.key: one for one in unrecorded(record, set(kept))}
        arrival = Arrival(
            owner=owner,
            sha256=f"sha {number}",
            accounts={name: totals(amount) for name, amount in amounts.items()},
            estimated=frozenset(amounts) if estimated else frozenset(),
            covered=covered,
            failed=failed,
            at=SETTLED + timedelta(hours=number),
        )
        decision = decide(record, arrival)
        record = decision.record
        for name in decision.replaced:
            state = (record.accounts[name].current, record.accounts[name].estimated)
            first.setdefault(name, state[0])
            if seen.setdefault(name, [])[-1:] != [state]:
                seen[name].append(state)
        if always or not killed:
            kept |= {one.key: one for one in unrecorded(record, set(kept))}
    found = day_histories([*kept.values(), *revisions_of(record)], 2, SETTLED + timedelta(days=9)).get(DAY)
    for name, states in seen.items():
        assert found is not None
        reports = found.accounts[name].revisions
        assert [(one.totals, one.estimated) for one in reports] == states, "every report, none twice"
        assert found.accounts[name].first == first[name]
        assert found.accounts[name].current == record.accounts[name].current
        assert [one.revision for one in reports] == list(range(1, len(reports) + 1))
        assert all(one.source in ("one.csv", "two.csv.gz") and one.sha256 for one in reports)
    assert set(seen) == set(record.accounts)


def test_a_release_names_the_file_that_lost_the_account() -> None:
    def arrival(amounts: dict[str, int], number: int) -> Arrival:
        accounts = {name: totals(amount) for name, amount in amounts.items()}
        at = SETTLED + timedelta(hours=number)
        return Arrival("root/file", f"sha {number}", accounts, frozenset(), None, frozenset(), at)

    record = decide(DayRecord(DAY), arrival({"a": 1, "b": 2}, 1)).record
    record = decide(record, arrival({"a": 1}, 2)).record
    (gone,) = [one for one in revisions_of(record) if one.account == "b" and one.revision == 2]
    assert (gone.source, gone.sha256, gone.totals) == ("root/file", "sha 2", NOTHING)
