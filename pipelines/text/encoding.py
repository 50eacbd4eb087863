"""Text to token ids, where most of the text was encoded before: a prompt that is being typed.

Encoders of the GPT-2 kind (byte-level BPE behind a regular expression) cut text into words first and never
merge across their borders. A word that stands is therefore encoded alike whatever follows, and only what
comes after the last border that stands is encoded again. Any other encoder is given the whole text.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tokenizers import Tokenizer

from pipelines.simultaneous.alignment import common_prefix

# A border that stands lies in front of a single space between a word and another one, with one more such
# border behind it: what decides on it has then been seen whole. Looked for among the last LOOKED characters.
_BORDER = re.compile(r"(?<=\w) (?=\w)")
LOOKED = 256
_WORDS = "one Two 3 four 56"
# Where a text is cut, and no token lies across: a code point that Unicode keeps for use inside a program.
CUT = "\ufdd0"


@dataclass(frozen=True, slots=True)
class Encoded:
    """A text, its tokens, and behind which character each of them ends."""

    text: str
    ids: list[int]
    ends: list[int]


class Encoder:
    """One tokenizer's. special: whether its own first and last tokens are added. Thread-safe."""

    def __init__(self, tokenizer: Tokenizer, raw: Mapping[str, Any], *, special: bool) -> None:
        """raw: tokenizer.json, parsed."""
        self._tokenizer = tokenizer
        self._special = special
        self._by_words = not special and by_words(tokenizer, raw)

    def encode(self, text: str, before: Encoded | None = None) -> Encoded:
        """The tokens of `text`, which may hold `CUT`s, each a character. before: of a text that begins
        like it, where there was one."""
        start, kept = self._standing(text, before) if before is not None and self._by_words else (0, 0)
        ids, ends = list[int](), list[int]()
        if before is not None and kept:
            ids, ends = before.ids[:kept], before.ends[:kept]
        for piece in text[start:].split(CUT):
            found = self._tokenizer.encode(piece, add_special_tokens=self._special)
            ids += found.ids
            ends += (start + end for _, end in found.offsets)
            start += len(piece) + len(CUT)
        return Encoded(text, ids, ends)

    def _standing(self, text: str, before: Encoded) -> tuple[int, int]:
        """The last border that stands: as many characters and as many tokens lie in front of it."""
        same = common_prefix(text, before.text)
        borders = [found.start() for found in _BORDER.finditer(text, max(0, same - LOOKED), same)]
        for start in reversed(borders[:-1]):
            kept = len(before.ends)
            while kept and before.ends[kept - 1] > start:
                kept -= 1
            if kept and before.ends[kept - 1] == start:
                return start, kept
        return 0, 0


def by_words(tokenizer: Tokenizer, raw: Mapping[str, Any]) -> bool:
    """Whether it cuts at every space between two words, whatever stands around them."""
    model, first = raw["model"], raw.get("pre_tokenizer") or {}
    steps: Sequence[Mapping[str, Any]] = first.get("pretokenizers", [first])
    *cuts, last = steps
    if model.get("type") != "BPE" or model.get("dropout") or raw.get("normalizer") is not None:
        return False
    if last.get("type") != "ByteLevel" or last.get("add_prefix_space") or not all(map(_context_free, cuts)):
        return False
    if any(_takes_spaces(token) for token in raw.get("added_tokens", ())):
        return False
    starts = {start for _, (start, _) in tokenizer.pre_tokenizer.pre_tokenize_str(_WORDS)}
    return all(place in starts for place, letter in enumerate(_WORDS) if letter == " ")


def _context_free(step: Mapping[str, Any]) -> bool:
    """A cut by a regular expression that does not look back."""
    pattern = step.get("pattern", {}).get("Regex", "(?<")
    return step.get("type") == "Split" and step.get("behavior") == "Isolated" and "(?<" not in pattern


def _takes_spaces(token: Mapping[str, Any]) -> bool:
    """Whether an added token may lie across a border."""
    flags = ("lstrip", "rstrip", "single_word")
    return any(token.get(flag) for flag in flags) or any(map(str.isspace, token["content"]))
