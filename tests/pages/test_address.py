"""The address is the state: read tolerantly, written canonically, and the same both ways."""

from __future__ import annotations

from dataclasses import replace
from datetime import date

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.core.periods import DateRange
from app.pages.address import LEVELS, PERIODS, Address, read, written

TODAY = date(2026, 11, 24)
names = st.text(min_size=1, max_size=12)
addresses = st.lists(st.tuples(st.sampled_from(LEVELS), names), max_size=6)


@pytest.mark.parametrize(
    ("search", "period", "first", "end"),
    [
        ("", "30d", "2026-10-25", "2026-11-24"),
        ("?period=7d", "7d", "2026-11-17", "2026-11-24"),
        ("?period=mtd", "mtd", "2026-11-01", "2026-11-24"),
        ("?period=lm", "lm", "2026-10-01", "2026-11-01"),
        ("?start=2026-10-01&end=2026-10-08", None, "2026-10-01", "2026-10-08"),
    ],
)
def test_period_or_days(search: str, period: str | None, first: str, end: str) -> None:
    found = read(search, TODAY)
    assert (found.period, str(found.days.start), str(found.days.end), found.notices) == (period, first, end, ())
    assert found.search() == search


@pytest.mark.parametrize(
    ("search", "said"),
    [
        ("?period=fortnight", "period 'fortnight' is unknown"),
        ("?start=2026-10-01", "end is missing"),
        ("?start=2026-10-08&end=2026-10-01", "is not before end"),
        ("?start=2026-13-01&end=2026-10-01", "start '2026-13-01' is not a date"),
        ("?start=2026-W36-1&end=2026-10-01", "start '2026-W36-1' is not a date"),
        ("?start=2000-01-01&end=2026-10-01", "a page shows at most"),
        ("?metric=net_cost", "Unknown metric 'net_cost'"),
        ("?metric=usage_quantity", "Unknown metric 'usage_quantity'"),
        ("?group_by=colour", "Unknown group_by 'colour'"),
        ("?sevice=EC2", "“sevice” is not a setting of this page"),
        ("?service=" + "x" * 1025, "service has a value of 1025 characters"),
    ],
)
def test_what_is_not_understood_is_said_and_the_rest_is_shown(search: str, said: str) -> None:
    found = read(search, TODAY)
    assert said in " ".join(found.notices)
    assert found.query == read("", TODAY).query


@given(addresses, st.sampled_from([*PERIODS]), st.sampled_from([None, *LEVELS]))
def test_writing_and_reading_again_is_the_same(
    filters: list[tuple[str, str]], period: str, group_by: str | None
) -> None:
    found = read(written([("period", period), ("group_by", group_by), *filters]), TODAY)
    again = read(found.search(), TODAY)
    assert again == found
    assert again.search() == found.search()


@given(st.text())
def test_any_text_is_an_address(search: str) -> None:
    found = read(search, TODAY)
    assert read(found.search(), TODAY).query == found.query


def test_equal_questions_have_equal_addresses() -> None:
    one = read("?region=b&region=a&service=x&metric=amortized_cost&period=30d&region=a", TODAY)
    assert one.search() == "?service=x&region=a&region=b"


def test_groups_by_the_first_level_that_is_open() -> None:
    found = read("", TODAY)
    assert (found.dimension, found.pair) == ("service", ("service", "region"))
    found = found.only(service="EC2")
    assert (found.dimension, found.pair) == ("region", ("region", "account"))
    found = found.only(region="eu")
    assert (found.dimension, found.pair) == ("account", ("account",))
    found = found.only(account="1")
    assert (found.dimension, found.pair) == ("account", ("account",))
    assert read("?service=a&service=b", TODAY).dimension == "service"


def test_an_asked_level_gives_way_once_it_is_fixed() -> None:
    found = read("?group_by=region", TODAY)
    assert found.dimension == "region"
    assert found.only(region="eu").dimension == "service"
    assert found.grouped("service").group_by is None


def test_changes_make_links() -> None:
    found = read("?service=a&service=b&region=eu&period=7d", TODAY)
    assert found.dropping("service", "a").href() == "/?period=7d&service=b&region=eu"
    assert found.without("region").href() == "/?period=7d&service=a&service=b"
    assert (
        found.on(DateRange(date(2026, 1, 1), date(2026, 1, 2))).search().startswith("?start=2026-01-01&end=2026-01-02")
    )
    assert isinstance(found, Address)


@given(
    addresses,
    st.lists(names, min_size=2, max_size=2),
    st.sampled_from([("service",), ("account",), ("region", "account")]),
)
def test_many_links_are_the_same_as_one_by_one(
    filters: list[tuple[str, str]], values: list[str], levels: tuple[str, ...]
) -> None:
    found = read(written([("period", "7d"), *filters]), TODAY)
    chosen = values[: len(levels)]
    assert found.hrefs(*levels)(*chosen) == found.only(**dict(zip(levels, chosen, strict=True))).href()


@given(
    addresses,
    st.sampled_from(["", "7d", "12m", "days"]),
    st.sampled_from(["", "blended_cost"]),
    st.sampled_from(sorted(PERIODS)),
)
def test_links_to_each_period_are_the_same_as_one_by_one(
    pairs: list[tuple[str, str]], period: str, metric: str, wanted: str
) -> None:
    days = [("start", "2026-10-01"), ("end", "2026-10-05")] if period == "days" else [("period", period or None)]
    found = read(written([*pairs, *days, ("metric", metric or None), ("group_by", "account")]), TODAY)
    assert found.period_hrefs()(wanted) == replace(found, period=wanted).href()
