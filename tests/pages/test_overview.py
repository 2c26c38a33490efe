"""The overview drawn without a browser: every figure against sums made by hand, every state in words."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date, timedelta
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.backends import Backends
from app.core.charges import METRICS
from app.costs import snapshot
from app.pages import PAGES, overview, panels
from app.pages.address import LEVELS, read
from app.pages.view import View, looked
from app.web import create_app
from tests.memory import TODAY, Charge, MemoryCosts, charge, memory_backends
from tests.pages.conftest import body_for

NAMES = [output.component_id + "." + output.component_property for output in (*overview.DRAWN, *overview.FILLED)]


def view_of(backends: Backends, search: str = "") -> View:
    now = snapshot(backends)
    assert now.known is not None
    return looked(backends, now, now.known, read(search, backends.today()))


@contextmanager
def context(backends: Backends) -> Iterator[None]:
    with create_app(backends).server.app_context():
        yield


def drawn(backends: Backends, search: str = "") -> dict[str, Any]:
    with context(backends):
        return dict(zip(NAMES, overview.draw(search), strict=True))


def text_of(part: Any) -> str:
    """Everything readable in an element."""
    if isinstance(part, list | tuple):
        return " ".join(filter(None, map(text_of, part)))
    if isinstance(part, dict):
        return text_of(part["props"].get("children"))
    return "" if part is None else str(part)


def days_back(charges: list[Charge], *, days: int = 60, until: int = 1) -> dict[date, list[Charge]]:
    return {TODAY - timedelta(days=n): charges for n in range(until, days + 1)}


def summed(backends: Backends, search: str, metric: str) -> Decimal:
    address, position, total = read(search, TODAY), METRICS.index(metric), Decimal(0)
    costs: Any = backends.costs
    assert isinstance(costs, MemoryCosts)
    for day in address.days:
        for (_, account, service, region, _), amounts in costs.days.get(day, []):
            values = {"account": account, "service": service, "region": region}
            if all(values[level] in chosen for level, chosen in address.filters):
                total += amounts[position] or 0
    return total


SEARCHES = st.builds(
    lambda period, metric, filters: f"?period={period}&metric={metric}" + "".join(f"&{k}={v}" for k, v in filters),
    st.sampled_from(["7d", "30d", "mtd", "lm"]),
    st.sampled_from(METRICS[:3]),
    st.lists(
        st.sampled_from(
            [
                ("service", "AWS Lambda"),
                ("service", "Amazon CloudFront"),
                ("region", "us-east-1"),
                ("account", "staging"),
            ]
        ),
        max_size=3,
    ),
)
SAMPLE = memory_backends()


@settings(max_examples=30)
@given(SEARCHES)
def test_every_total_is_the_sum_of_the_charges(search: str) -> None:
    view = view_of(SAMPLE, search)
    for metric, measured in view.metrics.items():
        assert measured.total == summed(SAMPLE, search, metric)
    expected = summed(SAMPLE, search, view.address.metric)
    assert view.spend.total == expected
    assert sum(t or 0 for t in view.spend.frame.group_totals) == expected
    figures = panels.figures(view, panels.usage_rows(view)) if not view.is_empty else None
    if figures:
        stacked = sum(sum(trace["y"]) for trace in figures["daily"]["data"] if trace["type"] == "bar")
        assert abs(stacked - float(expected)) < 0.5
        bars = [value or 0 for value in figures["regions"]["data"][0]["y"]]
        assert view.address.values("region") or view.address.values("account") or abs(sum(bars) - float(expected)) < 0.5


def test_comparison_is_on_complete_days_only_against_as_many_before() -> None:
    days = days_back([charge("S", "r", "a", "10")], days=70)
    for settling in (1, 2):
        days[TODAY - timedelta(days=settling)] = [charge("S", "r", "a", "1")]
    found = view_of(memory_backends(days)).comparison
    assert found is not None
    assert (found.days, found.now, found.before) == (28, 280, 280)
    assert str(found.days_before.start) == "2026-09-27"
    assert found.groups == {"S": (280, 280)}


def test_a_hole_on_one_side_is_left_out_on_both() -> None:
    days = days_back([charge("S", "r", "a", "10")], days=70)
    backends = memory_backends({day: found for day, found in days.items() if day != date(2026, 10, 3)})
    found = view_of(backends).comparison
    assert found is not None
    assert (found.days, found.left_out, found.now, found.before) == (27, 1, 270, 270)


def test_without_half_of_the_days_before_nothing_is_compared() -> None:
    backends = memory_backends(days_back([charge("S", "r", "a", "10")], days=40))
    assert view_of(backends).comparison is None
    found = drawn(backends)
    assert "No comparison" in text_of(found["total.children"])
    assert "Nothing to compare with yet" in text_of(found["total.children"])
    assert "$280.00" not in text_of(found["breakdown.children"])


def test_average_counts_complete_days_only() -> None:
    days = days_back([charge("S", "r", "a", "10")], days=40) | {
        TODAY - timedelta(days=1): [charge("S", "r", "a", "0.5")]
    }
    view = view_of(memory_backends(days))
    assert view.complete == (28, Decimal(280))
    assert "$10.00" in text_of(panels.total(view))


def test_unknown_blended_cost_is_never_zero() -> None:
    days = days_back([charge("S", "r", "a", "10", blended=None)])
    found = drawn(memory_backends(days), "?metric=blended_cost")
    assert "$0" not in text_of([found["total.children"], found["breakdown.children"], found["top.children"]])
    assert "Not available" in text_of(found["total.children"])
    assert "Not available" in text_of(found["comparison-totals.children"])
    assert [trace["name"] for trace in found["drawn.data"]["figures"]["comparison"]["data"]] == [
        "Amortized",
        "Unblended",
    ]


def test_days_without_data_are_holes_and_said() -> None:
    gone = date(2026, 11, 10)
    days = {day: found for day, found in days_back([charge("S", "r", "a", "10")]).items() if day != gone}
    found = drawn(memory_backends(days))
    daily = found["drawn.data"]["figures"]["daily"]
    assert daily["data"][0]["y"][16] is None
    assert daily["layout"]["shapes"][0]["x0"] == "2026-11-09 12:00"
    assert "10 Nov is incomplete" in text_of(found["notices.children"])
    assert "No data" in text_of(found["legend.children"])


def test_a_rejected_file_is_said() -> None:
    gone = date(2026, 11, 10)
    backends = memory_backends({d: c for d, c in days_back([charge("S", "r", "a", "10")]).items() if d != gone})
    ledger: Any = backends.metadata
    ledger.quarantined = frozenset({gone})
    found = drawn(backends)["notices.children"]
    assert "The cost file of 10 Nov was rejected" in text_of(found)
    assert '"href": "/data?day=2026-11-10"' in json.dumps(found)


def test_old_data_is_said_in_the_header_and_above_the_page() -> None:
    found = drawn(memory_backends(days_back([charge("S", "r", "a", "10")], until=9)))
    assert "No data since 15 Nov" in text_of(found["freshness.children"])
    assert "No cost data has arrived for 9 days" in text_of(found["notices.children"])


def test_settling_days_are_marked_in_words_and_positions() -> None:
    found = drawn(SAMPLE)
    assert found["drawn.data"]["figures"]["daily"]["layout"]["meta"]["settling"] == [28, 29]
    assert "22–23 Nov are still settling" in text_of(found["daily-note.children"])


def test_weeks_cut_by_the_range_are_marked() -> None:
    view = view_of(memory_backends(history=300), "?start=2026-02-04&end=2026-11-01")
    assert view.granularity == "weekly"
    assert view.settling == [0, len(view.spend.frame.periods) - 1]


def test_no_data_at_all() -> None:
    found = drawn(memory_backends({}))
    assert "No cost data yet" in text_of(found["message.children"])
    assert found["panels.className"] == "grid away"


def test_no_match_names_the_filters_and_the_way_out() -> None:
    found = drawn(SAMPLE, "?service=AWS+Lambda&region=nowhere")
    assert "AWS Lambda, nowhere had no cost from 25 Oct – 23 Nov 2026." in text_of(found["message.children"])
    assert '"href": "/"' in json.dumps(found["message.children"])
    assert ["nowhere", ""] in found["drawn.data"]["options"]["region"]


def test_a_range_outside_the_history_leads_back_into_it() -> None:
    found = drawn(SAMPLE, "?start=2020-01-01&end=2020-02-01")
    assert "There is data from 10 Sep – 23 Nov 2026" in text_of(found["message.children"])
    assert "start=2026-10-25&end=2026-11-24" in json.dumps(found["message.children"])


def test_notices_of_the_address_are_shown() -> None:
    assert "Unknown metric 'gold'" in text_of(drawn(SAMPLE, "?metric=gold")["notices.children"])


def test_options_are_those_of_the_other_filters_with_their_cost() -> None:
    options = drawn(SAMPLE, "?service=Amazon+CloudFront&region=global")["drawn.data"]["options"]
    assert [name for name, _ in options["region"]] == ["global"]
    assert len(options["service"]) == 1
    assert [name for name, _ in options["account"]] == ["prod-platform", "data-lake", "staging"]
    assert len(drawn(SAMPLE, "?service=Amazon+CloudFront")["drawn.data"]["options"]["service"]) == 12


def test_the_csv_is_the_same_question() -> None:
    href = drawn(SAMPLE, "?period=7d&service=AWS+Lambda")["csv.href"]
    assert href == (
        "/api/v1/costs?start=2026-11-17&end=2026-11-24&metric=amortized_cost&granularity=daily&group_by=region"
        "&service=AWS+Lambda&format=csv"
    )


def test_the_csv_is_served_by_the_api(client: Any, backends: Backends) -> None:
    answer = client.get(drawn(backends, "?period=7d")["csv.href"])
    assert answer.status_code == 200
    assert answer.mimetype == "text/csv"


def test_hostile_names_are_escaped_where_plotly_reads_html() -> None:
    name = "<b onmouseover=alert(1)>&"
    found = drawn(memory_backends(days_back([charge(name, name, name, "10")])))
    for figure in found["drawn.data"]["figures"].values():
        for trace in figure["data"]:
            assert "<b o" not in json.dumps({key: value for key, value in trace.items() if key != "meta"})
        assert "<b o" not in json.dumps(figure["layout"])


def test_usage_has_its_unit_only_where_there_is_one() -> None:
    rows = panels.usage_rows(view_of(SAMPLE))
    assert len(rows) == 5
    assert all("unit not known" in row.label and "each" not in row.label for row in rows)


def test_a_typical_reply_is_small() -> None:
    figures = drawn(SAMPLE)["drawn.data"]["figures"]
    assert len(json.dumps(figures)) < 40_000
    assert len(figures) == 4


def test_every_id_of_every_callback_stands_in_the_layout() -> None:
    app = create_app(SAMPLE)
    client = app.server.test_client()
    page = {"output": "", "ids": set[str]()}

    def collect(part: Any) -> None:
        if isinstance(part, list):
            for item in part:
                collect(item)
        elif isinstance(part, dict) and "props" in part:
            if "id" in part["props"]:
                page["ids"].add(json.dumps(part["props"]["id"], sort_keys=True))  # type: ignore[attr-defined]
            for value in part["props"].values():
                collect(value)

    collect(client.get("/_dash-layout").get_json())
    for _, _, _, module in PAGES:
        collect(json.loads(json.dumps(module.layout(), default=lambda part: part.to_plotly_json())))
    for spec in app.callback_map.values():
        outputs = spec["output"] if isinstance(spec["output"], list | tuple) else [spec["output"]]
        wanted = [output.component_id for output in outputs] + [
            json.loads(item["id"]) if item["id"].startswith("{") else item["id"]
            for item in spec["inputs"] + spec["state"]
        ]
        for component in wanted:
            if isinstance(component, dict) and ["ALL"] in component.values():
                continue
            assert json.dumps(component, sort_keys=True) in page["ids"], component


def test_a_layout_shows_the_address_before_anything_is_asked() -> None:
    found = overview.layout(service=["b", "a"], metric="unblended_cost", period="7d", strange="x")
    bar = json.dumps(found, default=lambda part: part.to_plotly_json())
    assert '"value": ["a", "b"]' in bar
    assert '"value": "unblended_cost"' in bar


@pytest.mark.parametrize("level", LEVELS)
def test_colours_hold_still_when_the_view_changes(level: str) -> None:
    whole = view_of(SAMPLE, f"?group_by={level}").colours
    part = view_of(SAMPLE, f"?group_by={level}&period=7d&metric=unblended_cost").colours
    shown = list(part)[:6]
    assert {value: part[value] for value in shown} == {value: whole[value] for value in shown}


def test_an_answer_for_a_failing_store_is_a_problem_with_the_way_out(client: Any, backends: Backends, app: Any) -> None:
    costs: Any = backends.costs
    costs.down = True
    answer = client.post("/_dash-update-component", json=body_for(app, ""))
    assert (answer.status_code, answer.content_type) == (503, "application/problem+json")
    assert answer.get_json()["detail"] == "The cost store does not answer."


def test_a_mistake_of_ours_has_a_reference(client: Any, app: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any) -> None:
        raise ZeroDivisionError("secret")

    monkeypatch.setattr(overview, "looked", broken)
    answer = client.post("/_dash-update-component", json=body_for(app, ""))
    assert answer.status_code == 500
    assert answer.get_json()["reference"]
    assert "secret" not in answer.get_data(as_text=True)


@pytest.mark.parametrize("dimension", LEVELS)
@pytest.mark.parametrize("period", ["30d", "90d", "lm", "12m"])
def test_a_range_that_reaches_back_beyond_retention_is_drawn_and_its_total_is_not_zero(
    period: str, dimension: str
) -> None:
    backends = memory_backends()
    costs: Any = backends.costs
    costs.kept_since = TODAY - timedelta(days=20)
    search = f"?period={period}&{dimension}=us-east-1"
    assert drawn(backends, search)
    view = view_of(backends, search.partition("&")[0])
    assert view.spend.not_kept is not None
    text = json.dumps(panels.total(view)[0])
    if view.spend.total is None:
        assert f"Not kept: only the days since {costs.kept_since}" in text
    else:
        assert view.spend.total == summed(backends, search.partition("&")[0], "amortized_cost")
