"""Cost files that arrive in a folder, and what came of them: the embedded parts, without queue or worker."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path

from app.backends import Backends, open_backends
from app.config import Settings, read_settings
from app.core.periods import DateRange
from app.core.query import CostQuery
from app.costs import ask
from app.ingest import Outcome, ingest_object

DAY = date(2026, 10, 1)
NOW = datetime(2026, 10, 20, 12, tzinfo=UTC)
HEADER = "account,service,region,amortized_cost,blended_cost,unblended_cost,usage_quantity\n"


def csv(*rows: str) -> bytes:
    return (HEADER + "".join(row + "\n" for row in rows)).encode()


def settings_for(tmp_path: Path, folder: Path) -> Settings:
    return read_settings({}, data_dir=tmp_path / "data", source=folder.as_uri() + "/")


def opened(settings: Settings) -> Backends:
    seconds = itertools.count()
    backends = open_backends(settings, clock=lambda: NOW + timedelta(milliseconds=next(seconds)))
    backends.metadata.prepare()
    backends.costs.prepare()
    return backends


def arrive(folder: Path, data: bytes, day: date = DAY, suffix: str = ".csv") -> str:
    """Put a file there the way a collector would: a new object under the name."""
    path = folder / f"{day}{suffix}"
    temporary = folder / ".arriving"
    temporary.write_bytes(data)
    temporary.replace(path)
    return path.name


def take(
    backends: Backends, key: str, *, progress: Callable[[int, int | None, str], None] = lambda *_: None
) -> Outcome:
    return ingest_object(backends, {"key": key}, progress, job_id=f"job-{key}")


def amount(backends: Backends, metric: str = "amortized_cost", day: date = DAY, days: int = 1) -> Decimal | None:
    return ask(backends, CostQuery(DateRange(day, day + timedelta(days=days)), metric=metric)).total
