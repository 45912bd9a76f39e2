"""Imports point one way, and what loads photos does so without Keras."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "carcls"

# Each may import what stands on a line above it; nothing imports from its own line.
LAYERS = [
    ["errors"],
    ["catalogue", "console", "backend", "quoting", "swept"],
    ["config"],
    ["data"],
    ["run", "runtime"],
    ["models"],
    ["plots", "pages"],
    ["training", "prediction", "exploration"],
    ["evaluation"],
    ["sweeps"],
    ["trained_run"],
    ["api"],
]
LEVEL = {name: level for level, names in enumerate(LAYERS) for name in names}
MODULES = sorted(path for path in PACKAGE.rglob("*.py") if path != PACKAGE / "__init__.py")


def part(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imported_parts(path: Path) -> set[str]:
    tree = ast.parse(path.read_text())
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("carcls"):
            deeper = node.module.split(".")[1:2]
            names |= set(deeper) if deeper else {alias.name for alias in node.names}
        elif isinstance(node, ast.Import):
            names |= {a.name.split(".")[1] for a in node.names if a.name.startswith("carcls.")}
    return names


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_point_downwards(path):
    if part(path) == "cli":
        assert imported_parts(path) <= {"errors", "quoting", "swept"}
        return
    for imported in imported_parts(path) - {part(path)}:
        assert LEVEL[imported] < LEVEL[part(path)], f"{part(path)} imports {imported}"


@pytest.mark.parametrize(
    "module",
    [
        "carcls.config",
        "carcls.data.sources",
        "carcls.training.jobs",
        "carcls.prediction.predict",
        "carcls.evaluation.evaluate",
        "carcls.exploration.explore",
        "carcls.sweeps.launcher",
    ],
)
def test_what_loads_photos_imports_no_keras(module):
    code = f"import sys, {module}; print({{'keras', 'tensorflow', 'jax'}} & set(sys.modules))"
    answer = subprocess.run(
        [sys.executable, "-c", code], cwd=PACKAGE.parent, capture_output=True, text=True, check=True
    )
    assert answer.stdout.strip() == "set()"
