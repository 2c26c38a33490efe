"""What was known of every series and day, and when: the only thing a detector may look at.

A series is one account × service × region. A delivery brings the newest day, incomplete, and restates earlier ones.
Amounts are floats: they are compared with expectations, never added up to a total that is shown as money.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from app.core.robust import Floats, Places

AGES: Final = 6
"""For how many days after its own a day is remembered as it was then; bills settle within two or three."""
ROOM: Final = 64
"""Series and days that there is room for at first."""
LOOKBACK: Final = 400
"""Days before the first delivery that its rows may teach from."""
PARTS: Final = ("account", "service", "region")


@dataclass(frozen=True)
class SeriesKey:
    account: str
    service: str
    region: str


@dataclass(frozen=True)
class Delivery:
    """Everything that arrived on one day. Row n says: on `days[n]` the series `keys[series[n]]` cost `amounts[n]`.

    A series and day occurs once; `days` are numpy days, none after `day`.
    """

    day: date
    keys: Sequence[SeriesKey]
    series: Places
    days: NDArray[np.datetime64]
    amounts: Floats


class Arrivals:
    """Grows with every delivery. A day's place counts from `first`, the first delivery's first day (at most LOOKBACK days back).

    `codes` is [part, series]: equal codes mean the same account, service or region.
    """

    def __init__(self) -> None:
        self.first: date | None = None
        self.keys: list[SeriesKey] = []
        self.days = 0
        self.codes: Places = np.zeros((len(PARTS), 0), np.int64)
        self._names: tuple[dict[str, int], ...] = tuple({} for _ in PARTS)
        self._place: dict[SeriesKey, int] = {}
        self._known: Floats = np.zeros((ROOM, ROOM))
        self._at_age: Floats = np.full((AGES, ROOM, ROOM), np.nan)

    @property
    def known(self) -> Floats:
        """[series, day]: the newest amount; 0 is no cost, or not arrived yet."""
        return self._known[: len(self.keys), : self.days]

    @property
    def at_age(self) -> Floats:
        """[age, series, day]: what was known that many days after the day; NaN where nobody looked."""
        return self._at_age[:, : len(self.keys), : self.days]

    def place_of(self, day: date) -> int:
        assert self.first is not None
        return (day - self.first).days

    def day_at(self, place: int) -> date:
        assert self.first is not None
        return self.first + timedelta(int(place))

    def name_of(self, part: int, code: int) -> str:
        """The account, service or region behind a code."""
        return list(self._names[part])[code]

    def deliver(self, delivery: Delivery) -> None:
        """Take what arrived; deliveries come in the order of their days. Rows before `first` are left out."""
        if self.first is None:
            oldest = delivery.days.min().astype(object) if len(delivery.days) else delivery.day
            self.first = max(min(oldest, delivery.day), delivery.day - timedelta(LOOKBACK))
        today = self.place_of(delivery.day)
        series = self._places(delivery.keys)[delivery.series]
        days = (delivery.days - np.datetime64(self.first, "D")).astype(np.int64)
        self.make_room(len(self.keys), today + 1)
        self.days = today + 1
        inside = days >= 0
        self._known[series[inside], days[inside]] = delivery.amounts[inside]
        for age in range(min(AGES, self.days)):
            self._at_age[age, :, today - age] = self._known[:, today - age]

    def _places(self, keys: Sequence[SeriesKey]) -> Places:
        """Where the keys are; new ones come last. Most deliveries name what the one before named, in the same order."""
        have = len(self.keys)
        same = list(keys[:have]) == self.keys[: len(keys)]
        fresh = list(keys[have:]) if same else [key for key in keys if key not in self._place]
        self._place.update(zip(fresh, range(have, have + len(fresh)), strict=True))
        self.keys.extend(fresh)
        if fresh:
            columns = [self._coded(fresh, number) for number in range(len(PARTS))]
            self.codes = np.concatenate([self.codes, np.array(columns, np.int64)], axis=1)
        return np.arange(len(keys)) if same else np.array([self._place[key] for key in keys], np.int64)

    def _coded(self, keys: Sequence[SeriesKey], part: int) -> list[int]:
        known = self._names[part]
        return [known.setdefault(getattr(key, PARTS[part]), len(known)) for key in keys]

    def make_room(self, series: int, days: int) -> None:
        """For what will come: growing as it comes copies all there is again and again."""
        self._known = grown(self._known, series, days, 0.0)
        self._at_age = grown(self._at_age, series, days, np.nan)


def grown(array: NDArray[Any], series: int, days: int, fill: float) -> NDArray[Any]:
    """The array with at least this much room on its last two axes, doubled so that growing stays cheap."""
    have = array.shape[-2:]
    if have[0] >= series and have[1] >= days:
        return array
    wanted = tuple(now if now >= need else max(need, 2 * now) for now, need in zip(have, (series, days), strict=True))
    found = np.full((*array.shape[:-2], *wanted), fill, array.dtype)
    found[..., : have[0], : have[1]] = array
    return found
