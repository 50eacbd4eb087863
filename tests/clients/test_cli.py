"""The command as a user starts it: a process of its own."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner
from upbeat.v1 import gateway_pb2 as gateway
from upbeat.v1 import types_pb2 as types

from clients.cli import app
from tests.clients.scripted_gateway import Script, status

ROOT = Path(__file__).parents[2]
ENVIRONMENT = os.environ | {"PYTHONPATH": f"{ROOT}:{ROOT / 'protos'}", "COLUMNS": "200"}


async def upbeat(
    *arguments: str, stdin: str = "", module: str = "clients.cli", folder: Path = ROOT
) -> tuple[int, str]:
    """Exit code and output of one run in a folder."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-P", "-m", module),
        *arguments,
        cwd=folder,
        env=ENVIRONMENT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    output, _ = await asyncio.wait_for(process.communicate(stdin.encode()), 60)
    assert process.returncode is not None
    return process.returncode, output.decode()


async def test_without_a_gateway_it_says_how_to_start_one() -> None:
    code, output = await upbeat("models", "--server", "127.0.0.1:1")
    assert code == 1
    assert "There is no gateway at 127.0.0.1:1." in output
    assert "upbeat serve" in output


async def test_the_servers_refusal_is_told_with_option_and_time(target: str, script: Script) -> None:
    script.scripts.append([status(8, "steps: at most 150, not 10000", "image.steps", retry_s=2)])
    code, output = await upbeat("draw", "a boat", "-o", "a.png", "--steps", "10000", "--server", target)
    assert code == 1
    for words in (
        "at most 150, not 10000",
        "option at fault is --steps",
        "Try again in 2 s.",
        "RESOURCE_EXHAUSTED",
    ):
        assert words in output


def test_what_no_call_could_be_made_with_is_told() -> None:
    arguments = ["models", "--server", "127.0.0.1:1", "--token", "ü"]
    result = CliRunner().invoke(app, arguments, env={"COLUMNS": "200"})
    assert result.exit_code == 1
    assert "printable ASCII" in result.output


async def test_what_is_no_text_is_told(target: str) -> None:
    code, output = await upbeat("say", "\udcff", "-o", "a.wav", "--server", target)
    assert (code, output) == (1, r"'\udcff' is not UTF-8" + "\n")


async def test_a_question_without_sound_is_told(target: str) -> None:
    assert await upbeat("ask", "-", "--server", target) == (1, "standard input: there is no sound in it\n")


async def test_a_turn_that_fails_ends_a_chat_from_a_pipe(target: str, script: Script) -> None:
    error = status(3, "sampling.regex: not together with json_schema", "sampling.regex").SerializeToString()
    done = types.DoneEvent(finish_reason=types.FINISH_REASON_FAILED, error=error)
    script.scripts.append([gateway.ConverseResponse(turn_id="t1", sequence=1, turn_done=done)])
    code, output = await upbeat("chat", "--server", target, stdin="one\ntwo\n")
    assert (code, output.splitlines()[1]) == (1, "The option at fault is --regex.")


async def test_an_answer_that_was_cut_does_not_follow_its_expression(target: str, script: Script) -> None:
    token = types.TokenEvent(text="aa", tokens=2)
    done = types.DoneEvent(finish_reason=types.FINISH_REASON_LENGTH)
    script.scripts.append(
        [
            gateway.ConverseResponse(turn_id="t1", sequence=1, token=token),
            gateway.ConverseResponse(turn_id="t1", sequence=2, turn_done=done),
        ]
    )
    asked = ("--regex", "a{3}", "--max-tokens", "2")
    code, output = await upbeat("chat", *asked, "--server", target, stdin="one\n")
    assert script.heard[0][0].start.sampling == types.Sampling(regex="a{3}", max_tokens=2)
    assert code == 1
    assert "The option at fault is --max-tokens." in output


async def test_chat_from_a_pipe(target: str, script: Script, tmp_path: Path) -> None:
    done = types.DoneEvent(finish_reason=types.FINISH_REASON_STOP)

    def turn(name: str, text: str) -> list[object]:
        token = types.TokenEvent(text=text, tokens=1)
        return [
            gateway.ConverseResponse(turn_id=name, sequence=1, token=token),
            gateway.ConverseResponse(turn_id=name, sequence=2, turn_done=done),
        ]

    script.scripts.append(turn("t1", "First.") + turn("t2", "Second."))
    code, output = await upbeat("chat", "--server", target, "--out", str(tmp_path), stdin="one\n\ntwo\n")
    assert (code, output.count("First."), output.count("Second.")) == (0, 1, 1)
    assert [request.commit.text for request in script.heard[0][1:]] == ["one", "two"]


async def test_health_is_an_exit_code(target: str) -> None:
    assert await upbeat(target, module="clients.health") == (0, "SERVING\n")
    code, output = await upbeat("127.0.0.1:1", module="clients.health")
    assert code == 1
    assert "UNAVAILABLE" in output


@pytest.mark.parametrize(
    "command", ["chat", "replay", "say", "draw", "hear", "ask", "trace", "models", "demo"]
)
def test_every_command_explains_itself(command: str) -> None:
    result = CliRunner().invoke(app, [command, "--help"])
    assert result.exit_code == 0
    assert "Usage" in result.output


@pytest.mark.parametrize(
    ("command", "options"),
    [
        (
            "serve",
            (
                "--text",
                "--image",
                "--lora",
                "--speech",
                "--recogniser",
                "--draft",
                "--thinker",
                "--listen",
                "--config",
            ),
        ),
        ("verify", ("--dtype",)),
    ],
)
async def test_what_becomes_another_program_shows_all_its_options(
    command: str, options: tuple[str], tmp_path: Path
) -> None:
    for name in ("server", "pipelines"):  # whatever else is called so where the user stands
        (tmp_path / f"{name}.py").write_text("raise SystemExit('not ours')")
    code, output = await upbeat(command, "--help", folder=tmp_path)
    assert code == 0
    assert f"upbeat {command}" in output
    assert all(option in output for option in options)
