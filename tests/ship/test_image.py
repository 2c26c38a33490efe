"""The image: its Dockerfile is clean, and its steps, followed in a clean root, give something that runs locked down."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.ship import imageroot
from tests.ship.imageroot import ROOT, Image, Stage, inside, stages, started

MOST_ABOVE_THE_BASE = 400e6
"""Bytes; the base is 120 MB of Debian and Python."""


@pytest.fixture(scope="module")
def dockerfile() -> str:
    return (ROOT / "Dockerfile").read_text("utf-8")


@pytest.fixture(scope="module")
def last(dockerfile: str) -> Stage:
    return stages(dockerfile)[-1]


def rests(stage: Stage, word: str) -> list[str]:
    return [rest for instruction, rest in stage.steps if instruction == word]


def test_hadolint_finds_nothing() -> None:
    command = [str(Path(sys.executable).with_name("hadolint")), "--format", "tty", str(ROOT / "Dockerfile")]
    found = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (found.stdout, found.returncode) == ("", 0)


def test_every_stage_has_the_same_pinned_base(dockerfile: str) -> None:
    bases = {stage.base for stage in stages(dockerfile)}
    assert len(bases) == 1
    assert re.fullmatch(r"python:3\.\d+\.\d+-slim-[a-z]+", bases.pop())


def test_packages_come_from_the_lock_by_hash_as_wheels(dockerfile: str) -> None:
    installs = [rest for stage in stages(dockerfile) for rest in rests(stage, "RUN") if re.search(r"\bpip\b", rest)]
    assert len(installs) == 1
    for option in ("--require-hashes", "--no-deps", "--only-binary :all:", "--no-cache-dir", "-r requirements.lock"):
        assert option in installs[0]


def test_what_runs_is_no_user_of_the_host(last: Stage) -> None:
    (user,) = rests(last, "USER")
    assert re.fullmatch(r"([1-9]\d{4,}):\1", user), "a number, so that Kubernetes can see that it is not root"
    assert last.steps.index(("USER", user)) > max(
        n for n, (word, _) in enumerate(last.steps) if word in ("RUN", "COPY")
    )


def test_it_says_what_it_is(last: Stage) -> None:
    labels = imageroot.pairs(" ".join(rests(last, "LABEL")), {})
    given = {name.removeprefix("org.opencontainers.image.") for name in labels}
    assert given >= {"title", "description", "licenses", "version", "revision", "created", "source", "base.name"}
    assert labels["org.opencontainers.image.base.name"] == last.base


def test_the_builder_is_sent_only_what_is_copied(dockerfile: str) -> None:
    lines = (ROOT / ".dockerignore").read_text("utf-8").splitlines()
    rules = [line for line in lines if line and not line.startswith("#")]
    assert rules[0] == "*"
    copied = {
        source
        for stage in stages(dockerfile)
        for rest in rests(stage, "COPY")
        if "--from" not in rest
        for source in rest.split()[:-1]
    }
    assert {rule.removeprefix("!") for rule in rules if rule.startswith("!")} == copied
    assert all((ROOT / source).exists() for source in copied)


# --- followed, step by step ----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def image(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, dockerfile: str) -> Iterator[Image]:
    if not request.config.getoption("--image"):
        pytest.skip("takes minutes and the network: `make image-check` runs it")
    if reason := imageroot.missing():
        pytest.skip(reason)
    out = tmp_path_factory.mktemp("image")
    # In memory: a root is ten thousand files, made three times and thrown away.
    subprocess.run(["mount", "-t", "tmpfs", "-o", "mode=0755,size=4g", "tmpfs", str(out)], check=True)
    try:
        imageroot.base_root(out / "base")
        yield imageroot.build(out / "base", out, dockerfile)
    finally:
        subprocess.run(["umount", str(out)], check=True)


@pytest.fixture
def data(tmp_path: Path, image: Image) -> Path:
    """A volume as an engine makes it: with the owner that the image's directory has."""
    path = tmp_path / "volume"
    path.mkdir()
    stat = (image.root / image.volumes[0].lstrip("/")).stat()
    os.chown(path, stat.st_uid, stat.st_gid)
    return path


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def ran(image: Image, *command: str) -> subprocess.CompletedProcess[str]:
    words = inside(image, command, image.environment)
    return subprocess.run(words, capture_output=True, text=True, timeout=60, check=False)


def status_of(port: int, path: str) -> int:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=10) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code
    except OSError:
        return 0


def wait_for(port: int, path: str, process: subprocess.Popen[str]) -> None:
    until = time.monotonic() + 120
    while status_of(port, path) != 200:
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < until, f"{path} did not answer 200"
        time.sleep(0.2)


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_it_is_small_and_has_no_compiler_and_no_cache(image: Image) -> None:
    above = imageroot.size(image.root / "opt")
    print(f"{above / 1e6:.0f} MB above the base")
    assert above < MOST_ABOVE_THE_BASE
    for name in ("gcc", "cc", "make"):
        assert ran(image, "sh", "-c", f"command -v {name}").returncode != 0
    assert not any((image.root / "root").glob(".cache/*"))
    assert not list((image.root / "opt").rglob("pip/__init__.py")), "nothing installs in a running container"


@pytest.mark.slow
def test_it_cannot_write_to_itself_and_is_nobody(image: Image) -> None:
    wrote = ran(image, "sh", "-c", "touch /opt/spendscope/app/x")
    assert "Read-only file system" in wrote.stderr
    seen = ran(image, "sh", "-c", "id -u; grep -E '^(CapEff|CapBnd|NoNewPrivs):' /proc/self/status | tr -d '\\t\\n'")
    assert seen.stdout == f"10001\nCapEff:{'0' * 16}CapBnd:{'0' * 16}NoNewPrivs:1"


@pytest.mark.slow
def test_its_bytecode_is_used_as_it_is(image: Image) -> None:
    told = ran(image, "python", "-v", "-c", "import app.config")
    assert re.search(r"# code object from '.*app/__pycache__/config.cpython-\d+.pyc'", told.stderr), told.stderr[-500:]


@pytest.mark.slow
def test_everything_runs_read_only_as_nobody(image: Image, data: Path) -> None:
    """`up` is web, workers, scheduler and the private parts in one: the sample organisation is served and healthy."""
    port = free_port()
    extra = {"SPENDSCOPE_PORT": str(port), "SPENDSCOPE_DEMO_DAYS": "30"}
    command = started(image, ["up"], {image.volumes[0]: data}, **extra)
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        wait_for(port, "/healthz", process)
        wait_for(port, "/readyz", process)
        healthy = inside(image, image.health, image.environment | extra)
        assert subprocess.run(healthy, check=False, timeout=30).returncode == 0
        assert status_of(port, "/") == 200
        assert {path.stat().st_uid for path in data.iterdir()} == {10001}
    finally:
        stop(process)
    assert status_of(port, "/healthz") == 0
    unhealthy = inside(image, image.health, image.environment | extra)
    assert subprocess.run(unhealthy, check=False, timeout=30, capture_output=True).returncode != 0


def stop(process: subprocess.Popen[str]) -> None:
    """SIGTERM to what is process 1 in there, as an engine sends it, and 30 s to end."""
    for first in children_of(process.pid):
        os.kill(first, signal.SIGTERM)
    _, errors = process.communicate(timeout=30)
    assert process.returncode == 0, errors


def children_of(pid: int) -> list[int]:
    path = Path(f"/proc/{pid}/task/{pid}/children")
    return [int(word) for word in path.read_text().split()] if path.exists() else []


@pytest.mark.slow
@pytest.mark.parametrize("role", ["web", "worker", "scheduler"])
def test_each_process_of_a_cluster_starts_and_ends(image: Image, data: Path, role: str, tmp_path: Path) -> None:
    """Alone each waits for its queue or serves without it: started here with nothing else, ended by SIGTERM."""
    port = free_port()
    extra = {"SPENDSCOPE_PORT": str(port), "REDIS_URL": f"redis://127.0.0.1:{free_port()}/0"}
    extra |= {"SPENDSCOPE_SOURCE": "file:///var/lib/spendscope/costs/"}
    process = subprocess.Popen(
        started(image, [role], {image.volumes[0]: data}, **extra),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        if role == "web":
            wait_for(port, "/healthz", process)
            assert status_of(port, "/readyz") == 503
        else:
            # Before its handlers stand, SIGTERM is nothing to process 1 of a container: not ready, it is not stopped.
            assert process.stderr is not None
            assert "does not answer" in process.stderr.readline()
            assert process.poll() is None, process.communicate()
    finally:
        stop(process)


@pytest.mark.slow
def test_a_log_line_is_one_json_object(image: Image, data: Path) -> None:
    extra = {
        "REDIS_URL": f"redis://127.0.0.1:{free_port()}/0",
        "SPENDSCOPE_SOURCE": "file:///var/lib/spendscope/costs/",
    }
    process = subprocess.Popen(
        started(image, ["worker"], {image.volumes[0]: data}, **extra), stderr=subprocess.PIPE, text=True
    )
    try:
        assert process.stderr is not None
        assert json.loads(process.stderr.readline())["message"]
    finally:
        stop(process)
