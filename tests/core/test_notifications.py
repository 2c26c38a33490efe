from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, time, timedelta
from zoneinfo import ZoneInfo

import pytest

from app.core.notifications import (
    GIVEN_UP_AFTER,
    LEASE,
    WAITS,
    ChannelState,
    Delivery,
    Notification,
    Pace,
    QuietHours,
    Severity,
    bundle_id,
    digest_of,
    is_due,
    is_held,
    is_wanted,
    message_of,
    new_delivery,
    next_bundle,
    sent_with,
    wait_after,
)

NOW = datetime(2026, 11, 24, 9, 30, tzinfo=UTC)
IDLE = ChannelState("c", 1, NOW)


def one(number: int = 0, severity: Severity = "warning") -> Delivery:
    told = Notification("anomaly", severity, f"T{number}", f"k{number}", NOW + timedelta(seconds=number), (), None)
    return new_delivery("c", told, NOW)


def test_the_same_event_is_one_delivery_of_a_channel() -> None:
    told = one().notification
    again = replace(told, title="said otherwise", occurred=NOW + timedelta(days=1))
    assert new_delivery("c", told, NOW).id == new_delivery("c", again, NOW).id
    assert new_delivery("c", told, NOW).id != new_delivery("other", told, NOW).id


def test_few_go_one_by_one_and_many_in_a_digest() -> None:
    few = [one(n) for n in range(5)]
    assert next_bundle(few, IDLE, Pace(), None, NOW) == few[:1]
    many = [one(n) for n in range(6)]
    assert next_bundle(many, IDLE, Pace(), None, NOW) == many
    assert next_bundle(many, IDLE, Pace(window=timedelta(0)), None, NOW) == many[:1]


def test_after_a_digest_the_window_is_used_up() -> None:
    state = replace(IDLE, recent=sent_with(IDLE, Pace(), 10_000, NOW))
    assert next_bundle([one()], state, Pace(), None, NOW + timedelta(minutes=14)) == []
    assert next_bundle([one()], state, Pace(), None, NOW + timedelta(minutes=15)) == [one()]


def test_single_messages_use_the_window_up_one_by_one() -> None:
    state = IDLE
    for number in range(5):
        assert len(next_bundle([one(number)], state, Pace(), None, NOW)) == 1
        state = replace(state, recent=sent_with(state, Pace(), 1, NOW))
    assert next_bundle([one(5)], state, Pace(), None, NOW) == []


def test_what_was_begun_comes_first_and_stays_together() -> None:
    begun = [replace(one(n), bundle="b") for n in (3, 4)]
    waiting = [one(1), *begun, replace(one(9), bundle="later", not_before=NOW + timedelta(hours=1))]
    assert next_bundle(waiting, IDLE, Pace(), None, NOW) == begun
    assert next_bundle(waiting[3:], IDLE, Pace(), None, NOW) == []


def test_in_quiet_hours_only_critical_ones_are_sent() -> None:
    quiet = QuietHours(time(22), time(7), ZoneInfo("Europe/Berlin"))
    night = datetime(2026, 11, 24, 2, tzinfo=UTC)
    urgent = one(1, "critical")
    assert next_bundle([one(), urgent], IDLE, Pace(), quiet, night) == [urgent]
    assert next_bundle([one()], IDLE, Pace(), quiet, night) == []
    assert next_bundle([one()], IDLE, Pace(), quiet, datetime(2026, 11, 24, 6, tzinfo=UTC)) == [one()]


@pytest.mark.parametrize(
    ("start", "end", "inside", "outside"),
    [(22, 7, (22, 23, 0, 6), (7, 12, 21)), (1, 5, (1, 4), (0, 5, 23)), (9, 9, (), (0, 9, 23))],
)
def test_quiet_hours_may_pass_midnight(start: int, end: int, inside: tuple[int, ...], outside: tuple[int, ...]) -> None:
    quiet = QuietHours(time(start), time(end))
    assert all(quiet.covers(NOW.replace(hour=hour, minute=0)) for hour in inside)
    assert not any(quiet.covers(NOW.replace(hour=hour, minute=0)) for hour in outside)


def test_a_digest_counts_all_and_names_the_weightiest() -> None:
    told = [one(n).notification for n in range(9_999)] + [one(10_000, "critical").notification]
    found = digest_of(told)
    assert found.title == "10000 notifications: 10000 anomaly"
    assert (found.severity, found.facts[0]) == ("critical", ("critical", "T10000"))
    assert found.facts[-1] == ("", "and 9980 more; Spendscope lists all of them")
    assert len(found.facts) == 21


def test_a_message_of_one_is_that_one() -> None:
    assert message_of([one()]) == one().notification
    assert bundle_id([one()]) == one().id
    assert bundle_id([one(), one(1)]) not in (one().id, one(1).id)


def test_a_clock_that_jumped_holds_nothing_for_ever() -> None:
    held = replace(IDLE, held_until=NOW + timedelta(seconds=30))
    assert is_held(held, NOW)
    assert not is_held(held, NOW + timedelta(seconds=30))
    assert not is_held(replace(IDLE, held_until=NOW + LEASE + timedelta(days=365)), NOW)
    assert not is_due(NOW + timedelta(hours=1), NOW)
    assert is_due(NOW + timedelta(days=365), NOW)


def test_eight_tries_take_about_a_day() -> None:
    assert len(WAITS) == 7
    for draw in (0.0, 0.999):
        whole = sum((wait_after(attempts, draw) for attempts in range(1, 8)), timedelta())
        assert timedelta(hours=18) < whole < timedelta(hours=29) < GIVEN_UP_AFTER


def test_a_channel_is_told_what_it_chose() -> None:
    told = replace(one().notification, accounts=("1", "2"))
    assert is_wanted(told, ("anomaly",), "info", ())
    assert is_wanted(told, ("anomaly",), "warning", ("2",))
    assert not is_wanted(told, ("anomaly",), "warning", ("3",))
    assert not is_wanted(told, ("restated",), "info", ())
    assert not is_wanted(told, ("anomaly",), "critical", ())
    assert is_wanted(replace(told, accounts=()), ("anomaly",), "info", ("3",))
