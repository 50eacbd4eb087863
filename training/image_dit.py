"""The transformer backbone: diffusers' PixArtTransformer2DModel (Chen et al. 2024).

64 tokens of 2x2 latents, each block with self-attention, cross-attention to the caption, and scale and shift
by time. `image_backbone` trains it, by Muon (Jordan et al. 2024) on the blocks' matrices, AdamW on the rest.
"""

from __future__ import annotations

from typing import Any, Final

import torch
from diffusers import PixArtTransformer2DModel
from diffusers.models.attention_processor import AttnProcessor

from training.image_backbone import CELL_LOGITS, Backbone, Caption
from training.image_text import TEXT_WIDTH

_HEADS: Final = 4
_LAYERS: Final = 4
_PATCH: Final = 2
_SIDE: Final = 16 // _PATCH


def new_dit() -> Any:
    """An untrained transformer of 1.2 M parameters, as wide as the text encoder."""
    dit = PixArtTransformer2DModel(
        num_attention_heads=_HEADS,
        attention_head_dim=TEXT_WIDTH // _HEADS,
        in_channels=4,
        out_channels=4,
        num_layers=_LAYERS,
        cross_attention_dim=TEXT_WIDTH,
        sample_size=16,
        patch_size=_PATCH,
        use_additional_conditions=False,
    )
    torch.nn.init.zeros_(dit.proj_out.weight)
    torch.nn.init.zeros_(dit.proj_out.bias)
    return dit


class DitBackbone(Backbone):
    """The head reads the tokens after three quarters of the blocks."""

    name, whole_captions, batch, peak_rate = "dit", False, 48, 2e-3

    def __init__(self) -> None:
        super().__init__()
        self.network = new_dit()
        self.head = torch.nn.Linear(TEXT_WIDTH, CELL_LOGITS * _PATCH**2)
        self.network.set_attn_processor(AttnProcessor())

    def optimisers(self) -> list[torch.optim.Optimizer]:
        """Muon for the matrices of the blocks, AdamW for all else, at one learning rate."""
        blocks = [p for p in self.network.transformer_blocks.parameters() if p.ndim == 2 and min(p.shape) > 6]
        chosen = {id(parameter) for parameter in blocks}
        others = [parameter for parameter in self.parameters() if id(parameter) not in chosen]
        return [
            torch.optim.Muon(
                blocks, lr=self.peak_rate, weight_decay=0.01, adjust_lr_fn="match_rms_adamw", ns_steps=4
            ),
            torch.optim.AdamW(others, lr=self.peak_rate, betas=(0.9, 0.98), weight_decay=0.01),
        ]

    def forward(
        self, latents: torch.Tensor, times: torch.Tensor, caption: Caption
    ) -> tuple[torch.Tensor, torch.Tensor]:
        seen: list[torch.Tensor] = []
        block = self.network.transformer_blocks[_LAYERS * 3 // 4 - 1]
        hook = block.register_forward_hook(lambda _m, _i, output: seen.append(output))
        try:
            predicted = self.network(
                latents,
                encoder_hidden_states=caption.states,
                encoder_attention_mask=caption.mask,
                timestep=times,
                added_cond_kwargs={"resolution": None, "aspect_ratio": None},
                return_dict=False,
            )[0]
        finally:
            hook.remove()
        logits = self.head(seen[0]).view(-1, _SIDE, _SIDE, _PATCH, _PATCH, CELL_LOGITS)
        return predicted, logits.permute(0, 5, 1, 3, 2, 4).reshape(-1, CELL_LOGITS, 16, 16)
