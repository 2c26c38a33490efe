"""`doctor`: what is wrong, what is worth a note, and how to mend it."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from app.config import read_settings
from app.health import examine


@pytest.fixture
def closed_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def test_an_events_queue_that_is_down_is_a_note_and_the_source_is_wrong(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, closed_port: int
) -> None:
    for name, value in {"AWS_ACCESS_KEY_ID": "x", "AWS_SECRET_ACCESS_KEY": "x", "AWS_REGION": "eu-west-1"}.items():
        monkeypatch.setenv(name, value)
    settings = read_settings(
        {},
        source="s3://bucket/costs/",
        aws_endpoint_url=f"http://127.0.0.1:{closed_port}",
        events_queue=f"http://127.0.0.1:{closed_port}/1/costs",
        data_dir=tmp_path,
        watch_seconds=60,
    )
    found = {finding.part: finding for finding in examine(settings)}
    assert found["source"].verdict == "wrong"
    assert "never listed" in found["source"].sentence
    assert found["events"].verdict == "note"
    assert "found by listing, every 60 s" in found["events"].sentence


def test_the_sample_that_nobody_has_written_yet_is_no_fault(tmp_path: Path, closed_port: int) -> None:
    found = examine(read_settings({}, data_dir=tmp_path, port=closed_port))
    assert [finding.verdict for finding in found if finding.part == "source"] == ["note"]
    assert "wrong" not in [finding.verdict for finding in found if finding.part in ("source", "queue", "workers")]
