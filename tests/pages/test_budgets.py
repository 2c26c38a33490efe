"""The Budgets page as the server answers it: addresses, words, figures, and that names from data stay text."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.backends import Backends
from app.budgets import add_budget, add_rule
from app.core.budgets import Budget, BudgetPeriod
from app.core.periods import DateRange
from app.core.projection import Breach
from app.core.rules import Rule
from app.core.spend import SpendScope
from app.judging import judge
from app.pages.budgets import address as addresses
from app.pages.budgets import panels
from app.pages.budgets.address import Address
from app.pages.budgets.view import BudgetsView, look
from tests import found
from tests.api.conftest import empty_backends


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return found.built_once(tmp_path_factory)


@pytest.fixture
def backends(built: Path, tmp_path: Path) -> Iterator[Backends]:
    with found.copied(built, tmp_path / "copy") as opened:
        yield opened


def text_of(part: Any) -> str:
    return json.dumps(part, default=str, ensure_ascii=False)


def kept(
    backends: Backends, amount: int, name: str = "Team", period: BudgetPeriod = "monthly", **changes: Any
) -> Budget:
    made = Budget("", name, Decimal(amount), backends.clock(), "", period=period)
    return add_budget(backends, replace(made, **changes), by="ana")


def seen(backends: Backends, search: str = "") -> BudgetsView:
    return look(backends, addresses.read(search))


ids = st.none() | st.from_regex(r"\A[a-z0-9-]{1,20}\Z")


@given(ids, st.none() | st.sampled_from(["rule", "budget", "rule:a-1"]), ids, ids)
def test_an_address_reads_what_it_wrote(
    budget: str | None, edit: str | None, about: str | None, alert: str | None
) -> None:
    address = Address(budget, edit, about, alert)
    assert addresses.read(address.search()) == address


@pytest.mark.parametrize(
    "search", ["?budget=%00", "?edit=user", "?x=1", "?budget=" + "a" * 99, "?edit=rule:%3Cb%3E", "?&=="]
)
def test_no_address_is_an_error(backends: Backends, search: str) -> None:
    view = seen(backends, search)
    assert view.form is None
    assert panels.budgets(view)


def test_nothing_yet_says_what_a_budget_is_and_leads_to_the_first(tmp_path: Path) -> None:
    backends = empty_backends(tmp_path / "root")
    view = seen(backends)
    said = text_of(panels.budgets(view))
    assert "There is no cost data yet" in said
    assert "?edit=budget" in said
    assert panels.figure(view) is None
    assert "Data is stale" in text_of(panels.rules(view))
    assert "No rule has raised an alert yet" in text_of(panels.alerts(view))
    backends.metadata.close()


def test_a_budget_says_what_is_used_and_what_is_not_final(backends: Backends) -> None:
    kept(backends, 12_000)
    view = seen(backends)
    said = text_of(panels.budgets(view))
    # The newest day is 16 October, and it is the 20th: three days are missing.
    for words in ("Team", "$12,000.00 a month", "Everything", "at least: ", "missing", "of Team used"):
        assert words in said, words
    assert view.chosen is not None
    assert view.chosen.spent == view.chosen.sum.total
    figure = panels.figure(view)
    assert figure is not None
    assert [trace["name"] for trace in figure["data"]][-2:] == ["Spent", "Budget"]
    assert figure["data"][-2]["y"][15] is not None
    assert figure["data"][-2]["y"][16] is None, "unknown is a hole"


def test_a_budget_that_cannot_be_known_says_why_and_draws_nothing(tmp_path: Path) -> None:
    backends = empty_backends(tmp_path / "root")
    kept(backends, 500)
    view = seen(backends)
    assert "Not known. " in text_of(panels.budgets(view))
    assert "$0" not in text_of(panels.budgets(view))
    assert panels.figure(view) is None
    assert "Nothing is stored yet." in text_of(panels.chart_note(view))
    backends.metadata.close()


NOVEMBER = DateRange(date(2026, 11, 1), date(2026, 12, 1))


@pytest.mark.parametrize(
    ("breach", "words"),
    [
        (Breach(None, None, None), "Lasts until the period ends on 30 Nov 2026."),
        (Breach(None, date(2026, 11, 29), None), "used up on 29 Nov 2026 at the earliest."),
        (Breach(*[date(2026, 11, 14)] * 3, is_past=True), "Used up on 14 Nov 2026."),
        (
            Breach(date(2026, 11, 24), date(2026, 11, 22), date(2026, 11, 27)),
            "On 24 Nov 2026; between 22 Nov and 27 Nov.",
        ),
        (Breach(date(2026, 11, 28), date(2026, 11, 26), None), "On 28 Nov 2026; from 26 Nov on, or it just lasts."),
        (Breach(*[date(2026, 11, 24)] * 3), "On 24 Nov 2026."),
    ],
)
def test_the_day_of_breach_in_words(breach: Breach, words: str) -> None:
    assert panels._breach(breach, NOVEMBER).endswith(words)


def test_rules_are_sentences_and_alerts_lead_back(backends: Backends) -> None:
    team = kept(backends, 9000, "<b>Team</b>")
    at = backends.clock()
    for rule in (
        Rule(
            "", "Dear", "threshold", at, "", on=True, amount=Decimal(700), scope=SpendScope((), ("<b>Amazon EC2</b>",))
        ),
        Rule(
            "", "Jump", "change", at, "", amount=Decimal(50), percent=Decimal("12.5"), against="last_month", per="month"
        ),
        Rule("", "Burn", "budget_burn", at, "", budget=team.id, on=True),
    ):
        add_rule(backends, rule, by="ana")
    judge(backends)
    view = seen(backends)
    said = text_of(panels.rules(view))
    for words in (
        "More than $700.00 in a day.",
        "12.5 % and $50.00 more in a month than in the same days of the month before.",
        "The budget “<b>Team</b>” reaches one of its thresholds.",
        "No new day for 48 hours after the newest one ended.",
    ):
        assert words in said, words
    assert "raises alerts on them" in (panels.thresholds(view) or "")
    assert {one.kind for one in view.alerts} == {"data_stale", "budget_burn"}
    listed = text_of(panels.alerts(view))
    assert "used (threshold 80 %)" in listed
    assert "The newest day was 16 Oct 2026" in listed
    marked = seen(backends, f"?alert={view.alerts[0].id}")
    assert '"className": "chosen"' in text_of(panels.alerts(marked))
    assert panels.notices(marked) == []
    assert panels.notices(seen(backends, "?alert=gone"))


def test_a_form_is_filled_from_what_is_kept(backends: Backends) -> None:
    team = kept(backends, 9000)
    form = seen(backends, f"?edit=budget:{team.id}").form
    assert form is not None
    assert (form["value"]["amount"], form["value"]["revision"]) == ("9000", 1)
    assert "<b>Amazon EC2</b>" in form["values"]["service"]
    new = seen(backends, f"?edit=rule&about={team.id}").form
    assert new is not None
    assert (new["value"], new["about"], new["budgets"]) == (None, team.id, [[team.id, "Team"]])
    gone = seen(backends, "?edit=budget:gone")
    assert gone.form is None
    assert "not there any more" in text_of(panels.notices(gone))
