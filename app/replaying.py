"""Replaying a history that is mostly as it was: from where an earlier run stood, which costs a day and not 13 months.

Where a run stood after some of its deliveries is kept in files. A file is named by its mark (core.replays.marks), so it
is used for exactly the history that led to it: a restated day leads back to the newest file before it. All of them may
be lost at any time, and are then made again.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import re
from collections.abc import Callable, Iterator, Sequence
from datetime import date
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Final

import numpy as np

from app.backtest import MOST_SERIES, Rules
from app.core.arrivals import Delivery
from app.core.replays import DamagedState, Replay, marks
from app.errors import InvalidInput

log = logging.getLogger(__name__)

Told = Callable[[int, int | None, str], None]

EACH_OF: Final = 14
"""Of the newest days every one is kept: those are restated all the time."""
EVERY: Final = 7
"""Of earlier days every seventh is: a later restatement costs a week more."""
ENDING: Final = ".state"
NAME: Final = re.compile(r"\d{4}-\d\d-\d\d-[0-9a-f]{64}")


class ReplayStates:
    """States in a directory of one deployment. Several processes may use it at once."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def before(self, marks: Sequence[str]) -> Iterator[tuple[int, bytes]]:
        """(place, state) of the kept ones of these marks, newest first."""
        kept = self._kept()
        for place in range(len(marks) - 1, -1, -1):
            if marks[place] in kept:
                try:
                    yield place, self._path(marks[place]).read_bytes()
                except OSError as error:
                    log.warning("%s cannot be read: %s", self._path(marks[place]), error.strerror)

    def keep(self, mark: str, state: bytes) -> None:
        """A failure is logged: the next run has more to do, that is all."""
        path = self._path(mark)
        temporary = path.with_name(f".{mark}.{os.getpid()}.tmp")
        try:
            self._directory.mkdir(parents=True, exist_ok=True)
            temporary.write_bytes(state)
            temporary.replace(path)
        except OSError as error:
            log.warning("%s cannot be kept: %s", path, error.strerror)
            with contextlib.suppress(OSError):
                temporary.unlink(missing_ok=True)

    def forget(self, mark: str) -> None:
        self._path(mark).unlink(missing_ok=True)

    def forget_all_but(self, marks: set[str]) -> None:
        for mark in self._kept() - marks:
            self.forget(mark)
        for left in self._directory.glob(".*.tmp"):
            left.unlink(missing_ok=True)

    def _path(self, mark: str) -> Path:
        return self._directory / f"{mark}{ENDING}"

    def _kept(self) -> set[str]:
        try:
            names = [path.name for path in self._directory.iterdir()]
        except OSError:
            return set()
        found = (name.removesuffix(ENDING) for name in names if name.endswith(ENDING))
        return {name for name in found if NAME.fullmatch(name)}


def replayed(deliveries: Sequence[Delivery], rules: Rules, states: ReplayStates, told: Told, *, keep: bool) -> Replay:
    """A replay of all the deliveries, equal to the last bit to one from the beginning.

    `keep` whether states are kept for a next run, which has more of the same history; those that it could not use are
    dropped then. Raises InvalidInput for more series than can be held.
    """
    steps = list(marks(f"{method()} {rules.min_daily!r} {rules.min_total!r}", deliveries))
    wanted = worth_keeping(len(steps)) if keep else set()
    replay = _resumed(deliveries, steps, rules, states)
    for place in range(replay.resumed, len(deliveries)):
        replay.take(deliveries[place])
        _refuse_more_series(replay, deliveries[place].day)
        if place in wanted:
            states.keep(steps[place], replay.packed())
        if place % 10 == 0:
            told(place, len(deliveries), f"Looking at {deliveries[place].day}")
    if keep:
        states.forget_all_but({steps[place] for place in wanted})
    log.info("Judged %d of %d deliveries anew.", len(deliveries) - replay.resumed, len(deliveries))
    return replay


def _resumed(deliveries: Sequence[Delivery], steps: Sequence[str], rules: Rules, states: ReplayStates) -> Replay:
    for place, state in states.before(steps):
        replay = Replay(min_daily=rules.min_daily, min_total=rules.min_total)
        try:
            replay.resume(state, deliveries[: place + 1])
        except DamagedState as error:
            log.warning(
                "What the detector concluded until %s is damaged (%s): judging again.", steps[place][:10], error
            )
            states.forget(steps[place])
        else:
            return replay
    return Replay(min_daily=rules.min_daily, min_total=rules.min_total)


def _refuse_more_series(replay: Replay, day: date) -> None:
    if len(replay.detector.arrivals.keys) > MOST_SERIES:
        raise InvalidInput(f"More than {MOST_SERIES} account × service × region by {day}.")


@cache
def method() -> str:
    """Stands for how a detector concludes: another release of the product, or of numpy, may do so differently."""
    digest = hashlib.sha256(np.__version__.encode())
    for part in sorted(files("app.core").iterdir(), key=lambda one: one.name):
        if part.name.endswith(".py"):
            digest.update(f"\0{part.name}\0".encode() + part.read_bytes())
    return digest.hexdigest()


def worth_keeping(number: int) -> set[int]:
    """The places, of so many deliveries, after which the state is kept."""
    newest = range(max(number - EACH_OF, 0), number)
    return {*newest, *range(EVERY - 1, number, EVERY)}
