"""Which days are asked for, when they are final, what it costs, and what is refused up front."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.core.collection import asked, chunks, estimate, history, is_final, months_of, oldest, window
from app.core.periods import DateRange
from app.errors import InvalidInput, Refused

ANY_DAY = st.dates(date(2024, 1, 1), date(2032, 12, 31))


@pytest.mark.parametrize(
    ("today", "start"),
    [
        (date(2026, 11, 1), date(2026, 10, 1)),
        (date(2026, 11, 16), date(2026, 10, 1)),
        (date(2026, 11, 17), date(2026, 11, 14)),
        (date(2026, 1, 2), date(2025, 12, 1)),
        (date(2028, 3, 1), date(2028, 2, 1)),
        (date(2028, 3, 31), date(2028, 3, 28)),
    ],
)
def test_a_daily_run_has_the_trailing_days_and_the_previous_month_until_it_closes(today: date, start: date) -> None:
    assert window(today) == DateRange(start, today)


@given(today=ANY_DAY)
def test_every_day_is_collected_when_its_month_has_closed(today: date) -> None:
    """Daily runs alone make every day final: the last run of the previous month is one of the closing day."""
    day = today
    at = next(now for n in range(1, 80) if is_final(day, noon(now := day + timedelta(days=n))))
    assert day in window(at)
    assert not is_final(day, noon(at - timedelta(days=1)))


def noon(day: date) -> datetime:
    return datetime(day.year, day.month, day.day, 12, tzinfo=UTC)


@given(today=ANY_DAY, months=st.integers(1, 13))
def test_a_backfill_is_whole_months_within_reach(today: date, months: int) -> None:
    days = history(months, today, None)
    assert (days.start.day, days.end) == (1, today)
    assert days.start >= oldest(today)
    assert len(months_of(days)) in (months, months + 1)
    assert sum(len(part) for part in months_of(days)) == len(days)
    assert months_of(days)[0].end == today


@pytest.mark.parametrize("months", [0, -1, 14, 400])
def test_a_backfill_beyond_cost_explorer_is_refused(months: int) -> None:
    with pytest.raises(InvalidInput, match=f"months {months} is not 1 to 13"):
        history(months, date(2026, 11, 25), None)


def test_a_backfill_beyond_retention_is_refused() -> None:
    today = date(2026, 11, 25)
    kept = today - timedelta(days=179)
    with pytest.raises(
        Refused, match=r"6 months reach back to 2026-05-01, but the cost store keeps 180 days \(since 2026-05-30"
    ):
        history(6, today, kept)
    assert history(5, today, kept).start == date(2026, 6, 1)


@pytest.mark.parametrize(
    ("start", "end", "field"),
    [
        ("2026-11-20", "2026-11-20", "end"),
        (None, "2026-11-27", "end"),
        ("2025-09-30", None, "start"),
        ("x", None, "start"),
    ],
)
def test_days_that_cannot_be_asked_for_say_which(start: str | None, end: str | None, field: str) -> None:
    with pytest.raises(InvalidInput) as told:
        asked(start, end, date(2026, 11, 25))
    assert told.value.field == field


def test_days_said_and_not_said() -> None:
    today = date(2026, 11, 25)
    assert asked(None, None, today) == DateRange(date(2026, 11, 22), today)
    assert asked("2026-11-01", None, today) == DateRange(date(2026, 11, 1), today)
    assert asked(None, "2026-10-20", today) == DateRange(date(2026, 10, 17), date(2026, 10, 20))
    assert asked("2025-10-01", "2026-11-26", today).start == oldest(today)


def test_two_open_months_are_one_question_and_more_are_asked_month_by_month() -> None:
    two = DateRange(date(2026, 10, 1), date(2026, 11, 16))
    assert chunks(two) == [two]
    parts = chunks(DateRange(date(2026, 8, 20), date(2026, 11, 16)))
    assert [(part.start, part.end) for part in parts] == [
        (date(2026, 11, 1), date(2026, 11, 16)),
        (date(2026, 10, 1), date(2026, 11, 1)),
        (date(2026, 9, 1), date(2026, 10, 1)),
        (date(2026, 8, 20), date(2026, 9, 1)),
    ]


def test_the_price_is_that_of_the_cheaper_loop() -> None:
    months = months_of(DateRange(date(2025, 11, 1), date(2026, 11, 1)))
    assert (estimate(months, 12).requests, estimate(months, 12).price) == (12 * 15, Decimal("1.80"))
    assert estimate(months, 12, 5).requests == 12 * 8
    assert estimate(months, 1).requests == 12 * 3
    assert estimate([], 12).price == 0
