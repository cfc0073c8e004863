"""Transports: each is a trio.abc.Channel[bytes] that carries whole packets."""

from __future__ import annotations

from trio_rpc.channels.connection import Connection
from trio_rpc.channels.listeners import ChannelListener
from trio_rpc.channels.memory import MemoryChannel, memory_channel_pair
from trio_rpc.channels.opening import open_channel, open_listeners
from trio_rpc.channels.process import ProcessChannel
from trio_rpc.channels.stream import StreamChannel
from trio_rpc.channels.urls import Address, parse_url
from trio_rpc.channels.websocket import WebSocketChannel

__all__ = [
    "Address",
    "ChannelListener",
    "Connection",
    "MemoryChannel",
    "ProcessChannel",
    "StreamChannel",
    "WebSocketChannel",
    "memory_channel_pair",
    "open_channel",
    "open_listeners",
    "parse_url",
]
