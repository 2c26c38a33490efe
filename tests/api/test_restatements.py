"""GET /api/v1/restatements, …/movement and /api/v1/notices: what was reported before, and how far it moved."""

from __future__ import annotations

import csv
import io
from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest

from tests.api.conftest import ACCOUNTS, END, FIRST, HOLE, NOW, RESTATED, World
from tests.fakes import Down

ALL = {"start": str(FIRST), "end": str(END)}
ONE = {"start": str(RESTATED), "end": str(RESTATED + timedelta(days=1))}


def answer(world: World, path: str = "", **query: Any) -> Any:
    found = world.get(f"/api/v1/restatements{path}", **query)
    assert found.status_code == 200, found.text
    return found.json


def of_day(world: World, account: str) -> Decimal:
    return world.sum(where=lambda charge: (charge.date, charge.account) == (RESTATED, account))


def test_a_restated_day_has_every_report_with_its_file(world: World) -> None:
    (day,) = answer(world, **ONE)["items"]
    assert day["date"] == str(RESTATED)
    assert [part["account"] for part in day["accounts"]] == sorted(ACCOUNTS)
    for part in day["accounts"]:
        first, second = part["reports"]
        assert (first["revision"], first["before"], second["revision"]) == (1, None, 2)
        assert second["before"] == first["after"]
        assert Decimal(second["after"]["amortized_cost"]) == of_day(world, part["account"])
        assert (part["first"], part["current"]) == (first["after"]["amortized_cost"], second["after"]["amortized_cost"])
        assert all(one["source"].endswith(f"/{RESTATED}.csv") and len(one["sha256"]) == 64 for one in part["reports"])
        assert first["sha256"] != second["sha256"]


def test_a_day_is_the_sum_of_its_accounts_and_moves_from_what_was_called_complete(world: World) -> None:
    (day,) = answer(world, **ONE)["items"]
    for name in ("first", "current", "complete"):
        assert sum(Decimal(part[name]) for part in day["accounts"]) == Decimal(day[name])
    moved = day["moved"]
    assert Decimal(moved["after"]) - Decimal(moved["before"]) == Decimal(moved["amount"])
    assert (moved["before"], moved["after"]) == (day["complete"], day["current"])


def test_only_some_accounts_and_another_metric(world: World) -> None:
    account = ACCOUNTS[1]
    found = answer(world, **ONE, account=account, metric="usage_quantity")
    assert (found["metric"], found["unit"]) == ("usage_quantity", None)
    (day,) = found["items"]
    assert [part["account"] for part in day["accounts"]] == [account]
    assert Decimal(day["current"]) == world.sum(
        "usage_quantity", where=lambda charge: (charge.date, charge.account) == (RESTATED, account)
    )


def test_pages_hold_every_reported_day_once(world: World) -> None:
    seen: list[str] = []
    cursor: dict[str, str] = {}
    while True:
        page = answer(world, **ALL, limit=7, **cursor)
        assert len(page["items"]) <= 7
        seen += [item["date"] for item in page["items"]]
        if page["next_cursor"] is None:
            break
        cursor = {"cursor": page["next_cursor"]}
    days = [FIRST + timedelta(days=n) for n in range((END - FIRST).days)]
    assert seen == [str(day) for day in days if day != HOLE]
    refused = world.get("/api/v1/restatements", **ONE, cursor=cursor["cursor"])
    assert (refused.status_code, refused.json["field"]) == (400, "cursor")


def test_a_range_without_reports_is_empty(world: World) -> None:
    assert answer(world, start="2000-01-01", end="2001-01-01")["items"] == []


def test_the_file_has_every_report_and_no_formula(world: World) -> None:
    text = world.get("/api/v1/restatements", **ALL, format="csv").text
    rows = list(csv.DictReader(io.StringIO(text)))
    assert len(rows) == len(ACCOUNTS) * ((END - FIRST).days - 1 + 1)
    second = next(row for row in rows if row["revision"] == "2")
    first = next(
        row
        for row in rows
        if (row["date"], row["account"], row["revision"]) == (second["date"], second["account"], "1")
    )
    assert second["before"] == first["after"]
    assert second["date"] == str(RESTATED)
    assert world.get("/api/v1/restatements", **ALL, format="csv", limit=3).status_code == 400


def test_movement_by_age(world: World) -> None:
    """All days were first reported, and complete, when the world was made: one of them moved at once."""
    assert answer(world, "/movement", **ALL)["items"] == []
    later = world.serving(clock=lambda: NOW + timedelta(days=10))
    found = later.get("/api/v1/restatements/movement", query_string=ALL).json
    assert found is not None
    assert [item["age"] for item in found["items"]] == [1, 2, 3, 5, 7]
    (day,) = answer(world, **ONE)["items"]
    for item in found["items"]:
        assert item["days"] == (END - FIRST).days - 1
        assert (item["median"], item["p90"]) == ("0", "0")
        assert Decimal(item["max"]) == abs(Decimal(day["moved"]["percent"]))


def test_a_closed_day_that_moved_is_noticed(world: World) -> None:
    items = world.get("/api/v1/notices", kind="restated").json["items"]
    (notice,) = [item for item in items if item["day"] == str(RESTATED)]
    (day,) = answer(world, **ONE)["items"]
    assert notice["moved"]["after"] == day["current"]
    assert {part["account"] for part in notice["accounts"]} == set(ACCOUNTS)
    assert str(RESTATED) in notice["message"]
    assert world.get("/api/v1/notices", kind="reference").json["items"] == []


@pytest.mark.parametrize(
    ("path", "field"),
    [
        ("/api/v1/restatements?start=2026-10-01", "end"),
        ("/api/v1/restatements?start=2026-10-02&end=2026-10-01", "end"),
        ("/api/v1/restatements?start=2026-10-01&end=2026-10-02&metric=dollars", "metric"),
        ("/api/v1/restatements?start=2026-10-01&end=2026-10-02&service=x", "service"),
        ("/api/v1/restatements/movement?start=2026-10-01&end=x", "end"),
        ("/api/v1/notices?kind=other", "kind"),
        ("/api/v1/notices?cursor=abc", "cursor"),
    ],
)
def test_bad_questions_are_refused(world: World, path: str, field: str) -> None:
    refused = world.client.get(path)
    assert (refused.status_code, refused.content_type) == (400, "application/problem+json")
    assert refused.json is not None
    assert refused.json["field"] == field


@pytest.mark.parametrize("path", ["restatements", "restatements/movement"])
def test_a_ledger_that_is_down_is_503(world: World, path: str) -> None:
    refused = world.serving(metadata=Down("metadata")).get(f"/api/v1/{path}?start=2026-10-01&end=2026-10-02")
    assert (refused.status_code, refused.headers["Retry-After"]) == (503, "7")
