"""Who may do what, and whose figures they may see: roles, permissions, principals, and the one place that narrows.

A principal limited to accounts gets the answers it would get if there were no other accounts. app.narrowing puts this
between the stores and whoever asks, so that no page or route has to think of it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from functools import cached_property
from typing import Final

from app.core.anomalyrecords import AnomalyRecord
from app.core.budgets import Budget
from app.core.charges import Totals
from app.core.exact import total
from app.core.jobs import Job
from app.core.ledger import DayRecord, Ingestion
from app.core.query import CostQuery
from app.core.reconciliation import KeptReference
from app.core.restatements import Notice
from app.core.retention import MonthTotals
from app.core.rules import AlertRecord, Rule
from app.errors import InvalidInput, Reason


class Permission(StrEnum):
    """What a route asks for, and what an API token is limited to."""

    READ = "read"
    """Figures, coverage, lists, downloads: whatever a page shows."""

    ANNOTATE = "annotate"
    """Judge what was found: the status of an anomaly, feedback."""

    OPERATE = "operate"
    """Submit and cancel jobs, change budgets and rules."""

    ALERTS = "alerts"
    """Hand in alerts: what a Grafana's contact point needs, and nothing else."""

    METRICS = "metrics"
    """/metrics and the long form of /readyz: figures of all accounts together."""

    ADMINISTER = "administer"
    """Users, tokens of others, the audit log."""


ROLES: Final[Mapping[str, frozenset[Permission]]] = {
    "viewer": frozenset({Permission.READ}),
    "analyst": frozenset({Permission.READ, Permission.ANNOTATE}),
    "editor": frozenset({Permission.READ, Permission.ANNOTATE, Permission.OPERATE, Permission.ALERTS}),
    "admin": frozenset(Permission),
}
"""Role → what it permits; each has all that the one before has."""

OF_ALL_ACCOUNTS: Final = frozenset({Permission.ALERTS, Permission.METRICS, Permission.ADMINISTER})
"""Permissions that nobody has who is limited to accounts: what they open is about all of them."""

Accounts = frozenset[str] | None
"""The accounts a principal may see; None for all there are and will be."""


@dataclass(frozen=True)
class Principal:
    """Whoever asks. `via` says how we know: `local` (an open instance on loopback), `session` or `token`.

    `credential` is the hash of the session or the id of the token, never the secret itself.
    """

    id: str
    name: str
    role: str
    accounts: Accounts
    permissions: frozenset[Permission]
    via: str = "local"
    credential: str = ""

    def may(self, permission: Permission) -> bool:
        return permission in self.permissions

    @cached_property
    def scope(self) -> str:
        """All that an answer may depend on: equal for principals that get equal answers. The key of every cache."""
        rights = "+".join(sorted(self.permissions))
        return f"{rights}/{accounts_key(self.accounts)}"


LOCAL: Final = Principal("local", "this machine", "admin", None, ROLES["admin"])
"""Whoever reaches an open instance: one on loopback without users and without single sign-on."""

NOBODY: Final = Principal("nobody", "", "", frozenset(), frozenset(), "nobody")
"""Whoever is not signed in, where everybody gets an answer."""


def permitted(role: str, accounts: Accounts, scopes: Iterable[str] | None = None) -> frozenset[Permission]:
    """What a role permits, less what needs all accounts, and no more than a token's scopes."""
    found = ROLES.get(role, frozenset())
    if accounts is not None:
        found -= OF_ALL_ACCOUNTS
    return found if scopes is None else found & frozenset(scopes)


def accounts_key(accounts: Accounts) -> str:
    """A short stable name of an account set."""
    if accounts is None:
        return "all"
    return hashlib.sha256(json.dumps(sorted(accounts)).encode()).hexdigest()[:24]


def role_from(text: str) -> str:
    if text not in ROLES:
        raise InvalidInput(f"role {text[:40]!r} is not known. Use one of: {', '.join(ROLES)}.", field="role")
    return text


def scopes_from(texts: Iterable[str]) -> frozenset[str]:
    found = frozenset(texts)
    for text in sorted(found):
        if text not in frozenset(Permission):
            raise InvalidInput(f"scope {text[:40]!r} is not known. Use one of: {', '.join(Permission)}.", field="scope")
    if not found:
        raise InvalidInput(f"A token needs at least one scope: {', '.join(Permission)}.", field="scope")
    return found


# --- narrowing ----------------------------------------------------------------------------------------------------


def narrowed_query(query: CostQuery, accounts: frozenset[str]) -> CostQuery:
    """The question over these accounts only. Asking for others is like asking for accounts that do not exist."""
    asked = dict(query.filters).get("account")
    left = accounts if asked is None else accounts.intersection(asked)
    others = [found for found in query.filters if found[0] != "account"]
    return replace(query, filters=tuple(sorted([*others, ("account", tuple(sorted(left)))])))


def narrowed_day(record: DayRecord, accounts: frozenset[str]) -> DayRecord:
    return replace(
        record,
        accounts={name: part for name, part in record.accounts.items() if name in accounts},
        covered=None if record.covered is None else record.covered & accounts,
        failed_accounts=tuple(name for name in record.failed_accounts if name in accounts),
    )


def narrowed_ingestion(found: Ingestion, accounts: frozenset[str]) -> Ingestion | None:
    """Its part of these accounts; None where it is about others only.

    A file that was not taken belongs to nobody yet: that it was not is shown, what stood in it is not.
    """
    mine = {name: totals for name, totals in found.accounts.items() if name in accounts}
    held = tuple(name for name in found.held if name in accounts)
    if found.accounts and not mine and not held:
        return None
    totals = _added(mine.values()) if found.totals is not None else None
    return replace(
        found,
        accounts=mine,
        held=held,
        totals=totals,
        rows=totals.rows if totals else 0,
        size=0,
        notice=None,
        reason=_without_content(found.reason),
    )


def _without_content(reason: Reason | None) -> Reason | None:
    if reason is None:
        return None
    return Reason(reason.code, "The file was not taken. What stood in it is shown to those who see all accounts.")


def _added(parts: Iterable[Totals]) -> Totals:
    """The exact sum; a blended cost that one of them lacks is lacking."""
    found = list(parts)
    blended = [part.blended_cost for part in found if part.blended_cost is not None]
    return Totals(
        rows=sum(part.rows for part in found),
        amortized_cost=total(part.amortized_cost for part in found),
        blended_cost=total(blended) if len(blended) == len(found) else None,
        unblended_cost=total(part.unblended_cost for part in found),
        usage_quantity=total(part.usage_quantity for part in found),
    )


def seen_anomaly(record: AnomalyRecord, accounts: frozenset[str]) -> AnomalyRecord | None:
    """Whole or not at all: what it is worth cannot be told without the others' part of it."""
    scopes = (record.scope, *(part.scope for part in record.contributions))
    named = {scope.account for scope in scopes if scope.account is not None}
    return record if named and named <= accounts else None


def seen_rule(rule: Rule, accounts: frozenset[str], budget: Budget | None) -> Rule | None:
    """Whole or not at all. One about a budget is seen by those who see the budget."""
    if rule.kind == "budget_burn":
        return rule if budget is not None and budget.seen_by(accounts) else None
    return rule if rule.scope.inside(accounts) else None


def seen_alert(record: AlertRecord, accounts: frozenset[str]) -> AlertRecord | None:
    """Whole or not at all: its figure is one of all its accounts together."""
    return record if record.accounts and accounts.issuperset((*record.accounts, *record.owners)) else None


def narrowed_months(found: MonthTotals, accounts: frozenset[str]) -> MonthTotals:
    return replace(found, accounts={name: part for name, part in found.accounts.items() if name in accounts})


def narrowed_notice(notice: Notice, accounts: frozenset[str]) -> Notice | None:
    """That days of these accounts moved; None where it is about others or about all together."""
    moves = {name: move for name, move in notice.moves.items() if name in accounts}
    said = f"{notice.day} moved after it was called complete."
    return replace(notice, moves=moves, message=said) if moves else None


def narrowed_reference(kept: KeptReference, accounts: frozenset[str]) -> KeptReference:
    found = kept.reference
    if found is not None:
        found = replace(found, accounts={name: days for name, days in found.accounts.items() if name in accounts})
    problem = "The newest totals of Cost Explorer cannot be read." if kept.problem else None
    return replace(kept, reference=found, problem=problem)


JOB_KINDS_OF_NO_ACCOUNT: Final = ("ingest",)
"""Kinds whose params name a file and no account."""

JOB_PARAMS_OF_NO_ACCOUNT: Final = ("source", "key")


def narrowed_job(job: Job) -> Job | None:
    """A job as those see it who do not see all accounts: which file, and how it ended; what was found there is cut."""
    if job.kind not in JOB_KINDS_OF_NO_ACCOUNT:
        return None
    params = {name: value for name, value in job.params.items() if name in JOB_PARAMS_OF_NO_ACCOUNT}
    return replace(job, params=params, message=None, result={})
