"""For probes and Prometheus. Not under /api: no query string is refused here."""

from __future__ import annotations

from typing import Final

from flask import Response, current_app

from app.api.models import PartReadiness, Readiness
from app.api.routes import Arguments, Route, answered
from app.backends import current
from app.core.access import Permission
from app.health import PartHealth, check_parts, is_ready
from app.principal import principal


def healthz(_: Arguments) -> Response:
    """The process answers: asks nobody else, so a probe never restarts it for somebody else's fault."""
    return Response("ok\n", content_type="text/plain; charset=utf-8", headers={"Cache-Control": "no-store"})


def readyz(_: Arguments) -> Response:
    parts = check_parts(current())
    if _is_leaving():
        parts["web"] = PartHealth(False, "This process is being stopped.")
    ready, told = is_ready(parts), principal().may(Permission.METRICS)
    answer = Readiness(
        ready=ready,
        parts={name: PartReadiness(ok=part.ok, message=part.message if told else "") for name, part in parts.items()},
    )
    headers = {"Cache-Control": "no-store"} | ({} if ready else {"Retry-After": "5"})
    return answered(answer, 200 if ready else 503, headers)


def _is_leaving() -> bool:
    """Whether this server was asked to stop (app.serve): requests should go to another one by now."""
    return bool(current_app.extensions.get("spendscope-leaving", bool)())


ROUTES: Final = (
    Route("GET", "/healthz", healthz, "Whether this process answers", "text/plain", parameters=None, tag="operations"),
    Route(
        "GET",
        "/readyz",
        readyz,
        "Whether the parts it stands on answer",
        Readiness,
        about="Ready means: stores, queue and at least one worker answer, whether there is data or not. Otherwise 503 "
        "with the same body, also while this process is being stopped (part `web`). The source is reported and does not count: pages are served without it. The messages are for "
        "those with the permission `metrics`.",
        parameters=None,
        tag="operations",
    ),
)
