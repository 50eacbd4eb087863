"""A training run measured in hours: learning-rate schedule by time spent, progress bar, checkpoint rhythm."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from types import TracebackType
from typing import Final

from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn


class TrainingClock:
    """Counts working time over resumed runs. Owned by one training loop, on its thread.

    `spent_s` is what earlier runs used. A gap of `PAUSE_S` between two reports was no work: the process was
    stopped, as while something is measured. On a terminal a bar is shown, otherwise a line each half minute.
    """

    PAUSE_S: Final = 60.0

    def __init__(
        self,
        hours: float,
        spent_s: float = 0.0,
        save_every_s: float = 120.0,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._now, self._total_s, self._save_every_s = now, hours * 3600.0, save_every_s
        self._start = now() - spent_s
        self._saved = self._logged = self._reported = now()
        self._bar = Progress(
            TextColumn("{task.description}"), BarColumn(), TimeRemainingColumn(), redirect_stdout=False
        )
        self._task = self._bar.add_task("starting", total=self._total_s)

    def __enter__(self) -> TrainingClock:
        if self._bar.console.is_terminal:
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()

    @property
    def spent_s(self) -> float:
        return self._now() - self._start

    @property
    def progress(self) -> float:
        """Share of the time budget used, at most 1."""
        return min(1.0, self.spent_s / self._total_s)

    def learning_rate(self, peak: float, floor: float = 0.05, warmup: float = 0.02) -> float:
        """Linear warm-up, then a cosine from `peak` down to `floor * peak`."""
        if self.progress < warmup:
            return peak * max(self.progress / warmup, 0.02)
        share = (self.progress - warmup) / (1.0 - warmup)
        return peak * (floor + (1.0 - floor) * 0.5 * (1.0 + math.cos(math.pi * share)))

    def report(self, message: str) -> None:
        """Shows `message` beside the bar, or as a line when half a minute has passed."""
        quiet_s, self._reported = self._now() - self._reported, self._now()
        if quiet_s > self.PAUSE_S:
            self._start += quiet_s
        self._bar.update(self._task, completed=self.spent_s, description=message)
        if not self._bar.console.is_terminal and self._now() - self._logged > 30.0:
            self._logged = self._now()
            print(f"{self.progress:6.1%} {message}", flush=True)

    def save_is_due(self) -> bool:
        """True once every `save_every_s` seconds."""
        if self._now() - self._saved < self._save_every_s:
            return False
        self._saved = self._now()
        return True
