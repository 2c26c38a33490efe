"""How often something may be asked: counted for all processes together where Redis answers, else in each by itself.

A window is a fixed span of the clock, so that a count is one increment. Without Redis a limit still holds in every
process: it gets weaker, it never goes away, and nothing fails.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Final

from app.errors import SpendscopeError
from app.ports import Limits

MOST_KEPT: Final = 50_000
"""Counters held in memory: more different askers than that in one window are no people."""

REST_SECONDS: Final = 5.0
"""How long a counter that did not answer is left alone: a hanging one must not slow every request down."""


class MemoryLimits:
    """ports.Limits in this process."""

    def __init__(self) -> None:
        self._counts: dict[tuple[str, int], int] = {}
        self._lock = threading.Lock()

    def count(self, key: str, window: int, seconds: int) -> int:  # noqa: ARG002 - old windows go when there are too many
        with self._lock:
            if len(self._counts) >= MOST_KEPT:
                del self._counts[next(iter(self._counts))]
            found = self._counts[key, window] = self._counts.get((key, window), 0) + 1
        return found


class FallingBack:
    """The first while it answers, the second while it does not."""

    def __init__(self, first: Limits, second: Limits, ticks: Callable[[], float] = time.monotonic) -> None:
        self._first, self._second, self._ticks = first, second, ticks
        self._again_at = 0.0

    def count(self, key: str, window: int, seconds: int) -> int:
        if self._ticks() >= self._again_at:
            try:
                return self._first.count(key, window, seconds)
            except SpendscopeError:
                self._again_at = self._ticks() + REST_SECONDS
        return self._second.count(key, window, seconds)


def wait_for(limits: Limits, key: str, most: int, seconds: int, now: float) -> int | None:
    """Count one more of `key`; None when that is within `most` in the window of `seconds`, else seconds to wait."""
    window = int(now // seconds)
    if limits.count(key, window, seconds) <= most:
        return None
    return max(1, int((window + 1) * seconds - now + 0.999))
