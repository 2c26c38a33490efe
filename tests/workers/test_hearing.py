"""Files are taken seconds after the bucket announced them, and whatever becomes of the announcements, the end is the same."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import date, timedelta
from decimal import Decimal
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.backends import Backends
from app.core.ledger import DayRecord
from app.core.periods import DateRange
from app.core.query import CostQuery
from app.costs import ask
from app.errors import BadCredentials
from app.ingest import ANNOUNCED, UNREADABLE, watch
from tests.arrivals import HEADER
from tests.events import JUNK, created, notification_test
from tests.fakes import Down, MemoryAnnouncements
from tests.workers.world import Clock, found, world_of
from workers.jobs import CREDENTIALS_WAIT_SECONDS, HANDLERS, run_job
from workers.schedule import IDLE_SECONDS, RETRY_SECONDS, Hearing

DAY = date(2026, 11, 20)
NAME = f"{DAY}.csv"


@dataclass
class Told:
    """A deployment whose source announces its objects."""

    world: Backends
    folder: Path
    announcements: MemoryAnnouncements
    hearing: Hearing

    def put(self, day: date, amount: int, *, tell: bool = True) -> None:
        temporary = self.folder / "arriving"
        temporary.write_text(HEADER + f"a,S,r,{amount},{amount},{amount},1\n")
        temporary.replace(self.folder / "costs" / f"{day}.csv")
        if tell:
            self.announcements.send(created("bucket", f"costs/{day}.csv"))

    def open_jobs(self) -> list[str]:
        return [str(job.params["key"]) for job in self.world.metadata.unfinished()]

    def work(self) -> None:
        for job in self.world.metadata.unfinished():
            run_job(self.world, job.id, HANDLERS)

    def amount(self, day: date = DAY) -> Decimal | None:
        return ask(self.world, CostQuery(DateRange(day, day + timedelta(days=1)))).total


def told(folder: Path) -> Told:
    announcements = MemoryAnnouncements()
    world = replace(world_of(folder, clock=Clock()), announcements=announcements)
    return Told(world, folder, announcements, Hearing(world, announcements))


@pytest.fixture
def deployment(tmp_path: Path) -> Iterator[Told]:
    opened = told(tmp_path)
    yield opened
    opened.world.metadata.close()


def test_an_announced_file_is_taken_without_a_listing(deployment: Told) -> None:
    deployment.put(DAY, 5)
    assert deployment.hearing.once() == 0.0
    assert deployment.open_jobs() == [NAME]
    assert deployment.announcements.waiting() == 0
    assert deployment.world.metadata.last_slot(ANNOUNCED) == deployment.world.clock()
    deployment.work()
    assert deployment.amount() == 5


def test_silence_pauses_a_moment(deployment: Told) -> None:
    assert deployment.hearing.once() == IDLE_SECONDS
    assert deployment.world.metadata.last_slot(ANNOUNCED) is None


def test_a_message_is_settled_after_its_job_is_recorded_and_not_before(deployment: Told) -> None:
    deployment.put(DAY, 5)
    deployment.hearing._backends = replace(deployment.world, metadata=Down("metadata"))
    assert deployment.hearing.once() == RETRY_SECONDS
    assert deployment.announcements.waiting() == 1
    deployment.announcements.redeliver()
    deployment.hearing._backends = deployment.world
    deployment.hearing.once()
    assert deployment.open_jobs() == [NAME]
    assert deployment.announcements.waiting() == 0


def test_while_the_source_is_away_announcements_wait(deployment: Told) -> None:
    deployment.put(DAY, 5)
    (deployment.folder / "costs").rename(deployment.folder / "away")
    assert deployment.hearing.once() == RETRY_SECONDS
    (deployment.folder / "away").rename(deployment.folder / "costs")
    deployment.announcements.redeliver()
    deployment.hearing.once()
    assert deployment.open_jobs() == [NAME]


def test_an_object_that_is_gone_or_not_ours_or_no_cost_file_is_nothing(deployment: Told) -> None:
    for body in (
        created("bucket", f"costs/{NAME}", name="ObjectRemoved:Delete"),
        created("bucket", "costs/2026-W47-5.csv"),
        created("bucket", "costs/../../etc/passwd"),
        created("bucket", "costs/below/2026-11-20.csv"),
        created("bucket", "coverage/2026-11-20.json"),
        created("elsewhere", f"costs/{NAME}"),
        notification_test("bucket"),
    ):
        deployment.announcements.send(body)
    deployment.hearing.once()
    assert deployment.open_jobs() == []
    assert deployment.announcements.waiting() == 0


def test_junk_stops_nobody_is_rejected_and_told_when_it_doubles(
    deployment: Told, caplog: pytest.LogCaptureFixture
) -> None:
    for body in JUNK:
        deployment.announcements.send(body)
    deployment.put(DAY, 5)
    while deployment.announcements.queued:
        deployment.hearing.once()
    assert deployment.open_jobs() == [NAME]
    assert sorted(deployment.announcements.rejected) == sorted(JUNK)
    assert deployment.world.metadata.last_slot(UNREADABLE) is not None
    for _ in range(40):
        deployment.announcements.send("more junk")
        deployment.hearing.once()
    lines = [line for line in caplog.messages if "no S3 events" in line]
    assert 2 <= len(lines) <= 5
    assert lines[0].endswith(tuple("'}")) or "because" in lines[0]


def test_an_events_queue_that_is_down_is_told_once_and_tried_again(
    deployment: Told, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    down = Hearing(deployment.world, Down("events"))
    assert [down.once() for _ in range(3)] == [RETRY_SECONDS] * 3
    down._announcements = deployment.announcements
    down.once()
    assert sum("does not answer" in line for line in caplog.messages) == 1
    assert sum("works again" in line for line in caplog.messages) == 1


def test_a_queue_that_refuses_us_is_asked_four_times_an_hour(deployment: Told) -> None:
    class Refusing(MemoryAnnouncements):
        def hear(self) -> Any:
            raise BadCredentials("events", "The queue refused access.")

    assert Hearing(deployment.world, Refusing()).once() == CREDENTIALS_WAIT_SECONDS


def test_what_goes_wrong_unforeseen_ends_no_scheduler(deployment: Told, caplog: pytest.LogCaptureFixture) -> None:
    class Broken(MemoryAnnouncements):
        def hear(self) -> Any:
            raise ZeroDivisionError

    assert Hearing(deployment.world, Broken()).once() == RETRY_SECONDS
    assert "Announcements could not be taken" in caplog.text


def test_a_message_that_could_not_be_settled_is_one_job(deployment: Told) -> None:
    deployment.put(DAY, 5)
    settle = deployment.announcements.settle
    deployment.announcements.settle = Down("events").settle  # type: ignore[method-assign]
    assert deployment.hearing.once() == RETRY_SECONDS
    [job] = deployment.world.metadata.unfinished()
    deployment.announcements.settle = settle  # type: ignore[method-assign]
    deployment.announcements.redeliver()
    deployment.hearing.once()
    assert [again.id for again in deployment.world.metadata.unfinished()] == [job.id]
    deployment.work()
    deployment.announcements.send(created("bucket", f"costs/{NAME}"))
    deployment.hearing.once()
    assert deployment.open_jobs() == [], "a known version is not new"
    assert found(deployment.world, job).status == "done"


# --- lost, doubled, out of order ----------------------------------------------------------------------------------

DAYS = [DAY - timedelta(days=number) for number in range(4)]


def without_times(record: DayRecord, root: str) -> Any:
    parts = {
        name: (
            (part.owner or "").removeprefix(root),
            part.sha256,
            part.revision,
            part.first,
            part.current,
            part.estimated,
        )
        for name, part in record.accounts.items()
    }
    sources = {owner.removeprefix(root): sha256 for owner, sha256 in record.sources.items()}
    return record.day, parts, sources, record.covered, record.failed_accounts, record.restating


def ended(deployment: Told) -> Any:
    """Everything that is kept of the days and their files, but when it happened and in which order."""
    root = deployment.world.source.root
    records = deployment.world.metadata.day_records(min(DAYS), max(DAYS) + timedelta(days=1))
    ledger = {day: without_times(record, root) for day, record in records.items()}
    known = deployment.world.metadata.known_versions(root)
    shown = [deployment.amount(day) for day in DAYS]
    stored = {day: kept.accounts for day, kept in deployment.world.costs.stored_days().items()}
    return ledger, sorted((key, status) for (key, _), status in known.items()), shown, stored


MESSAGES = st.lists(
    st.sampled_from([*(created("bucket", f"costs/{day}.csv") for day in DAYS), "junk", notification_test("bucket")]),
    max_size=8,
)


@settings(max_examples=25)
@given(messages=MESSAGES, present=st.lists(st.sampled_from(DAYS), unique=True), pause=st.integers(0, 8))
def test_any_announcements_and_a_listing_end_as_the_listing_alone(
    messages: list[str], present: list[date], pause: int
) -> None:
    """Lost (not in `messages`), doubled, out of order, of files that are not there; workers run in between."""
    ends = []
    for heard in ([], messages):
        with TemporaryDirectory() as folder:
            deployment = told(Path(folder))
            for day in present:
                deployment.put(day, day.day, tell=False)
            for number, message in enumerate(heard):
                deployment.announcements.send(message)
                deployment.hearing.once()
                if number == pause:
                    deployment.work()
            watch(deployment.world)
            deployment.work()
            ends.append(ended(deployment))
            deployment.world.metadata.close()
    assert ends[0] == ends[1]


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("put"), st.sampled_from(DAYS[:2]), st.integers(1, 3)),
        st.tuples(st.just("tell"), st.sampled_from(DAYS[:2]), st.just(0)),
        st.tuples(st.sampled_from(["work", "list", "redeliver"]), st.just(DAY), st.just(0)),
    ),
    max_size=14,
)


@settings(max_examples=40)
@given(steps=STEPS)
def test_files_replaced_meanwhile_end_at_the_last_truth(steps: list[tuple[str, date, int]]) -> None:
    truth: dict[date, int] = {}
    with TemporaryDirectory() as folder:
        deployment = told(Path(folder))
        for action, day, amount in steps:
            if action == "put":
                truth[day] = amount
                deployment.put(day, amount, tell=False)
            elif action == "tell":
                deployment.announcements.send(created("bucket", f"costs/{day}.csv"))
                deployment.hearing.once()
            elif action == "redeliver":
                deployment.announcements.redeliver()
            elif action == "work":
                deployment.work()
            else:
                watch(deployment.world)
        watch(deployment.world)
        deployment.work()
        assert {day: deployment.amount(day) for day in truth} == truth
        assert all(not record.restating for record in deployment.world.metadata.day_records(min(DAYS), DAY).values())
        deployment.world.metadata.close()
