"""Anomalies as they are kept: one record an incident, whatever number of runs saw it, and what people said of it.

A run of the detector finds everything anew. `brought_up_to_date` recognises what is known, so that a record keeps its
id and is updated instead of repeated. What a person said is never changed by a run. Dollars are exact, to the cent.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import date, datetime, timedelta
from decimal import Decimal
from typing import Final, Literal

from app.core.anomaly import Anomaly, Severity
from app.core.anomaly import State as Found
from app.core.scopes import Scope
from app.core.suspects import Kind

Day = date
Said = Literal["acknowledged", "expected", "dismissed", "open"]
AnomalyState = Literal["open", "ongoing", "resolved", "acknowledged", "expected", "dismissed"]
SAID: Final = ("acknowledged", "expected", "dismissed", "open")
"""What a person can say; `open` takes the last word back."""
STATES: Final = ("open", "ongoing", "acknowledged", "resolved", "expected", "dismissed")
UNSETTLED_STATES: Final = frozenset({"open", "ongoing"})
SILENCING: Final = frozenset({"expected", "dismissed"})

CENT: Final = Decimal("0.01")
APART: Final = timedelta(days=4)
"""Two runs may see the same incident begin so far apart: late rows move its first day."""
SILENT_FOR: Final = timedelta(days=90)
"""For how long one that was expected or dismissed silences the like."""
ALIKE: Final = Decimal("1.5")
"""An excess of up to so many times that of the silenced one is the like; a larger one is news."""
MOST_MOMENTS: Final = 60
BY_FEEDBACK: Final = "feedback"
BY_PLAN: Final = "planned spend"


@dataclass(frozen=True)
class Part:
    """What one series adds to the impact."""

    scope: Scope
    impact: Decimal


@dataclass(frozen=True)
class Moment:
    """What was known on `day`: about the usage day `date`, and the dollars so far."""

    day: Day
    date: Day
    expected: Decimal
    low: Decimal
    high: Decimal
    actual: Decimal
    impact: Decimal
    found: Found


@dataclass(frozen=True)
class Verdict:
    """What somebody said, or what silenced it (BY_FEEDBACK, BY_PLAN); `plan` is the id of the planned spend that did."""

    state: Said
    at: datetime
    by: str
    reason: str | None = None
    plan: str | None = None


@dataclass(frozen=True)
class PlannedSpend:
    """Days [start, end) on which more, or less, is expected in a scope; what is found there is not news.

    `extra` is by how many dollars a day; a larger excess is news all the same. None: whatever it is.
    """

    id: str
    scope: Scope
    start: date
    end: date
    reason: str
    by: str
    at: datetime
    extra: Decimal | None = None

    def expects(self, record: AnomalyRecord) -> bool:
        """Whether it says that this was to come: of its scope, begun on its days, and not beyond `extra`."""
        return self.concerns(record) and not self.is_exceeded_by(record)

    def concerns(self, record: AnomalyRecord) -> bool:
        return self.start <= record.start < self.end and _inside(record.scope, self.scope)

    def is_exceeded_by(self, record: AnomalyRecord) -> bool:
        return self.extra is not None and abs(record.excess) > self.extra


@dataclass(frozen=True)
class AnomalyRecord:
    """Figures as in core.anomaly.Anomaly, of the usage day `date`. `revision` counts the changes of the record.

    `found` is what the detector says; `withdrawn`: later figures took it away. Verdicts are in the order they came.
    """

    id: str
    scope: Scope
    kind: Kind
    severity: Severity
    start: Day
    date: Day
    detected_on: Day
    expected: Decimal
    low: Decimal
    high: Decimal
    actual: Decimal
    impact: Decimal
    contributions: tuple[Part, ...]
    root_causes: tuple[Scope, ...]
    found: Found
    created: datetime
    updated: datetime
    withdrawn: bool = False
    verdicts: tuple[Verdict, ...] = ()
    moments: tuple[Moment, ...] = ()
    revision: int = 1

    @property
    def verdict(self) -> Verdict | None:
        """The last word, None when there is none or it was taken back."""
        return self.verdicts[-1] if self.verdicts and self.verdicts[-1].state != "open" else None

    @property
    def state(self) -> AnomalyState:
        verdict = self.verdict
        return self.found if verdict is None or verdict.state == "open" else verdict.state

    @property
    def reason(self) -> str | None:
        return self.verdict.reason if self.verdict else None

    @property
    def excess(self) -> Decimal:
        return self.actual - self.expected

    def concerns(self, part: str, values: Iterable[str]) -> bool:
        """Whether it is about one of these accounts, services or regions, by itself or by what it is made of."""
        scopes = (self.scope, *(item.scope for item in self.contributions))
        return not {getattr(scope, part) for scope in scopes}.isdisjoint(values)

    def said(self, verdict: Verdict) -> AnomalyRecord:
        return replace(self, verdicts=(*self.verdicts, verdict), updated=verdict.at, revision=self.revision + 1)


@dataclass(frozen=True)
class Finding:
    """One incident of a run as it stands, and as it read on each day on which that changed."""

    anomaly: Anomaly
    history: Sequence[tuple[date, Anomaly]]


@dataclass(frozen=True)
class Run:
    """A run at `at` that reports what began on `since` or later."""

    at: datetime
    since: date
    planned: Sequence[PlannedSpend] = field(default=())


def brought_up_to_date(known: Sequence[AnomalyRecord], found: Sequence[Finding], run: Run) -> list[AnomalyRecord]:
    """The records that a run adds or changes, each with the next revision. The same run again changes nothing."""
    left = {record.id: record for record in known}
    changed: list[AnomalyRecord] = []
    for finding in found:
        before = _recognised(left.values(), finding.anomaly)
        if before is not None:
            del left[before.id]
        after = _silenced(_updated(before, finding, run, left), known, run)
        changed += _as_change(before, after, run)
    for record in left.values():
        if record.start >= run.since and record.found != "resolved":
            changed += _as_change(record, replace(record, found="resolved", withdrawn=True), run)
    return changed


def _as_change(before: AnomalyRecord | None, after: AnomalyRecord, run: Run) -> list[AnomalyRecord]:
    if before is None:
        return [after]
    return [] if after == before else [replace(after, updated=run.at, revision=before.revision + 1)]


def _recognised(known: Iterable[AnomalyRecord], anomaly: Anomaly) -> AnomalyRecord | None:
    alike = [record for record in known if _is_same(record, anomaly)]
    return min(alike, key=lambda record: (abs(record.start - anomaly.start), record.id), default=None)


def _is_same(record: AnomalyRecord, anomaly: Anomaly) -> bool:
    if _direction(record.kind) != _direction(anomaly.kind) or abs(record.start - anomaly.start) > APART:
        return False
    series = {part.scope for part in record.contributions}
    return record.scope == anomaly.scope or any(part.scope in series for part in anomaly.contributions)


def _direction(kind: Kind) -> str:
    return kind if kind in ("drop", "data_outage") else "more"


def _updated(
    before: AnomalyRecord | None, finding: Finding, run: Run, others: Mapping[str, AnomalyRecord]
) -> AnomalyRecord:
    anomaly = finding.anomaly
    last = before.moments[-1].day if before and before.moments else None
    fresh = [_moment(day, seen) for day, seen in finding.history if last is None or day > last]
    moments = (*(before.moments if before else ()), *fresh)
    return AnomalyRecord(
        id=before.id if before else _new_id(anomaly, others),
        scope=anomaly.scope,
        kind=anomaly.kind,
        severity=anomaly.severity,
        start=anomaly.start,
        date=anomaly.date,
        detected_on=min(before.detected_on, anomaly.detected_on) if before else anomaly.detected_on,
        expected=dollars(anomaly.expected),
        low=dollars(anomaly.low),
        high=dollars(anomaly.high),
        actual=dollars(anomaly.actual),
        impact=dollars(anomaly.impact),
        contributions=tuple(Part(part.scope, dollars(part.impact)) for part in anomaly.contributions),
        root_causes=anomaly.root_causes,
        found=anomaly.state,
        created=before.created if before else run.at,
        updated=before.updated if before else run.at,
        verdicts=before.verdicts if before else (),
        moments=moments if len(moments) <= MOST_MOMENTS else (moments[0], *moments[-MOST_MOMENTS + 1 :]),
        revision=before.revision if before else 1,
    )


def _moment(day: date, seen: Anomaly) -> Moment:
    amounts = (seen.expected, seen.low, seen.high, seen.actual, seen.impact)
    expected, low, high, actual, impact = map(dollars, amounts)
    return Moment(day, seen.date, expected, low, high, actual, impact, seen.state)


def dollars(amount: float) -> Decimal:
    """To the cent: what is behind it is an estimate."""
    return Decimal(repr(amount)).quantize(CENT)


def _new_id(anomaly: Anomaly, others: Mapping[str, AnomalyRecord]) -> str:
    scope = anomaly.scope
    named = "\0".join(repr(part) for part in (scope.account, scope.service, scope.region))
    name = hashlib.sha256(f"{named}\0{anomaly.kind}\0{anomaly.start}".encode("utf-8", "surrogatepass")).hexdigest()[:16]
    while name in others:
        name = hashlib.sha256(name.encode()).hexdigest()[:16]
    return name


# --- what silences ------------------------------------------------------------------------------------------------


def _silenced(record: AnomalyRecord, known: Sequence[AnomalyRecord], run: Run) -> AnomalyRecord:
    """With the verdict that earlier feedback or a plan calls for, unless anything was said of it before.

    One that a plan silenced is news again when it grows beyond what was planned.
    """
    if record.kind == "data_outage":
        return record
    found = _beyond_plan(record, run) if record.verdicts else _planned(record, run)
    verdict = found if found or record.verdicts else _as_before(record, known, run)
    return replace(record, verdicts=(*record.verdicts, verdict)) if verdict else record


def _planned(record: AnomalyRecord, run: Run) -> Verdict | None:
    for plan in run.planned:
        if plan.expects(record):
            return Verdict("expected", run.at, BY_PLAN, plan.reason, plan.id)
    return None


def _beyond_plan(record: AnomalyRecord, run: Run) -> Verdict | None:
    last = record.verdicts[-1]
    if last.by != BY_PLAN or last.state != "expected" or last.plan is None:
        return None
    plan = next((one for one in run.planned if one.id == last.plan), None)
    if plan is None or not plan.is_exceeded_by(record):
        return None
    reason = f"{abs(record.excess):,} on {record.date}, and {plan.extra:,.2f} a day were planned"
    return Verdict("open", run.at, BY_PLAN, reason, plan.id)


def _inside(scope: Scope, wider: Scope) -> bool:
    return all(value is None or getattr(scope, part) == value for part, value in wider.parts())


def _as_before(record: AnomalyRecord, known: Sequence[AnomalyRecord], run: Run) -> Verdict | None:
    for other in sorted(known, key=lambda one: one.start, reverse=True):
        verdict = other.verdict
        if verdict is not None and verdict.by != BY_PLAN and verdict.state in SILENCING and _is_like(record, other):
            reason = verdict.reason if verdict.by == BY_FEEDBACK else _as_reason(other, verdict)
            return Verdict(verdict.state, run.at, BY_FEEDBACK, reason)
    return None


def _as_reason(other: AnomalyRecord, verdict: Verdict) -> str:
    return f"Like that of {other.start}" + (f": {verdict.reason}" if verdict.reason else "")


def _is_like(record: AnomalyRecord, other: AnomalyRecord) -> bool:
    recent = timedelta(0) < record.start - other.start <= SILENT_FOR
    same = record.scope == other.scope and _direction(record.kind) == _direction(other.kind)
    return recent and same and abs(record.excess) <= ALIKE * abs(other.excess)
