"""How far a pile of new files is, in one line now and then: a first start takes hundreds of them."""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable
from typing import Final

from app.core.jobs import FINAL, Job
from app.ports import Jobs

log = logging.getLogger(__name__)

TELL_SECONDS: Final = 10.0
WORDS: Final = {
    "done": "taken",
    "done-noop": "known already",
    "quarantined": "quarantined",
    "superseded": "replaced meanwhile",
    "failed": "failed",
    "cancelled": "cancelled",
}


class Arriving:
    """Follows ingest jobs from when they are first seen until none is left; safe to use from several threads."""

    def __init__(self, *, ticks: Callable[[], float] = time.monotonic) -> None:
        self._ticks = ticks
        self._lock = threading.Lock()
        self._open: set[str] = set()
        self._ended: Counter[str] = Counter()
        self._began = self._told = 0.0

    def expect(self, jobs: Iterable[Job]) -> None:
        """These are under way; one that was seen before is still the same one."""
        with self._lock:
            ids = {job.id for job in jobs if job.kind == "ingest" and job.status not in FINAL}
            if ids and not self._open:
                self._began = self._told = self._ticks()
            self._open |= ids

    def look(self, unfinished: Iterable[Job], records: Jobs) -> None:
        """Say how far they are, given all jobs that are not final now."""
        unfinished = list(unfinished)
        # Asked before the lock is taken: a job that is submitted meanwhile stays open until the next look.
        still = {job.id for job in unfinished}
        with self._lock:
            gone = self._open - still
        found = [job for one in gone if (job := records.job(one)) is not None]
        ended = {job.id: job.status for job in found if job.status in FINAL}
        missing = gone - {job.id for job in found}
        self.expect(unfinished)
        with self._lock:
            self._open -= ended.keys() | missing
            self._ended.update(ended.values())
            self._tell()

    def _tell(self) -> None:
        done, now = self._ended.total(), self._ticks()
        if not self._open and done:
            parts = [f"{self._ended[status]} {word}" for status, word in WORDS.items() if self._ended[status]]
            log.info("New files: %s, after %.0f s", ", ".join(parts), now - self._began)
            self._ended.clear()
        elif self._open and now - self._told >= TELL_SECONDS:
            self._told = now
            log.info("New files: %d of %d looked at", done, done + len(self._open))
