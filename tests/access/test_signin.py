"""Attacks on signing in, sessions and tokens (notes: reliability §7), each against the whole app."""

from __future__ import annotations

import statistics
import time
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from app import access
from app.core.access import Principal
from app.core.people import broken_at
from app.errors import InvalidInput, NotFound, Refused, Unauthenticated
from app.forms import safe_target
from app.gate import KNOWN_SECONDS
from tests.access.conftest import MINE, PASSWORD, Door, closed, form_token
from tests.pages.conftest import body_for

ELSEWHERE = (
    "https://evil.example",
    "//evil.example",
    "///evil.example",
    "/\\evil.example",
    "\\\\evil.example",
    "/%09/evil.example\t",
    "https:evil.example",
    "javascript:alert(1)",
    "data:text/html,x",
    "http:///evil.example",
    " //evil.example",
    "\n//evil.example",
    "/\n/evil.example",
    "/\t/evil.example",
    "evil.example",
    "@evil.example",
    "/ä",
    "/" + "a" * 3000,
    "/login",
    "/login?next=/x",
    "/logout",
    "",
)


def cookie_of(answer: Any, name: str = "spendscope") -> str:
    [found] = [c for c in answer.headers.getlist("Set-Cookie") if c.startswith(f"{name}=")]
    return str(found)


def audited(door: Door) -> list[tuple[str, str, str]]:
    entries = door.backends.metadata.audit(limit=1000)
    assert broken_at(entries) is None
    return [(entry.note.who, entry.note.what, entry.note.result) for entry in entries]


# --- signing in ---------------------------------------------------------------------------------------------------


def test_signing_in_leads_back_to_where_one_was_going(door: Door) -> None:
    client = door.client()
    sent = client.get("/?period=7d&service=a%26b")
    assert (sent.status_code, sent.headers["Location"]) == (303, "/login?next=/%3Fperiod%3D7d%26service%3Da%2526b")
    page = client.get(sent.headers["Location"])
    assert 'name="next" value="/?period=7d&amp;service=a%26b"' in page.get_data(as_text=True)
    values = {"form_token": form_token(client, "/login"), "name": "ADA", "password": PASSWORD}
    answer = client.post("/login", data={**values, "next": "/?period=7d"})
    assert (answer.status_code, answer.headers["Location"]) == (303, "/?period=7d")
    assert client.get("/").status_code == 200
    assert ("ada", "sign in", "done") in audited(door)


@pytest.mark.parametrize("target", ELSEWHERE)
def test_no_form_of_next_leads_elsewhere(door: Door, target: str) -> None:
    assert safe_target(target) == "/"
    client = door.client()
    values = {"form_token": form_token(client, "/login"), "name": "ada", "password": PASSWORD, "next": target}
    assert client.post("/login", data=values).headers["Location"] == "/"


@pytest.mark.parametrize("target", ["/", "/?a=b", "/api/docs", "/x/y?next=//evil.example"])
def test_paths_of_ours_are_kept(target: str) -> None:
    assert safe_target(target) == target


def test_wrong_name_wrong_password_disabled_and_sso_are_answered_alike(door: Door) -> None:
    access.add_user(door.backends, "off", "viewer", None, PASSWORD)
    access.set_disabled(door.backends, "off", True)
    ada = door.backends.metadata.user_named("ada")
    assert ada
    said = set()
    for name, password in (
        ("ada", "x"),
        ("nobody", PASSWORD),
        ("off", PASSWORD),
        ("", ""),
        ("'; --", "\x00"),
        ("ada", "x" * 5000),
    ):
        answer = door.sign_in(name, password, **{"X-Forwarded-For": "192.0.2.9"})
        assert answer.status_code == 401
        assert not [c for c in answer.headers.getlist("Set-Cookie") if c.startswith("spendscope=")]
        said.add(answer.get_data(as_text=True).split('role="alert">')[1].split("<")[0])
        door.wait(minutes=1)
    assert len(said) == 1
    assert audited(door).count(("unknown", "sign in", "refused")) == 3


@pytest.mark.alone
def test_an_unknown_user_takes_as_long_as_a_known_one(door: Door) -> None:
    def seconds(name: str) -> float:
        began = time.perf_counter()
        with pytest.raises(Unauthenticated):
            access.sign_in(door.backends, name, "wrong wrong wrong", access.Visitor())
        return time.perf_counter() - began

    seconds("warm"), seconds("ada")
    known, unknown = ([seconds(name) for _ in range(9)] for name in ("ada", "nobody"))
    # Without the hash of nobody an unknown user is told a hundred times faster.
    assert 0.4 < statistics.median(known) / statistics.median(unknown) < 2.5


def test_brute_force_is_slowed_by_name_and_place(door: Door) -> None:
    answers = [door.sign_in("ada", f"guess number {n}") for n in range(7)]
    assert [answer.status_code for answer in answers] == [401] * 5 + [429] * 2
    assert int(answers[-1].headers["Retry-After"]) <= 60
    assert door.sign_in("ada", PASSWORD).status_code == 429
    door.wait(minutes=1)
    assert door.sign_in("ada", PASSWORD).status_code == 303


def test_many_names_from_one_place_are_slowed_too(door: Door) -> None:
    client = door.client()
    values = {"form_token": form_token(client, "/login"), "password": "x" * 12}
    statuses = [client.post("/login", data={**values, "name": "!" * (n + 1)}).status_code for n in range(32)]
    assert statuses == [401] * 30 + [429] * 2


def test_a_header_that_names_another_place_is_believed_from_our_proxies_only(tmp_path: Path) -> None:
    for proxies, expected in ((0, 429), (1, 401)):
        door = closed(tmp_path / str(proxies), proxies=proxies)
        access.add_user(door.backends, "ada", "admin", None, PASSWORD)
        statuses = [door.sign_in("ada", "guess", **{"X-Forwarded-For": f"192.0.2.{n}"}).status_code for n in range(7)]
        assert statuses[-1] == expected


# --- sessions -----------------------------------------------------------------------------------------------------


def test_the_cookie_is_for_this_server_and_no_script(door: Door) -> None:
    found = cookie_of(door.sign_in("ada"))
    assert "HttpOnly" in found
    assert "SameSite=Lax" in found
    assert "Domain" not in found
    assert len(found.split(";")[0]) == len("spendscope=") + 43


def test_behind_tls_the_cookie_is_bound_to_host_and_https(tmp_path: Path) -> None:
    door = closed(tmp_path, public_url="https://costs.example.org")
    access.add_user(door.backends, "ada", "admin", None, PASSWORD)
    client = door.client()
    page = client.get("/login", base_url="https://costs.example.org")
    assert page.headers["Strict-Transport-Security"] == "max-age=31536000"
    token = page.get_data(as_text=True).split('form_token" value="')[1].split('"')[0]
    answer = client.post(
        "/login",
        data={"form_token": token, "name": "ada", "password": PASSWORD},
        base_url="https://costs.example.org",
    )
    assert "Secure" in cookie_of(answer, "__Host-spendscope")
    assert "Path=/" in cookie_of(answer, "__Host-spendscope")


def test_a_session_somebody_brought_along_is_not_taken(door: Door) -> None:
    client = door.client()
    client.set_cookie("spendscope", "chosen-by-the-attacker")
    door.sign_in("ada", client=client)
    attacker = door.client()
    attacker.set_cookie("spendscope", "chosen-by-the-attacker")
    assert client.get("/account").status_code == 200
    assert attacker.get("/account").status_code == 303


def test_signing_in_again_ends_the_session_before(door: Door) -> None:
    client = door.client()
    door.sign_in("ada", client=client)
    before = client.get_cookie("spendscope")
    door.sign_in("ada", client=client)
    copy = door.client()
    copy.set_cookie("spendscope", before.value if before else "")
    assert copy.get("/account").status_code == 303


def test_signing_out_kills_every_copy(door: Door) -> None:
    client, copy = door.client(), door.client()
    door.sign_in("ada", client=client)
    held = client.get_cookie("spendscope")
    assert held
    copy.set_cookie("spendscope", held.value)
    assert copy.get("/account").status_code == 200
    assert client.post("/logout", data={"form_token": form_token(client, "/account")}).status_code == 303
    assert copy.get("/account").status_code == 303
    assert copy.get("/api/v1/jobs").status_code == 401


def test_another_process_believes_an_ended_session_for_seconds_only(door: Door) -> None:
    client = door.client_of("ada")
    assert client.get("/account").status_code == 200
    ada = door.backends.metadata.user_named("ada")
    assert ada
    door.backends.metadata.end_sessions(ada.id)
    assert client.get("/account").status_code == 200
    later = time.monotonic() + KNOWN_SECONDS
    door.gate.ticks = lambda: later
    assert client.get("/account").status_code == 303


@pytest.mark.parametrize("change", ["disable", "password", "demote"])
def test_what_changes_of_a_user_counts_within_seconds(door: Door, change: str) -> None:
    access.add_user(door.backends, "bob", "admin", None, PASSWORD)
    client = door.client_of("bob")
    token = access.create_token(door.backends, "bob", "t", ["read", "operate"], 1)[0]
    post = {
        "json": {"kind": "ingest", "params": {"key": "2026-11-01.csv"}},
        "headers": {"Authorization": f"Bearer {token}"},
    }
    assert client.get("/metrics").status_code == 200
    assert door.client().post("/api/v1/jobs", **post).status_code == 202
    bob = door.backends.metadata.user_named("bob")
    assert bob
    if change == "disable":
        access.set_disabled(door.backends, "bob", True)
    elif change == "password":
        access.set_password(door.backends, "bob", "another long password")
    else:
        door.backends.metadata.put_user(bob.changed(role="viewer", accounts=frozenset({MINE})))
    later = time.monotonic() + KNOWN_SECONDS
    door.gate.ticks = lambda: later
    assert client.get("/metrics").status_code == (403 if change == "demote" else 401)
    expected = {"disable": 401, "password": 202, "demote": 403}
    assert door.client().post("/api/v1/jobs", **post).status_code == expected[change]


@pytest.mark.parametrize(("idle", "total"), [(timedelta(minutes=31), 1), (timedelta(minutes=20), 36)])
def test_sessions_end_idle_and_after_twelve_hours(door: Door, idle: timedelta, total: int) -> None:
    client, ticks = door.client_of("ada"), [time.monotonic()]
    door.gate.ticks = lambda: ticks[0]
    for _ in range(total):
        assert client.get("/account").status_code == 200
        door.clock.now += idle
        ticks[0] += idle.total_seconds()
    assert client.get("/account").status_code == 303


def test_one_may_end_other_sessions_of_ones_own_only(door: Door) -> None:
    access.add_user(door.backends, "bob", "viewer", None, PASSWORD)
    mine, other = door.client_of("ada"), door.client_of("ada")
    bob = door.client_of("bob")
    held = other.get_cookie("spendscope")
    assert held
    values = {"form_token": form_token(bob, "/account"), "session": access.digest_of(held.value)}
    assert bob.post("/account", data=values).status_code == 404
    assert other.get("/account").status_code == 200
    values["form_token"] = form_token(mine, "/account")
    assert mine.post("/account", data=values).status_code == 303
    assert other.get("/account").status_code == 303


def test_the_store_has_no_secret_of_a_session_or_token(door: Door) -> None:
    client = door.client()
    door.sign_in("ada", client=client)
    held = client.get_cookie("spendscope")
    token, _ = access.create_token(door.backends, "ada", "t", ["read"], 1)
    files = b"".join(path.read_bytes() for path in Path(door.backends.metadata._path.parent).glob("metadata.sqlite*"))  # type: ignore[attr-defined]
    assert held
    for secret in (held.value, token, PASSWORD):
        assert secret.encode() not in files
    assert access.digest_of(held.value).encode() in files


# --- requests from other sites ------------------------------------------------------------------------------------

CROSS = (
    {"Sec-Fetch-Site": "cross-site"},
    {"Sec-Fetch-Site": "same-site"},
    {"Origin": "https://evil.example"},
    {"Origin": "null"},
)


@pytest.mark.parametrize("headers", CROSS)
def test_another_sites_page_changes_nothing(door: Door, headers: dict[str, str]) -> None:
    client = door.client_of("ada")
    job = {"kind": "ingest", "params": {"key": "2026-11-01.csv"}}
    form = {"form_token": form_token(client, "/account")}
    for method, path, body in (
        ("POST", "/api/v1/jobs", {"json": job}),
        ("DELETE", "/api/v1/jobs/x", {}),
        ("POST", "/_dash-update-component", {"json": body_for(door.app, "")}),
        ("POST", "/logout", {"data": form}),
        ("POST", "/account", {"data": form}),
        ("POST", "/login", {"data": {"name": "ada", "password": PASSWORD}}),
    ):
        assert client.open(path, method=method, headers=headers, **body).status_code == 403, path
    assert client.get("/account").status_code == 200
    assert door.backends.metadata.jobs(limit=1).items == []


def test_our_own_pages_are_let_through(door: Door) -> None:
    client = door.client_of("ada")
    for headers in ({"Sec-Fetch-Site": "same-origin"}, {"Origin": "http://localhost"}, {}):
        answer = client.post("/_dash-update-component", json=body_for(door.app, ""), headers=headers)
        assert answer.status_code == 200


@pytest.mark.parametrize("mimetype", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data", ""])
def test_what_a_form_can_send_is_no_callback_and_no_job(door: Door, mimetype: str) -> None:
    client = door.client_of("ada")
    for path in ("/_dash-update-component", "/api/v1/jobs"):
        answer = client.post(path, data='{"kind":"ingest","params":{"key":"2026-11-01.csv"}}', content_type=mimetype)
        assert answer.status_code in (400, 415), path
    assert door.backends.metadata.jobs(limit=1).items == []


def test_forms_take_their_token_only(door: Door) -> None:
    client, other = door.client_of("ada"), door.client_of("ada")
    for token in ("", "0" * 64, form_token(other, "/account"), form_token(door.client(), "/login")):
        assert client.post("/logout", data={"form_token": token}).status_code == 403
    values = {"name": "ada", "password": PASSWORD, "form_token": form_token(door.client(), "/login")}
    assert door.client().post("/login", data=values).status_code == 403
    assert client.get("/account").status_code == 200


def test_nothing_made_for_a_person_is_kept(door: Door) -> None:
    client = door.client_of("ada")
    for path in ("/", "/account", "/api/v1/costs?start=2026-11-01&end=2026-11-02", "/_dash-layout", "/api/nothing"):
        assert "no-store" in client.get(path).headers["Cache-Control"], path
    assert "no-store" in client.post("/_dash-update-component", json=body_for(door.app, "")).headers["Cache-Control"]
    assert "no-store" not in client.get("/assets/20-dashboard.js").headers["Cache-Control"]
    for path in ("/", "/login", "/api/v1/jobs"):
        assert "no-store" in door.client().get(path).headers["Cache-Control"], path


def test_pages_are_framed_by_nobody_and_ask_for_nothing(door: Door) -> None:
    for client, path in ((door.client_of("ada"), "/"), (door.client(), "/login"), (door.client_of("ada"), "/account")):
        headers = client.get(path).headers
        assert "frame-ancestors 'none'" in headers["Content-Security-Policy"]
        assert "base-uri 'none'" in headers["Content-Security-Policy"]
        assert headers["Cross-Origin-Opener-Policy"] == "same-origin"
        assert "camera=()" in headers["Permissions-Policy"]
        assert headers["X-Content-Type-Options"] == "nosniff"


def test_a_host_header_makes_no_address(door: Door) -> None:
    for path in ("/", "/api/v1/jobs", "/login", "/from-grafana"):
        answer = door.client_of("ada").get(path, headers={"Host": "evil.example"})
        assert "evil.example" not in answer.get_data(as_text=True) + str(answer.headers), path


# --- open on loopback ---------------------------------------------------------------------------------------------


def test_without_users_this_machine_is_let_in_until_there_is_one(tmp_path: Path) -> None:
    door = closed(tmp_path)
    client = door.client()
    assert client.get("/").status_code == client.get("/metrics").status_code == 200
    assert "Open on this machine" in client.get("/account").get_data(as_text=True)
    access.add_user(door.backends, "ada", "viewer", None, PASSWORD)
    later = [time.monotonic() + KNOWN_SECONDS]
    door.gate.ticks = lambda: later[0]
    assert client.get("/").status_code == 303
    access.set_disabled(door.backends, "ada", True)
    later[0] += KNOWN_SECONDS
    assert client.get("/").status_code == 303


def test_an_open_instance_answers_to_its_own_names_only(tmp_path: Path) -> None:
    client = closed(tmp_path, public_url="https://costs.example.org").client()
    for host in ("localhost:8050", "127.0.0.1", "[::1]:8050", "costs.example.org"):
        assert client.get("/", headers={"Host": host}).status_code == 200, host
    for host in ("evil.example", "localhost.evil.example", "127.0.0.1.evil.example", "10.0.0.1"):
        assert client.get("/api/v1/jobs", headers={"Host": host}).status_code == 403, host


@pytest.mark.parametrize("host", ["0.0.0.0", "192.0.2.1", "::"])
def test_beyond_loopback_nothing_is_open(tmp_path: Path, host: str) -> None:
    door = closed(tmp_path, host=host)
    client = door.client()
    assert client.get("/").status_code == 303
    assert client.get("/api/v1/jobs").status_code == client.get("/metrics").status_code == 401
    assert client.get("/healthz").status_code == 200


def test_while_it_is_not_known_whether_there_are_users_nothing_is_shown(tmp_path: Path) -> None:
    from dataclasses import replace

    from app.web import create_app
    from tests.fakes import Down

    door = closed(tmp_path)
    client = create_app(replace(door.backends, metadata=Down("metadata"))).server.test_client()
    assert client.get("/").status_code == client.get("/api/v1/jobs").status_code == 503
    assert client.get("/healthz").status_code == 200
    assert client.get("/readyz").get_json()["parts"]["metadata"] == {"ok": False, "message": ""}


# --- the first admin ----------------------------------------------------------------------------------------------


def claiming(door: Door, secret: str, name: str = "root", password: str = PASSWORD) -> Any:
    client = door.client()
    values = {"form_token": form_token(client, "/claim"), "token": secret, "name": name, "password": password}
    return client.post("/claim", data=values)


def test_the_first_admin_is_claimed_once(tmp_path: Path) -> None:
    door = closed(tmp_path, host="0.0.0.0")
    secret, _ = access.offer_claim(door.backends)
    other, _ = access.offer_claim(door.backends)
    for wrong in ("", "x", secret[:-1], secret + "x"):
        assert claiming(door, wrong).status_code == 401
    door.wait(minutes=1)
    assert claiming(door, secret, password="short").status_code == 400
    answer = claiming(door, secret)
    assert (answer.status_code, answer.headers["Location"]) == (303, "/")
    root = door.backends.metadata.user_named("root")
    assert root
    assert root.role == "admin"
    assert door.client().get("/claim").status_code == 404
    with pytest.raises(NotFound):
        access.claim(door.backends, other, "eve", PASSWORD, access.Visitor())


def test_a_claim_expires(tmp_path: Path) -> None:
    door = closed(tmp_path, host="0.0.0.0")
    secret, until = access.offer_claim(door.backends)
    door.clock.now = until
    assert claiming(door, secret).status_code == 401
    assert not door.backends.metadata.has_users()


def test_a_claim_is_never_served(tmp_path: Path) -> None:
    door = closed(tmp_path, host="0.0.0.0")
    secret, _ = access.offer_claim(door.backends)
    for path in ("/", "/login", "/claim", "/readyz", "/healthz", "/metrics", "/api/docs", "/account"):
        assert secret not in door.client().get(path, follow_redirects=True).get_data(as_text=True)


def test_claims_are_slowed(tmp_path: Path) -> None:
    door = closed(tmp_path, host="0.0.0.0")
    assert [claiming(door, f"guess {n}").status_code for n in range(7)] == [401] * 5 + [429] * 2


# --- API tokens ---------------------------------------------------------------------------------------------------


def bearer(door: Door, token: str, path: str = "/api/v1/jobs") -> int:
    return door.client().get(path, headers={"Authorization": f"Bearer {token}"}).status_code


def test_a_token_works_until_it_is_revoked_or_expires(door: Door) -> None:
    secret, token = access.create_token(door.backends, "ada", "ci", ["read"], 2)
    later = [time.monotonic()]
    door.gate.ticks = lambda: later[0]
    assert bearer(door, secret) == 200
    assert door.backends.metadata.tokens()[0].used == door.clock.now
    door.wait(days=2)
    later[0] += KNOWN_SECONDS
    assert bearer(door, secret) == 401
    door.wait(days=-2)
    assert bearer(door, secret) == 200
    access.revoke_token(door.backends, token.id)
    later[0] += KNOWN_SECONDS
    assert bearer(door, secret) == 401
    with pytest.raises(NotFound):
        access.revoke_token(door.backends, token.id)


def test_a_token_anywhere_but_in_its_header_is_none(door: Door) -> None:
    secret, _ = access.create_token(door.backends, "ada", "ci", ["read"], 2)
    client = door.client()
    for name in ("token", "access_token", "api_key", "authorization"):
        assert client.get(f"/api/v1/jobs?{name}={secret}").status_code == 401
    client.set_cookie("spendscope", secret)
    assert client.get("/api/v1/jobs").status_code == 401
    for header in (f"Basic {secret}", secret, f"Bearer{secret}", f"Token {secret}"):
        assert client.get("/api/v1/jobs", headers={"Authorization": header}).status_code == 401
    for wrong in (secret[:-1], secret + "a", secret.upper(), "spsc_", "spsc_" + "a" * 43):
        assert bearer(door, wrong) == 401


def test_a_token_never_has_more_rights_than_its_user(door: Door) -> None:
    access.add_user(door.backends, "bob", "viewer", frozenset({MINE}), PASSWORD)
    for scope in ("operate", "metrics", "administer"):
        with pytest.raises(Refused):
            access.create_token(door.backends, "bob", "t", ["read", scope], 2)
    for scopes, days in ((["root"], 2), ([], 2), (["read"], 0), (["read"], 366)):
        with pytest.raises(InvalidInput):
            access.create_token(door.backends, "ada", "t", scopes, days)


def test_a_token_may_what_its_user_may_now(door: Door) -> None:
    """Whatever its user could do when it was made."""
    access.add_user(door.backends, "eve", "editor", None, PASSWORD)
    secret, _ = access.create_token(door.backends, "eve", "t", ["read", "operate"], 2)
    at_first = principal_of(door, secret)
    assert (at_first.role, at_first.accounts, at_first.permissions) == ("editor", None, {"read", "operate"})
    eve = access.user_called(door.backends, "eve")
    access.change(door.backends, eve.changed(role="viewer", accounts=frozenset({MINE})))
    now = principal_of(door, secret)
    assert (now.role, now.accounts, now.permissions) == ("viewer", {MINE}, {"read"})
    door.gate.forget_all()
    assert bearer(door, secret) == 200
    told = door.client().post("/api/v1/jobs", json={"kind": "ingest"}, headers={"Authorization": f"Bearer {secret}"})
    assert told.status_code == 403
    access.change(door.backends, access.user_called(door.backends, "eve").changed(role="admin", accounts=None))
    assert principal_of(door, secret).permissions == {"read", "operate"}, "and no more than its scopes"


def principal_of(door: Door, secret: str) -> Principal:
    found = access.principal_of_token(door.backends, access.digest_of(secret))
    assert found is not None
    return found


def test_a_token_may_ask_six_hundred_times_a_minute(door: Door) -> None:
    secret, _ = access.create_token(door.backends, "ada", "ci", ["read"], 2)
    client = door.client()
    statuses = [
        client.get("/api/v1/jobs?limit=1", headers={"Authorization": f"Bearer {secret}"}).status_code
        for _ in range(602)
    ]
    assert statuses == [200] * 600 + [429] * 2


def test_jobs_are_submitted_thirty_times_a_minute(door: Door) -> None:
    client = door.client_of("ada")
    body = {"kind": "ingest", "params": {"key": "2026-11-01.csv"}}
    assert [client.post("/api/v1/jobs", json=body).status_code for _ in range(31)] == [202] * 30 + [429]


def test_keys_that_two_choose_are_two_requests(door: Door) -> None:
    access.add_user(door.backends, "bob", "editor", None, PASSWORD)
    ids = set()
    for name, day in (("ada", 1), ("bob", 2), ("ada", 1)):
        body = {"kind": "ingest", "params": {"key": f"2026-11-0{day}.csv"}}
        answer = door.client_of(name).post("/api/v1/jobs", json=body, headers={"Idempotency-Key": "1"})
        assert answer.status_code == 202
        ids.add(answer.get_json()["id"])
    assert len(ids) == 2


def test_what_changes_something_what_is_exported_and_what_is_refused_is_on_record(door: Door) -> None:
    access.add_user(door.backends, "bob", "viewer", None, PASSWORD)
    before = len(audited(door))
    bob = door.client_of("bob")
    bob.get("/api/v1/costs?start=2026-11-01&end=2026-11-02")
    bob.get("/api/v1/costs?start=2026-11-01&end=2026-11-02&format=csv")
    bob.post("/api/v1/jobs", json={"kind": "ingest", "params": {"key": "2026-11-01.csv"}})
    door.client_of("ada").delete("/api/v1/jobs/x")
    done = [(who.split()[0], what, result) for who, what, result in audited(door)[before:] if what != "sign in"]
    assert done == [
        ("bob", "GET /api/v1/costs", "asked"),
        ("bob", "POST /api/v1/jobs", "refused"),
        ("ada", "DELETE /api/v1/jobs/x", "asked"),
    ]


def test_who_did_what_is_on_record(door: Door) -> None:
    door.sign_in("ada")
    access.create_token(door.backends, "ada", "ci", ["read"], 1)
    assert audited(door) == [
        ("console", "add user", "done"),
        ("ada", "sign in", "done"),
        ("console", "create token", "done"),
    ]
