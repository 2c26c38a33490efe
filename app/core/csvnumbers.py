"""The numbers of a cost file, from text to exact decimals, and what is worked out with columns of them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from decimal import Decimal
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from app.core import amounts
from app.core.charges import COSTS, MAY_BE_ABSENT
from app.core.csvfault import Fault, safe

EXACT: Final = pa.decimal128(38, 20)
NARROW: Final = (pa.decimal64(18, 12), pa.decimal64(18, 6))
"""What fits 64 bits, as most columns do: below a million with twelve decimals, below a trillion with six."""

COST_LIMIT: Final = 10**12
"""A cost beyond this, either way, is a mistake in the file."""
SUM_LIMIT: Final = 10**14
"""Most of Σ|value| of a column, and of one usage quantity: sums in 64-bit integers (core.amounts) stay far from full."""

# --- from text --------------------------------------------------------------------------------------------

NUMBER: Final = re.compile(r"[ \t]*([+-]?)([0-9]*)(?:\.([0-9]*))?(?:[eE]([+-]?0*[0-9]{1,9}))?[ \t]*")
"""Groups: sign, digits before and after the point, exponent. Blanks around it are nothing."""

_SMALL_EXPONENT: Final = r"[eE]-[01]?[0-9]$"
_SURE_DIGITS: Final = 18
"""As many characters before the point cannot overflow EXACT, and as many in all none of NARROW."""


def exact(name: str, cells: Any) -> Any:
    """A column of text as exact decimals: of a type of NARROW, or EXACT where none of them holds all.

    Raises Fault with the first row that is not a number in range.
    """
    found = _converted(name, cells)
    if found.type in NARROW:
        return found
    limit = COST_LIMIT if name in COSTS else SUM_LIMIT
    # The high words are the values in steps of 0.18: only what is near the limit is compared exactly.
    high = np.abs(words(found)[:, 1])
    for row in np.flatnonzero(high >= limit * 10**20 >> 64).tolist():
        if found[row].as_py().copy_abs() > limit:  # abs() would round to 28 digits
            raise Fault("too_large_amount", _large_message(name), row=row, value=cells[row].as_py())
    return found


def _large_message(name: str) -> str:
    return f"{name} is beyond ±{COST_LIMIT if name in COSTS else SUM_LIMIT:,}: that is a mistake in the file."


def _converted(name: str, cells: Any) -> Any:
    if name == MAY_BE_ABSENT:
        cells = pc.if_else(pc.equal(pc.binary_length(cells), 0), pa.scalar(None, cells.type), cells)
    for kind in _kinds(cells):
        try:
            return cells.cast(EXACT) if kind == EXACT else _narrowed(cells, kind)
        except pa.ArrowInvalid:
            pass
    return pa.array([_decimal(name, text, row) for row, text in enumerate(cells.to_pylist())], EXACT)


def _narrowed(cells: Any, kind: Any) -> Any:
    """By way of 128 bits: Arrow wraps around without an error in 64 (18446762.520473 becomes 18.4…)."""
    found = cells.cast(pa.decimal128(kind.precision, kind.scale))
    valid = found.is_valid().to_numpy(zero_copy_only=False) if found.null_count else None
    return _of_counts(kind, np.frombuffer(found.buffers()[1], np.int64, 2 * len(found))[::2], valid)


def _kinds(cells: Any) -> tuple[Any, ...]:
    """Types that Arrow's own conversion is right for, for every text of a column, or refuses.

    It wraps around without an error from 19 digits before the point on (5e18 becomes 1.6e18), and for exponents such
    as 1e-2147483600 it reads outside its tables, which ends the process (seen with 26.0.1).
    """
    text = cells.buffers()[2]
    letters = b"" if text is None else text.to_pybytes()
    has_exponents = b"e" in letters or b"E" in letters
    if has_exponents and not _has_small_exponents(cells):
        return ()
    lengths = pc.binary_length(cells)
    longest = pc.max(lengths).as_py() or 0
    if longest <= _SURE_DIGITS:
        return (EXACT,) if has_exponents else (*NARROW, EXACT)
    point = pc.find_substring(cells, ".")
    before = pc.max(pc.if_else(pc.less(point, 0), lengths, point)).as_py()
    return (EXACT,) if before <= _SURE_DIGITS else ()


def _has_small_exponents(cells: Any) -> bool:
    every, small = (pc.sum(pc.match_substring_regex(cells, shape)).as_py() for shape in ("[eE]", _SMALL_EXPONENT))
    return bool(every == small)


def _decimal(name: str, text: str | None, row: int) -> Decimal | None:
    """The exact value of a text, None for none. Raises Fault."""
    if text is None:
        return None
    found = NUMBER.fullmatch(text)
    if found is None or not (found[2] or found[3]):
        raise _no_number(name, text, row)
    after = found[3] or ""
    digits = (found[2] + after).lstrip("0")
    power = int(found[4] or 0) - len(after)
    power += len(digits) - len(digits := digits.rstrip("0"))
    if not digits:
        return Decimal(0)
    if len(digits) + power > 15:
        raise Fault("too_large_amount", _large_message(name), row=row, value=text)
    if power < -amounts.SCALE:
        message = f"{name} has more than {amounts.SCALE} decimals. Round it there."
        raise Fault("too_many_decimals", message, row=row, value=text)
    return Decimal(found[1] + digits).scaleb(power, amounts.EXACT)


def _no_number(name: str, text: str, row: int) -> Fault:
    if not text:
        return Fault("empty_amount", f"{name} is empty. Write 0 when it is zero.", row=row, value="")
    message = f"{name} is {safe(text)!r}, not a plain number such as -1234.5 or 1.5E-7."
    return Fault("not_a_number", message, row=row, value=text)


# --- columns of decimals ------------------------------------------------------------------------------------------


def narrow(counts: NDArray[np.int64], valid: NDArray[np.bool_] | None = None) -> Any:
    """An array of the first type of NARROW, of counts of 10⁻¹² below 10¹⁸; null where not valid (None: all are)."""
    return _of_counts(NARROW[0], counts, valid)


def _of_counts(kind: Any, counts: NDArray[np.int64], valid: NDArray[np.bool_] | None) -> Any:
    bitmap = None if valid is None else pa.py_buffer(np.packbits(valid, bitorder="little"))
    return pa.Array.from_buffers(kind, len(counts), [bitmap, pa.py_buffer(np.ascontiguousarray(counts, np.int64))])


def together(arrays: Sequence[Any]) -> Any:
    """One array of them, of the narrowest type that holds all."""
    kinds = {array.type for array in arrays} or {NARROW[0]}
    for kind in (*NARROW, EXACT):
        # Types are in the order of what they hold before the point; decimals may be lacking.
        if kind == EXACT or not any(other == EXACT or other.scale < kind.scale for other in kinds):
            try:
                return pa.concat_arrays([pa.array([], kind), *(array.cast(kind) for array in arrays)])
            except pa.ArrowInvalid:
                pass
    raise AssertionError("every type of NARROW can be cast to EXACT")


def words(array: Any) -> NDArray[np.int64]:
    """[row, word] of decimals, the low word first: a type of NARROW has one, decimal128 two; null is 0."""
    width = array.type.byte_width // 8
    if not len(array):
        return np.zeros((0, width), np.int64)
    if array.null_count:
        array = _zero_filled(array)
    found = np.frombuffer(array.buffers()[1], "<i8", width * len(array), 8 * width * array.offset)
    return found.reshape(-1, width)


def _zero_filled(array: Any) -> Any:
    if array.type not in NARROW:
        return array.fill_null(Decimal(0))
    each = np.frombuffer(array.buffers()[1], np.int64, len(array), 8 * array.offset)
    return _of_counts(array.type, np.where(array.is_valid().to_numpy(zero_copy_only=False), each, 0), None)


def is_nonzero(array: Any) -> NDArray[np.bool_]:
    """Where a value is neither zero nor absent."""
    found = words(array)
    return np.asarray((found[:, 0] if found.shape[1] == 1 else found[:, 0] | found[:, 1]) != 0)


def magnitude(array: Any) -> float:
    """Σ|value|, near enough to compare with a limit."""
    last = words(array)[:, -1]
    unit = 10.0**-array.type.scale if array.type in NARROW else 2.0**64 / 10.0**amounts.SCALE
    return float(np.abs(last).sum(dtype=np.float64)) * unit


def sums(array: Any, place: NDArray[Any], width: int) -> list[Decimal | None]:
    """Exact sums by place (0 ≤ place < width); null adds nothing."""
    if array.type not in NARROW:
        return _decimal_sums(array, place, width)
    each, scale = words(array)[:, 0], array.type.scale
    if magnitude(array) * 10.0**scale < _MOST_SUMMED:
        return [_decimal_of(count, scale) for count in _added(each, place, width)]
    high = each // amounts.LIMB
    parts = zip(_added(high, place, width), _added(each - high * amounts.LIMB, place, width), strict=True)
    return [_decimal_of(upper * amounts.LIMB + lower, scale) for upper, lower in parts]


_MOST_SUMMED: Final = 9e18
"""Σ|count| that is sure to fit 64 bits."""


def _added(values: NDArray[np.int64], place: NDArray[Any], width: int) -> list[int]:
    found = np.zeros(width, np.int64)
    np.add.at(found, place, values)
    return [int(each) for each in found]


def _decimal_of(count: int, scale: int) -> Decimal:
    return Decimal(count).scaleb(-scale, amounts.EXACT)


def _decimal_sums(array: Any, place: NDArray[Any], width: int) -> list[Decimal | None]:
    table = pa.table({"place": pa.array(place), "value": array})
    added = table.group_by("place", use_threads=False).aggregate([("value", "sum")])
    by_place = dict(zip(added["place"].to_pylist(), added["value_sum"].to_pylist(), strict=True))
    return [by_place.get(each) or Decimal(0) for each in range(width)]
