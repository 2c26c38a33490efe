"""The daily CSV (DESIGN §4): one day of charges as a file, taken whole or quarantined whole.

A file is read twice at most. Arrow reads it fast and strictly; when it refuses, or a check on what it read says no, a
plain reader goes through the file row by row, only to say which line, column and value are wrong.
"""

from __future__ import annotations

import codecs
import csv
import io
import json
import mmap
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any, Final, NoReturn

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pcsv

from app.core.amounts import total
from app.core.charges import DEFAULTS, DIMENSIONS, MAY_BE_ABSENT, METRICS, Totals
from app.errors import Quarantined, Reason

EXACT: Final = pa.decimal128(38, 20)
TEXT: Final = pa.dictionary(pa.int32(), pa.string())

SCHEMA: Final = pa.schema(
    [
        ("provider", TEXT),
        ("account", TEXT),
        ("service", TEXT),
        ("region", TEXT),
        ("charge_category", TEXT),
        ("amortized_cost", EXACT),
        ("blended_cost", EXACT),
        ("unblended_cost", EXACT),
        ("usage_quantity", EXACT),
        ("usage_unit", TEXT),
        ("estimated", pa.bool_()),
    ]
)
"""Charges of one day. The day and the currency belong to the file; only `blended_cost` may be null."""

FILE_NAME: Final = re.compile(r"(\d{4}-\d{2}-\d{2})\.csv(\.gz)?")
PARSER: Final = 1
"""Version of these rules: a file quarantined by older ones is worth reading again."""

REQUIRED: Final = ("service", "region", *METRICS)
OPTIONAL: Final = (
    "date",
    "account",
    "account_id",
    "provider",
    "charge_category",
    "currency",
    "estimated",
    "usage_unit",
)
TEXTS: Final = (
    "date",
    "account",
    "provider",
    "service",
    "region",
    "charge_category",
    "currency",
    "estimated",
    "usage_unit",
)
MOST: Final = Decimal("1e12")
DECIMALS: Final = 20
FUTURE: Final = timedelta(days=2)
ESTIMATED: Final = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False, "": False}
BLOCK: Final = 4 << 20
NUMBER: Final = re.compile(r"[ \t]*[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d{1,4})?[ \t]*", re.ASCII)


@dataclass(frozen=True)
class Limits:
    """Most bytes (after decompression), rows, distinct values of a text column, columns, and characters of a cell."""

    bytes: int
    rows: int
    series: int
    columns: int = 5000
    field: int = 65536


@dataclass(frozen=True)
class ParsedDay:
    """A day that can be taken. `table` has SCHEMA and is sorted by key; all-zero rows are left out and not counted.

    `estimated` names the accounts with a row that is marked estimated.
    """

    day: date
    table: pa.Table
    totals: Totals
    accounts: Mapping[str, Totals]
    estimated: frozenset[str]
    ignored_columns: tuple[str, ...]


@dataclass(frozen=True)
class _Expected:
    day: date
    currency: str
    limits: Limits


def parse(path: Path, *, day: date, currency: str, today: date, limits: Limits) -> ParsedDay:
    """Read a whole file. Raises Quarantined with the first thing that is wrong."""
    if day > today + FUTURE:
        refuse(
            "future_date", f"{day} is more than 48 hours ahead of today, {today}. Correct the file's name or the clock."
        )
    text = _Text(path)
    header = _header(text, limits)
    table = _read(text, header, _Expected(day, currency, limits))
    return _parsed(table, day, tuple(sorted(set(header) - {*REQUIRED, *OPTIONAL})))


def refuse(
    code: str, message: str, line: int | None = None, column: str | None = None, value: str | None = None
) -> NoReturn:
    raise Quarantined(
        Reason(code, message, line, None if column is None else shown(column), None if value is None else shown(value))
    )


def shown(value: str) -> str:
    """At most 80 characters that are safe on any page or terminal."""
    return "".join(letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in value[:80])


# --- bytes --------------------------------------------------------------------------------------------------------

_MAGIC: Final = (
    (b"\x89PNG", "a PNG picture"),
    (b"PK\x03\x04", "a ZIP archive or a spreadsheet"),
    (b"%PDF", "a PDF document"),
    (b"\x1f\x8b", "compressed; name it .csv.gz, and compress it once"),
    (b"<", "HTML or XML"),
    (b"{", "JSON"),
    (b"[", "JSON"),
)


class _Text:
    """UTF-8 text of a file, mapped; the byte order mark is skipped."""

    def __init__(self, path: Path) -> None:
        if not path.stat().st_size:
            refuse("empty", "The file has no bytes at all. A day without cost is a file with only a header.")
        # The mapping goes when the last view of it does: Arrow may hold one a little longer.
        with path.open("rb") as file:
            self.view: memoryview = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
        self._check()

    def _check(self) -> None:
        start = bytes(self.view[:64])
        if start.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
            self.view = memoryview(_from_utf16(bytes(self.view)))
        elif start.startswith(codecs.BOM_UTF8):
            self.view = self.view[3:]
        start = bytes(self.view[:64]).lstrip()
        for magic, what in _MAGIC:
            if start.startswith(magic):
                refuse("not_csv", f"This is not a CSV file but {what}.", 1)
        self._check_text()
        if self.view[-1] not in b"\r\n":
            refuse(
                "truncated",
                "The last line has no line break: the file was cut off. Upload it again.",
                value=self._last_line(),
            )

    def _check_text(self) -> None:
        decoder = codecs.getincrementaldecoder("utf-8")()
        for first in range(0, len(self.view), BLOCK):
            block = bytes(self.view[first : first + BLOCK])
            if b"\0" in block:
                line = bytes(self.view[:first]).count(b"\n") + block[: block.index(b"\0")].count(b"\n") + 1
                refuse(
                    "encoding", "The file has NUL bytes: it is not UTF-8 text (UTF-16 needs a byte order mark).", line
                )
            try:
                decoder.decode(block, first + BLOCK >= len(self.view))
            except UnicodeDecodeError as error:
                line = bytes(self.view[:first]).count(b"\n") + block[: error.start].count(b"\n") + 1
                refuse("encoding", f"Line {line} is not UTF-8 text ({error.reason}). Save the file as UTF-8.", line)

    def _last_line(self) -> str:
        return bytes(self.view[-200:]).decode("utf-8", "replace").splitlines()[-1]

    def lines(self) -> io.TextIOWrapper:
        return io.TextIOWrapper(io.BytesIO(self.view), "utf-8", newline="")


def _from_utf16(data: bytes) -> bytes:
    try:
        return data.decode("utf-16").encode()
    except UnicodeError:
        refuse("encoding", "The file has a UTF-16 byte order mark but is not UTF-16 text. Save it as UTF-8.", 1)


# --- header -------------------------------------------------------------------------------------------------------


def _header(text: _Text, limits: Limits) -> list[str]:
    with_limit(limits.field)
    start = io.TextIOWrapper(io.BytesIO(text.view[: 8 << 20]), "utf-8", "replace", newline="")
    try:
        names = next((row for row in csv.reader(start, strict=True) if row), [])
    except csv.Error as error:
        refuse("header", f"The header cannot be read: {error}.", 1)
    if len(names) > limits.columns:
        refuse("too_many_columns", f"The header has {len(names):,} columns; at most {limits.columns:,}.", 1)
    _check_names(names)
    return names


def _check_names(names: list[str]) -> None:
    for separator, what in ((";", "semicolons"), ("\t", "tabs"), ("|", "bars")):
        if len(names) < len(REQUIRED) and any(separator in name for name in names):
            refuse(
                "dialect", f"The columns are separated by {what}. Separate them by commas.", 1, value=",".join(names)
            )
    seen: dict[str, str] = {}
    for name in names:
        if name.casefold() in seen and name:
            refuse(
                "duplicate_column",
                f"The column {name!r} is there twice ({seen[name.casefold()]!r}). Keep one.",
                1,
                name,
                name,
            )
        seen[name.casefold()] = name
    for name in REQUIRED:
        if name not in names:
            refuse("missing_column", f"The column {name!r} is missing. Required are: {', '.join(REQUIRED)}.", 1, name)
    if "account" in names and "account_id" in names:
        refuse(
            "duplicate_column", "Both 'account' and 'account_id' are there. Keep one.", 1, "account_id", "account_id"
        )


# --- the fast way -------------------------------------------------------------------------------------------------


def _read(text: _Text, header: list[str], expected: _Expected) -> pa.Table:
    used = [name for name in header if name in REQUIRED or name in OPTIONAL]
    types: dict[str, pa.DataType] = {name: EXACT if name in METRICS else TEXT for name in used}
    if _line_breaks(text) > expected.limits.rows + 1:
        _diagnose(text, header, expected, otherwise=None)
    try:
        table = pcsv.read_csv(
            pa.BufferReader(pa.py_buffer(text.view)),
            read_options=pcsv.ReadOptions(block_size=BLOCK),
            parse_options=pcsv.ParseOptions(newlines_in_values=_has_quotes(text)),
            convert_options=pcsv.ConvertOptions(
                column_types=types, include_columns=used, strings_can_be_null=False, null_values=[""]
            ),
        )
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        _diagnose(text, header, expected, otherwise=str(error))
    table = table.rename_columns(["account" if name == "account_id" else name for name in table.column_names])
    table = table.unify_dictionaries().combine_chunks()
    if not _is_good(table, expected):
        _diagnose(text, header, expected, otherwise="a check failed")
    return _with_defaults(table)


def _line_breaks(text: _Text) -> int:
    count = sum(bytes(text.view[at : at + BLOCK]).count(b"\n") for at in range(0, len(text.view), BLOCK))
    return count or sum(bytes(text.view[at : at + BLOCK]).count(b"\r") for at in range(0, len(text.view), BLOCK))


def _has_quotes(text: _Text) -> bool:
    return any(b'"' in bytes(text.view[at : at + BLOCK]) for at in range(0, len(text.view), BLOCK))


def _chunk(table: pa.Table, name: str) -> Any:
    column = table[name]
    return column.chunk(0) if column.num_chunks else pa.array([], column.type)


def _values(table: pa.Table, name: str) -> list[str]:
    values: list[str] = _chunk(table, name).dictionary.to_pylist()
    return values


def _is_good(table: pa.Table, expected: _Expected) -> bool:
    if table.num_rows > expected.limits.rows:
        return False
    for metric in METRICS:
        column = table[metric]
        if column.null_count and metric != MAY_BE_ABSENT:
            return False
        if table.num_rows and column.null_count < table.num_rows:
            extremes = pc.min_max(column).as_py()
            if max(-extremes["min"], extremes["max"]) > MOST:
                return False
    for name in TEXTS:
        if name in table.column_names and not _text_is_good(name, _values(table, name), expected):
            return False
    return not _repeats(table)


def _text_is_good(name: str, values: Sequence[str], expected: _Expected) -> bool:
    if len(values) > expected.limits.series or any(len(value) > expected.limits.field for value in values):
        return False
    if name == "date":
        return all(value in ("", str(expected.day)) for value in values)
    if name == "currency":
        return all(value in ("", expected.currency) for value in values)
    return name != "estimated" or all(value.casefold() in ESTIMATED for value in values)


def _codes(table: pa.Table, name: str) -> tuple[np.ndarray[Any, Any], list[str]]:
    """Codes and values of a text column with its default filled in."""
    if name not in table.column_names:
        return np.zeros(table.num_rows, np.int64), [DEFAULTS[name]]
    position: dict[str, int] = {}
    place = [position.setdefault(value or DEFAULTS.get(name, ""), len(position)) for value in _values(table, name)]
    indices = np.asarray(_chunk(table, name).indices.to_numpy(zero_copy_only=False))
    return np.array(place or [0], np.int64)[indices], list(position)


def _repeats(table: pa.Table) -> bool:
    key = np.zeros(table.num_rows, np.int64)
    width = 1
    for name in DIMENSIONS:
        codes, values = _codes(table, name)
        size = max(len(values), 1)
        if width * size >= 2**62:
            key = np.unique(key, return_inverse=True)[1].astype(np.int64)
            width = int(key.max(initial=0)) + 1
        key, width = key * size + codes, width * size
    key.sort()
    return bool((key[1:] == key[:-1]).any())


def _with_defaults(table: pa.Table) -> pa.Table:
    arrays = {}
    for field in SCHEMA:
        name = field.name
        if name in METRICS:
            arrays[name] = _chunk(table, name)
        elif name == "estimated":
            arrays[name] = _estimated(table)
        elif name == "usage_unit" and name not in table.column_names:
            arrays[name] = pa.DictionaryArray.from_arrays(pa.array(np.zeros(table.num_rows, np.int32)), pa.array([""]))
        else:
            codes, values = _codes(table, name)
            arrays[name] = pa.DictionaryArray.from_arrays(
                pa.array(codes.astype(np.int32)), pa.array(values, pa.string())
            )
    return pa.table(arrays, schema=SCHEMA)


def _estimated(table: pa.Table) -> Any:
    if "estimated" not in table.column_names:
        return pa.array(np.zeros(table.num_rows, np.bool_))
    flags = np.array([ESTIMATED[value.casefold()] for value in _values(table, "estimated")] or [False])
    return pa.array(flags[np.asarray(_chunk(table, "estimated").indices.to_numpy(zero_copy_only=False))])


def _parsed(table: pa.Table, day: date, ignored: tuple[str, ...]) -> ParsedDay:
    from app.core.columns import account_totals, columns_of, tidied

    estimated = pc.unique(table.filter(table["estimated"])["account"].cast(pa.string())).to_pylist()
    table = tidied(table)
    accounts = account_totals(columns_of(day, table))
    return ParsedDay(day, table, _sum(accounts), accounts, frozenset(estimated), ignored)


def _sum(accounts: Mapping[str, Totals]) -> Totals:
    parts = list(accounts.values())
    blended = [part.blended_cost for part in parts]
    return Totals(
        rows=sum(part.rows for part in parts),
        amortized_cost=total([part.amortized_cost for part in parts]),
        blended_cost=None if None in blended else total([value for value in blended if value is not None]),
        unblended_cost=total([part.unblended_cost for part in parts]),
        usage_quantity=total([part.usage_quantity for part in parts]),
    )


# --- the careful way: only to say what is wrong -------------------------------------------------------------------


def with_limit(characters: int) -> None:
    csv.field_size_limit(characters)


def _diagnose(text: _Text, header: list[str], expected: _Expected, *, otherwise: str | None) -> Any:
    """Raise Quarantined with the first thing that is wrong; returns only when `otherwise` is None and nothing is."""
    with_limit(expected.limits.field)
    checking = _Checking(header, expected)
    reader = csv.reader(text.lines(), strict=True)
    line = 1
    try:
        next((row for row in reader if row), None)
        while True:
            line = reader.line_num + 1
            row = next(reader, None)
            if row is None:
                break
            if row:
                checking.row(line, row)
    except csv.Error as error:
        if "field larger" in str(error):
            refuse("field_too_long", f"Line {line} has a cell of more than {expected.limits.field:,} characters.", line)
        if "unexpected end" in str(error):
            refuse(
                "truncated", f"The quoted cell that begins in line {line} is never closed: the file was cut off.", line
            )
        refuse("quoting", f"Line {line} is not RFC 4180 ({error}).", line)
    if otherwise is not None:
        refuse("unreadable", f"The file cannot be read as CSV: {otherwise[:300]}")
    return None


class _Checking:
    def __init__(self, header: list[str], expected: _Expected) -> None:
        self.header = ["account" if name == "account_id" else name for name in header]
        self.expected = expected
        self.rows = 0
        self.keys: dict[tuple[str, ...], int] = {}
        self.distinct: dict[str, set[str]] = {name: set() for name in TEXTS if name in self.header}

    def row(self, line: int, row: list[str]) -> None:
        self.rows += 1
        if self.rows > self.expected.limits.rows:
            refuse(
                "too_many_rows",
                f"The file has more than {self.expected.limits.rows:,} rows. Raise SPENDSCOPE_MAX_FILE_ROWS.",
                line,
            )
        if len(row) != len(self.header):
            refuse("row_length", f"Line {line} has {len(row)} cells, the header {len(self.header)}.", line)
        cells = dict(zip(self.header, row, strict=True))
        for name, value in cells.items():
            if len(value) > self.expected.limits.field:
                refuse("field_too_long", f"Line {line} has a cell of {len(value):,} characters.", line, name, value)
            if name in METRICS:
                self._amount(line, name, value)
            elif name in self.distinct:
                self._text(line, name, value)
        key = tuple(cells.get(name) or DEFAULTS[name] for name in DIMENSIONS)
        first = self.keys.setdefault(key, line)
        if first != line:
            refuse(
                "repeated_key",
                f"Line {line} has the same provider, account, service, region and category as line {first}. Add them up into one row.",
                line,
                "service",
                cells["service"],
            )

    def _amount(self, line: int, name: str, value: str) -> None:
        if not value.strip(" \t"):
            if name != MAY_BE_ABSENT or value:
                refuse("empty_amount", f"Line {line} has no {name}. Write 0 when it is zero.", line, name, value)
            return
        if not NUMBER.fullmatch(value):
            refuse("not_a_number", f"{name} in line {line} is not a plain decimal number.", line, name, value)
        number = Decimal(value.strip(" \t"))
        if abs(number) > MOST:
            refuse("too_large_amount", f"{name} in line {line} is beyond ±1e12.", line, name, value)
        exponent = number.as_tuple().exponent
        if isinstance(exponent, int) and -exponent > DECIMALS and number != round(number, DECIMALS):
            refuse("too_many_decimals", f"{name} in line {line} has more than {DECIMALS} decimals.", line, name, value)

    def _text(self, line: int, name: str, value: str) -> None:
        seen = self.distinct[name]
        seen.add(value)
        if len(seen) > self.expected.limits.series:
            refuse(
                "cardinality",
                f"{name} has more than {self.expected.limits.series:,} different values.",
                line,
                name,
                value,
            )
        if name == "date" and value not in ("", str(self.expected.day)):
            refuse(
                "wrong_date",
                f"Line {line} is of {shown(value)!r}, but the file is of {self.expected.day}.",
                line,
                name,
                value,
            )
        if name == "currency" and value not in ("", self.expected.currency):
            refuse(
                "wrong_currency",
                f"Line {line} is in {shown(value)!r}; this deployment is in {self.expected.currency}.",
                line,
                name,
                value,
            )
        if name == "estimated" and value.casefold() not in ESTIMATED:
            refuse("not_a_flag", f"estimated in line {line} is neither true nor false.", line, name, value)


# --- the sidecar --------------------------------------------------------------------------------------------------


def sidecar(data: bytes, sha256: str) -> tuple[frozenset[str], frozenset[str]] | None:
    """Accounts a file speaks for and accounts that failed; None when the sidecar is of other bytes."""
    try:
        found = json.loads(data)
        if found["sha256"] != sha256:
            return None
        covered, failed = found["covered"], found.get("failed", found.get("failed_accounts", []))
        if not all(isinstance(name, str) for names in (covered, failed) for name in names):
            raise TypeError("accounts are texts")
        return frozenset(covered), frozenset(failed)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        refuse("coverage_unreadable", f"The coverage file beside it cannot be read ({type(error).__name__}: {error}).")
