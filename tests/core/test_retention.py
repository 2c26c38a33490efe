"""What stays of months beyond retention (app.core.retention), and which questions it answers."""

from __future__ import annotations

from datetime import UTC, date, datetime
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.core.amounts import total as exact_total
from app.core.charges import METRICS, NOTHING, Totals
from app.core.ledger import AccountDay, DayRecord
from app.core.periods import DateRange
from app.core.query import CostQuery
from app.core.retention import (
    MonthTotals,
    fold,
    kept_frame,
    month_rollup,
    reaches_back,
    rows_from_months,
    total_from_months,
    whole_periods_since,
)
from app.core.rollup import Rollup

AT = datetime(2026, 10, 1, tzinfo=UTC)
OLDEST = date(2026, 8, 11)

AMOUNTS = st.decimals(min_value=-(10**12), max_value=10**12, places=20)
TOTALS = st.builds(
    Totals,
    rows=st.integers(1, 10**6),
    amortized_cost=AMOUNTS,
    blended_cost=AMOUNTS | st.none(),
    unblended_cost=AMOUNTS,
    usage_quantity=AMOUNTS,
) | st.just(NOTHING)
DAYS = st.dictionaries(
    st.dates(date(2026, 7, 1), date(2026, 7, 31)), st.dictionaries(st.sampled_from("abc"), TOTALS), max_size=6
)


def record(day: date, parts: dict[str, Totals]) -> DayRecord:
    accounts = {name: AccountDay("f", "s", 1, one, one, False, AT, AT) for name, one in parts.items()}
    return DayRecord(day, 1, accounts, {"f": "s"})


@given(days=DAYS, metric=st.sampled_from(METRICS))
def test_a_folded_month_answers_with_the_exact_sums_of_its_days(
    days: dict[date, dict[str, Totals]], metric: str
) -> None:
    totals = fold(date(2026, 7, 1), [record(day, parts) for day, parts in days.items()])
    assert totals.days == len(days)
    query = CostQuery(DateRange(date(2026, 6, 1), date(2026, 9, 1)), metric, "monthly", ("account",))
    frame = month_rollup([totals, MonthTotals(date(2026, 8, 1), 0, {})], 7).frame(query)
    assert frame.periods == (date(2026, 6, 1), date(2026, 7, 1), date(2026, 8, 1))
    figures = [one.of(metric) for parts in days.values() for one in parts.values()]
    if not days or None in figures:
        assert frame.total is None
    else:
        assert frame.total == exact_total([figure for figure in figures if figure is not None])
    for group, total in zip(frame.groups, frame.group_totals, strict=True):
        mine = [parts[group[0]].of(metric) for parts in days.values() if group[0] in parts]
        assert total == (None if None in mine else exact_total(mine))  # type: ignore[arg-type]


def asked(start: str, end: str, granularity: str = "monthly", *group_by: str, **filters: str) -> CostQuery:
    found = tuple((name, (value,)) for name, value in sorted(filters.items()))
    return CostQuery(
        DateRange(date.fromisoformat(start), date.fromisoformat(end)), "amortized_cost", granularity, group_by, found
    )


@pytest.mark.parametrize(
    ("query", "rows", "total"),
    [
        (asked("2026-06-01", "2026-08-01"), True, True),
        (asked("2026-06-01", "2026-09-01"), True, True),
        (asked("2026-06-01", "2026-09-02"), True, True),
        (asked("2026-06-01", "2026-10-17", "total"), True, True),
        (asked("2026-06-01", "2026-08-01", "monthly", "account"), True, True),
        (asked("2026-06-01", "2026-08-01", "total", account="a"), True, True),
        (asked("2026-06-02", "2026-08-01"), False, False),
        (asked("2026-06-01", "2026-07-31"), False, False),
        (asked("2026-06-01", "2026-08-20"), False, False),
        (asked("2026-06-01", "2026-08-01", "daily"), False, True),
        (asked("2026-06-01", "2026-08-01", "weekly"), False, True),
        (asked("2026-06-01", "2026-08-01", "monthly", "service"), False, True),
        (asked("2026-06-01", "2026-08-01", "monthly", "account", "region"), False, True),
        (asked("2026-06-01", "2026-08-01", "monthly", service="S3"), False, False),
        (asked("2026-06-01", "2026-08-01", "monthly", account="a", region="r"), False, False),
    ],
)
def test_which_questions_the_months_answer(query: CostQuery, rows: bool, total: bool) -> None:
    assert (rows_from_months(query, OLDEST), total_from_months(query, OLDEST)) == (rows, total)


def test_a_range_reaches_back_only_to_what_was_there() -> None:
    records = {date(2026, 8, 10): record(date(2026, 8, 10), {}), OLDEST: record(OLDEST, {})}
    assert reaches_back(records, DateRange(date(2026, 1, 1), date(2027, 1, 1)), OLDEST)
    assert not reaches_back(records, DateRange(date(2026, 1, 1), date(2026, 8, 10)), OLDEST)
    assert not reaches_back(records, DateRange(OLDEST, date(2027, 1, 1)), OLDEST)
    assert not reaches_back(records, DateRange(date(2026, 1, 1), date(2027, 1, 1)), None)


@pytest.mark.parametrize(
    ("granularity", "since"),
    [("daily", OLDEST), ("weekly", date(2026, 8, 17)), ("monthly", date(2026, 9, 1)), ("total", None)],
)
def test_only_periods_that_are_kept_whole_are_shown(granularity: str, since: date | None) -> None:
    query = asked("2026-08-01", "2026-09-20", granularity)
    assert whole_periods_since(query, OLDEST) == since
    months = month_rollup([MonthTotals(date(2026, 9, 1), 1, {"a": Totals(1, *[Decimal(5)] * 4)})], 3)
    frame = kept_frame(months, query, OLDEST, Decimal(9))
    assert frame.total == 9
    assert set(frame.group_totals) == {None}
    assert frame.amounts.shape == (1, len(frame.periods))
    unknown = frame.amounts[0] != frame.amounts[0]
    for period, lacking in zip(frame.periods, unknown.tolist(), strict=True):
        assert lacking == (since is None or period < since or not frame.days or period != _bucket(granularity))


def _bucket(granularity: str) -> date:
    return date(2026, 8, 31) if granularity == "weekly" else date(2026, 9, 1)


def test_a_range_that_is_not_kept_at_all_has_nothing() -> None:
    frame = kept_frame(Rollup(1, ()), asked("2026-01-05", "2026-02-01", "daily", "service"), OLDEST, None)
    assert (frame.groups, frame.total, len(frame.periods)) == ((), None, 27)
