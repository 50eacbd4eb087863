"""Stable Diffusion 1.x and 2.x (Rombach et al. 2022): a U-Net told by one CLIP text encoder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import torch

from pipelines.errors import ModelBroken, Unsupported
from pipelines.image.backbones.base import Conditioning, Pass, Prompt, Tokens, stacked
from pipelines.image.divisible import divisible, plain

PARTS: Final = {
    "unet": ("UNet2DConditionModel",),
    "text_encoder": ("CLIPTextModel",),
    "tokenizer": ("CLIPTokenizer",),
}
UNSUPPORTED: Final = {
    "unet": ("class_embed_type", "addition_embed_type", "time_cond_proj_dim", "encoder_hid_dim"),
    "text_encoder": ("use_attention_mask",),
}


class StableDiffusion:
    """`Backbone` of the family."""

    def __init__(self, parts: Mapping[str, Any]) -> None:
        self.network = parts["unet"]
        self._encoder, self._tokenizer = parts["text_encoder"], parts["tokenizer"]
        self.encoders = (self._encoder,)
        _check(self.network.config, self._encoder.config, len(self._tokenizer))

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
        return int(self._tokenizer.model_max_length)

    def guided(self, guidance: float) -> bool:
        return guidance > 1

    def tokenize(self, texts: list[str]) -> list[Prompt]:
        return [(tokens,) for tokens in clip_tokens(self._tokenizer, texts)]

    def encode(self, passes: Sequence[Pass]) -> list[Conditioning]:
        device = next(self._encoder.parameters()).device
        ids = torch.tensor([each.prompt[0].ids for each in passes], device=device)
        config = self._encoder.config
        macs = ids.numel() * config.hidden_size * config.intermediate_size
        states = plain(self._encoder(divisible(ids, macs)).last_hidden_state)
        return [Conditioning({"text": text.clone()}) for text in torch.split(states, 1)]

    def evaluate(
        self, latents: torch.Tensor, times: torch.Tensor, conditioning: Sequence[Conditioning]
    ) -> torch.Tensor:
        macs = unet_macs(self.network, latents)
        text = divisible(stacked(conditioning, "text"), macs)
        raw = self.network(divisible(latents, macs), times, encoder_hidden_states=text, return_dict=False)[0]
        return plain(raw)


def clip_tokens(tokenizer: Any, texts: list[str]) -> list[Tokens]:
    """As diffusers does it: padded to the full length, what is longer is cut."""
    length = tokenizer.model_max_length
    rows = tokenizer(texts, padding="max_length", max_length=length, truncation=True).input_ids
    return [Tokens(tuple(ids), length) for ids in rows]


def unet_macs(unet: Any, latents: torch.Tensor) -> int:
    """Multiply-adds of the longest operation: a 3x3 convolution of the top level, from the channels of two
    levels to those of the first; or the top level's attention, a quarter of whose cost is its softmax."""
    inputs, _, height, width = latents.shape
    top: int = unet.config.block_out_channels[0]
    return inputs * max(height * width * 27 * top**2, (height * width) ** 2 * 4 * top)


def _check(unet: Any, text: Any, tokens: int) -> None:
    """Parts that do not belong together."""
    if unet.in_channels != unet.out_channels:
        raise Unsupported(
            f"unet/config.json: {unet.in_channels} channels in and {unet.out_channels} out are not supported"
        )
    if unet.sample_size is None:
        raise ModelBroken("unet/config.json: sample_size is missing")
    if unet.cross_attention_dim != text.hidden_size:
        raise ModelBroken(
            f"unet/config.json: cross_attention_dim {unet.cross_attention_dim} differs from"
            f" the text encoder's hidden_size {text.hidden_size}"
        )
    check_vocabulary("tokenizer", tokens, "text_encoder", text.vocab_size)


def check_vocabulary(tokenizer: str, tokens: int, encoder: str, known: int) -> None:
    """Raises: ModelBroken where the tokenizer has words that the encoder does not know."""
    if tokens > known:
        raise ModelBroken(f"{tokenizer}: {tokens} tokens, but {encoder} has {known}")
