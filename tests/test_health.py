"""`doctor`: what is wrong, what is worth a note, and how to mend it."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from app.config import read_settings
from app.errors import CannotStart
from app.health import _sign_on, examine
from tests.identityprovider import FakeProvider, fake_provider


@pytest.fixture
def closed_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def test_an_events_queue_that_is_down_is_a_note_and_the_source_is_wrong(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, closed_port: int
) -> None:
    for name, value in {"AWS_ACCESS_KEY_ID": "x", "AWS_SECRET_ACCESS_KEY": "x", "AWS_REGION": "eu-west-1"}.items():
        monkeypatch.setenv(name, value)
    settings = read_settings(
        {},
        source="s3://bucket/costs/",
        aws_endpoint_url=f"http://127.0.0.1:{closed_port}",
        events_queue=f"http://127.0.0.1:{closed_port}/1/costs",
        data_dir=tmp_path,
        watch_seconds=60,
    )
    found = {finding.part: finding for finding in examine(settings)}
    assert found["source"].verdict == "wrong"
    assert "never listed" in found["source"].sentence
    assert found["events"].verdict == "note"
    assert "found by listing, every 60 s" in found["events"].sentence


def test_the_sample_that_nobody_has_written_yet_is_no_fault(tmp_path: Path, closed_port: int) -> None:
    found = examine(read_settings({}, data_dir=tmp_path, port=closed_port))
    assert [finding.verdict for finding in found if finding.part == "source"] == ["note"]
    assert "wrong" not in [finding.verdict for finding in found if finding.part in ("source", "queue", "workers")]


# --- single sign-on -----------------------------------------------------------------------------------------------


def sign_on_findings(tmp_path: Path, provider: FakeProvider, **settings: str) -> list[tuple[str, str]]:
    given = {
        "SPENDSCOPE_DATA_DIR": str(tmp_path),
        "SPENDSCOPE_PORT": "0",
        "SPENDSCOPE_OIDC_ISSUER": provider.issuer,
        "SPENDSCOPE_OIDC_CLIENT_ID": "spendscope",
        "SPENDSCOPE_OIDC_ROLES": "admins=admin",
        **settings,
    }
    return [(found.verdict, found.sentence) for found in _sign_on(read_settings(given))]


def test_doctor_asks_the_identity_provider(tmp_path: Path) -> None:
    with fake_provider(lambda: 0.0) as provider:
        [(verdict, sentence)] = sign_on_findings(tmp_path, provider)
        assert verdict == "ok"
        assert "2 keys" in sentence
        assert sentence.endswith("http://127.0.0.1:8050/login/callback")
        for settings, expected, said in (
            ({"SPENDSCOPE_PUBLIC_URL": "http://costs.example.org"}, "wrong", "is not https"),
            ({"SPENDSCOPE_PUBLIC_URL": "https://costs.example.org"}, "ok", "answers with"),
            ({"SPENDSCOPE_OIDC_ROLES": "a=viewer"}, "note", "makes nobody an admin"),
            ({"SPENDSCOPE_OIDC_ROLES": ""}, "wrong", "nobody could sign in"),
            ({"SPENDSCOPE_OIDC_CLIENT_ID": ""}, "wrong", "CLIENT_ID is not"),
            ({"SPENDSCOPE_OIDC_ISSUER": f"{provider.issuer}/"}, "wrong", "letter by letter"),
            ({"SPENDSCOPE_OIDC_ISSUER": f"{provider.issuer}/realms/x"}, "wrong", "answered 404"),
            ({"SPENDSCOPE_OIDC_ISSUER": "http://127.0.0.1:9"}, "wrong", "does not answer"),
            ({"SPENDSCOPE_OIDC_SCOPES": "profile"}, "wrong", "does not hold `openid`"),
            ({"SPENDSCOPE_OIDC_ISSUER": "", "SPENDSCOPE_LOCAL_LOGIN": "false"}, "wrong", "nobody could sign in"),
            ({"SPENDSCOPE_OIDC_ISSUER": ""}, "ok", "No single sign-on"),
        ):
            verdict, sentence = sign_on_findings(tmp_path, provider, **settings)[-1]
            assert (verdict, said in sentence) == (expected, True), (settings, sentence)


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("ISSUER", "http://login.example.org", "only https"),
        ("ISSUER", "https://u:p@login.example.org", "without a user"),
        ("ISSUER", "https://login.example.org?x=1", "without a user"),
        ("ISSUER", "login.example.org", "without a user"),
        ("ROLES", "a=root", "has no role"),
        ("ROLES", "a", "is not group=role"),
    ],
)
def test_wrong_settings_of_single_sign_on_are_named_at_start(name: str, value: str, said: str) -> None:
    with pytest.raises(CannotStart, match=f"SPENDSCOPE_OIDC_{name}.*{said}"):
        read_settings({f"SPENDSCOPE_OIDC_{name}": value})
