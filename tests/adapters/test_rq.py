"""The queue on a real Redis: what it keeps, what it refuses, and what it says when it cannot."""

from __future__ import annotations

import json
import pickle
import socket
import threading
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import redis
from rq.serializers import JSONSerializer
from rq.utils import utcformat

from app.adapters.rq import (
    POPPED_SECONDS,
    REFUSED,
    RUN,
    ForeignJob,
    IdJob,
    IdQueue,
    RqQueue,
    connect,
    open_queue,
    rq_id,
)
from app.core.jobs import Job
from app.errors import BadCredentials, CannotStart, Unavailable
from app.ports import Queue
from app.redisserver import PrivateRedis
from tests.breaker import Breaker
from tests.contracts.queue import QueueContract, job
from tests.fakes import MemoryQueue


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PrivateRedis]:
    private = PrivateRedis(tmp_path_factory.mktemp("data"))
    private.start()
    yield private
    private.stop()


@pytest.fixture
def client(server: PrivateRedis) -> Iterator[redis.Redis]:
    with connect(server.url) as connected:
        connected.flushall()
        yield connected


@pytest.fixture
def queue(server: PrivateRedis, client: redis.Redis) -> Iterator[RqQueue]:
    opened = RqQueue(server.url, job_timeout=60)
    yield opened
    opened._client.close()


class TestRqQueue(QueueContract):
    pass


class TestMemoryQueue(QueueContract):
    @pytest.fixture
    def queue(self) -> Queue:
        return MemoryQueue()


def take(client: Any) -> Any:
    """What a worker would get next, None when nothing is left that is ours."""
    taken = IdQueue.dequeue_any([open_queue(client, 60)], None, client, job_class=IdJob, serializer="json")
    return taken and taken[0]


def put_raw(client: Any, name: str, **fields: Any) -> None:
    """A job as somebody with access to Redis would write it."""
    client.hset(f"rq:job:{name}", mapping={"status": "queued", "origin": "spendscope", **fields})
    client.rpush("rq:queue:spendscope", name)


def data(function: str, arguments: list[Any]) -> bytes:
    return zlib.compress(json.dumps([function, None, arguments, {}]).encode())


# --- what was pushed arrives


def test_a_worker_gets_the_id_and_nothing_else(queue: RqQueue, client: redis.Redis) -> None:
    queue.push(job("a_Job-1"))
    taken = take(client)
    assert (taken.id, taken.func_name, taken.args, taken.kwargs) == ("a_Job-1-0", RUN, ["a_Job-1"], {})
    assert client.hget(f"rq:job:{taken.id}", "timeout") == b"60"


def test_jobs_arrive_in_the_order_they_were_pushed(queue: RqQueue, client: redis.Redis) -> None:
    for name in ("c", "a", "b"):
        queue.push(job(name))
    assert [take(client).args[0] for _ in range(3)] == ["c", "a", "b"]


def test_a_job_on_its_way_to_a_worker_is_not_missing_until_it_is_stuck(queue: RqQueue, client: redis.Redis) -> None:
    queue.push(job())
    assert take(client)
    assert queue.missing([job()]) == []
    # Its worker was killed between taking the id and starting it.
    long_ago = float(client.get("spendscope:popped:first-0") or 0) - POPPED_SECONDS - 1
    client.set("spendscope:popped:first-0", long_ago)
    assert queue.missing([job()]) == [job()]
    queue.push(job())
    assert (queue.waiting(), queue.missing([job()])) == (1, [])
    assert client.llen("rq:queue:spendscope:intermediate") == 0
    assert take(client).args == ["first"]


@pytest.mark.parametrize("beat", ["", "2020-01-01T00:00:00.000000Z", "rubbish"])
def test_a_started_job_whose_worker_fell_silent_is_missing(queue: RqQueue, client: redis.Redis, beat: str) -> None:
    queue.push(job())
    assert take(client)
    client.hset("rq:job:first-0", mapping={"status": "started", "last_heartbeat": utcformat(_now())})
    assert queue.missing([job()]) == []
    client.hset("rq:job:first-0", "last_heartbeat", beat)
    assert queue.missing([job()]) == [job()]


def _now() -> Any:
    from rq.utils import now

    return now()


@pytest.mark.parametrize("status", ["failed", "stopped", "finished", "canceled", "deferred", "no status at all"])
def test_what_is_left_of_an_attempt_does_not_keep_it_from_being_pushed(
    queue: RqQueue, client: redis.Redis, status: str
) -> None:
    queue.push(job())
    assert take(client)
    client.hset("rq:job:first-0", "status", status)
    queue.push(job())
    assert queue.waiting() == 1
    assert take(client).args == ["first"]


# --- what is not ours (Q12)


class Trap:
    """Unpickling it makes a file: what arbitrary code from Redis would do."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return Path.touch, (self.path,)


OURS = data(RUN, ["job"])
FOREIGN = {
    "a function of the standard library": {"data": data("subprocess.check_call", [["touch", "TRAP"]])},
    "another function of ours": {"data": data("workers.jobs.run_job", ["job"])},
    "another job's id": {"data": data(RUN, ["another"])},
    "more arguments": {"data": data(RUN, ["job", "more"])},
    "an argument that is no text": {"data": data(RUN, [{"job": 1}])},
    "a method of an object": {"data": zlib.compress(json.dumps([RUN, "instance", ["job"], {}]).encode())},
    "keyword arguments": {"data": zlib.compress(json.dumps([RUN, None, ["job"], {"x": 1}]).encode())},
    "no data": {"description": "nothing"},
    "no JSON": {"data": b"\x80\x05rubbish"},
    "deep JSON": {"data": zlib.compress(b"[" * 900)},
    "much data": {"data": zlib.compress(b"[" + b" " * 50_000_000 + b"]")},
    "a success callback": {"data": OURS, "success_callback_name": "os.abort"},
    "a failure callback": {"data": OURS, "failure_callback_name": "os.abort"},
    "a stopped callback": {"data": OURS, "stopped_callback_name": "os.abort"},
    "a webhook": {"data": OURS, "webhooks": json.dumps([{"url": "http://127.0.0.1:9/", "job_status": "finished"}])},
    "repeats": {"data": OURS, "repeats_left": "9"},
    "a dependency": {"data": OURS, "dependency_ids": '["other"]'},
    "an unreadable number": {"data": OURS, "timeout": "soon"},
    "an unknown status": {"data": OURS, "status": "dancing"},
}


@pytest.mark.parametrize("fields", FOREIGN.values(), ids=FOREIGN.keys())
def test_a_foreign_job_is_refused_and_counted(
    queue: RqQueue, client: redis.Redis, fields: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    put_raw(client, "job-0", **fields)
    queue.push(job("after"))
    assert take(client).args == ["after"], "what is ours is still done"
    assert queue.refused() == 1
    assert not (tmp_path / "TRAP").exists()


@pytest.mark.parametrize("field", ["data", "meta", "result"])
def test_pickled_fields_are_never_loaded(queue: RqQueue, client: redis.Redis, field: str, tmp_path: Path) -> None:
    trap = tmp_path / "trap"
    put_raw(client, "job-0", **{"data": OURS, field: pickle.dumps(Trap(trap))})
    assert take(client) is None
    assert IdJob.fetch_many(["job-0"], client) == [None]
    with pytest.raises(ForeignJob):
        IdJob.fetch("job-0", client)  # RQ's default serializer would be pickle here
    assert not trap.exists()
    assert pickle.loads(pickle.dumps(Trap(trap))) is None
    assert trap.exists(), "the trap works"


@pytest.mark.parametrize("name", [b"\xff\xfe\x00", b"job:0", b"../job", b"job", b"", b"x" * 5000, b"job-0\n"])
def test_names_that_are_not_ours_are_dropped(queue: RqQueue, client: redis.Redis, name: bytes) -> None:
    client.rpush("rq:queue:spendscope", name)
    queue.push(job("after"))
    assert take(client).args == ["after"]
    assert (queue.refused(), client.llen("rq:queue:spendscope:intermediate")) == (1, 1), "only ours is under way"


def test_a_key_that_is_not_a_job_is_refused(queue: RqQueue, client: redis.Redis) -> None:
    client.set("rq:job:job-0", "text")
    client.rpush("rq:queue:spendscope", "job-0")
    assert take(client) is None
    assert queue.refused() == 1


def test_a_foreign_job_in_the_place_of_ours_is_replaced(queue: RqQueue, client: redis.Redis) -> None:
    client.hset("rq:job:first-0", mapping={"data": data("os.abort", []), "status": "deferred"})
    queue.push(job())
    assert take(client).args == ["first"]


def test_jobs_are_json_also_where_rq_names_no_serializer(client: redis.Redis) -> None:
    assert IdJob("job-0", connection=client).serializer is JSONSerializer
    assert IdJob("job-0", connection=client, serializer="pickle").serializer is JSONSerializer


def test_a_function_changed_after_loading_is_not_called(client: redis.Redis) -> None:
    loaded = open_queue(client, 60).create_job("os.abort", job_id="job-0")
    with pytest.raises(ForeignJob, match=r"os\.abort"):
        loaded.perform()
    assert int(client.get(REFUSED) or 0) == 1


# --- a server that will not do, or does not answer


@contextmanager
def configured(client: Any, name: str, value: str) -> Iterator[None]:
    before = client.config_get(name)[name]
    client.config_set(name, value)
    try:
        yield
    finally:
        client.config_set(name, before)


def test_a_server_that_would_evict_jobs_is_refused(queue: RqQueue, client: redis.Redis) -> None:
    with configured(client, "maxmemory-policy", "allkeys-lru"), pytest.raises(CannotStart, match="noeviction"):
        queue.check()


def test_a_server_that_forgets_jobs_is_refused(queue: RqQueue, client: redis.Redis) -> None:
    with configured(client, "appendonly", "no"), pytest.raises(CannotStart, match="appendonly to yes"):
        queue.check()


def test_a_full_server_is_unavailable(queue: RqQueue, client: redis.Redis) -> None:
    with configured(client, "maxmemory", "1"), pytest.raises(Unavailable, match=r"refuses to store: .*memory"):
        queue.push(job())
    queue.push(job())
    assert queue.waiting() == 1


@pytest.mark.parametrize("password", ["", "wrong-Pa55word"])
def test_a_wrong_password_is_said_without_it(server: PrivateRedis, client: redis.Redis, password: str) -> None:
    client.config_set("requirepass", "right")
    try:
        refused = RqQueue(f"{server.url}&password={password}" if password else server.url, job_timeout=60)
        for use in (refused.check, refused.waiting, lambda: refused.push(job())):
            with pytest.raises(BadCredentials, match="Check user and password") as caught:
                use()
            assert "wrong-Pa55word" not in caught.value.message
        refused._client.close()
    finally:
        client.config_set("requirepass", "")


def test_a_url_that_is_none_cannot_start() -> None:
    with pytest.raises(CannotStart, match="REDIS_URL"):
        RqQueue("http://:secret@localhost", job_timeout=60)


def test_no_server_is_unavailable(tmp_path: Path) -> None:
    nobody = RqQueue(f"unix://{tmp_path}/redis.sock", job_timeout=60)
    with pytest.raises(Unavailable, match="spendscope up"):
        nobody.check()
    with pytest.raises(Unavailable):
        nobody.push(job())


def test_a_silent_server_costs_one_wait_and_not_one_a_call(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.adapters.rq.ANSWER_SECONDS", 0.3)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        opened = RqQueue(f"redis://127.0.0.1:{listener.getsockname()[1]}/0", job_timeout=60)
        for number in range(500):
            with pytest.raises(Unavailable, match="does not answer"):
                opened.push(job(f"job-{number}"))
    # 500 waits of 0.3 s would be 150 s: pytest's own time limit is the judge of a hang, this of the rest.
    assert opened._resting_until > 0
    opened._client.close()


def test_a_lost_answer_does_not_make_two_of_one(server: PrivateRedis, client: redis.Redis) -> None:
    """Q6: Redis has done it, the reply never came; the caller tries again."""
    with Breaker(server.socket) as proxy:
        through = RqQueue(f"redis://127.0.0.1:{proxy.port}/0", job_timeout=60)
        through.push(job("before"))  # the server knows the script then: the first answer is no "never heard of it"
        proxy.lose_answer_to(b"EVALSHA")
        with pytest.raises(Unavailable):
            through.push(job())
        assert proxy.lost == 1
        assert client.llen("rq:queue:spendscope") == 2, "it had arrived"
        through._resting_until = 0.0
        through.push(job())
        assert client.llen("rq:queue:spendscope") == 2
        through._client.close()


def test_many_threads_share_a_queue(queue: RqQueue) -> None:
    jobs = [job(f"job-{number % 50}") for number in range(400)]
    failures: list[Exception] = []

    def push_some(start: int) -> None:
        try:
            for one in jobs[start::8]:
                queue.push(one)
        except Exception as error:
            failures.append(error)

    threads = [threading.Thread(target=push_some, args=(start,)) for start in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert queue.waiting() == 50


def test_names_of_attempts_fit_rq() -> None:
    odd = Job(id="request-0f_A", kind="ingest", params={}, key="k", status="queued", created=job().created, token=12)
    assert rq_id(odd) == "request-0f_A-12"
