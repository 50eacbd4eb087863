"""When a prompt that still grows is worth an answer, and how much of it. Pure functions, chosen by name.

A policy sees a `Partial` and gives `Advice`. All but `pause` and `completeness` advise at whole words or
segments only, so that the keystrokes in between cost nothing. A name may carry its one number: `wait_k=5`.

    wait_k=3           every whole word from the k-th on (Ma et al., 2019: read k, then write with each word)
    hold_n=2           the same without the last n words, which may still change (Liu et al., 2020)
    local_agreement    the whole words that the last two revisions share (Liu et al., 2020)
    pause=250          everything, when nothing has changed for so many milliseconds
    completeness=250   at the end of a sentence at once; after so many milliseconds, where nothing dangles
    clause, sentence   at the ends of clauses or sentences
    chunk=12           every so many words
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass

from pipelines.errors import InvalidRequest
from pipelines.simultaneous.alignment import common_prefix
from pipelines.simultaneous.segments import SEGMENTERS, Segmenter, complete, segmenter

DEFAULT = "wait_k"
DEFAULT_SEGMENTER = "sentence"

# The white space behind a word; found in linear time, whatever the text is.
_WORD_END = re.compile(r"(?<=\S)\s+")
_NUMBER = re.compile(r"[0-9]{1,9}")
_SENTENCE_END = re.compile(r"[.!?][\"')\]]*\s*$")
# Words that call for another one behind them.
_DANGLING = frozenset(
    [
        *("a", "an", "the", "my", "your", "his", "her", "its", "our", "their", "this", "these", "those"),
        *("and", "or", "but", "if", "because", "so", "than", "that", "which", "who", "whose", "as"),
        *("of", "to", "in", "on", "at", "by", "for", "from", "with", "without", "is", "are", "was", "were"),
        *("how", "what", "when", "where", "some", "any", "no", "every", "each"),
    ]
)


@dataclass(frozen=True, slots=True)
class Partial:
    """The prompt as it stands, as it stood one revision before, and for how long it has not changed."""

    text: str
    before: str = ""
    quiet_ms: float = 0.0


@dataclass(frozen=True, slots=True)
class Advice:
    """The first `keep` characters are worth computing, and an answer to them as well if `answer`. again_ms:
    ask again when so much more time has passed without a change."""

    keep: int
    answer: bool = False
    again_ms: float = math.inf


Policy = Callable[[Partial], Advice]


def everything(partial: Partial) -> Advice:
    """Prefill alone."""
    return Advice(len(partial.text))


def wait_k(k: int) -> Policy:
    """From `k` whole words on, each further one."""
    return lambda partial: _words(partial.text, 0, k)


def hold_n(n: int) -> Policy:
    """Each whole word, `n` words late."""
    return lambda partial: _words(partial.text, n, 1)


def local_agreement(partial: Partial) -> Advice:
    """The whole words at the beginning that the last two revisions have in common."""
    shared = common_prefix(partial.before, partial.text)
    return _words(partial.text[:shared], 0, 1)


def pause(ms: int) -> Policy:
    """Prefills at every change, answers after `ms` without one."""

    def policy(partial: Partial) -> Advice:
        left_ms = ms - partial.quiet_ms
        keep = len(partial.text)
        return Advice(keep, bool(partial.text.strip())) if left_ms <= 0 else Advice(keep, again_ms=left_ms)

    return policy


def completeness(ms: int) -> Policy:
    """At once where a sentence has ended; after `ms` where the last word calls for no other."""
    waiting = pause(ms)

    def policy(partial: Partial) -> Advice:
        if _SENTENCE_END.search(partial.text):
            return Advice(len(partial.text), answer=True)
        return waiting(partial) if _could_end(partial.text) else everything(partial)

    return policy


def thinking(could_answer: bool) -> Policy:
    """Of a model that thinks ahead: prefills whole words; answers them once its own last note was an answer,
    and everything where `completeness` says so."""
    waiting = completeness(POLICIES["completeness"].usual)

    def policy(partial: Partial) -> Advice:
        complete = waiting(partial)
        if complete.answer:
            return complete
        words = _words(partial.text, 0, 1)
        return Advice(words.keep, words.answer and could_answer, complete.again_ms)

    return policy


def at_segments(cut: Segmenter) -> Policy:
    """At the end of each segment; where a sentence has ended, without waiting for what follows."""

    def policy(partial: Partial) -> Advice:
        ended = _SENTENCE_END.search(partial.text) is not None
        keep = len(partial.text) if ended else len(complete(cut, partial.text))
        return Advice(keep, answer=keep > 0)

    return policy


@dataclass(frozen=True, slots=True)
class _Kind:
    """How a policy is made of its number; the number's default and limits."""

    make: Callable[[int], Policy]
    usual: int = 0
    low: int = 0
    high: int = 0


POLICIES: dict[str, _Kind] = {
    "wait_k": _Kind(wait_k, 3, 1, 1000),
    "hold_n": _Kind(hold_n, 2, 1, 100),
    "local_agreement": _Kind(lambda _: local_agreement),
    "pause": _Kind(pause, 250, 10, 60_000),
    "completeness": _Kind(completeness, 250, 10, 60_000),
    "clause": _Kind(lambda _: at_segments(segmenter("clause"))),
    "sentence": _Kind(lambda _: at_segments(segmenter("sentence"))),
    "chunk": _Kind(lambda words: at_segments(segmenter("chunk", words)), 12, 1, 1000),
}


def policy(spec: str, field: str) -> Policy:
    """The policy called NAME or NAME=NUMBER. Raises: InvalidRequest naming `field` and the limit."""
    name, number = _parsed(spec, field, POLICIES)
    return POLICIES[name].make(number)


def segments_of(spec: str, field: str) -> Segmenter:
    """The segmenter called NAME or NAME=NUMBER. Raises: InvalidRequest naming `field` and the limit."""
    name, number = _parsed(spec, field, {name: POLICIES[name] for name in SEGMENTERS})
    return segmenter(name, number)


def _parsed(spec: str, field: str, kinds: dict[str, _Kind]) -> tuple[str, int]:
    name, sign, written = spec.partition("=")
    kind = kinds.get(name)
    if kind is None:
        raise InvalidRequest(field, f"must be one of {', '.join(kinds)}, not {name!r}")
    if not sign:
        return name, kind.usual
    if not kind.high:
        raise InvalidRequest(field, f"{name} takes no number")
    if not _NUMBER.fullmatch(written) or not kind.low <= int(written) <= kind.high:
        raise InvalidRequest(field, f"{name} takes {kind.low} to {kind.high}, not {written!r}")
    return name, int(written)


def _words(text: str, held: int, least: int) -> Advice:
    """Whole words but the last `held`, where at least `least` remain."""
    ends = [found.end() for found in _WORD_END.finditer(text)]
    kept = len(ends) - held
    return Advice(ends[kept - 1], answer=True) if kept >= least else Advice(0)


def _could_end(text: str) -> bool:
    words = text.split()
    return len(words) >= 2 and words[-1][-1:] not in ",;:-" and words[-1].lower() not in _DANGLING
