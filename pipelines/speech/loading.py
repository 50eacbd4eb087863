"""Which speaker a folder holds, by its config.json."""

from __future__ import annotations

import json
from collections.abc import Callable, Generator
from dataclasses import dataclass
from lzma import LZMAError
from math import prod
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors import SafetensorError, safe_open

from pipelines.errors import ModelBroken, Unsupported
from pipelines.speech.speaker import Clause, Speaker

WARM_UP = "One, two, three."
Answer = TypeVar("Answer")


@dataclass(frozen=True, slots=True)
class LoadedSpeaker:
    """A speaker and what is told of it.

    languages: as the folder names them. has_pauses: its clauses end with a pause of their own, so none is
    added.
    """

    speaker: Speaker
    family: str
    parameters: int
    languages: tuple[str, ...] = ()
    has_pauses: bool = False


def load_speaker(folder: Path, device: str = "cpu") -> LoadedSpeaker:
    """The speaker in `folder`, warmed up by one short clause. The embedded voice is at home on the CPU and
    stays there; VITS goes to `device`.

    Raises: Unsupported naming the model type, ModelBroken naming the file at fault.
    """
    family = model_type(folder)
    if family not in _FAMILIES:
        known = ", ".join(sorted(_FAMILIES))
        raise Unsupported(f"{folder}: a speech model of type {family!r} is not supported; supported: {known}")
    try:
        loaded = _FAMILIES[family](folder, device)
    except (OSError, ValueError, RuntimeError, KeyError, EOFError, LZMAError, SafetensorError) as error:
        raise ModelBroken(str(error) if str(folder) in str(error) else f"{folder}: {error}") from error
    with torch.inference_mode():
        warm_up(loaded.speaker)
    return loaded


def warm_up(speaker: Speaker) -> None:
    """One clause, all of it: what is made at a first call is made now."""
    clause = Clause(speaker.phonemize(WARM_UP))
    for state in finish(speaker.begin([clause])):
        while state is not None:
            ((_, state),) = finish(speaker.chunk([state]))


def finish(steps: Generator[Any, None, Answer]) -> Answer:
    """Runs a generator to its end and returns its answer."""
    while True:
        try:
            next(steps)
        except StopIteration as end:
            answer: Answer = end.value
            return answer


def model_type(folder: Path) -> str:
    """What its config.json says, "" for nothing. Raises: ModelBroken where there is none."""
    path = folder / "config.json"
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ModelBroken(f"{path}: the file is missing") from error
    except (OSError, ValueError) as error:
        raise ModelBroken(f"{path}: {error}") from error
    return str(config.get("model_type", "")) if isinstance(config, dict) else ""


def _vits(folder: Path, device: str) -> LoadedSpeaker:
    from pipelines.speech.vits import VitsSpeaker

    speaker = VitsSpeaker.load(folder, device)
    return LoadedSpeaker(speaker, "vits", speaker.parameters, (speaker.language,) if speaker.language else ())


def _embedded(folder: Path, _device: str) -> LoadedSpeaker:
    from pipelines.speech.voice.embedded import load_voice

    return LoadedSpeaker(load_voice(folder), "upbeat-voice", _parameters(folder), ("en",), has_pauses=True)


def _parameters(folder: Path) -> int:
    """Numbers in the folder's safetensors."""
    total = 0
    for path in folder.glob("*.safetensors"):
        with safe_open(path, framework="np") as tensors:
            total += sum(prod(tensors.get_slice(name).get_shape()) for name in tensors.keys())  # noqa: SIM118
    return total


_FAMILIES: dict[str, Callable[[Path, str], LoadedSpeaker]] = {"upbeat-voice": _embedded, "vits": _vits}
