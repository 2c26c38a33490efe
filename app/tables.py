"""Answers about the ledger as the command line prints them: the API's object, its CSV, or columns for people."""

from __future__ import annotations

from collections.abc import Collection, Iterator

from app.api import restatements as api
from app.api.models import DayRestatement
from app.backends import Backends
from app.core.periods import DateRange
from app.costs import ledgers_of


def restatement_lines(
    backends: Backends, days: DateRange, metric: str, accounts: Collection[str], form: str
) -> Iterator[str]:
    """What `spendscope restatements` prints, line breaks included."""
    if form == "csv":
        yield from api.csv_lines(backends, days, metric, accounts)
        return
    reported = [day for day, record in ledgers_of(backends).records.items() if day in days and record.accounts]
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
