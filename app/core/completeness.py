"""How complete the newest days are, learned from how earlier days filled up.

Of a day, a bill first shows an estimate and then restates it. What share has arrived depends on the service (stable),
and on the delivery as a whole (changes daily); the second part is estimated on the day itself from all series together.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from app.core.arrivals import AGES, Arrivals, Flags, Floats
from app.core.baseline import median_over, spread_over

LEARNED_DAYS: Final = 35
SETTLED_AGE: Final = 3
SAME: Final = 0.02
"""A first amount this close to the last one (as a log) was complete on arrival."""


@dataclass(frozen=True)
class Completeness:
    """All [age, series] or [age]. `offset` is the series' log share beyond what the whole delivery lacks (`common`).

    `whole` marks series that are complete on arrival; `arrives` those that usually have arrived at that age.
    """

    offset: Floats
    spread: Floats
    common: Floats
    common_spread: Floats
    whole: Flags
    arrives: Flags


def learn(arrivals: Arrivals) -> Completeness:
    """From the last weeks' days that have settled."""
    series = len(arrivals.keys)
    offset, spread = np.zeros((AGES, series)), np.full((AGES, series), 0.0)
    common, common_spread = np.zeros(AGES), np.zeros(AGES)
    whole, arrives = np.zeros((AGES, series), bool), np.ones((AGES, series), bool)
    for age in range(AGES):
        settled = arrivals.days - max(SETTLED_AGE, age + 1)
        begin = max(0, settled - LEARNED_DAYS)
        final = arrivals.known[:, begin:settled]
        first = arrivals.at_age[age, :, begin:settled]
        if settled - begin < 5 or np.isnan(first).all():
            continue
        seen = np.isfinite(first) & (np.abs(final) > 0)
        there = seen & (first != 0)
        counted = there & (first > 0) & (final > 0)
        logs = np.log(np.where(counted, first, 1) / np.where(counted, final, 1))
        exact = counted & (np.abs(logs) < SAME)
        n_counted = counted.sum(1)
        whole[age] = (n_counted > 0) & (exact.sum(1) >= 0.8 * n_counted)
        partial = counted & ~whole[age][:, None]
        day_common = median_over(logs.T, partial.T)
        fine = np.isfinite(day_common)
        if fine.any():
            common[age] = np.median(day_common[fine])
            common_spread[age] = spread_over((day_common - common[age])[None], fine[None])[0]
        rest = logs - np.nan_to_num(day_common)[None]
        use = partial & fine[None]
        own = np.where(use.sum(1) >= 5, median_over(rest, use), np.nan)
        offset[age] = _filled(own, arrivals.codes[1])
        off = rest - offset[age][:, None]
        mine = spread_over(off, use)
        pooled = spread_over(off[use][None], np.ones((1, int(use.sum())), bool))[0] if use.any() else 0.0
        number = use.sum(1)
        spread[age] = np.sqrt((number * np.nan_to_num(mine) ** 2 + 10 * np.nan_to_num(pooled) ** 2) / (number + 10))
        offset[age][whole[age]] = 0
        spread[age][whole[age]] = 0
        rate = there.sum(1) / np.maximum(seen.sum(1), 1)
        rate = np.where(seen.sum(1) >= 3, rate, np.nan)
        arrives[age] = _filled(rate, arrivals.codes[1], missing=1.0) >= 0.5
    return Completeness(offset, spread, common, common_spread, whole, arrives)


def _filled(own: Floats, service: np.ndarray, missing: float = 0.0) -> Floats:
    """NaN takes the median of the service, else `missing`."""
    if not np.isnan(own).any():
        return own
    found = own.copy()
    for code in np.unique(service[np.isnan(own)]):
        same = own[(service == code) & np.isfinite(own)]
        found[np.isnan(own) & (service == code)] = np.median(same) if len(same) else missing
    return found
