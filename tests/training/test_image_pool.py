"""The pool of latents: pairs are drawn twice as often, captions are left out now and then."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from training.image_pool import CAPTIONS_EACH, LatentPool


@pytest.fixture
def pool(tmp_path: Path) -> LatentPool:
    """Eight pictures, the last two of them with two kinds of objects, their latents their numbers."""
    cells = torch.zeros(8, 2, 16, 16, dtype=torch.uint8)
    cells[:, :, 2:6] = 4
    cells[6:, :, 9:12] = 7
    shard = {
        "latents": torch.arange(8.0).view(-1, 1, 1, 1).expand(8, 4, 16, 16).half(),
        "cells": cells,
        "captions": [[f"picture {row}"] * CAPTIONS_EACH for row in range(8)],
    }
    torch.save(shard, tmp_path / "pool_000.pt")
    return LatentPool(tmp_path, seed=0)


def test_pictures_of_two_kinds_are_drawn_twice_as_often(pool: LatentPool) -> None:
    latents, _, _ = pool.batch(4000)
    drawn = np.bincount(latents[:, 0, 0, 0].int().numpy(), minlength=8) / 4000
    assert drawn == pytest.approx([0.1] * 6 + [0.2] * 2, abs=0.03)


def test_latents_labels_and_captions_belong_together(pool: LatentPool) -> None:
    latents, cells, texts = pool.batch(200)
    for latent, label, text in zip(latents, cells, texts, strict=True):
        row = int(latent[0, 0, 0])
        assert text in ("", f"picture {row}")
        assert bool((label == 7).any()) == (row >= 6)
    assert 5 <= texts.count("") <= 40


def test_an_empty_folder_names_the_stage_that_is_missing(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="run the stage `pool` first"):
        LatentPool(tmp_path, seed=0)
