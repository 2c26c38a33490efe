"""A small organisation whose days arrive late: what a detector is shown in tests."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import date, timedelta
from typing import Any

import numpy as np
from numpy.typing import NDArray

from app.core.anomaly import Anomaly, Detector
from app.core.arrivals import Delivery, SeriesKey

FIRST = date(2026, 1, 5)
DAYS = 120
SERVICES = ("Compute", "Database", "Storage", "Queue", "Logs", "Cache", "Search", "Network")
ACCOUNTS = ("111111111111", "222222222222")
FIRST_ESTIMATE, SECOND_ESTIMATE = 0.6, 0.96


@dataclass
class Organisation:
    """`costs` [series, day] are final; a day arrives at 60 %, then at 96 %, then whole. `held` cells arrive later still."""

    keys: list[SeriesKey]
    costs: NDArray[np.float64]
    held: dict[tuple[int, int], int] = field(default_factory=dict)
    """(series, day) → the day on which it arrives."""
    complete_on_arrival: set[int] = field(default_factory=set)

    def add(self, service: str, costs: NDArray[np.float64], account: str = ACCOUNTS[0], region: str = "eu") -> int:
        self.keys.append(SeriesKey(account, service, region))
        self.costs = np.vstack([self.costs, costs[None]])
        return len(self.keys) - 1

    def deliveries(self, days: int | None = None, first: float = FIRST_ESTIMATE) -> Iterator[Delivery]:
        for today in range(self.costs.shape[1] if days is None else days):
            rows = [
                (series, day, self.costs[series, day] * (1 if series in self.complete_on_arrival else share))
                for day, share in ((today - 2, 1.0), (today - 1, SECOND_ESTIMATE), (today, first))
                if day >= 0
                for series in range(len(self.keys))
                if self.costs[series, day] and self.held.get((series, day), 0) <= today
            ]
            rows += [(s, d, self.costs[s, d]) for (s, d), back in self.held.items() if back == today and d < today - 2]
            yield delivery(self.keys, today, rows)

    def alerts(self, *, days: int | None = None, daily: float = 10, total: float = 40, **how: Any) -> list[Anomaly]:
        detector = Detector(min_daily=daily, min_total=total)
        return [alert for arrived in self.deliveries(days, **how) for alert in detector.deliver(arrived)]


def delivery(keys: list[SeriesKey], today: int, rows: list[tuple[int, int, float]]) -> Delivery:
    series, days, amounts = zip(*rows, strict=True) if rows else ((), (), ())
    usage = np.datetime64(FIRST, "D") + np.array(days, "timedelta64[D]")
    return Delivery(day_at(today), list(keys), np.array(series, np.int64), usage, np.array(amounts, np.float64))


def day_at(place: int) -> date:
    return FIRST + timedelta(days=place)


def organisation(seed: int = 0, days: int = DAYS, noise: float = 0.03, weekend: float = 0.7) -> Organisation:
    """Sixteen series of about $100 a day with quiet weekends."""
    random = np.random.default_rng(seed)
    keys = [SeriesKey(account, service, "eu") for account in ACCOUNTS for service in SERVICES]
    base = random.uniform(60, 140, len(keys))
    weekdays = np.array([day_at(day).weekday() for day in range(days)])
    shape = np.where(weekdays >= 5, weekend, 1.0)
    return Organisation(keys, base[:, None] * shape * np.exp(random.normal(0, noise, (len(keys), days))))
