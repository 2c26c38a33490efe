"""An identity provider to sign in at: OpenID Connect over real HTTP on loopback, with real keys, and every way to be bad.

It keeps the rules of the code flow with PKCE by itself (one-time codes, client secret, exact redirect address, verifier);
what a test changes in `claims`, `header`, `sign` or `answers` is what it says then.
"""

from __future__ import annotations

import base64
import hashlib
import json
import secrets
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, cast
from urllib.parse import parse_qsl, urlencode, urlsplit

from joserfc import jws
from joserfc.jwk import ECKey, RSAKey

CLIENT, SECRET = "spendscope", "canary-client-secret"
RSA = RSAKey.generate_key(2048, {"kid": "rsa-1", "use": "sig"})
RSA_NEXT = RSAKey.generate_key(2048, {"kid": "rsa-2", "use": "sig"})
EC = ECKey.generate_key("P-256", {"kid": "ec-1", "use": "sig"})


@dataclass
class Person:
    sub: str = "248289761001"
    preferred_username: str = "Ada.Lovelace"
    email: str = "ada@example.org"
    groups: list[str] = field(default_factory=lambda: ["finops"])
    more: dict[str, Any] = field(default_factory=dict)

    def claims(self) -> dict[str, Any]:
        named = {"sub": self.sub, "preferred_username": self.preferred_username, "email": self.email}
        return {**named, "groups": self.groups, **self.more}


@dataclass
class Asked:
    """An authorization request that waits for its code to be brought back."""

    query: dict[str, str]
    person: Person


Claims = dict[str, Any]


@dataclass
class FakeProvider:
    clock: Callable[[], float]
    port: int = 0
    person: Person = field(default_factory=Person)
    keys: list[Any] = field(default_factory=lambda: [RSA, EC])
    key: Any = field(default_factory=lambda: RSA)
    algorithm: str = "RS256"
    header: dict[str, Any] = field(default_factory=dict)
    claims: Callable[[Claims], Claims] = lambda claims: claims
    sign: Callable[[dict[str, Any], Claims], str] | None = None
    discovery: Callable[[dict[str, Any]], Any] = lambda document: document
    token_answer: Callable[[dict[str, Any]], dict[str, Any]] = lambda answer: answer
    answers: dict[str, tuple[int, dict[str, str], bytes]] = field(default_factory=dict)
    """Path → what is said there instead."""
    drip: dict[str, float] = field(default_factory=dict)
    """Path → seconds between two bytes of the body."""
    names_itself: bool = False
    asked: list[str] = field(default_factory=list)
    codes: dict[str, Asked] = field(default_factory=dict)
    token_requests: list[dict[str, str]] = field(default_factory=list)

    @property
    def issuer(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def count(self, path: str) -> int:
        return sum(found == path for found in self.asked)

    # --- what it serves

    def document(self) -> Any:
        plain = {
            "issuer": self.issuer,
            "authorization_endpoint": f"{self.issuer}/authorize",
            "token_endpoint": f"{self.issuer}/token",
            "jwks_uri": f"{self.issuer}/keys",
            "end_session_endpoint": f"{self.issuer}/logout",
            "response_types_supported": ["code"],
            "code_challenge_methods_supported": ["S256"],
            "id_token_signing_alg_values_supported": ["RS256", "ES256", "none", "HS256"],
            "authorization_response_iss_parameter_supported": self.names_itself,
        }
        return self.discovery(plain)

    def key_set(self) -> dict[str, Any]:
        return {"keys": [key.as_dict(private=False) if isinstance(key, RSAKey | ECKey) else key for key in self.keys]}

    def authorize(self, query: dict[str, str]) -> str:
        """Where the browser is sent back to. The person has signed in and agreed."""
        code = secrets.token_urlsafe(16)
        self.codes[code] = Asked(query, self.person)
        back = {"code": code, "state": query.get("state", "")}
        if self.names_itself:
            back["iss"] = self.issuer
        return f"{query['redirect_uri']}?{urlencode(back)}"

    def token(self, form: dict[str, str], authorization: str) -> tuple[int, dict[str, Any]]:
        self.token_requests.append(form)
        expected = "Basic " + base64.b64encode(f"{CLIENT}:{SECRET}".encode()).decode()
        if authorization != expected and form.get("client_secret") != SECRET:
            return 401, {"error": "invalid_client"}
        asked = self.codes.pop(form.get("code", ""), None)
        if asked is None or form.get("redirect_uri") != asked.query.get("redirect_uri"):
            return 400, {"error": "invalid_grant"}
        challenge = base64.urlsafe_b64encode(hashlib.sha256(form.get("code_verifier", "").encode()).digest())
        if challenge.decode().rstrip("=") != asked.query.get("code_challenge"):
            return 400, {"error": "invalid_grant"}
        answer = {"access_token": "canary-access-token", "token_type": "Bearer", "id_token": self.id_token(asked)}
        return 200, self.token_answer(answer)

    def id_token(self, asked: Asked) -> str:
        now = int(self.clock())
        said = {"iss": self.issuer, "aud": CLIENT, "iat": now, "exp": now + 300, "nonce": asked.query.get("nonce")}
        claims = self.claims({**said, **asked.person.claims()})
        header = {"alg": self.algorithm, "kid": getattr(self.key, "kid", None), **self.header}
        header = {name: value for name, value in header.items() if value is not None}
        if self.sign is not None:
            return self.sign(header, claims)
        return jws.serialize_compact(header, json.dumps(claims).encode(), self.key, [self.algorithm])


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: Any) -> None: ...

    @property
    def provider(self) -> FakeProvider:
        return cast(FakeProvider, self.server.provider)  # type: ignore[attr-defined]

    def do_GET(self) -> None:
        parts = urlsplit(self.path)
        self.provider.asked.append(parts.path)
        if parts.path in self.provider.answers:
            self.say(*self.provider.answers[parts.path])
        elif parts.path == "/.well-known/openid-configuration":
            self.say_json(200, self.provider.document())
        elif parts.path == "/keys":
            self.say_json(200, self.provider.key_set())
        elif parts.path == "/authorize":
            self.say(303, {"Location": self.provider.authorize(dict(parse_qsl(parts.query)))}, b"")
        else:
            self.say(404, {}, b"")

    def do_POST(self) -> None:
        self.provider.asked.append(self.path)
        form = dict(parse_qsl(self.rfile.read(int(self.headers["Content-Length"])).decode()))
        if self.path in self.provider.answers:
            self.say(*self.provider.answers[self.path])
        else:
            self.say_json(*self.provider.token(form, self.headers.get("Authorization", "")))

    def say_json(self, status: int, document: Any) -> None:
        self.say(status, {"Content-Type": "application/json"}, json.dumps(document).encode())

    def say(self, status: int, headers: dict[str, str], body: bytes) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), "Connection": "close", **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        pause = self.provider.drip.get(urlsplit(self.path).path, 0.0)
        try:
            for n in range(0, len(body), 1 if pause else max(1, len(body))):
                self.wfile.write(body[n : n + 1] if pause else body)
                time.sleep(pause)
        except OSError:
            pass  # Whoever asked has had enough.
        self.close_connection = True


@contextmanager
def fake_provider(clock: Callable[[], float]) -> Iterator[FakeProvider]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    server.daemon_threads = True
    provider = FakeProvider(clock, server.server_address[1])
    server.provider = provider  # type: ignore[attr-defined]
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield provider
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def led_back(address: str) -> str:
    """What a browser does that is sent to the provider: where it is sent next."""
    parts = urlsplit(address)
    connection = HTTPConnection(parts.hostname or "", parts.port, timeout=10)
    try:
        connection.request("GET", f"{parts.path}?{parts.query}")
        answer = connection.getresponse()
        answer.read()
        return answer.headers["Location"]
    finally:
        connection.close()
