"""Which objects a message is about, and that no message does anything but be read or be refused."""

from __future__ import annotations

import json
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.core.s3events import MOST_LETTERS, NotAnEvent, objects_in
from tests.events import JUNK, created, from_eventbridge, from_s3, notification_test, record, through_sns

KEY = "team a/costs+more/2026-11-20.csv"
NAMES = st.text(st.characters(exclude_categories=("Cs",)), min_size=1, max_size=200)


@pytest.mark.parametrize(
    "body",
    [
        created("bucket", KEY),
        created("bucket", KEY, name="ObjectRemoved:Delete"),
        through_sns(created("bucket", KEY)),
        from_eventbridge("bucket", KEY),
        through_sns(from_eventbridge("bucket", KEY)),
    ],
)
def test_every_shape_names_its_object(body: str) -> None:
    assert objects_in(body) == (("bucket", KEY),)


def test_a_key_comes_url_encoded_with_plus_for_a_space() -> None:
    about = record("bucket", "x")
    about["s3"]["object"]["key"] = "a+b%2Bc/caf%C3%A9%20%26.csv"
    assert objects_in(from_s3(about)) == (("bucket", "a b+c/café &.csv"),)


@given(NAMES, NAMES)
def test_any_key_survives_the_way(bucket: str, key: str) -> None:
    assert objects_in(created(bucket, key)) == ((bucket, key),)
    assert objects_in(through_sns(created(bucket, key))) == ((bucket, key),)
    assert objects_in(from_eventbridge(bucket, key)) == ((bucket, key),)


def test_several_records_are_several_objects_once_each() -> None:
    body = from_s3(record("b", "1"), record("b", "2"), record("c", "1"), record("b", "1", sequencer="00"))
    assert objects_in(body) == (("b", "1"), ("b", "2"), ("c", "1"))


@pytest.mark.parametrize("wrapped", [False, True])
def test_the_test_message_of_a_new_notification_is_about_nothing(wrapped: bool) -> None:
    body = notification_test("bucket")
    assert objects_in(through_sns(body) if wrapped else body) == ()


@pytest.mark.parametrize("body", JUNK)
def test_anything_else_is_refused_with_a_reason(body: str) -> None:
    with pytest.raises(NotAnEvent) as told:
        objects_in(body)
    assert str(told.value).isprintable()
    assert 0 < len(str(told.value)) < 500


def test_one_bad_record_makes_the_message_bad() -> None:
    with pytest.raises(NotAnEvent):
        objects_in(from_s3(record("b", "1"), {"eventSource": "aws:s3"}))


def test_what_is_too_long_or_too_deeply_wrapped_is_not_read() -> None:
    with pytest.raises(NotAnEvent, match="characters"):
        objects_in(" " * MOST_LETTERS + "{}")
    body = created("b", "k")
    for _ in range(3):
        body = through_sns(body)
    with pytest.raises(NotAnEvent):
        objects_in(body)


JSON: Any = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(
                ["Records", "s3", "object", "bucket", "key", "name", "detail", "source", "Type", "Message"]
            ),
            inner,
            max_size=4,
        )
    ),
    max_leaves=20,
)


@given(st.text(max_size=300) | JSON.map(json.dumps))
def test_nothing_but_refusal_comes_of_nonsense(body: str) -> None:
    try:
        found = objects_in(body)
    except NotAnEvent:
        return
    assert all(isinstance(part, str) and part for pair in found for part in pair)


@given(st.data())
def test_a_damaged_message_is_read_or_refused(data: st.DataObject) -> None:
    body = created("bucket", KEY)
    at = data.draw(st.integers(0, len(body) - 1))
    damaged = body[:at] + data.draw(st.text(max_size=3)) + body[at + data.draw(st.integers(0, 40)) :]
    with suppress(NotAnEvent):
        objects_in(damaged)
