"""The U-Net backbone: diffusers' UNet2DConditionModel, deep and narrow, trained by `image_backbone`."""

from __future__ import annotations

from typing import Any, Final

import torch
from diffusers import UNet2DConditionModel
from diffusers.models.attention_processor import AttnProcessor

from training.image_backbone import CELL_LOGITS, Backbone, Caption
from training.image_text import TEXT_WIDTH

_WIDTHS: Final = (64, 96, 96)


def new_unet() -> Any:
    """An untrained U-Net of about 4 M parameters: three levels, cross attention at 8x8 and 4x4."""
    unet = UNet2DConditionModel(
        sample_size=16,
        in_channels=4,
        out_channels=4,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        block_out_channels=_WIDTHS,
        layers_per_block=1,
        cross_attention_dim=TEXT_WIDTH,
        attention_head_dim=4,
        norm_num_groups=16,
    )
    torch.nn.init.zeros_(unet.conv_out.weight)
    torch.nn.init.zeros_(unet.conv_out.bias)
    return unet


class UnetBackbone(Backbone):
    """The head reads what the second up block hands on to the level of 16x16."""

    name, whole_captions, batch, peak_rate = "unet", True, 24, 1e-3

    def __init__(self) -> None:
        super().__init__()
        self.network = new_unet()
        self.head = torch.nn.Conv2d(_WIDTHS[1], CELL_LOGITS, 1)
        # The fused attention's backward pass is slow on a CPU for short sequences and narrow heads.
        self.network.set_attn_processor(AttnProcessor())

    def forward(
        self, latents: torch.Tensor, times: torch.Tensor, caption: Caption
    ) -> tuple[torch.Tensor, torch.Tensor]:
        seen: list[torch.Tensor] = []
        hook = self.network.up_blocks[1].register_forward_hook(lambda _m, _i, output: seen.append(output))
        try:
            predicted = self.network(latents, times, caption.states).sample
        finally:
            hook.remove()
        return predicted, self.head(seen[0])
