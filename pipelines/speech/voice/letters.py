"""Letter-to-sound for words outside the lexicon: one small network over a window of letters.

After NETtalk (Sejnowski & Rosenberg 1987): each letter says zero to two phonemes, judged from the letters
around it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError, safe_open

from pipelines.speech.voice.frontend import STRESSES
from pipelines.speech.voice.wordparts import Spelling

ALPHABET = " abcdefghijklmnopqrstuvwxyz'"
REACH = 4
PRIMARY = "'"
STRESS_MARKS = ("", ",", PRIMARY)
VOWEL_SIGNS = frozenset("aAeEiIoOuUV03@")
Float = npt.NDArray[np.float32]


def windows(word: str) -> npt.NDArray[np.int64]:
    """[letters, 2 * REACH + 1] letter numbers around each letter, 0 outside the word."""
    numbers = [ALPHABET.find(letter) for letter in word if letter in ALPHABET[1:]]
    padded = np.array([0] * REACH + numbers + [0] * REACH, np.int64)
    return np.lib.stride_tricks.sliding_window_view(padded, 2 * REACH + 1)


@dataclass(frozen=True, slots=True)
class LetterSounds:
    """The network's weights; `sounds` names its classes, phonemes parted by spaces."""

    sounds: tuple[str, ...]
    letter: Float
    first: Float
    first_bias: Float
    second: Float
    second_bias: Float
    stress: Float
    stress_bias: Float

    def __call__(self, word: str) -> Spelling:
        """The phonemes of a word, with exactly one primary stress where it has a stressed vowel at all."""
        if len(word) == 0:
            return ()
        inner = self.letter[windows(word)].reshape(len(word), -1)
        inner = np.maximum(inner @ self.first + self.first_bias, 0.0)
        best = (inner @ self.second + self.second_bias).argmax(axis=1)
        marks = (inner @ self.stress + self.stress_bias).argmax(axis=1)
        said = [stressed(self.sounds[at], STRESS_MARKS[mark]) for at, mark in zip(best, marks, strict=True)]
        return one_stress([phoneme for sound in said for phoneme in sound])


def stressed(sound: str, mark: str) -> list[str]:
    """The phonemes of a sound with the mark on its first vowel, if it has one."""
    phonemes = sound.split()
    for at, phoneme in enumerate(phonemes):
        if phoneme[0] in VOWEL_SIGNS:
            phonemes[at] = mark + phoneme
            break
    return phonemes


def one_stress(phonemes: Sequence[str]) -> Spelling:
    """Keeps the first primary stress and makes later ones secondary.

    Where none is primary, the first secondary one is promoted, else the first vowel.
    """
    marks = [phoneme[0] if len(phoneme) > 1 and phoneme[0] in STRESSES else "" for phoneme in phonemes]
    vowels = ["V" if phoneme[0] in VOWEL_SIGNS else "" for phoneme in phonemes]
    orders = ((PRIMARY, marks), (",", marks), ("V", vowels))
    main = next((row.index(wanted) for wanted, row in orders if wanted in row), None)
    settled = []
    for at, (phoneme, mark) in enumerate(zip(phonemes, marks, strict=True)):
        bare = phoneme[len(mark) :]
        settled.append(PRIMARY + bare if at == main else ("," if mark else "") + bare)
    return tuple(settled)


def read_letters(path: Path) -> Callable[[str], Spelling]:
    """Loads `letters.safetensors`; raises ValueError naming the file where it is unreadable."""
    try:
        with safe_open(path, "np") as file:
            arrays = {name: file.get_tensor(name).astype(np.float32) for name in file.keys()}  # noqa: SIM118
            sounds = tuple(file.metadata()["sounds"].split("|"))
        return LetterSounds(sounds, **arrays)
    except (OSError, KeyError, TypeError, SafetensorError) as error:
        raise ValueError(f"{path}: {error}") from error
