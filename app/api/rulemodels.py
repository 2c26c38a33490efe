"""What the API takes and answers with about budgets, rules and alerts (see app.api.models)."""

from __future__ import annotations

import datetime as dt
from decimal import Decimal, InvalidOperation
from typing import Annotated, Any, Final

from pydantic import BaseModel, ConfigDict, Field

from app.api.models import Answer, ExactText, exact_text
from app.budgets import BudgetFigures
from app.core.budgets import Budget, BudgetPeriod, Of, Threshold, percent_of
from app.core.notifications import Severity
from app.core.projection import NotProjected, Projection
from app.core.rules import BUILT_IN, Against, AlertRecord, Direction, Rule, RuleKind
from app.core.spend import Per, SpendScope
from app.errors import InvalidInput
from app.judging import Preview

Texts = list[str]
Revision = Annotated[int, Field(ge=0, le=2**31, description="The newest revision you saw; or send it as `If-Match`.")]
Exact = Annotated[str, Field(max_length=40, examples=["12000"])]
"""An amount as text: a JSON number would lose cents on its way."""


class ScopeModel(Answer):
    """Empty means all; a cost is inside when account, service and region all fit."""

    account: Texts = Field(default_factory=list)
    service: Texts = Field(default_factory=list)
    region: Texts = Field(default_factory=list)

    @classmethod
    def of(cls, scope: SpendScope) -> ScopeModel:
        return cls(**{part: list(values) for part, values in scope.parts()})

    def scope(self) -> SpendScope:
        """Raises InvalidInput."""
        return SpendScope.of(self.account, self.service, self.region)


class ThresholdModel(Answer):
    percent: Exact = Field(examples=["80"])
    of: Of = "actual"


def decimal_from(field: str, value: str) -> Decimal:
    """Raises InvalidInput for what is not a decimal number."""
    try:
        found = Decimal(value) if value.isascii() and "_" not in value else None
    except InvalidOperation:
        found = None
    if found is None or not found.is_finite():
        raise InvalidInput(
            f"{field} {value[:40]!r} is not a decimal number. Write it like 12000 or 12000.50.", field=field
        )
    return found


# --- budgets ------------------------------------------------------------------------------------------------------


class BudgetRequest(BaseModel):
    """A budget in the deployment's currency; what is left out is as usual."""

    model_config = ConfigDict(extra="forbid", strict=True)

    name: str = Field(max_length=200)
    amount: Exact = Field(description="For each period.")
    scope: ScopeModel = ScopeModel()
    metric: str = Field("amortized_cost", max_length=40)
    period: BudgetPeriod = "monthly"
    thresholds: list[ThresholdModel] | None = Field(
        None, max_length=10, description="Unset: 80 and 100 % of actual, 100 % of forecast."
    )
    owners: Texts = Field([], description="Accounts whose channels are told; none: those of the scope.")


class BudgetChange(BaseModel):
    """Members that are left out stay."""

    model_config = ConfigDict(extra="forbid", strict=True)

    revision: Revision | None = None
    name: str | None = Field(None, max_length=200)
    amount: Exact | None = None
    scope: ScopeModel | None = None
    metric: str | None = Field(None, max_length=40)
    period: BudgetPeriod | None = None
    thresholds: list[ThresholdModel] | None = Field(None, max_length=10)
    owners: Texts | None = None


def budget_changes(asked: BudgetRequest | BudgetChange) -> dict[str, Any]:
    """Members that were given, as core.budgets.Budget has them. Raises InvalidInput."""
    found = asked.model_dump(exclude_unset=True, exclude={"revision", "scope", "thresholds", "amount", "owners"})
    if asked.amount is not None:
        found["amount"] = decimal_from("amount", asked.amount)
    if asked.scope is not None:
        found["scope"] = asked.scope.scope()
    if asked.thresholds is not None:
        found["thresholds"] = tuple(
            sorted(Threshold(decimal_from("percent", one.percent), one.of) for one in asked.thresholds)
        )
    if asked.owners is not None:
        found["owners"] = SpendScope.of(asked.owners).account
    return without_nulls(found)


def without_nulls(found: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in found.items() if value is not None}


class ProjectedModel(Answer):
    """At the period's end, with the band that held four of five earlier projections. `breach`: the first day after
    which more than the amount is spent; null: not in this period. `is_past`: it has happened."""

    total: ExactText
    low: ExactText
    high: ExactText
    breach: dt.date | None
    breach_earliest: dt.date | None
    breach_latest: dt.date | None
    is_past: bool

    @classmethod
    def of(cls, found: Projection, amount: Decimal) -> ProjectedModel:
        low, high = found.band
        breach = found.breach(amount)
        return cls(
            total=_text(found.total),
            low=_text(low),
            high=_text(high),
            breach=breach.day,
            breach_earliest=breach.earliest,
            breach_latest=breach.latest,
            is_past=breach.is_past,
        )


class BurnModel(Answer):
    """The period [start, end) as it stands. `spent` is the total that GET /api/v1/costs answers for it; null with
    `unknown` where it cannot be said. Of `settling` days more may come; `lacking` days were not reported for all of it."""

    start: dt.date
    end: dt.date
    spent: ExactText | None
    percent: ExactText | None
    unknown: str | None
    counted_from: dt.date | None
    settling: list[dt.date]
    lacking: list[dt.date]
    projected: ProjectedModel | None
    not_projected: str | None

    @classmethod
    def of(cls, found: BudgetFigures) -> BurnModel:
        amount, projection = found.budget.amount, found.projection
        return cls(
            start=found.days.start,
            end=found.days.end,
            spent=exact_text(found.spent),
            percent=None if found.spent is None else _text(percent_of(found.spent, amount)),
            unknown=found.unknown,
            counted_from=found.counted_from,
            settling=list(found.sum.settling),
            lacking=list(found.sum.lacking),
            projected=ProjectedModel.of(projection, amount) if isinstance(projection, Projection) else None,
            not_projected=projection.reason if isinstance(projection, NotProjected) else None,
        )


class BudgetAnswer(Answer):
    id: str
    name: str
    amount: ExactText
    currency: str
    scope: ScopeModel
    metric: str
    period: BudgetPeriod
    thresholds: list[ThresholdModel]
    owners: list[str]
    revision: int
    by: str
    at: dt.datetime
    burn: BurnModel

    @classmethod
    def of(cls, found: BudgetFigures, currency: str) -> BudgetAnswer:
        budget: Budget = found.budget
        same = {name: getattr(budget, name) for name in ("id", "name", "metric", "period", "revision", "by", "at")}
        return cls(
            amount=_text(budget.amount),
            currency=currency,
            scope=ScopeModel.of(budget.scope),
            thresholds=[ThresholdModel(percent=_text(one.percent), of=one.of) for one in budget.thresholds],
            owners=list(budget.owners),
            burn=BurnModel.of(found),
            **same,
        )


class BudgetList(Answer):
    """By name."""

    items: list[BudgetAnswer]


# --- rules --------------------------------------------------------------------------------------------------------


class RuleRequest(BaseModel):
    """Which members go with which `kind` says docs/budgets.md. A rule is off until it is switched on."""

    model_config = ConfigDict(extra="forbid", strict=True)

    name: str = Field(max_length=200)
    kind: RuleKind
    on: bool = False
    severity: Severity = "warning"
    scope: ScopeModel = ScopeModel()
    metric: str | None = Field(None, max_length=40)
    per: Per | None = None
    amount: Exact | None = Field(None, description="threshold: more than this; change: by at least this.")
    percent: Exact | None = Field(None, description="change: and by at least this share of what it was.")
    against: Against | None = None
    direction: Direction | None = None
    budget: str | None = Field(None, max_length=64, description="budget_burn: id of the budget.")
    hours: int | None = Field(None, description="data_stale: since the newest day ended.")


class RuleChange(BaseModel):
    """Members that are left out stay."""

    model_config = ConfigDict(extra="forbid", strict=True)

    revision: Revision | None = None
    name: str | None = Field(None, max_length=200)
    on: bool | None = None
    severity: Severity | None = None
    scope: ScopeModel | None = None
    metric: str | None = Field(None, max_length=40)
    per: Per | None = None
    amount: Exact | None = None
    percent: Exact | None = None
    against: Against | None = None
    direction: Direction | None = None
    budget: str | None = Field(None, max_length=64)
    hours: int | None = None


def rule_changes(asked: RuleRequest | RuleChange) -> dict[str, Any]:
    """Members that were given, as core.rules.Rule has them. Raises InvalidInput."""
    found = asked.model_dump(exclude_unset=True, exclude={"revision", "scope", "amount", "percent"})
    if asked.scope is not None:
        found["scope"] = asked.scope.scope()
    for name in ("amount", "percent"):
        if (value := getattr(asked, name)) is not None:
            found[name] = decimal_from(name, value)
    return without_nulls(found)


_RULE_SAME: Final = (
    "id", "name", "kind", "on", "severity", "metric", "per", "against", "direction", "budget", "hours", "since", "revision",
)  # fmt: skip


class RuleAnswer(Answer):
    """Members that do not go with `kind` are null. `at` is null while a built-in rule is as it came."""

    id: str
    name: str
    kind: RuleKind
    on: bool
    severity: Severity
    scope: ScopeModel
    metric: str | None
    per: Per | None
    amount: ExactText | None
    percent: ExactText | None
    against: Against | None
    direction: Direction | None
    budget: str | None
    hours: int | None
    since: dt.date | None = Field(description="Periods that ended before this day are not told.")
    built_in: bool
    revision: int
    by: str
    at: dt.datetime | None

    @classmethod
    def of(cls, rule: Rule) -> RuleAnswer:
        return cls(
            scope=ScopeModel.of(rule.scope),
            amount=exact_text(rule.amount),
            percent=exact_text(rule.percent),
            built_in=rule.id in BUILT_IN,
            by=rule.by,
            at=rule.at if rule.revision else None,
            **{name: getattr(rule, name) for name in _RULE_SAME},
        )


class RuleList(Answer):
    """By name."""

    items: list[RuleAnswer]


class AlertAnswer(Answer):
    """One episode of a rule: `start` to `last` (both included) are all the days it ever had.

    `value` against `limit`: spend and the rule's amount; spend and what it was before; spend (or what it will be) and the budget;
    hours. `part`: the budget's threshold, or the refused file. `undone`: later figures took it away.
    """

    id: str
    rule: str
    name: str
    kind: RuleKind
    severity: Severity
    state: str
    part: str
    start: dt.date
    last: dt.date
    value: ExactText
    limit: ExactText
    fired: dt.datetime
    resolved: dt.datetime | None
    why: str | None

    @classmethod
    def of(cls, record: AlertRecord) -> AlertAnswer:
        same = ("id", "rule", "name", "kind", "severity", "state", "part", "start", "last", "fired", "resolved", "why")
        return cls(
            value=_text(record.value),
            limit=_text(record.limit),
            **{name: getattr(record, name) for name in same},
        )


class AlertList(Answer):
    """Newest first."""

    items: list[AlertAnswer]
    next_cursor: str | None


class PreviewAlert(Answer):
    """`fired` is the morning on which it would have been told."""

    part: str
    state: str
    start: dt.date
    last: dt.date
    value: ExactText
    limit: ExactText
    fired: dt.date


class PreviewAnswer(Answer):
    """The alerts of the mornings [start, end), oldest first; null where nothing is stored. `known` says what they were judged on."""

    alerts: int | None
    start: dt.date | None
    end: dt.date | None
    known: str
    sentence: str
    items: list[PreviewAlert]

    @classmethod
    def of(cls, found: Preview) -> PreviewAnswer:
        return cls(
            alerts=len(found.alerts) if found.days else None,
            start=found.days.start if found.days else None,
            end=found.days.end if found.days else None,
            known=found.known,
            sentence=found.sentence,
            items=[_as_it_would(one) for one in found.alerts],
        )


def _as_it_would(one: AlertRecord) -> PreviewAlert:
    return PreviewAlert(
        part=one.part,
        state=one.state,
        start=one.start,
        last=one.last,
        value=_text(one.value),
        limit=_text(one.limit),
        fired=one.fired.date(),
    )


def _text(value: Decimal) -> str:
    found = exact_text(value)
    assert found is not None
    return found
