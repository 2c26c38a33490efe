"""The cost store on InfluxDB 2: one point per series and day, and the read model kept as files beside the process.

InfluxDB answers a page's question in seconds, so no request ever asks it: `rollup` serves months that were loaded and
held against the ledger before (app.gridfile, shared by the processes of one machine or pod). A look at the ledger in
the background finds the days that were flipped since. Only the first `rollup` of a process waits for that.
"""

# mypy: allow-untyped-calls
from __future__ import annotations

import contextlib
import csv
import fcntl
import hashlib
import io
import logging
import os
import random
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

import numpy as np
from influxdb_client.client.exceptions import InfluxDBError
from influxdb_client.client.flux_csv_parser import FluxCsvParserException
from influxdb_client.client.influxdb_client import InfluxDBClient
from influxdb_client.client.write_api import SYNCHRONOUS
from influxdb_client.domain.bucket_retention_rules import BucketRetentionRules
from influxdb_client.domain.dialect import Dialect
from influxdb_client.domain.write_precision import WritePrecision
from influxdb_client.rest import ApiException
from urllib3.exceptions import HTTPError

from app.adapters.flux import ANOMALY_POINTS, KEYS, POINTS, anomaly_of, points_of
from app.core.amounts import EXACT, from_decimals, text
from app.core.anomalyrecords import AnomalyRecord
from app.core.charges import DIMENSIONS, MAY_BE_ABSENT, METRICS, NOTHING, Totals
from app.core.columns import account_totals, columns_of, refuse_others, tidied
from app.core.ledger import DayRecord
from app.core.lineprotocol import ANOMALY_TAGS, BLOCK_LINES, anomaly_line, anomaly_tags, blocks_of, zero_blocks
from app.core.periods import DAY, EARLIEST, month_of, next_month
from app.core.rollup import DayColumns, Month, Rollup, month_with, month_without
from app.errors import BadCredentials, CannotStart, Conflict, Refused, Unavailable
from app.gridfile import DamagedGrids, open_month, write_month
from app.ports import Ledger, StoredDay

if TYPE_CHECKING:
    import pyarrow as pa

log = logging.getLogger(__name__)

PART: Final = "costs"
TIMEOUTS: Final = (3_000, 60_000)
"""Milliseconds to connect and to wait for an answer."""
ATTEMPTS: Final = 4
FIRST_PAUSE, LONGEST_PAUSE = 0.5, 20.0
AGREES: Final = Decimal("1e-6")
"""How closely sums of floats must agree with exact ones, relative to their size from 1 up."""
LONGEST_SHARD_DAYS: Final = 365
"""Of a bucket that keeps everything."""
READ_DAYS: Final = 5
"""Days read by one query: InfluxDB's work is mostly per series, ours per point."""

Result = TypeVar("Result")
Key = tuple[str, ...]
"""The values of one point in the order of DIMENSIONS."""
Mark = tuple[date, frozenset[tuple[str, str]]]
"""Where an anomaly's point lies: its day and its tags."""
Points = dict[Key, dict[str, str]]
"""The points of a day: their fields, as InfluxDB writes them."""


class InfluxCostStore:
    exact = False
    atomic = False

    def __init__(
        self,
        *,
        url: str,
        token: str,
        org: str,
        bucket: str,
        retention_days: int,
        ledger: Ledger,
        cache_dir: Path,
        refresh_seconds: float = 2.0,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
        monotonic: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._server = _Server(url, token, org, bucket, sleep)
        self._retention_days = retention_days
        self._now = now
        place = hashlib.sha256("\0".join((url, org, bucket)).encode()).hexdigest()[:16]
        self._model = _ReadModel(self._server, ledger, cache_dir / place, self._oldest_shown)
        self._refresh_seconds = refresh_seconds
        self._monotonic = monotonic
        self._next_look = 0.0
        self._failure: Unavailable | None = None
        self._read_back: DayColumns | None = None

    def prepare(self) -> None:
        """Create the bucket, or check that it keeps what it should. Raises CannotStart, Unavailable, BadCredentials."""
        self._model.prepare()
        seconds = self._retention_days * 86_400
        found = self._server.bucket_retention()
        if found is None:
            found = self._make_bucket(seconds)
        if found != seconds:
            raise CannotStart(
                f"The InfluxDB bucket {self._server.bucket!r} keeps {_days(found)}, but SPENDSCOPE_RETENTION_DAYS asks for "
                f"{_days(seconds)}. Set it to {found // 86_400}, or change the bucket: "
                f"influx bucket update --id … --retention {seconds}s"
            )

    def _make_bucket(self, seconds: int) -> int:
        """Its retention; another process that starts now may have been first."""
        try:
            self._server.create_bucket(seconds, _shard_seconds(self._retention_days))
        except CannotStart:
            found = self._server.bucket_retention()
            if found is None:
                raise
            return found
        return seconds

    def check(self) -> None:
        if self._server.bucket_retention() is None:
            raise Unavailable(PART, f"InfluxDB has no bucket {self._server.bucket!r} that the token may read.")

    def oldest(self, today: date) -> date | None:
        """InfluxDB forgets by the hour: the day that is half beyond retention is not counted."""
        return today - timedelta(days=self._retention_days - 1) if self._retention_days else None

    def replace(self, day: date, accounts: frozenset[str], charges: pa.Table) -> StoredDay:
        """See ports.CostStore. Raises Refused (`retention`), Quarantined for text InfluxDB cannot hold, Conflict when
        it refuses the points or reads back something else."""
        self._refuse_expired(day)
        refuse_others(accounts, charges)
        table = tidied(charges)
        expected = columns_of(day, table)
        blocks = list(blocks_of(day, table))
        self._clear(day, accounts, _keys(expected))
        for block in blocks:
            self._server.write(block)
        stored = self._server.columns([day])[day]
        totals = account_totals(stored)
        _compare(day, accounts, account_totals(expected), totals)
        self._read_back = stored
        return StoredDay(day, totals)

    def day(self, day: date) -> pa.Table:
        return tidied(_table(self._server.columns([day])[day]))

    def stored_days(self) -> Mapping[date, StoredDay]:
        """Nothing: what readers see is decided by the ledger here."""
        return {}

    def forget(self, before: date) -> Sequence[date]:  # noqa: ARG002
        """Nothing to do: the bucket's retention drops points, and the read model shows no older ones."""
        return ()

    def publish(self, day: date) -> None:
        stored, self._read_back = self._read_back, None
        self._model.load_month(month_of(day), stored if stored is not None and stored.day == day else None)
        if self._model.rollup is not None:
            self.refresh()

    def rollup(self) -> Rollup:
        """What was loaded last. Raises Unavailable only while nothing has been loaded since the process began."""
        loaded = self._model.rollup
        if loaded is None:
            return self._first()
        if self._monotonic() >= self._next_look:
            self._next_look = self._monotonic() + self._refresh_seconds
            self._model.refresh_behind()
        return loaded

    def show_anomalies(self, records: Sequence[AnomalyRecord]) -> None:
        """Their points (measurement `anomaly`); those of anomalies that moved or are shown no more are deleted."""
        oldest = self._oldest_shown()
        lines = {_marked(record): anomaly_line(record) for record in records if record.date >= oldest}
        there = self._server.anomalies()
        for first in range(0, len(lines), BLOCK_LINES):
            self._server.write("".join(list(lines.values())[first : first + BLOCK_LINES]).encode())
        for at, tags in there - lines.keys():
            self._server.delete_anomaly(at, dict(tags))

    def _first(self) -> Rollup:
        """Load before anything can be shown; a failure is told to everyone who asks in the next moments."""
        if self._failure is not None and self._monotonic() < self._next_look:
            raise self._failure
        try:
            return self._model.first()
        except Unavailable as error:
            self._failure = error
            self._next_look = self._monotonic() + self._refresh_seconds
            raise

    def refresh(self) -> None:
        """Load every day that was flipped since; readers see it when all of it is there."""
        self._model.refresh()

    def _oldest_shown(self) -> date:
        return self.oldest(self._now().date()) or EARLIEST

    def _refuse_expired(self, day: date) -> None:
        oldest = self.oldest(self._now().date())
        if oldest is not None and day < oldest:
            raise Refused(
                f"{day} is older than the {self._retention_days} days InfluxDB keeps (since {oldest}). "
                "Raise SPENDSCOPE_RETENTION_DAYS and the bucket's retention; 0 keeps everything.",
                code="retention",
            )

    def _clear(self, day: date, accounts: frozenset[str], new: Mapping[Key, bool]) -> None:
        """Zero the points that vanished. A field cannot be taken from a point: where a blended cost is to go, the
        account's points of the day are deleted instead."""
        stored = {
            key: fields
            for key, fields in self._server.points(KEYS, day, 1).get(day, {}).items()
            if key[_ACCOUNT] in accounts
        }
        losing = {key[_ACCOUNT] for key, fields in stored.items() if MAY_BE_ABSENT in fields and new.get(key) is False}
        for account in sorted(losing):
            self._server.delete(day, account)
        vanished = [(key, MAY_BE_ABSENT in fields) for key, fields in stored.items() if key not in new]
        for block in zero_blocks(day, (point for point in vanished if point[0][_ACCOUNT] not in losing)):
            self._server.write(block)


def _marked(record: AnomalyRecord) -> Mark:
    return record.date, frozenset(anomaly_tags(record).items())


_ACCOUNT: Final = DIMENSIONS.index("account")


def _keys(day: DayColumns) -> dict[Key, bool]:
    """Each charge's key, and whether it has a blended cost."""
    columns = [np.array(day.values[name], object)[day.codes[name]].tolist() for name in DIMENSIONS]
    blended = [True] * len(day) if day.absent is None else (~day.absent).tolist()
    return dict(zip(zip(*columns, strict=True), blended, strict=True))


def _compare(day: date, accounts: frozenset[str], expected: Mapping[str, Totals], stored: Mapping[str, Totals]) -> None:
    for account in sorted(accounts):
        wrong = _difference(expected.get(account, NOTHING), stored.get(account, NOTHING))
        if wrong:
            raise Conflict(f"InfluxDB reads back {day}, account {account!r} differently: {wrong}.")


def _difference(expected: Totals, stored: Totals) -> str | None:
    for metric in METRICS:
        want, have = expected.of(metric), stored.of(metric)
        if want is None or have is None:
            agree = want is have
        else:
            agree = abs(EXACT.subtract(want, have)) <= AGREES * max(abs(want), Decimal(1))
        if not agree:
            return f"{metric} is {_shown(have)}, not {_shown(want)}"
    return None


def _shown(value: Decimal | None) -> str:
    return "not available" if value is None else text(value)


def _table(day: DayColumns) -> pa.Table:
    import pyarrow as pa

    from app.core.csvnumbers import EXACT as DECIMAL
    from app.core.dailycsv import SCHEMA

    arrays: dict[str, Any] = {
        name: pa.DictionaryArray.from_arrays(pa.array(day.codes[name]), pa.array(day.values[name], pa.string()))
        for name in DIMENSIONS
    }
    for metric in METRICS:
        mask = day.absent if metric == MAY_BE_ABSENT else None
        arrays[metric] = pa.array(day.amounts[metric].decimals(), DECIMAL, mask=mask)
    arrays["usage_unit"] = pa.nulls(len(day), SCHEMA.field("usage_unit").type)
    arrays["estimated"] = pa.array(np.zeros(len(day), np.bool_))
    return pa.table(arrays, schema=SCHEMA)


def _days(seconds: int) -> str:
    return "everything" if not seconds else f"{seconds / 86_400:g} days"


def _shard_seconds(days: int) -> int:
    """Shard groups are dropped whole: a third of the retention stays longer at most. Each costs a query something for
    every series, and that is most of what a chart of daily points costs (docs/grafana.md)."""
    if not days:
        return LONGEST_SHARD_DAYS * 86_400
    length = min(LONGEST_SHARD_DAYS, days // 3) if days >= 90 else 7 if days >= 14 else 1
    return length * 86_400


class _Server:
    """What we say to InfluxDB: bounded retries for what can be repeated, our errors for all that goes wrong."""

    def __init__(self, url: str, token: str, org: str, bucket: str, sleep: Callable[[float], None]) -> None:
        self.url, self.org, self.bucket = url, org, bucket
        self._token = token
        self._sleep = sleep
        self._opened: tuple[int, InfluxDBClient] | None = None

    @property
    def _client(self) -> InfluxDBClient:
        """Connections never survive a fork."""
        if self._opened is None or self._opened[0] != os.getpid():
            self._opened = os.getpid(), InfluxDBClient(self.url, token=self._token, org=self.org, timeout=TIMEOUTS)
        return self._opened[1]

    def bucket_retention(self) -> int | None:
        """Seconds the bucket keeps points, 0 for ever; None when there is no such bucket."""
        found = self._asked(
            "look for the bucket",
            lambda: self._client.buckets_api().find_buckets(name=self.bucket, org=self.org).buckets,
            attempts=1,
            missing=list,
        )
        if not found:
            return None
        rules = found[0].retention_rules
        return int(rules[0].every_seconds or 0) if rules else 0

    def create_bucket(self, seconds: int, shard_seconds: int) -> None:
        rules = BucketRetentionRules(type="expire", every_seconds=seconds, shard_group_duration_seconds=shard_seconds)
        try:
            self._asked(
                "create the bucket",
                lambda: self._client.buckets_api().create_bucket(
                    bucket_name=self.bucket, retention_rules=rules, org=self.org
                ),
                attempts=1,
            )
        except (BadCredentials, Conflict, InfluxDBError) as error:
            # The driver's own error: it looks for the organisation first, and the token may see none of that name.
            raise CannotStart(
                f"InfluxDB at {self.url} has no bucket {self.bucket!r} in organisation {self.org!r}, and it cannot be created: "
                f"{error.message} Create it, correct INFLUXDB_ORG, or use a token that may."
            ) from error

    def write(self, block: bytes) -> None:
        """A block of lines, precision s. Writing the same points again changes nothing."""
        self._asked(
            "write",
            lambda: self._client.write_api(write_options=SYNCHRONOUS).write(
                self.bucket,
                self.org,
                block,
                write_precision=WritePrecision.S,  # type: ignore[arg-type]
            ),
        )

    def delete(self, day: date, account: str) -> None:
        start = datetime(day.year, day.month, day.day, tzinfo=UTC)
        # Both ends are included, and there is one point a day.
        stop = start + timedelta(hours=23)
        predicate = points_of(account)
        self._asked("delete", lambda: self._client.delete_api().delete(start, stop, predicate, self.bucket, self.org))

    def anomalies(self) -> set[Mark]:
        """Where anomalies are shown."""
        values = {"_bucket": self.bucket, "_start": _EVER[0], "_stop": _EVER[1]}
        return self._asked("query", lambda: self._marks(values), attempts=2)

    def _marks(self, values: Mapping[str, Any]) -> set[Mark]:
        try:
            return {
                (record.get_time().date(), frozenset((name, record.values.get(name) or "") for name in ANOMALY_TAGS))
                for record in self._client.query_api().query_stream(ANOMALY_POINTS, params=dict(values))
            }
        except (FluxCsvParserException, LookupError, TypeError, ValueError) as error:
            # A proxy's page, or an answer that was cut off.
            raise ConnectionError("no table") from error

    def delete_anomaly(self, day: date, tags: Mapping[str, str]) -> None:
        start = datetime(day.year, day.month, day.day, tzinfo=UTC)
        predicate = anomaly_of({name: value for name, value in tags.items() if value})
        stop = start + timedelta(hours=23)
        self._asked("delete", lambda: self._client.delete_api().delete(start, stop, predicate, self.bucket, self.org))

    def columns(self, days: Sequence[date]) -> dict[date, DayColumns]:
        """Points of consecutive or scattered days as they are stored, without all-zero ones."""
        found: dict[date, DayColumns] = {}
        todo = sorted(days)
        while todo:
            first = todo[0]
            group = [day for day in todo if day < first + READ_DAYS * DAY]
            points = self.points(POINTS, first, (group[-1] - first).days + 1)
            found |= {day: _columns_of(day, points.get(day, {})) for day in group}
            todo = todo[len(group) :]
        return found

    def points(self, query: str, first: date, days: int) -> dict[date, Points]:
        start = datetime(first.year, first.month, first.day, tzinfo=UTC)
        values = {"_bucket": self.bucket, "_start": start, "_stop": start + timedelta(days=days)}
        return self._asked("query", lambda: self._queried(query, values), attempts=2)

    def _queried(self, query: str, values: Mapping[str, Any]) -> dict[date, Points]:
        dialect = Dialect(header=True, delimiter=",", comment_prefix="#", annotations=[], date_time_format="RFC3339")
        answer = self._client.query_api().query_raw(query, dialect=dialect, params=dict(values))
        answer.auto_close = False  # or it counts as closed before its last line is read
        with contextlib.closing(answer):
            return _points(io.TextIOWrapper(answer, "utf-8", newline=""))

    def _asked(
        self,
        what: str,
        ask: Callable[[], Result],
        *,
        attempts: int = ATTEMPTS,
        missing: Callable[[], Result] | None = None,
    ) -> Result:
        """The answer, after as many attempts as it takes and is worth: full jitter, the server's own wish first."""
        for attempt in range(1, attempts + 1):
            try:
                return ask()
            except ApiException as error:
                if error.status == 404 and missing is not None:
                    return missing()
                if attempt == attempts or not _worth_repeating(error.status):
                    raise self._problem(what, error) from error
                pause = _retry_after(error)
            except (HTTPError, OSError) as error:
                if attempt == attempts:
                    raise Unavailable(
                        PART, f"InfluxDB at {self.url} does not answer ({what}): {type(error).__name__}."
                    ) from error
                pause = None
            longest = min(LONGEST_PAUSE, FIRST_PAUSE * 2 ** (attempt - 1))
            self._sleep(min(pause, LONGEST_PAUSE) if pause is not None else random.uniform(0, longest))  # noqa: S311
        raise AssertionError("unreachable")

    def _problem(self, what: str, error: ApiException) -> Exception:
        said = _said(error)
        if error.status in (401, 403):
            return BadCredentials(
                PART, f"InfluxDB at {self.url} does not let INFLUXDB_TOKEN {what} in {self.bucket!r}: {said}."
            )
        if error.status == 404:
            return Unavailable(
                PART, f"InfluxDB at {self.url} has no bucket {self.bucket!r} in organisation {self.org!r}: {said}."
            )
        if error.status is not None and 400 <= error.status < 500 and not _worth_repeating(error.status):
            return Conflict(f"InfluxDB refused to {what} ({error.status}): {said}.")
        pause = _retry_after(error)
        return Unavailable(
            PART,
            f"InfluxDB at {self.url} cannot {what} ({error.status}): {said}.",
            retry_after=15 if pause is None else int(pause) + 1,
        )


_EVER: Final = datetime(1970, 1, 1, tzinfo=UTC), datetime(2200, 1, 1, tzinfo=UTC)


def _worth_repeating(status: int | None) -> bool:
    return status is None or status in (408, 425, 429) or status >= 500


def _retry_after(error: ApiException) -> float | None:
    value = str(error.headers.get("Retry-After", "")) if error.headers else ""
    return float(value) if value.isascii() and value.isdigit() else None


def _said(error: ApiException) -> str:
    """What the server says is wrong, in at most 500 characters."""
    said = str((error.message if error.response is not None else error.reason) or "no reason given")
    return said[:500].rstrip(".")


def _points(lines: Iterator[str]) -> dict[date, Points]:
    """Points of a streamed answer. An error after its beginning comes as a table of its own.

    What lacks a dimension is left out: none of ours does (see lineprotocol.escaped), and it has no column at all in a
    table in which every point lacks it.
    """
    found: dict[date, Points] = {}
    header: list[str] | None = None
    places: list[int] = []
    time_at = field_at = value_at = foreign = 0
    for row in csv.reader(lines):
        if not row:
            header = None
        elif header is None:
            header = row
            if "error" in header:
                continue
            places = [header.index(name) for name in DIMENSIONS if name in header]
            time_at, field_at, value_at = (header.index(name) for name in ("_time", "_field", "_value"))
        elif "error" in header:
            raise ApiException(status=500, reason=row[header.index("error")][:500])
        else:
            key = tuple([row[place] for place in places])
            if len(key) < len(DIMENSIONS) or "" in key:
                foreign += 1
                continue
            day = found.setdefault(date.fromisoformat(row[time_at][:10]), {})
            day.setdefault(key, {})[row[field_at]] = row[value_at]
    if foreign:
        log.warning("Left out %d values in InfluxDB that lack a dimension: Spendscope did not write them.", foreign)
    return found


def _columns_of(day: date, points: Points) -> DayColumns:
    """Exact decimals of what InfluxDB writes: the shortest text that is this float."""
    values: dict[str, list[str]] = {}
    codes = {}
    for place, name in enumerate(DIMENSIONS):
        known: dict[str, int] = {}
        codes[name] = np.array([known.setdefault(key[place], len(known)) for key in points], np.int32)
        values[name] = list(known)
    absent = np.array([MAY_BE_ABSENT not in fields for fields in points.values()], np.bool_)
    amounts = {
        metric: from_decimals([Decimal(fields.get(metric, "0")) for fields in points.values()]) for metric in METRICS
    }
    return DayColumns(day, values, codes, amounts, absent if absent.any() else None).counting()


@dataclass(frozen=True)
class _Loaded:
    """A month and, for each of its days, the stamp of the day record it was held against."""

    month: Month
    stamps: Mapping[str, str]


class _ReadModel:
    """Months of the ledger's verified days, in files that the processes of one machine share."""

    def __init__(self, server: _Server, ledger: Ledger, directory: Path, oldest: Callable[[], date]) -> None:
        self.rollup: Rollup | None = None
        self._server = server
        self._ledger = ledger
        self._directory = directory
        self._oldest = oldest
        self._months: dict[date, _Loaded] = {}
        self._refreshing = threading.Lock()
        self._seen: dict[date, tuple[int, Mapping[date, int]]] = {}
        self._unfinished: set[date] = set()
        self._shown_since: date | None = None

    def prepare(self) -> None:
        try:
            self._directory.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise CannotStart(
                f"{self._directory} cannot be created: {error.strerror}. Set SPENDSCOPE_DATA_DIR."
            ) from error

    def first(self) -> Rollup:
        """Load everything, or raise; who comes meanwhile waits for the same."""
        self.refresh()
        assert self.rollup is not None
        return self.rollup

    def refresh_behind(self) -> None:
        """Refresh in a thread of its own unless one is at it."""
        if not self._refreshing.locked():
            threading.Thread(target=self._refresh_quietly, name="influxdb-refresh", daemon=True).start()

    def _refresh_quietly(self) -> None:
        try:
            self.refresh()
        except Exception as error:
            log.warning("The read model stays at version %s: %s", self.rollup and self.rollup.version, error)

    def refresh(self) -> None:
        with self._refreshing:
            version, oldest = self._ledger.ledger_version(), self._oldest()
            current = self.rollup
            same = current is not None and current.version == version and self._shown_since == oldest
            if same and not self._unfinished:
                return
            months = self._followed(oldest)
            self._months = months
            self._unfinished &= months.keys()
            self._shown_since = oldest
            self.rollup = Rollup(version, [loaded.month for loaded in months.values() if loaded.month.days])

    def load_month(self, first: date, stored: DayColumns | None) -> None:
        """Bring one month's file up to date; `stored` is a day that was just read back by its only writer."""
        with self._refreshing:
            self._months[first] = self._month(first, self._oldest(), stored)

    def _followed(self, oldest: date) -> dict[date, _Loaded]:
        """All months. One whose days are at the revisions of the last look is looked at again only if that was not the end."""
        revisions, found = self._ledger.day_revisions(), dict[date, _Loaded]()
        shown = sorted(item for item in revisions.days.items() if item[0] >= oldest)
        for first, days in groupby(shown, lambda item: month_of(item[0])):
            seen, loaded = (revisions.origin, dict(days)), self._months.get(first)
            if loaded is None or first in self._unfinished or self._seen.get(first) != seen:
                loaded = self._looked_at(first, oldest)
                self._seen[first] = seen
            found[first] = loaded
        return found

    def _looked_at(self, first: date, oldest: date) -> _Loaded:
        self._unfinished.discard(first)
        try:
            return self._month(first, oldest)
        except BaseException:
            self._unfinished.add(first)
            raise

    def _month(self, first: date, oldest: date, stored: DayColumns | None = None) -> _Loaded:
        """The month as the ledger has it now; days being restated as they were last verified."""
        loaded = self._months.get(first)
        if loaded is not None and not self._missing(loaded, self._records(first, oldest)):
            return loaded
        path = self._directory / f"{first:%Y-%m}.grids"
        with self._locked():
            records = self._records(first, oldest)
            before = self._opened(path)
            if before is None or self._missing(before, records):
                after = self._brought_up(before, first, records, stored)
                write_month(path, after.month, {"stamps": after.stamps})
            opened = self._opened(path)
        assert opened is not None
        return opened

    def _records(self, first: date, oldest: date) -> dict[date, DayRecord]:
        start, end = max(first, oldest), next_month(first)
        found = self._ledger.day_records(start, end) if start < end else {}
        return {day: record for day, record in found.items() if record.sources or record.accounts}

    def _missing(self, loaded: _Loaded, records: Mapping[date, DayRecord]) -> bool:
        gone = any(day not in records for day in loaded.month.days)
        return gone or bool(self._changed(loaded, records))

    def _changed(self, loaded: _Loaded | None, records: Mapping[date, DayRecord]) -> list[date]:
        stamps = loaded.stamps if loaded else {}
        return [
            day for day, record in records.items() if not record.restating and stamps.get(str(day)) != _stamp(record)
        ]

    def _brought_up(
        self, before: _Loaded | None, first: date, records: Mapping[date, DayRecord], stored: DayColumns | None
    ) -> _Loaded:
        month = before.month if before else month_with(None, first, [])
        gone = [day for day in month.days if day not in records]
        if gone:
            month = month_without(month, gone)
        changed = self._changed(before, records)
        known = {stored.day: stored} if stored is not None and stored.day in changed else {}
        found = known | self._server.columns([day for day in changed if day not in known])
        verified = self._verified(found, records)
        month = month_with(month, first, list(verified.values()))
        stamps = {
            day: stamp
            for day, stamp in (before.stamps if before else {}).items()
            if date.fromisoformat(day) not in gone
        }
        return _Loaded(month, stamps | {str(day): _stamp(records[day]) for day in verified})

    def _verified(self, found: Mapping[date, DayColumns], records: Mapping[date, DayRecord]) -> dict[date, DayColumns]:
        """Days that InfluxDB has as the ledger says; the others are tried again at the next refresh."""
        verified = {}
        for day, columns in found.items():
            wrong = _unlike(records[day], account_totals(columns))
            if wrong is None and self._ledger.day_record(day).revision == records[day].revision:
                verified[day] = columns
            else:
                self._unfinished.add(month_of(day))
                log.warning("%s is not shown as new: %s", day, wrong or "it was restated while it was read")
        return verified

    def _opened(self, path: Path) -> _Loaded | None:
        try:
            month, note = open_month(path)
        except FileNotFoundError:
            return None
        except DamagedGrids as error:
            log.warning("%s; loading the month again", error)
            return None
        return _Loaded(month, note["stamps"])

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """One process loads, the others open what it wrote."""
        self._directory.mkdir(parents=True, exist_ok=True)
        with (self._directory / "lock").open("a") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield


def _stamp(record: DayRecord) -> str:
    """Changes with every flip, also when the ledger itself was begun anew."""
    totals = sorted((name, str(part.current)) for name, part in record.accounts.items())
    return f"{record.revision}:{hashlib.sha256(str(totals).encode()).hexdigest()[:16]}"


def _unlike(record: DayRecord, stored: Mapping[str, Totals]) -> str | None:
    for account in sorted({*record.accounts, *stored}):
        part = record.accounts.get(account)
        want, have = part.current if part else NOTHING, stored.get(account, NOTHING)
        if want.blended_cost is None:
            # All-zero rows of a file may lack it, and are not stored.
            have = replace(have, blended_cost=None)
        if wrong := _difference(want, have):
            return f"InfluxDB has another figure than the ledger for account {account!r}: {wrong}"
    return None
