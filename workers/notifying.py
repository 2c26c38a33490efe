"""Notifications, in the scheduler's process: looks for what happened, and sends what waits, each channel by itself."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from typing import Final

from app.alerts import tell_what_happened
from app.backends import Backends
from app.errors import SpendscopeError
from app.notifications import send_next, tidy

log = logging.getLogger(__name__)

LOOK_SECONDS: Final = 30.0
POLL_SECONDS: Final = 1.0
REST_SECONDS: Final = 5.0
"""How long a channel is left alone that has something waiting and nothing to be sent: quiet hours, a used-up window."""


class Notifying:
    """A channel that is slow or down keeps none of the others waiting: each is sent to from a thread of its own."""

    def __init__(self, backends: Backends) -> None:
        self._backends = backends
        self._sending: dict[str, threading.Thread] = {}
        self._resting: dict[str, float] = {}
        self._look_at = 0.0
        self._said = ""

    def run(self, stop: threading.Event) -> None:
        while not stop.is_set():
            self.once(time.monotonic())
            stop.wait(POLL_SECONDS)

    def once(self, now: float) -> None:
        """Look for what happened when it is time, and start sending where something waits."""
        if now >= self._look_at:
            self._guarded(lambda: tell_what_happened(self._backends))
            self._guarded(lambda: tidy(self._backends))
            self._look_at = now + LOOK_SECONDS
        self._guarded(lambda: self._start(now))

    def _start(self, now: float) -> None:
        for name in self._backends.metadata.pending_channels():
            rested = now >= self._resting.get(name, 0.0)
            if rested and name in self._backends.channels and not self._is_sending(name):
                # A daemon: a message under way when the process ends is sent again by the next one, under its id.
                thread = threading.Thread(target=self._send, args=(name,), name=f"channel {name}", daemon=True)
                self._sending[name] = thread
                thread.start()

    def _is_sending(self, name: str) -> bool:
        thread = self._sending.get(name)
        return thread is not None and thread.is_alive()

    def _send(self, name: str) -> None:
        self._resting[name] = time.monotonic() + REST_SECONDS
        self._guarded(lambda: self._sent(name))

    def _sent(self, name: str) -> None:
        if send_next(self._backends, self._backends.channels[name]):
            del self._resting[name]

    def _guarded(self, work: Callable[[], object]) -> None:
        """What goes wrong is said once while it is the same, and tried again."""
        try:
            work()
        except SpendscopeError as error:
            if error.message != self._said:
                log.warning("notifications: %s", error.message)
            self._said = error.message
        except Exception as error:
            # Its text may quote an address of a channel.
            log.error("Notifications failed (%s); trying again", type(error).__name__)
