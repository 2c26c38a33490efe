"""A cost file's way in: source → spool → parsed day → ledger mark → cost store → read back → ledger flip.

Any step may be killed: until the flip readers have the old day, and the same job run again ends in the same state.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import date, datetime, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Final

from app.backends import Backends
from app.core.charges import METRICS, Totals
from app.core.jobs import Job, JobStatus
from app.core.ledger import TAKEN, Arrival, DayRecord, Decision, Ingestion, begin, decide, touched
from app.core.periods import DAY, EARLIEST, LATEST
from app.errors import Conflict, InvalidInput, NotFound, Quarantined, Reason, Refused, Unavailable
from app.jobs import submit
from app.ports import SourceObject, StoredDay
from app.restatements import keep_history

if TYPE_CHECKING:
    from app.core.dailycsv import ParsedDay

log = logging.getLogger(__name__)

Progress = Callable[[int, "int | None", str], None]
"""Steps done, steps in all, what is being done. Raises when the job is no longer ours: nothing may be written then."""

LISTED: Final = "source listed"
ANNOUNCED: Final = "object announced"
UNREADABLE: Final = "announcement unreadable"
"""Names under which the schedule keeps when it last happened (`mark`)."""

REPLACED: Final = frozenset({"superseded"})
RETRIED: Final = REPLACED | {"quarantined"}
"""Statuses of a version that is looked at again when it is listed, and when it is named."""

STEPS: Final = 4
AGREES: Final = Decimal("1e-6")
"""How closely a store of floats must read back each account's day, relative to its size from 1 up."""


@dataclass(frozen=True)
class Outcome:
    """How a job ended: one of the final statuses, a sentence, and what it found."""

    status: JobStatus
    message: str
    result: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Watched:
    """What a look at the source found: jobs for what is new, and how many objects were known or not ours."""

    jobs: tuple[Job, ...]
    known: int
    ignored: int


def watch(backends: Backends, keys: Iterable[str] | None = None, *, again: bool = False) -> Watched:
    """List the source and submit an ingest job for every object version that is not in the ledger, newest day first.

    `keys` limits it to these objects; one that is not in the source raises NotFound. A version that was quarantined
    is known, not new, unless it is named: what stood in its way may be gone (retention, a limit). One that another
    version took the place of, taken or refused, and that is there again is new again (an ETag comes back with its bytes).
    With `again` all of them are read once more, known or not: what a cost store has lost comes back that way.
    """
    if again:
        objects = list(backends.source.list()) if keys is None else _named(backends, keys)
        days = [(day, found) for found in objects if (day := day_of(found.key)) is not None]
        days.sort(key=lambda pair: pair[0], reverse=True)
        jobs = tuple(submit_object(backends, day, found, again=True) for day, found in days)
        return Watched(jobs, 0, len(objects) - len(days))
    if keys is not None:
        return _submitted(backends, _named(backends, keys), again=RETRIED)
    listed = list(backends.source.list())
    watched = _submitted(backends, listed)
    _let_go(backends, frozenset(found.key for found in listed))
    mark(backends, LISTED)
    return watched


def look_at(backends: Backends, keys: Iterable[str]) -> Watched:
    """What `watch` does, for objects that something was said about; one that is not (or no longer) there is nothing."""
    days = (key for key in dict.fromkeys(keys) if day_of(key) is not None)
    found = [there for key in days if (there := backends.source.find(key)) is not None]
    return _submitted(backends, found)


def _let_go(backends: Backends, present: frozenset[str]) -> None:
    """A refused file that somebody took out of the source holds its day no longer; why it was refused stays on record.

    One that arrived after the listing and was refused already is looked at once more by the next.
    """
    root = backends.source.root
    for day in backends.metadata.quarantined_days(EARLIEST, LATEST, root):
        for key in {f"{day}.csv", f"{day}.csv.gz"} - present:
            for newest in backends.metadata.versions_of(root, key)[:1]:
                if newest.status == "quarantined":
                    backends.metadata.put_ingestion(replace(newest, status="superseded"))
                    _move_version(backends, day)


def _move_version(backends: Backends, day: date) -> None:
    """A quarantine that begins or ends changes no figure, yet everybody who keeps answers must notice it.

    Where this is not the next revision, another job has moved the version, or will when it is done.
    """
    record = backends.metadata.day_record(day)
    if not record.restating:
        backends.metadata.put_day_record(touched(record))


def mark(backends: Backends, name: str) -> None:
    """Keep when this last happened, to the second; `metadata.last_slot` tells."""
    backends.metadata.take_slot(name, backends.clock().replace(microsecond=0))


def _named(backends: Backends, keys: Iterable[str]) -> list[SourceObject]:
    named = []
    for key in sorted(set(keys)):
        found = backends.source.find(key)
        if found is None:
            raise NotFound(f"{key[:200]!r} is not in {backends.source.root}. `spendscope ingest` lists what is.")
        named.append(found)
    return named


def _submitted(backends: Backends, objects: Iterable[SourceObject], again: frozenset[str] = REPLACED) -> Watched:
    new: list[tuple[date, SourceObject]] = []
    seen = ignored = 0
    # Listed first: what a worker finishes meanwhile is known then.
    listed = list(objects)
    known = backends.metadata.known_versions(backends.source.root)
    refused = backends.metadata.quarantined_days(EARLIEST, LATEST, backends.source.root)
    for found in listed:
        day = day_of(found.key)
        if day is None:
            ignored += 1
        elif known.get((found.key, found.version), "superseded") not in again and not (
            day in refused and _is_back(backends, found)
        ):
            seen += 1
        else:
            new.append((day, found))
    new.sort(key=lambda pair: pair[0], reverse=True)
    return Watched(tuple(submit_object(backends, day, found) for day, found in new), seen, ignored)


def _is_back(backends: Backends, found: SourceObject) -> bool:
    """Whether this version is there again in place of a newer one."""
    newest = backends.metadata.versions_of(backends.source.root, found.key)[:1]
    return any(one.version != found.version for one in newest)


def day_of(key: str) -> date | None:
    """The day a file name stands for; None for a name that is not `YYYY-MM-DD.csv[.gz]`."""
    name = key.removesuffix(".gz")
    if len(name) != 14 or not name.endswith(".csv"):
        return None
    try:
        day = date.fromisoformat(name[:10])
    except ValueError:
        return None
    # Python also reads `2024-W01-1`: two names for one day.
    return day if name[:10] == str(day) else None


def submit_object(backends: Backends, day: date, found: SourceObject, *, again: bool = False) -> Job:
    """Submit the ingest of one object version; the same version is the same job while it is not done."""
    root = backends.source.root
    params = {
        "source": root,
        "key": found.key,
        "version": found.version,
        "size": found.size,
        "modified": found.modified.isoformat(),
    }
    if again:
        params["again"] = True
    key = hashlib.sha256("\0".join((root, found.key, found.version)).encode()).hexdigest()
    return submit(backends, "ingest", params, key=key, priority=day.toordinal())


def stored_file(backends: Backends, ingestion: Ingestion) -> SourceObject:
    """The object version that an ingestion was made from, as the source lists it now.

    Raises Conflict when the source does not hold that version any more, Refused when it is larger than this
    deployment handles.
    """
    if ingestion.source != backends.source.root:
        raise Conflict(
            f"{ingestion.key} came from {ingestion.source}, but this deployment reads {backends.source.root} now."
        )
    found = backends.source.find(ingestion.key)
    if found is None or found.version != ingestion.version:
        became = "was removed from the source" if found is None else "was replaced in the source by a newer version"
        raise Conflict(f"{ingestion.key} {became} since it was looked at. This version cannot be downloaded any more.")
    if found.size > backends.settings.max_file_bytes:
        raise Refused(
            f"{found.key} has {found.size:,} bytes, more than the {backends.settings.max_file_bytes:,} handled here. "
            f"Get it from {ingestion.source} directly."
        )
    return found


def ingest_object(
    backends: Backends, params: Mapping[str, Any], progress: Progress, *, job_id: str = "direct"
) -> Outcome:
    """Take one object version whole, or quarantine it whole. Raises Unavailable when a part does not answer."""
    found = _object_of(backends, params)
    day = day_of(found.key)
    if day is None:
        raise InvalidInput(f"{found.key[:80]!r} is not a daily cost file. Name it YYYY-MM-DD.csv or YYYY-MM-DD.csv.gz.")
    taking = _Taking(backends, found, day, progress, job_id, backends.clock(), bool(params.get("again")))
    try:
        return taking.run()
    except Quarantined as error:
        return taking.quarantine(error.reason)


def _object_of(backends: Backends, params: Mapping[str, Any]) -> SourceObject:
    if params.get("source") not in (None, backends.source.root):
        raise InvalidInput(f"The job is for {params['source']}, but this deployment reads {backends.source.root}.")
    if "version" in params:
        modified = datetime.fromisoformat(params["modified"])
        return SourceObject(params["key"], params["version"], int(params["size"]), modified)
    found = backends.source.find(str(params["key"]))
    if found is None:
        raise NotFound(f"{str(params['key'])[:80]!r} is not in {backends.source.root}.")
    return found


@dataclass
class _Taking:
    """One run over one object version."""

    backends: Backends
    found: SourceObject
    day: date
    progress: Progress
    job_id: str
    started: datetime
    again: bool
    sha256: str | None = None
    size: int = 0
    is_unfinished: bool = False
    """Whether a run before this one marked the day and did not come to its flip."""

    @property
    def owner(self) -> str:
        return self.backends.source.root + self.found.key

    def run(self) -> Outcome:
        from app.spool import spool

        settings = self.backends.settings
        self.progress(0, STEPS, f"Reading {self.found.key}")
        try:
            with (
                self.backends.source.open(self.found) as stream,
                spool(stream, self.found.key, settings.max_file_bytes) as spooled,
            ):
                self.sha256, self.size = spooled.sha256, spooled.size
                covered, failed = self._coverage()
                if not self.again and self._is_known(failed) and (kept := self._kept()):
                    keep_history(self.backends, self.backends.metadata.day_record(self.day))
                    return self._noop(kept)
                self._check_retention()
                self.progress(1, STEPS, f"Checking {self.found.key}")
                parsed = self._parse(spooled)
        except Conflict:
            self._hand_over()
            return Outcome(
                "superseded", f"{self.found.key} was replaced while it was read; the new version is taken instead."
            )
        return self._take(parsed, covered, failed)

    def _parse(self, spooled: Any) -> ParsedDay:
        from app.core.dailycsv import Limits, parse

        settings = self.backends.settings
        return parse(
            spooled.path,
            day=self.day,
            currency=settings.currency,
            today=self.backends.today(),
            limits=Limits(bytes=settings.max_file_bytes, rows=settings.max_file_rows, series=settings.max_series),
        )

    def _coverage(self) -> tuple[frozenset[str] | None, frozenset[str]]:
        """Accounts the file speaks for (None: all) and accounts whose collection failed."""
        from app.core.dailycsv import sidecar

        data = self.backends.source.sidecar(self.day)
        spoken = sidecar(data, self.sha256 or "") if data is not None else None
        return spoken if spoken is not None else (None, frozenset())

    def _is_known(self, failed: frozenset[str]) -> bool:
        record = self.backends.metadata.day_record(self.day)
        same = record.sources.get(self.owner) == self.sha256
        return same and not record.restating and frozenset(record.failed_accounts) == failed

    def _check_retention(self) -> None:
        oldest = self.backends.costs.oldest(self.backends.today())
        if oldest is not None and self.day < oldest:
            days = self.backends.settings.retention
            raise Quarantined(
                Reason(
                    "retention",
                    f"{self.day} is older than the {days} days the cost store keeps (since {oldest}). "
                    "Raise SPENDSCOPE_RETENTION_DAYS (0 keeps everything) and ingest it again.",
                )
            )

    def _kept(self) -> Ingestion | None:
        """The newest record of these bytes having been taken; none when a run died between flip and record."""
        versions = self.backends.metadata.versions_of(self.backends.source.root, self.found.key)
        taken = (one for one in versions if one.sha256 == self.sha256 and one.status in TAKEN)
        return next(taken, None)

    def _noop(self, kept: Ingestion) -> Outcome:
        # A version that is looked at twice keeps its record, with what it was taken for.
        if kept.version != self.found.version:
            self._record(status="noop", notice="The same bytes are already ingested.")
        elif _is_back(self.backends, self.found):
            self._put(replace(kept, started=self.started, finished=self.backends.clock()))
        return Outcome("done-noop", f"{self.found.key}: these bytes are already ingested.", {"status": "noop"})

    def _take(self, parsed: ParsedDay, covered: frozenset[str] | None, failed: frozenset[str]) -> Outcome:
        before = self._begin()
        decision = decide(
            before,
            Arrival(
                owner=self.owner,
                sha256=self.sha256 or "",
                accounts=parsed.accounts,
                estimated=parsed.estimated,
                covered=covered,
                failed=failed,
                at=self.backends.clock(),
            ),
        )
        self.progress(2, STEPS, f"Writing {self.day}")
        charges = _of_accounts(parsed, decision.taken)
        replaced = decision.replaced | self._strays(decision)
        try:
            stored = self.backends.costs.replace(self.day, replaced, charges)
        except Quarantined:
            self._give_up(before)
            raise
        except Refused as error:
            self._give_up(before)
            raise Quarantined(Reason(error.code, error.message)) from error
        self._verify(stored, replaced, decision, parsed)
        self.progress(3, STEPS, f"Publishing {self.day}")
        record = self._flipped(stored, replaced, decision.record)
        if not self.backends.metadata.put_day_record(record):
            raise Unavailable("metadata", f"The ledger of {self.day} was changed by another job; this one runs again.")
        self.backends.costs.publish(self.day)
        keep_history(self.backends, record)
        return self._ingested(before, decision, parsed)

    def _begin(self) -> DayRecord:
        """Mark the day as ours to write. Raises Unavailable while another job holds it."""
        metadata, now = self.backends.metadata, self.backends.clock()
        until = now + timedelta(seconds=self.backends.settings.job_timeout_seconds + 30)
        record = metadata.day_record(self.day)
        self.is_unfinished = record.restating
        # Whoever flipped it last may have been killed before its history was kept.
        keep_history(self.backends, record)
        marked = begin(record, self.job_id, now, until)
        if marked is None or not metadata.put_day_record(marked):
            raise Unavailable("metadata", f"{self.day} is being written by another job; this one waits.", retry_after=2)
        return marked

    def _give_up(self, marked: DayRecord) -> None:
        """Lift the mark: the store wrote nothing, and nothing will be."""
        lifted = replace(
            marked, revision=marked.revision + 1, restating=False, restating_job=None, restating_until=None
        )
        self.backends.metadata.put_day_record(lifted)

    def _strays(self, decision: Decision) -> frozenset[str]:
        """Accounts of which the store has charges and the ledger will know none.

        A run that was killed between its write and its flip left them, and no newer version of its file has them: nobody
        releases what the ledger never had. So whoever takes such a day takes them away.
        """
        if not (self.is_unfinished or self.again):
            return frozenset()
        known = {name for name, part in decision.record.accounts.items() if part.current.rows}
        return frozenset(stored_totals(self.backends, self.day)) - known - decision.replaced

    def _flipped(self, stored: StoredDay, replaced: frozenset[str], record: DayRecord) -> DayRecord:
        """The day afterwards: still marked, free to be taken, where a run that was killed has left another account wrong.

        Only that account's file can mend it, and takes even bytes that are known while the day is marked.
        """
        exact = self.backends.costs.exact
        others = (name for name in record.accounts.keys() - replaced if self.is_unfinished)
        if all(
            difference(stored.accounts.get(name), record.accounts[name].current, exact=exact) is None for name in others
        ):
            return record
        return replace(record, restating=True, restating_job=self.job_id, restating_until=self.backends.clock())

    def _hand_over(self) -> None:
        """A run that was killed after its write, and whose version is gone now, leaves its day to what is there."""
        record = self.backends.metadata.day_record(self.day)
        if record.restating and record.restating_job == self.job_id:
            for key in (f"{self.day}.csv", f"{self.day}.csv.gz"):
                if (found := self.backends.source.find(key)) is not None:
                    submit_object(self.backends, self.day, found, again=True)

    def _verify(self, stored: StoredDay, replaced: frozenset[str], decision: Decision, parsed: ParsedDay) -> None:
        """What the store reads back must be what the file says (I1); nothing is shown as new before."""
        for account in sorted(replaced):
            expected = parsed.accounts.get(account) if account in decision.taken else None
            wrong = difference(stored.accounts.get(account), expected, exact=self.backends.costs.exact)
            if wrong:
                raise Unavailable(
                    "costs", f"The cost store reads back {self.day}, account {account!r} differently: {wrong}."
                )

    def _ingested(self, before: DayRecord, decision: Decision, parsed: ParsedDay) -> Outcome:
        notice = _notice(before, decision, parsed)
        held = tuple(sorted(decision.held))
        # Before this one is recorded: a run that dies between the two is done again, and no older version stays known.
        self._supersede_older()
        if held and not decision.replaced:
            owners = sorted({before.accounts[name].owner or "" for name in held})
            reason = Reason(
                "held",
                f"All account-days of this file belong to {', '.join(owners)[:300]}. It is kept for reconciliation and "
                "not added; remove one of the two files to make clear which one counts.",
            )
            self._record(status="waiting", parsed=parsed, held=held, reason=reason)
            return Outcome("done", f"{self.found.key} is held: {reason.message}", {"status": "waiting"})
        revision = decision.record.revision
        self._record(status="ingested", parsed=parsed, held=held, notice=notice, revision=revision)
        rows = parsed.totals.rows
        result = {"status": "ingested", "rows": rows, "day": str(self.day), "notice": notice}
        return Outcome("done", f"{self.found.key}: {rows} rows taken.", result)

    def quarantine(self, reason: Reason) -> Outcome:
        self._record(status="quarantined", reason=reason)
        place = f" (line {reason.line})" if reason.line else ""
        return Outcome(
            "quarantined",
            f"{self.found.key}{place}: {reason.message}",
            {"status": "quarantined", "reason": reason.code},
        )

    def _record(
        self,
        *,
        status: Any,
        parsed: ParsedDay | None = None,
        held: tuple[str, ...] = (),
        notice: str | None = None,
        reason: Reason | None = None,
        revision: int | None = None,
    ) -> None:
        from app.core.dailycsv import PARSER

        self._put(
            Ingestion(
                id=self.ingestion_id(),
                source=self.backends.source.root,
                key=self.found.key,
                version=self.found.version,
                day=self.day,
                status=status,
                started=self.started,
                finished=self.backends.clock(),
                sha256=self.sha256,
                parser=PARSER,
                size=self.size or self.found.size,
                rows=parsed.totals.rows if parsed else 0,
                totals=parsed.totals if parsed else None,
                accounts=parsed.accounts if parsed else {},
                held=held,
                notice=notice,
                reason=reason,
                revision=revision,
                job_id=None if self.job_id == "direct" else self.job_id,
            )
        )

    def _put(self, ingestion: Ingestion) -> None:
        was_quarantined = self._is_quarantined()
        self.backends.metadata.put_ingestion(ingestion)
        if was_quarantined or ingestion.status == "quarantined":
            _move_version(self.backends, self.day)

    def _is_quarantined(self) -> bool:
        root = self.backends.source.root
        return bool(self.backends.metadata.quarantined_days(self.day, self.day + DAY, root))

    def ingestion_id(self) -> str:
        """The same object version always has the same id: a run that is repeated replaces its own record."""
        name = "\0".join((self.backends.source.root, self.found.key, self.found.version))
        return hashlib.sha256(name.encode()).hexdigest()[:24]

    def _supersede_older(self) -> None:
        for older in self.backends.metadata.versions_of(self.backends.source.root, self.found.key):
            if older.id != self.ingestion_id() and older.status in ("ingested", "noop", "waiting"):
                self.backends.metadata.put_ingestion(replace(older, status="superseded"))


def _of_accounts(parsed: ParsedDay, accounts: frozenset[str]) -> Any:
    if accounts >= set(parsed.accounts):
        return parsed.table
    import pyarrow as pa
    import pyarrow.compute as pc

    column = parsed.table["account"].cast(pa.string())
    return parsed.table.filter(pc.is_in(column, value_set=pa.array(sorted(accounts), pa.string())))


def stored_totals(backends: Backends, day: date) -> Mapping[str, Totals]:
    """What the cost store has of each account on a day. Raises Unavailable."""
    if backends.costs.atomic:
        stored = backends.costs.stored_days().get(day)
        return stored.accounts if stored else {}
    from app.core.columns import account_totals, columns_of

    return account_totals(columns_of(day, backends.costs.day(day)))


def difference(stored: Totals | None, expected: Totals | None, *, exact: bool) -> str | None:
    """Which metric differs and how, None when they agree. Nothing stored equals all zero."""
    for metric in METRICS:
        want = expected.of(metric) if expected else Decimal(0)
        have = stored.of(metric) if stored else Decimal(0)
        if want is None or have is None:
            if want is not have and expected is not None and expected.rows:
                return f"{metric} is {have}, not {want}"
            continue
        if have != want and (exact or abs(have - want) > AGREES * max(abs(want), Decimal(1))):
            return f"{metric} is {have}, not {want}"
    return None


def _notice(before: DayRecord, decision: Decision, parsed: ParsedDay) -> str | None:
    if not parsed.totals.rows and any(part.current.rows for part in before.accounts.values()):
        return f"The file has no rows, but {parsed.day} had cost before: it is now zero."
    if decision.held:
        return f"{len(decision.held)} accounts belong to another file and were not added: {', '.join(sorted(decision.held))[:200]}"
    return None
