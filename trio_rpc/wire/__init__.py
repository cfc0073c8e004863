"""Wire format: messages, codec, type registry, framing. No I/O, no Trio."""

from __future__ import annotations

from trio_rpc.wire.codec import Codec
from trio_rpc.wire.framing import FrameReader, frame
from trio_rpc.wire.limits import DEFAULT_LIMITS, Limits
from trio_rpc.wire.messages import Message, Reference
from trio_rpc.wire.registry import TypeRegistry

__all__ = [
    "DEFAULT_LIMITS",
    "Codec",
    "FrameReader",
    "Limits",
    "Message",
    "Reference",
    "TypeRegistry",
    "frame",
]
