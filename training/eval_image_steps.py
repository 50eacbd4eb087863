"""What fewer steps lose, without any cache: the yardstick for every cache.

The same noise is denoised in fewer steps with the folder's own scheduler and with DPM-Solver++(2M) (Lu et al.
2022), and compared with DPM-Solver++'s solution in 200 steps.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from diffusers import DPMSolverMultistepScheduler

from training.image_checker import check
from training.image_drawing import Pictures, draw
from training.image_quality import psnr, ssim
from training.image_scene import Scene

STEPS: Final = (50, 28, 16, 12, 8)
_EXACT: Final = 200


def steps_table(pipeline: Any, asked: Sequence[tuple[Scene, str]], guidance: float) -> str:
    """PSNR and SSIM of pictures (means) and the share that the checker calls right, one line a run."""
    texts, scenes = [text for _, text in asked], [scene for scene, _ in asked]
    own = pipeline.scheduler
    solver = DPMSolverMultistepScheduler.from_config(own.config, algorithm_type="dpmsolver++", solver_order=2)
    pipeline.scheduler = solver
    exact = draw(pipeline, texts, guidance, _EXACT)
    lines = [f"steps against {_EXACT}, {len(texts)} captions", f"{_EXACT:4d} exact {_right(exact, scenes)}"]
    for name, scheduler in (("own", own), ("dpm++", solver)):
        pipeline.scheduler = scheduler
        for steps in STEPS:
            pictures = draw(pipeline, texts, guidance, steps)
            closeness = f"{psnr(pictures, exact).mean():5.1f} dB  SSIM {ssim(pictures, exact).mean():.3f}"
            lines.append(f"{steps:4d} {name:5s} {closeness}  {_right(pictures, scenes)}")
    pipeline.scheduler = own
    return "\n".join(lines)


def _right(pictures: Pictures, scenes: Sequence[Scene]) -> str:
    right = sum(check(picture, scene).objects for picture, scene in zip(pictures, scenes, strict=True))
    return f"checker {right} of {len(scenes)}"
