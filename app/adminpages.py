"""For admins: who may sign in as what, and the audit log. Plain pages, as app.accountpages."""

from __future__ import annotations

import re
from typing import Final
from urllib.parse import urlencode

from flask import Blueprint, Response, redirect, request
from werkzeug.wrappers import Response as AnyResponse

from app import access, administration
from app.administration import Invitation
from app.core.access import ROLES, Accounts
from app.core.people import accounts_from
from app.errors import InvalidInput, NotFound, Refused, SpendscopeError
from app.forms import gate, page, said, sent_by_session, visitor
from app.gate import AUDIT, USER, USERS, WELCOME
from app.principal import principal

RESULTS: Final = ("done", "asked", "refused", "undone")
MOST_ACCOUNTS: Final = 500


def blueprint() -> Blueprint:
    pages = Blueprint("administration", __name__, template_folder="templates")
    for method, path, view in (
        ("GET", USERS, users_page),
        ("POST", USERS, add_user),
        ("GET", USER, user_page),
        ("POST", USER, change_user),
        ("GET", AUDIT, audit_page),
    ):
        pages.add_url_rule(path, f"{view.__name__}", view, methods=[method], provide_automatic_options=False)
    pages.register_error_handler(SpendscopeError, said)
    return pages


# --- users --------------------------------------------------------------------------------------------------------


def users_page(status: int = 200, **values: str) -> Response:
    """`values`: what was typed into the form and what is wrong with it."""
    if principal().via == "local":
        return page("open.html")
    backends = gate().backends
    now = backends.clock()
    users = backends.metadata.users()
    live = {user.id: sum(not found.is_over(now) for found in backends.metadata.sessions(user.id)) for user in users}
    return page("users.html", status, users=users, live=live, roles=list(ROLES), settings=gate().settings, given=values)


def add_user() -> AnyResponse:
    form = sent_by_session()
    name, role, accounts = form.get("name", ""), form.get("role", ""), form.get("accounts", "")
    try:
        invitation = administration.add(gate().backends, principal(), name, role, _accounts(accounts), visitor())
    except SpendscopeError as error:
        return users_page(error.status, said=error.message, name=name[:64], role=role[:10], accounts=accounts[:2000])
    return _invited(invitation, "is added")


def _invited(invitation: Invitation, what: str) -> Response:
    """On the page that answers and nowhere else."""
    home = gate().settings.public_url.rstrip("/")
    link = f"{home}{WELCOME}?{urlencode({'code': invitation.code})}"
    return page("invited.html", user=invitation.user, link=link, until=invitation.until, what=what)


def user_page(id: str, status: int = 200, said: str = "", done: str = "") -> Response:
    backends = gate().backends
    now = backends.clock()
    user = administration.user_of(backends, id)
    return page(
        "user.html",
        status,
        user=user,
        sessions=[found for found in backends.metadata.sessions(user.id) if not found.is_over(now)],
        tokens=access.tokens_of(backends, user.id),
        now=now,
        roles=list(ROLES),
        is_own=user.id == access.user_id_of(principal()),
        local_login=gate().settings.local_login,
        said=said,
        done=done,
    )


def change_user(id: str) -> AnyResponse:
    form = sent_by_session()
    backends, asking = gate().backends, principal()
    user = administration.user_of(backends, id)
    try:
        match form.get("do"):
            case "rights":
                accounts = _accounts(form.get("accounts", ""))
                administration.change_rights(backends, asking, user, form.get("role", ""), accounts, visitor())
                done = "Role and accounts are changed."
            case "disable" | "enable" as what:
                administration.set_disabled(backends, asking, user, what == "disable", visitor())
                done = "Shut out: sessions have ended and tokens stop." if what == "disable" else "Let in again."
            case "end":
                number = administration.end_sessions(backends, asking, user, visitor())
                done = f"{number} session{'' if number == 1 else 's'} ended."
            case "revoke":
                administration.revoke_token(backends, asking, user, form.get("token", ""), visitor())
                done = "The token is revoked."
            case "invite":
                return _invited(administration.invite(backends, asking, user, visitor()), "may set a new password")
            case _:
                raise InvalidInput("This form says nothing that can be done.", field="do")
    except NotFound:
        raise
    except SpendscopeError as error:
        return user_page(id, error.status, said=error.message)
    finally:
        gate().forget_all()
    if user.id == access.user_id_of(asking) and form.get("do") != "revoke":
        return redirect(USERS, 303)
    return user_page(id, done=done)


def _accounts(text: str) -> Accounts:
    found = accounts_from(re.split(r"[\s,;]+", text))
    if found and (len(found) > MOST_ACCOUNTS or any(len(name) > 64 or not name.isprintable() for name in found)):
        raise InvalidInput(f"At most {MOST_ACCOUNTS} accounts of up to 64 characters.", field="accounts")
    return found


# --- the audit log ------------------------------------------------------------------------------------------------


def audit_page() -> Response:
    if principal().via == "local":
        return page("open.html")
    asked = {name: request.args.get(name, "").strip()[:100] for name in ("who", "what", "result")}
    if asked["result"] and asked["result"] not in RESULTS:
        raise InvalidInput(f"result {asked['result']!r} is not one of {', '.join(RESULTS)}.", field="result")
    found = administration.audit_page(gate().backends, **asked, before=_number(request.args.get("before", "")))
    filters = {name: value for name, value in asked.items() if value}
    return page(
        "audit.html",
        found=found,
        asked=asked,
        results=RESULTS,
        older=f"{AUDIT}?{urlencode({**filters, 'before': found.before})}" if found.before else "",
        newest=f"{AUDIT}?{urlencode(filters)}" if request.args.get("before") else "",
    )


def _number(text: str) -> int | None:
    if not text:
        return None
    if not text.isascii() or not text.isdigit() or len(text) > 12:
        raise Refused(f"before {text[:20]!r} is not the number of an entry.")
    return int(text)
