"""The daily CSV (DESIGN §4): one day of charges as a file, taken whole or quarantined whole."""

from __future__ import annotations

import re
from typing import Final

import pyarrow as pa

EXACT: Final = pa.decimal128(38, 20)
TEXT: Final = pa.dictionary(pa.int32(), pa.string())

SCHEMA: Final = pa.schema(
    [
        ("provider", TEXT),
        ("account", TEXT),
        ("service", TEXT),
        ("region", TEXT),
        ("charge_category", TEXT),
        ("amortized_cost", EXACT),
        ("blended_cost", EXACT),
        ("unblended_cost", EXACT),
        ("usage_quantity", EXACT),
        ("usage_unit", TEXT),
        ("estimated", pa.bool_()),
    ]
)
"""Charges of one day. The day and the currency belong to the file; only `blended_cost` may be null."""

FILE_NAME: Final = re.compile(r"(\d{4}-\d{2}-\d{2})\.csv(\.gz)?")
PARSER: Final = 1
"""Version of these rules: a file quarantined by older ones is worth reading again."""
