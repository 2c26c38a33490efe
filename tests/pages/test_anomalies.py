"""The Anomalies page as the server answers it: addresses, words, and that names from data stay text."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.anomalies import detect, forget_plan, plan, say
from app.backends import Backends
from app.core.jobs import Job
from app.core.periods import DateRange
from app.core.scopes import Scope
from app.jobs import submit
from app.pages.anomalies import address as addresses
from app.pages.anomalies import fromgrafana, panels, plans
from app.pages.anomalies.address import Address
from app.pages.anomalies.view import AnomaliesView, look
from tests import found
from tests.api.conftest import empty_backends
from tests.contracts.metadata import grafana_alert
from workers.jobs import HANDLERS, run_job


@pytest.fixture
def backends(looked_at: Path, tmp_path: Path) -> Iterator[Backends]:
    with found.copied(looked_at, tmp_path / "copy") as opened:
        yield opened


def text_of(part: Any) -> str:
    return json.dumps(part, default=str, ensure_ascii=False)


def opened(backends: Backends) -> AnomaliesView:
    view = look(backends, Address())
    return look(backends, view.address.at(view.records[0].id))


texts = st.text(min_size=1, max_size=20).filter(lambda text: text.isprintable() and text.strip() == text)
states = st.lists(st.sampled_from(["open", "resolved", "dismissed"]), unique=True).map(tuple)


@given(states, st.lists(texts, unique=True, max_size=3), st.none() | st.just("abc"))
def test_an_address_reads_what_it_wrote(chosen: tuple[str, ...], services: list[str], open_one: str | None) -> None:
    filters = (("service", tuple(sorted(services))),) if services else ()
    address = Address(chosen, filters, open_one)
    assert addresses.read(address.search()) == address


@pytest.mark.parametrize("search", ["?state=gone", "?who=me", "?id=" + "x" * 999, "?state=%ff&service=", "?&&=="])
def test_no_address_is_an_error(backends: Backends, search: str) -> None:
    view = look(backends, addresses.read(search))
    assert view.records or view.address.notices
    assert panels.listed(view)


def test_the_list_says_what_where_since_when_and_how_much(backends: Backends) -> None:
    view = look(backends, Address())
    said = text_of(panels.listed(view))
    for words in ("Amazon S3", "111111111111 · us-east-1", "Ongoing", "Rise", "10 Oct 2026", "+$1,"):
        assert words in said, words
    assert panels.spoken(view) == "Showing 1 anomaly, 1 open"
    assert "Open" in text_of(panels.state_tabs(view))


def test_a_trend_leaves_out_what_is_unknown_and_what_settles(backends: Backends) -> None:
    view = look(backends, Address())
    [values] = view.trends.values()
    assert 20 <= len(values) <= 30
    assert values[-1] > 350 > 150 > values[0] > 50


def test_one_anomaly_shows_band_cause_and_story(backends: Backends) -> None:
    view = opened(backends)
    assert view.band
    first = (found.SPIKE - view.band.days.start).days
    assert view.band.actual[first] > view.band.usual.high[first] > view.band.usual.low[first] > 50
    assert abs(view.band.usual.middle[first - 1] - 100) < 10
    figure = panels.figure(view)
    assert figure
    assert figure["layout"]["shapes"][0]["x0"] == "2026-10-09 12:00"
    assert "100.0 %" in text_of(panels.contributions(view))
    assert "10 Oct 2026" in text_of(panels.timeline(view))
    assert "No day of it" not in text_of(panels.chart_note(view))


def test_contributions_lead_into_the_filtered_overview(backends: Backends) -> None:
    view = opened(backends)
    assert view.chosen
    href = panels.overview_href(Scope("a&b", "<i>", None), view.chosen, view.today)
    assert href == "/?start=2026-10-03&end=2026-10-20&service=%3Ci%3E&account=a%26b"


def test_what_was_said_is_shown_with_its_reason(backends: Backends) -> None:
    view = opened(backends)
    assert view.chosen
    say(backends, view.chosen.id, "dismissed", by="ana", reason="<script>")
    view = opened(backends)
    assert "Dismissed by ana" in text_of(panels.heading(view))
    assert "<script>" in text_of(panels.timeline(view))
    only_open = look(backends, Address(states=("open", "ongoing")))
    assert "No anomaly matches these filters." in text_of(panels.listed(only_open))


def test_an_anomaly_that_is_not_there_is_said(backends: Backends) -> None:
    view = look(backends, Address(id="nobody"))
    assert view.chosen is None
    assert "There is no such anomaly" in text_of(panels.notices(view))


def test_an_empty_page_says_why(tmp_path: Path, built: Path) -> None:
    empty = look(empty_backends(tmp_path / "empty"), Address())
    assert "No cost data yet" in text_of(panels.listed(empty))
    with found.copied(built, tmp_path / "copy") as backends:
        assert "Not looked for yet" in text_of(panels.listed(look(backends, Address())))


def done(backends: Backends, params: dict[str, Any]) -> Job:
    job = submit(backends, "detect", params, key=str(params))
    run_job(backends, job.id, HANDLERS)
    ended = backends.metadata.job(job.id)
    assert ended
    return ended


def test_what_other_limits_would_have_said_comes_from_a_job(backends: Backends) -> None:
    assert "Nothing was counted yet" in text_of(panels.backtest(look(backends, Address())))
    params = {"backtest": True, "min_daily": 1.0, "min_total": None}
    job = submit(backends, "detect", params, key="waiting")
    assert "Being counted" in text_of(panels.backtest(look(backends, Address())))
    run_job(backends, job.id, HANDLERS)
    said = text_of(panels.backtest(look(backends, Address())))
    assert "1 alert" in said
    assert "with at least $1.00 a day: 1 rise." in said


def test_the_last_look_is_told(backends: Backends) -> None:
    assert "Not looked for yet" in text_of(panels.looked(look(backends, Address())))
    done(backends, {})
    assert "up to 16 Oct 2026" in text_of(panels.looked(look(backends, Address())))


def test_alerts_of_grafana_are_text_with_checked_links(backends: Backends) -> None:
    assert "No alert of a Grafana has arrived" in text_of(grafana_of(look(backends, Address())))
    evil = grafana_alert(
        "evil", labels={"alertname": "x", "account": "111", "team": "<b>ops</b>"}, panel="https://g.example/d/1",
        annotations={"summary": "<script>", "description": "Look"}, values={"A": 12.5},
    )  # fmt: skip
    over = grafana_alert("over", fingerprint="2", status="resolved", ends=found.NOW)
    for one in (evil, over):
        assert backends.metadata.put_grafana_alert(one)
    drawn = grafana_of(look(backends, Address()))
    said = text_of(drawn)
    for words in ("<script>", "111 · team: <b>ops</b> · A = 12.5", "Firing", "Resolved", "noopener noreferrer"):
        assert words in said, words
    assert said.index("Firing") < said.index("Resolved")
    assert [part["props"]["href"] for part in links(drawn)] == ["https://g.example/d/1"]
    for number in range(60):
        backends.metadata.put_grafana_alert(grafana_alert(str(number), fingerprint=str(number), status="resolved"))
    assert "There are more" in text_of(grafana_of(look(backends, Address())))


def grafana_of(view: AnomaliesView) -> Any:
    return fromgrafana.listed(view.grafana, view.more_of_grafana, sees_all=view.sees_all)


def links(part: Any) -> list[Any]:
    if isinstance(part, list):
        return [link for one in part for link in links(one)]
    if not isinstance(part, dict):
        return []
    return ([part] if part.get("type") == "A" else []) + links(part["props"].get("children"))


def test_planned_spend_is_listed_and_names_what_it_silenced(built: Path, tmp_path: Path) -> None:
    with found.copied(built, tmp_path / "copy") as backends:
        days = DateRange(found.SPIKE, found.SPIKE + timedelta(days=2))
        made = plan(backends, Scope(service="Amazon S3"), days, "<b>Load test", by="ana", extra=Decimal(9999))
        plan(backends, Scope(), DateRange(found.LAST, found.LAST + timedelta(days=40)), "Later", by="ana")
        detect(backends)
        view = opened(backends)
        said = text_of(plans_of(view))
        for words in (
            "<b>Load test",
            "Amazon S3",
            "10 Oct – 11 Oct 2026",
            "+$9,999.00",
            "1 anomaly",
            "nothing yet",
            "any amount",
        ):
            assert words in said, words
        assert made.id in said
        assert "because of the planned spend of 10 Oct – 11 Oct 2026 for Amazon S3" in text_of(panels.heading(view))
        assert "planned: <b>Load test" in text_of(panels.listed(view))
        forget_plan(backends, made.id)
        view = opened(backends)
        assert "planned spend that was removed since" in text_of(panels.heading(view))
        assert "data-forget-plan" not in text_of(plans_of(replace(view, may_plan=False)))
        assert "Editors who see all accounts" in text_of(plans.form_note(False))


def plans_of(view: AnomaliesView) -> Any:
    return plans.listed(view.plans, view.every, view.currency, view.today, may_plan=view.may_plan)
