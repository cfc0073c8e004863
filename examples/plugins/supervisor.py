"""Keep one plugin for many calls, and start it again when it crashes: python supervisor.py"""

from __future__ import annotations

import sys
from pathlib import Path

import trio
import trio_rpc

from interface import Plugin

COMMAND = [sys.executable, str(Path(__file__).parent / "moody.py")]


async def ignore(share: float) -> None:
    pass


async def render_all(texts: list[str]) -> None:
    waiting = iter(texts)
    while True:
        try:
            async with trio_rpc.open_process(COMMAND, name="moody") as session:
                plugin = session.proxy("", Plugin)
                for text in waiting:
                    print(await plugin.render(text, ignore))
                return
        except trio_rpc.SessionBroken as exc:
            print("once more:", exc)
            await trio.sleep(0.1)  # do not keep the machine busy with a plugin that cannot start


if __name__ == "__main__":
    trio.run(render_all, ["one", "two", "three", "four"])
