"""The coverage calendar's letters against the judgement they are made from, day by day."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from decimal import Decimal

from hypothesis import given
from hypothesis import strategies as st

from app.core.calendar import LETTERS, NOT_EXPECTED, Row, calendar
from app.core.charges import Totals
from app.core.ledger import AccountDay, Coverage, DayRecord, coverage
from app.core.periods import DateRange

START, TODAY = date(2026, 10, 1), date(2026, 11, 1)
AT = datetime(2026, 10, 2, tzinfo=UTC)
ONE = Totals(1, Decimal(1), Decimal(1), Decimal(1), Decimal(1))
NAMES = ("a", "b", "c")
DAYS = DateRange(START, TODAY)


def record(day: date, accounts: frozenset[str], restating: bool = False) -> DayRecord:
    parts = {name: AccountDay("f", "0", 1, ONE, ONE, False, AT, AT) for name in accounts}
    return DayRecord(day, 1, parts, {"f": "0"}, restating=restating)


def judged(records: dict[date, DayRecord], quarantined: frozenset[date] = frozenset()) -> Coverage:
    return coverage(records, list(DAYS), today=TODAY, settling_days=2, quarantined=quarantined)


ARRIVED = st.dictionaries(
    st.integers(0, 30),
    st.tuples(st.frozensets(st.sampled_from(NAMES)), st.booleans()),
).map(
    lambda found: {
        START + timedelta(days=n): record(START + timedelta(days=n), names, flag) for n, (names, flag) in found.items()
    }
)


@given(ARRIVED, st.frozensets(st.integers(0, 30)), st.integers(0, 40), st.integers(1, 60))
def test_each_letter_is_the_judgement_of_that_account_and_day(
    records: dict[date, DayRecord], refused: frozenset[int], first: int, length: int
) -> None:
    quarantined = frozenset(START + timedelta(days=n) for n in refused)
    found = judged(records, quarantined)
    days = DateRange(START + timedelta(days=first - 5), START + timedelta(days=first - 5 + length))
    shown = calendar(found, records, days, quarantined=quarantined)
    rows = {row.account: row.letters for row in shown.rows}
    assert {len(letters) for letters in rows.values()} <= {length}
    for position, day in enumerate(days):
        restating = day in records and records[day].restating
        expected = found.accounts.get(day, {})
        for name in NAMES:
            letter = rows[name][position] if name in rows else NOT_EXPECTED
            status = "restating" if restating and name in expected else expected.get(name)
            assert letter == (LETTERS[status] if status else NOT_EXPECTED)
    assert sum(shown.counts.values()) == len(rows) * length


def test_a_refused_newer_file_marks_the_day_and_leaves_its_accounts_as_they_were() -> None:
    records = {START: record(START, frozenset(NAMES))}
    shown = calendar(judged(records, frozenset({START})), records, DAYS, quarantined=frozenset({START}))
    assert shown.whole[0] == "Q"
    assert {row.letters[0] for row in shown.rows} == {"C"}


def test_a_refused_file_before_all_data_is_seen() -> None:
    before = START - timedelta(days=3)
    shown = calendar(Coverage({}, {}), {}, DateRange(before, START), quarantined=frozenset({before}))
    assert (shown.whole, shown.rows) == ("Q..", ())


def test_accounts_with_most_open_days_come_first_and_filters_leave_the_rest_out() -> None:
    records = {
        START + timedelta(days=n): record(START + timedelta(days=n), frozenset("abc")) for n in range(20) if n != 7
    }
    records[START + timedelta(days=9)] = DayRecord(
        START + timedelta(days=9), 1, record(START, frozenset("ab")).accounts, {"f": "0"}, failed_accounts=("c",)
    )
    found = judged(records)
    shown = calendar(found, records, DAYS, quarantined=frozenset())
    assert [row.account for row in shown.rows] == ["c", "a", "b"]
    assert shown.rows[0].letters[9] == "M"
    assert shown.days_with(shown.rows[0].letters, "M")[:2] == [START + timedelta(days=7), START + timedelta(days=9)]
    only = calendar(found, records, DAYS, quarantined=frozenset(), accounts={"b"})
    assert [row.account for row in only.rows] == ["b"]
    assert only.rows[0] == shown.rows[2]


def test_open_days_are_those_somebody_has_to_do_something_about() -> None:
    assert Row("a", "CMQSR.M").open_days == 3
