"""Everything the Notifications page needs to know, asked once: the channels, and what was told to whom."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Final

from app.backends import Backends
from app.channels import Channel
from app.core.access import Permission
from app.core.notifications import ChannelState, Delivery
from app.errors import InvalidInput
from app.pages.notifications.address import Address
from app.ports import Listing
from app.principal import principal

MOST_LISTED: Final = 50
MOST_WAITING: Final = 1000
"""More are not counted."""


@dataclass(frozen=True)
class ChannelView:
    channel: Channel
    state: ChannelState
    waiting: int


@dataclass(frozen=True)
class NotificationsView:
    """`file`: the channels' file is named; `may_send`: this principal may test and send again."""

    address: Address
    now: datetime
    file: bool
    channels: Sequence[ChannelView] = ()
    deliveries: Sequence[Delivery] = ()
    next_cursor: str | None = None
    may_send: bool = False
    sees_all: bool = True


def look(backends: Backends, address: Address) -> NotificationsView:
    asking, settings = principal(), backends.settings
    view = NotificationsView(address, backends.clock(), settings.channels_file is not None)
    if asking.accounts is not None:
        return replace(view, sees_all=False)
    found, address = _listed(backends, address)
    return replace(
        view,
        address=address,
        file=view.file or bool(backends.channels),
        channels=[_of(backends, channel) for channel in backends.channels.values()],
        deliveries=found.items,
        next_cursor=found.next_cursor,
        may_send=asking.may(Permission.OPERATE),
    )


def _of(backends: Backends, channel: Channel) -> ChannelView:
    waiting = backends.metadata.pending_deliveries(channel.name, limit=MOST_WAITING)
    return ChannelView(channel, backends.metadata.channel_state(channel.name), len(waiting))


def _listed(backends: Backends, address: Address) -> tuple[Listing[Delivery], Address]:
    """From the start where the address's place is none."""
    try:
        return _page(backends, address), address
    except InvalidInput as error:
        address = replace(address.at(None), notices=(*address.notices, error.message))
        return _page(backends, address), address


def _page(backends: Backends, address: Address) -> Listing[Delivery]:
    return backends.metadata.deliveries(
        limit=MOST_LISTED, cursor=address.cursor, channel=address.channel, status=address.status
    )
