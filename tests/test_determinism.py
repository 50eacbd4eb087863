"""The determinism contract on the three real pipelines: suspension never changes a bit.

Tiny random models; at least five forced suspensions an example, a cancel, a promotion where the pipeline
has one, an eviction, batches of three rows and more. The recorded batches are run again on fresh pipelines,
each slice in one go, and every emission must be bit-equal.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.contract import Batch, Emission, Emitted, Pipeline, RawAudio, RawImage
from pipelines.image.pipeline import ImagePipeline
from pipelines.image.settings import ImageSettings
from pipelines.messages import (
    ImageRequest,
    JobClass,
    PromptRevision,
    Sampling,
    SpeechRequest,
    SpeechText,
    TextRequest,
)
from pipelines.speech.loading import LoadedSpeaker
from pipelines.speech.pipeline import SpeechPipeline
from pipelines.text.pipeline import TextPipeline
from pipelines.text.settings import TextSettings
from server.executor.recording import Committed, Recording, replay
from tests.pipelines.image.conftest import make_folder
from tests.pipelines.speech.fake_speaker import FakeSpeaker
from tests.server.executor.bench import Bench
from tests.text_driver import Folders

SENTENCE = "one two three red boat, and a blue house. Seven, eight; nine? The quick brown fox!"
WORDS = SENTENCE.split()
Submit = Callable[[Bench, random.Random, str, JobClass], int]
EXAMPLES = settings(max_examples=6, deadline=None, derandomize=True)


def say_text(bench: Bench, rng: random.Random, name: str, job_class: JobClass) -> int:
    sampling = Sampling(
        max_tokens=rng.randint(3, 6), temperature=rng.choice((0.0, 0.8)), seed=rng.randint(0, 9)
    )
    text = " ".join(rng.choices(WORDS, k=rng.randint(3, 25)))
    first = PromptRevision(1, text, True)
    return bench.submit(job_class, TextRequest((), sampling), pipeline=name, first=first)


def say_speech(bench: Bench, rng: random.Random, name: str, job_class: JobClass) -> int:
    first = SpeechText(" ".join(rng.choices(WORDS, k=rng.randint(3, 12))), True)
    return bench.submit(job_class, SpeechRequest(rate=rng.choice((0.8, 1.3))), pipeline=name, first=first)


def say_image(bench: Bench, rng: random.Random, name: str, job_class: JobClass) -> int:
    request = ImageRequest(
        " ".join(rng.choices(WORDS, k=4)),
        width=64,
        height=64,
        steps=rng.randint(1, 4),
        seed=rng.randint(0, 99),
        guidance=rng.choice((1.0, 4.0)),
        scheduler=rng.choice(("ddim", "euler", "dpmpp_2m")),
        preview_every=1,
    )
    return bench.submit(job_class, request, pipeline=name)


def disturbed(seed: int, pipeline: Pipeline, submit: Submit) -> Recording:
    """Jobs of all classes arrive while others run; slices are suspended, rows cancelled, leases taken."""
    rng = random.Random(seed)
    name = pipeline.info.name
    left = 6

    def give_way() -> bool:
        nonlocal left
        if left and rng.random() < 0.3:
            left -= 1
            submit(bench, rng, name, rng.choice(list(JobClass)))
        return rng.random() < 0.5

    bench = Bench(pipeline, give_way=give_way, yield_ms=0.01)
    first = [submit(bench, rng, name, JobClass.STANDARD) for _ in range(5)]
    for step in range(5_000):
        if step == 4:
            bench.cancel(first[1])
        if step in (6, 12):
            waiting = [job for job in bench.executor._book.live(name) if not job.in_slice]
            if waiting:
                bench.executor._evict(rng.choice(waiting))
        if not bench.executor.step():
            return bench.recording
    raise AssertionError("the executor does not come to rest")


def same(one: Emitted, other: Emitted) -> bool:
    if isinstance(one, RawAudio) and isinstance(other, RawAudio):
        return np.array_equal(one.samples, other.samples)
    if isinstance(one, RawImage) and isinstance(other, RawImage):
        return one.step == other.step and np.array_equal(one.pixels, other.pixels)
    return one == other


def proves(recorded: Recording, fresh: Pipeline) -> bool:
    """Whether the replay is bit-equal. The recording must contain what the contract asks for."""
    commits = [event for event in recorded.events if isinstance(event, Committed)]
    assert recorded.suspensions >= 5
    assert any(len(event.rows) >= 3 for event in commits)
    wanted = [out for event in commits for out in event.emissions]
    found = replay(recorded.events, {fresh.info.name: fresh})
    return len(found) == len(wanted) and all(
        a[0] == b[0] and same(a[1], b[1]) for a, b in zip(found, wanted, strict=True)
    )


@pytest.fixture(scope="module", autouse=True)
def _device_thread() -> Iterator[None]:
    torch.set_num_threads(1)
    with torch.inference_mode():
        yield


@pytest.fixture(scope="module")
def text_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    with torch.inference_mode(False):
        return Folders(tmp_path_factory.mktemp("text"))()


@pytest.fixture(scope="module")
def image_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    with torch.inference_mode(False):
        return make_folder(tmp_path_factory.mktemp("image") / "tiny")


def text_pipeline(folder: Path) -> TextPipeline:
    return TextPipeline.load(folder, name="text", settings=TextSettings(kv_tokens=512, max_chunk=16))


def speech_pipeline() -> SpeechPipeline:
    return SpeechPipeline("speech", LoadedSpeaker(FakeSpeaker(), "fake", 0))


@given(st.integers(0, 10_000))
@EXAMPLES
def test_text(text_folder: Path, seed: int) -> None:
    assert proves(disturbed(seed, text_pipeline(text_folder), say_text), text_pipeline(text_folder))


@given(st.integers(0, 10_000))
@EXAMPLES
def test_speech(seed: int) -> None:
    assert proves(disturbed(seed, speech_pipeline(), say_speech), speech_pipeline())


@given(st.integers(0, 10_000))
@settings(EXAMPLES, max_examples=3)
def test_image(image_folder: Path, seed: int) -> None:
    def load() -> ImagePipeline:
        return ImagePipeline.load(image_folder, name="image", settings=ImageSettings())

    assert proves(disturbed(seed, load(), say_image), load())


def test_a_promotion_changes_no_bit(text_folder: Path) -> None:
    """A prompt that is prefilled ahead in pieces, suspended, revised, promoted at commit, and evicted."""
    rng = random.Random(7)
    bench = Bench(text_pipeline(text_folder), give_way=lambda: rng.random() < 0.5, yield_ms=0.01)
    text = " ".join(rng.choices(WORDS, k=60))
    for _ in range(3):
        say_text(bench, rng, "text", JobClass.STANDARD)
    job = bench.submit(
        JobClass.INTERACTIVE, TextRequest((), Sampling(max_tokens=6)), pipeline="text", committed=False
    )
    for number, length in enumerate((40, 90, 60), 1):
        bench.update(job, PromptRevision(number, text[:length], False))
        for _ in range(3):
            bench.executor.step()
    bench.update(job, PromptRevision(9, text, True))
    for _ in range(4):
        bench.executor.step()
    bench.executor._evict(next(each for each in bench.executor._book.live("text") if each.id == job))
    bench.run()
    assert proves(bench.recording, text_pipeline(text_folder))


class Leaky:
    """Breaks rule 3 of the contract: what runs is kept on the pipeline, not in the generator."""

    def __init__(self, inner: Pipeline) -> None:
        self._inner = inner
        self._current: Batch | None = None

    def __getattr__(self, name: str) -> object:
        return getattr(self._inner, name)

    def run(self, batch: Batch) -> Iterator[Emission | None]:
        self._current = batch
        for _ in range(4):
            yield None
        yield from self._inner.run(self._current)


def test_the_proof_fails_without_isolation(text_folder: Path) -> None:
    """A leaky pipeline is found out, by a difference or by falling over."""
    found_out = 0
    for seed in range(4):
        leaky: Pipeline = Leaky(text_pipeline(text_folder))  # type: ignore[assignment]
        recorded = disturbed(seed, leaky, say_text)
        try:
            found_out += not proves(recorded, text_pipeline(text_folder))
        except (AssertionError, IndexError, KeyError, RuntimeError, ValueError):
            found_out += 1
    assert found_out
