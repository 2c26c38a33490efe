"""Anomalies: what stood out, what it is made of, what was known when, and what to say of it.

The address is the only state. One callback draws all of it: the records change without the data version, so its
answers are not kept.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Any, Final

from dash import ClientsideFunction, Dash, Input, Output, State, dcc, html

from app.backends import current
from app.core.arrivals import PARTS
from app.pages import address as pages
from app.pages.anomalies import address as addresses
from app.pages.anomalies import fromgrafana, panels, plans
from app.pages.anomalies.address import PATH, Address
from app.pages.anomalies.view import AnomaliesView, look
from app.ui import controls, parts, tags
from app.ui.tags import attributes


class Ids(StrEnum):
    URL = "anomalies-url"
    DRAWN = "anomalies-drawn"
    AGAIN = "anomalies-again"
    ACCOUNT = "anomalies-account"
    SERVICE = "anomalies-service"
    REGION = "anomalies-region"
    TABS = "anomalies-tabs"
    LOOK = "anomalies-look"
    NOTICES = "anomalies-notices"
    LIST = "anomalies-list"
    SIDE = "anomaly-side"
    HEAD = "anomaly-head"
    NOTE = "band-note"
    PARTS = "anomaly-parts"
    TIMELINE = "anomaly-timeline"
    BACKTEST = "anomalies-backtest"
    GRAFANA = "anomalies-grafana"
    PLANS = "anomalies-plans"
    PLANS_NOTE = "plans-note"
    PLAN_FORM = "plan-form"
    REASON = "anomalies-reason"


FILTERS: Final = {"account": Ids.ACCOUNT, "service": Ids.SERVICE, "region": Ids.REGION}
CHART: Final = "band"
DRAWN: Final = (
    Output(Ids.DRAWN, "data"),
    Output(Ids.TABS, "children"),
    Output(Ids.LOOK, "children"),
    Output(Ids.NOTICES, "children"),
    Output(Ids.LIST, "children"),
    Output(Ids.SIDE, "className"),
    Output(Ids.HEAD, "children"),
    Output(Ids.NOTE, "children"),
    Output(Ids.PARTS, "children"),
    Output(Ids.TIMELINE, "children"),
    Output(Ids.BACKTEST, "children"),
    Output(Ids.GRAFANA, "children"),
    Output(Ids.PLANS, "children"),
    Output(Ids.PLANS_NOTE, "children"),
)


def draw(search: object) -> tuple[Any, ...]:
    view = look(current(), addresses.read(search if isinstance(search, str) else ""))
    return (
        _store(view),
        panels.state_tabs(view),
        panels.looked(view),
        panels.notices(view),
        panels.listed(view),
        "panel anomaly-side" if view.chosen else "panel anomaly-side away",
        panels.heading(view),
        panels.chart_note(view),
        panels.contributions(view),
        panels.timeline(view),
        panels.backtest(view),
        fromgrafana.listed(view.grafana, view.more_of_grafana, sees_all=view.sees_all),
        plans.listed(view.plans, view.every, view.currency, view.today, may_plan=view.may_plan),
        plans.form_note(view.may_plan),
    )


def _store(view: AnomaliesView) -> dict[str, Any]:
    """What the browser paints from."""
    return {
        "figure": panels.figure(view),
        "options": panels.options(view),
        "spoken": panels.spoken(view),
        "id": view.chosen.id if view.chosen else None,
        "mayPlan": view.may_plan,
        "currency": view.currency,
        "counting": view.backtest is not None and view.backtest.finished is None,
    }


def register(app: Dash) -> None:
    """`AGAIN` carries nothing: the browser sets it to ask once more."""
    app.callback(*DRAWN, Input(Ids.URL, "search"), Input(Ids.AGAIN, "data"))(
        lambda search, _: tags.finished(draw(search))
    )
    app.clientside_callback(  # type: ignore[no-untyped-call]
        ClientsideFunction("spendscope_anomalies", "sync"),
        Output(Ids.URL, "search"),
        *(Output(control, "value") for control in FILTERS.values()),
        Input(Ids.URL, "search"),
        *(Input(control, "value") for control in FILTERS.values()),
        State(Ids.DRAWN, "data"),
    )
    app.clientside_callback(  # type: ignore[no-untyped-call]
        ClientsideFunction("spendscope_anomalies", "paint"),
        Output(parts.chart_id(CHART), "figure"),
        *(Output(control, "options") for control in FILTERS.values()),
        Input(Ids.DRAWN, "data"),
    )


# --- the page without its contents --------------------------------------------------------------------------------


def layout(**params: Any) -> html.Div:
    """`params` are the address's, so that the controls are right from the start."""
    address = _from_params(params)
    return html.Div(
        [
            dcc.Location(id=Ids.URL, refresh=False),
            dcc.Store(id=Ids.DRAWN),
            dcc.Store(id=Ids.AGAIN),
            html.Div([_head(), _controls(address)], className="page-top"),
            html.Div(id=Ids.NOTICES, className="notices"),
            html.Div([_list(), _side()], className="anomalies-body"),
            html.Div([_of_grafana(), _plans(), _backtest()], className="grid after"),
        ],
        className="page anomalies-page",
        **attributes(data_address=Ids.URL.value),
    )


def _from_params(params: dict[str, Any]) -> Address:
    pairs = [
        (name, value) for name, given in params.items() for value in (given if isinstance(given, list) else [given])
    ]
    return addresses.read(pages.written(pairs))


def _head() -> html.Div:
    return html.Div([html.H1("Anomalies"), html.Div(id=Ids.LOOK, className="look")], className="page-head")


def _controls(address: Address) -> html.Details:
    fields = [
        *(
            controls.field(part.capitalize(), controls.multiple(control, part, address.values(part)), control)
            for part, control in FILTERS.items()
        ),
        html.A("Reset", href=PATH, className="reset", **attributes(data_internal="yes")),
    ]
    return controls.bar(fields, id="anomalies-filters")


def _list() -> html.Section:
    tabs = html.Nav(id=Ids.TABS, className="tabs", **attributes(aria_label="State"))
    body = html.Div(
        id=Ids.LIST, className="table-scroll", tabIndex=0, role="group", **attributes(aria_labelledby="anomalies-title")
    )
    return parts.panel("What stood out", tabs, _bulk(), body, id="anomalies", span=12)


def _bulk() -> html.Div:
    """For those that are chosen in the list."""
    return html.Div(
        [html.Span("For the chosen ones", className="note"), *_words("chosen", "Reason for the chosen ones")],
        className="verdicts bulk",
        role="group",
        **attributes(aria_label="Say something of the chosen ones"),
    )


def _words(of: str, label: str) -> list[Any]:
    """Buttons for what can be said, and the reason that goes with it (assets/60-anomalies.js)."""
    said = (
        ("acknowledged", "Acknowledge", "a"),
        ("expected", "Expected", "e"),
        ("dismissed", "Dismiss", "d"),
        ("open", "Reopen", "o"),
    )
    reason = dcc.Input(id=f"{Ids.REASON}-{of}", type="text", placeholder="Reason", maxLength=500, className="reason")
    buttons = [
        html.Button(
            text,
            type="button",
            className="button",
            **attributes(data_say=state, data_of=of, aria_keyshortcuts=key if of == "one" else None),
        )
        for state, text, key in said
    ]
    named = html.Label([html.Span(label, className="unseen"), reason])
    return [named, html.Div(buttons, className="actions")]


def _side() -> html.Section:
    chart = html.Div(
        dcc.Graph(
            id=parts.chart_id(CHART), config=parts.GRAPH_CONFIG, style={"height": "270px"}, figure=parts.EMPTY_FIGURE
        ),
        role="img",
        **attributes(aria_label="Actual and expected cost by day", aria_describedby=Ids.NOTE.value),
    )
    said = html.Div(
        [*_words("one", "Reason"), html.P("Keys here: a, e, d, o", className="note")],
        className="verdicts",
        role="group",
        **attributes(aria_label="Say something of this one"),
    )
    story = html.Div(
        id=Ids.TIMELINE,
        className="table-scroll",
        tabIndex=0,
        role="group",
        **attributes(aria_label="What was known when"),
    )
    return html.Section(
        [
            html.Div(id=Ids.HEAD, className="anomaly-head"),
            said,
            html.P(id=Ids.NOTE, className="note"),
            chart,
            html.H3("What it is made of"),
            html.Div(id=Ids.PARTS),
            html.H3("What was known when"),
            story,
        ],
        id=Ids.SIDE,
        className="panel anomaly-side away",
        **attributes(aria_label="The chosen anomaly"),
    )


def _of_grafana() -> html.Section:
    body = html.Div(
        id=Ids.GRAFANA,
        className="table-scroll",
        tabIndex=0,
        role="group",
        **attributes(aria_labelledby="grafana-title"),
    )
    note = html.P("Alerts of Grafana's rules. Links lead out of Spendscope.", className="note")
    return parts.panel("From Grafana", body, id="grafana", span=12, note=note)


def _plans() -> html.Section:
    """The form is built in the browser (assets/60-anomalies.js): its fields are native ones, dates among them."""
    body = html.Div(
        id=Ids.PLANS, className="table-scroll", tabIndex=0, role="group", **attributes(aria_labelledby="plans-title")
    )
    note = html.P(id=Ids.PLANS_NOTE, className="note")
    return parts.panel("Planned spend", body, html.Div(id=Ids.PLAN_FORM), id="plans", span=12, note=note)


def _backtest() -> html.Section:
    fields = [
        html.Label(
            [text, dcc.Input(id=f"backtest-{name}", type="number", min=0, placeholder="by size", className="limit")],
        )
        for name, text in (("daily", "Least dollars a day"), ("total", "Least dollars in all"))
    ]
    button = html.Button("Count alerts", type="button", className="button", **attributes(data_backtest="yes"))
    said = html.P(id=Ids.BACKTEST, className="backtest", role="status")
    form = html.Div([*fields, button], className="backtest-form")
    note = html.P(
        "A replay of the last 12 months, each day judged only with what was known then. Nothing of it is kept as an anomaly.",
        className="note",
    )
    return parts.panel("With other limits", said, form, id="backtest", span=12, note=note)


assert set(FILTERS) == set(PARTS)
