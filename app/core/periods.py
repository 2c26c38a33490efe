"""Days, half-open ranges of them, and the buckets a range falls into. UTC days only; the clock is passed in."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Final

from app.errors import InvalidInput

DAY: Final = timedelta(days=1)
GRANULARITIES: Final = ("daily", "weekly", "monthly", "total")
EARLIEST, LATEST = date(2000, 1, 1), date(2100, 1, 1)


@dataclass(frozen=True, order=True)
class DateRange:
    """[start, end): `end` is the first day that is not in it, as in Cost Explorer."""

    start: date
    end: date

    def __post_init__(self) -> None:
        if self.start >= self.end:
            raise InvalidInput(
                f"start {self.start} is not before end {self.end}. end is exclusive: for one day, give the next day.",
                field="end",
            )

    def __len__(self) -> int:
        return (self.end - self.start).days

    def __iter__(self) -> Iterator[date]:
        return (self.start + timedelta(days=n) for n in range(len(self)))

    def __contains__(self, day: date) -> bool:
        return self.start <= day < self.end

    @property
    def last(self) -> date:
        """The last day that is in it, for people."""
        return self.end - DAY

    def before(self) -> DateRange:
        """The same number of days just before."""
        return DateRange(self.start - timedelta(days=len(self)), self.start)

    def months(self) -> list[date]:
        """The first days of the months it touches."""
        first, found = month_of(self.start), []
        while first < self.end:
            found.append(first)
            first = next_month(first)
        return found


def day_from(text: str, field: str) -> date:
    """An ISO date `YYYY-MM-DD` between 2000 and 2100. Raises InvalidInput naming the field and the value."""
    try:
        day = date.fromisoformat(text)
    except ValueError:
        day = None
    # Python also reads `2024-W36-1`.
    if day is None or text != str(day) or not EARLIEST <= day <= LATEST:
        raise InvalidInput(
            f"{field} {text[:40]!r} is not a date. Write it as YYYY-MM-DD, between {EARLIEST} and {LATEST}.",
            field=field,
        )
    return day


def month_of(day: date) -> date:
    return day.replace(day=1)


def next_month(day: date) -> date:
    return (day.replace(day=28) + timedelta(days=4)).replace(day=1)


def bucket_of(day: date, granularity: str) -> date:
    """First day of the bucket: weeks start on Monday. `total` has one bucket and is not asked here."""
    if granularity == "weekly":
        return day - timedelta(days=day.weekday())
    return month_of(day) if granularity == "monthly" else day


def preset(period: str, today: date) -> DateRange:
    """A relative period of a page: `7d`, `30d`, `90d`, `mtd`, `lm` (last month), `12m`; days end with yesterday.

    Today itself has almost no cost yet in any provider's data, so ranges end with the last full UTC day.
    """
    if period == "mtd":
        return DateRange(month_of(today - DAY), today)
    if period == "lm":
        first = month_of(today)
        return DateRange(month_of(first - DAY), first)
    if period == "12m":
        first = month_of(today)
        return DateRange(first.replace(year=first.year - 1), today)
    if period.endswith("d") and period[:-1].isascii() and period[:-1].isdigit() and 1 <= int(period[:-1]) <= 800:
        return DateRange(today - timedelta(days=int(period[:-1])), today)
    raise InvalidInput(
        f"period {period[:40]!r} is unknown. Use 7d, 30d, 90d (any number of days up to 800), mtd, lm or 12m.",
        field="period",
    )
