"""The sample organisation: what a mid-size company's AWS bill looks like, as a function of a seed and the day.

Every figure depends on the seed, the day and its distance from the story's last day (`anchor`) only: asking for more
days, or for the next day, changes no settled day. Amounts are US dollars; the words are Cost Explorer's.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import date, timedelta
from functools import cached_property
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from app.core.samplestory import (
    ADOPTION,
    CLOSING,
    CYCLE,
    DETECT_WITHIN,
    EC2,
    ENABLED_REGIONS,
    INCIDENTS,
    LABEL_GRACE,
    LEVEL,
    MEMBERS,
    OPENING,
    PAYER,
    PLAN_DISCOUNT,
    PLAN_ELIGIBLE,
    PLAN_SHARE,
    PLAN_START,
    PRICE_LEVEL,
    RDS,
    RESERVATION_DISCOUNT,
    RESERVATION_SHARE,
    RESERVATION_START,
    RESERVED_ACCOUNT,
    SAVINGS_PLAN,
    SERVICES,
    SUPPORTED_ACCOUNT,
    TAX_RATE,
    TERM,
    WEEK,
    Incident,
    Member,
    Service,
)

Floats = NDArray[np.float64]

COLUMNS: Final = (
    "date,account,service,region,amortized_cost,blended_cost,unblended_cost,usage_quantity,usage_unit,"
    "charge_category,currency,estimated"
)
SETTLING_DAYS: Final = 2
"""A day is reported incompletely, and marked estimated, on this many days after it; then finally."""


@dataclass(frozen=True)
class Leaf:
    """One key of charges: (account, service, region, charge category) and how its cost behaves."""

    member: Member
    service: str
    region: str
    category: str = "Usage"
    base: float = 0.0
    kind: Service | None = None

    @property
    def unit(self) -> str:
        return self.kind.unit if self.kind else ""


@dataclass(frozen=True)
class Change:
    """A lasting change that somebody decided, from day `start` relative to the anchor on."""

    kind: str
    start: int
    days: int
    account: str | None = None
    service: str | None = None
    region: str | None = None
    direction: str = "up"


@dataclass(frozen=True)
class Event:
    """An incident as it happens on real days: dollars of each day, the same in every cost metric."""

    incident: Incident
    leaf: int
    start: int
    dollars: Floats


def organisation(seed: int, days: int, last_day: date, *, anchor: date | None = None) -> Organisation:
    """`days` days of the sample ending with `last_day`; `anchor` is the day its story was first told up to."""
    return Organisation(seed, last_day - timedelta(days=days - 1), last_day, anchor or last_day)


# --- the organisation ---------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Organisation:
    seed: int
    first_day: date
    last_day: date
    anchor: date

    @cached_property
    def accounts(self) -> dict[str, str]:
        """Name of every account by its twelve-digit id; one id starts with a zero, as real ones may."""
        return {number: name for name, number in self._ids.items()}

    def day_csv(self, day: date, as_of: date) -> bytes:
        """The day's file as reported on `as_of`, at least a day later: incomplete at first, then final."""
        age = (as_of - day).days
        if not self.first_day <= day <= self.last_day or age < 1:
            raise ValueError(f"{day} is not reported on {as_of} by a sample of {self.first_day} to {self.last_day}")
        index = (day - self._start).days
        figures = self._charges.figures[:, :, index]
        if age <= SETTLING_DAYS:
            figures = figures * self._reported(day, age)
        return _csv(self._templates, figures, day, estimated=age <= SETTLING_DAYS)

    def labels(self) -> dict[str, Any]:
        """The anomalies in it, and what is no anomaly though it looks like one; dollars of amortized cost."""
        figures = self._charges.figures[0, :, (self.first_day - self._start).days :]
        usage = np.array([leaf.category == "Usage" for leaf in self._charges.leaves])
        daily = float(figures[usage].sum(axis=0).mean())
        days = (self.last_day - self.first_day).days + 1
        events = [label for event in self._events if (label := self._label(event))]
        return {
            "org": "sample",
            "metric": "amortized_cost",
            "first_day": str(self.first_day),
            "eval_start": str(self.first_day + timedelta(days=min(60, days - 1))),
            "eval_end": str(self.last_day),
            "n_series": int((np.abs(figures) > 0.005).any(axis=1).sum()),
            "materiality": {"daily": round(0.002 * daily, 2), "total": round(0.01 * daily, 2)},
            "org_daily_spend": round(daily, 2),
            "events": [{"id": f"sample-{n:03}", **label} for n, label in enumerate(sorted(events, key=_by_start))],
            "changes": self._changes(),
            "benign": self._benign(),
            "seed": self.seed,
            "anchor": str(self.anchor),
            "accounts": self.accounts,
        }

    # -- days: `_start` is early enough for last month's total, from which tax and support are computed

    @cached_property
    def _start(self) -> date:
        return (self.first_day.replace(day=1) - timedelta(days=1)).replace(day=1)

    @cached_property
    def _days(self) -> list[date]:
        return [self._start + timedelta(days=n) for n in range((self.last_day - self._start).days + 1)]

    @cached_property
    def _offsets(self) -> Floats:
        first = (self._start - self.anchor).days
        return np.arange(first, first + len(self._days), dtype=np.float64)

    def _offset_day(self, offset: int) -> date:
        return self.anchor + timedelta(days=offset)

    def _shown(self, offset: int) -> bool:
        return self.first_day <= self._offset_day(offset) <= self.last_day

    # -- keys

    @cached_property
    def _ids(self) -> dict[str, str]:
        rng = np.random.default_rng([self.seed, 1])
        heads = rng.permutation(np.arange(10, 99))
        numbers = {member.name: f"{heads[n]}{rng.integers(10**10):010}" for n, member in enumerate(MEMBERS)}
        return numbers | {"staging": f"0{numbers['staging'][1:]}"}

    @cached_property
    def _usage_leaves(self) -> list[Leaf]:
        rng = np.random.default_rng([self.seed, 2])
        leaves = [leaf for service in SERVICES for leaf in _leaves_of(service, rng)]
        known = {(leaf.member.name, leaf.service, leaf.region) for leaf in leaves}
        members = {member.name: member for member in MEMBERS}
        kinds = {service.name: service for service in SERVICES}
        for one in INCIDENTS:
            if (one.account, one.service, one.region) not in known:
                leaves.append(Leaf(members[one.account], one.service, one.region, kind=kinds[one.service]))
        return leaves

    # -- what usage costs

    @cached_property
    def _list_cost(self) -> Floats:
        """Cost at list price, leaf × day, without incidents."""
        leaves = self._usage_leaves
        cost = np.array([[leaf.base] for leaf in leaves]) * self._trend() * self._calendar()
        return np.asarray(cost * self._noise() * self._life(), dtype=np.float64)

    def _trend(self) -> Floats:
        """Growth, and slow waves of a few percent that are each leaf's own."""
        rng = np.random.default_rng([self.seed, 3])
        leaves, years = self._usage_leaves, self._offsets / 365.0
        growth = np.array([[leaf.kind.growth] for leaf in leaves if leaf.kind])
        phases = rng.uniform(0, 2 * np.pi, (2, len(leaves), 1))
        waves = 0.02 * np.sin(2 * np.pi * years * 3.7 + phases[0]) + 0.012 * np.sin(2 * np.pi * years * 9.1 + phases[1])
        return np.asarray(np.exp(growth * years + waves), dtype=np.float64)

    def _calendar(self) -> Floats:
        """Weekday, holidays and month end, by rhythm and kind of account."""
        patterns: dict[tuple[str, str], Floats] = {}
        rows = []
        for leaf in self._usage_leaves:
            rhythm = leaf.kind.rhythm if leaf.kind else "flat"
            key = rhythm, "dev" if leaf.member.kind == "dev" else "prod"
            if key not in patterns:
                patterns[key] = np.array([_day_factor(day, *key) for day in self._days])
            rows.append(patterns[key])
        return np.array(rows)

    def _noise(self) -> Floats:
        """Traffic that the services of an account share, and each leaf's own noise; drawn day by day."""
        leaves = self._usage_leaves
        names = [member.name for member in MEMBERS]
        account = [names.index(leaf.member.name) for leaf in leaves]
        drawn = self._draws(1 + len(names) + len(leaves))
        shared = 0.012 * _smooth(drawn[:1], 0.6) + 0.016 * _smooth(drawn[1 : 1 + len(names)], 0.6)
        traffic = shared[:, -len(self._days) :]
        elasticity = np.array([[leaf.kind.traffic] for leaf in leaves if leaf.kind])
        wild = np.array([[2.5 if leaf.member.name == "sandbox" else 1.0] for leaf in leaves])
        sigma = wild * np.array([[leaf.kind.noise] for leaf in leaves if leaf.kind])
        own = _smooth(drawn[1 + len(names) :], 0.3)
        factor = np.exp(elasticity * traffic[account] + sigma * own[:, -len(self._days) :])
        return np.asarray(factor * self._training(own), dtype=np.float64)

    def _training(self, own: Floats) -> Floats:
        """Training runs for some days, then pauses; its notebooks stay on."""
        training = np.array([[leaf.kind is not None and leaf.kind.rhythm == "training"] for leaf in self._usage_leaves])
        running = _smooth(own, 0.7) > -0.2
        return np.where(training, 0.45 + 0.85 * running, 1.0)

    def _draws(self, count: int) -> Floats:
        """Standard normals, count × day: each day has its own generator, so that no day depends on the range."""
        lead = _LEAD
        days = range(self._start.toordinal() - lead, self.last_day.toordinal() + 1)
        drawn = np.array([np.random.default_rng([self.seed, 4, day]).standard_normal(count) for day in days])
        return np.asarray(np.clip(drawn.T, -3.0, 3.0), dtype=np.float64)

    def _life(self) -> Floats:
        """Accounts open and close, services are adopted: factor leaf × day between 0 and 1."""
        rows = [self._ramps(leaf) for leaf in self._usage_leaves]
        return np.array(rows)

    def _ramps(self, leaf: Leaf) -> Floats:
        factor = np.ones(len(self._days))
        if leaf.member.opened is not None:
            factor *= _ramp(self._offsets, leaf.member.opened, OPENING)
        if leaf.kind and leaf.kind.since is not None:
            factor *= _ramp(self._offsets, leaf.kind.since, ADOPTION)
        if leaf.member.closed is not None:
            factor *= 1 - _ramp(self._offsets, leaf.member.closed - CLOSING, CLOSING)
        return factor

    # -- incidents

    @cached_property
    def _events(self) -> list[Event]:
        index = {(leaf.member.name, leaf.service, leaf.region): n for n, leaf in enumerate(self._usage_leaves)}
        first, last = int(self._offsets[0]), int(self._offsets[-1])
        found = []
        for number, incident in enumerate(INCIDENTS):
            leaf = index[incident.account, incident.service, incident.region]
            for cycle in range((first - incident.start) // CYCLE, (last + _MOVED - incident.start) // CYCLE + 1):
                found.append(self._event(number, leaf, cycle))
        return [event for event in found if event.dollars.any()]

    def _event(self, number: int, leaf: int, cycle: int) -> Event:
        """One coming of an incident; `dollars` covers its days from `start`, zero where the sample has none."""
        incident = INCIDENTS[number]
        rng = np.random.default_rng([self.seed, 5, number, cycle + 1000])
        size, jitter = rng.uniform(0.9, 1.15), rng.normal(0, 0.06, incident.days)
        moved = int(rng.integers(-2, 3)) if (number, cycle) != (0, 0) else 0
        start = incident.start + cycle * CYCLE + moved
        if incident.kind == "weekend":
            start += (5 - self._offset_day(start).weekday()) % 7
        dollars = _shape(incident) * np.exp(jitter) * incident.size * size * np.exp(0.2 * start / 365.0)
        if incident.kind == "drop":
            dollars = -incident.size * self._between(self._list_cost[leaf], start, incident.days)
        return Event(incident, leaf, start, self._within(dollars, start))

    def _between(self, row: Floats, start: int, count: int) -> Floats:
        """`row`'s values of [start, start + count), zero outside the days there are."""
        values = np.zeros(count)
        at = start - int(self._offsets[0])
        low, high = max(at, 0), min(at + count, len(row))
        if low < high:
            values[low - at : high - at] = row[low:high]
        return values

    def _within(self, dollars: Floats, start: int) -> Floats:
        return np.asarray(dollars * self._between(np.ones(len(self._days)), start, len(dollars)), dtype=np.float64)

    def _incident_cost(self) -> Floats:
        cost = np.zeros_like(self._list_cost)
        for event in self._events:
            at = event.start - int(self._offsets[0])
            low, high = max(at, 0), min(at + len(event.dollars), cost.shape[1])
            cost[event.leaf, low:high] += event.dollars[low - at : high - at]
        return cost

    # -- commitments: what makes amortized differ from unblended

    def _plan(self) -> tuple[Floats, Floats]:
        """Savings plan: the part of each eligible leaf's cost it covers, by day, and its fee by day."""
        eligible = np.array([leaf.service in PLAN_ELIGIBLE for leaf in self._usage_leaves])
        total = self._list_cost[eligible].sum(axis=0)
        bases = sum(leaf.base for leaf in self._usage_leaves if leaf.service in PLAN_ELIGIBLE)
        term = np.floor((self._offsets - PLAN_START) / TERM)
        bought = PLAN_START + np.maximum(term, 0) * TERM
        hourly = np.round(bases * np.exp(0.2 * bought / 365) * PLAN_SHARE * (1 - PLAN_DISCOUNT) / 24, 3)
        fee = np.where(term >= 0, hourly * 24, 0.0)
        share = np.minimum(fee / (1 - PLAN_DISCOUNT) / total, 0.92)
        return eligible[:, None] * share, fee

    def _reservation(self) -> tuple[int, Floats, Floats]:
        """Reserved databases: the leaf they cover, list cost covered by day, upfront fee on the days it is paid."""
        leaves = self._usage_leaves
        leaf = next(n for n, one in enumerate(leaves) if (one.member.name, one.service) == (RESERVED_ACCOUNT, RDS))
        term = np.floor((self._offsets - RESERVATION_START) / TERM)
        bought = RESERVATION_START + np.maximum(term, 0) * TERM
        covered = leaves[leaf].base * np.exp(0.18 * bought / 365) * RESERVATION_SHARE
        upfront = np.round(covered * (1 - RESERVATION_DISCOUNT) * TERM, 2)
        paid = (self._offsets - RESERVATION_START) % TERM == 0
        active = term >= 0
        return leaf, np.where(active, covered, 0.0), np.where(active & paid, upfront, 0.0)

    # -- all charges

    @cached_property
    def _charges(self) -> Charges:
        usage = self._usage()
        monthly = self._monthly(usage)
        leaves = [*usage.leaves, *monthly.leaves]
        figures = np.concatenate([usage.figures, monthly.figures], axis=1)
        order = sorted(range(len(leaves)), key=lambda n: self._key(leaves[n]))
        return Charges([leaves[n] for n in order], figures[:, order])

    def _key(self, leaf: Leaf) -> tuple[str, str, str, str]:
        return self._ids[leaf.member.name], leaf.service, leaf.region, leaf.category

    def _usage(self) -> Charges:
        """Usage and the commitments behind it."""
        leaves, incidents = self._usage_leaves, self._incident_cost()
        share, fee = self._plan()
        reserved, covered, upfront = self._reservation()
        amortized = self._list_cost * (1 - share * PLAN_DISCOUNT)
        unblended = self._list_cost * (1 - share)
        fee_used = (self._list_cost * share).sum(axis=0) * (1 - PLAN_DISCOUNT)
        covered = np.minimum(covered, unblended[reserved])
        unblended[reserved] -= covered
        amortized[reserved] -= covered * RESERVATION_DISCOUNT
        amortized, unblended = amortized + incidents, unblended + incidents
        quantity = self._quantity(self._list_cost + incidents)
        blended = _blended(leaves, unblended, quantity)
        payer = next(member for member in MEMBERS if member.name == PAYER)
        plan = np.array([fee - fee_used, fee, fee, np.where(fee > 0, 24.0, 0.0)])
        purchase = np.array([np.zeros_like(upfront), upfront, upfront, np.where(upfront > 0, 12.0, 0.0)])
        bought = [
            Leaf(payer, SAVINGS_PLAN, "global", "Purchase"),
            Leaf(payer, RDS, "us-east-1", "Purchase"),
        ]
        figures = np.concatenate(
            [np.array([amortized, blended, unblended, quantity]), np.stack([plan, purchase], axis=1)], axis=1
        )
        return Charges([*leaves, *bought], figures)

    def _quantity(self, cost: Floats) -> Floats:
        """Units used: list cost over a price that depends on the region and on what an account favours."""
        rng = np.random.default_rng([self.seed, 6])
        mix = np.exp(rng.normal(0, 0.12, (len(self._usage_leaves), 1)))
        price = np.array([[leaf.kind.price] for leaf in self._usage_leaves if leaf.kind])
        level = np.array([[PRICE_LEVEL.get(leaf.region[:2], 1.0)] for leaf in self._usage_leaves])
        quantity = np.maximum(cost, 0) / (price * level * mix)
        whole = np.array([[leaf.unit in _WHOLE_UNITS] for leaf in self._usage_leaves])
        return np.asarray(np.where(whole, np.ceil(quantity), quantity), dtype=np.float64)

    def _monthly(self, usage: Charges) -> Charges:
        """What comes once a month: tax and support on the 1st, a migration credit on the 5th; and domains, yearly."""
        made: list[tuple[Leaf, Floats]] = []
        by_account = {member.name: np.zeros(len(self._days)) for member in MEMBERS}
        for n, leaf in enumerate(usage.leaves):
            by_account[leaf.member.name] += usage.figures[2, n]
        previous = {name: self._last_month(cost) for name, cost in by_account.items()}
        first = np.array([day.day == 1 for day in self._days])
        for member in MEMBERS:
            made.append((Leaf(member, "Tax", "NoRegion", "Tax"), first * TAX_RATE * previous[member.name]))
        members = {member.name: member for member in MEMBERS}
        support = Leaf(members[SUPPORTED_ACCOUNT], "AWS Support (Business)", "NoRegion", "Purchase")
        made.append((support, first * _support_fee(previous[SUPPORTED_ACCOUNT])))
        made.append(self._migration_credit(members["prod-eu"], previous["prod-eu"]))
        made.append(self._service_credit(members["prod-web"]))
        made.append(self._domains(members[PAYER]))
        amounts = np.round(np.array([amount for _, amount in made]), 2)
        return Charges([leaf for leaf, _ in made], np.array([amounts, amounts, amounts, np.zeros_like(amounts)]))

    def _last_month(self, cost: Floats) -> Floats:
        """For each day, the sum over the calendar month before."""
        months = np.array([day.year * 12 + day.month for day in self._days])
        sums = np.bincount(months - months[0], weights=cost)
        return np.asarray(np.concatenate([[0.0], sums])[months - months[0]], dtype=np.float64)

    def _migration_credit(self, member: Member, previous: Floats) -> tuple[Leaf, Floats]:
        fifth = np.array([day.day == 5 for day in self._days])
        return Leaf(member, EC2, "eu-central-1", "Credit"), -0.035 * fifth * previous

    def _service_credit(self, member: Member) -> tuple[Leaf, Floats]:
        """For an outage of the provider: once a year."""
        return Leaf(member, RDS, "us-east-1", "Credit"), np.where((self._offsets + 68) % TERM == 0, -4180.0, 0.0)

    def _domains(self, member: Member) -> tuple[Leaf, Floats]:
        amounts = {(3, 14): 42.0, (9, 2): 15.0, (11, 9): 28.0}
        return (
            Leaf(member, "Amazon Registrar", "global", "Purchase"),
            np.array([amounts.get((day.month, day.day), 0.0) for day in self._days]),
        )

    # -- reporting

    def _reported(self, day: date, age: int) -> Floats:
        """Part of each row's final figures that is known `age` days later (1 or 2); late rows come with the second."""
        rng = np.random.default_rng([self.seed, 7, day.toordinal(), age])
        leaves = self._charges.leaves
        services = sorted({leaf.service for leaf in leaves})
        by_service = dict(zip(services, rng.normal(0, 0.04, len(services)), strict=True))
        own = rng.normal(0, 0.02, len(leaves))
        if age == 1:
            level = rng.normal(0.80, 0.04)
            known = np.clip(level + own + [by_service[leaf.service] for leaf in leaves], 0.2, 0.97)
            known = np.where([leaf.kind is not None and leaf.kind.late for leaf in leaves], 0.0, known)
        else:
            known = np.clip(0.965 + own * 0.5, 0.8, 0.998)
        return np.where([leaf.category == "Usage" for leaf in leaves], known, 1.0)

    @cached_property
    def _templates(self) -> list[str]:
        """Each row's line without its date and last column, to be filled with its four figures."""
        return [
            f"{','.join(self._key(leaf)[:3])},%.10f,%.10f,%.10f,{'%.0f' if leaf.unit in _WHOLE_UNITS else '%.10f'}"
            f",{leaf.unit},{leaf.category},USD"
            for leaf in self._charges.leaves
        ]

    # -- labels

    def _scope(self, account: str | None, service: str | None, region: str | None) -> dict[str, str | None]:
        return {"account": self._ids[account] if account else None, "service": service, "region": region}

    def _label(self, event: Event) -> dict[str, Any] | None:
        """An event as far as the sample's days show it; None when they do not."""
        hidden = max((self.first_day - self.anchor).days - event.start, 0)
        room = (self.last_day - self.anchor).days - event.start + 1
        daily = event.dollars[hidden:room]
        if not daily.any():
            return None
        incident = event.incident
        start, end = event.start + hidden, event.start + hidden + len(daily) - 1
        by = min(start + DETECT_WITHIN.get(incident.kind, 999), end + LABEL_GRACE)
        scope = self._scope(incident.account, incident.service, incident.region)
        impact = round(float(daily.sum()), 2)
        return {
            "kind": incident.kind,
            "direction": "down" if impact < 0 else "up",
            "scope": scope,
            "leaves": [{"scope": scope, "impact": impact}],
            "start": str(self._offset_day(start)),
            "end": str(self._offset_day(end)),
            "detect_by": str(self._offset_day(by)),
            "impact": impact,
            "peak_daily": round(float(daily[np.argmax(np.abs(daily))]), 2),
            "daily": [round(float(dollars), 2) for dollars in daily],
            "cause": incident.cause,
        }

    def _changes(self) -> list[dict[str, Any]]:
        """Lasting changes that somebody decided: no anomalies."""
        shown = [change for change in _CHANGES if self._shown(change.start)]
        return [
            {
                "id": f"sample-c{n:03}",
                "kind": change.kind,
                "direction": change.direction,
                "scope": self._scope(change.account, change.service, change.region),
                "start": str(self._offset_day(change.start)),
                "end": str(self._offset_day(change.start + change.days - 1)),
            }
            for n, change in enumerate(sorted(shown, key=lambda change: change.start))
        ]

    def _benign(self) -> list[dict[str, Any]]:
        """Days that look unusual and are not: month starts, credits, holidays."""
        found = []
        for day in self._days:
            if day < self.first_day:
                continue
            if day.day == 1:
                found.append(("month_start_charge", self._scope(PAYER, None, "NoRegion"), day))
            if day.day == 5:
                found.append(("refund", self._scope("prod-eu", EC2, "eu-central-1"), day))
            if _holiday(day) < 1:
                found.append(("holiday", self._scope(None, None, None), day))
        return [{"kind": kind, "scope": scope, "start": str(day), "end": str(day)} for kind, scope, day in found]


@dataclass(frozen=True)
class Charges:
    """`figures` is amortized, blended, unblended, quantity × leaf × day."""

    leaves: list[Leaf]
    figures: Floats = field(repr=False)


# --- shapes -------------------------------------------------------------------------------------------------------

_CHANGES: Final = (
    *(Change("service_launch", one.since, ADOPTION, service=one.name) for one in SERVICES if one.since is not None),
    *(Change("account_opened", one.opened, OPENING, account=one.name) for one in MEMBERS if one.opened is not None),
    *(
        Change("account_closed", one.closed - CLOSING, CLOSING, account=one.name, direction="down")
        for one in MEMBERS
        if one.closed is not None
    ),
    *(
        Change("region_expansion", one.opened, OPENING, region=one.regions[0])
        for one in MEMBERS
        if one.opened is not None
    ),
    Change("savings_plan", PLAN_START, 1, service=EC2, direction="down"),
    Change("reservation", RESERVATION_START, 1, RESERVED_ACCOUNT, RDS, "us-east-1", "down"),
)

_LEAD: Final = 24
"""Days of draws before the first day that smoothing looks back on."""
_MOVED: Final = 14
"""More than the days by which chance or a weekend moves an incident."""
_WHOLE_UNITS: Final = frozenset({"Requests", "Queries", "Events", "Count", "StateTransitions", "Checks", "Users"})
_MAIN_REGION: Final = 0.62


def _leaves_of(service: Service, rng: np.random.Generator) -> Iterator[Leaf]:
    """A service's dollars spread over its accounts and their regions."""
    places: list[tuple[Member, str, float]] = []
    for member in MEMBERS:
        if member.kind in service.where or member.name in service.where:
            places += [(member, *place) for place in _regions_of(service, member, rng)]
    total = sum(weight for member, _, weight in places if member.closed is None)
    for member, region, weight in places:
        yield Leaf(member, service.name, region, base=LEVEL * service.daily * weight / total, kind=service)


def _regions_of(service: Service, member: Member, rng: np.random.Generator) -> Iterable[tuple[str, float]]:
    weight = member.weight * float(np.exp(rng.normal(0, 0.25)))
    if service.region:
        return [(service.region, weight)]
    places = [(member.regions[0], weight * _MAIN_REGION)]
    for n, region in enumerate(member.regions[1:], start=1):
        if rng.random() < 0.9:
            places.append((region, weight * (1 - _MAIN_REGION) * 0.6**n * float(np.exp(rng.normal(0, 0.3)))))
    if service.everywhere:
        others = [region for region in ENABLED_REGIONS if region not in member.regions]
        places += [(region, 0.0009 * float(np.exp(rng.normal(0, 0.6)))) for region in others if rng.random() < 0.75]
    return places


def _day_factor(day: date, rhythm: str, kind: str) -> float:
    factor = WEEK.get((rhythm, kind), WEEK.get((rhythm, "prod"), (1.0,) * 7))[day.weekday()]
    if rhythm == "batch":
        ends = (day + timedelta(days=2)).month != day.month
        return factor * (1.4 if ends else 1.0)
    sensitivity = {"flat": 0.0, "mixed": 0.5, "training": 0.5}.get(rhythm, 1.0) * (1.8 if kind == "dev" else 1.0)
    return factor * (1 - sensitivity * (1 - _holiday(day)))


def _holiday(day: date) -> float:
    """How busy a day is compared with an ordinary one of its weekday."""
    thanksgiving = 22 + (3 - date(day.year, 11, 22).weekday()) % 7
    if day.month == 11 and day.day in (thanksgiving, thanksgiving + 1):
        return 0.88
    if (day.month, day.day) in ((12, 24), (12, 25), (12, 26), (1, 1)):
        return 0.8
    return 0.88 if day.month == 12 and day.day > 26 else 1.0


def _shape(incident: Incident) -> Floats:
    """Dollars of each of its days as a part of its size."""
    days = np.arange(incident.days)
    if incident.kind == "leak":
        return (days + 1.0) / incident.days
    if incident.kind == "weekend":
        return np.asarray(days % 7 < 2, dtype=np.float64)
    return np.ones(incident.days)


def _ramp(offsets: Floats, start: int, days: int) -> Floats:
    """0 before `start`, 1 from `days` later on, smooth between."""
    x = np.clip((offsets - start) / days, 0, 1)
    return np.asarray(x * x * (3 - 2 * x), dtype=np.float64)


def _smooth(draws: Floats, memory: float) -> Floats:
    """Autocorrelated noise of the same variance; a fixed look-back keeps a day independent of the range asked for."""
    kept = 12
    weights = memory ** np.arange(kept)
    weights /= np.sqrt((weights**2).sum())
    count = draws.shape[1] - kept
    return np.asarray(
        sum(weight * draws[:, kept - back : kept - back + count] for back, weight in enumerate(weights)),
        dtype=np.float64,
    )


def _blended(leaves: list[Leaf], unblended: Floats, quantity: Floats) -> Floats:
    """Usage at the organisation's average rate of that service and region; the sum is what it was."""
    keys = {key: n for n, key in enumerate(dict.fromkeys((leaf.service, leaf.region) for leaf in leaves))}
    group = np.array([keys[leaf.service, leaf.region] for leaf in leaves])
    cost, used = np.zeros((len(keys), unblended.shape[1])), np.zeros((len(keys), unblended.shape[1]))
    np.add.at(cost, group, unblended)
    np.add.at(used, group, quantity)
    rate = np.divide(cost, used, out=np.zeros_like(cost), where=used > 0)
    return np.asarray(rate[group] * quantity, dtype=np.float64)


def _support_fee(monthly: Floats) -> Floats:
    """AWS Support (Business): 10 % of the first $10,000, 7 % to $80,000, 5 % to $250,000, 3 % beyond."""
    steps = ((0.0, 0.10), (10_000.0, -0.03), (80_000.0, -0.02), (250_000.0, -0.02))
    return np.asarray(sum(rate * np.maximum(monthly - above, 0) for above, rate in steps), dtype=np.float64)


def _csv(templates: list[str], figures: Floats, day: date, *, estimated: bool) -> bytes:
    """A file's bytes; a row without cost and usage is no row."""
    kept = np.flatnonzero((np.abs(figures) >= 5e-8).any(axis=0))
    values = np.round(figures[:, kept].T.ravel(), 10) + 0.0  # no "-0.0000000000"
    last = f",{'true' if estimated else 'false'}\n"
    lines = f"{last}{day},".join([templates[n] for n in kept]) % tuple(values.tolist())
    return (f"{COLUMNS}\n{day},{lines}{last}" if len(kept) else f"{COLUMNS}\n").encode()


def _by_start(label: dict[str, Any]) -> tuple[str, str]:
    return label["start"], label["kind"]
