"""`spendscope web` that waits a second for a request, not twenty: `python -m tests.faults.impatient_web`."""

from __future__ import annotations

import sys

import app.connections
from app.cli import main

if __name__ == "__main__":
    app.connections.READ_SECONDS = 1.0  # type: ignore[misc]
    sys.argv = ["spendscope", "web"]
    main()
