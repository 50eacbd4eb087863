"""The recogniser that measures the voice, and the floor that the committed voice must hold."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from pipelines.speech.voice.aloud import speak_aloud
from pipelines.speech.voice.embedded import load_voice
from training.eval_voice import FLOOR, domain_texts, error_rate
from training.voice_recogniser import Recogniser, arpa, dictionary_lines, plain_words, word_errors

FOLDER = Path(__file__).parents[2] / "models" / "upbeat-voice"


def test_word_errors() -> None:
    said = plain_words("Turn on the lights, please.")
    assert said == ["turn", "on", "the", "lights", "please"]
    assert word_errors(said, said) == 0
    assert word_errors(said, ["turn", "the", "light", "please", "now"]) == 3
    assert word_errors(said, []) == 5


def test_the_language_model_is_a_distribution() -> None:
    lines = arpa([["a", "b"], ["a", "c"], ["b", "a"]], order=2).splitlines()
    start = lines.index("\\1-grams:") + 1
    unigrams = [line.split("\t") for line in lines[start : lines.index("", start)]]
    assert sum(10 ** float(row[0]) for row in unigrams) == pytest.approx(1.0, abs=1e-3)
    backoff = {row[1]: 10 ** float(row[2]) for row in unigrams}
    start = lines.index("\\2-grams:") + 1
    bigrams = [line.split("\t") for line in lines[start : lines.index("", start)]]
    after_a = {row[1].split()[1]: 10 ** float(row[0]) for row in bigrams if row[1].startswith("a ")}
    rest = sum(10 ** float(row[0]) for row in unigrams if row[1] not in after_a)
    assert sum(after_a.values()) + backoff["a"] * rest == pytest.approx(1.0, abs=1e-3)
    assert not math.isinf(min(backoff.values()))


def test_the_dictionary_keeps_other_pronunciations() -> None:
    assert [line.split()[0] for line in dictionary_lines({"the"})] == ["the", "the(2)"]


@pytest.mark.slow
def test_the_committed_voice_holds_the_floor() -> None:
    trained, held = domain_texts()
    assert not set(trained) & set(held)
    voice = load_voice(FOLDER)
    found = error_rate(held[:20], lambda text: speak_aloud(voice, text), Recogniser(trained))
    assert found.rate <= FLOOR
