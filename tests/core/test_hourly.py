"""The hourly detector: what it says of each known shape, and what must never change what it says."""

from __future__ import annotations

import copy
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.core.hourly import (
    BY_HOUR,
    DAY,
    Forecasts,
    Hour,
    HourlyAlert,
    HourlyDetector,
    HourlyThresholds,
    Watch,
    alerts_of,
    fold,
)
from app.core.robust import Floats

BEGINS = 400_000 * DAY
WEEK = 7 * DAY
HOURS = 14 * DAY
WHEN = 10 * DAY + 9

FEW = settings(max_examples=8, deadline=None)


def noise(seed: int, size: int = HOURS) -> Floats:
    return np.random.default_rng(seed).normal(size=size)


def steady(seed: int = 1) -> Floats:
    return 100 + 2 * noise(seed)


def daily(seed: int = 1) -> Floats:
    """Busy by day, idle by night: between 20 and 180."""
    return 100 + 80 * np.sin(2 * np.pi * np.arange(HOURS) / DAY) + 3 * noise(seed)


def hours_of(values: Floats, gone: range = range(0)) -> list[Hour]:
    return [
        Hour(BEGINS + place, value, value, value) for place, value in enumerate(values.tolist()) if place not in gone
    ]


def told(values: Floats) -> list[tuple[int, str]]:
    return [(alert.at - BEGINS, alert.kind) for alert in alerts_of(hours_of(values))]


def test_a_profile_counts_only_after_a_day() -> None:
    """Also where hours are missing, and one hour of the day comes again before all others were seen."""
    forecasts = Forecasts(DAY, np.full(6, 100.0))
    for _ in range(3):
        forecasts.learn(200, 0, 1)
    assert forecasts.best(0) < 110
    for step in range(3, DAY):
        forecasts.learn(100, step, 1)
    assert forecasts.best(0) > 190


@pytest.mark.parametrize("shape", [steady, daily])
def test_the_usual_is_nothing(shape: type[Floats]) -> None:
    assert sum(len(told(shape(seed))) for seed in range(5)) == 0


@pytest.mark.parametrize(("factor", "kind"), [(3.0, "rise"), (0.2, "drop")])
@pytest.mark.parametrize("shape", [steady, daily])
def test_an_hour_far_off_is_told_in_that_hour(shape: type[Floats], factor: float, kind: str) -> None:
    values = shape()
    values[WHEN : WHEN + 2] *= factor
    assert told(values) == [(WHEN, kind)]


def test_the_day_s_usual_peak_is_no_news_but_the_same_at_night_is() -> None:
    """A profile over the day is learned: the value of noon, by night, is far off."""
    values = 10 + 0.5 * noise(3)
    values[12::DAY] += 100
    values[13::DAY] += 100
    usual = told(values)
    assert all(at < 4 * DAY for at, _ in usual)
    assert len(usual) <= 3


def test_a_level_that_stays_is_told_once() -> None:
    values = steady()
    values[WHEN:] += 60
    assert told(values) == [(WHEN, "rise")]


def test_going_back_to_the_former_level_is_no_event() -> None:
    values = steady()
    values[WHEN : WHEN + 40] += 60
    assert told(values) == [(WHEN, "rise")]


def test_the_third_burst_of_a_kind_is_no_news_and_a_larger_one_is() -> None:
    values = steady()
    for day in (5, 6, 8, 9):
        values[day * DAY] += 100
    assert told(values) == [(5 * DAY, "rise"), (6 * DAY, "rise")]
    values[11 * DAY] += 400
    assert told(values)[-1] == (11 * DAY, "rise")


def test_a_small_rise_that_lasts_is_seen_over_six_hours() -> None:
    values = 100 + 6 * noise(4)
    values[WHEN + 3 :] += 17
    alerts = alerts_of(hours_of(values))
    assert [(alert.view, alert.kind) for alert in alerts] == [("six_hours", "rise")]
    assert WHEN + 3 <= alerts[0].at - BEGINS <= WHEN + 24


def test_a_peak_of_minutes_that_the_mean_hides_is_seen() -> None:
    hours = hours_of(steady())
    hours[WHEN] = hours[WHEN]._replace(highest=400.0)
    (alert,) = alerts_of(hours)
    assert (alert.view, alert.kind, alert.at) == ("highest", "rise", BEGINS + WHEN)


def test_the_first_cost_after_nothing_is_told_and_nothing_stays_nothing() -> None:
    values = np.zeros(HOURS)
    assert told(values) == []
    values[WHEN] = 0.01
    (alert,) = alerts_of(hours_of(values))
    assert (alert.stood.expected, alert.stood.score) == (0.0, np.inf)


def test_nothing_is_judged_while_it_learns() -> None:
    values = steady()
    values[BY_HOUR.learning - 1] *= 50
    assert BY_HOUR.learning - 1 not in dict(told(values))
    values = steady()
    values[BY_HOUR.learning] *= 50
    assert told(values)[0] == (BY_HOUR.learning, "rise")


def test_hours_that_are_missing_are_no_drop() -> None:
    assert alerts_of(hours_of(daily(), gone=range(WHEN, WHEN + 30))) == []


def test_the_band_holds_the_usual_and_not_what_was_told() -> None:
    values = daily()
    values[WHEN] += 300
    (alert,) = alerts_of(hours_of(values))
    stood = alert.stood
    assert stood.low < stood.expected < stood.high < stood.actual
    assert stood.expected == pytest.approx(daily()[WHEN], abs=15)
    assert stood.score == pytest.approx(5 * (stood.actual - stood.expected) / (stood.high - stood.expected))


def test_points_of_an_hour_are_one_hour_in_any_order() -> None:
    seconds = np.array([7200, 3599, 3600, 0, 5000])
    values = np.array([9.0, 3.0, 4.0, 1.0, 8.0])
    folded = [Hour(0, 2.0, 3.0, 1.0), Hour(1, 6.0, 8.0, 4.0), Hour(2, 9.0, 9.0, 9.0)]
    assert fold(seconds, values) == folded
    assert fold(seconds[::-1], values[::-1]) == folded
    assert fold(seconds[:0], values[:0]) == []


# --- what must never change what it says --------------------------------------------------------------------------------

FIGURES = st.one_of(
    st.floats(-1e6, 1e6, allow_nan=False, width=32), st.sampled_from([0.0, 0.0, 1.0, 1.0, 1.0, 5.0, 1e6])
)
SERIES = st.lists(st.tuples(FIGURES, FIGURES), min_size=20, max_size=60)


def hours_from(pairs: list[tuple[float, float]]) -> list[Hour]:
    return [
        Hour(BEGINS + place, (one + other) / 2, max(one, other), min(one, other))
        for place, (one, other) in enumerate(pairs)
    ]


@FEW
@given(SERIES, SERIES)
def test_an_alert_never_depends_on_later_hours(
    past: list[tuple[float, float]], future: list[tuple[float, float]]
) -> None:
    hours = hours_from([*past, *future])
    before = [alert for alert in alerts_of(hours) if alert.at < BEGINS + len(past)]
    assert before == alerts_of(hours[: len(past)])


@FEW
@given(SERIES, st.integers(-30, 30))
def test_the_unit_does_not_matter(pairs: list[tuple[float, float]], power: int) -> None:
    factor = 2.0**power
    scaled = [Hour(hour.at, *(value * factor for value in hour[1:])) for hour in hours_from(pairs)]
    assert [alert[:3] for alert in alerts_of(scaled)] == [alert[:3] for alert in alerts_of(hours_from(pairs))]


@FEW
@given(SERIES)
def test_what_is_upside_down_is_told_upside_down(pairs: list[tuple[float, float]]) -> None:
    hours = hours_from(pairs)
    turned = [Hour(hour.at, -hour.mean, -hour.lowest, -hour.highest) for hour in hours]
    other = {"rise": "drop", "drop": "rise"}
    assert [(alert.at, other[alert.kind], alert.stood.score) for alert in alerts_of(turned)] == [
        (alert.at, alert.kind, alert.stood.score) for alert in alerts_of(hours)
    ]


@FEW
@given(SERIES, st.data())
def test_going_on_from_a_kept_state_is_the_same_as_never_stopping(
    pairs: list[tuple[float, float]], data: st.DataObject
) -> None:
    hours, stop = hours_from(pairs), data.draw(st.integers(0, len(pairs)))
    detector, found = HourlyDetector(), []
    for place, hour in enumerate(hours):
        if place == stop:
            detector = copy.deepcopy(detector)
        found.append(detector.deliver(hour))
    assert [alert for alert in found if alert is not None] == alerts_of(hours)


@FEW
@given(SERIES)
def test_no_two_alerts_within_the_quiet_hours(pairs: list[tuple[float, float]]) -> None:
    places = [alert.at for alert in alerts_of(hours_from(pairs))]
    assert all(later - earlier >= BY_HOUR.quiet for earlier, later in pairwise(places))


def test_memory_is_bounded() -> None:
    """A series of years needs no more than one of weeks."""
    watch = Watch(replace(BY_HOUR, memory=30), HourlyThresholds())
    for place, value in enumerate(steady().tolist()):
        watch.see(value, place % DAY)
    assert len(watch.values) == len(watch.errors) == 30
    assert len(watch.peaks) <= 30


def test_stricter_thresholds_tell_less() -> None:
    rng = np.random.default_rng(8)
    values = np.abs(rng.standard_t(2, HOURS)) + 1
    few, many = (alerts_of(hours_of(values), HourlyThresholds(spreads=spreads)) for spreads in (12, 4))
    assert len(few) < len(many)
    assert all(isinstance(alert, HourlyAlert) for alert in many)
