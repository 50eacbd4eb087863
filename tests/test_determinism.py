"""The determinism contract on the three real pipelines: suspension never changes a bit.

Tiny random models, and for speech the pipeline over a voice of sines (a VITS voice is proven alike in
tests/pipelines/speech/test_speech_replay.py). At least five forced suspensions an example, a cancel, an
eviction, batches of three rows and more, a promotion for text. The recorded batches are run again on fresh
pipelines, each slice in one go, and every emission must be bit-equal.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.contract import Emitted, Pipeline, RawAudio, RawImage
from pipelines.image.pipeline import ImagePipeline
from pipelines.image.settings import ImageSettings
from pipelines.messages import (
    Done,
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
from pipelines.speech.speaker import ChunkRow, ClauseState
from pipelines.text.pipeline import TextPipeline
from pipelines.text.settings import TextSettings
from server.executor.recording import Committed, Evicted, Recording, replay
from tests.pipelines.image.conftest import make_folder
from tests.pipelines.speech.fake_speaker import FakeSpeaker, FakeState
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
    return bench.submit(
        job_class,
        SpeechRequest(rate=rng.choice((0.8, 1.3)), pitch=rng.choice((0.7, 1.0, 1.4))),
        pipeline=name,
        first=first,
    )


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
    evictions = 2
    for step in range(5_000):
        if step == 3:
            bench.cancel(first[1])
        leased = [job for job in bench.executor._book.live(name) if pipeline.leased(job) and not job.in_slice]
        if step >= 4 and leased and evictions:
            evictions -= 1
            bench.executor._memory.evict(rng.choice(leased))
        if not bench.executor.step():
            assert not any(isinstance(chunk, Done) for chunk in bench.chunks(first[1])), "cancelled in time"
            return bench.recording
    raise AssertionError("the executor does not come to rest")


def same(one: Emitted, other: Emitted) -> bool:
    if isinstance(one, RawAudio) and isinstance(other, RawAudio):
        return np.array_equal(one.samples, other.samples)
    if isinstance(one, RawImage) and isinstance(other, RawImage):
        return one.step == other.step and np.array_equal(one.pixels, other.pixels)
    return one == other


def checked(recorded: Recording) -> Recording:
    """The recording, if it contains what the contract asks for (its cancel has been checked)."""
    commits = [event for event in recorded.events if isinstance(event, Committed)]
    assert recorded.suspensions >= 5
    assert any(len(event.rows) >= 3 for event in commits)
    assert any(isinstance(event, Evicted) for event in recorded.events)
    return recorded


def proves(recorded: Recording, fresh: Pipeline) -> bool:
    """Whether the replay is bit-equal."""
    commits = [event for event in recorded.events if isinstance(event, Committed)]
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
    assert proves(checked(disturbed(seed, text_pipeline(text_folder), say_text)), text_pipeline(text_folder))


@given(st.integers(0, 10_000))
@EXAMPLES
def test_speech(seed: int) -> None:
    assert proves(checked(disturbed(seed, speech_pipeline(), say_speech)), speech_pipeline())


@given(st.integers(0, 10_000))
@settings(EXAMPLES, max_examples=3)
def test_image(image_folder: Path, seed: int) -> None:
    def load() -> ImagePipeline:
        return ImagePipeline.load(image_folder, name="image", settings=ImageSettings())

    assert proves(checked(disturbed(seed, load(), say_image)), load())


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
    bench.executor._memory.evict(next(each for each in bench.executor._book.live("text") if each.id == job))
    bench.run()
    assert proves(checked(bench.recording), text_pipeline(text_folder))


class LeakySpeaker(FakeSpeaker):
    """Breaks rule 3 of the contract: what a chunk depends on is kept on the module between two yields."""

    def chunk(self, states: Sequence[ClauseState]) -> Generator[None, None, list[ChunkRow]]:
        assert isinstance(states[0], FakeState)
        self.start_hz = states[0].start_hz * states[0].pitch
        yield
        yield
        moved = [replace(state, start_hz=self.start_hz) for state in states if isinstance(state, FakeState)]
        made = yield from super().chunk(moved)
        return made


def test_the_proof_fails_without_isolation() -> None:
    """A leaky voice falls over nowhere; only the bits tell."""

    def leaky() -> SpeechPipeline:
        return SpeechPipeline("speech", LoadedSpeaker(LeakySpeaker(), "fake", 0))

    assert not all(proves(disturbed(seed, leaky(), say_speech), leaky()) for seed in range(8))


def test_the_proof_fails_without_isolation_of_text(text_folder: Path) -> None:
    """A decoder that keeps on itself what its last caller asked for."""

    def leaky() -> TextPipeline:
        pipeline = text_pipeline(text_folder)
        kept: dict[str, int] = {}
        forward = pipeline._decoder.forward

        def wrong(packed: Any, *rest: Any) -> Any:
            kept["shift"] = len(packed.ids)
            logits = yield from forward(packed, *rest)
            yield
            return None if logits is None else logits.roll(kept["shift"], dims=-1)

        pipeline._decoder.forward = wrong  # type: ignore[method-assign, assignment]
        return pipeline

    assert not all(proves(disturbed(seed, leaky(), say_text), leaky()) for seed in range(8))


def test_the_proof_fails_without_isolation_of_images(image_folder: Path) -> None:
    """A U-Net that keeps on itself what it was called with."""

    def leaky() -> ImagePipeline:
        pipeline = ImagePipeline.load(image_folder, name="image", settings=ImageSettings())
        unet, kept = pipeline._parts.backbone.network, {"gain": torch.ones(())}

        def enter(_module: Any, args: Any, kwargs: Any) -> None:
            kept["gain"] = (args[0] if args else kwargs["sample"]).std()

        def leave(_module: Any, _args: Any, output: Any) -> Any:
            return (output[0] * kept["gain"],)

        unet.register_forward_pre_hook(enter, with_kwargs=True)
        unet.register_forward_hook(leave)
        return pipeline

    assert not all(proves(disturbed(seed, leaky(), say_image), leaky()) for seed in range(3))
