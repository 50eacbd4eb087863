"""What all benchmarks report alike: percentiles, paired ratios with bootstrap intervals, the machine."""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

RESAMPLES = 2_000


def percentile(values: Sequence[float], share: float) -> float:
    """The `share` (0 to 1) quantile, 0.0 of nothing."""
    return float(np.quantile(values, share)) if values else 0.0


def paired_ratio(baseline: Sequence[float], ours: Sequence[float]) -> tuple[float, float, float]:
    """Ratio of means baseline / ours over pairs, with its 95 % bootstrap interval (pairs are resampled)."""
    before, after = np.asarray(baseline, float), np.asarray(ours, float)
    draws = np.random.default_rng(0).integers(0, len(before), (RESAMPLES, len(before)))
    ratios = before[draws].mean(axis=1) / after[draws].mean(axis=1)
    low, high = np.quantile(ratios, (0.025, 0.975))
    return float(before.mean() / after.mean()), float(low), float(high)


def machine() -> dict[str, str]:
    """Hardware, versions and load, for the report."""
    return {
        "processor": _processor(),
        "cores": str(os.cpu_count()),
        "load": " ".join(f"{value:.2f}" for value in os.getloadavg()),
        "python": platform.python_version(),
        "torch": str(torch.__version__),
        "command": " ".join(["python", *sys.orig_argv[1:]]),
    }


def _processor() -> str:
    """Its name, where the system tells it."""
    listing = Path("/proc/cpuinfo")
    lines = listing.read_text().splitlines() if listing.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()
