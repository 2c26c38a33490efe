"""Parts of the world small enough to be kept in memory, and parts that are down."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import count
from typing import Any, NoReturn

from app.core.jobs import Job
from app.core.s3events import NotAnEvent, objects_in
from app.errors import Unavailable
from app.ports import Announcement


class MemoryQueue:
    """A queue (app.ports.Queue) without a server: holds what was pushed, in order; `alive` workers, no work done."""

    def __init__(self, alive: int = 1) -> None:
        self.pushed: dict[tuple[str, int], Job] = {}
        self.stopped: list[str] = []
        self.alive = alive

    def check(self) -> None: ...

    def push(self, job: Job) -> None:
        self.pushed.setdefault((job.id, job.attempts), job)

    def holds(self, job: Job) -> bool:
        return (job.id, job.attempts) in self.pushed

    def missing(self, jobs: Sequence[Job]) -> list[Job]:
        return [job for job in jobs if not self.holds(job)]

    def stop(self, job: Job) -> None:
        self.stopped.append(job.id)

    def waiting(self) -> int:
        return len(self.pushed)

    def workers(self) -> int:
        return self.alive


class Down:
    """Stands where a part should be and does not answer, whatever it is asked."""

    def __init__(self, part: str, retry_after: int = 7) -> None:
        self._part, self._retry_after = part, retry_after

    def __getattr__(self, name: str) -> Any:
        def refuse(*_: object, **__: object) -> NoReturn:
            raise Unavailable(self._part, f"The {self._part} part does not answer.", retry_after=self._retry_after)

        return refuse


class MemoryAnnouncements:
    """A queue of announcements (app.ports.Announcements) that can be read again: one that was given and not settled is
    given again at `redeliver`, as SQS does after the visibility timeout."""

    def __init__(self, source_bucket: str = "bucket", prefix: str = "costs/") -> None:
        self.about = (source_bucket, prefix)
        self.queued: list[str] = []
        self.in_flight: dict[str, str] = {}
        self.rejected: list[str] = []
        self._numbers = count()

    def send(self, body: str) -> None:
        self.queued.append(body)

    def redeliver(self) -> None:
        self.queued += self.in_flight.values()
        self.in_flight.clear()

    def check(self) -> None: ...

    def waiting(self) -> int:
        return len(self.queued) + len(self.in_flight)

    def hear(self) -> Sequence[Announcement]:
        taken, self.queued = self.queued[:10], self.queued[10:]
        return [self._given(body) for body in taken]

    def settle(self, heard: Sequence[Announcement]) -> None:
        for one in heard:
            self.in_flight.pop(one.receipt, None)

    def reject(self, heard: Sequence[Announcement]) -> None:
        self.rejected += [self.in_flight.get(one.receipt, "") for one in heard]
        self.settle(heard)

    def _given(self, body: str) -> Announcement:
        receipt = str(next(self._numbers))
        self.in_flight[receipt] = body
        bucket, prefix = self.about
        try:
            found = [key for name, key in objects_in(body) if name == bucket and key.startswith(prefix)]
        except NotAnEvent as error:
            return Announcement((), receipt, str(error))
        return Announcement(tuple(key.removeprefix(prefix) for key in found), receipt)
