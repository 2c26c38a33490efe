"""Real workers, a real scheduler and a real Redis, and every way in which they die."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from app.adapters.rq import RqQueue
from app.backends import Backends, utc_now
from app.core.jobs import FINAL, Job
from app.jobs import cancel, submit
from app.redisserver import PrivateRedis
from tests.breaker import Breaker
from tests.workers.world import found, world_of
from workers.schedule import reap

ROOT = Path(__file__).parent.parent.parent
pytestmark = pytest.mark.slow
LEASE = 2.0


class Deployment:
    """A private Redis, metadata, and processes to start and kill."""

    def __init__(self, folder: Path, **more: Any) -> None:
        self.folder = folder
        more = {"lease_seconds": LEASE, "watch_seconds": 3600, "demo": False, **more}
        self.redis = PrivateRedis(folder / "data")
        self.redis.start()
        self.backends: Backends = world_of(folder, clock=utc_now, queue=RqQueue(self.redis.url, job_timeout=60), **more)
        settings = self.backends.settings.model_dump(mode="json", exclude_none=True)
        (folder / "settings.json").write_text(_json(settings))
        self.processes: list[subprocess.Popen[bytes]] = []

    def start(self, role: str, **environment: str) -> subprocess.Popen[bytes]:
        log = (self.folder / f"{role}-{len(self.processes)}.log").open("wb")
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.workers.processes", role, str(self.folder)],
            cwd=ROOT,
            env={**os.environ, **environment},
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
        log.close()
        self.processes.append(process)
        return process

    def close(self) -> None:
        for process in self.processes:
            process.kill()
            process.wait()
        self.backends.queue._client.close()  # type: ignore[attr-defined]
        self.backends.metadata.close()
        self.redis.stop()

    def submit(self, name: str = "a", **params: Any) -> Job:
        return submit(self.backends, "ingest", {"folder": str(self.folder), **params}, key=name)

    def lines(self, name: str) -> list[list[str]]:
        path = self.folder / name
        return [line.split() for line in path.read_text().splitlines()] if path.exists() else []

    def horse(self, job: Job, run: int = 1) -> int:
        """The process of the job's n-th run, once it has begun."""
        self.until(lambda: len(self.runs(job)) >= run)
        return int(self.runs(job)[run - 1][1])

    def runs(self, job: Job) -> list[list[str]]:
        return [line for line in self.lines("begun") if line[0] == job.id]

    def ends(self, job: Job) -> int:
        return sum(line[0] == job.id for line in self.lines("ended"))

    def until(self, true: Callable[[], Any], seconds: float = 60) -> None:
        end = time.monotonic() + seconds
        while not true():
            if time.monotonic() > end:
                logs = "\n".join(f"--- {log.name}\n{log.read_text()[-3000:]}" for log in self.folder.glob("*.log"))
                raise AssertionError(f"it did not happen within {seconds:g} s\n{logs}")
            time.sleep(0.03)

    def until_final(self, *jobs: Job, seconds: float = 60) -> list[Job]:
        self.until(lambda: all(found(self.backends, job).status in FINAL for job in jobs), seconds)
        return [found(self.backends, job) for job in jobs]

    def log(self) -> str:
        return "\n".join(path.read_text() for path in self.folder.glob("*.log"))


def _json(value: Any) -> str:
    import json

    return json.dumps(value)


def alive(number: int) -> bool:
    try:
        return "Z" not in Path(f"/proc/{number}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except FileNotFoundError:
        return False


@pytest.fixture
def deployed(tmp_path: Path) -> Iterator[Deployment]:
    deployment = Deployment(tmp_path)
    yield deployment
    deployment.close()


def test_jobs_are_done_once_and_in_order(deployed: Deployment) -> None:
    jobs = [deployed.submit(f"k{number}") for number in range(15)]
    jobs += [deployed.submit("k3")]
    deployed.start("worker")
    deployed.start("scheduler")
    ended = deployed.until_final(*jobs)
    assert {job.status for job in ended} == {"done"}
    assert [line[0] for line in deployed.lines("begun")] == [job.id for job in jobs[:15]]
    assert deployed.backends.queue.workers() == 1
    assert deployed.backends.queue.waiting() == 0
    # Nothing of a finished job stays in Redis: the record has it.
    client = deployed.backends.queue._client  # type: ignore[attr-defined]
    deployed.until(lambda: client.keys("rq:job:*") == [])
    assert client.zcard("rq:failed:spendscope") == 0


def test_a_killed_horse_is_replaced(deployed: Deployment) -> None:
    """W2: by the lease alone, whatever the parent reports."""
    deployed.start("worker")
    deployed.start("scheduler")
    job = deployed.submit(seconds=1.5)
    horse = deployed.horse(job)
    began = time.monotonic()
    os.kill(horse, signal.SIGKILL)
    [ended] = deployed.until_final(job)
    assert (ended.status, ended.attempts, deployed.ends(job)) == ("done", 2, 1)
    assert time.monotonic() - began < 15
    assert "fell silent" in deployed.log()


def test_a_killed_worker_takes_its_horse_along_and_another_does_the_job(deployed: Deployment) -> None:
    """W3: parent and horse killed; the job starts again within 30 s (here: the lease is 2 s instead of 12)."""
    worker = deployed.start("worker")
    deployed.start("scheduler")
    job = deployed.submit(seconds=1.5)
    horse = deployed.horse(job)
    worker.kill()
    worker.wait()
    if sys.platform == "linux":
        deployed.until(lambda: not alive(horse), 5)
    deployed.start("worker")
    [ended] = deployed.until_final(job)
    assert (ended.status, ended.attempts, deployed.ends(job)) == ("done", 2, 1)


def test_a_worker_killed_before_it_claims_loses_nothing(deployed: Deployment) -> None:
    """The id is off the list, nobody has the job: the queue says it is missing once it is stuck."""
    job = deployed.submit()
    queue = deployed.backends.queue
    client = queue._client  # type: ignore[attr-defined]
    client.lmove("rq:queue:spendscope", "rq:queue:spendscope:intermediate", "LEFT", "RIGHT")
    assert reap(deployed.backends) == []
    client.incrbyfloat(f"spendscope:popped:{job.id}-0", -60)
    deployed.start("worker")
    deployed.start("scheduler")
    [ended] = deployed.until_final(job)
    assert (ended.status, len(deployed.runs(job))) == ("done", 1)


def test_flushall_loses_nothing(deployed: Deployment) -> None:
    """Q9, in the middle of the work."""
    jobs = [deployed.submit(f"k{number}", seconds=0.05) for number in range(20)]
    deployed.start("worker")
    deployed.start("scheduler")
    deployed.until(lambda: len(deployed.lines("ended")) >= 3)
    deployed.backends.queue._client.flushall()  # type: ignore[attr-defined]
    ended = deployed.until_final(*jobs)
    assert {job.status for job in ended} == {"done"}
    assert Counter(line[0] for line in deployed.lines("ended")) == {job.id: 1 for job in jobs}


def test_a_killed_redis_loses_nothing(deployed: Deployment) -> None:
    """Q2 and Q8: kill -9 during the work, restart from its log; idle and busy workers go on by themselves."""
    jobs = [deployed.submit(f"k{number}", seconds=0.1) for number in range(12)]
    deployed.start("worker")
    deployed.start("worker")
    deployed.start("scheduler")
    for wanted in (2, 6):
        deployed.until(lambda wanted=wanted: len(deployed.lines("ended")) >= wanted)
        assert deployed.redis.process is not None
        os.kill(deployed.redis.process.pid, signal.SIGKILL)
    ended = deployed.until_final(*jobs, seconds=90)
    assert {job.status for job in ended} == {"done"}
    assert Counter(line[0] for line in deployed.lines("ended")) == {job.id: 1 for job in jobs}
    # And afterwards new work is taken as before.
    [late] = deployed.until_final(deployed.submit("late"))
    assert late.status == "done"


def test_what_is_accepted_while_redis_is_down_is_done_later(deployed: Deployment) -> None:
    """Q1."""
    deployed.redis.stop()
    deployed.start("worker")
    deployed.start("scheduler")
    job = deployed.submit()
    assert "queue does not answer" in (job.message or "")
    again = PrivateRedis(deployed.folder / "data")
    again.start()
    try:
        [ended] = deployed.until_final(job)
        assert ended.status == "done"
    finally:
        again.stop()


def test_a_lost_answer_is_one_execution(deployed: Deployment) -> None:
    """Q6: Redis took the job, the reply never came; the web side and the scheduler both push it again."""
    with Breaker(deployed.redis.socket) as proxy:
        through = replace(deployed.backends, queue=RqQueue(f"redis://127.0.0.1:{proxy.port}/0", job_timeout=60))
        # The server knows the script then: the first answer is no "never heard of it".
        through.queue.push(deployed.submit("before"))
        proxy.lose_answer_to(b"EVALSHA")
        job = submit(through, "ingest", {"folder": str(deployed.folder)}, key="a")
        assert proxy.lost == 1
        assert "queue does not answer" in (job.message or "")
        assert deployed.backends.queue.missing([job]) == [], "it had arrived"
        deployed.backends.queue.push(job)
        through.queue._client.close()  # type: ignore[attr-defined]
    deployed.start("worker")
    deployed.start("worker")
    deployed.start("scheduler")
    [ended] = deployed.until_final(job)
    assert (ended.status, len(deployed.runs(job))) == ("done", 1)


def test_cancelling_kills_the_horse_and_frees_the_worker(deployed: Deployment) -> None:
    deployed.start("worker")
    job = deployed.submit(seconds=60, hang=True)
    horse = deployed.horse(job)
    shown = cancel(deployed.backends, job.id)
    assert shown is not None
    assert shown.status == "cancelled"
    deployed.until(lambda: not alive(horse), 20)
    [ended] = deployed.until_final(deployed.submit("next"))
    assert (ended.status, deployed.ends(job), found(deployed.backends, job).status) == ("done", 0, "cancelled")


def test_sigterm_lets_a_short_job_finish(deployed: Deployment) -> None:
    """W12."""
    worker = deployed.start("worker")
    job, late = deployed.submit(seconds=1), deployed.submit("b")
    deployed.horse(job)
    worker.terminate()
    assert worker.wait(30) == 0
    assert (found(deployed.backends, job).status, found(deployed.backends, late).status) == ("done", "queued")
    assert deployed.ends(job) == 1


@pytest.mark.parametrize("hang", [False, True])
def test_sigterm_gives_a_long_job_back(deployed: Deployment, hang: bool) -> None:
    """W12: another worker starts it at once, not after the lease; its tries are not used up by that."""
    worker = deployed.start("worker", FINISH_SECONDS="0.3")
    job = deployed.submit(seconds=60, hang=hang)
    horse = deployed.horse(job)
    worker.terminate()
    assert worker.wait(30) == 0
    assert not alive(horse)
    given_back = found(deployed.backends, job)
    assert (given_back.status, given_back.result) == ("waiting", {"postponed": 1})
    assert "stopped" in (given_back.message or "")


def test_an_idle_worker_stops_at_once(deployed: Deployment) -> None:
    worker = deployed.start("worker")
    deployed.until(lambda: deployed.backends.queue.workers() == 1)
    worker.terminate()
    assert worker.wait(10) == 0
    assert deployed.backends.queue.workers() == 0
    assert "Traceback" not in deployed.log()


def test_a_paused_worker_changes_nothing_when_it_goes_on(deployed: Deployment) -> None:
    """W5: stopped for longer than its lease; meanwhile another one does the job."""
    deployed.start("worker")
    deployed.start("worker")
    deployed.start("scheduler")
    job = deployed.submit(seconds=1, steps=True)
    horse = deployed.horse(job)
    os.kill(horse, signal.SIGSTOP)
    [ended] = deployed.until_final(job)
    os.kill(horse, signal.SIGCONT)
    deployed.until(lambda: not alive(horse))
    assert (ended.attempts, deployed.ends(job)) == (2, 1)
    assert found(deployed.backends, job) == ended


def test_a_job_over_its_time_is_stopped_and_tried_again(tmp_path: Path) -> None:
    deployed = Deployment(tmp_path, job_timeout_seconds=10, job_attempts=1)
    # The smallest allowed timeout is 10 s: RQ's own job gets a shorter one, in which it begins on a busy machine too.
    deployed.backends.queue._queue._default_timeout = 3  # type: ignore[attr-defined]
    try:
        deployed.start("worker")
        job = deployed.submit(seconds=60)
        [ended] = deployed.until_final(job)
        assert ended.status == "failed"
        assert "took longer than 10 s" in (ended.message or "")
    finally:
        deployed.close()


def test_a_job_deaf_to_its_timeout_is_killed(deployed: Deployment) -> None:
    """W4."""
    deployed.backends.queue._queue._default_timeout = 3  # type: ignore[attr-defined]
    deployed.start("worker")
    job = deployed.submit(seconds=60, hang=True)
    horse = deployed.horse(job)
    deployed.until(lambda: not alive(horse), 30)
    [ended] = deployed.until_final(deployed.submit("next"))
    assert ended.status == "done"
    assert "its horse is killed" in deployed.log()


def test_foreign_payloads_neither_run_nor_stop_the_worker(deployed: Deployment, tmp_path: Path) -> None:
    """Q12."""
    import json
    import pickle
    import zlib

    client = deployed.backends.queue._client  # type: ignore[attr-defined]
    trap = tmp_path / "trap"

    class Trap:
        def __reduce__(self) -> Any:
            return Path.touch, (trap,)

    called = zlib.compress(json.dumps(["subprocess.check_call", None, [["touch", str(trap)]], {}]).encode())
    ours = zlib.compress(json.dumps(["workers.jobs.run", None, ["x"], {}]).encode())
    hashes = {
        "a-0": {"data": called},
        "b-0": {"data": pickle.dumps(Trap())},
        "x-0": {"data": ours, "failure_callback_name": "os.abort"},
        "x-1": {"data": ours, "meta": pickle.dumps(Trap())},
    }
    for name, fields in hashes.items():
        client.hset(f"rq:job:{name}", mapping={"status": "queued", "origin": "spendscope", **fields})
    client.rpush("rq:queue:spendscope", *hashes, b"\xff", "no:name")
    client.set("rq:job:text-0", "text")
    # In RQ's own registries, where its maintenance would look.
    client.zadd("rq:wip:spendscope", {"x-0:1": 1, "b-0:1": 1, "text-0:1": 1, b"\xff": 1})
    client.rpush("rq:queue:spendscope:intermediate", "b-0", "text-0", b"\xfe")
    client.zadd("rq:ready:spendscope", {"b-0": 1})
    worker = deployed.start("worker")
    job = deployed.submit()
    [ended] = deployed.until_final(job)
    assert ended.status == "done"
    assert deployed.backends.queue.refused() >= len(hashes) + 2  # type: ignore[attr-defined]
    assert not trap.exists()
    assert worker.poll() is None
    assert "Tidying the queue failed" in deployed.log()
    assert "unhandled exception" not in deployed.log()
    os.kill(worker.pid, signal.SIGTERM)
    assert worker.wait(30) == 0


def test_wrong_settings_take_no_job(tmp_path: Path, deployed: Deployment) -> None:
    """W6: it ends with one line, and the job is still there for another one."""
    job = deployed.submit()
    environment = {name: value for name, value in os.environ.items() if not name.startswith("SPENDSCOPE_")}
    blocked = tmp_path / "blocked"
    blocked.mkdir()
    (blocked / "store").write_text("a file where a directory has to be")
    ended = subprocess.run(
        [sys.executable, "-m", "app.cli", "worker"],
        cwd=ROOT,
        env={
            **environment,
            "REDIS_URL": deployed.redis.url,
            "SPENDSCOPE_SOURCE": deployed.backends.settings.source,
            "SPENDSCOPE_DATA_DIR": str(blocked),
        },
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert ended.returncode == 2
    assert ended.stderr.startswith("spendscope: ")
    assert "Traceback" not in ended.stderr
    assert deployed.backends.queue.missing([job]) == []
    assert found(deployed.backends, job).attempts == 0


def test_a_wrong_password_ends_worker_and_scheduler_with_one_line(deployed: Deployment) -> None:
    """Q4."""
    client = deployed.backends.queue._client  # type: ignore[attr-defined]
    client.config_set("requirepass", "right")
    try:
        for role in ("worker", "scheduler"):
            ended = subprocess.run(
                [sys.executable, "-m", "app.cli", role],
                cwd=ROOT,
                env={
                    **os.environ,
                    "REDIS_URL": f"{deployed.redis.url}&password=wrong-Pa55word",
                    "SPENDSCOPE_SOURCE": deployed.backends.settings.source,
                    "SPENDSCOPE_DATA_DIR": str(deployed.backends.settings.data_dir),
                },
                capture_output=True,
                text=True,
                timeout=60,
            )
            assert ended.returncode == 2, ended.stderr
            assert "does not let us in" in ended.stderr
            assert "Pa55word" not in ended.stderr
    finally:
        client.config_set("requirepass", "")
