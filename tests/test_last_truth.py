"""Random histories of files end exactly at the last truth, on every cost store: late, restated, duplicated, delivered
out of order or twice or never, with rows that vanish, files that are broken for a while, and workers that are killed.

`make test` plays 10 on each store, `make soak` 500. A failure prints the shortest history that fails.
"""

from __future__ import annotations

import csv
import gzip
import io
import itertools
import tempfile
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from datetime import date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any, Final

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from app.adapters.influxdb import InfluxCostStore
from app.backends import Backends
from app.core.amounts import total as exact_total
from app.core.charges import METRICS, Totals
from app.core.periods import DAY, DateRange
from app.core.query import CostQuery
from app.costs import ask
from app.errors import Unavailable
from app.ingest import ingest_object, watch
from app.ports import CostStore
from app.restatements import histories, keep_histories
from tests.arrivals import HEADER, NOW, opened, settings_for
from tests.influxdb import Server
from tests.memoryinflux import memory_influx

FIRST = date(2026, 1, 30)
HISTORIES_A_STORE = 20
"""After so many a new store is begun: what is asked does not get slower."""

OWNERS = {".csv": ("a", "=b"), ".csv.gz": ("c",)}
"""Files of a day and the accounts they have: an account-day has one owner."""

AMOUNTS = st.sampled_from(["0", "1", "-1.5", "0.00000000000000000001", "999999999999.99", "12.345678901234", "3e-7"])
Rows = dict[tuple[str, str, str], tuple[str, ...]]
"""(account, service, region) → amounts in the order of METRICS, "" for a blended cost that is not available."""

Step = tuple[str, int, str, Rows, int]
"""What happens, to which of three days, to which of its files, with which rows; and a number to choose by."""


def rows_of(accounts: tuple[str, ...]) -> st.SearchStrategy[Rows]:
    keys = st.tuples(st.sampled_from(accounts), st.sampled_from(["S3", "EC2"]), st.sampled_from(["r", "global"]))
    amounts = st.tuples(AMOUNTS, AMOUNTS | st.just(""), AMOUNTS, AMOUNTS)
    return st.dictionaries(keys, amounts, min_size=1, max_size=4) | st.just({})


ACTIONS = ("take", "take", "take", "again", "back", "write", "deliver", "kill", "lose", "break")
"""`take` writes a new version and delivers it; `again` and `back` do so with the newest rows and with the first;
`write` leaves it to be delivered later, twice, out of order, or never."""

STEPS: st.SearchStrategy[list[Step]] = st.lists(
    st.sampled_from(sorted(OWNERS)).flatmap(
        lambda suffix: st.tuples(
            st.sampled_from(ACTIONS),
            st.sampled_from([0, 0, 0, 1, 2]),
            st.just(suffix),
            rows_of(OWNERS[suffix]),
            st.integers(0, 7),
        )
    ),
    min_size=8,
    max_size=20,
)


class Killed(BaseException):
    """The worker is gone, in the middle of a job."""


FLIPPED = 4
"""The step after those that a job reports."""


class KilledAtPublish:
    """A cost store whose worker does not live to see a day published."""

    def __init__(self, store: CostStore) -> None:
        self.store = store

    def __getattr__(self, name: str) -> Any:
        return getattr(self.store, name)

    def publish(self, day: date) -> None:
        raise Killed


@dataclass
class Clock:
    now: datetime = NOW

    def __call__(self) -> datetime:
        self.now += timedelta(milliseconds=1)
        return self.now


@dataclass
class Deployment:
    """A source and stores; each history has days of its own."""

    backends: Backends
    folder: Path
    clock: Clock
    played: int = 0


@dataclass
class History:
    """One history as it is played: what lies in the source, and what is on its way to a worker."""

    deployment: Deployment
    start: date
    written: dict[str, list[Rows]] = field(default_factory=dict)
    broken: set[str] = field(default_factory=set)
    pending: list[dict[str, Any]] = field(default_factory=list)
    unfinished: list[dict[str, Any]] = field(default_factory=list)
    first: dict[tuple[date, str], Totals] = field(default_factory=dict)

    def play(self, step: Step) -> None:
        action, number, suffix, rows, choice = step
        key = f"{self.start + number * DAY}{suffix}"
        before = self.written.get(key, [])
        if action in ("take", "write", "again", "back"):
            known = {"again": before[-1:], "back": before[:1]}.get(action)
            self.write(key, known[0] if known else rows)
            if action != "write":
                self.deliver(self.pending[-1])
        elif action == "break":
            self.put(key, b"service,region\nneither,cost\n")
            self.broken.add(key)
        elif self.pending and action == "lose":
            self.pending.pop(choice % len(self.pending))
        elif self.pending:
            # Not taken off the list: a queue may deliver twice, and in any order.
            self.deliver(self.pending[choice % len(self.pending)], killed_at=choice % 5 if action == "kill" else None)

    def write(self, key: str, rows: Rows) -> None:
        self.written.setdefault(key, []).append(rows)
        self.broken.discard(key)
        data = csv_of(rows)
        self.put(key, gzip.compress(data, mtime=0) if key.endswith(".gz") else data)

    def put(self, key: str, data: bytes) -> None:
        path = self.deployment.folder / key
        fresh = self.deployment.folder / ".arriving"
        fresh.write_bytes(data)
        fresh.replace(path)
        self.pending.extend(dict(job.params) for job in watch(self.deployment.backends, [key]).jobs)

    def deliver(self, params: dict[str, Any], killed_at: int | None = None) -> None:
        """Take it; or be killed at one of the steps, the last of which is just after the flip."""
        backends = self.deployment.backends
        if killed_at == FLIPPED:
            backends = replace(backends, costs=KilledAtPublish(backends.costs))  # type: ignore[arg-type]

        def progress(done: int, of: int | None, message: str) -> None:
            if done == killed_at:
                raise Killed

        try:
            ingest_object(backends, params, progress, job_id=params["version"])
        except (Killed, Unavailable):
            # Its lease runs out, or the day is held for a job that was killed: it runs again some time.
            self.unfinished.append(params)
        self.remember()

    def take(self, params: dict[str, Any]) -> None:
        ingest_object(self.deployment.backends, params, lambda *_: None, job_id=params["version"])
        self.remember()

    def remember(self) -> None:
        """The first figures of each account-day, as they come."""
        for day, record in self.records().items():
            for name, part in record.accounts.items():
                self.first.setdefault((day, name), part.current)

    def finish(self) -> None:
        """Whoever broke a file mends it; then, when no dead worker holds a day any more, jobs that did not end run
        again, and all that is new is taken."""
        for key in sorted(self.broken):
            self.write(key, self.written.get(key, [{}])[-1])
        self.deployment.clock.now += timedelta(hours=1)
        for params in self.unfinished:
            self.take(params)
        for job in watch(self.deployment.backends, sorted(self.written)).jobs:
            self.take(dict(job.params))
        keep_histories(self.deployment.backends)

    def records(self) -> dict[date, Any]:
        return self.deployment.backends.metadata.day_records(self.start, self.start + 3 * DAY)

    def truth(self) -> dict[date, dict[str, dict[tuple[str, str], tuple[Decimal | None, ...]]]]:
        """Day → account → (service, region) → amounts of what lies in the source now, without all-zero rows."""
        found: dict[date, dict[str, dict[tuple[str, str], tuple[Decimal | None, ...]]]] = {}
        for key, versions in self.written.items():
            of_day = found.setdefault(date.fromisoformat(key[:10]), {})
            for (account, *place), texts in versions[-1].items():
                amounts = tuple(None if text == "" else Decimal(text) for text in texts)
                if any(amounts):
                    of_day.setdefault(account, {})[tuple(place)] = amounts  # type: ignore[index]
        return found


def csv_of(rows: Rows) -> bytes:
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerows(
        [*key, *(f"{Decimal(text):f}" if text else "" for text in amounts)] for key, amounts in rows.items()
    )
    return (HEADER + out.getvalue()).encode()


def check(history: History) -> None:
    backends, truth, records = history.deployment.backends, history.truth(), history.records()
    days = DateRange(history.start, history.start + 3 * DAY)
    assert set(truth) == {day for day, record in records.items() if record.sources}
    for day, accounts in truth.items():
        record = records[day]
        assert not record.restating
        for name in {*record.accounts, *accounts}:
            rows = list(accounts.get(name, {}).values())
            for place, metric in enumerate(METRICS):
                known = record.accounts[name].current.of(metric) if name in record.accounts else Decimal(0)
                # A row that is all zero equals no row; the file's own total may lack a blended cost because of it.
                if known is not None or None in [amounts[place] for amounts in rows]:
                    assert known == summed([amounts[place] for amounts in rows]), f"ledger of {day}, {name}, {metric}"
        assert_stored(backends, day, accounts)
    for metric in ("amortized_cost", "unblended_cost", "usage_quantity"):
        expected = [
            amounts[METRICS.index(metric)] for of in truth.values() for one in of.values() for amounts in one.values()
        ]
        shown = ask(backends, CostQuery(days, metric)).total
        assert shown == (summed(expected) if truth else None), metric
    assert_history(history, days)


def summed(amounts: list[Decimal | None]) -> Decimal | None:
    known = [amount for amount in amounts if amount is not None]
    return exact_total(known) if len(known) == len(amounts) else None


def assert_stored(backends: Backends, day: date, accounts: dict[str, Any]) -> None:
    """Every charge in the store, and none beside; floats agree to 1e-6."""
    stored = backends.costs.day(day)
    names = ("account", "service", "region", *METRICS)
    rows = {row[:3]: row[3:] for row in zip(*(stored[name].to_pylist() for name in names), strict=True)}
    expected = {(name, *place): amounts for name, of in accounts.items() for place, amounts in of.items()}
    assert rows.keys() == expected.keys()
    for place, amounts in expected.items():
        for have, want in zip(rows[place], amounts, strict=True):
            exact = backends.costs.exact or have is None or want is None
            assert have == want if exact else abs(have - want) <= Decimal("1e-6") * max(abs(want), 1)


def assert_history(history: History, days: DateRange) -> None:
    """Each account-day began with its first report, ends with what is known, and no two reports in a row are one."""
    found = histories(history.deployment.backends, days)
    for day, record in history.records().items():
        for name, part in record.accounts.items():
            reports = found[day].accounts[name].revisions
            assert part.first == reports[0].totals == history.first[day, name]
            assert part.current == reports[-1].totals
            assert [one.revision for one in reports] == list(range(1, part.revision + 1))
            assert all(one.source and one.sha256 for one in reports)
            assert all(one.totals != after.totals for one, after in itertools.pairwise(reports))


# --- on every store --------------------------------------------------------------------------------------------------


def embedded(root: Path) -> Deployment:
    folder = root / "costs"
    folder.mkdir(parents=True)
    clock = Clock()
    return Deployment(replace(opened(settings_for(root, folder)), clock=clock), folder, clock)


def on_influx(root: Path, url: str, token: str, org: str) -> Deployment:
    deployment = embedded(root)
    store = InfluxCostStore(
        url=url,
        token=token,
        org=org,
        bucket=f"histories {uuid.uuid4()}",
        retention_days=0,
        ledger=deployment.backends.metadata,
        cache_dir=root / "influxdb",
        now=lambda: NOW,
        sleep=lambda _: None,
    )
    store.prepare()
    return replace(deployment, backends=replace(deployment.backends, costs=store))


Begin = Callable[[], Deployment]


NEVER_IN_THE_LEDGER: Final[list[Step]] = [
    ("take", 0, ".csv.gz", {("c", "S3", "r"): ("0", "0", "0", "0")}, 0),
    ("write", 0, ".csv.gz", {("c", "S3", "r"): ("0", "", "0", "0")}, 0),
    ("take", 0, ".csv", {}, 0),
    ("write", 0, ".csv.gz", {("c", "S3", "r"): ("0", "", "0", "12.345678901234")}, 0),
    ("kill", 0, ".csv", {}, 3),
    ("take", 0, ".csv", {}, 0),
    ("take", 0, ".csv", {("a", "S3", "r"): ("0", "0", "0", "0")}, 0),
    ("take", 0, ".csv", {("a", "S3", "r"): ("0", "0", "0", "0")}, 0),
    ("take", 0, ".csv.gz", {}, 0),
]
"""A run that is killed after it wrote an account which the ledger never had, and no later version of its file has."""


def end_at_the_last_truth(begin: Begin, examples: int) -> None:
    current: list[Deployment] = []

    @settings(max_examples=examples, deadline=None, suppress_health_check=list(HealthCheck), print_blob=True)
    @given(steps=STEPS)
    @example(steps=NEVER_IN_THE_LEDGER)
    def played(steps: list[Step]) -> None:
        if not current or current[-1].played == HISTORIES_A_STORE:
            for old in current:
                old.backends.metadata.close()
            current[:] = [begin()]
        deployment = current[-1]
        history = History(deployment, FIRST + timedelta(days=3 * deployment.played))
        deployment.played += 1
        for step in steps:
            history.play(step)
        history.finish()
        check(history)

    played()
    for old in current:
        old.backends.metadata.close()


@pytest.fixture
def root() -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as directory:
        yield Path(directory)


def examples_of(request: pytest.FixtureRequest) -> int:
    return max(10, 10 * int(request.config.getoption("--soak")))


def fresh(root: Path) -> Path:
    return root / uuid.uuid4().hex


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_on_the_embedded_store(root: Path, request: pytest.FixtureRequest) -> None:
    end_at_the_last_truth(lambda: embedded(fresh(root)), examples_of(request))


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_on_influxdb_in_memory(root: Path, request: pytest.FixtureRequest) -> None:
    with ExitStack() as stack:
        influx = stack.enter_context(memory_influx())
        end_at_the_last_truth(lambda: on_influx(fresh(root), influx.url, "token", "o"), examples_of(request))


@pytest.mark.server
@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_on_influxdb(root: Path, server: Server, request: pytest.FixtureRequest) -> None:
    end_at_the_last_truth(lambda: on_influx(fresh(root), server.url, server.token, server.org), examples_of(request))
