"""What is kept of each day says the same as the record it was made of, and takes a tenth of the memory."""

from __future__ import annotations

import tracemalloc
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.core.calendar import calendar
from app.core.charges import METRICS, Totals
from app.core.documents import day_record_document, day_record_from
from app.core.exact import known_total
from app.core.ledger import LOOKBACK, AccountDay, Coverage, DayRecord, DayStatus, coverage, settles_at
from app.core.ledgerdays import LedgerDay, ledger_day
from app.core.periods import DateRange
from app.core.retention import reaches_back

START = date(2026, 10, 1)
NAMES = ("a", "b", "c", "d")
FLAGS = st.booleans()
MOMENTS = st.integers(0, 10**12).map(lambda n: datetime(2026, 10, 1, tzinfo=UTC) + timedelta(microseconds=n))
AMOUNTS = st.one_of(
    st.sampled_from(["0", "0.00", "-1", "1e-20", "-0.00000000000000000001", "99999999999999.99", "3"]).map(Decimal),
    st.decimals(-(10**14), 10**14, places=20, allow_nan=False),
    st.decimals(-100, 100, places=2, allow_nan=False),
)
TOTALS = st.builds(Totals, st.integers(0, 3), AMOUNTS, st.none() | AMOUNTS, AMOUNTS, AMOUNTS)


@st.composite
def account_days(draw: st.DrawFn) -> AccountDay:
    current = draw(TOTALS)
    first = draw(st.one_of(st.just(current), TOTALS))
    return AccountDay(
        "file", "0", draw(st.integers(1, 9)), first, current, draw(FLAGS), draw(MOMENTS), draw(MOMENTS)
    )  # fmt: skip


SETS = st.frozensets(st.sampled_from(NAMES))
SOURCES = st.sampled_from([{}, {"file": "0"}, {"file": "0", "file.gz": "1"}])
FAILED = SETS.map(lambda names: tuple(sorted(names)))
ONE, NONE = (Totals(rows, *[Decimal(rows)] * 4) for rows in (1, 0))
AT = datetime(2026, 10, 2, tzinfo=UTC)
PLAIN = [AccountDay("file", "0", 1, ONE, now, flag, AT, AT) for now in (ONE, NONE) for flag in (False, True)]


def day_records(parts: st.SearchStrategy[AccountDay], most: int) -> st.SearchStrategy[dict[date, DayRecord]]:
    of_names = st.dictionaries(st.sampled_from(NAMES), parts)
    day = st.builds(DayRecord, st.just(START), st.integers(1, 5), of_names, SOURCES, st.none() | SETS, FAILED, FLAGS)
    return st.dictionaries(st.integers(0, 30).map(lambda n: START + timedelta(days=n)), day, max_size=most)


ANY, JUDGED = day_records(account_days(), 1), day_records(st.sampled_from(PLAIN), 8)


def kept(records: dict[date, DayRecord]) -> dict[date, LedgerDay]:
    return {day: ledger_day(record, with_totals=True) for day, record in records.items()}


@given(ANY)
def test_a_day_says_what_its_record_does(records: dict[date, DayRecord]) -> None:
    for day, record in records.items():
        found = kept(records)[day]
        parts = record.accounts
        assert list(found.accounts) == list(parts)
        assert set(found.with_cost) == set(record.with_cost)
        assert set(found.estimated) == set(record.estimated)
        assert [found.covers(name) for name in NAMES] == [record.covers(name) for name in NAMES]
        assert {name: found.first_reported[place] for name, place in found.accounts.items()} == {
            name: part.first_reported for name, part in parts.items()
        }
        assert (found.revision, found.restating, found.complete_file) == (
            record.revision,
            record.restating,
            record.complete_file,
        )
        assert (found.reports, found.rows, found.changed) == (
            sum(part.revision for part in parts.values()),
            sum(part.current.rows for part in parts.values()),
            max((part.changed for part in parts.values()), default=None),
        )


@given(ANY, SETS)
def test_its_totals_are_exact_for_all_and_for_some(records: dict[date, DayRecord], wanted: frozenset[str]) -> None:
    for day, record in records.items():
        for metric in METRICS:
            chosen = [part for name, part in record.accounts.items() if not wanted or name in wanted]
            total = known_total(part.current.of(metric) for part in chosen)
            assert kept(records)[day].total(metric, wanted) == total
            assert kept(records)[day].total(metric, tuple(wanted)) == total


@given(ANY)
def test_its_shares_are_what_was_first_reported_of_what_is_now(records: dict[date, DayRecord]) -> None:
    for day, record in records.items():
        for metric in METRICS:
            both = {name: (part.first.of(metric), part.current.of(metric)) for name, part in record.accounts.items()}
            shares = {name: float(first / now) for name, (first, now) in both.items() if first and now}
            assert kept(records)[day].shares_of(metric) == {name: share for name, share in shares.items() if share != 1}


RANGES = st.tuples(st.integers(-5, 35), st.integers(1, 40)).map(
    lambda found: DateRange(START + timedelta(days=found[0]), START + timedelta(days=sum(found)))
)


@given(JUDGED, RANGES, st.integers(0, 50), st.integers(0, 5), st.frozensets(st.integers(0, 40)))
def test_days_are_judged_as_their_records_are(
    records: dict[date, DayRecord], asked: DateRange, at: int, settling: int, refused: frozenset[int]
) -> None:
    today, quarantined = START + timedelta(days=at), frozenset(START + timedelta(days=n) for n in refused)
    plain = judged_one_by_one(records, asked, today, settling, quarantined)
    for form in (records, kept(records)):
        found = coverage(form, list(asked), today=today, settling_days=settling, quarantined=quarantined)
        assert found == plain
        assert [list(found.accounts[day]) for day in asked] == [sorted(plain.accounts[day]) for day in asked]
        shown = calendar(found, form, asked, quarantined=quarantined)
        assert shown == calendar(plain, records, asked, quarantined=quarantined)
        assert reaches_back(form, asked, today) == reaches_back(records, asked, today)


def judged_one_by_one(
    records: dict[date, DayRecord], days: DateRange, today: date, settling: int, quarantined: frozenset[date]
) -> Coverage:
    """Coverage as its words say it: account by account, each day looked at alone."""
    by_account: dict[date, dict[str, DayStatus]] = {}
    worst: dict[date, DayStatus | None] = {}
    for day in days:
        record = records.get(day, DayRecord(day))
        before = [records.get(day - timedelta(days=n)) for n in range(1, LOOKBACK + 1)]
        had_cost = {name for found in before if found for name, part in found.accounts.items() if part.current.rows}
        expected = had_cost if day < today or record.sources else set()
        found: dict[str, DayStatus] = {}
        for name in {*expected, *record.accounts, *record.failed_accounts}:
            part = record.accounts.get(name)
            if not record.covers(name):
                found[name] = "quarantined" if day in quarantined else "missing"
            elif settles_at(day, settling) > today or (part is not None and part.estimated):
                found[name] = "settling"
            else:
                found[name] = "complete"
        by_account[day] = found
        worst[day] = whole(found, record, day in quarantined, settles_at(day, settling) > today)
    return Coverage(by_account, worst)


def whole(accounts: dict[str, DayStatus], record: DayRecord, refused: bool, unsettled: bool) -> DayStatus | None:
    if refused:
        return "quarantined"
    if "missing" in accounts.values():
        return "missing"
    if "settling" in accounts.values():
        return "settling"
    if not record.sources:
        return None
    return "settling" if unsettled else "complete"


def test_without_totals_there_are_none_to_be_wrong() -> None:
    found = ledger_day(DayRecord(START), with_totals=False)
    with pytest.raises(AssertionError, match="without them"):
        found.total(METRICS[0])


@pytest.mark.parametrize(("restated", "with_totals", "most"), [(False, False, 16), (True, False, 52), (True, True, 90)])
def test_an_account_day_takes_little_memory(restated: bool, with_totals: bool, most: int) -> None:
    """In bytes; what a record has of it takes 700, or twice as much where the day was restated."""
    texts = [orjson.dumps(day_record_document(crowded(n, restated))) for n in range(12)]
    shared = ledger_day(day_record_from(orjson.loads(texts.pop())), with_totals=with_totals)
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        found = [ledger_day(day_record_from(orjson.loads(text)), with_totals=with_totals) for text in texts]
        taken = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()
    assert {id(day.accounts) for day in found} == {id(shared.accounts)}
    assert taken / sum(len(day.accounts) for day in found) < most


def crowded(n: int, restated: bool) -> DayRecord:
    day, at = START + timedelta(days=n), datetime(2026, 10, 2, tzinfo=UTC) + timedelta(days=n)
    parts = {f"{100_000_000_000 + number}": account_day(n * number, at, restated) for number in range(300)}
    return DayRecord(day, 1, parts, {"file": "0"}, covered=frozenset(parts))


def account_day(cents: int, at: datetime, restated: bool) -> AccountDay:
    now = Totals(7, *(Decimal(cents + 7 * metric).scaleb(-2) for metric in range(4)))
    first = Totals(5, *(Decimal(cents + 5 * metric).scaleb(-2) for metric in range(4))) if restated else now
    return AccountDay("file", "0", 1 + restated, first, now, False, at, at)
