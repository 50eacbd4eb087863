"""What transformers share that are told by a text through cross-attention which leaves out padding."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from pipelines.errors import Unsupported
from pipelines.image.backbones.base import Conditioning, PatchTransformer, stacked
from pipelines.image.backbones.text import transformer_macs
from pipelines.image.divisible import divisible, plain


class MaskedTextTransformer(PatchTransformer):
    """Conditioning has "text" (1, tokens, width) and "mask" (1, tokens), 0 at padding."""

    control = None
    takes_negative = True
    distilled = False
    largest = 0

    def predict(
        self, latents: torch.Tensor, times: torch.Tensor, conditioning: Sequence[Conditioning], **told: Any
    ) -> torch.Tensor:
        """One call of the network, times as it counts them. told: what else it wants to know."""
        config = self.network.config
        macs = transformer_macs(
            latents, config.patch_size, config.num_attention_heads, config.attention_head_dim
        )
        raw = self.network(
            divisible(latents, macs),
            encoder_hidden_states=divisible(stacked(conditioning, "text"), macs),
            encoder_attention_mask=stacked(conditioning, "mask"),
            timestep=times,
            return_dict=False,
            **told,
        )[0]
        return plain(raw)[:, : self.channels]  # the rest is a predicted variance, which no sampler uses

    def check_channels(self) -> None:
        """Raises: Unsupported where more comes out than a prediction and its variance."""
        config = self.network.config
        if config.out_channels not in (config.in_channels, 2 * config.in_channels):
            raise Unsupported(
                f"transformer/config.json: {config.in_channels} channels in and {config.out_channels} out"
                " are not supported"
            )
