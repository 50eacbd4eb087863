"""Clients of the gateway; they know the wire contract and nothing of the server."""

from upbeat.v1.types_pb2 import (
    ImageOptions,
    LoraWeight,
    ModelChoice,
    ReferenceImage,
    Sampling,
    ServiceOptions,
    VoiceOptions,
)

from clients.client import Upbeat
from clients.errors import ClientError
from clients.events import Audio, Discarded, Done, Event, Image, Ready, Thought, Token, Transcript
from clients.talk import Talk

__all__ = [
    "Audio",
    "ClientError",
    "Discarded",
    "Done",
    "Event",
    "Image",
    "ImageOptions",
    "LoraWeight",
    "ModelChoice",
    "Ready",
    "ReferenceImage",
    "Sampling",
    "ServiceOptions",
    "Talk",
    "Thought",
    "Token",
    "Transcript",
    "Upbeat",
    "VoiceOptions",
]
