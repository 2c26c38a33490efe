"""The worker process: takes ids from the queue and forks a horse for each job.

The parent imports what jobs need, once, and uses none of it: a fork inherits the imports for free and would inherit
open connections and thread pools broken. Backends are opened in the horse.
"""

from __future__ import annotations

import ctypes
import logging
import multiprocessing
import os
import random
import signal
import socket
import sys
import threading
import time
from contextlib import suppress
from importlib import import_module
from multiprocessing.connection import Connection
from typing import Any, Final, NoReturn
from uuid import uuid4

import redis
from rq import Worker as BaseWorker
from rq.exceptions import StopRequested
from rq.utils import now

from app.adapters.rq import IdJob, IdQueue, connect, open_queue, private_url
from app.backends import open_backends
from app.backends import open_queue as open_queue_port
from app.config import Settings
from app.errors import BadCredentials, CannotStart, SpendscopeError, Unavailable
from app.redisserver import PR_SET_PDEATHSIG
from workers.jobs import OVERTIME_SECONDS, GivenBack, process

log = logging.getLogger(__name__)

WORKER_TTL_SECONDS: Final = 25
"""RQ waits for a job 15 s less than this and gives a sign of life in between: every 10 s."""

MAINTENANCE_SECONDS: Final = 10
MONITOR_SECONDS: Final = 5
"""How often the parent of a running horse gives a sign of life and looks at the time."""

FINISH_SECONDS: Final = 10.0
"""How long a job may go on after SIGTERM until it is given back, and then until it is killed (`up` waits 20 s)."""

GIVE_BACK_SECONDS: Final = 5.0

PRELOADED: Final = (
    "numpy",
    "pyarrow",
    "pyarrow.acero",
    "pyarrow.compute",
    "pyarrow.csv",
    "pyarrow.dataset",
    "pyarrow.parquet",
    "app.adapters.smtp",
    "app.adapters.webhook",
    "app.core.dailycsv",
    "app.spool",
)


def run_worker(settings: Settings) -> None:
    """Do jobs until SIGTERM or SIGINT. Raises CannotStart for what waiting does not mend."""
    quiet_libraries()
    preload(settings)
    end_on_signals()
    wait_until_usable(settings)
    process.settings = settings
    while not _worked_until_stopped(settings):
        end_on_signals()
        time.sleep(random.uniform(0.5, 2.0))  # noqa: S311 - spreads reconnects


def _worked_until_stopped(settings: Settings) -> bool:
    """False when it ended because the queue stopped answering."""
    worker: HorseWorker | None = None
    try:
        worker = open_worker(settings)
        process.worker = worker.name
        worker.work(logging_level="WARNING")
    except StopRequested:
        assert worker is not None
        worker.teardown()  # type: ignore[no-untyped-call]
    except (redis.RedisError, OSError) as error:
        log.warning("The queue does not answer (%s); trying again", type(error).__name__)
    return worker is not None and worker.stop_asked


def open_worker(settings: Settings) -> HorseWorker:
    client = connect(queue_url(settings))
    return HorseWorker(
        [open_queue(client, settings.job_timeout_seconds)],
        name=f"{socket.gethostname()}-{os.getpid()}-{uuid4().hex[:6]}",
        connection=client,
        job_class=IdJob,
        queue_class=IdQueue,
        serializer="json",
        worker_ttl=WORKER_TTL_SECONDS,
        maintenance_interval=MAINTENANCE_SECONDS,
        job_monitoring_interval=MONITOR_SECONDS,
        log_job_description=False,
    )


def queue_url(settings: Settings) -> str:
    return settings.redis_url.get_secret_value() if settings.redis_url else private_url(settings.data_dir)


class HorseWorker(BaseWorker):
    """RQ's forking worker, with an end to everything: to jobs at a stop, to hung horses, to horses without a parent."""

    max_connection_wait_time = 5.0
    stop_asked = False

    def register_birth(self) -> None:
        """RQ listens to signals only some time after it is seen: a stop in between would leave a dead worker listed."""
        self._install_signal_handlers()  # type: ignore[no-untyped-call]
        super().register_birth()  # type: ignore[no-untyped-call]

    def request_stop(self, signum: int, frame: Any) -> None:
        # RQ only raises while no job is under way, and an exception out of a signal handler may be swallowed.
        self.stop_asked = self._stop_requested = True
        timer = threading.Timer(FINISH_SECONDS, self._give_back)
        timer.daemon = True
        timer.start()
        super().request_stop(signum, frame)  # type: ignore[no-untyped-call]

    def _give_back(self) -> None:
        """Have the horse leave its job to another worker; one that does not is killed, and its lease runs out."""
        for number, pause in ((signal.SIGTERM, GIVE_BACK_SECONDS), (signal.SIGKILL, 0.0)):
            if self.horse_pid:
                log.warning("Stopping: the job under way is %s", "given back" if pause else "killed")
                self.kill_horse(number)
                time.sleep(pause)

    def set_shutdown_requested_date(self) -> None:
        with suppress(redis.RedisError):  # inside a signal handler, and only for RQ's own dashboards
            super().set_shutdown_requested_date()  # type: ignore[no-untyped-call]

    def maintain_heartbeats(self, job: Any, execution: Any) -> None:
        if job.timeout and (now() - job.started_at).total_seconds() > job.timeout + OVERTIME_SECONDS:
            log.error("Job %s does not end after its timeout of %s s; its horse is killed", job.id, job.timeout)
            self.kill_horse()
        super().maintain_heartbeats(job, execution)

    def run_maintenance_tasks(self) -> None:
        """What RQ tidies is of no consequence here (the records decide), so nothing in there may end the worker."""
        try:
            super().run_maintenance_tasks()  # type: ignore[no-untyped-call]
        except (redis.ConnectionError, redis.TimeoutError, StopRequested):
            raise
        except Exception:
            log.warning("Tidying the queue failed; somebody else may write to this Redis", exc_info=True)
            self.last_cleaned_at = now()  # type: ignore[assignment]

    def clean_group_registries(self) -> None:
        """There are no groups."""

    def main_work_horse(self, job: Any, queue: Any) -> None:
        die_with_parent(os.getppid())
        super().main_work_horse(job, queue)

    def setup_work_horse_signals(self) -> None:
        super().setup_work_horse_signals()  # type: ignore[no-untyped-call]
        signal.signal(signal.SIGTERM, _raise_given_back)


def _raise_given_back(*_: object) -> NoReturn:
    raise GivenBack


def die_with_parent(parent: int) -> None:
    """Linux: a horse does not outlive its worker, however that one ends. Elsewhere its lease still runs out."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:
            os._exit(1)


def quiet_libraries() -> None:
    """RQ tells every step of every job; this program's own lines say what matters."""
    for name in ("rq.worker", "rq.job", "rq.queue", "rq.registry", "rq.scripts", "rq.executions"):
        logging.getLogger(name).setLevel(logging.WARNING)
    logging.getLogger("rq.worker").addFilter(_without_trace)


def _without_trace(record: logging.LogRecord) -> bool:
    """RQ shows where in itself it was when Redis was full or refused it: that is an outage, not a mistake with a trace."""
    error = record.exc_info[1] if record.exc_info else None
    if isinstance(error, redis.RedisError | OSError):
        record.msg, record.args = "RQ ends and begins again: %s", (str(error)[:120],)
        record.exc_info = None
    return True


def preload(settings: Settings) -> None:
    """Import what jobs will use, so that each horse inherits it instead of paying a second for it."""
    adapters = (
        "mongodb" if settings.mongodb_uri else "sqlite",
        "influxdb" if settings.influxdb_url else "parquet",
        "s3" if settings.source.startswith("s3://") and not settings.serves_demo else "folder",
    )
    for name in (*PRELOADED, *(f"app.adapters.{adapter}" for adapter in adapters)):
        import_module(name)
    if "s3" in adapters:
        import_module("app.adapters.s3").load_models()


def end_on_signals() -> None:
    """While no job is under way, a signal ends the process at once."""
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: sys.exit(0))


def wait_until_usable(settings: Settings) -> None:
    """Return when queue and stores can be used. Raises CannotStart when waiting would not help: no job is taken then."""
    pause, said = 0.5, ""
    while True:
        try:
            open_queue_port(settings).check()
            prepare_apart(settings)
            return
        except BadCredentials as error:
            raise CannotStart(error.message) from None
        except Unavailable as error:
            if error.message != said:
                log.warning("Waiting: %s", error.message)
            said = error.message
        time.sleep(pause * random.uniform(0.5, 1.0))  # noqa: S311 - spreads reconnects
        pause = min(pause * 2, 5.0)


def prepare_apart(settings: Settings) -> None:
    """Open and prepare the stores in a child, for the parent of horses must not.

    Raises Unavailable as the child did, and CannotStart for everything else.
    """
    context = multiprocessing.get_context("fork")
    mine, theirs = context.Pipe(duplex=False)
    child = context.Process(target=_prepare, args=(settings, theirs), daemon=True)
    child.start()
    theirs.close()
    try:
        code, message = mine.recv()
    except EOFError:
        raise CannotStart("The stores could not be opened; the log has more.") from None
    finally:
        child.join()
        mine.close()
    if code == "unavailable":
        raise Unavailable("stores", message)
    if code:
        raise CannotStart(message)


def _prepare(settings: Settings, answer: Connection) -> None:
    try:
        backends = open_backends(settings)
        backends.metadata.prepare()
        backends.costs.prepare()
        answer.send(("", ""))
    except SpendscopeError as error:
        answer.send((error.code, error.message))
