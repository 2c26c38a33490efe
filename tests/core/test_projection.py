"""How a period's spend goes on: on the mark for what has a rhythm, honest about how wrong it may be."""

from __future__ import annotations

import random
from datetime import date
from decimal import Decimal

import pytest

from app.core.periods import DAY, DateRange, month_of, next_month
from app.core.projection import LEAST_DAYS, Breach, NotProjected, Projection, project
from app.core.spend import Spend

START = date(2025, 9, 1)


def believable(number: int, seed: int = 1, *, noise: float = 0.03, drift: float = 0.006, monthly: float = 900) -> Spend:
    """Lighter weekends, a charge on the first of each month, a slowly wandering level; the last two days settle."""
    chance, level, amounts = random.Random(seed), 1000.0, []
    for place in range(number):
        day = START + place * DAY
        level *= 1 + (chance.gauss(0.0005, drift) if drift else 0)
        value = level * (0.8 if day.weekday() > 4 else 1.0) * (1 + chance.gauss(0, noise))
        amounts.append(Decimal(f"{value + (monthly if day.day == 1 else 0):.4f}"))
    return Spend(START, tuple(amounts), (*["complete"] * (number - 2), *["settling"] * 2))  # type: ignore[arg-type]


def cut(spend: Spend, number: int) -> Spend:
    statuses = (*["complete"] * (number - 2), *["settling"] * 2)
    return Spend(spend.start, spend.amounts[:number], statuses)  # type: ignore[arg-type]


def month(day: date) -> DateRange:
    return DateRange(month_of(day), next_month(day))


def projected(spend: Spend, days: DateRange) -> Projection:
    found = project(spend, days)
    assert isinstance(found, Projection)
    return found


def test_a_steady_rhythm_is_projected_to_the_dollar() -> None:
    spend = believable(400, noise=0, drift=0, monthly=500)
    days = month(START + 372 * DAY)
    found = projected(cut(spend, 372), days)
    assert abs(found.total - (spend.over(days).total or 0)) < Decimal(20)
    assert found.total > 27 * 1000 * Decimal("0.9")


def test_what_comes_on_the_first_of_each_month_is_expected_again() -> None:
    # Early morning of the last day of a month, looking at the next one.
    spend = believable(395, noise=0.01, drift=0, monthly=5000)
    place = next(n for n in range(300, 395) if (START + n * DAY).day == 1)
    days = month(START + place * DAY)
    with_charge = projected(cut(spend, place), days)
    without = projected(cut(believable(395, noise=0.01, drift=0, monthly=0), place), days)
    assert with_charge.total - without.total == pytest.approx(Decimal(5000), abs=Decimal(600))


def test_the_band_holds_about_four_of_five() -> None:
    held, wrong, of = 0, 0.0, 0
    for seed in range(6):
        spend = believable(440, seed)
        for number in (300, 331, 372, 400):
            days = month(START + number * DAY)
            found, came = projected(cut(spend, number), days), spend.over(days).total or Decimal(0)
            low, high = found.band
            held, of, wrong = held + (low <= came <= high), of + 1, wrong + abs(float(found.total / came) - 1)
    assert 0.65 <= held / of <= 0.95
    assert wrong / of < 0.02


def test_the_day_of_breach_lies_between_the_edges() -> None:
    spend = cut(believable(440), 400)
    found = projected(spend, month(START + 400 * DAY))
    breach = found.breach(found.total - 1500)
    assert breach.day is not None
    assert breach.earliest is not None
    assert breach.earliest <= breach.day
    assert breach.latest is None or breach.day <= breach.latest
    assert found.breach(found.band[1] + 1) == Breach(None, None, None)


def test_a_breach_that_happened_is_a_day_and_no_estimate() -> None:
    spend = cut(believable(440), 400)
    days = month(START + 399 * DAY)
    first_two = spend.over(DateRange(days.start, days.start + 2 * DAY)).total
    assert first_two is not None
    breach = projected(spend, days).breach(first_two - 1)
    assert breach == Breach(days.start + DAY, days.start + DAY, days.start + DAY, is_past=True)


def test_a_short_history_says_how_short_it_is() -> None:
    found = project(cut(believable(60), LEAST_DAYS + 1), month(START + 43 * DAY))
    assert isinstance(found, NotProjected)
    assert str(LEAST_DAYS - 1) in found.reason
    assert isinstance(project(cut(believable(60), LEAST_DAYS + 2), month(START + 43 * DAY)), Projection)


def test_a_history_that_ended_long_ago_says_so() -> None:
    spend = believable(100)
    gap = Spend(START, (*spend.amounts, *[None] * 30), (*spend.statuses, *["missing"] * 30))  # type: ignore[arg-type]
    found = project(gap, month(START + 129 * DAY))
    assert isinstance(found, NotProjected)
    assert "too long ago" in found.reason


def test_a_day_that_settles_counts_at_least_what_it_has_and_what_is_expected() -> None:
    spend, place = believable(120, drift=0), 119
    days = month(START + place * DAY)
    plain = projected(spend, days).total
    half = Spend(START, (*spend.amounts[:place], spend.amounts[place] / 10), spend.statuses)  # type: ignore[operator]
    assert projected(half, days).total == pytest.approx(plain, rel=Decimal("0.02"))
    double = Spend(START, (*spend.amounts[:place], Decimal(50_000)), spend.statuses)
    assert projected(double, days).total > plain + 40_000


def test_holes_are_not_nothing() -> None:
    spend = believable(200, drift=0)
    amounts, statuses = list(spend.amounts), list(spend.statuses)
    for place in range(150, 160):
        amounts[place], statuses[place] = None, "missing"
    holed = Spend(START, tuple(amounts), tuple(statuses))
    days = month(START + 199 * DAY)
    assert projected(holed, days).total == pytest.approx(projected(spend, days).total, rel=Decimal("0.03"))


def test_a_period_that_is_over_is_what_it_was() -> None:
    spend = believable(200)
    days = month(START + 100 * DAY)
    found = projected(spend, days)
    assert found.band == (found.total, found.total)
    assert abs(found.total - (spend.over(days).total or 0)) < Decimal("0.01")


def test_an_unmeasured_projection_has_the_same_middle() -> None:
    spend = cut(believable(440), 400)
    days = month(START + 400 * DAY)
    plain = project(spend, days, banded=False)
    assert isinstance(plain, Projection)
    assert plain.total == projected(spend, days).total
