"""Exact amounts in numpy: every sum of money or usage is an integer sum, so it does not depend on order.

A value v is held as three integers with v = high·10⁻⁴ + middle·10⁻¹² + low·10⁻²⁰, 0 ≤ middle, low < 10⁸.
Twenty decimals are what a cost file may carry (core.dailycsv). `high` is int64 and reaches ±9·10¹⁴;
`middle` and `low` are int32 and may be summed 9·10¹⁰ times in int64 before they could overflow.
Most files carry twelve decimals or fewer; then `low` is None and costs nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import numpy as np
from numpy.typing import NDArray

from app.core.exact import EXACT as EXACT
from app.core.exact import SCALE as SCALE
from app.core.exact import text as text
from app.core.exact import total as total

LIMB = 10**8

Ints = NDArray[np.int64]
AnyInts = NDArray[Any]


@dataclass(frozen=True)
class Amounts:
    """An array of exact values: `high`, `middle` and `low` share one shape (`low` is None when all zero)."""

    high: AnyInts
    middle: AnyInts
    low: AnyInts | None = None

    @property
    def shape(self) -> tuple[int, ...]:
        return self.high.shape

    def map(self, change: Callable[[AnyInts], AnyInts]) -> Amounts:
        """The same selection or sum applied to each part."""
        low = None if self.low is None else change(self.low)
        return Amounts(change(self.high), change(self.middle), low)

    def sum(self, axis: int | None = None) -> Amounts:
        return self.map(lambda part: np.asarray(part.sum(axis=axis, dtype=np.int64)))

    def floats(self) -> NDArray[np.float64]:
        """Nearest floats, for charts only."""
        values = self.high * 1e-4 + self.middle * 1e-12
        return np.asarray(values if self.low is None else values + self.low * 1e-20, dtype=np.float64)

    def decimal(self) -> Decimal:
        """The exact sum of all values."""
        high, middle = (int(part.sum(dtype=np.int64)) for part in (self.high, self.middle))
        low = 0 if self.low is None else int(self.low.sum(dtype=np.int64))
        return exact(high * LIMB * LIMB + middle * LIMB + low)

    def decimals(self) -> list[Decimal]:
        """Each value of a one-dimensional array."""
        low = [0] * len(self.high) if self.low is None else self.low.tolist()
        parts = zip(self.high.tolist(), self.middle.tolist(), low, strict=True)
        square = LIMB * LIMB
        return [Decimal(h * square + m * LIMB + lo).scaleb(-SCALE, EXACT) for h, m, lo in parts]

    def normalised(self) -> Amounts:
        """The same values with 0 ≤ middle, low < 10⁸ again, as after a sum; parts as small as they can be."""
        high, middle = self.high.astype(np.int64), self.middle.astype(np.int64)
        low = None
        if self.low is not None:
            carry, rest = np.divmod(self.low.astype(np.int64), LIMB)
            middle = middle + carry
            low = rest.astype(np.int32) if rest.any() else None
        carry, middle = np.divmod(middle, LIMB)
        return Amounts(high + carry, middle.astype(np.int32), low)


def zeros(shape: tuple[int, ...]) -> Amounts:
    return Amounts(np.zeros(shape, np.int64), np.zeros(shape, np.int64), np.zeros(shape, np.int64))


def exact(scaled: int) -> Decimal:
    """The decimal of an integer count of 10⁻²⁰."""
    return Decimal(scaled).scaleb(-SCALE, EXACT)


def from_decimals(values: list[Decimal]) -> Amounts:
    """Amounts of Python decimals (at most 20 decimals each)."""
    scaled = [int(value.scaleb(SCALE, EXACT)) for value in values]
    low = np.array([s % LIMB for s in scaled], np.int32)
    middle = np.array([s // LIMB % LIMB for s in scaled], np.int32)
    high = np.array([s // (LIMB * LIMB) for s in scaled], np.int64)
    return Amounts(high, middle, low if low.any() else None)


def from_decimal128(buffer: memoryview | bytes, count: int, offset: int = 0) -> Amounts:
    """Amounts of Arrow decimal128(38, 20) values: 128-bit little-endian two's complement counts of 10⁻²⁰."""
    words = np.frombuffer(buffer, dtype="<u8", count=2 * (count + offset)).reshape(-1, 2)[offset:]
    high, middle, low = np.empty(count, np.int64), np.empty(count, np.int32), np.empty(count, np.int32)
    for first in range(0, count, _BLOCK):
        block = slice(first, first + _BLOCK)
        high[block], middle[block], low[block] = _limbs(words[block, 0], words[block, 1])
    return Amounts(high, middle, low if low.any() else None)


_BLOCK = 8192
"""Rows converted at a time: the intermediates stay in the processor's cache, which makes it three times as fast."""

_U = np.uint64
_TWO64_QUOTIENT, _TWO64_REST = (_U(part) for part in divmod(2**64, LIMB))


def _limbs(low64: NDArray[np.uint64], high64: NDArray[np.uint64]) -> tuple[Ints, Ints, Ints]:
    negative = high64 >> _U(63) == 1
    any_negative = bool(negative.any())
    if any_negative:
        flipped = ~low64 + _U(1)
        high64 = np.where(negative, ~high64 + (flipped == 0), high64)
        low64 = np.where(negative, flipped, low64)
    if int(high64.max()) < 2**25:
        high, middle, low = _divide_small(low64, high64)
    else:
        high, middle, low = _divide_any(low64, high64)
    if any_negative:
        return _negated(negative, high, middle, low)
    return high, middle, low


def _divide_small(low64: NDArray[np.uint64], high64: NDArray[np.uint64]) -> tuple[Ints, Ints, Ints]:
    """For values below 2⁸⁹ (6 million): three 64-bit divisions, with 2⁶⁴ = q·10⁸ + r."""
    limb = _U(LIMB)
    quotient = low64 // limb
    rest = high64 * _TWO64_REST + (low64 - quotient * limb)
    carry = rest // limb
    quotient = quotient + carry + high64 * _TWO64_QUOTIENT
    high = quotient // limb
    return high.view(np.int64), (quotient - high * limb).view(np.int64), (rest - carry * limb).view(np.int64)


def _divide_any(low64: NDArray[np.uint64], high64: NDArray[np.uint64]) -> tuple[Ints, Ints, Ints]:
    """Long division by 10⁸, twice, in base 2³², so that every intermediate fits 64 bits."""
    mask, shift = _U(0xFFFFFFFF), _U(32)
    digits = [high64 >> shift, high64 & mask, low64 >> shift, low64 & mask]
    digits, low = _long_division(digits)
    digits, middle = _long_division(digits)
    return ((digits[-2] << shift) | digits[-1]).view(np.int64), middle.view(np.int64), low.view(np.int64)


def _long_division(digits: list[NDArray[np.uint64]]) -> tuple[list[NDArray[np.uint64]], NDArray[np.uint64]]:
    limb, shift = _U(LIMB), _U(32)
    rest, quotient = np.zeros_like(digits[0]), []
    for digit in digits:
        current = (rest << shift) | digit
        quotient.append(current // limb)
        rest = current - quotient[-1] * limb
    return quotient, rest


def _negated(negative: NDArray[np.bool_], high: Ints, middle: Ints, low: Ints) -> tuple[Ints, Ints, Ints]:
    sign = np.where(negative, -1, 1)
    low = low * sign
    borrow = low < 0
    middle = middle * sign - borrow
    low = low + borrow * LIMB
    borrow = middle < 0
    return high * sign - borrow, middle + borrow * LIMB, low
