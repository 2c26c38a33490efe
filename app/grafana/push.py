"""Everything generated into a running Grafana: folder, data sources, dashboards, rules, contact points, policy."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from pydantic import SecretStr

from app.config import Settings, environment_name
from app.errors import CannotStart
from app.grafana import contacts
from app.grafana.alerts import FOLDER, FOLDER_TITLE, Group, cost_rules, group_body, operation_rules
from app.grafana.choices import Choices
from app.grafana.dashboards import costs, operations
from app.grafana.files import influxdb_source, prometheus_source
from app.grafana.panels import INFLUXDB, PROMETHEUS, Json
from app.ports import Dashboards, Pushed


@dataclass(frozen=True)
class Step:
    """What was done to one thing; `skipped` with a reason when a setting it needs is not there."""

    what: str
    done: Pushed
    reason: str = ""


def push(grafana: Dashboards, choices: Choices, settings: Settings) -> Iterator[Step]:
    """Yield each step when it is done. Doing it again changes nothing that did not change here or there.

    Raises CannotStart when a setting is missing without which no dashboard can work, else what `grafana` raises.
    """
    known = values(settings)
    yield Step(f"folder {FOLDER_TITLE}", grafana.folder(FOLDER, FOLDER_TITLE))
    yield _influxdb(grafana, known)
    yield from _set(grafana, costs(choices), cost_rules(choices))
    prometheus = _prometheus(grafana, known)
    yield prometheus
    if prometheus.done != "skipped":
        yield from _set(grafana, operations(choices), operation_rules())
    yield from _contacts(grafana, known)


def _set(grafana: Dashboards, dashboard: Json, rules: Group) -> Iterator[Step]:
    yield Step(f"dashboard {dashboard['title']}", grafana.dashboard(FOLDER, dashboard))
    yield Step(f"alert rules {rules.name}", grafana.rule_group(FOLDER, group_body(rules)))


def _influxdb(grafana: Dashboards, known: Mapping[str, str | None]) -> Step:
    what = "data source InfluxDB"
    if known["INFLUXDB_URL"] and known["INFLUXDB_TOKEN"]:
        return Step(what, grafana.datasource(filled(influxdb_source(), known)))
    if grafana.has_datasource(INFLUXDB):
        return Step(what, "kept")
    raise CannotStart(
        f"Grafana has no data source {INFLUXDB!r} yet. Set GRAFANA_INFLUXDB_URL (or INFLUXDB_URL) and "
        "GRAFANA_INFLUXDB_TOKEN, a token that may only read the bucket."
    )


def _prometheus(grafana: Dashboards, known: Mapping[str, str | None]) -> Step:
    what = "data source Prometheus"
    if known["PROMETHEUS_URL"]:
        return Step(what, grafana.datasource(filled(prometheus_source(), known)))
    if grafana.has_datasource(PROMETHEUS):
        return Step(what, "kept")
    return Step(what, "skipped", "no dashboard of Spendscope itself; set PROMETHEUS_URL")


def _contacts(grafana: Dashboards, known: Mapping[str, str | None]) -> Iterator[Step]:
    pushed = 0
    for receiver in contacts.receivers():
        channel = receiver["uid"].removeprefix("spendscope-")
        what, needed = f"contact point {channel}", [name.removeprefix("$") for name in contacts.CHANNELS[channel]]
        if missing := [name for name in needed if not known[name]]:
            yield Step(what, "skipped", f"set {' and '.join(missing)}")
            continue
        yield Step(what, grafana.contact_point(filled(receiver | {"name": contacts.CONTACT}, known)))
        pushed += 1
    if pushed:
        yield Step("notification policy", grafana.route(contacts.route()))


PUSHED_SETTINGS: Final = (
    "influxdb_org",
    "influxdb_bucket",
    "prometheus_url",
    "alert_slack_url",
    "alert_teams_url",
    "alert_webhook_url",
    "alert_webhook_secret",
    "alert_emails",
    "alert_back_url",
    "alert_back_token",
)


def values(settings: Settings) -> dict[str, str | None]:
    """Name of a placeholder → its value. Grafana has an address of InfluxDB and a token of its own: never ours, which
    may write."""
    found = {environment_name(name): _plain(getattr(settings, name)) for name in PUSHED_SETTINGS}
    return found | {
        "INFLUXDB_URL": settings.grafana_influxdb_url or settings.influxdb_url,
        "INFLUXDB_TOKEN": _plain(settings.grafana_influxdb_token),
    }


def _plain(value: SecretStr | str | None) -> str | None:
    return value.get_secret_value() if isinstance(value, SecretStr) else value


def filled(document: Any, known: Mapping[str, str | None]) -> Any:
    """The document with settings in place of placeholders; what was not set is left out, with what holds only that."""
    if isinstance(document, Mapping):
        parts = {key: filled(value, known) for key, value in document.items()}
        return {key: value for key, value in parts.items() if value is not None} or None
    if isinstance(document, list):
        return [filled(value, known) for value in document]
    if isinstance(document, str) and document.startswith("$"):
        return known[document.removeprefix("$")]
    return document
