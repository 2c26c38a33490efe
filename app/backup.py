"""Backup and restore of the metadata: one archive with what it is, and a checksum of each file in it.

The cost series are not in it: they can be taken from the cost files again. Neither are the cost files, nor secrets that are
settings. Passwords, sessions and tokens are in it as the hashes that the store keeps.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import tarfile
import tempfile
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import BinaryIO, Final

from app import __version__
from app.backends import Backends
from app.core.periods import EARLIEST, LATEST
from app.errors import CannotStart, SpendscopeError
from app.ports import Metadata

FORMAT: Final = 1
MANIFEST: Final = "manifest.json"
LARGEST_MANIFEST: Final = 2**20
BLOCK: Final = 2**20
STDIO: Final = "-"


@dataclass(frozen=True)
class Manifest:
    """What a backup says of itself. `files` are name → (bytes, sha256); `schema` is the store's schema version."""

    technology: str
    schema: int
    created: datetime
    product: str
    source: str
    days: int
    files: Mapping[str, tuple[int, str]]

    def text(self) -> bytes:
        files = {name: {"bytes": size, "sha256": digest} for name, (size, digest) in self.files.items()}
        told = {
            "format": FORMAT,
            "technology": self.technology,
            "schema": self.schema,
            "created": self.created.isoformat(),
            "product": self.product,
            "source": self.source,
            "days": self.days,
            "files": files,
        }
        return json.dumps(told, indent=2).encode()


# --- making one -------------------------------------------------------------------------------------------------------


def back_up(backends: Backends, out: str, stdout: BinaryIO) -> tuple[str, Manifest]:
    """Write a backup to the file `out`, into the folder `out` under a name with the time, or to `stdout` for "-".

    Where it was written, and what is in it. Consistent while everything goes on working. Raises CannotStart for a place
    that is taken or cannot be written; nothing half written is left there.
    """
    now = backends.clock()
    days = len(backends.metadata.day_records(EARLIEST, LATEST))
    with tempfile.TemporaryDirectory(prefix="spendscope-backup-") as made:
        folder = Path(made)
        schema = backends.metadata.copy_to(folder)
        files = {path.name: (path.stat().st_size, _digest(path)) for path in sorted(folder.iterdir())}
        technology = backends.metadata.technology
        manifest = Manifest(technology, schema, now, __version__, backends.source.root, days, files)
        if out == STDIO:
            _write(stdout, manifest, folder)
            return "standard output", manifest
        place = Path(out)
        if place.is_dir():
            place = place / f"spendscope-metadata-{now:%Y%m%dT%H%M%SZ}.tar.gz"
        _write_file(place, manifest, folder)
        return str(place), manifest


def _write_file(place: Path, manifest: Manifest, folder: Path) -> None:
    if place.exists():
        raise CannotStart(f"{place} is there already. Give another name; a backup is never written over.")
    unfinished = place.with_name(f".{place.name}.{os.getpid()}")
    try:
        # Nobody else's to read: it has the audit log, and hashes of passwords.
        with os.fdopen(os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            _write(file, manifest, folder)
            file.flush()
            os.fsync(file.fileno())
        unfinished.rename(place)
    except OSError as error:
        with suppress(OSError):
            unfinished.unlink()
        raise CannotStart(f"{place} cannot be written ({error.strerror}).") from None


def _write(file: BinaryIO, manifest: Manifest, folder: Path) -> None:
    with (
        gzip.GzipFile(fileobj=file, mode="wb", compresslevel=6, filename="", mtime=0) as packed,
        tarfile.open(fileobj=packed, mode="w|", format=tarfile.PAX_FORMAT) as archive,
    ):
        _add(archive, MANIFEST, len(text := manifest.text()), io.BytesIO(text), manifest.created)
        for name, (size, _) in manifest.files.items():
            with (folder / name).open("rb") as content:
                _add(archive, name, size, content, manifest.created)


def _add(archive: tarfile.TarFile, name: str, size: int, content: BinaryIO | io.BytesIO, at: datetime) -> None:
    member = tarfile.TarInfo(name)
    member.size, member.mode, member.mtime = size, 0o600, int(at.timestamp())
    archive.addfile(member, content)


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


# --- taking one back --------------------------------------------------------------------------------------------------


@contextmanager
def checked(file: BinaryIO) -> Iterator[tuple[Manifest, Path]]:
    """The manifest of a backup, and a folder with its files while the block runs; every checksum was compared.

    Raises CannotStart for what is damaged, cut short, no backup, or of a newer release.
    """
    with tempfile.TemporaryDirectory(prefix="spendscope-restore-") as made:
        folder = Path(made)
        try:
            with tarfile.open(fileobj=file, mode="r|gz") as archive:
                members = iter(archive)
                manifest = _manifest(archive, next(members, None))
                found = {member.name: _unpacked(archive, member, manifest, folder) for member in members}
        except (tarfile.TarError, EOFError, zlib.error, gzip.BadGzipFile) as error:
            raise _no_backup(f"it cannot be unpacked ({error})") from None
        if missing := sorted(manifest.files.keys() - found.keys()):
            raise _no_backup(f"{', '.join(missing)[:200]} is missing")
        yield manifest, folder


def _manifest(archive: tarfile.TarFile, member: tarfile.TarInfo | None) -> Manifest:
    content = archive.extractfile(member) if member is not None and member.name == MANIFEST else None
    if member is None or content is None or member.size > LARGEST_MANIFEST:
        raise _no_backup(f"it does not begin with {MANIFEST}")
    try:
        told = json.loads(content.read())
        if told["format"] > FORMAT:
            raise CannotStart(
                f"This backup was made by Spendscope {str(told['product'])[:40]}, in a newer format than this release "
                "knows. Restore it with that release or a later one."
            )
        files = {str(name): (int(part["bytes"]), str(part["sha256"])) for name, part in told["files"].items()}
        created = datetime.fromisoformat(told["created"])
        known = str(told["technology"]), int(told["schema"]), created, str(told["product"]), str(told["source"])
        return Manifest(*known, int(told["days"]), files)
    except (ValueError, KeyError, TypeError, AttributeError):
        raise _no_backup(f"{MANIFEST} cannot be understood") from None


def _unpacked(archive: tarfile.TarFile, member: tarfile.TarInfo, manifest: Manifest, folder: Path) -> int:
    """Write a member that the manifest names to its file. A name with a path in it is nobody's."""
    content = archive.extractfile(member) if member.isreg() else None
    expected = manifest.files.get(member.name)
    if content is None or expected is None or Path(member.name).name != member.name:
        raise _no_backup(f"{member.name[:80]!r} does not belong in it")
    digest, size = hashlib.sha256(), 0
    with (folder / member.name).open("wb") as file:
        while block := content.read(BLOCK):
            digest.update(block)
            size += file.write(block)
    if (size, digest.hexdigest()) != expected:
        raise _no_backup(f"the checksum of {member.name} is wrong")
    return size


def _no_backup(why: str) -> CannotStart:
    return CannotStart(f"This is no backup that can be restored: {why}. Nothing was changed.")


def restore(backends: Backends, manifest: Manifest, folder: Path, *, force: bool) -> None:
    """Make the metadata what the backup says. Raises CannotStart, with nothing changed, where that would lose something
    (unless `force`) or cannot be done; SpendscopeError when the store fails meanwhile."""
    metadata = backends.metadata
    refuse_unfit(metadata, manifest)
    if not force and not metadata.is_empty():
        raise CannotStart(
            "The metadata store is not empty, and a restore replaces all of it. Back it up, then use --force."
        )
    if not force and (workers := _workers(backends)):
        raise CannotStart(f"{workers} workers are running. Stop web, workers and scheduler first, or use --force.")
    # Seconds since 1970 are above any version that was counted, also of a store that was lost together with its count.
    metadata.replace_from(folder, above=int(backends.clock().timestamp()))
    metadata.close()
    metadata.prepare()


def refuse_unfit(metadata: Metadata, manifest: Manifest) -> None:
    """Raises CannotStart for a backup that this release, or this kind of store, cannot take back."""
    if manifest.technology != metadata.technology:
        raise CannotStart(
            f"This backup is of {manifest.technology}, and the metadata store here is {metadata.technology}. "
            "Restore it where MONGODB_URI is set or unset as it was."
        )
    if manifest.schema > metadata.schema:
        raise CannotStart(
            f"This backup has schema version {manifest.schema} (Spendscope {manifest.product}), this release knows up to "
            f"{metadata.schema}. Restore it with that release or a later one."
        )


def _workers(backends: Backends) -> int:
    """How many use the store now, as far as the queue knows: one that does not answer has none."""
    try:
        return backends.queue.workers()
    except SpendscopeError:
        return 0
