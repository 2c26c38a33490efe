"""The Anomalies page in a real browser: open one, judge it by keyboard, judge several, count alerts; no axe findings."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from app.anomalies import plan
from app.backends import Backends
from app.core.anomalyrecords import dollars
from app.core.periods import DateRange
from app.core.scopes import Scope
from tests import found
from tests.contracts.metadata import anomaly, grafana_alert
from tests.e2e.conftest import Served
from tests.e2e.test_data import Working
from tests.e2e.test_overview import AXE, Open, open_page, violations

pytestmark = pytest.mark.browser
__all__ = ["open_page"]


@dataclass
class Judged:
    served: Served
    backends: Backends

    @property
    def url(self) -> str:
        return self.served.url + "/anomalies"


@pytest.fixture
def judged(looked_at: Path, tmp_path: Path, profiles: list[Any]) -> Iterator[Judged]:
    """The one that the detector finds, and two older ones."""
    ticks, queue = itertools.count(), Working()
    with found.copied(looked_at, tmp_path / "copy") as opened:
        backends = replace(opened, queue=queue, clock=lambda: found.NOW + timedelta(milliseconds=next(ticks)), memo={})
        queue.backends = backends
        for number in range(2):
            scope = Scope("222222222222", "<b>Amazon EC2</b>", "us-east-1")
            backends.metadata.put_anomaly(
                anomaly(
                    f"old{number}", found.FIRST + timedelta(days=20 + number), verdicts=(), found="resolved", scope=scope,
                    contributions=(), impact=dollars(50.0 + number), expected=Decimal(100), actual=Decimal(150),
                )
            )  # fmt: skip
        served = Served(backends)
        yield Judged(served, backends)
        for profile in profiles:
            profile.close()
        served.stop()


def visit(open_page: Open, judged: Judged, search: str = "", **more: Any) -> Any:
    page = open_page(search, base=judged.url, ready=False, **more)
    page.wait_for_selector(".anomaly-table")
    settled(page)
    return page


def settled(page: Any) -> None:
    page.wait_for_function("document.documentElement.dataset.busy === 'no'")


def test_open_judge_by_keyboard_and_close(open_page: Open, judged: Judged) -> None:
    page = visit(open_page, judged)
    assert page.locator(".anomaly-table tbody tr").count() == 3
    page.get_by_role("link", name="Amazon S3").press("Enter")
    page.wait_for_function("document.activeElement.id === 'anomaly-title'")
    page.wait_for_selector("#anomaly-side .js-plotly-plot .scatterlayer .trace")
    page.keyboard.press("a")
    page.wait_for_selector("#anomaly-head .job-chip:text('Acknowledged')")
    page.locator("#anomaly-title").focus()
    page.keyboard.press("d")
    page.wait_for_function("document.activeElement.id === 'anomalies-reason-one'")
    page.keyboard.type("Load test, a d o e")
    page.locator("#anomaly-side [data-say=dismissed]").click()
    page.wait_for_selector("#anomaly-head .why:has-text('Load test, a d o e')")
    page.locator("#anomaly-title").focus()
    page.keyboard.press("Escape")
    page.wait_for_selector("#anomaly-side.away", state="attached")
    page.wait_for_function("document.activeElement.textContent === 'Amazon S3'")
    [record] = [one for one in judged.backends.metadata.anomalies(found.FIRST, found.LAST) if one.verdicts]
    assert [said.state for said in record.verdicts] == ["acknowledged", "dismissed"]
    page.go_back()
    page.wait_for_selector("#anomaly-title")


def test_several_are_dismissed_together_with_a_reason(open_page: Open, judged: Judged) -> None:
    page = visit(open_page, judged, "?state=resolved")
    for box in page.locator("[data-choose]").all():
        box.press("Space")
    assert page.locator(".verdicts.bulk").inner_text().startswith("2 chosen")
    page.locator(".bulk [data-say=dismissed]").click()
    page.wait_for_function("document.activeElement.id === 'anomalies-reason-chosen'")
    page.keyboard.type("Old news")
    page.locator(".bulk [data-say=dismissed]").click()
    page.wait_for_selector("#anomalies-list .calm")
    found_there = judged.backends.metadata.anomalies(found.FIRST, found.LAST)
    assert sorted(one.reason or "" for one in found_there) == ["", "Old news", "Old news"]


def test_alerts_under_other_limits_are_counted_by_a_job(open_page: Open, judged: Judged) -> None:
    page = visit(open_page, judged)
    page.locator("#backtest-daily").fill("5000")
    page.locator("[data-backtest]").click()
    page.wait_for_selector("#anomalies-backtest b:text('0 alerts')")
    assert "at least $5,000.00 a day" in page.locator("#anomalies-backtest").inner_text()


def test_spend_is_planned_and_a_window_removed_by_keyboard_with_errors_in_words(
    open_page: Open, judged: Judged
) -> None:
    page = visit(open_page, judged, quiet=True)
    page.locator("#plan-reason").focus()
    page.keyboard.press("Enter")
    page.wait_for_selector("#plan-trouble:text('Say what is planned.')")
    page.keyboard.type("Load test <b>")
    page.locator("#plan-start").fill("2026-10-12")
    page.locator("#plan-last").fill("2026-10-11")
    page.locator("#plan-service").fill("Amazon S3")
    page.locator("#plan-extra").fill("250.5")
    page.keyboard.press("Enter")
    page.wait_for_selector("#plan-trouble:text('The last day is before the first.')")
    assert page.evaluate("document.activeElement.id") == "plan-last"
    page.locator("#plan-last").fill("2028-10-13")
    page.keyboard.press("Enter")
    page.wait_for_selector("#plan-trouble:has-text('at most 366')")
    page.locator("#plan-last").fill("2026-10-13")
    page.keyboard.press("Enter")
    page.wait_for_selector("[data-plan]:has-text('Load test <b>')")
    [made] = judged.backends.metadata.planned_spend()
    assert (str(made.start), str(made.end), made.extra) == ("2026-10-12", "2026-10-14", Decimal("250.5"))
    assert made.scope == Scope(None, "Amazon S3", None)
    page.locator("[data-forget-plan]").press("Enter")
    page.keyboard.press("Enter")
    page.wait_for_selector("#anomalies-plans .calm")
    assert judged.backends.metadata.planned_spend() == []


def test_an_alert_of_grafana_is_shown_and_leads_there(open_page: Open, judged: Judged) -> None:
    judged.backends.metadata.put_grafana_alert(
        grafana_alert(annotations={"summary": "<img src=x onerror=alert(1)>"}, panel="https://grafana.example.org/d/1")
    )
    page = visit(open_page, judged)
    link = page.locator("#anomalies-grafana a")
    assert link.inner_text() == "<img src=x onerror=alert(1)>"
    assert link.get_attribute("href") == "https://grafana.example.org/d/1"
    assert page.locator("#anomalies-grafana img").count() == 0


def test_filters_and_links_are_addresses(open_page: Open, judged: Judged) -> None:
    page = visit(open_page, judged, "?service=Amazon+S3")
    assert page.locator(".anomaly-table tbody tr").count() == 1
    page.get_by_role("link", name="Resolved").click()
    page.wait_for_selector("#anomalies-list .calm")
    assert page.url.endswith("?state=resolved&service=Amazon+S3")


def test_the_overview_marks_them_and_leads_there(open_page: Open, judged: Judged) -> None:
    page = open_page("?start=2026-10-01&end=2026-10-17", base=judged.served.url + "/")
    mark = page.locator("#daily-anomalies a")
    mark.wait_for()
    assert mark.inner_text() == "10 Oct Amazon S3"
    page.wait_for_selector("#daily-panel .scatterlayer .points path")
    mark.click()
    page.wait_for_selector("#anomaly-title")
    assert "/anomalies?id=" in page.url


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1440])
def test_axe_finds_nothing(open_page: Open, judged: Judged, theme: str, width: int) -> None:
    if not AXE.exists():
        pytest.skip("npm ci installs axe-core, which this needs")
    plan(judged.backends, Scope(None, "Amazon S3", None), DateRange(found.SPIKE, found.LAST), "Load test", by="ana")
    judged.backends.metadata.put_grafana_alert(
        grafana_alert(labels={"severity": "warning"}, panel="https://g.example/")
    )
    page = visit(open_page, judged, width=width, color_scheme=theme)
    page.add_script_tag(path=str(AXE))
    assert violations(page) == []
    page.locator("#anomalies-list a").first.click()
    page.wait_for_selector("#anomaly-title")
    page.locator("[data-choose]").first.click()
    settled(page)
    assert violations(page) == []
    assert page.evaluate("document.documentElement.scrollWidth") <= width
