"""Errors of the API as RFC 9457 problem+json: what is wrong, with which value, and the way out; never a stack trace."""

from __future__ import annotations

import logging
import uuid
from typing import Final

from flask import Response, request
from werkzeug.exceptions import HTTPException

from app import logs
from app.api.models import Problem
from app.errors import InvalidInput, SpendscopeError, TooMany, Unauthenticated, Unavailable

log = logging.getLogger(__name__)

TITLES: Final = {
    "invalid_input": "A parameter or the body is wrong",
    "bad_request": "The request cannot be read",
    "unauthenticated": "Sign in first",
    "forbidden": "Not permitted",
    "not_found": "There is no such thing",
    "method_not_allowed": "This path does not take this method",
    "conflict": "Something else changed it first",
    "too_large": "The body is too large",
    "unsupported_media_type": "The body is not application/json",
    "refused": "Understood, and not done",
    "too_many_requests": "Too many requests",
    "unavailable": "A part of Spendscope does not answer",
    "bad_credentials": "A part of Spendscope does not let it in",
    "internal": "Spendscope failed",
}
"""Every `code` the API answers with; /api/docs explains them and `type` points there."""

_CODES: Final = {404: "not_found", 405: "method_not_allowed", 413: "too_large", 415: "unsupported_media_type"}


def problem(status: int, code: str, detail: str, **members: str | None) -> Response:
    """`members` are `field`, `part` and `reference`, where they are known."""
    body = Problem(
        type=f"/api/docs#problem-{code}",
        title=TITLES.get(code, code.replace("_", " ").capitalize()),
        status=status,
        detail=detail,
        instance=request.path[:200],
        code=code,
        **{name: value for name, value in (members | _ids()).items() if value is not None},
    )
    return Response(
        body.json_bytes(),
        status,
        {"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"},
        content_type="application/problem+json",
    )


def _ids() -> dict[str, str | None]:
    """The id of the request; there is none where nobody follows them (app.requestlog)."""
    return {"request_id": logs.ids().get("request_id")}


def of_spendscope(error: SpendscopeError) -> Response:
    """Raised on purpose: its own status, code and sentence."""
    field = error.field[:80] if isinstance(error, InvalidInput) and error.field else None
    part = error.part if isinstance(error, Unavailable) else None
    answer = problem(error.status, error.code, error.message, field=field, part=part)
    if isinstance(error, Unauthenticated):
        answer.headers["WWW-Authenticate"] = 'Bearer realm="spendscope"'
    if isinstance(error, Unavailable | TooMany):
        answer.headers["Retry-After"] = str(error.retry_after)
    return answer


def of_http(error: HTTPException) -> Response:
    """Raised by the framework, or by a view that means exactly this status; keeps Allow and the like."""
    status = error.code or 500
    answer = problem(status, _CODES.get(status, "bad_request"), error.description or "")
    for name, value in error.get_headers():
        if name not in answer.headers:
            answer.headers[name] = value
    return answer


def of_anything(error: Exception) -> Response:
    """A mistake of ours: a reference for the person, the stack trace for the log."""
    reference = uuid.uuid4().hex[:12]
    log.error("%s %s failed, reference %s", request.method, request.path[:200], reference, exc_info=error)
    detail = f"This is a mistake in Spendscope. Its log says more under reference {reference}."
    return problem(500, "internal", detail, reference=reference)
