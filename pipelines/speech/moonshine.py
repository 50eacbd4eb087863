"""Moonshine (Jeffries et al., 2024): words of an utterance, by transformers' own modules, preemptible.

Rules
1. An utterance is encoded whole, as far as it has come; from one look to the next nothing is kept but the
   tokens that were found.
2. Tokens found before are guesses: one pass of the decoder checks them all and keeps those that it would
   have said itself (greedy speculative decoding, Leviathan et al., 2023, with the look before as the draft);
   behind a wrong one the next are looked up in it (prompt lookup, Saxena, 2023). So the words hang on the
   audio alone, and a look costs one pass and the words that are new.
"""

from __future__ import annotations

import importlib.util
import itertools
import math
from collections.abc import Callable, Generator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from transformers import MoonshineConfig, MoonshineForConditionalGeneration
from transformers.cache_utils import DynamicCache, EncoderDecoderCache

from pipelines.contract import FloatArray
from pipelines.errors import ModelBroken
from pipelines.interruptible import add_points, interruptible
from pipelines.speech.hearing import SAMPLE_RATE
from pipelines.speech.ort_file import weights
from pipelines.tiling import tile_convolutions
from pipelines.vocabulary import read_tokenizer

SHORTEST_S = 0.25
# What transformers' documentation sets against endless repetition, and a little for the shortest.
TOKENS_PER_S, TOKENS_MORE = 6.5, 4
PACKAGE, PACKAGED = "moonshine_voice", "tiny-en"
AHEAD = 8
"""Tokens guessed at once behind the first that was guessed wrong."""
FIRST_WORD = 3
"""Ids below are marks, not words."""
SPACE = "\u2581"
Decode = Callable[[Sequence[int]], str]


class Moonshine:
    """The model, immutable after construction. Owner: the executor thread."""

    def __init__(self, model: Any, decode: Decode, device: torch.device) -> None:
        self.parameters = sum(parameter.numel() for parameter in model.parameters())
        self.text = decode
        self._device = device
        self._begin, self._end = model.config.decoder_start_token_id, model.config.eos_token_id
        model.eval().requires_grad_(False).to(device)
        if device.type == "cpu":
            tile_convolutions(model)
        add_points(module for module in model.modules() if not list(module.children()))
        self._encoder, self._decoder, self._head = model.model.encoder, model.model.decoder, model.proj_out

    @classmethod
    def load(cls, folder: Path, device: str = "cpu") -> Moonshine:
        """A Hugging Face folder. Raises: ModelBroken naming the file or tensor at fault."""
        try:
            model, report = MoonshineForConditionalGeneration.from_pretrained(
                folder, local_files_only=True, use_safetensors=True, output_loading_info=True
            )
        except (OSError, ValueError, RuntimeError, KeyError, SafetensorError) as error:
            raise ModelBroken(f"{folder}: {error}") from error
        for kind in ("missing_keys", "mismatched_keys"):
            if report[kind]:
                first = sorted(map(str, report[kind]))[0]
                raise ModelBroken(f"{folder / 'model.safetensors'}: {kind}: {first}")
        tokenizer = read_tokenizer(folder / "tokenizer.json")
        return cls(model, lambda ids: str(tokenizer.decode(list(ids))).strip(), torch.device(device))

    @classmethod
    def packaged(cls, device: str = "cpu") -> Moonshine:
        """Moonshine tiny for English (MIT), which lies in the package `moonshine-voice`; loads in half a
        second and takes 110 MB.

        Raises: ModelBroken, where the package is another version and brings no model.
        """
        folder = _packaged()
        found = {
            f"model.encoder.{name}": value for name, value in weights(folder / "encoder_model.ort").items()
        }
        found |= weights(folder / "decoder_model_merged.ort")
        model = MoonshineForConditionalGeneration(MoonshineConfig())
        try:
            model.load_state_dict({name: torch.tensor(value) for name, value in found.items()})
            decode = _decoder(folder / "tokenizer.bin")
        except (OSError, RuntimeError, IndexError) as error:
            raise ModelBroken(f"{folder}: {error}") from error
        return cls(model, decode, torch.device(device))

    def tokens(self, samples: FloatArray, guess: Sequence[int]) -> Generator[None, None, tuple[int, ...]]:
        """What is said in `samples` (fp32 `[n]`, 16 kHz, -1 to 1), greedy; yields at points. `guess`: tokens
        that may well be said."""
        least = math.ceil(SHORTEST_S * SAMPLE_RATE)
        wave = torch.from_numpy(np.pad(samples, (0, max(0, least - len(samples)))))[None].to(self._device)
        encoded = yield from interruptible(lambda: self._encoder(wave).last_hidden_state)
        cache = EncoderDecoderCache(DynamicCache(), DynamicCache())
        most = int(TOKENS_PER_S * len(samples) / SAMPLE_RATE) + TOKENS_MORE
        said: list[int] = []
        last, guessed = self._begin, list(guess[:most])
        while len(said) < most:
            choices = yield from self._choices([last, *guessed], encoded, cache)
            kept = next((i for i, token in enumerate(guessed) if token != choices[i]), len(guessed))
            said += choices[: kept + 1]
            if said[-1] == self._end:
                return tuple(said[:-1])
            if kept < len(guessed):
                cache.self_attention_cache.crop(kept - len(guessed))
            last, guessed = said[-1], _behind(said, guess)
        return tuple(said[:most])

    def _choices(
        self, ids: Sequence[int], encoded: torch.Tensor, cache: EncoderDecoderCache
    ) -> Generator[None, None, list[int]]:
        """The likeliest token behind each of `ids`; their keys and values go into `cache`."""

        def call() -> list[int]:
            out = self._decoder(
                input_ids=torch.tensor([list(ids)], device=self._device),
                encoder_hidden_states=encoded,
                past_key_values=cache,
                use_cache=True,
            )
            chosen: list[int] = self._head(out.last_hidden_state[0]).argmax(dim=-1).tolist()
            return chosen

        return (yield from interruptible(call))


def _behind(said: Sequence[int], guess: Sequence[int]) -> list[int]:
    """What stood in the guess behind the two tokens said last, where it has them: it goes on from there."""
    pairs = itertools.pairwise(guess)
    after = next((index + 2 for index, pair in enumerate(pairs) if pair == tuple(said[-2:])), len(guess))
    return list(guess[after : after + AHEAD])


def _packaged() -> Path:
    """The model's folder. The package is looked up and not imported: it would load its own libraries."""
    found = importlib.util.find_spec(PACKAGE)
    for place in (found.submodule_search_locations or ()) if found else ():
        if (folder := Path(place) / "assets" / PACKAGED / "encoder_model.ort").is_file():
            return folder.parent
    raise ModelBroken(
        "recogniser: the package moonshine-voice is not there or brings no model (0.0.44 to 0.1.0 do); "
        "give a folder of a Moonshine model, or turn transcription off"
    )


def _decoder(path: Path) -> Decode:
    """Of the package's list of tokens: each its length in one or two bytes (base 128), then its bytes."""
    data, known, at = path.read_bytes(), list[bytes](), 0
    while at < len(data):
        length, at = data[at], at + 1
        if length >= 128:
            length, at = length - 128 + 128 * data[at], at + 1
        known.append(data[at : at + length])
        at += length

    def decode(ids: Sequence[int]) -> str:
        said = b"".join(known[token] for token in ids if token >= FIRST_WORD)
        return said.decode(errors="replace").replace(SPACE, " ").strip()

    return decode
