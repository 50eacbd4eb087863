"""Options of `python -m server`, and what they make of the settings."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipelines.errors import InvalidRequest
from server.__main__ import override
from server.config import Config


def test_image_models_may_be_several() -> None:
    settings = override(Config(), images=[Path("one"), Path("two")])
    assert settings.device.images == ("one", "two")


def test_add_ons_have_names() -> None:
    settings = override(Config(), loras=["ink=one.safetensors", "oil=a=b.safetensors"])
    assert settings.device.loras == {"ink": "one.safetensors", "oil": "a=b.safetensors"}
    for wrong in ("ink", "=file", "ink="):
        with pytest.raises(InvalidRequest, match="--lora"):
            override(Config(), loras=[wrong])


def test_what_is_left_out_stays() -> None:
    assert override(Config()) == Config()
    settings = override(Config(), text=Path("model"), listen="127.0.0.1:7", metrics_port=9, threads=1)
    assert (settings.device.text, settings.device.speech, settings.device.threads) == ("model", "", 1)
    assert override(Config(), recogniser=Path("ears")).device.recogniser == "ears"
    assert (settings.listen, settings.metrics.port) == ("127.0.0.1:7", 9)
