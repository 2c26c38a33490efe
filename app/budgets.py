"""Budgets and rules: keeping what people set up, and the figures of a budget as answers have them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any, Final
from uuid import uuid4

import numpy as np

from app.backends import Backends
from app.core.budgets import Budget, checked_budget
from app.core.ledger import DayStatus
from app.core.periods import DAY, DateRange
from app.core.projection import NotProjected, Projection, project
from app.core.query import CostQuery
from app.core.rules import BUILT_IN, Rule, checked_rule
from app.core.spend import Arrived, Spend, SpendScope, Sum
from app.costs import Ledgers, Snapshot, snapshot
from app.errors import Conflict, Forbidden, InvalidInput, NotFound, Refused
from app.principal import principal

LEARNED: Final = timedelta(days=460)
"""History that a projection is made of and measured on."""
MOST_BUDGETS: Final = 500
MOST_RULES: Final = 500
MOST_KEPT: Final = 2000
EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


# --- budgets ------------------------------------------------------------------------------------------------------


def budgets_of(backends: Backends) -> list[Budget]:
    return backends.metadata.budgets()


def budget_of(backends: Backends, id: str) -> Budget:
    """Raises NotFound."""
    found = backends.metadata.budget(id) if id.isascii() else None
    if found is None:
        raise NotFound(f"There is no budget {id[:40]!r}. GET /api/v1/budgets lists them.")
    return found


def add_budget(backends: Backends, budget: Budget, *, by: str) -> Budget:
    """Keep a new one under an id of its own. Raises InvalidInput, Refused when there are too many."""
    if len(backends.metadata.budgets()) >= MOST_BUDGETS:
        raise Refused(f"There are {MOST_BUDGETS} budgets, and no more are kept. Remove some.")
    made = replace(checked_budget(budget), id=uuid4().hex[:16], by=by, at=backends.clock(), revision=1)
    _stored(backends.metadata.put_budget(made), "budget")
    return made


def change_budget(backends: Backends, id: str, revision: int, changes: Mapping[str, Any], *, by: str) -> Budget:
    """Raises NotFound, InvalidInput, Conflict when `revision` is not the newest."""
    before = budget_of(backends, id)
    _expect(before.revision, revision, f"Budget {before.name!r}")
    after = checked_budget(replace(before, **changes))
    if after == before:
        return before
    after = replace(after, by=by, at=backends.clock(), revision=revision + 1)
    _stored(backends.metadata.put_budget(after), "budget")
    return after


def remove_budget(backends: Backends, id: str, revision: int) -> None:
    """Raises NotFound, Conflict when `revision` is not the newest, Refused while a rule is about it."""
    before = budget_of(backends, id)
    _expect(before.revision, revision, f"Budget {before.name!r}")
    if about := [rule.name for rule in backends.metadata.rules() if rule.budget == id]:
        raise Refused(f"The rule {about[0]!r} is about this budget. Remove the rule first.")
    _stored(backends.metadata.remove_budget(id, revision), "budget")


def _expect(there: int, given: int, what: str) -> None:
    if there != given:
        raise Conflict(
            f"{what} was changed by somebody else: it is at revision {there}, not {given}. Read it and try again."
        )


def _stored(done: bool, what: str) -> None:
    if not done:
        raise Conflict(f"This {what} was changed by somebody else just now. Read it and try again.")


# --- rules --------------------------------------------------------------------------------------------------------


def built_in_rules(backends: Backends) -> list[Rule]:
    """Those that are there before anybody set anything up: they belong to those who see all accounts."""
    hours = max(1, (backends.settings.stale_days - 1) * 24)
    return [
        Rule(
            "data-stale",
            "Data is stale",
            "data_stale",
            EPOCH,
            "",
            on=True,
            severity="critical",
            hours=hours,
            revision=0,
        ),
        Rule("source-quarantined", "A cost file is refused", "source_quarantined", EPOCH, "", on=True, revision=0),
    ]


def rules_of(backends: Backends) -> list[Rule]:
    """By name; built-in ones as they were changed."""
    stored = backends.metadata.rules()
    if principal().accounts is not None:
        return stored
    changed = {rule.id for rule in stored}
    return [*stored, *(rule for rule in built_in_rules(backends) if rule.id not in changed)]


def rule_of(backends: Backends, id: str) -> Rule:
    """Raises NotFound."""
    found = backends.metadata.rule(id) if id.isascii() else None
    if found is None:
        found = next((rule for rule in rules_of(backends) if rule.id == id), None)
    if found is None:
        raise NotFound(f"There is no rule {id[:40]!r}. GET /api/v1/rules lists them.")
    return found


def add_rule(backends: Backends, rule: Rule, *, by: str) -> Rule:
    """Keep a new one under an id of its own. Raises InvalidInput, NotFound for a budget that is not there, Refused."""
    if rule.kind == "source_quarantined":
        raise Refused("There is a rule for refused files already: source-quarantined. Change that one.")
    if len(backends.metadata.rules()) >= MOST_RULES:
        raise Refused(f"There are {MOST_RULES} rules, and no more are kept. Remove some.")
    made = _checked(backends, rule)
    made = replace(made, id=uuid4().hex[:16], by=by, at=backends.clock(), since=backends.today(), edition=1, revision=1)
    _stored(backends.metadata.put_rule(made), "rule")
    return made


def _checked(backends: Backends, rule: Rule) -> Rule:
    found = checked_rule(rule)
    if found.budget is not None:
        budget_of(backends, found.budget)
    return found


def may_set_up(rule: Rule) -> None:
    """Raises Forbidden for one that is about accounts that whoever asks does not see. A budget was looked up before."""
    accounts = principal().accounts
    if accounts is not None and rule.budget is None and not rule.scope.inside(accounts):
        raise Forbidden("scope of a rule must name accounts you see.")


def change_rule(backends: Backends, id: str, revision: int, changes: Mapping[str, Any], *, by: str) -> Rule:
    """Raises NotFound, InvalidInput, Conflict when `revision` is not the newest.

    A rule that asks something else, or is switched on, tells of what happens from today on.
    """
    before = rule_of(backends, id)
    _expect(before.revision, revision, f"Rule {before.name!r}")
    if "kind" in changes and changes["kind"] != before.kind:
        raise InvalidInput(f"kind of a rule stays what it is ({before.kind}). Make another rule.", field="kind")
    after = _checked(backends, replace(before, **changes))
    if after == before:
        return before
    asks_other = after.asks() != before.asks()
    after = replace(
        after,
        by=by,
        at=backends.clock(),
        revision=revision + 1,
        edition=before.edition + asks_other,
        since=backends.today() if asks_other or (after.on and not before.on) else before.since,
    )
    _stored(backends.metadata.put_rule(after), "rule")
    return after


def remove_rule(backends: Backends, id: str, revision: int) -> None:
    """Raises NotFound, Conflict when `revision` is not the newest, Refused for a built-in one."""
    before = rule_of(backends, id)
    _expect(before.revision, revision, f"Rule {before.name!r}")
    if id in BUILT_IN:
        raise Refused(f"The rule {before.name!r} is built in. Switch it off instead.")
    _stored(backends.metadata.remove_rule(id, revision), "rule")


# --- what a scope costs day by day --------------------------------------------------------------------------------


def spend_of(figures: Snapshot, scope: SpendScope, metric: str, days: DateRange) -> Spend:
    """Days of a scope, as far as they are kept by day; an empty one where nothing is."""
    known = figures.known
    start = max(days.start, known.start if known else days.end, figures.retention.oldest or days.start)
    if known is None or start >= days.end:
        return Spend(days.start, (), ())
    asked = DateRange(start, days.end)
    frame = figures.ask(CostQuery(asked, metric=metric, granularity="daily", filters=scope.filters())).frame
    there = set(frame.days)
    unknown = np.isnan(frame.amounts[0]).tolist()
    values = frame.exact.map(lambda part: part[0]).decimals()
    statuses = tuple(_status(figures.ledgers, scope, day) for day in asked)
    amounts = tuple(
        None if lacks or day not in there or (not value and status in ("missing", "quarantined")) else value
        for day, value, lacks, status in zip(asked, values, unknown, statuses, strict=True)
    )
    return Spend(start, amounts, statuses)


def _status(ledgers: Ledgers, scope: SpendScope, day: date) -> DayStatus | None:
    """Of the scope's accounts, the worst; of all of them where it names none."""
    whole = ledgers.coverage.days.get(day)
    if not scope.account or whole in (None, "quarantined"):
        return whole
    by_account, known = ledgers.coverage.accounts.get(day, {}), ledgers.days.get(day)
    found = {by_account.get(name) for name in scope.account}
    for status in ("missing", "quarantined", "settling", "complete"):
        if status in found:
            return status
    if known is None or not all(known.covers(name) for name in scope.account):
        return None
    # They had nothing, and a file says so.
    return "complete" if "complete" in (whole, *by_account.values()) else "settling"


def arrived_of(figures: Snapshot, scope: SpendScope, metric: str, days: DateRange, settling_days: int) -> Arrived:
    """The same days with what each was first reported as: its account's share of now, by the ledger."""
    whole = spend_of(figures, scope, metric, days)
    if not whole.amounts:
        return Arrived(whole, (), settling_days)
    moved = _moved(figures.ledgers, scope, metric, whole)
    first = list(whole.amounts)
    if moved:
        asked = CostQuery(
            DateRange(whole.start, whole.end), metric=metric, group_by=("account",), filters=scope.filters()
        )
        frame = figures.ask(asked).frame
        rows = {group[0]: row for row, group in enumerate(frame.groups)}
        for (day, account), share in moved.items():
            place, row = (day - whole.start).days, rows.get(account)
            amount = first[place]
            if row is not None and amount is not None and np.isfinite(frame.amounts[row, place]):
                delta = Decimal(repr(float(frame.amounts[row, place]) * (share - 1))).quantize(Decimal("1e-6"))
                first[place] = amount + delta
    return Arrived(whole, tuple(first), settling_days)


def _moved(ledgers: Ledgers, scope: SpendScope, metric: str, spend: Spend) -> dict[tuple[date, str], float]:
    """(day, account) → first over current total, where they differ and both say something."""
    found: dict[tuple[date, str], float] = {}
    for day in DateRange(spend.start, spend.end):
        known = ledgers.days.get(day)
        shares = known.shares_of(metric) if known else {}
        found |= {(day, name): share for name, share in shares.items() if not scope.account or name in scope.account}
    return found


# --- a budget's figures -------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class BudgetFigures:
    """A budget in the period that `days` is.

    `spent` is what the API answers as the total of these days and this scope; None with `unknown`, which says why.
    `sum` says what of it is not final; `counted_from` is a later day than the first where history begins later.
    """

    budget: Budget
    days: DateRange
    spent: Decimal | None
    unknown: str | None
    sum: Sum
    projection: Projection | NotProjected
    spend: Spend
    counted_from: date | None = None


def figures_of(backends: Backends, budget: Budget, day: date | None = None) -> BudgetFigures:
    """In the period that `day` is in (yesterday: of today almost nothing is known yet)."""
    figures, asked = snapshot(backends), day or backends.today() - DAY
    key = (figures.rollup.version, figures.ledgers.version, backends.today(), budget.id, budget.revision, asked)
    kept: dict[Any, BudgetFigures] = backends.memo.setdefault("budget figures", {})
    if key not in kept:
        if len(kept) >= MOST_KEPT:
            kept.clear()
        kept[key] = budget_figures(figures, budget, asked, backends.today())
    return kept[key]


def budget_figures(figures: Snapshot, budget: Budget, day: date, today: date) -> BudgetFigures:
    days = budget.current(day)
    answer = figures.ask(CostQuery(days, metric=budget.metric, granularity="total", filters=budget.scope.filters()))
    spend = spend_of(figures, budget.scope, budget.metric, DateRange(days.start - LEARNED, min(days.end, today + DAY)))
    sum_ = spend.over(days)
    known = figures.known
    later = known.start if known and known.start > days.start else None
    spent, unknown = answer.total, None
    if answer.total is None or (sum_.known == 0 and answer.not_kept is None and not _is_kept_by_month(figures, days)):
        spent, unknown = None, _why_unknown(figures, budget, days, answer.not_kept.reason if answer.not_kept else None)
    return BudgetFigures(budget, days, spent, unknown, sum_, _projected(figures, spend, days, unknown), spend, later)


def _is_kept_by_month(figures: Snapshot, days: DateRange) -> bool:
    return figures.kept_since_inside(days) is not None


def _why_unknown(figures: Snapshot, budget: Budget, days: DateRange, not_kept: str | None) -> str:
    if not_kept:
        return not_kept
    if figures.known is None:
        return "Nothing is stored yet."
    if figures.known.end <= days.start or figures.known.start >= days.end:
        return f"No day of this period is known; the newest is {figures.known.last}."
    if budget.metric == "blended_cost":
        return "blended_cost is not available for all of it."
    return "No day of this period is known for this scope."


def _projected(figures: Snapshot, spend: Spend, days: DateRange, unknown: str | None) -> Projection | NotProjected:
    if unknown is not None:
        return NotProjected(unknown)
    if figures.kept_since_inside(days) is not None:
        return NotProjected("The first days of this period are not kept by day any more.")
    return project(spend, days)
