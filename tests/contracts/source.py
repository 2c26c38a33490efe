"""What every adapter of ports.Source does, whatever technology stands behind it."""

from __future__ import annotations

import gzip
import io
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, date, datetime, timedelta
from typing import Protocol

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from app.errors import Conflict, Quarantined, Unavailable
from app.ports import REFERENCE_BYTES, Source, SourceObject

DAY = date(2026, 11, 20)
NAME = f"{DAY}.csv"
MEGABYTE = 2**20
# The fixture is emptied by each example itself, and the classes of two adapters run the same function.
ONE_TEST_FOR_EVERY_ADAPTER = [
    HealthCheck.function_scoped_fixture,
    HealthCheck.differing_executors,
    HealthCheck.too_slow,
]


class Place(Protocol):
    """Where the tested source reads from, written to behind its back."""

    source: Source

    def put(self, key: str, data: bytes) -> None:
        """Create or replace an object; `key` is relative to the root and may lead below or beside it."""

    def remove(self, key: str) -> None: ...

    def elsewhere(self) -> Source:
        """A source whose bucket or folder does not exist."""


def only(source: Source, name: str = NAME) -> SourceObject:
    [found] = [one for one in source.list() if one.key == name]
    return found


def content(source: Source, found: SourceObject) -> bytes:
    with source.open(found) as stream:
        return stream.read()


class SourceContract:
    """Subclasses give the fixture `place`, empty at the start of each test."""

    @pytest.fixture
    def place(self) -> Iterator[Place]:
        raise NotImplementedError

    def test_an_empty_root_is_usable_and_lists_nothing(self, place: Place) -> None:
        place.source.check()
        assert list(place.source.list()) == []

    def test_the_root_is_kept_as_it_was_given(self, place: Place) -> None:
        assert place.source.root.endswith("costs/")

    def test_lists_what_lies_directly_below_the_root_in_name_order(self, place: Place) -> None:
        names = ["2026-11-03.csv", "2026-11-01.csv", "2026-11-02.csv.gz", "notes.txt", "a b+c%20é.csv", "Z.csv"]
        for name in names:
            place.put(name, name.encode())
        place.put("archive/2026-10-01.csv", b"below")
        place.put("../coverage/2026-11-01.json", b"beside")
        place.put("../other.csv", b"beside")
        assert [found.key for found in place.source.list()] == sorted(names)

    def test_an_entry_tells_size_and_time(self, place: Place) -> None:
        place.put(NAME, b"12345")
        found = only(place.source)
        assert found.size == 5
        assert found.modified.tzinfo is not None
        assert abs(found.modified - datetime.now(UTC)) < timedelta(minutes=1)

    def test_the_version_stays_until_the_bytes_change(self, place: Place) -> None:
        place.put(NAME, b"first")
        first = only(place.source)
        assert only(place.source).version == first.version
        place.put(NAME, b"other")
        assert only(place.source).version != first.version

    def test_a_name_is_found_as_it_is_listed(self, place: Place) -> None:
        names = [NAME, f"{NAME}.gz", "a b+c%20é.csv", "2026-11-2", "💰.csv"]
        for name in names:
            place.put(name, name.encode())
        assert [place.source.find(name) for name in sorted(names)] == list(place.source.list())
        place.put(NAME, b"replaced")
        assert place.source.find(NAME) == only(place.source)
        place.remove(NAME)
        assert place.source.find(NAME) is None, "also when longer names begin with it"

    @pytest.mark.parametrize(
        "name", ["", "/", ".", "..", "archive", "archive/x.csv", "../costs/2026-11-20.csv", "\0", "\ud800", "x" * 5000]
    )
    def test_what_is_not_listed_is_not_found(self, place: Place, name: str) -> None:
        place.put(NAME, b"x")
        place.put("archive/x.csv", b"below")
        assert place.source.find(name) is None

    def test_opens_exactly_what_was_listed(self, place: Place) -> None:
        for name, data in {NAME: b"date,service\r\n", "a b+c%20é.csv": b"odd name", "empty.csv": b""}.items():
            place.put(name, data)
            assert content(place.source, only(place.source, name)) == data

    @settings(
        max_examples=25,
        deadline=None,
        suppress_health_check=ONE_TEST_FOR_EVERY_ADAPTER,
    )
    @given(data=st.binary(max_size=4096), steps=st.lists(st.integers(1, 1500), min_size=1, max_size=6))
    def test_any_bytes_in_any_steps(self, place: Place, data: bytes, steps: list[int]) -> None:
        place.put(NAME, data)
        with place.source.open(only(place.source)) as stream:
            taken = [stream.read(step) for step in steps]
            assert b"".join(taken) + stream.read() == data

    def test_the_stream_is_one_that_libraries_take(self, place: Place) -> None:
        lines = [f"{number},é\n" for number in range(50_000)]
        place.put(f"{NAME}.gz", gzip.compress("".join(lines).encode()))
        with place.source.open(only(place.source, f"{NAME}.gz")) as stream, gzip.open(stream) as unpacked:
            assert list(io.TextIOWrapper(unpacked, "utf-8")) == lines  # type: ignore[arg-type]

    def test_a_replaced_object_is_a_conflict_until_it_is_listed_again(self, place: Place) -> None:
        place.put(NAME, b"old bytes")
        old = only(place.source)
        place.put(NAME, b"new bytes")
        entered = False
        with pytest.raises(Conflict, match=NAME), place.source.open(old):
            entered = True
        assert not entered
        assert content(place.source, only(place.source)) == b"new bytes"

    def test_a_removed_object_is_a_conflict(self, place: Place) -> None:
        place.put(NAME, b"old bytes")
        old = only(place.source)
        place.remove(NAME)
        with pytest.raises(Conflict, match=NAME):
            content(place.source, old)

    @pytest.mark.parametrize("size", [3 * MEGABYTE, 3 * MEGABYTE - 1])
    def test_replaced_while_reading_gives_one_version_or_a_conflict(self, place: Place, size: int) -> None:
        old, new = os.urandom(3 * MEGABYTE), os.urandom(size)
        place.put(NAME, old)
        found = only(place.source)
        try:
            with place.source.open(found) as stream:
                start = stream.read(100_000)
                place.put(NAME, new)
                taken = start + stream.read()
        except Conflict:
            taken = old
        assert taken == old
        assert content(place.source, only(place.source)) == new

    def test_what_the_reader_raises_comes_through(self, place: Place) -> None:
        place.put(NAME, b"x" * MEGABYTE)
        with pytest.raises(ZeroDivisionError), place.source.open(only(place.source)) as stream:
            _ = 1 / (len(stream.read(10)) - 10)
        assert len(content(place.source, only(place.source))) == MEGABYTE

    def test_several_threads_read_at_once(self, place: Place) -> None:
        expected = {f"2026-11-{day:02}.csv": os.urandom(200_000) for day in range(1, 9)}
        for name, data in expected.items():
            place.put(name, data)
        found = list(place.source.list())
        with ThreadPoolExecutor(8) as pool:
            taken = pool.map(lambda one: (one.key, content(place.source, one)), found * 3)
        assert all(expected[name] == data for name, data in taken)

    @pytest.mark.parametrize("name", ["2026-11-20\n.csv", "\x01.csv", "tab\t.csv", "\u202e.csv"])
    def test_names_that_cannot_be_shown_are_left_out(self, place: Place, name: str) -> None:
        place.put(NAME, b"kept")
        place.put(name, b"hostile")
        assert [found.key for found in place.source.list()] == [NAME]

    @pytest.mark.parametrize("name", ["=cmd|calc.csv", "C:\\x.csv", "..csv", "~", "n" * 255, "<script>.csv", "💰.csv"])
    def test_names_that_look_dangerous_are_only_names(self, place: Place, name: str) -> None:
        place.put(name, b"kept")
        assert [found.key for found in place.source.list()] == [name]
        assert content(place.source, only(place.source, name)) == b"kept"

    def test_what_does_not_exist_is_unavailable_and_named(self, place: Place) -> None:
        missing = place.elsewhere()
        asked: list[Callable[[], object]] = [missing.check, lambda: list(missing.list()), lambda: missing.find(NAME)]
        for ask in asked:
            with pytest.raises(Unavailable, match="nowhere") as told:
                ask()
            assert told.value.part == "source"
            assert told.value.code == "unavailable"

    def test_a_sidecar_lies_beside_the_root(self, place: Place) -> None:
        assert place.source.sidecar(DAY) is None
        place.put(f"../coverage/{DAY}.json", b'{"sha256": "x"}')
        assert place.source.sidecar(DAY) == b'{"sha256": "x"}'
        assert place.source.sidecar(date(2026, 11, 19)) is None

    def test_references_lie_beside_the_root(self, place: Place) -> None:
        assert list(place.source.references()) == []
        for name in ("2026-10.json", "2026-09.json", "notes.txt"):
            place.put(f"../reference/{name}", name.encode())
        place.put("../reference/old/2026-08.json", b"below")
        found = list(place.source.references())
        assert [one.key for one in found] == ["2026-09.json", "2026-10.json", "notes.txt"]
        assert place.source.reference(found[0]) == b"2026-09.json"
        assert list(place.source.list()) == []

    def test_a_reference_is_the_version_that_was_listed(self, place: Place) -> None:
        place.put("../reference/2026-10.json", b"old bytes")
        (old,) = place.source.references()
        place.put("../reference/2026-10.json", b"new bytes")
        with pytest.raises(Conflict, match=r"2026-10\.json"):
            place.source.reference(old)
        (new,) = place.source.references()
        assert new.version != old.version
        assert place.source.reference(new) == b"new bytes"

    def test_a_reference_has_at_most_so_many_bytes(self, place: Place) -> None:
        place.put("../reference/2026-10.json", b" " * REFERENCE_BYTES)
        (found,) = place.source.references()
        assert len(place.source.reference(found)) == REFERENCE_BYTES
        place.put("../reference/2026-10.json", b" " * (REFERENCE_BYTES + 1))
        (found,) = place.source.references()
        with pytest.raises(Quarantined, match="32 MiB"):
            place.source.reference(found)

    def test_a_sidecar_has_at_most_a_megabyte(self, place: Place) -> None:
        place.put(f"../coverage/{DAY}.json", b" " * MEGABYTE)
        assert place.source.sidecar(DAY) == b" " * MEGABYTE
        place.put(f"../coverage/{DAY}.json", b" " * (MEGABYTE + 1))
        with pytest.raises(Quarantined, match="1 MiB"):
            place.source.sidecar(DAY)
