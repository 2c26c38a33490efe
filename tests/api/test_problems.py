"""Errors: problem+json everywhere under /api, never a stack trace, and never a 5xx for input."""

from __future__ import annotations

import json
import logging
import random
import string
import time
from typing import Any

import pytest
from flask import Flask

from app.api import blueprint
from app.api.problems import TITLES
from app.errors import BadCredentials
from tests.api.conftest import END, FIRST, World

METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "TRACE", "PROPFIND", "X" * 50)


@pytest.mark.parametrize(
    "path",
    [
        "/api",
        "/api/",
        "/api/v1",
        "/api/v1/",
        "/api/v2/costs",
        "/api/v1/cost",
        "/api/v1/costs/",
        "/api/%00",
        "/api/v1/jobs/a/b",
        "/api/\N{SNOWMAN}",
        "/api/..%2f",
    ],
)
@pytest.mark.parametrize("method", METHODS[:6])
def test_unknown_paths_are_404_whatever_the_method(world: World, path: str, method: str) -> None:
    answer = world.client.open(path, method=method)
    assert (answer.status_code, answer.content_type) == (404, "application/problem+json")
    if method != "HEAD":
        assert answer.json is not None
        assert "/api/docs" in answer.json["detail"]


@pytest.mark.parametrize(
    ("path", "allowed"),
    [
        ("/api/v1/costs", {"GET", "HEAD"}),
        ("/api/v1/jobs", {"GET", "HEAD", "POST"}),
        ("/api/v1/jobs/x", {"GET", "HEAD", "DELETE"}),
        ("/api/docs", {"GET", "HEAD"}),
    ],
)
def test_other_methods_are_405_and_name_the_right_ones(world: World, path: str, allowed: set[str]) -> None:
    for method in set(METHODS[:6]) - allowed:
        answer = world.client.open(path, method=method)
        assert (answer.status_code, answer.content_type) == (405, "application/problem+json")
        assert set(answer.headers["Allow"].split(", ")) == allowed
    options = world.client.options(path)
    assert (options.status_code, set(options.headers["Allow"].split(", "))) == (204, allowed)


@pytest.mark.parametrize("path", ["/healthz", "/readyz", "/metrics"])
def test_what_probes_do_not_take_is_a_problem_too(world: World, path: str) -> None:
    """A page in answer to `/readyz/` would be taken for readiness."""
    for method in METHODS[2:]:
        answer = world.client.open(path, method=method)
        assert (answer.status_code, answer.content_type) == (405, "application/problem+json"), method
    assert set(world.client.post(path).headers["Allow"].split(", ")) == {"GET", "HEAD"}
    options = world.client.options(path)
    assert (options.status_code, set(options.headers["Allow"].split(", "))) == (204, {"GET", "HEAD"})
    for method in METHODS[:6]:
        answer = world.client.open(f"{path}/", method=method)
        assert (answer.status_code, answer.content_type) == (404, "application/problem+json"), method
    assert world.client.get(path).status_code in (200, 503)


@pytest.mark.parametrize("method", METHODS[6:])
def test_methods_nobody_knows_are_405(world: World, method: str) -> None:
    for path in ("/api/v1/costs", "/api/nothing"):
        answer = world.client.open(path, method=method)
        assert (answer.status_code, answer.content_type) == (405, "application/problem+json")


def test_a_problem_has_the_members_of_rfc_9457(world: World) -> None:
    answer = world.client.get("/api/v1/costs?servce=1")
    assert answer.json == {
        "type": "/api/docs#problem-invalid_input",
        "title": TITLES["invalid_input"],
        "status": 400,
        "detail": answer.json["detail"],  # type: ignore[index]
        "instance": "/api/v1/costs",
        "code": "invalid_input",
        "field": "servce",
    }
    assert answer.headers["Cache-Control"] == "no-store"
    assert answer.headers["X-Content-Type-Options"] == "nosniff"


def test_a_mistake_of_ours_is_500_with_a_reference_and_a_log_entry(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    class Broken:
        def __getattr__(self, name: str) -> Any:
            raise RuntimeError("secret detail")

    with caplog.at_level(logging.ERROR):
        answer = world.serving(costs=Broken()).get("/api/v1/costs", query_string={"start": FIRST, "end": END})
    assert (answer.status_code, answer.content_type) == (500, "application/problem+json")
    assert "secret detail" not in answer.text
    assert "Traceback" not in answer.text
    assert answer.json is not None
    assert answer.json["reference"] in caplog.text
    assert "secret detail" in caplog.text


def test_a_part_that_refuses_us_is_503(world: World) -> None:
    class Refusing:
        def __getattr__(self, name: str) -> Any:
            raise BadCredentials("costs", "InfluxDB refuses the token. Set INFLUXDB_TOKEN.")

    answer = world.serving(costs=Refusing()).get("/api/v1/dimensions/service")
    assert answer.status_code == 503
    assert answer.json is not None
    assert answer.json["code"] == "bad_credentials"
    assert "Retry-After" in answer.headers


def test_the_api_answers_in_front_of_pages_that_take_every_path(world: World) -> None:
    """As beside Dash: its catch-all and its own handlers change nothing here."""
    server = Flask("with-pages")
    server.extensions["spendscope"] = world.backends
    server.add_url_rule("/", "page", lambda: "page")
    server.add_url_rule("/<path:path>", "pages", lambda path: "page")
    server.register_error_handler(404, lambda error: ("not ours", 404))
    server.register_blueprint(blueprint())
    client = server.test_client()
    assert client.get("/anything").text == "page"
    for path, status in (("/api/typo", 404), ("/api", 404), ("/api/v1/jobs/none", 404), ("/api/v1/costs", 400)):
        answer = client.get(path)
        assert (answer.status_code, answer.content_type) == (status, "application/problem+json"), path
    assert client.open("/api/typo", method="TRACE").content_type == "application/problem+json"
    assert client.open("/anything", method="TRACE").content_type.startswith("text/html")
    assert client.get("/healthz").text == "ok\n"
    assert (client.get("/readyz/").status_code, client.post("/healthz").status_code) == (404, 405)


def test_bytes_that_are_not_utf_8_are_400(world: World) -> None:
    for query in ("start=\xff", "\xfe=1", "service=\xc3\x28"):
        answer = world.client.get("/api/v1/costs", environ_overrides={"QUERY_STRING": query})
        assert (answer.status_code, answer.content_type) == (400, "application/problem+json")


# --- fuzz ---------------------------------------------------------------------------------------------------------

NAMES = ("start", "end", "metric", "granularity", "group_by", "service", "region", "account", "provider", "top", "limit", "cursor", "format", "q", "status", "kind", "key", "charge_category", "", "x")  # fmt: skip
VALUES = ("2026-10-01", "2026-11-01", "2000-01-01", "2100-01-01", "0001-01-01", "9999-12-31", "amortized_cost", "usage_quantity", "daily", "total", "weekly", "service", "service,region", "account,service,region,provider,charge_category", "1", "0", "-1", "1000", "1e3", "99999999999999999999", "NaN", "json", "csv", "", "%00", "%FF", "%ED%A0%80", "'", "$ne", "{}", "..%2f", "%0d%0aX: y", "ingested", "queued", "a" * 3000)  # fmt: skip
PATHS = ("/api/v1/costs", "/api/v1/dimensions/service", "/api/v1/dimensions/region", "/api/v1/coverage", "/api/v1/ingestions", "/api/v1/jobs", "/api/v1/ingestions/x", "/api/v1/jobs/x", "/api/v1/openapi.json", "/api/docs")  # fmt: skip


def random_query(chance: random.Random) -> str:
    pairs = [f"start={chance.choice(VALUES[:6])}", f"end={chance.choice(VALUES[:6])}"] if chance.random() < 0.6 else []
    for _ in range(chance.randrange(6)):
        value = chance.choice(VALUES)
        if chance.random() < 0.3:
            value = "".join(chance.choices(string.printable.replace("#", "") + "é\xff%&=;+", k=chance.randrange(12)))
        pairs.append(chance.choice(NAMES) + chance.choice(("=", "=", "=", "", "==", "[]=")) + value)
    return chance.choice(("&", "&", "&", ";", "&&")).join(pairs)


def random_json(chance: random.Random, depth: int = 0) -> Any:
    kind = chance.randrange(10 if depth < 4 else 7)
    if kind < 7:
        return chance.choice(
            (None, True, 0, -1, 1e308, 10**30, "", "ingest", "2026-11-01.csv", "\x00", "é\n", "x" * 2000)
        )
    if kind < 8:
        return [random_json(chance, depth + 1) for _ in range(chance.randrange(4))]
    keys = ("kind", "params", "key", "$where", "__proto__", "again", "", "a.b")
    return {chance.choice(keys): random_json(chance, depth + 1) for _ in range(chance.randrange(4))}


def random_body(chance: random.Random) -> bytes:
    body: Any = random_json(chance)
    if chance.random() < 0.6:
        body = {"kind": chance.choice(("ingest", "scan", "x", body)), "params": random_json(chance)}
    data = json.dumps(body).encode()
    if chance.random() < 0.3:
        at = chance.randrange(len(data) + 1)
        data = data[:at] + bytes(chance.choices(range(256), k=chance.randrange(5))) + data[at + chance.randrange(3) :]
    return data


def test_2000_malformed_queries_are_never_our_fault(world: World) -> None:
    chance, began, seen = random.Random(20261124), time.perf_counter(), set()
    for turn in range(2000):
        path, query = chance.choice(PATHS), random_query(chance)
        method = chance.choice(("GET", "GET", "GET", "HEAD"))
        environment = {"QUERY_STRING": query.encode("utf-8", "surrogatepass").decode("latin-1")}
        answer = world.client.open(path, method=method, environ_overrides=environment)
        assert answer.status_code < 500, (turn, path, query, answer.text[:300])
        if answer.status_code >= 400:
            assert answer.content_type == "application/problem+json", (turn, path, query)
        assert "Traceback" not in answer.text
        seen.add(answer.status_code)
    assert {200, 400} <= seen
    assert time.perf_counter() - began < 60


def test_2000_malformed_bodies_are_never_our_fault(empty: World) -> None:
    chance, began, seen = random.Random(42), time.perf_counter(), set()
    for turn in range(2000):
        data = random_body(chance)
        kind = chance.choice(("application/json",) * 9 + ("text/plain", "", "application/json; charset=\xff"))
        key = chance.choice((None, None, "k1", "k2", "\x7f", "x" * 300))
        headers = {"Idempotency-Key": key} if key else {}
        answer = empty.client.post("/api/v1/jobs", data=data, content_type=kind, headers=headers)
        assert answer.status_code in (202, 400, 415, 422), (turn, data, kind, key, answer.text[:300])
        if answer.status_code >= 400:
            assert answer.content_type == "application/problem+json"
        seen.add(answer.status_code)
    assert {400, 415, 422} <= seen
    assert time.perf_counter() - began < 60


def test_random_paths_under_api_are_never_our_fault(world: World) -> None:
    chance = random.Random(3)
    for _ in range(500):
        path = "/api/" + "".join(chance.choices("/v1costsjb.%~<>{}$é\x01", k=chance.randrange(20)))
        answer = world.client.open(
            "/", method=chance.choice(METHODS), environ_overrides={"PATH_INFO": path.encode().decode("latin-1")}
        )
        assert answer.status_code in (308, 404, 405), path
        assert answer.status_code == 308 or answer.content_type == "application/problem+json", path
