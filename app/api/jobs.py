"""Jobs over HTTP: submit, follow, cancel."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final, TypeVar

from flask import Response, request
from pydantic import BaseModel, ValidationError

from app import jobs as work
from app.anomalies import detect_params, submit_detect
from app.api.ledger import ID
from app.api.models import (
    BackfillParams,
    CollectParams,
    DetectParams,
    IngestParams,
    JobAnswer,
    JobList,
    JobRequest,
    JudgeParams,
)
from app.api.paging import digest
from app.api.routes import CURSOR, TEXT, Arguments, Parameter, Route, answered, body_of, limit_of, one_of, wrong_member
from app.backends import Backends, current
from app.collection import backfill_params, collect_params, submit_collection
from app.core.jobs import JOB_STATUSES, KINDS, Job
from app.core.periods import day_from
from app.core.query import choice
from app.errors import InvalidInput, NotFound, Refused
from app.ingest import day_of
from app.judging import submit_judge
from app.principal import principal


def submit_job(_: Arguments) -> Response:
    asked = body_of(JobRequest)
    work.check_kind(asked.kind)
    backends = current()
    params = PARAMS[asked.kind](backends, asked.params)
    job = _submit(backends, asked.kind, params, request.headers.get("Idempotency-Key"))
    return answered(JobAnswer.of(job), 202, {"Location": f"/api/v1/jobs/{job.id}"})


Params = TypeVar("Params", bound=BaseModel)


def _params(model: type[Params], given: Mapping[str, Any]) -> Params:
    try:
        return model.model_validate(given)
    except ValidationError as error:
        raise wrong_member(error, "params") from None


def _ingest_params(backends: Backends, given: Mapping[str, Any]) -> dict[str, Any]:
    """One file a job: its name is checked here, whether it is there when the job runs."""
    asked = _params(IngestParams, given)
    if day_of(asked.key) is None:
        raise InvalidInput(
            f"params.key {asked.key[:80]!r} is not the name of a daily cost file. Write it as 2026-11-01.csv or 2026-11-01.csv.gz.",
            field="params.key",
        )
    params = {"source": backends.source.root, "key": asked.key}
    return params | {"again": True} if asked.again else params


def _collect_params(backends: Backends, given: Mapping[str, Any]) -> dict[str, Any]:
    asked = _params(CollectParams, given)
    with _named_as_member():
        return collect_params(backends, asked.start, asked.end, asked.accounts)


def _backfill_params(backends: Backends, given: Mapping[str, Any]) -> dict[str, Any]:
    asked = _params(BackfillParams, given)
    with _named_as_member():
        return backfill_params(backends, asked.months)


def _detect_params(backends: Backends, given: Mapping[str, Any]) -> dict[str, Any]:
    asked = _params(DetectParams, given)
    with _named_as_member():
        as_of = day_from(asked.as_of, "as_of") if asked.as_of is not None else None
        limits = {"min_daily": asked.min_daily, "min_total": asked.min_total}
        return detect_params(backends, as_of, backtest=asked.backtest, **limits)


def _judge_params(_: Backends, given: Mapping[str, Any]) -> dict[str, Any]:
    _params(JudgeParams, given)
    return {}


@contextmanager
def _named_as_member() -> Iterator[None]:
    """A wrong value is one of `params`."""
    try:
        yield
    except InvalidInput as error:
        raise InvalidInput(error.message, field=f"params.{error.field}") from None


PARAMS: Final[Mapping[str, Callable[[Backends, Mapping[str, Any]], dict[str, Any]]]] = {
    "ingest": _ingest_params,
    "collect": _collect_params,
    "backfill": _backfill_params,
    "detect": _detect_params,
    "judge": _judge_params,
}
"""Checks what a kind of job is given and makes it complete."""


def _submit(backends: Backends, kind: str, params: dict[str, Any], request_key: str | None) -> Job:
    """Without an Idempotency-Key the same work is the same job until it is done; with one, for as long as jobs are kept."""
    day = day_of(str(params.get("key", "")))
    priority = day.toordinal() if day else 0
    if request_key is None and kind == "ingest":
        key = digest("\0".join((kind, *map(str, params.values()))))
        return work.submit(backends, kind, params, key=key, priority=priority)
    if request_key is None and kind == "detect":
        return submit_detect(backends, params)
    if request_key is None and kind == "judge":
        return submit_judge(backends)
    if request_key is None:
        return submit_collection(backends, kind, params)
    name = _id_of(request_key)
    job = backends.metadata.job(name) or work.submit(backends, kind, params, key=name, priority=priority, id=name)
    if (job.kind, dict(job.params)) != (kind, params):
        raise Refused(
            f"Idempotency-Key {request_key[:40]!r} belongs to another request: job {job.id}. Use a new key for a new request."
        )
    return job


def _id_of(request_key: str) -> str:
    if not 1 <= len(request_key) <= 255 or not request_key.isascii() or not request_key.isprintable():
        raise InvalidInput(
            "Idempotency-Key is not 1 to 255 printable ASCII characters. A UUID is a good one.", field="Idempotency-Key"
        )
    asking = principal()
    # Two principals that choose the same key mean two requests; a single user's keys stay what they were.
    return "request-" + digest(request_key if asking.via == "local" else f"{asking.id}\0{request_key}")


def jobs(given: Arguments) -> Response:
    status, kind = given.first("status"), given.first("kind")
    found = current().metadata.jobs(
        limit=given.limit(100),
        cursor=given.first("cursor"),
        status=choice("status", status, JOB_STATUSES) if status is not None else None,
        kind=choice("kind", kind, KINDS) if kind is not None else None,
    )
    return answered(JobList(items=[JobAnswer.of(item) for item in found.items], next_cursor=found.next_cursor))


def job(_: Arguments, id: str) -> Response:
    return answered(JobAnswer.of(_known(current().metadata.job(id), id)))


def cancel_job(_: Arguments, id: str) -> Response:
    return answered(JobAnswer.of(_known(work.cancel(current(), id), id)))


def _known(found: Job | None, id: str) -> Job:
    if found is None:
        raise NotFound(f"There is no job {id[:40]!r}. GET /api/v1/jobs lists them.")
    return found


ROUTES: Final = (
    Route(
        "POST",
        "/api/v1/jobs",
        submit_job,
        "Submit work",
        JobAnswer,
        about="`ingest` takes one file from the source; new files are found without it. `collect` and `backfill` ask Cost "
        "Explorer, which costs 0.01 USD a request; the job's result says how many there were. `detect` and `judge` are run by themselves after files were ingested.",
        parameters=(
            Parameter(
                "Idempotency-Key",
                "Makes the request safe to repeat: the same key is the same job. With another body it is refused.",
                TEXT,
                place="header",
            ),
        ),
        body=JobRequest,
        status=202,
        problems=(400, 413, 415, 422),
        tag="jobs",
    ),
    Route(
        "GET",
        "/api/v1/jobs",
        jobs,
        "Jobs",
        JobList,
        parameters=(
            one_of("status", "Only with this status.", JOB_STATUSES),
            one_of("kind", "Only of this kind.", KINDS),
            limit_of(100),
            CURSOR,
        ),
        problems=(400,),
        tag="jobs",
    ),
    Route(
        "GET",
        "/api/v1/jobs/<id>",
        job,
        "One job and how far it is",
        JobAnswer,
        parameters=(ID,),
        problems=(404,),
        tag="jobs",
    ),
    Route(
        "DELETE",
        "/api/v1/jobs/<id>",
        cancel_job,
        "Cancel a job",
        JobAnswer,
        about="A job that has ended stays as it ended; the answer says how.",
        parameters=(ID,),
        problems=(404,),
        tag="jobs",
    ),
)
