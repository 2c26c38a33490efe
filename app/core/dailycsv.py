"""The daily CSV (DESIGN §4): one day of charges as a file, taken whole or quarantined whole.

A file is read in pieces of whole rows, several at a time. Arrow splits the cells and counts distinct texts; quotes are
checked before, and no number is taken before core.csvnumbers has made sure of it. The first piece with a fault ends the
reading, and only then is the line looked up.

Reason codes: empty, too_large, not_csv, encoding, dialect, missing_column, duplicate_column, too_many_columns,
truncated, quoting, row_length, row_too_long, field_too_long, empty_amount, not_a_number, too_many_decimals,
too_large_amount, wrong_date, future_date, wrong_currency, not_a_flag, too_many_rows, cardinality, repeated_key,
unreadable, coverage_unreadable. app.spool adds those of compression, app.ingest `retention` and `held`.
"""

from __future__ import annotations

import codecs
import csv
import io
import itertools
import json
import re
import tempfile
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from datetime import date, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any, BinaryIO, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pacsv
from numpy.typing import NDArray

from app.core import amounts, csvnumbers
from app.core.charges import DEFAULTS, DIMENSIONS, MAY_BE_ABSENT, METRICS, Totals
from app.core.csvfault import Fault, safe
from app.core.csvnumbers import EXACT, SUM_LIMIT
from app.core.rollup import combined
from app.errors import Quarantined, Reason

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
"""Charges of one day. The day and the currency belong to the file; only `blended_cost` may be null.

A column of amounts is of a type of csvnumbers.NARROW where one holds all of it (`columns.widened` is the way back).
"""

FILE_NAME: Final = re.compile(r"(\d{4}-\d{2}-\d{2})\.csv(\.gz)?")
PARSER: Final = 1
"""Version of these rules: a file quarantined by older ones is worth reading again."""

REQUIRED: Final = ("service", "region", *METRICS)
TEXTS: Final = (*DIMENSIONS, "usage_unit")
ALIASES: Final = {"account_id": "account"}
KNOWN: Final = frozenset((*TEXTS, *METRICS, "date", "currency", "estimated", *ALIASES))

EARLIEST: Final = date(2000, 1, 1)
"""No cloud bill is older; what claims to be is a wrong date."""
AHEAD: Final = timedelta(days=2)
"""How far a file may be ahead of today (UTC): clocks differ, but the future has no cost."""

FLAGS: Final = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False, "": False}

PIECE: Final = 8 * 2**20
"""Bytes read at a time; a row longer than this is refused."""
SPARSE: Final = 8
"""As many possible keys a row are still put in order by their place rather than by comparing them."""

READERS: Final = 2
"""Pieces read at a time: more than two wait for memory rather than for a processor."""


@dataclass(frozen=True)
class Limits:
    """The most a file may have: inflated bytes, rows, distinct texts in a column, columns, bytes in a cell."""

    bytes: int
    rows: int
    series: int
    columns: int = 5000
    field: int = 65536


@dataclass(frozen=True)
class ParsedDay:
    """A file's charges in SCHEMA: one chunk, sorted by key (charges.DIMENSIONS), dictionaries sorted and all used.

    A row whose amounts are all zero, or absent, equals no row: it is checked, then left out of `table`, `totals` and
    `accounts`, and counted in `zero_rows`. `estimated` names accounts with a row marked so, zero or not.
    """

    day: date
    table: pa.Table
    totals: Totals
    accounts: Mapping[str, Totals]
    estimated: frozenset[str]
    ignored_columns: tuple[str, ...]
    zero_rows: int = 0


def parse(data: Path | bytes, *, day: date, currency: str, today: date, limits: Limits) -> ParsedDay:
    """The charges of a day's file, given as path or bytes (not compressed). Raises Quarantined with what is wrong."""
    _check_day(day, today)
    with _opened(data) as file, _as_utf8(file, limits) as characters:
        source = _Source(characters, limits)
        pieces = source.pieces()
        layout = _layout(source, next(pieces), limits)
        parts = _read_all(source, itertools.chain([layout.body], pieces), _Rules(layout, day, currency, limits))
        return _Day(source, layout, day, limits, parts).parsed()


# --- what the file is ---------------------------------------------------------------------------------------------


def _check_day(day: date, today: date) -> None:
    if day > today + AHEAD:
        message = f"{day} is more than 48 hours ahead of today, {today} (UTC). Correct the file's name or the clock."
        raise Quarantined(Reason("future_date", message, value=str(day)))
    if day < EARLIEST:
        message = f"{day} is before {EARLIEST}; no cloud bill is that old. Correct the file's name."
        raise Quarantined(Reason("wrong_date", message, value=str(day)))


def _opened(data: Path | bytes) -> AbstractContextManager[BinaryIO]:
    return io.BytesIO(data) if isinstance(data, bytes) else data.open("rb")


@contextmanager
def _as_utf8(file: BinaryIO, limits: Limits) -> Iterator[BinaryIO]:
    """The file at its first character; UTF-16 with a byte order mark is decoded into a temporary file."""
    size = file.seek(0, io.SEEK_END)
    file.seek(0)
    if size > limits.bytes:
        raise _too_large(limits)
    if file.read(2) in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE):
        with tempfile.TemporaryFile() as decoded:
            _decode_utf16(file, decoded, limits)
            yield _at_first_character(decoded)
    else:
        yield _at_first_character(file)


def _at_first_character(file: BinaryIO) -> BinaryIO:
    file.seek(0)
    head = file.read(4096)
    start = len(codecs.BOM_UTF8) if head.startswith(codecs.BOM_UTF8) else 0
    _check_head(head[start:])
    file.seek(start)
    return file


def _too_large(limits: Limits) -> Quarantined:
    message = f"The file has more than {limits.bytes:,} bytes. Split it or raise SPENDSCOPE_MAX_FILE_BYTES."
    return Quarantined(Reason("too_large", message))


def _decode_utf16(file: BinaryIO, decoded: BinaryIO, limits: Limits) -> None:
    decoder = codecs.getincrementaldecoder("utf-16")()
    file.seek(0)
    try:
        while chunk := file.read(2**20):
            decoded.write(decoder.decode(chunk).encode())
            if decoded.tell() > limits.bytes:
                raise _too_large(limits)
        decoder.decode(b"", final=True)
    except UnicodeError:
        message = "The file has a UTF-16 byte order mark but is not UTF-16 text. Export it as UTF-8."
        raise Quarantined(Reason("encoding", message)) from None


_FOREIGN: Final = (
    (b"\x89PNG", "a PNG picture"),
    (b"PK\x03\x04", "a ZIP archive or a spreadsheet"),
    (b"PK\x05\x06", "a ZIP archive"),
    (b"\xd0\xcf\x11\xe0", "an old spreadsheet"),
    (b"%PDF", "a PDF document"),
    (b"PAR1", "a Parquet file"),
    (b"\x1f\x8b", "gzip: name it .csv.gz, and compress it once"),
    (b"\x28\xb5\x2f\xfd", "compressed with zstd"),
    (b"BZh", "compressed with bzip2"),
    (b"\xfd7zXZ", "compressed with xz"),
    (b"<", "HTML or XML"),
    (b"{", "JSON"),
    (b"[", "JSON"),
)


def _check_head(head: bytes) -> None:
    """Refuse what is no CSV at all, by its first bytes."""
    text = head.lstrip()
    if not text:
        raise Quarantined(Reason("empty", "The file is empty. A day without cost is a file with only a header."))
    for magic, what in _FOREIGN:
        if text.startswith(magic):
            message = f"This is not a CSV file but {what}. Put the CSV there, plain or gzipped."
            raise Quarantined(Reason("not_csv", message, 1, value=safe(_shown(text))))


def _shown(data: bytes) -> str:
    return data[:400].decode("utf-8", "replace")


# --- pieces of whole rows -----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Piece:
    """Whole rows of the file; `offset` is where they start."""

    offset: int
    data: bytes


class _Source:
    """A seekable file of UTF-8, from its first character on."""

    def __init__(self, file: BinaryIO, limits: Limits) -> None:
        self._file, self._limits = file, limits
        self._start = file.tell()

    def pieces(self) -> Iterator[_Piece]:
        """The file in order; every piece ends with a line break outside quotes, and its bytes are sound."""
        offset, rest, last = self._start, b"", False
        while not last:
            chunk = self._file.read(PIECE)
            data, last = rest + chunk, not chunk
            try:
                size = _sound_rows(data, last, self._limits)
            except Fault as fault:
                raise self.quarantined(_Piece(offset, data), fault) from None
            if size:
                yield _Piece(offset, data[:size])
            offset, rest = offset + size, data[size:]

    def again(self, offset: int, size: int) -> _Piece:
        """The same bytes once more, to say where a fault is."""
        self._file.seek(offset)
        return _Piece(offset, self._file.read(size))

    def quarantined(self, piece: _Piece, fault: Fault) -> Quarantined:
        value = None if fault.value is None else safe(fault.value)
        return Quarantined(Reason(fault.code, fault.message, self.line(piece, fault), fault.column, value))

    def line(self, piece: _Piece, fault: Fault) -> int:
        before = self._line_breaks_before(piece.offset)
        if fault.row is None:
            return before + _line_breaks(piece.data[: fault.offset]) + 1
        lines = (line for line, _ in _rows(piece.data))
        return before + next(itertools.islice(lines, fault.row, None), 1)

    def _line_breaks_before(self, offset: int) -> int:
        self._file.seek(self._start)
        left, breaks, after_return = offset - self._start, 0, False
        while left and (chunk := self._file.read(min(left, PIECE))):
            left -= len(chunk)
            breaks += _line_breaks(chunk) - (after_return and chunk.startswith(b"\n"))
            after_return = chunk.endswith(b"\r")
        return breaks


def _line_breaks(data: bytes) -> int:
    return data.count(b"\n") + data.count(b"\r") - data.count(b"\r\n")


def _sound_rows(data: bytes, last: bool, limits: Limits) -> int:
    """How many bytes are whole rows, checked; at the end of the file it must be all of them."""
    _check_text(data)
    size = _whole_rows(data, last)
    if last and size < len(data):
        raise _truncated(data, size)
    if not size and len(data) >= PIECE:
        raise _too_long(data, limits)
    return size


def _whole_rows(data: bytes, last: bool) -> int:
    """How many bytes there are up to the last line break outside quotes. Raises Fault where RFC 4180 is broken."""
    end = _last_break(data, len(data), last)
    if b'"' in data:
        quotes = _quotes(data)
        while end >= 0 and (before := int(np.searchsorted(quotes, end))) % 2:
            end = _last_break(data, int(quotes[before - 1]), True)
    return end + 1


def _last_break(data: bytes, end: int, last: bool) -> int:
    """Where the last line break before `end` is, -1 if none. A final CR may be half of a CRLF unless the file ends."""
    after = end if last or not data.endswith(b"\r") else end - 1
    return max(data.rfind(b"\n", 0, end), data.rfind(b"\r", 0, after))


_BESIDE_QUOTE: Final = np.isin(np.arange(256), list(b',"\r\n'))


def _quotes(data: bytes) -> NDArray[np.intp]:
    """Where quotes are: each opens after a comma, a line break or the quote before, and closes before one of them.

    Readers, Arrow's among them, make up cells where this is broken: a lost quote swallows the next row and its money.
    """
    each = np.frombuffer(data, np.uint8)
    quotes = np.flatnonzero(each == ord('"'))
    opening, closing = quotes[::2], quotes[1::2]
    opens = _BESIDE_QUOTE[each[opening - 1]] | (opening == 0)
    closes = _BESIDE_QUOTE[each[np.minimum(closing + 1, len(each) - 1)]]
    wrong = np.concatenate([opening[~opens], closing[~closes]])
    if len(wrong):
        at = int(wrong.min())
        message = 'A quote stands where no cell starts or ends. Quote the whole cell and write "" for a quote inside.'
        raise Fault("quoting", message, offset=at, value=_around(data, at))
    return quotes


def _around(data: bytes, at: int) -> str:
    """What stands before and after, of the same line."""
    before = data[max(at - 30, 0) : at]
    return _shown(before[_last_break(before, len(before), True) + 1 :] + data[at : at + 30])


def _check_text(data: bytes) -> None:
    """Raise Fault for NUL bytes and for what is not UTF-8; a character may be cut off at the end."""
    nul = data.find(b"\0")
    if nul >= 0:
        message = "The file has NUL bytes: it is damaged, or UTF-16 without a byte order mark. Export it as UTF-8."
        raise Fault("encoding", message, offset=nul, value=_around(data, nul))
    if data.isascii():
        return
    try:
        codecs.utf_8_decode(data, "strict", False)
    except UnicodeDecodeError as error:
        message = f"The file is not UTF-8 ({error.reason}). Export it as UTF-8, or as UTF-16 with a byte order mark."
        raise Fault("encoding", message, offset=error.start, value=_around(data, error.start)) from None


def _truncated(data: bytes, size: int) -> Fault:
    rest = data[size:]
    where = "inside a quoted cell" if rest.count(b'"') % 2 else "without a line break after its last row"
    message = f"The file ends {where}: it was cut off, and nothing says how much is missing. Deliver it again."
    return Fault("truncated", message, offset=size, value=_shown(rest))


def _too_long(data: bytes, limits: Limits) -> Fault:
    """A row longer than a piece: most often one cell, whose quote is never closed."""
    _, row = next(_rows(data))
    if row is None or any(len(cell.encode()) > limits.field for cell in row):
        return _long_field(limits, _shown(data), row=0)
    return Fault("row_too_long", f"A row is longer than {PIECE:,} bytes.", row=0, value=_shown(data))


def _long_field(limits: Limits, value: str, *, row: int | None = None) -> Fault:
    message = f"A cell is longer than {limits.field:,} bytes. Shorten it; or perhaps a quote is never closed."
    return Fault("field_too_long", message, row=row, value=value)


def _rows(data: bytes) -> Iterator[tuple[int, list[str] | None]]:
    """Each row with the line it starts on, from 1. Ends with None where a cell is too long for the csv module."""
    reader = csv.reader(io.TextIOWrapper(io.BytesIO(data), "utf-8", "replace", newline=""))
    while True:
        line = reader.line_num + 1
        try:
            row = next(reader)
        except StopIteration:
            return
        except csv.Error:
            yield line, None
            return
        if row:
            yield line, row


# --- header -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Layout:
    """Which column is where: known ones by this project's names, others by theirs. `body` is the rest of the piece."""

    header: tuple[str, ...]
    known: Mapping[int, str]
    ignored: Mapping[int, str]
    body: _Piece


def _layout(source: _Source, first: _Piece, limits: Limits) -> _Layout:
    try:
        header, size = _header(first.data, limits)
        _check_header(header, limits)
    except Fault as fault:
        raise source.quarantined(first, fault) from None
    known = {place: ALIASES.get(name, name) for place, name in enumerate(header) if name in KNOWN}
    ignored = {place: name for place, name in enumerate(header) if name not in KNOWN}
    return _Layout(tuple(header), known, ignored, _Piece(first.offset + size, first.data[size:]))


def _header(data: bytes, limits: Limits) -> tuple[list[str], int]:
    """The cells of the first row that is not blank, and how many bytes there are up to its end."""
    taken: list[str] = []

    def lines() -> Iterator[str]:
        for line in io.TextIOWrapper(io.BytesIO(data), "utf-8", newline=""):
            taken.append(line)
            yield line

    try:
        header: list[str] = next((row for row in csv.reader(lines()) if row), [])
    except csv.Error:
        raise _long_field(limits, "".join(taken)[:80]) from None
    return header, len("".join(taken).encode())


def _check_header(header: Sequence[str], limits: Limits) -> None:
    if len(header) > limits.columns:
        raise Fault("too_many_columns", f"The file has {len(header):,} columns; {limits.columns:,} are the most.")
    for name in header:
        if len(name.encode()) > limits.field:
            raise _long_field(limits, name)
    _check_twice(header)
    for name in REQUIRED:
        if name not in header:
            raise _missing(name, header)


def _check_twice(header: Sequence[str]) -> None:
    """Two columns for one thing: names that differ in case at most, or both names of the account."""
    seen: dict[str, str] = {}
    for name in filter(None, header):
        meant = ALIASES.get(name.casefold(), name.casefold())
        if meant in seen:
            message = f"The columns {safe(seen[meant])!r} and {safe(name)!r} stand for the same. Keep one."
            fault = Fault("duplicate_column", message, value=name)
            fault.column = safe(name)
            raise fault
        seen[meant] = name


_DIALECTS: Final = {";": "semicolons", "\t": "tabs", "|": "bars"}


def _missing(name: str, header: Sequence[str]) -> Fault:
    for mark, what in _DIALECTS.items():
        if len(header) < len(REQUIRED) and any(mark in each for each in header):
            message = f"The columns are separated by {what}. Separate them by commas."
            return Fault("dialect", message, value=",".join(header))
    close = [each for each in header if each.strip().casefold() == name]
    hint = f" There is {safe(close[0])!r}, but names must match exactly." if close else ""
    message = f"The column {name!r} is missing.{hint} Required are {', '.join(REQUIRED)}."
    fault = Fault("missing_column", message, value=",".join(header))
    fault.column = name
    return fault


# --- columns ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Part:
    """Checked columns of one piece, by name: dictionaries of text, exact decimals, where a row is estimated.

    `accounts` are the sums of its rows, without those that are all zero; those are marked in `zeros`.
    """

    offset: int
    size: int
    columns: dict[str, Any]
    zeros: NDArray[np.bool_]
    accounts: Mapping[str, Totals]

    @property
    def rows(self) -> int:
        return len(self.zeros)


class _Rules:
    """How a piece becomes columns. Shared by threads: nothing in it changes."""

    def __init__(self, layout: _Layout, day: date, currency: str, limits: Limits) -> None:
        self._layout, self._day, self._currency, self.limits = layout, day, currency, limits
        types = {str(place): pa.string() if name in METRICS else TEXT for place, name in layout.known.items()}
        types |= {str(place): pa.binary() for place in layout.ignored}
        self._converting = pacsv.ConvertOptions(
            check_utf8=False, column_types=types, include_columns=list(types), strings_can_be_null=False
        )

    def read(self, piece: _Piece) -> _Part:
        """Raises Fault with the first row that something is wrong with."""
        cells = self._cells(piece.data)
        columns: dict[str, Any] = {}
        faults: list[Fault] = []
        for place, column in zip(cells.column_names, cells.columns, strict=True):
            name = self._layout.known.get(int(place))
            try:
                values = self._column(name, _one(column))
                if name is not None:
                    columns[name] = values
            except Fault as fault:
                fault.column = name or safe(self._layout.header[int(place)])
                faults.append(fault)
        if faults:
            raise min(faults, key=lambda fault: fault.row or 0)
        numbers = {name: columns[name] for name in METRICS}
        zeros = ~np.logical_or.reduce([csvnumbers.is_nonzero(array) for array in numbers.values()])
        accounts = columns.get("account")
        codes = np.zeros(len(cells), np.int32) if accounts is None else _codes(accounts)
        names = [""] if accounts is None else accounts.dictionary.to_pylist()
        return _Part(piece.offset, len(piece.data), columns, zeros, _totals(codes, names, numbers, zeros))

    def _cells(self, data: bytes) -> pa.Table:
        # Arrow drops a U+FEFF that it meets first, and skips blank lines.
        shielded = b"\n" + data if data.startswith(codecs.BOM_UTF8) else data
        try:
            return pacsv.read_csv(
                pa.BufferReader(shielded),
                read_options=pacsv.ReadOptions(
                    use_threads=False,
                    block_size=len(shielded) + 1,
                    column_names=[str(place) for place in range(len(self._layout.header))],
                ),
                parse_options=pacsv.ParseOptions(newlines_in_values=b'"' in data),
                convert_options=self._converting,
            )
        except pa.ArrowInvalid as error:
            raise self._unequal_row(data, str(error)) from None

    def _unequal_row(self, data: bytes, error: str) -> Fault:
        width = len(self._layout.header)
        for number, (_, row) in enumerate(_rows(data)):
            if row is None:
                return _long_field(self.limits, "", row=number)
            if len(row) != width:
                message = f"The row has {len(row)} cells, the header has {width}."
                return Fault("row_length", message, row=number, value=",".join(row))
        return Fault("unreadable", f"The file cannot be read as CSV: {error[:200]}", row=0)

    def _column(self, name: str | None, cells: Any) -> Any:
        is_text = pa.types.is_dictionary(cells.type)
        self._check_lengths(cells.dictionary if is_text else cells, cells if is_text else None)
        if name in METRICS:
            return csvnumbers.exact(name, cells)
        if name == "estimated":
            return _flags(cells)
        if name == "date":
            _check_texts(cells, self._date_fault)
        if name == "currency":
            _check_texts(cells, self._currency_fault)
        return cells

    def _check_lengths(self, values: Any, cells: Any) -> None:
        lengths = pc.binary_length(values)
        if (pc.max(lengths).as_py() or 0) > self.limits.field:
            place = pc.index(pc.greater(lengths, self.limits.field), True).as_py()
            row = place if cells is None else int(np.argmax(_codes(cells) == place))
            raise _long_field(self.limits, _shown(values[place].as_buffer().to_pybytes()), row=row)

    def _date_fault(self, text: str) -> tuple[str, str] | None:
        if text in ("", str(self._day)):
            return None
        return "wrong_date", f"The row is of {safe(text)!r}, the file of {self._day}. A file holds one day: write that."

    def _currency_fault(self, text: str) -> tuple[str, str] | None:
        if text in ("", self._currency):
            return None
        return "wrong_currency", f"The currency is {safe(text)!r}; this deployment keeps {self._currency} only."


def _one(column: Any) -> Any:
    """The one array that a block became."""
    return column.chunk(0) if column.num_chunks else pa.array([], column.type)


def _codes(cells: Any) -> NDArray[np.int32]:
    indices = cells.indices
    if not len(indices):
        return np.zeros(0, np.int32)
    return np.frombuffer(indices.buffers()[1], np.int32, len(indices), 4 * indices.offset)


def _check_texts(cells: Any, fault: Callable[[str], tuple[str, str] | None]) -> None:
    """Raise the fault of the first row whose text has one."""
    texts = cells.dictionary.to_pylist()
    found = {code: wrong for code, text in enumerate(texts) if (wrong := fault(text)) is not None}
    if found:
        row = int(np.argmax(np.isin(_codes(cells), list(found))))
        code = int(_codes(cells)[row])
        raise Fault(*found[code], row=row, value=texts[code])


def _flags(cells: Any) -> NDArray[np.bool_]:
    _check_texts(cells, _flag_fault)
    meant = [FLAGS[text.casefold()] for text in cells.dictionary.to_pylist()]
    return np.array(meant or [False], np.bool_)[_codes(cells)]


def _flag_fault(text: str) -> tuple[str, str] | None:
    if text.casefold() in FLAGS:
        return None
    return "not_a_flag", f"{safe(text)!r} is neither true nor false. Write one of them, or nothing."


# --- pieces to a day ----------------------------------------------------------------------------------------------


def _read_all(source: _Source, pieces: Iterator[_Piece], rules: _Rules) -> list[_Part]:
    parts: list[_Part] = []
    rows = 0
    with ThreadPoolExecutor(READERS, "daily-csv") as readers:
        for piece, reading in _ahead(readers, pieces, rules.read):
            try:
                parts.append(reading.result())
            except Fault as fault:
                raise source.quarantined(piece, fault) from None
            rows += parts[-1].rows
            if rows > rules.limits.rows:
                raise _too_many_rows(rules.limits)
    return parts


def _too_many_rows(limits: Limits) -> Quarantined:
    message = f"The file has more than {limits.rows:,} rows. Add them up, or raise SPENDSCOPE_MAX_FILE_ROWS."
    return Quarantined(Reason("too_many_rows", message))


def _ahead(
    readers: ThreadPoolExecutor, pieces: Iterator[_Piece], read: Callable[[_Piece], _Part]
) -> Iterator[tuple[_Piece, Future[_Part]]]:
    """Readings in the order of the file, few at a time: that bounds the memory."""
    waiting: deque[tuple[_Piece, Future[_Part]]] = deque()
    fault: Quarantined | None = None
    try:
        for piece in pieces:
            if piece.data:
                waiting.append((piece, readers.submit(read, piece)))
            if len(waiting) > READERS:
                yield waiting.popleft()
    except Quarantined as found:
        fault = found  # Rows before it may have one of their own, which comes first.
    yield from waiting
    if fault is not None:
        raise fault


class _Day:
    """All parts of a file, put together."""

    def __init__(self, source: _Source, layout: _Layout, day: date, limits: Limits, parts: list[_Part]) -> None:
        self._source, self._layout, self._day, self._limits, self._parts = source, layout, day, limits, parts
        self._rows = sum(part.rows for part in parts)

    def parsed(self) -> ParsedDay:
        texts = {name: self._texts(name) for name in TEXTS}
        with ThreadPoolExecutor(1, "daily-csv") as beside:
            ordering = beside.submit(self._order, texts)
            numbers = {name: self._numbers(name) for name in METRICS}
            by_account = self._accounts()
            zeros = np.concatenate([np.zeros(0, np.bool_), *(part.zeros for part in self._parts)])
            chosen = ordering.result()
        flags = np.concatenate([np.zeros(0, np.bool_), *self._taken("estimated", np.zeros(self._rows, np.bool_))])
        codes, accounts = texts["account"]
        estimated = frozenset(accounts[code] for code in np.unique(codes[flags]).tolist())
        if zeros.any():
            chosen = (np.arange(self._rows) if chosen is None else chosen)[~zeros if chosen is None else ~zeros[chosen]]
        table = _table(texts, numbers, flags, chosen)
        ignored = tuple(self._layout.ignored.values())
        totals = _added(list(by_account.values()))
        return ParsedDay(self._day, table, totals, by_account, estimated, ignored, int(zeros.sum()))

    def _accounts(self) -> dict[str, Totals]:
        """The sums of each account, by name."""
        found: dict[str, list[Totals]] = {}
        for part in self._parts:
            for name, totals in part.accounts.items():
                found.setdefault(name, []).append(totals)
        return {name: _added(parts) if len(parts) > 1 else parts[0] for name, parts in sorted(found.items())}

    def _taken(self, name: str, default: Any) -> list[Any]:
        """The parts' arrays of a column, let go here; the default where the file has no such column."""
        if name not in self._layout.known.values():
            return [default]
        return [part.columns.pop(name) for part in self._parts]

    def _texts(self, name: str) -> tuple[NDArray[np.int32], list[str]]:
        """Codes and sorted values of a text column, the default in place of nothing."""
        default = DEFAULTS.get(name, "")
        if name not in self._layout.known.values() or not self._rows:
            return np.zeros(self._rows, np.int32), [default] if self._rows else []
        chunks = pa.chunked_array(self._taken(name, None), TEXT).unify_dictionaries().chunks
        texts = [text or default for text in chunks[0].dictionary.to_pylist()]
        values = sorted(set(texts))
        if len(values) > self._limits.series:
            message = f"{name} has more than {self._limits.series:,} different values. Raise SPENDSCOPE_MAX_SERIES."
            raise Quarantined(Reason("cardinality", message, column=name))
        place = {text: code for code, text in enumerate(values)}
        codes = np.array([place[text] for text in texts], np.int32)
        return np.concatenate([codes[_codes(chunk)] for chunk in chunks]), values

    def _numbers(self, name: str) -> Any:
        found = csvnumbers.together(self._taken(name, None))
        if csvnumbers.magnitude(found) > SUM_LIMIT:
            message = f"{name} adds up to more than {SUM_LIMIT:,}: that is a mistake in the file."
            raise Quarantined(Reason("too_large_amount", message, column=name))
        return found

    def _order(self, texts: Mapping[str, tuple[NDArray[np.int32], list[str]]]) -> NDArray[np.integer[Any]] | None:
        """Rows in the order of their keys, None when they are. Raises Quarantined for a key that is there twice."""
        codes, values = zip(*(texts[name] for name in DIMENSIONS), strict=True)
        key, span = combined(codes, [len(each) for each in values])
        if (key[1:] > key[:-1]).all():
            return None
        if span <= SPARSE * len(key):
            place = np.full(span, -1, np.int32)
            place[key] = np.arange(len(key), dtype=np.int32)
            found = place[place >= 0]
            if len(found) == len(key):
                return found
        order = np.argsort(key)
        ordered = key[order]
        same = ordered[1:] == ordered[:-1]
        if same.any():
            second = np.maximum(order[1:][same], order[:-1][same]).min()
            first, second, *_ = np.flatnonzero(key == key[second]).tolist()
            raise self._repeated(first, second, [each[1][each[0][second]] for each in (texts[n] for n in DIMENSIONS)])
        return order

    def _repeated(self, first: int, second: int, key: list[str]) -> Quarantined:
        piece, fault = self._at(first)
        message = (
            f"The same {', '.join(DIMENSIONS[:-1])} and {DIMENSIONS[-1]} are in line {self._source.line(piece, fault)} "
            "already. Add them up into one row, or tell them apart."
        )
        piece, fault = self._at(second)
        fault.code, fault.message, fault.value = "repeated_key", message, ", ".join(key)
        return self._source.quarantined(piece, fault)

    def _at(self, row: int) -> tuple[_Piece, Fault]:
        for part in self._parts:
            if row < part.rows:
                return self._source.again(part.offset, part.size), Fault("", "", row=row)
            row -= part.rows
        raise IndexError(row)


def _table(
    texts: dict[str, tuple[NDArray[np.int32], list[str]]],
    numbers: dict[str, Any],
    flags: NDArray[np.bool_],
    chosen: NDArray[np.integer[Any]] | None,
) -> pa.Table:
    """The chosen rows in their order; what it is made of is let go as it is used."""
    rows = slice(None) if chosen is None else chosen
    columns: dict[str, Any] = {"estimated": pa.array(flags[rows])}
    for name in TEXTS:
        codes, values = texts.pop(name)
        columns[name] = _dictionary(codes[rows], values)
    if chosen is not None:
        places = pa.array(chosen)
        with ThreadPoolExecutor(READERS, "daily-csv") as movers:
            columns |= zip(METRICS, movers.map(lambda name: numbers.pop(name).take(places), METRICS), strict=True)
    columns |= numbers
    return pa.table({name: columns[name] for name in SCHEMA.names})


def _dictionary(codes: NDArray[np.int32], values: list[str]) -> Any:
    used = np.bincount(codes, minlength=len(values)) > 0
    if not used.all():
        codes = (np.cumsum(used, dtype=np.int32) - np.int32(1))[codes]
        values = list(itertools.compress(values, used.tolist()))
    return pa.DictionaryArray.from_arrays(pa.array(codes), pa.array(values, pa.string()))


def _totals(
    codes: NDArray[np.int32], texts: list[str], numbers: Mapping[str, Any], zeros: NDArray[np.bool_]
) -> dict[str, Totals]:
    """Exact sums of each account; `blended_cost` is None as soon as one row that counts has none."""
    names = sorted({text or DEFAULTS["account"] for text in texts})
    place = {name: code for code, name in enumerate(names)}
    codes = np.array([place[text or DEFAULTS["account"]] for text in texts], np.int32)[codes] if len(codes) else codes
    counting = ~zeros
    rows = np.bincount(codes[counting], minlength=len(names)).tolist()
    sums = {metric: csvnumbers.sums(array, codes, len(names)) for metric, array in numbers.items()}
    absent = numbers[MAY_BE_ABSENT]
    if absent.null_count:
        lacking = absent.is_null().to_numpy(zero_copy_only=False) & counting
        for code in np.unique(codes[lacking]).tolist():
            sums[MAY_BE_ABSENT][code] = None
    return {
        name: Totals(rows[code], *(sums[metric][code] for metric in METRICS))  # type: ignore[arg-type]
        for code, name in enumerate(names)
        if rows[code]
    }


def _added(parts: Sequence[Totals]) -> Totals:
    def of(metric: str) -> Decimal | None:
        values = [part.of(metric) for part in parts]
        present = [value for value in values if value is not None]
        return amounts.total(present) if len(present) == len(values) else None

    return Totals(sum(part.rows for part in parts), *(of(metric) for metric in METRICS))  # type: ignore[arg-type]


# --- the coverage sidecar -----------------------------------------------------------------------------------------


def sidecar(data: bytes, sha256: str) -> tuple[frozenset[str], frozenset[str]] | None:
    """Accounts that `coverage/YYYY-MM-DD.json` covers, and those that failed; None when it is about other bytes.

    `covered_accounts` and `failed_accounts` are names too; without either, none failed. Raises Quarantined.
    """
    try:
        found = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise _unreadable(f"it is not JSON ({str(error)[:80]})", getattr(error, "lineno", None)) from None
    if not isinstance(found, dict) or not isinstance(found.get("sha256"), str):
        raise _unreadable('it has no text "sha256"')
    if found["sha256"].lower() != sha256.lower():
        return None
    covered, failed = _accounts(found, "covered"), _accounts(found, "failed")
    if covered is None:
        raise _unreadable('it has no list "covered"')
    return covered, failed or frozenset()


def _accounts(found: Mapping[str, Any], name: str) -> frozenset[str] | None:
    values = found.get(name, found.get(f"{name}_accounts"))
    if values is None:
        return None
    if not isinstance(values, list) or not all(isinstance(value, str) for value in values):
        raise _unreadable(f'"{name}" is not a list of texts (an account number must be quoted to keep its zeros)')
    return frozenset(value or DEFAULTS["account"] for value in values)


def _unreadable(what: str, line: int | None = None) -> Quarantined:
    message = f"The coverage file beside it cannot be used: {what}. Mend or remove it, then ingest again."
    return Quarantined(Reason("coverage_unreadable", message, line))
