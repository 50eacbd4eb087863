"""How messages travel: msgpack, with PCM and image bytes in a frame of their own, copied once.

Rules: a message is one or two frames; the second frame, if there is one, is the payload of the chunk in the
first. Types are checked while decoding.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from pipelines.messages import AudioChunk, Chunk, Down, Emit, ImageChunk, Up

_encode = msgspec.msgpack.Encoder().encode
_DOWN: msgspec.msgpack.Decoder[Down] = msgspec.msgpack.Decoder(Down)
_UP: msgspec.msgpack.Decoder[Up] = msgspec.msgpack.Decoder(Up)


def pack_down(message: Down) -> bytes:
    """Gateway to device."""
    return _encode(message)


def unpack_down(frame: bytes) -> Down:
    """Raises: msgspec.DecodeError."""
    return _DOWN.decode(frame)


def pack_up(message: Up) -> list[bytes]:
    """Device to gateway."""
    if isinstance(message, Emit):
        payload = _payload(message.chunk)
        if payload:
            return [_encode(Emit(message.job_id, _with_payload(message.chunk, b""))), payload]
    return [_encode(message)]


def unpack_up(frames: Sequence[bytes]) -> Up:
    """Raises: msgspec.DecodeError."""
    message = _UP.decode(frames[0])
    if len(frames) == 2 and isinstance(message, Emit):
        return Emit(message.job_id, _with_payload(message.chunk, frames[1]))
    return message


def _payload(chunk: Chunk) -> bytes:
    if isinstance(chunk, AudioChunk):
        return chunk.pcm16
    return chunk.data if isinstance(chunk, ImageChunk) else b""


def _with_payload(chunk: Chunk, payload: bytes) -> Chunk:
    if isinstance(chunk, AudioChunk):
        return msgspec.structs.replace(chunk, pcm16=payload)
    assert isinstance(chunk, ImageChunk)
    return msgspec.structs.replace(chunk, data=payload)
