"""The address of the Data page: which days, which accounts, and what is open at the side. See app.pages.address.

assets/50-data.js writes the same addresses when a control or a cell is used.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import date
from typing import Final
from urllib.parse import parse_qsl

from app.core.periods import DateRange, day_from
from app.core.query import choice, filters_from, whole
from app.errors import InvalidInput
from app.pages.address import period_of, quoted

PATH: Final = "/data"
DEFAULT_PERIOD: Final = "90d"
PERIODS: Final = {
    "30d": ("30d", "Last 30 days"),
    "90d": ("90d", "Last 90 days"),
    "180d": ("180d", "Last 180 days"),
    "12m": ("12m", "Last 12 months"),
    "730d": ("2y", "Last two years"),
}
"""Preset → short label, full label."""

NOTICES, RESTATEMENTS, RECONCILIATION = "notices", "restatements", "reconciliation"
SHOWN: Final = (NOTICES, RESTATEMENTS, RECONCILIATION)
"""What the panel on how far figures can be trusted shows; the first unless the address says."""

MOST_MONTHS: Final = 13
SINGLE: Final = ("period", "start", "end", "show", "month", "backfill", "day", "of", "ingestion")
MOST_NAME: Final = 200


@dataclass(frozen=True)
class Address:
    """`period` is None when the days are fixed. `day` is open at the side, `of` the account pointed at there.

    `month` (its first day) is what is reconciled; `backfill` are the months whose price is asked.
    """

    days: DateRange
    period: str | None = DEFAULT_PERIOD
    accounts: tuple[str, ...] = ()
    show: str = NOTICES
    month: date | None = None
    backfill: int | None = None
    day: date | None = None
    of: str | None = None
    ingestion: str | None = None
    notices: tuple[str, ...] = ()

    def search(self) -> str:
        """The canonical query string, `""` for the default view."""
        parts: list[str] = []
        if self.period is None:
            parts += [f"start={self.days.start}", f"end={self.days.end}"]
        elif self.period != DEFAULT_PERIOD:
            parts.append(f"period={quoted(self.period)}")
        parts += [f"account={quoted(name)}" for name in self.accounts]
        parts += [f"show={self.show}"] if self.show != NOTICES else []
        parts += [f"month={self.month:%Y-%m}"] if self.month else []
        parts += [f"backfill={self.backfill}"] if self.backfill else []
        if self.day is not None:
            parts.append(f"day={self.day}")
            parts += [f"of={quoted(self.of)}"] if self.of else []
            parts += [f"ingestion={quoted(self.ingestion)}"] if self.ingestion else []
        return "?" + "&".join(parts) if parts else ""

    def href(self) -> str:
        return PATH + self.search()

    def at(self, day: date | None, *, of: str | None = None, ingestion: str | None = None) -> Address:
        """With this day open at the side; None closes it."""
        return replace(self, day=day, of=of, ingestion=ingestion)

    def only(self, *accounts: str) -> Address:
        return replace(self, accounts=accounts)


def read(search: str, today: date) -> Address:
    """What an address asks for on `today`. Never raises: each thing not understood becomes a notice."""
    given: dict[str, list[str]] = {}
    notices: list[str] = []
    for name, value in parse_qsl(search.removeprefix("?"), keep_blank_values=False, errors="replace"):
        if name in SINGLE or name == "account":
            given.setdefault(name, []).append(value)
        else:
            notices.append(f"“{name[:40]}” is not a setting of this page and was ignored.")
    period, days = period_of(given, today, notices, DEFAULT_PERIOD)
    day = _day(given, "day", notices)
    return Address(
        days=days,
        period=period,
        accounts=_accounts(given, notices),
        show=_shown(given, notices),
        month=_day({"month": [f"{given['month'][0]}-01"]}, "month", notices) if "month" in given else None,
        backfill=_months(given, notices),
        day=day,
        of=_name(given, "of") if day else None,
        ingestion=_name(given, "ingestion") if day else None,
        notices=tuple(notices[:3]),
    )


def _day(given: dict[str, list[str]], name: str, notices: list[str]) -> date | None:
    try:
        return day_from(given[name][0], name) if name in given else None
    except InvalidInput as error:
        notices.append(error.message)
        return None


def _shown(given: dict[str, list[str]], notices: list[str]) -> str:
    try:
        return choice("show", given["show"][0], SHOWN) if "show" in given else NOTICES
    except InvalidInput as error:
        notices.append(error.message)
        return NOTICES


def _months(given: dict[str, list[str]], notices: list[str]) -> int | None:
    try:
        return whole("backfill", given["backfill"][0], 1, MOST_MONTHS) if "backfill" in given else None
    except InvalidInput as error:
        notices.append(error.message)
        return None


def _accounts(given: dict[str, list[str]], notices: list[str]) -> tuple[str, ...]:
    try:
        return dict(filters_from(("account", value) for value in given.get("account", []))).get("account", ())
    except InvalidInput as error:
        notices.append(error.message)
        return ()


def _name(given: dict[str, list[str]], name: str) -> str | None:
    """A longer one is nobody's."""
    return given[name][0][:MOST_NAME] if name in given else None
