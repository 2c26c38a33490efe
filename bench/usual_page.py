"""The Overview as it is usually written: a pandas frame in memory, groupby in the callback, plotly graph objects."""

from __future__ import annotations

import os
from datetime import date, timedelta
from typing import Any
from urllib.parse import parse_qs

import pandas as pd
import plotly.graph_objects as go
from dash import Dash, Input, Output, dcc, html

PANELS = ("total", "trend", "grid", "regions", "top", "comparison", "usage")
COSTS = ("amortized_cost", "blended_cost", "unblended_cost")


def create_server() -> Any:
    frame = pd.read_parquet(os.environ["BENCH_FRAME"])
    app = Dash(__name__)
    graphs = [dcc.Graph(id=name) for name in PANELS[1:]]
    app.layout = html.Div([dcc.Location(id="url"), html.Div(id="total"), *graphs])

    @app.callback(
        [Output("total", "children"), *(Output(name, "figure") for name in PANELS[1:])], Input("url", "search")
    )
    def draw(search: str) -> list[Any]:
        asked = parse_qs(search.lstrip("?"))
        start, end = (date.fromisoformat(asked[name][0]) for name in ("start", "end"))
        chosen = frame[(frame["date"] >= pd.Timestamp(start)) & (frame["date"] < pd.Timestamp(end))]
        before = frame[(frame["date"] >= pd.Timestamp(start - (end - start))) & (frame["date"] < pd.Timestamp(start))]
        for dimension in ("account", "service", "region"):
            if dimension in asked:
                chosen = chosen[chosen[dimension].isin(asked[dimension])]
                before = before[before[dimension].isin(asked[dimension])]
        return [
            [html.H2(f"${chosen['amortized_cost'].sum():,.2f}"), html.P(f"${before['amortized_cost'].sum():,.2f}")],
            trend(chosen),
            grid(chosen),
            bars(chosen.groupby("region", observed=True)["amortized_cost"].sum().sort_values()),
            bars(chosen.groupby(["service", "region"], observed=True)["amortized_cost"].sum().nlargest(5)),
            comparison(chosen),
            bars(chosen.groupby("service", observed=True)["usage_quantity"].sum().nlargest(10)),
        ]

    return app.server


def trend(chosen: pd.DataFrame) -> go.Figure:
    daily = chosen.groupby(["date", "service"], observed=True)["amortized_cost"].sum().unstack(fill_value=0)
    largest = daily.sum().nlargest(6).index
    figure = go.Figure()
    for service in largest:
        figure.add_bar(x=daily.index, y=daily[service], name=str(service))
    figure.add_bar(x=daily.index, y=daily.drop(columns=largest).sum(axis=1), name="Other")
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
