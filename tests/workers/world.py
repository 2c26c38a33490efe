"""A deployment for tests of the workers: real metadata and source, a clock that is moved by hand, a queue to choose."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from app.adapters.folder import FolderSource
from app.adapters.sqlite import SqliteMetadata
from app.backends import Backends, open_costs, store_dir
from app.config import Settings
from app.core.jobs import Job
from app.jobs import submit
from tests.fakes import MemoryQueue


class Clock:
    def __init__(self) -> None:
        self.now = datetime(2026, 11, 24, 12, 0, tzinfo=UTC)

    def __call__(self) -> datetime:
        return self.now

    def forward(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)


def settings_of(folder: Path, **more: Any) -> Settings:
    (folder / "costs").mkdir(parents=True, exist_ok=True)
    return Settings(source=(folder / "costs").as_uri(), data_dir=folder / "data", **more)


def world_of(folder: Path, *, clock: Any = None, queue: Any = None, **more: Any) -> Backends:
    settings = settings_of(folder, **more)
    metadata = SqliteMetadata(store_dir(settings) / "metadata.sqlite")
    metadata.prepare()
    costs = open_costs(settings, metadata)
    costs.prepare()
    return Backends(
        settings=settings,
        source=FolderSource(settings.source),
        costs=costs,
        metadata=metadata,
        queue=queue if queue is not None else MemoryQueue(),
        clock=clock or Clock(),
    )


def submitted(backends: Backends, key: str = "a", **params: Any) -> Job:
    return submit(backends, "ingest", params, key=key)


def found(backends: Backends, job: Job) -> Job:
    again = backends.metadata.job(job.id)
    assert again is not None
    return again
