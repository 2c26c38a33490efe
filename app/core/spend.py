"""What a part of the spend cost day by day, exact, and how far each day is known: what budgets and rules judge."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from decimal import Decimal
from functools import cached_property
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray

from app.core.exact import total as exact_total
from app.core.ledger import DayStatus, settles_at
from app.core.periods import DAY, DateRange, bucket_of, month_of, next_month
from app.errors import InvalidInput

Floats = NDArray[np.float64]
Per = Literal["day", "week", "month"]
PERS: Final[tuple[Per, ...]] = ("day", "week", "month")

SCOPE_PARTS: Final = ("account", "service", "region")
MOST_VALUES: Final = 200
MOST_VALUE: Final = 1024


@dataclass(frozen=True)
class SpendScope:
    """Sets of accounts, services and regions, each sorted. An empty set means all; a cost is inside when all three fit."""

    account: tuple[str, ...] = ()
    service: tuple[str, ...] = ()
    region: tuple[str, ...] = ()

    @classmethod
    def of(cls, account: Sequence[str] = (), service: Sequence[str] = (), region: Sequence[str] = ()) -> SpendScope:
        """Raises InvalidInput for too many or too long values."""
        return cls(*(_values(name, given) for name, given in zip(SCOPE_PARTS, (account, service, region), strict=True)))

    def filters(self) -> tuple[tuple[str, tuple[str, ...]], ...]:
        """As core.query.CostQuery has them."""
        return tuple((part, values) for part, values in sorted(self.parts()) if values)

    def parts(self) -> list[tuple[str, tuple[str, ...]]]:
        return [(part, getattr(self, part)) for part in SCOPE_PARTS]

    def inside(self, accounts: frozenset[str]) -> bool:
        """Whether all of it is of these accounts: a scope that names none is of all there are and will be."""
        return bool(self.account) and accounts.issuperset(self.account)


EVERYTHING: Final = SpendScope()


def _values(name: str, given: Sequence[str]) -> tuple[str, ...]:
    found = tuple(sorted(set(given)))
    if len(found) > MOST_VALUES:
        raise InvalidInput(f"{name} has {len(found)} values; at most {MOST_VALUES}. Leave it out for all.", field=name)
    if wrong := next((value for value in found if not value or len(value) > MOST_VALUE), None):
        raise InvalidInput(f"{name} has a value of {len(wrong)} characters; at most {MOST_VALUE}.", field=name)
    if "" in found:
        raise InvalidInput(f"{name} has an empty value. Leave it out for all.", field=name)
    return found


@dataclass(frozen=True)
class Sum:
    """Of a period: the exact sum of its known days (None when none is), and what of it is not final.

    `settling` days may still grow; `lacking` days were never reported for all of the scope, so that the sum is the
    least it can be.
    """

    total: Decimal | None
    known: int
    settling: tuple[date, ...]
    lacking: tuple[date, ...]

    @property
    def is_final(self) -> bool:
        return self.total is not None and not self.settling and not self.lacking


@dataclass(frozen=True)
class Spend:
    """Daily amounts of a scope from `start` on. None: no such figure was ever reported. `statuses`: None where nothing
    was expected either (before the history began, or still to come)."""

    start: date
    amounts: tuple[Decimal | None, ...]
    statuses: tuple[DayStatus | None, ...]

    @property
    def end(self) -> date:
        return self.start + len(self.amounts) * DAY

    def _place(self, day: date) -> int:
        return (day - self.start).days

    def amount(self, day: date) -> Decimal | None:
        place = self._place(day)
        return self.amounts[place] if 0 <= place < len(self.amounts) else None

    def status(self, day: date) -> DayStatus | None:
        place = self._place(day)
        return self.statuses[place] if 0 <= place < len(self.statuses) else None

    def is_complete(self, day: date) -> bool:
        return self.status(day) == "complete" and self.amount(day) is not None

    def over(self, days: DateRange) -> Sum:
        first, last = max(self._place(days.start), 0), max(self._place(days.end), 0)
        known = [amount for amount in self.amounts[first:last] if amount is not None]
        settling, lacking = [], []
        for place, status in enumerate(self.statuses[first:last], start=first):
            if status == "settling":
                settling.append(self.start + place * DAY)
            elif status in ("missing", "quarantined") or (status == "complete" and self.amounts[place] is None):
                lacking.append(self.start + place * DAY)
        return Sum(exact_total(known) if known else None, len(known), tuple(settling), tuple(lacking))

    def covers(self, days: DateRange) -> bool:
        """Whether each of the days is complete."""
        return all(self.is_complete(day) for day in days)

    @cached_property
    def floats(self) -> Floats:
        """NaN where a day is not complete: what may be learned from."""
        pairs = zip(self.amounts, self.statuses, strict=True)
        return np.array([np.nan if a is None or s != "complete" else float(a) for a, s in pairs], np.float64)


@dataclass(frozen=True)
class Arrived:
    """A history with what each day was first reported as, so that it can be looked at as it stood.

    No store keeps every version of every figure: a day counts as arrived when it ended, with its first figures until
    it was settled and the present ones from then on.
    """

    whole: Spend
    first: tuple[Decimal | None, ...]
    settling_days: int

    def as_of(self, today: date, history: int) -> Spend:
        """What was known on the morning of `today`, going back `history` days."""
        whole = self.whole
        start = max(whole.start, today - history * DAY)
        places = range((start - whole.start).days, min((today - whole.start).days, len(whole.amounts)))
        amounts, statuses = [], []
        for place in places:
            settled = settles_at(whole.start + place * DAY, self.settling_days) <= today
            status = whole.statuses[place]
            amounts.append(whole.amounts[place] if settled else self.first[place])
            statuses.append(status if settled or status in (None, "missing") else "settling")
        return Spend(start, tuple(amounts), tuple(statuses))


# --- periods of rules ---------------------------------------------------------------------------------------------


def period_of(day: date, per: Per) -> DateRange:
    """The day, the week (from Monday) or the month that a day is in."""
    if per == "day":
        return DateRange(day, day + DAY)
    if per == "week":
        first = bucket_of(day, "weekly")
        return DateRange(first, first + 7 * DAY)
    return DateRange(month_of(day), next_month(day))


def periods_back(today: date, per: Per, number: int) -> list[DateRange]:
    """The period that yesterday is in and those before it, `number` in all, oldest first."""
    found = [period_of(today - DAY, per)]
    while len(found) < number:
        found.append(period_of(found[-1].start - DAY, per))
    return found[::-1]


def a_month_before(day: date) -> date:
    """The same day of the month before, or its last day where it has no such day."""
    last = month_of(day) - DAY
    return last.replace(day=min(day.day, last.day))
