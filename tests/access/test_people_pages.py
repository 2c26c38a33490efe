"""The pages about people: own account, users, one-time links, audit log; each by real forms against the whole app."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from datetime import timedelta
from html import unescape
from pathlib import Path
from threading import Barrier, Thread
from typing import Any
from urllib.parse import urlsplit

import pytest
from flask.testing import FlaskClient

from app import access, administration
from app.core.access import Principal
from app.core.people import User, broken_at
from app.errors import Conflict, Refused
from app.gate import KNOWN_SECONDS
from tests.access.conftest import MINE, PASSWORD, Door, closed, form_token, people

NEW = "nine purple lanterns float"
HOSTILE = "<script>alert(1)</script>"


@pytest.fixture(scope="module")
def full(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Door]:
    found = closed(tmp_path_factory.mktemp("people"))
    people(found)
    yield found
    found.backends.metadata.close()


def send(client: FlaskClient, path: str, page: str | None = None, **values: Any) -> Any:
    return client.post(path, data={"form_token": form_token(client, page or path), **values})


def text_of(answer: Any) -> str:
    return unescape(answer.get_data(as_text=True))


def named(door: Door, name: str) -> User:
    found = door.backends.metadata.user_named(name)
    assert found, name
    return found


def user_path(door: Door, name: str) -> str:
    return f"/users/{named(door, name).id}"


def last_notes(door: Door, number: int) -> list[tuple[str, str, str]]:
    entries = door.backends.metadata.audit(limit=10_000)
    assert broken_at(entries) is None
    notes = [entry.note for entry in entries if entry.note.result != "asked"]
    return [(note.who.split(" (")[0], note.what, note.result) for note in notes[-number:]]


def link_in(answer: Any) -> str:
    found = re.search(r'people-secret" tabindex="0">([^<]+)</code>', answer.get_data(as_text=True))
    assert found, answer.get_data(as_text=True)[-1500:]
    return unescape(found[1])


def principal_of(user: User) -> Principal:
    from app.core.access import permitted

    return Principal(f"user:{user.id}", user.name, user.role, user.accounts, permitted(user.role, user.accounts))


# --- users and links ----------------------------------------------------------------------------------------------


def test_an_admin_adds_a_user_who_sets_a_password_by_a_link(door: Door) -> None:
    admin = door.client_of("ada")
    answer = send(admin, "/users", name="Bob", role="analyst", accounts=f"{MINE}, 222222222222")
    link = link_in(answer)
    assert link.startswith("http://127.0.0.1:8050/welcome?code=")
    bob = named(door, "bob")
    assert (bob.role, bob.accounts, bob.password) == ("analyst", {MINE, "222222222222"}, None)
    assert door.sign_in("bob", "").status_code == door.sign_in("bob", PASSWORD).status_code == 401
    page = urlsplit(link)
    client = door.client()
    for _ in range(2):
        assert client.get(f"{page.path}?{page.query}").status_code == 200
    code = page.query.removeprefix("code=")
    token = form_token(client, "/welcome")
    answer = client.post("/welcome", data={"form_token": token, "code": code, "name": "bob", "password": NEW})
    assert (answer.status_code, answer.headers["Location"]) == (303, "/")
    assert client.get("/account").status_code == 200
    assert door.sign_in("bob", NEW).status_code == 303
    door.wait(minutes=1)
    again = client.post(
        "/welcome",
        data={"form_token": form_token(client, "/welcome"), "code": code, "name": "bob", "password": NEW},
    )
    assert again.status_code == 401
    assert {("ada", "add user", "done"), ("ada", "invite user", "done")} <= set(last_notes(door, 9))
    assert ("bob", "set password", "done") in last_notes(door, 6)
    assert last_notes(door, 1) == [("unknown", "set password", "refused")]


@pytest.mark.parametrize("attack", ["name", "code", "late", "weak", "disabled", "another link", "changed since"])
def test_a_link_is_for_one_user_once_in_time(door: Door, attack: str) -> None:
    admin = door.client_of("ada")
    code = link_in(send(admin, "/users", name="bob", role="viewer")).split("code=")[1]
    access.add_user(door.backends, "eve", "admin", None, None)
    name, password, status = "bob", NEW, 401
    if attack == "name":
        name = "eve"
    elif attack == "code":
        code = code[:-1] + ("A" if code[-1] != "A" else "B")
    elif attack == "late":
        door.wait(days=3)
    elif attack == "weak":
        password, status = "password12345", 400
    elif attack == "disabled":
        access.set_disabled(door.backends, "bob", True)
    elif attack == "changed since":
        send(admin, user_path(door, "bob"), do="rights", role="editor")
    elif attack == "another link":
        name = "ada"
    client = door.client()
    values = {"form_token": form_token(client, "/welcome"), "code": code, "name": name, "password": password}
    answer = client.post("/welcome", data=values)
    assert answer.status_code == status
    assert not [c for c in answer.headers.getlist("Set-Cookie") if c.startswith("spendscope=")]
    assert named(door, "bob").password is None
    if attack == "weak":
        values |= {"form_token": form_token(client, "/welcome"), "password": NEW}
        assert client.post("/welcome", data=values).status_code == 303


def test_links_are_guessed_no_faster_than_passwords(door: Door) -> None:
    client = door.client()
    values = {"code": "x", "name": "ada", "password": NEW, "form_token": form_token(client, "/welcome")}
    statuses = [client.post("/welcome", data=values).status_code for _ in range(7)]
    assert statuses == [401] * 5 + [429] * 2


def test_a_new_link_leaves_the_password_until_it_is_used_and_ends_sessions_then(door: Door) -> None:
    access.add_user(door.backends, "bob", "viewer", None, PASSWORD)
    admin, bob = door.client_of("ada"), door.client_of("bob")
    code = link_in(send(admin, user_path(door, "bob"), do="invite")).split("code=")[1]
    assert door.sign_in("bob").status_code == 303
    assert bob.get("/account").status_code == 200
    client = door.client()
    values = {"form_token": form_token(client, "/welcome"), "code": code, "name": "bob", "password": NEW}
    assert client.post("/welcome", data=values).status_code == 303
    door.gate.forget_all()
    assert bob.get("/account").status_code == 303
    assert door.sign_in("bob").status_code == 401


def test_what_cannot_be_added_is_said_on_the_form(door: Door) -> None:
    admin = door.client_of("ada")
    for values, status, said in (
        ({"name": "b/ob", "role": "viewer"}, 400, "is not 1 to 64 of"),
        ({"name": "ada", "role": "viewer"}, 409, "There is a user"),
        ({"name": "bob", "role": "root"}, 400, "root"),
        ({"name": "bob", "role": "admin", "accounts": MINE}, 400, "An admin sees all accounts"),
        ({"name": HOSTILE, "role": "viewer"}, 400, "is not 1 to 64 of"),
        ({"name": "bob", "role": "viewer", "accounts": " ".join(map(str, range(501)))}, 400, "At most 500"),
    ):
        answer = send(admin, "/users", **values)
        assert answer.status_code == status, values
        assert said in text_of(answer)
        assert HOSTILE not in answer.get_data(as_text=True)
    assert [user.name for user in door.backends.metadata.users()] == ["ada"]


def test_role_and_accounts_are_changed_and_count_at_once(door: Door) -> None:
    access.add_user(door.backends, "bob", "admin", None, PASSWORD)
    bob = door.client_of("bob")
    assert bob.get("/users").status_code == 200
    path = user_path(door, "bob")
    answer = send(door.client_of("ada"), path, do="rights", role="viewer", accounts=MINE)
    assert "are changed" in text_of(answer)
    assert bob.get("/users").status_code == 403
    assert (named(door, "bob").role, named(door, "bob").accounts) == ("viewer", {MINE})
    assert last_notes(door, 2)[-1] == ("bob", "GET /users", "refused")


def test_a_user_who_is_shut_out_is_out(door: Door) -> None:
    access.add_user(door.backends, "bob", "viewer", None, PASSWORD)
    admin, bob, path = door.client_of("ada"), door.client_of("bob"), user_path(door, "bob")
    assert bob.get("/account").status_code == 200
    assert "Shut out" in text_of(send(admin, path, do="disable"))
    assert bob.get("/account").status_code == 303
    assert door.sign_in("bob").status_code == 401
    assert "Let in again" in text_of(send(admin, path, do="enable"))
    assert door.sign_in("bob").status_code == 303


def test_sessions_and_tokens_of_others_are_ended(door: Door) -> None:
    access.add_user(door.backends, "bob", "viewer", None, PASSWORD)
    admin, path = door.client_of("ada"), user_path(door, "bob")
    first, second = door.client_of("bob"), door.client_of("bob")
    secret, token = access.create_token(door.backends, "bob", "t", ["read"], 5)
    _, own = access.create_token(door.backends, "ada", "t", ["read"], 5)
    assert first.get("/account").status_code == second.get("/account").status_code == 200
    assert "2 sessions ended" in text_of(send(admin, path, do="end"))
    assert first.get("/account").status_code == second.get("/account").status_code == 303
    bearer = {"headers": {"Authorization": f"Bearer {secret}"}}
    assert door.client().get("/api/v1/jobs", **bearer).status_code == 200
    assert send(admin, path, do="revoke", token=own.id).status_code == 404
    assert "revoked" in text_of(send(admin, path, do="revoke", token=token.id))
    assert door.client().get("/api/v1/jobs", **bearer).status_code == 401


@pytest.mark.parametrize("what", ["disable", "demote"])
def test_the_last_admin_who_can_sign_in_stays(door: Door, what: str) -> None:
    # None of these can do an admin's work.
    access.add_user(door.backends, "bob", "editor", None, PASSWORD)
    access.add_user(door.backends, "invited", "admin", None, None)
    access.add_user(door.backends, "off", "admin", None, PASSWORD)
    access.set_disabled(door.backends, "off", True)
    sso = User("sso1", "gone", "admin", None, None, door.clock.now, subject="https://idp x")
    door.backends.metadata.put_user(sso)
    access.add_user(door.backends, "eve", "admin", None, PASSWORD)
    access.set_disabled(door.backends, "eve", True)
    values = {"do": "disable"} if what == "disable" else {"do": "rights", "role": "viewer"}
    admin = door.client_of("ada")
    answer = send(admin, user_path(door, "ada"), **values)
    assert answer.status_code == 422
    assert ("last admin" if what == "demote" else "yourself out") in text_of(answer)
    # By another one, who was shut out a moment ago and is still known to some process.
    target, asking, visitor = named(door, "ada"), principal_of(named(door, "eve")), access.Visitor()
    take = {
        "disable": lambda: administration.set_disabled(door.backends, asking, target, True, visitor),
        "demote": lambda: administration.change_rights(door.backends, asking, target, "viewer", None, visitor),
    }[what]
    with pytest.raises(Refused, match="last admin"):
        take()
    assert named(door, "ada") == target


def test_two_admins_who_shut_each_other_out_do_not_both_succeed(door: Door) -> None:
    access.add_user(door.backends, "bob", "admin", None, PASSWORD)
    start, failed = Barrier(2), []

    def shut_out(who: str, whom: str) -> None:
        asking, target = principal_of(named(door, who)), named(door, whom)
        start.wait()
        try:
            administration.set_disabled(door.backends, asking, target, True, access.Visitor())
        except (Refused, Conflict) as error:
            failed.append(error)

    for _ in range(5):
        threads = [Thread(target=shut_out, args=pair) for pair in (("ada", "bob"), ("bob", "ada"))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert any(not named(door, name).disabled for name in ("ada", "bob"))
        for name in ("ada", "bob"):
            access.set_disabled(door.backends, name, False)
    assert len(failed) >= 5


def test_that_race_is_undone_when_both_have_looked_first(door: Door, monkeypatch: pytest.MonkeyPatch) -> None:
    """The one order in which looking before is not enough: bob is shut out between ada's look and ada's write."""
    access.add_user(door.backends, "bob", "admin", None, PASSWORD)
    ada, bob = named(door, "ada"), named(door, "bob")
    change = access.change

    def meanwhile(backends: Any, user: User) -> None:
        monkeypatch.setattr(access, "change", change)
        access.set_disabled(door.backends, "bob", True)
        change(backends, user)

    monkeypatch.setattr(access, "change", meanwhile)
    with pytest.raises(Conflict, match="last admin"):
        administration.set_disabled(door.backends, principal_of(bob), ada, True, access.Visitor())
    assert not named(door, "ada").disabled
    assert last_notes(door, 1) == [("bob", "disable user", "undone")]


def test_roles_of_the_providers_people_come_from_their_groups_only(door: Door) -> None:
    person = User("sso1", "grace", "viewer", None, None, door.clock.now, subject="https://idp.example 1")
    door.backends.metadata.put_user(person)
    admin, path = door.client_of("ada"), "/users/sso1"
    page = text_of(admin.get(path))
    assert 'value="rights"' not in page
    assert 'value="invite"' not in page
    for values in ({"do": "rights", "role": "admin"}, {"do": "invite"}):
        assert send(admin, path, **values).status_code == 422
    assert named(door, "grace") == person
    assert "Shut out" in text_of(send(admin, path, do="disable"))


def test_what_is_not_there_is_said_so(door: Door) -> None:
    admin = door.client_of("ada")
    token = form_token(admin, "/users")
    for answer in (admin.get("/users/none"), admin.post("/users/none", data={"form_token": token, "do": "disable"})):
        assert answer.status_code == 404
        assert answer.mimetype == "text/html"
        assert "There is no such user" in text_of(answer)
    assert send(admin, user_path(door, "ada"), do="everything").status_code == 400


# --- who may ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("who", ["viewer", "analyst", "editor", "viewer-mine", "token read", "nobody"])
def test_users_and_audit_are_for_admins(full: Door, who: str) -> None:
    client = full.client_of(who)
    target = user_path(full, "viewer")
    token = form_token(client, "/account") if not who.startswith(("token", "nobody")) else ""
    before = named(full, "viewer")
    for method, path, values in (
        ("GET", "/users", {}),
        ("GET", target, {}),
        ("GET", "/audit", {}),
        ("POST", "/users", {"form_token": token, "name": "eve", "role": "admin"}),
        ("POST", target, {"form_token": token, "do": "rights", "role": "admin"}),
    ):
        answer = client.open(path, method=method, data=values)
        assert answer.status_code in ((303, 401) if who.startswith(("token", "nobody")) else (403,)), (path, method)
    assert named(full, "viewer") == before
    assert full.backends.metadata.user_named("eve") is None


def test_an_admins_form_is_not_sent_by_another_site_or_session(full: Door) -> None:
    admin, other = full.client_of("admin"), full.client_of("admin")
    target = user_path(full, "viewer")
    values = {"do": "disable", "form_token": form_token(admin, "/users")}
    for headers in ({"Sec-Fetch-Site": "cross-site"}, {"Origin": "https://evil.example"}):
        assert admin.post(target, data=values, headers=headers).status_code == 403
    for token in ("", "0" * 64, form_token(other, "/users"), form_token(full.client(), "/login")):
        answer = admin.post(target, data={**values, "form_token": token})
        assert answer.status_code == 403
        assert "too old or not from here" in text_of(answer)
    assert admin.post(target, json=values).status_code in (400, 415)
    assert not named(full, "viewer").disabled


def test_an_open_instance_has_nobody_to_list(tmp_path: Path) -> None:
    client = closed(tmp_path).client()
    for path in ("/users", "/audit", "/account"):
        assert "Open on this machine" in client.get(path).get_data(as_text=True)


# --- one's own password and tokens --------------------------------------------------------------------------------


def test_ones_own_password_is_changed_with_the_old_one_only(door: Door) -> None:
    client, other = door.client_of("ada"), door.client_of("ada")
    for old, new, again, status, said in (
        ("wrong", NEW, NEW, 401, "not your password"),
        (PASSWORD, NEW, NEW + "x", 400, "not typed alike"),
        (PASSWORD, "password1234", "password1234", 400, "tried first"),
        (PASSWORD, "short", "short", 400, "12 to 256"),
    ):
        answer = send(client, "/account/password", "/account", old=old, password=new, again=again)
        assert answer.status_code == status
        assert said in text_of(answer)
        assert new not in answer.get_data(as_text=True)
        door.wait(minutes=1)
    answer = send(client, "/account/password", "/account", old=PASSWORD, password=NEW, again=NEW)
    assert "is changed" in text_of(answer)
    door.gate.forget_all()
    assert client.get("/account").status_code == 200
    assert other.get("/account").status_code == 303
    assert door.sign_in("ada", NEW).status_code == 303
    assert door.sign_in("ada", PASSWORD).status_code == 401
    assert ("ada", "set password", "refused") in last_notes(door, 12)


def test_the_old_password_is_not_guessed_from_inside(door: Door) -> None:
    client = door.client_of("ada")
    values = {"old": "x", "password": NEW, "again": NEW}
    statuses = [send(client, "/account/password", "/account", **values).status_code for _ in range(6)]
    assert statuses == [401] * 5 + [429]


def test_ones_own_tokens_are_made_shown_once_and_revoked(door: Door) -> None:
    client = door.client_of("ada")
    answer = send(client, "/account/tokens", "/account", name=HOSTILE, days="30", scope=["read", "operate"])
    secret = link_in(answer)
    assert HOSTILE not in answer.get_data(as_text=True)
    assert answer.headers["Cache-Control"] == "private, no-store"
    assert secret.startswith("spsc_")
    assert secret not in client.get("/account").get_data(as_text=True)
    [token] = access.tokens_of(door.backends, named(door, "ada").id)
    assert token.scopes == ("operate", "read")
    assert token.expires == door.clock.now + timedelta(days=30)
    bearer = {"headers": {"Authorization": f"Bearer {secret}"}}
    assert door.client().get("/api/v1/jobs", **bearer).status_code == 200
    assert "is revoked" in text_of(send(client, "/account/tokens", "/account", revoke=token.id))
    assert door.client().get("/api/v1/jobs", **bearer).status_code == 401
    done = [note for note in last_notes(door, 6) if "token" in note[1]]
    assert done == [("ada", "create token", "done"), ("ada", "revoke token", "done")]


def test_nobody_makes_a_token_that_may_more_or_touches_anothers(door: Door) -> None:
    access.add_user(door.backends, "bob", "viewer", frozenset({MINE}), PASSWORD)
    _, hers = access.create_token(door.backends, "ada", "t", ["read"], 5)
    bob = door.client_of("bob")
    for values, status in (
        ({"name": "t", "days": "30", "scope": ["administer"]}, 422),
        ({"name": "t", "days": "30", "scope": ["read", "metrics"]}, 422),
        ({"name": "t", "days": "366", "scope": ["read"]}, 400),
        ({"name": "t", "days": "-1", "scope": ["read"]}, 400),
        ({"name": "t", "days": "9" * 30, "scope": ["read"]}, 400),
        ({"name": "t", "days": "30"}, 400),
        ({"name": "", "days": "30", "scope": ["read"]}, 400),
        ({"name": "t", "days": "30", "scope": ["root"]}, 400),
        ({"revoke": hers.id}, 404),
    ):
        assert send(bob, "/account/tokens", "/account", **values).status_code == status, values
        door.wait(minutes=1)
        bob = door.client_of("bob")
    assert access.tokens_of(door.backends, named(door, "bob").id) == []
    assert len(access.tokens_of(door.backends, named(door, "ada").id)) == 1


def test_a_token_cannot_make_tokens(full: Door) -> None:
    client = full.client_of("token read")
    for path in ("/account/tokens", "/account/password", "/users", "/logout"):
        assert client.post(path, data={"name": "x"}).status_code == 401


# --- the audit log ------------------------------------------------------------------------------------------------


def test_the_audit_log_is_shown_newest_first_in_pages_and_parts(door: Door, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(administration, "AUDIT_WINDOW", 60)
    admin = door.client_of("ada")
    for n in range(230):
        who = "mallory" if n % 100 == 7 else f"user{n % 3}"
        access.note(
            door.backends, who, "did", f"thing {n} {HOSTILE}", "192.0.2.1", "refused" if n % 50 == 0 else "done"
        )
    seen: list[int] = []
    path = "/audit"
    while path:
        page = admin.get(path).get_data(as_text=True)
        assert HOSTILE not in page
        seen += [int(number) for number in re.findall(r"<tr><td>(\d+)</td>", page)]
        found = re.search(r'href="([^"]+)" rel="next"', page)
        path = unescape(found[1]) if found else ""
    assert seen == list(range(door.backends.metadata.audit_length(), 0, -1))
    rows = re.findall(r"thing (\d+) ", text_of(admin.get("/audit?who=MALL")))
    assert rows == ["207", "107", "7"]
    rows = re.findall(r"thing (\d+) ", text_of(admin.get("/audit?result=refused&what=thing")))
    assert rows == [str(n) for n in range(200, -1, -50)]
    assert "Nothing like that." in text_of(admin.get("/audit?who=nobody-did-this"))


@pytest.mark.parametrize(
    ("query", "status"),
    [
        ("before=x", 422),
        ("before=-1", 422),
        ("before=0", 200),
        ("before=999999999999", 200),
        ("result=x", 400),
        (f"who={HOSTILE}&what=%00%0a", 200),
        ("before=²", 422),
    ],
)
def test_odd_questions_to_the_audit_log_get_an_answer(full: Door, query: str, status: int) -> None:
    answer = full.client_of("admin").get(f"/audit?{query}")
    assert answer.status_code == status
    assert HOSTILE not in answer.get_data(as_text=True)


def test_a_long_log_is_looked_through_in_parts(door: Door, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(administration, "AUDIT_WINDOW", 10)
    monkeypatch.setattr(administration, "MOST_WINDOWS", 2)
    access.note(door.backends, "mallory", "did")
    number = door.backends.metadata.audit_length()
    for _ in range(45):
        access.note(door.backends, "ada", "did")
    before, rounds = None, 0
    while True:
        page = administration.audit_page(door.backends, who="mallory", before=before)
        rounds += 1
        if page.entries:
            break
        assert page.before is not None
        before = page.before
    assert page.entries[0].number == number
    assert rounds == 3


# --- for all of these pages ---------------------------------------------------------------------------------------


def test_pages_about_people_run_no_script_and_are_kept_nowhere(full: Door) -> None:
    admin = full.client_of("admin")
    for path in ("/account", "/users", user_path(full, "viewer"), "/audit", "/welcome?code=x"):
        answer = admin.get(path)
        assert answer.status_code == 200, path
        assert "no-store" in answer.headers["Cache-Control"]
        policy = answer.headers["Content-Security-Policy"]
        assert policy.startswith("default-src 'none'; script-src 'sha256-")
        assert "unsafe" not in policy
        assert answer.get_data(as_text=True).count("<script") == 1


def test_an_error_of_these_pages_is_a_page(full: Door) -> None:
    viewer = full.client_of("viewer")
    answer = viewer.get("/users")
    assert (answer.status_code, answer.mimetype) == (403, "text/html")
    assert "permission administer" in text_of(answer)
    later = time.monotonic() + KNOWN_SECONDS
    full.gate.ticks = lambda: later


def test_while_the_store_is_down_they_say_so(tmp_path: Path) -> None:
    from dataclasses import replace

    from app.web import create_app
    from tests.fakes import Down

    door = closed(tmp_path, host="0.0.0.0")
    client = create_app(replace(door.backends, metadata=Down("metadata"))).server.test_client()
    answer = client.get("/login")
    assert (answer.status_code, answer.mimetype) == (503, "text/html")
    assert int(answer.headers["Retry-After"]) > 0
    door.backends.metadata.close()
