"""Retention from end to end: days are folded into months and dropped; what is asked about them is exact or said to be
not kept. Real embedded parts, no worker."""

from __future__ import annotations

import csv as csv_files
import io
import json
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from flask import Flask
from flask.testing import FlaskClient

from app.agreement import repair
from app.api import blueprint
from app.backends import Backends
from app.core.charges import METRICS
from app.core.periods import DateRange, month_of
from app.core.query import CostQuery
from app.costs import ask, dimension_values
from app.retention import fold_months, keep_to_retention
from tests.arrivals import arrive, csv, opened, settings_for, take

FIRST, END = date(2026, 6, 20), date(2026, 10, 17)
NOW = datetime(2026, 10, 20, 12, tzinfo=UTC)
RETENTION = 60
OLDEST = NOW.date() - timedelta(days=RETENTION - 1)
DAYS = [FIRST + timedelta(days=n) for n in range((END - FIRST).days)]


def amounts(day: date) -> dict[str, Decimal]:
    """Amortized cost of each account on a day; the file has half of it under each of two services."""
    return {"a": Decimal(day.toordinal()).scaleb(-19), "b": Decimal(day.day) + Decimal("0.2")}


def total(where: Callable[[date], bool], accounts: str = "ab") -> Decimal:
    return sum((amounts(day)[name] for day in DAYS if where(day) for name in accounts), Decimal(0))


@pytest.fixture(scope="module")
def history(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Four months in a store that keeps everything: data directory and source."""
    root = tmp_path_factory.mktemp("retention")
    folder = root / "costs"
    folder.mkdir()
    backends = opened(settings_for(root, folder))
    for day in DAYS:
        halves = {name: amount / 2 for name, amount in amounts(day).items()}
        rows = [f"{name},{s},r,{halves[name]:f},{halves[name]:f},1,1" for name in halves for s in ("S3", "EC2")]
        take(backends, arrive(folder, csv(*rows), day))
    backends.metadata.close()
    return root, folder


@pytest.fixture
def short(history: tuple[Path, Path], tmp_path: Path) -> Backends:
    """A copy of it that is to keep 60 days."""
    import shutil

    root, folder = history
    shutil.copytree(root / "data", tmp_path / "data")
    settings = settings_for(tmp_path, folder).model_copy(update={"retention_days": RETENTION})
    return opened(settings)


def asked(start: str | date, end: str | date, granularity: str = "total", *group_by: str, **more: Any) -> CostQuery:
    return CostQuery(
        DateRange(date.fromisoformat(str(start)), date.fromisoformat(str(end))),
        granularity=granularity,
        group_by=group_by,
        **more,
    )


def test_days_beyond_retention_are_dropped_and_their_months_stay(short: Backends) -> None:
    gone = keep_to_retention(short)
    assert list(gone) == [day for day in DAYS if day < OLDEST]
    assert list(short.costs.stored_days()) == [day for day in DAYS if day >= OLDEST]
    months = short.metadata.month_totals(date(2000, 1, 1), date(2100, 1, 1))
    assert list(months) == [date(2026, 6, 1), date(2026, 7, 1)], "August is half beyond"
    july = months[date(2026, 7, 1)]
    assert (july.days, july.accounts["a"].amortized_cost) == (31, total(lambda day: day.month == 7, "a"))
    assert july.accounts["b"].unblended_cost == 62
    assert keep_to_retention(short) == []
    assert fold_months(short, OLDEST) == []
    assert repair(short) == [], "what was dropped on purpose is no disagreement"
    assert short.metadata.day_record(FIRST).accounts["a"].first.amortized_cost == amounts(FIRST)["a"]


def test_a_store_without_retention_keeps_everything(history: tuple[Path, Path]) -> None:
    root, folder = history
    backends = opened(settings_for(root, folder))
    assert keep_to_retention(backends) == []
    assert list(backends.costs.stored_days()) == DAYS
    assert ask(backends, asked(FIRST, END)).total == total(lambda day: True)
    backends.metadata.close()


@pytest.mark.parametrize("dropped", [False, True], ids=["before housekeeping", "after it"])
@pytest.mark.parametrize("metric", METRICS)
def test_whole_months_are_answered_exactly(short: Backends, dropped: bool, metric: str) -> None:
    """The same, whether the store has dropped the days yet or not."""
    before = ask(
        opened(short.settings.model_copy(update={"retention_days": 0})), asked("2026-06-01", "2026-11-01")
    ).total
    if dropped:
        keep_to_retention(short)
    assert ask(short, asked("2026-06-01", "2026-11-01")).total == before == total(lambda day: True)
    answer = ask(short, asked("2026-06-01", "2026-11-01", "monthly", "account", metric=metric))
    assert answer.not_kept is None
    frame = answer.frame
    assert frame.exact is not None
    assert [str(period) for period in frame.periods] == [f"2026-{month:02}-01" for month in (6, 7, 8, 9, 10)]
    for row, (name,) in enumerate(frame.groups):
        found = frame.exact.map(lambda part, at=row: part[at]).decimals()  # type: ignore[misc]
        for period, amount in zip(frame.periods, found, strict=True):
            days = [day for day in DAYS if month_of(day) == period]
            expected = (
                sum((amounts(day)[name] for day in days), Decimal(0))
                if metric.startswith(("am", "bl"))
                else 2 * len(days)
            )
            assert amount == expected


def test_a_range_that_ends_today_counts_its_last_month_up_to_there(short: Backends) -> None:
    keep_to_retention(short)
    assert ask(short, asked("2026-07-01", "2026-10-05")).total == total(
        lambda day: date(2026, 7, 1) <= day < date(2026, 10, 5)
    )
    only = ask(short, asked("2026-07-01", "2026-08-01", filters=(("account", ("b",)),)))
    assert only.total == total(lambda day: day.month == 7, "b")


@pytest.mark.parametrize(
    ("query", "known"),
    [
        (asked("2026-07-01", "2026-08-01", "daily"), True),
        (asked("2026-07-01", "2026-08-01", "monthly", "service"), True),
        (asked("2026-07-02", "2026-08-01", "monthly"), False),
        (asked("2026-07-01", "2026-08-15", "monthly"), False),
        (asked("2026-07-01", "2026-08-01", "total", filters=(("service", ("S3",)),)), False),
    ],
)
def test_anything_finer_is_not_kept_and_never_zero(short: Backends, query: CostQuery, known: bool) -> None:
    for _ in range(2):
        answer = ask(short, query)
        assert answer.not_kept is not None
        assert answer.not_kept.since == OLDEST
        assert "SPENDSCOPE_RETENTION_DAYS" in answer.not_kept.reason
        assert answer.total == (total(lambda day: day.month == 7) if known else None)
        assert all(part is None for part in answer.frame.group_totals)
        assert not (answer.frame.amounts == answer.frame.amounts).any(), "every period is unknown"
        keep_to_retention(short)


def test_the_kept_part_of_a_range_is_shown_and_the_rest_unknown(short: Backends) -> None:
    keep_to_retention(short)
    query = asked(OLDEST - timedelta(days=3), OLDEST + timedelta(days=2), "daily", "service")
    answer = ask(short, query)
    assert answer.total is None
    known = (answer.frame.amounts == answer.frame.amounts).all(axis=0).tolist()
    assert known == [False] * 3 + [True] * 2
    assert dimension_values(short, "service", query) == [("EC2", None), ("S3", None)]
    assert dimension_values(short, "account", asked("2026-07-01", "2026-08-01")) == [
        ("b", total(lambda day: day.month == 7, "b")),
        ("a", total(lambda day: day.month == 7, "a")),
    ]


def test_a_range_that_reaches_back_to_nothing_is_as_before(short: Backends) -> None:
    answer = ask(short, asked("2026-01-01", FIRST))
    assert (answer.total, answer.not_kept) == (None, None)
    assert ask(short, asked(OLDEST, END, "daily", "service")).not_kept is None


def test_months_are_folded_before_a_day_is_dropped(short: Backends) -> None:
    """Killed between the two, or in the middle of folding: nothing is lost, and doing it again changes nothing."""

    class Killed(BaseException):
        pass

    class Dying:
        def __init__(self, honest: Any, name: str, after: int) -> None:
            self.honest, self.name, self.left = honest, name, after

        def __getattr__(self, name: str) -> Any:
            if name == self.name:
                self.left -= 1
                if self.left < 0:
                    raise Killed
            return getattr(self.honest, name)

    for part, name, after in (("metadata", "put_month_totals", 1), ("costs", "forget", 0)):
        dying = Dying(getattr(short, part), name, after)
        with pytest.raises(Killed):
            keep_to_retention(replace(short, **{part: dying}))  # type: ignore[arg-type]
        assert list(short.costs.stored_days()) == DAYS
    assert len(short.metadata.month_totals(date(2000, 1, 1), date(2100, 1, 1))) == 2
    keep_to_retention(short)
    assert ask(short, asked("2026-06-01", "2026-11-01")).total == total(lambda day: True)


def test_as_days_pass_the_half_month_is_folded_too(short: Backends) -> None:
    keep_to_retention(short)
    later = replace(short, clock=lambda: NOW + timedelta(days=20), memo={})
    keep_to_retention(later)
    august = later.metadata.month_totals(date(2026, 8, 1), date(2026, 9, 1))[date(2026, 8, 1)]
    assert august.accounts["b"].amortized_cost == total(lambda day: day.month == 8, "b")
    assert ask(later, asked("2026-06-01", "2026-11-01")).total == total(lambda day: True)


# --- API and command line --------------------------------------------------------------------------------------------


@pytest.fixture
def client(short: Backends) -> FlaskClient:
    keep_to_retention(short)
    server = Flask("under-test")
    server.extensions["spendscope"] = short
    server.register_blueprint(blueprint())
    return server.test_client()


def get(client: FlaskClient, query: str) -> Any:
    answer = client.get(f"/api/v1/costs?{query}")
    assert answer.status_code == 200, answer.text
    return json.loads(answer.text, parse_float=Decimal)


def test_the_api_answers_whole_months_with_rows_and_total(client: FlaskClient) -> None:
    found = get(client, "start=2026-06-01&end=2026-11-01&granularity=monthly&group_by=account")
    assert "not_kept" not in found
    assert Decimal(found["total"]) == total(lambda day: True)
    rows = {(row["date"], row["account"]): row["amount"] for row in found["rows"]}
    assert len(rows) == 10
    assert rows["2026-07-01", "a"] == total(lambda day: day.month == 7, "a")
    assert rows["2026-08-01", "b"] == total(lambda day: day.month == 8, "b")
    top = get(client, "start=2026-06-01&end=2026-11-01&granularity=monthly&group_by=account&top=1")
    assert [row.get("other", False) for row in top["rows"][:2]] == [False, True]
    csv = client.get("/api/v1/costs?start=2026-06-01&end=2026-11-01&granularity=monthly&group_by=account&format=csv")
    lines = list(csv_files.DictReader(io.StringIO(csv.text)))
    assert sum(Decimal(line["amount"]) for line in lines) == total(lambda day: True)


def test_pages_of_months_hold_every_row_once(client: FlaskClient) -> None:
    query = "start=2026-06-01&end=2026-11-01&granularity=monthly&group_by=account&limit=3"
    rows, cursor = [], ""
    while True:
        page = get(client, query + cursor)
        rows += [(row["date"], row["account"]) for row in page["rows"]]
        if page["next_cursor"] is None:
            break
        cursor = f"&cursor={page['next_cursor']}"
    assert rows == [(f"2026-{month:02}-01", name) for month in (6, 7, 8, 9, 10) for name in ("b", "a")]


def test_the_api_says_what_is_not_kept_beside_what_is(client: FlaskClient) -> None:
    found = get(client, "start=2026-07-01&end=2026-10-17&granularity=weekly&group_by=service")
    assert found["not_kept"]["since"] == str(OLDEST)
    assert Decimal(found["total"]) == total(lambda day: date(2026, 7, 1) <= day < END)
    assert {row["date"] for row in found["rows"]} == {str(day) for day in DAYS if day.weekday() == 0 and day >= OLDEST}
    first = [row for row in found["rows"] if row["date"] == "2026-08-24"]
    assert sum(row["amount"] for row in first) == total(lambda day: date(2026, 8, 24) <= day < date(2026, 8, 31))
    nothing = get(client, "start=2026-07-01&end=2026-08-01&granularity=daily")
    assert (nothing["rows"], nothing["total"]) == ([], str(total(lambda day: day.month == 7)))
    unknown = get(client, "start=2026-07-01&end=2026-09-01&granularity=total&group_by=service&service=S3")
    assert (unknown["rows"], unknown["total"]) == ([], None)


def test_a_file_of_what_is_not_kept_is_refused(client: FlaskClient) -> None:
    refused = client.get("/api/v1/costs?start=2026-07-01&end=2026-10-17&group_by=service&format=csv")
    assert (refused.status_code, refused.content_type) == (422, "application/problem+json")
    assert refused.json is not None
    assert "Not kept" in refused.json["detail"]


def test_retention_is_shown(client: FlaskClient, short: Backends) -> None:
    answer = client.get("/api/v1/coverage?start=2026-06-20&end=2026-06-22").json
    assert answer is not None
    assert (answer["retention_days"], answer["kept_since"]) == (RETENTION, str(OLDEST))
    assert [item["status"] for item in answer["items"]] == ["complete", "complete"]
    first = answer["items"][0]["accounts"][0]
    assert first["first"]["amortized_cost"] == f"{amounts(FIRST)['a']:f}"
    from app.health import status_of

    found = status_of(short, short.settings)
    assert (found["retention_days"], found["kept_by_day_since"]) == (RETENTION, str(OLDEST))
    assert found["kept_by_month_since"] == "2026-06-01"


def test_the_command_line_answers_the_same(
    short: Backends, client: FlaskClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.cli.open_backends", lambda _: short)
    from app.cli import main

    def query(*more: str) -> Any:
        return CliRunner().invoke(main, ["query", "--start", "2026-07-01", "--end", "2026-08-01", *more])

    exact = query("--granularity", "monthly", "--group-by", "account")
    assert exact.exit_code == 0
    assert f"Total {total(lambda day: day.month == 7):f}" in exact.output
    assert "Not kept" not in exact.output
    finer = query("--group-by", "service")
    assert finer.exit_code == 0
    assert "Not kept: days before" in finer.output
    unknown = query("--filter", "service=S3")
    assert "Total unknown: not kept" in unknown.output
    assert query("--group-by", "service", "--format", "csv").exit_code == 1
    answer = json.loads(query("--group-by", "service", "--format", "json").output)
    assert answer["not_kept"]["since"] == str(OLDEST)
