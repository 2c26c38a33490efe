"""What Prometheus scrapes: how the data is, how the jobs are, how requests go.

The state is asked for at each scrape, every part at once and for a bounded time: what does not answer is absent and
`spendscope_part_up` says so. Requests are counted in this process, or in all processes of the server when it sets
PROMETHEUS_MULTIPROC_DIR before they start.
"""

from __future__ import annotations

import logging
import os
from collections import Counter as Tally
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from app import __version__
from app.backends import Backends
from app.core.jobs import JOB_STATUSES, Job
from app.core.ledger import INGESTION_STATUSES
from app.costs import ledgers_of
from app.errors import SpendscopeError
from app.ingest import ANNOUNCED, LISTED, UNREADABLE

log = logging.getLogger(__name__)

SCRAPE_SECONDS: Final = 5.0
DAY_STATUSES: Final = ("complete", "settling", "missing", "quarantined")
ASKING: Final = ("collect", "backfill")
"""Kinds of jobs that ask Cost Explorer."""

MOST_PAGES: Final = 10
LATENCIES: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)


class Requests:
    """Requests answered since the start. `route` is the rule that matched, never the path: its values stay few."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self._total = Counter(
            "spendscope_http_requests", "Requests answered.", ("method", "route", "status"), registry=self._registry
        )
        self._seconds = Histogram(
            "spendscope_http_request_seconds",
            "Seconds until the answer began.",
            ("route",),
            registry=self._registry,
            buckets=LATENCIES,
        )

        self._callback_seconds = Histogram(
            "spendscope_callback_seconds",
            "Seconds until a page's callback was answered, by what it draws.",
            ("callback",),
            registry=self._registry,
            buckets=LATENCIES,
        )

    def count(self, method: str, route: str, status: int, seconds: float, callback: str | None = None) -> None:
        """`callback`: the first output of the callback that was answered, one of those the app has."""
        self._total.labels(method, route, str(status)).inc()
        self._seconds.labels(route).observe(seconds)
        if callback is not None:
            self._callback_seconds.labels(callback).observe(seconds)

    def text(self) -> bytes:
        if "PROMETHEUS_MULTIPROC_DIR" not in os.environ:
            return generate_latest(self._registry)
        from prometheus_client.multiprocess import MultiProcessCollector

        together = CollectorRegistry()
        MultiProcessCollector(together)  # type: ignore[no-untyped-call]
        return generate_latest(together)


def state_text(backends: Backends, *, seconds: float = SCRAPE_SECONDS) -> bytes:
    registry = CollectorRegistry()
    registry.register(State(backends, seconds))
    return generate_latest(registry)


@dataclass(frozen=True, eq=False)
class State(Collector):
    """The state of everything behind the product, asked for when it is collected. A registry tells collectors apart by
    identity: not all that is behind it can be hashed."""

    backends: Backends
    seconds: float = SCRAPE_SECONDS

    def collect(self) -> Iterator[Metric]:
        yield _gauge("info", "Version of Spendscope.", {__version__: 1}, "version")
        found = self._asked()
        for metrics in found.values():
            yield from metrics or ()
        up = {part: float(metrics is not None) for part, metrics in found.items()}
        yield _gauge("part_up", "1 when the part answered this scrape.", up, "part")

    def _asked(self) -> dict[str, list[Metric] | None]:
        """What each part answered; None for one that did not."""
        parts: dict[str, Callable[[Backends], list[Metric]]] = {
            "costs": _costs,
            "metadata": _metadata,
            "queue": _queue,
        }
        if self.backends.announcements is not None:
            parts["events"] = _events
        pool = ThreadPoolExecutor(len(parts), thread_name_prefix="metrics")
        try:
            asked = {part: pool.submit(ask, self.backends) for part, ask in parts.items()}
            wait(asked.values(), self.seconds)
        finally:
            pool.shutdown(wait=False, cancel_futures=True)
        return {part: _result(part, future) for part, future in asked.items()}


def _result(part: str, asked: Future[list[Metric]]) -> list[Metric] | None:
    if not asked.done() or asked.cancelled():
        return None
    error = asked.exception()
    if error is not None and not isinstance(error, SpendscopeError):
        log.error("the metrics of %s failed", part, exc_info=error)
    return None if error is not None else asked.result()


def _costs(backends: Backends) -> list[Metric]:
    backends.costs.check()
    rollup = backends.costs.rollup()
    found = [_gauge("data_version", "Grows with every change of a figure.", {"": rollup.version})]
    if rollup.days:
        age = _since_end_of(rollup.days[-1], backends.clock())
        found.append(_gauge("newest_day_age_seconds", "Seconds since the end of the newest day with data.", {"": age}))
    return found


def _metadata(backends: Backends) -> list[Metric]:
    metadata, now = backends.metadata, backends.clock()
    ledgers = ledgers_of(backends)
    found = [
        _tally("days", "Days by status.", DAY_STATUSES, filter(None, ledgers.coverage.days.values())),
        _tally("jobs", "Jobs by status.", JOB_STATUSES, Tally(metadata.job_counts()).elements()),
        _tally(
            "ingestions",
            "Versions of cost files by what became of them.",
            INGESTION_STATUSES,
            metadata.known_versions(backends.source.root).values(),
        ),
    ]
    if ledgers.updated:
        age = (now - ledgers.updated).total_seconds()
        found.append(_gauge("data_age_seconds", "Seconds since any figure last changed.", {"": age}))
    if through := ledgers.coverage.complete_through:
        about = "Seconds since the end of the last day of the unbroken run of complete days."
        found.append(_gauge("complete_age_seconds", about, {"": _since_end_of(through, now)}))
    return [*found, *_open_jobs(backends), *_asked_of_cost_explorer(backends), *_last_times(backends)]


def _open_jobs(backends: Backends) -> Iterator[Metric]:
    """How long the oldest job has been open: what a long queue and a job that is tried for ever have in common."""
    oldest = min((job.created for job in backends.metadata.unfinished()), default=None)
    age = (backends.clock() - oldest).total_seconds() if oldest else 0.0
    yield _gauge(
        "oldest_open_job_age_seconds", "Seconds since the oldest job that is not done was submitted.", {"": age}
    )


def _asked_of_cost_explorer(backends: Backends) -> Iterator[Metric]:
    """What the jobs of this month asked, and owe. A collector that runs elsewhere keeps its own record (docs/collector.md)."""
    month = backends.clock().replace(day=1, hour=0, minute=0, second=0, microsecond=0)
    jobs = {kind: list(_since(backends, kind, month)) for kind in ASKING}
    asked = {kind: sum(int(job.result.get("requests") or 0) for job in found) for kind, found in jobs.items()}
    owed = {kind: float(sum(Decimal(job.result.get("cost_usd") or 0) for job in found)) for kind, found in jobs.items()}
    yield _gauge("cost_explorer_requests", "Requests to Cost Explorer by this month's jobs (UTC).", asked, "kind")
    yield _gauge("cost_explorer_usd", "What AWS charges for these requests, in USD.", owed, "kind")


def _since(backends: Backends, kind: str, start: datetime) -> Iterator[Job]:
    cursor = None
    for _ in range(MOST_PAGES):
        listed = backends.metadata.jobs(limit=100, cursor=cursor, kind=kind)
        for job in listed.items:
            if job.created < start:
                return
            yield job
        if (cursor := listed.next_cursor) is None:
            return


def _queue(backends: Backends) -> list[Metric]:
    return [
        _gauge("queue_waiting", "Jobs in the queue.", {"": backends.queue.waiting()}),
        _gauge("workers", "Workers that have shown a sign of life lately.", {"": backends.queue.workers()}),
    ]


def _events(backends: Backends) -> list[Metric]:
    if backends.announcements is None:
        return []
    return [_gauge("events_waiting", "Event messages not dealt with yet.", {"": backends.announcements.waiting()})]


def _last_times(backends: Backends) -> Iterator[Metric]:
    """Ages of what happened at all; nothing for what never did."""
    abouts = {
        LISTED: ("source_listed_age_seconds", "Seconds since the source was last listed."),
        ANNOUNCED: ("event_age_seconds", "Seconds since a file was last announced by an event."),
        UNREADABLE: ("event_unreadable_age_seconds", "Seconds since a message of the events queue was no S3 event."),
    }
    for name, (metric, about) in abouts.items():
        if last := backends.metadata.last_slot(name):
            yield _gauge(metric, about, {"": (backends.clock() - last).total_seconds()})


def _since_end_of(day: date, now: datetime) -> float:
    return (now - datetime.combine(day + timedelta(days=1), time(), UTC)).total_seconds()


def _tally(name: str, about: str, statuses: Iterable[str], found: Iterable[str]) -> Metric:
    """Every status has a value, also 0: an alert on a series that is absent never fires."""
    counted = Tally(found)
    return _gauge(name, about, {status: counted[status] for status in statuses}, "status")


def _gauge(name: str, about: str, values: Mapping[str, float], label: str = "") -> Metric:
    """Values by `label`; without one, the only value stands under the empty name."""
    gauge = GaugeMetricFamily(f"spendscope_{name}", about, labels=[label] if label else [])
    for at, value in values.items():
        gauge.add_metric([at] if label else [], value)
    return gauge
