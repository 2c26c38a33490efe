"""The one gate in front of everything the web process serves: who asks, whether they may, and as whom they see.

Every route and every callback has a rule here; what has none is for admins only, and a test fails until it has one.
An instance on loopback without users and without single sign-on is open to whoever reaches it from this machine.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Final
from urllib.parse import quote, urlsplit

from flask import Flask, Request, Response, g, redirect, request
from werkzeug.wrappers import Response as AnyResponse

from app import access
from app.backends import SIGN_ON_CALLBACK, Backends
from app.core.access import LOCAL, NOBODY, Permission, Principal, accounts_key
from app.core.people import TOKEN_PREFIX
from app.errors import Forbidden, SpendscopeError, TooMany, Unauthenticated
from app.limits import wait_for
from app.narrowing import narrowed
from app.secretkey import secret_key

READ, OPERATE, METRICS = Permission.READ, Permission.OPERATE, Permission.METRICS
ANNOTATE, ADMINISTER, ALERTS = Permission.ANNOTATE, Permission.ADMINISTER, Permission.ALERTS
PUBLIC: Final = None
"""For everybody: what a probe, a person who is not signed in yet, or their browser needs."""

SIGN_IN, SIGN_OUT, CLAIM, WELCOME = "/login", "/logout", "/claim", "/welcome"
SIGN_ON, SIGN_ON_BACK = "/login/sso", SIGN_ON_CALLBACK
ACCOUNT, OWN_PASSWORD, OWN_TOKENS = "/account", "/account/password", "/account/tokens"
USERS, USER, AUDIT = "/users", "/users/<id>", "/audit"

PROBES: Final = ("/healthz", "/readyz", "/metrics")
"""What tells machines how this one is, beside the API and its paths."""

RULES: Final[Mapping[tuple[str, str], Permission | None]] = {
    ("GET", "/"): READ,
    ("GET", "/<path:path>"): READ,
    ("GET", "/_dash-layout"): READ,
    ("GET", "/_dash-dependencies"): READ,
    ("POST", "/_dash-update-component"): READ,
    ("GET", "/_reload-hash"): READ,
    ("GET", "/_favicon.ico"): PUBLIC,
    ("GET", "/_dash-component-suites/<string:package_name>/<path:fingerprinted_path>"): READ,
    ("GET", "/assets/<path:filename>"): READ,
    ("GET", "/from-grafana"): READ,
    ("GET", "/healthz"): PUBLIC,
    ("GET", "/readyz"): PUBLIC,
    ("GET", "/metrics"): METRICS,
    ("GET", SIGN_IN): PUBLIC,
    ("POST", SIGN_IN): PUBLIC,
    ("GET", CLAIM): PUBLIC,
    ("POST", CLAIM): PUBLIC,
    ("GET", SIGN_ON): PUBLIC,
    ("GET", SIGN_ON_BACK): PUBLIC,
    ("GET", WELCOME): PUBLIC,
    ("POST", WELCOME): PUBLIC,
    ("GET", ACCOUNT): READ,
    ("POST", ACCOUNT): READ,
    ("POST", OWN_PASSWORD): READ,
    ("POST", OWN_TOKENS): READ,
    ("GET", USERS): ADMINISTER,
    ("POST", USERS): ADMINISTER,
    ("GET", USER): ADMINISTER,
    ("POST", USER): ADMINISTER,
    ("GET", AUDIT): ADMINISTER,
    ("POST", SIGN_OUT): READ,
    ("GET", "/api/docs"): READ,
    ("GET", "/api/v1/openapi.json"): READ,
    ("GET", "/api/v1/costs"): READ,
    ("GET", "/api/v1/costs/compare"): READ,
    ("GET", "/api/v1/costs/forecast"): READ,
    ("GET", "/api/v1/dimensions/<name>"): READ,
    ("GET", "/api/v1/coverage"): READ,
    ("GET", "/api/v1/ingestions"): READ,
    ("GET", "/api/v1/ingestions/<id>"): READ,
    ("GET", "/api/v1/ingestions/<id>/file"): READ,
    ("GET", "/api/v1/reconciliation"): READ,
    ("GET", "/api/v1/restatements"): READ,
    ("GET", "/api/v1/restatements/movement"): READ,
    ("GET", "/api/v1/notices"): READ,
    ("GET", "/api/v1/notifications"): READ,
    ("GET", "/api/v1/notifications/channels"): READ,
    ("POST", "/api/v1/notifications/test"): OPERATE,
    ("POST", "/api/v1/notifications/<id>/retry"): OPERATE,
    ("GET", "/api/v1/anomalies"): READ,
    ("GET", "/api/v1/anomalies/<id>"): READ,
    ("PATCH", "/api/v1/anomalies/<id>"): ANNOTATE,
    ("GET", "/api/v1/planned-spend"): READ,
    ("POST", "/api/v1/planned-spend"): OPERATE,
    ("DELETE", "/api/v1/planned-spend/<id>"): OPERATE,
    ("GET", "/api/v1/budgets"): READ,
    ("POST", "/api/v1/budgets"): OPERATE,
    ("GET", "/api/v1/budgets/<id>"): READ,
    ("PATCH", "/api/v1/budgets/<id>"): OPERATE,
    ("DELETE", "/api/v1/budgets/<id>"): OPERATE,
    ("GET", "/api/v1/rules"): READ,
    ("POST", "/api/v1/rules"): OPERATE,
    ("GET", "/api/v1/rules/<id>"): READ,
    ("PATCH", "/api/v1/rules/<id>"): OPERATE,
    ("DELETE", "/api/v1/rules/<id>"): OPERATE,
    ("POST", "/api/v1/rules/preview"): OPERATE,
    ("POST", "/api/v1/rules/<id>/preview"): OPERATE,
    ("GET", "/api/v1/alerts"): READ,
    ("GET", "/api/v1/alerts/<id>"): READ,
    ("GET", "/api/v1/alerts/grafana"): READ,
    ("POST", "/api/v1/alerts/grafana"): ALERTS,
    ("GET", "/api/v1/jobs"): READ,
    ("GET", "/api/v1/jobs/<id>"): READ,
    ("POST", "/api/v1/jobs"): OPERATE,
    ("DELETE", "/api/v1/jobs/<id>"): OPERATE,
    **{
        (method, path): READ
        for method in ("GET", "POST", "PUT", "PATCH", "DELETE")
        for path in ("/api", "/api/", "/api/<path:rest>")
    },
    **{  # what probes do not take, and a slash too many: they are told so, signed in or not
        (method, path): PUBLIC
        for probe in PROBES
        for method in ("GET", "POST", "PUT", "PATCH", "DELETE")
        for path in ([f"{probe}/"] if method == "GET" else [probe, f"{probe}/"])
    },
}
"""(method, route) → what it takes. HEAD and OPTIONS go by GET."""

CALLBACKS: Final[Mapping[str, Permission]] = {
    "drawn.data": READ,
    "_pages_content.children": READ,
    "anomalies-drawn.data": READ,
    "budgets-drawn.data": READ,
    "data-drawn.data": READ,
    "notifications-drawn.data": READ,
    "data-side.children": READ,
    "data-live.data": READ,
    "trust-tabs.children": READ,
    "data-plan.children": READ,
}
"""First output of a callback that runs here → what it takes."""

PUBLIC_ASSETS: Final = ("/assets/10-spendscope.css", "/assets/fonts/inter.woff2")
"""What the sign-in page loads."""

SAFE: Final = ("GET", "HEAD", "OPTIONS")
TOKEN_PATHS: Final = ("/api/", "/metrics", "/readyz")
STATIC_PATHS: Final = ("/assets/", "/_dash-component-suites/")
CALLBACK_PATH: Final = "/_dash-update-component"
LOCAL_HOSTS: Final = frozenset({"localhost", "127.0.0.1", "::1"})

KNOWN_SECONDS: Final = 5.0
"""How long a process believes what it knows of a session, a token or whether there are users. So long, at most, does a
session work on another process after it was ended."""

MOST_KNOWN: Final = 10_000
API_A_MINUTE: Final = 600
SUBMITS_A_MINUTE: Final = 30

_WARM_UP: Final = object()
WARM_UP: Final = "spendscope.warm_up"


def warm_up_environment() -> dict[str, object]:
    """For a request of our own before the first of anybody else: what no request from outside can bring along."""
    return {WARM_UP: _WARM_UP}


@dataclass(frozen=True)
class _Known:
    principal: Principal
    good_until: float


class Gate:
    """Stands before every request of one Flask app."""

    def __init__(self, backends: Backends, *, ticks: Callable[[], float] = time.monotonic) -> None:
        self.backends, self.settings, self.ticks = backends, backends.settings, ticks
        self.callbacks: Mapping[str, Any] = {}
        self._known: dict[str, _Known] = {}
        self._seen_as: dict[str, Backends] = {}
        self._own_hosts: set[str] = set()
        self._open_until = 0.0
        self._closed = not self.settings.on_loopback or bool(self.settings.oidc_issuer)

    @cached_property
    def key(self) -> bytes:
        return secret_key(self.settings)

    @property
    def cookie(self) -> str:
        return "__Host-spendscope" if self.settings.behind_tls else "spendscope"

    # --- before a request

    def check(self) -> AnyResponse | None:
        # The request itself: each name that goes through Flask's proxy costs more than what is done with it.
        asked: Request = request._get_current_object()  # type: ignore[attr-defined]
        if asked.environ.get(WARM_UP) is _WARM_UP:
            return None
        needed = _rule(asked)
        if asked.method not in SAFE and not _bearer(asked):
            self._from_our_pages(asked)
        if needed is PUBLIC:
            g.spendscope_principal = self._perhaps(asked)
            return None
        asking = self._asking(asked)
        if asking is None:
            return self._sign_in_first(asked)
        self._let_in(asked, asking, needed)
        return None

    def _asking(self, asked: Request) -> Principal | None:
        if not self.is_open():
            return self.principal(asked)
        self._from_this_machine(asked)
        return LOCAL

    def _perhaps(self, asked: Request) -> Principal:
        """Who asks for what everybody gets: only /readyz says more to some, and it must answer whatever is down."""
        if asked.path != "/readyz":
            return NOBODY
        try:
            return self._asking(asked) or NOBODY
        except SpendscopeError:
            return NOBODY

    def is_open(self) -> bool:
        """Whether nobody needs to sign in. Once there was a user it is never open again."""
        if self._closed or self.ticks() < self._open_until:
            return not self._closed
        self._closed = self.backends.metadata.has_users()
        self._open_until = self.ticks() + KNOWN_SECONDS
        return not self._closed

    def principal(self, asked: Request) -> Principal | None:
        """Who asks, by token or by session."""
        token = _bearer(asked)
        if token and asked.path.startswith(TOKEN_PATHS):
            return self._known_as(access.digest_of(token), access.principal_of_token, limited=True)
        secret = asked.cookies.get(self.cookie)
        return self._known_as(access.digest_of(secret), access.principal_of_session) if secret else None

    def forget(self, id: str) -> None:
        """What this process knows of a session that has ended."""
        self._known.pop(id, None)

    def forget_all(self) -> None:
        """What this process knows of anybody: rights have changed."""
        self._known.clear()

    def seen_by(self, principal: Principal) -> Backends:
        """The backends as this principal may see them."""
        found = self._seen_as.get(principal.scope)
        if found is None:
            if len(self._seen_as) >= 256:
                self._seen_as.clear()
            found = self._seen_as[principal.scope] = self._narrowed(principal)
        return found

    def _narrowed(self, principal: Principal) -> Backends:
        if principal.accounts is None:
            return replace(self.backends, scope=principal.scope)
        memo = self.backends.memo.setdefault(f"of:{accounts_key(principal.accounts)}", {})
        return replace(narrowed(self.backends, principal.accounts, memo), scope=principal.scope)

    def _known_as(
        self, id: str, find: Callable[[Backends, str], Principal | None], *, limited: bool = False
    ) -> Principal | None:
        kept = self._known.get(id)
        if kept is not None and self.ticks() < kept.good_until:
            found: Principal | None = kept.principal
        else:
            found = find(self.backends, id)
            self._keep(id, found)
        if limited and found is not None:
            self.limit(f"api:{found.id}", API_A_MINUTE)
        return found

    def _keep(self, id: str, found: Principal | None) -> None:
        if len(self._known) >= MOST_KNOWN:
            self._known.clear()
        if found is None:
            self._known.pop(id, None)
        else:
            self._known[id] = _Known(found, self.ticks() + KNOWN_SECONDS)

    def limit(self, key: str, most: int, seconds: int = 60) -> None:
        """Raises TooMany."""
        now = self.backends.clock().timestamp()
        wait = wait_for(self.backends.limits, key, most, seconds, now)
        if wait is not None:
            raise TooMany(f"More than {most} in {seconds} s. Try again in {wait} s.", retry_after=wait)

    def _let_in(self, asked: Request, asking: Principal, needed: Permission) -> None:
        if not asking.may(needed):
            self._note(asked, asking, "refused")
            raise Forbidden(f"This takes the permission {needed}, which you do not have. Ask an admin.")
        if asked.path == CALLBACK_PATH:
            self._let_call(asked, asking)
        elif (asked.method not in SAFE and needed not in (READ, ALERTS)) or b"format=csv" in asked.query_string:
            self._note(asked, asking, "asked")
        if needed is OPERATE and asked.method == "POST" and asking.via != "local":
            self.limit(f"submit:{asking.id}", SUBMITS_A_MINUTE)
        g.spendscope_principal = asking
        g.spendscope_backends = self.seen_by(asking)

    def _note(self, asked: Request, asking: Principal, result: str) -> None:
        """Before it is done: what cannot be logged is not done. An open instance knows nobody to name."""
        if asking.via != "local":
            what, target = f"{asked.method} {asked.path}", asked.query_string.decode("ascii", "replace")
            access.note(self.backends, f"{asking.name} ({asking.id})", what, target, asked.remote_addr or "", result)

    def _let_call(self, asked: Request, asking: Principal) -> None:
        """The body is read only where some callback takes more than this principal has."""
        if self.callback_needs <= asking.permissions:
            return
        body = asked.get_json(silent=True)
        needed = callback_rule(str(body.get("output"))) if isinstance(body, dict) else Permission.ADMINISTER
        if not asking.may(needed):
            self._note(asked, asking, "refused")
            raise Forbidden(f"This takes the permission {needed}, which you do not have. Ask an admin.")

    @cached_property
    def callback_needs(self) -> frozenset[Permission]:
        """What the callbacks of this app take, all together; asked after all are registered."""
        return frozenset(callback_rule(output) for output, spec in self.callbacks.items() if "callback" in spec)

    # --- where a request comes from

    def _from_this_machine(self, asked: Request) -> None:
        """An open instance answers to its own names only: a page elsewhere may make its name point here (rebinding)."""
        given = asked.environ.get("HTTP_HOST", "")
        if given in self._own_hosts:
            return
        name = _host_name(given)
        if name in LOCAL_HOSTS or name == urlsplit(self.settings.public_url).hostname:
            if len(self._own_hosts) < 100:
                self._own_hosts.add(given)
        else:
            raise Forbidden(
                f"This instance does not answer as {name[:80]!r}. Use localhost, or set SPENDSCOPE_PUBLIC_URL."
            )

    def _from_our_pages(self, asked: Request) -> None:
        """Refuse what another site's page sends with this browser's cookie (CSRF)."""
        site, origin = asked.environ.get("HTTP_SEC_FETCH_SITE"), asked.environ.get("HTTP_ORIGIN")
        if site in ("same-origin", "none") or (site is None and origin is None):
            return
        ours = (f"{asked.scheme}://{asked.host}", _origin_of(self.settings.public_url))
        if site is not None or origin not in ours:
            raise Forbidden("This request comes from another site's page.")

    def _sign_in_first(self, asked: Request) -> AnyResponse:
        asks_for_page = asked.method in ("GET", "HEAD") and not asked.path.startswith(
            ("/api", "/metrics", "/_dash", "/_reload", "/assets/")
        )
        if not asks_for_page:
            raise Unauthenticated("Sign in, or send an API token as `Authorization: Bearer …`.")
        query = asked.query_string.decode("ascii", "replace")
        back = asked.path + (f"?{query}" if query else "")
        return redirect(SIGN_IN if back == "/" else f"{SIGN_IN}?next={quote(back, safe='/')}", 303)

    # --- after a request

    def mark(self, response: Response) -> Response:
        """Nobody keeps what was made for somebody who signed in."""
        asking: Principal | None = g.get("spendscope_principal")
        if asking is LOCAL:
            return response
        if asking is not None and asking.via != "local" and not request.path.startswith(STATIC_PATHS):
            response.headers["Cache-Control"] = "private, no-store"
        elif asking is None and not self.is_known_public():
            response.headers["Cache-Control"] = "no-store"
        return response

    def is_known_public(self) -> bool:
        return request.path in PUBLIC_ASSETS or request.environ.get(WARM_UP) is _WARM_UP


def stand(server: Flask, backends: Backends) -> Gate:
    """Put the gate before everything that is registered after it."""
    gate = Gate(backends)
    server.extensions["spendscope-gate"] = gate
    server.before_request(gate.check)
    server.after_request(gate.mark)
    return gate


def _rule(asked: Request) -> Permission | None:
    """What this request takes. An unknown path or method is told to those who are signed in."""
    if asked.url_rule is None:
        return READ
    if asked.path in PUBLIC_ASSETS and asked.method in SAFE:
        return PUBLIC
    return rule_of("GET" if asked.method in SAFE else asked.method, asked.url_rule.rule)


def rule_of(method: str, route: str) -> Permission | None:
    return RULES.get((method, route), Permission.ADMINISTER)


def callback_rule(output: str) -> Permission:
    return CALLBACKS.get(first_output(output), Permission.ADMINISTER)


def first_output(output: str) -> str:
    """`a.children` of `..a.children...b.data..`, which is what Dash calls a callback with several outputs."""
    return output.removeprefix("..").removesuffix("..").split("...")[0].split("@")[0]


def _bearer(asked: Request) -> str | None:
    """The API token a request brings in its header; nowhere else is one looked for."""
    given: str = asked.environ.get("HTTP_AUTHORIZATION", "")
    return given[7:].strip() if given[:7].lower() == "bearer " and TOKEN_PREFIX in given else None


def _host_name(given: str) -> str:
    try:
        return urlsplit(f"//{given}").hostname or ""
    except ValueError:
        return ""


def _origin_of(url: str) -> str:
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}"
