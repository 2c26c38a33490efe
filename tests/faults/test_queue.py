"""Q: the queue. Whatever becomes of Redis, what was accepted is done, and what does not need it goes on."""

from __future__ import annotations

import shutil
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import redis

from app.adapters.rq import RqQueue
from app.core.jobs import Job
from app.errors import Unavailable
from app.redisserver import PrivateRedis
from tests.adapters.test_rq import job
from tests.faults.conftest import Running
from tests.faults.deployed import Deployed, Web, until

pytestmark = pytest.mark.slow


def submitted_while(running: Running, prefix: str, count: int) -> tuple[list[str], list[float]]:
    """So many at once, each by a client of its own: the ids that were accepted, and how long each took."""
    ids: list[str] = []
    seconds: list[float] = []

    def submit(number: int) -> None:
        began = time.monotonic()
        status, answer = running.web.submit(running.names[number % len(running.names)], f"{prefix}-{number}")
        assert status == 202, answer
        ids.append(str(answer["id"]))
        seconds.append(time.monotonic() - began)

    threads = [threading.Thread(target=submit, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(ids) == count
    return ids, seconds


def done(running: Running, ids: list[str]) -> None:
    metadata = running.deployed.backends.metadata

    def found(name: str) -> Job:
        kept = metadata.job(name)
        assert kept is not None
        return kept

    until(lambda: {found(name).status for name in ids} <= {"done", "done-noop"}, 60, running.deployed.log)


def slowest(web: Web, path: str, stop: threading.Event) -> Callable[[], float]:
    """Ask for this path again and again until `stop`; the seconds of the slowest answer."""
    seconds = [0.0]

    def ask() -> None:
        while not stop.wait(0.1):
            began = time.monotonic()
            assert web.answers(path) == 200, path
            seconds.append(time.monotonic() - began)

    thread = threading.Thread(target=ask)
    thread.start()

    def result() -> float:
        thread.join(60)
        return max(seconds)

    return result


@pytest.mark.soak
def test_q1_what_starts_without_redis_serves_accepts_and_does_it_later(tmp_path: Path) -> None:
    with Deployed(tmp_path) as deployed:
        deployed.redis.stop()
        [name] = deployed.put(1)
        web = deployed.serve()
        deployed.start("worker"), deployed.start("scheduler")
        assert web.answers("/api/v1/costs?start=2026-06-01&end=2026-06-02") == 200
        assert web.answers("/readyz") == 503
        status, answer = web.submit(name, "early")
        assert status == 202
        assert "queue does not answer" in answer["message"]
        again = PrivateRedis(deployed.redis.home.parent)
        again.start()
        try:
            deployed.drained()
            deployed.check()
            until(lambda: web.answers("/readyz") == 200, 30, deployed.log)
        finally:
            again.stop()


@pytest.mark.soak
def test_q3_a_silent_redis_holds_nobody(running: Running) -> None:
    """12 submit at once while Redis is stopped: accepted within seconds, and whoever asks for something else waits for none."""
    stop = threading.Event()
    with running.deployed.redis_hangs():
        other = slowest(running.web, "/api/v1/jobs?limit=1", stop)
        ids, seconds = submitted_while(running, "silent", 12)
        stop.set()
    assert max(seconds) < 9
    # Four threads serve: without an end to waiting, all of them would wait for Redis.
    assert other() < 4.5
    done(running, ids)


def test_q4_a_password_that_changes_is_told_and_work_goes_on_when_it_is_right(running: Running) -> None:
    client = running.deployed.client
    client.config_set("requirepass", "another")
    try:
        client.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
        until(lambda: running.web.answers("/readyz") == 503, 20)
        _, _, body = running.web.ask("GET", "/readyz")
        assert b"does not let us in" in body
        assert b"another" not in body
        ids, _ = submitted_while(running, "password", 2)
    finally:
        redis.Redis.from_url(running.deployed.redis.url, password="another").config_set("requirepass", "")
    done(running, ids)
    assert "Traceback" not in running.deployed.log()


def test_q7_a_full_redis_loses_nothing(running: Running) -> None:
    with running.deployed.redis_full():
        ids, _ = submitted_while(running, "full", 4)
    done(running, ids)
    assert "Traceback" not in running.deployed.log()


@contextmanager
def small_disk(folder: Path, size: str = "8m") -> Iterator[Path]:
    """A file system of its own of this size."""
    folder.mkdir()
    mount = shutil.which("mount") or "mount"
    if subprocess.run(
        [mount, "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)], capture_output=True
    ).returncode:
        pytest.skip("needs the right to mount a tmpfs: run as root")
    try:
        yield folder
    finally:
        subprocess.run([shutil.which("umount") or "umount", "-l", str(folder)], check=True)


def fill(disk: Path) -> Path:
    """Take what room is left."""
    path = disk / "filler"
    with path.open("wb", buffering=0) as filler:
        try:
            while True:
                filler.write(bytes(1 << 16))
        except OSError:
            pass
        try:
            while True:
                filler.write(b"x")
        except OSError:
            return path


def test_q7_a_redis_whose_disk_is_full_says_so_and_goes_on_when_there_is_room(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk") as disk:
        server = PrivateRedis(disk)
        server.start()
        try:
            queue = RqQueue(server.url, job_timeout=60)
            queue.push(job("before"))
            filler = fill(disk)

            def refuses() -> bool:
                try:
                    queue.push(job(f"during-{time.monotonic_ns()}"))
                except Unavailable as error:
                    return "refuses to store" in error.message
                return False

            until(refuses, 20)
            filler.unlink()

            def takes() -> bool:
                try:
                    queue.push(job("after"))
                except Unavailable:
                    return False
                return True

            until(takes, 20)
            assert queue.missing([job("before"), job("after")]) == []
            queue._client.close()
        finally:
            server.stop()
