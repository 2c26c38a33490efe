"""The Notifications page as the server answers it: channels without secrets, and what was told to whom."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.backends import Backends
from app.core.notifications import DELIVERY_STATUSES, Attempt, Notification
from app.notifications import met, notify
from app.pages.notifications import address as addresses
from app.pages.notifications import panels
from app.pages.notifications.address import Address
from app.pages.notifications.view import look
from tests.api.conftest import NOW, empty_backends
from tests.api.test_notifications import CHANNELS, SECRET


@pytest.fixture
def backends(tmp_path: Path) -> Iterator[Backends]:
    opened = replace(empty_backends(tmp_path / "root"), channels={one.name: one for one in CHANNELS})
    for one in CHANNELS:
        met(opened, one.name)
    yield opened
    opened.metadata.close()


def text_of(part: Any) -> str:
    return json.dumps(part, default=str, ensure_ascii=False)


def tell(backends: Backends, number: int, **changes: Any) -> None:
    given_now = {"link": "https://costs.example.org/", **changes}
    told = [Notification("restated", "warning", f"<b>Event {n}", f"k{n}", NOW, **given_now) for n in range(number)]
    assert notify(backends, told)


cursors = st.text("abcXYZ019_-", min_size=1, max_size=30)


@given(
    st.none() | st.sampled_from(DELIVERY_STATUSES),
    st.none() | st.from_regex(r"[a-z0-9_-]{1,40}", fullmatch=True),
    st.none() | cursors,
)
def test_an_address_reads_what_it_wrote(status: str | None, channel: str | None, cursor: str | None) -> None:
    address = Address(status, channel, cursor)
    assert addresses.read(address.search()) == address


@pytest.mark.parametrize(
    "search", ["?status=gone", "?who=me", "?cursor=xyz", "?channel=" + "x" * 99, "?status=%ff&&=="]
)
def test_no_address_is_an_error(backends: Backends, search: str) -> None:
    tell(backends, 1)
    view = look(backends, addresses.read(search))
    assert view.deliveries or view.address.notices or view.address.channel
    assert panels.listed(view)


def test_channels_are_shown_without_their_secrets(backends: Backends) -> None:
    view = look(backends, Address())
    said = text_of([panels.channels(view), panels.how_to_change(view), panels.listed(view)])
    assert SECRET not in said
    for words in (
        "hook",
        "Webhook",
        "Slack",
        "PagerDuty",
        "E-mail",
        "Works",
        "all accounts",
        "always",
        "at most 5 in 15 min",
    ):
        assert words in said, words
    assert "SPENDSCOPE_CHANNELS_FILE" in said


def test_a_disabled_channel_says_why_and_the_way_out(backends: Backends) -> None:
    state = backends.metadata.channel_state("hook")
    backends.metadata.put_channel_state(replace(state, revision=2, disabled="The receiver answers 403."))
    tell(backends, 3)
    said = text_of(panels.channels(look(backends, Address())))
    assert "The receiver answers 403. A test that succeeds enables it." in said
    assert "3 waiting" in said


def test_what_was_told_is_listed_with_state_tries_and_reason(backends: Backends) -> None:
    tell(backends, 1)
    ids = {one.channel: one.id for one in backends.metadata.deliveries(limit=9).items}
    soon = NOW + timedelta(minutes=5)
    backends.metadata.mark_deliveries([ids["hook"]], Attempt("m", attempts=2, not_before=soon, message="It is down."))
    backends.metadata.mark_deliveries([ids["slack"]], Attempt("n", "failed", 8, finished=NOW, message="Given up."))
    view = look(backends, Address())
    said = text_of(panels.listed(view))
    for words in (
        "<b>Event 0",
        "next try ",
        "2026-11-06 09:05 UTC",
        "It is down.",
        "Given up.",
        "restated days, warning",
    ):
        assert words in said, words
    assert said.count("data-retry") == 1
    assert ids["slack"] in said
    assert "data-retry" not in text_of(panels.listed(replace(view, may_send=False)))
    assert "data-test" not in text_of(panels.channels(replace(view, may_send=False)))
    only = look(backends, Address(status="failed"))
    assert [one.channel for one in only.deliveries] == ["slack"]
    assert "Only of channel " in text_of(panels.filtered(look(backends, Address(channel="hook"))))


def test_pages_hold_everything_once(backends: Backends) -> None:
    tell(backends, 60)
    seen: list[str] = []
    view = look(backends, Address(channel="hook"))
    while True:
        seen += [one.id for one in view.deliveries]
        if view.next_cursor is None:
            break
        assert "Older" in text_of(panels.pages(view))
        view = look(backends, view.address.at(view.next_cursor))
    assert len(seen) == len(set(seen)) == 60
    assert "Newest" in text_of(panels.pages(view))


def test_empty_states_say_what_to_do(tmp_path: Path, backends: Backends) -> None:
    assert "Nothing was told to anybody yet" in text_of(panels.listed(look(backends, Address())))
    assert "Nothing matches" in text_of(panels.listed(look(backends, Address(status="failed"))))
    empty = empty_backends(tmp_path / "empty")
    assert "Nobody is told of anything yet" in text_of(panels.channels(look(empty, Address())))


def test_a_link_that_leads_nowhere_on_the_web_is_text(backends: Backends) -> None:
    tell(backends, 1, link="javascript:alert(1)")
    assert "javascript" not in text_of(panels.listed(look(backends, Address())))
