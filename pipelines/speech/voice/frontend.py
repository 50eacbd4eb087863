"""Words to symbol ids. An id packs a phoneme, its stress (0, 1 secondary, 2 primary) and whether it ends a
word.
"""

from __future__ import annotations

import lzma
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from pipelines.speech.speaker import Symbols
from pipelines.speech.voice.normalise import MARKS, spoken
from pipelines.speech.voice.wordparts import Spelling, from_parts

PACK = 6
MARK_ORDER = (",", ".", "?", "!")
STRESSES = {"'": 2, ",": 1}
VOWEL_LETTERS = "aeiou"


def pack(phoneme: int, stress: int, word_end: bool) -> int:
    return phoneme * PACK + stress * 2 + int(word_end)


def read_lexicon(path: Path) -> dict[str, Spelling]:
    """The xz-compressed lexicon: a word and its phonemes a line, parted by spaces.

    Raises ValueError naming the file where it is missing or damaged.
    """
    try:
        with lzma.open(path, "rt", encoding="utf-8") as lines:
            rows = (line.split() for line in lines)
            return {row[0]: tuple(row[1:]) for row in rows}
    except (OSError, EOFError, lzma.LZMAError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: {error}") from error


class Frontend:
    """Immutable after construction, so it may be used from any thread."""

    def __init__(
        self, phonemes: Sequence[str], lexicon: Mapping[str, Spelling], guess: Callable[[str], Spelling]
    ) -> None:
        self._number = {phoneme: number for number, phoneme in enumerate(phonemes)}
        self._lexicon, self._guess = lexicon, guess

    def words(self, text: str) -> list[tuple[str, Spelling]]:
        """(word or mark, its phonemes); a mark's only phoneme is itself."""
        tokens = spoken(text)
        if tokens and tokens[-1] not in MARKS:
            tokens.append(",")
        found = []
        for at, token in enumerate(tokens):
            after = tokens[at + 1] if at + 1 < len(tokens) else ","
            found.append((token, (token,) if token in MARKS else self.spelling(token, after)))
        return found

    def spelling(self, word: str, after: str) -> Spelling:
        """A word's phonemes; `the` is said otherwise before a vowel."""
        if word == "the" and after[0] in VOWEL_LETTERS:
            return self._lexicon.get("the+", self._lexicon["the"])
        known = self._lexicon.get(word) or from_parts(word, self._lexicon)
        return known if known is not None else self._guess(word)

    def ids(self, words: Sequence[tuple[str, Spelling]]) -> tuple[int, ...]:
        """Symbol ids of spelled words; phonemes that the model doesn't know are left out."""
        packed: list[int] = []
        for _, spelling in words:
            for at, phoneme in enumerate(spelling):
                stress = STRESSES.get(phoneme[0], 0) if len(phoneme) > 1 else 0
                number = self._number.get(phoneme[1:] if stress else phoneme)
                if number is not None:
                    packed.append(pack(number, stress, at + 1 == len(spelling)))
        return tuple(packed)

    def symbols(self, text: str) -> Symbols:
        """The clause's symbols; a text without a closing mark is taken to go on (`,`)."""
        words = self.words(text)
        if not any(token not in MARKS for token, _ in words):
            return Symbols((), bool(words))
        return Symbols(self.ids(words), words[-1][0] != ",")
