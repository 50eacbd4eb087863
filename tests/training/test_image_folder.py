"""The committed image models: diffusers' layouts, small, and good enough for their floors."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from training.eval_image import judge, unseen, vae_psnr
from training.image_drawing import BACKBONES, load, own_guidance

UNET, DIT = BACKBONES["unet"], BACKBONES["dit"]


def _index(folder: Path) -> dict[str, object]:
    content: dict[str, object] = json.loads((folder / "model_index.json").read_text(encoding="utf-8"))
    return content


def _own_bytes(folder: Path) -> int:
    """What git stores of a folder: links count as nothing."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file() and not path.is_symlink())


def test_layouts() -> None:
    assert _index(UNET)["_class_name"] == "StableDiffusionPipeline"
    assert _index(UNET)["requires_safety_checker"] is False
    assert _index(DIT)["_class_name"] == "PixArtSigmaPipeline"
    for part in ("scheduler", "text_encoder", "tokenizer", "unet", "vae"):
        assert (UNET / part).is_dir()


def test_the_transformer_takes_its_other_parts_from_the_unets_folder() -> None:
    for part in ("text_encoder", "tokenizer", "vae"):
        assert (DIT / part).is_symlink()
        assert (DIT / part).resolve() == (UNET / part).resolve()


def test_both_together_stay_below_14_mb() -> None:
    assert _own_bytes(UNET) + _own_bytes(DIT) <= 14_000_000


@pytest.mark.parametrize("folder", [UNET, DIT])
def test_diffusers_draws_with_it(folder: Path) -> None:
    pictures, _ = judge(load(folder), unseen(1, seed=1), own_guidance(folder), steps=2)
    assert pictures.shape == (1, 128, 128, 3)
    assert pictures.std() > 5


@pytest.mark.slow
@pytest.mark.parametrize("folder", [UNET, DIT])
def test_colours_and_shapes_are_right_for_most_unseen_captions(folder: Path) -> None:
    _, verdicts = judge(load(folder), unseen(40, seed=2026), own_guidance(folder), steps=28)
    assert np.mean([verdict.objects for verdict in verdicts]) >= 0.6


@pytest.mark.slow
def test_the_autoencoder_keeps_detail() -> None:
    assert vae_psnr(load(UNET)) >= 28.0
