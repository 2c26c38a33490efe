"""Reconciliation as files and references arrive: real embedded parts, no worker."""

from __future__ import annotations

import gzip
import hashlib
import json
from dataclasses import replace
from datetime import date, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from app.backends import Backends
from app.core.periods import DateRange
from app.core.reconciliation import AccountMonth
from app.reconciliation import reconciliation_of, take_references
from app.restatements import histories
from tests.arrivals import DAY, HEADER, arrive, csv, take

MONTH = date(2026, 10, 1)
NEXT = DAY + timedelta(days=1)


def refer(folder: Path, rows: list[list[str]] | None, *, collected: str = "2026-10-19T04:00:00Z", **more: Any) -> None:
    """Put a month's reference there as the collector does; all metrics have the one amount of a row."""
    document = {
        "month": "2026-10",
        "collected": collected,
        "currency": "USD",
        "metrics": ["amortized_cost", "blended_cost", "unblended_cost"],
        "rows": [[*row[:3], *[row[3]] * 3] for row in rows or []],
    }
    path = folder.parent / "reference" / "2026-10.json"
    path.parent.mkdir(exist_ok=True)
    fresh = folder.parent / "arriving.json"
    fresh.write_text("broken" if rows is None else json.dumps(document | more))
    fresh.replace(path)


def months(backends: Backends, **more: Any) -> dict[str, AccountMonth]:
    take_references(backends)
    return {one.account: one for one in reconciliation_of(backends, MONTH, **more).accounts}


def test_file_ledger_store_and_cost_explorer_agree(backends: Backends, folder: Path) -> None:
    take(backends, arrive(folder, csv("a,S,r,1.25,1,1,1", "a,T,r,-0.00000000000000000001,1,1,1", "b,S,r,3,1,1,1")))
    take(backends, arrive(folder, csv("a,S,r,2,1,1,1"), NEXT))
    refer(
        folder,
        [
            [str(DAY), "a", "Usage", "1.24999999999999999999"],
            [str(NEXT), "a", "Usage", "2"],
            [str(DAY), "b", "Usage", "3"],
        ],
    )
    found = months(backends)
    exact = Decimal("3.24999999999999999999")
    a = found["a"]
    assert (a.file, a.ledger, a.store, a.ours, a.cost_explorer) == (exact,) * 5
    assert (a.compared, a.difference, dict(a.explained), a.unexplained) == ((DAY, NEXT), 0, {}, 0)
    assert (found["b"].difference, found["b"].compared) == (0, (DAY,))


def test_restated_released_and_superseded_files_count_as_they_are_now(backends: Backends, folder: Path) -> None:
    take(backends, arrive(folder, csv("a,S,r,1,1,1,1", "b,S,r,5,5,5,5")))
    take(backends, arrive(folder, csv("a,S,r,2,1,1,1")))
    found = months(backends)
    assert (found["a"].file, found["a"].ledger, found["a"].store) == (2, 2, 2)
    assert (found["b"].file, found["b"].ledger, found["b"].store) == (0, 0, 0)


def test_an_account_that_failed_is_what_its_older_file_said(backends: Backends, folder: Path) -> None:
    take(backends, arrive(folder, csv("a,S,r,1,1,1,1", "b,S,r,10,1,1,1")))
    newer = csv("a,S,r,2,1,1,1", "b,S,r,10,1,1,1")
    sidecar = folder.parent / "coverage" / f"{DAY}.json"
    sidecar.parent.mkdir()
    said = {"sha256": hashlib.sha256(newer).hexdigest(), "covered": ["a"], "failed": ["b"]}
    sidecar.write_text(json.dumps(said))
    take(backends, arrive(folder, newer))
    refer(folder, [[str(DAY), "a", "Usage", "2"], [str(DAY), "b", "Usage", "12"]])
    found = months(backends)
    assert (found["b"].file, found["b"].ledger, found["b"].store) == (10, 10, 10)
    assert (dict(found["b"].explained), found["b"].unexplained) == ({"timing": -2}, 0)
    assert found["a"].difference == 0


def test_a_held_file_explains_what_it_would_have_brought(backends: Backends, folder: Path) -> None:
    take(backends, arrive(folder, csv("a,S,r,10,1,1,1")))
    take(backends, arrive(folder, gzip.compress(csv("a,S,r,15,1,1,1")), suffix=".csv.gz"))
    refer(folder, [[str(DAY), "a", "Usage", "15"]])
    found = months(backends)["a"]
    assert (found.file, found.ledger, dict(found.explained), found.unexplained) == (10, 10, {"held": -5}, 0)


def test_what_the_day_was_when_the_reference_was_collected_is_timing(backends: Backends, folder: Path) -> None:
    for amount in ("10", "12"):
        take(backends, arrive(folder, csv(f"a,S,r,{amount},1,1,1")))
    refer(folder, [[str(DAY), "a", "Usage", "10"]])
    assert dict(months(backends)["a"].explained) == {"timing": 2}


def test_a_reference_collected_before_a_day_settled_is_timing(backends: Backends, folder: Path) -> None:
    take(backends, arrive(folder, csv("a,S,r,10,1,1,1")))
    refer(folder, [[str(DAY), "a", "Usage", "9"]], collected="2026-10-03T23:59:59Z")
    assert dict(months(backends)["a"].explained) == {"timing": 1}
    refer(folder, [[str(DAY), "a", "Usage", "9"]], collected="2026-10-04T00:00:00Z")
    assert months(backends)["a"].unexplained == 1


def test_tax_left_out_is_explained_and_a_cent_is_not(backends: Backends, folder: Path) -> None:
    take(backends, arrive(folder, csv("a,S,r,10,1,1,1")))
    take(backends, arrive(folder, csv("a,S,r,10.01,1,1,1"), NEXT))
    refer(folder, [[str(DAY), "a", "Usage", "10"], [str(DAY), "a", "Tax", "1.9"], [str(NEXT), "a", "Usage", "10"]])
    found = months(backends)["a"]
    assert (dict(found.explained), found.unexplained) == ({"tax": Decimal("-1.9")}, Decimal("0.01"))
    assert found.unexplained_days == {NEXT: Decimal("0.01")}


def test_categories_of_the_file_are_compared(backends: Backends, folder: Path) -> None:
    header = HEADER.replace("service", "charge_category,service")
    data = header + "a,Usage,S,r,10,1,1,1\na,Tax,S,r,1,1,1,1\n"
    take(backends, arrive(folder, data.encode()))
    refer(folder, [[str(DAY), "a", "Usage", "10"], [str(DAY), "a", "Tax", "3"]])
    assert dict(months(backends)["a"].explained) == {"tax": -2}


def test_an_account_of_one_side_only_is_listed_and_not_compared(backends: Backends, folder: Path) -> None:
    take(backends, arrive(folder, csv("a,S,r,10,1,1,1")))
    refer(folder, [[str(DAY), "b", "Usage", "4"], [str(NEXT), "b", "Usage", "5"]])
    found = months(backends)
    assert (found["a"].compared, found["a"].only_here) == ((), {DAY: 10})
    # The file of the day covers every account, so it says that b had nothing; nobody spoke of the day after.
    assert (found["b"].compared, found["b"].unexplained, found["b"].only_there) == ((DAY,), -4, {NEXT: 5})


def test_an_unavailable_metric_is_not_compared(backends: Backends, folder: Path) -> None:
    take(backends, arrive(folder, csv("a,S,r,10,,1,1")))
    refer(folder, [[str(DAY), "a", "Usage", "10"]])
    found = months(backends, metric="blended_cost")["a"]
    assert (found.file, found.ledger, found.store, found.compared) == (None, None, None, ())
    assert found.only_there == {DAY: 10}


def test_a_quarantined_day_stays_what_it_was(backends: Backends, folder: Path) -> None:
    take(backends, arrive(folder, csv("a,S,r,10,1,1,1")))
    assert take(backends, arrive(folder, csv("a,S,r,x,1,1,1"))).status == "quarantined"
    found = months(backends)["a"]
    assert (found.file, found.ledger, found.store) == (10, 10, 10)


def test_a_bad_reference_is_a_notice_and_the_last_good_one_stays(backends: Backends, folder: Path) -> None:
    take(backends, arrive(folder, csv("a,S,r,10,1,1,1")))
    refer(folder, [[str(DAY), "a", "Usage", "10"]])
    assert take_references(backends) == [MONTH]
    assert take_references(backends) == []
    refer(folder, None)
    assert take_references(backends) == [MONTH]
    assert take_references(backends) == [], "known, until it changes"
    (notice,) = backends.metadata.notices(limit=9).items
    assert (notice.kind, notice.day) == ("reference", MONTH)
    assert "reference/2026-10.json" in notice.message
    assert "not JSON" in notice.message
    found = reconciliation_of(backends, MONTH)
    assert found.kept is not None
    assert found.kept.problem is not None
    assert found.accounts[0].difference == 0
    refer(folder, [[str(DAY), "a", "Usage", "11"]])
    take_references(backends)
    found = reconciliation_of(backends, MONTH)
    assert found.kept is not None
    assert (found.kept.problem, found.accounts[0].unexplained) == (None, -1)


def test_other_names_beside_references_are_ignored(backends: Backends, folder: Path) -> None:
    (folder.parent / "reference").mkdir()
    for name in ("2026-10.json.gz", "notes.json", "2026-10.csv"):
        (folder.parent / "reference" / name).write_text("x")
    assert take_references(backends) == []


def test_a_month_without_reference_still_compares_what_is_here(backends: Backends, folder: Path) -> None:
    take(backends, arrive(folder, csv("a,S,r,10,1,1,1")))
    found = reconciliation_of(backends, MONTH)
    assert (found.kept, found.recorded) == (None, False)
    assert (found.accounts[0].file, found.accounts[0].ledger, found.accounts[0].store) == (10, 10, 10)


def test_a_store_that_disagrees_shows(backends: Backends, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    take(backends, arrive(folder, csv("a,S,r,10,1,1,1")))
    record = backends.metadata.day_record(DAY)
    part = replace(record.accounts["a"], current=replace(record.accounts["a"].current, amortized_cost=Decimal(9)))
    assert backends.metadata.put_day_record(replace(record, revision=record.revision + 1, accounts={"a": part}))
    found = months(backends)["a"]
    assert (found.file, found.ledger, found.store) == (10, 9, 10)


def test_the_totals_of_a_file_survive_a_crash_after_the_flip(
    backends: Backends, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Killed(BaseException):
        pass

    def die(*_: object, **__: object) -> None:
        raise Killed

    key = arrive(folder, csv("a,S,r,10,1,1,1"))
    with monkeypatch.context() as broken:
        broken.setattr(type(backends.metadata), "put_ingestion", die)
        with pytest.raises(Killed):
            take(backends, key)
    assert months(backends)["a"].file is None, "not known, and not zero"
    take(backends, key)
    assert months(backends)["a"].file == 10
    assert len(histories(backends, DateRange(DAY, NEXT))[DAY].accounts["a"].revisions) == 1
