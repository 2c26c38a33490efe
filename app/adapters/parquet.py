"""The embedded cost store: immutable Parquet files (the truth), mapped grids (what is shown), a manifest in SQLite.

    days/YYYY-MM-DD/<name>.parquet   charges of one day, as `replace` took them; never written twice under one name
    months/YYYY-MM.<name>.grids      the read model of one month (app.gridfile); built again when damaged
    manifest.sqlite                  which of these files count, exact totals, and the data version
    lock                             held by the one process that writes

A change is one SQLite transaction. Files it replaced stay for ten minutes, for readers that know the old manifest.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import logging
import os
import sqlite3
import threading
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from app.core.anomalyrecords import AnomalyRecord
from app.core.charges import DIMENSIONS, Totals
from app.core.columns import (
    account_totals,
    as_texts,
    columns_of,
    from_texts,
    narrowed,
    refuse_others,
    tidied,
    widened,
    without_accounts,
)
from app.core.periods import month_of, next_month
from app.core.rollup import DayColumns, Month, Rollup, month_with, month_without
from app.errors import CannotStart, Conflict, Refused, Unavailable
from app.gridfile import DamagedGrids, open_month, write_month
from app.ports import StoredDay

if TYPE_CHECKING:
    import pyarrow as pa

log = logging.getLogger(__name__)

PART: Final = "costs"
FORMAT: Final = 1
KEEP_SECONDS: Final = 600
"""How long files stay that no longer count: longer than any answer takes."""
BUSY_SECONDS: Final = 10.0
_TEXTS: Final = (*DIMENSIONS, "usage_unit")

_TABLES: Final = """
CREATE TABLE IF NOT EXISTS days (
    day TEXT PRIMARY KEY, path TEXT NOT NULL, sha256 TEXT NOT NULL, rows INTEGER NOT NULL, totals TEXT NOT NULL
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS months (first TEXT PRIMARY KEY, path TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS state (one INTEGER PRIMARY KEY CHECK (one = 1), version INTEGER NOT NULL);
INSERT OR IGNORE INTO state VALUES (1, 0);
"""


@dataclass(frozen=True)
class _Kept:
    """A day as the manifest has it; `path` is relative to the store."""

    path: str
    sha256: str
    totals: Mapping[str, Totals]


class ParquetCostStore:
    exact = True
    atomic = True

    def __init__(
        self,
        root: Path,
        *,
        retention_days: int,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
        file_clock: Callable[[], float] = time.time,
    ) -> None:
        """`file_clock` is what the file system stamps files with, in Unix seconds."""
        self._root = root
        self._retention_days = retention_days
        self._now = now
        self._file_clock = file_clock
        self._local = threading.local()
        self._writer = threading.Lock()
        self._loading = threading.Lock()
        self._months: dict[str, Month] = {}
        self._rollup: Rollup | None = None

    def prepare(self) -> None:
        """Create what is missing, build damaged months again, drop files that no longer count."""
        try:
            for directory in ("days", "months"):
                (self._root / directory).mkdir(parents=True, exist_ok=True)
            with self._writing():
                self._create_manifest()
                self._mend_months()
                self._sweep([self._root / "months", *(self._root / "days").iterdir()])
        except (OSError, sqlite3.Error) as error:
            raise CannotStart(
                f"The cost store in {self._root} cannot be used: {error}. Set SPENDSCOPE_DATA_DIR to a directory that can be written."
            ) from error

    def check(self) -> None:
        self._version()

    def oldest(self, today: date) -> date | None:
        return today - timedelta(days=self._retention_days - 1) if self._retention_days else None

    def replace(self, day: date, accounts: frozenset[str], charges: pa.Table) -> StoredDay:
        """See ports.CostStore. Raises Refused (`retention`), Conflict when it reads back something else."""
        self._refuse_expired(day)
        try:
            with self._writing():
                return self._replace(day, accounts, charges)
        except (OSError, sqlite3.Error) as error:
            raise Unavailable(
                PART, f"The cost store in {self._root} cannot be written: {error}. {day} stays as it was."
            ) from error

    def day(self, day: date) -> pa.Table:
        kept = self._kept(day)
        if kept is None:
            from app.core.dailycsv import SCHEMA

            return SCHEMA.empty_table()
        return self._read(kept)

    def stored_days(self) -> Mapping[date, StoredDay]:
        found = {}
        for text, totals in self._query("SELECT day, totals FROM days ORDER BY day"):
            day = date.fromisoformat(text)
            found[day] = StoredDay(day, from_texts(json.loads(totals)))
        return found

    def forget(self, before: date) -> Sequence[date]:
        """See ports.CostStore. Files that are dropped stay for ten minutes, for readers that know the old manifest."""
        try:
            with self._writing():
                gone = self._forget(before)
                self._sweep([self._root / "months", *(self._root / "days").iterdir()])
        except (OSError, sqlite3.Error) as error:
            raise Unavailable(PART, f"The cost store in {self._root} cannot be written: {error}.") from error
        return gone

    def publish(self, day: date) -> None:
        """Nothing to do: `replace` has shown it already."""

    def show_anomalies(self, records: Sequence[AnomalyRecord]) -> None:
        """Nothing to do: nobody reads these files but Spendscope."""

    def rollup(self) -> Rollup:
        version = self._version()
        current = self._rollup
        if current is None or current.version != version:
            current = self._load()
        return current

    # --- writing ---------------------------------------------------------------------------------------------------

    def _refuse_expired(self, day: date) -> None:
        oldest = self.oldest(self._now().date())
        if oldest is not None and day < oldest:
            raise Refused(
                f"{day} is older than the {self._retention_days} days the cost store keeps (since {oldest}). "
                "Raise SPENDSCOPE_RETENTION_DAYS; 0 keeps everything.",
                code="retention",
            )

    @contextmanager
    def _writing(self) -> Iterator[None]:
        """One writer at a time, over threads and processes; a killed one lets go."""
        with self._writer, (self._root / "lock").open("a") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield

    def _replace(self, day: date, accounts: frozenset[str], charges: pa.Table) -> StoredDay:
        before = self._kept(day)
        table = tidied(self._with_others(before, accounts, charges))
        columns = columns_of(day, table)
        # Of a day that is new they are added up beside the building of its month.
        totals = account_totals(columns) if before is not None else None
        if before is not None and before.totals == totals and self._holds(before, table):
            return StoredDay(day, before.totals)
        kept, grids = self._written(day, table, columns, totals)
        replaced = self._commit(day, kept, grids)
        self._retire(replaced)
        self._sweep([(self._root / kept.path).parent, self._root / "months"])
        return StoredDay(day, kept.totals)

    def _holds(self, kept: _Kept, table: pa.Table) -> bool:
        """Whether a day's file has exactly these charges; a damaged one has not."""
        try:
            return bool(tidied(self._read(kept)).equals(widened(table)))
        except Unavailable:
            return False

    def _written(
        self, day: date, table: pa.Table, columns: DayColumns, totals: Mapping[str, Totals] | None
    ) -> tuple[_Kept, str]:
        """New files of the day and of its month, side by side; on any failure neither stays."""
        parquet, grids = self._new_paths(day)
        try:
            with ThreadPoolExecutor(1, "parquet") as beside:
                written = beside.submit(self._write_day, parquet, day, table, columns, totals)
                write_month(self._root / grids, self._month_with(columns))
                kept = written.result()
        except BaseException:
            for path in (parquet, grids):
                (self._root / path).unlink(missing_ok=True)
            raise
        return kept, grids

    def _with_others(self, before: _Kept | None, accounts: frozenset[str], charges: pa.Table) -> pa.Table:
        """The given charges, and those the day has for other accounts."""
        import pyarrow as pa

        from app.core.dailycsv import SCHEMA

        refuse_others(accounts, charges)
        charges = charges.select(SCHEMA.names)
        if before is None or accounts >= before.totals.keys():
            return charges
        return pa.concat_tables([without_accounts(self._read(before), accounts), widened(charges)])

    def _new_paths(self, day: date) -> tuple[str, str]:
        name = uuid.uuid4().hex[:16]
        return f"days/{day}/{name}.parquet", f"months/{day:%Y-%m}.{name}.grids"

    def _write_day(
        self, path: str, day: date, table: pa.Table, columns: DayColumns, totals: Mapping[str, Totals] | None
    ) -> _Kept:
        """Write, fsync, and read everything back from the file. Raises Conflict where that differs."""
        import pyarrow.parquet as pq

        target = self._root / path
        new_directory = not target.parent.exists()
        target.parent.mkdir(exist_ok=True)
        pq.write_table(
            narrowed(table, columns),
            target,
            compression="lz4",
            use_dictionary=list(_TEXTS),
            store_decimal_as_integer=True,
            write_statistics=False,
        )
        _sync(target)
        _sync(target.parent)
        if new_directory:
            _sync(target.parent.parent)
        data = target.read_bytes()
        found = _parsed(data)
        if not found.equals(table) and not widened(found).equals(widened(table)):
            raise Conflict(f"{day} was written, but reads back differently; what was there stays.")
        return _Kept(path, hashlib.sha256(data).hexdigest(), totals if totals is not None else account_totals(columns))

    def _month_with(self, columns: DayColumns) -> Month:
        first = month_of(columns.day)
        for (path,) in self._query("SELECT path FROM months WHERE first = ?", str(first)):
            try:
                return month_with(self._open(path), first, [columns])
            except (DamagedGrids, FileNotFoundError) as error:
                log.warning("%s; building the month again", error)
        others = [day for day in self._days_of(first) if day != columns.day]
        return month_with(None, first, [columns, *self._columns(others)])

    def _commit(self, day: date, kept: _Kept, grids: str) -> list[str]:
        """Let the new files count, all at once; the paths that no longer do."""
        first = str(month_of(day))
        with self._transaction() as connection:
            replaced = connection.execute(
                "SELECT path FROM days WHERE day = ? UNION ALL SELECT path FROM months WHERE first = ?",
                (str(day), first),
            ).fetchall()
            connection.execute(
                "REPLACE INTO days VALUES (?, ?, ?, ?, ?)",
                (
                    str(day),
                    kept.path,
                    kept.sha256,
                    sum(part.rows for part in kept.totals.values()),
                    json.dumps(as_texts(kept.totals)),
                ),
            )
            connection.execute("REPLACE INTO months VALUES (?, ?)", (first, grids))
            connection.execute("UPDATE state SET version = version + 1")
        return [path for (path,) in replaced]

    def _forget(self, before: date) -> list[date]:
        gone = [date.fromisoformat(text) for (text,) in self._query("SELECT day FROM days WHERE day < ?", str(before))]
        if not gone:
            return []
        firsts = {month_of(day) for day in gone}
        last = month_of(before)
        # Of all months only the last one may keep some of its days.
        left = [day for day in self._days_of(last) if day >= before] if last in firsts else []
        path = self._new_paths(last)[1] if left else None
        if path is not None:
            write_month(self._root / path, self._month_left(last, left))
        with self._transaction() as connection:
            paths = connection.execute(
                """SELECT path FROM days WHERE day < :before
                   UNION ALL SELECT path FROM months WHERE first IN (SELECT value FROM json_each(:firsts))""",
                {"before": str(before), "firsts": json.dumps([str(first) for first in firsts])},
            ).fetchall()
            connection.execute("DELETE FROM days WHERE day < ?", (str(before),))
            connection.executemany("DELETE FROM months WHERE first = ?", [(str(first),) for first in firsts])
            if path is not None:
                connection.execute("INSERT INTO months VALUES (?, ?)", (str(last), path))
            connection.execute("UPDATE state SET version = version + 1")
        self._retire(name for (name,) in paths)
        return gone

    def _month_left(self, first: date, days: list[date]) -> Month:
        """The month with these of its days only; built from the charges where its file is damaged."""
        for (path,) in self._query("SELECT path FROM months WHERE first = ?", str(first)):
            try:
                month = self._open(path)
                return month_without(month, [day for day in month.days if day not in days])
            except (DamagedGrids, FileNotFoundError) as error:
                log.warning("%s; building the month again", error)
        return month_with(None, first, self._columns(days))

    def _retire(self, paths: Iterable[str]) -> None:
        """From now on they are old: the sweep goes by the time of the file."""
        now = self._file_clock()
        for path in paths:
            if (self._root / path).exists():
                os.utime(self._root / path, (now, now))

    def _sweep(self, directories: Iterable[Path]) -> None:
        """Remove files that do not count and have not for a while, also what a killed writer left."""
        counted = {path for (path,) in self._query("SELECT path FROM days UNION ALL SELECT path FROM months")}
        before = self._file_clock() - KEEP_SECONDS
        for directory in directories:
            for found in directory.iterdir():
                if found.stat().st_mtime < before and str(found.relative_to(self._root)) not in counted:
                    found.unlink()

    # --- reading ---------------------------------------------------------------------------------------------------

    def _kept(self, day: date) -> _Kept | None:
        for path, sha256, totals in self._query("SELECT path, sha256, totals FROM days WHERE day = ?", str(day)):
            return _Kept(path, sha256, from_texts(json.loads(totals)))
        return None

    def _read(self, kept: _Kept) -> pa.Table:
        """The charges of a day's file, which must be the bytes that were verified when it was written."""
        path = self._root / kept.path
        try:
            data = path.read_bytes()
        except OSError as error:
            raise Unavailable(PART, f"{path} cannot be read: {error.strerror}.") from error
        if hashlib.sha256(data).hexdigest() != kept.sha256:
            raise Unavailable(PART, f"{path} is damaged. Ingest that day again, or restore the file.")
        return widened(_parsed(data))

    def _load(self) -> Rollup:
        with self._loading:
            for _ in range(3):
                version, paths = self._listed()
                if self._rollup is not None and self._rollup.version == version:
                    return self._rollup
                try:
                    months = {path: self._open(path) for path in paths}
                except FileNotFoundError:
                    continue  # Swept since it was listed: the manifest names a newer one.
                except DamagedGrids as error:
                    raise Unavailable(PART, f"{error}. Start Spendscope again: it is built from the charges.") from None
                self._months = months
                self._rollup = Rollup(version, months.values())
                return self._rollup
        raise Unavailable(PART, f"Files of the cost store in {self._root} are missing. Start Spendscope again.")

    def _listed(self) -> tuple[int, list[str]]:
        """Version and months, of one moment."""
        rows = self._query("SELECT version, path FROM state LEFT JOIN months ON true")
        return rows[0][0], [path for _, path in rows if path is not None]

    def _open(self, path: str) -> Month:
        known = self._months.get(path)
        return known if known is not None else open_month(self._root / path)[0]

    # --- mending ---------------------------------------------------------------------------------------------------

    def _mend_months(self) -> None:
        paths = dict(self._query("SELECT first, path FROM months"))
        firsts = {text[:7] + "-01" for (text,) in self._query("SELECT day FROM days")}
        for text in sorted(firsts):
            first = date.fromisoformat(text)
            if text in paths and self._is_whole(paths[text]):
                continue
            path = self._new_paths(first)[1]
            write_month(self._root / path, month_with(None, first, self._columns(self._days_of(first))))
            with self._transaction() as connection:
                connection.execute("REPLACE INTO months VALUES (?, ?)", (text, path))
                connection.execute("UPDATE state SET version = version + 1")

    def _is_whole(self, path: str) -> bool:
        try:
            open_month(self._root / path, verify=True)
        except (DamagedGrids, FileNotFoundError) as error:
            log.warning("%s; building the month again", error)
            return False
        return True

    def _days_of(self, first: date) -> list[date]:
        rows = self._query("SELECT day FROM days WHERE day >= ? AND day < ?", str(first), str(next_month(first)))
        return [date.fromisoformat(text) for (text,) in rows]

    def _columns(self, days: Iterable[date]) -> list[DayColumns]:
        return [columns_of(day, self.day(day)) for day in days]

    # --- the manifest ----------------------------------------------------------------------------------------------

    def _create_manifest(self) -> None:
        connection = self._connect("rwc")
        try:
            found = connection.execute("PRAGMA user_version").fetchone()[0]
            if found > FORMAT:
                raise CannotStart(
                    f"The cost store in {self._root} has format {found}; this Spendscope knows {FORMAT}. Use the newer one."
                )
            connection.execute("PRAGMA journal_mode = WAL")
            connection.executescript(f"BEGIN IMMEDIATE;{_TABLES}PRAGMA user_version = {FORMAT};COMMIT")
        finally:
            connection.close()

    def _connect(self, mode: str) -> sqlite3.Connection:
        uri = (self._root / "manifest.sqlite").resolve().as_uri()
        connection = sqlite3.connect(f"{uri}?mode={mode}", uri=True, timeout=BUSY_SECONDS, isolation_level=None)
        connection.execute("PRAGMA synchronous = FULL")
        return connection

    def _connection(self) -> sqlite3.Connection:
        """One a thread; a connection never survives a fork."""
        if getattr(self._local, "process", None) != os.getpid():
            self._local.connection = self._connect("rw")
            self._local.process = os.getpid()
        connection: sqlite3.Connection = self._local.connection
        return connection

    def _query(self, text: str, *values: str) -> list[tuple[Any, ...]]:
        try:
            return self._connection().execute(text, values).fetchall()
        except sqlite3.Error as error:
            raise Unavailable(PART, f"The cost store in {self._root} cannot be read: {error}.") from error

    def _version(self) -> int:
        return int(self._query("SELECT version FROM state")[0][0])

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        connection = self._connection()
        connection.execute("BEGIN IMMEDIATE")
        try:
            yield connection
            connection.execute("COMMIT")
        except BaseException:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            raise


def _parsed(data: bytes) -> pa.Table:
    import pyarrow as pa
    import pyarrow.parquet as pq

    with pq.ParquetFile(pa.BufferReader(data), read_dictionary=list(_TEXTS)) as file:
        return file.read().unify_dictionaries()


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
