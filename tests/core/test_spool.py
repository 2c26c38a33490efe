"""An object's bytes on local disk: inflated, bounded, hashed, and gone afterwards."""

from __future__ import annotations

import gzip
import hashlib
import io
import random
import re
import subprocess
import sys
import zlib
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.errors import Quarantined, Unavailable
from app.spool import CHUNK, DESCRIPTORS, EXPANDS_FROM, Spooled, spool

MOST = 64 * 2**20
ROOT = Path(__file__).parent.parent.parent


def spooled(data: bytes, key: str, most: int = MOST) -> tuple[Spooled, bytes]:
    with spool(io.BytesIO(data), key, most) as found:
        return found, found.path.read_bytes()


def refused(data: bytes, key: str = "2026-10-01.csv.gz", most: int = MOST) -> str:
    with pytest.raises(Quarantined) as caught:
        spooled(data, key, most)
    return caught.value.reason.code


def zeros(megabytes: int) -> bytes:
    """A whole, correct gzip stream of zeros, made without inflating it: 1 GiB is 1 MB."""
    block = bytes(2**20)
    packer = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    first = packer.compress(block) + packer.flush(zlib.Z_FULL_FLUSH)
    again = packer.compress(block) + packer.flush(zlib.Z_FULL_FLUSH)
    crc = 0
    for _ in range(megabytes):
        crc = zlib.crc32(block, crc)
    size = (megabytes * 2**20) & 0xFFFFFFFF
    end = packer.flush() + crc.to_bytes(4, "little") + size.to_bytes(4, "little")
    return b"\x1f\x8b\x08\0\0\0\0\0\0\xff" + first + again * (megabytes - 1) + end


CSV = b"service,region\n" + b"".join(b"S%d,r\n" % i for i in range(50_000))


def test_plain_bytes_arrive_as_they_are() -> None:
    found, data = spooled(CSV, "2026-10-01.csv")
    assert data == CSV
    assert (found.size, found.raw_size) == (len(CSV), len(CSV))
    assert found.sha256 == hashlib.sha256(CSV).hexdigest()
    assert not found.path.exists(), "its descriptor is closed"


def test_gzip_is_inflated_and_the_hash_is_of_the_raw_bytes() -> None:
    raw = gzip.compress(CSV)
    found, data = spooled(raw, "2026-10-01.csv.gz")
    assert data == CSV
    assert (found.size, found.raw_size, found.sha256) == (len(CSV), len(raw), hashlib.sha256(raw).hexdigest())


@settings(max_examples=60, deadline=None)
@given(st.lists(st.binary(max_size=300), min_size=1, max_size=5), st.integers(1, 40), st.integers(0, 9))
def test_members_may_be_cut_anywhere_by_the_stream(parts: list[bytes], step: int, padding: int) -> None:
    class Trickle(io.BytesIO):
        def read(self, size: int | None = -1) -> bytes:
            return super().read(step)

    raw = b"".join(gzip.compress(part) for part in parts) + bytes(padding)
    with spool(Trickle(raw), "a.gz", MOST) as found:
        assert found.path.read_bytes() == b"".join(parts)
        assert found.raw_size == len(raw)


def test_output_larger_than_a_chunk_is_whole() -> None:
    data = random.Random(1).randbytes(300_000) * 15
    assert spooled(gzip.compress(data, 1), "a.csv.gz")[1] == data
    assert len(data) > 4 * CHUNK


def test_a_file_of_exactly_the_limit_is_taken() -> None:
    assert spooled(CSV, "a.csv", len(CSV))[0].size == len(CSV)
    assert spooled(gzip.compress(CSV), "a.csv.gz", len(CSV))[0].size == len(CSV)
    assert refused(CSV, "a.csv", len(CSV) - 1) == "too_large"
    assert refused(gzip.compress(CSV), "a.csv.gz", len(CSV) - 1) == "too_large"


def test_every_cut_of_a_gzip_stream_is_found() -> None:
    raw = gzip.compress(CSV[:300])
    whole = gzip.compress(CSV)
    assert {refused(raw[:size]) for size in range(1, len(raw))} == {"gzip_truncated"}
    assert {refused(whole + raw[:size]) for size in (1, 2, 10, len(raw) - 1)} == {"gzip_truncated"}
    assert refused(b"") == "empty"


def test_every_flipped_byte_is_found_or_does_no_harm() -> None:
    data = CSV[:300]
    raw = gzip.compress(data, mtime=0)
    for place in range(len(raw)):
        broken = raw[:place] + bytes([raw[place] ^ 0x10]) + raw[place + 1 :]
        try:
            taken, code = spooled(broken, "a.gz")[1], None
        except Quarantined as error:
            taken, code = None, error.reason.code
        assert taken == data or code in ("gzip_corrupt", "gzip_truncated", "not_gzip"), place
    crc = len(raw) - 8
    assert refused(raw[:crc] + bytes([raw[crc] ^ 1]) + raw[crc + 1 :]) == "gzip_corrupt"
    assert refused(raw[:-1] + bytes([raw[-1] ^ 1])) == "gzip_corrupt"


def test_what_is_not_gzip() -> None:
    assert refused(CSV) == "not_gzip"
    assert refused(b"a") == "not_gzip"
    assert refused(b"PK\x03\x04" + CSV) == "not_gzip"
    assert refused(bytes(100)) == "not_gzip"
    assert refused(gzip.compress(CSV) + b"more") == "gzip_corrupt"
    assert refused(gzip.compress(CSV) + b"\n") == "gzip_corrupt"
    assert spooled(gzip.compress(CSV), "a.csv")[1][:2] == b"\x1f\x8b", "by its name it is plain: the parser refuses it"


@pytest.mark.parametrize("before", [b"", gzip.compress(b"service,region\n")], ids=["alone", "second member"])
def test_a_bomb_is_stopped_long_before_the_limit(before: bytes) -> None:
    bomb = zeros(64)
    assert zlib.decompress(bomb, 31) == bytes(2**26), "it is a good file but for what it holds"
    with pytest.raises(Quarantined) as caught, spool(io.BytesIO(before + zeros(1024)), "a.csv.gz", 2**32):
        pass
    assert caught.value.reason.code == "too_large"
    found = re.search(r"more than ([\d,]+)", caught.value.reason.message)
    assert found is not None
    assert int(found[1].replace(",", "")) <= EXPANDS_FROM + 2 * CHUNK, "a gibibyte would take a second and the disk"
    assert spooled(zeros(15), "a.gz")[0].size == 15 * 2**20


@pytest.fixture(params=["nameless", "named"])
def nameless(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> bool:
    """Whether the system can open a file that has no name."""
    if request.param == "named":
        monkeypatch.setattr("app.spool.DESCRIPTORS", tmp_path / "no such folder")
    return bool(request.param == "nameless")


def test_the_file_is_gone_whatever_happens(tmp_path: Path, nameless: bool) -> None:
    class Broken(io.BytesIO):
        def read(self, size: int | None = -1) -> bytes:
            raise Unavailable("source", "The connection was lost.")

    with pytest.raises(Unavailable, match="connection"), spool(Broken(), "a.csv", MOST, directory=tmp_path):
        pass
    with pytest.raises(Quarantined), spool(io.BytesIO(CSV), "a.csv", 10, directory=tmp_path):
        pass
    with spool(io.BytesIO(CSV), "a.csv", MOST, directory=tmp_path) as found:
        assert list(tmp_path.iterdir()) == ([] if nameless else [found.path])
        assert found.path.read_bytes() == found.path.read_bytes() == CSV
        assert found.path.stat().st_mode & 0o077 == 0
    assert list(tmp_path.iterdir()) == []


def test_the_name_never_comes_from_the_key(tmp_path: Path, nameless: bool) -> None:
    with spool(io.BytesIO(CSV), "../../../etc/cron.d/x.csv", MOST, directory=tmp_path) as found:
        assert nameless or found.path.parent == tmp_path
        assert "cron" not in found.path.name


KILLED = """
import io, os, pathlib, signal, sys
from app.spool import spool
with spool(io.BytesIO(bytes(100_000)), "a.csv", 10**9, directory=pathlib.Path(sys.argv[1])) as found:
    print(found.path.stat().st_size, flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.skipif(not DESCRIPTORS.is_dir(), reason="this system has no /proc")
def test_a_killed_process_leaves_no_file(tmp_path: Path) -> None:
    shown = subprocess.run([sys.executable, "-c", KILLED, str(tmp_path)], cwd=ROOT, capture_output=True, timeout=60)
    assert (shown.returncode, shown.stdout) == (-9, b"100000\n")
    assert list(tmp_path.iterdir()) == []


def test_a_directory_that_is_not_there_is_unavailable(tmp_path: Path) -> None:
    with pytest.raises(Unavailable) as caught, spool(io.BytesIO(CSV), "a.csv", MOST, directory=tmp_path / "none"):
        pass
    assert caught.value.part == "spool"
    assert str(tmp_path) in caught.value.message


FULL = """
import io, pathlib, resource, sys
from app.errors import Unavailable
from app.spool import spool
resource.setrlimit(resource.RLIMIT_FSIZE, (3_000_000, 3_000_000))
try:
    with spool(io.BytesIO(bytes(5_000_000)), "a.csv", 10**9, directory=pathlib.Path(sys.argv[1])):
        print("taken")
except Unavailable as error:
    print(error.part, error.message, error.retry_after)
"""


def test_a_disk_that_takes_no_more_is_unavailable_and_left_clean(tmp_path: Path) -> None:
    command = [sys.executable, "-c", FULL, str(tmp_path)]
    shown = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True, timeout=60)
    assert shown.stdout.startswith(f"spool {tmp_path} takes no more")
    assert list(tmp_path.iterdir()) == []
