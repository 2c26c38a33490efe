"""GET /api/v1/costs/forecast: what a budget's projection says, without a budget."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from flask.testing import FlaskClient

from app.backends import Backends
from tests import found
from tests.api.conftest import client_of, empty_backends

FORECAST = "/api/v1/costs/forecast"


@pytest.fixture(scope="module")
def backends(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Backends]:
    with found.copied(found.built_once(tmp_path_factory), tmp_path_factory.mktemp("forecast") / "root") as copy:
        yield copy


@pytest.fixture(scope="module")
def client(backends: Backends) -> FlaskClient:
    return client_of(backends)


def asked(client: FlaskClient, **query: Any) -> dict[str, Any]:
    answer = client.get(FORECAST, query_string=query)
    assert answer.status_code == 200, answer.text
    return answer.json  # type: ignore[no-any-return]


@pytest.mark.parametrize("metric", ["amortized_cost", "unblended_cost"])
def test_the_months_end_is_what_a_budget_of_the_month_projects(client: FlaskClient, metric: str) -> None:
    body = {"name": metric, "amount": "1000000", "period": "monthly", "metric": metric}
    budget = client.post("/api/v1/budgets", json=body)
    assert budget.status_code == 201, budget.text
    projected, month = budget.json["burn"]["projected"], asked(client, metric=metric)["month"]
    assert month["total"] == {"expected": projected["total"], "low": projected["low"], "high": projected["high"]}
    assert month["spent"] == budget.json["burn"]["spent"]


def test_days_go_on_from_today_and_their_sums_are_banded(client: FlaskClient, backends: Backends) -> None:
    days = asked(client, days=45)["days"]
    assert [day["date"] for day in days] == [str(backends.today() + timedelta(days=n)) for n in range(45)]
    running = Decimal(0)
    for number, day in enumerate(days, start=1):
        running += Decimal(str(day["amount"]))
        low, expected, high = (Decimal(day["sum"][name]) for name in ("low", "expected", "high"))
        assert abs(running - expected) <= Decimal("0.01") * number
        assert low <= expected <= high
    assert Decimal(days[-1]["sum"]["high"]) > Decimal(days[-1]["sum"]["low"])
    assert len(asked(client)["days"]) == 30


def test_a_scope_has_its_own(client: FlaskClient) -> None:
    services = [item["value"] for item in client.get("/api/v1/dimensions/service").json["items"][:2]]
    each = [Decimal(asked(client, service=name)["month"]["spent"]) for name in services]
    assert Decimal(asked(client, service=services)["month"]["spent"]) == sum(each)


def test_what_cannot_be_said_is_not_made_up(tmp_path: Path) -> None:
    empty = asked(client_of(empty_backends(tmp_path)))
    assert (empty["month"], empty["days"]) == (None, [])
    assert "complete days" in empty["reason"]


def test_what_never_cost_anything_goes_on_so(client: FlaskClient) -> None:
    found = asked(client, service="Nothing of the kind")
    assert found["month"]["total"] == {"expected": "0", "low": "0", "high": "0"}


@pytest.mark.parametrize(
    ("query", "field"),
    [({"days": "0"}, "days"), ({"days": "367"}, "days"), ({"metric": "x"}, "metric"), ({"service": ""}, "service")],
)
def test_what_is_wrong_is_named(client: FlaskClient, query: dict[str, str], field: str) -> None:
    answer = client.get(FORECAST, query_string=query)
    assert (answer.status_code, answer.json["field"]) == (400, field)


def test_the_month_is_the_one_today_is_in(client: FlaskClient, backends: Backends) -> None:
    month, today = asked(client)["month"], backends.today()
    assert date.fromisoformat(month["start"]) <= today < date.fromisoformat(month["end"])
