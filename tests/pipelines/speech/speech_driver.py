"""Drives a speech pipeline as an executor would, one slice after the other."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Iterable

import numpy as np

from pipelines.contract import Batch, Budget, Emission, FloatArray, Job, RawAudio
from pipelines.messages import Done, JobClass, SpeechRequest, SpeechText
from pipelines.speech.loading import LoadedSpeaker
from pipelines.speech.pipeline import SpeechPipeline
from pipelines.speech.settings import SpeechSettings
from pipelines.speech.speaker import Speaker

BUDGET = Budget(slice_ms=60.0, gap_ms=25.0)


def pipeline_of(speaker: Speaker, settings: SpeechSettings | None = None) -> SpeechPipeline:
    return SpeechPipeline("voice", LoadedSpeaker(speaker, "fake", 0), settings)


def admitted(pipeline: SpeechPipeline, number: int = 1, request: SpeechRequest | None = None) -> Job:
    request = request or SpeechRequest()
    job = Job(number, "voice", "local", JobClass.REALTIME, request)
    pipeline.admit(job, pipeline.prepare(request, None))
    return job


def say(pipeline: SpeechPipeline, job: Job, text: str, final: bool = True) -> None:
    pipeline.update(job, pipeline.prepare(job.request, SpeechText(text, final)))


def planned(pipeline: SpeechPipeline, jobs: Iterable[Job]) -> Batch | None:
    return pipeline.plan((job for job in jobs if pipeline.ready(job)), BUDGET)


def drained(pipeline: SpeechPipeline, jobs: list[Job], most: int = 10_000) -> list[Emission]:
    """Runs slices until no job is ready."""
    emissions: list[Emission] = []
    for _ in range(most):
        batch = planned(pipeline, jobs)
        if batch is None:
            return emissions
        emissions += [step for step in pipeline.run(batch) if step is not None]
    raise AssertionError("the jobs never end")


def points(pipeline: SpeechPipeline, batch: Batch) -> int:
    """Yields before the commit, found on copies of the jobs."""
    rows = tuple(dataclasses.replace(job, state=copy.deepcopy(job.state)) for job in batch.rows)
    steps = pipeline.run(dataclasses.replace(batch, rows=rows))
    return sum(step is None for step in steps)


def audio(emissions: Iterable[Emission], job: Job) -> FloatArray:
    parts = [e.chunk.samples for e in emissions if e.job is job and isinstance(e.chunk, RawAudio)]
    return np.concatenate([np.zeros(0, np.float32), *parts])


def done(emissions: Iterable[Emission], job: Job) -> list[Done]:
    return [e.chunk for e in emissions if e.job is job and isinstance(e.chunk, Done)]


def spoken(pipeline: SpeechPipeline, text: str, request: SpeechRequest | None = None) -> FloatArray:
    """All of the audio of `text`, alone."""
    job = admitted(pipeline, request=request)
    say(pipeline, job, text)
    emissions = drained(pipeline, [job])
    pipeline.release(job)
    return audio(emissions, job)
