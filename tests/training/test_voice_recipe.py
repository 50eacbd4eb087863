"""The voice recipe without its teacher: texts, alignment, batches, analysis, one step that learns."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch

from pipelines.speech.voice.acoustic import AcousticModel, pitch_curve
from pipelines.speech.voice.config import MODEL_TYPE, VoiceConfig
from pipelines.speech.voice.frontend import pack
from training.voice import batches, losses, rate_at, standardise, tensors
from training.voice_analysis import analyse
from training.voice_data import Item, align, clauses_of, teacher_line
from training.voice_letters import align as align_letters
from training.voice_text import closed, fix_article, generated, speakable

CONFIG = VoiceConfig(MODEL_TYPE, ("test",), (",", ".", "?", "!", "a", "t"), hidden=16, encoder_layers=1)


def item(symbols: int, seed: int) -> Item:
    """A clause of made-up frames."""
    draw = np.random.default_rng(seed)
    durations = draw.integers(2, 9, symbols).astype(np.int32)
    frames = int(durations.sum())
    return Item(
        ids=np.array(
            [pack(4 + at % 2, 0, False) for at in range(symbols - 1)] + [pack(1, 0, True)], np.int32
        ),
        durations=durations,
        pitch=draw.uniform(150, 250, (symbols, 2)).astype(np.float32),
        energy=draw.normal(-10, 2, symbols).astype(np.float32),
        before=np.zeros(3, np.float32),
        envelope=draw.normal(-10, 2, (frames, CONFIG.envelope_bands)).astype(np.float32),
        share=draw.uniform(0, 1, (frames, CONFIG.noise_bands)).astype(np.float32),
        frame_pitch=draw.uniform(150, 250, frames).astype(np.float32),
        closes=seed % 2 == 0,
    )


def test_generated_texts_are_different_and_repeatable() -> None:
    texts = generated(3, 300)
    assert texts == generated(3, 300)
    assert len({text for _, text in texts}) == 300
    assert all("{" not in text and text[-1] in ".?" for _, text in texts)


def test_text_helpers() -> None:
    assert fix_article("a orange and a cat") == "an orange and a cat"
    assert closed("where is it", random.Random(0)) == "where is it?"
    assert closed("fine.", random.Random(0)) == "fine."
    assert speakable("turn it on")
    assert not speakable("see http://x.y now")
    assert not speakable("one")


def test_clauses_end_in_marks_and_keep_every_word() -> None:
    words = [("a", ("a",)), (",", (",",)), ("b", ("b",)), (".", (".",)), ("c", ("c",)), ("?", ("?",))]
    clauses = clauses_of(words, random.Random(1))
    assert [word for clause in clauses for word in clause] == words
    assert teacher_line(words) == "[[a]], [[b]]. [[c]]?"


def test_alignment_follows_what_was_said() -> None:
    said = [("t", 0.05), ("a", 0.1), ("r-", 0.2), ("t", 0.3), ("_:", 0.4), ("_", 0.5)]
    assert align(["t", "a", "t", "."], said, 0.6) == [0.0, 0.1, 0.3, 0.4]
    assert align(["t", "a", "@", "t", "."], said, 0.6) == [0.0, 0.1, 0.2, 0.3, 0.4]
    assert align(["s"] * 12 + ["."], said, 0.6) is None


def test_letters_are_aligned_with_sounds() -> None:
    score = {("c", "k"): -0.1, ("a", "'a"): -0.1, ("t", "t"): -0.1, ("e", ""): -0.1}
    assert align_letters("cate", ("k", "'a", "t"), score) == ["k", "'a", "t", ""]
    assert align_letters("a", ("k", "'a", "t"), score) is None


def test_analysis_finds_pitch_and_noise() -> None:
    time = np.arange(16_000) / 16_000
    tone = sum(0.1 * np.cos(2 * np.pi * 200 * k * time) for k in range(1, 30))
    noise = np.random.default_rng(0).normal(0, 0.1, 16_000)
    voiced = analyse(np.asarray(tone, np.float32), CONFIG)
    hiss = analyse(noise.astype(np.float32), CONFIG)
    assert voiced.pitch[20:100] == pytest.approx(200.0, abs=1.0)
    assert voiced.share[20:100, :6].mean() < 0.1
    assert hiss.share.mean() > 0.8
    assert hiss.envelope[20:100].mean() == pytest.approx(np.log(0.01), abs=0.8)


def test_pitch_is_drawn_through_its_points() -> None:
    curve = pitch_curve(torch.tensor([[0.0, 1.0], [2.0, 2.0]]), torch.tensor([4, 4]))
    assert curve.tolist() == [0.0, 0.5, 1.0, 1.5, 2.0, 2.0, 2.0, 2.0]


def test_batches_resume_where_they_were_left() -> None:
    items = [item(6 + at % 5, at) for at in range(15)]
    everything = list(batches(items, 1, 0, 8))
    assert [id(row) for batch in everything[5:] for row in batch] == [
        id(row) for batch in batches(items, 1, 5, 8) for row in batch
    ]


def test_a_padded_row_costs_what_it_costs_alone() -> None:
    torch.manual_seed(0)
    model = AcousticModel(CONFIG).eval()
    rows = [item(5, 1), item(12, 2)]
    standardise(model, rows)
    with torch.inference_mode():
        together = model(**_inputs(tensors(rows)))[1]
        alone = model(**_inputs(tensors(rows[:1])))[1]
    assert float((together[0, : alone.shape[1]] - alone[0]).abs().max()) < 1e-5


def test_a_few_steps_learn() -> None:
    torch.manual_seed(0)
    model = AcousticModel(CONFIG)
    rows = [item(6, at) for at in range(4)]
    standardise(model, rows)
    batch = tensors(rows)
    optimiser = torch.optim.AdamW(model.parameters(), lr=1e-2)
    first = sum(loss.item() for loss in losses(model, batch))
    for _ in range(15):
        of_symbols, of_frames = losses(model, batch)
        optimiser.zero_grad()
        (of_symbols + of_frames).backward()  # type: ignore[no-untyped-call]
        optimiser.step()
    assert sum(loss.item() for loss in losses(model, batch)) < 0.8 * first


def test_the_rate_warms_up_and_falls() -> None:
    assert rate_at(0, 1_000, 1.0) < 0.01
    assert rate_at(200, 1_000, 1.0) == pytest.approx(1.0)
    assert rate_at(1_000, 1_000, 1.0) == pytest.approx(0.01)


def _inputs(batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name: batch[name] for name in ("ids", "lengths", "before", "symbol", "features", "frames")}
