"""Anomalies over HTTP: what is listed, what people may say, and what is refused."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from flask.testing import FlaskClient

from app.backends import Backends
from tests import found
from tests.api.conftest import client_of, empty_backends
from tests.api.schema import problems_of
from tests.contracts.metadata import anomaly

LIST = "/api/v1/anomalies"
PLANS = "/api/v1/planned-spend"
NUMBER = 7


@pytest.fixture
def backends(tmp_path: Path) -> Iterator[Backends]:
    opened = replace(empty_backends(tmp_path / "root"), clock=lambda: found.NOW)
    for number in range(NUMBER):
        state = "resolved" if number % 2 else "ongoing"
        opened.metadata.put_anomaly(
            anomaly(
                f"a{number}", found.SPIKE + timedelta(days=number), found=state, verdicts=(), impact=Decimal(number)
            )
        )
    yield opened
    opened.metadata.close()


@pytest.fixture
def client(backends: Backends) -> FlaskClient:
    return client_of(backends)


def ids(client: FlaskClient, **query: Any) -> list[str]:
    answer = client.get(LIST, query_string=query)
    assert answer.status_code == 200, answer.text
    return [item["id"] for item in answer.json["items"]]


def fits(client: FlaskClient, value: Any, name: str) -> list[str]:
    whole = client.get("/api/v1/openapi.json").json
    return problems_of(value, whole["components"]["schemas"][name], whole)


def test_open_ones_come_first_then_the_newest(client: FlaskClient) -> None:
    assert ids(client) == ["a6", "a4", "a2", "a0", "a5", "a3", "a1"]
    answer = client.get(LIST).json
    assert fits(client, answer, "AnomalyList") == []
    item = answer["items"][0]
    assert (item["impact"], item["state"], item["scope"]["region"]) == ("6", "ongoing", None)


def test_pages_hold_everything_once(client: FlaskClient) -> None:
    seen, cursor = [], None
    while True:
        answer = client.get(LIST, query_string={"limit": 2, **({"cursor": cursor} if cursor else {})}).json
        seen += [item["id"] for item in answer["items"]]
        cursor = answer["next_cursor"]
        if cursor is None:
            break
    assert seen == ids(client)
    foreign = client.get(LIST, query_string={"limit": 2, "state": "open", "cursor": "bm9uc2Vuc2U"})
    assert foreign.status_code == 400


def test_filters(client: FlaskClient) -> None:
    start = found.SPIKE + timedelta(days=5)
    assert ids(client, start=start) == ["a6", "a4", "a5", "a3"]
    assert ids(client, end=found.SPIKE + timedelta(days=1)) == ["a0"]
    assert ids(client, state=["resolved", "dismissed"]) == ["a5", "a3", "a1"]
    assert ids(client, service="$set.a", account="111111111111", state="ongoing") == ["a6", "a4", "a2", "a0"]
    assert ids(client, region="eu-west-9") == []
    assert ids(client, kind="drop") == []


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ({"state": "gone"}, "state"),
        ({"kind": "spike"}, "kind"),
        ({"start": "soon"}, "start"),
        ({"start": "2026-11-05", "end": "2026-11-01"}, "end"),
        ({"limit": "0"}, "limit"),
        ({"who": "me"}, "who"),
    ],
)
def test_wrong_questions_name_the_parameter(client: FlaskClient, query: dict[str, str], field: str) -> None:
    answer = client.get(LIST, query_string=query)
    assert (answer.status_code, answer.json["field"]) == (400, field)
    assert answer.content_type == "application/problem+json"


def test_a_person_says_what_it_is_and_takes_it_back(client: FlaskClient) -> None:
    said = client.patch(f"{LIST}/a0", json={"state": "dismissed", "reason": "Load test"})
    assert said.status_code == 200
    assert fits(client, said.json, "AnomalyAnswer") == []
    assert (said.json["state"], said.json["found"], said.json["reason"]) == ("dismissed", "ongoing", "Load test")
    assert client.get(f"{LIST}/a0").json == said.json
    back = client.patch(f"{LIST}/a0", json={"state": "open"}).json
    assert (back["state"], back["reason"], len(back["verdicts"])) == ("ongoing", None, 2)


@pytest.mark.parametrize(
    ("body", "status", "field"),
    [
        ({"state": "dismissed"}, 400, "reason"),
        ({"state": "resolved"}, 400, "state"),
        ({"state": "acknowledged", "reason": "x" * 501}, 400, "reason"),
        ({"state": "acknowledged", "by": "me"}, 400, "by"),
        ({}, 400, "state"),
        ([], 400, None),
    ],
)
def test_wrong_words_are_refused_and_change_nothing(
    client: FlaskClient, body: Any, status: int, field: str | None
) -> None:
    answer = client.patch(f"{LIST}/a0", json=body)
    assert (answer.status_code, answer.json.get("field")) == (status, field)
    assert client.get(f"{LIST}/a0").json["verdicts"] == []


def test_what_is_not_there_is_said(client: FlaskClient) -> None:
    for answer in (client.get(f"{LIST}/nobody"), client.patch(f"{LIST}/nobody", json={"state": "open"})):
        assert (answer.status_code, answer.content_type) == (404, "application/problem+json")
    assert client.patch(f"{LIST}/a0", data="x").status_code == 415


def test_planned_spend(client: FlaskClient) -> None:
    body = {"start": "2026-11-01", "end": "2026-11-08", "reason": "Migration", "service": "Amazon S3"}
    made = client.post(PLANS, json=body)
    assert made.status_code == 201
    assert made.json["scope"] == {"account": None, "service": "Amazon S3", "region": None}
    assert client.post(PLANS, json=body | {"reason": "Another"}).json["id"] == made.json["id"]
    listed = client.get(PLANS).json
    assert fits(client, listed, "PlannedSpendList") == []
    assert [plan["reason"] for plan in listed["items"]] == ["Another"]
    assert client.delete(f"{PLANS}/{made.json['id']}").json == {"items": []}
    assert client.delete(f"{PLANS}/{made.json['id']}").status_code == 404
    assert client.post(PLANS, json=body | {"extra": "250.50"}).json["extra"] == "250.5"
    assert fits(client, client.get(PLANS).json, "PlannedSpendList") == []
    for wrong, field in (
        ({"end": "2026-11-01"}, "end"),
        ({"end": "2028-11-01"}, "end"),
        ({"reason": " "}, "reason"),
        ({"start": "soon"}, "start"),
        ({"extra": "0"}, "extra"),
        ({"extra": "-5"}, "extra"),
        ({"extra": "1e3"}, "extra"),
        ({"extra": "9" * 20}, "extra"),
        ({"service": ""}, "service"),
    ):
        answer = client.post(PLANS, json=body | wrong)
        assert (answer.status_code, answer.json["field"]) == (400, field), wrong
