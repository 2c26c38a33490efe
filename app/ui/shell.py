"""What surrounds every page: header with freshness and theme, navigation, banners."""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from typing import Any

from dash import ClientsideFunction, Dash, Input, Output, State, html, page_container

from app import __version__
from app.ui.parts import icon
from app.ui.tags import attributes


class Ids(StrEnum):
    FRESHNESS = "freshness"
    STATUS = "status"
    THEME_BUTTON = "theme-button"
    COPY = "copy-link"
    NAVIGATION = "navigation"
    PATH = "_pages_location"


DESCRIPTION = "What the cloud costs, what drives it, and how far each figure can be trusted."

INDEX = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
{%metas%}
<title>{%title%}</title>
<script>{theme_script}</script>
{%favicon%}
{%css%}
</head>
<body>
{%app_entry%}
<div>
{%config%}
{%scripts%}
{%renderer%}
</div>
</body>
</html>
"""

THEME_SCRIPT = (
    "(function(){var t=null;try{t=localStorage.getItem('spendscope-theme')}catch(e){}"
    "t=t||(matchMedia('(prefers-color-scheme: dark)').matches?'dark':'light');"
    "document.documentElement.dataset.theme=t})()"
)
"""Runs before the style sheets are drawn, so that a dark page never flashes white."""


def index_string() -> str:
    return INDEX.replace("{theme_script}", THEME_SCRIPT)


def shell(pages: Sequence[tuple[str, str, str]], *, api_docs: bool) -> html.Div:
    """`pages` are (path, name, icon) of the pages there are; nothing else is linked."""
    return html.Div(
        [
            html.A("Skip to content", href="#main", className="skip"),
            _header(pages),
            html.Div(id="trouble", className="trouble", role="alert", hidden=True),
            html.Main(page_container, id="main", tabIndex=-1),
            html.P(id=Ids.STATUS, className="unseen", role="status"),
            html.Div(id="toast", className="toast", role="status"),
            _footer(api_docs),
        ],
        className="app",
    )


def register(app: Dash) -> None:
    app.clientside_callback(  # type: ignore[no-untyped-call]
        ClientsideFunction("spendscope", "theme"),
        Output(Ids.THEME_BUTTON, "title"),
        Input(Ids.THEME_BUTTON, "n_clicks"),
    )
    app.clientside_callback(  # type: ignore[no-untyped-call]
        ClientsideFunction("spendscope", "copy"),
        Output(Ids.COPY, "title"),
        Input(Ids.COPY, "n_clicks"),
        prevent_initial_call=True,
    )
    app.clientside_callback(  # type: ignore[no-untyped-call]
        ClientsideFunction("spendscope", "here"),
        Output(Ids.NAVIGATION, "children"),
        Input(Ids.PATH, "pathname"),
        State(Ids.NAVIGATION, "children"),
    )


def _header(pages: Sequence[tuple[str, str, str]]) -> html.Header:
    links = [html.A([icon(image), name], href=path) for path, name, image in pages]
    tools = [
        html.Div(id=Ids.FRESHNESS, className="freshness"),
        _tool(Ids.COPY, "link-45deg", "Copy link to this view"),
        _tool(Ids.THEME_BUTTON, "moon-stars", "Switch between light and dark"),
    ]
    brand = html.A(
        [html.Span(className="mark", **attributes(aria_hidden="true")), html.B("Spendscope")],
        href="/",
        className="brand",
    )
    navigation = html.Nav(links, id=Ids.NAVIGATION, className="pages", **attributes(aria_label="Pages"))
    return html.Header([brand, navigation, html.Div(tools, className="tools")], className="top-bar")


def _tool(id: str, image: str, title: str) -> html.Button:
    return html.Button(icon(image), id=id, title=title, className="tool", type="button", **attributes(aria_label=title))


def _footer(api_docs: bool) -> html.Footer:
    found: list[Any] = [html.Span(f"Spendscope {__version__}"), html.Span("All days are UTC")]
    if api_docs:
        found.append(html.A("API", href="/api/docs"))
    found.append(html.A("Account", href="/account"))
    return html.Footer(found, className="foot")
