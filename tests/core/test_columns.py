"""Tables of charges, plain columns and their exact totals are the same charges, however the table is cut."""

from __future__ import annotations

import itertools
from decimal import Decimal
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.core.charges import DIMENSIONS, METRICS, Totals
from app.core.columns import (
    account_totals,
    as_texts,
    columns_of,
    from_texts,
    narrowed,
    refuse_others,
    tidied,
    widened,
    without_accounts,
)
from app.core.csvnumbers import EXACT, NARROW
from app.core.dailycsv import SCHEMA
from tests.contracts.cost_store import DAY, Charges, charges_of, counting, key, keys, rows, table, totals_of, values

cut_points = st.lists(st.integers(0, 12), max_size=3)


def cut(whole: pa.Table, points: list[int]) -> pa.Table:
    """The same rows in several chunks, each with an offset into shared buffers."""
    edges = [0, *sorted(min(point, len(whole)) for point in points), len(whole)]
    return pa.concat_tables([whole.slice(a, b - a) for a, b in itertools.pairwise(edges)])


@settings(deadline=None)
@given(st.dictionaries(keys, rows, max_size=12), cut_points)
def test_totals_are_those_of_adding_up(charges: Charges, points: list[int]) -> None:
    found = columns_of(DAY, tidied(cut(table(charges), points)))
    assert account_totals(found) == totals_of(charges)
    assert from_texts(as_texts(totals_of(charges))) == totals_of(charges)


@settings(deadline=None)
@given(st.dictionaries(keys, rows, max_size=12), st.randoms(), cut_points)
def test_a_tidied_table_does_not_depend_on_how_it_came(charges: Charges, draw: Any, points: list[int]) -> None:
    mixed = list(charges.items())
    draw.shuffle(mixed)
    one, other = tidied(table(charges)), tidied(cut(table(dict(mixed)), points))
    assert one.equals(other)
    assert one.schema == SCHEMA
    assert charges_of(one) == sorted(counting(charges).items())


@settings(deadline=None)
@given(st.dictionaries(keys, rows, min_size=1, max_size=12))
def test_narrow_decimals_are_the_same_charges(charges: Charges) -> None:
    tidy = tidied(table(charges))
    narrow = narrowed(tidy, columns_of(DAY, tidy))
    assert widened(narrow).equals(tidy)
    assert account_totals(columns_of(DAY, narrow)) == totals_of(charges)


@pytest.mark.parametrize(
    ("amount", "narrow"),
    [
        ("999999.999999999999", True),
        ("-999999.999999999999", True),
        ("1000000", False),
        ("-1000000.000000000001", False),
        ("0.0000000000001", False),
    ],
)
def test_decimals_are_narrow_exactly_where_they_fit(amount: str, narrow: bool) -> None:
    tidy = tidied(table({key(): values(amount), key(service="Other"): values("1", None)}))
    found = narrowed(tidy, columns_of(DAY, tidy))
    assert (found["amortized_cost"].type == NARROW[0]) == narrow
    assert widened(found).equals(tidy)


def test_what_lies_under_a_null_never_counts() -> None:
    """Arrow says nothing about the bytes of a null; a parser may well leave the amount of another row there."""
    whole = tidied(table({key("a"): values("1", "7"), key("b"): values("1", "9")}))
    buffers = whole["blended_cost"].chunk(0).buffers()
    garbage = pa.Array.from_buffers(EXACT, 2, [pa.py_buffer(b"\x01"), buffers[1]])
    place = SCHEMA.get_field_index("blended_cost")
    found = columns_of(DAY, whole.set_column(place, "blended_cost", garbage))
    assert found.amounts["blended_cost"].decimals() == [7, 0]
    assert account_totals(found)["b"].blended_cost is None
    only = whole.set_column(place, "blended_cost", garbage).slice(1)
    for metric in METRICS[2:]:
        only = only.set_column(SCHEMA.get_field_index(metric), metric, pa.array([Decimal(0)], EXACT))
    only = only.set_column(SCHEMA.get_field_index("amortized_cost"), "amortized_cost", pa.array([Decimal(0)], EXACT))
    assert tidied(only).num_rows == 0, "all zero, whatever lies under the null"


def test_dictionaries_hold_only_values_that_occur_once_each() -> None:
    codes = pa.array(np.array([2, 0, 2], np.int32))
    twice = pa.DictionaryArray.from_arrays(codes, pa.array(["same", "unused", "same"]))
    given_ = table({key(region=region): values("1") for region in "xyz"})
    found = tidied(given_.set_column(SCHEMA.get_field_index("service"), "service", twice))
    assert found["service"].chunk(0).dictionary.to_pylist() == ["same"]
    assert [k[DIMENSIONS.index("region")] for k, _ in charges_of(found)] == ["x", "y", "z"]


def test_accounts_can_be_left_out_and_others_refused() -> None:
    given_ = table({key(name): values("1") for name in ("a", "b", "c")})
    assert [k[1] for k, _ in charges_of(without_accounts(given_, frozenset({"b", "x"})))] == ["a", "c"]
    refuse_others(frozenset({"a", "b", "c"}), given_)
    with pytest.raises(ValueError, match="'c'"):
        refuse_others(frozenset({"a", "b"}), given_)


def test_totals_as_texts_are_plain_digits() -> None:
    totals = {"a": Totals(2, Decimal("1E-20"), None, Decimal("1E+5"), Decimal("-0.50"))}
    assert as_texts(totals) == {"a": [2, "0.00000000000000000001", None, "100000", "-0.50"]}
