"""One job under a lease: how it ends, when it is tried again, and what a worker that lost it can still do (nothing)."""

from __future__ import annotations

import logging
import threading
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from rq.timeouts import JobTimeoutException

from app.backends import Backends
from app.core.jobs import Job
from app.errors import BadCredentials, Conflict, InvalidInput, NotFound, Refused, Unavailable
from app.ingest import Outcome, Progress
from app.jobs import AVAILABLE, cancel, submit
from tests.fakes import Down, MemoryQueue
from tests.workers.world import Clock, found, submitted, world_of
from workers.jobs import (
    CREDENTIALS_WAIT_SECONDS,
    FIRST_WAIT_SECONDS,
    HANDLERS,
    LONGEST_WAIT_SECONDS,
    GivenBack,
    LeaseLost,
    process,
    run,
    run_job,
)
from workers.schedule import reap


class Work:
    """A handler that does what the test says, in order, and then ends well."""

    def __init__(self, *raising: BaseException) -> None:
        self.raising = list(raising)
        self.runs = 0

    def __call__(self, backends: Backends, job: Job, progress: Progress) -> Outcome:
        self.runs += 1
        if self.raising:
            raise self.raising.pop(0)
        return Outcome("done", "It is done.", {"rows": 3})


def do(world: Backends, job: Job, work: Any) -> Job:
    run_job(world, job.id, {"ingest": work}, worker="tester")
    return found(world, job)


# --- submitting


def test_a_job_is_recorded_and_queued(world: Backends) -> None:
    job = submitted(world, key="a", colour="blue")
    assert found(world, job) == job
    assert (job.status, dict(job.params), job.attempts) == ("queued", {"colour": "blue"}, 0)
    assert world.queue.missing([job]) == []


def test_the_same_key_is_the_same_job_while_it_is_not_final(world: Backends) -> None:
    first = submitted(world)
    assert submitted(world).id == first.id
    do(world, first, Work(Unavailable("costs", "Down.")))
    assert submitted(world).id == first.id
    world.clock.forward(60)  # type: ignore[attr-defined]
    assert do(world, first, Work()).status == "done"
    assert submitted(world).id != first.id


def test_a_kind_without_a_function_is_not_accepted(world: Backends) -> None:
    with pytest.raises(Refused, match="scan are not available yet"):
        submit(world, "scan", {}, key="a")
    with pytest.raises(InvalidInput, match="'dance' is not known"):
        submit(world, "dance", {}, key="a")
    assert world.metadata.unfinished() == []


def test_without_a_queue_a_job_is_recorded_and_queued_later(tmp_path: Path) -> None:
    """Q1: the queue is down; what was accepted is done when it is back."""
    world = world_of(tmp_path, queue=Down("queue"))
    job = submitted(world)
    assert job.status == "queued"
    assert "queue does not answer" in (job.message or "")
    back = world_of(tmp_path, queue=MemoryQueue())
    assert [pushed.id for pushed in reap(back)] == [job.id]
    assert back.queue.missing([job]) == []


# --- how it ends


def test_a_job_that_ends_well(world: Backends) -> None:
    job = do(world, submitted(world), Work())
    assert (job.status, job.message, job.result, job.worker) == ("done", "It is done.", {"rows": 3}, "tester")
    assert job.finished == world.clock()
    assert job.lease_until is None


@pytest.mark.parametrize("status", ["done-noop", "quarantined", "superseded"])
def test_the_outcome_is_the_status(world: Backends, status: Any) -> None:
    job = do(world, submitted(world), lambda *_: Outcome(status, "So it is."))
    assert (job.status, job.message) == (status, "So it is.")


def test_delivered_twice_it_is_done_once(world: Backends) -> None:
    """W9."""
    work, job = Work(), submitted(world)
    for _ in range(3):
        do(world, job, work)
    assert work.runs == 1
    run_job(world, "no such job", {"ingest": work})
    assert work.runs == 1


def test_delivered_while_it_runs_it_is_done_once(world: Backends) -> None:
    runs = []

    def work(backends: Backends, job: Job, progress: Progress) -> Outcome:
        runs.append(1)
        assert run_job(backends, job.id, {"ingest": work}) is None
        return Outcome("done", "Once.")

    assert do(world, submitted(world), work).status == "done"
    assert len(runs) == 1


@pytest.mark.parametrize("error", [InvalidInput("Wrong."), NotFound("Gone."), Refused("Not so.")])
def test_what_trying_again_cannot_mend_fails_at_once(world: Backends, error: Exception) -> None:
    job = do(world, submitted(world), Work(error))
    assert (job.status, job.message, job.attempts) == ("failed", str(error), 1)


def test_a_kind_without_a_function_fails_with_a_sentence(world: Backends) -> None:
    job = submitted(world)
    run_job(world, job.id, {})
    assert (found(world, job).status, found(world, job).message) == (
        "failed",
        "Jobs of kind ingest are not available yet.",
    )
    assert set(HANDLERS) == AVAILABLE


# --- trying again


def test_a_part_that_is_down_is_waited_for_however_long(world: Backends, clock: Clock) -> None:
    """Backoff with full jitter from 0.5 s to 60 s, and no number of tries after which a job is lost."""
    job, work = submitted(world), Work(*(Unavailable("costs", "The store does not answer.") for _ in range(40)))
    waits = []
    for _ in range(40):
        shown = do(world, job, work)
        assert (shown.status, shown.message) == ("waiting", "The store does not answer.")
        assert shown.not_before is not None
        waits.append((shown.not_before - clock()).total_seconds())
        assert run_job(world, job.id, {"ingest": work}) is None or waits[-1] == 0, "it is not due yet"
        clock.forward(waits[-1])
    assert all(
        0 <= wait <= min(LONGEST_WAIT_SECONDS, FIRST_WAIT_SECONDS * 2**tries) for tries, wait in enumerate(waits)
    )
    assert 15 < max(waits) <= LONGEST_WAIT_SECONDS, "the bound grows"
    assert len({round(wait, 3) for wait in waits}) > 20, "they are spread"
    assert do(world, job, work).status == "done"


def test_wrong_credentials_are_tried_four_times_an_hour(world: Backends, clock: Clock) -> None:
    """O4: no retry storm that locks an account."""
    job, work = submitted(world), Work(*(BadCredentials("source", "The key ending in 1234 is refused.") for _ in "ab"))
    for _ in "ab":
        shown = do(world, job, work)
        assert (shown.status, shown.not_before) == ("waiting", clock() + timedelta(seconds=CREDENTIALS_WAIT_SECONDS))
        clock.forward(CREDENTIALS_WAIT_SECONDS - 1)
        assert reap(world) == []
        clock.forward(1)
        assert len(reap(world)) == 1
    assert do(world, job, work).status == "done"


@pytest.mark.parametrize(
    "error", [RuntimeError("secret /path"), Conflict("Somebody was faster."), JobTimeoutException()]
)
def test_other_failures_are_tried_so_often_and_no_more(
    world: Backends, clock: Clock, error: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    job, work = submitted(world), Work(*[error] * 9)
    for tried in range(1, 5):
        shown = do(world, job, work)
        assert (shown.status, shown.attempts) == ("waiting", tried)
        assert f"Attempt {tried} of 5." in (shown.message or "")
        clock.forward(61)
    shown = do(world, job, work)
    assert shown.status == "failed"
    assert "Given up after 5 attempts." in (shown.message or "")
    assert work.runs == 5
    assert "secret" not in (shown.message or "")


def test_an_unexpected_error_is_told_by_a_reference_into_the_log(
    world: Backends, caplog: pytest.LogCaptureFixture
) -> None:
    job = do(world, submitted(world), Work(RuntimeError("secret detail")))
    assert job.message is not None
    reference = job.message.split("reference ")[1][:8]
    [record] = [record for record in caplog.records if record.exc_info]
    assert reference in record.getMessage()
    assert "secret detail" in (caplog.text)
    assert "secret" not in job.message


def test_outages_do_not_use_up_the_tries(world: Backends, clock: Clock) -> None:
    job = submitted(world)
    work = Work(*(Unavailable("costs", "Down.") for _ in range(12)), RuntimeError(), *(GivenBack() for _ in range(12)))
    for _ in range(25):
        assert do(world, job, work).status == "waiting"
        clock.forward(61)
    assert do(world, job, work).status == "done"


def test_a_job_that_kills_its_worker_is_not_done_for_ever(world: Backends, clock: Clock) -> None:
    job = submitted(world)
    for _ in range(5):
        claimed = world.metadata.claim(job.id, worker="dies", now=clock(), lease_until=clock() + timedelta(seconds=12))
        assert claimed is not None
        clock.forward(13)
    work = Work()
    shown = do(world, job, work)
    assert (shown.status, work.runs) == ("failed", 0)
    assert "died 5 times" in (shown.message or "")


def test_a_stopped_worker_gives_its_job_back(world: Backends, clock: Clock) -> None:
    """W12."""
    job = do(world, submitted(world), Work(GivenBack()))
    assert (job.status, job.not_before) == ("waiting", clock())
    assert [again.id for again in reap(world)] == [job.id]
    assert do(world, job, Work()).status == "done"


# --- the lease


def test_progress_is_recorded(world: Backends) -> None:
    shown: list[Job] = []

    def work(backends: Backends, job: Job, progress: Progress) -> Outcome:
        progress(2, 4, "Writing")
        shown.append(found(backends, job))
        return Outcome("done", "")

    do(world, submitted(world), work)
    assert (shown[0].status, shown[0].done_steps, shown[0].all_steps, shown[0].message) == ("running", 2, 4, "Writing")


def test_a_job_that_says_nothing_keeps_its_lease(tmp_path: Path) -> None:
    clock = Clock()
    world = world_of(tmp_path, clock=clock, lease_seconds=0.15)
    job = submitted(world)

    def work(backends: Backends, job: Job, progress: Progress) -> Outcome:
        first = found(backends, job).lease_until
        assert first is not None
        clock.forward(0.1)
        for _ in range(200):
            threading.Event().wait(0.02)
            if found(backends, job).lease_until == first + timedelta(seconds=0.1):
                return Outcome("done", "renewed")
        return Outcome("failed", "not renewed")

    assert do(world, job, work).message == "renewed"


def test_a_worker_that_lost_its_lease_can_change_nothing(world: Backends, clock: Clock) -> None:
    """W5: paused for longer than its lease, resumed while another worker does the job."""
    job, seen = submitted(world), []

    def slow(backends: Backends, held: Job, progress: Progress) -> Outcome:
        clock.forward(13)
        assert len(reap(backends)) == 1
        assert do(backends, job, Work()).status == "done"
        with pytest.raises(LeaseLost):
            progress(3, 4, "Publishing")
        seen.append("refused")
        progress(3, 4, "Publishing")
        raise AssertionError("it went on")

    do(world, job, slow)
    assert seen == ["refused"]
    assert found(world, job).message == "It is done."
    assert found(world, job).attempts == 2


def test_the_end_of_a_lost_job_is_not_recorded(world: Backends, clock: Clock) -> None:
    job = submitted(world)

    def slow(backends: Backends, held: Job, progress: Progress) -> Outcome:
        clock.forward(13)
        reap(backends)
        do(backends, job, Work())
        return Outcome("failed", "I was late.")

    do(world, job, slow)
    assert (found(world, job).status, found(world, job).message) == ("done", "It is done.")


def test_a_cancelled_job_stops_at_its_next_step(world: Backends) -> None:
    job, reached = submitted(world), []

    def work(backends: Backends, held: Job, progress: Progress) -> Outcome:
        progress(1, 4, "Reading")
        shown = cancel(backends, held.id)
        assert shown is not None
        assert shown.status == "cancelled"
        reached.append("cancelled")
        progress(2, 4, "Writing")
        reached.append("wrote")
        return Outcome("done", "")

    assert do(world, job, work).status == "cancelled"
    assert reached == ["cancelled"]
    assert world.queue.stopped == [job.id]  # type: ignore[attr-defined]


def test_a_cancelled_job_is_not_begun(world: Backends) -> None:
    job, work = submitted(world), Work()
    cancel(world, job.id)
    assert do(world, job, work).status == "cancelled"
    assert work.runs == 0
    assert reap(world) == []


def test_cancelling_what_has_ended_or_never_was_changes_nothing(world: Backends) -> None:
    job = do(world, submitted(world), Work())
    assert cancel(world, job.id) == job
    assert cancel(world, "nothing") is None
    assert world.queue.stopped == []  # type: ignore[attr-defined]


def test_cancelling_works_without_a_queue(tmp_path: Path) -> None:
    world = world_of(tmp_path, queue=Down("queue"))
    job = cancel(world, submitted(world).id)
    assert job is not None
    assert job.status == "cancelled"


def test_a_job_that_does_not_end_loses_its_lease(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """W4: nothing of it counts any more when it comes back after its timeout."""
    monkeypatch.setattr("workers.jobs.OVERTIME_SECONDS", -10.0)
    world = world_of(tmp_path, lease_seconds=0.06, job_timeout_seconds=10)
    job = submitted(world)

    def hangs(backends: Backends, held: Job, progress: Progress) -> Outcome:
        for _ in range(400):
            threading.Event().wait(0.01)
            progress(1, 2, "Hanging")
        return Outcome("done", "")

    shown = do(world, job, hangs)
    assert shown.status == "running", "until its lease runs out and the reaper hands it on"


# --- the entry


def test_run_opens_what_its_process_says(tmp_path: Path) -> None:
    world = world_of(tmp_path)
    job = submitted(world)
    before = (process.settings, process.handlers)
    try:
        process.settings, process.handlers = world.settings, {"ingest": Work()}
        run(job.id)
    finally:
        process.settings, process.handlers = before
    assert found(world, job).status == "done"


def test_run_never_raises(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    before = process.settings
    try:
        process.settings = world_of(tmp_path / "a").settings.model_copy(update={"data_dir": tmp_path / "nothing here"})
        with caplog.at_level(logging.WARNING):
            run("some-job")
    finally:
        process.settings = before
    assert "some-job could not be run" in caplog.text
