"""A recogniser of the domain for measuring intelligibility: pocketsphinx with a trigram model of the domain.

The language model is made from training texts alone (absolute discounting with back-off), written as an
ARPA file; the dictionary is pocketsphinx's own, cut to the domain's words.
"""

from __future__ import annotations

import math
import re
import tempfile
from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pocketsphinx

DISCOUNT = 0.5
SAMPLE_RATE = 16_000
Gram = tuple[str, ...]


def plain_words(text: str) -> list[str]:
    """The words that count for the error rate: lower case, no punctuation."""
    return re.findall(r"[a-z']+", text.lower())


def dictionary_lines(vocabulary: set[str]) -> list[str]:
    """The lines of pocketsphinx's dictionary for the words, all their pronunciations."""
    path = Path(pocketsphinx.get_model_path("en-us/cmudict-en-us.dict"))
    lines = path.read_text(encoding="utf-8").splitlines()
    return [line for line in lines if line and re.sub(r"\(\d+\)$", "", line.split()[0]) in vocabulary]


def arpa(sentences: Sequence[Sequence[str]], order: int = 3) -> str:
    """A back-off n-gram model (absolute discounting) of tokenised sentences, in ARPA form."""
    counts: list[Counter[Gram]] = [Counter() for _ in range(order)]
    for sentence in sentences:
        tokens = ("<s>", *sentence, "</s>")
        for size in range(1, order + 1):
            for at in range(len(tokens) - size + 1):
                counts[size - 1][tokens[at : at + size]] += 1
    counts[0][("<s>",)] = 0
    probabilities: dict[Gram, float] = {}
    backoff: dict[Gram, float] = {}
    total = sum(counts[0].values())
    for gram, count in counts[0].items():
        probabilities[gram] = count / total
    for size in range(2, order + 1):
        by_context: dict[Gram, list[Gram]] = defaultdict(list)
        for gram in counts[size - 1]:
            by_context[gram[:-1]].append(gram)
        for context, grams in by_context.items():
            seen = sum(counts[size - 1][gram] for gram in grams)
            for gram in grams:
                probabilities[gram] = (counts[size - 1][gram] - DISCOUNT) / seen
            lower = sum(probabilities[gram[1:]] for gram in grams)
            backoff[context] = (DISCOUNT * len(grams) / seen) / max(1.0 - lower, 1e-6)
    return _arpa_text(counts, probabilities, backoff, order)


def _arpa_text(
    counts: Sequence[Counter[Gram]], probabilities: dict[Gram, float], backoff: dict[Gram, float], order: int
) -> str:
    lines = ["\\data\\", *(f"ngram {size}={len(counts[size - 1])}" for size in range(1, order + 1)), ""]
    for size in range(1, order + 1):
        lines.append(f"\\{size}-grams:")
        for gram in sorted(counts[size - 1]):
            line = f"{_log10(probabilities[gram]):.4f}\t{' '.join(gram)}"
            lines.append(line + (f"\t{_log10(backoff.get(gram, 1.0)):.4f}" if size < order else ""))
        lines.append("")
    return "\n".join([*lines, "\\end\\", ""])


def _log10(value: float) -> float:
    return math.log10(value) if value > 1e-10 else -99.0


class Recogniser:
    """Hears 16 kHz float audio as words of the domain that the texts span."""

    def __init__(self, texts: Sequence[str]) -> None:
        sentences = [plain_words(text) for text in texts]
        known = {word for sentence in sentences for word in sentence}
        lines = dictionary_lines(known)
        known &= {line.split()[0] for line in lines}
        sentences = [sentence for sentence in sentences if set(sentence) <= known]
        with tempfile.TemporaryDirectory() as folder:
            model, words = Path(folder) / "domain.arpa", Path(folder) / "domain.dict"
            model.write_text(arpa(sentences), encoding="utf-8")
            words.write_text("\n".join(lines) + "\n", encoding="utf-8")
            self._decoder = pocketsphinx.Decoder(lm=str(model), dict=str(words), loglevel="FATAL")

    def hear(self, audio: npt.NDArray[np.float32]) -> list[str]:
        """The words in an utterance; a quarter second of silence is put around it, the peak is set to 0.5."""
        pause = np.zeros(SAMPLE_RATE // 4, np.float32)
        peak = max(float(np.abs(audio).max(initial=0.0)), 1e-6)
        wave = np.concatenate([pause, audio * (0.5 / peak), pause])
        dither = np.random.default_rng(0).normal(0.0, 2.0, len(wave))
        self._decoder.start_utt()
        self._decoder.process_raw(np.round(wave * 32767 + dither).astype(np.int16).tobytes(), full_utt=True)
        self._decoder.end_utt()
        best = self._decoder.hyp()
        return plain_words(best.hypstr) if best else []


def word_errors(said: Sequence[str], heard: Sequence[str]) -> int:
    """Substitutions, insertions and deletions between two word lists (Levenshtein distance)."""
    row = list(range(len(heard) + 1))
    for at, word in enumerate(said, start=1):
        previous, row[0] = row[0], at
        for column, other in enumerate(heard, start=1):
            cost = min(row[column] + 1, row[column - 1] + 1, previous + (word != other))
            previous, row[column] = row[column], cost
    return row[-1]
