"""A directory scan with a web page in front of it.

Serve it:    uv run python -m examples.scan
The same:    uv run trio-rpc serve examples.scan.service:services \\
                 --pages examples/scan/pages --listen http://127.0.0.1:8000
"""

from __future__ import annotations

import os
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

import trio
import trio_rpc


@dataclass
class Item:
    path: str
    size: int


@dataclass
class Summary:
    files: int
    bytes: int
    seconds: float


@dataclass
class Scanner:
    """Lists the files below one folder. Paths outside of it are refused."""

    root: Path

    @trio_rpc.method(raises=(ValueError,))
    async def scan(
        self,
        folder: str,
        found: Callable[[Item], Awaitable[None]],
        progress: Callable[[float], Awaitable[None]],
        pause: float = 0.0,
    ) -> Summary:
        """Report each file to the page, and the progress from 0 to 1.

        A thread reads the file system and makes the callbacks. When the page cancels the call or is
        gone, the next callback raises Cancelled in the thread.
        """
        start = trio.current_time()
        top = await trio.to_thread.run_sync(self._resolve, folder)

        def work() -> tuple[int, int]:
            files = size = 0
            entries = sorted(os.scandir(top), key=lambda entry: entry.name)
            for done, entry in enumerate(entries):
                for item in self._items(entry):
                    files, size = files + 1, size + item.size
                    trio.from_thread.run(found, item)
                    time.sleep(min(max(pause, 0), 1))  # so that a user can watch
                trio.from_thread.run(progress, (done + 1) / len(entries))
            return files, size

        files, size = await trio.to_thread.run_sync(work)
        return Summary(files, size, trio.current_time() - start)

    def _resolve(self, folder: str) -> Path:
        root = self.root.resolve()
        top = (root / folder.strip("/")).resolve()
        if not top.is_relative_to(root) or not top.is_dir():
            raise ValueError(f"there is no folder {folder!r} here")
        return top

    def _items(self, entry: os.DirEntry[str]) -> list[Item]:
        root = self.root.resolve()
        if entry.is_symlink():
            return []
        if entry.is_file():
            return [Item(str(Path(entry.path).relative_to(root)), entry.stat().st_size)]
        return [
            Item(str(path.relative_to(root)), path.stat().st_size)
            for path in sorted(Path(entry.path).rglob("*"))
            if path.is_file() and not path.is_symlink()
        ]


services = Scanner(Path.cwd())
