"""What a daily CSV becomes: rules, defaults, exact sums, where a fault is said to be."""

from __future__ import annotations

import csv
import io
import json
import random
from datetime import date, timedelta
from decimal import Decimal
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.core import dailycsv
from app.core.charges import DIMENSIONS, METRICS, NOTHING, Totals
from app.core.columns import account_totals, columns_of, tidied, widened
from app.core.dailycsv import SCHEMA, Limits, ParsedDay, parse, safe, sidecar
from app.errors import Quarantined, Reason

DAY = date(2026, 10, 1)
TODAY = date(2026, 10, 3)
LIMITS = Limits(bytes=2**26, rows=100_000, series=50_000)
HEADER = "account,service,region,amortized_cost,blended_cost,unblended_cost,usage_quantity\n"


def parsed(text: str | bytes, *, day: date = DAY, currency: str = "USD", limits: Limits = LIMITS) -> ParsedDay:
    data = text if isinstance(text, bytes) else text.encode()
    return parse(data, day=day, currency=currency, today=TODAY, limits=limits)


def refused(text: str | bytes, **given: object) -> Reason:
    with pytest.raises(Quarantined) as caught:
        parsed(text, **given)  # type: ignore[arg-type]
    reason = caught.value.reason
    assert reason.value is None or len(reason.value) <= 80
    return reason


def place(reason: Reason) -> tuple[str, int | None, str | None, str | None]:
    return reason.code, reason.line, reason.column, reason.value


def one(text: str | bytes) -> dict[str, object]:
    (row,) = parsed(text).table.to_pylist()
    return row


# --- what is taken ------------------------------------------------------------------------------------------------


def test_a_file_becomes_sorted_charges_and_exact_totals(tmp_path: Path) -> None:
    path = tmp_path / "any name"
    path.write_text(
        HEADER + "b,EC2,us-east-1,0.1,0.1,0.1,1\n"
        "a,S3,eu-west-1,-0.00000000000000000001,1E-10,3,0.5\n"
        "b,EC2,eu-west-1,0.2,,999999999999.99999999999999999999,2\n"
    )
    day = parse(path, day=DAY, currency="USD", today=TODAY, limits=LIMITS)
    day.table.validate(full=True)
    assert widened(day.table).schema == SCHEMA
    assert [column.num_chunks for column in day.table.columns] == [1] * len(SCHEMA)
    keys = [tuple(row[name] for name in DIMENSIONS[1:4]) for row in day.table.to_pylist()]
    assert keys == [("a", "S3", "eu-west-1"), ("b", "EC2", "eu-west-1"), ("b", "EC2", "us-east-1")]
    assert day.accounts["a"] == Totals(1, Decimal("-1E-20"), Decimal("1E-10"), Decimal(3), Decimal("0.5"))
    assert day.accounts["b"] == Totals(
        2, Decimal("0.3"), None, Decimal("1000000000000.09999999999999999999"), Decimal(3)
    )
    assert day.totals == Totals(
        3, Decimal("0.29999999999999999999"), None, Decimal("1000000000003.09999999999999999999"), Decimal("3.5")
    )


def test_absent_columns_and_empty_cells_take_their_defaults() -> None:
    row = one("service,region,amortized_cost,blended_cost,unblended_cost,usage_quantity\n,,1,2,3,4\n")
    assert {name: row[name] for name in DIMENSIONS} == {
        "provider": "aws",
        "account": "unknown",
        "service": "unknown",
        "region": "global",
        "charge_category": "unknown",
    }
    assert (row["usage_unit"], row["estimated"]) == ("", False)
    full = "provider,account_id,charge_category,usage_unit,estimated,date,currency," + HEADER.partition(",")[2]
    assert one(full + ",,,,,,,,,1,2,3,4\n") == row
    row = one(full + "gcp,007,Usage,GB-Mo,true,2026-10-01,USD,S,r,1,2,3,4\n")
    assert list(row.values())[:5] == ["gcp", "007", "S", "r", "Usage"]
    assert (row["usage_unit"], row["estimated"]) == ("GB-Mo", True)


def test_an_empty_cell_and_the_default_written_out_are_one_key() -> None:
    assert refused(HEADER + ",S,,1,1,1,1\nunknown,S,global,1,1,1,1\n").code == "repeated_key"


def test_all_zero_rows_equal_no_row_but_are_checked() -> None:
    header = "estimated," + HEADER
    day = parsed(header + "1,a,S,r,0,0,-0,0.0\n,b,S,r,0,,0,0\n,c,S,r,0,0,0,1E-20\n0,d,S,r,1,1,1,1\n")
    assert set(day.accounts) == {"c", "d"}
    assert (day.totals.rows, day.zero_rows) == (2, 2)
    assert day.table["account"].chunk(0).dictionary.to_pylist() == ["c", "d"]
    assert day.estimated == {"a"}, "an account whose estimate is still zero is settling too"
    assert refused(header + ",a,S,r,0,0,0,0\n,a,S,r,0,0,0,0\n").code == "repeated_key"


def test_only_a_header_is_a_day_without_charges() -> None:
    day = parsed(HEADER)
    assert widened(day.table).schema == SCHEMA
    assert (day.table.num_rows, day.totals, day.accounts, day.estimated) == (0, NOTHING, {}, frozenset())


def test_other_columns_are_ignored_and_named() -> None:
    header = "note," + HEADER.replace("\n", ",,\n")
    assert parsed(header + '"x\ny",a,S,r,1,1,1,1,,\n').ignored_columns == ("note", "", "")


@pytest.mark.parametrize("flag", ["true", "TRUE", "True", "1", "yes"])
def test_ways_to_say_estimated(flag: str) -> None:
    assert parsed(f"estimated,{HEADER}{flag},a,S,r,1,1,1,1\nfalse,b,S,r,1,1,1,1\n").estimated == {"a"}


@pytest.mark.parametrize(
    ("written", "value"),
    [
        ("+5", "5"),
        (".5", "0.5"),
        ("5.", "5"),
        (" 1.5\t", "1.5"),
        ("-0", "0"),
        ("1e5", "100000"),
        ("1E+05", "100000"),
        ("1E-0000000010", "1E-10"),
        ("12345678901e1", "123456789010"),
        ("1." + "0" * 60, "1"),
        ("0" * 60_000 + "7", "7"),
        ("0." + "0" * 19 + "1" + "0" * 40, "1E-20"),
        ("0e999999999", "0"),
        ("0e-999999999", "0"),
        ("100000000000000000000000000e-20", "1000000"),
        ("1000000000000", "1E12"),
        ("-1000000000000.00000000000000000000", "-1E12"),
    ],
)
def test_numbers_are_taken_exactly(written: str, value: str) -> None:
    assert one(f"{HEADER}a,S,r,{written},1,1,1\n")["amortized_cost"] == Decimal(value)


@pytest.mark.parametrize(
    ("written", "code"),
    [
        # Arrow alone makes 1597176330790615365.36… of it, without an error.
        ("5e18", "too_large_amount"),
        ("5000000000000000000", "too_large_amount"),
        # Arrow alone makes 684.2… of it: 10²⁰ times this is a small number modulo 2¹²⁸.
        (str(pow(5**20, -1, 2**108) * 10**16 % 2**108), "too_large_amount"),
        # These end the process in Arrow alone.
        ("1e-2147483600", "not_a_number"),
        ("0e-2147483600", "not_a_number"),
        ("1e-999999999", "too_many_decimals"),
        ("1e999999999", "too_large_amount"),
        ("1e-21", "too_many_decimals"),
        ("0." + "1" * 21, "too_many_decimals"),
        ("1" * 60_000, "too_large_amount"),
        ("1000000000000.00000000000000000001", "too_large_amount"),
        ("1e99999999999999999999", "not_a_number"),
        ("", "empty_amount"),
        (" ", "not_a_number"),
        (".", "not_a_number"),
        ("e5", "not_a_number"),
        ("+-1", "not_a_number"),
        ("1 2", "not_a_number"),
        ('"1\n"', "not_a_number"),
        ("\u00a01", "not_a_number"),
        ("1\x0b", "not_a_number"),
        ("\u2212\u0031", "not_a_number"),
    ],
)
def test_what_is_no_exact_amount_is_refused(written: str, code: str) -> None:
    good = "".join(f"a{i},S,r,1,1,1,1\n" for i in range(5))
    reason = refused(f"{HEADER}{good}x,S,r,{written},1,1,1\n{good.replace('a', 'b')}")
    assert place(reason)[:3] == (code, 7, "amortized_cost")


def test_usage_may_be_larger_than_a_cost_but_not_without_end() -> None:
    assert one(HEADER + "a,S,r,1,1,1,5e13\n")["usage_quantity"] == Decimal("5E13")
    assert place(refused(HEADER + "a,S,r,1,1,1,2e14\n")) == ("too_large_amount", 2, "usage_quantity", "2e14")


def test_a_column_must_not_add_up_to_what_integers_cannot_hold() -> None:
    rows = "".join(f"a{i},S,r,{'-' * (i % 2)}1e12,1,1,1\n" for i in range(101))
    assert place(refused(HEADER + rows)) == ("too_large_amount", None, "amortized_cost", None)
    assert parsed(HEADER + "".join(rows.splitlines(True)[:99])).totals.amortized_cost == Decimal("1E12")


# --- what the text may look like ----------------------------------------------------------------------------------


TEXT = "a,S,r,1,2,3,4\n"


@pytest.mark.parametrize("ending", ["\n", "\r\n", "\r"])
def test_any_line_ending(ending: str) -> None:
    text = (HEADER + TEXT + "b" + TEXT[1:]).replace("\n", ending)
    assert set(parsed(text).accounts) == {"a", "b"}
    reason = refused(text + f"c,S,r,1,2,3,x{ending}")
    assert place(reason) == ("not_a_number", 4, "usage_quantity", "x")


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_encodings_with_their_marks(encoding: str) -> None:
    text = HEADER + "ä€😀,S,r,1,2,3,4\n"
    assert set(parsed(text.encode(encoding)).accounts) == {"ä€😀"}
    assert refused((text + "b,S,r,1,2,3,\n").encode(encoding)).line == 3
    assert parsed("\ufeff".encode("utf-16-be") + text.encode("utf-16-be")).totals.rows == 1


def test_text_is_kept_as_it_is() -> None:
    names = [
        " x ",
        "NA",
        "null",
        "0012",
        'a"b',
        "a,b",
        "a\nb",
        "a\r\nb",
        "\ufeffx",
        "‮x​",
        "=cmd|'/c'!A1",
        "\t",
        "\x01",
        "''",
    ]
    out = io.StringIO(newline="")
    writer = csv.writer(out, lineterminator="\n")
    for name in names:
        writer.writerow([name, "S", "r", 1, 1, 1, 1])
    day = parsed(HEADER + out.getvalue())
    assert list(day.accounts) == sorted(names)


def test_a_text_that_starts_with_a_mark_keeps_it_where_a_piece_starts() -> None:
    # The first row after the header is where a piece starts; Arrow drops a mark it meets first.
    assert set(parsed(HEADER + "\ufeffa,S,r,1,1,1,1\n").accounts) == {"\ufeffa"}


def test_blank_lines_count_as_lines_only() -> None:
    text = "\n" + HEADER + "\n\na,S,r,1,1,1,1\n\n\nb,S,r,1,1,1,no\n\n"
    assert place(refused(text)) == ("not_a_number", 8, "usage_quantity", "no")
    assert parsed(text.replace("no", "2")).totals.rows == 2


def test_lines_inside_quotes_count_too() -> None:
    text = HEADER + '"a\n\n\nb",S,r,1,1,1,1\nc,S,r,1,1,1,1\nc,"S",r,2,1,1,1\n'
    reason = refused(text)
    assert (reason.code, reason.line, reason.value) == ("repeated_key", 7, "aws, c, S, r, unknown")
    assert "line 6 " in reason.message


@pytest.mark.parametrize(
    ("rows", "line", "value"),
    [
        # A reader that is lenient takes these as one row: the second is swallowed, its money lost.
        ('"a,S,r,1,1,1,1\n"b",S,r,5,5,5,5\n', 3, '"b",S,r,5,5,5,5\\n'),
        ('a,S,r,1,1,1,1\nb"c,S,r,1,1,1,1\n', 3, 'b"c,S,r,1,1,1,1\\n'),
        ('"a"b,S,r,1,1,1,1\n', 2, '"a"b,S,r,1,1,1,1\\n'),
        ('"a" ,S,r,1,1,1,1\n', 2, '"a" ,S,r,1,1,1,1\\n'),
        ('a, "S",r,1,1,1,1\n', 2, 'a, "S",r,1,1,1,1\\n'),
    ],
)
def test_quotes_are_where_rfc_4180_has_them(rows: str, line: int, value: str) -> None:
    assert place(refused(HEADER + rows)) == ("quoting", line, None, value)


def test_the_first_faulty_row_is_named_whatever_the_column() -> None:
    text = "currency," + HEADER + "USD,a,S,r,1,1,1,1\nEUR,b,S,r,1,1,1,1\nUSD,c,S,r,x,1,1,1\n"
    assert place(refused(text)) == ("wrong_currency", 3, "currency", "EUR")
    assert place(refused(text.replace("a,S,r,1,", "a,S,r,y,"))) == ("not_a_number", 2, "amortized_cost", "y")


def test_a_fault_before_the_cut_is_named_rather_than_the_cut() -> None:
    assert refused(HEADER + "a,S,r,x,1,1,1\nb,S,r,1,1,1,").code == "not_a_number"
    assert place(refused(HEADER + TEXT + "b,S,r,1,1,1,12")) == ("truncated", 3, None, "b,S,r,1,1,1,12")
    assert "inside a quoted cell" in refused(HEADER + TEXT + '"b\n').message
    assert refused((HEADER + "é").encode()[:-1]).code == "truncated"


def test_wrong_headers_say_what_helps() -> None:
    assert "'Region'" in refused(HEADER.replace("region", "Region")).message
    assert place(refused(HEADER.replace("region", "area")))[:3] == ("missing_column", 1, "region")
    assert place(refused("account_id," + HEADER))[:3] == ("duplicate_column", 1, "account")
    assert place(refused("Service," + HEADER))[:3] == ("duplicate_column", 1, "service")
    assert place(refused(HEADER.replace(",", "|")))[:2] == ("dialect", 1)


@pytest.mark.parametrize("text", [b"", b"\n", b" \n \n", b"\xef\xbb\xbf", "\ufeff".encode("utf-16-le")])
def test_nothing_is_empty(text: bytes) -> None:
    assert refused(text).code == "empty"


def test_days_that_cannot_be() -> None:
    assert parsed(HEADER, day=TODAY + timedelta(days=2)).totals == NOTHING
    assert refused(HEADER, day=TODAY + timedelta(days=3)).code == "future_date"
    assert refused(HEADER, day=date(1999, 12, 31)).code == "wrong_date"


def test_limits() -> None:
    rows = "".join(f"a{i},S,r,1,1,1,1\n" for i in range(10))
    exact = Limits(bytes=len(HEADER + rows), rows=10, series=10, columns=7, field=len("amortized_cost"))
    assert parsed(HEADER + rows, limits=exact).totals.rows == 10
    for name, code in {
        "bytes": "too_large",
        "rows": "too_many_rows",
        "series": "cardinality",
        "columns": "too_many_columns",
        "field": "field_too_long",
    }.items():
        tighter = Limits(**{**vars(exact), name: getattr(exact, name) - 1})
        assert refused(HEADER + rows, limits=tighter).code == code


@pytest.mark.parametrize("column", ["account", "note", "amortized_cost"])
def test_a_long_cell_is_found_in_every_kind_of_column(column: str) -> None:
    cells = dict.fromkeys(("note", *HEADER.strip().split(",")), "1") | {column: "0" * 70_000}
    text = ",".join(cells) + "\n" + ",".join("2" for _ in cells) + "\n" + ",".join(cells.values()) + "\n"
    assert place(refused(text))[:3] == ("field_too_long", 3, column)


# --- pieces -------------------------------------------------------------------------------------------------------


def rows_of(count: int, ending: str, seed: int = 1) -> str:
    """Rows with quotes, line breaks in cells and blank lines, in no order."""
    draw = random.Random(seed)
    out = io.StringIO(newline="")
    writer = csv.writer(out, lineterminator=ending)
    for i in draw.sample(range(count), count):
        name = draw.choice(["x", 'q"', "a,b", f"l{ending}m", '""', "ü€"])
        writer.writerow([f"{i % 7}{name}", f"S{i}", "r", f"{i}.5", draw.choice(["", "1"]), 1, 1])
        if draw.random() < 0.1:
            out.write(ending)
    return HEADER.replace("\n", ending) + out.getvalue()


@pytest.mark.parametrize("ending", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("size", [97, 128, 193, 1024])
def test_the_size_of_the_pieces_changes_nothing(ending: str, size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    text = rows_of(300, ending)
    whole = parsed(text)
    broken = text + f"x,S,r,1,1,1,1{ending}y,S,r,1,1,1,no{ending}z,S,r,1,1,1,1{ending}"
    twice = text + f"x,S,r,1,1,1,1{ending}{ending}x,S,r,2,1,1,1{ending}"
    fault, repeated = refused(broken), refused(twice)
    monkeypatch.setattr(dailycsv, "PIECE", size)
    assert parsed(text) == whole
    assert refused(broken) == fault
    assert refused(twice) == repeated
    assert whole.totals.rows == 300


def test_the_line_of_a_fault_is_what_an_editor_shows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dailycsv, "PIECE", 200)
    text = rows_of(200, "\n") + "bad,S,r,1,1,1,no\n" + rows_of(50, "\n", 2).partition("\n")[2]
    line = refused(text).line
    assert line is not None
    assert text.split("\n")[line - 1] == "bad,S,r,1,1,1,no"


def test_a_row_without_end_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dailycsv, "PIECE", 4096)
    assert place(refused(HEADER + TEXT + '"' + "x\n" * 5000 + '"'))[:2] == ("row_too_long", 3)
    limits = Limits(bytes=2**20, rows=10, series=10, field=1000)
    assert place(refused(HEADER + TEXT + '"' + "x\n" * 5000, limits=limits))[:2] == ("field_too_long", 3)


# --- against the rest of the project ------------------------------------------------------------------------------


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_the_table_is_in_the_stores_canonical_form(data: st.DataObject) -> None:
    names = st.sampled_from(["", "a", "b", "é", "zz", "A"])
    amount = st.sampled_from(["0", "-1.5", "0.00000000000000000001", "12345.678", "7e-15", "-0.0"])
    keys = data.draw(st.lists(st.tuples(names, names, names, names), max_size=30))
    lines, seen = [], set()
    for provider, account, service, region in keys:
        key = (provider or "aws", account or "unknown", service or "unknown", region or "global")
        if key not in seen:
            seen.add(key)
            cells = [data.draw(amount), data.draw(amount | st.just("")), data.draw(amount), data.draw(amount)]
            lines.append(",".join((provider, account, service, region, *cells)) + "\n")
    day = parsed("provider," + HEADER + "".join(lines))
    assert tidied(day.table).equals(day.table)
    assert account_totals(columns_of(DAY, day.table)) == day.accounts
    assert day.totals.rows + day.zero_rows == len(lines)


def test_very_many_values_in_every_column_still_sort_and_tell_repeats() -> None:
    # Five columns of n values each have more combinations than 63 bits from n = 6,200 on.
    count = 6_500
    header = "provider,charge_category," + HEADER
    lines = [f"p{i},c{-i % count},a{i * 7 % count},s{i},r{i},{i},1,1,1\n" for i in range(count)]
    random.Random(3).shuffle(lines)
    day = parsed(header + "".join(lines))
    assert day.totals.amortized_cost == sum(range(count))
    providers = day.table["provider"].cast(pa.string()).to_pylist()
    assert providers == sorted(providers)
    reason = refused(header + "".join([*lines, lines[10]]))
    assert (reason.code, reason.line) == ("repeated_key", count + 2)
    assert "line 12 " in reason.message


def test_every_metric_is_read_from_its_own_column() -> None:
    row = one("usage_quantity,unblended_cost,region,blended_cost,service,amortized_cost\n4,3,r,2,S,1\n")
    assert [row[metric] for metric in METRICS] == [1, 2, 3, 4]
    assert (row["service"], row["region"]) == ("S", "r")


def test_shown_values_are_harmless() -> None:
    assert safe("plain ü €") == "plain ü €"
    assert safe("a\nb\x00‮\u200b") == "a\\nb\\x00\\u202e\\u200b"
    assert len(safe("\x00" * 500)) == 80
    assert safe("x" * 81) == "x" * 79 + "…"


# --- coverage -----------------------------------------------------------------------------------------------------


SHA = "ab" * 32


def test_a_sidecar_of_these_bytes() -> None:
    assert sidecar(json.dumps({"sha256": SHA.upper(), "covered": ["1", "2"], "failed": ["3"]}).encode(), SHA) == (
        {"1", "2"},
        {"3"},
    )
    other_names = {"sha256": SHA, "covered_accounts": [""], "failed_accounts": ["3"], "more": 1}
    assert sidecar(json.dumps(other_names).encode("utf-8-sig"), SHA) == ({"unknown"}, {"3"})
    assert sidecar(json.dumps({"sha256": SHA, "covered": []}).encode(), SHA) == (frozenset(), frozenset())


def test_a_sidecar_of_other_bytes_says_nothing() -> None:
    assert sidecar(json.dumps({"sha256": "cd" * 32, "covered": None}).encode(), SHA) is None


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b"\xff\xfe",
        b"[" * 100_000,
        b'{"covered": []}',
        b'{"sha256": 1, "covered": []}',
        json.dumps({"sha256": SHA}).encode(),
        json.dumps({"sha256": SHA, "covered": "12"}).encode(),
        json.dumps({"sha256": SHA, "covered": [12]}).encode(),
        json.dumps({"sha256": SHA, "covered": [], "failed": {"3": 1}}).encode(),
    ],
)
def test_a_sidecar_that_cannot_be_read_is_no_reason_to_guess(data: bytes) -> None:
    with pytest.raises(Quarantined) as caught:
        sidecar(data, SHA)
    assert caught.value.reason.code == "coverage_unreadable"
