"""What a part of `benchmarks.gpu` has found, on disk after every item."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

# What stands for the device where nothing is timed.
DRY = "dry run"


def attempted(make: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """What it makes, or {"broken": what Triton's compiler says}: after that, unlike after an error of the
    device, the process may go on."""
    from triton.errors import TritonError

    try:
        return make()
    except TritonError as error:
        said = f"{type(error).__name__}: {error}"
        print(f"  broken: {said[:300]}", flush=True)
        return {"broken": said[:1500]}


class Book:
    """Items that are there already are not made again; one that is begun (`now`) and never ended is the one
    that ended the process. Owner: the part's process."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.body: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
        self.items: dict[str, Any] = self.body.setdefault("items", {})

    def put(self, **values: Any) -> None:
        """Something about the part as a whole."""
        self.body |= values
        self._save()

    def item(self, name: str, make: Callable[[], Any]) -> None:
        """Make it, unless it is there."""
        if name in self.items:
            return
        self.put(now=name)
        self.items[name] = make()
        self.put(now=None)

    def _save(self) -> None:
        beside = self._path.with_suffix(".new")
        beside.write_text(json.dumps(self.body))
        beside.replace(self._path)
