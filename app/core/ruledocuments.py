"""Budgets, rules and alerts as documents: flat, exact decimals as text, for any metadata store (see core.documents)."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date
from decimal import Decimal
from typing import Any, Final

from app.core.budgets import Budget, Threshold
from app.core.documents import Document, storable, time_from, time_text
from app.core.exact import text
from app.core.rules import AlertRecord, Rule
from app.core.spend import SpendScope


def scope_document(scope: SpendScope) -> Document:
    return {part: list(values) for part, values in scope.parts()}


def scope_from(document: Mapping[str, Any]) -> SpendScope:
    return SpendScope(tuple(document["account"]), tuple(document["service"]), tuple(document["region"]))


# --- budgets ------------------------------------------------------------------------------------------------------


def budget_document(budget: Budget) -> Document:
    return {
        "id": budget.id,
        "name": budget.name,
        "amount": text(budget.amount),
        "scope": scope_document(budget.scope),
        "metric": budget.metric,
        "period": budget.period,
        "thresholds": [{"percent": text(one.percent), "of": one.of} for one in budget.thresholds],
        "owners": list(budget.owners),
        "by": storable(budget.by),
        "at": time_text(budget.at),
        "revision": budget.revision,
    }


def budget_from(document: Mapping[str, Any]) -> Budget:
    return Budget(
        id=document["id"],
        name=document["name"],
        amount=Decimal(document["amount"]),
        scope=scope_from(document["scope"]),
        metric=document["metric"],
        period=document["period"],
        thresholds=tuple(Threshold(Decimal(one["percent"]), one["of"]) for one in document["thresholds"]),
        owners=tuple(document["owners"]),
        by=document["by"],
        at=time_from(document["at"]),
        revision=document["revision"],
    )


# --- rules --------------------------------------------------------------------------------------------------------

_RULE_PLAIN: Final = (
    "id", "name", "kind", "on", "severity", "metric", "per", "against", "direction", "budget", "hours", "edition",
    "revision",
)  # fmt: skip


def rule_document(rule: Rule) -> Document:
    return {name: getattr(rule, name) for name in _RULE_PLAIN} | {
        "scope": scope_document(rule.scope),
        "amount": None if rule.amount is None else text(rule.amount),
        "percent": None if rule.percent is None else text(rule.percent),
        "since": None if rule.since is None else str(rule.since),
        "by": storable(rule.by),
        "at": time_text(rule.at),
    }


def rule_from(document: Mapping[str, Any]) -> Rule:
    return Rule(
        scope=scope_from(document["scope"]),
        amount=None if document["amount"] is None else Decimal(document["amount"]),
        percent=None if document["percent"] is None else Decimal(document["percent"]),
        since=None if document["since"] is None else date.fromisoformat(document["since"]),
        by=document["by"],
        at=time_from(document["at"]),
        **{name: document[name] for name in _RULE_PLAIN},
    )


# --- alerts -------------------------------------------------------------------------------------------------------

_ALERT_PLAIN: Final = ("id", "rule", "edition", "kind", "name", "severity", "undone", "why", "revision")


def alert_document(record: AlertRecord) -> Document:
    """`state` stands beside what it follows from, to be asked for."""
    return {name: getattr(record, name) for name in _ALERT_PLAIN} | {
        "part": storable(record.part),
        "start": str(record.start),
        "last": str(record.last),
        "value": text(record.value),
        "limit": text(record.limit),
        "accounts": list(record.accounts),
        "owners": list(record.owners),
        "fired": time_text(record.fired),
        "resolved": None if record.resolved is None else time_text(record.resolved),
        "state": record.state,
    }


def alert_from(document: Mapping[str, Any]) -> AlertRecord:
    return AlertRecord(
        part=document["part"],
        start=date.fromisoformat(document["start"]),
        last=date.fromisoformat(document["last"]),
        value=Decimal(document["value"]),
        limit=Decimal(document["limit"]),
        accounts=tuple(document["accounts"]),
        owners=tuple(document["owners"]),
        fired=time_from(document["fired"]),
        resolved=None if document["resolved"] is None else time_from(document["resolved"]),
        **{name: document[name] for name in _ALERT_PLAIN},
    )
