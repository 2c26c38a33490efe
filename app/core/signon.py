"""Single sign-on as values: which groups of the identity provider give which role and accounts, and who somebody is.

Whatever the provider says of a person is text from outside: names are brought into the form of ours, groups are only
ever compared with those of the setting.
"""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from app.core.access import ROLES, Accounts
from app.errors import InvalidInput

ROLE_ORDER: Final = tuple(ROLES)
"""Weakest first."""

MOST_GROUPS: Final = 2_000
LONGEST_TEXT: Final = 256
LONGEST_SUBJECT: Final = 255
_UNFIT: Final = re.compile(r"[^a-z0-9._@+-]+")


@dataclass(frozen=True)
class Grant:
    """Who is in `group` has `role` for `accounts` (None: all)."""

    group: str
    role: str
    accounts: Accounts


@dataclass(frozen=True)
class Identity:
    """Somebody of whom the provider vouches. `issuer` and `subject` together never change and are nobody else's.

    `names` are what the person could be called, best first; `hint` is the ID token, which signing out gives back.
    """

    issuer: str
    subject: str
    names: tuple[str, ...]
    groups: frozenset[str]
    hint: str = ""
    has_too_many_groups: bool = False

    @property
    def user_id(self) -> str:
        """Of the user here. Never made of an address or a name: those are given to somebody else one day."""
        return "sso" + _digest(self.issuer, self.subject)[:40]

    @property
    def key(self) -> str:
        """What a user's record names as its `subject`."""
        return f"{self.issuer} {self.subject}"


def _digest(*parts: str) -> str:
    return hashlib.sha256("\0".join(parts).encode("utf-8", "replace")).hexdigest()


# --- what a group gives -------------------------------------------------------------------------------------------


def grants_from(text: str) -> tuple[Grant, ...]:
    """`group=role` or `group=role account account`, separated by `;` or line breaks; a group may hold `=`.

    Raises InvalidInput with the part that cannot be understood.
    """
    return tuple(_grant(part.strip()) for part in re.split(r"[;\r\n]+", text) if part.strip())


def _grant(part: str) -> Grant:
    group, separator, given = part.rpartition("=")
    role, *accounts = given.replace(",", " ").split() or [""]
    if not separator or not group.strip() or len(group) > LONGEST_TEXT:
        raise InvalidInput(f"{part[:60]!r} is not group=role, for example finops=editor.")
    if role not in ROLES:
        raise InvalidInput(f"{part[:60]!r} has no role: give one of {', '.join(ROLES)} after the last =.")
    if role == "admin" and accounts:
        raise InvalidInput(f"{part[:60]!r}: an admin sees all accounts. Give another role, or no accounts.")
    return Grant(group.strip(), role, frozenset(accounts) or None)


def granted(groups: Iterable[str], grants: Sequence[Grant]) -> tuple[str, Accounts] | None:
    """Role and accounts of who is in these groups; None when none of them gives any.

    The strongest role counts, for the accounts of the groups that give it. Accounts of a weaker role are not added: they
    would be seen, and changed, with the stronger one.
    """
    given = set(groups)
    matched = [grant for grant in grants if grant.group in given]
    if not matched:
        return None
    role = max((grant.role for grant in matched), key=ROLE_ORDER.index)
    sets = [grant.accounts for grant in matched if grant.role == role]
    accounts: set[str] = set()
    for found in sets:
        if found is None:
            return role, None
        accounts |= found
    return role, frozenset(accounts)


# --- what a provider says of somebody -----------------------------------------------------------------------------


def groups_in(claims: Mapping[str, Any], names: Iterable[str]) -> frozenset[str]:
    """The values of these claims: a list of texts, or one text. `a.b` finds `b` inside `a` where there is no `a.b`.

    An e-mail address counts only when the provider has verified it.
    """
    found: set[str] = set()
    for name in names:
        if name == "email" and claims.get("email_verified") is not True:
            continue
        value = _claim(claims, name)
        for text in [value] if isinstance(value, str) else value if isinstance(value, list) else []:
            if isinstance(text, str) and 0 < len(text) <= LONGEST_TEXT and len(found) < MOST_GROUPS:
                found.add(text)
    return frozenset(found)


def _claim(claims: Mapping[str, Any], name: str) -> Any:
    if name in claims:
        return claims[name]
    value: Any = claims
    for part in name.split("."):
        if not isinstance(value, dict):
            return None
        value = value.get(part)
    return value


def has_too_many_groups(claims: Mapping[str, Any], names: Iterable[str]) -> bool:
    """Entra ID names a place to ask instead of the groups of somebody who is in more than 200."""
    left_out = claims.get("_claim_names")
    return isinstance(left_out, dict) and any(name in left_out for name in names)


def names_in(claims: Mapping[str, Any]) -> tuple[str, ...]:
    values = (claims.get(name) for name in ("preferred_username", "email", "upn", "nickname", "sub"))
    return tuple(value[:LONGEST_TEXT] for value in values if isinstance(value, str) and value)


def login_name(identity: Identity, *, taken: bool = False) -> str:
    """A name for the user here; where the plain one is taken, one that ends in a digest of who it is."""
    for given in (*identity.names, "user"):
        text = unicodedata.normalize("NFKC", given).strip().lower()
        plain = _UNFIT.sub("-", text).strip("-._@+")[:50]
        if plain:
            return f"{plain}+{_digest(identity.key)[:8]}" if taken else plain
    raise AssertionError("`user` is a name")
