"""The hourly mode on the Numenta Anomaly Benchmark, scored as NAB does: standard profile, normalised.

The data (MIT licence) are not part of the project: `SPENDSCOPE_NAB` names a copy of github.com/numenta/NAB. Where it has
`results/`, the detectors shipped there are scored first, by the thresholds that NAB chose for them on these labels.
"""

from __future__ import annotations

import csv
import json
import math
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np

from app.core.hourly import Hour, HourlyThresholds, alerts_of, fold

NAB = Path(os.environ["SPENDSCOPE_NAB"]) if os.environ.get("SPENDSCOPE_NAB") else None
AWS = "realAWSCloudwatch"
FOLDERS = (AWS, "realAdExchange", "realTraffic", "realTweets", "realKnownCause")
SHIPPED = ("numenta", "contextOSE", "knncad", "relativeEntropy", "windowedGaussian", "null")
PROBATION, PROBATION_ROWS = 0.15, 5000
FALSE_WEIGHT = 0.11
Window = tuple[int, int]


@dataclass
class Score:
    """Of one or more series: NAB's raw score, its labelled windows, those found, and alerts outside of windows."""

    raw: float = 0.0
    windows: int = 0
    found: int = 0
    false: int = 0

    def __add__(self, other: Score) -> Score:
        return Score(
            self.raw + other.raw, self.windows + other.windows, self.found + other.found, self.false + other.false
        )

    @property
    def normalised(self) -> float:
        """100 for every window found at its beginning and nothing else, 0 for silence."""
        return 100 * (self.raw + self.windows) / (2 * self.windows)

    @property
    def f1(self) -> float:
        """Each window found is right once, each alert outside of windows is wrong."""
        return 2 * self.found / (self.found + self.false + self.windows)


def worth(position: float) -> float:
    """NAB's scaled sigmoid: -1 is a window's left edge, 0 its right one, beyond it is after the window."""
    return -1.0 if position > 3 else 2 / (1 + math.exp(5 * position)) - 1


def scored(rows: int, windows: Sequence[Window], alerts: Sequence[int]) -> Score:
    """`windows` are (first, last) rows, in order; `alerts` rows. What falls into the first 15 % counts for nothing."""
    probation = math.floor(min(PROBATION * rows, PROBATION * PROBATION_ROWS))
    best = {window: -1.0 for window in windows if window[1] >= probation}
    score = Score(windows=len(best))
    for row in alerts:
        if row < probation:
            continue
        inside = [window for window in windows if window[0] <= row <= window[1]]
        if inside:
            first, last = inside[0]
            best[first, last] = max(best[first, last], worth((row - last - 1) / (last - first + 1)) / worth(-1))
            continue
        before = [window for window in windows if window[1] < row][-1:]
        score.raw += FALSE_WEIGHT * sum((worth((row - b) / (b - a)) for a, b in before), 0.0 if before else -1.0)
        score.false += 1
    score.raw += sum(best.values())
    score.found = sum(value > -1 for value in best.values())
    return score


@dataclass(frozen=True)
class Labelled:
    """A series of NAB: the row that ends each of its hours, the labelled windows, all in rows."""

    name: str
    rows: int
    hours: list[Hour]
    ends: list[int]
    windows: list[Window]


def labelled(nab: Path, folder: str) -> list[Labelled]:
    labels = json.loads((nab / "labels/combined_windows.json").read_text())
    return [series(nab, name, labels[name]) for name in sorted(labels) if name.startswith(f"{folder}/")]


def series(nab: Path, name: str, windows: list[list[str]]) -> Labelled:
    with (nab / "data" / name).open(newline="") as file:
        rows = list(csv.DictReader(file))
    times = [datetime.fromisoformat(row["timestamp"] + "+00:00") for row in rows]
    seconds = np.array([int(time.timestamp()) for time in times])
    hours = fold(seconds, np.array([float(row["value"]) for row in rows]))
    last = {hour: row for row, hour in enumerate((seconds // 3600).tolist())}
    place = {time.replace(tzinfo=None): row for row, time in reversed(list(enumerate(times)))}
    spans = [(place[datetime.fromisoformat(a)], place[datetime.fromisoformat(b)]) for a, b in windows]
    return Labelled(name, len(rows), hours, [last[hour.at] for hour in hours], spans)


def ours(data: Sequence[Labelled], thresholds: HourlyThresholds) -> Score:
    total = Score()
    for each in data:
        ends = dict(zip((hour.at for hour in each.hours), each.ends, strict=True))
        alerts = [ends[alert.at] for alert in alerts_of(each.hours, thresholds)]
        total += scored(each.rows, each.windows, alerts)
    return total


def shipped(nab: Path, detector: str, data: Sequence[Labelled]) -> Score:
    thresholds: Any = json.loads((nab / "config/thresholds.json").read_text())
    threshold, total = thresholds[detector]["standard"]["threshold"], Score()
    for each in data:
        folder, file = each.name.split("/")
        with (nab / "results" / detector / folder / f"{detector}_{file}").open(newline="") as results:
            scores = [float(row["anomaly_score"]) for row in csv.DictReader(results)]
        alerts = [row for row, score in enumerate(scores) if score >= threshold]
        total += scored(each.rows, each.windows, alerts)
    return total


def variants() -> Iterator[tuple[str, HourlyThresholds]]:
    """What moving one threshold does."""
    usual = HourlyThresholds()
    moved: dict[str, tuple[float, ...]] = {
        "spreads": (4, 4.5, 5.5, 6),
        "heavy": (0.6, 1.0),
        "least": (0.01, 0.04),
        "again": (1.0, 1.5),
    }
    for name, values in moved.items():
        for value in values:
            yield f"{name} {value} instead of {getattr(usual, name)}", replace(usual, **{name: value})


def line(*cells: object) -> None:
    print("| " + " | ".join(map(str, cells)) + " |")


def shown(who: str, folder: str, score: Score) -> None:
    found = f"{score.found} of {score.windows}"
    line(who, folder, f"{score.normalised:.1f}", f"{score.f1:.2f}", found, score.false)


def hourly_mode() -> None:
    """The table, if there is a copy of NAB."""
    if NAB is None:
        print("Not measured: the hourly mode on NAB. SPENDSCOPE_NAB names a copy of github.com/numenta/NAB.")
    else:
        table(NAB)


def table(nab: Path) -> None:
    """Prints a row for each detector and folder; sensitivity on the AWS series."""
    line("detector", "folder", "NAB score", "event F1", "windows found", "alerts outside windows")
    print("|" + "---|" * 6)
    for folder in FOLDERS:
        data = labelled(nab, folder)
        if folder == AWS:
            aws = data
        shown("Spendscope, hourly", folder, ours(data, HourlyThresholds()))
        for detector in SHIPPED if (nab / "results").is_dir() else ():
            shown(f"{detector}, threshold fitted to the labels", folder, shipped(nab, detector, data))
    for name, thresholds in variants():
        shown(name, AWS, ours(aws, thresholds))


if __name__ == "__main__":
    hourly_mode()
