"""AWS Cost Explorer's answers as daily files: replies in, exact sums, `YYYY-MM-DD.csv` and its coverage out.

Only the standard library: the collector's Lambda carries this module. What Cost Explorer takes and answers is in its
API reference (GetCostAndUsage): amounts are decimal texts, `End` is exclusive, at most two groups, `Keys` in the order
of GroupBy, and a page may end anywhere, also within a day.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal, InvalidOperation
from typing import Any, Final

from app.core.charges import COSTS, DEFAULTS, METRICS
from app.core.exact import EXACT, SCALE, text
from app.core.periods import DateRange
from app.errors import InvalidInput, Refused

MEASURES: Final = dict(zip(METRICS, ("AmortizedCost", "BlendedCost", "UnblendedCost", "UsageQuantity"), strict=True))
"""Our metrics → Cost Explorer's; one request answers all of them."""

ACCOUNT, SERVICE, REGION, RECORD_TYPE = "LINKED_ACCOUNT", "SERVICE", "REGION", "RECORD_TYPE"
NO_REGION: Final = "NoRegion"
"""How Cost Explorer spells the region of what has none."""

COLUMNS: Final = ("date", "account", "service", "region", *METRICS, "usage_unit", "currency", "estimated")
MARK: Final = "failed_accounts"
"""First word of an extra column's name that lists the failed accounts: the bytes differ when the coverage does, also
where a version is made of the bytes (an S3 ETag), so that a file whose coverage alone changed is taken again."""

COST_LIMIT: Final = Decimal(10) ** 12
USAGE_LIMIT: Final = Decimal(10) ** 14
"""core.dailycsv refuses a file with more; here it is one account that has a mistake, not the whole day."""

Key = tuple[str, str, str]
"""Account, service, region."""


class UnusableReply(Exception):
    """Cost Explorer's answer is not one to the question asked; `str()` says what is wrong with it."""


@dataclass(frozen=True)
class Row:
    """A charge's measures in the order of METRICS; `unit` and `currency` are empty where there is none, or no one."""

    amounts: tuple[Decimal, ...]
    unit: str = ""
    currency: str = ""
    estimated: bool = False

    def plus(self, other: Row) -> Row:
        if self.currency and other.currency and self.currency != other.currency:
            raise UnusableReply(f"one charge has amounts in {self.currency} and in {other.currency}")
        return Row(
            tuple(EXACT.add(mine, theirs) for mine, theirs in zip(self.amounts, other.amounts, strict=True)),
            self.unit if self.unit == other.unit else "",
            self.currency or other.currency,
            self.estimated or other.estimated,
        )

    @property
    def is_zero(self) -> bool:
        return not any(rounded(amount) for amount in self.amounts)


# --- questions ----------------------------------------------------------------------------------------------------


def question(
    days: DateRange, group_by: Sequence[str], metrics: Iterable[str] = METRICS, **only: Iterable[str]
) -> dict[str, Any]:
    """Parameters of GetCostAndUsage by day; `only` are dimensions and the values that count, for example SERVICE=[…]."""
    asked: dict[str, Any] = {
        "TimePeriod": period(days),
        "Granularity": "DAILY",
        "Metrics": [MEASURES[metric] for metric in metrics],
        "GroupBy": [{"Type": "DIMENSION", "Key": key} for key in group_by],
    }
    filters = [{"Dimensions": {"Key": key, "Values": list(values)}} for key, values in only.items()]
    if filters:
        asked["Filter"] = filters[0] if len(filters) == 1 else {"And": filters}
    return asked


def period(days: DateRange) -> dict[str, str]:
    return {"Start": str(days.start), "End": str(days.end)}


# --- replies ------------------------------------------------------------------------------------------------------


@dataclass
class Reply:
    """All pages of one question added up: the charges of each day by their two keys, wherever a page ended."""

    days: DateRange
    metrics: Sequence[str] = METRICS
    rows: dict[date, dict[tuple[str, str], Row]] = field(default_factory=dict)
    names: dict[str, str] = field(default_factory=dict)

    @property
    def mentioned(self) -> frozenset[date]:
        """Days the reply speaks of, also to say that they have no charge."""
        return frozenset(self.rows)

    def add(self, page: Mapping[str, Any]) -> None:
        """Raises UnusableReply for a page that is no answer to a question by day in two groups."""
        try:
            for result in page.get("ResultsByTime") or ():
                day = _day_of(result)
                if day in self.days:
                    self._add_day(day, result)
            self.names |= names_of(page)
        except (AttributeError, TypeError, ValueError) as error:
            raise UnusableReply(f"it is malformed ({str(error)[:100]})") from error

    def _add_day(self, day: date, result: Mapping[str, Any]) -> None:
        groups, estimated = result.get("Groups") or (), bool(result.get("Estimated"))
        if not groups:
            self._check_nothing(day, result.get("Total") or {})
        rows = self.rows.setdefault(day, {})
        for group in groups:
            keys = tuple(clean(key) for key in group.get("Keys") or ())
            if len(keys) != 2:
                raise UnusableReply(f"a group of {day} has {len(keys)} keys instead of 2")
            row = self._row(group.get("Metrics") or {}, estimated, f"{day}, {keys[0]}, {keys[1]}")
            rows[keys] = rows[keys].plus(row) if keys in rows else row

    def _row(self, found: Mapping[str, Any], estimated: bool, where: str) -> Row:
        amounts, currencies, unit = [], set(), ""
        for metric in self.metrics:
            measure = found.get(MEASURES[metric])
            if not isinstance(measure, Mapping):
                raise UnusableReply(f"it has no {MEASURES[metric]} for {where}")
            amounts.append(_amount(measure.get("Amount"), metric, where))
            if metric in COSTS:
                currencies.add(_currency(measure.get("Unit")))
            else:
                unit = _unit(measure.get("Unit"))
        currencies.discard("")
        if len(currencies) > 1:
            raise UnusableReply(f"{where} has amounts in {' and '.join(sorted(currencies))}")
        return Row(tuple(amounts), unit, "".join(currencies), estimated)

    @staticmethod
    def _check_nothing(day: date, totals: Mapping[str, Any]) -> None:
        """A day without groups has no charge. A total of one means that the groups were left out: that is no zero."""
        for name, measure in totals.items():
            if name in MEASURES.values() and measure and _amount(measure.get("Amount", 0), name, str(day)):
                raise UnusableReply(f"{day} has a total but no groups")


def names_of(page: Mapping[str, Any]) -> dict[str, str]:
    """Account names that come with LINKED_ACCOUNT values, in a reply's attributes or in a list of dimension values."""
    found = [*(page.get("DimensionValueAttributes") or ()), *(page.get("DimensionValues") or ())]
    described = {str(each.get("Value", "")): (each.get("Attributes") or {}).get("description") for each in found}
    return {account_of(value): clean(name) for value, name in described.items() if value and name}


def _day_of(result: Mapping[str, Any]) -> date:
    named = result.get("TimePeriod") or {}
    try:
        start = date.fromisoformat(str(named.get("Start"))[:10])
        end = date.fromisoformat(str(named.get("End") or start + timedelta(days=1))[:10])
    except ValueError:
        raise UnusableReply(f"a result has the period {str(dict(named))[:80]}") from None
    if end != start + timedelta(days=1):
        raise UnusableReply(f"a result is for {start} to {end} instead of one day")
    return start


_NUMBER: Final = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]{1,6})?")


def _amount(value: Any, metric: str, where: str) -> Decimal:
    shown = str(value).strip()
    try:
        found = Decimal(shown) if _NUMBER.fullmatch(shown) else None
    except InvalidOperation:
        found = None
    if found is None:
        raise UnusableReply(f"{metric} of {where} is {shown[:40]!r} instead of a number")
    limit = COST_LIMIT if metric in COSTS else USAGE_LIMIT
    if found.copy_abs() > limit:
        raise UnusableReply(f"{metric} of {where} is {shown[:40]}, beyond {limit:,}")
    return found


def _currency(unit: Any) -> str:
    """A currency's code; what a cost has as unit otherwise ("N/A", nothing) names none."""
    shown = str(unit or "").strip()
    return shown if re.fullmatch("[A-Z]{3}", shown) else ""


def _unit(unit: Any) -> str:
    """The unit of a usage quantity; "N/A" is how Cost Explorer says that units are mixed."""
    shown = clean(str(unit or "")).strip()
    return "" if shown.upper() in ("N/A", "NONE") else shown


_UNSAFE: Final = re.compile("[\x00-\x1f\x7f-\x9f\ud800-\udfff\ufeff]")


def clean(value: Any) -> str:
    """Text as a cell can carry it: control characters and broken ones become U+FFFD."""
    return _UNSAFE.sub("\ufffd", str(value))


def account_of(value: Any) -> str:
    """An account's number with all of its twelve digits; other text as it is."""
    shown = clean(value).strip()
    return shown.zfill(12) if is_number(shown) else shown or DEFAULTS["account"]


def is_number(account: str) -> bool:
    return account.isascii() and account.isdigit()


def accounts_from(names: Iterable[Any]) -> list[str]:
    """Account numbers a person gave, as Cost Explorer writes them. Raises InvalidInput."""
    found = set()
    for name in map(str, names):
        if not is_number(name) or len(name) > 12:
            raise InvalidInput(f"account {name[:40]!r} is not an AWS account number of 12 digits.", field="accounts")
        found.add(account_of(name))
    return sorted(found)


def key_of(account: str, service: str, region: str) -> Key:
    """The key of a charge as it is written: an empty cell would mean another region than none."""
    return account_of(account), service or DEFAULTS["service"], region or NO_REGION


def rounded(amount: Decimal) -> Decimal:
    """At most as many decimals as a cost file may have."""
    return amount.quantize(Decimal(1).scaleb(-SCALE), context=EXACT)


# --- a day's file -------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Found:
    """What a run learned of a day.

    `silent` ⊆ `covered` are accounts whose replies did not speak of the day at all. `only` are the accounts the run was
    for, None for all there are. `at` is when it began to ask.
    """

    rows: Mapping[Key, Row]
    covered: frozenset[str]
    failed: frozenset[str]
    at: datetime
    silent: frozenset[str] = frozenset()
    only: frozenset[str] | None = None


@dataclass(frozen=True)
class Coverage:
    """Of which accounts a file's rows were collected, and whose collection failed; `collected` is when it was asked."""

    covered: frozenset[str]
    failed: frozenset[str]
    collected: datetime | None = None


@dataclass(frozen=True)
class Existing:
    """The file that is there. `names` are its accounts as it spells them; `unusable` says why rows cannot be kept."""

    data: bytes
    rows: Mapping[Key, Row]
    names: frozenset[str]
    coverage: Coverage | None
    unusable: str | None = None
    foreign: str | None = None


@dataclass(frozen=True)
class DayFile:
    data: bytes
    coverage: Coverage

    @property
    def sidecar(self) -> bytes:
        """`coverage/YYYY-MM-DD.json` (docs/daily-csv.md), and when it was collected."""
        at = self.coverage.collected
        found = {
            "sha256": hashlib.sha256(self.data).hexdigest(),
            "covered": sorted(self.coverage.covered),
            "failed": sorted(self.coverage.failed),
            "collected": instant(at) if at else None,
        }
        return json.dumps(found, ensure_ascii=False).encode() + b"\n"


def instant(at: datetime) -> str:
    return at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def compose(day: date, found: Found, existing: Existing | None) -> DayFile:
    """The day's file: what was collected, and from the existing one the rows of every account that was not.

    An account is carried over when its collection failed, when the run was not for it, when nothing speaks of it any
    more, and when a run that began later has collected it already. Raises Refused when that cannot be done without
    losing something: the file is to be left as it is then.
    """
    if existing is None:
        return _file(day, found.rows, Coverage(found.covered, found.failed - found.covered, found.at))
    if existing.foreign:
        raise Refused(f"its file has charges of {existing.foreign}, which the collector does not replace")
    coverage, carried = _merged(found, existing)
    if coverage.failed or found.only is not None:
        _check_keepable(existing, found.covered)
    kept = {account_of(name) for name in carried}
    rows = {key: row for key, row in existing.rows.items() if key[0] in kept}
    ours = {key: row for key, row in found.rows.items() if key[0] in coverage.covered and key[0] not in kept}
    return _file(day, rows | ours, coverage)


def _check_keepable(existing: Existing, covered: frozenset[str]) -> None:
    """While not every account was collected, rows that cannot be told to be of a collected one must stay."""
    if existing.unusable:
        raise Refused(f"not every account was collected, and the existing file {existing.unusable}")
    unnamed = sorted(name for name in existing.names - covered if not is_number(name))
    if unnamed:
        raise Refused(f"not every account was collected, and the existing file has charges of {unnamed[0][:40]!r}")


def _merged(found: Found, existing: Existing) -> tuple[Coverage, frozenset[str]]:
    """Whom the new file covers, and the accounts (as the existing file spells them) whose rows it keeps."""
    before = existing.coverage
    newer = before is not None and before.collected is not None and before.collected > found.at
    theirs = before.covered if before and newer else frozenset()
    there = {account_of(name) for name in existing.names}
    doubtful = found.silent & there
    ours = found.covered - doubtful - theirs
    carried = frozenset(name for name in existing.names if is_number(name) and account_of(name) not in ours)
    status = {name: _status(name, found, before, theirs) for name in carried}
    unasked = frozenset() if found.only is None or before is None else (before.covered | before.failed) - found.only
    spoken = before.covered if before else frozenset()
    covered = ours | theirs | (existing.names - carried) | (spoken & unasked)
    covered |= {each for name, known in status.items() if known == "covered" for each in (name, account_of(name))}
    failed = found.failed | doubtful | {account_of(name) for name, known in status.items() if known == "failed"}
    failed |= (before.failed & unasked) if before else frozenset()
    at = before.collected if before and newer else found.at
    return Coverage(frozenset(covered), frozenset(failed - covered), at), carried


def _status(name: str, found: Found, before: Coverage | None, theirs: frozenset[str]) -> str:
    """How well the rows that are kept for an account are known: covered, failed, or not spoken for."""
    account = account_of(name)
    if {name, account} & theirs:
        return "covered"
    if found.only is None or account in found.only:
        return "failed"
    if before is None or {name, account} & before.covered:
        return "covered"
    return "failed" if {name, account} & before.failed else ""


def _file(day: date, rows: Mapping[Key, Row], coverage: Coverage) -> DayFile:
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    mark = (" ".join((MARK, *sorted(coverage.failed))),) if coverage.failed else ()
    writer.writerow(COLUMNS + mark)
    for key in sorted(rows):
        row = rows[key]
        if not row.is_zero:
            flag = "true" if row.estimated else "false"
            amounts = (text(rounded(amount)) for amount in row.amounts)
            writer.writerow((str(day), *key, *amounts, row.unit, row.currency, flag, *("" for _ in mark)))
    return DayFile(out.getvalue().encode(), coverage)


# --- the file that is there ---------------------------------------------------------------------------------------


def existing_file(day: date, data: bytes, sidecar: bytes | None) -> Existing:
    """Whatever lies there, as far as rows of it can be carried over; never raises."""
    coverage = coverage_of(sidecar, data)
    rows: dict[Key, Row] = {}
    names: set[str] = set()
    try:
        for name, key, row in _rows_of(day, data):
            names.add(name)
            rows[key] = rows[key].plus(row) if key in rows else row
    except _Foreign as error:
        return Existing(data, {}, frozenset(names), coverage, foreign=str(error))
    except (UnusableReply, ValueError, csv.Error) as error:
        known = coverage.covered | coverage.failed if coverage else frozenset()
        return Existing(data, {}, frozenset(names) | known, coverage, unusable=f"cannot be read: {str(error)[:200]}")
    return Existing(data, rows, frozenset(names), coverage)


class _Foreign(Exception):
    """Rows that no collector of AWS wrote."""


def _rows_of(day: date, data: bytes) -> Iterator[tuple[str, Key, Row]]:
    if not data.strip():
        return
    reader = csv.DictReader(io.StringIO(data.decode("utf-8-sig"), newline=""), strict=True)
    header = [(name or "").strip().lower() for name in reader.fieldnames or ()]
    reader.fieldnames = header
    lacking = {"service", "region", *METRICS} - set(header)
    if lacking:
        raise ValueError(f"it has no column {min(lacking)}")
    for cells in reader:
        if None in cells or None in cells.values():
            raise ValueError(f"line {reader.line_num} has {len(header)} cells too few or too many")
        yield _row_of(day, cells)


def _row_of(day: date, cells: Mapping[str, str]) -> tuple[str, Key, Row]:
    def cell(name: str) -> str:
        return (cells.get(name) or "").strip()

    if cell("provider") not in ("", DEFAULTS["provider"]):
        raise _Foreign(f"provider {clean(cell('provider'))[:40]}")
    if cell("charge_category") not in ("", DEFAULTS["charge_category"]):
        raise ValueError("it has charge categories")
    if not cell("blended_cost"):
        raise ValueError("it has no blended cost")
    name = cells.get("account") or cells.get("account_id") or DEFAULTS["account"]
    amounts = tuple(_amount(cell(metric), metric, str(day)) for metric in METRICS)
    estimated = cell("estimated").lower() in ("true", "1", "yes")
    row = Row(amounts, cell("usage_unit"), cell("currency"), estimated)
    return name, key_of(name, clean(cells["service"]), clean(cells["region"]) or DEFAULTS["region"]), row


def coverage_of(sidecar: bytes | None, data: bytes) -> Coverage | None:
    """What the coverage beside a file says, None when it is about other bytes or unreadable."""
    try:
        said = json.loads(sidecar or b"null")
        if said["sha256"].lower() != hashlib.sha256(data).hexdigest():
            return None
        at = datetime.fromisoformat(said["collected"]) if said.get("collected") else None
        return Coverage(frozenset(map(str, said["covered"])), frozenset(map(str, said.get("failed") or ())), at)
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return None


# --- what the totals are to be compared with ----------------------------------------------------------------------

Reference = dict[tuple[date, str, str], Row]
"""Costs by day, account and record type, as Cost Explorer adds them up itself."""


def reference_of(reply: Reply) -> Reference:
    """Raises UnusableReply when it is not grouped by account and record type."""
    found = {
        (day, account_of(account), record_type): row
        for day, rows in reply.rows.items()
        for (account, record_type), row in rows.items()
    }
    if found and not any(is_number(account) for _, account, _ in found):
        raise UnusableReply(f"{min(found)[1][:40]!r} is not an account")
    return found


def reference_file(
    month: date,
    days: Collection[date],
    found: Reference,
    spoken: frozenset[str] | None,
    before: bytes | None,
    at: datetime,
) -> bytes | None:
    """`reference/YYYY-MM.json` with these days' rows in place of those it had; None when it would say the same.

    `spoken` are the accounts that `found` speaks for, None for all: rows of others stay.
    """
    old = _reference_rows(before)
    kept = {key: row for key, row in old.items() if key[0] not in days or not (spoken is None or key[1] in spoken)}
    new = {key: row for key, row in found.items() if key[0].replace(day=1) == month and not row.is_zero}
    currencies = {row.currency for row in new.values() if row.currency} or {_reference_currency(before)}
    rows = [
        [str(day), account, record_type, *amounts]
        for (day, account, record_type), amounts in sorted((kept | {k: _texts(row) for k, row in new.items()}).items())
    ]
    said = {
        "month": month.strftime("%Y-%m"),
        "collected": instant(at),
        "currency": min(currencies),
        "metrics": list(COSTS),
        "rows": rows,
    }
    if before is not None and _without_time(before) == {k: v for k, v in said.items() if k != "collected"}:
        return None
    head = json.dumps({name: value for name, value in said.items() if name != "rows"}, ensure_ascii=False)[:-1]
    lines = ",\n".join(json.dumps(row, ensure_ascii=False) for row in rows)
    return f'{head}, "rows": [\n{lines}\n]}}\n'.encode()


def _texts(row: Row) -> tuple[str, ...]:
    return tuple(text(rounded(amount)) for amount in row.amounts)


def _without_time(data: bytes) -> dict[str, Any]:
    try:
        return {name: value for name, value in json.loads(data).items() if name != "collected"}
    except (ValueError, AttributeError):
        return {}


def _reference_rows(data: bytes | None) -> dict[tuple[date, str, str], tuple[str, ...]]:
    try:
        rows = json.loads(data or b"{}").get("rows", [])
        return {(date.fromisoformat(row[0]), row[1], row[2]): tuple(row[3:]) for row in rows}
    except (ValueError, TypeError, IndexError, AttributeError):
        return {}


def _reference_currency(data: bytes | None) -> str:
    try:
        return str(json.loads(data or b"{}").get("currency") or "USD")
    except (ValueError, AttributeError):
        return "USD"


def differing(days: Collection[date], reference: Reference, rows: Mapping[date, Mapping[Key, Row]]) -> frozenset[str]:
    """Accounts that on one of these days add up to another cost than Cost Explorer's own total, by a cent or more."""
    sums: dict[tuple[date, str], list[Decimal]] = {}
    for (day, account, _), row in reference.items():
        _add(sums.setdefault((day, account), [Decimal(0)] * len(COSTS)), row.amounts, 1)
    for day in days:
        for (account, _, _), row in rows.get(day, {}).items():
            _add(sums.setdefault((day, account), [Decimal(0)] * len(COSTS)), row.amounts, -1)
    return frozenset(account for (_, account), left in sums.items() if any(abs(each) >= CENT for each in left))


CENT: Final = Decimal("0.01")


def _add(sums: list[Decimal], amounts: Sequence[Decimal], sign: int) -> None:
    for at in range(len(sums)):
        sums[at] = EXACT.fma(amounts[at], sign, sums[at])
