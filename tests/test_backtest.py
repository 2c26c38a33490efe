"""`spendscope backtest`: the folder it reads, what it prints, what it refuses, and the score on the practice data."""

from __future__ import annotations

import gzip
import importlib.util
import io
import json
import tarfile
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result

from app.backends import Backends
from app.backtest import Rules, alert_line, replay, stored_deliveries
from app.cli import main
from app.core.arrivals import SeriesKey
from app.deliveries import read_deliveries, read_delivery
from app.errors import InvalidInput
from tests.arrivals import DAY, arrive, csv, take
from tests.organisation import Organisation, organisation

PRACTICE = Path(__file__).parent.parent.parent / "shared/data/anomaly"
HEADER = "date,account_id,service,region,amortized_cost\n"
LIMIT = 10**6


def run(*arguments: str) -> Result:
    return CliRunner().invoke(main, ["backtest", *arguments])


def write(folder: Path, org: Organisation, pack: bool = False) -> Path:
    folder.mkdir(exist_ok=True)
    for delivery in org.deliveries():
        keys = delivery.keys
        rows = [
            f"{day},{keys[s].account},{keys[s].service},{keys[s].region},{amount:.4f}\n"
            for s, day, amount in zip(delivery.series, delivery.days, delivery.amounts, strict=True)
        ]
        data = (HEADER + "".join(rows)).encode()
        path = folder / f"{delivery.day}.csv{'.gz' if pack else ''}"
        path.write_bytes(gzip.compress(data) if pack else data)
    return folder


@pytest.fixture(scope="module")
def spiked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    org = organisation(days=100)
    org.costs[3, 70] *= 4
    org.costs[5, 90] *= 4
    return write(tmp_path_factory.mktemp("deliveries"), org)


def test_it_prints_one_json_line_for_each_alert(spiked: Path) -> None:
    done = run("--deliveries", str(spiked), "--min-daily", "10", "--min-total", "40", "--country", "DE", "--json")
    assert done.exit_code == 0, done.output
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert done.stderr == (
        "spendscope: --country DE changes nothing: holidays are read from the costs themselves (docs/anomalies.md).\n"
    )
    assert [line["scope"]["service"] for line in lines] == ["Queue", "Cache"]
    assert lines[0]["date"] == lines[0]["detected_on"] == "2026-03-16"
    assert lines[0]["impact"] == pytest.approx(lines[0]["actual"] - lines[0]["expected"], abs=0.02)
    assert set(lines[0]) >= {"scope", "date", "detected_on", "expected", "actual", "impact", "kind", "root_cause"}


def test_start_and_end_choose_the_days_that_are_reported(spiked: Path) -> None:
    late = run("--deliveries", str(spiked), "--start", "2026-03-17", "--json")
    early = run("--deliveries", str(spiked), "--end", "2026-03-17", "--json")
    assert [len(done.output.splitlines()) for done in (late, early)] == [1, 1]
    assert late.output != early.output


def test_dollars_decide(spiked: Path) -> None:
    assert run("--deliveries", str(spiked), "--min-total", "100000").output == "No alerts.\n"
    assert "2 rise" in run("--deliveries", str(spiked)).output


def test_packed_files_and_a_costs_folder_are_read_alike(spiked: Path, tmp_path: Path) -> None:
    org = organisation(days=100)
    org.costs[3, 70] *= 4
    org.costs[5, 90] *= 4
    write(tmp_path / "costs", org, pack=True)
    assert run("--deliveries", str(tmp_path)).output == run("--deliveries", str(spiked)).output


BAD: list[tuple[str, bytes, str]] = [
    ("2026-01-05.csv", b"", "is empty"),
    ("2026-01-05.csv", b"service,amortized_cost\nS,1\n", "lacks the column date"),
    ("2026-01-05.csv", b"date,service,amortized_cost\n2026-01-05,S,abc\n", "2026-01-05.csv is not a delivery"),
    ("2026-01-05.csv", b"date,service,amortized_cost\n2026-01-05,S,nan\n", "row 2: amortized_cost"),
    ("2026-01-05.csv", b"date,service,amortized_cost\n2026-01-05,S,\n", "amortized_cost"),
    ("2026-01-05.csv", b"date,service,amortized_cost\n5 Jan,S,1\n", "is not a delivery"),
    ("2026-01-05.csv", b"date,service,amortized_cost\n2026-01-06,S,1\n", "after the day it arrived"),
    (
        "2026-01-05.csv",
        b"date,account,account_id,service,amortized_cost\n2026-01-05,a,b,S,1\n",
        "account more than once",
    ),
    ("2026-01-05.csv", b"date,service,amortized_cost\n2026-01-05,\xff\xfe,1\n", "is not a delivery"),
    ("2026-01-05.csv.gz", b"not gzip", "cannot be read"),
    ("2026-02-30.csv", b"x", "does not exist"),
    ("other.csv", b"x", "holds no file named"),
]


@pytest.mark.parametrize(("name", "content", "says"), BAD)
def test_a_bad_file_gets_one_line_and_exit_2(tmp_path: Path, name: str, content: bytes, says: str) -> None:
    (tmp_path / name).write_bytes(content)
    done = run("--deliveries", str(tmp_path))
    assert done.exit_code == 2
    assert says in done.output
    assert len(done.output.splitlines()) == 1


@pytest.mark.parametrize(
    "arguments",
    [
        ["--deliveries", "/nonexistent"],
        ["--deliveries", ".", "--country", "Germany"],
        ["--deliveries", ".", "--min-daily", "-1"],
        ["--deliveries", ".", "--min-total", "nan"],
        ["--deliveries", ".", "--start", "yesterday"],
        ["--deliveries", ".", "--start", "2026-02-01", "--end", "2026-01-01"],
    ],
)
def test_wrong_use_is_exit_2(arguments: list[str]) -> None:
    assert run(*arguments).exit_code == 2


def test_the_same_delivery_twice_is_refused(tmp_path: Path) -> None:
    (tmp_path / "2026-01-05.csv").write_text(HEADER)
    (tmp_path / "2026-01-05.csv.gz").write_bytes(gzip.compress(HEADER.encode()))
    with pytest.raises(InvalidInput, match="twice"):
        list(read_deliveries(tmp_path, max_bytes=LIMIT))


def test_a_file_that_unpacks_to_too_much_is_refused(tmp_path: Path) -> None:
    (tmp_path / "2026-01-05.csv.gz").write_bytes(gzip.compress(HEADER.encode() + b" " * 10**7))
    with pytest.raises(InvalidInput, match="SPENDSCOPE_MAX_FILE_BYTES"):
        list(read_deliveries(tmp_path, max_bytes=LIMIT))


def test_later_rows_replace_earlier_ones_and_categories_add_up(tmp_path: Path) -> None:
    path = tmp_path / "2026-01-05.csv"
    path.write_text(
        "service,date,amortized_cost,charge_category,note\n"
        'S,2026-01-05,1,Usage,x\nS,2026-01-05,2,Usage,x\nS,2026-01-05,10,Tax,"a\nb"\n,2026-01-04,5,Usage,x\n'
    )
    read = read_delivery(date(2026, 1, 5), path, max_bytes=LIMIT)
    found = {
        (read.keys[s], str(day)): amount for s, day, amount in zip(read.series, read.days, read.amounts, strict=True)
    }
    assert found == {
        (SeriesKey("unknown", "S", "global"), "2026-01-05"): 12,
        (SeriesKey("unknown", "unknown", "global"), "2026-01-04"): 5,
    }


def test_nothing_stored_says_what_to_do(backends: Backends) -> None:
    with pytest.raises(InvalidInput, match="--deliveries"):
        stored_deliveries(backends)


def test_stored_history_arrives_as_it_was_first_reported(backends: Backends, folder: Path) -> None:
    days = [DAY - timedelta(days=2), DAY - timedelta(days=1), DAY]
    for day in days:
        take(backends, arrive(folder, csv("a,S,r,6,1,1,1", "b,S,r,3,1,1,1"), day))
    take(backends, arrive(folder, csv("a,S,r,10,1,1,1", "b,S,r,3,1,1,1"), days[0]))
    first, _, third = stored_deliveries(backends)
    known = {first.keys[s].account: amount for s, amount in zip(first.series, first.amounts, strict=True)}
    assert known == pytest.approx({"a": 6, "b": 3})
    restated = [amount for amount, day in zip(third.amounts, third.days, strict=True) if day == np.datetime64(days[0])]
    assert sorted(restated) == [3, 10]


def score() -> Any:
    spec = importlib.util.spec_from_file_location("practice_score", PRACTICE / "score.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.slow
@pytest.mark.skipif(not PRACTICE.is_dir(), reason="the practice organisations (../shared/data/anomaly) are not here")
def test_the_score_on_the_practice_organisations(tmp_path: Path) -> None:
    scorer, results = score(), []
    for name in ("acme", "globex"):
        with tarfile.open(fileobj=io.BytesIO((PRACTICE / "public" / name / "costs.tar.xz").read_bytes())) as packed:
            packed.extractall(tmp_path / name, filter="data")
        labels = json.loads((PRACTICE / "public" / name / "labels.json").read_text())
        rules = Rules(labels["materiality"]["daily"], labels["materiality"]["total"])
        alerts = replay(read_deliveries(tmp_path / name, max_bytes=10**8), rules)
        results.append(scorer.score_org(labels, [alert_line(alert) for alert in alerts]))
    total = scorer.combine(results)
    assert total["f1"] >= 0.95
    assert total["root_cause_at_1"] >= 0.95
    assert total["impact_median_error"] <= 0.12
    assert not {"data_outage", "month_start_charge", "refund"} & set(total["false_by_cause"])
