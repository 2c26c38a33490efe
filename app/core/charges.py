"""A charge: one row of cost and usage, and the words for its parts (Cost Explorer's, as in DESIGN §4)."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal
from typing import Final

DIMENSIONS: Final = ("provider", "account", "service", "region", "charge_category")
"""With the day, the key of a charge; always all written, in every store."""

METRICS: Final = ("amortized_cost", "blended_cost", "unblended_cost", "usage_quantity")
COSTS: Final = METRICS[:3]
DEFAULT_METRIC: Final = "amortized_cost"
MAY_BE_ABSENT: Final = "blended_cost"
"""The one measure that may be empty: FOCUS has no blended cost. It is "not available" then, never 0."""

DEFAULTS: Final = {
    "provider": "aws",
    "account": "unknown",
    "service": "unknown",
    "region": "global",
    "charge_category": "unknown",
}


@dataclass(frozen=True, slots=True)
class Totals:
    """Exact sums over some charges; `blended_cost` is None as soon as one of them has none."""

    rows: int
    amortized_cost: Decimal
    blended_cost: Decimal | None
    unblended_cost: Decimal
    usage_quantity: Decimal

    def of(self, metric: str) -> Decimal | None:
        value: Decimal | None = getattr(self, metric)
        return value


NOTHING: Final = Totals(0, Decimal(0), Decimal(0), Decimal(0), Decimal(0))
