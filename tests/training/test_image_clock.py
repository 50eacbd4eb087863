"""The clock of the image trainings."""

from __future__ import annotations

from training.image_clock import TrainingClock


def test_time_in_which_the_process_was_stopped_is_no_work() -> None:
    now = [100.0]
    clock = TrainingClock(hours=0.1, spent_s=60.0, now=lambda: now[0])
    for step_s in (1.0, 2.0, 500.0, 1.0):
        now[0] += step_s
        clock.report("a step")
    assert clock.spent_s == 64.0
