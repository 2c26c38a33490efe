"""Costs as rows: the same rows for a JSON page and for a CSV of everything, all of one data version."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from decimal import Decimal
from functools import cached_property
from itertools import groupby, islice
from typing import Final

import numpy as np
from flask import Response, request

from app import costs as figures
from app.api.models import CostRow, Costs, DimensionValue, DimensionValues, Freshness, exact_text
from app.api.models import NotKept as NotKeptAnswer
from app.api.paging import Bookmark, count
from app.api.routes import (
    CURSOR,
    END,
    FILTERS,
    START,
    Arguments,
    Parameter,
    Route,
    answered,
    limit_of,
    one_of,
)
from app.backends import Backends, current
from app.core.charges import DEFAULT_METRIC, DIMENSIONS, METRICS
from app.core.comparison import OTHER
from app.core.exact import known_total
from app.core.exports import csv_text
from app.core.periods import GRANULARITIES, DateRange, bucket_of
from app.core.query import FIELDS, MOST_TOP, CostQuery, choice
from app.core.retention import NotKept, whole_periods_since
from app.core.rollup import CostFrame, Rollup
from app.costs import CostAnswer
from app.errors import InvalidInput, NotFound, Refused, Unavailable

FORMATS: Final = ("json", "csv")
CELLS: Final = 200_000
"""Most groups × periods worked on at a time: bounds the memory of an answer, whatever range it is asked for."""

Group = tuple[str, ...]


@dataclass(frozen=True)
class Row:
    """`period` None for the granularity total; `amount` None where the metric is not available."""

    period: date | None
    group: Group
    amount: Decimal | None
    other: bool = False


@dataclass(frozen=True)
class CostTable:
    """The rows of a question: by period, then by the groups' total over the whole range, largest first.

    A group has a row in each period in which it has a charge; ungrouped, each period with data has one. With `top`,
    the groups beyond it are one more row a period, so that rows still add up. `answer` is the same question over the
    whole range.
    """

    query: CostQuery
    answer: CostAnswer
    rollup: Rollup
    back: CostAnswer | None = None
    """The answer at the question's own granularity where it reaches back further than retention."""

    @classmethod
    def of(cls, backends: Backends, query: CostQuery) -> CostTable:
        for _ in range(5):
            rollup, now = backends.costs.rollup(), figures.snapshot(backends)
            if now.rollup.version == rollup.version:
                back = now.ask(query) if now.kept_since_inside(query.range) else None
                return cls(query, now.ask(query.per("total")), now.rollup, back)
        raise Unavailable("costs", "The figures change faster than they can be read.", retry_after=2)

    @cached_property
    def ranks(self) -> Mapping[Group, int]:
        """Groups that have rows of their own, and their place."""
        most = self.query.top if self.query.group_by else None
        return {group: place for place, group in enumerate(self._ranking.groups[:most])}

    @property
    def not_kept(self) -> NotKept | None:
        """Why these are not all rows of the range."""
        return self.back.not_kept if self.back else None

    @property
    def _ranking(self) -> CostFrame:
        """Over the whole range, or over what is kept of it."""
        if self.not_kept is None or self.query.range.end <= self.not_kept.since:
            return self.answer.frame
        kept = DateRange(self.not_kept.since, self.query.range.end)
        return self.rollup.frame(self.query.per("total").over(kept))

    def rows(self, first: date | None = None) -> Iterator[Row]:
        """All rows, or those from the period `first` on."""
        rows = (row for frame in self._frames(first) for row in _rows_of(frame, self.ranks))
        return (row for row in rows if first is None or row.period is None or row.period >= first)

    def _frames(self, first: date | None) -> Iterator[CostFrame]:
        since = self.query.range.start
        if self.back is not None:
            if self.back.not_kept is None:
                yield self.back.frame
                return
            since = whole_periods_since(self.query, self.back.not_kept.since) or self.query.range.end
        if self.query.granularity == "total":
            yield from [self.answer.frame] if self.not_kept is None else []
            return
        inside = [day for day in self.rollup.days if day in self.query.range and day >= since]
        buckets = [list(days) for _, days in groupby(inside, key=self._bucket)]
        buckets = [days for days in buckets if first is None or self._bucket(days[0]) >= first]
        step = max(1, CELLS // max(1, len(self.answer.frame.groups)))
        for start in range(0, len(buckets), step):
            part = buckets[start : start + step]
            days = DateRange(part[0][0], part[-1][-1] + timedelta(days=1))
            yield self.rollup.frame(self.query.over(days))

    def _bucket(self, day: date) -> date:
        return bucket_of(day, self.query.granularity)


def _rows_of(frame: CostFrame, ranks: Mapping[Group, int]) -> Iterator[Row]:
    own = [at for _, at in sorted((ranks[group], at) for at, group in enumerate(frame.groups) if group in ranks)]
    shown = np.array(own, np.intp)
    rest = np.array([at for at, group in enumerate(frame.groups) if group not in ranks], np.intp)
    grouped = bool(frame.query.group_by)
    for column in _known_columns(frame):
        period = None if frame.query.granularity == "total" else frame.periods[column]
        picked = shown[frame.present[shown, column]] if grouped else shown
        for at, amount in zip(picked.tolist(), _cells(frame, picked, column), strict=True):
            yield Row(period, frame.groups[at], amount)
        if not grouped and not len(shown):
            yield Row(period, (), Decimal(0))
        beyond = rest[frame.present[rest, column]]
        if len(beyond):
            name = (OTHER,) * len(frame.query.group_by)
            yield Row(period, name, known_total(_cells(frame, beyond, column)), other=True)


def _known_columns(frame: CostFrame) -> list[int]:
    """Positions of the periods that have a day with data."""
    if frame.query.granularity == "total":
        return [0] if frame.days else []
    known = {bucket_of(day, frame.query.granularity) for day in frame.days}
    return [column for column, period in enumerate(frame.periods) if period in known]


def _cells(frame: CostFrame, groups: np.ndarray[tuple[int], np.dtype[np.intp]], column: int) -> list[Decimal | None]:
    """Exact amounts of some groups in one period."""
    values = frame.exact.map(lambda part: part[groups, column]).decimals()
    lacking = np.isnan(frame.amounts[groups, column]).tolist()
    return [None if lacks else value for value, lacks in zip(values, lacking, strict=True)]


# --- one page as JSON ---------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Place:
    """Where a page starts: after `skip` rows of the period `first`."""

    first: date | None = None
    skip: int = 0

    def __str__(self) -> str:
        return f"{self.first or ''}.{self.skip}"

    @classmethod
    def read(cls, place: str) -> _Place:
        """Raises ValueError."""
        first, skip = place.split(".")
        return cls(date.fromisoformat(first) if first else None, count(skip))


def costs_answer(backends: Backends, query: CostQuery, *, limit: int, cursor: str | None = None) -> Costs:
    """One page of rows with everything that belongs beside them: what the API and `query --format json` answer."""
    table = CostTable.of(backends, query)
    answer = table.answer
    bookmark = Bookmark.of(query.pairs(), answer.data_version)
    place = bookmark.place(cursor, _Place.read) if cursor is not None else _Place()
    rows = list(islice(table.rows(place.first), place.skip, place.skip + limit + 1))
    following = bookmark.cursor(str(_next_place(place, rows))) if len(rows) > limit else None
    left_out = table.not_kept
    kept = {"not_kept": NotKeptAnswer(since=left_out.since, reason=left_out.reason)} if left_out else {}
    return Costs(
        rows=[_row_model(query, row) for row in rows[:limit]],
        total=exact_text(answer.total),
        currency=answer.currency,
        unit=answer.unit,
        data_version=answer.data_version,
        freshness=freshness_model(answer.freshness),
        next_cursor=following,
        **kept,
    )


def _next_place(place: _Place, rows: Sequence[Row]) -> _Place:
    """Of the last of `rows`, which is the first of the next page."""
    first, before = rows[-1].period, rows[:-1]
    skip = sum(row.period == first for row in before)
    return _Place(first, skip + place.skip if first in (place.first, None) else skip)


def _row_model(query: CostQuery, row: Row) -> CostRow:
    members: dict[str, object] = {"date": row.period} if row.period else {}
    members.update(zip(query.group_by, row.group, strict=True))
    members["amount"] = row.amount
    return CostRow.model_validate(members | {"other": True} if row.other else members)


def freshness_model(found: figures.Freshness) -> Freshness:
    return Freshness(
        complete_through=found.complete_through,
        settling=list(found.settling),
        missing=list(found.missing),
        quarantined=list(found.quarantined),
        restating=list(found.restating),
        updated=found.updated,
    )


# --- everything as CSV --------------------------------------------------------------------------------------------


def whole_table(backends: Backends, query: CostQuery) -> CostTable:
    """The table of a file, which cannot say what it lacks. Raises Refused for days that are no longer kept."""
    table = CostTable.of(backends, query)
    if table.not_kept:
        raise Refused(f"{table.not_kept.reason} Or ask from {table.not_kept.since} on.")
    return table


def csv_lines(table: CostTable) -> Iterator[str]:
    """The whole table as CSV (RFC 4180), some hundred lines at a time; `unit` is empty for a usage quantity."""
    query, unit = table.query, table.answer.unit or ""
    dated = query.granularity != "total"
    yield csv_text([[*(["date"] if dated else []), *query.group_by, "amount", "unit"]])
    rows = ([*([row.period] if dated else []), *row.group, row.amount, unit] for row in table.rows())
    while part := list(islice(rows, 500)):
        yield csv_text(part)


# --- routes -------------------------------------------------------------------------------------------------------


def costs(given: Arguments) -> Response:
    """Weak tag: the same figures, whatever the encoding on the way."""
    backends = current()
    query = CostQuery.from_pairs((name, value) for name, value in given if name in FIELDS)
    limit, cursor = given.limit(1000), given.first("cursor")
    form = choice("format", given.first("format") or "json", FORMATS)
    tag = _tag(backends, query, limit, cursor, form)
    headers = {"ETag": f'W/"{tag}"', "Cache-Control": "private, no-cache"}
    if request.if_none_match.contains_weak(tag):
        return Response(status=304, headers=headers)
    if form == "json":
        return answered(costs_answer(backends, query, limit=limit, cursor=cursor), headers=headers)
    for name in ("limit", "cursor"):
        if given.first(name) is not None:
            raise InvalidInput(f"{name} does not go with format=csv, which has all rows. Leave it out.", field=name)
    table = whole_table(backends, query)
    headers["Content-Disposition"] = f'attachment; filename="{query.file_name("csv")}"'
    return Response(csv_lines(table), 200, headers, content_type="text/csv; charset=utf-8")


def _tag(backends: Backends, query: CostQuery, *rest: object) -> str:
    """Of everything an answer depends on."""
    asked = repr((figures.state(backends), query.pairs(), *rest))
    return hashlib.sha256(asked.encode("utf-8", "surrogatepass")).hexdigest()[:32]


def dimension(given: Arguments, name: str) -> Response:
    if name not in DIMENSIONS:
        raise NotFound(f"There is no dimension {name[:40]!r}. Use one of: {', '.join(DIMENSIONS)}.")
    backends = current()
    limit, cursor, needle = given.limit(100), given.first("cursor"), (given.first("q") or "").casefold()
    version = backends.costs.rollup().version
    bookmark = Bookmark.of([("dimension", name), *sorted(p for p in given if p[0] not in ("limit", "cursor"))], version)
    start = bookmark.place(cursor, count) if cursor is not None else 0
    values = figures.dimension_values(backends, name, _query_of_dimension(backends, given))
    found = [pair for pair in values if needle in pair[0].casefold()]
    following = bookmark.cursor(str(start + limit)) if len(found) > start + limit else None
    items = [DimensionValue(value=value, total=exact_text(cost)) for value, cost in found[start : start + limit]]
    return answered(DimensionValues(items=items, data_version=version, next_cursor=following))


def _query_of_dimension(backends: Backends, given: Arguments) -> CostQuery:
    """A question without a range is about all days there are."""
    pairs = [(name, value) for name, value in given if name in FIELDS]
    if given.first("start") is None and given.first("end") is None:
        days = figures.first_and_last_day(backends) or DateRange(backends.today(), backends.today() + timedelta(days=1))
        pairs += [("start", str(days.start)), ("end", str(days.end))]
    return CostQuery.from_pairs(pairs)


GROUP_BY: Final = Parameter(
    "group_by", f"Dimensions separated by commas: {', '.join(DIMENSIONS)}.", example="service,region"
)
METRIC: Final = one_of("metric", "What is added up.", METRICS, DEFAULT_METRIC)

ROUTES: Final = (
    Route(
        "GET",
        "/api/v1/costs",
        costs,
        "Costs of a range",
        Costs,
        about="With `format=csv` the answer is a file of all rows with the same columns and a `unit`. Send the `ETag` "
        "back as `If-None-Match` and an unchanged answer is 304 without a body. A page that no longer fits the data is 409. "
        "Days older than retention are answered from totals by month and account where the question allows it; else `not_kept` says "
        "why rows are lacking, and a file is 422.",
        parameters=(
            START,
            END,
            METRIC,
            one_of("granularity", "Length of a period.", GRANULARITIES, "daily"),
            GROUP_BY,
            *FILTERS,
            Parameter(
                "top",
                f'Only this many groups, by total over the range; the others are one row named "{OTHER}", marked `other`.',
                {"type": "integer", "minimum": 1, "maximum": MOST_TOP},
                example="10",
            ),
            limit_of(1000),
            CURSOR,
            one_of("format", "`csv` for a file.", FORMATS, "json"),
        ),
        problems=(400, 409, 422),
        also_csv=True,
        has_tag=True,
    ),
    Route(
        "GET",
        "/api/v1/dimensions/<name>",
        dimension,
        "Values of a dimension with their cost",
        DimensionValues,
        about="Under the other filters, over the range or, without one, over all days.",
        parameters=(
            Parameter("name", "The dimension.", {"type": "string", "enum": list(DIMENSIONS)}, place="path"),
            Parameter("start", START.about, START.schema, example=START.example),
            Parameter("end", END.about, END.schema, example=END.example),
            METRIC,
            *FILTERS,
            Parameter("q", "Only values that contain this text, in any case.", example="s3"),
            limit_of(100),
            CURSOR,
        ),
        problems=(400, 404, 409),
    ),
)
