"""A job as Spendscope records it. The record is the truth; the queue only carries its id to a worker."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final, Literal

JobStatus = Literal[
    "queued", "running", "waiting", "done", "done-noop", "quarantined", "failed", "cancelled", "superseded"
]
JOB_STATUSES: Final = (
    "queued",
    "running",
    "waiting",
    "done",
    "done-noop",
    "quarantined",
    "failed",
    "cancelled",
    "superseded",
)
FINAL: Final = frozenset({"done", "done-noop", "quarantined", "failed", "cancelled", "superseded"})
KINDS: Final = ("ingest", "collect", "backfill", "detect", "judge", "scan")


@dataclass(frozen=True)
class Job:
    """`key` is what makes two requests the same job while one of them is not final.

    `token` grows with every claim: a worker that lost its lease holds an old one and can change nothing any more.
    `request_id` is that of the request that submitted it, where one did.
    `waiting` has a `message` saying why and a `not_before` saying when it is tried again.
    """

    id: str
    kind: str
    params: Mapping[str, Any]
    key: str
    status: JobStatus
    created: datetime
    priority: int = 0
    attempts: int = 0
    token: int = 0
    started: datetime | None = None
    finished: datetime | None = None
    not_before: datetime | None = None
    lease_until: datetime | None = None
    worker: str | None = None
    done_steps: int = 0
    all_steps: int | None = None
    message: str | None = None
    result: Mapping[str, Any] = field(default_factory=dict)
    request_id: str | None = None
