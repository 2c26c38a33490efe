"""How the processes of one web server share what comes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from gunicorn.workers.gthread import ThreadWorker

from app import connections
from app.connections import AFTER_YOU_SECONDS, Shares, TimelyWorker, give_place

ROOT = Path(__file__).parent.parent


class Moment:
    """The clock, and what was slept."""

    def __init__(self) -> None:
        self.now = 100.0
        self.slept: list[float] = []

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds


class Listener:
    """So many connections wait to be taken."""

    def __init__(self, waiting: int) -> None:
        self.waiting = waiting


def worker(shares: Shares, place: int) -> Any:
    """One whose gunicorn part only counts."""
    found: Any = TimelyWorker.__new__(TimelyWorker)
    found.nr_conns, found._shares, found.place, found._leaves_it_until = 0, shares, place, None
    return found


@pytest.fixture
def moment(monkeypatch: pytest.MonkeyPatch) -> Moment:
    def accept(self: Any, listener: Listener) -> None:
        if listener.waiting:
            listener.waiting -= 1
            self.nr_conns += 1

    moment = Moment()
    monkeypatch.setattr(ThreadWorker, "accept", accept)
    monkeypatch.setattr(connections, "time", moment)
    return moment


def test_a_process_that_took_more_than_another_lets_it_go_first(moment: Moment) -> None:
    shares, crowd = Shares(2), Listener(20)
    quick, slow = worker(shares, 0), worker(shares, 1)
    while crowd.waiting:
        for _ in range(3):
            quick.accept(crowd)
        slow.accept(crowd)
    assert (quick.nr_conns, slow.nr_conns) == (10, 10)


def test_connections_it_has_kept_do_not_count(moment: Moment) -> None:
    """They may have ended, and it has not heard of it yet."""
    shares, crowd = Shares(2), Listener(1)
    one = worker(shares, 0)
    one.nr_conns = 10
    one.accept(crowd)
    assert (one.nr_conns, moment.slept) == (11, [])


def test_what_another_does_not_take_is_taken_soon(moment: Moment) -> None:
    shares, crowd = Shares(2), Listener(3)
    only = worker(shares, 0)
    tries = 0
    while crowd.waiting:
        only.accept(crowd)
        tries += 1
    assert only.nr_conns == 3
    assert 2 * AFTER_YOU_SECONDS <= sum(moment.slept) < 2.5 * AFTER_YOU_SECONDS
    assert tries > 10, "in between it does what else there is"


def test_every_connection_is_left_for_as_long(moment: Moment) -> None:
    """Also after one that another process took."""
    shares, crowd = Shares(3), Listener(1)
    one, another = worker(shares, 0), worker(shares, 1)
    one.accept(crowd)
    crowd.waiting = 1
    one.accept(crowd)
    another.accept(crowd)
    assert (one.nr_conns, another.nr_conns) == (1, 1)
    moment.now += 0.5
    crowd.waiting = 1
    one.accept(crowd)
    assert crowd.waiting, "the third process has taken none"


def test_each_second_begins_anew(moment: Moment) -> None:
    shares, crowd = Shares(2), Listener(2)
    one = worker(shares, 0)
    one.accept(crowd)
    moment.now += 1
    one.accept(crowd)
    assert (one.nr_conns, moment.slept) == (2, [])


def test_nothing_to_take_is_not_counted(moment: Moment) -> None:
    shares = Shares(2)
    one = worker(shares, 0)
    for _ in range(5):
        one.accept(Listener(0))
    assert moment.slept == []


def test_one_process_never_waits(moment: Moment) -> None:
    only, crowd = worker(Shares(1), 0), Listener(3)
    while crowd.waiting:
        only.accept(crowd)
    assert moment.slept == []


FORKED = """
import os
from app.connections import Shares
shares = Shares(2)
if not (child := os.fork()):
    shares.took_one(1, 7)
    os._exit(0)
os.waitpid(child, 0)
shares.took_one(0, 7)
shares.took_one(0, 7)
print(shares.is_ahead(0, 7), shares.is_ahead(1, 7))
shares.took_one(1, 7)
print(shares.is_ahead(0, 7))
"""


def test_shares_are_known_to_forked_processes() -> None:
    shown = subprocess.run([sys.executable, "-c", FORKED], capture_output=True, text=True, cwd=ROOT, check=True)
    assert shown.stdout.split() == ["True", "False", "False"]


def test_a_new_process_counts_where_none_that_lives_does() -> None:
    living = {10: SimpleNamespace(place=0), 11: SimpleNamespace(place=2)}
    new: Any = SimpleNamespace(place=None)
    give_place(SimpleNamespace(WORKERS=living), new)  # type: ignore[arg-type]
    assert new.place == 1
