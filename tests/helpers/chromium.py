"""A headless Chromium. Playwright has no Trio support, so it drives the browser in a thread."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

import trio

T = TypeVar("T")

FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
PATIENCE_MS = 120_000

MESSAGE = """
const { Message, MessageError } = await import("/message.js");
const message = new Message();
"""
"""Makes a client of a gateway, at the beginning of a script."""


def why_not() -> str:
    """Return the name of a missing requirement, or "" if none is missing."""
    try:
        import playwright.sync_api  # noqa: F401 - only checks that it is installed
    except ImportError:
        return "playwright is not installed"
    return "" if executable() else "there is no chromium"


def executable() -> str | None:
    return os.environ.get("CHROMIUM") or shutil.which("chromium")


class Chromium:
    """A browser, and the one thread that drives it."""

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(1)
        self._thread.submit(self._start).result(60)

    def _start(self) -> None:
        from playwright.sync_api import sync_playwright

        self._playwright = sync_playwright().start()
        self._browser = self._playwright.chromium.launch(
            executable_path=executable(), args=FLAGS, timeout=PATIENCE_MS
        )

    def stop(self) -> None:
        def stop() -> None:
            self._browser.close()
            self._playwright.stop()

        self._thread.submit(stop).result(60)
        self._thread.shutdown()

    async def run(self, function: Callable[..., T], *args: Any) -> T:
        """Run a function in the browser's thread, while this thread keeps serving."""
        job = self._thread.submit(function, *args)
        return await trio.to_thread.run_sync(job.result)

    def new_page(self, url: str) -> Any:
        """Open a tab, in the browser's thread. The page's uncaught errors collect in ``errors``."""
        page = self._browser.new_page()
        page.set_default_timeout(PATIENCE_MS)
        page.errors = []
        page.on("pageerror", lambda error: page.errors.append(str(error)))
        page.goto(url)
        return page


def screenshot(page: Any, name: str) -> None:
    """Save a picture of a page for people to look at, in a folder that git ignores."""
    folder = Path(__file__).parents[2] / "out"
    folder.mkdir(exist_ok=True)
    page.screenshot(path=folder / f"{name}.png")


async def evaluate_at(chromium: Chromium, url: str, script: str) -> Any:
    """Run a script in a new tab as the body of an async function, and return its result.

    It has a ``message``, a client of the gateway there.
    """

    def run() -> Any:
        page = chromium.new_page(url)
        try:
            return page.evaluate(f"async () => {{ {MESSAGE} {script} }}")
        finally:
            assert page.errors == []
            page.close()

    return await chromium.run(run)
