"""Keep one plugin for many calls, and start it again when it crashes: python supervisor.py"""

from __future__ import annotations

import sys
from pathlib import Path

import trio
import trio_rpc

from interface import Plugin

COMMAND = [sys.executable, str(Path(__file__).parent / "moody.py")]
RESTART = trio_rpc.Restart(times=3, within=60)  # at most three restarts in any 60 s


async def ignore(share: float) -> None:
    pass


async def render_all(texts: list[str]) -> None:
    async with trio_rpc.keep_process(COMMAND, Plugin, restart=RESTART, name="moody") as plugin:
        for text in texts:
            try:
                print(await plugin.proxy.render(text, ignore))
            except trio_rpc.SessionBroken as exc:
                if plugin.state.kind == "failed":
                    raise
                print(f"{text} is {exc.fate.value}:", exc)


if __name__ == "__main__":
    trio.run(render_all, ["one", "two", "three", "four"])
