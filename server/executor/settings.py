"""Settings of one device process; the gateway validates them and hands them over at the start."""

from __future__ import annotations

import os
import re

import msgspec

from pipelines.errors import InvalidRequest


class DeviceSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What the device process loads and promises.

    device: "cpu" or "cuda[:N]". dtype: of the text and image models. text, speech, recogniser: model
    folders; "" for the embedded model. draft: folder of a small model with the text model's tokenizer, which
    guesses for it; "" for the embedded one where the text model is, "none" for none. thinker: folder of
    a second text model, which a conversation may have think ahead for the first; "" for none. images:
    folders of image models, the first the one that answers where none is named; none for the embedded
    ones. loras: LoRA files by the name that requests give them; each has to fit one of the image
    models. weights: "int8" or "int4" rounds the text model's layers, "" does not. threads: torch
    threads, 0 for one a core (never more). promised_delay_ms: longest gap between preemption points.
    slice_ms: how long a slice of riders may grow. kv_tokens: room of the text model's KV cache in
    tokens, 0 for eight whole contexts but at most 1 GiB, the draft model's included. max_jobs: jobs a
    pipeline admits. max_image_side: pixels. transcription: whether speech is recognised, by as many
    `decoders` (speakers) at once.
    """

    device: str = "cpu"
    text: str = ""
    draft: str = ""
    thinker: str = ""
    images: tuple[str, ...] = ()
    loras: dict[str, str] = {}
    speech: str = ""
    recogniser: str = ""
    transcription: bool = True
    dtype: str = "float32"
    weights: str = ""
    threads: int = 0
    promised_delay_ms: float = 25.0
    slice_ms: float = 60.0
    kv_tokens: int = 0
    max_jobs: int = 64
    max_image_side: int = 1024
    decoders: int = 4

    def __post_init__(self) -> None:
        cores = os.cpu_count() or 1
        between("device.threads", self.threads, 0, cores)
        between("device.promised_delay_ms", self.promised_delay_ms, 1, 1000)
        between("device.slice_ms", self.slice_ms, 1, 10_000)
        between("device.kv_tokens", self.kv_tokens, 0, 1 << 26)
        between("device.max_jobs", self.max_jobs, 1, 65_536)
        between("device.max_image_side", self.max_image_side, 64, 4096)
        between("device.decoders", self.decoders, 1, 64)
        if not re.fullmatch(r"cpu|cuda(:\d{1,3})?", self.device):
            raise InvalidRequest("device.device", f'"cpu" or "cuda[:N]", not {self.device!r}')
        if self.dtype not in ("float32", "bfloat16", "float16"):
            raise InvalidRequest("device.dtype", f"float32, bfloat16 or float16, not {self.dtype!r}")
        if self.weights not in ("", "int8", "int4"):
            raise InvalidRequest("device.weights", f"int8, int4 or none at all, not {self.weights!r}")


def between(field: str, value: float, low: float, high: float) -> None:
    """Raises: InvalidRequest naming the key and the limits."""
    if not low <= value <= high:
        raise InvalidRequest(field, f"must be {low} to {high}, not {value}")
