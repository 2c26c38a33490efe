"""What every adapter of ports.Budgets does; part of the contract of ports.Metadata."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest

from app.core.budgets import Budget, Threshold
from app.core.rules import AlertRecord, Rule
from app.core.spend import SpendScope
from app.errors import InvalidInput
from app.ports import Metadata

NOW = datetime(2026, 11, 24, 4, 30, 7, 125, tzinfo=UTC)
DAY = date(2026, 11, 20)
HOSTILE = SpendScope(("$where", "a.b", "é💰"), ("'; DROP TABLE rule; --", "<b>"), ("$ne",))


def budget(id: str = "one", **changes: Any) -> Budget:
    """One with names in it that mean something to a store."""
    thresholds = (Threshold(Decimal("80.5")), Threshold(Decimal(100), "forecast"))
    made = Budget(
        id, "$set <Team>", Decimal("12000.50"), NOW, "ana", HOSTILE, "unblended_cost", "quarterly", thresholds
    )
    return replace(made, **changes)


def rule(id: str = "one", **changes: Any) -> Rule:
    made = Rule(
        id, "A rule", "change", NOW, "ana", on=True, severity="critical", scope=HOSTILE, metric="amortized_cost",
        per="week", amount=Decimal("0.01"), percent=Decimal("12.5"), against="last_month", direction="both",
        since=DAY, edition=4,
    )  # fmt: skip
    return replace(made, **changes)


def alert(id: str = "one", *, after: float = 0, **changes: Any) -> AlertRecord:
    made = AlertRecord(
        id, "rule", 1, "threshold", "A rule", "info", "actual 80", DAY, DAY + timedelta(days=2), Decimal("-0.01"),
        Decimal("1E+2"), ("$where",), ("a.b",), NOW + timedelta(seconds=after),
    )  # fmt: skip
    return replace(made, **changes)


class BudgetsContract:
    def test_budgets_rules_and_alerts_come_back_as_they_were_put(self, store: Metadata) -> None:
        plain = Rule("plain", "Plain", "data_stale", NOW, "", hours=36)
        over = alert("over", resolved=NOW, undone=True, why="é", accounts=(), owners=())
        assert (store.put_budget(budget()), store.put_rule(rule()), store.put_rule(plain)) == (True, True, True)
        assert (store.put_alert(alert()), store.put_alert(over)) == (True, True)
        assert (store.budget("one"), store.rule("one"), store.rule("plain")) == (budget(), rule(), plain)
        assert (store.alert("one"), store.alert("over")) == (alert(), over)
        assert (store.budget("$ne"), store.rule("$ne"), store.alert("$ne")) == (None, None, None)

    def test_a_budget_is_changed_and_removed_by_whoever_saw_its_newest_revision(self, store: Metadata) -> None:
        assert store.put_budget(budget())
        assert not store.put_budget(budget(name="Another"))
        changed = budget(name="Another", revision=2)
        assert store.put_budget(changed)
        assert not store.put_budget(budget(revision=2))
        assert not store.put_budget(budget("new", revision=2))
        assert not store.remove_budget("one", 1)
        assert store.budgets() == [changed]
        assert store.remove_budget("one", 2)
        assert not store.remove_budget("one", 2)
        assert store.budgets() == []
        assert store.put_budget(budget()), "what was removed may be made again"

    def test_a_rule_is_changed_and_removed_by_whoever_saw_its_newest_revision(self, store: Metadata) -> None:
        assert store.put_rule(rule())
        assert not store.put_rule(rule(on=False))
        assert store.put_rule(rule(on=False, revision=2))
        assert not store.put_rule(rule(revision=2))
        assert not store.remove_rule("one", 1)
        assert store.rules() == [rule(on=False, revision=2)]
        assert store.remove_rule("one", 2)
        assert store.rules() == []

    def test_they_are_listed_by_name(self, store: Metadata) -> None:
        for key, name in (("1", "b"), ("3", "a"), ("2", "b")):
            store.put_budget(budget(key, name=name))
            store.put_rule(rule(key, name=name))
        assert [one.id for one in store.budgets()] == ["3", "1", "2"]
        assert [one.id for one in store.rules()] == ["3", "1", "2"]

    def test_alerts_are_listed_newest_first_page_by_page(self, store: Metadata) -> None:
        for number in range(5):
            state = {"resolved": NOW} if number % 2 else {}
            assert store.put_alert(alert(f"a{number}", after=number // 2, rule="xy"[number // 3], **state))
        seen, cursor = [], None
        while True:
            page = store.alerts(limit=2, cursor=cursor)
            seen += [one.id for one in page.items]
            if (cursor := page.next_cursor) is None:
                break
        assert seen == ["a4", "a3", "a2", "a1", "a0"]
        assert [one.id for one in store.alerts(limit=9, rule="y").items] == ["a4", "a3"]
        assert [one.id for one in store.alerts(limit=9, state="resolved").items] == ["a3", "a1"]
        assert [one.id for one in store.alerts(limit=9, rule="x", state="open").items] == ["a2", "a0"]
        with pytest.raises(InvalidInput):
            store.alerts(limit=2, cursor="nonsense")

    def test_an_alert_is_changed_once_a_revision(self, store: Metadata) -> None:
        assert store.put_alert(alert())
        assert not store.put_alert(alert())
        assert store.put_alert(alert(resolved=NOW, revision=2))
        assert not store.put_alert(alert(revision=2))
        assert [one.id for one in store.alerts(limit=9, state="resolved").items] == ["one"]

    def test_alerts_of_a_rule_are_the_open_ones_and_the_recent_ones(self, store: Metadata) -> None:
        old, recent = {"last": DAY, "resolved": NOW}, {"last": DAY + timedelta(days=3), "resolved": NOW}
        given = (alert("open", last=DAY), alert("old", **old), alert("recent", **recent), alert("other", rule="other"))
        assert all(store.put_alert(one) for one in given)
        found = store.alerts_of("rule", DAY + timedelta(days=3))
        assert sorted(one.id for one in found) == ["open", "recent"]

    def test_housekeeping_leaves_open_alerts(self, store: Metadata) -> None:
        for key, after, changes in (("open", 0, {}), ("over", 0, {"resolved": NOW}), ("new", 9, {"resolved": NOW})):
            store.put_alert(alert(key, after=after, **changes))
        assert store.forget_alerts(fired_before=NOW + timedelta(seconds=9)) == 1
        assert [one.id for one in store.alerts(limit=9).items] == ["new", "open"]

    def test_of_several_who_fire_the_same_alert_one_does(self, store: Metadata) -> None:
        with ThreadPoolExecutor(4) as pool:
            won = list(pool.map(lambda number: store.put_alert(alert(value=Decimal(number))), range(8)))
        assert sum(won) == 1
