"""Turns of tests that several processes share out (`-n`): one that measures time or memory is alone, the others mix.

A plugin of pytest. It does nothing when all tests run in one process.
"""

from __future__ import annotations

import fcntl
import tempfile
from pathlib import Path
from typing import Any

import pytest


class Turns:
    """One process's place at the locks in `folder`, which every process of the run opens.

    Locks of POSIX records: a process that dies gives its own up, and a child that it forked never had them.
    """

    def __init__(self, folder: Path) -> None:
        self._door = (folder / "door").open("w+")
        self._room = (folder / "room").open("w+")
        self.alone: bool | None = None
        """How this process is in; None while it is out."""

    def enter(self, *, alone: bool) -> None:
        """Wait until nobody is in, or with `alone=False` until nobody is in alone.

        Everybody waits at the door first, and who wants to be alone holds it until the room is empty: otherwise those
        who go together would overtake for as long as there is one of them.
        """
        if self.alone is alone:
            return
        self.leave()
        fcntl.lockf(self._door, fcntl.LOCK_EX)
        try:
            fcntl.lockf(self._room, fcntl.LOCK_EX if alone else fcntl.LOCK_SH)
        finally:
            fcntl.lockf(self._door, fcntl.LOCK_UN)
        self.alone = alone

    def leave(self) -> None:
        """Let the others in; nothing when this process is out."""
        fcntl.lockf(self._room, fcntl.LOCK_UN)
        self.alone = None

    def close(self) -> None:
        """Leave, and give the files back."""
        self._door.close()
        self._room.close()
        self.alone = None


MOST = 4
"""Browsers and servers come on top of the processes, and each takes its memory."""


def processes(cores: int) -> int:
    """How many share the tests out: one more than cores. For a third of the time a test waits, for a browser, a worker
    or a server; meanwhile somebody else can work. More would make those wait longer that expect something within seconds.
    """
    return min(cores + 1, MOST)


# --- the plugin -------------------------------------------------------------------------------------------------------

TURNS = pytest.StashKey[Turns]()
FOLDER = pytest.StashKey["tempfile.TemporaryDirectory[str]"]()


def pytest_configure(config: pytest.Config) -> None:
    if shared := getattr(config, "workerinput", None):
        config.stash[TURNS] = Turns(Path(shared["turns"]))
    elif config.getoption("numprocesses", None):
        config.stash[FOLDER] = tempfile.TemporaryDirectory(prefix="spendscope-turns-")


def pytest_unconfigure(config: pytest.Config) -> None:
    if TURNS in config.stash:
        config.stash[TURNS].close()
    if FOLDER in config.stash:
        config.stash[FOLDER].cleanup()


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    node.workerinput["turns"] = node.config.stash[FOLDER].name


def alone(item: pytest.Item) -> bool:
    return item.get_closest_marker("alone") is not None


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Those that must be alone come first: later, each of them would wait for what the others are at. Then the slow ones:
    one that began last would go on while the other processes have nothing left to do."""
    if TURNS in config.stash:
        items.sort(key=lambda item: (not alone(item), item.get_closest_marker("slow") is None))


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item, nextitem: pytest.Item | None) -> Any:
    """Around everything, so that no test's timeout counts how long it waited for its turn."""
    turns = item.config.stash.get(TURNS, None)
    if turns is None:
        return (yield)
    turns.enter(alone=alone(item))
    try:
        return (yield)
    finally:
        # From one that must be alone to the next one the room is kept.
        if not (turns.alone and nextitem is not None and alone(nextitem)):
            turns.leave()
