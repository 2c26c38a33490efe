"""Reading a folder of deliveries: `YYYY-MM-DD.csv[.gz]`, what arrived that day. Nothing of it is stored.

Such a file holds rows of several days, so it is no daily CSV (core.dailycsv): `date`, `service` and `amortized_cost`
must be there, the account, region, provider and charge category may be; other columns are not looked at.
"""

from __future__ import annotations

import gzip
import re
import zlib
from collections.abc import Iterator
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from app.core.arrivals import PARTS, Delivery, SeriesKey
from app.core.charges import DIMENSIONS
from app.errors import InvalidInput

if TYPE_CHECKING:
    import pyarrow as pa

FILE_NAME: Final = re.compile(r"^(\d{4}-\d{2}-\d{2})\.csv(\.gz)?$")
METRIC: Final = "amortized_cost"
DEFAULTS: Final = {
    "provider": "aws",
    "account": "unknown",
    "service": "unknown",
    "region": "global",
    "charge_category": "unknown",
}
REQUIRED: Final = ("date", "service", METRIC)
OTHER_NAMES: Final = {"account_id": "account"}


def delivery_files(folder: Path) -> list[tuple[date, Path]]:
    """The folder's deliveries (or those of `costs` in it) in order; other names are ignored. Raises InvalidInput."""
    folder = folder / "costs" if (folder / "costs").is_dir() else folder
    if not folder.is_dir():
        raise InvalidInput(f"--deliveries {folder} is not a folder.")
    found: dict[date, Path] = {}
    for path in sorted(folder.iterdir()):
        day = _day_of(path)
        if day is None:
            continue
        if day in found:
            raise InvalidInput(f"{found[day].name} and {path.name} are the same delivery twice; keep one of them.")
        found[day] = path
    if not found:
        raise InvalidInput(f"--deliveries {folder} holds no file named YYYY-MM-DD.csv or YYYY-MM-DD.csv.gz.")
    return sorted(found.items())


def _day_of(path: Path) -> date | None:
    matched = FILE_NAME.match(path.name)
    if matched is None or not path.is_file():
        return None
    try:
        return date.fromisoformat(matched[1])
    except ValueError:
        raise InvalidInput(f"{path.name} is named after a day that does not exist.") from None


def read_deliveries(folder: Path, *, max_bytes: int) -> Iterator[Delivery]:
    """One delivery a file, in order. Raises InvalidInput naming the file, the value and the way out."""
    for day, path in delivery_files(folder):
        yield read_delivery(day, path, max_bytes=max_bytes)


def read_delivery(day: date, path: Path, *, max_bytes: int) -> Delivery:
    """What arrived on `day`; of rows with the same key and date the last stands."""
    table = _table(path, content_of(path, max_bytes))
    days, amounts = _days(day, path, table), _amounts(path, table)
    return _summed(day, table, days, amounts)


def content_of(path: Path, max_bytes: int) -> bytes:
    """A file's bytes, unpacked if it is `.gz`. Raises InvalidInput when they cannot be read, are none or too many."""
    try:
        with path.open("rb") as file, gzip.open(file) if path.suffix == ".gz" else file as plain:
            content = plain.read(max_bytes + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise InvalidInput(f"{path.name} cannot be read ({getattr(error, 'strerror', None) or error}).") from None
    if len(content) > max_bytes:
        raise InvalidInput(f"{path.name} has more than {max_bytes} bytes (SPENDSCOPE_MAX_FILE_BYTES).")
    if not content.strip():
        raise InvalidInput(f"{path.name} is empty: it lacks even the header.")
    return content


def _table(path: Path, content: bytes) -> pa.Table:
    import pyarrow as pa
    from pyarrow import csv

    texts = dict.fromkeys([*DEFAULTS, *OTHER_NAMES], pa.string())
    types: dict[str, Any] = {**texts, "date": pa.date32(), METRIC: pa.float64()}
    try:
        table = csv.read_csv(
            pa.py_buffer(content),
            parse_options=csv.ParseOptions(newlines_in_values=True),
            convert_options=csv.ConvertOptions(column_types=types, strings_can_be_null=False),
        )
    except (pa.ArrowInvalid, pa.ArrowKeyError, UnicodeDecodeError) as error:
        raise InvalidInput(f"{path.name} is not a delivery: {' '.join(str(error).split())[:200]}") from None
    return _with_defaults(path, table)


def _with_defaults(path: Path, table: pa.Table) -> pa.Table:
    import pyarrow as pa

    names = [OTHER_NAMES.get(name, name) for name in table.column_names]
    for name in (*REQUIRED, *DEFAULTS):
        if names.count(name) > 1:
            raise InvalidInput(f"{path.name} has the column {name} more than once.")
        if name in REQUIRED and name not in names:
            raise InvalidInput(f"{path.name} lacks the column {name}; it has {', '.join(names)[:200]}.")
    columns = {name: table.column(names.index(name)) for name in (*REQUIRED, *DEFAULTS) if name in names}
    absent = {
        name: pa.array([value] * len(table), pa.string()) for name, value in DEFAULTS.items() if name not in names
    }
    return pa.table(columns | absent)


def _days(day: date, path: Path, table: pa.Table) -> Any:
    import pyarrow as pa

    column = _joined(table, "date")
    if column.null_count:
        raise InvalidInput(f"{path.name} has a row without date.")
    days = column.cast(pa.int32()).to_numpy(zero_copy_only=False).astype("datetime64[D]")
    if len(days) and days.max() > np.datetime64(day, "D"):
        raise InvalidInput(f"{path.name} has a row of {days.max()}, after the day it arrived.")
    return days


def _amounts(path: Path, table: pa.Table) -> Any:
    column = _joined(table, METRIC)
    amounts = np.asarray(column.to_numpy(zero_copy_only=False), np.float64)
    if column.null_count or not np.isfinite(amounts).all():
        row = int((~np.isfinite(amounts)).argmax()) + 2
        raise InvalidInput(f"{path.name}, row {row}: {METRIC} is empty or not a finite number.")
    return amounts


def _summed(day: date, table: pa.Table, days: Any, amounts: Any) -> Delivery:
    """Rows that differ in provider or charge category only are one series."""
    coded = {name: _joined(table, name).dictionary_encode() for name in DIMENSIONS}
    codes = {name: part.indices.to_numpy(zero_copy_only=False).astype(np.int64) for name, part in coded.items()}
    place = np.stack([*codes.values(), days.astype(np.int64)], axis=1)
    _, last = np.unique(place[::-1], axis=0, return_index=True)
    kept = len(place) - 1 - last
    series_codes = np.stack([codes[name][kept] for name in PARTS] + [days[kept].astype(np.int64)], axis=1)
    rows, row = np.unique(series_codes, axis=0, return_inverse=True)
    sums: Any = np.bincount(row.reshape(-1), weights=amounts[kept], minlength=len(rows))
    distinct, series = np.unique(rows[:, : len(PARTS)], axis=0, return_inverse=True)
    names = [[text or DEFAULTS[name] for text in coded[name].dictionary.to_pylist()] for name in PARTS]
    keys = [SeriesKey(*(names[part][code] for part, code in enumerate(key))) for key in distinct.tolist()]
    return Delivery(day, keys, series.reshape(-1).astype(np.int64), rows[:, -1].astype("datetime64[D]"), sums)


def _joined(table: pa.Table, name: str) -> Any:
    column = table[name].combine_chunks()
    return column.chunk(0) if hasattr(column, "chunk") else column
