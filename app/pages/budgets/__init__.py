"""Budgets and the rules that raise alerts: how much is used, how it will end, and what is worth a message.

The address is the only state. One callback draws all of it: budgets, rules and alerts change without the data version,
so its answers are not kept. Changes go to the API (assets/65-budgets.js): the page can do nothing that the API cannot.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Any, Final

from dash import ClientsideFunction, Dash, Input, Output, dcc, html

from app.backends import current
from app.pages.budgets import address as addresses
from app.pages.budgets import panels
from app.pages.budgets.view import BudgetsView, look
from app.ui import parts, tags
from app.ui.tags import attributes


class Ids(StrEnum):
    URL = "budgets-url"
    DRAWN = "budgets-drawn"
    AGAIN = "budgets-again"
    LOOK = "budgets-look"
    NOTICES = "budgets-notices"
    NEW_BUDGET = "budgets-new"
    LIST = "budgets-list"
    CHART_PANEL = "budget-chart-panel"
    CHART_TITLE = "budget-title"
    CHART_ACTIONS = "budget-actions"
    NOTE = "burn-note"
    THRESHOLDS = "budget-thresholds"
    NEW_RULE = "rules-new"
    RULES = "rules-list"
    ALERTS = "alerts-list"


CHART: Final = "burn"
DRAWN: Final = (
    Output(Ids.DRAWN, "data"),
    Output(Ids.LOOK, "children"),
    Output(Ids.NOTICES, "children"),
    Output(Ids.NEW_BUDGET, "children"),
    Output(Ids.LIST, "children"),
    Output(Ids.CHART_PANEL, "className"),
    Output(Ids.CHART_TITLE, "children"),
    Output(Ids.CHART_ACTIONS, "children"),
    Output(Ids.NOTE, "children"),
    Output(Ids.THRESHOLDS, "children"),
    Output(Ids.NEW_RULE, "children"),
    Output(Ids.RULES, "children"),
    Output(Ids.ALERTS, "children"),
)


def draw(search: object) -> tuple[Any, ...]:
    view = look(current(), addresses.read(search if isinstance(search, str) else ""))
    return (
        _store(view),
        panels.looked(view),
        panels.notices(view),
        panels.actions(view, "budget", "New budget") if view.figures else None,
        panels.budgets(view),
        "panel span-12" if view.chosen else "panel span-12 away",
        panels.chart_title(view),
        panels.chart_actions(view),
        panels.chart_note(view),
        panels.thresholds(view),
        panels.actions(view, "rule", "New rule"),
        panels.rules(view),
        panels.alerts(view),
    )


def _store(view: BudgetsView) -> dict[str, Any]:
    """What the browser paints, and builds the form, from."""
    return {"figure": panels.figure(view), "spoken": panels.spoken(view), "form": view.form}


def register(app: Dash) -> None:
    """`AGAIN` carries nothing: the browser sets it to ask once more."""
    app.callback(*DRAWN, Input(Ids.URL, "search"), Input(Ids.AGAIN, "data"))(
        lambda search, _: tags.finished(draw(search))
    )
    app.clientside_callback(  # type: ignore[no-untyped-call]
        ClientsideFunction("spendscope_budgets", "paint"),
        Output(parts.chart_id(CHART), "figure"),
        Input(Ids.DRAWN, "data"),
    )


# --- the page without its contents --------------------------------------------------------------------------------


def layout(**_: Any) -> html.Div:
    return html.Div(
        [
            dcc.Location(id=Ids.URL, refresh=False),
            dcc.Store(id=Ids.DRAWN),
            dcc.Store(id=Ids.AGAIN),
            html.Div(
                html.Div([html.H1("Budgets"), html.Div(id=Ids.LOOK, className="look")], className="page-head"),
                className="page-top",
            ),
            html.Div(id=Ids.NOTICES, className="notices"),
            html.Div([html.Div(_lists(), className="grid"), _form()], className="budgets-body"),
        ],
        className="page budgets-page",
        **attributes(data_address=Ids.URL.value),
    )


def _lists() -> list[Any]:
    return [
        parts.panel(
            "Budgets", _scrolled(Ids.LIST, "budgets-title"), id="budgets", span=12, aside=html.Div(id=Ids.NEW_BUDGET)
        ),
        _chart(),
        parts.panel(
            "Rules", _scrolled(Ids.RULES, "rules-title"), id="rules", span=12, aside=html.Div(id=Ids.NEW_RULE),
            note=html.P("What is worth a message. Channels choose what they are told (kinds budget, spend, data_stale, quarantined).", className="note"),
        ),
        parts.panel("Alerts", _scrolled(Ids.ALERTS, "alerts-title"), id="alerts", span=12),
    ]  # fmt: skip


def _scrolled(id: str, labelled: str) -> html.Div:
    return html.Div(id=id, className="table-scroll", tabIndex=0, role="group", **attributes(aria_labelledby=labelled))


def _chart() -> html.Section:
    graph = dcc.Graph(
        id=parts.chart_id(CHART), config=parts.GRAPH_CONFIG, style={"height": "260px"}, figure=parts.EMPTY_FIGURE
    )
    picture = html.Div(
        graph, role="img", **attributes(aria_labelledby=Ids.CHART_TITLE.value, aria_describedby=Ids.NOTE.value)
    )
    return html.Section(
        [
            html.Div([html.H2(id=Ids.CHART_TITLE), html.Div(id=Ids.CHART_ACTIONS)], className="panel-head"),
            html.P(id=Ids.NOTE, className="note"),
            picture,
            html.P(id=Ids.THRESHOLDS, className="note"),
        ],
        id=Ids.CHART_PANEL,
        className="panel span-12 away",
        **attributes(aria_labelledby=Ids.CHART_TITLE.value),
    )


def _form() -> html.Section:
    """Filled by assets/65-budgets.js."""
    return html.Section(id="budget-form", className="panel budget-form away", **attributes(aria_label="Settings"))
