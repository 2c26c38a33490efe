"""Checks documents against Grafana's published types (grafana-foundation-sdk): every key known, every value of its type.

The SDK reads leniently: it drops keys it does not know and takes any value. So each object is read by the SDK's class,
its attributes are held against the class's annotations, and what was dropped is found by writing it again.
"""

from __future__ import annotations

import enum
import json
import types
import typing
from collections.abc import Iterator, Mapping
from typing import Any

from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.cog.plugins import register_default_plugins

register_default_plugins()

PLAIN = (str, int, float, bool, type(None), dict, list)


def wrong(document: Mapping[str, Any], model: type) -> list[str]:
    """What is wrong with a document of the given SDK class, by path."""
    read = model.from_json(json.loads(json.dumps(document)))  # type: ignore[attr-defined]
    written = json.loads(json.dumps(read, cls=JSONEncoder))
    return [*_mistyped(read, type(read), ""), *_dropped(document, written, "")]


def _dropped(given: Any, written: Any, path: str) -> Iterator[str]:
    if isinstance(given, Mapping):
        for key, value in given.items():
            if key in written:
                yield from _dropped(value, written[key], f"{path}.{key}")
            elif value is not None:
                yield f"{path}.{key} is unknown"
    elif isinstance(given, list):
        for at, (a, b) in enumerate(zip(given, written, strict=True)):
            yield from _dropped(a, b, f"{path}[{at}]")
    elif given != written:
        yield f"{path}: {given!r} became {written!r}"


def _mistyped(value: Any, hint: Any, path: str) -> Iterator[str]:
    hint = getattr(hint, "__value__", hint)
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if hint in (object, Any):
        yield from () if isinstance(value, PLAIN) else _mistyped(value, type(value), path)
    elif origin in (typing.Union, types.UnionType):
        tried = [list(_mistyped(value, option, path)) for option in args]
        if all(tried):
            # The option that was meant is the one whose problem lies deepest.
            yield max((found[0] for found in tried), key=lambda text: len(text.split(":")[0]))
    elif origin is typing.Literal:
        if value not in args:
            yield f"{path}: {value!r} is none of {args}"
    elif origin is list:
        yield from _list(value, args[0], path)
    elif origin is dict:
        yield from _dict(value, args[1], path)
    elif isinstance(hint, type) and issubclass(hint, enum.Enum):
        if value not in [member.value for member in hint]:
            yield f"{path}: {value!r} is none of {[member.value for member in hint]}"
    elif hint in (str, int, float, bool, type(None)):
        if not isinstance(value, (int, float) if hint is float else hint) or (
            isinstance(value, bool) != (hint is bool)
        ):
            yield f"{path}: {value!r} is not {hint.__name__}"
    elif isinstance(value, dict) and hasattr(hint, "from_json"):
        # The SDK leaves some parts unread.
        yield from (f"{path}{text}" for text in wrong(value, hint))
    elif not isinstance(value, hint):
        yield f"{path}: {value!r} is not {hint.__name__}"
    else:
        yield from _object(value, path)


def _list(value: Any, item: Any, path: str) -> Iterator[str]:
    if not isinstance(value, list):
        yield f"{path}: {value!r} is not a list"
        return
    for at, one in enumerate(value):
        yield from _mistyped(one, item, f"{path}[{at}]")


def _dict(value: Any, item: Any, path: str) -> Iterator[str]:
    if not isinstance(value, dict):
        yield f"{path}: {value!r} is not an object"
        return
    for key, one in value.items():
        yield from _mistyped(one, item, f"{path}.{key}")


def _object(value: Any, path: str) -> Iterator[str]:
    hints = typing.get_type_hints(type(value))
    for name, attribute in vars(value).items():
        yield from _mistyped(attribute, hints.get(name, Any), f"{path}.{name}")
