"""Everything the overview needs to know, asked once: no other module of the page asks for figures."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, timedelta
from decimal import Decimal
from functools import cached_property
from typing import Final

import numpy as np
from numpy.typing import NDArray

from app.backends import Backends
from app.core.amounts import EXACT
from app.core.charges import COSTS, DEFAULT_METRIC
from app.core.periods import DAY, DateRange
from app.core.query import CostQuery
from app.core.rollup import CostFrame
from app.costs import CostAnswer, Freshness, ask, dimension_values, first_and_last_day
from app.figures.theme import colours
from app.pages.address import LEVELS, Address

Amount = Decimal | None
LONGEST_DAILY: Final = 190
LONGEST_WEEKLY: Final = 800


@dataclass(frozen=True)
class Comparison:
    """Complete days only, each against the day the same number of days before it.

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
    """`spend` is grouped by the page's dimension; `cells` by service and region without those filters."""

    address: Address
    today: date
    known: DateRange
    spend: CostAnswer
    before: CostFrame | None
    comparison: Comparison | None
    cells: CostFrame
    pairs: CostFrame
    metrics: Mapping[str, Measured]
    usage: CostFrame
    options: Mapping[str, list[tuple[str, Amount]]]
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
    def settling(self) -> list[int]:
        """Positions of bars whose figure may still move."""
        open_days = {*self.freshness.settling, *self.freshness.restating}
        periods = self.spend.frame.periods
        ends = [*periods[1:], self.address.days.end]
        return [
            i
            for i, (first, end) in enumerate(zip(periods, ends, strict=True))
            if any(first <= d < end for d in open_days)
        ]

    @cached_property
    def unknown(self) -> list[date]:
        """Days without any figure where one could be: not before the history, not today or later."""
        if self.granularity != "daily":
            return []
        have = frozenset(self.spend.frame.days)
        return [day for day in self.address.days if day not in have and self.known.start <= day < self.today]

    @property
    def is_empty(self) -> bool:
        return not self.spend.frame.groups


def look(backends: Backends, address: Address) -> View | None:
    """Ask for everything; None when there is no data at all yet."""
    known = first_and_last_day(backends)
    if known is None:
        return None
    query = address.query.per(granularity_for(len(address.days)))
    spend = ask(backends, query.grouped(address.dimension))
    days = complete_part(address.days, spend)
    before = ask(backends, address.query.over(days.before())) if days else None
    cells = ask(backends, address.query.without("service", "region").grouped("service", "region").per("total")).frame
    return View(
        address=address,
        today=backends.today(),
        known=known,
        spend=spend,
        before=before.frame if before else None,
        comparison=_compared(backends, address, spend, days, before) if days and before else None,
        cells=cells,
        pairs=_pairs(backends, address, cells),
        metrics={metric: _measured(backends, query, metric, spend) for metric in COSTS},
        usage=ask(backends, query.measured("usage_quantity").grouped(address.dimension)).frame,
        options={level: _options(backends, address, level, spend.frame) for level in LEVELS},
        ranks={level: ranks(backends, level, known) for level in LEVELS},
    )


def _pairs(backends: Backends, address: Address, cells: CostFrame) -> CostFrame:
    query = address.query.grouped(*address.pair).per("total")
    return cells if cells.query == query else ask(backends, query).frame


def _measured(backends: Backends, query: CostQuery, metric: str, spend: CostAnswer) -> Measured:
    if metric == query.metric:
        return Measured(spend.frame.amounts.sum(axis=0), spend.total)
    answer = ask(backends, query.measured(metric))
    return Measured(answer.frame.amounts.sum(axis=0), answer.total)


def _options(backends: Backends, address: Address, level: str, spend: CostFrame) -> list[tuple[str, Amount]]:
    if level == address.dimension and not address.values(level):
        return [(group[0], total) for group, total in zip(spend.groups, spend.group_totals, strict=True)]
    return dimension_values(backends, level, address.query)


def granularity_for(days: int) -> str:
    return "daily" if days <= LONGEST_DAILY else "weekly" if days <= LONGEST_WEEKLY else "monthly"


def unsettled(freshness: Freshness) -> frozenset[date]:
    """Days whose figures may still move or are not there."""
    return frozenset((*freshness.settling, *freshness.missing, *freshness.quarantined, *freshness.restating))


def complete_part(days: DateRange, answer: CostAnswer) -> DateRange | None:
    """From the first day to the last complete one; None when no day is complete."""
    open_days = unsettled(answer.freshness)
    complete = [day for day in answer.frame.days if day not in open_days]
    return DateRange(days.start, complete[-1] + DAY) if complete else None


def ranks(backends: Backends, dimension: str, known: DateRange) -> Mapping[str, int]:
    """Rank of each value by its cost over the whole history: what its colour hangs on. Kept for a data version."""
    version, key = backends.costs.rollup().version, f"ranks:{dimension}"
    kept: tuple[int, Mapping[str, int]] | None = backends.memo.get(key)
    if kept is None or kept[0] != version:
        values = dimension_values(backends, dimension, CostQuery(range=known, metric=DEFAULT_METRIC))
        kept = backends.memo[key] = version, {value: rank for rank, (value, _) in enumerate(values)}
    return kept[1]


def _compared(
    backends: Backends, address: Address, spend: CostAnswer, days: DateRange, before: CostAnswer
) -> Comparison | None:
    runs = comparable_runs(days, spend, before)
    if not runs:
        return None
    query = address.query.grouped(address.dimension).per("total")
    shift = timedelta(days=len(days))
    groups: dict[str, tuple[Amount, Amount]] = {}
    now_sum: Amount = Decimal(0)
    before_sum: Amount = Decimal(0)
    for run in runs:
        now = ask(backends, query.over(run)).frame
        earlier = ask(backends, query.over(DateRange(run.start - shift, run.end - shift))).frame
        now_sum, before_sum = _added(now_sum, now.total), _added(before_sum, earlier.total)
        _add_groups(groups, now, earlier)
    counted = sum(len(run) for run in runs)
    return Comparison(counted, now_sum, before_sum, days.before(), groups, len(days) - counted)


def comparable_runs(days: DateRange, spend: CostAnswer, before: CostAnswer) -> list[DateRange]:
    """Runs of days that are complete here and the same number of days earlier: neither side counts a hole as zero."""
    shift = timedelta(days=len(days))
    now_days = frozenset(spend.frame.days) - unsettled(spend.freshness)
    before_days = frozenset(before.frame.days) - unsettled(before.freshness)
    runs: list[DateRange] = []
    for day in days:
        if day in now_days and day - shift in before_days:
            if runs and runs[-1].end == day:
                runs[-1] = DateRange(runs[-1].start, day + DAY)
            else:
                runs.append(DateRange(day, day + DAY))
    return runs


def _add_groups(groups: dict[str, tuple[Amount, Amount]], now: CostFrame, before: CostFrame) -> None:
    for side, frame in enumerate((now, before)):
        for (value, *_), total in zip(frame.groups, frame.group_totals, strict=True):
            pair = list(groups.get(value, (Decimal(0), Decimal(0))))
            pair[side] = _added(pair[side], total)
            groups[value] = pair[0], pair[1]


def _added(left: Amount, right: Amount) -> Amount:
    return None if left is None or right is None else EXACT.add(left, right)
