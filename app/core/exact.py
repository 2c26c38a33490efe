"""Exact decimals as text and as sums. Only the standard library: the collector's Lambda shares it."""

from __future__ import annotations

from collections.abc import Iterable
from decimal import Context, Decimal
from typing import Final

SCALE: Final = 20
"""Most decimals an amount of a cost file may have."""

EXACT: Final = Context(prec=80)
"""Wide enough for any sum of amounts; the default context would round at 28 digits."""


def text(value: Decimal) -> str:
    """Plain digits without exponent or trailing zeros: `4321.0934`, `-0.00000001`, `0`."""
    plain = format(value, "f")
    if "." in plain:
        plain = plain.rstrip("0").rstrip(".")
    return "0" if plain in ("-0", "") else plain


def total(values: Iterable[Decimal]) -> Decimal:
    """An exact sum, whatever the default context's precision."""
    result = Decimal(0)
    for value in values:
        result = EXACT.add(result, value)
    return result


def known_total(values: Iterable[Decimal | None]) -> Decimal | None:
    """An exact sum; None where one of the values is not known."""
    given = list(values)
    known = [value for value in given if value is not None]
    return total(known) if len(known) == len(given) else None
