"""Medians and spreads over arrays in which not every value counts."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]
Places = NDArray[np.int64]

MAD: Final = 1.4826
"""Median absolute deviation → standard deviation of a normal distribution."""


def median_over(values: Floats, counted: Flags) -> Floats:
    """Median along the last axis of the counted values; NaN where none is."""
    if not values.shape[-1]:
        return np.full(values.shape[:-1], np.nan)
    number = counted.sum(axis=-1)
    ordered = np.sort(np.where(counted, values, np.inf), axis=-1)
    low = np.maximum((number - 1) // 2, 0)
    high = np.minimum(number // 2, values.shape[-1] - 1)
    # Places in the flat array: take_along_axis builds an index of every axis, which costs more than the sorting.
    flat = np.arange(number.size).reshape(number.shape) * values.shape[-1]
    middle = (ordered.ravel()[flat + low] + ordered.ravel()[flat + high]) / 2
    return np.where(number > 0, middle, np.nan)


def spread_over(values: Floats, counted: Flags) -> Floats:
    """Robust standard deviation around 0 along the last axis; NaN where nothing counts."""
    return MAD * median_over(np.abs(values), counted)


def spread_of(values: Floats) -> float:
    """Robust standard deviation around 0 of all values; 0 for none."""
    return float(MAD * np.median(np.abs(values))) if values.size else 0.0


def weighted_median(values: Floats, weights: Floats) -> float:
    """The value at which half of the weight lies on either side. There must be one."""
    order = np.argsort(values)
    heap = np.cumsum(weights[order])
    return float(values[order][np.searchsorted(heap, heap[-1] / 2)])


def mean_where(values: Floats, counted: Flags) -> Floats:
    """Mean along the first axis of the counted values; 0 where none is."""
    found: Floats = np.where(counted, values, 0).sum(0) / np.maximum(counted.sum(0), 1)
    return found


def newest(counted: Flags, last: int) -> Flags:
    """Of the counted days (last axis) the newest `last` of each series."""
    found: Flags = counted & (counted[:, ::-1].cumsum(1)[:, ::-1] <= last)
    return found


def sums_up_to(values: NDArray[Any]) -> NDArray[Any]:
    """[series, day + 1]: the sum of all days before; a stretch's sum is the difference of two columns."""
    found: NDArray[Any] = np.cumsum(np.pad(values, ((0, 0), (1, 0))), axis=1)
    return found
