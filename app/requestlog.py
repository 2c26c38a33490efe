"""Every request has an id, and a line in the log when it was answered.

The id is the caller's own (X-Request-Id, or the trace of a traceparent) or made here. It is in the answer's header, in
problems, in every log record on the way and in the jobs that the request submits.
"""

from __future__ import annotations

import logging
import time
from typing import Any, Final
from uuid import uuid4

from flask import Flask, Request, Response, g, request

from app import logs
from app.core.requestids import request_id_from

log = logging.getLogger(__name__)

HEADER: Final = "X-Request-Id"
GIVEN_ID: Final = "HTTP_X_REQUEST_ID"
GIVEN_TRACE: Final = "HTTP_TRACEPARENT"
UNINTERESTING: Final = frozenset({"/healthz", "/readyz", "/metrics", "/assets/<path:filename>", "/_favicon.ico"})
STATIC: Final = "/_dash-component-suites/"
NO_ROUTE: Final = "(none)"


def follow(server: Flask) -> None:
    """Call it before anything else is registered: its hooks then run first and last."""

    def begin() -> None:
        # Each name that goes through Flask's proxies costs more than what is done with it.
        asked: Request = request._get_current_object()  # type: ignore[attr-defined]
        kept = g._get_current_object()
        given = request_id_from(asked.environ.get(GIVEN_ID), asked.environ.get(GIVEN_TRACE))
        kept.spendscope_request_id = known = given or uuid4().hex
        kept.spendscope_asked_at = time.perf_counter()
        kept.spendscope_logged = logs.bind(request_id=known)

    def answered(response: Response) -> Response:
        kept = g._get_current_object()
        if (known := kept.get("spendscope_request_id")) is not None:
            response.headers[HEADER] = known
            _tell(request._get_current_object(), response, kept)  # type: ignore[attr-defined]
        return response

    def end(_: BaseException | None) -> None:
        if (token := g.pop("spendscope_logged", None)) is not None:
            logs.unbind(token)

    server.before_request(begin)
    server.after_request(answered)
    server.teardown_request(end)


def _tell(asked: Request, response: Response, kept: Any) -> None:
    """Route and status, not the address: what was asked about may be nobody else's business."""
    route = asked.url_rule.rule if asked.url_rule is not None else NO_ROUTE
    asking = kept.get("spendscope_principal")
    level = logging.WARNING if response.status_code >= 500 else logging.INFO
    if route in UNINTERESTING or route.startswith(STATIC):
        level = min(level, logging.DEBUG) if response.status_code < 400 else level
    if not log.isEnabledFor(level):
        return
    milliseconds = round((time.perf_counter() - kept.spendscope_asked_at) * 1000, 1)
    fields = {
        "method": asked.method if asked.method.isalpha() else "?",
        "route": route,
        "status": response.status_code,
        "milliseconds": milliseconds,
        "client": asked.remote_addr or "",
        "principal": asking.id if asking is not None else "",
    }
    log.log(
        level,
        "%s %s %d in %.1f ms",
        fields["method"],
        route,
        response.status_code,
        milliseconds,
        extra={"fields": fields, **logs.OURS},
    )
