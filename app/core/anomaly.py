"""Anomalies worth waking for: an online detector over account × service × region and their sums.

Every day it sees what has arrived by then and nothing later. It estimates how complete the newest days are
(completeness), what each series should cost (baseline), how far the newest days are from it (residuals), which
series stand out and are worth it (suspects), where the incident really is (scopes) and whether it is already known
(incidents). One incident is one alert; while it goes on it is updated, not repeated.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import date
from typing import Any, Final, Literal

import numpy as np

from app.core.arrivals import AGES, Arrivals, Delivery
from app.core.baseline import LEVEL, WEEK, Baseline, fit
from app.core.completeness import Completeness, learn, outages
from app.core.incidents import Incidents
from app.core.residuals import ESTIMATED_AGES, LEAST_HISTORY, WINDOW, Recent, judge
from app.core.robust import Flags, Floats, Places
from app.core.scopes import Scope, explain, sums
from app.core.suspects import Kind, Materiality, Suspect, Thresholds, Watched, suspects

Severity = Literal["low", "medium", "high"]
State = Literal["open", "ongoing", "resolved"]
Day = date

MEDIUM_FROM, HIGH_FROM = 3.0, 10.0
"""Severity by impact, in multiples of the total that is worth an alert."""
BAND: Final = 3.0
"""Half width of the expected band, in standard deviations."""
LEADING: Final = 0.6
"""A series with this share of the dollars is the first root cause even of a wide incident."""
SHOWN_CAUSES: Final = 5
JOINS_WITHIN: Final = 6
"""A suspect that began together with an incident of the last days, in its scope, is part of it."""
BEGAN_TOGETHER: Final = 2
FIRST_DAYS: Final = 28
"""Nothing is judged before so many days have been seen."""
UNSETTLED: Final = 2
CENT: Final = 0.005
"""Less than this moves no dollars that are kept."""
DAILY_SHARE, TOTAL_SHARE = 0.002, 0.01
LEAST_DAILY, LEAST_TOTAL = 5.0, 25.0
"""Materiality when none is given: shares of a usual day of the whole organisation, and dollars at least."""


@dataclass(frozen=True)
class Contribution:
    """What one series adds to an anomaly's impact, in dollars."""

    scope: Scope
    impact: float


@dataclass(frozen=True)
class Anomaly:
    """One incident, dollars of amortized cost. `date` is the usage day it is about, with that day's figures as known.

    `expected` lies within the band `low` … `high`. `actual` is the estimate of the complete day while it is incomplete.
    `impact` is the sum of actual − expected from `start` to `date`. `contributions` and `root_causes` are ranked.
    """

    id: int
    scope: Scope
    kind: Kind
    start: Day
    date: Day
    detected_on: Day
    expected: float
    low: float
    high: float
    actual: float
    impact: float
    severity: Severity
    contributions: tuple[Contribution, ...] = ()
    root_causes: tuple[Scope, ...] = ()
    state: State = "open"


@dataclass
class Known:
    """An anomaly with what is needed to carry it on: its series, its places in time, dollars so far of each series.

    `about` is the place of `anomaly.date`. `members`, `days` and `counted` are the series and days in the dollars, and
    with what cost each was counted: what is known of it later is put in its place.
    """

    anomaly: Anomaly
    lead: int
    sign: int
    start: int
    found: int
    through: int
    impacts: dict[int, float] = field(default_factory=dict)
    about: int = 0
    members: Places = field(default_factory=lambda: np.zeros(0, np.int64))
    days: Places = field(default_factory=lambda: np.zeros(0, np.int64))
    counted: Floats = field(default_factory=lambda: np.zeros(0))

    def count(self, members: Sequence[int], day: int, cost: Floats) -> None:
        self.members = np.concatenate([self.members, np.asarray(members, np.int64)])
        self.days = np.concatenate([self.days, np.full(len(members), day, np.int64)])
        self.counted = np.concatenate([self.counted, cost])


@dataclass
class Conclusions:
    """All that a detector knows beside what has arrived: what goes on in each series, what it told, whose data is late."""

    incidents: Incidents = field(default_factory=Incidents)
    known: list[Known] = field(default_factory=list)
    silent_accounts: set[int] = field(default_factory=set)
    """Codes of accounts (Arrivals.name_of)."""


def severity_of(impact: float, materiality: Materiality) -> Severity:
    times = abs(impact) / max(materiality.total, 1e-9)
    return "high" if times >= HIGH_FROM else "medium" if times >= MEDIUM_FROM else "low"


def usual_materiality(arrivals: Arrivals) -> Materiality:
    """From the median day of the last month that has settled."""
    settled = arrivals.known[:, max(0, arrivals.days - FIRST_DAYS - UNSETTLED) : max(arrivals.days - UNSETTLED, 0)]
    day = float(np.median(settled.sum(0))) if settled.size else 0.0
    return Materiality(max(LEAST_DAILY, DAILY_SHARE * day), max(LEAST_TOTAL, TOTAL_SHARE * day))


class Detector:
    """Feed it deliveries in order; each returns the alerts of its day. `anomalies` holds all so far, as they stand.

    `min_daily` and `min_total` in dollars; None is derived from the organisation's size.
    """

    def __init__(
        self,
        *,
        min_daily: float | None = None,
        min_total: float | None = None,
        thresholds: Thresholds | None = None,
    ) -> None:
        self.arrivals = Arrivals()
        self._min = (min_daily, min_total)
        self._thresholds = thresholds or Thresholds()
        self.conclusions = Conclusions()

    @property
    def anomalies(self) -> list[Anomaly]:
        return [known.anomaly for known in self._known]

    @property
    def _incidents(self) -> Incidents:
        return self.conclusions.incidents

    @property
    def _known(self) -> list[Known]:
        return self.conclusions.known

    def resume(self, deliveries: Sequence[Delivery], conclusions: Conclusions) -> None:
        """Go on after deliveries that a detector with the same settings concluded this from; they are not judged again."""
        if deliveries:
            self.arrivals.make_room(len(deliveries[-1].keys), (deliveries[-1].day - deliveries[0].day).days + AGES)
        for delivery in deliveries:
            self.arrivals.deliver(delivery)
        self.conclusions = conclusions

    def deliver(self, delivery: Delivery) -> list[Anomaly]:
        """Take what arrived on a day and judge it."""
        arrivals = self.arrivals
        arrivals.deliver(delivery)
        self._incidents.make_room(len(arrivals.keys), arrivals.days)
        if arrivals.days < FIRST_DAYS or not arrivals.keys:
            return []
        completeness = learn(arrivals)
        silent = outages(arrivals, completeness)
        arrived = self._arrived(completeness, silent)
        baseline = self._baseline(arrived)
        notices = self._notices(silent, baseline)
        watched = self._watched(completeness, baseline, arrived)
        found = suspects(watched)
        found += sums(arrivals, watched, found)
        self._incidents.review(watched.recent, baseline, arrivals.days - 1)
        alerts = self._report(watched, found)
        self._carry_on(watched)
        return notices + alerts

    def _materiality(self) -> Materiality:
        usual = usual_materiality(self.arrivals)
        daily, total = self._min
        return Materiality(usual.daily if daily is None else daily, usual.total if total is None else total)

    def _arrived(self, completeness: Completeness, silent: set[tuple[int, int]]) -> Flags:
        """[series, day] of the last WINDOW days: whether the day's cost, or its absence, is known."""
        known = self.arrivals.known[:, -WINDOW:]
        arrived = np.ones(known.shape, np.bool_)
        for age in range(min(AGES, known.shape[1])):
            arrived[:, -1 - age] = completeness[age].arrives | (known[:, -1 - age] != 0)
        begin = self.arrivals.days - known.shape[1]
        for account, day in silent:
            arrived[self.arrivals.codes[0] == account, day - begin] = False
        return arrived

    def _baseline(self, arrived: Flags) -> Baseline:
        days = np.arange(self.arrivals.days - arrived.shape[1], self.arrivals.days)
        counted = arrived & ~self._incidents.flagged[:, days] & (days >= self._incidents.regime[:, None])
        counted[:, -(LEVEL[1] - 1) :] = False
        return fit(self.arrivals.known[:, days], days % WEEK, counted)

    def _watched(self, completeness: Completeness, baseline: Baseline, arrived: Flags) -> Watched:
        incidents, materiality = self._incidents, self._materiality()
        large = np.exp(np.nan_to_num(baseline.level, nan=-np.inf)) > 0.02 * materiality.daily
        recent = judge(self.arrivals, completeness, baseline, arrived, ~incidents.open & large)
        off, slow_off = incidents.remembered(recent)
        recent = replace(recent, off=off, slow_off=slow_off)
        silent = incidents.silent(recent, baseline)
        return Watched(
            recent,
            baseline,
            self.arrivals.known,
            materiality,
            self._thresholds,
            silent,
            incidents.open.copy(),
            incidents.last.copy(),
        )

    # --- alerts ---------------------------------------------------------------------------------------------------

    def _report(self, watched: Watched, found: Sequence[Suspect]) -> list[Anomaly]:
        """One alert for each incident that is new, the largest first; its series are then known."""
        by_series = {suspect.series: suspect for suspect in found}
        alone = {suspect.series for suspect in suspects_alone(found)}
        taken: set[int] = set()
        alerts: list[Anomaly] = []
        for suspect in sorted(found, key=lambda suspect: -abs(suspect.impact)):
            if suspect.series in taken:
                continue
            scope, members = explain(self.arrivals, watched, suspect)
            if suspect.summed and not scope.wide:
                continue
            members = [member for member in members if member not in taken]
            if scope.wide:
                members += self._others(scope, suspect, found, taken | set(members))
            taken.update(members)
            own = {member: by_series[member] for member in members if member in alone}
            joined = self._incident_of(suspect, scope)
            self._open(watched, suspect, members, own)
            if joined is None:
                alerts.append(self._alert(watched, suspect, scope, members, own))
            else:
                joined.impacts |= {member: 0.0 for member in members if member not in joined.impacts}
        return alerts

    def _others(self, scope: Scope, suspect: Suspect, found: Sequence[Suspect], taken: set[int]) -> list[int]:
        """Further suspects of the scope that began at about the same time."""
        return [
            other.series
            for other in found
            if other.series not in taken
            and other.sign == suspect.sign
            and abs(other.oldest - suspect.oldest) <= BEGAN_TOGETHER
            and (other.kind == "new_cost") == (suspect.kind == "new_cost")
            and scope.covers(self.arrivals.keys[other.series])
        ]

    def _open(self, watched: Watched, suspect: Suspect, members: Sequence[int], own: dict[int, Suspect]) -> None:
        today, recent = self.arrivals.days - 1, watched.recent
        for member in members:
            cost, expected = float(recent.cost[suspect.age, member]), float(recent.expected[suspect.age, member])
            if suspect.kind == "new_cost":
                size = cost
            elif member in own:
                size = own[member].size
            else:
                size = abs(float(np.log(max(0.02, cost / max(expected, 1e-9)))))
            self._incidents.begin(own.get(member, suspect), member, today, size)

    def _incident_of(self, suspect: Suspect, scope: Scope) -> Known | None:
        """The incident that this is a late part of: one of the last days, or one of the same wide scope that goes on."""
        today = self.arrivals.days - 1
        start = today - suspect.oldest
        for known in reversed(self._known):
            if scope.wide and known.anomaly.scope == scope and known.sign == suspect.sign and self._goes_on(known):
                return known
            if known.found < today - JOINS_WITHIN:
                continue
            if (
                known.found < today
                and known.sign == suspect.sign
                and self._belongs(known, suspect, abs(known.start - start))
            ):
                return known
        return None

    def _goes_on(self, known: Known) -> bool:
        return bool(self._incidents.open[list(known.impacts)].any())

    def _belongs(self, known: Known, suspect: Suspect, apart: int) -> bool:
        key, lead = self.arrivals.keys[suspect.series], self.arrivals.keys[known.lead]
        both_new = suspect.kind == known.anomaly.kind == "new_cost"
        if both_new != ("new_cost" in (suspect.kind, known.anomaly.kind)):
            return False
        if known.anomaly.scope.wide and apart <= BEGAN_TOGETHER and known.anomaly.scope.covers(key):
            return True
        if lead.account != key.account:
            return False
        return (lead.service == key.service and apart <= 1) or (
            both_new and lead.region == key.region and apart <= BEGAN_TOGETHER
        )

    def _alert(
        self, watched: Watched, suspect: Suspect, scope: Scope, members: Sequence[int], own: dict[int, Suspect]
    ) -> Anomaly:
        recent, age = watched.recent, suspect.age
        parts = {member: _part(recent, suspect, own.get(member), member) for member in members}
        excess, impact = (sum(part[n] for part in parts.values()) for n in (0, 1))
        actual = float(recent.cost[age, list(members)].sum())
        wide = BAND * float(np.sqrt(((recent.expected * recent.spread)[age, list(members)] ** 2).sum()))
        expected = actual - excess
        half = 0.0 if suspect.kind == "new_cost" else wide
        impacts = {member: part[1] for member, part in parts.items()}
        today, day = self.arrivals.days - 1, self.arrivals.day_at
        anomaly = Anomaly(
            id=len(self._known),
            scope=scope,
            kind=suspect.kind,
            start=day(today - suspect.oldest),
            date=day(today - age),
            detected_on=day(today),
            expected=expected,
            low=min(expected, max(expected - half, 0.0)),
            high=expected + half,
            actual=actual,
            impact=impact,
            severity=severity_of(impact, watched.materiality),
            contributions=self._ranked(impacts),
            root_causes=self._causes(scope, impacts),
        )
        about = today - age
        known = Known(anomaly, suspect.series, suspect.sign, today - suspect.oldest, today, about, impacts, about)
        for older in range(age, suspect.oldest + 1):
            there = [member for member in members if recent.known[older, member]]
            known.count(there, today - older, recent.cost[older, there])
        self._known.append(known)
        return anomaly

    def _ranked(self, impacts: dict[int, float]) -> tuple[Contribution, ...]:
        order = sorted(impacts, key=lambda series: -abs(impacts[series]))
        return tuple(Contribution(Scope.of(self.arrivals.keys[series]), impacts[series]) for series in order)

    def _causes(self, scope: Scope, impacts: dict[int, float]) -> tuple[Scope, ...]:
        ranked = self._ranked(impacts)[:SHOWN_CAUSES]
        leads = abs(ranked[0].impact) >= LEADING * abs(sum(impacts.values()))
        causes = [part.scope for part in ranked]
        return tuple(dict.fromkeys([causes[0], scope, *causes[1:]] if leads else [scope, *causes]))

    # --- what goes on ---------------------------------------------------------------------------------------------

    def _carry_on(self, watched: Watched) -> None:
        """Add what has arrived since to the anomalies that are not over, and correct the dollars of all for what was
        restated."""
        today = self.arrivals.days - 1
        for known in self._known:
            self._correct(watched, known)
            if known.anomaly.state == "resolved" or known.found == today or known.anomaly.kind == "data_outage":
                continue
            for day in range(max(known.through + 1, today - len(watched.recent.cost) + 1), today):
                self._add_day(watched, known, day, today - day)
            if not self._goes_on(known):
                known.anomaly = replace(known.anomaly, state="resolved")

    def _add_day(self, watched: Watched, known: Known, day: int, age: int) -> None:
        incidents, recent = self._incidents, watched.recent
        members = [
            member
            for member in known.impacts
            if incidents.open[member] and day <= incidents.last[member] and recent.known[age, member]
        ]
        known.through = day
        if not members:
            return
        actual, expected = recent.cost[age, members], self._first_expected(recent, age, members)
        for member, excess in zip(members, (actual - expected).tolist(), strict=True):
            known.impacts[member] += excess
        known.count(members, day, actual)
        known.about = day
        impact = sum(known.impacts.values())
        half = BAND * float(np.sqrt(((recent.expected * recent.spread)[age, members] ** 2).sum()))
        total = float(expected.sum())
        known.anomaly = replace(
            known.anomaly,
            date=self.arrivals.day_at(day),
            actual=float(actual.sum()),
            expected=total,
            low=max(total - half, 0.0),
            high=total + half,
            impact=impact,
            severity=severity_of(impact, watched.materiality),
            contributions=self._ranked(known.impacts),
            state="ongoing",
        )

    def _correct(self, watched: Watched, known: Known) -> None:
        """Put what is known now in place of what its days were counted with: estimates of incomplete days, and figures
        that were restated since. What was expected of them stays."""
        cost, recent = self.arrivals.known[known.members, known.days], watched.recent
        ages = self.arrivals.days - 1 - known.days
        young = np.flatnonzero(ages < len(recent.cost))
        arrived = np.ones(len(cost), np.bool_)
        arrived[young] = recent.known[ages[young], known.members[young]] & (ages[young] >= ESTIMATED_AGES)
        moved = np.where(arrived, cost - known.counted, 0.0)
        if not moved.any():
            return
        known.counted = known.counted + moved
        for member, dollars in zip(known.members.tolist(), moved.tolist(), strict=True):
            known.impacts[member] += dollars
        impact, anomaly = sum(known.impacts.values()), known.anomaly
        if abs(impact - anomaly.impact) < CENT and not moved[known.days == known.about].any():
            return
        known.anomaly = replace(
            anomaly,
            actual=anomaly.actual + float(moved[known.days == known.about].sum()),
            impact=impact,
            severity=severity_of(impact, watched.materiality),
            contributions=self._ranked(known.impacts),
        )

    def _first_expected(self, recent: Recent, age: int, members: Sequence[int]) -> Floats:
        """What was expected before the incident, also after its level was adopted."""
        incidents = self._incidents
        moved = np.where(incidents.adopted, incidents.former - recent.level, 0)[list(members)]
        expected: Floats = recent.expected[age, list(members)] * np.exp(moved)
        return np.where(incidents.fresh[list(members)], 0, expected)

    # --- data that is late ----------------------------------------------------------------------------------------

    def _notices(self, silent: set[tuple[int, int]], baseline: Baseline) -> list[Anomaly]:
        """One notice when an account's data stops arriving; nothing of it is judged meanwhile."""
        accounts = {account for account, _ in silent}
        fresh = sorted(accounts - self.conclusions.silent_accounts)
        self.conclusions.silent_accounts = accounts
        return [
            self._notice(account, min(day for code, day in silent if code == account), baseline) for account in fresh
        ]

    def _notice(self, account: int, day: int, baseline: Baseline) -> Anomaly:
        mine = self.arrivals.codes[0] == account
        expected = float(np.exp(baseline.level[mine & np.isfinite(baseline.level)]).sum())
        when, scope = self.arrivals.day_at(day), Scope(account=self.arrivals.name_of(0, account))
        today = self.arrivals.days - 1
        notice = Anomaly(
            len(self._known), scope, "data_outage", when, when, self.arrivals.day_at(today),
            expected, 0.0, expected, 0.0, 0.0, "low", root_causes=(scope,),
        )  # fmt: skip
        self._known.append(Known(notice, int(mine.argmax()), 0, day, today, day))
        return notice


def _part(recent: Recent, suspect: Suspect, own: Suspect | None, member: int) -> tuple[float, float]:
    """(excess on the named day, impact up to it) of one series of an incident, in dollars."""
    if own is not None and own.age == suspect.age and own.oldest == suspect.oldest:
        return own.excess, own.impact
    dollars: Any = recent.cost if suspect.kind == "new_cost" else recent.excess
    return float(dollars[suspect.age, member]), float(dollars[suspect.age : suspect.oldest + 1, member].sum())


def suspects_alone(found: Sequence[Suspect]) -> list[Suspect]:
    """Those that stand out by themselves, not as part of a sum."""
    return [suspect for suspect in found if not suspect.summed]


assert LEAST_HISTORY >= FIRST_DAYS
