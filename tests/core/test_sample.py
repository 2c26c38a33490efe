from __future__ import annotations

import csv
import io
import json
import time
from collections import defaultdict
from collections.abc import Callable
from datetime import date, timedelta
from decimal import Decimal
from itertools import pairwise
from pathlib import Path
from statistics import fmean, median
from typing import NamedTuple

import numpy as np
import pytest

from app.adapters.folder import FolderSource
from app.core.sample import COLUMNS, Organisation, organisation
from app.core.samplestory import EC2, PLAN_START
from app.errors import InvalidInput
from app.sample import generate

TODAY = date(2026, 11, 24)
LAST = date(2026, 11, 23)
DAY = timedelta(days=1)
SETTLED = LAST + 30 * DAY
KEY = ("account", "service", "region", "charge_category")


class Row(NamedTuple):
    day: date
    account: str
    service: str
    region: str
    category: str
    amortized: float
    blended: float
    unblended: float
    quantity: float


@pytest.fixture(scope="module")
def sample() -> Organisation:
    return organisation(7, 400, LAST)


@pytest.fixture(scope="module")
def rows(sample: Organisation) -> list[Row]:
    """All settled rows."""
    return [row for n in range(400) for row in rows_of(sample, sample.first_day + n * DAY)]


def read(data: bytes) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(data.decode("ascii"), newline=""), strict=True))


def rows_of(sample: Organisation, day: date, as_of: date = SETTLED) -> list[Row]:
    lines = csv.reader(io.StringIO(sample.day_csv(day, as_of).decode("ascii"), newline=""), strict=True)
    assert ",".join(next(lines)) == COLUMNS
    return [
        Row(
            day, account, service, region, category, float(amortized), float(blended), float(unblended), float(quantity)
        )
        for _, account, service, region, amortized, blended, unblended, quantity, _, category, _, _ in lines
    ]


FIGURES = ("amortized_cost", "blended_cost", "unblended_cost", "usage_quantity")


def daily(
    rows: list[Row], want: Callable[[Row], bool] = lambda _: True, metric: str = "amortized"
) -> dict[date, float]:
    found: dict[date, float] = defaultdict(float)
    for row in rows:
        if want(row):
            found[row.day] += getattr(row, metric)
    return found


def usage(row: Row) -> bool:
    return row.category == "Usage"


def weekend_part(costs: dict[date, float]) -> float:
    """A weekend day's cost as a part of a weekday's, in the last eight weeks."""
    recent = {day: cost for day, cost in costs.items() if day > LAST - 56 * DAY}
    return fmean(c for d, c in recent.items() if d.weekday() > 4) / fmean(
        c for d, c in recent.items() if d.weekday() < 5
    )


# --- the same story every time ------------------------------------------------------------------------------------


def test_the_same_seed_gives_the_same_bytes_and_another_gives_others(sample: Organisation) -> None:
    again, other = organisation(7, 400, LAST), organisation(8, 400, LAST)
    for day in (sample.first_day, LAST - 100 * DAY, LAST):
        assert again.day_csv(day, TODAY) == sample.day_csv(day, TODAY)
        assert other.day_csv(day, TODAY) != sample.day_csv(day, TODAY)
    assert again.labels() == sample.labels()
    assert set(other.accounts) != set(sample.accounts)


@pytest.mark.parametrize(("days", "last"), [(30, LAST), (500, LAST), (401, LAST + DAY), (460, LAST + 60 * DAY)])
def test_a_settled_day_does_not_depend_on_the_days_asked_for(sample: Organisation, days: int, last: date) -> None:
    other = organisation(7, days, last, anchor=LAST)
    for day in (LAST - 29 * DAY, LAST - 23 * DAY, LAST - 11 * DAY, LAST - DAY, LAST):
        assert other.day_csv(day, SETTLED) == sample.day_csv(day, SETTLED)
        assert other.day_csv(day, TODAY) == sample.day_csv(day, TODAY)


def test_every_day_of_a_longer_sample_is_the_same(sample: Organisation) -> None:
    other = organisation(7, 700, LAST + 200 * DAY, anchor=LAST)
    days = [sample.first_day + n * DAY for n in range(400)]
    assert [day for day in days if other.day_csv(day, SETTLED) != sample.day_csv(day, SETTLED)] == []


@pytest.mark.alone
def test_400_days_take_less_than_four_seconds_of_one_core() -> None:
    started = time.process_time()
    sample = organisation(3, 400, LAST)
    for n in range(400):
        sample.day_csv(sample.first_day + n * DAY, TODAY)
    sample.labels()
    assert time.process_time() - started < 4


# --- files --------------------------------------------------------------------------------------------------------


def test_a_file_is_the_daily_csv(sample: Organisation) -> None:
    data = sample.day_csv(LAST - 40 * DAY, TODAY)
    assert data.endswith(b"\n")
    assert data.split(b"\n", 1)[0].decode() == COLUMNS
    lines = read(data)
    keys = [tuple(line[name] for name in KEY) for line in lines]
    assert keys == sorted(set(keys))
    assert {line["date"] for line in lines} == {str(LAST - 40 * DAY)}
    assert {line["currency"] for line in lines} == {"USD"}
    assert {line["estimated"] for line in lines} == {"false"}
    assert all(None not in line.values() and None not in line for line in lines)


def test_amounts_are_plain_decimals_of_at_most_ten_places(sample: Organisation) -> None:
    for line in read(sample.day_csv(LAST - 40 * DAY, TODAY)):
        for name in FIGURES:
            assert "e" not in line[name].lower()
            exponent = Decimal(line[name]).as_tuple().exponent
            assert isinstance(exponent, int)
            assert -10 <= exponent <= 0
        assert any(Decimal(line[name]) for name in FIGURES)


def test_nothing_is_minus_zero(sample: Organisation) -> None:
    assert all(b"-0.0000000000" not in sample.day_csv(LAST - n * DAY, SETTLED) for n in range(60))


def test_a_day_has_600_to_1500_rows(rows: list[Row]) -> None:
    counts = [len([1 for row in rows if row.day == day]) for day in (LAST - n * DAY for n in range(0, 400, 37))]
    assert 600 <= min(counts) <= max(counts) <= 1500


@pytest.mark.parametrize(("day", "as_of"), [(LAST, LAST), (LAST + DAY, TODAY + DAY), (LAST - 400 * DAY, TODAY)])
def test_a_day_that_is_not_reported_cannot_be_had(sample: Organisation, day: date, as_of: date) -> None:
    with pytest.raises(ValueError, match=str(day)):
        sample.day_csv(day, as_of)


# --- who and what -------------------------------------------------------------------------------------------------


def test_accounts_have_twelve_digits_and_names(sample: Organisation, rows: list[Row]) -> None:
    assert len(sample.accounts) >= 12
    assert all(len(number) == 12 and number.isdigit() for number in sample.accounts)
    assert any(number.startswith("0") for number in sample.accounts)
    assert len(set(sample.accounts.values())) == len(sample.accounts)
    assert {row.account for row in rows} == set(sample.accounts)


def test_services_are_many_and_spelled_as_cost_explorer_does(rows: list[Row]) -> None:
    services = {row.service for row in rows}
    assert len(services) >= 25
    assert {
        "Amazon Elastic Compute Cloud - Compute",
        "EC2 - Other",
        "Amazon Simple Storage Service",
        "Amazon Relational Database Service",
        "AmazonCloudWatch",
        "Tax",
        "AWS Support (Business)",
        "Savings Plans for AWS Compute usage",
    } <= services


def test_regions_are_at_least_ten_with_global_and_none(rows: list[Row]) -> None:
    regions = {row.region for row in rows}
    assert {"global", "NoRegion"} <= regions
    assert len(regions - {"global", "NoRegion"}) >= 10
    assert {row.region for row in rows if row.service in ("Tax", "AWS Support (Business)")} == {"NoRegion"}


def test_a_company_of_400_000_dollars_a_month(rows: list[Row]) -> None:
    last_30 = [row for row in rows if row.day > LAST - 30 * DAY]
    total = sum(row.amortized for row in last_30)
    assert 350_000 < total < 450_000
    part = {
        name: sum(row.amortized for row in last_30 if row.service == name) / total for name in {r.service for r in rows}
    }
    assert 0.25 < part[EC2] < 0.35
    assert max(part, key=lambda name: part[name]) == EC2
    assert 0.07 < part["Amazon Relational Database Service"] < 0.15
    assert 0.04 < part["Amazon Simple Storage Service"] < 0.10
    assert 0.02 < part["Amazon CloudFront"] < 0.06
    assert 0.02 < part["AWS Data Transfer"] < 0.06


def test_it_grows(rows: list[Row]) -> None:
    costs = daily(rows, usage)
    first = sum(costs[LAST - n * DAY] for n in range(364, 392))
    last = sum(costs[LAST - n * DAY] for n in range(28))
    assert 1.05 < last / first < 1.5


# --- rhythm -------------------------------------------------------------------------------------------------------


def test_weekends_dip_visibly_in_the_total(rows: list[Row]) -> None:
    assert 0.75 < weekend_part(daily(rows, usage)) < 0.92


def test_kinds_of_services_have_their_own_weekends(sample: Organisation, rows: list[Row]) -> None:
    names = {name: number for number, name in sample.accounts.items()}
    web = weekend_part(daily(rows, lambda row: row.service == "Amazon CloudFront"))
    batch = weekend_part(daily(rows, lambda row: row.service == "AWS Glue"))
    storage = weekend_part(daily(rows, lambda row: row.service == "Amazon Simple Storage Service"))
    development = weekend_part(daily(rows, lambda row: row.service == EC2 and row.account == names["development"]))
    assert development < 0.55 < web < 0.9 < storage < 1.05 < batch


def test_month_ends_are_busy_for_batch_work(rows: list[Row]) -> None:
    costs = daily(rows, lambda row: row.service == "AWS Glue")
    ends = [day for day in costs if (day + 2 * DAY).month != day.month and costs.get(day - 7 * DAY)]
    assert median(costs[day] / costs[day - 7 * DAY] for day in ends) > 1.2


def test_data_transfer_follows_the_traffic(sample: Organisation, rows: list[Row]) -> None:
    """Day by day, beyond weekdays and holidays, which all web services share."""
    names = {name: number for number, name in sample.accounts.items()}
    changes = []
    for service in ("AWS Data Transfer", "Amazon CloudFront"):
        costs = daily(rows, lambda row, service=service: row.service == service and row.account == names["prod-web"])
        days = [day for day in sorted(costs) if date(2026, 1, 15) < day < date(2026, 11, 20)]
        changes.append([np.log(costs[day] / costs[day - 7 * DAY]) for day in days])
    assert np.corrcoef(changes)[0, 1] > 0.4


# --- what a bill has ----------------------------------------------------------------------------------------------


def test_tax_and_support_come_on_the_first(rows: list[Row]) -> None:
    for service in ("Tax", "AWS Support (Business)"):
        costs = daily(rows, lambda row, service=service: row.service == service)
        assert {day.day for day in costs} == {1}
        assert len(costs) == 13
        assert min(costs.values()) > 2000


def test_support_is_billed_from_the_accounts_last_month(sample: Organisation, rows: list[Row]) -> None:
    [fee] = [row for row in rows if row.day == date(2026, 11, 1) and row.service == "AWS Support (Business)"]
    october = sum(
        row.unblended
        for row in rows
        if (row.day.month, row.account) == (10, fee.account) and row.day.year == 2026 and usage(row)
    )
    assert sample.accounts[fee.account] == "prod-web"
    assert october > 80_000
    assert fee.unblended == pytest.approx(1000 + 4900 + 0.05 * (october - 80_000), abs=0.02)


def test_credits_are_negative(rows: list[Row]) -> None:
    given = [row for row in rows if row.category == "Credit"]
    assert len(given) >= 13
    assert all(row.amortized < 0 and row.unblended < 0 and row.quantity == 0 for row in given)
    assert all(row.amortized >= 0 for row in rows if row.category != "Credit")


def test_one_reservation_is_a_spike_in_unblended_that_amortized_spreads(rows: list[Row]) -> None:
    [purchase] = [row for row in rows if row.category == "Purchase" and row.service.startswith("Amazon Relational")]
    assert LAST - 60 * DAY < purchase.day < LAST - 30 * DAY
    assert purchase.amortized == 0
    unblended, amortized = daily(rows, metric="unblended"), daily(rows)
    around = [purchase.day + n * DAY for n in range(-7, 8) if n]
    assert unblended[purchase.day] > 2.5 * max(unblended[day] for day in around)
    assert amortized[purchase.day] < 1.1 * max(amortized[day] for day in around)
    # From then on each day carries its part of the fee, which was paid already.
    covered = [amortized[purchase.day + n * DAY] - unblended[purchase.day + n * DAY] for n in range(1, 18)]
    assert covered == pytest.approx([purchase.unblended / 365] * 17, rel=0.02)


def test_the_savings_plan_lowers_what_an_hour_costs(sample: Organisation, rows: list[Row]) -> None:
    start = LAST + PLAN_START * DAY

    def rate(metric: str, first: date) -> float:
        chosen = [
            r
            for r in rows
            if r.service == EC2 and first <= r.day < first + 28 * DAY and r.region == "us-east-1" and usage(r)
        ]
        return sum(getattr(row, metric) for row in chosen) / sum(row.quantity for row in chosen)

    on_demand = rate("amortized", start - 28 * DAY)
    assert 0.75 * on_demand < rate("amortized", start) < 0.9 * on_demand
    assert rate("unblended", start) < 0.6 * on_demand
    fees = daily(rows, lambda row: row.service == "Savings Plans for AWS Compute usage", "unblended")
    assert min(fees) == start
    assert len(set(fees.values())) == 1


def test_the_plans_fee_is_what_amortized_gives_to_usage(rows: list[Row]) -> None:
    before = [row for row in rows if LAST + PLAN_START * DAY <= row.day < LAST - 50 * DAY]
    assert sum(row.amortized for row in before) == pytest.approx(sum(row.unblended for row in before), abs=0.01)
    assert sum(row.amortized for row in before if row.service == EC2) > 1.2 * sum(
        row.unblended for row in before if row.service == EC2
    )


def test_blended_is_the_organisations_average_rate(rows: list[Row]) -> None:
    day = [row for row in rows if row.day == LAST - 20 * DAY]
    assert sum(row.blended for row in day) == pytest.approx(sum(row.unblended for row in day), abs=1e-6)
    chosen = [
        row
        for row in day
        if (row.service, row.region) == ("Amazon Relational Database Service", "us-east-1") and usage(row)
    ]
    assert len(chosen) > 5
    assert [row.blended / row.quantity for row in chosen] == pytest.approx(
        [chosen[0].blended / chosen[0].quantity] * len(chosen)
    )
    assert len({round(row.unblended / row.quantity, 4) for row in chosen}) == len(chosen)


# --- what changes -------------------------------------------------------------------------------------------------


def test_an_account_closes_and_one_opens_with_new_regions(sample: Organisation, rows: list[Row]) -> None:
    names = {name: number for number, name in sample.accounts.items()}
    bills = {"Tax"}  # the last bill comes after the last use
    closed = daily(rows, lambda row: row.account == names["legacy-monolith"] and row.service not in bills)
    opened = daily(rows, lambda row: row.account == names["prod-apac"])
    assert min(closed) == sample.first_day
    assert max(closed) < LAST - 90 * DAY
    assert min(opened) > sample.first_day + 100 * DAY
    assert max(opened) == LAST
    sydney = [row.day for row in rows if row.region == "ap-southeast-2" and row.service == EC2]
    assert min(sydney) == min(opened)


def test_a_service_is_adopted_half_way(rows: list[Row]) -> None:
    costs = daily(rows, lambda row: row.service == "Amazon Bedrock")
    assert LAST - 250 * DAY < min(costs) < LAST - 100 * DAY
    assert costs[LAST - 7 * DAY] > 5 * costs[min(costs) + 7 * DAY]


def test_changes_are_labelled_as_no_anomalies(sample: Organisation) -> None:
    kinds = {change["kind"] for change in sample.labels()["changes"]}
    assert kinds == {
        "service_launch",
        "account_opened",
        "account_closed",
        "region_expansion",
        "savings_plan",
        "reservation",
    }
    benign = {entry["kind"] for entry in sample.labels()["benign"]}
    assert benign == {"month_start_charge", "refund", "holiday"}


# --- anomalies ----------------------------------------------------------------------------------------------------


def test_labels_have_the_fields_of_the_scorer(sample: Organisation) -> None:
    labels = json.loads(json.dumps(sample.labels()))
    assert labels["metric"] == "amortized_cost"
    assert (labels["first_day"], labels["eval_end"]) == (str(sample.first_day), str(LAST))
    assert labels["eval_start"] == str(sample.first_day + 60 * DAY)
    assert {event["kind"] for event in labels["events"]} == {
        "spike", "level_shift", "leak", "new_service", "new_region", "drop", "weekend",
    }  # fmt: skip
    for event in labels["events"]:
        assert event["scope"]["account"] in sample.accounts
        length = (date.fromisoformat(event["end"]) - date.fromisoformat(event["start"])).days + 1
        assert len(event["daily"]) == length
        assert sum(event["daily"]) == pytest.approx(event["impact"], abs=0.01 * length)
        assert event["start"] <= event["detect_by"]
        assert abs(event["peak_daily"]) >= labels["materiality"]["daily"]
        assert abs(event["impact"]) >= labels["materiality"]["total"]


def test_a_failed_weekend_shutdown_costs_on_weekends(sample: Organisation) -> None:
    [event] = [event for event in sample.labels()["events"] if event["kind"] == "weekend"]
    days = [date.fromisoformat(event["start"]) + n * DAY for n in range(len(event["daily"]))]
    assert {day.weekday() for day, dollars in zip(days, event["daily"], strict=True) if dollars} == {5, 6}


def test_every_label_is_visible_in_the_data(sample: Organisation, rows: list[Row]) -> None:
    by_key: dict[tuple[str, str, str], dict[date, float]] = defaultdict(lambda: defaultdict(float))
    for row in filter(usage, rows):
        by_key[row.account, row.service, row.region][row.day] += row.amortized
    events = sample.labels()["events"]
    assert len(events) >= 12
    for event in events:
        costs = by_key[event["scope"]["account"], event["scope"]["service"], event["scope"]["region"]]
        days = [date.fromisoformat(event["start"]) + n * DAY for n in range(len(event["daily"]))]
        usual = {
            day: median(
                [
                    costs.get(day + week * 7 * DAY, 0.0)
                    for week in (-6, -5, -4, 4, 5, 6)
                    if sample.first_day <= day + week * 7 * DAY <= LAST
                ]
            )
            for day in days
        }
        seen = sum(costs[day] - usual[day] for day in days)
        assert seen == pytest.approx(event["impact"], rel=0.35), event


def test_the_days_of_a_label_add_up_to_its_dollars_exactly(sample: Organisation, rows: list[Row]) -> None:
    """Where nothing else costs: a region and a service that are used in no other way."""
    fresh = [event for event in sample.labels()["events"] if event["kind"] in ("new_region", "new_service")]
    assert len(fresh) >= 2
    labelled, costing = 0, set()
    for event in fresh:
        scope = event["scope"]
        costs = daily(
            rows, lambda r, s=scope: (r.account, r.service, r.region) == (s["account"], s["service"], s["region"])
        )
        days = [date.fromisoformat(event["start"]) + n * DAY for n in range(len(event["daily"]))]
        assert [costs[day] for day in days] == pytest.approx(event["daily"], abs=0.006)
        labelled += len(days)
        costing |= {(event["scope"]["service"], day) for day in costs}
    assert len(costing) == labelled


@pytest.mark.parametrize("later", range(0, 400, 9))
def test_the_last_30_days_always_show_an_anomaly(later: int) -> None:
    last = LAST + later * DAY
    events = organisation(7, 30, last, anchor=LAST).labels()["events"]
    assert any(event["end"] >= str(last - 29 * DAY) for event in events)


def test_an_anomaly_shows_from_its_first_day_on(sample: Organisation) -> None:
    starts = {event["start"] for event in sample.labels()["events"]} - {str(sample.first_day)}
    for start in map(date.fromisoformat, starts):
        seen = organisation(7, 1, start, anchor=LAST)
        assert [event["start"] for event in seen.labels()["events"]] == [str(start)]
        assert seen.day_csv(start, SETTLED) == sample.day_csv(start, SETTLED)


def test_the_first_view_shows_a_visible_anomaly(sample: Organisation, rows: list[Row]) -> None:
    event = sample.labels()["events"][-1]
    start, end = date.fromisoformat(event["start"]), date.fromisoformat(event["end"])
    assert LAST - 30 * DAY < start <= end < LAST - 3 * DAY
    total = daily(rows, usage)
    assert all(total[start + n * DAY] > 1.1 * total[start + n * DAY - 7 * DAY] for n in range((end - start).days + 1))


# --- late data ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("age", [1, 2])
def test_the_newest_days_are_incomplete_and_estimated(sample: Organisation, age: int) -> None:
    day = TODAY - age * DAY
    reported, final = sample.day_csv(day, TODAY), sample.day_csv(day, SETTLED)
    assert {line["estimated"] for line in read(reported)} == {"true"}
    assert {line["estimated"] for line in read(final)} == {"false"}
    known = sum(row.amortized for row in rows_of(sample, day, TODAY)) / sum(
        row.amortized for row in rows_of(sample, day)
    )
    assert (0.5 < known < 0.85) if age == 1 else (0.9 < known < 0.995)


def test_late_services_are_missing_at_first(sample: Organisation) -> None:
    first, second = ({row.service for row in rows_of(sample, LAST, LAST + n * DAY)} for n in (1, 2))
    assert second - first == {"Amazon Simple Storage Service", "Amazon CloudFront", "AWS Data Transfer", "AWS Backup"}


def test_a_day_is_restated_twice_and_then_stays(sample: Organisation) -> None:
    reports = [sample.day_csv(LAST, LAST + n * DAY) for n in range(1, 30)]
    assert len(set(reports)) == 3
    assert set(reports[2:]) == {reports[2]}


# --- writing ------------------------------------------------------------------------------------------------------


def days_below(out: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted((out / "costs").iterdir())}


def test_generate_writes_all_days_and_labels(tmp_path: Path) -> None:
    assert generate(tmp_path / "sample", days=40, seed=7, today=TODAY) == 40
    files = days_below(tmp_path / "sample")
    assert list(files) == [f"{LAST - n * DAY}.csv" for n in range(39, -1, -1)]
    assert files[f"{LAST}.csv"] == organisation(7, 40, LAST).day_csv(LAST, TODAY)
    assert json.loads((tmp_path / "sample" / "labels.json").read_bytes()) == organisation(7, 40, LAST).labels()


def test_generate_again_the_same_day_touches_nothing(tmp_path: Path) -> None:
    generate(tmp_path, days=30, seed=7, today=TODAY)
    source = FolderSource((tmp_path / "costs").as_uri() + "/")
    before = list(source.list())
    assert generate(tmp_path, days=30, seed=7, today=TODAY) == 0
    assert list(source.list()) == before


def test_the_next_day_adds_one_and_restates_the_settling_ones(tmp_path: Path) -> None:
    generate(tmp_path, days=30, seed=7, today=TODAY)
    before = days_below(tmp_path)
    assert generate(tmp_path, days=30, seed=7, today=TODAY + DAY) == 3
    after = days_below(tmp_path)
    changed = {name for name in after if after[name] != before.get(name)}
    assert changed == {f"{LAST - DAY}.csv", f"{LAST}.csv", f"{TODAY}.csv"}
    assert before.keys() < after.keys()


def test_the_story_goes_on_after_a_pause(tmp_path: Path) -> None:
    generate(tmp_path, days=30, seed=7, today=TODAY)
    labels = json.loads((tmp_path / "labels.json").read_bytes())
    assert generate(tmp_path, days=30, seed=7, today=TODAY + 45 * DAY) == 47
    days = sorted(date.fromisoformat(name[:10]) for name in days_below(tmp_path))
    assert all(later - earlier == DAY for earlier, later in pairwise(days))
    assert len(days) == 75
    later = json.loads((tmp_path / "labels.json").read_bytes())
    settled = [event for event in labels["events"] if event["end"] < str(LAST - 3 * DAY)]
    assert settled
    assert [event["daily"] for event in later["events"][: len(settled)]] == [event["daily"] for event in settled]


def test_more_days_take_in_earlier_ones_and_change_no_other(tmp_path: Path) -> None:
    generate(tmp_path, days=30, seed=7, today=TODAY)
    before = days_below(tmp_path)
    assert generate(tmp_path, days=50, seed=7, today=TODAY) == 20
    assert {name: data for name, data in days_below(tmp_path).items() if name in before} == before
    assert generate(tmp_path, days=30, seed=7, today=TODAY) == 0


def test_a_damaged_file_is_mended_by_a_new_one(tmp_path: Path) -> None:
    generate(tmp_path, days=30, seed=7, today=TODAY)
    path = tmp_path / "costs" / f"{LAST}.csv"
    good = path.read_bytes()
    path.write_bytes(b"damaged")
    (tmp_path / "still-open").hardlink_to(path)
    assert generate(tmp_path, days=30, seed=7, today=TODAY) == 1
    assert path.read_bytes() == good
    assert (tmp_path / "still-open").read_bytes() == b"damaged"


def test_another_seed_does_not_mix_with_what_is_there(tmp_path: Path) -> None:
    generate(tmp_path, days=30, seed=7, today=TODAY)
    before = days_below(tmp_path)
    with pytest.raises(InvalidInput, match="seed 7, not 8"):
        generate(tmp_path, days=30, seed=8, today=TODAY)
    assert days_below(tmp_path) == before


def test_real_cost_files_are_never_overwritten(tmp_path: Path) -> None:
    (tmp_path / "costs").mkdir()
    (tmp_path / "costs" / f"{LAST}.csv").write_bytes(b"real")
    with pytest.raises(InvalidInput, match="not the sample's"):
        generate(tmp_path, days=30, seed=7, today=TODAY)
    assert days_below(tmp_path) == {f"{LAST}.csv": b"real"}
    (tmp_path / "labels.json").write_text('{"mine": 1}')
    with pytest.raises(InvalidInput, match="is not the sample's"):
        generate(tmp_path, days=30, seed=7, today=TODAY)
