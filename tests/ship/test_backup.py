"""The commands of docs/backup.md that can be run here, run as they stand there."""

from __future__ import annotations

import re
import shlex

import pytest

from app.cli import main
from tests.ship.test_kubernetes import K8S

GUIDE = (K8S.parent / "docs/backup.md").read_text("utf-8")


def commands() -> list[str]:
    """Every `spendscope …` of the guide, up to what the shell does with it."""
    found = re.findall(r"(?<![/\w])spendscope ((?:backup|restore|audit|doctor|query|ingest|status)[^`\n>&#]*)", GUIDE)
    return sorted({line.strip() for line in found})


@pytest.mark.parametrize("line", commands())
def test_the_options_of_the_guide_exist(line: str) -> None:
    name, *words = shlex.split(line)
    known = {option for part in main.commands[name].params for option in part.opts}
    assert {word for word in words if word.startswith("--")} <= known


def test_both_commands_are_in_the_guide() -> None:
    assert {line.split()[0] for line in commands()} >= {"backup", "restore", "ingest", "doctor"}


def test_every_store_and_every_secret_file_of_the_guide_exists() -> None:
    manifests = "".join(path.read_text("utf-8") for path in (K8S / "base").rglob("*.yaml"))
    for path in set(re.findall(r"/run/secrets/[a-z]+/[a-z-]+", GUIDE)):
        assert path in manifests
    for store in ("redis", "mongodb", "influxdb", "grafana"):
        assert re.search(store, GUIDE, re.IGNORECASE)
