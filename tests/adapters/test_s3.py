from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest

from app.adapters.s3 import S3Source
from app.errors import BadCredentials, CannotStart, Conflict, Unavailable
from app.ingest import watch
from tests.arrivals import HEADER
from tests.buckets import (
    KEY_ID,
    SECRET,
    Bucket,
    Proxy,
    answer,
    answer_with,
    only_our_aws,
    refusal,
    requests_of,
    s3_server,
)
from tests.contracts.source import DAY, NAME, Place, SourceContract, content, only
from tests.workers.world import world_of
from workers.jobs import HANDLERS, run_job


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    with s3_server() as url:
        yield url


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    only_our_aws(monkeypatch)


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


@pytest.mark.alone
def test_check_asks_once_and_quickly(bucket: Bucket, proxy: Proxy) -> None:
    source = bucket.read_by(proxy.url)
    proxy.silent = True
    started = time.monotonic()
    with pytest.raises(Unavailable, match="read timeout"):
        source.check()
    assert time.monotonic() - started < 5


# --- what breaks --------------------------------------------------------------------------------------------------


@pytest.fixture
def proxy(endpoint: str) -> Iterator[Proxy]:
    proxy = Proxy(endpoint)
    yield proxy
    with suppress(OSError):  # a test may have closed it
        proxy.close()
