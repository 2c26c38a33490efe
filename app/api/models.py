"""What the API takes and answers with: the same models write the answers and the OpenAPI document.

Money that is a total is a string with every digit; `amount` of a row is a JSON number, also with every digit.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from decimal import Decimal
from typing import Annotated, Any, ClassVar, Literal

import orjson
from pydantic import BaseModel, ConfigDict, Field, WithJsonSchema

from app.channels import Channel
from app.core.amounts import text
from app.core.anomaly import Severity as AnomalySeverity
from app.core.anomaly import State as FoundState
from app.core.anomalyrecords import AnomalyRecord, AnomalyState, Moment, PlannedSpend, Said
from app.core.charges import Totals
from app.core.grafanaalerts import GrafanaAlert, GrafanaStatus
from app.core.jobs import Job, JobStatus
from app.core.ledger import AccountDay, DayStatus, Ingestion, IngestionStatus
from app.core.notifications import ChannelState, Delivery, DeliveryStatus, NotificationKind, Severity
from app.core.reconciliation import Category
from app.core.restatements import Move, Notice, NoticeKind
from app.core.scopes import Scope
from app.core.suspects import Kind

Amount = Annotated[Decimal, WithJsonSchema({"type": "number"})]
ExactText = Annotated[str, Field(pattern=r"^-?[0-9]+(\.[0-9]+)?$", examples=["4321.0934"])]
"""A decimal with every digit and no exponent."""


def exact_text(value: Decimal | None) -> str | None:
    return None if value is None else text(value)


class Answer(BaseModel):
    """Base of everything answered: names are exactly these."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    def json_bytes(self) -> bytes:
        """Members that were never set are absent; decimals are numbers with every digit they have."""
        return orjson.dumps(self.model_dump(exclude_unset=True), default=_number)

    def json_text(self) -> str:
        return self.json_bytes().decode()


def _number(value: Any) -> orjson.Fragment:
    if isinstance(value, Decimal):
        return orjson.Fragment(text(value))
    raise TypeError(type(value))


class Problem(Answer):
    """An error (RFC 9457). `code` is stable; `detail` names the thing, the value and the way out."""

    type: str
    title: str
    status: int
    detail: str
    instance: str
    code: str
    field: str | None = Field(None, description="The parameter or member of the body that is wrong.")
    part: str | None = Field(None, description="The part that does not answer, as /readyz calls it.")
    reference: str | None = Field(None, description="What to look for in the log.")
    request_id: str | None = Field(None, description="As in the header X-Request-Id: what the log has of this request.")


# --- costs --------------------------------------------------------------------------------------------------------


class Freshness(Answer):
    """How far the figures of the range can be trusted."""

    complete_through: dt.date | None = Field(description="Last day of the unbroken run of complete days.")
    settling: list[dt.date] = Field(description="Days whose figures still change.")
    missing: list[dt.date] = Field(description="Days that lack an account which had cost in the 14 days before.")
    quarantined: list[dt.date] = Field(description="Days whose newest file could not be taken.")
    restating: list[dt.date] = Field(description="Days being rewritten now; the last verified figures are shown.")
    updated: dt.datetime | None = Field(description="When any figure last changed.")


class CostRow(Answer):
    """One group in one period. Has `date` unless the granularity is total, and one member for each `group_by`."""

    date: dt.date | None = Field(None, description="First day of the period: weeks start on Monday.")
    provider: str | None = None
    account: str | None = None
    service: str | None = None
    region: str | None = None
    charge_category: str | None = None
    amount: Amount | None = Field(description="null where the metric is not available for one of the charges.")
    other: Literal[True] | None = Field(None, description="Present on the row that sums up the groups beyond `top`.")


class NotKept(Answer):
    """Why rows are lacking: the range reaches back further than what is kept by day."""

    since: dt.date = Field(description="First day that is kept by day.")
    reason: str


class Costs(Answer):
    """Rows by period, then by total cost, largest first. A period without any data has no row: unknown is never 0."""

    rows: list[CostRow]
    total: ExactText | None = Field(
        description="Exact sum of range and filters whatever the grouping, `top` or page; null when no day was ever ingested."
    )
    currency: str
    unit: str | None = Field(description="Unit of the amounts; null for a usage quantity, whose units may be mixed.")
    data_version: int = Field(description="Equal questions with equal data versions have equal figures.")
    freshness: Freshness
    not_kept: NotKept | None = Field(None, description="Present where days of the range are no longer kept by day.")
    next_cursor: str | None = Field(description="Give it as `cursor` for the next page; null on the last.")


class ComparedRow(Answer):
    """One group before and after; null where that is not known. A group without a charge in a range with data cost 0."""

    provider: str | None = None
    account: str | None = None
    service: str | None = None
    region: str | None = None
    charge_category: str | None = None
    before: Amount | None
    after: Amount | None
    change: Amount | None
    percent: Amount | None = Field(description="Of what it was, in percent; null where it was nothing or is not known.")
    other: Literal[True] | None = Field(None, description="Present on the row that sums up the groups beyond `top`.")


class Baseline(Answer):
    """The range that is compared with."""

    start: dt.date
    end: dt.date
    freshness: Freshness


class Comparison(Answer):
    """Rows by change, largest first, whichever its direction. Totals are exact, whatever the grouping, `top` or page."""

    rows: list[ComparedRow]
    before: ExactText | None = Field(description="Total of the baseline; null when none of its days was ever ingested.")
    after: ExactText | None = Field(description="Total of the range.")
    change: ExactText | None
    percent: ExactText | None
    currency: str
    unit: str | None = Field(description="Unit of the amounts; null for a usage quantity, whose units may be mixed.")
    data_version: int
    freshness: Freshness
    baseline: Baseline
    not_kept: NotKept | None = Field(
        None, description="Present, and `rows` empty, where days of a range are not kept by day."
    )
    next_cursor: str | None


class Expected(Answer):
    """A sum as expected, and the band in which four of five such sums ended up on the history."""

    expected: ExactText
    low: ExactText
    high: ExactText


class ForecastDay(Answer):
    date: dt.date
    amount: Amount = Field(description="Of this day: as reported, or as expected where it is not complete.")
    sum: Expected = Field(description="From the first of the days to this one.")


class Month(Answer):
    """The current month."""

    start: dt.date
    end: dt.date
    spent: ExactText | None = Field(description="What is reported of it; null when nothing is.")
    total: Expected


class Forecast(Answer):
    """How spend goes on: weekdays and days of the month go on at the newest level. What it is made of, and how wrong it
    has been, is in docs/budgets.md."""

    month: Month | None = Field(description="null where nothing can be said; `reason` says why.")
    days: list[ForecastDay]
    reason: str | None
    band: float = Field(
        description="Share of earlier forecasts that ended up between `low` and `high`.", examples=[0.8]
    )
    currency: str
    data_version: int
    freshness: Freshness = Field(description="Of the current month.")


class DimensionValue(Answer):
    value: str
    total: ExactText | None = Field(description="Exact cost over the range; null when the metric is not available.")


class DimensionValues(Answer):
    """Values by cost, largest first."""

    items: list[DimensionValue]
    data_version: int
    next_cursor: str | None


# --- ledger -------------------------------------------------------------------------------------------------------


class MetricTotals(Answer):
    """Exact sums over some charges; `blended_cost` is null as soon as one of them has none."""

    rows: int
    amortized_cost: ExactText
    blended_cost: ExactText | None
    unblended_cost: ExactText
    usage_quantity: ExactText

    @classmethod
    def of(cls, totals: Totals) -> MetricTotals:
        return cls(
            rows=totals.rows,
            amortized_cost=text(totals.amortized_cost),
            blended_cost=exact_text(totals.blended_cost),
            unblended_cost=text(totals.unblended_cost),
            usage_quantity=text(totals.usage_quantity),
        )


class AccountCoverage(Answer):
    """One account's part of one day; the figures are null while nothing was ever accepted for it."""

    account: str
    status: DayStatus
    owner: str | None = Field(description="The file its figures come from.")
    revision: int = Field(description="How often its figures were reported: 1 is the first time, 0 never.")
    first_reported: dt.datetime | None
    changed: dt.datetime | None
    first: MetricTotals | None = Field(description="As first reported.")
    current: MetricTotals | None = Field(description="As known now.")

    @classmethod
    def of(cls, account: str, status: DayStatus, part: AccountDay | None) -> AccountCoverage:
        return cls(
            account=account,
            status=status,
            owner=part.owner if part else None,
            revision=part.revision if part else 0,
            first_reported=part.first_reported if part else None,
            changed=part.changed if part else None,
            first=MetricTotals.of(part.first) if part else None,
            current=MetricTotals.of(part.current) if part else None,
        )


class DayCoverage(Answer):
    """`status` is the worst of the accounts, null for a day on which nothing is expected."""

    date: dt.date
    status: DayStatus | None
    restating: bool
    accounts: list[AccountCoverage]


class CoverageDays(Answer):
    """Days in order."""

    items: list[DayCoverage]
    complete_through: dt.date | None = Field(description="Last day of the unbroken run of complete days.")
    retention_days: int = Field(description="Days that are kept by day, SPENDSCOPE_RETENTION_DAYS; 0 for ever.")
    kept_since: dt.date | None = Field(
        description="First day that is kept by day, null for all. Before it totals by month and account remain."
    )
    next_cursor: str | None


class ReasonNotTaken(Answer):
    """Why a file was not taken. `line` counts from 1 and includes the header."""

    code: str
    message: str
    line: int | None
    column: str | None
    value: str | None


class IngestionSummary(Answer):
    """What became of one version of one source object."""

    id: str
    source: str = Field(description="The root it was found below.")
    key: str = Field(description="Its name below the root.")
    version: str = Field(description="Changes whenever the bytes may have changed.")
    day: dt.date | None
    status: IngestionStatus
    started: dt.datetime
    finished: dt.datetime | None
    sha256: str | None
    size: int
    rows: int
    totals: MetricTotals | None
    held: list[str] = Field(description="Accounts whose day belongs to another file: reconciled with it, never added.")
    notice: str | None
    reason: ReasonNotTaken | None
    revision: int | None = Field(description="Revision of the day that it made.")
    job_id: str | None


class IngestionDetail(IngestionSummary):
    accounts: dict[str, MetricTotals]


class Ingestions(Answer):
    """Newest first."""

    items: list[IngestionSummary]
    next_cursor: str | None


def ingestion_members(found: Ingestion) -> dict[str, Any]:
    """Members that a summary and a detail share."""
    members = {name: getattr(found, name) for name in IngestionSummary.model_fields}
    reason = found.reason
    return members | {
        "held": list(found.held),
        "totals": MetricTotals.of(found.totals) if found.totals else None,
        "reason": ReasonNotTaken(**vars(reason)) if reason else None,
    }


# --- restatements -------------------------------------------------------------------------------------------------


class Moved(Answer):
    """From one figure to another; `percent` is null where it was nothing and is something now."""

    before: ExactText
    after: ExactText
    amount: ExactText
    percent: ExactText | None

    @classmethod
    def of(cls, move: Move | None) -> Moved | None:
        if move is None:
            return None
        return cls(
            before=text(move.before), after=text(move.after), amount=text(move.amount), percent=exact_text(move.percent)
        )


class Report(Answer):
    """One report of an account-day. `before` is null for the first one, and where the one before was not kept."""

    revision: int = Field(description="1 is the first report; it grows when figures or their estimated mark change.")
    at: dt.datetime
    source: str | None = Field(description="The file it came with; null when it is older than the restatement ledger.")
    sha256: str | None
    estimated: bool
    before: MetricTotals | None
    after: MetricTotals


class AccountRestatement(Answer):
    """One account's part of a day. All figures are null where the metric is not available."""

    account: str
    first: ExactText | None = Field(description="As first reported.")
    complete: ExactText | None = Field(description="As first called complete; null while it has not been, or unknown.")
    completed_at: dt.datetime | None
    current: ExactText | None = Field(description="As known now.")
    moved: Moved | None = Field(description="Since it was called complete.")
    reports: list[Report]


class DayRestatement(Answer):
    """A day with all of the accounts asked about, summed. It is complete when all of them are."""

    date: dt.date
    first: ExactText | None
    complete: ExactText | None
    completed_at: dt.datetime | None
    current: ExactText | None
    moved: Moved | None
    accounts: list[AccountRestatement]


class Restatements(Answer):
    """Days that were ever reported, in order."""

    items: list[DayRestatement]
    metric: str
    unit: str | None = Field(description="Unit of the figures; null for a usage quantity.")
    next_cursor: str | None


class MovementAtAge(Answer):
    """How far days had moved, without the sign, so long after they were called complete: percent of what they were."""

    age: int = Field(description="Days since the day was called complete.")
    days: int = Field(description="How many days of the range are that old.")
    median: ExactText
    p90: ExactText
    max: ExactText


class Movements(Answer):
    """By age, youngest first."""

    items: list[MovementAtAge]
    metric: str
    next_cursor: str | None


class NoticeMove(Answer):
    account: str
    before: ExactText
    after: ExactText


class NoticeAnswer(Answer):
    """Something a person should know about the figures. `day` of a reference is the first of its month."""

    id: str
    kind: NoticeKind
    at: dt.datetime
    day: dt.date
    message: str
    moved: Moved | None = Field(description="All its accounts together; null when it is about something else.")
    accounts: list[NoticeMove]

    @classmethod
    def of(cls, notice: Notice) -> NoticeAnswer:
        return cls(
            id=notice.id,
            kind=notice.kind,
            at=notice.at,
            day=notice.day,
            message=notice.message,
            moved=Moved.of(notice.move),
            accounts=[
                NoticeMove(account=name, before=text(move.before), after=text(move.after))
                for name, move in notice.moves.items()
            ],
        )


class Notices(Answer):
    """Newest first."""

    items: list[NoticeAnswer]
    next_cursor: str | None


# --- reconciliation -----------------------------------------------------------------------------------------------


class DayAmount(Answer):
    date: dt.date
    amount: ExactText


class Explained(Answer):
    """`tax`, `credits`, `refunds`, `support`: what the file lacks or has differently. `rounding`: less than half a cent a day.
    `held`: a file that is held against the account-day has Cost Explorer's total. `timing`: the account-day was that once,
    is settling, or could not be collected."""

    category: Category
    amount: ExactText


class AccountReconciliation(Answer):
    """One account's month. `difference` = `ours` − `cost_explorer` = Σ `explained` + `unexplained`, exactly; these are
    null when no day could be compared."""

    account: str
    file: ExactText | None = Field(
        description="Sum of what its files say; null where the ledger lacks a file's record."
    )
    ledger: ExactText | None = Field(description="What is shown; null where the metric is not available.")
    store: ExactText | None = Field(
        description="Read from the cost store; null where it has not all of the days any more."
    )
    days_compared: int
    ours: ExactText | None = Field(description="The ledger's total of the compared days.")
    cost_explorer: ExactText | None = Field(description="Cost Explorer's total of the same days.")
    difference: ExactText | None
    explained: list[Explained]
    unexplained: ExactText | None
    unexplained_days: list[DayAmount]
    only_here: list[DayAmount] = Field(description="Days that Cost Explorer's totals lack.")
    only_there: list[DayAmount] = Field(description="Days that no accepted file speaks for.")


class ReferenceState(Answer):
    """Cost Explorer's totals as the collector recorded them."""

    collected: dt.datetime | None = Field(
        description="When they were collected; null when there are none that can be read."
    )
    recorded: bool = Field(description="Whether they have this metric.")
    problem: str | None = Field(description="Why the newest file of them could not be read.")


class ReconciledMonth(Answer):
    """Every account that either side has, by name."""

    month: str
    metric: str
    currency: str
    reference: ReferenceState
    store_exact: bool = Field(description="false: the store keeps floats, which agree to 1e-6.")
    store_since: dt.date | None = Field(description="First day the store keeps; null for all.")
    items: list[AccountReconciliation]
    next_cursor: str | None


# --- jobs ---------------------------------------------------------------------------------------------------------


class JobRequest(BaseModel):
    """Work to be done."""

    model_config = ConfigDict(extra="forbid", strict=True)

    kind: Literal["ingest", "collect", "backfill", "detect", "judge", "scan"] = Field(
        description="`ingest` takes one cost file from the source, `collect` asks Cost Explorer for days, `backfill` for "
        "months of history, `detect` looks for anomalies in what is stored, `judge` whether rules hold. `scan` is not available yet."
    )
    params: dict[str, Any] = Field(
        default_factory=dict,
        description="For `ingest`: `key`, the name of the file below the source's root, and `again` to take known bytes too. "
        "For `collect`: `start`, `end`, `accounts`, each optional. For `backfill`: `months`. "
        "For `detect`: `as_of`, or `backtest` with `min_daily` and `min_total` to count the alerts of the last 12 months.",
    )


class IngestParams(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    key: str = Field(max_length=1024, description="Name of the file below the source's root, YYYY-MM-DD.csv[.gz].")
    again: bool = Field(False, description="Read and check the file also when these bytes were dealt with before.")


class CollectParams(BaseModel):
    """Without days: those of a daily run. Without accounts: all."""

    model_config = ConfigDict(extra="forbid", strict=True)

    start: str | None = Field(None, max_length=40, description="First day, YYYY-MM-DD.")
    end: str | None = Field(None, max_length=40, description="The day after the last, YYYY-MM-DD.")
    accounts: list[str] = Field(default_factory=list, max_length=1000, description="AWS account numbers.")


class BackfillParams(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    months: int = Field(description="Full months before the current one, 1 to 13.")


class DetectParams(BaseModel):
    """With `backtest` nothing is kept: the job's result says how many alerts these limits would have raised."""

    model_config = ConfigDict(extra="forbid", strict=True)

    as_of: str | None = Field(None, max_length=40, description="Judge as of this day, YYYY-MM-DD.")
    backtest: bool = Field(False, description="Count the alerts of the last 12 months instead.")
    min_daily: float | None = Field(None, ge=0, le=1e12, description="Excess on one day that is worth an alert.")
    min_total: float | None = Field(None, ge=0, le=1e12, description="Excess that an anomaly must be worth in all.")


class JudgeParams(BaseModel):
    """Every rule that is on is judged."""

    model_config = ConfigDict(extra="forbid", strict=True)


# --- anomalies ----------------------------------------------------------------------------------------------------


class ScopeAnswer(Answer):
    """Where: null means all."""

    account: str | None
    service: str | None
    region: str | None

    @classmethod
    def of(cls, scope: Scope) -> ScopeAnswer:
        return cls(account=scope.account, service=scope.service, region=scope.region)


class Contribution(Answer):
    scope: ScopeAnswer
    impact: ExactText


class KnownThen(Answer):
    """What was known on `day`, about the usage day `date`."""

    day: dt.date
    date: dt.date
    expected: ExactText
    low: ExactText
    high: ExactText
    actual: ExactText
    impact: ExactText
    found: FoundState


class VerdictAnswer(Answer):
    """What somebody said; `by` is "feedback" or "planned spend" where that silenced it."""

    state: Said
    at: dt.datetime
    by: str
    reason: str | None
    plan: str | None = Field(description="The planned spend that silenced it, or that it grew beyond.")


class AnomalyAnswer(Answer):
    """Dollars of amortized cost. `date` is the day it is about, with its figures; `impact` the dollars beyond what was
    expected from `start` to `date`."""

    id: str
    scope: ScopeAnswer
    kind: Kind
    severity: AnomalySeverity
    state: AnomalyState
    found: FoundState = Field(description="What the detector says, whatever people said.")
    withdrawn: bool = Field(description="Later figures took it away.")
    start: dt.date
    date: dt.date
    detected_on: dt.date
    expected: ExactText
    low: ExactText = Field(description="The expected band's lower end.")
    high: ExactText = Field(description="The expected band's upper end.")
    actual: ExactText
    impact: ExactText
    contributions: list[Contribution] = Field(description="Ranked.")
    root_causes: list[ScopeAnswer] = Field(description="Ranked.")
    reason: str | None
    verdicts: list[VerdictAnswer] = Field(description="In the order they came.")
    known: list[KnownThen] = Field(description="What was known when, oldest first.")
    updated: dt.datetime

    _SAME: ClassVar = (
        "id", "kind", "severity", "state", "found", "withdrawn", "start", "date", "detected_on", "reason", "updated",
    )  # fmt: skip

    @classmethod
    def of(cls, record: AnomalyRecord) -> AnomalyAnswer:
        amounts: Any = {name: text(getattr(record, name)) for name in ("expected", "low", "high", "actual", "impact")}
        same: Any = {name: getattr(record, name) for name in cls._SAME}
        return cls(
            **same,
            **amounts,
            scope=ScopeAnswer.of(record.scope),
            contributions=[
                Contribution(scope=ScopeAnswer.of(part.scope), impact=text(part.impact))
                for part in record.contributions
            ],
            root_causes=[ScopeAnswer.of(scope) for scope in record.root_causes],
            verdicts=[
                VerdictAnswer(state=said.state, at=said.at, by=said.by, reason=said.reason, plan=said.plan)
                for said in record.verdicts
            ],
            known=[_known_then(moment) for moment in record.moments],
        )


def _known_then(moment: Moment) -> KnownThen:
    amounts = {name: text(getattr(moment, name)) for name in ("expected", "low", "high", "actual", "impact")}
    return KnownThen(day=moment.day, date=moment.date, found=moment.found, **amounts)


class AnomalyList(Answer):
    """Open ones first, then by the newest day, then by dollars."""

    items: list[AnomalyAnswer]
    next_cursor: str | None


class AnomalyChange(BaseModel):
    """What a person says of an anomaly; `open` takes it back."""

    model_config = ConfigDict(extra="forbid", strict=True)

    state: Said
    reason: str | None = Field(None, max_length=500, description="Required to dismiss it.")


class PlannedSpendRequest(BaseModel):
    """What is found in this scope and begins on these days is expected."""

    model_config = ConfigDict(extra="forbid", strict=True)

    start: str = Field(max_length=40, description="First day, YYYY-MM-DD.")
    end: str = Field(max_length=40, description="The day after the last.")
    reason: str = Field(max_length=500)
    account: str | None = Field(None, min_length=1, max_length=1024)
    service: str | None = Field(None, min_length=1, max_length=1024)
    region: str | None = Field(None, min_length=1, max_length=1024)
    extra: str | None = Field(
        None,
        max_length=30,
        pattern=r"^[0-9]+(\.[0-9]+)?$",
        description="Dollars a day that are expected beyond the usual, as text; more is news. Null: whatever it is.",
        examples=["250.00"],
    )


class PlannedSpendAnswer(Answer):
    id: str
    scope: ScopeAnswer
    start: dt.date
    end: dt.date
    reason: str
    by: str
    at: dt.datetime
    extra: ExactText | None = Field(description="Dollars a day beyond the usual; null: whatever it is.")

    @classmethod
    def of(cls, plan: PlannedSpend) -> PlannedSpendAnswer:
        same = {name: getattr(plan, name) for name in ("id", "start", "end", "reason", "by", "at")}
        return cls(scope=ScopeAnswer.of(plan.scope), extra=exact_text(plan.extra), **same)


class PlannedSpendList(Answer):
    """By first day."""

    items: list[PlannedSpendAnswer]


# --- alerts of Grafana --------------------------------------------------------------------------------------------


class GrafanaAlertGiven(BaseModel):
    """One alert of a delivery, with the names that Grafana gives its members."""

    model_config = ConfigDict(extra="ignore", populate_by_name=True)

    status: Literal["firing", "resolved"]
    fingerprint: str = Field(min_length=1, max_length=200)
    labels: dict[str, str] | None = None
    annotations: dict[str, str] | None = None
    values: dict[str, Any] | None = Field(None, description="Of the rule's expressions; what is no number is not kept.")
    starts: str = Field(alias="startsAt", max_length=60)
    ends: str | None = Field(None, alias="endsAt", max_length=60)
    generator: str | None = Field(None, alias="generatorURL")
    silence: str | None = Field(None, alias="silenceURL")
    dashboard: str | None = Field(None, alias="dashboardURL")
    panel: str | None = Field(None, alias="panelURL")


class GrafanaDelivery(BaseModel):
    """What a webhook contact point posts; other members are ignored."""

    model_config = ConfigDict(extra="ignore")

    alerts: list[GrafanaAlertGiven] = Field(max_length=1000)


class GrafanaTaken(Answer):
    received: int
    changed: int = Field(description="How many are new, or have another status than before.")


class GrafanaAlertAnswer(Answer):
    """Texts as Grafana sent them, on one line and cut; links are http or https, or null."""

    id: str
    fingerprint: str
    status: GrafanaStatus = Field(
        description="`missed`: the same alert fired again, and nobody told that this one ended."
    )
    title: str
    accounts: list[str]
    labels: Mapping[str, str]
    annotations: Mapping[str, str]
    values: Mapping[str, float]
    starts: dt.datetime
    ends: dt.datetime | None
    panel: str | None = Field(description="The panel or dashboard it is about.")
    rule: str | None
    silence: str | None
    first: dt.datetime = Field(description="When it was heard of first.")
    last: dt.datetime

    @classmethod
    def of(cls, alert: GrafanaAlert) -> GrafanaAlertAnswer:
        same = {name: getattr(alert, name) for name in cls.model_fields if name != "accounts"}
        return cls(accounts=sorted(alert.accounts), **same)


class GrafanaAlertList(Answer):
    """By when they began, newest first."""

    items: list[GrafanaAlertAnswer]
    next_cursor: str | None


# --- jobs, as they are --------------------------------------------------------------------------------------------


class JobAnswer(Answer):
    """A job and how far it is: `done_steps` of `all_steps`, which is null while nobody knows."""

    id: str
    kind: str
    params: Mapping[str, Any]
    status: JobStatus
    created: dt.datetime
    started: dt.datetime | None
    finished: dt.datetime | None
    not_before: dt.datetime | None = Field(description="When a waiting job is tried again.")
    attempts: int
    done_steps: int
    all_steps: int | None
    message: str | None
    result: Mapping[str, Any]
    request_id: str | None = Field(
        description="Of the request that submitted it, where one did; the logs carry it too."
    )

    @classmethod
    def of(cls, job: Job) -> JobAnswer:
        return cls(**{name: getattr(job, name) for name in cls.model_fields})


class JobList(Answer):
    """Newest first."""

    items: list[JobAnswer]
    next_cursor: str | None


# --- notifications --------------------------------------------------------------------------------------------------


class Fact(Answer):
    name: str
    value: str


class DeliveryAnswer(Answer):
    """A notification on its way to a channel, or what became of it."""

    id: str
    channel: str
    kind: NotificationKind
    severity: Severity
    resolved: bool = Field(description="It tells that what an earlier one told is over.")
    title: str
    facts: list[Fact]
    link: str | None
    accounts: list[str] = Field(description="Those it is about; empty for all.")
    occurred: dt.datetime
    created: dt.datetime
    status: DeliveryStatus
    attempts: int
    not_before: dt.datetime | None = Field(description="When it is tried again.")
    finished: dt.datetime | None
    message: str | None = Field(description="Why it failed, was dropped, or has to wait.")
    message_id: str | None = Field(description="Of the message it went out with; a digest has several.")

    @classmethod
    def of(cls, delivery: Delivery) -> DeliveryAnswer:
        told = delivery.notification
        return cls(
            id=delivery.id,
            channel=delivery.channel,
            kind=told.kind,
            severity=told.severity,
            resolved=told.resolved,
            title=told.title,
            facts=[Fact(name=name, value=value) for name, value in told.facts],
            link=told.link,
            accounts=list(told.accounts),
            occurred=told.occurred,
            created=delivery.created,
            status=delivery.status,
            attempts=delivery.attempts,
            not_before=delivery.not_before,
            finished=delivery.finished,
            message=delivery.message,
            message_id=delivery.bundle,
        )


class Deliveries(Answer):
    """Newest first."""

    items: list[DeliveryAnswer]
    next_cursor: str | None


class ChannelAnswer(Answer):
    """A channel without its address and keys."""

    name: str
    type: str
    kinds: list[str]
    least_severity: Severity
    accounts: list[str]
    quiet_hours: str | None
    time_zone: str
    disabled: str | None = Field(description="Why nothing is sent; null while it works.")

    @classmethod
    def of(cls, channel: Channel, state: ChannelState) -> ChannelAnswer:
        return cls(
            name=channel.name,
            type=channel.type,
            kinds=list(channel.kinds),
            least_severity=channel.least_severity,
            accounts=list(channel.accounts),
            quiet_hours=channel.quiet_hours,
            time_zone=channel.time_zone,
            disabled=state.disabled,
        )


class Channels(Answer):
    """In the order of the file."""

    items: list[ChannelAnswer]
    next_cursor: str | None


class NotificationTest(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    channel: str = Field(max_length=40, description="Name of the channel.", examples=["platform"])


# --- how it is ----------------------------------------------------------------------------------------------------


class PartReadiness(Answer):
    ok: bool
    message: str


class Readiness(Answer):
    """`ready` when stores, queue and at least one worker answer, whether there is data or not."""

    ready: bool
    parts: dict[str, PartReadiness]
