"""The bytes of one source object on local disk: inflated, bounded, hashed. Its name never comes from the key.

Reason codes: too_large, empty, not_gzip, gzip_corrupt, gzip_truncated.
"""

from __future__ import annotations

import hashlib
import shutil
import tempfile
import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, BinaryIO, Final

from app.errors import Quarantined, Reason, Unavailable

CHUNK: Final = 2**20
GZIP: Final = 31
"""zlib's window bits for a gzip stream with its header and CRC."""
MAGIC: Final = b"\x1f\x8b"

EXPANDS: Final = 200
EXPANDS_FROM: Final = 16 * 2**20
"""No cost file shrinks 200-fold: its keys differ. From 16 MiB on that is a bomb, and not inflated up to the limit."""

DESCRIPTORS: Final = Path("/proc/self/fd")
"""Opening a file by its place in here opens it anew, from its beginning, also when it has no name."""


@dataclass(frozen=True)
class Spooled:
    """`size` is of the inflated bytes at `path`; `sha256` and `raw_size` of the bytes as they lie in the source."""

    path: Path
    sha256: str
    size: int
    raw_size: int


@contextmanager
def spool(stream: BinaryIO, key: str, most_bytes: int, *, directory: Path | None = None) -> Iterator[Spooled]:
    """Read a stream to its end into a temporary file that is gone after the block, and when the process is killed; memory
    stays at a few MiB. `path` is this process's own.

    Raises Quarantined, and Unavailable when the disk cannot take it; what reading the stream raises passes through.
    """
    with _temporary(directory) as file:
        target = _Target(file, most_bytes, directory)
        taking: _Target | _Inflating = _Inflating(target) if key.endswith(".gz") else target
        sha256, raw_size = hashlib.sha256(), 0
        with ThreadPoolExecutor(1, "sha256") as beside:
            while chunk := stream.read(CHUNK):
                hashing = beside.submit(sha256.update, chunk)
                raw_size += len(chunk)
                if raw_size > most_bytes:
                    raise _too_large(most_bytes)
                taking.write(chunk)
                hashing.result()
        taking.finish()
        yield Spooled(_path(file), sha256.hexdigest(), target.size, raw_size)


def _temporary(directory: Path | None) -> AbstractContextManager[IO[bytes]]:
    """Without a name where the system can do it: a worker that is killed has no chance to remove one."""
    make = tempfile.TemporaryFile if DESCRIPTORS.is_dir() else tempfile.NamedTemporaryFile
    try:
        # Unbuffered: closing a buffered file would try once more to write what did not fit.
        return make(prefix="spendscope-", suffix=".csv", dir=directory, buffering=0)
    except OSError as error:
        raise _unavailable(error, directory) from error


def _path(file: IO[bytes]) -> Path:
    return DESCRIPTORS / str(file.fileno()) if DESCRIPTORS.is_dir() else Path(file.name)


def _unavailable(error: OSError, directory: Path | None, taken: int = 0) -> Unavailable:
    place = directory or tempfile.gettempdir()
    try:
        free = f", {shutil.disk_usage(place).free:,} bytes free"
    except OSError:
        free = ""
    return Unavailable(
        "spool",
        f"{place} takes no more after {taken:,} bytes of a file: {error.strerror}{free}. "
        "Free space there and it goes on by itself.",
    )


def _too_large(most_bytes: int) -> Quarantined:
    message = f"The file has more than {most_bytes:,} bytes. Split it or raise SPENDSCOPE_MAX_FILE_BYTES."
    return Quarantined(Reason("too_large", message))


class _Target:
    """The local file, up to its limit."""

    def __init__(self, file: IO[bytes], most_bytes: int, directory: Path | None) -> None:
        self._file, self._most_bytes, self._directory = file, most_bytes, directory
        self.size = 0

    def write(self, data: bytes) -> None:
        self.size += len(data)
        if self.size > self._most_bytes:
            raise _too_large(self._most_bytes)
        left = memoryview(data)
        try:
            while left:
                left = left[self._file.write(left) or 0 :]
        except OSError as error:
            raise _unavailable(error, self._directory, self.size) from error

    def finish(self) -> None:
        """Nothing is pending."""


class _Inflating:
    """gzip members one after another; a chunk of output at a time, so that a bomb stops where a limit is."""

    def __init__(self, target: _Target) -> None:
        self._target = target
        self._member = zlib.decompressobj(GZIP)
        self._between = True
        self._start = b""
        self._taken = 0

    def write(self, data: bytes) -> None:
        while data:
            data = self._begin(data) if self._between else self._inflate(data)

    def finish(self) -> None:
        if not self._taken and not self._start:
            message = "The file has no bytes at all. A day without cost is a file with only a header."
            raise Quarantined(Reason("empty", message))
        if self._start and self._start != MAGIC[: len(self._start)]:
            raise _not_gzip(self._target.size)
        if self._start or not self._between or not self._member.eof:
            message = f"The gzip stream ends in the middle, after {self._target.size:,} bytes. Deliver the file again."
            raise Quarantined(Reason("gzip_truncated", message))

    def _begin(self, data: bytes) -> bytes:
        """Start the next member; zeros after the last one are padding, as for gzip itself."""
        start = self._start + (data if self._start or not self._member.eof else data.lstrip(b"\0"))
        if len(start) < len(MAGIC):
            self._start = start
            return b""
        if not start.startswith(MAGIC):
            raise _not_gzip(self._target.size)
        self._member, self._between, self._start = zlib.decompressobj(GZIP), False, b""
        return start

    def _inflate(self, data: bytes) -> bytes:
        """One chunk of output; the input that is left."""
        try:
            self._target.write(self._member.decompress(data, CHUNK))
        except zlib.error as error:
            message = f"The gzip stream is damaged after {self._target.size:,} bytes ({error}). Deliver the file again."
            raise Quarantined(Reason("gzip_corrupt", message)) from None
        self._between = self._member.eof
        left = self._member.unused_data if self._between else self._member.unconsumed_tail
        self._taken += len(data) - len(left)
        if self._target.size > max(EXPANDS_FROM, EXPANDS * self._taken):
            raise self._bomb()
        return left

    def _bomb(self) -> Quarantined:
        message = (
            f"{self._taken:,} bytes expand to more than {self._target.size:,}. No cost file shrinks {EXPANDS}-fold; if "
            "this one does, deliver it without compression."
        )
        return Quarantined(Reason("too_large", message))


def _not_gzip(size: int) -> Quarantined:
    if size:
        message = f"After {size:,} inflated bytes something follows that is not gzip. Deliver the file again."
        return Quarantined(Reason("gzip_corrupt", message))
    message = "The name ends in .gz, but this is not gzip. Name it .csv, or compress it."
    return Quarantined(Reason("not_gzip", message))
