"""What every adapter of ports.People does: users, sessions, tokens, one-time secrets, the audit log."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

from app.core.people import ApiToken, AuditNote, Session, User, broken_at
from app.ports import Metadata

NOW = datetime(2026, 11, 24, 4, 30, 7, 125, tzinfo=UTC)
HOUR = timedelta(hours=1)
HOSTILE = ["a.b", "$where", "'; DROP TABLE user; --", "é💰", "\N{RIGHT-TO-LEFT OVERRIDE}", "null"]


def user(name: str = "ada", **changes: Any) -> User:
    return replace(User(uuid.uuid4().hex, name, "viewer", None, "argon2 hash", NOW), **changes)


def session(user_id: str = "u1", *, at: datetime = NOW, **changes: Any) -> Session:
    return replace(Session(uuid.uuid4().hex, user_id, at, at, "192.0.2.1", "a browser"), **changes)


def token(**changes: Any) -> ApiToken:
    found = ApiToken(uuid.uuid4().hex, uuid.uuid4().hex, "spsc_ab", "ci", "u1", ("read",), NOW, NOW + HOUR)
    return replace(found, **changes)


class PeopleContract:
    # --- users

    def test_a_user_comes_back_as_it_was_given(self, store: Metadata) -> None:
        assert not store.has_users()
        for given in (user(), user("bob", accounts=frozenset({"1", *HOSTILE}), password=None, subject="https://i s")):
            assert store.put_user(given)
            assert store.user(given.id) == store.user_named(given.name) == given
        assert [found.name for found in store.users()] == ["ada", "bob"]
        assert store.has_users()
        assert store.user("nobody") is None
        assert store.user_named("nobody") is None

    def test_a_name_is_taken_once(self, store: Metadata) -> None:
        assert store.put_user(ada := user())
        assert not store.put_user(user())
        assert store.put_user(bob := user("bob"))
        for name in ("ada", "eve"):
            assert not store.put_user(bob.changed(name=name))
        assert store.users() == [ada, bob]

    def test_a_user_is_changed_by_one_of_two(self, store: Metadata) -> None:
        store.put_user(ada := user())
        assert store.put_user(ada.changed(role="editor"))
        assert not store.put_user(ada.changed(role="admin"))
        assert store.user(ada.id) == replace(ada, role="editor", revision=2)

    def test_a_name_of_a_hundred_at_once_is_taken_once(self, store: Metadata) -> None:
        with ThreadPoolExecutor(8) as pool:
            assert sum(pool.map(lambda _: store.put_user(user()), range(40))) == 1

    # --- sessions

    def test_sessions_are_seen_listed_and_ended(self, store: Metadata) -> None:
        first, second, other = session(), session(at=NOW + HOUR), session("u2")
        for given in (first, second, other):
            store.put_session(given)
        store.see_session(first.id, NOW + 2 * HOUR)
        assert store.session(first.id) == replace(first, seen=NOW + 2 * HOUR)
        assert [found.id for found in store.sessions("u1")] == [second.id, first.id]
        assert store.end_session(first.id)
        assert not store.end_session(first.id)
        assert store.session(first.id) is None
        store.see_session(first.id, NOW)
        assert store.session(first.id) is None
        assert store.end_sessions("u1") == 1
        assert store.session(other.id) == other

    def test_sessions_that_are_over_are_forgotten(self, store: Metadata) -> None:
        idle, old, live = session(), session(), session(at=NOW + HOUR)
        for given in (idle, old, live):
            store.put_session(given)
        store.see_session(old.id, NOW + 2 * HOUR)
        store.put_once("gone", "claim", NOW - HOUR, {})
        soon = NOW + timedelta(minutes=1)
        assert store.forget_sessions(seen_before=soon, created_before=NOW - HOUR) == 1
        assert store.forget_sessions(seen_before=NOW, created_before=soon) == 1
        assert store.session(live.id) == live
        assert store.take_once("gone", "claim", NOW - 2 * HOUR) is None

    # --- tokens

    def test_a_token_is_found_used_and_revoked(self, store: Metadata) -> None:
        store.put_token(given := token(scopes=("read", "operate")))
        store.put_token(later := token(created=NOW + HOUR))
        assert store.token(given.sha256) == given
        assert store.token("of nothing") is None
        assert store.tokens() == [later, given]
        store.use_token(given.id, NOW)
        assert store.revoke_token(given.id, NOW + HOUR)
        assert not store.revoke_token(given.id, NOW + 2 * HOUR)
        assert not store.revoke_token("nothing", NOW)
        assert store.token(given.sha256) == replace(given, used=NOW, revoked=NOW + HOUR)

    # --- what is taken once

    def test_a_secret_is_taken_once_before_it_expires(self, store: Metadata) -> None:
        store.put_once("a", "claim", NOW + HOUR, {"x": "$y", "$z": "1"})
        store.put_once("b", "claim", NOW + HOUR, {})
        assert store.take_once("a", "sign-in", NOW) is None
        assert store.take_once("b", "claim", NOW + HOUR) is None
        assert store.take_once("a", "claim", NOW) == {"x": "$y", "$z": "1"}
        assert store.take_once("a", "claim", NOW) is None

    def test_of_many_that_take_it_one_gets_it(self, store: Metadata) -> None:
        store.put_once("a", "claim", NOW + HOUR, {"x": "1"})
        with ThreadPoolExecutor(8) as pool:
            taken = list(pool.map(lambda _: store.take_once("a", "claim", NOW), range(40)))
        assert len([found for found in taken if found]) == 1

    # --- the audit log

    def test_the_audit_log_is_a_chain(self, store: Metadata) -> None:
        assert (store.audit(limit=5), store.audit_length()) == ([], 0)
        notes = [AuditNote(NOW, "ada", "sign in", name, "192.0.2.1", "refused") for name in HOSTILE]
        entries = [store.append_audit(note) for note in notes]
        assert store.audit(limit=100) == entries
        assert [entry.number for entry in entries] == list(range(1, len(HOSTILE) + 1))
        assert broken_at(store.audit(limit=100)) is None
        assert store.audit(limit=2, after=3) == entries[3:5]
        assert store.audit_length() == len(HOSTILE)

    def test_what_many_write_at_once_is_one_chain(self, store: Metadata, open_store: Callable[[], Metadata]) -> None:
        others = [open_store() for _ in range(4)]
        with ThreadPoolExecutor(4) as pool:
            for _ in pool.map(lambda n: others[n % 4].append_audit(AuditNote(NOW, f"w{n}", "x")), range(40)):
                pass
        found = store.audit(limit=100)
        assert len({entry.note.who for entry in found}) == len(found) == 40
        assert broken_at(found) is None
        for other in others:
            other.close()
