"""A small deployment of real embedded parts whose history has something wrong in it, for tests of anomalies."""

from __future__ import annotations

import random
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import pytest

from app.backends import Backends
from app.ingest import ingest_object
from tests.api.conftest import backends_at, empty_backends

FIRST = date(2026, 8, 1)
SPIKE = date(2026, 10, 10)
LAST = date(2026, 10, 16)
NOW = datetime(2026, 10, 20, 9, 30, tzinfo=UTC)
ACCOUNTS, SERVICES = ("111111111111", "222222222222"), ("Amazon S3", "AWS Lambda", "<b>Amazon EC2</b>")
SCOPE = ("111111111111", "Amazon S3", "us-east-1")
DAY = timedelta(days=1)


def day_file(day: date, extra: float = 300.0, since: date = SPIKE) -> str:
    """A day of two accounts; from `since` on one series costs `extra` dollars more."""
    chance = random.Random(str(day))
    lines = ["account,service,region,amortized_cost,blended_cost,unblended_cost,usage_quantity"]
    for account in ACCOUNTS:
        for service in SERVICES:
            cost = 100 * chance.uniform(0.97, 1.03)
            if (account, service) == SCOPE[:2] and day >= since:
                cost += extra
            lines.append(f"{account},{service},us-east-1,{cost:.4f},{cost:.4f},{cost:.4f},1")
    return "\n".join(lines) + "\n"


def take(backends: Backends, day: date, text: str) -> None:
    path = Path(backends.settings.source.removeprefix("file://")) / f"{day}.csv"
    path.write_text(text)
    assert ingest_object(backends, {"key": path.name}, lambda *_: None, job_id=f"job-{day}").status == "done"


def build(root: Path, last: date = LAST) -> None:
    backends = empty_backends(root)
    for number in range((last - FIRST).days + 1):
        take(backends, FIRST + number * DAY, day_file(FIRST + number * DAY))
    backends.metadata.close()


_BUILT: list[Path] = []


def built_once(factory: pytest.TempPathFactory) -> Path:
    """One deployment a test process, to be copied and never changed."""
    if not _BUILT:
        root = factory.mktemp("found") / "built"
        build(root)
        _BUILT.append(root)
    return _BUILT[0]


@contextmanager
def copied(built: Path, root: Path) -> Iterator[Backends]:
    shutil.copytree(built, root)
    backends = replace(backends_at(root), clock=lambda: NOW)
    yield backends
    backends.metadata.close()
