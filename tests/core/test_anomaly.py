"""What the detector says of each known shape of cost, and what must never change what it says."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from app.core.anomaly import Anomaly, Detector, severity_of
from app.core.scopes import Scope
from app.core.suspects import Materiality, longest_gap
from tests.organisation import ACCOUNTS, DAYS, Organisation, day_at, delivery, organisation

SLOW = settings(max_examples=4, deadline=None, suppress_health_check=[HealthCheck.too_slow])
WHEN = 90
SERIES = 3


def shapes(alerts: list[Anomaly]) -> list[tuple[str, Scope]]:
    return [(alert.kind, alert.scope) for alert in alerts]


def scope_of(org: Organisation, series: int = SERIES) -> Scope:
    return Scope.of(org.keys[series])


def test_quiet_weekends_and_incomplete_days_are_nothing() -> None:
    assert organisation(weekend=0.4).alerts() == []


@pytest.mark.parametrize("first", [0.3, 0.9])
def test_how_incomplete_the_newest_day_is_does_not_matter(first: float) -> None:
    assert organisation().alerts(first=first) == []


def test_a_spike_is_told_on_its_day_with_its_dollars() -> None:
    org = organisation()
    usual = org.costs[SERIES, WHEN]
    org.costs[SERIES, WHEN] *= 3
    (alert,) = org.alerts()
    assert (alert.kind, alert.scope, alert.date, alert.detected_on) == (
        "rise",
        scope_of(org),
        day_at(WHEN),
        day_at(WHEN),
    )
    assert alert.impact == pytest.approx(2 * usual, rel=0.2)
    assert alert.low < alert.expected < alert.high < alert.actual
    assert alert.root_causes == (alert.scope,)


def test_a_level_shift_is_told_once_and_carried_on() -> None:
    org = organisation()
    org.costs[SERIES, WHEN:] *= 1.8
    detector = Detector(min_daily=10, min_total=40)
    alerts = [alert for arrived in org.deliveries() for alert in detector.deliver(arrived)]
    assert shapes(alerts) == [("rise", scope_of(org))]
    (now,) = detector.anomalies
    assert now.state == "ongoing"
    assert now.date == day_at(DAYS - 2)
    assert now.impact == pytest.approx(org.costs[SERIES, WHEN : DAYS - 1].sum() * 0.8 / 1.8, rel=0.1)


def at_the_end(org: Organisation, restated: dict[tuple[int, int], float]) -> Anomaly:
    """The only anomaly, when on the last day these (series, day) arrive again with another cost."""
    detector = Detector(min_daily=10, min_total=40)
    *before, last = org.deliveries()
    more = delivery(org.keys, DAYS - 1, [(series, day, cost) for (series, day), cost in restated.items()])
    columns = {
        name: np.concatenate([getattr(last, name), getattr(more, name)]) for name in ("series", "days", "amounts")
    }
    for arrived in (*before, replace(last, **columns)):
        detector.deliver(arrived)
    (found,) = detector.anomalies
    return found


@pytest.mark.parametrize("factor", [1.5, 0.8, 0.0])
def test_dollars_of_a_day_follow_its_restatement_to_the_cent(factor: float) -> None:
    org = organisation()
    org.costs[SERIES, WHEN:] *= 1.8
    day = WHEN + 3
    cost = float(org.costs[SERIES, day])
    before, after = at_the_end(org, {}), at_the_end(org, {(SERIES, day): cost * factor})
    # The level was adopted: what is learned of it now changes what was expected of the newest day, which is new too.
    newest = after.expected - before.expected
    assert after.impact - before.impact + newest == pytest.approx(cost * (factor - 1), abs=0.005)
    assert abs(newest) < 1
    assert after.impact == pytest.approx(sum(part.impact for part in after.contributions))
    unmoved = ("id", "start", "date", "state", "actual", "detected_on")
    assert all(getattr(after, name) == getattr(before, name) for name in unmoved)


def test_a_day_outside_moves_no_dollars_and_estimates_become_what_arrived() -> None:
    org = organisation()
    org.costs[SERIES, WHEN : WHEN + 4] *= 3
    before = at_the_end(org, {})
    assert before.state == "resolved"
    assert at_the_end(org, {(SERIES + 1, WHEN): 9.0, (SERIES, WHEN - 20): 9.0}) == before
    # Each day was counted on the day after it, as an estimate; final costs less what was expected is all that is left.
    expected = org.costs[SERIES, WHEN : WHEN + 4].sum() / 3
    assert before.impact == pytest.approx(2 * expected, rel=0.05)
    later = at_the_end(org, {(SERIES, WHEN + 1): float(org.costs[SERIES, WHEN + 1]) + 100})
    assert later.impact - before.impact == pytest.approx(100, abs=0.005)


def test_the_way_back_from_a_level_shift_is_no_drop() -> None:
    org = organisation(days=150)
    org.costs[SERIES, 70:110] *= 2.5
    detector = Detector(min_daily=10, min_total=40)
    alerts = [alert for arrived in org.deliveries() for alert in detector.deliver(arrived)]
    assert shapes(alerts) == [("rise", scope_of(org))]
    assert detector.anomalies[0].state == "resolved"


def test_a_weekend_job_is_told_once() -> None:
    org = organisation()
    for day in range(WHEN, DAYS):
        if day_at(day).weekday() >= 5:
            org.costs[SERIES, day] *= 3
    assert shapes(org.alerts()) == [("rise", scope_of(org))]


def test_a_leak_is_told_once() -> None:
    org = organisation()
    org.costs[SERIES, 80:] *= np.linspace(1, 2.2, DAYS - 80)
    assert [alert.scope for alert in org.alerts()] == [scope_of(org)]


def test_a_drop_is_told_and_one_low_day_is_not() -> None:
    org = organisation()
    org.costs[SERIES, WHEN : WHEN + 8] = 0
    (alert,) = org.alerts()
    assert (alert.kind, alert.scope, alert.start) == ("drop", scope_of(org), day_at(WHEN))
    assert alert.impact < 0
    org = organisation()
    org.costs[SERIES, WHEN] = 0
    assert org.alerts() == []


@pytest.mark.parametrize("size", [0.5, 0.9, 2.5])
def test_a_refund_is_nothing(size: float) -> None:
    org = organisation()
    org.costs[SERIES, WHEN] *= 1 - size
    assert org.alerts() == []


def test_charges_of_the_first_of_the_month_are_nothing() -> None:
    org = organisation()
    lump = np.array([5000.0 if day_at(day).day == 1 else 0.0 for day in range(DAYS)]) * np.linspace(1, 1.3, DAYS)
    org.complete_on_arrival = {org.add("Tax", lump, region="global"), org.add("Credits", -0.2 * lump, region="global")}
    assert org.alerts() == []


def test_a_months_end_is_nothing_the_third_time() -> None:
    org = organisation()
    ends = [day for day in range(DAYS) if day_at(day + 1).day == 1]
    org.costs[SERIES, ends] *= 1.8
    assert [alert for alert in org.alerts() if alert.detected_on >= day_at(ends[2])] == []


def test_a_months_end_is_expected_and_the_bill_stays_the_bill() -> None:
    """What a month's end usually brings raises what is expected of it; it is not taken off what was billed."""
    org = organisation()
    ends = [day for day in range(DAYS) if day_at(day + 1).day == 1]
    org.costs[SERIES, ends] *= 1.8
    usual, odd = org.costs[SERIES, ends[2]], 3 * org.costs[SERIES, ends[2]]
    org.costs[SERIES, ends[2]] = odd
    (alert,) = [alert for alert in org.alerts() if alert.detected_on >= day_at(ends[2])]
    assert alert.date == day_at(ends[2])
    assert alert.actual == pytest.approx(odd, rel=0.1)
    assert alert.expected == pytest.approx(usual, rel=0.15)


def test_a_new_service_is_told_with_all_of_its_cost() -> None:
    org = organisation()
    costs = np.zeros(DAYS)
    costs[WHEN:] = 80
    series = org.add("Model training", costs)
    (alert,) = org.alerts()
    assert (alert.kind, alert.scope, alert.expected, alert.start) == (
        "new_cost",
        scope_of(org, series),
        0,
        day_at(WHEN),
    )


def test_new_services_in_one_region_are_one_alert() -> None:
    org = organisation()
    costs = np.zeros(DAYS)
    costs[WHEN : WHEN + 10] = 80
    org.add("Compute", costs, region="moon")
    org.add("Network", costs / 4, region="moon")
    (alert,) = org.alerts()
    assert alert.scope == Scope(account=ACCOUNTS[0], region="moon")
    assert alert.root_causes[0] == Scope(ACCOUNTS[0], "Compute", "moon")
    assert len(alert.contributions) == 2


def test_a_series_that_comes_and_goes_is_nothing() -> None:
    org = organisation()
    random = np.random.default_rng(1)
    org.add("Batch", np.where(random.random(DAYS) < 0.4, 90.0, 0) * np.exp(random.normal(0, 0.4, DAYS)))
    assert org.alerts() == []


def test_what_moves_an_account_is_one_alert_for_the_account() -> None:
    org = organisation()
    org.costs[:5, WHEN : WHEN + 4] *= 1.7
    (alert,) = org.alerts()
    assert alert.scope == Scope(account=ACCOUNTS[0])
    assert alert.root_causes[0] == alert.scope
    assert sum(part.impact for part in alert.contributions) == pytest.approx(alert.impact)


def test_a_price_that_rises_a_little_everywhere_is_found_in_the_sum() -> None:
    org = organisation()
    random = np.random.default_rng(3)
    accounts = [f"{n}" * 12 for n in range(3, 9)]
    for account in accounts:
        for number in range(4):
            org.add(f"Own {number}", 50 * np.exp(random.normal(0, 0.05, DAYS)), account)
    members = [org.add("Egress", 50 * np.exp(random.normal(0, 0.07, DAYS)), account) for account in accounts]
    org.costs[members, WHEN:] *= 1.25
    alerts = org.alerts()
    assert [alert.scope for alert in alerts] == [Scope(service="Egress")]


def test_data_that_stops_arriving_is_a_notice_and_no_drop() -> None:
    org = organisation()
    for series in range(8):
        org.held |= {(series, day): WHEN + 5 for day in range(WHEN, WHEN + 3)}
    (notice,) = org.alerts()
    assert (notice.kind, notice.scope) == ("data_outage", Scope(account=ACCOUNTS[0]))


def test_too_few_dollars_are_nothing() -> None:
    org = organisation()
    org.costs[SERIES, WHEN] *= 3
    assert org.alerts(daily=500) == []
    assert org.alerts(total=5000) == []


def test_an_empty_or_short_history_says_nothing() -> None:
    assert organisation().alerts(days=20) == []
    assert Organisation([], np.zeros((0, DAYS))).alerts() == []


def with_incidents(seed: int) -> Organisation:
    org = organisation(seed)
    random = np.random.default_rng(seed)
    for series in random.choice(16, 5, replace=False).tolist():
        begin = int(random.integers(50, 110))
        org.costs[series, begin : begin + int(random.integers(1, 15))] *= random.choice([0.02, 2.0, 4.0])
    return org


@SLOW
@given(st.integers(0, 10_000), st.integers(60, DAYS - 1))
def test_the_future_changes_no_alert_of_the_past(seed: int, days: int) -> None:
    org = with_incidents(seed)
    cut = org.alerts(days=days)
    assert cut == [alert for alert in org.alerts() if alert.detected_on < day_at(days)]


@SLOW
@given(st.integers(0, 10_000), st.sampled_from([1 / 128, 0.25, 8.0, 1024.0]))
def test_another_currency_changes_only_the_amounts(seed: int, factor: float) -> None:
    org = with_incidents(seed)
    alerts = org.alerts()
    org.costs = org.costs * factor
    scaled = org.alerts(daily=10 * factor, total=40 * factor)
    assert [replace_amounts(alert) for alert in scaled] == [replace_amounts(alert) for alert in alerts]
    assert [alert.impact for alert in scaled] == pytest.approx([alert.impact * factor for alert in alerts])


def replace_amounts(alert: Anomaly) -> Anomaly:
    return replace(alert, expected=0, low=0, high=0, actual=0, impact=0, contributions=())


@SLOW
@given(st.integers(0, 10_000))
def test_a_series_without_cost_changes_nothing(seed: int) -> None:
    org = with_incidents(seed)
    alerts = org.alerts()
    org.add("Nothing", np.zeros(DAYS))
    assert org.alerts() == alerts


def test_the_order_of_series_changes_nothing() -> None:
    org = with_incidents(5)
    order = np.random.default_rng(0).permutation(16)
    other = Organisation([org.keys[n] for n in order], org.costs[order])
    assert [replace_amounts(alert) for alert in other.alerts()] == [replace_amounts(alert) for alert in org.alerts()]


@pytest.mark.parametrize(("impact", "severity"), [(-50, "low"), (399, "medium"), (-1000, "high")])
def test_severity_counts_dollars_whatever_their_sign(impact: float, severity: str) -> None:
    assert severity_of(impact, Materiality(10, 100)) == severity


@pytest.mark.parametrize(
    ("costs", "stands_out"),
    [([1, 1, 1, 0], True), ([1, 0, 1, 0, 1, 0], False), ([1, 0, 1, 0, 1, 0, 0, 0], True), ([0, 0, 1, 0], True)],
)
def test_a_gap_counts_when_the_series_has_none_like_it(costs: list[float], stands_out: bool) -> None:
    assert longest_gap(np.array(costs, float)) is stands_out
