"""The filter bar: shows what the address says, and changes nothing but the address (assets/20-dashboard.js)."""

from __future__ import annotations

from enum import StrEnum
from typing import Any

from dash import ALL, ClientsideFunction, Dash, Input, Output, State, dcc, html

from app.ui.parts import CHART, icon
from app.ui.tags import attributes


class Ids(StrEnum):
    URL = "url"
    DRAWN = "drawn"
    BAR = "filter-bar"
    PERIODS = "periods"
    DATES = "dates"
    SERVICE = "filter-service"
    REGION = "filter-region"
    ACCOUNT = "filter-account"
    METRIC = "metric"


FILTERS = {"service": Ids.SERVICE, "region": Ids.REGION, "account": Ids.ACCOUNT}


def page_state() -> list[Any]:
    """The address, and what the browser paints from. They belong to the page: Dash wants all of a callback's inputs at once."""
    return [dcc.Location(id=Ids.URL, refresh=False), dcc.Store(id=Ids.DRAWN)]


def filter_bar(
    *, periods: Any, metrics: dict[str, str], chosen: dict[str, tuple[str, ...]], metric: str, start: str, last: str
) -> html.Details:
    """`chosen` are the filter values of the address, so that the controls are right before anything is asked."""
    fields = [
        field("Period", html.Nav(periods, id=Ids.PERIODS, className="segments", **attributes(aria_label="Period"))),
        field("Dates (UTC)", dates(start, last, Ids.DATES)),
        *(
            field(level.capitalize(), multiple(control, level, chosen.get(level, ())), control)
            for level, control in FILTERS.items()
        ),
        field("Cost type", _metric(metrics, metric), Ids.METRIC),
        html.A("Reset", href="/", className="reset", **attributes(data_internal="yes")),
    ]
    return bar(fields, id=Ids.BAR)


def bar(fields: list[Any], id: str) -> html.Details:
    """Controls side by side; folded away on small screens (assets/20-dashboard.js)."""
    return html.Details(
        [
            html.Summary([icon("funnel"), "Filters", html.Span(className="count")]),
            html.Div(fields, className="filters"),
        ],
        open=True,
        id=id,
        className="filter-bar",
    )


def register(app: Dash) -> None:
    """One clientside callback keeps address, controls and chart clicks in agreement, whoever moved."""
    app.clientside_callback(  # type: ignore[no-untyped-call]
        ClientsideFunction("spendscope", "sync"),
        Output(Ids.URL, "search"),
        *(Output(control, "value") for control in FILTERS.values()),
        Output(Ids.METRIC, "value"),
        Input(Ids.URL, "search"),
        *(Input(control, "value") for control in FILTERS.values()),
        Input(Ids.METRIC, "value"),
        Input(Ids.DATES, "start_date"),
        Input(Ids.DATES, "end_date"),
        Input({"type": CHART, "name": ALL}, "clickData"),
        Input({"type": CHART, "name": ALL}, "relayoutData"),
        State(Ids.DRAWN, "data"),
    )


def field(label: str, control: Any, of: str | None = None) -> html.Div:
    name = (
        html.Label(label, htmlFor=of) if of else html.Span(label, className="label", **attributes(aria_hidden="true"))
    )
    return html.Div([name, control], className=f"field field-{label.split()[0].lower()}")


def dates(start: str, last: str, id: str) -> html.Div:
    return html.Div(
        dcc.DatePickerRange(
            id=id,
            start_date=start,
            end_date=last,
            display_format="D MMM YYYY",
            first_day_of_week=1,
            minimum_nights=0,
            updatemode="bothdates",
            start_date_placeholder_text="First day",
            end_date_placeholder_text="Last day",
        ),
        role="group",
        **attributes(aria_label="Dates, first and last day"),
    )


def multiple(id: str, level: str, values: tuple[str, ...]) -> dcc.Dropdown:
    return dcc.Dropdown(
        id=id,
        options=[{"label": value, "value": value} for value in values],
        value=list(values),
        multi=True,
        debounce=True,
        placeholder=f"All {level}s",
        maxHeight=360,
        labels={"search": f"Search {level}s", "clear_selection": f"Clear {level}s"},
    )


def _metric(metrics: dict[str, str], value: str) -> dcc.Dropdown:
    options = [{"label": label, "value": name} for name, label in metrics.items()]
    return dcc.Dropdown(id=Ids.METRIC, options=options, value=value, clearable=False, searchable=False)
