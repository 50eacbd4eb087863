"""What `make bench-gpu` runs, tiny and on the CPU, so that it is known to run."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
import warnings
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from benchmarks import bare, gpu, gpu_graphs, gpu_parts, gpu_text, kernels
from benchmarks.gpu_book import Book, attempted
from benchmarks.gpu_timing import Time
from benchmarks.kernel_cases import Calls, cases
from benchmarks.sdxl_shape import SDXL, TINY, ShapedUNet, evaluated, shaped_unet
from kernels.timings import Timing, read
from pipelines.text.settings import DTYPES

ROOT = Path(__file__).parents[2]
WAIT = "called a synchronizing CUDA operation (Triggered internally at CUDAFunctions.cpp:153.)"


@pytest.fixture
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def ignore(_body: dict[str, Any]) -> None:
    """Nothing is kept."""


def test_what_ends_a_process_costs_one_item(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first process dies at "b"; the second finds a and b there, and makes c."""

    def process(
        _name: str, place: Path, _log: Path, left_s: float, _keep: gpu.Keep, *, dry: bool
    ) -> str | None:
        book = Book(place)
        for item in ("a", "b", "c"):
            if item == "b" and item not in book.items:
                book.put(now="b")
                return "exit code -11: "
            book.item(item, lambda: {"made": len(book.items)})
        return None

    monkeypatch.setattr(gpu, "_process", process)
    found = gpu.run("text", 9.0, ignore, dry=True)
    assert found["items"] == {"a": {"made": 0}, "b": {"broken": "exit code -11: "}, "c": {"made": 2}}
    assert gpu.broken({"text": found}) == ["text: b"]


@pytest.mark.parametrize("why", ["exit code 1: ImportError", "ran out of its 9 s"])
def test_a_part_that_never_begins_ends(why: str, monkeypatch: pytest.MonkeyPatch) -> None:
    reasons = [why, why, "not asked again"]
    monkeypatch.setattr(gpu, "_process", lambda *_args, dry: reasons.pop(0))
    assert gpu.run("text", 9.0, ignore, dry=True)["items"] == {"start": {"broken": why}}
    assert reasons[-1] == "not asked again"


def test_a_process_that_fails_says_why(tmp_path: Path) -> None:
    """There is no such part; and one that takes too long is stopped."""
    place, log = tmp_path / "book", tmp_path / "log"
    why = gpu._process("nothing", place, log, 60.0, ignore, dry=True)
    assert why is not None
    assert why.startswith("exit code 2: ")
    assert "nothing" in why
    assert gpu._process("text", place, log, 0.1, ignore, dry=True) == "ran out of its 0 s"


def test_timings_are_written_of_equal_kernels_only(tmp_path: Path) -> None:
    kernels = ("rms_norm", "add_rms_norm", "gate_multiply", "modulate")
    rows = {
        name: {"kernel": name, "dtype": "bfloat16", "size": 8, "microseconds": 4.0, "otherwise": 5.0}
        | {"device_microseconds": {"triton": 2.0, "torch": 3.0}}
        for name in kernels
    }
    checks = ["rms_norm, float32", "rms_norm, wide, float32", "gate_multiply, tanh, float32", "modulate, x"]
    items: dict[str, Any] = {check: {"equal": True} for check in checks[:3]}
    items["rms_norm, wide, float32"] = {"equal": False, "why": "differs"}
    found: gpu.Found = {
        "equality": {"planned": checks, "items": items, "hardware": {"device": "NVIDIA H200"}},
        "kernels": {"items": rows, "limits": {}},
    }
    assert gpu.different(found) == ["add_rms_norm", "modulate", "rms_norm"]
    gpu.write(tmp_path, found, "make bench-gpu")
    assert {path.name for path in tmp_path.iterdir()} == {"gpu-nvidia-h200.json", "kernels-nvidia-h200.json"}
    assert [(timing.device, timing.kernel) for timing in read(tmp_path)] == [("NVIDIA H200", "gate_multiply")]


def test_what_is_written_is_whole_at_any_moment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A part that runs reads what the one before it has found."""
    path = tmp_path / "kernels-h.json"
    seen: list[str] = []
    path.write_text("{}")
    monkeypatch.setattr(Path, "replace", lambda *_: seen.append(path.read_text()))
    gpu._dump(path, {"timings": [1]})
    assert seen == ["{}"]


def test_what_does_not_compile_ends_no_process(monkeypatch: pytest.MonkeyPatch) -> None:
    class TritonError(Exception):
        """Of every compile error."""

    def raised() -> dict[str, Any]:
        raise TritonError("out of resource: shared memory")

    monkeypatch.setitem(sys.modules, "triton.errors", SimpleNamespace(TritonError=TritonError))
    assert attempted(raised) == {"broken": "TritonError: out of resource: shared memory"}
    assert attempted(lambda: {"equal": True}) == {"equal": True}


def test_a_peer_that_is_missing_costs_no_row() -> None:
    def missing() -> object:
        raise RuntimeError("no such operator on this device")

    peers, failed = kernels.usable({"here": lambda: None, "missing": missing})
    assert set(peers) == {"here"}
    assert failed == {"missing": "no such operator on this device"}


def test_a_row_is_what_dispatch_reads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing() -> object:
        raise RuntimeError("no such operator on this device")

    calls = Calls(lambda: None, lambda: None, {"here": lambda: None, "missing": missing})
    case = replace(cases(2, tiny=True)[0], make=lambda *_: calls)
    monkeypatch.setattr(kernels, "alternated", lambda calls: dict.fromkeys(calls, Time(2.0, 3.0)))
    row = kernels.one(case, torch.float16, {"bytes_per_s": 1e9, "flops_per_s": 1e9})
    assert list(row["failed"]) == ["missing"]
    gpu._dump(tmp_path / "kernels-h.json", {"device": "H", "timings": [row]})
    assert read(tmp_path) == (Timing("H", case.kernel, "float16", case.size, 3.0, 3.0, 2.0, 2.0),)


def test_waits_are_counted_without_what_torch_says_of_counting_them() -> None:
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        for text in (
            "Synchronization debug mode is a prototype feature and does not yet detect all",
            WAIT,
            WAIT,
        ):
            warnings.warn(text, stacklevel=1)
    assert gpu_text.waits(said) == 2


def test_tokens_of_a_check() -> None:
    """One of the drafts alone, then the one behind it, and so on; the last is the model's own."""
    chances = [0.2, 0.8 * 0.2, 0.64 * 0.2, 0.512]
    assert gpu_text.expected_tokens(3, 0.8) == pytest.approx(sum(n * c for n, c in enumerate(chances, 1)))
    assert gpu_text.expected_tokens(0, 0.8) == pytest.approx(1.0)


def test_a_row_that_is_wrong_is_far_from_what_is_expected() -> None:
    expected = torch.randn(9, 500, generator=torch.Generator().manual_seed(0))
    found = expected + 0.01 * torch.randn(9, 500, generator=torch.Generator().manual_seed(1))
    assert gpu_graphs.apart(found, expected) < min(gpu_graphs.NEAR[torch.bfloat16], 0.02)
    found[4] = expected[3]
    assert gpu_graphs.apart(found, expected) > max(gpu_graphs.NEAR.values())


def test_without_equality_no_timings_are_written(tmp_path: Path) -> None:
    row = {"kernel": "modulate", "dtype": "bfloat16", "size": 8, "microseconds": 4.0, "otherwise": 5.0}
    gpu.write(tmp_path, {"kernels": {"items": {"a": row}, "limits": {}, "hardware": {"device": "H"}}}, "")
    assert [path.name for path in tmp_path.iterdir()] == ["gpu-h.json"]


def test_a_part_that_is_running_is_on_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever takes the machine away takes a few seconds' work."""
    monkeypatch.setattr(gpu, "SAVE_EVERY_S", 0.2)
    kept: list[dict[str, Any]] = []
    why = gpu._process("text", tmp_path / "book", tmp_path / "log", 120.0, kept.append, dry=True)
    assert why is None, why
    assert len(kept) > 2
    assert any(each.get("now") for each in kept)
    assert kept[-1]["items"]


@pytest.mark.usefixtures("_one_thread")
def test_preemption_of_shaped_pipelines(tmp_path: Path) -> None:
    book = Book(tmp_path / "book.json")
    gpu_parts.preemption(book, torch.device("cpu"), tiny=True)
    policies = {
        "first come, first served",
        "priority admission",
        "at tokens and steps",
        "at layers and blocks",
    }
    assert set(book.items) == policies | {"delay"}
    assert all(book.items[policy]["busy_s"] > 0 for policy in policies)
    assert book.items["delay"]["beside_p50_ms"] > 0


def test_messages_where_msgspec_is_absent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "msgspec", None)
    assert bare.stand_in()
    import msgspec

    class Base(msgspec.Struct, frozen=True, tag=True):
        """Nothing."""

    class Child(Base, frozen=True):
        a: int
        b: dict[str, int] = {}  # noqa: RUF012
        c: str = "c"

    one = Child(1, c="d")
    assert one == Child(1, {}, "d")
    assert one.b is not Child(1).b
    assert msgspec.structs.replace(one, a=2) == Child(2, c="d")


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


def test_what_is_timed_is_what_dispatch_asks_for() -> None:
    """The sampler asks by its scores, latents and sound are fp32, all others go by the model's dtype."""
    asked = {case.kernel: case.dtype for case in cases(2, tiny=False) if case.dtype is not None}
    assert asked == dict.fromkeys(("perturbed_argmax", "latent_steps", "overlap_add"), torch.float32)


def test_every_dtype_that_a_model_may_have_is_timed() -> None:
    found = kernels.planned()
    assert len({name for name, _, _ in found}) == len(found)
    asked: dict[str, set[torch.dtype]] = {}
    for _, case, dtype in found:
        asked.setdefault(case.kernel, set()).add(dtype)
    model = {getattr(torch, name) for name in DTYPES}
    assert {kernel for kernel, dtypes in asked.items() if dtypes == model} == set(asked) - {
        "perturbed_argmax",
        "latent_steps",
        "overlap_add",
    }
    assert found[0][2] is torch.bfloat16  # should the time run out


def test_counts_are_of_every_kernel() -> None:
    counted = {case.kernel for case in cases(2, tiny=False)}
    assert counted == {case.kernel for case in cases(4, tiny=True)}
    assert len(counted) == 14
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
    assert list(found) == list(gpu.BUDGETS_S)
    assert gpu.broken(found) == []
    assert len(found["equality"]["items"]) == 51
    assert found["graphs"]["items"]["float32"]["equal"]
    assert json.loads(written.read_text())["timed"] is False
    assert "NOTHING WAS TIMED" in done.stdout
    assert found["compile"]["spilling"] == []


def command(module: str, *options: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": f"{ROOT}:{ROOT / 'protos'}"}
    arguments = [sys.executable, "-m", module, *options]
    return subprocess.run(arguments, cwd=ROOT, env=environment, capture_output=True, text=True)
