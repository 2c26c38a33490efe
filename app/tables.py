"""Answers about the ledger as the command line prints them: the API's object, its CSV, or columns for people."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from decimal import Decimal

from app.api import reconciliation as reconciling
from app.api import restatements as api
from app.api.models import DayRestatement
from app.backends import Backends
from app.core.amounts import text
from app.core.exports import printable
from app.core.periods import DateRange
from app.core.reconciliation import CATEGORIES, HALF_A_CENT, AccountMonth
from app.costs import ledgers_of
from app.reconciliation import Reconciliation


def restatement_lines(
    backends: Backends, days: DateRange, metric: str, accounts: Collection[str], form: str
) -> Iterator[str]:
    """What `spendscope restatements` prints, line breaks included."""
    if form == "csv":
        yield from api.csv_lines(backends, days, metric, accounts)
        return
    reported = [day for day, found in ledgers_of(backends).days.items() if day in days and found.accounts]
    answer = api.restatements_answer(backends, api.histories_of(backends, reported, accounts), metric)
    if form == "json":
        yield answer.json_text() + "\n"
        return
    yield f"{'day':<10}{'first reported':>24}{'called complete':>24}{'now':>24}{'moved':>20}{'':>12}\n"
    yield from (_day_line(item) for item in answer.items)
    yield from _movement_lines(backends, days, metric, accounts)
    yield from (f"Notice: {notice.message}\n" for notice in backends.metadata.notices_about(days.start, days.end))


def _day_line(item: DayRestatement) -> str:
    complete = item.complete or ("not yet" if item.completed_at is None else "unknown")
    unknown = "not available"
    figures = f"{item.date!s:<10}{item.first or unknown:>24}{complete:>24}{item.current or unknown:>24}"
    if item.moved is None or item.moved.amount == "0":
        return figures + "\n"
    percent = f"{item.moved.percent} %" if item.moved.percent is not None else "from nothing"
    return f"{figures}{item.moved.amount:>20}{percent:>14}\n"


def _movement_lines(backends: Backends, days: DateRange, metric: str, accounts: Collection[str]) -> Iterator[str]:
    found = api.movement_answer(backends, days, metric, accounts).items
    if found:
        yield "\nHow far days had moved, in percent of what they were called complete as:\n"
        yield f"{'days after':<12}{'days':>8}{'median':>12}{'p90':>12}{'max':>12}\n"
    for one in found:
        yield f"{one.age:<12}{one.days:>8}{one.median:>12}{one.p90:>12}{one.max:>12}\n"


def agrees(found: Reconciliation) -> bool:
    """Whether file, ledger and store agree and nothing is unexplained; what is not known is no disagreement."""
    return all(_agrees(one, exact=found.store_exact) for one in found.accounts)


def _agrees(one: AccountMonth, *, exact: bool) -> bool:
    def same(this: Decimal | None) -> bool:
        if this is None or one.ledger is None:
            return True
        return this == one.ledger if exact else abs(this - one.ledger) < HALF_A_CENT

    return same(one.file) and same(one.store) and not one.unexplained_days


def reconciliation_lines(backends: Backends, found: Reconciliation, form: str) -> Iterator[str]:
    """What `spendscope reconcile` prints, line breaks included."""
    if form == "csv":
        yield from reconciling.csv_of(backends, found)
        return
    if form == "json":
        yield reconciling.answer_of(backends, found).json_text() + "\n"
        return
    for one in found.accounts:
        yield from _account_lines(one, found.recorded, backends.settings.currency)
    yield from _reference_lines(found)


def _account_lines(one: AccountMonth, recorded: bool, currency: str) -> Iterator[str]:
    yield f"{printable(one.account)}\n"
    for name, amount in (("files", one.file), ("ledger", one.ledger), ("store", one.store)):
        yield f"  {name:<34}{'not known' if amount is None else text(amount):>28} {currency}\n"
    if recorded and one.compared:
        yield f"  {f'ledger, {len(one.compared)} days of both':<34}{text(one.ours):>28} {currency}\n"
        yield f"  {'Cost Explorer, the same days':<34}{text(one.cost_explorer):>28} {currency}\n"
        yield f"  {'difference':<34}{text(one.difference):>28} {currency}\n"
        reasons = [(name, one.explained[name]) for name in CATEGORIES if name in one.explained]
        for reason, part in (*reasons, ("unexplained", one.unexplained)):
            yield f"    {reason:<32}{text(part):>28} {currency}\n"
    lists = ((one.only_here, "Cost Explorer's totals lack"), (one.only_there, "No accepted file speaks for"))
    for days, said in lists if recorded else ():
        if days:
            yield f"  {said}: {', '.join(f'{day} ({text(amount)})' for day, amount in days.items())}\n"


def _reference_lines(found: Reconciliation) -> Iterator[str]:
    kept = found.kept
    if kept and kept.problem:
        yield f"{kept.problem}\n"
    if kept is None or kept.reference is None:
        yield f"Cost Explorer's totals of {found.month:%Y-%m} were not collected: `spendscope collect` records them.\n"
    elif not found.recorded:
        yield f"Cost Explorer's totals of {found.month:%Y-%m} were recorded without {found.metric}.\n"
    else:
        yield f"Cost Explorer's totals were collected at {kept.reference.collected:%Y-%m-%d %H:%M} UTC.\n"
