"""Planned spend on the Anomalies page: the windows there are, and which of them silenced an anomaly."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from datetime import date
from typing import Any

from app.core.anomalyrecords import BY_PLAN, AnomalyRecord, PlannedSpend, Verdict
from app.core.periods import DateRange
from app.core.scopes import Scope
from app.ui import parts, words
from app.ui import tags as html
from app.ui.tags import attributes

Children = Any


def listed(
    plans: Sequence[PlannedSpend], records: Iterable[AnomalyRecord], currency: str, today: date, *, may_plan: bool
) -> Children:
    if not plans:
        return html.P("Nothing is planned.", className="note calm")
    silenced = Counter(
        verdict.plan for record in records if (verdict := record.verdict) and verdict.by == BY_PLAN and verdict.plan
    )
    head = ("What", "Where", "Days", "A day, at most", "Silences", *(("",) if may_plan else ()))
    cells = [
        html.Th(name or html.Span("Remove", className="unseen"), scope="col", className="number" if n == 3 else "")
        for n, name in enumerate(head)
    ]
    rows = [_row(plan, silenced[plan.id], currency, today, may_plan) for plan in plans]
    return html.Table([html.Thead(html.Tr(cells)), html.Tbody(rows)], className="breakdown plan-table")


def _row(plan: PlannedSpend, silenced: int, currency: str, today: date, may_plan: bool) -> Children:
    when = "over" if plan.end <= today else "coming" if plan.start > today else "now"
    extra = "any amount" if plan.extra is None else words.money(plan.extra, currency, sign=True)
    remove = html.Button(
        "Remove",
        type="button",
        className="button small",
        **attributes(data_forget_plan=plan.id, aria_label=f"Remove {plan.reason[:80]}, {_days(plan)}"),
    )
    return html.Tr(
        [
            html.Th([plan.reason, html.Span(["by ", plan.by], className="anomaly-where")], scope="row"),
            html.Td(where(plan.scope)),
            html.Td([_days(plan), html.Span(when, className="anomaly-kind")], className="when"),
            html.Td(extra, className="number"),
            html.Td(_silenced(silenced)),
            *([html.Td(remove)] if may_plan else []),
        ],
        key=plan.id,
        **attributes(data_plan=plan.id),
    )


def _silenced(number: int) -> str:
    return "1 anomaly" if number == 1 else f"{number:,} anomalies" if number else "nothing yet"


def _days(plan: PlannedSpend) -> str:
    return words.day_range(DateRange(plan.start, plan.end))


def where(scope: Scope) -> str:
    return " · ".join(value for _, value in scope.parts() if value) or "everything"


def why(verdict: Verdict, plans: Iterable[PlannedSpend]) -> str:
    """The window that a verdict of a plan came from, in words."""
    found = next((plan for plan in plans if plan.id == verdict.plan), None)
    if found is None:
        return "planned spend that was removed since" if verdict.plan else "planned spend"
    return f"the planned spend of {_days(found)} for {where(found.scope)}"


def form_note(may_plan: bool) -> Children:
    text = (
        "What begins there on these days is expected and raises no alert, up to the dollars a day you give; more is news. "
        "What a window silenced stays expected when the window is removed."
    )
    if not may_plan:
        text += " Editors who see all accounts can plan spend."
    return parts.note(text)
