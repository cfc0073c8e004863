"""The UI gateway: HTTP starts a call, a WebSocket carries its callbacks.

Needs the extra ``gateway``.
"""

from trio_rpc.util.extras import needs_extra

try:
    from trio_rpc.gateway.client.job import Job
    from trio_rpc.gateway.client.message import Message
    from trio_rpc.gateway.limits import GatewayLimits
    from trio_rpc.gateway.openapi import openapi
    from trio_rpc.gateway.server.app import Gateway
    from trio_rpc.gateway.server.asyncio_host import run_in_asyncio, run_in_trio
    from trio_rpc.gateway.server.call import call_back
    from trio_rpc.gateway.server.standalone import open_http_server, serve, without_deflate
    from trio_rpc.gateway.spread.open_spread import Spread, open_spread
    from trio_rpc.services.outliving import outlives
    from trio_rpc.session.http_request import HttpRequest
except ModuleNotFoundError as exc:
    text = needs_extra("trio_rpc.gateway", "gateway", exc)
    if text is None:
        raise
    raise ModuleNotFoundError(text, name=exc.name) from None

__all__ = [
    "Gateway",
    "GatewayLimits",
    "HttpRequest",
    "Job",
    "Message",
    "Spread",
    "call_back",
    "open_http_server",
    "open_spread",
    "openapi",
    "outlives",
    "run_in_asyncio",
    "run_in_trio",
    "serve",
    "without_deflate",
]
