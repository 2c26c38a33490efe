"""Everything the overview needs to know, asked once: no other module of the page asks for figures."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date, timedelta
from decimal import Decimal
from functools import cached_property
from typing import Final

import numpy as np
from numpy.typing import NDArray

from app.backends import Backends
from app.core.amounts import Amounts
from app.core.charges import COSTS, DEFAULT_METRIC
from app.core.periods import DAY, DateRange, next_month
from app.core.query import CostQuery
from app.core.rollup import CostFrame, Rollup
from app.costs import CostAnswer, Freshness, Snapshot
from app.figures.regions import Cells, cells
from app.figures.spend import Series, stacked
from app.figures.theme import colours
from app.figures.usage import MOST as SHOWN_USAGE
from app.pages.address import LEVELS, Address

Amount = Decimal | None
Sums = tuple[Amount, Mapping[str, Amount]]
"""A total, and that of each group."""
DRAWING: Final = threading.Lock()
"""One page is worked out at a time in a process. Threads that take turns inside numpy hand the interpreter to each other
thousands of times, which doubles the time of all of them. Stores are asked outside of it."""
LONGEST_DAILY: Final = 190
LONGEST_WEEKLY: Final = 800


@dataclass(frozen=True)
class Comparison:
    """Complete days only, each against the day the same number of days before it; at least half of them.

    `groups` has (now, before) of each value of the page's dimension; a value absent on one side has 0 there.
    """

    days: int
    now: Amount
    before: Amount
    days_before: DateRange
    groups: Mapping[str, tuple[Amount, Amount]]
    left_out: int


@dataclass(frozen=True)
class Measured:
    """One cost type: per period for its line, exact in total; NaN and None where it is not available."""

    values: NDArray[np.float64]
    total: Amount


@dataclass(frozen=True)
class View:
    """`spend` is grouped by the page's dimension; `complete` is the number of complete days and their total; `cells` by service and region without those filters."""

    address: Address
    today: date
    known: DateRange
    spend: CostAnswer
    before: NDArray[np.float64] | None
    comparison: Comparison | None
    complete: tuple[int, Amount]
    cells: CostFrame
    pairs: CostFrame
    metrics: Mapping[str, Measured]
    usage: CostFrame
    units: Mapping[str, str | None]
    accounts: Sequence[tuple[str, Amount]]
    ranks: Mapping[str, Mapping[str, int]]

    @property
    def freshness(self) -> Freshness:
        return self.spend.freshness

    @property
    def currency(self) -> str:
        return self.spend.currency

    @property
    def granularity(self) -> str:
        return self.spend.frame.query.granularity

    @cached_property
    def colours(self) -> dict[str, str]:
        """Colour of each group of the page."""
        return colours([group[0] for group in self.spend.frame.groups], self.ranks[self.address.dimension])

    @cached_property
    def stack(self) -> list[Series]:
        """The largest groups of the page and the rest: what bars and legend show."""
        return stacked(self.spend.frame, self.colours)

    @cached_property
    def settling(self) -> list[int]:
        """Positions of bars that do not say all: days that settle, weeks and months with such days or cut by the range."""
        days, moving = self.address.days, {*self.freshness.settling, *self.freshness.restating}
        if self.granularity == "daily":
            return [position for position, day in enumerate(self.spend.frame.periods) if day in moving]
        spans = [(first, next_bucket(first, self.granularity)) for first in self.spend.frame.periods]
        return [
            position
            for position, (first, end) in enumerate(spans)
            if first < days.start or end > days.end or any(first <= day < end for day in moving)
        ]

    @cached_property
    def unknown(self) -> list[date]:
        """Days without any figure where one could be: not before the history, not today or later."""
        if self.granularity != "daily":
            return []
        have = frozenset(self.spend.frame.days)
        return [day for day in self.address.days if day not in have and self.known.start <= day < self.today]

    @cached_property
    def grid(self) -> Cells:
        """Services × regions, and what each would cost under the filters on the other side."""
        return cells(self.cells, self.address.values("service"), self.address.values("region"))

    @property
    def is_empty(self) -> bool:
        return not self.spend.frame.groups


def looked(backends: Backends, now: Snapshot, known: DateRange, address: Address) -> View:
    """Ask for everything, of one moment; `known` is that moment's, as it must not be None."""
    query = address.query.per(granularity_for(len(address.days)))
    grouped = query.grouped(address.dimension)
    spend = now.ask(grouped)
    daily = spend if query.granularity == "daily" else now.ask(grouped.per("daily"))
    complete = complete_columns(daily)
    days = DateRange(address.days.start, daily.frame.periods[complete[-1]] + DAY) if complete else None
    before = now.ask(grouped.per("daily").over(days.before())) if days else None
    sums = exact_totals(daily.frame, complete)
    usage = now.ask(narrowed(grouped.measured("usage_quantity"), spend.frame))
    grid = now.ask(address.query.without("service", "region").grouped("service", "region").per("total")).frame
    return View(
        address=address,
        today=backends.today(),
        known=known,
        spend=spend,
        before=before.frame.amounts.sum(axis=0) if before else None,
        comparison=compared(daily, before, complete, sums) if before else None,
        complete=(len(complete), sums[0]),
        cells=grid,
        pairs=_pairs(now, address, grid),
        metrics={metric: _measured(now, query, metric, spend) for metric in COSTS},
        usage=usage.frame,
        units=_units(now, address, usage),
        accounts=_accounts(now, address, spend.frame),
        ranks={level: ranks(backends, now.rollup, level) for level in LEVELS},
    )


def _units(now: Snapshot, address: Address, usage: CostAnswer) -> Mapping[str, str | None]:
    """Usage unit of each group; None where it has several or none was said."""
    if address.dimension == "service":
        return now.rollup.units(address.query)
    return dict.fromkeys((group[0] for group in usage.frame.groups), usage.unit)


def _pairs(now: Snapshot, address: Address, cells: CostFrame) -> CostFrame:
    query = address.query.grouped(*address.pair).per("total")
    return cells if cells.query == query else now.ask(query).frame


def _measured(now: Snapshot, query: CostQuery, metric: str, spend: CostAnswer) -> Measured:
    if metric == query.metric:
        return Measured(spend.frame.amounts.sum(axis=0), spend.total)
    answer = now.ask(query.measured(metric))
    return Measured(answer.frame.amounts.sum(axis=0), answer.total)


def _accounts(now: Snapshot, address: Address, spend: CostFrame) -> list[tuple[str, Amount]]:
    if address.dimension == "account" and not address.values("account"):
        return [(group[0], total) for group, total in zip(spend.groups, spend.group_totals, strict=True)]
    return now.values_with_cost("account", address.query)


def narrowed(query: CostQuery, spend: CostFrame) -> CostQuery:
    """Only the groups whose quantities are shown: those that cost most."""
    [dimension] = query.group_by
    largest = tuple(sorted(group[0] for group in spend.groups[:SHOWN_USAGE]))
    others = tuple(found for found in query.filters if found[0] != dimension)
    return replace(query, filters=tuple(sorted([*others, (dimension, largest)]))) if largest else query


def granularity_for(days: int) -> str:
    return "daily" if days <= LONGEST_DAILY else "weekly" if days <= LONGEST_WEEKLY else "monthly"


def next_bucket(first: date, granularity: str) -> date:
    return next_month(first) if granularity == "monthly" else first + timedelta(days=7)


def unsettled(freshness: Freshness) -> frozenset[date]:
    """Days whose figures may still move or are not there."""
    return frozenset((*freshness.settling, *freshness.missing, *freshness.quarantined, *freshness.restating))


def complete_columns(answer: CostAnswer) -> list[int]:
    """Positions of the complete days of a daily answer."""
    complete = frozenset(answer.frame.days) - unsettled(answer.freshness)
    return [position for position, day in enumerate(answer.frame.periods) if day in complete]


def exact_totals(frame: CostFrame, columns: Sequence[int]) -> Sums:
    """The exact total over some ingested days, in all and of each group; None where a blended cost is lacking."""
    chosen = list(columns)
    lacking: list[bool] = np.any(np.isnan(frame.amounts[:, chosen]), axis=1).tolist()
    sums = Amounts(frame.exact.parts[:, :, chosen].sum(axis=2, dtype=np.int64))
    values = [None if lacks else value for lacks, value in zip(lacking, sums.decimals(), strict=True)]
    groups = {group[0]: value for group, value in zip(frame.groups, values, strict=True)}
    return None if any(lacking) else sums.decimal(), groups


def ranks(backends: Backends, rollup: Rollup, dimension: str) -> Mapping[str, int]:
    """Rank of each value by its cost over the whole history: what its colour hangs on. Kept for a data version."""
    key = f"ranks:{dimension}"
    kept: tuple[int, Mapping[str, int]] | None = backends.memo.get(key)
    if kept is None or kept[0] != rollup.version:
        known = DateRange(rollup.days[0], rollup.days[-1] + DAY)
        values = rollup.values_with_cost(dimension, CostQuery(range=known, metric=DEFAULT_METRIC))
        kept = backends.memo[key] = rollup.version, {value: rank for rank, (value, _) in enumerate(values)}
    return kept[1]


def compared(now: CostAnswer, before: CostAnswer, complete: Sequence[int], sums: Sums) -> Comparison | None:
    """Days that are complete on both sides, `before` starting as many days earlier as it has: no hole counts as zero.

    `sums` are those of `now` over its `complete` days."""
    complete_before = frozenset(complete_columns(before))
    length = len(before.frame.periods)
    columns = [position for position in complete if position in complete_before]
    if len(columns) * 2 < length:
        return None
    now_total, now_groups = sums if len(columns) == len(complete) else exact_totals(now.frame, columns)
    before_total, before_groups = exact_totals(before.frame, columns)
    groups = {
        value: (now_groups.get(value, Decimal(0)), before_groups.get(value, Decimal(0)))
        for value in {**now_groups, **before_groups}
    }
    return Comparison(len(columns), now_total, before_total, before.frame.query.range, groups, length - len(columns))
