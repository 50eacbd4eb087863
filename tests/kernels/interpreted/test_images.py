"""Networks of images, and a whole image from noise to pixels, with every kernel that they call, against the
same without."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import UNet2DConditionModel

from kernels.timings import forced
from pipelines.image.fused import fuse
from pipelines.image.pipeline import ImagePipeline
from tests.pipelines.image.tiny import flux_inputs, flux_transformer

KERNELS = ("group_norm_silu", "modulate")


@torch.inference_mode()
def test_an_evaluation_of_a_unet_is_the_same() -> None:
    torch.manual_seed(0)
    network = UNet2DConditionModel(
        sample_size=4,
        block_out_channels=(4,),
        layers_per_block=1,
        down_block_types=("DownBlock2D",),
        up_block_types=("UpBlock2D",),
        cross_attention_dim=8,
        attention_head_dim=4,
        norm_num_groups=2,
    ).eval()
    given = (torch.randn(2, 4, 4, 4), torch.tensor([3.0, 700.0]), torch.randn(2, 5, 8))
    expected = network(*given).sample
    assert fuse(network) == 11
    with forced(*KERNELS):
        torch.testing.assert_close(network(*given).sample, expected, atol=1e-4, rtol=1e-4)


@torch.inference_mode()
def test_an_evaluation_of_a_transformer_is_the_same() -> None:
    torch.manual_seed(0)
    network = flux_transformer(num_single_layers=1).eval()
    given = flux_inputs()
    expected = network(**given).sample
    assert fuse(network) == 4
    with forced(*KERNELS):
        torch.testing.assert_close(network(**given).sample, expected, atol=1e-4, rtol=1e-4)


@pytest.fixture(scope="module")
def tiny() -> Any:
    """The tiny model of the image tests, and its driver."""
    path = Path(__file__).parents[2] / "pipelines" / "image" / "conftest.py"
    spec = importlib.util.spec_from_file_location("tiny_images", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.slow
def test_an_image_is_the_same(tiny: Any, tmp_path: Path) -> None:
    pipeline = ImagePipeline.load(tiny.make_folder(tmp_path / "model"), name="tiny")
    driver = tiny.Driver(pipeline)
    pictures = []
    with torch.inference_mode():
        for on in ((), KERNELS):
            with forced(*on):
                job = driver.admit(width=64, height=64, steps=2, seed=3)
                driver.finish(job)
            pictures.append(driver.image(job).astype(np.int32))
            for module in pipeline._parts.modules:
                fuse(module)
    assert pictures[0].shape == (64, 64, 3)
    assert np.abs(pictures[0] - pictures[1]).max() <= 1
