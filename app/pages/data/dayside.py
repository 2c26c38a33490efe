"""What stands at the side for one day: how it is and why, the figures then and now, its files, and the way out."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal
from typing import Any, Final

from app.core.charges import DEFAULT_METRIC
from app.core.collection import Estimate
from app.core.ledger import AccountDay, Ingestion, settles_at
from app.core.periods import DAY
from app.core.restatements import AccountHistory, DayHistory
from app.pages.data.panels import PRICED_IN, STATUS_WORDS, file_actions, job_button, shown_value, where
from app.pages.data.view import AccountLine, DayView
from app.ui import parts, words
from app.ui import tags as html
from app.ui.tags import attributes

Children = Any
MOST_ACCOUNTS: Final = 80
MOST_FILES: Final = 12
COVERAGE_PATH: Final = "/api/v1/coverage"
INGESTION_WORDS: Final = {
    "ingested": ("complete", "Taken"),
    "noop": ("none", "Nothing new: these bytes were known"),
    "quarantined": ("quarantined", "Quarantined"),
    "superseded": ("none", "Replaced by a newer version"),
    "waiting": ("settling", "Held: another file owns its account-days"),
    "failed": ("missing", "Failed"),
}
"""Sign and words of what became of a file."""


def day_side(view: DayView) -> list[Children]:
    return [_head(view), _state(view), _pointed_at(view), _actions(view), _reports(view), _files(view), _accounts(view)]


def _head(view: DayView) -> Children:
    before, after = view.day - DAY, view.day + DAY
    steps = [
        _step("‹", f"Day before, {words.day(before)}", view.address.at(before, of=view.address.of).href()),
        _step("›", f"Day after, {words.day(after)}", view.address.at(after, of=view.address.of).href()),
        parts.link(
            parts.icon("x"),
            view.address.at(None).href(),
            className="tool",
            **attributes(aria_label="Close this day", data_close="yes"),
        ),
    ]
    title = html.H2(words.weekday(view.day), id="day-title", tabIndex=-1)
    return html.Div([title, html.Div(steps, className="steps")], className="panel-head")


def _step(text: str, label: str, href: str) -> Children:
    return parts.link(
        html.Span(text, **attributes(aria_hidden="true")), href, className="tool", **attributes(aria_label=label)
    )


# --- how it is ----------------------------------------------------------------------------------------------------


def status_of(view: DayView) -> str:
    if view.record.restating:
        return "restating"
    return "quarantined" if view.quarantined else view.status or "none"


def _state(view: DayView) -> Children:
    status = status_of(view)
    mark = html.P([parts.status_mark(status), html.B(STATUS_WORDS[status])], className="state")
    return html.Div([mark, *[html.P(line) for line in _sentences(view, status)]], className="day-state")


def _sentences(view: DayView, status: str) -> list[str]:
    missing = [line.account for line in view.accounts if line.status == "missing"]
    found = []
    if status == "restating":
        found.append("A newer file is being written. The last verified figures are shown until it is read back.")
    if view.quarantined:
        kept = any(line.part for line in view.accounts)
        found.append(
            "The newest file of this day was refused as a whole; nothing of it is counted. "
            + (
                "The figures taken before stay."
                if kept
                else "There are no earlier figures, so this day is unknown, not zero."
            )
        )
    if missing and not view.quarantined:
        found.append(f"{words.counted(len(missing), 'account')} missing: totals hold only what is there.")
    if status == "settling":
        final = settles_at(view.day, view.settling_days)
        found.append(f"Figures may still change. The day counts as complete from {words.day(final)} (UTC) on.")
    if status == "complete":
        found.append("Every expected account has arrived and the figures are final.")
    if status == "none":
        found.append(_not_expected(view))
    return found


def _not_expected(view: DayView) -> str:
    if view.day >= view.today:
        return "This day is not over yet (UTC), so nothing is expected."
    return "No account had cost in the 14 days before, so nothing is expected."


def _pointed_at(view: DayView) -> Children:
    """The account that was clicked, before all others."""
    line = view.pointed_at
    if line is None:
        return None
    return html.Div([html.H3(f"Account {line.account}"), *_account_words(view, line)], className="pointed")


def _account_words(view: DayView, line: AccountLine) -> list[Children]:
    status = "restating" if view.record.restating else line.status
    mark = html.P([parts.status_mark(status), html.B(STATUS_WORDS[status])], className="state")
    said = [mark, html.P(why(line))]
    part = line.part
    if part is None:
        return said
    facts = [
        ("First reported", [_money(view, part, first=True), " · ", parts.ago(part.first_reported)]),
        ("Now", [_money(view, part), " · ", f"revision {part.revision}", " · ", parts.ago(part.changed)]),
        ("Moved by", _moved(view, part)),
        (
            "Comes from",
            html.Code(part.owner) if part.owner else "No file any more: its file stopped naming the account",
        ),
    ]
    return [*said, _facts(facts)]


def why(line: AccountLine) -> str:
    """One sentence on why the account's day is what it is."""
    if line.status == "complete":
        return "An accepted file speaks for it, and it has settled."
    if line.status == "settling":
        return (
            "The provider calls its figures estimated."
            if line.part and line.part.estimated
            else "The day is too young to be final."
        )
    last = f"It had cost on {words.day(line.last_cost)}" if line.last_cost else "It had cost before"
    if line.status == "quarantined":
        return f"{last}, and the day's newest file was refused."
    if line.failed:
        return f"{last}, and its collection failed."
    return f"{last}, and no accepted file covers it."


def _money(view: DayView, part: AccountDay, *, first: bool = False) -> str:
    return words.money((part.first if first else part.current).of(DEFAULT_METRIC), view.currency)


def moved_by(part: AccountDay) -> Decimal | None:
    now, before = part.current.of(DEFAULT_METRIC), part.first.of(DEFAULT_METRIC)
    return None if now is None or before is None else now - before


def _moved(view: DayView, part: AccountDay) -> str:
    moved = moved_by(part)
    if not moved:
        return "Nothing since it was first reported"
    change = words.change(part.current.of(DEFAULT_METRIC), part.first.of(DEFAULT_METRIC))
    return f"{words.money(moved, view.currency, sign=True)} ({change}) since it was first reported"


# --- the way out --------------------------------------------------------------------------------------------------


def _actions(view: DayView) -> Children:
    open_days = {"missing", "quarantined"} & {status_of(view), *(line.status for line in view.accounts)}
    buttons = [_collect(view, view.collection)] if view.collection else []
    advice = html.P(_advice(view), className="advice") if open_days else None
    return html.Div([advice, html.Div(buttons, className="actions") if buttons else None])


def _collect(view: DayView, priced: Estimate) -> Children:
    """Says its price first: every request to Cost Explorer is billed."""
    price = words.money(priced.price, PRICED_IN)
    return job_button(
        f"Collect this day again, about {price}",
        "collect",
        {"start": str(view.day), "end": str(view.day + DAY)},
        title=f"About {words.counted(priced.requests, 'request')} to Cost Explorer, {price}",
    )


def _advice(view: DayView) -> list[Children]:
    minutes = words.duration(view.watch_seconds)
    name = html.Code(f"{view.day}.csv")
    if view.quarantined:
        return ["Mend the file in the source, or put a good ", name, f" there. It is taken at the next look, within {minutes}; ",
                html.B("Try again"), " looks now."]  # fmt: skip
    return ["Put ", name, " into ", html.Code(view.source), f". It is taken at the next look, within {minutes}."]


# --- what it was reported as --------------------------------------------------------------------------------------


def _reports(view: DayView) -> Children:
    """First, when it was called complete, and now; then every report of the account pointed at."""
    history = view.history
    if history is None:
        return None
    complete = history.completed_at
    facts = [
        ("First reported", words.money(history.first(DEFAULT_METRIC), view.currency)),
        (
            "Complete",
            [words.money(history.complete(DEFAULT_METRIC), view.currency), " · ", parts.ago(complete)]
            if complete
            else "Not yet",
        ),
        ("Now", words.money(history.current(DEFAULT_METRIC), view.currency)),
        ("Moved since", _moved_since(view, history)),
    ]
    account = history.accounts.get(view.address.of or "")
    return html.Div([html.H3("The day as it was reported, amortized cost"), _facts(facts), _revisions(view, account)])


def _moved_since(view: DayView, history: DayHistory) -> str:
    move = history.moved(DEFAULT_METRIC)
    if move is None:
        return words.UNKNOWN
    if not move.amount:
        return "Nothing since it was called complete"
    return f"{words.money(move.amount, view.currency, sign=True)} ({words.change(move.after, move.before)})"


def _revisions(view: DayView, account: AccountHistory | None) -> Children:
    if account is None or len(account.revisions) < 2:
        return None
    rows = [
        html.Tr(
            [
                html.Th(f"{one.revision:,}", scope="row"),
                html.Td(parts.ago(one.at)),
                html.Td("estimated" if one.estimated else "final"),
                html.Td(words.money(one.totals.of(DEFAULT_METRIC), view.currency), className="number"),
            ]
        )
        for one in account.revisions[-MOST_FILES:]
    ]
    names = [html.Th(name, scope="col", className=kind) for name, kind in REPORT_COLUMNS]
    table = html.Table([html.Thead(html.Tr(names)), html.Tbody(rows)], className="day-accounts")
    return html.Div([html.H3(f"Reports of account {view.address.of}"), table], className="reports")


REPORT_COLUMNS: Final = (("Revision", ""), ("When", ""), ("As", ""), ("Amount", "number"))


def _facts(facts: Sequence[tuple[str, Children]]) -> Children:
    return html.Dl([html.Div([html.Dt(name), html.Dd(value)]) for name, value in facts], className="day-facts")


# --- files --------------------------------------------------------------------------------------------------------


def _files(view: DayView) -> Children:
    title = html.H3("Files of this day")
    if not view.ingestions:
        return html.Div([title, html.P("None has arrived.", className="note")], className="day-files")
    shown = [_file(view, item) for item in view.ingestions[:MOST_FILES]]
    rest = len(view.ingestions) - len(shown)
    more = (
        html.P(f"{words.counted(rest, 'older version')} in the API's list of ingestions.", className="note")
        if rest > 0
        else None
    )
    return html.Div([title, html.Ol(shown), more], className="day-files")


def _file(view: DayView, item: Ingestion) -> Children:
    sign, said = INGESTION_WORDS[item.status]
    facts = [
        words.size(item.size),
        words.counted(item.rows, "row") if item.totals else None,
        parts.ago(item.finished or item.started),
    ]
    line = [part for fact in facts if fact is not None for part in (" · ", fact)][1:]
    content = [
        html.P(
            [html.B(item.key), html.Span([parts.status_mark(sign), said], className="file-status")],
            className="file-head",
        ),
        html.P(line, className="note"),
        _reason(item),
        html.P(item.notice, className="note") if item.notice else None,
        html.Div(file_actions(item, again=item.id in view.newest), className="actions")
        if item.status == "quarantined"
        else None,
    ]
    chosen = item.id == view.address.ingestion
    return html.Li(
        content, className="file chosen" if chosen else "file", **attributes(aria_current="true" if chosen else None)
    )


def _reason(item: Ingestion) -> Children:
    reason = item.reason
    if reason is None:
        return None
    facts = [("Reason", html.Code(reason.code)), ("Where", where(item)), ("Value", shown_value(item))]
    return html.Div([html.P(reason.message, className="why"), _facts(facts)])


# --- accounts -----------------------------------------------------------------------------------------------------


def _accounts(view: DayView) -> Children:
    if not view.accounts:
        return None
    head = html.Tr(
        [
            html.Th("Account", scope="col"),
            *(html.Th(name, scope="col", className="number") for name in ("First reported", "Now", "Moved")),
        ]
    )
    rows = [_account_row(view, line) for line in view.accounts[:MOST_ACCOUNTS]]
    rest = len(view.accounts) - len(rows)
    all_of_it = f"{COVERAGE_PATH}?start={view.day}&end={view.day + DAY}"
    more = (
        html.P([f"{words.counted(rest, 'account')} more in ", html.A("the API's answer", href=all_of_it), "."])
        if rest > 0
        else None
    )
    table = html.Table([html.Thead(head), html.Tbody(rows)], className="day-accounts")
    box = html.Div(
        table, className="table-scroll", tabIndex=0, role="group", **attributes(aria_label="Accounts of this day")
    )
    return html.Div([html.H3("Accounts, amortized cost"), box, more])


def _account_row(view: DayView, line: AccountLine) -> Children:
    status, part = "restating" if view.record.restating else line.status, line.part
    name = parts.link(line.account, view.address.at(view.day, of=line.account).href(), title=why(line))
    unseen = html.Span(f" {STATUS_WORDS[status].lower()}", className="unseen")
    moved = moved_by(part) if part else None
    cells = [_money(view, part, first=True), _money(view, part)] if part else [words.UNKNOWN, words.UNKNOWN]
    cells.append((words.money(moved, view.currency, sign=True) if moved else "0") if part else words.UNKNOWN)
    return html.Tr(
        [
            html.Th([parts.status_mark(status), name, unseen], scope="row", title=STATUS_WORDS[status]),
            *(html.Td(text, className="number") for text in cells),
        ],
        className="chosen" if line.account == view.address.of else "",
    )
