"""The queue on Redis, by RQ. It carries ids: whatever else is found in it is refused before anything of it is loaded."""

from __future__ import annotations

import json
import logging
import re
import time
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Final

import redis
import redis.backoff
import redis.exceptions
import redis.retry
from rq import Queue as BaseQueue
from rq.command import send_command
from rq.exceptions import DuplicateJobError, NoSuchJobError
from rq.executions import ExecutionRegistry
from rq.job import Job as BaseJob
from rq.job import JobStatus
from rq.serializers import JSONSerializer
from rq.utils import import_attribute, now, str_to_date
from rq.worker_registration import WORKERS_BY_QUEUE_KEY

from app.core.jobs import Job
from app.errors import BadCredentials, CannotStart, Unavailable
from app.patience import Patience
from app.redisserver import private_url as private_url  # where backends look for it

log = logging.getLogger(__name__)

QUEUE: Final = "spendscope"
RUN: Final = "workers.jobs.run"
"""The only function that runs, with a job id as its only argument."""

REFUSED: Final = "spendscope:refused"
"""Redis counter of what was found in the queue and is not ours."""

ANSWER_SECONDS: Final = 5.0
REST_SECONDS: Final = 1.0
"""After no answer, how long further calls fail at once instead of each waiting for the same silence."""

MOST_CALLS: Final = 2
PATIENCE_SECONDS: Final = 2.0
"""So many calls of one process wait for Redis at a time, and none behind one that has waited so long."""

ALIVE_SECONDS: Final = 30.0
"""A worker shows a sign of life every 10 s at most (workers.worker)."""

STARTED_SECONDS: Final = 20.0
"""A started job whose worker was silent for this long is on its way to nobody."""

POPPED_SECONDS: Final = 10.0
"""A worker needs milliseconds from taking an id off the list to starting it."""

KEEP_FAILURE_SECONDS: Final = 60
LARGEST_DATA: Final = 1024
OUR_ID: Final = re.compile(r"([A-Za-z0-9_-]{1,128})-([0-9]{1,9})")
HAS_NO_PLACE: Final = frozenset(
    {
        "success_callback_name",
        "failure_callback_name",
        "stopped_callback_name",
        "webhooks",
        "dependency_id",
        "dependency_ids",
        "group_id",
        "meta",
        "rate_limit_key",
        "repeats_left",
        "result",
        "retries_left",
    }
)
"""Fields of an RQ job that load, import or start something; ours have them empty or not at all."""


class ForeignJob(NoSuchJobError):
    """Found in the queue and not put there by Spendscope. RQ passes over a job that it cannot find."""


class IdJob(BaseJob):
    """An RQ job that is nothing but a job id: the only class queue and worker read from Redis."""

    def __init__(self, id: str | None = None, connection: Any = None, serializer: Any = None) -> None:  # noqa: ARG002
        # RQ builds jobs without a serializer in places, and its default is pickle.
        super().__init__(id, connection=connection, serializer=JSONSerializer)

    def refresh(self) -> None:
        try:
            super().refresh()  # type: ignore[no-untyped-call]
        except redis.ResponseError:  # the key is not a hash
            self._refuse("it is not a job")

    def restore(self, raw_data: Mapping[bytes, bytes]) -> None:
        if wrong := _foreign(self.id, raw_data):
            self._refuse(wrong)
        try:
            super().restore(raw_data)
        except Exception as error:  # whatever RQ stumbles over was not written by us
            self._refuse(f"{type(error).__name__} while reading it")

    def _refuse(self, why: str) -> None:
        count_refused(self.connection, self.id, why)
        raise ForeignJob(f"{self.id[:80]} is not a job of Spendscope: {why}")

    @classmethod
    def fetch_many(cls, job_ids: Iterable[str], connection: Any, serializer: Any = None) -> list[Any]:
        return [cls._found(job_id, connection, serializer) for job_id in job_ids]

    @classmethod
    def _found(cls, job_id: str, connection: Any, serializer: Any) -> Any:
        try:
            return cls.fetch(job_id, connection=connection, serializer=serializer)
        except (NoSuchJobError, ValueError):
            return None

    @property
    def func(self) -> Any:
        if self.func_name != RUN:
            self._refuse(f"it asks for {str(self.func_name)[:80]!r}")
        return import_attribute(RUN)


def _foreign(rq_id: str, raw: Mapping[bytes, bytes]) -> str | None:
    """Why this hash is not one of ours, None when it is. Nothing of it is deserialized but a bounded JSON list."""
    for name, value in raw.items():
        if value and name.decode("utf-8", "replace") in HAS_NO_PLACE:
            return f"it has {name.decode('utf-8', 'replace')}"
    ours = OUR_ID.fullmatch(rq_id)
    if ours is None or _called(raw.get(b"data", b"")) != [RUN, None, [ours[1]], {}]:
        return f"it does not ask for {RUN} with its own id"
    return None


def _called(data: bytes) -> Any:
    """[function, instance, args, kwargs] of an RQ job's data; None when that is not small JSON."""
    try:
        inflate = zlib.decompressobj()
        plain = inflate.decompress(data, LARGEST_DATA)
        return None if inflate.unconsumed_tail else json.loads(plain)
    except (zlib.error, ValueError, RecursionError):
        return None


def count_refused(connection: Any, rq_id: str, why: str) -> None:
    log.error("Refused %r from the queue: %s. Somebody else writes to this Redis.", rq_id[:80], why)
    connection.incr(REFUSED)


class IdQueue(BaseQueue):
    """RQ's queue, dropping ids that are not ours before RQ looks at what is behind them."""

    job_class = IdJob

    @classmethod
    def lmove(cls, connection: Any, queue_key: str, timeout: int | None) -> Any:
        while True:
            taken = super().lmove(connection, queue_key, timeout)
            if taken is None or OUR_ID.fullmatch(taken[1].decode("utf-8", "replace")):
                return taken
            connection.lrem(f"{queue_key}:intermediate", 1, taken[1])
            count_refused(connection, taken[1].decode("utf-8", "replace"), "it is not the name of a job")


def connect(url: str) -> Any:
    """A client that waits for no answer longer than ANSWER_SECONDS and sends no command twice by itself."""
    try:
        return redis.Redis.from_url(
            url,
            socket_timeout=ANSWER_SECONDS,
            socket_connect_timeout=ANSWER_SECONDS,
            retry=redis.retry.Retry(redis.backoff.NoBackoff(), 0),
        )
    except ValueError:
        raise CannotStart("REDIS_URL is not a redis://, rediss:// or unix:// URL.") from None


def open_queue(client: Any, job_timeout: int) -> IdQueue:
    return IdQueue(QUEUE, connection=client, default_timeout=job_timeout, serializer=JSONSerializer)


def rq_id(job: Job) -> str:
    """What RQ calls this attempt. The token grows with every claim, so each attempt is another RQ job."""
    return f"{job.id}-{job.token}"


class RqQueue:
    def __init__(self, url: str, *, job_timeout: int, kept_by_service: bool = False) -> None:
        """`kept_by_service`: somebody vouches for what the server holds; whether it keeps a log itself does not matter."""
        self._kept_by_service = kept_by_service
        self._client = connect(url)
        self._queue = open_queue(self._client, job_timeout)
        self._place = place_of(self._client)
        self._resting_until = 0.0
        self._patience = Patience(MOST_CALLS, PATIENCE_SECONDS, lambda: Unavailable("queue", _silent(self._place)))

    def check(self) -> None:
        """Raises CannotStart for a server that would lose or evict jobs."""
        with self._patience.asking(), answers(self._place):
            memory, kept = self._client.info("memory"), self._client.info("persistence")
        if (policy := memory.get("maxmemory_policy", "noeviction")) != "noeviction":
            raise CannotStart(
                f"Redis at {self._place} has maxmemory-policy {policy} and would throw queued jobs away. "
                "Set maxmemory-policy to noeviction."
            )
        if not kept.get("aof_enabled") and not self._kept_by_service:
            raise CannotStart(
                f"Redis at {self._place} has appendonly off and would lose queued jobs when it ends. "
                "Set appendonly to yes, or SPENDSCOPE_REDIS_PERSISTENCE to service where a managed engine cannot."
            )

    def push(self, job: Job) -> None:
        with self._answers():
            if not self._enqueued(job) and self._missing([job]):
                # What is left of this attempt will never run: it ended without an effect on the job's record.
                self._forget(rq_id(job))
                self._enqueued(job)

    def _enqueued(self, job: Job) -> bool:
        """False when RQ has this attempt already: as good as having put it there."""
        created = self._queue.create_job(
            RUN, args=[job.id], job_id=rq_id(job), result_ttl=0, failure_ttl=KEEP_FAILURE_SECONDS
        )
        try:
            self._queue.enqueue_job(created, unique=True)
        except DuplicateJobError:
            return False
        return True

    def _forget(self, name: str) -> None:
        with self._client.pipeline() as pipeline:
            pipeline.delete(IdJob.key_for(name), _popped_key(name), ExecutionRegistry.key_template.format(name))
            pipeline.lrem(self._queue.key, 0, name)
            pipeline.lrem(self._queue.intermediate_queue_key, 0, name)
            pipeline.zrem(self._queue.failed_job_registry.key, name)
            pipeline.execute()

    def missing(self, jobs: Sequence[Job]) -> list[Job]:
        with self._answers():
            return self._missing(jobs)

    def _missing(self, jobs: Sequence[Job]) -> list[Job]:
        queued = {name.decode("utf-8", "replace") for name in self._client.lrange(self._queue.key, 0, -1)}
        others = [job for job in jobs if rq_id(job) not in queued]
        if not others:
            return []
        moment = time.time()
        with self._client.pipeline() as pipeline:
            for job in others:
                pipeline.hmget(IdJob.key_for(rq_id(job)), "status", "last_heartbeat")
            states = pipeline.execute(raise_on_error=False)
            popped = [job for job, state in zip(others, states, strict=True) if _status(state) == JobStatus.QUEUED]
            for job in popped:
                pipeline.set(_popped_key(rq_id(job)), moment, nx=True, ex=3600)
                pipeline.get(_popped_key(rq_id(job)))
            since = dict(zip((job.id for job in popped), pipeline.execute()[1::2], strict=True))
        return [
            job
            for job, state in zip(others, states, strict=True)
            if not _is_on_its_way(state, moment - float(since.get(job.id) or moment))
        ]

    def stop(self, job: Job) -> None:
        with self._answers():
            for member in self._client.zrange(self._queue.started_job_registry.key, 0, -1):
                name = member.decode("utf-8", "replace").partition(":")[0]
                ours = OUR_ID.fullmatch(name)
                if ours is None or ours[1] != job.id:
                    continue
                if worker := self._client.hget(IdJob.key_for(name), "worker_name"):
                    send_command(self._client, worker.decode("utf-8", "replace"), "stop-job", job_id=name)

    def waiting(self) -> int:
        with self._answers():
            return int(self._client.llen(self._queue.key))

    def workers(self) -> int:
        with self._answers():
            keys = self._client.smembers(WORKERS_BY_QUEUE_KEY % QUEUE)
            with self._client.pipeline() as pipeline:
                for key in keys:
                    pipeline.hmget(key, "last_heartbeat", "death")
                found = pipeline.execute()
        return sum(1 for beat, death in found if not death and _age(beat) < ALIVE_SECONDS)

    def refused(self) -> int:
        """How many entries of the queue were not ours, ever."""
        with self._answers():
            return int(self._client.get(REFUSED) or 0)

    @contextmanager
    def _answers(self) -> Iterator[None]:
        if time.monotonic() < self._resting_until:
            raise Unavailable("queue", _silent(self._place))
        try:
            with self._patience.asking(), answers(self._place):
                yield
        except BadCredentials:
            raise
        except Unavailable as error:
            if isinstance(error.__cause__, (redis.TimeoutError, redis.ConnectionError)):
                self._resting_until = time.monotonic() + REST_SECONDS
            raise


def _popped_key(name: str) -> str:
    return f"spendscope:popped:{name}"


def _status(state: Any) -> str | None:
    known = isinstance(state, list) and state[0] is not None
    return state[0].decode("utf-8", "replace") if known else None


def _is_on_its_way(state: Any, popped_seconds: float) -> bool:
    """Whether a job that is not on the list will still reach its function."""
    if _status(state) == JobStatus.QUEUED:
        return popped_seconds < POPPED_SECONDS
    return _status(state) == JobStatus.STARTED and _age(state[1]) < STARTED_SECONDS


def _age(beat: bytes | None) -> float:
    """Seconds since an RQ heartbeat."""
    try:
        return float((now() - str_to_date(beat)).total_seconds()) if beat else float("inf")
    except ValueError:
        return float("inf")


def place_of(client: Any) -> str:
    """Where the server is, without user or password."""
    given = client.get_connection_kwargs()
    return str(given["path"]) if "path" in given else f"{given.get('host', 'localhost')}:{given.get('port', 6379)}"


def _silent(place: str) -> str:
    if place.endswith("/redis.sock"):
        return f"The private queue at {place} does not answer. Start it with `spendscope up`, or set REDIS_URL."
    return f"Redis at {place} does not answer."


@contextmanager
def answers(place: str) -> Iterator[None]:
    """Say in our words what Redis raises."""
    try:
        yield
    except (
        redis.AuthenticationError,
        redis.exceptions.NoPermissionError,
        redis.exceptions.AuthorizationError,
    ) as error:
        raise BadCredentials("queue", f"Redis at {place} does not let us in. Check user and password.") from error
    except redis.BusyLoadingError as error:
        raise Unavailable("queue", f"Redis at {place} is still loading.", retry_after=2) from error
    except (redis.ConnectionError, redis.TimeoutError, OSError) as error:
        raise Unavailable("queue", _silent(place)) from error
    except redis.ResponseError as error:
        if str(error).startswith(("WRONGPASS", "NOAUTH", "invalid username-password", "Authentication required")):
            raise BadCredentials("queue", f"Redis at {place} does not let us in. Check user and password.") from error
        raise Unavailable("queue", f"Redis at {place} refuses to store: {str(error)[:120]}") from error
    except redis.RedisError as error:
        raise Unavailable("queue", f"Redis at {place} cannot be used: {str(error)[:120]}") from error
