"""The figures that the project promises, or has as goals."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["FIGURES", "Figure"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """A promise: a bound on one metric of one adapter, or on its ratio to another adapter."""

    text: str
    part: str
    adapter: str
    metric: str
    against: str | tuple[str, ...] | None = None
    """The adapter whose value of the same round is the divisor: of several, the one with the least
    median. None: the value itself."""

    at_most: float | None = None
    at_least: float | None = None
    every_round: bool = False
    """Whether the worst round is judged, not the median."""


SUSPENDING = (
    "grpcio",
    "grpclib",
    "aiorpcx",
    "fastapi-websocket-rpc",
    "zerorpc",
    "pycapnp",
    "pyzmq",
    "jsonrpc-websockets",
    "trio-jsonrpc",
)
"""The peers whose callers do not block their thread."""

BLOCKING = ("rpyc", "pyro5-threads", "multiprocessing-threads")
"""The peers whose callers block, with many separate calls at the same time."""


def _by_cpu(  # one row of the tables by CPU time
    text: str,
    part: str,
    at_most: float,
    against: str | tuple[str, ...],
    adapter: str = "trio_rpc",
) -> Figure:
    return Figure(
        text=f"{text}: CPU time",
        part=part,
        adapter=adapter,
        metric="cpu",
        against=against,
        at_most=at_most,
    )


STRUCTURES = (
    _by_cpu("1,000 dataclasses, against msgspec over bare Trio", "dataclasses", 1.6, "msgspec"),
    _by_cpu("1,000 dataclasses, against the cheapest peer", "dataclasses", 1.0, SUSPENDING),
    _by_cpu("1,000 dicts of 10 values, against msgspec over bare Trio", "values", 2.0, "msgspec"),
    _by_cpu("1,000 dicts of 10 values, against the cheapest peer", "values", 1.0, SUSPENDING),
)
ONE_CALL = tuple(
    figure
    for part, what, floor in (
        ("one", "a string", "echo"),
        ("one-dict", "a dict", "msgspec"),
        ("one-dataclass", "a dataclass", "msgspec"),
    )
    for figure in (
        _by_cpu(
            f"one call with {what}, plain def, against the bare echo",
            part,
            1.05,
            floor,
            "trio_rpc-inline",
        ),
        _by_cpu(f"one call with {what}, async def, against the bare echo", part, 1.15, floor),
        Figure(
            text=f"one call with {what}, async def, against the bare echo: p50",
            part=part,
            adapter="trio_rpc",
            metric="p50",
            against=floor,
            at_most=1.25,
        ),
        _by_cpu(
            f"one call with {what}, against the cheapest peer that does not block",
            part,
            1.0,
            SUSPENDING,
        ),
    )
)
FLIGHTS = tuple(
    figure
    for part, count in (("flight-8", "8"), ("flight", "64"), ("flight-500", "500"))
    for figure in (
        _by_cpu(f"{count} in flight, against RPC by hand in a nursery", part, 1.0, "nursery"),
        _by_cpu(f"{count} in flight, against the cheapest peer", part, 1.0, SUSPENDING + BLOCKING),
    )
)
SIZES = tuple(
    Figure(
        text=f"{size} echoed: MB/s of CPU time",
        part=part,
        adapter="trio_rpc",
        metric="cpu_rate",
        at_least=1_000,
    )
    for part, size in (("large-256k", "256 KiB"), ("large", "1 MiB"), ("large-15m", "15 MiB"))
)
SESSIONS = (
    _by_cpu("connect, call, close, against RPC by hand", "connect", 1.3, "nursery"),
    *(
        _by_cpu(
            f"{count} sessions opened, against RPC by hand", f"sessions-{count}", 1.3, "nursery"
        )
        for count in (100, 1000, 5000)
    ),
    Figure(
        text="10,000 idle sessions: KiB of server memory each",
        part="idle",
        adapter="trio_rpc",
        metric="kib",
        at_most=16,
    ),
    Figure(
        text="10,000 idle sessions over WebSockets: KiB of server memory each",
        part="idle",
        adapter="trio_rpc-ws",
        metric="kib",
        at_most=30,
    ),
)
OTHERS = (
    _by_cpu("a stream, item by item, against the bare stream", "stream", 1.0, "items"),
    _by_cpu("a stream in batches, against the bare stream item by item", "batches", 0.5, "items"),
    _by_cpu("1,000 cancels, against pycapnp", "cancel", 1.0, "pycapnp"),
    Figure(
        text="1,000 cancels, against pycapnp: ms",
        part="cancel",
        adapter="trio_rpc",
        metric="ms",
        against="pycapnp",
        at_most=1.0,
    ),
    _by_cpu(
        "one call over a WebSocket, against bare trio-websocket",
        "ws-one",
        1.25,
        "ws-bare",
        "trio_rpc-ws",
    ),
    _by_cpu(
        "64 in flight on a WebSocket, against JSON-RPC by hand",
        "websocket",
        1.0,
        "jsonrpc-websockets",
        "trio_rpc-ws",
    ),
)

FIGURES = (
    *STRUCTURES,
    *ONE_CALL,
    *FLIGHTS,
    *SIZES,
    *SESSIONS,
    *OTHERS,
    Figure(
        text="one call at a time, async def handler: time against the bare echo",
        part="one",
        adapter="trio_rpc",
        metric="p50",
        against="echo",
        at_most=1.3,
    ),
    Figure(
        text="one call at a time, plain def handler: time against the bare echo",
        part="one",
        adapter="trio_rpc-inline",
        metric="p50",
        against="echo",
        at_most=1.15,
    ),
    Figure(
        text="64 in flight: calls/s against the nursery floor that joins its writes",
        part="flight",
        adapter="trio_rpc",
        metric="rate",
        against="nursery",
        at_least=0.8,
    ),
    Figure(
        text="64 in flight, plain def handler: calls/s",
        part="flight",
        adapter="trio_rpc-inline",
        metric="rate",
        at_least=120_000,
    ),
    Figure(
        text="1 MiB echoed: MB/s against the bare echo",
        part="large",
        adapter="trio_rpc",
        metric="rate",
        against="echo",
        at_least=1.8,
    ),
    Figure(
        text="connect, call, close: sessions/s",
        part="connect",
        adapter="trio_rpc",
        metric="rate",
        at_least=3_333,
    ),
    Figure(
        text="1,000 calls cancelled: ms until all handlers and callers have ended",
        part="cancel",
        adapter="trio_rpc",
        metric="ms",
        at_most=30,
    ),
    Figure(
        text="1,000 calls cancelled: handlers left, in any round",
        part="cancel",
        adapter="trio_rpc",
        metric="left",
        at_most=0,
        every_round=True,
    ),
    Figure(
        text="a stream of small items: items/s",
        part="stream",
        adapter="trio_rpc",
        metric="rate",
        at_least=150_000,
    ),
    Figure(
        text="callbacks, 64 at once: callbacks/s",
        part="callbacks",
        adapter="trio_rpc",
        metric="rate",
        at_least=20_000,
    ),
    Figure(
        text="callbacks one at a time: rate against plain calls",
        part="callbacks",
        adapter="trio_rpc",
        metric="share",
        at_least=0.7,
    ),
    Figure(
        text="1 GiB in items of 64 KiB: MB/s",
        part="bulk",
        adapter="trio_rpc",
        metric="rate",
        at_least=300,
    ),
    Figure(
        text="1 GiB in items of 64 KiB: growth of the client in MB, in any round",
        part="bulk",
        adapter="trio_rpc",
        metric="client",
        at_most=32,
        every_round=True,
    ),
    Figure(
        text="1 GiB in items of 64 KiB: growth of the server in MB, in any round",
        part="bulk",
        adapter="trio_rpc",
        metric="server",
        at_most=32,
        every_round=True,
    ),
    Figure(
        text="99 streams beside an unread one: share of their full speed",
        part="fairness",
        adapter="trio_rpc",
        metric="share",
        at_least=0.9,
    ),
    Figure(
        text="small calls while 64 MiB are sent: median, against the median with nothing else sent",
        part="mixed",
        adapter="trio_rpc",
        metric="times",
        at_most=5,
    ),
    Figure(
        text="64 in flight on a WebSocket: calls/s against bare trio-websocket, one message a call",
        part="websocket",
        adapter="trio_rpc-ws",
        metric="rate",
        against="ws-echo",
        at_least=1.5,
    ),
    Figure(
        text="64 in flight on a Unix socket: calls/s against TCP",
        part="transports",
        adapter="trio_rpc-unix",
        metric="rate",
        against="trio_rpc-tcp",
        at_least=1.0,
    ),
    Figure(
        text="64 in flight, resumable: calls/s against plain TCP",
        part="transports",
        adapter="trio_rpc-resumable",
        metric="rate",
        against="trio_rpc-tcp",
        at_least=0.85,
    ),
    Figure(
        text="64 in flight, parent to child process: calls/s against TCP",
        part="transports",
        adapter="trio_rpc-process",
        metric="rate",
        against="trio_rpc-tcp",
        at_least=1.0,
    ),
    Figure(
        text="64 in flight on a channel forwarded over TCP: calls/s against TCP alone",
        part="transports",
        adapter="trio_rpc-forwarded",
        metric="rate",
        against="trio_rpc-tcp",
        at_least=0.7,
    ),
    Figure(
        text="one call over NATS: p50 against TCP",
        part="one",
        adapter="trio_rpc-nats",
        metric="p50",
        against="trio_rpc",
        at_most=3.0,
    ),
    Figure(
        text="64 in flight over NATS: CPU time of both ends against TCP",
        part="transports",
        adapter="trio_rpc-nats",
        metric="cpu",
        against="trio_rpc-tcp",
        at_most=1.25,
    ),
    Figure(
        text="gateway: POST, callback and end, p50 in ms",
        part="web",
        adapter="trio_rpc-web",
        metric="p50",
        at_most=3,
    ),
    Figure(
        text="gateway: POST, callback and end, 8 at once: calls/s",
        part="web",
        adapter="trio_rpc-web",
        metric="rate",
        at_least=400,
    ),
    Figure(
        text="gateway: callbacks to one client: callbacks/s",
        part="web-callbacks",
        adapter="trio_rpc-web",
        metric="rate",
        at_least=20_000,
    ),
    Figure(
        text="gateway: time of a callback to a browser, p50 in ms",
        part="web-browser",
        adapter="chromium",
        metric="p50",
        at_most=15,
    ),
    Figure(
        text="gateway: 1,000 clients with a running call: KiB of server memory each",
        part="web-clients",
        adapter="trio_rpc-web",
        metric="kib",
        at_most=100,
    ),
    Figure(
        text="small calls while two loops echo 1 MiB: median µs",
        part="beside",
        adapter="trio_rpc",
        metric="busy",
        at_most=1_000,
    ),
)
