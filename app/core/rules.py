"""Rules that people set up, and what becomes of what they find: one alert an episode, however often it is looked.

A rule says what is worth an alert; `findings` says where that holds in the figures as they stand; `brought_up_to_date`
makes records of it. A record knows all days its episode ever had, so that whatever restatements do to it meanwhile, the
same days are never told again. Amounts are exact.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from typing import Final, Literal

from app.core.budgets import CENT, MONTHS, Budget, Threshold, amount_from, name_from, percent_from, percent_of
from app.core.charges import COSTS, DEFAULT_METRIC
from app.core.exact import EXACT
from app.core.notifications import SEVERITIES, Severity
from app.core.periods import DAY, DateRange
from app.core.projection import NotProjected, Projection
from app.core.query import choice
from app.core.spend import EVERYTHING, PERS, Arrived, Per, Spend, SpendScope, a_month_before, period_of, periods_back
from app.errors import InvalidInput

Day = date
RuleKind = Literal["threshold", "change", "budget_burn", "data_stale", "source_quarantined"]
RULE_KINDS: Final[tuple[RuleKind, ...]] = ("threshold", "change", "budget_burn", "data_stale", "source_quarantined")
SPEND_KINDS: Final = ("threshold", "change")
Against = Literal["previous", "last_month"]
AGAINST: Final[tuple[Against, ...]] = ("previous", "last_month")
Direction = Literal["up", "down", "both"]
DIRECTIONS: Final[tuple[Direction, ...]] = ("up", "down", "both")

BUILT_IN: Final = ("data-stale", "source-quarantined")
"""Ids of the rules that are there from the start; they can be changed and switched off, not removed."""

WINDOW: Final[Mapping[Per, int]] = {"day": 35, "week": 5, "month": 2}
"""Periods that are judged each time: a restated one may still cross a limit, or come back below it."""
LONGEST_WINDOW: Final = 120
"""Days of history that hold every window and what its periods are compared with."""
LIKE_FOR_LIKE_DAYS: Final = 7
"""Complete days of a month from which on it is compared with the same days of the month before."""
NEWS_FOR: Final = timedelta(days=3)
"""How long after a day a change on it is an open alert."""
MOST_HOURS: Final = 24 * 60


@dataclass(frozen=True)
class Rule:
    """What is worth an alert. Members that a kind does not use are None (`kind` → members: `_USES`).

    `per`, `amount`: spend in a day, week or month above an amount; with `percent`, `against` and `direction`: a change by
    at least both. `budget` is a budget's id. `hours` since the newest day ended. What it asks changes its `edition`: alerts of an
    earlier one are over. Periods that ended before `since` are never told. `revision` is the compare-and-set token.
    """

    id: str
    name: str
    kind: RuleKind
    at: datetime
    by: str
    on: bool = False
    severity: Severity = "warning"
    scope: SpendScope = EVERYTHING
    metric: str | None = None
    per: Per | None = None
    amount: Decimal | None = None
    percent: Decimal | None = None
    against: Against | None = None
    direction: Direction | None = None
    budget: str | None = None
    hours: int | None = None
    since: date | None = None
    edition: int = 1
    revision: int = 1

    def asks(self) -> tuple[object, ...]:
        """All that its findings depend on."""
        return (
            self.kind, self.scope, self.metric, self.per, self.amount, self.percent, self.against, self.direction,
            self.budget, self.hours,
        )  # fmt: skip


_USES: Final[Mapping[RuleKind, frozenset[str]]] = {
    "threshold": frozenset({"metric", "per", "amount"}),
    "change": frozenset({"metric", "per", "amount", "percent", "against", "direction"}),
    "budget_burn": frozenset({"budget"}),
    "data_stale": frozenset({"hours"}),
    "source_quarantined": frozenset(),
}
_DEFAULTS: Final[Mapping[str, str]] = {
    "metric": DEFAULT_METRIC,
    "per": "day",
    "against": "previous",
    "direction": "up",
}


def with_defaults(rule: Rule) -> Rule:
    """The rule with what its kind uses and nobody said."""
    missing = {name: _DEFAULTS[name] for name in _USES[rule.kind] & _DEFAULTS.keys() if getattr(rule, name) is None}
    return replace(rule, **missing)  # type: ignore[arg-type]


def checked_rule(rule: Rule) -> Rule:
    """With defaults. Raises InvalidInput naming the member, its value and the way out."""
    name_from(rule.name)
    choice("kind", rule.kind, RULE_KINDS)
    choice("severity", rule.severity, SEVERITIES)
    rule = with_defaults(rule)
    for name in ("metric", "per", "amount", "percent", "against", "direction", "budget", "hours"):
        used, value = name in _USES[rule.kind], getattr(rule, name)
        if used and value is None:
            raise InvalidInput(f"{name} is missing: a rule of kind {rule.kind} needs it.", field=name)
        if not used and value is not None:
            raise InvalidInput(f"{name} does not go with a rule of kind {rule.kind}. Leave it out.", field=name)
        if value is not None and name in _CHECKS:
            _CHECKS[name](value)
    if rule.kind in ("budget_burn", "source_quarantined") and rule.scope != EVERYTHING:
        whose = "its budget's" if rule.kind == "budget_burn" else "all that is ingested: a refused file is nobody's yet"
        raise InvalidInput(f"scope does not go with a rule of kind {rule.kind}: it is {whose}.", field="scope")
    if rule.kind == "data_stale" and (rule.scope.service or rule.scope.region):
        raise InvalidInput("scope of a rule of kind data_stale has accounts only: days come by account.", field="scope")
    return rule


def _hours(value: int) -> None:
    if not 1 <= value <= MOST_HOURS:
        raise InvalidInput(f"hours {value} is not a whole number from 1 to {MOST_HOURS}.", field="hours")


_CHECKS: Final[Mapping[str, Callable[..., object]]] = {
    "metric": lambda value: choice("metric", value, COSTS),
    "per": lambda value: choice("per", value, PERS),
    "against": lambda value: choice("against", value, AGAINST),
    "direction": lambda value: choice("direction", value, DIRECTIONS),
    "amount": lambda value: amount_from("amount", value, least=CENT),
    "percent": lambda value: percent_from("percent", value),
    "hours": _hours,
}


# --- where a rule holds -------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Finding:
    """A rule holds from `start` to `last`, both included. `part` tells its episodes apart beside their days.

    `value` against `limit`: spend and the rule's amount; spend and what it was before; spend (or what it will be) and
    the budget; hours. `fires` False: it keeps an alert there is, and is no news by itself.
    """

    part: str
    start: Day
    last: Day
    value: Decimal
    limit: Decimal
    ongoing: bool
    fires: bool = True


@dataclass(frozen=True)
class Facts:
    """What is known on `today`. `projected` is asked only where a rule needs it; `spent` says what a budget's period
    cost where that is known better than by its days (usage that is kept by month only)."""

    today: Day
    spend: Spend
    budget: Budget | None = None
    spent: Callable[[DateRange], Decimal | None] | None = None
    projected: Callable[[DateRange], Projection | NotProjected] | None = None


def findings(rule: Rule, facts: Facts) -> list[Finding]:
    """Where a rule on spend or on a budget holds in the figures, oldest first."""
    found = list(_SEARCHES[rule.kind](rule, facts)) if rule.kind in _SEARCHES else []
    since = rule.since
    return found if since is None else [one if one.last + DAY >= since else replace(one, fires=False) for one in found]


def _beyond(rule: Rule, facts: Facts) -> Iterator[Finding]:
    assert rule.per is not None
    assert rule.amount is not None
    if rule.per == "day":
        yield from _runs(facts.spend, periods_back(facts.today, "day", WINDOW["day"]), rule.amount)
        return
    for days in periods_back(facts.today, rule.per, WINDOW[rule.per]):
        total = facts.spend.over(days).total
        if total is not None and total > rule.amount:
            yield Finding("", days.start, days.last, total, rule.amount, facts.today < days.end)


def _runs(spend: Spend, days: Sequence[DateRange], amount: Decimal) -> Iterator[Finding]:
    """Days in a row above the amount are one episode. Only a complete day that is not above it ends one."""
    run: Finding | None = None
    for one in days:
        day, value = one.start, spend.amount(one.start)
        if value is not None and value > amount:
            start = run.start if run else day
            run = Finding("", start, day, max(value, run.value) if run else value, amount, ongoing=True)
        elif run is not None and spend.is_complete(day):
            yield replace(run, ongoing=False)
            run = None
    if run is not None:
        yield run


def _changes(rule: Rule, facts: Facts) -> Iterator[Finding]:
    assert rule.per is not None
    for days in periods_back(facts.today, rule.per, WINDOW[rule.per]):
        compared = _compared(rule, days, facts.spend)
        if compared is None:
            continue
        now, before, is_whole = compared
        if _is_change(rule, now, before, is_whole):
            news_until = days.end + NEWS_FOR if rule.per == "day" else days.end
            yield Finding("", days.start, days.last, now, before, facts.today < news_until)


def _compared(rule: Rule, days: DateRange, spend: Spend) -> tuple[Decimal, Decimal, bool] | None:
    """(now, before, whether `now` is final); None while they cannot be compared: what it was before must be known."""
    if rule.against == "last_month" and rule.per == "month" and not spend.covers(days):
        whole = [day for day in days if spend.is_complete(day)]
        # The same days of both months, up to the first that is not complete.
        if len(whole) < LIKE_FOR_LIKE_DAYS or whole[-1] != days.start + (len(whole) - 1) * DAY:
            return None
        days = DateRange(days.start, whole[-1] + DAY)
        first = a_month_before(days.start)
        before = DateRange(first, min(first + len(days) * DAY, days.start))
        if len(before) < len(days):
            return None
    else:
        before = _before(rule, days)
    if not spend.covers(before):
        return None
    now, then = spend.over(days), spend.over(before)
    return None if now.total is None or then.total is None else (now.total, then.total, spend.covers(days))


def _before(rule: Rule, days: DateRange) -> DateRange:
    assert rule.per is not None
    if rule.against == "previous" or rule.per == "month":
        return period_of(days.start - DAY, rule.per)
    if rule.per == "week":
        return DateRange(days.start - 28 * DAY, days.end - 28 * DAY)
    return period_of(a_month_before(days.start), "day")


def _is_change(rule: Rule, now: Decimal, before: Decimal, is_whole: bool) -> bool:
    """By at least the percentage and the amount. What may still grow is never a fall."""
    assert rule.amount is not None
    assert rule.percent is not None
    moved = EXACT.subtract(now, before)
    if moved < 0 and (rule.direction == "up" or not is_whole):
        return False
    if moved >= 0 and rule.direction == "down":
        return False
    return abs(moved) >= rule.amount and abs(moved) * 100 >= rule.percent * abs(before)


def _burns(rule: Rule, facts: Facts) -> Iterator[Finding]:  # noqa: ARG001
    budget = facts.budget
    if budget is None:
        return
    current = budget.current(facts.today - DAY)
    for days in (budget.current(current.start - DAY), current):
        spent = facts.spent(days) if facts.spent else facts.spend.over(days).total
        # Of a present period that began before its history, what is known is the least it can be.
        if spent is None or (days != current and days.start < facts.spend.start):
            continue
        ongoing, whole = facts.today < days.end, None
        for threshold in budget.thresholds:
            value = spent
            if threshold.of == "forecast" and ongoing:
                whole = whole or (facts.projected(days) if facts.projected else NotProjected(""))
                if isinstance(whole, NotProjected):
                    continue
                value = max(spent, whole.total)
            if value * 100 >= threshold.percent * budget.amount:
                fires = threshold.of == "actual" or ongoing
                yield Finding(part_of(threshold), days.start, days.last, value, budget.amount, ongoing, fires)


def part_of(threshold: Threshold) -> str:
    return f"{threshold.of} {threshold.percent.normalize():f}"


_SEARCHES: Final[Mapping[RuleKind, Callable[[Rule, Facts], Iterator[Finding]]]] = {
    "threshold": _beyond,
    "change": _changes,
    "budget_burn": _burns,
}


def stale_finding(rule: Rule, newest: Day, now: datetime) -> Finding | None:
    """No day newer than `newest` has come for the rule's hours since it ended: one episode until one does."""
    assert rule.hours is not None
    age = now - datetime.combine(newest + DAY, time(), UTC)
    if age < timedelta(hours=rule.hours):
        return None
    return Finding("", newest, newest, Decimal(int(age / timedelta(hours=1))), Decimal(rule.hours), ongoing=True)


# --- alerts as they are kept --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class AlertRecord:
    """One episode of one edition of a rule. `start` to `last`: every day it ever had. `accounts`: those of its scope;
    none: it is about all.

    `resolved` is when it was over, `why` in what way; `undone`: later figures took it away.
    """

    id: str
    rule: str
    edition: int
    kind: RuleKind
    name: str
    severity: Severity
    part: str
    start: Day
    last: Day
    value: Decimal
    limit: Decimal
    accounts: tuple[str, ...]
    owners: tuple[str, ...]
    fired: datetime
    resolved: datetime | None = None
    undone: bool = False
    why: str | None = None
    revision: int = 1

    @property
    def state(self) -> str:
        return "open" if self.resolved is None else "undone" if self.undone else "resolved"

    @property
    def percent(self) -> Decimal | None:
        """Value of limit; None where there is no limit to speak of."""
        return percent_of(self.value, self.limit) if self.limit else None

    def overlaps(self, found: Finding) -> bool:
        return self.part == found.part and self.start <= found.last and found.start <= self.last


ALERT_STATES: Final = ("open", "resolved", "undone")
OVER: Final = "It is over."
PERIOD_ENDED: Final = "Its period has ended."
TAKEN_AWAY: Final = "Later figures, or another budget, took it away."
JOINED: Final = "It became one with an earlier alert."
BELOW_AGAIN: Final = "What is expected is below it again."
RULE_CHANGED: Final = "The rule was changed, switched off or removed."


@dataclass(frozen=True)
class Judgement:
    """A look at a rule at `at`, for periods that lie in `window`; `accounts` and `owners` as alerts have them."""

    rule: Rule
    at: datetime
    window: DateRange
    accounts: tuple[str, ...] = ()
    owners: tuple[str, ...] = ()


def brought_up_to_date(
    known: Sequence[AlertRecord], found: Sequence[Finding], judgement: Judgement
) -> list[AlertRecord]:
    """The records that are new (revision 1) or changed. The same figures again change nothing."""
    rule = judgement.rule
    mine = {one.id: one for one in known if one.rule == rule.id and one.edition == rule.edition}
    after = dict(mine)
    seen: set[str] = set()
    for finding in sorted(found, key=lambda one: (one.part, one.start)):
        there = sorted((one for one in after.values() if one.overlaps(finding)), key=lambda one: (one.start, one.id))
        if there:
            first, *others = there
            after[first.id] = _continued(first, finding, judgement, again=first.id in seen)
            for other in others:
                after[other.id] = _ended(other, judgement, JOINED) if other.id not in seen else other
            seen.update(one.id for one in there)
        elif finding.fires and rule.on:
            made = _new(finding, judgement)
            after[made.id] = made
            seen.add(made.id)
    for one in mine.values():
        if one.id not in seen:
            after[one.id] = _without(one, judgement)
    return _changed(known, after.values()) + _of_before(known, judgement)


def _changed(known: Iterable[AlertRecord], after: Iterable[AlertRecord]) -> list[AlertRecord]:
    before = {one.id: one for one in known}
    found = []
    for one in after:
        there = before.get(one.id)
        if there is None:
            found.append(one)
        elif one != there:
            found.append(replace(one, revision=there.revision + 1))
    return found


def _new(finding: Finding, judgement: Judgement) -> AlertRecord:
    rule = judgement.rule
    name = "\0".join([rule.id, str(rule.edition), finding.part, str(finding.start)])
    made = AlertRecord(
        id=hashlib.sha256(name.encode("utf-8", "surrogatepass")).hexdigest()[:16],
        rule=rule.id,
        edition=rule.edition,
        kind=rule.kind,
        name=rule.name,
        severity=rule.severity,
        part=finding.part,
        start=finding.start,
        last=finding.last,
        value=finding.value,
        limit=finding.limit,
        accounts=judgement.accounts,
        owners=judgement.owners,
        fired=judgement.at,
    )
    return made if finding.ongoing else _ended(made, judgement, _end_of(rule))


def _continued(record: AlertRecord, finding: Finding, judgement: Judgement, *, again: bool) -> AlertRecord:
    """`again`: another part of its days was found before in this look; the newest of them says how it stands."""
    start, last = min(record.start, finding.start), max(record.last, finding.last)
    found = replace(record, start=start, last=last, value=finding.value, limit=finding.limit)
    if again:
        found = replace(found, value=max(record.value, finding.value))
    if not finding.ongoing:
        return _ended(found, judgement, _end_of(judgement.rule)) if found.resolved is None or found.undone else found
    return replace(found, resolved=None, undone=False, why=None)


def _end_of(rule: Rule) -> str:
    return OVER if rule.kind == "threshold" and rule.per == "day" else PERIOD_ENDED


def _ended(record: AlertRecord, judgement: Judgement, why: str, *, undone: bool = False) -> AlertRecord:
    if record.resolved is not None and record.undone == undone:
        return record
    return replace(record, resolved=record.resolved or judgement.at, undone=undone, why=why)


def _without(record: AlertRecord, judgement: Judgement) -> AlertRecord:
    """One that the figures do not show any more."""
    if record.last < judgement.window.start or record.start < judgement.window.start:
        # Too long ago to be judged again.
        return _ended(record, judgement, OVER) if record.resolved is None else record
    if record.kind in ("data_stale", "source_quarantined"):
        return _ended(record, judgement, OVER) if record.resolved is None else record
    if record.part.startswith("forecast"):
        return _ended(record, judgement, BELOW_AGAIN) if record.resolved is None else record
    return _ended(record, judgement, TAKEN_AWAY, undone=True)


def _of_before(known: Iterable[AlertRecord], judgement: Judgement) -> list[AlertRecord]:
    """Open alerts of what the rule asked before."""
    rule = judgement.rule
    old = [one for one in known if one.rule == rule.id and one.edition != rule.edition and one.resolved is None]
    return [replace(_ended(one, judgement, RULE_CHANGED), revision=one.revision + 1) for one in old]


def ended_with_rule(record: AlertRecord, at: datetime) -> AlertRecord:
    """An open alert whose rule is off or gone."""
    return replace(record, resolved=at, why=RULE_CHANGED, revision=record.revision + 1)


def window_of(rule: Rule, today: Day, budget: Budget | None = None) -> DateRange:
    """The days that a look at a rule judges."""
    if rule.kind == "budget_burn" and budget is not None:
        current = budget.current(today - DAY)
        return DateRange(budget.current(current.start - DAY).start, current.end)
    periods = periods_back(today, rule.per or "day", WINDOW[rule.per or "day"])
    return DateRange(periods[0].start, periods[-1].end)


# --- what it would have said --------------------------------------------------------------------------------------


def replayed(
    rule: Rule,
    history: Arrived,
    days: DateRange,
    budget: Budget | None = None,
    project: Callable[[Spend, DateRange], Projection | NotProjected] | None = None,
) -> list[AlertRecord]:
    """The alerts a rule on spend or on a budget would have raised on the mornings of `days`, oldest first.

    Each morning is judged with what had arrived (core.spend.Arrived), by the same steps as in earnest. What held the
    morning before the first one was told before.
    """
    asked = replace(rule, on=True, since=days.start - DAY)
    reach = reach_of(budget)
    records: dict[str, AlertRecord] = {}
    for today in (days.start - DAY, *days):
        spend = history.as_of(today, reach)
        facts = Facts(today, spend, budget, projected=_projecting(spend, project))
        judgement = Judgement(asked, datetime.combine(today, time(), UTC), window_of(asked, today, budget))
        recent = [one for one in records.values() if one.resolved is None or one.last >= judgement.window.start]
        records |= {one.id: one for one in brought_up_to_date(recent, findings(asked, facts), judgement)}
    raised = [one for one in records.values() if one.fired.date() in days]
    return sorted(raised, key=lambda one: (one.fired, one.start, one.part))


LEARNED_DAYS: Final = 200
"""Days before a period that an unmeasured projection is made of."""


def reach_of(budget: Budget | None) -> int:
    """Days of history that hold every window, or this and the last period of a budget and what is learned from."""
    return LONGEST_WINDOW if budget is None else 2 * 31 * MONTHS[budget.period] + LEARNED_DAYS


def _projecting(
    spend: Spend, project: Callable[[Spend, DateRange], Projection | NotProjected] | None
) -> Callable[[DateRange], Projection | NotProjected] | None:
    return None if project is None else lambda days: project(spend, days)
