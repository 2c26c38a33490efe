"""The least that six figures of a Dash page cost: sums that are there already, plain dicts, one callback of Dash's own.

No comparison, coverage, exact decimals, table or filters' costs, and a cube in each process's memory. What a burst of
users waits for it is what the machine makes of Dash and Flask; ours is put beside it.
"""

from __future__ import annotations

import os
from datetime import date, timedelta
from typing import Any
from urllib.parse import parse_qs

import numpy as np
import pandas as pd
from dash import Dash, Input, Output, dcc, html
from numpy.typing import NDArray

TOP = 10
FIGURES = ("trend", "grid", "tree", "regions")


class Cube:
    """Amortized cost by [account + 1, day, service, region], in cents; the first plane has all accounts."""

    def __init__(self, frame: pd.DataFrame) -> None:
        named = {name: frame[name].astype("category") for name in ("account", "service", "region")}
        self.accounts, self.services, self.regions = (list(column.cat.categories) for column in named.values())
        self.first: date = frame["date"].min().date()
        day = (frame["date"] - pd.Timestamp(self.first)).dt.days.to_numpy()
        account, service, region = (column.cat.codes.to_numpy(np.intp) for column in named.values())
        shape = (len(self.accounts), int(day.max()) + 1, len(self.services), len(self.regions))
        place = np.ravel_multi_index((account, day, service, region), shape)
        sums = np.bincount(place, frame["amortized_cost"].to_numpy(), int(np.prod(shape))).reshape(shape)
        self.sums: NDArray[np.float64] = np.concatenate([sums.sum(axis=0, keepdims=True), sums])

    def between(self, start: date, end: date, account: str | None) -> NDArray[np.float64]:
        plane = self.accounts.index(account) + 1 if account else 0
        return self.sums[plane, (start - self.first).days : (end - self.first).days]


def create_server() -> Any:
    cube = Cube(pd.read_parquet(os.environ["BENCH_FRAME"]))
    app = Dash(__name__)
    graphs = [dcc.Graph(id=name) for name in FIGURES]
    app.layout = html.Div([dcc.Location(id="url"), html.Div(id="total"), html.Div(id="before"), *graphs])

    @app.callback(
        [
            Output("total", "children"),
            Output("before", "children"),
            *(Output(name, "figure") for name in FIGURES),
        ],
        Input("url", "search"),
    )
    def draw(search: str) -> list[Any]:
        asked = parse_qs(search.lstrip("?"))
        start, end = (date.fromisoformat(asked[name][0]) for name in ("start", "end"))
        account = asked.get("account", [None])[0]
        now, before = (cube.between(*days, account) for days in ((start, end), (start - (end - start), start)))
        grid = now.sum(axis=0)
        return [
            f"${now.sum():,.2f}",
            f"${before.sum():,.2f}",
            trend(now.sum(axis=2), cube.services, start),
            figure(type="heatmap", z=grid.round(2).tolist(), x=cube.regions, y=cube.services),
            tree(grid, cube),
            figure(type="bar", x=grid.sum(axis=0).round(2).tolist(), y=cube.regions, orientation="h"),
        ]

    return app.server


def figure(**trace: Any) -> dict[str, Any]:
    return {"data": [trace], "layout": {"margin": {"t": 8}}}


def trend(daily: NDArray[np.float64], services: list[str], start: date) -> dict[str, Any]:
    largest = np.argsort(-daily.sum(axis=0))[:TOP].tolist()
    axis = {"x0": str(start), "dx": timedelta(days=1) // timedelta(milliseconds=1)}
    rows = daily.round(2).T.tolist()
    return {
        "data": [{"type": "scatter", "name": services[i], "stackgroup": "1", "y": rows[i], **axis} for i in largest],
        "layout": {"margin": {"t": 8}},
    }


def tree(grid: NDArray[np.float64], cube: Cube) -> dict[str, Any]:
    """The 180 largest cells, each below its service."""
    cells = np.argsort(-grid, axis=None)[:180]
    service, region = (part.tolist() for part in np.unravel_index(cells, grid.shape))
    return figure(
        type="treemap",
        labels=[cube.regions[i] for i in region],
        parents=[cube.services[i] for i in service],
        values=grid.ravel()[cells].round(2).tolist(),
    )
