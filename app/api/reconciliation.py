"""GET /api/v1/reconciliation: whether file, ledger, store and Cost Explorer agree about a month, to the cent."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from datetime import date
from decimal import Decimal
from typing import Final

from flask import Response

from app.api.models import (
    AccountReconciliation,
    DayAmount,
    Explained,
    ReconciledMonth,
    ReferenceState,
    exact_text,
)
from app.api.paging import Bookmark, count
from app.api.routes import CURSOR, Arguments, Parameter, Route, answered, limit_of, one_of
from app.backends import Backends, current
from app.core.amounts import text
from app.core.amounts import total as exact_total
from app.core.charges import COSTS, DEFAULT_METRIC
from app.core.exports import Cell, csv_text
from app.core.query import choice
from app.core.reconciliation import CATEGORIES, AccountMonth
from app.errors import InvalidInput
from app.reconciliation import Reconciliation, reconciliation_of

FORMATS: Final = ("json", "csv")
HEADER: Final = (
    "month",
    "account",
    "metric",
    "currency",
    "file",
    "ledger",
    "store",
    "days_compared",
    "ours",
    "cost_explorer",
    "difference",
    *CATEGORIES,
    "unexplained",
    "days_only_here",
    "amount_only_here",
    "days_only_there",
    "amount_only_there",
)


def month_from(given: str) -> date:
    """The first day of `YYYY-MM`. Raises InvalidInput."""
    found = re.fullmatch(r"20([0-9]{2})-(0[1-9]|1[0-2])", given, re.ASCII)
    if found is None:
        raise InvalidInput(
            f"month {given[:40]!r} is not a month. Write it as YYYY-MM, for example 2026-10.", field="month"
        )
    return date(2000 + int(found[1]), int(found[2]), 1)


def reconciliation(given: Arguments) -> Response:
    backends = current()
    month = month_from(given.first("month") or "")
    metric = choice("metric", given.first("metric") or DEFAULT_METRIC, COSTS)
    form = choice("format", given.first("format") or "json", FORMATS)
    if form == "csv":
        for name in ("limit", "cursor"):
            if given.first(name) is not None:
                raise InvalidInput(f"{name} does not go with format=csv, which has all rows. Leave it out.", field=name)
    bookmark = Bookmark.of(sorted(pair for pair in given if pair[0] not in ("limit", "cursor")))
    cursor, limit = given.first("cursor"), given.limit(100)
    start = bookmark.place(cursor, count) if cursor is not None else 0
    found = reconciliation_of(backends, month, metric, tuple(given.all("account")))
    if form == "csv":
        name = f"spendscope-reconciliation-{month:%Y-%m}-{metric}.csv"
        headers = {"Content-Disposition": f'attachment; filename="{name}"'}
        return Response(csv_of(backends, found), 200, headers, content_type="text/csv; charset=utf-8")
    end = start + limit
    following = bookmark.cursor(str(end)) if end < len(found.accounts) else None
    return answered(answer_of(backends, found, slice(start, end), following))


def answer_of(
    backends: Backends, found: Reconciliation, part: slice = slice(None), next_cursor: str | None = None
) -> ReconciledMonth:
    """What the API and `reconcile --format json` answer."""
    kept, reference = found.kept, found.kept.reference if found.kept else None
    return ReconciledMonth(
        month=f"{found.month:%Y-%m}",
        metric=found.metric,
        currency=backends.settings.currency,
        reference=ReferenceState(
            collected=reference.collected if reference else None,
            recorded=found.recorded,
            problem=kept.problem if kept else None,
        ),
        store_exact=found.store_exact,
        store_since=found.store_since,
        items=[_account(one, found.recorded) for one in found.accounts[part]],
        next_cursor=next_cursor,
    )


def _account(found: AccountMonth, recorded: bool) -> AccountReconciliation:
    def compared(amount: Decimal) -> str | None:
        return text(amount) if recorded and found.compared else None

    return AccountReconciliation(
        account=found.account,
        file=exact_text(found.file),
        ledger=exact_text(found.ledger),
        store=exact_text(found.store),
        days_compared=len(found.compared),
        ours=compared(found.ours),
        cost_explorer=compared(found.cost_explorer),
        difference=compared(found.difference),
        explained=[
            Explained(category=category, amount=text(found.explained[category]))
            for category in CATEGORIES
            if category in found.explained
        ],
        unexplained=compared(found.unexplained),
        unexplained_days=_days(found.unexplained_days),
        only_here=_days(found.only_here if recorded else {}),
        only_there=_days(found.only_there),
    )


def _days(amounts: Mapping[date, Decimal]) -> list[DayAmount]:
    return [DayAmount(date=day, amount=text(amount)) for day, amount in amounts.items()]


def csv_of(backends: Backends, found: Reconciliation) -> Iterator[str]:
    """One row an account, then the next; figures that nothing was compared for are empty."""
    yield csv_text([HEADER])
    for one in found.accounts:
        yield csv_text([_csv_row(backends, found, one)])


def _csv_row(backends: Backends, found: Reconciliation, one: AccountMonth) -> tuple[Cell, ...]:
    known = found.recorded and bool(one.compared)
    bridge = (one.ours, one.cost_explorer, one.difference, *(one.explained.get(c, Decimal(0)) for c in CATEGORIES))
    here = one.only_here if found.recorded else {}
    return (
        f"{found.month:%Y-%m}",
        one.account,
        found.metric,
        backends.settings.currency,
        one.file,
        one.ledger,
        one.store,
        len(one.compared),
        *(amount if known else None for amount in (*bridge, one.unexplained)),
        len(here),
        _summed(here.values()),
        len(one.only_there),
        _summed(one.only_there.values()),
    )


def _summed(amounts: Iterable[Decimal]) -> Decimal:
    return exact_total(list(amounts))


ROUTES: Final = (
    Route(
        "GET",
        "/api/v1/reconciliation",
        reconciliation,
        "Whether file, ledger, store and Cost Explorer agree about a month",
        ReconciledMonth,
        about="For each account: the totals of its files, of the ledger and of the store; and Cost Explorer's total of the days "
        "that both have, with the difference explained by category or left unexplained, to the cent. With `format=csv` the answer "
        "is a file of all accounts.",
        parameters=(
            Parameter("month", "The month.", {"type": "string"}, required=True, example="2026-10"),
            one_of("metric", "Which cost is compared.", COSTS, DEFAULT_METRIC),
            Parameter("account", "Only this account; repeat it for several.", repeated=True),
            limit_of(100),
            CURSOR,
            one_of("format", "`csv` for a file.", FORMATS, "json"),
        ),
        problems=(400,),
        also_csv=True,
        tag="ledger",
    ),
)
