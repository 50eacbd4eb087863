"""Writes the model card's samples: `python -m training.voice_samples`."""

from __future__ import annotations

import argparse
from pathlib import Path

import soundfile
import torch

from pipelines.speech.voice.aloud import speak_aloud
from pipelines.speech.voice.embedded import load_voice
from training.data import ROOT

SAMPLES = {
    "greeting": (
        "Hello! I am Upbeat, a voice that starts to speak before your question has ended.",
        1.0,
        1.0,
    ),
    "order": ("One large latte with oat milk, that is $4.75. Your order will be ready at 7:05 pm.", 1.0, 1.0),
    "question-quick-high": (
        "Shall I draw a red star above the blue house, or would you like a circle?",
        1.2,
        1.15,
    ),
}
"""Name to (text, rate, pitch)."""


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, default=ROOT / "models" / "upbeat-voice")
    options = parser.parse_args()
    torch.set_num_threads(1)
    voice = load_voice(options.folder)
    target = options.folder / "samples"
    target.mkdir(exist_ok=True)
    for name, (text, rate, pitch) in SAMPLES.items():
        audio = speak_aloud(voice, text, rate, pitch)
        path = target / f"{name}.opus"
        soundfile.write(path, audio, voice.sample_rate, format="OGG", subtype="OPUS")
        print(f"{path}: {len(audio) / voice.sample_rate:.1f} s, {path.stat().st_size} bytes")


if __name__ == "__main__":
    main()
