"""docs/faults.md lists every cell of its groups, and every test it names is there."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
ROWS = {
    cells[0]: cells
    for line in (ROOT / "docs/faults.md").read_text("utf-8").splitlines()
    if (cells := [cell.strip() for cell in line.strip("|").split("|")]) and re.fullmatch(r"[A-Z]\d+", cells[0])
}
CELLS = [
    *(f"O{number}" for number in range(1, 12)),
    "C5",
    "C9",
    "C10",
    *(f"L{number}" for number in range(1, 12)),
    *(f"N{number}" for number in range(1, 12)),
    *(f"Q{number}" for number in range(1, 13)),
    *(f"W{number}" for number in range(1, 14)),
    *(f"M{number}" for number in range(1, 12)),
    *(f"A{number}" for number in range(1, 12)),
]


def functions_of(path: str) -> set[str]:
    tree = ast.parse((ROOT / path).read_text("utf-8"))
    return {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}


def test_every_cell_is_listed_once_and_nothing_else() -> None:
    assert list(ROWS) == CELLS


@pytest.mark.parametrize("cell", CELLS)
def test_every_cell_has_tests_that_exist(cell: str) -> None:
    _, fault, happens, tests = ROWS[cell]
    named = re.findall(r"`([\w/]+\.py)::(test_\w+)`", tests)
    assert fault
    assert happens
    assert named
    assert f"`{'` `'.join('::'.join(pair) for pair in named)}`" == tests, "nothing but tests, none misspelt"
    for path, name in named:
        assert name in functions_of(path), f"{path}::{name}"
