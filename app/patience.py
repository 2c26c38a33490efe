"""Keeps a part that has stopped answering from holding every thread of a process, with all the requests that do not need it."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager


class Patience:
    """At most `most` calls are under way at a time; while one of them has had no answer for `seconds`, further ones fail at
    once with what `failure` makes, and nobody waits longer than that for those before.

    So an outage holds `most` threads of a process for the part's own timeout, and every other thread for moments. A call
    inside a call of the same thread is part of it. A fork starts anew: what its parent waits for is not its own.
    """

    def __init__(
        self,
        most: int,
        seconds: float,
        failure: Callable[[], Exception],
        ticks: Callable[[], float] = time.monotonic,
    ) -> None:
        self._most, self._seconds, self._failure, self._ticks = most, seconds, failure, ticks
        self._begin()

    def _begin(self) -> None:
        self._process = os.getpid()
        self._changed = threading.Condition()
        self._under_way: dict[int, float] = {}

    @contextmanager
    def asking(self) -> Iterator[None]:
        """Around one call. Raises what `failure` makes when those before it do not end."""
        if self._process != os.getpid():
            self._begin()
        me = threading.get_ident()
        if me in self._under_way:
            yield
            return
        with self._changed:
            if not self._changed.wait_for(self._is_free, self._seconds if self._is_answering() else 0):
                raise self._failure()
            self._under_way[me] = self._ticks()
        try:
            yield
        finally:
            with self._changed:
                self._under_way.pop(me, None)
                self._changed.notify()

    def _is_free(self) -> bool:
        return len(self._under_way) < self._most and self._is_answering()

    def _is_answering(self) -> bool:
        oldest = next(iter(self._under_way.values()), None)
        return oldest is None or self._ticks() - oldest < self._seconds
