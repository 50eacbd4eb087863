"""Loads the pipelines that a device serves: given folders, or the embedded models.

Runs in the device process alone; the pipelines' own modules (and torch with them) are imported here, late.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from pipelines.contract import Pipeline
from pipelines.errors import InvalidRequest, ModelBroken, Unsupported

EMBEDDED = Path(__file__).parent.parent / "models"
EMBEDDED_DRAFT = "upbeat-text-draft"
NO_DRAFT = "none"
PACKAGED_RECOGNISER = "moonshine-tiny-en"
EMBEDDED_IMAGES = ("upbeat-image-unet", "upbeat-image-dit")


@dataclass(frozen=True, slots=True)
class LoadPlan:
    """Folders ("" or none for the embedded models, the recogniser's from a package; no thinker where there is
    none) and the limits that pipelines keep. draft: of the text model's draft model; "" for the embedded
    one where the text model is embedded, else none; NO_DRAFT for none."""

    text: str = ""
    draft: str = ""
    thinker: str = ""
    images: tuple[str, ...] = ()
    loras: Mapping[str, str] = field(default_factory=dict)
    speech: str = ""
    recogniser: str = ""
    transcription: bool = True
    device: str = "cpu"
    dtype: str = "float32"
    weights: str = ""
    kv_tokens: int = 0
    max_jobs: int = 64
    max_image_side: int = 1024
    decoders: int = 4


def load_all(plan: LoadPlan, progress: Callable[[str], None] = lambda _: None) -> dict[str, Pipeline]:
    """Every pipeline by name. Raises: ModelBroken or Unsupported, naming folder and file."""
    loaders: list[tuple[str, Callable[[], Pipeline]]] = [
        ("text", lambda: _text(plan, plan.text, draft_of(plan))),
        *((("thinker", lambda: _text(plan, plan.thinker, "")),) if plan.thinker else ()),
        ("speech", lambda: _speech(plan)),
        *(("images", functools.partial(_image, plan, folder)) for folder in image_folders(plan.images)),
    ]
    if plan.transcription:
        loaders.append(("transcription", lambda: _transcription(plan)))
    pipelines: dict[str, Pipeline] = {}
    for modality, load in loaders:
        progress(modality)
        try:
            pipeline = load()
        except (MemoryError, RuntimeError) as error:
            if not _is_short_of_memory(error):
                raise
            words = "the device has no memory for it; device.kv_tokens says what the text model keeps"
            raise ModelBroken(
                f"{modality}: {words} ({(str(error) or 'MemoryError').splitlines()[0]})"
            ) from error
        name = pipeline.info.name
        if name in pipelines:
            raise InvalidRequest(f"device.{modality}", f"another model has the same folder name {name!r}")
        pipelines[name] = pipeline
    _check_loras(plan, pipelines.values())
    return pipelines


def _is_short_of_memory(error: Exception) -> bool:
    """On a CPU torch says so in words alone."""
    words = str(error).lower()
    return isinstance(error, MemoryError) or ("memory" in words and "allocate" in words)


def folder_of(given: str, embedded: str) -> Path:
    """The given folder, or the embedded model's. Raises: ModelBroken where there is none."""
    folder = Path(given).expanduser() if given else EMBEDDED / embedded
    if not folder.is_dir():
        raise ModelBroken(f"{folder}: there is no such model folder")
    return folder


def draft_of(plan: LoadPlan) -> str:
    """The draft model's folder, "" for none. Raises: ModelBroken where the given one is not there."""
    if plan.draft == NO_DRAFT or (plan.text and not plan.draft):
        return ""
    return str(folder_of(plan.draft, EMBEDDED_DRAFT))


def _text(plan: LoadPlan, given: str, draft: str) -> Pipeline:
    from pipelines.text.pipeline import TextPipeline
    from pipelines.text.settings import TextSettings

    folder = folder_of(given, "upbeat-text")
    try:
        settings = TextSettings(
            device=plan.device,
            dtype=plan.dtype,
            weights=plan.weights,
            kv_tokens=plan.kv_tokens,
            max_jobs=plan.max_jobs,
            draft=draft,
        )
        return TextPipeline.load(folder, name=folder.name, settings=settings)
    except ValueError as error:
        raise InvalidRequest("device", str(error)) from error


def _speech(plan: LoadPlan) -> Pipeline:
    from pipelines.speech.pipeline import SpeechPipeline
    from pipelines.speech.settings import SpeechSettings

    folder = folder_of(plan.speech, "upbeat-voice")
    settings = SpeechSettings(max_jobs=plan.max_jobs, device=plan.device)
    return SpeechPipeline.load(folder, name=folder.name, settings=settings)


def image_folders(given: tuple[str, ...]) -> tuple[Path, ...]:
    """The given folders, or the embedded models that are there. Raises: ModelBroken where there is none."""
    if given:
        return tuple(folder_of(folder, "") for folder in given)
    there = tuple(
        EMBEDDED / name for name in EMBEDDED_IMAGES if (EMBEDDED / name / "model_index.json").is_file()
    )
    return there or (folder_of("", EMBEDDED_IMAGES[0]),)


def _image(plan: LoadPlan, folder: Path) -> Pipeline:
    from pipelines.image.pipeline import ImagePipeline
    from pipelines.image.settings import ImageSettings

    settings = ImageSettings(
        device=plan.device,
        dtype=plan.dtype,
        max_jobs=plan.max_jobs,
        max_side=plan.max_image_side,
        loras=tuple(plan.loras.items()),
    )
    try:
        return ImagePipeline.load(folder, name=folder.name, settings=settings)
    except (ModelBroken, Unsupported) as error:  # these name files inside a folder, and there are several
        raise type(error)(f"{folder}: {error.message}", field=error.field) from error


def _check_loras(plan: LoadPlan, pipelines: Iterable[Pipeline]) -> None:
    """Every add-on fits an image model. Raises: ModelBroken with the reason of the first that refuses."""
    from pipelines.image.pipeline import ImagePipeline

    images = [pipeline for pipeline in pipelines if isinstance(pipeline, ImagePipeline)]
    for name in plan.loras:
        if not any(name in pipeline.info.loras for pipeline in images):
            raise ModelBroken(images[0].refused_loras[name])


def _transcription(plan: LoadPlan) -> Pipeline:
    from pipelines.speech.settings import TranscriberSettings
    from pipelines.speech.transcriber import TranscriberPipeline

    folder = folder_of(plan.recogniser, "") if plan.recogniser else None
    settings = TranscriberSettings(decoders=plan.decoders, device=plan.device)
    name = folder.name if folder is not None else PACKAGED_RECOGNISER
    return TranscriberPipeline.load(folder, name=name, settings=settings)
