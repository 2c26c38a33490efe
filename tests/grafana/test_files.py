"""The folder grafana/ is what the code writes, twice the same, and what Grafana and Spendscope agree on."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner

from app.cli import main
from app.config import Settings, environment_name, read_settings
from app.grafana.alerts import cost_rules, operation_rules
from app.grafana.choices import Choices, choices_from
from app.grafana.dashboards import costs, operations
from app.grafana.files import export, files
from tests.grafana.queries import texts

ROOT = Path(__file__).parents[2]


def stored(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and path.name != "README.md"
    }


def test_the_folder_is_what_the_code_writes() -> None:
    found, wanted = stored(ROOT / "grafana"), files(choices_from(read_settings({})))
    assert set(found) == set(wanted), "run `spendscope grafana export`"
    for name, content in wanted.items():
        assert found[name] == content, f"{name} differs: run `spendscope grafana export`"


def test_a_second_export_changes_no_byte(tmp_path: Path) -> None:
    first = export(tmp_path, Choices())
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    assert set(first) == set(stored(tmp_path))
    assert export(tmp_path, Choices()) == []
    assert before == {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}


def test_what_was_changed_by_hand_is_written_again_and_the_rest_is_left(tmp_path: Path) -> None:
    export(tmp_path, Choices())
    (tmp_path / "notifications/slack.yaml").write_text("mine")
    (tmp_path / "mine.yaml").write_text("mine")
    assert export(tmp_path, Choices()) == ["notifications/slack.yaml"]
    assert (tmp_path / "mine.yaml").read_text() == "mine"


def test_the_command_says_what_it_wrote(tmp_path: Path) -> None:
    out = tmp_path / "deep" / "grafana"
    shown = CliRunner().invoke(main, ["grafana", "export", "--out", str(out), "--monthly-budget", "2500.5"])
    assert shown.exit_code == 0
    assert f"written    {out / 'provisioning/alerting/costs.yaml'}" in shown.output
    assert CliRunner().invoke(main, ["grafana", "export", "--out", str(out), "--monthly-budget", "2500.5"]).output == (
        f"{out} is up to date\n"
    )
    rules = {rule["uid"]: rule for rule in read(stored(out)["provisioning/alerting/costs.yaml"])["groups"][0]["rules"]}
    limits = {uid: rules[uid]["data"][2]["model"]["conditions"][0]["evaluator"]["params"] for uid in rules}
    assert limits["spendscope-budget-near"] == [2000.4]
    assert limits["spendscope-budget-over"] == [2500.5]
    assert not rules["spendscope-budget-over"]["isPaused"]


def test_a_folder_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    shown = CliRunner().invoke(main, ["grafana", "export", "--out", str(tmp_path / "file" / "below")])
    assert shown.exit_code == 2
    assert shown.output.startswith("spendscope: ")
    assert "--out" in shown.output
    assert shown.output.count("\n") == 1


@pytest.mark.parametrize("amount", ["0", "-1", "much", "nan", "inf", "1e30", "1,000", ""])
def test_a_budget_that_is_none_is_refused(tmp_path: Path, amount: str) -> None:
    shown = CliRunner().invoke(main, ["grafana", "export", "--out", str(tmp_path), f"--monthly-budget={amount}"])
    assert shown.exit_code == 2
    assert f"--monthly-budget {amount!r} is not an amount" in shown.output
    assert stored(tmp_path) == {}


UIDS = {
    "spendscope-costs",
    "spendscope-operations",
    "spendscope-influxdb",
    "spendscope-prometheus",
    "spendscope",
    "spendscope-slack",
    "spendscope-teams",
    "spendscope-webhook",
    "spendscope-email",
    "spendscope-back",
    "spendscope-spend-spike",
    "spendscope-budget-near",
    "spendscope-budget-over",
    "spendscope-data-stale",
    "spendscope-anomaly",
    "spendscope-down",
    "spendscope-part-down",
    "spendscope-no-worker",
    "spendscope-no-new-day",
    "spendscope-quarantined",
    "spendscope-job-stuck",
    "spendscope-jobs-failed",
    "spendscope-queue-long",
    "spendscope-errors",
    "spendscope-slow",
}
"""A uid that changes leaves the old thing behind in every Grafana there is."""


def read(content: bytes) -> Any:
    return yaml.safe_load(content)


def uids(document: Any) -> set[str]:
    if isinstance(document, list):
        return {uid for part in document for uid in uids(part)}
    if not isinstance(document, dict):
        return set()
    own = {value for key, value in document.items() if key in ("uid", "folderUid") and isinstance(value, str)}
    return own | {uid for value in document.values() for uid in uids(value)}


def test_uids_stay() -> None:
    found = {uid for content in files(Choices()).values() for uid in uids(read(content))}
    assert found - {"${influxdb}", "${prometheus}", "__expr__"} == UIDS
    assert all(len(uid) <= 40 and re.fullmatch(r"[A-Za-z0-9_-]+", uid) for uid in UIDS), "Grafana's limit"


def test_choices_reach_what_they_are_about() -> None:
    chosen = Choices("https://costs.example.org/spend", "EUR", settling_days=4, monthly_budget=Decimal("12.5"))
    dashboard = costs(chosen)
    units = {panel["fieldConfig"]["defaults"]["unit"] for panel in dashboard["panels"] if "fieldConfig" in panel}
    assert units == {"currencyEUR", "s", "short", "string"}
    (spendscope,) = [v for v in dashboard["templating"]["list"] if v["name"] == "spendscope"]
    assert spendscope["current"]["value"] == "https://costs.example.org/spend"
    rules = {rule.uid: rule for rule in cost_rules(chosen).rules}
    assert "date.sub(d: 5d, from: today())" in rules["spendscope-spend-spike"].query.text
    assert (rules["spendscope-budget-near"].limit, rules["spendscope-budget-over"].limit) == (10.0, 12.5)
    assert rules["spendscope-budget-over"].more["spendscope"] == "https://costs.example.org/spend/?period=mtd"
    assert costs(Choices(currency="XAU"))["panels"][0]["fieldConfig"]["defaults"]["unit"] == "suffix: XAU"


def test_a_budget_that_was_not_given_wakes_nobody() -> None:
    paused = {rule.uid for rule in cost_rules(Choices()).rules if rule.paused}
    assert paused == {"spendscope-budget-near", "spendscope-budget-over"}
    assert not any(rule.paused for rule in cost_rules(Choices(monthly_budget=Decimal(1))).rules)


def test_secrets_are_only_names_of_settings() -> None:
    names = {environment_name(name) for name in Settings.model_fields}
    placeholders = set()
    for name, content in files(Choices()).items():
        if name.startswith(("provisioning/datasources", "operations/prometheus", "notifications")):
            placeholders |= {text for text in texts(read(content)) if "$" in text}
    assert {text.removeprefix("$") for text in placeholders} <= names
    assert {"$INFLUXDB_TOKEN", "$PROMETHEUS_URL", "$SPENDSCOPE_ALERT_SLACK_URL"} <= placeholders


def test_what_grafana_expands_in_rules_has_no_dollar() -> None:
    """Labels and titles are expanded as environment variables are, annotations and models are not."""
    for group in (cost_rules(Choices()), operation_rules()):
        for rule in group.rules:
            core = rule.core()
            assert not [text for text in texts({**core["labels"], "title": core["title"]}) if "$" in text]
            assert not re.findall(r"\$\{", "".join(texts(core["annotations"])))


def test_every_rule_points_to_a_panel_there_is() -> None:
    panels = {(d["uid"], panel["id"]) for d in (costs(Choices()), operations(Choices())) for panel in d["panels"]}
    for group in (cost_rules(Choices()), operation_rules()):
        for rule in group.rules:
            assert rule.panel in panels, rule.uid


def test_dashboards_are_json_as_people_read_it() -> None:
    for name, content in files(Choices()).items():
        if name.endswith(".json"):
            document = json.loads(content)
            assert (document["id"], document["schemaVersion"]) == (None, 41)
        else:
            assert content.startswith(b"# Written by `spendscope grafana export`")
            assert read(content)["apiVersion"] in (
                1,
                "kustomize.config.k8s.io/v1beta1",
                "kustomize.config.k8s.io/v1alpha1",
            )


def built(folder: Path) -> dict[str, set[str]]:
    """ConfigMap → its files, as kubectl builds a kustomization."""
    shown = subprocess.run(["kubectl", "kustomize", str(folder)], capture_output=True, text=True, check=True)
    return {o["metadata"]["name"].rsplit("-", 1)[0]: set(o["data"]) for o in yaml.safe_load_all(shown.stdout)}


@pytest.mark.skipif(shutil.which("kubectl") is None, reason="needs kubectl")
def test_kubernetes_mounts_what_is_provisioned(tmp_path: Path) -> None:
    export(tmp_path / "grafana", Choices())
    base = {
        "grafana-datasources": {"influxdb.yaml"},
        "grafana-providers": {"spendscope.yaml"},
        "grafana-alerting": {"costs.yaml"},
        "grafana-dashboards": {"spendscope-costs.json"},
    }
    assert built(tmp_path / "grafana") == base
    (overlay := tmp_path / "overlay").mkdir()
    (overlay / "kustomization.yaml").write_text("resources: [../grafana]\ncomponents: [../grafana/operations]\n")
    added = {
        "grafana-datasources": {"prometheus.yaml"},
        "grafana-providers": set(),
        "grafana-alerting": {"operations.yaml"},
        "grafana-dashboards": {"spendscope-operations.json"},
    }
    assert built(overlay) == {name: base[name] | added[name] for name in base}
