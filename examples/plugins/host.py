"""A host whose plugins are child processes: python host.py

One plugin works, one crashes, and one hangs. The host gets one error for each of the last two.
"""

from __future__ import annotations

import sys
from pathlib import Path

import trio
import trio_rpc

from interface import Plugin, Settings

HERE = Path(__file__).parent
LIMITS = trio_rpc.Limits(
    handshake_timeout=60,  # seconds that a plugin may take to start
    cancel_grace=0.2,  # seconds until a cancelled plugin that does not stop is abandoned
)


async def render(name: str, text: str) -> None:
    async def progress(share: float) -> None:
        print(f"{name}: {share:.0%}")

    command = [sys.executable, str(HERE / f"{name}.py")]
    try:
        async with trio_rpc.open_process(
            command, {"settings": Settings()}, name=name, limits=LIMITS
        ) as session:
            plugin = session.proxy("", Plugin)
            with trio.fail_after(3):
                print(f"{name}: {await plugin.render(text, progress)}")
    except trio_rpc.SessionBroken as exc:
        print(f"{name} failed: {exc}")
    except trio.TooSlowError:
        print(f"{name} failed: no answer within 3 s")


async def main() -> None:
    for name in ("shout", "crash", "hang", "shout"):
        await render(name, "hello")


if __name__ == "__main__":
    trio.run(main)
