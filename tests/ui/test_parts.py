"""Parts of pages: what is drawn by the server itself."""

from __future__ import annotations

import re

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from app.ui import parts

amounts = st.floats(-1e9, 1e9) | st.just(float("nan"))


def paths_of(rows: list[list[float]]) -> list[str]:
    drawn = [str(element["props"]["style"]["maskImage"]) for element in parts.sparklines(np.array(rows, np.float64))]
    return [path for mask in drawn for path in re.findall(r" d='([^']*)'", mask)]


def test_a_trend_runs_from_low_to_high_and_a_hole_is_a_gap() -> None:
    nan = float("nan")
    assert paths_of([[0, 5, 10], [0, nan, 10], [nan, nan, nan]]) == ["M0,19 1,10 2,1", "M0,19M2,1", ""]


def test_less_than_a_tenth_does_not_fill_the_height() -> None:
    assert paths_of([[100, 101, 100]]) == ["M0,19 1,17 2,19"]


@given(st.lists(amounts, min_size=1, max_size=40))
def test_what_is_known_is_drawn_inside_the_box_at_its_place(values: list[float]) -> None:
    [path] = paths_of([values])
    points = [tuple(map(int, point.split(","))) for point in re.findall(r"\d+,-?\d+", path)]
    assert [x for x, _ in points] == [x for x, value in enumerate(values) if value == value]
    assert all(1 <= height <= 19 for _, height in points)
