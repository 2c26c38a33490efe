"""GET /api/v1/reconciliation: file = ledger = store = Cost Explorer, or the difference and its reasons."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator
from dataclasses import replace
from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from app.core.amounts import text
from app.reconciliation import take_references
from tests.api.conftest import Charge, World, client_of, empty_backends, take, write_day
from tests.fakes import Down

DAYS = [date(2026, 10, day) for day in (1, 2, 3)]
HOSTILE = "=cmd|' /C calc'!A0"


def charge(day: date, account: str, amount: str, category: str = "unknown") -> Charge:
    return Charge(day, account, "Amazon S3", "eu-west-1", category, *[Decimal(amount)] * 4)


@pytest.fixture(scope="module")
def reconciled(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """Two accounts: one lacks tax and is off by a cent once, one agrees; a third is known to Cost Explorer alone."""
    root = tmp_path_factory.mktemp("reconciled")
    backends = empty_backends(root)
    charges = [charge(day, account, amount) for day in DAYS for account, amount in ((HOSTILE, "-10.5"), ("b", "7"))]
    for day in DAYS:
        take(backends, write_day(root / "costs", day, [one for one in charges if one.date == day]))
    amounts = {HOSTILE: ["-10.5", "-10.51", "-10.5"], "b": ["7", "7", "7"]}
    rows = [
        [str(day), name, "Usage", amount]
        for name, given in amounts.items()
        for day, amount in zip(DAYS, given, strict=True)
    ]
    rows += [[str(DAYS[0]), HOSTILE, "Tax", "2"], ["2026-10-09", "c", "Usage", "4"]]
    refer(root, "2026-10", rows)
    take_references(backends)
    yield World(backends, client_of(backends), tuple(charges))
    backends.metadata.close()


def refer(root: Path, month: str, rows: list[list[str]]) -> None:
    (root / "reference").mkdir(exist_ok=True)
    document = {"month": month, "collected": f"{month}-28T00:00:00Z", "currency": "USD", "metrics": ["amortized_cost"]}
    (root / "reference" / f"{month}.json").write_text(json.dumps(document | {"rows": rows}))


def answer(world: World, **query: Any) -> Any:
    found = world.get("/api/v1/reconciliation", **({"month": "2026-10"} | query))
    assert found.status_code == 200, found.text
    return found.json


def test_every_account_of_either_side(reconciled: World) -> None:
    found = answer(reconciled)
    assert (found["month"], found["metric"], found["currency"]) == ("2026-10", "amortized_cost", "USD")
    assert found["reference"] == {"collected": "2026-10-28T00:00:00+00:00", "recorded": True, "problem": None}
    items = {item["account"]: item for item in found["items"]}
    assert list(items) == sorted([HOSTILE, "b", "c"])
    off = items[HOSTILE]
    assert (off["file"], off["ledger"], off["store"]) == ("-31.5",) * 3
    assert (off["ours"], off["cost_explorer"], off["difference"]) == ("-31.5", "-29.51", "-1.99")
    assert off["explained"] == [{"category": "tax", "amount": "-2"}]
    assert (off["unexplained"], off["unexplained_days"]) == ("0.01", [{"date": str(DAYS[1]), "amount": "0.01"}])
    assert (items["b"]["difference"], items["b"]["explained"], items["b"]["unexplained"]) == ("0", [], "0")
    only = items["c"]
    assert (only["days_compared"], only["difference"]) == (0, None)
    assert only["only_there"] == [{"date": "2026-10-09", "amount": "4"}]
    ledger = sum(Decimal(item["ledger"]) for item in found["items"])
    assert ledger == sum(one.amortized_cost for one in reconciled.charges)


def test_pages_hold_every_account_once(reconciled: World) -> None:
    seen, cursor = [], {}
    while True:
        page = answer(reconciled, limit=2, **cursor)
        seen += [item["account"] for item in page["items"]]
        if page["next_cursor"] is None:
            break
        cursor = {"cursor": page["next_cursor"]}
    assert seen == sorted([HOSTILE, "b", "c"])
    assert [item["account"] for item in answer(reconciled, account="b")["items"]] == ["b"]


def test_the_file_has_every_account_and_no_formula(reconciled: World) -> None:
    found = reconciled.get("/api/v1/reconciliation", month="2026-10", format="csv")
    assert found.headers["Content-Disposition"].endswith(
        'filename="spendscope-reconciliation-2026-10-amortized_cost.csv"'
    )
    rows = {row["account"]: row for row in csv.DictReader(io.StringIO(found.text))}
    off = rows[f"'{HOSTILE}"]
    assert (off["ledger"], off["cost_explorer"], off["tax"], off["unexplained"]) == ("-31.5", "-29.51", "-2", "0.01")
    assert off["credits"] == "0"
    assert (rows["c"]["difference"], rows["c"]["days_only_there"], rows["c"]["amount_only_there"]) == ("", "1", "4")
    bridge = [
        Decimal(off[name])
        for name in ("tax", "credits", "refunds", "support", "rounding", "held", "timing", "unexplained")
    ]
    assert text(sum(bridge, Decimal(0))) == off["difference"]


def test_without_cost_explorers_totals_the_rest_is_still_compared(reconciled: World) -> None:
    found = answer(reconciled, metric="unblended_cost")
    assert found["reference"]["recorded"] is False
    off = {item["account"]: item for item in found["items"]}[HOSTILE]
    assert (off["file"], off["ledger"], off["store"], off["difference"]) == ("-31.5", "-31.5", "-31.5", None)
    assert off["only_here"] == []
    nothing = answer(reconciled, month="2026-09")
    assert (nothing["items"], nothing["reference"]["collected"]) == ([], None)


def test_a_request_never_reads_the_source(reconciled: World) -> None:
    client = client_of(replace(reconciled.backends, memo={}, source=Silent(reconciled.backends.source.root)))  # type: ignore[arg-type]
    assert client.get("/api/v1/reconciliation?month=2026-10").status_code == 200


class Silent:
    """A source that must not be asked for anything but its name."""

    def __init__(self, root: str) -> None:
        self.root = root


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("", "month"),
        ("month=2026-13", "month"),
        ("month=2026-10-01", "month"),
        ("month=October", "month"),
        ("month=2026-10&metric=usage_quantity", "metric"),
        ("month=2026-10&format=xml", "format"),
        ("month=2026-10&format=csv&limit=2", "limit"),
        ("month=2026-10&cursor=x", "cursor"),
        ("month=2026-10&start=2026-10-01", "start"),
    ],
)
def test_bad_questions_are_refused(reconciled: World, query: str, field: str) -> None:
    refused = reconciled.client.get(f"/api/v1/reconciliation?{query}")
    assert (refused.status_code, refused.content_type) == (400, "application/problem+json")
    assert refused.json is not None
    assert refused.json["field"] == field


def test_a_ledger_that_is_down_is_503(reconciled: World) -> None:
    refused = reconciled.serving(metadata=Down("metadata")).get("/api/v1/reconciliation?month=2026-10")
    assert (refused.status_code, refused.headers["Retry-After"]) == (503, "7")
