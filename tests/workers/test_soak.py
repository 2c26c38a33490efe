"""kill -9 at random points during ingest, with real processes: totals are exact every time.

`make soak` runs 50 schedules; `make test` the short form. A failure names the seed that plays it again.
"""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import date, timedelta
from decimal import Decimal
from pathlib import Path

import pytest

from app.backends import Backends, open_backends
from app.config import read_settings
from app.core.charges import METRICS
from app.core.periods import DateRange
from app.core.query import CostQuery
from app.costs import ask
from app.ingest import watch
from app.launcher import Family, locked_data_dir, working_family
from tests.arrivals import HEADER

FIRST = date(2026, 9, 28)
DAYS = 6


@dataclass
class Soaked:
    backends: Backends
    folder: Path
    family: Family


@pytest.fixture(scope="module")
def soaked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Soaked]:
    root = tmp_path_factory.mktemp("soak")
    folder = root / "costs"
    folder.mkdir()
    settings = read_settings(
        {}, source=folder.as_uri() + "/", data_dir=root / "data", lease_seconds=1.0, watch_seconds=3600, workers=2
    )
    with locked_data_dir(settings), working_family(settings) as family:
        backends = open_backends(settings)
        backends.metadata.prepare()
        backends.costs.prepare()
        yield Soaked(backends, folder, family)


def write_day(folder: Path, day: date, seed: random.Random) -> dict[str, Decimal]:
    """A new version of a day; its totals as a plain Decimal sum."""
    totals = dict.fromkeys(METRICS, Decimal(0))
    rows = []
    for account in range(seed.randint(1, 6)):
        for service in range(seed.randint(1, 40)):
            cells = [Decimal(seed.randint(-(10**6), 10**9)).scaleb(-seed.randint(2, 10)) for _ in METRICS]
            rows.append(f"{account},S{service},r{seed.randint(0, 3)},{','.join(format(cell, 'f') for cell in cells)}\n")
            for metric, cell in zip(METRICS, cells, strict=True):
                totals[metric] += cell
    temporary = folder / ".arriving"
    temporary.write_text(HEADER + "".join(rows))
    temporary.replace(folder / f"{day}.csv")
    return totals


def kill_somebody(family: Family, seed: random.Random) -> None:
    """A worker, its forked job, or both, without warning; sometimes the scheduler too."""
    workers = [child.process for child in family.children if child.name.startswith("worker") and child.process]
    if not workers:
        return
    worker = seed.choice(workers)
    horses = children_of(worker.pid)
    victims = {"worker": [worker.pid], "horse": horses, "both": [worker.pid, *horses]}[
        seed.choice(["worker", "horse", "both"])
    ]
    if seed.random() < 0.2:
        victims += [child.process.pid for child in family.children if child.name == "scheduler" and child.process]
    for pid in victims:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def children_of(pid: int) -> list[int]:
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            if int(path.read_text().rsplit(")", 1)[1].split()[1]) == pid:
                found.append(int(path.parent.name))
    return found


def schedules(config: pytest.Config) -> int:
    return int(config.getoption("--soak"))


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_totals_are_exact_after_kills_at_random_points(soaked: Soaked, request: pytest.FixtureRequest) -> None:
    truth: dict[date, dict[str, Decimal]] = {}
    longest = 0.0
    for number in range(schedules(request.config)):
        seed = random.Random(f"soak {number}")
        for day in seed.sample([FIRST + timedelta(days=n) for n in range(DAYS)], seed.randint(2, DAYS)):
            truth[day] = write_day(soaked.folder, day, seed)
        watch(soaked.backends)
        for _ in range(seed.randint(1, 3)):
            time.sleep(seed.uniform(0, 0.5))
            kill_somebody(soaked.family, seed)
            soaked.family.watch()
        longest = max(longest, wait_until_done(soaked, number))
        check(soaked.backends, truth, number)
    print(f"{schedules(request.config)} schedules, slowest back in {longest:.1f} s")


def wait_until_done(soaked: Soaked, number: int) -> float:
    began = time.monotonic()
    while unfinished := soaked.backends.metadata.unfinished():
        soaked.family.watch()
        assert time.monotonic() - began < 60, f"schedule {number} does not end: {unfinished[:3]}"
        time.sleep(0.05)
    return time.monotonic() - began


def check(backends: Backends, truth: dict[date, dict[str, Decimal]], number: int) -> None:
    for metric in METRICS:
        expected = sum((totals[metric] for totals in truth.values()), Decimal(0))
        shown = ask(backends, CostQuery(DateRange(FIRST, FIRST + timedelta(days=DAYS)), metric=metric)).total
        assert shown == expected, f"schedule {number}: {metric} is shown as {shown}, not {expected}"
    for day, totals in truth.items():
        record = backends.metadata.day_record(day)
        assert not record.restating, f"schedule {number}: {day} is still marked"
        kept = sum((part.current.amortized_cost for part in record.accounts.values()), Decimal(0))
        assert kept == totals["amortized_cost"], f"schedule {number}: the ledger of {day}"
        stored = backends.costs.stored_days()[day]
        assert sum((part.amortized_cost for part in stored.accounts.values()), Decimal(0)) == totals["amortized_cost"]
