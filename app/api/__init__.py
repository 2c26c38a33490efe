"""The HTTP API and what probes ask, as one Flask blueprint."""

from __future__ import annotations

import time
from functools import cache
from typing import Any, Final

from flask import Blueprint, Request, Response, current_app, g, request
from werkzeug.exceptions import HTTPException, MethodNotAllowed, default_exceptions
from werkzeug.exceptions import NotFound as NoSuchPath

from app.api import (
    anomalies,
    budgets,
    comparison,
    costs,
    forecast,
    grafanaalerts,
    health,
    jobs,
    ledger,
    notifications,
    openapi,
    problems,
    reconciliation,
    restatements,
)
from app.api.routes import Arguments, Route
from app.backends import current
from app.errors import SpendscopeError
from app.gate import CALLBACK_PATH, PROBES, first_output
from app.metrics import Requests, state_text

METHODS: Final = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")


def blueprint() -> Blueprint:
    """Everything under /api, and /healthz, /readyz, /metrics. Register it once an app; it needs `Backends` in
    `app.extensions["spendscope"]`."""
    api = Blueprint("api", __name__, template_folder="templates")
    requests = Requests()
    routes = _routes(requests)
    for route in routes:
        api.add_url_rule(route.path, route.name, route.serve, methods=[route.method], provide_automatic_options=False)
    for path in ("/api", "/api/", "/api/<path:rest>"):
        api.add_url_rule(path, "unknown_path", _unknown_path, methods=METHODS, provide_automatic_options=False)
    for probe in PROBES:  # a slash too many must not be answered by a page: whoever asks would take that for health
        for path, methods in ((probe, METHODS[2:]), (f"{probe}/", METHODS)):
            api.add_url_rule(path, "unknown_path", _unknown_path, methods=methods, provide_automatic_options=False)
    _answer_errors(api)
    _count(api, requests)
    api.after_request(_secure)
    return api


def _routes(requests: Requests) -> tuple[Route, ...]:
    def metrics(_: Arguments) -> Response:
        text = state_text(current()) + requests.text()
        return Response(
            text, content_type="text/plain; version=0.0.4; charset=utf-8", headers={"Cache-Control": "no-store"}
        )

    @cache
    def document() -> dict[str, Any]:
        """Written when somebody asks for it: a web server that starts would wait for it."""
        return openapi.document(routes)

    def openapi_json(_: Arguments) -> Response:
        return openapi.json_of(document())

    def docs(_: Arguments) -> Response:
        return openapi.page_of(document())

    routes = (
        *costs.ROUTES,
        *comparison.ROUTES,
        *forecast.ROUTES,
        *ledger.ROUTES,
        *restatements.ROUTES,
        *reconciliation.ROUTES,
        *anomalies.ROUTES,
        *budgets.ROUTES,
        *grafanaalerts.ROUTES,
        *jobs.ROUTES,
        *notifications.ROUTES,
        Route("GET", "/api/v1/openapi.json", openapi_json, "This document", "application/json", tag="about"),
        Route("GET", "/api/docs", docs, "This document, to be read", "text/html", tag="about"),
        *health.ROUTES,
        Route("GET", "/metrics", metrics, "For Prometheus", "text/plain", parameters=None, tag="operations"),
    )
    return routes


def _unknown_path(**_: str) -> Response:
    """What no route takes: without it Dash's own catch-all would answer 200 with a page."""
    allowed = [method for method in METHODS if _is_served(method)]
    if allowed and request.method == "OPTIONS":
        return Response(status=204, headers={"Allow": ", ".join(allowed)})
    if allowed:
        raise MethodNotAllowed(
            allowed, f"{request.method} is not for {request.path[:80]}. Use one of: {', '.join(allowed)}."
        )
    raise NoSuchPath(f"There is no {request.path[:80]} here. /api/docs lists what there is.")


def _is_served(method: str) -> bool:
    router = current_app.create_url_adapter(request)
    assert router is not None
    try:
        endpoint, _ = router.match(method=method)
    except HTTPException:
        return False
    return str(endpoint) != request.endpoint


def _answer_errors(api: Blueprint) -> None:
    """By code too: a page's handler for 404 must not answer for the API."""
    for code in default_exceptions:
        api.register_error_handler(code, problems.of_http)
    api.register_error_handler(HTTPException, problems.of_http)
    api.register_error_handler(SpendscopeError, problems.of_spendscope)
    api.register_error_handler(Exception, problems.of_anything)
    api.app_errorhandler(HTTPException)(_before_routing)


def _before_routing(error: HTTPException) -> Response | HTTPException:
    """Errors of requests that reached no route: a method nobody knows."""
    ours = request.path.startswith("/api/") or request.path.rstrip("/") in PROBES
    return problems.of_http(error) if ours else error


def _count(api: Blueprint, requests: Requests) -> None:
    def begin() -> None:
        g.spendscope_began = time.perf_counter()

    def end(response: Response) -> Response:
        began = g.pop("spendscope_began", None)
        if began is not None:
            asked: Request = request._get_current_object()  # type: ignore[attr-defined]
            route = asked.url_rule.rule if asked.url_rule else "none"
            method = asked.method if asked.method in METHODS else "other"
            callback = _callback() if route == CALLBACK_PATH and response.status_code == 200 else None
            requests.count(method, route, response.status_code, time.perf_counter() - began, callback)
        return response

    api.before_app_request(begin)
    api.after_app_request(end)


def _callback() -> str | None:
    """What the callback that was asked for draws; None for what is no callback of this app."""
    gate, output = current_app.extensions.get("spendscope-gate"), g.get("spendscope_output")
    if output is None:  # a kept answer knows what it was asked for
        body = request.get_json(silent=True)
        output = body.get("output") if isinstance(body, dict) else None
    known = gate is not None and isinstance(output, str) and output in gate.callbacks
    return first_output(str(output)) if known else None


def _secure(response: Response) -> Response:
    response.headers.setdefault("X-Content-Type-Options", "nosniff")
    response.headers.setdefault("Cache-Control", "no-cache")
    if response.status_code >= 400:
        response.headers["Cache-Control"] = "no-store"
    return response
