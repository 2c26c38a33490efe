"""Inputs with a name (notes of the reliability work, §5), what becomes of each, and generated ones against an oracle.

The oracle shares no code with the product: characters one by one, Python's decimals, no tables. A verdict is the
reason code, or the exact rows taken.
"""

from __future__ import annotations

import gzip
import io
import json
import re
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import date
from decimal import Context, Decimal
from functools import reduce
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from app.core import dailycsv
from app.core.charges import DIMENSIONS, METRICS
from app.core.dailycsv import Limits, ParsedDay, parse
from app.errors import Quarantined
from app.spool import spool

DAY = date(2026, 10, 1)
TODAY = date(2026, 10, 3)
LIMITS = Limits(bytes=2**24, rows=50, series=40)
ROOT = Path(__file__).parent.parent.parent

HEADER = "account,service,region,amortized_cost,blended_cost,unblended_cost,usage_quantity"
ROW = "a,EC2,us-east-1,1.5,1.25,1,3"
TAKEN = ("aws", "a", "EC2", "us-east-1", "unknown", "1.5", "1.25", "1", "3")

Row = tuple[str | None, ...]
Verdict = str | list[Row]


def verdict(data: bytes, key: str = "2026-10-01.csv", day: date = DAY, limits: Limits = LIMITS) -> Verdict:
    """Through the spool and the parser, as ingest does it."""
    try:
        with spool(io.BytesIO(data), key, limits.bytes) as found:
            return rows(parse(found.path, day=day, currency="USD", today=TODAY, limits=limits))
    except Quarantined as error:
        reason = error.reason
        assert reason.message
        assert reason.line is None or reason.line >= 1
        assert reason.value is None or (len(reason.value) <= 80 and reason.value.isprintable())
        return reason.code


def rows(parsed: ParsedDay) -> list[Row]:
    names = (*DIMENSIONS, *METRICS)
    return [
        tuple(plain(row[name]) if name in METRICS else row[name] for name in names) for row in parsed.table.to_pylist()
    ]


def plain(value: Decimal | None) -> str | None:
    if value is None:
        return None
    text = format(value, "f")
    return (text.rstrip("0").rstrip(".") if "." in text else text) if value else "0"


def text(*lines: str, header: str = HEADER) -> bytes:
    return "".join(line + "\n" for line in (header, *lines)).encode()


def cost(value: str) -> bytes:
    """A good row, and one with this as its cost."""
    return text(ROW, f"b,S3,us-east-1,{value},1,1,1")


def taken(**changes: str | None) -> Row:
    names = (*DIMENSIONS, *METRICS)
    return tuple(changes.get(name, value) for name, value in zip(names, TAKEN, strict=True))


def with_column(name: str, *values: str) -> bytes:
    lines = [f"{value},{i}{ROW}" for i, value in enumerate(values)]
    return text(*lines, header=f"{name},{HEADER}")


def archive(name: str) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as file:
        file.writestr(name, text(ROW))
    return out.getvalue()


def damaged(raw: bytes, at: int) -> bytes:
    raw = bytearray(raw)
    raw[at] ^= 1
    return bytes(raw)


@dataclass(frozen=True)
class Input:
    name: str
    data: bytes
    expected: Verdict
    key: str = "2026-10-01.csv"
    day: date = DAY


GZ = "2026-10-01.csv.gz"
LONG = ",".join([HEADER, *(f"x{i}" for i in range(4_993))])

REFUSED = [
    Input("empty", b"", "empty"),
    Input("empty gzip member", gzip.compress(b""), "empty", key=GZ),
    Input("NUL bytes", text(ROW, "b,S\0,r,1,1,1,1"), "encoding"),
    Input("UTF-16LE without BOM", text(ROW).decode().encode("utf-16-le"), "encoding"),
    Input("UTF-16BE without BOM", text(ROW).decode().encode("utf-16-be"), "encoding"),
    Input("UTF-16 cut in a character", text(ROW).decode().encode("utf-16")[:-1], "encoding"),
    Input("invalid UTF-8", text(ROW) + b"b,\xff\xfe,r,1,1,1,1\n", "encoding"),
    Input(
        "invalid UTF-8 in an ignored column", with_column("note", "x") + b"\xc3(,b" + ROW.encode() + b"\n", "encoding"
    ),
    Input("overlong UTF-8", text(ROW) + b"b,\xc0\xaf,r,1,1,1,1\n", "encoding"),
    Input("Latin-1", text("b,Sé,r,1,1,1,1").decode().encode("latin-1"), "encoding"),
    Input("PNG", b"\x89PNG\r\n\x1a\n" + bytes(100), "not_csv"),
    Input("ZIP", archive("2026-10-01.csv"), "not_csv"),
    Input("XLSX", archive("xl/workbook.xml"), "not_csv"),
    Input("PDF", b"%PDF-1.7\n%\xe2\xe3\n", "not_csv"),
    Input("HTML page", b"\n<!DOCTYPE html>\n<html><body>503 Slow Down</body></html>\n", "not_csv"),
    Input("XML", b'<?xml version="1.0"?>\n<Error><Code>AccessDenied</Code></Error>\n', "not_csv"),
    Input("JSON", b'{"message": "Internal error"}\n', "not_csv"),
    Input("JSON list", b'[{"service": "EC2"}]\n', "not_csv"),
    Input("semicolon dialect", text(ROW).replace(b",", b";"), "dialect"),
    Input("tab dialect", text(ROW).replace(b",", b"\t"), "dialect"),
    Input("truncated mid row", text(ROW, ROW.replace("a", "b"))[:-12], "truncated"),
    Input("truncated mid number", text(ROW, "b,S,r,1,1,1,1234.56")[:-4], "truncated"),
    Input("truncated before the final line break", text(ROW)[:-1], "truncated"),
    Input("truncated in quote", text(ROW, 'b,"Amazon EC2, other\n'), "truncated"),
    Input("truncated in a header", HEADER[:30].encode(), "truncated"),
    Input("row with extra field", text(ROW, "b,S,r,1,1,1,1,1"), "row_length"),
    Input("row with missing field", text(ROW, "b,S,r,1,1,1"), "row_length"),
    Input("row of blanks", text(ROW, "  "), "row_length"),
    Input("all rows one field more", text(ROW + ",", ROW.replace("a", "b", 1) + ","), "row_length"),
    Input("quote closed in the next row", text('a,"EC2,r,1,1,1,1', 'b",S,r,5,5,5,5'), "row_length"),
    Input("quote lost at the end of a cell", text('"a,S,r,1,1,1,1', '"b",S,r,5,5,5,5'), "quoting"),
    Input("missing required column", text(ROW, header=HEADER.replace("region", "area")), "missing_column"),
    Input("no header", text(ROW.replace("a", "b", 1), header=ROW), "missing_column"),
    Input("duplicate column", text(ROW, header=HEADER.replace("account", "service")), "duplicate_column"),
    Input("case-variant duplicate column", text(ROW, header=HEADER.replace("account", "Region")), "duplicate_column"),
    Input("account and account_id", with_column("account_id", "1"), "duplicate_column"),
    Input("NaN", cost("NaN"), "not_a_number"),
    Input("empty cost", cost(""), "empty_amount"),
    Input("inf", cost("inf"), "not_a_number"),
    Input("-Infinity", cost("-Infinity"), "not_a_number"),
    Input("1e300", cost("1e300"), "too_large_amount"),
    Input("1e400", cost("1e400"), "too_large_amount"),
    Input("cost over 1e12", cost("1000000000000.01"), "too_large_amount"),
    Input("cost under -1e12", cost("-1e13"), "too_large_amount"),
    Input("cost that wraps around 128 bits", cost("5e18"), "too_large_amount"),
    Input("exponent far below", cost("1e-2147483600"), "not_a_number"),
    Input("21 decimals", cost("0.000000000000000000001"), "too_many_decimals"),
    Input("hex", cost("0x10"), "not_a_number"),
    Input("underscore", cost("1_000"), "not_a_number"),
    Input("Arabic digits", cost("\u0661\u0662"), "not_a_number"),
    Input("full-width digits", cost("\uff11"), "not_a_number"),
    Input("currency sign", cost("$5"), "not_a_number"),
    Input("thousands separators", cost('"1,234.50"'), "not_a_number"),
    Input("thousands separators, not quoted", cost("1,234.50"), "row_length"),
    Input("decimal comma", cost('"1234,50"'), "not_a_number"),
    Input("mixed currencies", with_column("currency", "USD", "EUR"), "wrong_currency"),
    Input("another currency", with_column("currency", "EUR"), "wrong_currency"),
    Input("unknown currency", with_column("currency", "usd"), "wrong_currency"),
    Input("2026-02-30", with_column("date", "2026-02-30"), "wrong_date"),
    Input("mixed date orders", with_column("date", "2026-10-01", "01/10/2026"), "wrong_date"),
    Input("date-times", with_column("date", "2026-10-01", "2026-10-01T00:00:00+02:00"), "wrong_date"),
    Input("naive date-time", with_column("date", "2026-10-01 00:00:00"), "wrong_date"),
    Input("year 0001", text(ROW), "wrong_date", day=date(1, 1, 1)),
    Input("year 9999", text(ROW), "future_date", day=date(9999, 12, 31)),
    Input("year 0001 in a row", with_column("date", "0001-01-01"), "wrong_date"),
    Input("more than 48 hours ahead", text(ROW), "future_date", day=date(2026, 10, 6)),
    Input("a date outside the file's day", with_column("date", "2026-10-01", "2026-10-02"), "wrong_date"),
    Input("a flag that is none", with_column("estimated", "maybe"), "not_a_flag"),
    Input("one key with different amounts", text(ROW, ROW + "1"), "repeated_key"),
    Input("exact duplicate lines", text(ROW, ROW), "repeated_key"),
    Input("field over 64 KiB", text("a" * 65_537 + ROW), "field_too_long"),
    Input("field over 64 KiB, ignored", with_column("note", "é" * 32_769), "field_too_long"),
    Input("more than 5,000 columns", text(ROW + "," * 4_994, header=LONG + ",y"), "too_many_columns"),
    Input("more than the limit of rows", text(*(f"{i}{ROW}" for i in range(51))), "too_many_rows"),
    Input("more than the limit of values", text(*(f"{i}{ROW}" for i in range(41))), "cardinality"),
    Input("gzip with bad CRC", damaged(gzip.compress(text(ROW)), -8), "gzip_corrupt", key=GZ),
    Input("gzip truncated", gzip.compress(text(ROW))[:-9], "gzip_truncated", key=GZ),
    Input("nested gzip", gzip.compress(gzip.compress(text(ROW))), "not_csv", key=GZ),
    Input("ZIP named .gz", archive("2026-10-01.csv"), "not_gzip", key=GZ),
    Input("wrong extension: gzip named .csv", gzip.compress(text(ROW)), "not_csv"),
    Input("wrong extension: CSV named .gz", text(ROW), "not_gzip", key=GZ),
]

ACCEPTED = [
    Input("only header", text(), []),
    Input("only header, twice compressed members", gzip.compress(text()) + gzip.compress(b""), [], key=GZ),
    Input("UTF-8 BOM", b"\xef\xbb\xbf" + text(ROW), [TAKEN]),
    Input("UTF-16 with BOM", text(ROW).decode().encode("utf-16"), [TAKEN]),
    Input("CRLF", text(ROW).replace(b"\n", b"\r\n"), [TAKEN]),
    Input("CR only", text(ROW).replace(b"\n", b"\r"), [TAKEN]),
    Input("gzip", gzip.compress(text(ROW)), [TAKEN], key=GZ),
    Input("gzip of two members", gzip.compress(text()) + gzip.compress(ROW.encode() + b"\n"), [TAKEN], key=GZ),
    Input(
        "reordered columns",
        text(",".join(ROW.split(",")[::-1]), header=",".join(HEADER.split(",")[::-1])),
        [TAKEN],
    ),
    Input("5,000 columns", text(ROW + "," * 4_993, header=LONG), [TAKEN]),
    Input("extra unknown columns", with_column("note", "x"), [taken(account="0a")]),
    Input("unknown unit", with_column("usage_unit", "parsecs"), [taken(account="0a")]),
    Input("currency missing", with_column("currency", "", "USD"), [taken(account="0a"), taken(account="1a")]),
    Input("date missing in a row", with_column("date", "", "2026-10-01"), [taken(account="0a"), taken(account="1a")]),
    Input("exactly 48 hours ahead", text(ROW), [TAKEN], day=date(2026, 10, 5)),
    Input("negative", text("a,EC2,us-east-1,-1.5,1.25,1,3"), [taken(amortized_cost="-1.5")]),
    Input("-0", text("a,EC2,us-east-1,-0,1.25,1,3"), [taken(amortized_cost="0")]),
    Input("10 decimals", text("a,EC2,us-east-1,0.0000000001,1.25,1,3"), [taken(amortized_cost="0.0000000001")]),
    Input("1E-10", text("a,EC2,us-east-1,1E-10,1.25,1,3"), [taken(amortized_cost="0.0000000001")]),
    Input("1e12", text("a,EC2,us-east-1,1e12,1.25,1,3"), [taken(amortized_cost="1000000000000")]),
    Input("blanks around a number", text("a,EC2,us-east-1, 1.5\t,1.25,1,3"), [TAKEN]),
    Input("blended cost not available", text("a,EC2,us-east-1,1.5,,1,3"), [taken(blended_cost=None)]),
    Input("all-zero row", text(ROW, "b,S,r,0,0,0,-0.00"), [TAKEN]),
    Input("field of 64 KiB", text("a" * 65_535 + ROW), [taken(account="a" * 65_536)]),
    Input("quoted newline", text(ROW.replace("EC2", '"E\r\n\nC"')), [taken(service="E\r\n\nC")]),
    Input("quoted comma", text(ROW.replace("EC2", '"E,C"')), [taken(service="E,C")]),
    Input("quoted quote", text(ROW.replace("EC2", '"""E""C"""')), [taken(service='"E"C"')]),
    Input("leading zeros", text("0012" + ROW), [taken(account="0012a")]),
    *(
        Input(f"service {name!r}", text(ROW.replace("EC2", name)), [taken(service=name)])
        for name in ("NA", "None", "null", "NULL", "nan", "#N/A", "true", "1", "=cmd|'/C calc'!A1", "@SUM(1)")
    ),
    Input("RTL, zero-width, emoji", text(ROW.replace("EC2", "\u202eא\u200b😀")), [taken(service="\u202eא\u200b😀")]),
    Input("control characters", text(ROW.replace("EC2", "\x01\x1b[31m\x7f")), [taken(service="\x01\x1b[31m\x7f")]),
]


@pytest.mark.parametrize("given", [*REFUSED, *ACCEPTED], ids=lambda given: given.name)
def test_an_input_with_a_name(given: Input) -> None:
    assert verdict(given.data, given.key, given.day) == given.expected


def test_names_are_told_apart() -> None:
    names = [given.name for given in (*REFUSED, *ACCEPTED)]
    assert len(set(names)) == len(names)
    assert all(isinstance(given.expected, str) for given in REFUSED)
    assert all(isinstance(given.expected, list) for given in ACCEPTED)


# --- large ones ---------------------------------------------------------------------------------------------------


def gzip_of_zeros() -> Iterator[bytes]:
    """1 GiB in 1 MB: the stream itself is sound but for its end, which nobody should reach."""
    import zlib

    packer, block = zlib.compressobj(9, zlib.DEFLATED, 31), bytes(2**20)
    yield packer.compress(block) + packer.flush(zlib.Z_FULL_FLUSH)
    again = packer.compress(block) + packer.flush(zlib.Z_FULL_FLUSH)
    for _ in range(1023):
        yield again


def two_members() -> Iterator[bytes]:
    yield gzip.compress(text(ROW))
    yield from gzip_of_zeros()


def zipped_rows() -> Iterator[bytes]:
    """Rows that only the limit of bytes can stop: 300 MB that shrink no more than text does."""
    import zlib

    packer = zlib.compressobj(1, zlib.DEFLATED, 31)
    block = "".join(f"{i * 7919 % 100_003},Amazon EC2 {i},us-east-1,0.{i},1,1,1\n" for i in range(25_000)).encode()
    yield packer.compress(text()) + packer.flush(zlib.Z_FULL_FLUSH)
    again = packer.compress(block) + packer.flush(zlib.Z_FULL_FLUSH)
    for _ in range(300_000_000 // len(block)):
        yield again


def quoted_field() -> Iterator[bytes]:
    yield text(ROW) + b'b,"'
    for _ in range(100):
        yield b"x" * 2**20
    yield b'",r,1,1,1,1\n'


def quoted_lines() -> Iterator[bytes]:
    """A quote that is never closed: all that follows is one cell."""
    yield text(ROW) + b'b,"S\n'
    for _ in range(100):
        yield b"a,S,r,1,1,1,1\n" * 74_898


def blank_lines() -> Iterator[bytes]:
    yield text(ROW)
    for _ in range(100):
        yield b"\n" * 2**20


def many_rows() -> Iterator[bytes]:
    yield text()
    for _ in range(21):
        yield b"a,S,r,1,1,1,1\n" * 100_000


def many_values() -> Iterator[bytes]:
    yield text()
    for block in range(21):
        yield "".join(f"{block * 10_000 + i},S,r,1,1,1,1\n" for i in range(10_000)).encode()


def wide_rows() -> Iterator[bytes]:
    yield text(header=LONG)
    row = ROW + ("," + "x" * 20) * 4_993 + "\n"
    for i in range(300):
        yield f"{i}{row}".encode()


def utf_16() -> Iterator[bytes]:
    yield "\ufeff".encode("utf-16-le") + text().decode().encode("utf-16-le")
    row = "".join(f"{i}漢字,S,r,1,1,1,1\n" for i in range(1000)).encode("utf-16-le")
    for _ in range(2500):
        yield row


def slow_numbers() -> Iterator[bytes]:
    """Exponents that Arrow is not trusted with, in every piece: the careful way through all of them."""
    yield text()
    for block in range(20):
        yield "".join(f"{block}x{i},S,r,1e5,2E+3,1e0,1e1\n" for i in range(10_000)).encode()


def binary() -> Iterator[bytes]:
    for i in range(100):
        yield bytes(range(1 + i % 3, 256)) * 4096


@dataclass(frozen=True)
class Large:
    data: Callable[[], Iterator[bytes]]
    expected: str
    key: str = "2026-10-01.csv"


LARGE = {
    "gzip bomb (1 GiB in 1 MB)": Large(gzip_of_zeros, "too_large", GZ),
    "2-member gzip bomb": Large(two_members, "too_large", GZ),
    "300 MB of rows in gzip": Large(zipped_rows, "too_large", GZ),
    "quoted 100 MB field": Large(quoted_field, "field_too_long"),
    "a quote never closed": Large(quoted_lines, "field_too_long"),
    "100 MB of blank lines": Large(blank_lines, "1 rows"),
    "more rows than the limit": Large(many_rows, "too_many_rows"),
    "more values than the limit": Large(many_values, "cardinality"),
    "5,000 columns of 20 letters": Large(wide_rows, "300 rows"),
    "UTF-16, 2.5 million rows": Large(utf_16, "too_many_rows"),
    "numbers that need care": Large(slow_numbers, "200000 rows"),
    "100 MB of bytes": Large(binary, "encoding"),
}

JUDGE = """
import json, sys
from datetime import date
from pathlib import Path
from app.core.dailycsv import Limits, parse
from app.errors import Quarantined
from app.spool import spool
limits = Limits(bytes=256 * 2**20, rows=2_000_000, series=200_000)
path, key = sys.argv[1:]
try:
    with Path(path).open("rb") as stream, spool(stream, key, limits.bytes) as spooled:
        day = parse(spooled.path, day=date(2026, 10, 1), currency="USD", today=date(2026, 10, 3), limits=limits)
        found = f"{day.totals.rows} rows"
except Quarantined as error:
    found = error.reason.code
# Not getrusage: its maximum is inherited from the process that forked this one.
status = Path("/proc/self/status").read_text()
print(json.dumps([found, int(status.partition("VmHWM:")[2].split()[0])]))
"""


@pytest.mark.slow
@pytest.mark.parametrize("name", LARGE)
def test_large_inputs_with_the_limits_of_production_stay_in_512_mebibytes(name: str, tmp_path: Path) -> None:
    """Each in a process of its own, as a worker forks for each job."""
    large, path = LARGE[name], tmp_path / "large"
    with path.open("wb") as file:
        file.writelines(large.data())
    shown = subprocess.run(
        [sys.executable, "-c", JUDGE, str(path), large.key], cwd=ROOT, capture_output=True, text=True, timeout=150
    )
    assert shown.returncode == 0, shown.stderr
    found, kibibytes = json.loads(shown.stdout)
    assert found == large.expected
    assert kibibytes <= 512 * 1024


# --- generated ones against an oracle -----------------------------------------------------------------------------

EXACT = Context(prec=200_000, Emax=10**9, Emin=-(10**9))
PLAIN = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?")


class Bad(Exception):
    pass


def cells_of(document: str) -> Iterator[list[str]]:
    """RFC 4180 by the letter; any line break ends a row, blank lines are nothing."""
    row: list[str] = []
    at = 0
    while at < len(document):
        if document[at] == '"':
            end = at + 1
            while document[end : end + 1] != '"' or document[end : end + 2] == '""':
                if end >= len(document):
                    raise Bad
                end += 2 if document[end] == '"' else 1
            cell, at = document[at + 1 : end].replace('""', '"'), end + 1
            quoted = True
        else:
            end = at
            while end < len(document) and document[end] not in ",\r\n":
                if document[end] == '"':
                    raise Bad
                end += 1
            cell, at, quoted = document[at:end], end, False
        if at == len(document) or document[at] not in ",\r\n":
            raise Bad
        row.append(cell)
        if document[at] != ",":
            if row != [""] or quoted:
                yield row
            row = []
        elif at + 1 == len(document):
            raise Bad
        elif document[at + 1] in "\r\n":
            row.append("")
            at += 1
            yield row
            row = []
        at += 1


def exact_number(cell: str, limit: int) -> Decimal:
    cell = cell.strip(" \t")
    if not PLAIN.fullmatch(cell):
        raise Bad
    if re.search(r"[eE][+-]?0*[0-9]{10,}$", cell):
        raise Bad  # An exponent of ten digits is no number here.
    value = EXACT.create_decimal(cell)
    if value == 0:
        return Decimal(0)
    if value.adjusted() > 20 or value.adjusted() < -20:
        raise Bad
    if EXACT.abs(value) > limit or value != EXACT.quantize(value, Decimal("1e-20")):
        raise Bad
    return value


def judged(data: bytes) -> list[Row] | None:
    """The rows a file stands for, sorted; None when it must be refused."""
    try:
        document = data.decode("utf-8")
        if "\0" in document:
            raise Bad
        document = document.removeprefix("\ufeff")
        if document.lstrip("\t\n\r\x0b\f ").startswith(("<", "{", "[", "%PDF", "PAR1", "BZh", "PK\3\4", "PK\5\6")):
            raise Bad
        found = list(cells_of(document))
        return judged_rows(found[0], found[1:]) if found else None
    except (UnicodeError, Bad):
        return None


def judged_rows(header: list[str], body: list[list[str]]) -> list[Row]:
    meant = ["account" if name.lower() == "account_id" else name.lower() for name in header if name]
    if len(set(meant)) != len(meant):
        raise Bad
    result: dict[Row, Row] = {}
    sums = dict.fromkeys(METRICS, Decimal(0))
    for cells in body:
        if len(cells) != len(header):
            raise Bad
        row = dict(zip(header, cells, strict=True))
        row.setdefault("account", row.get("account_id", ""))
        for name, allowed in {
            "date": ("", "2026-10-01"),
            "currency": ("", "USD"),
            "estimated": ("", "0", "1", "true", "false", "yes", "no"),
        }.items():
            if row.get(name, "").casefold() not in [each.casefold() for each in allowed]:
                raise Bad
            if name == "currency" and row.get(name, "") not in allowed:
                raise Bad
        defaults = {"provider": "aws", "account": "unknown", "service": "unknown", "region": "global"}
        key = tuple(row.get(name) or defaults.get(name, "unknown") for name in DIMENSIONS)
        values: dict[str, Decimal | None] = {}
        for name in METRICS:
            if name not in row:
                raise Bad
            limit = 10**14 if name == "usage_quantity" else 10**12
            absent = name == "blended_cost" and row[name] == ""
            values[name] = None if absent else exact_number(row[name], limit)
            sums[name] = EXACT.add(sums[name], EXACT.abs(values[name] or Decimal(0)))
        if key in result:
            raise Bad
        result[key] = (*key, *(plain(value) for value in values.values())) if any(values.values()) else ()
    if any(name not in header for name in (*METRICS, "service", "region")):
        raise Bad
    if max(sums.values()) > 10**14:
        raise Bad
    return sorted(row for row in result.values() if row)


NAMES = st.text(st.sampled_from(list("aB0 é😀\"\n\r,;'\t=\u200b")), max_size=6)
AMOUNTS = st.one_of(
    st.decimals(-(10**12), 10**12, allow_nan=False, places=10).map(str),
    st.decimals(-1, 1, allow_nan=False, places=20).map(str),
    st.sampled_from(["0", "-0", "1E-10", "+1", ".5", "5.", " 1 ", "0.00", "2.5e-7", "1e3", "12345678901.123456789"]),
)
COLUMNS = ("provider", "account", "service", "region", "charge_category", "date", "currency", "estimated", "note")


@st.composite
def files(draw: st.DrawFn) -> bytes:
    """Good files of any shape (now and then two rows share a key)."""
    optional = draw(
        st.lists(st.sampled_from([name for name in COLUMNS if name not in ("service", "region")]), unique=True)
    )
    header = draw(st.permutations([*METRICS, "service", "region", *optional]))
    ending = draw(st.sampled_from(["\n", "\r\n", "\r"]))
    lines = [header]
    for _ in range(draw(st.integers(0, 5))):
        row = {name: draw(NAMES) for name in COLUMNS} | {name: draw(AMOUNTS) for name in METRICS}
        row["date"] = draw(st.sampled_from(["", "2026-10-01"]))
        row["currency"] = draw(st.sampled_from(["", "USD"]))
        row["estimated"] = draw(st.sampled_from(["", "true", "False", "0", "1"]))
        if draw(st.integers(0, 5)) == 0:
            row["blended_cost"] = ""
        lines.append([row[name] for name in header])
    quote_all = draw(st.booleans())
    return "".join(",".join(quoted(cell, quote_all) for cell in line) + ending for line in lines).encode()


def quoted(cell: str, always: bool) -> str:
    if always or any(mark in cell for mark in '",\r\n'):
        return '"' + cell.replace('"', '""') + '"'
    return cell


BYTES = st.sampled_from(
    [bytes([byte]) for byte in b'",\n\r\t 0159eE+-._xaS\0\xc3\xff\xef<;\x0b'] + ["٣".encode(), b"\xef\xbb\xbf"]
)
EDITS = st.lists(
    st.tuples(st.integers(0, 10_000), st.sampled_from(["put", "over", "drop", "twice", "cut"]), BYTES), max_size=4
)


def edited(data: bytes, edits: list[tuple[int, str, bytes]]) -> bytes:
    for number, kind, new in edits:
        at = number % (len(data) + 1)
        if kind == "put":
            data = data[:at] + new + data[at:]
        elif kind == "over":
            data = data[:at] + new + data[at + 1 :]
        elif kind == "drop":
            data = data[:at] + data[at + 1 + number % 3 :]
        elif kind == "twice":
            data = data[: at + 20] + data[at:]
        elif number % 7 == 0:
            data = data[:at]
    return data


def product(data: bytes) -> list[Row] | None:
    try:
        found = parse(data, day=DAY, currency="USD", today=TODAY, limits=LIMITS)
    except Quarantined:
        return None
    taken_rows = rows(found)
    for metric, place in zip(METRICS, range(len(DIMENSIONS), len(DIMENSIONS) + 4), strict=True):
        values = [row[place] for row in taken_rows]
        total = found.totals.of(metric)
        assert (total is None) == (None in values)
        assert total is None or total == reduce(EXACT.add, (Decimal(value or 0) for value in values), Decimal(0))
    return sorted(taken_rows)


@pytest.mark.timeout(600)
@settings(max_examples=1400, deadline=None)
@given(files(), EDITS, st.sampled_from([2048, 2**23]))
@example(text(ROW), [], 2048)
@example(text('"a",S,r,1,1,1,1', 'b,"S",r,5,5,5,5'), [(len(HEADER) + 3, "drop", b"")], 2**23)
def test_a_changed_file_gets_the_verdict_of_an_independent_reader(
    data: bytes, edits: list[tuple[int, str, bytes]], piece: int
) -> None:
    data = edited(data, edits)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(dailycsv, "PIECE", piece)
        assert product(data) == judged(data)


NUMBERS = st.one_of(
    st.text(st.sampled_from(list("0123456789.eE+-")), max_size=12),
    st.from_regex(r"\A[+-]?[0-9]{0,25}(\.[0-9]{0,25})?([eE][+-]?[0-9]{1,3})?\Z"),
    st.from_regex(r"\A[0-9]{1,3}[eE]-?[0-9]{1,11}\Z"),
    st.integers(0, 2**128).map(str),
    st.integers(18, 40).flatmap(lambda power: st.integers(1, 99).map(lambda digit: f"{digit}e{power}")),
)


@settings(max_examples=300, deadline=None)
@given(st.lists(NUMBERS, min_size=1, max_size=4))
@example(["5e18"])
@example(["1e-2147483600"])
@example(["68766779594435257112257893384192"])
def test_numbers_get_the_verdict_of_pythons_decimals(numbers: list[str]) -> None:
    lines = [f"{i},S,r,{number},1,1,{number}" for i, number in enumerate(numbers)]
    data = text(*lines)
    assert product(data) == judged(data)


@settings(max_examples=300, deadline=None)
@given(st.one_of(st.binary(max_size=200), st.text(max_size=200).map(str.encode)))
def test_anything_at_all_gets_a_verdict(data: bytes) -> None:
    assert product(data) == judged(data)
    for start in (b"\xef\xbb\xbf", b"\xff\xfe", b"\xfe\xff", text()):
        found = verdict(start + data)
        assert isinstance(found, str) or start == text()
