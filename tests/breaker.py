"""What stands between a client and a server on this machine, and drops, delays, swallows or loses what goes through."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Literal

Mode = Literal["pass", "refuse", "silent", "slow"]


class Breaker:
    """A TCP proxy in front of a port or a Unix socket.

    `refuse` drops every connection, also those there are; `silent` takes what comes and gives nothing back, as a
    connection does whose other end lost its power; `slow` holds every answer back for `delay` seconds.
    """

    def __init__(self, target: tuple[str, int] | Path) -> None:
        self._target = target
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=256)
        self.port = int(self._listener.getsockname()[1])
        self.mode: Mode = "pass"
        self.delay = 0.0
        self.lost = 0
        """Answers that were lost on purpose."""
        self._losing: bytes | None = None
        self._open: set[socket.socket] = set()

    def __enter__(self) -> Breaker:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._listener.close()
        self._drop()

    def set(self, mode: Mode, delay: float = 0.0) -> None:
        self.mode, self.delay = mode, delay
        if mode == "refuse":
            self._drop()

    @contextmanager
    def broken(self, mode: Mode, delay: float = 0.0) -> Iterator[None]:
        self.set(mode, delay)
        try:
            yield
        finally:
            self.set("pass")
            # What was swallowed will never be answered: the connections are of no use to anybody.
            self._drop()

    def lose_answer_to(self, pattern: bytes) -> None:
        """Deliver the next request that contains `pattern`, and cut the connection instead of giving the answer back."""
        self._losing = pattern

    def _drop(self) -> None:
        for one in list(self._open):
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                near, _ = self._listener.accept()
                if self.mode == "refuse":
                    near.close()
                    continue
                threading.Thread(target=self._serve, args=(near,), daemon=True).start()

    def _serve(self, near: socket.socket) -> None:
        if isinstance(self._target, Path):
            far = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            address: Any = str(self._target)
        else:
            far, address = socket.socket(), self._target
        with near, far:
            try:
                far.connect(address)
            except OSError:
                return
            self._open |= {near, far}
            cut = threading.Event()
            back = threading.Thread(target=self._answers, args=(far, near, cut), daemon=True)
            back.start()
            self._requests(near, far, cut)
            back.join()
            self._open -= {near, far}

    def _requests(self, near: socket.socket, far: socket.socket, cut: threading.Event) -> None:
        with _ending(near, far):
            while piece := near.recv(65536):
                if self._losing and self._losing in piece:
                    self._losing = None
                    cut.set()
                if self.mode != "silent":
                    far.sendall(piece)

    def _answers(self, far: socket.socket, near: socket.socket, cut: threading.Event) -> None:
        with _ending(near, far):
            while piece := far.recv(65536):
                if cut.is_set():
                    self.lost += 1
                    return
                if self.mode == "slow":
                    time.sleep(self.delay)
                if self.mode != "silent":
                    near.sendall(piece)


@contextmanager
def _ending(*both: socket.socket) -> Iterator[None]:
    """Whichever end goes, the other one does."""
    with suppress(OSError):
        yield
    for one in both:
        with suppress(OSError):
            one.shutdown(socket.SHUT_RDWR)
