"""The way in from Grafana's links: its instants and variables become the Overview's address, and the browser goes there.

Grafana writes a time as an instant, a variable as `var-name=value` and no choice as `$__all` (older ones: `All`).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import UTC, date, datetime, timedelta
from typing import Final

from flask import Flask, redirect, request
from werkzeug.wrappers import Response

from app.core.periods import DAY
from app.pages.address import LEVELS, written

PATH: Final = "/from-grafana"
NO_CHOICE: Final = ("$__all", "All")


def register(server: Flask) -> None:
    server.add_url_rule(PATH, "from_grafana", _go, methods=["GET"])


def _go() -> Response:
    # Relative, so that it also holds behind a proxy that serves Spendscope below a path.
    return redirect("./" + address(request.args.items(multi=True)))


def address(given: Iterable[tuple[str, str]]) -> str:
    """The Overview's query string for a link's pairs. What is not understood goes along: the Overview says so."""
    pairs = list(given)
    single = dict(pairs)
    days = _days(single["start"], single["end"]) if "start" in single and "end" in single else ()
    metric = [("metric", single["metric"])] if single.get("metric") else []
    return written([*days, *metric, *_chosen(pairs)])


def _chosen(pairs: Iterable[tuple[str, str]]) -> Iterator[tuple[str, str]]:
    for name, value in pairs:
        if name in LEVELS and value:
            yield name, value
        elif name.removeprefix("var-") in LEVELS and value and value not in NO_CHOICE:
            yield name.removeprefix("var-"), value


def _days(start: str, end: str) -> list[tuple[str, str]]:
    """A day is in Grafana's range when its first second is: that is where InfluxDB keeps it. At least one day."""
    try:
        first, after = _first_day(start), _first_day(end)
        if first >= after:
            after = first + DAY
    except (ValueError, OverflowError):
        return [("start", start), ("end", end)]
    return [("start", str(first)), ("end", str(after))]


def _first_day(text: str) -> date:
    """The first day that begins at this instant or after it. Raises ValueError, OverflowError."""
    found = datetime.fromisoformat(text)
    at = found.astimezone(UTC) if found.tzinfo else found.replace(tzinfo=UTC)
    return (at + timedelta(days=1) - timedelta(microseconds=1)).date()
