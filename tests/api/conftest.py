"""A small deployment of real embedded parts with known charges, and the API on a bare Flask app in front of it."""

from __future__ import annotations

import csv
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient

from app.adapters.folder import FolderSource
from app.adapters.parquet import ParquetCostStore
from app.adapters.sqlite import SqliteMetadata
from app.api import blueprint
from app.backends import Backends
from app.config import read_settings
from app.core.amounts import text
from app.core.charges import METRICS
from app.ingest import ingest_object
from tests.fakes import MemoryQueue

FIRST, END = date(2026, 9, 20), date(2026, 11, 4)
HOLE, RESTATED, BROKEN = date(2026, 10, 10), date(2026, 10, 5), END
NOW = datetime(2026, 11, 6, 9, tzinfo=UTC)
SERVICES = (
    "Amazon EC2",
    "Amazon S3",
    '=HYPERLINK("http://example.org")',
    "+plus",
    "-minus",
    "@at",
    "Other",
    'Comma, "quoted"',
    "000123",
    "NULL",
    "<script>",
)
REGIONS, ACCOUNTS = ("eu-west-1", "us-east-1", "global"), ("111111111111", "222222222222", "033333333333")
COLUMNS = ("account", "service", "region", "charge_category", *METRICS)


@dataclass(frozen=True)
class Charge:
    date: date
    account: str
    service: str
    region: str
    charge_category: str
    amortized_cost: Decimal
    blended_cost: Decimal | None
    unblended_cost: Decimal
    usage_quantity: Decimal
    provider: str = "aws"


@dataclass(frozen=True)
class World:
    backends: Backends
    client: FlaskClient
    charges: tuple[Charge, ...]

    def get(self, path: str, **query: Any) -> Any:
        return self.client.get(path, query_string=query)

    def sum(self, metric: str = "amortized_cost", where: Callable[[Charge], bool] = lambda _: True) -> Decimal:
        """The oracle: plain decimals added one by one."""
        values = [getattr(charge, metric) for charge in self.charges if where(charge)]
        return sum((value for value in values if value is not None), Decimal(0))

    def serving(self, **parts: Any) -> FlaskClient:
        """The API over the same deployment with other parts."""
        return client_of(replace(self.backends, memo={}, **parts))


def client_of(backends: Backends) -> FlaskClient:
    server = Flask("under-test")
    server.extensions["spendscope"] = backends
    server.register_blueprint(blueprint())
    return server.test_client()


def empty_backends(root: Path) -> Backends:
    """Real parts with nothing in them; a queue in memory."""
    (root / "costs").mkdir(parents=True)
    return backends_at(root)


def backends_at(root: Path) -> Backends:
    """Real parts over what is there."""
    settings = read_settings({}, data_dir=root / "data", source=(root / "costs").as_uri() + "/")
    metadata = SqliteMetadata(root / "metadata.sqlite")
    metadata.prepare()
    costs = ParquetCostStore(root / "store", retention_days=0)
    costs.prepare()
    return Backends(settings, FolderSource(settings.source), costs, metadata, MemoryQueue(), clock=lambda: NOW)


def charges_of(day: date, chance: random.Random) -> list[Charge]:
    def amount(places: int) -> Decimal:
        return Decimal(chance.randrange(-(10 ** (places + 1)), 10 ** (places + 3))).scaleb(-places)

    found = []
    for account in ACCOUNTS:
        for service in chance.sample(SERVICES, 6):
            for region in chance.sample(REGIONS, 2):
                blended = None if service == "@at" else amount(12)
                values = amount(chance.choice((2, 11, 20))), blended, amount(12), amount(6)
                found.append(Charge(day, account, service, region, chance.choice(("Usage", "Tax")), *values))
    return found


def write_day(source: Path, day: date, charges: list[Charge]) -> str:
    """The file as a collector leaves it: a new one under the name."""
    path = source / f"{day}.csv"
    fresh = path.with_suffix(".new")
    with fresh.open("w", newline="", encoding="utf-8") as out:
        writer = csv.writer(out, lineterminator="\n")
        writer.writerow(COLUMNS)
        for charge in charges:
            values = [getattr(charge, name) for name in COLUMNS]
            writer.writerow([text(v) if isinstance(v, Decimal) else "" if v is None else v for v in values])
    fresh.replace(path)
    return path.name


def take(backends: Backends, key: str) -> str:
    return ingest_object(backends, {"key": key}, lambda *_: None, job_id=f"job-{key}").status


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """45 days, one of them without a file, one restated, and a broken file after them. For reading only."""
    root = tmp_path_factory.mktemp("api")
    backends, chance, known = empty_backends(root), random.Random(7), []
    for day in (FIRST + timedelta(days=n) for n in range((END - FIRST).days)):
        if day == HOLE:
            continue
        if day == RESTATED:
            assert take(backends, write_day(root / "costs", day, charges_of(day, chance))) == "done"
        charges = charges_of(day, chance)
        known += charges
        assert take(backends, write_day(root / "costs", day, charges)) == "done"
    (root / "costs" / f"{BROKEN}.csv").write_text("service,region\nA,b\n")
    assert take(backends, f"{BROKEN}.csv") == "quarantined"
    yield World(backends, client_of(backends), tuple(known))
    backends.metadata.close()


@pytest.fixture
def empty(tmp_path: Path) -> Iterator[World]:
    """Nothing ingested yet; may be written to."""
    backends = empty_backends(tmp_path)
    yield World(backends, client_of(backends), ())
    backends.metadata.close()
