"""Step caching at an image model's shape: evaluations, predicted steps with and without the fused kernels,
and whole loops at several intervals."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from benchmarks.gpu_book import Book
from benchmarks.gpu_text import alternated
from benchmarks.sdxl_shape import Shape, evaluated, shaped_unet
from kernels import latent_step
from kernels.timings import forced

ORDER = 3
KERNELS = ("group_norm_silu", "latent_step")


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
    """Items, in milliseconds: an evaluation of `rows` guided images with and without its kernel, a predicted
    step likewise, and a step on average where every, every second or every third one is evaluated."""
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
    timed("predicted step", {"plain torch": on(state.predict), "kernel": on(state.predict, "latent_step")})
    loops = {f"interval {n}": on(looped(state, evaluate, n, steps), *KERNELS) for n in (1, 2, 3)}
    timed("step of a loop", loops, steps)


class Latents:
    """Latents of some rows, and the outputs kept of each. Owner: the benchmark."""

    def __init__(self, rows: int, shape: Shape, device: torch.device, dtype: torch.dtype) -> None:
        size = 4 * shape.side**2
        self.shape = (2 * rows, 4, shape.side, shape.side)
        self.latents, self.previous = torch.randn(2, rows, size, device=device).unbind()
        self.kept = torch.randn(rows, ORDER, 2, size, device=device).to(dtype)
        self.text = torch.randn(2 * rows, 77, shape.text, device=device).to(dtype)
        self.times = torch.full((2 * rows,), 500.0, device=device)
        # The newest output and its first difference, forwards by one step; DDIM's update at some step.
        self.weights = torch.tensor([[2.0, -1.0, 0.0]], device=device).repeat(rows, 1)
        self.mix = torch.tensor([[5.0, 0.99, -0.05, 0.0, 1.2, -0.6]], device=device).repeat(rows, 1)

    def inputs(self) -> tuple[Tensor, Tensor, Tensor]:
        """Both passes of guidance."""
        doubled = self.latents.repeat_interleave(2, dim=0).view(self.shape)
        return doubled.to(self.kept.dtype), self.times, self.text

    def keep(self, output: Tensor) -> None:
        """An evaluation's outputs, the newest first."""
        self.kept = self.kept.roll(1, dims=1)
        self.kept[:, 0] = output.reshape(-1, 2, self.kept.shape[3])

    def predict(self) -> None:
        """A step without the model. The latents stay where they are: only the time counts."""
        latent_step(self.latents, self.previous, self.kept, self.weights, self.mix)


def looped(state: Latents, evaluate: Callable[[], None], interval: int, steps: int) -> Callable[[], None]:
    """Each step takes the update; every `interval`-th evaluates before it."""

    def loop() -> None:
        for step in range(steps):
            if step % interval == 0:
                evaluate()
            state.predict()

    return loop


def on(call: Callable[[], object], *kernels: str) -> Callable[[], object]:
    """The call with these kernels alone."""

    def wrapped() -> object:
        with forced(*kernels):
            return call()

    return wrapped
