"""What is left of days that the cost store no longer keeps: exact totals by month and account, in the ledger.

They answer questions about whole months, by account or for all; anything finer is not kept, and is said to be so.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import date, timedelta
from decimal import Decimal
from typing import Final

import numpy as np

from app.core.amounts import from_decimals
from app.core.amounts import total as exact_total
from app.core.charges import DIMENSIONS, MAY_BE_ABSENT, METRICS, Totals
from app.core.ledger import DayRecord, Judged
from app.core.periods import DateRange, bucket_of, next_month
from app.core.query import CostQuery
from app.core.rollup import CostFrame, DayColumns, Rollup, month_with, periods_of

KEPT_BY: Final = frozenset({"account"})
"""Dimensions of what stays."""


@dataclass(frozen=True)
class MonthTotals:
    """What the ledger says of a month, or a part of one, by account. `days` is how many had accepted data."""

    month: date
    days: int
    accounts: Mapping[str, Totals]


@dataclass(frozen=True)
class NotKept:
    """Why a question has no full answer. `since` is the first day that is still kept by day."""

    since: date
    reason: str


def fold(month: date, records: Iterable[DayRecord]) -> MonthTotals:
    """The exact sums of these days of a month; folding the same days again gives the same."""
    days, parts = 0, dict[str, list[Totals]]()
    for record in records:
        if record.sources or record.accounts:
            days += 1
            for name, part in record.accounts.items():
                parts.setdefault(name, []).append(part.current)
    return MonthTotals(month, days, {name: _summed(parts[name]) for name in sorted(parts)})


def _summed(totals: list[Totals]) -> Totals:
    blended = [part.blended_cost for part in totals]
    known = [value for value in blended if value is not None]
    return Totals(
        rows=sum(part.rows for part in totals),
        amortized_cost=exact_total([part.amortized_cost for part in totals]),
        blended_cost=exact_total(known) if len(known) == len(blended) else None,
        unblended_cost=exact_total([part.unblended_cost for part in totals]),
        usage_quantity=exact_total([part.usage_quantity for part in totals]),
    )


def month_rollup(months: Iterable[MonthTotals], version: int) -> Rollup:
    """The months as a read model with one row each, on the month's first day, that knows accounts and nothing finer."""
    known = (totals for totals in months if totals.days)
    return Rollup(version, [month_with(None, totals.month, [_columns(totals)]) for totals in known])


def _columns(totals: MonthTotals) -> DayColumns:
    names = list(totals.accounts)
    values: dict[str, list[str]] = {name: [""] for name in DIMENSIONS}
    codes = {name: np.zeros(len(names), np.int32) for name in DIMENSIONS}
    values["account"], codes["account"] = names, np.arange(len(names), dtype=np.int32)
    parts = totals.accounts.values()
    absent = np.array([part.of(MAY_BE_ABSENT) is None for part in parts], np.bool_)
    amounts = {metric: from_decimals([part.of(metric) or Decimal(0) for part in parts]) for metric in METRICS}
    return DayColumns(totals.month, values, codes, amounts, absent if absent.any() else None)


# --- which questions the months answer -------------------------------------------------------------------------------


def reaches_back(records: Mapping[date, Judged], days: DateRange, oldest: date | None) -> bool:
    """Whether the range has days that were ingested once and are older than what the store keeps."""
    if oldest is None or days.start >= oldest:
        return False
    end = min(days.end, oldest)
    return any(days.start <= day < end and (found.complete_file or found.accounts) for day, found in records.items())


def total_from_months(query: CostQuery, oldest: date) -> bool:
    """Whether the months have the exact total of a question, however it is grouped: whole months, accounts at most."""
    whole = query.range.start.day == 1 and (query.range.end.day == 1 or query.range.end > _whole_since(oldest))
    return whole and {name for name, _ in query.filters} <= KEPT_BY


def rows_from_months(query: CostQuery, oldest: date) -> bool:
    """Whether they have all of its rows as well."""
    grouped = query.granularity in ("monthly", "total") and set(query.group_by) <= KEPT_BY
    return grouped and total_from_months(query, oldest)


def _whole_since(oldest: date) -> date:
    """The first day of the first month that is kept whole."""
    return oldest if oldest.day == 1 else next_month(oldest)


def whole_periods_since(query: CostQuery, oldest: date) -> date | None:
    """Where the first period begins that is kept whole; None when none is."""
    if query.granularity == "total":
        return None
    bucket = bucket_of(oldest, query.granularity)
    if bucket < oldest:
        bucket = next_month(oldest) if query.granularity == "monthly" else bucket + timedelta(days=7)
    return bucket if bucket < query.range.end else None


def not_kept(oldest: date, retention_days: int) -> NotKept:
    return NotKept(
        oldest,
        f"Not kept: days before {oldest} are older than the {retention_days} days that SPENDSCOPE_RETENTION_DAYS keeps. "
        "Their totals by month and account remain: ask with granularity monthly or total over whole months, group_by "
        "account or nothing, and no filter but account.",
    )


def kept_frame(rollup: Rollup, query: CostQuery, oldest: date, total: Decimal | None) -> CostFrame:
    """The periods that are kept whole, and nothing known of the others: no group has a total over the range."""
    since = whole_periods_since(query, oldest)
    if since is None:
        return replace(Rollup(rollup.version, ()).frame(query), total=total)
    periods = tuple(periods_of(query.range, query.granularity))
    inside = rollup.frame(query.over(DateRange(since, query.range.end)))
    before = ((0, 0), (periods.index(since), 0))
    return replace(
        inside,
        query=query,
        periods=periods,
        amounts=np.pad(inside.amounts, before, constant_values=np.nan),
        present=np.pad(inside.present, before),
        exact=inside.exact.map(lambda part: np.pad(part, before)),
        lacking=np.ones(len(inside.groups), np.bool_),
        total=total,
    )
