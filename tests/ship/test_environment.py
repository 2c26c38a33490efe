"""scripts/environment: uv installs, pip where uv cannot, and one clear line where neither can."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

# A python that makes "environments" of itself, brings a uv that ends as UV says, and writes down what pip was asked.
PYTHON = """#!/bin/sh
case "$*" in
    "-m venv "*) mkdir -p "$3/bin" && cp "$0" "$3/bin/python" ;;
    "-m pip install "*"--target "*)
        [ "$UV" != missing ] || exit 1
        mkdir -p "$TARGET/uv/bin"
        printf '#!/bin/sh\\necho "uv $*" >> "$LOG"\\nexit %s\\n' "$UV" > "$TARGET/uv/bin/uv"
        chmod +x "$TARGET/uv/bin/uv" ;;
    "-m pip install "*) echo "pip $*" >> "$LOG"; exit "$PIP" ;;
    "-c import pip") [ "$0" != "$FIRST" ] ;;
esac
"""


@pytest.mark.parametrize(
    ("uv", "pip", "code", "asked"),
    [
        ("0", "1", 0, ["uv"]),
        ("1", "0", 0, ["uv", "pip"]),
        ("missing", "0", 0, ["pip"]),
        ("1", "1", 2, ["uv", "pip"]),
    ],
)
def test_uv_installs_and_pip_where_uv_cannot(tmp_path: Path, uv: str, pip: str, code: int, asked: list[str]) -> None:
    first, target, log = tmp_path / "python", tmp_path / "env", tmp_path / "log"
    first.write_text(PYTHON)
    first.chmod(0o755)
    names = {"PYTHON": first, "FIRST": first, "TARGET": target, "LOG": log, "UV": uv, "PIP": pip}
    done = subprocess.run(
        [ROOT / "scripts/environment", target, "some.lock"],
        env={**os.environ, **{name: str(value) for name, value in names.items()}},
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == code, done.stderr
    lines = log.read_text().splitlines()
    assert [line.split()[0] for line in lines] == asked
    for line in lines:
        assert "--require-hashes --no-deps --only-binary :all: -r some.lock" in line
        assert ("--compile-bytecode" in line) is line.startswith("uv"), "pip compiles by itself"
    assert ("could not be installed" in done.stderr) is (code == 2)
