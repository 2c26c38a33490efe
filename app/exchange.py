"""One HTTP request to one checked address, over in time whatever the other side does; no redirect, no proxy, no pool.

For those who speak to servers that are not ours to trust: receivers of notifications, identity providers. What may be
asked at all is theirs to decide; here the connection goes to exactly the addresses that were looked at.
"""

from __future__ import annotations

import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPResponse, IncompleteRead
from typing import Any, Final, TypeVar

from app.ports import Answered

Found = TypeVar("Found")
Resolver = Callable[[str, int], Iterable[str]]

CONNECT_SECONDS: Final = 5.0


def resolved(host: str, port: int) -> list[str]:
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return [str(place[0]) for *_, place in found]


@dataclass(frozen=True)
class Place:
    """A checked address: what is connected to (`addresses`), what TLS is checked against (`host`), what is asked for."""

    host: str
    port: int
    target: str
    addresses: tuple[str, ...]
    is_tls: bool = True

    @property
    def authority(self) -> str:
        name = f"[{self.host}]" if ":" in self.host else self.host
        return name if self.port == (443 if self.is_tls else 80) else f"{name}:{self.port}"


def exchange(
    place: Place,
    method: str,
    headers: Mapping[str, str],
    body: bytes | None,
    *,
    until: float,
    tls: ssl.SSLContext,
    most: int,
) -> Answered:
    """Ask once; at most `most` bytes of the answer. `until` is a time of the monotonic clock.

    Raises what http.client, ssl and socket raise; after `until` the connection is cut, so one of these it is then.
    """
    connection = HTTPConnection(place.host, place.port)
    connection.response_class = _WholeAnswer
    try:
        with _ending(until) as held:
            connection.sock = _connected(place, until, held, tls)
            return _answer(connection, place, method, headers, body, most)
    finally:
        connection.close()


def within(until: float, work: Callable[[], Found]) -> Found:
    """A resolver has no timeout of its own; a thread that waits for one must not keep the process from ending.

    Raises concurrent.futures.TimeoutError.
    """
    found: Future[Found] = Future()

    def resolve() -> None:
        try:
            found.set_result(work())
        except BaseException as error:
            found.set_exception(error)

    threading.Thread(target=resolve, name="resolve", daemon=True).start()
    return found.result(max(0.1, until - time.monotonic()))


@contextmanager
def _ending(until: float) -> Iterator[list[socket.socket]]:
    """Cut what is held when time is over: a server that sends a byte now and then would hold it for ever.

    Not the connection's own socket: http.client lets go of that as soon as an answer begins that ends with it.
    """
    held: list[socket.socket] = []

    def cut() -> None:
        for each in held:
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)

    timer = threading.Timer(max(0.0, until - time.monotonic()), cut)
    timer.daemon = True
    timer.start()
    try:
        yield held
    finally:
        timer.cancel()
        for each in held:
            each.close()


def _connected(place: Place, until: float, held: list[socket.socket], tls: ssl.SSLContext) -> socket.socket:
    plain = _connect(place.addresses, place.port, until)
    held.append(plain)
    if not place.is_tls:
        return plain
    try:
        wrapped = tls.wrap_socket(plain, server_hostname=place.host, do_handshake_on_connect=False)
    except BaseException:
        plain.close()
        raise
    held[:] = [wrapped]
    wrapped.do_handshake()
    return wrapped


def _connect(addresses: Sequence[str], port: int, until: float) -> socket.socket:
    """To the first of these that answers; never to a name."""
    last: OSError = OSError("no address")
    for address in addresses:
        left = until - time.monotonic()
        if left <= 0:
            break
        try:
            connected = socket.create_connection((address, port), timeout=min(CONNECT_SECONDS, left))
        except OSError as error:
            last = error
            continue
        connected.settimeout(max(0.1, until - time.monotonic()))
        return connected
    raise last


class _Lines:
    """A stream that knows the last line read from it."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream
        self.last = b""

    def readline(self, *most: int) -> bytes:
        self.last = self._stream.readline(*most)
        return self.last

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


class _WholeAnswer(HTTPResponse):
    """http.client takes headers that break off for their end, and so half an answer for a whole one."""

    def begin(self) -> None:
        lines: Any = _Lines(self.fp)
        self.fp = lines
        super().begin()
        if lines.last not in (b"\r\n", b"\n"):
            raise IncompleteRead(b"")


def _answer(
    connection: HTTPConnection, place: Place, method: str, headers: Mapping[str, str], body: bytes | None, most: int
) -> Answered:
    sent = {"Host": place.authority, "User-Agent": "spendscope", "Connection": "close", "Accept-Encoding": "identity"}
    connection.request(method, place.target, body=body, headers={**headers, **sent})
    with connection.getresponse() as answer:
        said = answer.read(most)
        if answer.length and len(said) < most:
            raise IncompleteRead(said)
        return Answered(answer.status, dict(answer.getheaders()), said)
