"""Fixtures for every ring of tests."""

from __future__ import annotations

import gc
import os
from collections.abc import Generator, Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from app.anomalies import detect
from app.backends import Backends
from tests import found, influxdb, turns
from tests.arrivals import opened, settings_for
from tests.influxdb import Server

# A loaded machine is slow, not wrong; contract classes run one property on several adapters.
settings.register_profile("spendscope", deadline=None, suppress_health_check=[HealthCheck.differing_executors])
settings.load_profile("spendscope")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "costs"
    path.mkdir()
    return path


@pytest.fixture
def backends(tmp_path: Path, folder: Path) -> Backends:
    return opened(settings_for(tmp_path, folder))


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A real InfluxDB, one for all tests; each makes a bucket of its own."""
    with influxdb.found(tmp_path_factory.mktemp("influxd")) as server:
        yield server


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a history that nobody has looked for anomalies in; each test opens a copy (`found.copied`)."""
    root = tmp_path_factory.mktemp("found") / "built"
    found.build(root)
    return root


@pytest.fixture(scope="session")
def looked_at(built: Path) -> Path:
    """The same, and its one anomaly is recorded."""
    root = built.with_name("looked at")
    with found.copied(built, root) as opened:
        detect(opened)
    return root


@pytest.hookimpl(optionalhook=True, wrapper=True)
def pytest_xdist_auto_num_workers() -> Generator[None, int, int]:
    """Of `-n auto`. Here, as it is asked before plugins are added; who sets xdist's own variable has the last word."""
    cores = yield
    return cores if os.environ.get("PYTEST_XDIST_AUTO_NUM_WORKERS") else turns.processes(cores)


def pytest_configure(config: pytest.Config) -> None:
    config.pluginmanager.register(turns)


def pytest_collection_finish() -> None:
    """What was imported and collected stays: the collector leaves it out.

    It looks at all objects when there are a quarter more than the last time. Beside millions that stay, that is after
    hundreds of megabytes of apps and clients, which end as cycles. It counts anew only when it has run once more.
    """
    gc.collect()
    gc.freeze()
    gc.collect()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--soak",
        default="4",
        help="Kill schedules of tests/workers/test_soak.py, and a tenth of the histories of tests/test_last_truth.py (at least 50). "
        "`make soak` runs 50 and 500.",
    )
    parser.addoption("--image", action="store_true", help="Follow the Dockerfile in a clean root; `make image-check`.")
