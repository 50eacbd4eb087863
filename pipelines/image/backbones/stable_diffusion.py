"""Stable Diffusion 1.x and 2.x (Rombach et al. 2022): a U-Net told by one CLIP text encoder.

Latent consistency models (Luo et al. 2023) are the same with guidance distilled into the U-Net, which is told
its strength as an embedding: one pass, and four steps or so.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import torch

from pipelines.errors import ModelBroken, Unsupported
from pipelines.image.backbones.base import Conditioning, Pass, Prompt, stacked
from pipelines.image.backbones.text import check_vocabulary, ids_of, padded_tokens
from pipelines.image.divisible import divisible, plain

PARTS: Final = {
    "unet": ("UNet2DConditionModel",),
    "text_encoder": ("CLIPTextModel",),
    "tokenizer": ("CLIPTokenizer",),
}
UNSUPPORTED: Final = {
    "unet": ("class_embed_type", "addition_embed_type", "encoder_hid_dim"),
    "text_encoder": ("use_attention_mask",),
}


class StableDiffusion:
    """`Backbone` of the family."""

    takes_negative = True
    largest = 0

    def __init__(self, parts: Mapping[str, Any], index: Mapping[str, Any]) -> None:
        self.network = parts["unet"]
        self._tokenizers = tuple(parts[name] for name in sorted(parts) if name.startswith("tokenizer"))
        self.encoders = tuple(parts[name] for name in sorted(parts) if name.startswith("text_encoder"))
        self._check()

    @property
    def channels(self) -> int:
        return int(self.network.config.in_channels)

    @property
    def own_size(self) -> tuple[int, int]:
        side = self.network.config.sample_size
        height, width = (side, side) if isinstance(side, int) else side
        return width, height

    @property
    def multiple(self) -> int:
        return 1 << (len(self.network.config.block_out_channels) - 1)

    @property
    def context_tokens(self) -> int:
        return int(self._tokenizers[0].model_max_length)

    @property
    def distilled(self) -> bool:
        """Whether guidance is told as an embedding."""
        return self.network.config.time_cond_proj_dim is not None

    def guided(self, guidance: float) -> bool:
        return guidance > 1 and not self.distilled

    def tokenize(self, texts: list[str]) -> list[Prompt]:
        return list(zip(*(padded_tokens(each, texts) for each in self._tokenizers), strict=True))

    def encode(self, passes: Sequence[Pass]) -> list[Conditioning]:
        told = self._told(passes)
        if self.distilled:
            told["guidance"] = self._guidance(passes).to(next(iter(told.values())))
        rows = range(len(passes))
        return [Conditioning({name: each[n : n + 1].clone() for name, each in told.items()}) for n in rows]

    def evaluate(
        self, latents: torch.Tensor, times: torch.Tensor, conditioning: Sequence[Conditioning]
    ) -> torch.Tensor:
        macs = unet_macs(self.network, latents)
        raw = self.network(
            divisible(latents, macs),
            times,
            encoder_hidden_states=divisible(stacked(conditioning, "text"), macs),
            timestep_cond=stacked(conditioning, "guidance") if self.distilled else None,
            added_cond_kwargs=self._added(conditioning),
            return_dict=False,
        )[0]
        return plain(raw)

    def _told(self, passes: Sequence[Pass]) -> dict[str, torch.Tensor]:
        """Of all passes, by name, the first dimension theirs."""
        (encoder,) = self.encoders
        ids = ids_of(passes, 0, encoder)
        macs = ids.numel() * encoder.config.hidden_size * encoder.config.intermediate_size
        return {"text": plain(encoder(divisible(ids, macs)).last_hidden_state)}

    def _added(self, conditioning: Sequence[Conditioning]) -> dict[str, torch.Tensor] | None:
        """What the U-Net is told beside the text."""
        return None

    def _guidance(self, passes: Sequence[Pass]) -> torch.Tensor:
        """Sines and cosines of the strength, as of a time (passes, width)."""
        width = int(self.network.config.time_cond_proj_dim)
        half = width // 2
        steps = torch.exp(torch.arange(half) * -(torch.log(torch.tensor(10000.0)) / (half - 1)))
        strength = torch.tensor([each.guidance - 1 for each in passes])
        angles = strength[:, None] * 1000.0 * steps
        waves = torch.cat([torch.sin(angles), torch.cos(angles)], dim=1)
        return torch.nn.functional.pad(waves, (0, width - 2 * half))

    def _text_width(self) -> int:
        return int(self.encoders[0].config.hidden_size)

    def _check(self) -> None:
        """Parts that do not belong together."""
        unet, width = self.network.config, self._text_width()
        if unet.in_channels != unet.out_channels:
            raise Unsupported(
                f"unet/config.json: {unet.in_channels} channels in and {unet.out_channels} out are not"
                " supported"
            )
        if unet.sample_size is None:
            raise ModelBroken("unet/config.json: sample_size is missing")
        if unet.cross_attention_dim != width:
            raise ModelBroken(
                f"unet/config.json: cross_attention_dim {unet.cross_attention_dim} differs from"
                f" the text encoder's hidden_size {width}"
            )
        for number, (tokenizer, encoder) in enumerate(zip(self._tokenizers, self.encoders, strict=True), 1):
            end = f"_{number}" if number > 1 else ""
            known = encoder.config.vocab_size
            check_vocabulary(f"tokenizer{end}", len(tokenizer), f"text_encoder{end}", known)


def unet_macs(unet: Any, latents: torch.Tensor) -> int:
    """Multiply-adds of the longest operation: a 3x3 convolution of the top level, from the channels of two
    levels to those of the first; or the top level's attention, a quarter of whose cost is its softmax."""
    inputs, _, height, width = latents.shape
    top: int = unet.config.block_out_channels[0]
    return inputs * max(height * width * 27 * top**2, (height * width) ** 2 * 4 * top)
