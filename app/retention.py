"""Retention: what the cost store need not keep any more is folded into the ledger's months, then dropped."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from datetime import date

from app.backends import Backends
from app.core.periods import EARLIEST, DateRange, month_of, next_month
from app.core.retention import MonthTotals, fold

log = logging.getLogger(__name__)


def keep_to_retention(backends: Backends) -> Sequence[date]:
    """Fold the months that are older than the cost store keeps, then let it forget their days; the days forgotten.

    Idempotent, and safe to be killed anywhere: months are folded from day records, which stay, and before any day is
    dropped. What is left of the month that is half beyond is folded when it is asked about.
    """
    oldest = backends.costs.oldest(backends.today())
    if oldest is None:
        return []
    fold_months(backends, oldest)
    gone = backends.costs.forget(oldest)
    if gone:
        log.info("%d days before %s are no longer kept by day, first %s", len(gone), oldest, min(gone))
    return gone


def fold_months(backends: Backends, oldest: date) -> list[date]:
    """Keep the totals of every month that ends before `oldest`; the months whose totals are new or changed."""
    end = month_of(oldest)
    records = backends.metadata.day_records(EARLIEST, end)
    kept = backends.metadata.month_totals(EARLIEST, end)
    changed = []
    for first in sorted({month_of(day) for day in records}):
        totals = fold(first, [record for day, record in records.items() if month_of(day) == first])
        if totals.days and kept.get(first) != totals:
            backends.metadata.put_month_totals(totals)
            changed.append(first)
    return changed


def months_between(backends: Backends, start: date, end: date, oldest: date) -> list[MonthTotals]:
    """What the ledger has of the months of [start, end), the last one up to `end`. `start` is the first of a month.

    Months beyond retention as they were folded, those after from their days.
    """
    firsts = DateRange(start, end).months()
    kept = backends.metadata.month_totals(start, min(month_of(oldest), end))
    return [kept.get(first) or _folded(backends, first, end) for first in firsts]


def _folded(backends: Backends, first: date, end: date) -> MonthTotals:
    return fold(first, backends.metadata.day_records(first, min(next_month(first), end)).values())
