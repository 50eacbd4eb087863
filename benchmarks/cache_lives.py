"""A long random life of an image model: rows of any size, number of steps, level, sampler, guidance and
add-on, in company, cancelled at any point; then the same pictures as those of a fresh process, bit by bit,
and no memory more than at first.

`python -m benchmarks.cache_lives FOLDER STRATEGY` prints what a fresh process draws.
"""

from __future__ import annotations

import gc
import hashlib
import json
import random
import resource
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import astuple, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import diffusers
import torch
from safetensors.torch import save_file

from benchmarks.image_runs import EVERYTHING
from pipelines.contract import Job
from pipelines.image.folder import read_json
from pipelines.image.pipeline import ImagePipeline
from pipelines.image.settings import ImageSettings
from pipelines.image.state import state_of
from pipelines.messages import ImageRequest, JobClass

POINTS = 10
_RANK = 2


@dataclass(frozen=True, slots=True)
class Memory:
    """After some rounds: live tensors, their KiB, and MiB of the process, now and at most so far."""

    rounds: int
    tensors: int
    tensor_kib: int
    process_mib: float
    most_mib: float


class Life:
    """One loaded model with two add-ons, and the troubles it is put through."""

    def __init__(self, folder: Path, strategy: str, loras: Path) -> None:
        save_loras(folder, loras)
        files = tuple((path.stem, str(path)) for path in sorted(loras.iterdir()))
        settings = ImageSettings(step_cache=strategy, loras=files)
        self.pipeline = ImagePipeline.load(folder, name="image", settings=settings)
        assert len(self.pipeline.info.loras) == len(files)
        self.cancels = 0
        self._number = 0

    def live(self, rounds: int, seed: int = 11) -> list[Memory]:
        """So many rounds; the memory at ten points of them."""
        order, curve = random.Random(seed), []
        for number in range(1, rounds + 1):
            self._round(order)
            if number % max(1, rounds // POINTS) == 0:
                curve.append(_memory(number))
        return curve

    def probes(self) -> list[str]:
        """Digests of the latents of six pictures: each level, with add-ons and without."""
        made = []
        for level in ("off", "balanced", "fast"):
            for loras in ((), (("ink", 0.7), ("wash", -0.4))):
                request = ImageRequest(
                    "a red circle", width=64, height=64, steps=14, seed=7, cache_level=level, loras=loras
                )
                job = self._admit(request)
                while self.pipeline.ready(job):
                    for _ in self._slice([job]):
                        pass
                latents = state_of(job).latents.contiguous()
                assert torch.isfinite(latents).all()
                made.append(hashlib.sha256(latents.numpy().tobytes()).hexdigest())
                self.pipeline.release(job)
        return made

    def _round(self, order: random.Random) -> None:
        """A few rows in company; slices are cut at random points, rows leave at random moments, and none
        stays to its end but by chance."""
        jobs = [self._admit(_request(order)) for _ in range(order.randint(1, 4))]
        for _ in range(order.randint(0, 10)):
            ready = [job for job in jobs if self.pipeline.ready(job)]
            if not ready:
                break
            order.shuffle(ready)
            steps = self._slice(ready)
            for _ in range(order.choice((1, 5, 20, 10_000))):
                if next(steps, "end") == "end":
                    break
            steps.close()  # type: ignore[attr-defined]
            if order.random() < 0.2:
                self._cancel(jobs.pop(order.randrange(len(jobs))))
        for job in jobs:
            self._cancel(job)

    def _admit(self, request: ImageRequest) -> Job:
        self._number += 1
        job = Job(self._number, "image", "local", JobClass.STANDARD, request)
        self.pipeline.admit(job, self.pipeline.prepare(request, None))
        return job

    def _slice(self, jobs: list[Job]) -> Iterator[object]:
        batch = self.pipeline.plan(iter(jobs), EVERYTHING)
        assert batch is not None
        self.pipeline.observe(batch, 1.0)
        return self.pipeline.run(batch)

    def _cancel(self, job: Job) -> None:
        self.cancels += self.pipeline.ready(job)
        self.pipeline.release(job)


def save_loras(folder: Path, where: Path) -> None:
    """Two add-ons of random weights that change the queries of every attention."""
    part = "unet" if (folder / "unet").is_dir() else "transformer"
    made = getattr(diffusers, read_json(folder / "model_index.json")[part][1])
    network = made.from_config(made.load_config(folder / part))
    for number, name in enumerate(("ink", "wash")):
        noise = torch.Generator().manual_seed(number)
        tensors: dict[str, torch.Tensor] = {}
        for stem, module in network.named_modules():
            if stem.endswith("to_q"):
                out, width = module.weight.shape
                down = torch.randn((_RANK, width), generator=noise) / width**0.5
                tensors[f"{part}.{stem}.lora_A.weight"] = down
                tensors[f"{part}.{stem}.lora_B.weight"] = torch.randn((out, _RANK), generator=noise)
        save_file(tensors, where / f"{name}.safetensors")


def fresh_process(folder: Path, strategy: str) -> list[str]:
    """What `probes` says there."""
    command = [sys.executable, "-m", "benchmarks.cache_lives", str(folder), strategy]
    made = subprocess.run(command, capture_output=True, text=True, check=True, timeout=300)
    found: list[str] = json.loads(made.stdout.splitlines()[-1])
    return found


def lives_report(folder: Path, strategy: str, rounds: int) -> dict[str, Any]:
    """The curve, and of how many probes the bits are those of a fresh process."""
    wanted = fresh_process(folder, strategy)
    with TemporaryDirectory() as loras:
        life = Life(folder, strategy, Path(loras))
        curve = life.live(rounds)
        found = life.probes()
    for each in curve:
        print(f"{strategy}: {each}", flush=True)
    equal = sum(one == other for one, other in zip(found, wanted, strict=True))
    print(f"{strategy}: {life.cancels} cancels; {equal} of {len(wanted)} as in a fresh process", flush=True)
    return {
        "strategy": strategy,
        "rounds": rounds,
        "cancels": life.cancels,
        "equal_to_a_fresh_process": f"{equal} of {len(wanted)}",
        "curve": [list(astuple(each)) for each in curve],
        "columns": list(Memory.__dataclass_fields__),
    }


def _request(order: random.Random) -> ImageRequest:
    loras = tuple((name, order.choice((0.5, 1.0, -0.7))) for name in ("ink", "wash") if order.random() < 0.3)
    return ImageRequest(
        order.choice(("red", "a blue ball", "x" * 30)),
        width=order.choice((64, 96)),
        height=order.choice((64, 96)),
        steps=order.randint(1, 16),
        guidance=order.choice((1.0, 4.0)),
        seed=order.randint(0, 9),
        scheduler=order.choice(("", "euler", "dpmpp_2m")),
        cache_level=order.choice(("off", "balanced", "fast")),
        preview_every=order.choice((0, 2)),
        loras=loras,
    )


def _memory(rounds: int) -> Memory:
    gc.collect()
    found = [each for each in gc.get_objects() if type(each) is torch.Tensor]
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return Memory(
        rounds,
        len(found),
        sum(each.numel() * each.element_size() for each in found) // 1024,
        round(pages * resource.getpagesize() / 2**20, 1),
        round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, 1),
    )


def main() -> None:
    """A fresh process: its probes as one line of JSON."""
    torch.set_num_threads(1)
    with torch.inference_mode(), TemporaryDirectory() as loras:
        print(json.dumps(Life(Path(sys.argv[1]), sys.argv[2], Path(loras)).probes()))


if __name__ == "__main__":
    main()
