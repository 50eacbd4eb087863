"""A tiny random model in Stable Diffusion's layout, and a driver that runs jobs as an executor would."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import pytest
import torch
from diffusers import (
    AutoencoderKL,
    DDIMScheduler,
    DiffusionPipeline,
    StableDiffusionPipeline,
    UNet2DConditionModel,
)
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from pipelines.contract import Batch, Budget, Emission, Job
from pipelines.image.pipeline import ImagePipeline
from pipelines.image.settings import ImageSettings
from pipelines.image.state import state_of
from pipelines.messages import ImageRequest, JobClass
from tests.pipelines.image.families import CASES
from tests.pipelines.image.tiny import enliven

torch.set_num_threads(1)
TOKENS = 16
WIDTH = 32


def _tokenizer(folder: Path) -> CLIPTokenizer:
    folder.mkdir(parents=True)
    letters = [chr(code) for code in range(33, 127)]
    vocab = [*letters, *(letter + "</w>" for letter in letters), "re", "red</w>"]
    vocab += ["<|startoftext|>", "<|endoftext|>"]
    (folder / "vocab.json").write_text(json.dumps({token: i for i, token in enumerate(vocab)}))
    (folder / "merges.txt").write_text("#version: 0.2\nr e\nre d</w>\n")
    end = "<|endoftext|>"
    return CLIPTokenizer.from_pretrained(
        folder,
        model_max_length=TOKENS,
        pad_token=end,
        unk_token=end,
        bos_token="<|startoftext|>",
        eos_token=end,
    )


def _text_encoder(tokenizer: CLIPTokenizer) -> CLIPTextModel:
    return CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(tokenizer),
            hidden_size=WIDTH,
            intermediate_size=64,
            num_hidden_layers=2,
            num_attention_heads=2,
            max_position_embeddings=TOKENS,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )


def _unet() -> UNet2DConditionModel:
    return UNet2DConditionModel(
        sample_size=16,
        block_out_channels=(16, 32),
        layers_per_block=1,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        cross_attention_dim=WIDTH,
        attention_head_dim=4,
        norm_num_groups=8,
    )


def _vae() -> AutoencoderKL:
    return AutoencoderKL(
        block_out_channels=(8, 16, 16, 16),
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        layers_per_block=1,
        norm_num_groups=8,
        sample_size=128,
    )


def make_folder(folder: Path, prediction_type: str = "epsilon", unet: Any = None, vae: Any = None) -> Path:
    """Writes a whole model, float32, from a fixed seed; tiny but for the networks that are given."""
    torch.manual_seed(0)
    tokenizer = _tokenizer(folder / "tokenizer")
    pipeline = StableDiffusionPipeline(
        unet=unet or _unet(),
        vae=vae or _vae(),
        text_encoder=_text_encoder(tokenizer),
        tokenizer=tokenizer,
        scheduler=DDIMScheduler(
            beta_start=0.00085,
            beta_end=0.012,
            beta_schedule="scaled_linear",
            clip_sample=False,
            set_alpha_to_one=False,
            steps_offset=1,
            prediction_type=prediction_type,
        ),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipeline.save_pretrained(folder)
    (folder / "upbeat.json").write_text('{"steps": 6, "guidance": 4.0}')
    return folder


class Driver:
    """Runs jobs on one pipeline, one slice at a time, and keeps what they emitted."""

    def __init__(self, pipeline: ImagePipeline) -> None:
        self.pipeline = pipeline
        self.emitted: dict[int, list[Any]] = {}
        self.latents: dict[int, torch.Tensor] = {}
        self._live: list[Job] = []

    def admit(self, prompt: str = "a red circle", **options: Any) -> Job:
        """A new job for this prompt."""
        request = ImageRequest(prompt=prompt, **options)
        number = len(self.emitted) + 1
        job = Job(number, self.pipeline.info.name, "local", JobClass.STANDARD, request)
        self.pipeline.admit(job, self.pipeline.prepare(request, None))
        self.emitted[job.id] = []
        self._live.append(job)
        return job

    def release(self, *jobs: Job) -> None:
        """These jobs, or all that are left."""
        for job in jobs or tuple(self._live):
            self._live.remove(job)
            self.pipeline.release(job)

    def batch(self, kind: str, *jobs: Job) -> Batch:
        """A batch of just these rows."""
        return Batch(self.pipeline.info.name, kind, jobs, float(len(jobs)))

    def slice(self, kind: str, *jobs: Job) -> None:
        """One slice, run through."""
        self.keep(self.pipeline.run(self.batch(kind, *jobs)))
        for job in jobs:
            self.latents[job.id] = state_of(job).latents.clone()

    def keep(self, steps: Iterable[Emission | None]) -> None:
        """Take what is left of a slice."""
        for step in steps:
            if step is not None:
                self.emitted[step.job.id].append(step.chunk)

    def finish(self, *jobs: Job) -> None:
        """Each on its own, to the end."""
        for job in jobs:
            while self.pipeline.ready(job):
                self.slice(state_of(job).phase, job)

    def together(self, *jobs: Job, budget: Budget | None = None) -> list[tuple[str, int]]:
        """As the pipeline plans it, to the end; returns kind and rows of each slice."""
        seen = []
        while waiting := [job for job in jobs if self.pipeline.ready(job)]:
            batch = self.pipeline.plan(iter(waiting), budget or Budget(1e9, 25))
            assert batch is not None
            seen.append((batch.kind, len(batch.rows)))
            self.slice(batch.kind, *batch.rows)
            self.pipeline.observe(batch, 1.0)
        return seen

    def image(self, job: Job) -> np.ndarray[Any, np.dtype[np.uint8]]:
        """The final picture."""
        pictures = [chunk for chunk in self.emitted[job.id] if getattr(chunk, "final", False)]
        assert len(pictures) == 1
        pixels: np.ndarray[Any, np.dtype[np.uint8]] = pictures[0].pixels
        return pixels


@pytest.fixture(scope="session")
def folder_maker() -> Callable[..., Path]:
    """(folder, prediction_type, unet, vae) to a folder in Stable Diffusion's layout."""
    return make_folder


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that predicts noise."""
    return make_folder(tmp_path_factory.mktemp("image") / "tiny")


@pytest.fixture(scope="session")
def velocity_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that predicts velocity."""
    return make_folder(tmp_path_factory.mktemp("image") / "velocity", "v_prediction")


@pytest.fixture(scope="session")
def loaded(folder: Path) -> ImagePipeline:
    """Shared: jobs are the tests' own."""
    return ImagePipeline.load(folder, name="tiny", settings=ImageSettings(max_side=256))


@pytest.fixture
def driver_of() -> Iterator[Callable[[ImagePipeline], Driver]]:
    """Makes drivers, whose jobs are released at the end."""
    made: list[Driver] = []

    def make(pipeline: ImagePipeline) -> Driver:
        made.append(Driver(pipeline))
        return made[-1]

    yield make
    for driver in made:
        driver.release()


@pytest.fixture
def driver(loaded: ImagePipeline, driver_of: Callable[[ImagePipeline], Driver]) -> Driver:
    """A driver of the shared pipeline."""
    return driver_of(loaded)


@pytest.fixture(scope="session")
def folders(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """A family's folder, made once."""
    tokenizer = CLIPTokenizer.from_pretrained(folder / "tokenizer", local_files_only=True)
    where = tmp_path_factory.mktemp("families")

    def make(name: str) -> Path:
        if not (where / name).is_dir():
            class_name, parts, _ = CASES[name]
            torch.manual_seed(0)
            pipeline = getattr(diffusers, class_name)(**parts(tokenizer))
            for module in pipeline.components.values():
                if isinstance(module, torch.nn.Module):
                    enliven(module)
            pipeline.save_pretrained(where / name)
        return where / name

    return make


@pytest.fixture(scope="session")
def pipelines(folders: Callable[[str], Path]) -> Callable[[str], ImagePipeline]:
    """A family's pipeline, loaded once."""
    made: dict[str, ImagePipeline] = {}

    def load(name: str) -> ImagePipeline:
        if name not in made:
            made[name] = ImagePipeline.load(folders(name), name=name, settings=ImageSettings(max_side=96))
        return made[name]

    return load


@pytest.fixture(scope="session")
def diffusers_latents() -> Callable[..., torch.Tensor]:
    """(folder, scheduler class, scheduler changes, prompt, **call options) to diffusers' own latents."""

    def run(folder: Path, scheduler: Any, changes: dict[str, Any], prompt: str, **call: Any) -> torch.Tensor:
        pipeline = DiffusionPipeline.from_pretrained(folder, safety_checker=None, torch_dtype=torch.float32)
        pipeline.scheduler = scheduler.from_config(pipeline.scheduler.config, **changes)
        pipeline.set_progress_bar_config(disable=True)
        seed = call.pop("seed")
        generator = torch.Generator().manual_seed(seed)
        latents: torch.Tensor = pipeline(prompt, generator=generator, output_type="latent", **call).images
        return latents

    return run
