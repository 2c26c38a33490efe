"""Reading series by the hour: CSV files `timestamp,value`, one series each, and what `spendscope backtest --hourly` says of them."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any, Final

import numpy as np

from app.core.csvfault import safe
from app.core.exports import printable
from app.core.hourly import HourlyAlert, HourlyDetector, fold
from app.deliveries import content_of
from app.errors import InvalidInput

COLUMNS: Final = ("timestamp", "value")
ENDINGS: Final = (".csv", ".csv.gz")
MOST_FILES: Final = 1000
MOST_HOURS: Final = 100_000
"""Eleven years of a series, which take 40 s of CPU."""
MOST_VALUE: Final = 1e100
"""Beyond it squares of errors are no numbers any more."""
DIGITS: Final = 6


def series_files(paths: Sequence[Path]) -> list[Path]:
    """The files named, and those of the folders named (not of folders in them) by name. Raises InvalidInput."""
    found: list[Path] = []
    for path in paths:
        if path.is_dir():
            inside = sorted(each for each in path.iterdir() if each.name.endswith(ENDINGS) and each.is_file())
            if not inside:
                raise InvalidInput(f"--hourly {path} holds no file that ends in .csv or .csv.gz.")
            found += inside
        elif path.is_file():
            found.append(path)
        else:
            raise InvalidInput(f"--hourly {path} is no file and no folder.")
    if len(found) > MOST_FILES:
        raise InvalidInput(f"--hourly names {len(found)} files; at most {MOST_FILES} at once.")
    return found


def replay_hourly(path: Path, start: date | None, end: date | None, *, max_bytes: int) -> Iterator[HourlyAlert]:
    """Every alert of one series in the order in which it would have come; those of the days [start, end) only.

    Raises InvalidInput naming the file, the row, the value and the way out.
    """
    seconds, values = read_points(path, content_of(path, max_bytes))
    hours = fold(np.array(seconds, np.int64), np.array(values, np.float64))
    if len(hours) > MOST_HOURS:
        raise InvalidInput(f"{printable(path.name)} has {len(hours)} hours; at most {MOST_HOURS}. Split it.")
    detector = HourlyDetector()
    for hour in hours:
        alert = detector.deliver(hour)
        day = moment(hour.at).date()
        if alert is not None and (start is None or day >= start) and (end is None or day < end):
            yield alert


def read_points(path: Path, content: bytes) -> tuple[list[int], list[float]]:
    """(seconds since 1970 in UTC, values) of the rows, in the file's order. Raises InvalidInput."""
    name = printable(path.name)
    try:
        rows = csv.reader(io.StringIO(content.decode("utf-8-sig"), newline=""), strict=True)
        return _points(name, rows)
    except UnicodeDecodeError:
        raise InvalidInput(f"{name} is not UTF-8. Save it as UTF-8.") from None
    except csv.Error as error:
        raise InvalidInput(f"{name} is not a CSV file: {error}.") from None


def _points(name: str, rows: Iterable[list[str]]) -> tuple[list[int], list[float]]:
    numbered = enumerate(rows, start=1)
    _, header = next(numbered, (1, []))
    if sorted(column for column in header if column in COLUMNS) != sorted(COLUMNS):
        told = safe(",".join(header))
        raise InvalidInput(f"{name} needs the columns timestamp and value, once each; its first row is {told!r}.")
    when, what = (header.index(column) for column in COLUMNS)
    seconds: list[int] = []
    values: list[float] = []
    for number, row in numbered:
        if not row:
            continue
        if len(row) != len(header):
            raise InvalidInput(f"{name}, row {number} has {len(row)} fields where the first row has {len(header)}.")
        seconds.append(_seconds(name, number, row[when]))
        values.append(_value(name, number, row[what]))
    if not values:
        raise InvalidInput(f"{name} has no rows below its header.")
    return seconds, values


def _seconds(name: str, number: int, text: str) -> int:
    try:
        found = datetime.fromisoformat(text.strip())
        found = found.replace(tzinfo=UTC) if found.tzinfo is None else found.astimezone(UTC)
    except (ValueError, OverflowError):
        raise InvalidInput(
            f"{name}, row {number}: timestamp {safe(text)!r} is no time; write 2026-11-26 13:00:00, which is UTC, "
            "or with an offset."
        ) from None
    return int(found.timestamp() // 1)


def _value(name: str, number: int, text: str) -> float:
    try:
        # Python's own literals may have underscores; a file's 1_000 is rather a damaged 1.000 or 1,000.
        found = math.nan if "_" in text else float(text)
    except ValueError:
        found = math.nan
    if not abs(found) <= MOST_VALUE:
        raise InvalidInput(
            f"{name}, row {number}: value {safe(text)!r} is no finite number of at most {MOST_VALUE:g}; "
            "leave out the rows of hours that are not known."
        )
    return found


def moment(at: int) -> datetime:
    """The beginning of an hour (app.core.hourly.Hour)."""
    return datetime.fromtimestamp(at * 3600, UTC)


def hourly_line(path: Path, alert: HourlyAlert) -> dict[str, Any]:
    """The JSON object of one alert: as a daily one's (DESIGN §6), with the file as `series` and the hour in UTC.

    `spreads` is how far off it is; null after nothing but zeros.
    """
    stood = alert.stood
    return {
        "series": path.name,
        "hour": moment(alert.at).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "expected": shortened(stood.expected),
        "actual": shortened(stood.actual),
        "kind": alert.kind,
        "view": alert.view,
        "band": [shortened(stood.low), shortened(stood.high)],
        "spreads": round(stood.score, 2) if math.isfinite(stood.score) else None,
    }


def shortened(value: float) -> float:
    """To six significant digits: the unit is not known, so that no place behind the point is."""
    return float(f"{value:.{DIGITS}g}")


def hourly_text(path: Path, alert: HourlyAlert) -> str:
    """One alert for people."""
    stood = alert.stood
    return (
        f"{moment(alert.at):%Y-%m-%d %H}:00Z  {alert.kind:<4}  {printable(path.name)[:60]}  "
        f"({alert.view.replace('_', ' ')} {stood.actual:,.6g}, expected {stood.low:,.6g} to {stood.high:,.6g})"
    )
