"""/healthz, /readyz and /metrics, with parts up, down and hanging."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from app import metrics
from app.core.jobs import Job
from app.ingest import ANNOUNCED, LISTED, UNREADABLE
from tests.api.conftest import END, FIRST, World
from tests.events import created
from tests.fakes import Down, MemoryAnnouncements, MemoryQueue

NOW = datetime(2026, 11, 4, 8, 59, 30, tzinfo=UTC)
PARTS = ("costs", "metadata", "queue")


class Hanging:
    """Does not answer until it is let go."""

    def __init__(self) -> None:
        self.released = threading.Event()

    def __getattr__(self, name: str) -> Any:
        return lambda *_, **__: self.released.wait(20)


def scraped(text: str) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def state(world: World, **parts: Any) -> dict[Any, float]:
    answer = world.serving(**parts).get("/metrics")
    assert answer.status_code == 200
    assert answer.content_type.startswith("text/plain")
    return scraped(answer.text)


def test_healthz_asks_nobody(world: World) -> None:
    client = world.serving(costs=Down("costs"), metadata=Down("metadata"), queue=Down("queue"), source=Down("source"))
    answer = client.get("/healthz?probe=1")
    assert (answer.status_code, answer.text) == (200, "ok\n")


def test_readyz_names_every_part(world: World) -> None:
    answer = world.client.get("/readyz")
    assert answer.status_code == 200
    assert answer.json is not None
    assert answer.json["ready"] is True
    assert set(answer.json["parts"]) == {"source", "costs", "metadata", "queue", "workers"}
    assert all(part["ok"] and part["message"] for part in answer.json["parts"].values())


def test_readyz_is_ready_without_data(empty: World) -> None:
    assert empty.client.get("/readyz").status_code == 200


@pytest.mark.parametrize("part", PARTS)
def test_readyz_says_which_part_is_down(world: World, part: str) -> None:
    answer = world.serving(**{part: Down(part)}).get("/readyz")
    assert answer.status_code == 503
    assert answer.json is not None
    assert answer.json["parts"][part] == {"ok": False, "message": f"The {part} part does not answer."}
    assert answer.headers["Retry-After"]


def test_readyz_needs_a_worker_but_not_the_source(world: World) -> None:
    idle = world.serving(queue=MemoryQueue(alive=0)).get("/readyz")
    assert idle.status_code == 503
    assert idle.json is not None
    assert "spendscope worker" in idle.json["parts"]["workers"]["message"]
    without = world.serving(source=Down("source")).get("/readyz")
    assert without.status_code == 200
    assert without.json is not None
    assert without.json["parts"]["source"]["ok"] is False


def test_readyz_is_bounded_when_everything_hangs(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    import app.health

    monkeypatch.setattr(app.health.check_parts, "__kwdefaults__", {"seconds": 0.3})
    hanging = Hanging()
    began = time.perf_counter()
    answer = world.serving(costs=hanging, metadata=hanging, queue=hanging).get("/readyz")
    assert time.perf_counter() - began < 10
    hanging.released.set()
    assert answer.status_code == 503
    assert answer.json is not None
    assert "0.3 s" in answer.json["parts"]["costs"]["message"]


def test_a_check_that_fails_by_mistake_is_not_ready_and_no_trace(world: World) -> None:
    class Broken:
        def __getattr__(self, name: str) -> Any:
            return lambda *_: 1 / 0

    answer = world.serving(costs=Broken()).get("/readyz")
    assert answer.status_code == 503
    assert "Traceback" not in answer.text
    assert answer.json is not None
    assert answer.json["parts"]["costs"]["ok"] is False


def test_metrics_say_how_data_jobs_and_queue_are(world: World) -> None:
    found = state(world)
    assert found["spendscope_data_version", ()] == world.backends.costs.rollup().version
    by_status = {name: found["spendscope_days", (("status", name),)] for name in metrics.DAY_STATUSES}
    assert by_status == {
        "complete": (END - FIRST).days - 1,
        "settling": 0,
        "missing": 2,
        "quarantined": 1,
    }
    assert found["spendscope_ingestions", (("status", "quarantined"),)] == 1
    assert found["spendscope_ingestions", (("status", "failed"),)] == 0
    assert found["spendscope_jobs", (("status", "queued"),)] == 0
    assert found["spendscope_workers", ()] == 1
    assert found["spendscope_queue_waiting", ()] == 0
    assert found["spendscope_newest_day_age_seconds", ()] == (2 * 24 + 9) * 3600
    assert found["spendscope_complete_age_seconds", ()] == (27 * 24 + 9) * 3600
    assert found["spendscope_data_age_seconds", ()] == 0
    assert {found["spendscope_part_up", (("part", part),)] for part in PARTS} == {1}


def test_metrics_say_what_this_month_s_jobs_asked_of_cost_explorer_and_how_old_the_oldest_is(empty: World) -> None:
    store, now = empty.backends.metadata, empty.backends.clock()
    first = state(empty)
    assert first["spendscope_cost_explorer_usd", (("kind", "collect"),)] == 0
    assert first["spendscope_oldest_open_job_age_seconds", ()] == 0
    month = now.replace(day=1, hour=0, minute=0)
    for name, kind, at, requests in (
        ("a", "collect", month, 12),
        ("b", "collect", now, 3),
        ("c", "backfill", now, 100),
        ("last month", "collect", month - timedelta(seconds=1), 7),
    ):
        result = {"requests": requests, "cost_usd": str(Decimal(requests) / 100)}
        store.put_job(Job(name, kind, {}, name, "done", at, finished=at, result=result))
    store.put_job(Job("failed", "collect", {}, "failed", "failed", now, finished=now))
    store.put_job(Job("open", "ingest", {}, "open", "queued", now - timedelta(seconds=90)))
    found = state(empty)
    assert found["spendscope_cost_explorer_requests", (("kind", "collect"),)] == 15
    assert found["spendscope_cost_explorer_usd", (("kind", "collect"),)] == 0.15
    assert found["spendscope_cost_explorer_usd", (("kind", "backfill"),)] == 1
    assert found["spendscope_oldest_open_job_age_seconds", ()] == 90


def test_metrics_of_nothing(empty: World) -> None:
    found = state(empty)
    assert found["spendscope_data_version", ()] == empty.backends.costs.rollup().version
    assert ("spendscope_data_age_seconds", ()) not in found


@pytest.mark.parametrize("part", PARTS)
def test_metrics_survive_a_part_that_is_down(world: World, part: str) -> None:
    found = state(world, **{part: Down(part)})
    up = {name: found["spendscope_part_up", (("part", name),)] for name in PARTS}
    assert up == {name: float(name != part) for name in PARTS}
    assert (("spendscope_data_version", ()) in found) == (part != "costs")
    assert (("spendscope_workers", ()) in found) == (part != "queue")


def test_metrics_are_bounded_when_a_part_hangs(world: World) -> None:
    hanging = Hanging()
    from dataclasses import replace

    began = time.perf_counter()
    text = metrics.state_text(replace(world.backends, queue=hanging), seconds=0.3)  # type: ignore[arg-type]
    assert time.perf_counter() - began < 10
    hanging.released.set()
    assert scraped(text.decode())["spendscope_part_up", (("part", "queue"),)] == 0


# --- the events queue: known where there is one, and never a reason to be not ready


def test_an_events_queue_is_a_part_where_there_is_one(empty: World) -> None:
    quiet = MemoryAnnouncements()
    answer = empty.serving(announcements=quiet).get("/readyz")
    assert answer.json is not None
    assert answer.json["parts"]["events"] == {"ok": True, "message": "no file announced yet"}
    empty.backends.metadata.take_slot(ANNOUNCED, NOW)
    empty.backends.metadata.take_slot(UNREADABLE, NOW)
    answer = empty.serving(announcements=quiet).get("/readyz")
    assert answer.json is not None
    told = answer.json["parts"]["events"]["message"]
    assert f"{NOW:%Y-%m-%d %H:%M:%S} UTC" in told
    assert "no S3 event" in told


def test_an_events_queue_that_is_down_takes_nothing_away(world: World) -> None:
    answer = world.serving(announcements=Down("events")).get("/readyz")
    assert answer.status_code == 200
    assert answer.json is not None
    assert answer.json["parts"]["events"]["ok"] is False
    assert "still found by listing, every 300 s" in answer.json["parts"]["events"]["message"]


def test_metrics_tell_of_listing_and_events(empty: World) -> None:
    silent = state(empty)
    assert not [name for name, _ in silent if "event" in name or "listed" in name]
    announcements = MemoryAnnouncements()
    announcements.send(created("bucket", "costs/2026-11-20.csv"))
    for ago, name in ((5, LISTED), (7, ANNOUNCED), (11, UNREADABLE)):
        empty.backends.metadata.take_slot(name, empty.backends.clock() - timedelta(seconds=ago))
    found = state(empty, announcements=announcements)
    assert found["spendscope_events_waiting", ()] == 1
    assert found["spendscope_source_listed_age_seconds", ()] == 5
    assert found["spendscope_event_age_seconds", ()] == 7
    assert found["spendscope_event_unreadable_age_seconds", ()] == 11
    assert found["spendscope_part_up", (("part", "events"),)] == 1
    assert state(empty, announcements=Down("events"))["spendscope_part_up", (("part", "events"),)] == 0


def test_requests_are_counted_by_route_never_by_path(world: World) -> None:
    client = world.serving()
    for path in ("/api/v1/jobs/a", "/api/v1/jobs/b", "/api/v1/costs", "/api/typo", "/nowhere"):
        client.get(path)
    found = scraped(client.get("/metrics").text)

    def count(route: str, status: int) -> float:
        labels = (("method", "GET"), ("route", route), ("status", str(status)))
        return found["spendscope_http_requests_total", labels]

    assert count("/api/v1/jobs/<id>", 404) == 2
    assert count("/api/v1/costs", 400) == 1
    assert count("/api/<path:rest>", 404) == 1
    assert count("none", 404) == 1
    assert found["spendscope_http_request_seconds_count", (("route", "/api/v1/jobs/<id>"),)] == 2


def test_requests_of_all_processes_are_added_up(tmp_path: Path) -> None:
    """Two processes that share a directory: what either shows is both."""
    code = "from app.metrics import Requests; r = Requests(); r.count('GET', '/x', 200, 0.01); print(r.text().decode())"
    environment = {**os.environ, "PROMETHEUS_MULTIPROC_DIR": str(tmp_path), "PYTHONPATH": str(Path.cwd())}
    for _ in range(2):
        shown = subprocess.run(
            [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
        )
    labels = (("method", "GET"), ("route", "/x"), ("status", "200"))
    assert scraped(shown.stdout)["spendscope_http_requests_total", labels] == 2
