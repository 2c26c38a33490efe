"""`spendscope up` as a user meets it: real processes, a real Redis, a real browserless HTTP client."""

from __future__ import annotations

import http.client
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
REAL = ROOT.parent / "shared/data/real/costs"
COMMAND = [sys.executable, "-m", "app.cli"]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def environment(data_dir: Path, **settings: str) -> dict[str, str]:
    clean = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("SPENDSCOPE_", "REDIS_", "MONGODB_", "INFLUXDB_"))
    }
    return {
        **clean,
        "PYTHONPATH": str(ROOT),
        "SPENDSCOPE_DATA_DIR": str(data_dir),
        "SPENDSCOPE_DEMO_DAYS": "40",
        "SPENDSCOPE_WEB_PROCESSES": "1",
        **settings,
    }


def run(arguments: list[str], given: dict[str, str], seconds: float = 90) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*COMMAND, *arguments], env=given, capture_output=True, text=True, timeout=seconds)


@contextmanager
def running(given: dict[str, str], *arguments: str) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """`up` once it said it is ready, and its port; stopped by SIGINT at the end."""
    port = free_port()
    data_dir = Path(given["SPENDSCOPE_DATA_DIR"])
    data_dir.mkdir(parents=True, exist_ok=True)
    with (data_dir / "stderr").open("a") as stderr:
        process = subprocess.Popen(
            [*COMMAND, "up", "--port", str(port), *arguments],
            env=given,
            stdout=subprocess.PIPE,
            stderr=stderr,
            text=True,
            start_new_session=True,
        )
    try:
        assert process.stdout is not None
        while "ready" not in (line := process.stdout.readline()):
            assert line, "it ended before it was ready"
        assert f"http://127.0.0.1:{port}" in line
        yield process, port
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGINT)
            process.wait(40)
        process.stdout.close()


def get(port: int, path: str, headers: dict[str, str] | None = None) -> tuple[int, str]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    connection.request("GET", path, headers=headers or {})
    answer = connection.getresponse()
    body = answer.read().decode()
    connection.close()
    return answer.status, body


def until(port: int, path: str, wanted: str, seconds: float = 60) -> str:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        body = get(port, path)[1]
        if wanted in body:
            return body
        time.sleep(0.3)
    raise AssertionError(f"{wanted!r} did not appear in {path}: {body[:500]}")


def processes_of(data_dir: Path) -> list[str]:
    """Command lines of living processes that belong to this data directory."""
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        try:
            surroundings = (path / "environ").read_bytes() + (path / "cmdline").read_bytes()
            state = (path / "stat").read_text().rsplit(")", 1)[1].split()[0]
        except OSError:
            continue
        if str(data_dir).encode() in surroundings and state != "Z" and int(path.name) != os.getpid():
            found.append((path / "cmdline").read_text().replace("\0", " "))
    return found


@pytest.mark.slow
def test_the_sample_is_served_stopped_cleanly_and_kept(tmp_path: Path) -> None:
    given = environment(tmp_path)
    with running(given) as (process, port):
        assert get(port, "/healthz")[0] == 200
        assert until(port, "/readyz", '"ready"') or True
        status, page = get(port, "/")
        assert status == 200
        assert "Spendscope" in page
        assert run(["up", "--port", str(free_port())], given).returncode == 2, "the data directory is in use"
        done = run(["ingest", "--wait"], given)
        assert done.returncode == 0, done.stdout + done.stderr
        assert processes_of(tmp_path)
        said = (tmp_path / "stderr").read_text()
        assert "new files" in said
        assert len(said.splitlines()) < 10, "not a line a file"
    assert process.returncode == 0
    assert processes_of(tmp_path) == []
    assert not (tmp_path / "lock").exists()
    began = time.monotonic()
    with running(given) as (process, port):
        assert time.monotonic() - began < 30
        shown = json.loads(get(port, "/api/v1/ingestions?limit=1")[1])
        assert shown["items"], "the data stayed"
        process.send_signal(signal.SIGTERM)
        assert process.wait(40) == 0
    assert processes_of(tmp_path) == []


@pytest.mark.slow
def test_a_killed_launcher_leaves_nothing_running(tmp_path: Path) -> None:
    with running(environment(tmp_path, SPENDSCOPE_LOG_FORMAT="json")) as (process, port):
        assert get(port, "/api/v1/nothing?token=canary", {"X-Request-Id": "caller-0123"})[0] == 404
        records = [json.loads(line) for line in (tmp_path / "stderr").read_text().splitlines()]
        (told,) = [record for record in records if record.get("request_id") == "caller-0123"]
        assert (told["route"], told["status"]) == ("/api/<path:rest>", 404)
        assert "canary" not in str(records)
        process.kill()
        process.wait(10)
    end = time.monotonic() + 40
    while (left := processes_of(tmp_path)) and time.monotonic() < end:
        time.sleep(0.3)
    assert left == []


@pytest.mark.slow
@pytest.mark.skipif(not REAL.is_dir(), reason="the real days are not beside this checkout (../shared/data/real)")
def test_the_real_days_end_to_end(tmp_path: Path) -> None:
    given = environment(tmp_path, SPENDSCOPE_SOURCE=REAL.as_uri() + "/", SPENDSCOPE_RETENTION_DAYS="0")
    question = "start=2024-09-01&end=2024-10-01&granularity=total&group_by=service,region"
    with running(given, "--no-demo") as (_, port):
        done = run(["ingest", "--wait"], given)
        assert done.returncode == 0, done.stdout + done.stderr
        for metric, total in (
            ("amortized_cost", "13"),
            ("unblended_cost", "18.0066386184"),
            ("usage_quantity", "13105.7085375271"),
        ):
            arguments = [
                "query",
                "--start",
                "2024-09-01",
                "--end",
                "2024-10-01",
                "--group-by",
                "service,region",
                "--metric",
                metric,
            ]
            told = run([*arguments, "--format", "json"], given)
            assert json.loads(told.stdout)["total"] == total
            assert json.loads(get(port, f"/api/v1/costs?{question}&metric={metric}")[1])["total"] == total
        again = run(["ingest", "--wait"], given)
        assert again.returncode == 0
        assert "nothing new" in again.stdout


def test_ingest_without_up_starts_what_it_needs_and_says_what_was_not_taken(tmp_path: Path) -> None:
    source = tmp_path / "in" / "costs"
    source.mkdir(parents=True)
    header = "service,region,amortized_cost,blended_cost,unblended_cost,usage_quantity\n"
    (source / "2026-10-01.csv").write_text(header + "S,r,1,1,1,1\n")
    (source / "2026-10-02.csv").write_text(header + "S,r,1,1,x,1\n")
    given = environment(tmp_path / "data", SPENDSCOPE_SOURCE=source.as_uri() + "/")
    done = run(["ingest", "--wait", "--json"], given)
    assert done.returncode == 1, done.stderr
    statuses = {file["key"]: file["job_status"] for file in json.loads(done.stdout)["files"]}
    assert statuses == {"2026-10-01.csv": "done", "2026-10-02.csv": "quarantined"}
    again = run(["ingest", "--wait"], given)
    assert again.returncode == 0, "known quarantined bytes are not new"
    shutil.rmtree(tmp_path / "data" / "store" / "costs")
    refilled = run(["ingest", "--again", "--json", "2026-10-01.csv"], given)
    assert [file["job_status"] for file in json.loads(refilled.stdout)["files"]] == ["done"]
    told_in_one_line(run(["ingest", "NOPE.csv"], given), "NOPE.csv")
    assert processes_of(tmp_path / "data") == []


def told_in_one_line(done: subprocess.CompletedProcess[str], *words: str) -> None:
    assert done.returncode == 2, done
    assert len(done.stderr.strip().splitlines()) == 1, done.stderr
    for word in words:
        assert word in done.stderr


def test_a_busy_port_is_one_clear_line(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        told_in_one_line(run(["up", "--port", port], environment(tmp_path)), port, "--port")


def test_an_unwritable_data_dir_is_one_clear_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    told_in_one_line(
        run(["up", "--port", str(free_port())], environment(tmp_path / "file" / "data")), "data", "--data-dir"
    )


def test_another_host_is_refused(tmp_path: Path) -> None:
    told_in_one_line(run(["up", "--host", "0.0.0.0"], environment(tmp_path)), "0.0.0.0", "loopback")


def test_no_source_and_no_demo_is_refused(tmp_path: Path) -> None:
    told_in_one_line(run(["up", "--no-demo"], environment(tmp_path)), "SPENDSCOPE_SOURCE")


def test_a_process_that_cannot_start_says_so_in_the_form_of_its_log(tmp_path: Path) -> None:
    given = environment(tmp_path, SPENDSCOPE_LOG_FORMAT="json", REDIS_URL="ftp://nowhere")
    done = run(["worker"], given)
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    record = json.loads(line)
    assert record["level"] == "critical"
    assert record["message"].startswith("REDIS_URL is not a redis://")
    told_in_one_line(run(["ingest"], given), "spendscope: ")


def test_a_missing_package_is_one_clear_line(tmp_path: Path) -> None:
    (tmp_path / "pyarrow").mkdir()
    (tmp_path / "pyarrow" / "__init__.py").write_text("raise ModuleNotFoundError('gone', name='pyarrow')")
    given = environment(tmp_path / "data", SPENDSCOPE_SOURCE=tmp_path.as_uri() + "/")
    given["PYTHONPATH"] = f"{tmp_path}{os.pathsep}{ROOT}"
    told_in_one_line(run(["ingest", "--wait"], given), "pyarrow", "make setup")
