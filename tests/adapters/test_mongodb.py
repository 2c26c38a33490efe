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
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from pymongo import MongoClient

from app.adapters.mongodb import MongoMetadata, unsupported
from app.ports import Metadata
from tests.contracts.metadata import MetadataContract, Opening

SECANTUS = Path(__file__).parents[2] / ".venv-mongo-test" / "bin" / "secantusd-py"
MISSING = (
    "no MongoDB to test with. Set SPENDSCOPE_TEST_MONGODB_URL, or install mongod or ferretdb on PATH, "
    "or run `make mongo-test` for the test-only SecantusDB"
)
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


def command_for(folder: Path, port: int) -> list[str] | None:
    """How to start the first server that is installed here, with its data in `folder`."""
    address = f"127.0.0.1:{port}"
    if mongod := shutil.which("mongod"):
        return [mongod, "--dbpath", str(folder), "--port", str(port), "--bind_ip", "127.0.0.1", "--quiet"]
    if ferretdb := shutil.which("ferretdb"):
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

    def loses(self, request: bytes) -> bool:
        """Whether the answer to it is one to lose. The command is the first key of the message's first document."""
        for command in self.lost:
            if request[26 : 26 + len(command) + 1] == command + b"\0":
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
    examples = 15

    @pytest.fixture
    def store(self, store: MongoMetadata) -> Metadata:
        return store

    @pytest.fixture
    def open_store(self, server: Server, database: str) -> Opening:
        return opening(server, database)


# --- what only this adapter can get wrong -------------------------------------------------------------------------


@pytest.fixture
def gate(server: Server) -> Iterator[Gate]:
    """A gate before the server (before the other gate, where there is one)."""
    host, _, port = server.uri.partition("://")[2].partition("/")[0].rpartition("@")[2].partition(":")
    with Gate.before(int(port or 27017), host) as gate:
        yield gate


@pytest.fixture
def behind(server: Server, gate: Gate, store: MongoMetadata, database: str) -> Iterator[MongoMetadata]:
    """The prepared store, reached through the gate."""
    behind = opening(replace(server, uri=gate.uri), database)()
    yield behind
    behind.close()


def test_a_write_whose_answer_was_lost_is_done_once(behind: MongoMetadata, gate: Gate) -> None:
    """A driver repeats it with the same number, and the server knows the number. Not every stand-in does."""
    behind.put_day_record(day_record())
    version = behind.ledger_version()
    gate.lost = [b"update"]
    try:
        assert behind.put_day_record(day_record(revision=2))
    except Unavailable:
        # No answer is no promise either way; whoever repeats it sees which one it was.
        assert behind.day_record(DAY).revision == 2
    assert not gate.lost
    assert behind.ledger_version() == version + 1


def test_a_lost_answer_records_no_second_job(behind: MongoMetadata, gate: Gate) -> None:
    gate.lost = [b"insert"]
    try:
        behind.put_job(job("first", key="k"))
    except Unavailable:
        assert behind.put_job(job("again", key="k"))[0].id == "first"
    assert not gate.lost
    assert [found.id for found in behind.unfinished()] == ["first"]


def test_a_lost_answer_to_a_claim_starts_one_attempt(behind: MongoMetadata, gate: Gate) -> None:
    behind.put_job(job("one"))
    gate.lost = [b"findAndModify"]
    try:
        claim(behind, "one")
    except Unavailable:
        assert claim(behind, "one") is None, "it is ours, we only do not know it: the lease decides"
    assert not gate.lost
    found = behind.job("one")
    assert found is not None
    assert (found.attempts, found.token) == (1, 1)


def test_a_forked_child_has_connections_of_its_own(store: MongoMetadata) -> None:
    store.put_day_record(day_record())
    child = os.fork()
    if child == 0:
        done = False
        try:
            done = store.put_day_record(day_record(revision=2))
        finally:
            os._exit(0 if done else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert store.day_record(DAY).revision == 2
    assert store.put_day_record(day_record(revision=3))


def test_a_ledger_of_a_newer_release_is_refused(server: Server, store: MongoMetadata, database: str) -> None:
    with MongoClient(server.uri) as client:
        client[database]["schema"].update_one({"_id": "schema"}, {"$set": {"version": 9}})
    with pytest.raises(CannotStart, match=rf"{database} has schema version 9, this release knows up to {len(STEPS)}"):
        store.prepare()


def test_an_older_ledger_is_brought_up_step_by_step(server: Server, store: MongoMetadata, database: str) -> None:
    store.put_day_record(day_record())
    taken: list[str] = []
    steps = (*STEPS, lambda found: taken.append(found.name), lambda found: taken.append("last"))
    with MongoClient(server.uri) as client:
        for _ in range(2):
            upgrade(client[database], steps, "here")
        assert client[database]["schema"].find_one({"_id": "schema"}) == {"_id": "schema", "version": len(STEPS) + 2}
    assert taken == [database, "last"]
    assert store.day_record(DAY) == day_record()


def test_a_database_without_a_ledger_says_how_to_get_one(server: Server, database: str) -> None:
    with MongoClient(server.uri) as client:
        client[database]["other"].insert_one({})
    empty = opening(server, database)()
    with pytest.raises(Unavailable, match="spendscope up"):
        empty.check()
    empty.close()


def test_a_database_named_in_the_address_wins(server: Server, database: str) -> None:
    host = server.uri.partition("://")[2].partition("/")[0]
    named = MongoMetadata(f"mongodb://{host}/{database}?directConnection=true", "other", refuse=accept_any)
    named.prepare()
    named.put_day_record(day_record())
    assert opening(server, database)().day_record(DAY) == day_record()
    named.close()


SECRET = "hunter2%40hunter2"


def test_what_does_not_answer_is_named_without_its_password() -> None:
    port = free_port()
    store = MongoMetadata(f"mongodb://admin:{SECRET}@127.0.0.1:{port}/costs", "x")
    began = time.monotonic()
    with pytest.raises(Unavailable, match=rf"127\.0\.0\.1:{port}, database costs does not answer") as told:
        store.check()
    assert time.monotonic() - began < 15
    assert told.value.part == "metadata"
    assert "hunter2" not in str(told.value)
    assert told.value.__cause__ is None
    with pytest.raises(Unavailable):
        store.prepare()
    store.close()


def test_wrong_credentials_are_told_apart(server: Server) -> None:
    host = server.uri.partition("://")[2].partition("/")[0].rpartition("@")[2]
    store = MongoMetadata(f"mongodb://nobody:{SECRET}@{host}/costs?directConnection=true", "x", refuse=accept_any)
    with pytest.raises(BadCredentials) as told:
        store.check()
    assert "hunter2" not in str(told.value)
    with pytest.raises(BadCredentials):
        store.prepare()
    store.close()


@pytest.mark.parametrize(
    "uri", ["", "127.0.0.1", "postgres://x:hunter2@h/", "mongodb://u:hunter2@pw@h:x/", "mongodb://u:hunter2/x@h/"]
)
def test_an_address_that_makes_no_sense_says_how_to_write_it(uri: str) -> None:
    with pytest.raises(CannotStart, match="mongodb://user:password@host:27017/spendscope") as told:
        MongoMetadata(uri, "x")
    assert "hunter2" not in str(told.value)


def test_a_server_that_changes_documents_in_several_steps_is_refused(server: Server, database: str) -> None:
    assert unsupported({"version": "7.0.42", "ferretdbVersion": "v1.24.2"})
    assert unsupported({"version": "8.0.4", "modules": []}) is None
    if not server.atomic:
        store = MongoMetadata(server.uri, database)
        with pytest.raises(CannotStart, match="FerretDB 1"):
            store.prepare()
        store.close()


def test_lists_are_answered_from_indexes(server: Server, store: MongoMetadata, database: str) -> None:
    """The two questions of every look at the ledger read no document: only what the index holds."""
    if not server.atomic:
        pytest.skip("FerretDB has no query plans; any MongoDB shows them")
    for n in range(5):
        store.put_day_record(day_record(DAY + timedelta(days=n)))
    with MongoClient(server.uri) as client:
        days = client[database]["days"]
        plan = days.find({}, {"revision": 1}).hint([("_id", 1), ("revision", 1)]).explain()
    assert "COLLSCAN" not in str(plan["queryPlanner"]["winningPlan"])
    assert store.ledger_version() == 5
    assert NOW.tzinfo is not None
