"""What each series would cost without an incident: level × weekday, with how far it usually strays.

Logarithms of daily cost, because a cloud bill's ups and downs are proportional to its size. Everything is a median or
a clipped mean, so a few odd days move nothing. Arrays are [series] or [series, day].
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from app.core.arrivals import Flags, Floats

WINDOW: Final = 91
"""Days that are learned from: thirteen of each weekday."""
LEVEL_DAYS: Final = 21
FRESH: Final = 3
"""The newest days that the level leaves out: they are what is judged."""
SLOW_GAP: Final = 15
"""The slow level leaves out this many days, so that a leak can't teach it."""
SLOW_DAYS: Final = 28
WEEK: Final = 7
MAD: Final = 1.4826
"""Median absolute deviation → standard deviation of a normal distribution."""
LEAST_SPREAD: Final = 0.02


def median_over(values: Floats, counted: Flags) -> Floats:
    """Median along the last axis of the counted values; NaN where none is."""
    if values.shape[-1] == 0:
        return np.full(values.shape[:-1], np.nan)
    number = counted.sum(axis=-1)
    ordered = np.sort(np.where(counted, values, np.inf), axis=-1)
    low = np.maximum((number - 1) // 2, 0)[..., None]
    high = np.maximum(number // 2, 0)[..., None]
    high = np.minimum(high, values.shape[-1] - 1)
    middle = (np.take_along_axis(ordered, low, -1) + np.take_along_axis(ordered, high, -1))[..., 0] / 2
    return np.where(number > 0, middle, np.nan)


def spread_over(values: Floats, counted: Flags) -> Floats:
    """Robust standard deviation around 0 along the last axis; NaN where nothing counts."""
    return MAD * median_over(np.abs(values), counted)


@dataclass(frozen=True)
class Baseline:
    """`level` and `slow` are logs of daily cost (NaN: not known); `profile` is [series, weekday of the window's day % 7].

    `onrate` is the share of days with a cost; `spread` the robust standard deviation of a day's log residual.
    """

    level: Floats
    slow: Floats
    profile: Floats
    spread: Floats
    onrate: Floats
    onrate_weekday: Floats
    history: Floats
    peak: Floats
    drift: Floats

    def expected_log(self, day: int) -> Floats:
        return self.level + self.profile[:, day % WEEK]


def fit(costs: Floats, counted: Flags, started: Floats | np.ndarray, known: Flags) -> Baseline:
    """Learn from `costs` [series, day] where `counted`; the last day is today.

    `known` are days that had arrived; `started` is the first day (place) that counts for on-rate and history.
    """
    days = costs.shape[1]
    begin = max(0, days - WINDOW)
    cost, use = costs[:, begin:], counted[:, begin:]
    had = known[:, begin:]
    on = use & (cost > 0)
    logs = np.log(np.where(on, cost, 1.0))
    profile = _weekdays(logs, on, begin)
    weekday = (np.arange(begin, days)) % WEEK
    flat = logs - profile[:, weekday]
    level = _level(flat, on, LEVEL_DAYS, FRESH)
    slow = _level(flat, on, SLOW_DAYS, SLOW_GAP)
    spread = _spread(flat, on)
    onrate = _share(cost > 0, had & use, 42)
    by_weekday = np.stack(
        [_share((cost > 0)[:, weekday == w], (had & use)[:, weekday == w], 8) for w in range(WEEK)], 1
    )
    history = (on[:, : cost.shape[1] - FRESH] if cost.shape[1] > FRESH else on[:, :0]).sum(1).astype(float)
    settled = cost[:, :-FRESH] if cost.shape[1] > FRESH else cost[:, :0]
    peak = np.where(use[:, : settled.shape[1]], settled, 0).max(axis=1, initial=0)
    return Baseline(level, slow, profile, spread, onrate, by_weekday, history, peak, np.zeros(len(costs)))


def _share(on: Flags, counted: Flags, last: int) -> Floats:
    counted = counted & (counted[:, ::-1].cumsum(1)[:, ::-1] <= last)
    return (on & counted).sum(1) / np.maximum(counted.sum(1), 1)


def _weekdays(logs: Floats, on: Flags, begin: int) -> Floats:
    """Each weekday's usual distance from the week around it; a week without gaps is needed for a value."""
    series, days = logs.shape
    found = np.zeros((series, WEEK))
    if days < 2 * WEEK:
        return found
    sums = np.cumsum(np.pad(np.where(on, logs, 0), ((0, 0), (1, 0))), axis=1)
    have = np.cumsum(np.pad(on, ((0, 0), (1, 0))), axis=1)
    half = WEEK // 2
    mean = (sums[:, WEEK:] - sums[:, :-WEEK]) / WEEK
    whole = (have[:, WEEK:] - have[:, :-WEEK]) == WEEK
    off = logs[:, half:-half] - mean
    days_of = (np.arange(begin + half, begin + days - half)) % WEEK
    for weekday in range(WEEK):
        at = days_of == weekday
        number = whole[:, at].sum(1)
        value = median_over(off[:, at], whole[:, at])
        found[:, weekday] = np.where(number > 0, np.nan_to_num(value) * number / (number + 0.5), 0)
    return found - found.mean(axis=1, keepdims=True)


def _level(flat: Floats, on: Flags, last: int, gap: int) -> Floats:
    """Clipped mean of the last `last` counted days before the newest `gap`; NaN where there are fewer than four."""
    if flat.shape[1] <= gap:
        return np.full(len(flat), np.nan)
    values, use = flat[:, : flat.shape[1] - gap], on[:, : flat.shape[1] - gap]
    use = use & (use[:, ::-1].cumsum(1)[:, ::-1] <= last)
    middle = median_over(values, use)
    off = values - middle[:, None]
    wide = 2.5 * np.maximum(spread_over(off, use), LEAST_SPREAD)[:, None]
    number = use.sum(1)
    mean = np.where(use, np.clip(off, -wide, wide), 0).sum(1) / np.maximum(number, 1)
    return np.where(number >= 4, middle + mean, np.nan)


def _spread(flat: Floats, on: Flags) -> Floats:
    """Residuals against the mean of the days before, as a forecast would have left them."""
    series, days = flat.shape
    back = 14
    if days <= back + 1:
        return np.full(series, np.nan)
    sums = np.cumsum(np.pad(np.where(on, flat, 0), ((0, 0), (1, 0))), axis=1)
    have = np.cumsum(np.pad(on, ((0, 0), (1, 0))), axis=1)
    number = have[:, back:-1] - have[:, : -back - 1]
    mean = (sums[:, back:-1] - sums[:, : -back - 1]) / np.maximum(number, 1)
    off = flat[:, back:] - mean
    counted = on[:, back:] & (number >= 5)
    found = spread_over(off, counted)
    usual = np.nanmedian(found) if np.isfinite(found).any() else 0.1
    weight = counted.sum(1)
    mixed = np.sqrt((weight * np.nan_to_num(found) ** 2 + 8 * usual**2) / (weight + 8))
    return np.maximum(mixed, LEAST_SPREAD)
