"""The restatement ledger: keeping what each day was reported as, and asking how it moved (core.restatements).

A flip changes one document, the day record; its history is derived from that afterwards, as often as anybody likes.
So a crash between the two loses nothing: the same job run again, the next job for that day before it changes anything,
or the scheduler when it starts adds what is lacking.
"""

from __future__ import annotations

import logging
from collections.abc import Collection
from datetime import date

from app.backends import Backends
from app.core.ledger import DayRecord
from app.core.periods import DAY, EARLIEST, LATEST, DateRange
from app.core.restatements import (
    DayHistory,
    Movement,
    NoticeLimits,
    day_histories,
    movement,
    restated_notice,
    revisions_of,
    settled_from,
    unrecorded,
)

log = logging.getLogger(__name__)


def keep_history(backends: Backends, record: DayRecord) -> int:
    """Add what a day record knows and the history does not, and the notice that calls for; how many were added.

    Idempotent. Call it after every flip, and before a record is changed.
    """
    metadata = backends.metadata
    added = unrecorded(record, metadata.revision_keys(record.day, record.day + DAY)) if record.accounts else []
    if added:
        metadata.add_revisions(added)
    if settled_from(record.day, backends.settings.settling_days) <= backends.clock():
        _raise_notice(backends, record)
    return len(added)


def keep_histories(backends: Backends) -> int:
    """The same for every day of the ledger: what was flipped before a crash, or before histories were kept."""
    records = backends.metadata.day_records(EARLIEST, LATEST)
    known = backends.metadata.revision_keys(EARLIEST, LATEST)
    lacking = [record for record in records.values() if unrecorded(record, known)]
    added = sum(keep_history(backends, record) for record in lacking)
    if added:
        log.info("%d revisions of %d days were added to the restatement ledger", added, len(lacking))
    return added


def _raise_notice(backends: Backends, record: DayRecord) -> None:
    if all(part.revision == 1 and not part.spoken for part in record.accounts.values()):
        return
    history = histories(backends, DateRange(record.day, record.day + DAY)).get(record.day)
    settings = backends.settings
    limits = NoticeLimits(settings.restatement_notice_percent, settings.restatement_notice_amount)
    earlier = backends.metadata.notices_about(record.day, record.day + DAY)
    notice = restated_notice(history, earlier, limits, settings.currency) if history else None
    if notice and backends.metadata.add_notice(notice):
        log.warning("%s", notice.message)


def histories(backends: Backends, days: DateRange, accounts: Collection[str] = ()) -> dict[date, DayHistory]:
    """Every report of the days of a range that have any, in order; without `accounts` of all of them.

    What was flipped and is not in the history yet is in it here.
    """
    metadata = backends.metadata
    records = metadata.day_records(days.start, days.end)
    kept = metadata.revisions(days.start, days.end, accounts)
    derived = [revision for record in records.values() for revision in revisions_of(record)]
    # Of two that say the same, the kept one is first: it knows where a first report came from.
    return day_histories([*kept, *derived], backends.settings.settling_days, backends.clock(), accounts)


def movement_of(backends: Backends, days: DateRange, accounts: Collection[str], metric: str) -> list[Movement]:
    """How much the days of a range moved after they were called complete, by age in days."""
    return movement(histories(backends, days, accounts).values(), metric)
