"""Run a script at the JavaScript end of a session: in Node, or in a page of Chromium."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any, Protocol

import trio_rpc
from helpers.chromium import Chromium
from helpers.gateway_tools import hosting
from helpers.node_session import TOOLS, run_node
from trio_rpc.gateway import Gateway
from trio_rpc.testing import ChaosProxy, open_chaos_proxy

Run = Callable[[str, str], Awaitable[list[Any]]]


class JavaScriptEnd(Protocol):
    """A place for scripts. ``open`` gives the origin of their pages, and a function to run one."""

    def open(self, folder: Path) -> contextlib.AbstractAsyncContextManager[tuple[str | None, Run]]:
        """Prepare to run scripts."""


class NodeEnd:
    """Scripts run in Node, with the modules as they are in the source."""

    @contextlib.asynccontextmanager
    async def open(self, folder: Path) -> AsyncIterator[tuple[str | None, Run]]:
        """Prepare to run scripts."""

        async def run(script: str, url: str) -> list[Any]:
            return await run_node(folder, script, url)

        yield None, run


class ChromiumEnd:
    """Scripts run in a page of a gateway, with the files that the gateway serves."""

    def __init__(self, chromium: Chromium) -> None:
        self.chromium = chromium

    @contextlib.asynccontextmanager
    async def open(self, folder: Path) -> AsyncIterator[tuple[str | None, Run]]:
        """Prepare to run scripts."""
        (folder / "index.html").write_text("<!doctype html><title>a page</title>")
        async with hosting(Gateway({}, pages=folder)) as origin:

            async def run(script: str, url: str) -> list[Any]:
                return await self.chromium.run(self._evaluate, origin, script, url)

            yield origin, run

    def _evaluate(self, origin: str, script: str, url: str) -> list[Any]:
        page = self.chromium.new_page(origin + "/")
        try:
            reported: list[Any] = page.evaluate(
                'async (url) => { const rpc = await import("/session.js");'
                f"{TOOLS} {script}; return reported; }}",
                url,
            )
            return reported
        finally:
            assert page.errors == []
            page.close()


async def run_both(
    end: JavaScriptEnd,
    folder: Path,
    script: str,
    services: object,
    *,
    proxied: Callable[[ChaosProxy], None] | None = None,
    **options: Any,
) -> list[Any]:
    """Serve services, run a script that can connect to ``url``, and return its report.

    The server has ended with all of its handlers when this returns.

    Args:
        end: the end at which the script runs.
        folder: the folder for its files.
        script: the script; ``rpc`` is the module.
        services: the services of the server.
        proxied: gets a proxy that can cut the connections.
        **options: the options of the server.
    """
    async with (
        end.open(folder) as (origin, run),
        trio_rpc.open_server(
            services,
            "ws://127.0.0.1:0",
            allowed_origins=[origin] if origin else None,
            **options,
        ) as server,
    ):
        if proxied is None:
            return await run(script, server.urls[0])
        async with open_chaos_proxy(server.urls[0]) as proxy:
            proxied(proxy)
            return await run(script, proxy.url)
