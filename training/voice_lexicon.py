"""The lexicon: common English words as the teacher says them.

Words come from pocketsphinx's dictionary (BSD), ranked by its language model; how function words are said
in running speech is counted over the training texts.
"""

from __future__ import annotations

import lzma
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path

import pocketsphinx

from pipelines.speech.voice.wordparts import Spelling
from training.voice_teacher import Teacher

WORDS = 50_000
CONTEXT_VOTES = 4
SYLLABIC_ASIDES = re.compile(r"[;]|\.$")
GLOTTAL = "q"
"""Our name for the teacher's `?`, which here is the question mark."""
_MERGED = {"?": GLOTTAL, "O": "O:", "o": "oU", "A~": "A:", "i::": "i:", "x": "k"}
"""Phonemes too rare to learn, and the nearest common one."""


def common_words(count: int = WORDS) -> list[str]:
    """The `count` likeliest words of pocketsphinx's dictionary, by its own unigram model."""
    lines = (
        Path(pocketsphinx.get_model_path("en-us/cmudict-en-us.dict")).read_text(encoding="utf-8").splitlines()
    )
    words = {line.split()[0] for line in lines if line and "(" not in line.split()[0]}
    words = {word for word in words if re.fullmatch(r"[a-z]+(?:'[a-z]+)*", word)}
    path = pocketsphinx.get_model_path("en-us/en-us.lm.bin")
    model = pocketsphinx.NGramModel.readfile(path)
    floor = model.prob(["zzzzqqqq"])
    ranked = sorted(words, key=lambda word: (-model.prob([word]), word))
    known = [word for word in ranked if model.prob([word]) > floor]
    return (known + [word for word in ranked if model.prob([word]) <= floor])[:count]


def spelling_of(said: str) -> Spelling:
    """One word of `Teacher.phonemes` as phonemes with their stress marks; pauses and asides dropped."""
    parts = (SYLLABIC_ASIDES.sub("", part).replace("''", "'") for part in said.split("_"))
    kept = (part for part in parts if part and part not in {"'", ",", ":", "%", "=", "|"})
    return tuple(_merged(part) for part in kept)


def _merged(phoneme: str) -> str:
    mark = phoneme[0] if phoneme[0] in "'," and len(phoneme) > 1 else ""
    bare = phoneme[len(mark) :]
    return mark + _MERGED.get(bare, bare)


def teacher_text(spelling: Spelling) -> str:
    """A word's phonemes as the teacher reads them inside `[[...]]`."""
    return "|".join("?" if phoneme == GLOTTAL else phoneme for phoneme in spelling)


def isolated(teacher: Teacher, word: str) -> Spelling:
    """How the teacher says a word alone, its parts joined."""
    return tuple(
        phoneme
        for clause in teacher.phonemes(word)
        for part in clause.split()
        for phoneme in spelling_of(part)
    )


def in_context(teacher: Teacher, sentences: Iterable[Sequence[str]]) -> dict[str, Counter[Spelling]]:
    """How often each word is said which way in running speech, where the teacher keeps words apart."""
    votes: dict[str, Counter[Spelling]] = defaultdict(Counter)
    for words in sentences:
        clauses = teacher.phonemes(" ".join(words))
        parts = clauses[0].split() if len(clauses) == 1 else []
        if len(parts) == len(words):
            for word, part in zip(words, parts, strict=True):
                votes[word][spelling_of(part)] += 1
    return votes


def build(teacher: Teacher, sentences: Sequence[Sequence[str]], words: Sequence[str]) -> dict[str, Spelling]:
    """Word to phonemes: what running speech says most often, else the word alone."""
    votes = in_context(teacher, sentences)
    lexicon: dict[str, Spelling] = {}
    for word in dict.fromkeys([*words, *votes, *"abcdefghijklmnopqrstuvwxyz"]):
        counted = votes.get(word)
        said = counted.most_common(1)[0][0] if counted and counted.total() >= CONTEXT_VOTES else ()
        said = said or isolated(teacher, word)
        if said and not any("(" in phoneme or phoneme[0] in "[]" for phoneme in said):
            lexicon[word] = said
    lexicon["ay"] = ("'eI",)
    lexicon["the"], lexicon["the+"] = ("D", "@2"), ("D", "I2")
    return lexicon


def write(lexicon: dict[str, Spelling], path: Path) -> None:
    """Writes what `read_lexicon` reads."""
    lines = (f"{word} {' '.join(lexicon[word])}\n" for word in sorted(lexicon))
    path.write_bytes(lzma.compress("".join(lines).encode("utf-8"), preset=9 | lzma.PRESET_EXTREME))


def inventory(lexicon: dict[str, Spelling]) -> list[str]:
    """The phonemes in use, stress marks off, in alphabetical order."""
    return sorted({re.sub(r"^[',](?=.)", "", phoneme) for said in lexicon.values() for phoneme in said})
