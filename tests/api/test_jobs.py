"""/api/v1/jobs: submit once, follow, cancel."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from datetime import date
from typing import Any

import pytest
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from tests.api.conftest import World
from tests.fakes import Down, MemoryQueue

JOBS = "/api/v1/jobs"
INGEST = {"kind": "ingest", "params": {"key": "2026-11-01.csv"}}


def post(client: FlaskClient, body: Any = None, key: str | None = None, **more: Any) -> TestResponse:
    headers = {"Idempotency-Key": key} if key is not None else {}
    return client.post(JOBS, json=INGEST if body is None else body, headers=headers, **more)


def queued(world: World) -> MemoryQueue:
    assert isinstance(world.backends.queue, MemoryQueue)
    return world.backends.queue


def test_a_job_is_recorded_pushed_and_found_where_location_says(empty: World) -> None:
    answer = post(empty.client)
    assert answer.status_code == 202
    job = answer.json
    assert job is not None
    assert answer.headers["Location"] == f"{JOBS}/{job['id']}"
    assert (job["kind"], job["status"]) == ("ingest", "queued")
    assert job["params"] == {"key": "2026-11-01.csv", "source": empty.backends.source.root}
    recorded = empty.backends.metadata.job(job["id"])
    assert recorded is not None
    assert queued(empty).missing([recorded]) == []
    assert empty.client.get(answer.headers["Location"]).json == job
    assert empty.get(JOBS).json == {"items": [job], "next_cursor": None}


def test_the_job_does_what_it_says(empty: World, tmp_path: Any) -> None:
    """What was submitted is what a worker runs: the file, taken by name."""
    from app.ingest import ingest_object
    from tests.api.conftest import write_day

    write_day(tmp_path / "costs", date(2026, 11, 1), [])
    job = empty.backends.metadata.job((post(empty.client).json or {})["id"])
    assert job is not None
    assert ingest_object(empty.backends, job.params, lambda *_: None, job_id=job.id).status == "done"


def test_a_file_that_was_dealt_with_is_read_again_when_asked(empty: World, tmp_path: Any) -> None:
    from app.ingest import ingest_object
    from tests.api.conftest import write_day

    write_day(tmp_path / "costs", date(2026, 11, 1), [])
    endings = []
    for again in (False, False, True):
        body = {"kind": "ingest", "params": {"key": "2026-11-01.csv", "again": again}}
        job = empty.backends.metadata.job((post(empty.client, body).json or {})["id"])
        assert job is not None
        endings.append(ingest_object(empty.backends, job.params, lambda *_: None, job_id=job.id).status)
    assert endings == ["done", "done-noop", "done"]


def test_the_same_file_is_the_same_job_until_it_is_done(empty: World) -> None:
    first, second = post(empty.client).json, post(empty.client).json
    assert first is not None
    assert second is not None
    assert first["id"] == second["id"]
    other = post(empty.client, {"kind": "ingest", "params": {"key": "2026-11-02.csv"}}).json
    assert other is not None
    assert other["id"] != first["id"]
    assert empty.client.delete(f"{JOBS}/{first['id']}").status_code == 200
    again = post(empty.client).json
    assert again is not None
    assert again["id"] != first["id"]


def test_an_idempotency_key_is_one_job_even_after_it_is_done(empty: World) -> None:
    first = post(empty.client, key="a-1")
    again = post(empty.client, key="a-1")
    assert (first.status_code, again.status_code) == (202, 202)
    assert first.json == again.json
    assert first.json is not None
    empty.client.delete(f"{JOBS}/{first.json['id']}")
    late = post(empty.client, key="a-1")
    assert late.json is not None
    assert (late.status_code, late.json["id"], late.json["status"]) == (202, first.json["id"], "cancelled")
    assert len(empty.get(JOBS).json["items"]) == 1
    assert queued(empty).waiting() == 1


def test_a_key_with_another_body_is_422_and_changes_nothing(empty: World) -> None:
    first = post(empty.client, key="a-1").json
    answer = post(empty.client, {"kind": "ingest", "params": {"key": "2026-11-02.csv"}}, key="a-1")
    assert answer.status_code == 422
    assert answer.json is not None
    assert first is not None
    assert first["id"] in answer.json["detail"]
    assert len(empty.get(JOBS).json["items"]) == 1


def test_the_same_body_written_differently_is_the_same_body(empty: World) -> None:
    first = post(empty.client, key="k").json
    spaced = empty.client.post(
        JOBS,
        data=b'{ "params": {"key":"2026-11-01.csv"},\n "kind":"ingest"}',
        content_type="application/json; charset=utf-8",
        headers={"Idempotency-Key": "k"},
    )
    assert (spaced.status_code, spaced.json) == (202, first)


def test_twenty_at_once_with_one_key_are_one_job(empty: World) -> None:
    def send(_: int) -> tuple[int, str]:
        answer = post(empty.client.application.test_client(), key="race")
        return answer.status_code, (answer.json or {}).get("id", "")

    with ThreadPoolExecutor(8) as pool:
        answers = set(pool.map(send, range(20)))
    assert len(answers) == 1
    assert answers.pop()[0] == 202
    assert len(empty.get(JOBS).json["items"]) == 1


@pytest.mark.parametrize("key", ["", "x" * 256, "tab\there", "caf\xe9"])
def test_a_key_that_is_not_one_is_refused(empty: World, key: str) -> None:
    answer = post(empty.client, key=key)
    assert answer.status_code == 400
    assert answer.json is not None
    assert answer.json["field"] == "Idempotency-Key"


@pytest.mark.parametrize(
    ("body", "status", "field"),
    [
        ({"kind": "collect", "params": {"start": "soon"}}, 400, "params.start"),
        ({"kind": "collect", "params": {"start": "2026-11-05", "end": "2026-11-01"}}, 400, "params.end"),
        ({"kind": "collect", "params": {"end": "2026-12-24"}}, 400, "params.end"),
        ({"kind": "collect", "params": {"start": "2024-01-01"}}, 400, "params.start"),
        ({"kind": "collect", "params": {"accounts": ["prod"]}}, 400, "params.accounts"),
        ({"kind": "collect", "params": {"accounts": "111111111111"}}, 400, "params.accounts"),
        ({"kind": "collect", "params": {"days": 3}}, 400, "params.days"),
        ({"kind": "backfill", "params": {}}, 400, "params.months"),
        ({"kind": "backfill", "params": {"months": 0}}, 400, "params.months"),
        ({"kind": "backfill", "params": {"months": 14}}, 400, "params.months"),
        ({"kind": "backfill", "params": {"months": "3"}}, 400, "params.months"),
        ({"kind": "detect"}, 422, None),
        ({"kind": "scan"}, 422, None),
        ({"kind": "ingest"}, 400, "params.key"),
        ({"kind": "ingest", "params": {}}, 400, "params.key"),
        ({"kind": "ingest", "params": {"key": 5}}, 400, "params.key"),
        ({"kind": "ingest", "params": {"key": "notes.txt"}}, 400, "params.key"),
        ({"kind": "ingest", "params": {"key": "../2026-11-01.csv"}}, 400, "params.key"),
        ({"kind": "ingest", "params": {"key": "2026-02-30.csv"}}, 400, "params.key"),
        ({"kind": "ingest", "params": {"key": "2026-11-01.csv", "source": "s3://other/"}}, 400, "params.source"),
        ({"kind": "ingest", "params": {"key": "2026-11-01.csv", "again": "yes"}}, 400, "params.again"),
        ({"kind": "ingest", "params": []}, 400, "params"),
        ({"kind": "steal", "params": {}}, 400, "kind"),
        ({"params": {}}, 400, "kind"),
        ({"kind": "ingest", "params": {"key": "2026-11-01.csv"}, "priority": 9}, 400, "priority"),
        ([], 400, None),
        ("ingest", 400, None),
    ],
)
def test_bad_bodies_say_which_member(empty: World, body: Any, status: int, field: str | None) -> None:
    answer = empty.client.post(JOBS, json=body)
    assert answer.status_code == status, answer.text
    assert answer.content_type == "application/problem+json"
    assert answer.json is not None
    assert answer.json.get("field") == field
    assert empty.get(JOBS).json["items"] == []


def test_a_collection_is_submitted_with_its_days(empty: World) -> None:
    answer = post(empty.client, {"kind": "collect", "params": {"accounts": ["42", "000000000042"]}})
    assert answer.status_code == 202
    assert answer.json is not None
    # Today is 6 November: October is not closed yet.
    assert answer.json["params"] == {"start": "2026-10-01", "end": "2026-11-06", "accounts": ["000000000042"]}
    again = post(empty.client, {"kind": "collect", "params": {"accounts": ["42"]}})
    assert (again.json or {})["id"] == answer.json["id"]
    other = post(empty.client, {"kind": "collect"})
    assert (other.json or {})["id"] != answer.json["id"]


def test_a_backfill_is_submitted_with_its_days(empty: World) -> None:
    answer = post(empty.client, {"kind": "backfill", "params": {"months": 12}}, key="a-1")
    assert answer.status_code == 202
    assert answer.json is not None
    assert answer.json["params"] == {"months": 12, "start": "2025-11-01", "end": "2026-11-06"}


def test_a_backfill_beyond_retention_is_refused_up_front(empty: World) -> None:
    class Kept:
        def oldest(self, today: date) -> date:
            return date(2026, 5, 11)

    client = empty.serving(costs=Kept())
    answer = post(client, {"kind": "backfill", "params": {"months": 12}})
    assert (answer.status_code, answer.content_type) == (422, "application/problem+json")
    assert answer.json is not None
    for word in ("2025-11-01", "2026-05-11", "180 days", "SPENDSCOPE_RETENTION_DAYS"):
        assert word in answer.json["detail"]
    assert empty.get(JOBS).json["items"] == []
    assert post(client, {"kind": "backfill", "params": {"months": 5}}).status_code == 202


@pytest.mark.parametrize("body", [{"kind": "collect"}, {"kind": "backfill", "params": {"months": 1}}])
def test_the_sample_is_not_collected(empty: World, body: Any) -> None:
    from app.config import read_settings

    answer = post(empty.serving(settings=read_settings({})), body)
    assert answer.status_code == 422
    assert answer.json is not None
    assert "SPENDSCOPE_SOURCE" in answer.json["detail"]


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{",
        b"\xff",
        b'{"kind":"ingest"',
        b"[" * 10_000,
        b'{"a":' * 10_000,
        b'{"kind": "\\ud800"}',
        b"NaN",
        b"null",
    ],
)
def test_what_is_not_json_is_400(empty: World, data: bytes) -> None:
    answer = empty.client.post(JOBS, data=data, content_type="application/json")
    assert answer.status_code == 400
    assert answer.content_type == "application/problem+json"


@pytest.mark.parametrize(
    "kind", [None, "text/plain", "application/x-www-form-urlencoded", "multipart/form-data", "application/jsonx"]
)
def test_another_content_type_is_415(empty: World, kind: str | None) -> None:
    answer = empty.client.post(JOBS, data=json.dumps(INGEST), content_type=kind)
    assert answer.status_code == 415
    assert answer.json is not None
    assert "application/json" in answer.json["detail"]


@pytest.mark.parametrize("size", [64 * 1024 + 1, 5_000_000])
def test_a_body_beyond_64_kib_is_413(empty: World, size: int) -> None:
    padded = json.dumps(INGEST).encode().ljust(size)
    answer = empty.client.post(JOBS, data=padded, content_type="application/json")
    assert (answer.status_code, answer.content_type) == (413, "application/problem+json")
    fits = empty.client.post(JOBS, data=padded[: 64 * 1024], content_type="application/json")
    assert fits.status_code == 202


def test_a_body_without_a_length_is_bounded_too(empty: World) -> None:
    from io import BytesIO

    answer = empty.client.post(
        JOBS,
        input_stream=BytesIO(json.dumps(INGEST).encode().ljust(100_000)),
        content_type="application/json",
        environ_overrides={"wsgi.input_terminated": True},
        headers={"Transfer-Encoding": "chunked"},
    )
    assert answer.status_code == 413


def test_jobs_are_filtered_and_paged(empty: World) -> None:
    ids = [
        (post(empty.client, {"kind": "ingest", "params": {"key": f"2026-10-{n:02}.csv"}}).json or {})["id"]
        for n in range(1, 12)
    ]
    empty.client.delete(f"{JOBS}/{ids[0]}")
    assert [item["id"] for item in empty.get(JOBS, status="cancelled").json["items"]] == [ids[0]]
    assert empty.get(JOBS, kind="scan").json["items"] == []
    seen: list[str] = []
    cursor: dict[str, str] = {}
    while True:
        page = empty.get(JOBS, limit=4, **cursor).json
        seen += [item["id"] for item in page["items"]]
        if page["next_cursor"] is None:
            break
        cursor = {"cursor": page["next_cursor"]}
    assert sorted(seen) == sorted(ids)
    for bad in ({"status": "lost"}, {"kind": "steal"}, {"limit": 0}, {"cursor": "x"}, {"page": 2}):
        assert empty.get(JOBS, **bad).status_code == 400, bad


def test_cancelling_is_final_and_can_be_repeated(empty: World) -> None:
    job = post(empty.client).json
    assert job is not None
    for _ in range(2):
        answer = empty.client.delete(f"{JOBS}/{job['id']}")
        assert answer.json is not None
        assert (answer.status_code, answer.json["status"]) == (200, "cancelled")


@pytest.mark.parametrize("method", ["GET", "DELETE"])
@pytest.mark.parametrize("name", ["nothing", "%00", "x" * 5000, "a b"])
def test_an_unknown_job_is_404(empty: World, method: str, name: str) -> None:
    answer = empty.client.open(f"{JOBS}/{name}", method=method)
    assert (answer.status_code, answer.content_type) == (404, "application/problem+json")


def test_a_metadata_store_that_is_down_accepts_nothing(empty: World) -> None:
    client = empty.serving(metadata=Down("metadata"))
    answers = [
        post(client),
        post(client, key="k"),
        client.get(JOBS),
        client.get(f"{JOBS}/x"),
        client.delete(f"{JOBS}/x"),
    ]
    assert {answer.status_code for answer in answers} == {503}
    assert {answer.headers["Retry-After"] for answer in answers} == {"7"}
    assert queued(empty).waiting() == 0


def test_a_job_accepted_while_the_queue_is_down_is_not_lost(empty: World) -> None:
    """The record is the truth, the queue a hint (I4): the answer says which, and the same key finds it again."""
    answer = post(empty.serving(queue=Down("queue")), key="k")
    assert answer.status_code in (202, 503)
    again = post(empty.client, key="k")
    assert again.status_code == 202
    assert again.json is not None
    assert [job.id for job in empty.backends.metadata.unfinished()] == [again.json["id"]]
