"""Stable Diffusion 3 and 3.5 (Esser et al. 2024): a transformer over patches and text together, told by two
CLIP text encoders and, where the folder has it, T5; a rectified flow."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import torch
from torch.nn import functional as nnf

from pipelines.errors import ModelBroken
from pipelines.image.backbones.base import Conditioning, Pass, PatchTransformer, Prompt, stacked
from pipelines.image.backbones.text import (
    check_vocabulary,
    clip_states,
    ids_of,
    padded_tokens,
    t5_states,
    transformer_macs,
)
from pipelines.image.divisible import divisible, plain

PARTS: Final = {
    "transformer": ("SD3Transformer2DModel",),
    "text_encoder": ("CLIPTextModelWithProjection",),
    "text_encoder_2": ("CLIPTextModelWithProjection",),
    "text_encoder_3": ("T5EncoderModel",),
    "tokenizer": ("CLIPTokenizer",),
    "tokenizer_2": ("CLIPTokenizer",),
    "tokenizer_3": ("T5Tokenizer",),
}
OPTIONAL: Final = ("text_encoder_3", "tokenizer_3")
UNSUPPORTED: Final[Mapping[str, tuple[str, ...]]] = {}
_T5_TOKENS: Final = 256


class StableDiffusion3(PatchTransformer):
    """`Backbone` of the family."""

    control = None
    takes_negative = True
    distilled = False

    def __init__(self, parts: Mapping[str, Any], index: Mapping[str, Any]) -> None:
        self.network = parts["transformer"]
        names = [name for name in sorted(parts) if name.startswith("text_encoder")]
        self.encoders = tuple(parts[name] for name in names)
        self._tokenizers = tuple(parts[name.replace("text_encoder", "tokenizer")] for name in names)
        self.context_tokens = max(self._length(which) for which in range(len(names)))
        self._check()

    @property
    def largest(self) -> int:
        """As many positions as have an embedding."""
        return int(self.network.config.pos_embed_max_size * self.network.config.patch_size)

    def tokenize(self, texts: list[str]) -> list[Prompt]:
        lists = [padded_tokens(each, texts, self._length(n)) for n, each in enumerate(self._tokenizers)]
        return list(zip(*lists, strict=True))

    def encode(self, passes: Sequence[Pass]) -> list[Conditioning]:
        clips = [clip_states(each, ids_of(passes, n, each)) for n, each in enumerate(self.encoders[:2])]
        clip = torch.cat([states for states, _ in clips], dim=-1)
        pooled = torch.cat([each for _, each in clips], dim=-1)
        width = int(self.network.config.joint_attention_dim)
        clip = nnf.pad(clip, (0, width - clip.shape[-1]))
        if len(self.encoders) == 3:
            t5 = t5_states(self.encoders[2], ids_of(passes, 2, self.encoders[2]))
        else:
            t5 = clip.new_zeros((len(passes), _T5_TOKENS, width))
        text = torch.cat([clip, t5], dim=-2)
        pairs = zip(torch.split(text, 1), torch.split(pooled, 1), strict=True)
        return [Conditioning({"text": one.clone(), "pooled": other.clone()}) for one, other in pairs]

    def evaluate(
        self, latents: torch.Tensor, times: torch.Tensor, conditioning: Sequence[Conditioning]
    ) -> torch.Tensor:
        config, text = self.network.config, stacked(conditioning, "text")
        macs = transformer_macs(
            latents,
            config.patch_size,
            config.num_attention_heads,
            config.attention_head_dim,
            text.shape[1],
        )
        raw = self.network(
            hidden_states=divisible(latents, macs),
            timestep=times,
            encoder_hidden_states=divisible(text, macs),
            pooled_projections=stacked(conditioning, "pooled"),
            return_dict=False,
        )[0]
        return plain(raw)

    def _length(self, which: int) -> int:
        """Tokens of one encoder's text; both CLIP encoders' are as long as the first's."""
        return int(self._tokenizers[0].model_max_length) if which < 2 else _T5_TOKENS

    def _check(self) -> None:
        """Parts that do not belong together."""
        config = self.network.config
        pooled = sum(int(encoder.config.projection_dim) for encoder in self.encoders[:2])
        if config.pooled_projection_dim != pooled:
            raise ModelBroken(
                f"transformer/config.json: pooled_projection_dim {config.pooled_projection_dim}, but the text"
                f" encoders' projection_dim make {pooled}"
            )
        for encoder in self.encoders[2:]:
            if encoder.config.d_model != config.joint_attention_dim:
                raise ModelBroken(
                    f"transformer/config.json: joint_attention_dim {config.joint_attention_dim} differs from"
                    f" text_encoder_3's d_model {encoder.config.d_model}"
                )
        for number, (tokenizer, encoder) in enumerate(zip(self._tokenizers, self.encoders, strict=True), 1):
            end = f"_{number}" if number > 1 else ""
            known = encoder.config.vocab_size
            check_vocabulary(f"tokenizer{end}", len(tokenizer), f"text_encoder{end}", known)
