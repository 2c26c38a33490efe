"""Whatever is posted to the callback route: an answer or a 4xx with a reason, never a 5xx."""

from __future__ import annotations

import copy
import random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.callbacks import fault
from app.web import create_app
from tests.memory import memory_backends
from tests.pages.conftest import body_for

PATH = "/_dash-update-component"
APP = create_app(memory_backends(history=5))
CLIENT = APP.server.test_client()
GOOD = body_for(APP, "?period=7d")

junk = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=12),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=8,
)


def mutated(body: dict[str, Any], draw: random.Random, value: Any) -> Any:
    """One place somewhere in a good body replaced, dropped or doubled."""
    changed = copy.deepcopy(body)
    place: Any = changed
    while True:
        key = draw.choice(list(place) if isinstance(place, dict) else range(len(place)))
        if isinstance(place[key], dict | list) and place[key] and draw.random() < 0.6:
            place = place[key]
            continue
        match draw.randrange(3):
            case 0:
                place[key] = value
            case 1:
                del place[key]
            case _ if isinstance(place, list):
                place.append(place[key])
            case _:
                place[str(value)[:10]] = place[key]
        return changed


@given(junk)
def test_any_json_is_answered_without_a_5xx(body: Any) -> None:
    answer = CLIENT.post(PATH, json=body)
    assert answer.status_code == 400
    assert answer.content_type == "application/problem+json"


@given(st.randoms(use_true_random=False), junk)
def test_nearly_right_bodies_are_answered_without_a_5xx(draw: random.Random, value: Any) -> None:
    answer = CLIENT.post(PATH, json=mutated(GOOD, draw, value))
    assert answer.status_code in (200, 204, 400), answer.get_data(as_text=True)[:300]


@given(st.binary(max_size=60))
def test_any_bytes_are_answered_without_a_5xx(data: bytes) -> None:
    for content_type in ("application/json", "text/plain", "application/x-www-form-urlencoded"):
        assert CLIENT.post(PATH, data=data, content_type=content_type).status_code == 400


@given(st.text(max_size=200))
def test_any_address_is_drawn(search: str) -> None:
    assert CLIENT.post(PATH, json=body_for(APP, search)).status_code == 200


@pytest.mark.parametrize("value", [1, [], {}, True, ["?"], 1.5])
def test_an_address_is_text_or_nothing(value: object) -> None:
    assert "inputs" in str(CLIENT.post(PATH, json=body_for(APP, value)).get_json()["detail"])


def test_every_page_callback_takes_what_its_own_browser_sends() -> None:
    for name, spec in APP.callback_map.items():
        outputs = spec["output"]
        several = isinstance(outputs, list | tuple)
        given_outputs = [
            {"id": o.component_id, "property": o.component_property} for o in (outputs if several else [outputs])
        ]
        body = {
            "output": name,
            "outputs": given_outputs if several else given_outputs[0],
            "inputs": [{**item, "value": None} for item in spec["inputs"]],
            "state": [{**item, "value": None} for item in spec["state"]],
        }
        assert fault(body, APP.callback_map) is None


@pytest.mark.parametrize("method", ["get", "put", "delete", "patch"])
def test_the_route_takes_post_only(method: str) -> None:
    assert getattr(CLIENT, method)(PATH).status_code == 405


def test_large_bodies_are_refused_before_they_are_read() -> None:
    assert CLIENT.post(PATH, data=b"[" * 300_000, content_type="application/json").status_code == 413


def test_deep_bodies_are_refused() -> None:
    assert CLIENT.post(PATH, data=b"[" * 100_000, content_type="application/json").status_code == 400


@pytest.mark.parametrize(
    "search", ["", "?period=7d&service=AWS+Lambda", "?service=nobody", "?period=12m&group_by=account"]
)
def test_a_page_is_answered_as_dash_would(search: str) -> None:
    body = body_for(APP, search)
    with APP.server.test_request_context(PATH, method="POST", json=body):
        expected = APP.server.view_functions[PATH]().get_json()
    answer = CLIENT.post(PATH, json=body)
    assert answer.content_type == "application/json"
    assert answer.get_json() == expected
