"""PixArt-alpha and PixArt-Sigma (Chen et al. 2023, 2024): a transformer told by T5, or by a CLIP text encoder
in small models, through cross-attention that leaves out padding."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import torch

from pipelines.errors import ModelBroken
from pipelines.image.backbones.base import Conditioning, Pass, Prompt, stacked
from pipelines.image.backbones.masked_text import MaskedTextTransformer
from pipelines.image.backbones.text import (
    check_vocabulary,
    ids_of,
    mask_of,
    padded_tokens,
    t5_states,
)

PARTS: Final = {
    "transformer": ("PixArtTransformer2DModel",),
    "text_encoder": ("T5EncoderModel", "CLIPTextModel"),
    "tokenizer": ("T5Tokenizer", "CLIPTokenizer"),
}
UNSUPPORTED: Final[Mapping[str, tuple[str, ...]]] = {}
_TOKENS: Final = {"PixArtAlphaPipeline": 120, "PixArtSigmaPipeline": 300}


class PixArt(MaskedTextTransformer):
    """`Backbone` of the family."""

    def __init__(self, parts: Mapping[str, Any], index: Mapping[str, Any]) -> None:
        self.network = parts["transformer"]
        self._encoder, self._tokenizer = parts["text_encoder"], parts["tokenizer"]
        self.encoders = (self._encoder,)
        self.context_tokens = min(_TOKENS[index["_class_name"]], int(self._tokenizer.model_max_length))
        self._check()

    def tokenize(self, texts: list[str]) -> list[Prompt]:
        """In small letters, as diffusers does it."""
        lower = [text.lower().strip() for text in texts]
        return [(tokens,) for tokens in padded_tokens(self._tokenizer, lower, self.context_tokens)]

    def encode(self, passes: Sequence[Pass]) -> list[Conditioning]:
        ids, mask = ids_of(passes, 0, self._encoder), mask_of(passes, 0, self._encoder)
        if hasattr(self._encoder.config, "d_model"):
            text = t5_states(self._encoder, ids, mask)
        else:
            text = self._encoder(ids, attention_mask=mask).last_hidden_state
        sizes = torch.tensor([(each.height, each.width) for each in passes]).to(text)
        rows = range(len(passes))
        return [
            Conditioning({"text": text[n : n + 1].clone(), "mask": mask[n : n + 1], "size": sizes[n : n + 1]})
            for n in rows
        ]

    def evaluate(
        self, latents: torch.Tensor, times: torch.Tensor, conditioning: Sequence[Conditioning]
    ) -> torch.Tensor:
        return self.predict(latents, times, conditioning, added_cond_kwargs=self._added(conditioning))

    def _added(self, conditioning: Sequence[Conditioning]) -> dict[str, torch.Tensor | None]:
        if not self.network.use_additional_conditions:
            return {"resolution": None, "aspect_ratio": None}
        size = stacked(conditioning, "size")
        return {"resolution": size, "aspect_ratio": size[:, :1] / size[:, 1:]}

    def _check(self) -> None:
        """Parts that do not belong together."""
        self.check_channels()
        network, text = self.network.config, self._encoder.config
        wanted = network.caption_channels or network.cross_attention_dim
        if wanted != text.hidden_size:
            raise ModelBroken(
                f"transformer/config.json: captions of width {wanted}, but the text encoder's hidden_size is"
                f" {text.hidden_size}"
            )
        check_vocabulary("tokenizer", len(self._tokenizer), "text_encoder", text.vocab_size)
