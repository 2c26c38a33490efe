"""Every route × everybody, generated from what the app serves: a new route or callback without a rule fails here."""

from __future__ import annotations

import json
from typing import Any

import pytest

from app.core.access import ROLES as PERMISSIONS
from app.core.access import Permission
from app.gate import CALLBACKS, PUBLIC, RULES, first_output
from app.narrowing import NarrowedCosts, NarrowedMetadata, NarrowedSource
from app.ports import CostStore, Metadata, Source
from tests.access.conftest import CANARIES, MINE, OTHER, ROLES, Door, closed
from tests.pages.conftest import body_for

RANGE = "start=2026-10-20&end=2026-11-06"
EVERYBODY = (
    "nobody",
    *ROLES,
    "viewer-mine",
    "analyst-mine",
    "editor-mine",
    "token read",
    "token operate",
    "token metrics",
    "token alerts",
    "token mine",
)
SCOPES = {
    "token read": {"read"},
    "token operate": {"read", "operate"},
    "token metrics": {"metrics"},
    "token alerts": {"alerts"},
    "token mine": {"read"},
}
LIMITED = ("viewer-mine", "analyst-mine", "editor-mine", "token mine")
OF_ALL = (
    "/api/v1/ingestions/<id>/file",
    "/api/v1/notifications",
    "/api/v1/notifications/channels",
    "/api/v1/notifications/<id>/retry",
    "/api/v1/planned-spend/<id>",
)
MAY_REFUSE = ("/account", "/logout", "/login", "/claim", *OF_ALL)
"""A form without its token; what is about all accounts for somebody who sees some."""
TOKEN_PATHS = ("/api/", "/metrics", "/readyz")


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> set[tuple[str, str]]:
    app = closed(tmp_path_factory.mktemp("rules")).app
    return {
        (method, rule.rule)
        for rule in app.server.url_map.iter_rules()
        for method in (rule.methods or set()) - {"HEAD", "OPTIONS"}
    }


def test_every_route_has_a_rule_and_every_rule_a_route(served: set[tuple[str, str]]) -> None:
    assert served - set(RULES) == set(), "give these a rule in app/gate.py"
    assert set(RULES) - served == set(), "these rules are for nothing"


def test_every_callback_that_runs_here_has_a_rule(house: Door) -> None:
    running = {first_output(output) for output, spec in house.app.callback_map.items() if "callback" in spec}
    assert running - set(CALLBACKS) == set(), "give these a rule in app/gate.py"
    assert set(CALLBACKS) - running == set(), "these rules are for nothing"


def test_what_has_no_rule_is_for_admins_only(house: Door, monkeypatch: pytest.MonkeyPatch) -> None:
    rules = {key: value for key, value in RULES.items() if key != ("GET", "/api/v1/coverage")}
    monkeypatch.setattr("app.gate.RULES", rules)
    monkeypatch.setattr("app.gate.CALLBACKS", {})
    house.gate.__dict__.pop("callback_needs", None)
    try:
        assert house.client_of("admin").get(f"/api/v1/coverage?{RANGE}").status_code == 200
        assert house.client_of("editor").get(f"/api/v1/coverage?{RANGE}").status_code == 403
        assert house.client_of("admin").post("/_dash-update-component", json=body_for(house.app, "")).status_code == 200
        assert (
            house.client_of("editor").post("/_dash-update-component", json=body_for(house.app, "")).status_code == 403
        )
    finally:
        house.gate.__dict__.pop("callback_needs", None)


def path_of(rule: str, house: Door) -> str:
    [ingestion, *_] = house.backends.metadata.ingestions(limit=1).items
    filled = {
        "/api/v1/ingestions/<id>": f"/api/v1/ingestions/{ingestion.id}",
        "/api/v1/costs": f"/api/v1/costs?{RANGE}&group_by=account,service,region,charge_category",
        "/api/v1/costs/compare": f"/api/v1/costs/compare?{RANGE}&group_by=account,service",
        "/api/v1/coverage": f"/api/v1/coverage?{RANGE}",
        "/api/v1/dimensions/<name>": "/api/v1/dimensions/service",
        "/assets/<path:filename>": "/assets/20-dashboard.js",
        "/<path:path>": "/anything",
        "/api/<path:rest>": "/api/nothing",
        "/api/v1/jobs/<id>": "/api/v1/jobs/none",
        "/api/v1/ingestions/<id>/file": f"/api/v1/ingestions/{ingestion.id}/file",
        "/api/v1/restatements": f"/api/v1/restatements?{RANGE}",
        "/api/v1/restatements/movement": f"/api/v1/restatements/movement?{RANGE}",
        "/api/v1/reconciliation": "/api/v1/reconciliation?month=2026-10",
    }
    suites = "/_dash-component-suites/dash/dcc/async-graph.js"
    return suites if rule.startswith("/_dash-component-suites") else filled.get(rule, rule)


def permissions_of(who: str) -> set[str]:
    if who in SCOPES:
        return SCOPES[who]
    return {str(p) for p in PERMISSIONS.get(who.removesuffix("-mine"), ())} - (
        {"alerts", "metrics", "administer"} if who.endswith("-mine") else set()
    )


def ask(house: Door, who: str, method: str, rule: str) -> Any:
    body: dict[str, Any] = {}
    if rule == "/_dash-update-component":
        body = {"json": body_for(house.app, "?period=30d")}
    elif rule == "/api/v1/jobs" and method == "POST":
        body = {"json": {"kind": "ingest", "params": {"key": "2026-10-20.csv"}}}
    return house.client_of(who).open(path_of(rule, house), method=method, **body)


@pytest.mark.parametrize("who", EVERYBODY)
@pytest.mark.parametrize(("method", "rule"), sorted(RULES))
def test_route_by_role(house: Door, who: str, method: str, rule: str) -> None:
    house.wait(minutes=1)
    house.clock.now = house.clock.now.replace(day=6)
    answer = ask(house, who, method, rule)
    needed = RULES[method, rule]
    # A token is for programs: pages do not know it.
    known = who != "nobody" and (who not in SCOPES or rule.startswith(TOKEN_PATHS))
    assert answer.status_code < 500, answer.get_data(as_text=True)[:300]
    if needed is PUBLIC:
        assert answer.status_code not in (401, 303), rule
    elif not known:
        assert answer.status_code == 401 or "/login" in answer.headers["Location"], rule
        assert answer.status_code in (401, 303)
    elif str(needed) not in permissions_of(who):
        assert answer.status_code == 403, rule
    else:
        assert answer.status_code not in (401, 303), rule
        assert answer.status_code != 403 or rule in MAY_REFUSE, answer.data[:200]


# --- whose figures ------------------------------------------------------------------------------------------------

QUESTIONS = (
    f"/api/v1/costs?{RANGE}",
    f"/api/v1/costs?{RANGE}&group_by=account",
    f"/api/v1/costs?{RANGE}&group_by=provider,account,service,region,charge_category&granularity=total",
    f"/api/v1/costs?{RANGE}&group_by=service&top=1",
    f"/api/v1/costs?{RANGE}&metric=usage_quantity&granularity=total",
    f"/api/v1/costs?{RANGE}&metric=blended_cost&granularity=monthly&format=csv&group_by=service",
    f"/api/v1/costs?{RANGE}&group_by=account,service&format=csv",
    f"/api/v1/costs?{RANGE}&metric=usage_quantity&service=CanaryService",
    f"/api/v1/costs/compare?{RANGE}&group_by=account,service",
    f"/api/v1/costs/compare?{RANGE}&baseline_start=2026-09-20&baseline_end=2026-10-20",
    "/api/v1/costs/forecast?days=2",
    "/api/v1/costs/forecast?metric=usage_quantity",
    f"/api/v1/coverage?{RANGE}",
    "/api/v1/ingestions",
    "/api/v1/ingestions?limit=3",
    "/api/v1/ingestions?status=quarantined",
    f"/api/v1/restatements?{RANGE}",
    f"/api/v1/restatements?{RANGE}&format=csv",
    f"/api/v1/restatements/movement?{RANGE}",
    "/api/v1/notices",
    "/api/v1/reconciliation?month=2026-10",
    "/api/v1/alerts/grafana",
    "/api/v1/jobs",
    "/api/v1/openapi.json",
    "/api/docs",
    "/readyz",
    "/account",
    "/",
    "/_dash-layout",
    *(f"/api/v1/dimensions/{name}" for name in ("service", "region", "account", "provider", "charge_category")),
    *(f"/api/v1/dimensions/{name}?{RANGE}&metric=usage_quantity" for name in ("service", "region", "account")),
)
PAGES = ("", "?period=90d", "?period=30d&group_by=account", "?period=30d&group_by=region&metric=unblended_cost")


def leaks(body: str, allowed: tuple[str, ...] = ()) -> list[str]:
    return [canary for canary in CANARIES if canary in body and canary not in allowed]


def test_the_canaries_are_there_to_be_found(house: Door) -> None:
    admin = house.client_of("admin")
    seen = "".join(admin.get(question).get_data(as_text=True) for question in QUESTIONS)
    seen += admin.post("/_dash-update-component", json=body_for(house.app, "")).get_data(as_text=True)
    assert leaks(seen) == list(CANARIES)


@pytest.mark.parametrize("who", LIMITED)
@pytest.mark.parametrize("question", QUESTIONS)
def test_no_answer_holds_another_accounts_values(house: Door, who: str, question: str) -> None:
    house.clock.now = house.clock.now.replace(day=6)
    house.client_of("admin").get(question)
    answer = house.client_of(who).get(question)
    page = who == "token mine" and not question.startswith(TOKEN_PATHS)
    assert answer.status_code in ((303, 401) if page else (200,))
    assert leaks(answer.get_data(as_text=True)) == []
    assert leaks(str(answer.headers)) == []


@pytest.mark.parametrize("page", [*PAGES, f"?period=30d&account={OTHER}", "?period=30d&service=CanaryService"])
def test_no_page_holds_another_accounts_values(house: Door, page: str) -> None:
    house.clock.now = house.clock.now.replace(day=6)
    body = body_for(house.app, page)
    for who in ("admin", "viewer-mine", "admin", "viewer-mine"):
        answer = house.client_of(who).post("/_dash-update-component", json=body)
        assert answer.status_code == 200
        asked = tuple(canary for canary in CANARIES if canary in page)
        found = leaks(answer.get_data(as_text=True), asked)
        assert bool(found) == (who == "admin"), (who, found)


def _given(item: dict[str, Any], search: str) -> dict[str, Any]:
    return {**item, "value": "/data" if item["property"] == "pathname" else search}


def calls(house: Door, search: str) -> list[dict[str, Any]]:
    """A body for every callback that runs here, generated: an address for each of its inputs."""
    found = []
    for name, spec in house.app.callback_map.items():
        if "callback" in spec:
            outputs = spec["output"] if isinstance(spec["output"], list | tuple) else [spec["output"]]
            given = [{"id": o.component_id, "property": o.component_property} for o in outputs]
            inputs, state = ([_given(item, search) for item in spec[key]] for key in ("inputs", "state"))
            several = isinstance(spec["output"], list | tuple)
            body = {"output": name, "outputs": given if several else given[0], "inputs": inputs, "state": state}
            found.append({**body, "changedPropIds": [f"{i['id']}.{i['property']}" for i in inputs[:1]]})
    return found


ADDRESSES = (
    "",
    f"?{RANGE}",
    f"?{RANGE}&account={MINE}",
    f"?{RANGE}&day=2026-10-20",
    f"?{RANGE}&day=2026-11-05",
    f"?{RANGE}&day=2026-10-20&show=restatements",
    f"?{RANGE}&show=reconciliation&month=2026-10",
    f"?{RANGE}&show=notices",
)


@pytest.mark.parametrize("search", ADDRESSES)
def test_no_callback_tells_another_accounts_values(house: Door, search: str) -> None:
    house.clock.now = house.clock.now.replace(day=6)
    for body in calls(house, search):
        for who in ("admin", *LIMITED[:3]):
            answer = house.client_of(who).post("/_dash-update-component", json=body)
            assert answer.status_code in (200, 204), (body["output"][:40], answer.get_data(as_text=True)[:300])
            assert who == "admin" or leaks(answer.get_data(as_text=True)) == [], (who, body["output"][:40])


def test_the_canaries_are_on_the_data_page_too(house: Door) -> None:
    seen = "".join(
        house.client_of("admin").post("/_dash-update-component", json=body).get_data(as_text=True)
        for search in ADDRESSES
        for body in calls(house, search)
        if body["output"].startswith(("..data-", "data-", "..trust-"))
    )
    assert OTHER in seen
    assert "moved by 7313.37" in seen


def test_every_ingestion_is_shown_in_part_or_not_at_all(house: Door) -> None:
    mine = house.client_of("viewer-mine")
    for item in house.backends.metadata.ingestions(limit=100).items:
        answer = mine.get(f"/api/v1/ingestions/{item.id}")
        assert answer.status_code == 200
        assert leaks(answer.get_data(as_text=True)) == []
        found = answer.get_json()
        assert set(found["accounts"]) <= {MINE}
        if item.accounts:
            assert found["totals"]["unblended_cost"] == found["accounts"][MINE]["unblended_cost"]


def test_pages_of_a_list_hold_all_of_mine_once(house: Door) -> None:
    mine, seen, cursor = house.client_of("viewer-mine"), [], None
    while True:
        page = mine.get("/api/v1/ingestions", query_string={"limit": 3, **({"cursor": cursor} if cursor else {})})
        seen += [item["id"] for item in page.get_json()["items"]]
        cursor = page.get_json()["next_cursor"]
        if cursor is None:
            break
    assert len(seen) == len(set(seen)) == len(house.backends.metadata.ingestions(limit=100).items)


@pytest.mark.parametrize("question", [f"/api/v1/costs?{RANGE}", f"/api/v1/dimensions/service?{RANGE}"])
def test_anothers_account_is_like_one_that_does_not_exist(house: Door, question: str) -> None:
    mine = house.client_of("viewer-mine")
    other, none = (mine.get(f"{question}&account={name}") for name in (OTHER, "000000000000"))
    assert (other.status_code, other.data) == (none.status_code, none.data)
    assert house.client_of("admin").get(f"{question}&account={OTHER}").data != other.data


def test_figures_of_mine_are_those_an_admin_gets_for_my_account(house: Door) -> None:
    for group in ("", "&group_by=service", "&group_by=account,region&granularity=total"):
        mine = house.client_of("viewer-mine").get(f"/api/v1/costs?{RANGE}{group}").get_json()
        admin = house.client_of("admin").get(f"/api/v1/costs?{RANGE}{group}&account={MINE}").get_json()
        assert (mine["rows"], mine["total"]) == (admin["rows"], admin["total"])
        assert mine["total"] is not None


def test_a_tag_of_somebody_elses_answer_does_not_count(house: Door) -> None:
    question = f"/api/v1/costs?{RANGE}"
    tag = house.client_of("admin").get(question).headers["ETag"]
    assert house.client_of("admin").get(question, headers={"If-None-Match": tag}).status_code == 304
    assert house.client_of("viewer-mine").get(question, headers={"If-None-Match": tag}).status_code == 200


def test_an_empty_account_set_sees_nothing(tmp_path: Any) -> None:
    from app.core.access import narrowed_query
    from app.core.query import CostQuery

    door = closed(tmp_path, days=2)
    asked = CostQuery.from_pairs([("start", "2026-10-20"), ("end", "2026-10-22"), ("group_by", "account")])
    assert door.backends.costs.rollup().frame(asked).groups
    assert door.backends.costs.rollup().frame(narrowed_query(asked, frozenset())).groups == ()


# --- the views between the stores and those who see some accounts --------------------------------------------------

CLOSED_METADATA = {"put_planned_spend", "forget_planned_spend", "put_alert", "alerts_of", "forget_alerts",
    "put_grafana_alert", "grafana_alerts_like", "forget_grafana_alerts",
    "prepare", "close", "put_day_record", "put_ingestion", "known_versions", "claim", "renew", "finish",
    "requeue", "forget_jobs", "take_slot", "add_revisions", "revision_keys", "add_notice", "put_month_totals", "put_reference", "reference_versions",
    "put_user", "user", "user_named", "users", "has_users",
    "put_session", "session", "sessions", "see_session", "end_session", "end_sessions", "forget_sessions", "put_token",
    "token", "tokens", "use_token", "revoke_token", "put_once", "take_once", "append_audit", "audit", "audit_length",
    "add_deliveries", "delivery", "deliveries", "pending_deliveries", "pending_channels", "mark_deliveries",
    "copy_to", "is_empty", "replace_from",
    "channel_state", "put_channel_state", "renew_delivery", "forget_deliveries",
}  # fmt: skip
CLOSED_COSTS = {"show_anomalies", "prepare", "replace", "day", "stored_days", "publish", "forget"}
CLOSED_SOURCE = {"list", "find", "open", "sidecar", "references", "reference"}


def test_a_file_of_all_accounts_is_for_those_who_see_all(house: Door) -> None:
    found = house.backends.metadata.ingestions(limit=1, status="ingested").items[0]
    assert house.client_of("viewer").get(f"/api/v1/ingestions/{found.id}/file").status_code == 200
    for who in LIMITED:
        answer = house.client_of(who).get(f"/api/v1/ingestions/{found.id}/file")
        assert answer.status_code == 403
        assert leaks(answer.get_data(as_text=True)) == []


@pytest.mark.parametrize(
    ("port", "view", "closed_methods"),
    [
        (Metadata, NarrowedMetadata, CLOSED_METADATA),
        (CostStore, NarrowedCosts, CLOSED_COSTS),
        (Source, NarrowedSource, CLOSED_SOURCE),
    ],
)
def test_every_method_of_a_store_is_narrowed_or_closed(port: type, view: type, closed_methods: set[str]) -> None:
    methods = {name for base in port.__mro__ for name, found in vars(base).items() if callable(found)}
    methods = {name for name in methods if not name.startswith("_")}
    passed_on = {"check", "ledger_version", "job_counts"}
    decided = {name for name in vars(view) if not name.startswith("_")} | passed_on | closed_methods
    assert methods - decided == set(), "decide in app/narrowing.py what of these a limited principal may see"


def test_what_is_closed_is_refused_with_a_sentence(house: Door) -> None:
    from app.errors import Forbidden

    seen = NarrowedMetadata(house.backends.metadata, frozenset({MINE}))
    for name in sorted(CLOSED_METADATA):
        with pytest.raises(Forbidden, match="all accounts"):
            getattr(seen, name)


def test_who_sees_some_accounts_has_no_permission_about_all(house: Door) -> None:
    for who in LIMITED:
        assert house.client_of(who).get("/metrics").status_code in (403, 303)
    assert house.client_of("token metrics").get("/metrics").status_code == 200
    assert json.loads(house.client_of("viewer-mine").get("/readyz").data)["parts"]["costs"]["message"] == ""
    assert house.client_of("token metrics").get("/readyz").get_json()["parts"]["costs"]["message"] != ""
    assert str(Permission.METRICS) not in permissions_of("editor-mine")
