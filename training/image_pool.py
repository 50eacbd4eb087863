"""Precomputed training data for the backbones: latents of rendered pictures, each with several captions.

A shard `pool_NNN.pt` holds {"latents": float16 (n, 4, 16, 16), "cells": uint8 (n, 2, 16, 16) as of
`image_cells`, "captions": n lists of strings}. Shards are
written one after another, so that a backbone can train on the first ones while the later ones are
still being made.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import numpy as np
import torch

from training.image_captions import caption
from training.image_cells import cells
from training.image_clock import TrainingClock
from training.image_renderer import render_placed
from training.image_scene import draw_scene, is_held_out
from training.image_vae import Pictures, encode

SHARD: Final = 512
CAPTIONS_EACH: Final = 4
_PAIRS: Final = 0.5  # share of two-object scenes: they take longest to learn


def _make_shard(vae: Any, rng: np.random.Generator) -> dict[str, Any]:
    pictures: list[Pictures] = []
    captions: list[list[str]] = []
    labels: list[Pictures] = []
    while len(pictures) < SHARD:
        scene = draw_scene(rng, pairs=_PAIRS)
        if is_held_out(scene):
            continue
        picture, placed = render_placed(scene, rng)
        pictures.append(picture)
        labels.append(cells(placed))
        captions.append([caption(scene, rng) for _ in range(CAPTIONS_EACH)])
    with torch.autocast("cpu", torch.bfloat16):  # half the time, and 1 % of noise
        latents = encode(vae, np.stack(pictures)).half()
    return {"latents": latents, "cells": torch.from_numpy(np.stack(labels)), "captions": captions}


def make_pool(vae: Any, work: Path, shards: int, hours: float, seed: int = 100) -> None:
    """Writes the shards that are still missing, up to `shards`, for at most `hours`."""
    with TrainingClock(hours) as clock:
        for index in range(shards):
            path = work / f"pool_{index:03d}.pt"
            if path.exists() or clock.progress >= 1.0:
                continue
            torch.save(_make_shard(vae, np.random.default_rng(seed + index)), path.with_suffix(".tmp"))
            path.with_suffix(".tmp").replace(path)
            clock.report(f"pool shard {index + 1} of {shards}")


def _two_kinds(cells: torch.Tensor) -> Any:
    """Which pictures show two kinds of objects: bool array (n,), for labels uint8 (n, 2, 16, 16)."""
    kinds = cells[:, 0].flatten(1).int()
    first = kinds.amax(1, keepdim=True)
    return ((kinds > 0) & (kinds != first)).any(1).numpy()


class LatentPool:
    """All shards of a folder; `refresh` picks up new ones. Draws random batches of latents with captions.

    Pictures of two kinds of objects are drawn twice as often as others: they take longest to learn.
    """

    def __init__(self, work: Path, seed: int) -> None:
        self._work, self._rng = work, np.random.default_rng(seed)
        self._known: set[Path] = set()
        self._latents = torch.empty(0, 4, 16, 16, dtype=torch.float16)
        self._cells = torch.empty(0, 2, 16, 16, dtype=torch.uint8)
        self._captions: list[list[str]] = []
        self._bounds = np.empty(0)
        self.refresh()
        if not self._captions:
            raise FileNotFoundError(f"no pool_*.pt in {work}: run the stage `pool` first")

    def refresh(self) -> None:
        """Adds shards that were written since the last call."""
        for path in sorted(set(self._work.glob("pool_*.pt")) - self._known):
            shard = torch.load(path, weights_only=True)
            self._latents = torch.cat([self._latents, shard["latents"]])
            self._cells = torch.cat([self._cells, shard["cells"]])
            self._captions.extend(shard["captions"])
            self._known.add(path)
        if len(self):
            self._bounds = np.cumsum(1.0 + _two_kinds(self._cells))

    def __len__(self) -> int:
        return len(self._captions)

    def batch(self, size: int, empty_share: float = 0.1) -> tuple[torch.Tensor, torch.Tensor, list[str]]:
        """Latents, float32 (size, 4, 16, 16), labels of their cells, uint8 (size, 2, 16, 16), and captions,
        `empty_share` of which are "" (for guidance)."""
        rows = np.searchsorted(self._bounds, self._rng.random(size) * self._bounds[-1], side="right")
        texts = [self._captions[row][int(self._rng.integers(CAPTIONS_EACH))] for row in rows]
        kept = ["" if self._rng.random() < empty_share else text for text in texts]
        chosen = torch.from_numpy(rows)
        return self._latents[chosen].float(), self._cells[chosen], kept
