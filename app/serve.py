"""The web server process: gunicorn with threads, the app loaded once before its workers fork."""

from __future__ import annotations

import gc
import logging
import sys
from typing import Any, Final

from gunicorn import glogging
from gunicorn.app.base import BaseApplication

from app.backends import Backends
from app.config import Settings
from app.connections import Leaving, LeavingArbiter, Shares, TimelyWorker, give_place, reads_chunks
from app.errors import BadCredentials, CannotStart, Unavailable
from app.launcher import check_address
from app.sharedcounts import count_together

log = logging.getLogger(__name__)

OBJECTS_BETWEEN_COLLECTIONS: Final = 20_000
"""Containers made and not freed: some pages' worth. Python's 700 are made several times in each."""


class Logger(glogging.Logger):  # type: ignore[misc]
    """What gunicorn itself has to say goes where everything else goes; requests are told of by app.requestlog."""

    def setup(self, cfg: Any) -> None:
        self.cfg = cfg
        self.error_log.handlers.clear()
        self.error_log.propagate = True
        self.error_log.setLevel(self.LOG_LEVELS[cfg.loglevel.lower()])
        self.access_log.handlers.clear()
        self.access_log.disabled = True


class Server(BaseApplication):  # type: ignore[misc]
    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.leaving = Leaving()
        self.shares = Shares(settings.web_processes)
        super().__init__()

    def load_config(self) -> None:
        for name, value in gunicorn_options(self.settings).items():
            self.cfg.set(name, value)
        self.cfg.set("pre_request", self._last_request)
        self.cfg.set("pre_fork", give_place)

    def _last_request(self, worker: Any, _: Any) -> None:
        """While leaving, every answer is the last one of its connection."""
        if self.leaving():
            worker.cfg.set("keepalive", 0)

    def run(self) -> None:
        LeavingArbiter(self, self.leaving, self.settings.leave_seconds).run()

    def load(self) -> Any:
        from app.backends import open_for_web
        from app.web import create_server

        backends = open_for_web(self.settings)
        make_ready(backends)
        server = create_server(backends)
        server.extensions["spendscope-leaving"] = self.leaving
        server.wsgi_app = reads_chunks(server.wsgi_app)  # type: ignore[method-assign]
        _leave_to_children()
        return server


def _leave_to_children() -> None:
    """What is loaded now is loaded for good, and shared with the workers forked from here: the garbage collector need not
    look through it again, which would also copy it. A page makes some thousand objects that go by themselves."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(OBJECTS_BETWEEN_COLLECTIONS)


def make_ready(backends: Backends) -> None:
    """Bring the metadata store to this release, and print the first admin's one-time token where one is needed.

    Raises CannotStart for a store of a newer release, and for one that does not let us in.
    """
    try:
        backends.metadata.prepare()
        first = claims_first_admin(backends.settings) and not backends.metadata.has_users()
    except BadCredentials as error:
        # Serving on would help nobody: waiting does not mend it.
        raise CannotStart(error.message) from None
    except Unavailable as error:
        # Pages say so until it answers; nothing is open meanwhile.
        log.warning("The metadata store does not answer yet: %s", error.message)
        return
    if first:
        print_claim(backends)
    backends.metadata.close()


def claims_first_admin(settings: Settings) -> bool:
    """Whether the first admin comes by a one-time token; with single sign-on, admins come by their group."""
    return not settings.on_loopback and settings.local_login and not settings.oidc_issuer


def print_claim(backends: Backends) -> None:
    """On the console and nowhere else: it is never logged as a message and never served."""
    from app.access import offer_claim

    secret, until = offer_claim(backends)
    place = f"{backends.settings.public_url.rstrip('/')}/claim"
    print(  # noqa: T201
        f"Nobody can sign in yet. Make the first admin at {place} with this one-time token, "
        f"good until {until:%H:%M} UTC:\n\n    {secret}\n",
        file=sys.stderr,
        flush=True,
    )


def gunicorn_options(settings: Settings) -> dict[str, Any]:
    host = f"[{settings.host}]" if ":" in settings.host else settings.host
    return {
        "bind": f"{host}:{settings.port}",
        "workers": settings.web_processes,
        "worker_class": TimelyWorker,
        "threads": settings.web_threads,
        "preload_app": True,
        "timeout": 60,
        "graceful_timeout": 10,
        "keepalive": 15,
        "loglevel": "warning",
        "logger_class": Logger,
        "worker_tmp_dir": "/dev/shm" if _has_memory_disk() else None,  # noqa: S108 - a heartbeat file, not data
        "control_socket_disable": True,
        "limit_request_line": 8190,
    }


def _has_memory_disk() -> bool:
    from pathlib import Path

    return Path("/dev/shm").is_dir()  # noqa: S108


def run_web(settings: Settings) -> None:
    """Serve until SIGTERM. Raises CannotStart for an address that cannot be used."""
    check_address(settings)
    count_together()
    Server(settings).run()
