"""The lines that say how far a pile of new files is."""

from __future__ import annotations

import logging

import pytest

from app.backends import Backends
from app.jobs import submit
from tests.workers.world import Clock
from workers.arriving import TELL_SECONDS, Arriving


class Ticks:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def said(caplog: pytest.LogCaptureFixture) -> list[str]:
    found = [record.getMessage() for record in caplog.records if record.name == "workers.arriving"]
    caplog.clear()
    return found


def test_a_pile_is_told_of_now_and_then_and_when_it_is_in(
    world: Backends, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    ticks = Ticks()
    arriving = Arriving(ticks=ticks)
    jobs = [submit(world, "ingest", {"key": f"{number}.csv"}, key=str(number)) for number in range(4)]
    submit(world, "detect", {}, key="other")
    arriving.expect(jobs)

    def look() -> list[str]:
        arriving.look(world.metadata.unfinished(), world.metadata)
        return said(caplog)

    def end(number: int, status: str) -> None:
        claim = world.metadata.claim(jobs[number].id, worker="w", now=clock(), lease_until=clock())
        assert claim is not None
        assert world.metadata.finish(claim.id, claim.token, status, now=clock())  # type: ignore[arg-type]

    assert look() == []
    end(0, "done")
    assert look() == [], "not a line a file"
    ticks.now += TELL_SECONDS
    assert look() == ["New files: 1 of 4 looked at"]
    end(1, "quarantined")
    end(2, "done")
    assert look() == []
    ticks.now += 31
    end(3, "done-noop")
    assert look() == ["New files: 2 taken, 1 known already, 1 quarantined, after 41 s"]
    assert look() == []
    late = submit(world, "ingest", {"key": "late.csv"}, key="late")
    assert look() == [], "seen without having been expected: another process submitted it"
    world.metadata.cancel(late.id, now=clock())
    assert look() == ["New files: 1 cancelled, after 0 s"]
