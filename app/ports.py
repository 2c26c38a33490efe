"""What Spendscope needs from the world, in its own words. app.backends decides which adapter stands behind each.

Every method may raise Unavailable (the part does not answer) or BadCredentials, beside what it names.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import date, datetime
from typing import TYPE_CHECKING, Any, BinaryIO, Final, Generic, Literal, Protocol, TypeVar

from app.core.anomalyrecords import AnomalyRecord, PlannedSpend
from app.core.budgets import Budget
from app.core.charges import Totals
from app.core.grafanaalerts import GrafanaAlert
from app.core.jobs import Job, JobStatus
from app.core.ledger import DayRecord, Ingestion, Revisions
from app.core.notifications import Attempt, ChannelState, Delivery
from app.core.people import ApiToken, AuditEntry, AuditNote, Session, User
from app.core.reconciliation import KeptReference
from app.core.restatements import Notice, Revision, RevisionKey
from app.core.retention import MonthTotals
from app.core.rollup import Rollup
from app.core.rules import AlertRecord, Rule
from app.core.signon import Identity

if TYPE_CHECKING:
    from email.message import EmailMessage
    from pathlib import Path

    import pyarrow as pa


Item = TypeVar("Item")


# --- where cost files come from -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class SourceObject:
    """An object below the root. `version` changes whenever the bytes may have changed."""

    key: str
    version: str
    size: int
    modified: datetime


REFERENCE_BYTES: Final = 32 * 2**20
"""Most bytes of a month's reference: a thousand accounts with ten record types a day."""


class Source(Protocol):
    """Daily cost files below a root, `costs/YYYY-MM-DD.csv[.gz]`; coverage sidecars and references beside it."""

    root: str

    def check(self) -> None:
        """Raise Unavailable or BadCredentials when the root cannot be listed."""

    def list(self) -> Iterator[SourceObject]:
        """Every object directly below the root, in name order, page by page."""

    def find(self, key: str) -> SourceObject | None:
        """The object of this name as `list` would tell of it, None when `list` would not."""

    def open(self, found: SourceObject) -> AbstractContextManager[BinaryIO]:
        """The bytes of exactly this version, as a stream. Raises Conflict when it has changed since it was listed."""

    def sidecar(self, day: date) -> bytes | None:
        """`coverage/YYYY-MM-DD.json` beside the root, None when there is none (at most 1 MiB)."""

    def references(self) -> Iterator[SourceObject]:
        """What lies directly in `reference/` beside the root, in name order; nothing when there is no such folder."""

    def reference(self, found: SourceObject) -> bytes:
        """The bytes of exactly this version of a reference.

        Raises Conflict when it has changed since it was listed, Quarantined for more than REFERENCE_BYTES.
        """


@dataclass(frozen=True)
class Announcement:
    """A message that objects below the root have changed. `unreadable` says why nothing could be read from it."""

    keys: tuple[str, ...]
    receipt: str
    unreadable: str | None = None


class Announcements(Protocol):
    """Hints from the source, seconds after an object arrived. They may be lost, repeated, late or wrong: whoever hears
    one looks at the object itself, and the next listing finds what was never announced."""

    def check(self) -> None:
        """Raise Unavailable or BadCredentials when nothing can be heard."""

    def hear(self) -> Sequence[Announcement]:
        """Those that are there; waits some seconds for the first, none after that. Each is given again after a while
        unless it was settled."""

    def settle(self, heard: Sequence[Announcement]) -> None:
        """These are dealt with and need not be given again."""

    def reject(self, heard: Sequence[Announcement]) -> None:
        """Nothing can be made of these: they end up where the queue's owner put such messages, or are dropped."""

    def waiting(self) -> int:
        """About how many were not settled yet."""


# --- where the cost series live -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class StoredDay:
    """What a cost store holds for a day, read back from it."""

    day: date
    accounts: Mapping[str, Totals]


class CostStore(Protocol):
    """Charges by day, and the read model (core.rollup) that everything shown comes from."""

    exact: bool
    """Whether totals read back are exact decimals; otherwise they agree to 1e-6 and headline totals come from the ledger."""

    atomic: bool
    """Whether `replace` shows readers the old or the new day only; otherwise the ledger marks the day `restating`."""

    def prepare(self) -> None:
        """Create or check what it stands on (directories; bucket and retention). Raises CannotStart."""

    def check(self) -> None:
        """Raise Unavailable or BadCredentials when it cannot be used."""

    def oldest(self, today: date) -> date | None:
        """The first day retention keeps; None for all."""

    def replace(self, day: date, accounts: frozenset[str], charges: pa.Table) -> StoredDay:
        """Make `charges` (core.dailycsv.SCHEMA) all that these accounts have on `day`; other accounts stay.

        Idempotent. Returns what was read back; the caller compares it before anything is shown as new. An atomic
        store that reads back something else keeps the old day and raises Conflict.
        """

    def day(self, day: date) -> pa.Table:
        """The charges stored for a day, sorted by key, as `replace` took them."""

    def stored_days(self) -> Mapping[date, StoredDay]:
        """Every day it holds: what the ledger is repaired from at start. Empty where the store is not atomic."""

    def forget(self, before: date) -> Sequence[date]:
        """Drop the days before this one, all at once for readers; which they were. Idempotent.

        Empty where the store forgets by itself (a bucket's retention). The caller has kept their totals.
        """

    def publish(self, day: date) -> None:
        """Let readers see a day after the ledger has taken it (nothing to do where `replace` already did)."""

    def rollup(self) -> Rollup:
        """The newest verified read model; cheap to ask in every request."""

    def show_anomalies(self, records: Sequence[AnomalyRecord]) -> None:
        """Let dashboards that read the store itself see these, each in place of what it was; nothing where none does.

        Idempotent.
        """


# --- what is known about the data, and what is being done ---------------------------------------------------------


@dataclass(frozen=True)
class Listing(Generic[Item]):
    """One page of a list, newest first; `next_cursor` is None on the last."""

    items: Sequence[Item]
    next_cursor: str | None


class Ledger(Protocol):
    """Ingestions and days (core.ledger). A flip is one compare-and-set of one day."""

    def day_record(self, day: date) -> DayRecord:
        """The day's record, an empty one at revision 0 when it was never touched."""

    def day_records(self, start: date, end: date) -> dict[date, DayRecord]:
        """Records of [start, end) that exist."""

    def day_revisions(self) -> Revisions:
        """The version with the revision of each day, all of one moment; cheaper than reading records.

        Records read afterwards are of these revisions or newer ones. A restore moves `origin` up, or there is none to be
        had before it has ended.
        """

    def put_day_record(self, record: DayRecord) -> bool:
        """Store it if the stored revision is `record.revision - 1`; False when somebody else was faster.

        A change also moves `ledger_version` on, in the same write or before it can be read.
        """

    def ledger_version(self) -> int:
        """Grows with every change of a day record: the data version of stores without one of their own."""

    def put_month_totals(self, totals: MonthTotals) -> None:
        """Keep what is left of a month, in place of what was there."""

    def month_totals(self, start: date, end: date) -> dict[date, MonthTotals]:
        """Of months whose first day is in [start, end), in order."""

    def put_ingestion(self, ingestion: Ingestion) -> None:
        """Insert, or replace the one with this id."""

    def ingestion(self, id: str) -> Ingestion | None: ...

    def ingestions(
        self, *, limit: int, cursor: str | None = None, status: str | None = None, key: str | None = None
    ) -> Listing[Ingestion]:
        """Newest first. Raises InvalidInput for a cursor it did not give out."""

    def known_versions(self, source: str) -> dict[tuple[str, str], str]:
        """(key, version) → status of every object version with a final ingestion below this root."""

    def versions_of(self, source: str, key: str) -> list[Ingestion]:
        """All ingestions of one object, newest first."""

    def ingestions_with(self, start: date, end: date, sha256s: Collection[str]) -> list[Ingestion]:
        """Ingestions of days in [start, end) whose bytes are one of these, in no order."""

    def quarantined_days(self, start: date, end: date, source: str) -> frozenset[date]:
        """Days in [start, end) whose newest ingestion of some key below this root is quarantined.

        Of a root that is not read any more nothing can be mended: what was refused there holds no day.
        """


class History(Protocol):
    """What was reported before, and what a person should know of it (core.restatements). Nothing here is ever changed."""

    def add_revisions(self, revisions: Sequence[Revision]) -> None:
        """Keep those whose day, account and revision are not there yet; the others stay as they are."""

    def revision_keys(self, start: date, end: date) -> set[RevisionKey]:
        """Which revisions of [start, end) are there: cheaper than reading them."""

    def revisions(self, start: date, end: date, accounts: Collection[str] = ()) -> list[Revision]:
        """Revisions of days in [start, end), by day, account and revision; without `accounts` of all of them."""

    def add_notice(self, notice: Notice) -> bool:
        """Keep it; False when one with this id is there."""

    def notices(self, *, limit: int, cursor: str | None = None, kind: str | None = None) -> Listing[Notice]:
        """Newest first. Raises InvalidInput for a cursor it did not give out."""

    def notices_about(self, start: date, end: date) -> list[Notice]:
        """Those about days in [start, end), newest first."""


class References(Protocol):
    """Cost Explorer's totals (core.reconciliation), one reference a source and month."""

    def put_reference(self, kept: KeptReference) -> None:
        """Keep it in place of the one before. Without `reference` the last one that could be read stays."""

    def reference_versions(self, source: str) -> dict[date, str]:
        """Month → version of the newest reference that was looked at."""

    def reference(self, source: str, month: date) -> KeptReference | None: ...


class Anomalies(Protocol):
    """Anomalies (core.anomalyrecords), and the plans that silence them. A change is one compare-and-set of one record."""

    def put_anomaly(self, record: AnomalyRecord) -> bool:
        """Store it if the stored revision is `record.revision - 1`; False when somebody else was faster."""

    def anomaly(self, id: str) -> AnomalyRecord | None: ...

    def anomalies(self, start: date, end: date) -> list[AnomalyRecord]:
        """Those that lie, at least in part, in [start, end): newest `date` first, then by id."""

    def put_planned_spend(self, plan: PlannedSpend) -> None:
        """Keep it, in place of the one with this id."""

    def planned_spend(self) -> list[PlannedSpend]:
        """All plans, by first day and id."""

    def forget_planned_spend(self, id: str) -> bool:
        """False when there is none with this id."""


class Budgets(Protocol):
    """Budgets (core.budgets), rules and the alerts they raised (core.rules). A change is one compare-and-set of one
    record: it is stored if the stored revision is the one before (1: if there is none); False when somebody else was
    faster."""

    def put_budget(self, budget: Budget) -> bool: ...

    def budget(self, id: str) -> Budget | None: ...

    def budgets(self) -> list[Budget]:
        """By name and id."""

    def remove_budget(self, id: str, revision: int) -> bool:
        """False when there is none with this id and revision."""

    def put_rule(self, rule: Rule) -> bool: ...

    def rule(self, id: str) -> Rule | None: ...

    def rules(self) -> list[Rule]:
        """By name and id."""

    def remove_rule(self, id: str, revision: int) -> bool:
        """False when there is none with this id and revision. Its alerts stay."""

    def put_alert(self, record: AlertRecord) -> bool: ...

    def alert(self, id: str) -> AlertRecord | None: ...

    def alerts(
        self, *, limit: int, cursor: str | None = None, rule: str | None = None, state: str | None = None
    ) -> Listing[AlertRecord]:
        """Newest first. Raises InvalidInput for a cursor it did not give out."""

    def alerts_of(self, rule: str, since: date) -> list[AlertRecord]:
        """Those of a rule that are open or have a day on or after `since`, in no order."""

    def forget_alerts(self, *, fired_before: datetime) -> int:
        """Housekeeping: drop those that are over and fired before this; how many."""


class GrafanaAlerts(Protocol):
    """Alerts that a Grafana told of (core.grafanaalerts). A change is one compare-and-set of one record."""

    def put_grafana_alert(self, alert: GrafanaAlert) -> bool:
        """Store it if the stored revision is `alert.revision - 1`; False when somebody else was faster."""

    def grafana_alerts_like(self, fingerprint: str) -> list[GrafanaAlert]:
        """All with this fingerprint, the newest first."""

    def grafana_alerts(
        self, *, limit: int, cursor: str | None = None, status: str | None = None
    ) -> Listing[GrafanaAlert]:
        """By when they began, newest first. Raises InvalidInput for a cursor it did not give out."""

    def forget_grafana_alerts(self, *, heard_before: datetime) -> int:
        """Housekeeping: drop those last heard of before this; how many."""


class Jobs(Protocol):
    """Job records (core.jobs). Every transition is one compare-and-set on the claim's token."""

    def put_job(self, job: Job) -> tuple[Job, bool]:
        """Record a job unless one with the same `key` is not final yet; returns the job there is, and if it is new."""

    def job(self, id: str) -> Job | None: ...

    def jobs(
        self, *, limit: int, cursor: str | None = None, status: str | None = None, kind: str | None = None
    ) -> Listing[Job]:
        """Newest first."""

    def claim(self, id: str, *, worker: str, now: datetime, lease_until: datetime) -> Job | None:
        """Make it `running` with the next token if it is queued, due while waiting, or its lease has run out."""

    def renew(
        self, id: str, token: int, *, lease_until: datetime, done_steps: int, all_steps: int | None, message: str | None
    ) -> bool:
        """Hold the lease and record progress; False when the claim is no longer ours or the job was cancelled."""

    def finish(
        self,
        id: str,
        token: int,
        status: JobStatus,
        *,
        now: datetime,
        message: str | None = None,
        result: Mapping[str, Any] | None = None,
        not_before: datetime | None = None,
    ) -> bool:
        """End the claim with a final status, or with `waiting` until `not_before`; False when it is no longer ours."""

    def requeue(self, id: str, *, now: datetime) -> bool:
        """`waiting` and due, or `running` with a lease that ran out → `queued`; False when neither."""

    def cancel(self, id: str, *, now: datetime) -> Job | None:
        """`cancelled` unless it is final; the job afterwards, None when there is no such job."""

    def unfinished(self, *, limit: int = 10_000) -> list[Job]:
        """Jobs that are not final, by priority (highest first) and age: what the queue must know of."""

    def job_counts(self) -> dict[str, int]:
        """How many jobs have each status."""

    def forget_jobs(self, *, finished_before: datetime) -> int:
        """Housekeeping: drop final jobs that ended before this; how many."""


class Schedule(Protocol):
    def take_slot(self, name: str, slot: datetime) -> bool:
        """True for exactly one caller per (name, slot), however many schedulers ask."""

    def last_slot(self, name: str) -> datetime | None:
        """The newest slot taken under this name, None when there is none (those older than kept jobs are forgotten)."""


class Outbox(Protocol):
    """Notifications on their way (core.notifications): recorded before anything is sent, kept as the history of it."""

    def add_deliveries(self, deliveries: Sequence[Delivery]) -> int:
        """Keep those whose id is not there yet, the others stay as they are; how many were new."""

    def delivery(self, id: str) -> Delivery | None: ...

    def deliveries(
        self, *, limit: int, cursor: str | None = None, channel: str | None = None, status: str | None = None
    ) -> Listing[Delivery]:
        """Newest first. Raises InvalidInput for a cursor it did not give out."""

    def pending_deliveries(self, channel: str, *, limit: int = 20_000) -> list[Delivery]:
        """Those of a channel that are neither sent, failed nor dropped, oldest first."""

    def pending_channels(self) -> list[str]:
        """Names of the channels that have any, in order."""

    def mark_deliveries(self, ids: Sequence[str], attempt: Attempt) -> int:
        """Record an attempt on those of them that are pending; how many they were."""

    def renew_delivery(self, id: str) -> bool:
        """Make one that failed pending anew, as if it had never been tried; False when there is none that failed."""

    def channel_state(self, name: str) -> ChannelState:
        """The channel's state, an empty one at revision 0 when it was never seen."""

    def put_channel_state(self, state: ChannelState) -> bool:
        """Store it if the stored revision is `state.revision - 1`; False when somebody else was faster."""

    def forget_deliveries(self, *, finished_before: datetime) -> int:
        """Housekeeping: drop what was sent, failed or dropped before this; how many."""


class People(Protocol):
    """Users, their sessions and API tokens, one-time secrets and the audit log (core.people)."""

    def put_user(self, user: User) -> bool:
        """Insert one of revision 1, else change the one of the revision before (its name stays); False when the name
        is taken or somebody else was faster."""

    def user(self, id: str) -> User | None: ...

    def user_named(self, name: str) -> User | None: ...

    def users(self) -> list[User]:
        """By name."""

    def has_users(self) -> bool:
        """Cheap: asked every few seconds."""

    def put_session(self, session: Session) -> None:
        """Insert, or replace the one with this id."""

    def session(self, id: str) -> Session | None: ...

    def sessions(self, user_id: str) -> list[Session]:
        """Newest first."""

    def see_session(self, id: str, seen: datetime) -> None:
        """Keep that it was used; nothing happens when it has ended meanwhile."""

    def end_session(self, id: str) -> bool:
        """False when there is none."""

    def end_sessions(self, user_id: str) -> int:
        """All of a user; how many."""

    def forget_sessions(self, *, seen_before: datetime, created_before: datetime) -> int:
        """Housekeeping: those that are over, and one-time secrets that have expired."""

    def put_token(self, token: ApiToken) -> None: ...

    def token(self, sha256: str) -> ApiToken | None: ...

    def tokens(self) -> list[ApiToken]:
        """Newest first."""

    def use_token(self, id: str, now: datetime) -> None:
        """Keep that it was used."""

    def revoke_token(self, id: str, now: datetime) -> bool:
        """False when there is none or it was revoked before."""

    def put_once(self, id: str, kind: str, until: datetime, members: Mapping[str, str]) -> None:
        """Keep something that can be taken once, until it expires. `id` is the hash of a secret."""

    def take_once(self, id: str, kind: str, now: datetime) -> Mapping[str, str] | None:
        """Its members, for exactly one caller; None when there is none, it was taken, or it has expired."""

    def append_audit(self, note: AuditNote) -> AuditEntry:
        """Write it after the last entry; entries are never changed and never removed."""

    def audit(self, *, limit: int, after: int = 0) -> list[AuditEntry]:
        """Entries with a number above `after`, in rising order."""

    def audit_length(self) -> int:
        """Number of the last entry."""


class Copies(Protocol):
    """The store as files: what a backup is made of (app.backup)."""

    technology: str
    """What can take such a copy back: one store's files are not another's."""

    schema: int
    """The newest schema version this release knows."""

    def copy_to(self, folder: Path) -> int:
        """Write all there is into files in an empty folder, as of one moment, while others go on; its schema version.

        Where the server has no such moment, in an order in which what a later file adds is done over by those who find it.
        """

    def is_empty(self) -> bool:
        """Whether nothing would be lost by replacing it: no day, no ingestion, no user. Also for a store never prepared."""

    def replace_from(self, folder: Path, above: int) -> None:
        """Make what these files hold all there is. Nobody else may change the store meanwhile; `prepare` it afterwards.

        `ledger_version` is larger then than it was, than it was when the copy was made, and than `above`: whoever keeps
        answers by it has none of what is there now. Raises CannotStart for files that are no copy of this technology.
        """


class Metadata(
    Ledger, History, References, Anomalies, GrafanaAlerts, Budgets, Jobs, Schedule, Outbox, People, Copies, Protocol
):
    """The metadata store: one technology behind all of it."""

    def prepare(self) -> None:
        """Create tables, collections and indexes; refuse a newer schema. Raises CannotStart."""

    def check(self) -> None:
        """Raise Unavailable or BadCredentials."""

    def close(self) -> None: ...


# --- how work reaches a worker ------------------------------------------------------------------------------------


class Queue(Protocol):
    """Carries job ids. It may forget or repeat; the job record may not."""

    def check(self) -> None:
        """Raise Unavailable or BadCredentials; refuses a server that would lose or evict jobs."""

    def push(self, job: Job) -> None:
        """Hand the job to a worker. Pushing the same attempt again is the same as once."""

    def missing(self, jobs: Sequence[Job]) -> list[Job]:
        """Those of these attempts that are neither queued nor on their way to a worker, in order; cheap for thousands."""

    def stop(self, job: Job) -> None:
        """Ask the worker that runs it to stop; nothing happens when none does."""

    def waiting(self) -> int:
        """How many are queued."""

    def workers(self) -> int:
        """How many workers have shown a sign of life lately."""


# --- how messages leave -------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Answered:
    """What a receiver said: status, headers and the first bytes of its answer."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class Webhooks(Protocol):
    def post(self, url: str, headers: Mapping[str, str], body: bytes) -> Answered:
        """Post once; follows no redirect and takes at most 10 s.

        Raises Refused for an address that must not be asked, Unavailable when there was no answer.
        Neither repeats the address: it is a secret of most receivers.
        """


@dataclass(frozen=True)
class Relay:
    """A server that takes e-mail. `security`: TLS after STARTTLS, from the start, or none at all."""

    host: str
    port: int
    security: Literal["starttls", "tls", "none"]
    user: str | None = None
    password: str | None = None


class Mail(Protocol):
    def send(self, message: EmailMessage, relay: Relay) -> None:
        """Hand one message over; waits at most 8 s for each answer.

        Raises BadCredentials or Refused when trying again does not help, Unavailable when it may.
        """


# --- who vouches for people ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class SignOnAnswer:
    """What the browser brings back from the identity provider: each of them once, "" when it is not there."""

    code: str = ""
    error: str = ""
    issuer: str = ""


class IdentityProvider(Protocol):
    """Single sign-on by OpenID Connect: the code flow with PKCE.

    Every call raises Unavailable when the provider does not answer or says what it may not, BadCredentials when it does not
    know us; and takes at most 10 s a request.
    """

    def sign_in_address(self, state: str, nonce: str, verifier: str) -> str:
        """Where to send the browser."""

    def identity(self, answer: SignOnAnswer, nonce: str, verifier: str) -> Identity:
        """Who came back. Raises Unauthenticated for an answer that is refused, forged, or not of this sign-in."""

    def sign_out_address(self, hint: str) -> str | None:
        """Where to send the browser to sign out there too; None when the provider does not offer that."""

    def check(self) -> str:
        """What the provider is and offers, in a sentence."""


# --- how often something may be asked -----------------------------------------------------------------------------


class Limits(Protocol):
    """Counters of app.limits."""

    def count(self, key: str, window: int, seconds: int) -> int:
        """Add one to the counter of `key` in this window, and say how many that makes; it is forgotten afterwards."""


# --- where dashboards and alerts go -------------------------------------------------------------------------------

Pushed = Literal["created", "updated", "unchanged", "kept", "skipped"]
"""`kept`: it is there and is not ours to change."""


class Dashboards(Protocol):
    """A Grafana. Each call makes one thing as it is given, however often it is called.

    Raises Unavailable, BadCredentials, or Conflict when it was changed meanwhile or is not accepted.
    """

    def folder(self, uid: str, title: str) -> Pushed: ...

    def has_datasource(self, uid: str) -> bool: ...

    def datasource(self, document: dict[str, Any]) -> Pushed: ...

    def dashboard(self, folder: str, document: dict[str, Any]) -> Pushed: ...

    def rule_group(self, folder: str, body: dict[str, Any]) -> Pushed: ...

    def contact_point(self, receiver: dict[str, Any]) -> Pushed: ...

    def route(self, route: dict[str, Any]) -> Pushed:
        """One branch of the notification policy; the others stay."""
