"""Fused pairs: the same results as diffusers' own operations, wherever no kernel runs."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from diffusers.models.normalization import AdaLayerNormContinuous, AdaLayerNormZero, AdaLayerNormZeroSingle

from pipelines.image.fused import Activation, fuse
from tests.pipelines.image.tiny import flux_inputs, flux_transformer


def unet(**options: Any) -> UNet2DConditionModel:
    return UNet2DConditionModel(
        sample_size=8,
        block_out_channels=(8, 16),
        layers_per_block=1,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        cross_attention_dim=8,
        attention_head_dim=4,
        norm_num_groups=4,
        **options,
    ).eval()


@pytest.mark.parametrize("time_norm", ["default", "scale_shift"])
@torch.inference_mode()
def test_a_unet(time_norm: str) -> None:
    torch.manual_seed(0)
    network = unet(resnet_time_scale_shift=time_norm)
    fused = copy.deepcopy(network)
    blocks = sum(type(module).__name__ == "ResnetBlock2D" for module in network.modules())
    assert fuse(fused) == blocks * (2 if time_norm == "default" else 1) + 1
    given = (torch.randn(2, 4, 8, 8), torch.tensor([3.0, 700.0]), torch.randn(2, 5, 8))
    assert torch.equal(fused(*given).sample, network(*given).sample)


@torch.inference_mode()
def test_a_vae() -> None:
    torch.manual_seed(0)
    network = AutoencoderKL(
        block_out_channels=(8, 16),
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        norm_num_groups=4,
    ).eval()
    fused = copy.deepcopy(network)
    assert fuse(fused) > 10
    latents = torch.randn(1, 4, 6, 6)
    assert torch.equal(fused.decode(latents).sample, network.decode(latents).sample)


@torch.inference_mode()
def test_a_transformer() -> None:
    torch.manual_seed(0)
    network = flux_transformer().eval()
    fused = copy.deepcopy(network)
    assert fuse(fused) == 2 + 2 + 1
    given = flux_inputs()
    torch.testing.assert_close(fused(**given).sample, network(**given).sample, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize(
    "norm",
    [
        AdaLayerNormZero(8, num_embeddings=4),
        AdaLayerNormZero(8, norm_type="fp32_layer_norm"),
        AdaLayerNormContinuous(8, 8),
        AdaLayerNormContinuous(8, 8, elementwise_affine=False, norm_type="rms_norm"),
    ],
)
def test_what_computes_something_else_stays_as_it_is(norm: torch.nn.Module) -> None:
    assert fuse(norm) == 0


def test_norms_of_other_kinds_fuse() -> None:
    assert fuse(AdaLayerNormZeroSingle(8)) == 1
    assert fuse(AdaLayerNormContinuous(8, 8, elementwise_affine=False)) == 1


def test_an_activation_is_for_what_no_norm_activated() -> None:
    activation = Activation(torch.nn.SiLU())
    x = torch.tensor([1.0, -2.0])
    assert torch.equal(activation(x), torch.nn.functional.silu(x))
    x.activated = True  # type: ignore[attr-defined]
    assert activation(x) is x
