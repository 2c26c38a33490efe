"""Processes of their own, forked from a server that has no threads and has imported what they need.

A spawned process imports all of it again, for seconds each: longer than what it is asked to do.
"""

from __future__ import annotations

import multiprocessing
from functools import cache
from multiprocessing.context import ForkServerContext

IMPORTED = ["app.adapters.sqlite", "app.adapters.mongodb", "tests.contracts.metadata", "tests.faults.test_notifier"]


@cache
def context() -> ForkServerContext:
    """The server starts with the first process, and ends with the process of the tests."""
    found = multiprocessing.get_context("forkserver")
    found.set_forkserver_preload(IMPORTED)
    return found
