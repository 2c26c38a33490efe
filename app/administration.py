"""What admins do about other users: invite, change, shut out, end what is theirs. All of it is on record first.

However it is asked for, and by how many at once, an admin who can sign in stays; only the console may shut out the last.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from app import access
from app.access import INVITATION, Visitor
from app.backends import Backends
from app.core.access import Accounts, Principal, role_from
from app.core.people import AuditEntry, User, checked_user
from app.errors import Conflict, NotFound, Refused

INVITATION_LASTS: Final = timedelta(days=3)
LAST_ADMIN: Final = "This is the last admin who can sign in. Make another one first."
AUDIT_PAGE: Final = 50
AUDIT_WINDOW: Final = 500
MOST_WINDOWS: Final = 10


@dataclass(frozen=True)
class Invitation:
    """`code` goes into the link; it is shown once."""

    user: User
    code: str
    until: datetime


def user_of(backends: Backends, id: str) -> User:
    user = backends.metadata.user(id)
    if user is None:
        raise NotFound("There is no such user.")
    return user


def add(
    backends: Backends, asking: Principal, name: str, role: str, accounts: Accounts, visitor: Visitor
) -> Invitation:
    """A user without a password, and a link to set one. Raises InvalidInput, Conflict."""
    access.check_local_login(backends)
    user = access.add_user(backends, name, role, accounts, None, who=asking.name, origin=visitor.origin)
    return invite(backends, asking, user, visitor)


def invite(backends: Backends, asking: Principal, user: User, visitor: Visitor) -> Invitation:
    """A link with which this user sets a password, once. Until then the password there is stays."""
    access.check_local_login(backends)
    if user.subject is not None:
        raise Refused(f"{user.name} signs in through the identity provider and has no password here.")
    if user.disabled:
        raise Refused(f"{user.name} is disabled. Enable the user first.")
    code, until = access.new_secret(), backends.clock() + INVITATION_LASTS
    access.note(backends, asking.name, "invite user", user.name, visitor.origin)
    backends.metadata.put_once(access.invitation_id(code, user), INVITATION, until, {})
    return Invitation(user, code, until)


def change_rights(
    backends: Backends, asking: Principal, user: User, role: str, accounts: Accounts, visitor: Visitor
) -> User:
    """Raises Refused for one whose groups say what the role is, and for the last admin."""
    if user.subject is not None:
        raise Refused(f"{user.name} has the role that the groups of the identity provider give, at each sign-in.")
    changed = checked_user(user.changed(role=role_from(role), accounts=accounts))
    said = f"{user.name}: {role}, {access.accounts_told(accounts)}"
    return _changed(backends, asking, user, changed, "change user", said, visitor)


def set_disabled(backends: Backends, asking: Principal, user: User, disabled: bool, visitor: Visitor) -> User:
    """A disabled user's sessions end and its tokens do not work. Raises Refused for the last admin, and for oneself."""
    if disabled and user.id == access.user_id_of(asking):
        raise Refused("You cannot shut yourself out. Ask another admin.")
    what = "disable user" if disabled else "enable user"
    changed = _changed(backends, asking, user, user.changed(disabled=disabled), what, user.name, visitor)
    if disabled:
        backends.metadata.end_sessions(user.id)
    return changed


def end_sessions(backends: Backends, asking: Principal, user: User, visitor: Visitor) -> int:
    access.note(backends, asking.name, "end sessions", user.name, visitor.origin)
    return backends.metadata.end_sessions(user.id)


def revoke_token(backends: Backends, asking: Principal, user: User, id: str, visitor: Visitor) -> None:
    if not any(found.id == id for found in access.tokens_of(backends, user.id)):
        raise NotFound(f"There is no such token of {user.name}.")
    access.revoke_token(backends, id, who=asking.name, origin=visitor.origin)


def _changed(
    backends: Backends, asking: Principal, user: User, changed: User, what: str, said: str, visitor: Visitor
) -> User:
    if not _admins(backends, {user.id: changed}):
        raise Refused(LAST_ADMIN)
    access.note(backends, asking.name, what, said, visitor.origin)
    access.change(backends, changed)
    if not _admins(backends, {}):
        # Two admins took each other's rights at the same time; whoever sees it gives back what it took.
        access.note(backends, asking.name, what, said, visitor.origin, "undone")
        access.change(backends, changed.changed(role=user.role, accounts=user.accounts, disabled=user.disabled))
        raise Conflict(LAST_ADMIN)
    return changed


def _admins(backends: Backends, instead: dict[str, User]) -> list[User]:
    """Those who can sign in and administer, with these users as they would be."""
    users = [instead.get(user.id, user) for user in backends.metadata.users()]
    return [user for user in users if user.role == "admin" and _can_sign_in(backends, user)]


def _can_sign_in(backends: Backends, user: User) -> bool:
    if user.is_shut_out:
        return False
    if user.subject is not None:
        return bool(backends.settings.oidc_issuer)
    return user.password is not None and backends.settings.local_login


# --- the audit log, newest first ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class AuditPage:
    """`before` is where the next page goes on, None at the end; `looked_to` the number of the oldest entry looked at."""

    entries: Sequence[AuditEntry]
    before: int | None
    looked_to: int
    length: int


def audit_page(
    backends: Backends, *, who: str = "", what: str = "", result: str = "", before: int | None = None
) -> AuditPage:
    """Entries with a number below `before` whose texts contain these, whatever the case; `result` is the whole word."""
    length = backends.metadata.audit_length()
    at = min(before if before is not None else length + 1, length + 1)
    found: list[AuditEntry] = []
    for _ in range(MOST_WINDOWS):
        after = max(0, at - 1 - AUDIT_WINDOW)
        window = [entry for entry in backends.metadata.audit(limit=AUDIT_WINDOW, after=after) if entry.number < at]
        for entry in reversed(window):
            at = entry.number
            if _is_asked_for(entry, who, what, result):
                found.append(entry)
                if len(found) == AUDIT_PAGE:
                    return AuditPage(found, at if at > 1 else None, at, length)
        at = min(at, after + 1)
        if at <= 1:
            return AuditPage(found, None, 1 if length else 0, length)
    return AuditPage(found, at, at, length)


def _is_asked_for(entry: AuditEntry, who: str, what: str, result: str) -> bool:
    note = entry.note
    about = f"{note.what} {note.target}".lower()
    return who.lower() in note.who.lower() and what.lower() in about and (not result or note.result == result)
