"""Telling somebody: events are recorded for every channel that wants them, and sent from there, one message at a time.

Whoever sends holds the channel (a compare-and-set of its state) from before it decides what to send until that is
recorded: of two schedulers one sends, in order, at most one message a second. A sender that dies leaves what it had
begun under the id it had begun it with; the next one sends it again under that id.
"""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Callable, Iterable
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Final
from uuid import uuid4

from app.backends import Backends
from app.channels import Channel, EmailChannel, OpsgenieChannel, PagerdutyChannel, WebhookChannel
from app.core.messages import (
    PAGERDUTY_URL,
    Verdict,
    email_of,
    encoded,
    opsgenie_request,
    pagerduty_body,
    signed,
    slack_body,
    teams_body,
    verdict_on,
    webhook_body,
)
from app.core.notifications import (
    BETWEEN,
    GIVEN_UP_AFTER,
    LEASE,
    MOST_REFUSALS,
    WAITS,
    Attempt,
    ChannelState,
    Delivery,
    Notification,
    bundle_id,
    is_due,
    is_held,
    message_of,
    new_delivery,
    next_bundle,
    sent_with,
    wait_after,
)
from app.errors import BadCredentials, Conflict, NotFound, Refused, Unavailable
from app.ports import Relay

log = logging.getLogger(__name__)

KEPT: Final = timedelta(days=400)
"""How long what was sent stays listed, and the same event stays known."""

REMOVED_AFTER: Final = timedelta(days=1)
"""Age from which deliveries of a channel that is not configured any more are dropped: it may come back until then."""

PAUSE: Final = timedelta(seconds=60)
"""After 429 without Retry-After."""

TEST_PATIENCE: Final = 5.0

Request = tuple[str, dict[str, str], bytes]


# --- recording --------------------------------------------------------------------------------------------------------


def notify(backends: Backends, notifications: Iterable[Notification]) -> int:
    """Record them for every channel that wants them; how many deliveries are new. The same event again is none.

    What happened before a channel was first seen is not told there.
    """
    told = list(notifications)
    now, found = backends.clock(), []
    for channel in backends.channels.values() if told else ():
        since = met(backends, channel.name).since or now
        wanted = [one for one in told if one.occurred >= since and channel.wants(one)]
        found += [new_delivery(channel.name, one, now) for one in wanted]
    return backends.metadata.add_deliveries(found) if found else 0


def met(backends: Backends, name: str) -> ChannelState:
    """The channel's state; made when it is seen for the first time."""
    state = backends.metadata.channel_state(name)
    if state.revision:
        return state
    backends.metadata.put_channel_state(ChannelState(name, 1, since=backends.clock()))
    return backends.metadata.channel_state(name)


# --- sending ----------------------------------------------------------------------------------------------------------


def send_next(backends: Backends, channel: Channel, *, draw: Callable[[], float] = random.random) -> bool:
    """Send the next message of a channel if one is to be sent now; whether it was tried."""
    now, state = backends.clock(), met(backends, channel.name)
    if state.disabled or is_held(state, now) or not is_due(state.not_before, now):
        return False
    chosen = next_bundle(backends.metadata.pending_deliveries(channel.name), state, channel.pace, channel.quiet, now)
    held = _taken(backends, state, now) if chosen else None
    if held is None:
        return False
    _send(backends, channel, held, chosen, draw())
    return True


def _taken(backends: Backends, state: ChannelState, now: datetime) -> ChannelState | None:
    """The state with the channel in our hands; None when somebody else was faster."""
    held = replace(state, revision=state.revision + 1, held_until=now + LEASE)
    return held if backends.metadata.put_channel_state(held) else None


def _send(backends: Backends, channel: Channel, held: ChannelState, chosen: list[Delivery], draw: float) -> Verdict:
    """Record that it is tried, try it, record what came of it, and let the channel go."""
    ids = [delivery.id for delivery in chosen]
    begun = Attempt(chosen[0].bundle or bundle_id(chosen), attempts=chosen[0].attempts + 1)
    backends.metadata.mark_deliveries(ids, begun)
    verdict = _tried(backends, channel, message_of(chosen), begun.bundle)
    now = backends.clock()
    ending = ended(begun, verdict, min(delivery.created for delivery in chosen), now, draw)
    backends.metadata.mark_deliveries(ids, ending)
    _told(channel, ending, len(ids))
    _released(backends, channel, after(held, channel, verdict, len(ids), now))
    return verdict


def ended(begun: Attempt, verdict: Verdict, created: datetime, now: datetime, draw: float) -> Attempt:
    """What an attempt comes to. A receiver that only asks for a pause uses up no try."""
    if verdict.outcome == "delivered":
        return replace(begun, status="sent", finished=now)
    if verdict.outcome == "refused":
        return replace(begun, status="failed", finished=now, message=verdict.message)
    tries = begun.attempts - 1 if verdict.pauses else begun.attempts
    if tries > len(WAITS) or now - created > GIVEN_UP_AFTER:
        said = f"{verdict.message} Given up after {begun.attempts} tries."
        return replace(begun, status="failed", finished=now, message=said)
    if verdict.pauses:
        return replace(begun, attempts=tries, message=verdict.message)
    wait = max(wait_after(tries, draw), verdict.wait or timedelta(0))
    return replace(begun, not_before=now + wait, message=verdict.message)


def after(held: ChannelState, channel: Channel, verdict: Verdict, number: int, now: datetime) -> ChannelState:
    """The channel's state when the message was tried."""
    pause = (verdict.wait or PAUSE) if verdict.pauses else BETWEEN
    state = replace(held, revision=held.revision + 1, held_until=None, not_before=now + pause)
    if verdict.outcome == "delivered":
        return replace(state, refusals=0, recent=sent_with(held, channel.pace, number, now))
    refusals = held.refusals + 1 if verdict.is_access else held.refusals
    return replace(state, refusals=refusals, disabled=verdict.message if refusals >= MOST_REFUSALS else None)


def _released(backends: Backends, channel: Channel, state: ChannelState) -> None:
    backends.metadata.put_channel_state(state)
    if state.disabled:
        log.error(
            "Channel %s is disabled after %d refusals: %s `spendscope notifications test %s` puts it back.",
            channel.name,
            state.refusals,
            state.disabled,
            channel.name,
        )


def _told(channel: Channel, ending: Attempt, number: int) -> None:
    if ending.status == "sent":
        log.info("Channel %s was told of %d in message %s", channel.name, number, ending.bundle)
    else:
        log.warning("Channel %s: message %s is %s. %s", channel.name, ending.bundle, ending.status, ending.message)


def _tried(backends: Backends, channel: Channel, notification: Notification, id: str) -> Verdict:
    """Never raises: a message that breaks us is tried again later like one that could not be sent."""
    try:
        return _handed_over(backends, channel, notification, id)
    except (Refused, BadCredentials) as error:
        return Verdict("refused", error.message, is_access=True)
    except Unavailable as error:
        return Verdict("later", error.message)
    except Exception as error:
        # Its text may quote an address; the log must not have it either.
        log.error("Channel %s: message %s raised %s", channel.name, id, type(error).__name__)
        return Verdict("later", f"Unexpected {type(error).__name__}.")


def _handed_over(backends: Backends, channel: Channel, notification: Notification, id: str) -> Verdict:
    now = backends.clock()
    if isinstance(channel, EmailChannel):
        message = email_of(notification, id, sender=channel.sender, recipients=channel.recipients, now=now)
        assert backends.mail is not None
        backends.mail.send(message, _relay(channel))
        return Verdict("delivered")
    url, headers, body = request_of(channel, notification, id, now)
    assert backends.webhooks is not None
    answered = backends.webhooks.post(url, {"Content-Type": "application/json", **headers}, body)
    called = f"The receiver of channel {channel.name}"
    return verdict_on(channel.type, answered.status, answered.headers, answered.body, now, called)


def request_of(channel: Channel, notification: Notification, id: str, now: datetime) -> Request:
    """Address, headers and body of a message to a channel that takes HTTP."""
    assert not isinstance(channel, EmailChannel)
    if isinstance(channel, PagerdutyChannel):
        return PAGERDUTY_URL, {}, encoded(pagerduty_body(notification, id, channel.routing_key.get_secret_value()))
    if isinstance(channel, OpsgenieChannel):
        address, made = opsgenie_request(notification, id, channel.region)
        return address, {"Authorization": f"GenieKey {channel.api_key.get_secret_value()}"}, encoded(made)
    url = channel.url.get_secret_value()
    if isinstance(channel, WebhookChannel):
        body = encoded(webhook_body(notification, id))
        secret = channel.secret.get_secret_value() if channel.secret else None
        return url, signed(secret, id, body, now), body
    made = slack_body(notification, id) if channel.type == "slack" else teams_body(notification, id)
    return url, {}, encoded(made)


def _relay(channel: EmailChannel) -> Relay:
    password = channel.password.get_secret_value() if channel.password else None
    return Relay(channel.host, channel.port, channel.security, channel.user, password)


# --- trying a channel out ---------------------------------------------------------------------------------------------


def send_test(backends: Backends, name: str, *, patience: float = TEST_PATIENCE) -> Delivery:
    """Send a test message now and return what came of it; one that succeeds enables a disabled channel.

    Raises NotFound for a channel that is not configured, Conflict while another message is being sent.
    """
    channel = backends.channels.get(name)
    if channel is None:
        known = ", ".join(backends.channels) or "none: set SPENDSCOPE_CHANNELS_FILE"
        raise NotFound(f"There is no channel {name[:40]!r}. Channels are {known}.")
    held = _waited_for(backends, name, patience)
    now = backends.clock()
    told = Notification(
        kind="test",
        severity="info",
        title=f"Test of channel {name}",
        key=f"test/{uuid4().hex}",
        occurred=now,
        facts=(("From", "Spendscope"), ("Means", "Notifications of this channel arrive here")),
        link=backends.settings.public_url,
    )
    delivery = new_delivery(name, told, now)
    begun = Attempt(delivery.id, attempts=1)
    backends.metadata.add_deliveries([replace(delivery, bundle=begun.bundle, attempts=begun.attempts)])
    verdict = _tried(backends, channel, told, delivery.id)
    now = backends.clock()
    status = "sent" if verdict.outcome == "delivered" else "failed"
    ending = replace(begun, status=status, finished=now, message=verdict.message or None)  # type: ignore[arg-type]
    backends.metadata.mark_deliveries([delivery.id], ending)
    state = replace(held, revision=held.revision + 1, held_until=None)
    backends.metadata.put_channel_state(replace(state, refusals=0, disabled=None) if status == "sent" else state)
    return backends.metadata.delivery(delivery.id) or delivery


def _waited_for(backends: Backends, name: str, patience: float) -> ChannelState:
    until = time.monotonic() + patience
    while True:
        now, state = backends.clock(), met(backends, name)
        held = None if is_held(state, now) else _taken(backends, state, now)
        if held is not None:
            return held
        if time.monotonic() >= until:
            raise Conflict(f"Channel {name} is sending another message. Try again in a minute.")
        time.sleep(0.1)


def retry(backends: Backends, id: str) -> Delivery:
    """Send one that failed once more, with the next message of its channel.

    Raises NotFound, or Conflict when it did not fail, was a test, or its channel takes nothing now.
    """
    found = backends.metadata.delivery(id) if id.isascii() else None
    if found is None:
        raise NotFound(f"There is no notification {id[:40]!r}. GET /api/v1/notifications lists them.")
    if found.notification.kind == "test":
        raise Conflict("A test is not sent again. Test the channel once more.")
    if found.channel not in backends.channels:
        raise Conflict(f"Channel {found.channel} is not configured any more.")
    if disabled := backends.metadata.channel_state(found.channel).disabled:
        raise Conflict(
            f"Channel {found.channel} is disabled: {disabled} Test it first; a test that succeeds enables it."
        )
    if not backends.metadata.renew_delivery(id):
        raise Conflict(f"Only what failed is sent again; this one is {found.status}.")
    return backends.metadata.delivery(id) or found


# --- what can't be sent -------------------------------------------------------------------------------------------------


def tidy(backends: Backends) -> int:
    """End what waits for a channel that is gone or stays disabled; how many. They stay listed with the reason."""
    return sum(_tidied(backends, name) for name in backends.metadata.pending_channels())


def _tidied(backends: Backends, name: str) -> int:
    now = backends.clock()
    if name not in backends.channels:
        age, said, status = REMOVED_AFTER, f"Channel {name} is not configured any more.", "dropped"
    elif disabled := backends.metadata.channel_state(name).disabled:
        age, said, status = GIVEN_UP_AFTER, f"Channel {name} is disabled: {disabled}", "failed"
    else:
        return 0
    for one in (old := [one for one in backends.metadata.pending_deliveries(name) if now - one.created > age]):
        ending = Attempt(one.bundle or one.id, status, one.attempts, finished=now, message=said)  # type: ignore[arg-type]
        backends.metadata.mark_deliveries([one.id], ending)
    if old:
        log.warning("%d notifications are %s. %s", len(old), status, said)
    return len(old)


def forget(backends: Backends) -> int:
    return backends.metadata.forget_deliveries(finished_before=backends.clock() - KEPT)
