"""Sizes of the embedded voice, as they stand in the `voice` part of its `config.json`."""

from __future__ import annotations

from pathlib import Path

import msgspec

CONFIG_FILE, WEIGHTS_FILE = "config.json", "model.safetensors"
LEXICON_FILE, LETTERS_FILE = "lexicon.txt.xz", "letters.safetensors"
MODEL_TYPE = "upbeat-voice"


class VoiceConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """All that the weights do not say. Lengths are samples or frames; a frame is `hop` samples."""

    model_type: str
    voices: tuple[str, ...]
    phonemes: tuple[str, ...]
    sample_rate: int = 16_000
    hop: int = 128
    envelope_bands: int = 48
    noise_bands: int = 8
    chunk_frames: int = 6
    block_frames: int = 24
    hidden: int = 128
    encoder_layers: int = 2
    attention_heads: int = 4
    decoder_layers: int = 5
    kernel: int = 5
    gain: float = 0.8

    @property
    def chunk_samples(self) -> int:
        return self.chunk_frames * self.hop


def load_config(folder: Path) -> VoiceConfig:
    """Reads `config.json`; raises ValueError naming the file and field where it is not a voice of ours."""
    path = folder / CONFIG_FILE
    try:
        config = msgspec.json.decode(path.read_bytes(), type=VoiceConfig)
    except (OSError, msgspec.MsgspecError) as error:
        raise ValueError(f"{path}: {error}") from error
    if config.model_type != MODEL_TYPE:
        raise ValueError(f"{path}: model_type is {config.model_type!r}, not {MODEL_TYPE!r}")
    return config
