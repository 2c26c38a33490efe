"""Everything the Data page needs to know, asked once: no other module of the page asks for figures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime
from functools import cached_property
from typing import Final

from app import jobs as work
from app.backends import Backends
from app.core.calendar import Calendar, calendar
from app.core.collection import Estimate, estimate, oldest
from app.core.jobs import FINAL, Job
from app.core.ledger import LOOKBACK, AccountDay, Coverage, DayRecord, DayStatus, Ingestion
from app.core.periods import DAY, DateRange
from app.core.restatements import DayHistory
from app.costs import Ledgers, ledgers_of
from app.errors import SpendscopeError
from app.ingest import LISTED
from app.pages.data.address import Address
from app.restatements import histories

MOST_QUARANTINED: Final = 50
MOST_RUNNING, MOST_NEXT, MOST_ENDED = 8, 3, 10
WORKER_SECONDS: Final = 30
"""How long a job may wait before it is said that nobody is there to do it."""

SUFFIXES: Final = (".csv", ".csv.gz")


# --- the calendar and what belongs to it: depends on address, data and day only -----------------------------------


@dataclass(frozen=True)
class History:
    """All there is, whatever the address asks for. `days` runs from the first to the last day that has figures."""

    days: DateRange | None
    accounts: tuple[str, ...]
    rows: int
    settling: tuple[date, ...]
    missing: int
    missing_days: tuple[date, ...]
    complete_through: date | None
    updated: datetime | None


@dataclass(frozen=True)
class DataView:
    """`quarantined` are the files whose newest version was refused, newest first; `refused` how many days have one."""

    address: Address
    today: date
    version: int
    calendar: Calendar
    history: History
    quarantined: Sequence[Ingestion]
    refused: frozenset[date]
    source: str
    settling_days: int
    watch_seconds: int
    retention: int
    oldest: date | None

    @property
    def is_empty(self) -> bool:
        """Nothing has ever arrived, nothing was ever refused."""
        return self.history.days is None and not self.refused


def look(backends: Backends, address: Address) -> DataView:
    ledgers = ledgers_of(backends)
    found = calendar(
        ledgers.coverage,
        ledgers.days,
        address.days,
        quarantined=ledgers.quarantined,
        accounts=frozenset(address.accounts),
    )
    return DataView(
        address=address,
        today=backends.today(),
        version=ledgers.version,
        calendar=found,
        history=_history(ledgers),
        quarantined=_quarantined(backends) if ledgers.quarantined else (),
        refused=ledgers.quarantined,
        source=backends.source.root,
        settling_days=backends.settings.settling_days,
        watch_seconds=backends.settings.watch_seconds,
        retention=backends.settings.retention,
        oldest=backends.costs.oldest(backends.today()),
    )


def _history(ledgers: Ledgers) -> History:
    taken = [day for day, found in ledgers.days.items() if found.complete_file]
    judged = ledgers.coverage
    missing = [day for day, found in judged.accounts.items() for status in found.values() if status == "missing"]
    return History(
        days=DateRange(min(taken), max(taken) + DAY) if taken else None,
        accounts=tuple(sorted({name for found in ledgers.days.values() for name in found.accounts})),
        rows=sum(found.rows for found in ledgers.days.values()),
        settling=tuple(judged.with_status("settling")),
        missing=len(missing),
        missing_days=tuple(sorted(set(missing))),
        complete_through=judged.complete_through,
        updated=ledgers.updated,
    )


def _quarantined(backends: Backends) -> list[Ingestion]:
    """Those that still stand: not a file that was mended or put right since, nor one of a root that is read no more."""
    listed = backends.metadata.ingestions(limit=MOST_QUARANTINED, status="quarantined").items
    found = [item for item in listed if item.source == backends.source.root]
    newest = {(item.source, item.key): backends.metadata.versions_of(item.source, item.key)[0].id for item in found}
    return [item for item in found if newest[item.source, item.key] == item.id]


# --- one day ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class AccountLine:
    """One account on one day; `part` is None while nothing was ever accepted for it. `last_cost`: its newest day with
    cost before this one, what makes it expected."""

    account: str
    status: DayStatus
    part: AccountDay | None
    last_cost: date | None
    failed: bool


@dataclass(frozen=True)
class DayView:
    """`ingestions` are all versions of the day's files, newest first; `history` every report of the day, None without.

    `collection` is what asking Cost Explorer for the day again would take, None where that cannot be done.
    """

    address: Address
    day: date
    today: date
    status: DayStatus | None
    quarantined: bool
    record: DayRecord
    accounts: Sequence[AccountLine]
    ingestions: Sequence[Ingestion]
    source: str
    currency: str
    settling_days: int
    watch_seconds: int
    collection: Estimate | None
    history: DayHistory | None

    @cached_property
    def newest(self) -> frozenset[str]:
        """Ids of the newest version of each of the day's files: what can be tried again."""
        first: dict[tuple[str, str], str] = {}
        for item in self.ingestions:
            first.setdefault((item.source, item.key), item.id)
        return frozenset(first.values())

    @property
    def pointed_at(self) -> AccountLine | None:
        return next((line for line in self.accounts if line.account == self.address.of), None)


def look_at_day(backends: Backends, address: Address, day: date) -> DayView:
    ledgers = ledgers_of(backends)
    record = backends.metadata.day_record(day)
    return DayView(
        address=address,
        day=day,
        today=backends.today(),
        status=ledgers.coverage.days.get(day),
        quarantined=day in ledgers.quarantined,
        record=record,
        accounts=_accounts(ledgers, ledgers.coverage, record),
        ingestions=_ingestions(backends, record),
        source=backends.source.root,
        currency=backends.settings.currency,
        settling_days=backends.settings.settling_days,
        watch_seconds=backends.settings.watch_seconds,
        collection=_collection(backends, ledgers, day),
        history=histories(backends, DateRange(day, day + DAY)).get(day) if record.accounts else None,
    )


def _collection(backends: Backends, ledgers: Ledgers, day: date) -> Estimate | None:
    if (
        "collect" not in work.AVAILABLE
        or backends.settings.serves_demo
        or not oldest(backends.today()) <= day < backends.today()
    ):
        return None
    return estimate([DateRange(day, day + DAY)], len(ledgers.coverage.accounts.get(day, {})) or 1)


def _accounts(ledgers: Ledgers, judged: Coverage, record: DayRecord) -> list[AccountLine]:
    return [
        AccountLine(
            name,
            status,
            record.accounts.get(name),
            _last_cost(ledgers, name, record.day),
            name in record.failed_accounts,
        )
        for name, status in judged.accounts.get(record.day, {}).items()
    ]


def _last_cost(ledgers: Ledgers, account: str, day: date) -> date | None:
    for before in (day - n * DAY for n in range(1, LOOKBACK + 1)):
        found = ledgers.days.get(before)
        if found is not None and account in found.with_cost:
            return before
    return None


def _ingestions(backends: Backends, record: DayRecord) -> list[Ingestion]:
    """Of the files of this day below the present source, and of whatever else its figures came from."""
    root = backends.source.root
    keys = {(root, f"{record.day}{suffix}") for suffix in SUFFIXES}
    for owner in record.sources:
        folder, _, name = owner.rpartition("/")
        keys.add((folder + "/", name))
    found = [item for source, key in sorted(keys) for item in backends.metadata.versions_of(source, key)]
    return sorted(found, key=lambda item: (item.started, item.id), reverse=True)


# --- jobs ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Work:
    """What is being done: `open` jobs that run, wait for a retry, or come next; `more` wait beyond those; `ended` lately.

    `trouble` is why nothing moves, in words. `version` is the ledger's: when it is not the one a page was drawn from,
    the page is old.
    """

    now: datetime
    open: Sequence[Job]
    more: int
    ended: Sequence[Job]
    trouble: str | None
    version: int
    attempts: int
    looked: datetime | None
    watch_seconds: int
    source: str

    @property
    def is_active(self) -> bool:
        return bool(self.open) or self.more > 0


def look_at_work(backends: Backends) -> Work:
    metadata = backends.metadata
    counts = metadata.job_counts()
    shown = [
        job
        for status in ("running", "waiting")
        if counts.get(status)
        for job in metadata.jobs(limit=MOST_RUNNING, status=status).items
    ]
    if counts.get("queued"):
        by_priority = metadata.unfinished(limit=len(shown) + MOST_NEXT)
        shown += [job for job in by_priority if job.status == "queued"][:MOST_NEXT]
    waiting = sum(number for status, number in counts.items() if status not in FINAL)
    lately = [job for job in metadata.jobs(limit=MOST_QUARANTINED).items if job.status in FINAL]
    lately.sort(key=lambda job: job.finished or job.created, reverse=True)
    return Work(
        now=backends.clock(),
        open=shown,
        more=max(waiting - len(shown), 0),
        ended=lately[:MOST_ENDED],
        trouble=_trouble(backends, shown),
        version=metadata.ledger_version(),
        attempts=backends.settings.job_attempts,
        looked=metadata.last_slot(LISTED),
        watch_seconds=backends.settings.watch_seconds,
        source=backends.source.root,
    )


def _trouble(backends: Backends, jobs: Sequence[Job]) -> str | None:
    """Asked only while something has been waiting for a while: an idle page does not ask the queue."""
    now = backends.clock()
    if not any(job.status == "queued" and (now - job.created).total_seconds() > WORKER_SECONDS for job in jobs):
        return None
    try:
        if backends.queue.workers():
            return None
    except SpendscopeError as error:
        return error.message
    return "No worker is running. Start one with `spendscope worker`, or everything with `spendscope up`."
