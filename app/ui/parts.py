"""Parts every page is built from: values in, components out. Nothing here asks for anything."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from functools import lru_cache
from operator import getitem
from typing import Any, Final

import numpy as np
from dash import dcc, html
from numpy.typing import NDArray

from app.ui import tags, words
from app.ui.tags import attributes

Children = Any

CHART: Final = "chart"
"""Type of every chart's id, {"type": "chart", "name": …}: clicks on any of them drill (ui.controls)."""

GRAPH_CONFIG: Final[Any] = {
    "displayModeBar": False,
    "displaylogo": False,
    "showSendToCloud": False,
    "plotlyServerURL": "",
    "doubleClick": False,
    "responsive": True,
}


def chart_id(name: str) -> dict[str, str]:
    return {"type": CHART, "name": name}


def icon(name: str) -> Children:
    """A local SVG as a mask, in the colour of the text."""
    return tags.Span(className=f"icon icon-{name}", **attributes(aria_hidden="true"))


def panel(
    title: str, *body: Children, id: str, span: int, aside: Children = None, note: Children = None
) -> html.Section:
    """A card with a heading; `span` of twelve columns wide; `note` is the line below the heading."""
    heading = html.Div([html.H2(title, id=f"{id}-title"), aside], className="panel-head")
    return html.Section(
        [heading, note, *body],
        id=f"{id}-panel",
        className=f"panel span-{span}",
        **attributes(aria_labelledby=f"{id}-title"),
    )


def chart(name: str, *, height: int, note_id: str, min_width: int | None = None) -> html.Div:
    """A graph, spoken as one picture that `note_id` describes, and its data as a table behind a disclosure."""
    graph = dcc.Graph(id=chart_id(name), config=GRAPH_CONFIG, style={"height": f"{height}px"}, figure=EMPTY_FIGURE)
    width = {"minWidth": f"{min_width}px"} if min_width else {}
    label = f"{name}-title" if min_width else None
    return html.Div(
        [
            html.Div(
                html.Div(
                    graph,
                    role="img",
                    style=width,
                    **attributes(aria_labelledby=f"{name}-title", aria_describedby=note_id),
                ),
                className="chart-scroll",
                **attributes(
                    tabIndex=0 if min_width else None, role="group" if min_width else None, aria_labelledby=label
                ),
            ),
            html.Details(
                [html.Summary("Show as table"), html.Div(className="table-scroll", **attributes(data_table_of=name))],
                className="as-table",
            ),
        ]
    )


EMPTY_FIGURE: Final = {
    "data": [],
    "layout": {
        "xaxis": {"visible": False}, "yaxis": {"visible": False},
        "paper_bgcolor": "rgba(0,0,0,0)", "plot_bgcolor": "rgba(0,0,0,0)",
    },
}  # fmt: skip


def note(text: str, summary: str = "") -> list[Children]:
    """What stands under a heading; `summary` is only spoken."""
    return [tags.Span(text), tags.Span(" " + summary, className="unseen")] if summary else [tags.Span(text)]


def figure_of_money(value: Any, currency: str) -> Children:
    """A headline amount: whole units large, cents small."""
    text = words.money(value, currency)
    whole, dot, cents = text.partition(".")
    return [whole, tags.Small(dot + cents)] if dot else text


def delta(now: Any, before: Any, currency: str) -> tags.Element:
    """How a cost moved: arrow, sign and colour; small moves stay neutral."""
    text = words.change(now, before)
    if now is None or before is None:
        return tags.Span(text, className="delta")
    moved = float(now) - float(before)
    small = abs(moved) < 10 and abs(moved) < 0.01 * abs(float(before))
    kind = "" if small or not moved else " up" if moved > 0 else " down"
    arrow = "" if not kind else "▲ " if moved > 0 else "▼ "
    return tags.Span([arrow, text], className=f"delta{kind}", title=words.money(moved, currency, sign=True))


def kpi(
    title: str, value: Children, detail: Children, *, extra: Children = None, exact: str | None = None
) -> tags.Element:
    return tags.Div(
        [
            tags.H3(title),
            tags.P([tags.Span(value, className="figure", title=exact), extra], className="kpi-value"),
            tags.P(detail, className="kpi-detail"),
        ],
        className="kpi",
    )


def sparklines(rows: NDArray[np.float64]) -> list[tags.Element]:
    """A trend for each row as a mask: one element, coloured by the style sheet. Holes (NaN) are gaps."""
    width = max(rows.shape[1] - 1, 1)
    return [
        tags.Span(
            className="spark",
            style={"maskImage": SPARK.format(width, _path(heights))},
            **attributes(aria_hidden="true"),
        )
        for heights in _heights(rows).tolist()
    ]


SPARK: Final = (
    "url(\"data:image/svg+xml,%3Csvg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 {} 20' "
    "preserveAspectRatio='none'%3E%3Cpath fill='none' stroke='%23000' stroke-width='1.6' "
    "vector-effect='non-scaling-stroke' d='{}'/%3E%3C/svg%3E\")"
)
HOLE: Final = -1
LEAST: Final = 1e-20
"""No amount is smaller, and less than this apart is the same."""


def _heights(rows: NDArray[np.float64]) -> NDArray[np.int64]:
    """Heights from 1 (the row's largest) to 19, HOLE where a value is not known."""
    top = np.fmax.reduce(rows, axis=1, initial=-np.inf, keepdims=True)
    low = np.fmin.reduce(rows, axis=1, initial=np.inf, keepdims=True)
    # A trend shows its shape, but a tenth is the least that fills the height: noise must not look like news.
    with np.errstate(invalid="ignore"):
        height = np.maximum(top - low, np.abs(top) / 10)
        heights = 19 - np.rint((rows - low) * (18 / np.where(height > LEAST, height, 1.0)))
    return np.where(np.isnan(heights), HOLE, heights).astype(np.int64)


@lru_cache(maxsize=64)
def _points(width: int) -> list[tuple[str, ...]]:
    """Each x with every height there is, as a path has them."""
    return [tuple(f"{x},{height}" for height in range(20)) for x in range(width)]


def _path(heights: Sequence[int]) -> str:
    """Lines through the known heights; a hole lifts the pen."""
    if HOLE not in heights:
        return "M" + " ".join(map(getitem, _points(len(heights)), heights)) if heights else ""
    path, pen = [], "M"
    for x, height in enumerate(heights):
        if height == HOLE:
            pen = "M"
        else:
            path.append(f"{pen}{x},{height}")
            pen = " "
    return "".join(path)


def banner(text: Children, level: str = "info") -> tags.Element:
    """`level` is info, warn or bad."""
    return tags.Div(
        [icon("exclamation-triangle" if level != "info" else "info-circle"), tags.Span(text)],
        className=f"banner {level}",
    )


def message(title: str, text: Children, *actions: Children) -> tags.Element:
    """The one card that stands in for all panels."""
    return tags.Div([tags.H2(title), tags.P(text), tags.Div(actions, className="actions")], className="panel message")


def ago(moment: datetime) -> tags.Element:
    """A moment that the browser turns into `3 min ago`, as the answer may be kept (assets/50-data.js)."""
    stamp = moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    shown = f"{stamp[:10]} {stamp[11:16]} UTC"
    return tags.Time(shown, dateTime=stamp, title=shown, **attributes(data_ago="yes"))


def status_mark(status: str) -> tags.Element:
    """The sign of a day's status: shape and colour. Its word stands beside it."""
    return tags.Span(className=f"st st-{status}", **attributes(aria_hidden="true"))


def progress(label: str, done: int, whole: int | None) -> tags.Element:
    """A bar; while nobody knows how much there is, one that only moves."""
    known = {"aria_valuemin": "0", "aria_valuemax": str(whole), "aria_valuenow": str(min(done, whole))} if whole else {}
    width = f"{min(done / whole, 1) * 100:.0f}%" if whole else "30%"
    return tags.Div(
        tags.Span(style={"width": width}),
        className="progress" if whole else "progress unknown",
        role="progressbar",
        **attributes(aria_label=label, **known),
    )


def link(text: Children, href: str, **props: Any) -> tags.Element:
    """A link inside the page: a plain address, taken without reloading (assets/20-dashboard.js)."""
    return tags.A(text, href=href, **attributes(data_internal="yes"), **props)


def swatch(colour: str) -> tags.Element:
    return tags.Span(className="swatch", style={"background": f"var({colour})"}, **attributes(aria_hidden="true"))


def period_tabs(
    periods: Mapping[str, tuple[str, str]], chosen: str | None, href: Callable[[str], str]
) -> list[Children]:
    """A link for each preset (short label, full label). Relative periods stay relative in it."""
    return [
        link(label, href(name), title=full, **attributes(aria_current="true" if name == chosen else None))
        for name, (label, full) in periods.items()
    ]
