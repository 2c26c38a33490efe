"""Collections as work to be submitted: checked up front, priced before they begin, skipped where nothing is left to ask.

The work itself is done by a worker (workers.collecting), by `spendscope collect` or by the Lambda.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import date, datetime, timedelta
from typing import Any, Final

from app.backends import Backends
from app.core.collection import Estimate, asked, estimate, history, is_final, months_of
from app.core.costexplorer import accounts_from, coverage_of
from app.core.jobs import Job
from app.core.periods import DAY, DateRange
from app.core.query import CostQuery
from app.costs import dimension_values
from app.errors import Conflict, Quarantined, Refused
from app.jobs import submit
from app.ports import SourceObject

LOOKBACK: Final = timedelta(days=62)
"""How far back accounts and regions with cost are looked for when a collection is priced."""

READERS: Final = 8


def check_collectable(backends: Backends) -> None:
    """Raises Refused for the sample organisation, which has no Cost Explorer."""
    if backends.settings.serves_demo:
        raise Refused(
            "The sample organisation is made up: nothing can be collected for it. "
            "Set SPENDSCOPE_SOURCE to s3://bucket/costs/ or file:///dir/costs/."
        )


def collect_params(
    backends: Backends, start: str | None, end: str | None, accounts: Sequence[str] = ()
) -> dict[str, Any]:
    """Parameters of a `collect` job: the days, those of a daily run where none are said. Raises InvalidInput, Refused."""
    check_collectable(backends)
    settings = backends.settings
    days = asked(start, end, backends.today(), settings.collect_trailing_days, settings.collect_close_day)
    params: dict[str, Any] = {"start": str(days.start), "end": str(days.end)}
    return params | {"accounts": accounts_from(accounts)} if accounts else params


def backfill_params(backends: Backends, months: int) -> dict[str, Any]:
    """Parameters of a `backfill` job. Raises InvalidInput beyond Cost Explorer's reach, Refused beyond retention."""
    check_collectable(backends)
    days = history(months, backends.today(), backends.costs.oldest(backends.today()))
    return {"months": months, "start": str(days.start), "end": str(days.end)}


def days_of(params: Mapping[str, Any]) -> DateRange:
    return DateRange(date.fromisoformat(params["start"]), date.fromisoformat(params["end"]))


def submit_collection(backends: Backends, kind: str, params: Mapping[str, Any]) -> Job:
    """The same days and accounts are the same job while it is not done."""
    name = json.dumps([kind, backends.source.root, params], sort_keys=True)
    return submit(backends, kind, params, key=hashlib.sha256(name.encode()).hexdigest())


# --- what is left to ask, and its price ---------------------------------------------------------------------------


def price_of_backfill(backends: Backends, months: int, *, accounts: int | None = None) -> Estimate:
    """What a backfill would ask for now. `accounts` counts when no account is known yet. Raises as backfill_params."""
    days = days_of(backfill_params(backends, months))
    done = settled_days(backends, days)
    left = [hull for month in months_of(days) if (hull := unsettled(month, done)) is not None]
    known, regions = _known(backends, "account"), _known(backends, "region")
    return estimate(left, known or accounts or 1, regions or None)


def _known(backends: Backends, dimension: str) -> int:
    """How many values of it had cost lately."""
    days = DateRange(backends.today() - LOOKBACK, backends.today() + DAY)
    return len(dimension_values(backends, dimension, CostQuery(days)))


def unsettled(days: DateRange, done: frozenset[date]) -> DateRange | None:
    """From the first to the last of these days that is not done: one question asks for all of them."""
    left = [day for day in days if day not in done]
    return DateRange(left[0], left[-1] + DAY) if left else None


def settled_days(backends: Backends, days: DateRange, since: datetime | None = None) -> frozenset[date]:
    """Days that need not be asked for again: collected for every account after their month closed, or after `since`."""
    names = {f"{day}.csv": day for day in days}
    present = [found for found in backends.source.list() if found.key in names]
    with ThreadPoolExecutor(READERS, thread_name_prefix="settled") as pool:
        settled = list(pool.map(lambda found: _is_settled(backends, names[found.key], found, since), present))
    return frozenset(names[found.key] for found, done in zip(present, settled, strict=True) if done)


def _is_settled(backends: Backends, day: date, found: SourceObject, since: datetime | None) -> bool:
    try:
        beside = backends.source.sidecar(day)
        if beside is None:
            return False
        with backends.source.open(found) as stream:
            said = coverage_of(beside, stream.read())
    except (Conflict, Quarantined):
        return False
    if said is None or said.failed or said.collected is None:
        return False
    return is_final(day, said.collected, backends.settings.collect_close_day) or (
        since is not None and said.collected >= since.replace(microsecond=0)
    )
