"""The address of the Anomalies page: which of them are listed, and which one is open. See app.pages.address.

assets/60-anomalies.js writes the same addresses when a control is used.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final
from urllib.parse import parse_qsl

from app.core.anomalyrecords import STATES
from app.core.arrivals import PARTS
from app.core.query import choice, filters_from
from app.errors import InvalidInput
from app.pages.address import quoted

PATH: Final = "/anomalies"
MOST_ID: Final = 64


@dataclass(frozen=True)
class Address:
    """`states` and `filters` empty mean all; `id` is the open one."""

    states: tuple[str, ...] = ()
    filters: tuple[tuple[str, tuple[str, ...]], ...] = ()
    id: str | None = None
    notices: tuple[str, ...] = ()

    def values(self, part: str) -> tuple[str, ...]:
        return dict(self.filters).get(part, ())

    def search(self) -> str:
        """The canonical query string, `""` for the default view."""
        parts = [f"state={state}" for state in self.states]
        parts += [f"{part}={quoted(value)}" for part in PARTS for value in self.values(part)]
        parts += [f"id={quoted(self.id)}"] if self.id else []
        return "?" + "&".join(parts) if parts else ""

    def href(self) -> str:
        return PATH + self.search()

    def at(self, id: str | None) -> Address:
        """With this one open; None closes it."""
        return replace(self, id=id)

    def only(self, *states: str) -> Address:
        return replace(self, states=states)


def read(search: str) -> Address:
    """What an address asks for. Never raises: each thing not understood becomes a notice."""
    states: list[str] = []
    pairs: list[tuple[str, str]] = []
    open_one: str | None = None
    notices: list[str] = []
    for name, value in parse_qsl(search.removeprefix("?"), keep_blank_values=False, errors="replace"):
        try:
            if name == "state":
                states.append(choice("state", value, STATES))
            elif name in PARTS:
                filters_from([(name, value)])
                pairs.append((name, value))
            elif name == "id":
                open_one = value[:MOST_ID]
            else:
                notices.append(f"“{name[:40]}” is not a setting of this page and was ignored.")
        except InvalidInput as error:
            notices.append(error.message)
    return Address(tuple(dict.fromkeys(states)), filters_from(pairs), open_one, tuple(notices[:3]))
