"""Other people's caches on the same folder, prompts and seeds: the DeepCache package (pip install
'upbeat[benchmarks]') and those of diffusers, each where it runs on the model.

All keep their state on the network, so a pipeline is loaded anew for each, and that state is reset after
every picture. What a cache wants to be told and diffusers' pipelines of these models do not tell (the step,
its time, its noise) is told by a hook before each call; MagCache's ratios are calibrated as it asks.
"""

from __future__ import annotations

import ast
import importlib
import io
import time
from collections.abc import Callable, Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import diffusers
import torch
from diffusers import DiffusionPipeline

from pipelines.image.folder import be_quiet

UNFIT = (RuntimeError, ValueError, TypeError, LookupError, AttributeError, ImportError, AssertionError)
"""What a peer may raise on a model that it was not made for."""
_BLOCKS = [r".*resnets\.\d+", r".*transformer_blocks\.\d+"]


@dataclass(slots=True)
class Watched:
    """A diffusers pipeline whose network's calls are watched. rows: that ran through its deepest part."""

    pipeline: Any
    steps: int
    step: int = 0
    time: int = 999
    rows: int = 0
    inputs: int = 0

    @property
    def network(self) -> Any:
        """The U-Net or transformer."""
        return self.pipeline.unet if hasattr(self.pipeline, "unet") else self.pipeline.transformer

    def watch(self) -> None:
        """Counts from now on, and tells the caches where the loop is."""
        network = self.network
        deepest = (
            network.mid_block.resnets[0].conv1
            if hasattr(network, "mid_block")
            else network.transformer_blocks[-1].ff
        )
        deepest.register_forward_pre_hook(self._ran)
        network.register_forward_pre_hook(self._tell)

    def _ran(self, _module: Any, args: tuple[Any, ...]) -> None:
        self.rows += len(args[0])

    def _tell(self, network: Any, args: tuple[Any, ...]) -> None:
        hooks = importlib.import_module("diffusers.hooks.hooks")
        self.inputs = max(self.inputs, len(args[0]))
        scheduler = self.pipeline.scheduler
        self.time = int(scheduler.timesteps[self.step % self.steps])
        signal = float(scheduler.alphas_cumprod[self.time]) ** 0.5
        noise = (1 - signal**2) ** 0.5
        context = hooks.CacheContext(
            "both", self.step % self.steps, self.steps, self.time, noise / (noise + signal)
        )
        hooks._set_cache_context(network, context)
        self.step += 1

    def forget(self) -> None:
        """After a picture."""
        hooks = importlib.import_module("diffusers.hooks")
        hooks.HookRegistry.check_if_exists_or_initialize(self.network).reset_stateful_hooks()


@dataclass(frozen=True, slots=True)
class Peer:
    """One cache at one setting. enable: switches it on."""

    name: str
    enable: Callable[[Watched], None]


@dataclass(frozen=True, slots=True)
class PeerResult:
    """latents (n, ...), evaluations a picture and the seconds of one thread that all took; or why it does not
    run here."""

    latents: torch.Tensor | None = None
    evaluations: float = 0.0
    seconds: list[float] = field(default_factory=list)
    reason: str = ""


def deepcache(branch: int, interval: int) -> Callable[[Watched], None]:
    """A full evaluation at each `interval` steps."""

    def enable(watched: Watched) -> None:
        helper = importlib.import_module("DeepCache").DeepCacheSDHelper(pipe=watched.pipeline)
        helper.set_params(cache_interval=interval, cache_branch_id=branch)
        helper.enable()

    return enable


def _hooked(function: str, config: str, **options: Any) -> Callable[[Watched], None]:
    """A cache of `diffusers.hooks`. `steps`, `time` and `latents` among the options are filled in."""

    def enable(watched: Watched) -> None:
        filled = dict(options)
        if filled.pop("time", False):
            filled["current_timestep_callback"] = lambda: watched.time
        if filled.pop("latents", False):
            filled["raw_vision_callback"] = lambda _network, args, _kwargs: [
                each[:, None] for each in args[0]
            ]
        if filled.pop("steps", False):
            filled["num_inference_steps"] = watched.steps
        hooks = importlib.import_module("diffusers.hooks")
        getattr(hooks, function)(watched.network, getattr(diffusers, config)(**filled))

    return enable


def _first_block(threshold: float) -> Callable[[Watched], None]:
    return _hooked("apply_first_block_cache", "FirstBlockCacheConfig", threshold=threshold)


def _taylor(interval: int, **options: Any) -> Callable[[Watched], None]:
    return _hooked(
        "apply_taylorseer_cache",
        "TaylorSeerCacheConfig",
        cache_interval=interval,
        taylor_factors_dtype=torch.float32,
        **options,
    )


def _sea(threshold: float) -> Callable[[Watched], None]:
    return _hooked("apply_sea_cache", "SeaCacheConfig", latents=True, threshold=threshold)


def _mag(threshold: float) -> Callable[[Watched], None]:
    """With ratios of the model's own, averaged over four pictures."""

    def enable(watched: Watched) -> None:
        calibrating = _hooked("apply_mag_cache", "MagCacheConfig", steps=True, calibrate=True)
        calibrating(watched)
        printed = io.StringIO()
        with redirect_stdout(printed):
            for seed, caption in enumerate(("a red circle", "a blue square", "a green star", "two rings")):
                _draw(watched, caption, 2.0, 70_000 + seed)
        lists = [ast.literal_eval(line) for line in printed.getvalue().splitlines() if line.startswith("[1")]
        if not lists:
            raise ValueError("MagCache attaches to nothing of this network")
        ratios = [sum(column) / len(lists) for column in zip(*lists, strict=True)]
        _hooked("apply_mag_cache", "MagCacheConfig", steps=True, threshold=threshold, mag_ratios=ratios)(
            watched
        )

    return enable


_FASTER = _hooked("apply_faster_cache", "FasterCacheConfig", time=True, tensor_format="BCHW")
_PYRAMID = _hooked(
    "apply_pyramid_attention_broadcast",
    "PyramidAttentionBroadcastConfig",
    time=True,
    spatial_attention_block_skip_range=2,
    cross_attention_block_skip_range=3,
)
_COMMON = (
    Peer("FasterCache", _FASTER),
    Peer("PyramidAttentionBroadcast 2, 3", _PYRAMID),
)
_UNET = (
    Peer("DeepCache 0.1.1, interval 2, branch 0", deepcache(0, 2)),
    Peer("DeepCache 0.1.1, interval 3, branch 0", deepcache(0, 3)),
    Peer("DeepCache 0.1.1, interval 3, branch 3", deepcache(3, 3)),
    Peer("TaylorSeer of layers, interval 2", _taylor(2, cache_identifiers=_BLOCKS)),
    Peer("TaylorSeer of layers, interval 3", _taylor(3, cache_identifiers=_BLOCKS)),
    Peer("FirstBlockCache 0.08", _first_block(0.08)),
    Peer("MagCache 0.06", _mag(0.06)),
    Peer("SeaCache 0.25", _sea(0.25)),
    *_COMMON,
)
_TRANSFORMER = (
    Peer("FirstBlockCache 0.08", _first_block(0.08)),
    Peer("FirstBlockCache 0.16", _first_block(0.16)),
    Peer("TaylorSeer of layers, interval 2", _taylor(2, cache_identifiers=_BLOCKS)),
    Peer("TaylorSeer of layers, interval 3", _taylor(3, cache_identifiers=_BLOCKS)),
    Peer("TaylorSeer lite, interval 2", _taylor(2, use_lite_mode=True)),
    Peer("TaylorSeer lite, interval 3", _taylor(3, use_lite_mode=True)),
    Peer("MagCache 0.06", _mag(0.06)),
    Peer("MagCache 0.12", _mag(0.12)),
    Peer("SeaCache 0.25", _sea(0.25)),
    Peer("DeepCache 0.1.1, interval 3, branch 0", deepcache(0, 3)),
    *_COMMON,
)


def peers_of(folder: Path) -> tuple[Peer, ...]:
    """Those that may run on a model of this folder, and those that say why not."""
    return _UNET if (folder / "unet").is_dir() else _TRANSFORMER


def run_peer(
    peer: Peer | None, folder: Path, captions: Sequence[str], steps: int, guidance: float
) -> PeerResult:
    """Draws the captions one by one, picture i with seed i; without a peer as diffusers does it."""
    be_quiet()
    pipeline = DiffusionPipeline.from_pretrained(folder, dtype=torch.float32)
    pipeline.set_progress_bar_config(disable=True)
    watched, drawn, seconds = Watched(pipeline, steps), [], []
    watched.watch()
    try:
        if peer is not None:
            peer.enable(watched)
        watched.rows = watched.step = 0
        for seed, caption in enumerate(captions):
            begin = time.thread_time()
            drawn.append(_draw(watched, caption, guidance, seed))
            seconds.append(time.thread_time() - begin)
        evaluations = watched.rows / watched.inputs / len(captions)
        return PeerResult(torch.cat(drawn), evaluations, seconds)
    except UNFIT as error:
        return PeerResult(reason=f"{type(error).__name__}: {error}".splitlines()[0][:160])


def _draw(watched: Watched, caption: str, guidance: float, seed: int) -> torch.Tensor:
    options: dict[str, Any] = {}
    if hasattr(watched.pipeline, "transformer"):  # PixArt's, which would else ask for one of its own sizes
        tokens = watched.pipeline.tokenizer.model_max_length
        options = {"use_resolution_binning": False, "clean_caption": False, "max_sequence_length": tokens}
    made = watched.pipeline(
        caption,
        num_inference_steps=watched.steps,
        guidance_scale=guidance,
        generator=torch.Generator().manual_seed(seed),
        output_type="latent",
        **options,
    )
    watched.forget()
    latents: torch.Tensor = made.images
    return latents
