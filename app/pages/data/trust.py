"""How far figures can be trusted: what was noticed, how much days move after they were called complete, and whether a
month adds up, to the cent. One function for each of the three."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import date
from decimal import Decimal
from typing import Any, Final
from urllib.parse import urlencode

from app.backends import Backends
from app.core.charges import DEFAULT_METRIC
from app.core.periods import DAY, month_of, next_month
from app.core.reconciliation import HALF_A_CENT, AccountMonth
from app.core.restatements import Movement, Notice
from app.pages.data.address import NOTICES, RECONCILIATION, RESTATEMENTS, Address
from app.reconciliation import Reconciliation, reconciliation_of
from app.restatements import movement_of
from app.ui import parts, words
from app.ui import tags as html
from app.ui.tags import attributes

Children = Any
MOST_NOTICES: Final = 20
TITLES: Final = {NOTICES: "Notices", RESTATEMENTS: "Restatements", RECONCILIATION: "Reconciliation"}
CATEGORY_WORDS: Final = {
    "tax": "tax",
    "credits": "credits",
    "refunds": "refunds",
    "support": "support",
    "rounding": "rounding",
    "held": "another file",
    "timing": "timing",
}


def tabs(address: Address) -> list[Children]:
    return [
        parts.link(
            title,
            replace(address, show=name).href(),
            className="tab",
            **attributes(aria_current="true" if name == address.show else None),
        )
        for name, title in TITLES.items()
    ]


def shown(backends: Backends, address: Address) -> Children:
    return PANELS[address.show](backends, address)


# --- notices ------------------------------------------------------------------------------------------------------


def notices(backends: Backends, address: Address) -> Children:
    """What a person should know about the figures, newest first."""
    found = backends.metadata.notices(limit=MOST_NOTICES).items
    if not found:
        settings = backends.settings
        limits = f"{settings.restatement_notice_percent} % and {words.money(settings.restatement_notice_amount, settings.currency)}"
        text = f"No notice. One is raised when a complete day moves by more than {limits}, or when Cost Explorer's totals cannot be read."
        return html.P(text, className="note calm")
    return html.Ol([_notice(address, item, backends.settings.currency) for item in found], className="notice-list")


def _notice(address: Address, item: Notice, currency: str) -> Children:
    move = item.move
    moved = words.money(move.amount, currency, sign=True) if move else None
    link = parts.link(words.day(item.day), address.at(item.day).href()) if move else html.B(f"{item.day:%B %Y}")
    said = [html.Span(moved, className="delta") if moved else None, html.Span(item.message)]
    return html.Li([html.Div([link, parts.ago(item.at)]), html.Div(said)])


# --- restatements -------------------------------------------------------------------------------------------------


def restatements(backends: Backends, address: Address) -> Children:
    """How far the days of the period moved, by how long ago they were called complete."""
    found = movement_of(backends, address.days, address.accounts, DEFAULT_METRIC)
    asked = [
        ("start", address.days.start),
        ("end", address.days.end),
        *(("account", name) for name in address.accounts),
    ]
    csv = _csv(f"/api/v1/restatements?{urlencode([*asked, ('format', 'csv')])}")
    if not found:
        text = f"No day from {words.day_range(address.days)} has been complete for a day yet, so nothing can have moved since."
        return [html.P(text, className="note calm"), csv]
    note = f"Days from {words.day_range(address.days)}: how far their amortized cost had moved since they were called complete"
    head = ("Days after", "Days looked at", "Half of them within", "9 of 10 within", "Most")
    return [
        html.P(note, className="note"),
        html.Table([_head(head), html.Tbody([_movement(item) for item in found])], className="breakdown trust-table"),
        csv,
    ]


def _movement(item: Movement) -> Children:
    cells = [f"{item.days:,}", *(_percent(value) for value in (item.median, item.p90, item.most))]
    age = words.counted(item.age, "day")
    return html.Tr([html.Th(age, scope="row"), *(html.Td(text, className="number") for text in cells)])


def _percent(value: Decimal) -> str:
    if not value:
        return "did not move"
    return f"{value:.2f} %" if value >= Decimal("0.01") else "<0.01 %"


# --- reconciliation -----------------------------------------------------------------------------------------------


def reconciliation(backends: Backends, address: Address) -> Children:
    """File, ledger, store and Cost Explorer of one month, per account."""
    month = address.month or _last_whole_month(address)
    found = reconciliation_of(backends, month, accounts=address.accounts)
    csv = _csv(f"/api/v1/reconciliation?month={month:%Y-%m}&format=csv")
    if not found.accounts:
        return [_months(address, month), html.P(f"There is nothing of {month:%B %Y}.", className="note calm"), csv]
    currency = backends.settings.currency
    head = ("Account", "File", "Ledger", "Store", "Cost Explorer", "Difference", "Explained by", "Unexplained")
    rows = [_account(item, found, currency) for item in found.accounts]
    table = html.Table([_head(head), html.Tbody(rows)], className="breakdown trust-table")
    return [_months(address, month), html.P(_state(found, currency), className="note"), table, csv]


def _last_whole_month(address: Address) -> date:
    return month_of(month_of(address.days.end) - DAY)


def _months(address: Address, month: date) -> Children:
    before, after = month_of(month - DAY), next_month(month)
    steps = [
        parts.link(
            "‹", replace(address, month=before).href(), className="tool", **attributes(aria_label=f"{before:%B %Y}")
        ),
        html.B(f"{month:%B %Y}"),
        parts.link(
            "›", replace(address, month=after).href(), className="tool", **attributes(aria_label=f"{after:%B %Y}")
        ),
    ]
    return html.Div(steps, className="month-steps")


def _state(found: Reconciliation, currency: str) -> str:
    """What the table says, in a sentence."""
    agree = sum(_agrees(item) is True for item in found.accounts)
    said = f"Amortized cost. File, ledger and store agree for {agree:,} of {words.counted(len(found.accounts), 'account')}. "
    if found.kept is not None and found.kept.problem:
        return said + found.kept.problem
    if not found.recorded:
        return said + "Cost Explorer's own totals have not been recorded for this month: collecting it records them."
    open_amount = sum((abs(item.unexplained) for item in found.accounts), Decimal(0))
    if not open_amount:
        return said + "Every difference from Cost Explorer's totals is explained."
    return said + f"{words.money(open_amount, currency)} of the difference from Cost Explorer's totals is unexplained."


def _agrees(item: AccountMonth) -> bool | None:
    """Whether what we have is one figure; None where a part of it is not known."""
    if item.file is None or item.ledger is None or item.store is None:
        return None
    return item.file == item.ledger and abs(item.store - item.ledger) < HALF_A_CENT


def _account(item: AccountMonth, found: Reconciliation, currency: str) -> Children:
    def money(value: Decimal | None) -> str:
        return words.money(value, currency)

    compared = found.recorded and bool(item.compared)
    agrees = {
        True: ("complete", "file, ledger and store agree"),
        False: ("quarantined", "they differ"),
        None: ("none", "not known"),
    }[_agrees(item)]
    name = [parts.status_mark(agrees[0]), html.Span(item.account), html.Span(f" ({agrees[1]})", className="unseen")]
    theirs = [money(item.cost_explorer), money(item.difference), _explained(item, currency), money(item.unexplained)]
    kind = "number up" if compared and item.unexplained else "number"
    cells = [
        money(item.file),
        money(item.ledger),
        money(item.store),
        *(theirs if compared else ["not recorded", *[words.UNKNOWN] * 3]),
    ]
    kinds = ["number"] * (len(cells) - 1) + [kind]
    return html.Tr(
        [
            html.Th(name, scope="row", title=f"{item.account}: {agrees[1]}"),
            *(html.Td(text, className=look) for text, look in zip(cells, kinds, strict=True)),
        ]
    )


def _explained(item: AccountMonth, currency: str) -> str:
    said = [
        f"{CATEGORY_WORDS[name]} {words.money(amount, currency, sign=True)}"
        for name, amount in item.explained.items()
        if amount
    ]
    return ", ".join(said) or ("nothing to explain" if not item.difference else words.UNKNOWN)


# --- shared -------------------------------------------------------------------------------------------------------


def _head(names: tuple[str, ...]) -> Children:
    first, *others = names
    return html.Thead(
        html.Tr([html.Th(first, scope="col"), *(html.Th(name, scope="col", className="number") for name in others)])
    )


def _csv(href: str) -> Children:
    return html.A([parts.icon("download"), "CSV"], href=href, className="button", download="")


PANELS: Final[Mapping[str, Callable[[Backends, Address], Children]]] = {
    NOTICES: notices,
    RESTATEMENTS: restatements,
    RECONCILIATION: reconciliation,
}
