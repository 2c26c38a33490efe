"""What becomes of a cost store that lost what the ledger calls ingested: it is seen, said, and refilled from the files."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
from pydantic import SecretStr

from app.agreement import SAMPLED, compared, repair
from app.backends import Backends, open_backends, store_dir
from app.health import examine
from app.ingest import ingest_object, watch
from tests.arrivals import DAY, amount, arrive, csv, opened, settings_for, take
from tests.memoryinflux import MemoryInflux, memory_influx

DAYS = [DAY + timedelta(days=number) for number in range(12)]


def fill(backends: Backends, folder: Path) -> None:
    for number, day in enumerate(DAYS):
        take(backends, arrive(folder, csv(f"a,S,r,{number + 1}.25,1,1,1", "b,S,r,0,,0,0"), day))


def do(backends: Backends) -> None:
    for job in backends.metadata.unfinished():
        assert ingest_object(backends, job.params, lambda *_: None, job_id=job.id).status == "done"
        backends.metadata.cancel(job.id, now=backends.clock())


def lose(backends: Backends) -> Backends:
    """The embedded store's files are gone, the ledger is not; as a process sees it that starts then."""
    shutil.rmtree(store_dir(backends.settings) / "costs")
    return opened(backends.settings)


def test_a_lost_store_is_seen_said_and_refilled(backends: Backends, folder: Path) -> None:
    fill(backends, folder)
    assert compared(backends).wrong == ()
    before, figure = backends.metadata.revisions(DAY, DAYS[-1]), amount(backends, day=DAYS[3])
    lost = lose(backends)
    assert watch(lost).jobs == (), "the ledger knows every file: listing alone brings nothing back"
    assert compared(lost).wrong == tuple(DAYS)
    (said,) = [found for found in examine(lost.settings) if found.verdict == "wrong" and found.part == "costs"]
    assert f"12 of 12 days compared, first {DAY}" in said.sentence
    assert "spendscope ingest --again" in said.sentence
    assert len(repair(lost)) == 12
    do(lost)
    assert compared(lost).wrong == ()
    assert amount(lost, day=DAYS[3]) == figure
    assert lost.metadata.revisions(DAY, DAYS[-1]) == before, "nothing was restated"
    assert [f.sentence for f in examine(lost.settings) if f.part == "costs"][-1].endswith("12 days compared.")


def test_known_files_are_read_again_when_asked_for(backends: Backends, folder: Path) -> None:
    fill(backends, folder)
    lost = lose(backends)
    assert [job.params["key"] for job in watch(lost, [f"{DAY}.csv"], again=True).jobs] == [f"{DAY}.csv"]
    (folder / "notes.txt").write_text("x")
    found = watch(lost, again=True)
    assert [job.params["key"] for job in found.jobs] == [f"{day}.csv" for day in reversed(DAYS)]
    assert found.ignored == 1
    do(lost)
    assert compared(lost).wrong == ()


def test_one_day_that_is_gone_or_too_much_is_a_difference(backends: Backends, folder: Path) -> None:
    fill(backends, folder)
    record = backends.metadata.day_record(DAYS[2])
    assert backends.metadata.put_day_record(replace(record, revision=record.revision + 1, accounts={}))
    assert compared(backends).wrong == (DAYS[2],), "the store has figures that the ledger knows nothing of"
    until = backends.clock() + timedelta(minutes=1)
    marked = replace(record, revision=record.revision + 2, accounts={}, restating=True, restating_until=until)
    assert backends.metadata.put_day_record(marked)
    assert compared(backends).wrong == (), "a day that is being written is not judged"
    left = replace(marked, revision=marked.revision + 1, restating_until=None)
    assert backends.metadata.put_day_record(left)
    assert compared(backends).wrong == (DAYS[2],), "nobody is at it"


@pytest.fixture
def influx() -> Iterator[MemoryInflux]:
    with memory_influx() as server:
        yield server


def test_an_emptied_bucket_is_seen_by_a_sample_and_refilled_whole(
    influx: MemoryInflux, tmp_path: Path, folder: Path
) -> None:
    settings = settings_for(tmp_path, folder).model_copy(
        update={"influxdb_url": influx.url, "influxdb_token": SecretStr("t"), "influxdb_org": "o", "retention_days": 0}
    )
    backends = opened(settings)
    fill(backends, folder)
    found = compared(backends)
    assert (found.looked_at, found.wrong) == (SAMPLED, ())
    influx.buckets["cost_data"].clear()
    again = opened(settings)
    assert len(compared(again).wrong) == SAMPLED
    assert len(repair(again)) == len(DAYS), "all that differ, once a few do"
    do(again)
    assert compared(again, thorough=True).wrong == ()
    assert amount(again, day=DAY) == amount(backends, day=DAY)


def test_beyond_retention_nothing_is_missed(backends: Backends, folder: Path) -> None:
    fill(backends, folder)
    short = opened(backends.settings.model_copy(update={"retention_days": 12}))
    short.costs.forget(DAYS[4])
    assert compared(short).wrong == ()
    assert open_backends(short.settings).costs.oldest(short.today()) is not None
