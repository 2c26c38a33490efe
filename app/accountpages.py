"""Sign-in, first claim, a password by a one-time link, own account: plain pages that need no script."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from flask import Blueprint, Response, redirect, request
from werkzeug.wrappers import Response as AnyResponse

from app import access, signon
from app.backends import current
from app.core.access import Permission
from app.core.people import LEAST_PASSWORD, LONGEST, LONGEST_TOKEN_DAYS
from app.errors import NotFound, SpendscopeError, TooMany, Unavailable
from app.forms import HOME, form, gate, page, safe_target, said, sent, sent_by_session, set_cookie, visitor
from app.gate import ACCOUNT, CLAIM, OWN_PASSWORD, OWN_TOKENS, SIGN_IN, SIGN_OUT, WELCOME
from app.principal import principal

SIGN_INS_A_MINUTE: Final = 5
SIGN_INS_FROM_ONE_PLACE: Final = 30
TOKENS_A_MINUTE: Final = 10


def blueprint() -> Blueprint:
    """Needs the gate in `app.extensions["spendscope-gate"]`."""
    pages = Blueprint("account", __name__, template_folder="templates")
    for method, path, view in (
        ("GET", SIGN_IN, sign_in_page),
        ("POST", SIGN_IN, sign_in),
        ("GET", CLAIM, claim_page),
        ("POST", CLAIM, claim),
        ("GET", WELCOME, welcome_page),
        ("POST", WELCOME, welcome),
        ("GET", ACCOUNT, account_page),
        ("POST", ACCOUNT, end_session),
        ("POST", OWN_PASSWORD, change_password),
        ("POST", OWN_TOKENS, own_tokens),
        ("POST", SIGN_OUT, sign_out),
    ):
        pages.add_url_rule(path, f"{view.__name__}", view, methods=[method], provide_automatic_options=False)
    pages.register_error_handler(SpendscopeError, said)
    return pages


# --- signing in ---------------------------------------------------------------------------------------------------


def sign_in_page() -> Response:
    if gate().is_open():
        return page("open.html")
    return sign_in_form(next=safe_target(request.args.get("next", "")))


def sign_in_form(status: int = 200, **values: str) -> Response:
    """What the people of this deployment can sign in with."""
    settings = gate().settings
    can_claim = settings.local_login and not settings.oidc_issuer and not current().metadata.has_users()
    on = settings.oidc_name if settings.oidc_issuer else ""
    return form("signin.html", status, **values, can_claim=can_claim, sign_on=on, local_login=settings.local_login)


def sign_in() -> AnyResponse:
    given = sent()
    name, back = given.get("name", ""), safe_target(given.get("next", ""))
    _limit_sign_in(name)
    return entered(
        lambda: (access.sign_in(current(), name, given.get("password", ""), visitor()), back),
        lambda said, status: sign_in_form(status, said=said, name=name[:64], next=back),
    )


def claim_page() -> Response:
    _claimable()
    return form("claim.html")


def claim() -> AnyResponse:
    _claimable()
    given = sent()
    name = given.get("name", "")
    _limit_sign_in("")
    return entered(
        lambda: (access.claim(current(), given.get("token", ""), name, given.get("password", ""), visitor()), HOME),
        lambda said, status: form("claim.html", status, said=said, name=name[:64]),
    )


def _claimable() -> None:
    if gate().is_open() or not gate().settings.local_login or current().metadata.has_users():
        raise NotFound("There is nothing to claim here.")


def welcome_page() -> Response:
    """The form behind a one-time link. Looking at it uses nothing up, so that a preview of the link does not either."""
    return form("welcome.html", code=request.args.get("code", "")[:64])


def welcome() -> AnyResponse:
    given = sent()
    code, name = given.get("code", ""), given.get("name", "")
    _limit_sign_in("")
    return entered(
        lambda: (access.accept_invitation(current(), code, name, given.get("password", ""), visitor()), HOME),
        lambda said, status: form("welcome.html", status, said=said, name=name[:64], code=code[:64]),
    )


def _limit_sign_in(name: str) -> None:
    """By person and place, and by place: neither a list of passwords nor a list of names gets far."""
    limit_place()
    gate().limit(f"sign-in:{request.remote_addr or ''}:{name.strip().lower()[:64]}", SIGN_INS_A_MINUTE)


def limit_place() -> None:
    gate().limit(f"sign-in:{request.remote_addr or ''}", SIGN_INS_FROM_ONE_PLACE)


def entered(enter: Callable[[], tuple[str, str]], again: Callable[[str, int], Response]) -> AnyResponse:
    """Enter with a new session and go where one was going, or say on the same form why not."""
    try:
        secret, back = enter()
    except TooMany:
        raise
    except SpendscopeError as error:
        answer = again(error.message, error.status)
        if isinstance(error, Unavailable):
            answer.headers["Retry-After"] = str(error.retry_after)
        return answer
    found = redirect(back, 303)
    if old := request.cookies.get(gate().cookie):
        # Whatever session this browser had is not carried over.
        current().metadata.end_session(access.digest_of(old))
        gate().forget(access.digest_of(old))
    set_cookie(found, gate().cookie, secret, int(LONGEST.total_seconds()))
    return found


# --- one's own account --------------------------------------------------------------------------------------------


def account_page(status: int = 200, said: str = "", done: str = "", secret: str = "") -> Response:
    """`said` is what went wrong, `done` what was done, `secret` a token that is shown this once."""
    asking = principal()
    if asking.via == "local":
        return page("open.html")
    backends, now = gate().backends, current().clock()
    user = backends.metadata.user(access.user_id_of(asking))
    if user is None:
        raise NotFound("This user is not there any more. Sign in again.")
    return page(
        "account.html",
        status,
        user=user,
        sessions=[found for found in backends.metadata.sessions(user.id) if not found.is_over(now)],
        tokens=access.tokens_of(backends, user.id),
        now=now,
        scopes=[str(each) for each in Permission if each in asking.permissions],
        least=LEAST_PASSWORD,
        longest_days=LONGEST_TOKEN_DAYS,
        said=said,
        done=done,
        secret=secret,
    )


def end_session() -> AnyResponse:
    given = sent_by_session()
    access.end_session(gate().backends, principal(), given.get("session", ""), visitor())
    gate().forget(given.get("session", ""))
    return redirect(ACCOUNT, 303)


def change_password() -> AnyResponse:
    """The old one is asked for: whoever sits down at an open browser must not lock its owner out."""
    given, asking = sent_by_session(), principal()
    gate().limit(f"password:{asking.id}", SIGN_INS_A_MINUTE)
    try:
        access.change_own_password(
            gate().backends, asking, given.get("old", ""), given.get("password", ""), given.get("again", ""), visitor()
        )
    except TooMany:
        raise
    except SpendscopeError as error:
        return account_page(error.status, said=error.message)
    return account_page(done="Your password is changed, and your other sessions have ended.")


def own_tokens() -> AnyResponse:
    """Make one, or revoke the one that is named."""
    given, asking = sent_by_session(), principal()
    gate().limit(f"tokens:{asking.id}", TOKENS_A_MINUTE)
    try:
        if token := given.get("revoke", ""):
            access.revoke_own_token(gate().backends, asking, token, visitor())
            gate().forget_all()
            return account_page(done="The token is revoked.")
        days = given.get("days", "")
        secret, made = access.create_own_token(
            gate().backends,
            asking,
            given.get("name", ""),
            given.getlist("scope"),
            int(days) if days.isascii() and days.isdigit() and len(days) < 6 else 0,
            visitor(),
        )
    except SpendscopeError as error:
        return account_page(error.status, said=error.message)
    return account_page(done=f"{made.name} works until {made.expires:%Y-%m-%d}.", secret=secret)


def sign_out() -> AnyResponse:
    sent_by_session()
    asking, backends = principal(), gate().backends
    session = backends.metadata.session(asking.credential)
    access.end_session(backends, asking, asking.credential, visitor())
    gate().forget(asking.credential)
    answer = _further_out(session.hint) if session and session.how == signon.HOW else redirect(SIGN_IN, 303)
    set_cookie(answer, gate().cookie, "", 0)
    return answer


def _further_out(hint: str) -> AnyResponse:
    """On to the identity provider, which has a session of its own. Here it is over already, whatever happens there."""
    try:
        address = signon.sign_out_address(gate().backends, gate().key, hint)
    except SpendscopeError:
        address = None
    # A page and not a redirect: browsers hold a form's redirects against `form-action 'self'`.
    return page("signedout.html", address=address, sign_on=gate().settings.oidc_name)
