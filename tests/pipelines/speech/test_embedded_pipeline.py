"""The embedded voice in the pipeline: streaming, suspension, batches."""

from __future__ import annotations

import copy
from pathlib import Path

import numpy as np
import pytest

from pipelines.contract import Emission
from pipelines.errors import ModelBroken
from pipelines.messages import SpeechRequest
from pipelines.speech.loading import load_speaker
from pipelines.speech.pipeline import SpeechPipeline
from tests.pipelines.speech.speech_driver import admitted, audio, done, drained, planned, points, say, spoken

pytestmark = pytest.mark.usefixtures("inference")

FOLDER = Path(__file__).parents[3] / "models" / "upbeat-voice"
TEXT = "Good morning, here is your coffee. The train leaves at half past seven, I believe."
OTHERS = ["Yes.", "A red circle is on the left. Fine?", "Seven and nine make sixteen, as I said."]


@pytest.fixture(scope="module")
def pipeline() -> SpeechPipeline:
    if not (FOLDER / "config.json").exists():
        pytest.skip("models/upbeat-voice is not there")
    return SpeechPipeline.load(FOLDER, name="voice")


def test_what_is_told_of_it(pipeline: SpeechPipeline) -> None:
    assert (pipeline.info.family, pipeline.info.modality) == ("upbeat-voice", "speech")
    assert pipeline.info.parameters > 100_000
    assert pipeline.info.languages == ("en",)


def test_speech_streams_while_the_text_comes(pipeline: SpeechPipeline) -> None:
    whole = spoken(pipeline, TEXT)
    job, emissions, heard_before_the_end = admitted(pipeline), list[Emission](), 0
    for at in range(0, len(TEXT), 3):
        heard_before_the_end = len(audio(emissions, job))
        say(pipeline, job, TEXT[at : at + 3], final=at + 3 >= len(TEXT))
        emissions += drained(pipeline, [job])
    pipeline.release(job)
    assert np.array_equal(audio(emissions, job), whole)
    assert 0.3 * len(whole) < heard_before_the_end < len(whole)
    assert len(done(emissions, job)) == 1
    assert 0.05 < np.abs(whole).max() <= 1.0


def test_a_slice_closed_half_way_changes_no_bit(pipeline: SpeechPipeline) -> None:
    whole = spoken(pipeline, OTHERS[1])
    job, emissions = admitted(pipeline), list[Emission]()
    say(pipeline, job, OTHERS[1])
    for number in range(10_000):
        batch = planned(pipeline, [job])
        if batch is None:
            break
        before = copy.copy(job.state)
        steps = pipeline.run(batch)
        for _ in range(number % points(pipeline, batch) + 1):
            assert next(steps) is None
        steps.close()  # type: ignore[attr-defined]
        assert job.state == before
        emissions += [step for step in pipeline.run(batch) if step is not None]
    pipeline.release(job)
    assert np.array_equal(audio(emissions, job), whole)


def test_rows_equal_each_alone(pipeline: SpeechPipeline) -> None:
    jobs = [admitted(pipeline, number) for number in range(len(OTHERS))]
    for job, text in zip(jobs, OTHERS, strict=True):
        say(pipeline, job, text)
    emissions = drained(pipeline, jobs)
    for job in jobs:
        pipeline.release(job)
    for job, text in zip(jobs, OTHERS, strict=True):
        np.testing.assert_allclose(audio(emissions, job), spoken(pipeline, text), atol=1e-4)


def test_rate_and_pitch_are_heeded(pipeline: SpeechPipeline) -> None:
    plain = spoken(pipeline, OTHERS[2])
    assert len(spoken(pipeline, OTHERS[2], SpeechRequest(rate=2.0))) < 0.7 * len(plain)
    assert len(spoken(pipeline, OTHERS[2], SpeechRequest(pitch=1.5))) == pytest.approx(len(plain), rel=0.1)


@pytest.mark.parametrize("name", ["model.safetensors", "letters.safetensors", "lexicon.txt.xz"])
def test_a_broken_file_is_named(pipeline: SpeechPipeline, tmp_path: Path, name: str) -> None:
    for path in FOLDER.iterdir():
        if path.is_file():
            (tmp_path / path.name).write_bytes(path.read_bytes())
    data = (tmp_path / name).read_bytes()
    (tmp_path / name).write_bytes(data[: len(data) // 2])
    with pytest.raises(ModelBroken, match=name.replace(".", r"\.")):
        load_speaker(tmp_path)
