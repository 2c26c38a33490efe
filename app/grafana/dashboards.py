"""The two dashboards: what the cloud costs (from InfluxDB) and how Spendscope itself is (from Prometheus)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from app.core.charges import DEFAULT_METRIC
from app.grafana import flux
from app.grafana.choices import Choices
from app.grafana.links import cell, overview, series
from app.grafana.panels import (
    BARS,
    FLUX,
    GREEN,
    LINES,
    NEUTRAL,
    ORANGE,
    PROMQL,
    RED,
    Head,
    Json,
    Place,
    Source,
    bars,
    fields,
    flux_target,
    link,
    override,
    promql_target,
    row,
    stat,
    table,
    trend,
)

COSTS: Final = "spendscope-costs"
OPERATIONS: Final = "spendscope-operations"
TAG: Final = "spendscope"
SHOWN: Final = 9
"""Series of the daily trend; the others are one more."""
OTHER: Final = "Other"
TOP: Final = 5
LATE, TOO_LATE = 36 * 3600, 48 * 3600
"""Seconds since the end of the newest day: providers report a day within a day, so two days are too many."""

TOTAL_PANEL, AGE_PANEL, DAILY_PANEL, ANOMALIES_PANEL = 1, 2, 5, 10


def costs(choices: Choices) -> Json:
    return _dashboard(
        COSTS,
        "Cloud cost",
        "What the cloud costs by service, region, account and day. Days are UTC.",
        FLUX,
        [_spendscope(choices), _metric(), *(_dimension(name) for name in flux.FILTERED)],
        [*_overall(choices), *_trends(choices), *_breakdowns(choices), *_found(choices)],
        # Whole days that ended: today has hardly any cost yet.
        {"from": "now-30d/d", "to": "now-1d/d"},
    )


def _overall(choices: Choices) -> list[Json]:
    everything = [link("Open in Spendscope", overview())]
    return [
        stat(
            Head(TOTAL_PANEL, "Total Spend", "Sum of the chosen metric over the days and filters.", Place(0, 0, 6, 5)),
            FLUX,
            flux_target(flux.total()),
            fields(choices.unit, base=NEUTRAL, links=everything),
        ),
        stat(
            Head(
                AGE_PANEL,
                "Data age",
                "Time since the end of the newest day with a charge. Orange after 36 hours, red after 48.",
                Place(0, 5, 6, 4),
            ),
            FLUX,
            flux_target(flux.data_age()),
            fields("s", thresholds={LATE: ORANGE, TOO_LATE: RED}, decimals=0),
        ),
        bars(
            Head(
                3,
                "Top 5 Services & Regions combined",
                "The five pairs of service and region that cost most.",
                Place(6, 0, 18, 9),
            ),
            FLUX,
            flux_target(flux.labelled(flux.largest("service", "region", most=TOP), "service", "region")),
            _cost_column(choices, overview(service=cell("service"), region=cell("region"))),
            along="group",
        ),
    ]


def _trends(choices: Choices) -> list[Json]:
    return [
        row(4, "Days", 9),
        trend(
            Head(
                DAILY_PANEL,
                "Daily Spend Trends",
                f'Cost a day by service: the {SHOWN} largest, the others together as "{OTHER}". The newest days settle.',
                Place(0, 10, 24, 10),
            ),
            FLUX,
            [flux_target(flux.daily("service", SHOWN, OTHER))],
            fields(
                choices.unit,
                name="${__field.labels.service}",
                custom=BARS,
                links=[link("Open ${__field.labels.service}", overview(service=series("service")))],
                overrides=[override(OTHER, links=[link("Open in Spendscope", overview())])],
            ),
        ),
        trend(
            Head(
                6,
                "Cost Comparison",
                "Amortized, blended and unblended cost a day. A day without blended cost of every charge has no such point.",
                Place(0, 20, 24, 8),
            ),
            FLUX,
            [flux_target(flux.comparison())],
            fields(
                choices.unit,
                name="${__field.labels.cost}",
                custom=LINES,
                links=[link("Open in Spendscope", overview())],
            ),
        ),
    ]


def _breakdowns(choices: Choices) -> list[Json]:
    return [
        row(7, "Where it goes", 28),
        _by("region", Head(8, "Cost per Region", "Cost of each region, largest first.", Place(0, 29, 12, 12)), choices),
        _by(
            "account",
            Head(11, "Cost per Account", "Cost of each account, largest first.", Place(12, 29, 12, 12)),
            choices,
        ),
        table(
            Head(
                9,
                "Service Usage Quantities",
                "Usage of each service. Units differ from service to service and are not added up.",
                Place(0, 41, 12, 12),
            ),
            FLUX,
            flux_target(flux.largest("service", field="usage_quantity")),
            fields(
                "short",
                base=NEUTRAL,
                overrides=[override("Service", links=[link("Open in Spendscope", overview(service=cell("Service")))])],
            ),
            columns={"service": "Service", "_value": "Usage quantity"},
        ),
    ]


def _by(dimension: str, head: Head, choices: Choices) -> Json:
    shown = _cost_column(choices, overview(**{dimension: cell(dimension)}))
    return bars(head, FLUX, flux_target(flux.largest(dimension)), shown, along=dimension)


def _cost_column(choices: Choices, url: str) -> Json:
    """Of a table of groups: only the amounts are renamed, the column that names a bar keeps its name."""
    return fields(
        choices.unit,
        links=[link("Open in Spendscope", url)],
        overrides=[override("_value", displayName="Cost")],
    )


def _found(choices: Choices) -> list[Json]:
    money = {"unit": choices.unit}
    return [
        table(
            Head(
                ANOMALIES_PANEL,
                "Anomalies",
                "What Spendscope's detector found on these days, dearest first: the expected and the actual cost.",
                Place(12, 41, 12, 12),
            ),
            FLUX,
            flux_target(flux.anomalies(100)),
            fields(
                "string",
                base=NEUTRAL,
                overrides=[
                    override("Day", unit="time:YYYY-MM-DD"),
                    *(override(name, **money) for name in ("Expected", "Actual", "Impact")),
                    override("Service", links=[link("Open in Spendscope", overview(service=cell("Service")))]),
                ],
            ),
            columns={
                "_time": "Day",
                "service": "Service",
                "region": "Region",
                "account": "Account",
                "kind": "Kind",
                "severity": "Severity",
                "expected": "Expected",
                "actual": "Actual",
                "impact": "Impact",
            },
        )
    ]


# --- Spendscope itself --------------------------------------------------------------------------------------------


def operations(choices: Choices) -> Json:
    return _dashboard(
        OPERATIONS,
        "Spendscope operations",
        "How old the data is, how the queue and the jobs are, how requests are answered.",
        PROMQL,
        [_spendscope(choices)],
        [*_states(), *_work(), *_requests()],
        {"from": "now-6h", "to": "now"},
    )


def _states() -> list[Json]:
    age = {LATE: ORANGE, TOO_LATE: RED}
    return [
        _number(
            1,
            "Data age",
            "Since the end of the newest day with data.",
            0,
            "max(spendscope_newest_day_age_seconds)",
            "s",
            age,
        ),
        _number(
            2,
            "Complete until",
            "Since the end of the last day of the unbroken run of complete days.",
            4,
            "max(spendscope_complete_age_seconds)",
            "s",
            {4 * 86_400: ORANGE, 7 * 86_400: RED},
        ),
        _number(3, "Last change", "Since any figure last changed.", 8, "max(spendscope_data_age_seconds)", "s", age),
        _number(
            4,
            "Workers",
            "Workers that have shown a sign of life lately.",
            12,
            "min(spendscope_workers)",
            "short",
            {1: GREEN},
            RED,
        ),
        _number(
            5,
            "Waiting jobs",
            "Jobs in the queue.",
            16,
            "max(spendscope_queue_waiting)",
            "short",
            {100: ORANGE, 1000: RED},
        ),
        _number(
            6,
            "Parts that do not answer",
            "Cost store, metadata store and queue, as seen at the last scrape.",
            20,
            "count(min by (part) (spendscope_part_up) == 0) or vector(0)",
            "short",
            {1: RED},
        ),
    ]


def _number(
    id: int,
    title: str,
    about: str,
    x: int,
    expression: str,
    unit: str,
    thresholds: Mapping[int, str],
    base: str = GREEN,
) -> Json:
    return stat(
        Head(id, title, about, Place(x, 0, 4, 4)),
        PROMQL,
        promql_target(expression, instant=True),
        fields(unit, thresholds=thresholds, base=base, decimals=0),
    )


def _work() -> list[Json]:
    return [
        _lines(
            7,
            "Days by status",
            "Complete, settling, missing and quarantined days.",
            Place(0, 4, 8, 8),
            "max by (status) (spendscope_days)",
        ),
        _lines(
            8,
            "Jobs by status",
            "Job records there are, by status.",
            Place(8, 4, 8, 8),
            "max by (status) (spendscope_jobs)",
        ),
        _lines(
            9,
            "Cost files by outcome",
            "Versions of cost files by what became of them.",
            Place(16, 4, 8, 8),
            "max by (status) (spendscope_ingestions)",
        ),
        _lines(
            10, "Queue", "Jobs in the queue.", Place(0, 12, 8, 8), "max(spendscope_queue_waiting)", legend="waiting"
        ),
        _lines(
            11,
            "Parts",
            "1 while the part answers.",
            Place(8, 12, 8, 8),
            "min by (part) (spendscope_part_up)",
            legend="{{part}}",
        ),
        _lines(
            12,
            "Data version",
            "Moves with every change of a figure; flat for days means that nothing arrives.",
            Place(16, 12, 8, 8),
            "max(spendscope_data_version)",
            legend="version",
        ),
    ]


def _requests() -> list[Json]:
    rate = "rate(spendscope_http_requests_total[$__rate_interval])"
    return [
        _lines(
            13,
            "Requests a second",
            "Answered requests by their status.",
            Place(0, 20, 8, 8),
            f"sum by (status) ({rate})",
            unit="reqps",
        ),
        _lines(
            14,
            "Time to answer, 95 of 100",
            "Seconds until the answer began, by route.",
            Place(8, 20, 8, 8),
            "histogram_quantile(0.95, sum by (route, le) (rate(spendscope_http_request_seconds_bucket[$__rate_interval])))",
            unit="s",
            legend="{{route}}",
        ),
        _lines(
            15,
            "Share of failed answers",
            "Answers with a 5xx status among all.",
            Place(16, 20, 8, 8),
            '(sum(rate(spendscope_http_requests_total{status=~"5.."}[$__rate_interval])) or vector(0))'
            " / sum(rate(spendscope_http_requests_total[$__rate_interval]))",
            unit="percentunit",
            legend="failed",
        ),
        _lines(
            16,
            "Time to draw, 95 of 100",
            "Seconds until a page's callback was answered.",
            Place(0, 28, 8, 8),
            "histogram_quantile(0.95, sum by (callback, le) (rate(spendscope_callback_seconds_bucket[$__rate_interval])))",
            unit="s",
            legend="{{callback}}",
        ),
        _lines(
            17,
            "Oldest open job",
            "Since the oldest job that is not done was submitted.",
            Place(8, 28, 8, 8),
            "max(spendscope_oldest_open_job_age_seconds)",
            unit="s",
            legend="oldest",
        ),
        _lines(
            18,
            "Cost Explorer this month",
            "What AWS charges for the requests of this deployment's jobs, in USD.",
            Place(16, 28, 8, 8),
            "max by (kind) (spendscope_cost_explorer_usd)",
            unit="currencyUSD",
            legend="{{kind}}",
        ),
    ]


def _lines(
    id: int, title: str, about: str, place: Place, expression: str, *, unit: str = "short", legend: str = "{{status}}"
) -> Json:
    return trend(Head(id, title, about, place), PROMQL, [promql_target(expression, legend)], fields(unit, custom=LINES))


# --- around the panels --------------------------------------------------------------------------------------------


def _dashboard(
    uid: str,
    title: str,
    description: str,
    source: Source,
    variables: Sequence[Json],
    panels: Sequence[Json],
    time: Json,
) -> Json:
    return {
        "id": None,
        "uid": uid,
        "title": title,
        "description": description,
        "tags": [TAG],
        "schemaVersion": 41,
        "timezone": "utc",
        "weekStart": "monday",
        "editable": False,
        "graphTooltip": 1,
        "refresh": "5m",
        "time": time,
        "timepicker": {},
        "annotations": {"list": []},
        "links": [_home()],
        "templating": {"list": [_source_variable(source), *variables]},
        "panels": list(panels),
    }


def _home() -> Json:
    return {
        "title": "Spendscope",
        "type": "link",
        "url": "${spendscope:raw}/",
        "icon": "external link",
        "tooltip": "Open Spendscope",
        "tags": [],
        "asDropdown": False,
        "targetBlank": True,
        "includeVars": False,
        "keepTime": False,
    }


HIDDEN: Final = 2
ON_TIME_CHANGE: Final = 2
BY_NAME: Final = 5
"""Alphabetical, whatever the case."""


def _source_variable(source: Source) -> Json:
    return {
        "type": "datasource",
        "name": source.variable,
        "label": "Data source",
        "query": source.type,
        "current": {"text": source.uid, "value": source.uid, "selected": True},
        "hide": HIDDEN,
        "includeAll": False,
        "multi": False,
        "refresh": 1,
        "regex": "",
    }


def _spendscope(choices: Choices) -> Json:
    url = choices.public_url
    return {
        "type": "constant",
        "name": "spendscope",
        "label": "Spendscope",
        "query": url,
        "current": {"text": url, "value": url, "selected": True},
        "hide": HIDDEN,
        "skipUrlSync": True,
    }


def _metric() -> Json:
    return _query(
        "metric",
        "Metric",
        "Costs that every charge of these days has.",
        flux.metrics(),
        current={"text": DEFAULT_METRIC, "value": DEFAULT_METRIC, "selected": True},
        multi=False,
        includeAll=False,
    )


def _dimension(name: str) -> Json:
    return _query(
        name,
        name.capitalize(),
        f"Only charges of these {name}s.",
        flux.values_of(name),
        current={"text": ["All"], "value": ["$__all"], "selected": True},
        multi=True,
        includeAll=True,
        allValue=".*",
    )


def _query(name: str, label: str, description: str, query: str, **more: Any) -> Json:
    return {
        "type": "query",
        "name": name,
        "label": label,
        "description": description,
        "datasource": FLUX.reference,
        "query": query,
        "refresh": ON_TIME_CHANGE,
        "sort": BY_NAME,
        "regex": "",
        "allowCustomValue": False,
        "skipUrlSync": False,
        **more,
    }
