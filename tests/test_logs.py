"""What the log says of requests and jobs, one line a record, whatever text arrives; and what it never says."""

from __future__ import annotations

import io
import json
import logging
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from flask import Flask, abort
from hypothesis import given
from hypothesis import strategies as st

from app import logs
from app.backends import Backends
from app.config import read_settings
from app.core.jobs import Job
from app.core.requestids import request_id_from
from app.errors import InvalidInput
from app.ingest import Outcome
from app.jobs import submit
from app.requestlog import follow
from tests.workers.world import Clock, world_of
from workers.jobs import run_job

HOSTILE = 'a\nlevel=critical\r\n{"level":"error"}\x1b[2J\x00\u2028\u0085\ud800'


@pytest.fixture
def configured() -> Iterator[Callable[..., io.StringIO]]:
    """`configure` for this test, with what it would write to stderr."""
    root, kept = logging.getLogger(), (sys.stderr, sys.excepthook, threading.excepthook)
    handlers, level = root.handlers[:], root.level
    levels = {name: logging.getLogger(name).level for name in ("app", "workers")}

    def configure(form: str, *secrets: str, level: str = "info") -> io.StringIO:
        sys.stderr = said = io.StringIO()
        logs.configure(level, form, secrets)
        return said

    yield configure
    root.handlers[:] = handlers
    root.setLevel(level)
    for name, before in levels.items():
        logging.getLogger(name).setLevel(before)
    sys.stderr, sys.excepthook, threading.excepthook = kept
    logging.captureWarnings(False)


def lines(said: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in said.getvalue().splitlines()]


log = logging.getLogger("app.test")


def test_hostile_text_is_one_line_and_comes_back_whole(configured: Callable[..., io.StringIO]) -> None:
    said = configured("json")
    log.warning("file %s", HOSTILE)
    (line,) = lines(said)
    assert line["message"] == f"file {HOSTILE}"
    assert (line["level"], line["logger"]) == ("warning", "app.test")
    said = configured("text")
    log.warning("file %s", HOSTILE)
    (shown,) = said.getvalue().splitlines()
    assert shown.isprintable()
    assert r"a\nlevel=critical\r\n" in shown


@given(st.text())
def test_any_text_is_one_line(text: str) -> None:
    record = logging.LogRecord("app", logging.INFO, "", 0, "%s", (text,), None)
    shown = logs.JsonLines(lambda given: given).format(record)
    assert len(shown.splitlines()) == 1
    assert json.loads(shown)["message"] == text
    assert len(logs.TextLines(lambda given: given).format(record).splitlines()) == 1


@pytest.mark.parametrize("form", [logs.JsonLines, logs.TextLines])
def test_a_message_of_ours_is_not_searched_and_every_other_is(
    form: type[logs.JsonLines] | type[logs.TextLines],
) -> None:
    lines_of = form(lambda _: logs.HIDDEN)
    record = logging.LogRecord("app", logging.INFO, "", 0, "%s %d", ("GET", 200), None)
    assert logs.HIDDEN in lines_of.format(record)
    vars(record).update(logs.OURS)
    assert "GET 200" in lines_of.format(record)


def test_a_trace_is_a_field_or_set_in_and_arguments_that_do_not_fit_are_told(
    configured: Callable[..., io.StringIO],
) -> None:
    for form in ("json", "text"):
        said = configured(form)
        try:
            raise ValueError(HOSTILE)
        except ValueError:
            log.exception("it failed")
        log.info("%d and %d", "no number")
        if form == "json":
            failed, odd = lines(said)
            assert failed["exception"].startswith("Traceback")
            assert odd["message"] == "%d and %d ('no number',)"
        else:
            first, *trace, odd_line = said.getvalue().splitlines()
            assert first.endswith("it failed")
            assert all(line.startswith("    ") for line in trace)
            assert "no number" in odd_line


def test_what_nobody_catches_and_warnings_are_records(configured: Callable[..., io.StringIO]) -> None:
    said = configured("json")
    thread = threading.Thread(target=lambda: 1 / 0)
    thread.start()
    thread.join()
    (line,) = lines(said)
    assert line["level"] == "critical"
    assert "ZeroDivisionError" in line["exception"]


PLANTED = {
    "mongodb_uri": "mongodb://u:p%40canary-mongo@host/x",
    "influxdb_token": "canary-influx-token",
    "redis_url": "redis://:canary-redis@host:6379/0",
}
SECRETS = ("p%40canary-mongo", "p@canary-mongo", "canary-influx-token", "canary-redis")
SHAPED = (
    "http://somebody:canary-in-an-address@host/x",
    "Authorization: Bearer canary0123456789",
    "spsc_canary0123456789",
    '{"password": "canary-password"}',
    "https://b.s3.amazonaws.com/x?X-Amz-Signature=canary0123&X-Amz-Credential=canary",
)


@pytest.mark.parametrize("form", ["json", "text"])
def test_secrets_are_taken_out_of_messages_fields_and_traces(
    configured: Callable[..., io.StringIO], monkeypatch: pytest.MonkeyPatch, form: str
) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "canary/aws+secret")
    settings = read_settings({}, **PLANTED)
    said = configured(form, *settings.secrets())
    texts = [*PLANTED.values(), *SECRETS, *SHAPED, "canary/aws+secret"]
    for text in texts:
        log.warning("said %s", text, extra={"fields": {"more": text}})
    try:
        raise ValueError(" ".join(texts))
    except ValueError:
        log.exception("failed")
    assert said.getvalue().count(logs.HIDDEN) > len(texts)
    assert "canary" not in said.getvalue()


def test_without_hiding_they_would_be_found(configured: Callable[..., io.StringIO]) -> None:
    said = configured("json")
    log.warning("%s", PLANTED["influxdb_token"])
    assert "canary-influx-token" in said.getvalue()


# --- ids --------------------------------------------------------------------------------------------------------------

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"


@pytest.mark.parametrize(
    ("given", "traceparent", "known"),
    [
        ("0b7a3c9e-1111-4222-8333-444455556666", None, "0b7a3c9e-1111-4222-8333-444455556666"),
        ("short", None, None),
        ("x" * 65, None, None),
        ("evil\nid-0123", None, None),
        ("<script>alert(1)", f"00-{TRACE}-00f067aa0ba902b7-01", TRACE),
        ("", f"00-{TRACE}-00f067aa0ba902b7-01", TRACE),
        (None, f"cc-{TRACE}-00f067aa0ba902b7-01-later", TRACE),
        (None, f"ff-{TRACE}-00f067aa0ba902b7-01", None),
        (None, f"00-{'0' * 32}-00f067aa0ba902b7-01", None),
        (None, f"00-{TRACE}-{'0' * 16}-01", None),
        (None, f"00-{TRACE.upper()}-00f067aa0ba902b7-01", None),
    ],
)
def test_which_id_a_request_goes_by(given: str | None, traceparent: str | None, known: str | None) -> None:
    assert request_id_from(given, traceparent) == known


@given(st.text(), st.text())
def test_a_request_id_needs_no_escaping(given: str, traceparent: str) -> None:
    found = request_id_from(given, traceparent)
    assert found is None or (found.isascii() and 8 <= len(found) <= 64 and not set(found) & set(" \"'<>\\\r\n;,"))


@pytest.fixture
def world(tmp_path: Path) -> Iterator[Backends]:
    opened = world_of(tmp_path, clock=Clock())
    yield opened
    opened.metadata.close()


def served(world: Backends) -> Flask:
    from app.api import problems

    server = Flask("test")
    follow(server)

    @server.get("/submit/<name>")
    def put(name: str) -> str:
        return submit(world, "ingest", {"key": name}, key=name).id

    @server.get("/wrong")
    def wrong() -> str:
        abort(problems.of_spendscope(InvalidInput("it is wrong")))

    return server


def test_the_id_is_in_answer_problem_log_and_job(world: Backends, configured: Callable[..., io.StringIO]) -> None:
    said = configured("json")
    client = served(world).test_client()
    answer = client.get("/submit/secret.csv?token=canary", headers={"X-Request-Id": "caller-0123"})
    assert answer.headers["X-Request-Id"] == "caller-0123"
    job = world.metadata.job(answer.text)
    assert job is not None
    assert job.request_id == "caller-0123"
    refused = client.get("/wrong")
    made = refused.headers["X-Request-Id"]
    assert len(made) == 32
    assert refused.get_json()["request_id"] == made
    first, second = lines(said)
    assert first["request_id"] == "caller-0123"
    assert (first["method"], first["route"], first["status"]) == ("GET", "/submit/<name>", 200)
    assert isinstance(first["milliseconds"], float)
    assert (second["request_id"], second["status"]) == (made, 400)
    assert "canary" not in said.getvalue()
    assert "secret.csv" not in said.getvalue()
    assert logs.ids() == {}, "the thread's next request starts without"


def test_records_of_a_job_carry_its_id_and_the_request_it_came_from(
    world: Backends, configured: Callable[..., io.StringIO]
) -> None:
    said = configured("json")
    with logs.bound(request_id="caller-0123"):
        job = submit(world, "ingest", {"key": "x"}, key="x")

    def handler(_: Backends, job: Job, progress: Any) -> Outcome:
        log.info("working on %s", job.kind)
        thread = threading.Thread(target=logs.with_ids(lambda: log.info("beside it")))
        thread.start()
        thread.join()
        return Outcome("done", "fine")

    run_job(world, job.id, {"ingest": handler})
    told = [line for line in lines(said) if line["logger"] in ("app.test", "workers.jobs")]
    assert [line["message"].split()[0] for line in told] == ["working", "beside", "Job"]
    assert {(line["job_id"], line["request_id"]) for line in told} == {(job.id, "caller-0123")}
    log.info("after")
    assert "job_id" not in lines(said)[-1]
