"""Handing out again what was lost, and doing once what is due, however many schedulers run."""

from __future__ import annotations

import logging
import os
import shutil
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import pytest

from app.adapters.sqlite import SqliteMetadata
from app.backends import Backends
from app.core.jobs import Job
from app.errors import BadCredentials
from app.ingest import ingest_object
from tests.fakes import Down, MemoryQueue
from tests.workers.world import Clock, found, submitted, world_of
from workers.schedule import Reaping, Watching, reap, slot_of

ROOT = Path(__file__).parent.parent.parent
HEADER = "service,region,amortized_cost,blended_cost,unblended_cost,usage_quantity\n"


def claimed(world: Backends, job: Job, seconds: float = 12) -> Job:
    now = world.clock()
    taken = world.metadata.claim(job.id, worker="w", now=now, lease_until=now + timedelta(seconds=seconds))
    assert taken is not None
    return taken


def arrive(folder: Path, *days: str) -> None:
    (folder / "costs").mkdir(parents=True, exist_ok=True)
    for day in days:
        (folder / f"costs/{day}.csv").write_text(HEADER + "Amazon S3,us-east-1,1.5,1.5,1.5,2\n")


# --- reaping


def test_a_job_whose_worker_fell_silent_starts_again(world: Backends, clock: Clock) -> None:
    job = claimed(world, submitted(world))
    clock.forward(11.9)
    assert reap(world) == []
    assert found(world, job).status == "running"
    clock.forward(0.1)
    [again] = reap(world)
    assert (again.id, again.status, again.token) == (job.id, "queued", 1)
    assert found(world, job).status == "queued"
    assert reap(world) == [], "once"


def test_a_waiting_job_is_queued_when_it_is_due(world: Backends, clock: Clock) -> None:
    job = claimed(world, submitted(world))
    world.metadata.finish(
        job.id, job.token, "waiting", now=clock(), message="Down.", not_before=clock() + timedelta(seconds=30)
    )
    clock.forward(29.9)
    assert reap(world) == []
    clock.forward(0.1)
    assert [again.id for again in reap(world)] == [job.id]


def test_a_queue_that_lost_everything_gets_everything_back_newest_days_first(tmp_path: Path, clock: Clock) -> None:
    """Q9: FLUSHALL, or a restart with nothing."""
    world = world_of(tmp_path, clock=clock)
    from app.jobs import submit

    jobs = [submit(world, "ingest", {}, key=f"k{number}", priority=number) for number in range(30)]
    emptied = replace(world, queue=MemoryQueue())
    assert [job.id for job in reap(emptied)] == [job.id for job in reversed(jobs)]
    assert emptied.queue.missing(jobs) == []
    assert reap(emptied) == []


def test_so_many_at_once_and_no_more(world: Backends, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("workers.schedule.MOST_PUSHED", 10)
    for number in range(25):
        submitted(world, key=f"k{number}")
    emptied = replace(world, queue=MemoryQueue())
    assert [len(reap(emptied)) for _ in range(4)] == [10, 10, 5, 0]


def test_what_is_final_stays_final(world: Backends, clock: Clock) -> None:
    job = claimed(world, submitted(world))
    world.metadata.finish(job.id, job.token, "done", now=clock())
    clock.forward(10_000)
    assert reap(world) == []


def test_two_reapers_hand_a_job_out_once(world: Backends, clock: Clock) -> None:
    claimed(world, submitted(world))
    clock.forward(13)
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda _: reap(world), range(16)))
    assert sorted(token for _, token in world.queue.pushed) == [0, 1]  # type: ignore[attr-defined]


def test_an_outage_is_told_once_and_its_end_too(world: Backends, caplog: pytest.LogCaptureFixture) -> None:
    submitted(world)
    caplog.set_level(logging.INFO)
    reaping = Reaping(replace(world, queue=Down("queue")))
    for _ in range(5):
        reaping.once()
    assert caplog.text.count("does not answer") == 1
    reaping._backends = world
    for _ in range(3):
        reaping.once()
    assert caplog.text.count("works again") == 1


# --- slots


@pytest.mark.parametrize(
    ("now", "seconds", "slot"),
    [
        ("2026-11-24T12:34:56.9", 300, "2026-11-24T12:30:00"),
        ("2026-11-24T12:35:00", 300, "2026-11-24T12:35:00"),
        ("2026-11-24T23:59:59.999", 86400, "2026-11-24T00:00:00"),
    ],
)
def test_slots_are_counted_from_the_epoch(now: str, seconds: int, slot: str) -> None:
    def at(text: str) -> datetime:
        return datetime.fromisoformat(text).replace(tzinfo=UTC)

    assert slot_of(at(now), seconds) == at(slot)


def open_jobs(world: Backends) -> list[str]:
    return [str(job.params["key"]) for job in world.metadata.unfinished()]


def test_the_source_is_looked_at_at_start_and_then_once_a_slot(world: Backends, clock: Clock, tmp_path: Path) -> None:
    arrive(tmp_path, "2026-11-20")
    watching = Watching(world)
    watching.once()
    assert open_jobs(world) == ["2026-11-20.csv"]
    arrive(tmp_path, "2026-11-21", "2026-11-22")
    for _ in range(3):
        clock.forward(90)
        watching.once()
    assert open_jobs(world) == ["2026-11-20.csv"], "the slot is not over"
    clock.forward(30)
    watching.once()
    assert open_jobs(world) == ["2026-11-22.csv", "2026-11-21.csv", "2026-11-20.csv"], "newest first"


def test_a_restart_looks_at_once_in_a_slot_that_was_taken(world: Backends, clock: Clock, tmp_path: Path) -> None:
    arrive(tmp_path, "2026-11-20")
    Watching(world).once()
    arrive(tmp_path, "2026-11-21")
    clock.forward(20)
    Watching(world).once()
    assert len(open_jobs(world)) == 2


def test_a_source_that_is_away_is_told_once_and_looked_at_in_the_next_slot(
    world: Backends, clock: Clock, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    arrive(tmp_path, "2026-11-20")
    (tmp_path / "costs").rename(tmp_path / "away")
    watching = Watching(world)
    for _ in range(3):
        watching.once()
        clock.forward(300)
    assert sum("source:" in record.getMessage() for record in caplog.records) == 1
    assert open_jobs(world) == []
    (tmp_path / "away").rename(tmp_path / "costs")
    watching.once()
    assert open_jobs(world) == ["2026-11-20.csv"]
    assert "works again" in caplog.text


def test_a_store_that_is_away_costs_no_slot(world: Backends, clock: Clock, tmp_path: Path) -> None:
    arrive(tmp_path, "2026-11-20")
    watching = Watching(replace(world, metadata=Down("metadata")))
    for _ in range(3):
        watching.once()
    watching._backends = world
    watching.once()
    assert open_jobs(world) == ["2026-11-20.csv"]


def test_the_clock_set_back_fires_no_slot_again(world: Backends, clock: Clock) -> None:
    """Q10."""
    watching = Watching(world)
    fired: list[datetime] = []
    watching._look = lambda: fired.append(clock())  # type: ignore[method-assign]
    for jump in (0, 300, 300, -3600, 300, 3300, 7200):
        clock.forward(jump)
        watching.once()
    slots = [slot_of(moment, 300) for moment in fired]
    assert len(slots) == len(set(slots))


def test_old_jobs_are_forgotten_once_a_day(world: Backends, clock: Clock) -> None:
    def finished() -> Job:
        job = claimed(world, submitted(world))
        world.metadata.finish(job.id, job.token, "done", now=clock())
        return job

    old = finished()
    clock.forward(29 * 86400)
    recent = finished()
    Watching(world).once()
    assert found(world, old)
    clock.forward(2 * 86400)
    Watching(world).once()
    assert world.metadata.job(old.id) is None
    assert found(world, recent)


SLOTS = 200


def test_however_many_schedulers_each_slot_fires_once(tmp_path: Path) -> None:
    """Q11: five processes race over 200 slots; every slot is somebody's, none is two's."""
    world = world_of(tmp_path)
    path = world.settings.data_dir / "store/metadata.sqlite"
    world.metadata.close()
    code = f"""
import sys, time
from datetime import datetime, timedelta, UTC
from pathlib import Path
from app.adapters.sqlite import SqliteMetadata
store = SqliteMetadata(Path({str(path)!r}))
store.check()
print("ready", flush=True)
sys.stdin.readline()
start = datetime(2026, 11, 24, tzinfo=UTC)
for number in range({SLOTS}):
    if store.take_slot("watch", start + timedelta(seconds=300 * number)):
        print(number)
"""
    racers = [
        subprocess.Popen(
            [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT
        )
        for _ in range(5)
    ]
    for racer in racers:
        assert racer.stdout is not None
        assert racer.stdout.readline() == "ready\n"
    taken = []
    for racer in racers:
        assert racer.stdin is not None
        racer.stdin.write("go\n")
        racer.stdin.flush()
    for racer in racers:
        shown, _ = racer.communicate(timeout=60)
        taken.append([int(line) for line in shown.split()])
    assert sorted(number for mine in taken for number in mine) == list(range(SLOTS))


# --- the process


def test_the_process_watches_and_stops_within_a_second(tmp_path: Path) -> None:
    world = world_of(tmp_path)
    arrive(tmp_path, "2026-11-20", "2026-11-21")
    # There is no queue: nothing is lost by that, and the scheduler goes on.
    process = subprocess.Popen(
        [sys.executable, "-m", "app.cli", "scheduler"],
        cwd=ROOT,
        env={
            **{name: value for name, value in os.environ.items() if not name.startswith(("SPENDSCOPE_", "REDIS_"))},
            "SPENDSCOPE_SOURCE": world.settings.source,
            "SPENDSCOPE_DATA_DIR": str(world.settings.data_dir),
            "SPENDSCOPE_WATCH_SECONDS": "300",
        },
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        end = time.monotonic() + 60
        while len(open_jobs(world)) < 2 and time.monotonic() < end:
            time.sleep(0.1)
        assert open_jobs(world) == ["2026-11-21.csv", "2026-11-20.csv"]
        began = time.monotonic()
        process.send_signal(signal.SIGTERM)
        _, said = process.communicate(timeout=30)
        assert process.returncode == 0
        assert time.monotonic() - began < 10, "a second, on an idle machine"
        assert said.count("does not answer. Start it with `spendscope up`") <= 4
    finally:
        process.kill()
        process.communicate()
    world.metadata.close()
    shutil.rmtree(tmp_path)


def test_a_new_store_is_prepared_by_the_scheduler(tmp_path: Path) -> None:
    from workers.schedule import _prepared

    world = world_of(tmp_path)
    fresh = replace(world, metadata=SqliteMetadata(tmp_path / "new/metadata.sqlite"))
    import threading

    assert _prepared(fresh, threading.Event())
    fresh.metadata.check()


# --- references, histories, retention


def refer(folder: Path, text: str) -> None:
    (folder / "reference").mkdir(exist_ok=True)
    (folder / "reference/2026-10.json").write_text(text)


def test_a_look_at_the_source_reads_references_too(tmp_path: Path, world: Backends) -> None:
    refer(tmp_path, "broken")
    Watching(world).once()
    kept = world.metadata.reference(world.source.root, date(2026, 10, 1))
    assert kept is not None
    assert kept.problem is not None


def test_references_that_may_not_be_listed_do_not_stop_the_watch(
    tmp_path: Path, world: Backends, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_: object) -> None:
        raise BadCredentials("source", "not allowed")

    monkeypatch.setattr(type(world.source), "references", refuse)
    watching = Watching(world)
    watching.once()
    arrive(tmp_path, "2026-11-20")
    clock.forward(world.settings.watch_seconds)
    watching.once()
    assert [job.params["key"] for job in world.metadata.unfinished()] == ["2026-11-20.csv"]


def test_the_first_look_mends_histories_and_drops_what_is_beyond_retention(tmp_path: Path, clock: Clock) -> None:
    keeping = world_of(tmp_path, clock=clock)
    for day in ("2026-09-20", "2026-11-20"):
        arrive(tmp_path, day)
        ingest_object(keeping, {"key": f"{day}.csv"}, lambda *_: None)
    short = world_of(tmp_path, clock=clock, retention_days=30)
    record = short.metadata.day_record(date(2026, 11, 20))
    parts = {name: replace(part, revision=2) for name, part in record.accounts.items()}
    assert short.metadata.put_day_record(replace(record, revision=record.revision + 1, accounts=parts))
    Watching(short).once()
    kept = short.metadata.revisions(date(2026, 11, 20), date(2026, 11, 21))
    assert [one.revision for one in kept] == [1, 2]
    assert list(short.costs.stored_days()) == [date(2026, 11, 20)]
    assert list(short.metadata.month_totals(date(2026, 1, 1), date(2027, 1, 1))) == [date(2026, 9, 1)]
