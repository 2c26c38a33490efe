"""A Redis as managed services offer it: no append-only file, and CONFIG and its like forbidden."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis

from app.adapters.rq import RqQueue
from app.backends import Backends, open_queue
from app.config import read_settings
from app.errors import CannotStart
from app.jobs import submit
from app.redisserver import find_binary
from tests.workers.world import world_of
from workers.schedule import reap

FORBIDDEN = (
    "acl", "bgrewriteaof", "bgsave", "cluster", "config", "debug", "migrate", "psync", "replicaof", "save", "shutdown",
    "slaveof", "sync",
)  # fmt: skip
"""Restricted commands of ElastiCache, as its documentation lists them."""


@pytest.fixture
def url(tmp_path: Path) -> Iterator[str]:
    socket = tmp_path / "managed.sock"
    options = ["--port", "0", "--unixsocket", str(socket), "--appendonly", "no", "--save", "", "--dir", str(tmp_path)]
    options += ["--maxmemory-policy", "noeviction"]
    options += [part for name in FORBIDDEN for part in ("--rename-command", name, "")]
    process = subprocess.Popen([find_binary(), *options], stdout=subprocess.DEVNULL)
    client = redis.Redis(unix_socket_path=str(socket))
    until = time.monotonic() + 30
    while True:
        try:
            client.ping()
            break
        except redis.RedisError:
            assert process.poll() is None
            assert time.monotonic() < until
            time.sleep(0.05)
    client.close()
    yield f"unix://{socket}?db=0"
    process.terminate()
    process.wait(10)


def forget(url: str) -> None:
    with redis.Redis.from_url(url) as client:
        client.flushall()


def wait_for(world: Backends, id: str, seconds: float = 40) -> str:
    until = time.monotonic() + seconds
    while (job := world.metadata.job(id)) is not None and job.status != "done" and time.monotonic() < until:
        time.sleep(0.1)
    assert job is not None
    return job.status


def test_it_is_refused_until_somebody_vouches_for_it(url: str) -> None:
    with redis.Redis.from_url(url) as client, pytest.raises(redis.ResponseError, match="unknown command"):
        client.config_get("appendonly")
    with pytest.raises(CannotStart, match="SPENDSCOPE_REDIS_PERSISTENCE to service"):
        open_queue(read_settings({}, redis_url=url)).check()
    open_queue(read_settings({}, redis_url=url, redis_persistence="service")).check()
    with pytest.raises(CannotStart, match="REDIS_PERSISTENCE"):
        read_settings({}, redis_url=url, redis_persistence="mine")


def test_a_real_worker_works_on_it_and_what_it_forgets_is_queued_again(url: str, tmp_path: Path) -> None:
    queue = RqQueue(url, job_timeout=60, kept_by_service=True)
    world = world_of(tmp_path, queue=queue)
    settings = json.loads(world.settings.model_dump_json()) | {"redis_url": url, "redis_persistence": "service"}
    (tmp_path / "settings.json").write_text(json.dumps(settings))
    lost = submit(world, "ingest", {"folder": str(tmp_path)}, key="lost")
    forget(url)
    assert queue.waiting() == 0
    command = [sys.executable, "-m", "tests.workers.processes", "worker", str(tmp_path)]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent.parent.parent)}
    worker = subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL)
    try:
        assert [job.id for job in reap(world)] == [lost.id], "the record is the truth, the queue a hint"
        assert wait_for(world, lost.id) == "done"
        kept = submit(world, "ingest", {"folder": str(tmp_path)}, key="kept")
        assert wait_for(world, kept.id) == "done"
    finally:
        worker.terminate()
        worker.wait(30)
        world.metadata.close()
