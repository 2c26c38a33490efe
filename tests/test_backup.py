"""Backup and restore of the metadata, as an administrator does it: the commands, real processes, bad archives."""

from __future__ import annotations

import gzip
import io
import json
import sys
import tarfile
import threading
from collections.abc import Callable
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from app import access
from app.backends import Backends, open_metadata, store_dir
from app.backup import back_up, checked
from app.cli import main
from app.core.ledger import DayRecord
from app.launcher import locked_data_dir
from tests.arrivals import DAY, HEADER, arrive, csv, take
from tests.fakes import MemoryQueue
from tests.test_up import environment, run

Command = Callable[..., Result]


@pytest.fixture
def command(tmp_path: Path, folder: Path, backends: Backends) -> Command:
    given = {"SPENDSCOPE_SOURCE": folder.as_uri() + "/", "SPENDSCOPE_DATA_DIR": str(tmp_path / "data")}
    return lambda *arguments, **more: CliRunner().invoke(main, list(map(str, arguments)), env=given | more)


@pytest.fixture
def archive(backends: Backends, folder: Path, tmp_path: Path) -> Path:
    take(backends, arrive(folder, csv("a,S,r,1.25,1,1,1")))
    place, made = back_up(backends, str(tmp_path / "kept.tar.gz"), sys.stdout.buffer)
    assert made.days == 1
    return Path(place)


def forget(backends: Backends) -> None:
    backends.metadata.close()
    for file in store_dir(backends.settings).glob("metadata.sqlite*"):
        file.unlink()


def days_of(backends: Backends) -> dict[Any, DayRecord]:
    return open_metadata(backends.settings).day_records(DAY.replace(day=1), DAY.replace(year=DAY.year + 1))


@pytest.mark.slow
def test_a_restored_ledger_takes_only_what_came_since(tmp_path: Path) -> None:
    source = tmp_path / "in" / "costs"
    source.mkdir(parents=True)
    for number in (1, 2):
        (source / f"2026-10-0{number}.csv").write_text(HEADER + f"a,S,r,{number}.10,1,1,1\n")
    given = environment(tmp_path / "data", SPENDSCOPE_SOURCE=source.as_uri() + "/", SPENDSCOPE_WORKERS="1")
    assert run(["ingest", "--wait"], given).returncode == 0
    kept = tmp_path / "kept"
    kept.mkdir()
    made = run(["backup", str(kept)], given)
    assert made.returncode == 0, made.stderr
    (archive,) = kept.iterdir()
    assert archive.stat().st_mode & 0o777 == 0o600
    (source / "2026-10-03.csv").write_text(HEADER + "a,S,r,3.10,1,1,1\n")
    assert run(["ingest", "--wait"], given).returncode == 0
    for file in (tmp_path / "data" / "store").glob("metadata.sqlite*"):
        file.unlink()
    back = run(["restore", str(archive)], given)
    assert back.returncode == 0, back.stderr
    told = run(["ingest", "--wait", "--json"], given)
    assert [file["key"] for file in json.loads(told.stdout)["files"]] == ["2026-10-03.csv"], (
        "what was known is not read"
    )
    asked = run(["query", "--start", "2026-10-01", "--end", "2026-11-01", "--format", "json"], given)
    assert json.loads(asked.stdout)["total"] == "6.3"
    assert run(["doctor"], given).stdout.count("has what the ledger says: 3 days") == 1


def test_a_copy_is_of_one_moment_while_others_write(backends: Backends, tmp_path: Path) -> None:
    """Two days are always changed together by no transaction: a copy may have one change more of the first, never less."""
    store, stop = backends.metadata, threading.Event()
    first, second = DAY, DAY.replace(day=2)

    def write() -> None:
        revision = 0
        while not stop.is_set():
            revision += 1
            for day in (first, second):
                assert store.put_day_record(DayRecord(day, revision))

    writer = threading.Thread(target=write)
    writer.start()
    try:
        for number in range(5):
            folder = tmp_path / str(number)
            folder.mkdir()
            store.copy_to(folder)
            copy = replace(backends, metadata=type(store)(folder / "metadata.sqlite")).metadata
            found = copy.day_records(first, second.replace(day=3))
            revisions = [found[day].revision if day in found else 0 for day in (first, second)]
            assert revisions[0] - revisions[1] in (0, 1), revisions
            assert copy.ledger_version() == sum(revisions)
    finally:
        stop.set()
        writer.join()


def test_no_secret_is_in_it(backends: Backends, tmp_path: Path) -> None:
    access.add_user(backends, "ann", "admin", None, "correct horse battery")
    token, _ = access.create_token(backends, "ann", "t", ["read"], 1)
    place, _ = back_up(backends, str(tmp_path / "kept.tar.gz"), sys.stdout.buffer)
    whole = gzip.decompress(Path(place).read_bytes())
    assert b"ann" in whole
    assert b"$argon2id$" in whole
    for secret in ("correct horse battery", token):
        assert secret.encode() not in whole


def test_what_is_there_is_not_replaced_unless_forced(backends: Backends, archive: Path, command: Command) -> None:
    before = days_of(backends)
    assert "not empty" in (refused := command("restore", archive)).output
    assert refused.exit_code == 2
    assert days_of(backends) == before
    assert command("restore", archive, "--force").exit_code == 0
    assert days_of(backends) == before
    forget(backends)
    assert command("restore", archive).exit_code == 0
    assert days_of(backends) == before
    taken = command("backup", archive)
    assert (taken.exit_code, "there already" in taken.output) == (2, True)


def test_a_running_spendscope_is_not_pulled_away_from_under(
    backends: Backends, archive: Path, command: Command
) -> None:
    with locked_data_dir(backends.settings):
        refused = command("restore", archive, "--force")
    assert (refused.exit_code, "is in use" in refused.output) == (2, True)


def test_running_workers_of_a_cluster_stand_in_its_way(backends: Backends, archive: Path, tmp_path: Path) -> None:
    from app.backup import restore
    from app.errors import CannotStart

    busy = replace(backends, queue=MemoryQueue(alive=3))
    forget(backends)
    with archive.open("rb") as file, checked(file) as (manifest, folder):
        with pytest.raises(CannotStart, match="3 workers are running"):
            restore(busy, manifest, folder, force=False)
        restore(busy, manifest, folder, force=True)


def test_it_goes_through_a_pipe(backends: Backends, folder: Path, command: Command, archive: Path) -> None:
    piped = command("backup", "-")
    assert piped.exit_code == 0
    with tarfile.open(fileobj=io.BytesIO(piped.stdout_bytes), mode="r:gz") as packed:
        assert packed.getnames() == ["manifest.json", "metadata.sqlite"]
    assert command("restore", archive, "--check").output.startswith("Whole, and fits this release")


def repacked(archive: Path, change: Callable[[str, bytes], tuple[str, bytes] | None], extra: str = "") -> bytes:
    out = io.BytesIO()
    with tarfile.open(archive, "r:gz") as before, tarfile.open(fileobj=out, mode="w:gz") as after:
        for member in before:
            content = before.extractfile(member)
            assert content is not None
            if (changed := change(member.name, content.read())) is not None:
                info = tarfile.TarInfo(changed[0])
                info.size = len(changed[1])
                after.addfile(info, io.BytesIO(changed[1]))
        if extra:
            after.addfile(tarfile.TarInfo(extra), io.BytesIO())
    return out.getvalue()


def manifest_with(**changes: Any) -> Callable[[str, bytes], tuple[str, bytes]]:
    def change(name: str, data: bytes) -> tuple[str, bytes]:
        return (name, json.dumps(json.loads(data) | changes).encode()) if name == "manifest.json" else (name, data)

    return change


BAD: dict[str, tuple[Callable[[Path], bytes], str]] = {
    "not an archive": (lambda _: b"hello", "cannot be unpacked"),
    "empty": (lambda _: b"", "cannot be unpacked"),
    "cut short": (lambda kept: kept.read_bytes()[:-400], "cannot be unpacked"),
    "no manifest": (
        lambda kept: repacked(kept, lambda n, d: None if n == "manifest.json" else (n, d)),
        "does not begin",
    ),
    "a bit flipped": (
        lambda kept: repacked(kept, lambda n, d: (n, d if n == "manifest.json" else d[:9000] + b"!" + d[9001:])),
        "checksum",
    ),
    "a file missing": (lambda kept: repacked(kept, lambda n, d: (n, d) if n == "manifest.json" else None), "missing"),
    "a file too much": (lambda kept: repacked(kept, lambda n, d: (n, d), "other"), "does not belong"),
    "a path": (lambda kept: repacked(kept, lambda n, d: (n, d), "../../evil"), "does not belong"),
    "a newer format": (lambda kept: repacked(kept, manifest_with(format=2)), "newer format"),
    "a newer schema": (lambda kept: repacked(kept, manifest_with(schema=99)), "schema version 99"),
    "another store": (lambda kept: repacked(kept, manifest_with(technology="mongodb")), "is of mongodb"),
    "a wild manifest": (lambda kept: repacked(kept, manifest_with(files=[1])), "cannot be understood"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_archive_changes_nothing(name: str, backends: Backends, archive: Path, command: Command) -> None:
    make, said = BAD[name]
    archive.write_bytes(make(archive))
    before = days_of(backends)
    for option in ("--force", "--check"):
        refused = command("restore", archive, option)
        assert refused.exit_code == 2, refused.output
        assert said in refused.output
        assert len(refused.output.strip().splitlines()) == 1
    assert days_of(backends) == before
    assert next(iter(before.values())).accounts["a"].current.amortized_cost == Decimal("1.25")
