"""The UI gateway: HTTP starts a call, a WebSocket carries its callbacks.

Needs the extra ``gateway``.
"""

try:
    from trio_rpc.gateway.client.message import Message
    from trio_rpc.gateway.limits import GatewayLimits
    from trio_rpc.gateway.server.app import Gateway
    from trio_rpc.gateway.server.call import call_back
    from trio_rpc.gateway.server.results import outlives
    from trio_rpc.gateway.server.standalone import open_http_server, serve, without_deflate
except ModuleNotFoundError as exc:
    missing = (exc.name or "").partition(".")[0]
    if missing not in ("httpx", "hypercorn", "starlette"):
        raise
    text = f"trio_rpc.gateway needs {missing}: pip install 'trio-rpc[gateway]'"
    raise ModuleNotFoundError(text, name=missing) from None

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
