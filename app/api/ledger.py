"""The ledger: which file each figure came from, what it was first reported as, and what is missing."""

from __future__ import annotations

from collections.abc import Generator
from datetime import date, timedelta
from itertools import chain
from typing import Final

from flask import Response

from app import costs as figures
from app.api.models import (
    AccountCoverage,
    CoverageDays,
    DayCoverage,
    IngestionDetail,
    Ingestions,
    IngestionSummary,
    MetricTotals,
    ingestion_members,
)
from app.api.paging import Bookmark
from app.api.routes import CURSOR, END, START, TEXT, Arguments, Parameter, Route, answered, limit_of, one_of
from app.backends import Backends, current
from app.core.ledger import INGESTION_STATUSES, Coverage, DayRecord
from app.core.periods import DateRange, day_from
from app.core.query import choice
from app.errors import NotFound
from app.ingest import day_of, stored_file
from app.ports import SourceObject


def coverage(given: Arguments) -> Response:
    """A page is some days: only these are judged."""
    backends = current()
    asked = DateRange(day_from(given.first("start") or "", "start"), day_from(given.first("end") or "", "end"))
    limit, cursor = given.limit(100), given.first("cursor")
    bookmark = Bookmark.of(sorted(pair for pair in given if pair[0] not in ("limit", "cursor")))
    first = bookmark.place(cursor, date.fromisoformat) if cursor is not None else asked.start
    last = min(asked.end, first + timedelta(days=limit))
    judged, records = figures.coverage_of(backends, DateRange(first, last))
    accounts = frozenset(given.all("account"))
    return answered(
        CoverageDays(
            items=[_day(day, judged, records.get(day), accounts) for day in DateRange(first, last)],
            complete_through=figures.ledgers_of(backends).coverage.complete_through,
            retention_days=backends.settings.retention,
            kept_since=figures.kept_since(backends),
            next_cursor=bookmark.cursor(str(last)) if last < asked.end else None,
        )
    )


def _day(day: date, judged: Coverage, record: DayRecord | None, accounts: frozenset[str]) -> DayCoverage:
    """Without `accounts` all of them."""
    parts = record.accounts if record else {}
    return DayCoverage(
        date=day,
        status=judged.days.get(day),
        restating=record is not None and record.restating,
        accounts=[
            AccountCoverage.of(name, status, parts.get(name))
            for name, status in judged.accounts.get(day, {}).items()
            if not accounts or name in accounts
        ],
    )


def ingestions(given: Arguments) -> Response:
    status = given.first("status")
    found = current().metadata.ingestions(
        limit=given.limit(100),
        cursor=given.first("cursor"),
        status=choice("status", status, INGESTION_STATUSES) if status is not None else None,
        key=given.first("key"),
    )
    items = [IngestionSummary(**ingestion_members(item)) for item in found.items]
    return answered(Ingestions(items=items, next_cursor=found.next_cursor))


def ingestion(_: Arguments, id: str) -> Response:
    found = current().metadata.ingestion(id)
    if found is None:
        raise NotFound(f"There is no ingestion {id[:40]!r}. GET /api/v1/ingestions lists them.")
    accounts = {name: MetricTotals.of(totals) for name, totals in found.accounts.items()}
    return answered(IngestionDetail(**ingestion_members(found), accounts=accounts))


def ingestion_file(_: Arguments, id: str) -> Response:
    """The bytes as they lie in the source, never shown in place: nobody vouches for what is in a quarantined file."""
    backends = current()
    found = backends.metadata.ingestion(id)
    if found is None:
        raise NotFound(f"There is no ingestion {id[:40]!r}. GET /api/v1/ingestions lists them.")
    stored = stored_file(backends, found)
    chunks = _chunks(backends, stored)
    # What is wrong with the source shows at the first bytes: while there can still be a problem instead of a file.
    first = next(chunks, b"")
    headers = {
        "Content-Disposition": f'attachment; filename="{_file_name(stored.key)}"',
        "Content-Length": str(stored.size),
        "Cache-Control": "no-store",
        "Content-Security-Policy": "default-src 'none'; sandbox",
    }
    answer = Response(chain((first,), chunks), 200, headers, content_type=FILE_TYPE)
    answer.call_on_close(chunks.close)
    return answer


def _chunks(backends: Backends, stored: SourceObject) -> Generator[bytes, None, None]:
    """All bytes of exactly this version, or an exception that breaks the connection: half a file never looks whole."""
    with backends.source.open(stored) as stream:
        while chunk := stream.read(CHUNK):
            yield chunk


def _file_name(key: str) -> str:
    """Made from the day, never from what the source calls it."""
    return f"{day_of(key) or 'cost-file'}.csv" + (".gz" if key.endswith(".gz") else "")


FILE_TYPE: Final = "application/octet-stream"
CHUNK: Final = 2**18
ID: Final = Parameter("id", "As the list gives it.", TEXT, place="path")

ROUTES: Final = (
    Route(
        "GET",
        "/api/v1/coverage",
        coverage,
        "What is complete, settling, missing or quarantined",
        CoverageDays,
        about="Every day of the range with each account that has or should have cost, as first reported and as known now.",
        parameters=(
            START,
            END,
            Parameter("account", "Only this account; repeat it for several.", repeated=True),
            limit_of(100),
            CURSOR,
        ),
        problems=(400,),
        tag="ledger",
    ),
    Route(
        "GET",
        "/api/v1/ingestions",
        ingestions,
        "What became of each file",
        Ingestions,
        parameters=(
            one_of("status", "Only with this status.", INGESTION_STATUSES),
            Parameter("key", "Only of the file with this name.", example="2026-11-01.csv"),
            limit_of(100),
            CURSOR,
        ),
        problems=(400,),
        tag="ledger",
    ),
    Route(
        "GET",
        "/api/v1/ingestions/<id>",
        ingestion,
        "One version of one file, with the totals of its accounts",
        IngestionDetail,
        parameters=(ID,),
        problems=(404,),
        tag="ledger",
    ),
    Route(
        "GET",
        "/api/v1/ingestions/<id>/file",
        ingestion_file,
        "The file itself, exactly that version",
        FILE_TYPE,
        about="As long as the source holds this version: a file that was replaced or removed since is a 409.",
        parameters=(ID,),
        problems=(404, 409, 422),
        tag="ledger",
    ),
)
