"""What options become on the wire, and what is refused before anything is sent."""

from __future__ import annotations

from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner
from upbeat.v1.types_pb2 import LoraWeight, ReferenceImage, Sampling

from clients import options
from clients.cli import app


def refusal(*arguments: str) -> str:
    """What the command says when it refuses its options."""
    result = CliRunner().invoke(app, [*arguments, "--server", "127.0.0.1:1"], env={"COLUMNS": "200"})
    assert result.exit_code == 2, result.output
    return result.output


def test_add_ons() -> None:
    assert options.lora("ink") == LoraWeight(name="ink")
    assert options.lora("ink:0.8") == LoraWeight(name="ink", weight=0.8)
    assert options.lora("a:b:-1") == LoraWeight(name="a:b", weight=-1)
    for wrong in ("", ":1", "ink:", "ink:much"):
        with pytest.raises(typer.BadParameter, match="NAME or NAME:WEIGHT"):
            options.lora(wrong)


def test_sizes() -> None:
    assert options.size("") == (None, None)
    assert options.size("256x128") == (256, 128)
    for wrong in ("big", "256", "256x", "-1x5", "99999999999x64"):
        with pytest.raises(typer.BadParameter, match="WIDTHxHEIGHT"):
            options.size(wrong)


def test_images(tmp_path: Path) -> None:
    picture = tmp_path / "a.png"
    picture.write_bytes(b"123")
    assert options.reference("--start", None, "--strength", None) is None
    assert options.reference("--start", picture, "--strength", None) == ReferenceImage(data=b"123")
    assert options.reference("--start", picture, "--strength", 0.5) == ReferenceImage(
        data=b"123", strength=0.5
    )
    with picture.open("wb") as large:
        large.truncate(options.MAX_IMAGE_BYTES + 1)
    with pytest.raises(typer.BadParameter, match=r"a\.png has more than 16,777,216 bytes"):
        options.reference("--start", picture, "--strength", None)


def test_what_an_answer_must_follow(tmp_path: Path) -> None:
    schema = tmp_path / "a.json"
    schema.write_text('{"type": "string"}')
    assert options.sampling(None, "", None) == Sampling()
    assert options.sampling(schema, "", 9) == Sampling(json_schema='{"type": "string"}', max_tokens=9)
    assert options.sampling(None, "a|b", None) == Sampling(regex="a|b")
    for content, words in ((b"\xff", "not UTF-8"), (b" \n", "is empty"), (b"x" * (1 << 19), "more than")):
        schema.write_bytes(content)
        with pytest.raises(typer.BadParameter, match=words):
            options.sampling(schema, "", None)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ("draw x -o x.png --strength 0.5", ("--strength", "--start FILE")),
        ("draw x -o x.png --control-strength 1", ("--control-strength", "--control FILE")),
        ("draw x -o x.png --start gone.png", ("--start", "does not exist")),
        ("draw x -o x.png --lora ink:much", ("--lora", "NAME:WEIGHT")),
        ("draw x -o x.png --steps 99999999999", ("--steps", "4294967295")),
        ("draw x -o x.png --seed 99999999999999999999999", ("--seed", "18446744073709551615")),
        ("draw x -o x.png --cache much", ("--cache", "balanced or fast")),
        ("draw x -o nowhere/x.png", ("--out", "there is no folder nowhere")),
        ("say x -o /", ("--out", "is a directory")),
        ("ask - -o nowhere/x.wav", ("--out", "there is no folder nowhere")),
        ("trace -o x.json --svg nowhere/x.svg", ("--svg", "there is no folder nowhere")),
        ("chat --schema gone.json", ("--schema", "does not exist")),
        ("chat --ahead far", ("--ahead", "think_ahead")),
        (f"demo --out {__file__}", ("--out", "is a file")),
        (f"demo --ca {__file__}", ("--ca", "test_options.py holds no certificate in PEM")),
        ("models --ca gone.pem", ("--ca", "does not exist")),
    ],
)
def test_refusals_name_the_option(arguments: str, words: tuple[str, str]) -> None:
    said = refusal(*arguments.split())
    assert all(word in said for word in words)
