"""Imports go one way: server -> pipelines -> kernels; clients -> protos."""

from __future__ import annotations

import ast
import importlib.util
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
OURS = {"server", "pipelines", "kernels", "clients", "benchmarks", "training", "tests", "upbeat"}
MAY_IMPORT = {
    "server": {"server", "pipelines", "upbeat"},
    "pipelines": {"pipelines", "kernels"},
    "kernels": {"kernels"},
    "clients": {"clients", "upbeat"},
}
NEVER = {
    "pipelines": {"grpc", "asyncio"},
    "kernels": {"grpc", "asyncio"},
    "clients": {"torch", "transformers", "diffusers"},
}
WITHOUT_TORCH = ("pipelines", "pipelines.contract", "pipelines.messages", "pipelines.errors", "clients")


def imported(path: Path) -> set[str]:
    """Top names of all modules that a file imports, inside functions too."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(), str(path))):
        if isinstance(node, ast.Import):
            names.update(alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are absolute"
            names.add((node.module or "").split(".")[0])
    return names


@pytest.mark.parametrize("package", MAY_IMPORT)
def test_imports_go_one_way(package: str) -> None:
    wrong = {
        str(path.relative_to(ROOT)): bad
        for path in (ROOT / package).rglob("*.py")
        if (bad := imported(path) & ((OURS - MAY_IMPORT[package]) | NEVER.get(package, set())))
    }
    assert not wrong


@pytest.mark.parametrize("module", WITHOUT_TORCH)
def test_the_contract_needs_no_torch(module: str) -> None:
    script = f"import sys, {module}; sys.exit('torch' in sys.modules)"
    path = f"{ROOT}:{ROOT / 'protos'}"
    assert subprocess.run([sys.executable, "-c", script], env={"PYTHONPATH": path}, cwd="/").returncode == 0


@pytest.mark.parametrize("name", ["server", "pipelines", "kernels", "clients"])
def test_the_names_are_ours(name: str) -> None:
    spec = importlib.util.find_spec(name)
    assert spec is not None
    assert spec.origin == str(ROOT / name / "__init__.py")


def test_every_package_is_listed() -> None:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    bases = {name: ROOT / name for name in OURS - {"tests", "upbeat"}} | {
        "upbeat": ROOT / "protos" / "upbeat"
    }
    on_disk = {
        ".".join((name, *marker.parent.relative_to(base).parts))
        for name, base in bases.items()
        for marker in base.rglob("__init__.py")
    }
    assert set(settings["packages"]) == on_disk
