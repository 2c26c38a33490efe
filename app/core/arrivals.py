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

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]
Places = NDArray[np.int64]

AGES: Final = 6
"""For how many days after its own a day is remembered as it was then; bills settle within two or three."""
ROOM: Final = 64


@dataclass(frozen=True)
class SeriesKey:
    account: str
    service: str
    region: str


@dataclass(frozen=True)
class Delivery:
    """Everything that arrived on one day. Row n says: on `days[n]` the series `keys[series[n]]` cost `amounts[n]`.

    A key and day occurs once; `days` are numpy days.
    """

    day: date
    keys: Sequence[SeriesKey]
    series: Places
    days: NDArray[np.datetime64]
    amounts: Floats


class Arrivals:
    """Grows with every delivery. Arrays are views on [series, day]; a day's place counts from `first`.

    `known` is the newest amount (0: no cost, or not arrived), `at_age[a]` what was known `a` days after the day itself.
    """

    def __init__(self) -> None:
        self.first: date | None = None
        self.keys: list[SeriesKey] = []
        self._place: dict[SeriesKey, int] = {}
        self._known = np.zeros((ROOM, ROOM))
        self._at_age = np.full((AGES, ROOM, ROOM), np.nan)
        self.days = 0
        self.codes = np.zeros((3, 0), np.int64)
        self._names: tuple[dict[str, int], ...] = ({}, {}, {})

    @property
    def known(self) -> Floats:
        return self._known[: len(self.keys), : self.days]

    @property
    def at_age(self) -> Floats:
        return self._at_age[:, : len(self.keys), : self.days]

    def place_of(self, day: date) -> int:
        assert self.first is not None
        return (day - self.first).days

    def day_at(self, place: int) -> date:
        assert self.first is not None
        return self.first + timedelta(int(place))

    def deliver(self, delivery: Delivery) -> None:
        """Take what arrived; deliveries come in order. Rows before the first delivery's first day are left out."""
        if self.first is None:
            self.first = min(
                [delivery.day, *(delivery.days.min(keepdims=True).astype(object) if len(delivery.days) else [])]
            )
        today = self.place_of(delivery.day)
        series = self._places(delivery.keys)[delivery.series]
        days = (delivery.days - np.datetime64(self.first, "D")).astype(np.int64)
        self._make_room(len(self.keys), today + 1)
        self.days = today + 1
        inside = (days >= 0) & (days <= today)
        self._known[series[inside], days[inside]] = delivery.amounts[inside]
        for age in range(min(AGES, self.days)):
            self._at_age[age, :, today - age] = self._known[:, today - age]

    def _places(self, keys: Sequence[SeriesKey]) -> Places:
        fresh = [key for key in keys if key not in self._place]
        for key in fresh:
            self._place[key] = len(self.keys)
            self.keys.append(key)
        if fresh:
            columns = [self._coded(fresh, number, name) for number, name in enumerate(("account", "service", "region"))]
            self.codes = np.concatenate([self.codes, np.array(columns, np.int64)], axis=1)
        return np.array([self._place[key] for key in keys], np.int64)

    def _coded(self, keys: Sequence[SeriesKey], number: int, name: str) -> list[int]:
        known = self._names[number]
        return [known.setdefault(getattr(key, name), len(known)) for key in keys]

    def _make_room(self, series: int, days: int) -> None:
        self._known = _grown(self._known, series, days, 0.0)
        self._at_age = _grown(self._at_age, series, days, np.nan)


def _grown(array: NDArray[Any], series: int, days: int, fill: float) -> NDArray[Any]:
    """The array with at least this much room, doubled so that growing stays cheap."""
    have = array.shape[-2:]
    if have[0] >= series and have[1] >= days:
        return array
    wanted = tuple(now if now >= need else max(need, 2 * now) for now, need in zip(have, (series, days), strict=True))
    found = np.full((*array.shape[:-2], *wanted), fill)
    found[..., : have[0], : have[1]] = array
    return found
