"""The overview as a person meets it, in a real browser, with the pointer and without."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from datetime import date, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

import pytest

from app.core.amounts import text as exact
from app.costs import ask
from app.pages import address
from tests.e2e.conftest import Served
from tests.memory import EC2, TODAY, MemoryCosts, charge, memory_backends

pytestmark = pytest.mark.browser
AXE = Path(__file__).parents[2] / "node_modules/axe-core/axe.min.js"
RULES = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]
Open = Callable[..., Any]


@pytest.fixture
def open_page(browser: Any, served: Served, profiles: list[Any]) -> Iterator[Open]:
    """Open the app in a fresh browser profile; fails on errors in the console and on requests that leave the machine."""
    trouble: list[str] = []

    def visit(
        search: str = "", *, base: str = "", width: int = 1440, height: int = 1000, ready: bool = True, quiet: bool = False,
        **context: Any,
    ) -> Any:  # fmt: skip
        # Playwright's own waiting needs eval; one test below looks at the policy.
        context = {"bypass_csp": True} | context
        profiles.append(browser.new_context(viewport={"width": width, "height": height}, **context))
        page = profiles[-1].new_page()
        page.set_default_timeout(15_000)
        if not quiet:
            page.on("console", lambda message: message.type == "error" and trouble.append(message.text))
            page.on("pageerror", lambda error: trouble.append(str(error)))
        page.on(
            "request",
            lambda request: urlparse(request.url).hostname in ("127.0.0.1", None) or trouble.append(request.url),
        )
        page.goto((base or served.url + "/") + search)
        if ready:
            drawn(page)
        return page

    yield visit
    for profile in profiles:
        profile.close()
    assert trouble == []


def drawn(page: Any) -> None:
    page.wait_for_selector("#panels:not(.loading):not(.away)")
    page.wait_for_function("document.documentElement.dataset.busy === 'no'")
    page.wait_for_function("document.querySelectorAll('.js-plotly-plot .main-svg').length >= 8")


def settle(page: Any, search_part: str) -> None:
    """Wait until the address has changed and everything is drawn for it."""
    page.wait_for_function(
        "part => decodeURIComponent(location.search.replace(/[+]/g, ' ')).includes(part)", arg=search_part
    )
    page.wait_for_function(
        "document.documentElement.dataset.busy === 'no' && spendscope.drawnSearch() === location.search"
    )


def callbacks(page: Any) -> list[str]:
    """Bodies of the callback requests from now on."""
    found: list[str] = []
    page.on("request", lambda request: "_dash-update-component" in request.url and found.append(request.post_data))
    return found


def shown_total(page: Any) -> str:
    """The exact total behind the headline figure."""
    title = page.locator("#total .figure").first.get_attribute("title")
    return str(title).removeprefix("USD ")


def oracle(served: Served, search: str) -> str:
    """The total by adding the charges up, one by one."""
    asked = address.read(search, TODAY)
    costs: Any = served.backends.costs
    assert isinstance(costs, MemoryCosts)
    total = Decimal(0)
    for day in asked.days:
        for (_, account, service, region, _), amounts in costs.days.get(day, []):
            values = {"account": account, "service": service, "region": region}
            if all(values[level] in chosen for level, chosen in asked.filters):
                total += amounts[0] or 0
    return exact(total)


def test_six_panels_with_their_names_and_the_exact_total(open_page: Open, served: Served) -> None:
    page = open_page()
    names = page.locator("section h2").all_inner_texts()
    assert names[:6] == [
        "Total Spend", "Daily Spend Trends", "Top 5 Services & Regions", "Cost per Region", "Cost Comparison",
        "Service Usage Quantities",
    ]  # fmt: skip
    assert shown_total(page) == oracle(served, "")
    with served.app.server.app_context():
        answer = ask(served.backends, address.read("", TODAY).query)
    assert shown_total(page) == exact(answer.total or Decimal(0))
    columns = page.locator(".breakdown tbody td:nth-child(3)").all_inner_texts()
    shown = sum(Decimal(text.replace("$", "").replace(",", "")) for text in columns)
    assert abs(shown - Decimal(shown_total(page))) < Decimal("0.1")


def test_the_content_security_policy_is_kept(open_page: Open) -> None:
    page = open_page(bypass_csp=False, ready=False)
    page.wait_for_selector("#regions-panel .heatmap-label")
    page.locator("#periods a", has_text="7d").click()
    page.wait_for_selector("#periods a[aria-current]:has-text('7d')")


def test_a_deep_link_shows_itself_in_controls_crumbs_and_figures(open_page: Open, served: Served) -> None:
    search = "?period=7d&service=Amazon+Elastic+Compute+Cloud&region=eu-west-1"
    page = open_page(search)
    assert page.locator("#crumbs li").all_inner_texts() == ["All spend", EC2, "eu-west-1"]
    assert page.locator("#periods [aria-current]").inner_text() == "7d"
    assert "eu-west-1" in page.locator("#filter-region").inner_text()
    assert shown_total(page) == oracle(served, search)
    assert page.locator(".breakdown thead th").first.inner_text() == "Account"


def test_a_cost_type_that_there_is_not_stays_in_the_address_and_is_named(open_page: Open) -> None:
    page = open_page("?metric=usage_quantity")
    page.wait_for_timeout(500)
    assert page.evaluate("location.search") == "?metric=usage_quantity"
    assert "Unknown metric 'usage_quantity'" in page.locator("body").inner_text()


def test_clicks_drill_from_service_to_region_to_account_and_back(open_page: Open, served: Served) -> None:
    page = open_page()
    asked = callbacks(page)
    box = page.locator(".js-plotly-plot").first.locator(".nsewdrag").first.bounding_box()
    page.mouse.click(box["x"] + box["width"] * 0.32, box["y"] + box["height"] - 12)
    settle(page, f"service={EC2}")
    assert len(asked) == 1
    assert page.locator("#crumbs li").all_inner_texts() == ["All spend", EC2]
    page.locator("#legend a", has_text="us-east-1").click()
    settle(page, "region=us-east-1")
    page.locator(".breakdown tbody a", has_text="data-lake").click()
    settle(page, "account=data-lake")
    assert page.locator("#crumbs li").all_inner_texts() == ["All spend", EC2, "us-east-1", "data-lake"]
    assert len(asked) == 3
    assert shown_total(page) == oracle(served, urlparse(page.url).query)
    page.locator("#crumbs a", has_text=EC2).click()
    page.wait_for_function("!location.search.includes('region')")
    settle(page, "service=")
    assert page.locator("#crumbs li").all_inner_texts() == ["All spend", EC2]


def test_a_cell_of_the_grid_fixes_service_and_region(open_page: Open) -> None:
    page = open_page()
    cell = page.locator("#regions-panel .heatmaplayer image").first
    cell.scroll_into_view_if_needed()
    box = cell.bounding_box()
    page.mouse.click(box["x"] + 20, box["y"] + 12)
    settle(page, f"service={EC2}")
    settle(page, "region=us-east-1")


def test_back_and_forward_restore_page_and_controls_with_one_request_each(open_page: Open) -> None:
    page = open_page()
    page.locator("#periods a", has_text="7d").click()
    settle(page, "period=7d")
    page.locator("#legend a").first.click()
    settle(page, "service=")
    asked = callbacks(page)
    page.go_back()
    page.wait_for_function("location.search === '?period=7d'")
    settle(page, "period=7d")
    assert page.locator("#crumbs li").all_inner_texts() == ["All spend"]
    assert "All services" in page.locator("#filter-service").inner_text()
    page.go_back()
    page.wait_for_function("location.search === ''")
    page.wait_for_function("document.querySelector('#periods [aria-current]').textContent === '30d'")
    page.go_forward()
    settle(page, "period=7d")
    assert len(asked) == 3
    assert all('"drawn.data' in body or "..drawn.data" in body for body in asked)


def test_a_filter_by_keyboard_alone(open_page: Open, served: Served) -> None:
    page = open_page()
    for _ in range(30):
        page.keyboard.press("Tab")
        if page.evaluate("!!document.activeElement.closest('.field-region')"):
            break
    page.keyboard.press("Enter")
    page.wait_for_function("document.activeElement.classList.contains('dash-dropdown-search')")
    page.keyboard.type("eu-west")
    page.wait_for_function("document.querySelectorAll('.dash-dropdown-content .option-name').length === 1")
    # The list takes the focus back while it opens: press as a person would, looking at what happened.
    for _ in range(20):
        if page.evaluate("document.activeElement.value") != "eu-west-1":
            page.keyboard.press("ArrowDown")
        elif page.evaluate("document.activeElement.checked"):
            break
        else:
            page.keyboard.press("Space")
        page.wait_for_timeout(200)
    page.keyboard.press("Escape")
    settle(page, "region=eu-west-1")
    assert shown_total(page) == oracle(served, "?region=eu-west-1")


def test_skip_link_is_the_first_stop_and_leads_to_the_content(open_page: Open) -> None:
    page = open_page()
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "Skip to content"
    page.keyboard.press("Enter")
    page.wait_for_function("location.hash === '#main'")
    assert page.evaluate("document.activeElement.id") == "main"


def test_every_chart_can_be_read_as_a_table(open_page: Open, served: Served) -> None:
    page = open_page("?period=7d")
    for panel in ("daily", "regions", "comparison", "usage"):
        place = page.locator(f"#{panel}-panel .as-table")
        place.locator("summary").focus()
        page.keyboard.press("Enter")
        place.locator("tbody tr").nth(5).wait_for()
    days = page.locator("#daily-panel .as-table tbody tr")
    assert days.first.locator("th").inner_text() == "2026-11-17"
    row = days.first.locator("td").all_inner_texts()[:-1]
    total = sum(Decimal(text.replace(",", "")) for text in row)
    assert abs(total - Decimal(oracle(served, "?start=2026-11-17&end=2026-11-18"))) < Decimal("0.05")


def test_the_theme_switches_without_asking_the_server(open_page: Open) -> None:
    page = open_page(color_scheme="light")
    asked = callbacks(page)
    colour = "getComputedStyle(document.querySelector('.barlayer .point path')).fill"
    before = page.evaluate(colour)
    page.locator("#theme-button").click()
    page.wait_for_function(f"before => {colour} !== before", arg=before)
    assert page.evaluate("document.documentElement.dataset.theme") == "dark"
    assert asked == []
    page.reload()
    drawn(page)
    assert page.evaluate("document.documentElement.dataset.theme") == "dark"


def test_dates_chosen_by_typing_become_the_period(open_page: Open, served: Served) -> None:
    page = open_page()
    page.locator(".dash-datepicker-start-date").fill("2 Nov 2026")
    page.keyboard.press("Enter")
    settle(page, "start=2026-11-02&end=2026-11-24")
    page.locator(".dash-datepicker-end-date").fill("8 Nov 2026")
    page.keyboard.press("Enter")
    settle(page, "start=2026-11-02&end=2026-11-09")
    assert shown_total(page) == oracle(served, "?start=2026-11-02&end=2026-11-09")


def test_dragging_over_days_makes_them_the_period(open_page: Open) -> None:
    page = open_page()
    box = page.locator(".js-plotly-plot").first.locator(".nsewdrag").first.bounding_box()
    step = box["width"] / 30
    y = box["y"] + box["height"] / 2
    page.mouse.move(box["x"] + step * 10.2, y)
    page.mouse.down()
    page.mouse.move(box["x"] + step * 14.8, y, steps=4)
    page.mouse.up()
    settle(page, "start=2026-11-04&end=2026-11-09")


@pytest.mark.parametrize("zone", ["Pacific/Niue", "Pacific/Kiritimati"])
def test_days_and_sums_do_not_depend_on_the_browsers_zone(open_page: Open, served: Served, zone: str) -> None:
    search = "?start=2026-10-30&end=2026-11-06"
    page = open_page(search, timezone_id=zone)
    assert page.locator(".dash-datepicker-start-date").input_value() == "30 Oct 2026"
    assert page.locator(".dash-datepicker-end-date").input_value() == "5 Nov 2026"
    page.locator("#daily-panel .as-table summary").click()
    days = page.locator("#daily-panel .as-table tbody th").all_inner_texts()
    assert days == [str(date(2026, 10, 30) + timedelta(days=n)) for n in range(7)]
    assert page.locator("#daily-panel .xtick text").first.text_content() == "30 Oct"
    assert shown_total(page) == oracle(served, search)
    assert urlparse(page.url).query == search[1:]


@pytest.mark.parametrize(
    "search", ["?service=Amazon+Elastic+Compute+Cloud&region=us-east-1&region=eu-west-1", "?service=none"]
)
def test_axe_finds_nothing_in_either_theme(open_page: Open, search: str) -> None:
    if not AXE.exists():
        pytest.skip("axe-core is not installed; npm ci --ignore-scripts to run the accessibility tests")
    page = open_page(search, color_scheme="light", ready=search != "?service=none")
    page.wait_for_selector("#crumbs li")
    page.wait_for_function("document.documentElement.dataset.busy === 'no'")
    page.add_script_tag(path=str(AXE))
    assert violations(page) == []
    page.locator("#theme-button").click()
    page.wait_for_function("document.documentElement.dataset.theme === 'dark'")
    assert violations(page) == []


def violations(page: Any) -> list[tuple[str, list[str]]]:
    found = page.evaluate("rules => axe.run(document, { runOnly: rules })", RULES)
    return [(each["id"], [node["html"][:160] for node in each["nodes"]][:3]) for each in found["violations"]]


def test_small_screens_never_scroll_sideways(open_page: Open) -> None:
    page = open_page(width=320, height=800)
    assert page.evaluate("document.documentElement.scrollWidth") <= 320
    page.locator("#filter-bar summary").click()
    assert page.locator(".field-service").is_visible()
    for width in (320, 390, 768):
        page.set_viewport_size({"width": width, "height": 800})
        page.wait_for_function("width => document.documentElement.scrollWidth <= width", arg=width)


def test_nothing_to_show_says_so_and_offers_the_way_out(open_page: Open, served: Served) -> None:
    page = open_page("?service=AWS+Lambda&region=global", ready=False)
    page.wait_for_selector("#message h2")
    assert "AWS Lambda, global had no cost" in page.locator("#message").inner_text() or (
        "global" in page.locator("#message").inner_text()
    )
    assert page.locator("#panels").is_hidden()
    page.locator("#message a", has_text="Clear filters").click()
    page.wait_for_function("location.search === ''")
    drawn(page)
    assert shown_total(page) == oracle(served, "")
    assert page.locator(".js-plotly-plot .main-svg").first.bounding_box()["width"] > 600


def test_without_any_data_the_page_says_how_to_begin(open_page: Open) -> None:
    empty = Served(memory_backends({}))
    try:
        page = open_page(base=empty.url + "/", ready=False)
        page.wait_for_selector("#message h2")
        assert page.locator("#message h2").inner_text() == "No cost data yet"
        assert "$" not in page.locator("main").inner_text()
    finally:
        empty.stop()


def test_a_stopped_server_is_said_and_the_old_view_stays(open_page: Open) -> None:
    own = Served(memory_backends(history=40))
    try:
        page = open_page(base=own.url + "/", quiet=True)
        before = shown_total(page)
    finally:
        own.stop()
    page.locator("#periods a", has_text="7d").click()
    page.wait_for_selector("#trouble:not([hidden])")
    assert "No connection to the server" in page.locator("#trouble").inner_text()
    assert shown_total(page) == before
    assert page.locator("#trouble button").is_visible()


def test_a_failing_store_is_said_and_trying_again_mends_it(open_page: Open) -> None:
    own = Served(memory_backends(history=40))
    costs: Any = own.backends.costs
    try:
        page = open_page(base=own.url + "/", quiet=True)
        costs.down = True
        page.locator("#periods a", has_text="7d").click()
        page.wait_for_selector("#trouble:not([hidden])")
        assert "The cost store does not answer." in page.locator("#trouble").inner_text()
        costs.down = False
        page.locator("#trouble button").click()
        page.wait_for_selector("#trouble", state="hidden")
        settle(page, "period=7d")
        assert shown_total(page) == oracle(own, "?period=7d")
    finally:
        own.stop()


def test_names_of_services_are_text_wherever_they_stand(open_page: Open) -> None:
    hostile = '<img src=x onerror=alert(1)><b>bold</b> & "it\'s"'
    yesterday = TODAY - timedelta(days=1)
    days = {
        yesterday - timedelta(days=n): [charge(hostile, "us-east-1", "a", "12.5"), charge("--c1", "eu", "b", "7")]
        for n in range(20)
    }
    own = Served(memory_backends(days))
    try:
        page = open_page(base=own.url + "/")
        assert page.locator("main img, .js-plotly-plot b").count() == 0
        assert hostile in page.locator(".breakdown").inner_text()
        assert "onerror=alert(1)" in page.locator("#usage-panel").inner_html()
        page.locator(".breakdown tbody a").first.click()
        settle(page, "onerror")
        assert page.locator("#crumbs li").all_inner_texts()[1] == hostile
    finally:
        own.stop()


def test_settling_days_are_hatched_and_named(open_page: Open) -> None:
    page = open_page()
    patterns = page.locator("#daily-panel .barlayer .trace").first.locator(".point path")
    fills = [patterns.nth(i).get_attribute("style") or "" for i in range(patterns.count())]
    assert ["url(" in style for style in fills] == [False] * 28 + [True] * 2
    assert re.search(r"22–23 Nov are still settling", page.locator("#daily-note").inner_text())
    assert "Settling" in page.locator("#legend").inner_text()
