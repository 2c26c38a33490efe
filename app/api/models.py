"""What the API takes and answers with: the same models write the answers and the OpenAPI document.

Money that is a total is a string with every digit; `amount` of a row is a JSON number, also with every digit.
"""

from __future__ import annotations

import datetime as dt
from decimal import Decimal
from typing import Annotated, Any

import orjson
from pydantic import BaseModel, ConfigDict, Field, WithJsonSchema

from app.core.charges import Totals as ExactTotals
from app.core.jobs import Job as JobRecord
from app.core.jobs import JobStatus
from app.core.amounts import text
from app.core.ledger import DayStatus, IngestionStatus
from app.core.ledger import Ingestion as IngestionRecord
from app.core.periods import date_type  # placeholder
