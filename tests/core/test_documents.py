"""Records survive being documents: as JSON text, with any name that comes from outside, to the last digit."""

from __future__ import annotations

import json
from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.core.charges import Totals
from app.core.documents import (
    claim_end_document,
    cursor_after,
    day_record_document,
    day_record_from,
    ingestion_document,
    ingestion_from,
    job_document,
    job_from,
    place_of,
    time_text,
)
from app.core.jobs import Job
from app.core.ledger import INGESTION_STATUSES, AccountDay, DayRecord, Ingestion
from app.errors import InvalidInput, Reason

NOW = datetime(2026, 11, 24, 4, 31, 7, tzinfo=UTC)
names = st.text(max_size=8).filter(lambda text: text.isprintable())
times = st.integers(-(10**15), 10**15).map(lambda microseconds: NOW + timedelta(microseconds=microseconds))
days = st.dates(date(2000, 1, 1), date(2100, 1, 1))
decimals = st.integers(-(10**34), 10**34).map(lambda steps: Decimal(steps).scaleb(-20))
totals = st.builds(Totals, st.integers(0, 10**7), decimals, st.none() | decimals, decimals, decimals)
parts = st.builds(
    AccountDay, st.none() | names, st.none() | names, st.integers(1, 99), totals, totals, st.booleans(), times, times
)
records = st.builds(
    DayRecord,
    day=days,
    revision=st.integers(0, 99),
    accounts=st.dictionaries(names, parts, max_size=3),
    sources=st.dictionaries(names, names, max_size=2),
    covered=st.none() | st.frozensets(names, max_size=3),
    failed_accounts=st.lists(names, max_size=2).map(tuple),
    restating=st.booleans(),
    restating_job=st.none() | names,
    restating_until=st.none() | times,
)
ingestions = st.builds(
    Ingestion,
    id=names,
    source=names,
    key=names,
    version=names,
    day=st.none() | days,
    status=st.sampled_from(INGESTION_STATUSES),
    started=times,
    finished=st.none() | times,
    totals=st.none() | totals,
    accounts=st.dictionaries(names, totals, max_size=3),
    held=st.lists(names, max_size=2).map(tuple),
    reason=st.none() | st.builds(Reason, names, names, st.none() | st.integers(1, 99), st.none() | names),
)


def through_json(document: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(json.dumps(document))
    return found


@given(records)
def test_a_day_comes_back_from_its_document(record: DayRecord) -> None:
    assert day_record_from(through_json(day_record_document(record))) == record


@given(ingestions)
def test_an_ingestion_comes_back_from_its_document(ingestion: Ingestion) -> None:
    assert ingestion_from(through_json(ingestion_document(ingestion))) == ingestion


@given(st.dictionaries(names, st.text(max_size=5) | st.integers() | st.none(), max_size=3))
def test_a_job_comes_back_and_is_flat(members: dict[str, Any]) -> None:
    job = Job("id", "ingest", members, "key", "queued", NOW, result=members)
    document = job_document(job)
    assert all(value is None or isinstance(value, int | str) for value in document.values())
    assert job_from(through_json(document)) == job


def test_half_a_surrogate_pair_in_a_sentence_is_replaced_and_in_params_kept() -> None:
    job = Job("id", "ingest", {"key": "\ud800"}, "key", "queued", NOW, message="odd \ud800 name")
    document = job_document(job)
    json.dumps(document).encode()
    assert (job_from(document).message, job_from(document).params) == ("odd ? name", {"key": "\ud800"})


def test_times_sort_as_text_and_need_a_zone() -> None:
    moments = [NOW + timedelta(microseconds=n) for n in (0, 1, 10**6)]
    assert sorted(map(time_text, moments)) == [time_text(moment) for moment in moments]
    assert time_text(NOW.astimezone(timezone(timedelta(hours=5)))) == "2026-11-24T04:31:07.000000Z"
    with pytest.raises(ValueError, match="no time zone"):
        time_text(NOW.replace(tzinfo=None))


def test_a_claim_ends_or_waits_and_nothing_else() -> None:
    waiting = claim_end_document("waiting", NOW, "later", None, NOW)
    assert (waiting["finished"], waiting["not_before"]) == (None, time_text(NOW))
    done = claim_end_document("done", NOW, None, {}, NOW)
    assert (done["finished"], done["not_before"]) == (time_text(NOW), None)
    with pytest.raises(ValueError, match="not with running"):
        claim_end_document("running", NOW, None, None, None)


@given(times, names)
def test_a_cursor_is_good_for_its_own_list_only(time: datetime, name: str) -> None:
    cursor = cursor_after(("jobs", None), time_text(time), name)
    assert place_of(("jobs", None), cursor) == (time_text(time), name)
    with pytest.raises(InvalidInput):
        place_of(("jobs", "done"), cursor)


@given(st.text(max_size=40))
def test_a_made_up_cursor_is_refused(text: str) -> None:
    with pytest.raises(InvalidInput, match="not given out"):
        place_of(("jobs",), text)
