"""Lanes: one transport each, with sessions that are opened again and again, and cut or killed."""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import ssl
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import trio

import trio_rpc
from tests.helpers.nats_server import MISSING, find_program, nats_server
from trio_rpc.testing import ChaosProxy, Faults, open_chaos_proxy

from .serving import RESUME
from .traffic import Tally, Traffic

SCHEMES = ("tcp", "tls", "unix", "ws", "wss")
SHORTEST, LONGEST = 0.2, 2.0
"""Seconds between two cuts of a session that resumes."""
SESSION_SECONDS = 8.0
"""The most seconds of a session before it is closed in the ordinary way."""
TO_START = 120.0
"""Seconds within which a server must listen. On a crowded machine Python itself has needed 30."""
AWAY = 2.0
"""Seconds for which a cut client that resumes over NATS does not reach the broker. The channel
itself survives a shorter loss; after ``linger`` the server gives it up, and the session resumes."""
LATENCY = Faults(latency=0.001, jitter=0.002)

Open = Callable[[], AbstractAsyncContextManager[trio_rpc.Session]]


@dataclass
class Place:
    """The places of the files of one soak."""

    folder: Path
    broker: str = ""
    """The URL of the NATS server, or ``""`` without one."""

    @property
    def ran(self) -> Path:
        return self.folder / "ran"

    @property
    def asked(self) -> Path:
        return self.folder / "asked"

    @property
    def certificate(self) -> Path:
        return self.folder / "server.pem"

    @property
    def authority(self) -> Path:
        return self.folder / "authority.pem"

    def trusting(self) -> ssl.SSLContext:
        return ssl.create_default_context(cafile=str(self.authority))

    def command(self, *urls: str) -> list[str]:
        program = [sys.executable, "-m", "tests.soak.serving"]
        return [*program, str(self.ran), str(self.certificate), *urls]

    def urls(self, name: str) -> list[str]:
        urls = [
            f"unix://{self.folder}/{name}" if scheme == "unix" else f"{scheme}://127.0.0.1:0"
            for scheme in SCHEMES
        ]
        return [*urls, f"{self.broker}/{name}"] if self.broker else urls

    def broker_errors(self) -> list[str]:
        """Return the lines of the broker's log about bytes that are not its protocol.

        Sessions survive the end of such a connection, so no call would tell of it.
        """
        log = self.folder / "nats" / "log"
        lines = log.read_text(errors="replace").splitlines() if log.exists() else []
        return [line for line in lines if "parser ERROR" in line]


@contextlib.asynccontextmanager
async def open_broker(place: Place) -> AsyncIterator[None]:
    """Run a NATS server for the block. If its program is missing, print one line and run none."""
    if find_program() is None:
        print(f"{MISSING}; no lane runs over NATS", file=sys.stderr, flush=True)
        yield
        return
    async with nats_server(place.folder, name="nats") as server:
        place.broker = server.url
        yield


@contextlib.asynccontextmanager
async def open_program(place: Place, name: str) -> AsyncIterator[tuple[trio.Process, list[str]]]:
    """Start a server with one URL of each scheme, and end it after the block."""
    process = await trio.lowlevel.open_process(
        place.command(*place.urls(name)), stdout=subprocess.PIPE
    )
    try:
        with trio.fail_after(TO_START):
            line = b""
            while not line.endswith(b"\n"):
                got = await process.stdout.receive_some()  # type: ignore[union-attr]
                if not got:
                    raise RuntimeError(f"a server ended with code {await process.wait()}")
                line += got
        yield process, json.loads(line)
    finally:
        process.terminate()
        with trio.move_on_after(10, shield=True):
            await process.wait()
        process.kill()
        with trio.CancelScope(shield=True):
            await process.wait()
            await process.stdout.aclose()  # type: ignore[union-attr]


class Lane:
    """One transport: opens sessions in a row, with traffic in each."""

    def __init__(self, name: str, tally: Tally, seed: int) -> None:
        self.name = name
        self.tally = tally
        self.random = random.Random(seed)  # noqa: S311 - to be repeatable
        self.sessions = 0
        self.is_open = False
        self._is_stopping = False
        self._scope = trio.CancelScope()

    def stop(self) -> None:
        """Close the present session in the ordinary way, and open no other one."""
        self._is_stopping = True
        self._scope.cancel()

    async def run(self, opened: Open, *, may_break: bool) -> None:
        """Open sessions until stopped."""
        while not self._is_stopping:
            try:
                await self._one_session(opened)
            except (trio_rpc.SessionBroken, trio_rpc.Refused, OSError) as exc:
                if not may_break:
                    self.tally.fault(f"{self.name}: lost a session: {exc!r}"[:300])
                await trio.sleep(0.1)

    async def _one_session(self, opened: Open) -> None:
        async with opened() as session:
            self.sessions += 1
            traffic = Traffic(session, self.tally, self.name, self.random.getrandbits(32))
            with trio.move_on_after(self.random.uniform(0.5, SESSION_SECONDS)) as self._scope:
                if self._is_stopping:
                    return
                self.is_open = True
                try:
                    await traffic.run()
                finally:
                    self.is_open = False

    async def cut(
        self, proxy: ChaosProxy, shortest: float, longest: float, away: float = 0.0
    ) -> None:
        """Cut the connections again and again, but not while a session is opened or closed.

        Args:
            proxy: has the connections.
            shortest: the least seconds between two cuts.
            longest: the most seconds.
            away: seconds after a cut for which the proxy refuses new connections.
        """
        while True:
            await trio.sleep(self.random.uniform(shortest, longest))
            if self.is_open:
                proxy.is_refusing = away > 0
                self.random.choice((proxy.cut, proxy.reset))()
                await trio.sleep(away)
                proxy.is_refusing = False


async def run_url(
    lane: Lane, place: Place, url: str, *, resume: bool, cuts: tuple[float, float] | None
) -> None:
    """Run a lane to a server that stays, through a proxy that cuts its connections.

    Over NATS the proxy stands between the client and the broker, and a cut costs no session.
    """
    context = place.trusting() if url.startswith(("tls", "wss")) else None
    is_nats = url.startswith("nats")
    host = urlsplit(url).netloc
    target = f"tcp://{host}" if is_nats else url
    async with open_chaos_proxy(target, forth=LATENCY, seed=lane.random.getrandbits(32)) as proxy:
        nearest = url.replace(host, urlsplit(proxy.url).netloc) if is_nats else proxy.url

        def opened() -> AbstractAsyncContextManager[trio_rpc.Session]:
            proxy.is_refusing = False  # the last session may have ended just after a cut
            return trio_rpc.connect(
                nearest,
                ssl_context=context,
                resume=RESUME if resume else False,
                on_end="keep",
            )

        async with trio.open_nursery() as nursery:
            if cuts is not None:
                nursery.start_soon(lane.cut, proxy, *cuts, AWAY if is_nats and resume else 0.0)
            may_break = cuts is not None and not resume and not is_nats
            await lane.run(opened, may_break=may_break)
            nursery.cancel_scope.cancel()


async def run_restarted(lanes: list[Lane], place: Place, seed: int, stopping: trio.Event) -> None:
    """Run lanes to a server that is killed or drained again and again, until ``stopping``."""
    generator = random.Random(seed)  # noqa: S311 - to be repeatable
    number = 0
    while not stopping.is_set():
        number += 1
        async with open_program(place, f"restarted{number}") as (process, urls):
            async with trio.open_nursery() as nursery:
                for lane, url in zip(lanes, urls, strict=False):
                    context = place.trusting() if url.startswith(("tls", "wss")) else None

                    def opened(
                        url: str = url, context: ssl.SSLContext | None = context
                    ) -> AbstractAsyncContextManager[trio_rpc.Session]:
                        return trio_rpc.connect(url, ssl_context=context, on_end="keep")

                    async def run(lane: Lane = lane, opened: Open = opened) -> None:
                        await lane.run(opened, may_break=True)

                    nursery.start_soon(run)
                with trio.move_on_after(generator.uniform(3, 10)):
                    await stopping.wait()
                process.send_signal(generator.choice((signal.SIGKILL, signal.SIGTERM)))
                with trio.fail_after(30):
                    await process.wait()
                await trio.sleep(generator.uniform(0, 0.5))
                nursery.cancel_scope.cancel()


async def run_children(lane: Lane, place: Place) -> None:
    """Run a lane of child processes, of which some are killed."""

    @contextlib.asynccontextmanager
    async def opened() -> AsyncIterator[trio_rpc.Session]:
        async with trio_rpc.open_process(place.command(), on_end="keep") as session:
            async with trio.open_nursery() as nursery:
                if lane.random.random() < 0.5:
                    nursery.start_soon(kill, session)
                yield session
                nursery.cancel_scope.cancel()

    async def kill(session: trio_rpc.Session) -> None:
        await trio.sleep(lane.random.uniform(0.2, 3))
        with contextlib.suppress(ProcessLookupError):
            os.kill(session.peer.pid, signal.SIGKILL)  # type: ignore[arg-type]

    await lane.run(opened, may_break=True)
