from __future__ import annotations

from datetime import time, timedelta
from pathlib import Path

import pytest

from app.channels import EmailChannel, SlackChannel, WebhookChannel, read_channels
from app.core.notifications import KINDS
from app.errors import CannotStart

SECRET = "T0-B0-very-secret"
WHOLE = f"""
[[channel]]
name = "platform"
type = "slack"
url_file = "slack-url"
kinds = ["anomaly", "restated"]
least_severity = "warning"
accounts = ["111111111111"]
quiet_hours = "22:00-07:00"
time_zone = "Europe/Berlin"
digest_minutes = 30

[[channel]]
name = "finance"
type = "email"
host = "smtp.example.org"
user = "costs"
password = "{SECRET}"
sender = "costs@example.org"
recipients = "finance@example.org"
kinds = "weekly"

[[channel]]
name = "own"
type = "webhook"
url = "https://example.org/{SECRET}"
secret = "{SECRET}"
"""


def written(folder: Path, text: str) -> Path:
    (folder / "slack-url").write_text(f"https://hooks.slack.com/services/{SECRET}\n")
    path = folder / "channels.toml"
    path.write_text(text)
    return path


def test_channels_come_from_a_file_and_their_secrets_from_others(tmp_path: Path) -> None:
    found = read_channels(written(tmp_path, WHOLE))
    assert list(found) == ["platform", "finance", "own"]
    platform, finance, own = found.values()
    assert isinstance(platform, SlackChannel)
    assert isinstance(finance, EmailChannel)
    assert isinstance(own, WebhookChannel)
    assert platform.url.get_secret_value() == f"https://hooks.slack.com/services/{SECRET}"
    assert platform.quiet is not None
    assert (platform.quiet.start, platform.quiet.end, platform.quiet.zone.key) == (time(22), time(7), "Europe/Berlin")
    assert platform.pace.window == timedelta(minutes=30)
    assert (finance.kinds, finance.recipients, own.kinds) == (("weekly",), ("finance@example.org",), KINDS)
    assert SECRET not in repr(found) + str(found) + "".join(one.model_dump_json() for one in found.values())


def test_without_a_file_there_are_no_channels() -> None:
    assert read_channels(None) == {}


SLACK = f'[[channel]]\nname = "a"\ntype = "slack"\nurl = "https://x.example/{SECRET}"\n'
EMAIL = '[[channel]]\nname = "a"\ntype = "email"\nhost = "h"\nsender = "a@b.example"\nrecipients = ["c@d.example"]\n'


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (SLACK.replace("slack", "fax"), "channel 'a': type is not one of slack"),
        (SLACK.replace("url =", "uri ="), "channel 'a': url is missing; uri is not known"),
        (SLACK.replace("https:", "http:"), "channel 'a': url does not start with https://"),
        (SLACK.replace('"a"', '"A b"'), "channel 'A b': name is wrong"),
        (SLACK + SLACK, "two channels are named a"),
        (SLACK + 'url_file = "slack-url"\n', "give url or url_file, not both"),
        (SLACK + 'kinds = ["rumour"]\n', "kinds.0 is wrong"),
        (SLACK + 'kinds = ["digest"]\n', "kinds digest cannot be chosen"),
        (SLACK + 'least_severity = "low"\n', "least_severity is wrong"),
        (SLACK + 'time_zone = "Mars/Base"\n', "time_zone is not the name of a time zone"),
        (SLACK + 'time_zone = "../../etc/passwd"\n', "time_zone is not the name of a time zone"),
        (SLACK + 'quiet_hours = "25:00-07:00"\n', "quiet_hours is wrong"),
        (SLACK + "digest_minutes = -1\n", "digest_minutes is wrong"),
        (SLACK.replace(f'"https://x.example/{SECRET}"', "7"), "url is wrong"),
        (EMAIL + 'user = "u"\n', "give user and password, or neither"),
        (EMAIL + f'user = "u"\npassword = "{SECRET}"\nsecurity = "none"\n', "never sent without TLS"),
        (EMAIL.replace("c@d.example", "c@d.example\\nBcc: x@y"), "recipients is not an address"),
        (EMAIL.replace("a@b.example", "Ann <a@b.example>"), "sender is not an address"),
        (f'[[channel]]\nname = "a"\ntype = "slack"\nurl_file = "{SECRET}"\n', "named by url_file cannot be read"),
        (f'[[channel]]\nname = "a"\nurl = "{SECRET}', "is not TOML (at "),
        (f'url = "{SECRET}"\n', "write each channel as [[channel]]"),
        (f'channel = ["{SECRET}"]\n', "channel number 1 is not a table"),
    ],
)
def test_an_error_names_channel_and_member_and_never_the_secret(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(CannotStart) as raised:
        read_channels(written(tmp_path, text))
    assert said in raised.value.message
    assert SECRET not in raised.value.message


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(CannotStart, match=r"nothing\.toml cannot be read"):
        read_channels(tmp_path / "nothing.toml")
    (tmp_path / "latin.toml").write_bytes(b"\xff")
    with pytest.raises(CannotStart, match="not UTF-8"):
        read_channels(tmp_path / "latin.toml")
