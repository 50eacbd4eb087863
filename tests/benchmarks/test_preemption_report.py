"""What the report makes of kept streams."""

from __future__ import annotations

from typing import Any

import pytest

from benchmarks.arms import ARMS
from benchmarks.preemption_report import figures, ratios, spent
from benchmarks.timeline import Stream


def kept(waits: dict[str, float]) -> dict[str, Any]:
    """Three voices and an image an arm, one voice refused in one arm; the first audio comes after the arm's
    wait."""

    def arm(wait_s: float) -> dict[str, Any]:
        voice = {"kind": "voice", "at_s": 1.0, "chunks": [[1 + wait_s, 0.1], [1.05 + wait_s, 0.1]]}
        voice["refused"] = False
        image = {"kind": "image", "at_s": 0.5, "chunks": [[2.0, 0.0]], "done_s": 2.5, "refused": False}
        streams = {"1": voice | {"done_s": 2.0}, "2": voice | {"done_s": 2.0}, "3": image}
        if wait_s == WAITS["at tokens and steps"]:
            streams["4"] = voice | {"chunks": [], "done_s": 1.0, "refused": True}
        else:
            streams["4"] = voice | {"done_s": 2.0}
        counters = {
            "busy_s": 1.0,
            "preemptions": 0,
            "last_arrival_s": 2.0,
            "spent": {"voice/audio": {"ms": 800.0, "slices": 4, "rows": 10}},
            "seen": {"delays_ms": [wait_s * 100]},
        }
        return {"streams": streams, **counters}

    alone = {"voice": [{"kind": "voice", "at_s": 0.0, "chunks": [[0.01, 0.1]], "done_s": 1.0}]}
    alone["voice"][0]["refused"] = False
    return {"windows": [{name: arm(wait) for name, wait in waits.items()}], "alone": alone}


WAITS = dict(zip(ARMS, (0.91, 0.71, 0.21, 0.01), strict=True))


def test_figures_and_ratios() -> None:
    rows = figures(kept(WAITS))
    assert list(rows) == list(ARMS)
    ours = rows["at layers and blocks"].values
    assert ours["audio_first_p99_ms"] == pytest.approx(10.0)
    assert ours["audio_fluidity"] == 1.0 and ours["audio_underruns"] == 0
    assert ours["image_completion_mean_ms"] == pytest.approx(2000.0)
    assert rows["first come, first served"].values["audio_fluidity"] < 1.0
    found = ratios(kept(WAITS), rows)
    assert found["first audio, mean, against at tokens and steps"] == pytest.approx(21.0)
    assert found["preemption delay, p99, against at tokens and steps"] == pytest.approx(21.0)
    assert rows["at tokens and steps"].values["voice_refused"] == 1 and ours["voice_refused"] == 0
    shares = [value for name, value in found.items() if name.startswith("share")]
    assert shares == pytest.approx([0.2 / 0.9, 0.5 / 0.9, 0.2 / 0.9])


def test_where_the_time_went() -> None:
    twice = kept(WAITS)
    twice["windows"] *= 2
    assert figures(twice)["priority admission"].values["busy_share"] == 0.5
    assert spent(twice)["priority admission"] == {"voice/audio": {"s": 1.6, "slices": 8, "rows_a_slice": 2.5}}


def test_silence_between_chunks_is_counted() -> None:
    voice = Stream("voice", 0.0, [(1.0, 0.1), (1.05, 0.1), (1.3, 0.1), (1.35, 0.1)])
    assert voice.dry_s() == pytest.approx(0.1)
    assert voice.first_ms == 1000.0
