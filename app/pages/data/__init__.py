"""Data: which day of which account is complete, what was refused and why, and what is being done about it.

The address is the only state. Three callbacks: `draw` depends on the address (without what is open at the side), the
data and the day, so its answers are kept; `side` shows one day; `live` shows the jobs, and is asked while one is active.
"""

from __future__ import annotations

from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, Final

from dash import ClientsideFunction, Dash, Input, Output, State, dcc, html, no_update

from app.backends import current
from app.pages import address as pages
from app.pages.data import address as addresses
from app.pages.data import dayside, jobside, panels, plan, trust
from app.pages.data.address import PATH, Address
from app.pages.data.view import DataView, look, look_at_day, look_at_work
from app.ui import controls, parts, tags
from app.ui.tags import attributes


class Ids(StrEnum):
    URL = "data-url"
    VIEW = "data-view"
    TRUST_VIEW = "data-trust-view"
    PLAN_VIEW = "data-plan-view"
    DRAWN = "data-drawn"
    AGAIN = "data-again"
    TICK = "data-tick"
    LIVE = "data-live"
    PERIODS = "data-periods"
    DATES = "data-dates"
    ACCOUNT = "data-account"
    NOTICES = "data-notices"
    MESSAGE = "data-message"
    PANELS = "data-panels"
    SUMMARY = "data-summary"
    NOTE = "calendar-note"
    LEGEND = "calendar-legend"
    CALENDAR = "calendar"
    TABLE = "calendar-table"
    QUARANTINED = "data-quarantined"
    QUARANTINED_NOTE = "quarantined-note"
    SIDE = "data-side"
    TRUST_TABS = "trust-tabs"
    TRUST = "data-trust"
    LOOK = "data-look"
    PLAN = "data-plan"
    JOBS = "data-jobs"


STORES: Final = (Ids.VIEW, Ids.TRUST_VIEW, Ids.PLAN_VIEW, Ids.DRAWN, Ids.AGAIN, Ids.TICK, Ids.LIVE)
DRAWN: Final = (
    Output(Ids.DRAWN, "data"),
    Output(Ids.PERIODS, "children"),
    Output(Ids.NOTICES, "children"),
    Output(Ids.MESSAGE, "children"),
    Output(Ids.PANELS, "className"),
)
FILLED: Final = (
    Output(Ids.SUMMARY, "children"),
    Output(Ids.NOTE, "children"),
    Output(Ids.LEGEND, "children"),
    Output(Ids.TABLE, "children"),
    Output(Ids.QUARANTINED_NOTE, "children"),
    Output(Ids.QUARANTINED, "children"),
)


# --- what the server answers --------------------------------------------------------------------------------------


def draw(search: str | None) -> tuple[Any, ...]:
    """Everything but the side and the jobs."""
    backends = current()
    view = look(backends, _read(search))
    if view.is_empty:
        return (
            _store(view),
            panels.period_tabs(view.address),
            [],
            panels.nothing_yet(view),
            "grid away",
            *(no_update for _ in FILLED),
        )
    return (
        _store(view),
        panels.period_tabs(view.address),
        panels.notices(view),
        None,
        "grid",
        panels.summary(view),
        panels.calendar_note(view),
        panels.legend(view),
        panels.table(view),
        panels.quarantined_note(view),
        panels.quarantined(view),
    )


def side(search: str | None) -> Any:
    """The chosen day, nothing while none is chosen."""
    address = _read(search)
    if address.day is None:
        return None
    return dayside.day_side(look_at_day(current(), address, address.day))


def judge(search: str | None) -> tuple[Any, ...]:
    """How far the figures can be trusted: what was noticed, how days moved, whether a month adds up."""
    address = _read(search)
    return trust.tabs(address), trust.shown(current(), address)


def price(search: str | None) -> Any:
    """What a backfill would cost, before it can be begun; nothing while none is asked about."""
    address = _read(search)
    return plan.backfill(current(), address)


def live() -> tuple[Any, ...]:
    """The jobs as they are now, and what the browser needs to know to ask again or not."""
    found = look_at_work(current())
    state = {"active": found.is_active, "version": found.version, "words": jobside.summary(found)}
    return state, jobside.jobs(found), jobside.last_look(found)


def register(app: Dash) -> None:
    """`AGAIN` and `TICK` carry nothing: the browser sets them to ask once more."""
    app.callback(*DRAWN, *FILLED, Input(Ids.VIEW, "data"), Input(Ids.AGAIN, "data"))(
        lambda search, _: tags.finished(draw(search))
    )
    app.callback(Output(Ids.SIDE, "children"), Input(Ids.URL, "search"), Input(Ids.AGAIN, "data"))(
        lambda search, _: side(search)
    )
    app.callback(
        Output(Ids.LIVE, "data"), Output(Ids.JOBS, "children"), Output(Ids.LOOK, "children"), Input(Ids.TICK, "data")
    )(lambda _: live())
    app.callback(
        Output(Ids.TRUST_TABS, "children"),
        Output(Ids.TRUST, "children"),
        Input(Ids.TRUST_VIEW, "data"),
        Input(Ids.AGAIN, "data"),
    )(lambda search, _: judge(search))
    app.callback(Output(Ids.PLAN, "children"), Input(Ids.PLAN_VIEW, "data"))(price)
    _register_browser_side(app)


def _register_browser_side(app: Dash) -> None:
    app.clientside_callback(  # type: ignore[no-untyped-call]
        ClientsideFunction("spendscope_data", "sync"),
        Output(Ids.URL, "search"),
        Output(Ids.VIEW, "data"),
        Output(Ids.TRUST_VIEW, "data"),
        Output(Ids.PLAN_VIEW, "data"),
        Output(Ids.ACCOUNT, "value"),
        Input(Ids.URL, "search"),
        Input(Ids.ACCOUNT, "value"),
        Input(Ids.DATES, "start_date"),
        Input(Ids.DATES, "end_date"),
        State(Ids.VIEW, "data"),
        State(Ids.TRUST_VIEW, "data"),
        State(Ids.PLAN_VIEW, "data"),
        State(Ids.DRAWN, "data"),
    )
    app.clientside_callback(  # type: ignore[no-untyped-call]
        ClientsideFunction("spendscope_data", "paint"),
        Output(Ids.ACCOUNT, "options"),
        Input(Ids.DRAWN, "data"),
    )
    app.clientside_callback(  # type: ignore[no-untyped-call]
        ClientsideFunction("spendscope_data", "beside"), Output(Ids.SIDE, "title"), Input(Ids.SIDE, "children")
    )
    app.clientside_callback(  # type: ignore[no-untyped-call]
        ClientsideFunction("spendscope_data", "live"), Output(Ids.JOBS, "title"), Input(Ids.LIVE, "data")
    )


def _read(search: object) -> Address:
    return addresses.read(search if isinstance(search, str) else "", current().today())


def _store(view: DataView) -> dict[str, Any]:
    """What the browser paints from."""
    days = view.address.days
    return {
        "calendar": None if view.is_empty else panels.letters(view),
        "accounts": panels.account_options(view),
        "days": {"start": str(days.start), "last": str(days.last)},
        "freshness": panels.freshness(view),
        "spoken": panels.spoken(view) if not view.is_empty else "No cost data yet.",
        "version": view.version,
    }


# --- the page without its contents --------------------------------------------------------------------------------


def layout(**params: Any) -> html.Div:
    """`params` are the address's, so that the controls are right from the start."""
    address = _from_params(params)
    return html.Div(
        [
            dcc.Location(id=Ids.URL, refresh=False),
            *(dcc.Store(id=name) for name in STORES),
            html.Div([_head(), _controls(address)], className="page-top"),
            html.Div(id=Ids.NOTICES, className="notices"),
            html.Div(id=Ids.MESSAGE),
            html.Div(
                [
                    html.Dl(id=Ids.SUMMARY, className="panel facts span-12"),
                    html.Div([_main(), _side()], className="data-body span-12"),
                ],
                id=Ids.PANELS,
                className="grid loading",
            ),
            _jobs(),
        ],
        className="page data-page",
        **attributes(data_address=Ids.URL.value),
    )


def _from_params(params: dict[str, Any]) -> Address:
    pairs = [
        (name, value) for name, given in params.items() for value in (given if isinstance(given, list) else [given])
    ]
    return addresses.read(pages.written(pairs), datetime.now(UTC).date())


def _head() -> html.Div:
    return html.Div([html.H1("Data"), html.Div(id=Ids.LOOK, className="look")], className="page-head")


def _controls(address: Address) -> html.Details:
    tabs = html.Nav(
        panels.period_tabs(address), id=Ids.PERIODS, className="segments", **attributes(aria_label="Period")
    )
    dates = controls.dates(str(address.days.start), str(address.days.last), Ids.DATES)
    accounts = controls.multiple(Ids.ACCOUNT, "account", address.accounts)
    fields = [
        controls.field("Period", tabs),
        controls.field("Dates (UTC)", dates),
        controls.field("Account", accounts, Ids.ACCOUNT),
        html.A("Reset", href=PATH, className="reset", **attributes(data_internal="yes")),
    ]
    return controls.bar(fields, id="data-filters")


def _main() -> html.Div:
    calendar = html.Div(
        id=Ids.CALENDAR,
        className="calendar",
        role="application",
        tabIndex=0,
        **attributes(aria_label="Coverage calendar, accounts by days", aria_describedby=Ids.NOTE.value),
    )
    as_table = html.Details(
        [
            html.Summary("Show as table"),
            html.Div(
                id=Ids.TABLE,
                className="table-scroll",
                tabIndex=0,
                role="group",
                **attributes(aria_label="Coverage as a table"),
            ),
        ],
        className="as-table",
    )
    files = html.Div(
        id=Ids.QUARANTINED,
        className="table-scroll",
        tabIndex=0,
        role="group",
        **attributes(aria_labelledby="quarantined-title"),
    )
    note = html.P(id=Ids.NOTE, className="note")
    go = html.Span(className="go-to-day", **attributes(data_go="yes"))
    legend = html.Div(id=Ids.LEGEND, className="legend")
    return html.Div(
        [
            parts.panel("Coverage calendar", legend, calendar, as_table, id="coverage", span=12, aside=go, note=note),
            parts.panel(
                "Quarantined files",
                files,
                id="quarantined",
                span=12,
                note=html.P(id=Ids.QUARANTINED_NOTE, className="note"),
            ),
        ],
        className="stack data-main",
    )


def _side() -> html.Section:
    return html.Section(id=Ids.SIDE, className="panel data-side", **attributes(aria_label="The chosen day"))


def _trust() -> html.Section:
    tabs = html.Nav(id=Ids.TRUST_TABS, className="tabs", **attributes(aria_label="What to hold the figures against"))
    body = html.Div(
        id=Ids.TRUST, className="table-scroll", tabIndex=0, role="group", **attributes(aria_labelledby="trust-title")
    )
    return parts.panel("How far figures can be trusted", body, id="trust", span=12, aside=tabs)


def _jobs() -> html.Div:
    aside = plan.choice("Backfill history", 12, className="button") if plan.is_offered() else None
    planned = html.Div(id=Ids.PLAN, className="plan")
    body = html.Div(id=Ids.JOBS, className="jobs")
    note = html.P("They keep running when you close this page.", className="note")
    return html.Div(
        [_trust(), parts.panel("Jobs", planned, body, id="jobs", span=12, note=note, aside=aside)],
        className="grid after",
    )
