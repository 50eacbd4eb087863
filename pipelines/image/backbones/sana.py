"""Sana (Xie et al. 2024): a transformer of linear attention over the positions of a deep autoencoder, told by
Gemma through cross-attention that leaves out padding. A prompt follows an instruction to the language model,
as diffusers gives it; the negative prompt stands alone."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from typing import Any, Final

import diffusers
import torch

from pipelines.errors import ModelBroken
from pipelines.image.backbones.base import Conditioning, Pass, Prompt
from pipelines.image.backbones.masked_text import MaskedTextTransformer
from pipelines.image.backbones.text import (
    check_vocabulary,
    ids_of,
    language_model_macs,
    mask_of,
    padded_tokens,
)
from pipelines.image.divisible import divisible, plain

PARTS: Final = {
    "transformer": ("SanaTransformer2DModel",),
    "text_encoder": ("Gemma2Model",),
    "tokenizer": ("GemmaTokenizer",),
}
UNSUPPORTED: Final[Mapping[str, tuple[str, ...]]] = {"transformer": ("guidance_embeds",)}
_TOKENS: Final = 300


class Sana(MaskedTextTransformer):
    """`Backbone` of the family."""

    context_tokens = _TOKENS

    def __init__(self, parts: Mapping[str, Any], index: Mapping[str, Any]) -> None:
        self.network = parts["transformer"]
        self._encoder, self._tokenizer = parts["text_encoder"], parts["tokenizer"]
        self._tokenizer.padding_side = "right"
        self.encoders = (self._encoder,)
        call = inspect.signature(diffusers.SanaPipeline.__call__)
        self._instruction = "\n".join(call.parameters["complex_human_instruction"].default)
        # The last token of the instruction and the first of an empty text are not counted twice.
        self._instructed = len(self._tokenizer.encode(self._instruction)) + _TOKENS - 2
        self._check()

    def tokenize(self, texts: list[str]) -> list[Prompt]:
        """In small letters, as diffusers does it; the last text is the prompt."""
        *negative, prompt = (text.lower().strip() for text in texts)
        made = padded_tokens(self._tokenizer, negative, _TOKENS) if negative else []
        made += padded_tokens(self._tokenizer, [self._instruction + prompt], self._instructed)
        return [(tokens,) for tokens in made]

    def encode(self, passes: Sequence[Pass]) -> list[Conditioning]:
        """Prompts and negative prompts are of two lengths; of both 300 tokens are kept, the first and the
        last ones."""
        made: dict[int, Conditioning] = {}
        for length in {len(each.prompt[0].ids) for each in passes}:
            places = [place for place, each in enumerate(passes) if len(each.prompt[0].ids) == length]
            alike = [passes[place] for place in places]
            made.update(zip(places, self._encoded(alike), strict=True))
        return [made[place] for place in range(len(passes))]

    def evaluate(
        self, latents: torch.Tensor, times: torch.Tensor, conditioning: Sequence[Conditioning]
    ) -> torch.Tensor:
        return self.predict(latents, times * self.network.config.timestep_scale, conditioning)

    def _encoded(self, passes: Sequence[Pass]) -> list[Conditioning]:
        ids, mask = ids_of(passes, 0, self._encoder), mask_of(passes, 0, self._encoder)
        macs = language_model_macs(ids, self._encoder.config)
        text = plain(self._encoder(divisible(ids, macs), attention_mask=mask, use_cache=False)[0])
        text, mask = (torch.cat((each[:, :1], each[:, 1 - _TOKENS :]), dim=1) for each in (text, mask))
        pairs = zip(torch.split(text, 1), torch.split(mask, 1), strict=True)
        return [Conditioning({"text": one.clone(), "mask": other.clone()}) for one, other in pairs]

    def _check(self) -> None:
        """Parts that do not belong together."""
        self.check_channels()
        network, text = self.network.config, self._encoder.config
        if network.caption_channels != text.hidden_size:
            raise ModelBroken(
                f"transformer/config.json: captions of width {network.caption_channels}, but the text"
                f" encoder's hidden_size is {text.hidden_size}"
            )
        check_vocabulary("tokenizer", len(self._tokenizer), "text_encoder", text.vocab_size)
