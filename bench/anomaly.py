"""`make bench-anomaly`: the scorer's table on the practice organisations and on fresh seeds, beside simple rules, and CPU;
the hourly mode on NAB (bench.nab).

Generator and scorer are not part of the project: `SPENDSCOPE_PRACTICE` names their folder, else
`../shared/data/anomaly`. All detectors see the same deliveries in the same order and get the same dollars.
"""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np

from app.backtest import Rules, alert_line, replay
from app.core.anomaly import Detector
from app.core.arrivals import Arrivals, Delivery
from app.deliveries import read_deliveries
from bench.nab import hourly_mode

PRACTICE = Path(os.environ.get("SPENDSCOPE_PRACTICE", Path(__file__).parents[2] / "shared/data/anomaly"))
FRESH_SEEDS = (9001, 9003)
LEARN = 28
QUIET = 7
MOST_BYTES = 10**9
COLUMNS = (
    ("P", "precision"),
    ("R", "recall"),
    ("F1", "f1"),
    ("impact recall", "impact_recall"),
    ("avoidable", "avoidable_share"),
    ("noise/week", "noise_per_org_week"),
    ("delay", "mean_delay_days"),
    ("without leaks", "mean_delay_without_leaks"),
    ("RC@1", "root_cause_at_1"),
    ("RC@1 multi", "root_cause_at_1_multi_series"),
    ("$ error", "impact_median_error"),
)
Rule = Callable[[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]
Lines = list[dict[str, Any]]


def percent(past: np.ndarray, value: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """50 % above the mean of the last seven days."""
    expected = past[:, -7:].mean(1)
    return expected, np.abs(value - expected) > 0.5 * expected


def z_score(past: np.ndarray, value: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Three standard deviations from the mean of four weeks."""
    expected = past.mean(1)
    return expected, np.abs(value - expected) > 3 * past.std(1)


def weekday_mad(past: np.ndarray, value: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Six robust deviations from the median of the same weekday in eight weeks."""
    same = past[:, -7::-7][:, :8]
    expected = np.median(same, 1)
    spread = 1.4826 * np.median(np.abs(same - expected[:, None]), 1)
    return expected, np.abs(value - expected) > 6 * np.maximum(spread, 0.02 * expected)


RULES: dict[str, tuple[Rule, int]] = {
    "percent, 50 %": (percent, LEARN),
    "z-score, 3 sd": (z_score, LEARN),
    "weekday MAD, 6": (weekday_mad, 8 * 7),
}


def simple(rule: Rule, days: int, deliveries: Iterator[Delivery], daily: float) -> Lines:
    """A rule on yesterday, which is nearly complete, with the dollar gate and one alert a series until a quiet week."""
    arrivals, told, lines = Arrivals(), {}, []
    for delivery in deliveries:
        arrivals.deliver(delivery)
        day = arrivals.days - 2
        if day < days:
            continue
        value, past = arrivals.known[:, day], arrivals.known[:, day - days : day]
        expected, odd = rule(past, value)
        excess = value - expected
        for series in np.flatnonzero(odd & (np.abs(excess) >= daily)).tolist():
            if day - told.get(series, -QUIET - 1) > QUIET:
                lines.append(line(arrivals, series, day, delivery.day, float(expected[series]), float(value[series])))
            told[series] = day
    return lines


def line(arrivals: Arrivals, series: int, day: int, on: date, expected: float, actual: float) -> dict[str, Any]:
    return {
        "scope": asdict(arrivals.keys[series]),
        "date": str(arrivals.day_at(day)),
        "detected_on": str(on),
        "expected": expected,
        "actual": actual,
        "impact": actual - expected,
    }


def ours(folder: Path, labels: dict[str, Any]) -> Lines:
    rules = Rules(labels["materiality"]["daily"], labels["materiality"]["total"])
    return [alert_line(alert) for alert in replay(read_deliveries(folder, max_bytes=MOST_BYTES), rules)]


def organisations(into: Path) -> Iterator[tuple[str, Path]]:
    """(group, folder) of the practice organisations and of freshly generated ones."""
    for packed in sorted((PRACTICE / "public").glob("*/costs.tar.xz")):
        folder = into / "practice" / packed.parent.name
        with tarfile.open(packed) as archive:
            archive.extractall(folder, filter="data")
        (folder / "labels.json").write_bytes((packed.parent / "labels.json").read_bytes())
        yield "practice", folder
    for seed in FRESH_SEEDS:
        out = generated(into / f"seed {seed}", "public", "--seed", str(seed))
        yield from ((f"seed {seed}", path.parent) for path in sorted(out.glob("*/labels.json")))


def generated(out: Path, *arguments: str) -> Path:
    command = [sys.executable, str(PRACTICE / "generator.py"), arguments[0], str(out), *arguments[1:]]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return out


def scorer() -> Any:
    spec = importlib.util.spec_from_file_location("practice_score", PRACTICE / "score.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def table(into: Path) -> None:
    score = scorer()
    results: dict[tuple[str, str], list[Any]] = {}
    for group, folder in organisations(into):
        labels = json.loads((folder / "labels.json").read_text())
        found = {"Spendscope": ours(folder, labels)}
        for name, (rule, days) in RULES.items():
            deliveries = read_deliveries(folder, max_bytes=MOST_BYTES)
            found[name] = simple(rule, days, deliveries, labels["materiality"]["daily"])
        for name, lines in found.items():
            results.setdefault((group, name), []).append(score.score_org(labels, lines))
    rows = [["organisations", "detector", *(title for title, _ in COLUMNS)]]
    for (group, name), parts in results.items():
        total = score.combine(parts)
        rows.append([group, name, *(str(total[key]) for _, key in COLUMNS)])
    show(rows)
    print("AutoETS is left out: its packages (statsforecast, numba) are larger than everything Spendscope runs on.")


def show(rows: list[list[str]]) -> None:
    for row in rows:
        print("| " + " | ".join(row) + " |")
        if row is rows[0]:
            print("|" + "---|" * len(row))


def speed(into: Path) -> None:
    """CPU seconds of one process: 2,000 series × 400 days."""
    (folder,) = (path.parent for path in generated(into / "bench", "bench", "--series", "2000").glob("*/meta.json"))
    began = time.process_time()
    deliveries = list(read_deliveries(folder, max_bytes=MOST_BYTES))
    read = time.process_time() - began
    detector, days = Detector(), []
    for delivery in deliveries:
        began = time.process_time()
        detector.deliver(delivery)
        days.append(time.process_time() - began)
    print(
        f"CPU, {len(detector.arrivals.keys)} series × {len(days)} days: reading {read:.1f} s, replay {sum(days):.1f} s "
        f"(goal 150), slowest day {max(days):.2f} s (goal 1)"
    )


def main() -> None:
    hourly_mode()
    if not (PRACTICE / "generator.py").is_file():
        print(
            f"Not measured: the practice organisations are not at {PRACTICE}. SPENDSCOPE_PRACTICE names their folder."
        )
        return
    with tempfile.TemporaryDirectory() as folder:
        table(Path(folder))
        speed(Path(folder))


if __name__ == "__main__":
    main()
