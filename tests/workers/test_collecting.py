"""Collections as jobs: progress, resuming, not paying twice; the ordinary ingest takes what they wrote."""

from __future__ import annotations

import re
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import NoCredentialsError
from click.testing import CliRunner

from app.backends import Backends
from app.cli import main
from app.collection import backfill_params, collect_params, price_of_backfill, settled_days, submit_collection
from app.core.jobs import Job
from app.core.periods import DateRange
from app.core.query import CostQuery
from app.costs import ask
from app.errors import InvalidInput, Refused, Unavailable
from app.ingest import ingest_object, watch
from tests.buckets import only_our_aws
from tests.costexplorer import Aws, CostExplorer, charge, refusal, refusing
from tests.workers.test_collector import A, B, organisation
from tests.workers.world import Clock, found
from workers.collecting import backfill, collect
from workers.jobs import LeaseLost, run_job

TODAY = date(2026, 11, 24)
START = date(2026, 9, 1)


def history_aws(clock: Clock, accounts: tuple[str, ...] = (A, B)) -> Aws:
    days = [START + timedelta(days=n) for n in range((TODAY - START).days)]
    charges = [charge(account, "Amazon S3", "eu-west-1", "1.1", day=day) for day in days for account in accounts]
    aws = Aws(CostExplorer(charges), organisation(*accounts))
    aws.now = clock.now
    return aws


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("workers.asking.time.sleep", lambda _: None)
    monkeypatch.setattr("workers.asking.PACE_SECONDS", 0)


class Steps:
    def __init__(self, stop_at: int | None = None) -> None:
        self.told: list[tuple[int, int | None, str]] = []
        self._stop_at = stop_at

    def __call__(self, done: int, of: int | None, message: str) -> None:
        self.told.append((done, of, message))
        if self._stop_at is not None and done >= self._stop_at:
            raise LeaseLost


def submitted(world: Backends, months: int = 2) -> Job:
    return submit_collection(world, "backfill", backfill_params(world, months))


def run(world: Backends, aws: Aws, months: int = 2, steps: Steps | None = None, job: Job | None = None) -> Any:
    return backfill(world, job or submitted(world, months), steps or Steps(), aws.connect)


def test_a_backfill_collects_month_by_month_and_ingest_takes_it_exactly(world: Backends, clock: Clock) -> None:
    aws, steps = history_aws(clock), Steps()
    outcome = run(world, aws, steps=steps)
    days = (TODAY - START).days
    assert (outcome.status, outcome.result["written"]) == ("done", days)
    assert outcome.result["requests"] == aws.ce.billed == 3 * 4
    starts = [given["TimePeriod"]["Start"] for _, given in aws.ce.asked]
    assert (
        sorted(set(starts), reverse=True) == list(dict.fromkeys(starts)) == ["2026-11-01", "2026-10-01", "2026-09-01"]
    )
    assert steps.told[-1][:2] == (days, days)
    assert [done for done, _, _ in steps.told] == sorted(done for done, _, _ in steps.told)
    for job in watch(world).jobs:
        assert ingest_object(world, job.params, lambda *_: None).status == "done"
    total = ask(world, CostQuery(DateRange(START, TODAY))).total
    assert total == days * 2 * Decimal("1.1")


def test_final_days_are_not_asked_for_again(world: Backends, clock: Clock) -> None:
    aws = history_aws(clock)
    run(world, aws)
    before = aws.ce.billed
    clock.forward(10)
    assert run(world, aws).status == "done-noop"  # the same job
    world.metadata.cancel(submitted(world).id, now=clock())
    outcome = run(world, aws)  # a new one asks for the month that is still open
    assert {given["TimePeriod"]["Start"] for _, given in aws.ce.asked[before:]} == {"2026-11-01"}
    assert (outcome.result["written"], outcome.result["requests"]) == (0, 4)


def test_a_job_that_starts_again_goes_on_where_it_was(world: Backends, clock: Clock) -> None:
    aws = history_aws(clock)
    job = submitted(world)
    clock.forward(2)
    with pytest.raises(LeaseLost):
        run(world, aws, steps=Steps(stop_at=40), job=job)
    first = aws.ce.billed
    assert 4 < first <= 8
    steps = Steps()
    outcome = run(world, aws, steps=steps, job=job)
    assert outcome.status == "done"
    assert steps.told[0][0] >= 39
    assert {given["TimePeriod"]["Start"] for _, given in aws.ce.asked[first:]} == {"2026-10-01", "2026-09-01"}
    assert len(settled_days(world, DateRange(START, TODAY), since=job.created)) == (TODAY - START).days


def test_days_of_which_an_account_failed_are_asked_for_again(world: Backends, clock: Clock) -> None:
    aws = history_aws(clock)
    aws.ce.before = refusing(B)
    outcome = run(world, aws)
    assert outcome.status == "done"
    assert list(outcome.result["failed"]) == [B]
    assert settled_days(world, DateRange(START, TODAY)) == frozenset()
    aws.ce.before = lambda *_: None
    run(world, aws)
    assert len(settled_days(world, DateRange(START, TODAY))) == 61


def test_the_price_is_known_before_and_nothing_when_nothing_is_left(world: Backends, clock: Clock) -> None:
    assert price_of_backfill(world, 2, accounts=12).requests == 3 * 15
    run(world, history_aws(clock))
    clock.forward(86400 * 40)  # January: all three months have closed
    found = price_of_backfill(world, 4, accounts=2)
    assert found.days == 2 + 31 + 30  # January and December so far, and November, which was collected while it was open
    assert found.requests == 3 * 4


def test_a_job_without_permission_fails_at_once_and_asks_no_older_month(world: Backends, clock: Clock) -> None:
    aws = history_aws(clock)
    asked: list[str] = []

    def denied(operation: str, given: dict[str, Any]) -> None:
        asked.append(given["TimePeriod"]["Start"])
        raise refusal(operation, "AccessDeniedException")

    aws.ce.before = denied
    outcome = run(world, aws)
    assert outcome.status == "failed"
    assert "ce:GetCostAndUsage answered AccessDeniedException" in outcome.message
    assert set(asked) == {"2026-11-01"}


def test_a_job_whose_time_is_used_up_goes_on_in_another_turn(world: Backends, clock: Clock, monkeypatch: Any) -> None:
    aws, job = history_aws(clock), submitted(world)
    now = [0.0]
    monkeypatch.setattr("workers.collecting.time.monotonic", lambda: now[0])
    answer = aws.ce.get_cost_and_usage

    def slow(**given: Any) -> Any:
        now[0] += 150
        return answer(**given)

    aws.ce.get_cost_and_usage = slow  # type: ignore[method-assign]
    clock.forward(2)
    with pytest.raises(Unavailable, match="23 of 84 days; it goes on"):
        run(world, aws, job=job)
    # One month of three questions fits into a turn of 720 s; the next turns take one each.
    with pytest.raises(Unavailable, match="54 of 84 days; it goes on"):
        run(world, aws, job=job)
    assert run(world, aws, job=job).status == "done"


def test_a_month_that_does_not_fit_into_a_turn_is_not_paid_for_ever(
    world: Backends, clock: Clock, monkeypatch: Any
) -> None:
    aws = history_aws(clock)
    now = [0.0]
    monkeypatch.setattr("workers.collecting.time.monotonic", lambda: now[0])
    answer = aws.ce.get_cost_and_usage

    def slow(**given: Any) -> Any:
        now[0] += 700
        return answer(**given)

    aws.ce.get_cost_and_usage = slow  # type: ignore[method-assign]
    with pytest.raises(Refused, match="SPENDSCOPE_JOB_TIMEOUT_SECONDS"):
        run(world, aws)


def test_a_cancelled_job_asks_nothing_more(world: Backends, clock: Clock) -> None:
    aws = history_aws(clock)
    with pytest.raises(LeaseLost):
        run(world, aws, steps=Steps(stop_at=0))
    assert aws.ce.billed == 0


def test_a_collect_job_takes_its_days_and_accounts(world: Backends, clock: Clock) -> None:
    aws = history_aws(clock)
    job = submit_collection(world, "collect", collect_params(world, "2026-11-20", None, [A]))
    outcome = collect(world, job, Steps(), aws.connect)
    assert (outcome.status, outcome.result["written"]) == ("done", 4)
    assert outcome.message == "4 days written, 0 unchanged; 3 requests to Cost Explorer, 0.03 USD."


def test_a_worker_runs_it_under_its_lease(world: Backends, clock: Clock) -> None:
    aws, job = history_aws(clock), submitted(world)
    run_job(world, job.id, {"backfill": lambda *given: backfill(*given, aws.connect)})
    ended = found(world, job)
    assert (ended.status, ended.done_steps, ended.all_steps) == ("done", 84, 84)
    assert "12 requests to Cost Explorer, 0.12 USD" in (ended.message or "")


def day_of(world: Backends, account: str) -> Any:
    record = world.metadata.day_record(TODAY - timedelta(days=1))
    return record.accounts[account].current.amortized_cost if account in record.accounts else None


def test_no_account_is_zeroed_by_its_absence_on_the_whole_way(world: Backends, clock: Clock) -> None:
    """Collected, failed, vanished, back again: what the ledger says of B is what was last collected of it."""
    yesterday = TODAY - timedelta(days=1)

    def collected(a: str, b: str | None, *accounts: str, before: Any = lambda *_: None) -> Any:
        clock.forward(60)
        charges = [charge(A, "Amazon S3", "global", a, day=yesterday)]
        charges += [charge(B, "Amazon S3", "global", b, day=yesterday)] if b else []
        aws = Aws(CostExplorer(charges, before=before), organisation(*accounts))
        job = submit_collection(world, "collect", collect_params(world, str(yesterday), None))
        collect(world, job, Steps(), aws.connect)
        for ingest in watch(world).jobs:
            ingest_object(world, ingest.params, lambda *_: None)
            world.metadata.cancel(ingest.id, now=clock())
        return day_of(world, A), day_of(world, B), world.metadata.day_record(yesterday).failed_accounts

    assert collected("1", "2", A, B, before=refusing(B)) == (1, None, (B,))
    assert collected("1", "2", A, B) == (1, 2, ())
    assert collected("3", "4", A, B, before=refusing(B)) == (3, 2, (B,))
    assert collected("5", None, A) == (5, 2, (B,))
    assert collected("5", "6", A, B) == (5, 6, ())
    assert collected("5", None, A, B) == (5, 0, ())


# --- command line -------------------------------------------------------------------------------------------------


@pytest.fixture
def deployed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Aws:
    """A folder as source, and an AWS that is not there but answers."""
    monkeypatch.setenv("SPENDSCOPE_SOURCE", (tmp_path / "costs").as_uri())
    monkeypatch.setenv("SPENDSCOPE_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    today = datetime.now(UTC).date()
    days = [today - timedelta(days=n) for n in range(1, 70)]
    aws = Aws(CostExplorer([charge(A, "Amazon S3", "global", "1", day=day) for day in days]), organisation(A))
    monkeypatch.setattr("workers.asking.open_client", aws.connect)
    return aws


def test_collect_prints_what_it_did_and_what_it_cost(deployed: Aws, tmp_path: Path) -> None:
    start = datetime.now(UTC).date() - timedelta(days=2)
    shown = CliRunner().invoke(main, ["collect", "--start", str(start)])
    assert shown.exit_code == 0, shown.output
    assert "2 days written" in shown.output
    assert "3 requests to Cost Explorer, 0.03 USD" in shown.output
    assert (tmp_path / f"costs/{start}.csv").exists()
    deployed.ce.before = refusing(A)
    again = CliRunner().invoke(main, ["collect", "--start", str(start), "--accounts", A])
    assert again.exit_code == 1
    assert f"account {A} failed: ce:GetCostAndUsage answered AccessDeniedException" in again.output


@pytest.mark.parametrize("arguments", [["collect"], ["backfill", "--months", "1"]])
@pytest.mark.parametrize("profile", [None, "nowhere"])
def test_without_credentials_it_is_one_line_and_exit_2(
    deployed: Aws, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], profile: str | None
) -> None:
    (tmp_path / "costs").mkdir()
    only_our_aws(monkeypatch)
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    if profile:
        monkeypatch.setenv("AWS_PROFILE", profile)
    shown = CliRunner().invoke(main, arguments)
    assert shown.exit_code == 2, shown.output
    assert re.fullmatch(r"spendscope: .*AWS (credentials|profile).*\n", shown.output), shown.output
    assert not (tmp_path / "collections").exists(), "nothing was begun"


def test_a_payer_that_cannot_be_asked_is_no_success(deployed: Aws, monkeypatch: pytest.MonkeyPatch) -> None:
    def none(service: str, credentials: Any) -> Any:
        raise NoCredentialsError

    monkeypatch.setattr("workers.asking.open_client", none)
    shown = CliRunner().invoke(main, ["collect"])
    assert shown.exit_code == 1
    assert "Cost Explorer could not be asked: no usable AWS credentials" in shown.output


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["collect", "--start", "soon"], "start 'soon' is not a date"),
        (["collect", "--accounts", "prod"], "account 'prod'"),
        (["collect", "--start", "2020-01-01"], "keeps 13 months"),
        (["backfill", "--months", "14"], "months 14 is not 1 to 13"),
    ],
)
def test_wrong_use_is_one_line_and_exit_2(deployed: Aws, tmp_path: Path, arguments: list[str], said: str) -> None:
    (tmp_path / "costs").mkdir()
    shown = CliRunner().invoke(main, arguments)
    assert shown.exit_code == 2, shown.output
    assert said in shown.output
    assert len(shown.output.splitlines()) == 1


@pytest.mark.parametrize("arguments", [["collect"], ["backfill", "--months", "1"]])
def test_without_a_source_there_is_nothing_to_collect_to(monkeypatch: pytest.MonkeyPatch, arguments: list[str]) -> None:
    monkeypatch.delenv("SPENDSCOPE_SOURCE", raising=False)
    shown = CliRunner().invoke(main, arguments)
    assert (shown.exit_code, "No source is set" in shown.output) == (2, True)


def test_params_are_checked_before_anything_is_recorded(world: Backends) -> None:
    with pytest.raises(InvalidInput):
        backfill_params(world, 14)
    assert world.metadata.unfinished() == []
