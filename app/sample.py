"""Writing the sample organisation's files: `costs/YYYY-MM-DD.csv` and `labels.json`."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path
from typing import Final

from app.core.sample import Organisation, organisation
from app.errors import InvalidInput

LABELS: Final = "labels.json"


@dataclass(frozen=True)
class Told:
    """What a directory's labels say of the sample in it."""

    seed: int
    first_day: date
    anchor: date


def generate(out: Path, *, days: int, seed: int, today: date) -> int:
    """Bring the sample below `out` up to yesterday as known `today`; how many daily files changed.

    Run again later it adds the new days and restates those that were settling: the story goes on from where it was
    first told. `days` may grow and take in earlier days; it never takes days away. Raises InvalidInput when `out`
    holds another sample, or cost files that are no sample at all, and OSError when it cannot be written.
    """
    told = _told(out)
    if told is None and any((out / "costs").glob("*.csv*")):
        raise InvalidInput(f"{out / 'costs'} holds cost files that are not the sample's. Choose another directory.")
    if told and told.seed != seed:
        raise InvalidInput(
            f"{out} holds the sample of seed {told.seed}, not {seed}. Choose another directory, or remove this one.",
            field="seed",
        )
    sample = _sample(told, days, seed, today)
    (out / "costs").mkdir(parents=True, exist_ok=True)
    # First, so that files of a run that was stopped are known to be the sample's.
    _put(out / LABELS, json.dumps(sample.labels(), indent=1).encode() + b"\n")
    count = (sample.last_day - sample.first_day).days + 1
    written = (sample.first_day + timedelta(days=n) for n in range(count))
    return sum(_put(out / "costs" / f"{day}.csv", sample.day_csv(day, today)) for day in written)


def _sample(told: Told | None, days: int, seed: int, today: date) -> Organisation:
    last = today - timedelta(days=1)
    if told is None:
        return organisation(seed, days, last)
    first = min(told.first_day, last - timedelta(days=days - 1))
    return organisation(seed, (last - first).days + 1, last, anchor=told.anchor)


def _told(out: Path) -> Told | None:
    try:
        labels = json.loads((out / LABELS).read_bytes())
        first, anchor = date.fromisoformat(labels["first_day"]), date.fromisoformat(labels["anchor"])
        return Told(int(labels["seed"]), first, anchor)
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError):
        raise InvalidInput(f"{out / LABELS} is not the sample's. Choose another directory, or remove it.") from None


def _put(path: Path, data: bytes) -> bool:
    """Replace a file at once, unless it holds these bytes already; whether it did."""
    if path.exists() and path.read_bytes() == data:
        return False
    new = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        new.write_bytes(data)
        new.replace(path)
    finally:
        new.unlink(missing_ok=True)
    return True
