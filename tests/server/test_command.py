"""Options of `python -m server`, and what they make of the settings."""

from __future__ import annotations

from pathlib import Path

from server.__main__ import override
from server.config import Config


def test_image_models_may_be_several() -> None:
    settings = override(Config(), images=[Path("one"), Path("two")])
    assert settings.device.images == ("one", "two")


def test_what_is_left_out_stays() -> None:
    assert override(Config()) == Config()
    settings = override(Config(), text=Path("model"), listen="127.0.0.1:7", metrics_port=9, threads=1)
    assert (settings.device.text, settings.device.speech, settings.device.threads) == ("model", "", 1)
    assert (settings.listen, settings.metrics.port) == ("127.0.0.1:7", 9)
