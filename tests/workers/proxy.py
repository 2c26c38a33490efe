"""A TCP proxy in front of a Redis socket that can lose one reply, or go silent."""

from __future__ import annotations

import socket
import threading
from contextlib import suppress
from pathlib import Path
from types import TracebackType


class FaultProxy:
    def __init__(self, target: Path) -> None:
        self._target = str(target)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"redis://127.0.0.1:{self._listener.getsockname()[1]}/0"
        self.dropped = 0
        self._pattern: bytes | None = None
        self._open: list[socket.socket] = []

    def __enter__(self) -> FaultProxy:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._listener.close()
        for connection in self._open:
            connection.close()

    def drop_reply_to(self, pattern: bytes) -> None:
        """Deliver the next request that contains `pattern`, and cut the connection instead of giving the reply back."""
        self._pattern = pattern

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                near, _ = self._listener.accept()
                far = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
                far.connect(self._target)
                self._open += [near, far]
                threading.Thread(target=self._serve, args=(near, far), daemon=True).start()

    def _serve(self, near: socket.socket, far: socket.socket) -> None:
        cutting = threading.Event()
        threading.Thread(target=self._answers, args=(near, far, cutting), daemon=True).start()
        with suppress(OSError):
            while request := near.recv(65536):
                if self._pattern and self._pattern in request:
                    self._pattern = None
                    cutting.set()
                far.sendall(request)
            far.shutdown(socket.SHUT_RDWR)

    def _answers(self, near: socket.socket, far: socket.socket, cutting: threading.Event) -> None:
        with suppress(OSError):
            while reply := far.recv(65536):
                if cutting.is_set():
                    self.dropped += 1
                    near.shutdown(socket.SHUT_RDWR)
                    return
                near.sendall(reply)
