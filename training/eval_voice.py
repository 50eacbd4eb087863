"""Measures the embedded voice: `python -m training.eval_voice [--count 20]`.

Word error rate of ours and of the teacher by one recogniser (pocketsphinx, trigrams of the domain's training
texts) on unseen sentences, real-time factor and latency on one core, longest gap between
yields, and how far streamed audio is from whole audio.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TypeAlias

import numpy as np
import torch
from rich.progress import track

from pipelines.speech.speaker import Clause, FloatArray
from pipelines.speech.voice.aloud import difference_db, drain, speak_aloud, timed
from pipelines.speech.voice.embedded import EmbeddedVoice, load_voice
from training.data import ROOT, data_dir
from training.data_split import split_of
from training.voice_recogniser import Recogniser, plain_words, word_errors
from training.voice_teacher import Teacher, TeacherMissing
from training.voice_text import generated, open_sets, speakable

RESAMPLES = 2_000
FLOOR, TEACHER_CEILING = 0.40, 0.15
WHOLE_FRAMES = 4_000


@dataclass(frozen=True, slots=True)
class ErrorRate:
    """Word error rate with its 95 % bootstrap interval over sentences."""

    rate: float
    low: float
    high: float
    words: int

    def __str__(self) -> str:
        return f"{self.rate:.1%} [{self.low:.1%}, {self.high:.1%}] of {self.words} words"


Report: TypeAlias = dict[str, ErrorRate]


def domain_texts() -> tuple[list[str], list[str]]:
    """(training, test) texts of the domain, each in a fixed order."""
    pairs = generated(1, 9_000)
    trained = [text for name, text in pairs if split_of(name) == "train"]
    held = [text for name, text in generated(2, 6_000) if split_of(name) == "test"]
    return trained, held


def free_texts(count: int) -> tuple[list[str], list[str]] | None:
    """(training, test) texts of the open command sets, or None where they are absent."""
    data = data_dir()
    if data is None:
        return None
    pairs = [(name, text) for name, text in open_sets(data) if speakable(text) and text.isascii()]
    plain = [(name, text) for name, text in pairs if not any(letter.isdigit() for letter in text)]
    trained = [text for name, text in plain if split_of(name) == "train"]
    held = sorted({text for name, text in plain if split_of(name) == "test"} - set(trained))
    return trained, [held[at] for at in np.random.default_rng(0).permutation(len(held))[:count]]


def error_rate(
    texts: Sequence[str], speak_one: Callable[[str], FloatArray], hears: Recogniser, what: str
) -> ErrorRate:
    """Speaks and recognises each text."""
    errors, words = [], []
    for text in track(texts, description=what, transient=True):
        said = plain_words(text)
        errors.append(word_errors(said, hears.hear(speak_one(text))))
        words.append(len(said))
    wrong, total = np.array(errors), np.array(words)
    draws = np.random.default_rng(0).integers(0, len(texts), (RESAMPLES, len(texts)))
    rates = wrong[draws].sum(axis=1) / total[draws].sum(axis=1)
    low, high = np.quantile(rates, (0.025, 0.975))
    return ErrorRate(float(wrong.sum() / total.sum()), float(low), float(high), int(total.sum()))


def speed(voice: EmbeddedVoice, texts: Sequence[str]) -> tuple[float, float]:
    """(real-time factor, median milliseconds from text to first chunk), CPU time of one thread."""
    speak_aloud(voice, texts[0])
    first, spent, samples = [], 0.0, 0
    with torch.inference_mode():
        for text in texts:
            began = time.process_time()
            (state,) = drain(voice.begin([Clause(voice.phonemize(text))]))
            late = None
            while state is not None:
                ((audio, state),) = drain(voice.chunk([state]))
                late = late or time.process_time() - began
                samples += len(audio)
            first.append(late or 0.0)
            spent += time.process_time() - began
    return spent * voice.sample_rate / samples, 1000 * statistics.median(first)


def streamed_difference(voice: EmbeddedVoice, folder: Path, texts: Sequence[str]) -> float:
    """The worst difference, dB, of streamed audio from that of a twin that makes each clause in one piece."""
    twin = load_voice(folder, chunk_frames=WHOLE_FRAMES, block_frames=WHOLE_FRAMES)
    return max(difference_db(speak_aloud(voice, text), speak_aloud(twin, text)) for text in texts)


def longest_gap_ms(voice: EmbeddedVoice, texts: Sequence[str]) -> float:
    """The longest CPU time between two preemption points with all texts in one batch."""
    with torch.inference_mode():
        began, longest = timed(voice.begin([Clause(voice.phonemize(text)) for text in texts]))
        states = [state for state in began if state is not None]
        while states:
            rows, gap = timed(voice.chunk(states))
            longest = max(longest, gap)
            states = [state for _, state in rows if state is not None]
    return 1000 * longest


def intelligibility(
    voice: EmbeddedVoice, teacher: Teacher | None, texts: Sequence[str], hears: Recogniser
) -> Report:
    """The error rates of ours and, where espeak-ng is installed, of the teacher."""
    report: Report = {"upbeat-voice": error_rate(texts, lambda text: speak_aloud(voice, text), hears, "ours")}
    if teacher is not None:
        report["espeak-ng"] = error_rate(texts, lambda text: teacher.speak(text).audio, hears, "teacher")
    return report


def main() -> None:
    """The command line; exits with 1 where the floor of the domain is missed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, default=ROOT / "models" / "upbeat-voice")
    parser.add_argument("--count", type=int, default=20, help="sentences of each kind")
    parser.add_argument("--json", type=Path, help="write the figures here too")
    options = parser.parse_args()
    torch.set_num_threads(1)
    voice = load_voice(options.folder)
    try:
        teacher = Teacher()
    except TeacherMissing as missing:
        teacher = None
        print(f"teacher left out: {missing}")
    trained, held = domain_texts()
    texts = held[: options.count]
    figures: dict[str, object] = {}
    domain = intelligibility(voice, teacher, texts, Recogniser(trained))
    show("domain", domain, figures)
    free = free_texts(options.count)
    if free is None:
        print("free text left out: no data folder")
    else:
        show("free text", intelligibility(voice, teacher, free[1], Recogniser(free[0])), figures)
    factor, first_ms = speed(voice, texts)
    figures |= {
        "real_time_factor": round(factor, 4),
        "first_chunk_ms": round(first_ms, 1),
        "longest_gap_ms": round(longest_gap_ms(voice, texts[:16]), 1),
        "streamed_difference_db": round(streamed_difference(voice, options.folder, texts[:10]), 1),
    }
    for name in ("real_time_factor", "first_chunk_ms", "longest_gap_ms", "streamed_difference_db"):
        print(f"{name}: {figures[name]}")
    if options.json:
        options.json.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")
    fit = teacher is None or domain["espeak-ng"].rate <= TEACHER_CEILING
    if domain["upbeat-voice"].rate > FLOOR or not fit:
        raise SystemExit(1)


def show(kind: str, report: Report, figures: dict[str, object]) -> None:
    """Prints the error rates and keeps them for the JSON file."""
    for who, found in report.items():
        print(f"{kind}, word error rate of {who}: {found}")
        figures[f"{kind}: {who}"] = asdict(found)


if __name__ == "__main__":
    main()
