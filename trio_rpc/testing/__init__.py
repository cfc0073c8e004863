"""Fakes and conformance suites, for this project and for its users."""

from __future__ import annotations

from trio_rpc.testing.channels import MemoryChannel, memory_channel_pair

__all__ = ["MemoryChannel", "memory_channel_pair"]
