"""A part that has stopped answering holds a few threads and no more."""

from __future__ import annotations

import os
import threading
import time

import pytest

from app.errors import Unavailable
from app.patience import Patience


class Part:
    """One that answers when it is told to."""

    def __init__(self, most: int, seconds: float) -> None:
        self.patience = Patience(most, seconds, lambda: Unavailable("part", "It does not answer."))
        self.go = threading.Event()
        self.asked = threading.Semaphore(0)

    def ask(self) -> None:
        with self.patience.asking():
            self.asked.release()
            self.go.wait(20)

    def asked_by_another(self) -> threading.Thread:
        thread = threading.Thread(target=self.ask, daemon=True)
        thread.start()
        assert self.asked.acquire(timeout=10)
        return thread


def refused(part: Part) -> float:
    """Seconds until a further call has failed."""
    began = time.monotonic()
    with pytest.raises(Unavailable), part.patience.asking():
        pass
    return time.monotonic() - began


def test_one_that_answers_lets_everybody_in_turn() -> None:
    part = Part(most=1, seconds=5)
    first = part.asked_by_another()
    later = [threading.Thread(target=part.ask) for _ in range(8)]
    for thread in later:
        thread.start()
    part.go.set()
    for thread in [first, *later]:
        thread.join(10)
    assert all(part.asked.acquire(blocking=False) for _ in later)


def test_behind_one_without_an_answer_nobody_waits() -> None:
    part = Part(most=3, seconds=0.3)
    part.asked_by_another()
    time.sleep(0.35)
    assert refused(part) < 0.2
    part.go.set()


def test_a_full_house_is_left_after_so_long() -> None:
    part = Part(most=2, seconds=0.3)
    part.asked_by_another(), part.asked_by_another()
    assert 0.1 < refused(part) < 3
    part.go.set()


def test_it_is_asked_again_once_the_silent_call_has_ended() -> None:
    part = Part(most=1, seconds=0.1)
    silent = part.asked_by_another()
    time.sleep(0.15)
    refused(part)
    part.go.set()
    silent.join(10)
    part.ask()


def test_a_call_that_fails_is_over() -> None:
    part = Part(most=1, seconds=0.1)
    with pytest.raises(ZeroDivisionError), part.patience.asking():
        raise ZeroDivisionError
    part.go.set()
    part.ask()


def test_a_call_inside_a_call_is_part_of_it() -> None:
    part = Part(most=1, seconds=0.1)
    with part.patience.asking(), part.patience.asking():
        assert refused_elsewhere(part)
    part.go.set()
    part.ask()


def refused_elsewhere(part: Part) -> bool:
    seen: list[float] = []
    thread = threading.Thread(target=lambda: seen.append(refused(part)))
    thread.start()
    thread.join(10)
    return bool(seen)


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
def test_a_fork_starts_anew() -> None:
    part = Part(most=1, seconds=30)
    part.asked_by_another()
    child = os.fork()
    if not child:
        part.go.set()
        part.ask()
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    part.go.set()
