"""Kept answers: fast, bounded, and never of another version, day or encoding."""

from __future__ import annotations

import json
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from werkzeug.test import TestResponse

from app.answers import OVERHEAD, Answer, Answers, Key
from app.web import create_app
from tests.memory import TODAY, charge, memory_backends
from tests.pages.conftest import body_for


def test_a_repeated_request_is_answered_from_memory_and_the_same(
    client: Any, answers: Answers, body: dict[str, Any]
) -> None:
    first, second = (client.post("/_dash-update-component", json=body) for _ in range(2))
    assert (answers.hits, len(answers)) == (1, 1)
    assert first.data == second.data
    assert first.content_type == second.content_type


def test_a_new_data_version_is_never_answered_from_memory(
    app: Any, client: Any, backends: Any, body: dict[str, Any]
) -> None:
    def total() -> str:
        return str(client.post("/_dash-update-component", json=body).get_json()["response"]["status"])

    before = total()
    assert total() == before
    backends.costs.put(TODAY - timedelta(days=5), [charge("New", "x", "y", "1000000")])
    assert total() != before


def test_a_new_ledger_version_is_never_answered_from_memory(
    client: Any, backends: Any, answers: Answers, body: dict[str, Any]
) -> None:
    client.post("/_dash-update-component", json=body)
    backends.metadata.quarantined = frozenset({TODAY - timedelta(days=9)})
    del backends.metadata.records[TODAY - timedelta(days=9)]
    backends.metadata.version += 1
    # The ledger is read again at most a fifth of the time; what it says then is what the key says.
    backends.memo.pop("ledgers")
    answer = client.post("/_dash-update-component", json=body).get_json()["response"]
    assert "was rejected" in json.dumps(answer["notices"])
    assert answers.hits == 0


def test_the_next_day_is_never_answered_from_memory(body: dict[str, Any]) -> None:
    backends = memory_backends(history=40)
    now = [backends.clock()]
    app = create_app(replace(backends, clock=lambda: now[0]))
    client = app.server.test_client()
    days = []
    for _ in range(2):
        answer = client.post("/_dash-update-component", json=body_for(app, "")).get_json()["response"]
        days.append(answer["drawn"]["data"]["days"])
        now[0] += timedelta(days=1)
    assert days[0] != days[1]


def test_a_version_that_changes_while_the_answer_is_made_is_not_kept(
    app: Any, client: Any, backends: Any, answers: Answers, body: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    from app.pages import overview

    real = overview.looked

    def slow(*given: Any) -> Any:
        found = real(*given)
        backends.costs.put(TODAY - timedelta(days=5), [charge("New", "x", "y", "1")])
        return found

    monkeypatch.setattr(overview, "looked", slow)
    client.post("/_dash-update-component", json=body)
    assert len(answers) == 0


def test_encodings_are_kept_apart(client: Any, body: dict[str, Any]) -> None:
    def answer(encoding: str) -> TestResponse:
        found: TestResponse = client.post("/_dash-update-component", json=body, headers={"Accept-Encoding": encoding})
        return found

    for _ in range(2):
        assert answer("gzip").headers.get("Content-Encoding") == "gzip"
        assert answer("").headers.get("Content-Encoding") is None
        assert answer("zstd, br").headers["Content-Encoding"] in ("zstd", "br")


def test_errors_and_other_callbacks_are_not_kept(
    app: Any, client: Any, backends: Any, answers: Answers, body: dict[str, Any]
) -> None:
    backends.costs.down = True
    assert client.post("/_dash-update-component", json=body).status_code == 503
    backends.costs.down = False
    assert client.post("/_dash-update-component", json=body).status_code == 200
    assert len(answers) == 1
    pages = next(name for name in app.callback_map if name.startswith("..__pages") or "_pages_content" in name)
    inputs = [
        {"id": "_pages_location", "property": name, "value": value}
        for name, value in (("pathname", "/"), ("search", ""))
    ]
    outputs = [{"id": o.component_id, "property": o.component_property} for o in app.callback_map[pages]["output"]]
    request = {"output": pages, "outputs": outputs, "inputs": inputs, "changedPropIds": ["_pages_location.pathname"]}
    assert client.post("/_dash-update-component", json=request).status_code == 200
    assert len(answers) == 1


@given(st.lists(st.tuples(st.integers(0, 12), st.integers(0, 400)), max_size=80))
def test_memory_is_bounded_and_what_is_found_is_what_was_put(puts: list[tuple[int, int]]) -> None:
    kept = Answers(3000)
    newest: dict[Key, bytes] = {}
    for name, size in puts:
        key = Key((1, 1), "", f"{name}:{size}".encode())
        newest[key] = bytes(size)
        kept.put(key, Answer(bytes(size), "application/json", None))
        assert kept.bytes <= 3000
    found = {key: answer for key in newest if (answer := kept.get(key))}
    assert sum(OVERHEAD + len(key.body) + len(answer.body) for key, answer in found.items()) == kept.bytes
    assert all(answer.body == newest[key] for key, answer in found.items())


def test_the_least_recently_used_answer_goes_first() -> None:
    keys = [Key(1, "", bytes([n])) for n in range(4)]
    kept = Answers(3 * (OVERHEAD + 11))
    for key in keys[:3]:
        kept.put(key, Answer(bytes(10), "text", None))
    kept.get(keys[0])
    kept.put(keys[3], Answer(bytes(10), "text", None))
    assert [kept.get(key) is not None for key in keys] == [True, False, True, True]


def test_a_kept_answer_counts_as_the_callback_it_answers(client: Any, body: dict[str, Any], answers: Answers) -> None:
    for _ in range(3):
        client.post("/_dash-update-component", json=body)
    assert answers.hits == 2
    told = client.get("/metrics").get_data(as_text=True)
    [count] = [
        line for line in told.splitlines() if line.startswith('spendscope_callback_seconds_count{callback="drawn.data"')
    ]
    assert float(count.split()[-1]) == 3


@pytest.mark.parametrize("fails", [False, True])
def test_a_crowd_has_its_answer_made_once_unless_that_fails(
    app: Any, body: dict[str, Any], answers: Answers, monkeypatch: pytest.MonkeyPatch, fails: bool
) -> None:
    from app.pages import overview

    real, made, everybody = overview.looked, [], threading.Barrier(4)

    def slow(*given: Any) -> Any:
        made.append(threading.get_ident())
        if len(made) == 1:
            everybody.wait(30)
            while answers.misses < 4:
                time.sleep(0.01)
            if fails:
                raise ZeroDivisionError
        return real(*given)

    def ask() -> int:
        everybody.wait(30)
        return int(app.server.test_client().post("/_dash-update-component", json=body).status_code)

    monkeypatch.setattr(overview, "looked", slow)
    with ThreadPoolExecutor(4) as pool:
        first = pool.submit(lambda: app.server.test_client().post("/_dash-update-component", json=body).status_code)
        others = [pool.submit(ask) for _ in range(3)]
        assert first.result(60) == (500 if fails else 200)
        assert [other.result(60) for other in others] == [200] * 3
    assert len(made) == (4 if fails else 1)
    assert not answers._made
