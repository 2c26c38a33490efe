"""Users, sessions, API tokens and the audit log as values: what is kept of each, and the rules about them.

No secret is in any of them: a password is an argon2id hash, a session and a token are known by the SHA-256 of theirs
(256 random bits need no slow hash). Times come from outside.
"""

from __future__ import annotations

import hashlib
import json
import re
import unicodedata
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any, Final

from app.core.access import Accounts, role_from
from app.core.documents import time_from, time_text
from app.core.guessing import LEAST_GUESSES, guesses
from app.errors import InvalidInput

IDLE: Final = timedelta(minutes=30)
"""A session ends when nothing was asked for so long."""

LONGEST: Final = timedelta(hours=12)
"""A session ends so long after signing in, whatever is asked."""

SEEN_EVERY: Final = timedelta(minutes=1)
"""How exactly is kept when a session or token was last used: not every request is a write."""

LONGEST_TOKEN_DAYS: Final = 365
LEAST_PASSWORD: Final = 12
MOST_PASSWORD: Final = 256
TOKEN_PREFIX: Final = "spsc_"  # noqa: S105 - what every token starts with, so that scanners find a leaked one
_NAME: Final = re.compile(r"[a-z0-9][a-z0-9._@+-]{0,63}")


@dataclass(frozen=True)
class User:
    """`password` is an argon2id hash, None for one who has not set one yet, or who signs in through the identity provider.

    `subject` is who that is to the identity provider (issuer and subject). `lapsed`: none of its groups gave a role when
    this user last came back from there, which was `signed_on`. `revision` is the compare-and-set token of a change.
    """

    id: str
    name: str
    role: str
    accounts: Accounts
    password: str | None
    created: datetime
    disabled: bool = False
    subject: str | None = None
    revision: int = 1
    lapsed: bool = False
    signed_on: datetime | None = None

    @property
    def is_shut_out(self) -> bool:
        return self.disabled or self.lapsed

    def is_unconfirmed(self, now: datetime, days: int) -> bool:
        """Whether the identity provider has said nothing of this user for so many days (0: for ever is well)."""
        return bool(days) and self.signed_on is not None and now >= self.signed_on + timedelta(days=days)

    def changed(self, **values: Any) -> User:
        return replace(self, revision=self.revision + 1, **values)


@dataclass(frozen=True)
class Session:
    """`id` is the SHA-256 of the cookie's value; `how` somebody signed in.

    `hint` is the ID token of a single sign-on, encrypted: signing out at the identity provider gives it back.
    """

    id: str
    user_id: str
    created: datetime
    seen: datetime
    origin: str = ""
    agent: str = ""
    how: str = ""
    hint: str = field(default="", repr=False)

    def is_over(self, now: datetime) -> bool:
        return now >= self.seen + IDLE or now >= self.created + LONGEST


@dataclass(frozen=True)
class ApiToken:
    """`sha256` of the whole token; `shown` is its start, for people to tell tokens apart."""

    id: str
    sha256: str
    shown: str
    name: str
    user_id: str
    scopes: tuple[str, ...]
    created: datetime
    expires: datetime
    used: datetime | None = None
    revoked: datetime | None = None

    def is_over(self, now: datetime) -> bool:
        return self.revoked is not None or now >= self.expires


@dataclass(frozen=True)
class AuditNote:
    """Who did what to what, from where, and how it went."""

    time: datetime
    who: str
    what: str
    target: str = ""
    origin: str = ""
    result: str = "done"


@dataclass(frozen=True)
class AuditEntry:
    """A note in its place. `hash` covers the note, the place and the hash before: changing one breaks all after it."""

    number: int
    note: AuditNote
    previous: str
    hash: str


FIRST_PREVIOUS: Final = "0" * 64


def audit_entry(note: AuditNote, last: AuditEntry | None) -> AuditEntry:
    number, previous = (last.number + 1, last.hash) if last else (1, FIRST_PREVIOUS)
    note = AuditNote(note.time, *map(_line, (note.who, note.what, note.target, note.origin, note.result)))
    return AuditEntry(number, note, previous, _entry_hash(number, note, previous))


def broken_at(entries: Iterable[AuditEntry]) -> int | None:
    """Number of the first entry that does not follow from those before it; None when all do. In rising order."""
    last: AuditEntry | None = None
    for entry in entries:
        if entry != audit_entry(entry.note, last):
            return entry.number
        last = entry
    return None


def _entry_hash(number: int, note: AuditNote, previous: str) -> str:
    told = [number, time_text(note.time), note.who, note.what, note.target, note.origin, note.result, previous]
    return hashlib.sha256(json.dumps(told, separators=(",", ":")).encode()).hexdigest()


def _line(text: str) -> str:
    """At most 200 characters that cannot start a line or a terminal's command."""
    return "".join(letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in text[:200])


# --- rules --------------------------------------------------------------------------------------------------------


def name_from(text: str) -> str:
    """A login name: case does not count."""
    name = unicodedata.normalize("NFKC", text).strip().lower()
    if not _NAME.fullmatch(name):
        raise InvalidInput(
            f"name {text[:40]!r} is not 1 to 64 of a-z, 0-9 and . _ @ + - (it starts with a letter or digit).",
            field="name",
        )
    return name


def accounts_from(texts: Iterable[str]) -> Accounts:
    """An account set; none named means all."""
    found = frozenset(text.strip() for text in texts if text.strip())
    return found or None


def check_password(password: str, name: str) -> None:
    """Raises InvalidInput for one that is too easy to find: long beats complicated (NIST SP 800-63B, ASVS 6.2)."""
    if not LEAST_PASSWORD <= len(password) <= MOST_PASSWORD:
        raise InvalidInput(f"A password has {LEAST_PASSWORD} to {MOST_PASSWORD} characters.", field="password")
    words = re.split(r"[._@+-]+", name)
    if guesses(password, (name, "".join(words), *words, "spendscope")) < LEAST_GUESSES:
        raise InvalidInput(
            "This password is among those that are tried first, or made of them. Use several words that do not belong "
            "together.",
            field="password",
        )


def checked_user(user: User) -> User:
    role_from(user.role)
    if user.role == "admin" and user.accounts is not None:
        raise InvalidInput("An admin sees all accounts. Give another role, or no accounts.", field="accounts")
    return user


# --- as documents -------------------------------------------------------------------------------------------------

_TIMES: Final = ("created", "seen", "expires", "used", "revoked", "time", "signed_on")


def document_of(record: User | Session | ApiToken | AuditNote) -> dict[str, Any]:
    """Flat: text, whole numbers, truth values, None and lists of texts."""
    found = asdict(record)
    for name in _TIMES:
        if found.get(name) is not None:
            found[name] = time_text(found[name])
    if isinstance(record, User):
        found["accounts"] = None if record.accounts is None else sorted(record.accounts)
    if isinstance(record, ApiToken):
        found["scopes"] = list(record.scopes)
    return found


def _given(document: Mapping[str, Any]) -> dict[str, Any]:
    found = dict(document)
    for name in _TIMES:
        if found.get(name) is not None:
            found[name] = time_from(found[name])
    return found


def user_from(document: Mapping[str, Any]) -> User:
    given = _given(document)
    accounts = given.pop("accounts")
    return User(**given, accounts=None if accounts is None else frozenset(accounts))


def session_from(document: Mapping[str, Any]) -> Session:
    return Session(**_given(document))


def token_from(document: Mapping[str, Any]) -> ApiToken:
    given = _given(document)
    return ApiToken(**{**given, "scopes": tuple(given["scopes"])})


def entry_document(entry: AuditEntry) -> dict[str, Any]:
    return {"number": entry.number, **document_of(entry.note), "previous": entry.previous, "hash": entry.hash}


def entry_from(document: Mapping[str, Any]) -> AuditEntry:
    given = _given(document)
    number, previous, digest = (given.pop(name) for name in ("number", "previous", "hash"))
    return AuditEntry(number, AuditNote(**given), previous, digest)
