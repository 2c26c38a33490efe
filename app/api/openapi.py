"""The OpenAPI 3.1 document, written from the routes and from the models that write the answers; and a page to read it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import cache
from http import HTTPStatus
from typing import Any, Final

import orjson
from flask import Response, render_template
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from app import __version__
from app.api.models import Problem
from app.api.problems import TITLES
from app.api.routes import Parameter, Route

ABOUT: Final = (
    "Costs by day, service, region and account, and how far each figure can be trusted. Days are UTC; `start` is the first day, "
    "`end` the first that is not in the range any more. A total is a string with every digit. Unknown is null or absent, never 0."
)

GATE: Final = (401, 403, 429)
"""What app.gate answers for any route."""

OPEN_PATHS: Final = ("/healthz", "/readyz")
TOKEN: Final = {"type": "http", "scheme": "bearer", "description": "`spendscope token create`; see docs/access.md."}


def document(routes: Iterable[Route]) -> dict[str, Any]:
    """Takes a quarter of a second of CPU where the models have not been described yet in this process."""
    routes = list(routes)
    paths: dict[str, dict[str, Any]] = {}
    for route in routes:
        paths.setdefault(route.template, {})[route.method.lower()] = _operation(route)
    return {
        "openapi": "3.1.0",
        "jsonSchemaDialect": "https://json-schema.org/draft/2020-12/schema",
        "info": {"title": "Spendscope", "version": __version__, "description": ABOUT},
        "servers": [{"url": "/"}],
        "paths": paths,
        "components": {"schemas": _schemas(routes), "securitySchemes": {"token": TOKEN}},
        # Optional: an instance on loopback without users is open.
        "security": [{"token": []}, {}],
    }


def _operation(route: Route) -> dict[str, Any]:
    found: dict[str, Any] = {
        "operationId": route.name,
        "summary": route.summary,
        "tags": [route.tag],
        "parameters": [_parameter(parameter) for parameter in route.parameters or ()],
        "responses": _responses(route),
    }
    if route.about:
        found["description"] = route.about
    if route.body:
        found["requestBody"] = {"required": True, "content": _content("application/json", route.body)}
    return found


def _parameter(given: Parameter) -> dict[str, Any]:
    schema = {"type": "array", "items": dict(given.schema)} if given.repeated else dict(given.schema)
    found = {
        "name": given.name,
        "in": given.place,
        "description": given.about,
        "required": given.required or given.place == "path",
        "schema": schema,
    }
    if given.repeated:
        found |= {"style": "form", "explode": True}
    return found | ({"example": given.example} if given.example else {})


def _responses(route: Route) -> dict[str, Any]:
    if isinstance(route.answer, str):
        content = {route.answer: {"schema": {"type": "object" if route.answer.endswith("json") else "string"}}}
    else:
        content = _content("application/json", route.answer)
    if route.also_csv:
        content["text/csv"] = {"schema": {"type": "string"}}
    found: dict[str, Any] = {str(route.status): {"description": HTTPStatus(route.status).phrase, "content": content}}
    if route.status == HTTPStatus.ACCEPTED:
        found["202"]["headers"] = {"Location": {"schema": {"type": "string"}, "description": "Where to follow it."}}
    if route.has_tag:
        found["304"] = {"description": "Nothing has changed since the answer with this ETag."}
    for status in (*route.problems, *(GATE if route.path not in OPEN_PATHS else ())):
        found[str(status)] = _problem(status)
    if route.path == "/readyz":
        found["503"] = {"description": "Not ready.", "content": content}
    elif route.tag != "operations":
        found["503"] = _problem(503)
        found["503"]["headers"] = {"Retry-After": {"schema": {"type": "integer"}, "description": "Seconds."}}
    return found


def _problem(status: int) -> dict[str, Any]:
    return {"description": HTTPStatus(status).phrase, "content": _content("application/problem+json", Problem)}


def _content(media: str, model: type[BaseModel]) -> dict[str, Any]:
    return {media: {"schema": {"$ref": f"#/components/schemas/{model.__name__}"}}}


def _schemas(routes: Iterable[Route]) -> Mapping[str, Any]:
    answers = {route.answer for route in routes if not isinstance(route.answer, str)} | {Problem}
    return _described(frozenset(answers), frozenset(route.body for route in routes if route.body))


@cache
def _described(answers: frozenset[type[BaseModel]], bodies: frozenset[type[BaseModel]]) -> Mapping[str, Any]:
    named = sorted(answers, key=lambda model: model.__name__)
    asked = sorted(bodies, key=lambda model: model.__name__)
    _, found = models_json_schema(
        [*((model, "serialization") for model in named), *((model, "validation") for model in asked)],
        ref_template="#/components/schemas/{model}",
    )
    schemas: Mapping[str, Any] = found["$defs"]
    return schemas


# --- answers ------------------------------------------------------------------------------------------------------


def json_of(contents: Mapping[str, Any]) -> Response:
    return Response(orjson.dumps(contents), content_type="application/json")


def page_of(contents: Mapping[str, Any]) -> Response:
    """The document as HTML, drawn here: no script, nothing from elsewhere."""
    page = render_template("api_docs.html", api=contents, problems=TITLES)
    policy = (
        "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
    return Response(page, headers={"Content-Security-Policy": policy}, content_type="text/html; charset=utf-8")
