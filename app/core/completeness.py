"""How complete the newest days are, learned from how earlier days filled up.

Of a day, a bill first shows an estimate and then restates it. What share has arrived depends on the service (stable),
and on the delivery as a whole (different every day): the second part is estimated on the day itself, from all series
together (app.core.residuals). Series whose first amount was the last one are complete on arrival and never scaled up.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from app.core.arrivals import AGES, Arrivals
from app.core.robust import Flags, Floats, Places, median_over, spread_of, spread_over

LEARNED_DAYS: Final = 35
SETTLED_AGE: Final = 3
LEAST_DAYS: Final = 5
LEAST_SEEN: Final = 3
SHARED_DAYS: Final = 10
SAME: Final = 0.02
"""A first amount this close to the last one (as a log) was complete on arrival."""
OUTAGE_AGES: Final = 10
"""An account that is silent for longer is gone, not late."""
OUTAGE_SHARE: Final = 0.15
OUTAGE_SERIES: Final = 2
STEADY: Final = 0.9


@dataclass(frozen=True)
class AgeCompleteness:
    """Of all series at one age. The log share that has arrived is `offset` + what the whole delivery lacks.

    `common` is what deliveries usually lack, `common_spread` how differently they do. `whole`: complete on arrival, or too rare to tell.
    `arrives`: usually there at that age at all.
    """

    offset: Floats
    spread: Floats
    whole: Flags
    arrives: Flags
    common: float
    common_spread: float


Completeness = tuple[AgeCompleteness, ...]


def learn(arrivals: Arrivals) -> Completeness:
    """One for each age, from the last weeks' days that have settled."""
    return tuple(_at_age(arrivals, age) for age in range(AGES))


def complete(series: int) -> AgeCompleteness:
    """What holds when nothing was ever late."""
    nothing = np.zeros(series)
    return AgeCompleteness(nothing, nothing, nothing > 0, nothing == 0, 0.0, 0.0)


def _at_age(arrivals: Arrivals, age: int) -> AgeCompleteness:
    settled = arrivals.days - max(SETTLED_AGE, age + 1)
    days = slice(max(0, settled - LEARNED_DAYS), max(settled, 0))
    final, first = arrivals.known[:, days], arrivals.at_age[age, :, days]
    seen = np.isfinite(first) & (final != 0)
    if final.shape[1] < LEAST_DAYS or not seen.any():
        return complete(len(final))
    there = seen & (first != 0)
    positive = there & (first > 0) & (final > 0)
    logs = np.log(np.where(positive, first, 1) / np.where(positive, final, 1))
    arrives = _arrival_rates(seen, there, arrivals.codes[1]) >= 0.5
    rare = (positive.sum(1) < LEAST_DAYS) & (arrivals.known[:, : days.start] != 0).any(1)
    return _shares(logs, positive, rare, arrives, arrivals.codes[1])


def _arrival_rates(seen: Flags, there: Flags, service: Places) -> Floats:
    number = seen.sum(1)
    own = np.where(number >= LEAST_SEEN, there.sum(1) / np.maximum(number, 1), np.nan)
    return _filled(own, service, 1.0)


def _shares(logs: Floats, positive: Flags, rare: Flags, arrives: Flags, service: Places) -> AgeCompleteness:
    """From log(first / final) [series, day] where both are positive. `rare` series are never scaled up."""
    number = positive.sum(1)
    whole = rare | ((number > 0) & ((positive & (np.abs(logs) < SAME)).sum(1) >= 0.8 * number))
    partial = positive & ~whole[:, None]
    by_day = median_over(logs.T, partial.T)
    usable = np.isfinite(by_day)
    common = float(np.median(by_day[usable])) if usable.any() else 0.0
    rest = logs - np.nan_to_num(by_day)
    days = partial.sum(1)
    offset = _filled(np.where(days >= LEAST_DAYS, median_over(rest, partial), np.nan), service, 0.0)
    off = rest - offset[:, None]
    variance = days * np.nan_to_num(spread_over(off, partial)) ** 2 + SHARED_DAYS * spread_of(off[partial]) ** 2
    return AgeCompleteness(
        offset=np.where(whole, 0, offset),
        spread=np.where(whole, 0, np.sqrt(variance / (days + SHARED_DAYS))),
        whole=whole,
        arrives=arrives,
        common=common,
        common_spread=spread_of(by_day[usable] - common),
    )


def _filled(own: Floats, service: Places, otherwise: float) -> Floats:
    """What a series can't say of itself is the median of its service."""
    found = own.copy()
    for code in np.unique(service[np.isnan(own)]).tolist():
        same = service == code
        told = own[same & np.isfinite(own)]
        found[same & np.isnan(own)] = np.median(told) if len(told) else otherwise
    return found


def outages(arrivals: Arrivals, completeness: Completeness) -> set[tuple[int, int]]:
    """(account code, day place) of the newest days on which nearly all steady series of an account are silent."""
    today = arrivals.days - 1
    if today < 2 * OUTAGE_AGES:
        return set()
    account = arrivals.codes[0]
    before = arrivals.known[:, max(0, today - 44) : today - OUTAGE_AGES + 1]
    steady = (before != 0).mean(1) >= STEADY
    found: set[tuple[int, int]] = set()
    for age in range(OUTAGE_AGES):
        expected = steady & completeness[age].arrives if age < AGES else steady
        there = expected & (arrivals.known[:, today - age] != 0)
        wanted, had = (np.bincount(account[flags], minlength=account.max() + 1) for flags in (expected, there))
        silent = (wanted >= OUTAGE_SERIES) & (had <= OUTAGE_SHARE * wanted)
        found |= {(code, today - age) for code in np.flatnonzero(silent).tolist()}
    return found
