"""Cuts text that arrives in pieces into clauses, each out as soon as it is certain to be complete.

Rules
1. The clauses depend on the text alone, never on how it was cut into pieces.
2. Joined, the clauses are the text, character for character; space leads a clause.
3. A border is decided only when the text that decides it has arrived: one character after the mark, or the
   next character that is no space where that matters ("p.m. Then" and "p.m. on Monday").
"""

from __future__ import annotations

import enum
import re
from collections.abc import Iterator
from dataclasses import dataclass


class Border(enum.Enum):
    """What ends a clause: a full stop and its like, a comma and its like, or only that it was long."""

    SENTENCE = "sentence"
    PHRASE = "phrase"
    LENGTH = "length"


@dataclass(frozen=True, slots=True)
class TextClause:
    """A piece of text to be spoken in one go; `text` may be blank."""

    text: str
    border: Border


@dataclass(frozen=True, slots=True)
class ClauseLimits:
    """Where a clause may end. Words count towards a phrase border, characters towards a cut by length.

    Until something was said, the `first_*` limits hold: they trade melody for an early start.
    """

    words: int = 5
    characters: int = 180
    first_words: int = 2
    first_characters: int = 90
    longest_word: int = 240


_CLOSERS = r"[\"'”’»)\]}*_]*"
_MARK = re.compile(
    rf"(?P<wide>[。！？।]+{_CLOSERS})"
    rf"|(?P<stop>[.!?…]+{_CLOSERS})(?=\s|$)"
    rf"|(?P<phrase>[,;:]{_CLOSERS})(?=\s|$)"
    r"|(?P<dash>—|(?<=\s)[-–]+(?=\s|$))"
    r"|(?P<line>\n)"
)


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


_NEVER = _words(
    "dr mr mrs ms prof rev hon gen col capt lt sgt st ave blvd rd mt ft vs cf e.g i.e eg ie approx dept est"
)
_BEFORE_NUMBER = _words(
    "no nos fig figs vol vols p pp ch sec art eq ref tel ext jan feb mar apr jun jul aug sep"
)
_PERHAPS = _words("etc inc ltd co corp jr sr ph.d b.sc m.sc oct nov dec al bros univ min max")
_LETTERS = re.compile(r"(?:[A-Za-z]\.)+[A-Za-z]")
_NUMBERING = re.compile(r"\s*[(\[]?(?:\d{1,3}|[A-Za-z])[.)]*")
_JOINERS = re.compile(
    r"\s(?=(?:and|but|or|nor|so|because|which|while|when|where|if|that|then|until|unless|with)\s)"
)
_SPACE = re.compile(r"\s")
_VISIBLE = re.compile(r"\S")
_NO_BLANK = re.compile(r"[^ \t]")
_OPENERS = "\"'“‘«([{*_"


class ClauseSplitter:
    """Text in, clauses out. Owner: whoever feeds it; it holds the text not yet given out."""

    def __init__(self, limits: ClauseLimits = ClauseLimits()) -> None:
        self._limits = limits
        self._rest = ""
        self._scanned = 0
        self._first = True

    @property
    def held(self) -> int:
        """Characters that have arrived and belong to no complete clause yet."""
        return len(self._rest)

    def push(self, text: str) -> list[TextClause]:
        """More text; returns the clauses that it completes."""
        self._rest += text
        return list(self._complete(ended=False))

    def finish(self) -> list[TextClause]:
        """The text has ended; returns all that was held."""
        clauses = list(self._complete(ended=True))
        if self._rest:
            clauses.append(self._take(len(self._rest), Border.SENTENCE))
        return clauses

    def _complete(self, *, ended: bool) -> Iterator[TextClause]:
        while (found := self._border(ended)) is not None:
            yield self._take(*found)

    def _take(self, end: int, border: Border) -> TextClause:
        text, self._rest, self._scanned = self._rest[:end], self._rest[end:], 0
        self._first = self._first and not any(c.isalnum() for c in text)
        return TextClause(text, border)

    def _border(self, ended: bool) -> tuple[int, Border] | None:
        """End and kind of the first clause held, or None while it is open."""
        longest = self._limits.first_characters if self._first else self._limits.characters
        blank = _start(_VISIBLE, self._rest, 0)
        limit = blank + longest
        for mark in _MARK.finditer(self._rest, self._scanned):
            if mark.end() > limit:
                break
            verdict = self._judge(mark, ended)
            if verdict is None:
                return None
            if verdict:
                return mark.end(), Border.PHRASE if mark.lastgroup in ("phrase", "dash") else Border.SENTENCE
            self._scanned = mark.end()
        return self._cut(blank, limit)

    def _judge(self, mark: re.Match[str], ended: bool) -> bool | None:
        """Whether a clause ends at the mark; None: the text that decides has not arrived."""
        before = self._rest[: mark.start()]
        if not any(c.isalnum() for c in before):
            return False
        if mark.end() == len(self._rest):
            return False if ended else None
        if mark.lastgroup == "wide":
            return True
        if mark.lastgroup in ("phrase", "dash"):
            return len(before.split()) >= (self._limits.first_words if self._first else self._limits.words)
        next_at = _start(_NO_BLANK if mark.lastgroup == "line" else _VISIBLE, self._rest, mark.end())
        follows = self._rest[next_at : next_at + 1]
        if mark.lastgroup == "line":
            return None if not (follows or ended) else follows in "\n-*•–#" or follows.isdigit()
        return _ends_sentence(before, mark.group(), follows, ended)

    def _cut(self, blank: int, limit: int) -> tuple[int, Border] | None:
        """A clause without a mark is cut before a joining word of its second half, or between two words."""
        if len(self._rest) <= limit:
            return None
        joints = [m.start() for m in _JOINERS.finditer(self._rest, (blank + limit) // 2, limit)]
        spaces = joints or [m.start() for m in _SPACE.finditer(self._rest, blank + 1, limit + 1)]
        if spaces:
            return spaces[-1], Border.LENGTH
        space = _SPACE.search(self._rest, limit)
        end = min(space.start() if space else len(self._rest), blank + self._limits.longest_word)
        if space or len(self._rest) > blank + self._limits.longest_word:
            return end, Border.LENGTH
        return None


def _start(pattern: re.Pattern[str], text: str, at: int) -> int:
    found = pattern.search(text, at)
    return found.start() if found else len(text)


def _ends_sentence(before: str, mark: str, follows: str, ended: bool) -> bool | None:
    """Whether the full stop (or "!", "?", "...") ends a sentence; `follows` is what comes after space."""
    if mark[0] != "." or mark.startswith(".."):
        return True
    if _NUMBERING.fullmatch(before):
        return False
    raw = before.split()[-1].lstrip(_OPENERS)
    word = raw.lower()
    if word in _NEVER or (len(raw) == 1 and raw.isalpha() and raw != "I"):
        return False
    if word not in _PERHAPS and word not in _BEFORE_NUMBER and not _LETTERS.fullmatch(raw):
        return True
    if not follows:
        return True if ended else None
    if word in _BEFORE_NUMBER:
        return not follows.isdigit()
    return follows.isupper() or follows in _OPENERS
