"""What a run leaves that is killed between its write and its flip, when no newer version of its file mends it (I1)."""

from __future__ import annotations

import gzip
from dataclasses import replace
from datetime import timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from app.agreement import compared
from app.backends import Backends
from app.ingest import ingest_object, stored_totals, watch
from tests.arrivals import DAY, NOW, amount, arrive, csv, take


class Killed(BaseException):
    pass


def killed_after_the_write(backends: Backends, key: str) -> dict[str, Any]:
    """Its job's params, for when it runs again."""
    [job] = watch(backends, [key]).jobs

    def progress(done: int, of: int | None, message: str) -> None:
        if done == 3:
            raise Killed

    with pytest.raises(Killed):
        ingest_object(backends, job.params, progress, job_id=job.id)
    assert backends.metadata.day_record(DAY).restating
    return {"params": job.params, "job_id": job.id}


def an_hour_later(backends: Backends) -> Backends:
    """The mark of whoever was killed has run out."""
    return replace(backends, clock=lambda: NOW + timedelta(hours=1))


def kept(backends: Backends) -> dict[str, Decimal]:
    return {name: totals.amortized_cost for name, totals in stored_totals(backends, DAY).items()}


@pytest.mark.parametrize("suffix", [".csv", ".csv.gz"])
def test_an_account_that_the_ledger_never_had_goes(backends: Backends, folder: Path, suffix: str) -> None:
    killed_after_the_write(backends, arrive(folder, csv("c,S,r,12,12,12,1")))
    assert kept(backends) == {"c": Decimal(12)}
    later = an_hour_later(backends)
    data = csv() if suffix == ".csv" else gzip.compress(csv("a,S,r,1,1,1,1"))
    assert take(later, arrive(folder, data, suffix=suffix)).status == "done"
    assert kept(later) == ({} if suffix == ".csv" else {"a": Decimal(1)})
    assert not later.metadata.day_record(DAY).restating
    assert compared(later).wrong == ()


def test_an_account_that_was_released_before_stays_released(backends: Backends, folder: Path) -> None:
    take(backends, arrive(folder, csv("c,S,r,5,5,5,1")))
    take(backends, arrive(folder, csv()))
    killed_after_the_write(backends, arrive(folder, csv("c,S,r,12,12,12,1")))
    take(an_hour_later(backends), arrive(folder, csv()))
    assert kept(backends) == {}


def test_while_another_accounts_charges_are_wrong_the_day_is_not_done(backends: Backends, folder: Path) -> None:
    before = csv("c,S,r,5,5,5,1")
    take(backends, arrive(folder, before))
    killed_after_the_write(backends, arrive(folder, csv("c,S,r,12,12,12,1")))
    later = an_hour_later(backends)
    take(later, arrive(folder, gzip.compress(csv("a,S,r,1,1,1,1")), suffix=".csv.gz"))
    assert later.metadata.day_record(DAY).restating, "nobody vouches for c"
    assert compared(later).wrong == (DAY,), "and who compares says so"
    take(later, arrive(folder, before))
    assert kept(later) == {"a": Decimal(1), "c": Decimal(5)}, "bytes that are known are taken all the same"
    assert amount(later) == 6
    assert not later.metadata.day_record(DAY).restating
    assert later.metadata.day_record(DAY).accounts["c"].revision == 1


def test_a_killed_run_whose_version_is_gone_hands_its_day_over(backends: Backends, folder: Path) -> None:
    killed = killed_after_the_write(backends, key := arrive(folder, csv("c,S,r,12,12,12,1")))
    arrive(folder, csv("c,S,r,3,3,3,1"))
    later = an_hour_later(backends)
    assert ingest_object(later, killed["params"], lambda *_: None, job_id=killed["job_id"]).status == "superseded"
    jobs = [job for job in later.metadata.jobs(limit=10).items if job.params.get("again")]
    assert [job.params["key"] for job in jobs] == [key]
    assert ingest_object(later, jobs[0].params, lambda *_: None, job_id=jobs[0].id).status == "done"
    assert kept(later) == {"c": Decimal(3)}


def test_charges_that_add_up_to_nothing_are_no_strays(backends: Backends, folder: Path) -> None:
    take(backends, arrive(folder, csv("c,S,r,5,5,5,0", "c,T,r,-5,-5,-5,0")))
    killed_after_the_write(backends, arrive(folder, gzip.compress(csv("b,S,r,1,1,1,1")), suffix=".csv.gz"))
    take(an_hour_later(backends), arrive(folder, gzip.compress(csv("a,S,r,1,1,1,1")), suffix=".csv.gz"))
    assert kept(backends) == {"a": Decimal(1), "c": Decimal(0)}
    assert len(backends.costs.day(DAY)) == 3
