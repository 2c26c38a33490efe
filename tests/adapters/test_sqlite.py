from __future__ import annotations

import sqlite3
from functools import partial
from pathlib import Path

import orjson
import pytest

from app.adapters.sqlite import STEPS, SqliteMetadata, upgrade
from app.core.documents import day_record_document
from app.ports import Metadata
from tests.contracts.metadata import DAY, ONE_DAY, MetadataContract, Opening, day_record, revision


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


def test_a_ledger_of_the_release_before_is_taken_over(path: Path) -> None:
    """As 0.1.0 left it: the first step only, with a day in it; a copy of it is kept."""
    path.parent.mkdir(parents=True)
    old = sqlite3.connect(path, isolation_level=None)
    old.row_factory = sqlite3.Row
    upgrade(old, path, STEPS[:1])
    document = day_record_document(day_record())
    old.execute("INSERT INTO day VALUES (?, 1, ?)", (document["day"], orjson.dumps(document).decode()))
    old.close()
    store = SqliteMetadata(path)
    store.prepare()
    assert store.day_record(DAY) == day_record()
    store.add_revisions([revision()])
    assert store.revisions(DAY, DAY + ONE_DAY) == [revision()]
    assert path.with_name(f"{path.name}.version-1").is_file()
