"""What `make bench-gpu` runs, tiny and on the CPU, so that it is known to run."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks import gpu, kernels
from benchmarks.kernel_cases import cases
from benchmarks.sdxl_shape import SDXL, TINY, ShapedUNet, evaluated, shaped_unet
from kernels.timings import read

ROOT = Path(__file__).parents[2]
PARTS = ("equality", "kernels", "text", "preemption", "step_cache")


@pytest.fixture
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def test_a_part_that_lacks_a_library_or_breaks_leaves_the_others(tmp_path: Path) -> None:
    def lacking(_: dict[str, Any]) -> dict[str, Any]:
        raise ModuleNotFoundError("No module named 'diffusers'", name="diffusers")

    def breaking(_: dict[str, Any]) -> dict[str, Any]:
        raise RuntimeError("out of memory")

    def working(found: dict[str, Any]) -> dict[str, Any]:
        return {"before": list(found), "failed": {}, "timings": [1]}

    found = gpu.run({"a": lacking, "b": breaking, "equality": working, "kernels": working})
    assert found["a"]["skipped"] == "diffusers is absent"
    assert "out of memory" in found["b"]["broken"]
    assert found["equality"]["before"] == ["a", "b"]
    assert not gpu.sound(found)
    gpu.write(tmp_path, "NVIDIA H200", found)
    assert [path.name for path in tmp_path.iterdir()] == ["gpu-nvidia-h200.json"]


def test_timings_are_written_only_where_all_kernels_are_equal(tmp_path: Path) -> None:
    row = {"kernel": "rms_norm", "dtype": "bfloat16", "size": 8, "microseconds": 4.0, "otherwise": 5.0}
    failures: dict[str, dict[str, str]] = {"Good": {}, "Bad": {"rms_norm": "differs"}}
    for name, failed in failures.items():
        gpu.write(tmp_path, name, {"equality": {"failed": failed}, "kernels": {"timings": [row]}})
    assert [timing.device for timing in read(tmp_path)] == ["Good"]


@pytest.mark.usefixtures("_one_thread")
def test_preemption_of_shaped_pipelines() -> None:
    found = gpu.parts(torch.device("cpu"), tiny=True)["preemption"]({})
    policies = {
        "first come, first served",
        "priority admission",
        "at tokens and steps",
        "at layers and blocks",
    }
    assert set(found) == policies
    assert all(arm["busy_s"] > 0 for arm in found.values())


def test_the_network_has_the_shape_of_sdxl() -> None:
    """2.57 billion parameters; ours has no embedding of sizes and no projections around the transformers."""
    with torch.device("meta"):
        count = sum(each.numel() for each in ShapedUNet(SDXL).parameters())
    assert count == pytest.approx(2.567e9, rel=0.03)


def test_the_network_runs_and_yields_after_each_block() -> None:
    unet = shaped_unet(TINY, torch.float32, torch.device("cpu"))

    def steps() -> Any:
        return unet.steps(torch.randn(1, 4, 4, 4), torch.ones(1), torch.randn(1, 77, 6))

    stages, blocks = 4 + 2 + 6, 2 + 1 + 3
    assert sum(1 for _ in steps()) == stages + blocks
    assert evaluated(steps()).shape == (1, 4, 4, 4)


def test_counts_are_of_every_kernel() -> None:
    counted = {case.kernel for case in cases(2, tiny=False)}
    assert counted == {case.kernel for case in cases(4, tiny=True)}
    assert len(counted) == 15
    assert all(case.bytes > 0 and case.flops > 0 for case in cases(2, tiny=False))


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_nothing_is_timed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["kernels", "--json", str(tmp_path / "kernels-none.json")])
    kernels.main()
    assert "nothing was timed" in capsys.readouterr().out
    assert read(tmp_path) == ()
    monkeypatch.setattr(sys, "argv", ["gpu"])
    with pytest.raises(SystemExit, match=r"There is no GPU here|Triton is not installed"):
        gpu.main()


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="Triton is not installed (Linux only)")
def test_the_dry_run_runs_every_part(tmp_path: Path) -> None:
    done = command("benchmarks.gpu", "--dry-run", "--json", str(tmp_path))
    assert done.returncode == 0, done.stdout + done.stderr
    (written,) = tmp_path.iterdir()
    found = json.loads(written.read_text())["parts"]
    assert tuple(found) == PARTS
    assert not any("skipped" in part or "broken" in part for part in found.values())
    assert found["equality"]["failed"] == {}
    assert found["equality"]["passed"] == 54


def command(module: str, *options: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": f"{ROOT}:{ROOT / 'protos'}"}
    arguments = [sys.executable, "-m", module, *options]
    return subprocess.run(arguments, cwd=ROOT, env=environment, capture_output=True, text=True)
