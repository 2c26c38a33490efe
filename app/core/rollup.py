"""The read model: what pages and the API ask, never the raw charges.

A month is kept as a few grids. A grid has one column per combination of some dimensions that occurs in the month and
one row per ingested day, with exact amounts (core.amounts) for every metric. The grid over all dimensions answers
everything; the small ones over two dimensions answer what a page asks most, in a time that does not depend on how
many charges a day has. A restated day rebuilds its own month only. Grids are plain arrays, so a store can map them
from a file that all web processes share.
"""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import date
from decimal import Decimal
from functools import cached_property, lru_cache
from itertools import chain
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from app.core.amounts import Amounts
from app.core.charges import DIMENSIONS, MAY_BE_ABSENT, METRICS
from app.core.periods import DateRange, bucket_of
from app.core.query import CostQuery

SMALL_GRIDS: Final = (
    ("service", "region"),
    ("account", "service"),
    ("account", "region"),
    ("service",),
    ("region",),
    ("account",),
)
Codes = NDArray[np.int32]
AnyArray = NDArray[Any]
Filters = tuple[tuple[str, tuple[str, ...]], ...]

MOST_PLANS: Final = 100
"""Of a read model: one takes eight bytes for each column that is chosen, and a page uses a dozen or two."""

ROOM: Final = 8
"""Months are added up in a table of all combinations of values where it is at most so many times as wide as they are."""


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
        return np.asarray(np.logical_or.reduce([amounts.nonzero() for amounts in self.amounts.values()]))


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

    @property
    def width(self) -> int:
        return len(self.codes[self.dimensions[0]])

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Everything it holds by name, to be written; `Grid.of` is the way back."""
        found: dict[str, NDArray[Any]] = {f"code:{name}": codes for name, codes in self.codes.items()}
        found |= {metric: amounts.parts for metric, amounts in self.amounts.items()}
        found["present"] = self.present
        return found if self.absent is None else found | {"absent": self.absent}

    @classmethod
    def of(cls, dimensions: tuple[str, ...], arrays: Mapping[str, NDArray[Any]]) -> Grid:
        amounts = {metric: Amounts(arrays[metric]) for metric in METRICS}
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
class Labels:
    """The values of each group: `codes[i]` has their places in `texts[i]`, for each dimension in the order of a query's
    `group_by`. Each text is there once, and not all need to occur."""

    texts: tuple[Sequence[str], ...]
    codes: tuple[NDArray[Any], ...]

    def first(self, most: int | None = None) -> tuple[tuple[str, ...], ...]:
        """Values of the first groups, one empty tuple when nothing is grouped."""
        if not self.texts:
            return ((),)
        return tuple(
            zip(
                *(
                    map(texts.__getitem__, codes[:most].tolist())
                    for texts, codes in zip(self.texts, self.codes, strict=True)
                ),
                strict=True,
            )
        )


@dataclass(frozen=True)
class CostFrame:
    """An answer: `amounts` is [group, period] in floats for charts; everything that is a total is exact.

    `labels` and `groups` have values in the order of `query.group_by`, the group of the largest exact total first, and
    one empty tuple when nothing is grouped; `present` is [group, period] and says where there was any charge. A period without any
    ingested day, or a blended cost that some charge lacks, is NaN: unknown is never 0. `exact` is `amounts` before
    they became floats and says nothing where those are NaN; `lacking` marks groups whose total is not available.
    `total` is the exact sum whatever the grouping, None when no day of the range was ever ingested or the metric is
    not available for all of it.
    """

    query: CostQuery
    periods: tuple[date, ...]
    labels: Labels
    amounts: NDArray[np.float64]
    present: NDArray[np.bool_]
    exact: Amounts
    lacking: NDArray[np.bool_]
    total: Decimal | None
    days: tuple[date, ...]

    @cached_property
    def groups(self) -> tuple[tuple[str, ...], ...]:
        return self.labels.first()

    @cached_property
    def group_totals(self) -> tuple[Decimal | None, ...]:
        return self.largest(len(self.amounts))

    def largest(self, most: int) -> tuple[Decimal | None, ...]:
        """Totals of the first groups."""
        if not self.days:
            return (None,) * min(most, len(self.amounts))
        values = Amounts(self.exact.parts[:, :most].sum(axis=2, dtype=np.int64)).decimals()
        lacking = self.lacking[:most].tolist()
        return tuple(None if lacks else value for value, lacks in zip(values, lacking, strict=True))


class Rollup:
    """The months of one data version. Reading it is safe from any number of threads."""

    def __init__(self, version: int, months: Iterable[Month]) -> None:
        self.version = version
        self.months = tuple(sorted(months, key=lambda month: month.first))
        self.days: tuple[date, ...] = tuple(day for month in self.months for day in month.days)
        self._values: dict[str, _Values] = {}
        self._firsts = [month.first for month in self.months]
        self._plans: dict[tuple[int, tuple[str, ...], Filters], _Plan] = {}
        self._units: dict[tuple[int, ...], dict[str, str | None]] = {}

    def frame(self, query: CostQuery) -> CostFrame:
        """Answer a question. Costs a few array operations for each month the range touches."""
        periods = tuple(periods_of(query.range, query.granularity))
        parts = [part for place in self._touched(query.range) if (part := self._part(place, query)) is not None]
        merged = _merged(parts, [self._values_of(name) for name in query.group_by], len(periods))
        shown = merged.order if query.group_by else np.zeros(1, np.intp)
        exact = Amounts(merged.sums.take(shown, axis=2).transpose(0, 2, 1))
        days = tuple(chain.from_iterable(part.span.days for part in parts))
        amounts = exact.floats()
        lacking = np.zeros(len(shown), np.bool_)
        if merged.absent is not None:
            absent = merged.absent.take(shown, axis=1).T
            lacking |= absent.any(axis=1)
            amounts[absent] = np.nan
        if len(days) < len(query.range):
            amounts[:, ~merged.ingested] = np.nan
        return CostFrame(
            query=query,
            periods=periods,
            labels=merged.labels(shown),
            amounts=amounts,
            present=merged.present.take(shown, axis=1).T,
            exact=exact,
            lacking=lacking,
            total=exact.decimal() if days and not lacking.any() else None,
            days=days,
        )

    def values_with_cost(self, dimension: str, query: CostQuery) -> list[tuple[str, Decimal | None]]:
        """Values of a dimension that occur under the query's other filters, largest cost first."""
        frame = self.frame(query.without(dimension).grouped(dimension).per("total"))
        return [(group[0], total) for group, total in zip(frame.groups, frame.group_totals, strict=True)]

    def units(self, query: CostQuery) -> dict[str, str | None]:
        """The usage unit of each service under the query's service filter; None when it has several or none."""
        places = tuple(place for place in self._touched(query.range) if self.months[place].touches(query.range))
        found = self._units.get(places)
        if found is None:
            found = self._units[places] = _units_over(self.months[place] for place in places)
        services = query.values("service")
        return {name: unit for name, unit in found.items() if not services or name in services}

    def _touched(self, days: DateRange) -> range:
        """Places of the months that may have a day of the range."""
        first = bisect_right(self._firsts, days.start) - 1
        return range(max(first, 0), bisect_left(self._firsts, days.end))

    def _part(self, place: int, query: CostQuery) -> _Part | None:
        """What one month adds to an answer; None when it has no day of the range."""
        span = _span(self.months[place].days, query.range, query.granularity)
        if span is None:
            return None
        plan = self._plan(place, query)
        grid = plan.grid
        lacks = query.metric == MAY_BE_ABSENT and grid.absent is not None
        return _Part(
            span=span,
            plan=plan,
            sums=_summed(grid.amounts[query.metric].parts, span, plan),
            present=_any(grid.present, span, plan),
            absent=_any(grid.absent, span, plan) if lacks and grid.absent is not None else None,
        )

    def _plan(self, place: int, query: CostQuery) -> _Plan:
        """How a month's columns become groups. Kept: a page asks the same of every metric, and of the days before."""
        key = place, query.group_by, query.filters
        kept = self._plans.get(key)
        if kept is None:
            if len(self._plans) >= MOST_PLANS:
                self._plans.clear()
            kept = self._plans[key] = self._planned(self.months[place], *key)
        return kept

    def _planned(self, month: Month, place: int, group_by: tuple[str, ...], filters: Filters) -> _Plan:
        grid = month.grid_for(frozenset(group_by) | {name for name, _ in filters})
        codes = [self._values_of(name).of_month[place][grid.codes[name]] for name in group_by]
        sizes = [len(self._values_of(name).texts) for name in group_by]
        return _planned(grid, codes, sizes, _columns(month, grid, filters))

    def _values_of(self, dimension: str) -> _Values:
        if dimension not in self._values:
            self._values[dimension] = _Values.over(dimension, self.months)
        return self._values[dimension]


@dataclass(frozen=True)
class _Values:
    """The values of one dimension over all months: each month's codes as codes in `texts`, and their order by name."""

    texts: tuple[str, ...]
    of_month: tuple[Codes, ...]
    rank: NDArray[np.intp]

    @classmethod
    def over(cls, dimension: str, months: Sequence[Month]) -> _Values:
        known: dict[str, int] = {}
        tables = [
            np.fromiter((known.setdefault(text, len(known)) for text in month.values[dimension]), np.int32)
            for month in months
        ]
        texts = tuple(known)
        rank = np.empty(len(texts), np.intp)
        rank[sorted(range(len(texts)), key=texts.__getitem__)] = np.arange(len(texts))
        return cls(texts, tuple(tables), rank)


def _units_over(months: Iterable[Month]) -> dict[str, str | None]:
    """The unit of each service's charges, None where there are several or none was said."""
    found: dict[str, set[str]] = {}
    for month in months:
        for service, units in month.units.items():
            found.setdefault(service, set()).update(units)
    return {service: next(iter(units)) or None if len(units) == 1 else None for service, units in found.items()}


@lru_cache(maxsize=256)
def periods_of(days: DateRange, granularity: str) -> Mapping[date, int]:
    """Bucket → position; one bucket, the range's first day, for `total`."""
    if granularity == "total":
        return {days.start: 0}
    buckets = dict.fromkeys(bucket_of(day, granularity) for day in days)
    return {bucket: position for position, bucket in enumerate(buckets)}


@dataclass(frozen=True)
class _Span:
    """The rows of a month that a question takes: `starts` is the first of each period that has one (None: a row each).

    `periods` are the positions of those periods in the answer, a slice where none is left out.
    """

    rows: slice
    days: tuple[date, ...]
    starts: NDArray[np.intp] | None
    periods: NDArray[np.intp] | slice


@lru_cache(maxsize=1024)
def _span(days: tuple[date, ...], asked: DateRange, granularity: str) -> _Span | None:
    rows = [row for row, day in enumerate(days) if day in asked]
    if not rows:
        return None
    known = periods_of(asked, granularity)
    taken = days[rows[0] : rows[-1] + 1]
    places = [0 if granularity == "total" else known[bucket_of(day, granularity)] for day in taken]
    starts = [i for i, place in enumerate(places) if i == 0 or place != places[i - 1]]
    first, last = places[0], places[-1]
    unbroken = last - first + 1 == len(starts)
    return _Span(
        rows=slice(rows[0], rows[-1] + 1),
        days=taken,
        starts=np.array(starts, np.intp) if len(starts) < len(taken) else None,
        periods=slice(first, last + 1) if unbroken else np.array([places[i] for i in starts], np.intp),
    )


@dataclass(frozen=True)
class _Plan:
    """Groups of a grid's columns: their codes by dimension, the order that puts each together, where each starts in it.

    `among_all` are their places among all combinations of codes there could be, ascending (see `combined`).
    `order` None is the grid's own; `starts` None is every column for itself.
    """

    grid: Grid
    codes: Sequence[Codes]
    among_all: NDArray[np.intp] | slice
    order: NDArray[np.intp] | None
    starts: NDArray[np.intp] | None


def _planned(grid: Grid, codes: Sequence[Codes], sizes: Sequence[int], chosen: NDArray[np.intp] | None) -> _Plan:
    if not codes:
        some = grid.width if chosen is None else len(chosen)
        return _Plan(grid, (), slice(min(some, 1)), chosen, np.zeros(min(some, 1), np.intp))
    picked = codes if chosen is None else [code[chosen] for code in codes]
    key, _ = combined(picked, sizes)
    order = np.argsort(key, kind="stable")
    starts = np.flatnonzero(_starts(key[order]))
    first = order[starts]
    whole = chosen is None and bool((order == np.arange(grid.width)).all())
    return _Plan(
        grid,
        codes=[code[first] for code in picked],
        among_all=_unbroken(key[first]),
        order=None if whole else order if chosen is None else chosen[order],
        starts=starts if len(starts) < len(order) else None,
    )


@dataclass(frozen=True)
class _Part:
    """What one month adds: `sums` is [part, period of the span, group], `present` and `absent` are [period, group]."""

    span: _Span
    plan: _Plan
    sums: AnyArray
    present: NDArray[np.bool_]
    absent: NDArray[np.bool_] | None


def _together(cells: AnyArray, span: _Span, plan: _Plan, adding: np.ufunc, dtype: type[np.generic]) -> AnyArray:
    """A grid's [..., day, column] by period and group."""
    picked = cells[..., span.rows, :]
    if span.starts is not None:
        picked = _reduced(picked, span.starts, -2, adding, dtype)
    if plan.order is not None:
        picked = picked.take(plan.order, axis=-1)
    if plan.starts is None:
        return picked
    return _reduced(picked, plan.starts, -1, adding, dtype) if len(plan.starts) else picked[..., :0]


def _reduced(
    cells: AnyArray, starts: NDArray[np.intp], axis: int, adding: np.ufunc, dtype: type[np.generic]
) -> AnyArray:
    """`adding.reduceat`, which is slow where all of it is one."""
    if len(starts) == 1:
        return np.asarray(adding.reduce(cells, axis=axis, dtype=dtype, keepdims=True))
    return adding.reduceat(cells, starts, axis=axis, dtype=dtype)


def _summed(parts: AnyArray, span: _Span, plan: _Plan) -> AnyArray:
    return _together(parts, span, plan, np.add, np.int64)


def _any(marks: NDArray[np.bool_], span: _Span, plan: _Plan) -> NDArray[np.bool_]:
    """Whether any is marked."""
    return _together(marks, span, plan, np.logical_or, np.bool_)


@dataclass(frozen=True)
class _Merged:
    """All months added up: arrays are [period, group], `order` is that of the groups that occur, largest first.

    `absent` None: no amount is lacking.
    """

    values: Sequence[_Values]
    codes: Sequence[Codes]
    sums: AnyArray
    present: NDArray[np.bool_]
    absent: NDArray[np.bool_] | None
    ingested: NDArray[np.bool_]

    @cached_property
    def order(self) -> NDArray[np.intp]:
        """By exact amount, equal ones by name; those without an amount last."""
        shown = np.flatnonzero(self.present.any(axis=0))
        amounts = Amounts(self.sums.sum(axis=1).take(shown, axis=1)).sort_keys()
        names = [values.rank[code[shown]] for values, code in zip(self.values, self.codes, strict=True)]
        lacking = [] if self.absent is None else [np.asarray(self.absent.any(axis=0))[shown]]
        return shown[np.lexsort([*reversed(names), *(-part for part in reversed(amounts)), *lacking])]

    def labels(self, chosen: NDArray[np.intp]) -> Labels:
        return Labels(tuple(values.texts for values in self.values), tuple(code[chosen] for code in self.codes))


def _merged(parts: Sequence[_Part], values: Sequence[_Values], periods: int) -> _Merged:
    codes, places = _common_groups(parts, values)
    width = len(codes[0]) if values else 1
    depth = max((len(part.sums) for part in parts), default=2)
    sums = np.zeros((depth, periods, width), np.int64)
    present = np.zeros((periods, width), np.bool_)
    absent = np.zeros_like(present) if any(part.absent is not None for part in parts) else None
    ingested = np.zeros(periods, np.bool_)
    for part, place in zip(parts, places, strict=True):
        rows = part.span.periods
        ingested[rows] = True
        where = (rows, place) if isinstance(rows, slice) or isinstance(place, slice) else np.ix_(rows, place)
        for total, added in zip(sums, part.sums, strict=False):
            total[where] += added
        present[where] |= part.present
        if absent is not None and part.absent is not None:
            absent[where] |= part.absent
    return _Merged(values, codes, sums, present, absent, ingested)


def _common_groups(
    parts: Sequence[_Part], values: Sequence[_Values]
) -> tuple[Sequence[Codes], Sequence[NDArray[np.intp] | slice]]:
    """Groups that hold those of all parts, and for each part which of them its own are."""
    if not values:
        return [], [part.plan.among_all for part in parts]
    sizes = tuple(len(each.texts) for each in values)
    if parts and math.prod(sizes) <= ROOM * max(part.sums.shape[2] for part in parts):
        return _every_group(sizes), [part.plan.among_all for part in parts]
    none = np.zeros(0, np.int32)
    together = [np.concatenate([none, *(part.plan.codes[i] for part in parts)]) for i in range(len(values))]
    first, place = _distinct(*combined(together, sizes))
    ends = np.cumsum([part.sums.shape[2] for part in parts], dtype=np.intp)
    return [code[first] for code in together], np.split(place, ends[:-1]) if parts else []


def _unbroken(places: NDArray[np.intp]) -> NDArray[np.intp] | slice:
    """Ascending places as a slice where none between them is left out."""
    whole = len(places) > 0 and int(places[-1] - places[0]) == len(places) - 1
    return slice(int(places[0]), int(places[-1]) + 1) if whole else places


@lru_cache(maxsize=64)
def _every_group(sizes: tuple[int, ...]) -> tuple[Codes, ...]:
    """The codes of all combinations there could be, in the order of `combined`."""
    return tuple(code.astype(np.int32) for code in np.unravel_index(np.arange(math.prod(sizes)), sizes))


def _columns(month: Month, grid: Grid, filters: Filters) -> NDArray[np.intp] | None:
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
    grids = [building.grid(DIMENSIONS, base)]
    for names in SMALL_GRIDS:
        # A grid of two dimensions has all that one of a single dimension adds up, in far fewer columns.
        finer = next((grid for grid in grids[1:] if set(names) < set(grid.dimensions)), None)
        grids.append((building.coarser(finer) if finer else building).grid(names, base))
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
    """`new` has (row, day), `codes` their codes in `values`; `kept` has (row, row in the base); `height` is how many rows."""

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
            present=columns.marks(old.present if old else None, [(day.row, day.present()) for day in days]),
            absent=columns.absent(old.absent if old else None, [(day.row, day.absent()) for day in days]),
        )

    def coarser(self, grid: Grid) -> _Building:
        """The same with what the grid has for the new days in place of their charges."""
        here = [np.flatnonzero(grid.present[row]) for row, _ in self.new]
        codes = {name: [grid.codes[name][columns] for columns in here] for name in grid.dimensions}
        new = [(row, _as_day(grid, row, columns, day.day)) for (row, day), columns in zip(self.new, here, strict=True)]
        return replace(self, codes=codes, new=new)


def _as_day(grid: Grid, row: int, columns: NDArray[np.intp], day: date) -> DayColumns:
    """A grid's row as a day with a charge for each of these columns."""
    return DayColumns(
        day=day,
        values={},
        codes={},
        amounts={
            metric: Amounts(amounts.parts[:, row].take(columns, axis=1)) for metric, amounts in grid.amounts.items()
        },
        absent=None if grid.absent is None else grid.absent[row, columns],
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
        if size == 1:
            continue
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
        return amounts.sums_at(self.place, self.width)

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
        """Parts as small as they can be: int32 as long as no `high` reaches 2³¹ (214,748 dollars)."""
        known = [amounts for amounts in (old, *(amounts for _, amounts in new)) if amounts is not None]
        depth = max((len(amounts.parts) for amounts in known), default=2)
        small = all(amounts.parts.dtype == np.int32 or amounts.fits_int32() for amounts in known)
        found = np.empty((depth, self.height, self.width), np.int32 if small else np.int64)
        for i, part in enumerate(found):
            before = None if old is None or i >= len(old.parts) else old.parts[i]
            after = [(row, amounts.parts[i] if i < len(amounts.parts) else None) for row, amounts in new]
            self._fill(part, before, after)
        return Amounts(found)

    def absent(
        self, old: NDArray[np.bool_] | None, new: Sequence[tuple[int, NDArray[np.bool_] | None]]
    ) -> NDArray[np.bool_] | None:
        if old is None and all(row is None for _, row in new):
            return None
        found = self.marks(old, new)
        return found if found.any() else None

    def marks(
        self, old: NDArray[np.bool_] | None, new: Sequence[tuple[int, NDArray[np.bool_] | None]]
    ) -> NDArray[np.bool_]:
        """[row, column] of marks."""
        found = np.empty((self.height, self.width), np.bool_)
        self._fill(found, old, new)
        return found

    def _fill(self, found: AnyArray, old: AnyArray | None, new: Sequence[tuple[int, AnyArray | None]]) -> None:
        """Put the kept rows of `old` and the new rows into their places; what is None is zero."""
        for row, source in self.kept:
            self._keep(found[row], None if old is None else old[source])
        for row, values in new:
            found[row] = 0 if values is None else values

    def _keep(self, target: AnyArray, source: AnyArray | None) -> None:
        if source is None or not len(source):
            target[:] = 0
        elif self.moved is None:
            target[:] = source
        else:
            target[:] = source[self.moved]
            target[self.missing] = 0
