"""The bytes of one source object on local disk: inflated, bounded, hashed. Its name never comes from the key."""

from __future__ import annotations

import hashlib
import tempfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, BinaryIO, Final

from app.errors import Quarantined, Reason, Unavailable

CHUNK: Final = 1 << 20
GZIP: Final = 31
"""zlib's window bits for a gzip stream with its header and CRC."""


@dataclass(frozen=True)
class Spooled:
    """`size` is of the inflated bytes at `path`; `sha256` and `raw_size` of the bytes as they lie in the source."""

    path: Path
    sha256: str
    size: int
    raw_size: int


@contextmanager
def spool(stream: BinaryIO, key: str, most_bytes: int) -> Iterator[Spooled]:
    """Read a stream to its end into a temporary file that is gone after the block.

    Raises Quarantined (`too_large`, `gzip_truncated`, `gzip_corrupt`) and Unavailable when the disk is full.
    """
    with tempfile.NamedTemporaryFile(prefix="spendscope-", suffix=".csv") as file:
        writing = _Writing(file.file, most_bytes)
        raw = hashlib.sha256()
        raw_size = 0
        inflating = _Inflating(writing) if key.endswith(".gz") else None
        try:
            while chunk := stream.read(CHUNK):
                raw.update(chunk)
                raw_size += len(chunk)
                (inflating or writing).write(chunk)
            if inflating is not None:
                inflating.finish(raw_size)
            file.flush()
        except OSError as error:
            if error.errno in (28, 122):
                raise Unavailable(
                    "spool", f"The disk of {tempfile.gettempdir()} is full; free space and it goes on by itself."
                ) from None
            raise
        yield Spooled(Path(file.name), raw.hexdigest(), writing.size, raw_size)


class _Writing:
    def __init__(self, file: IO[bytes], most_bytes: int) -> None:
        self.file = file
        self.most_bytes = most_bytes
        self.size = 0

    def write(self, data: bytes) -> None:
        self.size += len(data)
        if self.size > self.most_bytes:
            raise Quarantined(
                Reason(
                    "too_large",
                    f"The file has more than {self.most_bytes:,} bytes of text. Split it or raise SPENDSCOPE_MAX_FILE_BYTES.",
                )
            )
        self.file.write(data)


class _Inflating:
    """gzip members one after another, at most one chunk of output at a time: a bomb is stopped where the limit is."""

    def __init__(self, target: _Writing) -> None:
        self.target = target
        self.member = zlib.decompressobj(GZIP)
        self.begun = False

    def write(self, data: bytes) -> None:
        while data:
            if self.member.eof:
                if not data.strip(b"\0"):
                    return  # Padding after the last member.
                self.member, self.begun = zlib.decompressobj(GZIP), False
            self.begun = True
            try:
                self.target.write(self.member.decompress(data, CHUNK))
                while not self.member.eof and self.member.unconsumed_tail:
                    self.target.write(self.member.decompress(self.member.unconsumed_tail, CHUNK))
            except zlib.error as error:
                raise Quarantined(
                    Reason("gzip_corrupt", f"The gzip stream is damaged ({error}). Upload the file again.")
                ) from None
            data = self.member.unused_data if self.member.eof else b""

    def finish(self, raw_size: int) -> None:
        if raw_size == 0:
            raise Quarantined(
                Reason("empty", "The file has no bytes at all. A day without cost is a file with only a header.")
            )
        if not self.member.eof:
            raise Quarantined(Reason("gzip_truncated", "The gzip stream ends in the middle. Upload the file again."))
