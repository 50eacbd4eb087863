"""A kernel runs only where a committed result says that it pays."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

import kernels
from kernels import timings
from kernels.timings import Timing, chosen, forced, pays, read

TIMED = (
    Timing("H", "gate_multiply", "bfloat16", 8, 5.0, 9.0, 2.0, 3.0),
    Timing("H", "gate_multiply", "bfloat16", 512, 9.0, 8.9, 3.0, 4.0),
    Timing("H", "rms_norm", "bfloat16", 8, 4.0, 4.0, 2.0, 1.0),
)


@pytest.mark.parametrize(
    ("kernel", "device", "dtype", "size", "expected"),
    [
        ("gate_multiply", "H", "bfloat16", 8, True),
        ("gate_multiply", "H", "bfloat16", 1, True),
        ("gate_multiply", "H", "bfloat16", 63, True),
        ("gate_multiply", "H", "bfloat16", 65, False),
        ("gate_multiply", "H", "bfloat16", 9999, False),
        ("gate_multiply", "H", "float16", 8, False),
        ("gate_multiply", "another", "bfloat16", 8, False),
        ("rope_append", "H", "bfloat16", 8, False),
        ("rms_norm", "H", "bfloat16", 8, True),
    ],
)
def test_the_nearest_size_decides(kernel: str, device: str, dtype: str, size: int, expected: bool) -> None:
    assert pays(TIMED, kernel, device, dtype, size) is expected


def test_in_a_graph_the_device_alone_decides() -> None:
    assert pays(TIMED, "gate_multiply", "H", "bfloat16", 512, in_graph=True)
    assert not pays(TIMED, "rms_norm", "H", "bfloat16", 8, in_graph=True)


def test_a_kernel_that_was_never_timed_is_off() -> None:
    committed = read(timings.RESULTS)
    for kernel in kernels.__all__:
        assert not pays(committed, kernel, "a GPU that nobody has timed", "bfloat16", 8)
        assert not pays((), kernel, "H", "bfloat16", 8)


def test_on_a_cpu_all_are_off_and_nothing_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timings, "RESULTS", None)
    assert not any(chosen(kernel, torch.zeros(1), 1) for kernel in kernels.__all__)


def test_forcing_ends() -> None:
    with forced("rms_norm"):
        assert chosen("rms_norm", torch.zeros(1), 1)
        with forced():
            assert not chosen("rms_norm", torch.zeros(1), 1)
        assert not chosen("gate_multiply", torch.zeros(1), 1)
    assert not chosen("rms_norm", torch.zeros(1), 1)


def test_results_are_read(tmp_path: Path) -> None:
    alone = {"triton": 2, "torch": 3, "sdpa": 9}
    row = {"kernel": "rms_norm", "dtype": "bfloat16", "size": 8, "microseconds": 4, "otherwise": 5, "more": 1}
    rows = [row | {"device_microseconds": alone}]
    (tmp_path / "kernels-h.json").write_text(json.dumps({"device": "H", "timings": rows}))
    (tmp_path / "other.json").write_text("{}")
    assert read(tmp_path) == (Timing("H", "rms_norm", "bfloat16", 8, 4.0, 5.0, 2.0, 3.0),)


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"device": "H", "timings": [{"kernel": "x"}]}'])
def test_a_broken_result_is_named(text: str, tmp_path: Path) -> None:
    (tmp_path / "kernels-broken.json").write_text(text)
    with pytest.raises(ValueError, match=r"kernels-broken\.json"):
        read(tmp_path)


def test_what_a_kernel_cannot_read_is_left_to_torch() -> None:
    """Patches of an image are its channels turned round, and networks may answer in channels-last order."""
    turned = torch.randn(2, 6, 5).transpose(1, 2)
    last = torch.randn(4, 3, 3).permute(2, 0, 1)
    scale, weights = torch.randn(2, 6), torch.randn(1, 2)
    expected = kernels.modulate(turned, scale, scale, 1e-6), kernels.latent_steps([last, last], weights)
    with forced("modulate", "latent_steps"):
        assert torch.equal(kernels.modulate(turned, scale, scale, 1e-6), expected[0])
        assert torch.equal(kernels.latent_steps([last, last], weights), expected[1])
