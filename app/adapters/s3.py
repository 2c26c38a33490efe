"""A prefix of an S3 bucket: the production source, on AWS or any endpoint that speaks S3."""

from __future__ import annotations

import contextlib
import io
import re
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, date, datetime
from functools import cache
from http.client import HTTPException
from typing import TYPE_CHECKING, Any, BinaryIO, Final, Protocol, cast

import boto3
import botocore.session
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError
from botocore.loaders import create_loader
from urllib3.exceptions import HTTPError

from app.aws import NO_CREDENTIALS
from app.core.reconciliation import unreadable
from app.errors import BadCredentials, CannotStart, Conflict, Quarantined, Reason, SpendscopeError, Unavailable
from app.ports import REFERENCE_BYTES, SourceObject

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client
    from mypy_boto3_s3.type_defs import GetObjectOutputTypeDef, ListObjectsV2OutputTypeDef

SIDECAR_BYTES: Final = 2**20
LONGEST_KEY: Final = 1024
"""S3's limit, in bytes of UTF-8."""
ATTEMPTS: Final = 6
CONNECT_SECONDS: Final = 5.0
READ_SECONDS: Final = 30.0
PROBE_SECONDS: Final = 2.0
"""`check` answers /readyz and must not take longer than a person waits."""

FAILURES: Final = (ClientError, BotoCoreError, HTTPError, HTTPException, OSError)
"""What a request, or reading its answer's body, may raise."""

REFUSED: Final = frozenset({"ExpiredToken", "InvalidToken", "TokenRefreshRequired", "InvalidAccessKeyId"})
"""Refusals that do not always come with status 401 or 403."""


class S3Source:
    """Objects directly below `s3://bucket/prefix/`. A version is the ETag; reading asks for exactly that one."""

    def __init__(
        self,
        root: str,
        endpoint_url: str | None = None,
        *,
        attempts: int = ATTEMPTS,
        connect_seconds: float = CONNECT_SECONDS,
        read_seconds: float = READ_SECONDS,
    ) -> None:
        """Credentials and region are boto3's business. Raises CannotStart for a root or a setting nothing can be made of."""
        self.root = root
        self.bucket, _, self.prefix = root.removeprefix("s3://").partition("/")
        if not root.startswith("s3://") or not self.bucket:
            raise CannotStart(f"SPENDSCOPE_SOURCE {root[:200]!r} names no bucket. Write it as s3://bucket/costs/.")
        try:
            self._session = session = _session()
            # Both are made at once: a boto3 session must not be used by two threads, its clients may be.
            self.client = _client(session, endpoint_url, attempts, connect_seconds, read_seconds)
            self._probe = _client(session, endpoint_url, 1, min(PROBE_SECONDS, connect_seconds), PROBE_SECONDS)
        except (BotoCoreError, ValueError) as error:
            raise CannotStart(
                f"S3 cannot be used: {_short(error)} Check AWS_ENDPOINT_URL, AWS_REGION and AWS_PROFILE."
            ) from None

    def check(self) -> None:
        with self._failures():
            self._probe.list_objects_v2(Bucket=self.bucket, Prefix=self.prefix, Delimiter="/", MaxKeys=1)

    def list(self) -> Iterator[SourceObject]:
        return self._below(self.prefix)

    def _below(self, prefix: str) -> Iterator[SourceObject]:
        pages = iter(
            self.client.get_paginator("list_objects_v2").paginate(Bucket=self.bucket, Prefix=prefix, Delimiter="/")
        )
        while True:
            with self._failures():
                page = next(pages, None)
            if page is None:
                return
            yield from _listed(page, prefix)

    def find(self, key: str) -> SourceObject | None:
        # By listing, not HEAD: what comes back is to the letter what the next listing tells, with the same rights.
        if "/" in key or not key.isprintable() or len((self.prefix + key).encode()) > LONGEST_KEY:
            return None
        with self._failures():
            page = self.client.list_objects_v2(Bucket=self.bucket, Prefix=self.prefix + key, Delimiter="/", MaxKeys=1)
        return next((found for found in _listed(page, self.prefix) if found.key == key), None)

    @contextmanager
    def open(self, found: SourceObject) -> Iterator[BinaryIO]:
        with self._opened(self.prefix, found) as stream:
            yield stream

    @contextmanager
    def _opened(self, prefix: str, found: SourceObject) -> Iterator[BinaryIO]:
        with self._failures(found.key):
            answer = self.client.get_object(Bucket=self.bucket, Key=prefix + found.key, IfMatch=found.version)
        with self._body(answer, found.key, found.size) as stream:
            # Not every server that speaks S3 heeds If-Match.
            if answer["ETag"] != found.version:
                raise _replaced(found.key)
            yield stream

    def sidecar(self, day: date) -> bytes | None:
        key = f"{self._beside('coverage')}{day}.json"
        try:
            with self._failures(key):
                answer = self.client.get_object(Bucket=self.bucket, Key=key)
        except Conflict:
            return None
        with self._body(answer, key, answer["ContentLength"]) as stream:
            if answer["ContentLength"] > SIDECAR_BYTES:
                raise Quarantined(
                    Reason(
                        "sidecar",
                        f"s3://{self.bucket}/{key} is larger than 1 MiB, so it is not a coverage file. "
                        "Correct or remove it.",
                    )
                )
            return stream.read()

    def references(self) -> Iterator[SourceObject]:
        return self._below(self._beside("reference"))

    def reference(self, found: SourceObject) -> bytes:
        if found.size > REFERENCE_BYTES:
            raise unreadable(f"{found.key} is larger than {REFERENCE_BYTES >> 20} MiB")
        with self._opened(self._beside("reference"), found) as stream:
            return stream.read()

    def _beside(self, folder: str) -> str:
        """The prefix of a folder beside the root's."""
        parent = self.prefix.rstrip("/").rpartition("/")[0]
        return f"{parent}/{folder}/" if parent else f"{folder}/"

    @contextmanager
    def _body(self, answer: GetObjectOutputTypeDef, key: str, size: int) -> Iterator[BinaryIO]:
        body = answer["Body"]
        try:
            yield cast(BinaryIO, io.BufferedReader(_Download(body, key, size), 2**16))
        finally:
            body.close()

    @contextmanager
    def _failures(self, key: str | None = None) -> Iterator[None]:
        try:
            yield
        except FAILURES as error:
            raise self._failure(error, key) from error

    def _failure(self, error: Exception, key: str | None) -> SpendscopeError:
        """What a failed request means, in a sentence. Never more of a credential than its key id's last four."""
        if isinstance(error, NO_CREDENTIALS):
            return BadCredentials(
                "source",
                "No usable AWS credentials for S3: give AWS_ACCESS_KEY_ID and its secret, a profile or a role.",
            )
        if isinstance(error, ClientError):
            return self._refusal(error, key)
        return Unavailable("source", f"S3 bucket {self.bucket} does not answer at {self._endpoint}: {_kind(error)}.")

    def _refusal(self, error: ClientError, key: str | None) -> SpendscopeError:
        code = str(error.response.get("Error", {}).get("Code", ""))
        status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
        if key and (status == 412 or code == "PreconditionFailed"):
            return _replaced(key)
        if key and code in ("NoSuchKey", "404"):
            return Conflict(f"{key} is gone since it was listed.")
        if code == "NoSuchBucket":
            return Unavailable(
                "source",
                f"There is no bucket {self.bucket} at {self._endpoint}. Create it, or correct SPENDSCOPE_SOURCE.",
            )
        if code == "RequestTimeTooSkewed":
            return Unavailable("source", _clock_off(error))
        if code == "InvalidObjectState":
            return Unavailable("source", f"{key} is archived in {self.bucket}. Restore it to read it.")
        if status in (401, 403) or code in REFUSED:
            return BadCredentials("source", self._denied(code, key))
        return Unavailable("source", f"S3 bucket {self.bucket} answered {code or status} at {self._endpoint}.")

    def _denied(self, code: str, key: str | None) -> str:
        wanted = f"s3:GetObject on {key} (and s3:ListBucket)" if key else f"s3:ListBucket on {self.prefix or 'it'}"
        return f"S3 bucket {self.bucket} refused access with {code}{self._key_id}. Allow {wanted}, or change the credentials."

    @property
    def _key_id(self) -> str:
        """` (access key …WXYZ)`, as far as one is known."""
        with contextlib.suppress(*FAILURES):
            if credentials := self._session.get_credentials():
                return f" (access key …{str(credentials.access_key)[-4:]})"
        return ""

    @property
    def _endpoint(self) -> str:
        """The server asked, without what may stand before an @."""
        scheme, _, place = self.client.meta.endpoint_url.partition("://")
        return f"{scheme}://{place.rpartition('@')[2]}"


def _listed(page: ListObjectsV2OutputTypeDef, prefix: str) -> Iterator[SourceObject]:
    for entry in page.get("Contents", []):
        name = entry["Key"].removeprefix(prefix)
        # A name that cannot be shown is no cost file's; no name at all is the marker of the "folder" itself.
        if name and name.isprintable():
            yield SourceObject(name, entry["ETag"], entry["Size"], entry["LastModified"].astimezone(UTC))


class _Stream(Protocol):
    def read(self, amt: int | None = ...) -> bytes: ...


class _Download(io.RawIOBase):
    """An object's bytes, all of them or an error: a connection that breaks must not look like the end of a file."""

    def __init__(self, body: _Stream, key: str, size: int) -> None:
        self._body, self._key, self._size = body, key, size
        self._taken = 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        try:
            chunk = self._body.read(len(buffer))
        except FAILURES as error:
            raise self._cut(f"{_kind(error)}") from error
        self._taken += len(chunk)
        if self._taken > self._size or (not chunk and self._taken < self._size):
            raise self._cut("the connection ended early" if not chunk else "more bytes came than were listed")
        buffer[: len(chunk)] = chunk
        return len(chunk)

    def _cut(self, why: str) -> Unavailable:
        return Unavailable(
            "source", f"{self._key} was not transferred whole ({self._taken} of {self._size} bytes): {why}."
        )


def load_models() -> None:
    """Read what boto3 knows of S3, so that processes forked from this one need not: a tenth of a second each time.

    Nothing is asked of the network, and no credentials are looked for. What is wrong with the surroundings (a profile
    that does not exist) is told when a source is opened.
    """
    nobody = "none"
    with contextlib.suppress(BotoCoreError, ValueError):
        _session().client("s3", region_name="us-east-1", aws_access_key_id=nobody, aws_secret_access_key=nobody)


_models: Final = cache(create_loader)
"""boto3 reads its descriptions of services once a session; they are the same in every one."""


def _session() -> boto3.session.Session:
    core = botocore.session.Session()
    core.register_component("data_loader", _models(core.get_config_variable("data_path")))
    return boto3.session.Session(botocore_session=core)


def _client(
    session: boto3.session.Session, endpoint: str | None, attempts: int, connect: float, read: float
) -> S3Client:
    """`attempts` at a request, with jittered backoff; only up to the answer's head: bodies are not resumed."""
    config = Config(
        connect_timeout=connect,
        read_timeout=read,
        retries={"mode": "adaptive" if attempts > 1 else "standard", "total_max_attempts": attempts},
        user_agent_extra="spendscope",
    )
    client: S3Client = session.client("s3", endpoint_url=endpoint, config=config)
    return client


def _replaced(key: str) -> Conflict:
    return Conflict(f"{key} was replaced since it was listed. It is read again at the next look.")


def _clock_off(error: ClientError) -> str:
    """S3 tells both times of a request whose signature is too old or too new."""
    told = cast(dict[str, str], error.response.get("Error", {}))
    with contextlib.suppress(KeyError, ValueError):
        theirs = datetime.fromisoformat(told["ServerTime"])
        ours = datetime.strptime(told["RequestTime"], "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
        seconds = (ours - theirs).total_seconds()
        return f"This machine's clock is off by {seconds:+.0f} s against S3. Set the clock; the credentials are not at fault."
    return "This machine's clock is off against S3 by more than 15 minutes. Set the clock; the credentials are not at fault."


def _kind(error: Exception) -> str:
    """The kind of failure in words; messages of lower layers may hold URLs and what is in them."""
    words = re.sub("(?<=[a-z])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", " ", type(error).__name__).lower()
    return words.removesuffix(" error") or words


def _short(error: Exception) -> str:
    text = str(error).splitlines()[0][:200] if str(error) else type(error).__name__
    return text if text.endswith(".") else text + "."
