"""What is worth telling, looked up in the records: whatever was recorded is told, however often anybody died meanwhile.

Looking again finds the same events with the same keys, and those are one delivery a channel (app.notifications).
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from typing import Final

from app.backends import Backends
from app.budgets import rules_of
from app.core.access import seen_anomaly
from app.core.alerts import (
    FoundAnomaly,
    Mover,
    Week,
    anomaly,
    data_stale,
    last_week,
    noticed,
    quarantined,
    rule_alert,
    stale_prefix,
    weekly,
)
from app.core.anomalyrecords import UNSETTLED_STATES
from app.core.messages import resolution
from app.core.notifications import Notification
from app.core.periods import EARLIEST, LATEST, DateRange
from app.core.query import CostQuery
from app.core.restatements import Move
from app.core.rules import AlertRecord, Rule, stale_finding
from app.costs import Ledgers, Snapshot, ledgers_of, snapshot
from app.notifications import met, notify

log = logging.getLogger(__name__)

LOOK_BACK: Final = timedelta(days=3)
"""What is older than this when it is first looked at is no news any more."""

PAGE: Final = 200
MOST_PAGES: Final = 50
WEEK: Final = timedelta(days=7)


def tell_what_happened(backends: Backends) -> int:
    """Record a notification of everything that happened lately; how many deliveries are new."""
    if not backends.channels:
        return 0
    seen = [met(backends, name).since or backends.clock() for name in backends.channels]
    since = max(min(seen), backends.clock() - LOOK_BACK)
    rules = [rule for rule in rules_of(backends) if rule.on]
    found = [*_quarantined(backends, since, rules), *_noticed(backends, since)]
    told = notify(backends, found) + sum(_told_stale(backends, rule) for rule in rules if rule.kind == "data_stale")
    return told + _weekly(backends)


def tell_anomalies(backends: Backends, found: list[FoundAnomaly]) -> int:
    """Record notifications of what the detector found: each once while it lasts, and once when it is over."""
    settings = backends.settings
    return notify(backends, [anomaly(one, settings.currency, settings.public_url) for one in found])


def tell_alerts(backends: Backends, alerts: list[tuple[AlertRecord, Rule]]) -> int:
    """Record notifications of alerts of rules on spend and on budgets: each once, and once when it is over.

    A channel that is for some accounts is told of what is wholly about them: the figure of a wider scope is not theirs.
    """
    told, settings = 0, backends.settings
    for record, rule in alerts:
        told += notify(
            _seeing(backends, record.accounts), [rule_alert(record, rule, settings.currency, settings.public_url)]
        )
    return told


def _seeing(backends: Backends, accounts: tuple[str, ...]) -> Backends:
    """With the channels that are for all accounts, or for all of these."""
    seeing = {
        name: one
        for name, one in backends.channels.items()
        if not one.accounts or (accounts and set(accounts) <= set(one.accounts))
    }
    return replace(backends, channels=seeing)


def _quarantined(backends: Backends, since: datetime, rules: list[Rule]) -> Iterator[Notification]:
    asked = next((rule for rule in rules if rule.kind == "source_quarantined"), None)
    if asked is None:
        return
    cursor = None
    for _ in range(MOST_PAGES):
        listed = backends.metadata.ingestions(limit=PAGE, cursor=cursor, status="quarantined")
        for one in listed.items:
            if one.started < since:
                return
            if one.source == backends.source.root:
                yield quarantined(one, backends.settings.public_url, asked.severity)
        if (cursor := listed.next_cursor) is None:
            return


def _noticed(backends: Backends, since: datetime) -> Iterator[Notification]:
    cursor, settings = None, backends.settings
    for _ in range(MOST_PAGES):
        listed = backends.metadata.notices(limit=PAGE, cursor=cursor)
        for one in listed.items:
            if one.at < since:
                return
            yield noticed(one, settings.currency, settings.public_url)
        if (cursor := listed.next_cursor) is None:
            return


def newest_day(ledgers: Ledgers, rule: Rule) -> date | None:
    """The newest day with figures of the rule's accounts (of any, where it names none)."""
    wanted = set(rule.scope.account)
    return max(
        (
            day
            for day, found in ledgers.days.items()
            if found.accounts and (not wanted or wanted & found.accounts.keys())
        ),
        default=None,
    )


def _told_stale(backends: Backends, rule: Rule) -> int:
    return notify(backends, _stale(backends, rule))


def _stale(backends: Backends, rule: Rule) -> Iterator[Notification]:
    """One incident while no newer day comes; when one has, that it is over is told where the incident was."""
    newest, now = newest_day(ledgers_of(backends), rule), backends.clock()
    if newest is None:
        return
    current = data_stale(newest, now, backends.settings.public_url, rule)
    if stale_finding(rule, newest, now) is not None:
        yield current
    prefix = stale_prefix(rule)
    for delivery in backends.metadata.deliveries(limit=PAGE).items:
        told = delivery.notification
        # Keys end with a day: the prefix of one rule is none of another's.
        ours = told.kind == "data_stale" and told.key.startswith(prefix) and len(told.key) == len(current.key)
        if ours and not told.resolved and told.key < current.key and delivery.status == "sent":
            yield resolution(told, now)


# --- the week ---------------------------------------------------------------------------------------------------------


def _weekly(backends: Backends) -> int:
    """One summary a set of accounts and week, to the channels of that set. The slot is taken after it is recorded: it
    only spares asking for the figures again."""
    days, settings = last_week(backends.clock()), backends.settings
    if days is None:
        return 0
    moment, told = datetime.combine(days.end, time(), UTC), 0
    for accounts in sorted({one.accounts for one in backends.channels.values() if "weekly" in one.kinds}):
        slot = f"weekly summary of {','.join(accounts)}"[:200]
        last = backends.metadata.last_slot(slot)
        if last is not None and last >= moment:
            continue
        # Only now: a scheduler has no use for the read model otherwise.
        week = week_of(snapshot(backends), days, accounts)
        if week.total is None:
            continue
        week = replace(week, anomalies=open_anomalies(backends, accounts))
        told += notify(_only(backends, accounts), [weekly(week, settings.currency, settings.public_url)])
        backends.metadata.take_slot(slot, moment)
    return told


def _only(backends: Backends, accounts: tuple[str, ...]) -> Backends:
    return replace(backends, channels={n: one for n, one in backends.channels.items() if one.accounts == accounts})


def open_anomalies(backends: Backends, accounts: tuple[str, ...]) -> int | None:
    """How many are open now, of those that somebody sees who sees these accounts (none: all); None while nobody looked."""
    jobs = backends.metadata.jobs(limit=PAGE, kind="detect").items
    if not any(job.status.startswith("done") and not job.params.get("backtest") for job in jobs):
        return None
    records = backends.metadata.anomalies(EARLIEST, LATEST)
    shown = [seen_anomaly(one, frozenset(accounts)) for one in records] if accounts else records
    return sum(one is not None and one.state in UNSETTLED_STATES for one in shown)


def week_of(figures: Snapshot, days: DateRange, accounts: tuple[str, ...]) -> Week:
    """Figures of a week and the one before for a set of accounts (none: all), and the services that moved most."""
    filters = (("account", tuple(sorted(accounts))),) if accounts else ()
    asked = CostQuery(days, granularity="total", filters=filters)
    before = asked.over(DateRange(days.start - WEEK, days.start))
    now_answer, before_answer = figures.ask(asked), figures.ask(before)
    return Week(
        days=days,
        total=now_answer.total,
        before=before_answer.total,
        movers=_movers(figures, asked, before),
        unsettled=len(now_answer.freshness.settling),
        missing=len(now_answer.freshness.missing),
        accounts=accounts,
    )


def _movers(figures: Snapshot, asked: CostQuery, before: CostQuery) -> tuple[Mover, ...]:
    now_costs, costs_before = (_by_service(figures, query) for query in (asked, before))
    if not now_costs or not costs_before:
        return ()
    nothing = Decimal(0)
    moves = {
        name: Move(costs_before.get(name, nothing), now_costs.get(name, nothing))
        for name in sorted({*now_costs, *costs_before})
    }
    ranked = sorted(moves.items(), key=lambda part: -abs(part[1].amount))
    return tuple(Mover(name, move) for name, move in ranked if move.amount)[:10]


def _by_service(figures: Snapshot, query: CostQuery) -> dict[str, Decimal]:
    frame = figures.ask(query.grouped("service")).frame
    pairs = zip(frame.groups, frame.group_totals, strict=True)
    return {group[0]: total for group, total in pairs if total is not None}
