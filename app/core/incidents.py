"""What goes on in each series: since when, whether the new level has become the usual one, when it is over.

While an incident is open its days teach the baseline nothing. After ADOPTED_AFTER days a lasting one becomes the new
level, the former one is remembered, and going back to it is no event. An incident is alerted once.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from app.core.baseline import Baseline
from app.core.residuals import NOTHING, Recent
from app.core.robust import Flags, Floats, Places, mean_where
from app.core.suspects import Suspect

ADOPTED_AFTER: Final = 21
ADOPTED_SHARE: Final = 0.6
"""At least this share of the days so far must have been part of it."""
STILL_ON: Final = 2
"""Only an incident that was on so few days ago is adopted: one that just ended is no new level."""
SAME_LEVEL: Final = 0.05
"""An adopted level this close to the former one (as a log) is the former one."""
QUIET_DAYS: Final = 9
"""So many days without excess end it: longer than a week, for what happens on weekends."""
FORGOTTEN_AFTER: Final = 75
ACTIVE_SPREADS: Final = 2.0
ACTIVE_SHARE: Final = 0.45
NEW_ACTIVE_SHARE: Final = 0.2
REVIEWED_AGES: Final = 4
CALM: Final = slice(3, 13)
"""The ages over which an adopted level must hold before something else on it can be told."""
UNKNOWN_LEVEL: Final = -9.0
BY_SERIES: Final = ("open", "adopted", "fresh", "sign", "start", "last", "regime", "size", "former")
"""The arrays that have one value a series."""


class Incidents:
    """Arrays [series]; places are days. `flagged` is [series, day]: days that are part of an incident."""

    def __init__(self) -> None:
        self.open: Flags = np.zeros(0, np.bool_)
        self.adopted: Flags = np.zeros(0, np.bool_)
        self.fresh: Flags = np.zeros(0, np.bool_)
        self.sign: Places = np.zeros(0, np.int64)
        self.start: Places = np.zeros(0, np.int64)
        self.last: Places = np.zeros(0, np.int64)
        self.regime: Places = np.zeros(0, np.int64)
        """The first day that the baseline may learn from."""
        self.size: Floats = np.zeros(0)
        self.former: Floats = np.zeros(0)
        """The level before an adopted one, as a log."""
        self.flagged: Flags = np.zeros((0, 0), np.bool_)

    def make_room(self, series: int, days: int) -> None:
        more = series - len(self.open)
        for name in BY_SERIES:
            array = getattr(self, name)
            filled = np.full(more, -1 if name == "last" else 0, array.dtype)
            setattr(self, name, np.concatenate([array, filled]))
        self.flagged = np.pad(self.flagged, ((0, more), (0, days - self.flagged.shape[1])))

    def remembered(self, recent: Recent) -> tuple[Floats, Floats]:
        """Residuals (usual and slow) against the former level instead, where that is nearer."""
        off, slow = recent.off, recent.slow_off
        if not self.adopted.any():
            return off, slow
        return (
            _nearer(off, off + recent.level - self.former, self.adopted),
            _nearer(slow, slow + recent.slow - self.former, self.adopted),
        )

    def silent(self, recent: Recent, baseline: Baseline) -> Flags:
        """Series in which nothing else can be told: an incident is on that has not settled into a new level."""
        drifted = np.abs(mean_where(recent.off[CALM], recent.known[CALM]))
        calm = drifted < np.maximum(0.08, 0.6 * baseline.spread)
        return self.open & ~(self.adopted & calm)

    def begin(self, suspect: Suspect, series: int, today: int, size: float) -> None:
        self.open[series], self.adopted[series] = True, False
        self.fresh[series] = suspect.kind == "new_cost"
        self.sign[series], self.size[series] = suspect.sign, size
        self.start[series], self.last[series] = today - suspect.oldest, today - suspect.newest
        self.flagged[series, today - suspect.oldest : today - suspect.newest + 1] = True

    def review(self, recent: Recent, baseline: Baseline, today: int) -> None:
        """Carry every open incident on, adopt or close it."""
        for series in np.flatnonzero(self.open).tolist():
            for age in range(min(REVIEWED_AGES, len(recent.off)) - 1, -1, -1):
                if recent.known[age, series] and today - age >= self.start[series]:
                    self._review_day(recent, baseline, series, age, today - age)
            self._settle(baseline, series, today)

    def _review_day(self, recent: Recent, baseline: Baseline, series: int, age: int, day: int) -> None:
        cost = float(recent.cost[age, series])
        if age == 0 and self.sign[series] < 0 and cost <= 0:
            return
        active = self._active(recent, baseline, series, age, cost)
        if active:
            self.last[series] = max(self.last[series], day)
        self.flagged[series, day] = active and not self.adopted[series]

    def _active(self, recent: Recent, baseline: Baseline, series: int, age: int, cost: float) -> bool:
        size, spread = float(self.size[series]), float(baseline.spread[series])
        if self.fresh[series]:
            return cost > NEW_ACTIVE_SHARE * size
        expected = float(recent.expected[age, series])
        if not self.adopted[series]:
            off = self.sign[series] * _log_ratio(cost, expected)
            active = bool(off > max(ACTIVE_SPREADS * spread, ACTIVE_SHARE * size))
            if active and age == 2:
                self.size[series] = max(size, 0.8 * size + 0.2 * off)
            return active
        moved = float(self.former[series] - recent.level[series])
        off = _log_ratio(cost, expected * float(np.exp(moved)))
        beyond = self.sign[series] * off > 2.5 * spread + 0.4 * abs(moved)
        return bool(abs(off) > abs(_log_ratio(cost, expected)) or beyond)

    def _settle(self, baseline: Baseline, series: int, today: int) -> None:
        start, last = int(self.start[series]), int(self.last[series])
        if today - last > QUIET_DAYS or self._same_again(baseline, series):
            self._back(series, start, last)
        elif not self.adopted[series] and self._lasts(series, start, last, today):
            self._adopt(baseline, series, start)
        if self.adopted[series] and today - start > FORGOTTEN_AFTER:
            self.open[series] = self.adopted[series] = False

    def _same_again(self, baseline: Baseline, series: int) -> bool:
        moved = abs(float(baseline.level[series] - self.former[series]))
        return bool(self.adopted[series]) and moved < SAME_LEVEL

    def _lasts(self, series: int, start: int, last: int, today: int) -> bool:
        old = today - start >= ADOPTED_AFTER and last >= today - STILL_ON
        return old and bool(self.flagged[series, start : today - 1].mean() > ADOPTED_SHARE)

    def _back(self, series: int, start: int, last: int) -> None:
        if self.adopted[series]:
            self.flagged[series, start : last + 1] = True
            self.regime[series] = 0
        self.open[series] = self.adopted[series] = False

    def _adopt(self, baseline: Baseline, series: int, start: int) -> None:
        level = baseline.level[series]
        known = np.isfinite(level) and not self.fresh[series]
        self.adopted[series] = True
        self.fresh[series] = False
        self.former[series] = level if known else UNKNOWN_LEVEL
        self.flagged[series, start:] = False
        self.regime[series] = start


def _nearer(off: Floats, other: Floats, where: Flags) -> Floats:
    return np.where(where & (np.abs(other) < np.abs(off)), other, off)


def _log_ratio(cost: float, expected: float) -> float:
    return float(np.log(max(cost, NOTHING * expected) / max(expected, 1e-12)))
