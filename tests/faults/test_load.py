"""People and programs at work while one part after another is broken: 503 with Retry-After, never anything worse.

`make soak`: 50 people at one action in 3 s and 50 API requests a second over 10 tokens for 10 minutes, something broken
for 15 s of every minute. `make test`: the same for ten seconds, with fewer of them.
"""

from __future__ import annotations

import itertools
import os
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from app import access
from tests.breaker import Breaker
from tests.faults.conftest import is_soak
from tests.faults.deployed import Deployed, until
from tests.faults.traffic import PASSWORD, Answer, Traffic, percentile
from tests.memoryinflux import memory_influx

pytestmark = pytest.mark.slow
GRACE_SECONDS = 6.0
"""How long after a fault 503 is right: counters rest for 5 s, a private Redis starts again within 1 s."""

Fault = Callable[[], AbstractContextManager[None]]


class Load:
    """How much of everything; the long form is what Spendscope promises."""

    def __init__(self, *, soak: bool) -> None:
        self.people, self.tokens = (50, 10) if soak else (12, 10)
        self.requests_a_second = 50 if soak else 10
        self.minute, self.broken = (60.0, 15.0) if soak else (4.0, 2.0)
        self.minutes = 10 if soak else 2
        self.files = 28 if soak else 10


@pytest.mark.timeout(1200)
def test_a_broken_part_is_503_and_nothing_worse(tmp_path: Path, request: pytest.FixtureRequest) -> None:
    """A2, A3 and A8 under load."""
    load = Load(soak=is_soak(request.config))
    with (
        memory_influx() as influx,
        Breaker(("127.0.0.1", int(influx.url.rpartition(":")[2]))) as costs,
        Deployed(
            tmp_path,
            INFLUXDB_URL=f"http://127.0.0.1:{costs.port}",
            INFLUXDB_TOKEN="token",
            INFLUXDB_ORG="o",
            SPENDSCOPE_RETENTION_DAYS="0",
            SPENDSCOPE_PROXIES="1",
        ) as deployed,
    ):
        names = deployed.put(load.files)
        web = deployed.serve(processes=2)
        deployed.start("worker"), deployed.start("scheduler")
        until(lambda: deployed.statuses().get("done", 0) >= len(names), 120, deployed.log)
        deployed.check()
        people = [f"person-{number}" for number in range(load.people)]
        for name in people:
            access.add_user(deployed.backends, name, "editor", None, PASSWORD)
        tokens = [
            access.create_token(deployed.backends, people[0], f"t{number}", ["read", "operate"], 30)[0]
            for number in range(load.tokens)
        ]
        traffic = Traffic(lambda: web.port)
        traffic.people(people, every=3.0)
        traffic.machines(tokens, names, every=load.tokens / load.requests_a_second)
        faults: list[tuple[str, Fault]] = [
            ("metadata locked", deployed.metadata_locked),
            ("redis hangs", deployed.redis_hangs),
            ("costs silent", lambda: costs.broken("silent")),
            ("redis full", deployed.redis_full),
            ("costs refuse", lambda: costs.broken("refuse")),
        ]
        for number, (_, fault) in zip(range(load.minutes), itertools.cycle(faults), strict=False):
            time.sleep(load.minute - load.broken)
            with traffic.fault(), fault():
                time.sleep(load.broken)
            assert web.answers("/healthz") == 200, number
        time.sleep(load.minute - load.broken)
        traffic.stop()
        outside = traffic.outside(GRACE_SECONDS if load.minute > 10 else 1.0)
        told = summary(traffic, outside)
        print(told)
        assert not (wrong := traffic.wrong(GRACE_SECONDS)), shown(wrong, traffic) + told
        assert "Traceback" not in deployed.log()
        assert deployed.client.keys("spendscope:limit:*"), "the limits are counted together"
        deployed.drained(180)
        for program in traffic.programs:
            for name in program.submitted:
                job = deployed.backends.metadata.job(name)
                assert job is not None
                assert job.status in ("done", "done-noop"), job
        deployed.check()
        if load.minute > 10 and os.getloadavg()[0] < 4:
            assert percentile(outside, 0.95) <= 1.0, told


def summary(traffic: Traffic, outside: list[float]) -> str:
    within = len(traffic.answers) - len(outside)
    return (
        f"{len(traffic.answers)} answers {traffic.counts()}, {within} of them near a fault; others: "
        f"p50 {percentile(outside, 0.5):.3f} s, p95 {percentile(outside, 0.95):.3f} s, p99 {percentile(outside, 0.99):.3f} s; "
        f"load of the machine {os.getloadavg()[0]:.1f}"
    )


def shown(wrong: list[Answer], traffic: Traffic) -> str:
    begins = [begin for begin, _ in traffic.faults]
    lines = [
        f"{answer.what} {answer.status} after {answer.seconds:.2f} s, {[round(answer.at - b, 1) for b in begins]}: {answer.said}"
        for answer in wrong[:12]
    ]
    return "\n".join([f"{len(wrong)} wrong answers", *lines, ""])
