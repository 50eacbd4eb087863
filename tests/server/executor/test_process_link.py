"""What a device process is started with."""

from __future__ import annotations

import os

import pytest

from server.executor.process_link import ROOT, SPINS, environment

OURS = {"OMP_NUM_THREADS": "3", "OPENBLAS_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}


@pytest.mark.parametrize(
    ("given", "more"),
    [
        ({"HOME": "/", "OMP_NUM_THREADS": "8"}, {"GOMP_SPINCOUNT": str(SPINS)}),
        ({"GOMP_SPINCOUNT": "7"}, {}),
        ({"OMP_WAIT_POLICY": "active"}, {}),
    ],
    ids=["short spins", "the operator's count", "the operator's policy"],
)
def test_threads_that_wait_spin_for_a_short_while(given: dict[str, str], more: dict[str, str]) -> None:
    assert environment(given, 3) == given | more | OURS


def test_it_finds_the_modules_of_its_gateway_first() -> None:
    assert environment({"PYTHONPATH": "there"}, 1)["PYTHONPATH"] == f"{ROOT}{os.pathsep}there"
