"""The contract between the executor, which decides *when*, and the pipelines, which plan and run.

Rules a pipeline keeps:
  1. `run` is a plain generator; every `yield` is a preemption point, with or without an emission.
     Between two yields pass at most the promised delay of CPU time, the first call included.
  2. A slice is a transaction with exactly one commit: the tokens said by each row, a prefill chunk, one model
     evaluation, one audio chunk. Until the commit, `run` writes to no job's state; after a closed
     generator every job stands at its last commit. Commit and emissions come last, with no yield between
     the first and the last write; emissions are yielded after it.
  3. Nothing a run depends on lives on the model: state belongs to the job (`job.state`).
  4. `plan` puts everything it decided into the batch, so that running the same batch again from the same
     states gives the same bits.
  5. A pipeline never reads a clock, never starts a thread and never decides who goes first.

All methods but `prepare` are called on the executor thread. Nothing here imports torch.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from pipelines.messages import Done, Failed, Input, JobClass, ModelInfo, Request, TokenChunk, TranscriptChunk

FloatArray = npt.NDArray[np.float32]
ByteArray = npt.NDArray[np.uint8]

SPARE = len(JobClass)
"""The rank of work that runs only when nothing else is ready."""


@dataclass(frozen=True, slots=True)
class RawAudio:
    """Audio before resampling and PCM: mono float32 in [-1, 1] at `sample_rate` Hz."""

    samples: FloatArray
    sample_rate: int


@dataclass(frozen=True, slots=True)
class RawImage:
    """A picture before encoding: uint8, (height, width, 3). A small preview may be enlarged to `size`
    (width, height) by the encoder."""

    pixels: ByteArray
    size: tuple[int, int]
    step: int
    steps: int
    final: bool


Emitted = TokenChunk | RawAudio | RawImage | TranscriptChunk | Done | Failed


@dataclass(frozen=True, slots=True)
class Emission:
    """A chunk on its way to a job's outbox. Done or Failed ends the job, a Failed row alone in its batch."""

    job: Job
    chunk: Emitted


@dataclass(slots=True, eq=False)
class Job:
    """One unit of work for one pipeline. Owner: the executor thread.

    `state` is the pipeline's durable state and changes only at a commit. Times are on the executor's clock.
    `deadline_s` is the client's, math.inf for none. At `dry_s` whom the job serves has nothing left to hear
    or to read (-inf before the first output); until `ahead_until_s` so much is left that the job need not
    be hurried. `in_slice` is true from plan until the slice has ended. `rank` is the class that the job
    stands in now (by inheritance, commitment, being ahead; SPARE behind them all); set when it is offered to
    the scheduler. `previewed_s`: when the last preview left. `pressed`: at full quality the deadline would be
    missed, so `admit` lowers it where the client allows it. `given_s`: seconds of audio that it has made.
    """

    id: int
    pipeline: str
    tenant: str
    job_class: JobClass
    request: Request
    turn_id: str = ""
    session_id: str = ""
    arrived_s: float = 0.0
    deadline_s: float = math.inf
    dry_s: float = -math.inf
    ahead_until_s: float = -math.inf
    committed: bool = True
    credits: int = 1
    consumer: Job | None = None
    state: Any = None
    pressed: bool = False
    previewed_s: float = -math.inf
    cancelled: bool = False
    in_slice: bool = False
    served_ms: float = 0.0
    given_s: float = 0.0
    queue_ms: float = 0.0
    waiting_since_s: float | None = None
    preemptions: int = 0
    evictions: int = 0
    slices: int = 0
    rank: int = field(init=False)

    def __post_init__(self) -> None:
        self.rank = int(self.job_class)


@dataclass(slots=True, eq=False)
class Batch:
    """Jobs that a pipeline advances together in one slice, and all that `plan` decided about it.

    rows stand in urgency order. kind names the work for cost model and traces ("prefill", "decode",
    "denoise"); units measures its size in that kind (tokens, rows times pixels). work is a frozen value.
    shares: what each row makes of the units, for whom the slice is charged to; empty where they are alike.
    """

    pipeline: str
    kind: str
    rows: tuple[Job, ...]
    units: float
    work: Any = None
    shares: tuple[float, ...] = ()


@dataclass(frozen=True, slots=True)
class Budget:
    """How long the slice may take in all, and how long it may go without a yield (milliseconds).

    Who comes for the slice's own pipeline and class has to wait for its end. So what rows of a less urgent
    `rank` than the first begin (a prompt, a clause) may make it no longer than `gap_ms`, and no longer at all
    where somebody waits for its output. Their next steps (a token, a chunk) ride along, since apart they cost
    several times as much; but a listener must not run dry for that, so beside REALTIME only where they cost
    little.
    """

    slice_ms: float
    gap_ms: float


@dataclass(frozen=True, slots=True)
class Estimate:
    """Predicted device time of a batch in milliseconds."""

    median_ms: float
    p90_ms: float


class Pressure(Exception):
    """Raised by `plan`: no memory for the most urgent row; the executor evicts leases and asks again.

    `pool` is the pipeline's name, `short` how many units (of `Pipeline.leased`) are missing, at least 1. Not
    an error of the client's: admission has kept the reserve.
    """

    def __init__(self, pool: str, short: int = 1) -> None:
        super().__init__(pool)
        self.pool = pool
        self.short = short


class Pipeline(Protocol):
    """One loaded model."""

    @property
    def info(self) -> ModelInfo: ...

    def prepare(
        self, request: Request, value: Input | None, before: object = None, tenant: str = ""
    ) -> object:
        """Off the executor thread, pure and thread-safe: what is slow on the host (tokenising,
        phonemising) and needs no state. Returns what `admit` (value None) or `update` gets. before: what the
        job's last input was prepared to, of which parts may be taken over. tenant: whose the job is, by the
        server; what is kept from one call to the next must not be shared between two.

        Raises: UpbeatError naming the field.
        """

    def admit(self, job: Job, prepared: object) -> None:
        """Validate, reserve, set `job.state`. Raises: UpbeatError; then nothing was reserved."""

    def update(self, job: Job, prepared: object) -> None:
        """New input. Called only while the job is in no slice. Raises: UpbeatError, which fails the job."""

    def ready(self, job: Job) -> bool:
        """Whether the job has work it could do now. Credits are the executor's business."""

    def plan(self, ready: Iterable[Job], budget: Budget) -> Batch | None:
        """The next slice for the most urgent of `ready` (in urgency order, read lazily), with less
        urgent riders where they keep it inside its budget. Reserves peak memory.

        Raises: Pressure, where the most urgent row does not fit now.
        """

    def run(self, batch: Batch) -> Iterator[Emission | None]:
        """One slice; see the module's rules."""

    def estimate(self, batch: Batch) -> Estimate:
        """Learned online from `observe`."""

    def observe(self, batch: Batch, device_ms: float) -> None:
        """A slice of this batch has completed in `device_ms`."""

    def holders(self) -> Iterable[Job]:
        """All admitted jobs for which `leased` is more than 0, and few others: whoever needs memory looks at
        each of them, and thousands may wait that hold none."""

    def leased(self, job: Job) -> int:
        """Memory units (blocks, bytes) that evicting this job's committed state would free; 0 for none."""

    def keeps(self, job: Job, budget: Budget) -> int:
        """How much of it (tokens, bytes) is predicted to be cheaper moved to host memory and back than made
        again; 0 for none of it."""

    def evict(self, job: Job, keep: int) -> None:
        """Free it: move `keep` of it to host memory and drop the rest, which is made again; the job goes on
        later with the same result. Where something was moved, `observe` is told with a batch of kind
        "evict" and `keep` units.
        """

    def release(self, job: Job) -> None:
        """Exactly once for every admitted job, whatever happened, and never while it is in a slice."""
