"""Measure a gateway in a FastAPI application under uvicorn: ``python -m benchmarks.hosts``.

A POST of the gateway, whose method runs on Trio in guest mode, is compared with a POST of a plain
route of the same application that does the same. One client makes both in turns, over connections
that stay open, and the ratio is formed within each round. For comparison, the same gateway is also
served on Trio alone.
"""

from __future__ import annotations

import argparse
import contextlib
import http.client
import json
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator

import trio

import trio_rpc
from trio_rpc.gateway import Gateway, open_http_server

BODY = json.dumps({"a": 1, "b": 2})
HEADERS = {"Content-Type": "application/json"}
PLAIN, GATEWAY = "/plain/add", "/rpc/api/add"
PATIENCE = 60


class Service:
    """The service that the gateway serves."""

    @trio_rpc.method
    async def add(self, a: int, b: int) -> int:
        """Return the sum."""
        return a + b


def serve_with_uvicorn(loop: str, listener: socket.socket) -> None:
    """Serve a FastAPI application with a plain route and a mounted gateway."""
    import fastapi  # noqa: PLC0415 - only the server needs it
    import uvicorn  # noqa: PLC0415 - as this

    gateway = Gateway(Service())

    @contextlib.asynccontextmanager
    async def lifespan(_app: fastapi.FastAPI) -> AsyncIterator[None]:
        async with gateway.run():
            yield

    app = fastapi.FastAPI(lifespan=lifespan)

    @app.post(PLAIN)
    async def add(numbers: dict[str, int]) -> int:
        return numbers["a"] + numbers["b"]

    app.mount("/rpc", gateway)
    config = uvicorn.Config(app, loop=loop, log_level="warning", access_log=False)
    uvicorn.Server(config).run(sockets=[listener])


async def serve_on_trio(listener: socket.socket) -> None:
    """Serve the same gateway on Trio alone, until this process is ended."""
    port = listener.getsockname()[1]
    listener.close()
    async with open_http_server(Gateway(Service()), f"http://127.0.0.1:{port}"):
        await trio.sleep_forever()


@contextlib.contextmanager
def server(host: str) -> Iterator[int]:
    """Run a server in a process, and yield its port."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        command = [sys.executable, "-m", "benchmarks.hosts", "--serve", host]
        number = listener.fileno()
        process = subprocess.Popen(  # noqa: S603 - it is this program
            [*command, str(number)], pass_fds=[number]
        )
    try:
        _wait_until_up(port, "/healthz" if host == "trio" else "/rpc/healthz")
        yield port
    finally:
        process.terminate()
        process.wait(PATIENCE)


def _wait_until_up(port: int, path: str) -> None:
    until = time.monotonic() + PATIENCE
    while True:
        with contextlib.suppress(OSError):
            client = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE)
            client.request("GET", path)
            if client.getresponse().status == 200:
                client.close()
                return
        if time.monotonic() > until:
            raise TimeoutError("the server did not start")
        time.sleep(0.05)


def poster(port: int, path: str) -> Callable[[int], list[float]]:
    """Return a function that makes a number of requests, and returns the seconds of each."""
    client = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE)

    def post(count: int) -> list[float]:
        taken = []
        for _ in range(count):
            began = time.perf_counter()
            client.request("POST", path, BODY, HEADERS)
            answer = json.loads(client.getresponse().read())
            taken.append(time.perf_counter() - began)
            assert 3 in (answer, answer["payload"] if isinstance(answer, dict) else None)
        return taken

    return post


def centile(values: list[float], share: float) -> float:
    """Return the value that a share of the values do not exceed, in milliseconds."""
    return 1000 * sorted(values)[min(int(share * len(values)), len(values) - 1)]


def show(what: str, values: list[float]) -> None:
    """Print the median, the least and the greatest of the values of the rounds."""
    middle = statistics.median(values)
    print(f"  {what:<38} {middle:.2f} ({min(values):.2f} to {max(values):.2f})")


def measure(host: str, rounds: int, count: int) -> None:
    """Measure under one kind of host, and print."""
    with server(host) as port:
        gateway = poster(port, "/api/add" if host == "trio" else GATEWAY)
        plain = poster(port, PLAIN)
        gateway(count // 4)
        found: list[tuple[list[float], list[float]]] = []
        for _ in range(rounds):
            if host == "trio":
                found.append(([], gateway(count)))
                continue
            # Plain, gateway, gateway, plain: a drift of the machine falls on both.
            first = plain(count // 2)
            posts = gateway(count)
            found.append((first + plain(count // 2), posts))
    print(f"{host}, {rounds} rounds of {count} requests each: median of the rounds (least to most)")
    for share, name in ((0.5, "p50"), (0.99, "p99")):
        show(f"POST of the gateway, {name}, ms", [centile(g, share) for _, g in found])
        if host != "trio":
            show(f"POST of a plain route, {name}, ms", [centile(p, share) for p, _ in found])
            ratios = [centile(g, share) / centile(p, share) for p, g in found]
            show(f"ratio, {name}", ratios)


def main() -> None:
    """Measure, or serve one of the measurements."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--count", type=int, default=400, help="requests of each kind in a round")
    parser.add_argument("--hosts", nargs="+", default=["asyncio", "uvloop", "trio"])
    parser.add_argument("--serve", nargs=2, metavar=("HOST", "FD"))
    chosen = parser.parse_args()
    if chosen.serve:
        host, number = chosen.serve
        listener = socket.socket(fileno=int(number))
        if host == "trio":
            trio.run(serve_on_trio, listener)
        else:
            serve_with_uvicorn(host, listener)
        return
    for host in chosen.hosts:
        measure(host, chosen.rounds, chosen.count)


if __name__ == "__main__":
    main()
