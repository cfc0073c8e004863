"""trio_rpc over a NATS server, which runs beside the server's process for the time of its row."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import AsyncGenerator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path

import trio

from benchmarks.adapter import trio_adapter
from benchmarks.adapters.library import Bench
from benchmarks.interface import Calls, Ready
from trio_rpc import connect, serve

__all__ = ["ADAPTERS"]

BESIDE = Path(sys.executable).parent / "nats-server"
PROGRAM = str(BESIDE) if BESIDE.exists() else shutil.which("nats-server")

# The shell ends the server when this process ends, however that happens: its input ends then.
SCRIPT = '"$0" -a 127.0.0.1 -p -1 --ports_file_dir "$1" >/dev/null 2>&1 & read -r _; kill $!'


@contextmanager
def _server(folder: str) -> Iterator[None]:
    command = ["sh", "-c", SCRIPT, str(PROGRAM), folder]
    with subprocess.Popen(command, stdin=subprocess.PIPE) as process:  # noqa: S603 - our own
        try:
            yield
        finally:
            assert process.stdin is not None
            process.stdin.close()


async def _url(folder: str) -> str:
    """Return the URL of the server that runs in a folder."""
    with trio.fail_after(20):
        while (url := _url_in(Path(folder))) is None:  # noqa: ASYNC110 - it is another program
            await trio.sleep(0.01)
        return url


def _url_in(folder: Path) -> str | None:
    for path in folder.glob("*.ports"):
        with suppress(ValueError):  # it is only half written
            url: str = json.loads(path.read_text())["nats"][0]
            return url
    return None


async def _serve(_hosts: Sequence[str], ready: Ready) -> None:
    with tempfile.TemporaryDirectory() as folder, _server(folder):
        url = await _url(folder)

        async def run(*, task_status: trio.TaskStatus[list[str]]) -> None:
            await serve({"bench": Bench()}, f"{url}/bench", task_status=task_status)

        async with trio.open_nursery() as nursery:
            ready(await nursery.start(run))
            await trio.sleep_forever()


@asynccontextmanager
async def _open_client(url: str) -> AsyncGenerator[Calls]:
    async with connect(url) as session:
        bench = session.proxy("bench", Bench)
        yield Calls(echo=bench.echo, large=bench.large)


ADAPTERS = (
    trio_adapter(
        "trio_rpc-nats",
        "trio_rpc over NATS",
        "one transports",
        serve=_serve,
        open_client=_open_client,
    ),
)
if PROGRAM is None:
    ADAPTERS = ()  # nats-server is in the dependency group "test"
