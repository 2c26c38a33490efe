"""What each series costs when nothing happens: level × weekday, and how far it usually strays.

Logarithms of daily cost, because a bill's ups and downs are proportional to its size. Everything is a median or a
clipped mean, so that a few odd days move nothing. The spread is that of forecasts (each day against the days before
it), not of a fit's remainder, which understates it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from app.core.robust import Flags, Floats, Places, median_over, newest, spread_over, sums_up_to

WEEK: Final = 7
LEVEL: Final = (21, 3)
"""The level is the mean of so many days, leaving out the newest so many: those are what is judged."""
SLOW_LEVEL: Final = (28, 15)
"""The same for the level that a leak of two weeks can't have taught."""
LEAST_DAYS: Final = 4
FORECAST_DAYS: Final = 14
SPREAD_DAYS: Final = 42
SPREAD_GAP: Final = 7
"""The spread is that of so many forecasts, leaving out the newest so many: a launch's weeks are forgotten after it,
and a leak's first week does not widen what it is measured by."""
LEAST_SPREAD: Final = 0.02
USUAL_SPREAD: Final = 0.1
SHARED_DAYS: Final = 8
"""A series' own spread counts by its days; the spread that is usual among all series counts as this many."""
PRESENCE_DAYS: Final = 42
PRESENCE_WEEKS: Final = 8


@dataclass(frozen=True)
class Baseline:
    """`level` and `slow` are logs of daily cost, NaN while unknown; `profile` is [series, weekday]: logs to add.

    `presence` is the share of days with a cost, also [series, weekday] in `weekday_presence`; `history` counts the
    days with cost that were learned from; `peak` is the largest daily cost among them.
    """

    level: Floats
    slow: Floats
    profile: Floats
    spread: Floats
    presence: Floats
    weekday_presence: Floats
    history: Places
    peak: Floats


def fit(costs: Floats, weekdays: Places, counted: Flags) -> Baseline:
    """Learn from the days of `costs` [series, day] that are `counted`; the last day is today.

    `weekdays` [day] is a number from 0 to 6 that repeats weekly.
    """
    there = costs > 0
    on = counted & there
    logs = np.log(np.where(on, costs, 1.0))
    profile = _profile(logs, weekdays, on)
    flat = logs - profile[:, weekdays]
    settled = slice(None, max(costs.shape[1] - LEVEL[1], 0))
    return Baseline(
        level=_level(flat, on, *LEVEL),
        slow=_level(flat, on, *SLOW_LEVEL),
        profile=profile,
        spread=_spread(flat, on),
        presence=_presence(there, counted, PRESENCE_DAYS),
        weekday_presence=np.stack(
            [_presence(there[:, at], counted[:, at], PRESENCE_WEEKS) for at in _by_weekday(weekdays)], axis=1
        ),
        history=on[:, settled].sum(1),
        peak=np.where(counted[:, settled], costs[:, settled], 0).max(axis=1, initial=0),
    )


def _by_weekday(weekdays: Places) -> list[Flags]:
    return [weekdays == weekday for weekday in range(WEEK)]


def _presence(there: Flags, known: Flags, last: int) -> Floats:
    counted = newest(known, last)
    found: Floats = (there & counted).sum(1) / np.maximum(counted.sum(1), 1)
    return found


def _profile(logs: Floats, weekdays: Places, on: Flags) -> Floats:
    """Each weekday's usual distance from the week around it; only weeks without a gap tell."""
    found = np.zeros((len(logs), WEEK))
    if logs.shape[1] < 2 * WEEK:
        return found
    half = WEEK // 2
    sums, have = sums_up_to(np.where(on, logs, 0)), sums_up_to(on)
    whole = have[:, WEEK:] - have[:, :-WEEK] == WEEK
    off = logs[:, half:-half] - (sums[:, WEEK:] - sums[:, :-WEEK]) / WEEK
    for weekday, at in enumerate(_by_weekday(weekdays[half:-half])):
        number = whole[:, at].sum(1)
        found[:, weekday] = np.nan_to_num(median_over(off[:, at], whole[:, at])) * number / (number + 0.5)
    centred: Floats = found - found.mean(axis=1, keepdims=True)
    return centred


def _level(flat: Floats, on: Flags, last: int, gap: int) -> Floats:
    """Mean, clipped at 2.5 spreads from the median, of the newest counted days before the gap; NaN for too few."""
    values, use = flat[:, : max(flat.shape[1] - gap, 0)], on[:, : max(flat.shape[1] - gap, 0)]
    use = newest(use, last)
    middle = median_over(values, use)
    off = values - middle[:, None]
    wide = 2.5 * np.maximum(spread_over(off, use), LEAST_SPREAD)[:, None]
    number = use.sum(1)
    mean = np.where(use, np.clip(off, -wide, wide), 0).sum(1) / np.maximum(number, 1)
    return np.where(number >= LEAST_DAYS, middle + mean, np.nan)


def _spread(flat: Floats, on: Flags) -> Floats:
    """Robust spread of each day against the mean of the two weeks before it, drawn towards what is usual."""
    series, days = flat.shape
    if days <= FORECAST_DAYS + 1:
        return np.full(series, USUAL_SPREAD)
    sums, have = sums_up_to(np.where(on, flat, 0)), sums_up_to(on)
    number = have[:, FORECAST_DAYS:-1] - have[:, : -FORECAST_DAYS - 1]
    mean = (sums[:, FORECAST_DAYS:-1] - sums[:, : -FORECAST_DAYS - 1]) / np.maximum(number, 1)
    counted = on[:, FORECAST_DAYS:] & (number > LEAST_DAYS)
    if counted.shape[1] > SPREAD_DAYS + SPREAD_GAP:
        counted[:, -SPREAD_GAP:] = False
    counted = newest(counted, SPREAD_DAYS)
    own = spread_over(flat[:, FORECAST_DAYS:] - mean, counted)
    usual = float(np.nanmedian(own)) if np.isfinite(own).any() else USUAL_SPREAD
    days_of = counted.sum(1)
    variance = (days_of * np.nan_to_num(own) ** 2 + SHARED_DAYS * usual**2) / (days_of + SHARED_DAYS)
    found: Floats = np.maximum(np.sqrt(variance), LEAST_SPREAD)
    return found
