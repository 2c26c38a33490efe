"""Budgets and rules over HTTP: the same figures as costs, one editor at a time, and what a rule would have said."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import date, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from flask.testing import FlaskClient
from hypothesis import given, settings
from hypothesis import strategies as st

from app.backends import Backends
from app.judging import judge
from tests import found
from tests.api.conftest import ACCOUNTS, NOW, SERVICES, World, client_of, empty_backends
from tests.api.schema import problems_of

BUDGETS, RULES, ALERTS = "/api/v1/budgets", "/api/v1/rules", "/api/v1/alerts"
TEAM = {"name": "Team", "amount": "1000.50", "scope": {"account": [ACCOUNTS[0]], "service": [SERVICES[1]]}}
SPEND = {"name": "Over", "kind": "threshold", "per": "day", "amount": "700"}


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return found.built_once(tmp_path_factory)


@pytest.fixture
def backends(built: Path, tmp_path: Path) -> Iterator[Backends]:
    with found.copied(built, tmp_path / "root") as copy:
        yield copy


@pytest.fixture
def client(backends: Backends) -> FlaskClient:
    return client_of(backends)


def fits(client: FlaskClient, value: Any, name: str) -> list[str]:
    whole = client.get("/api/v1/openapi.json").json
    return problems_of(value, whole["components"]["schemas"][name], whole)


def made(client: FlaskClient, path: str, body: dict[str, Any]) -> dict[str, Any]:
    answer = client.post(path, json=body)
    assert answer.status_code == 201, answer.text
    assert answer.headers["ETag"] == '"1"'
    return answer.json  # type: ignore[no-any-return]


# --- budgets --------------------------------------------------------------------------------------------------------


def test_a_budget_is_kept_with_its_figures(client: FlaskClient) -> None:
    kept = made(client, BUDGETS, {"name": "All", "amount": "20000"})
    assert fits(client, kept, "BudgetAnswer") == []
    assert client.get(f"{BUDGETS}/{kept['id']}").json == kept
    assert client.get(BUDGETS).json == {"items": [kept]}
    burn = kept["burn"]
    whole = client.get("/api/v1/costs", query_string={"start": "2026-10-01", "end": "2026-11-01"}).json["total"]
    assert (burn["start"], burn["end"], burn["spent"]) == ("2026-10-01", "2026-11-01", whole)
    assert burn["projected"]["breach"] is None or burn["projected"]["breach"] > "2026-10-16"
    assert kept["thresholds"] == [
        {"percent": "80", "of": "actual"},
        {"percent": "100", "of": "actual"},
        {"percent": "100", "of": "forecast"},
    ]


@settings(max_examples=15)
@given(
    account=st.lists(st.sampled_from(ACCOUNTS), unique=True),
    service=st.lists(st.sampled_from(SERVICES), unique=True),
    metric=st.sampled_from(["amortized_cost", "unblended_cost", "blended_cost"]),
    period=st.sampled_from(["monthly", "quarterly", "yearly"]),
)
def test_a_burn_is_the_total_of_the_costs_answer_to_the_last_digit(
    world: World, account: list[str], service: list[str], metric: str, period: str
) -> None:
    from app.budgets import budget_figures
    from app.core.budgets import Budget
    from app.core.spend import SpendScope
    from app.costs import snapshot

    asked = Budget("b", "B", Decimal(1), NOW, "", SpendScope.of(account, service), metric, period)  # type: ignore[arg-type]
    figures = budget_figures(snapshot(world.backends), asked, NOW.date() - timedelta(days=1), NOW.date())
    query = [("start", str(figures.days.start)), ("end", str(figures.days.end)), ("metric", metric)]
    query += [("account", one) for one in account] + [("service", one) for one in service]
    answer = world.client.get("/api/v1/costs", query_string=query).json
    assert answer["total"] == (None if figures.spent is None else f"{figures.spent:f}".rstrip("0").rstrip("."))
    if metric == "blended_cost" and "@at" in service:
        assert figures.unknown is not None
        assert "blended_cost" in figures.unknown
    else:
        assert (figures.spent is None) == (figures.unknown is not None)


def test_where_nothing_is_stored_a_burn_says_so_and_is_not_nothing(empty: World) -> None:
    kept = empty.client.post(BUDGETS, json={"name": "All", "amount": "5"}).json
    burn = kept["burn"]
    assert (burn["spent"], burn["percent"], burn["projected"]) == (None, None, None)
    assert burn["unknown"] == burn["not_projected"] == "Nothing is stored yet."


def test_two_editors_do_not_overwrite_each_other(client: FlaskClient) -> None:
    kept = made(client, BUDGETS, TEAM)
    path = f"{BUDGETS}/{kept['id']}"
    first = client.patch(path, json={"revision": 1, "amount": "2000"})
    assert (first.status_code, first.headers["ETag"], first.json["amount"]) == (200, '"2"', "2000")
    second = client.patch(path, json={"revision": 1, "name": "Mine"})
    assert (second.status_code, second.json["code"]) == (409, "conflict")
    assert "revision 2, not 1" in second.json["detail"]
    third = client.patch(path, json={"name": "Mine"}, headers={"If-Match": '"2"'})
    assert (third.json["name"], third.json["amount"], third.json["revision"]) == ("Mine", "2000", 3)
    same = client.patch(path, json={"name": "Mine", "revision": 3})
    assert same.json["revision"] == 3, "what changes nothing is no change"
    assert client.patch(path, json={"name": "x"}).status_code == 400
    assert client.patch(path, json={"name": "x", "revision": 2}, headers={"If-Match": '"3"'}).status_code == 400
    assert client.delete(path, query_string={"revision": 2}).status_code == 409
    assert client.delete(path, headers={"If-Match": '"3"'}).json == {"items": []}
    assert client.get(path).status_code == 404


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"amount": "5"}, "name"),
        ({"name": "A", "amount": 5}, "amount"),
        ({"name": "A", "amount": "5,00"}, "amount"),
        ({"name": "A", "amount": "1_000"}, "amount"),
        ({"name": "A", "amount": "0"}, "amount"),
        ({"name": "A", "amount": "-1"}, "amount"),
        ({"name": "A", "amount": "NaN"}, "amount"),
        ({"name": "A", "amount": "1e20"}, "amount"),
        ({"name": "A", "amount": "1.005"}, "amount"),
        ({"name": "", "amount": "5"}, "name"),
        ({"name": "a\x00b", "amount": "5"}, "name"),
        ({"name": "A", "amount": "5", "period": "weekly"}, "period"),
        ({"name": "A", "amount": "5", "metric": "usage_quantity"}, "metric"),
        ({"name": "A", "amount": "5", "scope": {"account": [""]}}, "account"),
        ({"name": "A", "amount": "5", "scope": {"team": ["x"]}}, "scope.team"),
        ({"name": "A", "amount": "5", "thresholds": [{"percent": "0", "of": "actual"}]}, "percent"),
        ({"name": "A", "amount": "5", "thresholds": [{"percent": "80"}, {"percent": "80"}]}, "thresholds"),
        ({"name": "A", "amount": "5", "colour": "red"}, "colour"),
    ],
)
def test_a_wrong_budget_is_named(world: World, body: dict[str, Any], field: str) -> None:
    before = world.backends.metadata.budgets()
    answer = world.client.post(BUDGETS, json=body)
    assert (answer.status_code, answer.mimetype) == (400, "application/problem+json"), answer.text
    assert answer.json["field"] == field
    assert world.backends.metadata.budgets() == before


# --- rules ----------------------------------------------------------------------------------------------------------


def test_built_in_rules_can_be_changed_and_switched_off_but_not_removed(client: FlaskClient) -> None:
    listed = client.get(RULES).json
    assert fits(client, listed, "RuleList") == []
    assert [(one["id"], one["on"], one["revision"]) for one in listed["items"]] == [
        ("data-stale", True, 0),
        ("source-quarantined", True, 0),
    ]
    assert listed["items"][0]["hours"] == 48
    changed = client.patch(f"{RULES}/data-stale", json={"revision": 0, "hours": 30, "severity": "info"}).json
    assert (changed["hours"], changed["severity"], changed["revision"]) == (30, "info", 1)
    off = client.patch(f"{RULES}/source-quarantined", json={"revision": 0, "on": False}).json
    assert (off["on"], off["revision"]) == (False, 1)
    removed = client.delete(f"{RULES}/data-stale", query_string={"revision": 1})
    assert (removed.status_code, removed.json["code"]) == (422, "refused")
    again = client.post(RULES, json={"name": "Second", "kind": "source_quarantined"})
    assert again.status_code == 422


def test_a_rule_is_off_until_it_is_switched_on_and_tells_from_then(client: FlaskClient, backends: Backends) -> None:
    kept = made(client, RULES, SPEND)
    assert (kept["on"], kept["metric"], kept["since"]) == (False, "amortized_cost", str(found.NOW.date()))
    judge(backends)
    assert client.get(ALERTS, query_string={"rule": kept["id"]}).json["items"] == []
    assert client.patch(f"{RULES}/{kept['id']}", json={"revision": 1, "kind": "change"}).status_code == 400
    on = client.patch(f"{RULES}/{kept['id']}", json={"revision": 1, "on": True}).json
    assert (on["on"], on["revision"]) == (True, 2)


def test_a_preview_counts_and_lists_and_keeps_nothing(client: FlaskClient) -> None:
    answer = client.post(f"{RULES}/preview", json=SPEND)
    assert answer.status_code == 200
    assert fits(client, answer.json, "PreviewAnswer") == []
    # The spike of tests.found begins on SPIKE and goes on.
    assert answer.json["alerts"] == 1
    assert answer.json["sentence"].startswith("With these settings you would have had 1 alert since 2026-08-02")
    [one] = answer.json["items"]
    assert (one["start"], one["fired"], one["state"]) == (
        str(found.SPIKE),
        str(found.SPIKE + timedelta(days=1)),
        "open",
    )
    assert len(client.get(RULES).json["items"]) == 2
    kept = made(client, RULES, SPEND)
    assert client.post(f"{RULES}/{kept['id']}/preview").json == answer.json
    assert client.post(f"{RULES}/preview", json={**SPEND, "amount": "99999"}).json["alerts"] == 0


def test_a_change_and_a_budget_are_previewed(client: FlaskClient) -> None:
    change = {"name": "Jump", "kind": "change", "amount": "100", "percent": "30"}
    items = client.post(f"{RULES}/preview", json=change).json["items"]
    assert [one["start"] for one in items] == [str(found.SPIKE)]
    kept = made(client, BUDGETS, {"name": "All", "amount": "20000"})
    burn = client.post(f"{RULES}/preview", json={"name": "Burn", "kind": "budget_burn", "budget": kept["id"]}).json
    assert {(one["part"], one["start"]) for one in burn["items"]} >= {
        ("actual 80", "2026-08-01"),
        ("actual 80", "2026-09-01"),
    }
    assert ("actual 100", "2026-09-01") not in {(one["part"], one["start"]) for one in burn["items"]}


def test_stale_data_and_refused_files_are_previewed(client: FlaskClient, backends: Backends) -> None:
    stale = client.post(f"{RULES}/data-stale/preview").json
    # The newest day is 16 October, and it is the 20th.
    assert [one["start"] for one in stale["items"]] == [str(found.LAST)]
    assert client.post(f"{RULES}/source-quarantined/preview").json["alerts"] == 0


def test_of_nothing_stored_nothing_is_said(empty: World) -> None:
    answer = empty.client.post(f"{RULES}/preview", json=SPEND).json
    assert (answer["alerts"], answer["items"]) == (None, [])
    assert answer["sentence"] == "Nothing is stored yet, so nothing can be said of the past."


@pytest.mark.parametrize(
    ("body", "status", "field"),
    [
        ({**SPEND, "amount": None}, 400, "amount"),
        ({**SPEND, "hours": 5}, 400, "hours"),
        ({**SPEND, "kind": "magic"}, 400, "kind"),
        ({**SPEND, "per": "year"}, 400, "per"),
        ({**SPEND, "severity": "loud"}, 400, "severity"),
        ({"name": "B", "kind": "budget_burn"}, 400, "budget"),
        ({"name": "B", "kind": "budget_burn", "budget": "none"}, 404, None),
    ],
)
def test_a_wrong_rule_is_named(world: World, body: dict[str, Any], status: int, field: str | None) -> None:
    for path in (RULES, f"{RULES}/preview"):
        answer = world.client.post(path, json=body)
        assert (answer.status_code, answer.json.get("field")) == (status, field), answer.text


def test_a_budget_that_a_rule_is_about_stays(client: FlaskClient) -> None:
    kept = made(client, BUDGETS, TEAM)
    burn = made(client, RULES, {"name": "Burn", "kind": "budget_burn", "budget": kept["id"]})
    refused = client.delete(f"{BUDGETS}/{kept['id']}?revision=1")
    assert (refused.status_code, "'Burn'" in refused.json["detail"]) == (422, True)
    assert client.delete(f"{RULES}/{burn['id']}?revision=1").status_code == 200
    assert client.delete(f"{BUDGETS}/{kept['id']}?revision=1").status_code == 200


# --- alerts ---------------------------------------------------------------------------------------------------------


def test_alerts_are_listed_and_filtered(client: FlaskClient, backends: Backends) -> None:
    kept = made(client, RULES, {**SPEND, "on": True})
    # As if it had been on since the spring.
    stored = backends.metadata.rule(kept["id"])
    assert stored is not None
    assert backends.metadata.put_rule(replace(stored, since=date(2026, 1, 1), revision=2))
    judge(backends)
    listed = client.get(ALERTS).json
    assert fits(client, listed, "AlertList") == []
    assert {one["kind"] for one in listed["items"]} == {"threshold", "data_stale"}
    [mine] = client.get(ALERTS, query_string={"rule": kept["id"], "state": "open"}).json["items"]
    assert (mine["start"], mine["last"], mine["state"]) == (str(found.SPIKE), str(found.LAST), "open")
    assert client.get(f"{ALERTS}/{mine['id']}").json == mine
    assert client.get(f"{ALERTS}/nothing").status_code == 404
    assert client.get(ALERTS, query_string={"state": "loud"}).status_code == 400


def test_an_empty_store_has_no_alerts(tmp_path: Path) -> None:
    backends = empty_backends(tmp_path / "root")
    assert client_of(backends).get(ALERTS).json == {"items": [], "next_cursor": None}
    assert judge(backends).new == 0
    backends.metadata.close()
