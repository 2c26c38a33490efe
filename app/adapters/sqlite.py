"""Metadata in one SQLite file: the embedded store of ledger, jobs and schedule.

WAL with synchronous=FULL: what was acknowledged survives a crash, readers never wait for the writer. Every change is
one short transaction that takes the write lock first; nothing is computed while it is held.
"""

from __future__ import annotations

import os
import sqlite3
import threading
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import date, datetime
from pathlib import Path
from typing import Any, Final, TypeVar

import orjson

from app.core.anomalyrecords import AnomalyRecord, PlannedSpend
from app.core.budgets import Budget
from app.core.documents import (
    DELIVERY_FIELDS,
    GRAFANA_ALERT_FIELDS,
    JOB_FIELDS,
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
from app.errors import CannotStart, InvalidInput, SpendscopeError, Unavailable
from app.patience import Patience
from app.ports import Listing

Item = TypeVar("Item")
Values = Mapping[str, Any]

LOCK_SECONDS: Final = 5.0
"""How long a change waits for another one to end. Each takes milliseconds; so long means that something holds the lock."""

TURN_SECONDS: Final = 2.5
"""How long a change waits for another one of the same process. Readers never wait."""

OPEN: Final = "status IN ('queued', 'running', 'waiting')"
ENDED: Final = f"status IN ({', '.join(repr(status) for status in sorted(FINAL))})"
CLAIMABLE: Final = """(
    status = 'queued'
    OR (status = 'waiting' AND (not_before IS NULL OR not_before <= :now))
    OR (status = 'running' AND lease_until <= :now)
)"""

STEPS: Final[tuple[tuple[str, ...], ...]] = (
    (
        "CREATE TABLE counter (name TEXT PRIMARY KEY, value INTEGER NOT NULL)",
        "INSERT INTO counter VALUES ('ledger_version', 0)",
        "CREATE TABLE day (day TEXT PRIMARY KEY, revision INTEGER NOT NULL, document TEXT NOT NULL)",
        """CREATE TABLE ingestion (
            id TEXT PRIMARY KEY, source TEXT NOT NULL, key TEXT NOT NULL, version TEXT NOT NULL, day TEXT,
            status TEXT NOT NULL, started TEXT NOT NULL, finished TEXT, document TEXT NOT NULL)""",
        "CREATE INDEX ingestion_newest ON ingestion (started, id)",
        "CREATE INDEX ingestion_status ON ingestion (status, started, id)",
        "CREATE INDEX ingestion_key ON ingestion (key, started, id)",
        "CREATE INDEX ingestion_object ON ingestion (source, key, started, id, version, status, finished)",
        "CREATE INDEX ingestion_day ON ingestion (day, source, key, started, id, status)",
        """CREATE TABLE job (
            id TEXT PRIMARY KEY, kind TEXT NOT NULL, params TEXT NOT NULL, key TEXT NOT NULL, status TEXT NOT NULL,
            created TEXT NOT NULL, priority INTEGER NOT NULL, attempts INTEGER NOT NULL, token INTEGER NOT NULL,
            started TEXT, finished TEXT, not_before TEXT, lease_until TEXT, worker TEXT,
            done_steps INTEGER NOT NULL, all_steps INTEGER, message TEXT, result TEXT NOT NULL)""",
        f"CREATE UNIQUE INDEX job_open ON job (key) WHERE {OPEN}",
        f"CREATE INDEX job_unfinished ON job (priority DESC, created, id) WHERE {OPEN}",
        "CREATE INDEX job_newest ON job (created, id)",
        "CREATE INDEX job_status ON job (status, created, id)",
        "CREATE INDEX job_kind ON job (kind, created, id)",
        "CREATE TABLE slot (name TEXT NOT NULL, slot TEXT NOT NULL, PRIMARY KEY (name, slot))",
    ),
    (
        """CREATE TABLE revision (
            day TEXT NOT NULL, account TEXT NOT NULL, revision INTEGER NOT NULL, document TEXT NOT NULL,
            PRIMARY KEY (day, account, revision))""",
        """CREATE TABLE notice (
            id TEXT PRIMARY KEY, kind TEXT NOT NULL, at TEXT NOT NULL, day TEXT NOT NULL, document TEXT NOT NULL)""",
        "CREATE INDEX notice_newest ON notice (at, id)",
        "CREATE INDEX notice_kind ON notice (kind, at, id)",
        "CREATE INDEX notice_day ON notice (day, at, id)",
        "ALTER TABLE ingestion ADD COLUMN sha256 TEXT AS (json_extract(document, '$.sha256')) VIRTUAL",
        "CREATE INDEX ingestion_bytes ON ingestion (day, sha256)",
        "CREATE TABLE month (month TEXT PRIMARY KEY, document TEXT NOT NULL)",
        """CREATE TABLE reference (
            source TEXT NOT NULL, month TEXT NOT NULL, version TEXT NOT NULL, problem TEXT, document TEXT,
            PRIMARY KEY (source, month))""",
        """CREATE TABLE reference_account (
            source TEXT NOT NULL, month TEXT NOT NULL, account TEXT NOT NULL, rows TEXT NOT NULL,
            PRIMARY KEY (source, month, account))""",
    ),
    (
        """CREATE TABLE delivery (
            id TEXT PRIMARY KEY, channel TEXT NOT NULL, created TEXT NOT NULL, notification TEXT NOT NULL,
            status TEXT NOT NULL, bundle TEXT, attempts INTEGER NOT NULL, not_before TEXT, finished TEXT, message TEXT)""",
        "CREATE INDEX delivery_pending ON delivery (channel, created, id) WHERE status = 'pending'",
        "CREATE INDEX delivery_newest ON delivery (created, id)",
        "CREATE INDEX delivery_channel ON delivery (channel, created, id)",
        "CREATE INDEX delivery_status ON delivery (status, created, id)",
        "CREATE TABLE channel (name TEXT PRIMARY KEY, revision INTEGER NOT NULL, document TEXT NOT NULL)",
    ),
    (
        "CREATE TABLE user (id TEXT PRIMARY KEY, name TEXT NOT NULL UNIQUE, revision INTEGER NOT NULL, document TEXT NOT NULL)",
        """CREATE TABLE session (
            id TEXT PRIMARY KEY, user_id TEXT NOT NULL, created TEXT NOT NULL, seen TEXT NOT NULL, document TEXT NOT NULL)""",
        "CREATE INDEX session_user ON session (user_id, created)",
        """CREATE TABLE api_token (
            id TEXT PRIMARY KEY, sha256 TEXT NOT NULL UNIQUE, created TEXT NOT NULL, used TEXT, revoked TEXT,
            document TEXT NOT NULL)""",
        "CREATE TABLE once (id TEXT PRIMARY KEY, kind TEXT NOT NULL, until TEXT NOT NULL, document TEXT NOT NULL)",
        "CREATE TABLE audit (number INTEGER PRIMARY KEY, document TEXT NOT NULL)",
        """CREATE TRIGGER audit_stays BEFORE UPDATE ON audit
           BEGIN SELECT RAISE(ABORT, 'the audit log is never changed'); END""",
        """CREATE TRIGGER audit_is_kept BEFORE DELETE ON audit
           BEGIN SELECT RAISE(ABORT, 'the audit log is never shortened'); END""",
    ),
    (
        """CREATE TABLE anomaly (
            id TEXT PRIMARY KEY, start TEXT NOT NULL, date TEXT NOT NULL, revision INTEGER NOT NULL, document TEXT NOT NULL)""",
        "CREATE INDEX anomaly_newest ON anomaly (date, id)",
        "CREATE TABLE planned_spend (id TEXT PRIMARY KEY, start TEXT NOT NULL, document TEXT NOT NULL)",
    ),
    ("ALTER TABLE job ADD COLUMN request_id TEXT",),
    (
        "CREATE TABLE budget (id TEXT PRIMARY KEY, name TEXT NOT NULL, revision INTEGER NOT NULL, document TEXT NOT NULL)",
        "CREATE TABLE rule (id TEXT PRIMARY KEY, name TEXT NOT NULL, revision INTEGER NOT NULL, document TEXT NOT NULL)",
        """CREATE TABLE alert (
            id TEXT PRIMARY KEY, rule TEXT NOT NULL, state TEXT NOT NULL, fired TEXT NOT NULL, last TEXT NOT NULL,
            revision INTEGER NOT NULL, document TEXT NOT NULL)""",
        "CREATE INDEX alert_newest ON alert (fired, id)",
        "CREATE INDEX alert_rule ON alert (rule, fired, id)",
        "CREATE INDEX alert_state ON alert (state, fired, id)",
    ),
    # Alerts of Grafana.
    (
        """CREATE TABLE grafana_alert (
            id TEXT PRIMARY KEY, fingerprint TEXT NOT NULL, status TEXT NOT NULL, starts TEXT NOT NULL, ends TEXT,
            labels TEXT NOT NULL, annotations TEXT NOT NULL, "values" TEXT NOT NULL, panel TEXT, rule TEXT, silence TEXT,
            first TEXT NOT NULL, last TEXT NOT NULL, revision INTEGER NOT NULL)""",
        "CREATE INDEX grafana_alert_newest ON grafana_alert (starts, id)",
        "CREATE INDEX grafana_alert_status ON grafana_alert (status, starts, id)",
        "CREATE INDEX grafana_alert_like ON grafana_alert (fingerprint, starts)",
    ),
)
"""Each makes the next schema version from the one before; a released step is never changed. Version n = n steps taken."""


COPY: Final = "metadata.sqlite"
"""The file of a copy."""

LOSSES: Final = ("ingestion", "day", "user", "revision", "anomaly", "audit")
"""Tables whose rows nobody can make again."""


class SqliteMetadata:
    """ports.Metadata in the file `path`. Threads and forked children may share it: each has its own connection."""

    technology = "sqlite"
    schema = len(STEPS)

    def __init__(self, path: Path) -> None:
        self._path = path
        self._mine = threading.local()
        # SQLite lets one write: while somebody else holds its lock, one thread of this process waits for it and not all.
        self._turns = Patience(1, TURN_SECONDS, lambda: Unavailable("metadata", f"{path} {_SAID['SQLITE_LOCKED']}"))

    # --- the store itself

    def prepare(self) -> None:
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._path.touch()
        except OSError as error:
            raise CannotStart(
                f"{self._path} cannot be written ({error.strerror}). Correct SPENDSCOPE_DATA_DIR or its permissions."
            ) from None
        with self._failures():
            upgrade(self._connection(), self._path, STEPS)

    def check(self) -> None:
        self.ledger_version()

    def close(self) -> None:
        """Close every thread's connection, each as soon as it is idle; the next call opens a new one."""
        self._mine = threading.local()

    # --- copies

    def copy_to(self, folder: Path) -> int:
        with self._failures(), _alone(folder / COPY) as copy:
            self._connection().backup(copy)
            copy.execute("PRAGMA journal_mode = DELETE")  # one file, without a log beside it
            return _version(copy)

    def is_empty(self) -> bool:
        if not self._path.exists():
            return True
        with self._failures():
            connection = self._connection()
            tables = {row["name"] for row in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
            asked = (f"SELECT 1 FROM {table} LIMIT 1" for table in LOSSES if table in tables)  # noqa: S608 - our names
            return not any(connection.execute(each).fetchone() for each in asked)

    def replace_from(self, folder: Path, above: int) -> None:
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._path.touch()
            with _alone(folder / COPY) as copy:
                if (said := copy.execute("PRAGMA integrity_check").fetchone()[0]) != "ok" or not _version(copy):
                    raise CannotStart(f"The copy of the ledger is damaged: {str(said)[:200]}")
                with copy:
                    # Above all that was, and so is what it counts from: what is kept of a day at a revision is of no use now.
                    raised = """UPDATE counter SET value = max(value, ?) + 1 + (SELECT coalesce(sum(revision), 0) FROM day)
                                WHERE name = 'ledger_version'"""
                    copy.execute(raised, (max(above, self._version_now()),))
                with self._failures():
                    # One transaction of SQLite's own: whoever opens the file sees all of it or nothing.
                    copy.backup(self._connection())
        except (OSError, sqlite3.DatabaseError) as error:
            raise CannotStart(f"The ledger cannot be put back into {self._path}: {error}") from None

    def _version_now(self) -> int:
        """0 where no ledger can be read: it is to be replaced."""
        try:
            return self.ledger_version()
        except Unavailable:
            return 0

    # --- people

    def put_user(self, user: User) -> bool:
        values = {"id": user.id, "name": user.name, "revision": user.revision, "document": _json(document_of(user))}
        if user.revision == 1:
            change = "INSERT INTO user VALUES (:id, :name, :revision, :document) ON CONFLICT DO NOTHING"
        else:
            change = """UPDATE user SET revision = :revision, document = :document
                        WHERE id = :id AND name = :name AND revision = :revision - 1"""
        return self._changed(change, values)

    def user(self, id: str) -> User | None:
        return self._one("SELECT document FROM user WHERE id = ?", id, user_from)

    def user_named(self, name: str) -> User | None:
        return self._one("SELECT document FROM user WHERE name = ?", name, user_from)

    def users(self) -> list[User]:
        return [
            user_from(orjson.loads(row["document"])) for row in self._rows("SELECT document FROM user ORDER BY name")
        ]

    def has_users(self) -> bool:
        return bool(self._rows("SELECT 1 FROM user LIMIT 1"))

    def put_session(self, session: Session) -> None:
        document = document_of(session)
        with self._writing() as connection:
            connection.execute(
                "INSERT OR REPLACE INTO session VALUES (:id, :user_id, :created, :seen, :document)",
                {**document, "document": _json(document)},
            )

    def session(self, id: str) -> Session | None:
        found = self._rows("SELECT seen, document FROM session WHERE id = ?", (id,))
        return _session_from(found[0]) if found else None

    def sessions(self, user_id: str) -> list[Session]:
        found = self._rows("SELECT seen, document FROM session WHERE user_id = ? ORDER BY created DESC, id", (user_id,))
        return [_session_from(row) for row in found]

    def see_session(self, id: str, seen: datetime) -> None:
        self._changed("UPDATE session SET seen = :seen WHERE id = :id", {"id": id, "seen": time_text(seen)})

    def end_session(self, id: str) -> bool:
        return self._changed("DELETE FROM session WHERE id = :id", {"id": id})

    def end_sessions(self, user_id: str) -> int:
        with self._writing() as connection:
            return connection.execute("DELETE FROM session WHERE user_id = ?", (user_id,)).rowcount

    def forget_sessions(self, *, seen_before: datetime, created_before: datetime) -> int:
        seen, created = time_text(seen_before), time_text(created_before)
        with self._writing() as connection:
            connection.execute("DELETE FROM once WHERE until < ?", (seen,))
            return connection.execute("DELETE FROM session WHERE seen < ? OR created < ?", (seen, created)).rowcount

    def put_token(self, token: ApiToken) -> None:
        document = document_of(token)
        with self._writing() as connection:
            connection.execute(
                "INSERT INTO api_token VALUES (:id, :sha256, :created, :used, :revoked, :document)",
                {**document, "document": _json(document)},
            )

    def token(self, sha256: str) -> ApiToken | None:
        found = self._rows("SELECT used, revoked, document FROM api_token WHERE sha256 = ?", (sha256,))
        return _token_from(found[0]) if found else None

    def tokens(self) -> list[ApiToken]:
        found = self._rows("SELECT used, revoked, document FROM api_token ORDER BY created DESC, id")
        return [_token_from(row) for row in found]

    def use_token(self, id: str, now: datetime) -> None:
        self._changed("UPDATE api_token SET used = :now WHERE id = :id", {"id": id, "now": time_text(now)})

    def revoke_token(self, id: str, now: datetime) -> bool:
        change = "UPDATE api_token SET revoked = :now WHERE id = :id AND revoked IS NULL"
        return self._changed(change, {"id": id, "now": time_text(now)})

    def put_once(self, id: str, kind: str, until: datetime, members: Mapping[str, str]) -> None:
        values = {"id": id, "kind": kind, "until": time_text(until), "document": _json(members)}
        with self._writing() as connection:
            connection.execute("INSERT OR REPLACE INTO once VALUES (:id, :kind, :until, :document)", values)

    def take_once(self, id: str, kind: str, now: datetime) -> Mapping[str, str] | None:
        with self._writing() as connection:
            change = "DELETE FROM once WHERE id = ? AND kind = ? AND until > ? RETURNING document"
            found = connection.execute(change, (id, kind, time_text(now))).fetchone()
        return orjson.loads(found["document"]) if found else None

    def append_audit(self, note: AuditNote) -> AuditEntry:
        with self._writing() as connection:
            last = connection.execute("SELECT document FROM audit ORDER BY number DESC LIMIT 1").fetchone()
            entry = audit_entry(note, entry_from(orjson.loads(last["document"])) if last else None)
            connection.execute("INSERT INTO audit VALUES (?, ?)", (entry.number, _json(entry_document(entry))))
        return entry

    def audit(self, *, limit: int, after: int = 0) -> list[AuditEntry]:
        found = self._rows("SELECT document FROM audit WHERE number > ? ORDER BY number LIMIT ?", (after, limit))
        return [entry_from(orjson.loads(row["document"])) for row in found]

    def audit_length(self) -> int:
        [row] = self._rows("SELECT coalesce(max(number), 0) AS number FROM audit")
        return int(row["number"])

    # --- days

    def day_record(self, day: date) -> DayRecord:
        return self.day_records(day, date.fromordinal(day.toordinal() + 1)).get(day) or DayRecord(day)

    def day_records(self, start: date, end: date) -> dict[date, DayRecord]:
        rows = self._rows("SELECT document FROM day WHERE day >= ? AND day < ? ORDER BY day", (str(start), str(end)))
        records = (day_record_from(orjson.loads(row["document"])) for row in rows)
        return {record.day: record for record in records}

    def day_revisions(self) -> Revisions:
        # One statement sees one moment.
        version, *days = self._rows(
            """SELECT '' AS day, value AS revision FROM counter WHERE name = 'ledger_version'
               UNION ALL SELECT day, revision FROM day ORDER BY day"""
        )
        return Revisions(version["revision"], {date.fromisoformat(row["day"]): row["revision"] for row in days})

    def put_day_record(self, record: DayRecord) -> bool:
        document = _json(day_record_document(record))
        values = {"day": str(record.day), "revision": record.revision, "document": document}
        with self._writing() as connection:
            if record.revision == 1:
                change = "INSERT INTO day VALUES (:day, :revision, :document) ON CONFLICT DO NOTHING"
            else:
                change = """UPDATE day SET revision = :revision, document = :document
                            WHERE day = :day AND revision = :revision - 1"""
            changed = connection.execute(change, values).rowcount == 1
            if changed:
                connection.execute("UPDATE counter SET value = value + 1 WHERE name = 'ledger_version'")
        return changed

    def ledger_version(self) -> int:
        [row] = self._rows("SELECT value FROM counter WHERE name = 'ledger_version'")
        return int(row["value"])

    # --- months

    def put_month_totals(self, totals: MonthTotals) -> None:
        document = month_totals_document(totals)
        self._changed(
            "INSERT INTO month VALUES (:month, :document) ON CONFLICT DO UPDATE SET document = :document",
            {"month": document["month"], "document": _json(document)},
        )

    def month_totals(self, start: date, end: date) -> dict[date, MonthTotals]:
        rows = self._rows(
            "SELECT document FROM month WHERE month >= ? AND month < ? ORDER BY month", (str(start), str(end))
        )
        found = (month_totals_from(orjson.loads(row["document"])) for row in rows)
        return {totals.month: totals for totals in found}

    # --- ingestions

    def put_ingestion(self, ingestion: Ingestion) -> None:
        document = ingestion_document(ingestion)
        with self._writing() as connection:
            connection.execute(
                """INSERT OR REPLACE INTO ingestion
                   VALUES (:id, :source, :key, :version, :day, :status, :started, :finished, :document)""",
                {**document, "document": _json(document)},
            )

    def ingestion(self, id: str) -> Ingestion | None:
        rows = self._rows("SELECT document FROM ingestion WHERE id = ?", (id,))
        return _ingestion_from(rows[0]) if rows else None

    def ingestions(
        self, *, limit: int, cursor: str | None = None, status: str | None = None, key: str | None = None
    ) -> Listing[Ingestion]:
        return self._page(
            "ingestion", "started", {"status": status, "key": key}, limit=limit, cursor=cursor, read=_ingestion_from
        )

    def known_versions(self, source: str) -> dict[tuple[str, str], str]:
        rows = self._rows(
            """SELECT key, version, status FROM ingestion
               WHERE source = ? AND finished IS NOT NULL ORDER BY key, started, id""",
            (source,),
        )
        return {(row["key"], row["version"]): row["status"] for row in rows}

    def versions_of(self, source: str, key: str) -> list[Ingestion]:
        rows = self._rows(
            "SELECT document FROM ingestion WHERE source = ? AND key = ? ORDER BY started DESC, id DESC", (source, key)
        )
        return [_ingestion_from(row) for row in rows]

    def ingestions_with(self, start: date, end: date, sha256s: Collection[str]) -> list[Ingestion]:
        rows = self._rows(
            """SELECT document FROM ingestion
               WHERE day >= ? AND day < ? AND sha256 IN (SELECT value FROM json_each(?))""",
            (str(start), str(end), orjson.dumps(sorted(sha256s)).decode()),
        )
        return [_ingestion_from(row) for row in rows]

    def quarantined_days(self, start: date, end: date, source: str) -> frozenset[date]:
        rows = self._rows(
            """SELECT day, key, status FROM ingestion
               WHERE day >= ? AND day < ? AND source = ? ORDER BY day, key, started, id""",
            (str(start), str(end), source),
        )
        newest = {(row["day"], row["key"]): row["status"] for row in rows}
        return frozenset(date.fromisoformat(day) for (day, _), status in newest.items() if status == "quarantined")

    # --- histories

    def add_revisions(self, revisions: Sequence[Revision]) -> None:
        rows = [{**document, "document": _json(document)} for document in map(revision_document, revisions)]
        with self._writing() as connection:
            connection.executemany(
                "INSERT INTO revision VALUES (:day, :account, :revision, :document) ON CONFLICT DO NOTHING",
                [{name: row[name] for name in ("day", "account", "revision", "document")} for row in rows],
            )

    def revision_keys(self, start: date, end: date) -> set[RevisionKey]:
        rows = self._rows(
            "SELECT day, account, revision FROM revision WHERE day >= ? AND day < ?", (str(start), str(end))
        )
        return {(date.fromisoformat(row["day"]), row["account"], row["revision"]) for row in rows}

    def revisions(self, start: date, end: date, accounts: Collection[str] = ()) -> list[Revision]:
        rows = self._rows(
            """SELECT document FROM revision WHERE day >= :start AND day < :end
               AND (:accounts IS NULL OR account IN (SELECT value FROM json_each(:accounts)))
               ORDER BY day, account, revision""",
            {
                "start": str(start),
                "end": str(end),
                "accounts": orjson.dumps(sorted(accounts)).decode() if accounts else None,
            },
        )
        return [revision_from(orjson.loads(row["document"])) for row in rows]

    def add_notice(self, notice: Notice) -> bool:
        document = notice_document(notice)
        values = {name: document[name] for name in ("id", "kind", "at", "day")} | {"document": _json(document)}
        return self._changed(
            "INSERT INTO notice VALUES (:id, :kind, :at, :day, :document) ON CONFLICT DO NOTHING", values
        )

    def notices(self, *, limit: int, cursor: str | None = None, kind: str | None = None) -> Listing[Notice]:
        return self._page("notice", "at", {"kind": kind}, limit=limit, cursor=cursor, read=_notice_from)

    def notices_about(self, start: date, end: date) -> list[Notice]:
        rows = self._rows(
            "SELECT document FROM notice WHERE day >= ? AND day < ? ORDER BY at DESC, id DESC", (str(start), str(end))
        )
        return [_notice_from(row) for row in rows]

    # --- references

    def put_reference(self, kept: KeptReference) -> None:
        values = {
            "source": kept.source,
            "month": str(kept.month),
            "version": kept.version,
            "problem": storable(kept.problem),
            "document": _json(reference_document(kept.reference)) if kept.reference else None,
        }
        with self._writing() as connection:
            connection.execute(
                """INSERT INTO reference VALUES (:source, :month, :version, :problem, :document)
                   ON CONFLICT DO UPDATE SET version = :version, problem = :problem,
                       document = coalesce(:document, document)""",
                values,
            )
            if kept.reference is None:
                return
            connection.execute("DELETE FROM reference_account WHERE source = :source AND month = :month", values)
            connection.executemany(
                "INSERT INTO reference_account VALUES (?, ?, ?, ?)",
                (
                    (kept.source, values["month"], account, reference_rows(days))
                    for account, days in kept.reference.accounts.items()
                ),
            )

    def reference_versions(self, source: str) -> dict[date, str]:
        rows = self._rows("SELECT month, version FROM reference WHERE source = ?", (source,))
        return {date.fromisoformat(row["month"]): row["version"] for row in rows}

    def reference(self, source: str, month: date) -> KeptReference | None:
        # One statement, so that head and accounts are of one moment.
        rows = self._rows(
            """SELECT version, problem, document, account, rows FROM reference
               LEFT JOIN reference_account USING (source, month) WHERE source = ? AND month = ?""",
            (source, str(month)),
        )
        if not rows:
            return None
        head = rows[0]
        accounts = {row["account"]: row["rows"] for row in rows if row["account"] is not None}
        found = reference_from(orjson.loads(head["document"]), accounts) if head["document"] else None
        return KeptReference(source, month, head["version"], head["problem"], found)

    # --- anomalies

    def put_anomaly(self, record: AnomalyRecord) -> bool:
        document = anomaly_document(record)
        values = {name: document[name] for name in ("id", "start", "date", "revision")} | {"document": _json(document)}
        if record.revision == 1:
            change = "INSERT INTO anomaly VALUES (:id, :start, :date, :revision, :document) ON CONFLICT DO NOTHING"
        else:
            change = """UPDATE anomaly SET start = :start, date = :date, revision = :revision, document = :document
                        WHERE id = :id AND revision = :revision - 1"""
        return self._changed(change, values)

    def anomaly(self, id: str) -> AnomalyRecord | None:
        rows = self._rows("SELECT document FROM anomaly WHERE id = ?", (id,))
        return anomaly_from(orjson.loads(rows[0]["document"])) if rows else None

    def anomalies(self, start: date, end: date) -> list[AnomalyRecord]:
        rows = self._rows(
            "SELECT document FROM anomaly WHERE date >= ? AND start < ? ORDER BY date DESC, id", (str(start), str(end))
        )
        return [anomaly_from(orjson.loads(row["document"])) for row in rows]

    def put_planned_spend(self, plan: PlannedSpend) -> None:
        document = planned_spend_document(plan)
        self._changed(
            """INSERT INTO planned_spend VALUES (:id, :start, :document)
               ON CONFLICT DO UPDATE SET start = :start, document = :document""",
            {"id": document["id"], "start": document["start"], "document": _json(document)},
        )

    def planned_spend(self) -> list[PlannedSpend]:
        rows = self._rows("SELECT document FROM planned_spend ORDER BY start, id")
        return [planned_spend_from(orjson.loads(row["document"])) for row in rows]

    def forget_planned_spend(self, id: str) -> bool:
        return self._changed("DELETE FROM planned_spend WHERE id = :id", {"id": id})

    # --- budgets, rules, alerts

    def put_budget(self, budget: Budget) -> bool:
        return self._put_named("budget", budget_document(budget))

    def budget(self, id: str) -> Budget | None:
        return self._one("SELECT document FROM budget WHERE id = ?", id, budget_from)

    def budgets(self) -> list[Budget]:
        rows = self._rows("SELECT document FROM budget ORDER BY name, id")
        return [budget_from(orjson.loads(row["document"])) for row in rows]

    def remove_budget(self, id: str, revision: int) -> bool:
        change = "DELETE FROM budget WHERE id = :id AND revision = :revision"
        return self._changed(change, {"id": id, "revision": revision})

    def put_rule(self, rule: Rule) -> bool:
        return self._put_named("rule", rule_document(rule))

    def rule(self, id: str) -> Rule | None:
        return self._one("SELECT document FROM rule WHERE id = ?", id, rule_from)

    def rules(self) -> list[Rule]:
        rows = self._rows("SELECT document FROM rule ORDER BY name, id")
        return [rule_from(orjson.loads(row["document"])) for row in rows]

    def remove_rule(self, id: str, revision: int) -> bool:
        change = "DELETE FROM rule WHERE id = :id AND revision = :revision"
        return self._changed(change, {"id": id, "revision": revision})

    def _put_named(self, table: str, document: Values) -> bool:
        """`table` is ours, never a caller's."""
        values = {name: document[name] for name in ("id", "name", "revision")} | {"document": _json(document)}
        if document["revision"] == 1:
            change = f"INSERT INTO {table} VALUES (:id, :name, :revision, :document) ON CONFLICT DO NOTHING"  # noqa: S608
        else:
            change = f"""UPDATE {table} SET name = :name, revision = :revision, document = :document
                         WHERE id = :id AND revision = :revision - 1"""  # noqa: S608
        return self._changed(change, values)

    def put_alert(self, record: AlertRecord) -> bool:
        document = alert_document(record)
        names = ("id", "rule", "state", "fired", "last", "revision")
        values = {name: document[name] for name in names} | {"document": _json(document)}
        if record.revision == 1:
            change = """INSERT INTO alert VALUES (:id, :rule, :state, :fired, :last, :revision, :document)
                        ON CONFLICT DO NOTHING"""
        else:
            change = """UPDATE alert SET state = :state, last = :last, revision = :revision, document = :document
                        WHERE id = :id AND revision = :revision - 1"""
        return self._changed(change, values)

    def alert(self, id: str) -> AlertRecord | None:
        return self._one("SELECT document FROM alert WHERE id = ?", id, alert_from)

    def alerts(
        self, *, limit: int, cursor: str | None = None, rule: str | None = None, state: str | None = None
    ) -> Listing[AlertRecord]:
        filters = {"rule": rule, "state": state}
        return self._page("alert", "fired", filters, limit=limit, cursor=cursor, read=_alert_from)

    def alerts_of(self, rule: str, since: date) -> list[AlertRecord]:
        asked = "SELECT document FROM alert WHERE rule = ? AND (state = 'open' OR last >= ?)"
        return [_alert_from(row) for row in self._rows(asked, (rule, str(since)))]

    def forget_alerts(self, *, fired_before: datetime) -> int:
        with self._writing() as connection:
            change = "DELETE FROM alert WHERE state <> 'open' AND fired < ?"
            return connection.execute(change, (time_text(fired_before),)).rowcount

    # --- alerts of Grafana

    def put_grafana_alert(self, alert: GrafanaAlert) -> bool:
        names = [f'"{name}"' for name in GRAFANA_ALERT_FIELDS]
        if alert.revision == 1:
            places = ", ".join(f":{name}" for name in GRAFANA_ALERT_FIELDS)
            change = f"INSERT INTO grafana_alert ({', '.join(names)}) VALUES ({places}) ON CONFLICT DO NOTHING"  # noqa: S608
        else:
            set_to = ", ".join(f"{name} = :{name.strip(chr(34))}" for name in names)
            change = f"UPDATE grafana_alert SET {set_to} WHERE id = :id AND revision = :revision - 1"  # noqa: S608
        return self._changed(change, grafana_alert_document(alert))

    def grafana_alerts_like(self, fingerprint: str) -> list[GrafanaAlert]:
        rows = self._rows(
            "SELECT * FROM grafana_alert WHERE fingerprint = ? ORDER BY starts DESC", (storable(fingerprint),)
        )
        return [grafana_alert_from(row) for row in rows]

    def grafana_alerts(
        self, *, limit: int, cursor: str | None = None, status: str | None = None
    ) -> Listing[GrafanaAlert]:
        return self._page(
            "grafana_alert", "starts", {"status": status}, limit=limit, cursor=cursor, read=grafana_alert_from
        )

    def forget_grafana_alerts(self, *, heard_before: datetime) -> int:
        with self._writing() as connection:
            return connection.execute("DELETE FROM grafana_alert WHERE last < ?", (time_text(heard_before),)).rowcount

    # --- jobs

    def put_job(self, job: Job) -> tuple[Job, bool]:
        columns = ", ".join(f":{name}" for name in JOB_FIELDS)
        with self._writing() as connection:
            change = f"INSERT INTO job ({', '.join(JOB_FIELDS)}) VALUES ({columns}) ON CONFLICT DO NOTHING"  # noqa: S608
            if connection.execute(change, job_document(job)).rowcount:
                return job, True
            same_key = connection.execute(f"SELECT * FROM job WHERE key = ? AND {OPEN}", (job.key,)).fetchone()  # noqa: S608
            there = same_key or connection.execute("SELECT * FROM job WHERE id = ?", (job.id,)).fetchone()
        return job_from(there), False

    def job(self, id: str) -> Job | None:
        rows = self._rows("SELECT * FROM job WHERE id = ?", (id,))
        return job_from(rows[0]) if rows else None

    def jobs(
        self, *, limit: int, cursor: str | None = None, status: str | None = None, kind: str | None = None
    ) -> Listing[Job]:
        return self._page("job", "created", {"status": status, "kind": kind}, limit=limit, cursor=cursor, read=job_from)

    def claim(self, id: str, *, worker: str, now: datetime, lease_until: datetime) -> Job | None:
        values = {"id": id, "worker": storable(worker), "now": time_text(now), "lease_until": time_text(lease_until)}
        with self._writing() as connection:
            claimed = connection.execute(
                f"""UPDATE job SET status = 'running', token = token + 1, attempts = attempts + 1, worker = :worker,
                        started = :now, lease_until = :lease_until, not_before = NULL,
                        done_steps = 0, all_steps = NULL, message = NULL
                    WHERE id = :id AND {CLAIMABLE}""",  # noqa: S608
                values,
            ).rowcount
            row = connection.execute("SELECT * FROM job WHERE id = ?", (id,)).fetchone() if claimed else None
        return job_from(row) if row else None

    def renew(
        self, id: str, token: int, *, lease_until: datetime, done_steps: int, all_steps: int | None, message: str | None
    ) -> bool:
        return self._changed(
            """UPDATE job SET lease_until = :lease_until, done_steps = :done_steps, all_steps = :all_steps,
                   message = :message
               WHERE id = :id AND token = :token AND status = 'running'""",
            {
                "id": id,
                "token": token,
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
        return self._changed(
            """UPDATE job SET status = :status, finished = :finished, not_before = :not_before, lease_until = NULL,
                   message = :message, result = coalesce(:result, result)
               WHERE id = :id AND token = :token AND status = 'running'""",
            {"id": id, "token": token, **claim_end_document(status, now, message, result, not_before)},
        )

    def requeue(self, id: str, *, now: datetime) -> bool:
        return self._changed(
            f"""UPDATE job SET status = 'queued', lease_until = NULL, not_before = NULL
                WHERE id = :id AND status != 'queued' AND {CLAIMABLE}""",  # noqa: S608
            {"id": id, "now": time_text(now)},
        )

    def cancel(self, id: str, *, now: datetime) -> Job | None:
        self._changed(
            f"""UPDATE job SET status = 'cancelled', finished = :now, lease_until = NULL, not_before = NULL
                WHERE id = :id AND {OPEN}""",  # noqa: S608
            {"id": id, "now": time_text(now)},
        )
        return self.job(id)

    def unfinished(self, *, limit: int = 10_000) -> list[Job]:
        rows = self._rows(
            f"SELECT * FROM job WHERE {OPEN} ORDER BY priority DESC, created, id LIMIT ?",  # noqa: S608
            (limit,),
        )
        return [job_from(row) for row in rows]

    def job_counts(self) -> dict[str, int]:
        rows = self._rows("SELECT status, count(*) AS number FROM job GROUP BY status")
        return dict.fromkeys(JOB_STATUSES, 0) | {row["status"]: row["number"] for row in rows}

    def forget_jobs(self, *, finished_before: datetime) -> int:
        """Also forgets schedule slots that old."""
        before = (time_text(finished_before),)
        with self._writing() as connection:
            connection.execute("DELETE FROM slot WHERE slot < ?", before)
            return connection.execute(f"DELETE FROM job WHERE {ENDED} AND finished < ?", before).rowcount  # noqa: S608

    # --- schedule

    def take_slot(self, name: str, slot: datetime) -> bool:
        return self._changed(
            "INSERT INTO slot VALUES (:name, :slot) ON CONFLICT DO NOTHING", {"name": name, "slot": time_text(slot)}
        )

    def last_slot(self, name: str) -> datetime | None:
        [row] = self._rows("SELECT MAX(slot) AS newest FROM slot WHERE name = ?", (name,))
        return time_from(row["newest"]) if row["newest"] else None

    # --- notifications

    def add_deliveries(self, deliveries: Sequence[Delivery]) -> int:
        columns = ", ".join(f":{name}" for name in DELIVERY_FIELDS)
        with self._writing() as connection:
            before = connection.total_changes
            connection.executemany(
                f"INSERT INTO delivery ({', '.join(DELIVERY_FIELDS)}) VALUES ({columns}) ON CONFLICT DO NOTHING",  # noqa: S608
                map(delivery_document, deliveries),
            )
            return connection.total_changes - before

    def delivery(self, id: str) -> Delivery | None:
        rows = self._rows("SELECT * FROM delivery WHERE id = ?", (id,))
        return delivery_from(rows[0]) if rows else None

    def deliveries(
        self, *, limit: int, cursor: str | None = None, channel: str | None = None, status: str | None = None
    ) -> Listing[Delivery]:
        filters = {"channel": channel, "status": status}
        return self._page("delivery", "created", filters, limit=limit, cursor=cursor, read=delivery_from)

    def pending_deliveries(self, channel: str, *, limit: int = 20_000) -> list[Delivery]:
        rows = self._rows(
            "SELECT * FROM delivery WHERE channel = ? AND status = 'pending' ORDER BY created, id LIMIT ?",
            (channel, limit),
        )
        return [delivery_from(row) for row in rows]

    def pending_channels(self) -> list[str]:
        rows = self._rows("SELECT DISTINCT channel FROM delivery WHERE status = 'pending' ORDER BY channel")
        return [row["channel"] for row in rows]

    def mark_deliveries(self, ids: Sequence[str], attempt: Attempt) -> int:
        change = attempt_document(attempt)
        with self._writing() as connection:
            before = connection.total_changes
            connection.executemany(
                """UPDATE delivery SET status = :status, bundle = :bundle, attempts = :attempts,
                       not_before = :not_before, finished = :finished, message = :message
                   WHERE id = :id AND status = 'pending'""",
                ({"id": each, **change} for each in ids),
            )
            return connection.total_changes - before

    def renew_delivery(self, id: str) -> bool:
        return self._changed(
            """UPDATE delivery SET status = 'pending', bundle = NULL, attempts = 0, not_before = NULL, finished = NULL,
                   message = NULL
               WHERE id = :id AND status = 'failed'""",
            {"id": id},
        )

    def channel_state(self, name: str) -> ChannelState:
        rows = self._rows("SELECT document FROM channel WHERE name = ?", (name,))
        return channel_state_from(orjson.loads(rows[0]["document"])) if rows else ChannelState(name)

    def put_channel_state(self, state: ChannelState) -> bool:
        values = {
            "name": state.name,
            "revision": state.revision,
            "document": _json(channel_state_document(state)),
        }
        if state.revision == 1:
            return self._changed(
                "INSERT INTO channel VALUES (:name, :revision, :document) ON CONFLICT DO NOTHING", values
            )
        return self._changed(
            """UPDATE channel SET revision = :revision, document = :document
               WHERE name = :name AND revision = :revision - 1""",
            values,
        )

    def forget_deliveries(self, *, finished_before: datetime) -> int:
        before = (time_text(finished_before),)
        with self._writing() as connection:
            return connection.execute(
                "DELETE FROM delivery WHERE status != 'pending' AND finished < ?", before
            ).rowcount

    # --- how all of these reach the file

    def _page(
        self,
        table: str,
        time: str,
        filters: Mapping[str, str | None],
        *,
        limit: int,
        cursor: str | None,
        read: Callable[[Any], Item],
    ) -> Listing[Item]:
        """One page in falling (time, id) order; `table`, `time` and the names of `filters` are ours, never a caller's."""
        question = (table, *filters.values())
        wanted = {name: value for name, value in filters.items() if value is not None}
        terms = [f"{name} = :{name}" for name in wanted]
        values: dict[str, Any] = {**wanted, "limit": limit + 1}
        if cursor is not None:
            values["after_time"], values["after_id"] = place_of(question, cursor)
            terms.append(f"({time}, id) < (:after_time, :after_id)")
        where = " AND ".join(terms) or "TRUE"
        rows = self._rows(
            f"SELECT * FROM {table} WHERE {where} ORDER BY {time} DESC, id DESC LIMIT :limit",  # noqa: S608
            values,
        )
        shown = rows[:limit]
        more = len(rows) > limit
        return Listing(
            [read(row) for row in shown], cursor_after(question, shown[-1][time], shown[-1]["id"]) if more else None
        )

    def _one(self, question: str, value: str, read: Callable[[Values], Item]) -> Item | None:
        found = self._rows(question, (value,))
        return read(orjson.loads(found[0]["document"])) if found else None

    def _rows(self, question: str, values: Any = ()) -> list[Any]:
        with self._failures():
            return self._connection().execute(question, values).fetchall()

    def _changed(self, change: str, values: Values) -> bool:
        with self._writing() as connection:
            return connection.execute(change, values).rowcount == 1

    @contextmanager
    def _writing(self) -> Iterator[sqlite3.Connection]:
        """A transaction that holds the write lock from its start, so that what it reads stays true."""
        with self._turns.asking(), self._failures(), _transaction(self._connection()) as connection:
            yield connection

    def _connection(self) -> sqlite3.Connection:
        opened: _Opened | None = getattr(self._mine, "opened", None)
        if opened is None or opened.process != os.getpid():
            opened = self._mine.opened = _Opened(self._path)
        return opened.connection

    @contextmanager
    def _failures(self) -> Iterator[None]:
        try:
            yield
        except (sqlite3.IntegrityError, sqlite3.ProgrammingError):
            raise
        except UnicodeEncodeError as error:
            raise InvalidInput(f"{error.object[:40]!r} is not valid Unicode text.") from None
        except sqlite3.Error as error:
            # A new connection next time: after a damaged or replaced file was put right, the old one would not see it.
            self._mine.opened = None
            raise _failure(error, self._path) from error


class _Opened:
    """One connection, closed with the thread or store that held it."""

    def __init__(self, path: Path) -> None:
        self.process = os.getpid()
        self.connection = sqlite3.connect(
            f"{path.absolute().as_uri()}?mode=rw",
            uri=True,
            timeout=LOCK_SECONDS,
            isolation_level=None,
            # Only so that whichever thread drops the last reference may close it.
            check_same_thread=False,
        )
        self.connection.row_factory = sqlite3.Row
        self.connection.execute("PRAGMA synchronous = FULL")

    def __del__(self) -> None:
        connection: sqlite3.Connection | None = getattr(self, "connection", None)
        if connection is None:
            return
        if self.process == os.getpid():
            connection.close()
        else:
            # SQLite forbids even closing a connection that came through a fork: the parent still works on its locks.
            _INHERITED.append(connection)


_INHERITED: Final[list[sqlite3.Connection]] = []


@contextmanager
def _transaction(connection: sqlite3.Connection) -> Iterator[sqlite3.Connection]:
    connection.execute("BEGIN IMMEDIATE")
    with connection:
        yield connection


@contextmanager
def _alone(path: Path) -> Iterator[sqlite3.Connection]:
    connection = sqlite3.connect(path)
    try:
        yield connection
    finally:
        connection.close()


def upgrade(connection: sqlite3.Connection, path: Path, steps: tuple[tuple[str, ...], ...]) -> None:
    """Take the steps the file lacks, all or none; an older file with data is copied beside it before.

    Raises CannotStart for a file of a newer release, and where the file system cannot carry a WAL.
    """
    version = _version(connection)
    if version > len(steps):
        raise CannotStart(
            f"{path} has schema version {version}, this release knows up to {len(steps)}. Start the newer release "
            f"that wrote it, or move the file away and put back the copy {path.name}.version-{len(steps)} made before."
        )
    _journal_ahead(connection, path)
    if version == len(steps):
        return
    if version:
        copy = path.with_name(f"{path.name}.version-{version}")
        copy.unlink(missing_ok=True)
        connection.execute("VACUUM INTO ?", (str(copy),))
    with _transaction(connection):
        # Another process may have done it since.
        for step in steps[_version(connection) :]:
            for statement in step:
                connection.execute(statement)
        connection.execute(f"PRAGMA user_version = {len(steps)}")


def _version(connection: sqlite3.Connection) -> int:
    return int(connection.execute("PRAGMA user_version").fetchone()[0])


def _journal_ahead(connection: sqlite3.Connection, path: Path) -> None:
    mode = connection.execute("PRAGMA journal_mode = WAL").fetchone()[0]
    if mode != "wal":
        raise CannotStart(
            f"The file system of {path} cannot carry SQLite's write-ahead log (journal mode is {mode}). "
            "Put SPENDSCOPE_DATA_DIR on a local disk."
        )


def _json(document: Mapping[str, Any]) -> str:
    return orjson.dumps(document).decode()


def _ingestion_from(row: sqlite3.Row) -> Ingestion:
    return ingestion_from(orjson.loads(row["document"]))


def _notice_from(row: sqlite3.Row) -> Notice:
    return notice_from(orjson.loads(row["document"]))


def _alert_from(row: sqlite3.Row) -> AlertRecord:
    return alert_from(orjson.loads(row["document"]))


def _session_from(row: sqlite3.Row) -> Session:
    return session_from({**orjson.loads(row["document"]), "seen": row["seen"]})


def _token_from(row: sqlite3.Row) -> ApiToken:
    return token_from({**orjson.loads(row["document"]), "used": row["used"], "revoked": row["revoked"]})


def _failure(error: sqlite3.Error, path: Path) -> SpendscopeError:
    """What to do about it, by SQLite's name of the failure."""
    name = getattr(error, "sqlite_errorname", None) or str(error)
    for start, said in _SAID.items():
        if name.startswith(start):
            return Unavailable("metadata", f"{path} {said}")
    if "no such table" in str(error):
        return Unavailable("metadata", f"{path} holds no ledger yet. `spendscope up` or `spendscope ingest` makes it.")
    return Unavailable("metadata", f"{path} does not work: {error}.")


_SAID: Final = {
    "SQLITE_BUSY": f"has been locked by another process for more than {LOCK_SECONDS:g} s. Try again.",
    "SQLITE_LOCKED": "is locked by another process. Try again.",
    "SQLITE_FULL": "cannot grow: the disk is full. Free some space; nothing that was recorded is lost.",
    "SQLITE_IOERR": "cannot be read or written: the disk reports an error. Free space or replace the disk.",
    "SQLITE_CORRUPT": "is damaged. Stop Spendscope, move it away, put back a backup, and `spendscope ingest`.",
    "SQLITE_NOTADB": "is not a Spendscope ledger. Move it away, or correct SPENDSCOPE_DATA_DIR.",
    "SQLITE_READONLY": "may not be written. Correct its permissions or SPENDSCOPE_DATA_DIR.",
    "SQLITE_PERM": "may not be opened. Correct its permissions or SPENDSCOPE_DATA_DIR.",
    "SQLITE_CANTOPEN": "cannot be opened. `spendscope up` or `spendscope ingest` makes it; else correct its permissions.",
}
