"""uv run python -m examples.workbench [PORT]: serve the page, its sessions, and its plugins."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path

import trio
import trio_rpc
from trio_rpc.gateway import Gateway, open_http_server

from examples.workbench.host import PLUGINS, Workbench

PAGES = Path(__file__).parent / "pages"


class Site:
    """The service behind the page's own origin."""

    def __init__(self) -> None:
        self.url = ""

    @trio_rpc.method
    async def sessions(self) -> str:
        """Return the URL at which pages open their sessions."""
        return self.url


@contextlib.asynccontextmanager
async def open_workbench(
    port: int, plugins: Mapping[str, Sequence[str]] = PLUGINS
) -> AsyncIterator[str]:
    """Serve the page, and return its URL.

    Sessions have the next port: the same one after a restart, so that a page that wants to resume
    its session learns that it is over. With port 0 both ports are any free ones.
    """
    workbench, site = Workbench(plugins), Site()
    async with open_http_server(Gateway(site, pages=PAGES), f"http://127.0.0.1:{port}") as [url]:
        origins = [url.rstrip("/"), url.rstrip("/").replace("127.0.0.1", "localhost")]
        sessions = f"ws://127.0.0.1:{port and port + 1}"
        async with (
            workbench.running(),
            trio_rpc.open_server(
                {"workbench": workbench}, sessions, allowed_origins=origins, resume=True
            ) as server,
        ):
            [site.url] = server.urls
            yield url


async def main(port: str = "8000") -> None:
    async with open_workbench(int(port)) as url:
        print(f"look at {url}/", flush=True)
        await trio.sleep_forever()


if __name__ == "__main__":
    try:
        trio.run(main, *sys.argv[1:])
    except* KeyboardInterrupt:
        pass
