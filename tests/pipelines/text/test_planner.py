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


def slopes(row_ms: float, first_ms: float) -> CostModel:
    """A decode takes `first_ms`, and `row_ms` for each row more; a token of a prompt 0.1 ms."""
    cost = measured(0.1, first_ms)
    for rows in (2, 4, 8, 16, 32):
        cost.observe(Batch("t", "decode", (), rows), first_ms + row_ms * (rows - 1))
    return cost


@pytest.mark.parametrize(
    ("what", "row_ms", "voices", "riders"),
    [
        ("a quarter of what a voice's token takes", 0.5, (1,), 2),
        ("and of two voices' tokens", 0.5, (1, 1), 2),
        ("none where each costs more than that", 2.0, (1,), 0),
        ("all where they cost next to nothing", 0.01, (1,), 12),
        ("beside a prompt of 80 tokens a quarter of that", 0.5, (80,), 4),
    ],
)
def test_chats_ride_in_a_voices_slice_where_they_cost_little(
    what: str, row_ms: float, voices: tuple[int, ...], riders: int
) -> None:
    """A voice's token takes 4 ms."""
    found = jobs(*voices, *[1] * 12)
    for each in found[: len(voices)]:
        each.rank = JobClass.REALTIME
    planner = Planner("t", CONFIG, slopes(row_ms, 4.0), 32, 512)
    rows = planner.choose(found, BUDGET)
    assert [row.job for row in rows] == found[: len(voices) + riders], what
    for each in found:
        each.rank = JobClass.INTERACTIVE
    assert len(planner.choose(found, BUDGET)) == len(found), "chats batch"


def test_beside_a_speaking_voice_prompts_of_others_fill_a_slice_only_up_to_the_gap() -> None:
    """A listener hears nothing while its text gets one token in each long slice: 100 tokens fit the gap."""
    speaking, begins, voice = jobs(1, 500, 1)
    speaking.rank = begins.rank = JobClass.REALTIME
    speaking.consumer = voice
    planner = Planner("t", CONFIG, measured(0.1), 8, 512)
    assert planner.choose([begins, speaking], BUDGET) == [Row(begins, 191), Row(speaking, 1)]
    voice.dry_s = 1.0
    assert planner.choose([begins, speaking], BUDGET) == [Row(begins, 95), Row(speaking, 1)]
    assert planner.choose([begins], BUDGET) == [Row(begins, 192)]


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
