"""Alerts of Grafana over HTTP: taken once whatever is sent, refused with a reason, shown to whom they concern."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from flask.testing import FlaskClient

from app.backends import Backends
from app.core.grafanaalerts import Told
from app.grafanaalerts import forget_grafana_alerts, take_alerts
from app.narrowing import narrowed
from tests.api.conftest import client_of, empty_backends
from tests.api.schema import problems_of

PATH = "/api/v1/alerts/grafana"
HOSTILE = "<img src=x onerror=alert(1)>\r\n\u202e"
DELIVERY: dict[str, Any] = {
    "receiver": "Spendscope",
    "status": "firing",
    "orgId": 1,
    "alerts": [
        {
            "status": "firing",
            "labels": {"alertname": "Spend spike", "account": "111111111111", "service": HOSTILE, "severity": "warning"},
            "annotations": {"summary": f"S3 costs more {HOSTILE}", "description": "Look at it."},
            "startsAt": "2026-11-05T10:00:00.123456789Z",
            "endsAt": "0001-01-01T00:00:00Z",
            "values": {"A": 120.5, "B": None},
            "generatorURL": "https://grafana.example.org/alerting/grafana/abc/view?orgId=1",
            "fingerprint": "57c6d9296de2ad39",
            "silenceURL": "javascript:alert(1)",
            "dashboardURL": "https://grafana.example.org/d/abc?orgId=1",
            "panelURL": "https://grafana.example.org/d/abc?orgId=1&viewPanel=2",
            "imageURL": "",
            "valueString": "[ var='A' value=120.5 ]",
            "orgId": 1,
        },
        {"status": "firing", "labels": {"alertname": "No worker"}, "annotations": None,
         "startsAt": "2026-11-05T12:00:00+02:00", "endsAt": "", "fingerprint": "aa"},
    ],
    "groupLabels": {}, "commonLabels": {}, "commonAnnotations": {}, "externalURL": "https://grafana.example.org/",
    "version": "1", "groupKey": "{}:{}", "truncatedAlerts": 0, "title": "[FIRING:2]", "state": "alerting", "message": "…",
}  # fmt: skip


@pytest.fixture
def backends(tmp_path: Path) -> Iterator[Backends]:
    opened = empty_backends(tmp_path / "root")
    yield opened
    opened.metadata.close()


@pytest.fixture
def client(backends: Backends) -> FlaskClient:
    return client_of(backends)


def delivery(status: str = "firing", **changes: Any) -> dict[str, Any]:
    found = copy.deepcopy(DELIVERY)
    for alert in found["alerts"]:
        alert.update(
            {"status": status, **({"endsAt": "2026-11-05T11:00:00Z"} if status == "resolved" else {}), **changes}
        )
    return found


def listed(client: FlaskClient, **query: Any) -> list[dict[str, Any]]:
    answer = client.get(PATH, query_string=query)
    assert answer.status_code == 200, answer.text
    found: list[dict[str, Any]] = answer.json["items"]  # type: ignore[index]
    return found


def test_a_delivery_is_listed_with_its_links_and_without_what_is_no_link(client: FlaskClient) -> None:
    answer = client.post(PATH, json=DELIVERY)
    assert (answer.status_code, answer.json) == (200, {"received": 2, "changed": 2})
    whole = client.get("/api/v1/openapi.json").json
    assert whole
    assert problems_of(client.get(PATH).json, whole["components"]["schemas"]["GrafanaAlertList"], whole) == []
    worker, spike = sorted(listed(client), key=lambda one: one["title"])
    assert (spike["status"], spike["accounts"], spike["values"]) == ("firing", ["111111111111"], {"A": 120.5})
    assert spike["panel"] == "https://grafana.example.org/d/abc?orgId=1&viewPanel=2"
    assert (spike["silence"], spike["ends"], worker["panel"]) == (None, None, None)
    assert spike["title"] == "S3 costs more <img src=x onerror=alert(1)>"
    assert worker["starts"].startswith("2026-11-05T10:00:00")


def test_repeated_late_and_swapped_deliveries_come_to_the_same(client: FlaskClient) -> None:
    for sent, changed in (
        (delivery(), 2),
        (delivery(), 0),
        (delivery("resolved"), 2),
        (delivery(), 0),
        (delivery("resolved"), 0),
    ):
        assert client.post(PATH, json=sent).json == {"received": 2, "changed": changed}
    assert [(one["status"], one["ends"][:16]) for one in listed(client)] == [("resolved", "2026-11-05T11:00")] * 2
    assert listed(client, status="firing") == []


def test_firing_anew_is_another_episode_and_the_one_that_never_ended_was_missed(client: FlaskClient) -> None:
    client.post(PATH, json=delivery())
    client.post(PATH, json=delivery(startsAt="2026-11-06T10:00:00Z"))
    assert [one["status"] for one in listed(client)] == ["firing", "firing", "missed", "missed"]
    client.post(PATH, json=delivery("resolved"))
    assert [one["status"] for one in listed(client)] == ["firing", "firing", "resolved", "resolved"]


def test_pages_hold_everything_once(client: FlaskClient) -> None:
    for hour in range(5):
        client.post(PATH, json=delivery(startsAt=f"2026-11-06T0{hour}:00:00Z"))
    seen, cursor = [], {}
    while True:
        page = client.get(PATH, query_string={"limit": 3, **cursor}).json
        assert page
        seen += [one["id"] for one in page["items"]]
        if page["next_cursor"] is None:
            break
        cursor = {"cursor": page["next_cursor"]}
    assert len(seen) == len(set(seen)) == 10
    assert client.get(PATH, query_string={"cursor": "x"}).status_code == 400
    assert client.get(PATH, query_string={"status": "gone"}).status_code == 400


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ({}, "alerts: Field required"),
        ({"alerts": "x"}, "alerts"),
        ({"alerts": [{"status": "firing"}]}, "alerts.0.fingerprint"),
        (delivery("pending"), "alerts.0.status"),
        (delivery(startsAt="yesterday"), "alerts.0.startsAt 'yesterday' is not a time"),
        (delivery(startsAt="0001-01-01T00:00:00Z"), "alerts.0.startsAt is missing"),
        (delivery(startsAt="0001-01-01T00:00:00+14:00"), "alerts.0.startsAt is missing"),
        (delivery(fingerprint=""), "alerts.0.fingerprint"),
        (delivery(fingerprint="x" * 201), "alerts.0.fingerprint"),
        (delivery(labels={"a": 7}), "alerts.0.labels.a"),
        ({"alerts": [DELIVERY["alerts"][1]] * 1001}, "alerts: List should have at most 1000 items"),
    ],
)
def test_what_is_wrong_is_named_and_nothing_of_it_is_kept(client: FlaskClient, body: Any, said: str) -> None:
    answer = client.post(PATH, json=body)
    assert answer.status_code == 400
    assert said in answer.json["detail"]  # type: ignore[index]
    assert listed(client) == []


def test_bodies_that_are_too_large_or_no_json_are_refused(client: FlaskClient) -> None:
    assert client.post(PATH, data=b"{" + b" " * 2**20, content_type="application/json").status_code == 413
    assert client.post(PATH, data=b"{\xff", content_type="application/json").status_code == 400
    assert client.post(PATH, data=b"[" * 100_000, content_type="application/json").status_code == 400
    assert client.post(PATH, data=json.dumps(DELIVERY)).status_code == 415
    large = delivery(annotations={f"n{n}": "x" * 400 for n in range(1000)})
    assert client.post(PATH, json=large).status_code == 200
    assert max(len(one["annotations"]) for one in listed(client)) == 40


def test_several_deliveries_at_once_lose_nothing(backends: Backends) -> None:
    client_of(backends)
    starts = datetime(2026, 11, 5, tzinfo=UTC)
    sent = [Told("same", number == 3, starts, starts if number == 3 else None) for number in range(8)]
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda one: take_alerts(backends, [one]), sent[:5]))
    [one] = backends.metadata.grafana_alerts(limit=9).items
    assert (one.status, one.revision) == ("resolved", 5)
    assert forget_grafana_alerts(backends) == 0


def test_alerts_are_shown_to_those_they_concern(backends: Backends, client: FlaskClient) -> None:
    client.post(PATH, json=DELIVERY)

    def seen(*accounts: str) -> list[str]:
        found = narrowed(backends, frozenset(accounts), {}).metadata.grafana_alerts(limit=9)
        return [one.labels["alertname"] for one in found.items]

    assert seen("111111111111", "2") == ["Spend spike"]
    assert seen("222222222222") == seen() == []
