"""Reading a folder of deliveries: `YYYY-MM-DD.csv[.gz]`, what arrived that day. Nothing of it is stored."""

from __future__ import annotations

import gzip
import re
import zlib
from collections.abc import Iterator
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from app.core.arrivals import Delivery, SeriesKey
from app.errors import InvalidInput

if TYPE_CHECKING:
    import pyarrow as pa

FILE_NAME: Final = re.compile(r"^(\d{4}-\d{2}-\d{2})\.csv(\.gz)?$")
METRIC: Final = "amortized_cost"
DEFAULTS: Final = {"account": "unknown", "region": "global"}


def delivery_files(folder: Path) -> list[tuple[date, Path]]:
    """The folder's deliveries in order; other names are ignored. Raises InvalidInput when there are none."""
    if (folder / "costs").is_dir():
        folder = folder / "costs"
    if not folder.is_dir():
        raise InvalidInput(f"--deliveries {folder} is not a folder.")
    found: dict[date, Path] = {}
    for path in sorted(folder.iterdir()):
        matched = FILE_NAME.match(path.name)
        if not matched or not path.is_file():
            continue
        try:
            day = date.fromisoformat(matched[1])
        except ValueError:
            raise InvalidInput(f"{path.name} is named after a day that does not exist.") from None
        if day in found:
            raise InvalidInput(f"{found[day].name} and {path.name} are the same delivery twice; keep one of them.")
        found[day] = path
    if not found:
        raise InvalidInput(f"--deliveries {folder} holds no file named YYYY-MM-DD.csv or YYYY-MM-DD.csv.gz.")
    return sorted(found.items())


def read_deliveries(folder: Path, *, max_bytes: int) -> Iterator[Delivery]:
    """One delivery a file, in order. Raises InvalidInput naming the file, the value and the way out."""
    for day, path in delivery_files(folder):
        yield read_delivery(day, path, max_bytes=max_bytes)


def read_delivery(day: date, path: Path, *, max_bytes: int) -> Delivery:
    table = _table(path, _content(path, max_bytes))
    return _delivery(day, path, table)


def _content(path: Path, max_bytes: int) -> bytes:
    try:
        with path.open("rb") as file:
            if path.suffix != ".gz":
                content = file.read(max_bytes + 1)
            else:
                with gzip.open(file) as unpacked:
                    content = unpacked.read(max_bytes + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise InvalidInput(f"{path.name} cannot be read ({getattr(error, 'strerror', None) or error}).") from None
    if len(content) > max_bytes:
        raise InvalidInput(f"{path.name} has more than {max_bytes} bytes (SPENDSCOPE_MAX_FILE_BYTES).")
    return content


def _table(path: Path, content: bytes) -> pa.Table:
    import pyarrow as pa
    from pyarrow import csv

    if not content.strip():
        raise InvalidInput(f"{path.name} is empty: it lacks even the header.")
    texts = ("account", "account_id", "service", "region", "provider", "charge_category")
    types: dict[str, Any] = dict.fromkeys(texts, pa.string()) | {"date": pa.date32(), METRIC: pa.float64()}
    try:
        table = csv.read_csv(
            pa.py_buffer(content),
            parse_options=csv.ParseOptions(newlines_in_values=True),
            convert_options=csv.ConvertOptions(column_types=types, strings_can_be_null=False),
        )
    except (pa.ArrowInvalid, pa.ArrowKeyError, UnicodeDecodeError) as error:
        raise InvalidInput(f"{path.name} is not a delivery: {' '.join(str(error).split())[:200]}") from None
    return _named(path, table)


def _named(path: Path, table: pa.Table) -> pa.Table:
    import pyarrow as pa

    names = ["account" if name == "account_id" else name for name in table.column_names]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise InvalidInput(f"{path.name} has the column {twice[0]} more than once.")
    table = table.rename_columns(names)
    lacking = [name for name in ("date", "service", METRIC) if name not in names]
    if lacking:
        raise InvalidInput(f"{path.name} lacks the column {lacking[0]}.")
    for name, value in DEFAULTS.items():
        if name not in names:
            table = table.append_column(name, pa.array([value] * len(table), pa.string()))
    return table.select(["date", "account", "service", "region", METRIC])


def _delivery(day: date, path: Path, table: pa.Table) -> Delivery:
    import pyarrow as pa

    days = _column(table, "date")
    amounts = _column(table, METRIC)
    for name, column in (("date", days), (METRIC, amounts)):
        if column.null_count:
            raise InvalidInput(f"{path.name} has a row without {name}.")
    cost = amounts.to_numpy(zero_copy_only=False)
    if not np.isfinite(cost).all():
        raise InvalidInput(f"{path.name} has an {METRIC} that is not a finite number.")
    usage = days.cast(pa.int32()).to_numpy(zero_copy_only=False).astype("datetime64[D]")
    if len(usage) and usage.max() > np.datetime64(day, "D"):
        raise InvalidInput(f"{path.name} has a row of {usage.max()}, after the day it arrived.")
    return _one_row_each(day, table, usage, cost)


def _one_row_each(day: date, table: pa.Table, usage: Any, cost: Any) -> Delivery:
    """Rows of one key and day: the later one stands."""
    coded = [_column(table, name).dictionary_encode() for name in ("account", "service", "region")]
    codes = np.stack([part.indices.to_numpy(zero_copy_only=False).astype(np.int64) for part in coded], axis=1)
    distinct, series = np.unique(codes, axis=0, return_inverse=True)
    names = [
        [text or DEFAULTS.get(name, text) for text in part.dictionary.to_pylist()]
        for name, part in zip(("account", "service", "region"), coded, strict=True)
    ]
    keys = [SeriesKey(names[0][a], names[1][b], names[2][c]) for a, b, c in distinct.tolist()]
    series = series.reshape(-1).astype(np.int64)
    rows = np.arange(len(series))
    place = np.stack([series, usage.astype(np.int64)], axis=1)
    _, last = np.unique(place[::-1], axis=0, return_index=True)
    kept = rows[::-1][last]
    return Delivery(day, keys, series[kept], usage[kept], np.asarray(cost, np.float64)[kept])


def _column(table: pa.Table, name: str) -> Any:
    column = table[name].combine_chunks()
    return column.chunk(0) if hasattr(column, "chunk") else column
