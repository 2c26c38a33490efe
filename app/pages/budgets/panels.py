"""What the Budgets page says, as components: the budgets, one of them drawn, the rules, and what they said."""

from __future__ import annotations

from decimal import Decimal
from typing import Any, Final

import numpy as np

from app.budgets import BudgetFigures
from app.core.budgets import Threshold, percent_of
from app.core.periods import DAY, DateRange
from app.core.projection import Breach, NotProjected, Projection
from app.core.rules import BUILT_IN, AlertRecord, Rule
from app.core.spend import SpendScope
from app.figures.burn import burn
from app.figures.theme import Figure
from app.pages.budgets.view import BudgetsView
from app.ui import parts, words
from app.ui import tags as html
from app.ui.tags import attributes

Children = Any
PERIOD_WORDS: Final = {"monthly": "month", "quarterly": "quarter", "yearly": "year"}
STATE_LOOKS: Final = {"open": "failed", "resolved": "finished", "undone": ""}
MOST_NAMED: Final = 3


# --- above --------------------------------------------------------------------------------------------------------


def looked(view: BudgetsView) -> list[Children]:
    if not view.sees_all:
        return [html.Span("Those that are wholly of your accounts.")]
    if view.looked is None or view.looked.finished is None:
        return [html.Span("Rules are judged once all that arrived is ingested, and every hour.")]
    return [html.Span("Rules were judged "), parts.ago(view.looked.finished)]


def notices(view: BudgetsView) -> list[Children]:
    found = [parts.banner(text) for text in view.address.notices]
    if view.address.edit and view.form is None:
        text = "This is not there any more." if view.may_change else "Changing budgets and rules takes the role editor."
        found.append(parts.banner(text, "warn"))
    if view.address.alert and all(one.id != view.address.alert for one in view.alerts):
        found.append(parts.banner("This alert is older than those listed here, or was about other accounts.", "warn"))
    return found


def actions(view: BudgetsView, what: str, text: str) -> Children:
    if not view.may_change:
        return None
    return parts.link(text, view.address.editing(what).href(), className="button", **attributes(data_opens="form"))


def spoken(view: BudgetsView) -> str:
    number = sum(view.open_alerts.values())
    return f"{words.counted(len(view.figures), 'budget')}, {words.counted(len(view.rules), 'rule')}, {words.counted(number, 'open alert')}"


# --- budgets ------------------------------------------------------------------------------------------------------


def budgets(view: BudgetsView) -> Children:
    if not view.figures:
        return _no_budgets(view)
    head = ("Budget", "Used", "Expected at the end", "When it is used up", "")
    rows = [_row(view, one) for one in view.figures]
    return _table(head, rows, "budget-table")


def _no_budgets(view: BudgetsView) -> Children:
    text = "A budget says what accounts, services or regions may cost in a month, quarter or year. It shows how much is used, how the period will end, and when it would be used up."
    known = "" if view.known else " There is no cost data yet; figures appear as soon as there is."
    way = parts.link(
        "Set up the first budget", view.address.editing("budget").href(), className="button primary",
        **attributes(data_opens="form"),
    )  # fmt: skip
    return html.Div([html.P(text + known), way if view.may_change else None], className="calm empty-budgets")


def _table(head: tuple[str, ...], rows: list[Children], look: str) -> Children:
    cells = [html.Th(name or html.Span("Change", className="unseen"), scope="col") for name in head]
    return html.Table([html.Thead(html.Tr(cells)), html.Tbody(rows)], className=f"breakdown {look}")


def _row(view: BudgetsView, found: BudgetFigures) -> Children:
    budget = found.budget
    chosen = view.chosen is not None and view.chosen.budget.id == budget.id
    link = parts.link(
        budget.name, view.address.at(budget.id).href(), **attributes(aria_current="true" if chosen else None)
    )
    each = f"{words.money(budget.amount, view.currency)} a {PERIOD_WORDS[budget.period]}"
    kind = "" if budget.metric == "amortized_cost" else f", {words.METRIC_NAMES[budget.metric].lower()}"
    return html.Tr(
        [
            html.Th(
                [
                    link,
                    html.Span(f"{each}{kind}", className="beside"),
                    html.Span(scope_words(budget.scope), className="beside"),
                ],
                scope="row",
            ),
            html.Td(_used(view, found)),
            html.Td(_expected(view, found), **attributes(data_label="Expected at the end")),
            html.Td(breach_words(found), className="words", **attributes(data_label="When it is used up")),
            html.Td(_edit(view, f"budget:{budget.id}", budget.name)),
        ],
        className="chosen" if chosen else "",
        key=budget.id,
    )


def scope_words(scope: SpendScope) -> str:
    """`Everything`, or the values of each part."""
    found = []
    for part, values in scope.parts():
        if len(values) > MOST_NAMED:
            found.append(f"{len(values)} {part}s")
        elif values:
            found.append(", ".join(values))
    return " · ".join(found) or "Everything"


def _used(view: BudgetsView, found: BudgetFigures) -> Children:
    if found.spent is None:
        return html.Span(["Not known. ", html.Span(found.unknown or "", className="beside")], className="words")
    percent = percent_of(found.spent, found.budget.amount)
    text = [html.B(words.percent(found.spent, found.budget.amount)), f" · {words.money(found.spent, view.currency)}"]
    look = "over" if percent >= 100 else "near" if _is_near(found, percent) else ""
    bar = html.Div(
        [
            html.Span(style={"width": f"{min(max(float(percent), 0), 100):.1f}%"}),
            *(_tick(one) for one in found.budget.thresholds if one.of == "actual" and one.percent < 100),
        ],
        className=f"burn-bar {look}",
        role="img",
        **attributes(aria_label=f"{percent:.1f} % of {found.budget.name} used"),
    )
    return [html.P(text, className="burn-text"), bar, _not_final(found)]


def _is_near(found: BudgetFigures, percent: Decimal) -> bool:
    return any(one.of == "actual" and percent >= one.percent for one in found.budget.thresholds)


def _tick(threshold: Threshold) -> Children:
    return html.Span(className="tick", style={"left": f"{float(threshold.percent):.1f}%"})


def _not_final(found: BudgetFigures) -> Children:
    said = []
    if found.sum.lacking:
        said.append(f"at least: {words.counted(len(found.sum.lacking), 'day')} missing")
    if found.sum.settling:
        said.append(f"{words.counted(len(found.sum.settling), 'day')} settling")
    if found.counted_from:
        said.append(f"counted from {words.day(found.counted_from)}")
    return html.Span(", ".join(said), className="beside") if said else None


def _expected(view: BudgetsView, found: BudgetFigures) -> Children:
    projection = found.projection
    if isinstance(projection, NotProjected):
        return html.Span(words.UNKNOWN, title=projection.reason)
    low, high = projection.band
    share = words.percent(projection.total, found.budget.amount)
    return [
        html.Span(words.money(projection.total, view.currency)),
        html.Span(f"{share}, between", className="beside"),
        html.Span(f"{words.money(low, view.currency)} and {words.money(high, view.currency)}", className="beside"),
    ]


def breach_words(found: BudgetFigures) -> str:
    """The projected date of breach as a sentence; why there is none where there is none."""
    if found.unknown is not None:
        return found.unknown
    if isinstance(found.projection, NotProjected):
        if found.spent is not None and found.spent > found.budget.amount:
            return f"It is used up. {found.projection.reason}"
        return found.projection.reason
    return _breach(found.projection.breach(found.budget.amount), found.days)


def _breach(breach: Breach, days: DateRange) -> str:
    if breach.day is None:
        end = f"until the period ends on {words.day(days.last)}"
        if breach.earliest is None:
            return f"Lasts {end}."
        return f"Expected to last {end}; used up on {words.day(breach.earliest)} at the earliest."
    day = words.day(breach.day)
    if breach.is_past:
        return f"Used up on {day}."
    first = words.day(breach.earliest or breach.day, year=False)
    if breach.latest is None:
        return f"On {day}; from {first} on, or it just lasts."
    if breach.earliest == breach.latest:
        return f"On {day}."
    return f"On {day}; between {first} and {words.day(breach.latest, year=False)}."


def _edit(view: BudgetsView, what: str, name: str) -> Children:
    if not view.may_change:
        return None
    return parts.link(
        "Edit", view.address.editing(what).href(), className="button",
        **attributes(data_opens="form", aria_label=f"Edit {name}"),
    )  # fmt: skip


# --- one budget, drawn --------------------------------------------------------------------------------------------


def chart_title(view: BudgetsView) -> str:
    return view.chosen.budget.name if view.chosen else "How it goes on"


def figure(view: BudgetsView) -> Figure | None:
    """Running sums; None where no day of the period is known."""
    found = view.chosen
    if found is None or found.spent is None:
        return None
    days, projection = found.days, found.projection
    amounts = [found.spend.amount(day) for day in days]
    known = [place for place, amount in enumerate(amounts) if amount is not None]
    if not known:
        return None
    sums, places = np.cumsum([float(amount or 0) for amount in amounts]), np.arange(len(days))
    spent = np.where((places >= known[0]) & (places <= known[-1]), sums, np.nan)
    expected = None
    breach = None
    if isinstance(projection, Projection):
        begins = (projection.first - days.start).days - 1
        ahead = places >= begins
        expected = tuple(np.where(ahead, sums, np.nan) for sums in (projection.middle, projection.low, projection.high))
        breach = projection.breach(found.budget.amount).day
    symbol = words.symbol(view.currency)
    return burn(days, spent, expected, float(found.budget.amount), symbol, breach)  # type: ignore[arg-type]


def chart_note(view: BudgetsView) -> Children:
    found = view.chosen
    if found is None:
        return None
    if found.spent is None:
        return f"Not known. {found.unknown}"
    text = f"{words.day_range(found.days)}. {breach_words(found)}"
    if isinstance(found.projection, Projection):
        text += " Shaded: where four of five earlier projections of this history ended."
    budget = words.money(found.budget.amount, view.currency)
    return parts.note(text, f"Spent {words.money(found.spent, view.currency)} of {budget}.")


def chart_actions(view: BudgetsView) -> Children:
    if view.chosen is None or not view.may_change:
        return None
    about = view.chosen.budget.id
    href = view.address.at(about).editing("rule", about).href()
    has_rule = any(rule.budget == about for rule in view.rules)
    return [] if has_rule else parts.link("Alert on it", href, className="button", **attributes(data_opens="form"))


def thresholds(view: BudgetsView) -> Children:
    """When alerts on it are raised, and whether a rule does."""
    if view.chosen is None:
        return None
    said = words.joined(
        [
            f"{one.percent.normalize():f} % {'used' if one.of == 'actual' else 'expected'}"
            for one in view.chosen.budget.thresholds
        ]
    )
    rules = [rule for rule in view.rules if rule.budget == view.chosen.budget.id]
    if not rules:
        return f"Thresholds: {said}. No rule raises alerts on them yet." if said else "No thresholds."
    on = any(rule.on for rule in rules)
    return f"Thresholds: {said}. The rule “{rules[0].name}” {'raises alerts on them' if on else 'is switched off'}."


# --- rules --------------------------------------------------------------------------------------------------------


def rules(view: BudgetsView) -> Children:
    if not view.rules:
        return html.P(
            "No rule is about your accounts alone. Set one up to be told when spend crosses a line.",
            className="note calm",
        )
    return _table(("Rule", "On", "Alerts", ""), [_rule(view, rule) for rule in view.rules], "rule-table")


def _rule(view: BudgetsView, rule: Rule) -> Children:
    number = view.open_alerts.get(rule.id, 0)
    opened = html.Span(words.counted(number, "open alert"), className="job-chip failed") if number else "none open"
    about = "built in" if rule.id in BUILT_IN else scope_words(rule.scope) if rule.kind != "budget_burn" else ""
    return html.Tr(
        [
            html.Th(
                [
                    html.Span(rule.name, className="rule-name"),
                    html.Span(rule_words(view, rule), className="beside"),
                    html.Span(about, className="beside") if about else None,
                ],
                scope="row",
            ),
            html.Td(_switch(view, rule)),
            html.Td(opened),
            html.Td(_edit(view, f"rule:{rule.id}", rule.name)),
        ],
        key=rule.id,
    )


def _switch(view: BudgetsView, rule: Rule) -> Children:
    if not view.may_change:
        return "on" if rule.on else "off"
    named = {"aria_label": f"{rule.name} is on", "aria_checked": "true" if rule.on else "false"}
    data = {"data_switch": rule.id, "data_revision": str(rule.revision)}
    return html.Button(
        html.Span("On" if rule.on else "Off"),
        type="button",
        role="switch",
        className="switch",
        **attributes(**named, **data),
    )


def rule_words(view: BudgetsView, rule: Rule) -> str:
    """What it says, as a sentence."""
    amount = words.money(rule.amount, view.currency)
    if rule.kind == "threshold":
        return f"More than {amount} in a {rule.per}."
    if rule.kind == "change":
        way = {"up": "more", "down": "less", "both": "more or less"}[rule.direction or "up"]
        against = "the {per} before" if rule.against == "previous" else "the same {per} of the month before"
        if rule.against == "last_month" and rule.per == "month":
            against = "the same days of the month before"
        percent = f"{(rule.percent or Decimal(0)).normalize():f} %"
        return f"{percent} and {amount} {way} in a {rule.per} than in {against.format(per=rule.per)}."
    if rule.kind == "budget_burn":
        return f"The budget “{view.names.get(rule.budget or '', 'that is gone')}” reaches one of its thresholds."
    if rule.kind == "data_stale":
        return f"No new day for {words.counted(rule.hours or 0, 'hour')} after the newest one ended."
    return "A cost file is refused: what it says and why is on the Data page."


# --- alerts -------------------------------------------------------------------------------------------------------


def alerts(view: BudgetsView) -> Children:
    if not view.alerts:
        return html.P("No rule has raised an alert yet.", className="note calm")
    return _table(("Alert", "State", "Days", "Raised"), [_alert(view, one) for one in view.alerts], "alert-table")


def _alert(view: BudgetsView, one: AlertRecord) -> Children:
    days = DateRange(one.start, one.last + DAY)
    chip = html.Span(one.state.capitalize(), className=f"job-chip {STATE_LOOKS[one.state]}")
    return html.Tr(
        [
            html.Th(
                [html.Span(one.name, className="rule-name"), html.Span(alert_words(view, one), className="beside")],
                scope="row",
            ),
            html.Td([chip, html.Span(one.why, className="beside") if one.why else None], className="words"),
            html.Td(words.day_range(days)),
            html.Td(parts.ago(one.fired)),
        ],
        className="chosen" if one.id == view.address.alert else "",
        key=one.id,
    )


def alert_words(view: BudgetsView, one: AlertRecord) -> str:
    value, limit = words.money(one.value, view.currency), words.money(one.limit, view.currency)
    if one.kind == "threshold":
        return f"{value}, above {limit}"
    if one.kind == "change":
        return f"{value} after {limit} ({words.change(one.value, one.limit)})"
    if one.kind == "budget_burn":
        of, _, percent = one.part.partition(" ")
        return f"{value} of {limit} {'expected' if of == 'forecast' else 'used'} (threshold {percent} %)"
    if one.kind == "data_stale":
        return f"The newest day was {words.day(one.start)}"
    return one.part.rsplit("/", 2)[-2] if one.part.count("/") > 1 else one.part
