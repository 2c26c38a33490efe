"""What was told to whom, and trying a channel out."""

from __future__ import annotations

from typing import Final

from flask import Response

from app.api.ledger import ID
from app.api.models import ChannelAnswer, Channels, Deliveries, DeliveryAnswer, NotificationTest
from app.api.routes import CURSOR, Arguments, Parameter, Route, answered, body_of, limit_of, one_of
from app.backends import current
from app.core.notifications import DELIVERY_STATUSES
from app.core.query import choice
from app.notifications import retry, send_test


def notifications(given: Arguments) -> Response:
    status = given.first("status")
    found = current().metadata.deliveries(
        limit=given.limit(100),
        cursor=given.first("cursor"),
        channel=given.first("channel"),
        status=choice("status", status, DELIVERY_STATUSES) if status is not None else None,
    )
    return answered(Deliveries(items=[DeliveryAnswer.of(one) for one in found.items], next_cursor=found.next_cursor))


def notification_channels(_: Arguments) -> Response:
    backends = current()
    items = [ChannelAnswer.of(one, backends.metadata.channel_state(one.name)) for one in backends.channels.values()]
    return answered(Channels(items=items, next_cursor=None))


def try_channel(_: Arguments) -> Response:
    asked = body_of(NotificationTest)
    return answered(DeliveryAnswer.of(send_test(current(), asked.channel)))


def retry_notification(_: Arguments, id: str) -> Response:
    return answered(DeliveryAnswer.of(retry(current(), id)))


ROUTES: Final = (
    Route(
        "GET",
        "/api/v1/notifications",
        notifications,
        "What was told to whom",
        Deliveries,
        about="One delivery a channel and event, newest first: `pending`, `sent`, `failed` (with the reason) or `dropped` (its "
        "channel is gone). Those with the same `message_id` went out in one message.",
        parameters=(
            Parameter("channel", "Only of this channel."),
            one_of("status", "Only with this status.", DELIVERY_STATUSES),
            limit_of(100),
            CURSOR,
        ),
        problems=(400,),
        tag="notifications",
    ),
    Route(
        "GET",
        "/api/v1/notifications/channels",
        notification_channels,
        "Where notifications go",
        Channels,
        about="Without their addresses and keys, which are never shown. A channel whose receiver refused three messages in a row is "
        "`disabled` until a test succeeds.",
        tag="notifications",
    ),
    Route(
        "POST",
        "/api/v1/notifications/test",
        try_channel,
        "Try a channel out",
        DeliveryAnswer,
        about="Sends a test message now, once; the answer says whether it was `sent`, or `failed` and why.",
        body=NotificationTest,
        problems=(400, 404, 409, 413, 415),
        tag="notifications",
    ),
    Route(
        "POST",
        "/api/v1/notifications/<id>/retry",
        retry_notification,
        "Send one that failed once more",
        DeliveryAnswer,
        about="It goes out with the next message of its channel, which must not be disabled.",
        parameters=(ID,),
        problems=(404, 409),
        tag="notifications",
    ),
)
