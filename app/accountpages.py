"""Sign-in, first claim, own account: plain pages that need no script, drawn here."""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
import secrets
from collections.abc import Callable
from typing import Any, Final
from urllib.parse import urlsplit

from flask import Blueprint, Response, current_app, make_response, redirect, render_template, request
from werkzeug.wrappers import Response as AnyResponse

from app import access
from app.access import Visitor
from app.backends import current
from app.core.people import LONGEST
from app.errors import Forbidden, InvalidInput, NotFound, SpendscopeError, TooMany, Unavailable
from app.gate import ACCOUNT, CLAIM, SIGN_IN, SIGN_OUT, Gate
from app.principal import principal
from app.ui.shell import THEME_SCRIPT

SIGN_INS_A_MINUTE: Final = 5
SIGN_INS_FROM_ONE_PLACE: Final = 30
MOST_FORM_BYTES: Final = 16 * 1024
HOME: Final = "/"


def blueprint() -> Blueprint:
    """Needs the gate in `app.extensions["spendscope-gate"]`."""
    pages = Blueprint("account", __name__, template_folder="templates")
    for method, path, view in (
        ("GET", SIGN_IN, sign_in_page),
        ("POST", SIGN_IN, sign_in),
        ("GET", CLAIM, claim_page),
        ("POST", CLAIM, claim),
        ("GET", ACCOUNT, account_page),
        ("POST", ACCOUNT, end_session),
        ("POST", SIGN_OUT, sign_out),
    ):
        pages.add_url_rule(path, f"{view.__name__}", view, methods=[method], provide_automatic_options=False)
    return pages


def gate() -> Gate:
    found: Gate = current_app.extensions["spendscope-gate"]
    return found


def visitor() -> Visitor:
    return Visitor(request.remote_addr or "", request.headers.get("User-Agent", "")[:200])


# --- signing in ---------------------------------------------------------------------------------------------------


def sign_in_page() -> Response:
    back = safe_target(request.args.get("next", ""))
    if gate().is_open():
        return _page("open.html")
    return _form("signin.html", next=back, can_claim=not current().metadata.has_users())


def sign_in() -> AnyResponse:
    form = _sent()
    name, back = form.get("name", ""), safe_target(form.get("next", ""))
    _limit_sign_in(name)
    return _signed_in(
        lambda: access.sign_in(current(), name, form.get("password", ""), visitor()),
        back,
        lambda said, status: _form("signin.html", status, said=said, name=name[:64], next=back),
    )


def claim_page() -> Response:
    _claimable()
    return _form("claim.html")


def claim() -> AnyResponse:
    _claimable()
    form = _sent()
    name = form.get("name", "")
    _limit_sign_in("")
    return _signed_in(
        lambda: access.claim(current(), form.get("token", ""), name, form.get("password", ""), visitor()),
        HOME,
        lambda said, status: _form("claim.html", status, said=said, name=name[:64]),
    )


def _claimable() -> None:
    if gate().is_open() or current().metadata.has_users():
        raise NotFound("There is nothing to claim here.")


def _limit_sign_in(name: str) -> None:
    """By person and place, and by place: neither a list of passwords nor a list of names gets far."""
    place = request.remote_addr or ""
    gate().limit(f"sign-in:{place}", SIGN_INS_FROM_ONE_PLACE)
    gate().limit(f"sign-in:{place}:{name.strip().lower()[:64]}", SIGN_INS_A_MINUTE)


def _signed_in(enter: Callable[[], str], back: str, again: Callable[[str, int], Response]) -> AnyResponse:
    """Enter with a new session, or say on the same form why not."""
    try:
        secret = enter()
    except TooMany:
        raise
    except Unavailable as error:
        later = again(error.message, error.status)
        later.headers["Retry-After"] = str(error.retry_after)
        return later
    except SpendscopeError as error:
        return again(error.message, error.status)
    answer = redirect(back, 303)
    if old := request.cookies.get(gate().cookie):
        # Whatever session this browser had is not carried over.
        current().metadata.end_session(access.digest_of(old))
        gate().forget(access.digest_of(old))
    _set_cookie(answer, gate().cookie, secret, int(LONGEST.total_seconds()))
    return answer


# --- one's own account --------------------------------------------------------------------------------------------


def account_page() -> Response:
    asking = principal()
    if asking.via == "local":
        return _page("open.html")
    backends = current()
    user_id = asking.id.removeprefix("user:")
    sessions = gate().backends.metadata.sessions(user_id)
    live = [found for found in sessions if not found.is_over(backends.clock())]
    return _page("account.html", who=asking, sessions=live, form_token=_session_token(asking.credential))


def end_session() -> AnyResponse:
    form = _sent_by_session()
    access.end_session(gate().backends, principal(), form.get("session", ""), visitor())
    gate().forget(form.get("session", ""))
    return redirect(ACCOUNT, 303)


def sign_out() -> AnyResponse:
    _sent_by_session()
    asking = principal()
    access.end_session(gate().backends, asking, asking.credential, visitor())
    gate().forget(asking.credential)
    answer = redirect(SIGN_IN, 303)
    _set_cookie(answer, gate().cookie, "", 0)
    return answer


# --- forms and cookies --------------------------------------------------------------------------------------------


def safe_target(text: str) -> str:
    """A path of ours to go to after signing in; the home page for anything that might lead elsewhere."""
    parts = urlsplit(text) if text.isascii() and text.isprintable() and len(text) <= 2000 else None
    plain = parts is not None and not parts.scheme and not parts.netloc and "\\" not in text
    if not plain or not text.startswith("/") or text.startswith("//"):
        return HOME
    return HOME if text.split("?")[0] in (SIGN_IN, SIGN_OUT, CLAIM) else text


def _form_cookie() -> str:
    return f"{gate().cookie}-form"


def _signed(purpose: str, text: str) -> str:
    return hmac.new(gate().key, f"{purpose}\0{text}".encode(), hashlib.sha256).hexdigest()


def _session_token(id: str) -> str:
    return _signed("session", id)


def _form(template: str, status: int = 200, **values: Any) -> Response:
    """A form for somebody without a session: its token belongs to a cookie of this browser."""
    # The same for every tab of the browser, and for the requests that it makes by itself (its icon).
    seed = request.cookies.get(_form_cookie(), "")
    if not re.fullmatch("[0-9a-f]{32}", seed):
        seed = secrets.token_hex(16)
    answer = _page(template, status, form_token=_signed("form", seed), **values)
    _set_cookie(answer, _form_cookie(), seed, 3600, "Strict")
    return answer


def _sent() -> dict[str, str]:
    return _checked(_signed("form", request.cookies.get(_form_cookie(), "")))


def _sent_by_session() -> dict[str, str]:
    asking = principal()
    if asking.via != "session":
        raise Forbidden("Only somebody who signed in has sessions.")
    return _checked(_session_token(asking.credential))


def _checked(token: str) -> dict[str, str]:
    """What a form of ours sent. Raises InvalidInput, Forbidden."""
    request.max_content_length = MOST_FORM_BYTES
    if request.mimetype != "application/x-www-form-urlencoded":
        raise InvalidInput("This takes a form.", code="bad_request")
    if not hmac.compare_digest(request.form.get("form_token", "").encode(), token.encode()):
        raise Forbidden("This form is too old or not from here. Load the page again.")
    return dict(request.form.items())


def _set_cookie(answer: AnyResponse, name: str, value: str, seconds: int, same_site: str = "Lax") -> None:
    answer.set_cookie(
        name,
        value,
        max_age=seconds,
        path="/",
        secure=gate().settings.behind_tls,
        httponly=True,
        samesite=same_site,
    )


def _page(template: str, status: int = 200, **values: Any) -> Response:
    theme = base64.b64encode(hashlib.sha256(THEME_SCRIPT.encode()).digest()).decode()
    answer = make_response(render_template(template, theme_script=THEME_SCRIPT, **values), status)
    answer.headers["Content-Security-Policy"] = (
        f"default-src 'none'; script-src 'sha256-{theme}'; style-src 'self'; font-src 'self'; img-src 'self'; "
        "base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
    )
    answer.headers["Cache-Control"] = "no-store"
    return answer
