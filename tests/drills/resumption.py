"""A drill: one busy session whose connection is cut many times, without losing any message.

    python tests/drills/resumption.py [tcp] [ws] [forwarding] [--rounds N] [--cuts N] [--seed N]

No message may be lost, duplicated or out of order. The session runs over real sockets, with a proxy
between them that cuts or resets the connection every 50 to 200 ms. Meanwhile there are streams at
full speed in both directions, duplexes, callbacks, 500 calls in flight, payloads of 3 MB, and
notifications. Each round takes about an eighth of a second per cut, and at most ``most_seconds``.
The exit code is 1 if a round fails.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import itertools
import random
import sys
import time
from collections import Counter
from dataclasses import dataclass, field

import trio

import trio_rpc
from trio_rpc.channels import (
    ResumableSessions,
    carrier_limits,
    open_channel,
    open_forwarding,
    open_listeners,
    open_resumable,
)
from trio_rpc.channels.connection import close_forcefully
from trio_rpc.testing import open_chaos_proxy

RESUME = trio_rpc.Resume(grace=30, first_delay=0.01, max_delay=0.1)
LIMITS = trio_rpc.Limits()
KINDS = ("tcp", "ws", "forwarding")
IN_FLIGHT = 500
LARGE = 3_000_000
SHORTEST, LONGEST = 0.05, 0.2
"""The shortest and the longest time between two cuts, in seconds."""


class Service:
    """The service that the client calls. It counts how often each call has run."""

    def __init__(self):
        self.runs = Counter()
        self.notes = []

    @trio_rpc.method
    async def work(self, label: int) -> int:
        self.runs[label] += 1
        await trio.sleep(0.001 * (label % 20))
        return label + 1

    @trio_rpc.method
    async def large(self, label: int, content: bytes) -> bytes:
        self.runs[label] += 1
        return content

    @trio_rpc.method
    async def ask(self, label: int, on_question) -> list[int]:
        self.runs[label] += 1
        return [await on_question(number) for number in range(3)]

    @trio_rpc.method
    async def collect(self, numbers) -> int:
        """Return how many numbers arrived, or -1 if they were out of order."""
        expected = 0
        async for number in numbers:
            if number != expected:
                return -1
            expected += 1
        return expected

    @trio_rpc.stream
    async def count(self):
        for number in itertools.count():
            yield number

    @trio_rpc.duplex
    async def echo(self, channel: trio.abc.Channel[int]) -> None:
        async for number in channel:
            await channel.send(number)

    @trio_rpc.notification
    async def note(self, number: int) -> None:
        self.notes.append(number)


@dataclass
class Traffic:
    """The client's calls until ``has_stopped`` is set, and how many of each kind were made."""

    session: trio_rpc.Session
    service: Service
    has_stopped: bool = False
    done: Counter = field(default_factory=Counter)
    labels: itertools.count = field(default_factory=itertools.count)

    async def calls(self):
        while not self.has_stopped:
            label = next(self.labels)
            assert await self.session.call("work", label) == label + 1
            self.done["calls"] += 1

    async def payloads(self):
        while not self.has_stopped:
            label = next(self.labels)
            content = random.randbytes(1000) * (LARGE // 1000)
            assert await self.session.call("large", label, content) == content
            self.done["payloads"] += 1

    async def callbacks(self):
        while not self.has_stopped:
            label, asked = next(self.labels), []

            async def answer(number, asked=asked):
                asked.append(number)
                return -number

            assert await self.session.call("ask", label, answer) == [0, -1, -2]
            assert asked == [0, 1, 2], "each callback ran once"
            self.done["callbacks"] += 1

    async def receive_items(self):
        async with self.session.stream("count") as numbers:
            expected = 0
            async for number in numbers:
                assert number == expected
                expected += 1
                if self.has_stopped:
                    break
        self.done["items down"] += expected

    async def send_items(self):
        sent = 0

        async def numbers():
            nonlocal sent
            while not self.has_stopped:
                yield sent
                sent += 1

        assert await self.session.call("collect", numbers()) == sent
        self.done["items up"] += sent

    async def duplexes(self):
        async with self.session.duplex("echo") as channel:
            expected = 0
            while not self.has_stopped:
                for number in range(expected, expected + 10):
                    await channel.send(number)
                for number in range(expected, expected + 10):
                    assert await channel.receive() == number
                expected += 10
        self.done["items to and fro"] += expected

    async def notes(self):
        number = 0
        while not self.has_stopped:
            await self.session.notify("note", number)
            number += 1
            await trio.sleep(0.001)
        self.done["notes"] += number

    async def run(self):
        async with trio.open_nursery() as nursery:
            for _ in range(IN_FLIGHT):
                nursery.start_soon(self.calls)
            for each in (self.payloads, self.callbacks, self.receive_items, self.send_items):
                nursery.start_soon(each)
                nursery.start_soon(each)
            nursery.start_soon(self.duplexes)
            nursery.start_soon(self.duplexes)
            nursery.start_soon(self.notes)

    def check(self):
        """Check that each call ran once, and that all notes arrived in order."""
        labels = next(self.labels)
        assert self.service.runs == dict.fromkeys(range(labels), 1)
        assert self.service.notes == list(range(self.done["notes"]))
        kinds = "calls payloads callbacks notes"
        assert all(self.done[kind] for kind in kinds.split()), self.done


@contextlib.asynccontextmanager
async def open_plain(service, scheme):
    """Open a session over a transport, with a proxy in between."""
    async with (
        trio_rpc.open_server(service, f"{scheme}://127.0.0.1:0", resume=RESUME) as server,
        open_chaos_proxy(server.urls[0]) as proxy,
        trio_rpc.connect(proxy.url, resume=RESUME) as session,
    ):
        yield session, proxy


async def serve_resumable(listener, sessions, handler, nursery):
    """Accept carriers of resumable channels, and run a handler for each new channel."""

    async def own(channel):
        async with sessions.own(channel):
            await handler(channel)

    async def handle(connection):
        with contextlib.suppress(OSError):
            async with connection.prepared() as carrier:
                arrival = await sessions.receive(carrier)
                if arrival.is_new:
                    nursery.start_soon(own, arrival.channel)
                await arrival.channel.accept(carrier, arrival.received)

    while True:
        nursery.start_soon(handle, await listener.accept())


@contextlib.asynccontextmanager
async def open_forwarded(service):
    """Open a session over a forwarded channel over a resumable carrier, with a proxy in between."""
    limits = carrier_limits(LIMITS)

    async def serve_service(channel):
        await trio_rpc.serve_session(channel, service)

    async def forward(channel):
        async with open_forwarding(channel, {"service": serve_service}) as forwarding:
            await forwarding.wait_closed()

    [listener] = await open_listeners("tcp://127.0.0.1:0", limits=limits)
    async with trio.open_nursery() as nursery:
        sessions = ResumableSessions(RESUME, handshake_timeout=10)
        nursery.start_soon(serve_resumable, listener, sessions, forward, nursery)
        async with (
            open_chaos_proxy(listener.url) as proxy,
            open_resumable(
                functools.partial(open_channel, proxy.url, limits=limits),
                RESUME,
                handshake_timeout=10,
            ) as carrier,
            open_forwarding(carrier) as forwarding,
            trio_rpc.open_session(await forwarding.open("service")) as session,
        ):
            yield session, proxy
        nursery.cancel_scope.cancel()
    await close_forcefully(listener)


def most_seconds(cuts):
    """Return the most seconds that a round may take."""
    return 60 + cuts * LONGEST


async def play(kind, *, cuts, seed):
    """Play one round over a transport, and return how much traffic of each kind there was."""
    generator = random.Random(seed)
    service = Service()
    opened = open_forwarded(service) if kind == "forwarding" else open_plain(service, kind)
    with trio.fail_after(most_seconds(cuts)):
        async with opened as (session, proxy):
            traffic = Traffic(session, service)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(traffic.run)
                for _ in range(cuts):
                    await trio.sleep(generator.uniform(SHORTEST, LONGEST))
                    generator.choice((proxy.cut, proxy.reset))()
                traffic.has_stopped = True
            await session.ping()
            traffic.check()
            traffic.done["connections"] = proxy.accepted
    return dict(traffic.done)


def main():
    """Play rounds over each transport, and return whether all were successful."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("kinds", nargs="*", default=KINDS, metavar="kind", help=" ".join(KINDS))
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--cuts", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    failed = 0
    for kind, number in itertools.product(options.kinds, range(options.rounds)):
        play_one = functools.partial(play, kind, cuts=options.cuts, seed=options.seed + number)
        started = time.monotonic()
        try:
            print(kind, number, trio.run(play_one), end=" ", flush=True)
        except Exception as exc:  # noqa: BLE001 - the next round is still played
            failed += 1
            print(kind, number, "failed:", *_reasons(exc), end=" ", flush=True)
        print(f"{time.monotonic() - started:.0f} s", flush=True)
    print(f"{failed} rounds failed")
    return not failed


def _reasons(exc):
    if isinstance(exc, BaseExceptionGroup):
        return {reason for each in exc.exceptions for reason in _reasons(each)}
    return {repr(exc)[:300]}


if __name__ == "__main__":
    sys.exit(not main())
