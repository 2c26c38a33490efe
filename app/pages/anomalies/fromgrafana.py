"""The alerts that a Grafana told of, on the Anomalies page: values in, components out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from app.core.grafanaalerts import ACCOUNT_LABELS, GrafanaAlert
from app.ui import parts
from app.ui import tags as html
from app.ui.tags import attributes

Children = Any
LOOKS: Final = {"firing": "failed", "resolved": "finished", "missed": ""}
WORDS: Final = {"firing": "Firing", "resolved": "Resolved", "missed": "Ended unheard"}
HIDDEN_LABELS: Final = frozenset({"alertname", "grafana_folder", "severity", *ACCOUNT_LABELS})
MOST_LABELS: Final = 6


def listed(alerts: Sequence[GrafanaAlert], more: bool, *, sees_all: bool) -> Children:
    if not alerts:
        return html.P(_nothing(sees_all), className="note calm")
    head = ("Alert", "State", "Began", "Heard of last", "In Grafana")
    cells = [html.Th(name, scope="col") for name in head]
    table = html.Table(
        [html.Thead(html.Tr(cells)), html.Tbody([_row(alert) for alert in alerts])],
        className="breakdown grafana-table",
    )
    note = html.P("There are more: ask GET /api/v1/alerts/grafana.", className="note") if more else None
    return [table, note]


def _nothing(sees_all: bool) -> str:
    if not sees_all:
        return "No alert of Grafana names your accounts. Those without an account are shown to those who see all."
    return (
        "No alert of a Grafana has arrived. Point a webhook contact point at /api/v1/alerts/grafana, with a token of "
        "the scope “alerts” (docs/grafana.md)."
    )


def _row(alert: GrafanaAlert) -> Children:
    """Whatever Grafana says is text: labels and annotations come from anybody's data."""
    title = alert.title
    link = _out(title, alert.panel) if alert.panel else html.Span(title)
    said = alert.annotations.get("description")
    below = [
        html.Span(text, className="anomaly-where") for text in (said if said != title else None, _labels(alert)) if text
    ]
    ended = [html.Span(["ended ", parts.ago(alert.ends)], className="anomaly-kind")] if alert.ends else []
    severity = alert.labels.get("severity")
    words = [html.Span(WORDS[alert.status], className=f"job-chip {LOOKS[alert.status]}")]
    words += [html.Span(severity, className="anomaly-kind")] if severity else []
    ways = [_out(name, href) for name, href in (("Rule", alert.rule), ("Silence", alert.silence)) if href]
    return html.Tr(
        [
            html.Th([link, *below], scope="row"),
            html.Td(words),
            html.Td([parts.ago(alert.starts), *ended], className="when"),
            html.Td(parts.ago(alert.last), className="when"),
            html.Td(ways or "–", className="ways"),
        ],
        key=alert.id,
    )


def _labels(alert: GrafanaAlert) -> str:
    accounts = sorted(alert.accounts)
    shown = [f"{name}: {value}" for name, value in alert.labels.items() if name not in HIDDEN_LABELS and value]
    values = [f"{name} = {value:,.4g}" for name, value in list(alert.values.items())[:3]]
    return " · ".join([*accounts, *shown[:MOST_LABELS], *values])


def _out(text: str, href: str) -> Children:
    """Out of Spendscope: the address was checked when it came (core.grafanaalerts.link_of)."""
    return html.A(text, href=href, target="_blank", rel="noopener noreferrer", **attributes(data_external="yes"))
