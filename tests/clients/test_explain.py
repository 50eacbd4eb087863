"""Errors told to people."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from clients.errors import ClientError
from clients.explain import explain, option_of


def told(error: ClientError) -> str:
    console = Console(file=io.StringIO(), width=40)
    explain(error, "here:1", console)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


@pytest.mark.parametrize(
    ("field", "option"),
    [
        ("image.loras[2].weight", "--lora"),
        ("image.init_image.strength", "--strength"),
        ("image.init_image.data", "--start"),
        ("start.sampling.json_schema", "--schema"),
        ("sampling.regex", "--regex"),
        ("start.model", "--model"),
        ("image.prompt", ""),
        ("", ""),
    ],
)
def test_fields_have_options(field: str, option: str) -> None:
    assert option_of(field) == option


def test_the_option_is_named_in_place_of_the_field() -> None:
    said = told(ClientError("INVALID_ARGUMENT", "must be 1 to 150", field="image.steps", reason="X"))
    assert said.splitlines() == [
        "must be 1 to 150",
        "The option at fault is --steps.",
        "(INVALID_ARGUMENT, X)",
    ]
    assert "The field at fault is commit.text." in told(ClientError("X", "too long", field="commit.text"))


def test_how_to_bring_a_token() -> None:
    assert "--token" in told(ClientError("UNAUTHENTICATED", "this server wants a token"))


def test_why_there_is_no_gateway() -> None:
    said = told(ClientError("UNAVAILABLE", "failed to connect; last error: UNKNOWN: Tls handshake failed"))
    assert said.splitlines()[:2] == ["There is no gateway at here:1.", "(UNKNOWN: Tls handshake failed)"]
    assert "--ca" in said
