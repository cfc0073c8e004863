"""Programs that the tests of child processes start: `python children.py PROGRAM`."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from pathlib import Path

import trio

import trio_rpc


def write(value: object) -> None:
    sys.stdout.write(f"{value}\n")
    sys.stdout.flush()


class Plugin:
    """The service of a child process."""

    @trio_rpc.method
    async def echo(self, value: object) -> object:
        return value

    @trio_rpc.method
    async def pid(self) -> int:
        return os.getpid()

    @trio_rpc.method
    async def exit(self, code: int) -> None:
        os._exit(code)

    @trio_rpc.method
    async def die(self, signal_number: int) -> None:
        os.kill(os.getpid(), signal_number)

    @trio_rpc.method
    async def hang(self, *, task_status: trio.TaskStatus[int] = trio.TASK_STATUS_IGNORED) -> None:
        try:
            task_status.started(os.getpid())
            await trio.sleep_forever()
        finally:
            sys.stderr.write("cleaned up\n")

    @trio_rpc.method
    async def write_stderr(self, text: bytes) -> None:
        sys.stderr.buffer.write(text)
        sys.stderr.buffer.flush()

    @trio_rpc.method
    async def say(self, text: str) -> None:
        write(text)

    @trio_rpc.method
    async def surroundings(self) -> tuple[str, str | None]:
        return str(Path.cwd()), os.environ.get("COLOUR")

    @trio_rpc.method
    async def run(self, *command: str) -> str:
        """Run a program and return its output."""
        return (await trio.run_process([*command], capture_stdout=True)).stdout.decode()

    @trio_rpc.method
    async def count(self, steps: int, on_step: Callable[[int], Awaitable[int]]) -> int:
        return sum([await on_step(step) for step in range(steps)])

    @trio_rpc.stream
    async def numbers(self, most: int) -> AsyncGenerator[int, None]:
        for number in range(most):
            yield number

    @trio_rpc.method
    async def ask_parent(self, value: object) -> object:
        return await trio_rpc.current_call().session.call("parent.echo", value)

    @trio_rpc.method
    async def ask_target(self, value: object) -> object:
        """Ask the parent's service without a name."""
        return await trio_rpc.current_call().session.call("echo", value)


def serve() -> None:
    trio.run(trio_rpc.serve_parent, Plugin())


def lingering() -> None:
    """Go on after the session is over, until SIGTERM."""
    serve()
    time.sleep(60)


def stubborn() -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    lingering()


def leaving() -> None:
    """Close the session when the parent asks for it."""
    asked = trio.Event()

    class Leaver:
        @trio_rpc.method
        async def leave(self) -> None:
            asked.set()

    async def main() -> None:
        async with trio_rpc.open_parent(Leaver()):
            await asked.wait()

    trio.run(main)


def forwarding() -> None:
    """Serve a channel for each name over the parent's channel, and open one back."""

    async def serve_named(channel: trio.abc.Channel[bytes], name: str) -> None:
        if name == "secret":
            raise trio_rpc.Refused("not for you")
        await trio_rpc.serve_session(channel, {name: Plugin()})

    async def main() -> None:
        async with (
            trio_rpc.channels.open_parent_channel() as carrier,
            trio_rpc.channels.open_forwarding(
                carrier, {"plugins/{name}": serve_named}
            ) as forwarding,
            await forwarding.open("back") as back,
        ):
            await back.send(b"from the child")
            await forwarding.wait_closed()

    trio.run(main)


def echo() -> None:
    """Send each packet of the parent back."""

    async def main() -> None:
        async with trio_rpc.channels.open_parent_channel() as channel:
            async for packet in channel:
                await channel.send(packet)

    trio.run(main)


def parent() -> None:
    """Start a child, print its process id, and hang."""

    async def main() -> None:
        async with trio_rpc.open_process([sys.executable, __file__, "serve"]) as session:
            write(await session.call("pid"))
            await session.call("hang")

    trio.run(main)


PROGRAMS = {
    each.__name__: each for each in (serve, lingering, stubborn, leaving, forwarding, echo, parent)
}

if __name__ == "__main__":
    PROGRAMS[sys.argv[1]]()
