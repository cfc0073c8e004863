"""Transports: each is a trio.abc.Channel[bytes] that carries whole packets."""

from __future__ import annotations

from trio_rpc.channels.connection import Connection
from trio_rpc.channels.errors import (
    ChannelBroken,
    ChannelEnded,
    EndDetail,
    ProcessExit,
    WebSocketClose,
)
from trio_rpc.channels.forwarding.at_urls import connect_forwarding, serve_forwarding
from trio_rpc.channels.forwarding.channel import Forwarding, ForwardingChannel, open_forwarding
from trio_rpc.channels.forwarding.routes import ChannelHandler
from trio_rpc.channels.listeners import ChannelListener
from trio_rpc.channels.memory import MemoryChannel, memory_channel_pair
from trio_rpc.channels.opening import open_channel, open_listeners
from trio_rpc.channels.process import (
    ProcessChannel,
    open_parent_channel,
    open_process_channel,
)
from trio_rpc.channels.relay import relay
from trio_rpc.channels.resumable.channel import ResumableChannel
from trio_rpc.channels.resumable.client import open_resumable
from trio_rpc.channels.resumable.connection_states import ConnectionState, ConnectionStates
from trio_rpc.channels.resumable.replay import carrier_limits
from trio_rpc.channels.resumable.server import Arrival, ResumableSessions
from trio_rpc.channels.resumable.settings import Resume
from trio_rpc.channels.stream import StreamChannel
from trio_rpc.channels.thread import ThreadChannel, ThreadMain, open_thread_channel
from trio_rpc.channels.urls import Address, parse_url
from trio_rpc.channels.websocket.channel import WebSocketChannel

__all__ = [
    "Address",
    "Arrival",
    "ChannelBroken",
    "ChannelEnded",
    "ChannelHandler",
    "ChannelListener",
    "Connection",
    "ConnectionState",
    "ConnectionStates",
    "EndDetail",
    "Forwarding",
    "ForwardingChannel",
    "MemoryChannel",
    "ProcessChannel",
    "ProcessExit",
    "ResumableChannel",
    "ResumableSessions",
    "Resume",
    "StreamChannel",
    "ThreadChannel",
    "ThreadMain",
    "WebSocketChannel",
    "WebSocketClose",
    "carrier_limits",
    "connect_forwarding",
    "memory_channel_pair",
    "open_channel",
    "open_forwarding",
    "open_listeners",
    "open_parent_channel",
    "open_process_channel",
    "open_resumable",
    "open_thread_channel",
    "parse_url",
    "relay",
    "serve_forwarding",
]
