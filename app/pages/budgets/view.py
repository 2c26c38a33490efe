"""Everything the Budgets page needs to know, asked once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any, Final

from app.api.rulemodels import BudgetAnswer, RuleAnswer
from app.backends import Backends
from app.budgets import BudgetFigures, budgets_of, figures_of, rules_of
from app.core.access import Permission
from app.core.jobs import Job
from app.core.periods import DAY, DateRange
from app.core.query import CostQuery
from app.core.rules import AlertRecord, Rule
from app.core.spend import SCOPE_PARTS
from app.costs import Snapshot, snapshot
from app.judging import newest_look
from app.pages.budgets.address import Address
from app.principal import principal

MOST_ALERTS: Final = 30
MOST_VALUES: Final = 500
VALUE_DAYS: Final = 120
"""Accounts, services and regions that are suggested are those that had cost in so many days."""


@dataclass(frozen=True)
class BudgetsView:
    """`names` are of the budgets by id; `form` is what is being edited, as the API has it, None while nothing is."""

    address: Address
    currency: str
    today: date
    known: DateRange | None
    figures: Sequence[BudgetFigures]
    chosen: BudgetFigures | None
    rules: Sequence[Rule]
    names: Mapping[str, str]
    alerts: Sequence[AlertRecord]
    open_alerts: Mapping[str, int]
    form: Mapping[str, Any] | None
    looked: Job | None
    may_change: bool
    sees_all: bool


def look(backends: Backends, address: Address) -> BudgetsView:
    now = snapshot(backends)
    figures = [figures_of(backends, budget) for budget in budgets_of(backends)]
    chosen = next((one for one in figures if one.budget.id == address.budget), figures[0] if figures else None)
    rules = rules_of(backends)
    alerts = backends.metadata.alerts(limit=MOST_ALERTS).items
    asking = principal()
    return BudgetsView(
        address=address,
        currency=backends.settings.currency,
        today=backends.today(),
        known=now.known,
        figures=figures,
        chosen=chosen,
        rules=rules,
        names={one.budget.id: one.budget.name for one in figures},
        alerts=alerts,
        open_alerts=_open(backends),
        form=_form(now, backends, address, figures, rules) if asking.may(Permission.OPERATE) else None,
        looked=newest_look(backends),
        may_change=asking.may(Permission.OPERATE),
        sees_all=asking.accounts is None,
    )


def _open(backends: Backends) -> dict[str, int]:
    found: dict[str, int] = {}
    for one in backends.metadata.alerts(limit=1000, state="open").items:
        found[one.rule] = found.get(one.rule, 0) + 1
    return found


def _form(
    now: Snapshot, backends: Backends, address: Address, figures: Sequence[BudgetFigures], rules: Sequence[Rule]
) -> dict[str, Any] | None:
    """What the browser builds the form from; None for one that is not there."""
    if address.edit is None:
        return None
    what, _, there = address.edit.partition(":")
    value = _value(backends, what, there, figures, rules)
    if there and value is None:
        return None
    return {
        "what": what,
        "value": value,
        "about": address.about,
        "currency": backends.settings.currency,
        "budgets": [[one.budget.id, one.budget.name] for one in figures],
        "values": {part: _values(now, part) for part in SCOPE_PARTS},
        "sees_all": principal().accounts is None,
        "back": address.editing(None).href(),
    }


def _value(
    backends: Backends, what: str, id: str, figures: Sequence[BudgetFigures], rules: Sequence[Rule]
) -> dict[str, Any] | None:
    if what == "budget":
        found = next((one for one in figures if one.budget.id == id), None)
        return BudgetAnswer.of(found, backends.settings.currency).model_dump(mode="json") if found else None
    rule = next((one for one in rules if one.id == id), None)
    return RuleAnswer.of(rule).model_dump(mode="json") if rule else None


def _values(now: Snapshot, part: str) -> list[str]:
    if now.known is None:
        return []
    days = DateRange(max(now.known.start, now.known.end - VALUE_DAYS * DAY), now.known.end)
    return [value for value, _ in now.values_with_cost(part, CostQuery(days))][:MOST_VALUES]
