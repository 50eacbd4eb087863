"""The committed voice behind `Speaker`: streaming, batching, preemption points, bad input."""

from __future__ import annotations

from pathlib import Path

import msgspec
import numpy as np
import pytest
import torch

from pipelines.speech.speaker import Clause, ClauseState, FloatArray, Prosody, Symbols
from pipelines.speech.voice.aloud import difference_db, drain, speak_aloud, timed
from pipelines.speech.voice.config import load_config
from pipelines.speech.voice.embedded import EmbeddedVoice, load_voice, whole_durations

FOLDER = Path(__file__).parents[3] / "models" / "upbeat-voice"
TEXTS = (
    "Good morning, your small coffee costs $3.50.",
    "Is it?",
    "The picture shows a yellow triangle left of a very large green circle, and nothing else at all.",
)


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def voice() -> EmbeddedVoice:
    return load_voice(FOLDER)


def spoken_together(voice: EmbeddedVoice, clauses: list[Clause]) -> list[FloatArray]:
    """Audio of clauses that advance as one batch."""
    parts: list[list[FloatArray]] = [[] for _ in clauses]
    with torch.inference_mode():
        live: list[tuple[int, ClauseState]] = [
            (row, state) for row, state in enumerate(drain(voice.begin(clauses))) if state is not None
        ]
        while live:
            found = drain(voice.chunk([state for _, state in live]))
            going = []
            for (row, _), (audio, state) in zip(live, found, strict=True):
                parts[row].append(audio)
                if state is not None:
                    going.append((row, state))
            live = going
    return [np.concatenate(part) if part else np.zeros(0, np.float32) for part in parts]


@pytest.mark.parametrize("text", TEXTS)
def test_streamed_equals_whole(voice: EmbeddedVoice, text: str) -> None:
    twin = load_voice(FOLDER, chunk_frames=4_000, block_frames=4_000)
    assert difference_db(speak_aloud(voice, text), speak_aloud(twin, text)) < -60.0


def test_batched_rows_equal_rows_alone(voice: EmbeddedVoice) -> None:
    clauses = [
        Clause(voice.phonemize(text), rate=rate) for text, rate in zip(TEXTS, (1.0, 0.8, 1.3), strict=True)
    ]
    together = spoken_together(voice, clauses)
    for clause, audio in zip(clauses, together, strict=True):
        (alone,) = spoken_together(voice, [clause])
        assert len(alone) == len(audio)
        assert float(np.abs(alone - audio).max()) < 1e-4


def test_rows_out_of_step_share_the_decoder_and_equal_rows_alone(voice: EmbeddedVoice) -> None:
    """The second row begins two chunks later: from then on one call decodes for both."""
    clauses = [Clause(voice.phonemize(text)) for text in (TEXTS[2], TEXTS[0])]
    heard: list[list[FloatArray]] = [[], []]
    decoded = []
    with torch.inference_mode():
        states = dict(enumerate(drain(voice.begin(clauses))))
        for step in range(1000):
            rows = {at: state for at, state in states.items() if state and (at == 0 or step >= 2)}
            if not rows:
                break
            decoded.append(voice.decodes(list(rows.values())))
            found = drain(voice.chunk(list(rows.values())))
            for at, (audio, state) in zip(rows, found, strict=True):
                heard[at].append(audio)
                states[at] = state
    assert decoded[:5] == [1, 0, 2, 0, 0] and 1 not in decoded[2:10]
    for clause, parts in zip(clauses, heard, strict=True):
        (alone,) = spoken_together(voice, [clause])
        assert float(np.abs(alone - np.concatenate(parts)).max()) < 1e-4


def test_speech_is_level_and_never_clips(voice: EmbeddedVoice) -> None:
    audio = speak_aloud(voice, " ".join(TEXTS[2:] * 3))
    assert audio.dtype == np.float32
    assert 0.2 < float(np.abs(audio).max()) < 0.99
    third = len(audio) // 3
    loud = [float(np.sqrt(np.mean(np.square(audio[at * third : (at + 1) * third])))) for at in range(3)]
    assert 20 * np.log10(max(loud) / min(loud)) < 3.0


def test_a_clause_starts_and_ends_at_zero(voice: EmbeddedVoice) -> None:
    for text in TEXTS:
        audio = speak_aloud(voice, text)
        assert audio[0] == 0.0
        assert audio[-1] == 0.0
        assert float(np.abs(np.diff(audio[:100])).max()) < 0.2


def test_no_clicks_at_chunk_borders(voice: EmbeddedVoice) -> None:
    bend = np.abs(np.diff(speak_aloud(voice, TEXTS[2]), 2))
    borders = np.arange(voice.chunk_samples, len(bend) - 2, voice.chunk_samples)
    at_border = np.maximum.reduce([bend[borders + shift] for shift in (-2, -1, 0)])
    elsewhere = np.maximum.reduce([bend[borders + shift - 300] for shift in (-2, -1, 0)])
    assert at_border.max() <= bend.max()
    assert at_border.mean() < 1.5 * elsewhere.mean() + 1e-4


def test_preemption_points_are_close(voice: EmbeddedVoice) -> None:
    clauses = [Clause(voice.phonemize(text)) for text in TEXTS * 3]
    with torch.inference_mode():
        steps = sum(1 for _ in voice.begin(clauses))
        states, _ = timed(voice.begin(clauses))
        gaps = []
        for _ in range(3):
            _, gap = timed(voice.chunk([state for state in states if state is not None]))
            gaps.append(gap)
    assert steps >= 15
    assert min(gaps) < 0.025


def test_a_very_long_clause_is_spoken_with_close_preemption_points(voice: EmbeddedVoice) -> None:
    clause = Clause(voice.phonemize("%" * 400 + " off."))
    assert len(clause.symbols.ids) > 2_000
    with torch.inference_mode():
        gaps = [timed(voice.begin([clause]))[1] for _ in range(3)]
        (state,) = drain(voice.begin([clause]))
        assert state is not None
        ((audio, left),) = drain(voice.chunk([state]))
    assert min(gaps) < 0.025
    assert left is not None
    assert len(audio) == voice.chunk_samples


def test_a_closed_slice_leaves_nothing_behind(voice: EmbeddedVoice) -> None:
    with torch.inference_mode():
        (state,) = drain(voice.begin([Clause(voice.phonemize(TEXTS[0]))]))
        assert state is not None
        left = voice.chunk([state])
        next(left)
        left.close()
        ((first, after),) = drain(voice.chunk([state]))
        ((again, _),) = drain(voice.chunk([state]))
    assert after is not None
    assert np.array_equal(first, again)
    assert state.remaining_samples - after.remaining_samples == voice.chunk_samples == len(first)


def test_rate_and_pitch(voice: EmbeddedVoice) -> None:
    usual = speak_aloud(voice, TEXTS[2])
    assert len(speak_aloud(voice, TEXTS[2], rate=2.0)) == pytest.approx(len(usual) / 2, rel=0.05)
    assert len(speak_aloud(voice, TEXTS[2], pitch=1.5)) == len(usual)
    with torch.inference_mode():
        symbols = voice.phonemize(TEXTS[2])
        low, high = drain(voice.begin([Clause(symbols), Clause(symbols, pitch=1.5)]))
    assert low is not None
    assert high is not None
    assert low.prosody == high.prosody


def test_prosody_crosses_the_border(voice: EmbeddedVoice) -> None:
    symbols = voice.phonemize("and a cup of green tea,")
    with torch.inference_mode():
        fresh, going = drain(
            voice.begin([Clause(symbols), Clause(symbols, before=Prosody(170.0, -9.0, False))])
        )
    assert fresh is not None
    assert going is not None
    assert fresh.prosody.pitch_hz != going.prosody.pitch_hz
    assert 100.0 < going.prosody.pitch_hz < 300.0


def test_nothing_to_say_has_no_state(voice: EmbeddedVoice) -> None:
    with torch.inference_mode():
        assert drain(voice.begin([Clause(voice.phonemize("...")), Clause(Symbols((), True))])) == [None, None]
        assert drain(voice.begin([])) == []
        assert drain(voice.chunk([])) == []


@pytest.mark.parametrize(
    ("clause", "named"),
    [
        (Clause(Symbols((1,), True), rate=3.0), "rate"),
        (Clause(Symbols((1,), True), rate=float("nan")), "rate"),
        (Clause(Symbols((1,), True), pitch=0.1), "pitch"),
        (Clause(Symbols((1,), True), voice="nobody"), "voice"),
    ],
)
def test_bad_clauses_name_the_field(voice: EmbeddedVoice, clause: Clause, named: str) -> None:
    with pytest.raises(ValueError, match=named):
        drain(voice.begin([clause]))


def test_durations_keep_the_total() -> None:
    frames = whole_durations(torch.full((40,), 3.4).log(), 1.0)
    assert int(frames.sum()) == 136
    assert int(whole_durations(torch.zeros(5), 2.0).min()) == 1


@pytest.mark.parametrize(
    "name", ["config.json", "model.safetensors", "lexicon.txt.xz", "letters.safetensors"]
)
@pytest.mark.parametrize("damage", ["missing", "cut"])
def test_a_damaged_folder_names_the_file(tmp_path: Path, name: str, damage: str) -> None:
    for path in FOLDER.iterdir():
        if path.is_file() and (path.name != name or damage == "cut"):
            whole = path.read_bytes()
            (tmp_path / path.name).write_bytes(whole[: len(whole) // 2] if path.name == name else whole)
    with pytest.raises(ValueError, match=name):
        load_voice(tmp_path)


def test_another_kind_of_model_is_refused(tmp_path: Path) -> None:
    config = msgspec.structs.replace(load_config(FOLDER), model_type="vits")
    (tmp_path / "config.json").write_bytes(msgspec.json.encode(config))
    with pytest.raises(ValueError, match="model_type"):
        load_voice(tmp_path)
