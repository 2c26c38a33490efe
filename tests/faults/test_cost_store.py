"""What becomes of the figures when the cost store will not have them: cells C5, C9 and C10 of docs/faults.md."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from app.backends import Backends, utc_now
from app.core.periods import DateRange
from app.core.query import CostQuery
from app.costs import ask
from app.errors import Conflict, Refused
from app.ingest import watch
from tests.arrivals import HEADER
from tests.faults.world import DAY, cost_file, total_of
from tests.workers.world import Clock, found, world_of
from workers.jobs import HANDLERS, run_job

TODAY = Clock().now.date()


@pytest.fixture
def world(tmp_path: Path) -> Iterator[Backends]:
    opened = world_of(tmp_path, clock=Clock())
    yield opened
    opened.metadata.close()


def put(folder: Path, data: bytes, day: object = DAY) -> None:
    (folder / "arriving").write_bytes(data)
    (folder / "arriving").replace(folder / "costs" / f"{day}.csv")


def work(world: Backends) -> list[str]:
    """Look, run what is due, and say how it ended."""
    watch(world)
    jobs = world.metadata.unfinished()
    for job in jobs:
        run_job(world, job.id, HANDLERS)
    return [found(world, job).status for job in jobs]


def shown(world: Backends) -> object:
    return ask(world, CostQuery(DateRange(DAY, DAY + timedelta(days=1)))).total


class Refusing:
    """A cost store that takes some of a day's points and says no to the rest, as InfluxDB does with 422."""

    atomic = False

    def __init__(self, behind: object) -> None:
        self._behind = behind
        self.asked = self.published = 0

    def __getattr__(self, name: str) -> object:
        return getattr(self._behind, name)

    def replace(self, *_: object) -> object:
        self.asked += 1
        raise Conflict("InfluxDB refused points of the day: 422 partial write: field type conflict dropped=1.")

    def publish(self, _: object) -> None:
        self.published += 1


def test_c5_a_partial_write_is_never_shown_and_the_servers_words_are(world: Backends, tmp_path: Path) -> None:
    put(tmp_path, old := cost_file(0))
    assert work(world) == ["done"]
    put(tmp_path, new := cost_file(1))
    store = Refusing(world.costs)
    refused = replace(world, costs=store)  # type: ignore[arg-type]
    watch(refused)
    [job] = refused.metadata.unfinished()
    for tried in range(1, 6):
        run_job(refused, job.id, HANDLERS)
        ended = found(refused, job)
        assert "partial write: field type conflict dropped=1" in (ended.message or "")
        assert (ended.status, shown(refused)) == ("failed" if tried == 5 else "waiting", total_of(old))
        world.clock.forward(61)  # type: ignore[attr-defined]
    assert (store.asked, store.published) == (5, 0)
    record = world.metadata.day_record(DAY)
    assert record.restating, "the store may hold some of it: other figures of the day say so"
    assert all(part.revision == 1 for part in record.accounts.values())
    world.clock.forward(1000)  # type: ignore[attr-defined]
    assert work(world) == ["done"], "the next look tries again, with a store that takes it"
    assert shown(world) == total_of(new)


@pytest.mark.parametrize(("age", "kept"), [(394, True), (395, False), (420, False)])
def test_c9_what_retention_would_drop_is_refused_before_it_is_written(tmp_path: Path, age: int, kept: bool) -> None:
    world, today = world_of(tmp_path, clock=utc_now, retention_days=395), utc_now().date()
    day = today - timedelta(days=age)
    put(tmp_path, cost_file(0), day)
    if kept:
        assert work(world) == ["done"]
        return
    store = Refusing(world.costs)
    assert work(replace(world, costs=store)) == ["quarantined"]  # type: ignore[arg-type]
    assert store.asked == 0
    [record] = world.metadata.ingestions(limit=9).items
    assert record.reason is not None
    assert record.reason.code == "retention"
    assert f"{day} is older than the 395 days" in record.reason.message
    assert f"since {today - timedelta(days=394)}" in record.reason.message
    assert work(world) == [], "known, and not tried again by itself"


def test_c9_the_way_out_works(tmp_path: Path) -> None:
    """As the reason says: raise retention, and name the file."""
    day = utc_now().date() - timedelta(days=420)
    shorter = world_of(tmp_path, clock=utc_now, retention_days=395)
    put(tmp_path, data := cost_file(0), day)
    assert work(shorter) == ["quarantined"]
    longer = world_of(tmp_path, clock=utc_now, retention_days=0)
    [job] = watch(longer, [f"{day}.csv"]).jobs
    run_job(longer, job.id, HANDLERS)
    stored = longer.costs.stored_days()[day]
    assert sum(part.amortized_cost for part in stored.accounts.values()) == total_of(data)
    assert [one.status for one in longer.metadata.ingestions(limit=9).items] == ["ingested"]


def test_c9_a_day_that_expires_between_check_and_write_is_quarantined_too(world: Backends, tmp_path: Path) -> None:
    class Later:
        def __getattr__(self, name: str) -> object:
            return getattr(world.costs, name)

        def replace(self, *_: object) -> object:
            raise Refused("It is older than the 395 days the cost store keeps.", code="retention")

    put(tmp_path, cost_file(0))
    assert work(replace(world, costs=Later())) == ["quarantined"]  # type: ignore[arg-type]
    assert not world.metadata.day_record(DAY).restating


@pytest.mark.parametrize(("ahead", "taken"), [(0, True), (2, True), (3, False), (4000, False)])
def test_c10_a_day_that_has_not_come_is_quarantined(world: Backends, tmp_path: Path, ahead: int, taken: bool) -> None:
    day = TODAY + timedelta(days=ahead)
    put(tmp_path, cost_file(0), day)
    assert work(world) == (["done"] if taken else ["quarantined"])
    assert (day in world.costs.stored_days()) is taken
    if not taken:
        [record] = world.metadata.ingestions(limit=9).items
        assert record.reason is not None
        assert (record.reason.code, record.reason.value) == ("future_date", str(day))


def test_c10_a_row_of_another_day_is_no_way_around(world: Backends, tmp_path: Path) -> None:
    put(tmp_path, f"date,{HEADER}{TODAY + timedelta(days=9)},a,S,r,1,1,1,1\n".encode(), TODAY)
    assert work(world) == ["quarantined"]
    assert world.costs.stored_days() == {}
