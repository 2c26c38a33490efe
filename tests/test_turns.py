"""Several processes that share the tests out: who measures is alone, and what goes wrong in one of them is told."""

from __future__ import annotations

import fcntl
import json
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest

from tests.forking import context
from tests.turns import Turns, processes

ROOT = Path(__file__).parent.parent


# --- the locks


def go_in(folder: Path, alone: bool, said: Any, out: Any) -> None:
    """Say when it is in, and leave when told to."""
    turns = Turns(folder)
    turns.enter(alone=alone)
    said.put(alone)
    out.wait(60)
    turns.leave()


def die_inside(folder: Path) -> None:
    Turns(folder).enter(alone=True)
    os.kill(os.getpid(), signal.SIGKILL)


def door_is_held(turns: Turns) -> bool:
    with suppress(BlockingIOError):
        fcntl.lockf(turns._door, fcntl.LOCK_EX | fcntl.LOCK_NB)
        fcntl.lockf(turns._door, fcntl.LOCK_UN)
        return False
    return True


def test_who_waits_to_be_alone_is_not_overtaken(tmp_path: Path) -> None:
    here, said, out = Turns(tmp_path), context().SimpleQueue(), context().Event()
    here.enter(alone=False)
    first = context().Process(target=go_in, args=(tmp_path, True, said, out))
    first.start()
    while not door_is_held(here):
        assert first.is_alive()
        time.sleep(0.01)
    late = context().Process(target=go_in, args=(tmp_path, False, said, out))
    late.start()
    late.join(0.5)
    assert said.empty(), "neither beside this one, nor past the one that waits"
    here.leave()
    assert said.get() is True
    late.join(0.3)
    assert said.empty(), "the first one is alone"
    out.set()
    assert said.get() is False
    first.join(60)
    late.join(60)
    here.close()


def test_others_go_in_together(tmp_path: Path) -> None:
    here, said, out = Turns(tmp_path), context().SimpleQueue(), context().Event()
    here.enter(alone=False)
    other = context().Process(target=go_in, args=(tmp_path, False, said, out))
    other.start()
    assert said.get() is False
    out.set()
    other.join(60)
    here.close()


def test_one_that_is_killed_gives_its_turn_up(tmp_path: Path) -> None:
    dying = context().Process(target=die_inside, args=(tmp_path,))
    dying.start()
    dying.join(60)
    assert dying.exitcode == -signal.SIGKILL
    here = Turns(tmp_path)
    here.enter(alone=True)
    here.close()


@pytest.mark.parametrize(("cores", "count"), [(1, 2), (2, 3), (3, 4), (64, 4)])
def test_there_is_one_process_more_than_cores(cores: int, count: int) -> None:
    assert processes(cores) == count


@pytest.mark.parametrize(("said", "count"), [("", processes(len(os.sched_getaffinity(0)))), ("1", 1), ("7", 7)])
def test_the_suite_asks_for_as_many(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, said: str, count: int
) -> None:
    monkeypatch.setenv("PYTEST_XDIST_AUTO_NUM_WORKERS", said)
    assert request.config.hook.pytest_xdist_auto_num_workers(config=request.config) == count


# --- whole runs


def ran(folder: Path, tests: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """pytest over a file with these tests, in three processes, as `make test` on two cores calls it."""
    (folder / "test_it.py").write_text(dedent(tests))
    (folder / "pytest.ini").write_text("[pytest]\nmarkers = alone\nfilterwarnings = error\naddopts = -ra\n")
    plugins = ["-p", "xdist", "-p", "tests.turns", "-p", "no:cacheprovider"]
    return subprocess.run(
        [sys.executable, "-m", "pytest", *plugins, "-n", "3", "--dist", "worksteal", *arguments, str(folder)],
        cwd=ROOT, env={**os.environ, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}, capture_output=True, text=True, timeout=120,
    )  # fmt: skip


def test_in_a_run_of_three_processes_those_that_measure_are_alone(tmp_path: Path) -> None:
    tests = f"""
        import json, os, time
        import pytest

        def spend(alone):
            began = time.monotonic()
            time.sleep(0.05)
            with open({str(tmp_path / "times")!r}, "a") as out:
                out.write(json.dumps([alone, os.getpid(), began, time.monotonic()]) + "\\n")

        @pytest.mark.parametrize("n", range(15))
        def test_one(n):
            spend(False)

        @pytest.mark.alone
        @pytest.mark.parametrize("n", range(3))
        def test_measures(n):
            spend(True)

        @pytest.mark.parametrize("n", range(15))
        def test_another(n):
            spend(False)
        """
    done = ran(tmp_path, tests)
    assert done.returncode == 0, done.stdout + done.stderr
    times = [json.loads(line) for line in (tmp_path / "times").read_text().splitlines()]
    together = [
        (one, other)
        for n, one in enumerate(times)
        for other in times[n + 1 :]
        if one[2] < other[3] and other[2] < one[3]
    ]
    assert len(times) == 33
    assert len({process for _, process, _, _ in times}) == 3
    assert together, "several processes work at once"
    assert not [pair for pair in together if pair[0][0] or pair[1][0]]


def test_a_process_that_dies_a_warning_and_what_is_skipped_are_told(tmp_path: Path) -> None:
    tests = """
        import os, warnings
        import pytest

        @pytest.mark.parametrize("n", range(20))
        def test_one(n):
            pass

        def test_dies():
            os._exit(0)

        def test_warns():
            warnings.warn("old")

        @pytest.mark.skip(reason="the moon is needed")
        def test_skipped():
            pass

        @pytest.mark.parametrize("n", range(20))
        def test_another(n):
            pass
        """
    done = ran(tmp_path, tests)
    assert done.returncode == 1, done.stdout + done.stderr
    assert "crashed while running" in done.stdout
    assert "test_it.py::test_dies" in done.stdout
    assert "UserWarning: old" in done.stdout
    assert "the moon is needed" in done.stdout
    assert "2 failed, 40 passed, 1 skipped" in done.stdout.splitlines()[-1]
