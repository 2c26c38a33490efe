"""The restatement ledger as files arrive: nothing that was reported is lost, whenever a worker is killed."""

from __future__ import annotations

import hashlib
from datetime import timedelta
from decimal import Decimal
from pathlib import Path

import pytest

from app.backends import Backends
from app.core.ledger import DayRecord
from app.core.periods import DateRange
from app.core.restatements import revisions_of
from app.restatements import histories, keep_histories
from tests.arrivals import DAY, NOW, amount, arrive, csv, take
from tests.contracts.metadata import account_day, totals


def reports(backends: Backends, account: str = "a") -> list[tuple[str | None, Decimal]]:
    """(sha256, amortized cost) of every kept report of the day."""
    found = backends.metadata.revisions(DAY, DAY + timedelta(days=1), [account])
    return [(one.sha256, one.totals.amortized_cost) for one in found]


def sha(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def test_every_report_is_kept_with_the_file_it_came_with(backends: Backends, folder: Path) -> None:
    files = [csv("a,S,r,1,1,1,1"), csv("a,S,r,2,1,1,1"), csv("b,S,r,2,1,1,1"), csv("a,S,r,1,1,1,1")]
    for data in (files[0], files[0], files[1], files[1], *files[2:]):
        take(backends, arrive(folder, data))
    expected = [(files[0], 1), (files[1], 2), (files[2], 0), (files[3], 1)]
    assert reports(backends) == [(sha(data), Decimal(amount)) for data, amount in expected]
    first = histories(backends, DateRange(DAY, DAY + timedelta(days=1)))[DAY].accounts["a"].first
    assert first.amortized_cost == 1


class Killed(BaseException):
    pass


def test_a_crash_between_flip_and_history_loses_no_report(
    backends: Backends, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = [csv(f"a,S,r,{amount},1,1,1") for amount in (1, 2, 3)]
    take(backends, arrive(folder, files[0]))
    kept = type(backends.metadata).add_revisions

    def die(*_: object) -> None:
        raise Killed

    monkeypatch.setattr(type(backends.metadata), "add_revisions", die)
    with pytest.raises(Killed):
        take(backends, arrive(folder, files[1]))
    assert amount(backends) == 2, "it was flipped"
    day = DateRange(DAY, DAY + timedelta(days=1))
    assert [one.totals.amortized_cost for one in histories(backends, day)[DAY].accounts["a"].revisions] == [1, 2]
    monkeypatch.setattr(type(backends.metadata), "add_revisions", kept)
    take(backends, arrive(folder, files[2]))
    assert reports(backends) == [(sha(data), Decimal(n)) for n, data in enumerate(files, start=1)]


@pytest.mark.parametrize("mender", ["the same job", "the scheduler"])
def test_what_a_crash_left_out_is_added_without_a_new_file(
    backends: Backends, folder: Path, monkeypatch: pytest.MonkeyPatch, mender: str
) -> None:
    take(backends, arrive(folder, csv("a,S,r,100,1,1,1")))
    restated = arrive(folder, csv("a,S,r,200,1,1,1"))
    with monkeypatch.context() as broken:
        broken.setattr("app.ingest.keep_history", lambda _, record: die_after_the_flip(record))
        with pytest.raises(Killed):
            take(backends, restated)
    assert [amount for _, amount in reports(backends)] == [100]
    assert backends.metadata.notices(limit=9).items == []
    if mender == "the same job":
        assert take(backends, restated).status == "done"
    else:
        assert keep_histories(backends) == 1
        assert keep_histories(backends) == 0
    assert [amount for _, amount in reports(backends)] == [100, 200]
    (notice,) = backends.metadata.notices(limit=9).items
    assert notice.move is not None
    assert (notice.kind, notice.day, notice.move.amount) == ("restated", DAY, 100)


def die_after_the_flip(record: DayRecord) -> None:
    if record.revision > 3:
        raise Killed


def test_a_ledger_from_before_histories_has_its_first_reports_and_what_is_now(backends: Backends, folder: Path) -> None:
    old = DayRecord(DAY, 1, {"a": account_day("9", revision=3, first=totals("5")), "b": account_day("1")})
    assert backends.metadata.put_day_record(old)
    assert keep_histories(backends) == 3
    found = backends.metadata.revisions(DAY, DAY + timedelta(days=1))
    assert found == sorted(revisions_of(old), key=lambda one: one.key)
    assert [(one.account, one.revision, one.sha256 is None) for one in found] == [
        ("a", 1, True),
        ("a", 3, False),
        ("b", 1, False),
    ]


def test_a_settling_day_moves_without_a_notice_and_a_closed_one_raises_it_once(
    backends: Backends, folder: Path
) -> None:
    for day, amounts in ((NOW.date(), (100, 300)), (DAY, (100, 101, 300, 300))):
        for number in amounts:
            take(backends, arrive(folder, csv(f"a,S,r,{number},1,1,1"), day))
    (notice,) = backends.metadata.notices(limit=9).items
    assert notice.move is not None
    assert (notice.day, notice.move.before, notice.move.after) == (DAY, 100, 300)
    assert backends.metadata.notices_about(NOW.date(), NOW.date() + timedelta(days=1)) == []


def test_a_new_account_on_a_day_called_complete_is_a_move(backends: Backends, folder: Path) -> None:
    take(backends, arrive(folder, csv("a,S,r,100,1,1,1")))
    take(backends, arrive(folder, csv("a,S,r,100,1,1,1", "b,S,r,50,1,1,1")))
    (notice,) = backends.metadata.notices(limit=9).items
    assert {name: move.after for name, move in notice.moves.items()} == {"b": 50}
