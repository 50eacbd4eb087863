"""Other people's caches on the same folder, prompts and seeds: the DeepCache package (pip install
'upbeat[benchmarks]') and those of diffusers, each where it runs on the model.

All keep their state on the network, so a pipeline is loaded anew for each.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import diffusers
import torch
from diffusers import DiffusionPipeline

UNFIT = (RuntimeError, ValueError, TypeError, LookupError, AttributeError, ImportError, AssertionError)
"""What a peer may raise on a model that it was not made for."""


@dataclass(frozen=True, slots=True)
class Peer:
    """One cache at one setting. enable: switches it on for a pipeline; interval: of full evaluations."""

    name: str
    enable: Callable[[Any, int], None]


@dataclass(frozen=True, slots=True)
class PeerResult:
    """latents (n, ...) and the seconds that all took; or why it does not run here."""

    latents: torch.Tensor | None
    seconds: float
    reason: str = ""


def network_of(pipeline: Any) -> Any:
    """The U-Net or transformer."""
    return pipeline.unet if hasattr(pipeline, "unet") else pipeline.transformer


def _deepcache(branch: int, interval: int) -> Callable[[Any, int], None]:
    def enable(pipeline: Any, _steps: int) -> None:
        helper = importlib.import_module("DeepCache").DeepCacheSDHelper(pipe=pipeline)
        helper.set_params(cache_interval=interval, cache_branch_id=branch)
        helper.enable()

    return enable


def _hooked(function: str, config: str, **options: Any) -> Callable[[Any, int], None]:
    """A cache of `diffusers.hooks`; `steps` and `time` among the options are filled in."""

    def enable(pipeline: Any, steps: int) -> None:
        filled = dict(options)
        if filled.pop("time", False):
            filled["current_timestep_callback"] = lambda: _time(pipeline)
        if filled.pop("steps", False):
            filled["num_inference_steps"] = steps
        hooks = importlib.import_module("diffusers.hooks")
        getattr(hooks, function)(network_of(pipeline), getattr(diffusers, config)(**filled))

    return enable


def _time(pipeline: Any) -> int:
    time = getattr(pipeline, "_current_timestep", None)
    return 999 if time is None else int(time)


PEERS: tuple[Peer, ...] = (
    Peer("DeepCache 0.1.1, interval 3, branch 0", _deepcache(0, 3)),
    Peer("DeepCache 0.1.1, interval 2, branch 0", _deepcache(0, 2)),
    Peer("DeepCache 0.1.1, interval 3, branch 3", _deepcache(3, 3)),
    Peer("FirstBlockCache 0.08", _hooked("apply_first_block_cache", "FirstBlockCacheConfig", threshold=0.08)),
    Peer(
        "TaylorSeer, interval 3", _hooked("apply_taylorseer_cache", "TaylorSeerCacheConfig", cache_interval=3)
    ),
    Peer("MagCache 0.06", _hooked("apply_mag_cache", "MagCacheConfig", steps=True)),
    Peer("SeaCache 0.25", _hooked("apply_sea_cache", "SeaCacheConfig")),
    Peer(
        "FasterCache",
        _hooked("apply_faster_cache", "FasterCacheConfig", time=True, tensor_format="BCHW"),
    ),
    Peer(
        "PyramidAttentionBroadcast",
        _hooked(
            "apply_pyramid_attention_broadcast",
            "PyramidAttentionBroadcastConfig",
            time=True,
            spatial_attention_block_skip_range=2,
            cross_attention_block_skip_range=3,
        ),
    ),
)


def run_peer(
    peer: Peer | None, folder: Path, captions: Sequence[str], steps: int, guidance: float
) -> PeerResult:
    """Draws the captions one by one, picture i with seed i; without a peer as diffusers does it."""
    import time

    pipeline = DiffusionPipeline.from_pretrained(folder, dtype=torch.float32)
    pipeline.set_progress_bar_config(disable=True)
    drawn: list[torch.Tensor] = []
    try:
        if peer is not None:
            peer.enable(pipeline, steps)
        begin = time.perf_counter()
        for seed, caption in enumerate(captions):
            made = pipeline(
                caption,
                num_inference_steps=steps,
                guidance_scale=guidance,
                generator=torch.Generator().manual_seed(seed),
                output_type="latent",
            )
            drawn.append(made.images)
            registry = getattr(network_of(pipeline), "_diffusers_hook", None)
            if registry is not None:
                registry.reset_stateful_hooks()
        return PeerResult(torch.cat(drawn), time.perf_counter() - begin)
    except UNFIT as error:
        return PeerResult(None, 0.0, f"{type(error).__name__}: {error}".splitlines()[0][:160])
