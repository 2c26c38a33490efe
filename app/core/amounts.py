"""Exact amounts in numpy: every sum of money or usage is an integer sum, so it does not depend on order.

A value v is held as integers with v = high·10⁻⁴ + middle·10⁻¹² + low·10⁻²⁰, 0 ≤ middle, low < 10⁸.
Twenty decimals are what a cost file may carry (core.dailycsv). In int64 `high` reaches ±9·10¹⁴, and `middle` and
`low` may be summed 9·10¹⁰ times before they could overflow. What fits is kept in int32.
Most files carry twelve decimals or fewer; then `low` is left out and costs nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal
from functools import cached_property, reduce
from typing import Any

import numpy as np
from numpy.typing import NDArray

from app.core.exact import EXACT as EXACT
from app.core.exact import SCALE as SCALE
from app.core.exact import text as text
from app.core.exact import total as total

LIMB = 10**8
_TWO_LIMBS = 12
"""Decimals of high and middle together."""

_MOST_PACKED = 9 * 10**18 // LIMB
"""Σ|high| up to which sums of high·10⁸ + middle fit 64 bits: 9 million dollars."""

Ints = NDArray[np.int64]
AnyInts = NDArray[Any]


@dataclass(frozen=True)
class Amounts:
    """An array of exact values. `parts` is [2 or 3, *shape]: high, middle and, where any value needs it, low."""

    parts: AnyInts

    @property
    def shape(self) -> tuple[int, ...]:
        return self.parts.shape[1:]

    def map(self, change: Callable[[AnyInts], AnyInts]) -> Amounts:
        """The same selection or sum applied to each part."""
        return Amounts(np.stack([change(part) for part in self.parts]))

    def sum(self, axis: int | None = None) -> Amounts:
        axes = tuple(range(1, self.parts.ndim)) if axis is None else axis + 1
        return Amounts(self.parts.sum(axis=axes, dtype=np.int64))

    def floats(self) -> NDArray[np.float64]:
        """Nearest floats, for charts only."""
        values: NDArray[np.float64] = self.parts[0] * 1e-4 + self.parts[1] * 1e-12
        return values if len(self.parts) == 2 else values + self.parts[2] * 1e-20

    def decimal(self) -> Decimal:
        """The exact sum of all values."""
        flat = self.parts.reshape(len(self.parts), -1)
        return Amounts(flat.sum(axis=1, dtype=np.int64)[:, np.newaxis]).decimals()[0]

    def decimals(self) -> list[Decimal]:
        """Each value of a one-dimensional array."""
        rows = self.parts.tolist()
        if len(rows) == 2:
            return [Decimal(h * LIMB + m).scaleb(-_TWO_LIMBS, EXACT) for h, m in zip(*rows, strict=True)]
        square = LIMB * LIMB
        return [exact(h * square + m * LIMB + low) for h, m, low in zip(*rows, strict=True)]

    def normalised(self) -> Amounts:
        """The same values in int64 with 0 ≤ middle, low < 10⁸ again, as after a sum; without `low` where it is zero."""
        high, middle = self.parts[0].astype(np.int64), self.parts[1].astype(np.int64)
        low = None
        if len(self.parts) == 3:
            carry, low = np.divmod(self.parts[2].astype(np.int64), LIMB)
            middle += carry
        carry, middle = np.divmod(middle, LIMB)
        return stacked(high + carry, middle, low)

    def sums_at(self, place: NDArray[Any], width: int) -> Amounts:
        """The sums of a one-dimensional array by place (0 ≤ place < width)."""
        if self._packed is not None:
            sums = np.zeros(width, np.int64)
            np.add.at(sums, place, self._packed)
            return stacked(*np.divmod(sums, LIMB))
        parts = np.zeros((len(self.parts), width), np.int64)
        for sums, part in zip(parts, self.parts, strict=True):
            np.add.at(sums, place, part.astype(np.int64))
        return Amounts(parts).normalised()

    @cached_property
    def _packed(self) -> Ints | None:
        """Each value as one integer, a count of 10⁻¹²; None where some sum of them might not fit 64 bits."""
        if len(self.parts) == 3:
            return None
        high: Ints = self.parts[0].astype(np.int64)
        if float(np.abs(high).sum(dtype=np.float64)) + high.size >= _MOST_PACKED:
            return None
        high *= LIMB
        high += self.parts[1]
        return high

    def sort_keys(self) -> list[Ints]:
        """What orders a one-dimensional array of sums by value, the most significant first."""
        high = self.parts[0]
        if len(self.parts) == 2 and (not high.size or max(-int(high.min()), int(high.max())) < _MOST_PACKED):
            return [high * LIMB + self.parts[1]]
        return list(self.normalised().parts)

    def nonzero(self) -> NDArray[np.bool_]:
        return np.asarray(reduce(np.bitwise_or, self.parts) != 0)

    def smallest(self) -> Amounts:
        """The same values in int32 where all parts fit."""
        return Amounts(self.parts.astype(np.int32)) if self.fits_int32() else self

    def fits_int32(self) -> bool:
        high = self.parts[0]
        return high.dtype == np.int32 or not high.size or bool(high.min() >= -(2**31) and high.max() < 2**31)


def stacked(high: AnyInts, middle: AnyInts, low: AnyInts | None = None) -> Amounts:
    """Amounts of their parts; a `low` that is all zero is left out."""
    return Amounts(np.stack([high, middle] if low is None or not low.any() else [high, middle, low]))


def exact(scaled: int) -> Decimal:
    """The decimal of an integer count of 10⁻²⁰."""
    return Decimal(scaled).scaleb(-SCALE, EXACT)


def from_decimals(values: list[Decimal]) -> Amounts:
    """Amounts of Python decimals (at most 20 decimals each)."""
    scaled = [int(value.scaleb(SCALE, EXACT)) for value in values]
    low = np.array([s % LIMB for s in scaled], np.int64)
    middle = np.array([s // LIMB % LIMB for s in scaled], np.int64)
    high = np.array([s // (LIMB * LIMB) for s in scaled], np.int64)
    return stacked(high, middle, low).smallest()


def from_decimal128(buffer: memoryview | bytes, count: int, offset: int = 0) -> Amounts:
    """Amounts of Arrow decimal128(38, 20) values: 128-bit little-endian two's complement counts of 10⁻²⁰."""
    words = np.frombuffer(buffer, dtype="<u8", count=2 * (count + offset)).reshape(-1, 2)[offset:]
    parts = np.empty((3, count), np.int32)
    for first in range(0, count, _BLOCK):
        block = slice(first, first + _BLOCK)
        high, middle, low = _limbs(words[block, 0], words[block, 1])
        if parts.dtype == np.int32 and (high.max() >= 2**31 or high.min() < -(2**31)):
            parts = parts.astype(np.int64)
        parts[0, block], parts[1, block], parts[2, block] = high, middle, low
    return Amounts(parts if parts[2].any() else parts[:2])


def from_counts(counts: Ints, scale: int) -> Amounts:
    """Amounts of counts of 10⁻ˢᶜᵃˡᵉ, 4 ≤ scale ≤ 12."""
    unit, rest = 10 ** (scale - 4), 10 ** (_TWO_LIMBS - scale)
    parts = np.empty((2, len(counts)), np.int32)
    for first in range(0, len(counts), _BLOCK):
        block = counts[first : first + _BLOCK]
        high = block // unit
        if parts.dtype == np.int32 and (high.max() >= 2**31 or high.min() < -(2**31)):
            parts = parts.astype(np.int64)
        parts[0, first : first + _BLOCK] = high
        parts[1, first : first + _BLOCK] = (block - high * unit) * rest
    return Amounts(parts)


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
