"""The scorer of `bench.nab` on cases whose NAB score can be worked out by hand."""

from __future__ import annotations

import json
from math import exp
from pathlib import Path

import pytest

from app.core.hourly import HourlyThresholds
from bench.nab import Score, labelled, ours, scored, worth

ROWS = 1000
WINDOWS = [(300, 399), (700, 799)]


def test_silence_is_0_and_every_window_at_once_is_100() -> None:
    assert scored(ROWS, WINDOWS, []).normalised == 0
    assert scored(ROWS, WINDOWS, [300, 700]).normalised == pytest.approx(100)
    assert scored(ROWS, WINDOWS, [300, 700]).f1 == 1


def test_the_earliest_alert_of_a_window_counts_and_later_is_worth_less() -> None:
    middle = (2 / (1 + exp(-2.5)) - 1) / (2 / (1 + exp(-5)) - 1)
    assert scored(ROWS, WINDOWS, [350, 380]).raw == pytest.approx(middle - 1)
    assert 0 < worth(-0.1) < worth(-0.5) < worth(-1) < 1


def test_alerts_outside_cost_more_the_further_after_a_window() -> None:
    near, far, before = (scored(ROWS, WINDOWS, [row]) for row in (405, 690, 200))
    assert near.false == far.false == before.false == 1
    assert -2 - 0.11 <= far.raw < near.raw < -2
    assert before.raw == pytest.approx(-2.11)


def test_probation_counts_for_nothing() -> None:
    assert scored(ROWS, WINDOWS, [149]) == scored(ROWS, WINDOWS, [])
    assert scored(ROWS, [(10, 149), *WINDOWS], []).windows == 2
    assert scored(100_000, [], [750]).false == 1


def test_scores_of_series_add_up() -> None:
    assert (Score(1, 2, 1, 0) + Score(-1.5, 1, 0, 3)) == Score(-0.5, 3, 1, 3)
    assert Score(0, 4, 2, 2).f1 == 0.5


def test_a_folder_laid_out_as_nab_is_scored(tmp_path: Path) -> None:
    values = [10 + (row * 7 % 5) / 10 for row in range(2400)]
    values[1800:1812] = [90.0] * 12
    times = [f"2026-03-{1 + row // 288:02d} {row // 12 % 24:02d}:{row % 12 * 5:02d}:00" for row in range(2400)]
    (tmp_path / "data/real").mkdir(parents=True)
    (tmp_path / "labels").mkdir()
    rows = "".join(f"{time},{value}\n" for time, value in zip(times, values, strict=True))
    (tmp_path / "data/real/a.csv").write_text("timestamp,value\n" + rows)
    windows = {"real/a.csv": [[times[1750] + ".000000", times[1850] + ".000000"]], "other/b.csv": []}
    (tmp_path / "labels/combined_windows.json").write_text(json.dumps(windows))
    (series,) = labelled(tmp_path, "real")
    assert (series.rows, len(series.hours), series.windows) == (2400, 200, [(1750, 1850)])
    assert ours([series], HourlyThresholds()) == scored(2400, [(1750, 1850)], [1811])
