"""What the acoustic model learns from: clauses with their durations, pitch and frames, spoken by the
teacher.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from pipelines.speech.voice.acoustic import standard_pitch
from pipelines.speech.voice.config import VoiceConfig
from pipelines.speech.voice.frontend import Frontend
from pipelines.speech.voice.normalise import MARKS
from pipelines.speech.voice.wordparts import Spelling
from training.voice_analysis import Frames, analyse
from training.voice_lexicon import GLOTTAL, teacher_text
from training.voice_teacher import SAMPLE_RATE, Teacher

Float = npt.NDArray[np.float32]
Words = Sequence[tuple[str, Spelling]]
PAUSE = "_"


@dataclass(frozen=True, slots=True)
class Item:
    """One clause.

    ids [length]; durations [length] frames; pitch [length, 2] Hz at start and middle; energy [length] mean
    log power; `before` [3]; envelope [frames, bands]; share [frames, noise_bands]; frame_pitch [frames] Hz.
    """

    ids: npt.NDArray[np.int32]
    durations: npt.NDArray[np.int32]
    pitch: Float
    energy: Float
    before: Float
    envelope: Float
    share: Float
    frame_pitch: Float
    closes: bool
    """Whether the audio ends here, so that the pause of the last mark is cut short."""


def clauses_of(words: Words, draw: random.Random) -> list[Words]:
    """Words cut after every mark, but for one comma in three, which stays inside its clause."""
    clauses: list[list[tuple[str, Spelling]]] = [[]]
    for word in words:
        clauses[-1].append(word)
        if word[0] in MARKS and (word[0] != "," or draw.random() < 0.67):
            clauses.append([])
    return [clause for clause in clauses if any(token not in MARKS for token, _ in clause)]


def teacher_line(words: Words) -> str:
    """The words as one text of phoneme strings and marks for `Teacher.speak`."""
    pieces: list[str] = []
    run: list[str] = []
    for token, spelling in words:
        if token in MARKS:
            pieces.append(f"[[{' '.join(run)}]]{token}")
            run = []
        else:
            run.append(teacher_text(spelling))
    return " ".join(pieces)


def align(wanted: Sequence[str], said: Sequence[tuple[str, float]], end: float) -> list[float] | None:
    """When each wanted phoneme starts, seconds: cheapest edit path between the two rows; None where too
    unlike.

    A wanted phoneme that was not said starts with its successor; one that was only said belongs to its
    predecessor.
    """
    heard = [(_mark(name), when) for name, when in said]
    heard = [
        pair for at, pair in enumerate(heard) if at == 0 or pair[0] != PAUSE or heard[at - 1][0] != PAUSE
    ]
    rows, columns = len(wanted) + 1, len(heard) + 1
    cost = np.zeros((rows, columns))
    cost[:, 0], cost[0, :] = np.arange(rows), np.arange(columns)
    for i in range(1, rows):
        for j in range(1, columns):
            swap = cost[i - 1, j - 1] + _unlike(wanted[i - 1], heard[j - 1][0])
            cost[i, j] = min(swap, cost[i - 1, j] + 1, cost[i, j - 1] + 1)
    if cost[-1, -1] > 2 + 0.2 * rows:
        return None
    starts, i, j, later = [0.0] * len(wanted), rows - 1, columns - 1, end
    while i > 0:
        here = cost[i, j]
        if j > 0 and here == cost[i, j - 1] + 1:
            j -= 1
        elif j > 0 and here < cost[i - 1, j] + 1:
            i, j = i - 1, j - 1
            later = starts[i] = heard[j][1]
        else:
            i -= 1
            starts[i] = later
    starts[0] = 0.0
    return starts


def _unlike(wanted: str, heard: str) -> float:
    name = PAUSE if wanted in MARKS else wanted
    return 0.0 if name == heard else 9.0 if PAUSE in (name, heard) else 1.2


def _mark(name: str) -> str:
    return PAUSE if name.startswith("_") else GLOTTAL if name == "?" else name


def items_of(
    teacher: Teacher, front: Frontend, text: str, config: VoiceConfig, draw: random.Random
) -> list[Item]:
    """Speaks a text and cuts it into the items of its clauses; nothing where the alignment is doubtful."""
    words = front.words(text)
    clauses = clauses_of(words, draw)
    if not clauses:
        return []
    spoken = teacher.speak(teacher_line(words), phonemes=True)
    wanted = [phoneme.lstrip("',") or phoneme for _, spelling in words for phoneme in spelling]
    starts = align(wanted, spoken.phonemes, len(spoken.audio) / SAMPLE_RATE)
    if starts is None:
        return []
    frames = analyse(spoken.audio, config)
    total = len(frames.pitch) - 1
    edges = np.round(np.array([*starts, len(spoken.audio) / SAMPLE_RATE]) * SAMPLE_RATE / config.hop).astype(
        int
    )
    edges = _at_least_one(edges.clip(0, total))
    items, at, before = [], 0, np.zeros(3, np.float32)
    for clause in clauses:
        ids = front.ids(clause)
        item = _item(np.array(ids, np.int32), edges[at : at + len(ids) + 1], frames, before)
        at += len(ids)
        before = np.array(
            [1.0, standard_pitch(float(item.frame_pitch[-1])), float(clause[-1][0] == ",")], np.float32
        )
        items.append(replace(item, closes=clause is clauses[-1]))
    return items


def _at_least_one(edges: npt.NDArray[np.int_]) -> npt.NDArray[np.int_]:
    """Gives every symbol a frame, pushing later borders where needed."""
    place = np.arange(len(edges))
    return np.asarray(np.maximum.accumulate(edges - place) + place)


def _item(ids: npt.NDArray[np.int32], edges: npt.NDArray[np.int_], frames: Frames, before: Float) -> Item:
    last = len(frames.pitch) - 1
    cut = np.arange(edges[0], edges[-1]).clip(0, last)
    middles = ((edges[:-1] + edges[1:]) // 2).clip(0, last)
    pitch = np.stack([frames.pitch[edges[:-1].clip(0, last)], frames.pitch[middles]], -1)
    level = frames.envelope[cut].mean(axis=1)
    durations = np.diff(edges)
    energy = np.add.reduceat(level, edges[:-1] - edges[0]) / durations
    return Item(
        ids,
        durations.astype(np.int32),
        pitch.astype(np.float32),
        energy.astype(np.float32),
        before,
        frames.envelope[cut],
        frames.share[cut],
        frames.pitch[cut],
        closes=False,
    )
