"""Overview: what was spent, on what, where and when. The address is the only state; one callback draws it all."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, Final

from dash import ClientsideFunction, Dash, Input, Output, html, no_update

from app.backends import current
from app.core.charges import COSTS
from app.costs import snapshot
from app.figures.usage import Usage
from app.pages import address as addresses
from app.pages import panels
from app.pages.address import LEVELS, Address
from app.pages.view import DRAWING, View, looked
from app.ui import controls, parts, words
from app.ui.shell import Ids as Shell
from app.ui.tags import attributes, finished

CHARTS: Final = ("daily", "regions", "comparison", "usage")


class Ids(StrEnum):
    CRUMBS = "crumbs"
    CHIPS = "chips"
    NOTICES = "notices"
    MESSAGE = "message"
    PANELS = "panels"
    TOTAL = "total"
    TABS = "group-tabs"
    DAILY_NOTE = "daily-note"
    LEGEND = "legend"
    ANOMALIES = "daily-anomalies"
    TOP_NOTE = "top-note"
    TOP = "top"
    REGION_NOTE = "regions-note"
    COMPARISON_NOTE = "comparison-note"
    COMPARISON_TOTALS = "comparison-totals"
    USAGE_NOTE = "usage-note"
    BREAKDOWN = "breakdown"
    CSV = "csv"


DRAWN: Final = (
    Output(controls.Ids.DRAWN, "data"),
    Output(controls.Ids.PERIODS, "children"),
    Output(Ids.CRUMBS, "children"),
    Output(Ids.CHIPS, "children"),
    Output(Shell.FRESHNESS, "children"),
    Output(Ids.NOTICES, "children"),
    Output(Shell.STATUS, "children"),
    Output(Ids.MESSAGE, "children"),
    Output(Ids.PANELS, "className"),
)
FILLED: Final = (
    Output(Ids.TOTAL, "children"),
    Output(Ids.TABS, "children"),
    Output(Ids.DAILY_NOTE, "children"),
    Output(Ids.LEGEND, "children"),
    Output(Ids.TOP_NOTE, "children"),
    Output(Ids.TOP, "children"),
    Output(Ids.REGION_NOTE, "children"),
    Output(Ids.COMPARISON_NOTE, "children"),
    Output(Ids.COMPARISON_TOTALS, "children"),
    Output(Ids.USAGE_NOTE, "children"),
    Output(Ids.BREAKDOWN, "children"),
    Output(Ids.CSV, "href"),
)


def layout(**params: Any) -> html.Div:
    """The page without figures; `params` are the address's, so that the controls are right from the start."""
    return html.Div([*controls.page_state(), _controls(_from_params(params)), *_states(), _panels()], className="page")


def draw(search: str | None) -> tuple[Any, ...]:
    """The whole page for an address."""
    backends = current()
    address = addresses.read(search if isinstance(search, str) else "", backends.today())
    now = snapshot(backends)
    if now.known is None:
        return _empty(address)
    with DRAWING:
        return _shown(looked(backends, now, now.known, address))


def drawn(search: str | None) -> tuple[Any, ...]:
    return finished(draw(search))


def register(app: Dash) -> None:
    app.callback(*DRAWN, *FILLED, Input(controls.Ids.URL, "search"))(drawn)
    app.clientside_callback(  # type: ignore[no-untyped-call]
        ClientsideFunction("spendscope", "paint"),
        *(Output(parts.chart_id(name), "figure") for name in CHARTS),
        *(Output(control, "options") for control in controls.FILTERS.values()),
        Input(controls.Ids.DRAWN, "data"),
    )


def _from_params(params: dict[str, Any]) -> Address:
    pairs = [
        (name, value) for name, given in params.items() for value in (given if isinstance(given, list) else [given])
    ]
    today = datetime.now(UTC).date()
    return addresses.read(addresses.written(pairs), today)


def _controls(address: Address) -> html.Div:
    bar = controls.filter_bar(
        periods=panels.period_tabs(address),
        metrics={metric: words.METRIC_NAMES[metric] for metric in COSTS},
        chosen={level: address.values(level) for level in LEVELS},
        metric=address.metric,
        start=str(address.days.start),
        last=str(address.days.last),
    )
    head = html.Div(
        [html.H1("Overview"), html.Nav(id=Ids.CRUMBS, className="crumbs", **attributes(aria_label="Breadcrumb"))],
        className="page-head",
    )
    return html.Div([head, bar, html.Div(id=Ids.CHIPS, className="chips")], className="page-top")


def _states() -> list[Any]:
    return [html.Div(id=Ids.NOTICES, className="notices"), html.Div(id=Ids.MESSAGE)]


def _panels() -> html.Div:
    tabs = html.Nav(id=Ids.TABS, className="tabs", **attributes(aria_label="Group by"))
    csv = html.A([parts.icon("download"), "Download CSV"], id=Ids.CSV, href="#", className="button")
    return html.Div(
        [
            _panel("Total Spend", "total", 12, html.Div(id=Ids.TOTAL, className="kpis")),
            _panel(
                "Daily Spend Trends", "daily", 8, parts.chart("daily", height=330, note_id=Ids.DAILY_NOTE),
                aside=tabs, note_id=Ids.DAILY_NOTE, before=html.Div(
                    [html.Div(id=Ids.LEGEND, className="legend"), html.Div(id=Ids.ANOMALIES, className="legend")]
                ),
            ),
            _panel("Top 5 Services & Regions", "top", 4, html.Ol(id=Ids.TOP, className="top"), note_id=Ids.TOP_NOTE),
            _panel(
                "Cost per Region", "regions", 8,
                parts.chart("regions", height=690, note_id=Ids.REGION_NOTE, min_width=740), note_id=Ids.REGION_NOTE,
            ),
            html.Div(
                [
                    _panel(
                        "Cost Comparison", "comparison", 4, parts.chart("comparison", height=190, note_id=Ids.COMPARISON_NOTE),
                        note_id=Ids.COMPARISON_NOTE, before=html.Dl(id=Ids.COMPARISON_TOTALS, className="metrics"),
                        aside=_definitions(),
                    ),
                    _panel(
                        "Service Usage Quantities", "usage", 4, parts.chart("usage", height=370, note_id=Ids.USAGE_NOTE),
                        note_id=Ids.USAGE_NOTE,
                    ),
                ],
                className="stack span-4",
            ),
            _panel("Breakdown", "breakdown", 12, html.Div(id=Ids.BREAKDOWN, className="table-scroll", tabIndex=0, role="group",
                   **attributes(aria_labelledby="breakdown-title")), aside=csv),
        ],
        id=Ids.PANELS,
        className="grid loading",
    )  # fmt: skip


def _panel(
    title: str, id: str, span: int, body: Any, *, aside: Any = None, note_id: str | None = None, before: Any = None
) -> html.Section:
    note = html.P(id=note_id, className="note") if note_id else None
    return parts.panel(title, before, body, id=id, span=span, aside=aside, note=note)


def _definitions() -> html.Details:
    meanings = {
        "Amortized": "upfront and recurring commitment fees, spread over the days they cover.",
        "Unblended": "what was charged on that day.",
        "Blended": "the organization's average rate, for reconciling consolidated bills.",
    }
    lines = [html.P([html.B(name + ": "), text]) for name, text in meanings.items()]
    last = html.P(
        "The cost type changes the accounting, not the usage. Credits, tax and late charges can make an invoice differ."
    )
    return html.Details(
        [html.Summary("What is this?"), html.Div([*lines, last], className="popover")], className="help"
    )


def _empty(address: Address) -> tuple[Any, ...]:
    store = _store(address, {}, {})
    head: tuple[Any, ...] = (
        store,
        panels.period_tabs(address),
        panels.crumbs(address),
        [],
        [],
        [],
        "No cost data yet.",
    )
    return (*head, panels.nothing_yet(), "grid away", *(no_update for _ in FILLED))


def _shown(view: View) -> tuple[Any, ...]:
    address = view.address
    head = (panels.period_tabs(address), panels.crumbs(address), panels.chips(address), panels.freshness(view))
    states = (panels.notices(view), panels.spoken(view))
    if view.is_empty:
        store = _store(address, {}, panels.options(view))
        return (store, *head, *states, panels.no_match(view), "grid away", *(no_update for _ in FILLED))
    used = panels.usage_rows(view)
    store = _store(address, panels.figures(view, used), panels.options(view))
    return (store, *head, *states, None, "grid", *_filled(view, used))


def _filled(view: View, used: Sequence[Usage]) -> tuple[Any, ...]:
    return (
        panels.total(view),
        panels.group_tabs(view.address),
        panels.daily_note(view),
        panels.legend(view),
        panels.top_note(view),
        panels.top_list(view),
        panels.region_note(view),
        panels.comparison_note(view),
        panels.comparison_totals(view),
        panels.usage_note(view, used),
        panels.breakdown(view),
        panels.csv_href(view),
    )


def _store(address: Address, figures: dict[str, Any], options: dict[str, Any]) -> dict[str, Any]:
    """What the browser paints from: figures without colours, filter options, the days the date fields show."""
    days = {"start": str(address.days.start), "last": str(address.days.last)}
    return {"figures": figures, "options": options, "days": days}
