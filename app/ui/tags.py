"""HTML elements as the plain data that Dash sends to the browser: what a callback returns hundreds of, in a tenth of the time.

Called like dash.html's components. They have no ids and no callbacks; layouts use the real ones.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

Element = dict[str, Any]


def _builder(name: str) -> Callable[..., Element]:
    def build(children: Any = None, **props: Any) -> Element:
        if children is not None:
            props["children"] = children
        return {"namespace": "dash_html_components", "type": name, "props": props}

    build.__name__ = name
    return build


def attributes(**given: Any) -> dict[str, Any]:
    """`aria_label="…"` as the attribute `aria-label`; what is None is left out."""
    return {name.replace("_", "-"): value for name, value in given.items() if value is not None}


A, B, Code, Dd, Div, Dt = (_builder(name) for name in ("A", "B", "Code", "Dd", "Div", "Dt"))
H2, H3, Li, Ol, P = (_builder(name) for name in ("H2", "H3", "Li", "Ol", "P"))
Small, Span, Time = (_builder(name) for name in ("Small", "Span", "Time"))
Table, Tbody, Td, Tfoot, Th, Thead, Tr = (
    _builder(name) for name in ("Table", "Tbody", "Td", "Tfoot", "Th", "Thead", "Tr")
)
