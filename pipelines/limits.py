"""What a client may ask for at most. The gateway refuses by it in the wire's words; pipelines check again."""

from __future__ import annotations

from typing import Final

# Text. MAX_GRAMMAR_CHARS: of a JSON schema or a regular expression. Scores divided by less than the least
# repetition penalty, or by a temperature below COLDEST, could leave what fp32 can hold; so cold, the
# likeliest token is taken, since noise counts for nothing.
MAX_LOGPROBS: Final = 20
MAX_STOPS: Final = 8
MAX_STOP_CHARS: Final = 64
MAX_GRAMMAR_CHARS: Final = 65_536
REPETITION_LIMITS: Final = (0.01, 2.0)
COLDEST: Final = 1e-6

# Speech: factors; Hz of what is heard and said.
RATE_LIMITS: Final = (0.5, 2.0)
PITCH_LIMITS: Final = (0.5, 2.0)
SAMPLE_RATE_LIMITS: Final = (8_000, 48_000)

# Images. MIN_SIDE in pixels; MAX_IMAGE_BYTES of an image that a client sends.
MAX_STEPS: Final = 150
MAX_GUIDANCE: Final = 30.0
MAX_LORAS: Final = 8
MAX_LORA_WEIGHT: Final = 8.0
MAX_PREVIEW_MS: Final = 60_000
MAX_IMAGE_BYTES: Final = 16 << 20
MIN_SIDE: Final = 64
MIMES: Final = ("image/png", "image/jpeg", "image/webp")
