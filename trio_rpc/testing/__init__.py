"""Fakes and conformance suites, for this project and for its users."""

from __future__ import annotations

from trio_rpc.testing.channels import (
    ChannelMaker,
    MemoryChannel,
    check_channel,
    memory_channel_pair,
)
from trio_rpc.testing.sessions import open_session_pair

__all__ = [
    "ChannelMaker",
    "MemoryChannel",
    "check_channel",
    "memory_channel_pair",
    "open_session_pair",
]
