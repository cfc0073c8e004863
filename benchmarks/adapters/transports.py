"""trio_rpc over one transport after the other, with certificates made for the run."""

from __future__ import annotations

import ssl
import tempfile
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from importlib.util import find_spec
from typing import Any

import trio

from benchmarks.adapter import Adapter, trio_adapter
from benchmarks.adapters.library import Bench, many_sessions
from benchmarks.interface import Calls, Ready
from trio_rpc import connect, serve

__all__ = ["ADAPTERS"]


def _server_context() -> ssl.SSLContext:
    import trustme  # noqa: PLC0415 - without it, rows under TLS are omitted

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    trustme.CA().issue_cert("127.0.0.1").configure_cert(context)
    return context


def _client_context() -> ssl.SSLContext:
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE  # the certificate authority is in the other process
    return context


def _serve(
    scheme: str, *, resume: bool = False
) -> Callable[[Sequence[str], Ready], Awaitable[None]]:
    async def serve_bench(hosts: Sequence[str], ready: Ready) -> None:
        options = {"resume": resume, **many_sessions()}
        if scheme in ("tls", "wss"):
            options["ssl_context"] = _server_context()
        async with trio.open_nursery() as nursery:
            with tempfile.TemporaryDirectory() as folder:
                url = f"unix://{folder}/socket" if scheme == "unix" else f"{scheme}://{hosts[0]}:0"

                async def run(*, task_status: trio.TaskStatus[list[str]]) -> None:
                    await serve({"bench": Bench()}, url, task_status=task_status, **options)

                ready(await nursery.start(run))
                await trio.sleep_forever()

    return serve_bench


def _open_client(*, resume: bool) -> Callable[[str], AbstractAsyncContextManager[Calls]]:
    @asynccontextmanager
    async def open_client(url: str) -> AsyncGenerator[Calls]:
        options: dict[str, Any] = {"resume": resume}
        if url.startswith(("tls:", "wss:")):
            options["ssl_context"] = _client_context()
        async with connect(url, **options) as session:
            bench = session.proxy("bench", Bench)
            yield Calls(echo=bench.echo, large=bench.large)

    return open_client


def _adapter(scheme: str, title: str, parts: str) -> Adapter:
    resume = scheme == "resumable"
    return trio_adapter(
        f"trio_rpc-{scheme}",
        f"trio_rpc over {title}",
        parts,
        serve=_serve("tcp" if resume else scheme, resume=resume),
        open_client=_open_client(resume=resume),
    )


PLAIN = (
    _adapter("tcp", "TCP", "transports"),
    _adapter("resumable", "TCP, resumable", "transports"),
    _adapter("unix", "a Unix socket", "transports"),
    _adapter("ws", "a WebSocket", "websockets sessions transports"),
)
ENCRYPTED = (
    _adapter("tls", "TLS", "transports"),
    _adapter("wss", "a WebSocket under TLS", "websockets transports"),
)
ADAPTERS = PLAIN + ENCRYPTED if find_spec("trustme") else PLAIN
