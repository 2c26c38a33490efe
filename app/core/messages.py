"""A notification as each receiver takes it, and what its answer means. Texts come from data: all of them are escaped.

Sources: Slack "Formatting text for app surfaces" (escape & < >; `verbatim` turns automatic links off) and Block Kit
limits (header 150, section 3,000 characters, 50 blocks); Microsoft Teams Workflows (Adaptive Card in an `attachments`
message, 28 KB); PagerDuty Events API v2 (summary 1,024 characters); Opsgenie Alert API (message 130,
description 15,000, details 8,000 characters), which Jira Service Management takes at an address of its own; RFC 5322 and RFC 3834 (Auto-Submitted).
"""

from __future__ import annotations

import hashlib
import hmac
import html
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from email.message import EmailMessage
from email.policy import SMTP
from email.utils import format_datetime, parsedate_to_datetime
from typing import Any, Final, Literal

from app.core.notifications import MOST_RETRY_AFTER, Notification, cut, plain

Json = dict[str, Any]

SLACK_HEADER: Final = 150
SLACK_SECTION: Final = 3000
SLACK_BLOCKS: Final = 50
TEAMS_BYTES: Final = 28 * 1024
PAGERDUTY_URL: Final = "https://events.pagerduty.com/v2/enqueue"
PAGERDUTY_SUMMARY: Final = 1024
OPSGENIE_URLS: Final = {
    "us": "https://api.opsgenie.com/v2/alerts",
    "eu": "https://api.eu.opsgenie.com/v2/alerts",
    "jsm": "https://api.atlassian.com/jsm/ops/integration/v2/alerts",
}
OPSGENIE_MESSAGE: Final = 130
OPSGENIE_DESCRIPTION: Final = 15_000
OPSGENIE_DETAILS: Final = 8_000
OPSGENIE_ENTITY: Final = 512
PRIORITIES: Final = {"info": "P5", "warning": "P3", "critical": "P1"}
SUBJECT: Final = 150
OPEN_WORDS: Final = "Open in Spendscope"
MARKS: Final = {"info": "🔵", "warning": "🟠", "critical": "🔴"}


def headline(notification: Notification) -> str:
    over = "Resolved: " if notification.resolved else ""
    return f"{over}{notification.title}"


def mark(notification: Notification) -> str:
    return "🟢" if notification.resolved else MARKS[notification.severity]


def encoded(body: Json) -> bytes:
    return json.dumps(body, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "replace")


# --- Slack ----------------------------------------------------------------------------------------------------------


def slack_escaped(text: str, most: int) -> str:
    """`&`, `<` and `>` as entities: no mention, no link. Cut before it is escaped, and never within an entity."""
    room = most
    while True:
        shown = cut(text, room)
        escaped = shown.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
        if len(escaped) <= most:
            return escaped
        room = min(room - 1, room - (len(escaped) - most) // 5)


def slack_body(notification: Notification, id: str) -> Json:
    """Blocks for an incoming webhook."""
    title = f"{mark(notification)} {headline(notification)}"
    blocks: list[Json] = [
        {"type": "header", "text": {"type": "plain_text", "text": slack_escaped(title, SLACK_HEADER), "emoji": True}},
        *(_slack_section(_slack_fact(name, value)) for name, value in notification.facts),
    ]
    ending = [_slack_section(f"<{_slack_address(notification.link)}|{OPEN_WORDS}>")] if notification.link else []
    ending.append(_slack_context(notification, id))
    room = SLACK_BLOCKS - len(ending)
    if left := max(0, len(blocks) - room):
        blocks = [*blocks[: room - 1], _slack_section(f"{left + 1} more facts are left out.")]
    return {
        "text": slack_escaped(title, SLACK_SECTION),
        "blocks": blocks + ending,
        "unfurl_links": False,
        "unfurl_media": False,
    }


def _slack_fact(name: str, value: str) -> str:
    escaped = slack_escaped(value, SLACK_SECTION - 600)
    return f"*{slack_escaped(name, 500)}*: {escaped}" if name else escaped


def _slack_section(text: str) -> Json:
    return {"type": "section", "text": {"type": "mrkdwn", "text": text, "verbatim": True}}


def _slack_context(notification: Notification, id: str) -> Json:
    said = f"{notification.severity} · {notification.kind} · {notification.occurred:%Y-%m-%d %H:%M} UTC · {id}"
    return {"type": "context", "elements": [{"type": "plain_text", "text": said}]}


def _slack_address(link: str) -> str:
    return link.replace("|", "%7C").replace("&", "&amp;").replace("<", "%3C").replace(">", "%3E")


# --- Microsoft Teams ------------------------------------------------------------------------------------------------


def teams_body(notification: Notification, id: str) -> Json:
    """An Adaptive Card for a Workflows URL. Text runs carry no Markdown, so that data cannot make links."""
    facts = list(notification.facts)
    body = _teams_message(notification, id, facts, 0)
    while len(encoded(body)) > TEAMS_BYTES and facts:
        facts.pop()
        body = _teams_message(notification, id, facts, len(notification.facts) - len(facts))
    return body


def _teams_message(notification: Notification, id: str, facts: list[tuple[str, str]], left: int) -> Json:
    said = f"{notification.severity} · {notification.kind} · {notification.occurred:%Y-%m-%d %H:%M} UTC · {id}"
    parts = [
        _teams_text(cut(headline(notification), 500), size="Large", weight="Bolder"),
        *(_teams_fact(name, value) for name, value in facts),
        *([_teams_text(f"{left} more facts are left out.")] if left else []),
        _teams_text(said, size="Small", isSubtle=True),
    ]
    card: Json = {
        "$schema": "http://adaptivecards.io/schemas/adaptive-card.json",
        "type": "AdaptiveCard",
        "version": "1.4",
        "msteams": {"width": "Full"},
        "body": parts,
    }
    if notification.link:
        card["actions"] = [{"type": "Action.OpenUrl", "title": OPEN_WORDS, "url": notification.link}]
    attachment = {"contentType": "application/vnd.microsoft.card.adaptive", "contentUrl": None, "content": card}
    return {"type": "message", "attachments": [attachment]}


def _teams_text(text: str, **style: Any) -> Json:
    return {"type": "RichTextBlock", "inlines": [{"type": "TextRun", "text": text, **style}]}


def _teams_fact(name: str, value: str) -> Json:
    runs = [{"type": "TextRun", "text": f"{name}: ", "weight": "Bolder"}] if name else []
    return {"type": "RichTextBlock", "inlines": [*runs, {"type": "TextRun", "text": value}]}


# --- e-mail -----------------------------------------------------------------------------------------------------------


def email_of(
    notification: Notification, id: str, *, sender: str, recipients: tuple[str, ...], now: datetime
) -> EmailMessage:
    """Text and HTML. No header holds more than one line, whatever the title is."""
    message = EmailMessage(policy=SMTP)
    message["From"] = sender
    message["To"] = ", ".join(recipients)
    message["Subject"] = plain(f"[Spendscope {notification.severity}] {headline(notification)}", SUBJECT)
    message["Date"] = format_datetime(now.astimezone(UTC))
    message["Message-ID"] = f"<{id}@spendscope>"
    message["Auto-Submitted"] = "auto-generated"
    message.set_content(_email_text(notification))
    message.add_alternative(_email_html(notification), subtype="html")
    return message


def _email_text(notification: Notification) -> str:
    facts = [f"{name}: {value}" if name else value for name, value in notification.facts]
    link = ["", f"{OPEN_WORDS}: {notification.link}"] if notification.link else []
    return "\n".join([headline(notification), "", *facts, *link, "", _email_ending(notification)]) + "\n"


def _email_html(notification: Notification) -> str:
    rows = "".join(
        f'<tr><th align="left" valign="top">{html.escape(name)}</th><td>{html.escape(value)}</td></tr>'
        for name, value in notification.facts
    )
    link = f'<p><a href="{html.escape(notification.link)}">{OPEN_WORDS}</a></p>' if notification.link else ""
    title = html.escape(headline(notification))
    ending = html.escape(_email_ending(notification))
    return f'<html><body><h2>{title}</h2><table cellpadding="4">{rows}</table>{link}<p><small>{ending}</small></p></body></html>'


def _email_ending(notification: Notification) -> str:
    return f"{notification.severity} · {notification.kind} · {notification.occurred:%Y-%m-%d %H:%M} UTC"


# --- signed webhook -----------------------------------------------------------------------------------------------------


def webhook_body(notification: Notification, id: str) -> Json:
    """Version 1 of the generic webhook (docs/notifications.md)."""
    return {
        "version": 1,
        "id": id,
        "kind": notification.kind,
        "severity": notification.severity,
        "resolved": notification.resolved,
        "title": notification.title,
        "facts": [{"name": name, "value": value} for name, value in notification.facts],
        "link": notification.link,
        "accounts": list(notification.accounts),
        "occurred_at": notification.occurred.astimezone(UTC).isoformat().replace("+00:00", "Z"),
    }


def signature(secret: str, timestamp: int, body: bytes) -> str:
    """`sha256=` and the hexadecimal HMAC-SHA256 of `timestamp.body`."""
    digest = hmac.new(secret.encode(), str(timestamp).encode() + b"." + body, hashlib.sha256).hexdigest()
    return f"sha256={digest}"


def signed(secret: str | None, id: str, body: bytes, now: datetime) -> dict[str, str]:
    """Headers beside a webhook's body."""
    timestamp = int(now.timestamp())
    found = {"X-Spendscope-Id": id, "X-Spendscope-Timestamp": str(timestamp)}
    return found | ({"X-Spendscope-Signature": signature(secret, timestamp, body)} if secret else {})


# --- PagerDuty --------------------------------------------------------------------------------------------------------


def pagerduty_body(notification: Notification, id: str, routing_key: str) -> Json:
    """An event of the Events API v2: resolved ones close the incident that the same key opened."""
    body: Json = {
        "routing_key": routing_key,
        "event_action": "resolve" if notification.resolved else "trigger",
        "dedup_key": incident_key(notification, id),
        "client": "Spendscope",
        "payload": {
            "summary": cut(headline(notification), PAGERDUTY_SUMMARY),
            "source": "Spendscope",
            "severity": notification.severity,
            "timestamp": notification.occurred.astimezone(UTC).isoformat(),
            "class": notification.kind,
            "custom_details": {name or "more": value for name, value in notification.facts},
        },
    }
    if notification.link:
        body["links"] = [{"href": notification.link, "text": OPEN_WORDS}]
    return body


def incident_key(notification: Notification, id: str) -> str:
    """64 letters that are the same for a message and the one that resolves it."""
    return hashlib.sha256(incident_of(notification, id).encode("utf-8", "surrogatepass")).hexdigest()


def incident_of(notification: Notification, id: str) -> str:
    """What a message and the one that resolves it have in common."""
    return notification.key.removesuffix(RESOLVED) or id


RESOLVED: Final = " resolved"


def resolution(notification: Notification, occurred: datetime) -> Notification:
    """The message that it is over: its own event of the same incident, as weighty, so that the same people hear it."""
    return replace(notification, resolved=True, occurred=occurred, key=notification.key + RESOLVED)


# --- Opsgenie, and Jira Service Management ----------------------------------------------------------------------------


def opsgenie_request(notification: Notification, id: str, region: str) -> tuple[str, Json]:
    """Address and body: an alert whose alias is the incident, or what closes the alert of that alias."""
    alias, url = incident_key(notification, id), OPSGENIE_URLS[region]
    if notification.resolved:
        return f"{url}/{alias}/close?identifierType=alias", {"source": "Spendscope", "note": headline(notification)}
    lines = [f"{name}: {value}" if name else value for name, value in notification.facts]
    link = [f"{OPEN_WORDS}: {notification.link}"] if notification.link else []
    return url, {
        "message": cut(headline(notification), OPSGENIE_MESSAGE),
        "alias": alias,
        "description": cut("\n".join([headline(notification), *lines, *link]), OPSGENIE_DESCRIPTION),
        "details": _opsgenie_details(notification),
        "entity": cut(", ".join(notification.accounts) or "all accounts", OPSGENIE_ENTITY),
        "source": "Spendscope",
        "tags": ["spendscope", notification.kind],
        "priority": PRIORITIES[notification.severity],
    }


def _opsgenie_details(notification: Notification) -> Json:
    """As many facts as it takes, whole; the description has them all."""
    found: Json = {"severity": notification.severity, "occurred": notification.occurred.astimezone(UTC).isoformat()}
    room = OPSGENIE_DETAILS - sum(len(name) + len(value) for name, value in found.items())
    for name, value in notification.facts:
        room -= len(name or "more") + len(value)
        if room < 0:
            break
        found[name or "more"] = value
    return found


# --- what an answer means ---------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Verdict:
    """`delivered`; `refused`: trying again does not help; `later`: it may.

    `wait` is what the receiver asked for. `pauses`: it asked for it for everything, not for this message.
    `is_access`: address or key are wrong.
    """

    outcome: Literal["delivered", "refused", "later"]
    message: str = ""
    wait: timedelta | None = None
    pauses: bool = False
    is_access: bool = False


def verdict_on(
    receiver: str, status: int, headers: Mapping[str, str], body: bytes, now: datetime, name: str
) -> Verdict:
    """What an HTTP answer means. Nothing of its body is repeated: it may quote the address, which is a secret."""
    if 200 <= status < 300:
        return _accepted(receiver, body, name)
    said = f"{name} answers {status}"
    if status in (408, 425, 429) or status >= 500:
        wait = retry_after(headers, now)
        return Verdict("later", f"{said}.", wait, pauses=status == 429)
    if 300 <= status < 400:
        return Verdict("refused", f"{said}, a redirect: it is not followed. Correct the channel's address.")
    is_access = status in (401, 403, 404, 410)
    way_out = "Correct the channel's address or key." if is_access else "It does not take this message."
    return Verdict("refused", f"{said}. {way_out}", is_access=is_access)


def _accepted(receiver: str, body: bytes, name: str) -> Verdict:
    """Slack says `ok`; an error of Teams' connectors comes as text with 200."""
    words = body[:2000].decode("utf-8", "replace")
    if receiver == "slack" and words.strip() != "ok":
        return Verdict("later", f"{name} answers 200, but not ok as Slack does. Is it an incoming webhook of Slack?")
    if receiver == "teams" and "failed with error" in words.lower():
        return Verdict("later", f"{name} answers 200 with an error.", pauses="429" in words)
    return Verdict("delivered")


def retry_after(headers: Mapping[str, str], now: datetime) -> timedelta | None:
    """Retry-After as seconds or as an HTTP date, at most an hour; None without one that can be read."""
    value = next((value for name, value in headers.items() if name.lower() == "retry-after"), "").strip()
    if value.isascii() and value.isdigit():
        asked = timedelta(seconds=min(int(value[:9]), 10**8))
    else:
        asked = _until(value, now)
    return None if asked <= timedelta(0) else min(asked, MOST_RETRY_AFTER)


def _until(value: str, now: datetime) -> timedelta:
    try:
        moment = parsedate_to_datetime(value)
    except ValueError:
        return timedelta(0)
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)) - now
