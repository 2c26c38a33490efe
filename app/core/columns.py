"""A day's charges as a pyarrow table (core.dailycsv.SCHEMA), as plain columns (core.rollup), and their exact totals.

Only workers have tables; what takes one imports pyarrow itself, so that the web side can import this module.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date
from decimal import Decimal
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from app.core.amounts import LIMB, Amounts, from_counts, from_decimal128
from app.core.charges import DIMENSIONS, MAY_BE_ABSENT, METRICS, Totals
from app.core.rollup import DayColumns, combined

if TYPE_CHECKING:
    import pyarrow as pa

NARROW_BEFORE: Final = (18, 12)
"""Precision and scale of the narrow decimals that files of earlier versions have: decimal128, not csvnumbers.NARROW."""


def tidied(charges: pa.Table) -> pa.Table:
    """The same charges in one canonical form: sorted by key, each dictionary sorted and without unused values.

    All-zero charges are left out: they equal no charge (DESIGN §4). One chunk a column.
    """
    import pyarrow as pa

    from app.core.dailycsv import SCHEMA

    table = charges.select(SCHEMA.names).unify_dictionaries().combine_chunks()
    nonzero = _nonzero(table)
    if not nonzero.all():
        table = table.filter(pa.array(nonzero)).combine_chunks()
    arrays = {name: _array(table, name) for name in SCHEMA.names}
    for field in SCHEMA:
        if pa.types.is_dictionary(field.type):
            arrays[field.name] = _with_sorted_dictionary(arrays[field.name])
    table = pa.table(arrays)
    codes = [_codes(arrays[name]) for name in DIMENSIONS]
    key, _ = combined(codes, [len(arrays[name].dictionary) for name in DIMENSIONS])
    if (key[1:] >= key[:-1]).all():
        return table
    return table.take(pa.array(np.argsort(key, kind="stable")))


def columns_of(day: date, charges: pa.Table) -> DayColumns:
    """Plain columns of a table whose dictionaries agree between chunks (any order, any decimal scale)."""
    table = charges.combine_chunks()
    texts = {name: _array(table, name) for name in DIMENSIONS}
    absent = _array(table, MAY_BE_ABSENT).is_null()
    return DayColumns(
        day=day,
        values={name: array.dictionary.to_pylist() for name, array in texts.items()},
        codes={name: _codes(array) for name, array in texts.items()},
        amounts={metric: _amounts(_array(table, metric)) for metric in METRICS},
        absent=absent.to_numpy(zero_copy_only=False) if absent.true_count else None,
        units=_units(texts["service"], _array(table, "usage_unit")),
    )


def _units(services: Any, units: Any) -> dict[str, frozenset[str]]:
    """Units that occur with each service."""
    if units.null_count or not len(units):
        return {}
    names, words = services.dictionary.to_pylist(), units.dictionary.to_pylist()
    found: dict[str, set[str]] = {}
    for pair in np.unique(_codes(services).astype(np.int64) * len(words) + _codes(units)).tolist():
        found.setdefault(names[pair // len(words)], set()).add(words[pair % len(words)])
    return {service: frozenset(used) for service, used in found.items()}


def account_totals(day: DayColumns) -> dict[str, Totals]:
    """Exact totals of each account that has a charge that is not all zero."""
    day = day.counting()
    names, place = day.values["account"], day.codes["account"]
    rows = np.bincount(place, minlength=len(names)).tolist()
    lacking = [0] * len(names)
    if day.absent is not None:
        lacking = np.bincount(place, weights=day.absent, minlength=len(names)).tolist()
    sums = {metric: _sums(day.amounts[metric], place, len(names)) for metric in METRICS}
    return {
        name: Totals(
            rows=rows[i],
            amortized_cost=sums["amortized_cost"][i],
            blended_cost=None if lacking[i] else sums["blended_cost"][i],
            unblended_cost=sums["unblended_cost"][i],
            usage_quantity=sums["usage_quantity"][i],
        )
        for i, name in enumerate(names)
        if rows[i]
    }


def narrowed(charges: pa.Table, day: DayColumns) -> pa.Table:
    """The table with decimals as narrow as their values allow: half the bytes to write. `widened` is the way back."""
    for metric in METRICS:
        place = charges.schema.get_field_index(metric)
        charges = charges.set_column(place, metric, _narrow(_array(charges, metric), day.amounts[metric]))
    return charges


def widened(charges: pa.Table) -> pa.Table:
    """The table in SCHEMA again."""
    from app.core.dailycsv import SCHEMA

    return charges.cast(SCHEMA)


def refuse_others(accounts: frozenset[str], charges: pa.Table) -> None:
    """Raise ValueError when there are charges of another account: they would be added to what it has."""
    found = set(charges["account"].unify_dictionaries().unique().to_pylist())
    if found - accounts:
        raise ValueError(f"charges of {sorted(found - accounts)[:3]} are given, but those accounts are not replaced")


def without_accounts(charges: pa.Table, accounts: frozenset[str]) -> pa.Table:
    """The charges of every other account."""
    import pyarrow as pa
    import pyarrow.compute as pc

    gone = pc.is_in(charges["account"].cast(pa.string()), value_set=pa.array(sorted(accounts), pa.string()))
    return charges.filter(pc.invert(gone))


def as_texts(totals: Mapping[str, Totals]) -> dict[str, list[Any]]:
    """Totals as JSON values: rows and one exact decimal text a metric (null: not available)."""
    return {name: [part.rows, *(_text(part.of(metric)) for metric in METRICS)] for name, part in totals.items()}


def from_texts(texts: Mapping[str, list[Any]]) -> dict[str, Totals]:
    return {
        name: Totals(rows, *(None if text is None else Decimal(text) for text in values))  # type: ignore[arg-type]
        for name, (rows, *values) in texts.items()
    }


def _text(value: Decimal | None) -> str | None:
    return None if value is None else format(value, "f")


def _sums(amounts: Amounts, place: NDArray[Any], width: int) -> list[Decimal]:
    return amounts.sums_at(place, width).decimals()


def _array(table: pa.Table, name: str) -> Any:
    import pyarrow as pa

    column = table[name]
    return column.chunk(0) if column.num_chunks else pa.array([], column.type)


def _codes(array: Any) -> NDArray[np.int32]:
    return np.asarray(array.indices.to_numpy(zero_copy_only=False), np.int32)


def _with_sorted_dictionary(array: Any) -> Any:
    import pyarrow as pa

    texts = array.dictionary.to_pylist()
    if not array.null_count:
        is_used = np.zeros(len(texts), np.bool_)
        is_used[_codes(array)] = True
        if is_used.all() and all(one < other for one, other in pairwise(texts)):
            return array
    used = [code for code in array.indices.unique().to_pylist() if code is not None]
    names = sorted({texts[code] for code in used})
    position = {name: place for place, name in enumerate(names)}
    place = np.zeros(max(len(texts), 1), np.int32)
    place[used] = [position[texts[code]] for code in used]
    return pa.DictionaryArray.from_arrays(pa.array(place).take(array.indices), pa.array(names, pa.string()))


def _nonzero(table: pa.Table) -> NDArray[np.bool_]:
    from app.core.csvnumbers import is_nonzero

    return np.asarray(np.logical_or.reduce([is_nonzero(_array(table, metric)) for metric in METRICS]))


def _amounts(array: Any) -> Amounts:
    import pyarrow as pa

    from app.core.csvnumbers import EXACT, NARROW, words

    if array.type in NARROW or array.type == pa.decimal128(*NARROW_BEFORE):
        return from_counts(words(array)[:, 0], array.type.scale)
    if array.type != EXACT:
        array = array.cast(EXACT)
    both = words(array)
    return from_decimal128(both.data, len(both)) if len(both) else Amounts(np.zeros((2, 0), np.int64))


def _narrow(array: Any, amounts: Amounts) -> Any:
    """The same decimals in 64 bits, where all of them fit."""
    from app.core.csvnumbers import EXACT, narrow

    high, middle = amounts.parts[:2]
    if array.type != EXACT or len(amounts.parts) == 3 or not len(array) or high.max() >= _MOST or high.min() < -_MOST:
        return array
    counts = high.astype(np.int64) * LIMB + middle
    return narrow(counts, array.is_valid().to_numpy(zero_copy_only=False) if array.null_count else None)


_MOST: Final = 10**10
"""Parts `high` (counts of 10⁻⁴) below this are of values below a million."""
