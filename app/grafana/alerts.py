"""Alert rules as data: one core, written as provisioning files and as bodies of Grafana's HTTP API.

Annotations are templates of Grafana's, which expands no environment variable in them; labels have no `$`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any, Final, Literal

from app.grafana import flux
from app.grafana.choices import Choices
from app.grafana.dashboards import (
    AGE_PANEL,
    ANOMALIES_PANEL,
    COSTS,
    DAILY_PANEL,
    OPERATIONS,
    TOO_LATE,
    TOTAL_PANEL,
)
from app.grafana.panels import INFLUXDB, PROMETHEUS, Json

FOLDER, FOLDER_TITLE = "spendscope", "Spendscope"
SOURCE_LABEL: Final = ("source", "spendscope")
"""On every rule; the notification policy routes by it."""

SPIKE_DAYS, SPIKE_TIMES, SPIKE_DOLLARS = 28, 1.5, 100
ANOMALY_DAYS, ANOMALY_DOLLARS = 4, 100
BUDGET_NEAR: Final = Decimal("0.8")
PAUSED_BUDGET: Final = Decimal(10_000)
"""Stands in a budget rule that is paused because no budget was given."""

Comparison = Literal["gt", "lt"]
State = Literal["OK", "Alerting"]


@dataclass(frozen=True)
class Query:
    """What a rule asks: a Flux or PromQL text, and the seconds before now it is asked about."""

    datasource: str
    text: str
    seconds: int

    def model(self) -> Json:
        if self.datasource == INFLUXDB:
            return {
                "refId": "A",
                "datasource": {"type": "influxdb", "uid": INFLUXDB},
                "query": self.text,
                "intervalMs": 60_000,
                "maxDataPoints": 10_000,
            }
        return {
            "refId": "A",
            "datasource": {"type": "prometheus", "uid": PROMETHEUS},
            "expr": self.text,
            "editorMode": "code",
            "instant": True,
            "range": False,
        }


@dataclass(frozen=True)
class Rule:
    """Fires for each series of the query whose newest value is beyond `limit` for `lasting`."""

    uid: str
    title: str
    query: Query
    comparison: Comparison
    limit: float
    severity: Literal["warning", "critical"]
    summary: str
    description: str
    panel: tuple[str, int]
    lasting: str = "0s"
    no_data: State = "OK"
    paused: bool = False
    more: Mapping[str, str] = field(default_factory=dict)
    """Further annotations."""

    def core(self) -> Json:
        """What files and the API write alike. A blip of the data source keeps the last state."""
        dashboard, panel = self.panel
        return {
            "uid": self.uid,
            "title": self.title,
            "condition": "C",
            "data": [_asked(self.query), _newest(), _beyond(self.comparison, self.limit)],
            "noDataState": self.no_data,
            "execErrState": "KeepLast",
            "for": self.lasting,
            "annotations": {
                "summary": self.summary,
                "description": self.description,
                "__dashboardUid__": dashboard,
                "__panelId__": str(panel),
                **self.more,
            },
            "labels": {SOURCE_LABEL[0]: SOURCE_LABEL[1], "severity": self.severity},
            "isPaused": self.paused,
        }


def _asked(query: Query) -> Json:
    return {
        "refId": "A",
        "relativeTimeRange": {"from": query.seconds, "to": 0},
        "datasourceUid": query.datasource,
        "model": query.model(),
    }


def _newest() -> Json:
    model = {"type": "reduce", "expression": "A", "reducer": "last", "settings": {"mode": "dropNN"}}
    return _expression("B", model)


def _beyond(comparison: Comparison, limit: float) -> Json:
    return _expression(
        "C",
        {
            "type": "threshold",
            "expression": "B",
            "conditions": [{"evaluator": {"type": comparison, "params": [limit]}}],
        },
    )


def _expression(ref: str, model: Json) -> Json:
    whole: dict[str, Any] = {"refId": ref, "datasource": {"type": "__expr__", "uid": "__expr__"}, **model}
    return {
        "refId": ref,
        "relativeTimeRange": {"from": 0, "to": 0},
        "datasourceUid": "__expr__",
        "model": whole,
    }


@dataclass(frozen=True)
class Group:
    name: str
    seconds: int
    """Between two evaluations."""
    rules: tuple[Rule, ...]


DAY: Final = 86_400


def cost_rules(choices: Choices) -> Group:
    """Daily figures: asked once an hour."""
    return Group("Spendscope costs", 3600, (_spike(choices), *_budget(choices), _stale(choices), _anomaly(choices)))


def _influx(text: str, days: int) -> Query:
    return Query(INFLUXDB, text, days * DAY)


AMOUNT: Final = '{{ printf "%.2f" $values.B.Value }}'


def _spike(choices: Choices) -> Rule:
    settled = choices.settling_days + 1
    return Rule(
        uid="spendscope-spend-spike",
        title="Spend spike",
        query=_influx(flux.spike(settled_after=settled, days=SPIKE_DAYS, times=SPIKE_TIMES), SPIKE_DAYS + settled + 1),
        comparison="gt",
        limit=SPIKE_DOLLARS,
        severity="warning",
        summary="{{ $labels.service }} costs more than usual",
        description=(
            f"The newest settled day of {{{{ $labels.service }}}} cost {AMOUNT} {choices.currency} more than "
            f"{SPIKE_TIMES} times its daily mean of the {SPIKE_DAYS} days before."
        ),
        panel=(COSTS, DAILY_PANEL),
        more={"spendscope": f"{choices.public_url}/?period=90d&service={{{{ urlquery $labels.service }}}}"},
    )


def _budget(choices: Choices) -> tuple[Rule, Rule]:
    budget = choices.monthly_budget or PAUSED_BUDGET
    query = _influx(flux.month_to_date(), 32)
    spent = f"{AMOUNT} of {budget:,} {choices.currency} are spent this month."
    link = {"spendscope": f"{choices.public_url}/?period=mtd"}
    paused = choices.monthly_budget is None
    near = float(budget * BUDGET_NEAR)
    panel = (COSTS, TOTAL_PANEL)
    return (
        Rule(
            uid="spendscope-budget-near",
            title="Monthly budget nearly used",
            query=query,
            comparison="gt",
            limit=near,
            severity="warning",
            summary=f"{BUDGET_NEAR:.0%} of the monthly budget are used",
            description=spent,
            panel=panel,
            paused=paused,
            more=link,
        ),
        Rule(
            uid="spendscope-budget-over",
            title="Monthly budget exceeded",
            query=query,
            comparison="gt",
            limit=float(budget),
            severity="critical",
            summary="The monthly budget is exceeded",
            description=spent,
            panel=panel,
            paused=paused,
            more=link,
        ),
    )


def _stale(choices: Choices) -> Rule:
    return Rule(
        uid="spendscope-data-stale",
        title="Cost data is stale",
        query=_influx(flux.data_age(), 35),
        comparison="gt",
        limit=TOO_LATE,
        severity="critical",
        summary="No cost data for more than two days",
        description=(
            "The newest day in InfluxDB ended {{ humanizeDuration $values.B.Value }} ago. "
            "Look at the source, the collector and quarantined files."
        ),
        panel=(COSTS, AGE_PANEL),
        no_data="Alerting",
        more={"spendscope": f"{choices.public_url}/"},
    )


def _anomaly(choices: Choices) -> Rule:
    return Rule(
        uid="spendscope-anomaly",
        title="Cost anomaly",
        query=_influx(flux.recent_anomalies(ANOMALY_DAYS), ANOMALY_DAYS + 1),
        comparison="gt",
        limit=ANOMALY_DOLLARS,
        severity="warning",
        summary="{{ $labels.kind }} of {{ $labels.service }} in {{ $labels.region }}",
        description=(
            f"Spendscope found {AMOUNT} {choices.currency} more than expected: {{{{ $labels.kind }}}}, account "
            "{{ $labels.account }}, service {{ $labels.service }}, region {{ $labels.region }}, "
            "severity {{ $labels.level }}."
        ),
        panel=(COSTS, ANOMALIES_PANEL),
        more={"spendscope": f"{choices.public_url}/anomalies"},
    )


# --- Spendscope itself --------------------------------------------------------------------------------------------


def operation_rules() -> Group:
    return Group("Spendscope operations", 60, (*_liveness(), *_data_rules(), *_request_rules()))


def _prometheus(text: str) -> Query:
    return Query(PROMETHEUS, text, 3600)


def _liveness() -> tuple[Rule, ...]:
    return (
        Rule(
            uid="spendscope-down",
            title="Spendscope is not scraped",
            query=_prometheus("count(spendscope_info) or vector(0)"),
            comparison="lt",
            limit=1,
            severity="critical",
            summary="Nothing is known about Spendscope",
            description="Prometheus has no sample of any web process: it is down, or is not scraped.",
            panel=(OPERATIONS, 6),
            lasting="5m",
            no_data="Alerting",
        ),
        Rule(
            uid="spendscope-part-down",
            title="A part of Spendscope does not answer",
            query=_prometheus("min by (part) (spendscope_part_up)"),
            comparison="lt",
            limit=1,
            severity="critical",
            summary="{{ $labels.part }} does not answer",
            description="Spendscope's {{ $labels.part }} has not answered for five minutes; /readyz says why.",
            panel=(OPERATIONS, 11),
            lasting="5m",
        ),
        Rule(
            uid="spendscope-no-worker",
            title="No worker",
            query=_prometheus("min(spendscope_workers)"),
            comparison="lt",
            limit=1,
            severity="critical",
            summary="No worker shows a sign of life",
            description="Nothing is ingested until a worker runs again; no accepted job is lost meanwhile.",
            panel=(OPERATIONS, 4),
            lasting="5m",
        ),
    )


def _data_rules() -> tuple[Rule, ...]:
    failed = 'spendscope_jobs{status="failed"}'
    return (
        Rule(
            uid="spendscope-no-new-day",
            title="No new day",
            query=_prometheus("max(spendscope_newest_day_age_seconds)"),
            comparison="gt",
            limit=TOO_LATE,
            severity="warning",
            summary="No new day of data for more than two days",
            description="The newest day ended {{ humanizeDuration $values.B.Value }} ago.",
            panel=(OPERATIONS, 1),
            lasting="15m",
        ),
        Rule(
            uid="spendscope-quarantined",
            title="A day is quarantined",
            query=_prometheus('max(spendscope_days{status="quarantined"})'),
            comparison="gt",
            limit=0,
            severity="warning",
            summary="Cost files were not taken",
            description='{{ printf "%.0f" $values.B.Value }} days wait for a correct file; Spendscope says line and reason.',
            panel=(OPERATIONS, 7),
        ),
        Rule(
            uid="spendscope-jobs-failed",
            title="Jobs failed",
            query=_prometheus(f"max({failed}) - min(min_over_time({failed}[1h]))"),
            comparison="gt",
            limit=0,
            severity="warning",
            summary="Jobs failed for good in the last hour",
            description='{{ printf "%.0f" $values.B.Value }} jobs used up their attempts; `spendscope status` counts them.',
            panel=(OPERATIONS, 8),
        ),
        Rule(
            uid="spendscope-queue-long",
            title="The queue does not shrink",
            query=_prometheus("max(min_over_time(spendscope_queue_waiting[30m]))"),
            comparison="gt",
            limit=1000,
            severity="warning",
            summary="More than 1,000 jobs wait",
            description="For half an hour at least 1,000 jobs have waited: start more workers, or see why jobs fail.",
            panel=(OPERATIONS, 10),
        ),
        Rule(
            uid="spendscope-job-stuck",
            title="A job does not end",
            query=_prometheus("max(spendscope_oldest_open_job_age_seconds)"),
            comparison="gt",
            limit=6 * 3600,
            severity="warning",
            summary="A job has been open for more than six hours",
            description="The oldest was submitted {{ humanizeDuration $values.B.Value }} ago; the Data page says what it waits for.",
            panel=(OPERATIONS, 17),
            lasting="15m",
        ),
    )


def _request_rules() -> tuple[Rule, ...]:
    total = "spendscope_http_requests_total"
    return (
        Rule(
            uid="spendscope-errors",
            title="Requests fail",
            query=_prometheus(f'sum(rate({total}{{status=~"5.."}}[5m])) / sum(rate({total}[5m]))'),
            comparison="gt",
            limit=0.01,
            severity="critical",
            summary="More than 1 of 100 requests fail",
            description='{{ printf "%.3f" $values.B.Value }} of all answers have a 5xx status.',
            panel=(OPERATIONS, 15),
            lasting="10m",
        ),
        Rule(
            uid="spendscope-slow",
            title="Requests are slow",
            query=_prometheus(
                "histogram_quantile(0.95, sum by (le) (rate(spendscope_http_request_seconds_bucket[5m])))"
            ),
            comparison="gt",
            limit=1,
            severity="warning",
            summary="Answers take more than a second",
            description='5 of 100 answers take longer than {{ printf "%.2f" $values.B.Value }} s.',
            panel=(OPERATIONS, 14),
            lasting="10m",
        ),
    )


# --- as files, as bodies ------------------------------------------------------------------------------------------


def group_file(group: Group) -> Json:
    """The group as a provisioning file has it."""
    return {
        "orgId": 1,
        "name": group.name,
        "folder": FOLDER_TITLE,
        "interval": f"{group.seconds}s",
        "rules": [rule.core() for rule in group.rules],
    }


def group_body(group: Group) -> Json:
    """The group as Grafana's HTTP API takes it."""
    place = {"orgID": 1, "folderUID": FOLDER, "ruleGroup": group.name}
    return {
        "title": group.name,
        "folderUid": FOLDER,
        "interval": group.seconds,
        "rules": [rule.core() | place for rule in group.rules],
    }
