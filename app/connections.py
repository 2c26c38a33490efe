"""How gunicorn's threads treat connections: slow clients have an end, and a process that is being stopped says so first."""

from __future__ import annotations

import json
import mmap
import selectors
import socket
import struct
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from itertools import count
from typing import Any, Final

from gunicorn.arbiter import Arbiter
from gunicorn.http.errors import (
    ConfigurationProblem,
    InvalidResponseHeader,
    InvalidResponseHeaderName,
    LimitRequestHeaders,
    LimitRequestLine,
    NoMoreData,
    ParseException,
)
from gunicorn.workers.gthread import TConn, ThreadWorker
from werkzeug.exceptions import BadRequest

FIRST_BYTE_SECONDS: Final = 15.0
"""How long a new connection may say nothing. Browsers open some ahead of time. No thread waits for it."""

READ_SECONDS: Final = 15.0
"""How long a whole request (head and body, 256 KiB at most) may take to arrive. A thread waits for it."""

SEND_SECONDS: Final = 20
"""How long a client may take nothing of an answer."""

AFTER_YOU_SECONDS: Final = 0.004
"""How long a process leaves a new connection to one that took fewer."""

CLOSING_THREADS: Final = 2
"""They wait for clients to close what was answered for the last time."""

TOO_SLOW: Final = b"HTTP/1.1 408 Request Timeout\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"


UNREADABLE: Final = (400, "Bad Request", "bad_request")
TOO_LARGE: Final = {
    LimitRequestLine: (414, "URI Too Long", "bad_request"),
    LimitRequestHeaders: (431, "Request Header Fields Too Large", "bad_request"),
}
OUR_FAULT: Final = (ConfigurationProblem, InvalidResponseHeader, InvalidResponseHeaderName)


class Leaving:
    """Whether this server is being stopped; known to all processes that are forked after it was made."""

    def __init__(self) -> None:
        self._shared = mmap.mmap(-1, 1)

    def begin(self) -> None:
        self._shared[0] = 1

    def __call__(self) -> bool:
        return bool(self._shared[0])


class Shares:
    """How many new connections each process of this server took in this second; known to all that are forked after it was
    made. What they have open would be told too late: in a crowd, a process is slow to hear of its own connections' ends.
    """

    def __init__(self, processes: int) -> None:
        self._shared = memoryview(mmap.mmap(-1, 8 * processes)).cast("Q")

    def took_one(self, place: int, second: int) -> None:
        place %= len(self._shared)
        self._shared[place] = _COUNTS * second + self._taken(self._shared[place], second) + 1

    def is_ahead(self, place: int, second: int) -> bool:
        """Whether it took more than another one did."""
        taken = [self._taken(told, second) for told in self._shared]
        return taken[place % len(taken)] > min(taken)

    @staticmethod
    def _taken(told: int, second: int) -> int:
        return told % _COUNTS if told // _COUNTS == second else 0


_COUNTS: Final = 2**24
"""A process's place holds the second and the count as one number, as others read it while it is written."""


def give_place(arbiter: Arbiter, worker: TimelyWorker) -> None:
    """gunicorn's `pre_fork`: the new process counts where no living one does."""
    taken = {other.place for other in arbiter.WORKERS.values()}
    worker.place = next(place for place in count() if place not in taken)


class LeavingArbiter(Arbiter):  # type: ignore[misc]
    """On SIGTERM says for `seconds` that it is leaving and goes on serving, then stops. A second one stops at once.

    What sends requests here learns of it from /readyz and, by then, sends them elsewhere.
    """

    def __init__(self, app: Any, leaving: Leaving, seconds: float) -> None:
        self._leaving, self._seconds = leaving, seconds
        self._stop_at: float | None = None
        super().__init__(app)

    def handle_term(self) -> None:
        if self._leaving():
            raise StopIteration
        self._leaving.begin()
        self._stop_at = time.monotonic() + self._seconds

    def wait_for_signals(self, timeout: float = 1.0) -> Any:
        if self._stop_at is not None:
            timeout = min(timeout, max(0.0, self._stop_at - time.monotonic()))
        found = super().wait_for_signals(timeout)
        if self._stop_at is not None and time.monotonic() >= self._stop_at:
            raise StopIteration
        return found


@dataclass
class _Reading:
    socket: socket.socket
    until: float
    has_head: bool = False


class TimelyWorker(ThreadWorker):  # type: ignore[misc]
    """gunicorn's threads wait 5 s for the first byte of every connection and for ever for the rest of a request: some
    hundred idle connections, or as many slow clients as there are threads, stop a process.

    Here the main loop waits for first bytes, and a connection is cut for reading when its request has not arrived in
    time. An answer under way is not touched. The main loop does not wait for clients to close, as gunicorn's does for 2 s.

    Of a crowd that comes at once, the process that wakes up first would take nearly all, and keep them as long as they
    stay: half of them would wait for one processor while another is idle. So one that took more than another in this second
    lets it go first.
    """

    place = 0
    """Where in `shares` this process counts."""

    def __init__(self, *given: Any, **more: Any) -> None:
        super().__init__(*given, **more)
        self._reading: dict[int, _Reading] = {}
        self._shares: Shares = self.app.shares
        self._leaves_it_until: float | None = None

    def accept(self, listener: Any) -> None:
        """Or not yet: then the main loop asks again at once, and does in between what else there is."""
        if self._leaves_it(time.monotonic()):
            time.sleep(AFTER_YOU_SECONDS / 10)
            return
        self._leaves_it_until = None
        before = self.nr_conns
        super().accept(listener)
        if self.nr_conns > before:
            self._shares.took_one(self.place, int(time.monotonic()))

    def _leaves_it(self, now: float) -> bool:
        if not self._shares.is_ahead(self.place, int(now)):
            return False
        # What it left before may have been taken by another, long ago.
        if self._leaves_it_until is None or now > self._leaves_it_until + AFTER_YOU_SECONDS:
            self._leaves_it_until = now + AFTER_YOU_SECONDS
        return now < self._leaves_it_until

    def init_process(self) -> None:
        self._closing = ThreadPoolExecutor(CLOSING_THREADS, thread_name_prefix="close")
        super().init_process()

    def enqueue_req(self, conn: Any) -> None:
        if conn.initialized or conn.data_ready:
            super().enqueue_req(conn)
            return
        conn.close = partial(self._close, conn)
        conn.sock.setblocking(False)
        conn.timeout = time.monotonic() + FIRST_BYTE_SECONDS
        self.pending_conns.append(conn)
        self.poller.register(conn.sock, selectors.EVENT_READ, partial(self.on_pending_socket_readable, conn))

    def _close(self, conn: Any, graceful: bool = False) -> None:
        if graceful:
            self._closing.submit(TConn.close, conn, True)
        else:
            TConn.close(conn)

    def _cap_keepalive(self, deadline: float) -> None:
        """Of a stopping process: what has asked for nothing keeps it no longer than what has been answered."""
        super()._cap_keepalive(deadline)
        for conn in self.pending_conns:
            conn.timeout = min(conn.timeout, deadline)

    def handle(self, conn: Any) -> Any:
        me = threading.get_ident()
        with suppress(OSError):
            conn.sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, struct.pack("ll", SEND_SECONDS, 0))
        self._reading[me] = _Reading(conn.sock, time.monotonic() + READ_SECONDS)
        try:
            return super().handle(conn)
        finally:
            del self._reading[me]

    def handle_request(self, req: Any, conn: Any) -> Any:
        self._reading[threading.get_ident()].has_head = True
        return super().handle_request(req, conn)

    def handle_error(self, req: Any, client: Any, addr: Any, exc: Any) -> None:
        """What no request could be read from: gunicorn answers a page, and 501 for a coding that it does not know."""
        if not isinstance(exc, ParseException) or isinstance(exc, OUR_FAULT):
            super().handle_error(req, client, addr, exc)
            return
        self.log.warning("Invalid request from ip=%s: %s", (addr or ("",))[0], exc)
        with suppress(OSError):
            client.sendall(unreadable(exc))

    def murder_pending(self) -> None:
        """gunicorn calls it from its main loop, at least once a second."""
        super().murder_pending()
        now = time.monotonic()
        for reading in list(self._reading.values()):
            if now > reading.until:
                _cut(reading)


def unreadable(error: ParseException) -> bytes:
    """The whole answer to a request that cannot be read, as a problem (RFC 9457)."""
    status, phrase, code = next((told for kind, told in TOO_LARGE.items() if isinstance(error, kind)), UNREADABLE)
    problem = {
        "type": f"/api/docs#problem-{code}",
        "title": phrase,
        "status": status,
        "detail": f"{str(error)[:200] or phrase}. Send a request as HTTP/1.1 has it (RFC 9112).",
        "code": code,
    }
    body = json.dumps(problem).encode("ascii")
    head = f"HTTP/1.1 {status} {phrase}\r\nConnection: close\r\nContent-Type: application/problem+json\r\n"
    head += f"Cache-Control: no-store\r\nX-Content-Type-Options: nosniff\r\nContent-Length: {len(body)}\r\n\r\n"
    return head.encode("ascii") + body


class ReadableBody:
    """A body in chunks, of which one that is none is the client's mistake (400) and no failure of the app."""

    def __init__(self, body: Any) -> None:
        self._body = body

    def read(self, *size: int) -> Any:
        return self._read(self._body.read, *size)

    def readline(self, *size: int) -> Any:
        return self._read(self._body.readline, *size)

    def _read(self, read: Any, *size: int) -> Any:
        try:
            return read(*size)
        except (ParseException, NoMoreData) as error:
            raise BadRequest(f"The body cannot be read: {str(error)[:80]}. Send its chunks whole.") from None


def reads_chunks(wsgi: Any) -> Any:
    """The same WSGI application, with `ReadableBody` for bodies in chunks."""

    def answered(environ: dict[str, Any], start_response: Any) -> Any:
        if "HTTP_TRANSFER_ENCODING" in environ:
            environ["wsgi.input"] = ReadableBody(environ["wsgi.input"])
        return wsgi(environ, start_response)

    return answered


def _cut(reading: _Reading) -> None:
    with suppress(OSError):
        if not reading.has_head:
            reading.socket.send(TOO_SLOW, socket.MSG_DONTWAIT)
        reading.socket.shutdown(socket.SHUT_RD)
