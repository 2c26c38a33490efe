"""What becomes of the figures when the object store fails: cells O1 to O11 of docs/faults.md."""

from __future__ import annotations

import gzip
import logging
import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from app.adapters.folder import FolderSource
from app.core.ledger import Ingestion
from app.core.periods import DateRange
from app.costs import ledgers_of
from app.errors import InvalidInput, NotFound
from app.health import check_parts
from app.ingest import day_of, ingest_object, watch
from app.ports import Metadata
from tests.buckets import (
    KEY_ID,
    SECRET,
    Bucket,
    Proxy,
    answer_with,
    only_our_aws,
    refusal,
    requests_of,
    s3_server,
)
from tests.faults.world import DAY, NAME, Faulty, cost_file, faulty, total_of
from workers.jobs import CREDENTIALS_WAIT_SECONDS
from workers.schedule import Watching

NEXT = DAY + timedelta(days=1)
DAYS = DateRange(DAY, NEXT)


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    with s3_server() as url:
        yield url


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    only_our_aws(monkeypatch)


@pytest.fixture
def deployed(endpoint: str, tmp_path: Path) -> Iterator[Faulty]:
    """One day is there already, so that an old figure can be lost."""
    opened = faulty(tmp_path, Bucket(endpoint, "costs/"))
    opened.put(cost_file(0))
    opened.work()
    opened.check()
    yield opened
    opened.world.metadata.close()


@pytest.fixture
def proxy(endpoint: str) -> Iterator[Proxy]:
    proxy = Proxy(endpoint)
    yield proxy
    with suppress(OSError):
        proxy.close()


def test_o1_a_source_that_is_down_at_start_keeps_jobs_and_figures(
    deployed: Faulty, proxy: Proxy, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    deployed.bucket.put(NAME, newer := cost_file(1))
    job = deployed.submitted()
    proxy.close()
    down = deployed.through(proxy.url, attempts=1)
    listed = down.clock()
    watching = Watching(down.world)
    for _ in range(3):
        down.clock.forward(300)
        watching.once()
    assert sum("does not answer" in line for line in caplog.messages) == 1
    ended = down.run(job)
    assert ended.status == "waiting"
    assert "does not answer" in (ended.message or "")
    part = check_parts(down.world)["source"]
    assert not part.ok
    assert f"last listed at {listed:%Y-%m-%d %H:%M:%S} UTC" in part.message
    down.check()
    deployed.clock.forward(61)
    assert deployed.run(job).status == "done"
    deployed.truth[DAY] = total_of(newer)
    deployed.check()


@pytest.mark.parametrize("percent", [10, 50, 90])
def test_o2_a_download_that_dies_flips_nothing_and_is_begun_again(deployed: Faulty, proxy: Proxy, percent: int) -> None:
    data = cost_file(1, rows=5000)
    deployed.put(data, NEXT)
    job = deployed.submitted()
    broken = deployed.through(proxy.url)
    proxy.cut_after = len(data) * percent // 100
    ended = broken.run(job)
    assert ended.status == "waiting"
    assert "not transferred whole" in (ended.message or "")
    assert deployed.world.metadata.day_record(NEXT).revision == 0
    proxy.cut_after = None
    broken.clock.forward(61)
    assert broken.run(job).status == "done"
    deployed.check()


@pytest.mark.parametrize("fault", ["silent", "stalled"])
def test_o3_a_source_that_says_nothing_holds_no_worker(deployed: Faulty, proxy: Proxy, fault: str) -> None:
    data = cost_file(1, rows=5000)
    deployed.put(data, NEXT)
    job = deployed.submitted()
    slow = deployed.through(proxy.url, attempts=1, read_seconds=0.3)
    proxy.silent, proxy.stall_after = fault == "silent", len(data) // 2 if fault == "stalled" else None
    began = time.monotonic()
    ended = slow.run(job)
    assert time.monotonic() - began < 10
    assert ended.status == "waiting"
    assert "read timeout" in (ended.message or "")
    proxy.silent, proxy.stall_after = False, None
    slow.clock.forward(61)
    assert slow.run(job).status == "done"
    deployed.check()


def test_o4_refused_credentials_are_told_at_once_and_tried_four_times_an_hour(
    deployed: Faulty, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, "app")
    caplog.set_level(logging.DEBUG, "workers")
    deployed.bucket.put(NAME, cost_file(1))
    job = deployed.submitted()
    answer_with(deployed.bucket.source, lambda: refusal(403, "InvalidAccessKeyId"))
    sent = requests_of(deployed.bucket.source)
    ended = deployed.run(job)
    assert (ended.status, len(sent)) == ("waiting", 1)
    assert f"…{KEY_ID[-4:]}" in (ended.message or "")
    assert ended.not_before == deployed.clock() + timedelta(seconds=CREDENTIALS_WAIT_SECONDS)
    sent.clear()
    watching = Watching(deployed.world)
    for _ in range(3600 // 30):
        watching.once()
        deployed.clock.forward(30)
    assert 3 <= len(sent) <= 4
    ours = "\n".join(line.getMessage() for line in caplog.records if line.name.startswith(("app", "workers")))
    assert SECRET not in ours
    assert KEY_ID not in ours
    deployed.check()


@pytest.mark.parametrize(
    ("suffix", "damage", "code"),
    [
        (".csv", lambda data: data[:-20], "truncated"),
        (".csv.gz", lambda data: gzip.compress(data)[:-20], "gzip_truncated"),
        (".csv.gz", lambda data: _flipped(gzip.compress(data)), "gzip_corrupt"),
        (".csv.gz", lambda data: b"<html>503 Service Unavailable</html>", "not_gzip"),
        (".csv", lambda data: b"", "empty"),
    ],
    ids=["cut csv", "cut gzip", "flipped byte", "another body", "nothing"],
)
def test_o5_a_damaged_body_is_quarantined_and_the_old_day_stays(
    deployed: Faulty, suffix: str, damage: object, code: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = tmp_path / "spool"
    place.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(place))
    deployed.put(damage(cost_file(1, rows=200)), suffix=suffix, good=False)  # type: ignore[operator]
    ended = deployed.run(deployed.submitted())
    assert (ended.status, ended.result["reason"]) == ("quarantined", code)
    assert list(place.iterdir()) == []
    deployed.check()
    assert watch(deployed.world).jobs == (), "known, and not read again"


def test_o5_the_old_object_put_back_in_place_of_a_damaged_one_ends_the_quarantine(deployed: Faulty) -> None:
    """It has the ETag that it had before: only what was looked at last tells that it is there again."""
    world = deployed.world
    deployed.put(cost_file(0)[:-20], good=False)
    assert deployed.run(deployed.submitted()).status == "quarantined"
    assert ledgers_of(world).freshness(DAYS).quarantined == (DAY,), "the old figures stay, and are not up to date"
    deployed.put(cost_file(0))
    deployed.clock.forward(61)
    assert deployed.run(deployed.submitted()).status == "done-noop"
    world.memo.clear()  # the ledger is read again at most a fifth of the time
    assert ledgers_of(world).freshness(DAYS).quarantined == ()
    deployed.check()
    assert watch(world).jobs == (), "known, and not read again"


def test_bytes_that_come_back_after_a_run_died_are_taken_again(deployed: Faulty) -> None:
    """Dead after the flip and before the older version was marked as replaced."""
    deployed.put(cost_file(1), good=False)
    job = deployed.submitted()
    for deaths in range(2):
        dying = Dying(deployed.world.metadata, writes=deaths)
        with pytest.raises(Killed):
            ingest_object(replace(deployed.world, metadata=dying), job.params, lambda *_: None, job_id=job.id)  # type: ignore[arg-type]
    assert deployed.run(job).status == "done"
    deployed.put(cost_file(0))
    assert deployed.run(deployed.submitted()).status == "done"
    deployed.check()


class Killed(BaseException):
    pass


class Dying:
    """A metadata store whose process dies after so many ingestions were written."""

    def __init__(self, metadata: Metadata, writes: int) -> None:
        self._metadata, self._writes = metadata, writes

    def __getattr__(self, name: str) -> Any:
        return getattr(self._metadata, name)

    def put_ingestion(self, ingestion: Ingestion) -> None:
        if not self._writes:
            raise Killed
        self._writes -= 1
        self._metadata.put_ingestion(ingestion)


def _flipped(data: bytes) -> bytes:
    middle = len(data) - 6
    return data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :]


def test_o6_announced_again_and_out_of_order_it_is_one_job_and_the_newest_bytes(deployed: Faulty) -> None:
    from tests.events import created
    from tests.fakes import MemoryAnnouncements
    from workers.schedule import Hearing

    told = MemoryAnnouncements(deployed.bucket.name, "costs/")
    hearing = Hearing(deployed.world, told)
    older, newer = cost_file(1), cost_file(2)
    deployed.put(older)
    deployed.put(newer)
    for sequencer in ("02", "01", "02", "01", "01", "02"):
        told.send(created(deployed.bucket.name, f"costs/{NAME}", sequencer=sequencer))
        hearing.once()
    [job] = deployed.world.metadata.unfinished()
    assert deployed.run(job).status == "done"
    deployed.check()
    told.send(created(deployed.bucket.name, f"costs/{NAME}", sequencer="01"))
    hearing.once()
    assert deployed.world.metadata.unfinished() == []


def test_o7_an_object_replaced_while_it_is_read_is_one_version_and_then_the_new_one(
    deployed: Faulty, proxy: Proxy
) -> None:
    older, newer = cost_file(1, rows=5000), cost_file(2, rows=5000)
    deployed.put(older, NEXT)
    job = deployed.submitted()
    swaps = iter([newer])

    def swap(passed: bytes) -> bytes:
        if b"amortized_cost" in passed and (data := next(swaps, None)):
            deployed.bucket.put(f"{NEXT}.csv", data)
        return passed

    proxy.change = swap
    ended = deployed.through(proxy.url).run(job)
    assert next(swaps, None) is None, "it was replaced in the middle"
    assert ended.status in ("done", "superseded")
    deployed.truth[NEXT] = total_of(older)
    if ended.status == "done":
        deployed.check()
    deployed.truth[NEXT] = total_of(newer)
    deployed.work()
    deployed.check()


def test_o7_an_object_replaced_before_it_is_read_is_superseded(deployed: Faulty) -> None:
    deployed.put(cost_file(1), NEXT)
    job = deployed.submitted()
    deployed.put(cost_file(2), NEXT)
    assert deployed.run(job).status == "superseded"
    deployed.work()
    deployed.check()


def test_o8_thirty_refusals_for_being_busy_are_waited_out(deployed: Faulty, endpoint: str) -> None:
    deployed.put(cost_file(1), NEXT)
    job = deployed.submitted()
    busy = deployed.through(endpoint, attempts=1)
    burst = iter(range(30))
    answer_with(busy.world.source, lambda: refusal(503, "SlowDown") if next(burst, None) is not None else None)  # type: ignore[arg-type]
    tries = 0
    while (ended := busy.run(job)).status == "waiting" and tries < 40:
        assert "SlowDown" in (ended.message or "")
        busy.clock.forward(61)
        tries += 1
    assert (ended.status, tries) == ("done", 30), "an outage uses up none of the job's tries"
    deployed.check()


def test_o9_a_full_disk_makes_the_job_wait_and_leaves_nothing(
    deployed: Faulty, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    import errno

    import app.spool

    place = tmp_path / "spool"
    place.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(place))
    deployed.put(cost_file(1, rows=5000), NEXT)
    job = deployed.submitted()
    make = tempfile.TemporaryFile

    class Full:
        """A real temporary file on a disk that takes 100,000 bytes."""

        def __init__(self, **options: object) -> None:
            self.file = make(**options)  # type: ignore[call-overload]
            self.fileno = self.file.fileno

        def __enter__(self) -> Full:
            return self

        def __exit__(self, *_: object) -> None:
            self.file.close()

        def write(self, data: bytes) -> int:
            if self.file.tell() + len(data) > 100_000:
                raise OSError(errno.ENOSPC, "No space left on device")
            return int(self.file.write(data))

    with monkeypatch.context() as full:
        full.setattr(app.spool.tempfile, "TemporaryFile", Full)
        ended = deployed.run(job)
    assert ended.status == "waiting"
    assert f"{place} takes no more" in (ended.message or "")
    assert "No space left on device" in (ended.message or "")
    assert "bytes free" in (ended.message or "")
    assert list(place.iterdir()) == []
    deployed.clock.forward(61)
    assert deployed.run(job).status == "done"
    deployed.check()


@pytest.mark.parametrize(("ours", "off"), [("20261124T041500Z", "-1200 s"), ("20261124T045500Z", "+1200 s")])
def test_o10_a_wrong_clock_is_one_message_about_the_clock(deployed: Faulty, ours: str, off: str) -> None:
    deployed.bucket.put(NAME, cost_file(1))
    job = deployed.submitted()
    told = f"<RequestTime>{ours}</RequestTime><ServerTime>2026-11-24T04:35:00Z</ServerTime>"
    answer_with(deployed.bucket.source, lambda: refusal(403, "RequestTimeTooSkewed", told))
    ended = deployed.run(job)
    assert ended.status == "waiting"
    assert f"clock is off by {off}" in (ended.message or "")
    assert "key" not in (ended.message or "").replace("credentials are not at fault", "")
    assert ended.not_before is not None
    assert ended.not_before < deployed.clock() + timedelta(minutes=2), "a clock that is set right is noticed soon"
    deployed.check()


HOSTILE = [
    *("../2026-11-20.csv", "../../etc/passwd", "..", ".", "/etc/passwd", "//2026-11-20.csv", "./2026-11-20.csv"),
    *("C:\\2026-11-20.csv", "\\\\host\\share\\2026-11-20.csv", "2026-11-20.csv\\..\\x", "~/.ssh/id_rsa", "~root"),
    *("2026-11-20.csv\0.gz", "\0", "2026-11-20\n.csv", "\r\n", "\x1b[2J.csv", "\u202e2026-11-20.csv", "\ufeff.csv"),
    *("2026-11-20.csv/../../x", "below/2026-11-20.csv", "%2e%2e%2f2026-11-20.csv", "..%2f..%2fetc", "2026-W47-5.csv"),
    *("a" * 1024, "é" * 512, "2026-11-20.csv" + "." * 1000, "2026-11-20.CSV", " 2026-11-20.csv", "2026-11-20.csv "),
    *("$(touch x).csv", "`id`.csv", "; rm -rf /", "| cat", "<script>.csv", "=cmd|' /C calc'!A0.csv", "con", "nul.csv"),
    *("２０２６-11-20.csv", "2026-11-20.csv.gz.gz", "2026−11−20.csv"),
]


def test_o11_hostile_names_are_neither_read_nor_written_anywhere(deployed: Faulty, tmp_path: Path) -> None:
    assert len(HOSTILE) >= 40
    for key in HOSTILE:
        deployed.bucket.keep("costs/" + key, cost_file(9))
    before = files_of(tmp_path)
    folder = FolderSource((tmp_path / "costs").as_uri() + "/")
    for source in (deployed.world.source, folder):
        world = replace(deployed.world, source=source)
        for key in HOSTILE:
            assert day_of(key) is None, key
            with pytest.raises((InvalidInput, NotFound)):
                ingest_object(
                    world, {"key": key, "version": "x", "size": 1, "modified": "2026-11-20T00:00:00+00:00"}, _
                )
            with pytest.raises((InvalidInput, NotFound)):
                ingest_object(world, {"key": key}, _)
    assert watch(deployed.world).jobs == ()
    assert files_of(tmp_path) == before
    deployed.check()


def _(*_: object) -> None: ...


def files_of(folder: Path) -> set[str]:
    return {str(path) for path in folder.rglob("*") if not path.name.endswith(("-wal", "-shm"))}
