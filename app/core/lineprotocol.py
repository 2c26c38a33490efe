"""A day's charges as InfluxDB line protocol, made column by column: tags are escaped once a value, not once a line."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, date, datetime
from typing import TYPE_CHECKING, Any, Final

from app.core.amounts import text
from app.core.anomalyrecords import AnomalyRecord
from app.core.charges import DIMENSIONS, MAY_BE_ABSENT, METRICS
from app.core.columns import columns_of, narrowed
from app.errors import Quarantined, Reason

if TYPE_CHECKING:
    import pyarrow as pa

MEASUREMENT: Final = "cost"
ANOMALIES: Final = "anomaly"
"""The measurement of detected anomalies."""
EVERYTHING: Final = "all"
"""The value of a dimension over all of which an anomaly goes: no tag is ever left out."""
ANOMALY_TAGS: Final = tuple(sorted((*DIMENSIONS, "kind", "severity")))
BLOCK_LINES: Final = 5_000
_TAGS: Final = tuple(sorted(DIMENSIONS))
"""In the order InfluxDB keeps them."""
_FIELDS: Final = tuple(metric for metric in METRICS if metric != MAY_BE_ABSENT)


def seconds(day: date) -> int:
    """The timestamp of a day's points: 00:00:00Z, precision s."""
    return int(datetime(day.year, day.month, day.day, tzinfo=UTC).timestamp())


def blocks_of(day: date, charges: pa.Table) -> Iterator[bytes]:
    """Blocks of lines of a tidied table (core.columns). Amounts are written digit by digit, never through a float.

    Raises Quarantined for text that line protocol cannot carry.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    if not len(charges):
        return
    table = narrowed(charges, columns_of(day, charges))
    parts: list[Any] = [MEASUREMENT, *(_tag(name, table[name].chunk(0)) for name in _TAGS)]
    for separator, metric in zip(" ,,", _FIELDS, strict=True):
        parts += [f"{separator}{metric}=", table[metric].chunk(0).cast(pa.string())]
    absent = table[MAY_BE_ABSENT].chunk(0).cast(pa.string())
    parts.append(pc.fill_null(pc.binary_join_element_wise(f",{MAY_BE_ABSENT}=", absent, ""), ""))
    lines = pc.binary_join_element_wise(*parts, f" {seconds(day)}\n", "")
    for first in range(0, len(lines), BLOCK_LINES):
        yield "".join(lines[first : first + BLOCK_LINES].to_pylist()).encode()


def zero_blocks(day: date, points: Iterable[tuple[Sequence[str], bool]]) -> Iterator[bytes]:
    """Explicit zeros for points (values in the order of DIMENSIONS, whether it has a blended cost) that vanished."""
    lines = []
    for values, blended in points:
        given = dict(zip(DIMENSIONS, values, strict=True))
        tags = "".join(f",{name}={escaped(name, given[name])}" for name in _TAGS)
        fields = ",".join(f"{metric}=0" for metric in METRICS if blended or metric != MAY_BE_ABSENT)
        lines.append(f"{MEASUREMENT}{tags} {fields} {seconds(day)}\n")
    for first in range(0, len(lines), BLOCK_LINES):
        yield "".join(lines[first : first + BLOCK_LINES]).encode()


def anomaly_tags(record: AnomalyRecord) -> dict[str, str]:
    scope = {part: value or EVERYTHING for part, value in record.scope.parts()}
    return dict.fromkeys(DIMENSIONS, EVERYTHING) | scope | {"kind": record.kind, "severity": record.severity}


def anomaly_line(record: AnomalyRecord) -> str:
    """The point of an anomaly, at the day it is about. Raises Quarantined for text that line protocol cannot carry."""
    given = anomaly_tags(record)
    tags = "".join(f",{name}={escaped(name, given[name])}" for name in ANOMALY_TAGS)
    fields = ",".join(f"{name}={text(getattr(record, name))}" for name in ("actual", "expected", "impact"))
    return f"{ANOMALIES}{tags} {fields} {seconds(record.date)}\n"


_ESCAPES: Final[Mapping[int, str]] = str.maketrans({",": "\\,", "=": "\\=", " ": "\\ "})


def escaped(name: str, value: str) -> str:
    """A tag value. A backslash is itself unless it is last, where it would escape what follows the value.

    Line breaks end a line however they are written, and InfluxDB loses carriage returns when it answers.
    """
    if not value or value.endswith("\\") or "\n" in value or "\r" in value:
        raise Quarantined(
            Reason(
                "unstorable_text",
                f"{name} {value[:80]!r} cannot be kept by InfluxDB: text there is not empty, has no line break and does "
                "not end with a backslash. Correct it in the file, or leave INFLUXDB_URL unset to use the embedded store.",
                column=name,
                value=value[:80],
            )
        )
    return value.translate(_ESCAPES)


def _tag(name: str, array: Any) -> Any:
    import pyarrow as pa

    texts = pa.array([f",{name}={escaped(name, value)}" for value in array.dictionary.to_pylist()], pa.string())
    return texts.take(array.indices)
