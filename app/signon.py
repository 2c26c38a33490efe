"""Single sign-on: a browser goes to the identity provider and comes back as somebody whose groups give a role here.

What ties the two ways together is the browser's own random seed, in a cookie, and a state that can be used once. Nonce
and PKCE verifier are derived from both and from the server's key, so nothing that is secret is kept in the store.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Final

from app import access
from app.access import UNKNOWN, Visitor
from app.backends import Backends
from app.core.access import Accounts
from app.core.people import User
from app.core.signon import Identity, granted, grants_from, login_name
from app.errors import Conflict, NotFound, Unauthenticated
from app.ports import IdentityProvider, SignOnAnswer

if TYPE_CHECKING:
    from cryptography.fernet import Fernet

SIGN_ON: Final = "sign-on"
HOW: Final = "single sign-on"
"""How a session began that ends at the provider too."""

LASTS: Final = timedelta(minutes=10)
"""How long somebody may take to sign in at the identity provider."""


@dataclass(frozen=True)
class SignedOn:
    """The secret of the new session, and where the browser was going."""

    secret: str
    back: str


def provider(backends: Backends) -> IdentityProvider:
    """Raises NotFound where there is none."""
    if backends.identities is None:
        raise NotFound("There is no single sign-on here.")
    return backends.identities


def begin(backends: Backends, key: bytes, seed: str, back: str) -> str:
    """Where to send the browser that has `seed` in its cookie. `key` is the server's. Raises Unavailable."""
    state = access.new_secret()
    nonce, verifier = _derived(key, seed, state)
    # Asked first: when the provider does not answer, nothing is kept.
    address = provider(backends).sign_in_address(state, nonce, verifier)
    members = {"browser": access.digest_of(seed), "next": back}
    backends.metadata.put_once(access.digest_of(state), SIGN_ON, backends.clock() + LASTS, members)
    return address


def finish(backends: Backends, key: bytes, seed: str, state: str, answer: SignOnAnswer, visitor: Visitor) -> SignedOn:
    """A session for who came back. Raises Unauthenticated, with a sentence for the person, and Unavailable."""
    identities = provider(backends)
    kept = backends.metadata.take_once(access.digest_of(state), SIGN_ON, backends.clock()) if state else None
    if kept is None or not hmac.compare_digest(kept["browser"], access.digest_of(seed)):
        access.note(backends, UNKNOWN, HOW, origin=visitor.origin, result="refused")
        raise Unauthenticated(
            "This sign-in was not begun in this browser, took too long, or was used already. Sign in again."
        )
    try:
        identity = identities.identity(answer, *_derived(key, seed, state))
        user = _user(backends, identity, visitor)
    except Unauthenticated:
        access.note(backends, UNKNOWN, HOW, origin=visitor.origin, result="refused")
        raise
    hint = _sealed(key, identity.hint) if identity.hint else ""
    return SignedOn(access.start_session(backends, user, visitor, HOW, hint), kept["next"])


def sign_out_address(backends: Backends, key: bytes, hint: str) -> str | None:
    """Where to sign out at the identity provider too. Raises Unavailable."""
    return provider(backends).sign_out_address(_opened(key, hint))


def _derived(key: bytes, seed: str, state: str) -> tuple[str, str]:
    """Nonce and PKCE verifier of one sign-in of one browser."""

    def secret(purpose: str) -> str:
        digest = hmac.new(key, f"{purpose}\0{seed}\0{state}".encode("utf-8", "replace"), hashlib.sha256).digest()
        return base64.urlsafe_b64encode(digest).decode().rstrip("=")

    return secret("nonce"), secret("verifier")


# --- who it is here -----------------------------------------------------------------------------------------------


def _user(backends: Backends, identity: Identity, visitor: Visitor) -> User:
    """The user of this identity, made at the first sign-in; role and accounts as its groups give them now."""
    found = granted(identity.groups, grants_from(backends.settings.oidc_roles))
    for _ in range(5):
        user = backends.metadata.user(identity.user_id)
        if user is None and found is not None:
            user = _made(backends, identity, *found, visitor)
        elif user is not None:
            user = _as_granted(backends, user, found, visitor)
        elif found is None:
            raise Unauthenticated(_no_role(identity))
        if user is None:
            continue  # Somebody else changed it at the same time.
        if user.disabled:
            raise Unauthenticated("An admin has shut you out here. Ask one.")
        if user.lapsed:
            raise Unauthenticated(_no_role(identity))
        return user
    raise Conflict("This user was changed by somebody else again and again. Sign in again.")


def _made(backends: Backends, identity: Identity, role: str, accounts: Accounts, visitor: Visitor) -> User | None:
    for taken in (False, True):
        name = login_name(identity, taken=taken)
        now = backends.clock()
        user = User(identity.user_id, name, role, accounts, None, now, subject=identity.key, signed_on=now)
        if backends.metadata.user_named(name) is None:
            access.note(backends, name, "add user", f"{name} as {role}, by single sign-on", visitor.origin)
            return user if backends.metadata.put_user(user) else None
    return None


def _as_granted(backends: Backends, user: User, found: tuple[str, Accounts] | None, visitor: Visitor) -> User | None:
    now = backends.clock()
    if found is None:
        changed = user.changed(lapsed=True, signed_on=now)
    else:
        changed = user.changed(role=found[0], accounts=found[1], lapsed=False, signed_on=now)
    if (user.role, user.accounts, user.lapsed) != (changed.role, changed.accounts, changed.lapsed):
        said = "no role" if found is None else f"{changed.role}, {access.accounts_told(changed.accounts)}"
        access.note(backends, user.name, "change user", f"{user.name}: groups give {said}", visitor.origin)
    if not backends.metadata.put_user(changed):
        return None
    if changed.lapsed:
        backends.metadata.end_sessions(user.id)
    return changed


def _no_role(identity: Identity) -> str:
    if identity.has_too_many_groups:
        return (
            "You are in more groups than the identity provider names in a token, so none of them is known here. Ask an "
            "admin: it can be set to send only the groups that belong to this application."
        )
    return "You signed in, and none of your groups gives you a role here. Ask an admin to be put into one that does."


# --- the ID token, for signing out --------------------------------------------------------------------------------


def _cipher(key: bytes) -> Fernet:
    # Imported when somebody signs on: most web processes never need it.
    from cryptography.fernet import Fernet

    digest = hmac.new(key, b"seal\0id token", hashlib.sha256).digest()
    return Fernet(base64.urlsafe_b64encode(digest))


def _sealed(key: bytes, text: str) -> str:
    return _cipher(key).encrypt(text.encode()).decode()


def _opened(key: bytes, sealed: str) -> str:
    """ "" where it cannot be read: the key has changed since."""
    from cryptography.fernet import InvalidToken

    try:
        return _cipher(key).decrypt(sealed.encode()).decode() if sealed else ""
    except InvalidToken:
        return ""
