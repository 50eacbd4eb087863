"""Arrival times: scaled to the wanted rate, the same for the same seed."""

from __future__ import annotations

import json
from itertools import islice
from pathlib import Path

import pytest

from benchmarks.load import from_trace, poisson


def azure(folder: Path) -> Path:
    path = folder / "azure.csv"
    rows = [f"2023-11-16 18:15:{second:02d}.5000000,374,44" for second in (1, 2, 4, 8, 16, 32)]
    path.write_text("\n".join(["TIMESTAMP,ContextTokens,GeneratedTokens", *rows]))
    return path


def servegen(folder: Path) -> Path:
    path = folder / "servegen.jsonl"
    clients = [
        {"trace": [["0", "0", "0", "", "0", "0"], ["600", "2.0", "1.0", family, "1.0", "0.5"]]}
        for family in ("Gamma", "Weibull")
    ]
    path.write_text("\n".join(json.dumps(client) for client in clients))
    return path


@pytest.mark.parametrize("make", [azure, servegen])
def test_a_trace_is_scaled_to_the_rate(make: object, tmp_path: Path) -> None:
    assert callable(make)
    path = make(tmp_path)
    times = list(islice(from_trace(path, 10.0, 1), 4000))
    assert times == list(islice(from_trace(path, 10.0, 1), 4000))
    assert times == sorted(times)
    assert 4000 / times[-1] == pytest.approx(10.0, rel=0.1)


def test_the_gaps_of_a_csv_keep_their_proportions(tmp_path: Path) -> None:
    times = list(islice(from_trace(azure(tmp_path), 1.0, 0), 6))
    gaps = sorted(round(after - before, 6) for before, after in zip([0.0, *times], times[:5], strict=False))
    assert [round(gap / gaps[0]) for gap in gaps] == [1, 2, 4, 8, 16]


def test_poisson() -> None:
    times = list(islice(poisson(5.0, 3), 5000))
    assert 5000 / times[-1] == pytest.approx(5.0, rel=0.1)
