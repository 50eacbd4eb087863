"""Step caching at an image model's shape: evaluations, runs of predicted steps with and without the fused
kernels, and whole loops at several intervals."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from benchmarks.gpu_book import Book
from benchmarks.gpu_text import alternated
from benchmarks.sdxl_shape import Shape, evaluated, shaped_unet
from kernels import latent_steps
from kernels.timings import forced

KERNELS = ("group_norm_silu", "latent_steps")
RUN = 5


def measure(
    book: Book,
    shape: Shape,
    device: torch.device,
    dtype: torch.dtype,
    *,
    rows: int,
    rounds: int,
    warm: int = 1,
    steps: int = 6,
) -> None:
    """Items, in milliseconds: an evaluation of `rows` guided images with and without its kernel; five steps
    from one evaluation to the next, one by one and at once, with and without the kernel; a step on average
    where every, every second or every third one is evaluated."""
    unet = shaped_unet(shape, dtype, device)
    book.put(rows=rows, parameters=sum(each.numel() for each in unet.parameters()))
    state = Latents(rows, shape, device, dtype)

    def evaluate() -> None:
        state.keep(evaluated(unet.steps(*state.inputs())))

    def timed(name: str, calls: dict[str, Callable[[], object]], steps: int = 1) -> None:
        def one() -> dict[str, float]:
            found = {key: ms / steps for key, ms in alternated(calls, device, rounds, warm).items()}
            print(f"  {name}, ms: " + ", ".join(f"{key} {ms:.3f}" for key, ms in found.items()), flush=True)
            return found

        book.item(name, one)

    timed("evaluation", {"plain torch": on(evaluate), "kernel": on(evaluate, "group_norm_silu")})
    runs = {
        "one by one": on(state.one_by_one),
        "at once, plain torch": on(state.at_once),
        "at once, kernel": on(state.at_once, "latent_steps"),
    }
    timed("run of five steps", runs)
    loops = {f"interval {n}": on(looped(state, evaluate, n, steps), *KERNELS) for n in (1, 2, 3)}
    timed("step of a loop", loops, steps)


class Latents:
    """Latents of some rows, and the last two guided outputs of each. Owner: the benchmark."""

    def __init__(self, rows: int, shape: Shape, device: torch.device, dtype: torch.dtype) -> None:
        size = (rows, 4, shape.side, shape.side)
        self.latents, self.older, self.newer = (torch.randn(size, device=device) for _ in range(3))
        self.text = torch.randn(2 * rows, 77, shape.text, device=device).to(dtype)
        self.times = torch.full((2 * rows,), 500.0, device=device)
        self.weights = torch.tensor([[0.7, 1.9, -0.9], [1.2, -0.8, 0.1]])

    def inputs(self) -> tuple[Tensor, Tensor, Tensor]:
        """Both passes of guidance."""
        return self.latents.repeat_interleave(2, dim=0).to(self.text.dtype), self.times, self.text

    def keep(self, output: Tensor) -> None:
        """An evaluation's outputs, guided."""
        negative, positive = output.float().view(-1, 2, *output.shape[1:]).unbind(1)
        self.older, self.newer = self.newer, negative + 5.0 * (positive - negative)

    def one_by_one(self) -> None:
        """Forecast, clean image and update of each step. The latents stay where they are: the time counts."""
        for latents, older, newer in zip(self.latents, self.older, self.newer, strict=True):
            for step in range(RUN):
                output = newer + 0.3 * step * (newer - older)
                clean = 1.02 * latents - 0.2 * output
                latents = 0.99 * clean + 0.15 * output

    def at_once(self) -> None:
        """The same run as one sum a row, and what the next one needs."""
        for row in zip(self.latents, self.newer, self.older, strict=True):
            latent_steps(row, self.weights)


def looped(state: Latents, evaluate: Callable[[], None], interval: int, steps: int) -> Callable[[], None]:
    """So many steps; every `interval`-th evaluates."""

    def loop() -> None:
        for _ in range(0, steps, interval):
            evaluate()
            state.at_once()

    return loop


def on(call: Callable[[], object], *kernels: str) -> Callable[[], object]:
    """The call with these kernels alone."""

    def wrapped() -> object:
        with forced(*kernels):
            return call()

    return wrapped
