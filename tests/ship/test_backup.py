"""The commands of docs/backup.md that can be run here, run as they stand there."""

from __future__ import annotations

import re
import subprocess
import sys
from datetime import date
from pathlib import Path

from app.adapters.sqlite import SqliteMetadata
from app.backends import Backends, store_dir
from tests.arrivals import arrive, csv, take
from tests.ship.test_kubernetes import K8S

GUIDE = (K8S.parent / "docs/backup.md").read_text("utf-8")


def sqlite_command() -> str:
    """The Python program that the guide gives to copy the ledger of a running Spendscope."""
    (found,) = re.findall(r"python3 -c '(import sqlite3.*?)' /var", GUIDE, re.DOTALL)
    return str(found).replace("\n    ", "\n")


def test_the_ledger_is_copied_while_it_is_open(backends: Backends, folder: Path, tmp_path: Path) -> None:
    take(backends, arrive(folder, csv("111122223333,Amazon S3,eu-west-1,1.25,1.25,1.25,3")))
    live, copy = store_dir(backends.settings) / "metadata.sqlite", tmp_path / "copy.sqlite"
    subprocess.run([sys.executable, "-c", sqlite_command(), str(live), str(copy)], check=True)
    kept = SqliteMetadata(copy)
    kept.check()
    all_days = (date(2026, 1, 1), date(2027, 1, 1))
    assert kept.day_records(*all_days) == backends.metadata.day_records(*all_days) != {}


def test_every_store_and_every_secret_file_of_the_guide_exists() -> None:
    manifests = "".join(path.read_text("utf-8") for path in (K8S / "base").rglob("*.yaml"))
    for path in set(re.findall(r"/run/secrets/[a-z]+/[a-z-]+", GUIDE)):
        assert path in manifests
    for store in ("redis", "mongodb", "influxdb", "grafana"):
        assert re.search(store, GUIDE, re.IGNORECASE)
