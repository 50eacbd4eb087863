"""Cuts a prompt that still grows into segments. Pure.

Rules
1. Segments put together are the text; each but the last ends with white space or at the end of a chunk.
2. Text that is appended changes no segment but the last one: what has been cut stays cut.
3. A segment has at least `SHORTEST` characters (LiveMind); a shorter one is joined with what follows.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import partial
from itertools import pairwise

SHORTEST = 10
CHUNK_WORDS = 12

Segmenter = Callable[[str], list[str]]

# The patterns look at each character a bounded number of times, whatever the text is: a run is entered at its
# beginning alone, and nothing that was eaten is given back. White space is always followed by something.
# Stops, closing quotes and brackets, then white space, then something that could begin a sentence.
_SENTENCE = re.compile(r"(?<![.!?])[.!?]++[\"')\]]*+\s++|\n\s*+")
# As above, or at commas, semicolons, colons and dashes; a comma between digits belongs to a number.
_CLAUSE = re.compile(
    _SENTENCE.pattern + r"|[;:]\s++|(?<!\s)\s++[-–—]\s++|(?<!\d),[\"')\]]*+\s++|(?<=\d),\s++(?!\d)"
)
_WORD = re.compile(r"(?<=\S)\s++")


def sentences(text: str) -> list[str]:
    """At the ends of sentences and lines."""
    return _joined(_split(_SENTENCE, text))


def clauses(text: str) -> list[str]:
    """At commas, semicolons, colons and dashes as well."""
    return _joined(_split(_CLAUSE, text))


def chunks(text: str, words: int = CHUNK_WORDS) -> list[str]:
    """Every so many words."""
    pieces = _split(_WORD, text)
    return _joined(["".join(pieces[start : start + words]) for start in range(0, len(pieces), words)])


def complete(segmenter: Segmenter, text: str) -> str:
    """The segments that will not change when text is appended, in one piece: all but the last."""
    return "".join(segmenter(text)[:-1])


SEGMENTERS: dict[str, Segmenter] = {"clause": clauses, "sentence": sentences, "chunk": chunks}


def segmenter(name: str, words: int = CHUNK_WORDS) -> Segmenter:
    """By name: "clause", "sentence" or "chunk" (of `words`)."""
    return partial(chunks, words=words) if name == "chunk" else SEGMENTERS[name]


def _split(pattern: re.Pattern[str], text: str) -> list[str]:
    """`text` behind every match that something other than white space follows."""
    ends = [0, *(found.end() for found in pattern.finditer(text, 0, len(text.rstrip()))), len(text)]
    return [text[start:end] for start, end in pairwise(ends) if end > start]


def _joined(pieces: list[str]) -> list[str]:
    """Rule 3."""
    whole: list[str] = []
    for piece in pieces:
        if whole and len(whole[-1].strip()) < SHORTEST:
            whole[-1] += piece
        else:
            whole.append(piece)
    return whole
