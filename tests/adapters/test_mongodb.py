"""The MongoDB adapter, on the first server there is: one that is named, mongod, FerretDB, SecantusDB (test-only)."""

from __future__ import annotations

import os
import shutil
import socket
import socketserver
import struct
import subprocess
import tempfile
import threading
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import bson
import pytest
from pymongo import MongoClient

from app.adapters.mongodb import STEPS, MongoMetadata, unsupported
from app.core.jobs import Job
from app.errors import CannotStart, Unavailable
from app.ports import Metadata
from tests.contracts.metadata import NOW, MetadataContract, Opening

SECANTUS = Path(__file__).parents[2] / ".venv-mongo-test" / "bin" / "secantusd-py"
MISSING = (
    "no MongoDB to test with. Set SPENDSCOPE_TEST_MONGODB_URL, or install mongod or ferretdb on PATH, "
    "or run `make mongo-test` for the test-only SecantusDB"
)
OP_MSG = 2013
pytestmark = pytest.mark.server


# --- a server ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Server:
    """`atomic` is False for one that changes documents in several steps: it is reached through a gate, one at a time."""

    uri: str
    atomic: bool = True


def free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port: int = taken.getsockname()[1]
        return port


@contextmanager
def running(command: list[str], port: int) -> Iterator[None]:
    """A server of our own, until it answers and while it is needed."""
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        wait_for(port, process)
        yield
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def wait_for(port: int, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 60
    while process.poll() is None and time.monotonic() < deadline:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
        except OSError:
            time.sleep(0.05)
        else:
            return
    pytest.fail(f"{process.args!r} did not start")


def command_for(folder: Path, port: int, *, atomic: bool = False) -> list[str] | None:
    """How to start the first server that is installed here, with its data in `folder`; `atomic`: one we do not refuse."""
    address = f"127.0.0.1:{port}"
    if mongod := shutil.which("mongod"):
        return [mongod, "--dbpath", str(folder), "--port", str(port), "--bind_ip", "127.0.0.1", "--quiet"]
    if not atomic and (ferretdb := shutil.which("ferretdb")):
        own = [f"--sqlite-url=file:{folder}/", f"--state-dir={folder}", "--telemetry=disable", "--debug-addr=-"]
        return [ferretdb, "--handler=sqlite", f"--listen-addr={address}", *own]
    if SECANTUS.exists():
        (folder / "settings.toml").touch()
        own = ["--config", str(folder / "settings.toml"), "--storage-path", str(folder / "data"), "--sync-on-commit"]
        return [str(SECANTUS), "--port", str(port), *own]
    return None


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    if named := os.environ.get("SPENDSCOPE_TEST_MONGODB_URL"):
        yield Server(named)
        return
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(ignore_cleanup_errors=True)))
        port = free_port()
        command = command_for(folder, port)
        if command is None:
            pytest.skip(MISSING)
        stack.enter_context(running(command, port))
        if "ferretdb" in command[0]:
            gate = stack.enter_context(Gate.before(port))
            gate.one_at_a_time = True
            yield Server(gate.uri, atomic=False)
        else:
            yield Server(f"mongodb://127.0.0.1:{port}/")


# --- a gate before it -------------------------------------------------------------------------------------------------


class Gate(socketserver.ThreadingTCPServer):
    """Passes messages of MongoDB's wire protocol on to a server, and does to them what a test asks for."""

    daemon_threads = True
    allow_reuse_address = True
    one_at_a_time = False
    """Whether a request waits until the one before it, of any connection, is answered."""

    def __init__(self, upstream: tuple[str, int]) -> None:
        super().__init__(("127.0.0.1", 0), _Passing)
        self.upstream = upstream
        self.turn = threading.Lock()
        self.lost: list[bytes] = []
        """Commands (b"insert", …) whose next answer is lost: done by the server, and the connection ends."""
        self.spared = 0
        """How many of them are answered before that."""
        self.heard: list[dict[str, Any]] = []
        """Every command, as it went through."""

    @property
    def uri(self) -> str:
        # Polling: a server that pushes its state would keep the turn.
        return f"mongodb://127.0.0.1:{self.server_address[1]}/?directConnection=true&serverMonitoringMode=poll"

    @classmethod
    @contextmanager
    def before(cls, port: int, host: str = "127.0.0.1") -> Iterator[Gate]:
        with cls((host, port)) as gate:
            thread = threading.Thread(target=gate.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
            thread.start()
            try:
                yield gate
            finally:
                gate.shutdown()
                thread.join()

    def hears(self, request: bytes) -> None:
        """A message's first document stands after a header of 16 bytes, four of flags and the kind of its first section."""
        if struct.unpack("<i", request[12:16])[0] == OP_MSG:
            size = struct.unpack("<i", request[21:25])[0]
            self.heard.append(bson.decode(request[21 : 21 + size]))

    def loses(self, request: bytes) -> bool:
        """Whether the answer to it is one to lose. The command is the first key of the message's first document."""
        for command in self.lost:
            if request[26 : 26 + len(command) + 1] == command + b"\0":
                if self.spared:
                    self.spared -= 1
                    return False
                self.lost.remove(command)
                return True
        return False

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A connection that ends is no error here."""


class _Passing(socketserver.BaseRequestHandler):
    server: Gate

    def handle(self) -> None:
        with socket.create_connection(self.server.upstream, 30) as upstream:
            while request := message(self.request):
                self.server.hears(request)
                if self.server.one_at_a_time:
                    with self.server.turn:
                        upstream.sendall(request)
                        answer = message(upstream)
                else:
                    upstream.sendall(request)
                    answer = message(upstream)
                if self.server.loses(request):
                    return
                self.request.sendall(answer)


def message(stream: socket.socket) -> bytes:
    """The next one: four bytes of its length, then the rest; nothing when the connection ended."""
    head = received(stream, 4)
    return head and head + received(stream, struct.unpack("<i", head)[0] - 4)


def received(stream: socket.socket, size: int) -> bytes:
    found = b""
    while len(found) < size and (part := stream.recv(size - len(found))):
        found += part
    return found if len(found) == size else b""


# --- the contract -----------------------------------------------------------------------------------------------------


def accept_any(_: Mapping[str, Any]) -> None:
    """For a server that the product refuses and the gate makes good enough to test on."""


def opening(server: Server, database: str) -> partial[MongoMetadata]:
    return partial(MongoMetadata, server.uri, database, refuse=unsupported if server.atomic else accept_any)


@pytest.fixture
def database(server: Server) -> Iterator[str]:
    name = f"spendscope_test_{uuid.uuid4().hex[:12]}"
    yield name
    with MongoClient(server.uri) as client:
        client.drop_database(name)


@pytest.fixture
def store(server: Server, database: str) -> Iterator[MongoMetadata]:
    store = opening(server, database)()
    store.prepare()
    yield store
    store.close()


class TestMongo(MetadataContract):
    contested = 60
    examples = 6

    @pytest.fixture
    def store(self, store: MongoMetadata) -> Metadata:
        return store

    @pytest.fixture
    def open_store(self, server: Server, database: str) -> Opening:
        return opening(server, database)


# --- what only this adapter does ----------------------------------------------------------------------------------------


def test_m8_a_majority_and_its_journal_acknowledge_every_change(server: Server, database: str) -> None:
    """What a power cut or a lost primary would show, and one server on one machine cannot: it is asked for, each time."""
    with MongoClient[dict[str, Any]](server.uri) as client:
        host, port = client.address or ("", 0)
    with (
        Gate.before(port, host) as gate,
        closing(opening(replace(server, uri=gate.uri), database)()) as store,
    ):
        store.prepare()
        store.put_job(Job("one", "scan", {}, "key", "queued", NOW))
        assert store.claim("one", worker="w", now=NOW, lease_until=NOW) is not None
        store.cancel("one", now=NOW)
        store.forget_jobs(finished_before=NOW)
    changes = [said for said in gate.heard if said.keys() & {"insert", "update", "findAndModify", "delete"}]
    assert {next(iter(said)) for said in changes} == {"insert", "update", "findAndModify", "delete"}
    for said in changes:
        asked = said["writeConcern"]
        assert (asked["w"], asked["j"]) == ("majority", True), said


def test_m9_a_database_of_a_newer_release_is_refused_and_left_as_it_is(
    server: Server, database: str, store: MongoMetadata
) -> None:
    with MongoClient[dict[str, Any]](server.uri) as client:
        kept = client[database]
        kept["schema"].update_one({"_id": "schema"}, {"$set": {"version": len(STEPS) + 1}})

        def everything() -> dict[str, Any]:
            return {name: list(kept[name].find()) for name in kept.list_collection_names()}

        before = everything()
        with pytest.raises(CannotStart, match=f"schema version {len(STEPS) + 1}.*Start the newer release"):
            store.prepare()
        assert everything() == before


def test_while_it_is_restored_it_has_no_version(server: Server, database: str, store: MongoMetadata) -> None:
    """Answers are kept by it: none may be kept of half a ledger."""
    assert store.ledger_version() == 0
    with MongoClient(server.uri) as client:
        client[database]["schema"].delete_one({})
    with pytest.raises(Unavailable, match="holds no ledger yet"):
        store.ledger_version()
    with pytest.raises(Unavailable, match="holds no ledger yet"):
        store.day_revisions()
