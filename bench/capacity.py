"""What Spendscope needs, measured with the processes of `spendscope up`: `python -m bench.capacity` prints the tables of
docs/operations.md. Sizes and CPU seconds, which a busy machine changes little, rather than rates by the clock.
"""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

from app.adapters.parquet import ParquetCostStore
from bench.files import daily_csv
from bench.pages import ask, cpu_seconds, draw_request, free_port

SIZES: Final = ((1_000, 31), (20_000, 15), (200_000, 4), (1_000_000, 2))
"""Rows a day, and days."""

MB: Final = 2**20
NAMES: Final = ("web", "worker", "scheduler", "valkey", "redis")


def table_of(pid: int, name: str) -> int:
    """Bytes of a line of /proc/PID/{smaps_rollup,status}; 0 for a process that has ended."""
    file, label = name.split(":")
    try:
        lines = Path(f"/proc/{pid}/{file}").read_text().splitlines()
    except OSError:
        return 0
    return sum(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{label}:"))


def children(pid: int) -> list[int]:
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            parent = int(path.read_text().rpartition(")")[2].split()[1])
        except OSError:
            continue
        if parent == pid:
            found.append(int(path.parent.name))
    return found


def family(pid: int) -> dict[str, int]:
    """The processes of an `up` by what they are."""
    found = {}
    for child in children(pid):
        command = Path(f"/proc/{child}/cmdline").read_text().split("\0")
        name = next((name for name in NAMES if name in command or name in Path(command[0]).name), None)
        if name:
            found["redis" if name == "valkey" else name] = child
    return found


@dataclass
class Peaks:
    """The most memory that any child of a process had, looked at twenty times a second."""

    pid: int
    most: int = 0
    stop: threading.Event = field(default_factory=threading.Event)

    def look(self) -> None:
        while not self.stop.wait(0.05):
            for child in children(self.pid):
                self.most = max(self.most, table_of(child, "status:VmHWM"))


@contextmanager
def running(data_dir: Path, source: Path) -> Iterator[tuple[int, int]]:
    """An `up` with one worker: its process id and port."""
    port = free_port()
    own = {
        "SPENDSCOPE_DATA_DIR": str(data_dir),
        "SPENDSCOPE_SOURCE": source.as_uri() + "/",
        "SPENDSCOPE_WORKERS": "1",
        "SPENDSCOPE_RETENTION_DAYS": "0",
    }
    command = [sys.executable, "-m", "app.cli", "up", "--port", str(port)]
    process = subprocess.Popen(
        command, env=os.environ | own, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    assert process.stdout is not None
    while "ready" not in (line := process.stdout.readline()):
        assert line, "it did not start"
    try:
        yield process.pid, port
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(60)
        process.stdout.close()


def until_taken(port: int, days: int) -> None:
    until = time.monotonic() + 600
    while time.monotonic() < until:
        found = json.loads(ask(port, "GET", "/api/v1/ingestions?status=ingested&limit=1000"))["items"]
        if len(found) == days:
            return
        time.sleep(0.3)
    raise RuntimeError("the files were not taken within ten minutes")


def bytes_in(folder: Path) -> int:
    return sum(path.stat().st_blocks * 512 for path in folder.rglob("*") if path.is_file())


def at_rest(store: Path) -> tuple[int, int]:
    """Bytes of the cost store once what it keeps for readers of yesterday's version is gone, and of the ledger."""
    long_ago = time.time() - 86_400
    for path in (store / "costs").rglob("*"):
        os.utime(path, (long_ago, long_ago))
    ParquetCostStore(store / "costs", retention_days=0).prepare()
    return bytes_in(store / "costs"), sum(path.stat().st_blocks * 512 for path in store.glob("metadata.sqlite*"))


def row(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"


def measured(rows: int, days: int) -> list[str]:
    """Both tables' lines for one size: ingest and disk, then memory."""
    last = datetime.now(UTC).date() - timedelta(days=3)
    with tempfile.TemporaryDirectory(prefix="capacity-") as made:
        source, data_dir = Path(made) / "costs", Path(made) / "data"
        source.mkdir()
        for number in range(days):
            day = last - timedelta(days=number)
            (source / f"{day}.csv").write_bytes(daily_csv(day, rows))
        with running(data_dir, source) as (pid, port):
            parts = family(pid)
            peaks = Peaks(parts["worker"])
            watcher = threading.Thread(target=peaks.look)
            watcher.start()
            until_taken(port, days)
            time.sleep(2)
            peaks.stop.set()
            watcher.join()
            spent = cpu_seconds(parts["worker"])
            body = draw_request(port, f"?start={last - timedelta(days=days - 1)}&end={last + timedelta(days=1)}")
            for _ in range(40):
                ask(port, "POST", "/_dash-update-component", body)
            web = [parts["web"], *children(parts["web"])]
            memory = {name: table_of(each, "smaps_rollup:Pss") for name, each in parts.items()}
            memory["web"] = sum(table_of(each, "smaps_rollup:Pss") for each in web)
            busy = bytes_in(data_dir / "store" / "costs")
        total, csv = rows * days, bytes_in(source)
        costs, ledger = at_rest(data_dir / "store")
    return [
        row(
            [
                f"{rows:,} × {days}",
                f"{csv / total:.0f} B",
                f"{costs / total:.1f} B",
                f"{busy / costs:.1f} ×",
                f"{ledger / days / 1024:.0f} KB",
                f"{spent / days:.2f} s",
                f"{spent / total * 1e6:.1f} s",
                f"{peaks.most / MB:.0f} MB",
            ]
        ),
        row(
            [f"{rows:,} × {days}", *(f"{memory[name] / MB:.0f} MB" for name in ("web", "worker", "scheduler", "redis"))]
        ),
    ]


def main() -> None:
    sizes = [size for size in SIZES if not sys.argv[1:] or str(size[0]) in sys.argv[1:]]
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    lines = [measured(*size) for size in sizes]
    print(
        "| rows a day × days | CSV a row | cost store a row | while importing | ledger a day | CPU a day | CPU a million rows | a job's peak |"
    )
    print("|---|---|---|---|---|---|---|---|")
    print("\n".join(first for first, _ in lines))
    print("\n| rows a day × days | web (3 processes) | worker, idle | scheduler | Redis |")
    print("|---|---|---|---|---|")
    print("\n".join(second for _, second in lines))


if __name__ == "__main__":
    main()
