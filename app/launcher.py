"""`spendscope up`: web, workers, scheduler and the private Redis as one supervised family of processes.

The data directory is locked while they run, and the lock says where: other commands find the queue through it.
Nothing outlives the launcher: children are stopped in order, and the kernel stops them should it be killed.
"""

from __future__ import annotations

import ctypes
import fcntl
import json
import logging
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any, Final

from app.config import Settings, environment_name
from app.core.people import User
from app.errors import CannotStart, Unavailable

log = logging.getLogger(__name__)

STOP_SECONDS: Final = 20.0
"""How long a child may take to end its work after SIGTERM before it is killed."""

RESTART_SECONDS: Final = 1.0
"""Pause before a child that ended by itself is started again."""


def check_address(settings: Settings) -> None:
    """Refuse an address beyond loopback where nobody could sign in (I8), and a port that is taken. Raises CannotStart."""
    host = settings.host
    if not settings.on_loopback:
        check_sign_in(settings)
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, settings.port))
        except OSError as error:
            raise CannotStart(
                f"Port {settings.port} on {host} cannot be used ({error.strerror}). "
                "Stop what listens there, or choose another with --port."
            ) from None


def check_sign_in(settings: Settings) -> None:
    """Refuse to serve beyond loopback without a way to sign in. Raises CannotStart.

    A way is a user who is not disabled; or single sign-on; or a secret key that was given on purpose, with which the
    first admin is claimed by a one-time token on the console.
    """
    from app.secretkey import secret_key

    if settings.oidc_issuer:
        secret_key(settings)
        return
    users, why = _users(settings)
    if any(not user.disabled for user in users) or (settings.secret_key is not None and not users and not why):
        secret_key(settings)
        return
    raise CannotStart(
        f"SPENDSCOPE_HOST {settings.host!r} is not a loopback address, and {why or 'nobody could sign in there'}. "
        "Make a user first with `spendscope user add NAME --role admin`, or set SPENDSCOPE_SECRET_KEY to claim the first "
        "admin with the one-time token that is printed then (docs/access.md)."
    )


def _users(settings: Settings) -> tuple[list[User], str]:
    """The users there are; and why that cannot be known, "" when it is."""
    from app.backends import open_metadata, store_dir

    if settings.mongodb_uri is None and not (store_dir(settings) / "metadata.sqlite").exists():
        return [], ""
    metadata = open_metadata(settings)
    try:
        metadata.prepare()
        return metadata.users(), ""
    except Unavailable as error:
        return [], f"whether anybody can sign in is not known ({error.message})"
    finally:
        metadata.close()


@contextmanager
def locked_data_dir(settings: Settings) -> Iterator[None]:
    """Hold DATA_DIR/lock for as long as the family runs. Raises CannotStart when it is held or cannot be written."""
    path = settings.data_dir / "lock"
    try:
        settings.data_dir.mkdir(parents=True, exist_ok=True)
        handle = path.open("a+")
    except OSError as error:
        raise CannotStart(
            f"The data directory {settings.data_dir} cannot be written ({error.strerror}). "
            "Give one that can be with --data-dir or SPENDSCOPE_DATA_DIR."
        ) from None
    with handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            handle.seek(0)
            holder = _described(handle.read())
            raise CannotStart(
                f"{settings.data_dir} is in use{holder}. Stop that one, or give another --data-dir."
            ) from None
        handle.truncate(0)
        handle.write(json.dumps({"pid": os.getpid(), "url": address(settings)}))
        handle.flush()
        try:
            yield
        finally:
            path.unlink(missing_ok=True)


def _described(text: str) -> str:
    try:
        holder = json.loads(text)
        return f" by process {int(holder['pid'])}, {str(holder['url'])[:100]}"
    except (ValueError, KeyError, TypeError):
        return ""


def is_running(data_dir: Path) -> bool:
    """Whether an `up` holds this data directory."""
    try:
        with (data_dir / "lock").open("r+") as handle:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except OSError:
        return True
    return False


def address(settings: Settings) -> str:
    host = f"[{settings.host}]" if ":" in settings.host else settings.host
    return f"http://{host}:{settings.port}"


def child_environment(settings: Settings, extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """This process's environment with these very settings, so that a child reads what the options said."""
    environment = dict(os.environ)
    for name in Settings.model_fields:
        variable, value = environment_name(name), _plain(getattr(settings, name))
        if value is None:
            environment.pop(variable, None)
        else:
            environment[variable] = value
        environment.pop(f"{variable}_FILE", None)
    return environment | dict(extra or {})


def _plain(value: Any) -> str | None:
    if value is None or value == "":
        return None
    if isinstance(value, Path):
        return str(value.resolve())
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value.get_secret_value()) if hasattr(value, "get_secret_value") else str(value)


@dataclass
class Child:
    name: str
    arguments: list[str]
    environment: Mapping[str, str]
    process: subprocess.Popen[bytes] | None = None
    start_at: float = 0.0


@dataclass
class Family:
    """Child processes of this one, restarted when they end, stopped in reverse order of their start."""

    environment: Mapping[str, str]
    children: list[Child] = field(default_factory=list)
    stopping: bool = False

    def add(self, name: str, *arguments: str, environment: Mapping[str, str] | None = None) -> None:
        child = Child(name, [sys.executable, "-m", "app.cli", *arguments], environment or self.environment)
        self.children.append(child)
        self._start(child)

    def _start(self, child: Child) -> None:
        child.process = subprocess.Popen(  # noqa: S603 - our own interpreter and command line
            child.arguments,
            env=dict(child.environment),
            stdin=subprocess.DEVNULL,
            start_new_session=True,
            preexec_fn=_die_with_parent,
        )

    def watch(self) -> None:
        """Start again what ended by itself; call it often."""
        now = time.monotonic()
        for child in self.children:
            if child.process is not None and child.process.poll() is not None:
                log.warning("%s ended with %s; starting it again", child.name, child.process.returncode)
                child.process, child.start_at = None, now + RESTART_SECONDS
            elif child.process is None and now >= child.start_at and not self.stopping:
                self._start(child)

    def stop(self) -> None:
        """Ask every child to end, wait, and kill what does not."""
        self.stopping = True
        running = [child.process for child in reversed(self.children) if child.process is not None]
        for process in running:
            _signal(process, signal.SIGTERM)
        until = time.monotonic() + STOP_SECONDS
        for process in running:
            with suppress(subprocess.TimeoutExpired):
                process.wait(max(until - time.monotonic(), 0.01))
            # The whole session of a child: a worker's forked job must not stay behind either.
            _signal_session(process.pid, signal.SIGKILL)
            process.wait()


def _signal(process: subprocess.Popen[bytes], number: signal.Signals) -> None:
    if process.poll() is None:
        process.send_signal(number)


def _signal_session(pid: int, number: signal.Signals) -> None:
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, number)


_PR_SET_PDEATHSIG: Final = 1


def _die_with_parent() -> None:
    """Linux: have the kernel send SIGTERM when the launcher dies, however it does. Elsewhere nothing happens."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


def quieter(settings: Settings) -> Settings:
    """For processes beside a person's terminal: they only say what is wrong, unless somebody asked for more
    (SPENDSCOPE_LOG_LEVEL, `--verbose`) or a program reads them (`json`)."""
    if "log_level" in settings.model_fields_set or settings.log_format == "json":
        return settings
    return settings.model_copy(update={"log_level": "warning"})


@contextmanager
def stop_requested() -> Iterator[Callable[[], bool]]:
    """Turn SIGINT and SIGTERM into a question instead of an exception."""
    asked: list[int] = []
    previous = {
        number: signal.signal(number, lambda got, _: asked.append(got)) for number in (signal.SIGINT, signal.SIGTERM)
    }
    try:
        yield lambda: bool(asked)
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


@contextmanager
def private_parts(settings: Settings) -> Iterator[None]:
    """The private Redis, when no REDIS_URL names one."""
    if settings.redis_url:
        yield
        return
    from app.redisserver import PrivateRedis

    server = PrivateRedis(settings.data_dir)
    server.start()
    try:
        yield
    finally:
        server.stop()


@contextmanager
def working_family(settings: Settings) -> Iterator[Family]:
    """Private parts, workers and scheduler for as long as the block runs; the caller holds the data directory.

    Raises ModuleNotFoundError at once for a package that every worker would die of.
    """
    for name in ("numpy", "pyarrow", "rq"):
        import_module(name)
    with private_parts(settings):
        quiet = child_environment(quieter(settings))
        family = Family(child_environment(settings))
        try:
            for number in range(1, settings.workers + 1):
                family.add(f"worker {number}", "worker", environment=quiet)
            family.add("scheduler", "scheduler")
            yield family
        finally:
            family.stop()


def run_up(settings: Settings, say: Callable[[str], None]) -> None:
    """Run everything until SIGINT or SIGTERM. Raises CannotStart before anything is left running."""
    check_address(settings)
    with stop_requested() as stopping, locked_data_dir(settings):
        if settings.serves_demo:
            write_sample(settings, say)
        with working_family(settings) as family:
            family.add("web", "web", environment=child_environment(quieter(settings)))
            _wait_until_served(settings, family, stopping)
            if not stopping():
                say(f"Spendscope is ready at {address(settings)}  (Ctrl-C stops it)")
            while not stopping():
                family.watch()
                _pause(0.25)
            say("Stopping")


def write_sample(settings: Settings, say: Callable[[str], None]) -> None:
    """Bring the sample organisation's files up to today; what is there and unchanged stays."""
    from app.backends import utc_now
    from app.sample import generate

    started = time.monotonic()
    sample = settings.data_dir / "sample"
    changed = generate(sample, days=settings.demo_days, seed=settings.demo_seed, today=utc_now().date())
    if changed:
        say(f"Sample organisation: {changed} daily files written in {time.monotonic() - started:.1f} s")


def _wait_until_served(settings: Settings, family: Family, stopping: Callable[[], bool]) -> None:
    web = family.children[-1]
    until = time.monotonic() + 60
    while not stopping() and not _answers(settings):
        if web.process is not None and web.process.poll() is not None:
            raise CannotStart("The web process could not start; its message is above.")
        if time.monotonic() > until:
            raise CannotStart("The web process did not answer within 60 s.")
        _pause(0.1)


def _answers(settings: Settings) -> bool:
    import http.client

    connection = http.client.HTTPConnection(settings.host, settings.port, timeout=5)
    try:
        connection.request("GET", "/healthz")
        return connection.getresponse().status == 200
    except OSError:
        return False
    finally:
        connection.close()


def _pause(seconds: float) -> None:
    time.sleep(seconds)
