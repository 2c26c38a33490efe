"""Looking for anomalies in stored history, keeping them, and what people say of them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from datetime import date, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from app.anomalies import (
    AnomalyFilter,
    anomalies_of,
    count_alerts,
    detect,
    detect_when_drained,
    forget_plan,
    is_news,
    is_shown,
    plan,
    say,
    told_of,
)
from app.backends import Backends
from app.cli import main
from app.core.anomalyrecords import BY_PLAN, AnomalyRecord, Verdict
from app.core.periods import DateRange
from app.core.scopes import Scope
from app.errors import Conflict, InvalidInput, NotFound
from app.jobs import submit
from app.narrowing import narrowed
from tests import found
from tests.api.conftest import backends_at
from tests.contracts.metadata import anomaly
from tests.found import DAY, LAST, SCOPE, SPIKE, day_file, take
from workers.jobs import HANDLERS, run_job


@pytest.fixture
def backends(built: Path, tmp_path: Path) -> Iterator[Backends]:
    with found.copied(built, tmp_path / "copy") as opened:
        yield opened


def only(backends: Backends) -> AnomalyRecord:
    [record] = anomalies_of(backends, AnomalyFilter())
    return record


def test_a_jump_is_found_once_with_its_band_cause_and_dollars(backends: Backends) -> None:
    detected = detect(backends)
    assert (detected.as_of, detected.new, detected.open) == (LAST, 1, 1)
    record = only(backends)
    assert tuple(value for _, value in record.scope.parts()) == SCOPE
    assert (record.kind, record.start, record.state) == ("rise", SPIKE, "ongoing")
    assert abs(record.expected - 100) < 10
    assert record.low <= record.expected <= record.high < record.actual
    assert abs(record.impact - 300 * ((record.date - SPIKE).days + 1)) < 100
    assert [tuple(vars(part.scope).values()) for part in record.contributions] == [SCOPE]
    assert [moment.day for moment in record.moments] == sorted({moment.day for moment in record.moments})


def test_looking_again_changes_nothing(backends: Backends) -> None:
    detect(backends)
    before = only(backends)
    again = detect(backends)
    assert (again.new, again.changed) == (0, 0)
    assert only(backends) == before


def test_as_time_goes_on_the_record_is_updated_and_keeps_its_story(backends: Backends) -> None:
    detect(backends, SPIKE + 2 * DAY)
    early = only(backends)
    detect(backends)
    late = only(backends)
    assert (late.id, late.detected_on) == (early.id, early.detected_on)
    assert late.impact > early.impact
    assert late.moments[: len(early.moments)] == early.moments
    assert late.revision == early.revision + 1


def test_an_earlier_look_does_not_take_away_what_a_later_one_found(backends: Backends) -> None:
    detect(backends)
    assert detect(backends, SPIKE - 3 * DAY).changed == 0
    assert only(backends).state == "ongoing"


def test_what_a_person_said_stays_when_more_arrives(backends: Backends) -> None:
    detect(backends, LAST - DAY)
    say(backends, only(backends).id, "acknowledged", by="ana", reason="Looking")
    detect(backends)
    record = only(backends)
    assert (record.state, record.reason, record.date) == ("acknowledged", "Looking", LAST - DAY)


def test_an_anomaly_is_resolved_when_it_has_been_over_for_a_while(backends: Backends) -> None:
    detect(backends)
    backends = replace(backends, clock=lambda: found.NOW + 30 * DAY, memo={})
    for number in range(1, 15):
        take(backends, LAST + number * DAY, day_file(LAST + number * DAY, extra=0))
    assert detect(backends).open == 0
    record = only(backends)
    assert (record.state, record.start, record.date) == ("resolved", SPIKE, LAST)
    assert record.moments[-1].found == "resolved"


def test_dollars_already_added_are_corrected_when_a_day_is_restated(tmp_path: Path) -> None:
    # Not a copy: a file from another folder is another source, which restates nothing.
    found.build(tmp_path / "own")
    backends = replace(backends_at(tmp_path / "own"), clock=lambda: found.NOW)
    detect(backends)
    before = only(backends)
    take(backends, SPIKE + 2 * DAY, day_file(SPIKE + 2 * DAY, extra=500.0))
    detected = detect(backends)
    after = only(backends)
    assert (detected.new, detected.changed, after.id, after.state) == (0, 1, before.id, "ongoing")
    assert after.impact - before.impact == Decimal("200.00")
    assert after.impact == sum(part.impact for part in after.contributions)
    assert after.moments == before.moments, "what was known then stays"
    assert detect(backends).changed == 0
    take(backends, SPIKE + 2 * DAY, day_file(SPIKE + 2 * DAY))
    detect(backends)
    assert only(backends).impact == before.impact


def test_planned_spend_silences_what_is_found_there(backends: Backends) -> None:
    made = plan(backends, Scope(service="Amazon S3"), DateRange(SPIKE, LAST), " Migration ", by="ana")
    detect(backends)
    record = only(backends)
    assert (record.state, record.reason) == ("expected", "Migration")
    assert record.verdict
    assert record.verdict.by == BY_PLAN
    assert not is_shown(record)
    forget_plan(backends, made.id)
    with pytest.raises(NotFound, match="no planned spend"):
        forget_plan(backends, made.id)


def test_planned_spend_silences_up_to_its_dollars_and_one_that_grows_is_news(backends: Backends) -> None:
    made = plan(backends, Scope(service="Amazon S3"), DateRange(SPIKE, LAST), "Small", by="ana", extra=Decimal(50))
    detect(backends)
    record = only(backends)
    assert (record.state, record.verdicts) == ("ongoing", ())
    forget_plan(backends, made.id)
    with pytest.raises(InvalidInput, match="extra NaN is not an amount"):
        plan(backends, Scope(), DateRange(SPIKE, LAST), "x", by="ana", extra=Decimal("NaN"))
    grown = record.said(Verdict("expected", found.NOW - 9 * DAY, BY_PLAN, "x", "p"))
    grown = replace(grown, created=found.NOW - 9 * DAY, detected_on=(found.NOW - 9 * DAY).date())
    assert not is_news(grown, found.NOW)
    assert is_news(grown.said(Verdict("open", found.NOW, BY_PLAN, "more", "p")), found.NOW)


def test_a_dismissal_needs_a_reason_and_the_same_word_twice_is_once(backends: Backends) -> None:
    detect(backends)
    name = only(backends).id
    with pytest.raises(InvalidInput, match="reason is missing"):
        say(backends, name, "dismissed", by="ana", reason="  ")
    with pytest.raises(InvalidInput, match="501 characters"):
        say(backends, name, "dismissed", by="ana", reason="x" * 501)
    first = say(backends, name, "dismissed", by="ana", reason="Load test")
    assert say(backends, name, "dismissed", by="bob", reason="Load test") == first
    assert say(backends, name, "open", by="bob").state == "ongoing"
    with pytest.raises(NotFound, match="There is no anomaly 'nobody'"):
        say(backends, "nobody", "acknowledged", by="ana")
    with pytest.raises(NotFound):
        say(backends, "é", "acknowledged", by="ana")


class Faster:
    """Somebody else is faster the first few times."""

    def __init__(self, metadata: Any, times: int) -> None:
        self._metadata, self.times = metadata, times

    def __getattr__(self, name: str) -> Any:
        return getattr(self._metadata, name)

    def put_anomaly(self, record: AnomalyRecord) -> bool:
        self.times -= 1
        return False if self.times >= 0 else bool(self._metadata.put_anomaly(record))


def test_who_is_slower_looks_again_and_gives_up_in_the_end(backends: Backends) -> None:
    slow = replace(backends, metadata=Faster(backends.metadata, 2))  # type: ignore[arg-type]
    assert detect(slow).new == 1
    with pytest.raises(Conflict, match="Try again"):
        say(replace(backends, metadata=Faster(backends.metadata, 99)), only(backends).id, "acknowledged", by="ana")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("wanted", "number"),
    [
        (AnomalyFilter(states=("open", "ongoing")), 1),
        (AnomalyFilter(states=("dismissed",)), 0),
        (AnomalyFilter(days=DateRange(SPIKE, SPIKE + DAY)), 1),
        (AnomalyFilter(days=DateRange(SPIKE - 5 * DAY, SPIKE)), 0),
        (AnomalyFilter(parts={"service": ("Amazon S3", "other"), "account": ()}), 1),
        (AnomalyFilter(parts={"service": ("AWS Lambda",)}), 0),
        (AnomalyFilter(kinds=("drop",)), 0),
    ],
)
def test_filters(looked_at: Path, tmp_path: Path, wanted: AnomalyFilter, number: int) -> None:
    with found.copied(looked_at, tmp_path / "copy") as backends:
        assert len(anomalies_of(backends, wanted)) == number


def test_other_rules_would_have_said_less(backends: Backends) -> None:
    usual, dear = count_alerts(backends, None, None), count_alerts(backends, 10_000.0, 100_000.0)
    assert (usual["alerts"], usual["kinds"], usual["end"]) == (1, {"rise": 1}, str(LAST + DAY))
    assert usual["largest"][0]["scope"]["service"] == "Amazon S3"
    assert dear["alerts"] == 0
    assert anomalies_of(backends, AnomalyFilter()) == []


def test_what_was_counted_over_the_same_ledger_is_not_counted_again(backends: Backends) -> None:
    params = {"backtest": True, "min_daily": None, "min_total": 5.0}
    seen: list[str] = []

    def counted() -> dict[str, Any]:
        job = submit(backends, "detect", params, key="count")
        run_job(backends, job.id, HANDLERS)
        ended = backends.metadata.job(job.id)
        assert ended
        return dict(ended.result)

    first = counted()
    assert first["seconds"] >= 0
    assert count_alerts(backends, None, 5.0, lambda *_: seen.append("replayed")) == first == counted()
    assert seen == []
    count_alerts(backends, 7.0, 5.0, lambda done, whole, _: seen.append(f"{done} of {whole}"))
    assert seen[0] == "0 of 77"
    take(backends, LAST + DAY, day_file(LAST + DAY))
    assert counted()["version"] > first["version"]


def test_the_job_looks_and_counts(backends: Backends) -> None:
    looked = submit(backends, "detect", {}, key="a")
    counted = submit(backends, "detect", {"backtest": True, "min_daily": None, "min_total": 5e6}, key="b")
    for job in (looked, counted):
        run_job(backends, job.id, HANDLERS)
    ended = [backends.metadata.job(job.id) for job in (looked, counted)]
    assert [job.status if job else None for job in ended] == ["done", "done"]
    assert ended[0]
    assert ended[0].result == {"as_of": str(LAST), "new": 1, "changed": 0, "open": 1}
    assert ended[1]
    assert ended[1].result["alerts"] == 0


def detect_jobs(backends: Backends) -> int:
    return sum(job.kind == "detect" for job in backends.metadata.unfinished())


def test_it_is_looked_once_when_all_is_ingested_and_once_a_day(backends: Backends) -> None:
    waiting = submit(backends, "ingest", {"key": "2026-10-17.csv"}, key="file")
    assert detect_when_drained(backends) is None
    assert detect_jobs(backends) == 0
    backends.metadata.cancel(waiting.id, now=backends.clock())
    judged = detect_when_drained(backends)
    assert detect_jobs(backends) == 1
    for job in backends.metadata.unfinished():
        run_job(backends, job.id, HANDLERS)
    # Nobody asks twice, also not another scheduler that does not know what this one judged.
    assert detect_when_drained(backends, judged) == judged
    assert detect_when_drained(backends) == judged
    assert detect_jobs(backends) == 0
    take(backends, LAST + DAY, day_file(LAST + DAY))
    assert detect_when_drained(backends, judged) != judged
    assert detect_jobs(backends) == 1
    for job in backends.metadata.unfinished():
        run_job(backends, job.id, HANDLERS)
    tomorrow = replace(backends, clock=lambda: found.NOW + timedelta(days=1))
    detect_when_drained(tomorrow)
    assert detect_jobs(backends) == 1


def test_who_sees_some_accounts_sees_and_judges_their_anomalies_only(backends: Backends) -> None:
    detect(backends)
    whole = only(backends)
    mine, others = (narrowed(backends, frozenset({name}), {}) for name in found.ACCOUNTS)
    assert anomalies_of(mine, AnomalyFilter()) == [whole]
    assert say(mine, whole.id, "acknowledged", by="ana").state == "acknowledged"
    assert anomalies_of(others, AnomalyFilter()) == []
    with pytest.raises(NotFound):
        say(others, whole.id, "acknowledged", by="bob")
    wide = replace(whole, id="wide", revision=1, scope=Scope(None, None, "us-east-1"))
    wide = replace(
        wide, contributions=(*wide.contributions, replace(wide.contributions[0], scope=Scope("3", "a", "b")))
    )
    assert backends.metadata.put_anomaly(wide)
    assert [one.id for one in anomalies_of(mine, AnomalyFilter())] == [whole.id]
    with pytest.raises(NotFound):
        mine.metadata.put_anomaly(replace(wide, revision=2))
    plan(backends, Scope(), DateRange(SPIKE, LAST), "All of it", by="ana")
    assert mine.metadata.planned_spend() == []


@pytest.mark.parametrize(
    ("detected", "created", "updated", "resolved", "news"),
    [
        (1, 0, 0, False, True),
        (9, 0, 0, False, False),
        (6, 5, 0, False, False),
        (16, 15, 1, True, True),
        (16, 15, 6, True, False),
        (40, 1, 1, True, False),
    ],
)
def test_only_what_is_new_is_told(detected: int, created: int, updated: int, resolved: bool, news: bool) -> None:
    """All in days ago."""
    record = replace(
        anomaly("one", SPIKE, 1, verdicts=(), found="resolved" if resolved else "open"),
        detected_on=(found.NOW - detected * DAY).date(),
        created=found.NOW - created * DAY,
        updated=found.NOW - updated * DAY,
    )
    assert is_news(record, found.NOW) is news
    assert told_of(record).is_over is resolved
    assert not is_news(record.said(Verdict("dismissed", found.NOW, "ana", "x")), found.NOW)


def test_nothing_is_looked_for_in_an_empty_store(tmp_path: Path) -> None:
    from tests.api.conftest import empty_backends

    backends = empty_backends(tmp_path / "empty")
    assert detect_when_drained(backends) is None
    job = submit(backends, "detect", {}, key="a")
    run_job(backends, job.id, HANDLERS)
    ended = backends.metadata.job(job.id)
    assert ended
    assert (ended.status, ended.message) == ("done-noop", "Nothing is stored yet.")


def test_a_day_before_everything_is_refused(backends: Backends) -> None:
    with pytest.raises(InvalidInput, match="Nothing is stored as early as 2020-01-01; the first day is 2026-08-01"):
        detect(backends, date(2020, 1, 1))


def test_the_limits_are_settings(backends: Backends) -> None:
    dear = backends.settings.model_copy(update={"anomaly_min_daily": Decimal(9000), "anomaly_min_total": Decimal(9000)})
    assert detect(replace(backends, settings=dear)).new == 0


def test_from_the_command_line(backends: Backends, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.cli.open_backends", lambda _: backends)
    text = CliRunner().invoke(main, ["detect"], catch_exceptions=False)
    assert "1 new, 0 updated, 1 open" in text.output
    assert "Amazon S3" in text.output
    listed = json.loads(CliRunner().invoke(main, ["detect", "--json"], catch_exceptions=False).output)
    assert [item["scope"]["service"] for item in listed["items"]] == ["Amazon S3"]
    wrong = CliRunner().invoke(main, ["detect", "--as-of", "soon"])
    assert wrong.exit_code == 2
    assert "--as-of" in wrong.output


def test_planned_spend_from_the_command_line(backends: Backends, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.cli.open_backends", lambda _: backends)

    def run(*arguments: str) -> Any:
        return CliRunner().invoke(main, ["planned-spend", *arguments])

    assert run("list").output == "Nothing is planned.\n"
    days = ["--start", str(SPIKE), "--end", str(LAST), "--reason", "Load\x1b[31m test"]
    added = run("add", *days, "--service", "Amazon S3", "--extra", "400.50")
    assert added.exit_code == 0
    name = added.output.strip()
    listed = run("list").output
    assert f"{name}  {SPIKE} to {LAST - DAY}  all · Amazon S3 · all  Load" in listed
    assert "up to 400.50 a day" in listed
    assert "\x1b" not in listed
    assert json.loads(run("list", "--json").output)["items"][0]["extra"] == "400.5"
    assert run("remove", name).exit_code == 0
    assert run("remove", name).exit_code == 1
    for wrong in (["--extra", "much"], ["--end", "soon"]):
        refused = run("add", *days, *wrong)
        assert (refused.exit_code, wrong[0].strip("-") in refused.output) == (2, True)
