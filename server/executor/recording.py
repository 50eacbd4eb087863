"""What an executor did, in commit order: enough to do it again without suspension (determinism contract).

A replay drives fresh pipelines with the same inputs and the same batches, one after the other. If suspended
slices shared no state, every emission is bit-equal.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from pipelines.contract import Batch, Emission, Emitted, Job, Pipeline, RawAudio, RawImage
from pipelines.messages import JobClass, Request


@dataclass(frozen=True, slots=True)
class Admitted:
    """`admit` was called."""

    job_id: int
    pipeline: str
    tenant: str
    request: Request
    prepared: object


@dataclass(frozen=True, slots=True)
class Updated:
    """`update` was called."""

    job_id: int
    prepared: object


@dataclass(frozen=True, slots=True)
class Committed:
    """A slice ran to its commit. emissions: those of rows that were not cancelled then."""

    pipeline: str
    kind: str
    rows: tuple[int, ...]
    units: float
    work: Any
    emissions: tuple[tuple[int, Emitted], ...]


@dataclass(frozen=True, slots=True)
class Evicted:
    """`evict` was called, with how much of the state moved to host memory."""

    job_id: int
    keep: int


@dataclass(frozen=True, slots=True)
class Released:
    """`release` was called."""

    job_id: int


Event = Admitted | Updated | Committed | Evicted | Released


@dataclass(slots=True)
class Recording:
    """Filled by the executor."""

    events: list[Event] = field(default_factory=list)
    suspensions: int = 0


def replay(events: list[Event], pipelines: Mapping[str, Pipeline]) -> list[tuple[int, Emitted]]:
    """Do it again on fresh pipelines, each slice in one go; returns every row's emissions in order."""
    jobs: dict[int, Job] = {}
    emitted: list[tuple[int, Emitted]] = []
    for event in events:
        match event:
            case Admitted(job_id, pipeline, tenant, request, prepared):
                jobs[job_id] = Job(job_id, pipeline, tenant, JobClass.STANDARD, request)
                pipelines[pipeline].admit(jobs[job_id], prepared)
            case Updated(job_id, prepared):
                pipelines[jobs[job_id].pipeline].update(jobs[job_id], prepared)
            case Evicted(job_id, keep):
                pipelines[jobs[job_id].pipeline].evict(jobs[job_id], keep)
            case Released(job_id):
                pipelines[jobs[job_id].pipeline].release(jobs[job_id])
            case Committed(pipeline, kind, rows, units, work, wanted):
                batch = Batch(pipeline, kind, tuple(jobs[row] for row in rows), units, work)
                wanted_rows = {row for row, _ in wanted}
                found = [step for step in pipelines[pipeline].run(batch) if isinstance(step, Emission)]
                emitted.extend((e.job.id, e.chunk) for e in found if e.job.id in wanted_rows)
    return emitted


def differences(events: list[Event], fresh: Mapping[str, Pipeline]) -> int:
    """How many emissions a replay on fresh pipelines gets wrong: 0 is the determinism contract."""
    wanted = [out for event in events if isinstance(event, Committed) for out in event.emissions]
    found = replay(events, fresh)
    pairs = zip(found, wanted, strict=False)
    wrong = sum(a[0] != b[0] or not same_bits(a[1], b[1]) for a, b in pairs)
    return wrong + abs(len(found) - len(wanted))


def same_bits(one: Emitted, other: Emitted) -> bool:
    """Whether two emissions are equal to the bit."""
    if isinstance(one, RawAudio) and isinstance(other, RawAudio):
        return one.sample_rate == other.sample_rate and np.array_equal(one.samples, other.samples)
    if isinstance(one, RawImage) and isinstance(other, RawImage):
        return one.step == other.step and np.array_equal(one.pixels, other.pixels)
    return one == other
