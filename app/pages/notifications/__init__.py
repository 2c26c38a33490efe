"""Notifications: which channels there are, whether they work, and what was told to whom.

The address is the only state. Tests and retries go through the API (assets/70-notifications.js), so that the page can do
nothing that the API cannot.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Any, Final

from dash import ClientsideFunction, Dash, Input, Output, dcc, html

from app.backends import current
from app.pages.notifications import address as addresses
from app.pages.notifications import panels
from app.pages.notifications.view import look
from app.ui import parts, tags
from app.ui.tags import attributes


class Ids(StrEnum):
    URL = "notifications-url"
    DRAWN = "notifications-drawn"
    PAINTED = "notifications-painted"
    AGAIN = "notifications-again"
    NOTICES = "notifications-notices"
    CHANNELS = "notifications-channels"
    CHANGE = "notifications-change"
    TABS = "notifications-tabs"
    FILTERED = "notifications-filtered"
    LIST = "notifications-list"
    PAGES = "notifications-pages"


DRAWN: Final = (
    Output(Ids.DRAWN, "data"),
    Output(Ids.NOTICES, "children"),
    Output(Ids.CHANNELS, "children"),
    Output(Ids.CHANGE, "children"),
    Output(Ids.TABS, "children"),
    Output(Ids.FILTERED, "children"),
    Output(Ids.LIST, "children"),
    Output(Ids.PAGES, "children"),
)


def draw(search: object) -> tuple[Any, ...]:
    view = look(current(), addresses.read(search if isinstance(search, str) else ""))
    waiting = any(one.status == "pending" for one in view.deliveries) or any(one.waiting for one in view.channels)
    return (
        {"spoken": panels.spoken(view), "waiting": waiting},
        panels.notices(view),
        panels.channels(view),
        panels.how_to_change(view),
        panels.tabs(view),
        panels.filtered(view),
        panels.listed(view),
        panels.pages(view),
    )


def register(app: Dash) -> None:
    """`AGAIN` carries nothing: the browser sets it to ask once more."""
    app.callback(*DRAWN, Input(Ids.URL, "search"), Input(Ids.AGAIN, "data"))(
        lambda search, _: tags.finished(draw(search))
    )
    app.clientside_callback(  # type: ignore[no-untyped-call]
        ClientsideFunction("spendscope_notifications", "paint"),
        Output(Ids.PAINTED, "data"),
        Input(Ids.DRAWN, "data"),
    )


def layout(**_: Any) -> html.Div:
    return html.Div(
        [
            dcc.Location(id=Ids.URL, refresh=False),
            dcc.Store(id=Ids.DRAWN),
            dcc.Store(id=Ids.PAINTED),
            dcc.Store(id=Ids.AGAIN),
            html.Div(html.Div(html.H1("Notifications"), className="page-head"), className="page-top"),
            html.Div(id=Ids.NOTICES, className="notices"),
            html.Div([_channels(), _history()], className="grid"),
        ],
        className="page notifications-page",
        **attributes(data_address=Ids.URL.value),
    )


def _scroll(id: str, title: str) -> html.Div:
    return html.Div(id=id, className="table-scroll", tabIndex=0, role="group", **attributes(aria_labelledby=title))


def _channels() -> html.Section:
    note = html.P(id=Ids.CHANGE, className="note")
    return parts.panel("Channels", _scroll(Ids.CHANNELS, "channels-title"), id="channels", span=12, note=note)


def _history() -> html.Section:
    tabs = html.Nav(id=Ids.TABS, className="tabs", **attributes(aria_label="State"))
    filtered = html.Div(id=Ids.FILTERED, className="notify-filtered")
    pages = html.Nav(id=Ids.PAGES, className="actions notify-pages", **attributes(aria_label="Pages of the list"))
    body = _scroll(Ids.LIST, "history-title")
    return parts.panel("What was told", tabs, filtered, body, pages, id="history", span=12)
