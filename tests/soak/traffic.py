"""A client's work in one session: calls of all kinds, each with its outcome in the ledger."""

from __future__ import annotations

import itertools
import random
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import trio

import trio_rpc

from .ledger import Ledger

HANGS_AFTER = 60.0
"""Seconds after which a call counts as hung. None should take longer than about five."""
LARGE = 400_000
"""Bytes of a large payload: more than a packet, so that it travels in pieces."""
MOST_REFUSED = 0.02
"""The share of calls that a server may refuse as overloaded. Each session ends within seconds, and
is the deadline of its calls, so on a busy machine a call may be refused that would be too late.
Calls that end themselves within 0.1 s do not count."""
CALLERS = 12
PAUSE = 0.05
"""Seconds that a caller waits after an error: a session that ends refuses calls at once."""
MAX_FAULTS = 100
"""The most faults that are kept as text; they are counted without a limit."""

Kind: TypeAlias = Callable[[int], Awaitable[str]]
"""Makes one call with a label, and returns its outcome."""

FATES = {
    trio_rpc.Fate.NOT_STARTED: "not_started",
    trio_rpc.Fate.STOPPED: "stopped",
    trio_rpc.Fate.UNKNOWN: "unknown",
}


@dataclass
class Tally:
    """The calls of all clients so far, and the faults that were found."""

    ledger: Ledger
    labels: itertools.count[int] = field(default_factory=itertools.count)
    items: Counter[str] = field(default_factory=Counter)
    calls: int = 0
    wrong: int = 0
    refused: int = 0
    faults: list[str] = field(default_factory=list)

    def refusal_faults(self) -> list[str]:
        """Return a fault if servers have refused too many calls."""
        if self.refused <= MOST_REFUSED * self.calls:
            return []
        return [f"{self.refused} of {self.calls} calls were refused as overloaded"]

    def fault(self, text: str) -> None:
        self.wrong += 1
        if len(self.faults) < MAX_FAULTS:
            self.faults.append(text)


class Traffic:
    """The traffic of one session until it is cancelled or the session ends."""

    def __init__(self, session: trio_rpc.Session, tally: Tally, lane: str, seed: int) -> None:
        self.session = session
        self.tally = tally
        self.lane = lane
        self.random = random.Random(seed)  # noqa: S311 - to be repeatable

    async def run(self) -> None:
        """Make calls until the session is over, or this is cancelled."""
        async with trio.open_nursery() as nursery:
            for _ in range(CALLERS):
                nursery.start_soon(self._caller)
            for each in (self._receive_items, self._send_items, self._duplex):
                nursery.start_soon(self._until_closed, each)

    async def _caller(self) -> None:
        kinds = [self._work] * 6 + [self._cancelled, self._slow_to_end, self._refused]
        kinds += [self._ask, self._large]
        while not self.session.closed.is_set():
            await self._call(self.random.choice(kinds))

    async def _until_closed(self, each: Callable[[], Awaitable[None]]) -> None:
        try:
            await each()
        except trio_rpc.RpcError as exc:
            self._check_error(exc)
        except trio.BrokenResourceError:
            pass  # the other end of a duplex has left, and its reply is still on its way

    # 1. Each call gets a label and exactly one line with its outcome, even if it fails.
    async def _call(self, kind: Kind) -> None:
        label = next(self.tally.labels)
        self.tally.calls += 1
        outcome = "abandoned"
        try:
            with trio.fail_after(HANGS_AFTER):
                outcome = await kind(label)
        except trio.TooSlowError:
            outcome = "hung"
            self.tally.fault(f"{self.lane}: call {label} hung")
        except trio_rpc.RpcError as exc:
            outcome = FATES[exc.fate]
            self._check_error(exc, kind)
            await trio.sleep(PAUSE)
        finally:
            self.tally.ledger.write(label, outcome, f"{self.lane}: {kind.__name__}")

    # 2. An error must come from the end of the session, or say that the call may be repeated.
    def _check_error(self, exc: trio_rpc.RpcError, kind: Kind | None = None) -> None:
        expected = trio_rpc.SessionBroken, trio_rpc.SessionClosed, trio_rpc.Unavailable
        if isinstance(exc, trio_rpc.Overloaded):
            self.tally.refused += kind not in (self._cancelled, self._slow_to_end)
        elif not isinstance(exc, (*expected, trio_rpc.RemoteCancelled)):
            name = "" if kind is None else kind.__name__
            self.tally.fault(f"{self.lane}{name}: {exc!r}"[:300])

    def _expect(self, result: object, expected: object, what: str) -> str:
        if result != expected:
            self.tally.fault(f"{self.lane}: {what} returned another value"[:300])
        return "returned"

    # 3. The kinds of calls. Each returns its outcome.
    async def _work(self, label: int) -> str:
        seconds = self.random.choice((0, 0, 0.001, 0.01))
        return self._expect(await self.session.call("work", label, seconds), label + 1, "work")

    async def _cancelled(self, label: int) -> str:
        return await self._stop("work", label, 3600.0)

    async def _slow_to_end(self, label: int) -> str:
        return await self._stop("slow_to_end", label, 0.01)

    async def _stop(self, method: str, label: int, seconds: float) -> str:
        with trio.move_on_after(self.random.uniform(0, 0.1)) as scope:
            await self.session.call(method, label, seconds)
        if not scope.cancelled_caught:
            self.tally.fault(f"{self.lane}: {method} returned before its time")
        # The handler has ended, unless the session ended meanwhile: then nobody can tell. The end
        # of a lost session takes a moment to show, so a ping tells whether it lived until here.
        self.tally.ledger.write(label, "went_on", self.lane)
        await self.session.ping()
        return "stopped"

    async def _refused(self, label: int) -> str:
        try:
            await self.session.call("refuse", label)
        except trio_rpc.RemoteError as exc:
            self._expect(exc.type_name, "RefusedOnPurpose", "refuse")
        return "raised"

    async def _ask(self, label: int) -> str:
        asked: list[int] = []

        async def answer(number: int) -> int:
            asked.append(number)
            return -number

        answers = await self.session.call("ask", label, answer)
        self._expect(asked, [0, 1, 2], "the questions of ask")
        return self._expect(answers, [0, -1, -2], "ask")

    async def _large(self, label: int) -> str:
        content = self.random.randbytes(LARGE)
        return self._expect(await self.session.call("large", label, content), content, "large")

    # 4. Streams and duplexes: each item once and in order.
    async def _receive_items(self) -> None:
        while True:
            length = self.random.randrange(1, 5000)
            async with self.session.stream("count") as numbers:
                expected = 0
                async for number in numbers:
                    if number != expected:
                        self.tally.fault(f"{self.lane}: item {number} in place of {expected}")
                        return
                    expected += 1
                    self.tally.items["received"] += 1
                    if expected == length:
                        break

    async def _send_items(self) -> None:
        while True:
            await self._call(self._collect)

    async def _collect(self, label: int) -> str:
        length = self.random.randrange(5000)

        async def numbers() -> AsyncIterator[int]:
            for number in range(length):
                self.tally.items["sent"] += 1
                yield number

        arrived: Any = await self.session.call("collect", label, numbers())
        return self._expect(arrived, length, "collect")

    async def _duplex(self) -> None:
        async with self.session.duplex("echo") as channel:
            for first in itertools.count(step=10):
                sent = list(range(first, first + 10))
                for number in sent:
                    await channel.send(number)
                got = [await channel.receive() for _ in sent]
                self.tally.items["echoed"] += len(got)
                if got != sent:
                    self.tally.fault(f"{self.lane}: a duplex echoed {got} for {sent}")
                    return
