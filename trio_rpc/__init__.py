"""Remote calls that live inside your nursery.

Two programs share a session over a channel, and either may call the other. A remote call behaves as
a local ``await`` does: it has one parent, it ends before its caller goes on, cancelling the caller
cancels the handler, and the handler's exceptions are raised at its caller.
"""

from __future__ import annotations

from trio_rpc.util.interrupts import exit_on_interrupt as _exit_on_interrupt

_exit_on_interrupt()  # before the other modules, which take most of the time

# isort: split
from trio_rpc.channels.instance import Instance
from trio_rpc.channels.resumable.connection_states import ConnectionState
from trio_rpc.channels.resumable.settings import Resume
from trio_rpc.client import connect, connect_in
from trio_rpc.errors import (
    CallError,
    DecodeError,
    EncodeError,
    Fate,
    InvalidArguments,
    LocalProtocolError,
    MethodNotFound,
    Overloaded,
    ProtocolError,
    Refused,
    RemoteCancelled,
    RemoteError,
    RemoteProtocolError,
    RemoteTraceback,
    RpcError,
    SessionBroken,
    SessionClosed,
    Unavailable,
)
from trio_rpc.one_to_one.connection_handler import ConnectionHandler, serve_connections
from trio_rpc.one_to_one.kept_process import KeptProcess, keep_process
from trio_rpc.one_to_one.process_states import ProcessState
from trio_rpc.one_to_one.restart import Restart
from trio_rpc.one_to_one.service_client import ServiceClient
from trio_rpc.one_to_one.service_provider import ServiceProvider
from trio_rpc.pool.instances import Instances, InstanceStatus
from trio_rpc.pool.open_pool import open_pool
from trio_rpc.pool.pool import Pool
from trio_rpc.process import open_parent, open_process, serve_parent
from trio_rpc.server import Server, open_server, serve
from trio_rpc.services.decorators import duplex, method, notification, stream
from trio_rpc.services.fallbacks import fallback
from trio_rpc.services.interfaces import Identifier
from trio_rpc.services.item_stream import ItemStream
from trio_rpc.services.proxies import Proxy, RemoteMethod
from trio_rpc.services.schemas import schema
from trio_rpc.session.calls.context import metadata
from trio_rpc.session.current import current_call
from trio_rpc.session.draining import DrainingEvent
from trio_rpc.session.end import ClosedEvent, SessionEnd
from trio_rpc.session.inspection import ScopeNode, ServerStatistics, SessionStatistics
from trio_rpc.session.opening import open_session, serve_session
from trio_rpc.session.options import Authenticate, Options, SessionOptions
from trio_rpc.session.peer import Peer
from trio_rpc.session.session import Call, Filter, Session
from trio_rpc.session.session_events import SessionEvent
from trio_rpc.session.streams.scopes import RemoteScope
from trio_rpc.thread import open_thread
from trio_rpc.wire.limits import DEFAULT_LIMITS, Limits, ServerLimits
from trio_rpc.wire.registry import TypeRegistry

__all__ = [
    "DEFAULT_LIMITS",
    "Authenticate",
    "Call",
    "CallError",
    "ClosedEvent",
    "ConnectionHandler",
    "ConnectionState",
    "DecodeError",
    "DrainingEvent",
    "EncodeError",
    "Fate",
    "Filter",
    "Identifier",
    "Instance",
    "InstanceStatus",
    "Instances",
    "InvalidArguments",
    "ItemStream",
    "KeptProcess",
    "Limits",
    "LocalProtocolError",
    "MethodNotFound",
    "Options",
    "Overloaded",
    "Peer",
    "Pool",
    "ProcessState",
    "ProtocolError",
    "Proxy",
    "Refused",
    "RemoteCancelled",
    "RemoteError",
    "RemoteMethod",
    "RemoteProtocolError",
    "RemoteScope",
    "RemoteTraceback",
    "Restart",
    "Resume",
    "RpcError",
    "ScopeNode",
    "Server",
    "ServerLimits",
    "ServerStatistics",
    "ServiceClient",
    "ServiceProvider",
    "Session",
    "SessionBroken",
    "SessionClosed",
    "SessionEnd",
    "SessionEvent",
    "SessionOptions",
    "SessionStatistics",
    "TypeRegistry",
    "Unavailable",
    "__version__",
    "connect",
    "connect_in",
    "current_call",
    "duplex",
    "fallback",
    "keep_process",
    "metadata",
    "method",
    "notification",
    "open_parent",
    "open_pool",
    "open_process",
    "open_server",
    "open_session",
    "open_thread",
    "schema",
    "serve",
    "serve_connections",
    "serve_parent",
    "serve_session",
    "stream",
]

__version__ = "0.1.0"
