"""The Notifications page is about all accounts."""

from __future__ import annotations

from typing import Any

from tests.access.conftest import Door


def body(app: Any) -> dict[str, Any]:
    name = next(one for one in app.callback_map if one.startswith("..notifications-drawn.data"))
    outputs = [{"id": o.component_id, "property": o.component_property} for o in app.callback_map[name]["output"]]
    inputs = [
        {"id": "notifications-url", "property": "search", "value": ""},
        {"id": "notifications-again", "property": "data", "value": None},
    ]
    return {"output": name, "outputs": outputs, "inputs": inputs, "state": [], "changedPropIds": []}


def test_who_sees_some_accounts_is_told_so_and_nothing_else(house: Door) -> None:
    mine = house.client_of("viewer-mine").post("/_dash-update-component", json=body(house.app))
    assert mine.status_code == 200
    assert "you see some of them" in mine.get_data(as_text=True)
    whole = house.client_of("viewer").post("/_dash-update-component", json=body(house.app)).get_data(as_text=True)
    assert "Nobody is told of anything yet" in whole
