from __future__ import annotations

import base64
from datetime import UTC, datetime
from email import message_from_bytes
from email.message import EmailMessage
from email.policy import default
from pathlib import Path
from typing import Any

import pytest

from app.adapters.smtp import Smtp
from app.core.messages import email_of
from app.core.notifications import Notification
from app.errors import BadCredentials, Refused, Unavailable
from app.ports import Relay
from tests.receivers import certificate, mail_server

NOW = datetime(2026, 11, 24, 9, 30, tzinfo=UTC)
PASSWORD = "a-very-secret-password"


def message() -> EmailMessage:
    told = Notification("anomaly", "warning", "Ünïcode\r\nBcc: x@y.example", "k", NOW, ((".", "."),))
    return email_of(told, "id7", sender="a@b.example", recipients=("c@d.example", "e@f.example"), now=NOW)


def relay(port: int, **changes: Any) -> Relay:
    return Relay(**{"host": "127.0.0.1", "port": port, "security": "none", **changes})


def test_a_message_arrives_whole_and_goes_to_those_who_were_named() -> None:
    with mail_server() as server:
        Smtp().send(message(), relay(server.port))
        [taken] = server.messages
        read = message_from_bytes(taken, policy=default)
        assert read["Subject"] == "[Spendscope warning] Ünïcode Bcc: x@y.example"
        assert read["Message-ID"] == "<id7@spendscope>"
        recipients = [line for line in server.commands if line.upper().startswith("RCPT")]
        assert len(recipients) == 2
        assert not any("y.example" in line for line in recipients)


def test_a_login_is_made_over_tls_only(tmp_path: Path) -> None:
    server_side, client_side = certificate(tmp_path, "127.0.0.1")
    with mail_server(server_side) as server:
        given = {"security": "starttls", "user": "u", "password": PASSWORD}
        Smtp(client_side).send(message(), relay(server.port, **given))
        said = "".join(server.commands)
        assert base64.b64encode(f"\0u\0{PASSWORD}".encode()).decode() in said
        assert server.commands.index("STARTTLS") < next(
            i for i, c in enumerate(server.commands) if c.startswith("AUTH")
        )
        assert len(server.messages) == 1
        with pytest.raises(Unavailable, match="certificate is not accepted"):
            Smtp().send(message(), relay(server.port, **given))
    with mail_server() as server:
        with pytest.raises(Refused):
            Smtp().send(message(), relay(server.port, user="u", password=PASSWORD))
        with pytest.raises(Refused, match="does not offer"):
            Smtp().send(message(), relay(server.port, security="starttls"))
        assert server.messages == []


@pytest.mark.parametrize(
    ("refuses", "raised"),
    [
        ({"MAIL": "451 later"}, Unavailable),
        ({"MAIL": "550 no"}, Refused),
        ({"RCPT": "450 busy"}, Unavailable),
        ({"RCPT": "550 unknown user"}, Refused),
        ({"DATA": "554 no"}, Refused),
    ],
)
def test_what_a_server_says_decides_whether_it_is_tried_again(refuses: dict[str, str], raised: type[Exception]) -> None:
    with mail_server(**refuses) as server, pytest.raises(raised):
        Smtp().send(message(), relay(server.port))


def test_wrong_credentials_are_told_without_the_password(tmp_path: Path) -> None:
    server_side, client_side = certificate(tmp_path, "127.0.0.1")
    with mail_server(server_side, AUTH=f"535 {PASSWORD} is wrong") as server, pytest.raises(BadCredentials) as raised:
        Smtp(client_side).send(message(), relay(server.port, security="starttls", user="u", password=PASSWORD))
    assert PASSWORD not in raised.value.message


def test_a_server_that_is_down_is_unavailable() -> None:
    with mail_server() as server:
        port = server.port
    with pytest.raises(Unavailable):
        Smtp().send(message(), relay(port))
