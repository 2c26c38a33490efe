"""Whatever was accepted (202) ends, once in effect: through kill -9 of every process, FLUSHALL and a full Redis (I4).

`make soak` (`--soak 50`) submits 10,000 jobs; `make test` the short form of 200. A failure names the seed that plays the faults again.
"""

from __future__ import annotations

import http.client
import itertools
import json
import os
import random
import signal
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest
import redis

from app.core.jobs import FINAL
from tests.faults.conftest import is_soak
from tests.faults.deployed import Deployed, Web, children_of, end

FILES = 20
SUBMITTERS = 4
FULL_SECONDS = 1.0
STALLED_SECONDS = 120.0

pytestmark = pytest.mark.slow


class Submitting:
    """Clients that submit `wanted` jobs, each again under its own key until the answer is 202."""

    def __init__(self, web: Web, names: list[str], wanted: int) -> None:
        self.web, self.names, self.wanted = web, names, wanted
        self.accepted: dict[str, str] = {}
        self.other: Counter[int] = Counter()
        self._next = itertools.count()
        self._threads = [threading.Thread(target=self._run, daemon=True) for _ in range(SUBMITTERS)]

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    @property
    def done(self) -> bool:
        return not any(thread.is_alive() for thread in self._threads)

    def _run(self) -> None:
        while (number := next(self._next)) < self.wanted:
            key = f"job-{number}"
            while key not in self.accepted:
                try:
                    status, answer = self.web.submit(self.names[number % len(self.names)], key)
                except (OSError, http.client.HTTPException, json.JSONDecodeError):
                    # Its process was killed. Whether the job was accepted is not known: that is what the key is for.
                    status, answer = 0, {}
                if status == 202:
                    self.accepted[key] = str(answer["id"])
                    continue
                self.other[status] += 1
                time.sleep(0.1)


class Family:
    """The processes of a deployment, and somebody who starts them again when they were killed."""

    def __init__(self, deployed: Deployed) -> None:
        self.deployed = deployed
        self.roles = ["worker", "worker", "scheduler"]
        self.running: list[subprocess.Popen[bytes]] = [deployed.start(role) for role in self.roles]

    def revive(self) -> None:
        for place, process in enumerate(self.running):
            if process.poll() is not None:
                self.running[place] = self.deployed.start(self.roles[place])

    def faults(self, web: Web, seed: random.Random) -> Iterator[Callable[[], None]]:
        """One after another, without end; each kind as often as the others."""
        kinds = [self._worker_dies, self._horse_dies, self._scheduler_dies, self._web_dies(web)]
        kinds += [self.deployed.kill_redis, self._forgets, self._is_full]
        while True:
            yield from seed.sample(kinds, len(kinds))

    def _worker_dies(self) -> None:
        end(self.running[0])

    def _horse_dies(self) -> None:
        for pid in children_of(self.running[1].pid):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def _scheduler_dies(self) -> None:
        end(self.running[2])

    def _web_dies(self, web: Web) -> Callable[[], None]:
        def kill_one() -> None:
            for pid in web.processes()[:1]:
                os.kill(pid, signal.SIGKILL)

        return kill_one

    def _forgets(self) -> None:
        self.deployed.client.flushall()

    def _is_full(self) -> None:
        with self.deployed.redis_full():
            time.sleep(FULL_SECONDS)


@pytest.mark.timeout(3600)
def test_ten_thousand_accepted_jobs_survive_every_kill(tmp_path: Path, request: pytest.FixtureRequest) -> None:
    """A8, W2, W3, Q2, Q7, Q8 and Q9 at once."""
    wanted = 200 * int(request.config.getoption("--soak")) if is_soak(request.config) else 200
    seed = random.Random("accepted jobs")
    with Deployed(tmp_path) as deployed:
        names = [*deployed.put(FILES), "2020-01-01.csv"]  # the last is not there: its jobs fail, and that is an end too
        web = deployed.serve(processes=2)
        family = Family(deployed)
        submitting = Submitting(web, names, wanted)
        submitting.start()
        for number, strike in enumerate(family.faults(web, seed)):
            # One that has just been killed cannot be struck again.
            with suppress(redis.RedisError, OSError):
                strike()
            time.sleep(seed.uniform(0.3, 1.0))
            family.revive()
            if submitting.done and number >= 7:
                break
        drained(deployed, family)
        check(deployed, submitting, names)
        print(f"{wanted} jobs, {number} faults, answers other than 202: {dict(submitting.other)}")


def drained(deployed: Deployed, family: Family) -> None:
    """Wait until no job is open; nothing may stand still for STALLED_SECONDS."""
    least, since = deployed.open_jobs(), time.monotonic()
    while left := deployed.open_jobs():
        family.revive()
        time.sleep(0.2)
        if left < least:
            least, since = left, time.monotonic()
        assert time.monotonic() - since < STALLED_SECONDS, f"{left} jobs are open and nothing happens"


def check(deployed: Deployed, submitting: Submitting, names: list[str]) -> None:
    accepted = submitting.accepted
    assert len(accepted) == submitting.wanted
    assert len(set(accepted.values())) == len(accepted), "two keys are one job"
    assert set(submitting.other) <= {0, 503}, submitting.other
    ends: Counter[tuple[str, str]] = Counter()
    for key, name in accepted.items():
        job = deployed.backends.metadata.job(name)
        assert job is not None, f"{key} was accepted and is gone"
        assert job.status in FINAL, job
        assert job.finished is not None
        ends[str(job.params["key"]), job.status] += 1
    for name in names[:-1]:
        assert {status for key, status in ends if key == name} <= {"done", "done-noop"}, ends
        # Once in effect: the one version of the file was taken once, whatever number of jobs asked for it.
        taken = [
            one for one in deployed.backends.metadata.ingestions(limit=1000, key=name).items if one.status == "ingested"
        ]
        assert len(taken) == 1, (name, taken)
    assert {status for key, status in ends if key == names[-1]} <= {"failed", "superseded"}, ends
    deployed.check()
