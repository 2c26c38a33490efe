"""Columns of a cost file's numbers: exact whatever their type, and of the narrowest that holds them."""

from __future__ import annotations

from decimal import Decimal

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.core import amounts, csvnumbers
from app.core.csvfault import Fault
from app.core.csvnumbers import EXACT, NARROW

METRIC = "usage_quantity"
digits = st.text("0123456789", max_size=22)
signs = st.sampled_from(["", "-"])
plain = st.builds(lambda sign, whole, after: f"{sign}{whole}.{after}", signs, digits, digits)
odd = st.text("0123456789.-+eE /x", max_size=20)
texts = plain | st.builds(lambda sign, whole: sign + whole, signs, digits) | odd
exact = (
    st.decimals(-(10**6), 10**6, places=12) | st.decimals(-(10**12), 10**12, places=6) | st.decimals(-1, 1, places=20)
)


def column(values: list[Decimal | None]) -> pa.Array:
    return csvnumbers.exact("blended_cost", pa.array(["" if v is None else f"{v:f}" for v in values], pa.string()))


@settings(deadline=None, max_examples=400)
@given(st.lists(texts, min_size=1, max_size=6))
def test_every_number_is_taken_for_what_is_written_or_refused(cells: list[str]) -> None:
    try:
        found = csvnumbers.exact(METRIC, pa.array(cells, pa.string()))
    except Fault:
        return
    assert found.to_pylist() == [Decimal(text.strip()) for text in cells]


@settings(deadline=None)
@given(st.lists(plain, min_size=1, max_size=6))
def test_a_number_in_range_is_never_refused(cells: list[str]) -> None:
    def is_in_range(text: str) -> bool:
        whole, _, after = text.lstrip("-").partition(".")
        return bool(whole + after) and len(whole.lstrip("0")) <= 14 and len(after.rstrip("0")) <= 20

    wanted = [text for text in cells if is_in_range(text)]
    assert csvnumbers.exact(METRIC, pa.array(wanted, pa.string())).to_pylist() == [Decimal(text) for text in wanted]


@pytest.mark.parametrize(
    ("cells", "kind"),
    [
        (["0.1", "-999999.9999999999"], NARROW[0]),
        (["1000000", "0.000001"], NARROW[1]),
        (["999999999999.9", "-1"], NARROW[1]),
        (["1000000", "0.0000001"], EXACT),
        (["0.1234567890123"], EXACT),
        (["1E-10"], EXACT),
        ([], NARROW[0]),
    ],
)
def test_a_column_is_of_the_narrowest_type_that_holds_it(cells: list[str], kind: pa.DataType) -> None:
    assert csvnumbers.exact(METRIC, pa.array(cells, pa.string())).type == kind


@settings(deadline=None)
@given(st.lists(st.lists(st.none() | exact, max_size=4), max_size=4))
def test_parts_become_one_column_that_loses_nothing(parts: list[list[Decimal | None]]) -> None:
    whole = csvnumbers.together([column(part) for part in parts])
    values = [value for part in parts for value in part]
    assert whole.to_pylist() == values
    assert csvnumbers.is_nonzero(whole).tolist() == [bool(value) for value in values]
    size = float(sum(abs(v) for v in values if v))
    assert csvnumbers.magnitude(whole) == pytest.approx(size, rel=1e-6, abs=0.4 * len(values))


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(0, 2), st.none() | exact), max_size=8), st.integers(0, 2))
def test_sums_are_exact_whatever_the_type(rows: list[tuple[int, Decimal | None]], cut: int) -> None:
    array = column([value for _, value in rows]).slice(cut)
    place = np.array([where for where, _ in rows[cut:]], np.int32)
    wanted = [amounts.total(v for w, v in rows[cut:] if v and w == where) for where in range(3)]
    assert csvnumbers.sums(array, place, 3) == wanted


def test_sums_leave_64_bits_where_they_must() -> None:
    array = csvnumbers.narrow(np.full(100, -(10**18) + 1))
    assert csvnumbers.sums(array, np.zeros(100, np.int32), 1) == [Decimal("-99999999.9999999999")]
