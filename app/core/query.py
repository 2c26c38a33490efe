"""One question about cost: the URL, the API's arguments, the store's argument, the cache key, the export's name."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from app.core.charges import DEFAULT_METRIC, DIMENSIONS, METRICS
from app.core.periods import GRANULARITIES, DateRange, day_from
from app.errors import InvalidInput

FIELDS = ("start", "end", "metric", "granularity", "group_by", "top", *DIMENSIONS)
MOST_TOP = 1000


@dataclass(frozen=True)
class CostQuery:
    """Values in a filter are OR-ed, filters are AND-ed. `filters` holds (dimension, sorted values), sorted."""

    range: DateRange
    metric: str = DEFAULT_METRIC
    granularity: str = "daily"
    group_by: tuple[str, ...] = ()
    filters: tuple[tuple[str, tuple[str, ...]], ...] = ()
    top: int | None = None

    @classmethod
    def from_pairs(cls, pairs: Iterable[tuple[str, str]]) -> CostQuery:
        """Parse (name, value) pairs of a query string; `start` and `end` are required.

        Raises InvalidInput for an unknown name, a repeated single value or a value out of its list.
        """
        given: dict[str, list[str]] = {}
        for name, value in pairs:
            if name not in FIELDS:
                raise InvalidInput(
                    f"{name[:40]!r} is not a parameter here. Use one of: {', '.join(FIELDS)}.", field=name
                )
            given.setdefault(name, []).append(value)
        for name, values in given.items():
            if name not in DIMENSIONS and len(values) > 1:
                raise InvalidInput(f"{name} is given {len(values)} times; give it once.", field=name)
        for name in ("start", "end"):
            if name not in given:
                raise InvalidInput(f"{name} is missing. Give a date, for example {name}=2026-10-01.", field=name)
        return cls(
            range=DateRange(day_from(given["start"][0], "start"), day_from(given["end"][0], "end")),
            metric=choice("metric", given.get("metric", [DEFAULT_METRIC])[0], METRICS),
            granularity=choice("granularity", given.get("granularity", ["daily"])[0], GRANULARITIES),
            group_by=group_by_from(given.get("group_by", [""])[0]),
            filters=filters_from((name, value) for name in DIMENSIONS for value in given.get(name, [])),
            top=whole("top", given["top"][0], 1, MOST_TOP) if "top" in given else None,
        )

    def pairs(self) -> list[tuple[str, str]]:
        """The canonical query string of this question: equal questions give equal pairs."""
        found = [("start", str(self.range.start)), ("end", str(self.range.end)), ("metric", self.metric)]
        found.append(("granularity", self.granularity))
        if self.group_by:
            found.append(("group_by", ",".join(self.group_by)))
        found.extend((name, value) for name, values in self.filters for value in values)
        if self.top is not None:
            found.append(("top", str(self.top)))
        return found

    def values(self, dimension: str) -> tuple[str, ...]:
        return dict(self.filters).get(dimension, ())

    def grouped(self, *group_by: str) -> CostQuery:
        return replace(self, group_by=group_by)

    def over(self, days: DateRange) -> CostQuery:
        return replace(self, range=days)

    def measured(self, metric: str) -> CostQuery:
        return replace(self, metric=metric)

    def per(self, granularity: str) -> CostQuery:
        return replace(self, granularity=granularity)

    def without(self, *dimensions: str) -> CostQuery:
        """The same question without the filters on these dimensions."""
        return replace(self, filters=tuple(f for f in self.filters if f[0] not in dimensions))

    def file_name(self, extension: str) -> str:
        groups = "-".join(("by", *self.group_by)) if self.group_by else "all"
        return f"spendscope-{self.metric}-{self.granularity}-{groups}-{self.range.start}-{self.range.end}.{extension}"


def choice(field: str, value: str, allowed: tuple[str, ...]) -> str:
    if value not in allowed:
        raise InvalidInput(f"Unknown {field} {value[:40]!r}. Use one of: {', '.join(allowed)}.", field=field)
    return value


def whole(field: str, value: str, least: int, most: int) -> int:
    if not (value.isascii() and value.isdigit() and len(value) < 12 and least <= int(value) <= most):
        raise InvalidInput(f"{field} {value[:40]!r} is not a whole number from {least} to {most}.", field=field)
    return int(value)


def group_by_from(text: str) -> tuple[str, ...]:
    """`service,region` in the order given, each once."""
    names = tuple(name.strip() for name in text.split(",") if name.strip())
    for name in names:
        choice("group_by", name, DIMENSIONS)
    if len(set(names)) < len(names):
        raise InvalidInput(f"group_by {text[:40]!r} names a dimension twice.", field="group_by")
    return names


def filters_from(pairs: Iterable[tuple[str, str]]) -> tuple[tuple[str, tuple[str, ...]], ...]:
    """(dimension, value) pairs as canonical filters."""
    found: dict[str, set[str]] = {}
    for name, value in pairs:
        if len(value) > 1024:
            raise InvalidInput(f"{name} has a value of {len(value)} characters; at most 1024.", field=name)
        found.setdefault(name, set()).add(value)
    return tuple((name, tuple(sorted(found[name]))) for name in sorted(found))
