"""Plain pages that need no script: drawn from templates, with forms that carry a token of their browser or session."""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
import secrets
from collections.abc import Sequence
from typing import Any, Final
from urllib.parse import urlsplit

from flask import Response, current_app, make_response, render_template, request
from werkzeug.datastructures import ImmutableMultiDict
from werkzeug.wrappers import Response as AnyResponse

from app.access import Visitor
from app.core.access import Permission
from app.errors import Forbidden, InvalidInput, SpendscopeError, TooMany, Unavailable
from app.gate import ACCOUNT, AUDIT, CLAIM, SIGN_IN, SIGN_ON, SIGN_ON_BACK, SIGN_OUT, USERS, WELCOME, Gate
from app.principal import principal
from app.ui.shell import THEME_SCRIPT

MOST_FORM_BYTES: Final = 16 * 1024
HOME: Final = "/"
NOT_AFTER_SIGNING_IN: Final = (SIGN_IN, SIGN_OUT, CLAIM, WELCOME, SIGN_ON, SIGN_ON_BACK)


def gate() -> Gate:
    found: Gate = current_app.extensions["spendscope-gate"]
    return found


def visitor() -> Visitor:
    return Visitor(request.remote_addr or "", request.headers.get("User-Agent", "")[:200])


def safe_target(text: str) -> str:
    """A path of ours to go to after signing in; the home page for anything that might lead elsewhere."""
    parts = urlsplit(text) if text.isascii() and text.isprintable() and len(text) <= 2000 else None
    plain = parts is not None and not parts.scheme and not parts.netloc and "\\" not in text
    if not plain or not text.startswith("/") or text.startswith("//"):
        return HOME
    return HOME if text.split("?")[0] in NOT_AFTER_SIGNING_IN else text


# --- what ties a form to its browser or session -------------------------------------------------------------------


def form_cookie() -> str:
    return f"{gate().cookie}-form"


def signed(purpose: str, text: str) -> str:
    return hmac.new(gate().key, f"{purpose}\0{text}".encode(), hashlib.sha256).hexdigest()


def form(template: str, status: int = 200, **values: Any) -> Response:
    """A form for somebody without a session: its token belongs to a cookie of this browser."""
    # The same for every tab of the browser, and for the requests that it makes by itself (its icon).
    seed = request.cookies.get(form_cookie(), "")
    if not re.fullmatch("[0-9a-f]{32}", seed):
        seed = secrets.token_hex(16)
    answer = page(template, status, form_token=signed("form", seed), **values)
    set_cookie(answer, form_cookie(), seed, 3600, "Strict")
    return answer


def sent() -> ImmutableMultiDict[str, str]:
    """What a form for somebody without a session sent. Raises InvalidInput, Forbidden."""
    return _checked(signed("form", request.cookies.get(form_cookie(), "")))


def sent_by_session() -> ImmutableMultiDict[str, str]:
    """What a form of somebody who signed in sent. Raises InvalidInput, Forbidden."""
    asking = principal()
    if asking.via != "session":
        raise Forbidden("Only somebody who signed in has an account.")
    return _checked(session_token())


def session_token() -> str:
    return signed("session", principal().credential)


def _checked(token: str) -> ImmutableMultiDict[str, str]:
    request.max_content_length = MOST_FORM_BYTES
    if request.mimetype != "application/x-www-form-urlencoded":
        raise InvalidInput("This takes a form.", code="bad_request")
    if not hmac.compare_digest(request.form.get("form_token", "").encode(), token.encode()):
        raise Forbidden("This form is too old or not from here. Load the page again.")
    return request.form


def set_cookie(answer: AnyResponse, name: str, value: str, seconds: int, same_site: str = "Lax") -> None:
    answer.set_cookie(
        name,
        value,
        max_age=seconds,
        path="/",
        secure=gate().settings.behind_tls,
        httponly=True,
        samesite=same_site,
    )


# --- drawing ------------------------------------------------------------------------------------------------------


def tabs() -> Sequence[tuple[str, str]]:
    """Path and name of the pages about people that whoever asks may see."""
    asking = principal()
    found = [(ACCOUNT, "Your account")]
    if asking.via == "session" and asking.may(Permission.ADMINISTER):
        found += [(USERS, "Users"), (AUDIT, "Audit log")]
    return found


def page(template: str, status: int = 200, **values: Any) -> Response:
    asking = principal()
    if asking.via == "session":
        values = {
            "form_token": session_token(),
            "tabs": tabs(),
            "pages": current_app.config["SPENDSCOPE_PAGES"],
            **values,
        }
    theme = base64.b64encode(hashlib.sha256(THEME_SCRIPT.encode()).digest()).decode()
    answer = make_response(render_template(template, theme_script=THEME_SCRIPT, who=asking, **values), status)
    answer.headers["Content-Security-Policy"] = (
        f"default-src 'none'; script-src 'sha256-{theme}'; style-src 'self'; font-src 'self'; img-src 'self'; "
        "base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
    )
    answer.headers["Cache-Control"] = "no-store"
    return answer


def said(error: SpendscopeError) -> Response:
    """An error of such a page, as a page: it is a person who reads it."""
    answer = page("said.html", error.status, said=error.message)
    if isinstance(error, Unavailable | TooMany):
        answer.headers["Retry-After"] = str(error.retry_after)
    return answer
