"""Signing in and what follows: users, sessions, API tokens, the first admin's claim. All of it is written to the audit log.

Secrets are random 256-bit values that are shown once; the store has their SHA-256. Nothing here says whether it was
the name or the password that was wrong.
"""

from __future__ import annotations

import base64
import hashlib
import secrets
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final
from uuid import uuid4

from app import passwords
from app.backends import Backends
from app.core.access import Accounts, Principal, permitted, role_from, scopes_from
from app.core.people import (
    IDLE,
    LONGEST,
    LONGEST_TOKEN_DAYS,
    SEEN_EVERY,
    TOKEN_PREFIX,
    ApiToken,
    AuditNote,
    Session,
    User,
    check_password,
    checked_user,
    name_from,
)
from app.errors import Conflict, Forbidden, InvalidInput, NotFound, Refused, Unauthenticated, Unavailable

CLAIM: Final = "claim"
INVITATION: Final = "invitation"
CLAIM_LASTS: Final = timedelta(hours=1)
CONSOLE: Final = "console"
"""Who and where an action on the command line is from: whoever may read the stores' settings."""

UNKNOWN: Final = "unknown"
MOST_TOKENS: Final = 50
"""Of one user, made on the account page."""


@dataclass(frozen=True)
class Visitor:
    """Where a request comes from, as far as it says."""

    origin: str = CONSOLE
    agent: str = ""


def new_secret() -> str:
    return base64.urlsafe_b64encode(secrets.token_bytes(32)).decode().rstrip("=")


def digest_of(secret: str) -> str:
    return hashlib.sha256(secret.encode("utf-8", "replace")).hexdigest()


def note(
    backends: Backends, who: str, what: str, target: str = "", origin: str = CONSOLE, result: str = "done"
) -> None:
    """Write to the audit log. Raises Unavailable: what cannot be logged is not done."""
    backends.metadata.append_audit(AuditNote(backends.clock(), who, what, target, origin, result))


# --- users --------------------------------------------------------------------------------------------------------


def add_user(
    backends: Backends,
    name: str,
    role: str,
    accounts: Accounts,
    password: str | None,
    *,
    who: str = CONSOLE,
    origin: str = CONSOLE,
) -> User:
    """Without a password nobody can sign in as this user until one was set (app.administration.invite).

    Raises InvalidInput for a name, role or password that cannot be, Conflict for a name that is taken.
    """
    name = name_from(name)
    hashed = None
    if password is not None:
        check_password(password, name)
        hashed = passwords.hashed(password)
    user = checked_user(User(uuid4().hex, name, role_from(role), accounts, hashed, backends.clock()))
    note(backends, who, "add user", f"{name} as {role}, {accounts_told(accounts)}", origin)
    if not backends.metadata.put_user(user):
        raise Conflict(f"There is a user {name!r} already. Choose another name.")
    return user


def accounts_told(accounts: Accounts) -> str:
    return "all accounts" if accounts is None else f"accounts {', '.join(sorted(accounts))}"


def user_called(backends: Backends, name: str) -> User:
    found = backends.metadata.user_named(name_from(name))
    if found is None:
        raise NotFound(f"There is no user {name[:40]!r}. `spendscope user list` shows them.")
    return found


def set_disabled(backends: Backends, name: str, disabled: bool) -> None:
    """A disabled user's sessions end and its tokens do not work."""
    user = user_called(backends, name)
    note(backends, CONSOLE, "disable user" if disabled else "enable user", user.name)
    change(backends, user.changed(disabled=disabled))
    if disabled:
        backends.metadata.end_sessions(user.id)


def set_password(backends: Backends, name: str, password: str) -> None:
    """All sessions of the user end. Raises Refused for one who signs in through the identity provider."""
    user = user_called(backends, name)
    if user.subject is not None:
        raise Refused(f"{user.name} signs in through the identity provider and has no password here.")
    check_password(password, user.name)
    note(backends, CONSOLE, "set password", user.name)
    change(backends, user.changed(password=passwords.hashed(password)))
    backends.metadata.end_sessions(user.id)


def change(backends: Backends, user: User) -> None:
    """Raises Conflict when somebody else was first."""
    if not backends.metadata.put_user(user):
        raise Conflict(f"{user.name} was changed by somebody else just now. Try again.")


# --- sessions -----------------------------------------------------------------------------------------------------


def sign_in(backends: Backends, name: str, password: str, visitor: Visitor) -> str:
    """The secret of a new session. Raises Unauthenticated, the same for every reason, and Forbidden where that is off."""
    check_local_login(backends)
    try:
        user = backends.metadata.user_named(name_from(name))
    except InvalidInput:
        user = None
    # A password of any length is compared, so that its length says nothing; hashing a megabyte is nobody's password.
    right = passwords.matches(user.password if user and user.subject is None else None, password[:1024])
    if user is None or not right or user.disabled:
        # Never the name as it was typed: now and then it is a password.
        note(backends, user.name if user else UNKNOWN, "sign in", origin=visitor.origin, result="refused")
        raise Unauthenticated("This name and password do not go together.")
    return start_session(backends, user, visitor, "password")


def check_local_login(backends: Backends) -> None:
    """Raises Forbidden where people sign in through the identity provider only."""
    if not backends.settings.local_login:
        raise Forbidden("Nobody signs in with a password here. Use single sign-on.")


def start_session(backends: Backends, user: User, visitor: Visitor, how: str, hint: str = "") -> str:
    """The secret of a new session: never one that somebody brought along."""
    secret, now = new_secret(), backends.clock()
    note(backends, user.name, "sign in", how, visitor.origin)
    backends.metadata.put_session(
        Session(digest_of(secret), user.id, now, now, visitor.origin, visitor.agent[:200], how, hint)
    )
    return secret


def principal_of_session(backends: Backends, id: str) -> Principal | None:
    """Who this session is; None when there is none, it is over, or its user is disabled. Keeps it alive."""
    session, now = backends.metadata.session(id), backends.clock()
    if session is None or session.is_over(now):
        return None
    user = backends.metadata.user(session.user_id)
    if user is None or user.is_shut_out or (user.subject is None and not backends.settings.local_login):
        return None
    if now - session.seen >= SEEN_EVERY:
        with suppress(Unavailable):  # it may end a minute sooner; whoever asks is not kept out for that
            backends.metadata.see_session(id, now)
    permissions = permitted(user.role, user.accounts)
    return Principal(f"user:{user.id}", user.name, user.role, user.accounts, permissions, "session", id)


def end_session(backends: Backends, principal: Principal, id: str, visitor: Visitor) -> None:
    """Sign out, or end another session of one's own. Raises NotFound for one that is not."""
    session = backends.metadata.session(id)
    if session is None or f"user:{session.user_id}" != principal.id:
        raise NotFound("There is no such session of yours.")
    note(backends, principal.name, "sign out", origin=visitor.origin)
    backends.metadata.end_session(id)


def forget_old_sessions(backends: Backends) -> int:
    now = backends.clock()
    return backends.metadata.forget_sessions(seen_before=now - IDLE, created_before=now - LONGEST)


# --- one's own account --------------------------------------------------------------------------------------------


def user_id_of(principal: Principal) -> str:
    return principal.id.removeprefix("user:")


def change_own_password(
    backends: Backends, principal: Principal, old: str, new: str, again: str, visitor: Visitor
) -> None:
    """All other sessions of the user end. Raises Unauthenticated for a wrong old one, Refused where there is none."""
    user = _own(backends, principal)
    if user.subject is not None or user.password is None:
        raise Refused("You sign in through the identity provider and have no password here.")
    if not passwords.matches(user.password, old[:1024]):
        note(backends, user.name, "set password", user.name, visitor.origin, "refused")
        raise Unauthenticated("That is not your password.")
    if new != again:
        raise InvalidInput("The new password was not typed alike twice.", field="password")
    check_password(new, user.name)
    note(backends, user.name, "set password", user.name, visitor.origin)
    change(backends, user.changed(password=passwords.hashed(new)))
    for session in backends.metadata.sessions(user.id):
        if session.id != principal.credential:
            backends.metadata.end_session(session.id)


def _own(backends: Backends, principal: Principal) -> User:
    user = backends.metadata.user(user_id_of(principal))
    if user is None:
        raise NotFound("This user is not there any more.")
    return user


# --- API tokens ---------------------------------------------------------------------------------------------------


def tokens_of(backends: Backends, user_id: str) -> list[ApiToken]:
    """Those that were not revoked, newest first."""
    return [found for found in backends.metadata.tokens() if found.user_id == user_id and found.revoked is None]


def create_token(
    backends: Backends, user_name: str, name: str, scopes: Iterable[str], days: int
) -> tuple[str, ApiToken]:
    """The token, shown once, and its record. It may do what its user may, within its scopes."""
    return _new_token(backends, user_called(backends, user_name), name, scopes, days, CONSOLE, CONSOLE)


def create_own_token(
    backends: Backends, principal: Principal, name: str, scopes: Iterable[str], days: int, visitor: Visitor
) -> tuple[str, ApiToken]:
    user = _own(backends, principal)
    now = backends.clock()
    if sum(not found.is_over(now) for found in tokens_of(backends, user.id)) >= MOST_TOKENS:
        raise Refused(f"You have {MOST_TOKENS} tokens that work. Revoke one first.")
    return _new_token(backends, user, name, scopes, days, user.name, visitor.origin)


def _new_token(
    backends: Backends, user: User, name: str, scopes: Iterable[str], days: int, who: str, origin: str
) -> tuple[str, ApiToken]:
    if not 1 <= days <= LONGEST_TOKEN_DAYS:
        raise InvalidInput(f"days {days} is not from 1 to {LONGEST_TOKEN_DAYS}.", field="days")
    if not 1 <= len(name) <= 64 or not name.isprintable():
        raise InvalidInput("A token's name is 1 to 64 printable characters: say what it is for.", field="name")
    wanted, may = scopes_from(scopes), permitted(user.role, user.accounts)
    if beyond := sorted(wanted - may):
        raise Refused(f"{user.name} may not {', '.join(beyond)}: a token never has more rights than its user.")
    secret, now = TOKEN_PREFIX + new_secret(), backends.clock()
    token = ApiToken(
        id=uuid4().hex[:12],
        sha256=digest_of(secret),
        shown=secret[:9],
        name=name,
        user_id=user.id,
        scopes=tuple(sorted(wanted)),
        created=now,
        expires=now + timedelta(days=days),
    )
    note(backends, who, "create token", f"{token.id} of {user.name}: {'+'.join(token.scopes)}", origin)
    backends.metadata.put_token(token)
    return secret, token


def revoke_token(backends: Backends, id: str, *, who: str = CONSOLE, origin: str = CONSOLE) -> None:
    note(backends, who, "revoke token", id[:40], origin)
    if not backends.metadata.revoke_token(id, backends.clock()):
        raise NotFound(f"There is no token {id[:40]!r} that is not revoked. `spendscope token list` shows them.")


def revoke_own_token(backends: Backends, principal: Principal, id: str, visitor: Visitor) -> None:
    """Raises NotFound for one that is somebody else's, as for one that is not there."""
    if not any(found.id == id for found in tokens_of(backends, user_id_of(principal))):
        raise NotFound("There is no such token of yours.")
    revoke_token(backends, id, who=principal.name, origin=visitor.origin)


def principal_of_token(backends: Backends, sha256: str) -> Principal | None:
    """Whom this token stands for, with what its user may now; None when there is none, it is over, or its user is shut out
    or (SPENDSCOPE_OIDC_TOKEN_DAYS) was not heard of for too long."""
    token, now = backends.metadata.token(sha256), backends.clock()
    if token is None or token.is_over(now):
        return None
    user = backends.metadata.user(token.user_id)
    if user is None or user.is_shut_out or user.is_unconfirmed(now, backends.settings.oidc_token_days):
        return None
    if token.used is None or now - token.used >= SEEN_EVERY:
        with suppress(Unavailable):
            backends.metadata.use_token(token.id, now)
    permissions = permitted(user.role, user.accounts, token.scopes)
    return Principal(f"token:{token.id}", token.name, user.role, user.accounts, permissions, "token", token.id)


# --- the first admin ----------------------------------------------------------------------------------------------


def offer_claim(backends: Backends) -> tuple[str, datetime]:
    """A one-time token with which the first admin is made, and when it expires. For the console only."""
    secret, until = new_secret(), backends.clock() + CLAIM_LASTS
    backends.metadata.put_once(digest_of(secret), CLAIM, until, {})
    return secret, until


def claim(backends: Backends, secret: str, name: str, password: str, visitor: Visitor) -> str:
    """Make the first admin and sign in; the secret of the session. Name and password are judged before the token is used.

    Raises NotFound once there is a user, Unauthenticated for a token that is wrong, used or expired.
    """
    check_local_login(backends)
    if backends.metadata.has_users():
        raise NotFound("The first admin is there already. Sign in.")
    check_password(password, name_from(name))
    # It is looked up by its hash: how long that takes says nothing about the token itself.
    if backends.metadata.take_once(digest_of(secret.strip()), CLAIM, backends.clock()) is None:
        note(backends, UNKNOWN, "claim", origin=visitor.origin, result="refused")
        raise Unauthenticated("This one-time token is wrong, used or expired. A restart prints a new one.")
    user = add_user(backends, name, "admin", None, password, who="claim")
    return start_session(backends, user, visitor, "claim")


# --- a password by a one-time link --------------------------------------------------------------------------------


def invitation_id(code: str, user: User) -> str:
    """Of the user as it is now: whatever is changed of it ends the links that were sent before."""
    return digest_of(f"{code} {user.id} {user.revision}")


def accept_invitation(backends: Backends, code: str, name: str, password: str, visitor: Visitor) -> str:
    """Set the password of the user whom an admin has sent this link, and sign in; the secret of the session.

    The name has to be typed too: a link that went to somebody else is not enough. Name and password are judged before the
    link is used up. Raises Unauthenticated for a link that is wrong, used or expired, or of another name.
    """
    check_local_login(backends)
    check_password(password, name_from(name))
    user = backends.metadata.user_named(name_from(name))
    kept = (
        backends.metadata.take_once(invitation_id(code.strip(), user), INVITATION, backends.clock()) if user else None
    )
    if kept is None or user is None or user.disabled or user.subject is not None:
        note(backends, UNKNOWN, "set password", origin=visitor.origin, result="refused")
        raise Unauthenticated(
            "This link is wrong, used or expired, or not for this name. Ask an admin for another one."
        )
    note(backends, user.name, "set password", f"{user.name}, by a one-time link", visitor.origin)
    change(backends, user.changed(password=passwords.hashed(password)))
    backends.metadata.end_sessions(user.id)
    return start_session(backends, user, visitor, "one-time link")
