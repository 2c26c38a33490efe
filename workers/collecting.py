"""Collections beside the Lambda: as jobs of a worker, and from the command line."""

from __future__ import annotations

import time
from datetime import date
from decimal import Decimal
from typing import Final

from botocore.exceptions import BotoCoreError

from app.backends import Backends, utc_now
from app.collection import days_of, settled_days, unsettled
from app.config import Settings
from app.core.collection import asked, months_of
from app.core.costexplorer import accounts_from
from app.core.jobs import Job
from app.core.periods import DateRange
from app.errors import CannotStart, Refused, SpendscopeError, Unavailable
from app.ingest import Outcome, Progress
from workers import asking
from workers.asking import FAILURES, RESERVE_SECONDS, Connect, Payer, World
from workers.collector import Collector, Report, Setup, roles_of
from workers.gathering import organization_accounts

SHARE: Final = 0.8
"""Of the time a job may take, what a backfill uses before it goes on in a new turn."""


def setup_of(settings: Settings) -> Setup:
    secret = settings.collect_external_id
    return Setup(
        source=settings.source,
        roles=roles_of(settings.collect_roles),
        external_id=secret.get_secret_value() if secret else None,
        trailing_days=settings.collect_trailing_days,
        close_day=settings.collect_close_day,
        endpoint_url=settings.aws_endpoint_url,
    )


# --- from the command line ----------------------------------------------------------------------------------------


def check_credentials(_: Settings) -> None:
    """Raises CannotStart where this process has nothing to ask AWS with."""
    try:
        found = asking.has_credentials()
    except BotoCoreError as error:
        raise CannotStart(f"AWS credentials cannot be used: {str(error)[:200]}.") from None
    if not found:
        raise CannotStart(
            "No AWS credentials were found to ask Cost Explorer with. Set AWS_PROFILE, or AWS_ACCESS_KEY_ID and "
            "AWS_SECRET_ACCESS_KEY, or run it where a role gives them."
        )


def run_collect(settings: Settings, start: str | None, end: str | None, accounts: list[str]) -> Report:
    """Collect here and now. Raises InvalidInput, CannotStart, BadCredentials and Unavailable."""
    days = asked(start, end, utc_now().date(), settings.collect_trailing_days, settings.collect_close_day)
    only = frozenset(accounts_from(accounts)) or None
    check_credentials(settings)
    return Collector(setup_of(settings)).collect(days, only)


def count_accounts(settings: Settings) -> int | None:
    """How many accounts Organizations lists, which costs nothing; None when it does not say."""
    setup, world = setup_of(settings), World()
    try:
        payers = (Payer(role, setup.external_id, world) for role in setup.roles or ("",))
        return len({name for payer in payers for name in organization_accounts(payer.client("organizations"))}) or None
    except FAILURES:
        return None


# --- as jobs ------------------------------------------------------------------------------------------------------


class Turn:
    """One worker's turn at a job: its days, the time it may take, how far it is."""

    def __init__(self, backends: Backends, job: Job, progress: Progress, connect: Connect | None = None) -> None:
        self._backends, self._job, self._progress = backends, job, progress
        self._began, self.limit = time.monotonic(), backends.settings.job_timeout_seconds * SHARE
        self.days = days_of(job.params)
        self.done = self._before = 0
        reserve = min(RESERVE_SECONDS, self.limit / 10)
        world = World(clock=backends.clock, remaining=self.remaining, checkpoint=self.tell, reserve=reserve)
        self.collector = Collector(setup_of(backends.settings), world, connect=connect)

    def remaining(self) -> float:
        return self.limit - (time.monotonic() - self._began)

    def skip(self, days: int) -> None:
        """So many days were done before this turn."""
        self.done = self._before = days

    def tell(self) -> None:
        """Record progress. Raises when the job is no longer ours: nothing more is asked then."""
        self._progress(self.done, len(self.days), f"{self.done} of {len(self.days)} days{self._left()}")

    def _left(self) -> str:
        """About how long it will take at the pace so far; nothing before there is one."""
        mine = self.done - self._before
        if not mine:
            return ""
        seconds = (time.monotonic() - self._began) / mine * (len(self.days) - self.done)
        return f", about {minutes(seconds)} left" if seconds >= 1 else ""

    def day_done(self, _: date) -> None:
        self.done = min(self.done + 1, len(self.days))
        self.tell()


def minutes(seconds: float) -> str:
    return f"{seconds / 60:.0f} min" if seconds >= 90 else f"{seconds:.0f} s"


def collect(backends: Backends, job: Job, progress: Progress, connect: Connect | None = None) -> Outcome:
    """A `collect` job: its days, of its accounts."""
    turn = Turn(backends, job, progress, connect)
    accounts = frozenset(job.params.get("accounts") or ()) or None
    return outcome([turn.collector.collect(turn.days, accounts, turn.day_done)])


def backfill(backends: Backends, job: Job, progress: Progress, connect: Connect | None = None) -> Outcome:
    """A `backfill` job: month by month, newest first; days that are final, or that this job collected, are not asked again.

    Raises Unavailable when its time is used up: the job waits, and goes on where it was.
    """
    turn = Turn(backends, job, progress, connect)
    settled = settled_days(backends, turn.days, since=job.created)
    turn.skip(len(settled))
    reports = []
    for month in months_of(turn.days):
        left = unsettled(month, settled)
        if left is not None:
            _check_time(turn)
            reports.append(_month(turn, left, settled))
            if reports[-1].ran_out:
                raise _interrupted(turn, first=len(reports) == 1)
            if not reports[-1].covered:
                break  # what keeps a whole month from being collected keeps the older ones too
    return (
        outcome(reports) if reports else Outcome("done-noop", "Every day of it was collected before.", {"requests": 0})
    )


def _month(turn: Turn, days: DateRange, settled: frozenset[date]) -> Report:
    def day_done(day: date) -> None:
        if day not in settled:
            turn.day_done(day)

    return turn.collector.collect(days, None, day_done)


def _check_time(turn: Turn) -> None:
    """Begin no month that is not likely to be ended."""
    if turn.remaining() < turn.limit / 2:
        raise _interrupted(turn, first=False)


def _interrupted(turn: Turn, *, first: bool) -> SpendscopeError:
    """A month that does not fit into a whole turn would be asked, and paid, for ever."""
    if first:
        return Refused(
            f"One month takes longer than {turn.limit:.0f} s. Raise SPENDSCOPE_JOB_TIMEOUT_SECONDS, and submit it again: "
            "what was collected is kept."
        )
    return Unavailable("collector", f"{turn.done} of {len(turn.days)} days; it goes on in a moment.", retry_after=1)


def outcome(reports: list[Report]) -> Outcome:
    """What the reports say together."""
    failed = {account: why for report in reports for account, why in report.failed.items()}
    unreached = {payer: why for report in reports for payer, why in report.unreached.items()}
    left = {str(day): why for report in reports for day, why in report.left.items()}
    written, requests = sum(len(each.written) for each in reports), sum(each.requests for each in reports)
    cost = sum((each.cost for each in reports), Decimal(0))
    told = [f"{written} days written, {sum(each.unchanged for each in reports)} unchanged"]
    told += [f"{len(failed)} accounts failed, first {min(failed)}: {failed[min(failed)]}"] if failed else []
    told += [f"{payer} could not be asked: {why}" for payer, why in unreached.items()]
    told += [f"{len(left)} days left as they were, first {min(left)}: {left[min(left)]}"] if left else []
    told += [f"{requests} requests to Cost Explorer, {cost} USD"]
    result = {
        "written": written,
        "requests": requests,
        "cost_usd": str(cost),
        "failed": failed | unreached,
        "left": left,
    }
    covered = any(each.covered for each in reports)
    return Outcome("done" if covered else "failed", "; ".join(told)[:1000] + ".", result)
