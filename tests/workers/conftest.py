"""A deployment in a temporary folder, with a clock that only the test moves."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from app.backends import Backends
from tests.workers.world import Clock, world_of


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def world(tmp_path: Path, clock: Clock) -> Iterator[Backends]:
    opened = world_of(tmp_path, clock=clock)
    yield opened
    opened.metadata.close()
