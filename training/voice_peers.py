"""How fast the voice and its peers speak, and in how much memory: each in its own process, one thread.

The processor time of one sentence is taken from all of them in turn, so that what slows the machine slows
them alike. The random VITS has the default size of its paper (Kim, Kong and Son, 2021): it is there for its
speed alone.
"""

from __future__ import annotations

import json
import multiprocessing
import resource
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path

import torch

from benchmarks.stats import paired_ratio
from pipelines.speech.speaker import Clause, Speaker
from pipelines.speech.voice.aloud import drain

OURS = "upbeat-voice"
ESPEAK = "espeak-ng"
VITS = "vits, random, default size"
LETTERS = "_abcdefghijklmnopqrstuvwxyz '"

Timing = tuple[float, float, float]
"""Processor seconds to the first chunk, to the last, and seconds of audio."""
Speak = Callable[[str], Timing]


@dataclass(frozen=True, slots=True)
class Pace:
    """real_time_factor: processor seconds a second of audio. ratio: this factor over ours, with its 95 %
    interval over sentences. first_ms: median processor time to the first chunk. memory_mb: the process's
    peak over what it took before the voice was loaded."""

    real_time_factor: float
    ratio: tuple[float, float, float]
    first_ms: float
    memory_mb: float

    def __str__(self) -> str:
        middle, low, high = self.ratio
        return (
            f"real-time factor {self.real_time_factor:.4f}, {middle:.2f} [{low:.2f}, {high:.2f}] of ours;"
            f" first chunk {self.first_ms:.1f} ms; memory {self.memory_mb:.0f} MB"
        )


def paces(folder: Path, texts: Sequence[str]) -> dict[str, Pace]:
    """Ours first; espeak-ng is absent where it is not installed."""
    with tempfile.TemporaryDirectory() as scratch:
        makers: dict[str, Callable[[], Speak]] = {
            OURS: partial(ours, folder),
            ESPEAK: espeak,
            VITS: partial(random_vits, Path(scratch)),
        }
        workers = {name: Worker(make) for name, make in makers.items()}
        timings: dict[str, list[Timing]] = {name: [] for name, worker in workers.items() if worker.ready}
        for text in texts:
            for name, timing in timings.items():
                timing.append(workers[name].speak(text))
        memory = {name: workers[name].memory_mb() for name in timings}
        for worker in workers.values():
            worker.close()
    factors = {name: [spent / audio for _, spent, audio in timing] for name, timing in timings.items()}
    return {
        name: Pace(
            sum(spent for _, spent, _ in timing) / sum(audio for _, _, audio in timing),
            paired_ratio(factors[name], factors[OURS]),
            1000 * statistics.median(first for first, _, _ in timing),
            memory[name],
        )
        for name, timing in timings.items()
    }


class Worker:
    """A speaker in a process of its own. `ready` is False where it is not installed."""

    def __init__(self, make: Callable[[], Speak]) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=serve, args=(make, theirs), daemon=True)
        self._process.start()
        self.ready: bool = self._pipe.recv()

    def speak(self, text: str) -> Timing:
        self._pipe.send(text)
        timing: Timing = self._pipe.recv()
        return timing

    def memory_mb(self) -> float:
        self._pipe.send("")
        memory: float = self._pipe.recv()
        return memory

    def close(self) -> None:
        self._pipe.close()
        self._process.join()


def serve(make: Callable[[], Speak], pipe: Connection) -> None:
    """The process: sentences in, timings out; an empty one asks for the memory."""
    from training.voice_teacher import TeacherMissing

    torch.set_num_threads(1)
    before = peak_mb()
    try:
        speak = make()
    except TeacherMissing:
        pipe.send(False)
        return
    speak("One, two, three.")
    pipe.send(True)
    while True:
        try:
            text: str = pipe.recv()
        except EOFError:
            return
        pipe.send(speak(text) if text else peak_mb() - before)


def ours(folder: Path) -> Speak:
    """The embedded voice."""
    from pipelines.speech.voice.embedded import load_voice

    return partial(timed_speech, load_voice(folder))


def espeak() -> Speak:
    """The teacher; its audio comes in one piece. Raises: TeacherMissing."""
    from training.voice_teacher import SAMPLE_RATE, Teacher

    teacher = Teacher()

    def speak(text: str) -> Timing:
        began = time.process_time()
        audio = teacher.speak(text).audio
        spent = time.process_time() - began
        return spent, spent, len(audio) / SAMPLE_RATE

    return speak


def random_vits(folder: Path) -> Speak:
    """A VITS folder of default size with random weights, made in `folder`."""
    from transformers import VitsConfig, VitsModel

    from pipelines.speech.vits import VitsSpeaker

    torch.manual_seed(0)
    VitsModel(VitsConfig(vocab_size=len(LETTERS))).save_pretrained(folder)
    (folder / "vocab.json").write_text(json.dumps({letter: n for n, letter in enumerate(LETTERS)}))
    tokenizer = {"tokenizer_class": "VitsTokenizer", "language": "eng", "pad_token": "_", "unk_token": "'"}
    switches = {"add_blank": True, "normalize": True, "phonemize": False}
    (folder / "tokenizer_config.json").write_text(json.dumps(tokenizer | switches))
    return partial(timed_speech, VitsSpeaker.load(folder))


def timed_speech(speaker: Speaker, text: str) -> Timing:
    """One sentence as one clause, chunk by chunk."""
    samples, first = 0, 0.0
    began = time.process_time()
    with torch.inference_mode():
        (state,) = drain(speaker.begin([Clause(speaker.phonemize(text))]))
        while state is not None:
            ((audio, state),) = drain(speaker.chunk([state]))
            first = first or time.process_time() - began
            samples += len(audio)
    return first, time.process_time() - began, samples / speaker.sample_rate


def peak_mb() -> float:
    """The most memory that this process has held, MB (Linux counts in KiB)."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
