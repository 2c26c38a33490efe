"""Settings: read once, all wrong values at once, secrets from files and never shown."""

from __future__ import annotations

from pathlib import Path

import pytest

from app.config import read_settings
from app.errors import CannotStart


def test_options_win_over_the_environment() -> None:
    assert read_settings({"SPENDSCOPE_PORT": "1"}, port=2).port == 2
    assert read_settings({"SPENDSCOPE_PORT": "1"}, port=None).port == 1


def test_every_wrong_value_is_named_at_once() -> None:
    with pytest.raises(CannotStart) as wrong:
        read_settings({"SPENDSCOPE_PORT": "many", "SPENDSCOPE_CURRENCY": "dollars", "SPENDSCOPE_SOURCE": "ftp://x"})
    for name in ("SPENDSCOPE_PORT", "SPENDSCOPE_CURRENCY", "SPENDSCOPE_SOURCE"):
        assert name in str(wrong.value)
    assert "SPENDSCOPE_PORT 'many': " in str(wrong.value)
    assert "ftp" not in str(wrong.value), "a text may hold a password"


@pytest.mark.parametrize("name", ["RETENTION_DAYS", "LEASE_SECONDS", "RESTATEMENT_NOTICE_PERCENT", "DEMO", "WORKERS"])
def test_a_wrong_number_is_shown(name: str) -> None:
    with pytest.raises(CannotStart, match=f"SPENDSCOPE_{name} 'ten': "):
        read_settings({f"SPENDSCOPE_{name}": "ten"})


@pytest.mark.parametrize("name", ["RETENTION_DAYS", "KEEP_JOBS_DAYS", "WATCH_SECONDS", "JOB_TIMEOUT_SECONDS"])
def test_a_number_of_days_or_seconds_that_no_calendar_holds_is_refused(name: str) -> None:
    with pytest.raises(CannotStart, match=f"SPENDSCOPE_{name} '99999999999': .* less than or equal to"):
        read_settings({f"SPENDSCOPE_{name}": "99999999999"})


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("PORT", "web", "'web': must be a whole number, written in digits"),
        ("PORT", "99999", "'99999': must be less than or equal to 65535"),
        ("RESTATEMENT_NOTICE_PERCENT", "much", "'much': must be a number, written in digits"),
        ("LEASE_SECONDS", "long", "'long': must be a number, written in digits"),
        ("DEMO", "maybe", "'maybe': must be true or false"),
    ],
)
def test_a_wrong_setting_says_what_it_must_be(name: str, value: str, said: str) -> None:
    with pytest.raises(CannotStart, match=f"^SPENDSCOPE_{name} {said}$"):
        read_settings({f"SPENDSCOPE_{name}": value})


@pytest.mark.parametrize("value", ["usd", "EURO", "\N{EURO SIGN}", "EUR\n"])
def test_a_wrong_currency_is_told_how_to_write_it(value: str) -> None:
    with pytest.raises(CannotStart, match="SPENDSCOPE_CURRENCY: write it as three capital letters"):
        read_settings({"SPENDSCOPE_CURRENCY": value})


def test_an_empty_variable_is_the_default() -> None:
    assert read_settings({"SPENDSCOPE_PORT": ""}).port == 8050


def test_a_secret_may_come_from_a_file(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("s3cret\n")
    settings = read_settings({"INFLUXDB_TOKEN_FILE": str(tmp_path / "token")})
    assert settings.influxdb_token is not None
    assert settings.influxdb_token.get_secret_value() == "s3cret"
    assert "s3cret" not in repr(settings)
    with pytest.raises(CannotStart, match="INFLUXDB_TOKEN_FILE"):
        read_settings({"INFLUXDB_TOKEN_FILE": str(tmp_path / "none")})


def test_retention_follows_the_store_unless_it_is_set() -> None:
    assert read_settings({}).retention == 0
    assert read_settings({"INFLUXDB_URL": "http://127.0.0.1:8086"}).retention == 180
    assert read_settings({"INFLUXDB_URL": "http://127.0.0.1:8086", "SPENDSCOPE_RETENTION_DAYS": "0"}).retention == 0


def test_the_sample_is_served_only_without_a_source() -> None:
    assert read_settings({}).serves_demo
    assert not read_settings({"SPENDSCOPE_SOURCE": "s3://bucket/costs"}).serves_demo
    assert read_settings({"SPENDSCOPE_SOURCE": "s3://bucket/costs"}).source == "s3://bucket/costs/"
