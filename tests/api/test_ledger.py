"""GET /api/v1/coverage and /api/v1/ingestions: what came from which file, and what is missing."""

from __future__ import annotations

from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest

from tests.api.conftest import ACCOUNTS, BROKEN, END, FIRST, HOLE, RESTATED, World
from tests.fakes import Down

ALL = {"start": str(FIRST), "end": str(END + timedelta(days=2))}


def days(world: World, **query: Any) -> dict[str, Any]:
    answer = world.get("/api/v1/coverage", **(ALL | query))
    assert answer.status_code == 200, answer.text
    return {item["date"]: item for item in answer.json["items"]}


def test_every_day_of_the_range_has_its_status(world: World) -> None:
    found = days(world)
    assert list(found) == [str(FIRST + timedelta(days=n)) for n in range((END - FIRST).days + 2)]
    assert found[str(FIRST)]["status"] == "complete"
    assert found[str(HOLE)]["status"] == "missing"
    assert found[str(BROKEN)]["status"] == "quarantined"
    assert found["2026-11-05"]["status"] == "missing"
    assert [part["account"] for part in found[str(HOLE)]["accounts"]] == sorted(ACCOUNTS)
    assert all(part["current"] is None and part["revision"] == 0 for part in found[str(HOLE)]["accounts"])


def test_today_and_later_expect_nothing(world: World) -> None:
    found = days(world, start="2026-11-06", end="2026-11-08")
    assert [(item["status"], item["accounts"]) for item in found.values()] == [(None, []), (None, [])]


def test_current_totals_are_those_of_the_charges_and_the_first_report_stays(world: World) -> None:
    for part in days(world, start=str(RESTATED), end=str(RESTATED + timedelta(days=1)))[str(RESTATED)]["accounts"]:
        assert part["revision"] == 2
        assert part["first"] != part["current"]
        assert part["owner"].endswith(f"/{RESTATED}.csv")
        assert Decimal(part["current"]["amortized_cost"]) == world.sum(
            where=lambda c, account=part["account"]: (c.date, c.account) == (RESTATED, account)  # type: ignore[misc]
        )


def test_only_some_accounts(world: World) -> None:
    found = days(world, account=list(ACCOUNTS[:2]))
    assert {part["account"] for day in found.values() for part in day["accounts"]} == set(ACCOUNTS[:2])


def test_pages_hold_every_day_once(world: World) -> None:
    seen: list[str] = []
    cursor: dict[str, str] = {}
    whole = list(days(world).values())
    pages = []
    while True:
        page = world.get("/api/v1/coverage", **ALL, limit=10, **cursor).json
        pages += page["items"]
        assert page["complete_through"] == str(HOLE - timedelta(days=1))
        if page["next_cursor"] is None:
            break
        cursor = {"cursor": page["next_cursor"]}
    assert pages == whole, seen
    refused = world.get("/api/v1/coverage", **(ALL | {"end": "2026-11-05"}), **cursor)
    assert refused.json["field"] == "cursor"


def test_a_century_is_answered_page_by_page(world: World) -> None:
    page = world.get("/api/v1/coverage", start="2000-01-01", end="2100-01-01", limit=1000).json
    assert len(page["items"]) == 1000
    assert page["next_cursor"] is not None


def ingestions(world: World, **query: Any) -> Any:
    answer = world.get("/api/v1/ingestions", **query)
    assert answer.status_code == 200, answer.text
    return answer.json


def test_each_file_version_says_what_became_of_it(world: World) -> None:
    items = ingestions(world, limit=1000)["items"]
    by_status: dict[str, list[dict[str, Any]]] = {}
    for item in items:
        by_status.setdefault(item["status"], []).append(item)
    assert {status: len(found) for status, found in by_status.items()} == {
        "ingested": (END - FIRST).days - 1,
        "superseded": 1,
        "quarantined": 1,
    }
    good = next(item for item in by_status["ingested"] if item["day"] == str(FIRST))
    assert Decimal(good["totals"]["amortized_cost"]) == world.sum(where=lambda c: c.date == FIRST)
    assert good["rows"] == sum(c.date == FIRST for c in world.charges)
    assert good["revision"] is not None
    (bad,) = by_status["quarantined"]
    assert bad["key"] == f"{BROKEN}.csv"
    assert bad["totals"] is None
    assert set(bad["reason"]) == {"code", "line", "column", "value", "message"}
    assert bad["reason"]["message"]


def test_ingestions_are_filtered_and_paged(world: World) -> None:
    assert [i["day"] for i in ingestions(world, status="quarantined")["items"]] == [str(BROKEN)]
    assert len(ingestions(world, key=f"{RESTATED}.csv")["items"]) == 2
    seen: list[str] = []
    cursor: dict[str, str] = {}
    while True:
        page = ingestions(world, limit=9, **cursor)
        seen += [item["id"] for item in page["items"]]
        if page["next_cursor"] is None:
            break
        cursor = {"cursor": page["next_cursor"]}
    assert len(seen) == len(set(seen)) == (END - FIRST).days + 1


def test_one_ingestion_has_the_totals_of_its_accounts(world: World) -> None:
    summary = ingestions(world, key=f"{FIRST}.csv")["items"][0]
    detail = world.get(f"/api/v1/ingestions/{summary['id']}").json
    assert {name: detail[name] for name in summary} == summary
    accounts = detail["accounts"].values()
    assert sum(Decimal(part["usage_quantity"]) for part in accounts) == Decimal(summary["totals"]["usage_quantity"])


@pytest.mark.parametrize(
    ("path", "field"),
    [
        ("/api/v1/ingestions?status=lost", "status"),
        ("/api/v1/ingestions?limit=x", "limit"),
        ("/api/v1/ingestions?cursor=%FFx", None),
        ("/api/v1/coverage?start=2026-10-01", "end"),
        ("/api/v1/coverage?start=2026-10-01&end=2026-10-02&limit=5000", "limit"),
        ("/api/v1/coverage?start=2026-10-01&end=2026-10-02&cursor=abc", "cursor"),
        ("/api/v1/coverage?start=2026-10-01&end=2026-10-02&service=x", "service"),
        ("/api/v1/ingestions/abc?limit=1", "limit"),
    ],
)
def test_bad_questions_are_refused(world: World, path: str, field: str | None) -> None:
    answer = world.client.get(path)
    assert answer.status_code == 400, answer.text
    assert answer.json is not None
    assert field is None or answer.json["field"] == field


def test_an_unknown_ingestion_is_404(world: World) -> None:
    for name in ("nothing", "%00", "a" * 5000, "{'$ne': null}"):
        answer = world.client.get(f"/api/v1/ingestions/{name}")
        assert (answer.status_code, answer.content_type) == (404, "application/problem+json"), name


@pytest.mark.parametrize(
    "path", ["/api/v1/coverage?start=2026-10-01&end=2026-10-02", "/api/v1/ingestions", "/api/v1/ingestions/x"]
)
def test_a_ledger_that_is_down_is_503(world: World, path: str) -> None:
    answer = world.serving(metadata=Down("metadata")).get(path)
    assert (answer.status_code, answer.headers["Retry-After"]) == (503, "7")
