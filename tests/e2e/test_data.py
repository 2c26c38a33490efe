"""The Data page as an operator meets it, in a real browser: find what is wrong, see why, mend it, see it mended."""

from __future__ import annotations

import itertools
import os
import re
import shutil
import threading
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import pytest

from app.backends import Backends
from app.core.jobs import Job
from app.errors import Unavailable
from app.jobs import submit
from tests.api.conftest import NOW, backends_at, empty_backends
from tests.arrivals import HEADER
from tests.e2e.conftest import Served
from tests.e2e.test_overview import AXE, Open, callbacks, open_page, violations
from tests.fakes import MemoryQueue
from workers.jobs import HANDLERS, run_job

pytestmark = pytest.mark.browser
__all__ = ["open_page"]

TODAY = NOW.date()
MISSING, REFUSED = TODAY - timedelta(days=9), TODAY - timedelta(days=6)
ACCOUNTS = ("111111111111", "222222222222", "<b>three</b>")


class Working(MemoryQueue):
    """Does what is pushed, one after another, unless it is paused: a worker in a thread of this process."""

    def __init__(self) -> None:
        super().__init__()
        self.backends: Backends | None = None
        self.go = threading.Event()
        self.go.set()

    def push(self, job: Job) -> None:
        super().push(job)
        threading.Thread(target=self._work, args=(job.id,), daemon=True).start()

    def _work(self, id: str) -> None:
        self.go.wait(60)
        assert self.backends is not None
        run_job(self.backends, id, HANDLERS)


@dataclass
class Operated:
    """A served deployment of real embedded parts over a folder, with a worker."""

    served: Served
    backends: Backends
    queue: Working

    @property
    def url(self) -> str:
        return self.served.url + "/data"

    @property
    def folder(self) -> Path:
        return Path(self.backends.source.root.removeprefix("file://"))

    def write(self, day: date, content: bytes) -> None:
        (self.folder / ".new").write_bytes(content)
        (self.folder / ".new").replace(self.folder / f"{day}.csv")


def day_file(cost: str = "10.5") -> bytes:
    return (HEADER + "".join(f"{name},S3,eu,{cost},{cost},{cost},1\n" for name in ACCOUNTS)).encode()


def at(root: Path, began: int = 0) -> tuple[Backends, Working]:
    """Real embedded parts over what is there, and their worker; `began` ms after NOW."""
    ticks, queue = itertools.count(began), Working()
    backends = replace(backends_at(root), queue=queue, clock=lambda: NOW + timedelta(milliseconds=next(ticks)), memo={})
    queue.backends = backends
    return backends, queue


def copied(root: Path, to: Path) -> None:
    shutil.copytree(root, to, ignore=shutil.ignore_patterns("costs"))
    shutil.copytree(root / "costs", to / "costs", copy_function=os.link)


@pytest.fixture(scope="module")
def three_weeks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """25 days of three accounts that end yesterday; one day never came, one was refused. Each test opens it anew.

    The ledger knows the source by its address and a file by its inode: what is opened is always in the same place, a
    copy is kept beside, and the files of costs, which nobody writes into, are linked.
    """
    root = tmp_path_factory.mktemp("operated") / "live"
    empty_backends(root).metadata.close()
    backends, _ = at(root)
    for day in (TODAY - timedelta(days=n) for n in range(1, 26)):
        if day != MISSING:
            (root / "costs" / f"{day}.csv").write_bytes(day_file("1.2.3" if day == REFUSED else "10.5"))
            run_job(backends, submitted(backends, day).id, HANDLERS)
    backends.metadata.close()
    copied(root, root.with_name("kept"))
    return root


@pytest.fixture
def operated(three_weeks: Path, profiles: list[Any]) -> Iterator[Operated]:
    shutil.rmtree(three_weeks)
    copied(three_weeks.with_name("kept"), three_weeks)
    backends, queue = at(three_weeks, began=10_000)
    found = Operated(Served(backends), backends, queue)
    yield found
    for profile in profiles:
        profile.close()
    found.served.stop()
    backends.metadata.close()


def submitted(backends: Backends, day: date) -> Job:
    """Recorded, and not pushed: the test does it itself, in order."""
    return submit(replace(backends, queue=MemoryQueue()), "ingest", {"key": f"{day}.csv"}, key=str(day))


def opened(open_page: Open, operated: Operated, search: str = "", **more: Any) -> Any:
    page = open_page(search, base=operated.served.url + "/data", ready=False, **more)
    page.wait_for_selector("#calendar svg")
    page.wait_for_function("document.documentElement.dataset.busy === 'no'")
    return page


def cell(page: Any, day: date, row: int) -> tuple[float, float]:
    """Where on the screen the cell of a day is; row 0 is all accounts."""
    svg = page.locator("#calendar svg")
    svg.scroll_into_view_if_needed()
    box = svg.bounding_box()
    column = (day - (TODAY - timedelta(days=90))).days
    width = (box["width"] - 2) / 90
    return box["x"] + (column + 0.5) * width, box["y"] + 36 + row * 20 + (6 if row else 0) + 10


def side(page: Any) -> str:
    return str(page.locator("#data-side").inner_text())


def test_a_refused_day_is_found_understood_fetched_mended_and_complete(
    open_page: Open, operated: Operated, tmp_path: Path
) -> None:
    page = opened(open_page, operated)
    page.mouse.click(*cell(page, REFUSED, 2))
    page.wait_for_selector("#day-title")
    assert f"day={REFUSED}&of=222222222222" in page.url
    said = side(page)
    for part in (
        "Saturday 31 Oct 2026",
        "Quarantined",
        "not_a_number",
        "Line 2, amortized_cost",
        "1.2.3",
        "unknown, not zero",
    ):
        assert part in said, part
    with page.expect_download() as expected:
        page.locator("#data-side a", has_text="Download").click()
    assert expected.value.suggested_filename == f"{REFUSED}.csv"
    expected.value.save_as(tmp_path / "got.csv")
    assert (tmp_path / "got.csv").read_bytes() == day_file("1.2.3")

    operated.write(REFUSED, day_file())
    page.locator("#data-side button", has_text="Try again").click()
    page.wait_for_function("document.querySelector('#data-side .day-state b').textContent === 'Complete'")
    page.wait_for_function("document.getElementById('data-quarantined').textContent.includes('No file is quarantined')")
    assert "$10.50" in side(page)
    assert f"Take {REFUSED}.csv again" in page.locator("#data-jobs").inner_text()
    assert page.locator("#calendar .cell.quarantined").get_attribute("d") == ""


def test_a_file_the_source_no_longer_has_says_so_instead_of_downloading(open_page: Open, operated: Operated) -> None:
    page = opened(open_page, operated, f"?day={REFUSED}", quiet=True)
    page.wait_for_selector("#data-side a[data-download]")
    (operated.folder / f"{REFUSED}.csv").unlink()
    page.locator("#data-side a[data-download]").click()
    page.wait_for_function("document.getElementById('toast').textContent.includes('was removed from the source')")
    assert page.url.startswith(operated.url)


def test_deep_links_back_and_forward_show_what_the_address_says(open_page: Open, operated: Operated) -> None:
    page = opened(open_page, operated, f"?period=30d&account=111111111111&day={MISSING}")
    page.wait_for_selector("#day-title")
    assert "Wednesday 28 Oct 2026" in side(page)
    assert page.locator("#data-periods [aria-current]").inner_text() == "30d"
    assert "111111111111" in page.locator("#data-account").inner_text()
    assert page.locator("#calendar .names div").all_inner_texts() == ["All accounts", "111111111111"]
    asked = callbacks(page)
    page.locator("#data-side [aria-label^='Day after']").click()
    page.wait_for_function("document.getElementById('day-title').textContent.startsWith('Thursday')")
    assert len(asked) == 1, "the calendar is not asked for again"
    page.locator("#data-side [data-close]").click()
    page.wait_for_function("!location.search.includes('day=')")
    page.wait_for_function("document.getElementById('data-side').childElementCount === 0")
    page.go_back()
    page.wait_for_function("(document.getElementById('day-title') || {}).textContent === 'Thursday 29 Oct 2026'")
    page.go_back()
    page.wait_for_function("document.getElementById('day-title').textContent === 'Wednesday 28 Oct 2026'")
    page.go_forward()
    page.wait_for_function("document.getElementById('day-title').textContent === 'Thursday 29 Oct 2026'")
    page.locator("#data-periods a", has_text="90d").click()
    page.wait_for_function("!location.search.includes('period')")
    page.wait_for_function("document.querySelector('#calendar svg').querySelectorAll('text.month').length === 4")


def test_the_calendar_by_keyboard_alone(open_page: Open, operated: Operated) -> None:
    page = opened(open_page, operated)
    for _ in range(40):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.id") == "calendar":
            break
    page.keyboard.press("ArrowLeft")
    page.wait_for_function("document.getElementById('status').textContent.includes('5 Nov 2026')")
    for _ in range((TODAY - timedelta(days=1) - REFUSED).days):
        page.keyboard.press("ArrowLeft")
    page.keyboard.press("ArrowDown")
    page.wait_for_function("document.getElementById('status').textContent.includes('quarantined')")
    assert "31 Oct 2026" in page.locator("#status").inner_text()
    page.keyboard.press("Enter")
    page.wait_for_function("document.activeElement.id === 'day-title'")
    assert "of=" in page.url
    page.keyboard.press("Escape")
    page.wait_for_function("!location.search.includes('day=')")
    assert page.evaluate("document.activeElement.id") == "calendar"


def test_the_table_and_the_date_field_lead_to_a_day_as_well(open_page: Open, operated: Operated) -> None:
    page = opened(open_page, operated)
    page.locator("#coverage-panel .as-table summary").click()
    page.locator("#calendar-table a", has_text="open 28 Oct").first.click()
    page.wait_for_selector("#day-title:has-text('28 Oct 2026')")
    page.locator(".go-to-day input").fill("2026-10-31")
    page.wait_for_selector("#day-title:has-text('31 Oct 2026')")


def test_what_else_is_open_stays_when_a_link_changes_one_thing(open_page: Open, operated: Operated) -> None:
    page = opened(open_page, operated, f"?day={MISSING}")
    page.wait_for_selector("#day-title")
    page.locator("#trust-tabs a", has_text="Reconciliation").click()
    page.wait_for_selector("#data-trust .month-steps")
    assert "agree for 3 of 3 accounts" in page.locator("#data-trust").inner_text()
    assert f"day={MISSING}" in page.url
    page.locator("#jobs-panel a", has_text="Backfill history").click()
    page.wait_for_selector("#data-plan .offer button")
    price = page.locator("#data-plan .offer button").inner_text()
    assert re.fullmatch(r"Start, for about \$[0-9.]+", price)
    page.locator("#data-plan a", has_text="6 months").click()
    page.wait_for_function(
        "price => document.querySelector('#data-plan .offer button').textContent !== price", arg=price
    )
    page.locator("#data-periods a", has_text="30d").click()
    page.wait_for_function("location.search.includes('period=30d')")
    for part in (f"day={MISSING}", "show=reconciliation", "backfill=6"):
        assert part in page.url
    page.locator("#data-quarantined a", has_text=".csv").click()
    page.wait_for_function("document.getElementById('day-title').textContent.includes('31 Oct')")
    assert "show=reconciliation" in page.url
    page.locator("#data-plan a", has_text="Not now").click()
    page.wait_for_function("document.getElementById('data-plan').childElementCount === 0")
    page.locator(".reset").click()
    page.wait_for_function("location.search === ''")


def test_jobs_are_watched_while_they_run_and_left_alone_when_not(open_page: Open, operated: Operated) -> None:
    page = opened(open_page, operated)
    page.wait_for_selector("#data-jobs:has-text('Nothing is running')")
    page.wait_for_timeout(1200)
    asked = callbacks(page)
    page.wait_for_timeout(4000)
    assert asked == [], "an idle page asks nothing"
    operated.queue.go.clear()
    page.locator("#data-quarantined button", has_text="Try again").click()
    page.wait_for_selector("#data-jobs .job.next:has-text('Waiting')")
    page.locator("#data-quarantined button", has_text="Try again").click()
    page.wait_for_function("document.getElementById('toast').textContent.length > 0")
    assert page.locator("#data-jobs .job.next").count() == 1
    page.locator("#data-jobs button", has_text="Cancel").click()
    page.wait_for_selector("#data-jobs:has-text('Nothing is running')")
    assert "What was done before stays done" in page.locator("#data-jobs").inner_text()
    operated.queue.go.set()
    page.locator("#data-jobs button", has_text="Run again").first.click()
    page.wait_for_selector("#data-jobs .ended .job-chip:has-text('Quarantined')")


def test_a_hidden_page_asks_nothing(open_page: Open, operated: Operated) -> None:
    page = opened(open_page, operated)
    operated.queue.go.clear()
    page.locator("#data-quarantined button", has_text="Try again").click()
    page.wait_for_selector("#data-jobs .job.next")
    page.evaluate("Object.defineProperty(document, 'hidden', { get: () => window.away !== false, configurable: true })")
    page.wait_for_timeout(1700)
    asked = callbacks(page)
    page.wait_for_timeout(4000)
    assert asked == []
    operated.queue.go.set()
    page.evaluate("window.away = false; document.dispatchEvent(new Event('visibilitychange'))")
    page.wait_for_selector("#data-jobs:has-text('Nothing is running')")


def test_a_stopped_server_is_said_and_the_calendar_stays(open_page: Open, operated: Operated) -> None:
    own = Served(operated.backends)
    page = open_page("", base=own.url + "/data", ready=False, quiet=True)
    page.wait_for_selector("#calendar svg")
    own.stop()
    page.mouse.click(*cell(page, REFUSED, 1))
    page.wait_for_selector("#trouble:not([hidden])")
    assert "No connection to the server" in page.locator("#trouble").inner_text()
    assert page.locator("#calendar svg").is_visible()
    page.locator("#data-quarantined button", has_text="Try again").click()
    page.wait_for_function("document.getElementById('toast').textContent.includes('Nothing was changed')")


def test_trying_again_after_a_failure_shows_what_was_asked_for(open_page: Open, operated: Operated) -> None:
    class Flaky:
        down = False

        def __getattr__(self, name: str) -> Any:
            if self.down:
                raise Unavailable("metadata", "The ledger does not answer.")
            return getattr(operated.backends.metadata, name)

    flaky: Any = Flaky()
    own = Served(replace(operated.backends, metadata=flaky, memo={}))
    try:
        page = open_page("", base=own.url + "/data", ready=False, quiet=True)
        page.wait_for_selector("#calendar svg")
        page.wait_for_function("document.documentElement.dataset.busy === 'no'")
        flaky.down = True
        page.locator("#data-periods a", has_text="30d").click()
        page.wait_for_selector("#trouble:not([hidden])")
        assert "The ledger does not answer." in page.locator("#trouble").inner_text()
        flaky.down = False
        page.locator("#trouble button").click()
        page.wait_for_selector("#trouble", state="hidden")
        page.wait_for_selector("#data-periods [aria-current]:has-text('30d')")
    finally:
        own.stop()


def test_names_of_accounts_are_text_wherever_they_stand(open_page: Open, operated: Operated) -> None:
    page = opened(open_page, operated, f"?day={MISSING}&of=%3Cb%3Ethree%3C%2Fb%3E")
    page.wait_for_selector("#day-title")
    assert "Account <b>three</b>" in side(page)
    assert "<b>three</b>" in page.locator("#calendar .names").inner_text()
    assert page.locator("#calendar .names b").count() == 0


@pytest.mark.parametrize(
    "search",
    [
        "",
        f"?day={REFUSED}&of=111111111111",
        f"?day={MISSING}&show=reconciliation&backfill=12",
        "?show=restatements",
        "?start=2020-01-01&end=2020-02-01&wrong=1",
    ],
)
def test_axe_finds_nothing_in_either_theme(open_page: Open, operated: Operated, search: str) -> None:
    if not AXE.exists():
        pytest.skip("axe-core is not installed; npm ci --ignore-scripts to run the accessibility tests")
    page = opened(open_page, operated, search, color_scheme="light")
    page.wait_for_selector("#data-jobs:has-text('Lately')")
    if "day=" in search:
        page.wait_for_selector("#day-title")
    page.wait_for_selector("#data-trust > *")
    page.wait_for_function("document.documentElement.dataset.busy === 'no'")
    page.locator("#coverage-panel .as-table summary").click()
    page.add_script_tag(path=str(AXE))
    assert violations(page) == []
    page.locator("#theme-button").click()
    page.wait_for_function("document.documentElement.dataset.theme === 'dark'")
    assert violations(page) == []


def test_small_screens_never_scroll_sideways(open_page: Open, operated: Operated) -> None:
    page = opened(open_page, operated, width=320, height=800)
    for width in (320, 390, 768):
        page.set_viewport_size({"width": width, "height": 800})
        page.wait_for_function("width => document.documentElement.scrollWidth <= width", arg=width)
    page.mouse.click(*cell_in_view(page))
    page.wait_for_selector("#day-title")
    for width in (768, 390, 320):
        page.set_viewport_size({"width": width, "height": 800})
        page.wait_for_function("width => document.documentElement.scrollWidth <= width", arg=width)
        box = page.locator("#data-side").bounding_box()
        assert box["x"] >= 0
        assert box["x"] + box["width"] <= width


def cell_in_view(page: Any) -> tuple[float, float]:
    page.locator("#calendar").scroll_into_view_if_needed()
    box = page.locator("#calendar").bounding_box()
    return box["x"] + box["width"] - 30, box["y"] + 36 + 36


def test_a_year_of_sixty_accounts_stays_light(open_page: Open, operated: Operated) -> None:
    names = "".join(f"{n:012},S3,eu,1,1,1,1\n" for n in range(60))
    for n in range(1, 5):
        operated.write(TODAY - timedelta(days=n), (HEADER + names).encode())
        run_job(operated.backends, submitted(operated.backends, TODAY - timedelta(days=n)).id, HANDLERS)
    page = opened(open_page, operated, "?start=2025-10-02&end=2026-11-06&day=2026-11-05")
    page.wait_for_selector("#day-title")
    assert page.locator("#calendar .names div").count() == 64
    assert page.evaluate("document.querySelectorAll('*').length") <= 2500
    assert page.evaluate("document.querySelectorAll('#calendar svg *').length") <= 200
    place = page.evaluate(
        "[document.getElementById('calendar').scrollLeft, document.getElementById('calendar').scrollWidth]"
    )
    assert place[1] > 4000
    assert place[0] > 3000, "the newest days are in sight"


def test_the_navigation_says_where_one_is(open_page: Open, operated: Operated) -> None:
    page = opened(open_page, operated)
    assert page.locator("#navigation [aria-current=page]").inner_text() == "Data"
    page.locator("#navigation a", has_text="Overview").click()
    page.wait_for_selector("#navigation [aria-current=page]:has-text('Overview')")
    page.go_back()
    page.wait_for_selector("#calendar svg")
    assert re.search(r"Complete through", page.locator("#freshness").inner_text())
