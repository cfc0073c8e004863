"""Account for the memory of an idle session: its objects by type, and its bytes by module.

    python -m benchmarks.idle

A server in this process gets sessions from clients that are bare sockets, each of which has made one
call. So only the server's part grows. It counts the objects that the garbage collector tracks, and
the bytes that Python allocates. The resident memory of the process, which
`python -m benchmarks --only sessions` measures, also has the gaps between them.
"""

from __future__ import annotations

import contextlib
import gc
import socket
import sys
import tracemalloc
from collections import Counter
from pathlib import Path

import trio
import trio.testing

import trio_rpc
from benchmarks.adapters.library import Bench
from trio_rpc.protocol.hello import make_info
from trio_rpc.wire import messages as m
from trio_rpc.wire.codec import Codec
from trio_rpc.wire.framing import PREFIX, frame

__all__ = ["Growth", "grown", "main"]

SESSIONS = 200
WARM_UP = 5

_PACKAGES = {
    str(Path(trio_rpc.__file__).parent): "trio_rpc",
    str(Path(trio.__file__).parent): "trio",
}


class Growth:
    """The growth that one session causes.

    Attributes:
        objects: tracked objects, by type.
        sizes: bytes, by the module that allocated them.
    """

    def __init__(self, objects: Counter[str], sizes: Counter[str]) -> None:
        self.objects = objects
        self.sizes = sizes

    def text(self) -> str:
        """Return two tables."""
        lines = []
        for title, counts in (("objects", self.objects), ("bytes", self.sizes)):
            lines.append(f"{counts.total():8}  {title} of a session")
            lines += [f"{count:8}  {name}" for name, count in counts.most_common() if count > 0]
            lines.append("")
        return "\n".join(lines)


def _types() -> Counter[str]:
    gc.collect()
    return Counter(f"{type(one).__module__}.{type(one).__qualname__}" for one in gc.get_objects())


def _module(file: str) -> str:
    for root, name in _PACKAGES.items():
        if file.startswith(root):
            parts = file[len(root) + 1 :].removesuffix(".py").split("/")
            return f"{name}: {parts[0] if len(parts) > 1 or name == 'trio_rpc' else parts[-1]}"
    return "the standard library and attrs"


def _sizes() -> Counter[str]:
    gc.collect()
    sizes = Counter[str]()
    for stat in tracemalloc.take_snapshot().statistics("filename"):
        sizes[_module(stat.traceback[0].filename)] += stat.size
    return sizes


async def grown(count: int) -> Growth:
    """Open so many sessions, and return the growth for each."""
    codec = Codec()
    hello = codec.encode(m.Hello(m.PROTOCOL_VERSION, make_info(trio_rpc.DEFAULT_LIMITS, None)))
    rest = codec.encode(m.Welcome()) + codec.encode(m.Request(1, "bench.echo", ["x"]))
    clients: list[socket.socket] = []

    async def connect_some(more: int) -> None:
        for _ in range(more):
            client = socket.create_connection(("127.0.0.1", port))
            stack.callback(client.close)
            clients.append(client)
            client.sendall(frame(hello) + frame(rest))
            received = b""
            while b"\xa1x" not in received[PREFIX:]:  # until the result has arrived
                await trio.lowlevel.wait_readable(client)
                received += client.recv(4096)
        await trio.testing.wait_all_tasks_blocked()

    with contextlib.ExitStack() as stack:
        async with trio_rpc.open_server({"bench": Bench()}, "tcp://127.0.0.1:0") as server:
            port = int(server.urls[0].rpartition(":")[2])
            await connect_some(WARM_UP)
            types = _types()
            await connect_some(count)
            objects = _types()
            tracemalloc.start()
            try:
                sizes = _sizes()
                await connect_some(count)
                grown_sizes = _sizes()
            finally:
                tracemalloc.stop()
    objects.subtract(types)
    objects["socket.socket"] -= count  # at the clients
    grown_sizes.subtract(sizes)
    return Growth(_each(objects, count), _each(grown_sizes, count))


def _each(counts: Counter[str], count: int) -> Counter[str]:
    """Return the part of each session. A table that grows as a whole is not a part of one."""
    return Counter({name: round(value / count) for name, value in counts.items()})


def main() -> None:
    """Run the program."""
    sys.stdout.write(trio.run(grown, SESSIONS).text())


if __name__ == "__main__":
    main()
