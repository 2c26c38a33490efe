"""What every adapter of ports.Metadata does, whatever technology stands behind it."""

from __future__ import annotations

import random
import threading
import uuid
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from app.core.anomalyrecords import AnomalyRecord, Moment, Part, PlannedSpend, Verdict
from app.core.charges import Totals
from app.core.grafanaalerts import GrafanaAlert
from app.core.jobs import FINAL, JOB_STATUSES, Job
from app.core.ledger import AccountDay, DayRecord, Ingestion, Revisions
from app.core.notifications import Attempt, ChannelState, Delivery, Notification
from app.core.people import AuditNote
from app.core.periods import DAY as ONE_DAY
from app.core.reconciliation import KeptReference, Reference
from app.core.restatements import Move, Notice, Revision
from app.core.retention import MonthTotals
from app.core.scopes import Scope
from app.errors import CannotStart, InvalidInput, Reason
from app.ports import Metadata
from tests.contracts.budgets import BudgetsContract
from tests.contracts.people import PeopleContract
from tests.forking import context

DAY = date(2026, 11, 20)
NOW = datetime(2026, 11, 24, 4, 30, 7, 125, tzinfo=UTC)
ROOT = "s3://bucket/costs/"
SOON, LATER = NOW + timedelta(seconds=12), NOW + timedelta(seconds=60)

HOSTILE = ["a.b", "$where", "$set.x", ".", "", "__proto__", "'; DROP TABLE job; --", "é💰", "x" * 3000, "a\nb", "null"]
"""Names that mean something to a store when they are taken for a path, an operator or a statement."""

Opening = Callable[[], Metadata]


def seconds(number: float) -> timedelta:
    return timedelta(seconds=number)


def totals(amount: str = "1.5", *, blended: str | None = "0", rows: int = 1) -> Totals:
    return Totals(
        rows, Decimal(amount), None if blended is None else Decimal(blended), Decimal(amount), Decimal("3.25")
    )


def account_day(amount: str = "1.5", **changes: Any) -> AccountDay:
    part = AccountDay(f"{ROOT}{DAY}.csv", "ab12", 1, totals(amount), totals(amount), False, NOW, NOW)
    return replace(part, **changes)


def day_record(day: date = DAY, revision: int = 1, **changes: Any) -> DayRecord:
    record = DayRecord(day, revision, {"111111111111": account_day()}, {f"{ROOT}{day}.csv": "ab12"})
    return replace(record, **changes)


def ingestion(id: str = "one", day: date = DAY, *, after: float = 0, **changes: Any) -> Ingestion:
    """One that started `after` seconds after NOW."""
    started = NOW + seconds(after)
    record = Ingestion(id, ROOT, f"{day}.csv", f"v-{id}", day, "ingested", started, started + seconds(1))
    return replace(record, **changes)


def revision(number: int = 1, day: date = DAY, account: str = "111111111111", **changes: Any) -> Revision:
    at = NOW + seconds(number)
    return replace(Revision(day, account, number, at, f"{ROOT}{day}.csv", "ab12", totals(f"{number}.5")), **changes)


def notice(id: str = "one", day: date = DAY, *, after: float = 0, **changes: Any) -> Notice:
    moves = {"111111111111": Move(Decimal("1.50"), Decimal("-0.00000000000000000001"))}
    return replace(Notice(id, "restated", NOW + seconds(after), day, "It moved.", moves), **changes)


def grafana_alert(id: str = "one", **changes: Any) -> GrafanaAlert:
    given: dict[str, Any] = {
        "fingerprint": "print", "status": "firing", "starts": NOW, "ends": None, "labels": {"alertname": "Spike"},
        "annotations": {"summary": "S3"}, "values": {}, "panel": None, "rule": None, "silence": None, "first": NOW, "last": NOW,
    }  # fmt: skip
    return GrafanaAlert(id=id, **{**given, **changes})


def anomaly(id: str = "one", start: date = DAY, days: int = 3, **changes: Any) -> AnomalyRecord:
    """One that lasts some days, with a name in it that means something to a store."""
    scope, last, amount = Scope("111111111111", "$set.a", None), start + (days - 1) * ONE_DAY, Decimal("12.50")
    record = AnomalyRecord(
        id, scope, "rise", "high", start, last, last, amount, Decimal("0"), amount, amount, Decimal("-0.01"),
        contributions=tuple(Part(Scope(name, name, name), amount) for name in HOSTILE),
        root_causes=(scope, Scope()), found="ongoing", created=NOW, updated=NOW,
        verdicts=(Verdict("dismissed", NOW, "$where", "é: a reason"), Verdict("open", SOON, "ana")),
        moments=(Moment(start, start, amount, amount, amount, amount, amount, "open"),),
    )  # fmt: skip
    return replace(record, **changes)


def delivery(id: str = "one", channel: str = "slack", *, after: float = 0, **changes: Any) -> Delivery:
    """A pending one, created `after` seconds after NOW."""
    told = Notification(
        "restated", "warning", "It moved.", f"key {id}", NOW, (("Account", "1"),), "https://x/?a=b", ("1",)
    )
    return replace(Delivery(id, channel, told, NOW + seconds(after)), **changes)


MONTH = date(2026, 11, 1)


def kept_reference(version: str = "v1") -> Any:
    days = {DAY: {"Usage": (Decimal("1.10"),), "$set": (Decimal("-0.00000000000000000001"),)}}
    accounts = dict.fromkeys(HOSTILE, days)
    reference = Reference(MONTH, NOW, "USD", ("amortized_cost",), accounts)
    return KeptReference(ROOT, MONTH, version, None, reference)


def job(id: str | None = None, *, key: str | None = None, after: float = 0, **changes: Any) -> Job:
    """A queued one, created `after` seconds after NOW; each has a key of its own unless one is given."""
    name = id or uuid.uuid4().hex
    record = Job(name, "ingest", {"key": f"{DAY}.csv"}, key or f"key-{name}", "queued", NOW + seconds(after))
    return replace(record, **changes)


def claim(store: Metadata, id: str, *, at: datetime = NOW, lease: float = 12, worker: str = "w1") -> Job | None:
    return store.claim(id, worker=worker, now=at, lease_until=at + seconds(lease))


def claimed(store: Metadata, **changes: Any) -> Job:
    """A new job, running."""
    found = claim(store, store.put_job(job(**changes))[0].id)
    assert found is not None
    return found


def renew(store: Metadata, held: Job, *, until: datetime = LATER, done: int = 1, message: str | None = "on it") -> bool:
    return store.renew(held.id, held.token, lease_until=until, done_steps=done, all_steps=4, message=message)


# --- what other processes do; by name, so that they can be sent there ------------------------------------------------


def claim_all(open_store: Opening, ids: list[str], worker: str) -> list[tuple[str, int]]:
    """Claim every one of these jobs that can be claimed, in an order of one's own: (id, token) of those won."""
    store = open_store()
    mixed = random.Random(worker).sample(ids, len(ids))
    won = [found for name in mixed if (found := claim(store, name, worker=worker))]
    store.close()
    return [(found.id, found.token) for found in won]


def take_slots(open_store: Opening, slots: list[datetime], scheduler: str) -> list[datetime]:
    store = open_store()
    mixed = random.Random(scheduler).sample(slots, len(slots))
    won = [slot for slot in mixed if store.take_slot("watch", slot)]
    store.close()
    return won


def take_channel(open_store: Opening, revisions: list[int], sender: str) -> list[int]:
    """Try to be the one who moves a channel on, once a revision: those won."""
    store = open_store()
    won = []
    for revision in revisions:
        while (state := store.channel_state("slack")).revision < revision - 1:
            pass
        if state.revision == revision - 1 and store.put_channel_state(
            replace(state, revision=revision, disabled=sender)
        ):
            won.append(revision)
    store.close()
    return won


def prepare_again(open_store: Opening) -> int:
    store = open_store()
    store.prepare()
    version = store.ledger_version()
    store.close()
    return version


def in_processes(count: int, work: Callable[..., Any], arguments: list[tuple[Any, ...]]) -> list[Any]:
    """What each call returns. All processes are there before the first call is made."""
    with context().Pool(count, initializer=context().Barrier(count).wait, initargs=(60,)) as pool:
        return pool.starmap(work, arguments, chunksize=1)


class MetadataContract(PeopleContract, BudgetsContract):
    """Subclasses give `store`, prepared and empty, and `open_store`, which opens the same one in any process."""

    contested = 200
    """Jobs and slots that several processes race for."""

    examples = 25
    """Sequences of job transitions tried."""

    @pytest.fixture
    def store(self) -> Metadata:
        raise NotImplementedError

    @pytest.fixture
    def open_store(self) -> Opening:
        raise NotImplementedError

    # --- the store itself

    def test_is_usable_and_may_be_prepared_again(self, store: Metadata) -> None:
        store.put_day_record(day_record())
        store.prepare()
        store.check()
        assert store.day_record(DAY) == day_record()

    def test_a_closed_store_opens_again_when_it_is_asked(self, store: Metadata) -> None:
        store.put_day_record(day_record())
        store.close()
        assert store.day_record(DAY) == day_record()
        store.close()
        store.close()

    def test_another_process_sees_what_was_acknowledged(self, store: Metadata, open_store: Opening) -> None:
        store.put_day_record(day_record())
        other = open_store()
        assert other.day_record(DAY) == day_record()
        assert other.ledger_version() == store.ledger_version()
        other.close()

    def test_several_processes_may_prepare_at_once(self, store: Metadata, open_store: Opening) -> None:
        store.put_day_record(day_record())
        versions = in_processes(3, prepare_again, [(open_store,)] * 6)
        assert set(versions) == {store.ledger_version()}

    # --- days

    def test_a_day_never_touched_is_empty(self, store: Metadata) -> None:
        assert store.day_record(DAY) == DayRecord(DAY)
        assert store.day_records(date(2000, 1, 1), date(2100, 1, 1)) == {}

    def test_a_day_comes_back_as_it_was_put(self, store: Metadata) -> None:
        record = DayRecord(
            day=DAY,
            revision=1,
            accounts={
                "111111111111": account_day("-0.00000000000000000001", first=totals("999999999999.99")),
                "released": account_day("0", owner=None, sha256=None, estimated=True, revision=7, released_by="f"),
                "no blended": account_day("12.340", current=totals("0.1", blended=None), spoken=True),
            },
            sources={f"{ROOT}{DAY}.csv": "ab", f"{ROOT}{DAY}.csv.gz": "cd"},
            covered=frozenset({"111111111111", "released"}),
            failed_accounts=("222", "333"),
            restating=True,
            restating_job="job-1",
            restating_until=NOW,
        )
        assert store.put_day_record(record)
        assert store.day_record(DAY) == record
        assert store.day_records(DAY, DAY + ONE_DAY) == {DAY: record}

    def test_names_are_only_names(self, store: Metadata) -> None:
        record = day_record(
            accounts={name: account_day(owner=name) for name in HOSTILE},
            sources={name: name for name in HOSTILE},
            covered=frozenset(HOSTILE),
            failed_accounts=tuple(HOSTILE),
            restating_job="$set",
        )
        assert store.put_day_record(record)
        assert store.day_record(DAY) == record

    def test_ranges_are_half_open_and_in_order(self, store: Metadata) -> None:
        days = [DAY + n * ONE_DAY for n in (3, 0, 2, 1, 40)]
        for day in days:
            store.put_day_record(day_record(day))
        assert list(store.day_records(DAY, DAY + 3 * ONE_DAY)) == [DAY + n * ONE_DAY for n in range(3)]
        assert list(store.day_records(DAY + ONE_DAY, DAY + ONE_DAY)) == []
        assert len(store.day_records(date(2000, 1, 1), date(2100, 1, 1))) == 5

    def test_a_day_is_compared_and_set(self, store: Metadata) -> None:
        first = day_record()
        second = replace(first, revision=2, accounts={"111111111111": account_day("2")})
        assert not store.put_day_record(second), "there is no revision 1 yet"
        assert store.put_day_record(first)
        assert not store.put_day_record(replace(first, accounts={})), "revision 1 is taken"
        assert store.put_day_record(second)
        assert not store.put_day_record(second)
        assert not store.put_day_record(replace(first, revision=4))
        assert store.day_record(DAY) == second

    def test_the_version_moves_with_every_change_and_with_nothing_else(self, store: Metadata) -> None:
        seen = [store.ledger_version()]
        for revision in (1, 2, 3):
            assert store.put_day_record(day_record(revision=revision))
            seen.append(store.ledger_version())
        assert store.put_day_record(day_record(DAY + ONE_DAY))
        seen.append(store.ledger_version())
        assert seen == sorted(set(seen))
        assert not store.put_day_record(day_record(revision=3))
        store.day_records(DAY, DAY + ONE_DAY)
        store.put_job(job())
        assert store.ledger_version() == seen[-1]

    def test_revisions_are_of_one_moment(self, store: Metadata) -> None:
        """Each change moves the version and one revision, so where they count from stays, whatever is written meanwhile."""
        assert store.day_revisions() == Revisions(store.ledger_version(), {})
        days = [DAY + n * ONE_DAY for n in range(3)]
        origins: set[int] = {store.day_revisions().origin}

        def write(day: date) -> None:
            for revision in range(1, 31):
                assert store.put_day_record(day_record(day, revision))

        with ThreadPoolExecutor(3) as pool:
            writers = [pool.submit(write, day) for day in days]
            while not all(writer.done() for writer in writers):
                origins.add(store.day_revisions().origin)
            for writer in writers:
                writer.result()
        assert store.day_revisions() == Revisions(store.ledger_version(), dict.fromkeys(days, 30))
        assert origins == {store.day_revisions().origin}

    def test_of_several_writers_of_a_revision_one_wins(self, store: Metadata) -> None:
        for revision in range(1, 11):
            records = [day_record(revision=revision, restating_job=f"job-{n}") for n in range(8)]
            with ThreadPoolExecutor(8) as pool:
                won = list(pool.map(store.put_day_record, records))
            assert won.count(True) == 1
            assert store.day_record(DAY) == records[won.index(True)]

    def test_new_figures_are_never_seen_under_an_old_version(self, store: Metadata) -> None:
        """A reader keeps what it read under the version it asked for before, as app.costs does."""
        days = [DAY + n * ONE_DAY for n in range(3)]
        kept: dict[int, dict[date, DayRecord]] = {}
        done = threading.Event()

        def write(day: date) -> None:
            for revision in range(1, 16):
                assert store.put_day_record(day_record(day, revision))

        def read() -> None:
            version, records = store.ledger_version(), store.day_records(DAY, DAY + 9 * ONE_DAY)
            if store.ledger_version() == version:
                assert kept.setdefault(version, records) == records

        def read_all_the_time() -> None:
            while not done.is_set():
                read()

        with ThreadPoolExecutor(5) as pool:
            readers = [pool.submit(read_all_the_time) for _ in range(2)]
            writers = [pool.submit(write, day) for day in days]
            try:
                for writer in writers:
                    writer.result()
            finally:
                done.set()
            for reader in readers:
                reader.result()
        read()
        assert max(kept) == store.ledger_version()

    # --- months

    def test_month_totals_come_back_as_they_were_put_and_are_replaced(self, store: Metadata) -> None:
        first = MonthTotals(MONTH, 30, {name: totals("0.10", blended=None) for name in HOSTILE})
        other = MonthTotals(date(2026, 9, 1), 1, {"a": totals("-0.00000000000000000001")})
        for one in (first, other):
            store.put_month_totals(one)
        assert list(store.month_totals(date(2000, 1, 1), date(2100, 1, 1)).items()) == [
            (other.month, other),
            (MONTH, first),
        ]
        assert list(store.month_totals(date(2026, 9, 1), MONTH)) == [other.month]
        store.put_month_totals(replace(first, days=2, accounts={}))
        assert store.month_totals(MONTH, MONTH + ONE_DAY) == {MONTH: MonthTotals(MONTH, 2, {})}

    # --- histories

    def test_a_revision_comes_back_as_it_was_put(self, store: Metadata) -> None:
        full = revision(3, source=HOSTILE[2], sha256="cd", totals=totals("-0.10", blended=None), estimated=True)
        bare = revision(1, source=None, sha256=None, spoken=True)
        store.add_revisions([full, bare])
        assert store.revisions(DAY, DAY + ONE_DAY) == [bare, full]

    def test_a_revision_is_kept_as_it_was_first_put(self, store: Metadata) -> None:
        store.add_revisions([revision(1), revision(2)])
        store.add_revisions([revision(2, sha256="other"), revision(3), revision(1, sha256="other")])
        store.add_revisions([])
        assert store.revisions(DAY, DAY + ONE_DAY) == [revision(1), revision(2), revision(3)]
        assert store.revision_keys(DAY, DAY + ONE_DAY) == {revision(n).key for n in (1, 2, 3)}

    def test_revisions_are_asked_by_day_and_account_and_names_are_only_names(self, store: Metadata) -> None:
        many = [revision(n, DAY + d * ONE_DAY, name) for d in range(3) for name in HOSTILE for n in (1, 2)]
        store.add_revisions(random.Random(7).sample(many, len(many)))
        expected = sorted((one for one in many if one.day < DAY + 2 * ONE_DAY), key=lambda one: one.key)
        assert store.revisions(DAY, DAY + 2 * ONE_DAY) == expected
        assert store.revision_keys(DAY, DAY + 2 * ONE_DAY) == {one.key for one in expected}
        some = set(HOSTILE[::2])
        assert store.revisions(DAY, DAY + 2 * ONE_DAY, some) == [one for one in expected if one.account in some]
        assert store.revisions(DAY, DAY + ONE_DAY, ["nobody"]) == []
        assert store.revisions(DAY, DAY) == []

    def test_of_several_writers_of_a_history_each_revision_is_there_once(self, store: Metadata) -> None:
        mine = [[revision(n, sha256=f"writer {w}") for n in range(1, 20)] for w in range(4)]
        with ThreadPoolExecutor(4) as pool:
            list(pool.map(store.add_revisions, mine))
        found = store.revisions(DAY, DAY + ONE_DAY)
        assert [one.revision for one in found] == list(range(1, 20))

    def test_an_anomaly_comes_back_as_it_was_put(self, store: Metadata) -> None:
        assert store.put_anomaly(anomaly())
        assert store.anomaly("one") == anomaly()
        assert store.anomaly("$ne") is None

    def test_an_anomaly_is_changed_by_whoever_saw_its_newest_revision(self, store: Metadata) -> None:
        assert store.put_anomaly(anomaly())
        assert not store.put_anomaly(anomaly(severity="low"))
        changed = anomaly(severity="low", revision=2)
        assert store.put_anomaly(changed)
        assert not store.put_anomaly(anomaly(revision=2))
        assert not store.put_anomaly(anomaly("new", revision=2))
        assert store.anomalies(DAY, DAY + ONE_DAY) == [changed]

    def test_anomalies_of_some_days_are_those_that_touch_them_newest_first(self, store: Metadata) -> None:
        for one in (anomaly("b"), anomaly("a"), anomaly("later", DAY + 5 * ONE_DAY)):
            assert store.put_anomaly(one)
        assert [one.id for one in store.anomalies(DAY, DAY + 30 * ONE_DAY)] == ["later", "a", "b"]
        assert [one.id for one in store.anomalies(DAY + 2 * ONE_DAY, DAY + 5 * ONE_DAY)] == ["a", "b"]
        assert store.anomalies(DAY + 3 * ONE_DAY, DAY + 5 * ONE_DAY) == []
        assert store.anomalies(DAY - 5 * ONE_DAY, DAY) == []

    def test_plans_are_kept_replaced_and_forgotten(self, store: Metadata) -> None:
        plan = PlannedSpend("one", Scope(None, "$set", None), DAY, DAY + ONE_DAY, "Load test é", "ana", NOW)
        store.put_planned_spend(plan)
        store.put_planned_spend(replace(plan, id="before", start=DAY - ONE_DAY))
        store.put_planned_spend(replace(plan, reason="Another", extra=Decimal("250.50")))
        assert store.planned_spend() == [
            replace(plan, id="before", start=DAY - ONE_DAY),
            replace(plan, reason="Another", extra=Decimal("250.50")),
        ]
        assert store.forget_planned_spend("one")
        assert not store.forget_planned_spend("one")
        assert [kept.id for kept in store.planned_spend()] == ["before"]

    def test_an_alert_of_grafana_comes_back_as_it_was_put(self, store: Metadata) -> None:
        odd = grafana_alert(
            labels={"$set": "é.$", "a.b": ""}, values={"A": 1.5}, ends=LATER, panel="https://x/", status="resolved"
        )
        assert store.put_grafana_alert(odd)
        assert store.grafana_alerts_like(odd.fingerprint) == [odd]
        assert store.grafana_alerts_like("$ne") == []

    def test_an_alert_of_grafana_is_changed_by_whoever_saw_its_newest_revision(self, store: Metadata) -> None:
        assert store.put_grafana_alert(grafana_alert())
        assert not store.put_grafana_alert(grafana_alert(status="resolved"))
        changed = grafana_alert(status="resolved", last=LATER, revision=2)
        assert store.put_grafana_alert(changed)
        assert not store.put_grafana_alert(grafana_alert(revision=2))
        assert not store.put_grafana_alert(grafana_alert("new", revision=2))
        assert list(store.grafana_alerts(limit=9).items) == [changed]

    def test_alerts_of_grafana_are_listed_newest_first_and_forgotten(self, store: Metadata) -> None:
        for number in range(5):
            store.put_grafana_alert(
                grafana_alert(
                    str(number), starts=NOW + number * timedelta(hours=1), last=NOW + number * ONE_DAY,
                    status="resolved" if number % 2 else "firing",
                )
            )  # fmt: skip
        assert [one.id for one in store.grafana_alerts_like("print")] == ["4", "3", "2", "1", "0"]
        first = store.grafana_alerts(limit=2)
        rest = store.grafana_alerts(limit=9, cursor=first.next_cursor)
        assert [one.id for one in (*first.items, *rest.items)] == ["4", "3", "2", "1", "0"]
        assert [one.id for one in store.grafana_alerts(limit=9, status="resolved").items] == ["3", "1"]
        with pytest.raises(InvalidInput):
            store.grafana_alerts(limit=2, status="firing", cursor=first.next_cursor)
        assert store.forget_grafana_alerts(heard_before=NOW + 2 * ONE_DAY) == 2
        assert [one.id for one in store.grafana_alerts(limit=9).items] == ["4", "3", "2"]

    def test_notices_are_kept_once_and_listed_newest_first(self, store: Metadata) -> None:
        odd = notice("odd", DAY + ONE_DAY, after=3, kind="reference", message="é$set", moves={})
        for one in (notice("a"), notice("b", after=1), odd):
            assert store.add_notice(one)
        assert not store.add_notice(notice("a", message="another"))
        first = store.notices(limit=2)
        rest = store.notices(limit=2, cursor=first.next_cursor)
        assert [*first.items, *rest.items] == [odd, notice("b", after=1), notice("a")]
        assert rest.next_cursor is None
        assert store.notices(limit=9, kind="restated").items == [notice("b", after=1), notice("a")]
        assert store.notices_about(DAY, DAY + ONE_DAY) == [notice("b", after=1), notice("a")]
        assert store.notices_about(DAY, DAY + 2 * ONE_DAY) == [odd, notice("b", after=1), notice("a")]
        assert store.notices_about(DAY + 2 * ONE_DAY, DAY + 9 * ONE_DAY) == []

    # --- references

    def test_a_reference_comes_back_as_it_was_put(self, store: Metadata) -> None:
        assert store.reference(ROOT, MONTH) is None
        assert store.reference_versions(ROOT) == {}
        kept = kept_reference()
        store.put_reference(kept)
        assert store.reference(ROOT, MONTH) == kept
        assert store.reference_versions(ROOT) == {MONTH: "v1"}
        assert store.reference("s3://other/", MONTH) is None
        assert store.reference(ROOT, date(2026, 9, 1)) is None

    def test_a_newer_reference_takes_the_place_of_the_one_before(self, store: Metadata) -> None:
        store.put_reference(kept_reference())
        other = replace(kept_reference("v2").reference, accounts={"new": {DAY: {"Tax": (Decimal("-0.10"),)}}})
        newer = replace(kept_reference("v2"), reference=other)
        for _ in range(2):
            store.put_reference(newer)
            assert store.reference(ROOT, MONTH) == newer
        empty = replace(newer, version="v3", reference=replace(other, accounts={}))
        store.put_reference(empty)
        assert store.reference(ROOT, MONTH) == empty

    def test_one_that_cannot_be_read_is_known_and_leaves_the_last_that_could(self, store: Metadata) -> None:
        bad = KeptReference(ROOT, MONTH, "v0", "it is not JSON", None)
        store.put_reference(bad)
        assert store.reference(ROOT, MONTH) == bad
        store.put_reference(kept_reference())
        store.put_reference(replace(bad, version="v2"))
        assert store.reference_versions(ROOT) == {MONTH: "v2"}
        expected = replace(kept_reference("v2"), problem="it is not JSON")
        assert store.reference(ROOT, MONTH) == expected
        store.put_reference(kept_reference("v3"))
        assert store.reference(ROOT, MONTH) == kept_reference("v3")

    def test_readers_have_one_whole_reference(self, store: Metadata) -> None:
        """Two writers replace it again and again; what is read is one of them, all of it."""
        versions = {}
        for name in ("v1", "v2"):
            accounts = {f"{name} {n}": {DAY: {"Usage": (Decimal(n),)}} for n in range(20)}
            kept = kept_reference(name)
            versions[name] = replace(kept, reference=replace(kept.reference, accounts=accounts))
        store.put_reference(versions["v1"])
        done = threading.Event()

        def write(name: str) -> None:
            for _ in range(15):
                store.put_reference(versions[name])

        def read() -> int:
            seen = 0
            while not done.is_set():
                found = store.reference(ROOT, MONTH)
                assert found is not None
                assert found == versions[found.version]
                seen += 1
            return seen

        with ThreadPoolExecutor(3) as pool:
            reader = pool.submit(read)
            for writer in [pool.submit(write, name) for name in versions]:
                writer.result()
            done.set()
            assert reader.result() > 0

    # --- ingestions

    def test_ingestions_are_found_by_day_and_bytes(self, store: Metadata) -> None:
        for n in range(6):
            store.put_ingestion(ingestion(str(n), DAY + n % 2 * ONE_DAY, sha256=f"sha {n // 2}"))
        store.put_ingestion(ingestion("none", sha256=None))
        found = store.ingestions_with(DAY, DAY + ONE_DAY, {"sha 0", "sha 2", "x"})
        assert sorted(one.id for one in found) == ["0", "4"]
        assert all(store.ingestion(one.id) == one for one in found)
        assert store.ingestions_with(DAY, DAY + ONE_DAY, []) == []

    def test_an_ingestion_comes_back_as_it_was_put(self, store: Metadata) -> None:
        full = Ingestion(
            id="full",
            source=ROOT,
            key=f"{DAY}.csv.gz",
            version='"etag"',
            day=DAY,
            status="quarantined",
            started=NOW,
            finished=NOW + seconds(2),
            sha256="ab" * 32,
            parser=3,
            size=2**40,
            rows=1_000_000,
            totals=totals("0.10", blended=None),
            accounts={name: totals() for name in HOSTILE},
            held=tuple(HOSTILE),
            notice="$set: a notice",
            reason=Reason("number", "1.5.2 is not a number", 3, "amortized_cost", "1.5.2"),
            revision=4,
            job_id="job-1",
        )
        bare = Ingestion("bare", ROOT, "x.csv", "v", None, "failed", NOW)
        for record in (full, bare):
            store.put_ingestion(record)
            assert store.ingestion(record.id) == record
        assert store.ingestion("nothing") is None

    def test_an_ingestion_with_the_same_id_is_replaced(self, store: Metadata) -> None:
        store.put_ingestion(ingestion("one", status="waiting"))
        store.put_ingestion(ingestion("one", status="ingested", rows=5))
        assert store.ingestions(limit=10).items == [ingestion("one", status="ingested", rows=5)]

    def test_ingestions_are_listed_newest_first_page_by_page(self, store: Metadata) -> None:
        # Three started at the same moment: the order is still a whole one.
        records = [ingestion(f"{n:02}", after=0 if n < 3 else n) for n in range(11)]
        for record in random.Random(7).sample(records, 11):
            store.put_ingestion(record)
        pages, cursor = [], None
        while True:
            page = store.ingestions(limit=4, cursor=cursor)
            pages.append([record.id for record in page.items])
            cursor = page.next_cursor
            # What arrives meanwhile is newer, and moves nothing.
            store.put_ingestion(ingestion(f"new {len(pages)}", after=100 + len(pages)))
            if cursor is None:
                break
        assert pages == [["10", "09", "08", "07"], ["06", "05", "04", "03"], ["02", "01", "00"]]

    def test_a_full_last_page_has_no_next(self, store: Metadata) -> None:
        for n in range(4):
            store.put_ingestion(ingestion(str(n), after=n))
        page = store.ingestions(limit=4)
        assert (len(page.items), page.next_cursor) == (4, None)
        assert store.ingestions(limit=4, status="failed").items == []

    def test_ingestions_are_filtered(self, store: Metadata) -> None:
        for n in range(12):
            status = "ingested" if n % 2 else "quarantined"
            store.put_ingestion(ingestion(f"{n:02}", DAY + n % 3 * ONE_DAY, after=n, status=status))
        first = store.ingestions(limit=4, status="quarantined")
        rest = store.ingestions(limit=4, status="quarantined", cursor=first.next_cursor)
        assert [record.id for record in (*first.items, *rest.items)] == ["10", "08", "06", "04", "02", "00"]
        both = store.ingestions(limit=9, status="ingested", key=f"{DAY}.csv")
        assert [record.id for record in both.items] == ["09", "03"]
        assert len(store.ingestions(limit=9, key=f"{DAY}.csv").items) == 4

    def test_a_cursor_is_good_for_its_own_list_only(self, store: Metadata) -> None:
        for n in range(3):
            store.put_ingestion(ingestion(str(n), after=n))
            store.put_job(job(f"job-{n}", after=n))
        given_out = store.ingestions(limit=1).next_cursor
        assert given_out is not None
        for wrong in (
            lambda: store.ingestions(limit=1, cursor=given_out, status="ingested"),
            lambda: store.ingestions(limit=1, cursor=given_out, key=f"{DAY}.csv"),
            lambda: store.jobs(limit=1, cursor=given_out),
            lambda: store.jobs(limit=1, cursor=store.jobs(limit=1).next_cursor, kind="ingest"),
            lambda: store.ingestions(limit=1, cursor=given_out[:-1]),
            lambda: store.ingestions(limit=1, cursor=given_out + "="),
            lambda: store.ingestions(limit=1, cursor=""),
            lambda: store.ingestions(limit=1, cursor="\ud800"),
        ):
            with pytest.raises(InvalidInput, match="cursor") as told:
                wrong()
            assert told.value.field == "cursor"

    def test_versions_that_were_dealt_with_are_known(self, store: Metadata) -> None:
        store.put_ingestion(ingestion("a", version="1", status="superseded"))
        store.put_ingestion(ingestion("b", version="2", status="quarantined", after=1))
        store.put_ingestion(ingestion("c", DAY + ONE_DAY, version="1", status="noop"))
        store.put_ingestion(ingestion("d", version="3", status="waiting", finished=None, after=2))
        store.put_ingestion(ingestion("e", version="9", source="s3://other/"))
        # The same version again, under another id: the newest counts.
        store.put_ingestion(ingestion("f", version="2", after=3))
        assert store.known_versions(ROOT) == {
            (f"{DAY}.csv", "1"): "superseded",
            (f"{DAY}.csv", "2"): "ingested",
            (f"{DAY + ONE_DAY}.csv", "1"): "noop",
        }
        assert store.known_versions("s3://nowhere/") == {}

    def test_versions_of_an_object(self, store: Metadata) -> None:
        for n in (2, 0, 1):
            store.put_ingestion(ingestion(str(n), after=n))
        store.put_ingestion(ingestion("other", DAY + ONE_DAY))
        store.put_ingestion(ingestion("elsewhere", source="s3://other/"))
        assert [record.id for record in store.versions_of(ROOT, f"{DAY}.csv")] == ["2", "1", "0"]
        assert store.versions_of(ROOT, "nothing") == []

    def test_a_day_is_quarantined_while_the_newest_version_of_a_file_is(self, store: Metadata) -> None:
        days = [DAY + n * ONE_DAY for n in range(5)]
        put = store.put_ingestion
        put(ingestion("0", days[0], status="quarantined", after=2))
        put(ingestion("0 before", days[0], after=1))
        put(ingestion("1", days[1], status="quarantined", after=1))
        put(ingestion("1 mended", days[1], status="noop", after=2))
        put(ingestion("2", days[2], after=9))
        put(ingestion("2 other file", days[2], key=f"{days[2]}.csv.gz", status="quarantined"))
        put(ingestion("4", days[4], status="quarantined"))
        put(ingestion("no day", key="x.csv", status="quarantined", day=None))
        put(ingestion("3 elsewhere", days[3], source="s3://other/", status="quarantined"))
        assert store.quarantined_days(days[0], days[4], ROOT) == {days[0], days[2]}
        assert store.quarantined_days(days[4], days[4] + ONE_DAY, ROOT) == {days[4]}
        assert store.quarantined_days(days[0], days[4], "s3://other/") == {days[3]}

    def test_a_job_remembers_which_request_submitted_it(self, store: Metadata) -> None:
        asked = Job("asked", "scan", {}, "asked", "queued", NOW, request_id="caller-0123")
        for job in (asked, Job("unasked", "scan", {}, "unasked", "queued", NOW)):
            store.put_job(job)
            assert store.job(job.id) == job
        claimed = store.claim("asked", worker="w", now=NOW, lease_until=NOW)
        assert claimed is not None
        assert claimed.request_id == "caller-0123"

    # --- notifications

    def test_a_delivery_comes_back_as_it_was_added(self, store: Metadata) -> None:
        told = Notification(
            "anomaly",
            "critical",
            HOSTILE[0],
            "k",
            NOW,
            tuple((name, name) for name in HOSTILE),
            None,
            tuple(HOSTILE),
            True,
        )
        full = delivery(
            notification=told, status="failed", bundle="b", attempts=3, not_before=SOON, finished=LATER, message="…"
        )
        assert store.add_deliveries([full]) == 1
        assert store.delivery("one") == full
        assert store.delivery("nothing") is None

    def test_what_failed_becomes_pending_anew_and_nothing_else_does(self, store: Metadata) -> None:
        failed = delivery(status="failed", bundle="b", attempts=8, finished=NOW, message="It is down.")
        sent = delivery("two", status="sent", bundle="c", attempts=1, finished=NOW)
        store.add_deliveries([failed, sent])
        assert not store.renew_delivery("two")
        assert not store.renew_delivery("nothing")
        assert store.renew_delivery("one")
        assert not store.renew_delivery("one")
        assert store.delivery("one") == delivery()
        assert store.delivery("two") == sent

    def test_half_a_surrogate_pair_in_a_notification_does_no_harm(self, store: Metadata) -> None:
        told = replace(delivery().notification, title="\udcff", key="\ud800", facts=(("\ud800", "\ud800"),))
        store.add_deliveries([delivery(notification=told, message="\ud800")])
        assert store.delivery("one").notification.title == "?"  # type: ignore[union-attr]

    def test_a_delivery_is_added_once_and_stays_as_it_is(self, store: Metadata) -> None:
        assert store.add_deliveries([delivery("a"), delivery("b")]) == 2
        assert store.mark_deliveries(["a"], Attempt("a", "sent", 1, finished=SOON)) == 1
        assert store.add_deliveries([delivery("a", after=9), delivery("c"), delivery("c", after=9)]) == 1
        assert store.add_deliveries([]) == 0
        assert store.delivery("a") == delivery("a", status="sent", bundle="a", attempts=1, finished=SOON)
        assert store.delivery("c") == delivery("c")

    def test_only_pending_deliveries_are_marked(self, store: Metadata) -> None:
        store.add_deliveries([delivery("a"), delivery("b"), delivery("c")])
        again = Attempt("both", "pending", 2, not_before=LATER, message="It was down.")
        assert store.mark_deliveries(["a", "b", "nothing"], again) == 2
        assert store.delivery("b") == delivery("b", bundle="both", attempts=2, not_before=LATER, message="It was down.")
        assert store.mark_deliveries(["a"], Attempt("both", "sent", 3, finished=SOON)) == 1
        assert store.mark_deliveries(["a", "b"], Attempt("both", "failed", 4, finished=LATER)) == 1
        assert [found.status for name in "abc" if (found := store.delivery(name))] == ["sent", "failed", "pending"]
        assert store.mark_deliveries([], again) == 0

    def test_pending_deliveries_of_a_channel_oldest_first(self, store: Metadata) -> None:
        store.add_deliveries([delivery(str(n), after=-n) for n in range(5)] + [delivery("other", "teams")])
        store.mark_deliveries(["3"], Attempt("3", "sent", 1, finished=NOW))
        assert [found.id for found in store.pending_deliveries("slack")] == ["4", "2", "1", "0"]
        assert [found.id for found in store.pending_deliveries("slack", limit=2)] == ["4", "2"]
        assert store.pending_channels() == ["slack", "teams"]
        store.mark_deliveries(["other"], Attempt("other", "dropped", 0, finished=NOW))
        assert store.pending_channels() == ["slack"]

    def test_deliveries_page_by_page_newest_first(self, store: Metadata) -> None:
        store.add_deliveries([delivery(f"{n:02}", "slack" if n % 2 else "teams", after=n // 3) for n in range(20)])
        store.mark_deliveries(["05", "07"], Attempt("x", "sent", 1, finished=NOW))
        seen, cursor = [], None
        while True:
            page = store.deliveries(limit=3, cursor=cursor)
            seen += [found.id for found in page.items]
            if (cursor := page.next_cursor) is None:
                break
        assert seen == [f"{n:02}" for n in reversed(range(20))]
        assert {found.channel for found in store.deliveries(limit=50, channel="teams").items} == {"teams"}
        assert [found.id for found in store.deliveries(limit=50, status="sent").items] == ["07", "05"]
        with pytest.raises(InvalidInput):
            store.deliveries(limit=3, cursor=store.deliveries(limit=3).next_cursor, channel="teams")

    def test_ended_deliveries_are_forgotten_and_pending_ones_never(self, store: Metadata) -> None:
        store.add_deliveries([delivery("a"), delivery("b"), delivery("c")])
        store.mark_deliveries(["a"], Attempt("a", "sent", 1, finished=NOW))
        store.mark_deliveries(["b"], Attempt("b", "failed", 1, finished=LATER))
        assert store.forget_deliveries(finished_before=SOON) == 1
        assert [found.id for found in store.deliveries(limit=9).items] == ["c", "b"]

    def test_a_channels_state_moves_on_by_compare_and_set(self, store: Metadata) -> None:
        assert store.channel_state("a.b") == ChannelState("a.b")
        first = ChannelState("a.b", 1, NOW, SOON, LATER, (NOW, SOON), 2, "401")
        assert store.put_channel_state(first)
        assert store.channel_state("a.b") == first
        assert not store.put_channel_state(replace(first, refusals=9))
        assert not store.put_channel_state(replace(first, revision=3))
        assert store.put_channel_state(second := ChannelState("a.b", 2))
        assert store.channel_state("a.b") == second

    def test_of_several_senders_one_holds_a_channel(self, store: Metadata, open_store: Opening) -> None:
        revisions = list(range(1, 26))
        won = in_processes(3, take_channel, [(open_store, revisions, f"s{n}") for n in range(3)])
        assert sorted(revision for part in won for revision in part) == revisions

    # --- jobs: recording

    def test_a_job_comes_back_as_it_was_put(self, store: Metadata) -> None:
        params = {name: {"deep": [1, 2.5, None, True, {name: "$x"}]} for name in HOSTILE}
        full = job("full", params=params, result={"$inc": {"a.b": "\ud800"}}, priority=-(2**40), message="…")
        full = replace(full, not_before=SOON, attempts=3, token=8, worker="w", done_steps=1, all_steps=4, started=NOW)
        assert store.put_job(full) == (full, True)
        assert store.job("full") == full
        assert store.job("nothing") is None

    def test_half_a_surrogate_pair_in_a_sentence_does_no_harm(self, store: Metadata) -> None:
        held = claimed(store)
        assert renew(store, held, message="file \udcff.csv")
        assert store.finish(held.id, held.token, "failed", now=NOW, message="file \udcff.csv")
        assert store.job(held.id).message == "file ?.csv"  # type: ignore[union-attr]

    def test_a_copy_put_back_is_all_there_is(self, store: Metadata, tmp_path: Path) -> None:
        """Into the same store: what came after the copy is gone, what was before is as it was, also how it is found."""
        assert store.is_empty()
        empty, full = tmp_path / "empty", tmp_path / "full"
        empty.mkdir()
        full.mkdir()
        assert store.copy_to(empty) == store.schema
        job = Job("one", "scan", {"x": list(HOSTILE)}, "key", "queued", NOW, request_id="caller-0123")
        store.put_job(job)
        assert store.is_empty(), "jobs are made again from the source"
        store.put_day_record(day_record())
        store.put_ingestion(ingestion("mine"))
        store.append_audit(AuditNote(NOW, "ann", "signed in", "", "127.0.0.1", "ok"))
        version = store.ledger_version()
        assert not store.is_empty()
        assert store.copy_to(full) == store.schema
        store.put_ingestion(ingestion("later", DAY + ONE_DAY))
        store.put_job(Job("later", "scan", {}, "later", "queued", NOW))
        store.replace_from(full, above=0)
        store.close()
        store.prepare()
        assert store.day_record(DAY) == day_record()
        assert [found.id for found in store.ingestions(limit=9).items] == ["mine"]
        assert [entry.note.who for entry in store.audit(limit=9)] == ["ann"]
        assert store.unfinished() == [job]
        assert store.put_job(Job("two", "scan", {}, "key", "queued", NOW)) == (job, False), (
            "an open key is still one job"
        )
        assert store.ledger_version() > version
        store.replace_from(empty, above=0)
        store.close()
        store.prepare()
        assert store.is_empty()
        assert store.unfinished() == []

    def test_a_copy_put_back_has_a_version_nobody_has_seen(self, store: Metadata, tmp_path: Path) -> None:
        """A process that goes on meanwhile keeps answers by the version: none of them may fit what is there now."""
        store.put_day_record(day_record())
        store.copy_to(tmp_path)
        store.put_day_record(replace(day_record(), revision=2))
        store.put_day_record(replace(day_record(), day=DAY + ONE_DAY))
        seen = store.ledger_version()
        for above in (0, seen + 1000):
            store.replace_from(tmp_path, above)
            found = store.ledger_version()
            assert found > max(seen, above)
            assert store.put_day_record(replace(day_record(), revision=2, restating=True)), "and grows as before"
            seen = store.ledger_version()
            assert seen > found

    def test_after_a_restore_versions_count_from_higher_up(self, store: Metadata, tmp_path: Path) -> None:
        """Whatever the copy has: a day at a revision it had is not the day it was."""
        few, many = tmp_path / "few", tmp_path / "many"
        for folder, last in ((few, 1), (many, 9)):
            folder.mkdir()
            for revision in range(store.day_record(DAY).revision + 1, last + 1):
                assert store.put_day_record(day_record(DAY, revision))
            store.copy_to(folder)
        counted_from = [store.day_revisions().origin]
        for folder in (few, many, few, many, many):
            store.replace_from(folder, above=0)
            counted_from.append(store.day_revisions().origin)
        assert store.day_revisions() == Revisions(store.ledger_version(), {DAY: 9})
        assert counted_from == sorted(set(counted_from))

    def test_files_that_are_no_copy_are_refused(self, store: Metadata, tmp_path: Path) -> None:
        store.put_day_record(day_record())
        bad = tmp_path / "bad"
        bad.mkdir()
        (bad / "metadata.sqlite").write_bytes(b"SQLite format 3\0" + b"x" * 5000)
        with pytest.raises(CannotStart):
            store.replace_from(bad, above=0)
        store.close()
        assert store.day_record(DAY) == day_record()

    def test_an_open_key_is_one_job(self, store: Metadata) -> None:
        first, new = store.put_job(job("first", key="k"))
        assert (first.id, new) == ("first", True)
        held = None
        for _ in ("queued", "running", "waiting"):
            there, new = store.put_job(job(key="k"))
            assert (there, new) == (store.job("first"), False)
            if held is None:
                held = claim(store, "first")
                assert held is not None
            else:
                store.finish("first", held.token, "waiting", now=NOW, not_before=SOON)
        again = claim(store, "first", at=SOON)
        assert again is not None
        store.finish("first", again.token, "done", now=SOON)
        second, new = store.put_job(job("second", key="k"))
        assert (second.id, new) == ("second", True)

    def test_a_cancelled_job_frees_its_key(self, store: Metadata) -> None:
        store.put_job(job("first", key="k"))
        store.cancel("first", now=NOW)
        assert store.put_job(job("second", key="k"))[1]

    def test_the_same_id_is_the_same_job_also_when_it_is_final(self, store: Metadata) -> None:
        store.put_job(job("one", key="k"))
        store.cancel("one", now=NOW)
        there, new = store.put_job(job("one", key="k"))
        assert (there.status, new) == ("cancelled", False)

    def test_a_final_job_can_be_recorded_and_holds_no_key(self, store: Metadata) -> None:
        assert store.put_job(job("old", key="k", status="done", finished=NOW))[1]
        assert store.put_job(job("new", key="k"))[1]

    def test_keys_and_ids_do_not_mix(self, store: Metadata) -> None:
        assert store.put_job(job("a", key="b"))[1]
        assert store.put_job(job("b", key="a"))[1]
        store.cancel("a", now=NOW)
        assert store.put_job(job("c", key="final a"))[1]
        assert store.put_job(job("d", key="open a"))[1]

    def test_of_several_with_one_key_one_is_recorded(self, store: Metadata) -> None:
        for turn in range(5):
            with ThreadPoolExecutor(8) as pool:
                found = list(pool.map(store.put_job, [job(key=f"k{turn}") for _ in range(8)]))
            assert [new for _, new in found].count(True) == 1
            assert len({there.id for there, _ in found}) == 1

    # --- jobs: the life of a claim

    def test_a_claim_starts_an_attempt(self, store: Metadata) -> None:
        queued, _ = store.put_job(job())
        assert claim(store, queued.id, worker="w7") == replace(
            queued, status="running", token=1, attempts=1, worker="w7", started=NOW, lease_until=SOON
        )
        assert store.job(queued.id).status == "running"  # type: ignore[union-attr]
        assert claim(store, "nothing") is None

    def test_a_running_job_is_claimed_again_only_when_its_lease_has_run_out(self, store: Metadata) -> None:
        held = claimed(store)
        assert claim(store, held.id, at=SOON - seconds(0.001)) is None
        second = claim(store, held.id, at=SOON, worker="w2")
        assert second is not None
        assert (second.token, second.attempts, second.worker) == (2, 2, "w2")
        assert not renew(store, held)
        assert not store.finish(held.id, held.token, "done", now=SOON)
        assert store.job(held.id) == second, "the old token changed nothing"
        assert renew(store, second)

    def test_a_waiting_job_is_claimed_when_it_is_due(self, store: Metadata) -> None:
        held = claimed(store)
        assert renew(store, held)
        assert store.finish(held.id, held.token, "waiting", now=NOW, message="S3 is down", not_before=SOON)
        waiting = store.job(held.id)
        assert waiting == replace(
            held, status="waiting", message="S3 is down", not_before=SOON, lease_until=None, done_steps=1, all_steps=4
        )
        assert claim(store, held.id, at=SOON - seconds(1)) is None
        second = claim(store, held.id, at=SOON)
        assert second is not None
        assert (second.token, second.not_before, second.message, second.done_steps) == (2, None, None, 0)

    def test_waiting_without_a_time_is_due_at_once(self, store: Metadata) -> None:
        held = claimed(store)
        store.finish(held.id, held.token, "waiting", now=NOW)
        assert claim(store, held.id) is not None

    def test_renewing_holds_the_lease_and_records_progress(self, store: Metadata) -> None:
        held = claimed(store)
        assert renew(store, held, until=LATER, done=2, message="Writing")
        found = store.job(held.id)
        assert found == replace(held, lease_until=LATER, done_steps=2, all_steps=4, message="Writing")
        assert claim(store, held.id, at=SOON) is None
        assert not store.renew(held.id, 99, lease_until=LATER, done_steps=0, all_steps=None, message=None)

    @pytest.mark.parametrize("status", sorted(FINAL))
    def test_a_claim_ends_once(self, store: Metadata, status: Any) -> None:
        held = claimed(store)
        assert store.finish(held.id, held.token, status, now=LATER, message="so it was", result={"rows": 3})
        ended = store.job(held.id)
        assert ended == replace(
            held, status=status, finished=LATER, lease_until=None, message="so it was", result={"rows": 3}
        )
        assert not store.finish(held.id, held.token, "failed", now=LATER)
        assert not renew(store, held)
        assert claim(store, held.id, at=LATER + seconds(9999)) is None
        assert not store.requeue(held.id, now=LATER + seconds(9999))
        assert store.cancel(held.id, now=LATER) == ended

    def test_a_lease_that_ran_out_unnoticed_can_still_be_ended(self, store: Metadata) -> None:
        held = claimed(store)
        assert store.finish(held.id, held.token, "done", now=LATER)

    def test_a_claim_does_not_end_in_the_queue(self, store: Metadata) -> None:
        held = claimed(store)
        with pytest.raises(ValueError, match="queued"):
            store.finish(held.id, held.token, "queued", now=NOW)

    def test_requeueing_what_is_due_or_abandoned(self, store: Metadata) -> None:
        held = claimed(store)
        assert not store.requeue(held.id, now=SOON - seconds(1))
        assert store.requeue(held.id, now=SOON)
        queued = store.job(held.id)
        assert queued is not None
        assert (queued.status, queued.attempts, queued.token, queued.lease_until) == ("queued", 1, 1, None)
        assert not store.requeue(held.id, now=LATER), "it is in the queue already"
        assert not renew(store, held)
        again = claim(store, held.id, at=SOON)
        assert again is not None
        assert again.token == 2
        store.finish(held.id, again.token, "waiting", now=SOON, not_before=LATER)
        assert not store.requeue(held.id, now=LATER - seconds(1))
        assert store.requeue(held.id, now=LATER)
        assert not store.requeue("nothing", now=LATER)

    def test_cancelling(self, store: Metadata) -> None:
        queued, _ = store.put_job(job())
        assert store.cancel(queued.id, now=LATER) == replace(queued, status="cancelled", finished=LATER)
        held = claimed(store)
        cancelled = store.cancel(held.id, now=LATER)
        assert cancelled == replace(held, status="cancelled", finished=LATER, lease_until=None)
        assert not renew(store, held)
        assert not store.finish(held.id, held.token, "done", now=LATER)
        assert store.job(held.id) == cancelled
        assert store.cancel("nothing", now=LATER) is None

    # --- jobs: lists

    def test_unfinished_jobs_by_priority_and_age(self, store: Metadata) -> None:
        for name, priority, after in (("old", 0, 0), ("urgent", 5, 3), ("new", 0, 2), ("first urgent", 5, 1)):
            store.put_job(job(name, priority=priority, after=after))
        claim(store, "old")
        store.cancel(store.put_job(job("gone", priority=9))[0].id, now=NOW)
        assert [found.id for found in store.unfinished()] == ["first urgent", "urgent", "old", "new"]
        assert [found.id for found in store.unfinished(limit=1)] == ["first urgent"]

    def test_jobs_are_listed_newest_first_page_by_page(self, store: Metadata) -> None:
        for n in random.Random(3).sample(range(7), 7):
            store.put_job(job(str(n), after=0 if n < 3 else n, kind="ingest" if n % 2 else "detect"))
        store.cancel("6", now=NOW)
        first = store.jobs(limit=4)
        rest = store.jobs(limit=4, cursor=first.next_cursor)
        assert [found.id for found in (*first.items, *rest.items)] == ["6", "5", "4", "3", "2", "1", "0"]
        assert rest.next_cursor is None
        assert [found.id for found in store.jobs(limit=9, kind="detect").items] == ["6", "4", "2", "0"]
        assert [found.id for found in store.jobs(limit=9, status="cancelled", kind="detect").items] == ["6"]
        assert [found.id for found in store.jobs(limit=9, status="queued").items] == ["5", "4", "3", "2", "1", "0"]

    def test_counts_have_every_status(self, store: Metadata) -> None:
        assert store.job_counts() == dict.fromkeys(JOB_STATUSES, 0)
        claimed(store)
        for _ in range(2):
            store.cancel(store.put_job(job())[0].id, now=NOW)
        assert store.job_counts() == dict.fromkeys(JOB_STATUSES, 0) | {"running": 1, "cancelled": 2}

    def test_only_what_ended_long_ago_is_forgotten(self, store: Metadata) -> None:
        for n in range(3):
            held = claimed(store, id=f"done-{n}")
            store.finish(held.id, held.token, "done", now=NOW + seconds(n))
        store.put_job(job("open", after=-9999))
        assert store.forget_jobs(finished_before=NOW + seconds(2)) == 2
        assert {found.id for found in store.jobs(limit=9).items} == {"done-2", "open"}
        assert store.forget_jobs(finished_before=NOW + seconds(2)) == 0

    def test_jobs_follow_their_rules_in_any_order(self, store: Metadata) -> None:
        """Random transitions by several workers with old and new tokens, against the rules written down plainly."""

        @settings(
            max_examples=self.examples,
            deadline=None,
            suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
        )
        @given(steps=st.lists(STEP, min_size=5, max_size=30))
        def follow(steps: list[Step]) -> None:
            run = uuid.uuid4().hex
            model = JobModel()
            for number, step in enumerate(steps):
                told, expected = _apply(store, model, run, number, step)
                assert told == expected, (number, step)
            for name, expected in model.jobs.items():
                stored = replace(expected, id=f"{run}-{name}", key=f"{run}-{expected.key}")
                assert store.job(stored.id) == stored

        follow()

    # --- races

    def test_each_job_is_claimed_by_one_of_eight_claimers(self, store: Metadata, open_store: Opening) -> None:
        ids = [store.put_job(job())[0].id for _ in range(self.contested)]
        won = in_processes(4, claim_all, [(open_store, ids, f"w{n}") for n in range(8)])
        assert Counter(pair for part in won for pair in part) == Counter((name, 1) for name in ids)
        assert store.job_counts()["running"] == self.contested

    def test_each_abandoned_job_is_claimed_again_by_one(self, store: Metadata) -> None:
        held = [claimed(store) for _ in range(20)]

        def claim_each(worker: int) -> list[Job]:
            found = (claim(store, one.id, at=LATER, lease=12, worker=f"w{worker}") for one in held)
            return [one for one in found if one]

        with ThreadPoolExecutor(6) as pool:
            won = [one for part in pool.map(claim_each, range(6)) for one in part]
        assert sorted(one.id for one in won) == sorted(one.id for one in held)
        assert {one.token for one in won} == {2}

    def test_cancel_and_finish_at_once_agree_on_one_end(self, store: Metadata) -> None:
        for _ in range(15):
            held = claimed(store)
            with ThreadPoolExecutor(2) as pool:
                finishing = pool.submit(store.finish, held.id, held.token, "done", now=NOW)
                cancelling = pool.submit(store.cancel, held.id, now=NOW)
            ended = store.job(held.id)
            assert ended is not None
            assert ended.status == ("done" if finishing.result() else "cancelled")
            assert cancelling.result() == ended

    def test_each_slot_is_taken_by_one_of_five_schedulers(self, store: Metadata, open_store: Opening) -> None:
        slots = [NOW + seconds(300 * n) for n in range(self.contested)]
        won = in_processes(5, take_slots, [(open_store, slots, f"s{n}") for n in range(5)])
        assert Counter(slot for part in won for slot in part) == Counter(slots)
        assert not store.take_slot("watch", slots[0])
        assert store.take_slot("detect", slots[0])

    def test_the_last_slot_of_a_name_is_told(self, store: Metadata) -> None:
        assert store.last_slot("watch") is None
        for slot in (LATER, NOW):
            assert store.take_slot("watch", slot)
        store.take_slot("watches", LATER + seconds(1))
        assert store.last_slot("watch") == LATER
        assert store.last_slot("watches") == LATER + seconds(1)

    def test_old_slots_are_forgotten_with_old_jobs(self, store: Metadata) -> None:
        assert store.take_slot("watch", NOW)
        assert store.take_slot("watch", LATER)
        store.forget_jobs(finished_before=SOON)
        assert not store.take_slot("watch", LATER)
        assert store.take_slot("watch", NOW), "nothing is left of it"


# --- the rules of jobs, written down plainly ------------------------------------------------------------------------


Step = tuple[str, int, int, int]
"""What to do, to which of four keys, with which of the tokens there were (0 the newest), and how much later."""

STEP = st.tuples(
    st.sampled_from(["put", "claim", "renew", "finish", "wait", "requeue", "cancel"]),
    st.integers(0, 3),
    st.sampled_from([0, 0, 0, 1]),
    st.sampled_from([0, 1, 5, 12, 13, 60]),
)


class JobModel:
    """Jobs in a dict. `open` is the job of each key that is not final, `newest` the last one there was."""

    def __init__(self) -> None:
        self.now = NOW
        self.jobs: dict[str, Job] = {}
        self.newest: dict[int, str] = {}

    def put(self, number: int, key: int) -> tuple[str, bool]:
        there = self.newest.get(key)
        if there is not None and self.jobs[there].status not in FINAL:
            return there, False
        new = f"{number}"
        self.jobs[new] = Job(new, "scan", {}, f"{key}", "queued", self.now)
        self.newest[key] = new
        return new, True

    def due(self, one: Job) -> bool:
        if one.status == "waiting":
            return one.not_before is None or one.not_before <= self.now
        return one.status == "running" and one.lease_until is not None and one.lease_until <= self.now

    def claim(self, id: str) -> bool:
        one = self.jobs[id]
        if one.status != "queued" and not self.due(one):
            return False
        self.jobs[id] = replace(
            one,
            status="running",
            token=one.token + 1,
            attempts=one.attempts + 1,
            worker="w1",
            started=self.now,
            lease_until=self.now + seconds(12),
            not_before=None,
            done_steps=0,
            all_steps=None,
            message=None,
        )
        return True

    def change(self, id: str, allowed: bool, **changes: Any) -> bool:
        if allowed:
            self.jobs[id] = replace(self.jobs[id], **changes)
        return allowed

    def ours(self, id: str, token: int) -> bool:
        return self.jobs[id].status == "running" and self.jobs[id].token == token


def _apply(store: Metadata, model: JobModel, run: str, number: int, step: Step) -> tuple[object, object]:
    """Do it to both; what the store said, and what the rules say."""
    action, key, older, later = step
    model.now += seconds(later)
    now = model.now
    if action == "put" or key not in model.newest:
        there, new = store.put_job(
            Job(f"{run}-{number}", "scan", {}, f"{run}-{key}", "queued", now),
        )
        expected, expected_new = model.put(number, key)
        return (there.id, new), (f"{run}-{expected}", expected_new)
    known = model.newest[key]
    name, token = f"{run}-{known}", model.jobs[known].token - older
    ours = model.ours(known, token)
    if action == "claim":
        return claim(store, name, at=now) is not None, model.claim(known)
    if action == "renew":
        told: object = store.renew(
            name, token, lease_until=now + seconds(12), done_steps=number, all_steps=None, message="m"
        )
        return told, model.change(known, ours, lease_until=now + seconds(12), done_steps=number, message="m")
    if action == "finish":
        told = store.finish(name, token, "done", now=now, message="d", result={"n": number})
        done = {"message": "d", "result": {"n": number}, "lease_until": None}
        return told, model.change(known, ours, status="done", finished=now, **done)
    if action == "wait":
        told = store.finish(name, token, "waiting", now=now, not_before=now + seconds(12))
        waiting = {"not_before": now + seconds(12), "lease_until": None, "message": None}
        return told, model.change(known, ours, status="waiting", **waiting)
    if action == "requeue":
        due = model.due(model.jobs[known])
        return store.requeue(name, now=now), model.change(
            known, due, status="queued", lease_until=None, not_before=None
        )
    cancelled = store.cancel(name, now=now)
    open_still = model.jobs[known].status not in FINAL
    model.change(known, open_still, status="cancelled", finished=now, lease_until=None, not_before=None)
    return cancelled and cancelled.status, model.jobs[known].status
