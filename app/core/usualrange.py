"""Between what a series usually lies, for a chart: the detector's own band is kept only for the days of an anomaly."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from app.core.robust import MAD, Floats

WEEK: Final = 7
WEEKS: Final = 6
SPREADS: Final = 3.0


@dataclass(frozen=True)
class Usual:
    """[day] each; NaN where there is too little to tell."""

    middle: Floats
    low: Floats
    high: Floats


def usual_range(values: Floats, until: int) -> Usual:
    """Median of the same weekday over the six weeks before each day, three spreads around it (Leys et al. 2013).

    `values` is [day], NaN for unknown. Days from `until` on teach nothing: they are what is judged. Spreads are of all
    weekdays together, each against its median, and nothing is expected below zero unless it was.
    """
    middle = np.full(len(values), np.nan)
    taught = values.copy()
    taught[max(until, 0) :] = np.nan
    for day in range(len(values)):
        middle[day] = _middle(taught, day)
    off = np.abs(taught - middle)
    known = off[~np.isnan(off)]
    half = SPREADS * MAD * float(np.median(known)) if len(known) >= WEEK else np.nan
    low = np.where(middle >= 0, np.maximum(middle - half, 0), middle - half)
    return Usual(middle, low, middle + half)


def _middle(taught: Floats, day: int) -> float:
    """Of the last WEEKS days of that weekday which teach something."""
    alike = taught[day % WEEK : day : WEEK]
    known = alike[~np.isnan(alike)][-WEEKS:]
    return float(np.median(known)) if len(known) >= 2 else np.nan
