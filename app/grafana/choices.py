"""What a deployment chooses about its dashboards and alerts; the rest is the same everywhere."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from typing import Final

from app.config import Settings
from app.errors import InvalidInput

UNITS: Final = frozenset(
    [
        "USD",
        "GBP",
        "EUR",
        "JPY",
        "BRL",
        "DKK",
        "ISK",
        "NOK",
        "SEK",
        "CZK",
        "CHF",
        "PLN",
        "ZAR",
        "INR",
        "KRW",
        "IDR",
        "PHP",
        "VND",
        "TRY",
        "MYR",
        "BGN",
        "ILS",
        "UAH",
    ]
)
"""Currencies Grafana has a unit for; another one is shown as a suffix."""


@dataclass(frozen=True)
class Choices:
    public_url: str = "http://127.0.0.1:8050"
    """Where a browser reaches Spendscope: what links lead to. No slash at the end."""
    currency: str = "USD"
    settling_days: int = 2
    monthly_budget: Decimal | None = None
    """Of everything together, in the currency; without it the budget rules are paused."""

    @property
    def unit(self) -> str:
        """Grafana's id of the currency's unit."""
        return f"currency{self.currency}" if self.currency in UNITS else f"suffix: {self.currency}"


def choices_from(settings: Settings, monthly_budget: str | None = None) -> Choices:
    """Raises InvalidInput for a budget that is no amount."""
    return Choices(
        public_url=settings.public_url.rstrip("/"),
        currency=settings.currency,
        settling_days=settings.settling_days,
        monthly_budget=None if monthly_budget is None else _amount(monthly_budget),
    )


MOST: Final = Decimal(10**12)


def _amount(text: str) -> Decimal:
    try:
        amount = Decimal(text)
    except InvalidOperation:
        amount = Decimal(0)
    if not (amount.is_finite() and 0 < amount <= MOST):
        raise InvalidInput(
            f"--monthly-budget {text[:40]!r} is not an amount. Write it as 25000 or 1999.50, without currency or commas.",
            field="monthly_budget",
        )
    return amount
