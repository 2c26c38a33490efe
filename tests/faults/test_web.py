"""A: the web process, on real sockets: clients that vanish, creep or send too much, keys and clocks that change."""

from __future__ import annotations

import json
import socket
import sqlite3
import struct
import subprocess
import sys
import threading
import time
from contextlib import ExitStack, suppress
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from app import access
from app.adapters import sqlite
from app.web import create_app
from tests.access.conftest import PASSWORD, Clock, Door, closed, form_token
from tests.faults.conftest import Running
from tests.faults.deployed import ROOT, Deployed, Web, clean_environment, end, free_port, until

pytestmark = pytest.mark.slow
COSTS = "/api/v1/costs?start=2026-06-01&end=2026-06-11&group_by=account,service,region&limit=1000"
MOST_MEMORY = 512 * 2**20


def connected(web: Web, request: bytes = b"") -> socket.socket:
    client = socket.create_connection(("127.0.0.1", web.port), 10)
    client.sendall(request)
    return client


def answer_of(client: socket.socket) -> bytes:
    """All that comes until the server closes."""
    client.settimeout(30)
    read = b""
    while True:
        try:
            piece = client.recv(65536)
        except ConnectionResetError:
            return read
        if not piece:
            return read
        read += piece


def status_of(client: socket.socket) -> bytes:
    """The first of what comes; nothing when it was cut off before."""
    client.settimeout(30)
    try:
        return client.recv(12)
    except ConnectionError:
        return b""


def memory_of(web: Web) -> int:
    """Resident bytes of the largest process of a server."""
    return max(
        int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * 4096 for pid in (web.process.pid, *web.processes())
    )


@pytest.fixture
def door(tmp_path: Path) -> Any:
    found = closed(tmp_path, secret_key=SecretStr("one key of more than 32 characters, for a test"))
    access.add_user(found.backends, "ada", "admin", None, PASSWORD)
    yield found
    found.backends.metadata.close()


def with_another_key(door: Door) -> Door:
    """The same deployment after its secret key was replaced and the web servers started again."""
    settings = door.backends.settings.model_copy(
        update={"secret_key": SecretStr("another key of more than 32 characters, for a test")}
    )
    backends = replace(door.backends, settings=settings, memo={})
    return Door(backends, create_app(backends), door.clock)


def test_a4_a_new_secret_key_ends_no_session_and_makes_old_forms_load_again(door: Door) -> None:
    """Sessions are kept by the server, so the key signs forms only: what was open on the screen says what to do."""
    client = door.client()
    assert door.sign_in("ada", client=client).status_code == 303
    cookie = client.get_cookie(door.gate.cookie)
    assert cookie is not None
    stranger = door.client()
    old_form = form_token(stranger, "/login")
    later = with_another_key(door)
    again = later.client()
    again.set_cookie(later.gate.cookie, cookie.value)
    assert again.get("/api/v1/jobs").status_code == 200
    other = later.client()
    for kept in stranger._cookies.values():  # type: ignore[attr-defined]
        other.set_cookie(kept.key, kept.value)
    answer = other.post("/login", data={"form_token": old_form, "name": "ada", "password": PASSWORD})
    assert answer.status_code == 403
    assert "Load the page again" in answer.get_data(as_text=True)
    assert later.sign_in("ada").status_code == 303


@pytest.mark.parametrize("seconds", [-60, 60])
def test_a10_servers_whose_clocks_differ_by_a_minute_know_the_same_sessions_and_tokens(
    door: Door, seconds: int
) -> None:
    client = door.client()
    assert door.sign_in("ada", client=client).status_code == 303
    cookie = client.get_cookie(door.gate.cookie)
    token = access.create_token(door.backends, "ada", "t", ["read"], 1)[0]
    assert cookie is not None
    skewed = Clock(door.clock.now + timedelta(seconds=seconds))
    backends = replace(door.backends, clock=skewed, memo={})
    other = Door(backends, create_app(backends), skewed)
    browser = other.client()
    browser.set_cookie(other.gate.cookie, cookie.value)
    assert browser.get("/api/v1/jobs").status_code == 200
    asked = other.client().get("/api/v1/jobs", headers={"Authorization": f"Bearer {token}"})
    assert asked.status_code == 200
    # And back: what the other one wrote down of the session is no trouble here.
    assert client.get("/api/v1/jobs").status_code == 200


def test_a3_a_session_that_cannot_be_noted_as_seen_is_good_all_the_same(
    door: Door, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Somebody holds the store's lock: whoever only looks is not kept out because it cannot be written down."""
    client = door.client_of("ada")
    token = access.create_token(door.backends, "ada", "t", ["read"], 1)[0]
    door.wait(minutes=2)
    monkeypatch.setattr(sqlite, "LOCK_SECONDS", 0.2)
    door.backends.metadata.close()
    with sqlite3.connect(door.backends.metadata._path, isolation_level=None) as other:  # type: ignore[attr-defined]
        other.execute("BEGIN IMMEDIATE")
        assert client.get("/api/v1/jobs").status_code == 200
        asked = door.client().get("/api/v1/jobs", headers={"Authorization": f"Bearer {token}"})
        assert asked.status_code == 200
        other.execute("ROLLBACK")
    other.close()


def test_a5_a_client_that_vanishes_amid_its_answer_holds_no_thread(running: Running) -> None:
    request = f"GET {COSTS} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode()
    for _ in range(12):
        client = connected(running.web, request)
        # A reset instead of an end: as when the machine behind it is gone.
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        client.close()
    began = time.monotonic()
    assert running.web.answers("/healthz") == 200
    assert time.monotonic() - began < 5
    assert "Traceback" not in running.deployed.log()


@pytest.mark.soak
def test_a11_what_is_too_large_or_too_deep_is_refused_before_it_is_read(running: Running) -> None:
    """A hundred megabytes announced, of which a little is sent; ten thousand brackets; a head without an end."""
    before = memory_of(running.web)
    for path, kind in (
        ("/api/v1/jobs", "application/json"),
        ("/_dash-update-component", "application/json"),
        ("/login", "application/x-www-form-urlencoded"),
    ):
        head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: {kind}\r\nContent-Length: {100 << 20}\r\nConnection: close\r\n\r\n"
        client = connected(running.web, head.encode())
        with suppress(ConnectionError):
            client.sendall(bytes(1 << 18))
        assert status_of(client) in (b"HTTP/1.1 413", b"HTTP/1.1 403", b""), path
        client.close()
    for path in ("/api/v1/jobs", "/_dash-update-component"):
        deep = b"[" * 10_000 + b"]" * 10_000
        client = connected(
            running.web,
            f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
            f"Content-Length: {len(deep)}\r\nConnection: close\r\n\r\n".encode()
            + deep,
        )
        assert answer_of(client)[:12] == b"HTTP/1.1 400", path
        client.close()
    client = connected(running.web, b"GET / HTTP/1.1\r\n")
    with suppress(ConnectionError):
        for _ in range(40):
            client.sendall(b"X-More: " + b"x" * 8000 + b"\r\n")
    assert answer_of(client)[:10] in (b"HTTP/1.1 4", b"")
    client.close()
    assert running.web.answers("/healthz") == 200
    assert memory_of(running.web) < min(MOST_MEMORY, before + 60 * 2**20)


def test_a11_idle_connections_keep_nobody_out(running: Running) -> None:
    """300 that say nothing, beside four threads."""
    with ExitStack() as stack:
        for _ in range(300):
            stack.enter_context(connected(running.web))
        began = time.monotonic()
        assert running.web.answers("/api/v1/jobs?limit=1") == 200
        # gunicorn gives each so many seconds of a thread; three hundred in turn would take minutes.
        assert time.monotonic() - began < 10
    assert memory_of(running.web) < MOST_MEMORY


def test_a11_clients_that_leave_their_end_open_hold_nobody_up(running: Running) -> None:
    """They asked for `Connection: close`, have their answer, and do not close."""
    request = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
    began = time.monotonic()
    with ExitStack() as stack:
        clients = [stack.enter_context(connected(running.web, request)) for _ in range(8)]
        assert {status_of(client) for client in clients} == {b"HTTP/1.1 200"}
        assert running.web.answers("/healthz") == 200
        # gunicorn's main loop would wait two seconds for each of them.
        assert time.monotonic() - began < 10


@pytest.mark.parametrize(
    ("head", "body", "status"),
    [
        (b"POST /api/v1/jobs HTTP/1.1", b"Transfer-Encoding: nothing\r\n\r\n{}", 400),
        (b"POST /api/v1/jobs HTTP/1.1", b"Transfer-Encoding: chunked\r\n\r\nZZ\r\n{}\r\n0\r\n\r\n", 400),
        (b"POST /api/v1/jobs HTTP/1.1", b"Transfer-Encoding: chunked\r\n\r\n2\r\n{}", 400),
        (b"POST /api/v1/jobs HTTP/1.1", b"Transfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n", 400),
        (b"POST /api/v1/jobs HTTP/1.1", b"Content-Length: -5\r\n\r\n{}", 400),
        (b"GET /api/v1/costs?account=" + b"1" * 9000 + b" HTTP/1.1", b"\r\n", 414),
        (b"GET /api/v1/jobs HTTP/1.1", b"X: " + b"y" * 20_000 + b"\r\n\r\n", 431),
        (b"GET /api/v1/jobs?kind=\xff HTTP/1.1", b"\r\n", 400),
        (b"<script>", b"\r\n", 400),
    ],
)
def test_requests_that_cannot_be_read_are_problems_and_never_failures(
    running: Running, head: bytes, body: bytes, status: int
) -> None:
    headers = b"\r\nHost: localhost\r\nConnection: close\r\nContent-Type: application/json\r\n"
    with connected(running.web, head + headers + body) as client:
        client.shutdown(socket.SHUT_WR)
        answer = b"".join(iter(lambda: client.recv(65536), b""))
    told, _, problem = answer.partition(b"\r\n\r\n")
    assert told.startswith(b"HTTP/1.1 %d " % status)
    assert b"Content-Type: application/problem+json" in told
    assert json.loads(problem)["status"] == status


@pytest.mark.soak
def test_a11_slow_clients_are_left_and_others_served(tmp_path: Path) -> None:
    """A byte now and then, in the head and in the body, on more connections than there are threads."""
    with Deployed(tmp_path) as deployed:
        port = free_port()
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.faults.impatient_web"],
            cwd=ROOT,
            env=clean_environment()
            | deployed.environment
            | {"SPENDSCOPE_PORT": str(port), "SPENDSCOPE_WEB_PROCESSES": "1"},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        try:
            web = Web(process, port)
            until(lambda: web.answers("/healthz") == 200, 60)
            head = b"GET /api/v1/jobs HTTP/1.1\r\nHost: localhost\r\nX: "
            body = (
                b"POST /api/v1/jobs HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
                b"Content-Length: 1000\r\n\r\n{"
            )
            slow = [connected(web, head) for _ in range(4)] + [connected(web, body) for _ in range(4)]
            stop = threading.Event()

            def creep() -> None:
                while not stop.wait(0.2):
                    for client in slow:
                        with suppress(OSError):
                            client.send(b"x")

            creeping = threading.Thread(target=creep)
            creeping.start()
            began = time.monotonic()
            assert web.answers("/healthz") == 200
            assert time.monotonic() - began < 15
            said = {answer_of(client)[:12] for client in slow}
            assert said <= {b"HTTP/1.1 408", b"HTTP/1.1 400", b""}, said
            assert b"HTTP/1.1 408" in said
            stop.set()
            creeping.join(10)
            for client in slow:
                client.close()
        finally:
            end(process)


@pytest.mark.soak
def test_a7_where_nothing_can_be_logged_it_serves_on(tmp_path: Path) -> None:
    with Deployed(tmp_path) as deployed:
        port = free_port()
        with Path("/dev/full").open("wb") as full:
            process = subprocess.Popen(
                [sys.executable, "-m", "app.cli", "web"],
                cwd=ROOT,
                env=clean_environment()
                | deployed.environment
                | {"SPENDSCOPE_PORT": str(port), "SPENDSCOPE_LOG_LEVEL": "debug"},
                stdout=full,
                stderr=full,
                start_new_session=True,
            )
        try:
            web = Web(process, port)
            until(lambda: web.answers("/healthz") == 200, 60)
            deployed.redis.stop()
            # Says in the log that the queue does not answer.
            status, answer = web.submit("2026-06-01.csv", "a")
            assert (status, answer["status"]) == (202, "queued")
            assert web.answers("/api/v1/jobs") == 200
            assert json.loads(web.ask("GET", "/api/v1/jobs")[2])["items"]
        finally:
            end(process)
