"""ports.CostStore on Parquet, and what only files can get wrong: torn reads, killed writers, damage, full disks."""

from __future__ import annotations

import itertools
import os
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterable
from datetime import date, datetime, timedelta
from decimal import Decimal
from pathlib import Path

import pytest

from app.adapters import parquet
from app.adapters.parquet import KEEP_SECONDS, ParquetCostStore
from app.errors import CannotStart, Conflict, Unavailable
from app.ports import CostStore, StoredDay
from tests.contracts.cost_store import (
    DAY,
    NEXT,
    Charges,
    CostStoreContract,
    Subject,
    charges_of,
    history_machine,
    key,
    table,
    values,
    whole,
)

ROOT = Path(__file__).parent.parent.parent


class Files:
    """A store in a directory."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.store = self.other()
        self.store.prepare()

    def other(self) -> ParquetCostStore:
        return ParquetCostStore(self.root, retention_days=0)

    def take(self, day: date, accounts: Iterable[str], charges: Charges) -> StoredDay:
        stored = self.store.replace(day, frozenset(accounts), table(charges))
        self.store.publish(day)
        return stored

    def names(self, pattern: str) -> list[str]:
        return sorted(str(path.relative_to(self.root)) for path in self.root.glob(pattern))


@pytest.fixture
def files(tmp_path: Path) -> Files:
    return Files(tmp_path / "store")


class TestParquetCostStore(CostStoreContract):
    @pytest.fixture
    def subject(self, files: Files) -> Subject:
        return files

    @pytest.fixture
    def bounded(self, tmp_path: Path) -> Callable[[int, datetime], CostStore]:
        def opened(retention_days: int, now: datetime) -> CostStore:
            store = ParquetCostStore(tmp_path / "bounded", retention_days=retention_days, now=lambda: now)
            store.prepare()
            return store

        return opened


def close(subject: Subject) -> None:
    assert isinstance(subject, Files)
    shutil.rmtree(subject.root)


TestHistories = history_machine(lambda: Files(Path(tempfile.mkdtemp())), close, examples=25, steps=12)


def test_stored_days_are_what_the_ledger_can_be_repaired_from(files: Files) -> None:
    given = {key("a"): values("1.10", None), key("b"): values("-0.00000000000000000001")}
    files.take(NEXT, {"a", "b"}, given)
    files.take(DAY, set(), {})
    stored = files.other().stored_days()
    assert list(stored) == [DAY, NEXT]
    assert stored[DAY].accounts == {}
    assert stored[NEXT].accounts["a"].amortized_cost == Decimal("1.10")
    assert stored[NEXT].accounts["a"].blended_cost is None
    assert stored[NEXT].accounts["b"].amortized_cost == Decimal("-0.00000000000000000001")


def test_every_change_moves_the_version_and_the_same_does_not(files: Files) -> None:
    seen = [files.store.rollup().version]
    for charges in ({key(): values("1")}, {key(): values("1")}, {key(service="X"): values("1")}, {}, {}):
        files.take(DAY, {"111111111111"}, charges)
        seen.append(files.store.rollup().version)
    steps = [after - before for before, after in itertools.pairwise(seen)]
    assert steps == [1, 0, 1, 1, 0]


def test_the_rollup_opens_only_months_that_changed(files: Files) -> None:
    september = date(2026, 9, 1)
    for day in (september, DAY):
        files.take(day, {"a"}, {key("a"): values("1")})
    before = files.store.rollup().months
    files.take(DAY, {"a"}, {key("a"): values("2")})
    after = files.store.rollup().months
    assert before[0] is after[0]
    assert before[1] is not after[1]
    assert files.store.rollup() is files.store.rollup()


@pytest.mark.alone
def test_asking_for_the_rollup_again_costs_next_to_nothing(files: Files) -> None:
    files.take(DAY, {"a"}, {key("a"): values("1")})
    store = files.other()
    store.rollup()

    def once() -> float:
        start = time.perf_counter()
        for _ in range(200):
            store.rollup()
        return (time.perf_counter() - start) / 200

    assert min(once() for _ in range(10)) < 50e-6


def test_threads_read_while_one_writes(files: Files) -> None:
    files.take(DAY, {"a"}, {key("a", f"S{n}"): values("1") for n in range(50)})
    seen: set[object] = set()
    stop = threading.Event()

    def read() -> None:
        while not stop.is_set():
            frame = files.store.rollup().frame(whole(DAY).grouped("service"))
            seen.add((len(frame.groups), frame.total))

    readers = [threading.Thread(target=read) for _ in range(3)]
    for reader in readers:
        reader.start()
    for turn in range(1, 15):
        files.take(DAY, {"a"}, {key("a", f"S{n}"): values(str(turn)) for n in range(50 + turn % 3)})
    stop.set()
    for reader in readers:
        reader.join()
    allowed = {(50, Decimal(50))} | {(50 + turn % 3, Decimal((50 + turn % 3) * turn)) for turn in range(1, 15)}
    assert seen <= allowed
    assert len(seen) > 1


WRITER = """
import sys, itertools
from datetime import date
from pathlib import Path
sys.path.insert(0, {root!r})
from app.adapters.parquet import ParquetCostStore
from tests.contracts.cost_store import key, table, values
store = ParquetCostStore(Path({store!r}), retention_days=0)
for turn in itertools.count(int(sys.argv[1])):
    rows = 40 + turn % 7
    charges = {{key("a", f"S{{n}}"): values(str(turn)) for n in range(rows)}}
    store.replace(date(2026, 10, 14), frozenset({{"a"}}), table(charges))
    print(turn, flush=True)
"""


def writer(files: Files, first: int) -> subprocess.Popen[str]:
    """A process that restates DAY for ever: turn t has 40 + t % 7 rows of t each; it prints each turn when it is done."""
    code = WRITER.format(root=str(ROOT), store=str(files.root))
    return subprocess.Popen([sys.executable, "-c", code, str(first)], stdout=subprocess.PIPE, text=True)


def turn_of(rows: int, total: Decimal | None) -> int:
    """Which turn of the writer this is; fails when it is none, or a mixture of two."""
    assert total is not None
    turn = total / rows
    assert turn == int(turn)
    assert rows == 40 + int(turn) % 7
    return int(turn)


def seen_turn(store: ParquetCostStore) -> int:
    frame = store.rollup().frame(whole(DAY).grouped("service"))
    assert len(set(frame.group_totals)) == 1
    return turn_of(len(frame.groups), frame.total)


def test_a_reader_in_another_process_never_sees_half_a_day(files: Files) -> None:
    process = writer(files, 1)
    assert process.stdout is not None
    try:
        done = int(process.stdout.readline())
        newest = 0
        while newest < done + 25:
            turn = seen_turn(files.store)
            assert turn >= newest, "a reader went back in time"
            newest = turn
            stored = charges_of(files.store.day(DAY))
            turn_of(len(stored), sum((v[0] for _, v in stored if v[0] is not None), Decimal(0)))
    finally:
        process.kill()
        process.communicate()


def test_a_killed_writer_leaves_a_whole_day_and_loses_nothing_it_said_was_done(files: Files) -> None:
    draw, done = random.Random(5), 0
    for _ in range(5):
        process = writer(files, done + 1)
        assert process.stdout is not None
        done = int(process.stdout.readline())
        time.sleep(draw.uniform(0, 0.15))
        process.send_signal(signal.SIGKILL)
        said, _ = process.communicate()
        done = int(said.split()[-1]) if said.split() else done
        reopened = files.other()
        reopened.prepare()
        turn = seen_turn(reopened)
        assert done <= turn <= done + 1
        totals = reopened.stored_days()[DAY].accounts["a"]
        assert turn_of(totals.rows, totals.amortized_cost) == turn
        assert len(charges_of(reopened.day(DAY))) == totals.rows
        done = turn
    assert files.take(DAY, {"a"}, {key("a"): values("1")}).accounts["a"].amortized_cost == 1


def test_what_reads_back_differently_keeps_the_old_day(files: Files, monkeypatch: pytest.MonkeyPatch) -> None:
    files.take(DAY, {"a"}, {key("a"): values("1")})
    before = files.names("*/**/*.*"), files.store.rollup().version
    honest = parquet.narrowed

    def tampered(charges: object, columns: object) -> object:
        found = honest(charges, columns)  # type: ignore[arg-type]
        place = found.schema.get_field_index("amortized_cost")
        one = found["amortized_cost"].cast("double").to_numpy() + 0.01
        return found.set_column(place, "amortized_cost", [one]).cast(found.schema)

    monkeypatch.setattr(parquet, "narrowed", tampered)
    with pytest.raises(Conflict, match="reads back differently"):
        files.take(DAY, {"a"}, {key("a"): values("2")})
    assert (files.names("*/**/*.*"), files.store.rollup().version) == before
    assert files.store.rollup().frame(whole(DAY)).total == 1


@pytest.mark.parametrize("step", ["_commit", "_retire", "_sweep"])
def test_a_crash_after_the_files_are_written_leaves_the_old_day_or_the_new(
    files: Files, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    class Killed(BaseException):
        pass

    def die(*_: object) -> None:
        raise Killed

    files.take(DAY, {"a"}, {key("a"): values("1")})
    monkeypatch.setattr(ParquetCostStore, step, die)
    with pytest.raises(Killed):
        files.take(DAY, {"a"}, {key("a"): values("2")})
    monkeypatch.undo()
    reopened = files.other()
    reopened.prepare()
    assert reopened.rollup().frame(whole(DAY)).total == (1 if step == "_commit" else 2)
    assert charges_of(reopened.day(DAY)) == [(key("a"), values("1" if step == "_commit" else "2"))]
    files.take(DAY, {"a"}, {key("a"): values("3")})
    assert files.store.rollup().frame(whole(DAY)).total == 3


def test_old_files_stay_for_ten_minutes_then_go(tmp_path: Path) -> None:
    clock = [time.time()]
    files = Files(tmp_path / "store")
    files.store = ParquetCostStore(files.root, retention_days=0, file_clock=lambda: clock[0])
    for amount in ("1", "2"):
        files.take(DAY, {"a"}, {key("a"): values(amount)})
    litter = files.root / "days" / str(DAY) / "killed.parquet"
    litter.write_bytes(b"half")
    assert len(files.names("days/*/*")) == 3
    assert len(files.names("months/*")) == 2
    clock[0] += KEEP_SECONDS - 60
    files.take(DAY, {"a"}, {key("a"): values("3")})
    assert len(files.names("days/*/*")) == 4
    clock[0] += 120
    files.store.prepare()
    assert len(files.names("days/*/*")) == 2, "the current one, and the one that was current two minutes ago"
    assert len(files.names("months/*")) == 2
    clock[0] += KEEP_SECONDS
    files.take(NEXT, {"a"}, {key("a"): values("3")})
    files.store.prepare()
    assert len(files.names("days/*/*")) == 2
    assert files.store.rollup().frame(whole(DAY, NEXT)).total == 6


def test_a_reader_that_listed_files_before_they_were_swept_looks_again(files: Files) -> None:
    files.take(DAY, {"a"}, {key("a"): values("1")})
    reader = files.other()
    listed, calls = reader._listed, []

    def late() -> tuple[int, list[str]]:
        found = listed()
        if not calls:
            calls.append(found)
            files.take(DAY, {"a"}, {key("a"): values("2")})
            (files.root / found[1][0]).unlink()
        return found

    reader._listed = late  # type: ignore[method-assign]
    assert reader.rollup().frame(whole(DAY)).total == 2


@pytest.mark.parametrize("damage", ["gone", "cut", "flipped", "header", "empty"])
def test_a_damaged_month_is_built_again_from_the_charges(files: Files, damage: str) -> None:
    files.take(DAY, {"a"}, {key("a", f"S{n}"): values("1.000000000000000001") for n in range(100)})
    files.take(NEXT, {"b"}, {key("b"): values("1", None)})
    version, (name,) = files.store._listed()
    path = files.root / name
    data = bytearray(path.read_bytes())
    if damage == "flipped":
        data[24 + int.from_bytes(data[8:16], "little")] ^= 1
    elif damage == "header":
        data[30] ^= 1
    path.unlink()
    if damage != "gone":
        path.write_bytes({"cut": data[:-64], "empty": b""}.get(damage, data))
    if damage in ("cut", "header", "empty"):
        with pytest.raises(Unavailable, match="Start Spendscope again"):
            files.other().rollup()
    reopened = files.other()
    reopened.prepare()
    frame = reopened.rollup().frame(whole(DAY, NEXT).grouped("account"))
    assert dict(zip(frame.groups, frame.group_totals, strict=True)) == {
        ("a",): Decimal("100.0000000000000001"),
        ("b",): 1,
    }
    assert reopened.rollup().version > version, "readers that have the damaged one look again"


def test_a_damaged_month_does_not_stop_a_day_from_being_taken(files: Files) -> None:
    files.take(DAY, {"a"}, {key("a"): values("1")})
    (files.root / files.store._listed()[1][0]).write_bytes(b"damaged")
    other = files.other()
    other.replace(NEXT, frozenset({"a"}), table({key("a"): values("2")}))
    assert other.rollup().frame(whole(DAY, NEXT)).amounts.tolist() == [[1, 2]]


def test_a_flipped_bit_in_a_day_is_found_and_the_same_file_mends_it(files: Files) -> None:
    given = {key("a", f"S{n}"): values(f"{n}.5") for n in range(500)}
    files.take(DAY, {"a"}, given)
    (name,) = files.names("days/*/*")
    data = bytearray((files.root / name).read_bytes())
    data[len(data) // 2] ^= 1
    (files.root / name).write_bytes(data)
    with pytest.raises(Unavailable, match=rf"{DAY}.*damaged"):
        files.store.day(DAY)
    with pytest.raises(Unavailable, match="damaged"):
        files.take(DAY, {"b"}, {key("b"): values("1")})
    files.take(DAY, {"a"}, given)
    assert dict(charges_of(files.store.day(DAY))) == given


def test_a_full_disk_keeps_the_old_day_and_says_so(files: Files) -> None:
    code = f"""
import resource, signal, sys
sys.path.insert(0, {str(ROOT)!r})
from datetime import date
from pathlib import Path
from app.adapters.parquet import ParquetCostStore
from app.errors import Unavailable
from tests.contracts.cost_store import key, table, values
store = ParquetCostStore(Path({str(files.root)!r}), retention_days=0)
charges = table({{key("a", f"S{{n}}"): values(str(n * 7919 % 9973)) for n in range(20000)}})
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
try:
    store.replace(date(2026, 10, 14), frozenset({{"a"}}), charges)
except Unavailable as error:
    print(error.part, error.message)
"""
    files.take(DAY, {"a"}, {key("a"): values("1")})
    before = files.names("*/**/*.*")
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert shown.stdout.startswith("costs ")
    assert "cannot be written" in shown.stdout
    assert files.names("*/**/*.*") == before
    assert files.other().rollup().frame(whole(DAY)).total == 1


def test_two_writers_take_turns(files: Files) -> None:
    def restate(account: str) -> None:
        store = files.other()
        for turn in range(1, 8):
            store.replace(DAY, frozenset({account}), table({key(account): values(str(turn))}))

    threads = [threading.Thread(target=restate, args=(name,)) for name in ("a", "b", "c")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    frame = files.store.rollup().frame(whole(DAY).grouped("account"))
    assert dict(zip(frame.groups, frame.group_totals, strict=True)) == {("a",): 7, ("b",): 7, ("c",): 7}


def test_a_store_of_a_newer_format_is_refused(files: Files) -> None:
    with sqlite3.connect(files.root / "manifest.sqlite") as connection:
        connection.execute("PRAGMA user_version = 99")
    connection.close()
    with pytest.raises(CannotStart, match="format 99"):
        files.other().prepare()


def test_a_directory_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(CannotStart, match=r"file/store.*SPENDSCOPE_DATA_DIR"):
        ParquetCostStore(tmp_path / "file" / "store", retention_days=0).prepare()


def test_before_it_is_prepared_it_is_unavailable(tmp_path: Path) -> None:
    store = ParquetCostStore(tmp_path / "none", retention_days=0)
    for ask in (store.check, store.rollup, store.stored_days):
        with pytest.raises(Unavailable, match="none"):
            ask()


def test_a_connection_does_not_survive_a_fork(files: Files) -> None:
    files.take(DAY, {"a"}, {key("a"): values("1")})
    mine = files.store._connection()
    child = os.fork()
    if not child:
        os._exit(0 if files.store._connection() is not mine else 1)
    assert os.waitpid(child, 0)[1] == 0


def test_narrow_and_wide_amounts_live_in_one_day(files: Files) -> None:
    """Where values fit, decimals are kept in 64 bits; what they are does not change."""
    given = {
        key("a", "Narrow"): values("999999.999999999999", "-999999.999999999999", "1"),
        key("a", "Wide"): values("1", "1", "1000000", "0.0000000000001"),
    }
    files.take(DAY, {"a"}, given)
    assert dict(charges_of(files.store.day(DAY))) == given


def test_a_month_that_was_restated_often_equals_one_built_at_once(files: Files) -> None:
    draw = random.Random(2)
    for turn in range(12):
        day = DAY + timedelta(days=turn % 4)
        files.take(day, {"a"}, {key("a", f"S{draw.randrange(30)}"): values(str(draw.randrange(99))) for _ in range(12)})
    fresh = Files(files.root.parent / "fresh")
    for turn in range(4):
        day = DAY + timedelta(days=turn)
        fresh.take(day, {"a"}, dict(charges_of(files.store.day(day))))
    query = whole(DAY, DAY + timedelta(days=3)).grouped("service")
    one, other = files.store.rollup().frame(query), fresh.store.rollup().frame(query)
    assert (one.groups, one.group_totals, one.amounts.tolist()) == (
        other.groups,
        other.group_totals,
        other.amounts.tolist(),
    )
    widths = [[grid.width for grid in each.store.rollup().months[0].grids] for each in (files, fresh)]
    assert widths[0] == widths[1], "columns that vanished are forgotten"


def test_web_processes_need_no_columnar_engine() -> None:
    code = "import app.adapters.parquet, app.gridfile, sys; print('pyarrow' in sys.modules)"
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    assert shown.stdout.strip() == "False"


# --- forgetting ------------------------------------------------------------------------------------------------------

AUTUMN = [date(2026, 9, 1) + timedelta(days=n) for n in range(75)]


def autumn(files: Files) -> None:
    for number, day in enumerate(AUTUMN):
        files.take(day, {"a"}, {key("a", f"S{number % 3}"): values(f"{number}.5", None)})


def total_of(store: CostStore, first: date, last: date) -> Decimal | None:
    return store.rollup().frame(whole(first, last)).total


@pytest.mark.parametrize("before", [date(2026, 10, 1), date(2026, 10, 17), AUTUMN[0], AUTUMN[-1] + timedelta(days=1)])
def test_forgotten_days_are_gone_and_the_others_are_as_they_were(files: Files, before: date) -> None:
    autumn(files)
    version = files.store.rollup().version
    gone = files.store.forget(before)
    assert list(gone) == [day for day in AUTUMN if day < before]
    left = [day for day in AUTUMN if day >= before]
    for store in (files.store, files.other()):
        assert list(store.stored_days()) == list(store.rollup().days) == left
        assert store.rollup().version == version + bool(gone)
        assert total_of(store, AUTUMN[0], AUTUMN[-1]) == (
            sum(Decimal(f"{number}.5") for number, day in enumerate(AUTUMN) if day >= before) if left else None
        )
        for day in AUTUMN:
            assert len(charges_of(store.day(day))) == (day >= before)
    assert list(files.store.forget(before)) == []
    assert files.store.rollup().version == version + bool(gone)
    files.store.prepare()
    assert list(files.store.rollup().days) == left


def test_a_forgotten_day_can_come_back_and_its_month_goes_on(files: Files) -> None:
    autumn(files)
    files.store.forget(date(2026, 10, 17))
    files.take(date(2026, 10, 16), {"a"}, {key("a"): values("1000")})
    files.take(date(2026, 10, 17), {"a"}, {key("a"): values("2000")})
    assert total_of(files.other(), date(2026, 10, 1), date(2026, 10, 17)) == 3000


def test_a_reader_with_the_old_manifest_still_finds_its_files_and_they_go_later(files: Files) -> None:
    autumn(files)
    clock = [time.time()]
    store = ParquetCostStore(files.root, retention_days=0, file_clock=lambda: clock[0])
    old = files.store.rollup()
    parquets = len(files.names("days/*/*.parquet"))
    store.forget(date(2026, 10, 17))
    assert old.frame(whole(AUTUMN[0], AUTUMN[1])).total == 2
    assert len(files.names("days/*/*.parquet")) == parquets
    clock[0] += KEEP_SECONDS + 1
    store.forget(date(2026, 10, 17))
    assert len(files.names("days/*/*.parquet")) == len([day for day in AUTUMN if day >= date(2026, 10, 17)])
    assert len(files.names("months/*.grids")) == 2
    assert list(files.other().rollup().days) == [day for day in AUTUMN if day >= date(2026, 10, 17)]


def test_killed_before_the_manifest_changes_nothing_is_forgotten(files: Files, monkeypatch: pytest.MonkeyPatch) -> None:
    autumn(files)

    class Killed(BaseException):
        pass

    def die(*_: object) -> None:
        raise Killed

    monkeypatch.setattr(ParquetCostStore, "_transaction", die)
    with pytest.raises(Killed):
        files.store.forget(date(2026, 10, 17))
    monkeypatch.undo()
    assert list(files.other().rollup().days) == AUTUMN
    files.store.forget(date(2026, 10, 17))
    assert list(files.other().rollup().days) == [day for day in AUTUMN if day >= date(2026, 10, 17)]


def test_a_damaged_month_is_built_from_the_charges_that_are_left(files: Files) -> None:
    autumn(files)
    for path in files.root.glob("months/2026-10.*.grids"):
        path.write_bytes(b"damaged")
    other = files.other()
    other.forget(date(2026, 10, 17))
    expected = sum(Decimal(f"{n}.5") for n, day in enumerate(AUTUMN) if date(2026, 10, 17) <= day < date(2026, 11, 1))
    assert total_of(files.other(), date(2026, 10, 1), date(2026, 10, 31)) == expected
