"""Every query is one: Flux by InfluxData's own type checker, PromQL by Prometheus' grammar and by the metrics there are."""

from __future__ import annotations

import re
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from app.backends import Backends
from app.core.charges import DIMENSIONS
from app.metrics import Requests, state_text
from tests.arrivals import arrive, csv, take
from tests.fakes import MemoryQueue
from tests.grafana.queries import Shown, checked, filled, flux_queries, promql_queries

DAYS = Shown(datetime(2026, 10, 1, tzinfo=UTC), datetime(2026, 10, 31, tzinfo=UTC))
HOSTILE = ['a"b', "a/b", "$a", "a${1}b", "a\\b", ".*", "(", "[x", "a|b", "^a$", "a'b", "ä💥", "{", "a b", "\\", "//"]


def test_flux_type_checks() -> None:
    assert checked("flux", {name: filled(text, DAYS) for name, text in flux_queries().items()}) == {}


def test_flux_stays_flux_whatever_is_chosen() -> None:
    total = flux_queries()["Total Spend"]
    asked = {}
    for chosen in [*([value] for value in HOSTILE), HOSTILE]:
        shown = Shown(DAYS.start, DAYS.stop, chosen=dict.fromkeys(("service", "region", "account"), chosen))
        asked[repr(chosen)] = filled(total, shown)
    assert checked("flux", asked) == {}


def test_what_is_not_flux_is_found() -> None:
    wrong = {
        "syntax": 'from(bucket: "b") |> range(start: -1d',
        "argument": 'from(buckt: "b")',
        "type": 'x = 1 + "a"',
        "name": 'from(bucket: "b") |> rang(start: -1d)',
        "unfilled": "from(bucket: v.defaultBucket)",
    }
    assert set(checked("flux", wrong)) == set(wrong)


def test_promql_parses() -> None:
    queries = {name: text.replace("$__rate_interval", "5m") for name, text in promql_queries().items()}
    assert checked("promql", queries) == {}
    assert set(checked("promql", {"open": "sum(", "range": "rate(x[])", "good": "x"})) == {"open", "range"}


@pytest.mark.parametrize(("name", "query"), flux_queries().items())
def test_flux_avoids_what_is_known_to_go_wrong(name: str, query: str) -> None:
    # Grafana replaces any `word.bucket` and the like, also in `r.bucket`.
    assert not re.findall(r"\br\.(bucket|organization|timeRange|windowPeriod|defaultBucket)", query)
    # A window carries its end unless it is told otherwise: every day would be shown as the next one.
    for window in re.findall(r"aggregateWindow\(.*", query):
        assert 'timeSrc: "_start"' in window
        assert "createEmpty: false" in window
        assert "every: 1d" in window
    # Daily points: Grafana's own interval is minutes. A string literal would evaluate `${}` in a value.
    assert "windowPeriod" not in query
    assert "__interval" not in query
    assert not [literal for literal in re.findall(r'"(?:[^"\\]|\\.)*"', query) if "$" in literal]


def test_alerts_ask_without_variables() -> None:
    asked = {name: text for name, text in flux_queries().items() if name.startswith("spendscope-")}
    assert len(asked) == 5
    for text in asked.values():
        assert "$" not in text
        assert "timeRange" not in text


def test_every_metric_asked_for_exists(backends: Backends, folder: Path) -> None:
    take(backends, arrive(folder, csv("a,s,r,1,1,1,1")))
    requests = Requests()
    requests.count("GET", "/", 200, 0.1, "drawn.data")
    exposed = (requests.text() + state_text(replace(backends, queue=MemoryQueue()))).decode()
    labels = {
        name: set(re.findall(r'(\w+)="', found))
        for name, found in re.findall(r"^(\w+)(\{.*?\})? ", exposed, re.MULTILINE)
    }
    for name, query in promql_queries().items():
        for metric, matchers in re.findall(r"(spendscope_\w+)(\{.*?\})?", query):
            assert metric in labels, (name, metric)
            assert set(re.findall(r"(\w+)=", matchers)) <= labels[metric], (name, metric)
        for by in re.findall(r"by \((.*?)\)", query):
            assert set(by.split(", ")) <= set.union(*(labels[m] for m in re.findall(r"spendscope_\w+", query))), name


def test_the_tags_that_are_asked_for_are_written() -> None:
    for name, query in flux_queries().items():
        for tag in re.findall(r"r\.([a-z]\w*)", query):
            assert tag in {*DIMENSIONS, "group", "blended_cost", "amortized_cost"}, (name, tag)
