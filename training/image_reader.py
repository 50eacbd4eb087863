"""Teaches the text encoder to read before the U-Net listens: each attribute of the scene, from its caption.

Linear heads must tell, from every state at and after the end of the caption, what stands where: first and
second place (left and right, top and bottom, or inner and outer), colours, sizes, arrangement, background,
hour. Text alone is cheap, so the U-Net's time is not spent on learning words. The heads are thrown away, the
encoder is then frozen.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from torch.nn import functional as nnf

from training.image_captions import caption
from training.image_clock import TrainingClock
from training.image_scene import (
    BACKGROUNDS,
    COLOURS,
    KINDS,
    Item,
    Scene,
    draw_scene,
    draw_unseen,
    is_held_out,
)
from training.image_text import (
    MAX_TOKENS,
    TEXT_WIDTH,
    load_tokenizer,
    make_tokenizer,
    new_text_encoder,
    token_ids,
)

_ARRANGEMENTS: Final = ("one", "across", "down", "inside", "two", "three", "four", "hill", "water")
_HOURS: Final = ("day", "night", "sunset")
_SIZES: Final = ("", "small", "large")
_PATTERNS: Final = ("", "striped", "dotted", "graded", "speckled")
HEADS: Final = {
    "kind": len(KINDS),
    "colour": len(COLOURS),
    "size": len(_SIZES),
    "pattern": len(_PATTERNS),
    "second kind": len(KINDS),
    "second colour": len(COLOURS),
    "second size": len(_SIZES),
    "arrangement": len(_ARRANGEMENTS),
    "background": len(BACKGROUNDS),
    "hour": len(_HOURS),
}
_NONE: Final = -100  # cross entropy's "no target": the scene has no second object


def _arrangement(scene: Scene) -> str:
    if scene.setting != "plain":
        return scene.setting
    if len(scene.items) == 1:
        return ("one", "two", "three", "four")[scene.items[0].count - 1]
    places = {"above": "down", "below": "down", "inside": "inside"}
    return places.get(scene.relation, "across")


def _second(item: Item | None) -> list[int]:
    if item is None:
        return [_NONE, _NONE, _NONE]
    return [KINDS.index(item.kind), COLOURS.index(item.colour), _SIZES.index(item.size)]


def targets(scene: Scene) -> list[int]:
    """The class of each head in `HEADS`, in order. Equal pictures have equal targets, however phrased."""
    ordered = scene.items if scene.relation not in ("right", "below") else scene.items[::-1]
    first = ordered[0]
    return [
        KINDS.index(first.kind),
        COLOURS.index(first.colour),
        _SIZES.index(first.size),
        _PATTERNS.index(first.pattern),
        *_second(ordered[1] if len(ordered) > 1 else None),
        _ARRANGEMENTS.index(_arrangement(scene)),
        BACKGROUNDS.index(scene.background),
        _HOURS.index(scene.hour),
    ]


class _Reader(torch.nn.Module):
    def __init__(self, encoder: Any) -> None:
        super().__init__()
        self.encoder = encoder
        self.heads = torch.nn.ModuleList(torch.nn.Linear(TEXT_WIDTH, size) for size in HEADS.values())

    def forward(self, ids: torch.Tensor) -> list[torch.Tensor]:
        """Logits of each head at every position: (rows, tokens, classes)."""
        states = self.encoder(ids).last_hidden_state
        return [head(states) for head in self.heads]


def _loss(reader: _Reader, ids: torch.Tensor, wanted: torch.Tensor, end: int) -> torch.Tensor:
    """Mean cross entropy over the heads, at the positions from the first end token on."""
    total = torch.zeros(())
    padding = (ids == end).float()
    for index, logits in enumerate(reader(ids)):
        labels = wanted[:, index, None].expand(-1, ids.shape[1])
        losses = nnf.cross_entropy(logits.transpose(1, 2), labels, ignore_index=_NONE, reduction="none")
        known = padding * (labels != _NONE)
        total = total + (losses * known).sum() / known.sum().clamp(min=1)
    return total / len(HEADS)


def _batch(
    tokenizer: Any, rng: np.random.Generator, rows: int, whole: bool
) -> tuple[torch.Tensor, torch.Tensor]:
    scenes: list[Scene] = []
    while len(scenes) < rows:
        if not is_held_out(scene := draw_scene(rng, pairs=0.45)):
            scenes.append(scene)
    encoded = tokenizer([caption(scene, rng) for scene in scenes], truncation=True, max_length=MAX_TOKENS)
    longest = max(len(row) for row in encoded.input_ids)
    length = MAX_TOKENS if whole else min(MAX_TOKENS, longest + 2)
    ids = [row + [tokenizer.pad_token_id] * (length - len(row)) for row in encoded.input_ids]
    return torch.tensor(ids), torch.tensor([targets(scene) for scene in scenes])


@torch.no_grad()
def reading_score(encoder_and_heads: _Reader, tokenizer: Any, count: int = 200, seed: int = 12) -> float:
    """Share of unseen scenes of whose captions every attribute is read right, at the first end token."""
    rng = np.random.default_rng(seed)
    scenes = [draw_unseen(rng) for _ in range(count)]
    texts = [caption(scene, rng) for scene in scenes]
    ids = token_ids(tokenizer, texts)
    wanted = torch.tensor([targets(scene) for scene in scenes])
    ends = (ids == tokenizer.eos_token_id).int().argmax(1)
    rows = torch.arange(len(ids))
    named = torch.stack([logits[rows, ends].argmax(-1) for logits in encoder_and_heads(ids)], dim=1)
    return float(((named == wanted) | (wanted == _NONE)).all(1).float().mean())


def train_reader(work: Path, hours: float, seed: int = 0, peak_rate: float = 2e-3, rows: int = 64) -> None:
    """Trains the text encoder for `hours`; writes the tokenizer and `work`/text.pt, from which it goes on."""
    torch.manual_seed(seed)
    folder = work / "tokenizer"
    tokenizer = load_tokenizer(folder) if (folder / "vocab.json").exists() else make_tokenizer(folder)
    reader = _Reader(new_text_encoder(tokenizer)).train()
    if (work / "text.pt").exists():
        reader.encoder.load_state_dict(torch.load(work / "text.pt", weights_only=True))
    optimiser = torch.optim.AdamW(reader.parameters(), lr=peak_rate, betas=(0.9, 0.98), weight_decay=0.01)
    rng, step = np.random.default_rng(seed), 0
    with TrainingClock(hours) as clock:
        while clock.progress < 1.0:
            for group in optimiser.param_groups:
                group["lr"] = clock.learning_rate(peak_rate)
            ids, wanted = _batch(tokenizer, rng, rows, whole=step % 4 == 0)
            loss = _loss(reader, ids, wanted, tokenizer.eos_token_id)
            optimiser.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            torch.nn.utils.clip_grad_norm_(reader.parameters(), 1.0)
            optimiser.step()
            step += 1
            clock.report(f"text step {step} loss {float(loss.detach()):.4f}")
            if clock.save_is_due():
                print(f"read right: {reading_score(reader, tokenizer):.1%}", flush=True)
                torch.save(reader.encoder.state_dict(), work / "text.pt")
    torch.save(reader.encoder.state_dict(), work / "text.pt")
    print(f"read right: {reading_score(reader, tokenizer):.1%}")
