from __future__ import annotations

import hashlib
import io
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from functools import cache
from itertools import count
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.awsrequest import AWSResponse
from moto.core import DEFAULT_ACCOUNT_ID
from moto.s3.models import s3_backends
from moto.server import ThreadedMotoServer

from app.adapters.s3 import S3Source
from app.errors import BadCredentials, CannotStart, Conflict, Unavailable
from app.ingest import watch
from app.ports import Source
from tests.arrivals import HEADER
from tests.contracts.source import DAY, NAME, Place, SourceContract, content, only
from tests.workers.world import world_of
from workers.jobs import HANDLERS, run_job

KEY_ID, SECRET = "AKIAEXAMPLE7WXYZ", "SeCrEt/k7MDENG+bPxRfiCYEXAMPLEKEY"
BUCKETS = count()


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    server = ThreadedMotoServer("127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a deployment sets, and nothing of the machine the test runs on."""
    for name in [name for name in os.environ if name.startswith("AWS_") or name.lower().endswith("_proxy")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", KEY_ID)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", os.devnull)


@cache
def writer(endpoint: str) -> Any:
    return boto3.client(
        "s3",
        endpoint_url=endpoint,
        region_name="us-east-1",
        aws_access_key_id="writer",
        aws_secret_access_key="writer",
    )


class Bucket:
    def __init__(self, endpoint: str, prefix: str = "team/costs/") -> None:
        self.endpoint, self.prefix = endpoint, prefix
        self.name = f"bucket-{next(BUCKETS)}"
        self.writer = writer(endpoint)
        self.writer.create_bucket(Bucket=self.name)
        self.source = self.read_by(endpoint)

    def read_by(self, endpoint: str, **options: Any) -> S3Source:
        return S3Source(f"s3://{self.name}/{self.prefix}", endpoint, **options)

    def put(self, key: str, data: bytes) -> None:
        parent, _, _ = self.prefix.rstrip("/").rpartition("/")
        below = f"{parent}/{key[3:]}".lstrip("/") if key.startswith("../") else self.prefix + key
        if key.isprintable():
            self.writer.put_object(Bucket=self.name, Key=below, Body=data)
        else:
            self.keep(below, data)

    def keep(self, key: str, data: bytes) -> None:
        """Put it into the server's memory: quick, and for keys its HTTP side does not take (S3's does)."""
        s3_backends[DEFAULT_ACCOUNT_ID]["aws"].put_object(self.name, key, data)

    def remove(self, key: str) -> None:
        self.writer.delete_object(Bucket=self.name, Key=self.prefix + key)

    def elsewhere(self) -> Source:
        return S3Source("s3://nowhere-at-all/costs/", self.endpoint)


@pytest.fixture
def bucket(endpoint: str) -> Bucket:
    return Bucket(endpoint)


class TestS3(SourceContract):
    @pytest.fixture
    def place(self, bucket: Bucket) -> Place:
        return bucket


# --- roots, pages, names ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("root", ["s3://", "s3:///costs/", "file:///costs/", ""])
def test_what_names_no_bucket_cannot_start(root: str) -> None:
    with pytest.raises(CannotStart, match="s3://bucket/costs/"):
        S3Source(root)


def test_an_endpoint_that_is_no_url_cannot_start() -> None:
    with pytest.raises(CannotStart, match="AWS_ENDPOINT_URL"):
        S3Source("s3://bucket/costs/", "not a url")


def test_a_profile_that_does_not_exist_cannot_start(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_PROFILE", "nobody")
    with pytest.raises(CannotStart, match="AWS_PROFILE"):
        S3Source("s3://bucket/costs/")


@pytest.mark.parametrize("prefix", ["", "costs/", "a/b/costs/", "odd #1?/costs/"])
def test_any_prefix_and_its_sidecars(endpoint: str, prefix: str) -> None:
    place = Bucket(endpoint, prefix)
    place.put(NAME, b"x")
    place.put(f"../coverage/{DAY}.json", b"{}")
    assert [found.key for found in place.source.list()] == [NAME]
    assert content(place.source, only(place.source)) == b"x"
    assert place.source.sidecar(DAY) == b"{}"


def test_the_marker_of_the_folder_itself_is_no_object(bucket: Bucket) -> None:
    bucket.put("", b"")
    assert list(bucket.source.list()) == []


def test_2300_objects_come_page_by_page_once_each_in_order(bucket: Bucket) -> None:
    names = [f"{number:06}.csv" for number in range(2300)]
    for name in reversed(names):
        bucket.keep(bucket.prefix + name, b"x")
    sent = requests_of(bucket.source)
    assert [found.key for found in bucket.source.list()] == names
    assert len(sent) == 3


def test_listing_is_lazy(bucket: Bucket) -> None:
    sent = requests_of(bucket.source)
    bucket.source.list()
    assert sent == []


def test_an_object_that_is_back_is_taken_again(bucket: Bucket, tmp_path: Path) -> None:
    """An ETag comes back with its bytes: what was replaced once and is there again is not what the store has."""
    world = replace(world_of(tmp_path), source=bucket.source)
    first, second = (f"{HEADER}a,S,r,{amount},1,1,1\n".encode() for amount in (1, 2))
    for data in (first, second, first, second):
        bucket.put(NAME, data)
        for job in watch(world).jobs:
            run_job(world, job.id, HANDLERS)
        part = world.metadata.day_record(DAY).accounts["a"]
        assert part.sha256 == hashlib.sha256(data).hexdigest()
        assert watch(world).jobs == ()
    world.metadata.close()


# --- conditions, bodies -------------------------------------------------------------------------------------------


def test_reading_asks_for_the_listed_version(bucket: Bucket) -> None:
    bucket.put(NAME, b"x")
    found = only(bucket.source)
    sent = requests_of(bucket.source)
    content(bucket.source, found)
    assert [request.headers["If-Match"] for request in sent] == [found.version.encode()]


def test_a_server_that_ignores_the_condition_is_found_out(bucket: Bucket) -> None:
    bucket.put(NAME, b"first")
    found = only(bucket.source)
    bucket.put(NAME, b"other")
    bucket.source.client.meta.events.register(
        "before-sign.s3.GetObject", lambda request, **_: request.headers.__delitem__("If-Match")
    )
    with pytest.raises(Conflict, match=NAME):
        content(bucket.source, found)


@pytest.mark.parametrize("percent", [10, 50, 90])
def test_a_connection_that_breaks_is_no_end_of_file(bucket: Bucket, proxy: Proxy, percent: int) -> None:
    data = os.urandom(500_000)
    bucket.put(NAME, data)
    source = bucket.read_by(proxy.url)
    found = only(source)
    proxy.cut_after = 5000 * percent
    with pytest.raises(Unavailable, match=rf"{NAME} was not transferred whole \(\d+ of 500000 bytes\)") as told:
        content(source, found)
    assert told.value.part == "source"
    proxy.cut_after = None
    assert content(source, found) == data


def test_a_flipped_byte_is_noticed(bucket: Bucket, proxy: Proxy) -> None:
    data = b"0123456789" * 50_000
    bucket.put(NAME, data)
    source = bucket.read_by(proxy.url)
    found = only(source)
    proxy.change = lambda passed: passed.replace(b"90123456789012345678", b"90123456780012345678", 1)
    with pytest.raises(Unavailable, match="not transferred whole"):
        content(source, found)
    proxy.change = None
    assert content(source, found) == data


def test_a_body_shorter_than_listed_is_noticed_whatever_its_header_says(bucket: Bucket) -> None:
    bucket.put(NAME, b"0123456789")
    found = only(bucket.source)
    answer_with(bucket.source, lambda: answer(200, b"01234", ETag=found.version, **{"Content-Length": "5"}))
    with pytest.raises(Unavailable, match="5 of 10 bytes"):
        content(bucket.source, found)


def test_a_body_longer_than_listed_is_noticed(bucket: Bucket) -> None:
    bucket.put(NAME, b"0123456789")
    found = only(bucket.source)
    answer_with(bucket.source, lambda: answer(200, b"x" * 11, ETag=found.version, **{"Content-Length": "11"}))
    with pytest.raises(Unavailable, match="more bytes"):
        content(bucket.source, found)


def test_a_cut_sidecar_is_not_a_sidecar(bucket: Bucket, proxy: Proxy) -> None:
    bucket.put(f"../coverage/{DAY}.json", b" " * 100_000)
    source = bucket.read_by(proxy.url)
    proxy.cut_after = 50_000
    with pytest.raises(Unavailable, match="not transferred whole"):
        source.sidecar(DAY)


# --- failures -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("call", ["list", "open"])
def test_a_burst_of_slow_down_is_waited_out(bucket: Bucket, call: str) -> None:
    bucket.put(NAME, b"x")
    found = only(bucket.source)
    burst = iter(range(2))
    answer_with(bucket.source, lambda: refusal(503, "SlowDown") if next(burst, None) is not None else None)
    sent = requests_of(bucket.source)
    if call == "list":
        assert [one.key for one in bucket.source.list()] == [NAME]
    else:
        assert content(bucket.source, found) == b"x"
    assert len(sent) == 3


def test_a_bucket_that_does_not_exist_is_said_so(bucket: Bucket) -> None:
    with pytest.raises(Unavailable, match="There is no bucket nowhere-at-all at http://127"):
        bucket.elsewhere().check()
    with pytest.raises(Unavailable, match="There is no bucket nowhere-at-all"):
        bucket.elsewhere().sidecar(DAY)


def test_endless_slow_down_is_unavailable(bucket: Bucket) -> None:
    source = bucket.read_by(bucket.endpoint, attempts=2)
    answer_with(source, lambda: refusal(503, "SlowDown"))
    with pytest.raises(Unavailable, match=rf"{bucket.name} answered SlowDown") as told:
        list(source.list())
    assert told.value.code == "unavailable"


@pytest.mark.parametrize(
    ("status", "code"),
    [
        (403, "AccessDenied"),
        (403, "InvalidAccessKeyId"),
        (403, "SignatureDoesNotMatch"),
        (400, "ExpiredToken"),
        (401, ""),
    ],
)
def test_a_refusal_is_told_at_once_without_the_secret(bucket: Bucket, status: int, code: str) -> None:
    answer_with(bucket.source, lambda: refusal(status, code, f"<AWSAccessKeyId>{KEY_ID}</AWSAccessKeyId>"))
    sent = requests_of(bucket.source)
    with pytest.raises(BadCredentials) as told:
        list(bucket.source.list())
    assert len(sent) == 1
    assert f"(access key …{KEY_ID[-4:]})" in told.value.message
    assert KEY_ID not in told.value.message
    assert SECRET not in repr(told.value)
    assert bucket.name in told.value.message
    assert "s3:ListBucket" in told.value.message


def test_a_refused_object_names_the_right_that_is_missing(bucket: Bucket) -> None:
    bucket.put(NAME, b"x")
    found = only(bucket.source)
    answer_with(bucket.source, lambda: refusal(403, "AccessDenied"))
    with pytest.raises(BadCredentials, match=f"s3:GetObject on {NAME}"):
        content(bucket.source, found)


def test_a_sidecar_that_may_not_be_read_is_not_an_absent_one(bucket: Bucket) -> None:
    """Taking it as absent would zero the accounts whose collection failed."""
    answer_with(bucket.source, lambda: refusal(403, "AccessDenied"))
    with pytest.raises(BadCredentials, match="coverage/"):
        bucket.source.sidecar(DAY)


def test_no_credentials_at_all(endpoint: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    with pytest.raises(BadCredentials, match="AWS_ACCESS_KEY_ID"):
        S3Source("s3://bucket/costs/", endpoint).check()


@pytest.mark.parametrize(("ours", "off"), [("20261124T041500Z", r"-1200 s"), ("20261124T045500Z", r"\+1200 s")])
def test_a_wrong_clock_is_not_a_wrong_key(bucket: Bucket, ours: str, off: str) -> None:
    told = f"<RequestTime>{ours}</RequestTime><ServerTime>2026-11-24T04:35:00Z</ServerTime>"
    answer_with(bucket.source, lambda: refusal(403, "RequestTimeTooSkewed", told))
    with pytest.raises(Unavailable, match=f"clock is off by {off}") as raised:
        list(bucket.source.list())
    assert not isinstance(raised.value, BadCredentials)


def test_a_wrong_clock_without_figures(bucket: Bucket) -> None:
    answer_with(bucket.source, lambda: refusal(403, "RequestTimeTooSkewed"))
    with pytest.raises(Unavailable, match="clock is off"):
        list(bucket.source.list())


def test_an_archived_object_is_not_a_matter_of_credentials(bucket: Bucket) -> None:
    bucket.put(NAME, b"x")
    found = only(bucket.source)
    answer_with(bucket.source, lambda: refusal(403, "InvalidObjectState"))
    with pytest.raises(Unavailable, match="Restore it") as told:
        content(bucket.source, found)
    assert not isinstance(told.value, BadCredentials)


def test_a_server_that_is_not_there(bucket: Bucket, proxy: Proxy) -> None:
    source = bucket.read_by(proxy.url.replace("http://", "http://user:hidden@"), attempts=1)
    proxy.close()
    for ask in (source.check, lambda: list(source.list()), lambda: source.sidecar(DAY)):
        with pytest.raises(
            Unavailable, match=rf"{bucket.name} does not answer at {proxy.url}: endpoint connection"
        ) as told:
            ask()
        assert "hidden" not in told.value.message


def test_a_server_that_never_answers_holds_nobody_for_long(bucket: Bucket, proxy: Proxy) -> None:
    source = bucket.read_by(proxy.url, attempts=2, read_seconds=0.2)
    proxy.silent = True
    started = time.monotonic()
    with pytest.raises(Unavailable, match="read timeout"):
        list(source.list())
    assert time.monotonic() - started < 15


def test_a_body_that_stalls_is_given_up(bucket: Bucket, proxy: Proxy) -> None:
    bucket.put(NAME, b"x" * 500_000)
    source = bucket.read_by(proxy.url, read_seconds=0.3)
    found = only(source)
    proxy.stall_after = 100_000
    with pytest.raises(Unavailable, match="read timeout"):
        content(source, found)


def test_check_asks_once_and_quickly(bucket: Bucket, proxy: Proxy) -> None:
    source = bucket.read_by(proxy.url)
    proxy.silent = True
    started = time.monotonic()
    with pytest.raises(Unavailable, match="read timeout"):
        source.check()
    assert time.monotonic() - started < 5


# --- what breaks --------------------------------------------------------------------------------------------------


def requests_of(source: S3Source) -> list[Any]:
    """Every request the source sends from now on, retries included."""
    sent: list[Any] = []
    source.client.meta.events.register_first("before-send.s3", lambda request, **_: sent.append(request))
    return sent


def answer_with(source: S3Source, respond: Callable[[], AWSResponse | None]) -> None:
    """Put an answer in the place of the server's (None: let the server answer)."""
    source.client.meta.events.register("before-send.s3", lambda request, **_: respond())


class Raw(io.BytesIO):
    def stream(self, **_: Any) -> Iterator[bytes]:
        yield self.read()


def answer(status: int, body: bytes, **headers: str) -> AWSResponse:
    return AWSResponse("http://s3.test", status, headers, Raw(body))


def refusal(status: int, code: str, more: str = "") -> AWSResponse:
    body = f"<Error><Code>{code}</Code><Message>no</Message>{more}</Error>"
    return answer(status, body.encode(), **{"Content-Type": "application/xml"})


class Proxy:
    """A TCP proxy in front of the server, with faults that can be switched on."""

    def __init__(self, endpoint: str) -> None:
        host, _, port = endpoint.removeprefix("http://").rpartition(":")
        self.behind = (host, int(port))
        self.cut_after: int | None = None
        self.stall_after: int | None = None
        self.silent = False
        self.change: Callable[[bytes], bytes] | None = None
        self.door = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self.door.getsockname()[1]}"
        self.open: list[socket.socket] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        # A blocked accept() would keep the port open.
        self.door.shutdown(socket.SHUT_RDWR)
        self.door.close()
        for connection in self.open:
            connection.close()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self.door.accept()
            except OSError:
                return
            server = socket.create_connection(self.behind)
            self.open += [client, server]
            threading.Thread(target=self._pass, args=(client, server, False), daemon=True).start()
            threading.Thread(target=self._pass, args=(server, client, True), daemon=True).start()

    def _pass(self, start: socket.socket, end: socket.socket, answers: bool) -> None:
        passed = 0
        try:
            while data := start.recv(65536):
                if answers and (self.silent or (self.stall_after or 10**9) < passed + len(data)):
                    return  # and keep both sides open
                if answers and self.change:
                    data = self.change(data)
                if answers and self.cut_after is not None and passed + len(data) > self.cut_after:
                    end.sendall(data[: self.cut_after - passed])
                    break
                end.sendall(data)
                passed += len(data)
        except OSError:
            pass
        for side in (start, end):
            with suppress(OSError):
                side.shutdown(socket.SHUT_RDWR)


@pytest.fixture
def proxy(endpoint: str) -> Iterator[Proxy]:
    proxy = Proxy(endpoint)
    yield proxy
    with suppress(OSError):  # a test may have closed it
        proxy.close()
