"""How a day moved: every report of an account-day, what it was when it was first called complete, and what it is now.

A history is never kept beside the ledger as a second truth: `revisions_of` derives it from the day record that a flip
wrote, and whoever stores it may do so late or twice. Totals are exact.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from functools import cached_property
from math import ceil
from typing import Final, Literal

from app.core.amounts import EXACT, text
from app.core.amounts import total as exact_total
from app.core.charges import DEFAULT_METRIC, NOTHING, Totals
from app.core.ledger import AccountDay, DayRecord, settles_at

RevisionKey = tuple[date, str, int]

AGES: Final = (1, 2, 3, 5, 7, 14, 21, 30, 45, 60, 90)
"""Days after a day was called complete at which it is looked at again."""

NoticeKind = Literal["restated", "reference"]
NOTICE_KINDS: Final = ("restated", "reference")


@dataclass(frozen=True)
class Revision:
    """One report of an account-day. `source` is the file (source + key) it came with, and `sha256` its bytes: None
    where it was reported before histories were kept. `spoken` (of the first one only): the account had been covered
    as having nothing before."""

    day: date
    account: str
    revision: int
    at: datetime
    source: str | None
    sha256: str | None
    totals: Totals
    estimated: bool = False
    spoken: bool = False

    @property
    def key(self) -> RevisionKey:
        return self.day, self.account, self.revision


def revisions_of(record: DayRecord) -> list[Revision]:
    """What a day record knows of its history: the newest report of each account, and the first one's figures."""
    return [found for name, part in record.accounts.items() for found in _known(record.day, name, part)]


def _known(day: date, account: str, part: AccountDay) -> Iterator[Revision]:
    if part.revision > 1:
        yield Revision(day, account, 1, part.first_reported, None, None, part.first, spoken=part.spoken)
    yield Revision(
        day=day,
        account=account,
        revision=part.revision,
        at=part.changed,
        source=part.owner or part.released_by,
        sha256=part.sha256,
        totals=part.current,
        estimated=part.estimated,
        spoken=part.spoken and part.revision == 1,
    )


def unrecorded(record: DayRecord, known: Collection[RevisionKey]) -> list[Revision]:
    """What is still to be added to a history that has the `known` revisions of this day."""
    return [revision for revision in revisions_of(record) if revision.key not in known]


@dataclass(frozen=True)
class Move:
    """From one figure to another."""

    before: Decimal
    after: Decimal

    @property
    def amount(self) -> Decimal:
        return EXACT.subtract(self.after, self.before)

    @property
    def percent(self) -> Decimal | None:
        """Of what it was, to four decimals; None where it was nothing and is something now."""
        if self.before == self.after:
            return Decimal(0)
        if not self.before:
            return None
        return (100 * EXACT.divide(self.amount, abs(self.before))).quantize(Decimal("0.0001"), context=EXACT)


@dataclass(frozen=True)
class Completed:
    """When an account-day was first called complete, and as what."""

    at: datetime
    totals: Totals


@dataclass(frozen=True)
class AccountHistory:
    """All reports of one account-day, oldest first. A revision that is lacking was made before histories were kept."""

    revisions: tuple[Revision, ...]

    @property
    def first(self) -> Totals:
        return self.revisions[0].totals

    @property
    def current(self) -> Totals:
        return self.revisions[-1].totals

    def totals_at(self, moment: datetime) -> Totals:
        """As known at that moment: nothing before the first report."""
        known = [revision.totals for revision in self.revisions if revision.at <= moment]
        return known[-1] if known else NOTHING

    def completed(self, settling_days: int, now: datetime) -> Completed | None:
        """The first report that stood, no longer estimated, once the settling days were over; None while there is none.

        Also None where the report that stood then was made before histories were kept. An account that comes to a
        day which was complete without it was complete as nothing.
        """
        over = settled_from(self.revisions[0].day, settling_days)
        if over > now:
            return None
        if self.revisions[0].spoken and self.revisions[0].at > over:
            return Completed(over, NOTHING)
        for revision, following in zip(self.revisions, (*self.revisions[1:], None), strict=True):
            if following is not None and following.at <= over:
                continue
            if following is not None and following.revision != revision.revision + 1:
                return None
            if not revision.estimated:
                return Completed(max(over, revision.at), revision.totals)
        return None


def settled_from(day: date, settling_days: int) -> datetime:
    """The moment from which a day counts as complete unless its figures are estimated."""
    return datetime.combine(settles_at(day, settling_days), time(), UTC)


@dataclass(frozen=True)
class DayHistory:
    """All accounts of a day. `settling_days` and `now` decide what was called complete."""

    day: date
    accounts: Mapping[str, AccountHistory]
    settling_days: int
    now: datetime

    @cached_property
    def completed(self) -> Mapping[str, Completed]:
        """The accounts that have been called complete."""
        found = {name: part.completed(self.settling_days, self.now) for name, part in self.accounts.items()}
        return {name: completed for name, completed in found.items() if completed is not None}

    @cached_property
    def completed_at(self) -> datetime | None:
        """When the whole day had been called complete; None while one of its accounts has not."""
        if not self.accounts or len(self.completed) < len(self.accounts):
            return None
        return max(completed.at for completed in self.completed.values())

    def first(self, metric: str) -> Decimal | None:
        return summed(metric, (part.first for part in self.accounts.values()))

    def complete(self, metric: str) -> Decimal | None:
        """The total as it was called complete; None while it has not been, and where the metric is not available."""
        if self.completed_at is None:
            return None
        return summed(metric, (completed.totals for completed in self.completed.values()))

    def current(self, metric: str) -> Decimal | None:
        return summed(metric, (part.current for part in self.accounts.values()))

    def at(self, metric: str, moment: datetime) -> Decimal | None:
        return summed(metric, (part.totals_at(moment) for part in self.accounts.values()))

    def moved(self, metric: str) -> Move | None:
        """From what it was called complete as to what it is now."""
        return move_of(self.complete(metric), self.current(metric))

    def moves(self, metric: str) -> dict[str, Move]:
        """The same of each account that has been called complete."""
        found = {
            name: move_of(completed.totals.of(metric), self.accounts[name].current.of(metric))
            for name, completed in self.completed.items()
        }
        return {name: move for name, move in found.items() if move is not None}


def summed(metric: str, totals: Iterable[Totals]) -> Decimal | None:
    """The exact sum; None as soon as one has no such figure."""
    values = [part.of(metric) for part in totals]
    known = [value for value in values if value is not None]
    return exact_total(known) if len(known) == len(values) else None


def move_of(before: Decimal | None, after: Decimal | None) -> Move | None:
    return None if before is None or after is None else Move(before, after)


def day_histories(
    revisions: Iterable[Revision], settling_days: int, now: datetime, accounts: Collection[str] = ()
) -> dict[date, DayHistory]:
    """Histories of each day, in order; without `accounts` of all of them. A revision given twice counts once: the
    first time."""
    found: dict[date, dict[str, dict[int, Revision]]] = {}
    for revision in revisions:
        if not accounts or revision.account in accounts:
            of_day = found.setdefault(revision.day, {})
            of_day.setdefault(revision.account, {}).setdefault(revision.revision, revision)
    return {
        day: DayHistory(
            day,
            {name: AccountHistory(tuple(by[number] for number in sorted(by))) for name, by in sorted(parts.items())},
            settling_days,
            now,
        )
        for day, parts in sorted(found.items())
    }


# --- how much days move --------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Movement:
    """How far `days` days had moved `age` days after they were called complete, in percent of what they were then."""

    age: int
    days: int
    median: Decimal
    p90: Decimal
    most: Decimal


def movement(histories: Iterable[DayHistory], metric: str = DEFAULT_METRIC) -> list[Movement]:
    """By age, for the ages that some day has reached. Percentiles are nearest-rank, moves without their sign.

    A day that was nothing and became something moved by 100 %.
    """
    moved: dict[int, list[Decimal]] = {}
    for history in histories:
        for age, percent in _percents(history, metric):
            moved.setdefault(age, []).append(percent)
    return [_movement(age, sorted(moved[age])) for age in sorted(moved)]


def _percents(history: DayHistory, metric: str) -> Iterator[tuple[int, Decimal]]:
    began = history.completed_at
    for age in AGES:
        if began is None or (moment := began + timedelta(days=age)) > history.now:
            return
        move = move_of(history.complete(metric), history.at(metric, moment))
        if move is not None:
            yield age, Decimal(100) if move.percent is None else abs(move.percent)


def _movement(age: int, percents: Sequence[Decimal]) -> Movement:
    def ranked(share: Decimal) -> Decimal:
        return percents[ceil(share * len(percents)) - 1]

    return Movement(age, len(percents), ranked(Decimal("0.5")), ranked(Decimal("0.9")), percents[-1])


# --- notices ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Notice:
    """Something a person should know about the figures, kept and listed. `day` of a reference is its month's first.

    `moves` has the accounts that moved, from what they were called complete as (or the notice before said).
    """

    id: str
    kind: NoticeKind
    at: datetime
    day: date
    message: str
    moves: Mapping[str, Move] = field(default_factory=dict)

    @property
    def move(self) -> Move | None:
        """Of all these accounts together; None for a notice about something else."""
        if not self.moves:
            return None
        before, after = ([getattr(move, end) for move in self.moves.values()] for end in ("before", "after"))
        return Move(exact_total(before), exact_total(after))


@dataclass(frozen=True)
class NoticeLimits:
    """A complete day that moves raises a notice when it moves by both: this share and this amount."""

    percent: Decimal
    amount: Decimal


def restated_notice(
    history: DayHistory, earlier: Sequence[Notice], limits: NoticeLimits, currency: str
) -> Notice | None:
    """The notice a day's history calls for, given those raised for it before (newest first); None when it is none.

    Accounts are judged by what they moved, without its sign: a shift from one to another counts. The same history
    gives the same notice, with the same id.
    """
    moves = {name: _since(name, move, earlier) for name, move in history.moves(DEFAULT_METRIC).items()}
    distance = exact_total([abs(move.amount) for move in moves.values()])
    whole = exact_total([abs(move.before) for move in moves.values()])
    if not distance or distance < limits.amount or 100 * distance < limits.percent * whole:
        return None
    moved = {name: move for name, move in moves.items() if move.amount}
    newest = sorted(history.accounts[name].revisions[-1].key for name in moved)
    return Notice(
        id=hashlib.sha256(repr(("restated", newest)).encode("utf-8", "surrogatepass")).hexdigest()[:24],
        kind="restated",
        at=max(history.accounts[name].revisions[-1].at for name in moved),
        day=history.day,
        message=_said(history.day, moved, currency),
        moves=moved,
    )


def _since(account: str, move: Move, earlier: Sequence[Notice]) -> Move:
    """From what was last said about the account."""
    told = next((notice.moves[account].after for notice in earlier if account in notice.moves), move.before)
    return Move(told, move.after)


def _said(day: date, moved: Mapping[str, Move], currency: str) -> str:
    before, after = (exact_total([getattr(move, end) for move in moved.values()]) for end in ("before", "after"))
    accounts = "1 account" if len(moved) == 1 else f"{len(moved)} accounts"
    return (
        f"{day} was complete and has been restated: {accounts} moved from {text(before)} to {text(after)} {currency} "
        f"({DEFAULT_METRIC})."
    )
