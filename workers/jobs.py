"""What a worker does with a job id: claim the record, do the work under a lease, write down how it ended.

The record decides everything. A delivery of a job that is not to be had does nothing, a worker that lost its lease can
change nothing, and one that dies leaves a lease that runs out, after which the scheduler hands the job out again.
"""

from __future__ import annotations

import logging
import random
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from types import TracebackType
from typing import Any, Final
from uuid import uuid4

from rq.timeouts import JobTimeoutException

from app import logs
from app.backends import Backends, open_backends
from app.config import Settings, read_settings
from app.core.jobs import Job, JobStatus
from app.errors import BadCredentials, InvalidInput, NotFound, Refused, SpendscopeError, Unavailable
from app.ingest import Outcome, Progress, ingest_object
from workers.collecting import backfill, collect
from workers.detecting import look_for_anomalies
from workers.judging import judge_rules

log = logging.getLogger(__name__)

Handler = Callable[[Backends, Job, Progress], Outcome]

FIRST_WAIT_SECONDS: Final = 0.5
LONGEST_WAIT_SECONDS: Final = 60.0
CREDENTIALS_WAIT_SECONDS: Final = 15 * 60.0
"""Wrong credentials do not get right by trying: at most four tries an hour, so that no account is locked."""

OVERTIME_SECONDS: Final = 15.0
"""After the timeout's exception, how long a job may take to end before its lease is given up and it is killed."""

POSTPONED: Final = "postponed"
"""Key in the result of a job that waits: how many of its attempts ended because something else was not there.

Those do not count against `job_attempts`: an outage may last longer than any number of tries.
"""


class LeaseLost(Exception):
    """The job is no longer ours: cancelled, or given to another worker. Nothing may be written for it any more."""


class GivenBack(BaseException):
    """The worker is being stopped: leave the job to another one. No handler may catch it as an error of its own."""


def _ingest(backends: Backends, job: Job, progress: Progress) -> Outcome:
    return ingest_object(backends, job.params, progress, job_id=job.id)


HANDLERS: Final[Mapping[str, Handler]] = {
    "ingest": _ingest,
    "collect": collect,
    "backfill": backfill,
    "detect": look_for_anomalies,
    "judge": judge_rules,
}


@dataclass
class _Process:
    """What `run` needs to know and the queue does not carry; set by the worker before it forks."""

    settings: Settings | None = None
    worker: str = "worker"
    handlers: Mapping[str, Handler] = field(default_factory=lambda: HANDLERS)


process = _Process()


def run(job_id: str) -> None:
    """The one function that the queue may call. It never raises: the job's record says how it ended."""
    try:
        backends = open_backends(process.settings or read_settings())
        try:
            run_job(backends, job_id, process.handlers, worker=process.worker)
        finally:
            backends.metadata.close()
    except GivenBack:
        log.info("Job %s was given back before it had begun", job_id)
    # Below, its record is as it was, or its lease runs out: the scheduler hands it out again.
    except SpendscopeError as error:
        log.warning("Job %s could not be run: %s", job_id, error.message)
    except Exception:
        log.exception("Job %s could not be run", job_id)


def run_job(backends: Backends, job_id: str, handlers: Mapping[str, Handler], *, worker: str = "worker") -> Job | None:
    """Do the job if it is to be had; the job as it was claimed, None when it was not.

    Raises Unavailable when the metadata store does not answer.
    """
    settings, now = backends.settings, backends.clock()
    until = now + timedelta(seconds=settings.lease_seconds)
    job = backends.metadata.claim(job_id, worker=worker, now=now, lease_until=until)
    if job is None:
        log.debug("Job %s is not to be had: done, cancelled or in other hands", job_id)
        return None
    with logs.bound(job_id=job.id, request_id=job.request_id):
        _do(backends, job, handlers)
    return job


def _do(backends: Backends, job: Job, handlers: Mapping[str, Handler]) -> None:
    began = time.monotonic()
    try:
        ending = _ending(backends, job, handlers)
    except LeaseLost:
        log.warning("Job %s (%s) is no longer ours; nothing more is written for it", job.id, job.kind)
        return
    if _finish(backends, job, ending):
        _tell(job, ending, time.monotonic() - began)
    else:
        log.warning("Job %s (%s) ended when it was no longer ours; its end is not recorded", job.id, job.kind)


def _tell(job: Job, ending: Ending, seconds: float) -> None:
    """What a person has to look at is a warning, with the sentence that says why."""
    if ending.status in ("quarantined", "failed"):
        log.warning("Job %s (%s) %s after %.2f s: %s", job.id, job.kind, ending.status, seconds, ending.message)
    else:
        log.info("Job %s (%s) %s after %.2f s", job.id, job.kind, ending.status, seconds)


@dataclass(frozen=True)
class Ending:
    """A final status, or `waiting` for so many seconds."""

    status: JobStatus
    message: str
    result: Mapping[str, Any] = field(default_factory=dict)
    wait: float = 0.0


def _finish(backends: Backends, job: Job, ending: Ending) -> bool:
    now = backends.clock()
    return backends.metadata.finish(
        job.id,
        job.token,
        ending.status,
        now=now,
        message=ending.message,
        result=ending.result,
        not_before=now + timedelta(seconds=ending.wait) if ending.status == "waiting" else None,
    )


def _ending(backends: Backends, job: Job, handlers: Mapping[str, Handler]) -> Ending:
    settings = backends.settings
    if _attempts(job) > settings.job_attempts:
        return Ending("failed", f"Its worker died {settings.job_attempts} times while doing it; see the workers' log.")
    handler = handlers.get(job.kind)
    if handler is None:
        return Ending("failed", f"Jobs of kind {job.kind} are not available yet.")
    try:
        with Lease(backends, job) as lease:
            outcome = handler(backends, job, lease.progress)
    except GivenBack:
        return _postponed(job, "Its worker was stopped; another one takes it.", 0.0)
    except BadCredentials as error:
        return _postponed(job, error.message, CREDENTIALS_WAIT_SECONDS)
    except Unavailable as error:
        return _postponed(job, error.message, _jittered(_postponements(job)))
    except (InvalidInput, NotFound, Refused) as error:
        return Ending("failed", error.message)
    except JobTimeoutException:
        return _tried(job, settings, f"It took longer than {settings.job_timeout_seconds} s and was stopped")
    except LeaseLost:
        raise
    except SpendscopeError as error:
        return _tried(job, settings, error.message.rstrip("."))
    except MemoryError:
        log.exception("Job %s (%s) needs more memory than there is", job.id, job.kind)
        return _tried(
            job, settings, "There is not enough memory for it; give workers more, or split the file by account"
        )
    except Exception as error:
        reference = uuid4().hex[:8]
        log.exception("Job %s (%s) raised, reference %s", job.id, job.kind, reference)
        return _tried(job, settings, f"Unexpected {type(error).__name__}; the log has more under reference {reference}")
    return Ending(outcome.status, outcome.message, outcome.result)


def _postponements(job: Job) -> int:
    return int(job.result.get(POSTPONED, 0))


def _attempts(job: Job) -> int:
    """Attempts that count, this one included."""
    return job.attempts - _postponements(job)


def _postponed(job: Job, message: str, wait: float) -> Ending:
    return Ending("waiting", message, {POSTPONED: _postponements(job) + 1}, wait)


def _tried(job: Job, settings: Settings, message: str) -> Ending:
    tried = _attempts(job)
    if tried >= settings.job_attempts:
        return Ending("failed", f"{message}. Given up after {tried} attempts.")
    kept = {POSTPONED: _postponements(job)}
    return Ending("waiting", f"{message}. Attempt {tried} of {settings.job_attempts}.", kept, _jittered(tried))


def _jittered(tries: int) -> float:
    """Full jitter: anything up to a bound that doubles with every try, so that many waiting jobs do not come at once."""
    return random.uniform(0, min(LONGEST_WAIT_SECONDS, FIRST_WAIT_SECONDS * 2.0 ** min(tries, 16)))  # noqa: S311


class Lease:
    """Says every third of the lease that the job is still being worked on, from a thread beside the work."""

    def __init__(self, backends: Backends, job: Job) -> None:
        self._backends, self._job = backends, job
        self._length = backends.settings.lease_seconds
        self._overtime_at = time.monotonic() + backends.settings.job_timeout_seconds + OVERTIME_SECONDS
        self._shown: tuple[int, int | None, str | None] = (job.done_steps, job.all_steps, None)
        self._lost = threading.Event()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=logs.with_ids(self._keep), name=f"lease of {job.id}", daemon=True)

    def __enter__(self) -> Lease:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._ended.set()
        self._thread.join()

    def progress(self, done_steps: int, all_steps: int | None, message: str) -> None:
        """Record how far it is. Raises LeaseLost when the job is no longer ours, Unavailable when that is not known."""
        self._shown = (done_steps, all_steps, message)
        if self._lost.is_set() or not self._renewed():
            raise LeaseLost

    def _keep(self) -> None:
        while not self._ended.wait(self._length / 3):
            if time.monotonic() > self._overtime_at:
                log.error("Job %s does not end; its lease is given up", self._job.id)
                self._lost.set()
            elif not self._renewed_if_heard():
                self._lost.set()
            if self._lost.is_set():
                return

    def _renewed_if_heard(self) -> bool:
        """An unanswered sign of life is no loss: if nobody else takes the job meanwhile, the next one finds it ours."""
        try:
            return self._renewed()
        except SpendscopeError as error:
            log.warning("Job %s could not give a sign of life: %s", self._job.id, error.message)
            return True

    def _renewed(self) -> bool:
        done, of, message = self._shown
        return self._backends.metadata.renew(
            self._job.id,
            self._job.token,
            lease_until=self._backends.clock() + timedelta(seconds=self._length),
            done_steps=done,
            all_steps=of,
            message=message,
        )
