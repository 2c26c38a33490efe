"""Parts of the world small enough to be kept in memory, and parts that are down."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NoReturn

from app.core.jobs import Job
from app.errors import Unavailable


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
