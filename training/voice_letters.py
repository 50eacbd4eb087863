"""Trains the letter-to-sound network on the lexicon: `python -m training.voice_letters` (about two minutes).

Letters and phonemes are first aligned by hard expectation-maximisation, each letter with zero to two
phonemes.
"""

from __future__ import annotations

import argparse
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TypeAlias

import numpy as np
import torch
from rich.progress import track
from safetensors.numpy import save_file
from torch import nn
from torch.nn import functional

from pipelines.speech.voice.config import LETTERS_FILE, LEXICON_FILE
from pipelines.speech.voice.frontend import STRESSES, read_lexicon
from pipelines.speech.voice.letters import ALPHABET, REACH, STRESS_MARKS, LetterSounds, read_letters, windows
from pipelines.speech.voice.wordparts import Spelling
from training.data import ROOT
from training.data_split import split_of
from training.voice_recogniser import word_errors

ROUNDS, PASSES, BATCH = 4, 8, 512
LEAST_SOUND = 12
LETTER_WIDTH, HIDDEN = 16, 320

Sounds: TypeAlias = tuple[str, ...]
Score: TypeAlias = Mapping[tuple[str, str], float]


def align(word: str, phonemes: Spelling, score: Score) -> list[str] | None:
    """The likeliest split of the phonemes over the letters (Viterbi); None where there are more than two a
    letter.
    """
    best: dict[int, tuple[float, list[str]]] = {0: (0.0, [])}
    for at, letter in enumerate(word):
        following: dict[int, tuple[float, list[str]]] = {}
        left = len(word) - at - 1
        for done, (total, path) in best.items():
            for size in range(3):
                end = done + size
                if end > len(phonemes) or len(phonemes) - end > 2 * left:
                    continue
                sound = " ".join(phonemes[done:end])
                value = total + score.get((letter, sound), -9.0 - 4.0 * (size == 2))
                if end not in following or value > following[end][0]:
                    following[end] = (value, [*path, sound])
        best = following
    return best[len(phonemes)][1] if len(phonemes) in best else None


def first_guess(lexicon: Mapping[str, Spelling]) -> Score:
    """Scores to start from: which phonemes stand where a letter stands, by their place in the word."""
    counts: Counter[tuple[str, str]] = Counter()
    for word, phonemes in lexicon.items():
        for at, letter in enumerate(word):
            place = (at + 0.5) / len(word) * len(phonemes)
            counts.update((letter, p) for k, p in enumerate(phonemes) if abs(k + 0.5 - place) < 1.0)
    score = shares(counts)
    return score | {(letter, ""): -3.0 for letter in ALPHABET[1:]}


def shares(counts: Counter[tuple[str, str]]) -> dict[tuple[str, str], float]:
    """Log share of each sound among those of its letter."""
    of_letter: Counter[str] = Counter()
    for (letter, _), count in counts.items():
        of_letter[letter] += count
    return {pair: math.log(count / of_letter[pair[0]]) for pair, count in counts.items()}


def aligned(lexicon: Mapping[str, Spelling]) -> list[tuple[str, list[str]]]:
    """Every word with its letters' sounds, by `ROUNDS` of hard expectation-maximisation without stress."""
    plain = {word: tuple(bare(phoneme) for phoneme in said) for word, said in lexicon.items()}
    score = first_guess(plain)
    rows: list[tuple[str, list[str]]] = []
    for _ in track(range(ROUNDS), description="aligning"):
        rows = [
            (word, split) for word, said in plain.items() if (split := align(word, said, score)) is not None
        ]
        counts: Counter[tuple[str, str]] = Counter()
        for word, split in rows:
            counts.update(zip(word, split, strict=True))
        score = shares(counts)
    return [(word, with_stress(split, lexicon[word])) for word, split in rows]


def with_stress(split: Sequence[str], phonemes: Spelling) -> list[str]:
    """The split of the bare phonemes again, with their stress marks."""
    left = iter(phonemes)
    return [" ".join(next(left) for _ in sound.split()) for sound in split]


def bare(sound: str) -> str:
    """A sound without its stress marks."""
    return " ".join(
        phoneme[1:] if phoneme[0] in STRESSES and len(phoneme) > 1 else phoneme for phoneme in sound.split()
    )


def mark_of(sound: str) -> int:
    """The number of a sound's stress mark in `STRESS_MARKS`."""
    marks = [phoneme[0] for phoneme in sound.split() if phoneme[0] in STRESSES]
    return STRESS_MARKS.index(marks[0]) if marks else 0


class Network(nn.Module):
    """The trainable twin of `LetterSounds`."""

    def __init__(self, sounds: int) -> None:
        super().__init__()
        self.letter = nn.Embedding(len(ALPHABET), LETTER_WIDTH)
        self.first = nn.Linear((2 * REACH + 1) * LETTER_WIDTH, HIDDEN)
        self.second = nn.Linear(HIDDEN, sounds)
        self.stress = nn.Linear(HIDDEN, len(STRESS_MARKS))

    def forward(self, window: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """(scores of the sounds, scores of the stress marks) of letter windows [letters, 2 * REACH + 1]."""
        inner = functional.dropout(
            functional.relu(self.first(self.letter(window).flatten(1))), 0.1, self.training
        )
        return self.second(inner), self.stress(inner)


def train(rows: Sequence[tuple[str, list[str]]], seed: int) -> tuple[Network, Sounds]:
    """Fits the network to the training words; stress counts a third as much as sound."""
    torch.manual_seed(seed)
    counts = Counter(bare(sound) for _, split in rows for sound in split)
    sounds = tuple(sound for sound, count in counts.most_common() if count >= LEAST_SOUND)
    number = {sound: at for at, sound in enumerate(sounds)}
    kept = [(word, split) for word, split in rows if all(bare(sound) in number for sound in split)]
    inputs = torch.from_numpy(np.concatenate([windows(word) for word, _ in kept]))
    wanted = torch.tensor([number[bare(sound)] for _, split in kept for sound in split])
    marks = torch.tensor([mark_of(sound) for _, split in kept for sound in split])
    model = Network(len(sounds))
    optimiser = torch.optim.AdamW(model.parameters(), lr=3e-3)
    steps = PASSES * (len(wanted) // BATCH)
    plan = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
    for _ in track(range(PASSES), description="letters"):
        for rows_at in torch.randperm(len(wanted))[: len(wanted) // BATCH * BATCH].view(-1, BATCH):
            sound_scores, mark_scores = model(inputs[rows_at])
            of_sound = functional.cross_entropy(sound_scores, wanted[rows_at])
            loss = of_sound + functional.cross_entropy(mark_scores, marks[rows_at]) / 3
            optimiser.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimiser.step()
            plan.step()
    return model.eval(), sounds


def save(model: Network, sounds: Sounds, path: Path) -> None:
    """Writes what `read_letters` reads, in half precision."""
    arrays = {
        "letter": model.letter.weight,
        "first": model.first.weight.T,
        "first_bias": model.first.bias,
        "second": model.second.weight.T,
        "second_bias": model.second.bias,
        "stress": model.stress.weight.T,
        "stress_bias": model.stress.bias,
    }
    halves = {name: np.ascontiguousarray(value.detach().half().numpy()) for name, value in arrays.items()}
    save_file(halves, path, metadata={"sounds": "|".join(sounds)})


def phoneme_errors(said: Sequence[str], wanted: Sequence[str]) -> int:
    """Edit distance with stress left out."""
    return word_errors([p.lstrip("',") for p in wanted], [p.lstrip("',") for p in said])


def main() -> None:
    """The command line: trains beside the lexicon and prints the error on words held out."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, default=ROOT / "models" / "upbeat-voice")
    parser.add_argument("--out", type=Path, help="where to write instead of beside the lexicon")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(1)
    lexicon = {
        word: said for word, said in read_lexicon(options.folder / LEXICON_FILE).items() if word.isalpha()
    }
    held = {word: said for word, said in lexicon.items() if split_of(f"voice/word/{word}") == "test"}
    rows = aligned({word: said for word, said in lexicon.items() if word not in held})
    model, sounds = train(rows, options.seed)
    path = options.out or options.folder / LETTERS_FILE
    save(model, sounds, path)
    guess = read_letters(path)
    assert isinstance(guess, LetterSounds)
    wrong = sum(phoneme_errors(guess(word), said) for word, said in held.items())
    exact = sum(phoneme_errors(guess(word), said) == 0 for word, said in held.items())
    total = sum(len(said) for said in held.values())
    print(
        f"{len(sounds)} sounds; {len(held)} words held out: {wrong / total:.1%} of phonemes wrong,", end=" "
    )
    print(f"{exact / len(held):.1%} of words exact")


if __name__ == "__main__":
    main()
