"""Trains the embedded text model: `python -m training.text --hours 2.9 --compile`.

One process does it all: learns the tokenizer, packs generated conversations, trains, keeps a checkpoint under
`.train/text`, and writes the model folder. Run again to resume; `--export` writes the folder and stops;
`--start FOLDER` begins with the weights and the tokenizer of a model folder where there is no checkpoint.
`--mean FOLDER` writes the mean of the trained weights and those of that folder (Wortsman et al., 2022): after
a run with other shares of the skills it is better at nearly everything than either. Given again, it goes on
with the mean: each folder's weights count for half of what is known then.
"""

from __future__ import annotations

import argparse
import itertools
import json
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn.utils import clip_grad_norm_

from training.data import ROOT, data_dir
from training.text_batches import PackedBatch, batches
from training.text_facts import telling_words
from training.text_generator import stream
from training.text_model import TextConfig, TextModel, document_mask, weighted_loss
from training.text_tokenizer import Encoder, corpus, load_tokenizer, save_tokenizer, train_tokenizer

FOLDER = ROOT / "models" / "upbeat-text"
WORK = ROOT / ".train" / "text"
PAUSE_S = 60.0


@dataclass(frozen=True, slots=True)
class Plan:
    """Settings of a run. Rates times `peak` are peaks; they fall to zero in the last `decay` of the time."""

    hours: float = 2.9
    peak: float = 1.0
    seed: int = 20261121
    rows: int = 9
    length: int = 384
    matrix_rate: float = 3e-3
    other_rate: float = 2e-3
    warm_seconds: float = 60.0
    decay: float = 0.5
    average: float = 0.99
    save_seconds: float = 240.0
    compile: bool = False

    def rate(self, elapsed_s: float, resumed_s: float = 0.0) -> float:
        """Warm-up, stable, linear decay (WSD), as a factor of the peak rates, by seconds trained.

        A run taken up at `resumed_s` warms up again.
        """
        total = self.hours * 3600
        warm = min(1.0, (elapsed_s - resumed_s + 1.0) / self.warm_seconds)
        return self.peak * warm * min(1.0, max(0.0, total - elapsed_s) / (self.decay * total))


class Trainer:
    """Owns the model, the optimisers, the running average of the weights and the checkpoint."""

    def __init__(self, plan: Plan, config: TextConfig, device: torch.device) -> None:
        torch.manual_seed(plan.seed)
        self.plan, self.device = plan, device
        self.model = TextModel(config).to(device)
        named = dict(self.model.named_parameters())
        matrices = [part for name, part in named.items() if part.ndim == 2 and "embed" not in name]
        others = [part for name, part in named.items() if part.ndim != 2 or "embed" in name]
        # Muon (Jordan, 2024) for the matrices: about half the tokens of AdamW for equal loss at this size.
        self.optimisers: list[torch.optim.Optimizer] = [
            torch.optim.Muon(
                matrices, lr=plan.matrix_rate, weight_decay=0.05, adjust_lr_fn="match_rms_adamw"
            ),
            torch.optim.AdamW(others, lr=plan.other_rate, betas=(0.9, 0.95), weight_decay=0.0),
        ]
        self.average = {name: part.detach().clone() for name, part in named.items()}
        self.step, self.elapsed_s, self.resumed_s = 0, 0.0, 0.0
        self._hidden, self._loss = self.model.hidden, weighted_loss
        if plan.compile:
            self._hidden = torch.compile(self.model.hidden)
            self._loss = torch.compile(weighted_loss, dynamic=True)

    def states(self, batch: PackedBatch) -> Tensor:
        """The model's last states on `batch`, which is on the device."""
        return self._hidden(batch.ids, document_mask(batch.documents))  # type: ignore[no-any-return]

    def loss(self, batch: PackedBatch) -> Tensor:
        """Of one batch on the device, under autocast."""
        # Where the weight is 0 no logits are computed: most tokens are the user's.
        said = (batch.weights > 0).flatten()
        states, targets, weights = (
            part.flatten(0, 1)[said] for part in (self.states(batch), batch.targets, batch.weights)
        )
        return self._loss(states, self.model.model.embed_tokens.weight, targets, weights)

    def train(self, batch: PackedBatch) -> float:
        """One step; returns the loss in nats a weighted token."""
        factor = self.plan.rate(self.elapsed_s, self.resumed_s)
        for optimiser, rate in zip(
            self.optimisers, (self.plan.matrix_rate, self.plan.other_rate), strict=True
        ):
            for group in optimiser.param_groups:
                group["lr"] = rate * factor
        with torch.autocast(self.device.type, dtype=torch.bfloat16):
            loss = self.loss(batch.to(self.device))
        torch.autograd.backward(loss)
        clip_grad_norm_(self.model.parameters(), 1.0)
        for optimiser in self.optimisers:
            optimiser.step()
            optimiser.zero_grad(set_to_none=True)
        self.step += 1
        keep = min(self.plan.average, self.step / (self.step + 10))
        for name, part in self.model.named_parameters():
            self.average[name].lerp_(part.detach(), 1 - keep)
        return float(loss.detach())

    def start_from(self, folder: Path) -> None:
        """Begins with the weights of a model folder; the optimisers begin afresh."""
        self.model.load_state_dict(load_file(folder / "model.safetensors", device=str(self.device)))
        self.average = {name: part.detach().clone() for name, part in self.model.named_parameters()}

    def save(self, path: Path) -> None:
        """Writes the checkpoint whole, then moves it into place."""
        path.parent.mkdir(parents=True, exist_ok=True)
        state = {
            "model": self.model.state_dict(),
            "average": self.average,
            "optimisers": [optimiser.state_dict() for optimiser in self.optimisers],
            "step": self.step,
            "elapsed_s": self.elapsed_s,
        }
        torch.save(state, path.with_suffix(".part"))
        path.with_suffix(".part").replace(path)

    def load(self, path: Path) -> None:
        """Takes up a checkpoint of `save`."""
        state = torch.load(path, map_location=self.device, weights_only=True)
        self.model.load_state_dict(state["model"])
        self.average = state["average"]
        for optimiser, saved in zip(self.optimisers, state["optimisers"], strict=True):
            optimiser.load_state_dict(saved)
        self.step, self.elapsed_s = state["step"], state["elapsed_s"]
        self.resumed_s = self.elapsed_s


def export(average: dict[str, Tensor], config: TextConfig, encoder: Encoder, folder: Path) -> None:
    """Writes config.json, generation_config.json and model.safetensors (bfloat16, tied head left out)."""
    folder.mkdir(parents=True, exist_ok=True)
    weights = {name: part.detach().to("cpu", torch.bfloat16).contiguous() for name, part in average.items()}
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    shape = config.to_hugging_face(encoder.begin, encoder.end, encoder.pad)
    (folder / "config.json").write_text(json.dumps(shape, indent=2) + "\n", encoding="utf-8")
    generation = {
        "bos_token_id": encoder.begin,
        "eos_token_id": encoder.end,
        "pad_token_id": encoder.pad,
        "do_sample": False,
        "max_new_tokens": 160,
    }
    (folder / "generation_config.json").write_text(json.dumps(generation, indent=2) + "\n", encoding="utf-8")


def mean_with(folder: Path, average: dict[str, Tensor]) -> dict[str, Tensor]:
    """The mean of `average` and the weights of a model folder, name by name, float32."""
    other = load_file(folder / "model.safetensors")
    return {name: (part.detach().cpu().float() + other[name].float()) / 2 for name, part in average.items()}


def run(trainer: Trainer, source: Iterator[PackedBatch], checkpoint: Path) -> bool:
    """Trains until the planned hours are spent, counting earlier ones too; False if SIGTERM came first."""
    stopping: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, _: stopping.append(number))
    total = trainer.plan.hours * 3600
    columns = (TextColumn("{task.description}"), BarColumn(), TimeRemainingColumn())
    with Progress(*columns) as progress:
        bar = progress.add_task("training", total=total, completed=int(trainer.elapsed_s))
        saved, mean = trainer.elapsed_s, 0.0
        while trainer.elapsed_s < total:
            started = time.monotonic()
            batch = next(source)
            loss = trainer.train(batch)
            spent = time.monotonic() - started
            # A step that takes longer was stopped on the way, as while something is measured.
            trainer.elapsed_s += min(spent, PAUSE_S)
            mean = loss if mean == 0.0 else 0.95 * mean + 0.05 * loss
            speed = batch.ids.numel() / spent
            progress.update(
                bar, completed=trainer.elapsed_s, description=f"step {trainer.step} loss {mean:.3f}"
            )
            if trainer.step % 20 == 0:
                line = f"step {trainer.step} {trainer.elapsed_s:.0f} s loss {mean:.4f} {speed:.0f} tokens/s"
                progress.console.print(line, highlight=False)
            if stopping:
                break
            if trainer.elapsed_s - saved > trainer.plan.save_seconds:
                trainer.save(checkpoint)
                saved = trainer.elapsed_s
    trainer.save(checkpoint)
    return not stopping


def prepare_encoder(seed: int, start: Path | None) -> Encoder:
    """The tokenizer of the work folder; where there is none, that of `start`, or one learned now."""
    if not (WORK / "tokenizer.json").exists():
        known = start and load_tokenizer(start)
        save_tokenizer(known or train_tokenizer(corpus(data_dir(), seed, 40_000)), WORK)
    return Encoder(load_tokenizer(WORK))


def main() -> None:
    """The command line."""
    usual = Plan()
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--hours", type=float, default=usual.hours, help="hours of training in all, resumed ones counted"
    )
    parser.add_argument(
        "--peak", type=float, default=usual.peak, help="times the usual rates: less for weights that are good"
    )
    parser.add_argument("--seed", type=int, default=usual.seed)
    parser.add_argument("--rows", type=int, default=usual.rows, help="rows a step")
    parser.add_argument("--length", type=int, default=usual.length, help="tokens a row")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads")
    parser.add_argument(
        "--compile", action="store_true", help="compile the step; needs a C++ compiler on a CPU"
    )
    parser.add_argument("--start", type=Path, help="a model folder to begin with, where no checkpoint is")
    parser.add_argument(
        "--export", action="store_true", help="write the model folder from the checkpoint and stop"
    )
    parser.add_argument(
        "--mean",
        type=Path,
        action="append",
        default=[],
        help="a model folder whose weights are averaged with the trained ones; several in turn",
    )
    chosen = parser.parse_args()
    torch.set_num_threads(chosen.threads)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    plan = Plan(
        hours=chosen.hours,
        peak=chosen.peak,
        seed=chosen.seed,
        rows=chosen.rows,
        length=chosen.length,
        compile=chosen.compile,
    )
    encoder, config = prepare_encoder(plan.seed, chosen.start), TextConfig()
    checkpoint = WORK / "checkpoint.pt"
    trainer = Trainer(plan, config, device)
    if checkpoint.exists():
        trainer.load(checkpoint)
    elif chosen.start is not None:
        trainer.start_from(chosen.start)
    if not chosen.export:
        telling = encoder.telling(telling_words())
        made = stream(data_dir(), plan.seed + trainer.step + 1)
        pieces = (encoder.encode(conversation) for conversation in made)
        packed = itertools.chain(batches(pieces, plan.rows, plan.length, encoder.pad, telling))
        if not run(trainer, packed, checkpoint):
            return
    average = trainer.average
    for folder in chosen.mean:
        average = mean_with(folder, average)
    export(average, config, encoder, FOLDER)
    save_tokenizer(load_tokenizer(WORK), FOLDER)


if __name__ == "__main__":
    main()
