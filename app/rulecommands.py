"""`spendscope budget …` and `spendscope rule …`: what the Budgets page and the API do, from a shell."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Final

import click

from app.console import Command, say, told_in_one_line
from app.core.exports import printable
from app.errors import Conflict, InvalidInput, NotFound

if TYPE_CHECKING:
    from app.backends import Backends
    from app.budgets import BudgetFigures
    from app.core.budgets import Budget, Threshold
    from app.core.rules import Rule


def opened() -> Backends:
    from app.backends import open_backends
    from app.config import read_settings

    backends = open_backends(read_settings())
    backends.metadata.prepare()
    backends.costs.prepare()
    return backends


def scoped(command: Command) -> Command:
    for part in ("region", "service", "account"):
        help_ = f"Only this {part}; repeat it for several. Default: all."
        command = click.option(f"--{part}", f"{part}s", multiple=True, help=help_)(command)
    return command


def _noted(backends: Backends, what: str, target: str) -> None:
    from app.access import CONSOLE, note

    note(backends, CONSOLE, what, target)


def _decimal(option: str, value: str | None) -> Decimal | None:
    from app.api.rulemodels import decimal_from

    return None if value is None else decimal_from(option, value)


def _scope(accounts: Sequence[str], services: Sequence[str], regions: Sequence[str]) -> Any:
    from app.core.spend import SpendScope

    return SpendScope.of(accounts, services, regions)


def _called(found: Sequence[Any], name: str, what: str) -> Any:
    """The one of this id or name, None when there is none. Raises Conflict when several have the name."""
    mine = [one for one in found if one.id == name] or [one for one in found if one.name == name]
    if len(mine) > 1:
        raise Conflict(f"{len(mine)} {what}s are called {name[:40]!r}. Give the id: {', '.join(o.id for o in mine)}.")
    return mine[0] if mine else None


def _needed(found: Sequence[Any], name: str, what: str) -> Any:
    one = _called(found, name, what)
    if one is None:
        raise NotFound(f"There is no {what} {name[:40]!r}. `spendscope {what} list` shows them.")
    return one


def _given(**members: Any) -> dict[str, Any]:
    return {name: value for name, value in members.items() if value not in (None, ())}


# --- budgets ------------------------------------------------------------------------------------------------------


@click.group()
def budget() -> None:
    """What may be spent in a month, quarter or year, and how much of it is and will be (docs/budgets.md)."""


@budget.command("list")
@click.option("--json", "as_json", is_flag=True, help="Print the API's object instead of a table.")
@told_in_one_line
def budget_list(as_json: bool) -> None:
    """All budgets with what is spent and expected in the present period."""
    from app.api.rulemodels import BudgetAnswer, BudgetList
    from app.budgets import budgets_of, figures_of

    backends = opened()
    found = [figures_of(backends, one) for one in budgets_of(backends)]
    currency = backends.settings.currency
    if as_json:
        say(BudgetList(items=[BudgetAnswer.of(one, currency) for one in found]).json_text())
        return
    for one in found:
        say(budget_line(one, currency))
    if not found:
        say("No budgets. `spendscope budget set NAME --amount 12000` makes one.")


def budget_line(found: BudgetFigures, currency: str) -> str:
    """Name, amount, what is spent and expected, and when it is used up."""
    from app.core.alerts import money
    from app.core.projection import Projection

    each = f"{money(found.budget.amount, currency)} {found.budget.period}"
    spent = f"spent {money(found.spent, currency)}" if found.spent is not None else f"not known: {found.unknown}"
    said = f"{found.budget.id}  {printable(found.budget.name):<32.60}  {each}  {spent}"
    if isinstance(found.projection, Projection):
        low, high = found.projection.band
        breach = found.projection.breach(found.budget.amount)
        said += (
            f", expected {money(found.projection.total, currency)} ({money(low, currency)} to {money(high, currency)})"
        )
        said += f", used up {'on' if breach.is_past else 'about'} {breach.day}" if breach.day else ", lasts"
    return said


@budget.command("set")
@click.argument("name")
@click.option("--amount", help="For each period, in the deployment's currency.")
@click.option("--period", type=click.Choice(["monthly", "quarterly", "yearly"]), help="Default: monthly.")
@click.option("--metric", help="amortized_cost (the default), unblended_cost or blended_cost.")
@scoped
@click.option(
    "--threshold", "thresholds", multiple=True, help="80 or 100:forecast; repeat it. Default: 80, 100, 100:forecast."
)
@click.option("--owner", "owners", multiple=True, help="Account whose channels are told; default: those of the scope.")
@told_in_one_line
def budget_set(
    name: str, amount: str | None, period: str | None, metric: str | None, accounts: tuple[str, ...],
    services: tuple[str, ...], regions: tuple[str, ...], thresholds: tuple[str, ...], owners: tuple[str, ...],
) -> None:  # fmt: skip
    """Set up the budget NAME, or change it (by name or id). What is not given stays as it is."""
    from app.budgets import add_budget, change_budget
    from app.core.budgets import Budget

    backends = opened()
    before: Budget | None = _called(backends.metadata.budgets(), name, "budget")
    changes = _given(
        amount=_decimal("--amount", amount), period=period, metric=metric, owners=tuple(sorted(set(owners))),
        thresholds=tuple(sorted(_threshold(text) for text in thresholds)),
    )  # fmt: skip
    if accounts or services or regions:
        changes["scope"] = _scope(accounts, services, regions)
    if before is None and "amount" not in changes:
        raise InvalidInput(f"There is no budget {name[:40]!r} yet. Give --amount to set it up.")
    _noted(backends, "set budget", name)
    if before is None:
        made = replace(Budget("", name, Decimal(1), backends.clock(), ""), **changes)
        kept = add_budget(backends, made, by=_CONSOLE)
    else:
        kept = change_budget(backends, before.id, before.revision, changes, by=_CONSOLE)
    say(f"{kept.id}  {printable(kept.name)} is set, revision {kept.revision}")


_CONSOLE: Final = "command line"


def _threshold(text: str) -> Threshold:
    from app.api.rulemodels import decimal_from
    from app.core.budgets import OFS, Threshold
    from app.core.query import choice

    percent, _, of = text.partition(":")
    return Threshold(decimal_from("--threshold", percent), choice("--threshold", of or "actual", OFS))  # type: ignore[arg-type]


@budget.command("remove")
@click.argument("name")
@told_in_one_line
def budget_remove(name: str) -> None:
    """Remove the budget NAME (name or id)."""
    from app.budgets import remove_budget

    backends = opened()
    found = _needed(backends.metadata.budgets(), name, "budget")
    _noted(backends, "remove budget", found.name)
    remove_budget(backends, found.id, found.revision)
    say(f"{printable(found.name)} is removed")


# --- rules --------------------------------------------------------------------------------------------------------


@click.group()
def rule() -> None:
    """What raises an alert: spend, changes, budgets, stale data, refused files (docs/budgets.md)."""


@rule.command("list")
@click.option("--json", "as_json", is_flag=True, help="Print the API's object instead of a table.")
@told_in_one_line
def rule_list(as_json: bool) -> None:
    """All rules, the built-in ones too."""
    from app.api.rulemodels import RuleAnswer, RuleList
    from app.budgets import rules_of

    found = rules_of(opened())
    if as_json:
        say(RuleList(items=[RuleAnswer.of(one) for one in found]).json_text())
        return
    for one in found:
        say(f"{one.id:<20} {'on' if one.on else 'off':<4} {one.severity:<9} {one.kind:<19} {printable(one.name)}")


_RULE_OPTIONS: Final[tuple[Callable[[Command], Command], ...]] = (
    click.option("--kind", help="threshold, change, budget_burn, data_stale; of a rule there is it stays."),
    click.option("--amount", help="threshold: more than this; change: by at least this."),
    click.option("--percent", help="change: and by at least this share."),
    click.option("--per", type=click.Choice(["day", "week", "month"]), help="Default: day."),
    click.option("--against", type=click.Choice(["previous", "last_month"]), help="change; default: previous."),
    click.option("--direction", type=click.Choice(["up", "down", "both"]), help="change; default: up."),
    click.option("--metric", help="amortized_cost (the default), unblended_cost or blended_cost."),
    click.option("--budget", "about", help="budget_burn: name or id of the budget."),
    click.option("--hours", type=int, help="data_stale: since the newest day ended."),
    scoped,
    click.option("--severity", type=click.Choice(["info", "warning", "critical"]), help="Default: warning."),
)


def _rule_options(command: Command) -> Command:
    for option in reversed(_RULE_OPTIONS):
        command = option(command)
    return command


@rule.command("set")
@click.argument("name")
@_rule_options
@click.option("--on/--off", "on", default=None, help="Switch it on or off. A new rule is off: preview it first.")
@told_in_one_line
def rule_set(name: str, **given: Any) -> None:
    """Set up the rule NAME, or change it (by name or id). What is not given stays as it is."""
    from app.budgets import add_rule, change_rule, rules_of

    backends = opened()
    before: Rule | None = _called(rules_of(backends), name, "rule")
    changes = _changes(backends, given)
    _noted(backends, "set rule", name)
    if before is None:
        kept = add_rule(backends, _new(backends, name, changes), by=_CONSOLE)
    else:
        kept = change_rule(backends, before.id, before.revision, changes, by=_CONSOLE)
    state = "on" if kept.on else f"off; `spendscope rule preview {kept.id}` says what it would have said"
    say(f"{kept.id}  {printable(kept.name)} is set, revision {kept.revision}, {state}")


def _changes(backends: Backends, given: dict[str, Any]) -> dict[str, Any]:
    """Options as members of a rule."""
    plain = {name: given[name] for name in ("kind", "per", "against", "direction", "metric", "hours", "severity")}
    found = _given(
        **plain, amount=_decimal("--amount", given["amount"]), percent=_decimal("--percent", given["percent"])
    )
    if given.get("on") is not None:
        found["on"] = given["on"]
    if given["about"] is not None:
        found["budget"] = _needed(backends.metadata.budgets(), given["about"], "budget").id
    scope = [given[part] for part in ("accounts", "services", "regions")]
    return found | ({"scope": _scope(*scope)} if any(scope) else {})


def _new(backends: Backends, name: str, changes: dict[str, Any]) -> Rule:
    from app.core.query import choice
    from app.core.rules import RULE_KINDS, Rule

    if "kind" not in changes:
        raise InvalidInput(f"There is no rule {name[:40]!r} yet. Give --kind to set it up.")
    kind = choice("--kind", changes["kind"], RULE_KINDS)
    return replace(Rule("", name, kind, backends.clock(), ""), **changes)  # type: ignore[arg-type]


@rule.command("remove")
@click.argument("name")
@told_in_one_line
def rule_remove(name: str) -> None:
    """Remove the rule NAME (name or id). Its alerts stay listed."""
    from app.budgets import remove_rule, rules_of

    backends = opened()
    found = _needed(rules_of(backends), name, "rule")
    _noted(backends, "remove rule", found.name)
    remove_rule(backends, found.id, found.revision)
    say(f"{printable(found.name)} is removed")


@rule.command("preview")
@click.argument("name")
@_rule_options
@click.option("--json", "as_json", is_flag=True, help="Print the API's object.")
@told_in_one_line
def rule_preview(name: str, as_json: bool, **given: Any) -> None:
    """The alerts of the last 12 months that the rule NAME, or one with these options, would have raised.

    Nothing is kept. Options change a rule there is for the preview only.
    """
    from app.api.rulemodels import PreviewAnswer
    from app.budgets import budget_of, rules_of
    from app.core.rules import checked_rule
    from app.judging import preview

    backends = opened()
    before: Rule | None = _called(rules_of(backends), name, "rule")
    changes = _changes(backends, given)
    asked = checked_rule(replace(before, **changes) if before else _new(backends, name, changes))
    found = preview(backends, asked, budget_of(backends, asked.budget) if asked.budget else None)
    if as_json:
        say(PreviewAnswer.of(found).json_text())
        return
    for one in found.alerts:
        days = str(one.start) if one.start == one.last else f"{one.start} to {one.last}"
        say(f"{one.fired:%Y-%m-%d}  {days:<24}  {one.value} against {one.limit}  {printable(one.part)}".rstrip())
    say(found.sentence)
    if found.days:
        say(found.known)
