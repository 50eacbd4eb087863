"""What the strategies decide, remember and predict; masks and levels."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path

import pytest
import torch

from pipelines.errors import ModelBroken, Unsupported
from pipelines.image.affordable import affordable
from pipelines.image.request import ImagePlan
from pipelines.image.step_cache.base import CacheState, Decision, Observation, StepCache
from pipelines.image.step_cache.forecast import Forecaster
from pipelines.image.step_cache.gate import LONGEST_RUN, Gate
from pipelines.image.step_cache.levels import StepCaches, faster
from pipelines.image.step_cache.masks import Masks, read_masks, spread
from pipelines.image.step_cache.schedule import Schedule
from pipelines.image.step_cache.split import Split
from tests.pipelines.image.step_cache.test_schedule import schedule

STEPS = 20
KEY = "a plan"


def line(made: Schedule, step: int, bend: float = 0.0) -> torch.Tensor:
    """Noise along the schedule: straight, or bent."""
    position = made.position(step)
    return torch.full((1, 1, 2, 2), 3.0 + 2.0 * position + bend * position**2)


def walk(cache: StepCache, made: Schedule, bend: float = 0.0) -> tuple[list[int], float]:
    """The full steps, and the largest error of a forecast."""
    state: CacheState | None = None
    full, worst = [], 0.0
    for step in range(made.steps):
        truth = line(made, step, bend)
        x = truth if made.signal[step] == 0 else torch.zeros((1, 1, 2, 2))
        if cache.decide(made, KEY, state, step) is Decision.FULL:
            full.append(step)
            seen = Observation(x, made.as_output(step, x, truth))
            state = cache.observe(made, KEY, state, step, seen)
            continue
        assert state is not None
        found = made.as_noise(step, x, cache.predict(made, state, step, x))
        worst = max(worst, float((found - truth).abs().max()))
    return full, worst


@pytest.mark.parametrize("kind", ["epsilon", "v_prediction", "sample", "flow_prediction"])
def test_a_straight_line_is_forecast_exactly(kind: str) -> None:
    made, _ = schedule(kind, steps=STEPS)
    mask = frozenset({0, 1, 6, 13})
    full, worst = walk(Forecaster(mask), made)
    assert full == sorted(mask)
    assert worst < 2e-3


def test_one_point_is_used_as_it_is() -> None:
    made, _ = schedule("epsilon", steps=STEPS)
    x = torch.zeros((1, 1, 2, 2))
    cache = Forecaster(frozenset({0}))
    state = cache.observe(made, KEY, None, 0, Observation(x, line(made, 0)))
    assert torch.equal(cache.predict(made, state, 5, x), line(made, 0))


def test_what_was_remembered_for_something_else_is_worth_nothing() -> None:
    """Fails open: full until there is a state of its own; and the old one does not bend the new."""
    made, _ = schedule("epsilon", steps=STEPS)
    x = torch.zeros((1, 1, 2, 2))
    for cache in (Forecaster(frozenset({0})), Gate(100.0), Split(frozenset({0}), 0.1)):
        seen = Observation(x, line(made, 0), deep=x)
        old = cache.observe(made, "another plan", None, 0, seen)
        assert cache.decide(made, KEY, old, 1) is Decision.FULL
        assert cache.decide(made, KEY, None, 1) is Decision.FULL
        fresh = cache.observe(made, KEY, old, 1, Observation(x, line(made, 1), deep=x))
        assert len(fresh.noise) + len(fresh.deep) == 1


def test_a_state_is_a_value() -> None:
    """A snapshot is the state itself: what comes later changes nothing in it."""
    made, _ = schedule("epsilon", steps=STEPS)
    x = torch.zeros((1, 1, 2, 2))
    cache = Forecaster(frozenset({0, 1, 2}))
    state = cache.observe(made, KEY, None, 0, Observation(x, line(made, 0)))
    before = cache.predict(made, state, 3, x).clone()
    cache.observe(made, KEY, state, 1, Observation(x, line(made, 1)))
    assert torch.equal(cache.predict(made, state, 3, x), before)
    assert state.bytes == 4 * 4


def test_the_gate_goes_by_the_picture() -> None:
    made, _ = schedule("epsilon", steps=40)
    straight, _ = walk(Gate(0.02), made)
    bent, worst = walk(Gate(0.02), made, bend=0.3)
    very, _ = walk(Gate(0.02), made, bend=5.0)
    assert straight[:4] == bent[:4] == [0, 1, 2, 3]
    assert len(straight) < len(bent) < len(very)
    assert straight[-1] == 39
    assert max(b - a for a, b in pairwise(straight)) <= LONGEST_RUN + 1
    assert worst < 0.2


def test_the_gate_reads_one_evaluation_late() -> None:
    """The forecast's error at a step decides only after the next full one."""
    made, _ = schedule("epsilon", steps=40)
    gate, x = Gate(0.02), torch.zeros((1, 1, 2, 2))
    state = None
    for step in range(3):
        state = gate.observe(made, KEY, state, step, Observation(x, line(made, step)))
    wild = gate.observe(made, KEY, state, 3, Observation(x, line(made, 3) + 100))
    assert wild.until > 4
    later = gate.observe(made, KEY, wild, wild.until, Observation(x, line(made, wild.until)))
    assert later.until == wild.until + 1


def test_a_gate_that_sees_nan_computes() -> None:
    made, _ = schedule("epsilon", steps=40)
    gate, x = Gate(0.02), torch.zeros((1, 1, 2, 2))
    state = None
    for step in range(5):
        output = line(made, step) if step != 3 else torch.full((1, 1, 2, 2), torch.nan)
        state = gate.observe(made, KEY, state, step, Observation(x, output))
    assert state is not None and state.until == 5


def test_split_asks_for_the_shallow_part() -> None:
    made, _ = schedule("epsilon", steps=STEPS)
    split, x = Split(frozenset({0, 1, 5}), 0.25), torch.zeros((1, 1, 2, 2))
    state = None
    for step in (0, 1):
        state = split.observe(made, KEY, state, step, Observation(x, x, deep=line(made, step)))
    assert state is not None
    assert split.decide(made, KEY, state, 2) is Decision.PARTIAL
    assert split.decide(made, KEY, state, 5) is Decision.FULL
    torch.testing.assert_close(split.deep(made, state, 3), line(made, 3))
    assert split.evaluations(made, state, 4) == pytest.approx(1 + 15 * 0.25)
    assert (split.cost(Decision.FULL), split.cost(Decision.PARTIAL)) == (1.0, 0.25)


def test_masks_are_stretched() -> None:
    masks = Masks({28: {"balanced": (0, 3, 9, 18), "fast": (0, 9)}, 50: {"balanced": (0, 1), "fast": (0,)}})
    assert masks.mask("balanced", 28) == {0, 3, 9, 18}
    assert masks.mask("balanced", 19) == {0, 2, 6, 12}
    assert masks.mask("fast", 60) == {0}


@pytest.mark.parametrize("steps", [9, 12, 28, 50, 150])
def test_without_calibration_masks_are_careful(steps: int) -> None:
    balanced, fast = spread("balanced", steps), spread("fast", steps)
    assert len(fast) <= len(balanced) <= 12
    for mask in (balanced, fast):
        assert {0, 1, steps - 1} <= mask <= set(range(steps))


def test_the_file_of_masks(tmp_path: Path) -> None:
    assert read_masks(tmp_path) is None
    file = tmp_path / "step_cache.json"
    file.write_text(json.dumps({"masks": {"28": {"balanced": [0, 5], "fast": [0]}}}))
    masks = read_masks(tmp_path)
    assert masks is not None and masks.mask("balanced", 28) == {0, 5}


@pytest.mark.parametrize(
    "content",
    [
        "{",
        "[]",
        "{}",
        '{"masks": {}}',
        '{"masks": {"28": {"fast": [0]}}}',
        '{"masks": {"28": {"balanced": [0, 28], "fast": [0]}}}',
        '{"masks": {"28": {"balanced": [0.5], "fast": [0]}}}',
        '{"masks": {"many": {"balanced": [0], "fast": [0]}}}',
        '{"masks": {"1": {"balanced": [0], "fast": [0]}}}',
    ],
)
def test_a_broken_file_of_masks_is_named(tmp_path: Path, content: str) -> None:
    (tmp_path / "step_cache.json").write_text(content)
    with pytest.raises(ModelBroken, match=r"step_cache\.json"):
        read_masks(tmp_path)


def test_levels() -> None:
    masks = Masks({28: {"balanced": (0, 5), "fast": (0,)}})
    caches = StepCaches("calibrated", masks, None)
    assert caches.cache("off", 28) is None
    assert caches.cache("fast", 8) is None
    assert caches.cache("balanced", 28) == Forecaster(frozenset({0, 5}))
    assert StepCaches("calibrated", None, None).cache("fast", 28) == Forecaster(spread("fast", 28))
    assert StepCaches("forecast", masks, None).cache("fast", 28) == Forecaster(spread("fast", 28))
    gates = [StepCaches("gate", masks, None).cache(level, 28) for level in ("balanced", "fast")]
    assert isinstance(gates[0], Gate) and isinstance(gates[1], Gate)
    assert gates[0].tolerance < gates[1].tolerance
    assert isinstance(StepCaches("split", None, 0.2).cache("fast", 28), Split)
    with pytest.raises(Unsupported, match="split"):
        StepCaches("split", None, None)
    assert (faster("off", "fast"), faster("fast", "balanced")) == ("fast", "fast")


YIELDING = [
    (28, "off", 0.4, (28, "off", "full")),
    (28, "off", 0.5, (28, "fast", "cache level fast")),
    (28, "balanced", 0.6, (28, "fast", "cache level fast")),
    (28, "fast", 0.6, (28, "fast", "full")),
    (28, "off", 0.75, (14, "fast", "cache level fast, 14 of 28 steps")),
    (12, "fast", 0.9, (8, "fast", "8 of 12 steps")),
    (8, "off", 0.9, (8, "off", "full")),
    (4, "off", 0.9, (4, "off", "full")),
]


@pytest.mark.parametrize(("steps", "level", "load", "served"), YIELDING)
def test_quality_yields_in_this_order(
    steps: int, level: str, load: float, served: tuple[int, str, str]
) -> None:
    plan = ImagePlan(64, 64, steps, 4.0, 0, "", 0, (), may_lower=True, cache_level=level)
    found, quality = affordable(plan, load)
    assert (found.steps, found.cache_level, quality) == served
    firm = ImagePlan(64, 64, steps, 4.0, 0, "", 0, (), may_lower=False, cache_level=level)
    assert affordable(firm, load) == (firm, "full")
