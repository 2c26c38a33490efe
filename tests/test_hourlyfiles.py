"""`spendscope backtest --hourly`: the files it reads, what it prints, what it refuses."""

from __future__ import annotations

import gzip
import json
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result
from hypothesis import given, settings
from hypothesis import strategies as st

import app.hourlyfiles
from app.cli import main
from app.errors import InvalidInput
from app.hourlyfiles import read_points

BEGINS = datetime(2026, 3, 1, tzinfo=UTC)
SPIKE = 200


def run(*arguments: str) -> Result:
    return CliRunner().invoke(main, ["backtest", *arguments])


def text_of(values: list[float], every: int = 60) -> str:
    rows = (
        f"{BEGINS + timedelta(minutes=every * n):%Y-%m-%d %H:%M:%S},{value:.3f}\n" for n, value in enumerate(values)
    )
    return "timestamp,value\n" + "".join(rows)


def spiked(hours: int = 300) -> list[float]:
    values = 10 + 0.2 * np.random.default_rng(1).normal(size=hours)
    values[SPIKE] = 30
    return values.tolist()


@pytest.fixture
def cost(tmp_path: Path) -> Path:
    path = tmp_path / "cost.csv"
    path.write_text(text_of(spiked()))
    return path


def test_it_prints_one_json_line_for_each_alert(cost: Path) -> None:
    done = run("--hourly", str(cost), "--json")
    assert done.exit_code == 0, done.output
    (line,) = [json.loads(text) for text in done.stdout.splitlines()]
    assert (line["series"], line["hour"], line["kind"], line["view"]) == (
        "cost.csv",
        "2026-03-09T08:00:00Z",
        "rise",
        "mean",
    )
    assert (line["actual"], line["expected"]) == (30, pytest.approx(10, abs=0.5))
    assert line["band"][0] < line["expected"] < line["band"][1] < line["actual"]
    assert line["spreads"] > 5


def test_people_get_a_sentence_and_a_count(cost: Path) -> None:
    done = run("--hourly", str(cost))
    first, last = done.output.splitlines()
    assert first.startswith("2026-03-09 08:00Z  rise  cost.csv  (mean 30, expected 8.9")
    assert last == "1 rise"
    assert run("--hourly", str(cost), "--end", "2026-03-09").output == "No alerts.\n"


def test_start_and_end_choose_what_is_reported(cost: Path) -> None:
    assert (
        run("--hourly", str(cost), "--start", "2026-03-09", "--json").output
        == run("--hourly", str(cost), "--json").output
    )
    assert run("--hourly", str(cost), "--start", "2026-03-10", "--json").output == ""


def test_a_folder_is_all_its_series_and_finer_points_make_hours(cost: Path, tmp_path: Path) -> None:
    fine = [value for value in spiked() for _ in range(12)]
    (tmp_path / "fine.csv.gz").write_bytes(gzip.compress(text_of(fine, every=5).encode()))
    (tmp_path / "notes.txt").write_text("not a series")
    lines = [json.loads(text) for text in run("--hourly", str(tmp_path), "--json").output.splitlines()]
    assert [(line["series"], line["hour"]) for line in lines] == [
        ("cost.csv", "2026-03-09T08:00:00Z"),
        ("fine.csv.gz", "2026-03-09T08:00:00Z"),
    ]


def test_offsets_orders_and_other_columns_change_nothing(cost: Path, tmp_path: Path) -> None:
    header, *rows = cost.read_text().splitlines()
    other = tmp_path / "other"
    other.mkdir()
    times = [datetime.fromisoformat(row.split(",")[0]) + timedelta(hours=2) for row in rows]
    turned = [f"x,{row.split(',')[1]},{time.isoformat()}+02:00" for row, time in zip(rows, times, strict=True)][::-1]
    (other / "cost.csv").write_text("\ufeffnote,value,timestamp\r\n" + "\r\n".join(turned) + "\r\n\r\n", "utf-8")
    assert run("--hourly", str(other), "--json").output == run("--hourly", str(cost), "--json").output
    assert header == "timestamp,value"


BAD: list[tuple[bytes, str]] = [
    (b"", "is empty"),
    (b"timestamp,value\n", "no rows"),
    (b"time,value\n2026-01-01,1\n", "needs the columns timestamp and value"),
    (b"timestamp,value,value\n2026-01-01,1,2\n", "once each"),
    (b"timestamp,value\n2026-01-01 00:00,1\n2026-13-01 00:00,1\n", "row 3: timestamp '2026-13-01 00:00' is no time"),
    (b"timestamp,value\n0001-01-01T00:00+14:00,1\n", "is no time"),
    (b"timestamp,value\n2026-01-01 00:00,\n", "row 2: value '' is no finite number"),
    (b"timestamp,value\n2026-01-01 00:00,nan\n", "value 'nan'"),
    (b"timestamp,value\n2026-01-01 00:00,-inf\n", "value '-inf'"),
    (b"timestamp,value\n2026-01-01 00:00,1e200\n", "value '1e200'"),
    (b"timestamp,value\n2026-01-01 00:00,1_000\n", "value '1_000'"),
    (b"timestamp,value\n2026-01-01 00:00\n", "row 2 has 1 fields"),
    (b'timestamp,value\n2026-01-01 00:00,"1\n', "is not a CSV file"),
    (b"timestamp,value\n2026-01-01 00:00,\x1b[2J\n", "\\x1b[2J"),
    (b"\xff\xfet\x00", "is not UTF-8"),
]


@pytest.mark.parametrize(("content", "says"), BAD)
def test_a_bad_file_gets_one_line_and_exit_2(tmp_path: Path, content: bytes, says: str) -> None:
    path = tmp_path / "bad.csv"
    path.write_bytes(content)
    done = run("--hourly", str(path))
    assert done.exit_code == 2
    assert says in done.output
    assert "bad.csv" in done.output
    assert len(done.output.splitlines()) == 1
    assert "\x1b" not in done.output


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["/nonexistent"], "is no file and no folder"),
        (["{folder}/empty"], "holds no file"),
        (["{folder}/cost.csv", "--deliveries", "."], "--deliveries does not go with --hourly"),
        (["{folder}/cost.csv", "--min-daily", "0"], "--min-daily does not go with --hourly"),
        (["{folder}/cost.csv", "--start", "yesterday"], "yesterday"),
    ],
)
def test_wrong_use_is_exit_2(cost: Path, arguments: list[str], says: str) -> None:
    (cost.parent / "empty").mkdir()
    done = run("--hourly", *(argument.format(folder=cost.parent) for argument in arguments))
    assert done.exit_code == 2
    assert says in done.output
    assert len(done.output.splitlines()) == 1


def test_what_is_too_much_is_refused(cost: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SPENDSCOPE_MAX_FILE_BYTES", "1024")
    assert "SPENDSCOPE_MAX_FILE_BYTES" in run("--hourly", str(cost)).output
    monkeypatch.delenv("SPENDSCOPE_MAX_FILE_BYTES")
    monkeypatch.setattr(app.hourlyfiles, "MOST_HOURS", 299)
    assert "has 300 hours; at most 299" in run("--hourly", str(cost)).output
    monkeypatch.setattr(app.hourlyfiles, "MOST_FILES", 1)
    assert "at most 1 at once" in run("--hourly", str(cost), "--hourly", str(cost)).output


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=60), st.booleans())
def test_any_bytes_are_points_or_one_refusal(content: bytes, headed: bool) -> None:
    path, content = Path("any.csv"), (b"timestamp,value\n" if headed else b"") + content
    with suppress(InvalidInput):
        seconds, values = read_points(path, content)
        assert len(seconds) == len(values) > 0
        assert np.isfinite(values).all()
