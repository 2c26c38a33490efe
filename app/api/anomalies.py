"""Anomalies over HTTP: list, one, what people say of them; planned spend that silences them."""

from __future__ import annotations

from decimal import Decimal
from typing import Final

from flask import Response

from app.anomalies import AnomalyFilter, anomalies_of, anomaly_of, forget_plan, plan, say
from app.api.ledger import ID
from app.api.models import (
    AnomalyAnswer,
    AnomalyChange,
    AnomalyList,
    PlannedSpendAnswer,
    PlannedSpendList,
    PlannedSpendRequest,
)
from app.api.paging import Bookmark, count
from app.api.routes import CURSOR, DATE, FILTERS, Arguments, Parameter, Route, answered, body_of, limit_of
from app.backends import current
from app.core.anomalyrecords import STATES
from app.core.arrivals import PARTS
from app.core.periods import EARLIEST, LATEST, DateRange, day_from
from app.core.query import choice
from app.core.scopes import Scope
from app.principal import principal

KINDS: Final = ("rise", "creep", "drop", "new_cost", "data_outage")


def anomalies(given: Arguments) -> Response:
    found = anomalies_of(current(), _wanted(given))
    bookmark = Bookmark.of(sorted(pair for pair in given if pair[0] not in ("limit", "cursor")))
    cursor = given.first("cursor")
    first = bookmark.place(cursor, count) if cursor is not None else 0
    after = first + given.limit(100)
    following = bookmark.cursor(str(after)) if after < len(found) else None
    return answered(AnomalyList(items=[AnomalyAnswer.of(one) for one in found[first:after]], next_cursor=following))


def _wanted(given: Arguments) -> AnomalyFilter:
    start, end = given.first("start"), given.first("end")
    days = None
    if start is not None or end is not None:
        days = DateRange(
            day_from(start, "start") if start is not None else EARLIEST,
            day_from(end, "end") if end is not None else LATEST,
        )
    return AnomalyFilter(
        days,
        tuple(choice("state", state, STATES) for state in given.all("state")),
        tuple(choice("kind", kind, KINDS) for kind in given.all("kind")),
        {part: tuple(given.all(part)) for part in PARTS},
    )


def anomaly(_: Arguments, id: str) -> Response:
    return answered(AnomalyAnswer.of(anomaly_of(current(), id)))


def change_anomaly(_: Arguments, id: str) -> Response:
    backends = current()
    anomaly_of(backends, id)
    asked: AnomalyChange = body_of(AnomalyChange)
    return answered(AnomalyAnswer.of(say(backends, id, asked.state, by=principal().name, reason=asked.reason)))


def planned_spend(_: Arguments) -> Response:
    return answered(PlannedSpendList(items=[PlannedSpendAnswer.of(one) for one in current().metadata.planned_spend()]))


def plan_spend(_: Arguments) -> Response:
    asked: PlannedSpendRequest = body_of(PlannedSpendRequest)
    days = DateRange(day_from(asked.start, "start"), day_from(asked.end, "end"))
    scope = Scope(asked.account, asked.service, asked.region)
    extra = Decimal(asked.extra) if asked.extra is not None else None
    made = plan(current(), scope, days, asked.reason, by=principal().name, extra=extra)
    return answered(PlannedSpendAnswer.of(made), 201)


def forget_planned_spend(_: Arguments, id: str) -> Response:
    forget_plan(current(), id)
    return planned_spend(_)


_LISTED: Final = (
    Parameter("start", "Only anomalies that go on on this day or later.", DATE),
    Parameter("end", "Only anomalies that began before this day.", DATE),
    Parameter(
        "state", "Only in this state; repeat it for several.", {"type": "string", "enum": list(STATES)}, repeated=True
    ),
    Parameter(
        "kind", "Only of this kind; repeat it for several.", {"type": "string", "enum": list(KINDS)}, repeated=True
    ),
    *(parameter for parameter in FILTERS if parameter.name in PARTS),
    limit_of(100),
    CURSOR,
)

ROUTES: Final = (
    Route(
        "GET",
        "/api/v1/anomalies",
        anomalies,
        "Anomalies",
        AnomalyList,
        about="What the detector found in stored history, with the expected band, the dollars so far and what they are made of. "
        "A filter by account, service or region also finds wider anomalies that have a part there.",
        parameters=_LISTED,
        problems=(400,),
        tag="anomalies",
    ),
    Route(
        "GET",
        "/api/v1/anomalies/<id>",
        anomaly,
        "One anomaly",
        AnomalyAnswer,
        parameters=(ID,),
        problems=(404,),
        tag="anomalies",
    ),
    Route(
        "PATCH",
        "/api/v1/anomalies/<id>",
        change_anomaly,
        "Say something of an anomaly",
        AnomalyAnswer,
        about="No run of the detector changes it. `expected` and `dismissed` silence the like for 90 days; `open` takes it back.",
        parameters=(ID,),
        body=AnomalyChange,
        problems=(400, 404, 409, 413, 415),
        tag="anomalies",
    ),
    Route("GET", "/api/v1/planned-spend", planned_spend, "Planned spend", PlannedSpendList, tag="anomalies"),
    Route(
        "POST",
        "/api/v1/planned-spend",
        plan_spend,
        "Plan spend",
        PlannedSpendAnswer,
        about="The same scope and days again replace reason and dollars. It works from the next run of the detector on.",
        body=PlannedSpendRequest,
        status=201,
        problems=(400, 413, 415),
        tag="anomalies",
    ),
    Route(
        "DELETE",
        "/api/v1/planned-spend/<id>",
        forget_planned_spend,
        "Forget planned spend",
        PlannedSpendList,
        parameters=(ID,),
        problems=(404,),
        tag="anomalies",
    ),
)
