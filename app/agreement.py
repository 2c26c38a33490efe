"""Whether the cost store has what the ledger says, and what to do when it has not.

A store is restored from another night than the ledger, a bucket is deleted, a disk is replaced: the ledger then calls
days ingested that nobody can see. The files still have them, so those days are taken once more.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import date
from typing import Final

from app.backends import Backends
from app.core.charges import METRICS, Totals
from app.core.jobs import Job
from app.core.ledger import DayRecord
from app.core.periods import EARLIEST, LATEST
from app.ingest import day_of, difference, stored_totals, submit_object

log = logging.getLogger(__name__)

SAMPLED: Final = 8
"""Days read back from a store that cannot tell of all of them at once: enough to see that it was emptied or put back."""


@dataclass(frozen=True)
class Compared:
    """How many days of the ledger were held against the cost store, and which are not the same there."""

    looked_at: int
    wrong: tuple[date, ...]


def compared(backends: Backends, *, thorough: bool = False) -> Compared:
    """The ledger held against the cost store: every day where the store tells of all (the embedded one does); else a
    sample of the days with cost, every one of them when `thorough`.

    Days beyond retention, and those being written, are not looked at.
    """
    oldest = backends.costs.oldest(backends.today()) or EARLIEST
    records = backends.metadata.day_records(oldest, LATEST)
    if backends.costs.atomic:
        kept = {day: stored.accounts for day, stored in backends.costs.stored_days().items() if day >= oldest}
        days = sorted({*kept, *(day for day, record in records.items() if _has_cost(record))})
    else:
        days = sorted(day for day, record in records.items() if _has_cost(record))
        days = days if thorough else _spread(days)
        kept = {day: stored_totals(backends, day) for day in days}
    known = {day: records.get(day) for day in days}
    now, exact = backends.clock(), backends.costs.exact
    wrong = [
        day
        for day, record in known.items()
        if not (record and record.being_written(now)) and not _agree(kept.get(day, {}), record, exact=exact)
    ]
    return Compared(len(days), tuple(wrong))


def repair(backends: Backends) -> list[Job]:
    """Submit again the files of the days on which ledger and cost store differ; the jobs submitted.

    Readers see what the cost store has, so such a day shows figures that nothing vouches for, or none.
    """
    found = compared(backends)
    if found.wrong and not backends.costs.atomic:
        found = compared(backends, thorough=True)
    if not found.wrong:
        return []
    days = frozenset(found.wrong)
    log.warning(
        "%d days differ between ledger and cost store, first %s; ingesting them again", len(days), found.wrong[0]
    )
    present = [(day, there) for there in backends.source.list() if (day := day_of(there.key)) in days]
    return [submit_object(backends, day, there, again=True) for day, there in present if day is not None]


def _spread(days: list[date]) -> list[date]:
    """The first, the last, and those evenly between."""
    if len(days) <= SAMPLED:
        return days
    step = (len(days) - 1) / (SAMPLED - 1)
    return [days[round(step * number)] for number in range(SAMPLED)]


def _has_cost(record: DayRecord) -> bool:
    return any(map(_is_something, (part.current for part in record.accounts.values())))


def _is_something(totals: Totals) -> bool:
    """All-zero rows equal no rows (DESIGN §4)."""
    return any(totals.of(metric) for metric in METRICS)


def _agree(kept: Mapping[str, Totals], record: DayRecord | None, *, exact: bool) -> bool:
    said = {name: part.current for name, part in record.accounts.items()} if record else {}
    return (record is not None or not kept) and all(
        difference(kept.get(name), said.get(name), exact=exact) is None for name in _told(kept, said)
    )


def _told(*sides: Mapping[str, Totals]) -> Iterable[str]:
    """Accounts that either side has an amount of."""
    return {name for side in sides for name, totals in side.items() if _is_something(totals)}
