"""Voices beside a saturated device never run dry; ten minutes of it are marked slow."""

from __future__ import annotations

import pytest
import torch

from benchmarks.timeline import Stream
from benchmarks.voices import LEAST, capacity, measure, report
from pipelines.contract import Pipeline
from pipelines.loading import LoadPlan, load_all


@pytest.fixture(scope="module")
def embedded() -> dict[str, Pipeline]:
    return load_all(LoadPlan(transcription=False, max_jobs=4096))


def heard(pipelines: dict[str, Pipeline], seconds: float) -> dict[str, float]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with torch.inference_mode():
            speed, sentence_s = capacity(pipelines)
            return report(measure(pipelines, max(LEAST, int(speed / 2)), seconds, sentence_s), speed)
    finally:
        torch.set_num_threads(threads)


def test_underruns_are_counted() -> None:
    late = Stream("voice", 0.0, [(0.5, 0.1), (0.55, 0.1), (0.9, 0.1), (1.3, 0.1)])
    found = report([late, Stream("voice", 0.0, [(0.1, 9.0), (0.2, 9.0)])], 50.0)
    assert (found["voices"], found["underruns"]) == (2, 2)
    assert found["dry_s"] == pytest.approx(0.2 + 0.3)
    assert found["heard_s"] == pytest.approx(18.4)


@pytest.mark.slow
def test_half_the_capacity_does_not_run_dry_for_ten_minutes(embedded: dict[str, Pipeline]) -> None:
    assert heard(embedded, 600.0)["underruns"] == 0
