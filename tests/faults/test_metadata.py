"""M: the metadata store, embedded and MongoDB. What is not known to be recorded was not accepted; nothing fails open."""

from __future__ import annotations

import os
import random
import signal
import socket
import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import pytest

from app.adapters.mongodb import MongoMetadata
from app.adapters.sqlite import LOCK_SECONDS, STEPS, SqliteMetadata
from app.backends import Backends
from app.core.jobs import Job
from app.errors import CannotStart, Unavailable
from app.ingest import Outcome, Progress, ingest_object, watch
from tests.breaker import Breaker
from tests.faults.conftest import Running
from tests.faults.deployed import Deployed, free_port, until
from tests.faults.test_queue import done, fill, slowest, small_disk, submitted_while
from tests.faults.world import cost_file, total_of
from tests.workers.world import Clock, found, world_of
from workers.jobs import HANDLERS, run_job

START = datetime(2026, 1, 1, tzinfo=UTC)


@contextmanager
def nobody_answers() -> Iterator[int]:
    """The port of a server that takes connections and says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        yield int(silent.getsockname()[1])


@pytest.mark.soak
@pytest.mark.slow
@pytest.mark.parametrize("how", ["refused", "silent"])
def test_m1_down_at_start_it_serves_what_it_can_and_lets_nobody_in(tmp_path: Path, how: str) -> None:
    with nobody_answers() as silent, Deployed(tmp_path) as deployed:
        port = silent if how == "silent" else free_port()
        web = deployed.serve(MONGODB_URI=f"mongodb://127.0.0.1:{port}/spendscope")
        for path in ("/", "/api/v1/jobs", "/data", "/login"):
            status, headers, body = web.ask("GET", path)
            assert (status, headers["Retry-After"].isdigit()) == (503, True), (path, body)
            assert b"Traceback" not in body
        status, headers, body = web.ask("GET", "/readyz")
        assert status == 503
        assert web.answers("/healthz") == 200
        # Not open, although it listens on loopback: whether there are users is not known.
        assert web.submit("2026-06-01.csv", "x")[0] == 503


@pytest.mark.soak
@pytest.mark.slow
def test_m2_locked_amid_work_it_is_refused_in_time_and_everything_ends_when_it_is_free(running: Running) -> None:
    """M3 too: a submit is refused after the lock's wait, those behind it at once, and readers never wait."""
    names = running.deployed.put(4, seed=1)  # restated: each will be a new revision
    stop = threading.Event()
    with running.deployed.metadata_locked():
        reading = slowest(running.web, "/api/v1/costs?start=2026-06-01&end=2026-06-02", stop)
        seconds = []
        for number in range(4):
            began = time.monotonic()
            status, headers, body = running.web.ask(
                "POST",
                "/api/v1/jobs",
                {"kind": "ingest", "params": {"key": names[0]}},
                {"Idempotency-Key": f"m{number}"},
            )
            seconds.append(time.monotonic() - began)
            assert status == 503, body
            assert headers["Retry-After"].isdigit()
        assert max(seconds) < LOCK_SECONDS + 3
        held = [threading.Thread(target=running.web.submit, args=(names[0], f"held-{n}")) for n in range(6)]
        for thread in held:
            thread.start()
        time.sleep(1)
        stop.set()
        assert reading() < 4, "readers do not wait, also while six writers do"
        for thread in held:
            thread.join(60)
    # A worker that was amid a job when it was locked: the same, from the other side.
    ids, _ = submitted_while(running, "after-lock", len(names))
    until(lambda: running.deployed.statuses().get("running"), 30)
    with running.deployed.metadata_locked():
        time.sleep(LOCK_SECONDS + 1)
    done(running, ids)
    running.deployed.drained()
    running.deployed.check()


def test_m3_while_mongodb_is_silent_a_few_wait_and_the_others_are_told_at_once() -> None:
    with nobody_answers() as port:
        store = MongoMetadata(f"mongodb://127.0.0.1:{port}/spendscope", "spendscope", most_calls=2)
        seconds: list[float] = []

        def ask() -> None:
            began = time.monotonic()
            with pytest.raises(Unavailable):
                store.ledger_version()
            seconds.append(time.monotonic() - began)

        threads = [threading.Thread(target=ask) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(30)
        assert max(seconds) < 9
        assert sum(waited > 4.5 for waited in seconds) <= 2, seconds
        store.close()


@pytest.mark.soak
@pytest.mark.slow
def test_m7_a_full_disk_is_503_reads_go_on_and_so_does_work_when_there_is_room(tmp_path: Path) -> None:
    with (
        small_disk(tmp_path / "disk", "16m") as disk,
        Deployed(tmp_path, SPENDSCOPE_DATA_DIR=str(disk / "data")) as deployed,
    ):
        deployed.data = disk / "data"
        names = deployed.put(3)
        web = deployed.serve()
        assert web.submit(names[0], "before")[0] == 202
        filler = fill(disk)

        def is_refused() -> bool:
            status, headers, body = web.ask(
                "POST",
                "/api/v1/jobs",
                {"kind": "ingest", "params": {"key": names[1]}},
                {"Idempotency-Key": f"during-{time.monotonic_ns()}"},
            )
            assert status in (202, 503), body
            assert status == 202 or (b"cannot grow: the disk is full" in body and headers["Retry-After"])
            return status == 503

        # What the log still has room for may be taken.
        until(is_refused, 60, deployed.log)
        assert web.answers("/api/v1/jobs?limit=5") == 200
        filler.unlink()
        assert web.submit(names[2], "after")[0] == 202
        deployed.start("worker"), deployed.start("scheduler")
        until(lambda: deployed.statuses().get("done", 0) >= 3, 60, deployed.log)
        deployed.drained()
        deployed.check()


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
def test_m8_what_was_acknowledged_is_there_after_kill_9(tmp_path: Path) -> None:
    """Thirty writers, each killed somewhere amid its writes."""
    path = tmp_path / "metadata.sqlite"
    SqliteMetadata(path).prepare()
    chance, said = random.Random(8), 0
    for turn in range(30):
        mine, theirs = os.pipe()
        child = os.fork()
        if not child:
            try:
                store, number = SqliteMetadata(path), 0
                while True:
                    store.take_slot(f"turn {turn}", START + timedelta(seconds=number))
                    os.write(theirs, b".")
                    number += 1
            finally:
                os._exit(1)
        os.close(theirs)
        time.sleep(chance.uniform(0.01, 0.15))
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        acknowledged = 0
        while piece := os.read(mine, 1 << 16):
            acknowledged += len(piece)
        os.close(mine)
        store = SqliteMetadata(path)
        last = store.last_slot(f"turn {turn}")
        kept = int((last - START).total_seconds()) + 1 if last else 0
        assert kept in (acknowledged, acknowledged + 1), "the last one may have been written and not told"
        said += acknowledged
        with sqlite3.connect(path) as plain:
            assert plain.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        plain.close()
        store.close()
    assert said > 30


def test_m8_what_is_acknowledged_is_on_the_disk(tmp_path: Path) -> None:
    """What a power cut would show and kill -9 cannot: SQLite syncs each transaction (2 is FULL) before it says done."""
    store = SqliteMetadata(tmp_path / "metadata.sqlite")
    store.prepare()
    for pragma, expected in (("synchronous", 2), ("journal_mode", "wal")):
        assert store._connection().execute(f"PRAGMA {pragma}").fetchone()[0] == expected
    store.close()


def test_m9_a_store_of_a_newer_release_is_refused_and_left_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "metadata.sqlite"
    SqliteMetadata(path).prepare()
    with sqlite3.connect(path) as plain:
        plain.execute(f"PRAGMA user_version = {len(STEPS) + 1}")
    plain.close()
    before = path.read_bytes()
    with pytest.raises(CannotStart, match=f"schema version {len(STEPS) + 1}.*Start the newer release"):
        SqliteMetadata(path).prepare()
    assert path.read_bytes() == before


@pytest.mark.parametrize("hours", [-1, 1])
def test_m10_workers_whose_clocks_differ_by_an_hour_do_each_file_once_in_effect(tmp_path: Path, hours: int) -> None:
    """A lease looks over to the one that is ahead: it takes the job too. Its token is the newer one, and one flip counts."""
    right, wrong = Clock(), Clock()
    wrong.forward(3600 * hours)
    world = world_of(tmp_path, clock=right)
    other = replace(world, clock=wrong, memo={})
    content = cost_file(1)
    (tmp_path / "costs" / "2026-11-20.csv").write_bytes(content)
    [job] = watch(world).jobs
    old_token_did: list[bool] = []

    def ahead(backends: Backends, job: Job, progress: Progress) -> Outcome:
        until, token = right() + timedelta(seconds=12), job.token - 1
        store = world.metadata
        old_token_did.append(store.renew(job.id, token, lease_until=until, done_steps=1, all_steps=4, message="mine"))
        old_token_did.append(store.finish(job.id, token, "failed", now=right(), message="mine"))
        return HANDLERS["ingest"](backends, job, progress)

    def unaware(backends: Backends, job: Job, _: Progress) -> Outcome:
        """Does not hear that it has lost the job; the other one takes it, whole, just before this one's flip."""

        def told(done: int, _of: int | None, _message: str) -> None:
            if done == 3:
                took = run_job(other, job.id, {"ingest": ahead})
                assert (took is not None) == (hours > 0)

        return ingest_object(backends, job.params, told, job_id=job.id)

    run_job(world, job.id, {"ingest": unaware})
    assert old_token_did == ([False, False] if hours > 0 else [])
    ended, record = found(world, job), world.metadata.day_record(date(2026, 11, 20))
    assert (ended.status, ended.token) == ("done", 2 if hours > 0 else 1)
    # Each marked the day, and one of them flipped it.
    assert (record.revision, record.restating) == (3 if hours > 0 else 2, False)
    assert sum(part.current.amortized_cost for part in record.accounts.values()) == total_of(content)
    assert [one.status for one in world.metadata.ingestions(limit=9).items] == ["ingested"]
    world.metadata.close()


def test_the_breaker_breaks_what_goes_through() -> None:
    """The instrument itself."""
    with socket.create_server(("127.0.0.1", 0)) as server, Breaker(server.getsockname()) as breaker:

        def echo() -> None:
            while True:
                try:
                    one, _ = server.accept()
                except OSError:
                    return
                with one:
                    while piece := one.recv(99):
                        one.sendall(piece)

        threading.Thread(target=echo, daemon=True).start()
        for mode, expected in (("pass", b"hello"), ("silent", None), ("refuse", b"")):
            breaker.set(mode)  # type: ignore[arg-type]
            with socket.create_connection(("127.0.0.1", breaker.port), 5) as client:
                client.settimeout(0.5)
                try:
                    client.sendall(b"hello")
                    assert client.recv(99) == expected
                except TimeoutError:
                    assert expected is None
                except ConnectionError:
                    assert expected == b""
