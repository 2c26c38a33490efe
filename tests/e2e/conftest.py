"""A served app and a browser; skipped with a reason where there is no Chromium or no Playwright."""

from __future__ import annotations

import logging
import shutil
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest
from werkzeug.serving import BaseWSGIServer, make_server

from app.backends import Backends
from app.web import create_app
from tests.memory import memory_backends

logging.getLogger("werkzeug").setLevel(logging.WARNING)
playwright_api = pytest.importorskip("playwright.sync_api", reason="pip install playwright to run the browser tests")


@dataclass
class Served:
    """An app on a free port of this machine."""

    backends: Backends
    port: int = 0
    server: BaseWSGIServer = field(init=False)
    app: Any = field(init=False)

    def __post_init__(self) -> None:
        self.app = create_app(self.backends)
        self.server = make_server("127.0.0.1", self.port, self.app.server, threaded=True)
        self.thread = threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        self.thread.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server.server_port}"

    def stop(self) -> None:
        self.server.shutdown()
        self.server.server_close()
        self.thread.join(5)


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    path = shutil.which("chromium") or shutil.which("chromium-browser")
    if path is None:
        pytest.skip("no chromium on PATH; apt-get install chromium to run the browser tests")
    with playwright_api.sync_playwright() as driver:
        chromium = driver.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield chromium
        chromium.close()


@pytest.fixture
def profiles() -> list[Any]:
    """Browser profiles that a test opened. Who stops a server of its own closes them first: a page that asks it every
    other second would be cut off amid an answer (ERR_CONNECTION_RESET) and take that for an error of the app."""
    return []


@pytest.fixture(scope="session")
def served() -> Iterator[Served]:
    found = Served(memory_backends())
    yield found
    found.stop()
