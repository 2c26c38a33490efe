"""The Data page's panels: one small function each, from a DataView to what stands on the page."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final

from app.core.calendar import LETTERS, STATUSES, Row
from app.core.ledger import Ingestion
from app.core.periods import DateRange
from app.pages.data.address import PERIODS, Address
from app.pages.data.view import DataView
from app.ui import parts, words
from app.ui import tags as html
from app.ui.tags import attributes

Children = Any

STATUS_WORDS: Final = {
    "complete": "Complete",
    "settling": "Settling",
    "missing": "Missing",
    "quarantined": "Quarantined",
    "restating": "Being restated",
    "none": "Not expected",
}
MEANINGS: Final = {
    "complete": "An accepted file speaks for the account and its figures are final",
    "settling": "Taken, but the provider may still change it",
    "missing": "The account had cost in the 14 days before, and no accepted file covers it",
    "quarantined": "The newest file of the day was refused as a whole",
    "restating": "Being rewritten now; the last verified figures are shown",
    "none": "Nothing is expected: no cost in the 14 days before, or the day is not over",
}
FEW: Final = 3
MOST_LINES: Final = 240
"""Lines of the table beside the calendar."""

PRICED_IN: Final = "USD"
"""Cost Explorer's requests are billed in dollars, whatever the currency of the bill they ask about."""

JOBS_PATH: Final = "/api/v1/jobs"
INGESTIONS_PATH: Final = "/api/v1/ingestions"


# --- head ---------------------------------------------------------------------------------------------------------


def period_tabs(address: Address) -> list[Children]:
    return parts.period_tabs(PERIODS, address.period, lambda name: replace(address, period=name).href())


def freshness(view: DataView) -> list[Children]:
    """The header's dot and words, as on the Overview."""
    through, known = view.history.complete_through, view.history.days
    if known is None:
        return []
    late = (view.today - known.last).days
    level = "good" if late <= 2 else "warn" if late <= 4 else "bad"
    text = f"Complete through {words.day(through, year=False)}" if through else f"Data to {words.day(known.last)}"
    if level != "good":
        text = f"No data since {words.day(known.last, year=False)}"
    dot = html.Span(className=f"dot {level}", **attributes(aria_hidden="true"))
    stamp = view.history.updated.strftime("%Y-%m-%dT%H:%M:%SZ") if view.history.updated else None
    return [dot, html.Span(text), *([html.Time(dateTime=stamp, title=stamp)] if stamp else [])]


def notices(view: DataView) -> list[Children]:
    found = [parts.banner(text) for text in view.address.notices]
    unknown = [name for name in view.address.accounts if name not in view.history.accounts]
    if unknown:
        found.append(parts.banner(f"Account {words.joined(unknown)} has no cost in the whole history."))
    known = view.history.days
    if known and view.address.days.end <= known.start:
        latest = replace(view.address, period=None, days=DateRange(known.start, known.end))
        found.append(
            parts.banner(
                [f"There is no data before {words.day(known.start)}. ", parts.link("Show all days", latest.href())]
            )
        )
    return found


# --- summary ------------------------------------------------------------------------------------------------------


def summary(view: DataView) -> list[Children]:
    return [
        _complete(view),
        _settling(view),
        _missing(view),
        _refused(view),
        _kept(view),
        _size(view),
    ]


def _fact(title: str, value: Children, detail: Children, level: str = "") -> Children:
    return html.Div(
        [
            html.Dt(title),
            html.Dd(value, className=f"fact-value {level}".strip()),
            html.Dd(detail, className="fact-detail"),
        ],
        className="fact",
    )


def _complete(view: DataView) -> Children:
    through = view.history.complete_through
    if through is None:
        return _fact("Complete through", words.UNKNOWN, "No day is complete yet")
    behind = (view.today - through).days - 1 - view.settling_days
    detail = "As far as it can be" if behind <= 0 else f"{words.counted(behind, 'day')} behind"
    return _fact("Complete through", words.day(through), detail, "warn" if behind > 0 else "")


def _settling(view: DataView) -> Children:
    days = view.history.settling
    detail = words.day_list(days, 2) if days else "Every day there is has settled"
    return _fact("Days settling", f"{len(days):,}" if view.history.days else words.UNKNOWN, detail)


def _missing(view: DataView) -> Children:
    if view.history.days is None:
        return _fact("Missing account-days", words.UNKNOWN, "Nothing has arrived yet")
    if not view.history.missing:
        return _fact("Missing account-days", "0", "Every expected account has arrived")
    days = view.history.missing_days
    which = (
        words.day_list(days) if len(days) <= FEW else f"{len(days):,} days, newest {words.day(days[-1], year=False)}"
    )
    link = parts.link(which, view.address.at(days[-1]).href())
    return _fact("Missing account-days", f"{view.history.missing:,}", link, "warn")


def _refused(view: DataView) -> Children:
    if not view.refused:
        return _fact("Quarantined files", "0", "Every file that arrived was taken")
    count = max(len(view.quarantined), len(view.refused))
    return _fact("Quarantined files", f"{count:,}", html.A("See why, below", href="#quarantined-title"), "bad")


def _kept(view: DataView) -> Children:
    value = f"{view.retention:,} days" if view.retention else "For ever"
    oldest = view.oldest or (view.history.days.start if view.history.days else None)
    if view.oldest:
        detail = f"Days from {words.day(view.oldest)} on; months before as totals"
    else:
        detail = f"Oldest day {words.day(oldest)}" if oldest else "Nothing is there yet"
    return _fact("Retention", value, detail)


def _size(view: DataView) -> Children:
    known = view.history.days
    if known is None:
        return _fact("History", words.UNKNOWN, "Nothing has arrived yet")
    accounts = words.counted(len(view.history.accounts), "account")
    return _fact("History", words.counted(len(known), "day"), f"{accounts}, {words.counted(view.history.rows, 'row')}")


# --- calendar -----------------------------------------------------------------------------------------------------


def letters(view: DataView) -> dict[str, Any]:
    """What the browser draws the calendar from (assets/50-data.js)."""
    found = view.calendar
    return {
        "start": str(found.days.start),
        "whole": found.whole,
        "rows": [[row.account, row.letters] for row in found.rows],
        "words": {letter: STATUS_WORDS[status].lower() for letter, status in STATUSES.items()},
    }


def legend(view: DataView) -> list[Children]:
    """Every status with its sign and how many account-days of the period have it."""
    counts = view.calendar.counts
    known = {status: counts.get(letter, 0) for status, letter in LETTERS.items()}
    return [
        html.Span(
            [
                parts.status_mark(status),
                STATUS_WORDS[status],
                html.B(f"{known[status]:,}") if status in known else None,
            ],
            className="key",
            title=MEANINGS[status],
        )
        for status in STATUS_WORDS
        if status != "restating" or known["restating"]
    ]


def calendar_note(view: DataView) -> list[Children]:
    found = view.calendar
    accounts = words.counted(len(found.rows), "account")
    text = f"{words.day_range(found.days)}, {accounts}. Click a day, or use the arrow keys and Enter"
    return parts.note(text, _spoken_counts(view))


def _spoken_counts(view: DataView) -> str:
    counts = view.calendar.counts
    said = [
        f"{counts[letter]:,} {STATUS_WORDS[status].lower()}" for status, letter in LETTERS.items() if counts[letter]
    ]
    return f"Account-days: {', '.join(said)}." if said else "No account has cost in this period."


def table(view: DataView) -> Children:
    """The calendar in words: for every account the days that are not simply complete."""
    found = view.calendar
    whole = Row("All accounts", found.whole)
    lines = [
        line for row in (whole, *found.rows) for line in _lines(view, row, of=None if row is whole else row.account)
    ]
    if not lines:
        return html.P("Every expected day of this period is complete.", className="note")
    head = html.Thead(html.Tr([html.Th(name, scope="col") for name in ("Account", "Status", "Days", "Which")]))
    rest = len(lines) - MOST_LINES
    more = html.P(f"{rest:,} more lines; narrow the accounts or the period.", className="note") if rest > 0 else None
    return [html.Table([head, html.Tbody(lines[:MOST_LINES])]), more]


def _lines(view: DataView, row: Row, of: str | None) -> list[Children]:
    found = []
    for letter in "QMRS":
        days = view.calendar.days_with(row.letters, letter)
        if days:
            target = view.address.at(days[-1], of=of).href()
            which = [words.day_list(days, 6) + " · ", parts.link(f"open {words.day(days[-1], year=False)}", target)]
            mark = [parts.status_mark(STATUSES[letter]), " ", STATUS_WORDS[STATUSES[letter]]]
            cells = [html.Td(mark), html.Td(f"{len(days):,}", className="number"), html.Td(which)]
            found.append(html.Tr([html.Th(row.account, scope="row"), *cells]))
    return found


def spoken(view: DataView) -> str:
    """What the live region says when the calendar has been drawn."""
    return f"Showing {words.counted(len(view.calendar.rows), 'account')} over {words.counted(len(view.calendar.days), 'day')}"


# --- quarantined files --------------------------------------------------------------------------------------------


def quarantined(view: DataView) -> Children:
    if not view.quarantined:
        text = (
            "No file is quarantined. A file that cannot be taken whole is listed here with the reason and the way out."
        )
        return html.P(text, className="note calm")
    head = ("File", "Why", "Where", "Value", "Looked at", "")
    rows = [_quarantined_row(view, item) for item in view.quarantined]
    return html.Table(
        [html.Thead(html.Tr([html.Th(name, scope="col") for name in head[:-1]] + [html.Td()])), html.Tbody(rows)],
        className="files",
    )


def quarantined_note(view: DataView) -> list[Children]:
    if not view.quarantined:
        return []
    minutes = words.duration(view.watch_seconds)
    return parts.note(
        "Refused as a whole, nothing of them is counted, and what was taken before stays. Mend the file in the source: it is "
        f"taken at the next look, within {minutes}, or at once with “Try again”"
    )


def _quarantined_row(view: DataView, item: Ingestion) -> Children:
    reason = item.reason
    target = view.address.at(item.day, ingestion=item.id).href()
    return html.Tr(
        [
            html.Th(parts.link(item.key, target), scope="row"),
            html.Td([html.Code(reason.code), html.Span(reason.message, className="why")] if reason else words.UNKNOWN),
            html.Td(where(item), **attributes(data_label="Where")),
            html.Td(shown_value(item), **attributes(data_label="Value")),
            html.Td(parts.ago(item.finished or item.started), **attributes(data_label="Looked at")),
            html.Td(file_actions(item), className="row-actions"),
        ]
    )


def where(item: Ingestion) -> str:
    reason = item.reason
    if reason is None or (reason.line is None and reason.column is None):
        return "The whole file"
    found = [f"line {reason.line:,}" if reason.line is not None else "", reason.column or ""]
    return ", ".join(filter(None, found)).capitalize() if reason.line is not None else f"Column {reason.column}"


def shown_value(item: Ingestion) -> Children:
    value = item.reason.value if item.reason else None
    return html.Code(value) if value else words.UNKNOWN


def file_actions(item: Ingestion, *, again: bool = True) -> list[Children]:
    download = html.A(
        [parts.icon("download"), "Download"],
        href=f"{INGESTIONS_PATH}/{item.id}/file",
        className="button",
        download="",
        title=f"The bytes of {item.key} as they were looked at",
        **attributes(data_download="yes"),
    )
    retry = job_button(
        "Try again", "ingest", {"key": item.key, "again": True}, title=f"Read and check {item.key} again"
    )
    return [download, *([retry] if again else [])]


def job_button(text: str, kind: str, params: Mapping[str, Any], *, title: str = "", primary: bool = False) -> Children:
    """Submits a job by the API (assets/50-data.js)."""
    body = json.dumps({"kind": kind, "params": dict(params)}, separators=(",", ":"))
    return html.Button(
        text,
        type="button",
        className="button primary" if primary else "button",
        title=title or text,
        **attributes(data_job=body),
    )


# --- states -------------------------------------------------------------------------------------------------------


def nothing_yet(view: DataView) -> Children:
    return parts.message(
        "No cost data yet",
        [
            "This page shows every day of every account as soon as the first cost file is taken. Put files named ",
            html.Code("YYYY-MM-DD.csv"),
            " into ",
            html.Code(view.source),
            " and run ",
            html.Code("spendscope ingest --wait"),
            ".",
        ],
    )


def account_options(view: DataView) -> list[list[str]]:
    """[account, what is open of it] for the filter; chosen values are always among them."""
    open_days = {row.account: row.open_days for row in view.calendar.rows}
    names = {*view.history.accounts, *view.address.accounts}
    return [[name, f"{open_days[name]} open" if open_days.get(name) else ""] for name in sorted(names)]
