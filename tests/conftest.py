"""Fixtures for every ring of tests."""

from __future__ import annotations

from pathlib import Path

import pytest

from app.backends import Backends
from tests.arrivals import opened, settings_for


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "costs"
    path.mkdir()
    return path


@pytest.fixture
def backends(tmp_path: Path, folder: Path) -> Backends:
    return opened(settings_for(tmp_path, folder))
