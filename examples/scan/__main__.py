"""uv run python -m examples.scan [FOLDER] [PORT]: serve the page that scans FOLDER."""

from __future__ import annotations

import sys
from pathlib import Path

import trio
from trio_rpc.gateway import Gateway, open_http_server

from examples.scan.service import Scanner

PAGES = Path(__file__).parent / "pages"


async def main(folder: str = ".", port: str = "8000") -> None:
    gateway = Gateway(Scanner(Path(folder)), pages=PAGES)
    async with open_http_server(gateway, f"http://127.0.0.1:{port}") as [url]:
        print(f"look at {url}/", flush=True)
        await trio.sleep_forever()


if __name__ == "__main__":
    try:
        trio.run(main, *sys.argv[1:])
    except* KeyboardInterrupt:
        pass
