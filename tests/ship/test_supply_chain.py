"""What is shipped is known: the bill of materials, the licences, the workflows that build and sign it."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any, Final

import pytest
import yaml

import app

ROOT: Final = Path(__file__).parent.parent.parent
WORKFLOWS: Final = sorted((ROOT / ".github/workflows").glob("*.yaml"))
SENT_ON: Final = re.compile(
    r"Apache|BSD|MIT|ISC|PSF|Python Software|MPL|Mozilla|Zlib|CC0|0BSD|Unlicense", re.IGNORECASE
)
"""Licences under which what was taken may be handed on as it is."""


def locked() -> dict[str, set[str]]:
    """Versions by normalized name; two when markers choose between them."""
    found: dict[str, set[str]] = {}
    for name, version in re.findall(
        r"^([a-z0-9][a-z0-9._-]*)(?:\[.*\])?==([^ ;\\]+)", (ROOT / "requirements.lock").read_text("utf-8"), re.MULTILINE
    ):
        found.setdefault(normalized(name), set()).add(version)
    return found


def normalized(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


@pytest.fixture(scope="module")
def bill(tmp_path_factory: pytest.TempPathFactory) -> Any:
    target = tmp_path_factory.mktemp("sbom") / "sbom.json"
    subprocess.run([sys.executable, str(ROOT / "scripts/sbom"), str(target)], check=True)
    return json.loads(target.read_text("utf-8"))


def test_the_bill_lists_exactly_what_the_lock_does(bill: Any) -> None:
    listed: dict[str, set[str]] = {}
    for component in bill["components"]:
        listed.setdefault(normalized(component["name"]), set()).add(component["version"])
    assert listed == locked()


def test_the_bill_is_cyclonedx_of_this_version_with_hashes(bill: Any) -> None:
    assert (bill["bomFormat"], bill["specVersion"]) == ("CycloneDX", "1.6")
    assert (bill["metadata"]["component"]["name"], bill["metadata"]["component"]["version"]) == (
        "spendscope",
        app.__version__,
    )
    for component in bill["components"]:
        hashes = [found for reference in component["externalReferences"] for found in reference.get("hashes", [])]
        assert any(found["alg"] == "SHA-256" for found in hashes), component["name"]


def rows(text: str) -> dict[str, tuple[str, str]]:
    """(version, licence) by normalized name of a licence list."""
    found = [
        [cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line.startswith("| ")
    ]
    return {normalized(name): (version, licence) for name, version, licence in found[1:]}


def test_the_licence_list_is_that_of_the_installed_distributions() -> None:
    """Versions may be another Python's: both must be in the lock then."""
    if not (ROOT / ".venv/bin/pip-licenses").exists():
        pytest.skip("there is no .venv here: `make setup-dev` makes it")
    made = rows(subprocess.run([ROOT / "scripts/licences"], capture_output=True, text=True, check=True).stdout)
    kept = rows((ROOT / "docs/licences.md").read_text("utf-8"))
    known = locked()
    for name, (version, licence) in kept.items():
        assert version in known[name], f"{name} {version} is not in the lock: run `make licences`"
        assert SENT_ON.search(licence), f"{name} is under {licence!r}"
        if name in made:
            assert made[name][1] == licence, name
    if sys.version_info[:2] == (3, 11):
        assert made == kept, "run `make licences`"


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_a_workflow_pins_what_it_uses_and_may_write_nothing_by_default(path: Path) -> None:
    text = path.read_text("utf-8")
    workflow = yaml.safe_load(text)
    assert workflow["permissions"] == {"contents": "read"}
    for line in (line for line in text.splitlines() if "uses:" in line):
        assert re.search(r"uses: [a-z-]+/[a-z-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+$", line), line
    for job in workflow["jobs"].values():
        assert job["timeout-minutes"] <= 90
        assert re.fullmatch(r"[a-z]+-\d+\.\d+", job["runs-on"])


def test_a_release_is_tested_then_built_labelled_signed_and_accounted_for() -> None:
    workflow = yaml.safe_load((ROOT / ".github/workflows/release.yaml").read_text("utf-8"))
    assert workflow["jobs"]["image"]["needs"] == "test"
    said = json.dumps(workflow["jobs"])
    labels = set(re.findall(r"^ARG ([A-Z]+)=", (ROOT / "Dockerfile").read_text("utf-8"), re.MULTILINE))
    assert set(re.findall(r"--build-arg ([A-Z]+)=", said)) == labels
    for needed in (
        ".ci/run",
        "make sbom",
        "--provenance=mode=max",
        "cosign sign",
        "cosign attest",
        "attest-build-provenance",
    ):
        assert needed in said
    assert {"IMAGE"} == set(re.findall(r"vars\.([A-Z_]+)", said)), "the registry is a variable"


def test_ci_calls_what_developers_call() -> None:
    workflow = yaml.safe_load((ROOT / ".github/workflows/ci.yaml").read_text("utf-8"))
    assert {"run": ".ci/run"} in workflow["jobs"]["check"]["steps"]
