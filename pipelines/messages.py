"""The values that cross the process boundary: requests and inputs down, chunks up.

Frozen msgspec structs, framed as msgpack by the link without further code. Times are seconds or milliseconds
by name; a deadline travels as seconds from now: the sides share no clock. Nothing here imports torch.
"""

from __future__ import annotations

import enum

import msgspec


class JobClass(enum.IntEnum):
    """Classes of service, most urgent first."""

    REALTIME = 0
    INTERACTIVE = 1
    STANDARD = 2
    BATCH = 3


class FinishReason(enum.IntEnum):
    """Why a job ended. The numbers are those of the wire."""

    STOP = 1
    LENGTH = 2
    CANCELLED = 3
    INTERRUPTED = 4
    FAILED = 5


class Value(msgspec.Struct, frozen=True, tag=True, array_like=True):
    """Base of all messages: frozen, tagged by class name."""


# --- requests: what a job is about -----------------------------------------------------------------


class Message(Value, frozen=True):
    """One turn of a conversation. role is "system", "user" or "assistant"."""

    role: str
    content: str


class Sampling(Value, frozen=True):
    """How tokens are drawn. Keyed by position: the token at position t depends on (seed, t) alone.

    json_schema or regex: what the answer must follow, "" for nothing.
    """

    temperature: float = 0.0
    top_p: float = 1.0
    top_k: int = 0
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    seed: int = 0
    max_tokens: int = 256
    stop: tuple[str, ...] = ()
    logprobs: int = 0
    json_schema: str = ""
    regex: str = ""


class TextRequest(Value, frozen=True):
    """`history` precedes the user's prompt, which arrives as `PromptRevision`s. cache_scope narrows the
    sharing of cached prefixes and compiled constraints inside the tenant to requests of the same scope."""

    history: tuple[Message, ...] = ()
    sampling: Sampling = Sampling()
    cache_scope: str = ""


class SpeechRequest(Value, frozen=True):
    """Text arrives as `SpeechText`. rate and pitch are factors (1.0 = the voice's own), 0.5 to 2.0.

    sample_rate (Hz) 0 means the voice's own.
    """

    voice: str = ""
    rate: float = 1.0
    pitch: float = 1.0
    sample_rate: int = 0


class ImageRequest(Value, frozen=True):
    """width, height in pixels; 0 means the model's own size. guidance 0 means the model's default is used.

    preview_every: a preview each n steps, 0 for none; preview_ms: at least so long after the last one. mime:
    image/png, image/jpeg or image/webp; quality 1..100 for the lossy ones. cache_level: "off", "balanced"
    (calibrated for 35 dB of PSNR against off) or "fast" (30 dB). allow_lower_quality: under load steps are
    predicted as in "fast", then fewer are taken, rather than none. loras: add-ons by name, with their
    weights. init_image: PNG, JPEG or WebP to start from, none if empty; strength: how much of it may change,
    0 to 1. control_image: an image to follow, none if empty; control_strength: how strongly, 0 to 1.
    """

    prompt: str
    negative_prompt: str = ""
    width: int = 0
    height: int = 0
    steps: int = 0
    guidance: float = 0.0
    seed: int = 0
    scheduler: str = ""
    cache_level: str = "off"
    preview_every: int = 0
    mime: str = "image/png"
    quality: int = 90
    allow_lower_quality: bool = False
    loras: tuple[tuple[str, float], ...] = ()
    init_image: bytes = b""
    strength: float = 0.8
    control_image: bytes = b""
    control_strength: float = 1.0
    preview_ms: int = 0


class TranscribeRequest(Value, frozen=True):
    """Audio arrives as `SpeechAudio`: mono PCM16, little endian, at `sample_rate` Hz. open: a microphone that
    stays open: only what sounds voiced is an utterance, and an empty chunk says that one has begun."""

    sample_rate: int = 16000
    language: str = ""
    interim: bool = True
    open: bool = False


Request = TextRequest | SpeechRequest | ImageRequest | TranscribeRequest


# --- inputs: what arrives later for a running job ----------------------------------------------------


class PromptRevision(Value, frozen=True):
    """An immutable snapshot of the partial prompt. Numbers grow; `final` is the commit.

    answer_tokens: before the commit, how many tokens of an answer to it as it stands may be generated ahead.
    They come up as chunks that name this number; nothing of them reaches the client before the commit unless
    asked for. A final revision with the number of the one before has its text too, and goes on with its
    answer. notes: messages between history and text, from thinking ahead.
    """

    number: int
    text: str
    final: bool
    answer_tokens: int = 0
    notes: tuple[Message, ...] = ()


class SpeechText(Value, frozen=True):
    """More text to be spoken, whole or part of a clause; `final` ends it."""

    text: str
    final: bool


class SpeechAudio(Value, frozen=True):
    """More audio to be recognised: mono PCM16 little endian; `final` ends the utterance stream."""

    pcm16: bytes
    final: bool


class Playback(Value, frozen=True):
    """The listener has heard `played_ms` of this job's audio; sets the deadline of the next chunk."""

    played_ms: int
    ahead_ms: int


Input = PromptRevision | SpeechText | SpeechAudio | Playback


# --- down the link ---------------------------------------------------------------------------------


class Submit(Value, frozen=True):
    """A new job. deadline_in_s is seconds from now, 0 for none. consumer is the job this one feeds
    (text feeds speech): its urgency is inherited; 0 for none. `first` arrives with the job.
    """

    job_id: int
    pipeline: str
    session_id: str
    turn_id: str
    tenant: str
    job_class: JobClass
    request: Request
    credits: int
    deadline_in_s: float = 0.0
    committed: bool = True
    consumer: int = 0
    first: Input | None = None


class Update(Value, frozen=True):
    """Input for a running job."""

    job_id: int
    input: Input


class Cancel(Value, frozen=True):
    """The job emits nothing from now on."""

    job_id: int


class Credits(Value, frozen=True):
    """The outbox has room for `count` more chunks."""

    job_id: int
    count: int


class Promote(Value, frozen=True):
    """The turn of a job that ran ahead is committed. consumer: the job that it feeds now, 0 for none."""

    job_id: int
    consumer: int = 0


class StartTrace(Value, frozen=True):
    """Record every slice and preemption for `seconds`; answered by `Trace`."""

    seconds: float


class Stop(Value, frozen=True):
    """Finish the slice in flight and leave."""


Down = Submit | Update | Cancel | Credits | Promote | StartTrace | Stop


# --- chunks: what a job emits -----------------------------------------------------------------------


class TokenChunk(Value, frozen=True):
    """Text that is final: complete UTF-8, stop strings removed.

    token_ids are those whose text ends here; logprobs (natural log) one each if asked for, with
    `top` the likeliest alternatives of each as (text, logprob). wasted: so many tokens, generated ahead of
    the commit, would be for nothing if the job ended now.
    """

    text: str
    token_ids: tuple[int, ...]
    revision: int = 0
    logprobs: tuple[float, ...] = ()
    top: tuple[tuple[tuple[str, float], ...], ...] = ()
    wasted: int = 0


class AudioChunk(Value, frozen=True):
    """Mono PCM16 little endian; start_ms is its place in the job's audio."""

    pcm16: bytes
    sample_rate: int
    start_ms: int


class ImageChunk(Value, frozen=True):
    """An encoded preview (of the predicted clean image) or the final image."""

    data: bytes
    mime: str
    width: int
    height: int
    step: int
    steps: int
    final: bool


class TranscriptChunk(Value, frozen=True):
    """text so far of the utterance; stability 0..1; start_ms and end_ms in the input audio. paused: the final
    text, if nothing more is said. cut: final, but the speaker goes on; an empty one may be what ends it."""

    text: str
    stability: float
    is_final: bool
    start_ms: int = 0
    end_ms: int = 0
    paused: bool = False
    cut: bool = False


class Usage(Value, frozen=True):
    """What a job consumed. Text: tokens; images: model evaluations; speech: characters and samples."""

    prompt_tokens: int = 0
    completion_tokens: int = 0
    reused_tokens: int = 0
    drafted_tokens: int = 0
    accepted_tokens: int = 0
    rolled_back_tokens: int = 0
    wasted_tokens: int = 0
    evaluations: int = 0
    evaluations_skipped: int = 0
    characters: int = 0
    audio_ms: int = 0


class DeviceTimings(Value, frozen=True):
    """What happened to a job on the device; filled in by the executor."""

    queue_ms: float = 0.0
    device_ms: float = 0.0
    preemptions: int = 0
    evictions: int = 0
    slices: int = 0


class Done(Value, frozen=True):
    """The last chunk of every job that was not cancelled and did not fail."""

    reason: FinishReason
    usage: Usage = Usage()
    timings: DeviceTimings = DeviceTimings()
    quality: str = "full"


class Failed(Value, frozen=True):
    """The job ended by an error. kind is the class name in pipelines/errors.py."""

    kind: str
    message: str
    field: str = ""
    retry_after_s: float = 0.0


Chunk = TokenChunk | AudioChunk | ImageChunk | TranscriptChunk | Done | Failed


# --- up the link -----------------------------------------------------------------------------------


class ModelInfo(Value, frozen=True):
    """What one loaded pipeline offers; `modality` is "text", "image", "speech" or "transcription". places:
    jobs that it admits at once, those ahead of their commit apart; 0 where it sets no bound."""

    name: str
    modality: str
    family: str
    parameters: int
    context_tokens: int = 0
    voices: tuple[str, ...] = ()
    sample_rate: int = 0
    sizes: tuple[tuple[int, int], ...] = ()
    max_steps: int = 0
    default_steps: int = 0
    schedulers: tuple[str, ...] = ()
    languages: tuple[str, ...] = ()
    loras: tuple[str, ...] = ()
    control: bool = False
    places: int = 0


class Ready(Value, frozen=True):
    """The device process has loaded its models."""

    models: tuple[ModelInfo, ...]


class LoadFailed(Value, frozen=True):
    """The device process cannot start; message names the file at fault."""

    message: str


class Emit(Value, frozen=True):
    """One chunk of one job."""

    job_id: int
    chunk: Chunk


class Trace(Value, frozen=True):
    """Chrome/Perfetto trace events as JSON."""

    json: bytes


class Stats(Value, frozen=True):
    """Device-wide counters, sent about once a second."""

    running: int
    suspended: int
    queued: int
    preemptions: int
    evictions: int
    device_busy_s: float
    longest_gap_ms: float
    cost_error: dict[str, float] = {}


Up = Ready | LoadFailed | Emit | Trace | Stats
