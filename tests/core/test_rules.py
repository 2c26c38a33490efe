"""Rules find what they say, once an episode: whatever comes late, is restated, or comes back."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.core.budgets import Budget, Threshold, checked_budget
from app.core.ledger import settles_at
from app.core.periods import DAY, DateRange
from app.core.projection import NotProjected, Projection, project
from app.core.rules import (
    AlertRecord,
    Facts,
    Finding,
    Judgement,
    Rule,
    brought_up_to_date,
    checked_rule,
    ended_with_rule,
    findings,
    replayed,
    stale_finding,
    window_of,
)
from app.core.spend import Arrived, Spend, SpendScope, a_month_before, period_of
from app.errors import InvalidInput

MONDAY = date(2026, 11, 2)
AT = datetime(2026, 11, 24, 6, tzinfo=UTC)


def rule(**changes: Any) -> Rule:
    made = Rule("r", "Rule", "threshold", AT, "ana", on=True, amount=Decimal(100), per="day")
    return checked_rule(replace(made, **changes))


def spend(*amounts: Any, start: date = MONDAY, today: date | None = None, settling: int = 2) -> Spend:
    """One value a day, None for a day that is missing; the newest days settle."""
    now = today or start + len(amounts) * DAY
    found = [None if value is None else Decimal(str(value)) for value in amounts]
    statuses = [
        "missing" if value is None else "complete" if settles_at(start + n * DAY, settling) <= now else "settling"
        for n, value in enumerate(found)
    ]
    return Spend(start, tuple(found), tuple(statuses))  # type: ignore[arg-type]


def where(asked: Rule, known: Spend, today: date | None = None) -> list[tuple[date, date, bool]]:
    found = findings(asked, Facts(today or known.end, known))
    return [(one.start, one.last, one.ongoing) for one in found]


def day(number: int) -> date:
    return MONDAY + number * DAY


# --- thresholds -----------------------------------------------------------------------------------------------------


def test_days_in_a_row_above_the_limit_are_one_episode() -> None:
    known = spend(50, 120, 130, 90, 110, 80, 80, 80)
    assert where(rule(), known) == [(day(1), day(2), False), (day(4), day(4), False)]


def test_the_limit_itself_is_not_above_it() -> None:
    assert where(rule(), spend("100.00", 0, 0, 0)) == []
    assert where(rule(), spend("100.00000000000000000001", 0, 0, 0)) == [(day(0), day(0), False)]


def test_a_day_that_settles_or_lacks_an_account_ends_nothing_but_may_be_above() -> None:
    assert where(rule(), spend(120, 50, 60)) == [(day(0), day(0), True)]
    assert where(rule(), spend(50, None, 120, None, 130, 0, 0, 0)) == [(day(2), day(4), False)]


def test_each_week_and_month_is_an_episode_of_its_own() -> None:
    weekly = rule(per="week", amount=Decimal(300))
    known = spend(*[50] * 14, 301)
    assert where(weekly, known) == [(day(0), day(6), False), (day(7), day(13), False), (day(14), day(20), True)]
    monthly = rule(per="month", amount=Decimal(700))
    assert where(monthly, known) == [(date(2026, 11, 1), date(2026, 11, 30), True)]


# --- changes --------------------------------------------------------------------------------------------------------


def changing(**changes: Any) -> Rule:
    return rule(kind="change", percent=Decimal(50), amount=Decimal(20), **changes)


def test_a_change_is_by_the_percentage_and_by_the_amount() -> None:
    # 14 % and 21 dollars; 100 % and 15 dollars; 50 % and 75 dollars.
    assert where(changing(), spend(150, 171, 15, 30, 15, 150, 225, 225, 225))[-1][0] == day(6)
    assert [start for start, _, _ in where(changing(), spend(150, 171, 15, 30, 15, 150, 225, 225, 225))] == [
        day(5),
        day(6),
    ]


def test_a_fall_is_found_only_where_it_is_asked_for_and_certain() -> None:
    known = spend(100, 40, 40, 40)
    assert where(changing(), known) == []
    assert where(changing(direction="down"), known) == [(day(1), day(1), True)]
    assert where(changing(direction="both"), known) == [(day(1), day(1), True)]
    assert where(changing(direction="down"), spend(100, 100, 40)) == [], "the newest day may still grow"


def test_nothing_is_compared_with_what_is_not_known() -> None:
    assert where(changing(), spend(None, 100, 100, 100, 100)) == []
    assert where(changing(), spend(10, 100)) == [], "the day before may still grow"


def test_from_nothing_any_amount_is_a_change() -> None:
    assert where(changing(), spend(0, 25, 25, 25)) == [(day(1), day(1), True)]


def test_a_month_is_compared_with_the_same_days_of_the_month_before() -> None:
    october = [10] * 31
    known = spend(*october, *[20] * 12, start=date(2026, 10, 1))
    asked = changing(per="month", against="last_month")
    [found] = findings(asked, Facts(known.end, known))
    # Ten of the twelve days are complete.
    assert (found.value, found.limit, found.start) == (Decimal(200), Decimal(100), date(2026, 11, 1))
    early = spend(*october, *[20] * 8, start=date(2026, 10, 1))
    assert where(asked, early) == [], "six complete days say little"


def test_a_day_is_compared_with_the_same_day_of_the_month_before() -> None:
    amounts = [10] * 14 + [90] + [10] * 16 + [10] * 14 + [90] + [10] * 3
    known = spend(*amounts, start=date(2026, 10, 1))
    assert date(2026, 11, 15) not in [start for start, _, _ in where(changing(against="last_month"), known)]
    assert date(2026, 11, 15) in [start for start, _, _ in where(changing(), known)]
    assert a_month_before(date(2026, 3, 31)) == date(2026, 2, 28)


# --- budgets --------------------------------------------------------------------------------------------------------


def budget(amount: int = 1000, **changes: Any) -> Budget:
    return checked_budget(replace(Budget("b", "Team", Decimal(amount), AT, "ana"), **changes))


def burning() -> Rule:
    return checked_rule(Rule("r", "Team burn", "budget_burn", AT, "ana", on=True, budget="b"))


def test_a_budget_fires_for_each_threshold_that_is_reached() -> None:
    november = spend(*[40] * 21, start=date(2026, 11, 1))
    found = findings(burning(), Facts(november.end, november, budget()))
    assert [(one.part, one.value, one.ongoing) for one in found] == [("actual 80", Decimal(840), True)]


def steady(number: int, value: int = 40, end: date = date(2026, 11, 12)) -> Spend:
    return spend(*[value] * number, start=end - number * DAY, today=end)


def test_a_forecast_that_reaches_it_fires_while_the_period_lasts() -> None:
    known = steady(120)
    facts = Facts(known.end, known, budget(), projected=lambda days: project(known, days))
    assert "forecast 100" in [one.part for one in findings(burning(), facts)]
    short = Facts(known.end, known, budget(), projected=lambda _: NotProjected("too short"))
    november = [one.part for one in findings(burning(), short) if one.start == date(2026, 11, 1)]
    assert november == [], "what cannot be projected fires nothing"


def test_a_period_that_began_before_its_history_fires_on_what_is_known() -> None:
    known = spend(*[400] * 4, start=date(2026, 11, 20))
    found = findings(burning(), Facts(known.end, known, budget(1500, period="yearly")))
    assert [(one.part, one.value) for one in found] == [("actual 80", 1600), ("actual 100", 1600)]


def test_of_a_month_that_has_ended_no_forecast_is_news() -> None:
    known = steady(120)
    found = findings(burning(), Facts(known.end, known, budget()))
    october = {one.part: one.fires for one in found if one.start == date(2026, 10, 1)}
    assert october == {"actual 80": True, "actual 100": True, "forecast 100": False}


@pytest.mark.parametrize(
    ("period", "start", "end"),
    [
        ("monthly", date(2026, 11, 1), date(2026, 12, 1)),
        ("quarterly", date(2026, 10, 1), date(2027, 1, 1)),
        ("yearly", date(2026, 1, 1), date(2027, 1, 1)),
    ],
)
def test_periods_are_the_calendars(period: Any, start: date, end: date) -> None:
    assert budget(period=period).current(date(2026, 11, 24)) == DateRange(start, end)


# --- stale data -----------------------------------------------------------------------------------------------------


def test_data_is_stale_so_many_hours_after_its_newest_day_ended() -> None:
    asked = checked_rule(Rule("data-stale", "Stale", "data_stale", AT, "", on=True, hours=36))
    over = datetime.combine(day(1), time(), UTC)
    assert stale_finding(asked, day(0), over + timedelta(hours=35, minutes=59)) is None
    found = stale_finding(asked, day(0), over + timedelta(hours=36))
    assert found is not None
    assert (found.value, found.limit) == (36, 36)


# --- what a rule may be ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"amount": None}, "amount"),
        ({"amount": Decimal(0)}, "amount"),
        ({"amount": Decimal("1.001")}, "amount"),
        ({"amount": Decimal("NaN")}, "amount"),
        ({"hours": 5}, "hours"),
        ({"percent": Decimal(5)}, "percent"),
        ({"per": "year"}, "per"),
        ({"metric": "usage_quantity"}, "metric"),
        ({"name": " "}, "name"),
        ({"name": "a\nb"}, "name"),
        ({"kind": "change", "percent": None}, "percent"),
        ({"kind": "change", "percent": Decimal(0)}, "percent"),
        ({"kind": "source_quarantined", "amount": None, "per": None, "scope": SpendScope(("1",))}, "scope"),
        ({"kind": "data_stale", "amount": None, "per": None, "hours": 0}, "hours"),
        ({"kind": "data_stale", "amount": None, "per": None, "hours": 9, "scope": SpendScope((), ("S",))}, "scope"),
    ],
)
def test_what_cannot_be_a_rule_is_named(changes: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        rule(**changes)
    assert caught.value.field == field


# --- alerts ---------------------------------------------------------------------------------------------------------


def looked(known: list[AlertRecord], asked: Rule, figures: Spend, today: date | None = None) -> list[AlertRecord]:
    """The records after another look, with the changed ones in place of what they were."""
    now = today or figures.end
    judgement = Judgement(asked, datetime.combine(now, time(6), UTC), window_of(asked, now))
    changed = brought_up_to_date(known, findings(asked, Facts(now, figures)), judgement)
    by_id = {one.id: one for one in known} | {one.id: one for one in changed}
    return sorted(by_id.values(), key=lambda one: (one.start, one.id))


def test_an_episode_is_one_alert_that_ends_and_the_next_one_is_another() -> None:
    records = looked([], rule(), spend(50, 120))
    [first] = records
    assert (first.state, first.revision) == ("open", 1)
    records = looked(records, rule(), spend(50, 120, 130))
    assert [(one.id, one.state, one.revision) for one in records] == [(first.id, "open", 2)]
    records = looked(records, rule(), spend(50, 120, 130, 90, 90, 90))
    assert [one.state for one in records] == ["resolved"]
    records = looked(records, rule(), spend(50, 120, 130, 90, 90, 90, 140))
    assert [one.state for one in records] == ["resolved", "open"]


def test_the_same_figures_again_change_nothing() -> None:
    figures = spend(50, 120, 130, 90, 90, 90, 140)
    records = looked([], rule(), figures)
    assert looked(records, rule(), figures) == records


def test_a_restatement_can_undo_an_alert_and_bring_it_back_untold() -> None:
    records = looked([], rule(), spend(50, 120, 50, 50, 50))
    undone = looked(records, rule(), spend(50, 60, 50, 50, 50))
    assert [(one.state, one.revision) for one in undone] == [("undone", 2)]
    back = looked(undone, rule(), spend(50, 130, 50, 50, 50))
    assert [(one.id, one.state, one.revision) for one in back] == [(records[0].id, "resolved", 3)]


def test_two_that_become_one_are_not_told_again() -> None:
    records = looked([], rule(), spend(120, 50, 120, 50, 50, 50))
    joined = looked(records, rule(), spend(120, 150, 120, 50, 50, 50))
    assert [one.id for one in joined] == [one.id for one in records]
    assert [one.state for one in joined] == ["resolved", "resolved"]
    gone = looked(records, rule(), spend(50, 50, 120, 50, 50, 50))
    again = looked(gone, rule(), spend(120, 150, 120, 50, 50, 50))
    assert [one.id for one in again] == [one.id for one in records]


def test_what_ended_before_the_rule_was_switched_on_is_not_told() -> None:
    asked = rule(since=day(3))
    assert [one.start for one in looked([], asked, spend(150, 50, 120, 50, 50, 50))] == [day(2)]


def test_alerts_of_what_the_rule_asked_before_are_over() -> None:
    records = looked([], rule(), spend(50, 120))
    edited = rule(amount=Decimal(110), edition=2)
    found = looked(records, edited, spend(50, 120))
    assert sorted((one.edition, one.state) for one in found) == [(1, "resolved"), (2, "open")]
    assert ended_with_rule(records[0], AT).state == "resolved"


AMOUNTS = st.sampled_from([0, 60, 99, 100, 101, 140])
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("next"), AMOUNTS, st.just(0)),
        st.tuples(st.just("hole"), AMOUNTS, st.just(0)),
        st.tuples(st.just("restate"), AMOUNTS, st.integers(0, 40)),
        st.tuples(st.just("again"), AMOUNTS, st.just(0)),
    ),
    max_size=60,
)
SPEND_RULES = [
    rule(),
    rule(per="week", amount=Decimal(400)),
    rule(per="month", amount=Decimal(900)),
    changing(),
    changing(per="week"),
    changing(direction="both"),
]


@pytest.mark.parametrize("asked", SPEND_RULES, ids=lambda one: f"{one.kind}-{one.per}-{one.direction}")
@settings(max_examples=25)
@given(steps=STEPS)
def test_no_history_makes_a_rule_fire_twice_for_one_episode(asked: Rule, steps: list[tuple[str, int, int]]) -> None:
    never_twice(steps, asked, lambda figures, now: Facts(now, figures), lambda now: window_of(asked, now))


@settings(max_examples=25)
@given(steps=STEPS)
def test_no_history_makes_a_budget_fire_twice_in_a_period(steps: list[tuple[str, int, int]]) -> None:
    team = budget(800, thresholds=(Threshold(Decimal(50)), Threshold(Decimal(100)), Threshold(Decimal(90), "forecast")))

    def facts(figures: Spend, now: date) -> Facts:
        return Facts(now, figures, team, projected=lambda days: twice_what_was_spent(figures, days))

    never_twice(steps, burning(), facts, lambda now: window_of(burning(), now, team))


def twice_what_was_spent(figures: Spend, days: DateRange) -> Projection | NotProjected:
    """A projection that jumps about."""
    import numpy as np

    total = float(figures.over(days).total or 0) * 2
    return Projection(days, days.start, *[np.full(len(days), total)] * 3)


def never_twice(
    steps: list[tuple[str, int, int]],
    asked: Rule,
    facts: Callable[[Spend, date], Facts],
    window: Callable[[date], DateRange],
) -> None:
    amounts: list[Any] = []
    records: dict[str, AlertRecord] = {}
    told: set[tuple[str, date]] = set()
    for step, amount, back in steps:
        if step == "restate" and amounts:
            amounts[-1 - back % len(amounts)] = amount
        elif step != "again":
            amounts.append(None if step == "hole" else amount)
        if not amounts:
            continue
        figures = spend(*amounts)
        found = findings(asked, facts(figures, figures.end))
        judgement = Judgement(asked, datetime.combine(figures.end, time(), UTC), window(figures.end))
        for one in brought_up_to_date(list(records.values()), found, judgement):
            days = {(one.part, one.start + n * DAY) for n in range((one.last - one.start).days + 1)}
            if one.id in records:
                assert one.revision == records[one.id].revision + 1
            else:
                assert one.revision == 1
                assert told.isdisjoint(days), "these days were told before"
            told |= days
            records[one.id] = one
        assert brought_up_to_date(list(records.values()), found, judgement) == []
        still = [one for one in found if one.ongoing and one.fires]
        assert all(any(record.overlaps(one) for record in records.values()) for one in still)
        for record in records.values():
            if record.state == "open" and record.last >= judgement.window.start:
                assert any(record.overlaps(one) for one in found), "open without a reason"


# --- what it would have said ----------------------------------------------------------------------------------------


def test_a_replay_says_what_looking_every_morning_would_have() -> None:
    amounts = [50, 120, 130, 90, 90, 140, 90, 90, 90, 150, 150, 90, 90, 90]
    history = Arrived(spend(*amounts, today=day(30)), tuple(Decimal(value) for value in amounts), 2)
    found = replayed(replace(rule(), on=False), history, DateRange(day(0), day(15)))
    assert [(one.start, one.last, one.state) for one in found] == [
        (day(1), day(2), "resolved"),
        (day(5), day(5), "resolved"),
        (day(9), day(10), "resolved"),
    ]
    assert [one.fired.date() for one in found] == [day(2), day(6), day(10)]


def test_what_held_before_the_first_morning_was_told_before() -> None:
    amounts = [150, 150, 150, 90, 90, 90, 140, 90, 90, 90]
    history = Arrived(spend(*amounts, today=day(30)), tuple(Decimal(value) for value in amounts), 2)
    assert [one.start for one in replayed(rule(), history, DateRange(day(2), day(11)))] == [day(6)]
    november = spend(*[40] * 25, start=date(2026, 11, 1), today=day(40))
    burnt = Arrived(november, november.amounts, 2)
    told = replayed(burning(), burnt, DateRange(date(2026, 11, 24), date(2026, 11, 27)), budget())
    assert [(one.part, one.fired.date()) for one in told] == [("actual 100", date(2026, 11, 26))]


def test_a_replay_knows_a_day_by_its_first_figures_until_it_has_settled() -> None:
    now, first = [50, 120, 50, 50, 50, 50], [50, 80, 50, 50, 150, 50]
    history = Arrived(spend(*now, today=day(30)), tuple(Decimal(value) for value in first), 2)
    found = replayed(rule(), history, DateRange(day(0), day(9)))
    assert [(one.start, one.fired.date(), one.state) for one in found] == [
        (day(1), day(4), "resolved"),
        (day(4), day(5), "undone"),
    ]


def test_a_finding_that_is_no_news_keeps_an_alert_and_makes_none() -> None:
    quiet = Finding("", day(0), day(0), Decimal(1), Decimal(1), ongoing=False, fires=False)
    judgement = Judgement(rule(), AT, DateRange(day(0), day(5)))
    assert brought_up_to_date([], [quiet], judgement) == []
    assert period_of(day(3), "week") == DateRange(day(0), day(7))
