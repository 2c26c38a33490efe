"""What becomes of the files and the figures when a collection fails: cells L5 to L7, L9 and L10 of docs/faults.md.

The other cells of the collector are in tests/workers/test_collector.py and test_targets.py.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path

import boto3
import pytest
from botocore.config import Config
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from app.backends import Backends
from app.core.periods import DateRange
from app.core.query import CostQuery
from app.costs import ask, ledgers_of
from app.errors import Unavailable
from app.ingest import ingest_object, watch
from tests.arrivals import opened, settings_for
from tests.buckets import Bucket, Proxy, only_our_aws, s3_server
from tests.costexplorer import charge
from tests.workers.test_collector import A, B, Place, aws_of, collect
from workers.targets import S3Target

DAY = date(2026, 10, 1)
ONE_DAY = DateRange(DAY, DAY + timedelta(days=1))


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    with s3_server() as url:
        yield url


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    only_our_aws(monkeypatch)


@pytest.fixture
def bucket(endpoint: str) -> Bucket:
    return Bucket(endpoint, "costs/")


@pytest.fixture
def place(tmp_path: Path) -> Place:
    (tmp_path / "costs").mkdir()
    return Place(tmp_path)


@pytest.fixture
def backends(tmp_path: Path, place: Place) -> Iterator[Backends]:
    found = opened(settings_for(tmp_path, place.folder / "costs"))
    yield found
    found.metadata.close()


def take(backends: Backends) -> list[str]:
    """Ingest what a listing finds new; how each ended."""
    statuses = []
    for job in watch(backends).jobs:
        statuses.append(ingest_object(backends, job.params, lambda *_: None, job_id=job.id).status)
        backends.metadata.cancel(job.id, now=backends.clock())
    return statuses


def total(backends: Backends, days: DateRange) -> Decimal | None:
    return ask(backends, CostQuery(days, granularity="total")).total


@pytest.mark.parametrize("there", [False, True])
def test_l5_an_upload_that_breaks_off_leaves_nothing_and_the_old_file(
    bucket: Bucket, endpoint: str, there: bool
) -> None:
    old = b"old" * 1000
    if there:
        bucket.put("2026-10-01.csv", old)
    proxy = Proxy(endpoint)
    proxy.cut_question_after = 300_000
    target = S3Target(f"s3://{bucket.name}/costs/", proxy.url)
    once = Config(retries={"total_max_attempts": 1}, read_timeout=2, connect_timeout=2)
    target._client = boto3.client("s3", endpoint_url=proxy.url, region_name="us-east-1", config=once)
    kept = target.read("costs/2026-10-01.csv")
    with pytest.raises(Unavailable):
        target.write("costs/2026-10-01.csv", b"x" * 2_000_000, kept.version if kept else None)
    with suppress(OSError):
        proxy.close()
    found = {one.key: one.size for one in bucket.source.list()}
    assert found == ({"2026-10-01.csv": len(old)} if there else {})
    assert bucket.writer.list_multipart_uploads(Bucket=bucket.name).get("Uploads", []) == []


def test_l6_a_second_run_changes_no_file_and_nothing_is_ingested_again(place: Place, backends: Backends) -> None:
    aws = aws_of(charge(A, "Amazon S3", "global", "1.5"), charge(B, "Amazon EC2", "eu-west-1", "2.5"))
    collect(place, aws)
    assert take(backends) == ["done"]
    before = backends.metadata.day_record(DAY)
    for _ in range(2):
        collect(place, aws)
        assert take(backends) == []
    # The same event for an object whose version is new and whose bytes are not.
    (place.folder / f"costs/{DAY}.csv").touch()
    assert take(backends) == ["done-noop"]
    assert backends.metadata.day_record(DAY) == before
    assert total(backends, ONE_DAY) == 4


def test_l7_a_collection_needs_no_temporary_files(
    bucket: Bucket, endpoint: str, monkeypatch: pytest.MonkeyPatch, place: Place
) -> None:
    """A full /tmp is of no consequence: nothing is put there."""
    monkeypatch.setenv("TMPDIR", "/dev/full")
    monkeypatch.setattr(tempfile, "tempdir", "/dev/full")
    charges = [charge(A, f"Service {n}", f"r{n % 20}", f"{n}.25") for n in range(2000)]
    target = S3Target(f"s3://{bucket.name}/costs/", endpoint)
    report = collect(place, aws_of(*charges), target=target)
    assert report.complete
    assert [one.key for one in bucket.source.list()] == [f"{DAY}.csv"]


def test_l9_days_that_still_change_are_settling_and_restated(place: Place, backends: Backends) -> None:
    aws = aws_of(charge(A, "Amazon S3", "global", "1.5"))
    aws.ce.estimated = lambda _: True
    collect(place, aws)
    take(backends)
    assert ledgers_of(backends).coverage.with_status("settling") == [DAY], "estimated, however old"
    aws.ce.charges = [charge(A, "Amazon S3", "global", "1.75"), charge(A, "Tax", "NoRegion", "0.25")]
    aws.ce.estimated = lambda _: False
    aws.now += timedelta(days=1)
    collect(place, aws)
    assert take(backends) == ["done"]
    part = backends.metadata.day_record(DAY).accounts[A]
    assert (part.first.amortized_cost, part.current.amortized_cost, part.revision) == (Decimal("1.5"), 2, 2)
    assert ledgers_of(backends).coverage.with_status("settling") == []


EDGES = [date(2028, 2, 29), date(2027, 2, 28), date(2027, 12, 31), date(2026, 3, 29), date(2026, 10, 25), DAY]


@settings(max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(edge=st.sampled_from(EDGES), before=st.integers(0, 3), after=st.integers(1, 4))
def test_l10_at_every_edge_of_the_calendar_each_day_has_its_own_charges(
    tmp_path_factory: pytest.TempPathFactory, edge: date, before: int, after: int
) -> None:
    """29 February, New Year, the days clocks change: half-open, no day twice, none left out."""
    days = DateRange(edge - timedelta(days=before), edge + timedelta(days=after))
    around = [days.start - timedelta(days=1), *days, days.end]
    charges = [charge(A, "Amazon S3", "global", f"{day.toordinal()}.5", day=day) for day in around]
    folder = tmp_path_factory.mktemp("edge")
    (folder / "costs").mkdir()
    place, aws = Place(folder), aws_of(*charges)
    aws.now = datetime(days.end.year, days.end.month, days.end.day, 13, tzinfo=UTC)
    report = collect(place, aws, days)
    assert sorted(report.written) == list(days)
    world = opened(settings_for(folder, folder / "costs"))
    world = replace(world, clock=lambda: aws.now)
    assert set(take(world)) == {"done"}
    for day in around:
        expected = Decimal(f"{day.toordinal()}.5") if day in days else None
        assert total(world, DateRange(day, day + timedelta(days=1))) == expected
    world.metadata.close()
