"""GET /api/v1/costs/compare: any two ranges, against plain decimals added one by one."""

from __future__ import annotations

import json
from collections import defaultdict
from datetime import date, timedelta
from decimal import Decimal
from typing import Any

import pytest

from app.core.charges import METRICS
from tests.api.conftest import ACCOUNTS, END, FIRST, HOLE, World

COMPARE = "/api/v1/costs/compare"
OCTOBER = {"start": "2026-10-01", "end": "2026-11-01"}


def asked(world: World, **query: Any) -> dict[str, Any]:
    answer = world.get(COMPARE, **(OCTOBER | query))
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = json.loads(answer.data, parse_float=Decimal, parse_int=Decimal)
    return found


def sums(world: World, start: date, end: date, metric: str, groups: tuple[str, ...]) -> dict[Any, Decimal | None]:
    found: dict[Any, list[Decimal | None]] = defaultdict(list)
    for charge in world.charges:
        if start <= charge.date < end:
            found[tuple(getattr(charge, name) for name in groups)].append(getattr(charge, metric))
    return {key: None if None in values else sum(values, Decimal(0)) for key, values in found.items()}  # type: ignore[arg-type]


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("groups", [(), ("service",), ("account", "region")])
def test_each_group_has_its_exact_sums_of_both_ranges(world: World, metric: str, groups: tuple[str, ...]) -> None:
    first, last = date(2026, 9, 22), date(2026, 9, 26)
    found = asked(world, metric=metric, group_by=",".join(groups), baseline_start=first, baseline_end=last)
    before = sums(world, first, last, metric, groups)
    after = sums(world, date(2026, 10, 1), date(2026, 11, 1), metric, groups)
    rows = {tuple(row[name] for name in groups): row for row in found["rows"]}
    assert set(rows) == before.keys() | after.keys()
    for group, row in rows.items():
        was, now = before.get(group, Decimal(0)), after.get(group, Decimal(0))
        assert (row["before"], row["after"]) == (was, now)
        known = was is not None and now is not None
        assert row["change"] == (now - was if known else None)  # type: ignore[operator]
    changes = [abs(row["change"]) for row in found["rows"] if row["change"] is not None]
    assert changes == sorted(changes, reverse=True)
    assert all(row["change"] is None for row in found["rows"][len(changes) :])
    if metric != "blended_cost":
        assert Decimal(found["change"]) == Decimal(found["after"]) - Decimal(found["before"])
        assert Decimal(found["after"]) == sum((row["after"] for row in found["rows"]), Decimal(0))


def test_without_a_baseline_it_is_the_days_just_before(world: World) -> None:
    found = asked(world, start="2026-10-20", end="2026-10-27")
    assert (found["baseline"]["start"], found["baseline"]["end"]) == ("2026-10-13", "2026-10-20")
    assert Decimal(found["before"]) == world.sum(where=lambda c: date(2026, 10, 13) <= c.date < date(2026, 10, 20))


def test_unknown_is_not_nothing(world: World) -> None:
    found = asked(world, group_by="service", baseline_start="2020-01-01", baseline_end="2020-02-01")
    assert found["before"] is None
    assert found["change"] is None
    assert found["after"] is not None
    assert all(row["before"] is None and row["change"] is None and row["after"] is not None for row in found["rows"])
    hole = asked(world, start=HOLE, end=HOLE + timedelta(days=1), group_by="service")
    assert (hole["after"], hole["change"]) == (None, None)


def test_a_group_that_was_not_there_before_cost_nothing_then(world: World) -> None:
    chosen = world.charges[0]
    days = {
        charge.date for charge in world.charges if charge.service == chosen.service and charge.account == chosen.account
    }
    free = next(day for day in (FIRST + timedelta(days=n) for n in range(40)) if day not in days and day != HOLE)
    found = asked(
        world,
        start=chosen.date,
        end=chosen.date + timedelta(days=1),
        baseline_start=free,
        baseline_end=free + timedelta(days=1),
        group_by="service",
        account=chosen.account,
    )
    row = next(row for row in found["rows"] if row["service"] == chosen.service)
    assert (row["before"], row["percent"]) == (0, None)


def test_groups_beyond_the_top_are_one_row_and_all_add_up(world: World) -> None:
    whole, top = asked(world, group_by="service"), asked(world, group_by="service", top=3)
    assert [row.get("other") for row in top["rows"]] == [None, None, None, True]
    assert top["rows"][:3] == whole["rows"][:3]
    for side in ("before", "after", "change"):
        assert sum(row[side] for row in top["rows"]) == Decimal(whole[side])


def test_pages_put_together_are_the_whole(world: World) -> None:
    whole, rows, cursor = asked(world, group_by="service,region")["rows"], [], None
    while True:
        page = asked(world, group_by="service,region", limit=5, **({"cursor": cursor} if cursor else {}))
        rows += page["rows"]
        cursor = page["next_cursor"]
        if cursor is None:
            break
    assert rows == whole
    other = world.get(
        COMPARE, **OCTOBER, group_by="region", cursor=asked(world, group_by="service", limit=1)["next_cursor"]
    )
    assert (other.status_code, other.json["field"]) == (400, "cursor")


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ({"baseline_start": "2026-09-01"}, "baseline_end"),
        ({"baseline_end": "2026-09-01"}, "baseline_start"),
        ({"baseline_start": "2026-09-02", "baseline_end": "2026-09-02"}, "baseline_end"),
        ({"baseline_start": "x", "baseline_end": "2026-09-02"}, "baseline_start"),
        ({"granularity": "daily"}, "granularity"),
        ({"top": "0"}, "top"),
    ],
)
def test_what_is_wrong_is_named(world: World, query: dict[str, str], field: str) -> None:
    answer = world.get(COMPARE, **(OCTOBER | query))
    assert (answer.status_code, answer.json["field"]) == (400, field)


def test_both_ranges_say_how_far_they_are_known(world: World) -> None:
    found = asked(world, start=END - timedelta(days=2), end=END + timedelta(days=1))
    assert found["freshness"]["quarantined"] == [str(END)]
    assert found["baseline"]["freshness"]["complete_through"] == str(END - timedelta(days=3))
    assert asked(world, account=ACCOUNTS[0])["currency"] == "USD"
