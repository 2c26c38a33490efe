"""ports.Webhooks: posts to addresses that somebody typed in, and never to anything inside.

An address is looked at (https, port, no user, a normal name), its name is resolved once, every address found must be
public, and the connection goes to one of exactly these: a name that resolves to something else a moment later (DNS
rebinding) is never asked again. TLS is checked against the name. Redirects are not followed, proxies are not used, and
all of it ends after ten seconds, whatever the receiver does.

Python's `is_global` says True for NAT64, 6to4 and parts of 192.0.0.0/24 and does not look into embedded IPv4
addresses, so those are refused here.
"""

from __future__ import annotations

import ipaddress
import ssl
import time
from collections.abc import Callable, Mapping
from concurrent.futures import TimeoutError as TookTooLong
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property
from http.client import HTTPException
from typing import Final
from urllib.parse import SplitResult, urlsplit

from app.errors import Refused, Unavailable
from app.exchange import Place, Resolver, exchange, resolved, within
from app.ports import Answered

PART: Final = "notifications"
SECONDS: Final = 10.0
MOST_ANSWER: Final = 64 * 1024
MOST_URL: Final = 2048

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network

NOT_PUBLIC: Final[tuple[Network, ...]] = tuple(
    ipaddress.ip_network(text)
    for text in (
        *("0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12", "192.0.0.0/24"),
        *("192.0.2.0/24", "192.88.99.0/24", "192.168.0.0/16", "198.18.0.0/15", "198.51.100.0/24", "203.0.113.0/24"),
        *("224.0.0.0/4", "240.0.0.0/4"),
        *("::/96", "::ffff:0:0/96", "::ffff:0:0:0/96", "64:ff9b::/96", "64:ff9b:1::/48", "100::/64", "2001::/23"),
        *("2001:db8::/32", "2002::/16", "3fff::/20", "5f00::/16", "fc00::/7", "fe80::/10", "fec0::/10", "ff00::/8"),
    )
)
"""Beside what `is_global` refuses: RFC 6890 and its successors, and every form that carries an IPv4 address inside."""

NEVER: Final[tuple[Network, ...]] = tuple(
    ipaddress.ip_network(text)
    for text in (
        *("0.0.0.0/8", "127.0.0.0/8", "169.254.0.0/16", "192.0.0.0/24", "100.100.100.200/32", "168.63.129.16/32"),
        *("224.0.0.0/4", "240.0.0.0/4", "::/96", "::ffff:0:0/96", "64:ff9b::/96", "2002::/16", "fe80::/10"),
        *("fd00:ec2::/32", "ff00::/8"),
    )
)
"""Not even of an allowed internal name: this machine, the cloud's metadata services (AWS, Google, Azure, Alibaba,
Oracle), multicast, and forms that carry another address inside."""


def is_public(address: Address) -> bool:
    return address.is_global and not any(address in network for network in NOT_PUBLIC)


def may_be_internal(address: Address) -> bool:
    """For a name that the owner has allowed."""
    return not any(address in network for network in NEVER)


@dataclass(frozen=True)
class Reach:
    """What may be asked. The defaults are those of production; only code can widen them, no setting can.

    `allowed`: names (with port) whose address may be internal, or whose port another one than 443.
    """

    allowed: frozenset[tuple[str, int]] = frozenset()
    schemes: frozenset[str] = frozenset({"https"})
    is_fine: Callable[[Address], bool] = is_public
    is_fine_allowed: Callable[[Address], bool] = may_be_internal

    def place(self, url: str, resolve: Resolver) -> Place:
        """Raises Refused with the reason, never with the address: it is a secret."""
        parts = _split(url)
        if parts.scheme not in self.schemes:
            raise Refused("The channel's address does not start with https://. Correct it.")
        if parts.username is not None or parts.password is not None:
            raise Refused("The channel's address has a user or a password in it. Take it out.")
        host, port = _host(parts), _port(parts)
        is_allowed = (host, port) in self.allowed
        if port != 443 and not is_allowed:
            raise Refused(
                f"The channel's address uses port {port}. Only 443, or one named in SPENDSCOPE_WEBHOOK_HOSTS."
            )
        addresses = self._addresses(host, port, resolve, is_allowed)
        target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        return Place(host, port, target, addresses, parts.scheme == "https")

    def _addresses(self, host: str, port: int, resolve: Resolver, is_allowed: bool) -> tuple[str, ...]:
        """Every address of the name, all of them fine: one that is not refuses the name."""
        try:
            found = [ipaddress.ip_address(text) for text in dict.fromkeys(resolve(host, port))]
        except (OSError, UnicodeError) as error:
            raise Unavailable(
                PART, f"The host of the channel's address cannot be found ({type(error).__name__})."
            ) from None
        except ValueError:
            raise Refused("The host of the channel's address has an address with a zone, which is internal.") from None
        is_fine = self.is_fine_allowed if is_allowed else self.is_fine
        if not found:
            raise Unavailable(PART, "The host of the channel's address has no address.")
        if not all(is_fine(address) for address in found):
            raise Refused(
                "The host of the channel's address is not on the internet. Name it in SPENDSCOPE_WEBHOOK_HOSTS if it is "
                "yours; this machine and metadata services are never asked."
            )
        return tuple(str(address) for address in found)


def _split(url: str) -> SplitResult:
    if len(url) > MOST_URL:
        raise Refused(f"The channel's address is longer than {MOST_URL} characters.")
    if (not url.isascii() and not url.isprintable()) or any(letter <= " " or letter in "\\\x7f" for letter in url):
        raise Refused("The channel's address has a blank, a backslash or a control character in it.")
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError:
        raise Refused("The channel's address cannot be read. Write it as https://host/path.") from None
    if parts.fragment or not parts.path.isascii() or not parts.query.isascii():
        raise Refused("The channel's address has a fragment (#) or letters that are not percent-encoded in it.")
    return parts


def _port(parts: SplitResult) -> int:
    port = parts.port if parts.port is not None else 443 if parts.scheme == "https" else 80
    if not port:
        raise Refused("The channel's address uses port 0.")
    return port


def _host(parts: SplitResult) -> str:
    """The name in the form of DNS (IDNA). An IP address only as usually written: resolvers read 0x7f.1 and 2130706433 too."""
    given = (parts.hostname or "").rstrip(".")
    if not given or "%" in given:
        raise Refused("The channel's address has no host, or one that cannot be asked.")
    if parts.netloc.rpartition("@")[2].startswith("["):
        return given
    try:
        host = given.encode("idna").decode("ascii").lower()
    except UnicodeError:
        raise Refused("The host of the channel's address is not a valid name.") from None
    _check_name(host)
    return host


def _check_name(host: str) -> None:
    last = host.rpartition(".")[2]
    if last.isdigit() or last.startswith("0x"):
        with suppress(ValueError):
            ipaddress.IPv4Address(host)
            return
        raise Refused("The host of the channel's address is an IP address in a form that is not used.")
    if not all(letter.isalnum() or letter in "-._" for letter in host) or ".." in host:
        raise Refused("The host of the channel's address is not a valid name.")


@dataclass
class Webhook:
    """`resolve` and `reach` are given by tests only; `tls` says whom to trust, None: whom this machine does."""

    reach: Reach = field(default_factory=Reach)
    resolve: Resolver = resolved
    seconds: float = SECONDS
    tls: ssl.SSLContext | None = None

    @cached_property
    def _trusting(self) -> ssl.SSLContext:
        """Made when something is sent: reading the machine's certificates takes 0.1 s, which every job would pay."""
        return self.tls or ssl.create_default_context()

    def post(self, url: str, headers: Mapping[str, str], body: bytes) -> Answered:
        until = time.monotonic() + self.seconds
        place = self._place(url, until)
        try:
            return exchange(place, "POST", headers, body, until=until, tls=self._trusting, most=MOST_ANSWER)
        except ssl.SSLCertVerificationError as error:
            raise Unavailable(PART, f"Its certificate is not accepted ({error.verify_message}).") from None
        except ssl.SSLError:
            raise Unavailable(PART, _said(until, "TLS with it fails")) from None
        except (OSError, HTTPException, ValueError) as error:
            raise Unavailable(PART, _said(until, f"It does not answer ({type(error).__name__})")) from None

    def _place(self, url: str, until: float) -> Place:
        try:
            return within(until, lambda: self.reach.place(url, self.resolve))
        except TookTooLong:
            raise Unavailable(PART, "The host of the channel's address is not found in time.") from None


def _said(until: float, what: str) -> str:
    return f"{what}, and its time was over." if time.monotonic() >= until - 0.05 else f"{what}."
