"""Budgets: what may be spent in a scope in each month, quarter or year, what was, and what will be."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date, datetime
from decimal import Decimal
from typing import Final, Literal

from app.core.charges import COSTS, DEFAULT_METRIC
from app.core.exact import EXACT
from app.core.periods import DateRange, next_month
from app.core.query import choice
from app.core.spend import EVERYTHING, SpendScope
from app.errors import InvalidInput

BudgetPeriod = Literal["monthly", "quarterly", "yearly"]
BUDGET_PERIODS: Final[tuple[BudgetPeriod, ...]] = ("monthly", "quarterly", "yearly")
MONTHS: Final = {"monthly": 1, "quarterly": 3, "yearly": 12}
Of = Literal["actual", "forecast"]
OFS: Final[tuple[Of, ...]] = ("actual", "forecast")

CENT: Final = Decimal("0.01")
MOST_NAME: Final = 100
MOST_AMOUNT: Final = Decimal("1e15")
MOST_PERCENT: Final = Decimal(1000)
MOST_THRESHOLDS: Final = 10
MOST_DECIMALS: Final = 2


@dataclass(frozen=True, order=True)
class Threshold:
    """`percent` of the amount, reached by what was spent (`actual`) or by what will be at the period's end."""

    percent: Decimal
    of: Of = "actual"


USUAL_THRESHOLDS: Final = (Threshold(Decimal(80)), Threshold(Decimal(100)), Threshold(Decimal(100), "forecast"))


@dataclass(frozen=True)
class Budget:
    """`amount` in the deployment's currency for each period. `owners`: the accounts whose channels are told; none: all.

    `revision` is the compare-and-set token of a change; `by` and `at` say who made the last one.
    """

    id: str
    name: str
    amount: Decimal
    at: datetime
    by: str
    scope: SpendScope = EVERYTHING
    metric: str = DEFAULT_METRIC
    period: BudgetPeriod = "monthly"
    thresholds: tuple[Threshold, ...] = USUAL_THRESHOLDS
    owners: tuple[str, ...] = ()
    revision: int = 1

    def current(self, day: date) -> DateRange:
        """The period that a day is in."""
        months = MONTHS[self.period]
        first = date(day.year, (day.month - 1) // months * months + 1, 1)
        end = first
        for _ in range(months):
            end = next_month(end)
        return DateRange(first, end)

    def seen_by(self, accounts: frozenset[str]) -> bool:
        """Whole or not at all."""
        return self.scope.inside(accounts) and accounts.issuperset(self.owners)


def of_everything_a_month(budgets: Iterable[Budget]) -> Budget | None:
    """The smallest monthly one of all accounts, services and regions in the default metric: what Grafana's budget rules,
    which know no scope, can be about."""
    whole = [one for one in budgets if (one.scope, one.metric, one.period) == (EVERYTHING, DEFAULT_METRIC, "monthly")]
    return min(whole, key=lambda one: one.amount, default=None)


def percent_of(spent: Decimal, amount: Decimal) -> Decimal:
    """To four decimals."""
    return EXACT.divide(EXACT.multiply(spent, Decimal(100)), amount).quantize(Decimal("0.0001"), context=EXACT)


def checked_budget(budget: Budget) -> Budget:
    """Raises InvalidInput naming the member, its value and the way out."""
    name_from(budget.name)
    choice("metric", budget.metric, COSTS)
    choice("period", budget.period, BUDGET_PERIODS)
    amount_from("amount", budget.amount, least=CENT)
    if len(budget.thresholds) > MOST_THRESHOLDS:
        raise InvalidInput(
            f"thresholds has {len(budget.thresholds)} of them; at most {MOST_THRESHOLDS}.", field="thresholds"
        )
    for threshold in budget.thresholds:
        choice("of", threshold.of, OFS)
        percent_from("percent", threshold.percent)
    if len(set(budget.thresholds)) < len(budget.thresholds):
        raise InvalidInput("thresholds names one of them twice.", field="thresholds")
    return budget


def name_from(text: str) -> str:
    if not text.strip() or len(text) > MOST_NAME or not text.isprintable():
        raise InvalidInput(f"name {text[:40]!r} is not one line of 1 to {MOST_NAME} characters.", field="name")
    return text


def amount_from(field: str, value: Decimal, *, least: Decimal) -> Decimal:
    """At most two decimals: what a person would write."""
    if not value.is_finite() or not least <= value < MOST_AMOUNT or -_exponent(value) > MOST_DECIMALS:
        raise InvalidInput(
            f"{field} {str(value)[:40]} is not an amount of at least {least} with at most two decimals.", field=field
        )
    return value


def percent_from(field: str, value: Decimal) -> Decimal:
    if not value.is_finite() or not 0 < value <= MOST_PERCENT or -_exponent(value) > MOST_DECIMALS:
        raise InvalidInput(
            f"{field} {str(value)[:40]} is not more than 0 and at most {MOST_PERCENT}, with at most two decimals.",
            field=field,
        )
    return value


def _exponent(value: Decimal) -> int:
    exponent = value.normalize().as_tuple().exponent
    return exponent if isinstance(exponent, int) else 0
