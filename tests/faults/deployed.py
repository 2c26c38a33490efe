"""A deployment as it runs in production: `spendscope web`, `worker` and `scheduler` as processes of their own, a real Redis.

What a test breaks is broken for real: processes get SIGKILL or SIGSTOP, Redis forgets or is full, the metadata's file is
locked by somebody else.
"""

from __future__ import annotations

import http.client
import json
import os
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import date, timedelta
from decimal import Decimal
from pathlib import Path
from types import TracebackType
from typing import Any, Final

import redis

from app.backends import Backends, open_backends
from app.config import read_settings
from app.core.jobs import FINAL
from app.core.periods import DateRange
from app.core.query import CostQuery
from app.costs import ask
from app.redisserver import PrivateRedis
from tests.faults.world import cost_file, total_of

ROOT: Final = Path(__file__).parents[2]
COMMAND: Final = [sys.executable, "-m", "app.cli"]
FIRST_DAY: Final = date(2026, 6, 1)
OURS: Final = ("SPENDSCOPE_", "REDIS_", "MONGODB_", "INFLUXDB_", "AWS_", "PROMETHEUS_")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def clean_environment() -> dict[str, str]:
    """This process's environment without anything that Spendscope reads."""
    return {name: value for name, value in os.environ.items() if not name.startswith(OURS)} | {"PYTHONPATH": str(ROOT)}


class Deployed:
    """`settings` are environment variables. Use as a context; nothing of it is left running."""

    def __init__(self, folder: Path, **settings: str) -> None:
        self.folder, self.source, self.data = folder, folder / "costs", folder / "data"
        self.source.mkdir(parents=True, exist_ok=True)
        self.redis = PrivateRedis(folder / "queue")
        self.redis.start()
        self.environment = {
            "SPENDSCOPE_SOURCE": self.source.as_uri() + "/",
            "SPENDSCOPE_DATA_DIR": str(self.data),
            "SPENDSCOPE_LEASE_SECONDS": "2",
            "SPENDSCOPE_WATCH_SECONDS": "3600",
            "REDIS_URL": self.redis.url,
            **settings,
        }
        self.backends: Backends = open_backends(read_settings(self.environment))
        self.backends.metadata.prepare()
        self.backends.costs.prepare()
        self.processes: list[subprocess.Popen[bytes]] = []
        self.truth: dict[date, Decimal] = {}

    def __enter__(self) -> Deployed:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for process in reversed(self.processes):
            end(process)
        self.backends.metadata.close()
        self.redis.stop()
        if error is not None:
            print(self.log()[-20_000:])

    # --- processes

    def start(self, role: str, **settings: str) -> subprocess.Popen[bytes]:
        """A process of this role; it may not be ready yet."""
        with (self.folder / f"{role}-{len(self.processes)}.log").open("wb") as log:
            process = subprocess.Popen(
                [*COMMAND, role],
                cwd=ROOT,
                env=clean_environment() | self.environment | settings,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self.processes.append(process)
        return process

    def serve(self, *, processes: int = 1, port: int | None = None, **settings: str) -> Web:
        """A web server that answers."""
        port = port or free_port()
        web = Web(
            self.start("web", SPENDSCOPE_PORT=str(port), SPENDSCOPE_WEB_PROCESSES=str(processes), **settings), port
        )
        until(lambda: web.answers("/healthz") == 200, 60)
        return web

    def log(self) -> str:
        return "\n".join(f"--- {path.name}\n{path.read_text()}" for path in sorted(self.folder.glob("*.log")))

    # --- what is ingested

    def put(self, count: int, *, first: date = FIRST_DAY, seed: int = 0) -> list[str]:
        """So many daily files, each with another content; their names."""
        names = []
        for number in range(count):
            day, content = first + timedelta(days=number), cost_file(seed * 10_000 + number)
            (self.source / ".arriving").write_bytes(content)
            (self.source / ".arriving").replace(self.source / f"{day}.csv")
            self.truth[day] = total_of(content)
            names.append(f"{day}.csv")
        return names

    def check(self) -> None:
        """I1: ledger, store and answer are what the files say, to the last decimal, and nothing else is there."""
        stored = self.backends.costs.stored_days() if self.backends.costs.atomic else None
        assert stored is None or set(stored) == set(self.truth)
        for day, total in self.truth.items():
            record = self.backends.metadata.day_record(day)
            ledger = sum((part.current.amortized_cost for part in record.accounts.values()), Decimal(0))
            assert not record.restating
            assert ledger == total, day
            if stored is not None:
                assert sum((part.amortized_cost for part in stored[day].accounts.values()), Decimal(0)) == total, day
        whole = CostQuery(DateRange(min(self.truth), max(self.truth) + timedelta(days=1)), granularity="total")
        # A process that only reads follows InfluxDB in the background.
        until(lambda: ask(self.backends, whole).total == sum(self.truth.values()), 30)

    def drained(self, seconds: float = 90) -> None:
        """Wait until no job is open."""
        until(lambda: not self.backends.metadata.unfinished(), seconds, lambda: self.log()[-6000:])

    def statuses(self) -> dict[str, int]:
        return {name: number for name, number in self.backends.metadata.job_counts().items() if number}

    def open_jobs(self) -> int:
        return sum(number for name, number in self.backends.metadata.job_counts().items() if name not in FINAL)

    # --- faults

    @property
    def client(self) -> Any:
        """A connection to Redis that no process under test uses."""
        return redis.Redis.from_url(self.redis.url, socket_timeout=10)

    def kill_redis(self) -> None:
        """kill -9; its keeper starts it again half a second later."""
        if self.redis.process is not None:
            with suppress(ProcessLookupError):
                os.kill(self.redis.process.pid, signal.SIGKILL)

    @contextmanager
    def redis_hangs(self) -> Iterator[None]:
        assert self.redis.process is not None
        pid = self.redis.process.pid
        os.kill(pid, signal.SIGSTOP)
        try:
            yield
        finally:
            os.kill(pid, signal.SIGCONT)

    @contextmanager
    def redis_full(self) -> Iterator[None]:
        self.client.config_set("maxmemory", "1mb")
        try:
            yield
        finally:
            self.client.config_set("maxmemory", "0")

    @contextmanager
    def metadata_locked(self) -> Iterator[None]:
        """Somebody else holds the write lock of the metadata's file: a backup tool that hangs, a debugger."""
        with sqlite3.connect(self.data / "store/metadata.sqlite", timeout=10, isolation_level=None) as other:
            other.execute("BEGIN IMMEDIATE")
            try:
                yield
            finally:
                other.execute("ROLLBACK")
        other.close()


class Web:
    """A web server and how to ask it."""

    def __init__(self, process: subprocess.Popen[bytes], port: int) -> None:
        self.process, self.port = process, port

    def answers(self, path: str, **headers: str) -> int:
        """The status; 0 without an answer."""
        with suppress(OSError, http.client.HTTPException):
            return self.ask("GET", path, headers=headers)[0]
        return 0

    def ask(
        self,
        method: str,
        path: str,
        body: Any = None,
        headers: Mapping[str, str] | None = None,
        seconds: float = 30,
    ) -> tuple[int, http.client.HTTPMessage, bytes]:
        """Status, headers and body of one request on a connection of its own."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=seconds)
        try:
            given = dict(headers or {})
            if body is not None:
                body, given = json.dumps(body).encode(), {"Content-Type": "application/json", **given}
            connection.request(method, path, body, given)
            answer = connection.getresponse()
            return answer.status, answer.headers, answer.read()
        finally:
            connection.close()

    def submit(self, key: str, name: str, **more: Any) -> tuple[int, dict[str, Any]]:
        """Ask for an ingest of the file `key` under the Idempotency-Key `name`."""
        status, _, body = self.ask(
            "POST",
            "/api/v1/jobs",
            {"kind": "ingest", "params": {"key": key, **more}},
            {"Idempotency-Key": name},
        )
        return status, json.loads(body)

    def processes(self) -> list[int]:
        return children_of(self.process.pid)


def end(process: subprocess.Popen[bytes], number: int = signal.SIGKILL) -> None:
    """Signal a process and all of its session, and wait."""
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, number)
    process.wait(40)


def children_of(pid: int) -> list[int]:
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            if int(path.read_text().rsplit(")", 1)[1].split()[1]) == pid:
                found.append(int(path.parent.name))
    return sorted(found)


def until(true: Callable[[], Any], seconds: float, said: Callable[[], str] = str) -> None:
    """Wait until it is so. Raises AssertionError with what `said` says."""
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, f"it did not happen within {seconds:g} s\n{said()}"
        time.sleep(0.05)
