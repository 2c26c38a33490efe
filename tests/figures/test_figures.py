"""Figures as plain data: what the eye gets for a small frame."""

from __future__ import annotations

import itertools
import json
from datetime import date, timedelta
from decimal import Decimal

import numpy as np
import pytest

from app.core.amounts import from_decimals
from app.core.periods import DateRange
from app.core.query import CostQuery
from app.core.rollup import CostFrame
from app.figures import comparison, regions, spend, usage
from app.figures.theme import OTHER, SLOTS, colours, escaped, money_axis, rounded
from tests.frames import labels_of

DAYS = tuple(date(2026, 11, n) for n in range(1, 4))


def frame(
    groups: list[tuple[str, ...]], amounts: list[list[float]], dimensions: tuple[str, ...] = ("service",)
) -> CostFrame:
    values = np.array(amounts, float)
    periods = DAYS[: values.shape[1]]
    query = CostQuery(DateRange(DAYS[0], DAYS[-1] + timedelta(days=1)), group_by=dimensions)
    known = np.nan_to_num(values)
    exact = from_decimals([Decimal(str(value)) for value in known.ravel()]).map(lambda part: part.reshape(known.shape))
    lacking = np.isnan(values).any(axis=1)
    return CostFrame(query, periods, labels_of(groups), values, values == values, exact, lacking, None, periods)


def test_the_stack_folds_what_is_small_into_others() -> None:
    many = frame([(f"s{n}",) for n in range(9)], [[float(9 - n)] * 3 for n in range(9)])
    series = spend.stacked(many, {f"s{n}": "--c0" for n in range(9)})
    assert [item.name for item in series] == ["s0", "s1", "s2", "s3", "s4", "s5", "3 others"]
    assert series[-1].values.tolist() == [6.0, 6.0, 6.0]
    assert (series[-1].group, series[-1].colour) == (None, OTHER)


def test_one_group_too_many_is_shown_not_folded() -> None:
    seven = frame([(f"s{n}",) for n in range(7)], [[1.0] * 3] * 7)
    assert len(spend.stacked(seven, {f"s{n}": "--c0" for n in range(7)})) == 7


def test_daily_bars_holes_and_hatches() -> None:
    found = frame([("a",), ("<b>",)], [[1.005, float("nan"), 3], [4, float("nan"), 6]])
    figure = spend.daily(
        found, spend.stacked(found, {"a": "--c0", "<b>": "--c1"}), dimension="service", prefix="$",
        before=("before", np.array([1.0, 2.0, float("nan")])), settling=[2], unknown=[DAYS[1]],
    )  # fmt: skip
    assert [trace["name"] for trace in figure["data"]] == ["a", "&lt;b&gt;", "before"]
    assert figure["data"][1]["meta"] == {"service": "<b>"}
    assert figure["data"][1]["y"] == [4, None, 6]
    assert figure["data"][2]["y"] == [1.0, 2.0, None]
    assert (figure["data"][0]["x0"], figure["data"][0]["dx"]) == ("2026-11-01", 86_400_000)
    assert (figure["layout"]["shapes"][0]["x0"], figure["layout"]["shapes"][0]["x1"]) == (
        "2026-11-01 12:00",
        "2026-11-02 12:00",
    )
    assert figure["layout"]["annotations"][0]["text"] == "Settling"


def test_long_names_of_regions_stand_in_two_lines() -> None:
    found = regions.cells(
        frame([("a", name) for name in ("ap-northeast-1", "us-east-1", "<b>-northeast-1")], [[3.0], [2.0], [1.0]], ("service", "region")),
        (),
        (),
    )  # fmt: skip
    names = regions.per_region(found, prefix="$", short=str, chosen={})["layout"]["xaxis"]["ticktext"]
    assert names[:2] == ["ap-<br>northeast-1", "us-east-1"]
    assert names[2].startswith("&lt;b")


def test_regions_add_up_within_the_chosen_services() -> None:
    found = frame([("ec2", "us"), ("ec2", "eu"), ("s3", "us")], [[100.0], [50.0], [30.0]], ("service", "region"))
    every = regions.cells(found, (), ())
    assert (every.regions, every.services, every.bars.tolist()) == (("us", "eu"), ("ec2", "s3"), [130.0, 50.0])
    assert np.isnan(every.amounts[1, 1])
    chosen = regions.cells(found, ("s3",), ("us",))
    assert chosen.services[0] == "s3"
    assert chosen.bars[0] == 30.0
    figure = regions.per_region(chosen, prefix="$", short=str, chosen={"service": ["s3"], "region": ["us"]})
    [outline] = figure["layout"]["shapes"]
    assert (outline["x0"], outline["x1"], outline["y0"], outline["y1"]) == (-0.5, 0.5, -0.5, 0.5)
    assert figure["data"][1]["z"][0][1] is None
    json.dumps(figure, allow_nan=False)


def test_an_unknown_cell_makes_its_sums_unknown_not_smaller() -> None:
    found = frame(
        [("ec2", "us"), ("ec2", "eu"), ("s3", "us")], [[100.0], [float("nan")], [30.0]], ("service", "region")
    )
    sums = regions.cells(found, (), ())
    assert sums.by_region["us"] == 130
    assert np.isnan(sums.by_region["eu"])
    assert np.isnan(sums.by_service["ec2"])
    assert list(sums.by_service) == ["s3", "ec2"]


@pytest.mark.parametrize("amounts", [[[0.0], [0.0]], [[-5.0], [-1.0]], [[float("nan")], [float("nan")]]])
def test_a_grid_without_positive_cost_still_draws(amounts: list[list[float]]) -> None:
    found = regions.cells(frame([("a", "x"), ("b", "y")], amounts, ("service", "region")), (), ())
    json.dumps(regions.per_region(found, prefix="$", short=str, chosen={}), allow_nan=False)


def test_a_purchase_does_not_flatten_the_month() -> None:
    values = {
        "amortized_cost": np.array([10.0, 11, 10]), "unblended_cost": np.array([9.0, 400, 9]), "blended_cost": np.array([np.nan] * 3),
    }  # fmt: skip
    names = {metric: metric for metric in values}
    figure = comparison.lines(values, names, DAYS, granularity="daily", prefix="$", short=lambda v: f"${v:.0f}")
    assert figure["layout"]["yaxis"]["range"] == [0, 16.5]
    assert figure["layout"]["annotations"][0]["text"] == "$400 unblended on 2 Nov"
    assert [trace["name"] for trace in figure["data"]] == ["amortized_cost", "unblended_cost"]


def test_quantities_never_share_a_scale() -> None:
    rows = [usage.Usage(f"s{n}", "1 GB", "--c0", np.array([1.0, 2, 3])) for n in range(3)]
    figure = usage.quantities(rows, DAYS, dimension="service", granularity="daily", settling=[])
    assert [trace["yaxis"] for trace in figure["data"]] == ["y", "y2", "y3"]
    domains = [figure["layout"][name]["domain"] for name in ("yaxis", "yaxis2", "yaxis3")]
    assert all(low > above for (low, _), (_, above) in itertools.pairwise(domains))


def test_a_quantity_stands_below_its_name_and_neither_is_markup() -> None:
    rows = [usage.Usage("<i>" + "x" * 60, "1 <GB>", "--c0", np.array([1.0, 2, 3]))]
    [label] = usage.quantities(rows, DAYS, dimension="service", granularity="daily", settling=[])["layout"][
        "annotations"
    ]
    name, quantity = label["text"].split("<br>")
    assert name.startswith("<b>&lt;i&gt;xxx")
    assert name.count("x") < usage.LONGEST_NAME
    assert quantity == "1 &lt;GB&gt;"


def test_colours_follow_the_rank_and_never_clash_among_what_is_shown() -> None:
    ranks = {f"s{n}": n for n in range(20)}
    assert colours(["s0", "s3", "s7"], ranks) == {"s0": SLOTS[0], "s3": SLOTS[3], "s7": SLOTS[7]}
    shown = colours(["s15", "s0", "s12", "s1", "s2", "s3", "s4", "s9", "s5"], ranks)
    first = list(shown.values())[:7]
    assert len(set(first)) == 7
    assert shown["s0"] == SLOTS[0]
    assert shown["s5"] == OTHER
    assert colours(["s0", "s1", "s2", "s3", "s4", "s5", "s6", "s7", "s8"], ranks)["s7"] == SLOTS[7]


def test_numbers_are_short_and_unknown_is_a_hole() -> None:
    assert rounded(np.array([1234.56789, float("nan")])) == [1234.57, None]
    assert rounded(np.array([0.0000123456])) == [0.00001235]
    assert rounded(np.array([[1.0, float("nan")], [2.0, 3.0]])) == [[1.0, None], [2.0, 3.0]]


def test_plotly_html_is_escaped() -> None:
    assert escaped("<a href='x'>&") == "&lt;a href='x'&gt;&amp;"


@pytest.mark.parametrize(
    ("largest", "shown"),
    [(20_000.0, ",.3~s"), (9.0, ",.4~f"), (0.5, ",.4~f"), (0.0001, ",.8~f"), (float("nan"), ",.8~f")],
)
def test_small_amounts_are_never_written_in_thousandths(largest: float, shown: str) -> None:
    assert money_axis("$", np.array([0.0, -largest]))["tickformat"] == shown
