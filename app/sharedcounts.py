"""The folder in which a web server's processes add up their requests for /metrics, and what killed servers left of theirs.

prometheus_client keeps one file a process there, and wants to know where before its first import.
"""

from __future__ import annotations

import atexit
import fcntl
import os
import shutil
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Final

VARIABLE: Final = "PROMETHEUS_MULTIPROC_DIR"
PREFIX: Final = "spendscope-metrics-"
LOCK: Final = "lock"
"""Held by the server and by the workers forked from it, until the last of them has ended, however it ended."""


def count_together() -> None:
    """Make the folder, unless somebody has said where it is, and take away those that nobody uses any more."""
    if VARIABLE in os.environ:
        return
    _clear_abandoned(Path(tempfile.gettempdir()))
    folder, owner = Path(tempfile.mkdtemp(prefix=PREFIX)), os.getpid()
    _hold(folder)
    os.environ[VARIABLE] = str(folder)

    def clear() -> None:
        # Every process that was forked from this one ends here too.
        if os.getpid() == owner:
            shutil.rmtree(folder, ignore_errors=True)

    atexit.register(clear)


def _hold(folder: Path) -> None:
    """The lock is named once it is held: nobody can find it free before."""
    held = os.open(folder / f"{LOCK}.new", os.O_CREAT | os.O_RDWR, 0o600)
    fcntl.flock(held, fcntl.LOCK_EX)
    (folder / f"{LOCK}.new").rename(folder / LOCK)


def _clear_abandoned(place: Path) -> None:
    """A server that was killed could not remove its folder. One without a lock is just being made, or somebody else's."""
    for folder in place.glob(f"{PREFIX}*"):
        with suppress(OSError):  # taken away meanwhile, still in use, or another user's
            lock = os.open(folder / LOCK, os.O_RDWR | os.O_NOFOLLOW)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(folder)
            finally:
                os.close(lock)
