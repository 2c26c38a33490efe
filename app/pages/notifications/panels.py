"""What the Notifications page says, as components. No address, key or password of a channel gets here."""

from __future__ import annotations

from typing import Any, Final, TypeGuard

from app.channels import Channel
from app.core.notifications import DELIVERY_STATUSES, Delivery, DeliveryStatus
from app.pages.notifications.view import MOST_WAITING, ChannelView, NotificationsView
from app.ui import parts, words
from app.ui import tags as html
from app.ui.tags import attributes

Children = Any
TYPES: Final = {
    "slack": "Slack",
    "teams": "Microsoft Teams",
    "email": "E-mail",
    "webhook": "Webhook",
    "pagerduty": "PagerDuty",
    "opsgenie": "Opsgenie",
}
KINDS: Final = {
    "anomaly": "anomalies",
    "budget": "budgets",
    "spend": "rules on spend",
    "restated": "restated days",
    "quarantined": "refused files",
    "data_stale": "stale data",
    "weekly": "the week",
    "digest": "digest",
    "test": "test",
}
STATUSES: Final[dict[DeliveryStatus, str]] = {
    "pending": "Waiting",
    "sent": "Sent",
    "failed": "Failed",
    "dropped": "Dropped",
}
LOOKS: Final = {"pending": "running", "sent": "finished", "failed": "failed", "dropped": ""}
SOME: Final = 3


def notices(view: NotificationsView) -> list[Children]:
    found = [parts.banner(text) for text in view.address.notices]
    if not view.sees_all:
        found.append(
            parts.banner("Notifications are about all accounts, and you see some of them. Ask somebody who sees all.")
        )
    return found


# --- channels -----------------------------------------------------------------------------------------------------


def channels(view: NotificationsView) -> Children:
    if not view.sees_all:
        return None
    if not view.channels:
        return html.P(
            "Nobody is told of anything yet. Write a channels file, name it in SPENDSCOPE_CHANNELS_FILE, and restart "
            "web, worker and scheduler; docs/notifications.md has an example for Slack, Teams, e-mail, PagerDuty and others.",
            className="note calm",
        )
    head = ("Channel", "Is told of", "When", "State", *(("",) if view.may_send else ()))
    cells = [html.Th(name or html.Span("Test", className="unseen"), scope="col") for name in head]
    rows = [_channel(view, one) for one in view.channels]
    return html.Table([html.Thead(html.Tr(cells)), html.Tbody(rows)], className="breakdown notify-table")


def _channel(view: NotificationsView, one: ChannelView) -> Children:
    channel = one.channel
    link = parts.link(channel.name, view.address.of_channel(channel.name).href())
    test = html.Button(
        "Send a test",
        type="button",
        className="button",
        **attributes(data_test=channel.name, aria_label=f"Send a test to {channel.name}"),
    )
    result = html.P(className="test-result", role="status", **attributes(data_result=channel.name))
    return html.Tr(
        [
            html.Th([link, _below(TYPES.get(channel.type, channel.type))], scope="row"),
            html.Td([", ".join(KINDS[kind] for kind in channel.kinds), _below(_chosen(channel))]),
            html.Td(
                [
                    (channel.quiet_hours and f"quiet {channel.quiet_hours} {channel.time_zone}") or "always",
                    _below(_pace(channel)),
                ]
            ),
            html.Td(_channel_state(one)),
            *([html.Td([test, result])] if view.may_send else []),
        ],
        key=channel.name,
    )


def _below(text: str) -> Children:
    return html.Span(text, className="notify-below")


def _chosen(channel: Channel) -> str:
    whose = ", ".join(channel.accounts[:SOME]) or "all accounts"
    more = len(channel.accounts) - SOME
    least = "" if channel.least_severity == "info" else f"from {channel.least_severity}, "
    return f"{least}{whose}" + (f" and {more} more" if more > 0 else "")


def _pace(channel: Channel) -> str:
    if not channel.digest_minutes:
        return "each by itself"
    return f"at most {channel.most_messages} in {channel.digest_minutes} min, then a digest"


def _channel_state(one: ChannelView) -> Children:
    number = f"{MOST_WAITING:,} or more" if one.waiting == MOST_WAITING else f"{one.waiting:,}"
    waiting = [_below(f"{number} waiting")] if one.waiting else []
    if one.state.disabled:
        said = f"{one.state.disabled} A test that succeeds enables it."
        return [html.Span("Disabled", className="job-chip failed"), _below(said), *waiting]
    return [html.Span("Works", className="job-chip finished"), *waiting]


def how_to_change(view: NotificationsView) -> Children:
    """Channels are read from a file, so this page can only show them."""
    if not view.sees_all or not view.channels:
        return None
    text = (
        "Channels come from the file that SPENDSCOPE_CHANNELS_FILE names: change it there and restart web, worker and "
        "scheduler. Addresses and keys are never shown."
    )
    return parts.note(text if view.may_send else f"{text} Editors can send tests.")


# --- what was told ------------------------------------------------------------------------------------------------


def tabs(view: NotificationsView) -> list[Children]:
    if not view.sees_all:
        return []
    groups = [("All", None), *((STATUSES[status], status) for status in DELIVERY_STATUSES)]
    return [
        parts.link(
            name,
            view.address.of_status(status).href(),
            className="tab",
            **attributes(aria_current="true" if view.address.status == status else None),
        )
        for name, status in groups
    ]


def filtered(view: NotificationsView) -> Children:
    """Which channel's are listed, and the way back."""
    if view.address.channel is None:
        return None
    clear = parts.link([parts.icon("x"), "All channels"], view.address.of_channel(None).href(), className="button")
    return [html.Span(["Only of channel ", html.B(view.address.channel)]), clear]


def listed(view: NotificationsView) -> Children:
    if not view.sees_all:
        return None
    if not view.deliveries:
        return html.P(_nothing(view), className="note calm")
    head = ("When", "Channel", "What", "State", "Tries", *(("",) if view.may_send else ()))
    cells = [
        html.Th(
            name or html.Span("Send again", className="unseen"),
            scope="col",
            className="number" if name == "Tries" else "",
        )
        for name in head
    ]
    rows = [_row(view, one) for one in view.deliveries]
    return html.Table([html.Thead(html.Tr(cells)), html.Tbody(rows)], className="breakdown notify-table")


def _nothing(view: NotificationsView) -> str:
    if view.address.status or view.address.channel:
        return "Nothing matches these filters."
    return "Nothing was told to anybody yet. An event is told to the channels that were there when it happened."


def _row(view: NotificationsView, one: Delivery) -> Children:
    told = one.notification
    title = html.A(told.title, href=told.link) if is_web(told.link) else html.Span(told.title)
    over = "resolved, " if told.resolved else ""
    again = html.Button(
        "Send again",
        type="button",
        className="button",
        **attributes(data_retry=one.id, aria_label=f"Send again: {told.title[:80]}"),
    )
    can = one.status == "failed" and told.kind != "test"
    return html.Tr(
        [
            html.Td(parts.ago(one.created), className="when"),
            html.Td(one.channel),
            html.Th([title, _below(f"{KINDS[told.kind]}, {over}{told.severity}")], scope="row"),
            html.Td(_state(one)),
            html.Td(f"{one.attempts:,}", className="number"),
            *([html.Td(again if can else None)] if view.may_send else []),
        ],
        key=one.id,
    )


def is_web(link: str | None) -> TypeGuard[str]:
    """Links of notifications lead to SPENDSCOPE_PUBLIC_URL, which people write."""
    return link is not None and link.startswith(("https://", "http://"))


def _state(one: Delivery) -> list[Children]:
    found = [html.Span(STATUSES[one.status], className=f"job-chip {LOOKS[one.status]}")]
    if one.status == "pending" and one.not_before is not None:
        found.append(html.Span(["next try ", _at(one)], className="notify-below"))
    if one.finished is not None:
        found.append(html.Span(parts.ago(one.finished), className="notify-below"))
    if one.message:
        found.append(_below(one.message))
    return found


def _at(one: Delivery) -> str:
    assert one.not_before is not None
    return f"{one.not_before:%Y-%m-%d %H:%M} UTC"


def pages(view: NotificationsView) -> Children:
    """The way to the next page, and back to the newest."""
    found = []
    if view.address.cursor:
        found.append(parts.link("Newest", view.address.at(None).href(), className="button"))
    if view.next_cursor:
        found.append(parts.link("Older", view.address.at(view.next_cursor).href(), className="button"))
    return found


def spoken(view: NotificationsView) -> str:
    failed = sum(one.status == "failed" for one in view.deliveries)
    return f"Showing {words.counted(len(view.deliveries), 'notification')}, {failed} failed"
