from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import pytest

from app.adapters.folder import FolderSource, time_of
from app.errors import BadCredentials, CannotStart, Conflict, Unavailable
from app.ports import Source
from tests.contracts.source import DAY, NAME, Place, SourceContract, content, only


class Folder:
    def __init__(self, base: Path) -> None:
        self.base = base
        self.path = base / "costs"
        self.path.mkdir()
        self.source = FolderSource(self.path.as_uri() + "/")

    def put(self, key: str, data: bytes) -> None:
        """As a careful writer does: a new file, renamed over the old one."""
        path = self.path / key
        path.parent.mkdir(parents=True, exist_ok=True)
        new = self.base / "new"
        new.write_bytes(data)
        new.replace(path)

    def put_earlier(self, key: str, data: bytes) -> None:
        """Older than the file system's clock tick, so that a change in place always shows."""
        self.put(key, data)
        os.utime(self.path / key, (10**9, 10**9))

    def remove(self, key: str) -> None:
        (self.path / key).unlink()

    def elsewhere(self) -> Source:
        return FolderSource((self.base / "nowhere").as_uri() + "/")


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return Folder(tmp_path)


class TestFolder(SourceContract):
    @pytest.fixture
    def place(self, folder: Folder) -> Place:
        return folder


@contextmanager
def ordinary_user() -> Iterator[None]:
    """Root may read everything; step down for a moment."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


@pytest.mark.parametrize("name", ["a b", "50%", "%41", "#1?x=y", "é💰", "a+b"])
def test_the_url_is_percent_decoded(tmp_path: Path, name: str) -> None:
    (tmp_path / name).mkdir()
    (tmp_path / name / NAME).write_bytes(b"x")
    source = FolderSource((tmp_path / name).as_uri() + "/")
    assert content(source, only(source)) == b"x"


def test_a_directory_need_not_have_a_utf8_name(tmp_path: Path) -> None:
    path = Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff"))
    path.mkdir()
    (path / NAME).write_bytes(b"x")
    source = FolderSource(tmp_path.as_uri() + "/%FF/")
    assert content(source, only(source)) == b"x"


@pytest.mark.parametrize("root", ["/dir/", "file:dir/", "file://host/dir/", "file:///a%00b/", "s3://bucket/", ""])
def test_what_is_no_folder_url_cannot_start(root: str) -> None:
    with pytest.raises(CannotStart, match="file:///dir/costs/"):
        FolderSource(root)


@pytest.mark.parametrize("wait", ["before the first byte", "in the middle", "after the last byte"])
def test_a_file_rewritten_in_place_while_it_is_read_is_a_conflict(folder: Folder, wait: str) -> None:
    folder.put_earlier(NAME, b"a" * 300_000)
    found = only(folder.source)
    with pytest.raises(Conflict, match=NAME), folder.source.open(found) as stream:  # noqa: PT012
        if wait == "in the middle":
            stream.read(1000)
        elif wait == "after the last byte":
            assert len(stream.read()) == 300_000
        (folder.path / NAME).write_bytes(b"b" * 300_000)
        stream.read()


def test_a_file_cut_short_while_it_is_read_is_a_conflict_not_a_short_file(folder: Folder) -> None:
    folder.put_earlier(NAME, b"a" * 300_000)
    with pytest.raises(Conflict), folder.source.open(only(folder.source)) as stream:  # noqa: PT012
        stream.read(1000)
        os.truncate(folder.path / NAME, 150_000)
        stream.read()


def test_a_change_explains_what_the_reader_stumbled_over(folder: Folder) -> None:
    folder.put_earlier(NAME, b"a" * 300_000)
    with pytest.raises(Conflict), folder.source.open(only(folder.source)):  # noqa: PT012
        (folder.path / NAME).write_bytes(b"b")
        raise ValueError("line 3 is cut off")


def test_same_size_and_time_but_another_file_is_another_version(folder: Folder) -> None:
    folder.put(NAME, b"first")
    os.utime(folder.path / NAME, ns=(10**18, 10**18))
    first = only(folder.source)
    (folder.base / "keep-the-inode").hardlink_to(folder.path / NAME)
    folder.put(NAME, b"other")
    os.utime(folder.path / NAME, ns=(10**18, 10**18))
    assert only(folder.source).version != first.version
    with pytest.raises(Conflict):
        content(folder.source, first)


def test_an_unchanged_file_keeps_its_version_through_links_and_rights(folder: Folder) -> None:
    folder.put(NAME, b"first")
    first = only(folder.source)
    (folder.base / "backup").hardlink_to(folder.path / NAME)
    (folder.path / NAME).chmod(0o600)
    assert only(folder.source) == first


def test_only_files_of_this_folder_are_listed(folder: Folder) -> None:
    (folder.base / "secret.csv").write_bytes(b"secret")
    (folder.path / ".tmp").mkdir()
    (folder.path / ".tmp" / "staged").write_bytes(b"staged")
    (folder.path / "2026-11-01.csv").symlink_to(folder.base / "secret.csv")
    (folder.path / "2026-11-02.csv").symlink_to("/etc/passwd")
    (folder.path / "2026-11-03.csv").symlink_to("nothing")
    (folder.path / "2026-11-04.csv").symlink_to("2026-11-04.csv")
    (folder.path / "2026-11-05.csv").symlink_to(".tmp/staged")
    (folder.path / "2026-11-06.csv").mkdir()
    os.mkfifo(folder.path / "2026-11-07.csv")
    (folder.path / "2026-11-08.csv").symlink_to(folder.base)
    assert [found.key for found in folder.source.list()] == ["2026-11-05.csv"]
    assert content(folder.source, only(folder.source, "2026-11-05.csv")) == b"staged"


@pytest.mark.parametrize("trick", ["link", "pipe", "directory"])
def test_what_takes_the_place_of_a_listed_file_is_not_read(folder: Folder, trick: str) -> None:
    folder.put(NAME, b"listed")
    found = only(folder.source)
    folder.remove(NAME)
    if trick == "link":
        (folder.base / "secret").write_bytes(b"secret")
        (folder.path / NAME).symlink_to(folder.base / "secret")
    elif trick == "pipe":
        os.mkfifo(folder.path / NAME)
    else:
        (folder.path / NAME).mkdir()
    with pytest.raises(Conflict):
        content(folder.source, found)


def test_names_that_are_not_utf8_are_left_out(folder: Folder) -> None:
    folder.put(NAME, b"kept")
    with open(os.fsencode(folder.path) + b"/\xff\xfe.csv", "wb") as file:  # noqa: PTH123
        file.write(b"hostile")
    assert [found.key for found in folder.source.list()] == [NAME]


def test_any_file_time_can_be_listed() -> None:
    """Some file systems keep times far beyond the calendar."""
    assert time_of(1_700_000_000_123_456_789) == datetime(2023, 11, 14, 22, 13, 20, 123456, UTC)
    assert time_of(2**70).year == 9999
    assert time_of(-(2**70)).year == 1


def test_2300_files_are_listed_once_each_in_order(folder: Folder) -> None:
    names = [f"{number:06}.csv" for number in range(2300)]
    for name in reversed(names):
        (folder.path / name).write_bytes(b"x")
    assert [found.key for found in folder.source.list()] == names


def test_a_folder_that_may_not_be_read(folder: Folder) -> None:
    folder.put(NAME, b"x")
    folder.path.chmod(0)
    try:
        for ask in (folder.source.check, lambda: list(folder.source.list())):
            with ordinary_user(), pytest.raises(BadCredentials, match=r"costs may not be read .*uid \d+.*Allow"):
                ask()
    finally:
        folder.path.chmod(0o700)


def test_a_folder_whose_files_may_not_be_looked_at_is_not_an_empty_one(tmp_path: Path) -> None:
    # Readable, not searchable: names can be listed, nothing else.
    reachable = Path("/tmp") / f"spendscope-{os.getpid()}-{tmp_path.name}"
    reachable.mkdir()
    try:
        source = FolderSource(reachable.as_uri() + "/")
        (reachable / NAME).write_bytes(b"x")
        reachable.chmod(0o444)
        with ordinary_user(), pytest.raises(BadCredentials):
            list(source.list())
        reachable.chmod(0o755)
        (reachable / NAME).chmod(0)
        with ordinary_user():
            found = only(source)
            with pytest.raises(BadCredentials, match=NAME):
                content(source, found)
    finally:
        shutil.rmtree(reachable)


def test_a_file_in_the_folders_place(tmp_path: Path) -> None:
    (tmp_path / "costs").write_bytes(b"")
    with pytest.raises(Unavailable, match="is not a folder"):
        FolderSource((tmp_path / "costs").as_uri() + "/").check()


def test_the_folder_may_come_later(tmp_path: Path) -> None:
    source = FolderSource((tmp_path / "later").as_uri() + "/")
    with pytest.raises(Unavailable, match="does not exist"):
        source.check()
    (tmp_path / "later").mkdir()
    source.check()


def test_a_sidecar_is_a_file_of_its_own_folder(folder: Folder) -> None:
    (folder.base / "coverage").mkdir()
    (folder.base / "secret.json").write_bytes(b"{}")
    (folder.base / "coverage" / f"{DAY}.json").symlink_to("../secret.json")
    assert folder.source.sidecar(DAY) is None
    (folder.base / "coverage" / "2026-11-21.json").mkdir()
    assert folder.source.sidecar(DAY.replace(day=21)) is None
