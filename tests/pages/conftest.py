"""An app over sample days held in memory, and the bodies a browser sends it."""

from __future__ import annotations

from typing import Any

import pytest

from app.answers import Answers
from app.backends import Backends
from app.ui.controls import Ids
from app.web import create_app
from tests.memory import memory_backends


def drawing(app: Any) -> str:
    """Name of the callback that draws the page."""
    return next(name for name in app.callback_map if name.startswith(f"..{Ids.DRAWN}.data"))


def body_for(app: Any, search: object) -> dict[str, Any]:
    """What the browser posts to have an address drawn."""
    name = drawing(app)
    return {
        "output": name,
        "outputs": [{"id": o.component_id, "property": o.component_property} for o in app.callback_map[name]["output"]],
        "inputs": [{"id": Ids.URL.value, "property": "search", "value": search}],
        "changedPropIds": [f"{Ids.URL}.search"],
        "state": [],
    }


@pytest.fixture
def backends() -> Backends:
    return memory_backends()


@pytest.fixture
def app(backends: Backends) -> Any:
    return create_app(backends)


@pytest.fixture
def client(app: Any) -> Any:
    return app.server.test_client()


@pytest.fixture
def answers(app: Any) -> Answers:
    found: Answers = app.server.extensions["spendscope-answers"]
    return found


@pytest.fixture
def body(app: Any) -> dict[str, Any]:
    return body_for(app, "")
