"""What is worth telling somebody, and what becomes of it: one delivery a channel, sent alone or in a digest.

A delivery's id is a digest of channel and key: the same event is one record of a channel, however often it is seen.
What is sent together is decided once and kept as `bundle`, which is the id the receiver sees: whoever dies between
sending and recording sends the same message again under the same id.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, time, timedelta
from typing import Final, Literal
from zoneinfo import ZoneInfo

NotificationKind = Literal[
    "anomaly", "budget", "spend", "restated", "quarantined", "data_stale", "weekly", "digest", "test"
]
KINDS: Final = ("anomaly", "budget", "spend", "restated", "quarantined", "data_stale", "weekly")
"""What a channel may choose from; digests and tests come by themselves."""

Severity = Literal["info", "warning", "critical"]
SEVERITIES: Final[tuple[Severity, ...]] = ("info", "warning", "critical")

DeliveryStatus = Literal["pending", "sent", "failed", "dropped"]
DELIVERY_STATUSES: Final = ("pending", "sent", "failed", "dropped")

MOST_TEXT: Final = 2000
"""Characters of one text of a notification that are kept. A day's list of accounts may be longer than anybody reads."""

MOST_READ: Final = 100_000
MOST_FACTS: Final = 40
IN_DIGEST: Final = 20
"""Notifications a digest names; it counts the others."""


@dataclass(frozen=True)
class Notification:
    """Something that happened, in plain texts (nothing escaped: each way of sending does that itself).

    `key` is what makes two of them the same event. `accounts` are those it is about; none means all of them.
    `resolved` says that what an earlier one told is over.
    """

    kind: NotificationKind
    severity: Severity
    title: str
    key: str
    occurred: datetime
    facts: tuple[tuple[str, str], ...] = ()
    link: str | None = None
    accounts: tuple[str, ...] = ()
    resolved: bool = False

    def bounded(self) -> Notification:
        """With every text on one line, without control characters, and no longer than is kept. Cuts say so."""
        facts = [(plain(name, 100), plain(value, MOST_TEXT)) for name, value in self.facts[:MOST_FACTS]]
        if (left := len(self.facts) - MOST_FACTS) > 0:
            facts.append(("", f"and {left} more facts"))
        return replace(self, title=plain(self.title, MOST_TEXT), facts=tuple(facts))


def plain(text: str, most: int) -> str:
    """One line without control, direction-changing or half characters, at most `most` long."""
    read = text[:MOST_READ]
    safe = read if read.isprintable() else "".join(letter if letter.isprintable() else " " for letter in read)
    return cut(" ".join(safe.split()), most)


def cut(text: str, most: int) -> str:
    """At most `most` characters; a longer text ends by saying how long it was."""
    if len(text) <= most:
        return text
    said = f"… [cut, {len(text)} characters]"
    return text[: max(0, most - len(said))].rstrip() + said if most > len(said) else text[:most]


# --- what becomes of it ---------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Delivery:
    """A notification on its way to one channel; `bundle` is the id of the message it went (or goes) out with.

    `message` says why it failed, was dropped, or has to wait. Only a pending one ever changes.
    """

    id: str
    channel: str
    notification: Notification
    created: datetime
    status: DeliveryStatus = "pending"
    bundle: str | None = None
    attempts: int = 0
    not_before: datetime | None = None
    finished: datetime | None = None
    message: str | None = None


@dataclass(frozen=True)
class Attempt:
    """What trying to send changes of the deliveries of a bundle."""

    bundle: str
    status: DeliveryStatus = "pending"
    attempts: int = 0
    not_before: datetime | None = None
    finished: datetime | None = None
    message: str | None = None


@dataclass(frozen=True)
class ChannelState:
    """What is remembered of a channel. A change is a compare-and-set on `revision`, as with a day of the ledger.

    `held_until`: somebody is sending. `recent`: when the newest messages went out. `since`: when it was first seen;
    what happened before is not told. `refusals`: in a row, by which a channel ends up `disabled` (with the reason).
    """

    name: str
    revision: int = 0
    since: datetime | None = None
    held_until: datetime | None = None
    not_before: datetime | None = None
    recent: tuple[datetime, ...] = ()
    refusals: int = 0
    disabled: str | None = None


def delivery_id(channel: str, key: str) -> str:
    return _digest(channel, key)


def new_delivery(channel: str, notification: Notification, now: datetime) -> Delivery:
    return Delivery(delivery_id(channel, notification.key), channel, notification.bounded(), now)


def bundle_id(deliveries: Sequence[Delivery]) -> str:
    """The id a message goes out with: the delivery's own, or that of the digest of just these."""
    if len(deliveries) == 1:
        return deliveries[0].id
    return _digest("digest", *(delivery.id for delivery in deliveries))


def _digest(*parts: str) -> str:
    return hashlib.sha256("\0".join(parts).encode("utf-8", "surrogatepass")).hexdigest()[:32]


# --- when, and how much at once ---------------------------------------------------------------------------------------


LEASE: Final = timedelta(seconds=120)
"""How long a sender may take for one message before another one may take over; a webhook takes at most 10 s, a mail server may take longer."""

BETWEEN: Final = timedelta(seconds=1)
"""Between two messages of a channel: what Slack allows an incoming webhook."""

WAITS: Final = (60, 300, 900, 3600, 3 * 3600, 6 * 3600, 13 * 3600)
"""Seconds between tries: eight tries in a day."""

LONGEST_WAIT: Final = timedelta(hours=24)
MOST_RETRY_AFTER: Final = timedelta(hours=1)
GIVEN_UP_AFTER: Final = timedelta(days=3)
"""Age from which a delivery that still cannot be sent has failed, however few its tries were."""

MOST_REFUSALS: Final = 3
"""Refusals in a row (wrong address or key) after which a channel is disabled until a test succeeds."""


def wait_after(attempts: int, draw: float) -> timedelta:
    """Pause after that many tries; `draw` in [0, 1) spreads it by a fifth both ways."""
    return timedelta(seconds=WAITS[min(attempts, len(WAITS)) - 1] * (0.8 + 0.4 * draw))


def is_held(state: ChannelState, now: datetime) -> bool:
    """A lease that ends later than any can was given by a clock that has jumped: it holds nothing."""
    return state.held_until is not None and now < state.held_until <= now + LEASE


def is_due(not_before: datetime | None, now: datetime) -> bool:
    """The same for pauses."""
    return not_before is None or not_before <= now or not_before > now + LONGEST_WAIT


@dataclass(frozen=True)
class QuietHours:
    """From `start` to `end` by the clock of `zone`, over midnight when `end` is earlier; critical ones are sent still."""

    start: time
    end: time
    zone: ZoneInfo = field(default_factory=lambda: ZoneInfo("UTC"))

    def covers(self, moment: datetime) -> bool:
        shown = moment.astimezone(self.zone).time()
        if self.start <= self.end:
            return self.start <= shown < self.end
        return shown >= self.start or shown < self.end


@dataclass(frozen=True)
class Pace:
    """At most `messages` single ones in `window`; what is more goes into one digest a window. No window: no digests."""

    messages: int = 5
    window: timedelta = timedelta(minutes=15)


def next_bundle(
    waiting: Sequence[Delivery], state: ChannelState, pace: Pace, quiet: QuietHours | None, now: datetime
) -> list[Delivery]:
    """What to send now of the pending deliveries of a channel (oldest first): nothing, one, or all in a digest.

    What was begun before comes first and stays as it was put together.
    """
    begun = [delivery for delivery in waiting if delivery.bundle and is_due(delivery.not_before, now)]
    if begun:
        return [delivery for delivery in waiting if delivery.bundle == begun[0].bundle]
    is_quiet = quiet is not None and quiet.covers(now)
    fresh = [one for one in waiting if not one.bundle and (not is_quiet or one.notification.severity == "critical")]
    if not pace.window:
        return fresh[:1]
    left = pace.messages - len(sent_lately(state, pace, now))
    if left <= 0:
        return []
    return fresh if len(fresh) > left else fresh[:1]


def sent_lately(state: ChannelState, pace: Pace, now: datetime) -> tuple[datetime, ...]:
    return tuple(moment for moment in state.recent if now - pace.window < moment <= now)


def sent_with(state: ChannelState, pace: Pace, number: int, now: datetime) -> tuple[datetime, ...]:
    """`recent` after a message of so many notifications: a digest uses up the window."""
    spent = (now,) * (pace.messages if number > 1 else 1)
    return (*sent_lately(state, pace, now), *spent)[-pace.messages :]


def message_of(deliveries: Sequence[Delivery]) -> Notification:
    """The notification itself, or one that stands for all of them."""
    if len(deliveries) == 1:
        return deliveries[0].notification
    return digest_of([delivery.notification for delivery in deliveries])


def digest_of(notifications: Sequence[Notification]) -> Notification:
    """Counts by kind, and the weightiest and oldest by name."""
    ranked = sorted(notifications, key=lambda one: (-SEVERITIES.index(one.severity), one.occurred))
    counts = Counter(one.kind for one in notifications)
    counted = ", ".join(f"{number} {kind.replace('_', ' ')}" for kind, number in counts.most_common())
    facts: list[tuple[str, str]] = [(one.severity, one.title) for one in ranked[:IN_DIGEST]]
    if left := len(ranked) - len(facts):
        facts.append(("", f"and {left} more; Spendscope lists all of them"))
    return Notification(
        kind="digest",
        severity=ranked[0].severity,
        title=f"{len(notifications)} notifications: {counted}",
        key="",
        occurred=max(one.occurred for one in notifications),
        facts=tuple(facts),
        link=ranked[0].link if len({one.link for one in notifications}) == 1 else None,
        accounts=tuple(sorted({account for one in notifications for account in one.accounts}))[:MOST_FACTS],
    )


def is_wanted(notification: Notification, kinds: Collection[str], least: Severity, accounts: Collection[str]) -> bool:
    """Whether a channel with these choices is told; no accounts chosen means all of them."""
    if notification.kind not in kinds or SEVERITIES.index(notification.severity) < SEVERITIES.index(least):
        return False
    return not accounts or not notification.accounts or bool(set(accounts) & set(notification.accounts))
