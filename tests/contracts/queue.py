"""What every queue keeps (app.ports.Queue). A class that mixes this in gives the fixture `queue`: empty, and running."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

from app.core.jobs import Job
from app.ports import Queue


def job(name: str = "first", claims: int = 0) -> Job:
    return Job(
        id=name,
        kind="ingest",
        params={"key": "2026-11-01.csv"},
        key=name,
        status="queued",
        created=datetime(2026, 11, 24, tzinfo=UTC),
        attempts=claims,
        token=claims,
    )


class QueueContract:
    def test_a_running_queue_passes_its_check(self, queue: Queue) -> None:
        queue.check()

    def test_what_was_pushed_is_not_missing(self, queue: Queue) -> None:
        assert queue.missing([job()]) == [job()]
        queue.push(job())
        assert queue.missing([job()]) == []
        assert queue.waiting() == 1

    def test_pushing_an_attempt_again_is_the_same_as_once(self, queue: Queue) -> None:
        for _ in range(3):
            queue.push(job())
        assert queue.waiting() == 1

    def test_the_attempt_after_a_claim_is_another_one(self, queue: Queue) -> None:
        queue.push(job())
        again = replace(job(), attempts=1, token=1)
        assert queue.missing([again]) == [again]
        queue.push(again)
        assert queue.missing([job(), again]) == []
        assert queue.waiting() == 2

    def test_missing_jobs_keep_their_order(self, queue: Queue) -> None:
        jobs = [job(f"job-{number}") for number in range(20)]
        for number in (3, 4, 11):
            queue.push(jobs[number])
        assert [found.id for found in queue.missing(jobs)] == [
            f"job-{number}" for number in range(20) if number not in (3, 4, 11)
        ]
        assert queue.missing([]) == []

    def test_stopping_a_job_that_nobody_runs_does_nothing(self, queue: Queue) -> None:
        queue.push(job())
        queue.stop(job())
        queue.stop(job("never pushed"))
        assert queue.waiting() == 1
