"""Recognising: transcripts, jobs that leave no trace, cuts, bad input."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from pipelines.contract import Budget, Emitted, Job
from pipelines.errors import Exhausted, InvalidRequest, Unsupported, WrongState
from pipelines.messages import (
    Done,
    JobClass,
    SpeechAudio,
    TextRequest,
    TranscribeRequest,
    TranscriptChunk,
)
from pipelines.speech import transcriber
from pipelines.speech.settings import TranscriberSettings
from pipelines.speech.transcriber import TranscriberPipeline
from tests.pipelines.speech.moonshine_folder import write_moonshine
from tests.pipelines.speech.vowels import pcm16, silence, vowels

pytestmark = pytest.mark.usefixtures("inference")

UTTERANCE = pcm16(silence(16_000, 0.5), vowels(16_000), silence(16_000, 0.7))
OTHER = pcm16(silence(16_000, 0.2), 0.4 * vowels(16_000, 0.7), silence(16_000, 0.7), vowels(16_000, 0.5))


@pytest.fixture(scope="module")
def pipeline() -> TranscriberPipeline:
    return TranscriberPipeline.load(name="ears", settings=TranscriberSettings(decoders=1, max_waiting_s=30.0))


@pytest.fixture
def job(pipeline: TranscriberPipeline) -> Iterator[Job]:
    job = admitted(pipeline)
    yield job
    pipeline.release(job)


def admitted(pipeline: TranscriberPipeline, request: TranscribeRequest | None = None) -> Job:
    request = request or TranscribeRequest()
    job = Job(1, "ears", "local", JobClass.REALTIME, request)
    pipeline.admit(job, pipeline.prepare(request, None))
    return job


def hear(pipeline: TranscriberPipeline, job: Job, pcm: bytes, final: bool = True) -> list[Emitted]:
    pipeline.update(job, pipeline.prepare(job.request, SpeechAudio(pcm, final)))
    chunks: list[Emitted] = []
    while pipeline.ready(job):
        batch = pipeline.plan([job], Budget(60.0, 25.0))
        assert batch is not None
        chunks += [step.chunk for step in pipeline.run(batch) if step is not None]
    return chunks


def transcribed(
    pipeline: TranscriberPipeline, pcm: bytes, request: TranscribeRequest | None = None
) -> list[Emitted]:
    job = admitted(pipeline, request)
    chunks = hear(pipeline, job, pcm)
    pipeline.release(job)
    return chunks


def test_partials_then_a_final_transcript_then_done(pipeline: TranscriberPipeline) -> None:
    *transcripts, done = transcribed(pipeline, UTTERANCE)
    assert isinstance(done, Done)
    assert done.usage.audio_ms == 2400
    finals = [t for t in transcripts if isinstance(t, TranscriptChunk) and t.is_final]
    partials = [t for t in transcripts if isinstance(t, TranscriptChunk) and not t.is_final]
    assert len(finals) == 1
    assert finals[0] is transcripts[-1]
    assert finals[0].text
    assert 300 < finals[0].start_ms < 800 < 1500 < finals[0].end_ms < 2200
    assert partials
    assert all(0.0 <= partial.stability <= 1.0 for partial in partials)
    assert all(a.text != b.text for a, b in itertools.pairwise(partials))


def test_only_finals_on_request(pipeline: TranscriberPipeline) -> None:
    chunks = transcribed(pipeline, UTTERANCE, TranscribeRequest(interim=False))
    assert [type(chunk) for chunk in chunks] == [TranscriptChunk, Done]
    with_partials = transcribed(pipeline, UTTERANCE)
    assert chunks[0] == with_partials[-2]


def test_a_job_leaves_no_trace(pipeline: TranscriberPipeline) -> None:
    first = transcribed(pipeline, UTTERANCE)
    broken_off = admitted(pipeline)
    hear(pipeline, broken_off, OTHER[: len(OTHER) // 2], final=False)
    pipeline.release(broken_off)
    transcribed(pipeline, OTHER)
    assert transcribed(pipeline, UTTERANCE) == first


def test_any_cut_into_pieces_gives_the_same(pipeline: TranscriberPipeline) -> None:
    finals = [c for c in transcribed(pipeline, UTTERANCE) if not isinstance(c, TranscriptChunk) or c.is_final]
    job = admitted(pipeline)
    pieces = [UTTERANCE[at : at + 3334] for at in range(0, len(UTTERANCE), 3334)]
    chunks = [c for n, piece in enumerate(pieces) for c in hear(pipeline, job, piece, n == len(pieces) - 1)]
    pipeline.release(job)
    assert [c for c in chunks if not isinstance(c, TranscriptChunk) or c.is_final] == finals


@pytest.mark.parametrize("steps", [0, 1, 30])
def test_a_slice_that_is_closed_early_changes_nothing(pipeline: TranscriberPipeline, steps: int) -> None:
    expected = transcribed(pipeline, UTTERANCE)
    job = admitted(pipeline)
    pipeline.update(job, SpeechAudio(UTTERANCE, True))
    chunks: list[Emitted] = []
    while pipeline.ready(job):
        batch = pipeline.plan([job], Budget(60.0, 25.0))
        assert batch is not None
        if batch.kind == "words":
            closed = pipeline.run(batch)
            assert [step for step in itertools.islice(closed, steps) if step is not None] == []
            closed.close()  # type: ignore[attr-defined]
        chunks += [step.chunk for step in pipeline.run(batch) if step is not None]
    pipeline.release(job)
    assert chunks == expected


def test_a_long_utterance_is_cut_where_it_is_quiet(
    pipeline: TranscriberPipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transcriber, "LONGEST_S", 3.0)
    monkeypatch.setattr(transcriber, "CUT_S", 2.0)
    pause = np.zeros(2400, np.float32)
    pcm = pcm16(silence(16_000, 0.5), vowels(16_000, 2.0), pause, vowels(16_000, 2.0), silence(16_000, 0.7))
    first, second, _ = transcribed(pipeline, pcm, TranscribeRequest(interim=False))
    assert isinstance(first, TranscriptChunk)
    assert isinstance(second, TranscriptChunk)
    assert first.end_ms == second.start_ms
    assert 2450 < first.end_ms < 2750
    assert 4300 < second.end_ms < 5300


@pytest.mark.parametrize("pcm", [b"", pcm16(silence(16_000, 0.4))])
def test_nothing_was_said(pipeline: TranscriberPipeline, pcm: bytes) -> None:
    (done,) = transcribed(pipeline, pcm)
    assert isinstance(done, Done)
    assert done.usage.audio_ms == len(pcm) // 32


def test_the_pool_is_the_limit(pipeline: TranscriberPipeline, job: Job) -> None:
    with pytest.raises(Exhausted, match="1 speakers") as raised:
        admitted(pipeline)
    assert 0.5 <= raised.value.retry_after_s <= 60


@pytest.mark.parametrize(
    ("request_", "field"),
    [
        (TranscribeRequest(sample_rate=7999), "sample_rate"),
        (TranscribeRequest(sample_rate=48_001), "sample_rate"),
        (TextRequest(), "model"),
    ],
)
def test_bad_requests(pipeline: TranscriberPipeline, request_: TranscribeRequest, field: str) -> None:
    with pytest.raises(InvalidRequest) as raised:
        pipeline.prepare(request_, None)
    assert raised.value.field == field


def test_languages(pipeline: TranscriberPipeline) -> None:
    for language in ("", "en", "en-US", "en-us"):
        pipeline.prepare(TranscribeRequest(language=language), None)
    with pytest.raises(Unsupported, match="en, en-US"):
        pipeline.prepare(TranscribeRequest(language="de"), None)


def test_a_folder_is_served_under_its_name(tmp_path: Path) -> None:
    ears = TranscriberPipeline.load(write_moonshine(tmp_path), name="own")
    assert (ears.info.family, ears.info.languages) == ("moonshine", ())
    ears.prepare(TranscribeRequest(language="de"), None)
    assert isinstance(transcribed(ears, UTTERANCE)[-1], Done)
    (tmp_path / "config.json").write_text('{"model_type": "whisper"}')
    with pytest.raises(Unsupported, match="type 'whisper' is not supported; supported: moonshine"):
        TranscriberPipeline.load(tmp_path, name="own")


def test_odd_bytes_and_too_much_audio(pipeline: TranscriberPipeline, job: Job) -> None:
    with pytest.raises(InvalidRequest, match="3 bytes") as raised:
        pipeline.prepare(job.request, SpeechAudio(b"abc", False))
    assert raised.value.field == "audio.pcm16"
    with pytest.raises(InvalidRequest, match="30 seconds"):
        pipeline.update(job, SpeechAudio(b"\0\0" * 16_000 * 31, False))


def test_audio_after_the_end(pipeline: TranscriberPipeline, job: Job) -> None:
    pipeline.update(job, SpeechAudio(b"", True))
    with pytest.raises(WrongState, match="final"):
        pipeline.update(job, SpeechAudio(b"", True))


@pytest.mark.parametrize("settings", [{"decoders": 0}, {"max_waiting_s": 0.1}])
def test_settings(settings: dict[str, float]) -> None:
    with pytest.raises(InvalidRequest, match=next(iter(settings))):
        TranscriberSettings(**settings)  # type: ignore[arg-type]
