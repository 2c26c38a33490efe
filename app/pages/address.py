"""The address of a page is its only state: read tolerantly, written canonically, defaults left out.

Names are the API's (DESIGN §7) plus `period`; what cannot be used is ignored and said, never an error page.
assets/20-dashboard.js writes the same addresses when a control changes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import date
from functools import cached_property, lru_cache
from typing import Final
from urllib.parse import parse_qsl, quote_plus, urlencode

from app.core.charges import COSTS, DEFAULT_METRIC
from app.core.periods import DateRange, day_from, preset
from app.core.query import CostQuery, choice, filters_from
from app.errors import InvalidInput

LEVELS: Final = ("service", "region", "account")
"""The order of drilling down."""

DEFAULT_PERIOD: Final = "30d"
PERIODS: Final = {
    "7d": ("7d", "Last 7 days"),
    "30d": ("30d", "Last 30 days"),
    "90d": ("90d", "Last 90 days"),
    "mtd": ("MTD", "Month to date"),
    "lm": ("Last month", "Last calendar month"),
    "12m": ("12m", "Last 12 months"),
}
"""Preset → short label, full label."""

MOST_DAYS: Final = 1100
SINGLE: Final = ("period", "start", "end", "metric", "group_by")


@dataclass(frozen=True)
class Address:
    """`period` is None when the days are fixed. `notices` say what of the address was not understood."""

    days: DateRange
    period: str | None = DEFAULT_PERIOD
    metric: str = DEFAULT_METRIC
    group_by: str | None = None
    filters: tuple[tuple[str, tuple[str, ...]], ...] = ()
    notices: tuple[str, ...] = ()

    @property
    def query(self) -> CostQuery:
        return CostQuery(range=self.days, metric=self.metric, filters=self.filters)

    @cached_property
    def chosen(self) -> dict[str, tuple[str, ...]]:
        return dict(self.filters)

    def values(self, dimension: str) -> tuple[str, ...]:
        return self.chosen.get(dimension, ())

    @cached_property
    def dimension(self) -> str:
        """What panels group by: the asked level, else the first that is not fixed to one value."""
        if self.group_by and len(self.values(self.group_by)) != 1:
            return self.group_by
        return self.pair[0]

    @cached_property
    def pair(self) -> tuple[str, ...]:
        """The first two levels that are still open: what the top five are made of."""
        open_levels = tuple(level for level in LEVELS if len(self.values(level)) != 1)
        return open_levels[:2] or (LEVELS[-1],)

    def search(self) -> str:
        """The canonical query string, `""` for the default view."""
        return _search([*self._when(), *self._what(), *self._values(*LEVELS)])

    def _when(self) -> list[str]:
        if self.period is None:
            return [f"start={self.days.start}", f"end={self.days.end}"]
        return _preset(self.period)

    def _what(self) -> list[str]:
        parts: list[str] = []
        if self.metric != DEFAULT_METRIC:
            parts.append(f"metric={self.metric}")
        if self.group_by:
            parts.append(f"group_by={self.group_by}")
        return parts

    def _values(self, *levels: str) -> list[str]:
        return [f"{level}={quoted(value)}" for level in levels for value in self.values(level)]

    def href(self) -> str:
        """A link to this view from anywhere."""
        return "/" + self.search()

    def hrefs(self, *levels: str) -> Callable[..., str]:
        """`only(level=value, …).href()` of many values: what they have in common is written once. Levels in their order."""
        parts = [*self._when(), *self._what()]
        for level in LEVELS:
            parts += [f"{level}={{}}"] if level in levels else self._values(level)
        # Nothing else in it is a brace: all values are quoted.
        pattern = "/?" + "&".join(parts)
        return lambda *values: pattern.format(*map(quoted, values))

    def period_hrefs(self) -> Callable[[str], str]:
        """Links to this view over each preset; what they have in common is written once."""
        same = [*self._what(), *self._values(*LEVELS)]
        return lambda period: "/" + _search([*_preset(period), *same])

    def only(self, **chosen: str) -> Address:
        """With these dimensions fixed to one value each."""
        kept = [(name, value) for name, values in self.filters if name not in chosen for value in values]
        return replace(self, filters=filters_from([*kept, *chosen.items()]))

    def without(self, *dimensions: str) -> Address:
        return replace(self, filters=tuple(f for f in self.filters if f[0] not in dimensions))

    def dropping(self, dimension: str, value: str) -> Address:
        pairs = [(name, v) for name, values in self.filters for v in values if (name, v) != (dimension, value)]
        return replace(self, filters=filters_from(pairs))

    def grouped(self, dimension: str) -> Address:
        return replace(self, group_by=None if dimension == self.pair[0] else dimension)

    def on(self, days: DateRange) -> Address:
        return replace(self, period=None, days=days)


def _search(parts: Sequence[str]) -> str:
    return "?" + "&".join(parts) if parts else ""


def _preset(period: str) -> list[str]:
    return [] if period == DEFAULT_PERIOD else [f"period={quoted(period)}"]


@lru_cache(maxsize=4096)
def quoted(text: str) -> str:
    return quote_plus(text)


def read(search: str, today: date) -> Address:
    """What an address asks for on `today`. Never raises: each thing not understood becomes a notice."""
    given: dict[str, list[str]] = {}
    notices: list[str] = []
    for name, value in parse_qsl(search.removeprefix("?"), keep_blank_values=False, errors="replace"):
        if name in SINGLE or name in LEVELS:
            given.setdefault(name, []).append(value)
        else:
            notices.append(f"“{name[:40]}” is not a setting of this page and was ignored.")
    period, days = period_of(given, today, notices)
    return Address(
        days=days,
        period=period,
        metric=_one(given, "metric", COSTS, notices) or DEFAULT_METRIC,
        group_by=_one(given, "group_by", LEVELS, notices),
        filters=_filters(given, notices),
        notices=tuple(notices[:3]),
    )


def written(pairs: Iterable[tuple[str, object]]) -> str:
    """The query string of name and value pairs as Dash hands them to a layout."""
    return "?" + urlencode([(name, str(value)) for name, value in pairs if value is not None])


def period_of(
    given: dict[str, list[str]], today: date, notices: list[str], default: str = DEFAULT_PERIOD
) -> tuple[str | None, DateRange]:
    """The preset, None for fixed days, and the days it means; `default` is a number of days, `30d`."""
    try:
        if "start" in given or "end" in given:
            return None, _fixed(given)
        period = given.get("period", [default])[0]
        return period, preset(period, today)
    except InvalidInput as error:
        notices.append(f"{error.message} The last {default[:-1]} days are shown.")
        return default, preset(default, today)


def _fixed(given: dict[str, list[str]]) -> DateRange:
    for name in ("start", "end"):
        if name not in given:
            raise InvalidInput(f"{name} is missing: a fixed period needs start and end.", field=name)
    days = DateRange(day_from(given["start"][0], "start"), day_from(given["end"][0], "end"))
    if len(days) > MOST_DAYS:
        raise InvalidInput(f"{days.start} to {days.end} is {len(days):,} days; a page shows at most {MOST_DAYS:,}.")
    return days


def _one(given: dict[str, list[str]], name: str, allowed: tuple[str, ...], notices: list[str]) -> str | None:
    try:
        return choice(name, given[name][0], allowed) if name in given else None
    except InvalidInput as error:
        notices.append(error.message)
        return None


def _filters(given: dict[str, list[str]], notices: list[str]) -> tuple[tuple[str, tuple[str, ...]], ...]:
    try:
        return filters_from(_pairs(given))
    except InvalidInput as error:
        notices.append(error.message)
        return ()


def _pairs(given: dict[str, list[str]]) -> Iterable[tuple[str, str]]:
    return ((level, value) for level in LEVELS for value in given.get(level, []))
