"""Reconciliation of a month: file = ledger = store = Cost Explorer, or the difference and its reasons.

Cost Explorer's side is read from the source by the scheduler when it changed, never in a request.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import date, datetime
from decimal import Decimal
from typing import Final

import numpy as np

from app.backends import Backends
from app.core.charges import DEFAULT_METRIC
from app.core.ledger import TAKEN, Coverage, DayRecord, Ingestion
from app.core.periods import DateRange, next_month
from app.core.query import CostQuery
from app.core.reconciliation import (
    AccountDayFigures,
    AccountMonth,
    KeptReference,
    Reference,
    month_of_reference,
    parse_reference,
    reconcile,
)
from app.core.restatements import DayHistory, Notice, settled_from
from app.costs import coverage_of
from app.errors import Conflict, Quarantined, Unavailable
from app.ports import SourceObject
from app.restatements import histories

log = logging.getLogger(__name__)

RESTATING_TRIES: Final = 3


def take_references(backends: Backends) -> list[date]:
    """Read the months' references that changed since they were last looked at; the months, newest first.

    One that cannot be used raises a notice that says why, and is read again when it changes.
    """
    known = backends.metadata.reference_versions(backends.source.root)
    listed = [(month, found) for found in backends.source.references() if (month := month_of_reference(found.key))]
    changed = [(month, found) for month, found in listed if known.get(month) != found.version]
    return [month for month, found in sorted(changed, key=_month, reverse=True) if _take(backends, month, found)]


def _month(pair: tuple[date, SourceObject]) -> date:
    return pair[0]


def _take(backends: Backends, month: date, found: SourceObject) -> bool:
    root, reference, problem = backends.source.root, None, None
    try:
        reference = parse_reference(backends.source.reference(found), month, backends.settings.currency)
    except Conflict:
        return False  # It changed while it was read: the next look takes the new one.
    except Quarantined as error:
        problem = error.reason.message
        _raise_notice(backends, month, found, problem)
    backends.metadata.put_reference(KeptReference(root, month, found.version, problem, reference))
    return True


def _raise_notice(backends: Backends, month: date, found: SourceObject, problem: str) -> None:
    name = "\0".join(("reference", backends.source.root, found.key, found.version))
    notice = Notice(
        id=hashlib.sha256(name.encode()).hexdigest()[:24],
        kind="reference",
        at=backends.clock(),
        day=month,
        message=f"reference/{found.key}: {problem}",
    )
    if backends.metadata.add_notice(notice):
        log.warning("%s", notice.message)


# --- the answer ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Reconciliation:
    """A month of every account that either side has. `kept` says what is known of Cost Explorer's totals.

    `store_exact` False: the store keeps floats, which agree to 1e-6. `store_since`: the store has forgotten the days
    before. `recorded` False: Cost Explorer's totals were recorded without this metric.
    """

    month: date
    metric: str
    accounts: tuple[AccountMonth, ...]
    kept: KeptReference | None
    recorded: bool
    store_exact: bool
    store_since: date | None


def reconciliation_of(
    backends: Backends, month: date, metric: str = DEFAULT_METRIC, accounts: Collection[str] = ()
) -> Reconciliation:
    """Hold the month of each account against its files, the store and Cost Explorer; `month` is its first day."""
    kept = backends.metadata.reference(backends.source.root, month)
    reference = kept.reference if kept else None
    recorded = reference is not None and metric in reference.metrics
    figures = _figures(backends, month, metric, reference)
    names = {*figures, *(reference.accounts if reference and recorded else ())}
    return Reconciliation(
        month=month,
        metric=metric,
        accounts=tuple(
            reconcile(name, figures.get(name, {}), reference.days(name, metric) if reference and recorded else {})
            for name in sorted(names)
            if not accounts or name in accounts
        ),
        kept=kept,
        recorded=recorded,
        store_exact=backends.costs.exact,
        store_since=backends.costs.oldest(backends.today()),
    )


def _figures(
    backends: Backends, month: date, metric: str, reference: Reference | None
) -> dict[str, dict[date, AccountDayFigures]]:
    """Account → day → what we have of it, of one moment: the store's version is the same before and after."""
    days = DateRange(month, next_month(month))
    for _ in range(RESTATING_TRIES):
        version, ledger = backends.costs.rollup().version, backends.metadata.ledger_version()
        judged, records = coverage_of(backends, days)
        ours = _Ours(
            metric=metric,
            coverage=judged,
            records=records,
            stored=_stored(backends, days, metric),
            files=_files(backends, days, records),
            histories=histories(backends, days),
            collected=reference.collected if reference else None,
            settling_days=backends.settings.settling_days,
        )
        if (version, ledger) == (backends.costs.rollup().version, backends.metadata.ledger_version()):
            break
    else:
        raise Unavailable("costs", "The figures change faster than they can be compared.", retry_after=2)
    names = {name for record in records.values() for name in record.accounts}
    names |= set(reference.accounts) if reference else set()
    return {name: ours.days(name) for name in names}


@dataclass(frozen=True)
class _Ours:
    metric: str
    coverage: Coverage
    records: Mapping[date, DayRecord]
    stored: Mapping[date, Mapping[str, Mapping[str, Decimal | None]]]
    files: Mapping[tuple[str, str], Ingestion]
    histories: Mapping[date, DayHistory]
    collected: datetime | None
    settling_days: int

    def days(self, account: str) -> dict[date, AccountDayFigures]:
        """Days on which the account has figures, or is known to have none."""
        spoken = ((day, record) for day, record in self.records.items() if record.covers(account))
        return {day: self._day(day, record, account) for day, record in spoken}

    def _day(self, day: date, record: DayRecord, account: str) -> AccountDayFigures:
        part = record.accounts.get(account)
        known = self.histories.get(day)
        reports = known.accounts[account].revisions if known and account in known.accounts else ()
        return AccountDayFigures(
            ledger=part.current.of(self.metric) if part else Decimal(0),
            file=self._file(part.owner, part.sha256, account) if part else Decimal(0),
            store=self.stored[day].get(account, {}) if day in self.stored else None,
            reported=tuple(one.totals.of(self.metric) for one in reports),
            held=self._held(record, account),
            late=self._is_late(day, record, account),
        )

    def _file(self, owner: str | None, sha256: str | None, account: str) -> Decimal | None:
        """What the owning file says; a released account-day is one its file does not have."""
        if owner is None:
            return Decimal(0)
        found = self.files.get((owner, sha256 or ""))
        if found is None:
            return None
        totals = found.accounts.get(account)
        return totals.of(self.metric) if totals else Decimal(0)

    def _held(self, record: DayRecord, account: str) -> tuple[Decimal | None, ...]:
        """What other accepted files of the day say of the account."""
        part = record.accounts.get(account)
        others = [self.files.get(pair) for pair in record.sources.items() if part is None or pair[0] != part.owner]
        said = [found.accounts.get(account) for found in others if found is not None]
        return tuple(totals.of(self.metric) for totals in said if totals is not None)

    def _is_late(self, day: date, record: DayRecord, account: str) -> bool:
        settling = self.coverage.accounts.get(day, {}).get(account) == "settling"
        early = self.collected is not None and self.collected < settled_from(day, self.settling_days)
        return settling or early or account in record.failed_accounts


def _files(backends: Backends, days: DateRange, records: Mapping[date, DayRecord]) -> dict[tuple[str, str], Ingestion]:
    """(source + key, sha256) → the ingestion of these bytes, for all files that speak for a day of the range now."""
    wanted = {part.sha256 for record in records.values() for part in record.accounts.values() if part.sha256}
    wanted |= {sha256 for record in records.values() for sha256 in record.sources.values()}
    found = backends.metadata.ingestions_with(days.start, days.end, wanted)
    return {(one.source + one.key, one.sha256 or ""): one for one in found if one.status in TAKEN}


def _stored(backends: Backends, days: DateRange, metric: str) -> dict[date, dict[str, dict[str, Decimal | None]]]:
    """Day → account → charge category → the store's exact amount, None where the metric is not available."""
    frame = backends.costs.rollup().frame(CostQuery(days, metric, "daily", ("account", "charge_category")))
    found: dict[date, dict[str, dict[str, Decimal | None]]] = {day: {} for day in frame.days}
    for row, (account, category) in enumerate(frame.groups):
        amounts = frame.exact.map(lambda part, at=row: part[at]).decimals()  # type: ignore[misc]
        for column in np.flatnonzero(frame.present[row]).tolist():
            lacking = bool(np.isnan(frame.amounts[row, column]))
            found[frame.periods[column]].setdefault(account, {})[category] = None if lacking else amounts[column]
    return found
