"""A new release goes out under traffic: two web servers behind something that balances, one after the other replaced.

What balances asks /readyz and sends requests to those that answer 200, as a Kubernetes Service does. Nobody gets a 5xx,
nobody is cut off, sessions and accepted jobs survive.
"""

from __future__ import annotations

import json
import signal
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from app import access
from tests.faults.deployed import Deployed, Web, until
from tests.faults.traffic import PASSWORD, Traffic

pytestmark = [pytest.mark.slow, pytest.mark.soak]
LEAVE_SECONDS = 2.0
PROBE_SECONDS = 0.3
"""How often readiness is asked for; two failures take a server out."""


class Service:
    """Which of the servers new connections and requests go to."""

    def __init__(self, servers: list[Web]) -> None:
        self.servers = servers
        self._ready = {web.port: True for web in servers}
        self._failures = dict.fromkeys(self._ready, 0)
        self._turn = 0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._probe, daemon=True)

    @contextmanager
    def probing(self) -> Iterator[None]:
        self._thread.start()
        try:
            yield
        finally:
            self._stop.set()
            self._thread.join(30)

    def add(self, web: Web) -> None:
        self.servers.append(web)
        self._failures[web.port] = 0
        self._ready[web.port] = web.answers("/readyz") == 200

    def is_ready(self, web: Web) -> bool:
        return self._ready[web.port]

    def port(self) -> int:
        """Of the next server in turn that is ready."""
        ready = [port for port, ready in list(self._ready.items()) if ready]
        self._turn += 1
        return ready[self._turn % len(ready)]

    def _probe(self) -> None:
        while not self._stop.wait(PROBE_SECONDS):
            for web in list(self.servers):
                self._failures[web.port] = 0 if web.answers("/readyz") == 200 else self._failures[web.port] + 1
                self._ready[web.port] = self._failures[web.port] < 2


def test_a_rolling_restart_is_noticed_by_nobody(tmp_path: Path) -> None:
    """A9 and W12: web, worker and scheduler, one after the other."""
    leave = {"SPENDSCOPE_LEAVE_SECONDS": str(LEAVE_SECONDS), "SPENDSCOPE_PROXIES": "1"}
    with Deployed(tmp_path) as deployed:
        names = deployed.put(8)
        worker, scheduler = deployed.start("worker"), deployed.start("scheduler")
        service = Service([deployed.serve(**leave), deployed.serve(**leave)])
        until(lambda: all(web.answers("/readyz") == 200 for web in service.servers), 60, deployed.log)
        people = ["ada", "bob", "eve"]
        for name in people:
            access.add_user(deployed.backends, name, "editor", None, PASSWORD)
        tokens = [access.create_token(deployed.backends, "ada", f"t{n}", ["read", "operate"], 30)[0] for n in range(4)]
        traffic = Traffic(service.port)
        with service.probing():
            traffic.people(people, every=0.5)
            traffic.machines(tokens, names, every=0.3)
            time.sleep(2)
            for old in list(service.servers):
                service.add(deployed.serve(**leave))
                replaced(deployed, service, old)
            for process, role in ((worker, "worker"), (scheduler, "scheduler")):
                deployed.start(role)
                process.send_signal(signal.SIGTERM)
                assert process.wait(30) == 0
            time.sleep(1)
            traffic.stop()
        assert not (wrong := traffic.wrong(0)), [f"{one.what} {one.status} {one.said}" for one in wrong[:9]]
        assert len(traffic.answers) > 40, traffic.counts()
        # Everybody signed in once: no session was lost with the server that made it.
        assert sum(one.what == "POST /login" for one in traffic.answers) == len(people)
        submitted = [name for program in traffic.programs for name in program.submitted]
        assert submitted
        deployed.drained()
        for name in submitted:
            job = deployed.backends.metadata.job(name)
            assert job is not None
            assert job.status in ("done", "done-noop"), job
        deployed.check()
        assert "Traceback" not in deployed.log()


def replaced(deployed: Deployed, service: Service, old: Web) -> None:
    """SIGTERM: not ready at once, serving on for a while, then gone with status 0."""
    old.process.send_signal(signal.SIGTERM)
    until(lambda: old.answers("/readyz") == 503, 5, deployed.log)
    assert old.answers("/healthz") == 200, "it still serves"
    status, headers, _ = old.ask("GET", "/login", headers={"Connection": "keep-alive"})
    assert (status, headers["Connection"]) == (200, "close"), "its last answer on this connection"
    until(lambda: not service.is_ready(old), 5)
    assert old.process.wait(30) == 0
    service.servers.remove(old)


def test_a_second_sigterm_and_a_setting_of_0_stop_at_once(tmp_path: Path) -> None:
    with Deployed(tmp_path) as deployed:
        for settings, signals in (({}, 1), ({"SPENDSCOPE_LEAVE_SECONDS": "60"}, 2)):
            web = deployed.serve(**settings)
            for _ in range(signals):
                web.process.send_signal(signal.SIGTERM)
                time.sleep(0.3)
            assert web.process.wait(20) == 0


def test_a_request_under_way_is_answered_and_an_idle_connection_holds_nobody_up(tmp_path: Path) -> None:
    with Deployed(tmp_path) as deployed:
        [name] = deployed.put(1)
        web = deployed.serve()
        body = json.dumps({"kind": "ingest", "params": {"key": name}}).encode()
        head = f"POST /api/v1/jobs HTTP/1.1\r\nHost: 127.0.0.1:{web.port}\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        place = ("127.0.0.1", web.port)
        with socket.create_connection(place, 10) as slow, socket.create_connection(place, 10):
            slow.sendall(head.encode() + body[:9])
            time.sleep(1)
            web.process.send_signal(signal.SIGTERM)
            began = time.monotonic()
            time.sleep(1.5)
            slow.sendall(body[9:])
            assert slow.recv(99).startswith(b"HTTP/1.1 202 ")
            assert web.process.wait(20) == 0
        assert time.monotonic() - began < 8, "well before gunicorn would end it by force"
