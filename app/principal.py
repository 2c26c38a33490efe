"""Who asks, in a request that app.gate has let through."""

from __future__ import annotations

from flask import g, has_request_context

from app.core.access import LOCAL, Principal


def principal() -> Principal:
    """The principal of this request; this machine's own outside one, and where no gate stands."""
    found: Principal = g.get("spendscope_principal", LOCAL) if has_request_context() else LOCAL
    return found
