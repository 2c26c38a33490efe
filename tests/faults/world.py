"""A deployment with a real bucket behind it, and the one thing that must hold after every fault."""

from __future__ import annotations

import json
import random
from dataclasses import dataclass, replace
from datetime import date, timedelta
from decimal import Decimal
from pathlib import Path

from app.adapters.s3 import S3Source
from app.api.costs import costs_answer
from app.backends import Backends
from app.core.jobs import Job
from app.core.periods import DateRange
from app.core.query import CostQuery
from app.costs import ask
from app.ingest import watch
from app.ports import Source
from tests.arrivals import HEADER
from tests.buckets import Bucket
from tests.workers.world import Clock, found, world_of
from workers.jobs import HANDLERS, run_job

DAY = date(2026, 11, 20)
NAME = f"{DAY}.csv"


def cost_file(seed: int, rows: int = 3) -> bytes:
    draw = random.Random(seed)
    lines = (f"a{n % 3},S{n},r,{draw.randrange(10**9)}.{draw.randrange(10**9):09},1,1,1\n" for n in range(rows))
    return (HEADER + "".join(lines)).encode()


def total_of(data: bytes) -> Decimal:
    """What the file says, added up by other means than ours."""
    lines = data.decode().splitlines()[1:]
    return sum((Decimal(line.split(",")[3]) for line in lines), Decimal(0))


@dataclass
class Faulty:
    """Real embedded stores, real S3 over HTTP, jobs run in this process, a clock moved by hand."""

    world: Backends
    bucket: Bucket
    clock: Clock
    truth: dict[date, Decimal]

    def reading(self, source: Source) -> Faulty:
        """The same deployment, whose source is read another way."""
        return replace(self, world=replace(self.world, source=source))

    def through(self, url: str, **options: float) -> Faulty:
        return self.reading(S3Source(self.world.source.root, url, **options))  # type: ignore[arg-type]

    def put(self, data: bytes, day: date = DAY, suffix: str = ".csv", *, good: bool = True) -> None:
        self.bucket.put(f"{day}{suffix}", data)
        if good:
            self.truth[day] = total_of(data)

    def submitted(self) -> Job:
        """The one job that is not final, as the newest listing leaves it."""
        watch(self.world)
        [job] = self.world.metadata.unfinished()
        return job

    def work(self, times: int = 1) -> None:
        """Look and run what is due; a waiting job is due a minute later."""
        for _ in range(times):
            watch(self.world)
            for job in self.world.metadata.unfinished():
                run_job(self.world, job.id, HANDLERS)
            self.clock.forward(61)

    def run(self, job: Job) -> Job:
        run_job(self.world, job.id, HANDLERS)
        return found(self.world, job)

    def check(self) -> None:
        """I1: Σ of the valid input = ledger = store = answer = what the API says, as exact decimals."""
        stored = self.world.costs.stored_days()
        assert set(stored) == set(self.truth)
        for day, total in self.truth.items():
            asked = CostQuery(DateRange(day, day + timedelta(days=1)), granularity="total")
            record = self.world.metadata.day_record(day)
            ledger = sum((part.current.amortized_cost for part in record.accounts.values()), Decimal(0))
            store = sum((part.amortized_cost for part in stored[day].accounts.values()), Decimal(0))
            said = Decimal(json.loads(costs_answer(self.world, asked, limit=9).json_bytes())["total"])
            assert (ledger, store, ask(self.world, asked).total, said) == (total,) * 4, day


def faulty(folder: Path, bucket: Bucket, **settings: int) -> Faulty:
    clock = Clock()
    world = replace(world_of(folder, clock=clock, **settings), source=bucket.source)
    return Faulty(world, bucket, clock, {})
