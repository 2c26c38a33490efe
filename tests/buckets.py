"""Buckets on moto's server, and everything that can go wrong between them and us."""

from __future__ import annotations

import io
import os
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import cache
from itertools import count
from typing import Any

import boto3
import pytest
from botocore.awsrequest import AWSResponse
from moto.core import DEFAULT_ACCOUNT_ID
from moto.s3.models import s3_backends
from moto.server import ThreadedMotoServer

from app.adapters.s3 import S3Source
from app.ports import Source

KEY_ID, SECRET = "AKIAEXAMPLE7WXYZ", "SeCrEt/k7MDENG+bPxRfiCYEXAMPLEKEY"
BUCKETS = count()


@contextmanager
def s3_server() -> Iterator[str]:
    """The URL of a server that speaks S3 and SQS."""
    server = ThreadedMotoServer("127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


def only_our_aws(patch: pytest.MonkeyPatch) -> None:
    """What a deployment sets, and nothing of the machine the test runs on."""
    for name in [name for name in os.environ if name.startswith("AWS_") or name.lower().endswith("_proxy")]:
        patch.delenv(name)
    patch.setenv("AWS_ACCESS_KEY_ID", KEY_ID)
    patch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    patch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    patch.setenv("AWS_CONFIG_FILE", os.devnull)
    patch.setenv("AWS_SHARED_CREDENTIALS_FILE", os.devnull)


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
        self.cut_question_after: int | None = None
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
                if not answers and self.cut_question_after is not None and passed + len(data) > self.cut_question_after:
                    break
                end.sendall(data)
                passed += len(data)
        except OSError:
            pass
        for side in (start, end):
            with suppress(OSError):
                side.shutdown(socket.SHUT_RDWR)
