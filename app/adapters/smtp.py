"""ports.Mail on SMTP. Certificates are checked; a password is never sent without TLS."""

from __future__ import annotations

import smtplib
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from email.message import EmailMessage
from functools import cached_property
from typing import Final

from app.errors import BadCredentials, Refused, Unavailable
from app.ports import Relay

PART: Final = "notifications"
SECONDS: Final = 8.0


@dataclass
class Smtp:
    """`tls` says whom to trust, None: whom this machine does."""

    tls: ssl.SSLContext | None = None

    @cached_property
    def _trusting(self) -> ssl.SSLContext:
        """Made when something is sent: reading the machine's certificates takes 0.1 s."""
        return self.tls or ssl.create_default_context()

    def send(self, message: EmailMessage, relay: Relay) -> None:
        if relay.password is not None and relay.security == "none":
            raise Refused("A password is never sent without TLS. Set security to starttls or tls.")
        with _failures(), self._connected(relay) as server:
            if relay.security == "starttls":
                server.starttls(context=self._trusting)
            if relay.user is not None and relay.password is not None:
                server.login(relay.user, relay.password)
            server.send_message(message)

    def _connected(self, relay: Relay) -> smtplib.SMTP:
        if relay.security == "tls":
            return smtplib.SMTP_SSL(relay.host, relay.port, timeout=SECONDS, context=self._trusting)
        return smtplib.SMTP(relay.host, relay.port, timeout=SECONDS)


@contextmanager
def _failures() -> Iterator[None]:
    """What a server said is not repeated: it may quote user, password or addresses."""
    try:
        yield
    except smtplib.SMTPAuthenticationError as error:
        raise BadCredentials(PART, f"The mail server does not accept user and password ({error.smtp_code}).") from None
    except smtplib.SMTPRecipientsRefused as error:
        codes = sorted({code for code, _ in error.recipients.values()})
        raise _answered(codes[-1], "takes no recipient") from None
    except smtplib.SMTPResponseException as error:
        raise _answered(error.smtp_code, "answers") from None
    except smtplib.SMTPNotSupportedError:
        raise Refused("The mail server does not offer what the channel asks for (STARTTLS or a login).") from None
    except ssl.SSLCertVerificationError as error:
        raise Unavailable(PART, f"The mail server's certificate is not accepted ({error.verify_message}).") from None
    except (OSError, smtplib.SMTPException, ValueError) as error:
        raise Unavailable(PART, f"The mail server does not answer ({type(error).__name__}).") from None


def _answered(code: int, what: str) -> Refused | Unavailable:
    """RFC 5321: 4yz may work later, 5yz will not."""
    if code >= 500:
        return Refused(f"The mail server {what} ({code}). Correct sender and recipients of the channel.")
    return Unavailable(PART, f"The mail server {what} ({code}).")
