from __future__ import annotations

import email
import hashlib
import hmac
import json
import textwrap
from datetime import UTC, datetime, timedelta
from email.policy import default
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.core.messages import (
    SLACK_BLOCKS,
    SLACK_HEADER,
    SLACK_SECTION,
    TEAMS_BYTES,
    email_of,
    encoded,
    opsgenie_request,
    pagerduty_body,
    resolution,
    retry_after,
    signature,
    signed,
    slack_body,
    slack_escaped,
    teams_body,
    verdict_on,
    webhook_body,
)
from app.core.notifications import MOST_TEXT, Notification, plain

NOW = datetime(2026, 11, 24, 9, 30, tzinfo=UTC)
HOSTILE = [
    "<!channel> <!here> <@U123> <#C1>",
    "<https://evil.example|Click here>",
    "https://evil.example/login",
    "[x](https://evil.example)",
    "&lt;!channel&gt;",
    "<script>alert(1)</script><img src=x onerror=alert(1)>",
    "two\r\nBcc: victim@example.org\nlines",
    "\u202egnp.exe\u2066 right to left",
    "\x00\x1b[31mred\ud800",
    "<" * 40_000,
    "&" * 40_000,
    "é💰" * 20_000,
]


def notification(title: str = "Amazon S3 costs more", **changes: Any) -> Notification:
    given = {"facts": (("Account", "1"),), "link": "https://costs.example.org/?a=b&c=d", **changes}
    return Notification("anomaly", "warning", title, "anomaly/1", NOW, **given).bounded()


def texts(part: Any) -> list[str]:
    """Every text in a document."""
    if isinstance(part, dict):
        return [text for value in part.values() for text in texts(value)]
    if isinstance(part, list):
        return [text for value in part for text in texts(value)]
    return [part] if isinstance(part, str) else []


@pytest.mark.parametrize("hostile", HOSTILE)
def test_slack_gets_no_mention_and_no_link_from_data(hostile: str) -> None:
    body = slack_body(notification(hostile, facts=((hostile, hostile),) * 60), "id")
    assert len(body["blocks"]) <= SLACK_BLOCKS
    assert len(body["blocks"][0]["text"]["text"]) <= SLACK_HEADER
    for block in body["blocks"]:
        assert len(block.get("text", {}).get("text", "")) <= SLACK_SECTION
        if block.get("text", {}).get("type") == "mrkdwn":
            assert block["text"]["verbatim"] is True
    ours = "<https://costs.example.org/?a=b&amp;c=d|Open in Spendscope>"
    for text in texts(body):
        left = text.replace(ours, "")
        assert "<" not in left
        assert ">" not in left
        assert "\n" not in left
    encoded(body)


@given(st.text(max_size=300), st.integers(60, 200))
def test_an_escaped_text_is_never_cut_within_an_entity(text: str, most: int) -> None:
    escaped = slack_escaped(text, most)
    assert len(escaped) <= most
    assert "&" not in escaped.replace("&amp;", "").replace("&lt;", "").replace("&gt;", "")


def test_a_cut_says_so_and_how_long_it_was() -> None:
    assert plain("x" * 40_000, 100).endswith("[cut, 40000 characters]")
    assert len(notification("x" * 40_000).title) == MOST_TEXT
    many = notification(facts=tuple((str(n), "v") for n in range(100)))
    assert many.facts[-1] == ("", "and 60 more facts")
    assert any("left out" in text for text in texts(teams_body(notification(facts=(("n", "💰" * 2000),) * 40), "i")))


@pytest.mark.parametrize("hostile", HOSTILE)
def test_teams_gets_a_card_that_fits_and_no_markdown_from_data(hostile: str) -> None:
    body = teams_body(notification(hostile, facts=((hostile, hostile),) * 40), "id")
    assert len(encoded(body)) <= TEAMS_BYTES
    card = body["attachments"][0]["content"]
    # A TextBlock would read Markdown; a run of a RichTextBlock does not.
    assert {part["type"] for part in card["body"]} == {"RichTextBlock"}
    assert card["actions"][0]["url"] == "https://costs.example.org/?a=b&c=d"


@pytest.mark.parametrize("hostile", HOSTILE)
def test_an_email_has_the_headers_we_wrote_and_escaped_html(hostile: str) -> None:
    made = email_of(
        notification(hostile, facts=((hostile, hostile),)),
        "id7",
        sender="a@b.example",
        recipients=("c@d.example",),
        now=NOW,
    )
    read = email.message_from_bytes(made.as_bytes(), policy=default)
    assert sorted(read.keys()) == sorted(
        ["From", "To", "Subject", "Date", "Message-ID", "Auto-Submitted", "Content-Type", "MIME-Version"]
    )
    assert read["To"] == "c@d.example"
    page = read.get_body(("html",)).get_content()  # type: ignore[union-attr]
    assert "<script" not in page
    assert "<img" not in page
    assert read.get_body(("plain",)) is not None


def test_the_signature_is_what_the_documentation_says() -> None:
    body = encoded(webhook_body(notification(), "id"))
    headers = signed("s3cret", "id", body, NOW)
    expected = hmac.new(b"s3cret", headers["X-Spendscope-Timestamp"].encode() + b"." + body, hashlib.sha256).hexdigest()
    assert headers["X-Spendscope-Signature"] == f"sha256={expected}"
    assert headers["X-Spendscope-Id"] == "id"
    assert signature("s3cret", 1, body) != signature("s3cret", 2, body)
    assert "X-Spendscope-Signature" not in signed(None, "id", body, NOW)


def test_a_webhooks_body_says_everything() -> None:
    body = json.loads(encoded(webhook_body(notification(accounts=("1",)), "id")))
    assert body["occurred_at"] == "2026-11-24T09:30:00Z"
    assert (body["id"], body["kind"], body["severity"], body["accounts"]) == ("id", "anomaly", "warning", ["1"])
    assert body["facts"] == [{"name": "Account", "value": "1"}]


def test_a_resolved_one_closes_the_incident_it_opened() -> None:
    opened = notification()
    over = resolution(opened, NOW)
    first, second = (pagerduty_body(one, "x", "key") for one in (opened, over))
    assert (first["event_action"], second["event_action"]) == ("trigger", "resolve")
    assert first["dedup_key"] == second["dedup_key"]
    assert over.key != opened.key
    assert second["payload"]["summary"].startswith("Resolved: ")


@pytest.mark.parametrize(
    ("status", "outcome", "is_access", "pauses"),
    [
        (200, "delivered", False, False),
        (204, "delivered", False, False),
        (301, "refused", False, False),
        (307, "refused", False, False),
        (400, "refused", False, False),
        (401, "refused", True, False),
        (403, "refused", True, False),
        (404, "refused", True, False),
        (408, "later", False, False),
        (410, "refused", True, False),
        (413, "refused", False, False),
        (429, "later", False, True),
        (500, "later", False, False),
        (503, "later", False, False),
    ],
)
def test_what_an_answer_means(status: int, outcome: str, is_access: bool, pauses: bool) -> None:
    found = verdict_on("webhook", status, {}, b"the-secret", NOW, "x")
    assert (found.outcome, found.is_access, found.pauses) == (outcome, is_access, pauses)
    assert "the-secret" not in found.message


def test_an_error_that_comes_with_200_is_none_delivered() -> None:
    assert verdict_on("slack", 200, {}, b"ok", NOW, "x").outcome == "delivered"
    assert verdict_on("slack", 200, {}, b"invalid_token", NOW, "x").outcome == "later"
    assert verdict_on("teams", 202, {}, b"", NOW, "x").outcome == "delivered"
    found = verdict_on("teams", 200, {}, b"Webhook message delivery failed with error: HTTP error 429", NOW, "x")
    assert (found.outcome, found.pauses) == ("later", True)


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("7", 7),
        (" 7 ", 7),
        ("0", None),
        ("999999", 3600),
        ("9" * 50, 3600),
        ("-5", None),
        ("soon", None),
        ("", None),
        ("Tue, 24 Nov 2026 09:31:00 GMT", 60),
        ("Tue, 24 Nov 2026 09:29:00 GMT", None),
        ("Fri, 24 Nov 2062 09:29:00 GMT", 3600),
        ("Tue, 24 Nov 2026 99:99:99 GMT", None),
        ("\u0665", None),
    ],
)
def test_retry_after_is_seconds_or_a_date(value: str, seconds: int | None) -> None:
    expected = None if seconds is None else timedelta(seconds=seconds)
    assert retry_after({"Retry-After": value}, NOW) == expected
    assert retry_after({"retry-after": value}, NOW) == expected


@given(st.text(max_size=40))
def test_no_retry_after_breaks_anything(value: str) -> None:
    found = retry_after({"Retry-After": value}, NOW)
    assert found is None or timedelta(0) < found <= timedelta(hours=1)


def test_the_check_in_the_documentation_accepts_ours_and_nothing_else() -> None:
    text = (Path(__file__).parent.parent.parent / "docs/notifications.md").read_text("utf-8")
    code = text[text.index("    import hashlib, hmac, time") :].split("\n\n## ")[0]
    namespace: dict[str, Any] = {}
    exec(textwrap.dedent(code), namespace)
    is_from_spendscope = namespace["is_from_spendscope"]
    body, now = encoded(webhook_body(notification(), "id")), datetime.now(UTC)
    headers = signed("s3cret", "id", body, now)
    assert is_from_spendscope("s3cret", headers, body)
    assert not is_from_spendscope("another", headers, body)
    assert not is_from_spendscope("s3cret", headers, body + b" ")
    later = {**headers, "X-Spendscope-Timestamp": str(int(now.timestamp()) + 1)}
    assert not is_from_spendscope("s3cret", later, body)
    assert not is_from_spendscope("s3cret", signed("s3cret", "id", body, now - timedelta(minutes=6)), body)


@pytest.mark.parametrize("hostile", HOSTILE)
def test_opsgenie_gets_an_alert_within_its_limits(hostile: str) -> None:
    told = notification(hostile, facts=((hostile, hostile),) * 60, accounts=(hostile,) * 60)
    url, body = opsgenie_request(told, "id", "eu")
    assert url == "https://api.eu.opsgenie.com/v2/alerts"
    assert len(body["message"]) <= 130
    assert len(body["description"]) <= 15_000
    assert len(body["entity"]) <= 512
    assert sum(len(name) + len(value) for name, value in body["details"].items()) <= 8_000
    assert (body["priority"], body["tags"], len(body["alias"])) == ("P3", ["spendscope", "anomaly"], 64)
    encoded(body)


def test_what_is_over_closes_the_alert_of_the_same_alias() -> None:
    opened = notification()
    made = opsgenie_request(opened, "x", "us")[1]
    url, body = opsgenie_request(resolution(opened, NOW), "y", "jsm")
    assert url == (
        f"https://api.atlassian.com/jsm/ops/integration/v2/alerts/{made['alias']}/close?identifierType=alias"
    )
    assert body["note"].startswith("Resolved: ")
    assert opsgenie_request(notification("critical one"), "id", "us")[1]["details"]["Account"] == "1"
