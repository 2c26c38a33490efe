"""Rules are judged from what is stored, told once, and undone by restatements; who sees some accounts is told of those."""

from __future__ import annotations

from dataclasses import replace
from datetime import date, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from app.alerts import tell_what_happened
from app.budgets import add_budget, add_rule, change_rule, figures_of, remove_rule, rule_of
from app.core.budgets import Budget, Threshold
from app.core.projection import NotProjected
from app.core.rules import AlertRecord, Rule
from app.core.spend import SpendScope
from app.judging import judge, judge_when_drained, submit_judge
from app.notifications import met
from tests.faults.test_notifier import Deployment, Recording, deployment
from tests.test_alerts import channel, put, told
from workers.jobs import HANDLERS, run_job


@pytest.fixture
def here(tmp_path: Path) -> Deployment:
    return deployment(
        tmp_path, Recording(), channel("all"), channel("a", accounts=["a"]), channel("ab", accounts=["a", "b"])
    )


def today(here: Deployment) -> date:
    return here.clock.now.date()


def fill(here: Deployment, *amounts: int, last: date | None = None) -> None:
    """So many days up to yesterday; account b has a tenth of it."""
    end = last or today(here) - timedelta(days=1)
    for number, amount in enumerate(reversed(amounts)):
        put(here, end - timedelta(days=number), f"a,S,r,{amount},1,{amount},1", f"b,T,r,{amount / 10},1,1,1")


def rule(here: Deployment, **changes: Any) -> Rule:
    made = Rule("", "Over", "threshold", here.clock.now, "", on=True, amount=Decimal(100), per="day")
    return add_rule(here.world, replace(made, **changes), by="ana")


def kept(here: Deployment) -> list[AlertRecord]:
    return [one for one in here.world.metadata.alerts(limit=50).items if one.kind not in ("data_stale",)]


def channels_told(here: Deployment, kind: str) -> list[str]:
    return sorted(one.channel for one in told(here, kind))


def test_an_alert_is_kept_and_told_once_to_those_who_see_all_of_it(here: Deployment) -> None:
    rule(here)
    fill(here, 50, 50, 200)
    assert judge(here.world).new == 1
    assert judge(here.world).new == 0
    assert [one.state for one in kept(here)] == ["open"]
    assert channels_told(here, "spend") == ["all"], "the figure of all accounts is not for channels of some"
    [one] = told(here, "spend")
    assert one.notification.title == "Over: 220.00 USD in a day, above 100.00 USD"


def test_a_rule_of_some_accounts_is_told_where_all_of_them_are(here: Deployment) -> None:
    rule(here, scope=SpendScope(("a",)))
    fill(here, 200)
    judge(here.world)
    assert channels_told(here, "spend") == ["a", "ab", "all"]
    rule(here, scope=SpendScope(("a", "b")), name="Both")
    judge(here.world)
    both = [one.channel for one in told(here, "spend") if one.notification.title.startswith("Both")]
    assert sorted(both) == ["ab", "all"]


def test_a_restatement_undoes_an_alert_and_that_is_told(here: Deployment) -> None:
    rule(here)
    fill(here, 50, 50, 200)
    judge(here.world)
    here.clock.forward(60)
    fill(here, 50, 50, 60)
    judged = judge(here.world)
    assert (judged.new, judged.over) == (0, 1)
    assert [one.state for one in kept(here)] == ["undone"]
    over = [one for one in told(here, "spend") if one.notification.resolved]
    assert [one.notification.title for one in over] == ["Over: it is not so any more"]
    here.clock.forward(60)
    fill(here, 50, 50, 300)
    assert judge(here.world).new == 0
    assert [one.state for one in kept(here)] == ["open"]
    assert len(told(here, "spend")) == 2, "the same day is never told twice"


def test_a_crash_between_keeping_and_telling_loses_nothing(here: Deployment) -> None:
    rule(here)
    fill(here, 50, 50, 200)
    silent = replace(here.world, channels={})
    assert judge(silent).new == 1
    assert told(here, "spend") == []
    assert judge(here.world).new == 0
    assert channels_told(here, "spend") == ["all"]


def test_what_was_before_the_rule_is_not_told(here: Deployment) -> None:
    fill(here, 300, 50, 50, 50)
    rule(here)
    assert judge(here.world).new == 0
    assert kept(here) == []


def test_switched_off_changed_and_removed_rules_end_their_alerts(here: Deployment) -> None:
    first = rule(here)
    fill(here, 200)
    judge(here.world)
    changed = change_rule(here.world, first.id, 1, {"amount": Decimal(5000)}, by="ana")
    assert (changed.edition, changed.since) == (2, today(here))
    judge(here.world)
    assert [(one.state, one.why) for one in kept(here)] == [
        ("resolved", "The rule was changed, switched off or removed.")
    ]
    second = rule(here, name="Second")
    judge(here.world)
    change_rule(here.world, second.id, 1, {"on": False}, by="ana")
    judge(here.world)
    assert {one.state for one in kept(here)} == {"resolved"}
    third = rule(here, name="Third")
    judge(here.world)
    remove_rule(here.world, third.id, 1)
    assert judge(here.world).open == 0


def budget(here: Deployment, amount: int, **changes: Any) -> Budget:
    thresholds = (Threshold(Decimal(50)), Threshold(Decimal(100), "forecast"))
    made = Budget("", "Team", Decimal(amount), here.clock.now, "", thresholds=thresholds)
    return add_budget(here.world, replace(made, **changes), by="ana")


def test_a_budget_is_told_at_its_thresholds_once_a_period(here: Deployment) -> None:
    team = budget(here, 600)
    rule(here, kind="budget_burn", budget=team.id, amount=None, per=None, name="Team")
    days = [100] * (today(here).day - 1)
    fill(here, *days)
    judge(here.world)
    judge(here.world)
    [one] = told(here, "budget")
    assert "of the budget is used (threshold 50 %)" in one.notification.title
    figures = figures_of(here.world, team)
    assert figures.spent == 110 * len(days)
    assert dict(one.notification.facts)["Spent"] == f"{figures.spent:,.2f} USD"
    assert isinstance(figures.projection, NotProjected)
    assert "42 complete days" in figures.projection.reason


def test_stale_data_goes_by_the_rules(here: Deployment) -> None:
    fill(here, 10)
    change_rule(here.world, "data-stale", 0, {"hours": 30, "severity": "info"}, by="ana")
    here.clock.forward(86400)
    tell_what_happened(here.world)
    assert {one.notification.severity for one in told(here, "data_stale")} == {"info"}
    judge(here.world)
    assert [one.kind for one in here.world.metadata.alerts(limit=9).items] == ["data_stale"]
    here.send(4)
    fill(here, 10)
    tell_what_happened(here.world)
    assert sum(one.notification.resolved for one in told(here, "data_stale")) == 3
    judge(here.world)
    assert [one.state for one in here.world.metadata.alerts(limit=9).items] == ["resolved"]


def test_a_stale_rule_of_an_account_is_about_its_days(here: Deployment) -> None:
    change_rule(here.world, "data-stale", 0, {"on": False}, by="ana")
    rule(here, kind="data_stale", hours=30, amount=None, per=None, scope=SpendScope(("b",)), name="b is late")
    fill(here, 10, 10)
    here.clock.forward(2 * 86400)
    for number in (2, 1):
        put(here, today(here) - timedelta(days=number), "a,S,r,10,1,1,1")
    tell_what_happened(here.world)
    late = told(here, "data_stale")
    assert sorted(one.channel for one in late) == ["ab", "all"]
    assert late[0].notification.title.startswith("No new cost data of b")


def test_switched_off_refused_files_are_not_told(here: Deployment) -> None:
    change_rule(here.world, "source-quarantined", 0, {"on": False}, by="ana")
    assert put(here, today(here) - timedelta(days=1), "a,S,r,not-a-number,1,1,1") == "quarantined"
    tell_what_happened(here.world)
    assert told(here, "quarantined") == []
    change_rule(here.world, "source-quarantined", 1, {"on": True, "severity": "critical"}, by="ana")
    tell_what_happened(here.world)
    assert {one.notification.severity for one in told(here, "quarantined")} == {"critical"}


def test_a_refused_file_is_an_alert_until_it_is_mended(here: Deployment) -> None:
    day = today(here) - timedelta(days=1)
    put(here, day, "a,S,r,not-a-number,1,1,1")
    judge(here.world)
    assert [(one.kind, one.state) for one in kept(here)] == [("source_quarantined", "open")]
    here.clock.forward(60)
    put(here, day, "a,S,r,5,1,1,1")
    judge(here.world)
    assert [(one.kind, one.state) for one in kept(here)] == [("source_quarantined", "resolved")]


def test_rules_are_judged_once_a_version_and_once_an_hour(here: Deployment) -> None:
    assert judge_when_drained(here.world) is None, "nothing is stored"
    fill(here, 10)
    judged = judge_when_drained(here.world)
    jobs = here.world.metadata.jobs(limit=9, kind="judge").items
    assert (judged is not None, len(jobs)) == (True, 1)
    assert judge_when_drained(here.world, judged) == judged
    assert judge_when_drained(here.world) is None, "while a look is not done"


def test_a_worker_judges_by_a_job_and_again_changes_nothing(here: Deployment) -> None:
    rule(here)
    fill(here, 200)
    for status in ("done", "done-noop"):
        job = submit_judge(here.world)
        run_job(here.world, job.id, HANDLERS)
        done = here.world.metadata.job(job.id)
        assert done is not None
        assert (done.status, done.result["open"]) == (status, 1)
    assert len(kept(here)) == 1


def test_a_channel_that_is_new_hears_of_nothing_old(here: Deployment) -> None:
    rule(here)
    fill(here, 200)
    judge(replace(here.world, channels={}))
    here.clock.forward(3600)
    late = channel("late")
    world = replace(here.world, channels={**here.world.channels, "late": late})
    met(world, "late")
    judge(world)
    assert "late" not in channels_told(here, "spend")
    assert rule_of(here.world, kept(here)[0].rule).name == "Over"
