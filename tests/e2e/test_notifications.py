"""The Notifications page in a real browser: a test by keyboard with its outcome in words, sending again; no axe findings."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from app.backends import Backends
from app.channels import SlackChannel, WebhookChannel
from app.core.notifications import Attempt, Notification
from app.notifications import met, notify
from tests.api.conftest import NOW, empty_backends
from tests.e2e.conftest import Served
from tests.e2e.test_overview import AXE, Open, open_page, violations
from tests.faults.test_notifier import Recording

pytestmark = pytest.mark.browser
__all__ = ["open_page"]
SECRET = "very-secret-path"


@dataclass
class Told:
    served: Served
    backends: Backends
    sender: Recording


@pytest.fixture
def told(tmp_path: Path) -> Iterator[Told]:
    ticks, sender = itertools.count(), Recording()
    channels = (
        WebhookChannel(name="hook", type="webhook", url=f"https://x.example/{SECRET}", quiet_hours="22:00-07:00"),  # type: ignore[arg-type]
        SlackChannel(name="slack", type="slack", url=f"https://hooks.slack.com/{SECRET}", kinds=("restated",)),  # type: ignore[arg-type]
    )
    backends = replace(
        empty_backends(tmp_path / "root"), channels={one.name: one for one in channels}, webhooks=sender,
        clock=lambda: NOW + timedelta(seconds=2 * next(ticks)), memo={},
    )  # fmt: skip
    for one in channels:
        met(backends, one.name)
    now = NOW + timedelta(hours=1)
    events = [Notification("restated", "warning", f"<b>Event {n}</b>", f"k{n}", now, link="/") for n in range(3)]
    notify(backends, events)
    failing, *_ = backends.metadata.deliveries(limit=9, channel="hook").items
    attempt = Attempt(
        "m", "failed", 8, finished=NOW, message="The receiver of channel hook answers 500. Given up after 8 tries."
    )
    backends.metadata.mark_deliveries([failing.id], attempt)
    served = Served(backends)
    yield Told(served, backends, sender)
    served.stop()
    backends.metadata.close()


def visit(open_page: Open, told: Told, search: str = "", **more: Any) -> Any:
    page = open_page(search, base=told.served.url + "/notifications", ready=False, **more)
    page.wait_for_selector("#notifications-list .notify-table, #notifications-list .calm")
    return page


def test_a_test_by_keyboard_says_what_came_of_it_and_what_failed_is_sent_again(open_page: Open, told: Told) -> None:
    page = visit(open_page, told)
    assert SECRET not in page.content()
    assert page.locator("#notifications-list b").count() == 0
    page.get_by_role("button", name="Send a test to hook").press("Enter")
    page.wait_for_selector("[data-result=hook]:text('Sent: the receiver took it.')")
    told.sender.answers = [500]
    page.get_by_role("button", name="Send a test to hook").press("Enter")
    page.wait_for_selector("[data-result=hook]:has-text('Failed: The receiver of channel hook answers 500.')")
    page.get_by_role("link", name="Failed").click()
    page.wait_for_selector("#notifications-list tbody tr:nth-child(2)")
    assert page.url.endswith("?status=failed")
    page.locator("[data-retry]").press("Enter")
    page.wait_for_function("document.querySelectorAll('[data-retry]').length === 0")
    assert len(told.backends.metadata.pending_deliveries("hook")) == 3
    page.get_by_role("link", name="slack").click()
    page.wait_for_selector("#notifications-list .calm")
    page.get_by_role("link", name="All channels").click()
    page.wait_for_selector("#notifications-list tbody tr")


@pytest.mark.parametrize(("theme", "width"), [("light", 1440), ("dark", 390)])
def test_axe_finds_nothing(open_page: Open, told: Told, theme: str, width: int) -> None:
    if not AXE.exists():
        pytest.skip("npm ci installs axe-core, which this needs")
    page = visit(open_page, told, width=width, color_scheme=theme)
    page.add_script_tag(path=str(AXE))
    assert violations(page) == []
    assert page.evaluate("document.documentElement.scrollWidth") <= width
