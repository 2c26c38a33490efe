"""The ledger: which file each figure came from, what it was first reported as, and how far it can be trusted.

Pure values and decisions; app.ingest carries them out, the metadata store keeps them. Totals are exact.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from datetime import date, datetime, timedelta
from functools import cached_property
from operator import itemgetter
from typing import Final, Literal, Protocol

from app.core.charges import NOTHING, Totals
from app.core.periods import DAY
from app.errors import Reason

IngestionStatus = Literal["ingested", "noop", "quarantined", "superseded", "waiting", "failed"]
INGESTION_STATUSES: Final = ("ingested", "noop", "quarantined", "superseded", "waiting", "failed")
TAKEN: Final = ("ingested", "superseded", "waiting")
"""Statuses of files that were taken, or are held against another: they have the totals of their bytes."""


@dataclass(frozen=True)
class Ingestion:
    """What became of one version of one source object.

    `source` is the root (`s3://bucket/costs/`, `file:///dir/costs/`), `key` the name below it, `version` the root's
    change token (etag; size and mtime of a local file). `held` names accounts of the file whose day belongs to
    another source: kept for reconciliation, never added.
    """

    id: str
    source: str
    key: str
    version: str
    day: date | None
    status: IngestionStatus
    started: datetime
    finished: datetime | None = None
    sha256: str | None = None
    parser: int = 0
    size: int = 0
    rows: int = 0
    totals: Totals | None = None
    accounts: Mapping[str, Totals] = field(default_factory=dict)
    held: tuple[str, ...] = ()
    notice: str | None = None
    reason: Reason | None = None
    revision: int | None = None
    job_id: str | None = None


@dataclass(frozen=True, slots=True)
class AccountDay:
    """One account's part of one day. `owner` is source + key of the file it came from, None once released to zero.

    `revision` and `changed` move when the figures or their estimated mark do. `released_by` is the file that no longer
    had it. `spoken` says that an accepted file had covered the account as having nothing before it was first reported.
    """

    owner: str | None
    sha256: str | None
    revision: int
    first: Totals
    current: Totals
    estimated: bool
    first_reported: datetime
    changed: datetime
    released_by: str | None = None
    spoken: bool = False


@dataclass(frozen=True)
class DayRecord:
    """One day of the ledger, kept as a single document: `revision` is its compare-and-set token.

    `sources` are the files (source + key) with accepted bytes for this day and their sha256: a day that a file
    without rows completed is complete too. `covered` are the accounts these files speak for, None for every account
    there is; `failed_accounts` those whose collection failed since. `restating` is set from before the first write to the cost store until
    the figures are verified, and names the job that may write until then: one at a time, so that two files for the
    same day never interleave. Readers keep the last verified figures meanwhile.
    """

    day: date
    revision: int = 0
    accounts: Mapping[str, AccountDay] = field(default_factory=dict)
    sources: Mapping[str, str] = field(default_factory=dict)
    covered: frozenset[str] | None = None
    failed_accounts: tuple[str, ...] = ()
    restating: bool = False
    restating_job: str | None = None
    restating_until: datetime | None = None

    @property
    def complete_file(self) -> bool:
        return bool(self.sources)

    def being_written(self, now: datetime) -> bool:
        """Whether a job may be at it. A mark that has run out, or never had an end, was left by a job that was killed."""
        return self.restating and self.restating_until is not None and self.restating_until > now

    @property
    def with_cost(self) -> Collection[str]:
        """Accounts that have rows now."""
        return [name for name, part in self.accounts.items() if part.current.rows]

    @property
    def estimated(self) -> Collection[str]:
        """Accounts whose figures are marked as estimated."""
        return frozenset(name for name, part in self.accounts.items() if part.estimated)

    def covers(self, account: str) -> bool:
        """Whether an accepted file says what the account had, also when that is nothing."""
        return covers(self, account)


class Judged(Protocol):
    """What a day must say of itself to be judged: a record does, and what core.ledgerdays keeps of one."""

    @property
    def accounts(self) -> Mapping[str, object]: ...
    @property
    def with_cost(self) -> Collection[str]: ...
    @property
    def estimated(self) -> Collection[str]: ...
    @property
    def covered(self) -> frozenset[str] | None: ...
    @property
    def failed_accounts(self) -> tuple[str, ...]: ...
    @property
    def complete_file(self) -> bool: ...
    @property
    def restating(self) -> bool: ...


def covers(day: Judged, account: str) -> bool:
    spoken = day.complete_file and (day.covered is None or account in day.covered)
    return account in day.accounts or (spoken and account not in day.failed_accounts)


@dataclass(frozen=True)
class Revisions:
    """The ledger's version at one moment, and the revision of every day that had a record then.

    The version counts changes of days from an `origin` that only a restore moves, and only upwards: while it is the
    same, a day with the revision it had is the day it was.
    """

    version: int
    days: Mapping[date, int]

    @cached_property
    def origin(self) -> int:
        return self.version - sum(self.days.values())


@dataclass(frozen=True)
class Arrival:
    """A parsed file as the ledger sees it. `covered` is None when it speaks for every account."""

    owner: str
    sha256: str
    accounts: Mapping[str, Totals]
    estimated: frozenset[str]
    covered: frozenset[str] | None
    failed: frozenset[str]
    at: datetime


@dataclass(frozen=True)
class Decision:
    """`replaced`: accounts whose day becomes exactly what the file says (nothing, for the released ones).

    `taken` ⊆ `replaced` have rows in the file; `held` belong to another source. `record` is the day afterwards.
    """

    record: DayRecord
    taken: frozenset[str]
    released: frozenset[str]
    held: frozenset[str]

    @property
    def replaced(self) -> frozenset[str]:
        return self.taken | self.released


def decide(record: DayRecord, arrival: Arrival) -> Decision:
    """What a file changes of a day (DESIGN §4: one owner an account-day; a new version releases what it lost)."""
    owned = {name for name, part in record.accounts.items() if part.owner == arrival.owner}
    elsewhere = {name for name, part in record.accounts.items() if part.owner not in (None, arrival.owner)}
    speaks_for = set(arrival.accounts) if arrival.covered is None else set(arrival.accounts) & arrival.covered
    speaks_for -= arrival.failed
    taken = frozenset(speaks_for - elsewhere)
    held = frozenset(speaks_for & elsewhere)
    gone = owned - set(arrival.accounts) - arrival.failed
    released = frozenset(gone if arrival.covered is None else gone & arrival.covered)
    accounts = dict(record.accounts)
    for name in taken:
        part = _restated(record.accounts.get(name), arrival, arrival.accounts[name], name in arrival.estimated)
        first_seen = name not in record.accounts
        accounts[name] = replace(part, spoken=record.covers(name)) if first_seen else part
    for name in released:
        part = _restated(record.accounts[name], arrival, NOTHING, False)
        accounts[name] = replace(part, owner=None, released_by=arrival.owner)
    after = replace(
        record,
        revision=record.revision + 1,
        accounts=accounts,
        sources={**record.sources, arrival.owner: arrival.sha256},
        covered=_covered(record, arrival),
        failed_accounts=_failed(record, arrival),
        restating=False,
        restating_job=None,
        restating_until=None,
    )
    return Decision(after, taken, released, held)


def _covered(record: DayRecord, arrival: Arrival) -> frozenset[str] | None:
    """What was spoken for once stays so: a file that covers less leaves the rest as it was."""
    if arrival.covered is None or (record.complete_file and record.covered is None):
        return None
    return (record.covered or frozenset()) | (arrival.covered - arrival.failed)


def _failed(record: DayRecord, arrival: Arrival) -> tuple[str, ...]:
    """Another file that does not cover a failed account says nothing about it."""
    before = frozenset() if arrival.covered is None else frozenset(record.failed_accounts) - arrival.covered
    return tuple(sorted(before | arrival.failed))


def begin(record: DayRecord, job_id: str, now: datetime, until: datetime) -> DayRecord | None:
    """The record marked as being restated by a job; None while another job's mark still holds."""
    if record.being_written(now) and record.restating_job != job_id:
        return None
    return replace(record, revision=record.revision + 1, restating=True, restating_job=job_id, restating_until=until)


def touched(record: DayRecord) -> DayRecord:
    """The same day, moved on: something beside its charges changed that answers show (a quarantine)."""
    return replace(record, revision=record.revision + 1)


def _restated(before: AccountDay | None, arrival: Arrival, totals: Totals, estimated: bool) -> AccountDay:
    if before is None:
        return AccountDay(
            owner=arrival.owner,
            sha256=arrival.sha256,
            revision=1,
            first=totals,
            current=totals,
            estimated=estimated,
            first_reported=arrival.at,
            changed=arrival.at,
        )
    moved = (before.current, before.estimated) != (totals, estimated)
    return replace(
        before,
        owner=arrival.owner,
        released_by=None,
        sha256=arrival.sha256,
        revision=before.revision + moved,
        current=totals,
        estimated=estimated,
        changed=arrival.at if moved else before.changed,
    )


DayStatus = Literal["complete", "settling", "missing", "quarantined"]
LOOKBACK: Final = 14
"""Days back in which an account with cost is expected to have cost again (DESIGN §4, "Missing")."""


@dataclass(frozen=True)
class Coverage:
    """Status of each day × account of a range; `days` has the status of each as a whole, None where nothing was expected."""

    accounts: Mapping[date, Mapping[str, DayStatus]]
    days: Mapping[date, DayStatus | None]

    def with_status(self, status: DayStatus) -> list[date]:
        return [day for day, worst in self.days.items() if worst == status]

    @cached_property
    def complete_through(self) -> date | None:
        """The last day of the unbroken run of complete days from the first day with data."""
        found = None
        for day, status in self.days.items():
            if status == "complete":
                found = day
            elif status is not None:
                break
        return found


def settles_at(day: date, settling_days: int) -> date:
    """The first day on which `day` counts as complete: `settling_days` full UTC days after it."""
    return day + timedelta(days=settling_days + 1)


def coverage(
    records: Mapping[date, Judged],
    days: list[date],
    *,
    today: date,
    settling_days: int,
    quarantined: frozenset[date] = frozenset(),
) -> Coverage:
    """Judge days, given in order. `records` should reach LOOKBACK days further back than `days`.

    An account is expected once any day before, within LOOKBACK, had cost for it. A day whose newest file was refused is
    `quarantined`, also where earlier figures stay: those accounts keep their status, and the day is not up to date.
    Today and later are never expected. Neighbouring days with the same statuses share one mapping.
    """
    by_account: dict[date, Mapping[str, DayStatus]] = {}
    worst: dict[date, DayStatus | None] = {}
    latest, before = _LatestCost(records), dict[str, DayStatus]()
    for day in days:
        record = records.get(day)
        refused = day in quarantined
        expected = latest.within_lookback(day)
        if day >= today and (record is None or not record.complete_file):
            expected = set()
        settled = settles_at(day, settling_days) <= today
        found = _accounts_of(record, expected, settled, refused)
        by_account[day] = before = before if found == before else found
        worst[day] = _worst(found, record, settled, refused)
    return Coverage(by_account, worst)


class _LatestCost:
    """The latest day with cost of each account, for days asked about in order."""

    def __init__(self, records: Mapping[date, Judged]) -> None:
        self._to_come = deque(sorted(records.items(), key=itemgetter(0)))
        self._latest: dict[str, date] = {}

    def within_lookback(self, day: date) -> set[str]:
        """Accounts that had cost on one of the LOOKBACK days before this one."""
        while self._to_come and self._to_come[0][0] < day:
            seen, record = self._to_come.popleft()
            self._latest |= dict.fromkeys(record.with_cost, seen)
        oldest = day - LOOKBACK * DAY
        return {name for name, seen in self._latest.items() if seen >= oldest}


def _accounts_of(record: Judged | None, expected: set[str], settled: bool, quarantined: bool) -> dict[str, DayStatus]:
    lacking: DayStatus = "quarantined" if quarantined else "missing"
    if record is None:
        return dict.fromkeys(sorted(expected), lacking)
    usual: DayStatus = "complete" if settled else "settling"
    found = dict.fromkeys(sorted({*expected, *record.accounts, *record.failed_accounts}), usual)
    if len(found) > len(record.accounts):
        found |= {name: lacking for name in found if not covers(record, name)}
    # Only what has figures can be estimated, and that is covered.
    return found | dict.fromkeys(record.estimated, "settling")


def _worst(
    accounts: Mapping[str, DayStatus], record: Judged | None, settled: bool, quarantined: bool
) -> DayStatus | None:
    if quarantined:
        return "quarantined"
    for status in ("missing", "settling"):
        if status in accounts.values():
            return status
    if record is None or not record.complete_file:
        return None
    return "complete" if settled else "settling"
