"""The read model: any history of days in a month answers as adding up does, at any width, size and precision."""

from __future__ import annotations

import random
import subprocess
import sys
import threading
from collections.abc import Iterable
from datetime import date, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.core.amounts import from_decimals
from app.core.amounts import total as exact_total
from app.core.charges import DIMENSIONS, METRICS
from app.core.periods import GRANULARITIES, DateRange
from app.core.query import CostQuery
from app.core.rollup import SMALL_GRIDS, DayColumns, Month, Rollup, combined, month_with, month_without
from app.gridfile import DamagedGrids, open_month, write_month
from tests.contracts.cost_store import (
    Charges,
    Oracle,
    amounts,
    assert_answers,
    drawn_charges,
    drawn_query,
    key,
    keys,
    rows,
    values,
    whole,
)

OCTOBER = date(2026, 10, 1)
SOME_DAYS = [OCTOBER + timedelta(days=n) for n in range(4)]


def columns(day: date, charges: Iterable[tuple[tuple[str, ...], tuple[Decimal | None, ...]]]) -> DayColumns:
    """Plain columns in the order given; the same key may come more than once."""
    charges = list(charges)
    known: dict[str, dict[str, int]] = {name: {} for name in DIMENSIONS}
    codes = {
        name: np.array([known[name].setdefault(k[i], len(known[name])) for k, _ in charges], np.int32)
        for i, name in enumerate(DIMENSIONS)
    }
    found = {metric: from_decimals([v[i] or Decimal(0) for _, v in charges]) for i, metric in enumerate(METRICS)}
    absent = np.array([v[METRICS.index("blended_cost")] is None for _, v in charges], np.bool_)
    return DayColumns(
        day, {name: list(of) for name, of in known.items()}, codes, found, absent if absent.any() else None
    )


def answers(month: Month, query: CostQuery) -> dict[tuple[str, ...], Decimal | None]:
    frame = Rollup(1, [month]).frame(query)
    return dict(zip(frame.groups, frame.group_totals, strict=True))


@settings(deadline=None)
@given(
    history=st.lists(
        st.tuples(st.sampled_from(SOME_DAYS), st.dictionaries(keys, rows, max_size=6)), min_size=1, max_size=8
    ),
    asked=st.sampled_from([(), ("service",), ("account", "region"), DIMENSIONS]),
    granularity=st.sampled_from(GRANULARITIES),
    metric=st.sampled_from(METRICS),
)
def test_any_history_answers_as_adding_up_does(
    history: list[tuple[date, Charges]], asked: tuple[str, ...], granularity: str, metric: str
) -> None:
    month, oracle = None, Oracle()
    for day, charges in history:
        oracle.days[day] = {k: v for k, v in charges.items() if any(v)}
        month = month_with(month, OCTOBER, [columns(day, charges.items())])
    assert month is not None
    query = CostQuery(DateRange(OCTOBER, date(2026, 11, 1)), metric=metric, granularity=granularity, group_by=asked)
    assert_answers(True, Rollup(1, [month]).frame(query), oracle)


@settings(deadline=None)
@given(st.lists(st.dictionaries(keys, rows, max_size=6), min_size=2, max_size=4), st.data())
def test_days_may_come_in_any_order_and_together(days: list[Charges], data: st.DataObject) -> None:
    built = [columns(day, charges.items()) for day, charges in zip(SOME_DAYS, days, strict=False)]
    together = month_with(None, OCTOBER, built)
    single = None
    for day in data.draw(st.permutations(built)):
        single = month_with(single, OCTOBER, [day])
    assert single is not None
    assert single.days == together.days
    assert [grid.width for grid in single.grids] == [grid.width for grid in together.grids]
    for query in (whole(*SOME_DAYS).grouped("service", "account"), whole(*SOME_DAYS).grouped(*DIMENSIONS)):
        assert answers(single, query) == answers(together, query)


@settings(deadline=None)
@given(st.lists(st.tuples(keys, st.tuples(amounts, amounts, amounts, amounts)), max_size=20))
def test_charges_with_one_key_are_added(charges: list[Any]) -> None:
    month = month_with(None, OCTOBER, [columns(OCTOBER, charges)])
    expected: dict[tuple[str, ...], Decimal] = {}
    for k, v in charges:
        if any(v):
            expected[k] = expected.get(k, Decimal(0)) + v[0]
    assert answers(month, whole(OCTOBER).grouped(*DIMENSIONS)) == expected


def test_many_months_answer_random_questions() -> None:
    draw, oracle, months = random.Random(3), Oracle(), {}
    days = [date(2026, 8, 29) + timedelta(days=n) for n in range(48)]
    for day in days:
        charges = drawn_charges(draw, rows=40)
        oracle.days[day] = charges
        first = day.replace(day=1)
        months[first] = month_with(months.get(first), first, [columns(day, charges.items())])
    rollup = Rollup(1, months.values())
    for _ in range(100):
        assert_answers(True, rollup.frame(drawn_query(draw, days)), oracle)


def test_every_small_grid_and_the_great_one_agree() -> None:
    draw = random.Random(4)
    month = month_with(None, OCTOBER, [columns(day, drawn_charges(draw, 60).items()) for day in SOME_DAYS])
    great = Month(month.first, month.days, month.values, month.grids[:1])
    assert {grid.dimensions for grid in month.grids} == {DIMENSIONS, *SMALL_GRIDS}
    for names in [(), *SMALL_GRIDS, ("service",), ("region", "account")]:
        query = whole(*SOME_DAYS).grouped(*names)
        assert answers(month, query) == answers(great, query)
    assert month.grid_for(frozenset({"service"})).width < month.grids[0].width


def test_amounts_grow_beyond_32_bits_and_twelve_decimals_and_stay_exact() -> None:
    steps = ["1", "214748.3648", "-300000", "0.00000000000000000001", "99999999999999.9999", "2"]
    month = None
    for number, amount in enumerate(steps):
        day = OCTOBER + timedelta(days=number)
        month = month_with(month, OCTOBER, [columns(day, [(key(), values(amount))])])
    assert month is not None
    frame = Rollup(1, [month]).frame(whole(OCTOBER, OCTOBER + timedelta(days=5)))
    assert frame.total == exact_total([Decimal(step) for step in steps])
    assert month.grids[0].amounts["amortized_cost"].parts.dtype == np.int64
    assert month.grids[0].amounts["usage_quantity"].parts.dtype == np.int32
    assert len(month.grids[0].amounts["usage_quantity"].parts) == 2


def test_columns_that_vanished_are_forgotten() -> None:
    many = columns(OCTOBER, [(key(service=f"S{n}"), values("1")) for n in range(500)])
    month = month_with(None, OCTOBER, [many, columns(SOME_DAYS[1], [(key(service="S7"), values("1"))])])
    assert month.grids[0].width == 500
    month = month_with(month, OCTOBER, [columns(OCTOBER, [(key(service="New"), values("1"))])])
    assert [grid.width for grid in month.grids] == [2, 2, 2, 1, 2, 1, 1]


def test_a_day_can_be_taken_out_again() -> None:
    month = month_with(None, OCTOBER, [columns(day, [(key(service=str(day)), values("1"))]) for day in SOME_DAYS])
    month = month_without(month, SOME_DAYS[1:3])
    assert month.days == (SOME_DAYS[0], SOME_DAYS[3])
    assert month.grids[0].width == 2
    frame = Rollup(1, [month]).frame(whole(*SOME_DAYS))
    assert frame.total == 2
    assert np.isnan(frame.amounts[0]).tolist() == [False, True, True, False]
    assert month_without(month, month.days).days == ()


def test_the_month_before_stays_as_it_was() -> None:
    """Readers hold it while the next one is built; a store may have mapped it read-only."""
    base = month_with(None, OCTOBER, [columns(OCTOBER, [(key(), values("1"))])])
    for grid in base.grids:
        for array in grid.arrays().values():
            array.flags.writeable = False
    after = month_with(base, OCTOBER, [columns(OCTOBER, [(key(), values("5"))]), columns(SOME_DAYS[1], [])])
    assert answers(base, whole(OCTOBER)) == {(): 1}
    assert answers(after, whole(OCTOBER)) == {(): 5}


def test_so_many_values_that_a_plain_key_would_overflow() -> None:
    """Five columns of 20,000 values each are 3·10²¹ combinations; a wrapped key would add what does not belong together."""
    size = 20_000
    places = np.arange(size, dtype=np.int32)
    texts = [f"v{n}" for n in range(size)]
    one = from_decimals([Decimal(n) for n in range(size)])
    codes = {name: np.roll(places, 7 * i) for i, name in enumerate(DIMENSIONS)}
    day = DayColumns(OCTOBER, dict.fromkeys(DIMENSIONS, texts), codes, dict.fromkeys(METRICS, one))
    month = month_with(None, OCTOBER, [day])
    assert month.grids[0].width == size - 1, "one charge is all zero"
    frame = Rollup(1, [month]).frame(whole(OCTOBER).grouped(*DIMENSIONS).per("total"))
    assert len(frame.groups) == size - 1
    assert frame.group_totals == tuple(Decimal(n) for n in range(size - 1, 0, -1))
    assert frame.groups[0] == tuple(texts[int(codes[name][size - 1])] for name in DIMENSIONS)
    found, span = combined([codes[name] for name in DIMENSIONS], [size] * len(DIMENSIONS))
    assert span < 2**63
    assert len(np.unique(found)) == size


def test_unknown_is_never_zero() -> None:
    month = month_with(None, OCTOBER, [columns(OCTOBER, [(key(), values("1", None))])])
    rollup = Rollup(1, [month])
    unknown = rollup.frame(CostQuery(DateRange(date(2026, 9, 1), OCTOBER)))
    assert (unknown.total, unknown.group_totals, unknown.days) == (None, (None,), ())
    assert np.isnan(unknown.amounts).all()
    blended = rollup.frame(whole(OCTOBER).measured("blended_cost"))
    assert (blended.total, blended.group_totals) == (None, (None,))
    assert np.isnan(blended.amounts).all()
    elsewhere = rollup.frame(CostQuery(DateRange(OCTOBER, SOME_DAYS[2]), filters=(("service", ("other",)),)))
    assert elsewhere.total == 0
    assert elsewhere.amounts[0, 0] == 0
    assert np.isnan(elsewhere.amounts[0, 1])


def test_groups_come_largest_first_then_by_name_and_unavailable_ones_last() -> None:
    given = {
        key(service="b"): values("1", "1"),
        key(service="a"): values("1", "1"),
        key(service="c"): values("1", "1.00000000000000000001"),
        key(service="z"): values("1", "-5"),
        key(service="n"): values("1", None),
    }
    month = month_with(None, OCTOBER, [columns(OCTOBER, given.items())])
    frame = Rollup(1, [month]).frame(whole(OCTOBER).measured("blended_cost").grouped("service"))
    assert [group[0] for group in frame.groups] == ["c", "a", "b", "z", "n"]


def test_threads_may_ask_one_rollup_at_once() -> None:
    draw = random.Random(6)
    days = {day: columns(day, drawn_charges(draw, 80).items()) for day in SOME_DAYS}
    rollup = Rollup(1, [month_with(None, OCTOBER, list(days.values()))])
    asked = [drawn_query(draw, SOME_DAYS) for _ in range(40)]
    expected = [rollup.frame(query).group_totals for query in asked]
    fresh = Rollup(1, [month_with(None, OCTOBER, list(days.values()))])
    wrong: list[CostQuery] = []

    def ask() -> None:
        wrong.extend(
            query for query, totals in zip(asked, expected, strict=True) if fresh.frame(query).group_totals != totals
        )

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


@settings(deadline=None)
@given(st.lists(st.dictionaries(keys, rows, max_size=6), max_size=4))
def test_a_file_gives_the_month_back(tmp_path_factory: pytest.TempPathFactory, days: list[Charges]) -> None:
    month = month_with(None, OCTOBER, [columns(day, of.items()) for day, of in zip(SOME_DAYS, days, strict=False)])
    path = tmp_path_factory.mktemp("grids") / "2026-10.grids"
    write_month(path, month, {"any": ["note"]})
    found, note = open_month(path, verify=True)
    assert (found.first, found.days, found.values, note) == (month.first, month.days, month.values, {"any": ["note"]})
    for one, other in zip(found.grids, month.grids, strict=True):
        assert one.arrays().keys() == other.arrays().keys()
        for name, array in other.arrays().items():
            back = one.arrays()[name]
            assert back.dtype == array.dtype
            assert np.array_equal(back, array)
            assert not back.flags.writeable or not back.size


def test_equal_arrays_are_written_once(tmp_path: Path) -> None:
    def size(blended: str) -> int:
        charges = {key(service=f"S{n}"): values(str(n), blended or str(n)) for n in range(2000)}
        write_month(tmp_path / "grids", month_with(None, OCTOBER, [columns(OCTOBER, charges.items())]))
        return (tmp_path / "grids").stat().st_size

    assert size("") < size("7") - 2000 * 4


def test_no_byte_of_a_file_may_change_unnoticed(tmp_path: Path) -> None:
    path = tmp_path / "grids"
    write_month(path, month_with(None, OCTOBER, [columns(OCTOBER, drawn_charges(random.Random(1), 40).items())]))
    whole_file = path.read_bytes()
    draw, unnoticed = random.Random(8), 0
    for place in draw.sample(range(len(whole_file)), 300):
        path.write_bytes(whole_file[:place] + bytes([whole_file[place] ^ 0x40]) + whole_file[place + 1 :])
        try:
            open_month(path, verify=True)
            unnoticed += 1
            assert whole_file[place] == 0, "only padding may change"
        except DamagedGrids:
            pass
    for length in draw.sample(range(len(whole_file)), 40):
        path.write_bytes(whole_file[:length])
        with pytest.raises(DamagedGrids):
            open_month(path)
    assert unnoticed < 200


def test_the_read_model_needs_no_columnar_engine() -> None:
    code = "import app.core.rollup, app.core.columns, app.gridfile, sys; print('pyarrow' in sys.modules)"
    root = Path(__file__).parent.parent.parent
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=root, check=True)
    assert shown.stdout.strip() == "False"
