"""What Grafana would show from a real InfluxDB is what Spendscope's API answers to the same question."""

from __future__ import annotations

import csv as csvs
import io
import itertools
import json
import random
import re
import urllib.request
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any
from urllib.error import HTTPError

import pytest
from flask import Flask
from flask.testing import FlaskClient

from app.api import blueprint
from app.backends import Backends
from app.config import read_settings
from app.grafana.alerts import Rule, cost_rules
from app.grafana.dashboards import OTHER, SHOWN, TOP, costs
from tests.arrivals import DAY, NOW, arrive, csv, opened, take
from tests.grafana.queries import CHOICES, Shown, filled, flux_queries, instant
from tests.influxdb import Server

pytestmark = pytest.mark.server

DAYS = 18
UNBLENDED = DAY + timedelta(days=4)
"""The day on which a charge has no blended cost."""
SERVICES = [
    "Amazon EC2",
    "Amazon S3",
    *['a"b', "a/b", "$a", "a${1}b", "a\\b", ".*", "(", "a|b", "^a$", "a'b", "ä💥", "{"],
]
REGIONS, ACCOUNTS = ["eu-west-1", "us-east-1", "global"], ["033333333333", "111111111111"]
QUERIES = flux_queries()
RANGE = Shown(datetime(2026, 10, 1, tzinfo=UTC), datetime(2026, 10, 18, 23, 59, 59, 999000, tzinfo=UTC))
"""As Grafana writes 1 to 18 October: until the last millisecond."""
WHOLE = {"start": "2026-10-01", "end": "2026-10-19"}
FILTERS: list[dict[str, list[str]]] = [
    {},
    *({"service": [name]} for name in SERVICES),
    {"service": SERVICES[2:9], "region": ["eu-west-1", "global"]},
    {"account": ["033333333333"]},
    {"service": ["nobody"]},
]


@dataclass(frozen=True)
class Both:
    """The same data behind InfluxDB's query API and Spendscope's."""

    server: Server
    bucket: str
    client: FlaskClient

    def rows(self, query: str, shown: Shown = RANGE, *, now: datetime | None = None) -> list[dict[str, str]]:
        """Every row of every table. An error in the middle of an answer is one too."""
        tables = self._tables(query, shown, now, annotations=[])
        found = [row for table in tables for row in csvs.DictReader(io.StringIO(table))]
        assert not any("error" in row for row in found), found
        return found

    def columns(self, query: str, shown: Shown = RANGE, *, now: datetime | None = None) -> tuple[set[str], set[str]]:
        """What Grafana makes labels of (the group key), and what fields (the other columns)."""
        (first, *others) = self._tables(query, shown, now, annotations=["group"])
        group, names = list(csvs.reader(io.StringIO(first)))[:2]
        pairs = list(zip(names, group, strict=True))[3:]
        assert all(list(csvs.reader(io.StringIO(other)))[1] == names for other in others)
        return {name for name, key in pairs if key == "true"}, {name for name, key in pairs if key == "false"}

    def _tables(self, query: str, shown: Shown, now: datetime | None, annotations: list[str]) -> list[str]:
        text = filled(query, replace(shown, bucket=self.bucket))
        body = {"query": text, "type": "flux", "dialect": {"annotations": annotations, "header": True}}
        if now:
            body["now"] = instant(now)
        data = self._asked("/api/v2/query", json.dumps(body).encode(), "application/json")
        return [table for table in data.decode().replace("\r\n", "\n").split("\n\n") if table.strip()]

    def write(self, lines: str) -> None:
        self._asked(
            f"/api/v2/write?org={self.server.org}&bucket={self.bucket}&precision=s", lines.encode(), "text/plain"
        )

    def _asked(self, path: str, data: bytes, kind: str) -> bytes:
        joined = "&" if "?" in path else "?"
        request = urllib.request.Request(
            f"{self.server.url}{path}{joined}org={self.server.org}" if "org=" not in path else self.server.url + path,
            data,
            {"Authorization": f"Token {self.server.token}", "Content-Type": kind, "Accept": "application/csv"},
        )
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                found: bytes = answer.read()
        except HTTPError as error:
            raise AssertionError(error.read().decode()) from None
        return found

    def costs(self, **asked: Any) -> dict[str, Any]:
        answer = self.client.get("/api/v1/costs", query_string={**WHOLE, "limit": 1000, **asked})
        assert answer.status_code == 200, answer.text
        found: dict[str, Any] = answer.get_json()
        return found


def charges(day: date, chance: random.Random) -> bytes:
    out = io.StringIO()
    writer = csvs.writer(out, lineterminator="\n")
    for account, service, region in itertools.product(ACCOUNTS, SERVICES, REGIONS):
        if chance.random() < 0.6:
            amounts = [str(Decimal(chance.randrange(1, 10**9)).scaleb(-7)) for _ in range(4)]
            if day == UNBLENDED and service == "$a":
                amounts[1] = ""
            writer.writerow([account, service, region, *amounts])
    return csv(*out.getvalue().splitlines())


def anomaly(day: date, service: str, impact: float) -> str:
    name = service.replace("\\", "\\\\").replace(" ", "\\ ").replace(",", "\\,").replace("=", "\\=")
    tags = (
        f"account=033333333333,charge_category=all,kind=spike,provider=aws,region=global,service={name},severity=high"
    )
    seconds = int(datetime.combine(day, datetime.min.time(), UTC).timestamp())
    return f"anomaly,{tags} actual={impact + 10},expected=10,impact={impact} {seconds}"


@pytest.fixture(scope="module")
def both(server: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Both]:
    """18 days by the real way in; one of them is restated, so that it has vanished points."""
    root = tmp_path_factory.mktemp("grafana")
    bucket = f"grafana-{uuid.uuid4()}"
    backends = fed(server, bucket, root)
    app = Flask("under-test")
    app.extensions["spendscope"] = backends
    app.register_blueprint(blueprint())
    found = Both(server, bucket, app.test_client())
    found.write(
        "\n".join([anomaly(date(2026, 10, 5), "Amazon S3", 5), anomaly(date(2026, 10, 17), "Amazon EC2", 250.5)])
    )
    yield found
    backends.metadata.close()


def fed(server: Server, bucket: str, root: Path) -> Backends:
    (folder := root / "costs").mkdir()
    environment = {
        "INFLUXDB_URL": server.url,
        "INFLUXDB_TOKEN": server.token,
        "INFLUXDB_ORG": server.org,
        "INFLUXDB_BUCKET": bucket,
        "SPENDSCOPE_RETENTION_DAYS": "0",
    }
    backends = opened(read_settings(environment, data_dir=root / "data", source=folder.as_uri() + "/"))
    chance = random.Random(3)
    for day in (DAY + timedelta(days=n) for n in range(DAYS)):
        for _ in range(2 if day.day == 9 else 1):
            assert take(backends, arrive(folder, charges(day, chance), day)).status == "done"
    return backends


def near(shown: str | float, exact: Any) -> bool:
    return abs(Decimal(str(shown)) - Decimal(str(exact))) <= Decimal("1e-6")


def same(shown: Mapping[Any, str], exact: Mapping[Any, Any]) -> None:
    assert set(shown) == set(exact)
    assert not {key for key in exact if not near(shown[key], exact[key])}


def by(answer: Mapping[str, Any], *keys: str) -> dict[tuple[str, ...], Any]:
    return {tuple(row[key] for key in keys): row["amount"] for row in answer["rows"] if row["amount"] is not None}


@pytest.mark.parametrize("chosen", FILTERS, ids=str)
@pytest.mark.parametrize("metric", ["amortized_cost", "unblended_cost"])
def test_total_spend(both: Both, metric: str, chosen: dict[str, list[str]]) -> None:
    rows = both.rows(QUERIES["Total Spend"], replace(RANGE, metric=metric, chosen=chosen))
    total = both.costs(metric=metric, granularity="total", **chosen)["total"]
    if chosen == {"service": ["nobody"]}:
        assert rows == []
    else:
        (row,) = rows
        assert near(row["_value"], total)


@pytest.mark.parametrize("chosen", FILTERS[::5], ids=str)
@pytest.mark.parametrize(
    ("panel", "dimensions", "most"),
    [
        ("Cost per Region", ("region",), None),
        ("Cost per Account", ("account",), None),
        ("Top 5 Services & Regions combined", ("service", "region"), TOP),
    ],
)
def test_groups(
    both: Both, panel: str, dimensions: Sequence[str], most: int | None, chosen: dict[str, list[str]]
) -> None:
    rows = both.rows(QUERIES[panel], replace(RANGE, chosen=chosen))
    answer = both.costs(granularity="total", group_by=",".join(dimensions), **chosen)
    expected = list(by(answer, *dimensions).items())[:most]
    same({tuple(row[name] for name in dimensions): row["_value"] for row in rows}, dict(expected))
    assert [tuple(row[name] for name in dimensions) for row in rows] == [group for group, _ in expected]
    if most:
        assert [row["group"] for row in rows] == [" · ".join(group) for group, _ in expected]


def test_usage_quantities(both: Both) -> None:
    rows = both.rows(QUERIES["Service Usage Quantities"])
    answer = both.costs(granularity="total", group_by="service", metric="usage_quantity")
    same({(row["service"],): row["_value"] for row in rows}, by(answer, "service"))


@pytest.mark.parametrize("chosen", [{}, {"service": SERVICES[:4]}, {"region": ["global"]}], ids=str)
def test_daily_spend(both: Both, chosen: dict[str, list[str]]) -> None:
    rows = both.rows(QUERIES["Daily Spend Trends"], replace(RANGE, chosen=chosen))
    assert all(row["_time"].endswith("T00:00:00Z") for row in rows), "a day is its first second"
    shown = {(row["_time"][:10], row["service"]): row["_value"] for row in rows}
    assert len(shown) == len(rows)
    answer = both.costs(group_by="service", top=SHOWN, **chosen)
    same({key: value for key, value in shown.items() if not near(value, 0)}, by(answer, "date", "service"))
    assert (OTHER in {service for _, service in shown}) == (len(chosen.get("service", SERVICES)) > SHOWN)
    for _, series in itertools.groupby(rows, key=lambda row: row["table"]):
        times = [row["_time"] for row in series]
        assert times == sorted(times), "Grafana draws in the order given"


def test_comparison(both: Both) -> None:
    rows = both.rows(QUERIES["Cost Comparison"])
    shown = {(row["cost"], row["_time"][:10]): row["_value"] for row in rows}
    for metric in ("amortized_cost", "blended_cost", "unblended_cost"):
        answer = both.costs(metric=metric)
        mine = {(day,): value for (name, day), value in shown.items() if name == metric}
        same(mine, by(answer, "date"))
    assert ("blended_cost", str(UNBLENDED)) not in shown
    assert len(shown) == 3 * DAYS - 1


def test_comparison_where_every_charge_has_every_cost(both: Both) -> None:
    before = replace(RANGE, stop=datetime.combine(UNBLENDED, datetime.min.time(), UTC))
    rows = both.rows(QUERIES["Cost Comparison"], before)
    assert len(rows) == 3 * (UNBLENDED - DAY).days
    mine = {(row["_time"][:10],): row["_value"] for row in rows if row["cost"] == "blended_cost"}
    same(mine, by(both.costs(metric="blended_cost", end=str(UNBLENDED)), "date"))


def test_a_range_within_a_day_is_its_points(both: Both) -> None:
    """Grafana's instants are read as links read them: a day is in the range when its first second is."""
    shown = Shown(datetime(2026, 10, 2, 11, tzinfo=UTC), datetime(2026, 10, 5, 9, tzinfo=UTC))
    (row,) = both.rows(QUERIES["Total Spend"], shown)
    assert near(row["_value"], both.costs(start="2026-10-03", end="2026-10-06", granularity="total")["total"])


@pytest.mark.parametrize("dimension", ["service", "region", "account"])
def test_variables_offer_what_there_is(both: Both, dimension: str) -> None:
    offered = {row["_value"] for row in both.rows(QUERIES[f"variable {dimension}"])}
    answer = both.client.get(f"/api/v1/dimensions/{dimension}", query_string=WHOLE).get_json()
    assert offered == {item["value"] for item in answer["items"]}


def test_a_cost_is_offered_only_where_every_charge_has_it(both: Both) -> None:
    before = replace(RANGE, stop=datetime.combine(UNBLENDED, datetime.min.time(), UTC))
    offered = [row["_value"] for row in both.rows(QUERIES["variable metric"], before)]
    assert offered == ["amortized_cost", "blended_cost", "unblended_cost"]
    assert [row["_value"] for row in both.rows(QUERIES["variable metric"])] == ["amortized_cost", "unblended_cost"]
    nothing = Shown(datetime(2020, 1, 1, tzinfo=UTC), datetime(2020, 2, 1, tzinfo=UTC))
    assert len(both.rows(QUERIES["variable metric"], nothing)) == 3


@pytest.mark.parametrize(
    "panel", [name for name in QUERIES if not name.startswith("spendscope-") and name != "variable metric"]
)
def test_nothing_is_no_error(both: Both, panel: str) -> None:
    nothing = Shown(datetime(2020, 1, 1, tzinfo=UTC), datetime(2020, 2, 1, tzinfo=UTC))
    assert both.rows(QUERIES[panel], nothing, now=datetime(2020, 2, 1, tzinfo=UTC)) == []


PANELS = {panel["title"]: panel for panel in costs(CHOICES)["panels"] if panel["type"] != "row"}


@pytest.mark.parametrize("title", PANELS)
def test_a_panel_names_labels_and_columns_there_are(both: Both, title: str) -> None:
    panel, text = PANELS[title], json.dumps(PANELS[title])
    labels, columns = both.columns(QUERIES[title], now=NOW)
    renamed = [t["options"]["renameByName"] for t in panel.get("transformations", ()) if t["id"] == "organize"]
    shown = {new for old, new in renamed[0].items() if old in columns} if renamed else columns
    assert set(re.findall(r"__field\.labels\.(\w+)", text)) <= labels
    assert set(re.findall(r"__data\.fields\.(\w+)", text)) <= shown
    assert not renamed or set(renamed[0]) <= columns
    assert panel["options"].get("xField") in {*columns, None}
    named = {override["matcher"]["options"] for override in panel["fieldConfig"]["overrides"]} - {OTHER}
    assert named <= shown
    if panel["type"] == "timeseries":
        assert columns == {"_time", "_value"}, "one series a label"


@pytest.mark.parametrize("rule", cost_rules(CHOICES).rules, ids=lambda rule: rule.uid)
def test_a_rule_names_labels_there_are(both: Both, rule: Rule) -> None:
    labels, columns = both.columns(rule.query.text, now=NOW)
    assert columns == {"_time", "_value"}, "Grafana alerts on series"
    named = set(re.findall(r"\$labels\.(\w+)", json.dumps(rule.core()["annotations"])))
    assert named <= labels
    assert not labels & set(rule.core()["labels"]), "a label of the rule hides one of the query"


# --- alerts -------------------------------------------------------------------------------------------------------


def test_data_age(both: Both) -> None:
    end = datetime(2026, 10, 19, tzinfo=UTC)
    for query in (QUERIES["Data age"], QUERIES["spendscope-data-stale"]):
        (row,) = both.rows(query, now=end + timedelta(hours=30))
        assert float(row["_value"]) == 30 * 3600


def test_month_to_date(both: Both) -> None:
    (row,) = both.rows(QUERIES["spendscope-budget-over"], now=datetime(2026, 10, 12, 15, tzinfo=UTC))
    assert near(row["_value"], both.costs(end="2026-10-12", granularity="total")["total"])
    (row,) = both.rows(QUERIES["spendscope-budget-near"], now=datetime(2026, 11, 1, 3, tzinfo=UTC))
    assert near(row["_value"], both.costs(granularity="total")["total"]), "on the first, the month that ended"
    assert both.rows(QUERIES["spendscope-budget-near"], now=datetime(2026, 11, 2, 3, tzinfo=UTC)) == []


def test_spend_spike(both: Both) -> None:
    """On 20 October the newest settled day is the 17th; the mean is of the 28 days before, days without cost included."""
    rows = both.rows(QUERIES["spendscope-spend-spike"], now=NOW)
    assert {row["_time"] for row in rows} == {"2026-10-17T00:00:00Z"}
    day = by(both.costs(start="2026-10-17", end="2026-10-18", granularity="total", group_by="service"), "service")
    before = by(both.costs(start="2026-09-19", end="2026-10-17", granularity="total", group_by="service"), "service")
    exact = {
        (name,): Decimal(str(day.get((name,), 0))) - Decimal("1.5") * Decimal(str(before.get((name,), 0))) / 28
        for name in SERVICES
    }
    same({(row["service"],): row["_value"] for row in rows}, exact)


def test_anomalies(both: Both) -> None:
    rows = both.rows(QUERIES["Anomalies"])
    assert [(row["_time"][:10], row["service"], float(row["impact"]), float(row["actual"])) for row in rows] == [
        ("2026-10-17", "Amazon EC2", 250.5, 260.5),
        ("2026-10-05", "Amazon S3", 5.0, 15.0),
    ]
    assert {(row["kind"], row["severity"], row["expected"]) for row in rows} == {("spike", "high", "10")}
    chosen = replace(RANGE, chosen={"service": ["Amazon S3"]})
    assert [row["service"] for row in both.rows(QUERIES["Anomalies"], chosen)] == ["Amazon S3"]
    (row,) = both.rows(QUERIES["spendscope-anomaly"], now=NOW)
    assert (row["service"], row["level"], float(row["_value"])) == ("Amazon EC2", "high", 250.5)
