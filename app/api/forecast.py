"""How spend goes on: the current month's end, and the days to come."""

from __future__ import annotations

from decimal import Decimal
from typing import Final

import numpy as np
from flask import Response

from app import costs as figures
from app.api.costs import METRIC, freshness_model
from app.api.models import Expected, Forecast, ForecastDay, Month, exact_text
from app.api.routes import Arguments, Parameter, Route, answered
from app.backends import Backends, current
from app.budgets import LEARNED, spend_of
from app.core.amounts import text
from app.core.charges import DEFAULT_METRIC, METRICS
from app.core.periods import DAY, DateRange, month_of, next_month
from app.core.projection import BAND, NotProjected, Projection, dollars, project
from app.core.query import choice, whole
from app.core.spend import SCOPE_PARTS, SpendScope

DAYS: Final = 30
MOST_DAYS: Final = 366


def forecast(given: Arguments) -> Response:
    scope = SpendScope.of(**{part: given.all(part) for part in SCOPE_PARTS})
    metric = choice("metric", given.first("metric") or DEFAULT_METRIC, METRICS)
    days = whole("days", given.first("days") or str(DAYS), 1, MOST_DAYS)
    return answered(forecast_of(current(), scope, metric, days))


def forecast_of(backends: Backends, scope: SpendScope, metric: str, days: int) -> Forecast:
    """The month that today is in, and so many days from today on."""
    now, today = figures.snapshot(backends), backends.today()
    month = DateRange(month_of(today), next_month(today))
    spend = spend_of(now, scope, metric, DateRange(month.start - LEARNED, today + DAY))
    of_month, of_days = project(spend, month), project(spend, DateRange(today, today + days * DAY))
    return Forecast(
        month=None if isinstance(of_month, NotProjected) else _month(month, spend.over(month).total, of_month),
        days=[] if isinstance(of_days, NotProjected) else _days(of_days),
        reason=of_month.reason if isinstance(of_month, NotProjected) else None,
        band=round(BAND[1] - BAND[0], 2),
        currency=now.currency,
        data_version=now.rollup.version,
        freshness=freshness_model(now.ledgers.freshness(month)),
    )


def _month(days: DateRange, spent: Decimal | None, found: Projection) -> Month:
    return Month(start=days.start, end=days.end, spent=exact_text(spent), total=_expected(found, len(days) - 1))


def _days(found: Projection) -> list[ForecastDay]:
    amounts = np.diff(found.middle, prepend=0.0).tolist()
    return [
        ForecastDay(date=day, amount=dollars(amount), sum=_expected(found, place))
        for place, (day, amount) in enumerate(zip(found.days, amounts, strict=True))
    ]


def _expected(found: Projection, place: int) -> Expected:
    middle, low, high = (text(dollars(sums[place])) for sums in (found.middle, found.low, found.high))
    return Expected(expected=middle, low=low, high=high)


ROUTES: Final = (
    Route(
        "GET",
        "/api/v1/costs/forecast",
        forecast,
        "How spend goes on",
        Forecast,
        about="The end of the current month and the days from today on, each with a band measured on the history: "
        "docs/budgets.md says how. Days that are not complete count what they have and at least what is expected of them.",
        parameters=(
            Parameter(
                "days",
                "So many days from today on.",
                {"type": "integer", "minimum": 1, "maximum": MOST_DAYS, "default": DAYS},
            ),
            METRIC,
            *(Parameter(name, f"Only this {name}; repeat it for several.", repeated=True) for name in SCOPE_PARTS),
        ),
        problems=(400,),
    ),
)
