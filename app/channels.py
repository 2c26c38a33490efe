"""Where notifications go: the channels of SPENDSCOPE_CHANNELS_FILE, a TOML file (docs/notifications.md).

Every secret may stand in a file of its own: `url_file` instead of `url`, as with settings. Errors name the channel and
the member, never a value that may be secret.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from datetime import time, timedelta
from pathlib import Path
from typing import Annotated, Any, Final, Literal
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SecretStr,
    TypeAdapter,
    ValidationError,
    field_validator,
    model_validator,
)

from app.core.notifications import KINDS, Notification, NotificationKind, Pace, QuietHours, Severity, is_wanted
from app.errors import CannotStart

SECRETS: Final = ("url", "secret", "password", "routing_key", "api_key")
MOST_CHANNELS: Final = 100
ADDRESS: Final = re.compile(r"[^\s@<>,;:\"]+@[^\s@<>,;:\"]+")

Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]{0,39}$")]


def _list(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


Texts = Annotated[tuple[str, ...], BeforeValidator(_list)]


class _Channel(BaseModel):
    """What all have in common: which notifications it wants, and when."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    name: Name
    kinds: Annotated[tuple[NotificationKind, ...], BeforeValidator(_list)] = Field(KINDS)
    least_severity: Severity = "info"
    accounts: Texts = ()
    quiet_hours: str | None = Field(None, pattern=r"^([01]\d|2[0-3]):[0-5]\d-([01]\d|2[0-3]):[0-5]\d$")
    time_zone: str = "UTC"
    digest_minutes: int = Field(15, ge=0, le=24 * 60)
    most_messages: int = Field(5, ge=1, le=100)

    @field_validator("kinds")
    @classmethod
    def _kinds_can_be_chosen(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if wrong := set(value) - set(KINDS):
            raise ValueError(f"{', '.join(sorted(wrong))} cannot be chosen; use {', '.join(KINDS)}")
        return value

    @field_validator("time_zone")
    @classmethod
    def _zone_is_known(cls, value: str) -> str:
        try:
            ZoneInfo(value)
        except (ZoneInfoNotFoundError, ValueError, OSError):
            raise ValueError("is not the name of a time zone, for example Europe/Berlin") from None
        return value

    @property
    def quiet(self) -> QuietHours | None:
        if self.quiet_hours is None:
            return None
        start, end = (time.fromisoformat(part) for part in self.quiet_hours.split("-"))
        return QuietHours(start, end, ZoneInfo(self.time_zone))

    @property
    def pace(self) -> Pace:
        return Pace(self.most_messages, timedelta(minutes=self.digest_minutes))

    def wants(self, notification: Notification) -> bool:
        return is_wanted(notification, self.kinds, self.least_severity, self.accounts)


def _is_https(value: SecretStr) -> SecretStr:
    if not value.get_secret_value().startswith("https://"):
        raise ValueError("does not start with https://")
    return value


class SlackChannel(_Channel):
    """A Slack incoming webhook."""

    type: Literal["slack"]
    url: SecretStr

    _checked = field_validator("url")(_is_https)


class TeamsChannel(_Channel):
    """The URL of a Microsoft Teams workflow that posts a card."""

    type: Literal["teams"]
    url: SecretStr

    _checked = field_validator("url")(_is_https)


class WebhookChannel(_Channel):
    """Anything that takes JSON; signed when `secret` is given."""

    type: Literal["webhook"]
    url: SecretStr
    secret: SecretStr | None = None

    _checked = field_validator("url")(_is_https)


class PagerdutyChannel(_Channel):
    """A service's integration key of PagerDuty's Events API v2."""

    type: Literal["pagerduty"]
    routing_key: SecretStr
    kinds: Annotated[tuple[NotificationKind, ...], BeforeValidator(_list)] = Field(("anomaly", "data_stale"))
    """A summary of the week wakes nobody."""


class OpsgenieChannel(_Channel):
    """The key of an API integration: of Opsgenie (`us`, `eu`), or of Jira Service Management (`jsm`)."""

    type: Literal["opsgenie"]
    api_key: SecretStr
    region: Literal["us", "eu", "jsm"] = "us"
    kinds: Annotated[tuple[NotificationKind, ...], BeforeValidator(_list)] = Field(("anomaly", "data_stale"))
    """A summary of the week wakes nobody."""


class EmailChannel(_Channel):
    """A mail server that relays for us."""

    type: Literal["email"]
    host: str = Field(min_length=1)
    port: int = Field(587, ge=1, le=65535)
    security: Literal["starttls", "tls", "none"] = "starttls"
    user: str | None = None
    password: SecretStr | None = None
    sender: str
    recipients: Texts = Field(min_length=1, max_length=50)

    @field_validator("sender", "recipients")
    @classmethod
    def _addresses(cls, value: Any) -> Any:
        for address in _list(value):
            if not ADDRESS.fullmatch(address):
                raise ValueError("is not an address like costs@example.org")
        return value

    @model_validator(mode="after")
    def _login_is_whole(self) -> EmailChannel:
        if (self.user is None) != (self.password is None):
            raise ValueError("give user and password, or neither")
        if self.password is not None and self.security == "none":
            raise ValueError("a password is never sent without TLS: set security to starttls or tls")
        return self


Channel = SlackChannel | TeamsChannel | WebhookChannel | PagerdutyChannel | OpsgenieChannel | EmailChannel
_CHANNEL: Final[TypeAdapter[Channel]] = TypeAdapter(Annotated[Channel, Field(discriminator="type")])


def read_channels(path: Path | None) -> dict[str, Channel]:
    """Channels by name, in the file's order; none without a file. Raises CannotStart naming channel and member."""
    if path is None:
        return {}
    try:
        document = tomllib.loads(path.read_text("utf-8"))
    except OSError as error:
        raise CannotStart(f"SPENDSCOPE_CHANNELS_FILE: {path} cannot be read ({error.strerror}).") from None
    except UnicodeDecodeError:
        raise CannotStart(f"SPENDSCOPE_CHANNELS_FILE: {path} is not UTF-8.") from None
    except tomllib.TOMLDecodeError as error:
        # What is wrong and where ("at line 3, column 5"); never the line itself.
        place = re.search(r"\(at .*\)$", str(error))
        raise CannotStart(
            f"SPENDSCOPE_CHANNELS_FILE: {path} is not TOML {place[0] if place else ''}. docs/notifications.md has examples."
        ) from None
    return _channels(document, path)


def _channels(document: Mapping[str, Any], path: Path) -> dict[str, Channel]:
    entries = document.get("channel", [])
    if set(document) - {"channel"} or not isinstance(entries, list) or len(entries) > MOST_CHANNELS:
        raise CannotStart(
            f"{path}: write each channel as [[channel]], at most {MOST_CHANNELS} of them, and nothing else."
        )
    found: dict[str, Channel] = {}
    for number, entry in enumerate(entries, start=1):
        channel = _channel(entry, _called(entry, number), path)
        if channel.name in found:
            raise CannotStart(f"{path}: two channels are named {channel.name}.")
        found[channel.name] = channel
    return found


def _called(entry: Any, number: int) -> str:
    name = entry.get("name") if isinstance(entry, Mapping) else None
    return f"channel {name!r}" if isinstance(name, str) and len(name) <= 40 else f"channel number {number}"


def _channel(entry: Any, called: str, path: Path) -> Channel:
    if not isinstance(entry, Mapping):
        raise CannotStart(f"{path}: {called} is not a table.")
    try:
        return _CHANNEL.validate_python(_with_secrets(entry, called, path))
    except ValidationError as error:
        wrong = [
            f"{_member(part['loc'])}{_said(part)}" for part in error.errors(include_input=False, include_url=False)
        ]
        raise CannotStart(f"{path}: {called}: {'; '.join(wrong)}.") from None


def _member(place: tuple[int | str, ...]) -> str:
    """pydantic puts the type first."""
    names = [str(step)[:40] for step in place[1:]]
    return f"{'.'.join(names)} " if names else ""


def _said(part: Any) -> str:
    if part["type"] == "extra_forbidden":
        return "is not known"
    if part["type"] == "missing":
        return "is missing"
    if part["type"] in ("union_tag_invalid", "union_tag_not_found"):
        return "type is not one of slack, teams, email, webhook, pagerduty, opsgenie"
    message: str = part["msg"].removeprefix("Value error, ")
    return message if part["type"] == "value_error" else f"is wrong: {message}"


def _with_secrets(entry: Mapping[str, Any], called: str, path: Path) -> dict[str, Any]:
    """The entry with every `NAME_file` read."""
    found = dict(entry)
    for name in SECRETS:
        if (given := found.pop(f"{name}_file", None)) is None:
            continue
        if name in found:
            raise CannotStart(f"{path}: {called}: give {name} or {name}_file, not both.")
        try:
            found[name] = (path.parent / str(given)).read_text("utf-8").strip()
        except (OSError, UnicodeDecodeError, ValueError):
            raise CannotStart(f"{path}: {called}: the file named by {name}_file cannot be read.") from None
    return found
