"""M on a server that speaks MongoDB's protocol: killed amid work, answers lost on the way, a password that is wrong."""

from __future__ import annotations

import os
import signal
import socket
import struct
import subprocess
import threading
from collections.abc import Iterator
from contextlib import closing, suppress
from dataclasses import dataclass, field, replace
from datetime import date
from decimal import Decimal
from itertools import count
from pathlib import Path

import bson
import pytest

from app.adapters.mongodb import MongoMetadata
from app.backends import Backends
from app.core.periods import DAY
from app.errors import Unavailable
from app.ingest import watch
from tests.adapters.test_mongodb import MISSING, Gate, command_for, message, wait_for
from tests.faults.deployed import COMMAND, ROOT, Deployed, clean_environment, free_port, until
from tests.faults.world import cost_file, total_of
from tests.workers.world import Clock, world_of
from workers.jobs import HANDLERS, run_job

pytestmark = [pytest.mark.server, pytest.mark.slow, pytest.mark.soak]


@dataclass
class Mongo:
    """A server of our own that can be killed and started again with what it has."""

    folder: Path
    port: int = field(default_factory=free_port)
    process: subprocess.Popen[bytes] | None = None

    @property
    def uri(self) -> str:
        return f"mongodb://127.0.0.1:{self.port}/spendscope?directConnection=true"

    def start(self) -> None:
        command = command_for(self.folder, self.port, atomic=True)
        if command is None:
            pytest.skip(MISSING)
        self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        wait_for(self.port, self.process)

    def kill(self) -> None:
        if self.process is not None:
            os.kill(self.process.pid, signal.SIGKILL)
            self.process.wait()


@pytest.fixture
def mongo(tmp_path: Path) -> Iterator[Mongo]:
    folder = tmp_path / "mongo"
    folder.mkdir()
    found = Mongo(folder)
    found.start()
    yield found
    found.kill()


def test_m2_killed_amid_work_everything_ends_when_it_is_back(mongo: Mongo, tmp_path: Path) -> None:
    """M8 too: what it acknowledged is there after kill -9."""
    with Deployed(tmp_path, MONGODB_URI=mongo.uri) as deployed:
        names = deployed.put(6)
        web = deployed.serve()
        accepted = [web.submit(name, f"k-{name}") for name in names]
        assert {status for status, _ in accepted} == {202}
        deployed.start("worker")
        deployed.start("scheduler")
        until(lambda: deployed.statuses().get("done", 0) >= 1, 60, deployed.log)
        mongo.kill()
        status, headers, _ = web.ask("GET", "/api/v1/jobs")
        assert (status, headers["Retry-After"].isdigit()) == (503, True)
        assert web.answers("/healthz") == 200
        assert web.answers("/readyz") == 503
        mongo.start()
        until(lambda: web.answers("/readyz") == 200, 60, deployed.log)
        deployed.drained()
        for _, answer in accepted:
            job = deployed.backends.metadata.job(str(answer["id"]))
            assert job is not None
            assert job.status in ("done", "done-noop")
        deployed.check()


@pytest.mark.timeout(600)
@pytest.mark.parametrize("retried", ["true", "false"])
def test_m6_an_answer_that_is_lost_is_one_effect(mongo: Mongo, tmp_path: Path, retried: str) -> None:
    """Every change in turn that taking a file makes is done by the server, and its answer never arrives. The driver asks
    once more by itself, where server and address let it; else the job begins again."""
    with (
        Gate.before(mongo.port) as gate,
        closing(MongoMetadata(f"{gate.uri}&retryWrites={retried}", "spendscope")) as store,
    ):
        store.prepare()
        clock = Clock()
        truth: dict[date, Decimal] = {}
        world = replace(world_of(tmp_path, clock=clock), metadata=store)
        for command in (b"insert", b"findAndModify", b"update"):
            for number in count():
                day, content = date(2026, 11, 20) - len(truth) * DAY, cost_file(len(truth))
                (tmp_path / "costs" / f"{day}.csv").write_bytes(content)
                truth[day] = total_of(content)
                gate.lost, gate.spared = [command], number
                taken_at_last(world, clock)
                if gate.lost:
                    break  # taking a file makes no more changes of this kind
            gate.lost = []
            assert number > 0, command
        jobs = store.jobs(limit=100).items
        assert sorted(str(job.params["key"]) for job in jobs) == sorted(f"{day}.csv" for day in truth), "one job a file"
        assert {job.status for job in jobs} <= {"done", "done-noop"}
        taken = [one.day for one in store.ingestions(limit=100).items if one.status == "ingested"]
        assert sorted(taken, key=str) == sorted(truth)
        for day, total in truth.items():
            record = store.day_record(day)
            assert sum(part.current.amortized_cost for part in record.accounts.values()) == total
            reported = [(one.account, one.revision) for one in store.revisions(day, day + DAY)]
            assert sorted(reported) == [(account, 1) for account in sorted(record.accounts)]


def taken_at_last(world: Backends, clock: Clock) -> None:
    """As scheduler and workers do: look, do what is to be had, and after an outage begin again."""
    for _ in range(9):
        with suppress(Unavailable):
            watched = watch(world)
            for job in world.metadata.unfinished():
                with suppress(Unavailable):
                    run_job(world, job.id, HANDLERS)
            if not watched.jobs and not world.metadata.unfinished():
                return
        clock.forward(61)
    raise AssertionError("it does not end")


@pytest.mark.parametrize("role", ["web", "worker", "scheduler"])
def test_m4_a_wrong_password_is_one_line_and_no_start(mongo: Mongo, tmp_path: Path, role: str) -> None:
    with Refusing(mongo.port) as door, Deployed(tmp_path) as deployed:
        ended = subprocess.run(
            [*COMMAND, role],
            cwd=ROOT,
            env=clean_environment()
            | deployed.environment
            | {
                "MONGODB_URI": f"mongodb://ada:wrong-Pa55word@127.0.0.1:{door.port}/spendscope?directConnection=true",
                "SPENDSCOPE_PORT": str(free_port()),
            },
            capture_output=True,
            text=True,
            timeout=90,
        )
        assert ended.returncode == 2, ended.stderr
        assert "does not let Spendscope in" in ended.stderr
        assert "Pa55word" not in ended.stderr
        assert "Traceback" not in ended.stderr


class Refusing:
    """Passes everything on but signing in, which it refuses as MongoDB does (code 18)."""

    def __init__(self, port: int) -> None:
        self._upstream = ("127.0.0.1", port)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])

    def __enter__(self) -> Refusing:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(near,), daemon=True).start()

    def _serve(self, near: socket.socket) -> None:
        with near, socket.create_connection(self._upstream, 30) as far:
            try:
                while request := message(near):
                    if request[26:36] == b"saslStart\0":
                        near.sendall(_refusal(request))
                        continue
                    far.sendall(request)
                    near.sendall(message(far))
            except OSError:
                return


def _refusal(request: bytes) -> bytes:
    body = bson.encode({"ok": 0.0, "code": 18, "codeName": "AuthenticationFailed", "errmsg": "Authentication failed."})
    head = struct.pack("<iiii", 16 + 4 + 1 + len(body), 1, struct.unpack("<i", request[4:8])[0], 2013)
    return head + struct.pack("<i", 0) + b"\0" + body
