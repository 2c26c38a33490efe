"""The read model: what pages and the API ask, never the raw charges.

A month is kept as a few grids. A grid has one column per combination of some dimensions that occurs in the month and
one row per ingested day, with exact amounts (core.amounts) for every metric. The grid over all dimensions answers
everything; the small ones over two dimensions answer what a page asks most, in a time that does not depend on how
many charges a day has. A restated day rebuilds its own month only. Grids are plain arrays, so a store can map them
from a file that all web processes share.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from decimal import Decimal
from functools import cached_property
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from app.core.amounts import Amounts, zeros
from app.core.charges import DIMENSIONS, MAY_BE_ABSENT, METRICS
from app.core.periods import DateRange, bucket_of
from app.core.query import CostQuery

SMALL_GRIDS: Final = (("service", "region"), ("account", "service"), ("account", "region"))
Codes = NDArray[np.int32]
AnyArray = NDArray[Any]


@dataclass(frozen=True)
class DayColumns:
    """One day's charges as columns, whatever their order: what a month is rolled up from.

    `codes[dimension]` are positions in `values[dimension]`; `amounts[metric]` has one normalised value a charge;
    `absent` marks the charges without a blended cost (None: all have one); their amount is 0. `units` has the usage
    units of each service's charges, "" where a file said none.
    """

    day: date
    values: Mapping[str, Sequence[str]]
    codes: Mapping[str, Codes]
    amounts: Mapping[str, Amounts]
    absent: NDArray[np.bool_] | None = None
    units: Mapping[str, frozenset[str]] = field(default_factory=dict)

    def __len__(self) -> int:
        return self.amounts[METRICS[0]].shape[0]

    def counting(self) -> DayColumns:
        """The day without its all-zero charges: an all-zero charge equals no charge."""
        counts = self.nonzero()
        if counts.all():
            return self
        return DayColumns(
            day=self.day,
            values=self.values,
            codes={name: codes[counts] for name, codes in self.codes.items()},
            amounts={metric: amounts.map(lambda part: part[counts]) for metric, amounts in self.amounts.items()},
            absent=None if self.absent is None else self.absent[counts],
            units=self.units,
        )

    def nonzero(self) -> NDArray[np.bool_]:
        """Where a charge is not all zero."""
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
    """All grids of a calendar month. `days` are the days with accepted data, in order, also those without a charge.

    `units` has the usage units of each service's charges in the month.
    """

    first: date
    days: tuple[date, ...]
    values: Mapping[str, tuple[str, ...]]
    grids: tuple[Grid, ...]
    units: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    def touches(self, days: DateRange) -> bool:
        return bool(self.days) and self.days[0] < days.end and days.start <= self.days[-1]

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
    exact: Amounts | None = None
    """`amounts` before they became floats, for rows that add up; says nothing where those are NaN."""


class Rollup:
    """The months of one data version. Reading it is safe from any number of threads."""

    def __init__(self, version: int, months: Iterable[Month]) -> None:
        self.version = version
        self.months = tuple(sorted(months, key=lambda month: month.first))
        self.days: tuple[date, ...] = tuple(day for month in self.months for day in month.days)

    def frame(self, query: CostQuery) -> CostFrame:
        """Answer a question. Costs a few array operations for each month the range touches."""
        periods = periods_of(query)
        gathered = _Gathered(len(periods))
        for month in self.months:
            if month.touches(query.range):
                _gather(month, query, periods, gathered)
        return gathered.frame(query, tuple(periods))

    def values_with_cost(self, dimension: str, query: CostQuery) -> list[tuple[str, Decimal | None]]:
        """Values of a dimension that occur under the query's other filters, largest cost first."""
        frame = self.frame(query.without(dimension).grouped(dimension).per("total"))
        return [(group[0], total) for group, total in zip(frame.groups, frame.group_totals, strict=True)]

    def units(self, query: CostQuery) -> dict[str, str | None]:
        """The usage unit of each service under the query's service filter; None when it has several or none."""
        found: dict[str, set[str]] = {}
        services = query.values("service")
        for month in self.months:
            if month.touches(query.range):
                for service, units in month.units.items():
                    if not services or service in services:
                        found.setdefault(service, set()).update(units)
        return {service: next(iter(units)) or None if len(units) == 1 else None for service, units in found.items()}


def periods_of(query: CostQuery) -> dict[date, int]:
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

    def places(self, groups: Sequence[tuple[str, ...]]) -> NDArray[np.intp]:
        """Row of each group; new ones get the next."""
        known = self.position
        if not known:
            known.update(zip(groups, range(len(groups)), strict=True))
            return np.arange(len(groups), dtype=np.intp)
        return np.array([known.setdefault(group, len(known)) for group in groups], np.intp)

    def frame(self, query: CostQuery, periods: tuple[date, ...]) -> CostFrame:
        if not query.group_by:
            self.position.setdefault((), 0)
        sums = zeros((len(self.position), self.periods))
        present, absent = np.zeros(sums.shape, np.bool_), np.zeros(sums.shape, np.bool_)
        for part in self.parts:
            _add_part(part, sums, present, absent)
        floats = sums.floats()
        floats[absent] = np.nan
        floats[:, ~self.ingested] = np.nan
        lacking: list[bool] = np.any(absent, axis=1).tolist()
        per_group = sums.sum(axis=1).normalised()
        groups = list(self.position)
        shown = np.flatnonzero(present.any(axis=1)) if query.group_by else np.arange(len(groups))
        order = _largest_first(per_group, lacking, groups, shown.tolist())
        exact = per_group.map(lambda part: part[order]).decimals()
        return CostFrame(
            query=query,
            periods=periods,
            groups=tuple(groups[i] for i in order),
            amounts=floats[order],
            present=present[order],
            group_totals=tuple(
                None if lacking[i] or not self.days else value for i, value in zip(order, exact, strict=True)
            ),
            total=sums.decimal() if self.days and not absent.any() else None,
            days=tuple(self.days),
            exact=sums.map(lambda part: part[order]),
        )


def _largest_first(
    amounts: Amounts, lacking: Sequence[bool], groups: Sequence[tuple[str, ...]], shown: Sequence[int]
) -> list[int]:
    """The shown groups by exact amount, equal ones by name; those without an amount last."""
    at = np.array(shown, np.intp)
    low = np.zeros_like(amounts.high) if amounts.low is None else amounts.low
    keys = np.stack([np.array(lacking, np.int64), -amounts.high, -amounts.middle, -low])[:, at]
    order = np.lexsort(keys[::-1])
    if not (np.diff(keys[:, order], axis=1) == 0).all(axis=0).any():
        return [shown[i] for i in order.tolist()]
    columns: list[list[int]] = keys.T.tolist()
    return [shown[i] for i in sorted(range(len(shown)), key=lambda i: (columns[i], groups[shown[i]]))]


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
    if not (grid.width if chosen is None else len(chosen)):
        return
    groups, order, starts = _grouped(month, grid, query.group_by, chosen)
    where = gathered.places(groups)
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
    codes = [grid.codes[name] if chosen is None else grid.codes[name][chosen] for name in group_by]
    key, _ = combined(codes, [len(month.values[name]) for name in group_by])
    order = np.argsort(key, kind="stable")
    starts = np.flatnonzero(_starts(key[order]))
    first = order[starts]
    parts = [[month.values[name][i] for i in code[first].tolist()] for name, code in zip(group_by, codes, strict=True)]
    groups = list(zip(*parts, strict=True))
    result = groups, order if chosen is None else chosen[order], starts
    if chosen is None:
        grid.memo[group_by] = result
    return result


def month_with(base: Month | None, first: date, days: Sequence[DayColumns]) -> Month:
    """A month in which these whole days replace what `base` had for them; its other days stay as they are."""
    new = {day.day: day for day in days}
    kept = {day: row for row, day in enumerate(base.days) if day not in new} if base else {}
    return _built(base, first, [day.counting() for day in new.values()], kept)


def month_without(base: Month, gone: Collection[date]) -> Month:
    """The month as if these days had never been ingested."""
    return _built(base, base.first, [], {day: row for row, day in enumerate(base.days) if day not in gone})


def _built(base: Month | None, first: date, new: Sequence[DayColumns], kept: Mapping[date, int]) -> Month:
    dates = tuple(sorted({*kept, *(day.day for day in new)}))
    values: dict[str, tuple[str, ...]] = {}
    codes: dict[str, list[Codes]] = {}
    for name in DIMENSIONS:
        # Codes of the base stay what they are: new values are appended.
        known = {value: code for code, value in enumerate(base.values[name])} if base else {}
        codes[name] = [_recoded(day.codes[name], day.values[name], known) for day in new]
        values[name] = tuple(known)
    rows = {day: row for row, day in enumerate(dates)}
    building = _Building(
        values=values,
        codes=codes,
        new=[(rows[day.day], day) for day in new],
        kept=[(rows[day], row) for day, row in kept.items()],
        height=len(dates),
    )
    grids = [building.grid(names, base) for names in (DIMENSIONS, *SMALL_GRIDS)]
    return Month(first, dates, values, tuple(grids), _units(base if kept else None, new))


def _units(base: Month | None, new: Sequence[DayColumns]) -> dict[str, tuple[str, ...]]:
    found = {service: set(units) for service, units in base.units.items()} if base else {}
    for day in new:
        for service, units in day.units.items():
            found.setdefault(service, set()).update(units)
    return {service: tuple(sorted(units)) for service, units in sorted(found.items())}


def _recoded(codes: Codes, values: Sequence[str], known: dict[str, int]) -> Codes:
    """Positions in `values` as positions in `known`, which takes up the values it lacks."""
    table = np.fromiter((known.setdefault(value, len(known)) for value in values), np.int32, len(values))
    return table[codes] if len(table) else codes


@dataclass(frozen=True)
class _Building:
    """`new` has (row, day), `kept` has (row, row in the base); `height` is how many rows."""

    values: Mapping[str, tuple[str, ...]]
    codes: Mapping[str, list[Codes]]
    new: Sequence[tuple[int, DayColumns]]
    kept: Sequence[tuple[int, int]]
    height: int

    def grid(self, dimensions: tuple[str, ...], base: Month | None) -> Grid:
        """Sum the new days into the combinations that occur, and move the kept days' columns to their new places."""
        old = next((grid for grid in base.grids if grid.dimensions == dimensions), None) if base and self.kept else None
        alive = _alive(old, [row for _, row in self.kept]) if old else np.zeros(0, np.intp)
        together = {
            name: np.concatenate([old.codes[name][alive] if old else alive.astype(np.int32), *self.codes[name]])
            for name in dimensions
        }
        first, place = _distinct(*combined(list(together.values()), [len(self.values[name]) for name in dimensions]))
        columns = _Columns(len(first), self.height, self.kept, _moved(alive, place, len(first), old))
        ends = np.cumsum([len(alive), *(len(day) for _, day in self.new)])
        days = [
            _NewDay(row, day, part, len(first))
            for (row, day), part in zip(self.new, np.split(place, ends[:-1])[1:], strict=True)
        ]
        return Grid(
            dimensions=dimensions,
            codes={name: codes[first] for name, codes in together.items()},
            amounts={
                metric: columns.amounts(
                    old.amounts[metric] if old else None, [(day.row, day.summed(metric)) for day in days]
                )
                for metric in METRICS
            },
            present=columns.filled(
                np.dtype(np.bool_), old.present if old else None, [(day.row, day.present()) for day in days]
            ),
            absent=columns.absent(old.absent if old else None, [(day.row, day.absent()) for day in days]),
        )


def _alive(grid: Grid, rows: list[int]) -> NDArray[np.intp]:
    """Columns that still hold a charge on one of these rows: the others are forgotten."""
    found = np.zeros(grid.width, np.bool_)
    for row in rows:
        found |= grid.present[row]
    return np.flatnonzero(found)


def combined(codes: Sequence[Codes], sizes: Sequence[int]) -> tuple[NDArray[np.int64], int]:
    """One integer per combination of codes, ordered as they are, and how many there could be.

    Made dense again before it would leave 63 bits, as five columns of very many values could.
    """
    key, span = np.zeros(len(codes[0]), np.int64), 1
    for code, size in zip(codes, sizes, strict=True):
        if span * size >= 2**62:
            first, key = _distinct(key, span)
            span = len(first)
        key = key * size + code
        span *= max(size, 1)
    return key, span


def _distinct(key: NDArray[np.int64], span: int) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Where each distinct key (in order) is found once, and which of them each key is; 0 ≤ key < span."""
    if (key[1:] > key[:-1]).all():
        here = np.arange(len(key))
        return here, here
    if span <= 8 * len(key):
        found = np.full(span, -1, np.intp)
        found[key] = np.arange(len(key))
        occurs = found >= 0
        return found[occurs], (np.cumsum(occurs) - 1)[key]
    order = np.argsort(key, kind="stable")
    starts = _starts(key[order])
    place = np.empty(len(key), np.intp)
    place[order] = np.cumsum(starts) - 1
    return order[starts], place


def _starts(ordered: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Where a new value begins."""
    starts = np.ones(len(ordered), np.bool_)
    np.not_equal(ordered[1:], ordered[:-1], out=starts[1:])
    return starts


def _moved(alive: NDArray[np.intp], place: NDArray[np.intp], width: int, old: Grid | None) -> NDArray[np.intp] | None:
    """Column of the old grid for each new column, -1 for none; None when the columns are the same."""
    if old is not None and len(alive) == old.width == width:
        return None
    found = np.full(width, -1, np.intp)
    found[place[: len(alive)]] = alive
    return found


@dataclass(frozen=True)
class _NewDay:
    """A day on its way into a row: `place` has the column of each charge."""

    row: int
    day: DayColumns
    place: NDArray[np.intp]
    width: int

    @cached_property
    def in_order(self) -> bool:
        """Whether the charges are the columns, one each."""
        return len(self.place) == self.width and bool((self.place == np.arange(self.width)).all())

    def summed(self, metric: str) -> Amounts:
        amounts = self.day.amounts[metric]
        if self.in_order:
            return amounts
        return amounts.map(lambda part: summed_at(part, self.place, self.width)).normalised()

    def present(self) -> NDArray[np.bool_]:
        found = np.zeros(self.width, np.bool_)
        found[self.place] = True
        return found

    def absent(self) -> NDArray[np.bool_] | None:
        if self.day.absent is None:
            return None
        found = np.zeros(self.width, np.bool_)
        found[self.place[self.day.absent]] = True
        return found


@dataclass(frozen=True)
class _Columns:
    """The shape of a new grid and where the rows it keeps come from (`moved` as in _moved)."""

    width: int
    height: int
    kept: Sequence[tuple[int, int]]
    moved: NDArray[np.intp] | None

    @cached_property
    def missing(self) -> NDArray[np.intp]:
        return np.flatnonzero(self.moved < 0) if self.moved is not None else np.zeros(0, np.intp)

    def amounts(self, old: Amounts | None, new: Sequence[tuple[int, Amounts]]) -> Amounts:
        """Parts as small as they can be: `high` is int32 as long as no value reaches 200,000."""
        small = (old is None or old.high.dtype == np.int32) and all(_fits_int32(amounts.high) for _, amounts in new)
        high = np.dtype(np.int32) if small else np.dtype(np.int64)
        limb = np.dtype(np.int32)
        low = [(row, amounts.low) for row, amounts in new]
        old_low = old.low if old else None
        has_low = old_low is not None or any(part is not None for _, part in low)
        return Amounts(
            high=self.filled(high, old.high if old else None, [(row, amounts.high) for row, amounts in new]),
            middle=self.filled(limb, old.middle if old else None, [(row, amounts.middle) for row, amounts in new]),
            low=self.filled(limb, old_low, low) if has_low else None,
        )

    def absent(
        self, old: NDArray[np.bool_] | None, new: Sequence[tuple[int, NDArray[np.bool_] | None]]
    ) -> NDArray[np.bool_] | None:
        if old is None and all(row is None for _, row in new):
            return None
        found = self.filled(np.dtype(np.bool_), old, new)
        return found if found.any() else None

    def filled(
        self, dtype: np.dtype[Any], old: AnyArray | None, new: Sequence[tuple[int, AnyArray | None]]
    ) -> AnyArray:
        """[row, column] of the kept rows of `old` and of the new rows; what is None is zero."""
        found = np.empty((self.height, self.width), dtype)
        for row, source in self.kept:
            self._keep(found[row], None if old is None else old[source])
        for row, values in new:
            found[row] = 0 if values is None else values
        return found

    def _keep(self, target: AnyArray, source: AnyArray | None) -> None:
        if source is None or not len(source):
            target[:] = 0
        elif self.moved is None:
            target[:] = source
        else:
            target[:] = source[self.moved]
            target[self.missing] = 0


def _fits_int32(values: AnyArray) -> bool:
    return values.dtype == np.int32 or not len(values) or bool(values.min() >= -(2**31) and values.max() < 2**31)


def summed_at(values: AnyArray, place: NDArray[np.intp], width: int) -> AnyArray:
    """Sums of values by place. bincount adds floats, so it is used only while they are exact."""
    if not len(values) or max(-float(values.min()), float(values.max())) * len(values) < 2**53:
        return np.bincount(place, weights=values, minlength=width).astype(np.int64)
    sums = np.zeros(width, np.int64)
    np.add.at(sums, place, values)
    return sums
