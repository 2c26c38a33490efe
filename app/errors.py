"""Everything Spendscope raises on purpose.

SpendscopeError                  carries an HTTP status, a stable code and one sentence for a person
├── InvalidInput        400      a parameter, an option or a body: names the thing, the value, the way out
├── Unauthenticated     401      nobody is signed in, or the token is none
├── Forbidden           403      somebody is, and may not do this
├── NotFound            404      it is not there, or it is not yours
├── Conflict            409      somebody else changed it first, or it cannot be done in this state
├── Refused             422      understood, and not done: for example a backfill beyond retention
├── TooMany             429      more often than is allowed; try again later
├── Unavailable         503      a part Spendscope stands on does not answer; try again later
│   └── BadCredentials  503      it answers, and does not let us in; trying again will not help
├── Quarantined         422      a cost file that cannot be taken whole (core.dailycsv says where and why)
└── CannotStart          -       a setting or the machine; printed as one line, exit code 2
"""

from __future__ import annotations

from dataclasses import dataclass


class SpendscopeError(Exception):
    """Base of everything raised on purpose; `str()` is the sentence shown to a person."""

    status = 500
    code = "error"

    def __init__(self, message: str, *, code: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        if code is not None:
            self.code = code


class InvalidInput(SpendscopeError):
    status = 400
    code = "invalid_input"

    def __init__(self, message: str, *, field: str | None = None, code: str | None = None) -> None:
        super().__init__(message, code=code)
        self.field = field


class Unauthenticated(SpendscopeError):
    status = 401
    code = "unauthenticated"


class Forbidden(SpendscopeError):
    status = 403
    code = "forbidden"


class TooMany(SpendscopeError):
    """`retry_after` is in seconds."""

    status = 429
    code = "too_many_requests"

    def __init__(self, message: str, *, retry_after: int) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class NotFound(SpendscopeError):
    status = 404
    code = "not_found"


class Conflict(SpendscopeError):
    status = 409
    code = "conflict"


class Refused(SpendscopeError):
    status = 422
    code = "refused"


class Unavailable(SpendscopeError):
    """`part` is what /readyz calls it; `retry_after` is in seconds."""

    status = 503
    code = "unavailable"

    def __init__(self, part: str, message: str, *, retry_after: int = 15) -> None:
        super().__init__(message)
        self.part = part
        self.retry_after = retry_after


class BadCredentials(Unavailable):
    code = "bad_credentials"


class CannotStart(SpendscopeError):
    code = "cannot_start"


@dataclass(frozen=True)
class Reason:
    """Why a cost file was not taken: what the ledger keeps, the API answers and the page shows.

    `line` counts from 1 and includes the header; `value` is at most 80 safe characters of the cell.
    """

    code: str
    message: str
    line: int | None = None
    column: str | None = None
    value: str | None = None


class Quarantined(SpendscopeError):
    status = 422
    code = "quarantined"

    def __init__(self, reason: Reason) -> None:
        super().__init__(reason.message, code=reason.code)
        self.reason = reason
