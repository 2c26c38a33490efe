"""Anomalies in one series by the hour: cost by the hour, or any other figure, judged online with a week's memory.

Each hour is seen four ways (Watch): its mean, its highest and its lowest value, and every sixth hour the mean of the six.
A watch forecasts the next value by whichever of six simple forecasts has lately erred least (levels that follow fast or
slowly, each with and without a profile over the day), and measures how far it usually errs from its own past errors. What
is much further off than that, and is no repetition, begins an incident; an incident is one alert, however many watches
see it. Nothing depends on a later hour, and multiplying the series changes nothing.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Final, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from app.core.robust import MAD, Floats

Hours = NDArray[np.int64]
View = Literal["mean", "highest", "lowest", "six_hours"]
Kind = Literal["rise", "drop"]

DAY: Final = 24
BLOCK: Final = 6
FOLLOWS: Final = np.array([0.1, 0.3, 0.8] * 2)
"""How much of an error each forecast's level takes over; the last three also have a profile over the day."""
PLAIN: Final = len(FOLLOWS) // 2
PROFILE_FOLLOWS: Final = 0.35
FIRST_PROFILE: Final = 0.05
"""What a level with a profile follows on the first day, when it cannot know the profile yet."""
PROFILE_GAIN: Final = 0.9
"""A profile must err by a tenth less than the best without one."""
FORGETS: Final = 0.98
"""What an error of the hour before counts in the choice of a forecast: the last two days decide."""


@dataclass(frozen=True)
class HourlyThresholds:
    """The numbers that decide, the same for every series.

    `spreads`: so many spreads off is an anomaly. The spread is the largest of: the robust spread of the memory's errors;
    `heavy` × their root mean square, which bursts widen; `least` × the usual value; and what the second largest error,
    and `again` × the second largest incident, come to in spreads: the third burst of a kind is no news.
    """

    spreads: float = 5.0
    heavy: float = 0.8
    least: float = 0.02
    again: float = 1.2


@dataclass(frozen=True)
class Pace:
    """Lengths in steps of a watch: hours, or six of them.

    `memory`: what it measures errors by. `learning`: the first steps, which are not judged. `quiet`: so long without
    excess ends an incident. `adopted`: what has lasted so long is the new level. `former`: going back to the level before
    an incident is no event for so long. `season`: steps of a day.
    """

    memory: int = 7 * DAY
    learning: int = 12
    quiet: int = 6
    adopted: int = 6
    former: int = 2 * DAY
    season: int = DAY


BY_HOUR: Final = Pace()
BY_BLOCK: Final = Pace(learning=8, quiet=2, adopted=2, former=2 * DAY // BLOCK, season=DAY // BLOCK)
CLIPPED: Final = 3.0
"""A level learns from an error of at most so many spreads."""
GOES_ON: Final = 0.5
"""An incident goes on while the error is above this share of what began it."""


class Hour(NamedTuple):
    """One hour of a series: hours since 1970-01-01T00Z, and the mean, highest and lowest of its values."""

    at: int
    mean: float
    highest: float
    lowest: float


class Stood(NamedTuple):
    """How a value that began an incident stood: the band is `spreads` spreads around what was expected."""

    actual: float
    expected: float
    low: float
    high: float
    score: float
    """How far off, in spreads; infinite after a memory of nothing but zeros."""


class HourlyAlert(NamedTuple):
    """One incident, at the hour that began it. `at` as in Hour; `six_hours` is about the six hours that end with it."""

    at: int
    kind: Kind
    view: View
    stood: Stood


def fold(seconds: Hours, values: Floats) -> list[Hour]:
    """The hours of a series from points in any order: `seconds` since 1970 (UTC) and `values`, both [point]."""
    if not len(values):
        return []
    order = np.lexsort((values, seconds))
    hours, begins = np.unique(seconds[order] // 3600, return_index=True)
    values = values[order]
    means = np.add.reduceat(values, begins) / np.diff(np.append(begins, len(values)))
    return [
        Hour(*found)
        for found in zip(
            hours.tolist(),
            means.tolist(),
            np.maximum.reduceat(values, begins).tolist(),
            np.minimum.reduceat(values, begins).tolist(),
            strict=True,
        )
    ]


@dataclass
class Forecasts:
    """Six forecasts of the next value. `levels` [6]; `profile` [3, step of the day]; `costs` [6]: discounted errors."""

    season: int
    levels: Floats
    profile: Floats = field(init=False)
    seen: NDArray[np.bool_] = field(init=False)
    costs: Floats = field(default_factory=lambda: np.zeros(len(FOLLOWS)))
    steps: int = 0

    def __post_init__(self) -> None:
        self.profile = np.zeros((PLAIN, self.season))
        self.seen = np.zeros(self.season, np.bool_)

    def all(self, step: int) -> Floats:
        found = self.levels.copy()
        found[PLAIN:] += self.profile[:, step]
        return found

    def best(self, step: int) -> float:
        """That of the forecast which lately erred least; a profile counts after a day, where it helps clearly."""
        costs = self.costs.copy()
        costs[PLAIN:] /= PROFILE_GAIN
        if not self.seen[step] or self.steps < self.season:
            costs[PLAIN:] = np.inf
        return float(self.all(step)[costs.argmin()])

    def learn(self, value: float, step: int, clip: float) -> None:
        errors = value - self.all(step)
        clipped = np.clip(errors, -clip, clip)
        self.costs = FORGETS * self.costs + np.minimum(np.abs(errors), 2 * clip)
        if self.seen[step]:
            self.levels = self.levels + FOLLOWS * clipped
            self.profile[:, step] += PROFILE_FOLLOWS * (1 - FOLLOWS[PLAIN:]) * clipped[PLAIN:]
        else:
            self.profile[:, step] = value - self.levels[PLAIN:]
            self.levels[:PLAIN] += FOLLOWS[:PLAIN] * clipped[:PLAIN]
            self.levels[PLAIN:] += FIRST_PROFILE * np.clip(value - self.levels[PLAIN:], -clip, clip)
            self.seen[step] = True
        self.steps += 1

    def adopt(self, level: float) -> None:
        self.levels[:] = level


@dataclass
class Watch:
    """One way of looking at a series. Feed it values in order; what begins an incident is returned."""

    pace: Pace
    limits: HourlyThresholds
    values: deque[float] = field(init=False)
    errors: deque[float] = field(init=False)
    peaks: list[tuple[int, float]] = field(default_factory=list)
    """(last step, largest error) of what was far off within the memory, alerted or not."""
    forecasts: Forecasts | None = None
    steps: int = 0
    open: bool = False
    began: int = 0
    last: int = 0
    former: float = math.inf
    """The level before the newest incident."""

    def __post_init__(self) -> None:
        self.values, self.errors = deque(maxlen=self.pace.memory), deque(maxlen=self.pace.memory)

    def see(self, value: float, step: int) -> Stood | None:
        """Judge a value by those before it, then learn from it. `step` is its place in the day."""
        self.values.append(value)
        self.steps += 1
        if self.forecasts is None:
            self.forecasts = Forecasts(self.pace.season, np.full(len(FOLLOWS), value))
            self.errors.append(0.0)
            return None
        expected = self.forecasts.best(step)
        error = value - expected
        learning = self.steps <= self.pace.learning
        spread = self._spread(error)
        off, centre = self._off(value, expected)
        limit = self.limits.spreads * spread
        found = None
        if abs(off) > limit and not self.open and not learning:
            score = abs(off) / spread if spread else np.inf
            found = Stood(value, centre, centre - limit, centre + limit, float(score))
            self.open, self.began, self.former = True, self.steps, expected
        self._carry_on(abs(off) > GOES_ON * limit)
        self.errors.append(error if learning else float(np.clip(error, -limit, limit)))
        self.forecasts.learn(value, step, np.inf if learning else CLIPPED * spread)
        if self.open and self.steps - self.began >= self.pace.adopted and abs(error) > GOES_ON * limit:
            self.forecasts.adopt(float(np.median(list(self.values)[-self.pace.adopted :])))
        return found

    def _spread(self, error: float) -> float:
        """What errors usually come to; notes whether this one is far off by what is usual alone."""
        limits = self.limits
        sizes = np.sort(np.abs(self.errors))
        usual = max(
            MAD * float(np.median(sizes)),
            limits.heavy * float(np.sqrt(np.mean(sizes**2))),
            limits.least * float(np.median(np.abs(self.values))),
        )
        second = float(sizes[-2]) if len(sizes) > 1 else 0.0
        self.peaks = [peak for peak in self.peaks if self.steps - peak[0] < self.pace.memory]
        before = sorted(size for _, size in self.peaks)
        if len(before) > 1:
            second = max(second, limits.again * before[-2])
        spread = max(usual, second / limits.spreads)
        if abs(error) > limits.spreads * usual:
            self._note(abs(error))
        return spread

    def _note(self, size: float) -> None:
        if self.peaks and self.steps - self.peaks[-1][0] < self.pace.quiet:
            size = max(size, self.peaks.pop()[1])
        self.peaks.append((self.steps, size))

    def _off(self, value: float, expected: float) -> tuple[float, float]:
        """(error, what it is measured from): going back to the level before an incident is none."""
        recent = self.steps - self.last < self.pace.former
        if recent and abs(value - self.former) < abs(value - expected):
            return value - self.former, self.former
        return value - expected, expected

    def _carry_on(self, far: bool) -> None:
        if not self.open:
            return
        if far:
            self.last = self.steps
        elif self.steps - self.last >= self.pace.quiet:
            self.open = False


class HourlyDetector:
    """Feed it the hours of one series in order; each returns the alert that it raises, if any.

    Hours that are missing are not judged and teach nothing.
    """

    def __init__(self, thresholds: HourlyThresholds | None = None) -> None:
        limits = thresholds or HourlyThresholds()
        self._watches: dict[View, Watch] = {
            "mean": Watch(BY_HOUR, limits),
            "highest": Watch(BY_HOUR, limits),
            "lowest": Watch(BY_HOUR, limits),
            "six_hours": Watch(BY_BLOCK, limits),
        }
        self._block: list[Hour] = []

    def deliver(self, hour: Hour) -> HourlyAlert | None:
        """Judge an hour, which must be later than all before it."""
        known = any(watch.open for watch in self._watches.values())
        found: list[tuple[View, Stood]] = []
        for view, value, step in self._seen(hour):
            stood = self._watches[view].see(value, step)
            if stood is not None:
                found.append((view, stood))
        if known or not found:
            return None
        view, stood = max(found, key=lambda each: each[1].score)
        return HourlyAlert(hour.at, "rise" if stood.actual > stood.expected else "drop", view, stood)

    def _seen(self, hour: Hour) -> Iterator[tuple[View, float, int]]:
        step = hour.at % DAY
        yield "mean", hour.mean, step
        yield "highest", hour.highest, step
        yield "lowest", hour.lowest, step
        self._block = [*(other for other in self._block if other.at // BLOCK == hour.at // BLOCK), hour]
        if len(self._block) == BLOCK:
            yield "six_hours", sum(each.mean for each in self._block) / BLOCK, step // BLOCK


def alerts_of(hours: Iterable[Hour], thresholds: HourlyThresholds | None = None) -> list[HourlyAlert]:
    """Every alert of a series from its beginning."""
    detector = HourlyDetector(thresholds)
    found = (detector.deliver(hour) for hour in hours)
    return [alert for alert in found if alert is not None]
