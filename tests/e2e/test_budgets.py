"""The Budgets page in a real browser: set one up by keyboard, preview a rule before it is on, two editors, no axe findings."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from app.backends import Backends
from app.budgets import add_budget, add_rule, change_rule
from app.core.budgets import Budget
from app.core.rules import Rule
from app.core.spend import SpendScope
from app.judging import judge
from tests import found
from tests.e2e.conftest import Served
from tests.e2e.test_overview import AXE, Open, open_page, violations

pytestmark = pytest.mark.browser
__all__ = ["open_page"]


@dataclass
class Kept:
    served: Served
    backends: Backends

    @property
    def url(self) -> str:
        return self.served.url + "/budgets"


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return found.built_once(tmp_path_factory)


@pytest.fixture
def kept(built: Path, tmp_path: Path) -> Iterator[Kept]:
    with found.copied(built, tmp_path / "copy") as opened:
        backends = replace(opened, memo={})
        served = Served(backends)
        yield Kept(served, backends)
        served.stop()


def visit(open_page: Open, kept: Kept, search: str = "", **more: Any) -> Any:
    page = open_page(search, base=kept.url, ready=False, **more)
    page.wait_for_selector(".rule-table")
    settled(page)
    return page


def settled(page: Any) -> None:
    page.wait_for_function("document.documentElement.dataset.busy === 'no'")


def test_a_budget_is_set_up_changed_and_removed_by_keyboard(open_page: Open, kept: Kept) -> None:
    page = visit(open_page, kept, quiet=True)
    page.get_by_role("link", name="Set up the first budget").press("Enter")
    page.wait_for_function("document.activeElement.tagName === 'H2'")
    page.get_by_label("Name").fill("Team <i>")
    page.get_by_label("Amount (USD)").fill("12,5")
    page.get_by_label("Services").fill("<b>Amazon EC2</b>")
    page.get_by_label("Services").press("Enter")
    page.get_by_role("button", name="Set up").press("Enter")
    page.wait_for_selector(".form-error:has-text('not a decimal number')")
    assert page.evaluate("document.activeElement.dataset.field") == "amount"
    page.get_by_label("Amount (USD)").fill("9000")
    page.get_by_role("button", name="Set up").press("Enter")
    page.wait_for_selector(".budget-table")
    page.wait_for_selector("#budget-chart-panel .scatterlayer .trace")
    [budget] = kept.backends.metadata.budgets()
    assert (budget.name, budget.amount) == ("Team <i>", Decimal(9000))
    assert budget.scope == SpendScope((), ("<b>Amazon EC2</b>",))
    page.get_by_role("link", name="Edit Team <i>").press("Enter")
    page.get_by_label("Amount (USD)").fill("10000")
    page.get_by_role("button", name="Save").press("Enter")
    page.wait_for_selector(".budget-table:has-text('$10,000.00')")
    page.get_by_role("link", name="Edit Team <i>").press("Enter")
    page.get_by_role("button", name="Remove", exact=True).click()
    page.get_by_role("button", name="Remove for good?").click()
    page.wait_for_selector(".empty-budgets")
    assert kept.backends.metadata.budgets() == []


def test_a_rule_is_switched_on_after_what_it_would_have_said_was_seen(open_page: Open, kept: Kept) -> None:
    page = visit(open_page, kept)
    page.get_by_role("link", name="New rule").click()
    page.get_by_label("Name").fill("Dear")
    page.get_by_label("Above (USD)").fill("700")
    page.get_by_role("button", name="Switch on").click()
    page.wait_for_selector(".sentence:has-text('With these settings you would have had 1 alert since 2026-08-02')")
    assert "10 Oct 2026 – 16 Oct 2026" in page.locator(".preview-list").inner_text()
    assert kept.backends.metadata.rules() == [], "the first click only shows"
    page.get_by_label("Above (USD)").fill("800")
    page.get_by_role("button", name="Switch on").click()
    page.wait_for_selector(".sentence")
    settled(page)
    page.wait_for_timeout(300)
    assert kept.backends.metadata.rules() == [], "other settings are shown again"
    page.get_by_role("button", name="Switch on").click()
    page.wait_for_selector(".rule-table:has-text('More than $800.00 in a day.')")
    [rule] = kept.backends.metadata.rules()
    assert (rule.on, rule.amount) == (True, Decimal(800))
    page.get_by_role("switch", name="Dear is on").click()
    page.wait_for_selector("[role=switch][aria-checked=false]")
    assert kept.backends.metadata.rules()[0].on is False
    page.get_by_role("switch", name="Dear is on").click()
    page.wait_for_selector(".sentence")
    assert kept.backends.metadata.rules()[0].on is False, "on only after it was seen"
    page.keyboard.press("Escape")
    page.wait_for_selector("#budget-form.away", state="attached")


def test_of_two_editors_the_slower_one_is_told(open_page: Open, kept: Kept) -> None:
    rule = Rule("", "Dear", "threshold", kept.backends.clock(), "", amount=Decimal(700))
    made = add_rule(kept.backends, rule, by="ana")
    page = visit(open_page, kept, f"?edit=rule:{made.id}", quiet=True)
    change_rule(kept.backends, made.id, 1, {"name": "Dear day"}, by="bob")
    page.get_by_label("Name").fill("Mine")
    page.get_by_role("button", name="Save, off").click()
    page.wait_for_selector(".form-error:has-text('was changed by somebody else')")
    assert kept.backends.metadata.rules()[0].name == "Dear day"


@pytest.mark.parametrize(("theme", "width"), [("light", 1440), ("dark", 390)])
def test_axe_finds_nothing(open_page: Open, kept: Kept, theme: str, width: int) -> None:
    if not AXE.exists():
        pytest.skip("npm ci installs axe-core, which this needs")
    made = Budget("", "Team", Decimal(9000), kept.backends.clock(), "")
    team = add_budget(kept.backends, made, by="ana")
    add_rule(kept.backends, Rule("", "Burn", "budget_burn", made.at, "", budget=team.id, on=True), by="ana")
    judge(kept.backends)
    page = visit(open_page, kept, width=width, color_scheme=theme)
    page.wait_for_selector(".alert-table")
    page.add_script_tag(path=str(AXE))
    assert violations(page) == []
    page.get_by_role("link", name="New rule").click()
    page.get_by_label("Accounts").fill("111111111111")
    page.get_by_label("Accounts").press("Enter")
    page.get_by_label("Above (USD)").fill("700")
    page.get_by_role("button", name="Preview").click()
    page.wait_for_selector(".sentence")
    settled(page)
    assert violations(page) == []
    assert page.evaluate("document.documentElement.scrollWidth") <= width
