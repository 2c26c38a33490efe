"""Work is recorded first and queued second: what was recorded is done, whatever becomes of the queue."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final
from uuid import uuid4

from app import logs
from app.backends import Backends
from app.core.jobs import FINAL, KINDS, Job
from app.errors import InvalidInput, Refused, Unavailable

log = logging.getLogger(__name__)

AVAILABLE: Final = frozenset({"ingest", "collect", "backfill", "detect", "judge"})
"""Kinds that have a function in this version (workers.jobs.HANDLERS)."""


def submit(
    backends: Backends,
    kind: str,
    params: Mapping[str, Any],
    *,
    key: str,
    priority: int = 0,
    id: str | None = None,
) -> Job:
    """Record a job and hand it to the queue; the one there is when a job with this `key` is not final yet.

    While the queue does not answer the job waits in its record: the scheduler queues it later. Raises InvalidInput
    for an unknown kind, Refused for one that this version cannot do, Unavailable when it could not be recorded.
    """
    check_kind(kind)
    asked = Job(
        id=id or uuid4().hex,
        kind=kind,
        params=dict(params),
        key=key,
        status="queued",
        created=backends.clock(),
        priority=priority,
        request_id=logs.ids().get("request_id"),
    )
    job, new = backends.metadata.put_job(asked)
    return _queued(backends, job) if new else job


def check_kind(kind: str) -> None:
    if kind not in KINDS:
        raise InvalidInput(f"kind {kind[:40]!r} is not known. Use one of {', '.join(KINDS)}.", field="kind")
    if kind not in AVAILABLE:
        raise Refused(f"Jobs of kind {kind} are not available yet. Use {', '.join(sorted(AVAILABLE))}.")


def _queued(backends: Backends, job: Job) -> Job:
    try:
        backends.queue.push(job)
    except Unavailable as error:
        log.debug("Job %s is recorded and will be queued later: %s", job.id, error.message)
        return replace(job, message="Recorded. The queue does not answer; the job starts when it does.")
    return job


def cancel(backends: Backends, id: str) -> Job | None:
    """End a job that is not final, also while it runs; the job afterwards, None when there is none with this id."""
    before = backends.metadata.job(id)
    job = backends.metadata.cancel(id, now=backends.clock())
    if before is not None and before.status not in FINAL and job is not None and job.status == "cancelled":
        try:
            backends.queue.stop(job)
        except Unavailable as error:
            # Its worker notices at its next sign of life that the job is no longer its own.
            log.warning("Job %s is cancelled; its worker could not be told at once: %s", job.id, error.message)
    return job
