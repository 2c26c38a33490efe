"""Taking alerts from a Grafana, and listing them. Delivered again, late or out of order, they come to the same."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from app.backends import Backends
from app.core.grafanaalerts import GrafanaAlert, Told, after
from app.errors import Conflict

log = logging.getLogger(__name__)

ATTEMPTS: Final = 5
KEPT: Final = timedelta(days=400)
"""How long an alert stays listed after it was heard of last."""


@dataclass(frozen=True)
class Taken:
    """Of a delivery: how many alerts it had, and of how many episodes it began or changed the status."""

    received: int
    changed: int


def take_alerts(backends: Backends, told: Iterable[Told]) -> Taken:
    """Keep what a delivery says. Raises Conflict when others change the same alerts all the time: send it again."""
    now, every = backends.clock(), list(told)
    changed = sum(_take(backends, one, now) for one in every)
    if changed:
        log.info("Grafana told of %d alerts, %d of them new or changed", len(every), changed)
    return Taken(len(every), changed)


def _take(backends: Backends, told: Told, now: datetime) -> bool:
    for _ in range(ATTEMPTS):
        known = backends.metadata.grafana_alerts_like(told.fingerprint)
        records = after(known, told, now)
        # One that somebody else changed is read again; what was stored meanwhile is no other for being stored twice.
        if all(backends.metadata.put_grafana_alert(one) for one in records):
            before = next((one for one in known if one.id == records[0].id), None)
            return before is None or before.status != records[0].status
    raise Conflict("Alerts are being changed too fast by somebody else. Send it again.")


def forget_grafana_alerts(backends: Backends) -> int:
    """Housekeeping; how many."""
    return backends.metadata.forget_grafana_alerts(heard_before=backends.clock() - KEPT)


def firing(backends: Backends, most: int) -> list[GrafanaAlert]:
    """Those that fire now, newest first."""
    return list(backends.metadata.grafana_alerts(limit=most, status="firing").items)
