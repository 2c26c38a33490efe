"""Ingest: from the bytes of a file to committed, against csv.DictReader → influxdb-client Point → write API → null server."""

from __future__ import annotations

import csv
import io
import subprocess
import sys
import tempfile
import time
from datetime import UTC, date, datetime
from pathlib import Path

from bench.files import daily_csv
from bench.nullserver import null_server

DAY = date(2026, 10, 1)
BATCH = 5_000


def usual_way(data: bytes, url: str) -> None:
    from influxdb_client import InfluxDBClient, Point, WritePrecision
    from influxdb_client.client.write_api import SYNCHRONOUS

    with InfluxDBClient(url=url, token="none", org="bench") as client:
        writing = client.write_api(write_options=SYNCHRONOUS)
        points = []
        for row in csv.DictReader(io.StringIO(data.decode())):
            point = Point("cost")
            for tag in ("account", "service", "region"):
                point.tag(tag, row[tag])
            for field in ("amortized_cost", "blended_cost", "unblended_cost", "usage_quantity"):
                point.field(field, float(row[field]))
            point.time(datetime.combine(date.fromisoformat(row["date"]), datetime.min.time(), UTC), WritePrecision.S)
            points.append(point)
            if len(points) == BATCH:
                writing.write("bench", "bench", points)
                points = []
        if points:
            writing.write("bench", "bench", points)


def our_way(folder: Path, key: str) -> None:
    """The job's own function on the embedded parts, fsync and read-back included; only the queue is left out."""
    from app.backends import open_backends
    from app.config import read_settings
    from app.ingest import ingest_object

    settings = read_settings({}, source=folder.as_uri() + "/", data_dir=folder.parent / "data", demo=False)
    backends = open_backends(settings)
    backends.metadata.prepare()
    backends.costs.prepare()
    began = time.perf_counter()
    outcome = ingest_object(backends, {"key": key}, lambda *_: None)
    print(f"{time.perf_counter() - began:.4f}")
    assert outcome.status == "done", outcome


def timed_ours(data: bytes, days: list[date]) -> tuple[float, float]:
    """Median seconds a file in a fresh process that imported its libraries, and the process's peak memory in MB."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / "costs"
        folder.mkdir()
        for day in days:
            (folder / f"{day}.csv").write_bytes(data.replace(str(DAY).encode(), str(day).encode()))
        shown = subprocess.run(
            [sys.executable, "-m", "bench.ingest", str(folder), *map(str, days)],
            capture_output=True,
            text=True,
            check=True,
        )
    *seconds, memory = map(float, shown.stdout.split())
    return sorted(seconds)[len(seconds) // 2], memory


def rows_a_second() -> list[tuple[str, ...]]:
    table = []
    with null_server() as url:
        for rows, usual_rows, days in ((1_000_000, 100_000, 3), (5_000, 5_000, 15)):
            data = daily_csv(DAY, rows)
            sample = data if rows == usual_rows else daily_csv(DAY, usual_rows)
            ratios, ours, usual, memory = [], 0.0, 0.0, 0.0
            for _ in range(3):
                began = time.perf_counter()
                usual_way(sample, url)
                usual = usual_rows / (time.perf_counter() - began)
                dates = [date.fromordinal(DAY.toordinal() - 31 * number) for number in range(days)]
                seconds, memory = timed_ours(data, dates)
                ours = rows / seconds
                ratios.append(ours / usual)
            table.append(
                (
                    f"ingest, {rows:,}-row days",
                    f"{ours:,.0f} rows/s",
                    f"{usual:,.0f} rows/s",
                    f"{sorted(ratios)[1]:.1f}x",
                    "≥ 20x" if rows == 1_000_000 else "",
                    f"peak {memory:.0f} MB",
                )
            )
    return table


if __name__ == "__main__":
    for name in sys.argv[2:]:
        our_way(Path(sys.argv[1]), f"{name}.csv")
    # Not getrusage: its maximum is inherited from the process that forked this one.
    print(int(Path("/proc/self/status").read_text().partition("VmHWM:")[2].split()[0]) / 1024)
