"""A folder of daily cost files: the embedded source, and any mounted directory."""

from __future__ import annotations

import errno
import io
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any, BinaryIO, Final, cast
from urllib.parse import unquote_to_bytes

from app.core.reconciliation import unreadable
from app.errors import BadCredentials, CannotStart, Conflict, Quarantined, Reason, Unavailable
from app.ports import REFERENCE_BYTES, SourceObject

SIDECAR_BYTES: Final = 2**20
EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


class FolderSource:
    """Regular files directly in the directory that a `file:///dir/costs/` URL names (percent-decoded).

    A version is size, time of change in ns and inode: what a rename over the file, an append or a rewrite alters.
    """

    def __init__(self, root: str) -> None:
        """Raises CannotStart when `root` is no usable file URL; the directory itself may appear later."""
        self.root = root
        self.path = directory_of(root)

    def check(self) -> None:
        with self._failures(), os.scandir(self.path) as entries:
            next(entries, None)

    def list(self) -> Iterator[SourceObject]:
        with self._failures():
            with os.scandir(self.path) as entries:
                # A name that cannot be shown (not UTF-8, control characters) is no cost file's.
                found = sorted((entry for entry in entries if entry.name.isprintable()), key=lambda entry: entry.name)
            objects = [self._listed(entry) for entry in found]
        yield from (listed for listed in objects if listed is not None)

    def find(self, key: str) -> SourceObject | None:
        # By listing: a name from outside never becomes part of a path.
        return next((found for found in self.list() if found.key == key), None)

    @contextmanager
    def open(self, found: SourceObject) -> Iterator[BinaryIO]:
        with self._opened(found) as descriptor:
            stream = _Reading(descriptor, found)
            stream.verify()
            try:
                yield cast(BinaryIO, io.BufferedReader(stream, 2**16))
            except Exception:
                # What was made of a file that changed meanwhile (say, "row cut off") says nothing about either version.
                stream.verify()
                raise
            stream.verify()

    def sidecar(self, day: date) -> bytes | None:
        folder = self.path.parent / "coverage"
        path = folder / f"{day}.json"
        try:
            with self._failures(path):
                if not _lies_in(path, folder) or not path.is_file():
                    return None
                with path.open("rb") as file:
                    data = file.read(SIDECAR_BYTES + 1)
        except Conflict:
            return None
        if len(data) > SIDECAR_BYTES:
            raise Quarantined(
                Reason("sidecar", f"{path} is larger than 1 MiB, so it is not a coverage file. Correct or remove it.")
            )
        return data

    def references(self) -> Iterator[SourceObject]:
        beside = self._beside()
        with self._failures(beside.path):
            there = beside.path.is_dir()
        if there:
            yield from beside.list()

    def reference(self, found: SourceObject) -> bytes:
        with self._beside().open(found) as stream:
            data = stream.read(REFERENCE_BYTES + 1)
        if len(data) > REFERENCE_BYTES:
            raise unreadable(f"{found.key} is larger than {REFERENCE_BYTES >> 20} MiB")
        return data

    def _beside(self) -> FolderSource:
        beside = FolderSource(self.root)
        beside.path = self.path.parent / "reference"
        return beside

    def _listed(self, entry: os.DirEntry[str]) -> SourceObject | None:
        """None for what is no file of this folder: directories, pipes, links that lead out of it or nowhere."""
        try:
            if entry.is_symlink() and not _lies_in(Path(entry.path), self.path):
                return None
            about = entry.stat()
        except OSError as error:
            if entry.is_symlink() or error.errno == errno.ENOENT:
                return None
            raise
        if not stat.S_ISREG(about.st_mode):
            return None
        return SourceObject(entry.name, version_of(about), about.st_size, time_of(about.st_mtime_ns))

    @contextmanager
    def _opened(self, found: SourceObject) -> Iterator[int]:
        # O_NONBLOCK: a pipe put in the file's place since it was listed must not hold the worker.
        with self._failures(self.path / found.key):
            descriptor = os.open(self.path / found.key, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            yield descriptor
        finally:
            os.close(descriptor)

    @contextmanager
    def _failures(self, file: Path | None = None) -> Iterator[None]:
        """Say what went wrong with the folder, or with one file of it."""
        try:
            yield
        except OSError as error:
            raise _failure(error, self.path, file) from error


class _Reading(io.RawIOBase):
    """A file that is the listed version from its first byte to its end, or reading raises Conflict."""

    def __init__(self, descriptor: int, found: SourceObject) -> None:
        self._descriptor = descriptor
        self._found = found

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        try:
            count = os.readv(self._descriptor, [buffer])
        except OSError as error:
            raise Unavailable("source", f"{self._found.key} cannot be read to its end: {error.strerror}.") from error
        if not count:
            self.verify()
        return count

    def verify(self) -> None:
        about = os.fstat(self._descriptor)
        if not stat.S_ISREG(about.st_mode) or version_of(about) != self._found.version:
            raise Conflict(f"{self._found.key} changed since it was listed. It is read again at the next look.")


def directory_of(root: str) -> Path:
    """The directory of a `file:///dir/` URL."""
    encoded = root.removeprefix("file://")
    path = unquote_to_bytes(encoded)
    if encoded == root or not path.startswith(b"/") or b"\0" in path:
        raise CannotStart(f"SPENDSCOPE_SOURCE {root[:200]!r} is not a folder. Write it as file:///dir/costs/.")
    return Path(os.fsdecode(path))


def _lies_in(path: Path, folder: Path) -> bool:
    """Whether links, followed to their end, stay below the folder (Path.resolve would raise on a loop of links)."""
    return Path(os.path.realpath(path)).is_relative_to(os.path.realpath(folder))


def version_of(about: os.stat_result) -> str:
    return f"{about.st_size}-{about.st_mtime_ns}-{about.st_ino:x}"


def time_of(nanoseconds: int) -> datetime:
    """A file may claim any time at all; the calendar ends at the year 9999."""
    try:
        return EPOCH + timedelta(microseconds=nanoseconds // 1000)
    except OverflowError:
        return datetime.max.replace(tzinfo=UTC) if nanoseconds > 0 else datetime.min.replace(tzinfo=UTC)


def _failure(error: OSError, folder: Path, file: Path | None) -> Exception:
    if isinstance(error, PermissionError):
        return BadCredentials(
            "source",
            f"{file or folder} may not be read by the user Spendscope runs as (uid {os.geteuid()}). "
            "Allow it to read the folder and its files.",
        )
    if file is not None and isinstance(error, FileNotFoundError | NotADirectoryError):
        return Conflict(f"{file.name} is gone since it was listed.")
    if isinstance(error, FileNotFoundError):
        return Unavailable("source", f"The folder {folder} does not exist. Create it, or correct SPENDSCOPE_SOURCE.")
    if isinstance(error, NotADirectoryError):
        return Unavailable("source", f"{folder} is not a folder. Correct SPENDSCOPE_SOURCE.")
    return Unavailable("source", f"{file or folder} cannot be read: {error.strerror or error}.")
