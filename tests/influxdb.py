"""A real InfluxDB 2 to test against."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

ORG = "spendscope"
SECRET = "secret-token-of-the-tests"


@dataclass(frozen=True)
class Server:
    url: str
    token: str
    org: str


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


@contextmanager
def found(home: Path) -> Iterator[Server]:
    """The server of SPENDSCOPE_TEST_INFLUXDB_URL, _TOKEN and _ORG, else an influxd of our own; skips without either."""
    if url := os.environ.get("SPENDSCOPE_TEST_INFLUXDB_URL"):
        given = os.environ
        yield Server(url, given["SPENDSCOPE_TEST_INFLUXDB_TOKEN"], given.get("SPENDSCOPE_TEST_INFLUXDB_ORG", ORG))
        return
    binary = shutil.which("influxd")
    if binary is None:
        pytest.skip("needs InfluxDB 2: put influxd on PATH, or set SPENDSCOPE_TEST_INFLUXDB_URL, _TOKEN and _ORG")
    with started(binary, home) as server:
        yield server


@contextmanager
def started(binary: str, home: Path) -> Iterator[Server]:
    port = free_port()
    paths = {"bolt-path": "bolt", "engine-path": "engine", "sqlite-path": "sqlite"}
    process = subprocess.Popen(
        [
            binary,
            *(f"--{option}={home / name}" for option, name in paths.items()),
            f"--http-bind-address=127.0.0.1:{port}",
            "--reporting-disabled",
            "--log-level=error",
        ],
        env={"HOME": str(home), "PATH": os.environ["PATH"]},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        yield set_up(f"http://127.0.0.1:{port}", process)
    finally:
        process.terminate()
        process.wait(20)


def set_up(url: str, process: subprocess.Popen[bytes]) -> Server:
    body = {"username": "tests", "password": "password-of-tests", "org": ORG, "bucket": "unused", "token": SECRET}
    request = urllib.request.Request(f"{url}/api/v2/setup", json.dumps(body).encode())
    deadline = time.monotonic() + 60
    while True:
        try:
            with urllib.request.urlopen(request, timeout=10):
                return Server(url, SECRET, ORG)
        except OSError:
            assert process.poll() is None, "influxd has ended"
            assert time.monotonic() < deadline, "influxd does not answer"
            time.sleep(0.1)
