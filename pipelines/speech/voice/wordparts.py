"""Unknown words from known parts: an ending on a known stem, or two known words in one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeAlias

Spelling: TypeAlias = tuple[str, ...]
"""Phonemes of a word, each with its stress mark (`'` or `,`) before it: `("h", "@", "l", "'oU")`."""

ENDINGS: tuple[tuple[str, Spelling], ...] = (
    ("ing", ("I", "N")),
    ("ness", ("n", "@", "s")),
    ("less", ("l", "@", "s")),
    ("ment", ("m", "@", "n", "t")),
    ("able", ("@", "b", "@L")),
    ("est", ("@", "s", "t")),
    ("ers", ("3", "z")),
    ("er", ("3",)),
    ("ly", ("l", "i")),
)
BEGINNINGS: tuple[tuple[str, Spelling], ...] = (
    ("un", ("V", "n")),
    ("re", ("r", "i:")),
    ("pre", ("p", "r", "i:")),
    ("non", ("n", "0", "n")),
    ("over", ("oU", "v", "3")),
)
HISSING, VOICELESS, STOPS = frozenset({"s", "z", "S", "Z", "tS", "dZ"}), frozenset("ptkfTsS"), frozenset("td")
LEAST_STEM, LEAST_PART = 3, 3


def from_parts(word: str, lexicon: Mapping[str, Spelling]) -> Spelling | None:
    """The phonemes of a word that is made of known ones, or None."""
    return _plural_or_past(word, lexicon) or _with_ending(word, lexicon) or _compound(word, lexicon)


def plural(stem: Spelling) -> Spelling:
    """A stem with the `s` of plural, possessive or third person."""
    last = stem[-1].lstrip("',")
    return (*stem, "I#", "z") if last in HISSING else (*stem, "s" if last in VOICELESS else "z")


def past(stem: Spelling) -> Spelling:
    """A stem with `ed`."""
    last = stem[-1].lstrip("',")
    if last in STOPS:
        return (*stem, "I#", "d")
    return (*stem, "t" if last in VOICELESS or last == "tS" else "d")


def _plural_or_past(word: str, lexicon: Mapping[str, Spelling]) -> Spelling | None:
    for ending, change in (("'s", plural), ("s'", plural), ("s", plural), ("ed", past)):
        if word.endswith(ending) and not word.endswith("ss"):
            stem = _stem(word[: -len(ending)], lexicon, drops_e=ending == "ed")
            if stem:
                return change(stem)
    if word.endswith("es") and word[:-2] in lexicon:
        return plural(lexicon[word[:-2]])
    return None


def _with_ending(word: str, lexicon: Mapping[str, Spelling]) -> Spelling | None:
    for ending, said in ENDINGS:
        if word.endswith(ending):
            stem = _stem(word[: -len(ending)], lexicon, drops_e=ending[0] in "aei")
            if stem:
                return (*stem, *said)
    for beginning, said in BEGINNINGS:
        rest = word[len(beginning) :]
        if word.startswith(beginning) and len(rest) > LEAST_STEM and rest in lexicon:
            return (*said, *lexicon[rest])
    return None


def _stem(stem: str, lexicon: Mapping[str, Spelling], drops_e: bool) -> Spelling | None:
    """The stem as it stands, with its `e` put back, its doubled letter undone, or its `i` a `y` again."""
    if len(stem) < LEAST_STEM:
        return None
    tries = [stem]
    if drops_e:
        tries = [stem[:-1] if stem[-1] == stem[-2] else stem, stem + "e", stem]
    if stem[-1] == "i":
        tries.append(stem[:-1] + "y")
    return next((lexicon[found] for found in tries if found in lexicon), None)


def _compound(word: str, lexicon: Mapping[str, Spelling]) -> Spelling | None:
    """The split whose shorter part is longest; the second part's stress becomes secondary."""
    cuts = sorted(range(LEAST_PART, len(word) - LEAST_PART + 1), key=lambda cut: abs(2 * cut - len(word)))
    for cut in cuts:
        first, second = lexicon.get(word[:cut]), lexicon.get(word[cut:])
        if first and second:
            return (*first, *("," + part[1:] if part[0] == "'" else part for part in second))
    return None
