"""Whatever is delivered, how often and in which order: what is kept of alerts is the same; and no text becomes a link."""

from __future__ import annotations

import random
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.core.grafanaalerts import (
    GrafanaAlert,
    Told,
    after,
    episode_id,
    link_of,
    seen_grafana_alert,
    texts_of,
    values_of,
)

NOW = datetime(2026, 11, 26, 9, tzinfo=UTC)


def told(hour: int = 0, *, over: bool = False, **changes: object) -> Told:
    starts = NOW + timedelta(hours=hour)
    made = Told("print", over, starts, starts + timedelta(minutes=30) if over else None, {"alertname": "Spike"})
    return replace(made, **changes)  # type: ignore[arg-type]


def kept(deliveries: list[Told]) -> dict[str, GrafanaAlert]:
    records: dict[str, GrafanaAlert] = {}
    for number, one in enumerate(deliveries):
        for changed in after(list(records.values()), one, NOW + timedelta(minutes=number)):
            before = records.get(changed.id)
            assert changed.revision == (before.revision + 1 if before else 1)
            records[changed.id] = changed
    return records


def states(records: dict[str, GrafanaAlert]) -> dict[str, tuple[str, datetime | None]]:
    return {name: (one.status, one.ends) for name, one in records.items()}


EPISODES = st.lists(st.tuples(st.integers(0, 3), st.booleans()), min_size=1, max_size=10)


@given(EPISODES, st.randoms(use_true_random=False))
def test_order_and_repetition_of_deliveries_change_nothing(sent: list[tuple[int, bool]], chance: random.Random) -> None:
    deliveries = [told(hour, over=over) for hour, over in sent]
    shuffled = [*deliveries, *chance.sample(deliveries, len(deliveries) // 2)]
    chance.shuffle(shuffled)
    assert states(kept(deliveries)) == states(kept(shuffled))


@given(EPISODES)
def test_at_most_the_newest_episode_fires_and_a_resolved_one_never_again(sent: list[tuple[int, bool]]) -> None:
    records = kept([told(hour, over=over) for hour, over in sent])
    newest = max(hour for hour, _ in sent)
    for hour, _ in sent:
        found = records[episode_id("print", NOW + timedelta(hours=hour))]
        if (hour, True) in sent:
            assert found.status == "resolved"
        else:
            assert found.status == ("firing" if hour == newest else "missed")


def test_firing_again_renews_what_is_said_and_resolved_closes_it() -> None:
    first = told(annotations={"summary": "1"}, values={"A": 1.0}, panel="https://g/d/1")
    [one] = kept([first, replace(first, annotations={"summary": "2"}, panel=None)]).values()
    assert (one.title, one.panel, one.first, one.last) == ("2", "https://g/d/1", NOW, NOW + timedelta(minutes=1))
    over = told(over=True, annotations={"summary": "over"})
    [one] = kept([over, replace(first, annotations={"summary": "late"})]).values()
    assert (one.status, one.title, one.ends) == ("resolved", "over", NOW + timedelta(minutes=30))


@pytest.mark.parametrize(
    "hostile",
    [
        "javascript:alert(1)", "data:text/html,<script>", "https://user:pw@evil.example/", "//evil.example", "https://",
        "https://x y/", "https://x/\"onclick=", "https://x/<b>", "https://x:99999999/", "https://[::1/", "", None,
        "https://x/" + "a" * 3000, "ftp://x/", "https://x/\u202egpj", "\x00https://x/", "vbscript:x", "https:\\\\x",
    ],
)  # fmt: skip
def test_what_is_no_web_page_becomes_no_link(hostile: str | None) -> None:
    assert link_of(hostile) is None


def test_an_address_of_grafana_stays_as_it_is() -> None:
    address = "http://grafana.corp:3000/d/abc?orgId=1&viewPanel=2&from=1%2B2"
    assert link_of(f" {address} ") == address


@given(st.dictionaries(st.text(max_size=30), st.text(max_size=1200), max_size=60))
def test_texts_are_one_line_and_bounded(given_texts: dict[str, str]) -> None:
    found = texts_of(given_texts)
    assert len(found) <= 40
    for text in (*found, *found.values()):
        assert len(text) <= 1000
        assert text.isprintable()


def test_whose_it_is_is_kept_however_many_labels_there_are() -> None:
    many = {f"a{n:03d}": "x" for n in range(100)} | {"account_id": "111", "account": "222"}
    [one] = kept([told(labels=texts_of(many))]).values()
    assert one.accounts == {"111", "222"}
    assert seen_grafana_alert(one, {"111"}) is None
    assert seen_grafana_alert(one, {"111", "222"}) is one
    [nobody] = kept([told()]).values()
    assert seen_grafana_alert(nobody, {"111"}) is None


def test_only_numbers_are_values() -> None:
    given_values = {"A": 1, "B": "x", "C": True, "D": None, "E": float("nan"), "F": 10**400, "G": -2.5}
    assert values_of(given_values) == {"A": 1.0, "G": -2.5}
