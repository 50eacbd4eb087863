"""FLUX.1 (Black Forest Labs 2024): a transformer over packed 2x2 patches and text together, told by T5 and by
CLIP's pooled text; a rectified flow. Guidance is distilled: its strength is an input (dev) or there is none
(schnell), so there is one pass and no negative prompt."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import torch

from pipelines.errors import ModelBroken
from pipelines.image.backbones.base import Conditioning, Pass, Prompt, stacked
from pipelines.image.backbones.text import (
    check_vocabulary,
    ids_of,
    padded_tokens,
    t5_states,
    transformer_macs,
)
from pipelines.image.divisible import divisible, plain

PARTS: Final = {
    "transformer": ("FluxTransformer2DModel",),
    "text_encoder": ("CLIPTextModel",),
    "text_encoder_2": ("T5EncoderModel",),
    "tokenizer": ("CLIPTokenizer",),
    "tokenizer_2": ("T5Tokenizer",),
}
UNSUPPORTED: Final[Mapping[str, tuple[str, ...]]] = {}
_T5_TOKENS: Final = 512
_OWN_SIDE: Final = 128
_TIMES: Final = 1000.0


class Flux:
    """`Backbone` of the family."""

    control = None
    takes_negative = False
    largest = 0
    own_size = (_OWN_SIDE, _OWN_SIDE)
    multiple = 2

    def __init__(self, parts: Mapping[str, Any], index: Mapping[str, Any]) -> None:
        self.network = parts["transformer"]
        self.encoders = (parts["text_encoder"], parts["text_encoder_2"])
        self._tokenizers = (parts["tokenizer"], parts["tokenizer_2"])
        self.context_tokens = min(_T5_TOKENS, int(self._tokenizers[1].model_max_length))
        self._check()

    @property
    def channels(self) -> int:
        return int(self.network.config.in_channels) // 4

    @property
    def distilled(self) -> bool:
        """Whether the network is told the strength of guidance."""
        return bool(self.network.config.guidance_embeds)

    def guided(self, guidance: float) -> bool:
        return False

    def tokenize(self, texts: list[str]) -> list[Prompt]:
        clip, t5 = self._tokenizers
        pairs = zip(padded_tokens(clip, texts), padded_tokens(t5, texts, _T5_TOKENS), strict=True)
        return list(pairs)

    def encode(self, passes: Sequence[Pass]) -> list[Conditioning]:
        clip, t5 = self.encoders
        pooled = clip(ids_of(passes, 0, clip)).pooler_output
        text = t5_states(t5, ids_of(passes, 1, t5))
        guidance = torch.tensor([each.guidance for each in passes], device=text.device)
        triples = zip(torch.split(text, 1), torch.split(pooled, 1), torch.split(guidance, 1), strict=True)
        return [
            Conditioning({"text": a.clone(), "pooled": b.clone(), "guidance": c.clone()})
            for a, b, c in triples
        ]

    def evaluate(
        self, latents: torch.Tensor, times: torch.Tensor, conditioning: Sequence[Conditioning]
    ) -> torch.Tensor:
        config, text = self.network.config, stacked(conditioning, "text")
        macs = transformer_macs(
            latents, 2, config.num_attention_heads, config.attention_head_dim, text.shape[1]
        )
        raw = self.network(
            hidden_states=divisible(packed(latents), macs),
            timestep=times.to(latents.dtype) / _TIMES,
            guidance=stacked(conditioning, "guidance") if self.distilled else None,
            pooled_projections=stacked(conditioning, "pooled"),
            encoder_hidden_states=divisible(text, macs),
            txt_ids=text.new_zeros((text.shape[1], 3)),
            img_ids=places(latents),
            return_dict=False,
        )[0]
        return unpacked(plain(raw), latents.shape[2], latents.shape[3])

    def _check(self) -> None:
        """Parts that do not belong together."""
        config, (clip, t5) = self.network.config, self.encoders
        for name, wanted, found in (
            ("pooled_projection_dim", config.pooled_projection_dim, clip.config.hidden_size),
            ("joint_attention_dim", config.joint_attention_dim, t5.config.d_model),
        ):
            if wanted != found:
                raise ModelBroken(
                    f"transformer/config.json: {name} {wanted} differs from the text encoder's width {found}"
                )
        for end, tokenizer, encoder in zip(("", "_2"), self._tokenizers, self.encoders, strict=True):
            known = encoder.config.vocab_size
            check_vocabulary(f"tokenizer{end}", len(tokenizer), f"text_encoder{end}", known)


def packed(latents: torch.Tensor) -> torch.Tensor:
    """(rows, channels, height, width) to (rows, patches, channels * 4)."""
    rows, channels, height, width = latents.shape
    patches = latents.view(rows, channels, height // 2, 2, width // 2, 2).permute(0, 2, 4, 1, 3, 5)
    return patches.reshape(rows, height // 2 * (width // 2), channels * 4)


def unpacked(patches: torch.Tensor, height: int, width: int) -> torch.Tensor:
    """`packed` undone."""
    rows, _, channels = patches.shape
    latents = patches.view(rows, height // 2, width // 2, channels // 4, 2, 2).permute(0, 3, 1, 4, 2, 5)
    return latents.reshape(rows, channels // 4, height, width)


def places(latents: torch.Tensor) -> torch.Tensor:
    """(patches, 3): 0, row and column of each patch."""
    height, width = latents.shape[2] // 2, latents.shape[3] // 2
    where = latents.new_zeros((height, width, 3))
    where[..., 1] = torch.arange(height, device=latents.device)[:, None]
    where[..., 2] = torch.arange(width, device=latents.device)[None, :]
    return where.reshape(height * width, 3)
