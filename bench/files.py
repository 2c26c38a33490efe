"""Cost files to measure with: accounts × 50 services × 17 regions, a third of the combinations, ten decimals."""

from __future__ import annotations

import io
from datetime import date

import numpy as np

SERVICES = [f"Amazon Service {number}" for number in range(49)] + ["Amazon Elastic Compute Cloud, Other"]
REGIONS = [f"eu-region-{number}" for number in range(17)]


def combinations(accounts: int, share: float, seed: int) -> np.ndarray:
    """Positions in accounts × services × regions that have cost, sorted."""
    size = accounts * len(SERVICES) * len(REGIONS)
    return np.flatnonzero(np.random.default_rng(seed).random(size) < share)


def daily_csv(day: date, rows: int, *, seed: int = 1) -> bytes:
    """The bytes of a day with exactly `rows` rows."""
    accounts = max(1, round(rows / (len(SERVICES) * len(REGIONS)) / 0.33) + 1)
    places = combinations(accounts, 0.4, seed)[:rows]
    assert len(places) == rows, "too few combinations"
    costs = np.random.default_rng(seed + 1).lognormal(1, 2, len(places)).tolist()
    text = io.StringIO()
    text.write("date,account,service,region,amortized_cost,blended_cost,unblended_cost,usage_quantity\n")
    per_account = len(SERVICES) * len(REGIONS)
    names = [f'"{name}"' if "," in name else name for name in SERVICES]
    for place, cost in zip(places.tolist(), costs, strict=True):
        account, rest = divmod(place, per_account)
        service, region = divmod(rest, len(REGIONS))
        text.write(
            f"{day},{account + 100_000_000_000:012d},{names[service]},{REGIONS[region]},"
            f"{cost:.10f},{cost * 1.01:.10f},{cost * 0.9:.10f},{cost * 100:.6f}\n"
        )
    return text.getvalue().encode()
