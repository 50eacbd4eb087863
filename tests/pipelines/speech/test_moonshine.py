"""Moonshine: transformers' own answers, whatever was guessed; the packaged model hears what is said."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pytest
import soxr
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import MoonshineForConditionalGeneration

from pipelines.contract import FloatArray
from pipelines.errors import ModelBroken
from pipelines.loading import EMBEDDED
from pipelines.speech import ort_file
from pipelines.speech.loading import finish, load_speaker
from pipelines.speech.moonshine import TOKENS_MORE, TOKENS_PER_S, Moonshine
from pipelines.speech.speaker import Clause
from tests.pipelines.speech.moonshine_folder import TINY, write_moonshine
from tests.pipelines.speech.vowels import vowels

pytestmark = pytest.mark.usefixtures("inference")

SAID = "Good morning, how are you?"
SOUND = vowels(16_000)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_moonshine(tmp_path_factory.mktemp("moonshine"))


@pytest.fixture(scope="module")
def tiny(folder: Path) -> Moonshine:
    return Moonshine.load(folder)


@pytest.fixture(scope="module")
def spoken(one_thread: None) -> FloatArray:
    """`SAID` in the embedded voice, at 16 kHz."""
    speaker = load_speaker(EMBEDDED / "upbeat-voice").speaker
    pieces = []
    with torch.inference_mode():
        (state,) = finish(speaker.begin([Clause(speaker.phonemize(SAID))]))
        while state is not None:
            ((samples, state),) = finish(speaker.chunk([state]))
            pieces.append(samples)
    heard: FloatArray = soxr.resample(np.concatenate(pieces), speaker.sample_rate, 16_000)
    return heard


def test_the_packaged_model_hears_what_our_voice_says(spoken: FloatArray) -> None:
    model = Moonshine.packaged()
    tokens = finish(model.tokens(spoken, ()))
    assert model.text(tokens) == SAID
    guessed_wrong = (*tokens[:2], 7, *tokens[3:])
    for guess in (tokens, tokens[:-3], guessed_wrong, tokens[1:]):
        assert finish(model.tokens(spoken, guess)) == tokens


def test_the_tokens_are_those_of_transformers(folder: Path, tiny: Moonshine) -> None:
    most = int(TOKENS_PER_S * len(SOUND) / 16_000) + TOKENS_MORE
    model = MoonshineForConditionalGeneration.from_pretrained(folder).eval()
    (right,) = model.generate(torch.from_numpy(SOUND)[None], max_new_tokens=most, do_sample=False).tolist()
    found = finish(tiny.tokens(SOUND, ()))
    assert found == tuple(token for token in right[1:] if token != model.config.eos_token_id)
    assert tiny.text(found).split() == [f"w{token}" for token in found]


@settings(max_examples=25, deadline=None)
@given(guess=st.lists(st.integers(3, TINY["vocab_size"] - 1), max_size=30), right=st.integers(0, 12))
def test_no_guess_changes_what_is_heard(tiny: Moonshine, guess: list[int], right: int) -> None:
    with torch.inference_mode():
        tokens = finish(tiny.tokens(SOUND, ()))
        assert finish(tiny.tokens(SOUND, (*tokens[:right], *guess))) == tokens


@pytest.mark.parametrize("count", [0, 1, 800])
def test_hardly_any_sound_is_no_error(tiny: Moonshine, count: int) -> None:
    assert len(finish(tiny.tokens(np.zeros(count, np.float32), ()))) <= TOKENS_MORE


def test_a_call_has_points(tiny: Moonshine) -> None:
    assert sum(1 for _ in tiny.tokens(SOUND, ())) > 40


@pytest.mark.parametrize("name", ["model.safetensors", "tokenizer.json", "config.json"])
def test_broken_folders_are_named(folder: Path, tmp_path: Path, name: str) -> None:
    for path in folder.iterdir():
        (tmp_path / path.name).write_bytes(b"{" if path.name == name else path.read_bytes())
    with pytest.raises(ModelBroken, match=tmp_path.name):
        Moonshine.load(tmp_path)


def test_a_package_without_the_model_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    with pytest.raises(ModelBroken, match="moonshine-voice is not there or brings no model"):
        Moonshine.packaged()


@pytest.mark.parametrize("content", [b"", b"\x10\0\0\0ORTM", bytes(range(256)) * 8])
def test_what_is_no_weights_file_is_told(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "encoder_model.ort"
    path.write_bytes(content)
    with pytest.raises(ModelBroken, match="no weights can be read"):
        ort_file.weights(path)
