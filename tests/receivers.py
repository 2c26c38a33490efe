"""Receivers of notifications that answer as they are told: over HTTP and HTTPS, and an SMTP server."""

from __future__ import annotations

import ipaddress
import socket
import socketserver
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from app.adapters.webhook import Reach, Webhook

Script = Callable[[socket.socket], None]
HOST = "hooks.example.org"


def say(status: int = 200, body: bytes = b"ok", **headers: str) -> Script:
    """A whole answer; a header's `_` is a dash."""

    def answer(connection: socket.socket) -> None:
        lines = [f"HTTP/1.1 {status} Said", f"Content-Length: {len(body)}", "Connection: close"]
        lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
        connection.sendall("\r\n".join(lines).encode() + b"\r\n\r\n" + body)

    return answer


def silent(seconds: float) -> Script:
    return lambda _: time.sleep(seconds)


def cut(connection: socket.socket) -> None:
    """Half an answer."""
    connection.sendall(b"HTTP/1.1 200 OK\r\nConte")


def dripping(seconds: float, start: bytes = b"HTTP/1.1 200 OK\r\nX: ") -> Script:
    """A byte now and then: no read ever times out."""

    def answer(connection: socket.socket) -> None:
        until = time.monotonic() + seconds
        connection.sendall(start)
        with suppress(OSError):
            while time.monotonic() < until:
                connection.sendall(b"x")
                time.sleep(0.05)

    return answer


def huge(connection: socket.socket) -> None:
    """200 and more than anybody reads."""
    connection.sendall(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n")
    with suppress(OSError):
        for _ in range(2000):
            connection.sendall(b"x" * 65536)


@dataclass
class Receiver:
    """What arrived, and what is answered: the scripts in order, the last one again and again."""

    port: int = 0
    scripts: list[Script] = field(default_factory=lambda: [say()])
    requests: list[tuple[str, dict[str, str], bytes]] = field(default_factory=list)
    connections: int = 0

    @property
    def bodies(self) -> list[bytes]:
        return [body for _, _, body in self.requests]

    def next(self) -> Script:
        return self.scripts.pop(0) if len(self.scripts) > 1 else self.scripts[0]


def _request(connection: socket.socket) -> tuple[str, dict[str, str], bytes] | None:
    data = b""
    while b"\r\n\r\n" not in data:
        if not (part := connection.recv(65536)):
            return None
        data += part
    head, _, body = data.partition(b"\r\n\r\n")
    first, *lines = head.decode().split("\r\n")
    headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
    while len(body) < int(headers.get("content-length", 0)):
        body += connection.recv(65536)
    return first.split(" ")[1], headers, body


@contextmanager
def receiver(
    *scripts: Script, host: str = "127.0.0.1", port: int = 0, tls: ssl.SSLContext | None = None
) -> Iterator[Receiver]:
    found = Receiver(scripts=list(scripts) or [say()])

    class Handler(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            found.connections += 1
            with suppress(OSError, ssl.SSLError):
                connection = tls.wrap_socket(self.request, server_side=True) if tls else self.request
                request = _request(connection)
                if request is not None:
                    found.requests.append(request)
                    found.next()(connection)
                if tls:
                    connection.close()

    class Server(socketserver.ThreadingTCPServer):
        allow_reuse_address = daemon_threads = True
        address_family = socket.AF_INET6 if ":" in host else socket.AF_INET

    with Server((host, port), Handler) as server:
        found.port = server.server_address[1]
        thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
        thread.start()
        try:
            yield found
        finally:
            server.shutdown()
            thread.join()


class AnyName:
    """Every name may use this port (or any): so that a receiver on another port than 443 can be asked in a test."""

    def __init__(self, port: int | None = None) -> None:
        self.port = port

    def __contains__(self, place: object) -> bool:
        return isinstance(place, tuple) and self.port in (None, place[1])


def webhook_to(found: Receiver, *, seconds: float = 3.0, address: str = "127.0.0.1", **changes: Any) -> Webhook:
    """The real adapter, for which every name is this receiver, reached without TLS unless `tls` says whom to trust."""
    schemes = frozenset({"https"} if "tls" in changes else {"http"})
    reach = Reach(AnyName(found.port), schemes, is_fine_allowed=lambda _: True)  # type: ignore[arg-type]
    return Webhook(reach, changes.pop("resolve", lambda *_: [address]), seconds, **changes)


# --- certificates -----------------------------------------------------------------------------------------------------


def certificate(folder: Path, *names: str, days: int = 1) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """(what a server with these names shows, what a client that trusts it believes)."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "spendscope tests")])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=5))
        .not_valid_after(now + timedelta(days=days))
        .add_extension(x509.SubjectAlternativeName([_general(one) for one in names]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    path = folder / "certificate.pem"
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    path.write_bytes(made.public_bytes(serialization.Encoding.PEM) + private)
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(path)
    client = ssl.create_default_context(cafile=str(path))
    client.verify_flags &= ~ssl.VERIFY_X509_STRICT
    return server, client


def _general(name: str) -> x509.GeneralName:
    with suppress(ValueError):
        return x509.IPAddress(ipaddress.ip_address(name))
    return x509.DNSName(name)


# --- e-mail -----------------------------------------------------------------------------------------------------------


@dataclass
class MailServer:
    port: int = 0
    refuses: dict[str, str] = field(default_factory=dict)
    """Command → what it is answered instead."""
    messages: list[bytes] = field(default_factory=list)
    commands: list[str] = field(default_factory=list)


@contextmanager
def mail_server(tls: ssl.SSLContext | None = None, **refuses: str) -> Iterator[MailServer]:
    """Enough of SMTP (RFC 5321) to take a message; STARTTLS and AUTH PLAIN when `tls` is given."""
    found = MailServer(refuses=refuses)

    class Handler(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            with suppress(OSError, ssl.SSLError), ExitStack() as open_ones:
                self._talk(self.request, open_ones)

        def _talk(self, connection: socket.socket, open_ones: ExitStack) -> None:
            connection.sendall(b"220 test ESMTP\r\n")
            stream = open_ones.enter_context(connection.makefile("rb"))
            while line := stream.readline():
                command = line.split()[0].decode().upper()
                found.commands.append(line.decode().strip())
                if command in found.refuses:
                    connection.sendall(found.refuses[command].encode() + b"\r\n")
                elif command == "EHLO":
                    more = b"250-STARTTLS\r\n250-AUTH PLAIN LOGIN\r\n" if tls else b""
                    connection.sendall(b"250-test\r\n" + more + b"250 8BITMIME\r\n")
                elif command == "STARTTLS" and tls:
                    connection.sendall(b"220 go\r\n")
                    connection = open_ones.enter_context(tls.wrap_socket(connection, server_side=True))
                    stream = open_ones.enter_context(connection.makefile("rb"))
                elif command == "AUTH":
                    connection.sendall(b"235 fine\r\n")
                elif command == "DATA":
                    connection.sendall(b"354 go\r\n")
                    lines = []
                    while (text := stream.readline()) not in (b".\r\n", b""):
                        lines.append(text)
                    found.messages.append(b"".join(lines))
                    connection.sendall(b"250 taken\r\n")
                elif command == "QUIT":
                    connection.sendall(b"221 bye\r\n")
                    return
                else:
                    connection.sendall(b"250 ok\r\n")

    class Server(socketserver.ThreadingTCPServer):
        allow_reuse_address = daemon_threads = True

    with Server(("127.0.0.1", 0), Handler) as server:
        found.port = server.server_address[1]
        thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
        thread.start()
        try:
            yield found
        finally:
            server.shutdown()
            thread.join()
