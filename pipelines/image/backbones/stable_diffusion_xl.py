"""Stable Diffusion XL (Podell et al. 2023): a U-Net told by two CLIP text encoders, and the size drawn
("micro-conditioning": original size, crop, target size)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import torch

from pipelines.errors import Unsupported
from pipelines.image.backbones.base import Conditioning, Pass, stacked
from pipelines.image.backbones.stable_diffusion import StableDiffusion
from pipelines.image.backbones.text import clip_states, ids_of

PARTS: Final = {
    "unet": ("UNet2DConditionModel",),
    "text_encoder": ("CLIPTextModel",),
    "text_encoder_2": ("CLIPTextModelWithProjection",),
    "tokenizer": ("CLIPTokenizer",),
    "tokenizer_2": ("CLIPTokenizer",),
}
UNSUPPORTED: Final = {"unet": ("class_embed_type", "encoder_hid_dim")}


class StableDiffusionXl(StableDiffusion):
    """`Backbone` of the family."""

    def __init__(self, parts: Mapping[str, Any], index: Mapping[str, Any]) -> None:
        super().__init__(parts, index)
        self._zeros_for_empty = bool(index.get("force_zeros_for_empty_prompt", True))
        kind = self.network.config.addition_embed_type
        if kind != "text_time":
            raise Unsupported(f"unet/config.json: addition_embed_type {kind!r} is not supported")

    def _told(self, passes: Sequence[Pass]) -> dict[str, torch.Tensor]:
        states, pooled = [], torch.empty(0)
        for which, encoder in enumerate(self.encoders):
            seen, pooled = clip_states(encoder, ids_of(passes, which, encoder))
            states.append(seen)
        text = torch.cat(states, dim=-1)
        if self._zeros_for_empty:
            kept = torch.tensor([[float(not each.empty)] for each in passes]).to(text)
            text, pooled = text * kept[:, :, None], pooled * kept
        sizes = [(each.height, each.width, 0, 0, each.height, each.width) for each in passes]
        return {"text": text, "pooled": pooled, "sizes": torch.tensor(sizes).to(text)}

    def _added(self, conditioning: Sequence[Conditioning]) -> dict[str, torch.Tensor] | None:
        return {
            "text_embeds": stacked(conditioning, "pooled"),
            "time_ids": stacked(conditioning, "sizes"),
        }

    def _text_width(self) -> int:
        return sum(int(encoder.config.hidden_size) for encoder in self.encoders)
