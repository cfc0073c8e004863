"""A host whose plugins are child processes: uv run python -m examples.plugins.host

One plugin works, one crashes, and one hangs. The host gets one error for each of the last two.
"""

from __future__ import annotations

import sys

import trio

import trio_rpc
from examples.plugins.interface import Plugin, Settings

PATIENCE = 1.0
"""Seconds that a plugin may take to render a text."""

LIMITS = trio_rpc.Limits(cancel_grace=0.2)
"""The grace period for a cancelled plugin. One that has not ended by then is abandoned."""


async def use(name: str, text: str) -> None:
    async def progress(share: float) -> None:
        print(f"{name}: {share:.0%}")

    command = [sys.executable, "-m", f"examples.plugins.{name}"]
    try:
        async with trio_rpc.open_process(
            command, {"settings": Settings()}, name=name, limits=LIMITS
        ) as session:
            plugin = session.proxy("", Plugin)
            with trio.fail_after(PATIENCE):
                print(f"{name}: {await plugin.render(text, progress)}")
    except trio_rpc.SessionBroken as exc:
        print(f"{name} failed: {exc}")
    except trio.TooSlowError:
        print(f"{name} failed: no answer within {PATIENCE:g} s")


async def main() -> None:
    async with trio.open_nursery() as nursery:
        for name in ("shout", "crash", "hang"):
            nursery.start_soon(use, name, "hello")
    await use("shout", "still here")


if __name__ == "__main__":
    trio.run(main)
