"""Interruptible calls: equal to plain ones whatever runs in between, and nothing leaks."""

from __future__ import annotations

import functools
import random
import time
from collections.abc import Callable, Generator
from typing import Any

import pytest
import torch

from pipelines.interruptible import add_points, interruptible, point

torch.set_num_threads(1)
Call = Callable[[], torch.Tensor]


def switches() -> tuple[object, ...]:
    """Every thread-wide switch that a module may open."""
    return (
        torch.is_inference_mode_enabled(),
        torch.is_grad_enabled(),
        torch.is_autocast_enabled("cpu"),
        torch.get_autocast_dtype("cpu"),
        torch.is_autocast_enabled("cuda"),
        torch.get_autocast_dtype("cuda"),
    )


class Scoped(torch.nn.Module):
    """Opens its scope inside forward, as modules of others do, and notes what it sees."""

    def __init__(self, scope: Callable[[], Any], seed: int) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.layers = torch.nn.ModuleList(torch.nn.Linear(8, 8) for _ in range(4)).requires_grad_(False)
        self.scope = scope
        self.seen: list[tuple[object, ...]] = []

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for layer in self.layers:
            with self.scope():
                x = torch.tanh(layer(x.float()))
                self.seen.append((*switches(), x.dtype))
            x = layer(x.float())
        return x


SCOPES: dict[str, Callable[[], Any]] = {
    "no_grad": torch.no_grad,
    "enable_grad": torch.enable_grad,
    "inference_mode": torch.inference_mode,
    "no inference_mode": lambda: torch.inference_mode(False),
    "autocast": lambda: torch.autocast("cpu", torch.bfloat16),
    "autocast half": lambda: torch.autocast("cpu", torch.float16),
    "no autocast": lambda: torch.autocast("cpu", enabled=False),
}


def scoped_calls() -> list[tuple[Scoped, Call]]:
    """One call for each scope."""
    made: list[tuple[Scoped, Call]] = []
    for seed, scope in enumerate(SCOPES.values()):
        module = Scoped(scope, seed)
        add_points(module.layers)
        x = torch.randn(2, 8, generator=torch.Generator().manual_seed(seed))
        made.append((module, functools.partial(module, x)))
    return made


def finish(steps: Generator[None, None, torch.Tensor]) -> tuple[torch.Tensor, int]:
    """The result, and how many points there were on the way."""
    points = 0
    while True:
        try:
            next(steps)
        except StopIteration as stop:
            return stop.value, points
        points += 1


def test_points_and_result() -> None:
    module, call = scoped_calls()[0]
    result, points = finish(interruptible(call))
    assert points == 8
    assert torch.equal(result, call())
    assert len(module.seen) == 8


def test_hooks_do_nothing_outside() -> None:
    layer = torch.nn.Linear(3, 3)
    x = torch.randn(2, 3)
    before = layer(x)
    assert add_points([layer, torch.nn.Identity()]) == 2
    assert torch.equal(layer(x), before)
    point()


@pytest.mark.parametrize("outer", SCOPES)
@pytest.mark.parametrize("seed", range(3))
def test_interleaved_and_cancelled_calls_equal_calls_alone(outer: str, seed: int) -> None:
    with SCOPES[outer]():
        calls = scoped_calls()
        alone = [call() for _, call in calls]
        alone_seen = [list(module.seen) for module, _ in calls]
        for module, _ in calls:
            module.seen.clear()
        caller = switches()
        order = random.Random(seed)
        doomed = set(order.sample(range(len(calls)), 2))
        running = {index: interruptible(call) for index, (_, call) in enumerate(calls)}
        results: dict[int, torch.Tensor] = {}
        while running:
            index = order.choice(sorted(running))
            if index in doomed and order.random() < 0.2:
                running.pop(index).close()
            else:
                try:
                    next(running[index])
                except StopIteration as stop:
                    del running[index]
                    results[index] = stop.value
            assert switches() == caller
        assert set(results) >= set(range(len(calls))) - doomed
        for index, result in results.items():
            assert torch.equal(result, alone[index])
            assert calls[index][0].seen == alone_seen[index]


def test_inference_tensors_stay_inside() -> None:
    """A scope that was suspended must not make its neighbour's tensors inference tensors."""

    def inside() -> torch.Tensor:
        with torch.inference_mode():
            point()
            return torch.ones(1)

    steps = interruptible(inside)
    next(steps)
    assert not torch.ones(1).is_inference()
    weight = torch.ones(1, requires_grad=True)
    assert (weight * 2).requires_grad
    result, _ = finish(steps)
    assert result.is_inference()
    assert not torch.ones(1).is_inference()


def test_close_unwinds() -> None:
    trail: list[str] = []

    def call() -> None:
        try:
            with torch.no_grad():
                point()
                trail.append("went on")
        finally:
            trail.append("unwound")
            trail.append(str(torch.is_grad_enabled()))

    steps = interruptible(call)
    next(steps)
    assert torch.is_grad_enabled()
    steps.close()
    assert trail == ["unwound", "True"]
    assert torch.is_grad_enabled()


def test_close_before_the_first_point() -> None:
    steps = interruptible(lambda: pytest.fail("must not run"))
    steps.close()


@pytest.mark.parametrize("scope", SCOPES)
def test_an_error_comes_through_and_leaves_nothing(scope: str) -> None:
    def call() -> None:
        with SCOPES[scope]():
            point()
            raise ValueError("broken")

    before = switches()
    steps = interruptible(call)
    next(steps)
    assert switches() == before
    with pytest.raises(ValueError, match="broken"):
        next(steps)
    assert switches() == before


def test_a_call_within_a_call() -> None:
    """The inner generator's points are its own; its driver may be interrupted as well."""

    def inner() -> int:
        point()
        return 1

    def outer() -> int:
        total, steps = 0, interruptible(inner)
        while True:
            try:
                next(steps)
            except StopIteration as stop:
                return total + int(stop.value)
            point()
            total += 10

    steps = interruptible(outer)
    next(steps)
    with pytest.raises(StopIteration) as stop:
        next(steps)
    assert stop.value.value == 11


def test_a_point_is_cheap() -> None:
    """Aim 1 microsecond on an idle core; the gate leaves room for a busy one."""
    count = 5000

    def call() -> None:
        for _ in range(count):
            point()

    best = min(_cpu_us(call) for _ in range(5)) / count
    print(f"{best:.2f} microseconds a point")
    assert best < 8


def _cpu_us(call: Callable[[], None]) -> float:
    start = time.process_time()
    for _ in interruptible(call):
        continue
    return (time.process_time() - start) * 1e6
