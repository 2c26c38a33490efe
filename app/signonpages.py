"""To the identity provider and back (app.signon): two addresses, the way between them kept in a cookie of the browser."""

from __future__ import annotations

import re
import secrets
from typing import Final

from flask import Blueprint, Response, redirect, request
from werkzeug.wrappers import Response as AnyResponse

from app import signon
from app.accountpages import entered, limit_place, sign_in_form
from app.backends import current
from app.errors import InvalidInput, SpendscopeError, TooMany, Unavailable
from app.forms import gate, safe_target, said, set_cookie, visitor
from app.gate import SIGN_ON, SIGN_ON_BACK
from app.ports import SignOnAnswer

SEED_SECONDS: Final = 3600
LONGEST: Final = 4096


def blueprint() -> Blueprint:
    pages = Blueprint("signon", __name__, template_folder="templates")
    pages.add_url_rule(SIGN_ON, "begin", begin, methods=["GET"], provide_automatic_options=False)
    pages.add_url_rule(SIGN_ON_BACK, "come_back", come_back, methods=["GET"], provide_automatic_options=False)
    pages.register_error_handler(SpendscopeError, said)
    return pages


def seed_cookie() -> str:
    return f"{gate().cookie}-signon"


def begin() -> AnyResponse:
    """A link and not a form: browsers hold a form's redirects, also the provider's own, against `form-action 'self'`."""
    signon.provider(current())
    limit_place()
    back = safe_target(request.args.get("next", ""))
    # The same for every tab: who begins twice may end either.
    seed = request.cookies.get(seed_cookie(), "")
    if not re.fullmatch(r"[A-Za-z0-9_-]{43}", seed):
        seed = secrets.token_urlsafe(32)
    try:
        answer = redirect(signon.begin(current(), gate().key, seed, back), 303)
    except SpendscopeError as error:
        return _again(error, back)
    # Lax: the provider's page sends the browser back here by a link.
    set_cookie(answer, seed_cookie(), seed, SEED_SECONDS)
    return answer


def come_back() -> AnyResponse:
    signon.provider(current())
    limit_place()

    def enter() -> tuple[str, str]:
        state, answer = _answer()
        seed = request.cookies.get(seed_cookie(), "")
        done = signon.finish(current(), gate().key, seed, state, answer, visitor())
        return done.secret, safe_target(done.back)

    answer = entered(enter, lambda said, status: sign_in_form(status, said=said, next="/"))
    if answer.status_code == 303:
        set_cookie(answer, seed_cookie(), "", 0)
    return answer


def _answer() -> tuple[str, SignOnAnswer]:
    """Each parameter once: of two, this server and another one could read one each."""
    found = {name: request.args.getlist(name) for name in ("state", "code", "error", "iss")}
    if any(len(values) > 1 or len("".join(values)) > LONGEST for values in found.values()):
        raise InvalidInput("This is not an answer of the identity provider. Sign in again.")
    state, code, error, issuer = ("".join(values) for values in found.values())
    return state, SignOnAnswer(code, error, issuer)


def _again(error: SpendscopeError, back: str) -> Response:
    if isinstance(error, TooMany):
        raise error
    answer = sign_in_form(error.status, said=error.message, next=back)
    if isinstance(error, Unavailable):
        answer.headers["Retry-After"] = str(error.retry_after)
    return answer
