"""What the command line says about the ledger: the API's figures, as a table, CSV or JSON."""

from __future__ import annotations

import csv as csv_files
import io
import json
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from app.backends import Backends
from app.cli import main
from tests.arrivals import arrive, csv, take
from tests.test_reconciliation import refer

Run = Callable[..., Result]


@pytest.fixture
def run(tmp_path: Path, folder: Path, backends: Backends) -> Run:
    environment = {"SPENDSCOPE_SOURCE": folder.as_uri() + "/", "SPENDSCOPE_DATA_DIR": str(tmp_path / "data")}
    return lambda *arguments, **more: CliRunner().invoke(main, list(arguments), env=environment | more)


OCTOBER = ("--start", "2026-10-01", "--end", "2026-11-01")


def test_restatements_are_printed_three_ways(backends: Backends, folder: Path, run: Run) -> None:
    for amount in ("100", "130.5"):
        take(backends, arrive(folder, csv(f"=cmd,S,r,{amount},1,1,1")))
    table = run("restatements", *OCTOBER)
    assert table.exit_code == 0, table.output
    assert "2026-10-01" in table.output
    assert "30.5000 %" in table.output or "30.5 %" in table.output
    assert "Notice: 2026-10-01 was complete and has been restated" in table.output
    (first, second) = csv_files.DictReader(io.StringIO(run("restatements", *OCTOBER, "--format", "csv").output))
    assert (first["account"], first["before"], first["after"]) == ("'=cmd", "", "100")
    assert (second["before"], second["after"]) == ("100", "130.5")
    answer = json.loads(run("restatements", *OCTOBER, "--format", "json").output)
    assert Decimal(answer["items"][0]["moved"]["amount"]) == Decimal("30.5")


@pytest.mark.parametrize(
    "arguments", [("--start", "x", "--end", "2026-10-02"), (*OCTOBER, "--metric", "money"), ("--start", "2026-10-01")]
)
def test_bad_questions_are_one_line_and_exit_2(run: Run, arguments: tuple[str, ...]) -> None:
    refused = run("restatements", *arguments)
    assert refused.exit_code == 2
    assert "Traceback" not in refused.output


def test_status_is_in_words_and_says_by_its_exit_code_whether_all_is_well(
    backends: Backends, folder: Path, run: Run
) -> None:
    take(backends, arrive(folder, csv("a,S,r,1,1,1,1")))
    found = run("status")
    assert found.exit_code == 0, found.output
    assert "Parquet files in" in found.output
    assert "SQLite, " in found.output
    assert "note: The private queue" in found.output, "nobody said that it should run"
    for name in ("ParquetCostStore", "SqliteMetadata"):
        assert name not in found.output
    folder.rename(folder.with_name("gone"))
    found = run("status")
    assert found.exit_code == 1
    assert "NOT OK: The folder" in found.output
    told = run("status", "--json")
    assert told.exit_code == 1
    assert json.loads(told.output)["ok"] is False


@pytest.mark.parametrize("arguments", [("ingest",), ("ingest", "--again"), ("backfill", "--months", "1", "--yes")])
def test_a_source_that_is_not_there_means_it_cannot_start(folder: Path, run: Run, arguments: tuple[str, ...]) -> None:
    folder.rmdir()
    found = run(*arguments)
    assert found.exit_code == 2, found.output
    assert "does not exist" in found.output


def test_a_month_that_reconciles_exits_0_and_one_that_does_not_1(backends: Backends, folder: Path, run: Run) -> None:
    take(backends, arrive(folder, csv("=cmd,S,r,10.5,1,1,1")))
    nothing = run("reconcile", "--month", "2026-10")
    assert nothing.exit_code == 0, nothing.output
    assert "were not collected" in nothing.output
    refer(folder, [["2026-10-01", "=cmd", "Usage", "10.5"], ["2026-10-01", "=cmd", "Tax", "1"]])
    explained = run("reconcile", "--month", "2026-10")
    assert explained.exit_code == 0, explained.output
    assert "tax" in explained.output
    refer(folder, [["2026-10-01", "=cmd", "Usage", "10.51"]], collected="2026-10-12T00:00:00Z")
    table = run("reconcile", "--month", "2026-10")
    assert table.exit_code == 1
    assert "unexplained" in table.output
    (row,) = csv_files.DictReader(io.StringIO(run("reconcile", "--month", "2026-10", "--format", "csv").output))
    assert (row["account"], row["difference"], row["unexplained"]) == ("'=cmd", "-0.01", "-0.01")
    answer = json.loads(run("reconcile", "--month", "2026-10", "--format", "json").output)
    assert answer["items"][0]["unexplained"] == "-0.01"
    assert run("reconcile", "--month", "2026-1").exit_code == 2
