"""Looking for anomalies in what is stored, and keeping what was found: the way in and the way out of anomaly records.

A run replays stored history as it arrived (app.backtest) and brings the kept records up to date. It may be repeated,
stopped anywhere and run twice at once: each record is one compare-and-set, and what people said of it stays.
"""

from __future__ import annotations

import hashlib
import logging
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any, Final

from app.alerts import LOOK_BACK, tell_anomalies
from app.backends import Backends, store_dir
from app.backtest import Rules, stored_days, stored_deliveries
from app.backtest import replay as alerts_of
from app.core.alerts import FoundAnomaly
from app.core.anomaly import FIRST_DAYS
from app.core.anomalyrecords import (
    BY_PLAN,
    AnomalyRecord,
    AnomalyState,
    Finding,
    PlannedSpend,
    Run,
    Said,
    Verdict,
    brought_up_to_date,
)
from app.core.arrivals import Arrivals, Delivery
from app.core.jobs import Job
from app.core.periods import DAY, EARLIEST, LATEST, DateRange, month_of
from app.core.scopes import Scope
from app.costs import first_and_last_day, ledgers_of
from app.errors import Conflict, InvalidInput, NotFound
from app.jobs import submit
from app.replaying import ReplayStates, Told, replayed

log = logging.getLogger(__name__)

REPLAYED: Final = timedelta(days=400)
"""How much history a run replays: a year to report, and what has to be learned before it."""
COUNTED: Final = timedelta(days=365)
ATTEMPTS: Final = 5
HEARD_DAYS: Final = 3
"""An account whose data came again within so many of the newest days is no longer silent."""
CLOSED_AFTER: Final = timedelta(days=14)
"""One that is silent for longer is taken for closed, as coverage does."""
MOST_REASON: Final = 500
MOST_EXTRA: Final = Decimal(10) ** 12
MOST_PLANNED_DAYS: Final = 366
KIND: Final = "detect"
WAITED_FOR: Final = ("ingest", KIND)
"""Jobs that are to end before anomalies are looked for."""
BACKTEST: Final = "backtest"
"""The parameter of a detect job that counts alerts instead of keeping them."""
SAMPLED: Final = 5
NEW_FOR: Final = timedelta(days=7)
"""For how long after its detection an anomaly that nobody had recorded yet is news."""


@dataclass(frozen=True)
class Detected:
    """What a run did: how many records are new, how many it changed, how many are open now."""

    as_of: date
    new: int
    changed: int
    open: int

    @property
    def sentence(self) -> str:
        return f"As of {self.as_of}: {self.new} new, {self.changed} updated, {self.open} open."


def rules_of(settings: Any, start: date | None = None, end: date | None = None) -> Rules:
    daily, total = settings.anomaly_min_daily, settings.anomaly_min_total
    return Rules(None if daily is None else float(daily), None if total is None else float(total), start, end)


# --- looking ------------------------------------------------------------------------------------------------------


def detect(backends: Backends, as_of: date | None = None, told: Told = lambda *_: None) -> Detected:
    """Find what there is as of a day (the newest stored one), and keep it.

    Raises InvalidInput when nothing is stored, or nothing as early as `as_of`.
    """
    deliveries = _deliveries(backends, as_of)
    last = deliveries[-1].day
    states = ReplayStates(store_dir(backends.settings) / "detector")
    # What a look into the past would keep is of no use to the next run.
    replay = replayed(deliveries, rules_of(backends.settings), states, told, keep=as_of is None)
    findings = _heard_again(replay.findings(), replay.detector.arrivals)
    since = deliveries[0].day + FIRST_DAYS * DAY
    run = Run(backends.clock(), since, tuple(backends.metadata.planned_spend()))
    new, changed = _kept(backends, findings, run, last)
    records = backends.metadata.anomalies(EARLIEST, LATEST)
    tell_anomalies(backends, [told_of(record) for record in records if is_news(record, run.at)])
    backends.costs.show_anomalies([record for record in records if is_shown(record)])
    return Detected(last, new, changed, sum(record.state in ("open", "ongoing") for record in records))


def _deliveries(backends: Backends, as_of: date | None) -> list[Delivery]:
    days = stored_days(backends)
    if as_of is not None and as_of < days.start:
        raise InvalidInput(f"Nothing is stored as early as {as_of}; the first day is {days.start}.", field="as_of")
    last = min(as_of or days.last, days.last)
    # From the first of a month: the same history is replayed every day of it.
    stored = stored_deliveries(backends, month_of(last - REPLAYED))
    return [delivery for delivery in stored if delivery.day <= last]


def _heard_again(findings: Iterable[Finding], arrivals: Arrivals) -> list[Finding]:
    """A silent account whose data came again, or that was closed, is no longer an anomaly; the detector only says when
    silence begins."""
    last = arrivals.day_at(arrivals.days - 1)
    return [
        replace(finding, anomaly=replace(finding.anomaly, state="resolved"))
        if finding.anomaly.kind == "data_outage"
        and (last - finding.anomaly.start > CLOSED_AFTER or _is_heard(finding.anomaly.scope.account, arrivals))
        else finding
        for finding in findings
    ]


def _is_heard(account: str | None, arrivals: Arrivals) -> bool:
    mine = [place for place, key in enumerate(arrivals.keys) if key.account == account]
    return bool((arrivals.known[mine, -HEARD_DAYS:] != 0).any())


def _kept(backends: Backends, findings: Sequence[Finding], run: Run, last: date) -> tuple[int, int]:
    """(new, changed); what somebody else changed meanwhile is read again."""
    new = changed = 0
    for _ in range(ATTEMPTS):
        known = [one for one in backends.metadata.anomalies(EARLIEST, LATEST) if one.start <= last]
        todo = brought_up_to_date(known, findings, run)
        stored = [record for record in todo if backends.metadata.put_anomaly(record)]
        new += sum(record.revision == 1 for record in stored)
        changed += sum(record.revision > 1 for record in stored)
        if len(stored) == len(todo):
            return new, changed
    raise Conflict("Anomalies are being changed too fast by somebody else. Try again.")


def is_news(record: AnomalyRecord, now: datetime) -> bool:
    """Whether channels are to be told: it was found while it was new, it began or ended lately, and nobody judged it.

    What a first run finds in months of history is shown and not told.
    """
    if record.created.date() - record.detected_on > NEW_FOR or record.verdict is not None:
        return False
    last = record.verdicts[-1] if record.verdicts else None
    # One that grew beyond what was planned is news from then on.
    began = last.at if last and last.by == BY_PLAN else record.created
    return now - (record.updated if record.found == "resolved" else began) <= LOOK_BACK


def told_of(record: AnomalyRecord) -> FoundAnomaly:
    scope = record.scope
    return FoundAnomaly(
        record.id, record.kind, record.severity, record.date, record.start, record.expected, record.low, record.high,
        record.actual, record.impact, record.updated, scope.account, scope.service, scope.region,
        causes=tuple(" · ".join(value for _, value in cause.parts() if value) or "all" for cause in record.root_causes),
        is_over=record.found == "resolved",
    )  # fmt: skip


def is_shown(record: AnomalyRecord) -> bool:
    """Whether dashboards and charts mark it: not what people called no anomaly, nor what later figures took away."""
    return not record.withdrawn and record.state not in ("expected", "dismissed")


# --- counting what rules would have said --------------------------------------------------------------------------


def count_alerts(
    backends: Backends, min_daily: float | None, min_total: float | None, told: Told = lambda *_: None
) -> dict[str, Any]:
    """The alerts of the last 12 months under other rules, as a job's result; one that was counted over the same ledger is
    not counted again. Raises InvalidInput when nothing is stored."""
    version = backends.metadata.ledger_version()
    params = {BACKTEST: True, "min_daily": min_daily, "min_total": min_total}
    kept = (job.result for job in newest_backtests(backends) if job.params == params and job.status == "done")
    if found := next((result for result in kept if result.get("version") == version), None):
        return dict(found)
    began = time.monotonic()
    deliveries = _deliveries(backends, None)
    last = deliveries[-1].day
    first = max(last - COUNTED + DAY, deliveries[0].day)
    alerts = list(alerts_of(_counted(deliveries, told), Rules(min_daily, min_total, first, None)))
    kinds: dict[str, int] = {}
    for alert in alerts:
        kinds[alert.kind] = kinds.get(alert.kind, 0) + 1
    largest = sorted(alerts, key=lambda alert: -abs(alert.impact))[:SAMPLED]
    return {
        "alerts": len(alerts),
        "version": version,
        "seconds": round(time.monotonic() - began, 1),
        "start": first.isoformat(),
        "end": (last + DAY).isoformat(),
        "kinds": kinds,
        "largest": [
            {
                "start": alert.start.isoformat(),
                "kind": alert.kind,
                "impact": f"{alert.impact:.2f}",
                "scope": dict(alert.scope.parts()),
            }
            for alert in largest
        ],
    }


def _counted(deliveries: Sequence[Delivery], told: Told) -> Iterator[Delivery]:
    for place, delivery in enumerate(deliveries):
        if place % 10 == 0:
            told(place, len(deliveries), f"Replaying {delivery.day}")
        yield delivery


# --- asking -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class AnomalyFilter:
    """What of the records is wanted; no values of a part mean all."""

    days: DateRange | None = None
    states: tuple[str, ...] = ()
    kinds: tuple[str, ...] = ()
    parts: Mapping[str, tuple[str, ...]] | None = None

    def admits(self, record: AnomalyRecord) -> bool:
        return (
            (not self.states or record.state in self.states)
            and (not self.kinds or record.kind in self.kinds)
            and all(not values or record.concerns(part, values) for part, values in (self.parts or {}).items())
        )


RANKS: Final[Mapping[AnomalyState, int]] = {
    "open": 0,
    "ongoing": 0,
    "acknowledged": 1,
    "resolved": 2,
    "expected": 3,
    "dismissed": 3,
}


def anomalies_of(backends: Backends, wanted: AnomalyFilter) -> list[AnomalyRecord]:
    """Open ones first, then by the newest day, then by dollars."""
    days = wanted.days
    records = backends.metadata.anomalies(days.start if days else EARLIEST, days.end if days else LATEST)
    found = [record for record in records if wanted.admits(record)]
    return sorted(found, key=lambda one: (RANKS[one.state], -one.date.toordinal(), -abs(one.impact), one.id))


def anomaly_of(backends: Backends, id: str) -> AnomalyRecord:
    """Raises NotFound."""
    found = backends.metadata.anomaly(id) if id.isascii() else None
    if found is None:
        raise NotFound(f"There is no anomaly {id[:40]!r}. GET /api/v1/anomalies lists them.")
    return found


# --- saying something ---------------------------------------------------------------------------------------------


def say(backends: Backends, id: str, state: Said, *, by: str, reason: str | None = None) -> AnomalyRecord:
    """Put a person's word on an anomaly; the same word again changes nothing.

    Raises NotFound, InvalidInput for a dismissal without a reason, Conflict when others change it all the time.
    """
    given = (reason or "").strip() or None
    if state == "dismissed" and given is None:
        raise InvalidInput(
            "reason is missing. Say why it is dismissed: the next one like it is silenced by it.", field="reason"
        )
    if given and len(given) > MOST_REASON:
        raise InvalidInput(f"reason has {len(given)} characters; at most {MOST_REASON} are kept.", field="reason")
    for _ in range(ATTEMPTS):
        before = anomaly_of(backends, id)
        last = before.verdicts[-1] if before.verdicts else None
        if (last.state, last.reason) == (state, given) if last else state == "open":
            return before
        after = before.said(Verdict(state, backends.clock(), by, given))
        if backends.metadata.put_anomaly(after):
            return after
    raise Conflict(f"Anomaly {id} is being changed by somebody else. Try again.")


def plan(
    backends: Backends, scope: Scope, days: DateRange, reason: str, *, by: str, extra: Decimal | None = None
) -> PlannedSpend:
    """Say that something is planned; what is found there from now on is expected, up to `extra` dollars a day.

    Raises InvalidInput.
    """
    given = reason.strip()
    if extra is not None and not (extra.is_finite() and 0 < extra <= MOST_EXTRA):
        raise InvalidInput(f"extra {extra} is not an amount of dollars a day above 0.", field="extra")
    if len(days) > MOST_PLANNED_DAYS:
        raise InvalidInput(f"{len(days)} days are planned; at most {MOST_PLANNED_DAYS} are.", field="end")
    if not given or len(given) > MOST_REASON:
        raise InvalidInput(
            f"reason is empty or longer than {MOST_REASON} characters. Say what is planned.", field="reason"
        )
    named = "\0".join([*(repr(value) for _, value in scope.parts()), str(days.start), str(days.end)])
    name = hashlib.sha256(named.encode("utf-8", "surrogatepass")).hexdigest()[:16]
    found = PlannedSpend(name, scope, days.start, days.end, given, by, backends.clock(), extra)
    backends.metadata.put_planned_spend(found)
    return found


def forget_plan(backends: Backends, id: str) -> None:
    """Raises NotFound."""
    if not id.isascii() or not backends.metadata.forget_planned_spend(id):
        raise NotFound(f"There is no planned spend {id[:40]!r}. GET /api/v1/planned-spend lists them.")


# --- as a job -----------------------------------------------------------------------------------------------------


def detect_params(
    backends: Backends, as_of: date | None, *, backtest: bool, min_daily: float | None, min_total: float | None
) -> dict[str, Any]:
    """Checked parameters of a detect job. Raises InvalidInput."""
    if not backtest:
        if min_daily is not None or min_total is not None:
            raise InvalidInput(
                "min_daily and min_total go with backtest only. Set SPENDSCOPE_ANOMALY_MIN_DAILY and _TOTAL.",
                field="min_daily",
            )
        if as_of is not None and as_of > backends.today():
            raise InvalidInput(f"as_of {as_of} is after today ({backends.today()}).", field="as_of")
        return {} if as_of is None else {"as_of": as_of.isoformat()}
    if as_of is not None:
        raise InvalidInput("as_of does not go with backtest, which counts the last 12 months.", field="as_of")
    return {BACKTEST: True, "min_daily": min_daily, "min_total": min_total}


def submit_detect(backends: Backends, params: Mapping[str, Any]) -> Job:
    """The same question is the same job while it is not done."""
    return submit(backends, KIND, params, key=f"{KIND} {sorted(params.items())}")


def detect_when_drained(backends: Backends, judged: tuple[int, date] | None = None) -> tuple[int, date] | None:
    """Submit a run once all that was to be ingested is: one for each version of the ledger, and one a day.

    Takes and returns what was judged last: (version, day). One scheduler submits it, however many ask.
    """
    version, today = backends.metadata.ledger_version(), backends.today()
    if not version or judged == (version, today):
        return judged
    if any(job.kind in WAITED_FOR for job in backends.metadata.unfinished()):
        return judged
    slot = datetime(today.year, today.month, today.day, tzinfo=UTC)
    if backends.metadata.take_slot(f"anomalies of {version}", slot):
        submit_detect(backends, {})
    return version, today


def newest_backtests(backends: Backends, limit: int = 50) -> Iterator[Job]:
    """Backtests that are done or on their way, newest first."""
    jobs = backends.metadata.jobs(limit=limit, kind=KIND).items
    return (job for job in jobs if job.params.get(BACKTEST))


def has_data(backends: Backends) -> bool:
    return first_and_last_day(backends) is not None and bool(ledgers_of(backends).days)
