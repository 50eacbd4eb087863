"""Reading the shared data folder. Only its CC-BY, CC0, MIT, BSD and Apache parts may train weights."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent


def data_dir() -> Path | None:
    """The data folder: `UPBEAT_DATA`, else `../shared/data` beside the repository, else None."""
    named = os.environ.get("UPBEAT_DATA")
    if named:
        return Path(named) if Path(named).is_dir() else None
    beside = ROOT.parent / "shared" / "data"
    return beside if beside.is_dir() else None


def records(path: Path) -> Iterator[dict[str, Any]]:
    """The objects of a JSON-lines file, in order."""
    with path.open(encoding="utf-8") as lines:
        for line in lines:
            if line.strip():
                yield json.loads(line)
