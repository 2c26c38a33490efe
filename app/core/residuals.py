"""The newest days against what was expected of them: completed, cleared of what all series share, in spreads.

A day's log residual is log(known) − what usually has arrived at its age − what the whole delivery lacks that day −
log(expected). The delivery's part is the weighted median over all regular series: it also takes in what moves the
whole organisation, such as a holiday. How far the series then still scatter widens every spread of that day.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import date, timedelta
from typing import Final

import numpy as np

from app.core.arrivals import AGES, Arrivals
from app.core.baseline import WEEK, Baseline
from app.core.completeness import AgeCompleteness, Completeness, complete
from app.core.robust import Flags, Floats, Places, spread_of, weighted_median

RECENT: Final = 28
"""Days that are judged anew every day; a leak is found within them."""
WINDOW: Final = 100
"""Days that the baseline sees: fourteen of each weekday."""
YOUNG_DAYS: Final = 28
"""A series without cost in the two months before is new for so long."""
FORGOTTEN_DAYS: Final = 91
LEAST_HISTORY: Final = 30
REGULAR: Final = 0.9
REGULAR_DAYS: Final = 12
LEAST_SHARED: Final = 8
LEAST_SCATTERED: Final = 20
NOTHING: Final = 0.02
"""Below this share of what was expected a day is as good as empty; its log residual stops here."""
ESTIMATED_AGES: Final = 2
"""Only these ages are scaled up to dollars of the complete day; later, what the delivery shares is a holiday's dip."""
SAME_DAYS: Final = 6
"""So many newest days are compared with the same day of earlier months."""


@dataclass(frozen=True)
class Recent:
    """Arrays [age, series]: row 0 is today. `cost` and `expected` are dollars of the complete day.

    `off` and `slow_off` are log residuals against the usual and the slow level, `spread` their standard deviation.
    `known` says what had arrived. [series]: `regular` costs every day, `young` is new, `first` the place of its first
    day, `irregular` comes and goes (also monthly charges).
    """

    cost: Floats
    expected: Floats
    off: Floats
    slow_off: Floats
    spread: Floats
    known: Flags
    regular: Flags
    young: Flags
    irregular: Flags
    first: Places
    level: Floats
    slow: Floats

    @property
    def excess(self) -> Floats:
        found: Floats = self.cost - self.expected
        return found


@dataclass(frozen=True)
class Kinds:
    """How each series behaves, [series]."""

    regular: Flags
    young: Flags
    irregular: Flags
    first: Places


def kinds_of(costs: Floats, baseline: Baseline) -> Kinds:
    """From all known costs [series, day] and what was learned from them."""
    days = costs.shape[1]
    there = costs > 0
    ever = there.any(1)
    lately, before = (
        there[:, max(0, days - YOUNG_DAYS) :],
        there[:, max(0, days - FORGOTTEN_DAYS) : max(0, days - YOUNG_DAYS)],
    )
    first = np.where(lately.any(1), max(0, days - YOUNG_DAYS) + lately.argmax(1), days)
    young = lately.any(1) & ~before.any(1) & (there.argmax(1) >= LEAST_HISTORY)
    regular = ~young & (baseline.presence >= REGULAR) & np.isfinite(baseline.level) & (baseline.history >= REGULAR_DAYS)
    return Kinds(regular, young, ever & ~young & ~regular, first)


def judge(arrivals: Arrivals, completeness: Completeness, baseline: Baseline, arrived: Flags, sharing: Flags) -> Recent:
    """The last RECENT days. `arrived` is [series, day] for the last WINDOW days at most; `sharing` series tell what all share."""
    costs = arrivals.known
    kinds = kinds_of(costs, baseline)
    level = np.where(np.isfinite(baseline.level), baseline.level, 0)
    slow = np.where(np.isfinite(baseline.slow), baseline.slow, level)
    part = completeness[0].whole
    rows = []
    for age in range(min(RECENT, arrivals.days)):
        place = arrivals.days - 1 - age
        state = completeness[age] if age < AGES else complete(len(costs))
        known = arrived[:, -1 - age]
        telling = kinds.regular & ~part & known & sharing
        rows.append(
            _day(costs[:, place], state, age, level + baseline.profile[:, place % WEEK], baseline.spread, part, telling)
        )
    cost, expected, off, spread = (np.stack(arrays) for arrays in zip(*rows, strict=True))
    found = Recent(
        cost, expected, off, off + level - slow, spread, arrived[:, ::-1].T[: len(rows)],
        kinds.regular, kinds.young, kinds.irregular, kinds.first, level, slow,
    )  # fmt: skip
    return _without_calendar(arrivals, baseline, arrived, found)


def _day(
    costs: Floats, state: AgeCompleteness, age: int, expected: Floats, spread: Floats, whole: Flags, telling: Flags
) -> tuple[Floats, Floats, Floats, Floats]:
    """(completed cost, expected cost, log residual, its spread) of one day."""
    logs = np.log(np.maximum(costs, 1e-9))
    spread = np.sqrt(spread**2 + state.spread**2)
    telling = telling & (costs > 0)
    bare = logs - state.offset - expected
    if telling.sum() >= LEAST_SHARED:
        shared = weighted_median(bare[telling], 1 / spread[telling])
    else:
        shared, spread = state.common, np.sqrt(spread**2 + state.common_spread**2)
    if telling.sum() >= LEAST_SCATTERED:
        spread = spread * max(1.0, spread_of(((bare - shared) / spread)[telling]))
    here = np.where(whole, 0, shared)
    off = np.maximum(bare - here, np.log(NOTHING))
    if age < ESTIMATED_AGES:
        return costs / np.exp(state.offset + here), np.exp(expected), off, spread
    return costs / np.exp(state.offset), np.exp(expected + here), off, spread


def same_days(day: date) -> list[date]:
    """The days of the three months before that hold the same place in their month, counted from its start or its end."""
    found: list[date] = []
    first = day.replace(day=1)
    left = (_next_month(day) - day).days
    for _ in range(3):
        end, first = first, (first - timedelta(1)).replace(day=1)
        length = (end - first).days
        if day.day <= min(length, 16):
            found.append(first + timedelta(day.day - 1))
        if left <= min(length, 10):
            found.append(end - timedelta(left))
    return found


def _next_month(day: date) -> date:
    return (day.replace(day=28) + timedelta(4)).replace(day=1)


def _without_calendar(arrivals: Arrivals, baseline: Baseline, arrived: Flags, recent: Recent) -> Recent:
    """Residuals less what was there on the same day of an earlier month, which is expected then: a month's end is no
    anomaly the second time, and what was billed stays what was billed."""
    begin = arrivals.days - arrived.shape[1]
    weekdays = np.arange(begin, arrivals.days) % WEEK
    flat = np.log(np.maximum(arrivals.known[:, begin:], 1e-9)) - baseline.profile[:, weekdays]
    off, slow_off, expected = recent.off.copy(), recent.slow_off.copy(), recent.expected.copy()
    for age in range(min(SAME_DAYS, len(off))):
        day = arrivals.day_at(arrivals.days - 1 - age)
        before = [arrivals.place_of(other) - begin for other in same_days(day)]
        effects = [_effect(flat, arrived, place) for place in before if place >= 0]
        cut = _explained(off[age], [effect for effect in effects if effect is not None], baseline.spread)
        off[age] -= cut
        slow_off[age] -= cut
        expected[age] *= np.where(recent.regular & (recent.cost[age] > 0), np.exp(cut), 1)
    return replace(recent, off=off, slow_off=slow_off, expected=expected)


def _effect(flat: Floats, arrived: Flags, place: int) -> Floats | None:
    """How far a day stood out from the week before and after it, as a log."""
    around = [
        other for other in range(place - 7, place + 8) if abs(other - place) > 2 and 0 <= other < flat.shape[1] - 3
    ]
    if len(around) < 5:
        return None
    stood_out = flat[:, place] - np.median(flat[:, around], axis=1)
    return np.where(arrived[:, place], np.clip(stood_out, -1, 1.5), 0)


def _explained(off: Floats, effects: Sequence[Floats], spread: Floats) -> Floats:
    """The part of each residual that the best fitting of the earlier effects explains."""
    best = np.zeros(len(off))
    for effect in effects:
        best = np.where(np.abs(off - effect) < np.abs(off - best), effect, best)
    same_way = (np.sign(best) == np.sign(off)) & (np.abs(best) > 1.5 * spread)
    return np.where(same_way, np.sign(best) * np.minimum(np.abs(best), np.abs(off)), 0)
