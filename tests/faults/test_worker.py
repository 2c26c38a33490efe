"""W: the worker, beyond what tests/workers shows: nobody there, and more asked for than there is memory."""

from __future__ import annotations

import json
import resource
from pathlib import Path

import pytest

from tests.arrivals import HEADER
from tests.faults.deployed import Deployed, until

pytestmark = [pytest.mark.slow, pytest.mark.soak]


def test_w1_without_a_worker_the_job_waits_and_everybody_is_told(tmp_path: Path) -> None:
    with Deployed(tmp_path) as deployed:
        [name] = deployed.put(1)
        web = deployed.serve()
        status, answer = web.submit(name, "early")
        assert status == 202
        _, _, told = web.ask("GET", "/readyz")
        assert json.loads(told)["parts"]["workers"] == {
            "ok": False,
            "message": "No worker is running. Start one with `spendscope worker`, or everything with `spendscope up`.",
        }
        _, _, shown = web.ask("GET", f"/api/v1/jobs/{answer['id']}")
        assert json.loads(shown)["status"] == "queued"
        _, _, metrics = web.ask("GET", "/metrics")
        assert b'spendscope_jobs{status="queued"} 1.0' in metrics
        assert b"spendscope_workers 0.0" in metrics
        deployed.start("worker")
        deployed.drained()
        deployed.check()


def test_w11_what_needs_more_memory_than_there_is_fails_with_a_word_and_others_go_on(tmp_path: Path) -> None:
    with Deployed(tmp_path, SPENDSCOPE_JOB_ATTEMPTS="2") as deployed:
        [name] = deployed.put(1)
        worker = deployed.start("worker")
        until(lambda: deployed.backends.queue.workers() == 1, 60, deployed.log)
        # What the worker holds now and a little more; its horses inherit the limit.
        used = int(Path(f"/proc/{worker.pid}/statm").read_text().split()[0]) * resource.getpagesize()
        limit = used + (200 << 20)
        resource.prlimit(worker.pid, resource.RLIMIT_AS, (limit, limit))
        rows = "".join(f'A{n % 50},"{"S" * 200}{n}",r{n % 9},1.5,1.5,1.5,1\n' for n in range(400_000))
        (deployed.source / "2026-07-01.csv").write_text(HEADER + rows)
        web = deployed.serve()
        _, large = web.submit("2026-07-01.csv", "large")
        _, small = web.submit(name, "small")
        deployed.start("scheduler")
        deployed.drained(120)
        assert deployed.backends.metadata.job(str(small["id"])).status == "done"  # type: ignore[union-attr]
        ended = deployed.backends.metadata.job(str(large["id"]))
        assert ended is not None
        assert ended.status == "failed"
        assert "not enough memory" in (ended.message or "") or "Its worker died" in (ended.message or ""), ended
        assert worker.poll() is None
        deployed.check()
