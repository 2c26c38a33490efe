"""What a cost file may change, beyond the invariants: coverage, retention, names, two writers."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from app.backends import Backends
from app.core.ledger import begin
from app.core.periods import DateRange
from app.core.query import CostQuery
from app.costs import ask, snapshot
from app.errors import InvalidInput, NotFound, Quarantined, Reason, Unavailable
from app.health import status_of
from app.ingest import day_of, watch
from tests.arrivals import DAY, NOW, amount, arrive, csv, opened, settings_for, take


def cover(folder: Path, data: bytes, *, failed: list[str], covered: list[str]) -> None:
    sidecar = folder.parent / "coverage" / f"{DAY}.json"
    sidecar.parent.mkdir(exist_ok=True)
    sidecar.write_text(json.dumps({"sha256": hashlib.sha256(data).hexdigest(), "covered": covered, "failed": failed}))


def test_an_account_that_failed_keeps_what_it_had(backends: Backends, folder: Path) -> None:
    take(backends, arrive(folder, csv("a,S,r,1,1,1,1", "b,S,r,10,1,1,1")))
    restated = csv("a,S,r,2,1,1,1")
    cover(folder, restated, covered=["a"], failed=["b"])
    take(backends, arrive(folder, restated))
    assert amount(backends) == 12
    assert backends.metadata.day_record(DAY).failed_accounts == ("b",)


def test_a_sidecar_of_other_bytes_says_nothing(backends: Backends, folder: Path) -> None:
    take(backends, arrive(folder, csv("a,S,r,1,1,1,1", "b,S,r,10,1,1,1")))
    cover(folder, b"other bytes", covered=["a"], failed=["b"])
    take(backends, arrive(folder, csv("a,S,r,2,1,1,1")))
    assert amount(backends) == 2


def test_older_than_retention_is_quarantined_and_says_so(tmp_path: Path, folder: Path) -> None:
    settings = settings_for(tmp_path, folder).model_copy(update={"retention_days": 10})
    short = opened(settings)
    outcome = take(short, arrive(folder, csv("a,S,r,1,1,1,1")))
    assert outcome.status == "quarantined"
    reason = short.metadata.ingestions(limit=1).items[0].reason
    assert reason is not None
    assert reason.code == "retention"
    assert "SPENDSCOPE_RETENTION_DAYS" in reason.message


def test_only_a_header_is_a_complete_day_with_a_notice_when_there_was_money(backends: Backends, folder: Path) -> None:
    take(backends, arrive(folder, csv("a,S,r,1,1,1,1")))
    assert take(backends, arrive(folder, csv())).status == "done"
    assert amount(backends) == 0
    newest = backends.metadata.ingestions(limit=1).items[0]
    assert newest.notice is not None
    assert "now zero" in newest.notice
    fresh = DAY + timedelta(days=1)
    take(backends, arrive(folder, csv(), fresh))
    assert amount(backends, day=fresh) == 0
    assert backends.metadata.ingestions(limit=1).items[0].notice is None


def test_a_file_whose_days_belong_to_another_is_held(backends: Backends, folder: Path) -> None:
    import gzip

    take(backends, arrive(folder, csv("a,S,r,1,1,1,1")))
    take(backends, arrive(folder, gzip.compress(csv("a,S,r,9,9,9,9")), suffix=".csv.gz"))
    newest = backends.metadata.ingestions(limit=1).items[0]
    assert (newest.status, newest.held) == ("waiting", ("a",))
    assert amount(backends) == 1
    assert watch(backends).jobs == (), "a held file is known"


def test_a_version_that_is_taken_twice_keeps_its_record(backends: Backends, folder: Path) -> None:
    """A listing may submit what a worker finishes in the same moment."""
    key = arrive(folder, csv("a,S,r,1,1,1,1"))
    take(backends, key)
    before = backends.metadata.ingestions(limit=9).items
    assert take(backends, key).status == "done-noop"
    assert backends.metadata.ingestions(limit=9).items == before
    assert before[0].totals is not None


def test_a_run_that_died_between_flip_and_record_is_recorded_by_the_next(backends: Backends, folder: Path) -> None:
    key = arrive(folder, csv("a,S,r,1,1,1,1"))

    class Killed(BaseException):
        pass

    class Dying:
        def __getattr__(self, name: str) -> object:
            return getattr(backends.metadata, name)

        def put_ingestion(self, _: object) -> None:
            raise Killed

    with pytest.raises(Killed):
        take(replace(backends, metadata=Dying()), key)  # type: ignore[arg-type]
    assert amount(backends) == 1
    assert take(backends, key).status == "done"
    (record,) = backends.metadata.ingestions(limit=9).items
    assert (record.status, record.rows) == ("ingested", 1)
    assert amount(backends) == 1


def test_while_another_job_writes_the_day_this_one_waits(backends: Backends, folder: Path) -> None:
    take(backends, arrive(folder, csv("a,S,r,1,1,1,1")))
    record = backends.metadata.day_record(DAY)
    marked = begin(record, "another", NOW, NOW + timedelta(minutes=1))
    assert marked is not None
    assert backends.metadata.put_day_record(marked)
    key = arrive(folder, csv("a,S,r,2,1,1,1"))
    with pytest.raises(Unavailable, match="another job"):
        take(backends, key)
    assert amount(backends) == 1
    later = replace(backends, clock=lambda: NOW + timedelta(minutes=2))
    assert take(later, key).status == "done", "a mark that ran out holds nobody"
    assert amount(backends) == 2


def test_a_file_replaced_while_it_is_read_is_superseded(backends: Backends, folder: Path) -> None:
    arrive(folder, csv("a,S,r,1,1,1,1"))
    (job,) = watch(backends).jobs
    arrive(folder, csv("a,S,r,2,2,2,2"))
    from app.ingest import ingest_object

    assert ingest_object(backends, job.params, lambda *_: None).status == "superseded"
    assert amount(backends) is None
    (newer,) = watch(backends).jobs
    assert newer.id != job.id


def test_names_that_are_not_days_are_left_alone(backends: Backends, folder: Path) -> None:
    for name in ("notes.txt", "2026-10-01.csv.bak", "2026-13-01.csv", "26-10-01.csv", "2026-10-01.CSV"):
        (folder / name).write_bytes(csv("a,S,r,1,1,1,1"))
        assert day_of(name) is None
    found = watch(backends)
    assert (found.jobs, found.ignored) == ((), 5)
    with pytest.raises(InvalidInput, match=r"YYYY-MM-DD\.csv"):
        take(backends, "notes.txt")
    with pytest.raises(NotFound, match="2026-11-11"):
        watch(backends, ["2026-11-11.csv"])


def test_a_quarantined_version_is_read_once(backends: Backends, folder: Path) -> None:
    key = arrive(folder, b"not,a,cost,file\n")
    (job,) = watch(backends).jobs
    assert take(backends, key).status == "quarantined"
    backends.metadata.cancel(job.id, now=NOW)
    assert watch(backends).jobs == ()
    assert watch(backends).known == 1


def test_a_refused_file_that_is_taken_away_holds_its_day_no_longer(backends: Backends, folder: Path) -> None:
    other = DAY + timedelta(days=1)
    take(backends, arrive(folder, csv("a,S,r,1,1,1,1")))
    take(backends, key := arrive(folder, b"not,a,cost,file\n", suffix=".csv.gz"))
    take(backends, arrive(folder, b"not,a,cost,file\n", other))
    assert not watch(backends).jobs
    assert backends.metadata.quarantined_days(DAY, other + timedelta(days=1), backends.source.root) == {DAY, other}
    before = backends.metadata.ledger_version()
    (folder / key).unlink()
    assert not watch(backends).jobs
    assert backends.metadata.quarantined_days(DAY, other + timedelta(days=1), backends.source.root) == {other}
    assert backends.metadata.ledger_version() > before, "kept answers are asked for again"
    assert amount(backends) == 1
    [record] = backends.metadata.versions_of(backends.source.root, key)
    assert record.reason is not None
    arrive(folder, b"not,a,cost,file\n", suffix=".csv.gz")
    assert len(watch(backends).jobs) == 1, "there again, it is looked at again"


def test_a_usage_quantity_has_a_unit_only_where_it_is_one(backends: Backends, folder: Path) -> None:
    header = "service,region,amortized_cost,blended_cost,unblended_cost,usage_quantity,usage_unit\n"
    take(backends, arrive(folder, (header + "EC2,r,1,1,1,5,Hrs\nEC2,q,1,1,1,6,Hrs\nS3,r,1,1,1,7,GB-Mo\n").encode()))
    asked = CostQuery(DateRange(DAY, DAY + timedelta(days=1)), metric="usage_quantity")
    assert ask(backends, asked).unit is None
    assert ask(backends, replace(asked, filters=(("service", ("EC2",)),))).unit == "Hrs"
    assert snapshot(backends).rollup.units(asked) == {"EC2": "Hrs", "S3": "GB-Mo"}
    assert ask(backends, asked.measured("amortized_cost")).unit == "USD"


def test_a_day_the_store_cannot_keep_is_quarantined_and_free_again(backends: Backends, folder: Path) -> None:
    class Refusing:
        def __getattr__(self, name: str) -> object:
            return getattr(backends.costs, name)

        def replace(self, *_: object) -> object:
            raise Quarantined(Reason("unstorable_text", "A service name ends in a backslash."))

    take(backends, arrive(folder, csv("a,S,r,1,1,1,1")))
    key = arrive(folder, csv("a,S\\,r,2,1,1,1"))
    assert take(replace(backends, costs=Refusing()), key).status == "quarantined"  # type: ignore[arg-type]
    assert not backends.metadata.day_record(DAY).restating
    assert amount(backends) == 1


def test_what_another_source_refused_is_counted_no_more(backends: Backends, tmp_path: Path, folder: Path) -> None:
    take(backends, arrive(folder, b"not,a,cost,file\n"))
    assert status_of(backends, backends.settings)["days_quarantined"] == 1
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    moved = opened(settings_for(tmp_path, elsewhere))
    take(moved, arrive(elsewhere, csv("a,S,r,1,1,1,1"), DAY - timedelta(days=1)))
    found = status_of(moved, moved.settings)
    assert (found["days_quarantined"], found["last_day"]) == (0, str(DAY - timedelta(days=1)))
    back = opened(backends.settings)
    assert status_of(back, back.settings)["days_quarantined"] == 1, "it is again once the source is read again"
