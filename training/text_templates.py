"""The template files: `training/templates/NAME.toml`, plain text that anyone may read and extend."""

from __future__ import annotations

import tomllib
from functools import cache
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).resolve().parent / "templates"


@cache
def table(name: str) -> dict[str, Any]:
    """The content of one template file."""
    with (FOLDER / f"{name}.toml").open("rb") as opened:
        return tomllib.load(opened)


def words(text: str) -> list[str]:
    """The words of a line."""
    return text.split()
