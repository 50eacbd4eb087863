"""VITS folders: transformers' own audio, in pieces, preemptible, the same every time."""

from __future__ import annotations

import json
from collections.abc import Generator
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import VitsModel

from pipelines.contract import FloatArray
from pipelines.errors import ModelBroken, Unsupported
from pipelines.messages import SpeechRequest
from pipelines.speech.loading import load_speaker
from pipelines.speech.pipeline import SpeechPipeline
from pipelines.speech.speaker import Clause, ClauseState
from pipelines.speech.vits import VitsSpeaker, noise_key, receptive_frames
from tests.pipelines.speech.speech_driver import spoken
from tests.pipelines.speech.vits_folder import write_vits

pytestmark = pytest.mark.usefixtures("inference")

TEXT = "the quick brown fox jumps over the lazy dog"
Answer = TypeVar("Answer")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_vits(tmp_path_factory.mktemp("vits"))


@pytest.fixture(scope="module")
def speaker(folder: Path) -> VitsSpeaker:
    return VitsSpeaker.load(folder)


def whole(steps: Generator[None, None, Answer]) -> Answer:
    while True:
        try:
            next(steps)
        except StopIteration as end:
            answer: Answer = end.value
            return answer


def begun(speaker: VitsSpeaker, text: str = TEXT, **options: Any) -> ClauseState:
    (state,) = whole(speaker.begin([Clause(speaker.phonemize(text), **options)]))
    assert state is not None
    return state


def chunks(speaker: VitsSpeaker, state: ClauseState | None) -> list[FloatArray]:
    parts = []
    while state is not None:
        before = state.remaining_samples
        ((samples, state),) = whole(speaker.chunk([state]))
        assert len(samples) == before - (state.remaining_samples if state else 0)
        parts.append(samples)
    return parts


@pytest.mark.parametrize("rate", [1.0, 0.5, 1.7])
def test_the_pieces_are_transformers_own_audio(folder: Path, speaker: VitsSpeaker, rate: float) -> None:
    model = VitsModel.from_pretrained(folder).eval()
    ids = speaker.phonemize(TEXT).ids
    torch.manual_seed(noise_key(ids, 0))
    expected = model(torch.tensor([ids]), speaking_rate=1.5 * rate).waveform[0].numpy()
    parts = chunks(speaker, begun(speaker, rate=rate))
    assert {len(part) for part in parts[:-1]} == {speaker.chunk_samples}
    assert len(parts) > 10
    np.testing.assert_allclose(np.concatenate(parts), expected, atol=1e-4)


def test_several_voices(tmp_path: Path) -> None:
    folder = write_vits(tmp_path, num_speakers=3, speaker_embedding_size=8)
    speaker, model = VitsSpeaker.load(folder), VitsModel.from_pretrained(folder).eval()
    assert speaker.voices == ("0", "1", "2")
    ids = speaker.phonemize(TEXT).ids
    torch.manual_seed(noise_key(ids, 2))
    expected = model(torch.tensor([ids]), speaker_id=2).waveform[0].numpy()
    np.testing.assert_allclose(
        np.concatenate(chunks(speaker, begun(speaker, voice="2"))), expected, atol=1e-4
    )


@settings(max_examples=6, deadline=None)
@given(st.lists(st.booleans(), min_size=3, max_size=30))
def test_suspended_calls_are_bit_equal_to_calls_alone(speaker: VitsSpeaker, turns: list[bool]) -> None:
    clauses = [Clause(speaker.phonemize(text)) for text in ("one clause", "another")]
    calls = [speaker.begin([clause]) for clause in clauses]
    states: dict[int, ClauseState | None] = {}
    while len(states) < 2:
        for which in map(int, turns):
            torch.randn(3)
            try:
                next(calls[which])
            except StopIteration as end:
                if which not in states:
                    (states[which],) = end.value
        turns = [not turn for turn in turns]
    for which, clause in enumerate(clauses):
        (alone,) = whole(speaker.begin([clause]))
        expected = np.concatenate(chunks(speaker, alone))
        assert np.array_equal(np.concatenate(chunks(speaker, states[which])), expected)


def test_a_closed_call_leaves_nothing_behind(speaker: VitsSpeaker) -> None:
    state = begun(speaker)
    expected = np.concatenate(chunks(speaker, state))
    clause = Clause(speaker.phonemize(TEXT))
    for after in (1, 7, 30):
        for steps in (speaker.begin([clause]), speaker.chunk([state])):
            for _ in range(after):
                next(steps)
            steps.close()
    assert np.array_equal(np.concatenate(chunks(speaker, begun(speaker))), expected)


def test_a_higher_pitch_keeps_the_duration(speaker: VitsSpeaker) -> None:
    plain = sum(map(len, chunks(speaker, begun(speaker))))
    for pitch in (0.5, 1.3, 2.0):
        parts = chunks(speaker, begun(speaker, pitch=pitch))
        assert sum(map(len, parts)) == pytest.approx(plain, rel=0.15)
        joined = np.concatenate(parts)
        steps = np.abs(np.diff(joined))
        edges = np.cumsum([len(part) for part in parts])[:-1] - 1
        assert steps[edges].max() <= steps.max()
        assert np.isfinite(joined).all()


def test_what_cannot_be_said_gives_none(speaker: VitsSpeaker) -> None:
    symbols = [speaker.phonemize(text) for text in ("", "...", " ! ", "日", "a.")]
    assert [bool(s.ids) for s in symbols] == [False, False, False, False, True]
    assert [s.ends_sentence for s in symbols] == [False, True, True, False, True]
    assert whole(speaker.begin([Clause(symbols[0])])) == [None]


def test_numbers_are_written_out(speaker: VitsSpeaker) -> None:
    assert speaker.phonemize("12 cats, ok?") == speaker.phonemize("twelve cats, ok?")


@pytest.mark.parametrize("options", [{"rate": 0.1}, {"pitch": 3.0}, {"voice": "9"}])
def test_begin_refuses_what_is_out_of_range(speaker: VitsSpeaker, options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"rate|pitch|voice"):
        begun(speaker, **options)


def test_receptive_field(folder: Path) -> None:
    """A far neighbour does not reach a sample, a near one does."""
    model = VitsModel.from_pretrained(folder).eval()
    reach = receptive_frames(model.config)
    frames = torch.zeros(1, 16, 2 * reach + 9)
    hop, middle = 32, reach + 4
    base = model.decoder(frames)[0, 0]
    frames[..., -1] = 5.0
    moved = model.decoder(frames)[0, 0]
    assert torch.equal(base[: (middle + 5 - 1) * hop], moved[: (middle + 5 - 1) * hop])
    assert not torch.equal(base, moved)
    assert reach <= 12


def test_the_pipeline_speaks_with_it(folder: Path) -> None:
    pipeline = SpeechPipeline.load(folder, name="tiny")
    assert (pipeline.info.family, pipeline.info.sample_rate) == ("vits", 8000)
    assert pipeline.info.parameters > 10_000
    first = spoken(pipeline, "hello there. how are you", SpeechRequest(rate=1.5))
    assert len(first) > 4000
    assert np.array_equal(first, spoken(pipeline, "hello there. how are you", SpeechRequest(rate=1.5)))


def test_broken_folders_name_the_file(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelBroken, match=r"config\.json"):
        load_speaker(tmp_path)
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(ModelBroken, match=r"config\.json"):
        load_speaker(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "bark"}))
    with pytest.raises(Unsupported, match="'bark'"):
        load_speaker(tmp_path)
    (tmp_path / "config.json").write_text((folder / "config.json").read_text())
    with pytest.raises(ModelBroken, match=r"vocab\.json"):
        load_speaker(tmp_path)
    for name in ("vocab.json", "tokenizer_config.json"):
        (tmp_path / name).write_bytes((folder / name).read_bytes())
    with pytest.raises(ModelBroken, match=r"model\.safetensors"):
        load_speaker(tmp_path)
    data = (folder / "model.safetensors").read_bytes()
    (tmp_path / "model.safetensors").write_bytes(data[: len(data) // 2])
    with pytest.raises(ModelBroken, match=str(tmp_path)):
        load_speaker(tmp_path)


def test_a_missing_tensor_is_named(folder: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    for name in ("config.json", "vocab.json", "tokenizer_config.json"):
        (tmp_path / name).write_bytes((folder / name).read_bytes())
    tensors = load_file(folder / "model.safetensors")
    del tensors["decoder.conv_post.weight"]
    save_file(tensors, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelBroken, match=r"decoder\.conv_post\.weight"):
        load_speaker(tmp_path)
