"""Recognising recordings: how many words are right, printed once (pytest -s), and that none is cut off."""

from __future__ import annotations

import itertools
import time
from pathlib import Path

import numpy as np
import pytest
import soundfile

from benchmarks.spoken import errors, words
from pipelines.contract import Budget, Job
from pipelines.messages import JobClass, SpeechAudio, TranscribeRequest, TranscriptChunk
from pipelines.speech.transcriber import TranscriberPipeline
from training.data import data_dir, records


def clips() -> list[tuple[Path, str]]:
    folder = data_dir()
    if folder is None:
        return []
    found = [record for record in records(folder / "speech" / "manifest.jsonl") if "/utt/" in record["f"]]
    return [(folder / record["f"], record["text"]) for record in found if record["text"]]


def heard(pipeline: TranscriberPipeline, path: Path, gaps: list[float]) -> list[str]:
    samples, rate = soundfile.read(path, dtype="int16")
    request = TranscribeRequest(sample_rate=rate, interim=True)
    job = Job(1, "ears", "local", JobClass.REALTIME, request)
    pipeline.admit(job, pipeline.prepare(request, None))
    pipeline.update(job, SpeechAudio(np.asarray(samples, "<i2").tobytes(), True))
    text = ""
    while pipeline.ready(job):
        batch = pipeline.plan([job], Budget(60.0, 25.0))
        assert batch is not None
        steps, start = iter(pipeline.run(batch)), time.thread_time()
        for step in steps:
            gaps.append((time.thread_time() - start) * 1000)
            if step is not None and isinstance(step.chunk, TranscriptChunk) and step.chunk.is_final:
                text += f" {step.chunk.text}"
            start = time.thread_time()
    pipeline.release(job)
    return words(text)


@pytest.mark.slow
@pytest.mark.usefixtures("inference")
@pytest.mark.skipif(not clips(), reason="no data folder: set UPBEAT_DATA")
def test_word_error_rate_of_the_recordings() -> None:
    pipeline = TranscriberPipeline.load(name="ears")
    gaps: list[float] = []
    right = [words(text) for _, text in clips()]
    wrong = [
        errors(wanted, heard(pipeline, path, gaps)) for wanted, (path, _) in zip(right, clips(), strict=True)
    ]
    rate = sum(wrong) / len(list(itertools.chain(*right)))
    print(f"\n{len(right)} clips, word error rate {rate:.1%}, longest gap {max(gaps):.1f} ms of CPU time")
    assert rate < 0.15
