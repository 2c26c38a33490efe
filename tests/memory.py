"""Cost store and ledger held in memory, for tests of the pages. Behaviour, not scripts: nothing here knows who asks."""

from __future__ import annotations

import random
from collections.abc import Mapping
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from functools import cache
from types import SimpleNamespace
from typing import Any, cast

import numpy as np

from app.backends import Backends
from app.config import Settings
from app.core.amounts import from_decimals
from app.core.anomalyrecords import AnomalyRecord
from app.core.charges import DIMENSIONS, METRICS, Totals
from app.core.ledger import AccountDay, DayRecord, Revisions
from app.core.periods import month_of
from app.core.retention import MonthTotals
from app.core.rollup import DayColumns, Month, Rollup, month_with
from app.errors import Unavailable
from app.ports import Metadata, Queue, Source

TODAY = date(2026, 11, 24)
Charge = tuple[tuple[str, ...], tuple[Decimal | None, ...]]
"""Values in the order of DIMENSIONS, amounts in the order of METRICS."""

SERVICES = {
    "Amazon Elastic Compute Cloud": 4200.0,
    "Amazon Simple Storage Service": 1900.0,
    "Amazon Relational Database Service": 1700.0,
    "AmazonCloudWatch": 640.0,
    "Amazon CloudFront": 1250.0,
    "AWS Lambda": 520.0,
    "Amazon DynamoDB": 480.0,
    "Amazon Elastic Kubernetes Service": 1400.0,
    "AWS Key Management Service": 36.0,
    "Amazon Simple Queue Service": 21.0,
    "AWS Data Transfer": 830.0,
    "Amazon OpenSearch Service": 910.0,
}
REGIONS = {"us-east-1": 1.0, "eu-west-1": 0.55, "us-west-2": 0.48, "ap-southeast-1": 0.2, "eu-central-1": 0.12}
ACCOUNTS = {"prod-platform": 1.0, "data-lake": 0.5, "staging": 0.18}
EC2 = "Amazon Elastic Compute Cloud"


def sample_charges(day: date, seed: int = 5) -> list[Charge]:
    """A believable day: weekends are lighter, every amount has digits that make sums tell, one upfront purchase."""
    draw = random.Random(f"{seed}{day}")
    weekend = 0.82 if day.weekday() > 4 else 1.0
    found: list[Charge] = []
    for service, size in SERVICES.items():
        for region, share in ({"global": 1.6} if service == "Amazon CloudFront" else REGIONS).items():
            for account, part in ACCOUNTS.items():
                value = Decimal(f"{size * share * part * weekend * draw.uniform(0.9, 1.1) / 5:.6f}")
                bought = (service, region, account, day.day) == (EC2, "us-east-1", "prod-platform", 3)
                unblended = (value * Decimal("0.93")).quantize(Decimal("1e-6")) + (52_000 if bought else 0)
                blended = (value * Decimal("0.97")).quantize(Decimal("1e-6"))
                usage = Decimal(f"{float(value) * 31.7:.3f}")
                found.append((("aws", account, service, region, "Usage"), (value, blended, unblended, usage)))
    return found


def charge(
    service: str, region: str, account: str, amount: str, *, blended: str | None = "", usage: str = "1"
) -> Charge:
    """One row; blended is the same amount unless given, None for not available."""
    shown = Decimal(amount) if blended == "" else None if blended is None else Decimal(blended)
    return ("aws", account, service, region, "Usage"), (Decimal(amount), shown, Decimal(amount), Decimal(usage))


def columns(day: date, charges: list[Charge]) -> DayColumns:
    values: dict[str, list[str]] = {name: [] for name in DIMENSIONS}
    codes: dict[str, list[int]] = {name: [] for name in DIMENSIONS}
    for keys, _ in charges:
        for name, value in zip(DIMENSIONS, keys, strict=True):
            if value not in values[name]:
                values[name].append(value)
            codes[name].append(values[name].index(value))
    amounts = {
        metric: from_decimals([amounts[i] or Decimal(0) for _, amounts in charges]) for i, metric in enumerate(METRICS)
    }
    absent = np.array([amounts[1] is None for _, amounts in charges], bool)
    arrays = {name: np.array(found, np.int32) for name, found in codes.items()}
    return DayColumns(day, values, arrays, amounts, absent if absent.any() else None)


class MemoryCosts:
    """A cost store's read side: days of charges rolled up in memory."""

    exact = True
    atomic = True

    def __init__(self, days: Mapping[date, list[Charge]], months: list[Month] | None = None) -> None:
        """`months` are those of `days` where they were put together before."""
        self.days = dict(days)
        self.version = 1
        self.down = False
        self.kept_since: date | None = None
        self._rollup = Rollup(self.version, months_of(days) if months is None else months)

    def put(self, day: date, charges: list[Charge]) -> None:
        self.days[day] = charges
        self.version += 1
        self._rollup = Rollup(self.version, months_of(self.days))

    def oldest(self, today: date) -> date | None:
        return self.kept_since

    def rollup(self) -> Rollup:
        if self.down:
            raise Unavailable("costs", "The cost store does not answer.")
        return self._rollup

    def check(self) -> None:
        self.rollup()


def months_of(days: Mapping[date, list[Charge]]) -> list[Month]:
    by_month: dict[date, list[DayColumns]] = {}
    for day in sorted(days):
        by_month.setdefault(month_of(day), []).append(columns(day, days[day]))
    return [month_with(None, first, found) for first, found in by_month.items()]


class MemoryLedger:
    """The ledger's read side: a record for each day that was taken."""

    def __init__(self, records: Mapping[date, DayRecord]) -> None:
        self.version = 1
        self.records = dict(records)
        self.quarantined: frozenset[date] = frozenset()

    def ledger_version(self) -> int:
        return self.version

    def day_records(self, start: date, end: date) -> dict[date, DayRecord]:
        return {day: found for day, found in self.records.items() if start <= day < end}

    def day_record(self, day: date) -> DayRecord:
        return self.records.get(day) or DayRecord(day)

    def day_revisions(self) -> Revisions:
        return Revisions(self.version, {day: found.revision for day, found in self.records.items()})

    def month_totals(self, start: date, end: date) -> dict[date, MonthTotals]:
        """None were folded yet: months are added up from the days."""
        return {}

    def anomalies(self, start: date, end: date) -> list[AnomalyRecord]:
        """None was found."""
        return []

    def quarantined_days(self, start: date, end: date, source: str) -> frozenset[date]:
        return frozenset(day for day in self.quarantined if start <= day < end)

    def has_users(self) -> bool:
        return False

    def check(self) -> None:
        return None


def record(day: date, charges: list[Charge], at: datetime) -> DayRecord:
    accounts: dict[str, AccountDay] = {}
    for name in sorted({keys[1] for keys, _ in charges}):
        mine = [amounts for keys, amounts in charges if keys[1] == name]
        totals = Totals(len(mine), *cast(Any, [_sum([amounts[i] for amounts in mine]) for i in range(len(METRICS))]))
        accounts[name] = AccountDay("costs", "0", 1, totals, totals, False, at, at)
    return DayRecord(day, 1, accounts, {f"costs/{day}.csv": "0"})


def records_of(days: Mapping[date, list[Charge]], at: datetime) -> dict[date, DayRecord]:
    return {day: record(day, charges, at) for day, charges in days.items()}


@cache
def _sample(
    history: int, today: date, at: datetime
) -> tuple[dict[date, list[Charge]], list[Month], dict[date, DayRecord]]:
    """The same for every test that shows them: charges, and what is made of them."""
    days = {day: sample_charges(day) for day in (today - timedelta(days=n) for n in range(1, history + 1))}
    return days, months_of(days), records_of(days, at)


def _sum(values: list[Decimal | None]) -> Decimal | None:
    return None if None in values else sum((value for value in values if value is not None), Decimal(0))


def memory_backends(
    days: Mapping[date, list[Charge]] | None = None, *, history: int = 75, today: date = TODAY, **settings: Any
) -> Backends:
    """Backends over `days`, or over `history` sample days that end yesterday."""
    now = datetime(today.year, today.month, today.day, 9, 30, tzinfo=UTC)
    taken = now - timedelta(minutes=38)
    if days is None:
        days, months, records = _sample(history, today, taken)
    else:
        months, records = months_of(days), records_of(days, taken)
    return Backends(
        settings=Settings.model_validate(settings),
        source=cast(Source, SimpleNamespace(root="file:///sample/costs/")),
        costs=cast(Any, MemoryCosts(days, months)),
        metadata=cast(Metadata, MemoryLedger(records)),
        queue=cast(Queue, None),
        clock=lambda: now,
    )
