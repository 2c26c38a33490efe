"""Which series stand out today: rises, creeping rises, drops, costs of something new.

A rise is judged over the one to three newest days, a creep over one or two weeks against the slow level, each as a
mean residual in spreads. A drop needs two days in a row: one low day is a refund. Whether it is worth an alert is a
matter of dollars (Materiality).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np

from app.core.baseline import Baseline
from app.core.residuals import RECENT, Recent
from app.core.robust import Flags, Floats, Places, mean_where

Kind = Literal["rise", "creep", "drop", "new_cost", "data_outage"]

NEWEST_AGES: Final = 3
"""A stretch ends today, yesterday or the day before: some services arrive late."""
RISE_DAYS: Final = (1, 2, 3)
DROP_DAYS: Final = (2, 3)
CREEP_DAYS: Final = (5, 9, 14)
AUTOCORRELATION: Final = 0.35
"""What each further day adds to the variance of a sum, because a high day follows a high day."""
BETTER: Final = 0.3
"""A longer stretch is preferred only when it stands out by so much more."""
NO_SCORE: Final = -9.0


@dataclass(frozen=True)
class Materiality:
    """Dollars that are worth an alert: excess on one day (`daily`), and of the incident as a whole (`total`)."""

    daily: float
    total: float


@dataclass(frozen=True)
class Thresholds:
    """The few numbers that decide, in spreads (`rise`, `creep`, `drop`, `sums`) or as shares.

    `least_rise` and `least_creep` are shares of the expected cost; `fallen` is the share that is left in a drop;
    `worth` the part of Materiality.total that must already have accrued; `drift` how far a level wanders by itself in a
    month, as a log; `sums_drift` the same for sums of series; `erratic` how many times its own peak an irregular series must exceed.
    """

    rise: float = 5.0
    creep: float = 5.0
    drop: float = 5.0
    sums: float = 6.0
    least_rise: float = 0.20
    least_creep: float = 0.12
    least_sums: float = 0.10
    fallen: float = 0.60
    worth: float = 0.6
    drift: float = 0.025
    sums_drift: float = 0.025
    erratic: float = 2.0
    erratic_spreads: float = 4.0


@dataclass(frozen=True)
class Suspect:
    """One series, ages counted from today: from `oldest` to `newest`; `age` is the day to name.

    `excess` are that day's dollars above (below: negative) the expectation, `impact` those from the start to it.
    `size` is the log ratio to the expectation; for something new, dollars a day. `score` is in spreads.
    """

    series: int
    kind: Kind
    sign: int
    newest: int
    oldest: int
    age: int
    excess: float
    impact: float
    size: float
    score: float
    summed: bool = False
    """Whether it only stands out in a sum over a scope; `impact` is then the sum's."""


@dataclass(frozen=True)
class Watched:
    """Today as seen by the rules: what happened, what is expected, what matters. `silent` series are not to be judged."""

    recent: Recent
    baseline: Baseline
    costs: Floats
    materiality: Materiality
    thresholds: Thresholds
    silent: Flags
    ongoing: Flags
    told: Places
    """Up to which day (place) each series' cost has been told in an incident; -1 for none."""


def suspects(watched: Watched) -> list[Suspect]:
    """Everything that stands out and is worth it, one for each series at most."""
    rules: tuple[Callable[[Watched], Iterator[Suspect | None]], ...] = (_rises, _drops, _erratic, _new_costs)
    found: dict[int, Suspect] = {}
    for rule in rules:
        for suspect in rule(watched):
            if suspect is not None:
                found.setdefault(suspect.series, suspect)
    return list(found.values())


@dataclass
class Best:
    """The most telling stretch of each series so far."""

    score: Floats
    oldest: Places
    newest: Places

    @classmethod
    def none(cls, series: int) -> Best:
        return cls(np.full(series, NO_SCORE), np.zeros(series, np.int64), np.zeros(series, np.int64))

    def offer(self, score: Floats, newest: int, days: int) -> None:
        better = score > self.score + BETTER
        self.score = np.where(better, score, self.score)
        self.oldest = np.where(better, newest + days - 1, self.oldest)
        self.newest = np.where(better, newest, self.newest)


def stretch_scores(recent: Recent, ages: slice) -> tuple[Floats, Floats]:
    """(mean log residual weighted by certainty, the same in spreads) of a stretch of days."""
    weights = 1 / recent.spread[ages] ** 2
    total, weight = (recent.off[ages] * weights).sum(0), weights.sum(0)
    days = len(weights)
    return total / weight, total / np.sqrt(weight * (1 + AUTOCORRELATION * (days - 1)))


def _stretches(recent: Recent, lengths: tuple[int, ...]) -> Iterator[tuple[int, int, slice]]:
    for newest in range(NEWEST_AGES):
        for days in lengths:
            if newest + days <= len(recent.off):
                yield newest, days, slice(newest, newest + days)


def _best_rise(watched: Watched) -> Best:
    recent, least = watched.recent, np.log1p(watched.thresholds.least_rise)
    best = Best.none(len(recent.level))
    for newest, days, ages in _stretches(recent, RISE_DAYS):
        mean, score = stretch_scores(recent, ages)
        judged = recent.regular & recent.known[ages].all(0)
        risen = judged & (mean > least) & (recent.off[ages].min(0) > least / 2)
        best.offer(np.where(risen, score, NO_SCORE), newest, days)
    return best


def _best_drop(watched: Watched) -> Best:
    recent, most = watched.recent, np.log(watched.thresholds.fallen)
    best = Best.none(len(recent.level))
    for newest, days, ages in _stretches(recent, DROP_DAYS):
        _, score = stretch_scores(recent, ages)
        judged = recent.regular & recent.known[ages].all(0) & (recent.cost[ages] >= 0).all(0)
        best.offer(np.where(judged & (recent.off[ages].max(0) < most), -score, NO_SCORE), newest, days)
    return best


def _best_creep(watched: Watched) -> Best:
    recent, thresholds = watched.recent, watched.thresholds
    best = Best.none(len(recent.level))
    for days in CREEP_DAYS:
        if days + LEAST_BEFORE > len(recent.off):
            continue
        known = recent.known[:days] & recent.regular
        off = recent.slow_off[:days]
        number = known.sum(0)
        mean = mean_where(np.minimum(off, 2.5 * np.maximum(mean_where(off, known), 0.02)), known)
        lasting = np.sort(np.where(known, off, np.inf), axis=0)[days // 4] > 0.3 * mean
        noise = watched.baseline.spread**2 * (1.8 / np.maximum(number, 1) + 0.08) + thresholds.drift**2
        enough = (number >= 0.75 * days) & np.isfinite(watched.baseline.slow)
        crept = enough & lasting & (mean > np.log1p(thresholds.least_creep))
        best.offer(np.where(crept, mean / np.sqrt(noise), NO_SCORE), 0, days)
    return best


LEAST_BEFORE: Final = 3


def _rises(watched: Watched) -> Iterator[Suspect | None]:
    fast, slow = _best_rise(watched), _best_creep(watched)
    limits = watched.thresholds
    for series in np.flatnonzero(((fast.score > limits.rise) | (slow.score > limits.creep)) & ~watched.silent).tolist():
        if fast.score[series] > limits.rise:
            yield _rise(watched, series, fast)
        else:
            yield _creep(watched, series, slow)


def _rise(watched: Watched, series: int, best: Best) -> Suspect | None:
    recent = watched.recent
    off, spread = recent.off[:, series], recent.spread[:, series]
    newest, oldest = int(best.newest[series]), int(best.oldest[series])
    usual = off[newest : oldest + 1].mean()
    while oldest + 1 < min(len(off), 6) and off[oldest + 1] > max(0.4 * usual, 1.5 * spread[oldest + 1]):
        oldest += 1
    excess = recent.excess[:, series]
    return worthwhile(watched, series, "rise", newest, oldest, excess, float(best.score[series]))


def _creep(watched: Watched, series: int, best: Best) -> Suspect | None:
    recent = watched.recent
    off, known = recent.slow_off[:, series], recent.known[:, series]
    oldest = int(best.oldest[series])
    newest = int(known[: oldest + 1].argmax())
    usual = off[newest : oldest + 1].mean()
    while oldest + 1 < len(off) and off[oldest + 1] > 0.3 * usual:
        oldest += 1
    while oldest > newest and off[oldest] < 0.3 * usual:
        oldest -= 1
    slow_expected = recent.expected[:, series] * np.exp(recent.slow[series] - recent.level[series])
    excess = recent.cost[:, series] - slow_expected
    return worthwhile(watched, series, "creep", newest, oldest, excess, float(best.score[series]))


def _drops(watched: Watched) -> Iterator[Suspect | None]:
    recent, best = watched.recent, _best_drop(watched)
    today = watched.costs.shape[1] - 1
    most = np.log(watched.thresholds.fallen)
    for series in np.flatnonzero((best.score > watched.thresholds.drop) & ~watched.silent).tolist():
        newest, oldest = int(best.newest[series]), int(best.oldest[series])
        past = watched.costs[series, : today - newest + 1]
        if past[-1] == 0 and not longest_gap(past[-GAP_DAYS:]):
            continue
        while oldest + 1 < min(len(recent.off), 8) and recent.off[oldest + 1, series] < most:
            oldest += 1
        yield worthwhile(watched, series, "drop", newest, oldest, recent.excess[:, series], -float(best.score[series]))


GAP_DAYS: Final = 182


def longest_gap(costs: Floats) -> bool:
    """Whether the days without cost at the end outlast every gap before, for a series that has gaps by itself."""
    edges = np.diff(np.concatenate([[0], (costs == 0).astype(np.int64), [0]]))
    begins, ends = np.flatnonzero(edges == 1), np.flatnonzero(edges == -1)
    gaps = (ends - begins)[1 if len(begins) and begins[0] == 0 else 0 :]
    return len(gaps) < 3 or bool(gaps[-1] > 1.5 * gaps[:-1].max() + 1)


def _erratic(watched: Watched) -> Iterator[Suspect | None]:
    """Series that come and go, and monthly charges: only far above everything they ever cost in three months."""
    recent, baseline, limits = watched.recent, watched.baseline, watched.thresholds
    spread = np.maximum(baseline.spread, 0.35)
    usual = np.where(np.isfinite(baseline.level), np.exp(recent.level), baseline.peak)
    judged = recent.irregular & ~watched.silent & (baseline.peak > 0) & (baseline.history >= 3)
    for age in range(min(NEWEST_AGES, len(recent.cost))):
        cost = recent.cost[age]
        far = ~np.isfinite(baseline.level) | (recent.off[age] > limits.erratic_spreads * spread)
        high = judged & recent.known[age] & (cost > limits.erratic * baseline.peak) & far
        for series in np.flatnonzero(high).tolist():
            excess = np.zeros(len(recent.cost))
            excess[age] = cost[series] - usual[series]
            yield worthwhile(watched, series, "rise", age, age, excess, limits.erratic_spreads)


def _new_costs(watched: Watched) -> Iterator[Suspect | None]:
    """Something that cost nothing in the months before: all of it is excess."""
    recent = watched.recent
    today = watched.costs.shape[1] - 1
    for series in np.flatnonzero(recent.young & ~watched.ongoing).tolist():
        oldest = min(today - max(int(recent.first[series]), int(watched.told[series]) + 1), len(recent.cost) - 1)
        if oldest < 0:
            continue
        there = recent.known[: oldest + 1, series] & (recent.cost[: oldest + 1, series] > 0)
        newest = int(there.argmax()) if there.any() else oldest
        yield worthwhile(watched, series, "new_cost", newest, oldest, recent.cost[:, series], 9.0)


def worthwhile(
    watched: Watched, series: int, kind: Kind, newest: int, oldest: int, excess: Floats, score: float
) -> Suspect | None:
    """The suspect, or None when its dollars are not worth an alert. `excess` is [age]."""
    sign = -1 if kind == "drop" else 1
    known = watched.recent.known[newest : oldest + 1, series]
    dollars = np.where(known, excess[newest : oldest + 1], 0) * sign
    peak, total = dollars.max(), dollars.sum()
    needed = watched.materiality
    if peak < needed.daily or total < watched.thresholds.worth * needed.total:
        return None
    at = _day_to_name(dollars, peak, needed.daily, newest)
    cost = watched.recent.cost[newest + at, series]
    usual = max(cost - sign * dollars[at], 1e-6)
    size = total / len(dollars) if kind == "new_cost" else abs(float(np.log(max(0.02, cost / usual))))
    return Suspect(
        series, kind, sign, newest, oldest, newest + at, sign * float(dollars[at]), sign * float(dollars[at:].sum()), size, score
    )  # fmt: skip


def _day_to_name(dollars: Floats, peak: float, daily: float, newest: int) -> int:
    """The newest day with much of the excess; yesterday rather than today, of which less is known."""
    much = (dollars >= 0.5 * peak) & (dollars >= 0.6 * daily)
    at = int(much.argmax()) if much.any() else int(dollars.argmax())
    if newest + at == 0 and len(dollars) > 1 and dollars[1] >= 0.5 * peak:
        return 1
    return at


assert max(CREEP_DAYS) + LEAST_BEFORE <= RECENT
