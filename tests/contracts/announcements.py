"""What every adapter of ports.Announcements does, whatever queue stands behind it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

import pytest

from app.ports import Announcements
from tests.events import JUNK, created, from_eventbridge, from_s3, notification_test, record, through_sns

KEY = "2026-11-20.csv"


class Station(Protocol):
    """A queue of announcements about objects below `prefix` of `bucket`, written to behind the adapter's back."""

    announcements: Announcements
    bucket: str
    prefix: str

    def send(self, body: str) -> None: ...

    def redeliver(self) -> None:
        """Let what was heard and not settled be heard again."""


def keys(station: Station) -> list[str]:
    return [key for one in station.announcements.hear() for key in one.keys]


class AnnouncementsContract:
    """Subclasses give the fixture `station`, empty at the start of each test."""

    @pytest.fixture
    def station(self) -> Iterator[Station]:
        raise NotImplementedError

    def test_silence_is_nothing(self, station: Station) -> None:
        station.announcements.check()
        assert list(station.announcements.hear()) == []
        assert station.announcements.waiting() == 0

    def test_an_object_is_announced_by_its_name_below_the_root(self, station: Station) -> None:
        for body in (
            created(station.bucket, station.prefix + KEY),
            through_sns(created(station.bucket, station.prefix + KEY)),
            from_eventbridge(station.bucket, station.prefix + KEY),
        ):
            station.send(body)
            [heard] = station.announcements.hear()
            assert (heard.keys, heard.unreadable) == ((KEY,), None)
            station.announcements.settle([heard])

    def test_what_was_not_settled_is_heard_again_and_what_was_is_not(self, station: Station) -> None:
        station.send(created(station.bucket, station.prefix + KEY))
        [heard] = station.announcements.hear()
        assert station.announcements.waiting() == 1
        station.redeliver()
        [again] = station.announcements.hear()
        assert again.keys == heard.keys
        station.announcements.settle([again])
        station.redeliver()
        assert list(station.announcements.hear()) == []
        assert station.announcements.waiting() == 0

    def test_other_objects_have_no_key_here_and_can_be_settled(self, station: Station) -> None:
        for body in (
            created("another-bucket", station.prefix + KEY),
            created(station.bucket, "elsewhere/" + KEY),
            notification_test(station.bucket),
        ):
            station.send(body)
            [heard] = station.announcements.hear()
            assert (heard.keys, heard.unreadable) == ((), None)
            station.announcements.settle([heard])
        station.redeliver()
        assert station.announcements.waiting() == 0

    def test_one_message_may_tell_of_many(self, station: Station) -> None:
        names = [f"2026-11-{day:02}.csv" for day in range(1, 15)]
        station.send(from_s3(*(record(station.bucket, station.prefix + name) for name in [*names, *names])))
        assert keys(station) == names

    def test_more_than_one_request_takes_are_settled(self, station: Station) -> None:
        for day in range(1, 24):
            station.send(created(station.bucket, f"{station.prefix}2026-11-{day:02}.csv"))
        heard = []
        while more := station.announcements.hear():
            heard += more
        assert len(heard) == 23
        station.announcements.settle(heard)
        station.redeliver()
        assert station.announcements.waiting() == 0

    @pytest.mark.parametrize("body", [body for body in JUNK if body and len(body) < 1000])
    def test_junk_is_heard_as_such_and_can_be_rejected(self, station: Station, body: str) -> None:
        station.send(body)
        [heard] = station.announcements.hear()
        assert heard.keys == ()
        assert heard.unreadable
        station.announcements.reject([heard])
        station.redeliver()
        assert list(station.announcements.hear()) == []

    def test_nothing_settled_is_nothing(self, station: Station) -> None:
        station.announcements.settle([])
        station.announcements.reject([])
