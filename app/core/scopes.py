"""Where an incident really is: one series, or the account, service or region whose series move together.

An alert goes to the widest scope of which enough series move with the suspect at the same time; its series are
then one incident. Sums over scopes also find what is too small, or too noisy, in each series alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from app.core.arrivals import PARTS, Arrivals, SeriesKey
from app.core.robust import Flags, Floats, Places
from app.core.suspects import AUTOCORRELATION, Suspect, Watched

MOVING: Final = 2.2
"""A series moves with the suspect when its own mean residual is above so many spreads …"""
MOVING_SHARE: Final = 0.3
"""… and this share of the suspect's."""
SUM_DAYS: Final = (1, 2, 3, 5)
SUM_NEWEST: Final = (1, 2)
"""Sums end yesterday or the day before: of today too little is known for so fine a measure."""
SUM_SHARE: Final = 0.6
SUM_MOVING: Final = 0.06
NEW_WITHIN: Final = 3
"""New series that began within so many days of each other belong together."""


@dataclass(frozen=True)
class Scope:
    """None means all."""

    account: str | None = None
    service: str | None = None
    region: str | None = None

    @classmethod
    def of(cls, key: SeriesKey) -> Scope:
        return cls(key.account, key.service, key.region)

    @property
    def wide(self) -> bool:
        return None in (self.account, self.service, self.region)

    def covers(self, key: SeriesKey) -> bool:
        return all(mine is None or mine == getattr(key, part) for part, mine in self.parts())

    def parts(self) -> list[tuple[str, str | None]]:
        return [(part, getattr(self, part)) for part in PARTS]


@dataclass(frozen=True)
class Level:
    """A kind of scope: the parts that are fixed, how many series at least, and what share of its series, must move."""

    parts: tuple[int, ...]
    least: int
    share: float


LEVELS: Final = (
    Level((0, 1), 2, 0.5),
    Level((0, 2), 3, 0.25),
    Level((1, 2), 2, 0.6),
    Level((1,), 2, 0.6),
    Level((0,), 3, 0.2),
)
NEW_LEVELS: Final = (Level((0, 1), 2, 0.5), Level((0, 2), 2, 0.25), *LEVELS[2:])


def explain(arrivals: Arrivals, watched: Watched, suspect: Suspect) -> tuple[Scope, list[int]]:
    """The scope to blame and the series in it that move."""
    judged, moving = _moving(watched, suspect)
    key = arrivals.keys[suspect.series]
    best, found, judged_there = Scope.of(key), [suspect.series], 1
    for level in NEW_LEVELS if suspect.kind == "new_cost" else LEVELS:
        inside = _alike(arrivals, suspect.series, level.parts)
        number, of = int((moving & inside).sum()), int((judged & inside).sum())
        if number < level.least or number < level.share * of:
            continue
        if number > len(found) or (number == len(found) and of == judged_there):
            best = Scope(**{PARTS[part]: getattr(key, PARTS[part]) for part in level.parts})
            found, judged_there = np.flatnonzero(moving & inside).tolist(), of
    return best, found


def _alike(arrivals: Arrivals, series: int, parts: tuple[int, ...]) -> Flags:
    found: Flags = (arrivals.codes[parts, :] == arrivals.codes[parts, :][:, [series]]).all(0)
    return found


def _moving(watched: Watched, suspect: Suspect) -> tuple[Flags, Flags]:
    """(series that could move with the suspect, those that do)."""
    rule = {"new_cost": _began, "drop": _fell}.get(suspect.kind, _rose)
    judged, moving = rule(watched, suspect)
    judged[suspect.series] = moving[suspect.series] = True
    return judged, moving


def _began(watched: Watched, suspect: Suspect) -> tuple[Flags, Flags]:
    recent = watched.recent
    fresh = recent.young & ~watched.ongoing
    cost = recent.cost[suspect.newest : suspect.oldest + 1].sum(0)
    together = np.abs(recent.first - recent.first[suspect.series]) <= NEW_WITHIN
    return fresh | recent.regular, fresh & together & (cost > 0.03 * cost[suspect.series])


def _large_enough(watched: Watched) -> Flags:
    found: Flags = watched.recent.regular & ~watched.silent
    return found & (np.exp(watched.recent.level) > 0.01 * watched.materiality.daily)


def _fell(watched: Watched, suspect: Suspect) -> tuple[Flags, Flags]:
    recent, ages = watched.recent, slice(suspect.newest, suspect.oldest + 1)
    judged = _large_enough(watched) & recent.known[ages].any(0)
    return judged, judged & (recent.off[ages].max(0) < np.log(watched.thresholds.fallen))


def _rose(watched: Watched, suspect: Suspect) -> tuple[Flags, Flags]:
    recent, ages = watched.recent, slice(suspect.newest, suspect.oldest + 1)
    off = recent.slow_off if suspect.kind == "creep" else recent.off
    weights = np.where(recent.known[ages], 1 / recent.spread[ages] ** 2, 0)
    weight = np.maximum(weights.sum(0), 1e-9)
    mean = (off[ages] * weights).sum(0) / weight
    score = mean * np.sqrt(weight / (1.0 if len(weights) == 1 else 1.5))
    judged = _large_enough(watched) & (weights.sum(0) > 0)
    return judged, judged & (score > MOVING) & (mean > MOVING_SHARE * min(suspect.size, 1.0))


def sums(arrivals: Arrivals, watched: Watched, already: Sequence[Suspect]) -> list[Suspect]:
    """Scopes whose sum rises although none of their series stands out; the suspect is the series with most of it."""
    taken = {suspect.series for suspect in already}
    found: list[Suspect] = []
    for level in LEVELS:
        labels, number = _labels(arrivals, level.parts)
        for newest in SUM_NEWEST:
            for days in SUM_DAYS:
                for suspect, members in _sums_over(watched, labels, number, newest, days):
                    if taken.isdisjoint(members):
                        taken.update(members)
                        found.append(suspect)
    return found


def _labels(arrivals: Arrivals, parts: tuple[int, ...]) -> tuple[Places, int]:
    names, labels = np.unique(arrivals.codes[parts, :], axis=1, return_inverse=True)
    return labels.reshape(-1), names.shape[1]


def _sums_over(
    watched: Watched, labels: Places, number: int, newest: int, days: int
) -> Iterator[tuple[Suspect, list[int]]]:
    recent, limits, ages = watched.recent, watched.thresholds, slice(newest, newest + days)
    good = recent.regular & ~watched.silent & recent.known[ages].all(0)

    def added(values: Floats | Flags, where: Flags = good) -> Floats:
        found: Any = np.bincount(labels[where], weights=values[where].astype(np.float64), minlength=number)
        return np.asarray(found, np.float64)

    excess = added(recent.excess[ages].sum(0))
    worth = (excess >= days * watched.materiality.daily) & (excess >= limits.worth * watched.materiality.total)
    if not worth.any():  # on most days: a sum of large dollars is rare
        return
    expected = added(recent.expected[ages].sum(0))
    correlated = 1 + AUTOCORRELATION * (days > 1)
    variance = added(((recent.expected[ages] * recent.spread[ages]) ** 2).sum(0) * correlated)
    members = added(good)
    moving = added(good, good & (recent.off[ages].mean(0) > SUM_MOVING))
    score = excess / np.sqrt(np.maximum(variance + (limits.sums_drift * expected) ** 2, 1e-12))
    high = worth & (score > limits.sums) & (excess > limits.least_sums * expected)
    for label in np.flatnonzero(high & (members >= 2) & (moving >= SUM_SHARE * members)).tolist():
        inside = np.flatnonzero(good & (labels == label))
        lead = int(inside[recent.excess[ages][:, inside].sum(0).argmax()])
        size = float(np.log1p(excess[label] / expected[label]))
        dollars = float(recent.excess[newest, lead])
        yield (
            Suspect(lead, "rise", 1, newest, newest + days - 1, newest, dollars, float(excess[label]), size, float(score[label]), True),
            inside.tolist(),
        )  # fmt: skip
