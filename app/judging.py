"""Looking whether rules hold, keeping what they found as alerts, and saying what they would have found.

A look may be repeated, stopped anywhere and run twice at once: each alert is one compare-and-set, and the outbox knows
what was told. Rules on stale data and refused files are told by app.alerts as soon as it happens; here they are kept.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from functools import partial
from typing import Final

from app.alerts import LOOK_BACK, newest_day, tell_alerts
from app.backends import Backends
from app.budgets import arrived_of, figures_of, rules_of, spend_of
from app.core.alerts import bytes_of
from app.core.budgets import Budget
from app.core.jobs import Job
from app.core.ledger import Ingestion
from app.core.periods import DAY, EARLIEST, LATEST, DateRange
from app.core.projection import NotProjected, Projection, project
from app.core.rules import (
    LONGEST_WINDOW,
    AlertRecord,
    Facts,
    Finding,
    Judgement,
    Rule,
    brought_up_to_date,
    ended_with_rule,
    findings,
    reach_of,
    replayed,
    stale_finding,
    window_of,
)
from app.core.spend import Spend, SpendScope
from app.costs import Ledgers, Snapshot, snapshot
from app.errors import Conflict
from app.jobs import submit

log = logging.getLogger(__name__)

KIND: Final = "judge"
WAITED_FOR: Final = ("ingest", KIND)
"""Jobs that are to end before rules are judged."""
ATTEMPTS: Final = 5
PAGE: Final = 200
MOST_PAGES: Final = 50
COUNTED_DAYS: Final = 365
BY_SPEND: Final = ("threshold", "change", "budget_burn")
KEPT: Final = timedelta(days=800)
"""How long alerts that are over stay listed."""


@dataclass(frozen=True)
class Judged:
    """What a look did: how many rules it judged, how many alerts are new and over, how many are open now."""

    rules: int
    new: int
    over: int
    open: int

    @property
    def sentence(self) -> str:
        return f"{self.rules} rules: {self.new} new alerts, {self.over} over, {self.open} open."


# --- looking ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Look:
    """One look at the figures of one moment; what a scope costs is asked once."""

    backends: Backends
    figures: Snapshot
    at: datetime
    today: date
    budgets: dict[str, Budget]
    memo: dict[tuple[SpendScope, str, int], Spend] = field(default_factory=dict)

    def spend(self, scope: SpendScope, metric: str, reach: int) -> Spend:
        key = scope, metric, reach
        if key not in self.memo:
            days = DateRange(self.today - reach * DAY, self.today + DAY)
            self.memo[key] = spend_of(self.figures, scope, metric, days)
        return self.memo[key]


def judge(backends: Backends) -> Judged:
    """Look at every rule that is on, keep what changed and tell it. Raises Unavailable, Conflict."""
    rules = [rule for rule in rules_of(backends) if rule.on]
    budgets = {budget.id: budget for budget in backends.metadata.budgets()}
    look = _Look(backends, snapshot(backends), backends.clock(), backends.today(), budgets)
    new = over = 0
    told: list[tuple[AlertRecord, Rule]] = []
    for rule in rules:
        changed, there = _judged(look, rule)
        new += sum(one.revision == 1 for one in changed)
        over += sum(one.resolved == look.at for one in changed)
        told += [
            (one, rule) for one in there if rule.kind in BY_SPEND for one in _moments(one) if _is_news(one, look.at)
        ]
    over += _end_of_gone(look, rules)
    tell_alerts(backends, told)
    return Judged(len(rules), new, over, len(_open(backends)))


def _moments(record: AlertRecord) -> Iterator[AlertRecord]:
    """When it fired, and when it was over: two messages, of which a crash loses neither."""
    yield replace(record, resolved=None, undone=False, why=None)
    if record.resolved is not None:
        yield record


def _is_news(record: AlertRecord, now: datetime) -> bool:
    return now - (record.resolved or record.fired) <= LOOK_BACK


def _judged(look: _Look, rule: Rule) -> tuple[list[AlertRecord], list[AlertRecord]]:
    """(what changed, all that is known now) of one rule; what somebody else changed meanwhile is read again."""
    budget = look.budgets.get(rule.budget or "")
    window = window_of(rule, look.today, budget)
    if rule.kind == "source_quarantined":
        window = DateRange(EARLIEST, LATEST)
    scope = budget.scope if budget else rule.scope
    judgement = Judgement(rule, look.at, window, scope.account, budget.owners if budget else ())
    found = _findings(look, rule, budget)
    changed: list[AlertRecord] = []
    for _ in range(ATTEMPTS):
        known = look.backends.metadata.alerts_of(rule.id, window.start)
        todo = brought_up_to_date(known, found, judgement)
        stored = [record for record in todo if look.backends.metadata.put_alert(record)]
        changed += stored
        if len(stored) == len(todo):
            now = {one.id: one for one in known} | {one.id: one for one in todo}
            return changed, list(now.values())
    raise Conflict("Alerts are being changed too fast by somebody else. Try again.")


def _findings(look: _Look, rule: Rule, budget: Budget | None) -> list[Finding]:
    if rule.kind == "data_stale":
        newest = newest_day(look.figures.ledgers, rule)
        found = stale_finding(rule, newest, look.at) if newest else None
        return [found] if found else []
    if rule.kind == "source_quarantined":
        return list(_refused(look.backends, rule))
    if rule.kind == "budget_burn":
        if budget is None:
            return []
        spend = look.spend(budget.scope, budget.metric, reach_of(budget))
        spent, projected = partial(_spent, look, budget), partial(_projected, look, budget)
        return findings(rule, Facts(look.today, spend, budget, spent, projected))
    return findings(rule, Facts(look.today, look.spend(rule.scope, rule.metric or "", LONGEST_WINDOW)))


def _projected(look: _Look, budget: Budget, days: DateRange) -> Projection | NotProjected:
    return figures_of(look.backends, budget, days.start).projection


def _spent(look: _Look, budget: Budget, days: DateRange) -> Decimal | None:
    """By the figures that pages and API show."""
    return figures_of(look.backends, budget, days.start).spent


def _refused(backends: Backends, rule: Rule) -> Iterator[Finding]:
    """Refused files that no later version has mended, since the rule was switched on."""
    since = datetime.combine(rule.since, time(), UTC) if rule.since else backends.clock() - LOOK_BACK
    for one in _quarantined_since(backends, min(since, backends.clock() - LOOK_BACK)):
        day = one.day or one.started.date()
        newest = next(iter(backends.metadata.versions_of(one.source, one.key)), None)
        if newest is not None and newest.id == one.id:
            yield Finding(bytes_of(one), day, day, Decimal(1), Decimal(0), ongoing=True, fires=one.started >= since)


def _quarantined_since(backends: Backends, since: datetime) -> Iterator[Ingestion]:
    cursor = None
    for _ in range(MOST_PAGES):
        listed = backends.metadata.ingestions(limit=PAGE, cursor=cursor, status="quarantined")
        for one in listed.items:
            if one.started < since:
                return
            yield one
        if (cursor := listed.next_cursor) is None:
            return


def _open(backends: Backends) -> list[AlertRecord]:
    found: list[AlertRecord] = []
    cursor = None
    for _ in range(MOST_PAGES):
        listed = backends.metadata.alerts(limit=PAGE, cursor=cursor, state="open")
        found += listed.items
        if (cursor := listed.next_cursor) is None:
            break
    return found


def _end_of_gone(look: _Look, on: list[Rule]) -> int:
    """End the open alerts of rules that are off or gone, and tell it; how many."""
    known = {rule.id for rule in on}
    every = {rule.id: rule for rule in rules_of(look.backends)}
    ended = [ended_with_rule(one, look.at) for one in _open(look.backends) if one.rule not in known]
    stored = [one for one in ended if look.backends.metadata.put_alert(one)]
    told = [(one, every.get(one.rule) or _as_it_was(one)) for one in stored if one.kind in BY_SPEND]
    tell_alerts(look.backends, told)
    return len(stored)


def _as_it_was(record: AlertRecord) -> Rule:
    """What an alert still says of a rule that is gone."""
    return Rule(record.rule, record.name, record.kind, record.fired, "", per="day", severity=record.severity)


# --- as a job -----------------------------------------------------------------------------------------------------


def judge_when_drained(backends: Backends, judged: tuple[int, datetime] | None = None) -> tuple[int, datetime] | None:
    """Submit a look once all that was to be ingested is: one for each version of the ledger, and one an hour.

    Takes and returns what was judged last: (version, hour). One scheduler submits it, however many ask.
    """
    version, hour = backends.metadata.ledger_version(), backends.clock().replace(minute=0, second=0, microsecond=0)
    if not version or judged == (version, hour):
        return judged
    if any(job.kind in WAITED_FOR for job in backends.metadata.unfinished()):
        return judged
    if backends.metadata.take_slot(f"rules of {version}", hour):
        submit_judge(backends)
    return version, hour


def submit_judge(backends: Backends) -> Job:
    """The same look while one is not done."""
    return submit(backends, KIND, {}, key=KIND)


# --- what a rule would have said ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Preview:
    """The alerts a rule would have raised on the mornings of `days`; `known` says what they were judged on."""

    days: DateRange | None
    alerts: list[AlertRecord]
    known: str

    @property
    def sentence(self) -> str:
        """`With these settings you would have had 4 alerts …`."""
        if self.days is None:
            return self.known
        number = len(self.alerts)
        counted = "no alert" if not number else "1 alert" if number == 1 else f"{number:,} alerts"
        since = (
            "in the last 12 months"
            if len(self.days) >= COUNTED_DAYS
            else f"since {self.days.start}, when history begins"
        )
        return f"With these settings you would have had {counted} {since}."


AS_STORED: Final = (
    "Each morning is judged with what had arrived by then: a day when it had ended, with the figures it was first reported "
    "with until it was settled."
)
NOTHING_KNOWN: Final = "Nothing is stored yet, so nothing can be said of the past."


def preview(backends: Backends, rule: Rule, budget: Budget | None = None) -> Preview:
    """What a checked rule would have said in the last 12 months of stored history; nothing is kept.

    `budget` is the one of a rule of kind budget_burn. Raises Unavailable.
    """
    figures, today = snapshot(backends), backends.today()
    if figures.known is None:
        return Preview(None, [], NOTHING_KNOWN)
    first = max(figures.known.start + DAY, today - (COUNTED_DAYS - 1) * DAY)
    days = DateRange(min(first, today), today + DAY)
    if rule.kind == "data_stale":
        return Preview(days, list(_stale_before(figures.ledgers, rule, days, backends.clock())), _OF_ARRIVALS)
    if rule.kind == "source_quarantined":
        since = datetime.combine(days.start, time(), UTC)
        found = [_as_alert(rule, one) for one in _quarantined_since(backends, since)]
        return Preview(days, sorted(found, key=lambda one: one.fired), _OF_FILES)
    scope, metric = (budget.scope, budget.metric) if budget else (rule.scope, rule.metric or "")
    reach = reach_of(budget)
    history = arrived_of(
        figures, scope, metric, DateRange(days.start - reach * DAY, today), backends.settings.settling_days
    )
    alerts = replayed(rule, history, days, budget, partial(project, banded=False))
    return Preview(days, alerts, AS_STORED)


_OF_ARRIVALS: Final = (
    "Judged by when each day was first reported; a day that came with a history counts as reported when it had ended."
)
_OF_FILES: Final = "Counted from the refused files of the ledger, each version once."


def _stale_before(ledgers: Ledgers, rule: Rule, days: DateRange, now: datetime) -> Iterator[AlertRecord]:
    """From each day's arrival to the next one's: an episode where that took longer than the rule's hours."""
    arrivals = sorted(_arrivals(ledgers, set(rule.scope.account)))
    newest: date | None = None
    for place, (_, day) in enumerate(arrivals):
        newest = day if newest is None else max(newest, day)
        until = arrivals[place + 1][0] if place + 1 < len(arrivals) else now
        fired = datetime.combine(newest + DAY, time(), UTC) + timedelta(hours=rule.hours or 0)
        is_next_newer = place + 1 == len(arrivals) or arrivals[place + 1][1] > newest
        if fired < until and is_next_newer and fired.date() in days:
            over = None if place + 1 == len(arrivals) else until
            yield AlertRecord(
                f"{newest}", rule.id, 1, rule.kind, rule.name, rule.severity, "", newest, newest,
                Decimal(int((until - fired) / timedelta(hours=1)) + (rule.hours or 0)), Decimal(rule.hours or 0),
                rule.scope.account, (), fired, over,
            )  # fmt: skip


def _arrivals(ledgers: Ledgers, accounts: set[str]) -> Iterator[tuple[datetime, date]]:
    """(when it was first reported, day). What had ended before anything was reported came with a history: when it would
    have arrived is not known, and it counts as on time."""
    reported = {
        day: min(
            found.first_reported[place] for name, place in found.accounts.items() if not accounts or name in accounts
        )
        for day, found in ledgers.days.items()
        if any(not accounts or name in accounts for name in found.accounts)
    }
    began = min(reported.values(), default=None)
    for day, first in reported.items():
        ended = datetime.combine(day + DAY, time(), UTC)
        yield (ended if began is None or ended <= began else max(first, ended)), day


def _as_alert(rule: Rule, one: Ingestion) -> AlertRecord:
    day = one.day or one.started.date()
    return AlertRecord(
        one.id, rule.id, 1, rule.kind, rule.name, rule.severity, one.key, day, day, Decimal(1), Decimal(0), (), (),
        one.started,
    )  # fmt: skip


def forget_alerts(backends: Backends) -> int:
    return backends.metadata.forget_alerts(fired_before=backends.clock() - KEPT)


def newest_look(backends: Backends) -> Job | None:
    """The newest finished look at the rules."""
    jobs = backends.metadata.jobs(limit=20, kind=KIND).items
    return next((job for job in jobs if job.finished and job.status.startswith("done")), None)
