"""What Amazon S3 says about objects, in the three shapes in which it reaches a queue.

- straight from the bucket: `{"Records": [{"eventSource": "aws:s3", "s3": {"bucket": {"name"}, "object": {"key"}}}]}`,
  keys URL-encoded with `+` for a space; once, when notifications are set up, `{"Event": "s3:TestEvent"}`
  (Amazon S3 User Guide, "Event message structure");
- through SNS: `{"Type": "Notification", "Message": "<one of these as text>"}` (Amazon SNS, "Parsing message formats");
- from EventBridge: `{"source": "aws.s3", "detail": {"bucket": {"name"}, "object": {"key"}}}`, keys as they are
  (Amazon S3 User Guide, "EventBridge event message structure").

Only which object it is about is read. Event name, sequencer and version are not: whoever hears of an object looks at
it as it is now, so that events lost, doubled or out of order change nothing.
"""

from __future__ import annotations

import json
from typing import Any, Final
from urllib.parse import unquote_plus

MOST_LETTERS: Final = 2**20
"""A queue carries no longer messages."""
MOST_WRAPPINGS: Final = 2
SHOWN_LETTERS: Final = 60


class NotAnEvent(ValueError):
    """The message tells of no object, and `str()` says why."""


def objects_in(body: str) -> tuple[tuple[str, str], ...]:
    """(bucket, key) of every object a message is about, once each; none for the test message of a new notification.

    Raises NotAnEvent for everything that is not wholly one of the shapes above.
    """
    event = _read(body)
    for _ in range(MOST_WRAPPINGS):
        if event.get("Type") != "Notification":
            break
        event = _read(_text(event, "Message"))
    if event.get("Event") == "s3:TestEvent":
        return ()
    if "Records" in event:
        return tuple(dict.fromkeys(_of_record(record) for record in _list(event, "Records")))
    if event.get("source") == "aws.s3":
        return (_bucket_and_key(_object(event, "detail")),)
    raise NotAnEvent(
        f"it has neither Records nor an S3 source, but {', '.join(map(_shown, list(event)[:5])) or 'nothing'}"
    )


def _read(body: str) -> dict[str, Any]:
    if len(body) > MOST_LETTERS:
        raise NotAnEvent(f"it has {len(body)} characters")
    try:
        event = json.loads(body)
    except (ValueError, RecursionError):
        raise NotAnEvent(f"it is no JSON: {_shown(body)}") from None
    if not isinstance(event, dict):
        raise NotAnEvent(f"it is no JSON object: {_shown(body)}")
    return event


def _of_record(record: Any) -> tuple[str, str]:
    if not isinstance(record, dict) or not str(record.get("eventSource")).endswith(":s3"):
        raise NotAnEvent("one of its Records is not from S3")
    bucket, key = _bucket_and_key(_object(record, "s3"))
    try:
        return bucket, unquote_plus(key, errors="strict")
    except UnicodeDecodeError:
        raise NotAnEvent(f"a key is not URL-encoded UTF-8: {_shown(key)}") from None


def _bucket_and_key(about: dict[str, Any]) -> tuple[str, str]:
    return _text(_object(about, "bucket"), "name"), _text(_object(about, "object"), "key")


def _object(parent: dict[str, Any], name: str) -> dict[str, Any]:
    value = parent.get(name)
    if not isinstance(value, dict):
        raise NotAnEvent(f"{name} is no object")
    return value


def _list(parent: dict[str, Any], name: str) -> list[Any]:
    value = parent[name]
    if not isinstance(value, list):
        raise NotAnEvent(f"{name} is no list")
    return value


def _text(parent: dict[str, Any], name: str) -> str:
    value = parent.get(name)
    if not isinstance(value, str) or not value:
        raise NotAnEvent(f"{name} is no text")
    return value


def _shown(text: str) -> str:
    """A safe beginning of text that anybody may have sent."""
    return ascii(text[:SHOWN_LETTERS])
