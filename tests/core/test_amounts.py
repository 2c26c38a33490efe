"""Exact amounts agree with Python's decimals, whatever is added to what."""

from __future__ import annotations

from decimal import Decimal

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.core.amounts import EXACT, Amounts, exact, from_decimal128, from_decimals, text, total


def scaled(largest: int, places: int) -> st.SearchStrategy[Decimal]:
    """Decimals up to ±largest with at most so many places."""
    steps = st.integers(-largest * 10**places, largest * 10**places)
    return steps.map(lambda step: Decimal(step).scaleb(-places, EXACT))


small, wide = scaled(1_000, 12), scaled(10**12, 20)
values = st.one_of(
    small, wide, st.sampled_from([Decimal(0), Decimal("-1e-20"), Decimal("214748.3648"), Decimal("1e-12")])
)
lists = st.one_of(st.lists(small, max_size=12), st.lists(values, max_size=12))


@given(lists)
def test_decimals_come_back_as_they_were(given: list[Decimal]) -> None:
    assert from_decimals(given).decimals() == given


@given(lists)
def test_the_sum_is_that_of_the_decimals_in_any_order(given: list[Decimal]) -> None:
    found = from_decimals(given)
    backwards = found.map(lambda part: part[::-1])
    assert found.decimal() == backwards.decimal() == total(given)


@settings(deadline=None)
@given(st.lists(st.tuples(values, st.integers(0, 3)), max_size=12))
def test_sums_by_place_are_exact_at_any_size(pairs: list[tuple[Decimal, int]]) -> None:
    found = from_decimals([value for value, _ in pairs]).sums_at(np.array([at for _, at in pairs], np.intp), 4)
    assert found.decimals() == [total([value for value, at in pairs if at == place]) for place in range(4)]


def test_sums_by_place_do_not_overflow_where_packing_would() -> None:
    many = from_decimals([Decimal("4000000")] * 5)
    assert many.sums_at(np.zeros(5, np.intp), 1).decimals() == [20_000_000]


@given(lists)
def test_arrow_decimals_become_the_same_amounts(given: list[Decimal]) -> None:
    array = pa.array([Decimal(0), *given], pa.decimal128(38, 20))
    assert from_decimal128(array.buffers()[1], len(given), 1).decimals() == given


def test_a_block_beyond_32_bits_widens_what_was_read_before() -> None:
    given = [Decimal(1)] * 9_000 + [Decimal(10**9)]
    array = pa.array(given, pa.decimal128(38, 20))
    found = from_decimal128(array.buffers()[1], len(given))
    assert (found.parts.dtype, found.decimals()) == (np.int64, given)


@given(lists)
def test_sums_are_normal_again(given: list[Decimal]) -> None:
    found = Amounts(np.stack([part + part for part in from_decimals(given).parts.astype(np.int64)])).normalised()
    assert found.decimals() == [EXACT.add(value, value) for value in given]
    assert ((found.parts[1:] >= 0) & (found.parts[1:] < 10**8)).all()


@given(lists)
def test_floats_are_the_nearest_and_nonzero_is_exact(given: list[Decimal]) -> None:
    found = from_decimals(given)
    assert found.floats().tolist() == pytest.approx([float(value) for value in given])
    assert found.nonzero().tolist() == [bool(value) for value in given]


@pytest.mark.parametrize(
    ("value", "shown"),
    [("4321.09340", "4321.0934"), ("-1E-8", "-0.00000001"), ("-0.0", "0"), ("1E+3", "1000"), ("0", "0")],
)
def test_text_is_plain_digits(value: str, shown: str) -> None:
    assert text(Decimal(value)) == shown


def test_an_exact_count_keeps_every_digit() -> None:
    assert exact(-(10**38) - 1) == Decimal("-1000000000000000000.00000000000000000001")
