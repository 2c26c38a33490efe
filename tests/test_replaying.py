"""Going on from where an earlier run stood gives what a replay from the beginning gives, to the last bit."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from app.backtest import Rules, deliveries_of
from app.core.amounts import Amounts
from app.core.arrivals import Delivery, SeriesKey
from app.core.charges import Totals
from app.core.ledger import AccountDay, DayRecord
from app.core.ledgerdays import LedgerDay, ledger_day
from app.core.periods import DateRange
from app.core.query import CostQuery
from app.core.replays import DamagedState, Replay, marks
from app.core.rollup import CostFrame
from app.errors import InvalidInput
from app.replaying import EACH_OF, EVERY, ReplayStates, replayed, worth_keeping
from tests.frames import labels_of

FIRST = date(2026, 1, 5)
NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
DAY = timedelta(days=1)
RULES = Rules(min_daily=10.0, min_total=40.0)
SETTLING = timedelta(days=2)
DAYS = 45
KEYS = [(account, service, "eu") for account in ("1", "2") for service in ("Compute", "Logs", "Queue", "Cache")]
Step = tuple[str, int, int, float]
"""What happens, how many days back, to which series, how much."""


@dataclass
class Stored:
    """Days as a store has them now: final amounts [series, day], and what share of a day was reported first."""

    amounts: np.ndarray[Any, np.dtype[np.float64]]
    shares: list[float]
    keys: list[tuple[str, str, str]] = field(default_factory=lambda: list(KEYS))

    def play(self, step: Step) -> None:
        what, back, series, factor = step
        day, series = self.amounts.shape[1] - 1 - back, series % len(self.keys)
        if what == "day":
            fresh = usual(self.amounts.shape[1])[: len(KEYS)]
            more = self.amounts[len(KEYS) :, -1]
            self.amounts = np.hstack([self.amounts, np.concatenate([fresh, more])[:, None]])
            self.shares.append(0.6)
        elif what == "restate":
            self.amounts[series, day] *= factor
        elif what == "level":
            self.amounts[series, day:] *= factor
        elif what == "vanish":
            self.amounts[:, day] = 0
        elif what == "report":
            self.shares[day] = factor / 4
        else:
            # A name before all others: the order of groups is not that of arrival.
            self.keys.append(("0", f"New {len(self.keys)}", "eu"))
            row = np.zeros((1, self.amounts.shape[1]))
            row[0, day:] = 100 * factor
            self.amounts = np.vstack([self.amounts, row])

    def deliveries(self) -> list[Delivery]:
        days = DateRange(FIRST, FIRST + self.amounts.shape[1] * DAY)
        order = np.argsort(-self.amounts.sum(axis=1), kind="stable")
        amounts = self.amounts[order]
        frame = CostFrame(
            CostQuery(days), tuple(days), labels_of([self.keys[place] for place in order]), amounts, amounts != 0,
            Amounts(np.zeros((0, *amounts.shape), np.int64)), np.zeros(len(amounts), np.bool_), None, tuple(days),
        )  # fmt: skip
        return list(deliveries_of(frame, self.known(), days, SETTLING))

    def known(self) -> dict[date, LedgerDay]:
        return {FIRST + place * DAY: reported(FIRST + place * DAY, share) for place, share in enumerate(self.shares)}


def reported(day: date, share: float) -> LedgerDay:
    now, first = totals(100), totals(int(100 * share))
    parts = {name: AccountDay("root/file", "sha", 1, first, now, False, NOON, NOON) for name in ("0", "1", "2")}
    return ledger_day(DayRecord(day, accounts=parts), with_totals=False)


def totals(amount: int) -> Totals:
    return Totals(1, *(Decimal(amount) for _ in range(4)))  # type: ignore[arg-type]


def usual(day: int) -> np.ndarray[Any, np.dtype[np.float64]]:
    """What a day costs when nothing happens."""
    return 100 * np.exp(np.random.default_rng(day).normal(0, 0.03, len(KEYS))) * np.arange(1, len(KEYS) + 1)


def stored(days: int = DAYS) -> Stored:
    return Stored(np.stack([usual(day) for day in range(days)], axis=1), [0.6] * days)


def run(deliveries: list[Delivery], directory: Path, rules: Rules = RULES, *, keep: bool = True) -> Replay:
    return replayed(deliveries, rules, ReplayStates(directory), lambda *_: None, keep=keep)


@pytest.fixture(scope="module")
def nowhere(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("nothing is kept here")


@pytest.fixture(scope="module")
def begun(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The states after a first run over the usual days."""
    run(stored().deliveries(), directory := tmp_path_factory.mktemp("begun"))
    return {path.name: path.read_bytes() for path in directory.iterdir()}


def laid(begun: dict[str, bytes], directory: Path) -> Path:
    directory.mkdir(exist_ok=True)
    for left in directory.iterdir():
        left.unlink()
    for name, state in begun.items():
        (directory / name).write_bytes(state)
    return directory


WHAT = st.sampled_from(["day", "day", "day", "restate", "level", "level", "vanish", "report", "new", "lose", "damage"])
STEPS = st.lists(
    st.tuples(WHAT, st.integers(0, 16), st.integers(0, 30), st.sampled_from([0.0, 0.3, 1.5, 2.0, 3.0])),
    min_size=1,
    max_size=7,
)


@settings(max_examples=12, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(histories=st.lists(STEPS, min_size=1, max_size=3))
def test_any_history_is_judged_as_if_from_the_beginning(
    histories: list[list[Step]], begun: dict[str, bytes], tmp_path: Path, nowhere: Path
) -> None:
    directory, now = laid(begun, tmp_path / "states"), stored()
    for steps in histories:
        for step in steps:
            if step[0] in ("lose", "damage"):
                spoil(directory, step)
            else:
                now.play(step)
        deliveries = now.deliveries()
        again, anew = run(deliveries, directory), run(deliveries, nowhere, keep=False)
        assert again.packed() == anew.packed()
        assert again.findings() == anew.findings()
        assert len(list(directory.iterdir())) <= EACH_OF + len(deliveries) // EVERY


def spoil(directory: Path, step: Step) -> None:
    paths = sorted(directory.iterdir())
    for path in paths[-1 - step[1] :][:2]:
        if step[0] == "lose":
            path.unlink()
        else:
            data = path.read_bytes()
            path.write_bytes(data[: int(len(data) * step[3] / 4)])


def test_something_is_found_in_such_histories(begun: dict[str, bytes], tmp_path: Path) -> None:
    """Or the equality above would be that of nothing."""
    now = stored()
    for step in [("level", 3, 0, 3.0), ("new", 2, 0, 2.0), ("day", 0, 0, 1.0)]:
        now.play(step)
    found = run(now.deliveries(), laid(begun, tmp_path / "states")).findings()
    assert {finding.anomaly.kind for finding in found} == {"rise", "new_cost"}
    assert all(finding.history[-1][1].impact == finding.anomaly.impact for finding in found)


def test_a_new_day_costs_the_days_it_changed(begun: dict[str, bytes], tmp_path: Path) -> None:
    directory, now = laid(begun, tmp_path / "states"), stored()
    assert run(now.deliveries(), directory).resumed == DAYS, "nothing is new"
    now.play(("day", 0, 0, 1.0))
    assert run(now.deliveries(), directory).resumed == DAYS
    now.play(("day", 0, 0, 1.0))
    now.play(("restate", 2, 3, 1.1))
    assert run(now.deliveries(), directory).resumed == DAYS - 1, "back to before the day that was restated"
    now.play(("restate", 30, 3, 1.1))
    assert run(now.deliveries(), directory).resumed == (DAYS + 1 - 30) // EVERY * EVERY, "a week more than that day"


def test_other_rules_and_other_methods_conclude_anew(
    begun: dict[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory, deliveries = laid(begun, tmp_path / "states"), stored().deliveries()
    assert run(deliveries, directory, Rules(11.0, 40.0), keep=False).resumed == 0
    assert run(deliveries, directory, Rules(None, None), keep=False).resumed == 0
    assert run(deliveries, directory, keep=False).resumed == DAYS
    monkeypatch.setattr("app.replaying.method", lambda: "that of another release")
    assert run(deliveries, directory).resumed == 0
    assert begun.keys().isdisjoint(path.name for path in directory.iterdir()), "what nobody can use is dropped"


def test_a_look_into_the_past_uses_what_is_kept_and_leaves_it(begun: dict[str, bytes], tmp_path: Path) -> None:
    directory = laid(begun, tmp_path / "states")
    assert run(stored().deliveries()[:-4], directory, keep=False).resumed == DAYS - 4
    assert {path.name: path.read_bytes() for path in directory.iterdir()} == begun


def test_what_is_damaged_is_said_and_judged_again(
    begun: dict[str, bytes], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    directory = laid(begun, tmp_path / "states")
    newest = max(directory.iterdir())
    newest.write_bytes(begun[newest.name][:-200])
    assert run(stored().deliveries(), directory).resumed == DAYS - 1
    assert f"until {FIRST + (DAYS - 1) * DAY} is damaged" in caplog.text
    assert newest.read_bytes() == begun[newest.name], "and made again"


def test_a_state_of_other_deliveries_is_not_taken(begun: dict[str, bytes]) -> None:
    newest = begun[max(begun)]
    for other in (stored().deliveries()[:-1], stored(DAYS + 1).deliveries()):
        with pytest.raises(DamagedState, match="other deliveries"):
            Replay(min_daily=10.0, min_total=40.0).resume(newest, other)
    with pytest.raises(DamagedState):
        Replay().resume(b"", stored().deliveries())


@pytest.mark.parametrize("what", ["a file is in the way", "it cannot be read"])
def test_a_directory_that_cannot_be_used_costs_time_only(
    tmp_path: Path, what: str, nowhere: Path, caplog: pytest.LogCaptureFixture
) -> None:
    directory, deliveries = tmp_path / "states", stored(35).deliveries()
    if what == "a file is in the way":
        directory.write_text("not a directory")
    else:
        directory.mkdir()
        last = list(marks_of(deliveries))[-1]
        (directory / f"{last}.state").mkdir()
    assert run(deliveries, directory).packed() == run(deliveries, nowhere, keep=False).packed()
    assert "cannot be" in caplog.text


def marks_of(deliveries: list[Delivery]) -> Iterator[str]:
    from app.replaying import method

    return marks(f"{method()} {RULES.min_daily!r} {RULES.min_total!r}", deliveries)


def test_a_mark_stands_for_every_bit_before_it() -> None:
    now = stored(6)
    before = list(marks("x", now.deliveries()))
    assert list(marks("x", now.deliveries())) == before
    assert set(marks("y", now.deliveries())).isdisjoint(before)
    now.amounts[3, 3] = np.nextafter(now.amounts[3, 3], np.inf)
    after = list(marks("x", now.deliveries()))
    assert [mine == theirs for mine, theirs in zip(before, after, strict=True)] == [True] * 3 + [False] * 3


def test_a_mark_tells_whose_figures_they_are() -> None:
    def mark(*keys: SeriesKey) -> str:
        days = np.array([FIRST] * len(keys), "datetime64[D]")
        return next(marks("x", [Delivery(FIRST, keys, np.arange(len(keys)), days, np.ones(len(keys)))]))

    one, other = SeriesKey("a", "b", "c"), SeriesKey("a", 'b", "c', "")
    assert len({mark(one), mark(other), mark(one, other), mark(other, one)}) == 4


def test_only_so_much_is_kept() -> None:
    for number in (1, 7, 100, 430):
        kept = worth_keeping(number)
        assert number - 1 in kept
        assert max(kept) < number
        assert len(kept) <= EACH_OF + number // EVERY
    # What will be wanted tomorrow was kept today.
    assert worth_keeping(101) - worth_keeping(100) == {100}


def test_too_many_series_are_refused(begun: dict[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.replaying.MOST_SERIES", 3)
    with pytest.raises(InvalidInput, match="More than 3"):
        run(stored(30).deliveries(), tmp_path / "states")
