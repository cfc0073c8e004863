"""The parts of the benchmark and their loads.

A part is one kind of work. In each round, every adapter that can do it gets new processes, and is
compared with the part's floor of the same round.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

__all__ = ["GROUPS", "HOSTS", "PARTS", "THEMES", "Load", "Metric", "Part", "expand"]

HOSTS = ("127.0.0.1", "127.0.0.2", "127.0.0.3", "127.0.0.4")
"""Addresses at which servers listen if one address has too few ports for all clients."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """The amount of work of a part, and its time limit."""

    turns: int = 10
    """Turns of each adapter in a round. Their median is the round's value."""

    spare: int = 5
    """Turns of each adapter in a round that may be repeated if other programs used the cores."""

    count: int
    """Calls, items, sessions or cancelled calls that are measured in a turn.

    A rate is measured with fewer if this many would take longer than a fifth of a second."""

    warm_up: int
    """The same work, done in each turn before the measurement."""

    callers: int = 1
    """Tasks that make calls at the same time, on one connection."""

    size: int = 16
    """Bytes of the payload."""

    limit: float = 60.0
    """The time limit of a turn in seconds. Later, both ends are killed, and the turn has failed."""


@dataclass(frozen=True, slots=True)
class Metric:
    """One number of a measurement: its key there, its name in a table, and its format."""

    key: str
    name: str
    form: str = "{:.1f}"
    greatest: bool = False
    """Whether a round's value is the greatest of its turns, not the median."""


def _cpu(operation: str) -> Metric:
    """Return the metric of the CPU time that both ends together use for one operation."""
    return Metric("cpu", f"CPU µs, {operation}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """One kind of work."""

    key: str
    title: str
    metrics: tuple[Metric, ...]
    """The metrics. Ratios are formed from the first one."""

    more_is_better: bool = False
    floor: str
    """The adapter whose result of the same round counts as 1.00."""

    load: Load
    quick: Load
    peers: bool = False
    """Whether peers are compared in this part. The table then also lists peers that lack it."""

    hosts: tuple[str, ...] = HOSTS[:1]
    note: str = ""
    own: str = "trio_rpc"
    """The row of the library with which the overview compares the peers."""

    by_clock: bool = False
    """Whether the overview compares by the first metric, although CPU time is measured."""

    @property
    def has_cpu(self) -> bool:
        """Whether CPU time is measured, in addition to the metric of the first ratio."""
        return any(metric.key == "cpu" for metric in self.metrics[1:])

    @property
    def compared(self) -> tuple[Metric, bool]:
        """The metric by which the overview compares the peers, and whether more of it is better."""
        if self.has_cpu and not self.by_clock:
            return next(metric for metric in self.metrics if metric.key == "cpu"), False
        return self.metrics[0], self.more_is_better


def _flight(callers: int, count: int, key: str) -> Part:
    turns = 10 if callers == 64 else 5
    quick = max(640, callers)
    return Part(
        key=key,
        title=f"{callers:,} calls in flight on one connection",
        metrics=(Metric("rate", "calls/s", "{:,.0f}"), _cpu("call")),
        more_is_better=True,
        floor="nursery",
        peers=True,
        load=Load(turns=turns, count=count, warm_up=max(640, callers), callers=callers),
        quick=Load(turns=2, spare=0, count=quick, warm_up=callers, callers=callers, limit=20),
        note="16-character string there and back; ratio of calls/s, more is better",
    )


def _large(text: str, size: int, count: int, key: str) -> Part:
    return Part(
        key=key,
        title=f"{text} of bytes, echoed",
        metrics=(
            Metric("rate", "MB/s", "{:,.0f}"),
            Metric("p50", "p50 ms", "{:.2f}"),
            Metric("cpu_rate", "MB/s of CPU time", "{:,.0f}"),
            _cpu("call"),
        ),
        more_is_better=True,
        floor="echo",
        peers=True,
        load=Load(turns=5, count=count, warm_up=max(2, count // 10), size=size),
        quick=Load(turns=2, spare=0, count=3, warm_up=1, size=size, limit=20),
        note="one at a time; every byte goes there and back and is counted once; more is better",
    )


def _value(key: str, title: str, note: str, count: int) -> Part:
    return Part(
        key=key,
        title=title,
        metrics=(
            Metric("p50", "p50 µs", "{:,.1f}"),
            Metric("p99", "p99 µs", "{:,.1f}"),
            Metric("cpu", "CPU µs, call", "{:,.1f}"),
        ),
        floor="msgspec",
        peers=True,
        load=Load(turns=5, count=count, warm_up=max(2, count // 10), size=1_000),
        quick=Load(turns=2, spare=0, count=3, warm_up=1, size=1_000, limit=20),
        note=f"{note}; ratio of p50, less is better",
    )


def _sessions(count: int) -> Part:
    return Part(
        key=f"sessions-{count}",
        title=f"{count:,} sessions opened",
        metrics=(
            _cpu("session"),
            Metric("client_cpu", "of it the client's"),
            Metric("kib", "KiB/session"),
            Metric("opening", "ms to open, call", "{:.2f}"),
        ),
        floor="nursery",
        peers=True,
        load=Load(turns=1, spare=1, count=count, warm_up=20, callers=8, limit=120),
        quick=Load(turns=1, spare=0, count=40, warm_up=10, callers=8, limit=20),
        hosts=HOSTS,
        note=(
            "each with one call, and kept open; KiB are the growth of the server's resident memory; "
            "ratio of CPU, less is better"
        ),
    )


PARTS = {
    part.key: part
    for part in (
        Part(
            key="one",
            title="One call at a time",
            metrics=(
                Metric("p50", "p50 µs"),
                Metric("mean", "mean µs"),
                Metric("p99", "p99 µs"),
                _cpu("call"),
            ),
            floor="echo",
            peers=True,
            load=Load(count=500, warm_up=50),
            quick=Load(turns=2, spare=0, count=100, warm_up=10, limit=20),
            note="16-character string there and back; ratio of p50, less is better",
        ),
        _value("one-dict", "One call with a dict of two values", "there and back", 500),
        _value("one-dataclass", "One call with a dataclass of two fields", "the same", 500),
        _value("values", "1,000 dicts of 10 values, echoed", "one at a time, untyped", 10),
        _value(
            "dataclasses",
            "1,000 dataclasses of 10 fields, echoed",
            "one at a time, dataclasses at both ends",
            10,
        ),
        _flight(8, 3_200, "flight-8"),
        _flight(64, 6_400, "flight"),
        _flight(500, 10_000, "flight-500"),
        _flight(2_000, 10_000, "flight-2000"),
        _large("16 KiB", 16 << 10, 200, "large-16k"),
        _large("256 KiB", 256 << 10, 80, "large-256k"),
        _large("1 MiB", 1 << 20, 40, "large"),
        _large("15 MiB", 15 << 20, 4, "large-15m"),
        Part(
            key="connect",
            title="Connect, call, close",
            metrics=(Metric("rate", "a second", "{:,.0f}"), _cpu("session")),
            more_is_better=True,
            floor="nursery",
            peers=True,
            load=Load(turns=5, count=200, warm_up=20),
            quick=Load(turns=2, spare=0, count=20, warm_up=2, limit=20),
            note="one session after the other; more is better",
        ),
        *(_sessions(count) for count in (100, 1_000, 5_000)),
        Part(
            key="idle",
            title="Idle sessions",
            metrics=(
                Metric("kib", "KiB/session"),
                Metric("count", "sessions", "{:,.0f}"),
                Metric("opening", "ms to open, call", "{:.2f}"),
                _cpu("session"),
            ),
            floor="echo",
            peers=True,
            load=Load(turns=1, spare=0, count=10_000, warm_up=100, callers=64, limit=180),
            quick=Load(turns=1, spare=0, count=200, warm_up=20, callers=64, limit=20),
            hosts=HOSTS,
            note="growth of the server's resident memory, each session after one call; less is better",
            by_clock=True,
        ),
        Part(
            key="cancel",
            title="1,000 calls cancelled at once",
            metrics=(
                Metric("ms", "ms until stopped"),
                Metric("returned", "ms until callers returned"),
                Metric("left", "handlers left", "{:.0f}", greatest=True),
                _cpu("call"),
            ),
            floor="scopes",
            peers=True,
            load=Load(turns=5, count=1_000, warm_up=100),
            quick=Load(turns=2, spare=0, count=100, warm_up=10, limit=20),
            note=(
                "from scope.cancel() until every caller has returned and a later call has read "
                "that no handler runs; less is better"
            ),
        ),
        Part(
            key="stream",
            title="A stream of small items, server to client",
            metrics=(Metric("rate", "items/s", "{:,.0f}"), _cpu("item")),
            more_is_better=True,
            floor="items",
            peers=True,
            load=Load(turns=7, count=30_000, warm_up=3_000),
            quick=Load(turns=2, spare=0, count=2_000, warm_up=200, limit=20),
            note="numbers, each checked; ratio of items/s, more is better",
        ),
        Part(
            key="batches",
            title="A stream of small items, received in batches",
            metrics=(Metric("rate", "items/s", "{:,.0f}"), _cpu("item")),
            more_is_better=True,
            floor="items",
            load=Load(turns=7, count=60_000, warm_up=6_000),
            quick=Load(turns=2, spare=0, count=2_000, warm_up=200, limit=20),
            note="numbers, each checked; the floor takes them one by one; more is better",
        ),
        Part(
            key="exchange",
            title="Items there and back, one at a time, on one stream both ways",
            metrics=(Metric("p50", "p50 µs"), Metric("p99", "p99 µs"), _cpu("item")),
            floor="echo",
            peers=True,
            load=Load(turns=7, count=500, warm_up=50),
            quick=Load(turns=2, spare=0, count=100, warm_up=10, limit=20),
            note="numbers, each checked; ratio of p50, less is better",
        ),
        Part(
            key="callbacks",
            title="Callbacks, from the handler to its caller",
            metrics=(
                Metric("rate", "64 at once, calls/s", "{:,.0f}"),
                Metric("one", "one at a time, calls/s", "{:,.0f}"),
                Metric("share", "share of plain calls' rate", "{:.2f}"),
                _cpu("callback"),
            ),
            more_is_better=True,
            floor="trio_rpc",
            peers=True,
            load=Load(turns=7, count=6_400, warm_up=640, callers=64),
            quick=Load(turns=2, spare=0, count=640, warm_up=64, callers=64, limit=20),
            note="16-character string there and back; more is better",
        ),
        Part(
            key="bulk",
            title="1 GiB in items of 64 KiB, server to client",
            metrics=(
                Metric("rate", "MB/s", "{:,.0f}"),
                Metric("client", "MB growth of the client", "{:.1f}", greatest=True),
                Metric("server", "MB growth of the server", "{:.1f}", greatest=True),
                _cpu("item"),
            ),
            more_is_better=True,
            floor="items",
            load=Load(turns=1, spare=1, count=16_384, warm_up=256, size=65_536),
            quick=Load(turns=1, spare=0, count=256, warm_up=16, size=65_536, limit=20),
            note="growth is the peak of resident memory while it runs; more MB/s is better",
        ),
        Part(
            key="fairness",
            title="99 streams beside one that is not read",
            metrics=(
                Metric("share", "share of the speed without it", "{:.2f}"),
                Metric("rate", "items/s", "{:,.0f}"),
                _cpu("item"),
            ),
            more_is_better=True,
            floor="trio_rpc",
            load=Load(turns=3, count=2_000, warm_up=0),
            quick=Load(turns=1, spare=0, count=50, warm_up=0, limit=20),
            note="all on one session; more is better",
        ),
        Part(
            key="mixed",
            title="Small calls while results of 64 MiB are sent",
            metrics=(
                Metric("times", "times as long"),
                Metric("busy", "µs meanwhile"),
                Metric("idle", "µs without"),
                _cpu("64 MiB and the calls beside"),
            ),
            floor="trio_rpc",
            load=Load(turns=3, count=4, warm_up=500, size=64 << 20),
            quick=Load(turns=1, spare=0, count=1, warm_up=50, size=1 << 20, limit=20),
            note="medians, on one session; less is better",
        ),
        Part(
            key="beside",
            title="Small calls while two loops echo 1 MiB",
            metrics=(
                Metric("busy", "µs meanwhile"),
                Metric("idle", "µs without"),
                Metric("times", "times as long"),
                _cpu("1 MiB and the calls beside"),
            ),
            floor="trio_rpc",
            peers=True,
            load=Load(turns=3, count=100, warm_up=200, size=1 << 20),
            quick=Load(turns=1, spare=0, count=3, warm_up=50, size=1 << 20, limit=20),
            note="medians, on one connection; less is better",
            by_clock=True,
        ),
        Part(
            key="ws-one",
            title="One call at a time on one WebSocket",
            metrics=(Metric("p50", "p50 µs"), Metric("p99", "p99 µs"), _cpu("call")),
            floor="ws-bare",
            own="trio_rpc-ws",
            peers=True,
            load=Load(turns=5, count=300, warm_up=30),
            quick=Load(turns=2, spare=0, count=100, warm_up=10, limit=20),
            note="16-character string there and back; ratio of p50, less is better",
        ),
        Part(
            key="websocket",
            title="64 calls in flight on one WebSocket",
            metrics=(Metric("rate", "calls/s", "{:,.0f}"), _cpu("call")),
            more_is_better=True,
            floor="ws-echo",
            own="trio_rpc-ws",
            peers=True,
            load=Load(count=6_400, warm_up=640, callers=64),
            quick=Load(turns=2, spare=0, count=640, warm_up=64, callers=64, limit=20),
            note="16-character string there and back; ratio of calls/s, more is better",
        ),
        Part(
            key="transports",
            title="64 calls in flight on one connection of each transport",
            metrics=(Metric("rate", "calls/s", "{:,.0f}"), _cpu("call")),
            more_is_better=True,
            floor="trio_rpc-tcp",
            load=Load(count=6_400, warm_up=640, callers=64),
            quick=Load(turns=2, spare=0, count=640, warm_up=64, callers=64, limit=20),
            note="16-character string there and back; ratio of calls/s to TCP, more is better",
        ),
        Part(
            key="web",
            title="The gateway: POST, a callback, the end",
            metrics=(
                Metric("p50", "p50 ms", "{:.2f}"),
                Metric("p99", "p99 ms", "{:.2f}"),
                Metric("rate", "calls/s, 8 at once", "{:,.0f}"),
                _cpu("call"),
            ),
            floor="web-floor",
            load=Load(turns=5, count=200, warm_up=20, callers=8),
            quick=Load(turns=2, spare=0, count=100, warm_up=5, callers=8, limit=20),
            note=(
                "one call at a time, and the rate of 8 at once (not the floor's); httpx and trio-websocket are the"
                " clients; less is better"
            ),
        ),
        Part(
            key="web-callbacks",
            title="The gateway: callbacks to one client",
            metrics=(Metric("rate", "callbacks/s", "{:,.0f}"), _cpu("callback")),
            more_is_better=True,
            floor="web-floor",
            load=Load(turns=5, count=10_000, warm_up=1_000),
            quick=Load(turns=2, spare=0, count=1_000, warm_up=100, limit=20),
            note="the floor sends a frame for each; more is better",
        ),
        Part(
            key="web-browser",
            title="The gateway: a browser",
            metrics=(
                Metric("p50", "p50 ms of a callback", "{:.2f}"),
                Metric("call", "p50 ms of a call", "{:.2f}"),
            ),
            floor="chromium",
            load=Load(turns=3, count=100, warm_up=20),
            quick=Load(turns=1, spare=0, count=20, warm_up=5, limit=40),
            note="one at a time, from the server's clock to the page's; less is better",
        ),
        Part(
            key="web-clients",
            title="The gateway: clients that are connected, each with a call running",
            metrics=(Metric("kib", "KiB/client"), Metric("count", "clients", "{:,.0f}")),
            floor="trio_rpc-web",
            load=Load(turns=1, spare=0, count=1_000, warm_up=50, limit=90),
            quick=Load(turns=1, spare=0, count=50, warm_up=5, limit=20),
            note="growth of the server's resident memory; less is better",
        ),
    )
}

GROUPS = {
    "structures": ("one-dict", "one-dataclass", "values", "dataclasses"),
    "flights": ("flight-8", "flight", "flight-500", "flight-2000"),
    "sizes": ("large-16k", "large-256k", "large", "large-15m"),
    "sessions": ("connect", "sessions-100", "sessions-1000", "sessions-5000", "idle"),
    "websockets": ("ws-one", "websocket"),
}
"""Names for several parts."""

THEMES = {
    "One call at a time": ("one", "one-dict", "one-dataclass"),
    "Structured data": ("values", "dataclasses"),
    "Calls in flight on one connection": GROUPS["flights"],
    "Large payloads": GROUPS["sizes"],
    "Sessions": GROUPS["sessions"],
    "Cancelling and streams": ("cancel", "stream", "batches", "exchange", "callbacks", "beside"),
    "WebSockets": GROUPS["websockets"],
}
"""The tables that compare the libraries: the title of each, and its parts."""


def expand(names: Iterable[str]) -> Iterator[str]:
    """Return the keys of parts, with the parts of a group for its name."""
    for name in names:
        yield from GROUPS.get(name, (name,))
