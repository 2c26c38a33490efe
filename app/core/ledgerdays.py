"""A day of the ledger as a process keeps it of every day there is, to judge figures in each request.

It has what answers about all days need, in a tenth of the memory of the record. Owners, checksums, and figures that are
shown one by one, are read from the store for the days somebody asks about.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from decimal import Decimal
from functools import lru_cache
from typing import Final

import numpy as np
from numpy.typing import NDArray

from app.core.amounts import Amounts, from_decimals
from app.core.charges import MAY_BE_ABSENT, METRICS, Totals
from app.core.ledger import AccountDay, DayRecord, covers

SHARED: Final = 1024
"""Different sets of accounts of which one object serves all days that have it."""


@dataclass(frozen=True, slots=True, eq=False)
class LedgerDay:
    """`accounts` has each one's place in the columns: `first_reported` [place], `shares` and `totals` [metric, place].

    `reports` and `rows` are sums over the accounts, `changed` is when the newest of their figures came (None: there are
    none). `shares` are first-reported over current totals, 1 where one says nothing (0, or not known); None where no
    figure moved. `totals` are the current ones, 0 where a blended cost is not known (`unknown`); None where they were not
    asked for. The rest is as in core.ledger.DayRecord.
    """

    day: date
    revision: int
    accounts: Mapping[str, int]
    without_cost: frozenset[str]
    estimated: frozenset[str]
    unknown: frozenset[str]
    complete_file: bool
    covered: frozenset[str] | None
    failed_accounts: tuple[str, ...]
    restating: bool
    reports: int
    rows: int
    changed: datetime | None
    first_reported: tuple[datetime, ...]
    shares: NDArray[np.float64] | None
    totals: Amounts | None

    @property
    def with_cost(self) -> Collection[str]:
        return self.accounts.keys() - self.without_cost if self.without_cost else self.accounts.keys()

    def covers(self, account: str) -> bool:
        return covers(self, account)

    def shares_of(self, metric: str) -> dict[str, float]:
        """Account → what it was first reported with, as a part of what it is now, where that is not all and can be told."""
        if self.shares is None:
            return {}
        found = zip(self.accounts, self.shares[METRICS.index(metric)].tolist(), strict=True)
        return {name: share for name, share in found if share != 1}

    def total(self, metric: str, accounts: Collection[str] = ()) -> Decimal | None:
        """Exact, over the accounts that are named, or all; None where a blended cost is not known."""
        assert self.totals is not None, "asked of a day that was read without them"
        if metric == MAY_BE_ABSENT and any(not accounts or name in accounts for name in self.unknown):
            return None
        of_metric = self.totals.parts[:, METRICS.index(metric)]
        if accounts:
            of_metric = of_metric[:, [place for name, place in self.accounts.items() if name in accounts]]
        return Amounts(of_metric).decimal()


def ledger_day(record: DayRecord, *, with_totals: bool) -> LedgerDay:
    """What is kept of a record; `with_totals` where the cost store's own are not exact."""
    parts = list(record.accounts.values())
    currents = [part.current for part in parts]
    return LedgerDay(
        day=record.day,
        revision=record.revision,
        accounts=_places(tuple(record.accounts)),
        without_cost=_same(frozenset(name for name, part in record.accounts.items() if not part.current.rows)),
        estimated=_same(frozenset(record.estimated)),
        unknown=_same(frozenset(n for n, part in record.accounts.items() if part.current.blended_cost is None)),
        complete_file=record.complete_file,
        covered=record.covered and _same(record.covered),
        failed_accounts=record.failed_accounts,
        restating=record.restating,
        reports=sum(part.revision for part in parts),
        rows=sum(totals.rows for totals in currents),
        changed=max((part.changed for part in parts), default=None),
        first_reported=tuple(part.first_reported for part in parts),
        shares=_shares(parts),
        totals=_totals(currents) if with_totals else None,
    )


@lru_cache(maxsize=SHARED)
def _places(names: tuple[str, ...]) -> Mapping[str, int]:
    return {name: place for place, name in enumerate(names)}


@lru_cache(maxsize=SHARED)
def _same(names: frozenset[str]) -> frozenset[str]:
    return names


def _shares(parts: Sequence[AccountDay]) -> NDArray[np.float64] | None:
    moved = [(place, part) for place, part in enumerate(parts) if part.first is not part.current]
    if not moved:
        return None
    found = np.ones((len(METRICS), len(parts)))
    for place, part in moved:
        for row, metric in enumerate(METRICS):
            first, current = part.first.of(metric), part.current.of(metric)
            if first and current and first != current:
                found[row, place] = first / current
    return found if (found != 1).any() else None


def _totals(currents: Sequence[Totals]) -> Amounts:
    values = [totals.of(metric) or Decimal(0) for metric in METRICS for totals in currents]
    return from_decimals(values).map(lambda part: part.reshape(len(METRICS), len(currents)))
