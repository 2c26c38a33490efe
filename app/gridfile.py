"""Months of the read model (core.rollup) as files that every process maps and none has to read.

Layout: magic, length and CRC-32 of the header (little-endian u64 each), a JSON header, then raw arrays, each on a
64-byte boundary. The header names dtype, shape, place and CRC-32 of every array.
These files are derived: a damaged one is thrown away and built again from the charges, so nothing here is fsynced.
"""

from __future__ import annotations

import json
import math
import mmap
import zlib
from collections.abc import Mapping
from datetime import date
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from app.core.rollup import Grid, Month

MAGIC: Final = b"SPGRIDS3"
ALIGN: Final = 64
_START: Final = 24
"""Bytes before the header."""


class DamagedGrids(Exception):
    """The file is not a whole grids file; build it again."""


def write_month(path: Path, month: Month, note: Mapping[str, Any] | None = None) -> None:
    """Write under a temporary name, then rename; `note` comes back from open_month."""
    grids, blocks = [], _Blocks()
    for grid in month.grids:
        arrays = {name: blocks.add(array) for name, array in grid.arrays().items()}
        grids.append({"dimensions": grid.dimensions, "arrays": arrays})
    header = json.dumps(
        {
            "first": str(month.first),
            "days": [str(day) for day in month.days],
            "values": month.values,
            "units": month.units,
            "grids": grids,
            "note": dict(note or {}),
            "bytes": blocks.size,
        },
        separators=(",", ":"),
    ).encode()
    header += b" " * (_aligned(_START + len(header)) - _START - len(header))
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        with temporary.open("wb", buffering=0) as file:
            _write_all(
                file, MAGIC + len(header).to_bytes(8, "little") + zlib.crc32(header).to_bytes(8, "little") + header
            )
            for array in blocks.arrays:
                _write_all(file, _bytes(array))
                _write_all(file, b"\0" * (_aligned(array.nbytes) - array.nbytes))
        temporary.replace(path)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise


def open_month(path: Path, *, verify: bool = False) -> tuple[Month, dict[str, Any]]:
    """Map a month and its note. `verify` reads every byte once. Raises DamagedGrids, FileNotFoundError."""
    with path.open("rb") as file:
        if path.stat().st_size < _START:
            raise DamagedGrids(f"{path} is too short")
        mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    header, start = _header(path, mapped)
    if len(mapped) != start + header["bytes"]:
        raise DamagedGrids(f"{path} has {len(mapped)} bytes, not {start + header['bytes']}")

    def array(dtype: str, shape: list[int], place: int, crc32: int) -> NDArray[Any]:
        count = math.prod(shape)
        flat = np.frombuffer(mapped, dtype, count, start + place) if count else np.zeros(0, dtype)
        if verify and zlib.crc32(_bytes(flat)) != crc32:
            raise DamagedGrids(f"{path} does not match its checksums")
        return flat.reshape(shape)

    grids = tuple(
        Grid.of(tuple(grid["dimensions"]), {name: array(*where) for name, where in grid["arrays"].items()})
        for grid in header["grids"]
    )
    values = {name: tuple(texts) for name, texts in header["values"].items()}
    days = tuple(date.fromisoformat(day) for day in header["days"])
    units = {service: tuple(found) for service, found in header["units"].items()}
    return Month(date.fromisoformat(header["first"]), days, values, grids, units), header["note"]


def _header(path: Path, mapped: mmap.mmap) -> tuple[dict[str, Any], int]:
    length, crc32 = (int.from_bytes(mapped[place : place + 8], "little") for place in (8, 16))
    raw = mapped[_START : _START + length]
    if mapped[:8] != MAGIC or len(raw) != length or zlib.crc32(raw) != crc32:
        raise DamagedGrids(f"{path} does not begin like a grids file")
    header: dict[str, Any] = json.loads(raw)
    return header, _START + length


def _aligned(size: int) -> int:
    return -(-size // ALIGN) * ALIGN


def _bytes(array: NDArray[Any]) -> memoryview | bytes:
    return array.data.cast("B") if array.size else b""


class _Blocks:
    """Arrays in the order they are written; equal ones (blended and unblended cost, mostly) are written once."""

    def __init__(self) -> None:
        self.arrays: list[NDArray[Any]] = []
        self.size = 0
        self._known: dict[tuple[str, tuple[int, ...], int], list[tuple[NDArray[Any], int]]] = {}

    def add(self, array: NDArray[Any]) -> tuple[str, tuple[int, ...], int, int]:
        """dtype, shape, place after the header, and CRC-32."""
        whole = np.ascontiguousarray(array)
        kind = whole.dtype.str, whole.shape, zlib.crc32(_bytes(whole))
        for known, place in self._known.get(kind, ()):
            if np.array_equal(known, whole):
                return kind[0], kind[1], place, kind[2]
        place = self.size
        self._known.setdefault(kind, []).append((whole, place))
        self.arrays.append(whole)
        self.size += _aligned(whole.nbytes)
        return kind[0], kind[1], place, kind[2]


def _write_all(file: Any, block: Any) -> None:
    """An unbuffered write may be short."""
    view = memoryview(block)
    while len(view):
        view = view[file.write(view) :]
