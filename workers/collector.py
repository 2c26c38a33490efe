"""The collector: Cost Explorer's charges as daily files. Runs as AWS Lambda, as `spendscope collect` and as a job.

Only the standard library, boto3 and modules of app that need no more. Reads with the credentials it has, or with one
role after the other; writes with the credentials it has. docs/collector.md says what it asks, costs and leaves.
"""

from __future__ import annotations

import json
import logging
import os
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from decimal import Decimal
from functools import partial
from typing import Any, Final

from app.core import costexplorer as ce
from app.core.collection import CLOSE_DAY, PRICE, TRAILING_DAYS, asked, chunks, is_final
from app.core.exact import text
from app.core.periods import DateRange, month_of
from app.errors import CannotStart, Conflict, Refused, SpendscopeError, Unavailable
from workers.asking import FAILURES, NOT_REACHED, Connect, Meter, Payer, World, told
from workers.gathering import NOT_LISTED, Account, Gathered, Gathering, merged
from workers.targets import Kept, Target, coverage_name, day_name, open_target

log = logging.getLogger(__name__)

WRITE_TRIES: Final = 12
"""How often a file is read again because another run was faster."""

ACCOUNTS: Final = "accounts.json"


@dataclass(frozen=True)
class Setup:
    """What a deployment decides: where the files go, whose costs they are, how far back each run reaches."""

    source: str
    roles: tuple[str, ...] = ()
    external_id: str | None = None
    trailing_days: int = TRAILING_DAYS
    close_day: int = CLOSE_DAY
    endpoint_url: str | None = None


# --- a run --------------------------------------------------------------------------------------------------------


@dataclass
class Report:
    """What a run did: `left` are days whose files stayed as they were although they should not, and why; `unreached`
    are payers that could not be asked at all."""

    days: DateRange
    started: datetime
    requests: int = 0
    finished: datetime | None = None
    loops: list[str] = field(default_factory=list)
    covered: set[str] = field(default_factory=set)
    failed: dict[str, str] = field(default_factory=dict)
    written: list[date] = field(default_factory=list)
    unchanged: int = 0
    left: dict[date, str] = field(default_factory=dict)
    unreached: dict[str, str] = field(default_factory=dict)
    notices: list[str] = field(default_factory=list)

    @property
    def complete(self) -> bool:
        return not self.failed and not self.left and not self.unreached

    @property
    def ran_out(self) -> bool:
        """Whether accounts failed only because the time was up."""
        return NOT_REACHED in self.failed.values()

    @property
    def cost(self) -> Decimal:
        return self.requests * PRICE

    def said(self) -> dict[str, Any]:
        return {
            "start": str(self.days.start),
            "end": str(self.days.end),
            "started": ce.instant(self.started),
            "finished": ce.instant(self.finished) if self.finished else None,
            "requests": self.requests,
            "cost_usd": text(self.cost),
            "loops": self.loops,
            "covered": sorted(self.covered),
            "failed": dict(sorted(self.failed.items())),
            "written": [str(day) for day in sorted(self.written)],
            "unchanged": self.unchanged,
            "left": {str(day): why for day, why in sorted(self.left.items())},
            "unreached": self.unreached,
            "notices": list(dict.fromkeys(self.notices)),
        }

    def lines(self) -> list[str]:
        """For people."""
        said = [
            f"{self.days.start} to {self.days.last}: {len(self.written)} days written, {self.unchanged} unchanged; "
            f"{len(self.covered)} accounts collected, {len(self.failed)} failed"
        ]
        said += [
            f"account {account} failed: {why}; its rows stay as they were"
            for account, why in sorted(self.failed.items())
        ]
        said += [f"{payer} could not be asked: {why}" for payer, why in self.unreached.items()]
        said += [f"{day} left as it was: {why}" for day, why in sorted(self.left.items())]
        said += [f"note: {notice}" for notice in dict.fromkeys(self.notices)]
        return [*said, f"{self.requests} requests to Cost Explorer, {self.cost} USD"]


DayDone = Callable[[date], None]
"""Called after each day that is dealt with."""


class Collector:
    """Asks every payer and writes what they say. One instance a run."""

    def __init__(
        self, setup: Setup, world: World | None = None, *, target: Target | None = None, connect: Connect | None = None
    ) -> None:
        """Raises CannotStart for a source or settings nothing can be made of."""
        self._setup, self._world = setup, world or World()
        self._target = target or open_target(setup.source, setup.endpoint_url)
        self._payers = [Payer(role, setup.external_id, self._world, connect) for role in setup.roles or ("",)]

    def collect(self, days: DateRange, only: frozenset[str] | None = None, done: DayDone = lambda _: None) -> Report:
        """Collect and write these days. Raises BadCredentials and Unavailable when the target cannot be written.

        Nothing was asked then: the record that is written first says whether it can be.
        """
        record = _Record(self._target, report := Report(days, self._world.clock()))
        record.write()
        try:
            for chunk in chunks(days):
                self._collect_chunk(chunk, only, report, done)
        finally:
            report.finished = self._world.clock()
            record.write()
        return report

    def _collect_chunk(self, days: DateRange, only: frozenset[str] | None, report: Report, done: DayDone) -> None:
        at, meter = self._world.clock(), Meter()
        try:
            found = self._gathered(days, only, meter, report)
        finally:
            report.requests += meter.requests
        report.covered |= set(found.mentioned)
        report.failed |= found.failed
        report.notices += found.notices
        report.loops.append(found.loop)
        if found.mentioned:
            self._write_days(days, only, found, at, report, done)
            self._write_reference(days, only, found, at)
            self._update(ACCOUNTS, partial(_with_accounts, found.accounts))

    def _gathered(self, days: DateRange, only: frozenset[str] | None, meter: Meter, report: Report) -> Gathered:
        parts = []
        for payer in self._payers:
            try:
                parts.append(Gathering(payer, days, only, self._world, meter).gather())
            except FAILURES as error:
                parts.append(self._unreached(payer, only, error))
                report.unreached[payer.role or "Cost Explorer"] = told(error)
        return merged(parts)

    def _unreached(self, payer: Payer, only: frozenset[str] | None, error: Exception) -> Gathered:
        """A payer that cannot be asked: the accounts it was last known to pay for have failed."""
        kept = self._target.read(ACCOUNTS)
        known = _json(kept.data if kept else None)
        theirs = {
            name for name, each in known.items() if isinstance(each, dict) and each.get("payer", "") == payer.role
        }
        wanted = theirs if only is None else theirs & only
        return Gathered(failed=dict.fromkeys(wanted, told(error)))

    # the daily files

    def _write_days(
        self, days: DateRange, only: frozenset[str] | None, found: Gathered, at: datetime, report: Report, done: DayDone
    ) -> None:
        spoken = frozenset[date]().union(*found.mentioned.values())
        for day in reversed(list(days)):
            self._world.checkpoint()
            if day not in spoken:
                report.left[day] = "Cost Explorer's replies do not speak of it"
            else:
                self._write_day(day, _day_found(day, found, only, at), report)
            done(day)

    def _write_day(self, day: date, found: ce.Found, report: Report) -> None:
        try:
            file, changed = self._put_day(day, found)
        except Refused as error:
            report.left[day] = error.message
            return
        if changed:
            report.written.append(day)
        else:
            report.unchanged += 1
        for account in file.coverage.failed - found.failed:
            if found.only is None or account in found.only:
                report.failed.setdefault(account, NOT_LISTED)

    def _put_day(self, day: date, found: ce.Found) -> tuple[ce.DayFile, bool]:
        """Coverage first, then the file, each only over what was read; when somebody else was faster, from there again.

        Killed in between, the coverage is about bytes that are not there, and so about nothing.
        """
        for _ in range(WRITE_TRIES):
            kept, beside = self._target.read(day_name(self._target, day)), self._target.read(coverage_name(day))
            existing = ce.existing_file(day, kept.data, beside.data if beside else None) if kept else None
            file = ce.compose(day, found, existing)
            try:
                return file, self._put(day, file, kept, beside, existing)
            except Conflict as error:
                log.info("%s Reading it again.", error.message)
                self._world.sleep(random.uniform(0, 0.5))  # noqa: S311
        raise Unavailable("source", f"{day} is written by others all the time; collect it again later.")

    def _put(
        self, day: date, file: ce.DayFile, kept: Kept | None, beside: Kept | None, existing: ce.Existing | None
    ) -> bool:
        """Whether the day's file changed. Raises Conflict, also when the two no longer belong together afterwards."""
        said = existing.coverage if existing else None
        same = kept is not None and kept.data == file.data
        if same and self._same(day, file.coverage, said):
            return False
        name, beside_name = day_name(self._target, day), coverage_name(day)
        coverage = self._target.write(beside_name, file.sidecar, beside.version if beside else None)
        version = kept.version if kept else None
        if not same:
            version = self._target.write(name, file.data, version)
        for each, ours in ((beside_name, coverage), (name, version)):
            now = self._target.read(each)
            if now is not None and now.version != ours:
                raise Conflict(f"{each} was replaced meanwhile.")
        return not same

    def _same(self, day: date, new: ce.Coverage, old: ce.Coverage | None) -> bool:
        """Whether the coverage that is there says what the new one would."""
        if old is None or (old.covered, old.failed) != (new.covered, new.failed):
            return False
        final = [at is not None and is_final(day, at, self._setup.close_day) for at in (old.collected, new.collected)]
        return final[0] or not final[1]

    # beside them

    def _write_reference(self, days: DateRange, only: frozenset[str] | None, found: Gathered, at: datetime) -> None:
        """The totals to reconcile with, of the days just collected; accounts that were not reached keep theirs."""
        unreached = set(found.failed) - {account for _, account, _ in found.reference}
        spoken = frozenset(found.accounts) - unreached if unreached else None
        for month in days.months():
            mine = frozenset(day for day in found.reference_days if month_of(day) == month)
            if mine:
                change = partial(_with_reference, month, mine, found.reference, only or spoken, at)
                self._update(f"reference/{month:%Y-%m}.json", change)

    def _update(self, name: str, change: Callable[[bytes | None], bytes | None]) -> None:
        """Write what the change makes of the file that is there; None leaves it."""
        for _ in range(WRITE_TRIES):
            kept = self._target.read(name)
            data = change(kept.data if kept else None)
            if data is None:
                return
            try:
                self._target.write(name, data, kept.version if kept else None)
                return
            except Conflict:
                self._world.sleep(random.uniform(0, 0.5))  # noqa: S311
        raise Unavailable("source", f"{name} is written by others all the time; collect again later.")


def _with_reference(
    month: date,
    days: frozenset[date],
    found: ce.Reference,
    spoken: frozenset[str] | None,
    at: datetime,
    before: bytes | None,
) -> bytes | None:
    return ce.reference_file(month, days, found, spoken, before, at)


def _with_accounts(found: Mapping[str, Account], before: bytes | None) -> bytes | None:
    """The accounts known so far and these; what is not known now stays as it was. None when that changes nothing."""
    old = _json(before)
    new = dict(old)
    for account, known in found.items():
        past = old.get(account)
        new[account] = {"name": "", "state": ""} | (past if isinstance(past, dict) else {}) | known.said()
    return None if new == old else _pretty(dict(sorted(new.items())))


def _day_found(day: date, found: Gathered, only: frozenset[str] | None, at: datetime) -> ce.Found:
    return ce.Found(
        rows=found.rows.get(day, {}),
        covered=frozenset(found.mentioned),
        failed=frozenset(found.failed),
        silent=frozenset(account for account, days in found.mentioned.items() if day not in days),
        only=only,
        at=at,
    )


def _json(data: bytes | None) -> dict[str, Any]:
    try:
        found = json.loads(data or b"{}")
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _pretty(value: Any) -> bytes:
    return json.dumps(value, indent=1, ensure_ascii=False).encode() + b"\n"


class _Record:
    """`collections/<UTC time>.json`: written before anything is asked (so it can be), and when the run ends."""

    def __init__(self, target: Target, report: Report) -> None:
        self._target, self._report = target, report
        self._name = ""
        self._version: str | None = None

    def write(self) -> None:
        data = _pretty(self._report.said())
        if self._version is not None:
            self._version = self._target.write(self._name, data, self._version)
            return
        stamp = self._report.started.astimezone(UTC).strftime("%Y%m%dT%H%M%SZ")
        for number in range(WRITE_TRIES):
            self._name = f"collections/{stamp}{f'-{number}' if number else ''}.json"
            try:
                self._version = self._target.write(self._name, data, None)
                return
            except Conflict:
                continue
        raise Unavailable("source", f"{WRITE_TRIES} collections began in the same second.")


# --- ways to run it -----------------------------------------------------------------------------------------------


def setup_from(environment: Mapping[str, str]) -> Setup:
    """The collector's settings from the variables of docs/settings.md. Raises CannotStart."""
    try:
        return Setup(
            source=environment.get("SPENDSCOPE_SOURCE", ""),
            roles=roles_of(environment.get("SPENDSCOPE_COLLECT_ROLES", "")),
            external_id=environment.get("SPENDSCOPE_COLLECT_EXTERNAL_ID") or None,
            trailing_days=int(environment.get("SPENDSCOPE_COLLECT_TRAILING_DAYS") or TRAILING_DAYS),
            close_day=int(environment.get("SPENDSCOPE_COLLECT_CLOSE_DAY") or CLOSE_DAY),
        )
    except ValueError as error:
        raise CannotStart(f"SPENDSCOPE_COLLECT_TRAILING_DAYS and …_CLOSE_DAY are numbers of days: {error}.") from None


def roles_of(text: str) -> tuple[str, ...]:
    return tuple(role for role in (part.strip() for part in text.split(",")) if role)


def handler(event: Mapping[str, Any] | None, context: Any) -> dict[str, Any]:
    """AWS Lambda. `start`, `end` and `accounts` of the event are optional. Raises when nothing could be collected."""
    logging.getLogger().setLevel(logging.INFO)
    event = event or {}
    setup = setup_from(os.environ)
    world = World(remaining=lambda: context.get_remaining_time_in_millis() / 1000) if context else World()
    today = world.clock().date()
    days = asked(event.get("start"), event.get("end"), today, setup.trailing_days, setup.close_day)
    only = frozenset(ce.accounts_from(event.get("accounts") or ()))
    report = Collector(setup, world).collect(days, only or None)
    for line in report.lines():
        log.info("%s", line)
    if not report.covered:
        raise SpendscopeError(f"Nothing could be collected: {'; '.join(report.lines())[:2000]}")
    return report.said()
