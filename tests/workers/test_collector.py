"""The collector against an AWS that answers like AWS: every cent of the replies is in the files, whatever the pages."""

from __future__ import annotations

import csv
import hashlib
import io
import itertools
import json
from collections.abc import Iterable, Mapping
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import CredentialRetrievalError, EndpointConnectionError, NoCredentialsError
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from app.core.charges import METRICS
from app.core.dailycsv import Limits, parse, sidecar
from app.core.exact import total
from app.core.periods import DateRange
from app.errors import BadCredentials, Conflict, Unavailable
from tests.costexplorer import (
    DAY,
    Aws,
    Charge,
    CostExplorer,
    Organizations,
    charge,
    refusal,
    refusing,
    throttled,
)
from tests.costexplorer import METRICS as METRIC_NAMES
from workers.asking import ATTEMPTS, World
from workers.collector import Collector, Report, Setup
from workers.targets import FolderTarget, Kept

A, B, C, D = "111111111111", "222222222222", "033333333333", "444444444444"
ONE_DAY = DateRange(DAY, DAY + timedelta(days=1))
LIMITS = Limits(bytes=10**9, rows=10**6, series=10**6)


class Place:
    """A folder that is collected to, and what is in it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.target = FolderTarget((folder / "costs").as_uri() + "/")

    def file(self, day: date = DAY) -> bytes:
        return (self.folder / f"costs/{day}.csv").read_bytes()

    def rows(self, day: date = DAY) -> list[dict[str, str]]:
        return list(csv.DictReader(io.StringIO(self.file(day).decode())))

    def amounts(self, day: date = DAY, metric: str = "amortized_cost") -> dict[tuple[str, str, str], str]:
        return {(row["account"], row["service"], row["region"]): row[metric] for row in self.rows(day)}

    def coverage(self, day: date = DAY) -> dict[str, Any]:
        said: dict[str, Any] = json.loads((self.folder / f"coverage/{day}.json").read_bytes())
        assert said["sha256"] == hashlib.sha256(self.file(day)).hexdigest()
        return said

    def json(self, name: str) -> Any:
        return json.loads((self.folder / name).read_bytes())

    def put(self, data: str, day: date = DAY) -> None:
        (self.folder / "costs").mkdir(exist_ok=True)
        (self.folder / f"costs/{day}.csv").write_text(data, encoding="utf-8")

    def names(self) -> set[str]:
        return {
            str(path.relative_to(self.folder)) for path in self.folder.rglob("*.*") if ".collector" not in path.name
        }


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


def organisation(*accounts: str) -> Organizations:
    return Organizations([(account, f"team {account[:1]}", "ACTIVE") for account in accounts])


def aws_of(*charges: Charge, **more: Any) -> Aws:
    accounts = sorted({each.account for each in charges})
    return Aws(CostExplorer(list(charges), **more), organisation(*accounts))


def collect(
    place: Place,
    aws: Aws,
    days: DateRange = ONE_DAY,
    only: Iterable[str] | None = None,
    target: Any = None,
    **setup: Any,
) -> Report:
    world = World(clock=aws.clock, sleep=aws.sleep, remaining=lambda: aws.left)
    collector = Collector(Setup("", **setup), world, target=target or place.target, connect=aws.connect)
    return collector.collect(days, frozenset(only) if only is not None else None)


# --- what is asked ------------------------------------------------------------------------------------------------


def loops_of(aws: Aws) -> list[tuple[list[str], str]]:
    asked = [given for operation, given in aws.ce.asked if operation == "GetCostAndUsage" and "Filter" in given]
    return [([g["Key"] for g in each["GroupBy"]], each["Filter"]["Dimensions"]["Key"]) for each in asked]


def test_all_four_measures_come_from_one_question_an_account(place: Place) -> None:
    aws = aws_of(charge(A, "Amazon S3", "eu-west-1", "1.5", "1.4", "1.3", "7"), charge(B, "Tax", "NoRegion", "2"))
    report = collect(place, aws)
    assert loops_of(aws) == [(["SERVICE", "REGION"], "LINKED_ACCOUNT")] * 2
    assert {tuple(given["Metrics"]) for _, given in aws.ce.asked if "Filter" in given} == {
        ("AmortizedCost", "BlendedCost", "UnblendedCost", "UsageQuantity")
    }
    [row] = [row for row in place.rows() if row["account"] == A]
    assert [row[metric] for metric in METRICS] == ["1.5", "1.4", "1.3", "7"]
    assert report.requests == aws.ce.billed == 4


def test_many_accounts_in_few_regions_are_asked_region_by_region(place: Place) -> None:
    accounts = [f"{n:012}" for n in range(1, 9)]
    aws = aws_of(
        *(charge(name, "Amazon S3", region, "1.25") for name in accounts for region in ("eu-west-1", "global"))
    )
    report = collect(place, aws)
    assert loops_of(aws) == [(["LINKED_ACCOUNT", "SERVICE"], "REGION")] * 2
    assert len(place.rows()) == 16
    assert place.coverage()["covered"] == accounts
    assert report.requests == aws.ce.billed == 5


def test_many_regions_are_asked_account_by_account(place: Place) -> None:
    aws = aws_of(*(charge(name, "Amazon EC2", f"r-{n}", "1") for n in range(5) for name in (A, B, C)))
    collect(place, aws)
    assert loops_of(aws) == [(["SERVICE", "REGION"], "LINKED_ACCOUNT")] * 3


def test_a_daily_run_is_one_question_an_account_also_while_two_months_are_open(place: Place) -> None:
    days = DateRange(date(2026, 10, 1), date(2026, 11, 16))
    aws = aws_of(*(charge(A, "Amazon S3", "global", "1", day=day) for day in days))
    report = collect(place, aws, days)
    assert (report.requests, len(report.written)) == (3, 46)


def test_charges_of_a_region_that_was_not_listed_are_found_by_the_totals(place: Place) -> None:
    """Asked region by region, what has no region of the list would be lost: the account's own total gives it away."""
    accounts = [f"{n:012}" for n in range(1, 6)]
    charges = [charge(name, "Amazon S3", "global", "1") for name in accounts]
    aws = aws_of(*charges, charge(accounts[0], "Tax", "hidden", "5"))
    listed = aws.ce.get_dimension_values

    def without_hidden(**given: Any) -> dict[str, Any]:
        answer = listed(**given)
        answer["DimensionValues"] = [each for each in answer["DimensionValues"] if each["Value"] != "hidden"]
        return answer

    aws.ce.get_dimension_values = without_hidden  # type: ignore[method-assign]
    collect(place, aws)
    assert place.amounts()[accounts[0], "Tax", "hidden"] == "5"
    assert len(place.rows()) == 6


# --- pages --------------------------------------------------------------------------------------------------------

NUMBERS = st.one_of(
    st.decimals(-(10**6), 10**9, places=10, allow_nan=False).map(str),
    st.sampled_from(["0", "-0", "1E-7", "-2.5e-10", "1e3", "0.00", "12345678901.0000000001", "+1", ".5", "7."]),
    st.integers(-(10**15), 10**15).map(lambda n: str(Decimal(n).scaleb(-18))),
)
TEXTS = st.one_of(
    st.sampled_from(["Amazon EC2, Other", 'a "quoted" name', "Tax", "", "unknown", "NULL", " ", "=1+1", "Ünïcode"]),
    st.text(max_size=12),
)
REGIONS = st.sampled_from(["eu-west-1", "us-east-1", "global", "NoRegion", ""])
CHARGES = st.lists(
    st.builds(
        Charge,
        day=st.integers(0, 3).map(lambda n: DAY + timedelta(days=n)),
        account=st.sampled_from([A, B, C, D]),
        service=TEXTS,
        region=REGIONS,
        amounts=st.tuples(NUMBERS, NUMBERS, NUMBERS, NUMBERS),
        record_type=st.sampled_from(["Usage", "Tax", "Credit"]),
        unit=st.sampled_from(["N/A", "Hrs", "GB-Mo", ""]),
    ),
    max_size=40,
)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(charges=CHARGES, cuts=st.lists(st.integers(0, 9), max_size=8), bursts=st.lists(st.integers(0, 5), max_size=12))
def test_whatever_the_pages_the_files_are_the_plain_sum(
    tmp_path_factory: pytest.TempPathFactory, charges: list[Charge], cuts: list[int], bursts: list[int]
) -> None:
    """Any split into pages (also empty ones, also within a day), any throttling: parse gives exactly the replies."""
    place = Place(tmp_path_factory.mktemp("any"))
    # After the empty pages of the list every page takes something, or there would be no end.
    turns = itertools.chain(cuts, itertools.repeat(3))
    times = itertools.chain.from_iterable([*[True] * burst, False] for burst in bursts)
    aws = Aws(CostExplorer(charges, cut=lambda _: next(turns)), organisation(A, B, C, D))
    aws.ce.before = throttled(times)
    days = DateRange(DAY, DAY + timedelta(days=4))
    report = collect(place, aws, days)
    assert report.complete, report.lines()
    assert report.requests == aws.ce.billed
    for day in days:
        of_day = [each for each in charges if each.day == day]
        parsed = parse(place.file(day), day=day, currency="USD", today=date(2026, 11, 25), limits=LIMITS)
        for place_of, metric in enumerate(METRICS):
            expected = total(Decimal(each.amounts[place_of]) for each in of_day)
            assert parsed.totals.of(metric) == expected
            for account in (A, B, C, D):
                mine = total(Decimal(each.amounts[place_of]) for each in of_day if each.account == account)
                there = parsed.accounts.get(account)
                assert (there.of(metric) if there else 0) == mine
        assert sidecar(
            (place.folder / f"coverage/{day}.json").read_bytes(), hashlib.sha256(place.file(day)).hexdigest()
        ) == (
            frozenset([A, B, C, D]),
            frozenset(),
        )


def test_every_page_repeats_the_question_exactly_and_a_token_that_returns_ends_it(place: Place) -> None:
    aws = aws_of(*(charge(A, f"service {n}", "global", "1") for n in range(10)), cut=lambda _: 3)
    assert collect(place, aws).complete  # the fake raises RequestChangedException otherwise
    assert len(place.rows()) == 10

    def endless(**given: Any) -> dict[str, Any]:
        return {"ResultsByTime": [], "NextPageToken": "again"}

    aws.ce.get_cost_and_usage = endless  # type: ignore[method-assign]
    report = collect(place, aws)
    assert "same page token twice" in report.failed[A]
    assert len(place.rows()) == 10


def test_a_group_that_comes_in_parts_on_several_pages_is_their_sum(place: Place) -> None:
    aws = aws_of(charge(A, "Amazon S3", "global", "1"))

    def part(amount: str, token: str | None) -> dict[str, Any]:
        metrics = {metric: {"Amount": amount, "Unit": "USD"} for metric in METRIC_NAMES}
        groups = [{"Keys": ["Amazon S3", "global"], "Metrics": metrics}]
        period = {"Start": str(DAY), "End": str(DAY + timedelta(days=1))}
        page: dict[str, Any] = {"ResultsByTime": [{"TimePeriod": period, "Groups": groups, "Estimated": amount == "2"}]}
        return page | ({"NextPageToken": token} if token else {})

    pages = {None: part("1", "a"), "a": part("2", "b"), "b": part("-0.5", None)}
    aws.ce.get_cost_and_usage = lambda **given: pages[given.get("NextPageToken")]  # type: ignore[method-assign]
    collect(place, aws)
    assert place.amounts() == {(A, "Amazon S3", "global"): "2.5"}
    assert place.rows()[0]["estimated"] == "true"


# --- how it is written --------------------------------------------------------------------------------------------


def test_numbers_have_one_plain_form_and_rows_one_order(place: Place) -> None:
    texts = ["1E-7", "-0.10", "1.500000", "-0E-10"]
    aws = aws_of(charge(B, "Z", "b", *texts), charge(B, "A", "z", "2"), charge(A, "Z", "a", "3"))
    collect(place, aws)
    lines = place.file().decode().splitlines()
    assert lines == [
        "date,account,service,region,amortized_cost,blended_cost,unblended_cost,usage_quantity,usage_unit,currency,estimated",
        f"{DAY},{A},Z,a,3,3,3,3,,USD,false",
        f"{DAY},{B},A,z,2,2,2,2,,USD,false",
        f"{DAY},{B},Z,b,0.0000001,-0.1,1.5,0,,USD,false",
    ]


def test_estimated_and_units_are_kept(place: Place) -> None:
    aws = aws_of(
        charge(A, "Amazon S3", "eu-west-1", "1", unit="GB-Mo"),
        charge(A, "Amazon EC2", "eu-west-1", "1", unit="N/A"),
        estimated=lambda day: day == DAY,
    )
    collect(place, aws)
    assert [(row["service"], row["usage_unit"], row["estimated"]) for row in place.rows()] == [
        ("Amazon EC2", "", "true"),
        ("Amazon S3", "GB-Mo", "true"),
    ]


@pytest.mark.parametrize("unit", ["N/A", "", "Hrs", "usd"])
def test_a_cost_whose_unit_is_no_currency_is_in_that_of_the_deployment(place: Place, unit: str) -> None:
    collect(place, aws_of(charge(A, "Amazon S3", "global", "1", currency=unit)))
    assert place.rows()[0]["currency"] == ""


def test_another_currency_is_written_as_such(place: Place) -> None:
    collect(place, aws_of(charge(A, "Amazon S3", "cn-north-1", "1", currency="CNY")))
    assert place.rows()[0]["currency"] == "CNY"


def test_a_day_without_charges_is_a_file_with_only_a_header(place: Place) -> None:
    days = DateRange(DAY, DAY + timedelta(days=2))
    collect(place, aws_of(charge(A, "Amazon S3", "global", "1")), days)
    assert len(place.file(DAY + timedelta(days=1)).splitlines()) == 1


def test_a_second_run_changes_no_byte(place: Place) -> None:
    days = DateRange(DAY, DAY + timedelta(days=3))
    aws = aws_of(*(charge(A, "Amazon S3", "global", "1.1", day=day) for day in days))
    collect(place, aws, days)
    before = {path: path.stat().st_mtime_ns for path in place.folder.rglob("*.*") if path.parent.name != "collections"}
    aws.now += timedelta(hours=5)
    report = collect(place, aws, days)
    after = {path: path.stat().st_mtime_ns for path in place.folder.rglob("*.*") if path.parent.name != "collections"}
    assert (report.written, report.unchanged) == ([], 3)
    lock = place.folder / ".collector.lock"
    assert {**before, lock: 0} == {**after, lock: 0}


def test_a_restated_day_is_written_again(place: Place) -> None:
    aws = aws_of(charge(A, "Amazon S3", "global", "1"), charge(A, "Amazon EC2", "global", "1"))
    collect(place, aws)
    aws.ce.charges = [charge(A, "Amazon S3", "global", "3")]
    assert collect(place, aws).written == [DAY]
    assert place.amounts() == {(A, "Amazon S3", "global"): "3"}


def test_what_the_requests_cost_is_recorded(place: Place) -> None:
    aws = aws_of(charge(A, "Amazon S3", "global", "1"))
    report = collect(place, aws)
    [name] = [name for name in place.names() if name.startswith("collections/")]
    assert name == "collections/20261125T130000Z.json"
    record = place.json(name)
    assert (record["requests"], record["cost_usd"], record["failed"], record["written"]) == (3, "0.03", {}, [str(DAY)])
    assert record["finished"] is not None
    assert report.lines()[-1] == "3 requests to Cost Explorer, 0.03 USD"


# --- accounts -----------------------------------------------------------------------------------------------------


def test_closed_accounts_have_history_and_open_ones_a_name(place: Place) -> None:
    aws = aws_of(charge(A, "Amazon S3", "global", "1"), charge(C, "Amazon S3", "global", "2"))
    aws.organizations = Organizations([(A, "prod", "ACTIVE"), (B, "idle", "SUSPENDED")])
    aws.ce.names = {C: "closed long ago"}
    collect(place, aws)
    assert place.json("accounts.json") == {
        C: {"name": "closed long ago", "state": ""},
        A: {"name": "prod", "state": "ACTIVE"},
        B: {"name": "idle", "state": "SUSPENDED"},
    }
    assert place.coverage()["covered"] == [C, A, B]


def test_an_older_sdk_says_status(place: Place) -> None:
    aws = aws_of(charge(A, "Amazon S3", "global", "1"))
    aws.organizations = Organizations([(A, "prod", "ACTIVE")], state_key="Status")
    collect(place, aws)
    assert place.json("accounts.json")[A]["state"] == "ACTIVE"


def test_without_an_organisation_the_accounts_are_those_with_charges(place: Place) -> None:
    aws = aws_of(charge(A, "Amazon S3", "global", "1"))
    aws.organizations.error = refusal("ListAccounts", "AWSOrganizationsNotInUseException")
    report = collect(place, aws)
    assert report.complete
    assert place.coverage()["covered"] == [A]


def test_one_account_that_may_list_nothing_asks_about_itself(place: Place) -> None:
    aws = aws_of(charge(A, "Amazon S3", "global", "1"))
    aws.organizations.error = refusal("ListAccounts", "AccessDeniedException")

    def no_lists(operation: str, given: Mapping[str, Any]) -> None:
        if operation == "GetDimensionValues":
            raise refusal(operation, "AccessDeniedException")

    aws.ce.before = no_lists
    collect(place, aws)
    assert place.amounts() == {(A, "Amazon S3", "global"): "1"}


def test_an_account_that_fails_is_reported_keeps_its_rows_and_stops_nobody(place: Place) -> None:
    aws = aws_of(
        *(charge(A, f"service {n}", "global", "1") for n in range(5)),
        charge(B, "Amazon S3", "global", "2"),
        charge(B, "Amazon EC2", "global", "2"),
        cut=lambda _: 1,
    )
    collect(place, aws)
    aws.ce.charges = [charge(A, "new", "global", "7"), charge(B, "Amazon S3", "global", "9"), charge(B, "b", "b", "1")]
    aws.ce.before = refusing(B, after=1)
    report = collect(place, aws)
    assert report.failed[B].startswith("ce:GetCostAndUsage answered AccessDeniedException")
    assert place.amounts() == {
        (A, "new", "global"): "7",
        (B, "Amazon EC2", "global"): "2",
        (B, "Amazon S3", "global"): "2",
    }
    said = place.coverage()
    assert (said["covered"], said["failed"]) == ([A], [B])
    assert f"account {B} failed" in "\n".join(report.lines())


def test_an_account_that_fails_at_first_is_listed_and_has_no_rows(place: Place) -> None:
    aws = aws_of(charge(A, "Amazon S3", "global", "1"), charge(B, "Amazon S3", "global", "2"))
    aws.ce.before = refusing(B)
    collect(place, aws)
    assert place.amounts() == {(A, "Amazon S3", "global"): "1"}
    assert (place.coverage()["covered"], place.coverage()["failed"]) == ([A], [B])


def test_when_only_the_coverage_changes_the_bytes_do_too(place: Place) -> None:
    """An S3 version is made of the bytes: the same file with a better coverage would never be looked at again."""
    aws = aws_of(charge(A, "Amazon S3", "global", "1"))
    aws.organizations = organisation(A, B)
    aws.ce.before = refusing(B)
    collect(place, aws)
    failed = place.file()
    parsed = parse(failed, day=DAY, currency="USD", today=date(2026, 11, 25), limits=LIMITS)
    assert list(parsed.accounts) == [A]
    aws.ce.before = lambda *_: None
    collect(place, aws)
    assert place.file() != failed
    assert (place.coverage()["covered"], place.coverage()["failed"]) == ([A, B], [])


def test_an_account_that_vanishes_keeps_its_rows_and_is_reported(place: Place) -> None:
    aws = aws_of(charge(A, "Amazon S3", "global", "1"), charge(B, "Amazon S3", "global", "2"))
    collect(place, aws)
    aws.ce.charges, aws.organizations = [charge(A, "Amazon S3", "global", "3")], organisation(A)
    report = collect(place, aws)
    assert place.amounts() == {(A, "Amazon S3", "global"): "3", (B, "Amazon S3", "global"): "2"}
    assert place.coverage()["failed"] == [B]
    assert "speaks of it (any more)" in report.failed[B]


def test_an_account_that_is_listed_and_has_no_charge_any_more_is_released(place: Place) -> None:
    aws = aws_of(charge(A, "Amazon S3", "global", "1"), charge(B, "Amazon S3", "global", "2"))
    collect(place, aws)
    aws.ce.charges = [charge(A, "Amazon S3", "global", "1")]
    assert collect(place, aws).complete
    assert place.amounts() == {(A, "Amazon S3", "global"): "1"}
    assert place.coverage()["covered"] == [A, B]


def test_days_a_reply_does_not_speak_of_are_no_zeros(place: Place) -> None:
    next_day = DAY + timedelta(days=1)
    days = DateRange(DAY, DAY + timedelta(days=2))
    aws = aws_of(charge(A, "Amazon S3", "global", "1"), charge(A, "Amazon S3", "global", "2", day=next_day))
    collect(place, aws, days)
    aws.ce.silent = lambda day: day == next_day
    report = collect(place, aws, days)
    assert list(report.left) == [next_day]
    assert place.amounts(next_day) == {(A, "Amazon S3", "global"): "2"}
    aws.ce.silent = lambda _: True
    fresh = Place(place.folder / "fresh")
    fresh.folder.mkdir()
    report = collect(fresh, aws, days)
    assert len(report.left) == 2
    assert not [name for name in fresh.names() if name.startswith(("costs/", "coverage/"))]


def test_some_accounts_only(place: Place) -> None:
    aws = aws_of(charge(A, "Amazon S3", "global", "1"), charge(B, "Amazon S3", "global", "2"))
    collect(place, aws)
    aws.ce.charges = [charge(A, "Amazon S3", "global", "5"), charge(B, "Amazon S3", "global", "6")]
    collect(place, aws, only=[A])
    assert place.amounts() == {(A, "Amazon S3", "global"): "5", (B, "Amazon S3", "global"): "2"}
    assert (place.coverage()["covered"], place.coverage()["failed"]) == ([A, B], [])
    assert [row[1:3] for row in place.json("reference/2026-10.json")["rows"]] == [[A, "Usage"], [B, "Usage"]]


def test_an_account_on_no_list_is_not_asked_and_not_zeroed(place: Place) -> None:
    aws = aws_of(charge(A, "Amazon S3", "global", "1"), charge(B, "Amazon S3", "global", "2"))
    collect(place, aws)
    aws.ce.charges, aws.organizations = [charge(A, "Amazon S3", "global", "3")], organisation(A)
    report = collect(place, aws, only=[A, B])
    assert "speaks of it" in report.failed[B]
    assert place.amounts() == {(A, "Amazon S3", "global"): "3", (B, "Amazon S3", "global"): "2"}


def test_one_accounts_reply_without_a_day_is_no_zero(place: Place) -> None:
    """Other replies speak of the day; of an account that had cost then, silence is no figure."""
    aws = aws_of(charge(B, "Amazon S3", "global", "2"), *(charge(A, "Amazon S3", f"r{n}", "1") for n in range(4)))
    aws.organizations = organisation(A, B, C)
    answer = aws.ce.get_cost_and_usage

    def silent(**given: Any) -> dict[str, Any]:
        return (
            {"ResultsByTime": []} if B in str(given.get("Filter")) or C in str(given.get("Filter")) else answer(**given)
        )

    collect(place, aws)
    aws.ce.get_cost_and_usage = silent  # type: ignore[method-assign]
    report = collect(place, aws)
    assert list(report.failed) == [B]
    assert place.amounts()[B, "Amazon S3", "global"] == "2"
    assert (place.coverage()["covered"], place.coverage()["failed"]) == ([C, A], [B])


# --- payers and roles ---------------------------------------------------------------------------------------------

ONE, TWO = "arn:aws:iam::111111111111:role/collector", "arn:aws:iam::222222222222:role/collector"


def two_payers(*, shared: bool = False) -> Aws:
    first = aws_of(charge(A, "Amazon S3", "global", "1"))
    second = aws_of(charge(B, "Amazon S3", "global", "2"), *([charge(A, "Tax", "global", "9")] if shared else []))
    outer = Aws(CostExplorer(), Organizations(error=refusal("ListAccounts", "AccessDeniedException")))
    outer.roles = {ONE: first, TWO: second}
    return outer


def test_every_payer_is_asked_with_its_role_and_external_id(place: Place) -> None:
    aws = two_payers()
    collect(place, aws, roles=(ONE, TWO), external_id="shared-with-them")
    assert place.amounts() == {(A, "Amazon S3", "global"): "1", (B, "Amazon S3", "global"): "2"}
    assert [(each["RoleArn"], each["ExternalId"], each["DurationSeconds"]) for each in aws.sts.assumed] == [
        (ONE, "shared-with-them", 3600),
        (TWO, "shared-with-them", 3600),
    ]
    assert {service for service, keys in aws.opened if keys} == {"ce", "organizations"}


def test_a_role_is_assumed_again_before_it_expires(place: Place) -> None:
    aws = two_payers()
    aws.sts.lasting = timedelta(seconds=301)  # one second of use
    aws.roles[ONE].ce.charges = [charge(A, f"s{n}", "global", "1") for n in range(30)]
    aws.roles[ONE].ce.cut = lambda _: 1
    collect(place, aws, roles=(ONE,))
    assert len(place.rows()) == 30
    assert len(aws.sts.assumed) > 3


def test_credentials_that_expire_early_are_renewed_once(place: Place) -> None:
    aws = two_payers()
    refusals = iter([True])

    def expired(operation: str, given: Mapping[str, Any]) -> None:
        if operation == "GetCostAndUsage" and next(refusals, False):
            raise refusal(operation, "ExpiredTokenException")

    aws.roles[ONE].ce.before = expired
    assert collect(place, aws, roles=(ONE,)).complete
    assert len(aws.sts.assumed) == 2
    aws.roles[ONE].ce.before = lambda operation, given: (_ for _ in ()).throw(
        refusal(operation, "ExpiredTokenException")
    )
    assert "ExpiredTokenException" in collect(place, aws, roles=(ONE,)).failed[A]


def test_a_payer_whose_role_cannot_be_assumed_fails_its_accounts_only(place: Place) -> None:
    aws = two_payers()
    collect(place, aws, roles=(ONE, TWO))
    aws.roles[ONE].ce.charges = [charge(A, "Amazon S3", "global", "4")]
    real = aws.sts.assume_role

    def denied(**given: Any) -> Any:
        if given["RoleArn"] == TWO:
            raise refusal("AssumeRole", "AccessDenied", 403)
        return real(**given)

    aws.sts.assume_role = denied  # type: ignore[method-assign]
    report = collect(place, aws, roles=(ONE, TWO))
    assert place.amounts() == {(A, "Amazon S3", "global"): "4", (B, "Amazon S3", "global"): "2"}
    assert report.failed[B].startswith("sts:AssumeRole answered AccessDenied")
    assert place.coverage()["failed"] == [B]
    # Its totals to compare with stay, too.
    assert [row[1] for row in place.json("reference/2026-10.json")["rows"]] == [A, B]


def test_accounts_asked_for_are_asked_of_the_payer_that_lists_them(place: Place) -> None:
    aws = two_payers()
    collect(place, aws, roles=(ONE, TWO), only=[B])
    assert place.amounts() == {(B, "Amazon S3", "global"): "2"}
    assert (place.coverage()["covered"], place.coverage()["failed"]) == ([B], [])
    assert loops_of(aws.roles[ONE]) == []


def test_a_payer_that_cannot_be_asked_is_no_success(place: Place) -> None:
    """Also when nobody knows yet which accounts it has."""
    aws = two_payers()
    aws.sts.error = refusal("AssumeRole", "AccessDenied", 403)
    report = collect(place, aws, roles=(ONE,))
    assert not report.complete
    assert report.unreached == {ONE: "sts:AssumeRole answered AccessDenied: no"}
    assert f"{ONE} could not be asked" in "\n".join(report.lines())


def test_an_account_that_two_payers_see_is_counted_once(place: Place) -> None:
    aws = two_payers(shared=True)
    collect(place, aws, roles=(ONE, TWO))
    assert place.amounts() == {(A, "Amazon S3", "global"): "1", (B, "Amazon S3", "global"): "2"}


# --- time and refusals --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("code", ["LimitExceededException", "ThrottlingException"])
def test_throttling_is_waited_out_longer_and_longer(place: Place, code: str) -> None:
    aws = aws_of(charge(A, "Amazon S3", "global", "1"))
    aws.ce.before = throttled(iter([False, *[True] * (ATTEMPTS - 1)]), code)
    report = collect(place, aws)
    assert report.complete
    assert report.requests == 3  # what was throttled is not billed
    waits = [seconds for seconds in aws.slept if seconds > 0.1]
    assert len(waits) == ATTEMPTS - 1
    assert all(2**n / 2 <= wait <= 2**n for n, wait in enumerate(waits[:7]))


def test_throttling_without_end_fails_the_account_and_nothing_is_lost(place: Place) -> None:
    aws = aws_of(charge(A, "Amazon S3", "global", "1"), charge(B, "Amazon S3", "global", "1"))
    collect(place, aws)
    aws.ce.before = refusing(B, code="ThrottlingException")
    report = collect(place, aws)
    assert "ThrottlingException" in report.failed[B]
    assert len(place.rows()) == 2


def test_when_time_runs_out_what_was_collected_is_written_and_the_rest_kept(place: Place) -> None:
    names = [f"{n:012}" for n in range(1, 8)]
    days = [charge(name, "Amazon S3", f"r{n}", "1") for name in names for n in range(8)]
    aws = aws_of(*days)
    collect(place, aws)
    aws.ce.charges = [charge(each.account, each.service, each.region, "2") for each in days]
    aws.left = 60.55  # pauses of 0.1 s until a minute is left
    report = collect(place, aws)
    values = [row["amortized_cost"] for row in place.rows()]
    assert {"1", "2"} == set(values)
    assert set(report.failed.values()) == {"not reached in the time this run may take"}
    assert len(values) == 56
    assert sorted(place.coverage()["failed"]) == sorted(report.failed)


def test_no_permission_names_the_action_and_writes_no_cost(place: Place) -> None:
    aws = aws_of(charge(A, "Amazon S3", "global", "1"))

    def denied(operation: str, given: Mapping[str, Any]) -> None:
        raise refusal(operation, "AccessDeniedException", 400, "User: arn is not authorized")

    aws.ce.before = denied
    report = collect(place, aws)
    assert report.failed == {
        A: "ce:GetCostAndUsage answered AccessDeniedException: User: arn is not authorized",
    }
    assert {name.split("/")[0] for name in place.names()} == {"collections"}
    assert report.requests == 0


@pytest.mark.parametrize(
    ("error", "tries", "said"),
    [
        (NoCredentialsError(), 1, "no usable AWS credentials"),
        (CredentialRetrievalError(provider="sso", error_msg="expired"), 1, "no usable AWS credentials"),
        (EndpointConnectionError(endpoint_url="https://ce"), 4, "AWS does not answer (EndpointConnectionError)"),
        (refusal("GetCostAndUsage", "InternalServerError", 500), 4, "ce:GetCostAndUsage answered InternalServerError"),
        (refusal("GetCostAndUsage", "DataUnavailableException"), 1, "answered DataUnavailableException"),
    ],
)
def test_only_what_may_pass_is_tried_again(place: Place, error: Exception, tries: int, said: str) -> None:
    aws = aws_of(charge(A, "Amazon S3", "global", "1"))
    asked: list[str] = []

    def fail(operation: str, given: Mapping[str, Any]) -> None:
        if operation == "GetCostAndUsage":
            asked.append(operation)
            raise error

    aws.ce.before = fail
    report = collect(place, aws)
    assert said in report.failed[A]
    assert len(asked) == tries


@pytest.mark.parametrize(
    ("page", "why"),
    [
        ({"ResultsByTime": [{"TimePeriod": {"Start": "2026-10-01", "End": "2026-11-01"}}]}, "instead of one day"),
        ({"ResultsByTime": [{"TimePeriod": {"Start": "soon"}}]}, "period"),
        ({"ResultsByTime": [{"TimePeriod": {"Start": "2026-10-01"}, "Groups": [{"Keys": ["a"]}]}]}, "1 keys"),
        (
            {"ResultsByTime": [{"TimePeriod": {"Start": "2026-10-01"}, "Groups": [{"Keys": ["a", "b"]}]}]},
            "no Amortized",
        ),
        (
            {"ResultsByTime": [{"TimePeriod": {"Start": "2026-10-01"}, "Total": {"BlendedCost": {"Amount": "5"}}}]},
            "total but no groups",
        ),
    ],
)
def test_a_reply_that_is_no_answer_fails_the_account(place: Place, page: dict[str, Any], why: str) -> None:
    aws = aws_of(charge(A, "Amazon S3", "global", "1"))
    collect(place, aws)
    aws.ce.get_cost_and_usage = lambda **_: page  # type: ignore[method-assign,assignment]
    report = collect(place, aws)
    assert why in report.failed[A]
    assert place.amounts() == {(A, "Amazon S3", "global"): "1"}


@pytest.mark.parametrize("amount", ["NaN", "Infinity", "", "1,5", "1_000", "1e400", "12 USD", None])
def test_what_is_no_amount_fails_the_account(place: Place, amount: Any) -> None:
    aws = aws_of(charge(A, "Amazon S3", "global", "1"), charge(B, "Amazon S3", "global", "2"))
    answer = aws.ce.get_cost_and_usage

    def wrong(**given: Any) -> dict[str, Any]:
        page = answer(**given)
        for result in page["ResultsByTime"]:
            for group in result["Groups"]:
                if A in json.dumps(given.get("Filter", "")):
                    group["Metrics"]["UnblendedCost"]["Amount"] = amount
        return page

    aws.ce.get_cost_and_usage = wrong  # type: ignore[method-assign]
    report = collect(place, aws)
    assert "unblended_cost" in report.failed[A]
    assert place.amounts() == {(B, "Amazon S3", "global"): "2"}


# --- what lies there already --------------------------------------------------------------------------------------

OLD = "account_id,Service,REGION,usage_quantity,amortized_cost,blended_cost,unblended_cost\n"


def test_rows_are_carried_over_from_a_file_of_another_hand(place: Place) -> None:
    place.put(f'{OLD}{B},"Amazon S3, old",eu-west-1,7,1.50,1E-7,3\n{A},x,y,1,1,1,1\n')
    aws = aws_of(charge(A, "Amazon S3", "global", "1"), charge(B, "Amazon S3", "global", "2"))
    aws.ce.before = refusing(B)
    collect(place, aws)
    [row] = [row for row in place.rows() if row["account"] == B]
    assert (row["service"], [row[metric] for metric in METRICS]) == (
        "Amazon S3, old",
        ["1.5", "0.0000001", "3", "7"],
    )


def test_an_account_that_lost_its_zeros_is_not_counted_twice(place: Place) -> None:
    place.put(f"{OLD}33333333333,x,y,1,1,1,1\n,z,y,1,1,1,1\n")
    aws = aws_of(charge(C, "Amazon S3", "global", "1"))
    assert collect(place, aws).complete
    assert place.amounts() == {(C, "Amazon S3", "global"): "1"}
    assert place.coverage()["covered"] == [C, "33333333333", "unknown"]


@pytest.mark.parametrize(
    ("old", "why"),
    [
        (f"{OLD},no account,y,1,1,1,1\n", "'unknown'"),
        ("account,service\n1,2\n", "no column"),
        (f"{OLD}{B},x,y,1,ten,1,1\n", "'ten'"),
        (f"{OLD}{B},x,y,1\n", "cells"),
        (f'{OLD}{B},"x\n', "cannot be read"),
    ],
)
def test_a_file_whose_rows_cannot_be_kept_is_left_while_an_account_fails(place: Place, old: str, why: str) -> None:
    place.put(old)
    aws = aws_of(charge(A, "Amazon S3", "global", "1"), charge(B, "Amazon S3", "global", "2"))
    aws.ce.before = refusing(B)
    report = collect(place, aws)
    assert why in report.left[DAY]
    assert place.file().decode() == old
    aws.ce.before = lambda *_: None
    assert collect(place, aws).complete
    assert len(place.rows()) == 2


def test_files_of_other_providers_are_not_touched(place: Place) -> None:
    old = f"provider,{OLD}azure,{A},x,y,1,1,1,1\n"
    place.put(old)
    report = collect(place, aws_of(charge(A, "Amazon S3", "global", "1")))
    assert "azure" in report.left[DAY]
    assert place.file().decode() == old


# --- two runs, and runs that die ----------------------------------------------------------------------------------


class Meddled:
    """A target behind which somebody else does something before the n-th write."""

    def __init__(self, target: Any, at: int, deed: Any) -> None:
        self.folder, self._target, self._at, self._deed = target.folder, target, at, deed
        self.writes = 0

    def read(self, name: str) -> Kept | None:
        found: Kept | None = self._target.read(name)
        return found

    def write(self, name: str, data: bytes, over: str | None) -> str:
        self.writes += 1
        if self.writes == self._at:
            self._deed()
        return str(self._target.write(name, data, over))


@pytest.mark.parametrize("at", range(1, 8))
def test_another_run_at_any_moment_loses_nothing(place: Place, at: int) -> None:
    """The other one began later and could not collect B, this one can: the end has the newest of each."""
    aws = aws_of(charge(A, "Amazon S3", "global", "1"), charge(B, "Amazon S3", "global", "1"))
    collect(place, aws)
    later = aws_of(charge(A, "Amazon S3", "global", "3"), charge(B, "Amazon S3", "global", "3"))
    later.now += timedelta(minutes=9)
    later.ce.before = refusing(B)
    aws.now += timedelta(minutes=5)
    aws.ce.charges = [charge(A, "Amazon S3", "global", "2"), charge(B, "Amazon S3", "global", "2")]
    collect(place, aws, target=Meddled(place.target, at, lambda: collect(place, later)))
    said = place.coverage()
    assert A in said["covered"]
    found = place.amounts()
    assert found[B, "Amazon S3", "global"] in ("1", "2")
    assert set(said["covered"]) | set(said["failed"]) == {A, B}
    if at <= 3:  # the later one had written before this one looked, or wrote under it
        assert found[A, "Amazon S3", "global"] == "3"
        assert found[B, "Amazon S3", "global"] == "2"


def test_a_coverage_that_another_run_left_behind_is_put_right(place: Place) -> None:
    """It wrote its coverage between our two writes, and died: the file would be about to speak for every account."""
    aws = aws_of(charge(A, "Amazon S3", "global", "1"), charge(B, "Amazon S3", "global", "1"))
    aws.ce.before = refusing(B)
    name = f"coverage/{DAY}.json"

    def leave() -> None:
        kept = place.target.read(name)
        assert kept is not None
        place.target.write(name, b'{"sha256": "of a file that was never written", "covered": []}', kept.version)

    collect(place, aws, target=Meddled(place.target, 3, leave))
    assert place.coverage()["failed"] == [B]  # place.coverage() checks that it is about the file


def test_a_coverage_put_beside_a_file_that_was_just_replaced_is_put_right(place: Place) -> None:
    """Another run has written its coverage, but not yet its file; ours finds the file unchanged and the coverage wrong."""
    aws = aws_of(charge(A, "Amazon S3", "global", "1"))
    collect(place, aws)
    other = Place(place.folder / "other")
    other.folder.mkdir()
    collect(other, aws_of(charge(A, "Amazon S3", "global", "2")))
    name = f"coverage/{DAY}.json"

    def replace(each: str) -> None:
        kept = place.target.read(each)
        place.target.write(each, (other.folder / each).read_bytes(), kept.version if kept else None)

    replace(name)
    aws.now += timedelta(hours=1)
    collect(place, aws, target=Meddled(place.target, 2, lambda: replace(f"costs/{DAY}.csv")))
    assert place.coverage()["covered"] == [A]


def test_two_processes_at_once_end_in_one_state(place: Place) -> None:
    from concurrent.futures import ThreadPoolExecutor

    days = DateRange(DAY, DAY + timedelta(days=12))
    charges = [charge(account, "Amazon S3", "global", "1.25", day=day) for account in (A, B) for day in days]

    def run(number: int) -> Report:
        return collect(Place(place.folder), aws_of(*charges), days)

    with ThreadPoolExecutor(4) as pool:
        reports = list(pool.map(run, range(4)))
    assert all(report.complete for report in reports)
    for day in days:
        assert place.coverage(day)["covered"] == [A, B]
        assert len(place.rows(day)) == 2
    assert len([name for name in place.names() if name.startswith("collections/")]) == 4


class Killed(Exception):
    pass


@pytest.mark.parametrize("at", range(1, 9))
def test_a_run_that_is_killed_before_any_write_is_repaired_by_the_next(place: Place, at: int) -> None:
    days = DateRange(DAY, DAY + timedelta(days=2))
    aws = aws_of(*(charge(account, "Amazon S3", "global", "1", day=day) for account in (A, B) for day in days))
    collect(place, aws, DateRange(DAY, DAY + timedelta(days=1)))
    aws.ce.charges = [charge(each.account, each.service, each.region, "2", day=each.day) for each in aws.ce.charges]

    def die() -> None:
        raise Killed

    target = Meddled(place.target, at, die)
    try:
        collect(place, aws, days, target=target)
    except Killed:
        # Whatever it left: a file is one of the two whole ones, and a coverage is of its file or of none.
        if (place.folder / f"costs/{DAY}.csv").exists():
            assert {row["amortized_cost"] for row in place.rows()} in ({"1"}, {"2"})
            data = (place.folder / f"coverage/{DAY}.json").read_bytes()
            spoken = sidecar(data, hashlib.sha256(place.file()).hexdigest())
            assert spoken in (None, (frozenset([A, B]), frozenset()))
    aws.now += timedelta(hours=1)
    assert collect(place, aws, days).complete
    for day in days:
        assert {row["amortized_cost"] for row in place.rows(day)} == {"2"}
        assert place.coverage(day)["covered"] == [A, B]


def test_a_target_that_others_write_all_the_time_is_given_up(place: Place) -> None:
    class Busy(Meddled):
        def write(self, name: str, data: bytes, over: str | None) -> str:
            if name.startswith("costs/"):
                raise Conflict(f"{name} was written by somebody else meanwhile.")
            return super().write(name, data, over)

    with pytest.raises(Unavailable, match="written by others"):
        collect(place, aws_of(charge(A, "s", "r", "1")), target=Busy(place.target, 0, None))


def test_what_may_not_be_written_is_said_before_anything_is_asked(place: Place) -> None:
    class Forbidden(Meddled):
        def write(self, name: str, data: bytes, over: str | None) -> str:
            raise BadCredentials("source", "S3 refused s3:PutObject on s3://b/x (AccessDenied).")

    aws = aws_of(charge(A, "Amazon S3", "global", "1"))
    with pytest.raises(BadCredentials, match="s3:PutObject"):
        collect(place, aws, target=Forbidden(place.target, 0, None))
    assert aws.ce.billed == 0


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    start=st.one_of(
        st.sampled_from(
            [date(2028, 2, 28), date(2028, 2, 29), date(2027, 2, 28), date(2027, 12, 31), date(2028, 3, 26)]
        ),
        st.dates(date(2026, 1, 1), date(2029, 12, 31)),
    ),
    length=st.integers(1, 5),
)
def test_days_are_half_open_across_every_boundary(
    tmp_path_factory: pytest.TempPathFactory, start: date, length: int
) -> None:
    """Month ends, leap days, days on which clocks change: each day's charges are in its file and nowhere else."""
    place = Place(tmp_path_factory.mktemp("any"))
    days = DateRange(start, start + timedelta(days=length))
    around = [start + timedelta(days=n) for n in range(-2, length + 2)]
    aws = aws_of(*(charge(A, f"of {day}", "global", "1", day=day) for day in around))
    report = collect(place, aws, days)
    assert sorted(report.written) == list(days)
    assert {name for name in place.names() if name.startswith("costs/")} == {f"costs/{day}.csv" for day in days}
    for day in days:
        assert place.amounts(day) == {(A, f"of {day}", "global"): "1"}
    asked = {(given["TimePeriod"]["Start"], given["TimePeriod"]["End"]) for _, given in aws.ce.asked}
    assert asked == {(str(days.start), str(days.end))}


# --- totals to reconcile with -------------------------------------------------------------------------------------


def test_the_reference_has_cost_explorers_own_totals(place: Place) -> None:
    aws = aws_of(
        charge(B, "Amazon S3", "global", "1.10", "1.2", "1.3", "9"),
        charge(B, "Amazon EC2", "global", "1E-7", "0", "0", "9"),
        charge(A, "Tax", "NoRegion", "-5", record_type="Tax"),
        charge(A, "Zero", "global", "0"),
    )
    collect(place, aws)
    assert place.json("reference/2026-10.json") == {
        "month": "2026-10",
        "collected": "2026-11-25T13:00:00Z",
        "currency": "USD",
        "metrics": ["amortized_cost", "blended_cost", "unblended_cost"],
        "rows": [
            ["2026-10-01", A, "Tax", "-5", "-5", "-5"],
            ["2026-10-01", B, "Usage", "1.1000001", "1.2", "1.3"],
        ],
    }


def test_the_reference_of_other_days_of_the_month_stays(place: Place) -> None:
    days = DateRange(date(2026, 10, 30), date(2026, 11, 3))
    aws = aws_of(*(charge(A, "Amazon S3", "global", "1", day=day) for day in days))
    collect(place, aws, days)
    assert [row[0] for row in place.json("reference/2026-10.json")["rows"]] == ["2026-10-30", "2026-10-31"]
    assert [row[0] for row in place.json("reference/2026-11.json")["rows"]] == ["2026-11-01", "2026-11-02"]
    aws.ce.charges = [charge(A, "Amazon S3", "global", "2", day=date(2026, 11, 2))]
    collect(place, aws, DateRange(date(2026, 11, 2), date(2026, 11, 3)))
    assert [row[3] for row in place.json("reference/2026-11.json")["rows"]] == ["1", "2"]


def test_twelve_accounts_of_a_month_by_their_clock(place: Place) -> None:
    """As in production: one question an account or a region, the whole month written, and its price is known."""
    days = DateRange(date(2026, 9, 1), date(2026, 10, 1))
    accounts = [f"{n:012}" for n in range(1, 13)]
    charges = [
        charge(account, service, region, "0.5", day=day)
        for day in days
        for account in accounts
        for service, region in itertools.product(("Amazon S3", "Amazon EC2"), ("eu-west-1", "us-east-1"))
    ]
    report = collect(place, aws_of(*charges), days)
    assert (len(report.written), report.requests, str(report.cost)) == (30, 5, "0.05")
    assert datetime(2026, 11, 25, 13, tzinfo=UTC) == report.started
