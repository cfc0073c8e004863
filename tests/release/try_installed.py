"""Tries an installed trio_rpc: ``try_installed.py base|cli|gateway``; run by .ci/release.

It uses nothing of the repository.
"""

from __future__ import annotations

import importlib.metadata
import json
import subprocess
import sys
from collections.abc import AsyncGenerator, Awaitable, Callable
from pathlib import Path

import trio

import trio_rpc


class Unknown(Exception):
    """An error that a method declares."""


class Service:
    """One method of each kind that matters here."""

    @trio_rpc.method(raises=(Unknown,))
    async def find(self, name: str) -> int:
        """Raise Unknown."""
        raise Unknown(name)

    @trio_rpc.method
    async def work(self, progress: Callable[[float], Awaitable[None]]) -> str:
        """Call back, and return."""
        await progress(0.5)
        return "done"

    @trio_rpc.stream
    async def count(self) -> AsyncGenerator[int, None]:
        """Yield numbers until the consumer leaves."""
        number = 0
        while True:
            yield number
            number += 1


async def try_base() -> None:
    """Call a service over TCP: a callback, an error, a stream, a cancellation."""
    seen: list[float] = []

    async def progress(share: float) -> None:
        seen.append(share)

    async with (
        trio_rpc.open_server(Service(), "tcp://127.0.0.1:0") as server,
        trio_rpc.connect(server.urls[0]) as session,
    ):
        service = session.proxy("", Service)
        assert await service.work(progress) == "done"
        assert seen == [0.5]
        error = None
        try:
            await service.find("x")
        except Unknown as exc:
            error = exc
        assert error is not None
        assert error.args == ("x",)
        async with service.count() as numbers:
            assert [await numbers.receive() for _ in range(3)] == [0, 1, 2]


async def try_gateway() -> None:
    """Call a service over HTTP and a WebSocket, and get the JavaScript client."""
    from trio_rpc.gateway import Gateway, Message, open_http_server

    class Web:
        @trio_rpc.method
        async def work(self, progress: Callable[[float], Awaitable[None]]) -> str:
            await progress(0.5)
            return "done"

    seen: list[float] = []
    async with open_http_server(Gateway(Web()), "http://127.0.0.1:0") as urls:
        message = Message("127.0.0.1", int(urls[0].rpartition(":")[2].rstrip("/")))
        async with message.connect():
            assert await message.post("work", callbacks={"progress": seen.append}) == "done"
    assert seen == [0.5]
    static = Path(trio_rpc.__file__).parent / "gateway" / "static"
    assert (static / "message.js").exists()
    assert (static / "message.d.ts").exists()


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the command line."""
    command = [str(Path(sys.executable).with_name("trio-rpc")), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)


def try_cli() -> None:
    """Run the demo, and two more commands."""
    version = importlib.metadata.version("trio-rpc")
    assert run("--version").stdout.strip() == version
    demo = run("demo", "--quick", "--json")
    assert demo.returncode == 0, demo.stderr
    assert json.loads(demo.stdout.splitlines()[-1])
    assert run("call").returncode == 2


def try_without_extras() -> None:
    """Check that the parts that need an extra say so."""
    done = run("demo")
    assert done.returncode == 2
    assert "pip install '.[cli]'" in done.stderr
    text = ""
    try:
        import trio_rpc.gateway  # noqa: F401
    except ModuleNotFoundError as exc:
        text = str(exc)
    assert "pip install '.[gateway]'" in text


def main(what: str) -> None:
    """Try one way of installing."""
    package = Path(trio_rpc.__file__).parent
    assert package.is_relative_to(sys.prefix), f"{package} is not the installed one"
    assert (package / "py.typed").exists()
    assert trio_rpc.__version__ == importlib.metadata.version("trio-rpc")
    trio.run(try_base)
    if what == "base":
        try_without_extras()
    elif what == "cli":
        try_cli()
    else:
        trio.run(try_gateway)
    print("works")


if __name__ == "__main__":
    main(*sys.argv[1:])
