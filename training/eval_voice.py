"""Measures the embedded voice: `python -m training.eval_voice [--count 200]`.

Word error rate of ours and of the teacher by one recogniser (pocketsphinx, trigrams of the training side's
texts) on unseen sentences; pace and memory beside espeak-ng and a VITS of default size; on the waveform how
far streamed audio is from whole audio, clicks, drift and peak; the first audio of a served first clause.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import multiprocessing
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from itertools import repeat
from pathlib import Path

import numpy as np
import torch

from benchmarks.stats import machine, percentile
from clients.client import Upbeat
from clients.events import Audio
from clients.launch import running_server
from pipelines.speech.speaker import Clause, FloatArray
from pipelines.speech.voice.aloud import difference_db, drain, speak_aloud, timed
from pipelines.speech.voice.embedded import EmbeddedVoice, load_voice
from training.data import ROOT, data_dir
from training.data_split import split_of
from training.voice_peers import ESPEAK, OURS, paces
from training.voice_recogniser import Recogniser, plain_words, word_errors
from training.voice_sound import Sound, sound
from training.voice_teacher import Teacher, TeacherMissing
from training.voice_text import generated, open_sets, speakable

RESAMPLES = 2_000
FLOOR, TEACHER_CEILING, MARGIN = 0.40, 0.15, 0.05
DOMAIN, FREE = KINDS = ("domain", "free text")
PEER_SENTENCES, SERVED = 8, 20
REPEATED, REPEATS = "Your order is ready at the counter, and the bread is still warm.", 12
SERVER = ("--listen", "127.0.0.1:0")
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


def error_rate(texts: Sequence[str], speak_one: Callable[[str], FloatArray], hears: Recogniser) -> ErrorRate:
    """Speaks and recognises each text."""
    errors, words = [], []
    for text in texts:
        said = plain_words(text)
        errors.append(word_errors(said, hears.hear(speak_one(text))))
        words.append(len(said))
    wrong, total = np.array(errors), np.array(words)
    draws = np.random.default_rng(0).integers(0, len(texts), (RESAMPLES, len(texts)))
    rates = wrong[draws].sum(axis=1) / total[draws].sum(axis=1)
    low, high = np.quantile(rates, (0.025, 0.975))
    return ErrorRate(float(wrong.sum() / total.sum()), float(low), float(high), int(total.sum()))


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


def heard(kind: str, who: str, folder: Path, count: int) -> ErrorRate | None:
    """The error rate of ours or of the teacher on `count` unseen sentences of the kind; None where the data
    or the teacher is absent. Runs in a process of its own."""
    torch.set_num_threads(1)
    texts = domain_texts() if kind == DOMAIN else free_texts(count)
    if texts is None:
        return None
    trained, held = texts
    if who == OURS:
        voice = load_voice(folder)
        return error_rate(held[:count], lambda text: speak_aloud(voice, text), Recogniser(trained))
    try:
        teacher = Teacher()
    except TeacherMissing:
        return None
    return error_rate(held[:count], lambda text: teacher.speak(text).audio, Recogniser(trained))


def sound_of(voice: EmbeddedVoice) -> Sound:
    """One sentence twelve times in a stream, each with the prosody of the one before."""
    clauses, before = [], None
    with torch.inference_mode():
        for _ in range(REPEATS):
            (state,) = drain(voice.begin([Clause(voice.phonemize(REPEATED), before=before)]))
            parts = []
            while state is not None:
                before = state.prosody
                ((audio, state),) = drain(voice.chunk([state]))
                parts.append(audio)
            clauses.append(np.concatenate(parts))
    return sound(clauses, voice.chunk_samples)


async def first_audio_ms(texts: Sequence[str]) -> list[float]:
    """From the text that completes a first clause to the first audio, at a client of a real server."""
    waits = []
    with tempfile.TemporaryDirectory() as folder:
        async with running_server(SERVER, Path(folder) / "log") as address, Upbeat(address) as upbeat:
            for text in [texts[0], *texts]:
                waits.append(await _first_audio_ms(upbeat, text))
    return waits[1:]


async def _first_audio_ms(upbeat: Upbeat, text: str) -> float:
    sent = 0.0

    async def pieces() -> AsyncIterator[str]:
        nonlocal sent
        yield text
        sent = time.perf_counter()
        yield " "

    async for event in upbeat.synthesize(pieces()):
        if isinstance(event, Audio):
            return 1000 * (time.perf_counter() - sent)
    raise RuntimeError(f"the server said nothing of {text!r}")


def main() -> None:
    """The command line; exits with 1 where the domain's error rate is too far from the teacher's."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, default=ROOT / "models" / "upbeat-voice")
    parser.add_argument("--count", type=int, default=200, help="sentences of each kind")
    parser.add_argument("--json", type=Path, help="write the figures here too")
    options = parser.parse_args()
    torch.set_num_threads(1)
    figures: dict[str, object] = {"machine": machine()}
    rates = listen(options.folder, options.count, figures)
    _, held = domain_texts()
    for name, pace in paces(options.folder, held[:PEER_SENTENCES]).items():
        print(f"{name}: {pace}")
        figures[f"pace: {name}"] = asdict(pace)
    show_sound(load_voice(options.folder), options.folder, held, figures)
    waits = asyncio.run(first_audio_ms(held[-SERVED:]))
    figures["first_audio_ms"] = {"p50": percentile(waits, 0.5), "worst": max(waits), "count": len(waits)}
    print(
        f"first audio of a served first clause: p50 {percentile(waits, 0.5):.0f}, worst {max(waits):.0f} ms"
    )
    if options.json:
        options.json.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")
    raise SystemExit(not good_enough(rates))


def listen(folder: Path, count: int, figures: dict[str, object]) -> dict[str, ErrorRate]:
    """Prints and keeps the error rates of both kinds of text; returns those of the domain."""
    tasks = [(kind, who) for kind in reversed(KINDS) for who in (OURS, ESPEAK)]
    kinds, speakers = zip(*tasks, strict=True)
    with ProcessPoolExecutor(2, multiprocessing.get_context("spawn")) as pool:
        found = dict(zip(tasks, pool.map(heard, kinds, speakers, repeat(folder), repeat(count)), strict=True))
    for (kind, who), rate in found.items():
        if rate is None:
            print(f"{kind}, {who}: left out, the data folder or espeak-ng is absent")
            continue
        print(f"{kind}, word error rate of {who}: {rate}")
        figures[f"{kind}: {who}"] = asdict(rate)
    return {who: rate for (kind, who), rate in found.items() if kind == DOMAIN and rate is not None}


def show_sound(voice: EmbeddedVoice, folder: Path, texts: Sequence[str], figures: dict[str, object]) -> None:
    """Prints and keeps what is measured on the waveform, and the longest gap."""
    made = sound_of(voice)
    found = {
        "streamed_difference_db": round(streamed_difference(voice, folder, texts[:10]), 1),
        "loudness_drift_db": round(made.drift_db, 2),
        "bend_at_borders": round(made.click, 2),
        "peak": round(made.peak, 2),
        "longest_gap_ms": round(longest_gap_ms(voice, texts[:16]), 1),
    }
    for name, value in found.items():
        print(f"{name}: {value}")
    figures |= found


def good_enough(rates: dict[str, ErrorRate]) -> bool:
    """At most five points above a teacher who is understood; without a teacher, below the floor."""
    ours, teacher = rates[OURS].rate, rates.get(ESPEAK)
    if teacher is None:
        return ours <= FLOOR
    return teacher.rate <= TEACHER_CEILING and ours <= teacher.rate + MARGIN


if __name__ == "__main__":
    main()
