"""The OpenAPI document says what the API does: every route is in it, and every answer is what it says."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from typing import Any

import pytest
from flask import Flask

from app.api.problems import TITLES
from tests.api.conftest import END, FIRST, World
from tests.api.schema import problems_of
from tests.contracts import budgets as kept
from tests.contracts.metadata import anomaly

RANGE = f"start={FIRST}&end={END}"
UNDOCUMENTED = {"/static/<path:filename>"}


@pytest.fixture(scope="module")
def document(world: World) -> dict[str, Any]:
    answer = world.client.get("/api/v1/openapi.json")
    assert answer.content_type == "application/json"
    found: dict[str, Any] = answer.json  # type: ignore[assignment]
    return found


def rules(server: Flask) -> set[tuple[str, str]]:
    return {
        (method.lower(), re.sub(r"<(\w+)>", r"{\1}", rule.rule))
        for rule in server.url_map.iter_rules()
        if rule.rule not in UNDOCUMENTED and rule.endpoint != "api.unknown_path"
        for method in (rule.methods or set()) - {"HEAD", "OPTIONS"}
    }


def test_every_route_is_documented_and_every_documented_route_is_there(world: World, document: dict[str, Any]) -> None:
    written = {(method, path) for path, methods in document["paths"].items() for method in methods}
    assert written == rules(world.client.application)


def test_the_document_is_openapi_3_1(document: dict[str, Any]) -> None:
    assert document["openapi"] == "3.1.0"
    assert {"title", "version"} <= set(document["info"])
    names = [operation["operationId"] for methods in document["paths"].values() for operation in methods.values()]
    assert len(names) == len(set(names))
    for path, methods in document["paths"].items():
        for operation in methods.values():
            inside = {p["name"] for p in operation["parameters"] if p["in"] == "path"}
            assert inside == set(re.findall(r"{(\w+)}", path))
            assert all(p["required"] for p in operation["parameters"] if p["in"] == "path")
            assert all(p["schema"] and p["description"] for p in operation["parameters"])
            assert all(re.fullmatch("[1-5][0-9][0-9]", status) for status in operation["responses"])
            assert all(answer["description"] for answer in operation["responses"].values())
            assert operation["summary"]


def test_every_reference_leads_somewhere(document: dict[str, Any]) -> None:
    def references(part: Any) -> set[str]:
        if isinstance(part, dict):
            own = {part["$ref"]} if isinstance(part.get("$ref"), str) else set()
            return own.union(*(references(value) for value in part.values()))
        return set().union(*(references(item) for item in part)) if isinstance(part, list) else set()

    found = references(document)
    assert found
    known = {f"#/components/schemas/{name}" for name in document["components"]["schemas"]}
    assert found == known, "and no schema is unused"


def example_requests(world: World) -> dict[tuple[str, str], list[tuple[int, str, Any]]]:
    """(method, documented path) → requests with the status they must get: at least one for each."""
    # Not one that was superseded: the source has no file of it any more.
    ingestion = world.get("/api/v1/ingestions", status="ingested").json["items"][0]["id"]
    body = {"kind": "ingest", "params": {"key": "2026-09-01.csv"}}
    job = world.client.post("/api/v1/jobs", json=body).json
    assert job is not None
    world.backends.metadata.put_anomaly(anomaly())
    alert = {"status": "firing", "fingerprint": "f", "startsAt": "2026-11-05T10:00:00Z", "panelURL": "https://g/d"}
    planned = {"start": str(FIRST), "end": str(END), "reason": "Migration"}
    return {
        ("get", "/api/v1/costs"): [
            (200, f"/api/v1/costs?{RANGE}&group_by=service,region&top=4&limit=50", None),
            (200, f"/api/v1/costs?{RANGE}&granularity=total&metric=blended_cost&group_by=service", None),
            (200, f"/api/v1/costs?{RANGE}&metric=usage_quantity&format=csv", None),
            (400, "/api/v1/costs?start=1", None),
        ],
        ("get", "/api/v1/costs/compare"): [
            (200, f"/api/v1/costs/compare?{RANGE}&group_by=service&top=3", None),
            (200, f"/api/v1/costs/compare?{RANGE}&baseline_start=2001-01-01&baseline_end=2001-01-02", None),
            (400, f"/api/v1/costs/compare?{RANGE}&baseline_start=2001-01-01", None),
        ],
        ("get", "/api/v1/costs/forecast"): [
            (200, "/api/v1/costs/forecast?days=3", None),
            (400, "/api/v1/costs/forecast?days=0", None),
        ],
        ("get", "/api/v1/dimensions/{name}"): [
            (200, "/api/v1/dimensions/service?limit=3", None),
            (404, "/api/v1/dimensions/x", None),
        ],
        ("get", "/api/v1/coverage"): [(200, f"/api/v1/coverage?start={FIRST}&end=2026-11-08", None)],
        ("get", "/api/v1/ingestions"): [(200, "/api/v1/ingestions", None), (400, "/api/v1/ingestions?status=x", None)],
        ("get", "/api/v1/ingestions/{id}"): [
            (200, f"/api/v1/ingestions/{ingestion}", None),
            (404, "/api/v1/ingestions/x", None),
        ],
        ("get", "/api/v1/ingestions/{id}/file"): [
            (200, f"/api/v1/ingestions/{ingestion}/file", None),
            (404, "/api/v1/ingestions/x/file", None),
        ],
        ("get", "/api/v1/restatements"): [
            (200, f"/api/v1/restatements?{RANGE}&limit=20", None),
            (200, f"/api/v1/restatements?{RANGE}&metric=blended_cost&format=csv", None),
            (400, f"/api/v1/restatements?{RANGE}&metric=x", None),
        ],
        ("get", "/api/v1/restatements/movement"): [(200, f"/api/v1/restatements/movement?{RANGE}", None)],
        ("get", "/api/v1/reconciliation"): [
            (200, "/api/v1/reconciliation?month=2026-10", None),
            (200, "/api/v1/reconciliation?month=2026-10&format=csv", None),
            (400, "/api/v1/reconciliation?month=2026-13", None),
        ],
        ("get", "/api/v1/notices"): [(200, "/api/v1/notices", None), (400, "/api/v1/notices?kind=x", None)],
        ("get", "/api/v1/anomalies"): [(200, "/api/v1/anomalies", None), (400, "/api/v1/anomalies?state=x", None)],
        ("get", "/api/v1/anomalies/{id}"): [(200, "/api/v1/anomalies/one", None), (404, "/api/v1/anomalies/x", None)],
        ("patch", "/api/v1/anomalies/{id}"): [
            (200, "/api/v1/anomalies/one", {"state": "expected"}),
            (400, "/api/v1/anomalies/one", {"state": "dismissed"}),
            (404, "/api/v1/anomalies/x", {"state": "expected"}),
        ],
        ("get", "/api/v1/planned-spend"): [(200, "/api/v1/planned-spend", None)],
        ("post", "/api/v1/planned-spend"): [
            (201, "/api/v1/planned-spend", planned),
            (400, "/api/v1/planned-spend", {}),
        ],
        ("delete", "/api/v1/planned-spend/{id}"): [(404, "/api/v1/planned-spend/x", None)],
        ("get", "/api/v1/alerts/grafana"): [
            (200, "/api/v1/alerts/grafana?status=firing", None),
            (400, "/api/v1/alerts/grafana?status=x", None),
        ],
        ("post", "/api/v1/alerts/grafana"): [
            (200, "/api/v1/alerts/grafana", {"alerts": [alert]}),
            (400, "/api/v1/alerts/grafana", {}),
        ],
        **example_budget_requests(world),
        ("get", "/api/v1/notifications"): [
            (200, "/api/v1/notifications?channel=x&limit=9", None),
            (400, "/api/v1/notifications?status=x", None),
        ],
        ("get", "/api/v1/notifications/channels"): [(200, "/api/v1/notifications/channels", None)],
        ("post", "/api/v1/notifications/test"): [
            (404, "/api/v1/notifications/test", {"channel": "x"}),
            (400, "/api/v1/notifications/test", {}),
        ],
        ("post", "/api/v1/notifications/{id}/retry"): [(404, "/api/v1/notifications/x/retry", None)],
        ("post", "/api/v1/jobs"): [
            (202, "/api/v1/jobs", body),
            (400, "/api/v1/jobs", {}),
            (422, "/api/v1/jobs", {"kind": "scan"}),
        ],
        ("get", "/api/v1/jobs"): [(200, "/api/v1/jobs", None)],
        ("get", "/api/v1/jobs/{id}"): [(200, f"/api/v1/jobs/{job['id']}", None), (404, "/api/v1/jobs/x", None)],
        ("delete", "/api/v1/jobs/{id}"): [(200, f"/api/v1/jobs/{job['id']}", None), (404, "/api/v1/jobs/x", None)],
        ("get", "/api/v1/openapi.json"): [(200, "/api/v1/openapi.json", None)],
        ("get", "/api/docs"): [(200, "/api/docs", None)],
        ("get", "/healthz"): [(200, "/healthz", None)],
        ("get", "/readyz"): [(200, "/readyz", None)],
        ("get", "/metrics"): [(200, "/metrics", None)],
    }


def example_budget_requests(world: World) -> dict[tuple[str, str], list[tuple[int, str, Any]]]:
    """In an order in which what is removed last is asked for first."""
    world.backends.metadata.put_budget(kept.budget())
    world.backends.metadata.put_rule(kept.rule())
    world.backends.metadata.put_alert(kept.alert())
    budget, rule = {"name": "B", "amount": "5"}, {"name": "R", "kind": "threshold", "amount": "5"}
    found: dict[tuple[str, str], list[tuple[int, str, Any]]] = {}
    for name, asked in (("budgets", budget), ("rules", rule)):
        path = f"/api/v1/{name}"
        found |= {
            ("get", path): [(200, path, None)],
            ("post", path): [(201, path, asked), (400, path, {})],
            ("get", f"{path}/{{id}}"): [(200, f"{path}/one", None), (404, f"{path}/x", None)],
            ("patch", f"{path}/{{id}}"): [
                (200, f"{path}/one", {"revision": 1, "name": "C"}),
                (400, f"{path}/one", {"name": "C"}),
                (404, f"{path}/x", {"revision": 1}),
                (409, f"{path}/one", {"revision": 1, "name": "D"}),
            ],
        }
    preview = "/api/v1/rules/preview"
    return found | {
        ("post", preview): [(200, preview, rule), (400, preview, {"name": "R"})],
        ("post", "/api/v1/rules/{id}/preview"): [
            (200, "/api/v1/rules/one/preview", None),
            (404, "/api/v1/rules/x/preview", None),
        ],
        ("delete", "/api/v1/rules/{id}"): [
            (409, "/api/v1/rules/one?revision=1", None),
            (200, "/api/v1/rules/one?revision=2", None),
            (422, "/api/v1/rules/data-stale?revision=0", None),
        ],
        ("delete", "/api/v1/budgets/{id}"): [
            (400, "/api/v1/budgets/one", None),
            (200, "/api/v1/budgets/one?revision=2", None),
        ],
        ("get", "/api/v1/alerts"): [(200, "/api/v1/alerts", None), (400, "/api/v1/alerts?state=x", None)],
        ("get", "/api/v1/alerts/{id}"): [(200, "/api/v1/alerts/one", None), (404, "/api/v1/alerts/x", None)],
    }


def test_every_answer_is_what_the_document_says(world: World, document: dict[str, Any]) -> None:
    examples = example_requests(world)
    assert set(examples) == rules(world.client.application), "a new route needs an example here"
    for (method, path), requests in examples.items():
        for status, address, body in requests:
            answer = world.client.open(address, method=method.upper(), json=body)
            assert answer.status_code == status, (address, answer.text)
            written = document["paths"][path][method]["responses"][str(status)]
            content = written["content"][answer.mimetype]
            if answer.is_json or answer.mimetype == "application/problem+json":
                assert problems_of(answer.json, content["schema"], document) == [], address
            if status == 202:
                assert set(written["headers"]) == {"Location"}


def test_the_validator_sees_what_is_wrong(world: World, document: dict[str, Any]) -> None:
    schema = {"$ref": "#/components/schemas/Costs"}
    good = world.get("/api/v1/costs", start=str(FIRST), end=str(END), limit=2).json
    assert problems_of(good, schema, document) == []
    for change in (
        {"total": 5},
        {"total": "1e5"},
        {"rows": [{}]},
        {"data_version": "1"},
        {"more": 1},
        {"rows": [{"amount": "1"}]},
    ):
        assert problems_of(good | change, schema, document), change


class Page(HTMLParser):
    """What a browser would fetch, run or jump to."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.links: list[str] = []
        self.ids: list[str] = []
        self.handlers: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        for name, value in attrs:
            if name in ("href", "src", "action"):
                self.links.append(value or "")
            if name == "id":
                self.ids.append(value or "")
            if name.startswith("on"):
                self.handlers.append(name)


def test_the_page_shows_everything_and_fetches_nothing(world: World, document: dict[str, Any]) -> None:
    answer = world.client.get("/api/docs")
    page = Page()
    page.feed(answer.text)
    assert not page.tags & {"script", "link", "img", "iframe", "form"}
    assert page.handlers == []
    assert "url(" not in answer.text
    assert "@import" not in answer.text
    inside = {link.removeprefix("#") for link in page.links if link.startswith("#")}
    assert inside <= set(page.ids)
    assert len(page.ids) == len(set(page.ids))
    assert {link for link in page.links if not link.startswith("#")} == {"/api/v1/openapi.json", "/"}
    for path, methods in document["paths"].items():
        assert path in answer.text
        for operation in methods.values():
            assert operation["operationId"] in page.ids
    for code in TITLES:
        assert f"problem-{code}" in page.ids, "problem types point here"
    assert "prefers-color-scheme: dark" in answer.text
    assert "default-src 'none'" in answer.headers["Content-Security-Policy"]
