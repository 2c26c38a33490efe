"""What the browser may ask of Dash's callback route: anything else is a 400 that says why, not a 500 from inside Dash."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, NoReturn

import orjson
from dash import no_update
from flask import Flask, Request, Response, request

from app.api import problems

PATH: Final = "/_dash-update-component"
MOST_BYTES: Final = 256 * 1024
TEXTS: Final = ("search", "pathname", "hash", "href")
"""Properties of the address: text or nothing. Dash's own page router trusts that."""


def limit(server: Flask) -> None:
    """Refuse other methods and large bodies before anything reads them."""

    def check() -> Response | None:
        asked: Request = request._get_current_object()  # type: ignore[attr-defined]
        if asked.path != PATH:
            return None
        if asked.method != "POST":
            return problems.problem(405, "method_not_allowed", f"{PATH} takes POST only.")
        if (asked.content_length or 0) > MOST_BYTES:
            return problems.problem(413, "too_large", f"The body is over {MOST_BYTES:,} bytes.")
        asked.max_content_length = MOST_BYTES
        return None

    server.before_request(check)


def guard(server: Flask, callback_map: Mapping[str, Mapping[str, Any]]) -> None:
    """Refuse bodies that no callback of this app would send. A page from before an update is told to load again."""

    def check() -> Response | None:
        wrong = fault(_body(), callback_map) if request.path == PATH else None
        return problems.problem(400, "bad_request", f"{wrong} Load the page again.") if wrong else None

    server.before_request(check)


def draw_pages(
    server: Flask,
    callback_map: Mapping[str, Mapping[str, Any]],
    is_page: Callable[[object], bool],
    failed: Callable[[Exception], NoReturn],
) -> None:
    """Answer callbacks that draw a page without Dash's way of doing it. Call it after `guard`.

    What Dash does around a callback (a context, groupings, a check of every output, the JSON written twice) takes as long
    as a third of the page. These need none of it: text in, finished JSON (ui.tags.finished) out.
    """

    def draw() -> Response | None:
        if request.path != PATH:
            return None
        body: Any = _body()
        if not is_page(body):
            return None
        spec = callback_map[body["output"]]
        try:
            values = spec["callback"].__wrapped__(*(item.get("value") for item in body["inputs"]))
        except Exception as error:
            failed(error)
        return Response(_written(body["outputs"], values), content_type="application/json")

    server.before_request(draw)


def _written(outputs: Sequence[Mapping[str, str]], values: Sequence[Any]) -> bytes:
    """As Dash's renderer reads it: properties by component."""
    found: dict[str, dict[str, Any]] = {}
    for output, value in zip(outputs, values, strict=True):
        if value is not no_update:
            found.setdefault(output["id"], {})[output["property"]] = value
    return orjson.dumps({"multi": True, "response": found})


def _body() -> object:
    try:
        return request.get_json(silent=True)
    except RecursionError:
        return None


def fault(body: object, callback_map: Mapping[str, Mapping[str, Any]]) -> str | None:
    """What is wrong with a callback body, None when Dash can take it."""
    if not isinstance(body, dict):
        return "The body is not a JSON object."
    output = body.get("output")
    spec = callback_map.get(output) if isinstance(output, str) else None
    if spec is None:
        return "This page has no such callback."
    for name, expected in (("inputs", spec["inputs"]), ("state", spec["state"])):
        if not _matches(body.get(name, []), expected):
            return f"“{name}” is not what this callback takes."
    if not _outputs_match(body.get("outputs"), spec):
        return "“outputs” is not what this callback gives."
    changed = body.get("changedPropIds", [])
    if not isinstance(changed, list) or not all(isinstance(item, str) for item in changed):
        return "“changedPropIds” is not a list of texts."
    return None


def _matches(given: object, expected: list[dict[str, Any]]) -> bool:
    if not isinstance(given, list) or len(given) != len(expected):
        return False
    return all(_is(item, spec) and _plain(item) for item, spec in zip(given, expected, strict=True))


def _is(item: object, spec: Mapping[str, Any]) -> bool:
    return isinstance(item, dict) and item.get("id") == spec["id"] and item.get("property") == spec["property"]


def _plain(item: dict[str, Any]) -> bool:
    value = item.get("value")
    if item["property"] == "pathname" and isinstance(value, str):
        return value.startswith("/")
    return item["property"] not in TEXTS or value is None or isinstance(value, str)


def _outputs_match(given: object, spec: Mapping[str, Any]) -> bool:
    output = spec["output"]
    if isinstance(output, list | tuple):
        expected = [(item.component_id, item.component_property) for item in output]
        return isinstance(given, list) and [_pair(item) for item in given] == expected
    return _pair(given) == (output.component_id, output.component_property)


def _pair(item: object) -> tuple[object, object] | None:
    return (item.get("id"), item.get("property")) if isinstance(item, dict) else None
