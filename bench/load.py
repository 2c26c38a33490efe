"""A small load generator: so many connections, each with one request under way, for so many seconds."""

from __future__ import annotations

import selectors
import socket
import time
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Load:
    requests_a_second: float
    p50_ms: float
    p95_ms: float
    errors: int
    bytes_a_request: float


LONGEST = 180.0
"""Seconds after which a closed loop ends, whatever came."""


class _Connection:
    def __init__(self, address: tuple[str, int]) -> None:
        self.socket = socket.create_connection(address)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.buffer = b""
        self.began = 0.0

    def send(self, request: bytes) -> None:
        self.buffer = b""
        self.began = time.perf_counter()
        self.socket.sendall(request)

    def receive(self) -> tuple[int, int] | None:
        """(status, bytes) once the whole answer is there."""
        piece = self.socket.recv(1 << 18)
        if not piece:
            raise ConnectionError("the server closed a connection that waits for an answer")
        self.buffer += piece
        head, found, body = self.buffer.partition(b"\r\n\r\n")
        if not found:
            return None
        length = next(int(line[15:]) for line in head.split(b"\r\n") if line.lower().startswith(b"content-length:"))
        return (int(head[9:12]), len(self.buffer)) if len(body) >= length else None


def _summary(times: list[float], errors: int, size: int, seconds: float) -> Load:
    times.sort()
    at = lambda share: times[min(int(len(times) * share), len(times) - 1)] * 1000  # noqa: E731
    return Load(len(times) / seconds, at(0.5), at(0.95), errors, size / max(len(times), 1))


def closed_loop(address: tuple[str, int], requests: Sequence[bytes], *, connections: int, seconds: float) -> Load:
    """Every connection sends its next request as soon as its answer is there. A server that is slower than that is given
    the time until as many answers came as there are connections, or LONGEST."""
    times: list[float] = []
    errors = size = turn = 0
    with selectors.DefaultSelector() as selector:
        for number in range(connections):
            connection = _Connection(address)
            selector.register(connection.socket, selectors.EVENT_READ, connection)
            connection.send(requests[number % len(requests)])
        turn = connections
        began = time.perf_counter()
        while (now := time.perf_counter()) - began < (seconds if len(times) >= connections else LONGEST):
            for key, _ in selector.select(1):
                connection = key.data
                answer = connection.receive()
                if answer is None:
                    continue
                times.append(time.perf_counter() - connection.began)
                errors += answer[0] != 200
                size += answer[1]
                connection.send(requests[turn % len(requests)])
                turn += 1
        for key in list(selector.get_map().values()):
            key.data.socket.close()
    return _summary(times, errors, size, now - began)


def bursts(address: tuple[str, int], requests: Sequence[bytes], *, users: int, rounds: int, pause: float = 1.0) -> Load:
    """All users ask in the same moment, once every `pause` seconds."""
    times: list[float] = []
    errors = size = turn = 0
    connections = [_Connection(address) for _ in range(users)]
    with selectors.DefaultSelector() as selector:
        for connection in connections:
            selector.register(connection.socket, selectors.EVENT_READ, connection)
        for _ in range(rounds):
            began = time.perf_counter()
            for connection in connections:
                connection.send(requests[turn % len(requests)])
                turn += 1
            open_ones = users
            while open_ones:
                for key, _ in selector.select(5):
                    answer = key.data.receive()
                    if answer is not None:
                        times.append(time.perf_counter() - key.data.began)
                        errors += answer[0] != 200
                        size += answer[1]
                        open_ones -= 1
            time.sleep(max(0.0, pause - (time.perf_counter() - began)))
    for connection in connections:
        connection.socket.close()
    return _summary(times, errors, size, rounds * pause)


def post(path: str, body: bytes, host: str) -> bytes:
    head = (
        f"POST {path} HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(body)}\r\nConnection: keep-alive\r\n\r\n"
    )
    return head.encode() + body


def get(path: str, host: str) -> bytes:
    return f"GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: keep-alive\r\n\r\n".encode()
