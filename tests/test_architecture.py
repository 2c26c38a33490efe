"""An import never goes the wrong way (DESIGN §9), and modules stay small enough to read."""

from __future__ import annotations

import ast
import subprocess
import sys
from functools import cache
from pathlib import Path
from statistics import median

import pytest

ROOT = Path(__file__).parent.parent
MODULES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
    for folder in ("app", "workers")
    for path in (ROOT / folder).rglob("*.py")
}


@cache
def imports(module: str, *, lazy: bool = True) -> frozenset[str]:
    """Project modules that `module` imports; those under TYPE_CHECKING never count, those inside functions if `lazy`."""
    tree = ast.parse(MODULES[module].read_text("utf-8"))
    found: set[str] = set()
    todo: list[ast.AST] = [tree]
    while todo:
        node = todo.pop()
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            todo.extend(node.orelse)
            continue
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and not lazy:
            continue
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.update(
                f"{node.module}.{alias.name}" if f"{node.module}.{alias.name}" in MODULES else node.module
                for alias in node.names
            )
        todo.extend(ast.iter_child_nodes(node))
    return frozenset(found)


PURE = ("app.core",)
FRAMEWORKS = (
    "dash",
    "flask",
    "plotly",
    "rq",
    "redis",
    "pymongo",
    "influxdb_client",
    "boto3",
    "sqlite3",
    "requests",
    "gunicorn",
)


@pytest.mark.parametrize("module", sorted(name for name in MODULES if name.startswith("app.core")))
def test_core_is_pure(module: str) -> None:
    for name in imports(module):
        assert not name.startswith(("app.", "workers")) or name.startswith(("app.core", "app.errors")), name
        assert name.split(".")[0] not in FRAMEWORKS, name


@pytest.mark.parametrize("module", sorted(name for name in MODULES if name.startswith("app.adapters.")))
def test_an_adapter_imports_no_other_adapter(module: str) -> None:
    # Flux text is one module of its own beside the adapter that sends it.
    allowed = {module, "app.adapters.flux"}
    others = {name for name in imports(module) if name.startswith("app.adapters.")} - allowed
    assert not others
    assert not {name for name in imports(module) if name.startswith(("app.api", "app.pages", "app.ui", "app.figures"))}


@pytest.mark.parametrize("module", sorted(name for name in MODULES if name.startswith("app")))
def test_app_never_imports_workers(module: str) -> None:
    assert not {name for name in imports(module) if name.split(".")[0] == "workers"}


@pytest.mark.parametrize(
    "module", sorted(name for name in MODULES if name.startswith(("app.figures", "app.ui", "app.pages", "app.api")))
)
def test_the_web_side_asks_only_the_use_cases(module: str) -> None:
    for name in imports(module):
        assert not name.startswith("app.adapters"), name
        if module.startswith("app.figures"):
            assert not name.startswith("app.") or name.startswith(("app.core", "app.figures", "app.costs")), name


def test_only_backends_opens_adapters() -> None:
    opening = {module for module in MODULES if any(name.startswith("app.adapters.") for name in imports(module))}
    assert {module for module in opening if not module.startswith("app.adapters")} <= {"app.backends", "workers.worker"}


def test_no_import_cycle() -> None:
    graph = {module: {name for name in imports(module, lazy=False) if name in MODULES} for module in MODULES}
    done: set[str] = set()

    def visit(module: str, path: tuple[str, ...]) -> None:
        assert module not in path, " -> ".join((*path, module))
        if module not in done:
            for name in sorted(graph[module]):
                visit(name, (*path, module))
            done.add(module)

    for module in sorted(graph):
        visit(module, ())


def test_the_web_process_carries_no_columnar_engine() -> None:
    """pyarrow costs a web process 60 MB; only workers parse and write."""
    code = "import app.web, app.api, app.costs, sys; print([m for m in ('pyarrow', 'pandas', 'boto3') if m in sys.modules])"
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    assert shown.stdout.strip() == "[]"


def test_workers_carry_no_web_framework() -> None:
    code = "import workers.worker, workers.jobs, workers.schedule, sys; print([m for m in ('dash', 'plotly') if m in sys.modules])"
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    assert shown.stdout.strip() == "[]"


def test_functions_are_short() -> None:
    lengths = [
        (node.end_lineno or node.lineno) - node.lineno + 1
        for path in MODULES.values()
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    ]
    assert median(lengths) <= 10


@pytest.mark.parametrize("word", ["utils", "helpers", "manager", "common"])
def test_no_module_has_a_name_that_says_nothing(word: str) -> None:
    assert not [module for module in MODULES if word in module.split(".")[-1]]
