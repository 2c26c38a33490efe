"""The overview's panels: one small function each, from a View to what stands on the page."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from datetime import date, timedelta
from decimal import Decimal
from functools import lru_cache, partial
from itertools import islice
from typing import Any, Final
from urllib.parse import urlencode

import numpy as np

from app.core.amounts import text as exact_text
from app.core.exact import known_total
from app.core.periods import DAY, DateRange
from app.figures import comparison, regions, spend, usage
from app.figures.theme import Figure, Floats, colours
from app.pages.address import LEVELS, PERIODS, Address
from app.pages.data.address import PATH as DATA_PATH
from app.pages.view import Amount, View
from app.ui import parts, words
from app.ui import tags as html
from app.ui.tags import attributes

Children = Any
NOUNS: Final = {"service": "service", "region": "region", "account": "account"}
TOP: Final = 5
ROWS: Final = 15
MOST_OPTIONS: Final = 500
CSV_PATH: Final = "/api/v1/costs"


# --- where the figures come from ----------------------------------------------------------------------------------


def short(view: View) -> Callable[..., str]:
    return partial(words.short_money, currency=view.currency)


def money(view: View) -> Callable[..., str]:
    return partial(words.money, currency=view.currency)


# --- figures ------------------------------------------------------------------------------------------------------


def figures(view: View, used: Sequence[usage.Usage]) -> dict[str, Figure]:
    return {
        "daily": daily_figure(view),
        "regions": region_figure(view),
        "comparison": comparison_figure(view),
        "usage": usage_figure(view, used),
    }


def daily_figure(view: View) -> Figure:
    before = None
    if view.before is not None and view.granularity == "daily" and view.comparison:
        before = (
            f"{view.comparison.days_before.start:%-d %b} – {view.comparison.days_before.last:%-d %b}",
            view.before,
        )
    return spend.daily(
        view.spend.frame,
        view.stack,
        dimension=view.address.dimension,
        prefix=words.symbol(view.currency),
        before=before,
        settling=view.settling,
        unknown=view.unknown,
    )


def region_figure(view: View) -> Figure:
    chosen = {level: view.address.values(level) for level in ("service", "region")}
    return regions.per_region(
        view.grid,
        prefix=words.symbol(view.currency),
        short=short(view),
        chosen=chosen,
    )


def comparison_figure(view: View) -> Figure:
    return comparison.lines(
        {metric: measured.values for metric, measured in view.metrics.items()},
        words.METRIC_NAMES,
        view.spend.frame.periods,
        granularity=view.granularity,
        prefix=words.symbol(view.currency),
        short=short(view),
        settling=[view.spend.frame.periods[i] for i in view.settling] if view.granularity == "daily" else [],
    )


def usage_figure(view: View, used: Sequence[usage.Usage]) -> Figure:
    return usage.quantities(
        used,
        view.usage.periods,
        dimension=view.address.dimension,
        granularity=view.granularity,
        settling=view.settling,
    )


def usage_rows(view: View) -> list[usage.Usage]:
    """The groups that cost most; quantities of different units cannot be ranked."""
    row_of = {group: row for row, group in enumerate(view.usage.groups)}
    costs = zip(view.spend.frame.groups, view.spend.frame.group_totals, strict=True)
    largest = islice(((group, cost) for group, cost in costs if group in row_of), usage.MOST)
    return [_usage_row(view, group[0], row_of[group], cost) for group, cost in largest]


def _usage_row(view: View, name: str, row: int, cost: Amount) -> usage.Usage:
    label = _usage_label(view, name, view.usage.group_totals[row], cost)
    return usage.Usage(name, label, view.colours[name], view.usage.amounts[row])


def _usage_label(view: View, name: str, used: Amount, cost: Amount) -> str:
    """Without one unit there is no price for one of it."""
    unit = view.units.get(name)
    if unit in (None, "N/A"):  # Cost Explorer's word for several units
        return f"{words.quantity(used)} · unit not known"
    if not used or cost is None or cost < 0:
        return f"{words.quantity(used)} {unit}"
    return f"{words.quantity(used)} {unit} · {_unit_price(cost / used, words.symbol(view.currency))} each"


def _unit_price(price: Decimal, symbol: str) -> str:
    return f"{symbol}{price:,.2f}" if price >= 1 else f"{symbol}{float(price):.3g}"


# --- header -------------------------------------------------------------------------------------------------------


def crumbs(address: Address) -> list[Children]:
    """All spend / service / region / account: a crumb drops what is right of it."""
    steps = [level for level in LEVELS if address.values(level)]
    found: list[Children] = [_crumb("All spend", address.without(*LEVELS), last=not steps)]
    for position, level in enumerate(steps):
        target = address.without(*steps[position + 1 :])
        found.append(_crumb(_crumb_text(address, level), target, last=position == len(steps) - 1))
    return [html.Ol(found)]


def _crumb(text: str, target: Address, *, last: bool) -> html.Element:
    if last:
        return html.Li(html.Span(text, **attributes(aria_current="page")))
    return html.Li(parts.link(text, target.href()))


def _crumb_text(address: Address, level: str) -> str:
    values = address.values(level)
    return values[0] if len(values) == 1 else words.counted(len(values), NOUNS[level])


def chips(address: Address) -> list[Children]:
    """One removable chip for each filter value, when some level has several."""
    if all(len(address.values(level)) < 2 for level in LEVELS):
        return []
    return [
        parts.link(
            [html.Span(value), parts.icon("x")],
            address.dropping(level, value).href(),
            className="chip",
            **attributes(aria_label=f"Remove {NOUNS[level]} {value}"),
        )
        for level in LEVELS
        for value in address.values(level)[:12]
    ]


def freshness(view: View) -> list[Children]:
    """Dot, words, and when a figure last changed (the browser says how long ago: the answer may be cached)."""
    late = (view.today - view.known.last).days
    level = "good" if late <= 2 else "warn" if late <= 4 else "bad"
    through = view.freshness.complete_through
    text = (
        f"Complete through {words.day(through, year=False)}"
        if through
        else f"Data to {words.day(view.known.last, year=False)}"
    )
    if level != "good":
        text = f"No data since {words.day(view.known.last, year=False)}"
    found: list[Children] = [html.Span(className=f"dot {level}", **attributes(aria_hidden="true")), html.Span(text)]
    if view.freshness.updated:
        stamp = view.freshness.updated.strftime("%Y-%m-%dT%H:%M:%SZ")
        found.append(html.Time(dateTime=stamp, title=f"{stamp[:10]} {stamp[11:16]} UTC"))
    return found


def notices(view: View) -> list[Children]:
    """A day that is missing or was refused leads to the page that says why and what to do."""
    days = sorted({*view.freshness.quarantined, *(day for day in view.freshness.missing if day < view.today - 2 * DAY)})
    why = f"{DATA_PATH}?day={days[-1]}" if days else None
    return [
        parts.banner([text, " ", html.A("See why", href=why)] if level == "warn" and why else text, level)
        for level, text in _notices(view)
    ]


def _notices(view: View) -> list[tuple[str, str]]:
    found = [("info", text) for text in view.address.notices]
    fresh = view.freshness
    late = view.today - timedelta(days=2)
    missing = [day for day in fresh.missing if day < late]
    due = [day for day in fresh.missing if day >= late]
    late_by = (view.today - view.known.last).days
    if late_by > 4 and view.address.days.end > view.known.end:
        found.append(
            ("bad", f"No cost data has arrived for {late_by} days; the last day is {words.day(view.known.last)}.")
        )
    elif missing:
        found.append(("warn", f"{words.day_list(missing)} {_are(missing)} incomplete: not every account's costs have arrived. "
                              "Totals hold only what is there, and these days are left out of comparisons."))  # fmt: skip
    if fresh.quarantined:
        found.append(
            ("warn", f"The cost file of {words.day_list(fresh.quarantined)} was rejected and nothing of it is counted.")
        )
    if fresh.restating:
        found.append(
            (
                "info",
                f"{words.day_list(fresh.restating)} {_are(fresh.restating)} being restated; the last verified figures are shown.",
            )
        )
    if due and not missing and late_by <= 4:
        found.append(("info", f"The costs of {words.day_list(due)} have not fully arrived yet."))
    if view.address.days.start < view.known.start:
        found.append(("info", f"There is no data before {words.day(view.known.start)}."))
    return found


def _are(days: Sequence[date]) -> str:
    return "is" if len(days) == 1 else "are"


# --- total spend --------------------------------------------------------------------------------------------------


def total(view: View) -> list[Children]:
    return [_total_kpi(view), _average_kpi(view), *_mover_kpis(view)]


def _total_kpi(view: View) -> Children:
    value = view.spend.total
    [trend] = _trends(view, view.metrics[view.address.metric].values[np.newaxis])
    compared = view.comparison
    extra = parts.delta(compared.now, compared.before, view.currency) if compared else None
    exact = None if value is None else f"{view.currency} {exact_text(value)}"
    figure = parts.figure_of_money(value, view.currency)
    title = f"{words.METRIC_NAMES[view.address.metric]} cost"
    return html.Div(
        [parts.kpi(title, figure, _total_detail(view), extra=extra, exact=exact), trend], className="kpi-total"
    )


def _daily_totals(view: View) -> list[float | None]:
    values: list[float | None] = view.metrics[view.address.metric].values.tolist()
    return values


def _trends(view: View, rows: Floats) -> list[html.Element]:
    """Without the days that still settle: unfinished days would look like a fall."""
    days = rows.shape[1]
    end = view.settling[0] if view.settling and view.settling[-1] == days - 1 else days
    return parts.sparklines(rows[:, :end])


def _total_detail(view: View) -> str:
    compared = view.comparison
    if view.spend.total is None and view.spend.not_kept:
        return f"Not kept: only the days since {view.spend.not_kept.since} are kept by day"
    if view.spend.total is None:
        return (
            "Not available: some charges have no blended cost"
            if view.address.metric == "blended_cost"
            else "No data in this period"
        )
    if compared is None:
        return "No comparison: too few complete days before this period"
    left_out = f", {compared.left_out} left out" if compared.left_out else ""
    return f"vs {short(view)(compared.before)} in {words.day_range(compared.days_before)} ({compared.days} complete days{left_out})"


def _average_kpi(view: View) -> Children:
    count, total = view.complete
    value = total / count if count and total is not None else None
    left = len(view.spend.frame.days) - count
    detail = words.counted(count, "complete day") + (f", {left} not yet complete" if left else "")
    exact = None if value is None else money(view)(value)
    return parts.kpi("Average per complete day", short(view)(value), detail, exact=exact)


def _mover_kpis(view: View) -> list[Children]:
    moves = [
        (now - before, value, now, before)
        for value, (now, before) in (view.comparison.groups.items() if view.comparison else ())
        if now is not None and before is not None
    ]
    up, down = max(moves, default=None), min(moves, default=None)
    return [
        _mover(view, "Largest increase", up if up and up[0] > 0 else None),
        _mover(view, "Largest decrease", down if down and down[0] < 0 else None),
    ]


def _mover(view: View, title: str, move: tuple[Decimal, str, Decimal, Decimal] | None) -> Children:
    if move is None:
        return parts.kpi(
            title,
            "None",
            "On complete days against the same days before" if view.comparison else "Nothing to compare with yet",
        )
    moved, value, now, before = move
    target = view.address.hrefs(view.address.dimension)(value)
    return parts.kpi(
        title,
        short(view)(moved, sign=True),
        parts.link(value, target, title=value),
        extra=parts.delta(now, before, view.currency),
        exact=money(view)(moved, sign=True),
    )


# --- notes, legend, lists -----------------------------------------------------------------------------------------


def daily_note(view: View) -> list[Children]:
    frame = view.spend.frame
    each = {"daily": "", "weekly": ", by week", "monthly": ", by month"}[view.granularity]
    text = f"{words.day_range(view.address.days)}, {_metric_words(view)} by {NOUNS[view.address.dimension]}{each}"
    settling = [day for day in view.freshness.settling if day in frozenset(frame.days)]
    if settling:
        text += f". {words.day_list(settling)} {_are(settling)} still settling: a provider finalises a day within 48 hours or so"
    return parts.note(text, _peak_sentence(view))


def _peak_sentence(view: View) -> str:
    values = [
        (value, period)
        for value, period in zip(_daily_totals(view), view.spend.frame.periods, strict=False)
        if value == value
    ]
    if not values:
        return ""
    high, low = max(values), min(values)
    return (
        f"Highest {money(view)(high[0])} on {words.day(high[1])}, lowest {money(view)(low[0])} on {words.day(low[1])}."
    )


def _metric_words(view: View) -> str:
    return f"{words.METRIC_NAMES[view.address.metric].lower()} cost"


def group_tabs(address: Address) -> list[Children]:
    """Group by service, region or account; a level fixed to one value has nothing to show."""
    return [
        parts.link(
            NOUNS[level].capitalize(),
            address.grouped(level).href(),
            className="tab",
            **attributes(aria_current="true" if level == address.dimension else None),
        )
        for level in LEVELS
        if len(address.values(level)) != 1 or level == address.dimension
    ]


def legend(view: View) -> list[Children]:
    address, level = view.address, view.address.dimension
    found: list[Children] = []
    href = address.hrefs(level)
    for item in view.stack:
        content = [parts.swatch(item.colour), html.Span(item.name, className="name")]
        if item.group is None or address.values(level) == (item.group,):
            found.append(html.Span(content, className="key"))
        else:
            found.append(parts.link(content, href(item.group), className="key", title=item.name))
    if view.before is not None and view.comparison and view.granularity == "daily":
        found.append(
            html.Span(
                [html.Span(className="dotted"), words.counted(len(view.before), "day") + " before"],
                className="key",
            )
        )
    if view.settling:
        found.append(
            html.Span(
                [
                    html.Span(className="swatch hatch"),
                    "Settling" if view.granularity == "daily" else "Settling or cut off",
                ],
                className="key",
            )
        )
    if view.unknown:
        found.append(html.Span([html.Span(className="swatch hole"), "No data"], className="key"))
    return found


def top_note(view: View) -> list[Children]:
    return parts.note(f"The largest by {' and '.join(NOUNS[level] for level in view.address.pair)}")


def top_list(view: View) -> list[Children]:
    frame = view.pairs
    groups, totals = frame.labels.first(TOP), frame.largest(TOP)
    largest = max((float(total) for total in totals if total is not None), default=0.0)
    colour_of = colours([group[0] for group in groups], view.ranks[view.address.pair[0]])
    href = view.address.hrefs(*view.address.pair)
    return [
        _top_row(view, group, amount, largest, colour_of[group[0]], href(*group))
        for group, amount in zip(groups, totals, strict=True)
    ]


def _top_row(
    view: View, group: tuple[str, ...], amount: Amount, largest: float, colour: str, target: str
) -> html.Element:
    width = max(float(amount or 0) / largest * 100, 0.0) if largest > 0 else 0.0
    return html.Li(
        parts.link(
            [
                html.Span([html.B(group[0]), html.Span(" · ".join(group[1:]))], className="top-name"),
                html.Span(
                    [html.B(short(view)(amount)), html.Span(words.percent(amount, view.spend.total))],
                    className="top-value",
                ),
                html.Span(className="bar", style={"width": f"{width:.1f}%", "background": f"var({colour})"}),
            ],
            target,
            title=f"{' · '.join(group)}: {money(view)(amount)}",
        )
    )


def region_note(view: View) -> list[Children]:
    shown = view.grid
    count = shown.known_regions
    more = f"; the largest {len(shown.regions)} of {count} regions" if count > len(shown.regions) else ""
    largest = f"{shown.regions[0]} is the largest with {short(view)(float(shown.bars[0]))}." if shown.regions else ""
    return parts.note(f"Which services make up each region{more}. Darker is higher (log scale)", largest)


def comparison_note(view: View) -> list[Children]:
    amortized, unblended = (view.metrics[metric].total for metric in ("amortized_cost", "unblended_cost"))
    if amortized is None or unblended is None:
        return parts.note("The same usage, accounted for in different ways")
    gap = amortized - unblended
    if not gap:
        return parts.note("Amortized and unblended agree in this period")
    return parts.note(
        f"Amortized is {money(view)(abs(gap))} {'above' if gap > 0 else 'below'} unblended for the same usage"
    )


def comparison_totals(view: View) -> list[Children]:
    return [_metric_total(view, metric) for metric in comparison.LINES]


def _metric_total(view: View, metric: str) -> html.Element:
    value, current = view.metrics[metric].total, metric == view.address.metric
    name = [html.Span(className=f"line line-{metric}", **attributes(aria_hidden="true")), words.METRIC_NAMES[metric]]
    target = replace(view.address, metric=metric).href()
    title = name if current else parts.link(name, target, title=f"Show {metric.replace('_', ' ')} everywhere")
    shown = "Not available" if value is None else money(view)(value)
    return html.Div([html.Dt(title), html.Dd(shown)], className="metric current" if current else "metric")


def usage_note(view: View, used: Sequence[usage.Usage]) -> list[Children]:
    spoken = ". ".join(f"{row.name}: {row.label}" for row in used)
    return parts.note(
        f"Each {NOUNS[view.address.dimension]} in its own unit and on its own scale, largest cost first", spoken
    )


# --- breakdown ----------------------------------------------------------------------------------------------------


def csv_href(view: View) -> str:
    """The same question as the table, as a file, from the API."""
    query = view.address.query.grouped(view.address.dimension).per("daily")
    return f"{CSV_PATH}?{urlencode([*query.pairs(), ('format', 'csv')])}"


def breakdown(view: View) -> Children:
    frame = view.spend.frame
    href = view.address.hrefs(view.address.dimension)
    trends = _trends(view, np.vstack([frame.amounts[:ROWS], frame.amounts[ROWS:].sum(axis=0)]))
    rows = [_row(view, row, trends[row], href) for row in range(min(len(frame.groups), ROWS))]
    rest = len(frame.groups) - len(rows)
    body = [*rows, *([_rest_row(view, rest, trends[-1])] if rest else [])]
    head = _table_head(NOUNS[view.address.dimension], view.comparison.days if view.comparison else None)
    return html.Table([head, html.Tbody(body), html.Tfoot(_total_row(view))], className="breakdown")


@lru_cache(maxsize=500)
def _table_head(noun: str, complete_days: int | None) -> html.Element:
    days = words.counted(complete_days, "complete day") if complete_days is not None else "complete days"
    first = html.Tr(
        [
            html.Th(noun.capitalize(), rowSpan=2, scope="col"),
            html.Th("Trend", rowSpan=2, scope="col", className="trend"),
            html.Th("Cost", rowSpan=2, scope="col", className="number"),
            html.Th("Share", rowSpan=2, scope="col", className="number"),
            html.Th(f"On {days}, against the same number before", colSpan=4, scope="colgroup", className="group"),
        ]
    )
    second = html.Tr(
        [html.Th(name, scope="col", className="number") for name in ("Now", "Before", "Change", "Change %")]
    )
    return html.Thead([first, second])


def _row(view: View, row: int, trend: html.Element, href: Callable[[str], str]) -> html.Element:
    frame, level = view.spend.frame, view.address.dimension
    value, amount = frame.groups[row][0], frame.group_totals[row]
    name: Children = html.Span(value)
    if view.address.values(level) != (value,):
        name = parts.link(value, href(value), title=value)
    return html.Tr(
        [
            html.Th([parts.swatch(view.colours[value]), name], scope="row"),
            html.Td(trend, className="trend"),
            *_cells(
                view,
                amount,
                view.comparison.groups.get(value, (Decimal(0), Decimal(0))) if view.comparison else (None, None),
            ),
        ]
    )


def _cells(view: View, amount: Amount, pair: tuple[Amount, Amount]) -> list[html.Element]:
    now, before = pair
    moved = None if now is None or before is None else now - before
    kind = "number" if not moved else "number up" if moved > 0 else "number down"
    currency = view.currency
    return [
        html.Td(words.money(amount, currency), className="number"),
        html.Td(words.percent(amount, view.spend.total), className="number"),
        html.Td(words.money(now, currency), className="number"),
        html.Td(words.money(before, currency), className="number"),
        html.Td(words.money(moved, currency, sign=True), className=kind),
        html.Td(words.change(now, before), className=kind),
    ]


def _rest_row(view: View, rest: int, trend: html.Element) -> html.Element:
    frame = view.spend.frame
    shown = [group[0] for group in frame.groups[:ROWS]]
    totals = frame.group_totals[ROWS:]
    amount = None if None in totals else sum((t for t in totals if t is not None), Decimal(0))
    pair: tuple[Amount, Amount] = (None, None)
    if view.comparison:
        others = [p for value, p in view.comparison.groups.items() if value not in shown]
        pair = known_total([now for now, _ in others]), known_total([before for _, before in others])
    others_text = f"{words.counted(rest, 'other')} (all in the CSV)"
    return html.Tr(
        [
            html.Th([parts.swatch("--other"), html.Span(others_text)], scope="row"),
            html.Td(trend, className="trend"),
            *_cells(view, amount, pair),
        ]
    )


def _total_row(view: View) -> html.Element:
    compared = view.comparison
    pair = (compared.now, compared.before) if compared else (None, None)
    return html.Tr([html.Th("Total", scope="row"), html.Td(className="trend"), *_cells(view, view.spend.total, pair)])


# --- states -------------------------------------------------------------------------------------------------------


def nothing_yet() -> Children:
    return parts.message(
        "No cost data yet",
        [
            "Spendscope shows a day as soon as its cost file is taken. Put files named ",
            html.Code("YYYY-MM-DD.csv"),
            " into the source and run ",
            html.Code("spendscope ingest --wait"),
            ".",
        ],
    )


def no_match(view: View) -> Children:
    address = view.address
    chosen = [words.joined(address.values(level)) for level in LEVELS if address.values(level)]
    where = f"{', '.join(chosen)} had no cost" if chosen else "No day"
    days = words.day_range(address.days)
    if not view.spend.frame.days:
        text = f"No data was taken for {days}. There is data from {words.day_range(view.known)}."
    else:
        text = f"{where} from {days}."
    actions = (
        [parts.link("Clear filters", address.without(*LEVELS).href(), className="button primary")] if chosen else []
    )
    if not view.spend.frame.days:
        actions.append(parts.link("Show the latest 30 days with data", _latest(view).href(), className="button"))
    return parts.message(
        "No cost recorded for these filters" if chosen else "No cost recorded in this period", text, *actions
    )


def _latest(view: View) -> Address:
    first = max(view.known.start, view.known.end - timedelta(days=30))
    return view.address.on(DateRange(first, view.known.end))


def spoken(view: View) -> str:
    """What the live region says after every change."""
    if view.is_empty:
        return "No cost recorded for these filters."
    where = " in " + ", ".join(_crumb_text(view.address, level) for level in LEVELS if view.address.values(level))
    return f"Showing {money(view)(view.spend.total)} over {words.counted(len(view.address.days), 'day')}{where if where != ' in ' else ''}"


def options(view: View) -> dict[str, list[list[str]]]:
    """[value, cost] for each filter under the other filters, largest first; chosen values are always among them."""
    return {
        "service": _options(view, "service", view.grid.by_service.items()),
        "region": _options(view, "region", view.grid.by_region.items()),
        "account": _options(view, "account", view.accounts),
    }


def _options(view: View, level: str, values: Iterable[tuple[str, Any]]) -> list[list[str]]:
    found = [[value, words.short_money(amount, view.currency)] for value, amount in islice(values, MOST_OPTIONS)]
    missing = set(view.address.values(level)) - {value for value, _ in found}
    return found + [[value, ""] for value in sorted(missing)]


def period_tabs(address: Address) -> list[Children]:
    return parts.period_tabs(PERIODS, address.period, address.period_hrefs())
