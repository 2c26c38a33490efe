"""Any two ranges of cost beside each other."""

from __future__ import annotations

from itertools import islice
from typing import Final

from flask import Response

from app import costs as figures
from app.api.costs import GROUP_BY, METRIC, freshness_model
from app.api.models import Baseline, ComparedRow, Comparison, exact_text
from app.api.models import NotKept as NotKeptAnswer
from app.api.paging import Bookmark, count
from app.api.routes import CURSOR, DATE, END, FILTERS, START, Arguments, Parameter, Route, answered, limit_of
from app.backends import Backends, current
from app.core.comparison import GroupMove, group_moves
from app.core.periods import DateRange, day_from
from app.core.query import FIELDS, MOST_TOP, CostQuery
from app.core.restatements import move_of
from app.errors import InvalidInput

BASELINE: Final = ("baseline_start", "baseline_end")


def compare(given: Arguments) -> Response:
    query = CostQuery.from_pairs((name, value) for name, value in given if name in FIELDS).per("total")
    baseline = _baseline(given, query.range)
    return answered(comparison(current(), query, baseline, limit=given.limit(1000), cursor=given.first("cursor")))


def _baseline(given: Arguments, days: DateRange) -> DateRange:
    """As given, both days or none; without them the same number of days just before."""
    start, end = (given.first(name) for name in BASELINE)
    if start is None and end is None:
        return days.before()
    if start is None or end is None:
        name = BASELINE[0] if start is None else BASELINE[1]
        raise InvalidInput(f"{name} is missing. Give both {' and '.join(BASELINE)}, or neither.", field=name)
    first, last = day_from(start, BASELINE[0]), day_from(end, BASELINE[1])
    if first >= last:
        raise InvalidInput(
            f"baseline_start {first} is not before baseline_end {last}. baseline_end is exclusive: for one day, give the next day.",
            field="baseline_end",
        )
    return DateRange(first, last)


def comparison(
    backends: Backends, query: CostQuery, baseline: DateRange, *, limit: int, cursor: str | None = None
) -> Comparison:
    """One page of the comparison of `query`, which is per total, with the same question over `baseline`."""
    now = figures.snapshot(backends)
    before, after = now.ask(query.over(baseline)), now.ask(query)
    move = move_of(before.total, after.total)
    left_out = after.not_kept or before.not_kept
    moves = [] if left_out else group_moves(before.frame, after.frame, query.top)
    bookmark = Bookmark.of([*query.pairs(), ("baseline", f"{baseline.start}/{baseline.end}")], now.rollup.version)
    start = bookmark.place(cursor, count) if cursor is not None else 0
    following = bookmark.cursor(str(start + limit)) if len(moves) > start + limit else None
    kept = {"not_kept": NotKeptAnswer(since=left_out.since, reason=left_out.reason)} if left_out else {}
    return Comparison(
        rows=[_row(query, found) for found in islice(moves, start, start + limit)],
        before=exact_text(before.total),
        after=exact_text(after.total),
        change=exact_text(move.amount if move else None),
        percent=exact_text(move.percent if move else None),
        currency=after.currency,
        unit=after.unit if after.unit == before.unit else None,
        data_version=now.rollup.version,
        freshness=freshness_model(after.freshness),
        baseline=Baseline(start=baseline.start, end=baseline.end, freshness=freshness_model(before.freshness)),
        next_cursor=following,
        **kept,
    )


def _row(query: CostQuery, found: GroupMove) -> ComparedRow:
    move = found.move
    members: dict[str, object] = dict(zip(query.group_by, found.group, strict=True))
    members |= {"before": found.before, "after": found.after}
    members |= {"change": move.amount if move else None, "percent": move.percent if move else None}
    return ComparedRow.model_validate(members | {"other": True} if found.other else members)


ROUTES: Final = (
    Route(
        "GET",
        "/api/v1/costs/compare",
        compare,
        "Two ranges compared",
        Comparison,
        about="Without a baseline, with as many days just before. The ranges may be of any length, may overlap and are "
        "compared as they are: `freshness` of both says which of their days are not complete.",
        parameters=(
            START,
            END,
            Parameter("baseline_start", "First day of what is compared with.", DATE, example="2026-09-01"),
            Parameter("baseline_end", "First day that is not in it any more.", DATE, example="2026-10-01"),
            METRIC,
            GROUP_BY,
            *FILTERS,
            Parameter(
                "top",
                'Only this many groups, by change; the others are one row named "Other", marked `other`.',
                {"type": "integer", "minimum": 1, "maximum": MOST_TOP},
                example="10",
            ),
            limit_of(1000),
            CURSOR,
        ),
        problems=(400, 409),
    ),
)
