"""Writes the voice's folder: config, half-precision weights, lexicon, letter-to-sound rules."""

from __future__ import annotations

import shutil
from pathlib import Path

import msgspec
from safetensors.torch import save_file
from torch import nn

from pipelines.speech.voice.config import CONFIG_FILE, LEXICON_FILE, WEIGHTS_FILE, VoiceConfig


def export(model: nn.Module, config: VoiceConfig, lexicon: Path, folder: Path) -> None:
    """Writes the acoustic model's part of the folder; `letters.safetensors` comes from
    `training.voice_letters`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    (folder / CONFIG_FILE).write_bytes(msgspec.json.format(msgspec.json.encode(config), indent=1) + b"\n")
    tensors = {name: value.detach().half().contiguous() for name, value in model.state_dict().items()}
    save_file(tensors, folder / WEIGHTS_FILE)
    shutil.copyfile(lexicon, folder / LEXICON_FILE)
