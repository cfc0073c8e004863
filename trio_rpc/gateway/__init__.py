"""The UI gateway: HTTP starts a call, a WebSocket carries its callbacks. Needs the extra ``gateway``."""

from trio_rpc.gateway.client import Message
from trio_rpc.gateway.limits import GatewayLimits
from trio_rpc.gateway.server import Gateway, outlives
from trio_rpc.gateway.standalone import open_http_server, serve, without_deflate
from trio_rpc.gateway.work import call_back

__all__ = [
    "Gateway",
    "GatewayLimits",
    "Message",
    "call_back",
    "open_http_server",
    "outlives",
    "serve",
    "without_deflate",
]
