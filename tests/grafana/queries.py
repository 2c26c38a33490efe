"""Every query that dashboards, variables and alerts send, and how Grafana fills one in before it sends it."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from app.grafana.alerts import cost_rules, operation_rules
from app.grafana.choices import Choices
from app.grafana.dashboards import costs, operations

ROOT = Path(__file__).parents[2]
CHOICES = Choices()


def flux_queries() -> dict[str, str]:
    """Name → Flux as it is generated."""
    dashboard = costs(CHOICES)
    found = {panel["title"]: target["query"] for panel in dashboard["panels"] for target in panel.get("targets", [])}
    found |= {f"variable {v['name']}": v["query"] for v in dashboard["templating"]["list"] if v["type"] == "query"}
    return found | {rule.uid: rule.query.text for rule in cost_rules(CHOICES).rules}


def promql_queries() -> dict[str, str]:
    found = {p["title"]: t["expr"] for p in operations(CHOICES)["panels"] for t in p.get("targets", [])}
    return found | {rule.uid: rule.query.text for rule in operation_rules().rules}


@dataclass(frozen=True)
class Shown:
    """What a viewer has chosen; no values of a variable means All."""

    start: datetime
    stop: datetime
    metric: str = "amortized_cost"
    chosen: Mapping[str, Sequence[str]] | None = None
    bucket: str = "cost_data"


def filled(query: str, shown: Shown) -> str:
    """As Grafana fills in a Flux query: variables in the browser, then `v.…` in its backend."""
    chosen = {"metric": [shown.metric], **(shown.chosen or {})}

    def variable(match: re.Match[str]) -> str:
        name, form = match[1], match[2]
        assert form == "regex", "a variable in a query must be escaped"
        if name in chosen:
            return in_regex(chosen[name])
        assert name in {v["name"] for v in costs(CHOICES)["templating"]["list"] if v.get("includeAll")}
        return ".*"

    text = re.sub(r"\$\{(\w+)(?::(\w+))?\}", variable, query)
    times = {"timeRangeStart": instant(shown.start), "timeRangeStop": instant(shown.stop)}
    for name, value in {**times, "defaultBucket": json.dumps(shown.bucket)}.items():
        text = text.replace(f"v.{name}", value)
    return text


def in_regex(values: Sequence[str]) -> str:
    """Grafana's `regex` format: each value escaped, the slash too; several in parentheses."""
    escaped = [re.sub(r"[\\^$*+?.()|\[\]{}/]", lambda match: "\\" + match[0], value) for value in values]
    return escaped[0] if len(escaped) == 1 else f"({'|'.join(escaped)})"


def instant(at: datetime) -> str:
    return at.strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def checked(language: str, queries: Mapping[str, str]) -> dict[str, str]:
    """Query → what InfluxData's type checker or Prometheus' grammar finds wrong. Skips where they are not installed."""
    if shutil.which("node") is None or not (ROOT / "node_modules/@influxdata/flux-lsp-node").is_dir():
        pytest.skip("needs Node.js 20 and the development packages: npm ci --ignore-scripts")
    asked = [{"name": name, "language": language, "text": text} for name, text in queries.items()]
    shown = subprocess.run(
        ["node", "tests/grafana/queries.mjs"],
        input=json.dumps(asked),
        capture_output=True,
        text=True,
        cwd=ROOT,
        check=True,
        timeout=120,
    )
    found: dict[str, str] = json.loads(shown.stdout)
    return found


def texts(document: Any) -> Iterator[str]:
    """Every text in a document."""
    if isinstance(document, Mapping):
        for value in document.values():
            yield from texts(value)
    elif isinstance(document, list):
        for value in document:
            yield from texts(value)
    elif isinstance(document, str):
        yield document
