"""Keyed random numbers: suspension and other calls change nothing."""

from __future__ import annotations

from collections.abc import Generator

import torch

from pipelines.randomness import keyed

CPU = torch.device("cpu")


def draws(count: int) -> Generator[None, None, list[float]]:
    drawn = []
    for _ in range(count):
        drawn.append(float(torch.randn(())))
        yield
    return drawn


def answer(steps: Generator[None, None, list[float]], between: int = 0) -> list[float]:
    while True:
        try:
            next(steps)
            torch.randn(between)
        except StopIteration as end:
            return list(end.value)


def test_draws_are_those_of_the_seed_alone() -> None:
    torch.manual_seed(7)
    alone = [float(torch.randn(())) for _ in range(5)]
    assert answer(keyed(7, CPU, draws(5))) == alone
    assert answer(keyed(7, CPU, draws(5)), between=3) == alone


def test_interleaved_calls_do_not_disturb_each_other() -> None:
    first, second = keyed(1, CPU, draws(4)), keyed(2, CPU, draws(4))
    for _ in range(3):
        next(first)
        next(second)
    assert answer(first) == answer(keyed(1, CPU, draws(4)))
    assert answer(second) == answer(keyed(2, CPU, draws(4)))


def test_the_global_generator_is_left_as_it_was() -> None:
    torch.manual_seed(3)
    expected = torch.randn(6)
    torch.manual_seed(3)
    found = [torch.randn(2)]
    steps = keyed(9, CPU, draws(4))
    next(steps)
    found.append(torch.randn(2))
    next(steps)
    steps.close()
    found.append(torch.randn(2))
    assert torch.equal(torch.cat(found), expected)
