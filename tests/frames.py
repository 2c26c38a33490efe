"""Parts of an answer (app.core.rollup.CostFrame) that is written down rather than asked for."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from app.core.rollup import Labels


def labels_of(groups: Sequence[tuple[str, ...]]) -> Labels:
    """Of at least one group."""
    columns = list(zip(*groups, strict=True))
    texts = tuple(tuple(dict.fromkeys(column)) for column in columns)
    places = (np.array([known.index(value) for value in column]) for known, column in zip(texts, columns, strict=True))
    return Labels(texts, tuple(places))
