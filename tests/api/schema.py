"""Just enough of JSON Schema 2020-12 to check an answer against the OpenAPI document.

An unknown keyword is an error, so that nothing in the document goes unchecked.
"""

from __future__ import annotations

import re
from datetime import date, datetime
from typing import Any

TYPES: dict[str, tuple[type, ...]] = {
    "string": (str,),
    "integer": (int,),
    "number": (int, float),
    "boolean": (bool,),
    "object": (dict,),
    "array": (list,),
    "null": (type(None),),
}
FORMATS = {"date": date.fromisoformat, "date-time": datetime.fromisoformat}
CHECKED = {
    "$ref",
    "additionalProperties",
    "anyOf",
    "const",
    "enum",
    "format",
    "items",
    "maxLength",
    "maximum",
    "minimum",
    "pattern",
    "properties",
    "required",
    "type",
}
NOTES = {"title", "description", "default", "examples"}


def problems_of(value: Any, schema: dict[str, Any], whole: dict[str, Any], at: str = "$") -> list[str]:
    """What is wrong with the value; empty when nothing is."""
    unknown = set(schema) - CHECKED - NOTES
    assert not unknown, f"{at}: this validator does not know {unknown}"
    if "$ref" in schema:
        name = schema["$ref"].removeprefix("#/components/schemas/")
        return problems_of(value, whole["components"]["schemas"][name], whole, at)
    if "anyOf" in schema:
        if any(not problems_of(value, part, whole, at) for part in schema["anyOf"]):
            return []
        return [f"{at}: {value!r} is none of {schema['anyOf']}"]
    return [*_simple(value, schema, at), *_inside(value, schema, whole, at)]


def _simple(value: Any, schema: dict[str, Any], at: str) -> list[str]:
    kind = schema.get("type")
    if kind and (not isinstance(value, TYPES[kind]) or (isinstance(value, bool) and kind != "boolean")):
        return [f"{at}: {value!r} is not {kind}"]
    wrong = [
        "enum" in schema and value not in schema["enum"],
        "const" in schema and value != schema["const"],
        "minimum" in schema and value < schema["minimum"],
        "maximum" in schema and value > schema["maximum"],
        "maxLength" in schema and len(value) > schema["maxLength"],
        "pattern" in schema and not re.search(schema["pattern"], value),
        "format" in schema and not _parses(FORMATS[schema["format"]], value),
    ]
    return [f"{at}: {value!r} is not {schema}"] if any(wrong) else []


def _parses(read: Any, value: str) -> bool:
    try:
        read(value)
    except ValueError:
        return False
    return True


def _inside(value: Any, schema: dict[str, Any], whole: dict[str, Any], at: str) -> list[str]:
    found: list[str] = []
    if isinstance(value, list) and "items" in schema:
        for n, item in enumerate(value):
            found += problems_of(item, schema["items"], whole, f"{at}[{n}]")
    if not isinstance(value, dict):
        return found
    found += [f"{at}: {name} is missing" for name in schema.get("required", ()) if name not in value]
    known, others = schema.get("properties", {}), schema.get("additionalProperties", True)
    for name, item in value.items():
        if name in known:
            found += problems_of(item, known[name], whole, f"{at}.{name}")
        elif others is False:
            found.append(f"{at}: {name} is not known")
        elif isinstance(others, dict):
            found += problems_of(item, others, whole, f"{at}.{name}")
    return found
