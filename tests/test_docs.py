"""What is written twice agrees: settings, their table and .env.example; version and changelog; lock files."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import app
from app.config import Settings, environment_name, read_settings

ROOT = Path(__file__).parent.parent


def shown_default(name: str) -> str:
    default = Settings.model_fields[name].default
    if isinstance(default, bool):
        return str(default).lower()
    return "" if default is None else str(default)


def test_every_setting_is_in_the_table_with_its_default_and_sentence() -> None:
    table = (ROOT / "docs/settings.md").read_text("utf-8")
    rows = dict(re.findall(r"^\| `([A-Z_]+)` \| (.*) \|$", table, re.MULTILINE))
    expected = {
        environment_name(name): f"{f'`{shown_default(name)}`' if shown_default(name) else ''} | {field.description}"
        for name, field in Settings.model_fields.items()
    }
    assert rows == expected


def test_env_example_names_every_setting_and_changes_nothing() -> None:
    lines = (ROOT / ".env.example").read_text("utf-8").splitlines()
    named = {line.lstrip("# ").split("=")[0]: line for line in lines if re.match(r"#? ?[A-Z_]+=", line)}
    assert set(named) == {environment_name(name) for name in Settings.model_fields}
    given = dict(line.lstrip("# ").split("=", 1) for line in named.values())
    assert read_settings(given) == read_settings({})


def test_the_changelog_has_this_version() -> None:
    assert f"## [{app.__version__}]" in (ROOT / "CHANGELOG.md").read_text("utf-8")


@pytest.mark.parametrize(
    ("name", "packages"),
    [
        ("requirements.lock", 20),
        ("requirements-dev.lock", 20),
        ("requirements-mongo-test.lock", 5),
        ("requirements-uv.lock", 0),
    ],
)
def test_the_lock_has_hashes_and_no_addresses(name: str, packages: int) -> None:
    text = (ROOT / name).read_text("utf-8")
    assert "://" not in text
    pinned = re.findall(r"^([a-z0-9][a-z0-9._-]*)(\[.*\])?==", text, re.MULTILINE)
    assert len(pinned) > packages
    for block in re.split(r"\n(?=[a-z0-9])", text[text.index("\n", text.index("==") - 40) :]):
        if "==" in block.split("\n")[0]:
            assert "--hash=sha256:" in block, block[:60]


def test_the_npm_lock_has_no_addresses_of_packages() -> None:
    text = (ROOT / "package-lock.json").read_text("utf-8")
    assert '"resolved"' not in text
    assert '"node_modules/@influxdata/flux-lsp-node"' in text


def test_the_server_of_the_mongodb_tests_is_in_no_other_lock() -> None:
    assert "\nsecantusdb==" in (ROOT / "requirements-mongo-test.lock").read_text("utf-8")
    for name in ("requirements.lock", "requirements-dev.lock"):
        assert "secantus" not in (ROOT / name).read_text("utf-8"), name


def test_every_dependency_has_a_decision() -> None:
    decisions = (ROOT / "docs/decisions.md").read_text("utf-8")
    for line in (ROOT / "requirements.in").read_text("utf-8").splitlines():
        name = re.match(r"[a-z0-9-]+", line)
        if name:
            assert f"`{name[0]}`" in decisions, name[0]
