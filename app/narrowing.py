"""The stores as somebody sees them who may see some accounts only: the one place between figures and everybody else.

`app.backends.current()` hands these out, so that pages and routes ask as they always do and get the answers there would
be if no other account existed. What is not named here is refused: a new method of a port is closed until somebody has
decided what of it may be seen.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from datetime import date, datetime
from decimal import Decimal
from typing import Any, Final, NoReturn, TypeVar, cast

from app.backends import Backends
from app.core.access import (
    narrowed_day,
    narrowed_ingestion,
    narrowed_job,
    narrowed_months,
    narrowed_notice,
    narrowed_query,
    narrowed_reference,
    seen_alert,
    seen_anomaly,
    seen_rule,
)
from app.core.anomalyrecords import AnomalyRecord, PlannedSpend
from app.core.budgets import Budget
from app.core.grafanaalerts import GrafanaAlert, seen_grafana_alert
from app.core.jobs import Job
from app.core.ledger import DayRecord, Ingestion, Revisions
from app.core.query import CostQuery
from app.core.reconciliation import KeptReference
from app.core.restatements import Notice, Revision
from app.core.retention import MonthTotals
from app.core.rollup import CostFrame, Rollup
from app.core.rules import AlertRecord, Rule
from app.errors import Forbidden, NotFound
from app.ports import CostStore, Listing, Metadata, Source

Item = TypeVar("Item")

OF_YOURS: Final = "what is about all accounts, or about others', is set up by somebody who sees them."

MOST_ROUNDS: Final = 50
"""Pages of a list that are looked through for one page of what may be seen."""


def narrowed(backends: Backends, accounts: frozenset[str], memo: dict[str, Any]) -> Backends:
    """These backends without any other account. `memo` is what is kept between requests with this account set."""
    return replace(
        backends,
        source=cast(Source, NarrowedSource(backends.source)),
        costs=cast(CostStore, NarrowedCosts(backends.costs, accounts)),
        metadata=cast(Metadata, NarrowedMetadata(backends.metadata, accounts)),
        memo=memo,
    )


class NarrowedRollup(Rollup):
    """Answers from another read model, over some accounts. It has no months of its own to leak from."""

    def __init__(self, whole: Rollup, accounts: frozenset[str]) -> None:
        super().__init__(whole.version, ())
        self.days = whole.days
        self._whole = whole
        self._accounts = accounts

    def frame(self, query: CostQuery) -> CostFrame:
        return replace(self._whole.frame(narrowed_query(query, self._accounts)), query=query)

    def values_with_cost(self, dimension: str, query: CostQuery) -> list[tuple[str, Decimal | None]]:
        """Of the account dimension too: a question without the account filter is still one over these accounts."""
        frame = self.frame(query.without(dimension).grouped(dimension).per("total"))
        return [(group[0], total) for group, total in zip(frame.groups, frame.group_totals, strict=True)]

    def units(self, query: CostQuery) -> dict[str, str | None]:  # noqa: ARG002
        """None are told: a month knows the units of a service, not whose they are."""
        return {}


class _Closed:
    """Refuses every method that a subclass does not name."""

    def __getattr__(self, name: str) -> NoReturn:
        if name.startswith("_"):
            raise AttributeError(name)
        raise Forbidden("This is about all accounts, and you see some of them. Ask somebody who sees all.")


class NarrowedSource(_Closed):
    """ports.Source: where it is. Its files are of all accounts."""

    def __init__(self, whole: Source) -> None:
        # Tests of the pages have no source.
        if whole is not None:
            self.root, self.check = whole.root, whole.check


class NarrowedCosts(_Closed):
    """ports.CostStore for reading."""

    def __init__(self, whole: CostStore, accounts: frozenset[str]) -> None:
        self.exact, self.atomic = whole.exact, whole.atomic
        self.check = whole.check
        self._whole, self._accounts = whole, accounts
        self._kept: NarrowedRollup | None = None

    def rollup(self) -> Rollup:
        whole, kept = self._whole.rollup(), self._kept
        if kept is None or kept._whole is not whole:
            kept = self._kept = NarrowedRollup(whole, self._accounts)
        return kept

    def oldest(self, today: date) -> date | None:
        return self._whole.oldest(today)


class NarrowedMetadata(_Closed):
    """ports.Metadata for reading, and for work on whole files by those who may do it."""

    def __init__(self, whole: Metadata, accounts: frozenset[str]) -> None:
        self.check, self.ledger_version = whole.check, whole.ledger_version
        self.job_counts = whole.job_counts
        self._whole, self._accounts = whole, accounts

    # --- days

    def day_record(self, day: date) -> DayRecord:
        return narrowed_day(self._whole.day_record(day), self._accounts)

    def day_records(self, start: date, end: date) -> dict[date, DayRecord]:
        found = self._whole.day_records(start, end)
        return {day: narrowed_day(record, self._accounts) for day, record in found.items()}

    def day_revisions(self) -> Revisions:
        """Of a day they say no more than that something of it has changed."""
        return self._whole.day_revisions()

    def quarantined_days(self, start: date, end: date, source: str) -> frozenset[date]:
        """Of a file that was not taken nobody knows whose days it had: they are everybody's."""
        return self._whole.quarantined_days(start, end, source)

    # --- ingestions

    def ingestion(self, id: str) -> Ingestion | None:
        found = self._whole.ingestion(id)
        return narrowed_ingestion(found, self._accounts) if found else None

    def ingestions(
        self, *, limit: int, cursor: str | None = None, status: str | None = None, key: str | None = None
    ) -> Listing[Ingestion]:
        def page(limit: int, cursor: str | None) -> Listing[Ingestion]:
            return self._whole.ingestions(limit=limit, cursor=cursor, status=status, key=key)

        return _seen(page, self._see_ingestion, limit, cursor)

    def versions_of(self, source: str, key: str) -> list[Ingestion]:
        return _those(self._see_ingestion, self._whole.versions_of(source, key))

    def ingestions_with(self, start: date, end: date, sha256s: Collection[str]) -> list[Ingestion]:
        return _those(self._see_ingestion, self._whole.ingestions_with(start, end, sha256s))

    def _see_ingestion(self, item: Ingestion) -> Ingestion | None:
        return narrowed_ingestion(item, self._accounts)

    # --- what was reported before

    def month_totals(self, start: date, end: date) -> dict[date, MonthTotals]:
        found = self._whole.month_totals(start, end)
        return {first: narrowed_months(part, self._accounts) for first, part in found.items()}

    def revisions(self, start: date, end: date, accounts: Collection[str] = ()) -> list[Revision]:
        found = self._whole.revisions(start, end, accounts)
        return [revision for revision in found if revision.account in self._accounts]

    def notices(self, *, limit: int, cursor: str | None = None, kind: str | None = None) -> Listing[Notice]:
        def page(limit: int, cursor: str | None) -> Listing[Notice]:
            return self._whole.notices(limit=limit, cursor=cursor, kind=kind)

        return _seen(page, lambda item: narrowed_notice(item, self._accounts), limit, cursor)

    def notices_about(self, start: date, end: date) -> list[Notice]:
        found = self._whole.notices_about(start, end)
        return _those(lambda item: narrowed_notice(item, self._accounts), found)

    def reference(self, source: str, month: date) -> KeptReference | None:
        kept = self._whole.reference(source, month)
        return narrowed_reference(kept, self._accounts) if kept else None

    # --- anomalies

    def anomaly(self, id: str) -> AnomalyRecord | None:
        found = self._whole.anomaly(id)
        return seen_anomaly(found, self._accounts) if found else None

    def anomalies(self, start: date, end: date) -> list[AnomalyRecord]:
        return _those(lambda item: seen_anomaly(item, self._accounts), self._whole.anomalies(start, end))

    def put_anomaly(self, record: AnomalyRecord) -> bool:
        """A word on one that may be seen."""
        if self.anomaly(record.id) is None or seen_anomaly(record, self._accounts) is None:
            raise NotFound("There is no such anomaly.")
        return self._whole.put_anomaly(record)

    def planned_spend(self) -> list[PlannedSpend]:
        return [plan for plan in self._whole.planned_spend() if plan.scope.account in self._accounts]

    # --- budgets, rules, alerts

    def budget(self, id: str) -> Budget | None:
        found = self._whole.budget(id)
        return found if found and found.seen_by(self._accounts) else None

    def budgets(self) -> list[Budget]:
        return [budget for budget in self._whole.budgets() if budget.seen_by(self._accounts)]

    def put_budget(self, budget: Budget) -> bool:
        """One that is and stays wholly of these accounts."""
        if not budget.seen_by(self._accounts):
            raise Forbidden(f"scope and owners of a budget must name accounts you see: {OF_YOURS}")
        if budget.revision > 1 and self.budget(budget.id) is None:
            raise NotFound("There is no such budget.")
        return self._whole.put_budget(budget)

    def remove_budget(self, id: str, revision: int) -> bool:
        return self.budget(id) is not None and self._whole.remove_budget(id, revision)

    def rule(self, id: str) -> Rule | None:
        found = self._whole.rule(id)
        return self._see_rule(found) if found else None

    def rules(self) -> list[Rule]:
        return _those(self._see_rule, self._whole.rules())

    def put_rule(self, rule: Rule) -> bool:
        """One that is and stays wholly of these accounts."""
        if self._see_rule(rule) is None:
            raise Forbidden(f"scope of a rule must name accounts you see: {OF_YOURS}")
        if rule.revision > 1 and self.rule(rule.id) is None:
            raise NotFound("There is no such rule.")
        return self._whole.put_rule(rule)

    def remove_rule(self, id: str, revision: int) -> bool:
        return self.rule(id) is not None and self._whole.remove_rule(id, revision)

    def _see_rule(self, rule: Rule) -> Rule | None:
        return seen_rule(rule, self._accounts, self._whole.budget(rule.budget) if rule.budget else None)

    def alert(self, id: str) -> AlertRecord | None:
        found = self._whole.alert(id)
        return seen_alert(found, self._accounts) if found else None

    def alerts(
        self, *, limit: int, cursor: str | None = None, rule: str | None = None, state: str | None = None
    ) -> Listing[AlertRecord]:
        def page(limit: int, cursor: str | None) -> Listing[AlertRecord]:
            return self._whole.alerts(limit=limit, cursor=cursor, rule=rule, state=state)

        return _seen(page, lambda item: seen_alert(item, self._accounts), limit, cursor)

    # --- alerts of Grafana

    def grafana_alerts(
        self, *, limit: int, cursor: str | None = None, status: str | None = None
    ) -> Listing[GrafanaAlert]:
        def page(limit: int, cursor: str | None) -> Listing[GrafanaAlert]:
            return self._whole.grafana_alerts(limit=limit, cursor=cursor, status=status)

        return _seen(page, lambda item: seen_grafana_alert(item, self._accounts), limit, cursor)

    # --- jobs

    def job(self, id: str) -> Job | None:
        found = self._whole.job(id)
        return narrowed_job(found) if found else None

    def jobs(
        self, *, limit: int, cursor: str | None = None, status: str | None = None, kind: str | None = None
    ) -> Listing[Job]:
        def page(limit: int, cursor: str | None) -> Listing[Job]:
            return self._whole.jobs(limit=limit, cursor=cursor, status=status, kind=kind)

        return _seen(page, narrowed_job, limit, cursor)

    def put_job(self, job: Job) -> tuple[Job, bool]:
        if narrowed_job(job) is None:
            raise Forbidden(f"Jobs of kind {job.kind} are about all accounts, and you see some of them.")
        there, new = self._whole.put_job(job)
        seen = narrowed_job(there)
        if seen is None:
            raise NotFound("There is no such job.")
        return seen, new

    def cancel(self, id: str, *, now: datetime) -> Job | None:
        if self.job(id) is None:
            return None
        found = self._whole.cancel(id, now=now)
        return narrowed_job(found) if found else None

    def unfinished(self, *, limit: int = 10_000) -> list[Job]:
        return _those(narrowed_job, self._whole.unfinished(limit=limit))

    def last_slot(self, name: str) -> datetime | None:
        return self._whole.last_slot(name)


def _seen(
    page: Callable[[int, str | None], Listing[Item]],
    see: Callable[[Item], Item | None],
    limit: int,
    cursor: str | None,
) -> Listing[Item]:
    """One page of what may be seen, looked for in the pages of all; it may be short while there are more."""
    found: list[Item] = []
    for _ in range(MOST_ROUNDS):
        whole = page(limit - len(found), cursor)
        found += _those(see, whole.items)
        cursor = whole.next_cursor
        if cursor is None or len(found) == limit:
            break
    return Listing(found, cursor)


def _those(see: Callable[[Item], Item | None], items: Sequence[Item]) -> list[Item]:
    return [seen for item in items if (seen := see(item)) is not None]
