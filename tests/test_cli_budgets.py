"""Budgets and rules on the command line: the same as the API, one line each, exit codes."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from decimal import Decimal
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from app.backends import Backends
from app.cli import main
from tests.arrivals import arrive, csv, take

Run = Callable[..., Result]


@pytest.fixture
def run(tmp_path: Path, folder: Path, backends: Backends) -> Run:
    environment = {"SPENDSCOPE_SOURCE": folder.as_uri() + "/", "SPENDSCOPE_DATA_DIR": str(tmp_path / "data")}
    take(backends, arrive(folder, csv("a,S,r,100.25,1,1,1", "b,S,r,10,1,1,1")))
    return lambda *arguments: CliRunner().invoke(main, list(arguments), env=environment)


def ok(result: Result) -> str:
    assert result.exit_code == 0, result.output
    return result.output


def test_a_budget_is_set_changed_listed_and_removed(run: Run, backends: Backends) -> None:
    assert "No budgets" in ok(run("budget", "list"))
    ok(
        run(
            "budget",
            "set",
            "Team",
            "--amount",
            "500.5",
            "--account",
            "a",
            "--threshold",
            "80",
            "--threshold",
            "100:forecast",
        )
    )
    ok(run("budget", "set", "Team", "--amount", "600"))
    [kept] = backends.metadata.budgets()
    assert (kept.amount, kept.revision, kept.scope.account, kept.by) == (Decimal(600), 2, ("a",), "command line")
    assert [(str(one.percent), one.of) for one in kept.thresholds] == [("80", "actual"), ("100", "forecast")]
    assert "600.00 USD monthly" in ok(run("budget", "list"))
    assert json.loads(ok(run("budget", "list", "--json")))["items"][0]["amount"] == "600"
    said = [entry.note.what for entry in backends.metadata.audit(limit=9)]
    assert said == ["set budget", "set budget"]
    ok(run("budget", "remove", "Team"))
    assert backends.metadata.budgets() == []
    assert run("budget", "remove", "Team").exit_code == 1


def test_a_rule_is_previewed_set_and_switched(run: Run, backends: Backends) -> None:
    shown = ok(run("rule", "preview", "x", "--kind", "threshold", "--amount", "50"))
    assert "2026-10-02  2026-10-01" in shown
    assert "With these settings you would have had 1 alert" in shown
    assert backends.metadata.rules() == []
    assert "off; `spendscope rule preview" in ok(run("rule", "set", "Dear", "--kind", "threshold", "--amount", "50"))
    ok(run("rule", "set", "Dear", "--on", "--severity", "critical"))
    assert json.loads(ok(run("rule", "preview", "Dear", "--amount", "5000", "--json")))["alerts"] == 0
    ok(run("rule", "set", "data-stale", "--hours", "30"))
    assert {(one.name, one.on, one.hours) for one in backends.metadata.rules()} == {
        ("Dear", True, None),
        ("Data is stale", True, 30),
    }
    listed = ok(run("rule", "list"))
    assert "critical  threshold" in listed
    assert "source-quarantined" in listed
    assert {one["id"] for one in json.loads(ok(run("rule", "list", "--json")))["items"]} >= {"data-stale"}
    ok(run("rule", "remove", "Dear"))
    assert run("rule", "remove", "data-stale").exit_code == 1


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (("budget", "set", "New"), 2),
        (("budget", "set", "New", "--amount", "lots"), 2),
        (("budget", "set", "New", "--amount", "5", "--threshold", "80:maybe"), 2),
        (("rule", "set", "New"), 2),
        (("rule", "set", "New", "--kind", "magic"), 2),
        (("rule", "set", "New", "--kind", "budget_burn", "--budget", "none"), 1),
        (("rule", "preview", "New"), 2),
        (("rule", "set", "source-quarantined", "--amount", "5"), 2),
    ],
)
def test_what_cannot_be_is_one_line(run: Run, backends: Backends, arguments: tuple[str, ...], code: int) -> None:
    refused = run(*arguments)
    assert (refused.exit_code, refused.output.count("\n")) == (code, 1), refused.output
    assert refused.output.startswith("spendscope: ")
    assert (backends.metadata.budgets(), backends.metadata.rules()) == ([], [])


def test_of_two_with_one_name_the_id_says_which(run: Run, backends: Backends) -> None:
    ok(run("budget", "set", "Team", "--amount", "5"))
    [kept] = backends.metadata.budgets()
    ok(run("budget", "set", "Other", "--amount", "5"))
    other = next(one for one in backends.metadata.budgets() if one.name == "Other")
    assert backends.metadata.put_budget(replace(other, name="Team", revision=2))
    assert "Give the id" in run("budget", "remove", "Team").output
    ok(run("budget", "remove", kept.id))
