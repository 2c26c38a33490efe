"""The Overview as it is usually written: a pandas frame in memory, groupby in the callback, plotly graph objects.

It shows what ours shows: the six panels, the line of the days before, who moved, the breakdown with its comparison
and the filters' options with their costs. Trends in table rows, exact decimals and coverage it does not have.
"""

from __future__ import annotations

import os
from datetime import date, timedelta
from typing import Any
from urllib.parse import parse_qs

import pandas as pd
import plotly.graph_objects as go
from dash import Dash, Input, Output, dcc, html

FIGURES = ("trend", "grid", "regions", "top", "comparison", "usage")
DIMENSIONS = ("service", "region", "account")
ROWS = 15
COSTS = ("amortized_cost", "blended_cost", "unblended_cost")


def create_server() -> Any:
    frame = pd.read_parquet(os.environ["BENCH_FRAME"])
    app = Dash(__name__)
    graphs = [dcc.Graph(id=name) for name in FIGURES]
    filters = [dcc.Dropdown(id=f"filter-{name}", multi=True) for name in DIMENSIONS]
    app.layout = html.Div([dcc.Location(id="url"), *filters, html.Div(id="total"), *graphs, html.Div(id="breakdown")])

    @app.callback(
        [
            Output("total", "children"),
            *(Output(name, "figure") for name in FIGURES),
            Output("breakdown", "children"),
            *(Output(f"filter-{name}", "options") for name in DIMENSIONS),
        ],
        Input("url", "search"),
    )
    def draw(search: str) -> list[Any]:
        asked = parse_qs(search.lstrip("?"))
        start, end = (date.fromisoformat(asked[name][0]) for name in ("start", "end"))
        chosen = filtered(between(frame, start, end), asked)
        before = filtered(between(frame, start - (end - start), start), asked)
        by_service = moves(chosen, before)
        return [
            total(chosen, before, by_service),
            trend(chosen, before),
            grid(chosen),
            bars(chosen.groupby("region", observed=True)["amortized_cost"].sum().sort_values()),
            bars(chosen.groupby(["service", "region"], observed=True)["amortized_cost"].sum().nlargest(5)),
            comparison(chosen),
            bars(chosen.groupby("service", observed=True)["usage_quantity"].sum().nlargest(10)),
            breakdown(by_service),
            *(options(between(frame, start, end), asked, name) for name in DIMENSIONS),
        ]

    return app.server


def between(frame: pd.DataFrame, start: date, end: date) -> pd.DataFrame:
    return frame[(frame["date"] >= pd.Timestamp(start)) & (frame["date"] < pd.Timestamp(end))]


def filtered(frame: pd.DataFrame, asked: dict[str, list[str]], but: str = "") -> pd.DataFrame:
    for dimension in DIMENSIONS:
        if dimension in asked and dimension != but:
            frame = frame[frame[dimension].isin(asked[dimension])]
    return frame


def moves(chosen: pd.DataFrame, before: pd.DataFrame) -> pd.DataFrame:
    sums = [part.groupby("service", observed=True)["amortized_cost"].sum() for part in (chosen, before)]
    table = pd.concat(sums, axis=1, keys=["now", "before"]).fillna(0).sort_values("now", ascending=False)
    return table.assign(change=table["now"] - table["before"])


def total(chosen: pd.DataFrame, before: pd.DataFrame, by_service: pd.DataFrame) -> list[Any]:
    up, down = by_service["change"].idxmax(), by_service["change"].idxmin()
    return [
        html.H2(f"${chosen['amortized_cost'].sum():,.2f}"),
        html.P(f"${before['amortized_cost'].sum():,.2f} before"),
        html.P(f"{up}: ${by_service['change'][up]:+,.2f}"),
        html.P(f"{down}: ${by_service['change'][down]:+,.2f}"),
    ]


def breakdown(by_service: pd.DataFrame) -> html.Table:
    whole = by_service["now"].sum()
    rows = [
        html.Tr(
            [
                html.Th(html.A(str(row.Index), href=f"?service={row.Index}")),
                html.Td(f"${row.now:,.2f}"),
                html.Td(f"{row.now / whole:.1%}"),
                html.Td(f"${row.before:,.2f}"),
                html.Td(f"${row.change:+,.2f}"),
            ]
        )
        for row in by_service.head(ROWS).itertuples()
    ]
    return html.Table(rows)


def options(frame: pd.DataFrame, asked: dict[str, list[str]], name: str) -> list[dict[str, str]]:
    """A filter's values under the other filters, largest first, with their costs."""
    sums = filtered(frame, asked, but=name).groupby(name, observed=True)["amortized_cost"].sum()
    found = sums.sort_values(ascending=False).head(500)
    return [{"label": f"{value} ${cost:,.2f}", "value": str(value)} for value, cost in found.items()]


def trend(chosen: pd.DataFrame, before: pd.DataFrame) -> go.Figure:
    daily = chosen.groupby(["date", "service"], observed=True)["amortized_cost"].sum().unstack(fill_value=0)
    largest = daily.sum().nlargest(6).index
    figure = go.Figure()
    for service in largest:
        figure.add_bar(x=daily.index, y=daily[service], name=str(service))
    figure.add_bar(x=daily.index, y=daily.drop(columns=largest).sum(axis=1), name="Other")
    earlier = before.groupby("date")["amortized_cost"].sum()
    figure.add_scatter(x=daily.index[: len(earlier)], y=earlier, name="30 days before", line={"dash": "dot"})
    figure.update_layout(barmode="stack")
    return figure


def grid(chosen: pd.DataFrame) -> go.Figure:
    table = chosen.pivot_table(index="service", columns="region", values="amortized_cost", aggfunc="sum", observed=True)
    return go.Figure(go.Heatmap(z=table.to_numpy(), x=list(table.columns), y=list(table.index)))


def bars(values: pd.Series) -> go.Figure:
    return go.Figure(go.Bar(x=values.to_numpy(), y=[str(name) for name in values.index], orientation="h"))


def comparison(chosen: pd.DataFrame) -> go.Figure:
    daily = chosen.groupby("date")[list(COSTS)].sum()
    return go.Figure([go.Scatter(x=daily.index, y=daily[name], name=name) for name in COSTS])


def questions(last: date, accounts: list[str]) -> list[str]:
    """Different questions as people ask them: 30 days ending on different days, some for one account."""
    found = []
    for back in range(40):
        end = last - timedelta(days=back % 20)
        search = f"?start={end - timedelta(days=30)}&end={end}"
        found.append(search if back % 4 else f"{search}&account={accounts[back % len(accounts)]}")
    return found
