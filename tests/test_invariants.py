"""DESIGN §5, I1–I9: each with a test that fails when its protection is taken out. Real embedded parts, no worker."""

from __future__ import annotations

import logging
import threading
from dataclasses import replace
from datetime import date, timedelta
from decimal import Decimal
from pathlib import Path

import pytest

from app.agreement import repair
from app.backends import Backends, open_backends
from app.config import read_settings
from app.core.charges import METRICS
from app.core.periods import DateRange
from app.core.query import CostQuery
from app.costs import ask
from app.errors import CannotStart, InvalidInput, Unavailable
from app.ingest import ingest_object, watch
from app.launcher import check_address
from tests.arrivals import DAY, amount, arrive, csv, opened, settings_for, take

REAL = Path(__file__).parent.parent.parent / "shared/data/real/costs"


@pytest.mark.skipif(not REAL.is_dir(), reason="the real days are not beside this checkout (../shared/data/real)")
def test_i1_the_real_days_add_up_exactly(tmp_path: Path) -> None:
    backends = opened(settings_for(tmp_path, REAL))
    for path in sorted(REAL.glob("*.csv")):
        assert take(backends, path.name).status == "done"
    query = CostQuery(
        DateRange(date(2024, 9, 1), date(2024, 10, 1)), granularity="total", group_by=("service", "region")
    )
    expected = {"amortized_cost": "13", "unblended_cost": "18.0066386184", "usage_quantity": "13105.7085375271"}
    for metric, total in expected.items():
        answer = ask(backends, query.measured(metric))
        assert answer.total == Decimal(total)
        assert sum(part for part in answer.frame.group_totals if part is not None) == Decimal(total)
    ledger = backends.metadata.day_records(query.range.start, query.range.end)
    assert sum(part.current.rows for record in ledger.values() for part in record.accounts.values()) <= 677
    for metric, total in expected.items():
        kept = [part.current.of(metric) for record in ledger.values() for part in record.accounts.values()]
        assert sum(value for value in kept if value is not None) == Decimal(total)


def test_i1_amounts_that_floats_cannot_add_are_added(backends: Backends, folder: Path) -> None:
    tiny, huge = "0.00000000000000000001", "999999999999"
    take(backends, arrive(folder, csv(f"a,S,r,{tiny},,{huge},1", f"a,S,q,{huge},,{tiny},1", f"b,S,r,-{huge},,0,0")))
    assert amount(backends) == Decimal(tiny)
    assert amount(backends, "unblended_cost") == Decimal(huge + tiny[1:])


def test_i2_the_same_bytes_change_nothing(backends: Backends, folder: Path) -> None:
    data = csv("a,S,r,1,1,1,1")
    assert take(backends, arrive(folder, data)).status == "done"
    version = backends.costs.rollup().version
    assert take(backends, arrive(folder, data)).status == "done-noop"
    assert backends.costs.rollup().version == version
    assert [i.status for i in backends.metadata.ingestions(limit=10).items] == ["noop", "ingested"]


def test_i2_restating_replaces_exactly_and_the_first_report_stays(backends: Backends, folder: Path) -> None:
    take(backends, arrive(folder, csv("a,S,r,1,1,1,1", "a,Gone,r,5,5,5,5", "b,S,r,7,7,7,7")))
    take(backends, arrive(folder, csv("a,S,r,2.5,1,1,1")))
    assert amount(backends) == Decimal("2.5")
    record = backends.metadata.day_record(DAY)
    assert record.accounts["a"].first.amortized_cost == 6
    assert record.accounts["a"].current.amortized_cost == Decimal("2.5")
    assert record.accounts["b"].current.amortized_cost == 0
    assert record.accounts["b"].first.amortized_cost == 7
    assert {i.status for i in backends.metadata.ingestions(limit=10).items} == {"ingested", "superseded"}


def test_i2_two_files_for_one_account_day_are_never_added(backends: Backends, folder: Path) -> None:
    import gzip

    take(backends, arrive(folder, csv("a,S,r,1,1,1,1")))
    take(backends, arrive(folder, gzip.compress(csv("a,S,r,10,1,1,1", "b,S,r,3,3,3,3")), suffix=".csv.gz"))
    assert amount(backends) == 4
    assert backends.metadata.day_record(DAY).accounts["a"].owner == folder.as_uri() + "/2026-10-01.csv"


def test_i3_readers_see_the_old_day_or_the_new_one(backends: Backends, folder: Path) -> None:
    old = csv(*(f"a{n},S,r,1,1,1,1" for n in range(200)))
    new = csv(*(f"a{n},S,r,3,3,3,3" for n in range(200)))
    take(backends, arrive(folder, old))
    seen: set[Decimal | None] = set()
    stop = threading.Event()

    def read() -> None:
        while not stop.is_set():
            seen.add(amount(backends))

    reader = threading.Thread(target=read)
    reader.start()
    for turn in range(10):
        take(backends, arrive(folder, new if turn % 2 == 0 else old))
    stop.set()
    reader.join()
    assert seen <= {Decimal(200), Decimal(600)}


def test_i3_a_store_that_reads_back_something_else_changes_no_version(backends: Backends, folder: Path) -> None:
    take(backends, arrive(folder, csv("a,S,r,1,1,1,1")))
    before = backends.metadata.day_record(DAY)
    lying = replace(backends, costs=Lying(backends.costs))  # type: ignore[arg-type]
    with pytest.raises(Unavailable, match="reads back"):
        take(lying, arrive(folder, csv("a,S,r,2,2,2,2")))
    after = backends.metadata.day_record(DAY)
    assert after.accounts == before.accounts
    assert after.sources == before.sources


class Lying:
    """A cost store that loses a cent on the way back."""

    def __init__(self, honest: object) -> None:
        self.honest = honest

    def __getattr__(self, name: str) -> object:
        return getattr(self.honest, name)

    def replace(self, *args: object) -> object:
        from app.ports import StoredDay

        kept = (
            {"a": replace(self.honest.day_totals, amortized_cost=Decimal("1.99"))}
            if hasattr(self.honest, "day_totals")
            else {}
        )
        return StoredDay(DAY, kept)


@pytest.mark.parametrize("step", range(4))
def test_i3_a_crash_at_any_step_leaves_the_old_day_and_the_same_job_mends_it(
    backends: Backends, folder: Path, step: int
) -> None:
    take(backends, arrive(folder, csv("a,S,r,1,1,1,1")))
    key = arrive(folder, csv("a,S,r,2,2,2,2", "b,S,r,2,2,2,2"))

    class Killed(BaseException):
        pass

    def die(done: int, of: int | None, message: str) -> None:
        if done == step:
            raise Killed

    with pytest.raises(Killed):
        take(backends, key, progress=die)
    assert amount(backends) in (Decimal(1), Decimal(4))
    assert take(backends, key).status == "done"
    assert amount(backends) == 4
    record = backends.metadata.day_record(DAY)
    assert sum(part.current.amortized_cost for part in record.accounts.values()) == 4
    assert not record.restating


def test_i4_what_is_new_is_recorded_as_a_job_before_anything_else(backends: Backends, folder: Path) -> None:
    arrive(folder, csv("a,S,r,1,1,1,1"))
    found = watch(backends)
    assert [job.params["key"] for job in found.jobs] == ["2026-10-01.csv"]
    assert backends.metadata.job(found.jobs[0].id) is not None
    assert watch(backends).jobs[0].id == found.jobs[0].id


def test_i4_ledger_and_store_that_disagree_after_a_crash_are_mended(backends: Backends, folder: Path) -> None:
    key = arrive(folder, csv("a,S,r,1,1,1,1"))
    take(backends, key)
    assert repair(backends) == []
    record = backends.metadata.day_record(DAY)
    wrong = {
        "a": replace(record.accounts["a"], current=replace(record.accounts["a"].current, amortized_cost=Decimal(9)))
    }
    assert backends.metadata.put_day_record(replace(record, revision=record.revision + 1, accounts=wrong))
    (job,) = repair(backends)
    assert ingest_object(backends, job.params, lambda *_: None, job_id=job.id).status == "done"
    assert backends.metadata.day_record(DAY).accounts["a"].current.amortized_cost == 1


def test_i5_a_day_is_the_utc_day_of_its_file_and_ranges_are_half_open(backends: Backends, folder: Path) -> None:
    days = [date(2026, 2, 28), date(2026, 3, 1), date(2026, 3, 29), date(2026, 9, 30), DAY]
    for number, day in enumerate(days):
        take(backends, arrive(folder, csv(f"a,S,r,{10**number},0,0,0"), day))
    for number, day in enumerate(days):
        assert amount(backends, day=day) == 10**number
        frame = ask(backends, CostQuery(DateRange(day, day + timedelta(days=1)))).frame
        assert frame.periods == (day,)
    assert amount(backends, day=date(2026, 9, 30), days=1) == 1000
    monthly = ask(backends, CostQuery(DateRange(date(2026, 2, 28), date(2026, 10, 2)), granularity="monthly")).frame
    assert dict(zip(monthly.periods, monthly.amounts[0], strict=True))[date(2026, 3, 1)] == 110


def test_i6_bad_input_is_quarantined_whole_and_the_old_day_stays(backends: Backends, folder: Path) -> None:
    take(backends, arrive(folder, csv("a,S,r,1,1,1,1")))
    outcome = take(backends, arrive(folder, csv("a,S,r,2,2,2,2", "a,T,r,1.5.2,2,2,2")))
    assert outcome.status == "quarantined"
    assert amount(backends) == 1
    reason = backends.metadata.ingestions(limit=1).items[0].reason
    assert reason is not None
    assert (reason.line, reason.column, reason.value) == (3, "amortized_cost", "1.5.2")


def test_i6_questions_that_make_no_sense_say_what_would() -> None:
    for pairs, said in (
        ([("start", "2026-10-01"), ("end", "2026-10-01")], "end is exclusive"),
        ([("start", "2026-10-1"), ("end", "2026-10-02")], "YYYY-MM-DD"),
        ([("start", "2026-10-01"), ("end", "2026-10-02"), ("group_by", "servce")], "service"),
        ([("start", "2026-10-01"), ("end", "2026-10-02"), ("colour", "red")], "metric"),
    ):
        with pytest.raises(InvalidInput, match=said):
            CostQuery.from_pairs(pairs)


def test_i7_what_was_never_reported_is_unknown_not_zero(backends: Backends, folder: Path) -> None:
    assert amount(backends) is None
    take(backends, arrive(folder, csv("a,S,r,1,,1,1")))
    answer = ask(backends, CostQuery(DateRange(DAY, DAY + timedelta(days=2))))
    assert answer.frame.amounts[0][0] == 1
    assert answer.frame.amounts[0][1] != answer.frame.amounts[0][1], "the second day is unknown: NaN"
    assert amount(backends, "blended_cost") is None, "an absent blended cost is not 0"
    assert amount(backends, day=DAY + timedelta(days=1)) is None


def test_i7_a_day_without_its_file_is_missing_and_named(backends: Backends, folder: Path) -> None:
    for day in (DAY, DAY + timedelta(days=2)):
        take(backends, arrive(folder, csv("a,S,r,1,1,1,1"), day))
    fresh = ask(backends, CostQuery(DateRange(DAY, DAY + timedelta(days=3)))).freshness
    assert fresh.missing == (DAY + timedelta(days=1),)
    assert fresh.complete_through == DAY


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.5", "example.org"])
def test_i8_nothing_listens_beyond_loopback(host: str) -> None:
    with pytest.raises(CannotStart, match="loopback"):
        check_address(read_settings({}, host=host))


def test_i9_secrets_stay_out_of_errors_and_settings_text(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    secret = "hunter2hunter2"
    given = {"INFLUXDB_TOKEN": secret, "REDIS_URL": f"redis://:{secret}@127.0.0.1:1/0", "SPENDSCOPE_PORT": "none"}
    with pytest.raises(CannotStart) as wrong:
        read_settings(given)
    settings = read_settings({**given, "SPENDSCOPE_PORT": "8050"})
    assert secret not in str(wrong.value)
    assert secret not in repr(settings)
    with pytest.raises(Unavailable) as down:
        open_backends(settings).queue.check()
    assert secret not in str(down.value)
    assert secret not in caplog.text


def test_every_metric_is_asked_the_same_way(backends: Backends, folder: Path) -> None:
    take(backends, arrive(folder, csv("a,S,r,1,2,3,4")))
    assert [amount(backends, metric) for metric in METRICS] == [1, 2, 3, 4]
