"""Dashboards, rules, contact points and policy are what Grafana's published types allow."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
from grafana_foundation_sdk.models import alerting, expr
from grafana_foundation_sdk.models.dashboard import Dashboard

from app.grafana import contacts
from app.grafana.alerts import Group, cost_rules, group_body, operation_rules
from app.grafana.choices import Choices
from app.grafana.dashboards import costs, operations
from tests.grafana.schema import wrong

DASHBOARDS = pytest.mark.parametrize("dashboard", [costs, operations])
GROUPS = pytest.mark.parametrize("group", [cost_rules(Choices()), operation_rules()], ids=lambda group: group.name)


@DASHBOARDS
def test_a_dashboard_is_what_the_schema_allows(dashboard: Callable[[Choices], dict[str, Any]]) -> None:
    assert wrong(dashboard(Choices()), Dashboard) == []


def broken(change: Callable[[dict[str, Any]], Any]) -> dict[str, Any]:
    document = copy.deepcopy(costs(Choices()))
    change(document)
    return document


@pytest.mark.parametrize(
    ("change", "found"),
    [
        (lambda d: d.update(timezon="utc"), ".timezon is unknown"),
        (lambda d: d.update(schemaVersion="41"), ".schema_version: '41' is not int"),
        (lambda d: d["panels"][0]["gridPos"].update(w="wide"), "'wide' is not int"),
        (lambda d: d["panels"][0]["options"].update(graphMode="sometimes"), "'sometimes' is none of"),
        (lambda d: d["panels"][0]["fieldConfig"]["defaults"].update(units="s"), ".units is unknown"),
        (lambda d: d["templating"]["list"][0].update(type="data source"), "'data source' is none of"),
        (lambda d: d["panels"][4]["fieldConfig"]["defaults"]["custom"].update(drawStyle="bar"), "'bar' is none of"),
        (lambda d: d["panels"][4]["fieldConfig"]["defaults"]["custom"].update(fill=1), ".fill is unknown"),
        (lambda d: d["panels"][2]["options"].update(barWidth="wide"), "'wide' is not float"),
        (lambda d: d["links"][0].update(titel="x"), ".titel is unknown"),
    ],
)
def test_what_the_schema_does_not_allow_is_found(change: Callable[[dict[str, Any]], Any], found: str) -> None:
    assert any(found in text for text in wrong(broken(change), Dashboard)), wrong(broken(change), Dashboard)


@GROUPS
def test_rules_are_what_the_api_takes(group: Group) -> None:
    body = group_body(group)
    for rule in body["rules"]:
        # Newer than the published type: keep the last state when the data source does not answer.
        assert rule["execErrState"] == "KeepLast"
        rule["execErrState"] = "Error"
    assert wrong(body, alerting.RuleGroup) == []


@GROUPS
def test_expressions_are_what_grafana_computes(group: Group) -> None:
    kinds = {"reduce": expr.TypeReduce, "threshold": expr.TypeThreshold}
    for rule in group_body(group)["rules"]:
        query, *expressions = rule["data"]
        assert query["relativeTimeRange"]["from"] > query["relativeTimeRange"]["to"] == 0
        assert [part["refId"] for part in rule["data"]] == ["A", "B", "C"]
        assert rule["condition"] == "C"
        for part in expressions:
            assert part["datasourceUid"] == "__expr__"
            assert wrong(part["model"], kinds[part["model"]["type"]]) == []


def test_contact_points_and_policy_are_what_the_api_takes() -> None:
    for receiver in contacts.receivers():
        assert wrong(receiver | {"name": contacts.CONTACT}, alerting.ContactPoint) == []
    assert wrong(contacts.policy(), alerting.NotificationPolicy) == []


@DASHBOARDS
def test_panels_are_on_the_grid_and_do_not_overlap(dashboard: Callable[[Choices], dict[str, Any]]) -> None:
    taken: set[tuple[int, int]] = set()
    for panel in dashboard(Choices())["panels"]:
        place = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not cells & taken, panel["title"]
        assert max(x for x, _ in cells) < 24
        taken |= cells


@DASHBOARDS
def test_every_panel_says_what_it_shows(dashboard: Callable[[Choices], dict[str, Any]]) -> None:
    document = dashboard(Choices())
    assert document["timezone"] == "utc"
    assert document["editable"] is False
    panels = [panel for panel in document["panels"] if panel["type"] != "row"]
    for panel in panels:
        assert panel["title"]
        assert panel["description"].endswith(".")
        assert panel["fieldConfig"]["defaults"]["unit"]
        assert panel["targets"]
    ids = [panel["id"] for panel in document["panels"]]
    assert len(set(ids)) == len(ids)
