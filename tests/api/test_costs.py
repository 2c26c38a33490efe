"""GET /api/v1/costs and /api/v1/dimensions: every parameter, against plain decimals added one by one."""

from __future__ import annotations

import csv
import io
import json
from collections import defaultdict
from datetime import date, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from app.api import costs as api_costs
from app.core.charges import DIMENSIONS, METRICS
from app.core.exports import safe_cell
from app.core.periods import GRANULARITIES, bucket_of
from tests.api.conftest import ACCOUNTS, END, FIRST, HOLE, SERVICES, Charge, World, charges_of, take, write_day
from tests.fakes import Down

COSTS = "/api/v1/costs"
REAL = Path(__file__).parents[3] / "shared/data/real/costs"
ALL = {"start": str(FIRST), "end": str(END)}


def asked(world: World, **query: Any) -> dict[str, Any]:
    """The answer with its numbers as they were written."""
    answer = world.get(COSTS, **(ALL | query))
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = json.loads(answer.data, parse_float=Decimal, parse_int=Decimal)
    return found


def expected(world: World, metric: str, granularity: str, groups: tuple[str, ...]) -> dict[Any, Decimal | None]:
    sums: dict[Any, list[Decimal | None]] = defaultdict(list)
    for charge in world.charges:
        period = () if granularity == "total" else (str(bucket_of(charge.date, granularity)),)
        sums[period + tuple(getattr(charge, name) for name in groups)].append(getattr(charge, metric))
    return {key: None if None in values else sum(values, Decimal(0)) for key, values in sums.items()}  # type: ignore[arg-type]


def by_key(rows: list[dict[str, Any]], groups: tuple[str, ...]) -> dict[Any, Any]:
    found = {}
    for row in rows:
        key = ((row["date"],) if "date" in row else ()) + tuple(row[name] for name in groups)
        assert key not in found
        assert set(row) == {"amount", *groups} | ({"date"} if "date" in row else set())
        found[key] = row["amount"]
    return found


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("granularity", GRANULARITIES)
@pytest.mark.parametrize(
    "groups", [(), ("service",), ("region", "account"), ("service", "charge_category", "provider")]
)
def test_rows_are_the_exact_sums_of_the_charges(
    world: World, metric: str, granularity: str, groups: tuple[str, ...]
) -> None:
    query = {"metric": metric, "granularity": granularity, "group_by": ",".join(groups)}
    rows: list[dict[str, Any]] = []
    cursor: dict[str, str] = {}
    while True:
        answer = asked(world, **query, **cursor)
        rows += answer["rows"]
        if answer["next_cursor"] is None:
            break
        cursor = {"cursor": answer["next_cursor"]}
    assert by_key(rows, groups) == expected(world, metric, granularity, groups)
    if metric == "blended_cost":
        assert answer["total"] is None, "some charges have no blended cost"
    else:
        assert Decimal(answer["total"]) == world.sum(metric) == sum(row["amount"] for row in rows)
    assert answer["unit"] == (None if metric == "usage_quantity" else "USD")
    assert answer["currency"] == "USD"


@pytest.mark.skipif(not REAL.is_dir(), reason="the real days are not beside this checkout (../shared/data/real)")
def test_the_real_days_add_up_exactly(empty: World, tmp_path: Path) -> None:
    for path in sorted(REAL.glob("*.csv")):
        (tmp_path / "costs" / path.name).write_bytes(path.read_bytes())
        assert take(empty.backends, path.name) == "done"
    query = {"start": "2024-09-01", "end": "2024-10-01", "group_by": "service,region,account"}
    known = {"amortized_cost": "13", "unblended_cost": "18.0066386184", "usage_quantity": "13105.7085375271"}
    for metric, total in known.items():
        answer = asked(empty, **query, metric=metric)
        assert answer["total"] == total
        assert sum(row["amount"] for row in answer["rows"]) == Decimal(total)


def test_rows_come_by_period_then_by_total_over_the_range(world: World) -> None:
    rows = asked(world, group_by="service", granularity="weekly")["rows"]
    assert [row["date"] for row in rows] == sorted(row["date"] for row in rows)
    totals = expected(world, "amortized_cost", "total", ("service",))
    order = sorted(totals, key=lambda key: -(totals[key] or 0))
    for week in {row["date"] for row in rows}:
        shown = [(row["service"],) for row in rows if row["date"] == week]
        assert shown == [key for key in order if key in shown]


def test_a_day_without_data_has_no_row_and_is_named(world: World) -> None:
    answer = asked(world)
    assert str(HOLE) not in {row["date"] for row in answer["rows"]}
    assert len(answer["rows"]) == (END - FIRST).days - 1
    fresh = answer["freshness"]
    assert fresh["missing"] == [str(HOLE)]
    assert fresh["complete_through"] == str(HOLE - timedelta(days=1))
    assert fresh["settling"] == []
    assert fresh["restating"] == []
    assert set(fresh) == {"complete_through", "settling", "missing", "quarantined", "restating", "updated"}


def test_freshness_speaks_of_the_range_asked_for(world: World) -> None:
    later = asked(world, start="2026-11-01", end="2026-11-06")["freshness"]
    assert later["missing"] == ["2026-11-05"]
    assert later["quarantined"] == ["2026-11-04"]


FILTERS: list[tuple[dict[str, Any], Any]] = [
    ({"service": "Amazon S3"}, lambda c: c.service == "Amazon S3"),
    ({"service": ["Amazon S3", 'Comma, "quoted"']}, lambda c: c.service in ("Amazon S3", 'Comma, "quoted"')),
    ({"region": "global", "account": ACCOUNTS[2]}, lambda c: c.region == "global" and c.account == ACCOUNTS[2]),
    ({"charge_category": "Tax"}, lambda c: c.charge_category == "Tax"),
    ({"provider": "aws"}, lambda _: True),
    ({"provider": "gcp"}, lambda _: False),
    ({"service": ["+plus", "nothing"]}, lambda c: c.service == "+plus"),
    ({"account": "33333333333"}, lambda _: False),
]


@pytest.mark.parametrize(("query", "where"), FILTERS)
def test_filters_are_ored_within_and_anded_between(world: World, query: dict[str, Any], where: Any) -> None:
    answer = asked(world, **query)
    assert Decimal(answer["total"]) == world.sum(where=where)
    assert sum(row["amount"] for row in answer["rows"]) == world.sum(where=where)


@pytest.mark.parametrize(
    ("start", "end"),
    [(FIRST, FIRST + timedelta(days=1)), (date(2026, 9, 30), date(2026, 10, 2)), (date(2000, 1, 1), date(2100, 1, 1))],
)
def test_ranges_are_half_open_and_may_reach_beyond_the_data(world: World, start: date, end: date) -> None:
    answer = asked(world, start=str(start), end=str(end), group_by="region")
    assert Decimal(answer["total"]) == world.sum(where=lambda c: start <= c.date < end)
    assert sum(row["amount"] for row in answer["rows"]) == Decimal(answer["total"])


def test_what_was_never_ingested_is_null_and_what_matches_nothing_is_zero(world: World) -> None:
    nothing = asked(world, start=str(HOLE), end=str(HOLE + timedelta(days=1)))
    assert (nothing["total"], nothing["rows"]) == (None, [])
    matched = asked(world, service="no such service", granularity="total")
    assert (matched["total"], matched["rows"]) == ("0", [{"amount": 0}])


def test_top_keeps_the_largest_groups_and_sums_up_the_rest_exactly(world: World) -> None:
    totals = expected(world, "amortized_cost", "total", ("service",))
    largest = sorted(totals, key=lambda key: -(totals[key] or 0))[:3]
    answer = asked(world, group_by="service", granularity="monthly", top="3")
    own = [row for row in answer["rows"] if "other" not in row]
    rest = [row for row in answer["rows"] if row.get("other")]
    assert {(row["service"],) for row in own} == set(largest)
    assert {row["service"] for row in rest} == {"Other"}
    assert len(rest) == len({row["date"] for row in answer["rows"]}) == 3
    assert sum(row["amount"] for row in answer["rows"]) == Decimal(answer["total"]) == world.sum()
    assert sum(row["amount"] for row in rest) == world.sum(where=lambda c: (c.service,) not in largest)


def test_top_of_two_dimensions_and_top_beyond_all_groups(world: World) -> None:
    answer = asked(world, group_by="service,region", granularity="total", top="1")
    assert answer["rows"][1] == {
        "service": "Other",
        "region": "Other",
        "amount": Decimal(answer["total"]) - answer["rows"][0]["amount"],
        "other": True,
    }
    assert not any("other" in row for row in asked(world, group_by="service", top="1000")["rows"])
    assert asked(world, top="1")["rows"] == asked(world)["rows"]


def test_top_with_an_unavailable_metric_beyond_it_says_so(world: World) -> None:
    rows = asked(world, group_by="service", granularity="total", metric="blended_cost", top="2")["rows"]
    assert rows[-1] == {"service": "Other", "amount": None, "other": True}


# --- pages --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("limit", [1, 7, 250])
@pytest.mark.parametrize(
    "query",
    [
        {"group_by": "service"},
        {"group_by": "service,region", "granularity": "total"},
        {"group_by": "account", "top": "1", "granularity": "weekly"},
    ],
)
def test_pages_hold_every_row_exactly_once(world: World, limit: int, query: dict[str, str]) -> None:
    whole = asked(world, **query)["rows"]
    start = {"start": "2026-10-01", "end": "2026-10-25"} if limit == 1 else {}
    whole = asked(world, **query, **start)["rows"]
    pages, cursor = [], {}
    while True:
        page = asked(world, **query, **start, limit=str(limit), **cursor)
        assert Decimal(page["total"]) == sum(row["amount"] for row in whole)
        pages.append(page["rows"])
        if page["next_cursor"] is None:
            break
        cursor = {"cursor": page["next_cursor"]}
    assert [row for page in pages for row in page] == whole
    assert all(len(page) == limit for page in pages[:-1])


def test_rows_do_not_depend_on_how_many_are_worked_on_at_a_time(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = {granularity: asked(world, group_by="service", granularity=granularity) for granularity in GRANULARITIES}
    monkeypatch.setattr(api_costs, "CELLS", 30)
    for granularity, answer in whole.items():
        assert asked(world, group_by="service", granularity=granularity) == answer


def test_a_cursor_of_another_question_is_refused(world: World) -> None:
    cursor = asked(world, limit="2")["next_cursor"]
    for query in ({"metric": "unblended_cost"}, {"service": "NULL"}, {"end": "2026-10-30"}):
        answer = world.get(COSTS, **(ALL | query), cursor=cursor)
        assert (answer.status_code, answer.json["field"]) == (400, "cursor")
    assert asked(world, limit="5", cursor=cursor)["rows"][0]["date"] == "2026-09-22"


def test_a_cursor_of_older_figures_is_a_conflict(empty: World, tmp_path: Any) -> None:
    import random

    charges = charges_of(FIRST, random.Random(1))
    take(empty.backends, write_day(tmp_path / "costs", FIRST, charges))
    cursor = asked(empty, group_by="service", limit="2")["next_cursor"]
    take(empty.backends, write_day(tmp_path / "costs", FIRST, charges[:-1]))
    answer = empty.get(COSTS, **ALL, group_by="service", limit=2, cursor=cursor)
    assert answer.status_code == 409
    assert "without cursor" in answer.json["detail"]


# --- CSV ----------------------------------------------------------------------------------------------------------


def test_csv_has_all_rows_and_adds_up(world: World) -> None:
    answer = world.get(COSTS, **ALL, group_by="service,region,account", format="csv")
    assert answer.status_code == 200
    assert answer.content_type == "text/csv; charset=utf-8"
    assert answer.headers["Content-Disposition"] == (
        'attachment; filename="spendscope-amortized_cost-daily-by-service-region-account-2026-09-20-2026-11-04.csv"'
    )
    rows = list(csv.DictReader(io.StringIO(answer.text, newline="")))
    assert len(rows) == len({(c.date, c.service, c.region, c.account) for c in world.charges}) > 1000
    assert sum(Decimal(row["amount"]) for row in rows) == world.sum()
    assert {row["unit"] for row in rows} == {"USD"}
    assert min(Decimal(row["amount"]) for row in rows) < 0


def test_csv_text_is_never_a_formula_and_reads_back(world: World) -> None:
    answer = world.get(COSTS, **ALL, group_by="service", granularity="total", format="csv")
    rows = list(csv.reader(io.StringIO(answer.text, newline="")))
    assert rows[0] == ["service", "amount", "unit"]
    names = [row[0] for row in rows[1:]]
    assert not [name for name in names if name.startswith(("=", "+", "-", "@"))]
    assert {name.removeprefix("'") for name in names} == set(SERVICES)
    for cells in rows[1:]:
        Decimal(cells[1])


@pytest.mark.parametrize("text", ["=1+1", "+1", "-1", "@SUM(A1)", "\tx", "\rx"])
def test_safe_cell(text: str) -> None:
    assert safe_cell(text) == "'" + text
    assert safe_cell("a" + text) == "a" + text


def test_csv_of_an_unavailable_metric_is_an_empty_cell(world: World) -> None:
    answer = world.get(COSTS, **ALL, group_by="service", granularity="total", metric="blended_cost", format="csv")
    rows = {row["service"]: row for row in csv.DictReader(io.StringIO(answer.text, newline=""))}
    assert rows["'@at"]["amount"] == ""
    assert world.get(COSTS, **ALL, metric="usage_quantity", format="csv").text.splitlines()[1].endswith(",")


@pytest.mark.parametrize("name", ["limit", "cursor"])
def test_csv_is_not_paged(world: World, name: str) -> None:
    answer = world.get(COSTS, **ALL, format="csv", **{name: "5"})
    assert (answer.status_code, answer.json["field"]) == (400, name)


# --- what is refused ----------------------------------------------------------------------------------------------

REFUSED: list[tuple[str, str, str]] = [
    ("", "start", "start is missing"),
    ("start=2026-10-01", "end", "end is missing"),
    ("start=2026-10-01&end=2026-10-01", "end", "exclusive"),
    ("start=2026-10-02&end=2026-10-01", "end", "exclusive"),
    ("start=2026-02-30&end=2026-10-01", "start", "2026-02-30"),
    ("start=1999-12-31&end=2026-10-01", "start", "2000-01-01"),
    ("start=20261001&end=2026-11-01", "start", "YYYY-MM-DD"),
    ("start=2026-10-01T00:00&end=2026-11-01", "start", "YYYY-MM-DD"),
    ("start=2026-10-01&end=2026-11-01&metric=cost", "metric", "amortized_cost"),
    ("start=2026-10-01&end=2026-11-01&granularity=hourly", "granularity", "monthly"),
    ("start=2026-10-01&end=2026-11-01&group_by=servce", "group_by", "service"),
    ("start=2026-10-01&end=2026-11-01&group_by=service,service", "group_by", "twice"),
    ("start=2026-10-01&end=2026-11-01&top=0", "top", "1"),
    ("start=2026-10-01&end=2026-11-01&top=-1", "top", "1"),
    ("start=2026-10-01&end=2026-11-01&limit=0", "limit", "1000"),
    ("start=2026-10-01&end=2026-11-01&limit=1001", "limit", "1000"),
    ("start=2026-10-01&end=2026-11-01&limit=%D9%A1", "limit", "1000"),
    ("start=2026-10-01&end=2026-11-01&format=xml", "format", "csv"),
    ("start=2026-10-01&end=2026-11-01&cursor=", "cursor", "next_cursor"),
    ("start=2026-10-01&end=2026-11-01&cursor=%00", "cursor", "next_cursor"),
    ("start=2026-10-01&end=2026-11-01&start=2026-10-01", "start", "2 times"),
    ("start=2026-10-01&end=2026-11-01&metric=usage_quantity&metric=usage_quantity", "metric", "2 times"),
    ("start=2026-10-01&end=2026-11-01&limit=5&limit=5", "limit", "2 times"),
    ("start=2026-10-01&end=2026-11-01&servce=x", "servce", "service"),
    ("start=2026-10-01&end=2026-11-01&Service=x", "Service", "service"),
    ("start=2026-10-01&end=2026-11-01&service=" + "x" * 1025, "service", "1024"),
]


@pytest.mark.parametrize(("query", "field", "said"), REFUSED)
def test_bad_questions_name_the_parameter_the_value_and_the_way_out(
    world: World, query: str, field: str, said: str
) -> None:
    answer = world.client.get(f"{COSTS}?{query}")
    assert answer.status_code == 400
    assert answer.content_type == "application/problem+json"
    assert answer.json is not None
    assert answer.json["field"] == field
    assert said in answer.json["detail"]


def test_a_forged_cursor_is_refused(world: World) -> None:
    import base64

    good = base64.urlsafe_b64decode(asked(world, limit="1")["next_cursor"] + "==").decode()
    version, question, _ = good.split(":")
    for place in ("", "x", ".", ".-1", "2026-10-01.99999999999999999999", "2026-13-01.1", ".١"):
        forged = base64.urlsafe_b64encode(f"{version}:{question}:{place}".encode()).decode().rstrip("=")
        assert world.get(COSTS, **ALL, cursor=forged).status_code == 400, place


# --- caching ------------------------------------------------------------------------------------------------------


def test_an_unchanged_answer_is_304_until_figures_or_question_change(empty: World, tmp_path: Any) -> None:
    import random

    charges = charges_of(FIRST, random.Random(1))
    take(empty.backends, write_day(tmp_path / "costs", FIRST, charges))
    first = empty.get(COSTS, **ALL)
    tag = {"If-None-Match": first.headers["ETag"]}
    again = empty.client.get(COSTS, query_string=ALL, headers=tag)
    assert (again.status_code, again.data, again.headers["ETag"]) == (304, b"", first.headers["ETag"])
    for change in ({"group_by": "service"}, {"limit": "5"}, {"format": "csv"}, {"top": "3"}, {"end": "2026-11-05"}):
        assert empty.client.get(COSTS, query_string=ALL | change, headers=tag).status_code == 200, change
    equal = {"end": str(END), "metric": "amortized_cost", "start": str(FIRST), "granularity": "daily"}
    assert empty.client.get(COSTS, query_string=equal, headers=tag).status_code == 304
    tomorrow = client_tomorrow(empty)
    assert tomorrow.get(COSTS, query_string=ALL, headers=tag).status_code == 200
    take(empty.backends, write_day(tmp_path / "costs", FIRST, charges[:-1]))
    assert empty.client.get(COSTS, query_string=ALL, headers=tag).status_code == 200


def client_tomorrow(world: World) -> Any:
    now = world.backends.clock()
    return world.serving(clock=lambda: now + timedelta(days=1))


def test_a_quarantine_that_begins_or_ends_is_named(empty: World, tmp_path: Any) -> None:
    """It moves no figure, but the version that kept answers hang on."""
    import random

    take(empty.backends, write_day(tmp_path / "costs", FIRST, charges_of(FIRST, random.Random(1))))
    before = empty.get(COSTS, **ALL)
    (tmp_path / "costs" / "2026-09-21.csv").write_text("service\nS3\n")
    assert take(empty.backends, "2026-09-21.csv") == "quarantined"
    # The ledger is read again at most a fifth of the time.
    empty.backends.memo.pop("ledgers")
    after = empty.client.get(COSTS, query_string=ALL, headers={"If-None-Match": before.headers["ETag"]})
    assert after.status_code == 200
    assert after.json is not None
    assert after.json["freshness"]["quarantined"] == ["2026-09-21"]
    quarantined = empty.backends.metadata.ledger_version()
    write_day(tmp_path / "costs", FIRST + timedelta(days=1), charges_of(FIRST + timedelta(days=1), random.Random(2)))
    assert take(empty.backends, "2026-09-21.csv") == "done"
    assert empty.backends.metadata.ledger_version() == quarantined + 3, "the mark, the flip, the end of the quarantine"


def test_head_is_get_without_a_body(world: World) -> None:
    answer = world.client.head(COSTS, query_string=ALL)
    assert (answer.status_code, answer.data) == (200, b"")
    assert answer.headers["ETag"] == world.get(COSTS, **ALL).headers["ETag"]
    assert world.client.head(COSTS, query_string=ALL | {"format": "csv"}).status_code == 200


@pytest.mark.parametrize("late", [1, 2, 3, 4])
def test_figures_that_change_between_two_reads_are_read_again(world: World, late: int) -> None:
    """Total and rows are never of two versions, whichever read is the one that is still old."""

    class Moving:
        def __init__(self) -> None:
            self.reads = 0

        def __getattr__(self, name: str) -> Any:
            return getattr(world.backends.costs, name)

        def rollup(self) -> Any:
            self.reads += 1
            found = world.backends.costs.rollup()
            if self.reads == late:
                return type(found)(found.version - 1, found.months[:1])
            return found

    moving = Moving()
    answer = world.serving(costs=moving).get(COSTS, query_string=ALL | {"group_by": "region"})
    rows = json.loads(answer.data, parse_float=Decimal)
    assert sum(Decimal(row["amount"]) for row in rows["rows"]) == Decimal(rows["total"]) == world.sum()


@pytest.mark.parametrize("part", ["costs", "metadata"])
@pytest.mark.parametrize("form", ["json", "csv"])
def test_a_store_that_is_down_is_503_with_a_time_to_come_back(world: World, part: str, form: str) -> None:
    answer = world.serving(**{part: Down(part)}).get(COSTS, query_string=ALL | {"format": form})
    assert answer.status_code == 503
    assert answer.headers["Retry-After"] == "7"
    assert answer.content_type == "application/problem+json"
    assert answer.json is not None
    assert answer.json["part"] == part


# --- dimensions ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", DIMENSIONS)
def test_values_of_a_dimension_have_their_exact_cost(world: World, name: str) -> None:
    answer = world.get(f"/api/v1/dimensions/{name}").json
    totals = expected(world, "amortized_cost", "total", (name,))
    shown = {(item["value"],): Decimal(item["total"]) for item in answer["items"]}
    assert shown == totals
    assert list(shown.values()) == sorted(shown.values(), reverse=True)


def test_values_are_searched_filtered_and_measured_over_a_range(world: World) -> None:
    def values(**query: Any) -> dict[str, Decimal]:
        answer = world.get("/api/v1/dimensions/service", **query)
        assert answer.status_code == 200, answer.text
        return {item["value"]: Decimal(item["total"]) for item in answer.json["items"]}

    assert set(values(q="amazon")) == {"Amazon EC2", "Amazon S3"}
    assert values(q="no such") == {}
    week = {"start": "2026-10-12", "end": "2026-10-19", "account": ACCOUNTS[0], "metric": "usage_quantity"}

    def inside(charge: Charge) -> bool:
        return date(2026, 10, 12) <= charge.date < date(2026, 10, 19) and charge.account == ACCOUNTS[0]

    for value, total in values(**week).items():
        assert total == world.sum("usage_quantity", lambda c, v=value: inside(c) and c.service == v)  # type: ignore[misc]


def test_values_are_paged(world: World) -> None:
    seen, cursor = [], {}
    while True:
        page = world.get("/api/v1/dimensions/service", limit=4, **cursor).json
        seen += [item["value"] for item in page["items"]]
        if page["next_cursor"] is None:
            break
        cursor = {"cursor": page["next_cursor"]}
    assert len(seen) == len(SERVICES)
    assert set(seen) == set(SERVICES)
    assert world.get("/api/v1/dimensions/region", limit=1, **cursor).status_code == 400


def test_an_unknown_dimension_names_the_known_ones(world: World) -> None:
    answer = world.get("/api/v1/dimensions/servce")
    assert answer.status_code == 404
    assert "service" in answer.json["detail"]
    assert world.get("/api/v1/dimensions/service", start="2026-10-01").json["field"] == "end"


def test_nothing_is_there_before_anything_is_ingested(empty: World) -> None:
    assert empty.get("/api/v1/dimensions/service").json["items"] == []
    answer = empty.get(COSTS, **ALL).json
    assert (answer["rows"], answer["total"], answer["freshness"]["complete_through"]) == ([], None, None)
    assert empty.get(COSTS, **ALL, format="csv").text == "date,amount,unit\r\n"
