"""The address of the Notifications page: which of what was told is listed. See app.pages.address."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final
from urllib.parse import parse_qsl

from app.core.notifications import DELIVERY_STATUSES
from app.core.query import choice
from app.errors import InvalidInput
from app.pages.address import quoted

PATH: Final = "/notifications"
MOST_NAME: Final = 40
MOST_CURSOR: Final = 300


@dataclass(frozen=True)
class Address:
    """`status` and `channel` None mean all; `cursor` is where the page of the list starts."""

    status: str | None = None
    channel: str | None = None
    cursor: str | None = None
    notices: tuple[str, ...] = ()

    def search(self) -> str:
        """The canonical query string, `""` for the default view."""
        pairs = (("status", self.status), ("channel", self.channel), ("cursor", self.cursor))
        parts = [f"{name}={quoted(value)}" for name, value in pairs if value]
        return "?" + "&".join(parts) if parts else ""

    def href(self) -> str:
        return PATH + self.search()

    def of_status(self, status: str | None) -> Address:
        return replace(self, status=status, cursor=None, notices=())

    def of_channel(self, channel: str | None) -> Address:
        return replace(self, channel=channel, cursor=None, notices=())

    def at(self, cursor: str | None) -> Address:
        return replace(self, cursor=cursor, notices=())


def read(search: str) -> Address:
    """What an address asks for. Never raises: each thing not understood becomes a notice."""
    address, notices = Address(), []
    for name, value in parse_qsl(search.removeprefix("?"), keep_blank_values=False, errors="replace"):
        try:
            if name == "status":
                address = replace(address, status=choice("status", value, DELIVERY_STATUSES))
            elif name == "channel":
                address = replace(address, channel=value[:MOST_NAME])
            elif name == "cursor":
                address = replace(address, cursor=value[:MOST_CURSOR])
            else:
                notices.append(f"“{name[:40]}” is not a setting of this page and was ignored.")
        except InvalidInput as error:
            notices.append(error.message)
    return replace(address, notices=tuple(notices[:3]))
