"""What a decision costs: the policy's choice and the plan of a slice, among 10,000 queued jobs."""

from __future__ import annotations

import time

from benchmarks.llama import shaped
from pipelines.contract import Batch, Budget, Job
from pipelines.cost import CostModel
from pipelines.messages import JobClass, Sampling, TextRequest
from pipelines.text.kv_cache import BlockPool, BlockTable
from pipelines.text.planner import Planner
from pipelines.text.state import TextState
from pipelines.text.stream import TextStream
from server.executor.scheduler import Running, Scheduler, Slot, Start

QUEUED = 10_000
BUDGET = Budget(60.0, 25.0)
CONFIG = shaped(vocab=1000, hidden=64, intermediate=128, layers=8, heads=4, kv_heads=2, context=512)


def decisions(count: int) -> list[float]:
    """Seconds of CPU time that each of so many took."""
    scheduler, planner = _queued()
    spent = []
    for turn in range(count):
        start = time.thread_time()
        scheduler.tick(float(turn))
        choice = scheduler.decide(())
        assert isinstance(choice, Start)
        rows = planner.choose(scheduler.ready(choice.pipeline, choice.rank), BUDGET)
        planner.batch(rows, BUDGET)
        spent.append(time.thread_time() - start)
        jobs = tuple(row.job for row in rows)
        scheduler.charge(Running(Slot("p", int(JobClass.REALTIME)), jobs, 1.0), 1.0, ())
    return spent


def _queued() -> tuple[Scheduler, Planner]:
    """Jobs of four classes, twenty tenants, many deadlines; one in seven has a prompt to compute."""
    scheduler, cost = Scheduler(BUDGET.gap_ms), CostModel()
    for units in (16, 64, 256):
        cost.observe(Batch("p", "prefill", (), units), units / 10)
    table = BlockTable(BlockPool(1))
    for number in range(QUEUED):
        job = Job(number, "p", f"t{number % 20}", JobClass(number % 4), TextRequest())
        job.deadline_s = float(number % 997)
        job.state = TextState(Sampling(), table, TextStream(()), tokens=[7] * (1 + 99 * (number % 7 == 0)))
        scheduler.enter(job.tenant)
        scheduler.offer(job)
    return scheduler, Planner("p", CONFIG, cost, max_rows=16, max_chunk=512)
