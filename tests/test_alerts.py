"""What is told of what happened: once, from the records, with the figures that answers have."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path

import pytest

from app.alerts import open_anomalies, tell_anomalies, tell_what_happened, week_of
from app.backends import Backends
from app.channels import WebhookChannel
from app.core.alerts import FoundAnomaly, anomaly, data_stale, last_week, money
from app.core.anomalyrecords import Part, Verdict
from app.core.notifications import Delivery
from app.core.scopes import Scope
from app.costs import snapshot
from app.ingest import ingest_object
from app.jobs import submit
from app.notifications import met
from tests.api.conftest import client_of
from tests.arrivals import HEADER
from tests.contracts.metadata import anomaly as anomaly_record
from tests.faults.test_notifier import Deployment, Recording, deployment
from tests.workers.world import Clock
from workers.jobs import HANDLERS, run_job

MONDAY = datetime(2026, 11, 23, 8, tzinfo=UTC)


def channel(name: str = "hook", **changes: object) -> WebhookChannel:
    return WebhookChannel(name=name, type="webhook", url="https://x.example/", digest_minutes=0, **changes)  # type: ignore[arg-type]


@pytest.fixture
def here(tmp_path: Path) -> Deployment:
    return deployment(tmp_path, Recording(), channel())


def put(here: Deployment, day: date, *lines: str, header: str = HEADER) -> str:
    root = Path(here.world.settings.source.removeprefix("file://"))
    path = root / f"{day}.csv"
    fresh = path.with_suffix(".new")
    fresh.write_text(header + "".join(f"{line}\n" for line in lines))
    fresh.replace(path)
    outcome = ingest_object(here.world, {"key": path.name}, lambda *_: None, job_id="job")
    return outcome.status


def told(here: Deployment, kind: str) -> list[Delivery]:
    return [one for one in here.deliveries if one.notification.kind == kind]


def facts(delivery: Delivery) -> dict[str, str]:
    return dict(delivery.notification.facts)


def test_a_quarantined_file_is_told_once_with_its_reason(here: Deployment) -> None:
    day = here.clock.now.date() - timedelta(days=1)
    assert put(here, day, "a,S,r,not-a-number,1,1,1") == "quarantined"
    assert tell_what_happened(here.world) == 1
    assert tell_what_happened(here.world) == 0
    [one] = told(here, "quarantined")
    assert one.notification.title == f"{day}.csv was quarantined"
    assert (facts(one)["Line"], facts(one)["Column"], facts(one)["Value"]) == ("2", "amortized_cost", "not-a-number")
    assert f"start={day}" in (one.notification.link or "")
    put(here, day, "a,S,r,still-not,1,1,1")
    assert tell_what_happened(here.world) == 1, "other bytes are another event"


def test_what_another_source_refused_is_not_told(here: Deployment) -> None:
    day = here.clock.now.date() - timedelta(days=1)
    put(here, day, "a,S,r,not-a-number,1,1,1")
    [refused] = here.world.metadata.ingestions(limit=1, status="quarantined").items
    here.world.metadata.put_ingestion(replace(refused, source="file:///elsewhere/"))
    assert tell_what_happened(here.world) == 0
    here.world.metadata.put_ingestion(refused)
    assert tell_what_happened(here.world) == 1


def test_a_complete_day_that_is_restated_is_told_once_with_its_accounts(here: Deployment) -> None:
    day = here.clock.now.date() - timedelta(days=10)
    put(here, day, "a,S,r,100,1,1,1", "b,S,r,50,1,1,1")
    here.clock.forward(60)
    put(here, day, "a,S,r,180,1,1,1", "b,S,r,50,1,1,1")
    tell_what_happened(here.world)
    tell_what_happened(here.world)
    [one] = told(here, "restated")
    assert one.notification.title == f"{day} was restated: +80.00 USD (+80.0 %)"
    assert one.notification.accounts == ("a",)
    assert facts(one)["a"] == "100.00 USD → 180.00 USD"


def test_data_that_stays_away_is_one_incident_and_its_end_is_told(here: Deployment) -> None:
    today = here.clock.now.date()
    put(here, today - timedelta(days=1), "a,S,r,1,1,1,1")
    tell_what_happened(here.world)
    assert told(here, "data_stale") == []
    here.clock.forward(2 * 86400)
    for _ in range(3):
        tell_what_happened(here.world)
        here.send(2)
        here.clock.forward(86400)
    [one] = told(here, "data_stale")
    assert (one.status, one.notification.severity) == ("sent", "critical")
    assert one.notification.title == f"No new cost data: the newest day is {today - timedelta(days=1)}, 3 days ago"
    put(here, here.clock.now.date() - timedelta(days=1), "a,S,r,1,1,1,1")
    tell_what_happened(here.world)
    tell_what_happened(here.world)
    over = [one for one in told(here, "data_stale") if one.notification.resolved]
    assert len(over) == 1
    assert over[0].notification.key == f"{one.notification.key} resolved"


def test_where_there_never_was_data_none_is_stale(here: Deployment) -> None:
    assert tell_what_happened(here.world) == 0


def fill(here: Deployment, monday: date) -> None:
    for number in range(14):
        day = monday - timedelta(days=14 - number)
        later = number >= 7
        put(here, day, f"a,S,r,{20 if later else 10}.005,1,1,1", "a,T,r,3,1,1,1", f"b,U,r,{1 if later else 2},1,1,1")


def test_the_week_is_summed_up_once_a_set_of_accounts_as_answers_have_it(tmp_path: Path) -> None:
    channels = (channel("all"), channel("team", accounts=["b"]), channel("none", kinds=["anomaly"]))
    here = deployment(tmp_path, Recording(), *channels)
    here.clock.now = MONDAY - timedelta(days=1)
    for one in channels:
        state = met(here.world, one.name)
        here.world.metadata.put_channel_state(replace(state, revision=2, since=here.clock.now))
    fill(here, MONDAY.date())
    tell_what_happened(here.world)
    assert told(here, "weekly") == []
    here.clock.now = MONDAY + timedelta(minutes=1)
    assert tell_what_happened(here.world) == 2
    here.clock.forward(3600)
    assert tell_what_happened(here.world) == 0
    by_channel = {one.channel: one for one in told(here, "weekly")}
    assert set(by_channel) == {"all", "team"}
    whole, team = facts(by_channel["all"]), facts(by_channel["team"])
    total = 7 * (Decimal("20.005") + 3 + 1)
    assert whole["Total"] == money(total, "USD") == "168.04 USD"
    assert whole["Week before"] == money(7 * (Decimal("10.005") + 3 + 2), "USD")
    assert whole["Change"] == "+63.00 USD (+60.0 %)"
    assert whole["Mover: S"] == "+70.00 USD (+100.0 %)"
    assert whole["Mover: U"] == "-7.00 USD (-50.0 %)"
    assert "Mover: T" not in whole
    assert whole["Not final"].startswith("2 days are still settling")
    assert (team["Total"], team["Accounts"]) == ("7.00 USD", "b")
    assert "account=b" in (by_channel["team"].notification.link or "")


def test_the_weeks_figures_are_those_of_the_api_and_anomalies_are_those_of_the_accounts(tmp_path: Path) -> None:
    channels = (channel("all"), channel("team", accounts=["b"]), channel("two", accounts=["a", "b"]))
    here = deployment(tmp_path, Recording(), *channels)
    here.clock.now = MONDAY - timedelta(days=1)
    for one in channels:
        state = met(here.world, one.name)
        here.world.metadata.put_channel_state(replace(state, revision=2, since=here.clock.now))
    fill(here, MONDAY.date())
    looked = submit(here.world, "detect", {}, key="x")
    run_job(here.world, looked.id, HANDLERS)
    for number, (accounts, state) in enumerate(
        [(["a"], "open"), (["b"], "ongoing"), (["b"], "resolved"), (["a", "b"], "open"), ([None], "open")]
    ):
        parts = tuple(Part(Scope(name, "S", "r"), Decimal(1)) for name in accounts if name)
        scope = Scope(accounts[0] if len(accounts) == 1 else None, "S", None)
        record = anomaly_record(f"n{number}", scope=scope, contributions=parts, found=state, verdicts=())
        assert here.world.metadata.put_anomaly(record)
    dismissed = anomaly_record("n9", scope=Scope("b", "S", None), contributions=(), found="open", verdicts=())
    here.world.metadata.put_anomaly(replace(dismissed, verdicts=(Verdict("dismissed", here.clock.now, "ana", "x"),)))
    here.clock.now = MONDAY + timedelta(minutes=1)
    assert tell_what_happened(here.world) == 3
    client = client_of(here.world)
    for name, accounts, number in (("all", [], "4"), ("team", ["b"], "1"), ("two", ["a", "b"], "3")):
        [one] = [one for one in told(here, "weekly") if one.channel == name]
        said = facts(one)
        assert said["Open anomalies"] == number, name

        def total(start: str, end: str, **more: str) -> Decimal:
            query = {"start": start, "end": end, "granularity": "total", "account": accounts, **more}  # noqa: B023
            return Decimal(client.get("/api/v1/costs", query_string=query).json["total"])  # type: ignore[index]

        assert said["Total"] == money(total("2026-11-16", "2026-11-23"), "USD")
        assert said["Week before"] == money(total("2026-11-09", "2026-11-16"), "USD")
        movers = {key.removeprefix("Mover: "): value for key, value in said.items() if key.startswith("Mover")}
        for service, shown in movers.items():
            moved = total("2026-11-16", "2026-11-23", service=service) - total(
                "2026-11-09", "2026-11-16", service=service
            )
            assert shown.startswith(("+" if moved > 0 else "") + money(moved, "USD")), (name, service)
        assert movers


def test_a_week_says_nothing_of_anomalies_that_nobody_looked_for(here: Deployment) -> None:
    assert open_anomalies(here.world, ()) is None


def test_a_week_without_data_says_nothing_and_an_unknown_figure_is_never_nought(here: Deployment) -> None:
    put(here, here.clock.now.date() - timedelta(days=1), "a,S,r,1,1,1,1")
    tell_what_happened(here.world)
    assert told(here, "weekly") == []
    assert money(None, "USD") == "not known"
    days = last_week(here.clock.now)
    assert days is not None
    week = week_of(snapshot(here.world), days, ())
    assert (week.total, week.before, week.movers) == (None, None, ())


def test_the_week_ends_on_monday_at_its_hour() -> None:
    assert last_week(MONDAY - timedelta(seconds=1)) is None
    for later in (timedelta(0), timedelta(days=6, hours=15)):
        found = last_week(MONDAY + later)
        assert found is not None
        assert (found.start, found.end) == (date(2026, 11, 16), date(2026, 11, 23))


def found_anomaly(**changes: object) -> FoundAnomaly:
    given = FoundAnomaly(
        id="7",
        kind="spike",
        severity="high",
        day=date(2026, 11, 23),
        start=date(2026, 11, 21),
        expected=Decimal(100),
        low=Decimal(80),
        high=Decimal(120),
        actual=Decimal("350.5"),
        impact=Decimal("700.25"),
        detected=Clock().now,
        account="1",
        service="Amazon S3",
        causes=("region eu-west-1",),
    )
    return replace(given, **changes)  # type: ignore[arg-type]


def test_an_anomaly_is_told_once_while_it_lasts_and_once_when_it_is_over(here: Deployment) -> None:
    assert tell_anomalies(here.world, [found_anomaly()]) == 1
    grown = found_anomaly(impact=Decimal(900), day=date(2026, 11, 24))
    assert tell_anomalies(here.world, [grown]) == 0
    assert tell_anomalies(here.world, [replace(grown, is_over=True)]) == 1
    assert tell_anomalies(here.world, [replace(grown, is_over=True)]) == 0
    made = anomaly(found_anomaly(), "USD", "https://costs.example.org/")
    assert (made.severity, made.title) == ("critical", "1 · Amazon S3 costs more than expected (spike)")
    said = dict(made.facts)
    assert said["Expected"] == "100.00 USD (80.00 USD to 120.00 USD)"
    assert said["So far"] == "+700.25 USD since 2026-11-21"
    assert said["Cause 1"] == "region eu-west-1"
    assert made.link == "https://costs.example.org/?start=2026-11-07&end=2026-11-24&account=1"


def test_of_severities_the_detectors_words_are_known() -> None:
    found = [anomaly(found_anomaly(severity=word), "USD", "https://x").severity for word in ("low", "medium", "high")]
    assert found == ["info", "warning", "critical"]


def test_a_stale_key_is_the_newest_days() -> None:
    first, later = (data_stale(date(2026, 11, 20), Clock().now + timedelta(days=n), "https://x") for n in (0, 5))
    assert first.key == later.key


def test_without_channels_nothing_is_looked_up(tmp_path: Path) -> None:
    here = deployment(tmp_path, Recording())

    class Untouched:
        def __getattr__(self, name: str) -> object:
            raise AssertionError(name)

    world: Backends = replace(here.world, metadata=Untouched())  # type: ignore[arg-type]
    assert tell_what_happened(world) == 0
