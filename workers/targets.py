"""Where a collector leaves its files: a bucket or a folder, written only over the version that was read.

Only the standard library and boto3: the collector's Lambda carries this module.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any, Final, Protocol
from urllib.parse import unquote_to_bytes

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError, HTTPClientError

from app.aws import NO_CREDENTIALS
from app.errors import BadCredentials, CannotStart, Conflict, SpendscopeError, Unavailable

CONTENT_TYPES: Final = {".csv": "text/csv; charset=utf-8", ".json": "application/json"}


@dataclass(frozen=True)
class Kept:
    """A file that is there; `version` changes whenever its bytes may have changed."""

    data: bytes
    version: str


class Target(Protocol):
    """Files in a folder for days and beside it. Raises BadCredentials and Unavailable, each one line for a person."""

    folder: str
    """Name of the folder of daily files, with a slash; `coverage/`, `reference/`, `collections/` lie beside it."""

    def read(self, name: str) -> Kept | None: ...

    def write(self, name: str, data: bytes, over: str | None) -> str:
        """Put a file in place of the version `over`, or where there is none; its version.

        Raises Conflict when something else is there by now: nothing was written then.
        """


def day_name(target: Target, day: date) -> str:
    return f"{target.folder}{day}.csv"


def coverage_name(day: date) -> str:
    return f"coverage/{day}.json"


def open_target(root: str, endpoint_url: str | None = None) -> Target:
    """The folder that `s3://bucket/costs/` or `file:///dir/costs/` names. Raises CannotStart for anything else."""
    if root.startswith("s3://"):
        return S3Target(root, endpoint_url)
    if root.startswith("file:///"):
        return FolderTarget(root)
    raise CannotStart(
        "SPENDSCOPE_SOURCE names no place to collect to. Set it to s3://bucket/costs/ or file:///dir/costs/."
    )


# --- a bucket -----------------------------------------------------------------------------------------------------


class S3Target:
    """Objects written with If-Match or If-None-Match, so that two runs cannot overwrite each other's."""

    def __init__(self, root: str, endpoint_url: str | None = None) -> None:
        self.bucket, _, prefix = root.removeprefix("s3://").partition("/")
        if not self.bucket:
            raise CannotStart(f"SPENDSCOPE_SOURCE {root[:200]!r} names no bucket. Write it as s3://bucket/costs/.")
        parent, _, name = prefix.rstrip("/").rpartition("/")
        self._above = f"{parent}/" if parent else ""
        self.folder = f"{name}/" if name else ""
        self._hidden: set[str] = set()
        try:
            config = Config(retries={"mode": "standard", "total_max_attempts": 6}, connect_timeout=5, read_timeout=30)
            self._client: Any = boto3.session.Session().client("s3", endpoint_url=endpoint_url, config=config)
        except (BotoCoreError, ValueError) as error:
            raise CannotStart(f"S3 cannot be used: {str(error)[:200]}") from None

    def read(self, name: str) -> Kept | None:
        """A 403 may also mean that there is nothing: S3 says 404 only to who may list. Writing tells them apart."""
        self._hidden.discard(name)
        try:
            answer = self._client.get_object(Bucket=self.bucket, Key=self._above + name)
            return Kept(answer["Body"].read(), answer["ETag"])
        except ClientError as error:
            if code_of(error) in ("NoSuchKey", "404"):
                return None
            if status_of(error) == 403 and code_of(error) in ("AccessDenied", "403"):
                self._hidden.add(name)
                return None
            raise self._failure(error, "s3:GetObject", name) from error
        except (BotoCoreError, HTTPClientError, OSError) as error:
            raise self._silent(error) from error

    def write(self, name: str, data: bytes, over: str | None) -> str:
        condition = {"IfMatch": over} if over is not None else {"IfNoneMatch": "*"}
        try:
            answer = self._client.put_object(
                Bucket=self.bucket,
                Key=self._above + name,
                Body=data,
                ContentType=CONTENT_TYPES.get(Path(name).suffix, "application/octet-stream"),
                **condition,
            )
            return str(answer["ETag"])
        except ClientError as error:
            if status_of(error) not in (409, 412) and not (over is not None and code_of(error) == "NoSuchKey"):
                raise self._failure(error, "s3:PutObject", name) from error
            if name in self._hidden:
                raise self._failure(error, "s3:GetObject", name, refused=True) from error
            raise Conflict(f"{name} was written by somebody else meanwhile.") from error
        except (BotoCoreError, HTTPClientError, OSError) as error:
            raise self._silent(error) from error

    def _failure(self, error: ClientError, action: str, name: str, *, refused: bool = False) -> SpendscopeError:
        code, place = code_of(error), f"s3://{self.bucket}/{self._above}{name}"
        if code == "NoSuchBucket":
            return Unavailable("source", f"There is no bucket {self.bucket}. Create it, or correct SPENDSCOPE_SOURCE.")
        if refused or status_of(error) in (401, 403):
            return BadCredentials(
                "source", f"S3 refused {action} on {place} ({code}). Allow it, or change the credentials."
            )
        return Unavailable("source", f"S3 answered {code} to {action} on {place}.")

    def _silent(self, error: Exception) -> SpendscopeError:
        if isinstance(error, NO_CREDENTIALS):
            return BadCredentials("source", "No usable AWS credentials for S3: give a key, a profile or a role.")
        return Unavailable("source", f"S3 bucket {self.bucket} does not answer ({type(error).__name__}).")


def code_of(error: ClientError) -> str:
    return str(error.response.get("Error", {}).get("Code", ""))


def status_of(error: ClientError) -> int:
    return int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))


# --- a folder -----------------------------------------------------------------------------------------------------


class FolderTarget:
    """Files replaced at once under a lock that every collector of this folder takes; a version is made of the bytes."""

    def __init__(self, root: str) -> None:
        costs = Path(os.fsdecode(unquote_to_bytes(root.removeprefix("file://"))))
        self._above, self.folder = costs.parent, f"{costs.name}/"

    def read(self, name: str) -> Kept | None:
        with self._failures(name), suppress(FileNotFoundError):
            data = (self._above / name).read_bytes()
            return Kept(data, _digest(data))
        return None

    def write(self, name: str, data: bytes, over: str | None) -> str:
        with self._failures(name), self._locked():
            path = self._above / name
            path.parent.mkdir(parents=True, exist_ok=True)
            there = _digest(path.read_bytes()) if path.exists() else None
            if there != over:
                raise Conflict(f"{name} was written by somebody else meanwhile.")
            _replace(path, data)
        return _digest(data)

    @contextmanager
    def _locked(self) -> Iterator[None]:
        self._above.mkdir(parents=True, exist_ok=True)
        with (self._above / ".collector.lock").open("a") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    @contextmanager
    def _failures(self, name: str) -> Iterator[None]:
        try:
            yield
        except PermissionError:
            place = self._above / name
            raise BadCredentials(
                "source", f"{place} may not be read and written by uid {os.geteuid()}. Allow it."
            ) from None
        except OSError as error:
            raise Unavailable("source", f"{self._above / name} cannot be written: {error.strerror}.") from error


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _replace(path: Path, data: bytes) -> None:
    new = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with new.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        new.replace(path)
    finally:
        new.unlink(missing_ok=True)
