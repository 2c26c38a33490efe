"""Asking about cost: the one way pages, API and command line get a figure and how far it can be trusted."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, datetime, timedelta
from decimal import Decimal
from functools import lru_cache
from typing import Any

from app.backends import Backends
from app.core.amounts import total as exact_total
from app.core.ledger import LOOKBACK, Coverage, DayRecord, coverage
from app.core.periods import DateRange
from app.core.query import CostQuery
from app.core.rollup import CostFrame


@dataclass(frozen=True)
class Freshness:
    """How far the figures of a range can be trusted.

    `complete_through`: last day of the unbroken run of complete days. `updated`: when any figure last changed.
    `restating`: days that are being rewritten right now; their last verified figures are shown.
    """

    complete_through: date | None
    settling: tuple[date, ...]
    missing: tuple[date, ...]
    quarantined: tuple[date, ...]
    restating: tuple[date, ...]
    updated: datetime | None


@dataclass(frozen=True)
class CostAnswer:
    """A frame with what belongs beside every figure. `total` is exact: the ledger's where the store keeps floats."""

    frame: CostFrame
    total: Decimal | None
    unit: str | None
    currency: str
    data_version: int
    freshness: Freshness


@dataclass(frozen=True)
class Ledgers:
    """All day records of one ledger version, judged as of one day."""

    records: dict[date, DayRecord]
    coverage: Coverage
    updated: datetime | None

    def freshness(self, days: DateRange) -> Freshness:
        inside = {day: status for day, status in self.coverage.days.items() if day in days}

        def with_status(status: str) -> tuple[date, ...]:
            return tuple(day for day, found in inside.items() if found == status)

        return Freshness(
            complete_through=self.coverage.complete_through,
            settling=with_status("settling"),
            missing=with_status("missing"),
            quarantined=with_status("quarantined"),
            restating=tuple(day for day in inside if (r := self.records.get(day)) and r.restating),
            updated=self.updated,
        )
