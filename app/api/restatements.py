"""The restatement ledger: every report of a day, how days move after they were called complete, and notices."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from datetime import date
from typing import Final

from flask import Response

from app import restatements as history
from app.api.models import (
    AccountRestatement,
    DayRestatement,
    MetricTotals,
    Moved,
    MovementAtAge,
    Movements,
    NoticeAnswer,
    Notices,
    Report,
    Restatements,
    exact_text,
)
from app.api.paging import Bookmark
from app.api.routes import CURSOR, END, START, Arguments, Parameter, Route, answered, limit_of, one_of
from app.backends import Backends, current
from app.core.amounts import text
from app.core.charges import DEFAULT_METRIC, METRICS, NOTHING, Totals
from app.core.exports import Cell, csv_text
from app.core.periods import DAY, DateRange, day_from
from app.core.query import choice
from app.core.restatements import NOTICE_KINDS, AccountHistory, DayHistory, Revision, move_of
from app.costs import ledgers_of
from app.errors import InvalidInput

FORMATS: Final = ("json", "csv")
MOST_REPORTS: Final = 5000
"""A page ends with the day that reaches so many: a day of a great organisation may have thousands."""


def restatements(given: Arguments) -> Response:
    backends = current()
    days, metric, accounts = _asked(given)
    form = choice("format", given.first("format") or "json", FORMATS)
    if form == "csv":
        for name in ("limit", "cursor"):
            if given.first(name) is not None:
                raise InvalidInput(f"{name} does not go with format=csv, which has all rows. Leave it out.", field=name)
        name = f"spendscope-restatements-{metric}-{days.start}-{days.end}.csv"
        headers = {"Content-Disposition": f'attachment; filename="{name}"'}
        lines = csv_lines(backends, days, metric, accounts)
        return Response(lines, 200, headers, content_type="text/csv; charset=utf-8")
    bookmark = Bookmark.of(sorted(pair for pair in given if pair[0] not in ("limit", "cursor")))
    cursor = given.first("cursor")
    first = bookmark.place(cursor, date.fromisoformat) if cursor is not None else days.start
    page, following = _page(backends, DateRange(first, days.end) if first < days.end else days, given.limit(31))
    found = histories_of(backends, page, accounts)
    after = bookmark.cursor(str(following)) if following else None
    return answered(restatements_answer(backends, found, metric, after))


def _asked(given: Arguments) -> tuple[DateRange, str, tuple[str, ...]]:
    days = DateRange(day_from(given.first("start") or "", "start"), day_from(given.first("end") or "", "end"))
    metric = choice("metric", given.first("metric") or DEFAULT_METRIC, METRICS)
    return days, metric, tuple(sorted(set(given.all("account"))))


def _page(backends: Backends, days: DateRange, limit: int) -> tuple[list[date], date | None]:
    """The reported days that fit a page, and the first that does not."""
    page: list[date] = []
    reports = 0
    for day, found in ledgers_of(backends).days.items():
        if day not in days or not found.accounts:
            continue
        if len(page) == limit or reports >= MOST_REPORTS:
            return page, day
        page.append(day)
        reports += found.reports
    return page, None


def histories_of(backends: Backends, page: list[date], accounts: Collection[str]) -> list[DayHistory]:
    if not page:
        return []
    found = history.histories(backends, DateRange(page[0], page[-1] + DAY), accounts)
    return [found[day] for day in page if day in found]


def restatements_answer(
    backends: Backends, found: list[DayHistory], metric: str, next_cursor: str | None = None
) -> Restatements:
    """What the API and `restatements --format json` answer."""
    unit = backends.settings.currency if metric != "usage_quantity" else None
    items = [_day(one, metric) for one in found]
    return Restatements(items=items, metric=metric, unit=unit, next_cursor=next_cursor)


def _day(found: DayHistory, metric: str) -> DayRestatement:
    return DayRestatement(
        date=found.day,
        first=exact_text(found.first(metric)),
        complete=exact_text(found.complete(metric)),
        completed_at=found.completed_at,
        current=exact_text(found.current(metric)),
        moved=Moved.of(found.moved(metric)),
        accounts=[_account(found, name, part, metric) for name, part in found.accounts.items()],
    )


def _account(found: DayHistory, name: str, part: AccountHistory, metric: str) -> AccountRestatement:
    completed = found.completed.get(name)
    complete = completed.totals.of(metric) if completed else None
    current_total = part.current.of(metric)
    return AccountRestatement(
        account=name,
        first=exact_text(part.first.of(metric)),
        complete=exact_text(complete),
        completed_at=completed.at if completed else None,
        current=exact_text(current_total),
        moved=Moved.of(move_of(complete, current_total)),
        reports=[_report(one, before) for one, before in with_before(part)],
    )


def with_before(part: AccountHistory) -> Iterator[tuple[Revision, Totals | None]]:
    """Each report with the figures before it, where they are known."""
    before: Revision | None = None
    for revision in part.revisions:
        follows = before is not None and before.revision == revision.revision - 1
        yield revision, before.totals if before and follows else NOTHING if revision.spoken else None
        before = revision


def _report(revision: Revision, before: Totals | None) -> Report:
    return Report(
        revision=revision.revision,
        at=revision.at,
        source=revision.source,
        sha256=revision.sha256,
        estimated=revision.estimated,
        before=MetricTotals.of(before) if before else None,
        after=MetricTotals.of(revision.totals),
    )


def csv_lines(backends: Backends, days: DateRange, metric: str, accounts: Collection[str]) -> Iterator[str]:
    """Every report of the range as CSV, some days at a time."""
    yield csv_text([("date", "account", "revision", "at", "source", "sha256", "estimated", "before", "after")])
    following: date | None = days.start
    while following is not None:
        page, following = _page(backends, DateRange(following, days.end), 31)
        for found in histories_of(backends, page, accounts):
            yield csv_text(_csv_rows(found, metric))


def _csv_rows(found: DayHistory, metric: str) -> Iterator[tuple[Cell, ...]]:
    for name, part in found.accounts.items():
        for one, before in with_before(part):
            amounts = (before.of(metric) if before else None, one.totals.of(metric))
            yield one.day, name, one.revision, one.at, one.source, one.sha256, int(one.estimated), *amounts


def movement(given: Arguments) -> Response:
    days, metric, accounts = _asked(given)
    return answered(movement_answer(current(), days, metric, accounts))


def movement_answer(backends: Backends, days: DateRange, metric: str, accounts: Collection[str]) -> Movements:
    items = [
        MovementAtAge(age=one.age, days=one.days, median=text(one.median), p90=text(one.p90), max=text(one.most))
        for one in history.movement_of(backends, days, accounts, metric)
    ]
    return Movements(items=items, metric=metric, next_cursor=None)


def notices(given: Arguments) -> Response:
    kind = given.first("kind")
    found = current().metadata.notices(
        limit=given.limit(100),
        cursor=given.first("cursor"),
        kind=choice("kind", kind, NOTICE_KINDS) if kind is not None else None,
    )
    return answered(Notices(items=[NoticeAnswer.of(one) for one in found.items], next_cursor=found.next_cursor))


METRIC: Final = one_of("metric", "Whose figures are compared.", METRICS, DEFAULT_METRIC)
ACCOUNT: Final = Parameter("account", "Only this account; repeat it for several.", repeated=True)

ROUTES: Final = (
    Route(
        "GET",
        "/api/v1/restatements",
        restatements,
        "What each day was reported as, from first to now",
        Restatements,
        about="Every report of each account, with the file it came with; what the day was when it was first called complete, and "
        "how far it moved since. With `format=csv` the answer is a file of all reports, with the metric's figures.",
        parameters=(
            START,
            END,
            ACCOUNT,
            METRIC,
            limit_of(31),
            CURSOR,
            one_of("format", "`csv` for a file.", FORMATS, "json"),
        ),
        problems=(400,),
        also_csv=True,
        tag="ledger",
    ),
    Route(
        "GET",
        "/api/v1/restatements/movement",
        movement,
        "How much days move after they were called complete",
        Movements,
        about="Over the days of the range, by how long ago they were called complete. Percentiles are nearest-rank.",
        parameters=(START, END, ACCOUNT, METRIC),
        problems=(400,),
        tag="ledger",
    ),
    Route(
        "GET",
        "/api/v1/notices",
        notices,
        "What a person should know about the figures",
        Notices,
        about="`restated`: a complete day moved by more than the settings allow. `reference`: a file of Cost Explorer's totals "
        "could not be read.",
        parameters=(one_of("kind", "Only of this kind.", NOTICE_KINDS), limit_of(100), CURSOR),
        problems=(400,),
        tag="ledger",
    ),
)
