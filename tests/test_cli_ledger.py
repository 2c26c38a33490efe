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
