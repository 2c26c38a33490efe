"""What the Anomalies page says, as components: the list, one anomaly, and what other rules would have said."""

from __future__ import annotations

from datetime import date, timedelta
from typing import Any, Final

from app.core.anomalyrecords import BY_FEEDBACK, BY_PLAN, STATES, AnomalyRecord
from app.core.arrivals import PARTS
from app.core.periods import DAY, DateRange
from app.core.scopes import Scope
from app.figures.expected import expected
from app.figures.theme import Figure
from app.pages import address as overview
from app.pages.anomalies import plans
from app.pages.anomalies.address import Address
from app.pages.anomalies.view import AnomaliesView
from app.ui import parts, words
from app.ui import tags as html
from app.ui.tags import attributes

Children = Any
KIND_WORDS: Final = {
    "rise": "Rise",
    "creep": "Creeping rise",
    "drop": "Drop",
    "new_cost": "New cost",
    "data_outage": "Data is silent",
}
STATE_LOOKS: Final = {
    "open": "failed",
    "ongoing": "failed",
    "acknowledged": "running",
    "resolved": "finished",
    "expected": "",
    "dismissed": "",
}
MOST_PARTS: Final = 12
CONTEXT: Final = timedelta(days=7)


# --- above the list -----------------------------------------------------------------------------------------------


def state_tabs(view: AnomaliesView) -> list[Children]:
    """How many there are in each state, as links that list only those."""
    address = view.address.at(None)
    groups: list[tuple[str, tuple[str, ...]]] = [("All", ()), ("Open", ("open", "ongoing"))]
    groups += [(state.capitalize(), (state,)) for state in STATES if state not in ("open", "ongoing")]
    found = []
    for name, states in groups:
        number = sum(view.counts.get(state, 0) for state in states) if states else sum(view.counts.values())
        current = "true" if view.address.states == states else None
        text = [name, html.Span(f" {number:,}", className="tab-count")]
        found.append(
            parts.link(text, address.only(*states).href(), className="tab", **attributes(aria_current=current))
        )
    return found


def looked(view: AnomaliesView) -> list[Children]:
    if not view.sees_all:
        return [html.Span("Those of your accounts alone; wider ones are shown to those who see all accounts.")]
    if view.looked is None or view.looked.finished is None:
        return [html.Span("Not looked for yet: it is done once all that arrived is ingested, and every day.")]
    as_of = view.looked.result.get("as_of")
    until = f" for anomalies up to {words.day(date.fromisoformat(as_of))}" if as_of else ""
    return [html.Span(f"Looked{until} · "), parts.ago(view.looked.finished)]


def notices(view: AnomaliesView) -> list[Children]:
    found = [parts.banner(text) for text in view.address.notices]
    if view.address.id and view.chosen is None:
        found.append(parts.banner("There is no such anomaly. It may be of another deployment.", "warn"))
    return found


def spoken(view: AnomaliesView) -> str:
    if view.chosen is not None:
        return f"{title_of(view.chosen)}: {view.chosen.state}"
    number = view.counts.get("open", 0) + view.counts.get("ongoing", 0)
    return f"Showing {_anomalies(len(view.records))}, {number} open"


def _anomalies(number: int) -> str:
    return "1 anomaly" if number == 1 else f"{number:,} anomalies"


# --- the list -----------------------------------------------------------------------------------------------------


def listed(view: AnomaliesView) -> Children:
    if not view.records:
        return html.P(_nothing(view), className="note calm")
    head = ("", "Anomaly", "State", "Began", "So far", "Last 30 days")
    cells = [html.Th(name or html.Span("Choose", className="unseen"), scope="col") for name in head]
    table = html.Table(
        [html.Thead(html.Tr(cells)), html.Tbody([_row(view, record) for record in view.records])],
        className="breakdown anomaly-table",
    )
    more = html.P(f"{view.more:,} more. Filter, or ask GET /api/v1/anomalies.", className="note") if view.more else None
    return [table, more]


def _nothing(view: AnomaliesView) -> str:
    if not view.known:
        return "No cost data yet. Anomalies are looked for as soon as four weeks of it are stored."
    if view.counts:
        return "No anomaly matches these filters."
    if view.looked is None and view.sees_all:
        return "Not looked for yet. It is done once all that arrived is ingested; that may take a minute."
    return (
        "No anomaly was found in what is stored: every day was within what its past let expect, or too small to matter."
    )


def _row(view: AnomaliesView, record: AnomalyRecord) -> Children:
    title = title_of(record)
    chosen = record.id == view.address.id
    began = words.day(record.start)
    box = html.Button(
        type="button",
        role="checkbox",
        className="box",
        **attributes(data_choose=record.id, aria_checked="false", aria_label=f"Choose {title}, {began}"),
    )
    link = parts.link(title, view.address.at(record.id).href(), **attributes(aria_current="true" if chosen else None))
    values = view.trends.get(record.id)
    [trend] = parts.sparklines(values.reshape(1, -1)) if values is not None else [words.UNKNOWN]
    days = (record.date - record.start).days + 1
    return html.Tr(
        [
            html.Td(box, className="choose"),
            html.Th([link, html.Span(_where(record.scope, record), className="anomaly-where")], scope="row"),
            html.Td([state_chip(record), html.Span(_kind(record), className="anomaly-kind")]),
            html.Td([began, html.Span(words.counted(days, "day"), className="anomaly-kind")], className="when"),
            html.Td(_dollars(view, record), className="number"),
            html.Td(trend),
        ],
        className="chosen" if chosen else "",
        key=record.id,
    )


def _kind(record: AnomalyRecord) -> str:
    """Of one that a plan silenced also which one."""
    verdict = record.verdict
    said = KIND_WORDS[record.kind]
    return f"{said}, planned: {verdict.reason}" if verdict and verdict.by == BY_PLAN else said


def _dollars(view: AnomaliesView, record: AnomalyRecord) -> Children:
    if record.kind == "data_outage":
        return words.UNKNOWN
    look = "delta up" if record.impact > 0 else "delta down"
    return [
        html.Span(words.money(record.impact, view.currency, sign=True), className=look),
        html.Span(record.severity, className="anomaly-kind"),
    ]


def state_chip(record: AnomalyRecord) -> Children:
    return html.Span(record.state.capitalize(), className=f"job-chip {STATE_LOOKS[record.state]}")


def title_of(record: AnomalyRecord) -> str:
    """What it is about in a few words: the service, else the account or region, else all."""
    scope = record.scope
    return scope.service or scope.account or scope.region or "All spend"


def _where(scope: Scope, record: AnomalyRecord) -> str:
    title = title_of(record)
    said = [value for _, value in scope.parts() if value is not None and value != title]
    lead = next((part.scope for part in record.contributions), None)
    if not said and lead is not None and len(record.contributions) > 1:
        return f"{len(record.contributions):,} series together"
    return " · ".join(said)


# --- one anomaly --------------------------------------------------------------------------------------------------


def figure(view: AnomaliesView) -> Figure | None:
    if view.chosen is None or view.band is None:
        return None
    band, record = view.band, view.chosen
    prefix = words.symbol(view.currency)
    return expected(band.days, band.actual, band.usual, (record.start, record.date), prefix, band.settling)


def heading(view: AnomaliesView) -> Children:
    record = view.chosen
    if record is None:
        return None
    close = parts.link(
        [parts.icon("x")],
        view.address.at(None).href(),
        className="tool",
        **attributes(aria_label="Close", data_close="yes"),
    )
    title = html.H2(title_of(record), id="anomaly-title", tabIndex=-1)
    return [html.Div([title, close], className="panel-head"), *_state(view, record), _said(view, record)]


def _state(view: AnomaliesView, record: AnomalyRecord) -> list[Children]:
    where = [html.Div([html.Dt(part.capitalize()), html.Dd(value or "all")]) for part, value in record.scope.parts()]
    band = f"{words.money(record.low, view.currency)} to {words.money(record.high, view.currency)}"
    figures = [
        ("So far", words.money(record.impact, view.currency, sign=True)),
        (words.day(record.date), f"{words.money(record.actual, view.currency)}, expected {band}"),
        ("Began", f"{words.day(record.start)}, known on {words.day(record.detected_on)}"),
    ]
    facts = [*where, *(html.Div([html.Dt(name), html.Dd(value)]) for name, value in figures)]
    line = [state_chip(record), html.Span(f"{KIND_WORDS[record.kind]}, {record.severity}")]
    return [html.P(line, className="state"), html.Dl(facts, className="day-facts")]


def _said(view: AnomaliesView, record: AnomalyRecord) -> Children:
    verdict = record.verdict
    if verdict is None:
        last = record.verdicts[-1] if record.verdicts else None
        if last is None or last.by != BY_PLAN:
            return None
        return html.P(f"Beyond {plans.why(last, view.plans)}: {last.reason}", className="why")
    by = {
        BY_FEEDBACK: "because of earlier feedback",
        BY_PLAN: f"because of {plans.why(verdict, view.plans)}",
    }.get(verdict.by, f"by {verdict.by}")
    reason = f": {verdict.reason}" if verdict.reason else ""
    return html.P([f"{verdict.state.capitalize()} {by} ", parts.ago(verdict.at), html.Span(reason)], className="why")


def chart_note(view: AnomaliesView) -> Children:
    record, band = view.chosen, view.band
    if record is None or band is None:
        return "No day of it is stored any more."
    money = words.money
    text = (
        f"{words.day_range(band.days)}. Grey: what was expected, for the days of the anomaly as the detector said, "
        "otherwise the same weekday's median of six weeks. Shaded: the anomaly."
    )
    spoken_text = (
        f"On {words.day(record.date)} {money(record.actual, view.currency)}, expected {money(record.low, view.currency)} "
        f"to {money(record.high, view.currency)}."
    )
    return parts.note(text, spoken_text)


def contributions(view: AnomaliesView) -> Children:
    """What it is made of, largest first, each a link to its days on the Overview."""
    record = view.chosen
    if record is None:
        return None
    if not record.contributions:
        return html.P("Nothing has arrived from this account; what it costs is not known.", className="note")
    whole = sum((abs(part.impact) for part in record.contributions), record.impact * 0)
    rows = [
        html.Li(
            [
                parts.link(_name_of(part.scope), overview_href(part.scope, record, view.today)),
                html.Span(words.money(part.impact, view.currency, sign=True), className="number"),
                html.Span(words.percent(abs(part.impact), whole), className="share"),
            ]
        )
        for part in record.contributions[:MOST_PARTS]
    ]
    more = len(record.contributions) - MOST_PARTS
    return [
        html.Ol(rows, className="contributions"),
        html.P(f"and {more:,} smaller", className="note") if more > 0 else None,
        parts.link(
            "Show all of it on the Overview", overview_href(record.scope, record, view.today), className="button"
        ),
    ]


def _name_of(scope: Scope) -> str:
    return " · ".join(value for value in (scope.service, scope.region, scope.account) if value)


def overview_href(scope: Scope, record: AnomalyRecord, today: date) -> str:
    """The Overview of a scope, from a week before the anomaly to a week after it."""
    days = DateRange(record.start - CONTEXT, max(min(record.date + CONTEXT, today), record.start + DAY))
    chosen = {part: value for part, value in scope.parts() if value is not None}
    return overview.Address(days=days, period=None).only(**chosen).href()


def timeline(view: AnomaliesView) -> Children:
    """What was known when, newest first."""
    record = view.chosen
    if record is None:
        return None
    head = ("Known on", "About", "Expected", "Actual", "So far")
    rows = [
        html.Tr(
            [
                html.Th(words.day(moment.day), scope="row"),
                html.Td(f"{words.day(moment.date, year=False)}, {moment.found}"),
                *(
                    html.Td(words.money(value, view.currency, sign=value is moment.impact), className="number")
                    for value in (moment.expected, moment.actual, moment.impact)
                ),
            ]
        )
        for moment in reversed(record.moments)
    ]
    said = [
        html.Li([html.B(verdict.state), f" by {verdict.by} ", parts.ago(verdict.at), f" {verdict.reason or ''}"])
        for verdict in reversed(record.verdicts)
    ]
    cells = [html.Th(name, scope="col", className="number" if n > 1 else "") for n, name in enumerate(head)]
    table = html.Table([html.Thead(html.Tr(cells)), html.Tbody(rows)], className="breakdown")
    return [html.Ul(said, className="notice-list") if said else None, table]


# --- what other rules would have said -----------------------------------------------------------------------------


def backtest(view: AnomaliesView) -> Children:
    """`With these settings you would have had 12 alerts …`, from a job: never counted in a request."""
    job = view.backtest
    if not view.sees_all:
        return "It is counted over all accounts, and you see some of them."
    if job is None:
        return "Nothing was counted yet. Choose limits and count: a job replays the last 12 months as they arrived."
    limits = _limits(view, job.params.get("min_daily"), job.params.get("min_total"))
    if job.finished is None:
        done = f", {job.done_steps / job.all_steps:.0%} so far" if job.all_steps else ""
        usual = _usual_seconds(view)
        return [html.B("Being counted"), f" with {limits}{done}{usual}. It goes on when you leave this page."]
    if job.status != "done":
        return [html.B("Could not be counted"), f" with {limits}: {job.message or job.status}"]
    result = job.result
    number = int(result["alerts"])
    kinds = ", ".join(f"{count:,} {KIND_WORDS[kind].lower()}" for kind, count in result["kinds"].items())
    days = DateRange(date.fromisoformat(result["start"]), date.fromisoformat(result["end"]))
    text = f" from {words.day_range(days)} with {limits}" + (f": {kinds}." if kinds else ".")
    took = f", in {result['seconds']:,} s" if "seconds" in result else ""
    later = " Cost data has come since: count again." if result.get("version", view.version) != view.version else ""
    return [
        "With these limits you would have had ",
        html.B(words.counted(number, "alert")),
        text,
        " Counted ",
        parts.ago(job.finished),
        f"{took}.{later}",
    ]


def _usual_seconds(view: AnomaliesView) -> str:
    """What the newest count took, where there is one."""
    return f"; the last one took {view.counted_in:,.0f} s" if view.counted_in is not None else ""


def _limits(view: AnomaliesView, daily: float | None, total: float | None) -> str:
    said = [
        f"{words.money(value, view.currency)} {name}"
        for value, name in ((daily, "a day"), (total, "in all"))
        if value is not None
    ]
    return "at least " + " and ".join(said) if said else "limits by the organisation's size"


def options(view: AnomaliesView) -> dict[str, list[list[str]]]:
    return {part: [[value, ""] for value in view.options[part]] for part in PARTS}


def filters_of(address: Address) -> dict[str, list[str]]:
    return {part: list(address.values(part)) for part in PARTS}
