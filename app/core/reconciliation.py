"""Whether file, ledger, store and Cost Explorer agree about a month of an account, to the cent, and why they do not.

Cost Explorer's side is a reference: its totals by day, account and record type as the collector recorded them
(`reference/YYYY-MM.json` beside `costs/`). Only days that both sides have are compared. A difference is explained by
what is known or can be seen; the rest stays unexplained, so that difference = Σ explained + unexplained, exactly.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from decimal import Decimal
from itertools import combinations
from typing import Any, Final, Literal

from app.core.amounts import EXACT
from app.core.amounts import total as exact_total
from app.core.charges import COSTS, DEFAULTS
from app.core.periods import month_of
from app.errors import Quarantined, Reason

Category = Literal["tax", "credits", "refunds", "support", "rounding", "held", "timing"]
LEFT_OUT: Final[tuple[Category, ...]] = ("tax", "credits", "refunds", "support")
"""What a file may leave out as a whole."""
CATEGORIES: Final[tuple[Category, ...]] = (*LEFT_OUT, "rounding", "held", "timing")

HALF_A_CENT: Final = Decimal("0.005")
MOST_ROWS: Final = 500_000
EXACT_TEXT: Final = re.compile(r"-?[0-9]{1,18}(\.[0-9]{1,20})?", re.ASCII)
REFERENCE_NAME: Final = re.compile(r"([0-9]{4})-(0[1-9]|1[0-2])\.json", re.ASCII)

_GROUPS: Final[Mapping[str, Category]] = {
    "tax": "tax",
    "credit": "credits",
    "credits": "credits",
    "refund": "refunds",
    "refunds": "refunds",
    "support": "support",
}


def group_of(record_type: str) -> Category | None:
    """The category of a RECORD_TYPE (or of a file's charge_category); None for usage, fees and everything else."""
    return _GROUPS.get(record_type.casefold())


# --- Cost Explorer's side --------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Reference:
    """Cost Explorer's totals of a month. `accounts` is account → day → record type → amounts in the order of `metrics`."""

    month: date
    collected: datetime
    currency: str
    metrics: tuple[str, ...]
    accounts: Mapping[str, Mapping[date, Mapping[str, tuple[Decimal, ...]]]]

    def days(self, account: str, metric: str) -> dict[date, dict[str, Decimal]]:
        """Amounts by day and record type of one account."""
        place = self.metrics.index(metric)
        return {
            day: {record_type: amounts[place] for record_type, amounts in types.items()}
            for day, types in self.accounts.get(account, {}).items()
        }


@dataclass(frozen=True)
class KeptReference:
    """What became of the newest version of a month's reference. `problem` says why it could not be read: `reference`
    is the last that could then, None when there was none."""

    source: str
    month: date
    version: str
    problem: str | None
    reference: Reference | None


def month_of_reference(key: str) -> date | None:
    """The month a file name stands for; None for a name that is not `YYYY-MM.json`."""
    found = REFERENCE_NAME.fullmatch(key)
    year = int(found[1]) if found else 0
    return date(year, int(found[2]), 1) if found and 2000 <= year < 2100 else None


def parse_reference(data: bytes, month: date, currency: str) -> Reference:
    """The reference of a month as the collector writes it; further members are ignored.

    `{"month": "2026-10", "collected": "2026-11-02T04:00:00Z", "currency": "USD", "metrics": ["amortized_cost", …],
    "rows": [["2026-10-01", "111122223333", "Usage", "1.23", …], …]}`: day, account, RECORD_TYPE, one exact decimal text
    a metric. Raises Quarantined naming what is wrong.
    """
    found = _object(data)
    if found["month"] != f"{month:%Y-%m}":
        raise unreadable(f'"month" is {_shown(found["month"])}, but the file is named {month:%Y-%m}.json')
    if found["currency"] != currency:
        raise unreadable(f'"currency" is {_shown(found["currency"])}, but SPENDSCOPE_CURRENCY is {currency}')
    metrics = _metrics(found["metrics"])
    accounts: dict[str, dict[date, dict[str, tuple[Decimal, ...]]]] = {}
    if not isinstance(found["rows"], list) or len(found["rows"]) > MOST_ROWS:
        raise unreadable(f'"rows" is not a list of at most {MOST_ROWS} rows')
    for number, row in enumerate(found["rows"], start=1):
        day, account, record_type, amounts = _row(number, row, month, len(metrics))
        types = accounts.setdefault(account, {}).setdefault(day, {})
        if record_type in types:
            raise unreadable(f"row {number} repeats {day}, {_shown(account)}, {_shown(record_type)}")
        types[record_type] = amounts
    return Reference(month, _collected(found["collected"]), currency, metrics, accounts)


def _object(data: bytes) -> dict[str, Any]:
    try:
        found = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise unreadable(f"it is not JSON ({str(error)[:80]})") from None
    if not isinstance(found, dict):
        raise unreadable("it is not one JSON object")
    for name in ("month", "collected", "currency", "metrics", "rows"):
        if name not in found:
            raise unreadable(f'it has no "{name}"')
    return found


def _metrics(given: Any) -> tuple[str, ...]:
    known = isinstance(given, list) and given and all(isinstance(name, str) and name in COSTS for name in given)
    if not known or len(set(given)) < len(given):
        raise unreadable(f'"metrics" is {_shown(given)}, not a list of some of {", ".join(COSTS)}')
    return tuple(given)


def _collected(given: Any) -> datetime:
    try:
        found = datetime.fromisoformat(given)
        if found.tzinfo is not None:
            return found.astimezone(UTC)
    except (TypeError, ValueError, OverflowError):
        pass
    raise unreadable(f'"collected" is {_shown(given)}, not a time like 2026-11-02T04:00:00Z')


def _row(number: int, row: Any, month: date, metrics: int) -> tuple[date, str, str, tuple[Decimal, ...]]:
    if not isinstance(row, list) or len(row) != 3 + metrics or not all(isinstance(cell, str) for cell in row):
        raise unreadable(f"row {number} is not day, account, record type and {metrics} amounts, all texts")
    day, account, record_type, *amounts = row
    for amount in amounts:
        if not EXACT_TEXT.fullmatch(amount):
            raise unreadable(f"row {number} has {_shown(amount)}, which is not an exact decimal")
    if not account or not record_type or len(account) > 1024 or len(record_type) > 1024:
        raise unreadable(f"row {number} has no account or no record type of at most 1024 characters")
    return _day(number, day, month), account, record_type, tuple(map(Decimal, amounts))


def _day(number: int, given: str, month: date) -> date:
    try:
        day = date.fromisoformat(given) if len(given) == 10 else None
    except ValueError:
        day = None
    if day is None or month_of(day) != month:
        raise unreadable(f"row {number} has {_shown(given)}, which is not a day of {month:%Y-%m}")
    return day


def _shown(given: Any) -> str:
    return ascii(given)[:80]


def unreadable(what: str) -> Quarantined:
    """Why a reference cannot be used, in the words of its reader."""
    message = f"Cost Explorer's totals for the month cannot be used: {what}. Collect the month again, or mend the file."
    return Quarantined(Reason("reference_unreadable", message))


# --- our side --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class AccountDayFigures:
    """What we have of one account-day, all of one metric.

    `ledger` None: the metric is not available. `file`: what the file it came from said, None when the ledger has no
    record of that. `store`: by charge category, None when the cost store has not the day. `reported`: what it was
    reported as, ever. `held`: what files say that are held against it. `late`: it is settling, or could not be
    collected, so it may be older or newer than Cost Explorer's figure.
    """

    ledger: Decimal | None
    file: Decimal | None
    store: Mapping[str, Decimal | None] | None
    reported: tuple[Decimal | None, ...] = ()
    held: tuple[Decimal | None, ...] = ()
    late: bool = False

    @property
    def stored(self) -> Decimal | None:
        return None if self.store is None else _sum(self.store.values())


@dataclass(frozen=True)
class AccountMonth:
    """One account's month. `file`, `ledger` and `store` are over all of our days, None where not every day is known.

    `ours` and `cost_explorer` are over the compared days; `difference` is ours − Cost Explorer's.
    """

    account: str
    file: Decimal | None
    ledger: Decimal | None
    store: Decimal | None
    compared: tuple[date, ...] = ()
    ours: Decimal = Decimal(0)
    cost_explorer: Decimal = Decimal(0)
    explained: Mapping[Category, Decimal] = field(default_factory=dict)
    only_here: Mapping[date, Decimal] = field(default_factory=dict)
    only_there: Mapping[date, Decimal] = field(default_factory=dict)
    unexplained_days: Mapping[date, Decimal] = field(default_factory=dict)

    @property
    def difference(self) -> Decimal:
        return EXACT.subtract(self.ours, self.cost_explorer)

    @property
    def unexplained(self) -> Decimal:
        return exact_total(list(self.unexplained_days.values()))


def reconcile(
    account: str, days: Mapping[date, AccountDayFigures], reference: Mapping[date, Mapping[str, Decimal]]
) -> AccountMonth:
    """Hold our days of an account against Cost Explorer's (by record type), each day on its own.

    A day of ours that is nothing and that Cost Explorer does not list is no day: it leaves out what has no charge.
    """
    known = {day: found.ledger for day, found in days.items() if found.ledger is not None}
    compared = sorted(known.keys() & reference.keys())
    there = {day: exact_total(list(types.values())) for day, types in reference.items()}
    bridge = _Bridge({day: days[day] for day in compared}, {day: reference[day] for day in compared})
    return AccountMonth(
        account=account,
        file=_sum(found.file for found in days.values()),
        ledger=_sum(found.ledger for found in days.values()),
        store=_sum(found.stored for found in days.values()),
        compared=tuple(compared),
        ours=exact_total([known[day] for day in compared]),
        cost_explorer=exact_total([there[day] for day in compared]),
        explained=bridge.explained,
        only_here={day: amount for day, amount in sorted(known.items()) if day not in reference and amount},
        only_there={day: amount for day, amount in sorted(there.items()) if day not in known},
        unexplained_days=bridge.open,
    )


def _sum(values: Iterable[Decimal | None]) -> Decimal | None:
    """The exact sum; None as soon as one is not known."""
    found = list(values)
    known = [value for value in found if value is not None]
    return exact_total(known) if len(known) == len(found) else None


class _Bridge:
    """Explains the differences of days one reason after the other; `open` is what is left of each day."""

    def __init__(self, ours: Mapping[date, AccountDayFigures], theirs: Mapping[date, Mapping[str, Decimal]]) -> None:
        self.explained: dict[Category, Decimal] = {}
        self._ours, self._theirs = ours, theirs
        self._totals = {day: exact_total(list(types.values())) for day, types in theirs.items()}
        self._groups = {day: _by_group(types) for day, types in theirs.items()}
        self.open = {day: EXACT.subtract(found.ledger or Decimal(0), self._totals[day]) for day, found in ours.items()}
        self._settle()
        self._whole_days("timing", lambda day: ours[day].reported)
        self._whole_days("held", lambda day: ours[day].held)
        self._categories()
        while self._left_out():
            pass
        for day in [day for day in self.open if ours[day].late]:
            self._explain(day, "timing", self.open[day])
        self._settle()

    def _explain(self, day: date, category: Category, amount: Decimal) -> None:
        if amount:
            self.explained[category] = EXACT.add(self.explained.get(category, Decimal(0)), amount)
            self.open[day] = EXACT.subtract(self.open[day], amount)

    def _settle(self) -> None:
        """What is smaller than half a cent was lost or won by rounding; a day without difference is done."""
        for day, amount in list(self.open.items()):
            if abs(amount) < HALF_A_CENT:
                self._explain(day, "rounding", amount)
                del self.open[day]

    def _whole_days(self, category: Category, others: Any) -> None:
        """A day whose total was, or would be, Cost Explorer's with another report or another file."""
        for day, amount in list(self.open.items()):
            figures = [figure for figure in others(day) if figure is not None]
            if any(abs(EXACT.subtract(figure, self._totals[day])) < HALF_A_CENT for figure in figures):
                self._explain(day, category, amount)
        self._settle()

    def _categories(self) -> None:
        """Where our file says the category of every charge, its categories are compared."""
        for day in list(self.open):
            mine = _own_groups(self._ours[day])
            for group in LEFT_OUT if mine is not None else ():
                assert mine is not None
                here, there = (groups.get(group, Decimal(0)) for groups in (mine, self._groups[day]))
                self._explain(day, group, EXACT.subtract(here, there))
        self._settle()

    def _left_out(self) -> bool:
        """Find the record types whose absence accounts for most days, and explain these days by it; False when none."""
        candidates = [day for day in self.open if _own_groups(self._ours[day]) is None]
        best: tuple[list[date], Sequence[Category]] = ([], ())
        for number in range(1, len(LEFT_OUT) + 1):
            for groups in combinations(LEFT_OUT, number):
                days = [day for day in candidates if self._is_without(day, groups)]
                if len(days) > len(best[0]):
                    best = days, groups
        for day in best[0]:
            for group in best[1]:
                self._explain(day, group, self._groups[day].get(group, Decimal(0)).copy_negate())
        self._settle()
        return bool(best[0])

    def _is_without(self, day: date, groups: Sequence[Category]) -> bool:
        amounts = [self._groups[day].get(group, Decimal(0)) for group in groups]
        missing = exact_total(amounts)
        return abs(missing) >= HALF_A_CENT and abs(EXACT.add(self.open[day], missing)) < HALF_A_CENT


def _by_group(types: Mapping[str, Decimal]) -> dict[Category, Decimal]:
    found: dict[Category, Decimal] = {}
    for name, amount in types.items():
        if group := group_of(name):
            found[group] = EXACT.add(found.get(group, Decimal(0)), amount)
    return found


def _own_groups(figures: AccountDayFigures) -> dict[Category, Decimal] | None:
    """What our file says of each category; None where it does not say one of every charge."""
    names = figures.store
    if not names or DEFAULTS["charge_category"] in names or None in names.values():
        return None
    return _by_group({name: amount for name, amount in names.items() if amount is not None})
