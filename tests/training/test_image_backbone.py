"""Training of both backbones: resumable, the transformer blind to padding, the U-Net not."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from training.image_backbone import (
    CELL_LOGITS,
    Backbone,
    Trainer,
    averaged,
    cell_loss,
    draw_times,
    train_backbone,
)
from training.image_dit import DitBackbone
from training.image_pool import CAPTIONS_EACH
from training.image_text import MAX_TOKENS, make_tokenizer, new_text_encoder
from training.image_unet import UnetBackbone

TEXTS = ["a red star", "two blue boats next to a small green tree", ""]


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("work")
    torch.manual_seed(0)
    tokenizer = make_tokenizer(folder / "tokenizer", captions=2000)
    torch.save(new_text_encoder(tokenizer).state_dict(), folder / "text.pt")
    shard = {
        "latents": torch.randn(8, 4, 16, 16).half(),
        "cells": torch.zeros(8, 2, 16, 16, dtype=torch.uint8),
        "captions": [["a red star"] * CAPTIONS_EACH] * 8,
    }
    torch.save(shard, folder / "pool_000.pt")
    torch.set_num_threads(1)
    return folder


@pytest.mark.parametrize("backbone", [UnetBackbone, DitBackbone])
def test_shapes_and_an_untrained_network_predicts_zero(work: Path, backbone: type[Backbone]) -> None:
    trainer = Trainer(work, backbone(), "cpu")
    noise = torch.randn(3, 4, 16, 16)
    predicted, logits = trainer.backbone(noise, torch.tensor([0, 500, 999]), trainer.encode(TEXTS))
    assert predicted.shape == noise.shape
    assert float(predicted.detach().abs().max()) == 0.0
    assert logits.shape == (3, CELL_LOGITS, 16, 16)


@pytest.mark.parametrize("backbone", [UnetBackbone, DitBackbone])
def test_training_goes_on_where_it_stopped(work: Path, backbone: type[Backbone]) -> None:
    first, second = backbone(), backbone()
    first.batch = second.batch = 2
    train_backbone(work, first, hours=0.3 / 3600)
    before = averaged(work, backbone())[0].state_dict()
    resumed = Trainer(work, second, "cpu")
    assert resumed.resume()
    assert resumed.step >= 1
    for name, value in first.network.state_dict().items():
        assert torch.equal(value, second.network.state_dict()[name])
    train_backbone(work, second, hours=resumed.spent_s / 3600 + 0.3 / 3600)
    after = Trainer(work, backbone(), "cpu")
    after.resume()
    assert after.step > resumed.step
    assert any(not torch.equal(value, before[name]) for name, value in second.network.state_dict().items())


def test_the_transformer_does_not_listen_to_padding(work: Path) -> None:
    torch.manual_seed(1)
    trainer = Trainer(work, DitBackbone(), "cpu")
    torch.nn.init.normal_(trainer.backbone.network.proj_out.weight)
    noise, times = torch.randn(1, 4, 16, 16), torch.tensor([700])
    alone = trainer.backbone(noise, times, trainer.encode(TEXTS[:1]))[0]
    padded = trainer.encode(TEXTS)
    beside = trainer.backbone(noise, times, type(padded)(padded.states[:1], padded.mask[:1]))[0]
    assert padded.mask[0].sum() < padded.mask.shape[1]
    torch.testing.assert_close(alone, beside, atol=1e-4, rtol=1e-4)


def test_the_unet_gets_captions_padded_as_stable_diffusion_pads_them(work: Path) -> None:
    trainer = Trainer(work, UnetBackbone(), "cpu")
    assert trainer.encode(TEXTS).states.shape == (3, MAX_TOKENS, 128)


def test_labels_of_cells_are_learned_from_the_right_channels() -> None:
    cells = torch.from_numpy(np.stack([np.full((16, 16), 3), np.full((16, 16), 7)])[None])
    right = torch.zeros(1, CELL_LOGITS, 16, 16)
    right[:, 3], right[:, 13 + 7] = 20.0, 20.0
    assert float(cell_loss(right, cells)) < 1e-3
    assert float(cell_loss(right.roll(1, dims=1), cells)) > 10


def test_a_stage_says_what_is_missing(tmp_path: Path, work: Path) -> None:
    with pytest.raises(FileNotFoundError, match="run the stage `text` first"):
        train_backbone(tmp_path, UnetBackbone(), hours=0.001)
    other = DitBackbone()
    other.name = "other"
    with pytest.raises(FileNotFoundError, match="run the stage `other` first"):
        averaged(work, other)


def test_times_are_densest_where_places_are_settled() -> None:
    torch.manual_seed(3)
    times = torch.cat([draw_times(50) for _ in range(400)])
    shares = torch.histc(times.float(), 10, 0, 1000) / len(times)
    assert times.dtype == torch.int64
    assert 5 <= int(shares.argmax()) <= 7
    assert float(shares.min()) > 0.025
