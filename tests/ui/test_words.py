"""Figures, days and changes as people read them."""

from __future__ import annotations

from datetime import date, timedelta
from decimal import Decimal

import pytest

from app.core.periods import DateRange
from app.ui import words


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (Decimal("398412.365"), "$398,412.36"),
        (Decimal("-0.5"), "−$0.50"),
        (Decimal("0.004"), "<$0.01"),
        (Decimal("-0.004"), "−<$0.01"),
        (0, "$0.00"),
        (None, "—"),
        (float("nan"), "—"),
    ],
)
def test_money(value: Decimal | float | None, text: str) -> None:
    assert words.money(value, "USD") == text


def test_money_in_other_currencies() -> None:
    assert words.money(1, "EUR") == "€1.00"
    assert words.money(1, "CHF") == "CHF 1.00"
    assert words.money(Decimal("1434.85"), "USD", sign=True) == "+$1,434.85"


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (398_412, "$398.4k"), (9_999.4, "$9,999"), (9_999.6, "$10.0k"), (999_949, "$999.9k"), (999_960, "$1.0M"),
        (1.5e9, "$1.5B"), (-7_200, "−$7,200"), (99.994, "$99.99"), (0.001, "<$0.01"), (None, "—"),
    ],
)  # fmt: skip
def test_short_money(value: float | None, text: str) -> None:
    assert words.short_money(value, "USD") == text


@pytest.mark.parametrize(
    ("now", "before", "text"),
    [
        (103.8, 100, "+3.8 %"), (96.2, 100, "−3.8 %"), (100, 100, "±0 %"), (1200, 100, "×12"), (5, 0, "new"), (0, 0, "±0 %"),
        (None, 1, "—"), (1, None, "—"), (0, 10, "−100.0 %"), (5, -5, "—"),
    ],
)  # fmt: skip
def test_change(now: float | None, before: float | None, text: str) -> None:
    assert words.change(now, before) == text


@pytest.mark.parametrize(
    ("part", "text"), [(34.56, "34.6 %"), (0.001, "<0.1 %"), (0, "0.0 %"), (None, "—"), (-5, "−5.0 %")]
)
def test_percent(part: float | None, text: str) -> None:
    assert words.percent(part, 100) == text


def test_days() -> None:
    first = date(2026, 10, 25)
    assert words.day_range(DateRange(first, date(2026, 11, 24))) == "25 Oct – 23 Nov 2026"
    assert words.day_range(DateRange(date(2025, 12, 1), date(2026, 1, 3))) == "1 Dec 2025 – 2 Jan 2026"
    assert words.day_range(DateRange(first, first + timedelta(days=1))) == "25 Oct 2026"
    assert words.day_list([date(2026, 11, 22), date(2026, 11, 23)]) == "22–23 Nov"
    assert words.day_list([date(2026, 10, 31), date(2026, 11, 1)]) == "31 Oct – 1 Nov"
    assert words.day_list([date(2026, 10, n) for n in range(1, 20, 2)]) == "1 Oct, 3 Oct, 5 Oct, 7 Oct and 6 more"


@pytest.mark.parametrize(
    ("value", "text"), [(2_971_000, "3.0M"), (12.5, "12.5"), (0, "0"), (0.001, "<0.01"), (None, "—")]
)
def test_quantity(value: float | None, text: str) -> None:
    assert words.quantity(value) == text


def test_lists_of_values() -> None:
    assert [words.joined(["a"]), words.joined(["a", "b"]), words.joined(["a", "b", "c"])] == [
        "a",
        "a or b",
        "a, b or c",
    ]
    assert words.joined(list("abcdef")) == "a, b or 4 more"
