"""Budgets, rules and alerts over HTTP: what people set up, what it would have said, and what it said."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from decimal import Decimal
from typing import Final

from flask import Response, request

from app import budgets as use
from app.api.ledger import ID
from app.api.models import Answer
from app.api.routes import CURSOR, TEXT, Arguments, Parameter, Route, answered, body_of, limit_of, one_of
from app.api.rulemodels import (
    AlertAnswer,
    AlertList,
    BudgetAnswer,
    BudgetChange,
    BudgetList,
    BudgetRequest,
    PreviewAnswer,
    RuleAnswer,
    RuleChange,
    RuleList,
    RuleRequest,
    budget_changes,
    rule_changes,
)
from app.backends import Backends, current
from app.core.budgets import Budget
from app.core.query import choice, whole
from app.core.rules import ALERT_STATES, Rule, checked_rule
from app.errors import InvalidInput, NotFound
from app.judging import preview
from app.principal import principal

ONE: Final = Decimal(1)


# --- which revision is meant --------------------------------------------------------------------------------------


def _revision(given: int | None) -> int:
    """Of the body, or of If-Match (`"3"`). Raises InvalidInput when neither is there, or both and they differ."""
    header = request.headers.get("If-Match")
    if header is not None:
        tag = header.strip().removeprefix("W/").strip('"')
        found = whole("If-Match", tag, 0, 2**31)
        if given is not None and given != found:
            raise InvalidInput(f"revision {given} and If-Match {found} differ. Send one of them.", field="revision")
        return found
    if given is None:
        raise InvalidInput(
            "revision is missing. Send the revision you read, as a member or as If-Match, so that nobody's change is lost.",
            field="revision",
        )
    return given


def _tagged(answer: Answer, revision: int, status: int = 200) -> Response:
    return answered(answer, status, {"ETag": f'"{revision}"'})


def _revision_of_delete(given: Arguments) -> int:
    value = given.first("revision")
    return _revision(None if value is None else whole("revision", value, 0, 2**31))


# --- budgets ------------------------------------------------------------------------------------------------------


def budgets(_: Arguments) -> Response:
    backends = current()
    return answered(BudgetList(items=[_answer(backends, one) for one in use.budgets_of(backends)]))


def _answer(backends: Backends, found: Budget) -> BudgetAnswer:
    return BudgetAnswer.of(use.figures_of(backends, found), backends.settings.currency)


def budget(_: Arguments, id: str) -> Response:
    backends = current()
    found = use.budget_of(backends, id)
    return _tagged(_answer(backends, found), found.revision)


def add_budget(_: Arguments) -> Response:
    backends = current()
    asked: BudgetRequest = body_of(BudgetRequest)
    # Complete but for what add_budget gives it.
    made = replace(Budget("", "", ONE, backends.clock(), ""), **budget_changes(asked))
    kept = use.add_budget(backends, made, by=principal().name)
    return _tagged(_answer(backends, kept), kept.revision, 201)


def change_budget(_: Arguments, id: str) -> Response:
    backends = current()
    use.budget_of(backends, id)
    asked: BudgetChange = body_of(BudgetChange)
    kept = use.change_budget(backends, id, _revision(asked.revision), budget_changes(asked), by=principal().name)
    return _tagged(_answer(backends, kept), kept.revision)


def remove_budget(given: Arguments, id: str) -> Response:
    use.budget_of(current(), id)
    use.remove_budget(current(), id, _revision_of_delete(given))
    return budgets(given)


# --- rules --------------------------------------------------------------------------------------------------------


def rules(_: Arguments) -> Response:
    return answered(RuleList(items=[RuleAnswer.of(rule) for rule in use.rules_of(current())]))


def rule(_: Arguments, id: str) -> Response:
    found = use.rule_of(current(), id)
    return _tagged(RuleAnswer.of(found), found.revision)


def add_rule(_: Arguments) -> Response:
    kept = use.add_rule(current(), _asked_rule(body_of(RuleRequest)), by=principal().name)
    return _tagged(RuleAnswer.of(kept), kept.revision, 201)


def _asked_rule(asked: RuleRequest) -> Rule:
    return replace(Rule("", asked.name, asked.kind, current().clock(), ""), **rule_changes(asked))


def change_rule(_: Arguments, id: str) -> Response:
    use.rule_of(current(), id)
    asked: RuleChange = body_of(RuleChange)
    kept = use.change_rule(current(), id, _revision(asked.revision), rule_changes(asked), by=principal().name)
    return _tagged(RuleAnswer.of(kept), kept.revision)


def remove_rule(given: Arguments, id: str) -> Response:
    use.rule_of(current(), id)
    use.remove_rule(current(), id, _revision_of_delete(given))
    return rules(given)


def preview_rule(_: Arguments) -> Response:
    return _previewed(checked_rule(_asked_rule(body_of(RuleRequest))))


def preview_kept_rule(_: Arguments, id: str) -> Response:
    return _previewed(checked_rule(use.rule_of(current(), id)))


def _previewed(asked: Rule) -> Response:
    about = use.budget_of(current(), asked.budget) if asked.budget is not None else None
    use.may_set_up(asked)
    return answered(PreviewAnswer.of(preview(current(), asked, about)))


# --- alerts -------------------------------------------------------------------------------------------------------


def alerts(given: Arguments) -> Response:
    state = given.first("state")
    found = current().metadata.alerts(
        limit=given.limit(100),
        cursor=given.first("cursor"),
        rule=given.first("rule"),
        state=None if state is None else choice("state", state, ALERT_STATES),
    )
    return answered(AlertList(items=[AlertAnswer.of(one) for one in found.items], next_cursor=found.next_cursor))


def alert(_: Arguments, id: str) -> Response:
    found = current().metadata.alert(id) if id.isascii() else None
    if found is None:
        raise NotFound(f"There is no alert {id[:40]!r}. GET /api/v1/alerts lists them.")
    return answered(AlertAnswer.of(found))


REVISION: Final = Parameter(
    "revision", "The newest revision you saw; or send it as `If-Match`.", {"type": "integer", "minimum": 0}
)
OPTIMISTIC: Final = "Send the revision you read, as `revision` or as `If-Match`: when somebody else was faster the answer is 409, and nothing is lost."


def _routes(
    path: str, lister: Callable[..., Response], adder: Callable[..., Response], one: Callable[..., Response],
    changer: Callable[..., Response], remover: Callable[..., Response], named: str, tag: str,
    models: tuple[type[Answer], type[Answer], type[BudgetRequest | RuleRequest], type[BudgetChange | RuleChange]],
    about: str,
) -> tuple[Route, ...]:  # fmt: skip
    every, single, asked, changed = models
    return (
        Route("GET", path, lister, f"{named.capitalize()}s", every, about=about, tag=tag),
        Route(
            "POST", path, adder, f"Set up a {named}", single, body=asked, status=201,
            problems=(400, 404, 409, 413, 415, 422), tag=tag,
        ),
        Route("GET", f"{path}/<id>", one, f"One {named}", single, parameters=(ID,), problems=(404,), tag=tag),
        Route(
            "PATCH", f"{path}/<id>", changer, f"Change a {named}", single, about=OPTIMISTIC, parameters=(ID,),
            body=changed, problems=(400, 404, 409, 413, 415, 422), tag=tag,
        ),
        Route(
            "DELETE", f"{path}/<id>", remover, f"Remove a {named}", every, about=OPTIMISTIC,
            parameters=(ID, REVISION), problems=(400, 404, 409, 422), tag=tag,
        ),
    )  # fmt: skip


ROUTES: Final = (
    *_routes(
        "/api/v1/budgets", budgets, add_budget, budget, change_budget, remove_budget, "budget", "budgets",
        (BudgetList, BudgetAnswer, BudgetRequest, BudgetChange),
        "With what is spent, and what will be, of the period that yesterday is in. Those that are wholly of accounts you see.",
    ),
    *_routes(
        "/api/v1/rules", rules, add_rule, rule, change_rule, remove_rule, "rule", "rules",
        (RuleList, RuleAnswer, RuleRequest, RuleChange),
        "Built-in ones for stale data and refused files are there from the start: they can be changed and switched off.",
    ),
    Route(
        "POST", "/api/v1/rules/preview", preview_rule, "What a rule would have said", PreviewAnswer,
        about="The alerts of the last 12 months under these settings, judged on what is stored. Nothing is kept.",
        body=RuleRequest, problems=(400, 404, 413, 415, 422), tag="rules",
    ),
    Route(
        "POST", "/api/v1/rules/<id>/preview", preview_kept_rule, "What a kept rule would have said", PreviewAnswer,
        parameters=(ID,), problems=(404,), tag="rules",
    ),
    Route(
        "GET", "/api/v1/alerts", alerts, "Alerts of rules", AlertList,
        parameters=(
            Parameter("rule", "Only of this rule.", TEXT),
            one_of("state", "Only in this state.", ALERT_STATES),
            limit_of(100),
            CURSOR,
        ),
        problems=(400,), tag="rules",
    ),
    Route("GET", "/api/v1/alerts/<id>", alert, "One alert", AlertAnswer, parameters=(ID,), problems=(404,), tag="rules"),
)  # fmt: skip
