"""k8s/minikube.sh, with programs in place of minikube and kubectl that note what they are asked."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.ship.test_kubernetes import K8S

STAND_IN = """#!/usr/bin/env -S python3 -IS
import json, os, pathlib, sys
words = [pathlib.Path(sys.argv[0]).name, *sys.argv[1:]]
there, notes = pathlib.Path(os.environ["THERE"]), pathlib.Path(os.environ["NOTES"])
given = sys.stdin.read() if "/dev/stdin" in words[-1] else ""
with notes.open("a") as out:
    out.write(json.dumps([words, given]) + "\\n")
if words[:2] == ["minikube", "status"]:
    sys.exit(0 if (there / "cluster").exists() else 1)
if words[:2] == ["minikube", "start"]:
    (there / "cluster").touch()
if "get" in words and "secret" in words:
    sys.exit(0 if (there / words[-1]).exists() else 1)
if "create" in words and "secret" in words:
    (there / words[-2]).write_text(given)
if os.environ.get("BROKEN", "nothing") in words:
    sys.exit(1)
"""


class Trial:
    def __init__(self, folder: Path) -> None:
        self.there, self.notes, programs = folder / "there", folder / "notes", folder / "bin"
        self.there.mkdir()
        programs.mkdir()
        # Dozens of them are started: this one, and not a finder of Pythons.
        (programs / "python3").symlink_to(sys.executable)
        for name in ("minikube", "kubectl"):
            (programs / name).write_text(STAND_IN)
            (programs / name).chmod(0o755)
        self.path = f"{programs}:{os.environ['PATH']}"

    def run(self, **environment: str) -> subprocess.CompletedProcess[str]:
        self.notes.write_text("")
        given = {"PATH": self.path, "THERE": str(self.there), "NOTES": str(self.notes)} | environment
        return subprocess.run(
            ["sh", str(K8S / "minikube.sh"), "8123"], env=given, capture_output=True, text=True, check=False, timeout=60
        )

    def asked(self) -> list[list[str]]:
        return [json.loads(line)[0] for line in self.notes.read_text().splitlines()]

    def secret(self, name: str) -> dict[str, str]:
        lines = (self.there / name).read_text().splitlines()
        return dict(line.split("=", 1) for line in lines)


@pytest.fixture
def trial(tmp_path: Path) -> Trial:
    return Trial(tmp_path)


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> tuple[Trial, subprocess.CompletedProcess[str]]:
    """A first run and what it said."""
    trial = Trial(tmp_path_factory.mktemp("minikube"))
    return trial, trial.run()


def place(asked: list[list[str]], *words: str) -> int:
    return next(number for number, line in enumerate(asked) if all(word in line for word in words))


def test_one_command_goes_from_nothing_to_a_local_url(done: tuple[Trial, subprocess.CompletedProcess[str]]) -> None:
    trial, said = done
    assert said.returncode == 0, said.stderr
    assert "http://127.0.0.1:8123" in said.stdout
    asked = trial.asked()
    order: list[Any] = [
        place(asked, "minikube", "start", "--cni=calico"),
        place(asked, "minikube", "build", "spendscope:dev"),
        place(asked, "kubectl", "apply", "k8s/base/app/namespace.yaml"),
        place(asked, "create", "secret", "spendscope"),
        place(asked, "apply", "k8s/overlays/minikube"),
        place(asked, "rollout", "status", "deployment/web"),
        place(asked, "port-forward", "deployment/web", "8123:8050"),
    ]
    assert order == sorted(order)
    kubectl = [line for line in asked if line[0] == "kubectl"]
    assert all(line[1:3] == ["--context", "spendscope"] for line in kubectl), "never another cluster"


def test_what_reads_a_secret_and_what_checks_it_have_the_same(
    done: tuple[Trial, subprocess.CompletedProcess[str]],
) -> None:
    trial, _ = done
    ours = trial.secret("spendscope")
    assert ours["redis-url"] == f"redis://:{trial.secret('redis')['password']}@redis:6379/0"
    assert f"spendscope:{trial.secret('mongodb')['password']}@mongodb" in ours["mongodb-uri"]
    assert (
        ours["influxdb-token"] == trial.secret("influxdb")["admin-token"] == trial.secret("grafana")["influxdb-token"]
    )
    made = [value for name in ("redis", "mongodb", "influxdb", "grafana") for value in trial.secret(name).values()]
    assert all(len(value) == 48 for value in made)
    assert len(set(made)) == len(made) - 1, "only the token is in two places"


def test_a_second_run_keeps_cluster_and_secrets(trial: Trial) -> None:
    trial.run()
    before = trial.secret("spendscope")
    assert trial.run().returncode == 0
    assert trial.secret("spendscope") == before
    asked = trial.asked()
    assert not any(line[:2] == ["minikube", "start"] for line in asked)
    assert not any("create" in line for line in asked)


def test_no_secret_is_in_a_command_line(done: tuple[Trial, subprocess.CompletedProcess[str]]) -> None:
    trial, _ = done
    words = {word for line in trial.asked() for word in line}
    for name in ("redis", "mongodb", "influxdb", "grafana", "spendscope"):
        assert not any(value in word for value in trial.secret(name).values() for word in words)


def test_a_part_that_does_not_come_up_shows_its_last_words_and_ends_it(trial: Trial) -> None:
    said = trial.run(BROKEN="statefulset/influxdb")
    assert said.returncode == 1
    assert "ready" not in said.stdout
    asked = trial.asked()
    assert place(asked, "logs", "statefulset/influxdb")
    assert not any("port-forward" in line for line in asked)


def test_a_missing_program_is_one_clear_line(tmp_path: Path) -> None:
    for name in ("sh", "dirname"):
        (tmp_path / name).symlink_to(f"/bin/{name}" if Path(f"/bin/{name}").exists() else f"/usr/bin/{name}")
    said = subprocess.run(
        [str(tmp_path / "sh"), str(K8S / "minikube.sh")],
        env={"PATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (said.returncode, said.stderr) == (
        2,
        "minikube.sh: minikube is not on PATH; install it and run this again\n",
    )
