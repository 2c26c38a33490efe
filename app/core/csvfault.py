"""What can be wrong in a cost file, as its readers say it to each other; core.dailycsv finds the line and quarantines."""

from __future__ import annotations


class Fault(Exception):
    """What is wrong in a piece of a file: at a row of it (from 0, blank lines do not count), else at a byte of it."""

    def __init__(
        self, code: str, message: str, *, row: int | None = None, offset: int = 0, value: str | None = None
    ) -> None:
        super().__init__(message)
        self.code, self.message, self.value = code, message, value
        self.row, self.offset = row, offset
        self.column: str | None = None


def safe(value: str) -> str:
    """At most 80 characters that are harmless on any page or terminal."""
    shown = "".join(each if each.isprintable() else ascii(each)[1:-1] for each in value[:80])
    return shown if len(shown) <= 80 and len(value) <= 80 else shown[:79] + "…"
