"""What happened, as notifications: from plain values to words. Each has a key by which it is told once."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from decimal import ROUND_HALF_EVEN, Decimal
from typing import Final
from urllib.parse import urlencode

from app.core.amounts import EXACT
from app.core.ledger import Ingestion
from app.core.messages import RESOLVED
from app.core.notifications import Notification, Severity
from app.core.periods import DateRange
from app.core.restatements import Move, Notice, move_of
from app.core.rules import BUILT_IN, AlertRecord, Rule

CENT: Final = Decimal("0.01")
NAMED: Final = 10
"""Accounts, movers or causes a message names."""

WEEKLY_HOUR: Final = 8
"""Of Monday, UTC: when the week before is summed up."""


def money(amount: Decimal | None, currency: str) -> str:
    """To the cent, half even; what is unknown is not 0."""
    if amount is None:
        return "not known"
    return f"{amount.quantize(CENT, rounding=ROUND_HALF_EVEN, context=EXACT):,} {currency}"


def change(move: Move | None, currency: str) -> str:
    """`+12.00 USD (+3.4 %)`."""
    if move is None:
        return "not known"
    sign = "+" if move.amount >= 0 else ""
    share = "" if move.percent is None else f" ({move.percent:+.1f} %)"
    return f"{sign}{money(move.amount, currency)}{share}"


def page(public_url: str, days: DateRange, accounts: Sequence[str] = ()) -> str:
    """The Overview of these days."""
    pairs = [("start", str(days.start)), ("end", str(days.end)), *(("account", name) for name in accounts[:NAMED])]
    return f"{public_url.rstrip('/')}/?{urlencode(pairs)}"


def quarantined(ingestion: Ingestion, public_url: str, severity: Severity = "warning") -> Notification:
    """A cost file that was not taken. The same bytes under the same name are told once."""
    reason = ingestion.reason
    facts = [("File", f"{ingestion.source}{ingestion.key}")]
    if reason is not None:
        facts += [("Reason", f"{reason.message} ({reason.code})")]
        facts += [(name, str(value)) for name, value in (("Line", reason.line), ("Column", reason.column)) if value]
        facts += [("Value", reason.value)] if reason.value else []
    facts.append(("Meanwhile", "The data that was there before stays as it is."))
    day = ingestion.day
    return Notification(
        kind="quarantined",
        severity=severity,
        title=f"{ingestion.key} was quarantined",
        key=f"quarantined/{bytes_of(ingestion)}",
        occurred=ingestion.finished or ingestion.started,
        facts=tuple(facts),
        link=page(public_url, DateRange(day, day + timedelta(days=1))) if day else public_url,
    )


def bytes_of(ingestion: Ingestion) -> str:
    """What makes two refused files the same one."""
    return f"{ingestion.source}{ingestion.key}/{ingestion.sha256 or ingestion.version}"


def noticed(notice: Notice, currency: str, public_url: str) -> Notification:
    """A complete day that was restated, or a reference that cannot be read."""
    moves = sorted(notice.moves.items(), key=lambda part: (-abs(part[1].amount), part[0]))
    facts = [(name, f"{money(move.before, currency)} → {money(move.after, currency)}") for name, move in moves[:NAMED]]
    if left := len(moves) - len(facts):
        facts.append(("", f"and {left} more accounts"))
    is_restated = notice.kind == "restated"
    total = f": {change(notice.move, currency)}" if notice.move else ""
    return Notification(
        kind="restated" if is_restated else "quarantined",
        severity="warning" if is_restated else "info",
        title=f"{notice.day} was restated{total}" if is_restated else notice.message,
        key=f"notice/{notice.id}",
        occurred=notice.at,
        facts=(("What", notice.message), *facts),
        link=page(public_url, DateRange(notice.day, notice.day + timedelta(days=1))),
        accounts=tuple(name for name, _ in moves),
    )


def data_stale(newest: date, now: datetime, public_url: str, rule: Rule | None = None) -> Notification:
    """No day newer than `newest` has come (of a rule's accounts): one incident until one does."""
    days = (now.astimezone(UTC).date() - newest).days
    accounts = rule.scope.account if rule else ()
    of = f" of {', '.join(accounts[:NAMED])}" if accounts else ""
    facts = [("Newest day", str(newest))]
    facts += [("Rule", rule.name)] if rule and rule.id not in BUILT_IN else []
    facts.append(("What to do", "Look at the source and the collector: `spendscope status` and `spendscope doctor`."))
    return Notification(
        kind="data_stale",
        severity=rule.severity if rule else "critical",
        title=f"No new cost data{of}: the newest day is {newest}, {days} days ago",
        key=stale_key(newest, rule),
        occurred=now,
        facts=tuple(facts),
        link=public_url,
        accounts=accounts,
    )


def stale_key(newest: date, rule: Rule | None = None) -> str:
    return f"{stale_prefix(rule)}{newest}"


def stale_prefix(rule: Rule | None) -> str:
    """Of the keys of a rule's incidents, which end with a day."""
    return "data_stale/" if rule is None or rule.id in BUILT_IN else f"data_stale/{rule.id}/"


@dataclass(frozen=True)
class FoundAnomaly:
    """What the detector knows of one incident, in plain values.

    `id` is the incident's for as long as it lasts. `impact` is Σ(actual − expected) since `start`, in `currency`.
    `causes` are ranked words. `severity` is the detector's low, medium or high.
    """

    id: str
    kind: str
    severity: str
    day: date
    start: date
    expected: Decimal
    low: Decimal
    high: Decimal
    actual: Decimal
    impact: Decimal
    detected: datetime
    account: str | None = None
    service: str | None = None
    region: str | None = None
    causes: tuple[str, ...] = ()
    is_over: bool = False


WEIGHTS: Final[dict[str, Severity]] = {"low": "info", "medium": "warning", "high": "critical"}


def anomaly(found: FoundAnomaly, currency: str, public_url: str) -> Notification:
    """Told once while it lasts, and once more when it is over: an incident that goes on is no news."""
    names = [name for name in (found.account, found.service, found.region) if name]
    scope = " · ".join(names) or "Everything"
    verb = "costs more than expected" if found.actual >= found.expected else "costs less than expected"
    facts = [
        ("Day", str(found.day)),
        ("Actual", money(found.actual, currency)),
        (
            "Expected",
            f"{money(found.expected, currency)} ({money(found.low, currency)} to {money(found.high, currency)})",
        ),
        ("So far", f"{change(Move(Decimal(0), found.impact), currency)} since {found.start}"),
        *((f"Cause {number}", cause) for number, cause in enumerate(found.causes[:NAMED], start=1)),
    ]
    days = DateRange(found.start - timedelta(days=14), found.day + timedelta(days=1))
    return Notification(
        kind="anomaly",
        severity=WEIGHTS.get(found.severity, "warning"),
        title=f"{scope} {verb} ({found.kind})",
        key=f"anomaly/{found.id}" + (RESOLVED if found.is_over else ""),
        occurred=found.detected,
        facts=tuple(facts),
        link=page(public_url, days, [found.account] if found.account else []),
        accounts=(found.account,) if found.account else (),
        resolved=found.is_over,
    )


# --- rules on spend and on budgets ------------------------------------------------------------------------------------

_AGAINST: Final = {"previous": "the {per} before", "last_month": "the same {per} a month before"}


def rule_alert(record: AlertRecord, rule: Rule, currency: str, public_url: str) -> Notification:
    """One episode of a rule on spend or on a budget, in words; told once, and once more when it is over."""
    over = record.resolved is not None
    facts = [("Rule", record.name), ("Days", _days(record)), *_figures(record, rule, currency)]
    facts += [(part.capitalize(), _named(values)) for part, values in rule.scope.parts() if values]
    facts += [("Now", record.why)] if over and record.why else []
    return Notification(
        kind="budget" if record.kind == "budget_burn" else "spend",
        severity=record.severity,
        title=f"{record.name}: {_headline(record, rule, currency)}",
        key=f"rule/{record.id}" + (RESOLVED if over else ""),
        occurred=record.resolved if record.resolved else record.fired,
        facts=tuple(facts),
        link=f"{public_url.rstrip('/')}/budgets?{urlencode([('alert', record.id)])}",
        accounts=record.owners or record.accounts,
        resolved=over,
    )


def _days(record: AlertRecord) -> str:
    return str(record.start) if record.start == record.last else f"{record.start} to {record.last}"


def _named(values: Sequence[str]) -> str:
    left = len(values) - NAMED
    return ", ".join(values[:NAMED]) + (f" and {left} more" if left > 0 else "")


def _headline(record: AlertRecord, rule: Rule, currency: str) -> str:
    if record.undone:
        return "it is not so any more"
    if record.kind == "budget_burn":
        of, _, threshold = record.part.partition(" ")
        percent = record.percent
        verb = "is expected to be used" if of == "forecast" else "is used"
        return f"{percent:.1f} % of the budget {verb} (threshold {threshold} %)"
    if record.kind == "change":
        return change(Move(record.limit, record.value), currency)
    return f"{money(record.value, currency)} in a {rule.per}, above {money(record.limit, currency)}"


def _figures(record: AlertRecord, rule: Rule, currency: str) -> list[tuple[str, str]]:
    if record.kind == "budget_burn":
        spent = "Expected" if record.part.startswith("forecast") else "Spent"
        return [(spent, money(record.value, currency)), ("Budget", money(record.limit, currency))]
    if record.kind == "change":
        before = _AGAINST[rule.against or "previous"].format(per=rule.per)
        return [("Spend", money(record.value, currency)), (before.capitalize(), money(record.limit, currency))]
    return [("Spend", money(record.value, currency)), ("Limit", f"{money(record.limit, currency)} a {rule.per}")]


# --- the week ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Mover:
    name: str
    move: Move


@dataclass(frozen=True)
class Week:
    """Figures of a week (Monday to Sunday) and of the one before; None where a figure is not known."""

    days: DateRange
    total: Decimal | None
    before: Decimal | None
    movers: tuple[Mover, ...]
    unsettled: int
    missing: int
    accounts: tuple[str, ...] = ()
    anomalies: int | None = None


def last_week(now: datetime) -> DateRange | None:
    """The week that a summary is due for; None on Monday before its hour."""
    today = now.astimezone(UTC).date()
    monday = today - timedelta(days=today.weekday())
    if now < datetime.combine(monday, time(WEEKLY_HOUR), UTC):
        return None
    return DateRange(monday - timedelta(days=7), monday)


def weekly(week: Week, currency: str, public_url: str) -> Notification:
    """Told once for each week and set of accounts."""
    move = move_of(week.before, week.total)
    chosen = ", ".join(week.accounts[:NAMED]) or "all accounts"
    facts = [
        ("Week", f"{week.days.start} to {week.days.last}"),
        ("Accounts", chosen + (f" and {len(week.accounts) - NAMED} more" if len(week.accounts) > NAMED else "")),
        ("Total", money(week.total, currency)),
        ("Week before", money(week.before, currency)),
        ("Change", change(move, currency)),
        *((f"Mover: {mover.name}", change(mover.move, currency)) for mover in week.movers[:NAMED]),
    ]
    if week.anomalies is not None:
        facts.append(("Open anomalies", str(week.anomalies)))
    if week.unsettled or week.missing:
        facts.append(("Not final", f"{week.unsettled} days are still settling, {week.missing} are missing"))
    set_of = hashlib.sha256("\0".join(week.accounts).encode("utf-8", "surrogatepass")).hexdigest()[:16]
    return Notification(
        kind="weekly",
        severity="info",
        title=f"Week of {week.days.start}: {money(week.total, currency)}, {change(move, currency)}",
        key=f"weekly/{week.days.start}/{set_of}",
        occurred=datetime.combine(week.days.end, time(WEEKLY_HOUR), UTC),
        facts=tuple(facts),
        link=page(public_url, week.days, week.accounts),
        accounts=week.accounts,
    )
