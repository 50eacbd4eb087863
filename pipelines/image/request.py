"""What a client asks for, checked and filled in: `ImagePlan`. Fields are named as on the wire."""

from __future__ import annotations

import math
import threading
from dataclasses import dataclass

from pipelines.contract import ByteArray
from pipelines.errors import InvalidRequest, NotFound, Unsupported
from pipelines.image.backbones.base import Pass
from pipelines.image.loader import Components
from pipelines.image.lora import Weights
from pipelines.image.reference import decode_reference
from pipelines.image.settings import ImageSettings
from pipelines.image.step_cache.levels import CACHE_LEVELS
from pipelines.limits import (
    MAX_GUIDANCE,
    MAX_LORA_WEIGHT,
    MAX_LORAS,
    MAX_PREVIEW_MS,
    MAX_STEPS,
    MIMES,
    MIN_SIDE,
)
from pipelines.messages import ImageRequest


@dataclass(frozen=True, slots=True)
class ImagePlan:
    """A request with nothing left open. Sizes in pixels. passes: one (the prompt) or, with
    classifier-free guidance, two (negative prompt, prompt). init: pixels to start from, of which `strength`
    (above 0, at most 1) may change."""

    width: int
    height: int
    steps: int
    guidance: float
    seed: int
    sampler: str
    preview_every: int
    passes: tuple[Pass, ...]
    may_lower: bool = False
    loras: Weights = ()
    init: ByteArray | None = None
    strength: float = 1.0
    cache_level: str = "off"

    @property
    def guided(self) -> bool:
        """Whether an evaluation takes two passes' worth of inputs."""
        return len(self.passes) == 2


class Checker:
    """Validates and tokenises; may be called from several threads."""

    def __init__(self, parts: Components, settings: ImageSettings) -> None:
        self._backbone = parts.backbone
        self._one_at_a_time = threading.Lock()  # padding and truncation are state of the tokenizer
        self._defaults = parts.defaults
        self._multiple = parts.multiple
        self._own_size = parts.own_size
        self._sampling = parts.sampling
        self._max_side = min(settings.max_side, parts.largest or settings.max_side)
        self._lora_names = parts.loras.names
        self._settings = settings

    def plan(self, request: ImageRequest) -> ImagePlan:
        """Raises: InvalidRequest naming the field and its limit, Unsupported naming the option."""
        _between("image.preview_every", request.preview_every, 0, MAX_STEPS, "0 for none")
        _between("image.preview_ms", request.preview_ms, 0, MAX_PREVIEW_MS, "0 for as often as asked for")
        _between("image.quality", request.quality, 1, 100, "")
        _between("image.seed", request.seed, 0, 2**64 - 1, "")
        if not (math.isfinite(request.guidance) and 0 <= request.guidance <= MAX_GUIDANCE):
            raise InvalidRequest(
                "image.guidance",
                f"a number from 0 (the model's default) to {MAX_GUIDANCE:g}, not {request.guidance}",
            )
        _one_of("image.mime", request.mime, MIMES)
        _one_of("image.scheduler", request.scheduler, ("", *self._sampling.names))
        most = self._sampling.most_steps(request.scheduler, MAX_STEPS)
        _between("image.steps", request.steps, 0, most, "0 for the default")
        _one_of("image.cache_level", request.cache_level, CACHE_LEVELS)
        guidance = request.guidance or self._defaults.guidance
        width = self._side("image.width", request.width, self._own_size[0])
        height = self._side("image.height", request.height, self._own_size[1])
        texts = self._texts(request, guided=self._backbone.guided(guidance))
        init = self._reference("image.init_image", request.init_image, width, height, request.strength)
        control = self._control(request, width, height)
        with self._one_at_a_time:
            prompts = self._backbone.tokenize(texts)
        return ImagePlan(
            width=width,
            height=height,
            steps=request.steps or min(most, self._defaults.steps),
            guidance=guidance,
            seed=request.seed,
            sampler=request.scheduler,
            preview_every=request.preview_every,
            passes=tuple(
                Pass(prompt, width, height, guidance, not text, control, request.control_strength)
                for prompt, text in zip(prompts, texts, strict=True)
            ),
            may_lower=request.allow_lower_quality,
            loras=self._loras(request.loras),
            init=init,
            strength=request.strength,
            cache_level=request.cache_level,
        )

    def _loras(self, asked: tuple[tuple[str, float], ...]) -> Weights:
        """Sorted, so that the order asked for changes no bit; those of weight 0 are none."""
        _between("image.loras", len(asked), 0, MAX_LORAS, "add-ons")
        names = [name for name, _ in asked]
        for index, (name, weight) in enumerate(asked):
            if name not in self._lora_names:
                known = ", ".join(self._lora_names) or "none"
                raise NotFound(
                    f"image.loras[{index}].name: no add-on {name!r}; loaded: {known}",
                    field=f"image.loras[{index}].name",
                )
            if name in names[:index]:
                raise InvalidRequest(f"image.loras[{index}].name", f"{name!r} is named twice")
            if not (math.isfinite(weight) and abs(weight) <= MAX_LORA_WEIGHT):
                raise InvalidRequest(
                    f"image.loras[{index}].weight",
                    f"{-MAX_LORA_WEIGHT:g} to {MAX_LORA_WEIGHT:g}, not {weight:g}",
                )
        return tuple(sorted((name, weight) for name, weight in asked if weight))

    def _control(self, request: ImageRequest, width: int, height: int) -> ByteArray | None:
        if request.control_image and self._backbone.control is None:
            raise Unsupported(
                "image.control_image: this model has no ControlNet", field="image.control_image"
            )
        return self._reference(
            "image.control_image", request.control_image, width, height, request.control_strength
        )

    def _reference(
        self, field: str, data: bytes, width: int, height: int, strength: float
    ) -> ByteArray | None:
        """Pixels of the size drawn, None where there is no image."""
        if not data:
            return None
        if not (math.isfinite(strength) and 0 < strength <= 1):
            raise InvalidRequest(f"{field}.strength", f"above 0 and at most 1, not {strength:g}")
        return decode_reference(data, f"{field}.data", width, height)

    def _side(self, field: str, asked: int, own: int) -> int:
        if asked == 0:
            return own
        multiple, high = self._multiple, self._max_side
        low = math.ceil(MIN_SIDE / multiple) * multiple
        if not low <= asked <= high or asked % multiple:
            raise InvalidRequest(
                field, f"0 (the model's own) or {low} to {high} in multiples of {multiple}, not {asked}"
            )
        return asked

    def _texts(self, request: ImageRequest, guided: bool) -> list[str]:
        """Those of the passes, in their order."""
        limit = self._settings.max_characters
        for field, text in (
            ("image.prompt", request.prompt),
            ("image.negative_prompt", request.negative_prompt),
        ):
            if len(text) > limit:
                raise InvalidRequest(field, f"at most {limit} characters, not {len(text)}")
        if request.negative_prompt and not self._backbone.takes_negative:
            raise Unsupported("image.negative_prompt: this model takes none", field="image.negative_prompt")
        if not request.prompt.strip():
            raise InvalidRequest("image.prompt", "at least one character that is no space")
        return [request.negative_prompt, request.prompt] if guided else [request.prompt]


def _between(field: str, value: int, low: int, high: int, note: str) -> None:
    if not low <= value <= high:
        raise InvalidRequest(field, f"{low} to {high}{f' ({note})' if note else ''}, not {value}")


def _one_of(field: str, value: str, known: tuple[str, ...]) -> None:
    if value not in known:
        names = ", ".join(repr(name) for name in known)
        raise InvalidRequest(field, f"one of {names}, not {value!r}")
