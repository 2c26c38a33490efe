"""How a period's spend will end: the rhythm of weekdays and of days of the month goes on at the newest level.

Expected days are the median level of the last two weeks, times what each weekday is of it over eight weeks, plus what
comes on the same day of every month (support, licences, a reservation). How wrong that is, is measured on the same
history: the same projection from earlier days, held against what came. The band is the middle 80 % of those errors.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date
from decimal import Decimal
from typing import Final

import numpy as np
from numpy.typing import NDArray

from app.core.periods import DAY, DateRange
from app.core.spend import Floats, Spend

WEEKS: Final = 8
LEVEL_DAYS: Final = 14
LEAST_DAYS: Final = 42
"""Complete days without which nothing is projected: six of each weekday."""
FIRST_ORIGIN: Final = 28
ORIGINS: Final = 26
LEAST_ERRORS: Final = 8
"""Earlier projections of a length without which its errors are taken from a shorter one, growing with its root."""
BAND: Final = (0.10, 0.90)
MONTHLY_LEAST: Final = 0.25
"""What comes on the same day of each month is at least so much of a day's level …"""
MONTHLY_SEEN: Final = 2
"""… and was seen so often in a row."""
MONTHLY_MONTHS: Final = 4
MONTHLY_DAYS: Final = 31 * MONTHLY_MONTHS + 7
CENT: Final = Decimal("0.01")

Whole = NDArray[np.int64]


@dataclass(frozen=True)
class Breach:
    """The day on which a sum passes an amount: as expected, and on the high and the low edge of the band; None: not
    in the period. `is_past`: it has happened."""

    day: date | None
    earliest: date | None
    latest: date | None
    is_past: bool = False


@dataclass(frozen=True)
class Projection:
    """Running sums at the end of each day of `days`; before `first` they are what was spent, and equal in all three."""

    days: DateRange
    first: date
    middle: Floats
    low: Floats
    high: Floats

    @property
    def total(self) -> Decimal:
        return dollars(self.middle[-1])

    @property
    def band(self) -> tuple[Decimal, Decimal]:
        return dollars(self.low[-1]), dollars(self.high[-1])

    def breach(self, amount: Decimal) -> Breach:
        """When more than `amount` is spent."""
        day, earliest, latest = (self._passes(sums, float(amount)) for sums in (self.middle, self.high, self.low))
        if day is not None and day < self.first:
            return Breach(day, day, day, is_past=True)
        return Breach(day, earliest, latest)

    def _passes(self, sums: Floats, amount: float) -> date | None:
        beyond = np.flatnonzero(sums > amount)
        return self.days.start + int(beyond[0]) * DAY if len(beyond) else None


@dataclass(frozen=True)
class NotProjected:
    """Why there is no projection."""

    reason: str


def project(spend: Spend, days: DateRange, *, banded: bool = True) -> Projection | NotProjected:
    """How the running sum of a period goes on from its first day that is not complete.

    Not `banded`: without measuring how wrong it is, for those who only want the middle.

    Days that settle, or that lack some of the scope, count what they have and at least what is expected of them.
    """
    learned = _learned(spend, days)
    if learned is None:
        there = int((~np.isnan(spend.floats)).sum())
        return NotProjected(
            f"A projection takes {LEAST_DAYS} complete days up to now; there are {there}."
            if there < LEAST_DAYS
            else "The newest complete day is too long ago for a projection."
        )
    past, origin = learned
    first = min(max(origin, days.start), days.end)
    reported = [float(spend.amount(day) or 0) for day in days]
    done = (first - days.start).days
    ahead = len(days) - done
    # Expected days begin where the history ends, which may be before the period does.
    skipped = (first - origin).days if first > origin else 0
    expected = _expected(past, origin, skipped + ahead)[skipped:]
    future = np.maximum(expected, np.array(reported[done:]) if ahead else expected)
    known = np.array(reported[:done])
    middle = np.cumsum(np.concatenate([known, future]))
    if not ahead or not banded:
        return Projection(days, first, middle, middle, middle)
    low, high = _band(past, origin, skipped + ahead)
    sums, spent = np.cumsum(future), float(known.sum())
    below = np.maximum.accumulate(np.abs(sums * low[skipped:]))
    above = np.maximum.accumulate(np.abs(sums * high[skipped:]))
    floor = spent + np.cumsum(reported[done:])
    beneath = np.maximum(middle[done:] - below, floor)
    return Projection(
        days,
        first,
        middle,
        np.concatenate([middle[:done], np.maximum.accumulate(beneath)]),
        np.concatenate([middle[:done], middle[done:] + above]),
    )


STALE_DAYS: Final = 14
"""A history whose last complete day is older says nothing of what is to come."""


def _learned(spend: Spend, days: DateRange) -> tuple[Floats, date] | None:
    """Days up to the last complete one, holes filled with the same weekday around them, and the day after it."""
    values = spend.floats
    known = np.flatnonzero(~np.isnan(values))
    if len(known) < LEAST_DAYS:
        return None
    first, last = int(known[0]), int(known[-1])
    origin = spend.start + (last + 1) * DAY
    newest = min(spend.end, days.end)
    if (newest - origin).days > STALE_DAYS and origin < days.end:
        return None
    return _filled(values[first : last + 1]), origin


def _filled(values: Floats) -> Floats:
    """Holes become the mean of the nearest known days of the same weekday."""
    found = values.copy()
    for weekday in range(7):
        mine = found[weekday::7]
        known = ~np.isnan(mine)
        if known.any() and not known.all():
            places = np.arange(len(mine))
            mine[~known] = np.interp(places[~known], places[known], mine[known])
    return np.nan_to_num(found)


def _expected(past: Floats, origin: date, number: int) -> Floats:
    """The `number` days from `origin` on, given the days up to it."""
    if number <= 0:
        return np.zeros(0)
    monthly = _monthly(past, origin)
    recent = past[-7 * WEEKS :]
    began = origin - len(recent) * DAY
    plain = recent - monthly[_days_of_month(began, len(recent)) - 1]
    profile = _profile(plain)
    places = np.arange(len(plain))
    level = np.median((plain / profile[places % 7])[-LEVEL_DAYS:])
    ahead = np.arange(len(plain), len(plain) + number)
    return np.asarray(level * profile[ahead % 7] + monthly[_days_of_month(origin, number) - 1], np.float64)


def _profile(plain: Floats) -> Floats:
    """What each weekday (counted from the first day) is of the middle of all; 1 where that means nothing."""
    middle = float(np.median(plain))
    if middle <= 0:
        return np.ones(7)
    found = np.array([np.median(plain[weekday::7]) for weekday in range(7)]) / middle
    return np.clip(found, 0.05, 20.0)


def _monthly(past: Floats, origin: date) -> Floats:
    """[31]: what comes on each day of the month beside the days around it, month after month; else 0."""
    past = past[-MONTHLY_DAYS:]
    days = _days_of_month(origin - len(past) * DAY, len(past))
    padded = np.pad(past, 3, mode="edge")
    around = np.median(np.lib.stride_tricks.sliding_window_view(padded, 7), axis=1)
    level = max(float(np.median(past[-7 * WEEKS :])), 0.0)
    beside = past - around
    large = beside > MONTHLY_LEAST * level
    found = np.zeros(31)
    for day in np.unique(days[large]):
        mine = days == day
        if mine.sum() >= MONTHLY_SEEN and large[mine][-MONTHLY_MONTHS:].all():
            found[day - 1] = float(np.median(beside[mine][-MONTHLY_MONTHS:]))
    return found


def _days_of_month(start: date, number: int) -> Whole:
    days = np.datetime64(start, "D") + np.arange(number)
    return np.asarray((days - days.astype("datetime64[M]")).astype(np.int64) + 1)


def _band(past: Floats, origin: date, number: int) -> tuple[Floats, Floats]:
    """Lower (≤ 0) and upper (≥ 0) edge of the relative error of the running sum after 1 … `number` days."""
    errors = _errors(past, origin, number)
    low, high = np.zeros(number), np.zeros(number)
    longest = 0
    for place in range(number):
        seen = errors[:, place][~np.isnan(errors[:, place])]
        if len(seen) >= LEAST_ERRORS:
            low[place], high[place] = np.quantile(seen, BAND)
            longest = place + 1
        elif longest:
            wider = np.sqrt((place + 1) / longest)
            low[place], high[place] = low[longest - 1] * wider, high[longest - 1] * wider
    return np.minimum(low, 0), np.maximum(high, 0)


def _errors(past: Floats, origin: date, number: int) -> Floats:
    """[origin, days ahead]: what came over what was expected, less 1, of earlier projections; NaN where unknown."""
    step = max(1, (len(past) - FIRST_ORIGIN) // ORIGINS)
    places = range(len(past) - 1, FIRST_ORIGIN - 1, -step)
    found = np.full((len(places), number), np.nan)
    for row, place in enumerate(places):
        there = min(number, len(past) - place)
        before = origin - (len(past) - place) * DAY
        expected = np.cumsum(_expected(past[:place], before, there))
        came = np.cumsum(past[place : place + there])
        with np.errstate(divide="ignore", invalid="ignore"):
            found[row, :there] = np.where(expected > 0, came / expected - 1, np.nan)
    return found


def dollars(value: float) -> Decimal:
    """Rounded to cents."""
    return Decimal(repr(float(value))).quantize(CENT)
