"""Greedy answers of a text model folder, in batches, by `transformers`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from transformers import LlamaForCausalLM

from training.text_conversation import Conversation
from training.text_tokenizer import Encoded, Encoder, load_tokenizer

LONGEST = 160


@dataclass(frozen=True, slots=True)
class Answer:
    """What was said, and whether it ended by itself within the limit."""

    text: str
    ended: bool


class Answerer:
    """Holds a loaded folder. Greedy, fp32, left-padded batches."""

    def __init__(self, folder: Path, rows: int = 32) -> None:
        self._tokenizer = load_tokenizer(folder)
        self.encoder = Encoder(self._tokenizer)
        self._model = LlamaForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
        self._rows = rows

    @torch.inference_mode()
    def answers(self, conversations: list[Conversation], longest: int = LONGEST) -> list[Answer]:
        """One answer to the last user turn of each conversation, in order."""
        prompts = [self.encoder.prompt(conversation) for conversation in conversations]
        order = sorted(range(len(prompts)), key=lambda index: len(prompts[index]))
        found: dict[int, Answer] = {}
        for start in range(0, len(order), self._rows):
            chosen = order[start : start + self._rows]
            for index, ids in zip(chosen, self._batch([prompts[i] for i in chosen], longest), strict=True):
                ended = self.encoder.end in ids
                kept = ids[: ids.index(self.encoder.end)] if ended else ids
                found[index] = Answer(self._tokenizer.decode(kept), ended)
        return [found[index] for index in range(len(prompts))]

    def _batch(self, prompts: list[list[int]], longest: int) -> Iterator[list[int]]:
        width = max(len(prompt) for prompt in prompts)
        pad = self.encoder.pad
        ids = torch.tensor([[pad] * (width - len(prompt)) + prompt for prompt in prompts])
        seen = torch.tensor([[0] * (width - len(prompt)) + [1] * len(prompt) for prompt in prompts])
        made = self._model.generate(
            ids, attention_mask=seen, max_new_tokens=longest, do_sample=False, pad_token_id=pad
        )
        for row in made[:, width:].tolist():
            yield [int(token) for token in row]

    @torch.inference_mode()
    def nats(self, pieces: list[Encoded]) -> list[float]:
        """-log P of every token that is said, over all pieces."""
        found: list[float] = []
        for piece in pieces:
            ids = torch.tensor([piece.ids])
            each = torch.nn.functional.cross_entropy(
                self._model(ids[:, :-1]).logits[0], ids[0, 1:], reduction="none"
            )
            found += [value for value, said in zip(each.tolist(), piece.said[1:], strict=True) if said]
        return found
