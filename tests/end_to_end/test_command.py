"""What the command asks for arrives: images to start from, add-ons, schemas and expressions."""

from __future__ import annotations

import asyncio
import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from clients.cli import app

BOAT = ("draw", "a red boat on the water", "--steps", "10", "--seed", "7")
SCHEMA = {
    "type": "object",
    "properties": {"made": {"enum": ["tea", "coffee"]}, "hot": {"type": "boolean"}},
    "required": ["made", "hot"],
    "additionalProperties": False,
}


async def upbeat(address: str, *arguments: object) -> tuple[int, str]:
    """Exit code and output."""
    words = [*map(str, arguments), "--server", address]
    result = await asyncio.to_thread(CliRunner().invoke, app, words, env={"COLUMNS": "200"})
    return result.exit_code, result.output


async def chat(address: str, *options: object) -> tuple[int, str, str]:
    """Exit code, what it says, and what it says went wrong."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "clients.cli", "chat", *map(str, options), "--server", address),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    said, wrong = await asyncio.wait_for(process.communicate(b"Please make me a hot tea.\n"), 60)
    assert process.returncode is not None
    return process.returncode, said.decode(), wrong.decode()


def pixels(path: Path) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
    return np.asarray(Image.open(path).convert("RGB"), np.float64)


async def test_a_picture_from_another(address: str, tmp_path: Path) -> None:
    first, fresh, near = (tmp_path / f"{name}.png" for name in ("first", "fresh", "near"))
    assert await upbeat(address, *BOAT, "-o", first) == (0, f"{first}: 128 x 128 pixels in 10 steps\n")
    star = ("draw", "a blue star", "--steps", "10", "--seed", "8")
    assert (await upbeat(address, *star, "-o", fresh))[0] == 0
    assert (await upbeat(address, *star, "-o", near, "--start", first, "--strength", "0.2"))[0] == 0
    apart = [np.abs(pixels(path) - pixels(first)).mean() for path in (fresh, near)]
    assert apart[1] < 0.5 * apart[0]


async def test_an_add_on_by_its_name_and_weight(address: str, tmp_path: Path) -> None:
    assert "add-ons ink" in (await upbeat(address, "models"))[1]
    drawn = {}
    for weight in ("", ":0", ":0.5"):
        path = tmp_path / "x.png"
        add_on = ("--lora", f"ink{weight}") if weight else ()
        assert (await upbeat(address, *BOAT, "-o", path, *add_on))[0] == 0
        drawn[weight] = path.read_bytes()
    assert drawn[":0"] == drawn[""] != drawn[":0.5"]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--lora", "oil"), ("has no add-on 'oil'; it has: ink", "--lora")),
        (("--lora", "ink:9"), ("must be -8 to 8, not 9", "--lora")),
        (("--start", __file__), ("a whole PNG, JPEG or WebP image", "--start")),
        (("--start", "PICTURE", "--strength", "2"), ("must be above 0 and at most 1, not 2", "--strength")),
        (("--start", "/dev/null"), ("1 to 16777216 bytes, not 0", "--start")),
        (("--control", "PICTURE"), ("has no ControlNet", "--control")),
    ],
)
async def test_refusals_name_option_and_limit(
    address: str, tmp_path: Path, options: tuple[str, ...], words: tuple[str, str]
) -> None:
    picture = tmp_path / "picture.png"
    Image.new("RGB", (64, 64)).save(picture)
    asked = [str(picture) if word == "PICTURE" else word for word in options]
    code, output = await upbeat(address, *BOAT, "-o", tmp_path / "x.png", *asked)
    assert code == 1
    assert words[0] in output
    assert f"The option at fault is {words[1]}." in output


async def test_answers_follow_a_schema_or_an_expression(address: str, tmp_path: Path) -> None:
    schema = tmp_path / "order.json"
    schema.write_text(json.dumps(SCHEMA))
    code, said, wrong = await chat(address, "--schema", schema)
    assert (code, wrong) == (0, "")
    answer = json.loads(said)
    assert answer["made"] in ("tea", "coffee") and isinstance(answer["hot"], bool)
    code, said, wrong = await chat(address, "--regex", "(tea|coffee) for [1-9]")
    assert (code, wrong) == (0, "")
    assert re.fullmatch("(tea|coffee) for [1-9]\n", said)


async def test_answers_that_cannot_follow(address: str, tmp_path: Path) -> None:
    code, _, wrong = await chat(address, "--regex", "(")
    assert code == 1
    assert "The option at fault is --regex." in wrong
    code, said, wrong = await chat(address, "--regex", "t{40}", "--max-tokens", "2")
    assert (code, said.strip("t")) == (1, "\n")
    assert "The option at fault is --max-tokens." in wrong
