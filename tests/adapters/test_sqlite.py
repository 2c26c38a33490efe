from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest

from app.adapters.sqlite import SqliteMetadata
from app.ports import Metadata
from tests.contracts.metadata import MetadataContract, Opening


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "store" / "metadata.sqlite"


@pytest.fixture
def store(path: Path) -> SqliteMetadata:
    store = SqliteMetadata(path)
    store.prepare()
    return store


class TestSqlite(MetadataContract):
    @pytest.fixture
    def store(self, store: SqliteMetadata) -> Metadata:
        return store

    @pytest.fixture
    def open_store(self, path: Path) -> Opening:
        return partial(SqliteMetadata, path)
