"""Budgets, rules and alerts of others are not there: who sees some accounts gets those wholly of them, and no figure more."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from decimal import Decimal
from typing import Any

import pytest

from app.budgets import add_budget, add_rule
from app.core.budgets import Budget
from app.core.rules import Rule
from app.core.spend import SpendScope
from app.judging import judge
from tests.access.conftest import CANARIES, MINE, NOW, OTHER, Door, closed, people

SCOPES = {
    "mine": SpendScope((MINE,)),
    "both": SpendScope((MINE, OTHER)),
    "theirs": SpendScope((OTHER,)),
    "all": SpendScope(),
}


@pytest.fixture(scope="module")
def door(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Door]:
    found = closed(tmp_path_factory.mktemp("budgets"), days=16)
    people(found)
    for name, scope in SCOPES.items():
        made = Budget("", f"budget of {name}", Decimal(10), NOW, "", scope)
        kept = add_budget(found.backends, made, by="ada")
        rule = Rule("", f"rule of {name}", "threshold", NOW, "", on=True, amount=Decimal("0.01"), scope=scope)
        add_rule(found.backends, rule, by="ada")
        burn = Rule("", f"burn of {name}", "budget_burn", NOW, "", on=True, budget=kept.id)
        add_rule(found.backends, burn, by="ada")
    owned = Budget("", "budget of mine for theirs", Decimal(10), NOW, "", SCOPES["mine"], owners=(OTHER,))
    add_budget(found.backends, owned, by="ada")
    for stored in found.backends.metadata.rules():
        assert found.backends.metadata.put_rule(replace(stored, since=None, revision=2))
    judge(found.backends)
    yield found
    found.backends.metadata.close()


def names(door: Door, who: str, path: str) -> set[str]:
    answer = door.client_of(who).get(path)
    assert answer.status_code == 200, answer.text
    if who.endswith("-mine"):
        assert [canary for canary in CANARIES if canary in answer.text] == []
    return {item["name"] for item in answer.json["items"]}


@pytest.mark.parametrize("who", ["viewer-mine", "analyst-mine", "editor-mine"])
def test_only_what_is_wholly_of_ones_accounts_is_there(door: Door, who: str) -> None:
    assert names(door, who, "/api/v1/budgets") == {"budget of mine"}
    assert names(door, who, "/api/v1/rules") == {"rule of mine", "burn of mine"}
    assert names(door, who, "/api/v1/alerts") == {"rule of mine", "burn of mine"}
    assert len(names(door, "viewer", "/api/v1/alerts")) == 8, "two of each scope"


def test_its_figures_are_the_same_as_for_those_who_see_all(door: Door) -> None:
    def mine(who: str) -> dict[str, Any]:
        items = door.client_of(who).get("/api/v1/budgets").json["items"]
        return next(item for item in items if item["name"] == "budget of mine")

    assert mine("viewer-mine") == mine("admin")


@pytest.mark.parametrize("kind", ["budgets", "rules", "alerts"])
def test_one_of_others_is_like_one_that_is_not_there(door: Door, kind: str) -> None:
    visible = {item["id"] for item in door.client_of("viewer-mine").get(f"/api/v1/{kind}").json["items"]}
    for item in door.client_of("admin").get(f"/api/v1/{kind}").json["items"]:
        if item["id"] in visible:
            continue
        path = f"/api/v1/{kind}/{item['id']}"
        client = door.client_of("editor-mine")
        answers = [client.get(path)]
        if kind != "alerts":
            answers += [client.patch(path, json={"revision": 1, "name": "x"}), client.delete(f"{path}?revision=1")]
        if kind == "rules":
            answers.append(client.post(f"{path}/preview"))
        for answer in answers:
            assert answer.status_code == 404, (path, answer.text)
            assert [canary for canary in CANARIES if canary in answer.text] == []
        door.wait(minutes=1)


def test_nobody_sets_up_what_he_would_not_see(door: Door) -> None:
    client = door.client_of("editor-mine")
    for scope in ({}, {"account": [OTHER]}, {"account": [MINE, OTHER]}, {"service": ["Amazon S3"]}):
        budget = {"name": "B", "amount": "5", "scope": scope}
        rule = {"name": "R", "kind": "threshold", "amount": "5", "scope": scope}
        assert client.post("/api/v1/budgets", json=budget).status_code == 403, scope
        assert client.post("/api/v1/rules", json=rule).status_code == 403, scope
        assert client.post("/api/v1/rules/preview", json=rule).status_code == 403, scope
    door.wait(minutes=1)
    kept = client.post("/api/v1/budgets", json={"name": "Own", "amount": "5", "scope": {"account": [MINE]}})
    assert kept.status_code == 201
    path = f"/api/v1/budgets/{kept.json['id']}"
    assert client.patch(path, json={"revision": 1, "scope": {}}).status_code == 403, "it does not grow beyond them"
    assert client.patch(path, json={"revision": 1, "owners": [OTHER]}).status_code == 403
    assert client.delete(f"{path}?revision=1").status_code == 200
    door.wait(minutes=1)


def test_a_preview_of_ones_own_is_about_ones_own(door: Door) -> None:
    rule = {"name": "R", "kind": "threshold", "amount": "0.01", "scope": {"account": [MINE]}}
    shown = door.client_of("editor-mine").post("/api/v1/rules/preview", json=rule)
    assert shown.status_code == 200
    assert shown.json == door.client_of("admin").post("/api/v1/rules/preview", json=rule).json


@pytest.mark.parametrize("who", ["viewer", "analyst"])
def test_to_change_takes_an_editor_and_is_in_the_audit_log(door: Door, who: str) -> None:
    client, editor = door.client_of(who), door.client_of("editor")
    body = {"name": "B", "amount": "5"}
    assert client.post("/api/v1/budgets", json=body).status_code == 403
    kept = editor.post("/api/v1/budgets", json=body).json
    assert kept["by"] == "editor"
    path = f"/api/v1/budgets/{kept['id']}"
    assert client.patch(path, json={"revision": 1, "name": "C"}).status_code == 403
    assert client.delete(f"{path}?revision=1").status_code == 403
    assert editor.delete(f"{path}?revision=1").status_code == 200
    said = {entry.note.what for entry in door.backends.metadata.audit(limit=10_000) if "editor" in entry.note.who}
    assert {"POST /api/v1/budgets", f"DELETE {path}"} <= said
    door.wait(minutes=1)


@pytest.mark.parametrize("search", ["", "?edit=budget", "?edit=rule"])
def test_the_page_shows_what_is_ones_own(door: Door, search: str) -> None:
    name = next(name for name in door.app.callback_map if name.startswith("..budgets-drawn.data"))
    outputs = [{"id": o.component_id, "property": o.component_property} for o in door.app.callback_map[name]["output"]]
    body = {
        "output": name,
        "outputs": outputs,
        "inputs": [
            {"id": "budgets-url", "property": "search", "value": search},
            {"id": "budgets-again", "property": "data", "value": None},
        ],
        "changedPropIds": ["budgets-url.search"],
        "state": [],
    }
    for who in ("viewer-mine", "editor-mine"):
        shown = door.client_of(who).post("/_dash-update-component", json=body)
        assert shown.status_code == 200, shown.text
        assert "budget of mine" in shown.text
        assert [canary for canary in CANARIES if canary in shown.text] == []
        assert ("budget of both" in shown.text, "budget of all" in shown.text) == (False, False)
    assert "?edit=budget" not in door.client_of("viewer-mine").post("/_dash-update-component", json=body).text
