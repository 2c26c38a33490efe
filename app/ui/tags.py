"""HTML elements as the plain data that Dash sends to the browser: what a callback returns hundreds of, in a tenth of the time.

Called like dash.html's components. They have no ids and no callbacks; layouts use the real ones.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import cache
from typing import Any

import orjson
from dash import no_update

Element = dict[str, Any]


def _builder(name: str) -> Callable[..., Element]:
    def build(children: Any = None, **props: Any) -> Element:
        if children is not None:
            props["children"] = children
        return {"namespace": "dash_html_components", "type": name, "props": props}

    build.__name__ = name
    return build


def finished(parts: Iterable[Any]) -> tuple[Any, ...]:
    """Answers as finished JSON: Dash would walk every element twice more to find out that there is nothing to convert."""
    return tuple(part if part is no_update else orjson.Fragment(orjson.dumps(part)) for part in parts)


def attributes(**given: Any) -> dict[str, Any]:
    """`aria_label="…"` as the attribute `aria-label`; what is None is left out."""
    return {_dashed(name): value for name, value in given.items() if value is not None}


@cache
def _dashed(name: str) -> str:
    return name.replace("_", "-")


A, B, Button, Code, Dd, Details = (_builder(name) for name in ("A", "B", "Button", "Code", "Dd", "Details"))
Div, Dl, Dt, H2, H3, Li = (_builder(name) for name in ("Div", "Dl", "Dt", "H2", "H3", "Li"))
Ol, P, Small, Span, Summary, Time = (_builder(name) for name in ("Ol", "P", "Small", "Span", "Summary", "Time"))
Table, Tbody, Td, Tfoot, Th, Thead, Tr, Ul = (
    _builder(name) for name in ("Table", "Tbody", "Td", "Tfoot", "Th", "Thead", "Tr", "Ul")
)
