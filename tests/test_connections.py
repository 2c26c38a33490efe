"""How the processes of one web server share what comes."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from gunicorn.workers.gthread import ThreadWorker

from app import connections
from app.connections import Loads, TimelyWorker, give_place


def worker(loads: Loads, place: int, taken: list[int]) -> Any:
    """One whose gunicorn part only counts."""
    found: Any = TimelyWorker.__new__(TimelyWorker)
    found.nr_conns, found._loads, found.place, found.taken = 0, loads, place, taken
    return found


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    found: list[float] = []

    def accept(self: Any, _: Any) -> None:
        self.nr_conns += 1
        self.taken.append(self.place)

    monkeypatch.setattr(ThreadWorker, "accept", accept)
    monkeypatch.setattr(connections, "time", SimpleNamespace(sleep=found.append))
    return found


def test_a_process_with_more_connections_than_another_lets_it_go_first(waits: list[float]) -> None:
    loads, taken = Loads(2), list[int]()
    first, second = worker(loads, 0, taken), worker(loads, 1, taken)
    first.accept(None)
    assert not waits
    first.accept(None)
    assert len(waits) == 1
    second.accept(None)
    second.accept(None)
    assert len(waits) == 1
    assert taken == [0, 0, 1, 1]


def test_one_process_never_waits(waits: list[float]) -> None:
    only = worker(Loads(1), 0, [])
    for _ in range(3):
        only.accept(None)
    assert not waits


def test_a_new_process_counts_where_none_that_lives_does() -> None:
    living = {10: SimpleNamespace(place=0), 11: SimpleNamespace(place=2)}
    new: Any = SimpleNamespace(place=None)
    give_place(SimpleNamespace(WORKERS=living), new)  # type: ignore[arg-type]
    assert new.place == 1
