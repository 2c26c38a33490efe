"""The Data page drawn without a browser, over real embedded parts: every state in words, every way out on the page."""

from __future__ import annotations

import itertools
import json
import shutil
from collections.abc import Iterator
from dataclasses import replace
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.backends import Backends
from app.collection import price_of_backfill
from app.core.jobs import Job
from app.core.ledger import DayRecord
from app.ingest import watch
from app.jobs import submit
from app.pages import data
from app.pages.data import jobside
from app.pages.data.address import PERIODS, read
from app.pages.data.view import Work, look, look_at_work
from app.reconciliation import take_references
from app.web import create_app
from tests.api.conftest import NOW, backends_at, empty_backends, take
from tests.arrivals import HEADER
from tests.fakes import Down, MemoryQueue
from tests.pages.test_overview import text_of

TODAY = NOW.date()
NAMES = [output.component_id + "." + output.component_property for output in (*data.DRAWN, *data.FILLED)]
PATH = "/_dash-update-component"
HOSTILE = '<img src=x onerror=alert(1)>"&'


def day_file(*accounts: str, cost: str = "10.5") -> bytes:
    rows = "".join(f'"{name.replace(chr(34), chr(34) * 2)}",S3,eu,{cost},{cost},{cost},1\n' for name in accounts)
    return (HEADER + rows).encode()


def put(backends: Backends, day: date, content: bytes) -> str:
    """Let a file arrive and be dealt with; what became of it."""
    folder = Path(backends.source.root.removeprefix("file://"))
    fresh = folder / ".new"
    fresh.write_bytes(content)
    fresh.replace(folder / f"{day}.csv")
    return take(backends, f"{day}.csv")


def ticking(found: Backends, first: int = 0) -> Backends:
    """Time passes with each look at the clock, as files come one after another."""
    ticks = itertools.count(first)
    return replace(found, clock=lambda: NOW + timedelta(milliseconds=next(ticks)))


@pytest.fixture(scope="module")
def arrived(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Where 20 days of two accounts that end yesterday have arrived, and a copy to begin each test from.

    One day never came, one was refused.
    """
    root = tmp_path_factory.mktemp("data") / "world"
    found = ticking(empty_backends(root))
    for day in (TODAY - timedelta(days=n) for n in range(1, 21)):
        if day != MISSING:
            wanted = "quarantined" if day == REFUSED else "done"
            assert put(found, day, day_file("111", "222", cost="1.2.3" if day == REFUSED else "10.5")) == wanted
    found.metadata.close()
    return root, Path(shutil.copytree(root, root.with_name("copy")))


@pytest.fixture
def backends(arrived: tuple[Path, Path]) -> Iterator[Backends]:
    root, copy = arrived
    shutil.rmtree(root)
    shutil.copytree(copy, root)
    found = ticking(backends_at(root), first=5000)
    yield found
    found.metadata.close()


MISSING, REFUSED = TODAY - timedelta(days=9), TODAY - timedelta(days=6)


@pytest.fixture
def empty(tmp_path: Path) -> Iterator[Backends]:
    found = ticking(empty_backends(tmp_path / "empty"))
    yield found
    found.metadata.close()


def shown(backends: Backends, search: str = "") -> dict[str, Any]:
    backends.memo.clear()
    with create_app(backends).server.app_context():
        return dict(zip(NAMES, data.draw(search), strict=True))


def side(backends: Backends, search: str) -> Any:
    backends.memo.clear()
    with create_app(backends).server.app_context():
        return data.side(search)


def facts(found: dict[str, Any]) -> dict[str, tuple[str, str]]:
    """Title → figure and detail of the summary."""
    parts = [[text_of(cell) for cell in fact["props"]["children"]] for fact in found["data-summary.children"]]
    return {title: (value, detail) for title, value, detail in parts}


# --- the address --------------------------------------------------------------------------------------------------

names = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=12)


@given(
    st.sampled_from([None, *PERIODS]), st.lists(names, max_size=3), st.dates(date(2001, 1, 1), date(2090, 1, 1)), names
)
def test_writing_and_reading_again_is_the_same(period: str | None, accounts: list[str], day: date, of: str) -> None:
    address = replace(read(f"?period={period}" if period else "", TODAY).only(*sorted(set(accounts))), notices=())
    more = replace(address, show="reconciliation", month=day.replace(day=1), backfill=12)
    for written in (address, more, more.at(day), address.at(day, of=of), address.at(day, of=of, ingestion="abc")):
        assert read(written.search(), TODAY) == written


@given(st.text())
def test_any_text_is_an_address(search: str) -> None:
    found = read(search, TODAY)
    assert replace(read(found.search(), TODAY), notices=()) == replace(found, notices=())


@pytest.mark.parametrize(
    ("search", "said"),
    [
        ("?period=fortnight", "The last 90 days are shown"),
        ("?start=2026-10-08", "end is missing"),
        ("?day=2026-02-30", "day '2026-02-30' is not a date"),
        ("?show=gossip", "Unknown show 'gossip'"),
        ("?month=2026-13", "month '2026-13-01' is not a date"),
        ("?backfill=40", "backfill"),
        ("?service=S3", "“service” is not a setting of this page"),
        ("?account=" + "x" * 1025, "account has a value of 1025 characters"),
    ],
)
def test_what_is_not_understood_is_said_and_the_rest_is_shown(empty: Backends, search: str, said: str) -> None:
    put(empty, TODAY - timedelta(days=4), day_file("111"))
    found = shown(empty, search)
    assert said in text_of(found["data-notices.children"])
    assert found["data-drawn.data"]["calendar"]["start"] == str(read("", TODAY).days.start)


# --- calendar and summary -----------------------------------------------------------------------------------------


def test_the_calendar_has_a_letter_for_every_account_and_day(backends: Backends) -> None:
    found = shown(backends, "?period=30d")["data-drawn.data"]["calendar"]
    assert found["whole"] == "." * 10 + "C" * 11 + "M" + "CC" + "Q" + "CCC" + "SS"
    assert [name for name, _ in found["rows"]] == ["111", "222"]
    assert all(letters == found["whole"] for _, letters in found["rows"])


def test_the_summary_counts_what_is_there_and_what_is_not(backends: Backends) -> None:
    found = facts(shown(backends))
    assert found["Complete through"] == ("27 Oct 2026", "7 days behind")
    assert found["Days settling"] == ("2", "4–5 Nov")
    assert found["Missing account-days"] == ("2", "28 Oct")
    assert found["Quarantined files"][0] == "1"
    assert found["Retention"] == ("For ever", "Oldest day 17 Oct 2026")
    assert found["History"] == ("20 days", "2 accounts, 36 rows")


def test_nothing_at_all_is_unknown_and_says_how_to_begin(empty: Backends) -> None:
    found = shown(empty)
    assert "No cost data yet" in text_of(found["data-message.children"])
    assert empty.source.root in text_of(found["data-message.children"])
    assert found["data-panels.className"] == "grid away"


def test_only_a_refused_file_is_seen_and_nothing_is_called_zero(empty: Backends) -> None:
    day = TODAY - timedelta(days=5)
    assert put(empty, day, b"nonsense\n") == "quarantined"
    found = shown(empty)
    assert found["data-panels.className"] == "grid"
    assert facts(found)["Complete through"] == ("—", "No day is complete yet")
    assert facts(found)["History"][0] == "—"
    assert facts(found)["Missing account-days"][0] == "—"
    assert f"{day}.csv" in text_of(found["data-quarantined.children"])
    assert found["data-drawn.data"]["calendar"]["whole"][-5] == "Q"


def test_a_refused_file_older_than_the_history_does_not_undo_what_is_complete(empty: Backends) -> None:
    assert put(empty, TODAY - timedelta(days=40), b"nonsense\n") == "quarantined"
    for n in range(1, 10):
        assert put(empty, TODAY - timedelta(days=n), day_file("111")) == "done"
    assert facts(shown(empty))["Complete through"] == ("3 Nov 2026", "As far as it can be")


def test_the_table_says_in_words_what_the_calendar_shows(backends: Backends) -> None:
    said = text_of(shown(backends)["calendar-table.children"])
    for part in ("All accounts", "Quarantined", "31 Oct", "Missing", "28 Oct", "Settling", "4–5 Nov", "222"):
        assert part in said
    assert "Complete" not in said
    counted = text_of(shown(backends)["calendar-note.children"])
    assert "32 complete, 4 settling, 2 missing, 2 quarantined" in counted.replace("Account-days: ", "")


def test_retention_in_force_is_shown(backends: Backends) -> None:
    class Short:
        def __getattr__(self, name: str) -> Any:
            return getattr(backends.costs, name)

        def oldest(self, today: date) -> date:
            return today - timedelta(days=10)

    limited: Any = Short()
    settings = backends.settings.model_copy(update={"retention_days": 10})
    found = shown(replace(backends, settings=settings, costs=limited))
    assert facts(found)["Retention"] == ("10 days", "Days from 27 Oct 2026 on; months before as totals")


def test_a_year_of_sixty_accounts_is_a_small_answer(empty: Backends) -> None:
    names = [f"{n:012}" for n in range(60)]
    for n in range(1, 4):
        assert put(empty, TODAY - timedelta(days=n), day_file(*names)) == "done"
    found = shown(empty, "?period=12m")
    assert len(json.dumps(found["data-drawn.data"])) < 45_000
    assert json.dumps(found).count('"type"') < 1500


def test_unknown_accounts_are_said(backends: Backends) -> None:
    found = shown(backends, "?account=999")
    assert "Account 999 has no cost" in text_of(found["data-notices.children"])
    assert found["data-drawn.data"]["accounts"] == [["111", ""], ["222", ""], ["999", ""]]


# --- quarantined files --------------------------------------------------------------------------------------------


def test_a_refused_file_has_reason_line_value_and_the_ways_out(backends: Backends) -> None:
    found = shown(backends)["data-quarantined.children"]
    said, written = text_of(found), json.dumps(found)
    for part in (f"{REFUSED}.csv", "not_a_number", "Line 2", "amortized_cost", "1.2.3", "Download", "Try again"):
        assert part in said
    [item] = look(backends, read("", TODAY)).quarantined
    assert f"/api/v1/ingestions/{item.id}/file" in written
    assert (
        json.dumps(json.dumps({"kind": "ingest", "params": {"key": item.key, "again": True}}, separators=(",", ":")))
        in written
    )


def test_a_file_of_a_source_that_is_read_no_more_is_not_listed(backends: Backends) -> None:
    [item] = look(backends, read("", TODAY)).quarantined
    backends.metadata.put_ingestion(replace(item, id="elsewhere", source="file:///elsewhere/"))
    assert look(backends, read("", TODAY)).quarantined == [item]


def test_a_file_that_was_mended_or_put_back_is_no_longer_listed(backends: Backends) -> None:
    good = day_file("111", "222")
    other = TODAY - timedelta(days=5)
    assert put(backends, other, b"broken\n") == "quarantined"
    assert f"{other}.csv" in text_of(shown(backends)["data-quarantined.children"])
    assert put(backends, other, good) == "done-noop"
    assert put(backends, REFUSED, good) == "done"
    found = shown(backends)
    assert "No file is quarantined" in text_of(found["data-quarantined.children"])
    assert facts(found)["Quarantined files"] == ("0", "Every file that arrived was taken")
    assert "Q" not in found["data-drawn.data"]["calendar"]["whole"]


def test_hostile_names_are_only_text(empty: Backends) -> None:
    day = TODAY - timedelta(days=4)
    put(empty, day, day_file(HOSTILE))
    put(
        empty,
        day - timedelta(days=1),
        (HEADER + f"{HOSTILE.replace(chr(34), '')},S3,eu,{HOSTILE.replace(chr(34), '')},1,1,1\n").encode(),
    )
    found = [shown(empty), side(empty, f"?day={day}&of={HOSTILE}"), side(empty, f"?day={day - timedelta(days=1)}")]
    assert HOSTILE in text_of(found[1])
    assert "dangerously" not in json.dumps(found)


# --- one day ------------------------------------------------------------------------------------------------------


def test_without_a_day_the_side_is_empty(backends: Backends) -> None:
    assert side(backends, "") is None


def test_a_quarantined_day_says_why_and_that_it_is_unknown(backends: Backends) -> None:
    said = text_of(side(backends, f"?day={REFUSED}&of=111"))
    for part in ("Saturday 31 Oct 2026", "Quarantined", "unknown, not zero", "It had cost on 30 Oct 2026", "not_a_number", "1.2.3",
                 "within 5 min", "Try again"):  # fmt: skip
        assert part in said, part
    assert "$0.00" not in said


def test_a_missing_day_says_what_would_mend_it(backends: Backends) -> None:
    said = text_of(side(backends, f"?day={MISSING}&of=222"))
    for part in (
        "Missing",
        "2 accounts missing",
        "no accepted file covers it",
        f"{MISSING}.csv",
        backends.source.root,
        "None has arrived",
    ):
        assert part in said, part


def test_a_restated_day_shows_both_figures_and_each_file_once(backends: Backends) -> None:
    day = TODAY - timedelta(days=7)
    assert put(backends, day, day_file("111", cost="12.75")) == "done"
    said = text_of(side(backends, f"?day={day}&of=111"))
    for part in ("$10.50", "$12.75", "+$2.25", "+21.4 %", "revision 2", "Taken", "Replaced by a newer version"):
        assert part in said, part
    released = text_of(side(backends, f"?day={day}&of=222"))
    assert "its file stopped naming the account" in released
    assert "−$10.50" in released


def test_a_refused_newer_file_leaves_the_figures_and_says_so(backends: Backends) -> None:
    day = TODAY - timedelta(days=7)
    assert put(backends, day, b"broken\n") == "quarantined"
    said = text_of(side(backends, f"?day={day}&of=111"))
    assert "The figures taken before stay" in said
    assert "$10.50" in said


def test_days_that_settle_are_not_over_or_not_expected_say_so(backends: Backends) -> None:
    assert "complete from 8 Nov 2026" in text_of(side(backends, f"?day={TODAY - timedelta(days=1)}"))
    assert "not over yet" in text_of(side(backends, f"?day={TODAY}"))
    assert "nothing is expected" in text_of(side(backends, f"?day={TODAY - timedelta(days=80)}"))


def test_a_day_being_restated_says_so(backends: Backends) -> None:
    day = TODAY - timedelta(days=7)
    record = backends.metadata.day_record(day)
    assert backends.metadata.put_day_record(
        replace(record, revision=record.revision + 1, restating=True, restating_job="j", restating_until=NOW)
    )
    assert "Being restated" in text_of(side(backends, f"?day={day}"))
    assert shown(backends)["data-drawn.data"]["calendar"]["whole"][-7] == "R"


def test_an_account_whose_collection_failed_says_so(backends: Backends) -> None:
    record = backends.metadata.day_record(MISSING)
    failed = replace(
        record, revision=record.revision + 1, sources={"x": "0"}, covered=frozenset(), failed_accounts=("222",)
    )
    assert isinstance(failed, DayRecord)
    assert backends.metadata.put_day_record(failed)
    assert "its collection failed" in text_of(side(backends, f"?day={MISSING}&of=222"))


def test_collecting_again_is_offered_only_where_it_can_be_done(
    backends: Backends, monkeypatch: pytest.MonkeyPatch
) -> None:
    from app import jobs as work

    monkeypatch.setattr(work, "AVAILABLE", frozenset({"ingest"}))
    assert "Collect this day again" not in text_of(side(backends, f"?day={MISSING}"))
    monkeypatch.setattr(work, "AVAILABLE", frozenset({"ingest", "collect"}))
    found = side(backends, f"?day={MISSING}")
    assert "Collect this day again, about $0.04" in text_of(found)
    body = {"kind": "collect", "params": {"start": str(MISSING), "end": str(MISSING + timedelta(days=1))}}
    assert json.dumps(json.dumps(body, separators=(",", ":"))) in json.dumps(found)


# --- jobs ---------------------------------------------------------------------------------------------------------


def job(status: Any = "running", **more: Any) -> Job:
    given = {"kind": "ingest", "params": {"key": "2026-11-01.csv"}, "created": NOW - timedelta(seconds=50)} | more
    return Job(id="j1", key="k", status=status, **given)


def work_of(*found: Job, **more: Any) -> Work:
    return Work(
        **(
            {
                "now": NOW,
                "open": found,
                "more": 0,
                "ended": (),
                "trouble": None,
                "version": 1,
                "attempts": 5,
                "looked": NOW,
                "watch_seconds": 300,
                "source": "s3://b/",
            }
            | more
        )
    )


def test_a_running_job_has_a_bar_and_a_guess_after_three_steps() -> None:
    running = job(started=NOW - timedelta(seconds=6), done_steps=15, all_steps=60, message="Fetching day 16 of 60")
    found = jobside.jobs(work_of(running))
    assert "15 of 60 · about 18 s left" in text_of(found)
    assert "Fetching day 16 of 60" in text_of(found)
    bar = json.dumps(found)
    for part in (
        '"role": "progressbar"',
        '"aria-valuenow": "15"',
        '"aria-valuemax": "60"',
        '"data-cancel": "/api/v1/jobs/j1"',
    ):
        assert part in bar
    assert "left" not in text_of(jobside.jobs(work_of(replace(running, done_steps=2))))
    unknown = json.dumps(jobside.jobs(work_of(replace(running, all_steps=None))))
    assert "aria-valuenow" not in unknown


@pytest.mark.parametrize(
    ("kind", "params", "name"),
    [
        ("ingest", {"key": "2026-11-01.csv", "again": True}, "Take 2026-11-01.csv again"),
        ("collect", {"start": "2026-11-01", "end": "2026-11-04"}, "Collect 1 Nov – 3 Nov 2026"),
        ("collect", {}, "Collect the newest days"),
        ("backfill", {"months": 12}, "Backfill 12 months"),
        ("ingest", {}, "Ingest"),
        ("collect", {"start": 5, "end": None}, "Collect"),
        ("detect", {}, "Look for anomalies"),
    ],
)
def test_names_say_what_is_done(kind: str, params: dict[str, Any], name: str) -> None:
    assert jobside.name_of(job(kind=kind, params=params)) == name


def test_every_status_has_its_word_and_a_failure_its_way_out() -> None:
    failed = job("failed", finished=NOW, message="The source refused access. Allow s3:GetObject.", attempts=5)
    found = jobside.jobs(work_of(ended=[failed, job("done", finished=NOW), job("cancelled", finished=NOW)]))
    said = text_of(found)
    for part in (
        "Failed",
        "Allow s3:GetObject",
        "Run again",
        "Technical details",
        "5 of at most 5",
        "Finished",
        "Cancelled",
        "Nothing is running",
    ):
        assert part in said, part
    assert said.count("Run again") == 2
    waiting = job("waiting", message="The source does not answer.", not_before=NOW + timedelta(seconds=12))
    assert "The source does not answer. Tried again in 12 s." in text_of(jobside.jobs(work_of(waiting)))


def test_jobs_are_those_that_run_and_come_next(backends: Backends) -> None:
    for n in range(9):
        submit(backends, "ingest", {"key": f"2026-10-{n + 10}.csv"}, key=str(n), priority=n)
    first = backends.metadata.claim(backends.metadata.unfinished()[0].id, worker="w", now=NOW, lease_until=NOW)
    found = look_at_work(backends)
    assert first is not None
    assert [item.id for item in found.open][:1] == [first.id]
    assert [item.params["key"] for item in found.open] == [f"2026-10-{n + 10}.csv" for n in (8, 7, 6, 5)]
    assert (found.more, found.is_active, found.trouble) == (5, True, None)


def test_work_that_nobody_does_is_said_after_a_while(backends: Backends) -> None:
    submit(backends, "ingest", {"key": "2026-10-10.csv"}, key="k")
    late = replace(backends, queue=MemoryQueue(alive=0), clock=lambda: NOW + timedelta(seconds=60))
    assert "No worker is running" in str(look_at_work(late).trouble)
    assert look_at_work(replace(late, clock=lambda: NOW + timedelta(seconds=20))).trouble is None
    assert look_at_work(replace(late, queue=MemoryQueue())).trouble is None
    down: Any = Down("queue")
    assert look_at_work(replace(late, queue=down)).trouble == "The queue part does not answer."


def test_the_last_look_is_a_moment_and_a_late_one_is_said(backends: Backends) -> None:
    assert "has not been looked at yet" in text_of(jobside.last_look(look_at_work(backends)))
    watch(backends)
    looked = look_at_work(backends)
    assert "last looked at  6 Nov 09:00 UTC , every 5 min" in text_of(jobside.last_look(looked))
    late = text_of(jobside.last_look(replace(looked, now=NOW + timedelta(hours=2))))
    assert "expected every 5 min. Is the scheduler running?" in late


# --- backfill -----------------------------------------------------------------------------------------------------


def asked(backends: Backends, search: str, callback: Any) -> Any:
    backends.memo.clear()
    with create_app(backends).server.app_context():
        return callback(search)


def test_a_backfill_says_its_price_before_it_can_be_begun(backends: Backends) -> None:
    assert asked(backends, "", data.price) is None
    found = asked(backends, "?backfill=3", data.price)
    expected = price_of_backfill(backends, 3)
    said = text_of(found)
    assert f"About {expected.requests} requests, ${expected.price}" in said
    assert f"{expected.days} days of 2 accounts" in said
    assert json.dumps('{"kind":"backfill","params":{"months":3}}') in json.dumps(found)


def test_a_backfill_beyond_retention_is_refused_up_front(backends: Backends) -> None:
    class Short:
        def __getattr__(self, name: str) -> Any:
            return getattr(backends.costs, name)

        def oldest(self, today: date) -> date:
            return today - timedelta(days=30)

    limited: Any = Short()
    found = asked(replace(backends, costs=limited), "?backfill=12", data.price)
    assert "Raise SPENDSCOPE_RETENTION_DAYS" in text_of(found)
    assert "data-job" not in json.dumps(found)


def test_the_sample_has_nothing_to_collect(backends: Backends) -> None:
    demo = replace(backends, settings=backends.settings.model_copy(update={"demo": True}))
    assert "sample organisation" in text_of(asked(demo, "?backfill=3", data.price))
    assert "Collect this day again" not in text_of(side(demo, f"?day={MISSING}"))


def test_running_a_backfill_again_asks_for_what_was_asked() -> None:
    failed = job(
        "failed", kind="backfill", params={"months": 3, "start": "2026-08-01", "end": "2026-11-06"}, finished=NOW
    )
    found = json.dumps(jobside.jobs(work_of(ended=[failed])))
    assert json.dumps('{"kind":"backfill","params":{"months":3}}') in found


# --- how far figures can be trusted -------------------------------------------------------------------------------


def test_a_complete_day_that_moves_is_noticed_and_leads_to_the_day(backends: Backends) -> None:
    tabs, quiet = asked(backends, "", data.judge)
    assert [text_of(tab) for tab in tabs] == ["Notices", "Restatements", "Reconciliation"]
    assert "No notice" in text_of(quiet)
    day = TODAY - timedelta(days=7)
    assert put(backends, day, day_file("111", "222", cost="110.5")) == "done"
    _, found = asked(backends, "", data.judge)
    assert "+$200.00" in text_of(found)
    assert f"day={day}" in json.dumps(found)
    said = text_of(side(backends, f"?day={day}&of=111"))
    for part in ("Moved since", "+$200.00", "Reports of account 111", "$110.50"):
        assert part in said, part


def test_restatements_say_how_far_days_move_and_can_be_had_as_csv(backends: Backends) -> None:
    later = replace(backends, clock=lambda: NOW + timedelta(days=20))
    day = TODAY - timedelta(days=7)
    assert (
        put(replace(backends, clock=lambda: NOW + timedelta(days=1)), day, day_file("111", "222", cost="21")) == "done"
    )
    _, found = asked(later, "?show=restatements&account=111&account=222", data.judge)
    said = text_of(found)
    assert "100.00 %" in said
    assert "did not move" in said
    assert "/api/v1/restatements?start=" in json.dumps(found)
    assert "account=111&account=222" in json.dumps(found)
    _, young = asked(backends, "?show=restatements&start=2026-11-05&end=2026-11-06", data.judge)
    assert "nothing can have moved" in text_of(young)


def test_reconciliation_holds_file_ledger_and_store_together(backends: Backends) -> None:
    _, found = asked(backends, "?show=reconciliation&month=2026-10", data.judge)
    said = text_of(found)
    assert "File, ledger and store agree for 2 of 2 accounts" in said
    assert "have not been recorded for this month" in said
    assert said.count("$136.50") == 6, "13 days of each account, in file, ledger and store"
    assert "month=2026-09" in json.dumps(found)
    assert "/api/v1/reconciliation?month=2026-10&format=csv" in json.dumps(found)
    _, nothing = asked(backends, "?show=reconciliation&month=2020-01", data.judge)
    assert "There is nothing of January 2020" in text_of(nothing)


def test_a_difference_from_cost_explorer_is_explained_or_left_open(backends: Backends) -> None:
    rows = [[str(TODAY - timedelta(days=n)), "111", "Usage", "10.5"] for n in range(10, 16)]
    rows += [
        [str(TODAY - timedelta(days=10)), "111", "Tax", "2"],
        [str(TODAY - timedelta(days=11)), "111", "Usage2", "0.75"],
    ]
    reference = {
        "month": "2026-10", "collected": "2026-11-05T00:00:00Z", "currency": "USD", "metrics": ["amortized_cost"], "rows": rows,
    }  # fmt: skip
    folder = Path(backends.source.root.removeprefix("file://")).with_name("reference")
    folder.mkdir()
    (folder / "2026-10.json").write_text(json.dumps(reference))
    assert take_references(backends)
    _, found = asked(backends, "?show=reconciliation&month=2026-10", data.judge)
    said = text_of(found)
    assert "tax −$2.00" in said
    assert "$0.75 of the difference from Cost Explorer's totals is unexplained" in said


# --- callbacks ----------------------------------------------------------------------------------------------------


def body_for(app: Any, first: str, values: dict[str, Any]) -> dict[str, Any]:
    """What the browser posts to the callback whose first output this is."""
    name = next(name for name in app.callback_map if name.lstrip(".").startswith(first + "."))
    spec = app.callback_map[name]
    several = isinstance(spec["output"], list | tuple)
    outputs = [
        {"id": o.component_id, "property": o.component_property}
        for o in (spec["output"] if several else [spec["output"]])
    ]
    inputs = [{**item, "value": values.get(item["id"])} for item in spec["inputs"]]
    return {
        "output": name, "outputs": outputs if several else outputs[0], "inputs": inputs, "state": [],
        "changedPropIds": [f"{inputs[0]['id']}.{inputs[0]['property']}"],
    }  # fmt: skip


JUNK = [None, "", "?day=2026-10-31", "?" * 50, 5, [], {}, True, {"a": 1}, "\ud800"]


@pytest.mark.parametrize("value", JUNK, ids=repr)
def test_whatever_is_posted_is_answered_without_a_5xx(backends: Backends, value: Any) -> None:
    app = create_app(backends)
    client = app.server.test_client()
    for first in (data.Ids.DRAWN, data.Ids.SIDE, data.Ids.LIVE, data.Ids.TRUST_TABS, data.Ids.PLAN):
        every = dict.fromkeys([name.value for name in data.Ids], value)
        answer = client.post(PATH, data=json.dumps(body_for(app, first, every)), content_type="application/json")
        assert answer.status_code in (200, 204, 400), answer.get_data(as_text=True)[:200]


def test_the_calendar_is_kept_and_the_jobs_are_not(backends: Backends) -> None:
    app = create_app(backends)
    client, kept = app.server.test_client(), app.server.extensions["spendscope-answers"]
    for _ in range(2):
        for first in (data.Ids.DRAWN, data.Ids.SIDE, data.Ids.LIVE):
            assert client.post(PATH, json=body_for(app, first, {})).status_code in (200, 204)
    assert (kept.hits, len(kept)) == (1, 1)


def test_a_store_that_is_down_is_a_problem_with_its_sentence(backends: Backends) -> None:
    down: Any = Down("metadata")
    app = create_app(replace(backends, metadata=down, memo={}))
    client = app.server.test_client()
    for first in (data.Ids.SIDE, data.Ids.LIVE):
        answer = client.post(PATH, json=body_for(app, first, {data.Ids.URL.value: "?day=2026-10-31"}))
        assert (answer.status_code, answer.get_json()["detail"]) == (503, "The metadata part does not answer.")


def test_a_layout_shows_the_address_before_anything_is_asked() -> None:
    written = json.dumps(
        data.layout(account=["b", "a"], period="30d", strange="x"), default=lambda part: part.to_plotly_json()
    )
    assert '"value": ["a", "b"]' in written
    assert '"data-address": "data-url"' in written
