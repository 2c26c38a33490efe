"""Which id a request goes by: the one its caller gave it, where that is well formed, so that both logs say the same."""

from __future__ import annotations

import re
from typing import Final

GIVEN: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._~-]{7,63}", re.ASCII)
"""8 to 64 letters that need no escaping anywhere: UUIDs, ULIDs, hex."""

TRACEPARENT: Final = re.compile(r"(?!ff)[0-9a-f]{2}-([0-9a-f]{32})-([0-9a-f]{16})-[0-9a-f]{2}(?:-.*)?", re.ASCII)
"""W3C Trace Context; the group is the trace id."""


def request_id_from(given: str | None, traceparent: str | None) -> str | None:
    """The caller's X-Request-Id, else the trace id of its traceparent; None when neither is well formed."""
    if given and GIVEN.fullmatch(given):
        return given
    found = TRACEPARENT.fullmatch(traceparent) if traceparent else None
    if found is None or not int(found[1], 16) or not int(found[2], 16):
        return None
    return found[1]
