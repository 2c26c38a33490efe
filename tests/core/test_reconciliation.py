"""Reconciliation with Cost Explorer (app.core.reconciliation): the bridge adds up to the cent, and says why."""

from __future__ import annotations

import json
from contextlib import suppress
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.core import costexplorer
from app.core.amounts import total as exact_total
from app.core.reconciliation import (
    AccountDayFigures,
    AccountMonth,
    group_of,
    month_of_reference,
    parse_reference,
    reconcile,
)
from app.errors import Quarantined

MONTH = date(2026, 10, 1)
DAYS = [MONTH + timedelta(days=n) for n in range(5)]


def ours(amount: str | None, **more: Any) -> AccountDayFigures:
    figure = None if amount is None else Decimal(amount)
    given: dict[str, Any] = {"file": figure, "store": {"unknown": figure}, "reported": (figure,)}
    return AccountDayFigures(figure, **(given | more))


def theirs(**types: str) -> dict[str, Decimal]:
    return {name: Decimal(amount) for name, amount in types.items()}


def held_against(here: list[AccountDayFigures | None], there: list[dict[str, Decimal] | None]) -> AccountMonth:
    mine = {day: found for day, found in zip(DAYS, here, strict=False) if found is not None}
    return reconcile("a", mine, {day: found for day, found in zip(DAYS, there, strict=False) if found is not None})


def test_what_agrees_needs_no_reason() -> None:
    found = held_against([ours("10.123"), ours("5")], [theirs(Usage="9.123", Tax="1"), theirs(Usage="5")])
    assert (found.file, found.ledger, found.store) == (Decimal("15.123"),) * 3
    assert (found.ours, found.cost_explorer, found.difference) == (Decimal("15.123"), Decimal("15.123"), 0)
    assert (found.explained, found.unexplained, found.unexplained_days) == ({}, 0, {})


def test_only_days_that_both_have_are_compared_and_the_others_are_listed() -> None:
    found = held_against([ours("1"), ours("2"), None, ours("0")], [theirs(Usage="1"), None, theirs(Usage="4"), None])
    assert found.compared == (DAYS[0],)
    assert (found.only_here, found.only_there) == ({DAYS[1]: 2}, {DAYS[2]: 4})
    assert (found.difference, found.unexplained, found.ledger) == (0, 0, 3)


@pytest.mark.parametrize(
    ("record_type", "category"), [("Tax", "tax"), ("Credit", "credits"), ("Refund", "refunds"), ("Support", "support")]
)
def test_a_record_type_that_the_file_leaves_out(record_type: str, category: str) -> None:
    there = [
        theirs(Usage="10", **{record_type: "-2.5"}),
        theirs(Usage="7"),
        theirs(Usage="10", **{record_type: "1.25"}),
    ]
    found = held_against([ours("10"), ours("7"), ours("10")], there)
    assert found.explained == {category: Decimal("1.25")}
    assert (found.difference, found.unexplained) == (Decimal("1.25"), 0)


def test_several_record_types_that_the_file_leaves_out() -> None:
    there = [
        theirs(Usage="100", Tax="20", Support="10"),
        theirs(Usage="50", Credit="-5"),
        theirs(Usage="50", Credit="-7"),
    ]
    found = held_against([ours("100"), ours("50"), ours("50")], there)
    assert found.explained == {"tax": -20, "support": -10, "credits": 12}
    assert found.unexplained == 0


def test_a_cent_that_nothing_explains_stays_unexplained() -> None:
    found = held_against([ours("10.01"), ours("7")], [theirs(Usage="10"), theirs(Usage="6", Tax="1")])
    assert (found.difference, found.unexplained, found.unexplained_days) == (
        Decimal("0.01"),
        Decimal("0.01"),
        {DAYS[0]: Decimal("0.01")},
    )
    assert found.explained == {}


def test_a_day_off_by_more_than_the_tax_is_not_explained_by_it() -> None:
    there = [theirs(Usage="10", Tax="2"), theirs(Usage="10", Tax="3")]
    found = held_against([ours("10"), ours("9")], there)
    assert found.explained == {"tax": -2}
    assert found.unexplained_days == {DAYS[1]: -4}


def test_less_than_half_a_cent_a_day_is_rounding() -> None:
    found = held_against([ours("10.00"), ours("7.00")], [theirs(Usage="10.004"), theirs(Usage="6.9951")])
    assert found.explained == {"rounding": Decimal("0.0009")}
    assert found.unexplained == 0


def test_categories_of_the_file_are_compared_where_it_has_them() -> None:
    mine = ours("12", store={"Usage": Decimal(10), "Tax": Decimal(2)})
    found = held_against([mine], [theirs(Usage="10", Tax="3", Refund="-1.5")])
    assert found.explained == {"tax": -1, "refunds": Decimal("1.5")}
    assert found.unexplained == 0
    usage = held_against([mine], [theirs(Usage="11", Tax="3")])
    assert (usage.explained, usage.unexplained) == ({"tax": -1}, -1)


def test_what_was_collected_at_another_time() -> None:
    found = held_against([ours("12", reported=(Decimal(9), Decimal(12)))], [theirs(Usage="9")])
    assert (found.explained, found.unexplained) == ({"timing": 3}, 0)
    late = held_against([ours("12", late=True)], [theirs(Usage="9", Tax="1")])
    assert (late.explained, late.unexplained) == ({"timing": 2}, 0)


def test_an_account_day_whose_other_file_has_the_total() -> None:
    found = held_against([ours("12", held=(Decimal(9),))], [theirs(Usage="9")])
    assert (found.explained, found.unexplained) == ({"held": 3}, 0)


def test_a_file_without_record_and_a_day_the_store_forgot_are_not_known() -> None:
    found = held_against([ours("1"), ours("2", file=None), ours("3", store=None)], [])
    assert (found.file, found.ledger, found.store) == (None, 6, None)
    assert held_against([ours(None), ours("2")], [theirs(Usage="1"), theirs(Usage="2")]).only_there == {DAYS[0]: 1}


AMOUNTS = st.decimals(min_value=-(10**15), max_value=10**15, places=20) | st.sampled_from(
    [Decimal(text) for text in ("0", "1", "-1", "2", "0.004", "0.005", "3")]
)
TYPES = st.dictionaries(st.sampled_from(["Usage", "Tax", "Credit", "Refund", "Support"]), AMOUNTS)
FIGURES = st.builds(
    AccountDayFigures,
    ledger=AMOUNTS | st.none(),
    file=AMOUNTS | st.none(),
    store=st.none() | st.dictionaries(st.sampled_from(["unknown", "Usage", "Tax", "Credit"]), AMOUNTS | st.none()),
    reported=st.lists(AMOUNTS | st.none(), max_size=2).map(tuple),
    held=st.lists(AMOUNTS | st.none(), max_size=2).map(tuple),
    late=st.booleans(),
)


@given(mine=st.dictionaries(st.sampled_from(DAYS), FIGURES), there=st.dictionaries(st.sampled_from(DAYS), TYPES))
def test_the_bridge_adds_up_exactly_whatever_the_figures(
    mine: dict[date, AccountDayFigures], there: dict[date, dict[str, Decimal]]
) -> None:
    found = reconcile("a", mine, there)
    assert found.difference == exact_total([*found.explained.values(), found.unexplained])
    known = {day for day, figures in mine.items() if figures.ledger is not None}
    assert set(found.compared) == known & set(there)
    assert found.cost_explorer == exact_total([a for day in found.compared for a in there[day].values()])
    assert set(found.only_there) == set(there) - known
    assert all(abs(amount) >= Decimal("0.005") for amount in found.unexplained_days.values())
    if set(known) == set(mine):
        spread = [*found.only_here.values(), found.ours]
        assert exact_total(spread) == exact_total([figures.ledger for figures in mine.values() if figures.ledger])


# --- the file --------------------------------------------------------------------------------------------------------


def written(**changes: Any) -> bytes:
    document = {
        "month": "2026-10",
        "collected": "2026-11-02T04:00:00Z",
        "currency": "USD",
        "metrics": ["amortized_cost", "unblended_cost"],
        "rows": [
            ["2026-10-01", "000123", "Usage", "1.230", "-0.00000000000000000001"],
            ["2026-10-01", "000123", "Tax", "0", "2"],
            ["2026-10-31", "b", "Usage", "5", "6"],
        ],
    }
    return json.dumps({**document, **changes}).encode()


def test_a_reference_is_read_exactly() -> None:
    found = parse_reference(written(more="is ignored"), MONTH, "USD")
    assert found.collected == datetime(2026, 11, 2, 4, tzinfo=UTC)
    assert found.days("000123", "unblended_cost") == {
        DAYS[0]: {"Usage": Decimal("-0.00000000000000000001"), "Tax": Decimal(2)}
    }
    assert found.days("b", "amortized_cost") == {date(2026, 10, 31): {"Usage": 5}}
    assert found.days("nobody", "amortized_cost") == {}


def test_a_reference_is_what_the_collector_writes() -> None:
    amounts = tuple(Decimal(text) for text in ("1.230", "-0.00000000000000000001", "5e-7"))
    found = {(DAYS[0], "000123", "Usage"): costexplorer.Row(amounts, currency="USD")}
    at = datetime(2026, 11, 2, 4, tzinfo=UTC)
    data = costexplorer.reference_file(MONTH, DAYS, found, None, None, at)
    assert data is not None
    kept = parse_reference(data, MONTH, "USD")
    assert (kept.collected, kept.metrics) == (at, ("amortized_cost", "blended_cost", "unblended_cost"))
    for metric, amount in zip(kept.metrics, amounts, strict=True):
        assert kept.days("000123", metric) == {DAYS[0]: {"Usage": amount}}


ROW = ["2026-10-01", "a", "Usage", "1", "2"]


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "not JSON"),
        (b"\xff\xfe{", "not JSON"),
        (b"[" * 100_000, "not JSON"),
        (b"[]", "not one JSON object"),
        (b'{"month": "2026-10"}', 'no "collected"'),
        (written(month="2026-11"), '"month"'),
        (written(month=None), '"month"'),
        (written(currency="EUR"), "SPENDSCOPE_CURRENCY"),
        (written(collected="yesterday"), '"collected"'),
        (written(collected="2026-11-02T04:00:00"), '"collected"'),
        (written(collected=7), '"collected"'),
        (written(metrics=[]), '"metrics"'),
        (written(metrics=["amortized_cost", "amortized_cost"]), '"metrics"'),
        (written(metrics=["usage_quantity"]), '"metrics"'),
        (written(metrics="amortized_cost"), '"metrics"'),
        (written(metrics=[["amortized_cost"]]), '"metrics"'),
        (written(rows={}), '"rows"'),
        (written(rows=[ROW[:4]]), "row 1"),
        (written(rows=[[*ROW[:4], 2.5]]), "row 1"),
        (written(rows=["row"]), "row 1"),
        (written(rows=[ROW, ["2026-10-02", "a", "Usage", "1,5", "2"]]), "row 2 has '1,5'"),
        (written(rows=[[*ROW[:4], "NaN"]]), "NaN"),
        (written(rows=[[*ROW[:4], "1e3"]]), "1e3"),
        (written(rows=[[*ROW[:4], "١"]]), "exact decimal"),
        (written(rows=[[*ROW[:4], "0." + "1" * 21]]), "exact decimal"),
        (written(rows=[["2026-11-01", *ROW[1:]]]), "not a day of 2026-10"),
        (written(rows=[["20261001", *ROW[1:]]]), "not a day"),
        (written(rows=[["2026-10-01", "", *ROW[2:]]]), "no account"),
        (written(rows=[ROW, ROW]), "row 2 repeats"),
        (written(rows=[["2026-10-01", "a" * 2000, *ROW[2:]]]), "no account"),
    ],
)
def test_a_bad_reference_says_what_is_wrong(data: bytes, said: str) -> None:
    with pytest.raises(Quarantined) as wrong:
        parse_reference(data, MONTH, "USD")
    assert said in wrong.value.reason.message
    assert wrong.value.reason.code == "reference_unreadable"
    assert wrong.value.reason.message.isprintable()


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=12),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=8,
)


@given(
    name=st.sampled_from(["month", "collected", "currency", "metrics", "rows"]),
    value=JSON | st.lists(st.lists(JSON, min_size=5, max_size=5), max_size=2),
)
def test_whatever_is_in_a_reference_it_is_read_or_refused(name: str, value: Any) -> None:
    with suppress(Quarantined):
        parse_reference(written(**{name: value}), MONTH, "USD")


@given(st.binary(max_size=200))
def test_bytes_that_are_no_reference_are_refused(data: bytes) -> None:
    with pytest.raises(Quarantined):
        parse_reference(data, MONTH, "USD")


def test_names_of_references() -> None:
    assert month_of_reference("2026-10.json") == MONTH
    for name in (
        "2026-13.json",
        "2026-10.json.gz",
        "2026-1.json",
        "x2026-10.json",
        "1999-01.json",
        "2026-10.json\n",
        "٢٠٢٦-10.json",
    ):
        assert month_of_reference(name) is None


def test_record_types_have_groups() -> None:
    assert [group_of(name) for name in ("Tax", "CREDIT", "Refund", "Support", "Usage", "SavingsPlanNegation")] == [
        "tax",
        "credits",
        "refunds",
        "support",
        None,
        None,
    ]
