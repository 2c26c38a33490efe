"""The read model: what pages and the API ask, never the raw charges.

A month is kept as a few grids. A grid has one column per combination of some dimensions that occurs in the month and
one row per ingested day, with exact amounts (core.amounts) for every metric. The grid over all dimensions answers
everything; the small ones over two dimensions answer what a page asks most, in a time that does not depend on how
many charges a day has. A restated day rebuilds its own month only. Grids are plain arrays, so a store can map them
from a file that all web processes share.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from decimal import Decimal
from functools import cached_property
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from app.core.amounts import Amounts, zeros
from app.core.charges import DIMENSIONS, MAY_BE_ABSENT, METRICS
from app.core.periods import bucket_of
from app.core.query import CostQuery

SMALL_GRIDS: Final = (("service", "region"), ("account", "service"), ("account", "region"))
Codes = NDArray[np.int32]


@dataclass(frozen=True)
class DayColumns:
    """One day's charges as columns, whatever their order: what a month is rolled up from.

    `codes[dimension]` are positions in `values[dimension]`; `amounts[metric]` has one value a charge;
    `absent` marks the charges without a blended cost (None: all have one).
    """

    day: date
    values: Mapping[str, Sequence[str]]
    codes: Mapping[str, Codes]
    amounts: Mapping[str, Amounts]
    absent: NDArray[np.bool_] | None = None

    def __len__(self) -> int:
        return self.amounts[METRICS[0]].shape[0]

    def nonzero(self) -> NDArray[np.bool_]:
        """Where a charge is not all zero: an all-zero charge equals no charge."""
        found = np.zeros(len(self), np.bool_)
        for amounts in self.amounts.values():
            found |= (amounts.high != 0) | (amounts.middle != 0)
            if amounts.low is not None:
                found |= amounts.low != 0
        return found


@dataclass(frozen=True)
class Grid:
    """`codes[dimension]` has one code a column; `amounts[metric]`, `present` and `absent` are [day, column].

    `present` says where there was a charge that is not all zero; `absent` where one had no blended cost.
    """

    dimensions: tuple[str, ...]
    codes: Mapping[str, Codes]
    amounts: Mapping[str, Amounts]
    present: NDArray[np.bool_]
    absent: NDArray[np.bool_] | None
    memo: dict[Any, Any] = field(default_factory=dict, compare=False, repr=False)

    @property
    def width(self) -> int:
        return len(self.codes[self.dimensions[0]])

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Everything it holds by name, to be written; `Grid.of` is the way back."""
        found: dict[str, NDArray[Any]] = {f"code:{name}": codes for name, codes in self.codes.items()}
        for metric, amounts in self.amounts.items():
            parts = {"high": amounts.high, "middle": amounts.middle, "low": amounts.low}
            found |= {f"{metric}:{part}": array for part, array in parts.items() if array is not None}
        found["present"] = self.present
        return found if self.absent is None else found | {"absent": self.absent}

    @classmethod
    def of(cls, dimensions: tuple[str, ...], arrays: Mapping[str, NDArray[Any]]) -> Grid:
        amounts = {
            metric: Amounts(arrays[f"{metric}:high"], arrays[f"{metric}:middle"], arrays.get(f"{metric}:low"))
            for metric in METRICS
        }
        codes = {name: arrays[f"code:{name}"] for name in dimensions}
        return cls(dimensions, codes, amounts, arrays["present"], arrays.get("absent"))


@dataclass(frozen=True)
class Month:
    """All grids of a calendar month. `days` are the days with accepted data, in order, also those without a charge."""

    first: date
    days: tuple[date, ...]
    values: Mapping[str, tuple[str, ...]]
    grids: tuple[Grid, ...]

    def grid_for(self, dimensions: frozenset[str]) -> Grid:
        """The narrowest grid that has these dimensions."""
        return min((grid for grid in self.grids if dimensions.issubset(grid.dimensions)), key=lambda grid: grid.width)

    @cached_property
    def positions(self) -> Mapping[str, Mapping[str, int]]:
        return {name: {value: code for code, value in enumerate(values)} for name, values in self.values.items()}


@dataclass(frozen=True)
class CostFrame:
    """An answer: `amounts` is [group, period] in floats for charts; everything that is a total is exact.

    `groups` are tuples of values in the order of `query.group_by`, largest exact total first, and one empty tuple
    when nothing is grouped; `present` is [group, period] and says where there was any charge. A period without any ingested day, or a blended cost that some charge lacks, is NaN:
    unknown is never 0. `total` is the exact sum whatever the grouping, None when no day of the range was ever
    ingested or the metric is not available for all of it.
    """

    query: CostQuery
    periods: tuple[date, ...]
    groups: tuple[tuple[str, ...], ...]
    amounts: NDArray[np.float64]
    present: NDArray[np.bool_]
    group_totals: tuple[Decimal | None, ...]
    total: Decimal | None
    days: tuple[date, ...]


class Rollup:
    """The months of one data version. Reading it is safe from any number of threads."""

    def __init__(self, version: int, months: Iterable[Month]) -> None:
        self.version = version
        self.months = tuple(sorted(months, key=lambda month: month.first))
        self.days: tuple[date, ...] = tuple(day for month in self.months for day in month.days)

    def frame(self, query: CostQuery) -> CostFrame:
        """Answer a question. Costs a few array operations for each month the range touches."""
        periods = _periods(query)
        gathered = _Gathered(len(periods))
        for month in self.months:
            _gather(month, query, periods, gathered)
        return gathered.frame(query, tuple(periods))

    def values_with_cost(self, dimension: str, query: CostQuery) -> list[tuple[str, Decimal | None]]:
        """Values of a dimension that occur under the query's other filters, largest cost first."""
        frame = self.frame(query.without(dimension).grouped(dimension).per("total"))
        return [(group[0], total) for group, total in zip(frame.groups, frame.group_totals, strict=True)]


def _periods(query: CostQuery) -> dict[date, int]:
    """Bucket → position; one bucket, the range's first day, for `total`."""
    if query.granularity == "total":
        return {query.range.start: 0}
    buckets = dict.fromkeys(bucket_of(day, query.granularity) for day in query.range)
    return {bucket: position for position, bucket in enumerate(buckets)}


@dataclass(frozen=True)
class _Part:
    """What one month adds: sums at groups `rows` × periods `columns`."""

    rows: NDArray[np.intp]
    columns: NDArray[np.intp]
    amounts: Amounts
    present: NDArray[np.bool_]
    absent: NDArray[np.bool_] | None


class _Gathered:
    """Sums per group and period, added up month by month."""

    def __init__(self, periods: int) -> None:
        self.periods = periods
        self.position: dict[tuple[str, ...], int] = {}
        self.parts: list[_Part] = []
        self.days: list[date] = []
        self.ingested = np.zeros(periods, np.bool_)

    def frame(self, query: CostQuery, periods: tuple[date, ...]) -> CostFrame:
        sums = zeros((len(self.position), self.periods))
        present, absent = np.zeros(sums.shape, np.bool_), np.zeros(sums.shape, np.bool_)
        for part in self.parts:
            _add_part(part, sums, present, absent)
        floats = sums.floats()
        floats[absent] = np.nan
        floats[:, ~self.ingested] = np.nan
        per_group = sums.sum(axis=1).normalised().decimals()
        lacking: list[bool] = np.any(absent, axis=1).tolist()
        totals = [None if lacks else value for value, lacks in zip(per_group, lacking, strict=True)]
        groups = list(self.position)
        shown = np.flatnonzero(present.any(axis=1)).tolist() if query.group_by else range(len(groups))
        order = sorted(shown, key=lambda i: (totals[i] is None, -(totals[i] or 0), groups[i]))
        return CostFrame(
            query=query,
            periods=periods,
            groups=tuple(groups[i] for i in order),
            amounts=floats[order],
            present=present[order],
            group_totals=tuple(totals[i] for i in order),
            total=sums.decimal() if self.days and not absent.any() else None,
            days=tuple(self.days),
        )


def _add_part(part: _Part, sums: Amounts, present: NDArray[np.bool_], absent: NDArray[np.bool_]) -> None:
    place = np.ix_(part.rows, part.columns)
    sums.high[place] += part.amounts.high
    sums.middle[place] += part.amounts.middle
    if part.amounts.low is not None and sums.low is not None:
        sums.low[place] += part.amounts.low
    present[place] |= part.present
    if part.absent is not None:
        absent[place] |= part.absent


def _gather(month: Month, query: CostQuery, periods: Mapping[date, int], gathered: _Gathered) -> None:
    rows = [row for row, day in enumerate(month.days) if day in query.range]
    if not rows:
        return
    days = [month.days[row] for row in rows]
    columns = [0 if query.granularity == "total" else periods[bucket_of(day, query.granularity)] for day in days]
    gathered.days.extend(days)
    gathered.ingested[columns] = True
    grid = month.grid_for(frozenset(query.group_by) | {name for name, _ in query.filters})
    chosen = _columns(month, grid, query.filters)
    if chosen is not None and not len(chosen):
        return
    groups, order, starts = _grouped(month, grid, query.group_by, chosen)
    where = np.array([gathered.position.setdefault(group, len(gathered.position)) for group in groups], np.intp)
    day_rows = slice(rows[0], rows[-1] + 1)
    bucket_starts = [i for i, column in enumerate(columns) if i == 0 or column != columns[i - 1]]

    def summed(part: NDArray[Any]) -> NDArray[Any]:
        picked = part[day_rows]
        if len(bucket_starts) < len(rows):
            # Fewer buckets than days: add the days up first, on the grid's own layout.
            picked = np.add.reduceat(picked, bucket_starts, axis=0, dtype=np.int64)
        if order is not None:
            picked = picked[:, order]
        return np.add.reduceat(picked, starts, axis=1, dtype=np.int64).T

    wants_absent = query.metric == MAY_BE_ABSENT and grid.absent is not None
    gathered.parts.append(
        _Part(
            rows=where,
            columns=np.array([columns[i] for i in bucket_starts], np.intp),
            amounts=grid.amounts[query.metric].map(summed),
            present=summed(grid.present) > 0,
            absent=summed(grid.absent) > 0 if wants_absent and grid.absent is not None else None,
        )
    )


def _columns(month: Month, grid: Grid, filters: tuple[tuple[str, tuple[str, ...]], ...]) -> NDArray[np.intp] | None:
    """Positions of the grid's columns that pass the filters; None for all of them."""
    if not filters:
        return None
    passing: NDArray[np.bool_] | None = None
    for name, values in filters:
        known = month.positions[name]
        codes = [known[value] for value in values if value in known]
        here = grid.codes[name] == codes[0] if len(codes) == 1 else np.isin(grid.codes[name], codes)
        passing = here if passing is None else passing & here
    assert passing is not None
    return np.flatnonzero(passing)


def _grouped(
    month: Month, grid: Grid, group_by: tuple[str, ...], chosen: NDArray[np.intp] | None
) -> tuple[list[tuple[str, ...]], NDArray[np.intp] | None, NDArray[np.intp]]:
    """Groups, the order of columns that puts each group together, and where each group starts in that order."""
    if chosen is None and group_by in grid.memo:
        found: tuple[list[tuple[str, ...]], NDArray[np.intp] | None, NDArray[np.intp]] = grid.memo[group_by]
        return found
    if not group_by:
        return [()], chosen, np.zeros(1, np.intp)
    key = np.zeros(grid.width if chosen is None else len(chosen), np.int64)
    for name in group_by:
        codes = grid.codes[name] if chosen is None else grid.codes[name][chosen]
        key = key * len(month.values[name]) + codes
    order = np.argsort(key, kind="stable")
    keys, starts = np.unique(key[order], return_index=True)
    parts = []
    for name in reversed(group_by):
        keys, code = np.divmod(keys, len(month.values[name]))
        parts.append([month.values[name][i] for i in code.tolist()])
    groups = list(zip(*reversed(parts), strict=True))
    result = groups, order if chosen is None else chosen[order], starts
    if chosen is None:
        grid.memo[group_by] = result
    return result


def month_with(base: Month | None, first: date, days: Sequence[DayColumns]) -> Month:
    """A month in which these whole days replace what `base` had for them; its other days stay as they are."""
    new = {day.day: day for day in days}
    kept = {day: row for row, day in enumerate(base.days) if day not in new} if base else {}
    dates = tuple(sorted({*new, *kept}))
    values: dict[str, tuple[str, ...]] = {}
    codes: dict[str, list[Codes]] = {}
    for name in DIMENSIONS:
        # Codes of the base stay what they are: new values are appended.
        known = {value: code for code, value in enumerate(base.values[name])} if base else {}
        recode = [[known.setdefault(value, len(known)) for value in day.values[name]] for day in new.values()]
        values[name] = tuple(known)
        codes[name] = [
            np.array(table or [0], np.int32)[day.codes[name]] for table, day in zip(recode, new.values(), strict=True)
        ]
    building = _Building(dates, values, codes, list(new.values()), kept)
    grids = [building.grid(names, base) for names in (DIMENSIONS, *SMALL_GRIDS)]
    return Month(first, dates, values, tuple(grids))


_GRID_ORDER: Final = ("account", "service", "region", "provider", "charge_category")
"""Columns are sorted by account first: a page filtered to one account reads neighbours."""


@dataclass(frozen=True)
class _Building:
    dates: tuple[date, ...]
    values: Mapping[str, tuple[str, ...]]
    codes: Mapping[str, list[Codes]]
    new: Sequence[DayColumns]
    kept: Mapping[date, int]

    def grid(self, dimensions: tuple[str, ...], base: Month | None) -> Grid:
        """Sum the new days into the combinations that occur, and move the kept days' columns to their new places."""
        names: list[str] = [name for name in _GRID_ORDER if name in dimensions]
        old = next((grid for grid in base.grids if grid.dimensions == dimensions), None) if base and self.kept else None
        keys = [self._key(names, [self.codes[name][i] for name in names]) for i in range(len(self.new))]
        old_key = self._key(names, [old.codes[name] for name in names]) if old else np.zeros(0, np.int64)
        combinations = np.unique(np.concatenate([old_key, *keys]))
        shape = len(self.dates), len(combinations)
        places = [np.searchsorted(combinations, key) for key in keys]
        rows = [self.dates.index(day.day) for day in self.new]
        old_place = np.searchsorted(combinations, old_key)
        kept_rows = [self.dates.index(day) for day in self.kept], list(self.kept.values())
        amounts = {}
        for metric in METRICS:
            sums = zeros(shape)
            for row, place, day in zip(rows, places, self.new, strict=True):
                _add_day(sums, row, place, day.amounts[metric])
            if old:
                _move_kept(sums, kept_rows, old_place, old.amounts[metric])
            amounts[metric] = sums.normalised()
        present, absent = np.zeros(shape, np.bool_), np.zeros(shape, np.bool_)
        for row, place, day in zip(rows, places, self.new, strict=True):
            present[row, place[day.nonzero()]] = True
            if day.absent is not None:
                absent[row, place[day.absent]] = True
        if old:
            present[np.ix_(np.array(kept_rows[0], np.intp), old_place)] = old.present[kept_rows[1]]
            if old.absent is not None:
                absent[np.ix_(np.array(kept_rows[0], np.intp), old_place)] = old.absent[kept_rows[1]]
        return Grid(dimensions, self._codes(names, combinations), amounts, present, absent if absent.any() else None)

    def _key(self, names: list[str], codes: Sequence[Codes]) -> NDArray[np.int64]:
        key = np.zeros(len(codes[0]), np.int64)
        for name, code in zip(names, codes, strict=True):
            key = key * max(len(self.values[name]), 1) + code
        return key

    def _codes(self, names: list[str], key: NDArray[np.int64]) -> dict[str, Codes]:
        found = {}
        for name in reversed(names):
            key, code = np.divmod(key, max(len(self.values[name]), 1))
            found[name] = code.astype(np.int32)
        return found


def _add_day(sums: Amounts, row: int, place: NDArray[np.intp], day: Amounts) -> None:
    _add_at(sums.high[row], place, day.high)
    _add_at(sums.middle[row], place, day.middle)
    if day.low is not None and sums.low is not None:
        _add_at(sums.low[row], place, day.low)


def _move_kept(sums: Amounts, rows: tuple[list[int], list[int]], place: NDArray[np.intp], old: Amounts) -> None:
    to, source = np.ix_(np.array(rows[0], np.intp), place), rows[1]
    sums.high[to] = old.high[source]
    sums.middle[to] = old.middle[source]
    if old.low is not None and sums.low is not None:
        sums.low[to] = old.low[source]


def _add_at(target: NDArray[Any], place: NDArray[np.intp], values: NDArray[Any]) -> None:
    """target[place] += values with repeated places. bincount adds floats, so it is used only while they are exact."""
    if len(values) and float(np.abs(values).max()) * len(values) < 2**53:
        target += np.bincount(place, weights=values, minlength=len(target)).astype(np.int64)
    else:
        np.add.at(target, place, values)
