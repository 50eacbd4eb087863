"""A pipeline that computes a checksum: small, exact, and it keeps the contract (or breaks it)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from pipelines.contract import Batch, Budget, Emission, Estimate, Job, Pressure
from pipelines.errors import InvalidRequest
from pipelines.messages import (
    Done,
    FinishReason,
    Input,
    ModelInfo,
    PromptRevision,
    Request,
    Sampling,
    TextRequest,
    TokenChunk,
)

MODULUS = 1_000_003


@dataclass(slots=True)
class ToyState:
    """Committed: how many slices are done, and a value that depends on each of them."""

    target: int
    done: int = 0
    value: int = 1
    holds: int = 0
    away: bool = False
    waiting_for_text: bool = False


@dataclass(slots=True)
class ToyPipeline:
    """Each slice multiplies every row's value `points` times and emits it; a job ends after max_tokens.

    room: units of memory, one for each job that has begun; None for plenty. swaps: an evicted job comes back
    by a slice of its own. shared_scratch breaks rule 3 on
    purpose: the running value lives on the pipeline.
    """

    name: str = "toy"
    points: int = 3
    room: int | None = None
    swaps: bool = False
    max_rows: int = 8
    shared_scratch: bool = False
    cost_ms: float = 4.0
    fail_at: int = -1
    released: list[int] = field(default_factory=list)
    scratch: list[int] = field(default_factory=list)
    admitted: dict[int, Job] = field(default_factory=dict)
    used: int = 0
    log: list[str] = field(default_factory=list)

    @property
    def info(self) -> ModelInfo:
        return ModelInfo(self.name, "text", "toy", 0)

    def prepare(
        self, request: Request, value: Input | None, before: object = None, tenant: str = ""
    ) -> object:
        assert isinstance(request, TextRequest)
        if request.sampling.max_tokens < 1:
            raise InvalidRequest("sampling.max_tokens", "must be at least 1")
        return value if value is not None else request.sampling.max_tokens

    def admit(self, job: Job, prepared: object) -> None:
        assert isinstance(prepared, int)
        job.state = ToyState(prepared, waiting_for_text=not job.committed)
        self.admitted[job.id] = job

    def update(self, job: Job, prepared: object) -> None:
        assert isinstance(prepared, PromptRevision) and not job.in_slice
        job.state.value = (job.state.value * 31 + len(prepared.text)) % MODULUS
        job.state.waiting_for_text = not prepared.final

    def ready(self, job: Job) -> bool:
        return bool(job.state.done < job.state.target and not job.state.waiting_for_text)

    def plan(self, ready: Iterable[Job], budget: Budget) -> Batch | None:
        rows: list[Job] = []
        needed = 0
        for job in ready:
            extra = 0 if job.state.holds else 1
            if self.room is not None and self.used + needed + extra > self.room:
                if not rows:
                    raise Pressure(self.name)
                break
            if job.state.away and rows:
                continue
            needed += extra
            rows.append(job)
            if job.state.away or len(rows) == self.max_rows:
                break
        if not rows:
            return None
        for job in rows:
            self.used += 0 if job.state.holds else 1
            job.state.holds = 1
        kind = "restore" if rows[0].state.away else "toy"
        return Batch(self.name, kind, tuple(rows), float(len(rows)), work=tuple(j.state.done for j in rows))

    def run(self, batch: Batch) -> Iterator[Emission | None]:
        self.log.append("run " + ",".join(str(job.id) for job in batch.rows))
        if batch.kind == "restore":
            yield None
            batch.rows[0].state.away = False
            return
        values = self.scratch if self.shared_scratch else []
        values[:] = [job.state.value for job in batch.rows]
        for point in range(self.points):
            if self.log.count("x") == self.fail_at:
                raise RuntimeError("the toy is broken")
            for i, job in enumerate(batch.rows):
                if i < len(values):
                    values[i] = (values[i] * (7 + point) + job.id) % MODULUS
            yield None
        out = []
        for job, value in zip(batch.rows, values, strict=False):
            job.state.value = value
            job.state.done += 1
            out.append(Emission(job, TokenChunk(str(value), (value,))))
            if job.state.done == job.state.target:
                out.append(Emission(job, Done(FinishReason.STOP)))
        yield from out

    def estimate(self, batch: Batch) -> Estimate:
        return Estimate(self.cost_ms, self.cost_ms)

    def observe(self, batch: Batch, device_ms: float) -> None:
        self.log.append(f"observed {len(batch.rows)}")

    def holders(self) -> Iterable[Job]:
        return self.admitted.values()

    def leased(self, job: Job) -> int:
        return int(job.state.holds)

    def keeps(self, job: Job, budget: Budget) -> int:
        return int(self.swaps and bool(job.state.holds))

    def evict(self, job: Job, keep: int) -> None:
        assert not job.in_slice
        self.used -= job.state.holds
        job.state.holds = 0
        job.state.away = job.state.away or keep > 0

    def release(self, job: Job) -> None:
        assert not job.in_slice and job.id not in self.released
        self.evict(job, 0)
        del self.admitted[job.id]
        self.released.append(job.id)


def request(tokens: int = 1) -> TextRequest:
    """A job of so many slices."""
    return TextRequest(sampling=Sampling(max_tokens=tokens))
