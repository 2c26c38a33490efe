"""Who may hand in alerts of Grafana, and who sees them."""

from __future__ import annotations

from tests.access.conftest import MINE, OTHER, Door
from tests.api.test_grafanaalerts import PATH, delivery


def test_a_contact_points_token_hands_in_and_can_do_nothing_else(house: Door) -> None:
    grafana = house.client_of("token alerts")
    sent = delivery(labels={"alertname": "x", "account": OTHER})
    assert grafana.post(PATH, json=sent).status_code == 200
    before = house.backends.metadata.audit_length()
    assert grafana.post(PATH, json=sent).json == {"received": 2, "changed": 0}
    assert house.backends.metadata.audit_length() == before
    assert grafana.get(PATH).status_code == 403
    assert grafana.get("/api/v1/anomalies").status_code == 403
    for who, status in (
        ("token operate", 403),
        ("nobody", 401),
        ("editor-mine", 403),
        ("viewer", 403),
        ("editor", 200),
    ):
        assert house.client_of(who).post(PATH, json=sent).status_code == status, who
    assert house.client_of("viewer-mine").get(PATH).json["items"] == []
    assert len(house.client_of("viewer").get(PATH).json["items"]) == 2
    grafana.post(PATH, json=delivery(labels={"account": MINE}, fingerprint="mine"))
    assert len(house.client_of("viewer-mine").get(PATH).json["items"]) == 2
