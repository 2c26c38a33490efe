"""Text from data on its way out: into a spreadsheet (RFC 4180), where it can never become a formula, and a terminal."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence
from datetime import date, datetime
from decimal import Decimal
from typing import Final

from app.core.amounts import text

FORMULA: Final = ("=", "+", "-", "@", "\t", "\r")
"""A text cell that starts with one of these would be run by a spreadsheet."""

Cell = str | Decimal | int | date | datetime | None


def safe_cell(value: str) -> str:
    """Text that no spreadsheet runs as a formula. For text only: numbers keep their sign."""
    return f"'{value}" if value.startswith(FORMULA) else value


def csv_text(rows: Iterable[Sequence[Cell]]) -> str:
    """Rows as CSV. Text is made safe, decimals are written in full, None is an empty cell."""
    out = io.StringIO()
    csv.writer(out).writerows([_written(cell) for cell in row] for row in rows)
    return out.getvalue()


def _written(cell: Cell) -> str:
    if isinstance(cell, str):
        return safe_cell(cell)
    if isinstance(cell, Decimal):
        return text(cell)
    return "" if cell is None else str(cell)


def printable(value: str) -> str:
    """Text from data without what a terminal would act on."""
    return "".join(letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in value)
