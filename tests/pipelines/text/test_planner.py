"""What goes into a slice, as tables: no model, no pool."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from benchmarks.llama import shaped
from pipelines.contract import Batch, Budget, Job
from pipelines.cost import CostModel
from pipelines.messages import JobClass, Sampling, TextRequest
from pipelines.text.kv_cache import BlockPool, BlockTable
from pipelines.text.planner import SMALLEST, UNMEASURED, Planner, Row
from pipelines.text.state import TextState
from pipelines.text.stream import TextStream

CONFIG = shaped(vocab=1000, hidden=64, intermediate=128, layers=8, heads=4, kv_heads=2, context=512)
BUDGET = Budget(slice_ms=20.0, gap_ms=10.0)


def jobs(*pending: int) -> list[Job]:
    pool = BlockPool(64)
    made = []
    for number, count in enumerate(pending):
        state = TextState(Sampling(), BlockTable(pool), TextStream(()), tokens=[7] * count)
        made.append(Job(number, "t", "local", JobClass.INTERACTIVE, TextRequest(), state=state))
    return made


def measured(token_ms: float, decode_ms: float = 1.0) -> CostModel:
    cost = CostModel()
    for units in (16, 32, 64, 128, 256, 512):
        cost.observe(Batch("t", "prefill", (), units), token_ms * units)
    cost.observe(Batch("t", "decode", (), 1), decode_ms)
    return cost


def counts(cost: CostModel, *pending: int, max_rows: int = 8, budget: Budget = BUDGET) -> list[int]:
    planner = Planner("t", CONFIG, cost, max_rows, 512)
    return [row.count for row in planner.choose(jobs(*pending), budget)]


@pytest.mark.parametrize(
    ("token_ms", "pending", "expected"),
    [
        (0.1, (500,), [192]),
        (0.1, (500, 1, 1), [190, 1, 1]),
        (0.1, (1, 1, 500), [1, 1, 190]),
        (0.1, (40, 500), [40, 152]),
        (0.1, (500, 40), [192]),
        (0.1, (1, 1, 1), [1, 1, 1]),
        (0.01, (500, 500), [500, 12]),
        (5.0, (500, 1), [SMALLEST, 1]),
    ],
)
def test_budgets_are_shared_by_urgency(
    token_ms: float, pending: tuple[int, ...], expected: list[int]
) -> None:
    assert counts(measured(token_ms), *pending) == expected


def test_prompts_of_a_lower_class_fill_a_slice_only_up_to_the_gap() -> None:
    """200 tokens fit the slice of 20 ms, 100 the gap of 10 ms; decodes of any class ride along."""
    first, long, talk = jobs(30, 500, 1)
    first.rank, long.rank, talk.rank = JobClass.STANDARD, JobClass.BATCH, JobClass.BATCH
    planner = Planner("t", CONFIG, measured(0.1), 8, 512)
    assert planner.choose([first, long, talk], BUDGET) == [Row(first, 30), Row(long, 65), Row(talk, 1)]
    first.rank = JobClass.INTERACTIVE
    assert planner.choose([first, long, talk], BUDGET) == [Row(first, 30), Row(talk, 1)]
    assert planner.choose([long, talk], BUDGET) == [Row(long, 191), Row(talk, 1)]


def test_nothing_is_measured_yet() -> None:
    assert counts(CostModel(), 500, 500) == [UNMEASURED]


def test_ready_jobs_are_read_lazily() -> None:
    def endless() -> Iterator[Job]:
        yield from jobs(*[1] * 8)
        raise AssertionError("more was read than fits")

    planner = Planner("t", CONFIG, CostModel(), 8, 512)
    assert len(planner.choose(endless(), BUDGET)) == 8


@pytest.mark.parametrize(
    ("token_ms", "decode_ms", "count", "every"),
    [(0.1, 1.0, 128, 3), (0.1, 1.0, 1, 8), (0.1, 100.0, 1, 1), (0.01, 1.0, 128, 8), (1.0, 1.0, 16, 2)],
)
def test_layers_between_points_fit_half_the_gap(
    token_ms: float, decode_ms: float, count: int, every: int
) -> None:
    planner = Planner("t", CONFIG, measured(token_ms, decode_ms), 8, 512)
    batch = planner.batch([Row(jobs(count)[0], count)], BUDGET)
    assert batch.work.every == every
    assert batch.kind == ("decode" if count == 1 else "prefill")


def test_unmeasured_slices_yield_at_every_layer() -> None:
    planner = Planner("t", CONFIG, CostModel(), 8, 512)
    assert planner.batch([Row(jobs(16)[0], 16)], BUDGET).work.every == 1
