"""GET /api/v1/ingestions/{id}/file: the bytes as they lie in the source, or a clear word that they are gone."""

from __future__ import annotations

import gzip
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import Any, BinaryIO

import pytest

from app.errors import Unavailable
from app.ports import SourceObject
from tests.api.conftest import World, take
from tests.buckets import Bucket, only_our_aws, s3_server

KEY = "2026-11-01.csv"
HOSTILE = b'service,region\n<script>alert(1)</script>,"=HYPERLINK(""http://x"")"\n\xff\xfe\x00'


@pytest.fixture
def costs(tmp_path: Path) -> Path:
    return tmp_path / "costs"


def quarantined(world: World, key: str = KEY) -> str:
    """Id of the ingestion that refused the file there."""
    assert take(world.backends, key) == "quarantined"
    return str(world.get("/api/v1/ingestions", key=key).json["items"][0]["id"])


def test_the_exact_bytes_come_as_an_attachment_that_nothing_opens(empty: World, costs: Path) -> None:
    (costs / KEY).write_bytes(HOSTILE)
    answer = empty.get(f"/api/v1/ingestions/{quarantined(empty)}/file")
    assert (answer.status_code, answer.data) == (200, HOSTILE)
    assert answer.headers["Content-Type"] == "application/octet-stream"
    assert answer.headers["Content-Disposition"] == f'attachment; filename="{KEY}"'
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert answer.headers["Content-Length"] == str(len(HOSTILE))
    assert "sandbox" in answer.headers["Content-Security-Policy"]


def test_a_compressed_file_comes_as_it_lies_there(empty: World, costs: Path) -> None:
    data = gzip.compress(HOSTILE * 1000)
    (costs / f"{KEY}.gz").write_bytes(data)
    answer = empty.get(f"/api/v1/ingestions/{quarantined(empty, KEY + '.gz')}/file")
    assert answer.data == data
    assert answer.headers["Content-Disposition"] == f'attachment; filename="{KEY}.gz"'
    assert "Content-Encoding" not in answer.headers


def test_large_files_come_in_parts(empty: World, costs: Path) -> None:
    data = os.urandom(3_000_001)
    (costs / KEY).write_bytes(data)
    answer = empty.get(f"/api/v1/ingestions/{quarantined(empty)}/file")
    assert answer.is_streamed
    assert answer.data == data


def test_an_empty_file_is_an_empty_file(empty: World, costs: Path) -> None:
    (costs / KEY).write_bytes(b"")
    answer = empty.get(f"/api/v1/ingestions/{quarantined(empty)}/file")
    assert (answer.status_code, answer.data) == (200, b"")


@pytest.mark.parametrize("what", ["replaced", "removed"])
def test_a_version_the_source_no_longer_has_is_409(empty: World, costs: Path, what: str) -> None:
    (costs / KEY).write_bytes(HOSTILE)
    name = quarantined(empty)
    (costs / KEY).unlink()
    if what == "replaced":
        (costs / KEY).write_bytes(b"another")
    answer = empty.get(f"/api/v1/ingestions/{name}/file")
    assert (answer.status_code, answer.content_type) == (409, "application/problem+json")
    assert what in answer.json["detail"]


def test_a_file_of_another_source_is_409_and_one_beyond_the_limit_422(empty: World, costs: Path) -> None:
    (costs / KEY).write_bytes(HOSTILE * 100)
    name = quarantined(empty)
    found = empty.backends.metadata.ingestion(name)
    assert found is not None
    empty.backends.metadata.put_ingestion(replace(found, id="elsewhere", source="s3://old/costs/"))
    elsewhere = empty.get("/api/v1/ingestions/elsewhere/file")
    assert (elsewhere.status_code, "s3://old/costs/" in elsewhere.json["detail"]) == (409, True)
    small = empty.backends.settings.model_copy(update={"max_file_bytes": 1024})
    refused = empty.serving(settings=small).get(f"/api/v1/ingestions/{name}/file")
    assert (refused.status_code, "bytes" in (refused.json or {})["detail"]) == (422, True)


@pytest.mark.parametrize("name", ["nothing", "%00", "..%2F..%2Fetc", "a" * 5000])
def test_an_unknown_ingestion_is_404(empty: World, name: str) -> None:
    assert empty.get(f"/api/v1/ingestions/{name}/file").status_code == 404


def test_a_source_that_does_not_answer_is_503(empty: World, costs: Path) -> None:
    (costs / KEY).write_bytes(HOSTILE)
    name = quarantined(empty)

    class Breaking:
        """Lists, and breaks when it is read: at once, or after the first chunk."""

        root = empty.backends.source.root

        def __init__(self, good: bytes) -> None:
            self.good = good

        def find(self, key: str) -> Any:
            return empty.backends.source.find(key)

        @contextmanager
        def open(self, found: SourceObject) -> Iterator[BinaryIO]:
            yield Torn(self.good)

    class Torn(BytesIO):
        def read(self, size: int | None = -1, /) -> bytes:
            if chunk := super().read(size):
                return chunk
            raise Unavailable("source", "The connection broke.")

    broken = empty.serving(source=Breaking(b"")).get(f"/api/v1/ingestions/{name}/file")
    assert (broken.status_code, broken.content_type) == (503, "application/problem+json")
    with pytest.raises(Unavailable):  # the server cuts the connection: Content-Length was not reached
        empty.serving(source=Breaking(b"half")).get(f"/api/v1/ingestions/{name}/file", buffered=True)


def test_from_s3_too_exactly_that_version(empty: World, monkeypatch: pytest.MonkeyPatch) -> None:
    only_our_aws(monkeypatch)
    with s3_server() as endpoint:
        bucket = Bucket(endpoint)
        world = World(replace(empty.backends, source=bucket.source), empty.serving(source=bucket.source), ())
        data = gzip.compress(HOSTILE + os.urandom(500_000))
        bucket.put(f"{KEY}.gz", data)
        name = quarantined(world, f"{KEY}.gz")
        answer = world.get(f"/api/v1/ingestions/{name}/file")
        assert (answer.status_code, answer.data) == (200, data)
        assert world.client.head(f"/api/v1/ingestions/{name}/file").headers["Content-Length"] == str(len(data))
        bucket.put(f"{KEY}.gz", b"another")
        gone = world.get(f"/api/v1/ingestions/{name}/file")
        assert (gone.status_code, "replaced" in gone.json["detail"]) == (409, True)
