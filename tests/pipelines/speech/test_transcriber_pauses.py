"""A speaker who falls silent: one look at a pause, which is the last where nothing more is said."""

from __future__ import annotations

import itertools
from collections.abc import Generator, Sequence

import pytest

from pipelines.contract import Budget, Emitted, FloatArray, Job
from pipelines.messages import JobClass, SpeechAudio, TranscribeRequest, TranscriptChunk
from pipelines.speech import transcriber
from pipelines.speech.moonshine import Moonshine
from pipelines.speech.transcriber import TranscriberPipeline
from tests.pipelines.speech.moonshine_folder import write_moonshine
from tests.pipelines.speech.vowels import pcm16, silence, vowels

pytestmark = pytest.mark.usefixtures("inference")

RATE = 16_000
GAP_S = 0.4
"""A pause, and too short to be the end."""
ONCE = pcm16(silence(RATE, 0.5), vowels(RATE), silence(RATE, 0.8))
TWICE = pcm16(
    silence(RATE, 0.5), vowels(RATE), silence(RATE, GAP_S), 0.5 * vowels(RATE, 0.9), silence(RATE, 0.8)
)
Heard = tuple[list[TranscriptChunk], list[int]]


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory: pytest.TempPathFactory) -> TranscriberPipeline:
    return TranscriberPipeline.load(write_moonshine(tmp_path_factory.mktemp("moonshine")), name="ears")


@pytest.fixture
def passes(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Samples of each pass of the model."""
    found: list[int] = []
    tokens = Moonshine.tokens

    def counted(
        self: Moonshine, samples: FloatArray, guess: Sequence[int]
    ) -> Generator[None, None, tuple[int, ...]]:
        found.append(len(samples))
        return tokens(self, samples, guess)

    monkeypatch.setattr(Moonshine, "tokens", counted)
    return found


def heard(
    pipeline: TranscriberPipeline, audio: bytes, piece_ms: int, *, interim: bool = True
) -> list[TranscriptChunk]:
    """Each piece is worked on before the next one comes, as of a microphone."""
    request = TranscribeRequest(RATE, interim=interim)
    job = Job(1, "ears", "local", JobClass.REALTIME, request)
    pipeline.admit(job, pipeline.prepare(request, None))
    chunks: list[Emitted] = []
    for at in range(0, len(audio), 32 * piece_ms):
        pipeline.update(job, SpeechAudio(audio[at : at + 32 * piece_ms], at + 32 * piece_ms >= len(audio)))
        while pipeline.ready(job):
            batch = pipeline.plan([job], Budget(60.0, 25.0))
            assert batch is not None
            chunks += [step.chunk for step in pipeline.run(batch) if step is not None]
    pipeline.release(job)
    return [chunk for chunk in chunks if isinstance(chunk, TranscriptChunk)]


def finals(chunks: list[TranscriptChunk]) -> list[TranscriptChunk]:
    return [chunk for chunk in chunks if chunk.is_final]


def test_the_words_of_a_pause_are_final_without_another_look(
    pipeline: TranscriberPipeline, passes: list[int]
) -> None:
    *_, paused, final = heard(pipeline, ONCE, 30)
    assert (paused.paused, paused.is_final, final.is_final) == (True, False, True)
    assert (paused.text, paused.start_ms, paused.end_ms) == (final.text, final.start_ms, final.end_ms)
    assert passes == sorted(set(passes))
    assert passes[-1] == 16 * (final.end_ms - final.start_ms)


@pytest.mark.parametrize("audio", [ONCE, TWICE], ids=["once", "twice"])
def test_neither_pauses_nor_pieces_change_the_words(
    pipeline: TranscriberPipeline, audio: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    cut = [finals(heard(pipeline, audio, piece_ms)) for piece_ms in (10, 70, 100, 10_000)]
    monkeypatch.setattr(transcriber, "PAUSE_SHARE", 1.0)
    without = heard(pipeline, audio, 100)
    assert not any(chunk.paused for chunk in without)
    assert finals(without)
    assert all(chunks == finals(without) for chunks in cut)


def test_a_pause_in_the_midst_is_looked_at_once(pipeline: TranscriberPipeline, passes: list[int]) -> None:
    chunks = heard(pipeline, TWICE, 30)
    first, last = [chunk for chunk in chunks if chunk.paused]
    (final,) = finals(chunks)
    assert first.end_ms < 2300 < last.end_ms == final.end_ms
    assert len(passes) == len(set(passes))


@pytest.mark.parametrize(("share", "looks"), [(0.1, 6), (0.4, 3)])
def test_a_pause_is_worth_a_look_where_enough_is_new(
    pipeline: TranscriberPipeline, monkeypatch: pytest.MonkeyPatch, share: float, looks: int
) -> None:
    monkeypatch.setattr(transcriber, "PAUSE_SHARE", share)
    words = [(vowels(RATE, 0.4), silence(RATE, GAP_S)) for _ in range(6)]
    chunks = heard(pipeline, pcm16(silence(RATE, 0.5), *itertools.chain(*words), silence(RATE, 0.5)), 30)
    assert len(finals(chunks)) == 1
    assert len([chunk for chunk in chunks if chunk.paused]) == looks


def test_audio_that_waits_is_heard_first(pipeline: TranscriberPipeline) -> None:
    assert not any(chunk.paused for chunk in heard(pipeline, TWICE, 10_000))


def test_who_wants_only_finals_pays_for_no_pause(pipeline: TranscriberPipeline, passes: list[int]) -> None:
    assert len(heard(pipeline, TWICE, 30, interim=False)) == len(passes) == 1
