"""Backfill: what it would ask Cost Explorer for and what that costs, said before it can be begun."""

from __future__ import annotations

from typing import Any, Final

from app import jobs as work
from app.backends import Backends
from app.collection import price_of_backfill
from app.errors import InvalidInput, Refused
from app.pages.data.address import PATH, Address
from app.pages.data.panels import PRICED_IN, job_button
from app.ui import parts, words
from app.ui import tags as html
from app.ui.tags import attributes

Children = Any
KIND: Final = "backfill"
MONTHS: Final = (3, 6, 12, 13)


def is_offered() -> bool:
    return KIND in work.AVAILABLE


def choice(text: str, months: int | None, **props: Any) -> Children:
    """A link that changes this part of the address only (assets/50-data.js)."""
    value = str(months or "")
    href = f"{PATH}?backfill={value}" if value else PATH
    return html.A(text, href=href, **attributes(data_set=f"backfill={value}"), **props)


def backfill(backends: Backends, address: Address) -> Children:
    """The offer for the months that are asked about; nothing while none are."""
    if address.backfill is None or not is_offered():
        return None
    months = address.backfill
    tabs = [
        choice(
            f"{number} months", number, className="tab", **attributes(aria_current="true" if number == months else None)
        )
        for number in MONTHS
    ]
    head = [html.H3("Backfill history"), html.Div(tabs, className="tabs")]
    return html.Div([html.Div(head, className="panel-head"), *_offer(backends, months)], className="offer")


def _offer(backends: Backends, months: int) -> list[Children]:
    leave = choice("Not now", None, className="button")
    try:
        found = price_of_backfill(backends, months)
    except (InvalidInput, Refused) as error:
        return [parts.banner(error.message, "warn"), html.Div(leave, className="actions")]
    if not found.days:
        return [html.P("Every day of these months has been collected and is final: nothing is left to ask for."), leave]
    price = words.money(found.price, PRICED_IN)
    said = html.P(
        [
            html.B(f"About {words.counted(found.requests, 'request')}, {price}"),
            f" to ask Cost Explorer for {words.counted(found.days, 'day')} of {words.counted(found.accounts, 'account')}. "
            "Days that are final already are not asked for again; pages can add to it.",
        ]
    )
    begin = job_button(
        f"Start, for about {price}", KIND, {"months": months}, title=f"Backfill {months} months", primary=True
    )
    return [said, html.Div([begin, leave], className="actions")]
