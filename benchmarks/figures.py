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
    against: str | None = None
    """The adapter whose value of the same round is the divisor. None: the value itself."""

    at_most: float | None = None
    at_least: float | None = None
    every_round: bool = False
    """Whether the worst round is judged, not the median."""


FIGURES = (
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
        text="10,000 idle sessions: KiB of server memory each",
        part="idle",
        adapter="trio_rpc",
        metric="kib",
        at_most=40,
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
