"""Which of the loaded models a request means."""

from __future__ import annotations

from pipelines.errors import DeviceLost, NotFound, Unsupported
from pipelines.messages import ModelInfo

MODALITIES = ("text", "speech", "image", "transcription")


def resolve(models: tuple[ModelInfo, ...], modality: str, name: str, field: str) -> ModelInfo:
    """The model `name` of that modality; the first one if `name` is empty.

    Raises: NotFound for an unknown name, Unsupported if nothing of the modality is loaded, DeviceLost while
    nothing at all is.
    """
    if not models:
        raise DeviceLost("the models are still being loaded", retry_after_s=5.0)
    offered = [model for model in models if model.modality == modality]
    if name:
        for model in offered:
            if model.name == name:
                return model
        known = ", ".join(model.name for model in offered) or "none"
        raise NotFound(f"no {modality} model is called {name!r}; loaded: {known}", field=field)
    if not offered:
        raise Unsupported(f"this server has no {modality} model loaded", field=field)
    return offered[0]


def default_names(models: tuple[ModelInfo, ...]) -> frozenset[str]:
    """The names that an empty name means, one a modality."""
    first: dict[str, str] = {}
    for model in models:
        first.setdefault(model.modality, model.name)
    return frozenset(first.values())
