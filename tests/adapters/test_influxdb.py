"""ports.CostStore on InfluxDB 2: for real where a server can be had, and against a recording stand-in for its errors."""

from __future__ import annotations

import http.client
import itertools
import json
import logging
import tempfile
import threading
import time
import uuid
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import parse_qs, urlsplit

import pytest
from influxdb_client.domain.permission import Permission
from influxdb_client.domain.permission_resource import PermissionResource

from app.adapters.influxdb import InfluxCostStore
from app.core.charges import DIMENSIONS, NOTHING
from app.core.ledger import AccountDay, DayRecord, Revisions
from app.core.lineprotocol import BLOCK_LINES
from app.core.scopes import Scope
from app.errors import BadCredentials, CannotStart, Conflict, Quarantined, Unavailable
from app.ports import CostStore, StoredDay
from tests.contracts.cost_store import (
    DAY,
    NEXT,
    Charges,
    CostStoreContract,
    Subject,
    charges_of,
    history_machine,
    key,
    table,
    totals_of,
    values,
    whole,
)
from tests.contracts.metadata import anomaly
from tests.influxdb import SECRET, Server, free_port

NOW = datetime(2026, 11, 24, 12, tzinfo=UTC)


class Records:
    """The part of the ledger that a cost store asks, held in memory."""

    def __init__(self) -> None:
        self.records: dict[date, DayRecord] = {}
        self.version = 0
        self.read: set[date] = set()

    def day_record(self, day: date) -> DayRecord:
        return self.records.get(day, DayRecord(day))

    def day_records(self, start: date, end: date) -> dict[date, DayRecord]:
        found = {day: record for day, record in self.records.items() if start <= day < end}
        self.read |= found.keys()
        return found

    def ledger_version(self) -> int:
        return self.version

    def day_revisions(self) -> Revisions:
        return Revisions(self.version, {day: record.revision for day, record in self.records.items()})

    def put(self, record: DayRecord) -> None:
        self.records[record.day] = replace(record, revision=self.day_record(record.day).revision + 1)
        self.version += 1

    def begin(self, day: date) -> None:
        self.put(replace(self.day_record(day), restating=True))

    def flip(self, day: date, accounts: Iterable[str], charges: Charges) -> None:
        found = totals_of(charges)
        parts = {
            name: AccountDay("root/file", "sha", 1, NOTHING, found.get(name, NOTHING), False, NOW, NOW)
            for name in accounts
        }
        record = self.day_record(day)
        self.put(replace(record, accounts={**record.accounts, **parts}, sources={"root/file": "sha"}, restating=False))


# --- for real -----------------------------------------------------------------------------------------------------


class Influx:
    """A store on a bucket of its own, with a ledger as a worker keeps it."""

    def __init__(self, server: Server, directory: Path, *, now: datetime = NOW, retention_days: int = 0) -> None:
        self.server, self.directory = server, directory
        self.bucket = f"test {uuid.uuid4()}"
        self.ledger = Records()
        self.clock = [now, 0.0]
        self.retention_days = retention_days
        self.store = self.other()
        self.store.prepare()

    def other(self, **changed: Any) -> InfluxCostStore:
        given: dict[str, Any] = {
            "url": self.server.url,
            "token": self.server.token,
            "org": self.server.org,
            "bucket": self.bucket,
            "retention_days": self.retention_days,
            "ledger": self.ledger,
            "cache_dir": self.directory,
            "now": lambda: self.clock[0],
            "monotonic": lambda: self.clock[1],
            "sleep": lambda _: None,
        }
        return InfluxCostStore(**(given | changed))

    def take(self, day: date, accounts: Iterable[str], charges: Charges) -> StoredDay:
        accounts = frozenset(accounts)
        self.ledger.begin(day)
        stored = self.store.replace(day, accounts, table(charges))
        self.ledger.flip(day, accounts, charges)
        self.store.publish(day)
        return stored


@pytest.fixture
def influx(server: Server, tmp_path: Path) -> Influx:
    return Influx(server, tmp_path / "cache")


@pytest.mark.server
class TestInfluxCostStore(CostStoreContract):
    keeps_units = False

    @pytest.fixture
    def subject(self, influx: Influx) -> Subject:
        return influx

    @pytest.fixture
    def bounded(self, server: Server, tmp_path: Path) -> Callable[[int, datetime], CostStore]:
        return lambda days, now: Influx(server, tmp_path / "bounded", now=now, retention_days=days).store


@pytest.mark.server
def test_anomalies_are_points_that_follow_their_records(influx: Influx) -> None:
    odd = anomaly("odd", scope=Scope(None, 'a "b", c=d \\ e', "$set"), kind="drop", severity="low")
    first = anomaly("first", DAY, days=1)
    for _ in range(2):
        influx.store.show_anomalies([first, odd])
        assert marks(influx) == {
            (DAY, "111111111111", "$set.a", "all", "all", "all", "rise", "high"),
            (odd.date, "all", 'a "b", c=d \\ e', "$set", "all", "all", "drop", "low"),
        }
    influx.store.show_anomalies([replace(first, severity="medium", date=DAY + timedelta(days=1))])
    assert marks(influx) == {(DAY + timedelta(days=1), "111111111111", "$set.a", "all", "all", "all", "rise", "medium")}
    influx.store.show_anomalies([])
    assert marks(influx) == set()


def marks(influx: Influx) -> set[tuple[Any, ...]]:
    names = ("account", "service", "region", "provider", "charge_category", "kind", "severity")
    return {(day, *(dict(tags)[name] for name in names)) for day, tags in influx.store._server.anomalies()}


@pytest.mark.server
def test_what_is_beyond_retention_is_not_shown(server: Server, tmp_path: Path) -> None:
    influx = Influx(server, tmp_path / "bounded", retention_days=30)
    influx.store.show_anomalies([anomaly("old", NOW.date() - timedelta(days=40)), anomaly("new", NOW.date(), days=1)])
    assert {mark[0] for mark in marks(influx)} == {NOW.date()}


@pytest.mark.server
def test_any_history_ends_as_it_should(server: Server, tmp_path: Path) -> None:
    def opened() -> Influx:
        return Influx(server, Path(tempfile.mkdtemp(dir=tmp_path)))

    history_machine(opened, lambda _: None, examples=6, steps=8)().runTest()


@pytest.mark.server
def test_until_the_flip_readers_have_the_last_verified_day(influx: Influx) -> None:
    influx.take(DAY, {"a"}, {key("a", "Old"): values("1")})
    influx.take(NEXT, {"a"}, {key("a", "Next"): values("10")})
    influx.ledger.begin(DAY)
    new = {key("a", "New"): values("2")}
    influx.store.replace(DAY, frozenset({"a"}), table(new))
    influx.store.refresh()
    influx.take(NEXT, {"a"}, {key("a", "Next"): values("20")})
    for store in (influx.store, influx.other()):
        frame = store.rollup().frame(whole(DAY, NEXT).grouped("service"))
        assert dict(zip(frame.groups, frame.group_totals, strict=True)) == {("Old",): 1, ("Next",): 20}
    influx.ledger.flip(DAY, {"a"}, new)
    influx.store.publish(DAY)
    frame = influx.store.rollup().frame(whole(DAY).grouped("service"))
    assert (frame.groups, frame.total) == ((("New",),), 2)


@pytest.mark.server
def test_a_day_that_is_restated_and_was_never_loaded_here_is_unknown(influx: Influx, tmp_path: Path) -> None:
    influx.take(DAY, {"a"}, {key("a"): values("1")})
    influx.ledger.begin(DAY)
    frame = influx.other(cache_dir=tmp_path / "another pod").rollup().frame(whole(DAY))
    assert frame.total is None


@pytest.mark.server
def test_a_crashed_write_is_redone_whole(influx: Influx) -> None:
    influx.take(DAY, {"a"}, {key("a", f"S{n}"): values("1") for n in range(5)})
    new = {key("a", f"S{n}"): values("2") for n in range(3, 9)}
    honest, blocks = influx.store._server.write, []

    def dying(block: bytes) -> None:
        if blocks:
            raise ConnectionError("killed")
        blocks.append(block)
        honest(block)

    influx.store._server.write = dying  # type: ignore[method-assign]
    with pytest.raises(ConnectionError):
        influx.take(DAY, {"a"}, new)
    assert influx.other().rollup().frame(whole(DAY)).total == 5
    influx.store._server.write = honest  # type: ignore[method-assign]
    influx.take(DAY, {"a"}, new)
    assert influx.store.rollup().frame(whole(DAY)).total == 12
    assert dict(charges_of(influx.store.day(DAY))) == new


@pytest.mark.server
def test_vanished_points_are_zero_in_influxdb_itself(influx: Influx) -> None:
    """Grafana adds up what is there: no hole, no doubles."""
    influx.take(DAY, {"a"}, {key("a", "Gone"): values("5"), key("a", "Bare"): values("1", None)})
    influx.take(DAY, {"a"}, {key("a", "New"): values("2")})
    from app.adapters.flux import POINTS

    stored = influx.store._server.points(POINTS, DAY, 1)[DAY]
    service = DIMENSIONS.index("service")
    by_service = {k[service]: {name: Decimal(text) for name, text in fields.items()} for k, fields in stored.items()}
    assert by_service["Gone"] == dict.fromkeys(by_service["Gone"], 0)
    assert len(by_service["Gone"]) == 4
    assert by_service["Bare"] == {"amortized_cost": 0, "unblended_cost": 0, "usage_quantity": 0}
    assert by_service["New"]["amortized_cost"] == 2


@pytest.mark.server
def test_deleting_one_account_never_touches_another(influx: Influx) -> None:
    mine = 'a" OR "account"="b'
    influx.take(DAY, {mine, "b", "a"}, {key(name): values("1", "1") for name in (mine, "b", "a")})
    influx.take(DAY, {mine}, {key(mine): values("1", None)})
    assert influx.store.rollup().frame(whole(DAY)).total == 3
    assert {k[1]: v[1] for k, v in charges_of(influx.store.day(DAY))} == {mine: None, "b": 1, "a": 1}


@pytest.mark.server
def test_a_process_that_only_reads_follows_in_the_background(influx: Influx, tmp_path: Path) -> None:
    web = influx.other(cache_dir=tmp_path / "another pod")
    assert web.rollup().frame(whole(DAY)).total is None
    influx.take(DAY, {"a"}, {key("a"): values("1")})
    assert web.rollup().frame(whole(DAY)).total is None, "asked again too soon"
    deadline = time.monotonic() + 20
    while web.rollup().frame(whole(DAY)).total != 1:
        influx.clock[1] += 10
        assert time.monotonic() < deadline
        time.sleep(0.02)
    assert web.rollup().version == influx.ledger.version


@pytest.mark.server
def test_the_processes_of_a_pod_load_a_month_once(influx: Influx, monkeypatch: pytest.MonkeyPatch) -> None:
    for day in (DAY, NEXT):
        influx.take(day, {"a"}, {key("a"): values("1")})
    other = influx.other()

    def never(*_: object) -> None:
        raise AssertionError("loaded again")

    monkeypatch.setattr(other._server, "points", never)
    assert other.rollup().frame(whole(DAY, NEXT)).total == 2


@pytest.mark.server
def test_a_damaged_cache_is_loaded_again(influx: Influx) -> None:
    influx.take(DAY, {"a"}, {key("a"): values("1")})
    (path,) = influx.directory.glob("*/*.grids")
    path.write_bytes(b"damaged")
    assert influx.other().rollup().frame(whole(DAY)).total == 1


@pytest.mark.server
def test_figures_that_are_not_the_ledgers_are_never_shown(influx: Influx, caplog: pytest.LogCaptureFixture) -> None:
    influx.take(DAY, {"a"}, {key("a"): values("1")})
    influx.store.replace(DAY, frozenset({"a"}), table({key("a"): values("9")}))
    influx.ledger.flip(DAY, {"a"}, {key("a"): values("2")})
    influx.store.refresh()
    assert influx.store.rollup().frame(whole(DAY)).total == 1
    assert "is 9, not 2" in caplog.text
    influx.store.replace(DAY, frozenset({"a"}), table({key("a"): values("2")}))
    influx.store.refresh()
    assert influx.store.rollup().frame(whole(DAY)).total == 2, "tried again although the ledger has not changed"


@pytest.mark.server
def test_only_months_in_which_something_changed_are_looked_at(influx: Influx, tmp_path: Path) -> None:
    days = [DAY, DAY + timedelta(days=40), DAY + timedelta(days=80)]
    for day in days:
        influx.take(day, {"a"}, {key("a"): values("1")})
    web = influx.other(cache_dir=tmp_path / "another pod")
    assert web.rollup().frame(whole(*days)).total == 3
    influx.ledger.read.clear()
    influx.take(days[1], {"a"}, {key("a"): values("5")})
    influx.ledger.read.clear()
    web.refresh()
    assert influx.ledger.read == {days[1]}
    assert web.rollup().frame(whole(*days)).total == 7


@pytest.mark.server
def test_a_look_that_failed_is_made_again_although_nothing_changed(influx: Influx) -> None:
    influx.take(DAY, {"a"}, {key("a"): values("1")})
    influx.store.rollup()
    influx.store.replace(DAY, frozenset({"a"}), table({key("a"): values("9")}))
    influx.ledger.flip(DAY, {"a"}, {key("a"): values("2")})
    influx.store.refresh()
    influx.store.replace(DAY, frozenset({"a"}), table({key("a"): values("2")}))
    server, honest = influx.store._server, influx.store._server.points

    def away(*_: Any) -> Any:
        raise Unavailable("costs", "away")

    server.points = away  # type: ignore[method-assign]
    with pytest.raises(Unavailable):
        influx.store.refresh()
    server.points = honest  # type: ignore[method-assign]
    influx.store.refresh()
    assert influx.store.rollup().frame(whole(DAY)).total == 2


@pytest.mark.server
def test_a_day_restated_while_it_is_read_is_not_shown(influx: Influx) -> None:
    influx.take(DAY, {"a"}, {key("a"): values("1")})
    influx.store.replace(DAY, frozenset({"a"}), table({key("a"): values("2")}))
    influx.ledger.flip(DAY, {"a"}, {key("a"): values("2")})
    server, honest = influx.store._server, influx.store._server.points

    def overtaken(*asked: Any) -> Any:
        found = honest(*asked)
        influx.ledger.begin(DAY)
        return found

    server.points = overtaken  # type: ignore[method-assign]
    influx.store.refresh()
    assert influx.store.rollup().frame(whole(DAY)).total == 1


@pytest.mark.server
def test_days_that_the_bucket_forgets_become_unknown(server: Server, tmp_path: Path) -> None:
    now = datetime.now(UTC)
    influx = Influx(server, tmp_path / "cache", now=now, retention_days=30)
    first, second = now.date() - timedelta(days=29), now.date() - timedelta(days=28)
    for day in (first, second):
        influx.take(day, {"a"}, {key("a"): values("1")})
    assert influx.store.rollup().frame(whole(first, second)).total == 2
    influx.clock[0] = now + timedelta(days=1)
    influx.store.refresh()
    frame = influx.store.rollup().frame(whole(first, second))
    assert frame.days == (second,)
    assert frame.total == 1


@pytest.mark.server
@pytest.mark.parametrize(("retention", "shard"), [(0, 365), (13, 1), (60, 7), (90, 30), (180, 60), (3000, 365)])
def test_a_buckets_shards_are_long(server: Server, tmp_path: Path, retention: int, shard: int) -> None:
    """What a query over months costs is a series' pieces, not its points; more than a third too much is never kept."""
    influx = Influx(server, tmp_path, retention_days=retention)
    influx.store.prepare()
    found = influx.store._server._client.buckets_api().find_bucket_by_name(influx.store._server.bucket)
    assert found.retention_rules[0].shard_group_duration_seconds == shard * 86_400


@pytest.mark.server
def test_prepare_makes_the_bucket_and_refuses_another_retention(server: Server, tmp_path: Path) -> None:
    influx = Influx(server, tmp_path, retention_days=180)
    influx.store.prepare()
    influx.store.check()
    assert influx.store._server.bucket_retention() == 180 * 86_400
    with pytest.raises(CannotStart, match=r"keeps 180 days.*SPENDSCOPE_RETENTION_DAYS asks for everything"):
        influx.other(retention_days=0).prepare()
    with pytest.raises(CannotStart, match=r"keeps 180 days.*asks for 400 days"):
        influx.other(retention_days=400).prepare()


@pytest.mark.server
def test_two_that_start_at_once_make_one_bucket(influx: Influx) -> None:
    """A worker and a scheduler on a new server: both find none, both make it, one is told that it exists."""
    for _ in range(5):
        bucket, together = f"test {uuid.uuid4()}", threading.Barrier(4)

        def prepare(bucket: str = bucket, together: threading.Barrier = together) -> None:
            store = influx.other(bucket=bucket)
            together.wait()
            store.prepare()

        with ThreadPoolExecutor(4) as pool:
            for prepared in [pool.submit(prepare) for _ in range(4)]:
                prepared.result()
        influx.other(bucket=bucket).check()


@pytest.mark.server
def test_a_wrong_token_is_told_apart_and_never_shown(influx: Influx) -> None:
    wrong = influx.other(token="wrong-token")
    for ask in (
        wrong.check,
        wrong.prepare,
        lambda: wrong.replace(DAY, frozenset({"a"}), table({key("a"): values("1")})),
    ):
        with pytest.raises(BadCredentials, match="INFLUXDB_TOKEN") as refused:
            ask()
        assert "wrong-token" not in str(refused.value)


@pytest.mark.server
def test_a_bucket_that_is_gone_is_named(influx: Influx) -> None:
    gone = influx.other(bucket="gone")
    with pytest.raises(Unavailable, match="'gone'"):
        gone.check()
    with pytest.raises(Unavailable, match="'gone'"):
        gone.replace(DAY, frozenset({"a"}), table({key("a"): values("1")}))


@pytest.mark.server
def test_a_token_of_one_bucket_is_enough_once_the_bucket_is_there(influx: Influx, tmp_path: Path) -> None:
    token = token_of_one_bucket(influx)
    store = influx.other(token=token, cache_dir=tmp_path / "another pod")
    store.prepare()
    store.check()
    for blended in ("1", None):
        stored = store.replace(DAY, frozenset({"a"}), table({key("a"): values("1", blended)}))
        assert stored.accounts["a"].amortized_cost == 1
    with pytest.raises(CannotStart, match=r"no bucket 'gone' in organisation '.*Create it"):
        influx.other(token=token, bucket="gone").prepare()


def token_of_one_bucket(influx: Influx) -> str:
    server = influx.store._server
    bucket = server._client.buckets_api().find_buckets(name=influx.bucket, org=influx.server.org).buckets[0]
    resource = PermissionResource(type="buckets", id=bucket.id, org_id=bucket.org_id)
    permissions = [Permission(action=action, resource=resource) for action in ("read", "write")]
    made = server._client.authorizations_api().create_authorization(org_id=bucket.org_id, permissions=permissions)
    return str(made.token)


@pytest.mark.server
def test_an_organisation_that_is_not_there_is_named(influx: Influx) -> None:
    elsewhere = influx.other(org="nowhere")
    with pytest.raises(CannotStart, match=r"organisation 'nowhere'.*INFLUXDB_ORG"):
        elsewhere.prepare()
    with pytest.raises(Unavailable):
        elsewhere.check()


@pytest.mark.server
def test_points_of_others_are_left_alone(influx: Influx, caplog: pytest.LogCaptureFixture) -> None:
    theirs = f"cost,account=a amortized_cost=5,blended_cost=5 {int(datetime(2026, 10, 14, tzinfo=UTC).timestamp())}\n"
    influx.store._server.write(theirs.encode())
    for amount, given in ((1, {key("a"): values("1")}), (2, {key("b"): values("2")}), (0, {})):
        influx.take(DAY, {"a", "b"}, given)
        assert influx.other().rollup().frame(whole(DAY)).total == amount
    assert "Spendscope did not write them" in caplog.text


@pytest.mark.server
@pytest.mark.parametrize("text", ["ends with \\", "two\nlines", "carriage\rreturn"])
def test_text_that_line_protocol_cannot_carry_is_refused_before_anything_is_written(influx: Influx, text: str) -> None:
    influx.take(DAY, {"a"}, {key("a"): values("1")})
    with pytest.raises(Quarantined) as refused:
        influx.store.replace(DAY, frozenset({"a"}), table({key("a"): values("2"), key("a", service=text): values("3")}))
    assert (refused.value.reason.code, refused.value.reason.column) == ("unstorable_text", "service")
    assert charges_of(influx.store.day(DAY)) == [(key("a"), values("1"))]


@pytest.mark.server
def test_a_server_that_is_away_at_start_matters_only_for_what_is_new(server: Server, tmp_path: Path) -> None:
    with Proxy(server.url) as proxy:
        influx = Influx(replace(server, url=proxy.url), tmp_path / "cache")
        influx.take(DAY, {"a"}, {key("a"): values("1")})
        assert influx.store.rollup().frame(whole(DAY)).total == 1
        proxy.refusing = True
        assert influx.other().rollup().frame(whole(DAY)).total == 1
        influx.ledger.flip(NEXT, {"a"}, {key("a"): values("2")})
        with pytest.raises(Unavailable, match="does not answer"):
            influx.other().rollup()
        assert influx.store.rollup().frame(whole(DAY, NEXT)).total == 1, "what was loaded is still shown"
        assert influx.store.rollup().version < influx.ledger.version


@pytest.mark.server
def test_a_lost_acknowledgement_doubles_nothing(server: Server, tmp_path: Path) -> None:
    with Proxy(server.url) as proxy:
        influx = Influx(replace(server, url=proxy.url), tmp_path / "cache")
        proxy.lose_answers_to = "/api/v2/write"
        influx.take(DAY, {"a"}, {key("a"): values("1.5")})
        assert proxy.lost == 1
        assert influx.store.rollup().frame(whole(DAY)).total == Decimal("1.5")


class Proxy:
    """HTTP in between: refuses, or passes one request on and loses its answer."""

    def __init__(self, target: str) -> None:
        self.refusing = False
        self.lose_answers_to: str | None = None
        self.lost = 0
        proxy, upstream = self, urlsplit(target)

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def pass_on(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                if proxy.refusing:
                    self.close_connection = True
                    return
                connection = http.client.HTTPConnection(upstream.hostname or "", upstream.port, timeout=30)
                connection.request(self.command, self.path, body, dict(self.headers))
                answer = connection.getresponse()
                data = answer.read()
                connection.close()
                if proxy.lose_answers_to and self.path.startswith(proxy.lose_answers_to):
                    proxy.lose_answers_to, proxy.lost = None, proxy.lost + 1
                    self.close_connection = True
                    return
                self.send_response(answer.status)
                for name in ("Content-Type", "Retry-After"):
                    if answer.headers[name]:
                        self.send_header(name, answer.headers[name])
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            do_GET = do_POST = do_PATCH = pass_on

            def log_message(self, *_: object) -> None: ...

        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._http.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._http.server_port}"

    def __enter__(self) -> Proxy:
        threading.Thread(target=self._http.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._http.shutdown()
        self._http.server_close()


# --- a stand-in for what a healthy server does not say --------------------------------------------------------------


@dataclass
class Asked:
    method: str
    path: str
    query: dict[str, list[str]]
    body: bytes
    authorization: str | None


Answer = tuple[int, dict[str, str], bytes]
OK: Answer = (204, {}, b"")


def problem(status: int, message: str, **headers: str) -> Answer:
    body = json.dumps({"code": "x", "message": message}).encode()
    return status, {"Content-Type": "application/json", **headers}, body


@dataclass
class StandIn:
    """Answers writes from a list (the last one again and again), queries from another; records what it was asked."""

    writes: list[Answer | None] = field(default_factory=lambda: [OK])
    queries: list[bytes] = field(default_factory=lambda: [b"\r\n"])
    buckets: Answer = (200, {"Content-Type": "application/json"}, b'{"buckets": []}')
    orgs: Answer = (200, {"Content-Type": "application/json"}, b'{"orgs": [{"id": "0123456789abcdef", "name": "o"}]}')
    creation: Answer = field(default_factory=lambda: problem(401, "unauthorized access"))
    asked: list[Asked] = field(default_factory=list)
    url: str = ""

    def answer(self, asked: Asked) -> Answer | None:
        self.asked.append(asked)
        if asked.path == "/api/v2/query":
            body = self.queries.pop(0) if len(self.queries) > 1 else self.queries[0]
            return 200, {"Content-Type": "text/csv"}, body
        if asked.path == "/api/v2/buckets":
            return self.buckets if asked.method == "GET" else self.creation
        if asked.path == "/api/v2/orgs":
            return self.orgs
        return self.writes.pop(0) if len(self.writes) > 1 else self.writes[0]

    def written(self) -> list[Asked]:
        return [asked for asked in self.asked if asked.path == "/api/v2/write"]


@pytest.fixture
def stand_in() -> Iterator[StandIn]:
    found = StandIn()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        codes: ClassVar[dict[int, str]] = {}

        def serve(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            where = urlsplit(self.path)
            asked = Asked(self.command, where.path, parse_qs(where.query), body, self.headers["Authorization"])
            answer = found.answer(asked)
            if answer is None:
                self.close_connection = True
                return
            self.send_response(answer[0])
            for name, value in (answer[1] | {"Content-Length": str(len(answer[2]))}).items():
                self.send_header(name.replace("_", "-"), value)
            self.end_headers()
            self.wfile.write(answer[2])

        do_GET = do_POST = serve

        def log_message(self, *_: object) -> None: ...

    http_server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    http_server.daemon_threads = True
    found.url = f"http://127.0.0.1:{http_server.server_port}"
    threading.Thread(target=http_server.serve_forever, args=(0.05,), daemon=True).start()
    yield found
    http_server.shutdown()
    http_server.server_close()


def store_at(url: str, directory: Path, slept: list[float] | None = None, **changed: Any) -> InfluxCostStore:
    given: dict[str, Any] = {"bucket": 'b" |> drop() //', "retention_days": 0, "ledger": Records()}
    return InfluxCostStore(
        url=url,
        token=SECRET,
        org="o",
        cache_dir=directory,
        sleep=(slept if slept is not None else []).append,
        now=lambda: NOW,
        **(given | changed),
    )


ONE = {key("a"): values("1.5", None, usage="2")}
HEADER = ",result,table,_time,_field,_value," + ",".join(DIMENSIONS)


def answer_with(amount: str) -> bytes:
    fields = {"amortized_cost": amount, "unblended_cost": "1.5", "usage_quantity": "2"}
    lines = [f",_result,0,{DAY}T00:00:00Z,{name},{value},{','.join(key('a'))}" for name, value in fields.items()]
    return "\r\n".join([HEADER, *lines, "", ""]).encode()


def write_one(stand_in: StandIn, directory: Path, slept: list[float] | None = None) -> StoredDay:
    store = store_at(stand_in.url, directory, slept)
    return store.replace(DAY, frozenset({"a"}), table(ONE))


def test_what_is_sent(stand_in: StandIn, tmp_path: Path) -> None:
    stand_in.queries = [b"\r\n", answer_with("1.5")]
    stored = write_one(stand_in, tmp_path)
    assert stored.accounts["a"].amortized_cost == Decimal("1.5")
    assert stored.accounts["a"].blended_cost is None
    (write,) = stand_in.written()
    assert write.query == {"org": ["o"], "bucket": ['b" |> drop() //'], "precision": ["s"]}
    assert write.authorization == f"Token {SECRET}"
    assert write.body == (
        b"cost,account=a,charge_category=Usage,provider=aws,region=eu-west-1,service=Amazon\\ S3 "
        b"amortized_cost=1.500000000000,unblended_cost=1.500000000000,usage_quantity=2.000000000000 "
        + str(int(datetime(2026, 10, 14, tzinfo=UTC).timestamp())).encode()
        + b"\n"
    )


def test_values_reach_flux_as_literals_of_a_syntax_tree(stand_in: StandIn, tmp_path: Path) -> None:
    stand_in.queries = [b"\r\n", answer_with("1.5")]
    write_one(stand_in, tmp_path)
    asked = [json.loads(asked.body) for asked in stand_in.asked if asked.path == "/api/v2/query"]
    assert len(asked) == 2
    for question in asked:
        assert "drop()" not in question["query"]
        given = {s["assignment"]["id"]["name"]: s["assignment"]["init"] for s in question["extern"]["body"]}
        assert given["_bucket"] == {"type": "StringLiteral", "value": 'b" |> drop() //'}
        assert given["_start"]["value"].startswith(str(DAY))
        assert given["_stop"]["value"].startswith(str(NEXT))


def test_a_great_day_goes_out_in_blocks(stand_in: StandIn, tmp_path: Path) -> None:
    many = {key("a", f"S{n}"): values("1") for n in range(2 * BLOCK_LINES + 1)}
    store = store_at(stand_in.url, tmp_path)
    with pytest.raises(Conflict, match="reads back"):
        store.replace(DAY, frozenset({"a"}), table(many))
    assert [asked.body.count(b"\n") for asked in stand_in.written()] == [BLOCK_LINES, BLOCK_LINES, 1]


@pytest.mark.parametrize("status", [401, 403])
def test_who_is_not_let_in_is_told_at_once(stand_in: StandIn, tmp_path: Path, status: int) -> None:
    stand_in.writes = [problem(status, "insufficient permissions")]
    slept: list[float] = []
    with pytest.raises(BadCredentials, match=r"INFLUXDB_TOKEN write.*insufficient permissions") as refused:
        write_one(stand_in, tmp_path, slept)
    assert (len(stand_in.written()), slept) == (1, [])
    assert SECRET not in str(refused.value)


@pytest.mark.parametrize("status", [400, 413, 422])
def test_refused_points_are_a_conflict_in_the_servers_words(stand_in: StandIn, tmp_path: Path, status: int) -> None:
    stand_in.writes = [problem(status, "partial write: points beyond retention policy dropped=1")]
    with pytest.raises(Conflict, match=r"partial write: points beyond retention policy dropped=1"):
        write_one(stand_in, tmp_path)
    assert len(stand_in.written()) == 1


@pytest.mark.parametrize("status", [408, 425, 429, 500, 502, 503])
def test_what_can_be_repeated_is_and_the_servers_pause_is_kept(stand_in: StandIn, tmp_path: Path, status: int) -> None:
    stand_in.writes = [problem(status, "busy", Retry_After="7"), problem(status, "busy"), OK]
    stand_in.queries = [b"\r\n", answer_with("1.5")]
    slept: list[float] = []
    assert write_one(stand_in, tmp_path, slept).accounts["a"].rows == 1
    assert slept[0] == 7
    assert 0 <= slept[1] <= 1
    assert len({asked.body for asked in stand_in.written()}) == 1


def test_retries_end(stand_in: StandIn, tmp_path: Path) -> None:
    stand_in.writes = [problem(503, "engine is closed", Retry_After="40")]
    slept: list[float] = []
    with pytest.raises(Unavailable, match="engine is closed") as gone:
        write_one(stand_in, tmp_path, slept)
    assert (gone.value.part, gone.value.retry_after) == ("costs", 41)
    assert len(stand_in.written()) == 4
    assert max(slept) <= 20


def test_a_connection_that_breaks_is_tried_again(stand_in: StandIn, tmp_path: Path) -> None:
    stand_in.writes = [None, OK]
    stand_in.queries = [b"\r\n", answer_with("1.5")]
    assert write_one(stand_in, tmp_path).accounts["a"].rows == 1
    assert len(stand_in.written()) == 2


def test_a_refused_connection_is_unavailable(tmp_path: Path) -> None:
    url = f"http://127.0.0.1:{free_port()}"
    store = store_at(url, tmp_path)
    for ask in (store.check, store.prepare, lambda: store.day(DAY)):
        with pytest.raises(Unavailable, match=url) as gone:
            ask()
        assert not isinstance(gone.value, BadCredentials)
        assert SECRET not in str(gone.value)


def test_what_reads_back_differently_is_a_conflict(stand_in: StandIn, tmp_path: Path) -> None:
    stand_in.queries = [b"\r\n", answer_with("1.500002")]
    with pytest.raises(Conflict, match=r"account 'a'.*amortized_cost is 1.500002, not 1.5"):
        write_one(stand_in, tmp_path)


def test_a_float_may_differ_in_the_last_place(stand_in: StandIn, tmp_path: Path) -> None:
    stand_in.queries = [b"\r\n", answer_with("1.5000000000000002")]
    assert write_one(stand_in, tmp_path).accounts["a"].amortized_cost == Decimal("1.5000000000000002")


def test_an_error_after_the_answer_has_begun_is_no_answer(stand_in: StandIn, tmp_path: Path) -> None:
    broken = answer_with("1.5") + b"error,reference\r\nran out of memory,897\r\n"
    stand_in.queries = [broken]
    with pytest.raises(Unavailable, match="ran out of memory"):
        store_at(stand_in.url, tmp_path).day(DAY)


def test_an_answer_that_is_cut_off_is_no_answer(tmp_path: Path) -> None:
    whole_answer = answer_with("1.5")

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.send_response(200)
            self.send_header("Content-Length", str(len(whole_answer)))
            self.end_headers()
            self.wfile.write(whole_answer[: len(HEADER) + 90])

        def log_message(self, *_: object) -> None: ...

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as cutting:
        threading.Thread(target=cutting.serve_forever, args=(0.05,), daemon=True).start()
        with pytest.raises(Unavailable, match="does not answer"):
            store_at(f"http://127.0.0.1:{cutting.server_port}", tmp_path).day(DAY)
        cutting.shutdown()


def test_an_answer_that_is_no_table_is_no_answer(stand_in: StandIn, tmp_path: Path) -> None:
    stand_in.queries = [b"<html>Bad Gateway</html>\r\n", b"<html>Bad Gateway</html>\r\n"]
    with pytest.raises(Unavailable, match="does not answer"):
        store_at(stand_in.url, tmp_path).show_anomalies([])


def test_a_bucket_that_may_not_be_made_says_what_to_do(stand_in: StandIn, tmp_path: Path) -> None:
    with pytest.raises(CannotStart, match=r"no bucket .* organisation 'o'.*unauthorized access.*Create it"):
        store_at(stand_in.url, tmp_path).prepare()
    with pytest.raises(Unavailable, match="no bucket"):
        store_at(stand_in.url, tmp_path).check()


@pytest.mark.parametrize(
    "orgs", [(200, {"Content-Type": "application/json"}, b'{"orgs": []}'), problem(404, "organization not found")]
)
def test_an_organisation_that_the_token_does_not_see_says_what_to_do(
    stand_in: StandIn, tmp_path: Path, orgs: Answer
) -> None:
    stand_in.orgs = orgs
    with pytest.raises(CannotStart, match=r"organisation 'o'.*cannot find organization.*correct INFLUXDB_ORG"):
        store_at(stand_in.url, tmp_path).prepare()


@pytest.mark.parametrize("lacking", ["provider", "service"])
def test_points_that_lack_a_dimension_are_not_ours(stand_in: StandIn, tmp_path: Path, lacking: str) -> None:
    without = HEADER.replace(f",{lacking}", "") + f"\r\n,_result,0,{DAY}T00:00:00Z,amortized_cost,5,x,x,x,x\r\n\r\n"
    empty = f",_result,1,{DAY}T00:00:00Z,amortized_cost,5,aws,a,,eu-west-1,Usage"
    stand_in.queries = [without.encode() + answer_with("1.5").rstrip() + f"\r\n{empty}\r\n\r\n".encode()]
    assert charges_of(store_at(stand_in.url, tmp_path).day(DAY)) == [(key("a"), values("1.5", None, usage="2"))]


def test_a_failure_to_load_is_told_to_everyone_for_a_while(stand_in: StandIn, tmp_path: Path) -> None:
    ledger, clock = Records(), [0.0]
    ledger.flip(DAY, {"a"}, ONE)
    stand_in.queries = [b",error,reference\r\n,down for repair,1\r\n"]
    store = store_at(stand_in.url, tmp_path, ledger=ledger, monotonic=lambda: clock[0])
    for _ in range(3):
        with pytest.raises(Unavailable, match="down for repair"):
            store.rollup()
    asked = len(stand_in.asked)
    stand_in.queries = [answer_with("1.5")]
    clock[0] += 10
    assert store.rollup().frame(whole(DAY)).total == Decimal("1.5")
    assert len(stand_in.asked) == asked + 1


def test_the_token_is_in_no_log(stand_in: StandIn, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    stand_in.writes = [problem(500, "broken")]
    with pytest.raises(Unavailable):
        write_one(stand_in, tmp_path)
    assert SECRET not in caplog.text
    assert list(itertools.chain(tmp_path.rglob(f"*{SECRET}*"))) == []
