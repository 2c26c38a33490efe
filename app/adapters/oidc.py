"""ports.IdentityProvider by OpenID Connect: Authlib speaks OAuth 2 and judges claims, joserfc checks signatures.

The provider's address comes from a setting and may be internal; everything it answers is looked at as if it were not to be
trusted: bounded bodies and times, no redirects, the issuer exactly as set, endpoints by https, keys that are public and
asymmetric, signatures of those only. The addresses of requests come from settings and the discovery document, never from
a request of ours or a token (`jku`, `x5u` and `jwk` in a header are nothing).
"""

from __future__ import annotations

import json
import logging
import re
import ssl
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import TimeoutError as TookTooLong
from dataclasses import dataclass, field
from http.client import HTTPException
from typing import Any, Final, NoReturn, TypeVar
from urllib.parse import quote, urlencode, urlsplit

from authlib.oauth2.base import OAuth2Error
from authlib.oauth2.client import OAuth2Client
from authlib.oidc.core import CodeIDToken
from joserfc import jwt
from joserfc.errors import InvalidKeyIdError, JoseError
from joserfc.jwk import ECKey, Key, KeySet, OKPKey, RSAKey
from joserfc.util import to_bytes, urlsafe_b64decode

from app.core.signon import LONGEST_SUBJECT, Identity, groups_in, has_too_many_groups, names_in
from app.errors import BadCredentials, Unauthenticated, Unavailable
from app.exchange import Place, Resolver, exchange, resolved, within
from app.ports import SignOnAnswer

log = logging.getLogger(__name__)

PART: Final = "sign-on"
SECONDS: Final = 8.0
MOST_BYTES: Final = 512 * 1024
MOST_KEYS: Final = 100
MOST_TOKEN: Final = 64 * 1024
LEEWAY_SECONDS: Final = 60
LONGEST_URL: Final = 2048
LONGEST_HINT: Final = 3000
"""An address with a longer ID token in it is refused by some; signing out works without one at most providers."""

ALGORITHMS: Final = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA")
"""Signatures with a key pair only. No `none`, and nothing that takes a public key for a shared secret (HS…)."""

LEAST_RSA_BITS: Final = 2048
DISCOVERY_KEPT: Final = 3600.0
KEYS_KEPT: Final = 600.0
KEYS_AGAIN: Final = 30.0
"""A key that is not known is looked for at most so often, whoever sends how many tokens."""

FAILED_KEPT: Final = 5.0
"""How long a provider that did not answer is left alone: a hanging one must not hold every thread that serves pages."""

AT_ONCE: Final = 2
"""Requests to the provider at a time in this process: a hanging one holds no more threads than that."""

WAIT_SECONDS: Final = 3.0

Found = TypeVar("Found")


@dataclass(frozen=True)
class Client:
    """What Spendscope is to the provider. `redirect` and `home` are absolute addresses, from settings."""

    issuer: str
    id: str
    secret: str | None = field(repr=False)
    scopes: str
    groups_claims: tuple[str, ...]
    redirect: str
    home: str


@dataclass(frozen=True)
class Discovery:
    authorization: str
    token: str
    keys: str
    end_session: str | None
    authenticates_by: str
    names_itself: bool
    """Whether every answer carries the issuer (RFC 9207)."""


@dataclass
class _Kept:
    """One value with its age; one thread asks for it, the others wait."""

    value: Any = None
    at: float = float("-inf")
    failure: Unavailable | None = None
    failed_at: float = float("-inf")
    lock: threading.Lock = field(default_factory=threading.Lock)


class _Reply:
    """The part of a response that Authlib looks at."""

    def __init__(self, status: int, body: bytes) -> None:
        self.status_code, self._body = status, body

    def json(self) -> Any:
        return json.loads(self._body)

    def raise_for_status(self) -> None:
        raise Unavailable(PART, f"The identity provider answered {self.status_code} when it was asked for a token.")


class Oidc:
    """`resolve`, `ticks` and `tls` are given by tests only; `clock` gives seconds since the epoch."""

    def __init__(
        self,
        client: Client,
        clock: Callable[[], float],
        *,
        resolve: Resolver = resolved,
        ticks: Callable[[], float] = time.monotonic,
        tls: ssl.SSLContext | None = None,
        seconds: float = SECONDS,
    ) -> None:
        self.client, self._clock, self._resolve, self._ticks = client, clock, resolve, ticks
        self._seconds, self._tls = seconds, tls or ssl.create_default_context()
        self._discovery, self._keys = _Kept(), _Kept()
        self._turns = threading.BoundedSemaphore(AT_ONCE)

    # --- the port

    def sign_in_address(self, state: str, nonce: str, verifier: str) -> str:
        place = self.discovery().authorization
        url, _ = self._oauth().create_authorization_url(place, state=state, code_verifier=verifier, nonce=nonce)
        return str(url)

    def identity(self, answer: SignOnAnswer, nonce: str, verifier: str) -> Identity:
        self._check_issuer(answer)
        if answer.error:
            said = answer.error if re.fullmatch("[a-z_]{1,40}", answer.error) else "an error"
            raise Unauthenticated(f"{self._name()} did not let you in ({said}).")
        if not answer.code or len(answer.code) > LONGEST_URL:
            raise Unauthenticated("The answer of the identity provider has no code. Sign in again.")
        token = self._token(answer.code, verifier)
        text, access_token = token.get("id_token"), token.get("access_token")
        if not isinstance(text, str) or len(text) > MOST_TOKEN:
            raise Unavailable(PART, "The identity provider sent no ID token. Is `openid` among SPENDSCOPE_OIDC_SCOPES?")
        claims = self._claims(text, nonce, access_token if isinstance(access_token, str) else None)
        names = self.client.groups_claims
        return Identity(
            issuer=self.client.issuer,
            subject=str(claims["sub"]),
            names=names_in(claims),
            groups=groups_in(claims, names),
            hint=text if self.discovery().end_session else "",
            has_too_many_groups=has_too_many_groups(claims, names),
        )

    def sign_out_address(self, hint: str) -> str | None:
        place = self.discovery().end_session
        if place is None:
            return None
        values = {"client_id": self.client.id, "post_logout_redirect_uri": self.client.home}
        if hint and len(hint) <= LONGEST_HINT:
            values["id_token_hint"] = hint
        return f"{place}{'&' if '?' in place else '?'}{urlencode(values, quote_via=quote)}"

    def check(self) -> str:
        discovery, keys = self.discovery(), self._current_keys()
        out = "signing out there too" if discovery.end_session else "no signing out there"
        return f"{self.client.issuer} answers with {len(keys.keys)} keys, {out}; it must know {self.client.redirect}"

    # --- what the provider says of itself

    def discovery(self) -> Discovery:
        """Raises Unavailable, which is remembered for some seconds."""
        return self._fresh(self._discovery, DISCOVERY_KEPT, self._ask_discovery)

    def _ask_discovery(self) -> Discovery:
        document = self._json(f"{self.client.issuer.rstrip('/')}/.well-known/openid-configuration")
        said = document.get("issuer")
        if said != self.client.issuer:
            shown = said[:100] if isinstance(said, str) and said.isprintable() else "something else"
            raise Unavailable(
                PART,
                f"The identity provider calls itself {shown!r} and SPENDSCOPE_OIDC_ISSUER is {self.client.issuer!r}. They "
                "must be the same, letter by letter.",
            )
        methods = document.get("code_challenge_methods_supported")
        if isinstance(methods, list) and "S256" not in methods:
            raise Unavailable(PART, "The identity provider does not take PKCE with S256. Allow it there.")
        return Discovery(
            authorization=self._endpoint(document, "authorization_endpoint"),
            token=self._endpoint(document, "token_endpoint"),
            keys=self._endpoint(document, "jwks_uri"),
            end_session=self._endpoint(document, "end_session_endpoint")
            if "end_session_endpoint" in document
            else None,
            authenticates_by=self._authentication(document),
            names_itself=document.get("authorization_response_iss_parameter_supported") is True,
        )

    def _endpoint(self, document: Mapping[str, Any], name: str) -> str:
        """An address of the provider; by https, unless the issuer itself is on this machine without it."""
        url = document.get(name)
        plain_is_fine = self.client.issuer.startswith("http://")
        if isinstance(url, str) and len(url) <= LONGEST_URL and re.fullmatch(r"[!-~]+", url) and "#" not in url:
            parts = urlsplit(url)
            is_safe = parts.scheme == "https" or (plain_is_fine and parts.scheme == "http")
            if is_safe and parts.hostname and parts.username is None and parts.password is None:
                return url
        raise Unavailable(
            PART, f"The identity provider names no {name} that can be used: it has to be an https address."
        )

    def _authentication(self, document: Mapping[str, Any]) -> str:
        if self.client.secret is None:
            return "none"
        methods = document.get("token_endpoint_auth_methods_supported")
        if isinstance(methods, list) and "client_secret_basic" not in methods and "client_secret_post" in methods:
            return "client_secret_post"
        return "client_secret_basic"

    def _current_keys(self, *, older_than: float = KEYS_KEPT) -> KeySet:
        return self._fresh(self._keys, older_than, lambda: _key_set(self._json(self.discovery().keys)))

    # --- tokens

    def _check_issuer(self, answer: SignOnAnswer) -> None:
        """Against answers of another provider that were led here (mix-up, RFC 9207)."""
        if answer.issuer != self.client.issuer if answer.issuer else self.discovery().names_itself:
            raise Unauthenticated("This answer is not from the identity provider that was asked. Sign in again.")

    def _token(self, code: str, verifier: str) -> Mapping[str, Any]:
        discovery = self.discovery()
        try:
            found = self._oauth().fetch_token(
                discovery.token, grant_type="authorization_code", code=code, code_verifier=verifier
            )
        except OAuth2Error as error:
            said = error.error if re.fullmatch("[a-z_]{1,40}", str(error.error)) else "an error"
            if said in ("invalid_client", "unauthorized_client"):
                raise BadCredentials(
                    PART,
                    f"The identity provider does not know Spendscope ({said}). Check SPENDSCOPE_OIDC_CLIENT_ID and its "
                    "secret.",
                ) from None
            raise Unauthenticated(f"{self._name()} did not accept this sign-in ({said}). Sign in again.") from None
        except (ValueError, TypeError, AttributeError, RecursionError):
            raise Unavailable(PART, "The identity provider did not answer with a token.") from None
        return dict(found)

    def _claims(self, text: str, nonce: str, access_token: str | None) -> CodeIDToken:
        decoded = self._decoded(text)
        expected = {"iss": self.client.issuer, "aud": self.client.id, "nonce": nonce}
        options = {name: {"essential": True, "value": value} for name, value in expected.items()}
        params = {"nonce": nonce, "client_id": self.client.id, "access_token": access_token}
        claims = CodeIDToken(decoded.claims, decoded.header, options, params)
        try:
            claims.validate(int(self._clock()), LEEWAY_SECONDS)
        except (JoseError, ValueError, TypeError, OverflowError, AttributeError) as error:
            self._refuse(error)
        if not 0 < len(claims["sub"]) <= LONGEST_SUBJECT or not claims["sub"].isprintable():
            self._refuse(ValueError("sub"))
        return claims

    def _decoded(self, text: str) -> jwt.Token:
        """The token, its signature checked; keys are asked for again when it names one that is not known (rotation)."""
        try:
            return jwt.decode(text, self._current_keys(), list(ALGORITHMS))
        except InvalidKeyIdError:
            pass
        except (JoseError, ValueError, TypeError, RecursionError) as error:
            self._refuse(error)
        try:
            return jwt.decode(text, self._current_keys(older_than=KEYS_AGAIN), list(ALGORITHMS))
        except (JoseError, ValueError, TypeError, RecursionError) as error:
            self._refuse(error)

    def _refuse(self, error: Exception) -> NoReturn:
        """What is wrong is for the log; to the person it is one sentence, whatever it was."""
        log.warning("an ID token was refused: %s %s", type(error).__name__, str(error)[:200])
        raise Unauthenticated(
            f"What {self._name()} said of you does not hold. Sign in again; if it stays so, the log says why."
        )

    def _oauth(self) -> OAuth2Client:
        # One for each use: Authlib's client keeps what it did last.
        return OAuth2Client(
            self,
            client_id=self.client.id,
            client_secret=self.client.secret,
            token_endpoint_auth_method=self.discovery().authenticates_by,
            scope=self.client.scopes,
            redirect_uri=self.client.redirect,
            code_challenge_method="S256",
        )

    def _name(self) -> str:
        return urlsplit(self.client.issuer).hostname or "The identity provider"

    # --- requests

    def post(self, url: str, *, data: Mapping[str, str], headers: Mapping[str, str], auth: Any) -> _Reply:
        """What Authlib calls a session."""
        url, sent, body = auth.prepare("POST", url, dict(headers), urlencode(data))
        status, answer = self._ask("POST", url, sent, body.encode())
        return _Reply(status, answer)

    def _json(self, url: str) -> Mapping[str, Any]:
        status, body = self._ask("GET", url, {"Accept": "application/json"}, None)
        try:
            found = json.loads(body) if status == 200 else None
        except (ValueError, RecursionError):
            found = None
        if not isinstance(found, dict):
            raise Unavailable(PART, f"{self._where(url)} answered {status} and no JSON object.")
        return found

    def _ask(self, method: str, url: str, headers: Mapping[str, str], body: bytes | None) -> tuple[int, bytes]:
        if not self._turns.acquire(timeout=WAIT_SECONDS):
            raise Unavailable(PART, "The identity provider is slow, and others are waiting for it.", retry_after=5)
        try:
            return self._asked(method, url, headers, body)
        finally:
            self._turns.release()

    def _asked(self, method: str, url: str, headers: Mapping[str, str], body: bytes | None) -> tuple[int, bytes]:
        until = time.monotonic() + self._seconds
        try:
            place = within(until, lambda: self._place(url))
            said = exchange(place, method, headers, body, until=until, tls=self._tls, most=MOST_BYTES + 1)
        except ssl.SSLCertVerificationError as error:
            raise Unavailable(
                PART, f"The certificate of {self._where(url)} is not accepted ({error.verify_message})."
            ) from None
        except (OSError, HTTPException, ValueError, TookTooLong) as error:
            why = "in time" if time.monotonic() >= until - 0.05 else f"({type(error).__name__})"
            raise Unavailable(PART, f"{self._where(url)} does not answer {why}.") from None
        if 300 <= said.status < 400:
            raise Unavailable(PART, f"{self._where(url)} sends elsewhere ({said.status}), which is not followed.")
        if len(said.body) > MOST_BYTES:
            raise Unavailable(PART, f"{self._where(url)} answers with more than {MOST_BYTES // 1024} KiB.")
        return said.status, said.body

    def _place(self, url: str) -> Place:
        parts = urlsplit(url)
        is_tls, host = parts.scheme == "https", parts.hostname or ""
        port = parts.port or (443 if is_tls else 80)
        target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        return Place(host, port, target, tuple(dict.fromkeys(self._resolve(host, port))), is_tls)

    @staticmethod
    def _where(url: str) -> str:
        parts = urlsplit(url)
        return f"{parts.scheme}://{parts.netloc}{parts.path}"[:200]

    def _fresh(self, kept: _Kept, seconds: float, ask: Callable[[], Found]) -> Found:
        """The value, asked for again when it is older. A failure counts for some seconds, so that nobody piles up."""
        if not kept.lock.acquire(timeout=WAIT_SECONDS):
            raise Unavailable(PART, "The identity provider is slow, and others are waiting for it.", retry_after=5)
        try:
            if self._ticks() - kept.at >= seconds:
                self._renew(kept, ask)
            found: Found = kept.value
        finally:
            kept.lock.release()
        return found

    def _renew(self, kept: _Kept, ask: Callable[[], Any]) -> None:
        if kept.failure is not None and self._ticks() - kept.failed_at < FAILED_KEPT:
            raise Unavailable(PART, kept.failure.message)
        try:
            kept.value, kept.at, kept.failure = ask(), self._ticks(), None
        except Unavailable as error:
            kept.failure, kept.failed_at = error, self._ticks()
            raise


def _key_set(document: Mapping[str, Any]) -> KeySet:
    """The public keys for signatures in it. What is no such key is left out: a shared secret, a key to encrypt, a short one."""
    given = document.get("keys")
    keys = [key for data in given[:MOST_KEYS] if (key := _key(data)) is not None] if isinstance(given, list) else []
    if not keys:
        raise Unavailable(PART, "The identity provider publishes no key that can be used.")
    return KeySet(keys)


def _key(data: Any) -> Key | None:
    if not isinstance(data, dict) or data.get("use", "sig") != "sig" or not isinstance(data.get("kid", ""), str):
        return None
    kinds: Mapping[str, Callable[[Any], Key]] = {
        "RSA": RSAKey.import_key,
        "EC": ECKey.import_key,
        "OKP": OKPKey.import_key,
    }
    kind = kinds.get(str(data.get("kty")))
    try:
        if kind is None or (data["kty"] == "RSA" and len(urlsafe_b64decode(to_bytes(data["n"]))) * 8 < LEAST_RSA_BITS):
            return None
        return kind(data)
    except (JoseError, ValueError, TypeError, KeyError, OverflowError):
        return None
