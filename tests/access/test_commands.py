"""`spendscope user`, `token`, `audit`; the secret key; and what refuses to start."""

from __future__ import annotations

import stat
import threading
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from app import serve
from app.backends import open_backends
from app.cli import main
from app.config import read_settings
from app.errors import CannotStart
from app.launcher import check_sign_in
from app.secretkey import secret_key
from tests.access.conftest import PASSWORD

KEY = "0123456789abcdef" * 4


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setenv("SPENDSCOPE_DATA_DIR", str(tmp_path))

    def command(*arguments: str, given: str | None = None) -> Result:
        return CliRunner().invoke(main, arguments, input=given)

    return command


def test_users_are_added_listed_disabled_and_given_new_passwords(run: Any, tmp_path: Path) -> None:
    assert run("user", "add", "Ada", "--role", "admin", given=PASSWORD + "\n").exit_code == 0
    (tmp_path / "password").write_text(PASSWORD + "\n")
    added = run("user", "add", "bob", "--account", "1", "--account", "2", "--password-file", str(tmp_path / "password"))
    assert (added.exit_code, added.output) == (0, "bob may sign in as viewer, accounts 1, 2\n")
    assert [line.split()[:3] for line in run("user", "list").output.splitlines()] == [
        ["ada", "admin", "active"],
        ["bob", "viewer", "active"],
    ]
    assert run("user", "disable", "bob").exit_code == 0
    assert "disabled" in run("user", "list").output
    assert run("user", "disable", "bob", "--undo").exit_code == 0
    assert run("user", "passwd", "bob", given="another long password\n").exit_code == 0
    assert run("audit", "--verify").exit_code == 0
    assert "set password bob: done" in run("audit").output


@pytest.mark.parametrize(
    ("arguments", "given", "code", "said"),
    [
        (["user", "add", "ada"], "short\n", 2, "12 to 256"),
        (["user", "add", "a b"], PASSWORD, 2, "name 'a b'"),
        (["user", "add", "eve", "--role", "admin", "--account", "1"], PASSWORD, 2, "sees all accounts"),
        (["user", "add", "eve", "--role", "root"], PASSWORD, 2, "root"),
        (["user", "passwd", "nobody"], PASSWORD, 1, "no user 'nobody'"),
        (["user", "disable", "nobody"], None, 1, "no user 'nobody'"),
        (["token", "create", "ci", "--user", "nobody"], None, 1, "no user 'nobody'"),
        (["token", "create", "ci", "--user", "ada", "--scope", "root"], None, 2, "root"),
        (["token", "create", "ci", "--user", "ada", "--days", "400"], None, 2, "400"),
        (["token", "revoke", "nothing"], None, 1, "no token 'nothing'"),
    ],
)
def test_what_cannot_be_is_one_line(run: Any, arguments: list[str], given: str | None, code: int, said: str) -> None:
    run("user", "add", "ada", "--role", "admin", given=PASSWORD)
    found = run(*arguments, given=given)
    assert found.exit_code == code, found.output
    assert said in found.output
    assert "Traceback" not in found.output
    assert PASSWORD not in found.output


def test_a_name_is_taken_once(run: Any) -> None:
    assert run("user", "add", "ada", given=PASSWORD).exit_code == 0
    again = run("user", "add", "ADA", given=PASSWORD)
    assert (again.exit_code, "already" in again.output) == (1, True)


def test_a_token_is_shown_once_and_revoked(run: Any) -> None:
    run("user", "add", "ada", "--role", "admin", given=PASSWORD)
    made = run("token", "create", "ci", "--user", "ada", "--scope", "read", "--scope", "metrics")
    secret = made.stdout.strip()
    assert secret.startswith("spsc_")
    listed = run("token", "list").output
    assert secret not in listed
    assert "active" in listed
    assert run("token", "revoke", listed.split()[0]).exit_code == 0
    assert "revoked" in run("token", "list").output
    assert secret not in run("audit").output


def test_tampering_with_the_log_is_seen(run: Any, tmp_path: Path) -> None:
    import sqlite3

    for name in ("ada", "bob", "eve"):
        run("user", "add", name, given=PASSWORD)
    store = sqlite3.connect(tmp_path / "sample/store/metadata.sqlite")
    for change in ("DELETE FROM audit WHERE number = 2", "UPDATE audit SET document = '{}' WHERE number = 2"):
        with pytest.raises(sqlite3.DatabaseError, match="never"):
            store.execute(change)
    store.execute("DROP TRIGGER audit_is_kept")
    store.execute("DELETE FROM audit WHERE number = 2")
    store.commit()
    store.close()
    found = run("audit", "--verify")
    assert (found.exit_code, "entry 3" in found.output) == (1, True)


# --- the secret key -----------------------------------------------------------------------------------------------


def test_one_machine_makes_its_own_key_for_itself_only(tmp_path: Path) -> None:
    settings = read_settings({}, data_dir=tmp_path / "data")
    made = secret_key(settings)
    assert len(made) == 64
    assert secret_key(settings) == made
    assert stat.S_IMODE((tmp_path / "data/secret-key").stat().st_mode) == 0o600
    assert [path.name for path in (tmp_path / "data").iterdir()] == ["secret-key"]


def test_of_many_that_make_a_key_all_have_the_same(tmp_path: Path) -> None:
    settings, found = read_settings({}, data_dir=tmp_path), []
    threads = [threading.Thread(target=lambda: found.append(secret_key(settings))) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 16
    assert len(set(found)) == 1


@pytest.mark.parametrize("key", ["short", "x" * 64, "abab" * 20])
def test_an_easy_key_is_refused(tmp_path: Path, key: str) -> None:
    with pytest.raises(CannotStart, match="SPENDSCOPE_SECRET_KEY") as refused:
        secret_key(read_settings({"SPENDSCOPE_SECRET_KEY": key}, data_dir=tmp_path))
    assert key not in refused.value.message


def test_several_machines_must_be_given_a_key(tmp_path: Path) -> None:
    given = {"MONGODB_URI": "mongodb://127.0.0.1:1", "SPENDSCOPE_HOST": "0.0.0.0"}
    with pytest.raises(CannotStart, match="SPENDSCOPE_SECRET_KEY is missing"):
        secret_key(read_settings(given, data_dir=tmp_path))


# --- beyond loopback ----------------------------------------------------------------------------------------------


def beyond(tmp_path: Path, **given: str) -> Any:
    return read_settings({"SPENDSCOPE_HOST": "0.0.0.0", **given}, data_dir=tmp_path)


def test_where_nobody_could_sign_in_nothing_starts(tmp_path: Path, run: Any) -> None:
    with pytest.raises(CannotStart, match="nobody could sign in"):
        check_sign_in(beyond(tmp_path))
    run("user", "add", "ada", given=PASSWORD)
    check_sign_in(beyond(tmp_path))
    run("user", "disable", "ada")
    with pytest.raises(CannotStart, match="nobody could sign in"):
        check_sign_in(beyond(tmp_path, SPENDSCOPE_SECRET_KEY=KEY))


def test_where_it_is_not_known_nothing_starts(tmp_path: Path) -> None:
    path = tmp_path / "sample/store/metadata.sqlite"
    path.parent.mkdir(parents=True)
    path.write_bytes(b"no database at all" * 100)
    with pytest.raises(CannotStart, match="not known"):
        check_sign_in(beyond(tmp_path, SPENDSCOPE_SECRET_KEY=KEY))


def test_the_first_admins_token_is_printed_and_nowhere_else(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG")
    settings = beyond(tmp_path, SPENDSCOPE_SECRET_KEY=KEY, SPENDSCOPE_PUBLIC_URL="https://costs.example.org/")
    check_sign_in(settings)
    backends = open_backends(settings)
    serve.make_ready(backends)
    said = capfd.readouterr()
    assert "https://costs.example.org/claim" in said.err
    secret = said.err.split("\n\n")[1].strip()
    assert len(secret) == 43
    assert secret not in said.out + caplog.text
    for path in tmp_path.rglob("*"):
        assert not path.is_file() or secret.encode() not in path.read_bytes()


def test_on_loopback_nothing_is_printed(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    serve.make_ready(open_backends(read_settings({}, data_dir=tmp_path)))
    assert capfd.readouterr().err == ""
