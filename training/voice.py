"""Trains the embedded voice and writes `models/upbeat-voice`: `python -m training.voice`.

Three stages, each resumed from `.train/voice/` where it was left: the lexicon, the clauses spoken by the
teacher, the acoustic model. Everything follows from the seed. Needs espeak-ng at training time only.
"""

from __future__ import annotations

import argparse
import lzma
import pickle
import random
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from rich.progress import Progress, track
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from pipelines.speech.voice.acoustic import (
    ENERGY_MEAN,
    ENERGY_SCALE,
    PITCH_MEAN,
    PITCH_SCALE,
    AcousticModel,
    frame_features,
)
from pipelines.speech.voice.config import MODEL_TYPE, VoiceConfig
from pipelines.speech.voice.frontend import MARK_ORDER, Frontend, read_lexicon
from pipelines.speech.voice.normalise import MARKS, spoken
from training.data import ROOT, data_dir
from training.data_split import split_of
from training.voice_data import Item, items_of
from training.voice_export import export
from training.voice_lexicon import build, common_words, inventory, isolated, write
from training.voice_teacher import Teacher
from training.voice_text import closed, generated, open_sets, speakable, word_lists

WORK = ROOT / ".train" / "voice"
SHARD = 250
BATCH_FRAMES = 2400
WARM_UP = 200
LOG_EVERY = 100
SAVE_EVERY = 500


def training_texts(seed: int, count: int, words: Sequence[str]) -> list[str]:
    """`count` texts of one to three sentences: the domain, the open sets where present, lists of words."""
    draw = random.Random(seed)
    domain = [text for name, text in generated(seed, 9_000) if split_of(name) == "train"]
    data = data_dir()
    pairs = open_sets(data) if data else iter(())
    free = [closed(text, draw) for name, text in pairs if speakable(text) and split_of(name) == "train"]
    lists = word_lists(words, draw, count // 4)
    kinds = [(0.4, domain), (0.45, free or domain), (0.15, lists)]
    texts = []
    for _ in range(count):
        size = draw.choices((1, 2, 3), (0.6, 0.3, 0.1))[0]
        parts = [
            draw.choice(draw.choices([k for _, k in kinds], [w for w, _ in kinds])[0]) for _ in range(size)
        ]
        texts.append(" ".join(parts))
    return texts


def lexicon_stage(teacher: Teacher, seed: int) -> None:
    """Writes the lexicon to the work folder unless it is there."""
    path = WORK / "lexicon.txt.xz"
    if path.exists():
        return
    words = common_words()
    # The generator's texts of every split may vote here: they hold its templates' words and teach no sound.
    texts = [text for _, text in generated(seed, 3_000)]
    data = data_dir()
    if data:
        texts += [text for name, text in open_sets(data) if speakable(text) and split_of(name) == "train"]
    random.Random(seed).shuffle(texts)
    sentences = [[token for token in spoken(text) if token not in MARKS] for text in texts[:16_000]]
    write(build(teacher, sentences, words), path)


def config_of(lexicon_path: Path) -> VoiceConfig:
    """The sizes in use, with the lexicon's phonemes after the marks."""
    return VoiceConfig(MODEL_TYPE, ("upbeat",), (*MARK_ORDER, *inventory(read_lexicon(lexicon_path))))


def speech_stage(teacher: Teacher, config: VoiceConfig, seed: int, count: int) -> list[Item]:
    """All clauses, in shards of `SHARD` texts that are written as they are made."""
    lexicon = read_lexicon(WORK / "lexicon.txt.xz")
    front = Frontend(config.phonemes, lexicon, lambda word: isolated(teacher, word))
    texts = training_texts(seed, count, sorted(lexicon))
    items: list[Item] = []
    for start in track(range(0, count, SHARD), description="teacher"):
        path = WORK / f"speech-{start // SHARD:03d}.pickle.xz"
        if not path.exists():
            made = [
                item
                for number, text in enumerate(texts[start : start + SHARD], start)
                for item in items_of(teacher, front, text, config, random.Random(seed * 1_000_003 + number))
            ]
            partial = path.with_suffix(".partial")
            partial.write_bytes(lzma.compress(pickle.dumps(made), preset=0))
            partial.replace(path)
        items.extend(pickle.loads(lzma.decompress(path.read_bytes())))
    return items


def batches(items: Sequence[Item], seed: int, first: int, last: int) -> Iterator[list[Item]]:
    """The batches of steps `first` to `last`: clauses of like length, `BATCH_FRAMES` at most; a pass is a
    shuffle.
    """
    order = sorted(range(len(items)), key=lambda at: len(items[at].frame_pitch))
    groups: list[list[int]] = [[]]
    for at in order:
        if (len(groups[-1]) + 1) * len(items[at].frame_pitch) > BATCH_FRAMES and groups[-1]:
            groups.append([])
        groups[-1].append(at)
    for step in range(first, last):
        turn = random.Random(seed + step // len(groups))
        shuffled = turn.sample(range(len(groups)), len(groups))
        yield [items[at] for at in groups[shuffled[step % len(groups)]]]


def tensors(rows: Sequence[Item]) -> dict[str, Tensor]:
    """The padded tensors of a batch; names as in `AcousticModel.forward` and `losses`."""
    durations = [torch.from_numpy(row.durations).long() for row in rows]
    pitches = [(torch.from_numpy(row.frame_pitch).log() - PITCH_MEAN) / PITCH_SCALE for row in rows]
    made = [frame_features(duration, pitch) for duration, pitch in zip(durations, pitches, strict=True)]
    points = [(torch.from_numpy(row.pitch).log() - PITCH_MEAN) / PITCH_SCALE for row in rows]
    energies = [(torch.from_numpy(row.energy) - ENERGY_MEAN) / ENERGY_SCALE for row in rows]
    targets = [
        torch.cat([d.float().log()[:, None], p, e[:, None]], -1)
        for d, p, e in zip(durations, points, energies, strict=True)
    ]
    weights = [torch.ones_like(target) for target in targets]
    for weight, row in zip(weights, rows, strict=True):
        weight[-1, 0] = 0.0 if row.closes else 1.0
    frames = [torch.from_numpy(np.concatenate([row.envelope, row.share], -1)) for row in rows]

    def pad(parts: list[Tensor]) -> Tensor:
        return pad_sequence(parts, batch_first=True)

    return {
        "ids": pad([torch.from_numpy(row.ids).long() for row in rows]),
        "lengths": torch.tensor([len(row.ids) for row in rows]),
        "before": torch.from_numpy(np.stack([row.before for row in rows])),
        "symbol": pad([symbol for symbol, _ in made]),
        "features": pad([features for _, features in made]),
        "frames": torch.tensor([len(row.frame_pitch) for row in rows]),
        "targets": pad(targets),
        "weights": pad(weights),
        "wanted": pad(frames),
    }


def losses(model: AcousticModel, batch: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
    """(mean L1 of durations, pitch and energy; mean L1 of the frames), all standardised."""
    inputs = {name: batch[name] for name in ("ids", "lengths", "before", "symbol", "features", "frames")}
    predictions, outputs = model(**inputs)
    of_symbols = ((predictions - batch["targets"]).abs() * batch["weights"]).sum() / batch["weights"].sum()
    inside = (torch.arange(outputs.shape[1])[None, :] < batch["frames"][:, None]).float()[..., None]
    wanted = (batch["wanted"] - model.mean) / model.scale
    of_frames = ((outputs - wanted).abs() * inside).sum() / (inside.sum() * outputs.shape[-1])
    return of_symbols, of_frames


def standardise(model: AcousticModel, items: Sequence[Item]) -> None:
    """Sets the frames' mean and scale from the first items; noise shares keep a plain range."""
    some = np.concatenate([np.concatenate([item.envelope, item.share], -1) for item in items[:400]])
    model.mean.copy_(torch.from_numpy(some.mean(axis=0)))
    model.scale.copy_(torch.from_numpy(some.std(axis=0).clip(0.1)))


def rate_at(step: int, steps: int, peak: float) -> float:
    """Linear warm-up, then half a cosine to a hundredth."""
    if step < WARM_UP:
        return peak * (step + 1) / WARM_UP
    part = (step - WARM_UP) / max(steps - WARM_UP, 1)
    return float(peak * (0.01 + 0.99 * 0.5 * (1 + np.cos(np.pi * part))))


def train_stage(config: VoiceConfig, items: list[Item], seed: int, steps: int, peak: float) -> AcousticModel:
    """Trains, or goes on training from the last checkpoint; exports at every tenth of the way."""
    torch.manual_seed(seed)
    model = AcousticModel(config)
    standardise(model, items)
    optimiser = torch.optim.AdamW(model.parameters(), lr=peak, betas=(0.9, 0.98), weight_decay=0.01)
    path, first = WORK / "checkpoint.pt", 0
    if path.exists():
        saved = torch.load(path, weights_only=True)
        model.load_state_dict(saved["model"])
        optimiser.load_state_dict(saved["optimiser"])
        first = int(saved["step"])
    began, recent = time.monotonic(), [0.0, 0.0]
    with Progress() as bar:
        task = bar.add_task("training", total=steps, completed=first)
        for step, rows in enumerate(batches(items, seed, first, steps), first):
            for group in optimiser.param_groups:
                group["lr"] = rate_at(step, steps, peak)
            of_symbols, of_frames = losses(model, tensors(rows))
            optimiser.zero_grad()
            (of_symbols + 2.0 * of_frames).backward()  # type: ignore[no-untyped-call]
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimiser.step()
            recent = [recent[0] + of_symbols.item() / LOG_EVERY, recent[1] + of_frames.item() / LOG_EVERY]
            bar.advance(task)
            if (step + 1) % LOG_EVERY == 0:
                spent = time.monotonic() - began
                print(
                    f"step {step + 1} symbols {recent[0]:.4f} frames {recent[1]:.4f} {spent:.0f} s",
                    flush=True,
                )
                recent = [0.0, 0.0]
            if (step + 1) % SAVE_EVERY == 0 or step + 1 == steps:
                saved = {"model": model.state_dict(), "optimiser": optimiser.state_dict(), "step": step + 1}
                torch.save(saved, path.with_suffix(".partial"))
                path.with_suffix(".partial").replace(path)
    return model


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=ROOT / "models" / "upbeat-voice")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--texts", type=int, default=14_000, help="texts that the teacher speaks")
    parser.add_argument("--steps", type=int, default=7_000)
    parser.add_argument("--rate", type=float, default=2e-3, help="peak learning rate")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--export-only", action="store_true", help="write the last checkpoint as it is")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    WORK.mkdir(parents=True, exist_ok=True)
    lexicon_path = WORK / "lexicon.txt.xz"
    if options.export_only:
        config = config_of(lexicon_path)
        model = AcousticModel(config)
        model.load_state_dict(torch.load(WORK / "checkpoint.pt", weights_only=True)["model"])
    else:
        teacher = Teacher()
        lexicon_stage(teacher, options.seed)
        config = config_of(lexicon_path)
        items = speech_stage(teacher, config, options.seed, options.texts)
        model = train_stage(config, items, options.seed, options.steps, options.rate)
    export(model, config, lexicon_path, options.out)


if __name__ == "__main__":
    main()
