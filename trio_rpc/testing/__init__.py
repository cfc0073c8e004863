"""Fakes, faults and conformance suites, for this project and for its users."""

from __future__ import annotations

from trio_rpc.testing.channels import (
    ChannelMaker,
    MemoryChannel,
    check_channel,
    memory_channel_pair,
)
from trio_rpc.testing.chaos import ChaosProxy, open_chaos_proxy
from trio_rpc.testing.faults import Failure, Faults, Link
from trio_rpc.testing.faulty import FaultyPair, open_faulty_pair
from trio_rpc.testing.sessions import open_session_pair

__all__ = [
    "ChannelMaker",
    "ChaosProxy",
    "Failure",
    "Faults",
    "FaultyPair",
    "Link",
    "MemoryChannel",
    "check_channel",
    "memory_channel_pair",
    "open_chaos_proxy",
    "open_faulty_pair",
    "open_session_pair",
]
