"""Alerts of a Grafana: what its webhook contact point posts, and the list of them."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Final

from flask import Response

from app.api.models import (
    GrafanaAlertAnswer,
    GrafanaAlertGiven,
    GrafanaAlertList,
    GrafanaDelivery,
    GrafanaTaken,
)
from app.api.routes import CURSOR, Arguments, Route, answered, body_of, limit_of, one_of
from app.backends import current
from app.core.grafanaalerts import GRAFANA_STATUSES, Told, link_of, texts_of, values_of
from app.core.query import choice
from app.errors import InvalidInput
from app.grafanaalerts import take_alerts

PATH: Final = "/api/v1/alerts/grafana"
MOST_BYTES: Final = 1024 * 1024
"""Some hundred alerts with long texts; Grafana's `maxAlerts` makes deliveries smaller."""


def take_grafana_alerts(_: Arguments) -> Response:
    delivery: GrafanaDelivery = body_of(GrafanaDelivery, MOST_BYTES)
    told = [_told(alert, f"alerts.{number}") for number, alert in enumerate(delivery.alerts)]
    taken = take_alerts(current(), told)
    return answered(GrafanaTaken(received=taken.received, changed=taken.changed))


def grafana_alerts(given: Arguments) -> Response:
    status = given.first("status")
    found = current().metadata.grafana_alerts(
        limit=given.limit(100),
        cursor=given.first("cursor"),
        status=choice("status", status, GRAFANA_STATUSES) if status is not None else None,
    )
    items = [GrafanaAlertAnswer.of(one) for one in found.items]
    return answered(GrafanaAlertList(items=items, next_cursor=found.next_cursor))


def _told(alert: GrafanaAlertGiven, place: str) -> Told:
    starts = _instant(alert.starts, f"{place}.startsAt")
    if starts is None:
        raise InvalidInput(f"{place}.startsAt is missing or of the year 1. Grafana sends when the alert began.")
    is_resolved = alert.status == "resolved"
    return Told(
        fingerprint=alert.fingerprint,
        is_resolved=is_resolved,
        starts=starts,
        # Of one that fires it is when Grafana would give up on it: nothing has ended yet.
        ends=_instant(alert.ends, f"{place}.endsAt") if is_resolved else None,
        labels=texts_of(alert.labels),
        annotations=texts_of(alert.annotations),
        values=values_of(alert.values),
        panel=link_of(alert.panel) or link_of(alert.dashboard),
        rule=link_of(alert.generator),
        silence=link_of(alert.silence),
    )


def _instant(text: str | None, field: str) -> datetime | None:
    """None for no text and for Go's zero time."""
    if not text:
        return None
    try:
        found = datetime.fromisoformat(text)
        moment = found.astimezone(UTC) if found.tzinfo else found.replace(tzinfo=UTC)
    except OverflowError:
        return None
    except ValueError:
        raise InvalidInput(f"{field} {text[:40]!r} is not a time like 2026-11-26T09:30:00Z.", field=field) from None
    return moment if moment.year > 1 else None


ROUTES: Final = (
    Route(
        "POST",
        PATH,
        take_grafana_alerts,
        "Take alerts of Grafana",
        GrafanaTaken,
        about="What a webhook contact point of Grafana posts. Needs the permission `alerts`: make a token with that scope and give "
        "it to the contact point as Authorization header, scheme Bearer. An alert is known by `fingerprint` and `startsAt`; the "
        "same delivery again changes nothing, and once an alert is resolved it stays so.",
        body=GrafanaDelivery,
        problems=(400, 409, 413, 415),
        tag="alerts",
    ),
    Route(
        "GET",
        PATH,
        grafana_alerts,
        "Alerts of Grafana",
        GrafanaAlertList,
        about="Newest first. Those with a label `account` or `account_id` are shown to whoever sees that account, the others to "
        "those who see all.",
        parameters=(one_of("status", "Only with this status.", GRAFANA_STATUSES), limit_of(100), CURSOR),
        problems=(400,),
        tag="alerts",
    ),
)
