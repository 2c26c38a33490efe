"""Metadata in MongoDB: ledger, jobs and schedule of a deployment with several machines.

Every transition is one change of one document, filtered by what it was before, acknowledged by a majority and its
journal. Nothing stands in two documents, so nothing can come apart between two writes:

- The ledger's version is the sum of the days' revisions, read from an index, from a base that only a restore raises. A
  reader that sees a new day sees a new version, and never new figures under an old one.
- A job that is not final holds its key in `slot`; a final one holds its own id there. One ordinary unique index makes
  two open jobs of one key impossible, and needs neither partial nor sparse indexes.
"""

from __future__ import annotations

import hashlib
import json
import os
import uuid
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import date, datetime
from itertools import islice
from pathlib import Path
from typing import Any, Final, TypeVar

from bson import decode_all, decode_file_iter
from bson.codec_options import CodecOptions
from bson.raw_bson import RawBSONDocument
from pymongo import ASCENDING, DESCENDING, IndexModel, MongoClient, ReturnDocument
from pymongo.client_session import ClientSession
from pymongo.collection import Collection as MongoCollection
from pymongo.database import Database
from pymongo.errors import (
    BulkWriteError,
    ConfigurationError,
    ConnectionFailure,
    DocumentTooLarge,
    DuplicateKeyError,
    InvalidURI,
    OperationFailure,
    PyMongoError,
)
from pymongo.read_concern import ReadConcern
from pymongo.read_preferences import ReadPreference
from pymongo.write_concern import WriteConcern

from app.core.anomalyrecords import AnomalyRecord, PlannedSpend
from app.core.budgets import Budget
from app.core.documents import (
    anomaly_document,
    anomaly_from,
    attempt_document,
    channel_state_document,
    channel_state_from,
    claim_end_document,
    cursor_after,
    day_record_document,
    day_record_from,
    delivery_document,
    delivery_from,
    grafana_alert_document,
    grafana_alert_from,
    ingestion_document,
    ingestion_from,
    job_document,
    job_from,
    members_text,
    month_totals_document,
    month_totals_from,
    notice_document,
    notice_from,
    place_of,
    planned_spend_document,
    planned_spend_from,
    reference_document,
    reference_from,
    reference_rows,
    revision_document,
    revision_from,
    storable,
    time_from,
    time_text,
)
from app.core.grafanaalerts import GrafanaAlert
from app.core.jobs import FINAL, JOB_STATUSES, Job, JobStatus
from app.core.ledger import DayRecord, Ingestion, Revisions
from app.core.notifications import Attempt, ChannelState, Delivery
from app.core.people import (
    ApiToken,
    AuditEntry,
    AuditNote,
    Session,
    User,
    audit_entry,
    document_of,
    entry_document,
    entry_from,
    session_from,
    token_from,
    user_from,
)
from app.core.reconciliation import KeptReference
from app.core.restatements import Notice, Revision, RevisionKey
from app.core.retention import MonthTotals
from app.core.ruledocuments import (
    alert_document,
    alert_from,
    budget_document,
    budget_from,
    rule_document,
    rule_from,
)
from app.core.rules import AlertRecord, Rule
from app.errors import BadCredentials, CannotStart, InvalidInput, Refused, SpendscopeError, Unavailable
from app.patience import Patience
from app.ports import Listing

Item = TypeVar("Item")
Document = dict[str, Any]
Keys = list[tuple[str, int]]

SELECT_SECONDS: Final = 5
ANSWER_SECONDS: Final = 20
MAJORITY_SECONDS: Final = 10
"""How long is waited for a primary, for an answer, and for a majority to have a write."""
PATIENCE_SECONDS: Final = 3.0
"""After so long without an answer to one call, further ones fail at once until it has ended."""

OPEN: Final = sorted(set(JOB_STATUSES) - FINAL)
ENDED: Final = sorted(FINAL)
NOT_LET_IN: Final = frozenset({11, 13, 18, 8000})
"""UserNotFound, Unauthorized, AuthenticationFailed, and a hosted cluster's own code for the same."""
DUPLICATE: Final = 11000
NOT_KNOWN_THERE: Final = frozenset({59, 115, 238})
"""CommandNotFound, CommandNotSupported, NotImplemented: the server is no MongoDB, or less than one."""

VERSIONS: Final[Keys] = [("_id", ASCENDING), ("revision", ASCENDING)]
NEWEST_OF_DAY: Final[Keys] = [(name, ASCENDING) for name in ("day", "source", "key", "started", "_id", "status")]


def _newest(time: str, *before: str) -> IndexModel:
    return IndexModel([*((name, ASCENDING) for name in before), (time, DESCENDING), ("_id", DESCENDING)])


def _indexes(database: Database[Document]) -> None:
    database["days"].create_indexes([IndexModel(VERSIONS)])
    database["ingestions"].create_indexes(
        [
            _newest("started"),
            _newest("started", "status"),
            _newest("started", "key"),
            _newest("started", "source", "key"),
            IndexModel(NEWEST_OF_DAY),
        ]
    )
    database["jobs"].create_indexes(
        [
            IndexModel([("slot", ASCENDING)], unique=True),
            IndexModel(
                [("status", ASCENDING), ("priority", DESCENDING), ("created", ASCENDING), ("_id", ASCENDING)],
            ),
            _newest("created"),
            _newest("created", "status"),
            _newest("created", "kind"),
        ]
    )
    database["slots"].create_indexes([IndexModel([("slot", ASCENDING)])])


def _histories(database: Database[Document]) -> None:
    database["revisions"].create_indexes([IndexModel([("day", ASCENDING)])])
    database["ingestions"].create_indexes([IndexModel([("day", ASCENDING), ("sha256", ASCENDING)])])
    database["references"].create_indexes([IndexModel([("source", ASCENDING)])])
    database["reference_accounts"].create_indexes([IndexModel([("month", ASCENDING), ("edition", ASCENDING)])])
    database["notices"].create_indexes([_newest("at"), _newest("at", "kind"), _newest("at", "day")])


def _outbox(database: Database[Document]) -> None:
    oldest_of_channel = [(name, ASCENDING) for name in ("status", "channel", "created", "_id")]
    database["deliveries"].create_indexes(
        [
            IndexModel(oldest_of_channel),
            _newest("created"),
            _newest("created", "channel"),
            _newest("created", "status"),
        ]
    )


def _people_indexes(database: Database[Document]) -> None:
    database["users"].create_indexes([IndexModel([("name", ASCENDING)], unique=True)])
    database["sessions"].create_indexes([IndexModel([("user_id", ASCENDING), ("created", DESCENDING)])])
    database["tokens"].create_indexes([IndexModel([("sha256", ASCENDING)], unique=True)])


def _anomalies(database: Database[Document]) -> None:
    database["anomalies"].create_indexes([IndexModel([("date", DESCENDING), ("_id", ASCENDING)])])


def _request_ids(database: Database[Document]) -> None:
    """Jobs say which request submitted them; those there are do not, and need not."""


def _budgets(database: Database[Document]) -> None:
    database["budgets"].create_indexes([IndexModel([("name", ASCENDING), ("_id", ASCENDING)])])
    database["rules"].create_indexes([IndexModel([("name", ASCENDING), ("_id", ASCENDING)])])
    database["alerts"].create_indexes([_newest("fired"), _newest("fired", "rule"), _newest("fired", "state")])


def _grafana_alerts(database: Database[Document]) -> None:
    database["grafana_alerts"].create_indexes(
        [
            _newest("starts"),
            _newest("starts", "status"),
            IndexModel([("fingerprint", ASCENDING), ("starts", DESCENDING)]),
        ]
    )


STEPS: Final[tuple[Callable[[Database[Document]], None], ...]] = (
    _indexes,
    _histories,
    _outbox,
    _people_indexes,
    _anomalies,
    _request_ids,
    _budgets,
    _grafana_alerts,
)
"""Each makes the next schema version from the one before and may be repeated. Version n = n steps taken."""


def unsupported(build: Mapping[str, Any]) -> str | None:
    """Why a server (its `buildInfo`) cannot carry the ledger; None when it can."""
    if str(build.get("ferretdbVersion", "")).startswith("v1."):
        return "is FerretDB 1, which does not change a document atomically: two workers could take the same job"
    return None


LOSSES: Final = ("ingestions", "days", "users", "revisions", "anomalies", "audit")
"""Collections whose documents nobody can make again."""

LOADED: Final = 500
"""Documents of a copy that are inserted at once."""


def _dump(collection: MongoCollection[Document], session: ClientSession | None, path: Path) -> None:
    with path.open("wb") as file:
        for batch in collection.find_raw_batches({}, session=session):
            file.write(batch)  # type: ignore[arg-type]


def _load(collection: MongoCollection[Document], path: Path) -> None:
    with path.open("rb") as file:
        documents = decode_file_iter(file, CodecOptions(RawBSONDocument))
        while part := list(islice(documents, LOADED)):
            collection.insert_many(part)


class MongoMetadata:
    """ports.Metadata in one database. Threads may share it; a forked child opens its own connections."""

    technology = "mongodb"
    schema = len(STEPS)

    def __init__(
        self,
        uri: str,
        database: str,
        *,
        refuse: Callable[[Mapping[str, Any]], str | None] = unsupported,
        most_calls: int = 32,
    ) -> None:
        """`database` is used when the URI names none, `most_calls` are under way at a time. Raises CannotStart for a URI
        that cannot be understood."""
        self._uri = uri
        self._database_name = database
        self._refuse = refuse
        self._patience = Patience(most_calls, PATIENCE_SECONDS, self._silent)
        self._process = 0
        self._client: MongoClient[Document] | None = None
        self._database()

    # --- the store itself

    def prepare(self) -> None:
        with self._failures():
            build = self._database().client.server_info()
            if said := self._refuse(build):
                raise CannotStart(f"The server at {self._where()} {said}. Use MongoDB 5 or later.")
            try:
                upgrade(self._database(), STEPS, self._where())
            except OperationFailure as error:
                if error.code in NOT_KNOWN_THERE:
                    raise CannotStart(
                        f"The server at {self._where()} (version {build.get('version')}) cannot carry the ledger: "
                        f"{_told(error)}. Use MongoDB 5 or later."
                    ) from None
                raise

    def check(self) -> None:
        with self._failures():
            self._base()

    def close(self) -> None:
        """The next call opens new connections."""
        client, self._client = self._client, None
        if client is not None and self._process == os.getpid():
            client.close()

    # --- copies

    def copy_to(self, folder: Path) -> int:
        """A file of BSON documents a collection, as mongodump writes them."""
        with self._failures():
            database = self._database()
            names = [name for name in database.list_collection_names() if not name.startswith("system.")]
            # Without a moment to read at (a server that is no replica set): an ingestion whose day was flipped since is
            # looked at again; a day that is older than its ingestion would never be.
            names.sort(key=lambda name: (name != "ingestions", name))
            with self._moment() as session:
                for name in names:
                    _dump(database[name].with_options(read_concern=ReadConcern()), session, folder / f"{name}.bson")
                found = database["schema"].find_one({"_id": "schema"}, session=session)
        return int(found["version"]) if found else 0

    @contextmanager
    def _moment(self) -> Iterator[ClientSession | None]:
        """A session that reads everything as of one time; None where the server has no such thing."""
        client = self._database().client
        if not client.admin.command("hello").get("setName"):
            yield None
            return
        with client.start_session(snapshot=True) as session:
            yield session

    def is_empty(self) -> bool:
        with self._failures():
            return not any(self._collection(name).find_one({}, {"_id": 1}) for name in LOSSES)

    def replace_from(self, folder: Path, above: int) -> None:
        """The schema's document goes first and comes last: meanwhile nobody takes this for a ledger, nor has it a version."""
        files = {path.stem: path for path in sorted(folder.glob("*.bson"))}
        if "schema" not in files:
            raise CannotStart("The copy of the ledger has no schema: it is not whole.")
        base = max(above, self._version_now()) + 1
        with self._failures():
            database = self._database()
            for name in ("schema", *database.list_collection_names()):
                if not name.startswith("system."):
                    database.drop_collection(name)
            for step in STEPS:
                step(database)
            [schema] = decode_all(files.pop("schema").read_bytes())
            for name, file in files.items():
                _load(database[name], file)
            database["schema"].insert_one({**schema, "base": base})

    def _version_now(self) -> int:
        """0 where there is no ledger that has one."""
        try:
            return self.ledger_version()
        except Unavailable:
            return 0

    # --- people

    def put_user(self, user: User) -> bool:
        document = _keyed(document_of(user), "id")
        users = self._collection("users")
        with self._failures():
            if user.revision == 1:
                return _inserted(users, document)
            before = {"_id": user.id, "name": user.name, "revision": user.revision - 1}
            return users.replace_one(before, document).matched_count == 1

    def user(self, id: str) -> User | None:
        return self._one("users", {"_id": id}, user_from)

    def user_named(self, name: str) -> User | None:
        return self._one("users", {"name": name}, user_from)

    def users(self) -> list[User]:
        return self._all("users", {}, [("name", ASCENDING)], user_from)

    def has_users(self) -> bool:
        with self._failures():
            return self._collection("users").find_one({}, {"_id": 1}) is not None

    def put_session(self, session: Session) -> None:
        with self._failures():
            document = _keyed(document_of(session), "id")
            self._collection("sessions").replace_one({"_id": session.id}, document, upsert=True)

    def session(self, id: str) -> Session | None:
        return self._one("sessions", {"_id": id}, session_from)

    def sessions(self, user_id: str) -> list[Session]:
        newest_first = [("created", DESCENDING), ("_id", ASCENDING)]
        return self._all("sessions", {"user_id": user_id}, newest_first, session_from)

    def see_session(self, id: str, seen: datetime) -> None:
        with self._failures():
            self._collection("sessions").update_one({"_id": id}, {"$set": {"seen": time_text(seen)}})

    def end_session(self, id: str) -> bool:
        with self._failures():
            return self._collection("sessions").delete_one({"_id": id}).deleted_count == 1

    def end_sessions(self, user_id: str) -> int:
        with self._failures():
            return self._collection("sessions").delete_many({"user_id": user_id}).deleted_count

    def forget_sessions(self, *, seen_before: datetime, created_before: datetime) -> int:
        seen, created = time_text(seen_before), time_text(created_before)
        over = {"$or": [{"seen": {"$lt": seen}}, {"created": {"$lt": created}}]}
        with self._failures():
            self._collection("once").delete_many({"until": {"$lt": seen}})
            return self._collection("sessions").delete_many(over).deleted_count

    def put_token(self, token: ApiToken) -> None:
        with self._failures():
            self._collection("tokens").insert_one(_keyed(document_of(token), "id"))

    def token(self, sha256: str) -> ApiToken | None:
        return self._one("tokens", {"sha256": sha256}, token_from)

    def tokens(self) -> list[ApiToken]:
        return self._all("tokens", {}, [("created", DESCENDING), ("_id", ASCENDING)], token_from)

    def use_token(self, id: str, now: datetime) -> None:
        with self._failures():
            self._collection("tokens").update_one({"_id": id}, {"$set": {"used": time_text(now)}})

    def revoke_token(self, id: str, now: datetime) -> bool:
        with self._failures():
            change = {"$set": {"revoked": time_text(now)}}
            return self._collection("tokens").update_one({"_id": id, "revoked": None}, change).matched_count == 1

    def put_once(self, id: str, kind: str, until: datetime, members: Mapping[str, str]) -> None:
        document = {"_id": id, "kind": kind, "until": time_text(until), "members": members_text(members)}
        with self._failures():
            self._collection("once").replace_one({"_id": id}, document, upsert=True)

    def take_once(self, id: str, kind: str, now: datetime) -> Mapping[str, str] | None:
        wanted = {"_id": id, "kind": kind, "until": {"$gt": time_text(now)}}
        with self._failures():
            found = self._collection("once").find_one_and_delete(wanted)
        return json.loads(found["members"]) if found else None

    def append_audit(self, note: AuditNote) -> AuditEntry:
        """The number is the key: of two that write after the same entry one fails and goes after the other."""
        log = self._collection("audit")
        with self._failures():
            for _ in range(50):
                last = log.find_one({}, sort=[("_id", DESCENDING)])
                entry = audit_entry(note, _entry_from(last) if last else None)
                if _inserted(log, _keyed(entry_document(entry), "number")):
                    return entry
        raise Unavailable("metadata", "The audit log is written too fast to add to. Try again.")

    def audit(self, *, limit: int, after: int = 0) -> list[AuditEntry]:
        with self._failures():
            found = self._collection("audit").find({"_id": {"$gt": after}}).sort("_id", ASCENDING).limit(limit)
            return [_entry_from(part) for part in found.to_list()]

    def audit_length(self) -> int:
        with self._failures():
            last = self._collection("audit").find_one({}, {"_id": 1}, sort=[("_id", DESCENDING)])
        return int(last["_id"]) if last else 0

    # --- days

    def day_record(self, day: date) -> DayRecord:
        with self._failures():
            found = self._collection("days").find_one({"_id": str(day)})
        return _day_record_from(found) if found else DayRecord(day)

    def day_records(self, start: date, end: date) -> dict[date, DayRecord]:
        with self._failures():
            found = self._collection("days").find({"_id": {"$gte": str(start), "$lt": str(end)}}).sort("_id").to_list()
        return {record.day: record for record in map(_day_record_from, found)}

    def put_day_record(self, record: DayRecord) -> bool:
        document = _keyed(day_record_document(record), "day")
        days = self._collection("days")
        with self._failures():
            if record.revision == 1:
                return _inserted(days, document)
            before = {"_id": document["_id"], "revision": record.revision - 1}
            return days.replace_one(before, document).matched_count == 1

    def ledger_version(self) -> int:
        """The sum of all revisions: each only grows, so equal sums mean that no day has changed in between.

        Raises Unavailable while a restore is under way.
        """
        base, revisions = self._revisions()
        return base + sum(revisions.values())

    def day_revisions(self) -> Revisions:
        base, revisions = self._revisions()
        days = {date.fromisoformat(day): revision for day, revision in revisions.items()}
        return Revisions(base + sum(revisions.values()), days)

    def _revisions(self) -> tuple[int, dict[str, int]]:
        """The base and each day's revision."""
        with self._failures():
            # By day first: a day that changes meanwhile stays in its place, and is at most read twice.
            found = self._collection("days").find({}, {"revision": 1}).hint(VERSIONS)
            revisions = {part["_id"]: int(part["revision"]) for part in found}
            # Afterwards: a restore that took away days read here has taken away this, too.
            return self._base(), revisions

    def _base(self) -> int:
        schema = self._collection("schema").find_one({"_id": "schema"})
        if schema is None:
            raise Unavailable(
                "metadata",
                f"The database at {self._where()} holds no ledger yet. `spendscope up` or `spendscope ingest` makes it.",
            )
        return int(schema.get("base", 0))

    # --- months

    def put_month_totals(self, totals: MonthTotals) -> None:
        document = _keyed(month_totals_document(totals), "month")
        with self._failures():
            self._collection("months").replace_one({"_id": document["_id"]}, document, upsert=True)

    def month_totals(self, start: date, end: date) -> dict[date, MonthTotals]:
        with self._failures():
            found = (
                self._collection("months").find({"_id": {"$gte": str(start), "$lt": str(end)}}).sort("_id").to_list()
            )
        months = (month_totals_from({**part, "month": part["_id"]}) for part in found)
        return {totals.month: totals for totals in months}

    # --- ingestions

    def put_ingestion(self, ingestion: Ingestion) -> None:
        document = _keyed(ingestion_document(ingestion), "id")
        with self._failures():
            self._collection("ingestions").replace_one({"_id": document["_id"]}, document, upsert=True)

    def ingestion(self, id: str) -> Ingestion | None:
        with self._failures():
            found = self._collection("ingestions").find_one({"_id": id})
        return _ingestion_from(found) if found else None

    def ingestions(
        self, *, limit: int, cursor: str | None = None, status: str | None = None, key: str | None = None
    ) -> Listing[Ingestion]:
        filters = {"status": status, "key": key}
        return self._page("ingestions", "started", filters, limit=limit, cursor=cursor, read=_ingestion_from)

    def known_versions(self, source: str) -> dict[tuple[str, str], str]:
        wanted = {"source": source, "finished": {"$ne": None}}
        shown = {"key": 1, "version": 1, "status": 1, "started": 1}
        with self._failures():
            found = self._collection("ingestions").find(wanted, shown).to_list()
        found.sort(key=lambda part: (part["started"], part["_id"]))
        return {(part["key"], part["version"]): part["status"] for part in found}

    def versions_of(self, source: str, key: str) -> list[Ingestion]:
        newest_first = [("started", DESCENDING), ("_id", DESCENDING)]
        with self._failures():
            found = self._collection("ingestions").find({"source": source, "key": key}).sort(newest_first).to_list()
        return [_ingestion_from(part) for part in found]

    def ingestions_with(self, start: date, end: date, sha256s: Collection[str]) -> list[Ingestion]:
        wanted = {**_days(start, end), "sha256": {"$in": sorted(sha256s)}}
        with self._failures():
            return [_ingestion_from(part) for part in self._collection("ingestions").find(wanted).to_list()]

    def quarantined_days(self, start: date, end: date, source: str) -> frozenset[date]:
        with self._failures():
            found = (
                self._collection("ingestions")
                .find({"day": {"$gte": str(start), "$lt": str(end)}}, dict.fromkeys(dict(NEWEST_OF_DAY), 1))
                .hint(NEWEST_OF_DAY)
                .to_list()
            )
        found.sort(key=lambda part: (part["started"], part["_id"]))
        # Filtered here: the index that answers alone does not begin with the source, and there is one as a rule.
        newest = {(part["day"], part["key"]): part["status"] for part in found if part["source"] == source}
        return frozenset(date.fromisoformat(day) for (day, _), status in newest.items() if status == "quarantined")

    # --- histories

    def add_revisions(self, revisions: Sequence[Revision]) -> None:
        if not revisions:
            return
        with self._failures():
            self._added("revisions", [_revision_document(revision) for revision in revisions])

    def revision_keys(self, start: date, end: date) -> set[RevisionKey]:
        shown = {"day": 1, "account": 1, "revision": 1}
        with self._failures():
            found = self._collection("revisions").find(_days(start, end), shown).to_list()
        return {(date.fromisoformat(part["day"]), part["account"], part["revision"]) for part in found}

    def revisions(self, start: date, end: date, accounts: Collection[str] = ()) -> list[Revision]:
        wanted = {**_days(start, end), **({"account": {"$in": sorted(accounts)}} if accounts else {})}
        with self._failures():
            found = self._collection("revisions").find(wanted).to_list()
        return sorted(map(revision_from, found), key=lambda revision: revision.key)

    def add_notice(self, notice: Notice) -> bool:
        with self._failures():
            return _inserted(self._collection("notices"), _keyed(notice_document(notice), "id"))

    def notices(self, *, limit: int, cursor: str | None = None, kind: str | None = None) -> Listing[Notice]:
        return self._page("notices", "at", {"kind": kind}, limit=limit, cursor=cursor, read=_notice_from)

    def notices_about(self, start: date, end: date) -> list[Notice]:
        newest_first = [("at", DESCENDING), ("_id", DESCENDING)]
        with self._failures():
            found = self._collection("notices").find(_days(start, end)).sort(newest_first).to_list()
        return [_notice_from(part) for part in found]

    # --- references

    def put_reference(self, kept: KeptReference) -> None:
        """An edition's accounts first, then the head that names it, then the edition before is forgotten: a reader has
        one whole edition whenever this is stopped."""
        month = _reference_id(kept.source, kept.month)
        head: Document = {
            "source": kept.source,
            "month": str(kept.month),
            "version": kept.version,
            "problem": storable(kept.problem),
        }
        with self._failures():
            references, accounts = self._collection("references"), self._collection("reference_accounts")
            if kept.reference is None:
                references.update_one({"_id": month}, {"$set": head}, upsert=True)
                return
            edition = uuid.uuid4().hex
            parts = [
                {"month": month, "edition": edition, "account": account, "rows": reference_rows(days)}
                for account, days in kept.reference.accounts.items()
            ]
            if parts:
                accounts.insert_many(parts)
            head |= {"edition": edition, "document": reference_document(kept.reference)}
            before = references.find_one_and_update({"_id": month}, {"$set": head}, upsert=True)
            if before and "edition" in before:
                accounts.delete_many({"month": month, "edition": before["edition"]})

    def reference_versions(self, source: str) -> dict[date, str]:
        with self._failures():
            found = self._collection("references").find({"source": source}, {"month": 1, "version": 1}).to_list()
        return {date.fromisoformat(part["month"]): part["version"] for part in found}

    def reference(self, source: str, month: date) -> KeptReference | None:
        place = _reference_id(source, month)
        with self._failures():
            for _ in range(5):
                head = self._collection("references").find_one({"_id": place})
                if head is None:
                    return None
                document = head.get("document")
                if document is None:
                    return KeptReference(source, month, head["version"], head["problem"], None)
                edition = {"month": place, "edition": head["edition"]}
                parts = self._collection("reference_accounts").find(edition).to_list()
                if len(parts) == document["accounts"]:
                    rows = {part["account"]: part["rows"] for part in parts}
                    found = reference_from(document, rows)
                    return KeptReference(source, month, head["version"], head["problem"], found)
                # Another edition has taken its place between the two reads.
        raise Unavailable("metadata", f"Cost Explorer's totals of {month:%Y-%m} are being replaced. Try again.")

    # --- anomalies

    def put_anomaly(self, record: AnomalyRecord) -> bool:
        document = _keyed(anomaly_document(record), "id")
        anomalies = self._collection("anomalies")
        with self._failures():
            if record.revision == 1:
                return _inserted(anomalies, document)
            before = {"_id": document["_id"], "revision": record.revision - 1}
            return anomalies.replace_one(before, document).matched_count == 1

    def anomaly(self, id: str) -> AnomalyRecord | None:
        with self._failures():
            found = self._collection("anomalies").find_one({"_id": id})
        return _anomaly_from(found) if found else None

    def anomalies(self, start: date, end: date) -> list[AnomalyRecord]:
        wanted = {"date": {"$gte": str(start)}, "start": {"$lt": str(end)}}
        order = [("date", DESCENDING), ("_id", ASCENDING)]
        with self._failures():
            found = self._collection("anomalies").find(wanted).sort(order).to_list()
        return [_anomaly_from(part) for part in found]

    def put_planned_spend(self, plan: PlannedSpend) -> None:
        document = _keyed(planned_spend_document(plan), "id")
        with self._failures():
            self._collection("planned_spend").replace_one({"_id": document["_id"]}, document, upsert=True)

    def planned_spend(self) -> list[PlannedSpend]:
        with self._failures():
            found = self._collection("planned_spend").find().sort([("start", ASCENDING), ("_id", ASCENDING)]).to_list()
        return [planned_spend_from({**part, "id": part["_id"]}) for part in found]

    def forget_planned_spend(self, id: str) -> bool:
        with self._failures():
            return self._collection("planned_spend").delete_one({"_id": id}).deleted_count == 1

    # --- budgets, rules, alerts

    def put_budget(self, budget: Budget) -> bool:
        return self._put_revised("budgets", budget_document(budget))

    def budget(self, id: str) -> Budget | None:
        return self._one("budgets", {"_id": id}, budget_from)

    def budgets(self) -> list[Budget]:
        return self._all("budgets", {}, [("name", ASCENDING), ("_id", ASCENDING)], budget_from)

    def remove_budget(self, id: str, revision: int) -> bool:
        return self._removed("budgets", id, revision)

    def put_rule(self, rule: Rule) -> bool:
        return self._put_revised("rules", rule_document(rule))

    def rule(self, id: str) -> Rule | None:
        return self._one("rules", {"_id": id}, rule_from)

    def rules(self) -> list[Rule]:
        return self._all("rules", {}, [("name", ASCENDING), ("_id", ASCENDING)], rule_from)

    def remove_rule(self, id: str, revision: int) -> bool:
        return self._removed("rules", id, revision)

    def put_alert(self, record: AlertRecord) -> bool:
        return self._put_revised("alerts", alert_document(record))

    def alert(self, id: str) -> AlertRecord | None:
        return self._one("alerts", {"_id": id}, alert_from)

    def alerts(
        self, *, limit: int, cursor: str | None = None, rule: str | None = None, state: str | None = None
    ) -> Listing[AlertRecord]:
        filters = {"rule": rule, "state": state}
        return self._page("alerts", "fired", filters, limit=limit, cursor=cursor, read=_alert_from)

    def alerts_of(self, rule: str, since: date) -> list[AlertRecord]:
        wanted = {"rule": rule, "$or": [{"state": "open"}, {"last": {"$gte": str(since)}}]}
        return self._all("alerts", wanted, [("_id", ASCENDING)], alert_from)

    def forget_alerts(self, *, fired_before: datetime) -> int:
        over = {"state": {"$ne": "open"}, "fired": {"$lt": time_text(fired_before)}}
        with self._failures():
            return self._collection("alerts").delete_many(over).deleted_count

    def _put_revised(self, collection: str, given: Document) -> bool:
        document = _keyed(given, "id")
        kept = self._collection(collection)
        with self._failures():
            if document["revision"] == 1:
                return _inserted(kept, document)
            before = {"_id": document["_id"], "revision": document["revision"] - 1}
            return kept.replace_one(before, document).matched_count == 1

    def _removed(self, collection: str, id: str, revision: int) -> bool:
        with self._failures():
            return self._collection(collection).delete_one({"_id": id, "revision": revision}).deleted_count == 1

    # --- alerts of Grafana

    def put_grafana_alert(self, alert: GrafanaAlert) -> bool:
        document = _keyed(grafana_alert_document(alert), "id")
        alerts = self._collection("grafana_alerts")
        with self._failures():
            if alert.revision == 1:
                return _inserted(alerts, document)
            return alerts.replace_one({"_id": alert.id, "revision": alert.revision - 1}, document).matched_count == 1

    def grafana_alerts_like(self, fingerprint: str) -> list[GrafanaAlert]:
        wanted = {"fingerprint": storable(fingerprint)}
        return self._all("grafana_alerts", wanted, [("starts", DESCENDING)], grafana_alert_from)

    def grafana_alerts(
        self, *, limit: int, cursor: str | None = None, status: str | None = None
    ) -> Listing[GrafanaAlert]:
        filters = {"status": status}
        return self._page("grafana_alerts", "starts", filters, limit=limit, cursor=cursor, read=_grafana_alert_from)

    def forget_grafana_alerts(self, *, heard_before: datetime) -> int:
        with self._failures():
            return (
                self._collection("grafana_alerts").delete_many({"last": {"$lt": time_text(heard_before)}}).deleted_count
            )

    # --- jobs

    def put_job(self, job: Job) -> tuple[Job, bool]:
        document = _keyed(job_document(job), "id")
        document["slot"] = _final_slot(job.id) if job.status in FINAL else _open_slot(job.key)
        jobs = self._collection("jobs")
        with self._failures():
            for _ in range(5):
                if _inserted(jobs, document):
                    return job, True
                there = jobs.find_one({"slot": _open_slot(job.key)}) or jobs.find_one({"_id": job.id})
                if there is not None:
                    return _job_from(there), False
                # The job that was in the way has ended between the two: its key is free again.
        raise Unavailable("metadata", "Jobs with this key start and end too fast to record another. Try again.")

    def job(self, id: str) -> Job | None:
        with self._failures():
            found = self._collection("jobs").find_one({"_id": id})
        return _job_from(found) if found else None

    def jobs(
        self, *, limit: int, cursor: str | None = None, status: str | None = None, kind: str | None = None
    ) -> Listing[Job]:
        filters = {"status": status, "kind": kind}
        return self._page("jobs", "created", filters, limit=limit, cursor=cursor, read=_job_from)

    def claim(self, id: str, *, worker: str, now: datetime, lease_until: datetime) -> Job | None:
        change = {
            "$set": {
                "status": "running",
                "worker": storable(worker),
                "started": time_text(now),
                "lease_until": time_text(lease_until),
                "not_before": None,
                "done_steps": 0,
                "all_steps": None,
                "message": None,
            },
            "$inc": {"token": 1, "attempts": 1},
        }
        wanted = {"_id": id, "$or": [{"status": "queued"}, *_due(now)]}
        with self._failures():
            claimed = self._collection("jobs").find_one_and_update(wanted, change, return_document=ReturnDocument.AFTER)
        return _job_from(claimed) if claimed else None

    def renew(
        self, id: str, token: int, *, lease_until: datetime, done_steps: int, all_steps: int | None, message: str | None
    ) -> bool:
        return self._changed(
            {"_id": id, "token": token, "status": "running"},
            {
                "lease_until": time_text(lease_until),
                "done_steps": done_steps,
                "all_steps": all_steps,
                "message": storable(message),
            },
        )

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
        change = {"lease_until": None, **claim_end_document(status, now, message, result, not_before)}
        if result is None:
            del change["result"]
        if status in FINAL:
            change["slot"] = _final_slot(id)
        return self._changed({"_id": id, "token": token, "status": "running"}, change)

    def requeue(self, id: str, *, now: datetime) -> bool:
        return self._changed(
            {"_id": id, "$or": _due(now)}, {"status": "queued", "lease_until": None, "not_before": None}
        )

    def cancel(self, id: str, *, now: datetime) -> Job | None:
        self._changed(
            {"_id": id, "status": {"$in": OPEN}},
            {
                "status": "cancelled",
                "finished": time_text(now),
                "lease_until": None,
                "not_before": None,
                "slot": _final_slot(id),
            },
        )
        return self.job(id)

    def unfinished(self, *, limit: int = 10_000) -> list[Job]:
        order = [("priority", DESCENDING), ("created", ASCENDING), ("_id", ASCENDING)]
        with self._failures():
            found = self._collection("jobs").find({"status": {"$in": OPEN}}).sort(order).limit(limit).to_list()
        return [_job_from(part) for part in found]

    def job_counts(self) -> dict[str, int]:
        with self._failures():
            found = (
                self._collection("jobs").aggregate([{"$group": {"_id": "$status", "number": {"$sum": 1}}}]).to_list()
            )
        return dict.fromkeys(JOB_STATUSES, 0) | {part["_id"]: int(part["number"]) for part in found}

    def forget_jobs(self, *, finished_before: datetime) -> int:
        """Also forgets schedule slots that old."""
        before = {"$lt": time_text(finished_before)}
        with self._failures():
            self._collection("slots").delete_many({"slot": before})
            ended = {"status": {"$in": ENDED}, "finished": before}
            return self._collection("jobs").delete_many(ended).deleted_count

    # --- schedule

    def take_slot(self, name: str, slot: datetime) -> bool:
        time = time_text(slot)
        with self._failures():
            return _inserted(self._collection("slots"), {"_id": f"{time} {name}", "slot": time, "name": name})

    def last_slot(self, name: str) -> datetime | None:
        with self._failures():
            found = self._collection("slots").find_one({"name": name}, sort=[("slot", DESCENDING)])
        return time_from(found["slot"]) if found else None

    # --- notifications

    def add_deliveries(self, deliveries: Sequence[Delivery]) -> int:
        if not deliveries:
            return 0
        documents = [_keyed(delivery_document(delivery), "id") for delivery in deliveries]
        with self._failures():
            return self._added("deliveries", documents)

    def delivery(self, id: str) -> Delivery | None:
        with self._failures():
            found = self._collection("deliveries").find_one({"_id": id})
        return _delivery_from(found) if found else None

    def deliveries(
        self, *, limit: int, cursor: str | None = None, channel: str | None = None, status: str | None = None
    ) -> Listing[Delivery]:
        filters = {"channel": channel, "status": status}
        return self._page("deliveries", "created", filters, limit=limit, cursor=cursor, read=_delivery_from)

    def pending_deliveries(self, channel: str, *, limit: int = 20_000) -> list[Delivery]:
        wanted = {"status": "pending", "channel": channel}
        order = [("created", ASCENDING), ("_id", ASCENDING)]
        with self._failures():
            found = self._collection("deliveries").find(wanted).sort(order).limit(limit).to_list()
        return [_delivery_from(part) for part in found]

    def pending_channels(self) -> list[str]:
        with self._failures():
            return sorted(self._collection("deliveries").distinct("channel", {"status": "pending"}))

    def mark_deliveries(self, ids: Sequence[str], attempt: Attempt) -> int:
        wanted = {"_id": {"$in": list(ids)}, "status": "pending"}
        with self._failures():
            return self._collection("deliveries").update_many(wanted, {"$set": attempt_document(attempt)}).matched_count

    def renew_delivery(self, id: str) -> bool:
        change = {"status": "pending", "attempts": 0}
        change |= dict.fromkeys(("bundle", "not_before", "finished", "message"))
        with self._failures():
            failed = {"_id": id, "status": "failed"}
            return self._collection("deliveries").update_one(failed, {"$set": change}).matched_count == 1

    def channel_state(self, name: str) -> ChannelState:
        with self._failures():
            found = self._collection("channels").find_one({"_id": name})
        return channel_state_from({**found, "name": found["_id"]}) if found else ChannelState(name)

    def put_channel_state(self, state: ChannelState) -> bool:
        document = _keyed(channel_state_document(state), "name")
        channels = self._collection("channels")
        with self._failures():
            if state.revision == 1:
                return _inserted(channels, document)
            before = {"_id": document["_id"], "revision": state.revision - 1}
            return channels.replace_one(before, document).matched_count == 1

    def forget_deliveries(self, *, finished_before: datetime) -> int:
        ended = {"status": {"$ne": "pending"}, "finished": {"$lt": time_text(finished_before)}}
        with self._failures():
            return self._collection("deliveries").delete_many(ended).deleted_count

    # --- how all of these reach the server

    def _added(self, collection: str, documents: Sequence[Document]) -> int:
        """How many of these were new; those that are there already stay as they are."""
        try:
            return len(self._collection(collection).insert_many(documents, ordered=False).inserted_ids)
        except BulkWriteError as error:
            details = error.details or {}
            others = [wrong for wrong in details.get("writeErrors", []) if wrong["code"] != DUPLICATE]
            if others or details.get("writeConcernErrors"):
                raise
            return int(details["nInserted"])

    def _page(
        self,
        collection: str,
        time: str,
        filters: Mapping[str, str | None],
        *,
        limit: int,
        cursor: str | None,
        read: Callable[[Document], Item],
    ) -> Listing[Item]:
        """One page in falling (time, id) order."""
        question = (collection, *filters.values())
        wanted: Document = {name: value for name, value in filters.items() if value is not None}
        if cursor is not None:
            last_time, last_id = place_of(question, cursor)
            wanted["$or"] = [{time: {"$lt": last_time}}, {time: last_time, "_id": {"$lt": last_id}}]
        order = [(time, DESCENDING), ("_id", DESCENDING)]
        with self._failures():
            found = self._collection(collection).find(wanted).sort(order).limit(limit + 1).to_list()
        shown = found[:limit]
        more = len(found) > limit
        after = cursor_after(question, shown[-1][time], shown[-1]["_id"]) if more else None
        return Listing([read(part) for part in shown], after)

    def _one(self, collection: str, wanted: Document, read: Callable[[Document], Item]) -> Item | None:
        with self._failures():
            found = self._collection(collection).find_one(wanted)
        return read(_with_id(found)) if found else None

    def _all(self, collection: str, wanted: Document, order: Keys, read: Callable[[Document], Item]) -> list[Item]:
        with self._failures():
            found = self._collection(collection).find(wanted).sort(order).to_list()
        return [read(_with_id(part)) for part in found]

    def _changed(self, wanted: Document, values: Document) -> bool:
        with self._failures():
            return self._collection("jobs").update_one(wanted, {"$set": values}).matched_count == 1

    def _collection(self, name: str) -> MongoCollection[Document]:
        return self._database()[name]

    def _database(self) -> Database[Document]:
        client = self._client
        if client is None or self._process != os.getpid():
            if client is not None:
                _INHERITED.append(client)
            client = _client(self._uri)
            self._process, self._client = os.getpid(), client
        named = client.get_default_database(self._database_name)
        return named.with_options(
            write_concern=WriteConcern("majority", wtimeout=MAJORITY_SECONDS * 1000, j=True),
            read_concern=ReadConcern("majority"),
            read_preference=ReadPreference.PRIMARY,
        )

    def _where(self) -> str:
        """Hosts and database, never the user or the password."""
        hosts = self._uri.partition("://")[2].partition("/")[0].rpartition("@")[2].partition("?")[0]
        return f"{hosts}, database {self._database().name}"

    def _silent(self) -> Unavailable:
        return Unavailable("metadata", f"MongoDB at {self._where()} does not answer.")

    @contextmanager
    def _failures(self) -> Iterator[None]:
        try:
            with self._patience.asking():
                yield
        except UnicodeEncodeError as error:
            raise InvalidInput(f"{error.object[:40]!r} is not valid Unicode text.") from None
        except PyMongoError as error:
            # Not "from error": a driver's text may quote the address with its password.
            raise _failure(error, self._where()) from None


def upgrade(database: Database[Document], steps: tuple[Callable[[Database[Document]], None], ...], where: str) -> None:
    """Take the steps the database lacks. Raises CannotStart for one of a newer release."""
    schema = database["schema"]
    found = schema.find_one({"_id": "schema"})
    version = int(found["version"]) if found else 0
    if version > len(steps):
        raise CannotStart(
            f"The ledger at {where} has schema version {version}, this release knows up to {len(steps)}. "
            "Start the newer release that wrote it, or name another database in MONGODB_URI."
        )
    for number, step in enumerate(steps[version:], start=version + 1):
        step(database)
        schema.update_one({"_id": "schema"}, {"$max": {"version": number}}, upsert=True)


_INHERITED: Final[list[MongoClient[Document]]] = []
"""Clients that came through a fork: their connections are the parent's, so they are neither used nor closed."""


def _client(uri: str) -> MongoClient[Document]:
    try:
        return MongoClient(
            uri,
            connect=False,
            appname="spendscope",
            serverSelectionTimeoutMS=SELECT_SECONDS * 1000,
            connectTimeoutMS=SELECT_SECONDS * 1000,
            socketTimeoutMS=ANSWER_SECONDS * 1000,
        )
    except (InvalidURI, ConfigurationError, ValueError):
        # What the driver says may quote a password that was not escaped.
        raise CannotStart(
            "MONGODB_URI cannot be understood. Write it as mongodb://user:password@host:27017/spendscope, "
            "with user and password percent-encoded (@ is %40, / is %2F, : is %3A)."
        ) from None


def _failure(error: PyMongoError, where: str) -> SpendscopeError:
    if isinstance(error, OperationFailure) and error.code in NOT_LET_IN:
        return BadCredentials(
            "metadata",
            f"MongoDB at {where} does not let Spendscope in (code {error.code}). Correct user and password in "
            "MONGODB_URI and give the user the role readWrite on this database.",
        )
    if isinstance(error, DocumentTooLarge):
        return Refused(f"The record is larger than MongoDB at {where} takes (16 MiB); split the file by account.")
    if isinstance(error, ConfigurationError):
        return CannotStart(f"MongoDB at {where} cannot be used: {_told(error)}.")
    if isinstance(error, ConnectionFailure):
        return Unavailable("metadata", f"MongoDB at {where} does not answer: {_told(error)}.")
    return Unavailable("metadata", f"MongoDB at {where} could not do it: {_told(error)}.")


def _told(error: PyMongoError) -> str:
    """The driver's sentence without the state of the whole cluster that it appends."""
    details = error.details if isinstance(error, OperationFailure) else None
    said = str(details.get("errmsg", error)) if details else str(error)
    for appended in (" (configured timeouts", ", Timeout:", ", full error"):
        said = said.partition(appended)[0]
    return said[:200].rstrip(". ") or type(error).__name__


def _due(now: datetime) -> list[Document]:
    """Jobs that wait no longer, or whose worker has gone silent."""
    passed = {"$lte": time_text(now)}
    return [
        {"status": "waiting", "$or": [{"not_before": None}, {"not_before": passed}]},
        {"status": "running", "lease_until": passed},
    ]


def _open_slot(key: str) -> str:
    return f"open {key}"


def _final_slot(id: str) -> str:
    return f"final {id}"


def _inserted(collection: MongoCollection[Document], document: Document) -> bool:
    """False when something with one of its unique values is there already."""
    try:
        collection.insert_one(document)
    except DuplicateKeyError:
        return False
    return True


def _keyed(document: Document, name: str) -> Document:
    """The document with its own key where MongoDB has it."""
    return {"_id": document.pop(name), **document}


def _with_id(document: Document) -> Document:
    return {"id" if name == "_id" else name: value for name, value in document.items()}


def _entry_from(document: Document) -> AuditEntry:
    return entry_from({"number" if name == "_id" else name: value for name, value in document.items()})


def _day_record_from(document: Document) -> DayRecord:
    return day_record_from({**document, "day": document["_id"]})


def _ingestion_from(document: Document) -> Ingestion:
    return ingestion_from({**document, "id": document["_id"]})


def _days(start: date, end: date) -> Document:
    return {"day": {"$gte": str(start), "$lt": str(end)}}


def _revision_document(revision: Revision) -> Document:
    """An account's name may be longer than a key should be."""
    account = hashlib.sha256(revision.account.encode()).hexdigest()[:32]
    return {"_id": f"{revision.day} {account} {revision.revision}", **revision_document(revision)}


def _reference_id(source: str, month: date) -> str:
    return f"{month} {hashlib.sha256(source.encode()).hexdigest()[:32]}"


def _alert_from(document: Document) -> AlertRecord:
    return alert_from(_with_id(document))


def _anomaly_from(document: Document) -> AnomalyRecord:
    return anomaly_from({**document, "id": document["_id"]})


def _grafana_alert_from(document: Document) -> GrafanaAlert:
    return grafana_alert_from({**document, "id": document["_id"]})


def _notice_from(document: Document) -> Notice:
    return notice_from({**document, "id": document["_id"]})


def _delivery_from(document: Document) -> Delivery:
    return delivery_from({**document, "id": document["_id"]})


def _job_from(document: Document) -> Job:
    return job_from({**document, "id": document["_id"]})
