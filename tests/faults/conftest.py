"""One deployment of real processes for faults that pass by and leave it as it was."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from tests.faults.deployed import Deployed, Web, until

SHORT = "4"
"""The default of --soak: `make test`."""


def is_soak(config: pytest.Config) -> bool:
    """Whether the long forms are wanted."""
    return str(config.getoption("--soak")) != SHORT


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if not is_soak(config):
        for item in items:
            if item.get_closest_marker("soak"):
                item.add_marker(pytest.mark.skip(reason="many seconds of real processes; `make soak` runs it"))


@dataclass(frozen=True)
class Running:
    """Open to this machine: nobody has to sign in. Ten days are ingested."""

    deployed: Deployed
    web: Web
    names: list[str]


@pytest.fixture(scope="session")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with Deployed(tmp_path_factory.mktemp("running")) as deployed:
        names = deployed.put(10)
        web = deployed.serve(processes=1)
        deployed.start("worker")
        deployed.start("scheduler")
        until(lambda: deployed.statuses().get("done", 0) >= len(names), 120, deployed.log)
        deployed.drained()
        yield Running(deployed, web, names)
