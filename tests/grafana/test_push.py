"""`spendscope grafana push` against a Grafana that keeps what it is told and answers as its HTTP API documents."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from app.backends import open_metadata
from app.cli import main
from app.config import read_settings
from app.core.budgets import Budget
from app.core.spend import SpendScope
from tests.grafana.standin import TOKEN, Asked, StandIn, problem, served

SLACK, SECRET, INFLUX = "https://hooks.slack.example/T0/secret-path", "hmac-secret", "influx-read-token"
SETTINGS = {
    "GRAFANA_TOKEN": TOKEN,
    "GRAFANA_INFLUXDB_URL": "http://influxdb:8086",
    "GRAFANA_INFLUXDB_TOKEN": INFLUX,
    "PROMETHEUS_URL": "http://prometheus:9090",
    "SPENDSCOPE_ALERT_SLACK_URL": SLACK,
    "SPENDSCOPE_ALERT_WEBHOOK_URL": "https://spend.example.org/hook",
    "SPENDSCOPE_ALERT_WEBHOOK_SECRET": SECRET,
    "SPENDSCOPE_ALERT_EMAILS": "a@example.org;b@example.org",
    "SPENDSCOPE_PUBLIC_URL": "https://spend.example.org",
    "INFLUXDB_BUCKET": "costs",
}


@pytest.fixture
def grafana() -> Iterator[StandIn]:
    with served(StandIn()) as found:
        yield found


def push(grafana: StandIn, *options: str, without: tuple[str, ...] = (), **changed: str) -> Result:
    given = {"GRAFANA_URL": grafana.url, **SETTINGS, **changed}
    environment = {name: None if name in without else value for name, value in given.items()}
    return CliRunner().invoke(main, ["grafana", "push", *options], env=environment)


def one_line(shown: Result, code: int) -> str:
    """The one line of an error, after the steps that were done."""
    assert shown.exit_code == code, shown.output
    line = shown.output.splitlines()[-1]
    assert line.startswith("spendscope: ")
    assert "Traceback" not in shown.output
    for secret in (TOKEN, SECRET, INFLUX, "secret-path"):
        assert secret not in shown.output
    return line


def test_everything_arrives(grafana: StandIn) -> None:
    shown = push(grafana)
    assert shown.exit_code == 0, shown.output
    assert shown.output.splitlines() == [
        "created    folder Spendscope",
        "created    data source InfluxDB",
        "created    dashboard Cloud cost",
        "created    alert rules Spendscope costs",
        "created    data source Prometheus",
        "created    dashboard Spendscope operations",
        "created    alert rules Spendscope operations",
        "created    contact point slack",
        "skipped    contact point teams: set SPENDSCOPE_ALERT_TEAMS_URL",
        "created    contact point webhook",
        "created    contact point email",
        "skipped    contact point back: set SPENDSCOPE_ALERT_BACK_URL and SPENDSCOPE_ALERT_BACK_TOKEN",
        "created    notification policy",
    ]
    source = grafana.datasources["spendscope-influxdb"]
    assert (source["url"], source["jsonData"]["defaultBucket"]) == ("http://influxdb:8086", "costs")
    assert (source["jsonData"]["organization"], source["secureJsonData"]["token"]) == ("spendscope", INFLUX)
    assert grafana.contacts["spendscope-webhook"]["settings"]["hmacConfig"] == {"secret": SECRET}
    assert {contact["name"] for contact in grafana.contacts.values()} == {"Spendscope"}
    (variable,) = [
        v
        for v in grafana.dashboards["spendscope-costs"]["dashboard"]["templating"]["list"]
        if v["name"] == "spendscope"
    ]
    assert variable["query"] == "https://spend.example.org"
    assert "$" not in json.dumps([grafana.contacts, grafana.datasources])
    assert all(asked.headers["authorization"] == f"Bearer {TOKEN}" for asked in grafana.asked)


def state(grafana: StandIn) -> str:
    dashboards = {uid: found["dashboard"] for uid, found in grafana.dashboards.items()}
    sources = {uid: found | {"version": 0} for uid, found in grafana.datasources.items()}
    return json.dumps([grafana.folders, dashboards, sources, repr(grafana.groups), grafana.contacts, grafana.policy])


def test_a_second_push_changes_nothing(grafana: StandIn) -> None:
    push(grafana)
    before, asked = state(grafana), len(grafana.writes())
    shown = push(grafana)
    assert shown.exit_code == 0
    assert state(grafana) == before
    written = [asked.path for asked in grafana.writes()[asked:]]
    # Only what holds secrets, which cannot be read back and compared.
    assert all("/datasources/" in path or "/contact-points/" in path for path in written), written
    assert shown.output.count("unchanged  ") == 6
    assert shown.output.count("updated    ") == 5


def test_what_was_changed_there_is_put_back(grafana: StandIn) -> None:
    push(grafana)
    grafana.dashboards["spendscope-costs"]["dashboard"]["title"] = "Mine"
    grafana.groups["spendscope", "Spendscope costs"]["rules"][0]["for"] = "5d"
    shown = push(grafana)
    assert "updated    dashboard Cloud cost" in shown.output
    assert "updated    alert rules Spendscope costs" in shown.output
    assert grafana.dashboards["spendscope-costs"]["dashboard"]["title"] == "Cloud cost"
    assert grafana.dashboards["spendscope-costs"]["dashboard"]["version"] == 2
    assert grafana.groups["spendscope", "Spendscope costs"]["rules"][0]["for"] == "0s"


def test_a_changed_part_of_a_panel_is_a_change(grafana: StandIn) -> None:
    push(grafana)
    panels = grafana.dashboards["spendscope-costs"]["dashboard"]["panels"]
    panels[1]["fieldConfig"]["defaults"]["thresholds"]["steps"][1]["value"] = 1
    assert "updated    dashboard Cloud cost" in push(grafana).output
    panels = grafana.dashboards["spendscope-costs"]["dashboard"]["panels"]
    panels[2]["fieldConfig"]["overrides"][0]["matcher"]["id"] = "byType"
    assert "updated    dashboard Cloud cost" in push(grafana).output
    assert "unchanged  dashboard Cloud cost" in push(grafana).output


def test_an_address_with_a_password_is_refused(grafana: StandIn) -> None:
    line = one_line(push(grafana, GRAFANA_URL="http://admin:secret-path@grafana:3000"), 2)
    assert "GRAFANA_URL: " in line


def test_a_new_budget_reaches_the_rules(grafana: StandIn) -> None:
    push(grafana)
    shown = push(grafana, "--monthly-budget", "1234.5")
    assert "updated    alert rules Spendscope costs" in shown.output
    rules = {rule["uid"]: rule for rule in grafana.groups["spendscope", "Spendscope costs"]["rules"]}
    assert rules["spendscope-budget-over"]["isPaused"] is False


def test_the_stored_budget_of_everything_reaches_the_rules(grafana: StandIn, tmp_path: Path) -> None:
    here = {"SPENDSCOPE_DATA_DIR": str(tmp_path), "SPENDSCOPE_SOURCE": (tmp_path / "costs").as_uri() + "/"}
    metadata = open_metadata(read_settings(here))
    metadata.prepare()
    at = datetime(2026, 11, 24, tzinfo=UTC)
    for name, amount, more in (
        ("a", 9000, {}),
        ("b", 7000, {}),
        ("c", 10, {"scope": SpendScope(("1",))}),
        ("d", 11, {"period": "yearly"}),
        ("e", 12, {"metric": "unblended_cost"}),
    ):
        metadata.put_budget(replace(Budget(name, name, Decimal(amount), at, ""), **more))
    push(grafana, **here)
    rules = {rule["uid"]: rule for rule in grafana.groups["spendscope", "Spendscope costs"]["rules"]}
    assert limit_of(rules["spendscope-budget-over"]) == 7000
    assert limit_of(rules["spendscope-budget-near"]) == 5600
    push(grafana, "--monthly-budget", "50", **here)
    rules = {rule["uid"]: rule for rule in grafana.groups["spendscope", "Spendscope costs"]["rules"]}
    assert limit_of(rules["spendscope-budget-over"]) == 50


def limit_of(rule: Any) -> float:
    assert rule["isPaused"] is False
    limit: float = rule["data"][-1]["model"]["conditions"][0]["evaluator"]["params"][0]
    return limit


def test_other_branches_of_the_policy_stay(grafana: StandIn) -> None:
    theirs = {"receiver": "theirs", "object_matchers": [["team", "=", "web"]]}
    grafana.policy |= {"routes": [theirs], "repeat_interval": "7h"}
    push(grafana)
    assert grafana.policy["routes"][0]["receiver"] == "Spendscope"
    assert grafana.policy["routes"][1:] == [theirs]
    assert (grafana.policy["receiver"], grafana.policy["repeat_interval"]) == ("grafana-default-email", "7h")
    grafana.policy["routes"][0]["repeat_interval"] = "1m"
    assert "updated    notification policy" in push(grafana).output
    assert [route["receiver"] for route in grafana.policy["routes"]] == ["Spendscope", "theirs"]
    assert "unchanged  notification policy" in push(grafana).output


def test_a_policy_of_another_tool_keeps_its_mark(grafana: StandIn) -> None:
    grafana.provenance = "api"
    assert "created    notification policy" in push(grafana).output
    assert grafana.provenance == "api"


def test_a_policy_from_a_file_is_not_touched(grafana: StandIn) -> None:
    grafana.provenance = "file"
    line = one_line(push(grafana), 1)
    assert "provisioned from a file" in line
    assert "notifications/policy.yaml" in line


def test_a_data_source_from_a_file_is_kept(grafana: StandIn) -> None:
    there = {"uid": "spendscope-influxdb", "name": "Spendscope InfluxDB", "readOnly": True, "version": 4}
    grafana.datasources["spendscope-influxdb"] = there
    assert "kept       data source InfluxDB" in push(grafana).output
    assert grafana.datasources["spendscope-influxdb"] is there


def test_what_is_not_set_is_left_out(grafana: StandIn) -> None:
    left = ("PROMETHEUS_URL", *(name for name in SETTINGS if name.startswith("SPENDSCOPE_ALERT")))
    shown = push(grafana, without=left)
    assert shown.exit_code == 0
    assert "skipped    data source Prometheus: no dashboard of Spendscope itself; set PROMETHEUS_URL" in shown.output
    assert set(grafana.dashboards) == {"spendscope-costs"}
    assert (grafana.contacts, "routes" in grafana.policy) == ({}, False)
    shown = push(grafana, without=("SPENDSCOPE_ALERT_WEBHOOK_SECRET",))
    assert "hmacConfig" not in grafana.contacts["spendscope-webhook"]["settings"]


def test_the_token_that_may_write_is_never_given_away(grafana: StandIn) -> None:
    left = ("GRAFANA_INFLUXDB_TOKEN",)
    line = one_line(push(grafana, without=left, INFLUXDB_TOKEN="may-write", INFLUXDB_URL="http://i:8086"), 2)
    assert "GRAFANA_INFLUXDB_TOKEN, a token that may only read" in line
    grafana.datasources["spendscope-influxdb"] = {"uid": "spendscope-influxdb", "name": "By hand", "version": 1}
    shown = push(grafana, without=left, INFLUXDB_TOKEN="may-write", INFLUXDB_URL="http://i:8086")
    assert "kept       data source InfluxDB" in shown.output
    assert "may-write" not in repr(grafana.asked)


# --- when it does not work ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("missing", ["GRAFANA_URL", "GRAFANA_TOKEN"])
def test_without_an_address_or_a_token_it_says_what_to_set(grafana: StandIn, missing: str) -> None:
    assert missing in one_line(push(grafana, without=(missing,)), 2)
    assert grafana.asked == []


def test_a_wrong_token_is_told_at_once(grafana: StandIn) -> None:
    line = one_line(push(grafana, GRAFANA_TOKEN="wrong"), 1)
    assert f"Grafana at {grafana.url} does not accept GRAFANA_TOKEN (Invalid API key.)" in line
    assert len(grafana.asked) == 1


def test_a_token_that_may_not_is_told_what_it_needs(grafana: StandIn) -> None:
    grafana.role = "Viewer"
    line = one_line(push(grafana), 1)
    assert "403 to POST /api/folders: You'll need additional permissions" in line
    assert "role Admin" in line


def somebody(grafana: StandIn, path: str) -> None:
    """Somebody else saves between our reading and our writing."""

    def save(asked: Asked) -> None:
        if asked.path.startswith(path):
            for found in grafana.dashboards.values():
                found["dashboard"]["version"] += 1
            for source in grafana.datasources.values():
                source["version"] += 1

    grafana.meanwhile = save


@pytest.mark.parametrize(
    ("path", "status"), [("/api/dashboards/db", 412), ("/api/datasources/uid/spendscope-influxdb", 409)]
)
def test_what_somebody_else_changes_meanwhile_is_not_overwritten(grafana: StandIn, path: str, status: int) -> None:
    push(grafana)
    grafana.dashboards["spendscope-costs"]["dashboard"]["title"] = "Mine"
    somebody(grafana, path)
    line = one_line(push(grafana), 1)
    assert f"Grafana answers {status} to " in line
    assert "by someone else" in line
    assert "push again" in line
    assert grafana.dashboards["spendscope-costs"]["dashboard"]["title"] == "Mine"


def test_a_name_that_is_taken_is_said(grafana: StandIn) -> None:
    grafana.folders["other"] = {"uid": "other", "title": "Spendscope"}
    assert "412 to POST /api/folders: a folder with the same name" in one_line(push(grafana), 1)
    grafana.folders.clear()
    grafana.datasources["other"] = {"uid": "other", "name": "Spendscope InfluxDB", "version": 1}
    assert "409 to POST /api/datasources: data source with the same name" in one_line(push(grafana), 1)


def test_a_provisioned_dashboard_is_said(grafana: StandIn) -> None:
    push(grafana)
    found = grafana.dashboards["spendscope-costs"]
    found["meta"]["provisioned"] = True
    found["dashboard"]["title"] = "From an older file"
    assert "400 to POST /api/dashboards/db: Cannot save provisioned dashboard." in one_line(push(grafana), 1)


def test_a_refused_receiver_does_not_repeat_its_secret(grafana: StandIn) -> None:
    line = one_line(push(grafana, SPENDSCOPE_ALERT_SLACK_URL="ftp://secret-path"), 1)
    assert 'url "…" is not valid' in line


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        ((302, {}), "Is GRAFANA_URL"),
        ((404, b"<html>nothing here"), "Is GRAFANA_URL"),
        ((200, b"<html>a page"), "does not answer as Grafana does. Correct GRAFANA_URL"),
        (problem(500, "database\nis locked"), "500 to GET /api/folders/spendscope: database is locked."),
        ((500, b"[]"), "no reason given"),
        (problem(400, "x" * 5000), "x" * 100),
    ],
)
def test_other_answers_are_one_line(grafana: StandIn, answer: Any, said: str) -> None:
    grafana.failing["/api/folders/spendscope"] = [answer] * 3
    line = one_line(push(grafana), 1)
    assert said in line
    assert len(line) < 600


def test_a_busy_server_is_asked_again(grafana: StandIn) -> None:
    grafana.failing["/api/folders/spendscope"] = [problem(503, "starting"), problem(429, "slow down")]
    assert push(grafana).exit_code == 0


def test_a_server_that_stays_busy_is_told(grafana: StandIn) -> None:
    grafana.failing["/api/folders/spendscope"] = [problem(503, "starting")] * 3
    assert "503 to GET /api/folders/spendscope: starting." in one_line(push(grafana), 1)


def test_a_server_that_is_not_there_is_told(grafana: StandIn) -> None:
    line = one_line(push(grafana, GRAFANA_URL="http://127.0.0.1:1/grafana/"), 1)
    assert "Grafana at http://127.0.0.1:1/grafana does not answer" in line


def test_below_a_path(grafana: StandIn) -> None:
    line = one_line(push(grafana, GRAFANA_URL=f"{grafana.url}/grafana/"), 1)
    assert "GET" not in [asked.method for asked in grafana.asked if not asked.path.startswith("/grafana/api/")], line


def test_no_secret_is_logged(grafana: StandIn, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    push(grafana)
    for secret in (TOKEN, SECRET, INFLUX, "secret-path"):
        assert secret not in caplog.text


def test_grafana_is_told_to_hand_its_alerts_back(grafana: StandIn) -> None:
    url = "https://spend.example.org/api/v1/alerts/grafana"
    shown = push(grafana, SPENDSCOPE_ALERT_BACK_URL=url, SPENDSCOPE_ALERT_BACK_TOKEN=SECRET)
    assert "created    contact point back" in shown.output
    assert SECRET not in shown.output
    back = grafana.contacts["spendscope-back"]
    assert (back["type"], back["name"]) == ("webhook", "Spendscope")
    assert back["settings"] == {
        "url": url,
        "httpMethod": "POST",
        "authorization_scheme": "Bearer",
        "authorization_credentials": SECRET,
        "maxAlerts": 100,
    }
