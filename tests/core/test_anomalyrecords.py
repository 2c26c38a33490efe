"""Anomaly records over many runs: recognised, updated, silenced; what people said stays."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.core.anomaly import Anomaly, Contribution
from app.core.anomalyrecords import (
    BY_FEEDBACK,
    BY_PLAN,
    MOST_MOMENTS,
    AnomalyRecord,
    Finding,
    PlannedSpend,
    Run,
    Said,
    Verdict,
    brought_up_to_date,
)
from app.core.documents import anomaly_document, anomaly_from
from app.core.scopes import Scope

NOW = datetime(2026, 11, 24, 12, tzinfo=UTC)
START = date(2026, 11, 1)
DAY = timedelta(days=1)
S3 = Scope("a", "Amazon S3", "us-east-1")
RUN = Run(NOW, date(2026, 1, 1))
LATER = Run(NOW + timedelta(hours=6), date(2026, 1, 1))


def anomaly(start: date = START, **changes: Any) -> Anomaly:
    found = Anomaly(
        0, S3, "rise", start, start, start, 10.0, 8.0, 12.0, 30.005, 20.0, "high",
        contributions=(Contribution(S3, 20.0),), root_causes=(S3,),
    )  # fmt: skip
    return replace(found, **changes)


def finding(start: date = START, **changes: Any) -> Finding:
    found = anomaly(start, **changes)
    return Finding(found, [(found.date, found)])


def first_run(*findings: Finding) -> list[AnomalyRecord]:
    return brought_up_to_date([], findings, RUN)


def test_a_new_anomaly_becomes_a_record_with_exact_cents() -> None:
    [record] = first_run(finding())
    assert (record.state, record.revision, record.created) == ("open", 1, NOW)
    assert (record.expected, record.actual, record.excess) == (Decimal("10.00"), Decimal("30.00"), Decimal("20.00"))
    assert [(moment.day, moment.found) for moment in record.moments] == [(START, "open")]


def test_the_same_run_again_changes_nothing() -> None:
    known = first_run(finding(), finding(start=START + 30 * DAY))
    assert brought_up_to_date(known, [finding(), finding(start=START + 30 * DAY)], LATER) == []


def test_an_ongoing_anomaly_is_updated_and_not_repeated() -> None:
    [before] = first_run(finding())
    grown = anomaly(date=START + 2 * DAY, impact=61.5, state="ongoing")
    [after] = brought_up_to_date([before], [Finding(grown, [(START, anomaly()), (START + 2 * DAY, grown)])], LATER)
    assert (after.id, after.revision, after.impact, after.state) == (before.id, 2, Decimal("61.50"), "ongoing")
    assert [moment.day for moment in after.moments] == [START, START + 2 * DAY]
    assert (after.created, after.updated) == (NOW, LATER.at)


@pytest.mark.parametrize(
    ("again", "same"),
    [
        (finding(start=START + 3 * DAY), True),
        (finding(start=START + 5 * DAY), False),
        (finding(scope=Scope("a", "Amazon S3")), True),
        (finding(scope=Scope("b"), contributions=(Contribution(Scope("b", "x", "y"), 1.0),)), False),
        (finding(kind="creep"), True),
        (finding(kind="drop"), False),
    ],
)
def test_the_same_incident_is_recognised_though_late_rows_moved_it(again: Finding, same: bool) -> None:
    [before] = first_run(finding())
    after = {record.id for record in brought_up_to_date([before], [again], LATER) if not record.withdrawn}
    assert (after == {before.id}) is same


def test_two_alike_are_told_apart_by_the_nearest_start() -> None:
    early, late = first_run(finding(), finding(start=START + 4 * DAY))
    assert early.id != late.id
    assert brought_up_to_date([late, early], [finding(), finding(start=START + 4 * DAY)], LATER) == []


def test_what_later_figures_take_away_is_resolved_and_kept() -> None:
    [before] = first_run(finding())
    [after] = brought_up_to_date([before], [], LATER)
    assert (after.id, after.state, after.withdrawn) == (before.id, "resolved", True)
    assert brought_up_to_date([after], [], LATER) == []
    [back] = brought_up_to_date([after], [finding()], LATER)
    assert (back.state, back.withdrawn) == ("open", False)


def test_what_is_older_than_a_run_looks_is_left_alone() -> None:
    [before] = first_run(finding())
    assert brought_up_to_date([before], [], Run(NOW, START + DAY)) == []


@given(st.lists(st.sampled_from(["acknowledged", "expected", "dismissed", "open"]), max_size=4), st.booleans())
def test_no_run_changes_what_people_said(said: list[Said], found_again: bool) -> None:
    [record] = first_run(finding())
    for state in said:
        record = record.said(Verdict(state, NOW, "ana", "because"))
    after = brought_up_to_date([record], [finding(impact=99.0)] if found_again else [], LATER)
    assert [one.verdicts for one in after] == [record.verdicts]
    if said and said[-1] != "open":
        assert {one.state for one in after} == {said[-1]}


def dismissed() -> AnomalyRecord:
    [record] = first_run(finding())
    return record.said(Verdict("dismissed", NOW, "ana", "Load test"))


def test_the_like_of_a_dismissed_one_is_silenced_with_its_reason() -> None:
    found = brought_up_to_date([dismissed()], [finding(), finding(start=START + 20 * DAY)], LATER)
    [record] = [one for one in found if one.start != START]
    assert (record.state, record.reason) == ("dismissed", "Like that of 2026-11-01: Load test")
    assert record.verdict
    assert record.verdict.by == BY_FEEDBACK


@pytest.mark.parametrize(
    "other",
    [
        finding(start=START + 20 * DAY, actual=60.0),
        finding(start=START + 91 * DAY),
        finding(start=START + 20 * DAY, kind="drop"),
        finding(start=START + 20 * DAY, scope=Scope("b", "Amazon S3", "us-east-1")),
    ],
)
def test_what_is_larger_later_opposite_or_elsewhere_is_news(other: Finding) -> None:
    found = brought_up_to_date([dismissed()], [finding(), other], LATER)
    assert [one.state for one in found if one.start != START] == ["open"]


def test_what_people_took_back_is_not_silenced_again() -> None:
    known = [dismissed(), *first_run(finding(start=START + 20 * DAY))]
    known[1] = known[1].said(Verdict("open", NOW, "ana"))
    assert brought_up_to_date(known, [finding(), finding(start=START + 20 * DAY)], LATER) == []


def test_more_than_was_planned_is_news() -> None:
    """The anomaly costs 20.00 a day more; see `anomaly`."""
    for dollars, state in (("20.00", "expected"), ("19.99", "open"), (None, "expected")):
        plan = PlannedSpend("p", S3, START, START + DAY, "x", "ana", NOW, Decimal(dollars) if dollars else None)
        [record] = brought_up_to_date([], [finding()], replace(RUN, planned=[plan]))
        assert record.state == state, dollars


def test_one_that_grows_beyond_its_plan_is_open_again_once_and_says_so() -> None:
    plan = PlannedSpend("p", S3, START, START + DAY, "Migration", "ana", NOW, Decimal(25))
    run = replace(LATER, planned=[plan])
    [before] = brought_up_to_date([], [finding()], replace(RUN, planned=[plan]))
    grown = Finding(anomaly(actual=40.0, impact=50.0, state="ongoing"), [])
    [after] = brought_up_to_date([before], [grown], run)
    assert (after.state, after.verdicts[-1].by, after.verdicts[-1].plan) == ("ongoing", BY_PLAN, "p")
    assert after.verdicts[-1].reason == f"30.00 on {START}, and 25.00 a day were planned"
    assert brought_up_to_date([after], [grown], run) == []
    # What a person says afterwards stays; so does what was silenced by a plan that is gone.
    judged = after.said(Verdict("acknowledged", NOW, "ana"))
    assert brought_up_to_date([judged], [grown], run) == []
    [kept] = brought_up_to_date([before], [grown], LATER)
    assert kept.state == "expected"


@pytest.mark.parametrize(
    ("scope", "start", "state"),
    [
        (Scope(service="Amazon S3"), START, "expected"),
        (Scope(), START, "expected"),
        (Scope(service="AWS Lambda"), START, "open"),
        (Scope(service="Amazon S3"), START + DAY, "open"),
    ],
)
def test_planned_spend_is_expected_in_its_scope_and_days(scope: Scope, start: date, state: str) -> None:
    plan = PlannedSpend("p", scope, start, start + 7 * DAY, "Migration", "ana", NOW)
    [record] = brought_up_to_date([], [finding()], replace(RUN, planned=[plan]))
    assert record.state == state
    if state == "expected":
        assert record.verdict == Verdict("expected", NOW, BY_PLAN, "Migration", "p")


def test_a_silent_account_is_never_silenced() -> None:
    plan = PlannedSpend("p", Scope(), START, START + DAY, "Migration", "ana", NOW)
    [record] = brought_up_to_date([], [finding(kind="data_outage")], replace(RUN, planned=[plan]))
    assert record.state == "open"


def test_a_long_story_keeps_its_beginning_and_its_end() -> None:
    story = [(START + n * DAY, anomaly(date=START + n * DAY, state="ongoing")) for n in range(100)]
    [record] = first_run(Finding(story[-1][1], story))
    assert len(record.moments) == MOST_MOMENTS
    assert (record.moments[0].day, record.moments[-1].day) == (START, START + 99 * DAY)


def test_a_record_survives_being_a_document() -> None:
    [record] = first_run(finding(scope=Scope("a", None, None)))
    said = record.said(Verdict("dismissed", NOW, "ana", "é"))
    assert anomaly_from(anomaly_document(said)) == said


def test_a_filter_finds_wider_anomalies_by_what_they_are_made_of() -> None:
    [record] = first_run(finding(scope=Scope(region="us-east-1")))
    assert record.concerns("service", ["Amazon S3"])
    assert not record.concerns("service", ["AWS Lambda"])
