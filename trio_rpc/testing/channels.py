"""What every channel must do: :func:`check_channel`, and a pair in memory to test with."""

from __future__ import annotations

from trio_rpc.channels.memory import MemoryChannel, memory_channel_pair

__all__ = ["MemoryChannel", "memory_channel_pair"]
