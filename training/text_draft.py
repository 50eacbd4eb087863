"""Trains the draft model: `python -m training.text_draft --hours 0.2 --compile`, after `training.text`.

Distillation (Hinton et al., 2015) on what the text model itself says: half of the conversations end in its
own greedy answer, and everywhere its own probabilities are the target. A draft is judged by how often its
best token is the text model's, so these are sharpened by `SHARPNESS`.
"""

from __future__ import annotations

import argparse
import os
import random
from collections.abc import Iterator
from dataclasses import replace
from itertools import islice
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor

from training.data import ROOT, data_dir
from training.text import FOLDER as TARGET
from training.text import Plan, Trainer, export, run
from training.text_answers import Answerer
from training.text_batches import PackedBatch, batches
from training.text_conversation import Conversation
from training.text_generator import stream
from training.text_model import TextConfig, TextModel, document_mask
from training.text_tokenizer import Encoder, load_tokenizer

FOLDER = ROOT / "models" / "upbeat-text-draft"
WORK = ROOT / ".train" / "text-draft"
# One layer: two of hidden 128 were accepted 72 % against 71 % of the time and cost half as much again.
SHAPE = TextConfig(
    hidden_size=160,
    intermediate_size=448,
    num_hidden_layers=1,
    num_attention_heads=5,
    num_key_value_heads=5,
)
SHARPNESS = 2.0
OWN_ANSWERS = 1500
# Files that the draft shares with its target.
SHARED = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "chat_template.jinja")


class Teacher:
    """The text model, frozen."""

    def __init__(
        self, folder: Path, device: torch.device, config: TextConfig | None = None, compiled: bool = False
    ) -> None:
        self._model = TextModel(config or TextConfig()).to(device).eval()
        self._model.load_state_dict(load_file(folder / "model.safetensors"))
        self._hidden = torch.compile(self._model.hidden) if compiled else self._model.hidden

    @torch.no_grad()
    def probabilities(self, batch: PackedBatch) -> Tensor:
        """Sharpened, `[said tokens, vocab]`, where `batch.weights` is above 0."""
        states = self._hidden(batch.ids, document_mask(batch.documents))
        kept = states.flatten(0, 1)[batch.weights.flatten() > 0]
        logits = F.linear(kept, self._model.model.embed_tokens.weight).float()
        return F.softmax(SHARPNESS * logits, dim=-1)


class Distiller(Trainer):
    """A trainer whose targets are a teacher's."""

    def __init__(self, plan: Plan, config: TextConfig, device: torch.device, teacher: Teacher) -> None:
        super().__init__(plan, config, device)
        self._teacher = teacher

    def loss(self, batch: PackedBatch) -> Tensor:
        """Mean cross entropy (nats) to the teacher's probabilities; all said tokens weigh the same."""
        wanted = self._teacher.probabilities(batch)
        kept = self.states(batch).flatten(0, 1)[batch.weights.flatten() > 0]
        logits = F.linear(kept, self.model.model.embed_tokens.weight).float()
        return F.cross_entropy(logits, wanted)


def own_answers(folder: Path, count: int, seed: int) -> list[Conversation]:
    """Training conversations whose last answer is the model's own, greedy."""
    answerer = Answerer(folder, rows=64)
    drawn = [made for made in islice(stream(data_dir(), seed, even=True), 2 * count) if len(made.turns) <= 6][
        :count
    ]
    said = answerer.answers(drawn, longest=100)
    pairs = zip(drawn, said, strict=True)
    return [
        replace(made, turns=(*made.turns[:-1], replace(made.turns[-1], assistant=answer.text)))
        for made, answer in pairs
        if answer.ended
    ]


def mixed(own: list[Conversation], seed: int) -> Iterator[Conversation]:
    """The model's own answers and fresh conversations, in turn, without end; even over the skills."""
    rng, fresh = random.Random(seed), stream(data_dir(), seed, even=True)
    while True:
        yield rng.choice(own)
        yield next(fresh)


def share_tokenizer(folder: Path, target: Path) -> None:
    """Links the tokenizer's files to those of `target`, a neighbour of `folder`: no second copy."""
    for name in SHARED:
        link = folder / name
        link.unlink(missing_ok=True)
        link.symlink_to(Path(os.path.relpath(target, folder)) / name)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--hours", type=float, default=0.2, help="hours of training in all")
    parser.add_argument("--seed", type=int, default=Plan().seed)
    parser.add_argument("--threads", type=int, default=1, help="CPU threads")
    parser.add_argument(
        "--compile", action="store_true", help="compile the step; needs a C++ compiler on a CPU"
    )
    parser.add_argument("--start", type=Path, help="a draft's folder to begin with, where no checkpoint is")
    chosen = parser.parse_args()
    torch.set_num_threads(chosen.threads)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    plan = Plan(
        hours=chosen.hours,
        seed=chosen.seed,
        matrix_rate=6e-3,
        other_rate=4e-3,
        decay=0.6,
        compile=chosen.compile,
    )
    encoder, checkpoint = Encoder(load_tokenizer(TARGET)), WORK / "checkpoint.pt"
    trainer = Distiller(plan, SHAPE, device, Teacher(TARGET, device, compiled=plan.compile))
    if checkpoint.exists():
        trainer.load(checkpoint)
    elif chosen.start is not None:
        trainer.start_from(chosen.start)
    own = own_answers(TARGET, OWN_ANSWERS, plan.seed)
    pieces = (encoder.encode(made) for made in mixed(own, plan.seed + trainer.step + 1))
    if run(trainer, batches(pieces, plan.rows, plan.length, encoder.pad), checkpoint):
        export(trainer.average, SHAPE, encoder, FOLDER)
        share_tokenizer(FOLDER, TARGET)


if __name__ == "__main__":
    main()
