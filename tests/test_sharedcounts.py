"""The folder that a web server's processes count in is there as long as one of them is, and not longer."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

SERVER = """
import os, sys, time
from app.sharedcounts import VARIABLE, count_together
count_together()
child = os.fork() if sys.argv[1:] == ["forking"] else 0
if child or sys.argv[1:] != ["forking"]:
    print(os.environ[VARIABLE], child, flush=True)
sys.stdin.read()
"""


class Servers:
    def __init__(self, place: Path) -> None:
        self.place = place
        self.running: list[subprocess.Popen[str]] = []

    def start(self, *arguments: str, **environment: str) -> tuple[subprocess.Popen[str], Path, int]:
        """A process that counts, its folder, and the process it forked (0: none)."""
        process = subprocess.Popen(
            [sys.executable, "-c", SERVER, *arguments],
            cwd=ROOT,
            env={**os.environ, "TMPDIR": str(self.place), **environment},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.running.append(process)
        assert process.stdout is not None
        folder, child = process.stdout.readline().split()
        return process, Path(folder), int(child)

    def folders(self) -> list[Path]:
        return sorted(self.place.iterdir())


@pytest.fixture
def servers(tmp_path: Path) -> Iterator[Servers]:
    servers = Servers(tmp_path)
    yield servers
    for process in servers.running:
        process.communicate()


def test_it_goes_with_the_server(servers: Servers) -> None:
    process, folder, _ = servers.start()
    assert servers.folders() == [folder]
    process.communicate()
    assert servers.folders() == []


def test_what_a_killed_server_left_goes_with_the_next_start(servers: Servers) -> None:
    killed, left, _ = servers.start()
    living, used, _ = servers.start()
    killed.kill()
    killed.wait()
    assert servers.folders() == sorted([left, used])
    _, folder, _ = servers.start()
    assert servers.folders() == sorted([used, folder])
    assert living.poll() is None


def test_a_forked_process_keeps_it(servers: Servers) -> None:
    killed, used, child = servers.start("forking")
    os.kill(child, 0)
    killed.kill()
    _, folder, _ = servers.start()
    assert servers.folders() == sorted([used, folder])
    killed.communicate()  # its pipe is what the child waits at, too
    with (used / "lock").open("r+") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
    _, another, _ = servers.start()
    assert servers.folders() == sorted([folder, another])


def test_a_folder_somebody_chose_is_left_alone(servers: Servers) -> None:
    chosen = servers.place / "chosen"
    chosen.mkdir()
    unlocked = servers.place / "spendscope-metrics-just-being-made"
    unlocked.mkdir()
    _, folder, _ = servers.start()
    assert servers.folders() == sorted([chosen, unlocked, folder])
    _, told, _ = servers.start(PROMETHEUS_MULTIPROC_DIR=str(chosen))
    assert told == chosen
    assert servers.folders() == sorted([chosen, unlocked, folder])
