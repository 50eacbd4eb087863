"""Decoding one sequence with the served decoder and nothing around it: plain, and drafted by a small model.

The drafted loop is greedy speculative decoding (Leviathan et al., 2023): the draft says `count` tokens, the
target checks them in one pass, keeps those equal to its own choice and adds one of its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from kernels import Span, plan_attention
from pipelines.text.config import load_config
from pipelines.text.loader import load_weights
from pipelines.text.model import Decoder, Packed


class Loop:
    """One decoder and the KV of one sequence, on the CPU in fp32. Not to be shared between threads."""

    def __init__(self, folder: Path, longest: int = 1024) -> None:
        self.config = load_config(folder)
        cpu = torch.device("cpu")
        self._decoder = Decoder(self.config, load_weights(folder, self.config, torch.float32, cpu))
        self._cache = self._decoder.new_cache(longest)

    @torch.inference_mode()
    def choices(self, ids: Sequence[int], start: int) -> list[int]:
        """The greedy token behind each of `ids`, which stand at positions `start` on; writes their KV."""
        count, end = len(ids), start + len(ids)
        places = torch.arange(start, end)
        plan = plan_attention([Span(0, count, end, slice(0, end))], self._cache[0])
        packed = Packed(torch.tensor(ids), places, places, {0: plan}, torch.arange(count))
        logits = _returned(self._decoder, packed, self._cache)
        return [int(token) for token in logits.argmax(dim=-1).tolist()]

    def greedy(self, prompt: Sequence[int], longest: int) -> list[int]:
        """The plain loop: the answer to `prompt`, its end token included, at most `longest` tokens."""
        said = [self.choices(prompt, 0)[-1]]
        while len(said) < longest and said[-1] not in self.config.eos:
            said += self.choices(said[-1:], len(prompt) + len(said) - 1)
        return said


def _returned(decoder: Decoder, packed: Packed, cache: Sequence[Tensor]) -> Tensor:
    running = decoder.forward(packed, cache, decoder.config.layers)
    try:
        next(running)
    except StopIteration as done:
        logits: Tensor = done.value
        return logits
    raise AssertionError("one pass has no preemption point")


@dataclass(frozen=True, slots=True)
class Drafted:
    """An answer, how many drafted tokens were checked, and how many of these were accepted."""

    said: list[int]
    checked: int
    accepted: int


def drafted(target: Loop, draft: Loop, prompt: Sequence[int], longest: int, count: int) -> Drafted:
    """The same answer as `target.greedy`, with `count` tokens drafted a pass.

    Tokens behind the first wrong one are not counted as checked: `accepted / checked` is the acceptance
    per token of the usual formula.
    """
    ids = [*prompt, target.choices(prompt, 0)[-1]]
    seen, checked, accepted = 0, 0, 0
    while len(ids) - len(prompt) < longest and ids[-1] not in target.config.eos:
        guesses = draft.choices(ids[seen:], seen)[-1:]
        while len(guesses) < count and guesses[-1] not in draft.config.eos:
            guesses += draft.choices(guesses[-1:], len(ids) + len(guesses) - 1)
        right = target.choices([ids[-1], *guesses], len(ids) - 1)
        kept = next((i for i, guess in enumerate(guesses) if guess != right[i]), len(guesses))
        seen = len(ids) + min(kept, len(guesses) - 1)
        checked += min(kept + 1, len(guesses))
        accepted += kept
        ids += right[: kept + 1]
        if guesses[kept - 1 : kept] and guesses[kept - 1] in target.config.eos:
            ids.pop()
    return Drafted(ids[len(prompt) :], checked, accepted)
