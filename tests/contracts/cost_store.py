"""What every adapter of ports.CostStore does, whatever technology stands behind it.

Everything is held against an oracle: a dict of charges, summed row by row as Decimal.
"""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any, Protocol

import pyarrow as pa
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from app.core.amounts import total as exact_total
from app.core.charges import DIMENSIONS, METRICS, Totals
from app.core.dailycsv import SCHEMA
from app.core.periods import GRANULARITIES, DateRange, bucket_of
from app.core.query import CostQuery
from app.core.rollup import CostFrame
from app.errors import Refused
from app.ports import CostStore, StoredDay

DAY = date(2026, 10, 14)
NEXT = DAY + timedelta(days=1)

Key = tuple[str, ...]
Values = tuple[Decimal | None, ...]
Charges = dict[Key, Values]
"""Dimensions in the order of DIMENSIONS → amounts in the order of METRICS."""


class Subject(Protocol):
    """A store with whatever it needs around it. `other` is the same store as another process sees it."""

    store: CostStore

    def take(self, day: date, accounts: Iterable[str], charges: Charges) -> StoredDay:
        """`replace`, then what a worker does to let readers see it."""

    def other(self) -> CostStore: ...


def key(account: str = "111111111111", service: str = "Amazon S3", region: str = "eu-west-1", **more: str) -> Key:
    given = {"provider": "aws", "charge_category": "Usage", "account": account, "service": service, "region": region}
    return tuple((given | more)[name] for name in DIMENSIONS)


def values(amortized: str, blended: str | None = "", unblended: str = "", usage: str = "1") -> Values:
    """Amounts from texts; "" is the amortized cost again, None is not available."""
    others = [amortized if text == "" else text for text in (blended, unblended)]
    return tuple(None if text is None else Decimal(text) for text in (amortized, *others, usage))


def table(charges: Charges) -> pa.Table:
    """As app.core.dailycsv would hand it over."""
    columns: dict[str, list[Any]] = {name: [k[i] for k in charges] for i, name in enumerate(DIMENSIONS)}
    columns |= {metric: [v[i] for v in charges.values()] for i, metric in enumerate(METRICS)}
    columns |= {"usage_unit": ["Hrs"] * len(charges), "estimated": [False] * len(charges)}
    return pa.table(
        {
            field.name: pa.array(columns[field.name], pa.string()).dictionary_encode()
            if pa.types.is_dictionary(field.type)
            else pa.array(columns[field.name], field.type)
            for field in SCHEMA
        },
        schema=SCHEMA,
    )


def charges_of(stored: pa.Table) -> list[tuple[Key, Values]]:
    columns = [stored[name].to_pylist() for name in (*DIMENSIONS, *METRICS)]
    return [(row[: len(DIMENSIONS)], row[len(DIMENSIONS) :]) for row in zip(*columns, strict=True)]


def counting(charges: Charges) -> Charges:
    """Without all-zero charges: they equal no charge (DESIGN §4)."""
    return {k: v for k, v in charges.items() if any(v)}


def totals_of(charges: Charges) -> dict[str, Totals]:
    found = {}
    for account in {k[DIMENSIONS.index("account")] for k in counting(charges)}:
        rows = [v for k, v in counting(charges).items() if k[DIMENSIONS.index("account")] == account]
        sums = [None if None in column else exact_total(list(column)) for column in zip(*rows, strict=True)]  # type: ignore[arg-type]
        found[account] = Totals(len(rows), *sums)  # type: ignore[arg-type]
    return found


class Oracle:
    """What the store should hold: charges by day, and answers to questions by adding them up one by one."""

    def __init__(self) -> None:
        self.days: dict[date, Charges] = {}

    def take(self, day: date, accounts: Iterable[str], charges: Charges) -> None:
        account = DIMENSIONS.index("account")
        others = {k: v for k, v in self.days.get(day, {}).items() if k[account] not in set(accounts)}
        self.days[day] = others | counting(charges)

    def answer(self, query: CostQuery) -> tuple[dict[tuple[Key, date], Decimal | None], Decimal | None]:
        """(group, bucket) → exact sum (None: not available) where there was a charge; and the total."""
        cells: dict[tuple[Key, date], list[Decimal | None]] = {}
        metric = METRICS.index(query.metric)
        for day, charges in self.days.items():
            if day not in query.range:
                continue
            bucket = query.range.start if query.granularity == "total" else bucket_of(day, query.granularity)
            for k, v in charges.items():
                given = dict(zip(DIMENSIONS, k, strict=True))
                if all(given[name] in allowed for name, allowed in query.filters):
                    cells.setdefault((tuple(given[name] for name in query.group_by), bucket), []).append(v[metric])
        sums = {cell: None if None in found else exact_total(found) for cell, found in cells.items()}  # type: ignore[arg-type]
        known = any(day in query.range for day in self.days)
        if not known or None in sums.values():
            return sums, None
        return sums, exact_total([value for value in sums.values() if value is not None])


def same(exact: bool, one: Decimal | None, other: Decimal | None) -> bool:
    if one is None or other is None or exact:
        return one == other
    return abs(one - other) <= Decimal("1e-6") * max(1, abs(other))


def assert_same_totals(exact: bool, found: Mapping[str, Totals], expected: Mapping[str, Totals]) -> None:
    assert found.keys() == expected.keys()
    for account, totals in expected.items():
        assert found[account].rows == totals.rows
        for metric in METRICS:
            assert same(exact, found[account].of(metric), totals.of(metric)), (account, metric, found[account], totals)


def assert_answers(exact: bool, frame: CostFrame, oracle: Oracle) -> None:
    """A frame is what the oracle adds up: cells, group totals, order, total, and what is unknown."""
    query = frame.query
    cells, total = oracle.answer(query)
    assert same(exact, frame.total, total), (query, frame.total, total)
    assert set(frame.days) == {day for day in oracle.days if day in query.range}
    if query.group_by:
        assert set(frame.groups) == {group for group, _ in cells}
    else:
        assert frame.groups == ((),)
    for row, group in enumerate(frame.groups):
        parts = [value for (of, _), value in cells.items() if of == group]
        expected = None if None in parts or not frame.days else exact_total(parts)  # type: ignore[arg-type]
        assert same(exact, frame.group_totals[row], expected), (query, group)
        for column, bucket in enumerate(frame.periods):
            assert_cell(frame, row, column, cells.get((group, bucket), Decimal(0)), (group, bucket) in cells)
    known = [value for value in frame.group_totals if value is not None]
    assert known == sorted(known, reverse=True)
    assert None not in frame.group_totals[: len(known)]


def assert_cell(frame: CostFrame, row: int, column: int, expected: Decimal | None, present: bool) -> None:
    bucket, granularity = frame.periods[column], frame.query.granularity
    ingested = granularity == "total" or any(bucket_of(day, granularity) == bucket for day in frame.days)
    found = float(frame.amounts[row, column])
    assert bool(frame.present[row, column]) == present
    if expected is None or not ingested or not frame.days:
        assert math.isnan(found)
    else:
        assert math.isclose(found, float(expected), rel_tol=1e-9, abs_tol=1e-6)


def whole(*days: date) -> CostQuery:
    return CostQuery(DateRange(min(days), max(days) + timedelta(days=1)))


HOSTILE = [
    "a,b",
    "a=b",
    " leading and trailing ",
    "quo\"te 's",
    "back\\slash",
    "back\\,comma \\=equals \\ space",
    '") |> yield() //',
    "'; DROP TABLE days; --",
    "_underscore",
    "#comment",
    "${x} {{y}} %s",
    "tab\there",
    "NA",
    "null",
    "0012",
    "<script>alert(1)</script>",
    "Zoë ☃ 😀 \u2028 \u202e",
    "é",
    "e\u0301",
    "x" * 1000,
]
"""Text that means something to some technology. Every store keeps it as it is."""


class CostStoreContract:
    """Subclasses give the fixture `subject`, empty at the start of each test, and `bounded`."""

    keeps_units = True
    """Whether `day` also gives back usage_unit and estimated."""

    @pytest.fixture
    def subject(self) -> Subject:
        raise NotImplementedError

    @pytest.fixture
    def bounded(self) -> Callable[[int, datetime], CostStore]:
        """A store with this many days of retention, at this time."""
        raise NotImplementedError

    def test_an_empty_store_knows_nothing(self, subject: Subject) -> None:
        subject.store.check()
        frame = subject.store.rollup().frame(whole(DAY))
        assert frame.total is None
        assert frame.group_totals == (None,)
        assert math.isnan(frame.amounts[0, 0])
        assert subject.store.day(DAY).num_rows == 0
        assert subject.store.day(DAY).schema == SCHEMA
        assert subject.store.stored_days() == {}

    def test_a_day_is_read_back_as_it_was_given(self, subject: Subject) -> None:
        given = {
            key("222", "Z"): values("1.5", usage="3"),
            key("111", "B"): values("0.000000000001", "0.25", "12345.678901", "0"),
            key("111", "A", provider="gcp"): values("7"),
            key("111", "A", charge_category="Tax"): values("-3"),
            key("111", "A"): values("2"),
        }
        stored = subject.take(DAY, {"111", "222"}, given)
        assert stored.day == DAY
        assert_same_totals(subject.store.exact, stored.accounts, totals_of(given))
        assert charges_of(subject.store.day(DAY)) == sorted(given.items())
        assert subject.store.day(DAY).schema == SCHEMA
        if self.keeps_units:
            assert set(subject.store.day(DAY)["usage_unit"].to_pylist()) == {"Hrs"}
            assert set(subject.store.day(DAY)["estimated"].to_pylist()) == {False}

    def test_another_process_sees_what_was_taken(self, subject: Subject) -> None:
        subject.take(DAY, {"a"}, {key("a"): values("1.25")})
        other = subject.other()
        assert other.rollup().frame(whole(DAY)).total == Decimal("1.25")
        assert charges_of(other.day(DAY)) == [(key("a"), values("1.25"))]

    def test_restating_replaces_exactly_and_what_vanished_is_gone(self, subject: Subject) -> None:
        subject.take(DAY, {"a"}, {key("a", "Kept"): values("1"), key("a", "Gone"): values("5")})
        subject.take(DAY, {"a"}, {key("a", "Kept"): values("2"), key("a", "New"): values("0.5")})
        frame = subject.store.rollup().frame(whole(DAY).grouped("service"))
        assert frame.groups == (("Kept",), ("New",))
        assert frame.total == Decimal("2.5")
        assert [k for k, _ in charges_of(subject.store.day(DAY))] == [key("a", "Kept"), key("a", "New")]
        subject.take(DAY, {"a"}, {key("a", "Gone"): values("4")})
        assert subject.store.rollup().frame(whole(DAY).grouped("service")).groups == (("Gone",),)

    def test_other_accounts_and_other_days_stay(self, subject: Subject) -> None:
        for day in (DAY, NEXT):
            subject.take(day, {"a", "b"}, {key("a"): values("1"), key("b"): values("10")})
        stored = subject.take(DAY, {"a"}, {key("a"): values("2")})
        assert {name: part.amortized_cost for name, part in stored.accounts.items()} == {"a": 2, "b": 10}
        frame = subject.store.rollup().frame(whole(DAY, NEXT))
        assert frame.amounts.tolist() == [[12, 11]]
        subject.take(DAY, {"a"}, {})
        frame = subject.store.rollup().frame(whole(DAY, NEXT).grouped("account"))
        assert dict(zip(frame.groups, frame.group_totals, strict=True)) == {("b",): 20, ("a",): 1}

    def test_charges_of_an_account_that_is_not_replaced_are_an_error(self, subject: Subject) -> None:
        subject.take(DAY, {"b"}, {key("b"): values("1")})
        with pytest.raises(ValueError, match="'b'"):
            subject.store.replace(DAY, frozenset({"a"}), table({key("b"): values("1")}))
        assert charges_of(subject.store.day(DAY)) == [(key("b"), values("1"))]

    def test_the_same_again_changes_nothing(self, subject: Subject) -> None:
        given = {key("a", "One"): values("1"), key("a", "Two"): values("2", None)}
        first = subject.take(DAY, {"a"}, given)
        before = subject.store.rollup()
        again = subject.store.replace(DAY, frozenset({"a"}), table(dict(reversed(given.items()))))
        assert_same_totals(True, again.accounts, first.accounts)
        assert subject.store.rollup().version == before.version
        assert subject.store.rollup().frame(whole(DAY)).total == 3

    def test_a_day_without_rows_is_zero_and_its_neighbour_unknown(self, subject: Subject) -> None:
        subject.take(DAY, {"a"}, {key("a"): values("5")})
        stored = subject.take(DAY, {"a"}, {})
        assert stored.accounts == {}
        frame = subject.store.rollup().frame(whole(DAY, NEXT))
        assert frame.total == 0
        assert frame.amounts[0, 0] == 0
        assert math.isnan(frame.amounts[0, 1])
        assert not frame.present.any()
        assert subject.store.rollup().frame(whole(NEXT)).total is None

    def test_a_first_day_without_rows_is_zero(self, subject: Subject) -> None:
        subject.take(DAY, set(), {})
        for query in (whole(DAY), whole(DAY).per("total"), whole(DAY).per("monthly").measured("blended_cost")):
            frame = subject.store.rollup().frame(query)
            assert frame.total == 0
            assert frame.amounts.tolist() == [[0]]
        assert subject.store.rollup().frame(whole(DAY).grouped("service", "region")).groups == ()

    def test_an_all_zero_charge_equals_no_charge(self, subject: Subject) -> None:
        nothing = values("0", None, "0.000", "0")
        stored = subject.take(DAY, {"a", "z"}, {key("a", "Zero"): nothing, key("a"): values("1"), key("z"): nothing})
        assert_same_totals(subject.store.exact, stored.accounts, totals_of({key("a"): values("1")}))
        frame = subject.store.rollup().frame(whole(DAY).grouped("service").measured("blended_cost"))
        assert (frame.groups, frame.total) == ((("Amazon S3",),), 1)
        assert [k for k, _ in charges_of(subject.store.day(DAY))] == [key("a")]

    def test_negative_amounts_cancel_and_are_shown(self, subject: Subject) -> None:
        subject.take(DAY, {"a"}, {key("a", "Cost"): values("10.10"), key("a", "Refund"): values("-10.10", usage="0")})
        frame = subject.store.rollup().frame(whole(DAY).grouped("service"))
        assert frame.groups == (("Cost",), ("Refund",))
        assert frame.group_totals == (Decimal("10.10"), Decimal("-10.10"))
        assert frame.total == 0
        by_region = subject.store.rollup().frame(whole(DAY).grouped("region"))
        assert by_region.groups == (("eu-west-1",),)
        assert by_region.present.all()

    def test_sums_are_as_exact_as_the_store_says(self, subject: Subject) -> None:
        given = {key("a", f"S{n}"): values("0.1", "0.7", "1e-12", "123456.000000000001") for n in range(1000)}
        stored = subject.take(DAY, {"a"}, given)
        assert_same_totals(subject.store.exact, stored.accounts, totals_of(given))
        for metric, expected in zip(METRICS, ("100", "700", "1e-9", "123456000.000000001"), strict=True):
            total = subject.store.rollup().frame(whole(DAY).measured(metric)).total
            assert same(subject.store.exact, total, Decimal(expected))

    def test_twenty_decimals_and_great_amounts_are_kept(self, subject: Subject) -> None:
        given = {
            key("a", "Tiny"): values("0.00000000000000000001", "-0.00000000000000000001", "0.5"),
            key("a", "Great"): values("999999999999", "-999999999999.99999999999999999999", "1e11"),
            key("b", "Mixed"): values("12345678.00000000000000000009", None, "-1e-20"),
        }
        stored = subject.take(DAY, {"a", "b"}, given)
        assert_same_totals(subject.store.exact, stored.accounts, totals_of(given))
        oracle = Oracle()
        oracle.take(DAY, {"a", "b"}, given)
        for metric, names in itertools.product(METRICS, [(), ("service",), ("account", "service", "region")]):
            query = whole(DAY).measured(metric).grouped(*names)
            assert_answers(subject.store.exact, subject.store.rollup().frame(query), oracle)
        if subject.store.exact:
            assert dict(charges_of(subject.store.day(DAY))) == given

    def test_a_blended_cost_comes_and_goes(self, subject: Subject) -> None:
        asked = whole(DAY).measured("blended_cost")
        for blended in ("2", None, "3", None, "0", None):
            given = {key("a"): values("1", blended), key("b"): values("1", "7")}
            stored = subject.take(DAY, {"a", "b"}, given)
            assert_same_totals(subject.store.exact, stored.accounts, totals_of(given))
            frame = subject.store.rollup().frame(asked.grouped("account"))
            found = dict(zip(frame.groups, frame.group_totals, strict=True))
            assert found == {("a",): None if blended is None else Decimal(blended), ("b",): 7}
            assert frame.total == (None if blended is None else Decimal(blended) + 7)
            assert math.isnan(frame.amounts[frame.groups.index(("a",)), 0]) == (blended is None)
            assert subject.store.rollup().frame(whole(DAY)).total == 2

    def test_text_is_kept_as_it_is(self, subject: Subject) -> None:
        given: Charges = {}
        for number, text in enumerate(HOSTILE):
            given[key(text, service=text, region=text, charge_category=text, provider=text)] = values(str(number + 1))
        accounts = set(HOSTILE)
        stored = subject.take(DAY, accounts, given)
        assert stored.accounts.keys() == accounts
        assert charges_of(subject.store.day(DAY)) == sorted(given.items())
        for name in DIMENSIONS:
            frame = subject.store.rollup().frame(whole(DAY).grouped(name))
            assert {group[0] for group in frame.groups} == accounts
        for number, text in enumerate(HOSTILE):
            query = CostQuery(whole(DAY).range, filters=(("service", (text,)),))
            assert subject.store.rollup().frame(query).total == number + 1
        subject.take(DAY, accounts, {k: values("1", None) for k in given})
        assert subject.store.rollup().frame(whole(DAY)).total == len(HOSTILE)
        subject.take(DAY, accounts, {})
        assert subject.store.rollup().frame(whole(DAY)).total == 0

    def test_questions_are_answered_as_by_adding_up(self, subject: Subject) -> None:
        oracle, draw = Oracle(), random.Random(11)
        days = [date(2026, 8, 29) + timedelta(days=n) for n in range(0, 48, 4)]
        for day in [*days, *days[3:6]]:
            given = drawn_charges(draw, rows=25)
            accounts = {k[DIMENSIONS.index("account")] for k in given} | set(draw.sample(ACCOUNTS, 2))
            subject.take(day, accounts, given)
            oracle.take(day, accounts, given)
        rollup = subject.store.rollup()
        for _ in range(150):
            assert_answers(subject.store.exact, rollup.frame(drawn_query(draw, days)), oracle)

    def test_values_with_cost_follow_the_other_filters(self, subject: Subject) -> None:
        subject.take(
            DAY,
            {"a", "b"},
            {key("a", "One"): values("1"), key("a", "Two"): values("2"), key("b", "Three"): values("3")},
        )
        query = CostQuery(whole(DAY).range, filters=(("account", ("a",)), ("service", ("One",))))
        assert subject.store.rollup().values_with_cost("service", query) == [("Two", 2), ("One", 1)]

    def test_a_day_beyond_retention_is_refused_before_anything_is_written(
        self, bounded: Callable[[int, datetime], CostStore]
    ) -> None:
        now = datetime.now(UTC)
        store, today = bounded(30, now), now.date()
        assert store.oldest(today) == today - timedelta(days=29)
        old = today - timedelta(days=30)
        with pytest.raises(Refused, match=str(old)) as refused:
            store.replace(old, frozenset({"a"}), table({key("a"): values("1")}))
        assert refused.value.code == "retention"
        kept = store.replace(old + timedelta(days=1), frozenset({"a"}), table({key("a"): values("1")}))
        assert kept.accounts["a"].amortized_cost == 1
        assert store.day(old).num_rows == 0

    def test_retention_zero_keeps_everything(self, bounded: Callable[[int, datetime], CostStore]) -> None:
        now = datetime.now(UTC)
        store = bounded(0, now)
        assert store.oldest(now.date()) is None
        store.replace(date(2001, 1, 1), frozenset({"a"}), table({key("a"): values("1")}))
        assert store.day(date(2001, 1, 1)).num_rows == 1


ACCOUNTS = ["111", "222", "333", "444"]
SERVICES = ["EC2", "S3", "RDS", "Lambda", "Tax"]
REGIONS = ["eu-west-1", "us-east-1", "global"]
CATEGORIES = ["Usage", "Credit"]


def drawn_charges(draw: random.Random, rows: int) -> Charges:
    found: Charges = {}
    for _ in range(rows):
        k = key(
            draw.choice(ACCOUNTS),
            draw.choice(SERVICES),
            draw.choice(REGIONS),
            charge_category=draw.choice(CATEGORIES),
            provider=draw.choice(["aws", "gcp"]),
        )
        amount = Decimal(draw.randrange(-(10**9), 10**10)).scaleb(-draw.randrange(2, 12))
        blended = None if draw.random() < 0.05 else amount + 1
        found[k] = (amount, blended, amount * 2, Decimal(draw.randrange(0, 1000)))
    return found


def drawn_query(draw: random.Random, days: Sequence[date]) -> CostQuery:
    start = min(days) + timedelta(days=draw.randrange(-5, 50))
    filters = {
        "account": ACCOUNTS,
        "service": [*SERVICES, "never seen"],
        "region": REGIONS,
        "charge_category": CATEGORIES,
    }
    chosen = draw.sample(sorted(filters), draw.randrange(0, 3))
    return CostQuery(
        DateRange(start, start + timedelta(days=draw.randrange(1, 60))),
        metric=draw.choice(METRICS),
        granularity=draw.choice(GRANULARITIES),
        group_by=tuple(draw.sample(DIMENSIONS, draw.randrange(0, 4))),
        filters=tuple(
            (name, tuple(sorted(draw.sample(filters[name], draw.randrange(1, 3))))) for name in sorted(chosen)
        ),
    )


keys = st.builds(
    key,
    st.sampled_from(["a", "b"]),
    st.sampled_from(["EC2", "S3", "Odd, one=\\ x"]),
    st.sampled_from(["eu", "us"]),
)
amounts = st.decimals(min_value=-1000, max_value=1000, places=9)
rows = st.tuples(amounts, st.none() | amounts, amounts, amounts)
days = st.sampled_from([date(2026, 9, 29), date(2026, 9, 30), date(2026, 10, 1)])


def history_machine(opened: Callable[[], Subject], closed: Callable[[Subject], None], examples: int, steps: int) -> Any:
    """A test case: any history of replacing and restating ends as the oracle says, at every step."""

    class Histories(RuleBasedStateMachine):
        subject: Subject
        oracle: Oracle

        @initialize()
        def start(self) -> None:
            self.subject, self.oracle = opened(), Oracle()

        @rule(day=days, charges=st.dictionaries(keys, rows, max_size=6), accounts=st.sets(st.sampled_from(["a", "b"])))
        def replace(self, day: date, charges: Charges, accounts: set[str]) -> None:
            mine = {k: v for k, v in charges.items() if k[DIMENSIONS.index("account")] in accounts}
            self.subject.take(day, accounts, mine)
            self.oracle.take(day, accounts, mine)

        @precondition(lambda self: self.oracle.days)
        @rule(data=st.data())
        def again(self, data: st.DataObject) -> None:
            day = data.draw(st.sampled_from(sorted(self.oracle.days)))
            self.subject.take(day, {"a", "b"}, self.oracle.days[day])

        @rule()
        def reopen(self) -> None:
            self.subject.store = self.subject.other()

        @invariant()
        def holds_what_it_should(self) -> None:
            if not hasattr(self, "subject"):
                return
            exact = self.subject.store.exact
            rollup = self.subject.store.rollup()
            asked = CostQuery(
                DateRange(date(2026, 9, 28), date(2026, 10, 3)), group_by=("account", "service", "region")
            )
            for query in (asked, asked.grouped("service").measured("blended_cost").per("monthly")):
                assert_answers(exact, rollup.frame(query), self.oracle)
            for day, charges in self.oracle.days.items():
                assert [k for k, _ in charges_of(self.subject.store.day(day))] == sorted(charges)

        def teardown(self) -> None:
            if hasattr(self, "subject"):
                closed(self.subject)

    case = Histories.TestCase
    case.settings = settings(max_examples=examples, stateful_step_count=steps, deadline=None)
    return case
