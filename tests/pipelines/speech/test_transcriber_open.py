"""A microphone that stays open: what has begun is said, silence costs no slice, and no place."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from pipelines.contract import Budget, Emitted, Job
from pipelines.errors import Exhausted
from pipelines.messages import JobClass, SpeechAudio, TranscribeRequest, TranscriptChunk
from pipelines.speech.settings import TranscriberSettings
from pipelines.speech.transcriber import TranscriberPipeline
from tests.pipelines.speech.moonshine_folder import write_moonshine
from tests.pipelines.speech.vowels import pcm16, silence, vowels

pytestmark = pytest.mark.usefixtures("inference")

RATE = 16_000
OPEN = TranscribeRequest(RATE, open=True)
TWICE = pcm16(silence(RATE, 0.6), vowels(RATE), silence(RATE, 1.0), vowels(RATE, 0.9), silence(RATE, 0.7))


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory: pytest.TempPathFactory) -> TranscriberPipeline:
    folder = write_moonshine(tmp_path_factory.mktemp("moonshine"))
    return TranscriberPipeline.load(folder, name="ears", settings=TranscriberSettings(decoders=1))


def admitted(pipeline: TranscriberPipeline, request: TranscribeRequest, number: int = 1) -> Job:
    job = Job(number, "ears", "local", JobClass.REALTIME, request)
    pipeline.admit(job, pipeline.prepare(request, None))
    return job


def heard(
    pipeline: TranscriberPipeline, job: Job, audio: bytes, piece_ms: int = 100, final: bool = False
) -> tuple[list[TranscriptChunk], int]:
    """What is said, and how many slices it took."""
    chunks: list[Emitted] = []
    slices = 0
    for at in range(0, len(audio), 32 * piece_ms):
        last = at + 32 * piece_ms >= len(audio)
        pipeline.update(job, SpeechAudio(audio[at : at + 32 * piece_ms], final and last))
        while pipeline.ready(job):
            batch = pipeline.plan([job], Budget(60.0, 25.0))
            assert batch is not None
            chunks += [step.chunk for step in pipeline.run(batch) if step is not None]
            slices += 1
    return [chunk for chunk in chunks if isinstance(chunk, TranscriptChunk)], slices


@pytest.mark.parametrize("piece_ms", [100, 5000])
def test_each_utterance_says_that_it_has_begun_and_how_it_ended(
    pipeline: TranscriberPipeline, piece_ms: int
) -> None:
    job = admitted(pipeline, OPEN)
    chunks, _ = heard(pipeline, job, TWICE, piece_ms)
    pipeline.release(job)
    begun = [chunk for chunk in chunks if not chunk.text and not chunk.is_final]
    ended = [chunk for chunk in chunks if chunk.is_final]
    assert [chunks.index(chunk) for chunk in begun] == [0, chunks.index(ended[0]) + 1]
    assert [chunk.start_ms for chunk in begun] == [chunk.start_ms for chunk in ended]
    np.testing.assert_allclose([chunk.start_ms for chunk in begun], [600, 2800], atol=100)
    assert not any(chunk.cut for chunk in ended)


def test_silence_makes_no_slice_and_takes_no_memory(pipeline: TranscriberPipeline) -> None:
    job = admitted(pipeline, OPEN)
    chunks, slices = heard(pipeline, job, pcm16(silence(RATE, 20.0)))
    kept = sum(map(len, job.state.hearing._recent))
    pipeline.release(job)
    assert (chunks, slices) == ([], 0)
    assert kept < 2 * RATE


def test_an_open_microphone_takes_a_place_only_while_somebody_speaks(pipeline: TranscriberPipeline) -> None:
    jobs = [admitted(pipeline, OPEN, number) for number in (1, 2)]
    heard(pipeline, jobs[0], pcm16(silence(RATE, 0.6)))
    jobs.append(admitted(pipeline, TranscribeRequest(RATE), 3))
    pipeline.release(jobs.pop())
    heard(pipeline, jobs[0], pcm16(vowels(RATE)))
    with pytest.raises(Exhausted):
        admitted(pipeline, TranscribeRequest(RATE), 3)
    heard(pipeline, jobs[0], pcm16(silence(RATE, 1.0)))
    jobs.append(admitted(pipeline, TranscribeRequest(RATE), 3))
    for job in jobs:
        pipeline.release(job)


@pytest.mark.parametrize("open_", [False, True])
def test_a_cut_says_that_the_speaker_goes_on(
    pipeline: TranscriberPipeline, monkeypatch: pytest.MonkeyPatch, open_: bool
) -> None:
    monkeypatch.setattr("pipelines.speech.transcriber.LONGEST_S", 2.0)
    job = admitted(pipeline, TranscribeRequest(RATE, open=open_))
    chunks, _ = heard(pipeline, job, pcm16(silence(RATE, 0.6), vowels(RATE, 3.2), silence(RATE, 1.0)))
    pipeline.release(job)
    ended = [chunk for chunk in chunks if chunk.is_final]
    assert [chunk.cut for chunk in ended] == [True] * (len(ended) - 1) + [False]
    assert len(ended) > 1
    assert all(a.end_ms == b.start_ms for a, b in itertools.pairwise(ended))
