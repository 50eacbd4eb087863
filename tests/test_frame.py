"""What holds the project together: sizes, lock files, commands that the documents name."""

from __future__ import annotations

import asyncio
import inspect
import json
import os
import re
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
import typer
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from upbeat.v1 import gateway_pb2, types_pb2

from clients.cli import app
from server.__main__ import main as serve
from server.app import RunningServer
from server.config import load

OPTION = re.compile(r"--([a-z-]+)")
ROOT = Path(__file__).parents[1]
MAX_FILE_BYTES = 15 << 20
MAX_MODELS_BYTES = 40 << 20


@pytest.fixture(scope="module")
def tracked() -> list[Path]:
    """Files under version control that exist here."""
    done = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        pytest.skip("not a git checkout")
    return [path for name in done.stdout.split("\0") if name and (path := ROOT / name).is_file()]


def test_a_clone_is_small(tracked: list[Path]) -> None:
    sizes = {str(path.relative_to(ROOT)): path.stat().st_size for path in tracked}
    assert {name: size for name, size in sizes.items() if size > MAX_FILE_BYTES} == {}
    assert sum(size for name, size in sizes.items() if name.startswith("models/")) <= MAX_MODELS_BYTES


def test_the_lock_file_names_no_registry() -> None:
    packages = json.loads((ROOT / "tests/node/package-lock.json").read_text())["packages"]
    assert [name for name, entry in packages.items() if "resolved" in entry] == []


def test_every_dependency_has_a_pin_in_its_range() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pins = [Requirement(line) for line in lines if line and not line.startswith("#")]
    pinned = {canonicalize_name(pin.name): pin.specifier for pin in pins}
    for text in (*project["dependencies"], *project["optional-dependencies"]["dev"]):
        requirement = Requirement(text)
        pin = pinned.get(canonicalize_name(requirement.name))
        assert pin is not None, f"{requirement.name} has no pin in constraints.txt"
        kinds = sorted(bound.operator for bound in pin)
        between = requirement.name == "triton" and kinds == ["<=", ">="]  # each build of torch wants its own
        assert kinds == ["=="] or between, f"{requirement.name} is not pinned: {pin}"
        for bound in pin:
            assert requirement.specifier.contains(bound.version), f"{text} does not allow {pin}"


DOCUMENTS = [
    *("README.md", "ARCHITECTURE.md", "CHANGELOG.md", "protos/README.md", "benchmarks/README.md", ".ci/run"),
    *(str(path.relative_to(ROOT)) for path in sorted(ROOT.glob("models/*/README.md"))),
]


@pytest.mark.parametrize("document", DOCUMENTS)
def test_documents_name_real_commands_and_files(document: str) -> None:
    text = (ROOT / document).read_text()
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert set(re.findall(r"(?:^|`)make ([a-z-]+)", text, re.MULTILINE)) <= targets
    for modules in re.findall(r"\bpython -m ([a-z_.]+)(?=[\s`,])", text):
        path = ROOT / modules.replace(".", "/")
        assert path.with_suffix(".py").exists() or (path / "__main__.py").exists(), modules
    for link in re.findall(r"\]\(([^)#:]+)\)", text):
        assert (ROOT / document).parent.joinpath(link).exists(), link


def test_the_architecture_names_real_files(tracked: list[Path]) -> None:
    named = set(re.findall(r"`([\w./-]+\.(?:py|json|jinja|toml))`", (ROOT / "ARCHITECTURE.md").read_text()))
    given = {"config.json", "model_index.json", "upbeat.json"}  # of a user's model folder
    there = [f"/{path.relative_to(ROOT)}" for path in tracked]
    assert [name for name in named - given if not any(path.endswith(f"/{name}") for path in there)] == []


def blocks(language: str) -> list[str]:
    """The README's code in one language."""
    return re.findall(
        rf"^```{language}\n(.*?)^```", (ROOT / "README.md").read_text(), re.MULTILINE | re.DOTALL
    )


async def test_the_readmes_client_runs(running: RunningServer, link: object) -> None:
    (code,) = blocks("python")
    environment = os.environ | {"PYTHONPATH": f"{ROOT}:{ROOT / 'protos'}"}
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        code.replace("localhost:50051", f"127.0.0.1:{running.port}"),
        env=environment,
        stdout=subprocess.PIPE,
    )
    output, _ = await asyncio.wait_for(process.communicate(), 60)
    assert process.returncode == 0
    assert b"[sound at 0 ms]" in output
    assert b"[image, step" in output


def test_the_readmes_settings_are_valid(tmp_path: Path) -> None:
    (text,) = blocks("toml")
    (tmp_path / "upbeat.toml").write_text(text)
    assert load(tmp_path / "upbeat.toml").tenants[0].name == "kitchen"


def test_the_readmes_commands_parse(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "boat.png").touch()  # made by one command, read by the next
    commands: dict[str, Any] = vars(typer.main.get_command(app))["commands"]
    lines = [line for block in blocks("sh") for line in block.splitlines()]
    begun = [line.rpartition("| upbeat ")[2].removeprefix("upbeat ") for line in lines if "upbeat " in line]
    begun = [line.partition(" | ")[0] for line in begun]  # what it is piped into is another program
    assert len(begun) >= 10
    for line in begun:
        name, *arguments = shlex.split(line, comments=True)
        commands[name].make_context(name, arguments)


def test_the_readme_knows_the_servers_options() -> None:
    text = (ROOT / "README.md").read_text()
    named = re.findall(r"^\| `--([a-z-]+)` \|", text, re.MULTILINE)
    named += [
        option for line in re.findall(r"^upbeat serve .*", text, re.M) for option in OPTION.findall(line)
    ]
    assert {"text", "draft"} <= set(named) <= set(inspect.signature(serve).parameters)


def test_other_languages_find_what_their_generators_need() -> None:
    """protoc-gen-go refuses a file that does not say which package it becomes."""
    for file in (gateway_pb2.DESCRIPTOR, types_pb2.DESCRIPTOR):
        assert file.GetOptions().go_package == "upbeat/v1;upbeatv1"
