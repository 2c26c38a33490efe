"""The coverage calendar: one letter for each account and day, small enough to send a year of an organisation at once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import date
from functools import cached_property
from typing import Final

from app.core.ledger import Coverage, Judged
from app.core.periods import DateRange

LETTERS: Final = {"complete": "C", "settling": "S", "missing": "M", "quarantined": "Q", "restating": "R"}
STATUSES: Final = {letter: status for status, letter in LETTERS.items()}
NOT_EXPECTED: Final = "."
OPEN: Final = ("M", "Q")
"""What somebody has to do something about."""


@dataclass(frozen=True)
class Row:
    account: str
    letters: str

    @property
    def open_days(self) -> int:
        return sum(map(self.letters.count, OPEN))


@dataclass(frozen=True)
class Calendar:
    """`whole` is the worst of each day; rows are the accounts, those with most open days first, then by name."""

    days: DateRange
    whole: str
    rows: tuple[Row, ...]

    @cached_property
    def counts(self) -> Counter[str]:
        """How many account-days have each letter."""
        return sum((Counter(row.letters) for row in self.rows), Counter())

    def days_with(self, letters: str, letter: str) -> list[date]:
        return [day for day, found in zip(self.days, letters, strict=True) if found == letter]


def calendar(
    judged: Coverage,
    records: Mapping[date, Judged],
    days: DateRange,
    *,
    quarantined: frozenset[date],
    accounts: Collection[str] = (),
) -> Calendar:
    """Judged days as letters; with `accounts` only these. A day whose newest file was refused is quarantined as a whole
    also where earlier figures stay for its accounts."""
    by_account: dict[str, list[str]] = {}
    whole: list[str] = []
    for position, day in enumerate(days):
        record = records.get(day)
        restating = record is not None and record.restating
        whole.append(_whole(judged, day, restating, day in quarantined))
        for name, status in judged.accounts.get(day, {}).items():
            if accounts and name not in accounts:
                continue
            letters = by_account.setdefault(name, [NOT_EXPECTED] * len(days))
            letters[position] = LETTERS["restating" if restating else status]
    rows = [Row(name, "".join(letters)) for name, letters in by_account.items()]
    rows.sort(key=lambda row: (-row.open_days, row.account))
    return Calendar(days, "".join(whole), tuple(rows))


def _whole(judged: Coverage, day: date, restating: bool, quarantined: bool) -> str:
    if restating:
        return LETTERS["restating"]
    status = "quarantined" if quarantined else judged.days.get(day)
    return LETTERS[status] if status else NOT_EXPECTED
