"""docs/troubleshooting.md has an entry for every sentence that `spendscope doctor` can say."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from app.config import read_settings
from app.health import examine

ROOT: Final = Path(__file__).parent.parent.parent
OPENED: Final = re.findall(
    r"def open_(?:source|costs|metadata|queue|identities)\(.*?(?=\ndef |\Z)",
    (ROOT / "app/backends.py").read_text("utf-8"),
    re.DOTALL,
)
PARTS: Final = re.findall(r"from app\.adapters\.(\w+) import", "".join(OPENED))
FILES: Final = (
    "app/health.py",
    "app/launcher.py",
    "app/config.py",
    "app/backends.py",
    *(f"app/adapters/{part}.py" for part in sorted({*PARTS})),
)
SAYS: Final = frozenset({"Unavailable", "BadCredentials", "CannotStart", "SpendscopeError", "Finding", "PartHealth"})
ASKED_BY_DOCTOR: Final = frozenset(
    {
        "examine", "_agreement", "_health", "_workers", "check_address", "check_sign_in", "_file_value",
        "check", "__init__", "directory_of", "connect", "answers", "_silent", "_client",
        "_failure", "_failures", "_refusal", "_denied", "_asked", "_problem", "_query", "_base",
        "_sign_on", "open_identities", "_ask_discovery", "_endpoint", "_json", "_ask", "_fresh", "_key_set",
    }
)  # fmt: skip
"""Functions that opening the parts and asking how they are runs through."""


def template(node: ast.AST) -> str | None:
    """A string's text, with an ellipsis where a value goes in."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    if isinstance(node, ast.JoinedStr):
        return "".join(str(part.value) if isinstance(part, ast.Constant) else "…" for part in node.values)
    return None


def said(path: str) -> Iterator[str]:
    tree = ast.parse((ROOT / path).read_text("utf-8"))
    for function in ast.walk(tree):
        if isinstance(function, ast.FunctionDef) and function.name in ASKED_BY_DOCTOR:
            for node in ast.walk(function):
                yield from strings(node)


def strings(node: ast.AST) -> Iterator[str]:
    """What a raised, returned or found thing says, but for sentences that another one gives."""
    parts: list[ast.AST] = []
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in SAYS:
        parts = list(node.args)
    elif isinstance(node, ast.Return) and node.value is not None:
        parts = [node.value]
    for text in map(template, parts):
        if text and len(re.findall(r"[A-Za-z]{2,}", text)) >= 3:
            yield " ".join(text.split())


SENTENCES: Final = sorted({sentence for path in FILES for sentence in said(path)})


def entries() -> str:
    return " ".join((ROOT / "docs/troubleshooting.md").read_text("utf-8").split())


def test_the_sentences_are_found() -> None:
    assert len(SENTENCES) > 30
    assert any(sentence.startswith("No worker is running.") for sentence in SENTENCES)


@pytest.mark.parametrize("sentence", SENTENCES, ids=lambda sentence: sentence[:60])
def test_a_sentence_has_its_entry(sentence: str) -> None:
    assert f"**{sentence}**" in entries(), f"docs/troubleshooting.md says nothing about: {sentence}"


def test_no_entry_is_about_what_is_never_said() -> None:
    stale = {text for text in re.findall(r"\*\*(.+?)\*\*", entries()) if text not in SENTENCES}
    assert not stale


def test_every_part_that_doctor_names_has_its_chapter(tmp_path: Path) -> None:
    """Nothing runs here, so each part is looked at."""
    settings = read_settings({"SPENDSCOPE_DATA_DIR": str(tmp_path), "SPENDSCOPE_PORT": "0"})
    chapters = set(re.findall(r"^## `([a-z]+)`", (ROOT / "docs/troubleshooting.md").read_text("utf-8"), re.MULTILINE))
    assert {finding.part for finding in examine(settings)} | {"settings"} == chapters
